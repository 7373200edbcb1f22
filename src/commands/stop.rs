//! `stigmer local stop`

use std::time::Duration;

use super::{context, print};
use crate::cli::{Action, CommandSpec, OptionSpec, Typed, switch};
use crate::daemon::{self, Context, NO_HURRY, STOP_LIMIT};
use crate::error::{Error, Result};
use crate::home::Instance;
use crate::lock::{Holder, Lock};
use crate::state::{Mode, Observed, Phase, Process, State, elsewhere};
use crate::supervisor::orphan;
use crate::sys::{self, SIGKILL};
use crate::terminal::{Stream, Terminal};

const AFTER_KILL: Duration = Duration::from_secs(3);

const FORCE: OptionSpec = switch("force", "kill whatever has not stopped in time");

pub static COMMAND: CommandSpec = CommandSpec {
    path: "stigmer local stop",
    summary: "stop the daemon and Temporal",
    usage: "[--force]",
    options: &[&[&FORCE]],
    notes: "\
Returns once both are gone; also succeeds when nothing is running.
",
    action: Action::Run(stop),
    ..CommandSpec::PLAIN
};

fn stop(typed: &Typed) -> Result<u8> {
    let context = &context()?;
    let instance = &context.home.instance;
    let before = match Observed::of(instance)? {
        Observed::Absent if stop_left_behind(context)? => return print(STOPPED),
        Observed::Absent => return print("Temporal is not running.\n"),
        Observed::Elsewhere => return Err(elsewhere("stop Temporal", instance)),
        observed => observed,
    };
    let what = what_stops(&before);
    let stopped = daemon::stop(instance, None, STOP_LIMIT, NO_HURRY);
    if !matches!(stopped, Ok(true)) {
        let (daemon, temporal) = match known(Observed::of(instance)?) {
            (None, _) => known(before),
            last => last,
        };
        if typed.options.has(&FORCE) {
            return kill(context, daemon, temporal);
        }
        stopped?;
        return Err(still_there(instance, daemon.as_ref(), STOP_LIMIT).hint("stigmer local stop --force"));
    }
    // Temporal is gone with its daemon, but for one that was killed meanwhile.
    stop_left_behind(context)?;
    print(&what)
}

const STOPPED: &str = "Temporal stopped.\n";

/// What can be said when it has stopped.
fn what_stops(observed: &Observed) -> String {
    match observed {
        Observed::Running(state) if state.mode == Mode::External => {
            format!("Stigmer stopped; the external Temporal at {} is left alone.\n", state.address)
        }
        Observed::Running(state) if state.phase == Phase::Installing => {
            "The installation stopped; Temporal was not running yet.\n".into()
        }
        _ => STOPPED.into(),
    }
}

/// The daemon and its Temporal, as far as they are known.
fn known(observed: Observed) -> (Option<Process>, Option<Process>) {
    match observed {
        Observed::Running(state) => (Some(state.daemon), state.temporal),
        Observed::Silent(daemon) => (daemon, None),
        Observed::Absent | Observed::Elsewhere => (None, None),
    }
}

/// Ends a daemon that does not stop, and its Temporal.
fn kill(context: &Context<'_>, daemon: Option<Process>, temporal: Option<Process>) -> Result<u8> {
    let instance = &context.home.instance;
    let Some(daemon) = daemon else {
        return Err(still_there(instance, None, STOP_LIMIT).hint("find it with 'ps' and end it with 'kill'"));
    };
    // The daemon first, or it would start Temporal again. Nobody is killed who
    // may be another by now: the lock names it, or its birth.
    if daemon.is_alive() || Lock::holder(&instance.daemon_lock())? == Holder::Process(daemon.pid) {
        sys::signal(daemon.pid, SIGKILL);
    }
    if let Some(temporal) = temporal.filter(Process::is_alive) {
        sys::signal_group(temporal.pid, SIGKILL);
    }
    if !daemon::stop(instance, Some(daemon.clone()), AFTER_KILL, NO_HURRY)? {
        return Err(still_there(instance, Some(&daemon), AFTER_KILL));
    }
    stop_left_behind(context)?;
    print("Temporal killed.\n")
}

fn still_there(instance: &Instance, daemon: Option<&Process>, limit: Duration) -> Error {
    let who = match daemon {
        Some(daemon) => format!("PID: {}", daemon.pid),
        None => format!("it holds {} and does not say its PID", instance.daemon_lock().display()),
    };
    Error::new(format!("cannot stop the daemon ({who}): it is still running after {} s", limit.as_secs()))
}

/// Stops a Temporal whose daemon was killed; false when there is none.
fn stop_left_behind(context: &Context<'_>) -> Result<bool> {
    let instance = &context.home.instance;
    let Some(left) = State::left_in(instance).filter(|left| orphan::find(left).is_some()) else {
        return Ok(false);
    };
    // Whoever starts meanwhile stops it himself.
    match Lock::try_exclusive(&instance.daemon_lock())? {
        Some(_lock) => orphan::stop(&left, &mut Terminal::new(Stream::Stderr, context.variable)),
        None => Ok(false),
    }
}
