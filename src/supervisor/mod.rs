//! Keeps one Temporal running until it is asked to stop.
//!
//! The states are functions: `start` until it serves, `watch` while it does,
//! `stop` when asked; `run` is the loop over them. There is one thread, and it
//! sleeps in `Events::wait` whenever there is nothing to do.

mod database;
mod events;
pub mod orphan;
mod ports;
mod restart;
mod server;

use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use self::database::Database;
pub use self::events::{Event, Events, KEEP_SIGNAL, RESTART_SIGNAL};
pub use self::ports::check as check_ports;
use self::restart::{Decision, History, MAX_FAILURES};
use self::server::{Launch, Server, describe};
use crate::clock::after;
use crate::clock::unix_time;
use crate::config::Managed;
use crate::error::{Error, Result};
use crate::health::{self, Health};
use crate::home::Home;
use crate::install::Installed;
use crate::lock::Lock;
use crate::log_file;
use crate::state::{Lifetime, Phase, Process, State};
use crate::sys::{self, SIGKILL};
use crate::terminal::{Mark, Terminal};

/// Between two probes of a server that starts. Measured: a probe of a closed
/// port takes 0.03 ms, and Temporal serves about 100 ms after its spawn.
const PROBE_INTERVAL: Duration = Duration::from_millis(2);
/// Between two health checks of a server that serves.
const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Health checks in a row that fail before a server counts as hung.
const MAX_UNHEALTHY: u32 = 3;
/// Later than this, a wake-up tells that this process was held: stopped by a
/// signal or a debugger, or with its whole virtual machine.
const PAUSE: Duration = Duration::from_secs(1);
/// Temporal stops in 1.1 to 1.5 s.
pub const STOP_GRACE: Duration = Duration::from_secs(15);
const HUNG_GRACE: Duration = Duration::from_secs(5);
const QUOTED_LINES: usize = 10;

pub struct Supervisor<'a> {
    config: &'a Managed,
    home: &'a Home,
    installed: Installed,
    /// Where `start` was typed: relative paths among Temporal's arguments
    /// begin here.
    directory: PathBuf,
    database: Database,
    log: File,
    /// Where the current server's lines begin in the log.
    log_start: u64,
    events: Events,
    terminal: &'a mut Terminal,
    state: State,
    history: History,
}

/// How an attempt to start ended.
enum Started {
    Serving(Server),
    Failed(Fault),
    StopRequested,
}

/// How a server that was starting failed.
enum Fault {
    /// There is no process: the executable is being replaced, memory is short.
    NotSpawned(Error),
    Ended(ExitStatus),
    /// It lives, but did not serve in time.
    TimedOut,
}

impl Fault {
    fn describe(&self) -> String {
        match self {
            Fault::NotSpawned(error) => error.message().into(),
            Fault::Ended(status) => describe(*status),
            Fault::TimedOut => "not serving in time".into(),
        }
    }
}

/// Why watching ended.
enum Watched {
    StopRequested,
    RestartRequested,
    Ended(ExitStatus),
    Hung,
}

/// Why a server was stopped.
enum Stopped {
    /// By ourselves: another one is to follow.
    AsPlanned,
    /// Somebody asked, at first or meanwhile: none is to follow.
    OnRequest,
}

impl<'a> Supervisor<'a> {
    /// Takes the database and checks the ports. None: a stop was requested
    /// while the database was waited for.
    pub fn new(
        config: &'a Managed,
        home: &'a Home,
        installed: Installed,
        directory: PathBuf,
        mut events: Events,
        terminal: &'a mut Terminal,
        state: State,
    ) -> Result<Option<Supervisor<'a>>> {
        let path = config.database_argument().map_or(home.database(), |path| directory.join(path));
        let Some(database) = Database::open(path, &mut events, terminal)? else {
            return Ok(None);
        };
        check_ports(config)?;
        let log = log_file::open(&home.log())?;
        Ok(Some(Supervisor {
            config,
            home,
            installed,
            directory,
            database,
            log,
            log_start: 0,
            events,
            terminal,
            state,
            history: History::default(),
        }))
    }

    /// Starts Temporal, calls `on_ready` once it serves, and keeps it running.
    /// Returns when it was stopped on request, before or after that.
    pub fn run(mut self, on_ready: &mut dyn FnMut(&mut Terminal)) -> Result<()> {
        self.state.database = Some(self.database.path().to_owned());
        self.write_session_header();
        let Some(mut server) = self.first_start()? else {
            return Ok(());
        };
        if let Some(url) = self.config.ui_url() {
            self.terminal.line(Mark::Done, &format!("UI available at {url}"));
        }
        self.terminal.line(Mark::Done, "Stigmer Daemon Ready.");
        on_ready(self.terminal);
        loop {
            let watched = self.watch(&mut server);
            let next = match watched {
                Watched::StopRequested => {
                    self.stop_as_asked(server);
                    return Ok(());
                }
                Watched::RestartRequested => {
                    self.publish(Phase::Restarting);
                    self.terminal.line(Mark::Info, "Restarting Temporal.");
                    match self.stop(server, STOP_GRACE, 0) {
                        Stopped::AsPlanned => self.start_again()?,
                        Stopped::OnRequest => None,
                    }
                }
                Watched::Ended(status) => self.recover(server.serving_since, &describe(status))?,
                Watched::Hung => {
                    self.terminal.line(Mark::Warning, "Temporal does not answer any more; stopping it.");
                    let serving_since = server.serving_since;
                    self.publish(Phase::Restarting);
                    match self.stop(server, HUNG_GRACE, 0) {
                        Stopped::AsPlanned => self.recover(serving_since, "not answering health checks")?,
                        Stopped::OnRequest => None,
                    }
                }
            };
            match next {
                Some(started) => server = started,
                None => return Ok(()),
            }
        }
    }

    /// The first start: its failures are final, for they would be the same
    /// again, except that of a database that a killed first start left half made.
    fn first_start(&mut self) -> Result<Option<Server>> {
        match self.start(true)? {
            Started::Serving(server) => Ok(Some(server)),
            Started::StopRequested => Ok(None),
            Started::Failed(fault) if self.may_move_database_aside(&fault) => {
                self.move_database_aside()?;
                match self.start(true)? {
                    Started::Serving(server) => Ok(Some(server)),
                    Started::StopRequested => Ok(None),
                    Started::Failed(fault) => Err(self.cannot_start(fault)),
                }
            }
            Started::Failed(fault) => Err(self.cannot_start(fault)),
        }
    }

    /// Spawns a server and waits until it serves.
    fn start(&mut self, announce: bool) -> Result<Started> {
        self.log_start = self.log.metadata().map_or(0, |metadata| metadata.len());
        self.database.prepare()?;
        let spawned = Server::spawn(&Launch {
            executable: &self.installed.executable,
            config: self.config,
            database: self.database.path(),
            database_lock: self.database.lock().file(),
            log: &self.log,
            directory: &self.directory,
        });
        let server = match spawned {
            Ok(server) => server,
            Err(error) => return Ok(Started::Failed(Fault::NotSpawned(error))),
        };
        let pid = server.pid();
        self.state.temporal = Some(Process::of(pid));
        let phase = if announce { Phase::Starting } else { Phase::Restarting };
        self.publish(phase);
        if announce {
            self.terminal.line(Mark::Done, &format!("Temporal Server started (PID: {pid})"));
        }
        let started = self.wait_until_serving(server);
        match &started {
            Started::Serving(_) => {
                self.database.has_served();
                self.state.sessions += 1;
                self.publish(Phase::Ready);
            }
            _ => self.state.temporal = None,
        }
        Ok(started)
    }

    fn wait_until_serving(&mut self, mut server: Server) -> Started {
        let address = self.config.local_address();
        let deadline = after(self.config.ready_timeout.value);
        loop {
            if let Some(status) = server.reap_if_ended() {
                return Started::Failed(Fault::Ended(status));
            }
            let now = Instant::now();
            if now >= deadline {
                return match self.stop(server, HUNG_GRACE, 0) {
                    Stopped::AsPlanned => Started::Failed(Fault::TimedOut),
                    Stopped::OnRequest => Started::StopRequested,
                };
            }
            let health = health::check(address, deadline.min(now + HEALTH_TIMEOUT), Some(self.events.pending()));
            // Another program may have answered on the port while ours failed.
            if health == Health::Serving && !sys::has_ended(server.pid()) {
                server.serving_since = Some(Instant::now());
                return Started::Serving(server);
            }
            match self.events.wait(Some(after(PROBE_INTERVAL))) {
                Event::Stop => {
                    self.stop_as_asked(server);
                    return Started::StopRequested;
                }
                Event::Keep => self.state.lifetime = Lifetime::Kept,
                Event::Child | Event::Restart | Event::Deadline => {}
            }
        }
    }

    /// Sleeps while the server serves; asks it now and then whether it does.
    fn watch(&mut self, server: &mut Server) -> Watched {
        let mut unhealthy = 0;
        let mut next_check = after(HEALTH_INTERVAL);
        loop {
            match self.events.wait(Some(next_check)) {
                Event::Stop => return Watched::StopRequested,
                Event::Restart => return Watched::RestartRequested,
                Event::Keep => {
                    self.state.lifetime = Lifetime::Kept;
                    self.publish(Phase::Ready);
                }
                Event::Child => {
                    if let Some(status) = server.reap_if_ended() {
                        return Watched::Ended(status);
                    }
                }
                Event::Deadline => {
                    if next_check.elapsed() > PAUSE {
                        unhealthy = 0;
                    }
                    if self.retire_if_unused() {
                        return Watched::StopRequested;
                    }
                    let limit = after(HEALTH_TIMEOUT);
                    match health::check(self.config.local_address(), limit, Some(self.events.pending())) {
                        Health::Serving => unhealthy = 0,
                        // The check is made again when the event is dealt with.
                        Health::Interrupted => continue,
                        _ if limit.elapsed() > PAUSE => unhealthy = 0,
                        _ => unhealthy += 1,
                    }
                    if unhealthy >= MAX_UNHEALTHY {
                        return Watched::Hung;
                    }
                    next_check = after(HEALTH_INTERVAL);
                }
            }
        }
    }

    /// Whether every `run` for which this daemon was started is gone without
    /// having stopped it, as after a kill -9. Then no other may begin.
    fn retire_if_unused(&self) -> bool {
        if self.state.lifetime == Lifetime::Kept {
            return false;
        }
        match Lock::try_exclusive(&self.home.users_lock()) {
            // Held until this process is gone: a `run` that comes now waits.
            Ok(Some(lock)) => {
                std::mem::forget(lock);
                true
            }
            _ => false,
        }
    }

    /// Starts again after an unexpected end, as often as the policy allows.
    /// None: a stop was requested meanwhile.
    fn recover(&mut self, serving_since: Option<Instant>, what: &str) -> Result<Option<Server>> {
        let mut what = what.to_owned();
        let mut served = serving_since.map(|since| since.elapsed());
        loop {
            let delay = match self.history.ended(served) {
                Decision::After(delay) => delay,
                Decision::GiveUp => return Err(self.gave_up(&what)),
            };
            let when = match delay {
                Duration::ZERO => "at once".into(),
                delay => format!("in {} s", delay.as_secs_f64()),
            };
            self.terminal.line(Mark::Warning, &format!("Temporal ended unexpectedly ({what}); restarting {when}."));
            self.state.restarts += 1;
            self.state.temporal = None;
            // Spawning comes first where nothing is to be waited for.
            if !delay.is_zero() {
                self.publish(Phase::Restarting);
            }
            if self.stop_requested_within(delay) {
                return Ok(None);
            }
            match self.start(false)? {
                Started::Serving(server) => {
                    self.tell_ready_again(&server);
                    return Ok(Some(server));
                }
                Started::StopRequested => return Ok(None),
                Started::Failed(fault) => {
                    if self.may_move_database_aside(&fault) {
                        self.move_database_aside()?;
                    }
                    what = fault.describe();
                    served = None;
                }
            }
        }
    }

    /// Starts again because it was asked for.
    fn start_again(&mut self) -> Result<Option<Server>> {
        match self.start(false)? {
            Started::Serving(server) => {
                self.tell_ready_again(&server);
                Ok(Some(server))
            }
            Started::StopRequested => Ok(None),
            Started::Failed(fault) => self.recover(None, &fault.describe()),
        }
    }

    fn tell_ready_again(&mut self, server: &Server) {
        self.terminal.line(Mark::Done, &format!("Temporal is ready again (PID: {}).", server.pid()));
    }

    fn stop_requested_within(&mut self, delay: Duration) -> bool {
        let deadline = after(delay);
        loop {
            match self.events.wait(Some(deadline)) {
                Event::Stop => return true,
                Event::Deadline => return false,
                // A restart is under way already.
                Event::Restart | Event::Child => {}
                Event::Keep => self.state.lifetime = Lifetime::Kept,
            }
        }
    }

    fn stop_as_asked(&mut self, server: Server) {
        self.publish(Phase::Stopping);
        self.terminal.transient(Mark::Info, &format!("Stopping Temporal (PID: {})...", server.pid()));
        self.stop(server, STOP_GRACE, 1);
    }

    /// SIGTERM, and SIGKILL when `grace` is over or a stop is requested for the
    /// second time; `asked` times it was already.
    fn stop(&mut self, mut server: Server, grace: Duration, mut asked: u32) -> Stopped {
        let pid = server.pid();
        server.terminate();
        let deadline = after(grace);
        let mut killed = false;
        while server.reap_if_ended().is_none() {
            let event = self.events.wait((!killed).then_some(deadline));
            let why = match event {
                Event::Stop => {
                    asked += 1;
                    if asked < 2 {
                        self.publish(Phase::Stopping);
                        continue;
                    }
                    "as asked again"
                }
                Event::Deadline => "it did not stop in time",
                Event::Keep => {
                    self.state.lifetime = Lifetime::Kept;
                    continue;
                }
                Event::Child | Event::Restart => continue,
            };
            if !killed {
                self.terminal.line(Mark::Warning, &format!("Killing Temporal (PID: {pid}): {why}."));
            }
            server.kill();
            killed = true;
        }
        if asked == 0 {
            return Stopped::AsPlanned;
        }
        self.terminal.line(Mark::Done, "Temporal stopped.");
        Stopped::OnRequest
    }

    /// Whether the fault may lie in a database that holds nothing yet.
    fn may_move_database_aside(&self, fault: &Fault) -> bool {
        matches!(fault, Fault::Ended(_))
            && self.database.never_served()
            && self.database.path().exists()
            && !self.quote().iter().any(|line| line.contains("address already in use"))
    }

    fn move_database_aside(&mut self) -> Result<()> {
        let aside = self.database.move_aside()?;
        let text = format!("The database was never completed; moved it to {} and making a new one.", aside.display());
        self.terminal.line(Mark::Warning, &text);
        Ok(())
    }

    fn quote(&self) -> Vec<String> {
        log_file::quote(&self.home.log(), self.log_start, QUOTED_LINES)
    }

    fn cannot_start(&self, fault: Fault) -> Error {
        let why = match &fault {
            Fault::NotSpawned(error) => error.message().into(),
            Fault::Ended(status) => format!("it ended with {} before it served", describe(*status)),
            Fault::TimedOut => {
                format!("it did not serve within {} s", self.config.ready_timeout.value.as_secs())
            }
        };
        match fault {
            Fault::NotSpawned(error) => error,
            fault => self.explain(Error::new(format!("cannot start Temporal: {why}")), Some(&fault)),
        }
    }

    fn gave_up(&self, what: &str) -> Error {
        let text = format!("cannot keep Temporal running: it failed {MAX_FAILURES} times, the last with {what}");
        self.explain(Error::new(text), None)
    }

    /// Adds the log's end and, where the log tells the cause, what to do.
    fn explain(&self, error: Error, fault: Option<&Fault>) -> Error {
        let lines = self.quote();
        let log = self.home.display(&self.home.log());
        let database = self.database.path().display();
        let says = |text: &str| lines.iter().any(|line| line.contains(text));
        let hint = if says("address already in use") {
            "the port was taken meanwhile; choose others with --port and --ui-port".into()
        } else if says("no such table") || says("not a database") || says("malformed") {
            format!("{database} cannot be used as a database; move it away to begin anew, its workflows are in it")
        } else if says("unable to open database") || says("readonly database") || says("disk is full") {
            format!("{database} cannot be written to; check its permissions and the free space")
        } else if says("unknown flag") || says("unknown shorthand flag") {
            "check --temporal-arg and 'temporal server start-dev --help'".into()
        } else if matches!(fault, Some(Fault::TimedOut)) {
            format!("give it more time with --ready-timeout, or see {log}")
        } else if matches!(fault, Some(Fault::Ended(status)) if status.signal() == Some(SIGKILL)) {
            "somebody killed it; if nobody did, the system ran out of memory".into()
        } else {
            format!("see {log}")
        };
        error.with_log_tail(lines).hint(hint)
    }

    /// A header between two sessions in Temporal's log.
    fn write_session_header(&mut self) {
        let version = self.installed.version.as_ref().map_or("of the user".into(), ToString::to_string);
        let ui = self.config.ui_url().unwrap_or_else(|| "no UI".into());
        let _ = self.log.write_all(
            format!(
                "=== {} stigmer {}: Temporal {version} on {}, {ui}\n",
                crate::clock::utc(unix_time()),
                env!("CARGO_PKG_VERSION"),
                self.config.bind_address()
            )
            .as_bytes(),
        );
    }

    fn publish(&mut self, phase: Phase) {
        self.state.phase = phase;
        self.state.publish(self.home, self.terminal);
    }
}
