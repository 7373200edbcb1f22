//! `stigmer local run -- CMD`
//!
//! CMD is run as if alone, with a Temporal there: the daemon that serves it is
//! another process, shared by all `run`s of this home and stopped by the last.
//! An ephemeral one is held by `run` itself.

mod ephemeral;

use std::ffi::{OsStr, OsString};
use std::io;
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use super::{client, context, use_running};
use crate::cli::{Action, CommandSpec, EXTERNAL_OPTIONS, Operands, OptionSpec, SERVER_OPTIONS, Typed, switch};
use crate::config::Config;
use crate::daemon::{self, Context, FORWARDED, POLL, Request, STOP_LIMIT};
use crate::environment::Changes;
use crate::error::{Error, Result, reason};
use crate::external;
use crate::lock::Lock;
use crate::state::{Lifetime, Observed, State};
use crate::sys::{self, Forwarder, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2};
use crate::terminal::{Stream, Terminal, Wait, print_error};

/// Another `run` that is leaving has stopped its daemon by then.
const LEAVE_LIMIT: Duration = Duration::from_secs(60);
/// As shells say it.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;

const EPHEMERAL: OptionSpec = switch("ephemeral", "give CMD its own Temporal: in memory, on free ports");

pub static COMMAND: CommandSpec = CommandSpec {
    path: "stigmer local run",
    summary: "run a command with Temporal up, starting and stopping it as needed",
    usage: "[OPTIONS] -- CMD [ARGS...]",
    options: &[&[&EPHEMERAL], SERVER_OPTIONS, EXTERNAL_OPTIONS],
    operands: Operands::Program,
    notes: "\
CMD finds TEMPORAL_ADDRESS, TEMPORAL_SERVICE_ADDRESS and TEMPORAL_NAMESPACE in
its environment and nothing of another Temporal; its exit status is passed on.

The Temporal is the one that 'start' and every other 'run' share, with the same
database. If it is already running, it is used and left running; otherwise it is
started, and stopped after the last 'run'. --ephemeral gives CMD a Temporal that
nobody else uses and of which nothing is kept; it ignores the port variables.

Examples:
  stigmer local run -- python worker.py
  stigmer local run --ephemeral -- pytest
",
    action: Action::Run(run),
};

/// Runs the command; returns its exit code.
fn run(typed: &Typed) -> Result<u8> {
    let context = &context()?;
    if typed.options.has(&EPHEMERAL) {
        return ephemeral::run(context, &context.resolve_ephemeral(&typed.options)?, &typed.operands);
    }
    let config = &context.resolve(&typed.options)?;
    let mut terminal = Terminal::new(Stream::Stderr, context.variable);
    let managed = match config {
        Config::Managed(managed) => managed,
        Config::External(external) => {
            let known = external::connect(external, context.variable, &mut terminal)?;
            let connection = &external.connection;
            let address = connection.address.value.to_string();
            let environment = client::of_external(&address, connection.namespace(), known.variables);
            return run_command(&environment, &new_forwarder()?, &typed.operands);
        }
    };
    context.home.create()?;
    // Held as long as this process uses the daemon, and gone with it.
    let users_lock = join(context, &mut terminal)?;
    let result = find_or_start(context, config, terminal).and_then(|(state, forwarder)| {
        let environment = client::of_daemon(&context.home, managed, &state)?;
        run_command(&environment, &forwarder, &typed.operands)
    });
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

/// The state of the daemon that is there, or of a new one, and what holds
/// signals back until the command is there to get them.
fn find_or_start(context: &Context<'_>, config: &Config, terminal: Terminal) -> Result<(State, Forwarder)> {
    let on_running = |state: &State, _: &mut Terminal| use_running(config, state, &context.home);
    let forwarder = match Observed::of(&context.home.instance)? {
        Observed::Running(state) if state.serves() => {
            use_running(config, &state, &context.home)?;
            new_forwarder()?
        }
        _ => {
            let request = Request { context, config, lifetime: Lifetime::Shared };
            daemon::detach(&request, terminal, &on_running)?
        }
    };
    match Observed::of(&context.home.instance)? {
        Observed::Running(state) => Ok((state, forwarder)),
        Observed::Silent(_) | Observed::Elsewhere | Observed::Absent => {
            Err(Error::new("cannot run the command: Temporal was stopped meanwhile"))
        }
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
    let daemon = match Observed::of(&context.home.instance)? {
        Observed::Running(state) if state.lifetime == Lifetime::Shared => state.daemon,
        _ => return Ok(()),
    };
    // Whoever interrupts now does not want to wait for a Temporal that hangs.
    let forwarder = new_forwarder()?;
    let hurry = || forwarder.take_received().is_some();
    match daemon::stop(&context.home.instance, Some(daemon), STOP_LIMIT, &hurry)? {
        true => Ok(()),
        false => Err(Error::new("cannot stop Temporal: it is still running").hint("stigmer local stop --force")),
    }
}

fn run_command(environment: &Changes, forwarder: &Forwarder, words: &[OsString]) -> Result<u8> {
    let (mut child, others) = begin(new_command(environment, words), forwarder)?;
    // Not to be passed on when its number may be another's: it is reaped after.
    sys::wait_until_ended(child.id());
    forwarder.pause();
    others.pause();
    let status = child.wait().map_err(|cause| Error::io("wait for", words[0].display(), &cause))?;
    Ok(sys::exit_code(status))
}

/// `words` are the program, which the parser sees to, and its arguments.
fn new_command(environment: &Changes, words: &[OsString]) -> Command {
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    environment.apply_to(&mut command);
    command
}

/// The command, and what passes those signals on that are its alone: before it
/// began they would have ended this process.
fn begin(mut command: Command, forwarder: &Forwarder) -> Result<(Child, Forwarder)> {
    if let Some(signal) = forwarder.received() {
        return Err(Error::new(format!("cannot run {}: interrupted before it began", command.get_program().display()))
            .with_exit_code(sys::exit_code_of_signal(signal)));
    }
    let others = Forwarder::new(&[SIGUSR1, SIGUSR2]).map_err(|cause| Error::io("set up", "signal handling", &cause))?;
    let child = command.spawn().map_err(|cause| cannot_run(command.get_program(), &cause))?;
    // Ctrl-C and Ctrl-\ reach the command first: the terminal sends them to
    // both of us. What is sent to us alone is passed on.
    let by_terminal: &[i32] = if sys::is_in_foreground() { &[SIGINT, SIGQUIT] } else { &[] };
    forwarder.pass_to(child.id(), by_terminal);
    others.pass_to(child.id(), &[]);
    Ok((child, others))
}

fn cannot_run(program: &OsStr, cause: &io::Error) -> Error {
    let error = Error::new(format!("cannot run {}: {}", program.display(), reason(cause)));
    match cause.kind() {
        io::ErrorKind::NotFound => error.with_exit_code(NOT_FOUND).hint("check its name and PATH"),
        _ => error.with_exit_code(NOT_EXECUTABLE).hint("is it a program, and executable for you?"),
    }
}
