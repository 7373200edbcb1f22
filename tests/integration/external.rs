//! A Temporal that somebody else runs: reached, shown, never started.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::support::json::{self, Value};
use crate::support::*;

/// How a TLS server answers a client without TLS: alert, fatal, unexpected message.
const TLS_ALERT: &[u8] = &[21, 3, 3, 0, 2, 2, 10];

#[track_caller]
fn start<'h>(home: &'h Home, address: &str) -> Running<'h> {
    let mut start = home.stigmer(["local", "start", "--temporal-host", address]).spawn();
    start.wait_for_stdout("Ready.\n");
    start
}

#[track_caller]
fn assert_nothing_was_started(home: &Home) {
    assert_eq!(home.starts(), []);
    assert!(!home.temporal().exists() && !home.database().exists() && !home.log().exists());
}

/// A home in which a stand-in runs, to be the external Temporal of another.
fn elsewhere() -> (Home, String) {
    let home = Home::new().with_stand_in();
    home.stigmer(["local", "start", "--detach"]).run().success();
    let address = format!("127.0.0.1:{}", home.port());
    (home, address)
}

/// A server that does `answer` to each connection, on a thread that ends with
/// the test's process.
fn server(answer: impl Fn(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    address
}

#[test]
fn an_external_temporal_is_used_and_none_is_started() {
    let (other, address) = elsewhere();
    let home = Home::new();
    let daemon = start(&home, &address);
    let expected = format!(
        "[•] Stigmer Local Daemon starting...\n\
         [•] Using external Temporal: {address} (from --temporal-host)\n\
         [•] Skipping local Temporal startup\n\
         [✓] Stigmer Daemon Ready.\n"
    );
    assert_eq!((daemon.stdout(), daemon.stderr()), (expected, String::new()));
    let status = home.stigmer(["local", "status", "--json"]).run();
    let state = json::object(&status.success().stdout);
    assert_eq!((state["mode"].text(), state["address"].text()), ("external", &*address));
    assert_eq!((&state["running"], &state["ready"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!(state["daemon_pid"].number(), daemon.id().into());
    for unknown in ["temporal_pid", "ui_url", "database", "log"] {
        assert_eq!(state[unknown], Value::Null, "{unknown}");
    }
    home.stigmer(["local", "status"]).run().success().stdout_has("External Temporal is reachable").stdout_has(&address);
    let second = home.stigmer(["local", "start", "--temporal-host", &address]).run();
    second.success().stdout_has("already running").stdout_has(&address);
    let restart = home.stigmer(["local", "restart"]).run();
    assert!(restart.fails_with(&["external", &address]).hint().is_some());
    home.stigmer(["local", "stop"]).run().success();
    daemon.wait().success();
    assert_nothing_was_started(&home);
    home.assert_quiet();
    // The other one is not ours.
    other.stigmer(["local", "status"]).run().success();
    other.stigmer(["local", "stop"]).run().success();
}

#[test]
fn the_variable_selects_it_too_and_ignored_flags_are_named() {
    let (other, address) = elsewhere();
    let home = Home::new();
    let start = |arguments: &[&str]| {
        let start = home.stigmer(["local", "start", "--detach"]).args(arguments);
        start.env("TEMPORAL_SERVICE_ADDRESS", &address).run()
    };
    let outcome = start(&["--port", "7300", "--offline"]);
    outcome.success().stdout_has(&format!("Using external Temporal: {address} (from TEMPORAL_SERVICE_ADDRESS)"));
    for flag in ["--port", "--offline"] {
        outcome.stdout_has(&format!("[!] {flag} is ignored: TEMPORAL_SERVICE_ADDRESS selects an external Temporal\n"));
    }
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
    let flag_wins = start(&["--temporal-host", &address]);
    flag_wins.success().stdout_has("(from --temporal-host)").stdout_lacks("[!]");
    home.stigmer(["local", "stop"]).run().success();
    assert_nothing_was_started(&home);
    home.assert_quiet();
    other.stigmer(["local", "stop"]).run().success();
}

#[test]
fn an_empty_variable_selects_nothing() {
    let home = Home::new().with_stand_in();
    let outcome = home.stigmer(["local", "start", "--detach"]).env("TEMPORAL_SERVICE_ADDRESS", "").run();
    outcome.success().stdout_lacks("external");
    assert_eq!(home.starts().len(), 1);
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
}

#[test]
fn one_that_is_not_there_is_reported_with_address_source_and_cause() {
    let home = Home::new();
    // Reserved by this home, and nobody listens.
    let refused = format!("127.0.0.1:{}", home.ui_port());
    for (address, cause) in [(refused.as_str(), "refused"), ("nowhere.invalid:7233", "resolved")] {
        for detach in [&[][..], &["--detach"]] {
            let outcome = home.stigmer(["local", "start", "--temporal-host", address]).args(detach).run();
            outcome.fails_with(&["cannot use the external Temporal", address, "--temporal-host", cause]);
            assert!(outcome.hint().is_some(), "{}", outcome.describe());
            home.assert_quiet();
        }
        let run = home.stigmer(["local", "run", "--", "touch", "begun"]).env("TEMPORAL_SERVICE_ADDRESS", address).run();
        run.fails_with(&["cannot use the external Temporal", address, "TEMPORAL_SERVICE_ADDRESS", cause]);
    }
    assert!(!home.root().join("begun").exists());
    assert_nothing_was_started(&home);
}

#[test]
fn one_that_speaks_no_grpc_is_never_called_ready() {
    let silent = server(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let alert = server(|mut stream| {
        let _ = stream.read(&mut [0; 64]);
        let _ = stream.write_all(TLS_ALERT);
    });
    let cases = [
        (silent, "it takes connections and does not answer"),
        (alert, "it refuses TLS with the alert UnexpectedMessage"),
        (server(drop), "it closed the connection without a word"),
    ];
    in_parallel(3, cases, |(address, cause): (String, &str)| {
        let home = Home::new();
        let outcome = home.stigmer(["local", "start", "--temporal-host", &address]).run();
        outcome.fails_with(&["cannot use the external Temporal", &address, cause]).stdout_lacks("Ready");
        assert!(outcome.hint().is_some(), "{}", outcome.describe());
        home.assert_quiet();
    });
}

#[test]
fn ctrl_c_does_not_wait_for_a_silent_address() {
    let address = server(|mut stream| {
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let home = Home::new();
    let mut start = home.stigmer(["local", "start", "--temporal-host", &address]).spawn();
    start.wait_for_stdout("Using external Temporal");
    start.signal(libc::SIGINT);
    start.wait().stdout_lacks("Ready");
    home.assert_quiet();
}

#[test]
fn one_that_does_not_serve_in_time_is_an_error() {
    let (other, address) = elsewhere();
    other.behave("never-serve");
    let home = Home::new();
    let outcome = home.stigmer(["local", "start", "--temporal-host", &address]).run();
    outcome.fails_with(&["cannot use the external Temporal", &address, "did not serve"]);
    home.assert_quiet();
    other.stigmer(["local", "stop"]).run().success();
}

#[test]
fn one_that_goes_away_shows_in_the_status() {
    let (other, address) = elsewhere();
    let home = Home::new();
    let daemon = start(&home, &address);
    other.stigmer(["local", "stop"]).run().success();
    home.stigmer(["local", "status"])
        .run()
        .exits_with(1)
        .stdout_has("External Temporal is lost, for ")
        .stdout_has("connection refused");
    daemon.signal(libc::SIGINT);
    daemon.wait().success();
    home.assert_quiet();
}

#[test]
fn run_gives_the_command_the_external_address() {
    let (other, address) = elsewhere();
    let home = Home::new();
    let script = "echo $TEMPORAL_ADDRESS $TEMPORAL_SERVICE_ADDRESS; exit 3";
    for by_flag in [true, false] {
        let stigmer = match by_flag {
            true => home.stigmer(["local", "run", "--temporal-host", &address]),
            false => home.stigmer(["local", "run"]).env("TEMPORAL_SERVICE_ADDRESS", &address),
        };
        let outcome = stigmer.args(["--", "sh", "-c", script]).run();
        outcome.exits_with(3);
        assert_eq!(outcome.stdout, format!("{address} {address}\n"));
    }
    assert_nothing_was_started(&home);
    home.assert_quiet();
    other.stigmer(["local", "status"]).run().success();
    other.stigmer(["local", "stop"]).run().success();
}

#[test]
fn malformed_addresses_are_usage_errors_with_the_right_form() {
    let home = Home::new();
    for (address, hint) in [
        ("http://t.example:7233", "t.example:7233"),
        ("https://t.example/namespaces", "t.example:7233"),
        ("::1", "[::1]:7233"),
        ("host:0", "host:7233"),
        ("host:65536", "host:7233"),
        (" host:1", "host:1"),
        (":7233", "HOST"),
    ] {
        let flag = home.stigmer(["local", "start", "--temporal-host", address]).run();
        let variable = home.stigmer(["local", "start"]).env("TEMPORAL_SERVICE_ADDRESS", address).run();
        for (outcome, source) in [(flag, "--temporal-host"), (variable, "TEMPORAL_SERVICE_ADDRESS")] {
            outcome.exits_with(2);
            assert!(outcome.error().starts_with(source), "{}", outcome.describe());
            assert!(outcome.error().contains(address), "{}", outcome.describe());
            assert!(outcome.hint().unwrap().contains(hint), "{}", outcome.describe());
        }
    }
    let empty = home.stigmer(["local", "start", "--temporal-host", ""]).run();
    empty.exits_with(2);
    assert!(!home.path().exists());
}

#[test]
fn options_of_the_managed_server_cannot_go_with_the_flag() {
    let home = Home::new();
    for arguments in [
        &["--port", "7300"][..],
        &["--ui-port=8300"],
        &["--ip", "127.0.0.1"],
        &["--temporal-version", "9.9.9"],
        &["--temporal-bin", "/bin/true"],
        &["--mirror", "/tmp"],
        &["--offline"],
        &["--temporal-arg=-x"],
        &["--ready-timeout", "5"],
    ] {
        for command in [&["local", "start"][..], &["local", "run"]] {
            let stigmer = home.stigmer(command).args(["--temporal-host", "t.example"]).args(arguments);
            let outcome = stigmer.args(if command[1] == "run" { &["--", "true"][..] } else { &[] }).run();
            outcome.exits_with(2);
            let flag = arguments[0].split('=').next().unwrap();
            assert!(outcome.error().contains(flag) && outcome.error().contains("--temporal-host"));
            assert!(outcome.hint().is_some(), "{}", outcome.describe());
        }
    }
}
