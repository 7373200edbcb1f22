//! An empty home for one test, in which nothing outlives the test.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::process::{Stigmer, binary, is_root};
use super::{LIMIT, wait_until};

/// Below the range from which systems take ports for outgoing connections:
/// what is free here stays free until we use it.
const FIRST_PORT: u32 = 15_000;
const PORTS: u32 = 15_000;
const LOG_LINES: usize = 40;
/// Bytes of the page before what is kept of an archive.
pub const KEPT_HEADER: u64 = 4096;
/// A user without any privileges.
pub const NOBODY: u32 = 65_534;

/// A user's home directory, with stigmer's home `.stigmer` in it, the records
/// of the stand-in beside it, and two ports. All of it is gone after the test,
/// and so is every process that knows this home.
pub struct Home {
    root: PathBuf,
    port: Port,
    ui_port: Port,
}

impl Home {
    pub fn new() -> Home {
        Home::below(&std::env::temp_dir())
    }

    /// A home on the file system of `directory`.
    pub fn below(directory: &Path) -> Home {
        Home::named(directory, "")
    }

    /// A home whose path ends with `suffix`.
    pub fn named(directory: &Path, suffix: &str) -> Home {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let (port, ui_port) = (Port::reserve(), Port::reserve());
        let root = directory.join(format!("stigmer-test-{}-{number}{suffix}", std::process::id()));
        // A process with our number may have been killed here.
        let _ = fs::remove_dir_all(&root);
        for name in ["user", "stand-in"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        Home { root, port, ui_port }
    }

    /// The temporary directory that holds everything of this test.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What `HOME` is set to.
    pub fn user(&self) -> PathBuf {
        self.root.join("user")
    }

    /// What `STIGMER_HOME` is set to.
    pub fn path(&self) -> PathBuf {
        self.root.join("user/.stigmer")
    }

    pub fn bin(&self) -> PathBuf {
        self.path().join("bin")
    }

    pub fn temporal(&self) -> PathBuf {
        self.path().join("bin/temporal")
    }

    pub fn receipt(&self) -> PathBuf {
        self.path().join("bin/temporal.receipt")
    }

    /// What came of a download that was interrupted, behind a page about it.
    pub fn kept(&self) -> PathBuf {
        self.bin().join(".temporal.download")
    }

    /// How much of an archive is kept.
    pub fn kept_bytes(&self) -> u64 {
        fs::metadata(self.kept()).map_or(0, |kept| kept.len().saturating_sub(KEPT_HEADER))
    }

    pub fn database(&self) -> PathBuf {
        self.path().join("data/temporal.db")
    }

    pub fn log(&self) -> PathBuf {
        self.path().join("logs/temporal.log")
    }

    pub fn stand_in_dir(&self) -> PathBuf {
        self.root.join("stand-in")
    }

    pub fn port(&self) -> u16 {
        self.port.number
    }

    pub fn ui_port(&self) -> u16 {
        self.ui_port.number
    }

    /// `stigmer ARGS` in this home.
    pub fn stigmer<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Stigmer<'_> {
        Stigmer::new(self, arguments)
    }

    /// `stigmer ARGS` by a user for whom permissions count: root becomes another
    /// one, who owns the home as it is now.
    pub fn stigmer_without_privileges<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Stigmer<'_> {
        if !is_root() {
            return self.stigmer(arguments);
        }
        // The program may lie where that user has no access.
        let program = self.root.join("stigmer");
        let done = |command: &mut Command| assert!(command.status().unwrap().success());
        done(Command::new("cp").arg(binary()).arg(&program));
        done(Command::new("chown").arg("-R").arg(format!("{NOBODY}:{NOBODY}")).arg(&self.root));
        Stigmer::of_program(self, program.as_os_str(), arguments).by_user(NOBODY)
    }

    /// `bin/temporal` becomes the stand-in, put there as a user would: without
    /// a receipt.
    pub fn with_stand_in(self) -> Home {
        for directory in [self.path(), self.bin()] {
            fs::create_dir_all(&directory).unwrap();
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        }
        // Not by this process: a file that it has open for writing cannot be
        // executed, and another thread's fork may keep it open for a moment.
        let status = Command::new("cp").arg(super::stand_in()).arg(self.temporal()).status().unwrap();
        assert!(status.success());
        self
    }

    /// Leaves a database as a kill at its birth does.
    pub fn leave_half_a_database(&self) {
        self.behave("slow-schema 60000");
        let daemon = self.stigmer(["local", "start"]).spawn();
        self.wait_for("half a database", || fs::read(self.database()).is_ok_and(|content| !content.is_empty()));
        daemon.signal(libc::SIGKILL);
        self.wait_until_quiet(LIMIT);
        self.behave("");
    }

    /// Sets how the stand-in behaves, one behaviour a line.
    pub fn behave(&self, lines: &str) {
        // Renamed into place, because the stand-in may read it at any time.
        let partial = self.stand_in_dir().join("behaviour.partial");
        fs::write(&partial, lines).unwrap();
        fs::rename(partial, self.stand_in_dir().join("behaviour")).unwrap();
    }

    /// Ends the running stand-in: `how` is an exit code, or `signal N`.
    pub fn crash(&self, how: &str) {
        let partial = self.stand_in_dir().join("crash.partial");
        fs::write(&partial, how).unwrap();
        fs::rename(partial, self.stand_in_dir().join("crash")).unwrap();
    }

    /// `(pid, arguments)` of every start of the stand-in so far.
    pub fn starts(&self) -> Vec<(u32, String)> {
        let lines = fs::read_to_string(self.stand_in_dir().join("starts")).unwrap_or_default();
        let start = |line: &str| {
            let (pid, arguments) = line.split_once(' ')?;
            Some((pid.parse().ok()?, arguments.to_owned()))
        };
        lines.lines().filter_map(start).collect()
    }

    /// The pids of the stand-ins that ended gracefully.
    pub fn stops(&self) -> Vec<u32> {
        let lines = fs::read_to_string(self.stand_in_dir().join("stops")).unwrap_or_default();
        lines.lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// The calls about namespaces so far: the method, the namespace and what it
    /// shall have.
    pub fn calls(&self) -> Vec<String> {
        let lines = fs::read_to_string(self.stand_in_dir().join("calls")).unwrap_or_default();
        lines.lines().map(str::to_owned).collect()
    }

    /// What the stand-in keeps of a namespace: its retention, and a word
    /// `NAME=TYPE` for each search attribute.
    pub fn namespace(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.stand_in_dir().join("namespaces").join(name)).ok()?;
        Some(text.trim_end().replace('\n', " "))
    }

    /// The names in `bin`, sorted.
    pub fn bin_names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.bin()).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    /// A field of the receipt.
    pub fn receipt_field(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.receipt()).ok()?;
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    }

    /// A field of `run/daemon.state`.
    pub fn state_field(&self, name: &str) -> Option<String> {
        let text = fs::read_to_string(self.path().join("run/daemon.state")).ok()?;
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix('=')?.to_owned()))
    }

    /// Waits until `condition` holds; shows the logs when it never does.
    #[track_caller]
    pub fn wait_for(&self, what: &str, mut condition: impl FnMut() -> bool) {
        if wait_until(LIMIT, || condition().then_some(())).is_none() {
            panic!("gave up after {LIMIT:?} waiting for {what}\n{}", self.describe());
        }
    }

    /// Waits until no process of this home is left.
    #[track_caller]
    pub fn wait_until_quiet(&self, limit: Duration) {
        if wait_until(limit, || self.processes().is_empty().then_some(())).is_none() {
            panic!("processes left: {}\n{}", describe_processes(&self.processes()), self.describe());
        }
    }

    /// Fails when a process of this home lives.
    #[track_caller]
    pub fn assert_quiet(&self) {
        let left = self.processes();
        assert!(left.is_empty(), "processes left: {}\n{}", describe_processes(&left), self.describe());
    }

    /// Every living process that was started with this home in its environment.
    pub fn processes(&self) -> Vec<u32> {
        let marker = format!("STIGMER_HOME={}", self.path().display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            // A zombie no longer has an environment.
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environment.split(|byte| *byte == 0).any(|variable| variable == marker.as_bytes()) {
                found.push(pid);
            }
        }
        if !Path::new("/proc/self").exists() {
            found = self.recorded_processes();
        }
        found
    }

    /// The same from what daemon and stand-in wrote down, for systems that do
    /// not show environments.
    fn recorded_processes(&self) -> Vec<u32> {
        let state = ["daemon_pid", "temporal_pid"].into_iter().filter_map(|name| self.state_field(name)?.parse().ok());
        let recorded = state.chain(self.starts().into_iter().map(|(pid, _)| pid));
        recorded.filter(|pid| is_alive(*pid)).collect()
    }

    /// Both logs, the stand-in's record and what is in the home, for a test
    /// that failed.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for name in ["logs/temporal.log", "logs/daemon.log", "run/daemon.state", "bin/temporal.receipt"] {
            let path = self.path().join(name);
            // A FIFO that a test put there would be waited for.
            if path.is_file()
                && let Ok(content) = fs::read(&path)
            {
                let _ = writeln!(text, "--- {name}\n{}", tail(&content));
            }
        }
        if let Ok(content) = fs::read(self.stand_in_dir().join("starts")) {
            let _ = writeln!(text, "--- starts of the stand-in\n{}", tail(&content));
        }
        let _ = writeln!(text, "--- files");
        list(&self.path(), &mut text);
        text
    }

    /// Kills what is left. Each pid was found by this home in its environment.
    fn end_processes(&self) {
        let ended = wait_until(Duration::from_secs(10), || {
            let left = self.processes();
            for pid in &left {
                // SAFETY: no memory is involved.
                unsafe { libc::kill(*pid as i32, libc::SIGKILL) };
            }
            left.is_empty().then_some(())
        });
        if ended.is_none() {
            eprintln!("cannot end the processes {:?}", self.processes());
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.end_processes();
        make_writable(&self.root);
        if std::env::var_os("STIGMER_KEEP_HOMES").is_none() {
            let _ = fs::remove_dir_all(&self.root);
        }
    }
}

/// A TCP port on 127.0.0.1 that is ours until this is dropped. The UDP socket
/// of the same number is the lock: between tests, test programs and users,
/// without a file, and gone with its holder.
struct Port {
    number: u16,
    _lock: UdpSocket,
}

impl Port {
    fn reserve() -> Port {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        // Test programs that run side by side begin at different places.
        let start = std::process::id().wrapping_mul(7919);
        for _ in 0..PORTS {
            // Every other one: a hint that proposes the next port names none of ours.
            let number = FIRST_PORT + start.wrapping_add(COUNTER.fetch_add(2, Ordering::Relaxed)) % PORTS;
            let number = number as u16;
            let Ok(lock) = UdpSocket::bind(("127.0.0.1", number)) else { continue };
            // Asked by connecting: a socket that listened would live on for a
            // moment in the children that other tests just fork.
            if TcpStream::connect(("127.0.0.1", number)).is_err() {
                return Port { number, _lock: lock };
            }
        }
        panic!("no free port between {FIRST_PORT} and {}", FIRST_PORT + PORTS);
    }
}

/// Whether the process lives. One that only waits to be reaped does not: an
/// orphan's end is up to the system, and some never come to it.
pub fn is_alive(pid: u32) -> bool {
    // SAFETY: signal 0 sends nothing.
    let exists = unsafe { libc::kill(pid as i32, 0) == 0 };
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state stands behind the name, which may hold anything but ends with ')'.
    let is_zombie = status.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X']));
    exists && !is_zombie
}

fn describe_processes(pids: &[u32]) -> String {
    let describe = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        format!("{pid} ({})", String::from_utf8_lossy(&line).replace('\0', " ").trim_end())
    };
    pids.iter().map(describe).collect::<Vec<_>>().join(", ")
}

/// The last lines, whatever the bytes are.
fn tail(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

fn list(directory: &Path, text: &mut String) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let _ = writeln!(text, "{:o} {:>10} {}", metadata.mode(), metadata.len(), path.display());
        if metadata.is_dir() {
            list(&path, text);
        }
    }
}

/// A test may have taken away the permissions that deleting needs.
fn make_writable(path: &Path) {
    if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
        for entry in fs::read_dir(path).into_iter().flatten().flatten() {
            make_writable(&entry.path());
        }
    }
}
