//! Every error that the program gives, read as by a user who never saw the
//! source. What they say stands in `errors.txt`, which is compared whole, so
//! that every wording is read in review; this writes it anew:
//!
//! ```text
//! STIGMER_CATALOGUE=update cargo test --test integration every_error
//! ```

use std::collections::HashMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::sync::Mutex;

use crate::external_tls::{self, CA, Pki};
use crate::support::archive::{VERSION, asset_path, checksums, checksums_path, executable, release, small_release};
use crate::support::frontend::{DESCRIBE, HEALTH, SYSTEM_INFO};
use crate::support::process::{binary, is_root};
use crate::support::*;

/// A user that is neither root nor whoever runs this.
const STRANGER: u32 = 65_533;

/// What the program printed, and its exit code.
struct Printed {
    code: i32,
    stdout: String,
    stderr: String,
}

impl From<Outcome<'_>> for Printed {
    fn from(outcome: Outcome<'_>) -> Printed {
        Printed { code: outcome.code(), stdout: outcome.stdout, stderr: outcome.stderr }
    }
}

/// One error: how it comes about, its exit code, and what it has to name.
struct Case {
    when: String,
    code: i32,
    names: &'static [&'static str],
    /// Whether it can be produced on this machine.
    is_possible: fn() -> bool,
    produce: Box<dyn Fn(&Home) -> Printed + Send>,
}

fn case(
    when: impl Into<String>,
    code: i32,
    names: &'static [&'static str],
    produce: impl Fn(&Home) -> Printed + Send + 'static,
) -> Case {
    Case { when: when.into(), code, names, is_possible: || true, produce: Box::new(produce) }
}

fn words(line: &str) -> Vec<&str> {
    line.split_ascii_whitespace().collect()
}

/// An error of a plain command line in an empty home.
fn line(line: &'static str, code: i32, names: &'static [&'static str]) -> Case {
    case(line, code, names, move |home| home.stigmer(words(line)).run().into())
}

/// An error of `start` in an empty home, with a variable set.
fn with_variable(name: &'static str, value: &'static str, names: &'static [&'static str]) -> Case {
    let start = move |home: &Home| home.stigmer(["local", "start"]).env(name, value).run().into();
    case(format!("{name}={value}"), 2, names, start)
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

/// A failure of an installation from a directory.
fn installing_from_directory(
    when: &'static str,
    names: &'static [&'static str],
    prepare: impl Fn(&Path) + Send + 'static,
) -> Case {
    case(when, 1, names, move |home| {
        let mirror = home.root().join("mirror");
        let place = |path: String, content: &[u8]| fs::write(mirror.join(&path[1..]), content).unwrap();
        fs::create_dir_all(mirror.join(format!("v{VERSION}"))).unwrap();
        place(asset_path(VERSION), small_release());
        place(checksums_path(VERSION), checksums(VERSION, small_release()).as_bytes());
        prepare(&mirror);
        home.stigmer_without_privileges(["local", "start"]).with_mirror(VERSION, &mirror).run().into()
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

#[test]
fn every_error_says_what_failed_why_and_what_to_do() {
    let tables = [
        usage_cases(),
        namespace_usage_cases(),
        home_cases(),
        executable_cases(),
        upgrade_cases(),
        install_cases(),
        mirror_cases(),
        network_cases(),
        server_cases(),
        client_cases(),
        conflict_cases(),
        daemon_cases(),
        external_cases(),
        certificate_cases(),
        cleartext_cases(),
        http_cases(),
        grpc_cases(),
    ];
    let cases: Vec<Case> = tables.into_iter().flatten().collect();
    let order: Vec<String> = cases.iter().map(|case| case.when.clone()).collect();
    let (printed, faults) = (Mutex::new(HashMap::new()), Mutex::new(Vec::new()));
    // The slow ones stand last in their tables; started first, they delay nothing.
    in_parallel(4, cases.into_iter().rev(), |case| {
        if !(case.is_possible)() {
            return skip(&format!("this user, or what is installed, cannot make it so that {}", case.when));
        }
        let home = match case.when.starts_with("local run") {
            true => Home::new().with_stand_in(),
            false => Home::new(),
        };
        let error = (case.produce)(&home);
        home.wait_until_quiet(LIMIT);
        for fault in faults_of(&case, &error, &home) {
            faults.lock().unwrap().push(format!("{}: {fault}\n{}", case.when, error.stderr));
        }
        let entry = entry(&error, &home);
        assert!(printed.lock().unwrap().insert(case.when.clone(), entry).is_none(), "'{}' is there twice", case.when);
    });
    let faults = faults.into_inner().unwrap();
    assert!(faults.is_empty(), "{} faults\n\n{}", faults.len(), faults.join("\n"));
    compare_with_catalogue(&order, printed.into_inner().unwrap());
}

/// Compares what was printed with `errors.txt`, or writes it there.
fn compare_with_catalogue(order: &[String], mut printed: HashMap<String, String>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/integration/errors.txt");
    let old = fs::read_to_string(&path).unwrap_or_default();
    let entries = || old.split("\n# ").skip(1).filter_map(|entry| entry.split_once('\n'));
    let mut text = PREAMBLE.to_owned();
    for when in order {
        // What could not be produced here stays as it was.
        let before = || entries().find(|(name, _)| name == when).map_or("", |(_, entry)| entry.trim()).to_owned();
        let entry = printed.remove(when).unwrap_or_else(before);
        text += &format!("\n# {when}\n{entry}\n");
    }
    if std::env::var_os("STIGMER_CATALOGUE").is_some_and(|value| value == "update") {
        fs::write(&path, text).unwrap();
        return;
    }
    let new_lines = text.lines().filter(|line| !old.lines().any(|old| old == *line)).map(|line| format!("+ {line}"));
    let old_lines = old.lines().filter(|line| !text.lines().any(|new| new == *line)).map(|line| format!("- {line}"));
    let changes: Vec<_> = old_lines.chain(new_lines).collect();
    assert!(
        text == old,
        "what the program prints is not what errors.txt says; read every change, then write it with\n  \
         STIGMER_CATALOGUE=update cargo test --test integration every_error\n\n{}",
        changes.join("\n")
    );
}

const PREAMBLE: &str = "\
Every error of stigmer, as a user reads it. The program prints this: edit the
source, and have the test write it here (see errors.rs). Paths, ports, process
ids, digests and the pinned version are replaced.
";

/// What every start prints on its way is not repeated for each error, nor what
/// the stand-in says first.
const USUAL: [&str; 8] = [
    "[•] Stigmer Local Daemon starting...",
    "[•] Using external Temporal: ",
    "[!] Temporal not found locally.",
    "[⬇] Downloading ",
    "[•] Clients connect to ",
    "[✓] ",
    "  | Temporal CLI 9.9.9",
    "  | Temporal Server: ",
];

/// The error as it stands in the catalogue: the same on every machine.
fn entry(printed: &Printed, home: &Home) -> String {
    let shown = |path: &Path| path.display().to_string();
    let text = format!("{}{}", printed.stdout, printed.stderr)
        .replace(&shown(&home.path()), "~/.stigmer")
        .replace(&shown(&home.user()), "~")
        .replace(&shown(home.root()), "/scratch")
        .replace(&archive::platform(), "linux_amd64")
        .replace(&archive::platform().replace('_', "/"), "linux/amd64")
        .replace(pinned::VERSION, "PINNED")
        // musl's words, and glibc's.
        .replace("symbolic link loop", "too many levels of symbolic links");
    let lines = text.lines().filter(|line| !USUAL.iter().any(|usual| line.starts_with(usual)));
    let lines: Vec<String> = lines.map(|line| without_numbers(line, home)).collect();
    format!("exit {}\n{}", printed.code, lines.join("\n"))
}

/// A line without the digests, process ids and ports of this run.
fn without_numbers(line: &str, home: &Home) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some(start) = rest.find(|character: char| character.is_ascii_alphanumeric()) {
        text.push_str(&rest[..start]);
        rest = &rest[start..];
        let word = &rest[..rest.find(|character: char| !character.is_ascii_alphanumeric()).unwrap_or(rest.len())];
        let number = word.parse::<u16>().ok();
        text.push_str(match number {
            _ if text.ends_with("PID: ") => "N",
            _ if word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit()) => "DIGEST",
            Some(port) if port == home.port() => "7233",
            Some(port) if port == home.ui_port() => "8233",
            Some(port) if port == home.port() + 1 => "7234",
            // One that the system chose.
            Some(10_000..) if text.ends_with("127.0.0.1:") || text.ends_with("localhost:") => "PORT",
            _ => word,
        });
        rest = &rest[word.len()..];
    }
    text + rest
}

/// What a user would object to.
fn faults_of(case: &Case, printed: &Printed, home: &Home) -> Vec<String> {
    let mut faults = Vec::new();
    if printed.code != case.code {
        faults.push(format!("exit code {}, not {}", printed.code, case.code));
    }
    let errors: Vec<_> = printed.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
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
        if !printed.stderr.contains(&name) {
            faults.push(format!("it does not name '{name}'"));
        }
    }
    for inside in ["(os error", "Error {", "Os {", "Some(", "Err(", "panicked", "has a bug", "unwrap", "\x1b"] {
        if printed.stderr.contains(inside) {
            faults.push(format!("it shows '{inside}'"));
        }
    }
    let says_what_next = printed.stderr.contains("\nhint: ") || (is_usage && says_what_is_wanted(&printed.stderr));
    // What to do about stdout is up to whoever directed it elsewhere.
    let is_about_stdout = case.names == ["stdout"];
    // And whoever interrupts it knows what next.
    let was_interrupted = case.code > 128;
    if !says_what_next && !is_about_stdout && !was_interrupted {
        faults.push("it does not say what next".into());
    }
    if is_about_stdout && printed.stderr.contains("STIGMER_HOME") {
        faults.push("the hint has nothing to do with it".into());
    }
    faults
}

fn says_what_is_wanted(stderr: &str) -> bool {
    stderr.contains("\nusage: ") || stderr.contains(" takes ")
}

fn namespace_usage_cases() -> Vec<Case> {
    vec![
        line("local start --namespace=", 2, &["--namespace"]),
        line("local start --search-attribute Amount=Integer", 2, &["--search-attribute", "Amount=Integer", "Keyword"]),
        line("local start --search-attribute A=Int --search-attribute A=Text", 2, &["A=Int", "A=Text"]),
        line("local start --retention 5m", 2, &["--retention", "5m", "1h"]),
    ]
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
        line("local run --offline --", 2, &["command"]),
        line("local logs -n many", 2, &["--lines", "many"]),
        line("local logs -n -1", 2, &["--lines", "-1"]),
        line("completions", 2, &["shell"]),
        line("completions tcsh", 2, &["tcsh"]),
        line("completions bash zsh", 2, &["zsh"]),
        line("completions --loud", 2, &["--loud"]),
        line("local start --port abc", 2, &["--port", "abc", "65535"]),
        line("local start --port 00", 2, &["--port", "'00'", "65535"]),
        line("local start --ui-port 65536", 2, &["--ui-port", "65536", "65535"]),
        line("local start --port 7233 --ui-port 7233", 2, &["7233", "--ui-port"]),
        line("local start --ip localhost", 2, &["--ip", "localhost", "127.0.0.1"]),
        line("local start --temporal-version latest", 2, &["--temporal-version", "latest", pinned::VERSION]),
        line("local start --ready-timeout soon", 2, &["--ready-timeout", "soon", "86400"]),
        line("local start --mirror ftp://mirror.example", 2, &["--mirror", "ftp://mirror.example"]),
        line("local start --temporal-host http://t.example", 2, &["--temporal-host", "http://t.example"]),
        line("local start --temporal-host t.example --port 1", 2, &["--temporal-host", "--port"]),
        with_variable("STIGMER_TEMPORAL_PORT", "gRPC", &["STIGMER_TEMPORAL_PORT", "gRPC"]),
        with_variable("STIGMER_OFFLINE", "maybe", &["STIGMER_OFFLINE", "maybe"]),
        with_variable("STIGMER_READY_TIMEOUT", "0", &["STIGMER_READY_TIMEOUT", "'0'"]),
        with_variable("TEMPORAL_SERVICE_ADDRESS", "::1", &["TEMPORAL_SERVICE_ADDRESS", "::1"]),
        line("local start --temporal-arg --port=1", 2, &["--temporal-arg", "--port"]),
        case("no port is left for the UI", 2, &["65000", "--ui-port"], |home| {
            home.stigmer(["local", "start", "--port", "65000"]).env_remove("STIGMER_TEMPORAL_UI_PORT").run().into()
        }),
        case("--temporal-bin ''", 2, &["--temporal-bin"], |home| {
            home.stigmer(["local", "start", "--temporal-bin", ""]).run().into()
        }),
        case("--ip with bytes that are not UTF-8", 2, &["--ip", "UTF-8"], |home| {
            let value = std::ffi::OsStr::from_bytes(b"\xff");
            home.stigmer(["local", "start", "--ip"]).args([value]).run().into()
        }),
    ]
}

fn home_cases() -> Vec<Case> {
    let of_another_user = case("`bin` belongs to another user", 1, &["{home}/bin", "another user"], |home| {
        fs::create_dir_all(home.bin()).unwrap();
        chown(home.bin(), Some(STRANGER), None).unwrap();
        start_stand_in(home, &[]).run().into()
    });
    let mut cases = vec![
        in_the_way("STIGMER_HOME is a file", "", |path| fs::write(path, "").unwrap()),
        in_the_way("`bin` is a file", "bin", |path| fs::write(path, "").unwrap()),
        in_the_way("the lock is a directory", "run/daemon.lock", |path| fs::create_dir(path).unwrap()),
        in_the_way("the lock is a link", "run/daemon.lock", |path| symlink("/etc/passwd", path).unwrap()),
        in_the_way("the log is a directory", "logs/temporal.log", |path| fs::create_dir(path).unwrap()),
        in_the_way("the database's lock is a directory", "data/temporal.db.lock", |path| {
            fs::create_dir(path).unwrap();
        }),
        in_the_way("everybody may write to the home", "", |path| {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }),
        case("the home cannot be made", 1, &["{home}", "permission denied"], |home| {
            fs::set_permissions(home.user(), fs::Permissions::from_mode(0o555)).unwrap();
            home.stigmer_without_privileges(["local", "start"]).run().into()
        }),
        line("local restart", 1, &["restart"]),
        line("local logs", 1, &["{home}/logs/temporal.log"]),
        case("local logs, where the log is a directory", 1, &["{home}/logs/temporal.log"], |home| {
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
    cases.push(Case { is_possible: is_root, ..of_another_user });
    cases
}

/// A Temporal that the database is not of.
fn upgrade_cases() -> Vec<Case> {
    use crate::upgrade::{NEW, OLD, begin_with_old, path_with, run, server, sql, start};
    let with_sqlite = |when, names, produce: fn(&Home) -> Printed| Case {
        is_possible: || has("sqlite3", &["-version"]),
        ..case(when, 1, names, produce)
    };
    fn served_by(version: &str, home: &Home) -> ReleaseServer {
        let server = server().unwrap();
        begin_with_old(home, &server);
        run(home, version, &server).run().success();
        server
    }
    vec![
        with_sqlite("another version, and sqlite3 is not installed", &["sqlite3", NEW, OLD], |home| {
            let server = served_by(OLD, home);
            start(home, NEW, &server).env("PATH", path_with(home, None)).run().into()
        }),
        with_sqlite("an older version, and it has no table for some rows", &["chasm"], |home| {
            let server = served_by(NEW, home);
            sql(&home.database(), "INSERT INTO chasm VALUES ('a', NULL)");
            start(home, OLD, &server).run().into()
        }),
        with_sqlite("another version, and it makes no database", &["makes no database"], |home| {
            let server = served_by(OLD, home);
            home.behave("exit-before-serving 1");
            start(home, NEW, &server).run().into()
        }),
    ]
}

fn executable_cases() -> Vec<Case> {
    let with_bin = |when: &str, names, content: &'static [u8], mode| {
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
        with_bin("it is neither a program nor a script", &["temporal-cli", "neither a program"], b"\x7fNOT", 0o755),
        with_bin("it is built for another system", &["temporal-cli", "windows"], b"MZ\x90\0", 0o755),
        with_bin("it is empty", &["temporal-cli", "neither a program"], b"", 0o755),
        line("local run -- no-such-command", 127, &["no-such-command"]),
        line("local run -- /", 126, &["/"]),
    ]
}

fn install_cases() -> Vec<Case> {
    let absent: fn(&ReleaseServer) = |server| server.always(&asset_path(VERSION), Reply::status("404 Not Found"));
    vec![
        line("local start --offline", 1, &["--offline", pinned::VERSION]),
        installing("HTTP 404", &[VERSION, "http://"], absent),
        installing("HTTP 403", &["403"], |server| {
            server.always(&asset_path(VERSION), Reply::status("403 Forbidden"));
        }),
        installing("HTTP 410", &[VERSION, "http://"], |server| {
            server.always(&asset_path(VERSION), Reply::status("410 Gone"))
        }),
        installing("HTTP 418", &["127.0.0.1", "418"], |server| {
            server.always(&asset_path(VERSION), Reply::status("418 I'm a teapot"));
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
            let other = release(&executable(5000, 1));
            server.put(&asset_path(VERSION), File::new(other));
        }),
        installing(
            "a redirect to something that is not a web address",
            &["redirects to", "ftp://mirror.example/x"],
            |server| {
                server.always(&asset_path(VERSION), Reply::redirect("ftp://mirror.example/x"));
            },
        ),
        installing("redirects without end", &["redirects"], |server| {
            let path = asset_path(VERSION);
            server.always(&path, Reply::redirect(server.url(&path)));
        }),
    ]
}

fn mirror_cases() -> Vec<Case> {
    vec![
        line("local start --mirror /no/such/mirror", 1, &["/no/such/mirror"]),
        line("local start --mirror /etc/hosts", 1, &["/etc/hosts"]),
        installing_from_directory("a mirror without checksums.txt", &["checksums.txt"], |mirror| {
            fs::remove_file(mirror.join(&checksums_path(VERSION)[1..])).unwrap();
        }),
        installing_from_directory("a mirror without the archive", &[VERSION], |mirror| {
            fs::remove_file(mirror.join(&asset_path(VERSION)[1..])).unwrap();
        }),
        installing_from_directory("a directory in the place of the archive", &[VERSION], |mirror| {
            fs::remove_file(mirror.join(&asset_path(VERSION)[1..])).unwrap();
            fs::create_dir(mirror.join(&asset_path(VERSION)[1..])).unwrap();
        }),
        installing_from_directory("an archive that was copied in part", &[VERSION], |mirror| {
            let half = &small_release()[..small_release().len() / 2];
            fs::write(mirror.join(&asset_path(VERSION)[1..]), half).unwrap();
        }),
        installing_from_directory("a mirror that may not be read", &["mirror", "permission denied"], |mirror| {
            fs::set_permissions(mirror, fs::Permissions::from_mode(0o000)).unwrap();
        }),
    ]
}

fn network_cases() -> Vec<Case> {
    vec![
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
        case("a certificate that nobody vouches for", 1, &["127.0.0.1", "SSL_CERT_FILE"], |home| {
            let server = ReleaseServer::start_tls(Authority::new().server(&["127.0.0.1"]));
            home.stigmer(["local", "start"]).with_mirror(VERSION, server.base()).run().into()
        }),
        case("a redirect from https to http", 1, &["https://", "http://"], |home| {
            let (authority, trusted) = (Authority::new(), home.root().join("authority.pem"));
            authority.write_pem(&trusted);
            let server = ReleaseServer::start_tls(authority.server(&["127.0.0.1"]));
            server.always(&checksums_path(VERSION), Reply::redirect("http://mirror.example/x"));
            let start = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base());
            start.env("SSL_CERT_FILE", &trusted).run().into()
        }),
    ]
}

/// Of `run --ephemeral` and `env`.
fn client_cases() -> Vec<Case> {
    vec![
        line("local run --ephemeral --temporal-host t.example -- true", 2, &["--ephemeral", "--temporal-host"]),
        line("local run --ephemeral --temporal-arg --db-filename=/x -- true", 2, &["--ephemeral", "/x"]),
        line("local env --shell csh", 2, &["--shell", "csh", "fish"]),
        line("local env", 3, &["not running", "stigmer local start"]),
        case("an ephemeral Temporal exits at start", 1, &["exit status 3", "why it did", "ephemeral.log"], |home| {
            home.behave("exit-before-serving 3\nsay why it did");
            let run = home.stigmer(["local", "run", "--ephemeral", "--", "true"]);
            run.env("STIGMER_TEMPORAL_BIN", stand_in()).run().into()
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
            &["Temporal: unknown flag: --x\n", "--temporal-arg"],
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
    ]
}

fn conflict_cases() -> Vec<Case> {
    vec![
        line("local start --ip 192.0.2.1 --temporal-bin /bin/true", 1, &["192.0.2.1", "--ip"]),
        case("another program has the port", 1, &["{port}", "--port"], |home| {
            let _other = TcpListener::bind(("127.0.0.1", home.port())).unwrap();
            start_stand_in(home, &[]).run().into()
        }),
        case("a Temporal has the port", 1, &["{port}", "--temporal-host 127.0.0.1:{port}"], |home| {
            start_stand_in(home, &["--detach"]).run().success();
            let elsewhere = home.root().join("elsewhere");
            let printed = start_stand_in(home, &[]).env("STIGMER_HOME", elsewhere).run().into();
            home.stigmer(["local", "stop"]).run().success();
            printed
        }),
        case("a database of another program", 1, &["{home}/data/temporal.db"], |home| {
            fs::create_dir_all(home.database().parent().unwrap()).unwrap();
            fs::write(home.database(), "not of Temporal").unwrap();
            start_stand_in(home, &[]).run().into()
        }),
        case("a search attribute of another type", 1, &["default", "Amount=Int", "Amount=Text"], |home| {
            start_stand_in(home, &["--detach", "--search-attribute", "Amount=Int"]).run().success();
            let printed = start_stand_in(home, &["--search-attribute", "Amount=Text"]).run().into();
            home.stigmer(["local", "stop"]).run().success();
            printed
        }),
        case("a namespace that Temporal does not make", 1, &["namespace orders"], |home| {
            start_stand_in(home, &["--detach"]).run().success();
            home.stigmer(["local", "stop"]).run().success();
            home.behave("refuse-calls the name is not valid");
            start_stand_in(home, &["--namespace", "orders"]).run().into()
        }),
        case("another Temporal uses the database", 1, &["{home}/data/temporal.db"], |home| {
            start_stand_in(home, &["--detach"]).run().success();
            let (other, argument) =
                (Home::new(), format!("--temporal-arg=--db-filename={}", home.database().display()));
            let printed = start_stand_in(&other, &[&argument]).run().into();
            home.stigmer(["local", "stop"]).run().success();
            printed
        }),
        line(
            "local start --temporal-bin /bin/sh --temporal-arg --db-filename=/no/such/x.db",
            1,
            &["/no/such/x.db", "/no/such"],
        ),
    ]
}

fn daemon_cases() -> Vec<Case> {
    vec![
        case("another start was under way", 1, &["exit status 3"], |home| {
            home.behave("slow-start 60000");
            let first = start_stand_in(home, &[]).spawn();
            home.wait_for("its database", || home.database().exists());
            let mut second = start_stand_in(home, &[]).spawn();
            second.wait_for_stdout("waiting for it");
            home.behave("exit-before-serving 3\nsay why it did");
            first.signal(libc::SIGTERM);
            first.wait();
            second.wait().into()
        }),
        case("somebody holds the lock and says nothing", 1, &["another stigmer"], |home| {
            fs::create_dir_all(home.path().join("run")).unwrap();
            let lock = fs::File::create(home.path().join("run/daemon.lock")).unwrap();
            lock.lock().unwrap();
            start_stand_in(home, &["--ready-timeout", "1"]).run().into()
        }),
        case("a failure that cannot pass", 1, &["exit status 4", "file is not a database"], |home| {
            let mut start = start_stand_in(home, &[]).spawn();
            start.wait_for_stdout("Ready.");
            home.behave("exit-before-serving 4\nsay file is not a database (26)");
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
        case("a detached start is interrupted", 128 + libc::SIGINT, &["interrupted"], |home| {
            home.behave("slow-start 60000");
            let start = start_stand_in(home, &["--detach"]).spawn();
            home.wait_for("the start", || home.state_field("phase").as_deref() == Some("starting"));
            start.signal(libc::SIGINT);
            start.wait().into()
        }),
    ]
}

fn external_cases() -> Vec<Case> {
    vec![
        case("nobody listens at --temporal-host", 1, &["127.0.0.1:{ui-port}", "--temporal-host", "refused"], |home| {
            let address = format!("127.0.0.1:{}", home.ui_port());
            home.stigmer(["local", "start", "--temporal-host", &address]).run().into()
        }),
        line("local start --temporal-host nowhere.invalid", 1, &["nowhere.invalid:7233", "resolved"]),
        case("restart of an external Temporal", 1, &["localhost:", "external"], |home| {
            let frontend = Frontend::new(None);
            let address = frontend.address();
            home.stigmer(["local", "start", "--detach", "--temporal-host", &address]).run().success();
            let printed = home.stigmer(["local", "restart"]).run().into();
            home.stigmer(["local", "stop"]).run().success();
            printed
        }),
    ]
}

/// An error of `run` on this frontend, with these options and variables.
fn refused(
    when: &'static str,
    names: &'static [&'static str],
    given: (&'static [&'static str], &'static [(&'static str, &'static str)]),
    frontend: fn(&Pki, &Home) -> Frontend,
) -> Case {
    case(when, 1, names, move |home| {
        let pki = Pki::new(home);
        let frontend = frontend(&pki, home);
        let run = external_tls::run(home, &frontend, given.0);
        given.1.iter().fold(run, |run, (name, value)| run.env(name, value)).run().into()
    })
}

fn certificate_cases() -> Vec<Case> {
    let ca: (&[_], &[_]) = (&CA, &[]);
    fn frontend(identity: Identity, protocols: &[&str]) -> Frontend {
        Frontend::new(Some(identity.server(&Tls { protocols, clients: None })))
    }
    vec![
        refused("a certificate of nobody known", &["authority", "--tls-ca-path"], (&[], &[]), |pki, _| {
            Frontend::new(pki.good())
        }),
        refused("a certificate of another authority", &["--tls-ca-path"], ca, |_, _| {
            frontend(Authority::new().identity(&["localhost"]), &["h2"])
        }),
        refused("a certificate for others", &["a.example, *.b.example", "localhost"], ca, |pki, _| {
            Frontend::new(pki.answering_to(&["a.example", "*.b.example"]))
        }),
        refused("a certificate that expired", &["2002-01-01"], ca, |pki, _| {
            frontend(pki.authority.identity_between(&["localhost"], (2001, 2002)), &["h2"])
        }),
        refused("a certificate from the future", &["2501-01-01"], ca, |pki, _| {
            frontend(pki.authority.identity_between(&["localhost"], (2501, 2502)), &["h2"])
        }),
        refused("TLS without HTTP/2", &["ALPN h2"], ca, |pki, _| {
            frontend(pki.authority.identity(&["localhost"]), &["http/1.1"])
        }),
        refused("TLS without ALPN", &["ALPN h2"], ca, |pki, _| frontend(pki.authority.identity(&["localhost"]), &[])),
        refused("no client certificate", &["--tls-cert-path"], ca, |pki, _| Frontend::new(pki.mutual())),
        with_client("a stranger's client certificate", &["UnknownCA"], "stranger.crt", "stranger.key"),
        with_client("a key of another certificate", &["--tls-key-path"], "good.crt", "stranger.key"),
        with_client("a client certificate that is not there", &["none.crt"], "none.crt", "good.key"),
        with_client("a client certificate that is not PEM", &["words"], "words", "good.key"),
        with_client("a client certificate that is a directory", &["directory"], ".", "good.key"),
        with_client("a client key that is a certificate", &["good.crt", "private key"], "good.crt", "good.crt"),
        refused("an authority that is not PEM", &["words"], (&["--tls-ca-path", "words"], &[]), |pki, home| {
            fs::write(home.root().join("words"), "no PEM\n").unwrap();
            Frontend::new(pki.good())
        }),
    ]
}

/// A frontend that demands a client certificate, and this one.
fn with_client(
    when: &'static str,
    names: &'static [&'static str],
    certificate: &'static str,
    key: &'static str,
) -> Case {
    case(when, 1, names, move |home| {
        let pki = Pki::new(home);
        let frontend = Frontend::new(pki.mutual());
        pki.authority.identity(&["client"]).write(home.root(), "good");
        Authority::new().identity(&["client"]).write(home.root(), "stranger");
        fs::write(home.root().join("words"), "no PEM\n").unwrap();
        let options = [CA[0], CA[1], "--tls-cert-path", certificate, "--tls-key-path", key];
        external_tls::run(home, &frontend, &options).run().into()
    })
}

fn cleartext_cases() -> Vec<Case> {
    fn clear(_: &Pki, _: &Home) -> Frontend {
        Frontend::new(None)
    }
    fn encrypted(pki: &Pki, _: &Home) -> Frontend {
        Frontend::new(pki.good())
    }
    vec![
        refused("TLS where none is spoken", &["--tls demands"], (&["--tls"], &[]), clear),
        refused("a key where no TLS is spoken", &["TEMPORAL_API_KEY"], (&[], &[("TEMPORAL_API_KEY", "k")]), clear),
        refused("TLS that is forbidden", &["TEMPORAL_TLS=false"], (&[], &[("TEMPORAL_TLS", "0")]), encrypted),
        case("a web server instead of Temporal", 1, &["a web server"], |home| {
            let web = ReleaseServer::start();
            let base = web.base();
            let address = base.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap();
            home.stigmer(["local", "run", "--temporal-host", address, "--", "true"]).run().into()
        }),
    ]
}

/// An answer to the calls of `path`, with a key that is sent, or without.
fn answering(when: &'static str, key: bool, path: &'static str, answer: Answer, name: &'static str) -> Case {
    let names: &'static [&'static str] = Box::leak(Box::new([name]));
    case(when, 1, names, move |home| {
        let frontend = Frontend::new(Pki::new(home).good());
        frontend.answer(path, answer.clone());
        let run = external_tls::run(home, &frontend, &CA);
        if key { run.env("TEMPORAL_API_KEY", "a-key") } else { run }.run().into()
    })
}

fn http_cases() -> Vec<Case> {
    let http = Answer::Http;
    vec![
        answering("HTTP 200 without gRPC", false, HEALTH, http(200), "a web server"),
        answering("HTTP 302 instead of gRPC", false, HEALTH, http(302), "HTTP 302"),
        answering("HTTP 401 instead of gRPC, without a key", false, HEALTH, http(401), "TEMPORAL_API_KEY"),
        answering("HTTP 401 instead of gRPC, with a key", true, HEALTH, http(401), "TEMPORAL_API_KEY"),
        answering("HTTP 403 instead of gRPC, without a key", false, HEALTH, http(403), "TEMPORAL_API_KEY"),
        answering("HTTP 403 instead of gRPC, with a key", true, HEALTH, http(403), "HTTP 403"),
        answering("HTTP 404 instead of gRPC", false, SYSTEM_INFO, http(404), "HTTP 404"),
        answering("HTTP 502 instead of gRPC", false, HEALTH, http(502), "HTTP 502"),
    ]
}

fn grpc_cases() -> Vec<Case> {
    let status = |code, text: &str| Answer::Status(code, text.into());
    vec![
        answering("UNAUTHENTICATED without a key", false, HEALTH, status(16, ""), "UNAUTHENTICATED"),
        answering("UNAUTHENTICATED with a key", true, DESCRIBE, status(16, "jwt expired"), "jwt expired"),
        answering("PERMISSION_DENIED with a key", true, SYSTEM_INFO, status(7, "Request unauthorized."), "DENIED"),
        answering("PERMISSION_DENIED without a key", false, DESCRIBE, status(7, ""), "TEMPORAL_API_KEY"),
        answering("a namespace that is not there", true, DESCRIBE, status(5, "Not found."), "'default'"),
        answering("a namespace that cannot be", true, DESCRIBE, status(3, "Bad."), "'default'"),
        answering("a health check that fails", false, HEALTH, status(13, "%0Aa\u{1b}[31m"), "INTERNAL"),
        answering("a status that is none", false, SYSTEM_INFO, status(99, "odd"), "status 99"),
        answering("a namespace too slow to describe", true, DESCRIBE, status(4, ""), "DEADLINE_EXCEEDED"),
        answering("a call that is reset", false, DESCRIBE, Answer::Reset, "HTTP/2"),
        refused("gRPC that is not Temporal's", &["not a Temporal frontend"], (&CA, &[]), |pki, _| {
            let frontend = Frontend::new(pki.good());
            for path in [HEALTH, SYSTEM_INFO] {
                frontend.answer(path, Answer::Status(12, String::new()));
            }
            frontend
        }),
        answering("no answer to a call", false, HEALTH, Answer::Silence, "does not answer"),
        answering("one that never serves", false, HEALTH, Answer::Ok(vec![8, 2]), "did not serve"),
    ]
}
