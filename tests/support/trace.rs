//! Stops a program at its system calls, to end it between any two of them
//! (Linux).

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

/// Runs `command` and kills it as it is about to make the change with this
/// number: a system call that creates, writes, renames, removes or syncs
/// something. Returns the number of changes before it started a process of its
/// own, at which it is killed too; `Err` when the system does not let us trace.
pub fn kill_at_change(command: Command, number: usize) -> io::Result<usize> {
    trace(command, number, false)
}

/// The same, with the processes that it starts meanwhile, which are not traced;
/// it may also end by itself.
pub fn kill_at_any_change(command: Command, number: usize) -> io::Result<usize> {
    trace(command, number, true)
}

fn trace(mut command: Command, number: usize, may_spawn: bool) -> io::Result<usize> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: the call may be made between fork and exec.
    unsafe {
        command.pre_exec(|| match libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    let pid = command.spawn()?.id() as libc::pid_t;
    let mut changes = 0;
    let mut configured = false;
    loop {
        let mut status = 0;
        // SAFETY: `status` is ours, the child is ours and not reaped yet.
        let waited = unsafe { libc::waitpid(pid, &mut status, libc::__WALL) };
        assert_eq!(waited, pid, "{}", io::Error::last_os_error());
        if may_spawn && (libc::WIFEXITED(status) || libc::WIFSIGNALED(status)) {
            return Ok(changes);
        }
        assert!(libc::WIFSTOPPED(status), "it ended by itself after {changes} changes, status {status:#x}");
        // A signal that is meant for the child goes on to it.
        let mut deliver = 0;
        match libc::WSTOPSIG(status) {
            // Stopped after exec.
            libc::SIGTRAP if !configured => {
                let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL;
                // SAFETY: the child is stopped.
                let result = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, pid, 0, options) };
                assert_eq!(result, 0, "{}", io::Error::last_os_error());
                configured = true;
            }
            signal if signal == libc::SIGTRAP | 0x80 => {
                match entered(pid).map_or(Call::Other, |(number, arguments)| judge(number, arguments)) {
                    Call::Spawn if may_spawn => {}
                    Call::Spawn => return Ok(kill(pid, changes)),
                    Call::Change if changes == number => return Ok(kill(pid, changes)),
                    Call::Change => changes += 1,
                    Call::Other => {}
                }
            }
            signal => deliver = signal,
        }
        // SAFETY: the child is stopped.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, deliver) };
    }
}

fn kill(pid: libc::pid_t, changes: usize) -> usize {
    let mut status = 0;
    // SAFETY: the child is ours and not reaped yet.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        libc::waitpid(pid, &mut status, libc::__WALL);
    }
    assert!(libc::WIFSIGNALED(status), "status {status:#x}");
    changes
}

enum Call {
    Change,
    Spawn,
    Other,
}

fn judge(number: i64, arguments: [u64; 6]) -> Call {
    const SPAWNING: &[i64] = &[libc::SYS_clone, libc::SYS_clone3];
    const CHANGING: &[i64] = &[
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_unlinkat,
        libc::SYS_mkdirat,
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_ftruncate,
    ];
    // Calls that newer architectures do not have.
    #[cfg(target_arch = "x86_64")]
    const OLD_SPAWNING: &[i64] = &[libc::SYS_fork, libc::SYS_vfork];
    #[cfg(target_arch = "x86_64")]
    const OLD_CHANGING: &[i64] = &[libc::SYS_rename, libc::SYS_unlink, libc::SYS_mkdir, libc::SYS_chmod];
    #[cfg(not(target_arch = "x86_64"))]
    const OLD_SPAWNING: &[i64] = &[];
    #[cfg(not(target_arch = "x86_64"))]
    const OLD_CHANGING: &[i64] = &[];
    let creates = |flags: u64| flags & libc::O_CREAT as u64 != 0;
    match number {
        _ if SPAWNING.contains(&number) || OLD_SPAWNING.contains(&number) => Call::Spawn,
        _ if CHANGING.contains(&number) || OLD_CHANGING.contains(&number) => Call::Change,
        libc::SYS_openat if creates(arguments[2]) => Call::Change,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open if creates(arguments[1]) => Call::Change,
        // Not what it writes to its own streams.
        libc::SYS_write if arguments[0] > 2 => Call::Change,
        _ => Call::Other,
    }
}

/// The system call that the stopped child is about to make; None when it
/// returns from one.
fn entered(pid: libc::pid_t) -> Option<(i64, [u64; 6])> {
    const GET_SYSCALL_INFO: i64 = 0x420e;
    const ENTRY: u8 = 1;
    /// `struct ptrace_syscall_info`, as far as the entry of a call goes.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        op: u8,
        padding: [u8; 3],
        arch: u32,
        instruction_pointer: u64,
        stack_pointer: u64,
        number: u64,
        arguments: [u64; 6],
        rest: [u64; 2],
    }
    let mut info = Info::default();
    // SAFETY: the kernel writes at most the given size to `info`.
    let result = unsafe { libc::ptrace(GET_SYSCALL_INFO as _, pid, size_of::<Info>(), &raw mut info) };
    (result > 0 && info.op == ENTRY).then_some((info.number as i64, info.arguments))
}
