//! `stigmer local stop`

use std::time::Duration;

use super::print;
use crate::daemon;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::lock::Lock;
use crate::state::{Daemon, State};
use crate::supervisor::{self, STOP_GRACE};
use crate::sys::{self, SIGKILL};
use crate::terminal::{Stream, Terminal};

/// The daemon kills Temporal after its grace; then it is gone itself.
const LIMIT: Duration = Duration::from_secs(STOP_GRACE.as_secs() + 3);
const AFTER_KILL: Duration = Duration::from_secs(3);

pub fn stop(home: &Home, force: bool) -> Result<()> {
    let before = match Daemon::of(home) {
        Daemon::Absent if stop_left_behind(home)? => return print("Temporal stopped.\n"),
        Daemon::Absent => return print("Temporal is not running.\n"),
        Daemon::Silent => None,
        Daemon::Alive(state) => Some(state),
    };
    if daemon::stop(home, LIMIT) {
        return print("Temporal stopped.\n");
    }
    let state = match Daemon::of(home) {
        Daemon::Absent => return print("Temporal stopped.\n"),
        Daemon::Alive(state) => Some(state),
        Daemon::Silent => before,
    };
    let Some(state) = state else {
        return Err(Error::new(format!(
            "cannot stop the daemon: it holds {} but does not tell its PID",
            home.daemon_lock().display()
        ))
        .hint("find it with 'ps' and end it with 'kill'"));
    };
    let pid = state.daemon.pid;
    if !force {
        return Err(Error::new(format!(
            "cannot stop the daemon (PID: {pid}): it is still there after {} s",
            LIMIT.as_secs()
        ))
        .hint("stigmer local stop --force"));
    }
    // The daemon first, or it would start Temporal again.
    if state.daemon.is_alive_under_lock() {
        sys::signal(pid, SIGKILL);
    }
    if let Some(temporal) = state.temporal.filter(|temporal| temporal.is_alive()) {
        sys::signal_group(temporal.pid, SIGKILL);
    }
    match daemon::stop(home, AFTER_KILL) {
        true => print("Temporal killed.\n"),
        false => Err(Error::new(format!("cannot kill the daemon (PID: {pid}): it is still there"))),
    }
}

/// Stops a Temporal whose daemon was killed; false when there is none.
fn stop_left_behind(home: &Home) -> Result<bool> {
    let Some(left) = State::load(home).filter(|left| supervisor::orphan(left).is_some()) else {
        return Ok(false);
    };
    // Whoever starts meanwhile stops it himself.
    let Some(_lock) = Lock::try_exclusive(&home.daemon_lock())? else {
        return Ok(false);
    };
    supervisor::stop_orphan(&left, &mut Terminal::new(Stream::Stderr, &|name| std::env::var_os(name)));
    Ok(true)
}
