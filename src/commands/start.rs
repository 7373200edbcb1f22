//! `stigmer local start`

use super::{context, use_running};
use crate::cli::{Action, CommandSpec, EXTERNAL_OPTIONS, OptionSpec, SERVER_OPTIONS, Typed, switch};
use crate::daemon::{self, OnReady, Request, STOP_COMMAND, Served, how_to_use};
use crate::error::Result;
use crate::notify::Notifier;
use crate::state::{Lifetime, Mode, State};
use crate::terminal::{Mark, Stream, Terminal};

const DETACH: OptionSpec = switch("detach", "run in the background; return once Temporal is ready").short('d');

pub static COMMAND: CommandSpec = CommandSpec {
    path: "stigmer local start",
    summary: "install Temporal if needed, start it, keep it running",
    usage: "[OPTIONS]",
    options: &[&[&DETACH], SERVER_OPTIONS, EXTERNAL_OPTIONS],
    notes: "\
Runs in the foreground until you press Ctrl-C. An option overrides its
environment variable, which overrides the default; an empty variable counts as
unset.

Examples:
  stigmer local start --port 7234
  stigmer local start --detach && stigmer local status
  stigmer local start --temporal-host temporal.example.com:7233
  stigmer local start --temporal-arg --log-level --temporal-arg debug
",
    action: Action::Run(start),
    ..CommandSpec::PLAIN
};

fn start(typed: &Typed) -> Result<u8> {
    let context = &context()?;
    let config = &context.resolve(&typed.options)?;
    let mut terminal = Terminal::new(Stream::Stdout, context.variable);
    let already_running = |state: &State, terminal: &mut Terminal| {
        use_running(config, state, &context.home)?;
        print_running(state, terminal);
        Ok(())
    };
    let request = Request { context, config, lifetime: Lifetime::Kept };
    if typed.options.has(&DETACH) {
        return daemon::detach(&request, terminal, &already_running).map(|_| 0);
    }
    let on_ready = OnReady { stop: Some("Ctrl-C"), then: &mut |_| {} };
    match daemon::serve(&request, Notifier::new(context.variable), &mut terminal, on_ready)? {
        Served::Stopped => {}
        Served::AlreadyRunning(state) => already_running(&state, &mut terminal)?,
    }
    Ok(0)
}

fn print_running(state: &State, terminal: &mut Terminal) {
    if state.mode == Mode::External {
        terminal
            .line(Mark::Done, &format!("Stigmer Daemon is already running, with external Temporal {}", state.address));
    } else {
        let pid = state.temporal.as_ref().map_or(0, |temporal| temporal.pid);
        terminal.line(Mark::Done, &format!("Temporal is already running (PID: {pid})"));
        if let Some(url) = &state.ui_url {
            terminal.line(Mark::Done, &format!("UI available at {url}"));
        }
        terminal.line(Mark::Info, &how_to_use(&state.address, Some(STOP_COMMAND)));
    }
}
