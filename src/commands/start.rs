//! `stigmer local start`

use super::warn_of_differences;
use crate::config::Config;
use crate::daemon::{self, Context, Request, Served};
use crate::error::Result;
use crate::state::{Lifetime, Mode, State};
use crate::terminal::{Mark, Stream, Terminal};

pub fn start(context: &Context<'_>, config: &Config, detach: bool) -> Result<()> {
    let mut terminal = Terminal::new(Stream::Stdout, context.variable);
    let already_running = |state: &State, terminal: &mut Terminal| report_running(config, state, terminal);
    let request = Request { context, config, lifetime: Lifetime::Kept };
    if detach {
        return daemon::detach(&request, terminal, &already_running).map(drop);
    }
    match daemon::serve(&request, &mut terminal, &mut |_| {})? {
        Served::Stopped => {}
        Served::AlreadyRunning(state) => already_running(&state, &mut terminal),
    }
    Ok(())
}

fn report_running(config: &Config, state: &State, terminal: &mut Terminal) {
    if state.mode == Mode::External {
        terminal
            .line(Mark::Done, &format!("Stigmer Daemon is already running, with external Temporal {}", state.address));
    } else {
        let pid = state.temporal.as_ref().map_or(0, |temporal| temporal.pid);
        terminal.line(Mark::Done, &format!("Temporal is already running (PID: {pid})"));
        if let Some(url) = &state.ui_url {
            terminal.line(Mark::Done, &format!("UI available at {url}"));
        }
    }
    warn_of_differences(config, state, terminal);
}
