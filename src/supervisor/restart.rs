//! When to restart a server that ended, and when to give up.
//!
//! A function of past failures alone, so that tests need no clock. A server
//! that had been serving comes back at once. One that had not waits twice as
//! long each time, because the fault is likely to stay and a busy loop would
//! bury its cause in the log.

use std::time::Duration;

const FIRST_DELAY: Duration = Duration::from_millis(250);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// Having served this long, a server is restarted at once.
const STABLE: Duration = Duration::from_secs(10);
/// Having served this long, all that was before is forgotten.
const RECOVERED: Duration = Duration::from_secs(60);
pub const MAX_FAILURES: u32 = 5;

#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    After(Duration),
    GiveUp,
}

/// Early ends since the last serving minute.
#[derive(Debug, Default)]
pub struct History {
    failures: u32,
}

impl History {
    /// Records that a server ended unasked after it had `served` that long; None
    /// when it never served.
    pub fn ended(&mut self, served: Option<Duration>) -> Decision {
        let served = served.unwrap_or_default();
        if served >= RECOVERED {
            self.failures = 0;
        }
        if served >= STABLE {
            return Decision::After(Duration::ZERO);
        }
        self.failures += 1;
        match self.failures {
            MAX_FAILURES.. => Decision::GiveUp,
            failures => Decision::After((FIRST_DELAY * (1 << (failures - 1))).min(MAX_DELAY)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_served_comes_back_at_once_however_often() {
        let mut history = History::default();
        for _ in 0..50 {
            assert_eq!(history.ended(Some(STABLE)), Decision::After(Duration::ZERO));
        }
    }

    #[test]
    fn early_ends_wait_twice_as_long_and_the_fifth_gives_up() {
        let mut history = History::default();
        for milliseconds in [250, 500, 1000, 2000] {
            assert_eq!(history.ended(None), Decision::After(Duration::from_millis(milliseconds)));
            // Ten seconds are not a minute: they forgive nothing.
            history.ended(Some(STABLE));
        }
        assert_eq!(history.ended(Some(STABLE - Duration::from_millis(1))), Decision::GiveUp);
    }

    #[test]
    fn a_serving_minute_forgives() {
        let mut history = History::default();
        for _ in 0..4 {
            history.ended(None);
        }
        history.ended(Some(RECOVERED));
        assert_eq!(history.ended(None), Decision::After(FIRST_DELAY));
    }
}
