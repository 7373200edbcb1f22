//! When to start a server again that ended, and when not.
//!
//! One that has served for ten seconds comes back at once: whatever ended it was
//! not its start. One that has not waits, and twice as long each time, because
//! its fault is likely to stay and a busy loop would bury the cause in the log;
//! never longer than 30 s, so that it serves soon after the cause is gone.
//! Failures fade, one a minute: yesterday's trouble delays nothing today. What
//! may pass, a taken port, a full disk, is never given up; what cannot pass ends
//! it at once, and a missing executable at the fifth attempt, since whoever
//! replaces one by hand takes a moment.
//!
//! A function of past failures alone, so that tests need no clock.

use std::time::{Duration, Instant};

const FIRST_DELAY: Duration = Duration::from_millis(250);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// Having served this long, a server is restarted at once.
const STABLE: Duration = Duration::from_secs(10);
/// In which one failure is forgotten.
const FADING: Duration = Duration::from_secs(60);
/// From here on the delay is the longest one.
const MAX_FAILURES: u32 = 8;
const MAX_DOUBTS: u32 = 5;

/// Whether the next attempt may fare better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prospect {
    MayPass,
    Doubtful,
    Hopeless,
}

/// The failures that have not faded yet.
#[derive(Debug, Default)]
pub struct History {
    failures: u32,
    last: Option<Instant>,
    /// In a row.
    doubts: u32,
}

impl History {
    /// Records that a server ended unasked, now, after it had `served` that
    /// long; None when it never served. The delay before the next attempt; None
    /// when there is to be none.
    pub fn ended(&mut self, now: Instant, served: Option<Duration>, prospect: Prospect) -> Option<Duration> {
        self.doubts = if prospect == Prospect::Doubtful { self.doubts + 1 } else { 0 };
        if prospect == Prospect::Hopeless || self.doubts >= MAX_DOUBTS {
            return None;
        }
        if served.is_some_and(|served| served >= STABLE) {
            return Some(Duration::ZERO);
        }
        let since = self.last.replace(now).map_or(Duration::ZERO, |last| now.duration_since(last));
        let faded = u32::try_from(since.as_secs() / FADING.as_secs()).unwrap_or(u32::MAX);
        self.failures = (self.failures.saturating_sub(faded) + 1).min(MAX_FAILURES);
        Some((FIRST_DELAY * (1 << (self.failures - 1))).min(MAX_DELAY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn milliseconds(count: u64) -> Option<Duration> {
        Some(Duration::from_millis(count))
    }

    #[test]
    fn a_server_that_served_comes_back_at_once_however_often() {
        let mut history = History::default();
        for _ in 0..50 {
            assert_eq!(history.ended(Instant::now(), Some(STABLE), Prospect::MayPass), Some(Duration::ZERO));
        }
    }

    #[test]
    fn what_may_pass_waits_twice_as_long_each_time_up_to_half_a_minute_for_ever() {
        let (mut history, mut now) = (History::default(), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..1000 {
            let delay = history.ended(now, None, Prospect::MayPass).unwrap();
            delays.push(delay.as_millis());
            now += delay;
        }
        assert_eq!(delays[..9], [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        assert!(delays[9..].iter().all(|delay| *delay == 30_000));
    }

    #[test]
    fn failures_fade_with_time_whether_or_not_it_served() {
        let (mut history, began) = (History::default(), Instant::now());
        let mut ended_at = |seconds| history.ended(began + Duration::from_secs(seconds), None, Prospect::MayPass);
        assert_eq!(
            [ended_at(0), ended_at(0), ended_at(59)],
            [milliseconds(250), milliseconds(500), milliseconds(1000)]
        );
        // Two of three are forgotten.
        assert_eq!(ended_at(59 + 120), milliseconds(500));
        // Spread over 27 minutes they never add up.
        assert_eq!([ended_at(600), ended_at(1000), ended_at(1620)], [milliseconds(250); 3]);
        // A server that serves for a moment only is no better than one that never does.
        let soon = Some(STABLE - Duration::from_millis(1));
        assert_eq!(history.ended(began + Duration::from_secs(1621), soon, Prospect::MayPass), milliseconds(500));
    }

    #[test]
    fn what_cannot_pass_ends_it_at_once_and_what_is_doubtful_at_the_fifth_time() {
        let now = Instant::now();
        assert_eq!(History::default().ended(now, None, Prospect::Hopeless), None);
        let mut history = History::default();
        for _ in 0..4 {
            assert!(history.ended(now, None, Prospect::Doubtful).is_some());
        }
        assert!(history.ended(now, None, Prospect::MayPass).is_some());
        for _ in 0..4 {
            assert!(history.ended(now, None, Prospect::Doubtful).is_some());
        }
        assert_eq!(history.ended(now, None, Prospect::Doubtful), None);
    }
}
