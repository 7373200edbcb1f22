//! Clocks that nobody sets: a machine without a battery for its clock learns the
//! time some while after it has booted.

/// Counts what the system sleeps, too. On macOS this is the monotonic one.
#[cfg(target_os = "linux")]
const SINCE_BOOT: libc::clockid_t = libc::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const SINCE_BOOT: libc::clockid_t = libc::CLOCK_MONOTONIC;

/// Seconds since the system was booted: the same for all processes.
pub fn seconds_since_boot() -> u64 {
    u64::try_from(read(SINCE_BOOT).tv_sec).unwrap_or(0)
}

/// Microseconds on the clock that a service manager compares with its own.
pub fn monotonic_microseconds() -> i64 {
    let now = read(libc::CLOCK_MONOTONIC);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1000
}

fn read(clock: libc::clockid_t) -> libc::timespec {
    // SAFETY: timespec is plain data, and the pointer is to our own.
    unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(clock, &mut now);
        now
    }
}
