//! Whether the server serves: asked often while it starts, now and then after.

use std::time::{Duration, Instant};

use super::{HUNG_GRACE, Started, Supervisor};
use crate::clock::after;
use crate::events::Halt;
use crate::health::{self, Health};
use crate::supervisor::diagnosis::Fault;

/// Between two probes of a server that starts. Measured: a probe of a closed
/// port takes 0.03 ms, and Temporal serves about 100 ms after its spawn.
pub const PROBE_INTERVAL: Duration = Duration::from_millis(2);
/// Between two health checks of a server that serves.
const HEALTH_INTERVAL: Duration = Duration::from_secs(10);
pub const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two probes while another program answers: ours will find the port
/// taken and end.
pub const STRANGER_INTERVAL: Duration = Duration::from_millis(50);
/// Health checks in a row that fail before a server counts as hung.
const MAX_UNHEALTHY: u32 = 3;
/// Later than this, a wake-up shows that this process was held: stopped by a
/// signal or a debugger, or with its whole virtual machine.
const PAUSE: Duration = Duration::from_secs(1);

impl Supervisor<'_> {
    pub(super) fn wait_until_serving(&mut self) -> Result<Started, Halt> {
        let deadline = after(self.plan.config.ready_timeout.value);
        let mut stranger = false;
        loop {
            if let Some(status) = self.reap() {
                return Ok(Started::Failed(Fault::Ended(status)));
            }
            if let Some(database) = &self.plan.database {
                database.note_file();
            }
            let began = Instant::now();
            let serves = self.probe(limit_of_probe(began, deadline), true) == Health::Serving;
            // Asked only now: until then it would cost more than the probe.
            if serves && self.is_ours() {
                self.serving_since = Some(Instant::now());
                return Ok(Started::Serving);
            }
            stranger |= serves;
            if began >= deadline {
                self.stop(HUNG_GRACE)?;
                return Ok(Started::Failed(if stranger { Fault::PortOfAnother } else { Fault::TimedOut }));
            }
            self.wait(Some(after(if serves { STRANGER_INTERVAL } else { PROBE_INTERVAL })))?;
        }
    }

    fn probe(&self, deadline: Instant, can_be_interrupted: bool) -> Health {
        let interrupt = can_be_interrupted.then(|| self.events.pending());
        health::check(self.plan.endpoints.address(), deadline, interrupt)
    }
}

/// Until when a server that starts may answer a probe that begins now. One is
/// always begun after the `deadline`: this process may have been held, and the
/// server serve for long.
pub fn limit_of_probe(began: Instant, deadline: Instant) -> Instant {
    deadline.max(began + PAUSE).min(began + HEALTH_TIMEOUT)
}

/// The health checks of a server that serves.
pub struct Pulse {
    unhealthy: u32,
    next: Instant,
    was_interrupted: bool,
}

impl Pulse {
    pub fn begin() -> Pulse {
        Pulse { unhealthy: 0, next: after(HEALTH_INTERVAL), was_interrupted: false }
    }

    /// When the next check is due.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Whether the check that is due comes late. To be asked when the wait for it
    /// is over.
    pub fn is_late(&self) -> bool {
        self.next.elapsed() > PAUSE
    }

    /// Makes the check that is due. False when the server counts as hung.
    pub fn check(&mut self, supervisor: &Supervisor<'_>, was_held: bool) -> bool {
        let limit = after(HEALTH_TIMEOUT);
        // Once only: as process 1 of a container one may be interrupted all the time.
        match supervisor.probe(limit, !self.was_interrupted) {
            // The check is made again when the event is dealt with.
            Health::Interrupted => {
                self.was_interrupted = true;
                return true;
            }
            Health::Serving if !supervisor.is_anothers() => self.unhealthy = 0,
            _ if limit.elapsed() > PAUSE => self.unhealthy = 0,
            _ if was_held => self.unhealthy = 1,
            _ => self.unhealthy += 1,
        }
        (self.next, self.was_interrupted) = (after(HEALTH_INTERVAL), false);
        self.unhealthy < MAX_UNHEALTHY
    }
}
