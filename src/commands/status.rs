//! `stigmer local status`

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::{context, print};
use crate::cli::{Action, CommandSpec, OptionSpec, Typed, switch};
use crate::clock::{after, duration};
use crate::daemon::POLL;
use crate::error::Result;
use crate::external::{CHECK_LIMIT, CHECK_SIGNAL};
use crate::health::{self, Health};
use crate::home::Home;
use crate::record;
use crate::state::{Lost, Mode, Observed, Phase, Process, State};
use crate::supervisor::disk;
use crate::sys;

const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// A daemon that lives has looked at its external Temporal by then.
const ANSWER_LIMIT: Duration = Duration::from_secs(CHECK_LIMIT.as_secs() + 3);

const JSON: OptionSpec = switch("json", "print one JSON object");

pub static COMMAND: CommandSpec = CommandSpec {
    path: "stigmer local status",
    summary: "show whether Temporal is running and ready",
    usage: "[--json]",
    options: &[&[&JSON]],
    notes: "\
Exit status: 0 running and ready, 3 not running, 1 running but not ready.
",
    action: Action::Run(status),
    ..CommandSpec::PLAIN
};

/// What a status comes to, and its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ready,
    NotReady,
    Suspended,
    Elsewhere,
    NotRunning,
}

impl Verdict {
    fn exit_code(self) -> u8 {
        match self {
            Verdict::Ready => 0,
            Verdict::NotReady | Verdict::Suspended | Verdict::Elsewhere => 1,
            Verdict::NotRunning => 3,
        }
    }
}

/// Prints the status; returns the exit code that says the same.
fn status(typed: &Typed) -> Result<u8> {
    let home = &context()?.home;
    let (verdict, state) = match Observed::of(&home.instance)? {
        Observed::Absent => (Verdict::NotRunning, None),
        Observed::Silent(daemon) if daemon.as_ref().is_some_and(is_suspended) => (Verdict::Suspended, None),
        Observed::Silent(_) => (Verdict::NotReady, None),
        Observed::Elsewhere => (Verdict::Elsewhere, None),
        Observed::Running(state) => verdict(state, home),
    };
    print(&match typed.options.has(&JSON) {
        true => as_json(verdict, state.as_ref(), home),
        false => as_text(verdict, state.as_ref(), home),
    })?;
    Ok(verdict.exit_code())
}

/// The daemon's word is checked: Temporal may have hung since.
fn verdict(state: State, home: &Home) -> (Verdict, Option<State>) {
    if is_suspended(&state.daemon) {
        return (Verdict::Suspended, Some(state));
    }
    let (is_ready, state) = match (state.mode, state.address.parse::<SocketAddr>()) {
        _ if state.phase != Phase::Ready => (false, state),
        (Mode::External, _) => check_again(state, home),
        (Mode::Managed, Ok(address)) => (is_serving(&state, address), state),
        (Mode::Managed, Err(_)) => (false, state),
    };
    (if is_ready { Verdict::Ready } else { Verdict::NotReady }, Some(state))
}

fn is_suspended(daemon: &Process) -> bool {
    sys::is_suspended(daemon.pid)
}

fn is_serving(state: &State, address: SocketAddr) -> bool {
    let listens = |temporal: &Process| sys::listens(temporal.pid, address);
    health::check(address, after(PROBE_TIMEOUT), None) == Health::Serving
        && state.serves()
        // Another program may have taken its port.
        && state.temporal.as_ref().and_then(listens) != Some(false)
}

/// Has the daemon look, which alone has the credentials, and waits for what it
/// finds.
fn check_again(state: State, home: &Home) -> (bool, State) {
    let deadline = after(ANSWER_LIMIT);
    sys::signal(state.daemon.pid, CHECK_SIGNAL);
    loop {
        let new =
            State::left_in(&home.instance).filter(|new| new.daemon == state.daemon && new.checks() != state.checks());
        if let Some(new) = new {
            return (new.external.as_ref().is_some_and(|external| external.lost.is_none()), new);
        }
        if Instant::now() >= deadline || !state.daemon.may_be_alive() {
            return (false, state);
        }
        thread::sleep(POLL);
    }
}

fn as_text(verdict: Verdict, state: Option<&State>, home: &Home) -> String {
    let Some(state) = state else {
        return match verdict {
            Verdict::NotRunning => "Temporal is not running.\n".into(),
            Verdict::Suspended => "Stigmer is suspended; 'fg' lets it go on.\n".into(),
            Verdict::Elsewhere => "Stigmer runs in another container that shares this home.\n".into(),
            _ => "Stigmer is starting.\n".into(),
        };
    };
    let mut text = format!("{}\n", headline(verdict, state));
    let mut row = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            text.push_str(&format!("  {name:<10} {value}\n"));
        }
    };
    let is_managed = state.mode == Mode::Managed;
    let external = state.external.as_ref();
    row("address", Some(state.address.clone()));
    row("encrypted", external.and_then(|external| external.tls.clone()));
    row("namespace", external.map(|_| state.namespaces.join(", ")));
    row("UI", state.ui_url.clone());
    row("version", state.temporal_version.clone());
    row("PID", state.temporal.as_ref().map(|temporal| temporal.pid.to_string()));
    row("daemon", Some(format!("PID {}, up {}", state.daemon.pid, duration(uptime(state)))));
    row("restarts", is_managed.then(|| state.restarts.to_string()));
    row("database", database(state, home));
    row("disk", shortage(state));
    row("log", is_managed.then(|| home.display(&home.instance.log())));
    text
}

fn headline(verdict: Verdict, state: &State) -> String {
    match (state.mode, verdict) {
        (_, Verdict::Suspended) => {
            let pid = state.daemon.pid;
            format!("The daemon is suspended and looks after nothing; 'fg' or 'kill -CONT {pid}' lets it go on")
        }
        (Mode::External, Verdict::Ready) => "External Temporal is reachable and ready".into(),
        (Mode::External, _) => match lost(state) {
            Some(lost) => format!("External Temporal is lost, for {} now: {}", duration(age(lost.since)), lost.why),
            None => "External Temporal is not known to be ready: the daemon does not answer".into(),
        },
        (Mode::Managed, Verdict::Ready) => "Temporal is running and ready".into(),
        (Mode::Managed, _) if state.phase == Phase::Ready => "Temporal is running, but does not answer".into(),
        (Mode::Managed, _) => match &state.retry {
            Some(retry) => {
                let seconds = retry.seconds_left().max(1);
                format!("Temporal is not ready: {}; starting it again in {seconds} s", retry.why)
            }
            None => format!("Temporal is not ready: {}", state.phase.name()),
        },
    }
}

/// Said here as well: Temporal has no room to say so, and calls itself serving.
fn shortage(state: &State) -> Option<String> {
    disk::shortage(state.database.as_deref()?.parent()?, disk::LOW)
}

/// Where it is, and which Temporal it is of where that is another one.
fn database(state: &State, home: &Home) -> Option<String> {
    let Some(path) = &state.database else {
        // Before it is ready none may be known.
        return (state.mode == Mode::Managed && state.phase == Phase::Ready).then(|| "in memory".into());
    };
    let shown = home.display(path);
    Some(match &state.database_version {
        Some(version) if state.temporal_version.as_ref() != Some(version) => format!("{shown} (of Temporal {version})"),
        _ => shown,
    })
}

fn lost(state: &State) -> Option<&Lost> {
    state.external.as_ref()?.lost.as_ref()
}

fn uptime(state: &State) -> u64 {
    age(state.started)
}

fn age(since: u64) -> u64 {
    sys::seconds_since_boot().saturating_sub(since)
}

fn as_json(verdict: Verdict, state: Option<&State>, home: &Home) -> String {
    let running = verdict != Verdict::NotRunning;
    let text = |value: Option<String>| value.map_or("null".into(), |value| quote(&value));
    let number = |value: Option<u64>| value.map_or("null".into(), |value| value.to_string());
    let pid = |pid: Option<u32>| number(pid.map(u64::from));
    let database = match state {
        Some(state) => state.database.clone(),
        None => Some(home.instance.database()),
    };
    let database_version = match state {
        Some(state) => state.database_version.clone(),
        None => database.as_deref().and_then(record::version).map(|version| version.to_string()),
    };
    let is_managed = state.is_none_or(|state| state.mode == Mode::Managed);
    let fields = [
        ("running", running.to_string()),
        ("ready", (verdict == Verdict::Ready).to_string()),
        ("mode", text(state.map(|state| state.mode.name().into()))),
        ("address", text(state.map(|state| state.address.clone()))),
        ("ui_url", text(state.and_then(|state| state.ui_url.clone()))),
        ("temporal_version", text(state.and_then(|state| state.temporal_version.clone()))),
        ("daemon_pid", pid(state.map(|state| state.daemon.pid))),
        ("temporal_pid", pid(state.and_then(|state| state.temporal.as_ref().map(|temporal| temporal.pid)))),
        ("restarts", number(state.map(|state| state.restarts))),
        ("uptime_seconds", number(state.map(uptime))),
        ("home", text(Some(home.root().display().to_string()))),
        ("database", text(database.map(|path| path.display().to_string()))),
        ("database_version", text(database_version)),
        ("log", text(is_managed.then(|| home.instance.log().display().to_string()))),
    ];
    // Only of one that is lost or waits: whatever else runs has nothing to say here.
    let lost = state
        .and_then(lost)
        .map(|lost| [("lost_seconds", age(lost.since).to_string()), ("lost_why", quote(&lost.why))]);
    let retry = state
        .and_then(|state| state.retry.as_ref())
        .map(|retry| [("retry_seconds", retry.seconds_left().to_string()), ("retry_why", quote(&retry.why))]);
    let fields = fields.iter().chain(lost.iter().flatten()).chain(retry.iter().flatten());
    let fields: Vec<String> = fields.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}\n", fields.join(","))
}

/// A JSON string (RFC 8259, 7).
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => quoted.push_str(&format!("\\u{:04x}", control as u32)),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_strings_are_escaped() {
        assert_eq!(quote("a\"b\\c\n\u{1}ü"), r#""a\"b\\c\u000a\u0001ü""#);
    }

    #[test]
    fn what_is_unknown_is_null() {
        let home = Home::resolve(Some("/h".into()), None).unwrap();
        let json = as_json(Verdict::NotRunning, None, &home);
        assert!(json.starts_with("{\"running\":false,\"ready\":false,\"mode\":null,\"address\":null,"), "{json}");
        assert!(json.contains("\"daemon_pid\":null,\"temporal_pid\":null,\"restarts\":null,\"uptime_seconds\":null,"));
        assert!(
            json.ends_with("\"home\":\"/h\",\"database\":\"/h/data/temporal.db\",\"database_version\":null,\"log\":\"/h/logs/temporal.log\"}\n")
        );
    }
}
