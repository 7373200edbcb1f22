//! Why Temporal failed, and what to do about it: read from the end of its log
//! and from how it ended.

use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use super::restart::Prospect;
use super::server::in_words;
use super::{Supervisor, disk};
use crate::error::Error;
use crate::log_file;
use crate::release::Version;
use crate::sys::SIGKILL;

pub const QUOTED_LINES: usize = 10;
const REFUSAL: &str = "Error: ";
const LOOK_AT_ARGUMENTS: &str =
    "look at --temporal-arg; 'stigmer local temporal server start-dev --help' shows what Temporal takes";

/// How a server that was starting failed.
pub enum Fault {
    /// There is no process: the executable is being replaced, memory is short.
    NotSpawned(Error),
    Ended(ExitStatus),
    /// It lives, but did not serve in time.
    TimedOut,
    /// It lives, but what answers on its port is another program.
    PortOfAnother,
    /// It served, and answers no more.
    Hung,
}

impl Fault {
    /// What became of the server.
    pub fn effect(&self) -> &'static str {
        match self {
            Fault::Ended(_) => "ended unexpectedly",
            Fault::Hung => "was stopped",
            Fault::NotSpawned(_) | Fault::TimedOut | Fault::PortOfAnother => "did not start",
        }
    }

    pub fn in_words(&self) -> String {
        match self {
            Fault::NotSpawned(error) => error.message().into(),
            Fault::Ended(status) => in_words(*status),
            Fault::TimedOut => "not serving in time".into(),
            Fault::Hung => "not answering health checks".into(),
            Fault::PortOfAnother => "another program answers on its port".into(),
        }
    }
}

/// A cause that Temporal's log names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    PortTaken,
    DiskFull,
    NotADatabase,
    DatabaseNotWritable,
    WrongArgument,
}

impl Cause {
    fn in_words(self) -> &'static str {
        match self {
            Cause::PortTaken => "another program has its port",
            Cause::DiskFull => "the disk is full",
            Cause::NotADatabase => "its database cannot be used",
            Cause::DatabaseNotWritable => "its database cannot be written to",
            Cause::WrongArgument => "it does not know an argument",
        }
    }
}

/// What the log says for each cause (Temporal CLI 1.9.1, SQLite, Go's flags);
/// the first that is found counts.
const CAUSES: [(&str, Cause); 13] = [
    ("address already in use", Cause::PortTaken),
    // What was being written may be damaged for it.
    ("disk is full", Cause::DiskFull),
    ("no space left on device", Cause::DiskFull),
    ("no such table", Cause::NotADatabase),
    ("not a database", Cause::NotADatabase),
    ("malformed", Cause::NotADatabase),
    ("unable to open database", Cause::DatabaseNotWritable),
    ("readonly database", Cause::DatabaseNotWritable),
    ("unknown flag", Cause::WrongArgument),
    ("unknown shorthand flag", Cause::WrongArgument),
    ("flag needs an argument", Cause::WrongArgument),
    ("invalid argument \"", Cause::WrongArgument),
    ("unknown command \"", Cause::WrongArgument),
];

/// The cause that these lines of the log name.
pub fn cause(lines: &[String]) -> Option<Cause> {
    let is_named = |text: &str| lines.iter().any(|line| line.contains(text));
    CAUSES.iter().find(|(text, _)| is_named(text)).map(|(_, cause)| *cause)
}

/// The version in the line with which Temporal begins:
/// `Temporal CLI 1.9.1 (Server 1.32.0, UI 2.54.1)`, before 1.6 without "Temporal".
pub fn version_in_banner(line: &str) -> Option<Version> {
    let line = line.strip_prefix("Temporal ").unwrap_or(line);
    let (version, rest) = line.strip_prefix("CLI ")?.split_once(' ')?;
    rest.starts_with("(Server ").then(|| Version::parse(version)).flatten()
}

/// What is known of a failure, beside how it came.
pub struct Evidence {
    pub address: SocketAddr,
    /// The end of what the server has written.
    pub lines: Vec<String>,
    pub database: Option<PathBuf>,
    /// Where all of it can be read.
    pub log: String,
}

impl Evidence {
    pub fn cannot_start(self, fault: Fault, ready_timeout: Duration) -> Error {
        let why = match fault {
            Fault::NotSpawned(error) => return error,
            Fault::Ended(_) if cause(&self.lines) == Some(Cause::WrongArgument) => {
                // What it says of the argument is all that there is to say.
                let said = self.lines.iter().rfind(|line| line.starts_with(REFUSAL)).or(self.lines.last());
                let said = said.map_or("", |line| line.trim_start_matches(REFUSAL));
                return Error::new(format!("cannot start Temporal: {said}")).hint(LOOK_AT_ARGUMENTS);
            }
            Fault::Ended(status) => format!("it ended with {} before it served", in_words(status)),
            Fault::PortOfAnother => {
                format!("another program answers at {}, not the Temporal of this home", self.address)
            }
            Fault::TimedOut => format!("it did not serve within {} s", ready_timeout.as_secs()),
            Fault::Hung => "it no longer answered".into(),
        };
        self.explain(Error::new(format!("cannot start Temporal: {why}")), Some(&fault))
    }

    /// Adds the log's end and, where the log names the cause, what to do.
    pub fn explain(self, error: Error, fault: Option<&Fault>) -> Error {
        let hint = hint(cause(&self.lines), fault, self.database.as_deref(), &self.log);
        error.with_log_tail(self.lines).hint(hint)
    }
}

impl Supervisor<'_> {
    /// The end of what the current server has written.
    pub(super) fn log_tail(&self) -> Vec<String> {
        log_file::quote(&self.plan.home.instance.log(), self.log_start, QUOTED_LINES)
    }

    pub(super) fn cannot_start(&self, fault: Fault) -> Error {
        self.evidence().cannot_start(fault, self.plan.config.ready_timeout.value)
    }

    /// What happened to a server that is to be started again.
    pub(super) fn in_words(&self, fault: &Fault, cause: Option<Cause>) -> String {
        match (fault, cause) {
            (Fault::Ended(status), cause) => {
                let what = suspicion(cause).and_then(|limit| self.shortage(limit));
                let what = what.or_else(|| cause.map(|cause| cause.in_words().into()));
                what.map_or(in_words(*status), |what| format!("{}: {what}", in_words(*status)))
            }
            _ => fault.in_words(),
        }
    }

    /// Whether another attempt may fare better than this one.
    pub(super) fn prospect(&self, fault: &Fault, cause: Option<Cause>) -> Prospect {
        match (fault, cause) {
            (_, Some(Cause::NotADatabase | Cause::WrongArgument)) => Prospect::Hopeless,
            (Fault::NotSpawned(_), _) if !self.plan.choice.installed.executable.exists() => Prospect::Doubtful,
            _ => Prospect::MayPass,
        }
    }

    /// What the log says of a server that ended.
    pub(super) fn cause(&self, fault: &Fault) -> Option<Cause> {
        matches!(fault, Fault::Ended(_)).then(|| cause(&self.log_tail())).flatten()
    }

    fn evidence(&self) -> Evidence {
        Evidence {
            address: self.plan.endpoints.address(),
            lines: self.log_tail(),
            database: self.plan.database.as_ref().map(|database| database.path().to_owned()),
            log: self.plan.home.display(&self.plan.home.instance.log()),
        }
    }
}

/// With how little room a full disk is to be suspected. It leaves no room for
/// the log to name it, either.
fn suspicion(cause: Option<Cause>) -> Option<u64> {
    match cause {
        Some(Cause::DiskFull | Cause::DatabaseNotWritable) => Some(disk::LOW),
        None => Some(disk::FULL),
        Some(_) => None,
    }
}

/// What to do about the cause; where the log names none, about the fault.
fn hint(cause: Option<Cause>, fault: Option<&Fault>, database: Option<&Path>, log: &str) -> String {
    let limit = suspicion(cause).filter(|_| matches!(fault, Some(Fault::Ended(_))));
    let shortage = database.and_then(Path::parent).zip(limit).and_then(|(at, limit)| disk::shortage(at, limit));
    if let Some(shortage) = shortage {
        return format!("{shortage}; make room: {}", disk::NEEDED);
    }
    match (cause, database.map(Path::display), fault) {
        (Some(Cause::PortTaken), ..) | (None, _, Some(Fault::PortOfAnother)) => {
            "the port was taken meanwhile; choose others with --port and --ui-port".into()
        }
        (Some(Cause::NotADatabase), Some(path), _) => {
            format!(
                "{path} cannot be used as a database; to start over, move it away with its -wal and -shm: \
                 its workflows are in them"
            )
        }
        (Some(Cause::DiskFull | Cause::DatabaseNotWritable), Some(path), _) => {
            format!("{path} cannot be written to; check its permissions and the free space")
        }
        (Some(Cause::WrongArgument), ..) => LOOK_AT_ARGUMENTS.into(),
        (_, _, Some(Fault::TimedOut)) => format!("give it more time with --ready-timeout, or see {log}"),
        (_, _, Some(Fault::Ended(status))) if status.signal() == Some(SIGKILL) => {
            "something killed it: a person, or the system when it ran out of memory".into()
        }
        _ => format!("see {log}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_names_the_version() {
        let version = |line| version_in_banner(line).map(|version| version.to_string());
        assert_eq!(version("Temporal CLI 1.9.1 (Server 1.32.0, UI 2.54.1)").as_deref(), Some("1.9.1"));
        assert_eq!(version("CLI 1.5.1 (Server 1.29.1, UI 2.42.1)").as_deref(), Some("1.5.1"));
        for other in ["", "Temporal Server:  localhost:7233", "CLI 1.9.1", "CLI x (Server 1)"] {
            assert_eq!(version(other), None, "{other}");
        }
    }

    #[test]
    fn the_log_names_the_cause_and_a_taken_port_comes_first() {
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(cause(&lines("Error: unknown flag: --x")), Some(Cause::WrongArgument));
        let both = "no such table: namespaces\nbind: address already in use";
        assert_eq!(cause(&lines(both)), Some(Cause::PortTaken));
        assert_eq!(cause(&lines("database or disk is full\nno such table: x")), Some(Cause::DiskFull));
        assert_eq!(cause(&lines("panic: something else")), None);
        assert_eq!(cause(&[]), None);
    }
}
