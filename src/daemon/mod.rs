//! The daemon: one for each instance, from taking the lock to the last line.
//!
//! `serve` is the whole of it in one process; `detach` puts it into the
//! background and waits for it to be ready or to fail.

mod detach;
mod managed;
mod occupancy;

use std::ffi::OsString;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

pub use self::detach::{FORWARDED, STOP_COMMAND, detach};
use self::occupancy::{Occupancy, lock_or_find};
use crate::cli::Options;
use crate::clock::after;
use crate::config::{self, Config, External, Managed};
use crate::error::Result;
use crate::events::{Events, Halt};
use crate::external;
use crate::home::{Home, Instance};
use crate::notify::Notifier;
use crate::state::{self, Lifetime, Mode, Observed, Phase, Process, State, check_hears};
pub use crate::supervisor::{OnReady, how_to_use};
use crate::supervisor::{STOP_GRACE, orphan};
use crate::sys::{self, SIGTERM};
use crate::tenure::Tenure;
use crate::terminal::{Mark, Terminal};

/// How often a waiting command looks at the daemon's lock and state.
pub const POLL: Duration = Duration::from_millis(5);
/// A daemon that was asked to stop is gone by then: it kills Temporal after its grace.
pub const STOP_LIMIT: Duration = Duration::from_secs(STOP_GRACE.as_secs() + 3);

/// A daemon that reports nothing for so long has not just begun.
const SILENCE: Duration = Duration::from_secs(1);

/// Where a command was typed, and what it finds there.
pub struct Context<'a> {
    pub home: Home,
    pub variable: &'a dyn Fn(&str) -> Option<OsString>,
    /// The working directory.
    pub directory: PathBuf,
}

impl Context<'_> {
    /// What the typed options mean here.
    pub fn resolve(&self, options: &Options) -> Result<Config> {
        let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
        let metadata_names: Vec<String> = names.filter(|name| name.starts_with(config::METADATA)).collect();
        config::resolve(options, self.variable, &metadata_names, &self.directory)
    }

    /// The same for `run --ephemeral`.
    pub fn resolve_ephemeral(&self, options: &Options) -> Result<Managed> {
        config::resolve_ephemeral(options, self.variable, &self.directory)
    }

    /// What the environment alone says about a Temporal of ours.
    pub fn resolve_managed(&self) -> Result<Managed> {
        config::resolve_managed(self.variable, &self.directory)
    }
}

/// The daemon that is wanted.
pub struct Request<'a> {
    pub context: &'a Context<'a>,
    pub config: &'a Config,
    pub lifetime: Lifetime,
}

/// How `serve` ended.
pub enum Served {
    /// It ran, and was stopped on request.
    Stopped,
    /// There was a ready daemon already.
    AlreadyRunning(State),
}

/// Becomes the daemon of this home and serves until it is stopped; or finds,
/// or waits for, the one that is there. What becomes of it is for `notifier`, too.
pub fn serve(
    request: &Request<'_>,
    notifier: Notifier,
    terminal: &mut Terminal,
    on_ready: OnReady<'_>,
) -> Result<Served> {
    let Request { context, config, lifetime } = *request;
    let home = &context.home;
    home.create()?;
    let patience = match config {
        Config::Managed(managed) => managed.ready_timeout.value + STOP_LIMIT,
        Config::External(_) => STOP_LIMIT,
    };
    let lock = match lock_or_find(&home.instance, lifetime, patience, terminal)? {
        Occupancy::Lock(lock) => lock,
        Occupancy::Ready(state) => return Ok(Served::AlreadyRunning(state)),
    };
    let left = State::left_in(&home.instance);
    let tenure = &mut Tenure::begin(home, lock, new_state(request), notifier);
    terminal.line(Mark::Info, "Stigmer Local Daemon starting...");
    if let Some(left) = &left {
        orphan::stop(left, terminal)?;
    }
    let result = match config {
        Config::Managed(managed) => managed::serve(context, managed, tenure, terminal, on_ready),
        Config::External(external) => serve_external(context, external, tenure, terminal, on_ready),
    };
    match result {
        Ok(()) | Err(Halt::StopRequested) => Ok(Served::Stopped),
        Err(Halt::Failed(error)) => Err(error),
    }
}

fn new_state(request: &Request<'_>) -> State {
    let managed = match request.config {
        Config::Managed(managed) => Some(managed),
        Config::External(_) => None,
    };
    let (mode, address, namespaces) = match request.config {
        // The address is known when the ports are.
        Config::Managed(managed) => (Mode::Managed, String::new(), &managed.namespaces.names.value),
        Config::External(external) => {
            (Mode::External, external.connection.address.value.to_string(), &external.connection.namespaces.value)
        }
    };
    State {
        daemon: Process::current(),
        phase: Phase::Starting,
        mode,
        lifetime: request.lifetime,
        address,
        ui_url: None,
        temporal: None,
        temporal_version: None,
        temporal_cli: None,
        namespaces: namespaces.clone(),
        ip: managed.map(|managed| managed.ip.value.to_string()),
        temporal_args: managed.map_or(Vec::new(), |managed| managed.temporal_args.clone()),
        database: None,
        database_version: None,
        place: state::place(&request.context.home.instance),
        external: None,
        restarts: 0,
        retry: None,
        times_ready: 0,
        started: sys::seconds_since_boot(),
    }
}

fn serve_external(
    context: &Context<'_>,
    config: &External,
    tenure: &mut Tenure,
    terminal: &mut Terminal,
    on_ready: OnReady<'_>,
) -> Result<(), Halt> {
    tenure.publish(terminal);
    // Until it is reached a signal may end this process as it would any other.
    let known = external::connect(config, context.variable, terminal)?;
    let mut events = Events::new()?;
    terminal.line(Mark::Info, "Skipping local Temporal startup");
    tenure.state.phase = Phase::Ready;
    tenure.state.times_ready = 1;
    tenure.state.temporal_version = known.server.clone();
    tenure.state.external = Some(known);
    tenure.publish(terminal);
    terminal.line(Mark::Done, "Stigmer Daemon Ready.");
    (on_ready.then)(terminal);
    events.watchdog = tenure.watchdog();
    let probe = external::probe(&config.connection, context.variable);
    let halt = external::watch(&probe, tenure, &mut events, terminal);
    tenure.state.phase = Phase::Stopping;
    tenure.publish(terminal);
    Err(halt)
}

/// For a stop that takes its time.
pub const NO_HURRY: &dyn Fn() -> bool = &|| false;

/// Asks `daemon`, or whichever is running, to stop and waits until it and its
/// Temporal are gone. False when it is still there after `limit`; fails at once
/// where it cannot hear. Never asks another one, which somebody may have started
/// meanwhile, nor any whom nobody knows to be the daemon.
pub fn stop(instance: &Instance, daemon: Option<Process>, limit: Duration, hurry: &dyn Fn() -> bool) -> Result<bool> {
    let (began, deadline) = (Instant::now(), after(limit));
    let ask = |daemon: Process| {
        check_hears("stop Temporal", &daemon)?;
        sys::signal(daemon.pid, SIGTERM);
        Ok(daemon)
    };
    if daemon.as_ref().is_some_and(|daemon| !daemon.may_be_alive()) {
        return Ok(true);
    }
    let mut asked = daemon.map(ask).transpose()?;
    loop {
        asked = match (asked, Observed::of(instance)?) {
            (_, Observed::Absent) => return Ok(true),
            (Some(asked), Observed::Running(state)) if state.daemon != asked => return Ok(true),
            (Some(asked), _) if !asked.may_be_alive() => return Ok(true),
            (None, Observed::Running(state)) => Some(ask(state.daemon)?),
            // The kernel names it. One that has just begun cannot hear yet.
            (None, Observed::Silent(Some(daemon))) if began.elapsed() > SILENCE => Some(ask(daemon)?),
            (asked, _) => asked,
        };
        if let Some(asked) = &asked {
            check_hears("stop Temporal", asked)?;
            if hurry() {
                // The second request has the daemon kill Temporal.
                sys::signal(asked.pid, SIGTERM);
            }
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(POLL);
    }
}
