//! Completions as people install and use them: the lines of `stigmer
//! completions --help` in a fresh account, then one Tab after the other in the
//! real shells.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::support::process::binary;
use crate::support::*;

/// Where bash-completion is, if it is there.
const BASH_COMPLETION: &str = "/usr/share/bash-completion/bash_completion";

/// What is typed, and the arguments that it becomes. A directory is no end: what
/// follows is typed behind its slash. `zzcommand` is a program on PATH.
const TYPED: [(&str, &str); 19] = [
    ("stigmer comp\t", "completions"),
    ("stigmer loc\tresta\t", "local restart"),
    ("stigmer local start --det\t", "local start --detach"),
    ("stigmer local logs --fo\t", "local logs --follow"),
    ("stigmer completions zs\t", "completions zsh"),
    ("stigmer local temporal wor\t", "local temporal workflow"),
    ("stigmer local start --temporal-bin pla\t", "local start --temporal-bin plain-file"),
    ("stigmer local start --temporal-bin dir\tinn\t", "local start --temporal-bin directory/inner-file"),
    ("stigmer local start --temporal-bin=dir\tinn\t", "local start --temporal-bin=directory/inner-file"),
    ("stigmer local start --temporal-bin with\t", "local start --temporal-bin with space"),
    ("stigmer local run --ephem\t-- zzc\t", "local run --ephemeral -- zzcommand"),
    ("stigmer local run --port 1 zzc\t", "local run --port 1 zzcommand"),
    ("stigmer local run --temporal-bin=plain-file -- zzc\t", "local run --temporal-bin=plain-file -- zzcommand"),
    ("stigmer local run -- ./dir\tscr\t", "local run -- ./directory/script"),
    ("stigmer local run -- zzc\tdir\tinn\t", "local run -- zzcommand directory/inner-file"),
    // None of the program's options is ours.
    ("stigmer local run -- zzcommand --eph\t", "local run -- zzcommand --eph"),
    // No file is a port, or belongs to these commands.
    ("stigmer local start --port pla\t", "local start --port pla"),
    ("stigmer local status pla\t", "local status pla"),
    ("stigmer local run --port pla\t", "local run --port pla"),
];

/// What the command of `run` completes itself.
const OF_PROGRAM: [(&str, &str); 3] = [
    ("stigmer local run -- zzcommand --ze\t", "local run -- zzcommand --zebra"),
    ("stigmer local run --port 1 zzcommand --ze\t", "local run --port 1 zzcommand --zebra"),
    ("stigmer local run -- zzcommand plain-file --ze\t", "local run -- zzcommand plain-file --zebra"),
];

/// A fresh account, with stigmer and `zzcommand` on its PATH.
struct Account {
    home: Home,
}

impl Account {
    fn new() -> Account {
        let home = Home::new().with_stand_in();
        let account = Account { home };
        for directory in ["directory", "programs"] {
            fs::create_dir_all(account.home.root().join(directory)).unwrap();
        }
        for file in ["plain-file", "with space", "directory/inner-file", "directory/script", "programs/zzcommand"] {
            let path = account.home.root().join(file);
            fs::write(&path, "#!/bin/sh\n").unwrap();
            let mode = if file.contains('/') && !file.contains("inner") { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink(binary(), account.home.root().join("programs/stigmer")).unwrap();
        // Or fish would read all manual pages, for half a minute.
        fs::create_dir_all(account.home.user().join(".local/share/fish/generated_completions")).unwrap();
        account
    }

    fn shell<'a>(&'a self, program: &str, arguments: &[&str]) -> Stigmer<'a> {
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".into());
        let programs = self.home.root().join("programs");
        Stigmer::of_program(&self.home, program.as_ref(), arguments)
            .env("PATH", format!("{}:{path}", programs.display()))
            .env_remove("STIGMER_HOME")
    }

    /// Types the lines of the help that install the completions of `shell`.
    fn install(&self, shell: &str) {
        let help = self.home.stigmer(["completions", "--help"]).run();
        let lines: Vec<_> = help.stdout.lines().filter(|line| line.starts_with("  ") && line.contains(shell)).collect();
        assert!(lines.iter().any(|line| line.contains(&format!("stigmer completions {shell}"))), "{}", help.stdout);
        self.shell("sh", &["-ec", &lines.join("\n")]).run().success();
    }

    /// What `stigmer completions` prints, where a package puts it.
    fn place(&self, shell: &str, path: &str) -> PathBuf {
        let path = self.home.user().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, self.home.stigmer(["completions", shell]).run().success().stdout.as_bytes()).unwrap();
        path
    }

    fn add_to(&self, file: &str, line: &str) {
        let path = self.home.user().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, format!("{before}{line}\n")).unwrap();
    }

    /// An interactive shell that has read its files, in which `stigmer` shows
    /// what it was called with, and `set_up` was typed.
    fn terminal(&self, shell: &str, set_up: &str) -> Pty {
        let mut terminal = Pty::spawn(self.shell(shell, &["-i"]), 200, 50);
        let show = match shell {
            "fish" => "function stigmer; echo \"typed:$argv:\"; end",
            _ => "stigmer() { echo \"typed:$*:\"; }",
        };
        for line in [show, set_up, "echo set-\"up\""] {
            terminal.type_keys(format!("{line}\n").as_bytes());
        }
        terminal.wait_for("set-up");
        terminal
    }

    /// Types every row in a new shell.
    fn expect(&self, shell: &str, set_up: &str, rows: &[(&str, &str)]) {
        let mut terminal = self.terminal(shell, set_up);
        for (typed, completed) in rows {
            terminal.type_keys(typed.as_bytes());
            terminal.type_keys(b"\n");
            terminal.wait_for(&format!("typed:{completed}:"));
        }
        terminal.type_keys(b"exit\n");
        terminal.wait();
    }
}

fn all() -> Vec<(&'static str, &'static str)> {
    TYPED.into_iter().chain(OF_PROGRAM).collect()
}

#[test]
fn bash_completes_in_a_fresh_account() {
    if !has("bash", &["--version"]) {
        return skip("bash is missing");
    }
    let account = Account::new();
    account.install("bash");
    // Without bash-completion the options of another command are not known.
    account.expect("bash", "", &TYPED);
}

#[test]
fn bash_completes_with_bash_completion() {
    if !Path::new(BASH_COMPLETION).exists() {
        return skip("bash-completion is missing");
    }
    let set_up = "_zz() { COMPREPLY=($(compgen -W --zebra -- \"$2\")); }; complete -o default -F _zz zzcommand";
    let account = Account::new();
    account.add_to(".bashrc", &format!("source {BASH_COMPLETION}"));
    account.install("bash");
    account.expect("bash", set_up, &all());
    // As a package installs it: read at the first Tab.
    let packaged = Account::new();
    packaged.place("bash", ".local/share/bash-completion/completions/stigmer");
    packaged.add_to(".bashrc", &format!("source {BASH_COMPLETION}"));
    packaged.expect("bash", set_up, &all());
}

#[test]
fn zsh_completes_in_a_fresh_account() {
    if !has("zsh", &["--version"]) {
        return skip("zsh is missing");
    }
    let set_up = "_zz() { _arguments '--zebra[stripes]' '*:file:_files' }; compdef _zz zzcommand";
    let account = Account::new();
    account.install("zsh");
    account.expect("zsh", set_up, &all());
    let packaged = Account::new();
    let script = packaged.place("zsh", "functions/_stigmer");
    let checked = packaged.shell("zsh", &["-n", script.to_str().unwrap()]).run();
    assert_eq!(checked.success().stderr, "");
    packaged.add_to(".zshrc", "fpath=(~/functions $fpath); autoload -Uz compinit; compinit -u");
    packaged.expect("zsh", set_up, &all());
}

#[test]
fn zsh_shows_what_commands_and_options_do() {
    if !has("zsh", &["--version"]) {
        return skip("zsh is missing");
    }
    let account = Account::new();
    account.install("zsh");
    let mut terminal = account.terminal("zsh", "");
    terminal.type_keys(b"stigmer local \t");
    terminal.wait_for("show the end of Temporal's log");
    terminal.type_keys(b"\x15stigmer local start --temp\t\t");
    terminal.wait_for("pass ARG to 'temporal server start-dev' (repeatable)");
}

#[test]
fn fish_completes_in_a_fresh_account() {
    if !has("fish", &["--version"]) {
        return skip("fish is missing");
    }
    let account = Account::new();
    account.install("fish");
    account.expect("fish", "complete -c zzcommand -l zebra", &all());
}

/// What is typed, and what must (`+`) or must not (`-`) be offered.
const OFFERED: [(&str, &str); 10] = [
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
];

#[track_caller]
fn assert_offered(typed: &str, expected: &str, offered: &[&str]) {
    for word in expected.split_ascii_whitespace() {
        let (sign, word) = word.split_at(1);
        assert_eq!(sign == "+", offered.contains(&word), "'{typed}' offers {offered:?}, expected {expected}");
    }
}

#[test]
fn bash_offers_what_fits_and_nothing_else() {
    if !has("bash", &["--version"]) {
        return skip("bash is missing");
    }
    let account = Account::new();
    let script = account.place("bash", "script").display().to_string();
    for (typed, expected) in OFFERED {
        let mut words: Vec<String> = typed.split_ascii_whitespace().map(|word| format!("'{word}'")).collect();
        if typed.ends_with(' ') {
            words.push("''".into());
        }
        let program = format!(
            "source {script}; COMP_WORDS=({}); COMP_CWORD={}; _stigmer; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.join(" "),
            words.len() - 1
        );
        let outcome = account.shell("bash", &["--norc", "--noprofile", "-c", &program]).run();
        assert_eq!(outcome.success().stderr, "");
        assert_offered(typed, expected, &outcome.stdout.split_ascii_whitespace().collect::<Vec<_>>());
    }
}

#[test]
fn fish_offers_what_fits_and_nothing_else() {
    if !has("fish", &["--version"]) {
        return skip("fish is missing");
    }
    let account = Account::new();
    let script = account.place("fish", "script").display().to_string();
    let rest = [
        ("stigmer local run -- zzc", "+zzcommand -plain-file"),
        ("stigmer local run -- zzcommand -", "---port ---ephemeral ---help"),
        ("stigmer local run zzcommand --", "---port ---ephemeral ---help"),
    ];
    for (typed, expected) in OFFERED.into_iter().chain(rest) {
        let program = format!("source {script}; complete -C '{typed}'");
        let outcome = account.shell("fish", &["--no-config", "-c", &program]).run();
        assert_eq!(outcome.success().stderr, "");
        let offered: Vec<_> = outcome.stdout.lines().map(|line| line.split('\t').next().unwrap()).collect();
        assert_offered(typed, expected, &offered);
    }
}
