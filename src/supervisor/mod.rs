//! Keeps one Temporal running until it is asked to stop.
//!
//! The states are functions: `start` until it serves, `watch` while it does,
//! `recover` when it failed; `keep_running` is the loop over them, and a
//! request to stop is the one way out of all. There is one thread, and it
//! sleeps in `wait` whenever there is nothing to do.

mod belongings;
mod diagnosis;
pub mod disk;
mod ephemeral;
mod fresh;
mod held;
mod listener;
mod namespaces;
pub mod orphan;
mod ports;
pub mod program;
mod readiness;
mod restart;
mod server;

use std::convert::Infallible;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use self::belongings::Belongings;
use self::diagnosis::{Cause, Fault};
pub use self::ephemeral::Ephemeral;
pub use self::fresh::make_database;
pub use self::ports::{Endpoints, check as check_ports};
use self::readiness::Pulse;
use self::restart::{History, Prospect};
pub use self::server::{Server, in_words};
use crate::clock::{after, unix_time, utc};
use crate::config::Managed;
use crate::database::{Database, Making};
use crate::error::{Result, one_line};
use crate::events::{Event, Events, Halt};
use crate::exchange;
use crate::home::Home;
use crate::install::Installed;
use crate::log_file;
use crate::record::{Program, Record, Refusal};
use crate::state::{Lifetime, Phase, Process, Retry, State};
use crate::sys;
use crate::tenure::Tenure;
use crate::terminal::{Mark, Terminal};

/// Temporal stops in 1.1 to 1.5 s; bound to another address than 127.0.0.1 in
/// 14 to 15 s, for its inner services do not find each other there while they
/// stop (measured on 1.9.1).
pub const STOP_GRACE: Duration = Duration::from_secs(25);
const HUNG_GRACE: Duration = Duration::from_secs(5);
/// One interruption may arrive twice: terminals, `timeout` and supervisors send
/// it to a process and to its group.
const SAME_INTERRUPTION: Duration = Duration::from_millis(500);

/// All that is decided before a server is spawned.
pub struct Plan<'a> {
    pub config: &'a Managed,
    pub endpoints: Endpoints,
    pub home: &'a Home,
    pub choice: Choice,
    /// None: in memory.
    pub database: Option<Database>,
    /// Where `start` was typed: relative paths among Temporal's arguments
    /// begin here.
    pub directory: PathBuf,
}

/// The Temporal that is to serve.
pub struct Choice {
    pub installed: Installed,
    /// What the record of the database is to say of it.
    pub program: Program,
    pub refusal: Option<Refusal>,
    /// What the header of the log adds.
    pub remark: String,
}

/// Chooses again, where not the same files lie at their paths any more.
pub type Choose<'a> = &'a mut dyn FnMut(Option<&Database>, &mut Events, &mut Terminal) -> Result<Choice, Halt>;

/// What is said and done once it serves.
pub struct OnReady<'a> {
    /// How whoever started it stops it; None where that is not up to them.
    pub stop: Option<&'static str>,
    pub then: &'a mut dyn FnMut(&mut Terminal),
}

/// What people need, beside the Web UI.
pub fn how_to_use(address: &impl std::fmt::Display, stop: Option<&str>) -> String {
    let stop = stop.map_or(String::new(), |stop| format!("; {stop} stops it"));
    format!("Clients connect to {address}{stop}.")
}

pub struct Supervisor<'a> {
    plan: Plan<'a>,
    choose: Choose<'a>,
    log: File,
    /// Where the current server's lines begin in the log.
    log_start: u64,
    events: &'a mut Events,
    terminal: &'a mut Terminal,
    tenure: &'a mut Tenure,
    belongings: Belongings,
    history: History,
    server: Option<Server>,
    serving_since: Option<Instant>,
    /// Whether the namespaces are what they were asked to be.
    is_established: bool,
    /// Whether it was said that the disk is.
    is_disk_short: bool,
}

/// How an attempt to start ended.
enum Started {
    Serving,
    Failed(Fault),
}

/// Why watching ended.
enum Watched {
    RestartRequested,
    Ended(ExitStatus),
    Hung,
}

impl<'a> Supervisor<'a> {
    pub fn new(
        plan: Plan<'a>,
        choose: Choose<'a>,
        events: &'a mut Events,
        terminal: &'a mut Terminal,
        tenure: &'a mut Tenure,
    ) -> Result<Supervisor<'a>> {
        check_ports(plan.config)?;
        let log = log_file::open(&plan.home.instance.log())?;
        tenure.state.database = plan.database.as_ref().map(|database| database.path().to_owned());
        note_executable(&mut tenure.state, &plan.choice.installed);
        Ok(Supervisor {
            plan,
            choose,
            log,
            log_start: 0,
            events,
            terminal,
            tenure,
            belongings: Belongings::default(),
            history: History::default(),
            server: None,
            serving_since: None,
            is_established: false,
            is_disk_short: false,
        })
    }

    /// Starts Temporal, says so once it serves, and keeps it running. Returns
    /// when it was stopped on request, before or after that.
    pub fn run(mut self, on_ready: OnReady<'_>) -> Result<()> {
        self.write_log_header("");
        match self.keep_running(on_ready) {
            Err(Halt::StopRequested) => {
                self.shut_down();
                Ok(())
            }
            Err(Halt::Failed(error)) => Err(error),
        }
    }

    fn keep_running(&mut self, on_ready: OnReady<'_>) -> Result<Infallible, Halt> {
        self.first_start()?;
        if let Some(url) = self.plan.endpoints.ui_url() {
            self.terminal.line(Mark::Done, &format!("UI available at {url}"));
        }
        self.terminal.line(Mark::Info, &how_to_use(&self.plan.endpoints.address(), on_ready.stop));
        self.terminal.line(Mark::Done, "Stigmer Daemon Ready.");
        (on_ready.then)(self.terminal);
        self.note_program();
        self.events.watchdog = self.tenure.watchdog();
        loop {
            match self.watch()? {
                Watched::RestartRequested => {
                    self.publish(Phase::Restarting);
                    self.terminal.line(Mark::Info, "Restarting Temporal.");
                    self.stop(STOP_GRACE)?;
                    self.start_again()?;
                }
                Watched::Ended(status) => self.recover(Fault::Ended(status))?,
                Watched::Hung => {
                    self.terminal.line(Mark::Warning, "Temporal no longer answers; stopping it.");
                    self.publish(Phase::Restarting);
                    self.stop(HUNG_GRACE)?;
                    self.recover(Fault::Hung)?;
                }
            }
        }
    }

    /// The first start: its failures are final, for they would be the same
    /// again, except those of a database that a killed first start left half
    /// made, and of a free port that another program took meanwhile.
    fn first_start(&mut self) -> Result<(), Halt> {
        let (mut choices, mut moved) = (1, false);
        loop {
            let fault = match self.start(Phase::Starting)? {
                Started::Serving => return Ok(()),
                Started::Failed(fault) => fault,
            };
            let cause = self.cause(&fault);
            let can_choose = choices < ports::MAX_CHOICES && ports::are_free_to_choose(self.plan.config);
            if can_choose && cause == Some(Cause::PortTaken) {
                choices += 1;
                self.take_ports(Endpoints::choose(self.plan.config)?);
            } else if !moved && self.move_database_aside(&fault, cause)? {
                moved = true;
            } else {
                return Err(self.cannot_start(fault).into());
            }
        }
    }

    fn take_ports(&mut self, endpoints: Endpoints) {
        self.plan.endpoints = endpoints;
        self.tenure.state.address = endpoints.address().to_string();
        self.tenure.state.ui_url = endpoints.ui_url();
    }

    /// Spawns a server and waits until it serves.
    fn start(&mut self, phase: Phase) -> Result<Started, Halt> {
        self.log_start = self.log.metadata().map_or(0, |metadata| metadata.len());
        self.say_if_database_is_new();
        if let Some(database) = &self.plan.database {
            database.prepare()?;
        }
        let spawned = self.tenure.check_home().and_then(|()| Server::spawn(&self.plan, &self.log));
        let server = match spawned {
            Ok(server) => server,
            Err(error) => {
                self.note_failure();
                return Ok(Started::Failed(Fault::NotSpawned(error)));
            }
        };
        let pid = server.pid();
        self.belongings.note_executable(&self.plan);
        self.server = Some(server);
        self.tenure.state.temporal = Some(Process::of(pid));
        self.publish(phase);
        if phase == Phase::Starting {
            self.terminal.transient(Mark::Info, &format!("Starting Temporal (PID: {pid})..."));
        }
        let mut started = self.wait_until_serving()?;
        if let Started::Serving = started {
            if let Some(database) = &self.plan.database {
                database.has_served();
                exchange::commit(database, self.plan.home, self.terminal)?;
            }
            started = self.establish_namespaces()?;
        }
        match &started {
            Started::Serving => {
                if phase == Phase::Starting {
                    self.terminal.line(Mark::Done, &format!("Temporal Server started (PID: {pid})"));
                }
                self.learn_version();
                self.belongings.note_database(&self.plan);
                self.tenure.state.times_ready += 1;
                self.publish(Phase::Ready);
            }
            Started::Failed(_) => {
                self.tenure.state.temporal = None;
                self.note_failure();
            }
        }
        Ok(started)
    }

    /// Learns which Temporal the database is of. An executable that is not ours has
    /// named its version in the log.
    fn learn_version(&mut self) {
        if self.plan.database.is_none() {
            return;
        }
        let version = &mut self.plan.choice.program.version;
        if version.is_none() {
            let beginning = log_file::beginning(&self.plan.home.instance.log(), self.log_start);
            *version = beginning.lines().find_map(diagnosis::version_in_banner);
        }
        self.tenure.state.database_version = version.as_ref().map(ToString::to_string);
    }

    /// The same of one that had not named it when it began to serve.
    fn learn_version_late(&mut self) {
        if self.plan.choice.program.version.is_some() {
            return;
        }
        self.learn_version();
        if self.plan.choice.program.version.is_some() {
            self.note_program();
            self.publish(self.tenure.state.phase);
        }
    }

    /// Notes it for the next start.
    fn note_program(&mut self) {
        if let Some(database) = &self.plan.database {
            let choice = &mut self.plan.choice;
            Record::note(database.path(), choice.program.clone(), choice.refusal.take());
        }
    }

    fn note_failure(&self) {
        if let Some(database) = &self.plan.database {
            database.has_failed();
        }
    }

    /// Sleeps while the server serves; asks it now and then whether it does.
    fn watch(&mut self) -> Result<Watched, Halt> {
        let mut pulse = Pulse::begin();
        loop {
            match self.wait(Some(pulse.next()))? {
                Event::Restart => return Ok(Watched::RestartRequested),
                Event::Child => {
                    if let Some(status) = self.reap() {
                        return Ok(Watched::Ended(status));
                    }
                }
                Event::Deadline if self.tenure.is_unused() => return Err(Halt::StopRequested),
                Event::Deadline => {
                    let was_held = pulse.is_late();
                    self.learn_version_late();
                    self.look_after_belongings()?;
                    self.look_at_disk();
                    if !pulse.check(self, was_held) {
                        return Ok(Watched::Hung);
                    }
                }
                Event::Keep => {}
            }
        }
    }

    /// Starts again after an unexpected end, as often as the policy allows.
    fn recover(&mut self, mut fault: Fault) -> Result<(), Halt> {
        loop {
            let served = self.serving_since.take().map(|since| since.elapsed());
            // The log of one that served need not be read before it is back.
            let cause = if served.is_none() { self.cause(&fault) } else { None };
            let may_pass = served.is_some() || self.move_database_aside(&fault, cause)?;
            let (prospect, why) = match may_pass {
                true => (Prospect::MayPass, fault.in_words()),
                false => (self.prospect(&fault, cause), self.in_words(&fault, cause)),
            };
            let Some(delay) = self.history.ended(Instant::now(), served, prospect) else {
                return Err(self.cannot_start(fault).into());
            };
            self.wait_to_restart(fault.effect(), &why, delay)?;
            match self.start_once_more(&format!(", again after {}", one_line(&why)))? {
                Started::Serving => {
                    self.announce_ready_again();
                    return Ok(());
                }
                Started::Failed(next) => fault = next,
            }
        }
    }

    /// Says what comes next, here and to whoever asks meanwhile, and sleeps
    /// until then. A restart that is asked for is made at once.
    fn wait_to_restart(&mut self, effect: &str, why: &str, delay: Duration) -> Result<(), Halt> {
        let when = match delay {
            Duration::ZERO => "at once".into(),
            delay => format!("in {} s", delay.as_secs_f64()),
        };
        self.terminal.line(Mark::Warning, &format!("Temporal {effect} ({why}); restarting {when}."));
        self.tenure.state.restarts += 1;
        self.tenure.state.temporal = None;
        // Spawning comes first where there is nothing to wait for.
        if delay.is_zero() {
            return Ok(());
        }
        self.tenure.state.retry = Some(Retry { at: sys::seconds_since_boot() + delay.as_secs(), why: one_line(why) });
        self.publish(Phase::Restarting);
        let deadline = after(delay);
        while !matches!(self.wait(Some(deadline))?, Event::Deadline | Event::Restart) {}
        if self.tenure.is_unused() {
            return Err(Halt::StopRequested);
        }
        self.tenure.keep(self.terminal)?;
        self.tenure.state.retry = None;
        Ok(())
    }

    /// Starts again because it was asked for.
    fn start_again(&mut self) -> Result<(), Halt> {
        self.serving_since = None;
        match self.start_once_more(", restarted on request")? {
            Started::Serving => {
                self.announce_ready_again();
                Ok(())
            }
            Started::Failed(fault) => self.recover(fault),
        }
    }

    fn start_once_more(&mut self, remark: &str) -> Result<Started, Halt> {
        if self.belongings.are_replaced(&self.plan) {
            self.plan.choice = (self.choose)(self.plan.database.as_ref(), self.events, self.terminal)?;
            note_executable(&mut self.tenure.state, &self.plan.choice.installed);
        }
        self.write_log_header(remark);
        self.start(Phase::Restarting)
    }

    fn announce_ready_again(&mut self) {
        self.note_program();
        let pid = self.pid().unwrap_or_default();
        self.terminal.line(Mark::Done, &format!("Temporal is ready again (PID: {pid})."));
    }

    /// Sleeps until something concerns the server. Whoever asks meanwhile that
    /// this daemon be kept is answered here.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<Event, Halt> {
        // Before and not after: the server has been reaped by now, behind which
        // others are not seen.
        sys::reap_all_but(self.pid().as_slice());
        let event = self.events.wait(deadline)?;
        if event == Event::Keep {
            self.tenure.state.lifetime = Lifetime::Kept;
            self.publish(self.tenure.state.phase);
        }
        Ok(event)
    }

    fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// The status of the server if it has ended; it is gone then.
    fn reap(&mut self) -> Option<ExitStatus> {
        let status = self.server.as_mut()?.reap_if_ended()?;
        self.server = None;
        Some(status)
    }

    /// Stops the server because another one is to follow. When a stop is
    /// requested meanwhile, none is.
    fn stop(&mut self, grace: Duration) -> Result<(), Halt> {
        self.terminate(grace, None)
    }

    /// Stops the server, if there is one, because that was requested.
    fn shut_down(&mut self) {
        self.publish(Phase::Stopping);
        if let Some(pid) = self.pid() {
            self.terminal.transient(Mark::Info, &format!("Stopping Temporal (PID: {pid})..."));
        }
        let _ = self.terminate(STOP_GRACE, Some(Instant::now()));
        self.learn_version_late();
        self.terminal.line(Mark::Done, "Temporal stopped.");
    }

    /// SIGTERM, and SIGKILL when `grace` is over or a stop is requested for the
    /// second time; `requested`: when it was for the first.
    fn terminate(&mut self, grace: Duration, mut requested: Option<Instant>) -> Result<(), Halt> {
        let Some(server) = &self.server else { return Ok(()) };
        server.terminate();
        let (pid, mut deadline) = (server.pid(), Some(after(grace)));
        while self.reap().is_none() {
            let why = match self.wait(deadline) {
                Ok(Event::Deadline) => "it did not stop in time",
                Ok(_) => continue,
                Err(_) if requested.is_some_and(|first| first.elapsed() < SAME_INTERRUPTION) => continue,
                Err(_) if requested.is_some() => "interrupted twice",
                Err(_) => {
                    requested = Some(Instant::now());
                    self.publish(Phase::Stopping);
                    continue;
                }
            };
            if deadline.take().is_some() {
                self.terminal.line(Mark::Warning, &format!("Killing Temporal (PID: {pid}): {why}."));
            }
            self.server.iter().for_each(Server::kill);
        }
        match requested {
            Some(_) => Err(Halt::StopRequested),
            None => Ok(()),
        }
    }

    /// Moves the database away if the fault may lie in it and it holds nothing
    /// yet; returns whether it did.
    fn move_database_aside(&mut self, fault: &Fault, cause: Option<Cause>) -> Result<bool> {
        let (Some(database), Fault::Ended(status)) = (&self.plan.database, fault) else { return Ok(false) };
        let is_named = cause == Some(Cause::NotADatabase);
        let is_suspect = match database.making() {
            Making::Unfinished => is_named || status.signal().is_some(),
            Making::Unknown => is_named,
            Making::Finished => false,
        };
        if !is_suspect {
            return Ok(false);
        }
        let aside = database.move_aside(".broken")?;
        let text = format!("The database was never completed; moved it to {} and making a new one.", aside.display());
        self.terminal.line(Mark::Warning, &text);
        Ok(true)
    }

    /// What separates one server's lines in Temporal's log from the next one's.
    fn write_log_header(&mut self, remark: &str) {
        let endpoints = self.plan.endpoints;
        let version = self.plan.choice.installed.version.as_ref().map_or("of the user".into(), ToString::to_string);
        let ui = endpoints.ui_url().unwrap_or_else(|| "no UI".into());
        let (time, stigmer) = (utc(unix_time()), env!("CARGO_PKG_VERSION"));
        // True of the start that comes next alone.
        let migrated = std::mem::take(&mut self.plan.choice.remark);
        let frontend = endpoints.frontend;
        let header =
            format!("=== {time} stigmer {stigmer}: Temporal {version} on {frontend}, {ui}{migrated}{remark}\n");
        let _ = self.log.write_all(header.as_bytes());
    }

    fn publish(&mut self, phase: Phase) {
        self.tenure.state.phase = phase;
        self.tenure.state.retry = self.tenure.state.retry.take().filter(|_| phase == Phase::Restarting);
        self.tenure.publish(self.terminal);
    }
}

fn note_executable(state: &mut State, installed: &Installed) {
    state.temporal_cli = Some(installed.executable.clone());
    state.temporal_version = installed.version.as_ref().map(ToString::to_string);
}
