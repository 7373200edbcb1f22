//! Signals as events: what a daemon sleeps for.
//!
//! signal-hook writes a byte to a socket pair for each signal; one `poll` on
//! its other end, with the next deadline as timeout, is all the daemon does
//! while nothing happens.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use signal_hook::consts::SIGCHLD;
use signal_hook::flag;
use signal_hook::low_level::pipe;

use crate::error::{Error, Result};
use crate::notify::Watchdog;
use crate::sys::{self, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};

/// Asks a daemon to restart Temporal.
pub const RESTART_SIGNAL: i32 = SIGUSR1;
/// Asks a daemon that `run` started to go on when `run` has ended.
pub const KEEP_SIGNAL: i32 = SIGUSR2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A child changed: look whether it has ended.
    Child,
    Restart,
    Keep,
    /// The deadline has come.
    Deadline,
}

/// The way out of whatever a daemon is doing.
#[derive(Debug)]
pub enum Halt {
    /// SIGTERM, SIGINT or SIGHUP.
    StopRequested,
    Failed(Error),
}

impl From<Error> for Halt {
    fn from(error: Error) -> Halt {
        Halt::Failed(error)
    }
}

pub struct Events {
    wake_up: UnixStream,
    stop: Arc<AtomicBool>,
    others: [(Arc<AtomicBool>, Event); 3],
    /// Of the service manager, from when this service is ready.
    pub watchdog: Option<Watchdog>,
}

impl Events {
    /// Takes over the signals of this process.
    pub fn new() -> Result<Events> {
        let failed = |cause| Error::io("set up", "signal handling", &cause);
        let (wake_up, sender) = UnixStream::pair().map_err(failed)?;
        wake_up.set_nonblocking(true).map_err(failed)?;
        let others = [Event::Child, Event::Restart, Event::Keep].map(|event| (Arc::default(), event));
        let events = Events { wake_up, stop: Arc::default(), others, watchdog: None };
        let [child, restart, keep] = &events.others;
        let mut signals = vec![
            (SIGTERM, &events.stop),
            (SIGINT, &events.stop),
            (SIGCHLD, &child.0),
            (RESTART_SIGNAL, &restart.0),
            (KEEP_SIGNAL, &keep.0),
        ];
        // `nohup` asks to outlive the terminal.
        if !sys::is_ignored(SIGHUP) {
            signals.push((SIGHUP, &events.stop));
        }
        for (signal, raised) in signals {
            // The flag first: whoever is woken must find it raised.
            flag::register(signal, raised.clone()).map_err(failed)?;
            pipe::register(signal, sender.try_clone().map_err(failed)?).map_err(failed)?;
        }
        Ok(events)
    }

    /// Sleeps until something happens, or `deadline` comes.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<Event, Halt> {
        loop {
            let wake_up = self.watchdog.as_mut().map_or(deadline, |watchdog| Some(watchdog.ping(deadline)));
            // Drained before the flags are looked at: a signal after that
            // wakes the next poll.
            let mut drain = [0; 64];
            while matches!(self.wake_up.read(&mut drain), Ok(1..)) {}
            if self.stop.swap(false, Ordering::SeqCst) {
                return Err(Halt::StopRequested);
            }
            if let Some((_, event)) = self.others.iter().find(|(raised, _)| raised.swap(false, Ordering::SeqCst)) {
                return Ok(*event);
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Ok(Event::Deadline);
            }
            sys::wait(self.wake_up.as_fd(), None, wake_up);
        }
    }

    /// Readable when `wait` would return at once because of a signal.
    pub fn pending(&self) -> BorrowedFd<'_> {
        self.wake_up.as_fd()
    }
}
