//! `stigmer local run -- CMD`
//!
//! CMD is run as if alone, with a Temporal there: the daemon that serves it is
//! another process, shared by all `run`s of this home and stopped by the last.

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::Command;
use std::thread;
use std::time::Duration;

use super::{context, establish_namespaces, warn_of_differences};
use crate::cli::{Action, CommandSpec, EXTERNAL_OPTIONS, Operands, SERVER_OPTIONS, Typed};
use crate::config::Config;
use crate::daemon::{self, Context, FORWARDED, POLL, Request, STOP_LIMIT};
use crate::error::{Error, Result, reason};
use crate::external;
use crate::lock::Lock;
use crate::state::{Lifetime, Observed, State};
use crate::sys::{self, Forwarder, SIGINT, SIGQUIT};
use crate::terminal::{Stream, Terminal, Wait, print_error};

/// Another `run` that is leaving has stopped its daemon by then.
const LEAVE_LIMIT: Duration = Duration::from_secs(60);
/// As shells say it.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

pub static COMMAND: CommandSpec = CommandSpec {
    path: "stigmer local run",
    summary: "run a command with Temporal up, then stop what was started for it",
    usage: "[OPTIONS] -- CMD [ARGS...]",
    options: &[SERVER_OPTIONS, EXTERNAL_OPTIONS],
    operands: Operands::Program,
    notes: "\
CMD finds TEMPORAL_ADDRESS, TEMPORAL_SERVICE_ADDRESS and TEMPORAL_NAMESPACE in
its environment, and its exit status is passed on. A Temporal that is already
running is used and left running.

Examples:
  stigmer local run -- pytest
  stigmer local run --port 7300 -- go test ./...
",
    action: Action::Run(run),
};

/// Runs the command; returns its exit code.
fn run(typed: &Typed) -> Result<u8> {
    let context = &context()?;
    let config = &context.resolve(&typed.options)?;
    let mut terminal = Terminal::new(Stream::Stderr, context.variable);
    if let Config::External(external) = config {
        let known = external::connect(external, context.variable, &mut terminal)?;
        let connection = &external.connection;
        let place = Place {
            address: connection.address.value.to_string(),
            namespace: connection.namespace().into(),
            variables: known.variables,
        };
        return run_command(&place, new_forwarder()?, &typed.operands);
    }
    context.home.create()?;
    // Held as long as this process uses the daemon, and gone with it.
    let users_lock = join(context, &mut terminal)?;
    let result = find_or_start(context, config, terminal)
        .and_then(|(place, forwarder)| run_command(&place, forwarder, &typed.operands));
    if let Err(error) = leave(context, users_lock) {
        print_error(&error, context.variable);
    }
    result
}

/// Shares the lock of those who use the daemon; waits for a `run` that is just stopping it.
fn join(context: &Context<'_>, terminal: &mut Terminal) -> Result<Lock> {
    let mut wait = Wait::begin();
    loop {
        if let Some(users_lock) = Lock::try_shared(&context.home.instance.users_lock())? {
            return Ok(users_lock);
        }
        if wait.elapsed() > LEAVE_LIMIT {
            let seconds = LEAVE_LIMIT.as_secs();
            let text = format!("cannot start: another 'stigmer local run' has been stopping Temporal for {seconds} s");
            return Err(Error::new(text).hint("stigmer local stop --force"));
        }
        wait.explain(terminal, || "Another 'stigmer local run' is stopping Temporal; waiting for it.".into());
        thread::sleep(POLL);
    }
}

/// Where the command finds Temporal.
struct Place {
    address: String,
    namespace: String,
    /// What else its clients need; None: what they must not have.
    variables: Vec<(String, Option<String>)>,
}

/// The place of the daemon that is there, or of a new one, and what holds
/// signals back until the command is there to get them.
fn find_or_start(context: &Context<'_>, config: &Config, mut terminal: Terminal) -> Result<(Place, Forwarder)> {
    let use_running = |state: &State, terminal: &mut Terminal| {
        establish_namespaces(config, state)?;
        warn_of_differences(config, state, terminal);
        Ok(())
    };
    let forwarder = match Observed::of(&context.home.instance) {
        Observed::Running(state) if state.serves() => {
            use_running(&state, &mut terminal)?;
            new_forwarder()?
        }
        _ => {
            let request = Request { context, config, lifetime: Lifetime::Shared };
            daemon::detach(&request, terminal, &use_running)?
        }
    };
    match Observed::of(&context.home.instance) {
        Observed::Running(state) => {
            let namespace = namespace(config, &state).to_owned();
            let variables = state.external.map_or(Vec::new(), |external| external.variables);
            Ok((Place { address: state.address, namespace, variables }, forwarder))
        }
        Observed::Silent(_) | Observed::Elsewhere | Observed::Absent => {
            Err(Error::new("cannot run the command: Temporal was stopped meanwhile"))
        }
    }
}

/// The one that was asked for here, or else of the daemon.
fn namespace<'a>(config: &'a Config, state: &'a State) -> &'a str {
    match (config, state.namespaces.first()) {
        (Config::Managed(managed), Some(namespace)) if !managed.namespaces.names.source.is_explicit() => namespace,
        (Config::Managed(managed), _) => managed.namespaces.first(),
        (Config::External(external), _) => external.connection.namespace(),
    }
}

fn new_forwarder() -> Result<Forwarder> {
    Forwarder::new(&FORWARDED).map_err(|cause| Error::io("set up", "signal handling", &cause))
}

/// The last `run` stops the daemon that was started for it.
fn leave(context: &Context<'_>, users_lock: Lock) -> Result<()> {
    // Of those who came after its file was taken away it says nothing; the
    // daemon sees them all.
    if !users_lock.is_at(&context.home.instance.users_lock()) {
        return Ok(());
    }
    // Kept until the daemon is gone: the next one waits, and starts anew.
    let Some(_alone) = users_lock.into_exclusive() else { return Ok(()) };
    let daemon = match Observed::of(&context.home.instance) {
        Observed::Running(state) if state.lifetime == Lifetime::Shared => state.daemon,
        _ => return Ok(()),
    };
    // Whoever interrupts now does not want to wait for a Temporal that hangs.
    let forwarder = new_forwarder()?;
    let hurry = || forwarder.take_received().is_some();
    match daemon::stop(&context.home.instance, Some(daemon), STOP_LIMIT, &hurry) {
        true => Ok(()),
        false => Err(Error::new("cannot stop Temporal: it is still running").hint("stigmer local stop --force")),
    }
}

/// `words` are the program, which the parser sees to, and its arguments.
fn run_command(place: &Place, forwarder: Forwarder, words: &[OsString]) -> Result<u8> {
    let program = &words[0];
    if let Some(signal) = forwarder.received() {
        return Err(Error::new(format!("cannot run {}: interrupted before it began", program.display()))
            .with_exit_code(sys::exit_code_of_signal(signal)));
    }
    let mut command = Command::new(program);
    command.args(&words[1..]);
    command.env("TEMPORAL_SERVICE_ADDRESS", &place.address).env("TEMPORAL_ADDRESS", &place.address);
    command.env("TEMPORAL_NAMESPACE", &place.namespace);
    for (name, value) in &place.variables {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    let mut child = command.spawn().map_err(|cause| cannot_run(program, &cause))?;
    // Ctrl-C and Ctrl-\ reach the command first: the terminal sends them to
    // both of us. What is sent to us alone is passed on.
    let by_terminal: &[i32] = if sys::is_in_foreground() { &[SIGINT, SIGQUIT] } else { &[] };
    forwarder.pass_to(child.id(), by_terminal);
    // Not to be passed on when its number may be another's: it is reaped after.
    sys::wait_until_ended(child.id());
    forwarder.pause();
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
