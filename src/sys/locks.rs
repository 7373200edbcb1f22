//! Record locks, which name their holder to whoever asks.
//!
//! std's own lock (flock) does not. On Linux the two do not meet; on macOS, and
//! on network file systems, a file that holds the one cannot be given the other.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Who has signed a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signer {
    /// Nobody, or nobody whom the system could name.
    Unknown,
    Process(u32),
    /// A process that has no number here: it runs in another container.
    Elsewhere,
}

/// Signs `file` as long as this process lives and closes no descriptor of it.
pub fn sign(file: &File) -> io::Result<()> {
    match record_lock(file, libc::F_SETLK) {
        Some(_) => Ok(()),
        None => Err(io::Error::last_os_error()),
    }
}

/// Who has signed `file`; asking changes nothing.
pub fn signer(file: &File) -> Signer {
    match record_lock(file, libc::F_GETLK) {
        Some(lock) if lock.l_type == libc::F_UNLCK as libc::c_short => Signer::Unknown,
        Some(lock) => match u32::try_from(lock.l_pid) {
            Ok(0) => Signer::Elsewhere,
            Ok(pid) => Signer::Process(pid),
            Err(_) => Signer::Unknown,
        },
        None => Signer::Unknown,
    }
}

fn record_lock(file: &File, command: i32) -> Option<libc::flock> {
    // SAFETY: flock is plain data, all zeroes means the whole file; fcntl only
    // reads and writes it.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        lock.l_type = libc::F_WRLCK as libc::c_short;
        (libc::fcntl(file.as_raw_fd(), command, &mut lock) == 0).then_some(lock)
    }
}
