//! `stigmer local run -- CMD`
//!
//! CMD is run as if alone, with a Temporal there: the daemon that serves it is
//! another process, shared by all `run`s of this home and stopped by the last.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::warn_of_differences;
use crate::config::Config;
use crate::daemon::{self, Context, FORWARDED, POLL, STOP_LIMIT};
use crate::error::{Error, Result, reason};
use crate::external;
use crate::lock::Lock;
use crate::state::{Daemon, Lifetime};
use crate::sys::{self, Forwarder, SIGINT, SIGQUIT};
use crate::terminal::{EXPLAIN_AFTER, Mark, Stream, Terminal, print_error};

/// Another `run` that is leaving has stopped its daemon by then.
const LEAVE_LIMIT: Duration = Duration::from_secs(60);
/// As shells say it.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs the command; returns its exit code.
pub fn run(context: &Context<'_>, config: &Config, program: &OsStr, arguments: &[OsString]) -> Result<u8> {
    let mut terminal = Terminal::new(Stream::Stderr, context.variable);
    if let Config::External(external) = config {
        external::connect(external, &mut terminal)?;
        return run_command(context, &external.address.value.to_string(), new_forwarder()?, program, arguments);
    }
    context.home.create()?;
    // Held as long as this process uses the daemon, and gone with it.
    let usage = join(context, &mut terminal)?;
    let result = find_or_start(context, config, terminal)
        .and_then(|(address, forwarder)| run_command(context, &address, forwarder, program, arguments));
    if let Err(error) = leave(context, usage) {
        print_error(&error, context.variable);
    }
    result
}

/// Takes a share of the daemon; waits for a `run` that is just stopping it.
fn join(context: &Context<'_>, terminal: &mut Terminal) -> Result<Lock> {
    let began = Instant::now();
    let mut explained = false;
    loop {
        if let Some(usage) = Lock::try_shared(&context.home.users_lock())? {
            return Ok(usage);
        }
        if began.elapsed() > LEAVE_LIMIT {
            let text = format!(
                "cannot start: another 'stigmer local run' has been stopping Temporal for {} s",
                LEAVE_LIMIT.as_secs()
            );
            return Err(Error::new(text).hint("stigmer local stop --force"));
        }
        if !explained && began.elapsed() > EXPLAIN_AFTER {
            terminal.line(Mark::Info, "Another 'stigmer local run' is stopping Temporal; waiting for it.");
            explained = true;
        }
        thread::sleep(POLL);
    }
}

/// The address of the daemon that is there, or of a new one, and what holds
/// signals back until the command is there to get them.
fn find_or_start(context: &Context<'_>, config: &Config, mut terminal: Terminal) -> Result<(String, Forwarder)> {
    let forwarder = match Daemon::of(&context.home) {
        Daemon::Alive(state) if state.serves() => {
            warn_of_differences(config, &state, &mut terminal);
            new_forwarder()?
        }
        _ => daemon::detach(context, config, Lifetime::Shared, terminal, &|state, terminal| {
            warn_of_differences(config, state, terminal);
        })?,
    };
    match Daemon::of(&context.home) {
        Daemon::Alive(state) => Ok((state.address, forwarder)),
        Daemon::Silent | Daemon::Absent => Err(Error::new("cannot run the command: Temporal was stopped meanwhile")),
    }
}

fn new_forwarder() -> Result<Forwarder> {
    Forwarder::new(&FORWARDED).map_err(|cause| Error::io("set up", "signal handling", &cause))
}

/// The last `run` stops the daemon that was started for it.
fn leave(context: &Context<'_>, usage: Lock) -> Result<()> {
    // Kept until the daemon is gone: whoever comes next waits, and starts anew.
    let Some(_alone) = usage.into_exclusive() else { return Ok(()) };
    let daemon = match Daemon::of(&context.home) {
        Daemon::Alive(state) if state.lifetime == Lifetime::Shared => state.daemon,
        _ => return Ok(()),
    };
    match daemon::stop(&context.home, Some(daemon), STOP_LIMIT) {
        true => Ok(()),
        false => Err(Error::new("cannot stop Temporal: it is still there").hint("stigmer local stop --force")),
    }
}

fn run_command(
    context: &Context<'_>,
    address: &str,
    forwarder: Forwarder,
    program: &OsStr,
    arguments: &[OsString],
) -> Result<u8> {
    if let Some(signal) = forwarder.received() {
        return Err(Error::new(format!("cannot run {}: interrupted before it began", program.display()))
            .with_exit_code(sys::exit_code_of_signal(signal)));
    }
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("TEMPORAL_SERVICE_ADDRESS", address).env("TEMPORAL_ADDRESS", address);
    if (context.variable)("TEMPORAL_NAMESPACE").is_none_or(|namespace| namespace.is_empty()) {
        command.env("TEMPORAL_NAMESPACE", "default");
    }
    let mut child = command.spawn().map_err(|cause| cannot_run(program, &cause))?;
    // Ctrl-C and Ctrl-\ reach the command first: the terminal sends them to
    // both of us. What is sent to us alone is passed on.
    let by_terminal: &[i32] = if sys::is_in_foreground() { &[SIGINT, SIGQUIT] } else { &[] };
    forwarder.pass_to(child.id(), by_terminal);
    let status = child.wait().map_err(|cause| Error::io("wait for", program.display(), &cause))?;
    Ok(sys::exit_code(status))
}

fn cannot_run(program: &OsStr, cause: &io::Error) -> Error {
    let error = Error::new(format!("cannot run {}: {}", program.display(), reason(cause)));
    match cause.kind() {
        io::ErrorKind::NotFound => error.with_exit_code(NOT_FOUND).hint("check its name and PATH"),
        _ => error.with_exit_code(NOT_EXECUTABLE).hint("is it a program, and executable for you?"),
    }
}
