//! `run --ephemeral`: a Temporal for one command alone.

use std::collections::HashSet;
use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;

use crate::support::archive::{VERSION, asset_path, small_release};
use crate::support::process::signal;
use crate::support::*;

const ADDRESS: &str = "echo $TEMPORAL_ADDRESS";
/// A command that says when it has begun, and goes on until it is told to end.
const WAITING: &str = "echo $$ > begun; until [ -e end ]; do sleep 0.01; done";

fn home() -> Home {
    Home::new().with_stand_in()
}

fn ephemeral<'h>(home: &'h Home, options: &[&str], script: &str) -> Stigmer<'h> {
    home.stigmer(["local", "run", "--ephemeral"]).args(options).args(["--", "sh", "-c", script])
}

fn note(home: &Home, name: &str) -> String {
    fs::read_to_string(home.root().join(name)).unwrap_or_default()
}

#[track_caller]
fn wait_for_note(home: &Home, name: &str) {
    home.wait_for(&format!("the note '{name}'"), || note(home, name).ends_with('\n'));
}

/// Every file of the home, sorted.
fn files(home: &Home) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut directories = vec![home.path()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() { &mut directories } else { &mut found }.push(entry);
        }
    }
    found.sort();
    found
}

#[track_caller]
fn assert_nothing_runs_at(port: u16) {
    assert!(TcpListener::bind(("127.0.0.1", port)).is_ok(), "something still listens at port {port}");
}

#[test]
fn it_is_in_memory_on_free_ports_beside_the_daemon_and_killed_with_the_command() {
    let home = home();
    home.stigmer(["local", "start", "--detach"]).run().success();
    ephemeral(&home, &[], "true").run().success();
    let before = files(&home);
    for (script, code) in [("exit 0", 0), ("exit 42", 42), ("kill -TERM $$", 128 + 15)] {
        let outcome = ephemeral(&home, &[], &format!("{ADDRESS}; {script}")).run();
        outcome.exits_with(code).stderr_has("UI available at http://localhost:");
        let port: u16 = outcome.stdout.trim().strip_prefix("127.0.0.1:").unwrap().parse().unwrap();
        assert!(port != home.port() && port != home.ui_port(), "{}", outcome.describe());
        assert_nothing_runs_at(port);
        let (pid, arguments) = home.starts().pop().unwrap();
        assert!(arguments.contains(&format!("--port {port} ")) && !arguments.contains("--db-filename"), "{arguments}");
        assert!(!home::is_alive(pid) && !home.stops().contains(&pid), "it is to be killed, not stopped");
    }
    assert_eq!(files(&home), before, "files are left");
    home.stigmer(["local", "status"]).run().success();
    home.stigmer(["local", "stop"]).run().success();
    assert_eq!(home.stops().len(), 1);
    home.assert_quiet();
}

#[test]
fn twenty_at_once_each_have_their_own() {
    let home = home();
    let runs: Vec<_> = (0..20).map(|_| ephemeral(&home, &[], ADDRESS).spawn()).collect();
    let outcomes: Vec<_> = runs.into_iter().map(Running::wait).collect();
    let addresses: HashSet<_> = outcomes.iter().map(|outcome| outcome.success().stdout.clone()).collect();
    assert_eq!(addresses.len(), 20, "{addresses:?}");
    home.assert_quiet();
}

#[test]
fn typed_ports_are_used_and_a_taken_one_is_an_error() {
    let home = home();
    let port = home.port().to_string();
    let outcome = ephemeral(&home, &["--port", &port], ADDRESS).run();
    assert_eq!(outcome.success().stdout, format!("127.0.0.1:{port}\n"));
    let _taken = TcpListener::bind(("127.0.0.1", home.port())).unwrap();
    ephemeral(&home, &["--port", &port], "echo begun").run().fails_with(&[&port, "--port"]).stdout_lacks("begun");
    home.assert_quiet();
}

#[test]
fn ports_are_chosen_anew_when_another_program_was_faster() {
    let home = home();
    home.behave("fail-first 2\nsay listen tcp: bind: address already in use");
    ephemeral(&home, &[], "true").run().success();
    let ports: HashSet<_> = home.starts().into_iter().map(|(_, arguments)| arguments).collect();
    assert_eq!(ports.len(), 3, "{ports:?}");
    home.behave("exit-before-serving 1\nsay listen tcp: bind: address already in use");
    ephemeral(&home, &[], "echo begun").run().fails_with(&["address already in use"]).stdout_lacks("begun");
    home.assert_quiet();
}

#[test]
fn a_temporal_that_cannot_start_is_explained_and_its_log_kept() {
    let home = home();
    home.behave("exit-before-serving 7\nsay no luck today");
    let outcome = ephemeral(&home, &[], "echo begun").run();
    outcome.fails_with(&["cannot start Temporal", "exit status 7", "  | no luck today", "logs/ephemeral.log"]);
    outcome.stdout_lacks("begun");
    let kept = fs::read_to_string(home.path().join("logs/ephemeral.log")).unwrap();
    assert!(kept.starts_with("=== ") && kept.ends_with("\nno luck today\n"), "{kept}");
    home.assert_quiet();
}

#[test]
fn a_temporal_that_dies_is_reported_at_once_and_again_at_the_end() {
    let home = home();
    home.behave("say last words");
    let mut run = ephemeral(&home, &[], &format!("{WAITING}; exit 5")).spawn();
    wait_for_note(&home, "begun");
    home.crash("signal 9");
    run.wait_for_stderr("[!] Temporal ended unexpectedly (signal 9 (SIGKILL))");
    assert!(!run.has_ended(), "the command goes on");
    fs::write(home.root().join("end"), "").unwrap();
    let outcome = run.wait();
    outcome.exits_with(5).stderr_has("  | last words").stderr_has("logs/ephemeral.log");
    assert!(outcome.error().starts_with("cannot rely on this run of sh (exit status 5): "), "{}", outcome.describe());
    assert_eq!(home.starts().len(), 1, "a new one would hide what is lost");
    home.assert_quiet();
}

#[test]
#[cfg(target_os = "linux")]
fn a_killed_run_leaves_no_process_and_no_file() {
    let home = home();
    ephemeral(&home, &[], "true").run().success();
    let before = files(&home);
    let run = ephemeral(&home, &[], "echo begun > begun; exec sleep 1000").spawn();
    wait_for_note(&home, "begun");
    run.signal(libc::SIGKILL);
    home.wait_until_quiet(LIMIT);
    assert_eq!(home.stops(), [], "nothing is to be saved");
    assert_eq!(files(&home), before);
}

#[test]
fn what_is_sent_to_run_reaches_the_command_alone() {
    for (number, name) in [(libc::SIGTERM, "TERM"), (libc::SIGHUP, "HUP"), (libc::SIGINT, "INT")] {
        let home = home();
        let run = ephemeral(&home, &[], &format!("trap 'exit 33' {name}; {WAITING}")).in_own_group().spawn();
        wait_for_note(&home, "begun");
        run.signal(number);
        run.wait().exits_with(33).stderr_lacks("ended unexpectedly");
        home.assert_quiet();
    }
}

#[test]
fn ctrl_c_reaches_the_command_first() {
    let home = home();
    // Temporal is still there when the command says goodbye.
    let script = "trap 'kill -0 $(cut -d \" \" -f 1 \"$STAND_IN_DIR/starts\"); echo $? > seen; exit 9' INT";
    let run = ephemeral(&home, &[], &format!("{script}; {WAITING}"));
    let mut terminal = Pty::spawn(run, 80, 24);
    wait_for_note(&home, "begun");
    terminal.ctrl_c();
    assert_eq!(terminal.wait().code(), Some(9));
    assert_eq!(note(&home, "seen"), "0\n");
    home.assert_quiet();
}

#[test]
fn an_interrupt_before_it_serves_leaves_nothing() {
    for number in [libc::SIGINT, libc::SIGTERM] {
        let home = home();
        home.behave("never-serve");
        let run = ephemeral(&home, &[], "echo begun").spawn();
        home.wait_for("the start", || home.starts().len() == 1);
        run.signal(number);
        run.wait().fails_as(128 + number, &["interrupted before it was ready"]).stdout_lacks("begun");
        home.assert_quiet();
    }
}

#[test]
fn it_is_ours_whatever_the_shell_says() {
    let home = home();
    let run = ephemeral(&home, &[], ADDRESS).env("TEMPORAL_SERVICE_ADDRESS", "prod.example:7233");
    run.run().success().stdout_has("127.0.0.1:");
    let wrong = ["--temporal-host prod.example", "--temporal-arg --db-filename=x"];
    for options in wrong.map(|options| options.split(' ').collect::<Vec<_>>()) {
        ephemeral(&home, &options, "echo begun").run().fails_as(2, &["--ephemeral"]).stdout_lacks("begun");
    }
}

#[test]
fn of_two_first_ones_at_once_one_installs_and_the_other_waits() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let base = server.base();
    let options = ["--temporal-version", VERSION, "--mirror", &base];
    let runs: Vec<_> = (0..5).map(|_| ephemeral(&home, &options, ADDRESS).spawn()).collect();
    let outcomes: Vec<_> = runs.into_iter().map(Running::wait).collect();
    let installed = outcomes.iter().filter(|outcome| outcome.success().stderr.contains("binary installed")).count();
    assert_eq!((installed, server.requests_for(&asset_path(VERSION)).len()), (1, 1));
    // And the daemon finds it there.
    home.stigmer(["local", "start", "--detach"]).args(options).run().success().stdout_lacks("installed");
    // Another version would come under the daemon's feet.
    server.publish("9.9.8", small_release());
    let other = ["--temporal-version", "9.9.8", "--mirror", &base];
    ephemeral(&home, &other, "true").run().fails_with(&["9.9.8", VERSION, "stigmer local stop"]);
    home.stigmer(["local", "stop"]).run().success();
    ephemeral(&home, &other, "true").run().success();
    home.assert_quiet();
}

#[test]
fn what_the_command_leaves_in_the_background_holds_nothing_up() {
    let home = home();
    let outcome = ephemeral(&home, &[], "sleep 1000 >/dev/null 2>&1 </dev/null & echo $! > background; exit 6").run();
    outcome.exits_with(6);
    signal(note(&home, "background").trim().parse().unwrap(), libc::SIGKILL);
    home.wait_until_quiet(LIMIT);
}
