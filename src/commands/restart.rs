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
use crate::state::{Mode, Observed, Phase, State, check_hears, elsewhere};
use crate::sys;
use crate::terminal::{Stream, Terminal, Wait};

/// From one sign of the daemon to the next: for stopping with its grace, and
/// for starting with a patient user's.
const LIMIT: Duration = Duration::from_secs(STOP_LIMIT.as_secs() + 120);

pub static COMMAND: CommandSpec = CommandSpec {
    path: "stigmer local restart",
    summary: "restart Temporal gracefully with the same options",
    notes: "\
Returns once Temporal is ready again.
",
    action: Action::Run(restart),
    ..CommandSpec::PLAIN
};

fn restart(_: &Typed) -> Result<u8> {
    let context = &context()?;
    let instance = &context.home.instance;
    let (mut deadline, mut last_sign) = (after(LIMIT), None);
    let mut asked = None;
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
            // One that is starting is asked once it has started.
            Observed::Running(state) if state.phase == Phase::Ready => match asked {
                None => {
                    sys::signal(state.daemon.pid, RESTART_SIGNAL);
                    asked = Some(state.times_ready);
                }
                Some(before) if state.times_ready > before => {
                    let pid = state.temporal.map_or(0, |temporal| temporal.pid);
                    return print(&format!("Temporal restarted (PID: {pid}).\n"));
                }
                Some(_) => {}
            },
            Observed::Elsewhere => return Err(elsewhere("restart Temporal", instance)),
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
