//! One file for each command; what they share stands here.

pub mod completions;
pub mod logs;
pub mod restart;
pub mod run;
pub mod start;
pub mod status;
pub mod stop;

use std::io::{self, Write};

use crate::config::Config;
use crate::error::{Error, Result, reason};
use crate::state::State;
use crate::terminal::{Mark, Terminal};

/// Prints a command's data. A reader that has seen enough is not a failure.
pub fn print(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(format!("cannot write to stdout: {}", reason(&cause))))
        }
        _ => Ok(()),
    }
}

/// Prints what was asked for and is not so, because a daemon runs already.
pub fn warn_of_differences(config: &Config, state: &State, terminal: &mut Terminal) {
    let mut warn = |is: &str, wanted: &str| {
        let text = format!("It is {is}, not {wanted}; to change that, run 'stigmer local stop' first.");
        terminal.line(Mark::Warning, &text);
    };
    let address = match config {
        Config::Managed(managed) if managed.port.source.is_explicit() => Some(managed.local_address().to_string()),
        Config::Managed(_) => None,
        Config::External(external) => Some(external.address.value.to_string()),
    };
    if let Some(address) = address.filter(|address| *address != state.address) {
        warn(&format!("at {}", state.address), &format!("at {address}"));
    }
    let Config::Managed(managed) = config else { return };
    let ui_url = managed.ui_url().filter(|_| managed.ui.as_ref().is_some_and(|ui| ui.port.source.is_explicit()));
    if let (Some(wanted), Some(is)) = (ui_url, &state.ui_url)
        && wanted != *is
    {
        warn(&format!("showing its UI at {is}"), &format!("at {wanted}"));
    }
    let version = Some(managed.version.value.to_string()).filter(|_| managed.version.source.is_explicit());
    if let (Some(wanted), Some(is)) = (version, &state.temporal_version)
        && wanted != *is
    {
        warn(&format!("version {is}"), &wanted);
    }
}
