//! Whether it is our server that answers: another one may have taken the port.
//!
//! The kernel knows whose socket it is. Where it does not say (no /proc, a
//! process that does not let itself be looked at), the server is held for a
//! moment: what answers meanwhile is not it.

use std::net::SocketAddr;
use std::time::Duration;

use super::Supervisor;
use super::held::Held;
use crate::clock::after;
use crate::health::{self, Health};
use crate::sys;

/// An answer on this machine takes less than a thousandth of this.
const HELD: Duration = Duration::from_millis(300);

/// Whether the server `pid` is what answers at `address`. To be asked when
/// something does.
pub fn is_of(pid: u32, address: SocketAddr) -> bool {
    match sys::listens(pid, address) {
        _ if sys::has_ended(pid) => false,
        Some(answer) => answer,
        None => is_silent_while_held(pid, address),
    }
}

impl Supervisor<'_> {
    /// To be asked when the port answers.
    pub(super) fn is_ours(&self) -> bool {
        self.pid().is_some_and(|pid| is_of(pid, self.plan.endpoints.address()))
    }

    /// Whether the port is another's for sure. Never holds the server, which
    /// has work to do by now.
    pub(super) fn is_anothers(&self) -> bool {
        let listens = |pid| sys::listens(pid, self.plan.endpoints.address());
        self.pid().and_then(listens) == Some(false)
    }
}

fn is_silent_while_held(pid: u32, address: SocketAddr) -> bool {
    let Some(held) = Held::hold(pid) else { return false };
    // Not to be interrupted: the stop itself is an event.
    let answer = health::check(address, after(HELD), None);
    drop(held);
    answer == Health::Silent && !sys::has_ended(pid)
}
