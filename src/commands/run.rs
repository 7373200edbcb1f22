//! `stigmer local run -- CMD`
//!
//! CMD is run as if alone, with a Temporal there: the daemon that serves it is
//! another process, shared by all `run`s of this home and stopped by the last.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use crate::config::Config;
use crate::daemon::{self, Context};
use crate::error::{Error, Result, reason};
use crate::external;
use crate::lock::Lock;
use crate::state::{Daemon, Lifetime, Phase};
use crate::supervisor::STOP_GRACE;
use crate::sys::{self, Forwarder, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use crate::terminal::{Stream, Terminal, print_error};

const STOP_LIMIT: Duration = Duration::from_secs(STOP_GRACE.as_secs() + 3);
/// As shells say it.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Runs the command; returns its exit code.
pub fn run(context: &Context<'_>, config: &Config, program: &OsStr, arguments: &[OsString]) -> Result<u8> {
    if let Config::External(external) = config {
        external::connect(external, &mut Terminal::new(Stream::Stderr, context.variable))?;
        return run_command(context, &external.address.value.to_string(), program, arguments);
    }
    context.home.create()?;
    // Held as long as this process uses the daemon, and gone with it.
    let usage = Lock::shared(&context.home.users_lock())?;
    let result = match find_or_start(context, config, &usage) {
        Ok(address) => run_command(context, &address, program, arguments),
        Err(error) => Err(error),
    };
    if let Err(error) = leave(context, usage) {
        print_error(&error, context.variable);
    }
    result
}

/// The address of the daemon that is there, or of a new one.
fn find_or_start(context: &Context<'_>, config: &Config, usage: &Lock) -> Result<String> {
    if !matches!(Daemon::of(context.home), Daemon::Alive(state) if state.phase == Phase::Ready) {
        let terminal = Terminal::new(Stream::Stderr, context.variable);
        daemon::detach(context, config, Some(usage), terminal, &|_, _| {})?;
    }
    match Daemon::of(context.home) {
        Daemon::Alive(state) => Ok(state.address),
        Daemon::Silent | Daemon::Absent => Err(Error::new("cannot run the command: Temporal was stopped meanwhile")),
    }
}

/// The last `run` stops the daemon that was started for it.
fn leave(context: &Context<'_>, usage: Lock) -> Result<()> {
    // Kept until the daemon is gone: whoever comes next waits, and starts anew.
    let Some(_alone) = usage.into_exclusive() else { return Ok(()) };
    match Daemon::of(context.home) {
        Daemon::Alive(state) if state.lifetime == Lifetime::Shared => {}
        _ => return Ok(()),
    }
    match daemon::stop(context.home, STOP_LIMIT) {
        true => Ok(()),
        false => Err(Error::new("cannot stop Temporal: it is still there").hint("stigmer local stop --force")),
    }
}

fn run_command(context: &Context<'_>, address: &str, program: &OsStr, arguments: &[OsString]) -> Result<u8> {
    // Ctrl-C and Ctrl-\ reach the command first: the terminal sends them to
    // both of us. What is sent to us alone is passed on.
    let failed = |cause| Error::io("set up", "signal handling", &cause);
    let forwarder = match sys::is_in_foreground() {
        true => Forwarder::new(&[SIGTERM, SIGHUP], &[SIGINT, SIGQUIT]),
        false => Forwarder::new(&[SIGTERM, SIGHUP, SIGINT, SIGQUIT], &[]),
    };
    let forwarder = forwarder.map_err(failed)?;
    let mut command = Command::new(program);
    command.args(arguments);
    command.env("TEMPORAL_SERVICE_ADDRESS", address).env("TEMPORAL_ADDRESS", address);
    if (context.variable)("TEMPORAL_NAMESPACE").is_none_or(|namespace| namespace.is_empty()) {
        command.env("TEMPORAL_NAMESPACE", "default");
    }
    let mut child = command.spawn().map_err(|cause| cannot_run(program, &cause))?;
    forwarder.set_target(child.id());
    let status = child.wait().map_err(|cause| Error::io("wait for", program.display(), &cause))?;
    Ok(match (status.code(), status.signal()) {
        (Some(code), _) => code as u8,
        (None, signal) => sys::exit_code_of_signal(signal.unwrap_or(0)),
    })
}

fn cannot_run(program: &OsStr, cause: &io::Error) -> Error {
    let error = Error::new(format!("cannot run {}: {}", program.display(), reason(cause)));
    match cause.kind() {
        io::ErrorKind::NotFound => error.with_exit_code(NOT_FOUND).hint("check its name and PATH"),
        _ => error.with_exit_code(NOT_EXECUTABLE).hint("is it a program, and executable for you?"),
    }
}
