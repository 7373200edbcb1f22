//! What was typed: the table of a server's options, and the parser.
//!
//! A command is one value, beside what it does in `commands`; an option is one
//! row. Parser, help and completions read both, so that they cannot drift
//! apart; `config` decides what the typed words mean.

use std::ffi::{OsStr, OsString};

use lexopt::Arg;

use crate::error::{Error, Result};
use crate::pinned;

/// One command: what the parser, the help and the completions know about it.
pub struct CommandSpec {
    /// The words that call it: `stigmer local start`.
    pub path: &'static str,
    pub summary: &'static str,
    /// What follows the path in the line of its usage.
    pub usage: &'static str,
    /// In the order of the help, in groups that commands share.
    pub options: &'static [&'static [&'static OptionSpec]],
    pub operands: Operands,
    /// The help screen below the options.
    pub notes: &'static str,
    pub action: Action,
}

pub enum Action {
    /// One of these must follow.
    Group(&'static [&'static CommandSpec]),
    /// Does what was typed; returns the exit code.
    Run(fn(&Typed) -> Result<u8>),
}

/// What may follow the options of a command.
pub enum Operands {
    None,
    /// A command of the user's, whose own options are not ours.
    Program,
    /// All of them another program's, options too, but for a first `--help`.
    PassedOn,
    /// One of some words, and what they are.
    OneOf(&'static str, &'static [&'static str]),
}

impl CommandSpec {
    /// What most commands have, to be filled in.
    pub const PLAIN: CommandSpec = CommandSpec {
        path: "",
        summary: "",
        usage: "",
        options: &[],
        operands: Operands::None,
        notes: "",
        action: Action::Group(&[]),
    };

    /// The last word of its path.
    pub fn word(&self) -> &'static str {
        self.path.rsplit(' ').next().unwrap_or(self.path)
    }

    pub fn subcommands(&self) -> &'static [&'static CommandSpec] {
        match self.action {
            Action::Group(subcommands) => subcommands,
            Action::Run(_) => &[],
        }
    }

    pub fn options(&self) -> impl Iterator<Item = &'static OptionSpec> {
        self.options.iter().flat_map(|group| group.iter().copied())
    }

    pub fn usage_error(&self, message: impl std::fmt::Display) -> Error {
        Error::usage(message.to_string()).usage_line(self.usage_line())
    }

    pub fn usage_line(&self) -> String {
        format!("{} {}", self.path, self.usage).trim_end().into()
    }

    fn is_top(&self) -> bool {
        !self.path.contains(' ')
    }
}

/// A command line that calls a command.
pub struct Typed {
    pub command: &'static CommandSpec,
    pub options: Options,
    pub operands: Vec<OsString>,
}

/// What a command line asks for.
pub enum Request {
    /// Help or the version, to be printed.
    Print(String),
    Run(fn(&Typed) -> Result<u8>, Typed),
}

/// The options as they were typed, in their order.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Options(Vec<(&'static OptionSpec, OsString)>);

impl Options {
    /// A switch that was typed has the value `1`, as its variable would.
    pub fn push(&mut self, option: &'static OptionSpec, value: impl Into<OsString>) {
        self.0.push((option, value.into()));
    }

    pub fn has(&self, option: &OptionSpec) -> bool {
        self.value(option).is_some()
    }

    /// The value that counts: the last one typed.
    pub fn value(&self, option: &OptionSpec) -> Option<&OsStr> {
        self.values(option).last()
    }

    pub fn values(&self, option: &OptionSpec) -> impl Iterator<Item = &OsStr> {
        self.0.iter().filter(move |(typed, _)| typed.long == option.long).map(|(_, value)| value.as_os_str())
    }
}

/// One row of a table of options.
#[derive(Debug, PartialEq)]
pub struct OptionSpec {
    pub long: &'static str,
    pub short: Option<char>,
    /// The value's name in the help; None for a switch.
    pub value: Option<&'static str>,
    /// The environment variable that says the same.
    pub variable: Option<&'static str>,
    /// Parsed as a typed value is.
    pub default: Option<&'static str>,
    pub help: &'static str,
    /// Whether the value is a path, which shells complete.
    pub is_path: bool,
}

pub const fn switch(long: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { long, short: None, value: None, variable: None, default: None, help, is_path: false }
}

pub const fn setting(long: &'static str, value: &'static str, help: &'static str) -> OptionSpec {
    OptionSpec { value: Some(value), ..switch(long, help) }
}

impl OptionSpec {
    pub const fn short(self, letter: char) -> OptionSpec {
        OptionSpec { short: Some(letter), ..self }
    }

    pub const fn variable(self, name: &'static str) -> OptionSpec {
        OptionSpec { variable: Some(name), ..self }
    }

    pub const fn default(self, text: &'static str) -> OptionSpec {
        OptionSpec { default: Some(text), ..self }
    }

    const fn path(self) -> OptionSpec {
        OptionSpec { is_path: true, ..self }
    }
}

pub const TEMPORAL_HOST: OptionSpec =
    setting("temporal-host", "HOST[:PORT]", "use this Temporal instead of starting one")
        .variable("TEMPORAL_SERVICE_ADDRESS");
pub const PORT: OptionSpec = setting("port", "N", "port of Temporal's gRPC frontend (0 picks a free one)")
    .variable("STIGMER_TEMPORAL_PORT")
    .default("7233");
pub const UI_PORT: OptionSpec = setting("ui-port", "N", "port of the Web UI (0 picks a free one)")
    .variable("STIGMER_TEMPORAL_UI_PORT")
    .default("port + 1000");
pub const IP: OptionSpec =
    setting("ip", "ADDR", "address that Temporal binds to").variable("STIGMER_TEMPORAL_IP").default("127.0.0.1");
pub const TEMPORAL_VERSION: OptionSpec = setting("temporal-version", "V", "version of the Temporal CLI to install")
    .variable("STIGMER_TEMPORAL_VERSION")
    .default(pinned::VERSION);
pub const TEMPORAL_BIN: OptionSpec = setting("temporal-bin", "PATH", "use this executable as is; download nothing")
    .variable("STIGMER_TEMPORAL_BIN")
    .path();
pub const MIRROR: OptionSpec = setting("mirror", "URL|DIR", "where to get releases: a URL or a directory")
    .variable("STIGMER_TEMPORAL_MIRROR")
    .default("GitHub")
    .path();
pub const OFFLINE: OptionSpec = switch("offline", "never touch the network").variable("STIGMER_OFFLINE");
pub const TEMPORAL_ARG: OptionSpec =
    setting("temporal-arg", "ARG", "pass ARG to 'temporal server start-dev' (repeatable)");
pub const NAMESPACE: OptionSpec = setting("namespace", "NS", "namespace, created if it is missing (repeatable)")
    .short('n')
    .variable("TEMPORAL_NAMESPACE")
    .default("default");
pub const SEARCH_ATTRIBUTE: OptionSpec =
    setting("search-attribute", "NAME=TYPE", "search attribute for these namespaces (repeatable)");
pub const RETENTION: OptionSpec =
    setting("retention", "DURATION", "how long closed workflows are kept, such as 36h or 30d")
        .variable("STIGMER_RETENTION")
        .default("7d");
pub const READY_TIMEOUT: OptionSpec = setting("ready-timeout", "SECONDS", "how long Temporal may take to become ready")
    .variable("STIGMER_READY_TIMEOUT")
    .default("30");

/// The options of a Temporal, in the order in which people need them.
pub const SERVER_OPTIONS: &[&OptionSpec] = &[
    &PORT,
    &UI_PORT,
    &IP,
    &TEMPORAL_HOST,
    &NAMESPACE,
    &SEARCH_ATTRIBUTE,
    &RETENTION,
    &TEMPORAL_ARG,
    &READY_TIMEOUT,
    &TEMPORAL_VERSION,
    &TEMPORAL_BIN,
    &MIRROR,
    &OFFLINE,
];

pub const TLS: OptionSpec = switch("tls", "use TLS (detected if not specified)").variable("TEMPORAL_TLS");
pub const TLS_CA_PATH: OptionSpec =
    setting("tls-ca-path", "FILE", "CA certificates to trust instead of the built-in ones")
        .variable("TEMPORAL_TLS_SERVER_CA_CERT_PATH")
        .path();
pub const TLS_CERT_PATH: OptionSpec = setting("tls-cert-path", "FILE", "client certificate, together with its key")
    .variable("TEMPORAL_TLS_CLIENT_CERT_PATH")
    .path();
pub const TLS_KEY_PATH: OptionSpec = setting("tls-key-path", "FILE", "private key of the client certificate")
    .variable("TEMPORAL_TLS_CLIENT_KEY_PATH")
    .path();
pub const TLS_SERVER_NAME: OptionSpec =
    setting("tls-server-name", "NAME", "name to expect in the server's certificate")
        .variable("TEMPORAL_TLS_SERVER_NAME");
pub const TLS_UNVERIFIED: OptionSpec = switch("tls-disable-host-verification", "trust the server without verifying it")
    .variable("TEMPORAL_TLS_DISABLE_HOST_VERIFICATION");

/// What only an external Temporal needs. A key has a variable alone: a command
/// line is no place for a secret.
pub const EXTERNAL_OPTIONS: &[&OptionSpec] =
    &[&TLS, &TLS_CA_PATH, &TLS_CERT_PATH, &TLS_KEY_PATH, &TLS_SERVER_NAME, &TLS_UNVERIFIED];

/// The help screen of a command.
pub fn help(command: &CommandSpec) -> String {
    let mut text = format!("{}\n\nUsage: {}\n", sentence(command.summary), command.usage_line());
    if !command.subcommands().is_empty() {
        text.push_str("\nCommands:\n");
        for sub in command.subcommands().iter().flat_map(leaves) {
            let words = &sub.path[command.path.len() + 1..];
            text.push_str(&format!("  {words:<14} {}\n", sub.summary));
        }
    }
    text.push_str("\nOptions:\n");
    let usual = command.options.iter().filter(|group| **group != EXTERNAL_OPTIONS);
    usual.copied().flatten().for_each(|option| text.push_str(&help_row(option)));
    text.push_str(&format!("  {:<32}  show this help\n", "-h, --help"));
    if command.is_top() {
        text.push_str(&format!("  {:<32}  show the version\n", "-V, --version"));
    }
    if command.options.contains(&EXTERNAL_OPTIONS) {
        text.push_str("\nFor an external Temporal (see also TEMPORAL_API_KEY and TEMPORAL_GRPC_META_*):\n");
        EXTERNAL_OPTIONS.iter().for_each(|option| text.push_str(&help_row(option)));
    }
    if !command.notes.is_empty() {
        text.push_str(&format!("\n{}", command.notes));
    }
    text
}

fn help_row(option: &OptionSpec) -> String {
    let short = option.short.map_or("    ".into(), |short| format!("-{short}, "));
    let value = option.value.map_or(String::new(), |value| format!(" {value}"));
    let flag = format!("{short}--{}{value}", option.long);
    let default = option.default.map(|default| format!("default: {default}"));
    let remarks = match (option.variable, default) {
        (None, None) => String::new(),
        (None, Some(default)) => format!(" [{default}]"),
        (Some(variable), None) => format!("\n{:36}[env: {variable}]", ""),
        (Some(variable), Some(default)) => format!("\n{:36}[env: {variable}, {default}]", ""),
    };
    format!("  {flag:<32}  {}{remarks}\n", option.help)
}

/// A command's own row in the list of commands, or those of its subcommands.
fn leaves<'a>(command: &'a &'static CommandSpec) -> &'a [&'static CommandSpec] {
    match command.action {
        Action::Group(subcommands) => subcommands,
        Action::Run(_) => std::slice::from_ref(command),
    }
}

/// A summary, on a line of its own.
pub fn sentence(summary: &str) -> String {
    let mut characters = summary.chars();
    let first = characters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(characters).chain(['.']).collect()
}

/// Parses the arguments after the program's name.
pub fn parse(top: &'static CommandSpec, arguments: impl IntoIterator<Item = OsString>) -> Result<Request> {
    let mut parser = lexopt::Parser::from_args(arguments);
    let mut command = top;
    loop {
        if let Action::Run(run) = command.action {
            let typed = parse_arguments(&mut parser, command)?;
            return Ok(typed.map_or_else(|| Request::Print(help(command)), |typed| Request::Run(run, typed)));
        }
        match next(&mut parser, command)? {
            None if command.is_top() => return Ok(Request::Print(help(command))),
            None => return Err(missing(command, "command", &words(command.subcommands()))),
            Some(Arg::Short('h') | Arg::Long("help")) => return Ok(Request::Print(help(command))),
            Some(Arg::Short('V') | Arg::Long("version")) => {
                return Ok(Request::Print(concat!("stigmer ", env!("CARGO_PKG_VERSION"), "\n").into()));
            }
            Some(Arg::Value(word)) if word == "help" => return help_for(&mut parser, command),
            Some(Arg::Value(word)) => command = subcommand(command, &word)?,
            Some(other) => return Err(unknown_option(command, &other)),
        }
    }
}

/// `help` alone, or `help local start`.
fn help_for(parser: &mut lexopt::Parser, mut command: &'static CommandSpec) -> Result<Request> {
    while let Some(Arg::Value(word)) = next(parser, command)? {
        command = subcommand(command, &word)?;
    }
    Ok(Request::Print(help(command)))
}

/// What follows the words of a command; None when its help is asked for.
fn parse_arguments(parser: &mut lexopt::Parser, command: &'static CommandSpec) -> Result<Option<Typed>> {
    let mut typed = Typed { command, options: Options::default(), operands: Vec::new() };
    if let Operands::PassedOn = command.operands {
        typed.operands = parser.raw_args().map_err(|cause| command.usage_error(cause))?.collect();
        match typed.operands.first().and_then(|first| first.to_str()) {
            Some("-h" | "--help") => return Ok(None),
            Some("--") => drop(typed.operands.remove(0)),
            _ => {}
        }
    }
    while let Some(argument) = next(parser, command)? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            Arg::Value(word) => {
                check_operand(command, &word, typed.operands.len())?;
                typed.operands.push(word);
                if let Operands::Program = command.operands {
                    typed.operands.extend(parser.raw_args().map_err(|cause| command.usage_error(cause))?);
                }
            }
            flag => {
                let option = find(command, &flag).ok_or_else(|| unknown_option(command, &flag))?;
                typed.options.push(option, value(parser, command, option)?);
            }
        }
    }
    match command.operands {
        Operands::Program if typed.operands.is_empty() => Err(missing(command, "command", &[])
            .hint(format!("put the command after '--', for example: {} -- pytest", command.path))),
        Operands::OneOf(what, choices) if typed.operands.is_empty() => Err(missing(command, what, choices)),
        _ => Ok(Some(typed)),
    }
}

fn check_operand(command: &CommandSpec, word: &OsStr, count: usize) -> Result<()> {
    match command.operands {
        Operands::Program => Ok(()),
        Operands::OneOf(_, choices) if count == 0 && choices.iter().any(|choice| word == *choice) => Ok(()),
        Operands::OneOf(what, choices) if count == 0 => {
            let hint = nearest(&word.to_string_lossy(), choices, "");
            Err(command
                .usage_error(format!("unknown {what} '{}'", word.display()))
                .hint(hint.unwrap_or_else(|| format!("one of: {}", choices.join(", ")))))
        }
        _ => Err(command.usage_error(format!("unexpected argument '{}'", word.display()))),
    }
}

fn value(parser: &mut lexopt::Parser, command: &CommandSpec, option: &OptionSpec) -> Result<OsString> {
    let long = option.long;
    match option.value {
        Some(name) => {
            parser.value().map_err(|_| command.usage_error(format!("--{long} needs a value: --{long} {name}")))
        }
        None => match parser.optional_value() {
            None => Ok("1".into()),
            Some(value) => {
                Err(command.usage_error(format!("'--{long}' takes no value, but got '{}'", value.display())))
            }
        },
    }
}

fn next<'a>(parser: &'a mut lexopt::Parser, command: &CommandSpec) -> Result<Option<Arg<'a>>> {
    parser.next().map_err(|cause| command.usage_error(cause))
}

fn find(command: &CommandSpec, argument: &Arg<'_>) -> Option<&'static OptionSpec> {
    command.options().find(|option| match argument {
        Arg::Long(name) => option.long == *name,
        Arg::Short(letter) => option.short == Some(*letter),
        Arg::Value(_) => false,
    })
}

/// Words that other tools have for our commands.
const OTHER_COMMANDS: [(&str, &str); 3] = [
    ("up", "did you mean 'stigmer local start'?"),
    ("down", "did you mean 'stigmer local stop'?"),
    ("ui", "'stigmer local status' shows the address of the Web UI"),
];

/// Flags that other tools have for our options: the flag, an option that the
/// command must have, the hint.
const OTHER_FLAGS: [(&str, &str, &str); 5] = [
    ("-p", PORT.long, "did you mean '--port'?"),
    ("--background", "detach", "did you mean '--detach'?"),
    ("--daemon", "detach", "did you mean '--detach'?"),
    ("--tail", "lines", "did you mean '--lines'?"),
    ("--host", IP.long, "--ip is the address to bind to, --temporal-host another Temporal to use"),
];

/// What `temporal server start-dev` takes beside our own options.
const FLAGS_OF_TEMPORAL: [&str; 9] = [
    "--db-filename=FILE",
    "--dynamic-config-value=KEY=VALUE",
    "--headless",
    "--http-port=N",
    "--log-format=FORMAT",
    "--log-level=LEVEL",
    "--metrics-port=N",
    "--sqlite-pragma=KEY=VALUE",
    "--ui-ip=ADDR",
];

/// The hint at what the flag is called here.
fn called_here(command: &CommandSpec, flag: &str) -> Option<String> {
    let has = |long: &str| command.options().any(|option| option.long == long);
    if let Some((.., hint)) = OTHER_FLAGS.iter().find(|(other, long, _)| flag == *other && has(long)) {
        return Some((*hint).into());
    }
    let of_temporal = FLAGS_OF_TEMPORAL.iter().find(|whole| whole.split('=').next() == Some(flag))?;
    has(TEMPORAL_ARG.long).then(|| format!("it is Temporal's own: --{} {of_temporal}", TEMPORAL_ARG.long))
}

fn subcommand(command: &CommandSpec, word: &OsStr) -> Result<&'static CommandSpec> {
    if let Some(found) = command.subcommands().iter().find(|sub| word == sub.word()) {
        return Ok(found);
    }
    let typed = word.to_string_lossy();
    // `stigmer start` is what people type when they forget `local`.
    let below = command.subcommands().iter().flat_map(leaves).find(|leaf| word == leaf.word());
    let elsewhere = OTHER_COMMANDS.iter().find(|(other, _)| word == *other);
    let hint = match (below, elsewhere) {
        (Some(leaf), _) => format!("did you mean '{}'?", leaf.path),
        (None, Some((_, hint))) => (*hint).into(),
        (None, None) => nearest(&typed, &words(command.subcommands()), &format!("{} ", command.path))
            .unwrap_or_else(|| format!("{} --help", command.path)),
    };
    Err(command.usage_error(format!("unknown command '{typed}'")).hint(hint))
}

fn words(commands: &[&CommandSpec]) -> Vec<&'static str> {
    commands.iter().map(|command| command.word()).collect()
}

fn missing(command: &CommandSpec, what: &str, choices: &[&str]) -> Error {
    let choices = if choices.is_empty() { String::new() } else { format!(": {}", choices.join(", ")) };
    command.usage_error(format!("'{}' needs a {what}{choices}", command.path))
}

fn unknown_option(command: &CommandSpec, argument: &Arg<'_>) -> Error {
    let (flag, hint) = match argument {
        Arg::Long(name) => {
            let longs: Vec<_> = command.options().map(|option| option.long).chain(["help"]).collect();
            (format!("--{name}"), nearest(name, &longs, "--"))
        }
        Arg::Short(letter) => (format!("-{letter}"), None),
        Arg::Value(word) => (word.display().to_string(), None),
    };
    let hint = called_here(command, &flag).or(hint).unwrap_or_else(|| format!("{} --help", command.path));
    command.usage_error(format!("unknown option '{flag}'")).hint(hint)
}

/// A hint at the candidate that was probably meant; None when none is near.
fn nearest(typed: &str, candidates: &[&str], prefix: &str) -> Option<String> {
    // What begins with the typed letters is meant before what merely resembles them.
    let rank = |candidate: &&&str| (!candidate.starts_with(typed), distance(typed, candidate));
    let candidate = candidates.iter().min_by_key(rank)?;
    let is_near = candidate.starts_with(typed) || distance(typed, candidate) <= 1 + candidate.len() / 4;
    is_near.then(|| format!("did you mean '{prefix}{candidate}'?"))
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
    use crate::commands::{TOP, leaves};

    fn parse_words(line: &str) -> Result<Request> {
        parse(&TOP, line.split_ascii_whitespace().map(OsString::from))
    }

    fn typed(line: &str) -> Typed {
        match parse_words(line) {
            Ok(Request::Run(_, typed)) => typed,
            Ok(Request::Print(text)) => panic!("{line}: {text}"),
            Err(error) => panic!("{line}: {error}"),
        }
    }

    #[test]
    fn every_option_of_the_tables_is_parsed_and_in_the_help() {
        for command in leaves() {
            let screen = help(command);
            for option in command.options() {
                let argument = match option.value {
                    Some(_) => format!("--{}=5", option.long),
                    None => format!("--{}", option.long),
                };
                let operands = if let Operands::Program = command.operands { " -- true" } else { "" };
                let line = format!("{} {argument}{operands}", &command.path["stigmer ".len()..]);
                assert!(typed(&line).options.has(option), "{line}");
                assert!(screen.contains(&format!("--{}", option.long)), "{screen}");
                assert!(option.variable.is_none_or(|variable| screen.contains(variable)), "{screen}");
            }
        }
    }

    #[test]
    fn the_readmes_table_is_the_table_of_options() {
        let expected = |option: &&OptionSpec| {
            let flag = option.value.map_or(option.long.into(), |value| format!("{} {value}", option.long));
            let cell = |text: Option<&str>| text.map_or(String::new(), |text| format!("{text} "));
            let variable = option.variable.map(|variable| format!("'{variable}'"));
            let (variable, default) = (cell(variable.as_deref()), cell(option.default));
            format!("| '--{}' | {variable}| {default}| {} |", flag.replace('|', "\\|"), option.help)
        };
        let mut expected: Vec<_> = SERVER_OPTIONS.iter().chain(EXTERNAL_OPTIONS).map(expected).collect();
        let readme = include_str!("../README.md").replace('`', "'");
        let mut found: Vec<_> = readme.lines().filter(|line| line.starts_with("| '--")).collect();
        // Symptoms and their cure stand in a table of two columns.
        found.retain(|line| line.replace("\\|", "").matches('|').count() == 5);
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }

    #[test]
    fn values_come_attached_or_behind() {
        for line in ["local start --port 7234", "local start --port=7234", "local start --port 1 --port 7234"] {
            assert_eq!(typed(line).options.value(&PORT).unwrap(), "7234", "{line}");
        }
        for line in ["local logs -n5", "local logs -n 5", "local logs -n=5", "local logs --lines=5"] {
            let Options(options) = typed(line).options;
            assert!(
                matches!(options.as_slice(), [(option, value)] if option.long == "lines" && value == "5"),
                "{line}"
            );
        }
    }

    #[test]
    fn help_is_found_everywhere() {
        for (line, path) in [
            ("", "stigmer"),
            ("-h", "stigmer"),
            ("help", "stigmer"),
            ("help local start", "stigmer local start"),
            ("local --help", "stigmer local"),
            ("local help stop", "stigmer local stop"),
            ("local start --port 1 -h", "stigmer local start"),
            ("local run --help", "stigmer local run"),
            ("completions --help", "stigmer completions"),
        ] {
            match parse_words(line) {
                Ok(Request::Print(text)) => assert!(text.contains(&format!("\n\nUsage: {path}")), "{line}: {text}"),
                _ => panic!("{line}"),
            }
        }
    }

    #[test]
    fn everything_after_the_command_of_run_is_its_own() {
        for line in ["local run --port 1 -- pytest -x --port 2 -- y", "local run --port 1 pytest -x --port 2 -- y"] {
            let Typed { options, operands, .. } = typed(line);
            assert_eq!(options.value(&PORT).unwrap(), "1");
            assert_eq!(operands, ["pytest", "-x", "--port", "2", "--", "y"]);
        }
    }
}
