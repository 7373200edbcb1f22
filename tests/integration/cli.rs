//! The words of the program: help, completions, colour, and every error that
//! it can give, read as a user who never saw the source.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Mutex;

use crate::support::archive::{VERSION, asset_path, checksums_path, small_release};
use crate::support::process::{binary, is_root};
use crate::support::*;

const COMMANDS: [&str; 9] = [
    "",
    "local",
    "local start",
    "local run",
    "local stop",
    "local restart",
    "local status",
    "local logs",
    "completions",
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
        assert!(screen.lines().count() <= 50, "{} lines\n{screen}", screen.lines().count());
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
fn help_needs_no_home_and_a_reader_that_leaves_is_no_failure() {
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
const COMPLETED: [(&str, &str); 9] = [
    ("stigmer ", "+local +completions -start"),
    ("stigmer loc", "+local -completions"),
    ("stigmer local ", "+start +run +stop +restart +status +logs -completions"),
    ("stigmer local st", "+start +stop +status -logs"),
    ("stigmer local start --", "+--detach +--port +--temporal-host +--offline +--help ---json"),
    ("stigmer local run --t", "+--temporal-host +--temporal-bin ---port -start"),
    ("stigmer local logs --", "+--follow +--lines ---port"),
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
    let home = Home::new();
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
    let home = Home::new();
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
    let home = Home::new();
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

/// What an error came to.
struct Told {
    code: i32,
    stderr: String,
}

impl From<Outcome<'_>> for Told {
    fn from(outcome: Outcome<'_>) -> Told {
        Told { code: outcome.code(), stderr: outcome.stderr }
    }
}

/// One error: how it comes about, its exit code, and what it has to name.
struct Case {
    when: &'static str,
    code: i32,
    names: &'static [&'static str],
    produce: Box<dyn Fn(&Home) -> Told + Send>,
}

fn case(
    when: &'static str,
    code: i32,
    names: &'static [&'static str],
    produce: impl Fn(&Home) -> Told + Send + 'static,
) -> Case {
    Case { when, code, names, produce: Box::new(produce) }
}

/// An error of a plain command line in an empty home.
fn line(line: &'static str, code: i32, names: &'static [&'static str]) -> Case {
    case(line, code, names, move |home| home.stigmer(words(line)).run().into())
}

/// An error of `start` in an empty home, with a variable set.
fn with_variable(name: &'static str, value: &'static str, code: i32, names: &'static [&'static str]) -> Case {
    case(name, code, names, move |home| home.stigmer(["local", "start"]).env(name, value).run().into())
}

/// A failure of the stand-in.
fn behaving(when: &'static str, behaviour: &'static str, names: &'static [&'static str]) -> Case {
    case(when, 1, names, move |home| {
        fs::create_dir_all(home.bin()).unwrap();
        home.behave(behaviour);
        start_stand_in(home, &["--ready-timeout", "1"]).run().into()
    })
}

fn start_stand_in<'h>(home: &'h Home, arguments: &[&str]) -> Stigmer<'h> {
    home.stigmer(["local", "start"]).args(arguments).env("STIGMER_TEMPORAL_BIN", stand_in())
}

/// A failure of an installation from a release server.
fn installing(
    when: &'static str,
    names: &'static [&'static str],
    prepare: impl Fn(&ReleaseServer) + Send + 'static,
) -> Case {
    case(when, 1, names, move |home| {
        let server = ReleaseServer::with_release(VERSION, small_release());
        prepare(&server);
        home.stigmer(["local", "start"]).with_mirror(VERSION, server.base()).run().into()
    })
}

/// A file or directory in the way of `start`.
fn in_the_way(when: &'static str, path: &'static str, prepare: fn(&Path)) -> Case {
    case(when, 1, &["{home}"], move |home| {
        let path = if path.is_empty() { home.path() } else { home.path().join(path) };
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        prepare(&path);
        start_stand_in(home, &[]).run().into()
    })
}

fn usage_cases() -> Vec<Case> {
    vec![
        line("strat", 2, &["strat"]),
        line("start", 2, &["start"]),
        line("local", 2, &["stigmer local", "start"]),
        line("local strat", 2, &["strat"]),
        line("local start now", 2, &["now"]),
        line("local stop now", 2, &["now"]),
        line("local start --prot 1", 2, &["--prot"]),
        line("local start -x", 2, &["-x"]),
        line("local start --port", 2, &["--port"]),
        line("local start --detach=yes", 2, &["--detach", "yes"]),
        line("local run", 2, &["command"]),
        line("local run --", 2, &["command"]),
        line("local run --offline", 2, &["command"]),
        line("local logs -n many", 2, &["--lines", "many"]),
        line("local logs -n -1", 2, &["--lines", "-1"]),
        line("completions", 2, &["shell"]),
        line("completions tcsh", 2, &["tcsh"]),
        line("completions bash zsh", 2, &["zsh"]),
        line("completions --loud", 2, &["--loud"]),
        line("local start --port abc", 2, &["--port", "abc", "65535"]),
        line("local start --port 0", 2, &["--port", "'0'", "65535"]),
        line("local start --ui-port 65536", 2, &["--ui-port", "65536", "65535"]),
        line("local start --port 7233 --ui-port 7233", 2, &["7233", "--ui-port"]),
        line("local start --ip localhost", 2, &["--ip", "localhost", "127.0.0.1"]),
        line("local start --temporal-version latest", 2, &["--temporal-version", "latest", pinned::VERSION]),
        line("local start --ready-timeout soon", 2, &["--ready-timeout", "soon", "86400"]),
        line("local start --mirror ftp://mirror.example", 2, &["--mirror", "ftp://mirror.example"]),
        line("local start --temporal-host http://t.example", 2, &["--temporal-host", "http://t.example"]),
        line("local start --temporal-host t.example --port 1", 2, &["--temporal-host", "--port"]),
        with_variable("STIGMER_TEMPORAL_PORT", "gRPC", 2, &["STIGMER_TEMPORAL_PORT", "gRPC"]),
        with_variable("STIGMER_OFFLINE", "maybe", 2, &["STIGMER_OFFLINE", "maybe"]),
        with_variable("STIGMER_READY_TIMEOUT", "0", 2, &["STIGMER_READY_TIMEOUT", "'0'"]),
        with_variable("TEMPORAL_SERVICE_ADDRESS", "::1", 2, &["TEMPORAL_SERVICE_ADDRESS", "::1"]),
        case("no port is left for the UI", 2, &["65000", "--ui-port"], |home| {
            home.stigmer(["local", "start", "--port", "65000"]).env_remove("STIGMER_TEMPORAL_UI_PORT").run().into()
        }),
        case("--temporal-bin ''", 2, &["--temporal-bin"], |home| {
            home.stigmer(["local", "start", "--temporal-bin", ""]).run().into()
        }),
        case("--ip with bytes that are no UTF-8", 2, &["--ip", "UTF-8"], |home| {
            let value = std::ffi::OsStr::from_bytes(b"\xff");
            home.stigmer(["local", "start", "--ip"]).args([value]).run().into()
        }),
    ]
}

fn home_cases() -> Vec<Case> {
    let mut cases = vec![
        in_the_way("STIGMER_HOME is a file", "", |path| fs::write(path, "").unwrap()),
        in_the_way("`bin` is a file", "bin", |path| fs::write(path, "").unwrap()),
        in_the_way("the lock is a directory", "run/daemon.lock", |path| fs::create_dir(path).unwrap()),
        in_the_way("the lock is a link", "run/daemon.lock", |path| symlink("/etc/passwd", path).unwrap()),
        in_the_way("the log is a directory", "logs/temporal.log", |path| fs::create_dir(path).unwrap()),
        in_the_way("the database's lock is a directory", "data/temporal.db.lock", |path| {
            fs::create_dir(path).unwrap();
        }),
        line("local restart", 1, &["restart"]),
        line("local logs", 1, &["{home}/logs/temporal.log"]),
        case("the log is a directory, logs", 1, &["{home}/logs/temporal.log"], |home| {
            fs::create_dir_all(home.log()).unwrap();
            home.stigmer(["local", "logs"]).run().into()
        }),
        case("--help >/dev/full", 1, &["stdout"], |home| {
            let script = "\"$stigmer\" --help >/dev/full";
            Stigmer::of_program(home, "sh".as_ref(), ["-c", script]).env("stigmer", binary()).run().into()
        }),
        case("local status >/dev/full", 1, &["stdout"], |home| {
            let script = "\"$stigmer\" local status >/dev/full";
            Stigmer::of_program(home, "sh".as_ref(), ["-c", script]).env("stigmer", binary()).run().into()
        }),
    ];
    if is_root() {
        cases.push(case("the home may not be written to", 1, &["{home}", "permission denied"], |home| {
            fs::set_permissions(home.user(), fs::Permissions::from_mode(0o755)).unwrap();
            start_stand_in(home, &[]).by_user(65_534).run().into()
        }));
    }
    cases
}

fn executable_cases() -> Vec<Case> {
    let with_bin = |when, names, content: &'static [u8], mode| {
        case(when, 1, names, move |home: &Home| {
            let path = home.root().join("temporal-cli");
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            home.stigmer(["local", "start", "--temporal-bin", path.to_str().unwrap()]).run().into()
        })
    };
    vec![
        line("local start --temporal-bin /no/such", 1, &["/no/such", "--temporal-bin"]),
        line("local start --temporal-bin /", 1, &["--temporal-bin"]),
        with_bin("--temporal-bin is not executable", &["temporal-cli", "executable"], b"#!/bin/sh\n", 0o644),
        with_bin("its interpreter is missing", &["temporal-cli"], b"#!/no/such/interpreter\n", 0o755),
        with_bin("it is no program", &["temporal-cli", "neither a program"], b"\x7fNOT", 0o755),
        with_bin("it is empty", &["temporal-cli", "neither a program"], b"", 0o755),
        line("local run -- no-such-command", 127, &["no-such-command"]),
        line("local run -- /", 126, &["/"]),
    ]
}

fn install_cases() -> Vec<Case> {
    let absent: fn(&ReleaseServer) = |server| server.always(&asset_path(VERSION), Reply::status("404 Not Found"));
    vec![
        line("local start --offline", 1, &["--offline", pinned::VERSION]),
        line("local start --mirror /no/such/mirror", 1, &["/no/such/mirror"]),
        installing("HTTP 404", &[VERSION, "http://"], absent),
        installing("HTTP 403", &["403"], |server| {
            server.always(&asset_path(VERSION), Reply::status("403 Forbidden"));
        }),
        installing("HTTP 410", &[VERSION, "http://"], |server| {
            server.always(&asset_path(VERSION), Reply::status("410 Gone"))
        }),
        installing("no checksums.txt", &["checksums.txt"], |server| {
            server.always(&checksums_path(VERSION), Reply::status("404 Not Found"));
        }),
        installing("checksums.txt knows another file", &["checksums.txt"], |server| {
            server.put(&checksums_path(VERSION), File::new("no digest here\n"));
        }),
        installing("an HTML page instead of the archive", &["http://"], |server| {
            server.put(&asset_path(VERSION), File::new("<!doctype html><title>Log in</title>"));
        }),
        installing("the wrong archive", &["SHA-256", "checksums.txt", "http://"], |server| {
            let other = archive::release(&archive::executable(5000, 1));
            server.put(&asset_path(VERSION), File::new(other));
        }),
        installing("a redirect to what is no web address", &["redirects to", "ftp://mirror.example/x"], |server| {
            server.always(&asset_path(VERSION), Reply::redirect("ftp://mirror.example/x"));
        }),
        installing("redirects without end", &["redirects"], |server| {
            let path = asset_path(VERSION);
            server.always(&path, Reply::redirect(server.url(&path)));
        }),
        case("nobody listens at the mirror", 1, &["127.0.0.1", "refused"], |home| {
            let base = format!("http://127.0.0.1:{}", home.ui_port());
            home.stigmer(["local", "start"]).with_mirror(VERSION, base).run().into()
        }),
        case("ALL_PROXY=socks5://...", 1, &["ALL_PROXY", "socks5"], |home| {
            let start = home.stigmer(["local", "start"]).with_mirror(VERSION, "http://mirror.example");
            start.env("ALL_PROXY", "socks5://127.0.0.1:1").run().into()
        }),
        case("SSL_CERT_FILE=/no/such", 1, &["/no/such"], |home| {
            let start = home.stigmer(["local", "start"]).with_mirror(VERSION, "https://mirror.invalid");
            start.env("SSL_CERT_FILE", "/no/such").run().into()
        }),
    ]
}

fn server_cases() -> Vec<Case> {
    vec![
        behaving("Temporal exits at start", "exit-before-serving 3\nsay why it did", &["exit status 3", "why it did"]),
        behaving("Temporal is killed at start", "die-by 9", &["signal 9 (SIGKILL)"]),
        behaving("Temporal never serves", "never-serve", &["1 s", "--ready-timeout"]),
        behaving(
            "a flag unknown to Temporal",
            "exit-before-serving 1\nsay Error: unknown flag: --x",
            &["--temporal-arg"],
        ),
        behaving(
            "the port is taken in the last moment",
            "exit-before-serving 1\nsay listen tcp: bind: address already in use",
            &["--port"],
        ),
        behaving(
            "the database cannot be opened",
            "exit-before-serving 1\nsay unable to open database file",
            &["temporal.db", "permissions"],
        ),
        line("local start --ip 192.0.2.1 --temporal-bin /bin/true", 1, &["192.0.2.1", "--ip"]),
        case("another program has the port", 1, &["{port}", "--port"], |home| {
            let _other = TcpListener::bind(("127.0.0.1", home.port())).unwrap();
            start_stand_in(home, &[]).run().into()
        }),
        case("a Temporal has the port", 1, &["{port}", "--temporal-host 127.0.0.1:{port}"], |home| {
            start_stand_in(home, &["--detach"]).run().success();
            let elsewhere = home.root().join("elsewhere");
            let told = start_stand_in(home, &[]).env("STIGMER_HOME", elsewhere).run().into();
            home.stigmer(["local", "stop"]).run().success();
            told
        }),
        case("a database of another program", 1, &["{home}/data/temporal.db"], |home| {
            fs::create_dir_all(home.database().parent().unwrap()).unwrap();
            fs::write(home.database(), "not of Temporal").unwrap();
            start_stand_in(home, &[]).run().into()
        }),
        case("five failures in a row", 1, &["5 times", "exit status 4"], |home| {
            let mut start = start_stand_in(home, &[]).spawn();
            start.wait_for_stdout("Ready.");
            home.behave("exit-before-serving 4\nsay why it did");
            home.crash("1");
            start.wait().into()
        }),
        case("stopped during a restart", 1, &["restart", "{home}/logs/temporal.log"], |home| {
            start_stand_in(home, &["--detach"]).run().success();
            home.behave("slow-start 60000");
            let restart = home.stigmer(["local", "restart"]).spawn();
            home.wait_for("the second server", || home.starts().len() == 2);
            home.stigmer(["local", "stop"]).run().success();
            restart.wait().into()
        }),
        case("nobody listens at --temporal-host", 1, &["127.0.0.1:{ui-port}", "--temporal-host", "refused"], |home| {
            let address = format!("127.0.0.1:{}", home.ui_port());
            home.stigmer(["local", "start", "--temporal-host", &address]).run().into()
        }),
        line("local start --temporal-host nowhere.invalid", 1, &["nowhere.invalid:7233", "resolved"]),
        case("restart of an external Temporal", 1, &["127.0.0.1:{port}", "external"], |home| {
            let listener = TcpListener::bind(("127.0.0.1", home.port())).unwrap();
            let address = listener.local_addr().unwrap().to_string();
            std::thread::spawn(move || listener.incoming().flatten().for_each(drop));
            home.stigmer(["local", "start", "--detach", "--temporal-host", &address]).run().success();
            let told = home.stigmer(["local", "restart"]).run().into();
            home.stigmer(["local", "stop"]).run().success();
            told
        }),
    ]
}

#[test]
fn every_error_tells_what_why_and_what_next() {
    let mut cases: Vec<(usize, Case)> =
        [usage_cases(), home_cases(), executable_cases(), install_cases(), server_cases()]
            .into_iter()
            .flatten()
            .enumerate()
            .collect();
    // The slow ones stand last in their tables; begun first, they delay nothing.
    cases.reverse();
    let catalogue = Mutex::new(Vec::new());
    let faults = Mutex::new(Vec::new());
    in_parallel(4, cases, |(index, case)| {
        let home = match case.when.starts_with("local run") {
            true => Home::new().with_stand_in(),
            false => Home::new(),
        };
        let told = (case.produce)(&home);
        home.wait_until_quiet(LIMIT);
        for fault in faults_of(&case, &told, &home) {
            faults.lock().unwrap().push(format!("{}: {fault}\n{}", case.when, told.stderr));
        }
        let text = told
            .stderr
            .replace(&home.path().display().to_string(), "~/.stigmer")
            .replace(&home.root().display().to_string(), "~")
            .replace(&home.port().to_string(), "7233")
            .replace(&home.ui_port().to_string(), "8233");
        catalogue.lock().unwrap().push((index, case.when, told.code, text));
    });
    if let Some(path) = std::env::var_os("STIGMER_CATALOGUE") {
        let mut catalogue = catalogue.into_inner().unwrap();
        catalogue.sort();
        fs::write(path, markdown(&catalogue)).unwrap();
    }
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} faults\n\n{}", faults.len(), faults.join("\n"));
}

/// What a user would object to.
fn faults_of(case: &Case, told: &Told, home: &Home) -> Vec<String> {
    let mut faults = Vec::new();
    if told.code != case.code {
        faults.push(format!("exit code {}, not {}", told.code, case.code));
    }
    let errors: Vec<_> = told.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    let [error] = errors.as_slice() else {
        faults.push(format!("{} lines begin with 'error: '", errors.len()));
        return faults;
    };
    let is_usage = case.code == 2;
    if !is_usage && !error.contains(": ") {
        faults.push("no cause".into());
    }
    // `STIGMER_OFFLINE takes ...` is fine.
    let is_capitalised = error.starts_with(char::is_uppercase) && error[1..].starts_with(char::is_lowercase);
    if error.ends_with('.') || is_capitalised {
        faults.push("no sentence is wanted".into());
    }
    for name in case.names {
        let name = name
            .replace("{home}", &home.path().display().to_string())
            .replace("{port}", &home.port().to_string())
            .replace("{ui-port}", &home.ui_port().to_string());
        if !told.stderr.contains(&name) {
            faults.push(format!("it does not name '{name}'"));
        }
    }
    for inside in ["(os error", "Error {", "Os {", "Some(", "Err(", "panicked", "has a bug", "unwrap", "\x1b"] {
        if told.stderr.contains(inside) {
            faults.push(format!("it shows '{inside}'"));
        }
    }
    let says_what_next = told.stderr.contains("\nhint: ") || (is_usage && says_what_is_wanted(&told.stderr));
    // What to do about stdout is up to whoever directed it elsewhere.
    let is_about_stdout = case.names == ["stdout"];
    if !says_what_next && !is_about_stdout {
        faults.push("it does not say what next".into());
    }
    if is_about_stdout && told.stderr.contains("STIGMER_HOME") {
        faults.push("the hint has nothing to do with it".into());
    }
    faults
}

fn says_what_is_wanted(stderr: &str) -> bool {
    stderr.contains("\nusage: ") || stderr.contains(" takes ")
}

fn markdown(catalogue: &[(usize, &str, i32, String)]) -> String {
    let mut text = String::from("| when | exit | stderr |\n| --- | --- | --- |\n");
    for (_, when, code, stderr) in catalogue {
        let lines: Vec<_> = stderr.lines().filter(|line| !line.starts_with('[')).collect();
        let cell = lines.join("<br>").replace('|', "\\|");
        let _ = writeln!(text, "| {} | {code} | {cell} |", when.replace('|', "\\|"));
    }
    text
}
