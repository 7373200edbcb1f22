//! The words of the program that are not errors: help, near misses, colour.

use crate::support::process::binary;
use crate::support::*;

const COMMANDS: [&str; 12] = [
    "",
    "local",
    "local start",
    "local run",
    "local stop",
    "local restart",
    "local status",
    "local logs",
    "local temporal",
    "local env",
    "completions",
    "man",
];

fn words(line: &str) -> Vec<&str> {
    line.split_ascii_whitespace().collect()
}

#[test]
fn help_comes_on_stdout_for_every_command_and_fits_a_screen() {
    let home = Home::new();
    for command in COMMANDS {
        let mut screens = Vec::new();
        for flag in ["--help", "-h"] {
            screens.push(home.stigmer(words(command)).args([flag]).run());
        }
        screens.push(home.stigmer(["help"]).args(words(command)).run());
        for outcome in &screens {
            outcome.success().stdout_has(format!("\n\nUsage: stigmer {command}").trim_end());
            assert_eq!(outcome.stderr, "");
            assert_eq!(outcome.stdout, screens[0].stdout);
        }
        let screen = &screens[0].stdout;
        assert!(screen.lines().count() <= 62, "{} lines\n{screen}", screen.lines().count());
        let widest = screen.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= 90, "{widest} columns\n{screen}");
    }
    assert_eq!(home.stigmer::<&str>([]).run().stdout, home.stigmer(["--help"]).run().stdout);
    assert!(!home.path().exists());
}

#[test]
fn the_version_comes_on_stdout() {
    let home = Home::new();
    for flag in ["--version", "-V"] {
        let outcome = home.stigmer([flag]).run();
        outcome.success();
        assert_eq!(outcome.stdout, concat!("stigmer ", env!("CARGO_PKG_VERSION"), "\n"));
    }
}

#[test]
fn help_needs_no_home_and_a_reader_that_leaves_is_not_a_failure() {
    let home = Home::new();
    let script = "\"$stigmer\" --help | head -n 1; \"$stigmer\" completions bash | head -n 1";
    let shell = Stigmer::of_program(&home, "sh".as_ref(), ["-c", script]).env("stigmer", binary());
    let outcome = shell.env_remove("HOME").env_remove("STIGMER_HOME").run();
    outcome.success();
    assert_eq!((outcome.stdout.lines().count(), outcome.stderr.as_str()), (2, ""));
}

#[test]
fn near_misses_are_suggested_on_stderr() {
    let home = Home::new();
    for (line, hint) in [
        ("strat", "help"),
        ("start", "stigmer local start"),
        ("locl start", "stigmer local"),
        ("local strt", "stigmer local start"),
        ("local statsu", "stigmer local status"),
        ("local lgos", "stigmer local logs"),
        ("local frobnicate", "stigmer local --help"),
        ("local start --prot 1", "--port"),
        ("local start --dettach", "--detach"),
        ("local start --temporal-vers 1", "--temporal-version"),
        ("local start --frobnicate", "stigmer local start --help"),
        ("local status --jsno", "--json"),
        ("local logs --folow", "--follow"),
        ("completions fihs", "fish"),
        // What other tools call it.
        ("up", "stigmer local start"),
        ("local up", "stigmer local start"),
        ("local down", "stigmer local stop"),
        ("local ui", "'stigmer local status' shows the address"),
        ("local start -p 7234", "--port"),
        ("local start -p7234", "--port"),
        ("local start --background", "--detach"),
        ("local start --daemon", "--detach"),
        ("local logs --tail 3", "--lines"),
        ("local start --host 0.0.0.0", "--ip is the address to bind to, --temporal-host"),
        ("local start --db-filename=x.db", "--temporal-arg --db-filename=FILE"),
        ("local run --headless -- true", "--temporal-arg --headless"),
        ("local start --log-level debug", "--temporal-arg --log-level=LEVEL"),
        // But not where it means nothing.
        ("local logs -p 7234", "stigmer local logs --help"),
        ("local stop --headless", "stigmer local stop --help"),
    ] {
        let outcome = home.stigmer(words(line)).run();
        outcome.exits_with(2);
        assert_eq!(outcome.stdout, "");
        assert!(outcome.hint().unwrap_or_default().contains(hint), "{line}\n{}", outcome.describe());
        outcome.stderr_has("\nusage: stigmer");
    }
}

#[test]
fn colour_glyphs_and_redrawing_follow_terminal_and_environment() {
    let start = |variables: &[(&str, &str)]| {
        let home = Home::new().with_stand_in();
        let mut stigmer = home.stigmer(["local", "start"]).env("TERM", "xterm-256color");
        for (name, value) in variables {
            stigmer = stigmer.env(name, value);
        }
        let mut terminal = Pty::spawn_command(stigmer.into_command(), 80, 24);
        terminal.wait_for("Ready.");
        terminal.signal(libc::SIGTERM);
        assert!(terminal.wait().success());
        terminal.wait_for("Temporal stopped.");
        terminal.screen()
    };
    let plain = start(&[]);
    assert!(plain.contains("\x1b[32m[✓]\x1b[0m Stigmer Daemon Ready."), "{plain}");
    for variable in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let screen = start(&[variable]);
        assert!(!screen.contains('\x1b') && screen.contains("[✓] Stigmer Daemon Ready."), "{variable:?}: {screen}");
    }
    let ascii = start(&[("LC_ALL", "C"), ("NO_COLOR", "1")]);
    assert!(ascii.is_ascii() && ascii.contains("[+] Stigmer Daemon Ready."), "{ascii}");
}

#[test]
fn the_manual_page_is_clean_roff_and_shows_what_was_meant() {
    let home = Home::new();
    let page = home.stigmer(["man"]).run();
    page.success();
    assert_eq!(page.stderr, "");
    if !has("groff", &["--version"]) {
        return skip("groff is missing");
    }
    let render = ["-ww", "-man", "-Tutf8", "-P-cbou", "-rLL=100n"];
    let shown = Stigmer::of_program(&home, "groff".as_ref(), render).input(page.stdout.as_bytes()).run();
    shown.success();
    assert_eq!(shown.stderr, "");
    let sections = ["NAME", "SYNOPSIS", "COMMANDS", "ENVIRONMENT", "FILES", "EXIT STATUS", "EXAMPLES"];
    for section in sections {
        shown.stdout_has(&format!("\n{section}\n"));
    }
    // Characters that roff would replace by others come out as they are typed.
    for line in [
        "  stigmer local start --temporal-arg --log-level --temporal-arg debug\n",
        "  echo 'eval \"$(stigmer completions zsh)\"' >> ~/.zshrc\n",
        "  ~/.stigmer/bin/temporal.receipt\n",
        "  pass ARG to 'temporal server start-dev' (repeatable)\n",
    ] {
        shown.stdout_has(line);
    }
}
