//! Runs the built program, with limits on time and output, and checks what it
//! did.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::home::Home;
use super::{LIMIT, wait_until};

/// Nothing here prints more; a program that does is killed.
const MAX_OUTPUT: usize = 256 << 20;
/// How much of a stream the message of a failed test shows.
const SHOWN: usize = 8 << 10;

/// The program under test: the one that cargo built, or another build of it.
pub fn binary() -> OsString {
    std::env::var_os("STIGMER_TEST_BINARY")
        .filter(|path| !path.is_empty())
        .unwrap_or_else(|| env!("CARGO_BIN_EXE_stigmer").into())
}

/// A command line to be run in a home.
pub struct Stigmer<'h> {
    home: &'h Home,
    command: Command,
    shown: String,
    input: Vec<u8>,
}

impl<'h> Stigmer<'h> {
    pub fn new<S: AsRef<OsStr>>(home: &'h Home, arguments: impl IntoIterator<Item = S>) -> Stigmer<'h> {
        Stigmer::of_program(home, &binary(), arguments)
    }

    /// Another program, in the environment of this home.
    pub fn of_program<S: AsRef<OsStr>>(
        home: &'h Home,
        program: &OsStr,
        arguments: impl IntoIterator<Item = S>,
    ) -> Stigmer<'h> {
        let mut command = Command::new(program);
        with_default_signals(&mut command);
        command.env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        command.env("HOME", home.user());
        command.env("STIGMER_HOME", home.path());
        command.env("STIGMER_TEMPORAL_PORT", home.port().to_string());
        command.env("STIGMER_TEMPORAL_UI_PORT", home.ui_port().to_string());
        command.env("STAND_IN_DIR", home.stand_in_dir());
        command.env("LANG", "C.UTF-8");
        command.current_dir(home.root());
        let shown = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
        Stigmer { home, command, shown, input: Vec::new() }.args(arguments)
    }

    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Stigmer<'h> {
        for argument in arguments {
            let shown: String = argument.as_ref().to_string_lossy().chars().take(200).collect();
            self.shown.push_str(&format!(" {shown}"));
            self.command.arg(argument);
        }
        self
    }

    /// `--temporal-version 9.9.9 --mirror BASE`, inserted as `args` would.
    pub fn with_mirror(self, version: &str, base: impl AsRef<OsStr>) -> Stigmer<'h> {
        self.args(["--temporal-version", version, "--mirror"]).args([base])
    }

    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Stigmer<'h> {
        self.shown = format!("{name}={} {}", value.as_ref().to_string_lossy(), self.shown);
        self.command.env(name, value);
        self
    }

    pub fn env_remove(mut self, name: &str) -> Stigmer<'h> {
        self.command.env_remove(name);
        self
    }

    pub fn current_dir(mut self, directory: impl AsRef<Path>) -> Stigmer<'h> {
        self.command.current_dir(directory);
        self
    }

    /// What the program reads from its standard input.
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Stigmer<'h> {
        self.input = bytes.into();
        self
    }

    /// Runs it as another user; only root can.
    pub fn by_user(mut self, uid: u32) -> Stigmer<'h> {
        self.command.uid(uid).gid(uid);
        self
    }

    /// In a process group of its own, as a shell with job control does.
    pub fn in_own_group(mut self) -> Stigmer<'h> {
        self.command.process_group(0);
        self
    }

    /// The plain command, for a test that wires the streams itself.
    pub fn into_command(self) -> Command {
        self.command
    }

    /// Runs it to its end.
    #[track_caller]
    pub fn run(self) -> Outcome<'h> {
        self.spawn().wait()
    }

    #[track_caller]
    pub fn spawn(mut self) -> Running<'h> {
        self.command.stdin(if self.input.is_empty() { Stdio::null() } else { Stdio::piped() });
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("cannot run {}: {error}", self.shown));
        if let Some(mut stdin) = child.stdin.take() {
            let input = self.input;
            // The program need not read it.
            thread::spawn(move || stdin.write_all(&input));
        }
        let stdout = Captured::of(child.stdout.take().unwrap());
        let stderr = Captured::of(child.stderr.take().unwrap());
        let exited = exit_of(child.id());
        Running { home: self.home, shown: self.shown, child, exited, stdout, stderr, status: None }
    }
}

/// A program that runs; killed when it is dropped.
pub struct Running<'h> {
    home: &'h Home,
    shown: String,
    child: Child,
    exited: Receiver<()>,
    stdout: Captured,
    stderr: Captured,
    status: Option<ExitStatus>,
}

impl<'h> Running<'h> {
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    pub fn signal(&self, number: i32) {
        if self.status.is_none() {
            // SAFETY: no memory is involved, and the child is not reaped yet.
            unsafe { libc::kill(self.child.id() as i32, number) };
        }
    }

    /// Waits until stdout holds `text`.
    #[track_caller]
    pub fn wait_for_stdout(&mut self, text: &str) {
        self.wait_for(&format!("'{text}' on stdout"), |running| running.stdout.text().contains(text));
    }

    #[track_caller]
    pub fn wait_for_stderr(&mut self, text: &str) {
        self.wait_for(&format!("'{text}' on stderr"), |running| running.stderr.text().contains(text));
    }

    #[track_caller]
    fn wait_for(&mut self, what: &str, condition: impl Fn(&Running<'h>) -> bool) {
        let held = wait_until(LIMIT, || {
            let ended = self.has_ended();
            match (condition(self), ended) {
                (true, _) => Some(true),
                // What was printed last may still be on its way to us.
                (false, true) => {
                    self.join_readers();
                    Some(condition(self))
                }
                (false, false) => None,
            }
        });
        if held != Some(true) {
            let end = if held.is_none() { "in time" } else { "before it ended" };
            panic!("no {what} {end}\n{}", self.describe());
        }
    }

    pub fn has_ended(&mut self) -> bool {
        if self.status.is_none() && self.exited.try_recv().is_ok() {
            self.status = self.child.wait().ok();
        }
        self.status.is_some()
    }

    #[track_caller]
    pub fn wait(self) -> Outcome<'h> {
        self.wait_within(LIMIT)
    }

    /// Waits for its end; a process that outlives `limit` fails the test.
    #[track_caller]
    pub fn wait_within(mut self, limit: Duration) -> Outcome<'h> {
        if self.status.is_none() {
            if self.exited.recv_timeout(limit).is_err() {
                panic!("it still runs after {limit:?}\n{}", self.describe());
            }
            self.status = self.child.wait().ok();
        }
        // A stream that stays open is a defect: `x=$(stigmer ...)` would hang.
        if !self.join_readers() {
            panic!("it ended, but something keeps its stdout or stderr open\n{}", self.describe());
        }
        Outcome {
            home: self.home,
            shown: self.shown.clone(),
            status: self.status.unwrap(),
            stdout: self.stdout.text(),
            stderr: self.stderr.text(),
        }
    }

    fn join_readers(&mut self) -> bool {
        let limit = Duration::from_secs(10);
        self.stdout.join(limit) && self.stderr.join(limit)
    }

    fn describe(&self) -> String {
        let status = self.status.map_or("running".into(), |status| status.to_string());
        describe(self.home, &self.shown, &status, &self.stdout.text(), &self.stderr.text())
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// What a program did.
pub struct Outcome<'h> {
    home: &'h Home,
    shown: String,
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome<'_> {
    /// The exit code, or 128 + N after signal N.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    #[track_caller]
    pub fn success(&self) -> &Self {
        self.exits_with(0)
    }

    #[track_caller]
    pub fn exits_with(&self, code: i32) -> &Self {
        assert!(self.code() == code, "expected exit code {code}\n{}", self.describe());
        self
    }

    #[track_caller]
    pub fn stdout_has(&self, text: &str) -> &Self {
        assert!(self.stdout.contains(text), "'{text}' is missing on stdout\n{}", self.describe());
        self
    }

    #[track_caller]
    pub fn stderr_has(&self, text: &str) -> &Self {
        assert!(self.stderr.contains(text), "'{text}' is missing on stderr\n{}", self.describe());
        self
    }

    #[track_caller]
    pub fn stdout_lacks(&self, text: &str) -> &Self {
        assert!(!self.stdout.contains(text), "'{text}' is on stdout\n{}", self.describe());
        self
    }

    #[track_caller]
    pub fn stderr_lacks(&self, text: &str) -> &Self {
        assert!(!self.stderr.contains(text), "'{text}' is on stderr\n{}", self.describe());
        self
    }

    /// The line that begins with `error: `, without it. There is exactly one.
    #[track_caller]
    pub fn error(&self) -> &str {
        let mut lines = self.stderr.lines().filter_map(|line| line.strip_prefix("error: "));
        let first = lines.next();
        let only = first.filter(|_| lines.next().is_none());
        only.unwrap_or_else(|| panic!("expected one line 'error: ...' on stderr\n{}", self.describe()))
    }

    /// The line that begins with `hint: `, without it.
    pub fn hint(&self) -> Option<&str> {
        self.stderr.lines().find_map(|line| line.strip_prefix("hint: "))
    }

    /// It failed as promised: exit code 1, one line that says in words what
    /// failed and why, and nothing of the program's internals.
    #[track_caller]
    pub fn fails_with(&self, words: &[&str]) -> &Self {
        self.fails_as(1, words)
    }

    /// The same with another exit code.
    #[track_caller]
    pub fn fails_as(&self, code: i32, words: &[&str]) -> &Self {
        self.exits_with(code);
        let error = self.error();
        for word in words {
            assert!(self.stderr.contains(word), "'{word}' is missing on stderr\n{}", self.describe());
        }
        assert!(error.contains(": "), "the error gives no cause\n{}", self.describe());
        for inside in ["os error", "panicked", "Some(", "Err(", "Error {", "unwrap", "Os {"] {
            assert!(!self.stderr.contains(inside), "the error shows '{inside}'\n{}", self.describe());
        }
        self
    }

    pub fn describe(&self) -> String {
        describe(self.home, &self.shown, &self.status.to_string(), &self.stdout, &self.stderr)
    }
}

fn describe(home: &Home, command: &str, status: &str, stdout: &str, stderr: &str) -> String {
    let cut = |text: &str| match text.char_indices().rev().nth(SHOWN) {
        Some((start, _)) => format!("... {}", &text[start..]),
        None => text.to_owned(),
    };
    format!(
        "--- command\n{command}\n--- status\n{status}\n--- stdout\n{}\n--- stderr\n{}\n{}",
        cut(stdout),
        cut(stderr),
        home.describe()
    )
}

/// Receives something when the process has ended, and leaves it to its owner to reap.
fn exit_of(pid: u32) -> Receiver<()> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        loop {
            // SAFETY: siginfo_t is plain data, and the call writes to nothing else.
            let result = unsafe {
                let mut info = std::mem::zeroed();
                libc::waitid(libc::P_PID, pid, &mut info, libc::WEXITED | libc::WNOWAIT)
            };
            if result == 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                let _ = sender.send(());
                return;
            }
        }
    });
    receiver
}

/// A stream that is read as it comes.
struct Captured {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Captured {
    fn of(mut stream: impl Read + Send + 'static) -> Captured {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = bytes.clone();
        let reader = thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                match stream.read(&mut buffer) {
                    Ok(0) => return,
                    Ok(count) => {
                        let mut bytes = shared.lock().unwrap();
                        bytes.extend_from_slice(&buffer[..count]);
                        if bytes.len() > MAX_OUTPUT {
                            return;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        });
        Captured { bytes, reader: Some(reader) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().unwrap()).into_owned()
    }

    fn join(&mut self, limit: Duration) -> bool {
        let Some(reader) = &self.reader else { return true };
        wait_until(limit, || reader.is_finished().then_some(())).is_some()
    }
}

/// Whether this test runs as root.
pub fn is_root() -> bool {
    // SAFETY: no memory is involved.
    unsafe { libc::geteuid() == 0 }
}

/// A file opened for appending, as a shell's `>>` does.
pub fn append_to(path: &Path) -> File {
    File::options().create(true).append(true).open(path).unwrap()
}

/// Sends a signal to a process that this test started.
pub fn signal(pid: u32, number: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid as i32, number) };
}

/// Suspends a process that this test started, as Ctrl-Z does.
pub fn suspend(pid: u32) {
    signal(pid, libc::SIGSTOP);
    let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    if Path::new("/proc/self").exists() {
        super::wait_for("it to be suspended", LIMIT, || stat().contains(") T "));
    }
}

/// The program starts with every signal blocked, as from a thread of some
/// language runtimes.
pub fn with_blocked_signals(command: &mut Command) {
    // SAFETY: the closure calls only async-signal-safe functions.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(command, || {
            let mut all = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::sigprocmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
            Ok(())
        });
    }
}

/// Signals that the test runner ignores (under `nohup`, or as a background job
/// of a script) must not be ignored by what is tested.
fn with_default_signals(command: &mut Command) {
    // SAFETY: the closure calls only async-signal-safe functions.
    unsafe {
        std::os::unix::process::CommandExt::pre_exec(command, || {
            for number in [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGTSTP, libc::SIGCONT] {
                libc::signal(number, libc::SIG_DFL);
            }
            Ok(())
        });
    }
}
