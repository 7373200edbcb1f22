//! What was typed: one table of commands and options, and the parser over it.
//!
//! The table feeds the parser, the help and the completions, so that they
//! cannot drift apart; `config` decides what the typed words mean.

use std::ffi::{OsStr, OsString};

use lexopt::Arg;

use crate::error::{Error, Result};
use crate::pinned;

/// A command as it was typed.
#[derive(Debug, PartialEq)]
pub enum Command {
    Help(&'static CommandSpec),
    Version,
    Start { detach: bool, server: ServerOptions },
    Run { server: ServerOptions, program: OsString, arguments: Vec<OsString> },
    Stop { force: bool },
    Restart,
    Status { json: bool },
    Logs { follow: bool, lines: u64 },
    Completions(Shell),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

pub const SHELLS: [(&str, Shell); 3] = [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];

/// The options of `start` and `run` as they were typed, in their order.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct ServerOptions(Vec<(&'static OptionSpec, OsString)>);

impl ServerOptions {
    /// A switch that was typed has the value `1`, as its variable would.
    pub fn push(&mut self, option: &'static OptionSpec, value: impl Into<OsString>) {
        self.0.push((option, value.into()));
    }

    /// The value that counts: the last one typed.
    pub fn value(&self, option: &OptionSpec) -> Option<&OsStr> {
        self.values(option).last()
    }

    pub fn values(&self, option: &OptionSpec) -> impl Iterator<Item = &OsStr> {
        self.0.iter().filter(move |(typed, _)| typed.long == option.long).map(|(_, value)| value.as_os_str())
    }
}

/// What an option is, for the parser.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Id {
    /// One of `start` and `run`, for `config` to decide.
    Server,
    Detach,
    Force,
    Json,
    Follow,
    Lines,
}

/// One row of the table of options.
#[derive(Debug, PartialEq)]
pub struct OptionSpec {
    pub id: Id,
    pub long: &'static str,
    pub short: Option<char>,
    /// The value's name in the help; None for a switch.
    pub value: Option<&'static str>,
    /// The environment variable that says the same.
    pub variable: Option<&'static str>,
    pub default: Option<&'static str>,
    pub help: &'static str,
    /// Whether the value is a path, which shells complete.
    pub is_path: bool,
}

const fn switch(id: Id, long: &'static str, short: Option<char>, help: &'static str) -> OptionSpec {
    OptionSpec { id, long, short, value: None, variable: None, default: None, help, is_path: false }
}

const fn setting(
    long: &'static str,
    value: &'static str,
    variable: Option<&'static str>,
    default: Option<&'static str>,
    help: &'static str,
) -> OptionSpec {
    OptionSpec { id: Id::Server, long, short: None, value: Some(value), variable, default, help, is_path: false }
}

const fn path(option: OptionSpec) -> OptionSpec {
    OptionSpec { is_path: true, ..option }
}

pub const TEMPORAL_HOST: OptionSpec =
    setting("temporal-host", "HOST[:PORT]", Some("TEMPORAL_SERVICE_ADDRESS"), None, "use this Temporal and start none");
pub const PORT: OptionSpec =
    setting("port", "N", Some("STIGMER_TEMPORAL_PORT"), Some("7233"), "port of Temporal's gRPC frontend");
pub const UI_PORT: OptionSpec =
    setting("ui-port", "N", Some("STIGMER_TEMPORAL_UI_PORT"), Some("port + 1000"), "port of the Web UI");
pub const IP: OptionSpec =
    setting("ip", "ADDR", Some("STIGMER_TEMPORAL_IP"), Some("127.0.0.1"), "address that Temporal binds to");
pub const TEMPORAL_VERSION: OptionSpec = setting(
    "temporal-version",
    "V",
    Some("STIGMER_TEMPORAL_VERSION"),
    Some(pinned::VERSION),
    "version of the Temporal CLI to install",
);
pub const TEMPORAL_BIN: OptionSpec = path(setting(
    "temporal-bin",
    "PATH",
    Some("STIGMER_TEMPORAL_BIN"),
    None,
    "use this executable as it is, never download",
));
pub const MIRROR: OptionSpec = path(setting(
    "mirror",
    "URL|DIR",
    Some("STIGMER_TEMPORAL_MIRROR"),
    Some("GitHub"),
    "where releases come from: a URL or a directory",
));
pub const OFFLINE: OptionSpec =
    OptionSpec { variable: Some("STIGMER_OFFLINE"), ..switch(Id::Server, "offline", None, "never touch the network") };
pub const TEMPORAL_ARG: OptionSpec =
    setting("temporal-arg", "ARG", None, None, "pass ARG to 'temporal server start-dev' (repeatable)");
pub const READY_TIMEOUT: OptionSpec = setting(
    "ready-timeout",
    "SECONDS",
    Some("STIGMER_READY_TIMEOUT"),
    Some("30"),
    "how long Temporal may take to serve",
);

const DETACH: OptionSpec =
    switch(Id::Detach, "detach", Some('d'), "run in the background; return once Temporal is ready");

/// In the order in which people need them.
pub static SERVER_OPTIONS: &[&OptionSpec] = &[
    &PORT,
    &UI_PORT,
    &IP,
    &TEMPORAL_HOST,
    &TEMPORAL_ARG,
    &READY_TIMEOUT,
    &TEMPORAL_VERSION,
    &TEMPORAL_BIN,
    &MIRROR,
    &OFFLINE,
];
static START_OPTIONS: &[&OptionSpec] = &{
    let mut options = [&DETACH; 1 + SERVER_OPTIONS.len()];
    let mut index = 0;
    while index < SERVER_OPTIONS.len() {
        options[1 + index] = SERVER_OPTIONS[index];
        index += 1;
    }
    options
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    Top,
    Local,
    Start,
    Run,
    Stop,
    Restart,
    Status,
    Logs,
    Completions,
}

/// One command: what the parser, the help and the completions know of it.
#[derive(Debug, PartialEq)]
pub struct CommandSpec {
    pub name: Name,
    /// The words that call it: `stigmer local start`.
    pub path: &'static str,
    pub summary: &'static str,
    pub options: &'static [&'static OptionSpec],
    pub subcommands: &'static [&'static CommandSpec],
    /// The help screen above and below the options.
    usage: &'static str,
    notes: &'static str,
}

impl CommandSpec {
    /// The last word of its path.
    pub fn word(&self) -> &'static str {
        self.path.rsplit(' ').next().unwrap_or(self.path)
    }
}

pub static TOP: CommandSpec = CommandSpec {
    name: Name::Top,
    path: "stigmer",
    summary: "A running Temporal on a machine that has nothing",
    options: &[],
    subcommands: &[&LOCAL, &COMPLETIONS],
    usage: "stigmer COMMAND",
    notes: "\
Examples:
  stigmer local start                     Temporal on 127.0.0.1:7233, UI on 8233
  stigmer local start --detach            the same in the background
  stigmer local run -- python worker.py   a command with a Temporal of its own

Environment:
  STIGMER_HOME  where everything is kept [default: ~/.stigmer]

'stigmer COMMAND --help' tells more of a command.
",
};

pub static LOCAL: CommandSpec = CommandSpec {
    name: Name::Local,
    path: "stigmer local",
    summary: "start, stop and watch the local Temporal",
    options: &[],
    subcommands: &[&START, &RUN, &STOP, &RESTART, &STATUS, &LOGS],
    usage: "stigmer local COMMAND",
    notes: "\
'stigmer local COMMAND --help' tells more of a command.
",
};

pub static START: CommandSpec = CommandSpec {
    name: Name::Start,
    path: "stigmer local start",
    summary: "install Temporal if needed, start it, keep it running",
    options: START_OPTIONS,
    subcommands: &[],
    usage: "stigmer local start [OPTIONS]",
    notes: "\
Stays in the foreground until Ctrl-C. An option wins over its variable, the
variable over the default; an empty variable counts as unset.

Examples:
  stigmer local start --port 7234
  stigmer local start --detach && stigmer local status
  stigmer local start --temporal-host temporal.example.com:7233
  stigmer local start --temporal-arg --log-level --temporal-arg debug
",
};

pub static RUN: CommandSpec = CommandSpec {
    name: Name::Run,
    path: "stigmer local run",
    summary: "run a command with Temporal up, stop what was started for it",
    options: SERVER_OPTIONS,
    subcommands: &[],
    usage: "stigmer local run [OPTIONS] -- CMD [ARGS...]",
    notes: "\
CMD gets TEMPORAL_ADDRESS, TEMPORAL_SERVICE_ADDRESS and TEMPORAL_NAMESPACE, and
its exit status is passed on. A Temporal that already runs is used and left
running.

Examples:
  stigmer local run -- pytest
  stigmer local run --port 7300 -- go test ./...
",
};

pub static STOP: CommandSpec = CommandSpec {
    name: Name::Stop,
    path: "stigmer local stop",
    summary: "stop the daemon and Temporal",
    options: &[&switch(Id::Force, "force", None, "kill what has not stopped when its time is up")],
    subcommands: &[],
    usage: "stigmer local stop [--force]",
    notes: "\
Returns when both are gone; succeeds as well when nothing runs.
",
};

pub static RESTART: CommandSpec = CommandSpec {
    name: Name::Restart,
    path: "stigmer local restart",
    summary: "restart Temporal gracefully, with the same options",
    options: &[],
    subcommands: &[],
    usage: "stigmer local restart",
    notes: "\
Returns once Temporal is ready again.
",
};

pub static STATUS: CommandSpec = CommandSpec {
    name: Name::Status,
    path: "stigmer local status",
    summary: "tell whether Temporal runs and is ready",
    options: &[&switch(Id::Json, "json", None, "print one JSON object")],
    subcommands: &[],
    usage: "stigmer local status [--json]",
    notes: "\
Exit status: 0 running and ready, 3 not running, 1 running but not ready.
",
};

pub static LOGS: CommandSpec = CommandSpec {
    name: Name::Logs,
    path: "stigmer local logs",
    summary: "show the end of Temporal's log",
    options: &[
        &switch(Id::Follow, "follow", Some('f'), "go on with what is added, across rotation"),
        &OptionSpec {
            short: Some('n'),
            id: Id::Lines,
            ..setting("lines", "N", None, Some("100"), "how many lines of the end to show")
        },
    ],
    subcommands: &[],
    usage: "stigmer local logs [-f] [-n N]",
    notes: "\
Examples:
  stigmer local logs -f
  stigmer local logs -n 20
",
};

pub static COMPLETIONS: CommandSpec = CommandSpec {
    name: Name::Completions,
    path: "stigmer completions",
    summary: "print a completion script for a shell",
    options: &[],
    subcommands: &[],
    usage: "stigmer completions bash|zsh|fish",
    notes: "\
Examples:
  stigmer completions bash > ~/.local/share/bash-completion/completions/stigmer
  stigmer completions zsh > \"${fpath[1]}/_stigmer\"
  stigmer completions fish > ~/.config/fish/completions/stigmer.fish
",
};

/// The help screen of a command.
pub fn help(command: &CommandSpec) -> String {
    let mut text = format!("{}\n\nUsage: {}\n", sentence(command.summary), command.usage);
    if !command.subcommands.is_empty() {
        text.push_str("\nCommands:\n");
        let shown: Vec<_> = command.subcommands.iter().flat_map(|sub| leaves(sub)).collect();
        for sub in shown {
            let words = &sub.path[command.path.len() + 1..];
            text.push_str(&format!("  {words:<14} {}\n", sub.summary));
        }
    }
    text.push_str("\nOptions:\n");
    for option in command.options {
        let mut left = match option.short {
            Some(short) => format!("-{short}, --{}", option.long),
            None => format!("    --{}", option.long),
        };
        if let Some(value) = option.value {
            left = format!("{left} {value}");
        }
        text.push_str(&format!("  {left:<32}  {}", option.help));
        match (option.variable, option.default) {
            (None, None) => {}
            (None, Some(default)) => text.push_str(&format!(" [default: {default}]")),
            (Some(variable), default) => {
                let default = default.map_or(String::new(), |default| format!(", default: {default}"));
                text.push_str(&format!("\n{:36}[env: {variable}{default}]", ""));
            }
        }
        text.push('\n');
    }
    text.push_str(&format!("  {:<32}  show this help\n", "-h, --help"));
    if command.name == Name::Top {
        text.push_str(&format!("  {:<32}  show the version\n", "-V, --version"));
    }
    text.push('\n');
    text.push_str(command.notes);
    text
}

/// A command's own row in the list of commands, or those of its subcommands.
fn leaves(command: &'static CommandSpec) -> Vec<&'static CommandSpec> {
    match command.subcommands {
        [] => vec![command],
        subcommands => subcommands.to_vec(),
    }
}

fn sentence(summary: &str) -> String {
    let mut characters = summary.chars();
    let first = characters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(characters).chain(['.']).collect()
}

/// Parses the arguments behind the program's name.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut command = &TOP;
    loop {
        match next(&mut parser, command)? {
            None if command.name == Name::Top => return Ok(Command::Help(&TOP)),
            None => {
                let choices = words(command.subcommands).join(", ");
                return Err(usage_error(command, format!("'{}' needs a command: {choices}", command.path)));
            }
            Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Command::Help(command)),
            Some(Arg::Short('V') | Arg::Long("version")) => return Ok(Command::Version),
            Some(Arg::Value(word)) if word == "help" => return help_for(&mut parser, command),
            Some(Arg::Value(word)) => command = subcommand(command, &word)?,
            Some(other) => return Err(unknown_option(command, &other)),
        }
        match command.name {
            Name::Top | Name::Local => {}
            Name::Completions => return parse_completions(&mut parser),
            _ => return parse_options(&mut parser, command),
        }
    }
}

/// `help` alone, or `help local start`.
fn help_for(parser: &mut lexopt::Parser, mut command: &'static CommandSpec) -> Result<Command> {
    while let Some(argument) = next(parser, command)? {
        match argument {
            Arg::Value(word) => command = subcommand(command, &word)?,
            _ => break,
        }
    }
    Ok(Command::Help(command))
}

fn parse_options(parser: &mut lexopt::Parser, command: &'static CommandSpec) -> Result<Command> {
    let mut server = ServerOptions::default();
    let (mut detach, mut force, mut json, mut follow, mut lines) = (false, false, false, false, 100);
    while let Some(argument) = next(parser, command)? {
        let option = match &argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(command)),
            Arg::Value(word) if command.name == Name::Run => {
                let program = word.clone();
                let arguments = parser.raw_args().map_err(|cause| usage_error(command, cause.to_string()))?.collect();
                return Ok(Command::Run { server, program, arguments });
            }
            Arg::Value(word) => {
                return Err(usage_error(command, format!("unexpected argument '{}'", word.display())));
            }
            typed => find(command, typed).ok_or_else(|| unknown_option(command, typed))?,
        };
        let long = option.long;
        let mut value = || {
            let name = option.value.unwrap_or_default();
            parser.value().map_err(|_| usage_error(command, format!("--{long} needs a value: --{long} {name}")))
        };
        match option.id {
            Id::Server if option.value.is_some() => server.push(option, value()?),
            Id::Server => server.push(option, "1"),
            Id::Lines => lines = number_of_lines(&value()?)?,
            Id::Detach => detach = true,
            Id::Force => force = true,
            Id::Json => json = true,
            Id::Follow => follow = true,
        }
        if let Some(value) = parser.optional_value() {
            let text = format!("'--{long}' takes no value, but got '{}'", value.display());
            return Err(usage_error(command, text));
        }
    }
    match command.name {
        Name::Start => Ok(Command::Start { detach, server }),
        Name::Stop => Ok(Command::Stop { force }),
        Name::Restart => Ok(Command::Restart),
        Name::Status => Ok(Command::Status { json }),
        Name::Logs => Ok(Command::Logs { follow, lines }),
        _ => Err(usage_error(command, "no command to run".into())
            .hint(format!("put it behind two dashes: {} -- pytest", command.path))),
    }
}

fn parse_completions(parser: &mut lexopt::Parser) -> Result<Command> {
    let names = SHELLS.map(|(name, _)| name);
    let mut shell = None;
    while let Some(argument) = next(parser, &COMPLETIONS)? {
        shell = match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Command::Help(&COMPLETIONS)),
            Arg::Value(word) if shell.is_none() => match SHELLS.iter().find(|(name, _)| word == *name) {
                Some((_, shell)) => Some(*shell),
                None => {
                    let text = format!("unknown shell '{}'", word.display());
                    return Err(suggest(usage_error(&COMPLETIONS, text), &word.to_string_lossy(), &names, "")
                        .unwrap_or_else(|error| error.hint(format!("one of: {}", names.join(", ")))));
                }
            },
            Arg::Value(word) => {
                return Err(usage_error(&COMPLETIONS, format!("unexpected argument '{}'", word.display())));
            }
            option => return Err(unknown_option(&COMPLETIONS, &option)),
        };
    }
    shell.map(Command::Completions).ok_or_else(|| {
        usage_error(&COMPLETIONS, "which shell?".into()).hint(format!("{} {}", COMPLETIONS.path, names.join("|")))
    })
}

fn next<'a>(parser: &'a mut lexopt::Parser, command: &CommandSpec) -> Result<Option<Arg<'a>>> {
    parser.next().map_err(|cause| usage_error(command, cause.to_string()))
}

fn find(command: &CommandSpec, argument: &Arg<'_>) -> Option<&'static OptionSpec> {
    command.options.iter().copied().find(|option| match argument {
        Arg::Long(name) => option.long == *name,
        Arg::Short(letter) => option.short == Some(*letter),
        Arg::Value(_) => false,
    })
}

fn number_of_lines(value: &OsStr) -> Result<u64> {
    value.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
        usage_error(&LOGS, format!("--lines takes a whole number, not '{}'", value.display()))
            .hint("for example: stigmer local logs -n 20")
    })
}

fn subcommand(command: &'static CommandSpec, word: &OsStr) -> Result<&'static CommandSpec> {
    if let Some(found) = command.subcommands.iter().find(|sub| word == sub.word()) {
        return Ok(found);
    }
    let typed = word.to_string_lossy();
    // `stigmer start` is what people type when they forget `local`.
    if command.name == Name::Top && words(LOCAL.subcommands).contains(&typed.as_ref()) {
        return Err(usage_error(command, format!("unknown command '{typed}'"))
            .hint(format!("did you mean 'stigmer local {typed}'?")));
    }
    let error = usage_error(command, format!("unknown command '{typed}'"));
    Err(suggest(error, &typed, &words(command.subcommands), &format!("{} ", command.path))
        .unwrap_or_else(|error| error.hint(format!("{} --help", command.path))))
}

fn words(commands: &[&CommandSpec]) -> Vec<&'static str> {
    commands.iter().map(|command| command.word()).collect()
}

fn unknown_option(command: &CommandSpec, argument: &Arg<'_>) -> Error {
    match argument {
        Arg::Short(letter) => {
            usage_error(command, format!("unknown option '-{letter}'")).hint(format!("{} --help", command.path))
        }
        Arg::Long(name) => {
            let longs: Vec<_> = command.options.iter().map(|option| option.long).chain(["help"]).collect();
            suggest(usage_error(command, format!("unknown option '--{name}'")), name, &longs, "--")
                .unwrap_or_else(|error| error.hint(format!("{} --help", command.path)))
        }
        Arg::Value(word) => usage_error(command, format!("unexpected argument '{}'", word.display())),
    }
}

fn usage_error(command: &CommandSpec, message: String) -> Error {
    Error::usage(format!("{message}\nusage: {}", command.usage))
}

/// Adds the nearest of `candidates` as the hint; gives the error back when none is near.
fn suggest(error: Error, typed: &str, candidates: &[&str], prefix: &str) -> Result<Error, Error> {
    // What begins with the typed letters is meant before what merely resembles them.
    let rank = |candidate: &&&str| (!candidate.starts_with(typed), distance(typed, candidate));
    match candidates.iter().min_by_key(rank).map(|candidate| (distance(typed, candidate), candidate)) {
        Some((steps, candidate)) if steps <= 1 + candidate.len() / 4 || candidate.starts_with(typed) => {
            Ok(error.hint(format!("did you mean '{prefix}{candidate}'?")))
        }
        _ => Err(error),
    }
}

/// Edits (insert, delete, replace, swap of neighbours) between two words.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(rows[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Command> {
        parse(line.split_ascii_whitespace().map(OsString::from))
    }

    fn every_command() -> Vec<&'static CommandSpec> {
        let mut all = vec![&TOP, &LOCAL, &COMPLETIONS];
        all.extend(LOCAL.subcommands);
        all
    }

    #[test]
    fn every_option_of_the_table_is_parsed_and_in_the_help() {
        for command in every_command() {
            let screen = help(command);
            for option in command.options {
                let argument = match option.value {
                    Some(_) => format!("--{}=5", option.long),
                    None => format!("--{}", option.long),
                };
                let tail = if command.name == Name::Run { " -- true" } else { "" };
                let line = format!("{} {argument}{tail}", &command.path["stigmer ".len()..]);
                parse_words(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                assert!(screen.contains(&format!("--{}", option.long)), "{screen}");
                assert!(option.variable.is_none_or(|variable| screen.contains(variable)), "{screen}");
            }
        }
    }

    #[test]
    fn the_readme_has_every_option_with_its_variable_and_default() {
        let readme = include_str!("../README.md").replace('`', "'");
        for option in SERVER_OPTIONS {
            let flag = option.value.map_or(format!("--{}", option.long), |value| format!("--{} {value}", option.long));
            let flag = flag.replace('|', "\\|");
            let variable = option.variable.map_or(String::new(), |variable| format!("'{variable}' "));
            let default = option.default.map_or(String::new(), |default| format!("{default} "));
            let row = format!("| '{flag}' | {variable}| {default}| {} |", option.help);
            assert!(readme.contains(&row), "README.md lacks: {row}");
        }
    }

    #[test]
    fn help_fits_a_screen() {
        for command in every_command() {
            let screen = help(command);
            assert!(screen.lines().count() <= 45, "{screen}");
            assert!(screen.lines().all(|line| line.chars().count() <= 90), "{screen}");
        }
    }

    #[test]
    fn values_come_attached_or_behind() {
        let port = |line: &str| match parse_words(line).unwrap() {
            Command::Start { server, .. } => server.value(&PORT).map(OsString::from).unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(port("local start --port 7234"), "7234");
        assert_eq!(port("local start --port=7234"), "7234");
        for line in ["local logs -n5", "local logs -n 5", "local logs -n=5", "local logs --lines=5"] {
            assert_eq!(parse_words(line).unwrap(), Command::Logs { follow: false, lines: 5 }, "{line}");
        }
    }

    #[test]
    fn help_is_found_everywhere() {
        for (line, name) in [
            ("", Name::Top),
            ("-h", Name::Top),
            ("help", Name::Top),
            ("help local start", Name::Start),
            ("local --help", Name::Local),
            ("local help stop", Name::Stop),
            ("local start --port 1 -h", Name::Start),
            ("completions --help", Name::Completions),
        ] {
            match parse_words(line).unwrap() {
                Command::Help(spec) => assert_eq!(spec.name, name, "{line}"),
                other => panic!("{line}: {other:?}"),
            }
        }
    }

    #[test]
    fn everything_behind_the_command_of_run_is_its_own() {
        let Command::Run { program, arguments, server } =
            parse_words("local run --port 1 -- pytest -x --port 2 -- y").unwrap()
        else {
            panic!()
        };
        assert_eq!((program, server.value(&PORT)), ("pytest".into(), Some("1".as_ref())));
        assert_eq!(arguments, ["-x", "--port", "2", "--", "y"]);
    }

    #[test]
    fn near_misses_are_told_with_the_right_word() {
        for (line, hint) in [
            ("loca start", "did you mean 'stigmer local'?"),
            ("start", "did you mean 'stigmer local start'?"),
            ("local strat", "did you mean 'stigmer local start'?"),
            ("local start --prot 1", "did you mean '--port'?"),
            ("local start --detatch", "did you mean '--detach'?"),
            ("local start --temporal-vers 1", "did you mean '--temporal-version'?"),
            ("completions bsh", "did you mean 'bash'?"),
            ("local frobnicate", "stigmer local --help"),
        ] {
            let error = parse_words(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
            let text = error.to_string();
            assert!(text.contains(hint) && text.contains("usage: "), "{line}: {text}");
        }
    }

    #[test]
    fn wrong_words_are_usage_errors() {
        for line in [
            "local",
            "local start now",
            "local start --port",
            "local start --detach=yes",
            "local run",
            "local run --",
            "local logs -n x",
            "local logs -n -1",
            "completions",
            "completions bash zsh",
            "local stop -x",
        ] {
            assert_eq!(parse_words(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
