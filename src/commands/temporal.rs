//! `stigmer local temporal`: becomes the installed Temporal CLI.

use std::os::unix::process::CommandExt;
use std::process::Command;

use super::{client, context};
use crate::cli::{Action, CommandSpec, Operands, Options, Typed};
use crate::config::{Config, Managed, Port, local};
use crate::daemon::Context;
use crate::environment::Changes;
use crate::error::{Error, Result, reason};
use crate::install;
use crate::state::Observed;
use crate::terminal::{Stream, Terminal};

pub static COMMAND: CommandSpec = CommandSpec {
    path: "stigmer local temporal",
    summary: "run the installed Temporal CLI against this Temporal",
    usage: "[ARGS...]",
    operands: Operands::PassedOn,
    notes: "\
ARGS are all the Temporal CLI's own; it is installed first if it is missing.
'stigmer local temporal help' shows its own help.

Examples:
  stigmer local temporal workflow list
  stigmer local temporal operator namespace describe default
",
    action: Action::Run(temporal),
    ..CommandSpec::PLAIN
};

/// Returns only when it failed.
fn temporal(typed: &Typed) -> Result<u8> {
    let context = &context()?;
    let mut terminal = Terminal::new(Stream::Stderr, context.variable);
    let config = context.resolve_managed()?;
    context.home.create()?;
    let installed = install::ensure(&config, &context.home, context.variable, &mut terminal)?;
    let mut command = Command::new(&installed.executable);
    command.args(&typed.operands);
    environment(context, &config)?.apply_to(&mut command);
    let cause = command.exec();
    Err(Error::new(format!("cannot execute {}: {}", installed.executable.display(), reason(&cause))))
}

/// Of the Temporal that TEMPORAL_SERVICE_ADDRESS names, as in the command of a
/// `run`; else of the daemon's, or of the one that it would start.
fn environment(context: &Context<'_>, config: &Managed) -> Result<Changes> {
    if let Config::External(external) = context.resolve(&Options::default())? {
        let connection = &external.connection;
        return Ok(client::of_external(&connection.address.value.to_string(), connection.namespace(), Vec::new()));
    }
    if let Observed::Running(state) = Observed::of(&context.home.instance)? {
        return client::of_daemon(&context.home, config, &state);
    }
    let port = match config.port.value {
        Port::Number(port) => port,
        // Nobody serves there: the CLI says so.
        Port::Free => 0,
    };
    client::of_local(&context.home, config, &local(config.ip.value, port).to_string())
}
