//! A server that stands still for a moment.
//!
//! What nothing else tells is seen then: that it is not what answers at a port,
//! and that nothing is written to its log.

use std::time::{Duration, Instant};

use crate::clock::after;
use crate::sys::{self, SIGCONT, SIGSTOP};

/// Until all of its threads stand still: one that waits for a disk goes on
/// until that has answered.
const STOP_LIMIT: Duration = Duration::from_secs(1);

/// A process group that stands still as long as this value lives.
pub struct Held(u32);

impl Held {
    /// Holds the group of the child `leader`. None where it ends instead, where
    /// it does not stand still in time, and where somebody else has stopped it:
    /// who did wants it to stay so.
    pub fn hold(leader: u32) -> Option<Held> {
        if sys::is_stopped(leader) {
            return None;
        }
        sys::signal_group(leader, SIGSTOP);
        let (held, deadline) = (Held(leader), after(STOP_LIMIT));
        while !sys::is_group_stopped(leader) {
            if sys::has_ended(leader) || Instant::now() >= deadline {
                return None;
            }
            std::thread::yield_now();
        }
        Some(held)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        sys::signal_group(self.0, SIGCONT);
    }
}
