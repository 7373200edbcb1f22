//! What the protocol of service managers needs beyond std.

use std::os::unix::net::SocketAddr;

/// The socket that has this name and is no file. Only Linux has such.
#[cfg(target_os = "linux")]
pub fn abstract_address(name: &[u8]) -> Option<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name).ok()
}

#[cfg(not(target_os = "linux"))]
pub fn abstract_address(_: &[u8]) -> Option<SocketAddr> {
    None
}

/// Microseconds on the clock that a service manager compares with its own.
pub fn monotonic_microseconds() -> i64 {
    // SAFETY: timespec is plain data, and the pointer is to our own.
    let now = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now);
        now
    };
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}
