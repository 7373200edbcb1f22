//! `run --ephemeral`: one process deep, `run` itself holds the Temporal.

use std::ffi::OsString;

use super::{begin, client, new_command, new_forwarder};
use crate::config::Managed;
use crate::daemon::Context;
use crate::error::{Error, Result};
use crate::events::{Events, Halt};
use crate::install;
use crate::record::Program;
use crate::supervisor::{Choice, Endpoints, Ephemeral, Plan};
use crate::sys::{self, Forwarder, SIGTERM};
use crate::terminal::{Mark, Stream, Terminal, print_error};

/// Runs the command; returns its exit code.
pub fn run(context: &Context<'_>, config: &Managed, words: &[OsString]) -> Result<u8> {
    let mut terminal = Terminal::new(Stream::Stderr, context.variable);
    let home = &context.home;
    home.create()?;
    // Until it is installed a signal ends this process as it would any other.
    let installed = install::ensure(config, home, context.variable, &mut terminal)?;
    let forwarder = new_forwarder()?;
    let mut events = Events::new()?;
    let endpoints = Endpoints::choose(config)?;
    let choice = Choice { installed, program: Program::default(), refusal: None, remark: String::new() };
    let plan = Plan { config, endpoints, home, choice, database: None, directory: context.directory.clone() };
    let mut temporal = Ephemeral::start(plan, &mut events).map_err(|halt| give_up(halt, &forwarder))?;
    announce(&temporal, &mut terminal);

    let environment = client::of_local(home, config, &temporal.endpoints().address().to_string())?;
    let mut command = new_command(&environment, words);
    // Without us it would only wait for a Temporal that is gone.
    sys::signal_at_our_death(&mut command, SIGTERM);
    let (mut child, others) = begin(command, &forwarder)?;
    let lost = watch(child.id(), &mut temporal, &mut events, &mut terminal)?;
    forwarder.pause();
    others.pause();
    let status = child.wait().map_err(|cause| Error::io("wait for", words[0].display(), &cause))?;
    let code = sys::exit_code(status);
    if let Some(how) = lost {
        let program = words[0].display();
        let text = format!("cannot rely on this run of {program} (exit status {code}): its Temporal ended with {how}");
        print_error(&temporal.explain(Error::new(text)), context.variable);
    }
    Ok(code)
}

fn give_up(halt: Halt, forwarder: &Forwarder) -> Error {
    match halt {
        Halt::Failed(error) => error,
        Halt::StopRequested => {
            let signal = forwarder.received().unwrap_or(SIGTERM);
            Error::new("cannot start Temporal: interrupted before it was ready")
                .with_exit_code(sys::exit_code_of_signal(signal))
        }
    }
}

fn announce(temporal: &Ephemeral<'_>, terminal: &mut Terminal) {
    if let Some(pid) = temporal.pid() {
        terminal.line(Mark::Done, &format!("Ephemeral Temporal Server started (PID: {pid})"));
    }
    if let Some(url) = temporal.endpoints().ui_url() {
        terminal.line(Mark::Done, &format!("UI available at {url}"));
    }
}

/// Sleeps until the command has ended; it is not reaped yet, so that no signal
/// is passed on to another process of its number. Returns how Temporal ended,
/// if it did so before.
fn watch(
    command: u32,
    temporal: &mut Ephemeral<'_>,
    events: &mut Events,
    terminal: &mut Terminal,
) -> Result<Option<String>> {
    let mut lost = None;
    loop {
        if let Some(how) = temporal.ended() {
            let text = format!("Temporal ended unexpectedly ({how}), and all that it held in memory is gone.");
            terminal.line(Mark::Warning, &text);
            lost = Some(how);
        }
        if sys::has_ended(command) {
            return Ok(lost);
        }
        sys::reap_all_but(&[&[command], temporal.pid().as_slice()].concat());
        // A request to stop is for the command, to whom it was passed on.
        if let Err(Halt::Failed(error)) = events.wait(None) {
            return Err(error);
        }
    }
}
