//! Signals: sent, blocked, handled, passed on.

use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::streams::is_writable;

pub use libc::{SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGQUIT, SIGSTOP, SIGTERM, SIGUSR1, SIGUSR2};

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

/// What shells report for a process that a signal ended.
pub fn exit_code_of_signal(signal: i32) -> u8 {
    128 + signal as u8
}

/// Undoes what this process may have inherited: an ignored SIGCHLD, with which
/// the end of a child could not be waited for, and blocked signals, with which
/// it could not be stopped. And has SIGXFSZ do nothing: a file at the limit of
/// `ulimit -f` is an error of whoever writes it. To be called before anything else.
pub fn reset_inherited_signals() {
    extern "C" fn ignore(_: libc::c_int) {}
    // SAFETY: signal sets are plain data; no handler is installed yet, and the
    // one that is does nothing. Unlike SIG_IGN it ends with the next exec.
    unsafe {
        if is_ignored(libc::SIGCHLD) {
            libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        }
        libc::signal(libc::SIGXFSZ, ignore as *const () as libc::sighandler_t);
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::pthread_sigmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
    }
}

/// Whether this process inherited `signal` as ignored (`nohup`).
pub fn is_ignored(signal: i32) -> bool {
    // SAFETY: sigaction is plain data; with no new action it only reads.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}

/// Signal handlers that act as long as this value lives. After that the
/// signals do nothing: signal-hook leaves its own handler in place.
pub struct Handlers {
    registered: Vec<signal_hook::SigId>,
}

impl Drop for Handlers {
    fn drop(&mut self) {
        for handler in self.registered.drain(..) {
            signal_hook::low_level::unregister(handler);
        }
    }
}

/// How long the last words of a process wait for a stream that is full.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(200);

/// SIGINT, SIGTERM and SIGHUP remove the file and end the process, which is what
/// was asked for: with exit code 0. Death by the signal itself would not do: as
/// process 1 of a container nobody dies of it. `words` go to `output`; they are
/// put into a buffer, and their length returned, without memory or lock being
/// taken.
pub fn remove_on_signal(
    path: &Path,
    output: Option<RawFd>,
    words: impl Fn(&mut [u8]) -> usize + Clone + Send + Sync + 'static,
) -> io::Result<Handlers> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut registered = Vec::new();
    for signal in [SIGINT, SIGTERM, SIGHUP].into_iter().filter(|&signal| !is_ignored(signal)) {
        let (path, words) = (path.clone(), words.clone());
        // SAFETY: unlink, poll, write and _exit are async-signal-safe, and so is
        // `words`; the path was allocated before. A stream that was closed
        // meanwhile is an error of poll or write.
        registered.push(unsafe {
            signal_hook::low_level::register(signal, move || {
                libc::unlink(path.as_ptr());
                let mut buffer = [0; 256];
                let length = words(&mut buffer);
                let can_write = |output: &RawFd| is_writable(BorrowedFd::borrow_raw(*output), LAST_WORDS_LIMIT);
                if let Some(output) = output.filter(can_write) {
                    libc::write(output, buffer.as_ptr().cast(), length.min(buffer.len()));
                }
                libc::_exit(0);
            })?
        });
    }
    Ok(Handlers { registered })
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

    /// The last signal that came since this was asked.
    pub fn take_received(&self) -> Option<i32> {
        Some(self.last.swap(0, Ordering::SeqCst) as i32).filter(|signal| *signal != 0)
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
