//! Every command of the README is typed here, as it stands there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::support::archive::{VERSION, asset_name, checksums, small_release};
use crate::support::*;

const READY: &str = "[✓] Stigmer Daemon Ready.";

/// How a command of the README is typed, and what must come of it.
type Row = (&'static str, fn(&Desk, &str));

/// In the README's order, and at one desk, they are a story.
const COMMANDS: [Row; 19] = [
    ("stigmer local start", |desk, line| desk.run_until(desk.shell(line), READY)),
    ("stigmer local start --detach", |desk, line| {
        desk.shell(line).run().success().stdout_has(READY);
    }),
    ("stigmer local status", |desk, line| {
        desk.shell(line).run().success().stdout_has("running and ready");
    }),
    ("stigmer local logs -f", |desk, line| {
        let mut logs = desk.shell(line).spawn();
        logs.wait_for_stdout("good morning");
        logs.signal(libc::SIGINT);
        logs.wait().exits_with(128 + libc::SIGINT);
    }),
    ("stigmer local restart", |desk, line| {
        let (starts, stops) = (desk.home.starts().len(), desk.home.stops().len());
        desk.shell(line).run().success();
        assert_eq!((desk.home.starts().len(), desk.home.stops().len()), (starts + 1, stops + 1));
    }),
    ("stigmer local stop", |desk, line| {
        desk.shell(line).run().success();
        desk.home.assert_quiet();
        desk.shell("stigmer local status").run().exits_with(3);
    }),
    ("stigmer local run -- python worker_test.py", |desk, line| {
        let printed = format!("python worker_test.py: 127.0.0.1:{}\n", desk.home.port());
        desk.shell(line).run().success().stdout_has(&printed);
        desk.home.assert_quiet();
    }),
    ("stigmer local temporal workflow list", |desk, line| {
        // The stand-in has no such command; that it was asked is seen.
        desk.shell(line).run().exits_with(1).stdout_has("unknown command, see 'temporal --help'");
    }),
    (r#"eval "$(stigmer local env)""#, use_the_environment_in_a_shell),
    ("stigmer local run --ephemeral -- pytest", |desk, line| run_beside(desk, line, "pytest : ")),
    ("stigmer local run --ephemeral -- npx vitest run", |desk, line| run_beside(desk, line, "npx vitest run: ")),
    ("stigmer local run --ephemeral -- go test ./...", |desk, line| run_beside(desk, line, "go test ./...: ")),
    ("stigmer local start --ip 0.0.0.0", |desk, line| {
        // Nobody else is to reach a test.
        desk.run_until(desk.shell(&replaced(line, "0.0.0.0", "127.0.0.1")), READY);
    }),
    ("stigmer local start --temporal-host temporal.example.com:7233", use_a_temporal_elsewhere),
    ("stigmer local start --namespace orders --search-attribute CustomerId=Keyword", |desk, line| {
        desk.run_until(desk.shell(line), READY);
    }),
    ("stigmer local run --namespace orders -- pytest", |desk, line| {
        desk.shell(line).run().success().stdout_has("pytest : ");
        assert_eq!(desk.home.namespace("orders").unwrap(), "604800s CustomerId=Keyword");
    }),
    ("stigmer local start --mirror /media/usb/temporal", install_from_a_directory),
    ("rm -r ~/.stigmer", |desk, line| {
        desk.shell(line).run().success();
        assert!(!desk.home.path().exists());
    }),
    ("rm -r ~/.cache/stigmer", |desk, line| {
        let cache = desk.home.user().join(".cache/stigmer");
        // What is at this desk was not downloaded.
        fs::create_dir_all(&cache).unwrap();
        desk.shell(line).run().success();
        assert!(!cache.exists());
    }),
];

/// Ways to install what CI makes, and the script of CI that goes each; nothing
/// here has a Homebrew.
const INSTALLED_BY_CI: [(&str, &str); 8] = [
    ("sh install.sh", ".ci/roots"),
    ("sudo dpkg -i stigmer_*_amd64.deb", ".ci/roots"),
    ("pip install stigmer-*_x86_64.whl", ".ci/roots"),
    ("npm install --offline ./stigmer-*.tgz", ".ci/roots"),
    ("brew install ./stigmer.rb", ""),
    ("cargo install --path .", ".ci/crate"),
    ("systemctl --user enable --now stigmer", ".ci/service"),
    ("sudo systemctl enable --now stigmer", ".ci/service"),
];

fn use_the_environment_in_a_shell(desk: &Desk, line: &str) {
    desk.shell("stigmer local start --detach").run().success();
    let script = format!("{line}; echo $TEMPORAL_ADDRESS");
    let address = format!("127.0.0.1:{}\n", desk.home.port());
    assert_eq!(desk.script(&script).run().success().stdout, address);
    desk.shell("stigmer local stop").run().success();
}

/// The program gets a Temporal, and not the home's own.
fn run_beside(desk: &Desk, line: &str, printed: &str) {
    let outcome = desk.shell(line).run();
    outcome.success().stdout_has(&format!("{printed}127.0.0.1:")).stdout_lacks(&desk.home.port().to_string());
    desk.home.assert_quiet();
}

fn use_a_temporal_elsewhere(desk: &Desk, line: &str) {
    let elsewhere = Home::new().with_stand_in();
    elsewhere.stigmer(["local", "start", "--detach"]).run().success();
    let starts = desk.home.starts().len();
    let address = format!("127.0.0.1:{}", elsewhere.port());
    desk.run_until(desk.shell(&replaced(line, "temporal.example.com:7233", &address)), READY);
    assert_eq!(desk.home.starts().len(), starts);
    elsewhere.stigmer(["local", "stop"]).run().success();
}

fn install_from_a_directory(_: &Desk, line: &str) {
    // One on which nothing is installed.
    let desk = Desk::new(Home::new());
    let mirror = desk.home.root().join("usb");
    fs::create_dir_all(mirror.join("v9.9.9")).unwrap();
    fs::write(mirror.join("v9.9.9").join(asset_name(VERSION)), small_release()).unwrap();
    fs::write(mirror.join("v9.9.9/checksums.txt"), checksums(VERSION, small_release())).unwrap();
    let start = desk.shell(&replaced(line, "/media/usb/temporal", mirror.to_str().unwrap()));
    desk.run_until(start.env("STIGMER_TEMPORAL_VERSION", VERSION), READY);
    // "Name it once": from now on it needs no mirror.
    desk.shell("stigmer local start --detach").run().success();
    every_path_of_the_table_of_files_exists(&desk.home);
    desk.shell("stigmer local stop").run().success();
}

/// The line with what stands for its placeholder here.
fn replaced(line: &str, placeholder: &str, value: &str) -> String {
    assert!(line.contains(placeholder), "'{line}' has no '{placeholder}'");
    line.replace(placeholder, value)
}

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
            "dockerfile" => line.strip_prefix("ENTRYPOINT [\"/").map(|words| words.replace(['"', ',', ']'], "")),
            // What talks to Temporal is no command.
            "python" | "typescript" | "go" => None,
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
fn every_command_of_the_readme_is_typed() {
    let desk = Desk::new(Home::new().with_stand_in());
    desk.home.behave("say good morning");
    let is_by_ci = |line: &String| INSTALLED_BY_CI.iter().any(|(command, _)| command == line);
    let lines: Vec<String> = commands().into_iter().filter(|line| !line.starts_with("make ")).collect();
    let (by_ci, lines): (Vec<String>, Vec<String>) = lines.into_iter().partition(is_by_ci);
    assert_eq!(by_ci, INSTALLED_BY_CI.map(|(line, _)| line), "CI does not go the README's ways to install");
    for line in &lines {
        let row = COMMANDS.iter().find(|(command, _)| command == line);
        let (_, type_it) = row.unwrap_or_else(|| panic!("nobody types '{line}' of the README"));
        type_it(&desk, line);
    }
    for (command, _) in COMMANDS {
        assert!(lines.iter().any(|line| line == command), "'{command}' is not in the README");
    }
}

#[test]
fn every_way_to_install_of_the_readme_is_gone_by_ci() {
    let file = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    for (line, script) in INSTALLED_BY_CI.into_iter().filter(|(_, script)| !script.is_empty()) {
        let typed = line.trim_start_matches("sudo ");
        assert!(file(script).contains(typed), "{script} does not type '{typed}'");
        assert!(file(".ci/run").contains(script), "{script} is not a step of CI");
    }
}

/// What they do takes minutes, and CI does it; here make says what it would do.
#[test]
fn every_make_command_of_the_readme_is_one_that_make_knows() {
    if !has("make", &["--version"]) {
        return skip("make is missing");
    }
    let desk = Desk::new(Home::new());
    let lines: Vec<String> = commands().into_iter().chain(quoted()).filter(|line| line.starts_with("make ")).collect();
    assert!(lines.len() >= 9, "{lines:?}");
    for line in lines {
        let outcome = desk.shell(&line.replacen("make ", "make --dry-run ", 1)).current_dir(root()).run();
        outcome.success();
        let scripts =
            outcome.stdout.split_whitespace().filter(|word| word.starts_with(".ci/") || word.starts_with("tests/"));
        for script in scripts {
            assert!(root().join(script).exists(), "'{line}' runs {script}, which does not exist");
        }
        assert!(
            !outcome.stdout.trim().is_empty() && !outcome.stdout.contains("Nothing to be done"),
            "{}",
            outcome.describe()
        );
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

/// A home whose PATH leads to stigmer, and to programs that print what they
/// were given.
struct Desk {
    home: Home,
}

impl Desk {
    fn new(home: Home) -> Desk {
        let programs = home.root().join("programs");
        fs::create_dir_all(&programs).unwrap();
        symlink(process::binary(), programs.join("stigmer")).unwrap();
        for name in ["python", "pytest", "npx", "go"] {
            fs::write(programs.join(name), "#!/bin/sh\necho \"${0##*/} $*: $TEMPORAL_ADDRESS\"\n").unwrap();
            fs::set_permissions(programs.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        Desk { home }
    }

    fn shell(&self, line: &str) -> Stigmer<'_> {
        self.script(&format!("exec {line}"))
    }

    fn script(&self, text: &str) -> Stigmer<'_> {
        let path = format!("{}:{}", self.home.root().join("programs").display(), std::env::var("PATH").unwrap());
        Stigmer::of_program(&self.home, "sh".as_ref(), ["-c", text]).env("PATH", path)
    }

    /// Types a command that stays in the foreground, and ends it by Ctrl-C
    /// when it has printed `text`.
    fn run_until(&self, stigmer: Stigmer<'_>, text: &str) {
        let mut running = stigmer.spawn();
        running.wait_for_stdout(text);
        running.signal(libc::SIGINT);
        running.wait().success();
    }
}

fn every_path_of_the_table_of_files_exists(home: &Home) {
    let text = readme();
    let table = text.split("\n## Files\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let paths: Vec<_> = table.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(paths.len(), 8, "{paths:?}");
    // Only what was migrated has an older one beside it.
    for path in paths.into_iter().filter(|path| !path.ends_with("VERSION")) {
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
fn every_symptom_of_the_readme_is_printed_by_the_program() {
    let text = readme();
    let table = text.split("\n## Troubleshooting\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let first_column = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let symptoms: Vec<_> = first_column.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
    assert!(symptoms.len() >= 8, "{symptoms:?}");
    for symptom in symptoms {
        let is_shown = |line: &str| {
            let pieces = symptom.split("...").map(str::trim);
            pieces.into_iter().try_fold(line, |rest, piece| Some(rest.split_once(piece)?.1)).is_some()
        };
        assert!(include_str!("errors.txt").lines().any(is_shown), "no error in errors.txt reads '{symptom}'");
    }
}
