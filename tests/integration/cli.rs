//! The words of the program that are not errors: help, completions, colour.

use std::fs;
use std::path::Path;

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
        "  stigmer completions zsh > \"${fpath[1]}/_stigmer\"\n",
        "  ~/.stigmer/bin/temporal.receipt\n",
        "  pass ARG to 'temporal server start-dev' (repeatable)\n",
    ] {
        shown.stdout_has(line);
    }
}

/// The completion script for `shell`, as a file in the home.
fn completions(home: &Home, shell: &str) -> String {
    let outcome = home.stigmer(["completions", shell]).run();
    outcome.success();
    assert_eq!(outcome.stderr, "");
    let directory = home.root().join("completions");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("_stigmer");
    fs::write(&path, &outcome.stdout).unwrap();
    fs::write(home.root().join("plain-file"), "").unwrap();
    path.display().to_string()
}

/// What is typed, and what must (`+`) or must not (`-`) be offered.
const COMPLETED: [(&str, &str); 11] = [
    ("stigmer ", "+local +completions +man -start"),
    ("stigmer loc", "+local -completions"),
    ("stigmer local ", "+start +run +stop +restart +status +logs +temporal +env -completions"),
    ("stigmer local st", "+start +stop +status -logs"),
    ("stigmer local start --", "+--detach +--port +--temporal-host +--offline +--help ---json"),
    ("stigmer local run --t", "+--temporal-host +--temporal-bin ---port -start"),
    ("stigmer local logs --", "+--follow +--lines ---port"),
    // These are the Temporal CLI's own.
    ("stigmer local temporal ", "+workflow +operator -start -:4"),
    ("stigmer local temporal wo", "+workflow -operator"),
    ("stigmer completions ", "+bash +zsh +fish -start"),
    ("stigmer local start --temporal-bin plain", "+plain-file -start"),
];

#[track_caller]
fn assert_offered(typed: &str, expected: &str, offered: &[&str]) {
    for word in words(expected) {
        let (sign, word) = word.split_at(1);
        assert_eq!(sign == "+", offered.contains(&word), "'{typed}' offers {offered:?}, expected {expected}");
    }
}

#[test]
fn bash_completes_commands_options_and_files() {
    if !has("bash", &["--version"]) {
        return skip("bash is missing");
    }
    let home = Home::new().with_stand_in();
    let script = completions(&home, "bash");
    for (typed, expected) in COMPLETED {
        let mut typed_words: Vec<String> = words(typed).iter().map(|word| format!("'{word}'")).collect();
        if typed.ends_with(' ') {
            typed_words.push("''".into());
        }
        let program = format!(
            "source {script}; COMP_WORDS=({}); COMP_CWORD={}; _stigmer; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            typed_words.join(" "),
            typed_words.len() - 1
        );
        let outcome = Stigmer::of_program(&home, "bash".as_ref(), ["--norc", "--noprofile", "-c", &program]).run();
        outcome.success();
        assert_eq!(outcome.stderr, "");
        assert_offered(typed, expected, &words(&outcome.stdout));
    }
}

#[test]
fn fish_completes_commands_options_and_files() {
    if !has("fish", &["--version"]) {
        return skip("fish is missing");
    }
    let home = Home::new().with_stand_in();
    let script = completions(&home, "fish");
    for (typed, expected) in COMPLETED {
        let program = format!("source {script}; complete -C '{typed}'");
        let outcome = Stigmer::of_program(&home, "fish".as_ref(), ["--no-config", "-c", &program]).run();
        outcome.success();
        let offered: Vec<_> = outcome.stdout.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert_offered(typed, expected, &offered);
    }
}

#[test]
fn zsh_completes_commands_options_and_files() {
    if !has("zsh", &["--version"]) {
        return skip("zsh is missing");
    }
    let home = Home::new().with_stand_in();
    let script = completions(&home, "zsh");
    let checked = Stigmer::of_program(&home, "zsh".as_ref(), ["-n", &script]).run();
    checked.success();
    assert_eq!(checked.stderr, "");
    let directory = Path::new(&script).parent().unwrap().display();
    for set_up in [
        format!("fpath=({directory} $fpath); autoload -Uz compinit; compinit -u -D"),
        format!("autoload -Uz compinit; compinit -u -D; source {script}"),
    ] {
        let shell = Stigmer::of_program(&home, "zsh".as_ref(), ["-f", "-i"]).env("PS1", "prompt> ");
        let mut terminal = Pty::spawn(shell, 200, 50);
        terminal.wait_for("prompt> ");
        terminal.type_keys(format!("{set_up}; stigmer() {{ echo \"typed:$*:\" }}; echo set-\"up\"\n").as_bytes());
        terminal.wait_for("set-up");
        for (typed, completed) in [
            ("stigmer comp\t", "completions"),
            ("stigmer loc\tresta\t", "local restart"),
            ("stigmer local start --det\t", "local start --detach"),
            ("stigmer local logs --fo\t", "local logs --follow"),
            ("stigmer completions zs\t", "completions zsh"),
            ("stigmer local temporal wor\t", "local temporal workflow"),
            ("stigmer local start --temporal-bin plain\t", "local start --temporal-bin plain-file"),
        ] {
            terminal.type_keys(typed.as_bytes());
            terminal.type_keys(b"\n");
            terminal.wait_for(&format!("typed:{completed}:"));
        }
        terminal.type_keys(b"exit\n");
        terminal.wait();
    }
}
