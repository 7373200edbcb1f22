//! One file for each command, with what the parser knows about it; the tree
//! of them, and what they share, stand here.

mod client;
mod completions;
mod differences;
mod env;
mod logs;
mod man;
mod restart;
mod run;
mod start;
mod status;
mod stop;
mod temporal;

use std::io::{self, Write};

use crate::cli::{Action, CommandSpec};
use crate::config::Config;
use crate::daemon::Context;
use crate::error::{Error, Result, reason};
use crate::home::{self, CACHE_VARIABLE, HOME_VARIABLE, Home};
use crate::namespaces::{self, Undisturbed};
use crate::state::{Mode, State};

pub static TOP: CommandSpec = CommandSpec {
    path: "stigmer",
    summary: "A running Temporal on a machine that has nothing",
    usage: "COMMAND",
    notes: "\
Examples:
  stigmer local start                     run Temporal on 127.0.0.1:7233, UI on 8233
  stigmer local start --detach            do the same in the background
  stigmer local run -- python worker.py   run a command with Temporal up

Environment:
  STIGMER_HOME   where stigmer keeps everything [default: ~/.stigmer]
  STIGMER_CACHE  where homes share downloads; off: nowhere [default: ~/.cache/stigmer]

Run 'stigmer COMMAND --help' for more about a command.
",
    action: Action::Group(&[&LOCAL, &completions::COMMAND, &man::COMMAND]),
    ..CommandSpec::PLAIN
};

static LOCAL: CommandSpec = CommandSpec {
    path: "stigmer local",
    summary: "start, stop and watch the local Temporal",
    usage: "COMMAND",
    notes: "\
Run 'stigmer local COMMAND --help' for more about a command.
",
    action: Action::Group(&[
        &start::COMMAND,
        &run::COMMAND,
        &stop::COMMAND,
        &restart::COMMAND,
        &status::COMMAND,
        &logs::COMMAND,
        &temporal::COMMAND,
        &env::COMMAND,
    ]),
    ..CommandSpec::PLAIN
};

/// Every command that does something.
pub fn leaves() -> impl Iterator<Item = &'static CommandSpec> {
    let all = TOP.subcommands().iter().chain(LOCAL.subcommands()).copied();
    all.filter(|command| command.subcommands().is_empty())
}

fn context() -> Result<Context<'static>> {
    let variable = &|name: &str| std::env::var_os(name);
    let home = Home::resolve(variable(HOME_VARIABLE), home::user_home())?;
    Ok(Context {
        home: home.with_cache(variable(CACHE_VARIABLE), variable("XDG_CACHE_HOME")),
        variable,
        directory: std::env::current_dir().unwrap_or_else(|_| "/".into()),
    })
}

/// Prints a command's data; the exit code is 0 then. A reader that has seen
/// enough is not a failure.
pub fn print(text: &(impl AsRef<[u8]> + ?Sized)) -> Result<u8> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_ref()).and_then(|()| stdout.flush()) {
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new(format!("cannot write to stdout: {}", reason(&cause))))
        }
        _ => Ok(0),
    }
}

/// Makes the daemon that runs already serve what was asked for: missing
/// namespaces are made, other differences an error.
pub fn use_running(config: &Config, state: &State, home: &Home) -> Result<()> {
    differences::check(config, state, home)?;
    let (Config::Managed(managed), Mode::Managed) = (config, state.mode) else { return Ok(()) };
    let Ok(address) = state.address.parse() else { return Ok(()) };
    namespaces::establish(&managed.namespaces, &[], address, &mut Undisturbed)
}
