//! `stigmer local restart`

use std::thread;
use std::time::{Duration, Instant};

use super::print;
use crate::clock::after;
use crate::daemon::{POLL, STOP_LIMIT};
use crate::error::{Error, Result};
use crate::home::Home;
use crate::state::{Daemon, Mode, Phase};
use crate::supervisor::RESTART_SIGNAL;
use crate::sys;

/// From one sign of the daemon to the next: for stopping with its grace, and
/// for starting with a patient user's.
const LIMIT: Duration = Duration::from_secs(STOP_LIMIT.as_secs() + 120);

pub fn restart(home: &Home) -> Result<()> {
    let not_running = || Error::new("cannot restart Temporal: it is not running").hint("stigmer local start");
    let (mut deadline, mut last_sign) = (after(LIMIT), None);
    let mut asked = None;
    loop {
        let daemon = Daemon::of(home);
        if let Daemon::Alive(state) = &daemon
            && last_sign != Some((state.phase, state.restarts))
        {
            (deadline, last_sign) = (after(LIMIT), Some((state.phase, state.restarts)));
        }
        match daemon {
            Daemon::Absent if asked.is_none() => return Err(not_running()),
            Daemon::Absent => {
                return Err(Error::new("cannot restart Temporal: the daemon ended meanwhile")
                    .hint(format!("see {}, and what 'stigmer local start' has printed", home.log().display())));
            }
            Daemon::Alive(state) if state.mode == Mode::External => {
                return Err(Error::new(format!("cannot restart Temporal: the one at {} is external", state.address))
                    .hint("restart it where it runs"));
            }
            // One that is starting is asked once it has started.
            Daemon::Alive(state) if state.phase == Phase::Ready => match asked {
                None => {
                    sys::signal(state.daemon.pid, RESTART_SIGNAL);
                    asked = Some(state.sessions);
                }
                Some(sessions) if state.sessions > sessions => {
                    let pid = state.temporal.map_or(0, |temporal| temporal.pid);
                    return print(&format!("Temporal restarted (PID: {pid}).\n"));
                }
                Some(_) => {}
            },
            Daemon::Silent | Daemon::Alive(_) => {}
        }
        if Instant::now() >= deadline {
            return Err(Error::new(format!("cannot restart Temporal: not ready after {} s", LIMIT.as_secs()))
                .hint("see 'stigmer local logs'"));
        }
        thread::sleep(POLL);
    }
}
