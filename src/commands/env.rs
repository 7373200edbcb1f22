//! `stigmer local env`: what `run` gives to its command, for a shell.

use super::{client, context, print};
use crate::cli::{Action, CommandSpec, OptionSpec, Typed, setting};
use crate::environment::Changes;
use crate::error::{Error, Result};
use crate::state::{Observed, elsewhere};

const NOT_RUNNING: u8 = 3;

const SHELL: OptionSpec = setting("shell", "sh|fish", "for which shell; bash and zsh read sh").default("sh");

pub static COMMAND: CommandSpec = CommandSpec {
    path: "stigmer local env",
    summary: "print a client's environment for a shell to eval",
    usage: "[--shell sh|fish]",
    options: &[&[&SHELL]],
    notes: "\
Exit status: 0, or 3 when Temporal is not running.

Examples:
  eval \"$(stigmer local env)\"
  stigmer local env --shell fish | source
",
    action: Action::Run(env),
    ..CommandSpec::PLAIN
};

fn env(typed: &Typed) -> Result<u8> {
    let shell = typed.options.value(&SHELL).map_or("sh".into(), |shell| shell.to_string_lossy());
    let in_words: fn(&Changes) -> Vec<u8> = match &*shell {
        "sh" => Changes::for_sh,
        "fish" => Changes::for_fish,
        _ => {
            let text = format!("--{} takes sh or fish, not '{shell}'", SHELL.long);
            return Err(COMMAND.usage_error(text).hint("bash and zsh read what is for sh"));
        }
    };
    let context = context()?;
    let cannot = |why: &str| Error::new(format!("cannot print the environment: {why}"));
    let state = match Observed::of(&context.home.instance)? {
        Observed::Running(state) if state.times_ready > 0 => state,
        Observed::Elsewhere => return Err(elsewhere("print the environment", &context.home.instance)),
        Observed::Running(_) | Observed::Silent(_) => return Err(cannot("Temporal is still starting")),
        Observed::Absent => {
            let error = cannot("Temporal is not running").with_exit_code(NOT_RUNNING);
            return Err(error.hint("stigmer local start --detach"));
        }
    };
    let changes = client::of_daemon(&context.home, &context.resolve_managed()?, &state)?;
    print(&in_words(&changes))
}
