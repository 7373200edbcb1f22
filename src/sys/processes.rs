//! Processes: forked, recognised, waited for.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
#[cfg(target_os = "linux")]
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Command, ExitStatus};

use super::signals::{exit_code_of_signal, signal};

/// Makes `command` a server of ours: a process group of its own, the files
/// `held` kept open across exec, and on Linux the signal `at_our_death` when
/// this process dies, however it dies.
pub fn prepare_server<'a>(command: &mut Command, held: impl Iterator<Item = &'a File>, at_our_death: i32) {
    let held: Vec<RawFd> = held.map(AsRawFd::as_raw_fd).collect();
    command.process_group(0);
    // SAFETY: the closure runs in the forked child and calls only
    // async-signal-safe functions; it touches no memory but its captures.
    unsafe {
        command.pre_exec(move || match held.iter().any(|&held| libc::fcntl(held, libc::F_SETFD, 0) == -1) {
            true => Err(io::Error::last_os_error()),
            false => Ok(()),
        });
    }
    signal_at_our_death(command, at_our_death);
}

/// `command` gets `signal` when this process dies, however it dies. Linux
/// only, elsewhere nothing.
pub fn signal_at_our_death(command: &mut Command, signal: i32) {
    #[cfg(target_os = "linux")]
    // SAFETY: getpid has no preconditions; the closure runs in the forked child
    // and calls only async-signal-safe functions.
    unsafe {
        let parent = libc::getpid();
        command.pre_exec(move || {
            if libc::prctl(libc::PR_SET_PDEATHSIG, signal) == -1 {
                return Err(io::Error::last_os_error());
            }
            // The parent may have died before the request was made.
            match libc::getppid() == parent {
                true => Ok(()),
                false => Err(io::Error::from_raw_os_error(libc::ESRCH)),
            }
        });
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (command, signal);
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

/// Whether the process `pid` is another user's, who alone may signal it.
pub fn is_of_another_user(pid: u32) -> bool {
    !signal(pid, 0) && io::Error::last_os_error().raw_os_error() == Some(libc::EPERM)
}

/// The user of the process `pid`, where the system says.
pub fn user_of(pid: u32) -> Option<u32> {
    Some(std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(format!("/proc/{pid}")).ok()?))
}

/// Whether the process `pid` is suspended, as by Ctrl-Z.
pub fn is_suspended(pid: u32) -> bool {
    #[cfg(target_os = "linux")]
    return stat(pid).is_some_and(|(state, ..)| state == 'T') && has_own_proc();
    #[cfg(not(target_os = "linux"))]
    return bsd_info(pid).is_some_and(|info| info.pbi_status == libc::SSTOP);
}

/// Waits until the child `pid` has ended, without reaping it; what else ends
/// meanwhile is reaped, for process 1 of a container gets what others leave.
pub fn wait_until_ended(pid: u32) {
    while let Some(ended) = ended_child(0).filter(|ended| *ended != pid) {
        reap(ended);
    }
}

/// Reaps the children that have ended, but for those in `own`, whose owners do
/// that; where one of them comes first, the others wait for the next time.
pub fn reap_all_but(own: &[u32]) {
    while let Some(ended) = ended_child(libc::WNOHANG).filter(|ended| !own.contains(ended)) {
        reap(ended);
    }
}

/// A child that has ended and is not reaped yet.
fn ended_child(options: i32) -> Option<u32> {
    // SAFETY: as above.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        while libc::waitid(libc::P_ALL, 0, &mut info, libc::WEXITED | libc::WNOWAIT | options) == -1 {
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                return None;
            }
        }
        Some(info.si_pid() as u32).filter(|pid| *pid != 0)
    }
}

fn reap(pid: u32) {
    // SAFETY: no status is asked for; the child has ended, so this does not wait.
    unsafe { libc::waitpid(pid as libc::pid_t, std::ptr::null_mut(), 0) };
}

/// Whether the child `pid` is held by SIGSTOP.
pub fn is_stopped(pid: u32) -> bool {
    // SAFETY: as above.
    unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let options = libc::WSTOPPED | libc::WNOWAIT | libc::WNOHANG;
        libc::waitid(libc::P_PID, pid as libc::id_t, &mut info, options) == 0 && info.si_pid() != 0
    }
}

/// Whether every process of the group of the child `leader` is held by SIGSTOP,
/// as far as the system shows.
pub fn is_group_stopped(leader: u32) -> bool {
    #[cfg(target_os = "linux")]
    let do_others_stand = || {
        let still = |pid| pid == leader || stat(pid).is_none_or(|(state, ..)| matches!(state, 'T' | 't' | 'Z' | 'X'));
        group_of(leader).is_none_or(|members| members.into_iter().all(still))
    };
    #[cfg(not(target_os = "linux"))]
    let do_others_stand = || true;
    is_stopped(leader) && do_others_stand()
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
/// `kept`: its parent's files, and what was left open to the parent. Values
/// that own such a descriptor must not be used or dropped in the child.
pub fn close_all_but(kept: impl AsFd) {
    // Where neither is mounted nothing is closed, which harms few.
    let Some(entries) = ["/dev/fd", "/proc/self/fd"].iter().find_map(|path| std::fs::read_dir(path).ok()) else {
        return;
    };
    let is_number = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok();
    // The list is whole before the first is closed, its own descriptor too.
    let open: Vec<RawFd> = entries.filter_map(is_number).collect();
    for fd in open.into_iter().filter(|&fd| fd > 2 && fd != kept.as_fd().as_raw_fd()) {
        // SAFETY: nothing uses the descriptor any more, as the caller promises.
        unsafe { libc::close(fd) };
    }
}

/// Waits for the child `pid` to end and reaps it: its exit code, or 128 + N
/// where signal N ended it.
pub fn wait_for_child(pid: u32) -> io::Result<u8> {
    let mut status = 0;
    // SAFETY: waitpid only writes the status.
    while unsafe { libc::waitpid(pid as libc::pid_t, &mut status, 0) } == -1 {
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(exit_code(ExitStatus::from_raw(status)))
}

/// The exit code that a shell reports for `status`.
pub fn exit_code(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => exit_code_of_signal(signal.unwrap_or(0)),
    }
}

/// Leaves the terminal: a session of its own, `/` as working directory.
pub fn detach_from_terminal() -> io::Result<()> {
    // SAFETY: setsid has no preconditions; in a fresh child it cannot fail.
    unsafe { libc::setsid() };
    std::env::set_current_dir("/")
}

/// Overwrites the part of each of this process's arguments that `secret` finds:
/// everybody may read them. To be called when they have been read here.
pub fn mask_arguments(secret: impl Fn(&[u8]) -> Option<Range<usize>>) {
    for argument in arguments() {
        if let Some(range) = secret(argument) {
            argument[range].fill(b'x');
        }
    }
}

#[cfg(target_os = "linux")]
fn arguments() -> Vec<&'static mut [u8]> {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return Vec::new() };
    // proc(5): fields 48 and 49 are where the arguments begin and end.
    let behind_name = stat.rfind(')').map_or("", |at| &stat[at + 1..]);
    let field = |number: usize| behind_name.split_ascii_whitespace().nth(number - 3)?.parse::<usize>().ok();
    match (field(48), field(49)) {
        (Some(begin), Some(end)) if begin != 0 && end > begin => {
            // SAFETY: the kernel laid the arguments there, for this process to
            // change as it likes; there is one thread, and it reads them no more.
            let bytes = unsafe { std::slice::from_raw_parts_mut(begin as *mut u8, end - begin) };
            bytes.split_mut(|byte| *byte == 0).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(not(target_os = "linux"))]
fn arguments() -> Vec<&'static mut [u8]> {
    let mut arguments = Vec::new();
    // SAFETY: argv is what this process was given, NUL-terminated strings up to
    // a null pointer; there is one thread, and it reads them no more.
    unsafe {
        let mut next = *libc::_NSGetArgv();
        while !(*next).is_null() {
            let length = std::ffi::CStr::from_ptr(*next).to_bytes().len();
            arguments.push(std::slice::from_raw_parts_mut((*next).cast::<u8>(), length));
            next = next.add(1);
        }
    }
    arguments
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

/// The user that this process acts as.
pub fn effective_user() -> u32 {
    // SAFETY: geteuid has no preconditions.
    unsafe { libc::geteuid() }
}

/// Whether the /proc that is mounted is that of this process's pid namespace:
/// in another one's the numbers mean other processes.
#[cfg(target_os = "linux")]
pub(super) fn has_own_proc() -> bool {
    let me = std::process::id().to_string();
    std::fs::read_link("/proc/self").is_ok_and(|link| link.as_os_str() == me.as_str())
}

/// The state and the process group of `pid`, and when it started, in clock ticks.
#[cfg(target_os = "linux")]
fn stat(pid: u32) -> Option<(char, u32, String)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc(5): the name in parentheses may hold anything; the state, field 3,
    // comes after the last one, the group is field 5, the start time 22.
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    let (state, group) = (fields.next()?.chars().next()?, fields.nth(1)?.parse().ok()?);
    Some((state, group, fields.nth(22 - 6)?.to_owned()))
}

/// The processes of the group that `leader` leads.
#[cfg(target_os = "linux")]
pub(super) fn group_of(leader: u32) -> Option<Vec<u32>> {
    let number = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse::<u32>().ok();
    let pids = std::fs::read_dir("/proc").ok()?.filter_map(number);
    Some(pids.filter(|pid| stat(*pid).is_some_and(|(_, group, _)| group == leader)).collect())
}

/// What distinguishes the process `pid` from any other that ever had this
/// number: the time of its start and, as every container counts anew, whose count it is.
/// None where the system does not say (no /proc, or another container's), for a
/// process that is not, and for one that has ended and waits to be reaped.
pub fn birth(pid: u32) -> Option<String> {
    #[cfg(target_os = "linux")]
    {
        let (state, _, ticks) = stat(pid).filter(|_| has_own_proc())?;
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let namespace = std::fs::metadata("/proc/self/ns/pid").ok()?.ino();
        (!matches!(state, 'Z' | 'X')).then(|| format!("{ticks}@{}#{namespace}", boot.trim()))
    }
    #[cfg(not(target_os = "linux"))]
    bsd_info(pid).map(|info| format!("{}.{:06}", info.pbi_start_tvsec, info.pbi_start_tvusec))
}

#[cfg(not(target_os = "linux"))]
fn bsd_info(pid: u32) -> Option<libc::proc_bsdinfo> {
    // SAFETY: proc_bsdinfo is plain data of the size that is passed.
    unsafe {
        let mut info: libc::proc_bsdinfo = std::mem::zeroed();
        let size = std::mem::size_of::<libc::proc_bsdinfo>() as i32;
        let pointer = std::ptr::from_mut(&mut info).cast();
        (libc::proc_pidinfo(pid as i32, libc::PROC_PIDTBSDINFO, 0, pointer, size) == size).then_some(info)
    }
}

/// The executable that the process `pid` runs.
pub fn executable(pid: u32) -> Option<PathBuf> {
    #[cfg(target_os = "linux")]
    {
        let link = std::fs::read_link(format!("/proc/{pid}/exe")).ok().filter(|_| has_own_proc())?;
        // The file may have been replaced since (proc(5)).
        let bytes = link.as_os_str().as_bytes();
        let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
        Some(PathBuf::from(std::ffi::OsStr::from_bytes(bytes)))
    }
    #[cfg(not(target_os = "linux"))]
    // SAFETY: the buffer has the size that is passed.
    unsafe {
        let mut buffer = vec![0u8; libc::PROC_PIDPATHINFO_MAXSIZE as usize];
        let length = libc::proc_pidpath(pid as i32, buffer.as_mut_ptr().cast(), buffer.len() as u32);
        (length > 0).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(&buffer[..length as usize])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_only_waits_to_be_reaped_has_no_birth() {
        let mut child = Command::new("true").spawn().unwrap();
        while !has_ended(child.id()) {
            std::thread::yield_now();
        }
        assert_eq!(birth(child.id()), None);
        child.wait().unwrap();
    }

    #[test]
    fn a_process_is_recognised_by_its_birth_and_executable() {
        let me = std::process::id();
        assert!(is_alive(me));
        assert!(birth(me).is_some() && birth(me) == birth(me));
        assert_eq!(executable(me).unwrap(), std::env::current_exe().unwrap());
        assert_eq!(birth(u32::MAX >> 2), None);
    }
}
