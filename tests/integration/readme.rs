//! Every command of the README is run, as it stands there: by a test here, or
//! by CI. One that is in no table fails by name.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::support::archive::{VERSION, asset_name, checksums, small_release};
use crate::support::*;

/// `make` targets, and the script of CI that runs each, by which words;
/// `make ci` is CI itself.
const RUN_BY_CI: [(&str, &str, &str); 9] = [
    ("run", ".ci/first-run", "make run"),
    ("install", ".ci/first-run", "make -s install"),
    ("help", ".ci/first-run", "make -s help"),
    ("test", ".ci/run", "make test"),
    ("static", ".ci/reproducible", "make -s dist"),
    ("dist", ".ci/reproducible", "make -s dist"),
    ("bench", ".ci/run", "tests/bench/bench.py"),
    ("pin", ".ci/pin", "make -s pin"),
    ("ci", "Makefile", ".ci/run"),
];

/// Commands that the tests below run, in the README's order.
const RUN_HERE: [&str; 12] = [
    "stigmer local start",
    "stigmer local start --detach",
    "stigmer local status",
    "stigmer local logs -f",
    "stigmer local restart",
    "stigmer local stop",
    "stigmer local run -- python worker_test.py",
    "stigmer local run -- pytest",
    "stigmer local start --temporal-host temporal.example.com:7233",
    "stigmer local start --mirror /media/usb/temporal",
    "stigmer local stop",
    "rm -r ~/.stigmer",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).unwrap()
}

/// The lines of every block of shell commands, and the steps of the CI
/// example, without their comments.
fn commands() -> Vec<String> {
    let text = readme();
    let mut commands = Vec::new();
    for block in text.split("\n```").skip(1).step_by(2) {
        let (language, lines) = block.split_once('\n').unwrap();
        let of_line = |line: &str| match language {
            "sh" => Some(line.to_owned()),
            "yaml" => line.trim().strip_prefix("- run: ").map(str::to_owned),
            other => panic!("what is a block of '{other}'?"),
        };
        let bare = |line: String| line.split(" #").next().unwrap().trim().to_owned();
        commands.extend(lines.lines().filter_map(of_line).map(bare).filter(|line| !line.is_empty()));
    }
    commands
}

/// The words in backticks in running text and tables.
fn quoted() -> Vec<String> {
    let text = readme();
    let outside: String = text.split("\n```").step_by(2).collect();
    outside.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn every_command_of_the_readme_is_run_here_or_by_ci() {
    let commands = commands();
    let (make, rest): (Vec<&String>, Vec<&String>) = commands.iter().partition(|command| command.starts_with("make "));
    assert_eq!(rest, RUN_HERE, "the README's commands are not those that are run here");
    for line in RUN_HERE {
        let here = include_str!("readme.rs").matches(&format!("\"{line}\"")).count();
        let listed = RUN_HERE.iter().filter(|other| **other == line).count();
        assert!(here > listed, "'{line}' is in the list, but no test types it");
    }
    let file = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let (makefile, ci) = (file("Makefile"), file(".ci/run"));
    let inline = quoted();
    for command in make.into_iter().chain(inline.iter().filter(|words| words.starts_with("make "))) {
        let target = command.split_whitespace().nth(1).unwrap();
        assert!(makefile.contains(&format!("\n{target}:")), "the Makefile has no {target}");
        let (_, script, words) = RUN_BY_CI
            .iter()
            .find(|(name, ..)| *name == target)
            .unwrap_or_else(|| panic!("'{command}' of the README is run by nobody"));
        let runs_it = file(script).lines().any(|line| {
            let (comment, rest) = (line.trim().starts_with('#'), line.split_once(words).map(|(_, rest)| rest));
            !comment && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', ';']))
        });
        assert!(runs_it, "{script} does not run '{words}'");
        let is_step = |line: &str| line.starts_with("step ") && line.contains(script);
        assert!([".ci/run", "Makefile"].contains(script) || ci.lines().any(is_step), "{script} is no step of CI");
    }
}

#[test]
fn every_command_in_the_readmes_running_text_exists() {
    let mut count = 0;
    for words in quoted().iter().filter(|words| words.starts_with("stigmer ")) {
        let desk = Desk::new(Home::new());
        // `bash|zsh|fish` stands for any of them.
        let line = words.split_whitespace().map(|word| word.split('|').next().unwrap()).collect::<Vec<_>>().join(" ");
        let outcome = desk.shell(&format!("{line} --help")).run();
        outcome.success().stdout_has("Usage: ");
        count += 1;
    }
    assert!(count >= 3, "{count} commands in the running text");
}

/// A home whose PATH leads to stigmer, and to a `python` and a `pytest` that
/// tell what they were given.
struct Desk {
    home: Home,
}

impl Desk {
    fn new(home: Home) -> Desk {
        let programs = home.root().join("programs");
        fs::create_dir_all(&programs).unwrap();
        symlink(process::binary(), programs.join("stigmer")).unwrap();
        for name in ["python", "pytest"] {
            fs::write(programs.join(name), "#!/bin/sh\necho \"${0##*/} $*: $TEMPORAL_ADDRESS\"\n").unwrap();
            fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Desk { home }
    }

    /// A line of the README as it stands there, but for its placeholder.
    fn typed(&self, line: &str, placeholder: &str, value: &str) -> Stigmer<'_> {
        assert!(RUN_HERE.contains(&line), "{line}");
        match placeholder {
            "" => self.shell(line),
            placeholder => self.shell(&line.replace(placeholder, value)),
        }
    }

    fn shell(&self, line: &str) -> Stigmer<'_> {
        let path = format!("{}:{}", self.home.root().join("programs").display(), std::env::var("PATH").unwrap());
        Stigmer::of_program(&self.home, "sh".as_ref(), ["-c".to_owned(), format!("exec {line}")]).env("PATH", path)
    }

    fn run(&self, line: &str) -> process::Outcome<'_> {
        self.typed(line, "", "").run()
    }

    /// Types a command that stays in the foreground, and ends it by Ctrl-C
    /// when it has said `said`.
    fn run_until(&self, stigmer: Stigmer<'_>, said: &str) {
        let mut running = stigmer.spawn();
        running.wait_for_stdout(said);
        running.signal(libc::SIGINT);
        running.wait().success();
    }
}

#[test]
fn everyday_use_is_as_the_readme_says() {
    let desk = Desk::new(Home::new().with_stand_in());
    desk.home.behave("say good morning");
    desk.run_until(desk.typed("stigmer local start", "", ""), "[✓] Stigmer Daemon Ready.");
    desk.run("stigmer local start --detach").success().stdout_has("[✓] Stigmer Daemon Ready.");
    desk.run("stigmer local status").success().stdout_has("running and ready");
    let mut logs = desk.typed("stigmer local logs -f", "", "").spawn();
    logs.wait_for_stdout("good morning");
    desk.run("stigmer local restart").success();
    assert_eq!((desk.home.starts().len(), desk.home.stops().len()), (3, 2));
    logs.signal(libc::SIGINT);
    assert_eq!(logs.wait().code(), 128 + libc::SIGINT);
    desk.run("stigmer local stop").success();
    desk.home.assert_quiet();
    desk.run("stigmer local status").exits_with(3);
}

#[test]
fn a_command_gets_its_temporal_as_the_readme_says() {
    let desk = Desk::new(Home::new().with_stand_in());
    let address = format!("127.0.0.1:{}", desk.home.port());
    let outcome = desk.run("stigmer local run -- python worker_test.py");
    outcome.success().stdout_has(&format!("python worker_test.py: {address}"));
    desk.run("stigmer local run -- pytest").success().stdout_has(&format!("pytest : {address}"));
    desk.home.assert_quiet();
}

#[test]
fn a_temporal_of_ones_own_is_used_as_the_readme_says() {
    let elsewhere = Home::new().with_stand_in();
    elsewhere.stigmer(["local", "start", "--detach"]).run().success();
    let desk = Desk::new(Home::new());
    let line = "stigmer local start --temporal-host temporal.example.com:7233";
    let address = format!("127.0.0.1:{}", elsewhere.port());
    desk.run_until(desk.typed(line, "temporal.example.com:7233", &address), "[✓] Stigmer Daemon Ready.");
    assert_eq!(desk.home.starts(), []);
    elsewhere.stigmer(["local", "stop"]).run().success();
}

#[test]
fn without_a_network_it_installs_and_goes_again_as_the_readme_says() {
    let desk = Desk::new(Home::new());
    let mirror = desk.home.root().join("usb");
    fs::create_dir_all(mirror.join("v9.9.9")).unwrap();
    fs::write(mirror.join("v9.9.9").join(asset_name(VERSION)), small_release()).unwrap();
    fs::write(mirror.join("v9.9.9/checksums.txt"), checksums(VERSION, small_release())).unwrap();
    let line = "stigmer local start --mirror /media/usb/temporal";
    let start = desk.typed(line, "/media/usb/temporal", mirror.to_str().unwrap());
    desk.run_until(start.env("STIGMER_TEMPORAL_VERSION", VERSION), "[✓] Stigmer Daemon Ready.");
    desk.run("stigmer local start --detach").success();
    every_path_of_the_table_of_files_exists(&desk.home);
    desk.run("stigmer local stop").success();
    desk.run("rm -r ~/.stigmer").success();
    assert!(!desk.home.path().exists());
    desk.home.assert_quiet();
}

fn every_path_of_the_table_of_files_exists(home: &Home) {
    let text = readme();
    let table = text.split("\n## Files\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let paths: Vec<_> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(paths.len(), 6, "{paths:?}");
    for path in paths {
        assert!(home.path().join(path).exists(), "{path} of the README's table does not exist\n{}", home.describe());
    }
}

#[test]
fn readme_and_picture_name_the_pinned_release() {
    let version = pinned::VERSION;
    for words in [
        format!("key: stigmer-temporal-{version} }}"),
        format!("holds v{version}/temporal_cli_{version}_linux_amd64.tar.gz"),
    ] {
        assert!(readme().contains(&words), "README.md lacks '{words}': make pin TEMPORAL={version}");
    }
    let picture = fs::read_to_string(root().join(".assets/first-run.svg")).unwrap();
    assert!(picture.contains(&format!("Downloading Temporal CLI v{version} (")), "make picture");
}

#[test]
fn every_symptom_of_the_readme_is_an_error_of_the_program() {
    let text = readme();
    let table = text.split("\n## Troubleshooting\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let first_column = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let symptoms: Vec<_> = first_column.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(symptoms.len() >= 8, "{symptoms:?}");
    let program = sources(&root().join("src"));
    for symptom in symptoms {
        // A number stands for what the program fills in.
        for piece in symptom.split("...").flat_map(|piece| piece.split(char::is_numeric)) {
            let piece = piece.trim();
            assert!(program.contains(piece), "no error of the program says '{piece}' ('{symptom}')");
        }
    }
}

fn sources(directory: &Path) -> String {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let code = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap().lines();
        code.filter(|line| !line.trim().starts_with("//")).collect::<Vec<_>>().join("\n")
    };
    entries.map(|path| if path.is_dir() { sources(&path) } else { code(&path) }).collect()
}
