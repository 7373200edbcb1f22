//! `run`: a command with Temporal up, as if it were run alone.

use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

use crate::support::process::{append_to, binary, signal};
use crate::support::*;

fn home() -> Home {
    Home::new().with_stand_in()
}

fn run<'h>(home: &'h Home, command: &[&str]) -> Stigmer<'h> {
    home.stigmer(["local", "run", "--"]).args(command)
}

fn run_shell<'h>(home: &'h Home, script: &str) -> Stigmer<'h> {
    run(home, &["sh", "-c", script])
}

/// A file in which a command leaves something for the test.
fn note(home: &Home, name: &str) -> PathBuf {
    home.root().join(name)
}

fn read(home: &Home, name: &str) -> String {
    fs::read_to_string(note(home, name)).unwrap_or_default()
}

#[track_caller]
fn wait_for_note(home: &Home, name: &str) {
    home.wait_for(&format!("the note '{name}'"), || read(home, name).ends_with('\n'));
}

fn is_ready(home: &Home) -> bool {
    home.stigmer(["local", "status"]).run().code() == 0
}

#[track_caller]
fn assert_stopped(home: &Home) {
    home.assert_quiet();
    let started: Vec<u32> = home.starts().iter().map(|start| start.0).collect();
    assert_eq!(home.stops(), started, "{}", home.describe());
}

#[test]
fn the_commands_exit_status_is_passed_on_and_nothing_is_left() {
    let home = home();
    for (script, code) in [
        ("exit 0", 0),
        ("exit 1", 1),
        ("exit 42", 42),
        ("exit 255", 255),
        ("kill -TERM $$", 128 + 15),
        ("kill -KILL $$", 128 + 9),
        ("kill -INT $$", 128 + 2),
        ("kill -SEGV $$", 128 + 11),
    ] {
        let outcome = run_shell(&home, script).run();
        outcome.exits_with(code);
        assert_eq!(outcome.status.code(), Some(code), "it exits, it does not die itself\n{}", outcome.describe());
        assert_eq!(outcome.stdout, "");
        assert_stopped(&home);
    }
    assert_eq!(home.starts().len(), 8);
}

#[test]
fn a_command_that_cannot_be_run_fails_as_in_a_shell() {
    let home = home();
    let plain = note(&home, "plain");
    fs::write(&plain, "no program").unwrap();
    for (program, code) in [
        ("no-such-program-here", 127),
        ("/no/such/program", 127),
        (plain.to_str().unwrap(), 126),
        (home.root().to_str().unwrap(), 126),
    ] {
        let outcome = run(&home, &[program]).run();
        outcome.exits_with(code);
        assert!(outcome.error().starts_with(&format!("cannot run {program}: ")), "{}", outcome.describe());
        assert!(outcome.hint().is_some(), "{}", outcome.describe());
        outcome.stderr_lacks("os error");
        assert_stopped(&home);
    }
}

#[test]
fn the_command_finds_temporals_address_in_its_environment() {
    let home = home();
    let script = "echo $TEMPORAL_ADDRESS $TEMPORAL_SERVICE_ADDRESS $TEMPORAL_NAMESPACE";
    let address = format!("127.0.0.1:{}", home.port());
    let namespaces = [(None, "default"), (Some(""), "default"), (Some("orders"), "orders")];
    for (namespace, expected) in namespaces {
        let mut stigmer = run_shell(&home, script);
        if let Some(namespace) = namespace {
            stigmer = stigmer.env("TEMPORAL_NAMESPACE", namespace);
        }
        let outcome = stigmer.run();
        outcome.success();
        assert_eq!(outcome.stdout, format!("{address} {address} {expected}\n"));
    }
    assert_stopped(&home);
}

#[test]
fn the_commands_streams_are_its_own_and_status_lines_go_to_stderr() {
    let home = home();
    let outcome = run_shell(&home, "cat; echo to-stderr >&2").input("from stdin\n\0\u{1}").run();
    outcome.success();
    assert_eq!(outcome.stdout, "from stdin\n\0\u{1}");
    outcome.stderr_has("[✓] Stigmer Daemon Ready.\n").stderr_has("\nto-stderr\n");
    assert_stopped(&home);
}

#[test]
#[cfg(target_os = "linux")]
fn the_command_sees_the_very_files_and_directory_of_its_caller() {
    let home = home();
    let script = "readlink /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2; pwd; ls /proc/self/fd";
    let seen = |stigmer: Stigmer<'_>, name: &str| {
        let mut command = stigmer.current_dir(home.user()).into_command();
        let output = append_to(&note(&home, name));
        assert!(command.stdin(Stdio::null()).stdout(output).stderr(Stdio::null()).status().unwrap().success());
        read(&home, name)
    };
    let alone = seen(Stigmer::of_program(&home, "sh".as_ref(), ["-c", script]), "alone");
    let under_run = seen(run_shell(&home, script), "under-run");
    assert!(alone.starts_with("/dev/null\n") && alone.contains("\n2\n"), "{alone}");
    assert_eq!(under_run, alone.replace("alone", "under-run"));
    assert_stopped(&home);
}

#[test]
fn a_hundred_megabytes_pass_through_stdout() {
    let home = home();
    let mut command = run(&home, &["head", "-c", "100000000", "/dev/zero"]).into_command();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let (mut buffer, zeros) = (vec![1; 1 << 20], vec![0; 1 << 20]);
    let mut length = 0;
    loop {
        match stdout.read(&mut buffer).unwrap() {
            0 => break,
            count => {
                assert!(buffer[..count] == zeros[..count]);
                length += count;
            }
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(length, 100_000_000);
    assert_stopped(&home);
}

#[test]
fn options_end_where_the_command_begins() {
    let home = home();
    for arguments in [&["--", "echo", "--port", "--help"][..], &["echo", "--port", "--help"]] {
        let outcome = home.stigmer(["local", "run"]).args(arguments).run();
        outcome.success();
        assert_eq!(outcome.stdout, "--port --help\n");
    }
}

#[test]
fn two_runs_share_one_server_which_stops_after_the_last() {
    let home = home();
    let script = |name: &str| format!("echo begun > {name}; until [ -e {name}-end ]; do sleep 0.01; done");
    let first = run_shell(&home, &script("first")).spawn();
    let second = run_shell(&home, &script("second")).spawn();
    wait_for_note(&home, "first");
    wait_for_note(&home, "second");
    assert_eq!(home.starts().len(), 1);
    fs::write(note(&home, "first-end"), "").unwrap();
    first.wait().success();
    assert!(is_ready(&home));
    assert_eq!(home.stops(), []);
    fs::write(note(&home, "second-end"), "").unwrap();
    second.wait().success();
    assert_eq!(home.starts().len(), 1);
    assert_stopped(&home);
}

#[test]
fn ten_runs_at_once_all_work() {
    let home = home();
    let runs: Vec<_> = (0..10).map(|_| run_shell(&home, "test -n \"$TEMPORAL_ADDRESS\"").spawn()).collect();
    for run in runs {
        run.wait().success();
    }
    assert_stopped(&home);
}

#[test]
fn a_daemon_that_already_runs_is_used_and_left_running() {
    let home = home();
    home.stigmer(["local", "start", "--detach"]).run().success();
    let outcome = run_shell(&home, "echo $TEMPORAL_ADDRESS").run();
    outcome.success();
    assert_eq!(outcome.stdout, format!("127.0.0.1:{}\n", home.port()));
    assert_eq!(outcome.stderr, "");
    assert!(is_ready(&home));
    assert_eq!((home.starts().len(), home.stops().len()), (1, 0));
    home.stigmer(["local", "stop"]).run().success();
    assert_stopped(&home);
}

#[test]
fn a_start_during_a_run_keeps_the_server_after_it() {
    let home = home();
    let run = run_shell(&home, "echo begun > begun; until [ -e end ]; do sleep 0.01; done").spawn();
    wait_for_note(&home, "begun");
    home.stigmer(["local", "start", "--detach"]).run().success().stdout_has("already running");
    home.wait_for("the daemon to be kept", || home.state_field("lifetime").as_deref() == Some("kept"));
    fs::write(note(&home, "end"), "").unwrap();
    run.wait().success();
    assert!(is_ready(&home));
    home.stigmer(["local", "stop"]).run().success();
    assert_stopped(&home);
}

#[test]
fn a_start_at_the_end_of_a_run_never_succeeds_in_vain() {
    in_parallel(4, 0..24, |number: u32| {
        let home = home();
        let run = run_shell(&home, &format!("sleep 0.{:03}", 2 * number)).spawn();
        home.wait_for("the server", || is_ready(&home) || home.starts().len() == 1);
        home.stigmer(["local", "start", "--detach"]).run().success();
        run.wait().success();
        home.stigmer(["local", "status"]).run().success();
        home.stigmer(["local", "stop"]).run().success();
        assert_stopped(&home);
    });
}

#[test]
fn the_server_of_a_killed_run_is_stopped_by_its_daemon() {
    let home = home();
    let run = run_shell(&home, "echo $$ > begun; exec sleep 1000").spawn();
    wait_for_note(&home, "begun");
    run.signal(libc::SIGKILL);
    // The command is nobody's child now, as after the kill of any shell.
    signal(read(&home, "begun").trim().parse().unwrap(), libc::SIGKILL);
    home.wait_until_quiet(LIMIT);
    assert_stopped(&home);
}

#[test]
fn a_crash_during_a_run_is_healed_and_the_command_goes_on() {
    let home = home();
    let run = run_shell(&home, "echo begun > begun; until [ -e end ]; do sleep 0.01; done; exit 5").spawn();
    wait_for_note(&home, "begun");
    home.crash("signal 9");
    home.wait_for("the second server", || home.starts().len() == 2);
    home.wait_for("its readiness", || is_ready(&home));
    fs::write(note(&home, "end"), "").unwrap();
    run.wait().exits_with(5);
    home.assert_quiet();
}

#[test]
fn a_server_that_cannot_start_fails_the_run_before_the_command() {
    let home = home();
    home.behave("exit-before-serving 9\nsay no luck");
    let outcome = run_shell(&home, "echo begun > begun").run();
    outcome.fails_with(&["cannot start Temporal", "exit status 9", "  | no luck"]);
    assert_eq!(outcome.stdout, "");
    assert!(!note(&home, "begun").exists());
    home.assert_quiet();
}

#[test]
fn a_run_that_is_interrupted_before_its_command_leaves_nothing() {
    for number in [libc::SIGINT, libc::SIGTERM] {
        let home = home();
        home.behave("slow-start 60000");
        let run = run_shell(&home, "echo begun > begun").spawn();
        home.wait_for("the start", || home.state_field("phase").as_deref() == Some("starting"));
        run.signal(number);
        run.wait().fails_as(128 + number, &["interrupted before it was ready"]);
        assert!(!note(&home, "begun").exists());
        home.wait_until_quiet(LIMIT);
    }
}

#[test]
fn sigterm_reaches_the_command_and_its_answer_is_passed_on() {
    for (number, name) in [(libc::SIGTERM, "TERM"), (libc::SIGHUP, "HUP"), (libc::SIGINT, "INT")] {
        let home = home();
        let script = format!("trap 'exit 33' {name}; echo begun > begun; while :; do sleep 0.01; done");
        // In the background, as a service manager or a test has it.
        let run = run_shell(&home, &script).in_own_group().spawn();
        wait_for_note(&home, "begun");
        run.signal(number);
        run.wait().exits_with(33);
        assert_stopped(&home);
    }
}

#[test]
fn a_command_that_ignores_sigterm_is_waited_for() {
    let home = home();
    let script = "trap '' TERM; echo begun > begun; until [ -e end ]; do sleep 0.01; done; exit 3";
    let mut run = run_shell(&home, script).spawn();
    wait_for_note(&home, "begun");
    run.signal(libc::SIGTERM);
    assert!(is_ready(&home) && !run.has_ended());
    fs::write(note(&home, "end"), "").unwrap();
    run.wait().exits_with(3);
    assert_stopped(&home);
}

#[test]
fn what_the_command_leaves_in_the_background_does_not_hold_the_run() {
    let home = home();
    let outcome = run_shell(&home, "sleep 1000 >/dev/null 2>&1 </dev/null & echo $! > background; exit 6").run();
    outcome.exits_with(6);
    assert_eq!(home.stops().len(), 1);
    // It was the user's wish; the test ends it.
    signal(read(&home, "background").trim().parse().unwrap(), libc::SIGKILL);
    home.wait_until_quiet(LIMIT);
}

#[test]
fn ctrl_c_reaches_the_command_first_and_temporal_stops_after_it() {
    let home = home();
    // The command records whether the server was still there at its own end.
    let script = "trap 'sleep 0.2; \"$stigmer\" local status > seen; echo $? >> seen; exit 9' INT; \
                  echo begun > begun; while :; do sleep 0.01; done";
    let mut terminal = Pty::spawn(run_shell(&home, script).env("stigmer", binary()), 80, 24);
    wait_for_note(&home, "begun");
    terminal.ctrl_c();
    assert_eq!(terminal.wait().code(), Some(9));
    assert!(read(&home, "seen").ends_with("\n0\n"), "{}", read(&home, "seen"));
    assert_stopped(&home);
}

#[test]
fn a_command_killed_by_ctrl_c_makes_run_exit_with_130() {
    let home = home();
    let mut terminal = Pty::spawn(run_shell(&home, "echo begun > begun; exec sleep 1000"), 80, 24);
    wait_for_note(&home, "begun");
    terminal.ctrl_c();
    assert_eq!(terminal.wait().code(), Some(130));
    assert_stopped(&home);
}

#[test]
fn the_command_has_the_terminal_and_its_size() {
    let home = home();
    let script = "test -t 0 && test -t 1 && test -t 2 && stty size; read line; echo \"read $line\"";
    let mut terminal = Pty::spawn(run_shell(&home, script), 91, 17);
    terminal.wait_for("17 91");
    terminal.type_keys(b"words\n");
    terminal.wait_for("read words");
    assert!(terminal.wait().success());
    assert_stopped(&home);
}

#[test]
#[cfg(target_os = "linux")]
fn ctrl_z_suspends_run_and_command_and_fg_goes_on() {
    let home = home();
    let interactive = Stigmer::of_program(&home, "sh".as_ref(), ["-i"]).env("PS1", "> ").env("stigmer", binary());
    let mut terminal = Pty::spawn(interactive, 80, 24);
    terminal.wait_for("> ");
    // No loop of short commands: a shell that is stopped while it starts one
    // may not show it.
    let script = "echo $$ > begun; exec sleep 1000";
    terminal.type_keys(format!("\"$stigmer\" local run -- sh -c '{script}'; echo \"first $?\"\n").as_bytes());
    wait_for_note(&home, "begun");
    let command: u32 = read(&home, "begun").trim().parse().unwrap();
    let state = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat[stat.rfind(')').unwrap() + 2..].chars().next().unwrap()
    };
    terminal.ctrl_z();
    home.wait_for("the command to be suspended", || state(command) == 'T');
    terminal.wait_for("topped");
    assert!(is_ready(&home));
    terminal.type_keys(b"fg; echo \"second $?\"\n");
    home.wait_for("the command to go on", || state(command) != 'T');
    terminal.ctrl_c();
    terminal.wait_for("second 130");
    terminal.type_keys(b"exit\n");
    terminal.wait();
    assert_stopped(&home);
}

#[test]
fn a_run_whose_terminal_closes_leaves_nothing() {
    let home = home();
    let mut terminal = Pty::spawn(run_shell(&home, "echo begun > begun; exec sleep 1000"), 80, 24);
    wait_for_note(&home, "begun");
    terminal.hang_up();
    assert_eq!(terminal.wait().code(), Some(128 + libc::SIGHUP));
    assert_stopped(&home);
}

#[test]
fn a_stop_during_a_run_does_not_end_the_command() {
    let home = home();
    let run = run_shell(&home, "echo begun > begun; until [ -e end ]; do sleep 0.01; done; exit 8").spawn();
    wait_for_note(&home, "begun");
    home.stigmer(["local", "stop"]).run().success();
    assert_eq!(home.stops().len(), 1);
    fs::write(note(&home, "end"), "").unwrap();
    run.wait().exits_with(8);
    assert_stopped(&home);
}
