//! Stops a program at its system calls, to end it between any two of them, or
//! to let them fail (Linux).

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};

/// Runs `command` and kills it as it is about to make the change with this
/// number: a system call that creates, writes, renames, removes or syncs
/// something. Returns the number of changes before it started a process of its
/// own, at which it is killed too; `Err` when the system does not let us trace.
pub fn kill_at_change(command: Command, number: usize) -> io::Result<usize> {
    let decide = |call, changes| match call == Call::Spawn || changes == number {
        true => Action::Kill,
        false => Action::GoOn,
    };
    let (changes, status) = trace(command, decide)?;
    assert_eq!(status.signal(), Some(libc::SIGKILL), "it ended by itself after {changes} changes: {status}");
    Ok(changes)
}

/// The same, with the processes that it starts meanwhile, which are not traced;
/// it may also end by itself.
pub fn kill_at_any_change(command: Command, number: usize) -> io::Result<usize> {
    let decide = |call, changes| match call != Call::Spawn && changes == number {
        true => Action::Kill,
        false => Action::GoOn,
    };
    trace(command, decide).map(|(changes, _)| changes)
}

/// Runs `command` on a disk that is full from the change with this number on.
/// The processes that it starts have room. Returns the number of changes, and
/// how it ended.
#[cfg(target_arch = "x86_64")]
pub fn fill_disk_at_change(command: Command, number: usize) -> io::Result<(usize, ExitStatus)> {
    let decide = |call, changes| match call == Call::Growth && changes >= number {
        true => Action::Refuse,
        false => Action::GoOn,
    };
    trace(command, decide)
}

enum Action {
    GoOn,
    Kill,
    /// There is no space left.
    #[cfg(target_arch = "x86_64")]
    Refuse,
}

/// `decide` is asked at each call that counts, with the number of changes
/// before it.
fn trace(mut command: Command, decide: impl Fn(Call, usize) -> Action) -> io::Result<(usize, ExitStatus)> {
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
        let status = wait(pid);
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            return Ok((changes, ExitStatus::from_raw(status)));
        }
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
                if let Some(call) = entered(pid).and_then(|(number, arguments)| judge(number, arguments)) {
                    match decide(call, changes) {
                        Action::GoOn => {}
                        // SAFETY: the child is ours and not reaped yet.
                        Action::Kill => unsafe {
                            libc::kill(pid, libc::SIGKILL);
                            return Ok((changes, ExitStatus::from_raw(wait(pid))));
                        },
                        #[cfg(target_arch = "x86_64")]
                        Action::Refuse => refuse(pid),
                    }
                    changes += usize::from(call != Call::Spawn);
                }
            }
            signal => deliver = signal,
        }
        // SAFETY: the child is stopped.
        unsafe { libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, deliver) };
    }
}

fn wait(pid: libc::pid_t) -> libc::c_int {
    let mut status = 0;
    // SAFETY: `status` is ours, the child is ours and not reaped yet.
    let waited = unsafe { libc::waitpid(pid, &mut status, libc::__WALL) };
    assert_eq!(waited, pid, "{}", io::Error::last_os_error());
    status
}

/// Lets the call that the stopped child is about to make fail.
#[cfg(target_arch = "x86_64")]
fn refuse(pid: libc::pid_t) {
    // SAFETY: plain numbers; the child is stopped, and its registers are ours
    // to set.
    unsafe {
        let mut registers: libc::user_regs_struct = std::mem::zeroed();
        let mut set = |result: Option<i64>| {
            assert_eq!(libc::ptrace(libc::PTRACE_GETREGS, pid, 0, &raw mut registers), 0);
            match result {
                None => registers.orig_rax = u64::MAX,
                Some(result) => registers.rax = result as u64,
            }
            assert_eq!(libc::ptrace(libc::PTRACE_SETREGS, pid, 0, &raw mut registers), 0);
        };
        set(None);
        // To the end of the call, which is none.
        libc::ptrace(libc::PTRACE_SYSCALL, pid, 0, 0);
        assert!(libc::WIFSTOPPED(wait(pid)));
        set(Some(-i64::from(libc::ENOSPC)));
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Call {
    /// It takes space.
    Growth,
    /// It changes what is there.
    Change,
    Spawn,
}

fn judge(number: i64, arguments: [u64; 6]) -> Option<Call> {
    const SPAWNING: &[i64] = &[libc::SYS_clone, libc::SYS_clone3];
    const GROWING: &[i64] = &[libc::SYS_mkdirat, libc::SYS_linkat];
    const CHANGING: &[i64] = &[
        libc::SYS_renameat,
        libc::SYS_renameat2,
        libc::SYS_unlinkat,
        libc::SYS_fsync,
        libc::SYS_fdatasync,
        libc::SYS_fchmod,
        libc::SYS_fchmodat,
        libc::SYS_ftruncate,
    ];
    // Calls that newer architectures do not have.
    #[cfg(target_arch = "x86_64")]
    const OLD: [&[i64]; 3] = [
        &[libc::SYS_fork, libc::SYS_vfork],
        &[libc::SYS_mkdir, libc::SYS_link],
        &[libc::SYS_rename, libc::SYS_unlink, libc::SYS_rmdir, libc::SYS_chmod],
    ];
    #[cfg(not(target_arch = "x86_64"))]
    const OLD: [&[i64]; 3] = [&[]; 3];
    let creates = |flags: u64| flags & libc::O_CREAT as u64 != 0;
    match number {
        _ if SPAWNING.contains(&number) || OLD[0].contains(&number) => Some(Call::Spawn),
        _ if GROWING.contains(&number) || OLD[1].contains(&number) => Some(Call::Growth),
        _ if CHANGING.contains(&number) || OLD[2].contains(&number) => Some(Call::Change),
        libc::SYS_openat if creates(arguments[2]) => Some(Call::Growth),
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open if creates(arguments[1]) => Some(Call::Growth),
        // Not what it writes to its own streams.
        libc::SYS_write if arguments[0] > 2 => Some(Call::Growth),
        _ => None,
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
