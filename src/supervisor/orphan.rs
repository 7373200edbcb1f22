//! A Temporal whose daemon was killed.
//!
//! On Linux it goes down with its daemon, within a second or two; on macOS
//! nothing does that. One that cannot be recognised for sure is never signalled.

use std::thread;
use std::time::{Duration, Instant};

use super::{HUNG_GRACE, STOP_GRACE};
use crate::clock::after;
use crate::error::{Error, Result};
use crate::state::{Process, State};
use crate::sys::{self, SIGCONT, SIGKILL, SIGTERM};
use crate::terminal::{Mark, Terminal};

const POLL: Duration = Duration::from_millis(10);

/// The Temporal that still runs without the daemon that wrote `left`.
pub fn find(left: &State) -> Option<&Process> {
    left.temporal.as_ref().filter(|orphan| runs(orphan))
}

/// Ends it, and returns whether there was one. The caller holds the daemon's
/// lock, so that no other daemon takes it for its own.
pub fn stop(left: &State, terminal: &mut Terminal) -> Result<bool> {
    let Some(orphan) = find(left) else { return Ok(false) };
    let pid = orphan.pid;
    terminal.line(Mark::Warning, &format!("Temporal of an earlier daemon still runs (PID: {pid}); stopping it."));
    sys::signal(pid, SIGTERM);
    // Its daemon may have been killed while it held it still.
    sys::signal(pid, SIGCONT);
    let (deadline, limit) = (after(STOP_GRACE), after(STOP_GRACE + HUNG_GRACE));
    let mut killed = false;
    while runs(orphan) {
        if !killed && Instant::now() >= deadline {
            terminal.line(Mark::Warning, &format!("Killing it (PID: {pid}): it did not stop in time."));
            sys::signal_group(pid, SIGKILL);
            killed = true;
        }
        if Instant::now() >= limit {
            return Err(Error::new(format!(
                "cannot stop the Temporal of an earlier daemon (PID: {pid}): it does not end"
            ))
            .hint(format!("see what holds it: ps -l -p {pid}")));
        }
        thread::sleep(POLL);
    }
    Ok(true)
}

/// Whether it lives: one that has ended, and waits for a parent that does not
/// reap, has no executable any more.
fn runs(process: &Process) -> bool {
    process.is_alive() && process.executable.is_some() && process.executable == sys::executable(process.pid)
}
