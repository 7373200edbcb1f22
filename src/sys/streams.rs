//! Streams: waiting for them, and the terminal they may be.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use crate::clock::after;

/// Which of the descriptors that `wait` watched can be read, or has hung up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    First,
    Second,
    TimedOut,
}

/// Sleeps in one `poll` until `first` or `second` can be read or `deadline`
/// has come; for ever without one. A signal that interrupts counts as
/// `TimedOut`, so callers look at their clock.
pub fn wait(first: BorrowedFd<'_>, second: Option<BorrowedFd<'_>>, deadline: Option<Instant>) -> Ready {
    let entry = |fd: RawFd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // poll passes over negative descriptors.
    let mut fds = [entry(first.as_raw_fd()), entry(second.map_or(-1, |fd| fd.as_raw_fd()))];
    poll(&mut fds, deadline);
    match (fds[0].revents, fds[1].revents) {
        (0, 0) => Ready::TimedOut,
        (0, _) => Ready::Second,
        _ => Ready::First,
    }
}

/// Sleeps until `deadline`, or until nobody can read what is written to `output`
/// any more; returns whether that is so.
pub fn wait_for_reader_gone(output: BorrowedFd<'_>, deadline: Instant) -> bool {
    let mut fds = [libc::pollfd { fd: output.as_raw_fd(), events: 0, revents: 0 }];
    poll(&mut fds, Some(deadline));
    fds[0].revents & (libc::POLLERR | libc::POLLHUP) != 0
}

/// Whether `output` takes a line now, or within `limit`: not a terminal that
/// ^S holds, nor a full pipe.
pub fn is_writable(output: BorrowedFd<'_>, limit: Duration) -> bool {
    let mut fds = [libc::pollfd { fd: output.as_raw_fd(), events: libc::POLLOUT, revents: 0 }];
    poll(&mut fds, Some(after(limit)));
    fds[0].revents != 0
}

fn poll(fds: &mut [libc::pollfd], deadline: Option<Instant>) {
    let timeout = match deadline {
        None => -1,
        // Rounded up: a wake-up before the deadline would only spin.
        Some(deadline) => {
            let left = deadline.saturating_duration_since(Instant::now());
            left.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32
        }
    };
    // SAFETY: the pointer and the length are those of a live slice.
    let count = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout) };
    if count < 0 {
        // On an error (EINTR) the answers are undefined: there is none.
        fds.iter_mut().for_each(|entry| entry.revents = 0);
    }
}

/// Whether this process is in the foreground of its terminal, where the keys
/// that send signals send them to its whole process group.
pub fn is_in_foreground() -> bool {
    let Ok(terminal) = File::open("/dev/tty") else { return false };
    // SAFETY: both calls have no memory preconditions.
    unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) == libc::getpgrp() }
}

/// Columns of the terminal that `stream` is.
pub fn columns(stream: impl AsFd) -> Option<usize> {
    // SAFETY: winsize is plain data and TIOCGWINSZ only writes it.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        let answer = libc::ioctl(stream.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size);
        (answer == 0 && size.ws_col > 0).then_some(size.ws_col as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_wakes_the_waiter() {
        let (read, write) = std::io::pipe().unwrap();
        assert_eq!(wait(read.as_fd(), None, Some(Instant::now())), Ready::TimedOut);
        drop(read);
        assert!(wait_for_reader_gone(write.as_fd(), after(Duration::from_secs(5))));
    }
}
