//! The system calls that std does not wrap: the only `unsafe` of the program.
//!
//! Everything that differs between Linux and macOS and is no plain constant
//! stands here too, so that the rest of the program reads the same on both.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub use libc::{SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};

/// Makes `command` a server of ours: a process group of its own, the lock file
/// `held` kept open across exec, and on Linux SIGTERM when this process dies,
/// however it dies.
pub fn prepare_server(command: &mut Command, held: &File) {
    let held = held.as_raw_fd();
    #[cfg(target_os = "linux")]
    // SAFETY: getpid has no preconditions.
    let parent = unsafe { libc::getpid() };
    command.process_group(0);
    // SAFETY: the closure runs in the forked child and calls only
    // async-signal-safe functions; it touches no memory but its captures.
    unsafe {
        command.pre_exec(move || {
            if libc::fcntl(held, libc::F_SETFD, 0) == -1 {
                return Err(io::Error::last_os_error());
            }
            #[cfg(target_os = "linux")]
            {
                if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) == -1 {
                    return Err(io::Error::last_os_error());
                }
                // The parent may have died before the request was made.
                if libc::getppid() != parent {
                    return Err(io::Error::from_raw_os_error(libc::ESRCH));
                }
            }
            Ok(())
        });
    }
}

/// Sends `signal` to the process `pid`. False when there is no such process.
pub fn signal(pid: u32, signal: i32) -> bool {
    // SAFETY: kill has no memory preconditions.
    unsafe { libc::kill(pid as libc::pid_t, signal) == 0 }
}

/// Sends `signal` to every process of the group that `leader` leads.
pub fn signal_group(leader: u32, signal: i32) {
    // SAFETY: kill has no memory preconditions.
    unsafe { libc::kill(-(leader as libc::pid_t), signal) };
}

/// Whether a process `pid` exists (one of another user's counts).
pub fn is_alive(pid: u32) -> bool {
    signal(pid, 0) || io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// Whether the child `pid` has ended, without reaping it: its pid and its
/// group stay reserved until it is reaped.
pub fn has_ended(pid: u32) -> bool {
    // SAFETY: siginfo_t is plain data, all zeroes is valid; waitid only writes to it.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WEXITED | libc::WNOWAIT | libc::WNOHANG;
        libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, options) == 0 && info.si_pid() != 0
    }
}

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

/// Sleeps until `deadline` or until nobody can read any more what is written
/// to `output`; tells whether that is so.
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

/// Undoes what whoever started this process may have left to it: an ignored
/// SIGCHLD, with which nobody's end could be waited for, and blocked signals,
/// with which nobody could stop us. To be called first of all.
pub fn reset_inherited_signals() {
    // SAFETY: signal sets are plain data; no handler is installed yet.
    unsafe {
        if is_ignored(libc::SIGCHLD) {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        }
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// One side of a `fork`.
pub enum Fork {
    /// The caller, with the pid of the new process.
    Parent(u32),
    Child,
}

/// Forks. The program has one thread, so the child may go on as an ordinary
/// process.
pub fn fork() -> io::Result<Fork> {
    // SAFETY: there is no other thread that could hold a lock at this moment.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Fork::Child),
        pid => Ok(Fork::Parent(pid as u32)),
    }
}

/// Closes every descriptor of a fresh child but the standard streams and
/// `kept`: its parent's files, and what whoever started that left open. Values
/// that own such a descriptor must not be used or dropped in the child.
pub fn close_all_but(kept: &File) {
    // Where neither is mounted nothing is closed, which harms few.
    let Some(entries) = ["/dev/fd", "/proc/self/fd"].iter().find_map(|path| std::fs::read_dir(path).ok()) else {
        return;
    };
    let is_number = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok();
    // The list is whole before the first is closed, its own descriptor too.
    let open: Vec<RawFd> = entries.filter_map(is_number).collect();
    for fd in open.into_iter().filter(|&fd| fd > 2 && fd != kept.as_raw_fd()) {
        // SAFETY: nobody uses the descriptor any more, as the caller promises.
        unsafe { libc::close(fd) };
    }
}

/// Waits for the child `pid` to end and reaps it: its exit code, or 128 + N
/// where signal N ended it.
pub fn wait_for_child(pid: u32) -> io::Result<u8> {
    let mut status = 0;
    loop {
        // SAFETY: waitpid only writes the status.
        if unsafe { libc::waitpid(pid as libc::pid_t, &mut status, 0) } != -1 {
            break;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(match libc::WIFSIGNALED(status) {
        true => exit_code_of_signal(libc::WTERMSIG(status)),
        false => libc::WEXITSTATUS(status) as u8,
    })
}

/// How shells tell that a signal ended a process.
pub fn exit_code_of_signal(signal: i32) -> u8 {
    128 + signal as u8
}

/// Leaves the terminal: a session of its own, `/` as working directory.
pub fn detach_from_terminal() -> io::Result<()> {
    // SAFETY: setsid has no preconditions; in a fresh child it cannot fail.
    unsafe { libc::setsid() };
    std::env::set_current_dir("/")
}

/// Points standard input, output and error at the given files.
pub fn redirect_standard_streams(input: &File, output: &File) -> io::Result<()> {
    for (from, to) in [(input, 0), (output, 1), (output, 2)] {
        // SAFETY: both are descriptors; dup2 has no memory preconditions.
        if unsafe { libc::dup2(from.as_raw_fd(), to) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// A pipe: the end to read and the end to write, both closed on exec.
pub fn pipe() -> io::Result<(File, File)> {
    let mut fds = [0; 2];
    // SAFETY: pipe writes two descriptors into the array; they are new, so
    // each File is its only owner.
    unsafe {
        if libc::pipe(fds.as_mut_ptr()) == -1 {
            return Err(io::Error::last_os_error());
        }
        for fd in fds {
            libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        Ok((File::from(OwnedFd::from_raw_fd(fds[0])), File::from(OwnedFd::from_raw_fd(fds[1]))))
    }
}

/// Whether `signal` was set to be ignored by whoever started this process (`nohup`).
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: sigaction is plain data; with no new action it only reads.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Whether this process is in the foreground of its terminal, where the keys
/// that send signals send them to its whole process group.
pub fn is_in_foreground() -> bool {
    let Ok(terminal) = File::open("/dev/tty") else { return false };
    // SAFETY: both calls have no memory preconditions.
    unsafe { libc::tcgetpgrp(terminal.as_raw_fd()) == libc::getpgrp() }
}

/// Signal handlers that act as long as this value lives. After that the
/// signals do nothing: signal-hook leaves its own handler in place.
pub struct Handlers {
    registered: Vec<signal_hook::SigId>,
}

/// Passes signals on to another process: once there is one, also those that
/// came before.
pub struct Forwarder {
    /// 0: there is none.
    target: Arc<AtomicU32>,
    /// A bit for each signal that came while there was no target.
    early: Arc<AtomicU32>,
    /// A bit for each signal that is not passed on.
    held_off: Arc<AtomicU32>,
    /// The last signal that came, or 0.
    last: Arc<AtomicU32>,
    _handlers: Handlers,
}

impl Forwarder {
    /// From now on `signals` do not end this process. Unlike ignoring them,
    /// this is not inherited by programs that are executed. What is ignored
    /// already stays so (`nohup`).
    pub fn new(signals: &[i32]) -> io::Result<Forwarder> {
        let (target, early) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let (held_off, last) = (Arc::<AtomicU32>::default(), Arc::<AtomicU32>::default());
        let mut registered = Vec::new();
        for &signal in signals.iter().filter(|&&signal| !is_ignored(signal)) {
            let (target, early) = (target.clone(), early.clone());
            let (held_off, last) = (held_off.clone(), last.clone());
            let pass_on = move || {
                last.store(signal as u32, Ordering::SeqCst);
                match target.load(Ordering::SeqCst) {
                    0 => {
                        early.fetch_or(1 << signal, Ordering::SeqCst);
                    }
                    _ if held_off.load(Ordering::SeqCst) & 1 << signal != 0 => {}
                    pid => {
                        self::signal(pid, signal);
                    }
                }
            };
            // SAFETY: kill and atomics are async-signal-safe.
            registered.push(unsafe { signal_hook::low_level::register(signal, pass_on)? });
        }
        Ok(Forwarder { target, early, held_off, last, _handlers: Handlers { registered } })
    }

    /// Passes on all but `held_off` to `pid` from now on.
    pub fn pass_to(&self, pid: u32, held_off: &[i32]) {
        let held_off = held_off.iter().fold(0, |bits, signal| bits | 1 << signal);
        self.held_off.store(held_off, Ordering::SeqCst);
        self.target.store(pid, Ordering::SeqCst);
        let early = self.early.swap(0, Ordering::SeqCst) & !held_off;
        (1..32).filter(|number| early & (1 << number) != 0).for_each(|number| {
            signal(pid, number);
        });
    }

    /// The target is to get no more. What comes now waits for the next one.
    pub fn pause(&self) {
        self.target.store(0, Ordering::SeqCst);
    }

    /// The last signal that came.
    pub fn received(&self) -> Option<i32> {
        Some(self.last.load(Ordering::SeqCst) as i32).filter(|signal| *signal != 0)
    }
}

/// Keeps signals waiting as long as this value lives.
pub struct SignalBlock {
    before: libc::sigset_t,
}

/// From now on `signals` wait. A forked child inherits this, but none that wait.
pub fn block_signals(signals: &[i32]) -> io::Result<SignalBlock> {
    // SAFETY: signal sets are plain data; the pointers are to our own.
    unsafe {
        let (mut set, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigemptyset(&mut set);
        for signal in signals {
            libc::sigaddset(&mut set, *signal);
        }
        match libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut before) {
            0 => Ok(SignalBlock { before }),
            number => Err(io::Error::from_raw_os_error(number)),
        }
    }
}

impl Drop for SignalBlock {
    fn drop(&mut self) {
        // SAFETY: the set is the one that was in force.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut()) };
    }
}

/// SIGINT, SIGTERM and SIGHUP remove the file before they end the process, as
/// they do by default.
pub fn remove_on_signal(path: &Path) -> io::Result<Handlers> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let on_terminal = io::stdout().is_terminal();
    let mut registered = Vec::new();
    for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal)) {
        let path = path.clone();
        // SAFETY: unlink, write and signal-hook's default handler are
        // async-signal-safe; the path was allocated before.
        registered.push(unsafe {
            signal_hook::low_level::register(signal, move || {
                libc::unlink(path.as_ptr());
                if on_terminal {
                    // The prompt comes below the progress line.
                    libc::write(1, b"\n".as_ptr().cast(), 1);
                }
                let _ = signal_hook::low_level::emulate_default_handler(signal);
            })?
        });
    }
    Ok(Handlers { registered })
}

impl Drop for Handlers {
    fn drop(&mut self) {
        for handler in self.registered.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
    }
}

/// The user that this process acts as.
pub fn effective_user() -> u32 {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() }
}

/// Bytes that an unprivileged user may still write on the disk of `path`.
pub fn free_space(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: the path is NUL-terminated; statvfs is plain data and only written.
    unsafe {
        let mut info: libc::statvfs = std::mem::zeroed();
        // The fields' width differs between platforms.
        #[allow(clippy::unnecessary_cast)]
        (libc::statvfs(path.as_ptr(), &mut info) == 0).then(|| info.f_bavail as u64 * info.f_frsize as u64)
    }
}

/// Starts writing out what the file got so far, and does not wait for it: the
/// fsync at the end then finds little left to do. Linux only, elsewhere nothing.
pub fn start_writeback(file: &File) {
    #[cfg(target_os = "linux")]
    // SAFETY: no memory is involved; it is a hint, a failure changes nothing.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

/// Columns of the terminal behind `stream`.
pub fn columns(stream: impl AsFd) -> Option<usize> {
    // SAFETY: winsize is plain data and TIOCGWINSZ only writes it.
    unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        let answer = libc::ioctl(stream.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size);
        (answer == 0 && size.ws_col > 0).then_some(size.ws_col as usize)
    }
}

/// Seconds since 1970 as calendar time in UTC: `2026-11-23T03:50:00Z`.
pub fn utc(seconds: u64) -> String {
    // SAFETY: tm is plain data; gmtime_r reads one value and writes the other.
    let tm = unsafe {
        let mut tm: libc::tm = std::mem::zeroed();
        libc::gmtime_r(&(seconds as _), &mut tm);
        tm
    };
    let (year, month, day) = (tm.tm_year + 1900, tm.tm_mon + 1, tm.tm_mday);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", tm.tm_hour, tm.tm_min, tm.tm_sec)
}

/// What tells the process `pid` from any other that ever had this number: the
/// time of its start. None where the system does not tell (no /proc, no such
/// process).
pub fn birth(pid: u32) -> Option<String> {
    #[cfg(target_os = "linux")]
    {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // proc(5): the name in parentheses may hold anything; field 3 comes
        // behind the last one, the start time in clock ticks is field 22.
        let fields = &stat[stat.rfind(')')? + 1..];
        let ticks = fields.split_ascii_whitespace().nth(22 - 3)?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(format!("{ticks}@{}", boot.trim()))
    }
    #[cfg(target_os = "macos")]
    // SAFETY: proc_bsdinfo is plain data of the size that is passed.
    unsafe {
        let mut info: libc::proc_bsdinfo = std::mem::zeroed();
        let size = std::mem::size_of::<libc::proc_bsdinfo>() as i32;
        let pointer = std::ptr::from_mut(&mut info).cast();
        let got = libc::proc_pidinfo(pid as i32, libc::PROC_PIDTBSDINFO, 0, pointer, size);
        (got == size).then(|| format!("{}.{:06}", info.pbi_start_tvsec, info.pbi_start_tvusec))
    }
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    {
        let _ = pid;
        None
    }
}

/// The executable that the process `pid` runs.
pub fn executable(pid: u32) -> Option<PathBuf> {
    #[cfg(target_os = "linux")]
    {
        let link = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
        // The file may have been replaced since (proc(5)).
        let bytes = link.as_os_str().as_bytes();
        let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
        Some(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
    }
    #[cfg(target_os = "macos")]
    // SAFETY: the buffer has the size that is passed.
    unsafe {
        let mut buffer = vec![0u8; libc::PROC_PIDPATHINFO_MAXSIZE as usize];
        let length = libc::proc_pidpath(pid as i32, buffer.as_mut_ptr().cast(), buffer.len() as u32);
        (length > 0).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(&buffer[..length as usize])))
    }
    #[cfg(not(any(target_os = "linux", target_os = "macos")))]
    {
        let _ = pid;
        None
    }
}

/// A moment `duration` from now.
pub fn after(duration: Duration) -> Instant {
    Instant::now() + duration
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendar_time_is_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(1_795_405_845), "2026-11-23T03:50:45Z");
    }

    #[test]
    fn a_process_is_told_by_its_birth_and_executable() {
        let me = std::process::id();
        assert!(is_alive(me));
        assert_eq!(birth(me), birth(me));
        assert_eq!(executable(me).unwrap(), std::env::current_exe().unwrap());
        assert_eq!(birth(u32::MAX >> 2), None);
    }

    #[test]
    fn a_closed_pipe_wakes_the_waiter() {
        let (read, write) = pipe().unwrap();
        assert_eq!(wait(read.as_fd(), None, Some(Instant::now())), Ready::TimedOut);
        drop(read);
        assert!(wait_for_reader_gone(write.as_fd(), after(Duration::from_secs(5))));
    }
}
