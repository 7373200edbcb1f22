//! `stigmer local restart`

use std::thread;
use std::time::{Duration, Instant};

use super::{context, print};
use crate::cli::{Action, CommandSpec, Typed};
use crate::clock::after;
use crate::daemon::{POLL, STOP_LIMIT};
use crate::error::{Error, Result};
use crate::events::RESTART_SIGNAL;
use crate::home::Instance;
use crate::state::{Mode, Observed, Phase, Process, State, check_hears, elsewhere};
use crate::sys;
use crate::terminal::{Stream, Terminal, Wait};

/// From one sign of the daemon to the next: for stopping with its grace, and
/// for starting with a patient user's.
const LIMIT: Duration = Duration::from_secs(STOP_LIMIT.as_secs() + 120);
/// In seconds. A next try that is further away is not waited for.
const SOON: u64 = 2;

pub static COMMAND: CommandSpec = CommandSpec {
    path: "stigmer local restart",
    summary: "restart Temporal gracefully with the same options",
    notes: "\
Returns once Temporal is ready again, or has failed to start. One that waits for
its next start is started at once.
",
    action: Action::Run(restart),
    ..CommandSpec::PLAIN
};

fn restart(_: &Typed) -> Result<u8> {
    let context = &context()?;
    let instance = &context.home.instance;
    let (mut deadline, mut last_sign) = (after(LIMIT), None);
    let mut asked: Option<Asked> = None;
    let (mut wait, mut terminal) = (Wait::begin(), Terminal::new(Stream::Stderr, context.variable));
    loop {
        let daemon = Observed::of(instance)?;
        if let Observed::Running(state) = &daemon
            && last_sign != Some((state.phase, state.restarts))
        {
            (deadline, last_sign) = (after(LIMIT), Some((state.phase, state.restarts)));
        }
        if let Observed::Running(State { daemon, .. }) | Observed::Silent(Some(daemon)) = &daemon {
            check_hears("restart Temporal", daemon)?;
        }
        match daemon {
            Observed::Absent => return Err(gone(asked.is_some(), instance)),
            Observed::Running(state) if state.mode == Mode::External => {
                return Err(Error::new(format!("cannot restart Temporal: the one at {} is external", state.address))
                    .hint("restart it where it runs"));
            }
            Observed::Elsewhere => return Err(elsewhere("restart Temporal", instance)),
            Observed::Running(state) if asked.as_ref().is_some_and(|asked| asked.daemon == state.daemon) => {
                if let Some(pid) = asked.as_ref().map(|asked| asked.outcome(&state)).transpose()?.flatten() {
                    return print(&format!("Temporal restarted (PID: {pid}).\n"));
                }
            }
            // One that is starting is asked once it has started.
            Observed::Running(state) if state.phase == Phase::Ready || state.retry.is_some() => {
                asked = Some(Asked::of(state));
            }
            other if asked.is_none() => wait.explain(&mut terminal, || waiting_for(&other)),
            Observed::Silent(_) | Observed::Running(_) => {}
        }
        if Instant::now() >= deadline {
            return Err(Error::new(format!("cannot restart Temporal: not ready after {} s", LIMIT.as_secs()))
                .hint("see 'stigmer local logs'"));
        }
        thread::sleep(POLL);
    }
}

/// A daemon that was asked, and what it had done until then.
struct Asked {
    daemon: Process,
    times_ready: u64,
    restarts: u64,
}

impl Asked {
    fn of(state: State) -> Asked {
        sys::signal(state.daemon.pid, RESTART_SIGNAL);
        Asked { daemon: state.daemon, times_ready: state.times_ready, restarts: state.restarts }
    }

    /// The PID of the new server, once it is ready.
    fn outcome(&self, state: &State) -> Result<Option<u32>> {
        if state.phase == Phase::Ready && state.times_ready > self.times_ready {
            return Ok(Some(state.temporal.as_ref().map_or(0, |temporal| temporal.pid)));
        }
        match &state.retry {
            Some(retry) if state.restarts > self.restarts && retry.seconds_left() > SOON => Err(Error::new(format!(
                "cannot restart Temporal: {}",
                retry.why
            ))
            .hint(format!("it is tried again in {} s, and so on; see 'stigmer local logs'", retry.seconds_left()))),
            _ => Ok(None),
        }
    }
}

fn waiting_for(daemon: &Observed) -> String {
    match daemon {
        Observed::Running(state) => {
            format!("Stigmer (PID: {}) is still {}; waiting for it.", state.daemon.pid, state.phase.name())
        }
        _ => "Stigmer is still starting; waiting for it.".into(),
    }
}

fn gone(meanwhile: bool, instance: &Instance) -> Error {
    match meanwhile {
        false => Error::new("cannot restart Temporal: it is not running").hint("stigmer local start"),
        true => Error::new("cannot restart Temporal: the daemon ended meanwhile").hint(format!(
            "'stigmer local start' has said why, in its terminal or in {}; Temporal's log is {}",
            instance.daemon_log().display(),
            instance.log().display()
        )),
    }
}
