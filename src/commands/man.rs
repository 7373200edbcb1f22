//! `stigmer man`: the manual page, from the table that parses and prints help.
//!
//! It has what a help screen has no room for: all commands on one page, and
//! the tables of variables, files and exit codes below. The README shows the
//! same files; a test holds them equal.

use super::{LOCAL, TOP, print};
use crate::cli::{Action, CommandSpec, OptionSpec, Typed, sentence};
use crate::error::Result;

pub static COMMAND: CommandSpec = CommandSpec {
    path: "stigmer man",
    summary: "print the manual page",
    notes: "\
Examples:
  stigmer man | man -l -
  stigmer man > ~/.local/share/man/man1/stigmer.1
",
    action: Action::Run(man),
    ..CommandSpec::PLAIN
};

/// Variables that are no option's; those of options come from the table.
const ENVIRONMENT: [(&str, &str); 4] = [
    ("HTTPS_PROXY, HTTP_PROXY, ALL_PROXY, NO_PROXY", "the proxy to download through, and the hosts that need none"),
    ("SSL_CERT_FILE", "certificates to trust besides the built-in ones"),
    (
        "NOTIFY_SOCKET, WATCHDOG_USEC",
        "the service manager that 'start' tells what it is doing, and how often that wants to hear from it",
    ),
    ("NO_COLOR", "no colour, and no download line redrawn in place"),
];

/// Under `~/.stigmer`.
const FILES: [(&str, &str); 8] = [
    (
        "bin/temporal",
        "the Temporal CLI, only ever replaced whole and verified; one that you put there yourself is used as it is",
    ),
    ("bin/temporal.receipt", "version, size, SHA-256 and source of what was installed"),
    (
        "data/temporal.db, -wal, -shm",
        "the database (SQLite, made by Temporal) and its write-ahead log, which belong together",
    ),
    ("data/temporal.db.temporal", "which Temporal the database is of"),
    (
        "data/temporal.db.VERSION",
        "what the database was before it was migrated away from that Temporal; the last one is kept",
    ),
    ("logs/temporal.log", "Temporal's output; rotated past 10 MiB, at start and while it runs; three old ones kept"),
    ("logs/daemon.log", "stigmer's own lines when detached"),
    ("run/", "locks, the state of the daemon, and an empty configuration file for clients"),
];

const EXIT_STATUS: [(&str, &str); 5] = [
    ("0", "success"),
    ("1", "failure; of 'status': running, but not ready"),
    ("2", "usage: the command line or a variable is wrong"),
    ("3", "of 'status': not running"),
    (
        "other",
        "of 'run': the command's own; 127 where it is not found, 126 where it is not executable, 128+N where signal N \
         ended it",
    ),
];

const DESCRIPTION: &str = "\
stigmer installs the Temporal CLI, verified, and keeps 'temporal server start-dev' running until you stop it. \
After the first download it works offline. Clients find Temporal at 127.0.0.1:7233, people its Web UI at \
http://localhost:8233.";

fn man(_: &Typed) -> Result<u8> {
    print(&page())
}

/// The whole page, in the macros of man(7).
fn page() -> String {
    let mut page = Page(String::new());
    page.line(&format!(".TH STIGMER 1 \"\" \"stigmer {}\" \"User Commands\"", env!("CARGO_PKG_VERSION")));
    page.line(".nh\n.ad l");
    page.section("NAME");
    page.text(&format!("stigmer - {}", TOP.summary.to_lowercase().replace("temporal", "Temporal")));
    page.section("SYNOPSIS");
    let usages: Vec<_> = commands().map(CommandSpec::usage_line).collect();
    page.verbatim(&usages);
    page.section("DESCRIPTION");
    page.text(DESCRIPTION);
    page.section("COMMANDS");
    commands().for_each(|command| page.command(command));
    page.section("OPTIONS");
    page.text("A flag wins over its environment variable, the variable over the default. An empty variable is unset.");
    shared_options().iter().for_each(|option| page.option(option));
    page.section("ENVIRONMENT");
    page.environment();
    page.section("FILES");
    FILES.iter().for_each(|(path, text)| page.item(&format!("~/.stigmer/{path}"), text));
    page.section("EXIT STATUS");
    EXIT_STATUS.iter().for_each(|(code, text)| page.item(code, text));
    page.section("EXAMPLES");
    let examples = [&TOP].into_iter().chain(commands()).flat_map(|command| blocks(command.notes));
    let lines: Vec<_> = examples.filter(|block| block.heading == Some("Examples")).flat_map(|b| b.lines).collect();
    page.verbatim(&lines);
    page.0
}

/// Every command that does something, those of `local` first.
fn commands() -> impl Iterator<Item = &'static CommandSpec> {
    let beside = TOP.subcommands().iter().filter(|command| command.subcommands().is_empty());
    LOCAL.subcommands().iter().chain(beside).copied()
}

/// The options that more than one command takes, to be described once.
fn shared_options() -> Vec<&'static OptionSpec> {
    let mut shared: Vec<&OptionSpec> = Vec::new();
    for option in commands().flat_map(CommandSpec::options) {
        if is_shared(option) && !shared.contains(&option) {
            shared.push(option);
        }
    }
    shared
}

fn is_shared(option: &OptionSpec) -> bool {
    commands().filter(|command| command.options().any(|other| other == option)).count() > 1
}

/// A paragraph of a command's notes, or the lines below a heading.
struct Block {
    heading: Option<&'static str>,
    lines: Vec<&'static str>,
}

fn blocks(notes: &'static str) -> impl Iterator<Item = Block> {
    notes.split("\n\n").map(|block| {
        let (first, rest) = block.split_once('\n').unwrap_or((block, ""));
        match first.strip_suffix(':') {
            Some(heading) => Block { heading: Some(heading), lines: rest.lines().map(str::trim_start).collect() },
            None => Block { heading: None, lines: block.lines().collect() },
        }
    })
}

struct Page(String);

impl Page {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    fn section(&mut self, title: &str) {
        self.line(&format!(".SH {title}"));
    }

    /// Each sentence on a line of its own, as roff wants it.
    fn text(&mut self, text: &str) {
        let sentences: Vec<_> = text.split(". ").map(escape).collect();
        self.line(&sentences.join(".\n"));
    }

    fn verbatim(&mut self, lines: &[impl AsRef<str>]) {
        self.line(".nf");
        lines.iter().for_each(|line| self.line(&escape(line.as_ref())));
        self.line(".fi");
    }

    fn item(&mut self, term: &str, text: &str) {
        self.line(&format!(".TP\n.B {}", escape(term)));
        self.text(text);
    }

    fn command(&mut self, command: &'static CommandSpec) {
        self.line(&format!(".SS {}", escape(&command.usage_line())));
        self.text(&sentence(command.summary));
        for paragraph in blocks(command.notes).filter(|block| block.heading.is_none()) {
            self.text(&paragraph.lines.join(" "));
        }
        let (shared, own): (Vec<_>, Vec<_>) = command.options().partition(|option| is_shared(option));
        own.into_iter().for_each(|option| self.option(option));
        if !shared.is_empty() {
            self.line(".PP");
            self.text("Its other options are those of the section OPTIONS.");
        }
    }

    fn option(&mut self, option: &OptionSpec) {
        let short = option.short.map_or(String::new(), |short| format!("-{short}, "));
        let value = option.value.map_or(String::new(), |value| format!(" \\fI{}\\fR", escape(value)));
        self.line(&format!(".TP\n\\fB{}\\fR{value}", escape(&format!("{short}--{}", option.long))));
        self.text(option.help);
        let variable = option.variable.map(|variable| format!("environment: {variable}"));
        let default = option.default.map(|default| format!("default: {default}"));
        let origin: Vec<_> = variable.into_iter().chain(default).collect();
        if !origin.is_empty() {
            self.text(&format!("[{}]", origin.join(", ")));
        }
    }

    fn environment(&mut self) {
        let notes = blocks(TOP.notes).filter(|block| block.heading == Some("Environment"));
        for line in notes.flat_map(|block| block.lines) {
            let (name, text) = line.split_once(' ').unwrap_or((line, ""));
            self.item(name, text.trim_start());
        }
        for option in shared_options() {
            if let Some(variable) = option.variable {
                self.item(variable, &format!("as --{}: {}", option.long, option.help));
            }
        }
        ENVIRONMENT.iter().for_each(|(name, text)| self.item(name, text));
    }
}

/// Text as roff prints it: every character that could be copied to a shell
/// stays the one that it is.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for (index, character) in text.chars().enumerate() {
        match character {
            '\\' => escaped.push_str("\\e"),
            '-' => escaped.push_str("\\-"),
            '\'' => escaped.push_str("\\(aq"),
            '"' => escaped.push_str("\\(dq"),
            '`' => escaped.push_str("\\(ga"),
            '~' => escaped.push_str("\\(ti"),
            '^' => escaped.push_str("\\(ha"),
            // Only at the start of a line it is a request.
            '.' if index == 0 => escaped.push_str("\\&."),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_option_and_variable_is_on_the_page() {
        let page = page();
        for command in commands() {
            assert!(page.contains(&format!(".SS {}", escape(&command.usage_line()))), "{}", command.path);
            for option in command.options() {
                assert!(page.contains(&escape(&format!("--{}", option.long))), "{}", option.long);
                assert!(option.variable.is_none_or(|variable| page.contains(&format!(".B {variable}\n"))));
            }
        }
    }

    #[test]
    fn an_option_is_described_once() {
        let page = page();
        for option in shared_options() {
            let name = escape(&format!("--{}", option.long));
            let heads = page.lines().filter(|line| line.starts_with("\\fB") && line.contains(&format!("{name}\\fR")));
            assert_eq!(heads.count(), 1, "{}", option.long);
        }
    }

    #[test]
    fn the_examples_are_those_of_the_help() {
        let page = page();
        let examples = page.split(".SH EXAMPLES").nth(1).unwrap();
        for line in
            ["stigmer local run \\-\\-ephemeral \\-\\- pytest", "stigmer local logs \\-f", "stigmer man | man \\-l \\-"]
        {
            assert!(examples.contains(line), "{examples}");
        }
    }

    #[test]
    fn the_readme_lists_the_same_files() {
        let readme = include_str!("../../README.md").replace('`', "");
        let table = readme.split("\n## Files\n\n").nth(1).unwrap().split("\n\n").next().unwrap();
        let rows: Vec<_> = FILES.iter().map(|(path, text)| format!("| {path} | {text} |")).collect();
        assert_eq!(table.lines().skip(2).collect::<Vec<_>>(), rows);
    }

    #[test]
    fn no_text_becomes_a_request() {
        assert_eq!(escape(".so /etc/passwd"), "\\&.so /etc/passwd");
        assert_eq!(escape("'quoted' a-b \\n"), "\\(aqquoted\\(aq a\\-b \\en");
    }
}
