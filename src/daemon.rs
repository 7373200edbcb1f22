//! The daemon: one for each home, from taking the lock to the last line.
//!
//! `serve` is the whole of it in one process; `detach` puts it into the
//! background and waits for it to be ready or to fail.

use std::ffi::OsString;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use crate::cli::ServerOptions;
use crate::clock::after;
use crate::clock::unix_time;
use crate::config::{self, Config, External, Managed};
use crate::error::{Error, Result};
use crate::external;
use crate::home::Home;
use crate::install::{self, Found};
use crate::lock::Lock;
use crate::log_file;
use crate::state::{Daemon, Lifetime, Mode, Phase, Process, State};
use crate::supervisor::{self, Event, Events, KEEP_SIGNAL, STOP_GRACE, Supervisor, orphan};
use crate::sys::{self, Fork, Forwarder, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use crate::terminal::{EXPLAIN_AFTER, Mark, Terminal};

/// How often a waiting command looks at the daemon's lock and state.
pub const POLL: Duration = Duration::from_millis(5);
/// A daemon that was asked to stop is gone by then: it kills Temporal after its grace.
pub const STOP_LIMIT: Duration = Duration::from_secs(STOP_GRACE.as_secs() + 3);

/// What a daemon needs to know of where and how it was asked for.
pub struct Context<'a> {
    pub home: Home,
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// Where the command was typed.
    pub directory: PathBuf,
}

impl Context<'_> {
    /// What the typed options mean here.
    pub fn resolve(&self, options: &ServerOptions) -> Result<Config> {
        config::resolve(options, self.variable, &self.directory)
    }
}

/// How `serve` ended.
pub enum Served {
    /// It ran, and was stopped on request.
    Stopped,
    /// There was a ready daemon already.
    AlreadyRunning(State),
}

/// Becomes the daemon of this home and serves until it is stopped; or finds,
/// or waits for, the one that is there.
pub fn serve(
    context: &Context<'_>,
    config: &Config,
    lifetime: Lifetime,
    terminal: &mut Terminal,
    on_ready: &mut dyn FnMut(&mut Terminal),
) -> Result<Served> {
    let home = &context.home;
    home.create()?;
    let patience = match config {
        Config::Managed(managed) => managed.ready_timeout.value + STOP_LIMIT,
        Config::External(_) => STOP_LIMIT,
    };
    match lock_or_find(home, lifetime, patience, terminal)? {
        // Never unlocked but by the end of the process: whoever waits for the
        // lock may rely on it that this process is gone.
        Occupancy::Lock(lock) => std::mem::forget(lock),
        Occupancy::Ready(state) => return Ok(Served::AlreadyRunning(state)),
    }
    terminal.line(Mark::Info, "Stigmer Local Daemon starting...");
    if let Some(left) = &State::load(home) {
        orphan::stop(left, terminal)?;
    }
    let state = match config {
        Config::Managed(managed) => new_state(Mode::Managed, lifetime, managed.local_address().to_string()),
        Config::External(external) => new_state(Mode::External, lifetime, external.address.value.to_string()),
    };
    match config {
        Config::Managed(managed) => serve_managed(context, managed, state, terminal, on_ready),
        Config::External(external) => serve_external(context, external, state, terminal, on_ready),
    }?;
    Ok(Served::Stopped)
}

fn new_state(mode: Mode, lifetime: Lifetime, address: String) -> State {
    State {
        daemon: Process::current(),
        phase: Phase::Starting,
        mode,
        lifetime,
        address,
        ui_url: None,
        temporal: None,
        temporal_version: None,
        database: None,
        restarts: 0,
        sessions: 0,
        started: unix_time(),
    }
}

fn serve_managed(
    context: &Context<'_>,
    config: &Managed,
    mut state: State,
    terminal: &mut Terminal,
    on_ready: &mut dyn FnMut(&mut Terminal),
) -> Result<()> {
    let home = &context.home;
    let events = Events::new()?;
    state.ui_url = config.ui_url();
    state.phase = Phase::Installing;
    state.publish(home, terminal);
    if !config.ip.value.is_loopback() {
        let text =
            format!("Temporal will be open to others: it binds to {} and asks for no password.", config.ip.value);
        terminal.line(Mark::Warning, &text);
    }
    let installed = match install::find(config, home, terminal)? {
        Found::Usable(installed) => installed,
        Found::Missing(present) => {
            // A port that is taken is told before the download, not after it.
            supervisor::check_ports(config)?;
            install::install(config, home, present, context.variable, terminal)?
        }
    };
    state.temporal_version = installed.version.as_ref().map(ToString::to_string);
    let directory = context.directory.clone();
    match Supervisor::new(config, home, installed, directory, events, terminal, state)? {
        Some(supervisor) => supervisor.run(on_ready),
        None => Ok(()),
    }
}

fn serve_external(
    context: &Context<'_>,
    config: &External,
    mut state: State,
    terminal: &mut Terminal,
    on_ready: &mut dyn FnMut(&mut Terminal),
) -> Result<()> {
    state.publish(&context.home, terminal);
    // Until it is reached a signal may end this process as it would any other.
    external::connect(config, terminal)?;
    let mut events = Events::new()?;
    terminal.line(Mark::Info, "Skipping local Temporal startup");
    state.phase = Phase::Ready;
    state.sessions = 1;
    state.publish(&context.home, terminal);
    terminal.line(Mark::Done, "Stigmer Daemon Ready.");
    on_ready(terminal);
    loop {
        match events.wait(None) {
            Event::Stop => return Ok(()),
            Event::Restart => terminal.line(Mark::Info, "Nothing to restart: this Temporal is external."),
            Event::Keep | Event::Child | Event::Deadline => {}
        }
    }
}

enum Occupancy {
    /// The home is ours.
    Lock(Lock),
    /// Another daemon serves it.
    Ready(State),
}

/// Takes the daemon's lock, or waits until its holder is ready or gone; at most
/// `patience` after it last did something, but as long as it installs.
fn lock_or_find(home: &Home, lifetime: Lifetime, patience: Duration, terminal: &mut Terminal) -> Result<Occupancy> {
    let (mut began, mut explained) = (Instant::now(), false);
    let mut last_sign = None;
    let mut stay = Stay::default();
    loop {
        if let Some(lock) = Lock::try_exclusive(&home.daemon_lock())? {
            return Ok(Occupancy::Lock(lock));
        }
        // Asked of the state alone: looking at the lock would hold it for a
        // moment, and twenty who look would see each other.
        let state = State::load(home).filter(|state| state.daemon.is_alive_under_lock());
        let sign = state.as_ref().map(|state| (state.daemon.pid, state.phase, state.sessions, state.restarts));
        if !explained && began.elapsed() > EXPLAIN_AFTER {
            terminal.line(Mark::Info, &format!("{}; waiting for it.", describe(state.as_ref())));
            explained = true;
        }
        if sign != last_sign {
            (last_sign, began) = (sign, Instant::now());
        }
        let installs = state.as_ref().is_some_and(|state| state.phase == Phase::Installing);
        if !installs && began.elapsed() > patience {
            let text = format!("cannot start: {}, for {} s now", describe(state.as_ref()), patience.as_secs());
            return Err(Error::new(text).hint("stigmer local stop --force"));
        }
        if let Some(state) = state.filter(State::serves)
            && (lifetime == Lifetime::Shared || stay.is_granted(&state, home)?)
        {
            return Ok(Occupancy::Ready(state));
        }
        thread::sleep(POLL);
    }
}

/// The request to a daemon that is there for a `run` to stay after it.
#[derive(Default)]
struct Stay {
    /// Held until it is granted: as long as somebody shares this lock, no
    /// `run` that ends stops the daemon.
    share: Option<Lock>,
    asked: Option<Process>,
}

impl Stay {
    fn is_granted(&mut self, state: &State, home: &Home) -> Result<bool> {
        if state.lifetime == Lifetime::Kept {
            return Ok(true);
        }
        if self.share.is_none() {
            self.share = Lock::try_shared(&home.users_lock())?;
        }
        if self.share.is_some() && self.asked.as_ref() != Some(&state.daemon) {
            sys::signal(state.daemon.pid, KEEP_SIGNAL);
            self.asked = Some(state.daemon.clone());
        }
        Ok(false)
    }
}

/// What the holder of the lock is doing.
fn describe(state: Option<&State>) -> String {
    let Some(state) = state else { return "Another stigmer is starting".into() };
    let doing = match state.phase {
        Phase::Installing => "installing Temporal",
        Phase::Stopping => "stopping Temporal",
        Phase::Starting | Phase::Restarting | Phase::Ready => "starting Temporal",
    };
    format!("Another stigmer (PID: {}) is {doing}", state.daemon.pid)
}

/// What is passed on: to a daemon that is starting, and to the command of `run`.
pub const FORWARDED: [i32; 4] = [SIGINT, SIGTERM, SIGHUP, SIGQUIT];

/// Runs `serve` in a background process and returns when it is ready, or has
/// failed; its lines and errors until then come on our streams. Signals that
/// come from now on wait in the forwarder.
pub fn detach(
    context: &Context<'_>,
    config: &Config,
    lifetime: Lifetime,
    mut terminal: Terminal,
    on_running: &dyn Fn(&State, &mut Terminal),
) -> Result<Forwarder> {
    context.home.create()?;
    let failed = |cause| Error::io("start", "the background process", &cause);
    let (mut ready, notify) = std::io::pipe().map_err(failed)?;
    // A start that is interrupted takes its daemon down too, however early.
    let blocked = sys::block_signals(&FORWARDED).map_err(failed)?;
    match sys::fork().map_err(failed)? {
        Fork::Parent(pid) => {
            drop(notify);
            let forwarder = Forwarder::new(&FORWARDED).map_err(failed)?;
            forwarder.pass_to(pid, &[]);
            drop(blocked);
            wait_until_ready(&mut ready, pid, &forwarder)?;
            forwarder.pause();
            Ok(forwarder)
        }
        Fork::Child => {
            drop((ready, blocked));
            // Nobody shall wait for the end of a pipe, or for a lock, because
            // of the daemon: what the caller holds is the caller's alone.
            sys::close_all_but(&notify);
            let code = serve_detached(context, config, lifetime, &mut terminal, notify, on_running);
            std::process::exit(code.into());
        }
    }
}

const READY: u8 = b'R';

/// The parent's side: a byte tells success, the end of the pipe failure.
fn wait_until_ready(ready: &mut PipeReader, daemon: u32, forwarder: &Forwarder) -> Result<()> {
    let mut byte = [0];
    let is_ready = loop {
        match ready.read(&mut byte) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            answer => break matches!(answer, Ok(1)),
        }
    };
    // What was passed on in the last moment stops it, ready or not.
    if is_ready && forwarder.received().is_none() {
        return Ok(());
    }
    let failed = |why: &str| Error::new(format!("cannot start the daemon: {why}"));
    let code = sys::wait_for_child(daemon).unwrap_or(1);
    let by_signal = code.checked_sub(sys::exit_code_of_signal(0)).map(i32::from);
    Err(match (code, by_signal, forwarder.received()) {
        (0, _, Some(signal)) | (_, Some(_), Some(signal)) => {
            failed("interrupted before it was ready").with_exit_code(sys::exit_code_of_signal(signal))
        }
        (0, ..) | (_, Some(SIGINT | SIGTERM | SIGHUP), _) => failed("it was stopped before it was ready"),
        (_, Some(signal), _) => failed(&format!("signal {signal} ended it")),
        // It has told its error itself.
        _ => Error::already_told(code),
    })
}

/// The child's side. Returns its exit code.
fn serve_detached(
    context: &Context<'_>,
    config: &Config,
    lifetime: Lifetime,
    terminal: &mut Terminal,
    mut notify: PipeWriter,
    on_running: &dyn Fn(&State, &mut Terminal),
) -> u8 {
    let mut was_ready = false;
    let result = (|| {
        sys::detach_from_terminal().map_err(|cause| Error::io("detach from", "the terminal", &cause))?;
        let log = log_file::open(&context.home.daemon_log())?;
        let copy = || log.try_clone().map_err(|cause| Error::io("open", "the daemon's log", &cause));
        terminal.also_to(copy()?);
        let streams = copy()?;
        serve(context, config, lifetime, terminal, &mut |terminal| {
            // The user's terminal is let go of before he is told.
            if let Ok(null) = File::open("/dev/null") {
                let _ = sys::redirect_standard_streams(&null, &streams);
            }
            terminal.leave_stream();
            was_ready = true;
            let _ = notify.write_all(&[READY]);
        })
    })();
    match result {
        Ok(Served::AlreadyRunning(state)) => {
            on_running(&state, terminal);
            let _ = notify.write_all(&[READY]);
            0
        }
        Ok(Served::Stopped) => 0,
        Err(error) => {
            terminal.log_error(&error);
            if !was_ready {
                crate::terminal::print_error(&error, context.variable);
            }
            error.exit_code()
        }
    }
}

/// Asks `daemon`, or whichever there is, to stop and waits until it and its
/// Temporal are gone. False when it is still there after `limit`. Never asks
/// another one, which somebody may have started meanwhile.
pub fn stop(home: &Home, daemon: Option<Process>, limit: Duration) -> bool {
    let deadline = after(limit);
    let ask = |daemon: Process| {
        sys::signal(daemon.pid, SIGTERM);
        daemon
    };
    if daemon.as_ref().is_some_and(|daemon| !daemon.is_alive_under_lock()) {
        return true;
    }
    let mut asked = daemon.map(ask);
    loop {
        asked = match (asked, Daemon::of(home)) {
            (_, Daemon::Absent) => return true,
            (Some(asked), Daemon::Alive(state)) if state.daemon != asked => return true,
            (Some(asked), _) if !asked.is_alive_under_lock() => return true,
            (None, Daemon::Alive(state)) => Some(ask(state.daemon)),
            // One that has just begun, or whose state could not be written.
            (asked, _) => asked,
        };
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(POLL);
    }
}
