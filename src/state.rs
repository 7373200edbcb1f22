//! What the daemon reports about itself to the other commands: `run/daemon.state`.
//!
//! Only words: that a daemon lives is shown by its lock alone, and the state of
//! one that does not says nothing but what it left behind.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result, reason};
use crate::home::{HOME_VARIABLE, Instance};
use crate::lock::{Holder, Lock};
use crate::terminal::Terminal;
use crate::{own_file, sys};

#[derive(Debug, Clone, PartialEq)]
pub struct State {
    pub daemon: Process,
    pub phase: Phase,
    pub mode: Mode,
    pub lifetime: Lifetime,
    /// host:port for clients.
    pub address: String,
    pub ui_url: Option<String>,
    pub temporal: Option<Process>,
    pub temporal_version: Option<String>,
    /// The executable that was started, and serves as a client, too.
    pub temporal_cli: Option<PathBuf>,
    /// The first is the one that clients are told.
    pub namespaces: Vec<String>,
    /// What it binds to; None where it is not ours.
    pub ip: Option<String>,
    /// Those of `--temporal-arg`.
    pub temporal_args: Vec<OsString>,
    pub database: Option<PathBuf>,
    /// Of the Temporal that the database is of.
    pub database_version: Option<String>,
    /// The directory in which this was written.
    pub place: Option<String>,
    /// None where Temporal is ours.
    pub external: Option<External>,
    /// Times that Temporal was started again after it failed.
    pub restarts: u64,
    /// What a daemon that restarts Temporal waits for.
    pub retry: Option<Retry>,
    /// Times that Temporal became ready.
    pub times_ready: u64,
    /// When the daemon began: seconds since the system was booted.
    pub started: u64,
}

/// What tells the directory of an instance from a copy of it.
pub fn place(instance: &Instance) -> Option<String> {
    sys::identity(instance.state().parent()?).ok()
}

/// What is known of an external Temporal; no secret is.
#[derive(Debug, Clone, PartialEq)]
pub struct External {
    /// The version of TLS; None over cleartext.
    pub tls: Option<String>,
    pub server: Option<String>,
    /// What clients need in their environment; None: must not have.
    pub variables: Vec<(String, Option<String>)>,
    pub lost: Option<Lost>,
    /// Times that the daemon looked because it was asked to, or found a change.
    pub checks: u64,
}

/// Since when it cannot be used, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Lost {
    /// Seconds since the system was booted.
    pub since: u64,
    pub why: String,
}

/// When Temporal is to be started again, and why it was not before.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Seconds since the system was booted.
    pub at: u64,
    pub why: String,
}

impl Retry {
    pub fn seconds_left(&self) -> u64 {
        self.at.saturating_sub(sys::seconds_since_boot())
    }
}

impl External {
    fn fields(&self) -> Vec<(String, Option<String>)> {
        let mut fields = vec![
            ("checks".to_owned(), Some(self.checks.to_string())),
            ("tls".to_owned(), self.tls.clone()),
            ("server".to_owned(), self.server.clone()),
            ("lost_since".to_owned(), self.lost.as_ref().map(|lost| lost.since.to_string())),
            ("lost_why".to_owned(), self.lost.as_ref().map(|lost| lost.why.clone())),
        ];
        fields.extend(self.variables.iter().map(|(name, value)| match value {
            Some(value) => (format!("set_{name}"), Some(value.clone())),
            None => (format!("unset_{name}"), Some(String::new())),
        }));
        fields
    }

    fn parse(text: &str) -> Option<External> {
        let field = |name: &str| own_file::field(text, name);
        let variable = |line: &str| {
            let (name, value) = line.split_once('=')?;
            let set = name.strip_prefix("set_").map(|name| (name.to_owned(), Some(value.to_owned())));
            set.or_else(|| Some((name.strip_prefix("unset_")?.to_owned(), None)))
        };
        let why = field("lost_why").map(str::to_owned);
        Some(External {
            checks: field("checks")?.parse().ok()?,
            tls: field("tls").map(str::to_owned),
            server: field("server").map(str::to_owned),
            lost: why
                .zip(field("lost_since").and_then(|since| since.parse().ok()))
                .map(|(why, since)| Lost { since, why }),
            variables: text.lines().filter_map(variable).collect(),
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Installing,
    Starting,
    Ready,
    Restarting,
    Stopping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Managed,
    External,
}

/// How long the daemon is meant to live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// Until it is stopped.
    Kept,
    /// As long as a `run` uses it.
    Shared,
}

/// A process, as distinct from all others that had or will have its number.
#[derive(Debug, Clone, PartialEq)]
pub struct Process {
    pub pid: u32,
    /// None where the system does not say.
    pub birth: Option<String>,
    pub executable: Option<PathBuf>,
}

impl Process {
    pub fn current() -> Process {
        Process::of(std::process::id())
    }

    pub fn of(pid: u32) -> Process {
        Process { pid, birth: sys::birth(pid), executable: sys::executable(pid) }
    }

    /// Whether the process with this number is still this one. Without a recorded
    /// birth nobody can say, so: no.
    pub fn is_alive(&self) -> bool {
        self.birth.is_some() && self.birth == sys::birth(self.pid)
    }

    /// The same, but without a recorded birth (no /proc): whether there is any
    /// process with this number. Good enough to wait for, never to signal.
    pub fn may_be_alive(&self) -> bool {
        match &self.birth {
            Some(_) => self.is_alive(),
            None => sys::is_alive(self.pid),
        }
    }
}

const PHASES: [(&str, Phase); 5] = [
    ("installing", Phase::Installing),
    ("starting", Phase::Starting),
    ("ready", Phase::Ready),
    ("restarting", Phase::Restarting),
    ("stopping", Phase::Stopping),
];
const MODES: [(&str, Mode); 2] = [("managed", Mode::Managed), ("external", Mode::External)];
const LIFETIMES: [(&str, Lifetime); 2] = [("kept", Lifetime::Kept), ("shared", Lifetime::Shared)];

fn name_of<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|(_, candidate)| candidate == value).map_or("", |(name, _)| name)
}

fn value_of<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|(candidate, _)| *candidate == name).map(|(_, value)| *value)
}

impl Phase {
    pub fn name(self) -> &'static str {
        name_of(&PHASES, &self)
    }
}

impl Mode {
    pub fn name(self) -> &'static str {
        name_of(&MODES, &self)
    }
}

impl State {
    /// Whether the daemon that wrote this, and holds the lock, is ready. A state
    /// that could not be rewritten, on a full disk, may name a Temporal that
    /// is gone.
    pub fn serves(&self) -> bool {
        let is_there = |temporal: &Process| temporal.may_be_alive();
        self.phase == Phase::Ready && (self.mode == Mode::External || self.temporal.as_ref().is_some_and(is_there))
    }

    /// Changes whenever the daemon has looked at its external Temporal.
    pub fn checks(&self) -> u64 {
        self.external.as_ref().map_or(0, |external| external.checks)
    }

    /// What the last daemon of this instance left, living or not; what lies in
    /// a copy of its home is not of the copy.
    pub fn left_in(instance: &Instance) -> Option<State> {
        State::parse(&own_file::read(&instance.state()).ok()?).filter(|state| state.is_of(instance))
    }

    fn is_of(&self, instance: &Instance) -> bool {
        self.place.is_some() && self.place == place(instance)
    }

    /// Whether it was written by the living holder of the lock, whom the kernel
    /// has named, or has not.
    fn is_holders(&self, holder: Option<u32>) -> bool {
        match (holder, &self.daemon.birth) {
            (Some(pid), None) => self.daemon.pid == pid,
            (Some(pid), Some(_)) => self.daemon.pid == pid && self.daemon.is_alive(),
            (None, _) => self.daemon.is_alive(),
        }
    }

    /// Writes the state whole; a reader sees the old one or the new one. On a
    /// full disk the old one is overwritten, which needs no room.
    fn store(&self, path: &Path) -> io::Result<()> {
        own_file::replace(path, &self.text(), false).or_else(|cause| self.overwrite(path).map_err(|_| cause))
    }

    /// Reports to the other commands. A full disk must not stop the daemon.
    pub fn publish(&self, path: &Path, terminal: &mut Terminal) {
        if let Err(cause) = self.store(path) {
            let why = reason(&cause);
            terminal.warn_once(&format!("Cannot write {}: {why}; 'status' will know less.", path.display()));
        }
    }

    /// Whether this, and nothing else, can be read at `path`.
    pub fn is_written_to(&self, path: &Path) -> bool {
        own_file::read(path).is_ok_and(|text| text == self.text())
    }

    fn overwrite(&self, path: &Path) -> io::Result<()> {
        let text = self.text();
        let mut file = own_file::open(path, File::options().write(true))?;
        file.write_all(text.as_bytes())?;
        file.set_len(text.len() as u64)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        let mut field = |name: &str, value: Option<String>| own_file::push_field(&mut text, name, value.as_deref());
        let path = |path: &Option<PathBuf>| path.as_deref().map(escape);
        field("phase", Some(self.phase.name().into()));
        field("mode", Some(self.mode.name().into()));
        field("lifetime", Some(name_of(&LIFETIMES, &self.lifetime).into()));
        for (prefix, process) in [("daemon", Some(&self.daemon)), ("temporal", self.temporal.as_ref())] {
            field(&format!("{prefix}_pid"), process.map(|process| process.pid.to_string()));
            field(&format!("{prefix}_birth"), process.and_then(|process| process.birth.clone()));
            field(&format!("{prefix}_executable"), process.and_then(|process| path(&process.executable)));
        }
        field("address", Some(self.address.clone()));
        field("ui_url", self.ui_url.clone());
        field("temporal_version", self.temporal_version.clone());
        field("temporal_cli", path(&self.temporal_cli));
        // No name holds a space.
        field("namespaces", Some(self.namespaces.join(" ")));
        field("ip", self.ip.clone());
        for argument in &self.temporal_args {
            field("temporal_arg", Some(escape(Path::new(argument))));
        }
        field("database", path(&self.database));
        field("database_version", self.database_version.clone());
        field("place", self.place.clone());
        field("restarts", Some(self.restarts.to_string()));
        field("retry_at", self.retry.as_ref().map(|retry| retry.at.to_string()));
        field("retry_why", self.retry.as_ref().map(|retry| retry.why.clone()));
        field("times_ready", Some(self.times_ready.to_string()));
        field("started", Some(self.started.to_string()));
        for (name, value) in self.external.iter().flat_map(External::fields) {
            field(&name, value);
        }
        text
    }

    fn parse(text: &str) -> Option<State> {
        let field = |name: &str| own_file::field(text, name);
        let owned = |name: &str| field(name).map(str::to_owned);
        let process = |prefix: &str| {
            Some(Process {
                // 0 and -1 would signal whole groups.
                pid: field(&format!("{prefix}_pid"))?.parse().ok().filter(|pid| (1..=i32::MAX as u32).contains(pid))?,
                birth: owned(&format!("{prefix}_birth")),
                executable: field(&format!("{prefix}_executable")).map(unescape),
            })
        };
        Some(State {
            daemon: process("daemon")?,
            phase: value_of(&PHASES, field("phase")?)?,
            mode: value_of(&MODES, field("mode")?)?,
            lifetime: value_of(&LIFETIMES, field("lifetime")?)?,
            address: owned("address")?,
            ui_url: owned("ui_url"),
            temporal: process("temporal"),
            temporal_version: owned("temporal_version"),
            temporal_cli: field("temporal_cli").map(PathBuf::from),
            namespaces: field("namespaces").unwrap_or_default().split_whitespace().map(str::to_owned).collect(),
            ip: owned("ip"),
            temporal_args: text
                .lines()
                .filter_map(|line| line.strip_prefix("temporal_arg="))
                .map(unescape)
                .map(Into::into)
                .collect(),
            database: field("database").map(unescape),
            database_version: owned("database_version"),
            place: owned("place"),
            external: External::parse(text),
            restarts: field("restarts")?.parse().ok()?,
            retry: field("retry_at")
                .and_then(|at| at.parse().ok())
                .zip(owned("retry_why"))
                .map(|(at, why)| Retry { at, why }),
            times_ready: field("times_ready")?.parse().ok()?,
            started: field("started")?.parse().ok()?,
        })
    }
}

/// A path as one line of text: what is no UTF-8, a control character or a
/// backslash becomes `\xHH`.
fn escape(path: &Path) -> String {
    let mut text = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '\\' | '\0'..='\x1f' | '\x7f' => text.push_str(&format!("\\x{:02x}", character as u32)),
                other => text.push(other),
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("\\x{byte:02x}")));
    }
    text
}

fn unescape(text: &str) -> PathBuf {
    let mut parts = text.split("\\x");
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let byte = part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.extend(byte);
        bytes.extend_from_slice(part.get(2..).unwrap_or_default().as_bytes());
    }
    OsString::from_vec(bytes).into()
}

/// The daemon of an instance, as another process sees it.
#[derive(Debug)]
pub enum Observed {
    /// Nobody holds the lock.
    Absent,
    /// It lives, and has reported nothing yet, or nothing that can be read.
    Silent(Option<Process>),
    /// It lives in another container: nothing here can ask it anything.
    Elsewhere,
    Running(State),
}

impl Observed {
    /// Fails where it cannot be known: that is never taken for an absent daemon.
    pub fn of(instance: &Instance) -> Result<Observed> {
        let unknown = |error: Error| error.in_context("cannot see whether Temporal is running");
        let holder = Lock::holder(&instance.daemon_lock()).map_err(unknown)?;
        Observed::with_holder(instance, holder).map_err(unknown)
    }

    /// What is known of a daemon whose lock is `holder`'s.
    pub fn with_holder(instance: &Instance, holder: Holder) -> Result<Observed> {
        let pid = match holder {
            // Its lock may have been removed, and it live on.
            Holder::Nobody => {
                let living = State::left_in(instance).filter(|state| state.daemon.is_alive());
                return Ok(living.map_or(Observed::Absent, Observed::Running));
            }
            Holder::Elsewhere => return Ok(Observed::Elsewhere),
            Holder::Process(pid) => Some(pid),
            Holder::Unknown => None,
        };
        let path = instance.state();
        let text = match own_file::read(&path) {
            Err(cause) if own_file::is_hidden(&cause) => return Err(Error::io_in_home("read", &path, &cause)),
            text => text.unwrap_or_default(),
        };
        Ok(match State::parse(&text).filter(|state| state.is_holders(pid)) {
            Some(state) => Observed::Running(state),
            None => Observed::Silent(pid.map(Process::of)),
        })
    }
}

/// Fails where the daemon lives, but cannot hear a command that needs it to.
pub fn check_hears(action: &str, daemon: &Process) -> Result<()> {
    let pid = daemon.pid;
    let (why, hint) = if sys::is_suspended(pid) {
        ("is suspended".into(), format!("let it go on first, with 'fg' where it was started or: kill -CONT {pid}"))
    } else if sys::is_of_another_user(pid) {
        let whose = sys::user_of(pid).map_or(String::new(), |user| format!(" (uid {user})"));
        (format!("belongs to another user{whose}"), format!("as that user: stigmer local stop; or: sudo kill {pid}"))
    } else {
        return Ok(());
    };
    Err(Error::new(format!("cannot {action}: the daemon (PID: {pid}) {why}")).hint(hint))
}

/// For a command that needs the daemon to hear it.
pub fn elsewhere(action: &str, instance: &Instance) -> Error {
    let lock = instance.daemon_lock();
    Error::new(format!(
        "cannot {action}: the daemon of this home runs in another container (it holds {})",
        lock.display()
    ))
    .hint(format!("type it there, or set {HOME_VARIABLE} to a directory that only this container uses"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state() -> State {
        State {
            daemon: Process::current(),
            phase: Phase::Ready,
            mode: Mode::Managed,
            lifetime: Lifetime::Shared,
            address: "127.0.0.1:7233".into(),
            ui_url: Some("http://localhost:8233".into()),
            temporal: Some(Process { pid: 4521, birth: None, executable: Some("/a=b".into()) }),
            temporal_version: None,
            temporal_cli: Some("/opt/temporal".into()),
            namespaces: vec!["orders".into(), "billing".into()],
            ip: Some("0.0.0.0".into()),
            temporal_args: vec!["--log-level".into(), "a\nip=b".into()],
            database: Some("/home/ada/x.db".into()),
            database_version: Some("1.9.1".into()),
            place: Some("12@34.5".into()),
            external: Some(External {
                tls: Some("TLS 1.3".into()),
                server: None,
                variables: vec![("TEMPORAL_TLS_SERVER_NAME".into(), Some("a=b".into())), ("TEMPORAL_X".into(), None)],
                lost: Some(Lost { since: 7, why: "refused".into() }),
                checks: 4,
            }),
            restarts: 2,
            retry: Some(Retry { at: 8, why: "exit status 1".into() }),
            times_ready: 3,
            started: 86_400,
        }
    }

    #[test]
    fn a_state_reads_back_as_written_and_a_damaged_one_is_none() {
        assert_eq!(State::parse(&state().text()), Some(state()));
        assert_eq!(State::parse(""), None);
        assert_eq!(State::parse(&state().text().replace("daemon_pid=", "daemon_pid=-")), None);
        assert_eq!(State::parse(&state().text().replace("phase=ready", "phase=odd")), None);
    }

    #[test]
    fn any_path_is_one_line_and_reads_back() {
        for path in [&b"/plain/path with spaces"[..], b"/a\nb\\c\x1b", b"/\xff\xfe/\xc3\xbc", b"/a\\x41", b""] {
            let path = PathBuf::from(OsString::from_vec(path.to_vec()));
            let text = escape(&path);
            assert!(!text.contains(char::is_control), "{text}");
            assert_eq!(unescape(&text), path, "{text}");
        }
        assert_eq!(escape(Path::new("/home/ada/ü")), "/home/ada/ü");
    }

    #[test]
    fn a_process_is_alive_only_with_its_own_birth() {
        let me = Process::current();
        assert!(me.is_alive());
        assert!(!Process { birth: Some("1@x".into()), ..me.clone() }.is_alive());
        assert!(!Process { birth: None, ..me }.is_alive());
    }
}
