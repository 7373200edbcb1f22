//! What happens to a server that crashes, hangs or never serves, to a daemon
//! that is killed or loses its terminal, and what the other commands report of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use crate::install::SmallDisk;
use crate::support::archive::{VERSION, asset_path, small_release};
use crate::support::json::{self, Value};
use crate::support::process::{append_to, binary, signal, suspend};
use crate::support::pty::rendered;
use crate::support::*;

fn home() -> Home {
    Home::new().with_stand_in()
}

#[track_caller]
fn start(home: &Home) -> Running<'_> {
    let mut start = home.stigmer(["local", "start"]).spawn();
    start.wait_for_stdout("Ready.\n");
    start
}

#[track_caller]
fn start_detached(home: &Home) {
    home.stigmer(["local", "start", "--detach"]).run().success();
}

#[track_caller]
fn stop(home: &Home) {
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
}

/// The exit code of `status --json` and what it printed.
#[track_caller]
fn status(home: &Home) -> (i32, BTreeMap<String, Value>) {
    let outcome = home.stigmer(["local", "status", "--json"]).run();
    assert_eq!(outcome.stderr, "", "{}", outcome.describe());
    (outcome.code(), json::object(&outcome.stdout))
}

#[track_caller]
fn wait_for_phase(home: &Home, phase: &str) {
    home.wait_for(&format!("the phase '{phase}'"), || home.state_field("phase").as_deref() == Some(phase));
}

fn daemon_pid(home: &Home) -> u32 {
    home.state_field("daemon_pid").unwrap().parse().unwrap()
}

fn last_start(home: &Home) -> u32 {
    home.starts().last().unwrap().0
}

/// A shell script in the environment of this home, in which `$stigmer` is the
/// program.
fn shell<'h>(home: &'h Home, script: &str) -> Stigmer<'h> {
    Stigmer::of_program(home, "sh".as_ref(), ["-c", script]).env("stigmer", binary())
}

/// The state, session and terminal of a process, from /proc.
#[cfg(target_os = "linux")]
fn stat(pid: u32) -> (char, u32, i32) {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text[text.rfind(')').unwrap() + 2..].split(' ').collect();
    (fields[0].chars().next().unwrap(), fields[3].parse().unwrap(), fields[4].parse().unwrap())
}

#[test]
fn a_crashed_server_is_restarted_and_the_restart_is_counted() {
    let home = home();
    let mut daemon = start(&home);
    let first = last_start(&home);
    home.crash("3");
    daemon.wait_for_stdout("[!] Temporal ended unexpectedly (exit status 3); restarting in 0.25 s.\n");
    daemon.wait_for_stdout("[✓] Temporal is ready again (PID: ");
    let second = last_start(&home);
    assert_ne!(first, second);
    let (code, state) = status(&home);
    assert_eq!((code, state["restarts"].number(), state["temporal_pid"].number()), (0, 1, second.into()));
    home.crash("signal 9");
    daemon.wait_for_stdout("[!] Temporal ended unexpectedly (signal 9 (SIGKILL)); restarting in 0.5 s.\n");
    let third = || home.starts().get(2).map(|start| start.0);
    home.wait_for("the third server", || third().is_some());
    daemon.wait_for_stdout(&format!("[✓] Temporal is ready again (PID: {}).\n", third().unwrap()));
    assert_eq!(status(&home).1["restarts"].number(), 2);
    daemon.signal(libc::SIGTERM);
    daemon.wait().success();
    assert_eq!(home.stops(), [third().unwrap()]);
    home.assert_quiet();
}

#[test]
fn what_may_pass_is_waited_for_and_status_says_for_what_and_until_when() {
    let home = home();
    let mut daemon = start(&home);
    home.behave("exit-before-serving 4\nsay Error: bind: address already in use");
    home.crash("1");
    daemon.wait_for_stdout("(exit status 4: another program has its port); restarting in 8 s.\n");
    let delays: Vec<_> =
        daemon.stdout().lines().filter_map(|line| Some(line.split_once("restarting in ")?.1.to_owned())).collect();
    assert_eq!(delays, ["0.25 s.", "0.5 s.", "1 s.", "2 s.", "4 s.", "8 s."]);
    home.wait_for("the state to say so", || home.state_field("restarts").as_deref() == Some("6"));
    let (code, state) = status(&home);
    assert_eq!((code, &state["ready"], state["restarts"].number()), (1, &Value::Bool(false), 6));
    assert_eq!(state["retry_why"].text(), "exit status 4: another program has its port");
    assert!((1..=8).contains(&state["retry_seconds"].number()), "{state:?}");
    let shown = home.stigmer(["local", "status"]).run();
    shown.exits_with(1).stdout_has("not ready: exit status 4: another program has its port; starting it again in ");
    // A restart that is asked for is tried at once, and says why it failed.
    let starts = home.starts().len();
    let failed = home.stigmer(["local", "restart"]).run();
    failed.exits_with(1).stderr_has("error: cannot restart Temporal: exit status 4: another program has its port\n");
    failed.stderr_has("hint: it is tried again in 1");
    assert_eq!(home.starts().len(), starts + 1);
    // Whoever comes meanwhile waits, and reads for what.
    let mut waiting = home.stigmer(["local", "start"]).spawn();
    let why = format!("Another stigmer (PID: {}) is trying to start Temporal again ", daemon.id());
    waiting.wait_for_stdout(&(why + "(exit status 4: another program has its port); waiting for it.\n"));
    // Whoever knows that the cause is gone need not wait.
    home.behave("");
    home.stigmer(["local", "restart"]).run().success();
    assert_eq!(home.starts().len(), starts + 2);
    waiting.wait().success();
    let (code, state) = status(&home);
    assert_eq!((code, state.contains_key("retry_why")), (0, false));
    daemon.signal(libc::SIGTERM);
    daemon.wait().success();
    home.assert_quiet();
}

#[test]
fn status_says_when_little_room_is_left_for_the_database() {
    for (megabytes, is_short) in [(4, true), (64, false)] {
        let Some(disk) = SmallDisk::mount(megabytes << 20) else {
            return skip("this user cannot mount a small disk");
        };
        let home = Home::below(&disk.path).with_stand_in();
        start_detached(&home);
        let shown = home.stigmer(["local", "status"]).run();
        shown.success();
        assert_eq!(
            shown.stdout.contains("  disk       3 MB are free on the disk of "),
            is_short,
            "{}",
            shown.describe()
        );
        stop(&home);
    }
}

#[test]
fn a_suspended_daemon_that_does_not_serve_is_not_waited_for() {
    let home = home();
    let mut daemon = start(&home);
    home.behave("exit-before-serving 4");
    home.crash("1");
    daemon.wait_for_stdout("restarting in 4 s.\n");
    suspend(daemon.id());
    home.stigmer(["local", "start"]).run().exits_with(1).stderr_has("error: cannot start: the daemon (PID: ");
    daemon.signal(libc::SIGCONT);
    stop(&home);
    daemon.wait().success();
}

#[test]
fn a_daemon_that_waits_to_restart_stops_at_once() {
    let home = home();
    let mut daemon = start(&home);
    home.behave("exit-before-serving 4");
    home.crash("1");
    daemon.wait_for_stdout("restarting in 4 s.\n");
    stop(&home);
    daemon.wait().success().stdout_has("Temporal stopped.");
}

#[test]
fn what_cannot_pass_ends_the_daemon_at_once_with_the_log_and_the_cause() {
    for text in ["unknown flag: --nonsense", "file is not a database (26)"] {
        let home = home();
        let daemon = start(&home);
        home.behave(&format!("exit-before-serving 4\nsay Error: {text}"));
        home.crash("1");
        let outcome = daemon.wait();
        outcome.fails_with(&["cannot start Temporal: ", text]);
        assert!(outcome.hint().is_some(), "{}", outcome.describe());
        assert_eq!(home.starts().len(), 2);
        assert_eq!(status(&home).0, 3);
        home.assert_quiet();
    }
}

#[test]
fn an_executable_that_stays_away_ends_the_daemon() {
    let home = home();
    let daemon = start(&home);
    fs::remove_file(home.temporal()).unwrap();
    home.crash("1");
    let outcome = daemon.wait();
    outcome.fails_with(&["cannot execute ", "no such file"]);
    assert_eq!(outcome.stdout.matches("restarting in").count(), 5, "{}", outcome.describe());
    home.assert_quiet();
}

#[test]
fn a_failed_first_start_is_final_and_reads_the_same_in_the_foreground_and_detached() {
    for arguments in [&["local", "start"][..], &["local", "start", "--detach"]] {
        let home = home();
        home.behave("exit-before-serving 7\nsay something is wrong");
        let outcome = home.stigmer(arguments).run();
        outcome.fails_with(&["cannot start Temporal", "exit status 7", "  | something is wrong"]);
        assert!(outcome.hint().is_some(), "{}", outcome.describe());
        outcome.stdout_lacks("Ready");
        assert_eq!(home.starts().len(), 1);
        home.assert_quiet();
        assert_eq!(status(&home).0, 3);
        // Nothing of the failure stays behind.
        home.behave("");
        start_detached(&home);
        stop(&home);
    }
}

#[test]
fn an_executable_that_is_missing_for_a_moment_is_a_failure_like_others() {
    let home = home();
    let mut daemon = start(&home);
    let aside = home.root().join("aside");
    fs::rename(home.temporal(), &aside).unwrap();
    home.crash("1");
    daemon.wait_for_stdout("[!] Temporal did not start (cannot execute ");
    fs::rename(&aside, home.temporal()).unwrap();
    daemon.wait_for_stdout("[✓] Temporal is ready again");
    daemon.signal(libc::SIGTERM);
    daemon.wait().success();
}

#[test]
fn a_server_killed_before_it_serves_is_reported_with_the_signal() {
    let home = home();
    home.behave("die-by 9");
    let outcome = home.stigmer(["local", "start"]).run();
    outcome.fails_with(&["cannot start Temporal", "signal 9 (SIGKILL)"]);
    assert!(outcome.hint().unwrap().contains("memory"), "{}", outcome.describe());
    home.assert_quiet();
}

#[test]
fn a_server_that_never_serves_is_stopped_when_its_time_is_up() {
    let home = home();
    home.behave("never-serve");
    let outcome = home.stigmer(["local", "start", "--ready-timeout", "1"]).run();
    outcome.fails_with(&["cannot start Temporal", "did not serve within 1 s"]);
    assert!(outcome.hint().unwrap().contains("--ready-timeout"), "{}", outcome.describe());
    assert_eq!(home.stops(), [last_start(&home)]);
    home.assert_quiet();
}

#[test]
fn a_second_signal_kills_a_server_that_will_not_stop_and_all_it_started() {
    let home = home();
    home.behave("ignore-term\nfork");
    let mut daemon = start(&home);
    let grandchild = fs::read_to_string(home.stand_in_dir().join("grandchildren")).unwrap();
    let grandchild: u32 = grandchild.trim().parse().unwrap();
    assert!(home.processes().contains(&grandchild));
    daemon.signal(libc::SIGINT);
    wait_for_phase(&home, "stopping");
    assert!(!daemon.has_ended());
    daemon.signal(libc::SIGINT);
    let outcome = daemon.wait();
    outcome.success().stdout_has(&format!("[!] Killing Temporal (PID: {})", last_start(&home)));
    assert_eq!(home.stops(), []);
    home.wait_until_quiet(LIMIT);
}

#[test]
fn a_graceful_stop_leaves_no_grandchild_either() {
    let home = home();
    home.behave("fork");
    start_detached(&home);
    stop(&home);
    assert_eq!(home.stops(), [last_start(&home)]);
}

#[test]
fn a_port_taken_by_another_program_is_named_with_its_flag() {
    let home = home();
    for (port, flag) in [(home.port(), "--port"), (home.ui_port(), "--ui-port")] {
        let other = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let outcome = home.stigmer(["local", "start"]).run();
        outcome.fails_with(&[&format!("port {port}"), "another program"]);
        assert!(outcome.hint().unwrap().contains(&format!("{flag} ")), "{}", outcome.describe());
        drop(other);
        // Children that other tests are just forking hold it for a moment longer.
        home.wait_for("a free port", || TcpStream::connect(("127.0.0.1", port)).is_err());
    }
    assert_eq!(home.starts(), []);
    home.assert_quiet();
}

#[test]
fn a_port_taken_by_a_temporal_hints_at_using_it() {
    let (first, second) = (home(), home());
    start_detached(&first);
    let port = first.port().to_string();
    let outcome = second.stigmer(["local", "start", "--port", &port]).run();
    outcome.fails_with(&[&port, "a Temporal already runs"]);
    let hint = outcome.hint().unwrap();
    assert!(hint.contains(&format!("--temporal-host 127.0.0.1:{port}")) && hint.contains("--port"), "{hint}");
    assert_eq!(second.starts(), []);
    second.assert_quiet();
    stop(&first);
}

#[test]
#[cfg(target_os = "linux")]
fn a_database_broken_before_it_ever_served_is_moved_aside_and_made_anew() {
    let home = home();
    home.leave_half_a_database();
    let mut daemon = start(&home);
    daemon.wait_for_stdout("[!] The database was never completed; moved it to ");
    let broken = home.path().join("data/temporal.db.broken");
    assert_eq!(fs::read(&broken).unwrap(), b"half a schema\n");
    daemon.signal(libc::SIGTERM);
    daemon.wait().success().stdout_has(&broken.display().to_string());
    home.assert_quiet();
}

#[test]
fn a_damaged_database_that_once_served_is_explained_and_never_touched() {
    let home = home();
    start_detached(&home);
    stop(&home);
    fs::write(home.database(), "damaged later").unwrap();
    let outcome = home.stigmer(["local", "start"]).run();
    outcome.fails_with(&["cannot start Temporal", "no such table"]);
    assert!(outcome.hint().unwrap().contains(&home.database().display().to_string()), "{}", outcome.describe());
    assert_eq!(fs::read(home.database()).unwrap(), b"damaged later");
    assert_eq!(home.starts().len(), 2);
    home.assert_quiet();
}

#[test]
fn the_database_has_a_write_ahead_log_unless_the_user_chose_otherwise() {
    let home = home();
    let pragmas_of = |arguments: &[&str]| {
        home.stigmer(["local", "start", "--detach"]).args(arguments).run().success();
        stop(&home);
        let (_, started) = home.starts().pop().unwrap();
        started
            .split(' ')
            .filter_map(|word| word.strip_prefix("--sqlite-pragma="))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(pragmas_of(&[]), ["journal_mode=WAL", "synchronous=NORMAL"]);
    let full = ["--temporal-arg", "--sqlite-pragma=synchronous=FULL"];
    assert_eq!(pragmas_of(&full), ["journal_mode=WAL", "synchronous=FULL"]);
    assert_eq!(pragmas_of(&["--temporal-arg=--sqlite-pragma=journal_mode=DELETE"]), ["journal_mode=DELETE"]);
    home.assert_quiet();
}

#[test]
fn one_database_has_one_server_whatever_the_home() {
    let (first, second) = (home(), home());
    start_detached(&first);
    let database = first.database();
    let argument = format!("--temporal-arg=--db-filename={}", database.display());
    let outcome = second.stigmer(["local", "start", &argument]).run();
    outcome.fails_with(&[&database.display().to_string(), "another Temporal uses it"]);
    assert!(outcome.hint().is_some());
    second.assert_quiet();
    assert_eq!(second.starts(), []);
    stop(&first);
}

#[test]
fn ready_comes_with_the_address_of_clients_and_the_way_to_stop() {
    let home = home();
    let (address, url) = (format!("127.0.0.1:{}", home.port()), format!("http://localhost:{}", home.ui_port()));
    let last_lines = |stop: &str| {
        format!("[✓] UI available at {url}\n[•] Clients connect to {address}{stop}.\n[✓] Stigmer Daemon Ready.\n")
    };
    let mut foreground = home.stigmer(["local", "start"]).spawn();
    foreground.wait_for_stdout("Ready.");
    assert!(foreground.stdout().ends_with(&last_lines("; Ctrl-C stops it")), "{}", foreground.stdout());
    foreground.signal(libc::SIGINT);
    foreground.wait().success();
    let run = home.stigmer(["local", "run", "--", "true"]).run();
    run.success();
    assert!(run.stderr.ends_with(&last_lines("")), "{}", run.stderr);
    let stop_command = "; 'stigmer local stop' stops it";
    let detached = home.stigmer(["local", "start", "--detach"]).run();
    assert!(detached.success().stdout.ends_with(&last_lines(stop_command)), "{}", detached.stdout);
    let again = home.stigmer(["local", "start"]).run();
    again.success().stdout_has(&format!("[•] Clients connect to {address}{stop_command}.\n"));
    stop(&home);
}

#[test]
fn every_server_begins_with_a_line_in_the_log_that_says_why() {
    let home = home();
    start_detached(&home);
    home.stigmer(["local", "restart"]).run().success();
    home.crash("3");
    home.wait_for("the third server", || home.state_field("times_ready").as_deref() == Some("3"));
    stop(&home);
    let log = fs::read_to_string(home.log()).unwrap();
    let ends: Vec<_> = log.lines().filter(|line| line.starts_with("=== ")).collect();
    let url = format!("http://localhost:{}", home.ui_port());
    for (line, end) in ends.iter().zip(["", ", restarted on request", ", again after exit status 3"]) {
        assert!(line.ends_with(&format!("{url}{end}")), "{line}");
    }
    assert_eq!(ends.len(), 3, "{log}");
    let daemon_log = fs::read_to_string(home.path().join("logs/daemon.log")).unwrap();
    assert!(daemon_log.contains("[•] Restarting Temporal.\n"), "{daemon_log}");
}

#[test]
fn databases_in_memory_are_no_files_and_keep_nobody_waiting() {
    for argument in ["--temporal-arg=--db-filename=:memory:", "--temporal-arg=--db-filename="] {
        let (first, second) = (home(), home());
        // Both from one directory, in which nothing is left.
        let directory = first.root().join("empty");
        fs::create_dir(&directory).unwrap();
        for home in [&first, &second] {
            home.stigmer(["local", "start", "--detach", argument]).current_dir(&directory).run().success();
            let status = home.stigmer(["local", "status", "--json"]).run();
            status.success().stdout_has("\"database\":null");
            home.stigmer(["local", "status"])
                .run()
                .success()
                .stdout_has("  database   in memory\n")
                .stdout_lacks(":memory:");
        }
        stop(&first);
        stop(&second);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
        assert!(!first.root().join(".lock").exists() && !first.root().join("empty.lock").exists());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_killed_daemon_takes_its_server_down_gracefully() {
    let home = home();
    start_detached(&home);
    let server = last_start(&home);
    signal(daemon_pid(&home), libc::SIGKILL);
    home.wait_until_quiet(LIMIT);
    assert_eq!(home.stops(), [server]);
    assert_eq!(status(&home).0, 3);
    home.stigmer(["local", "stop"]).run().success().stdout_has("not running");
    start_detached(&home);
    stop(&home);
}

#[test]
#[cfg(target_os = "linux")]
fn a_server_that_outlived_its_daemon_is_stopped_by_the_next_start() {
    let home = home();
    home.behave("slow-stop 1500");
    start_detached(&home);
    let orphan = last_start(&home);
    let daemon = daemon_pid(&home);
    signal(daemon, libc::SIGKILL);
    home.wait_for("the daemon's end", || !home.processes().contains(&daemon));
    let outcome = home.stigmer(["local", "start", "--detach"]).run();
    home.behave("");
    outcome.success().stdout_has(&format!("[!] Temporal of an earlier daemon still runs (PID: {orphan})"));
    assert_eq!(home.stops(), [orphan]);
    assert_eq!(home.starts().len(), 2);
    stop(&home);
}

#[test]
fn a_stale_state_stops_nothing_and_no_foreign_process_is_ever_signalled() {
    let home = home();
    start_detached(&home);
    let live = fs::read_to_string(home.path().join("run/daemon.state")).unwrap();
    stop(&home);
    let elsewhere = Home::new();
    let mut stranger = Stigmer::of_program(&elsewhere, "sleep".as_ref(), ["1000"]).spawn();
    let replaced = |name: &str, value: &str, text: &str| -> String {
        let line = |line: &str| match line.split_once('=') {
            Some((key, _)) if key == name => format!("{name}={value}\n"),
            _ => format!("{line}\n"),
        };
        text.lines().map(line).collect()
    };
    let pid = stranger.id().to_string();
    let both = replaced("daemon_pid", &pid, &replaced("temporal_pid", &pid, &live));
    let nothing_known: String = both
        .lines()
        .filter(|line| !line.contains("_birth=") && !line.contains("_executable="))
        .map(|line| format!("{line}\n"))
        .collect();
    for state in [both.clone(), nothing_known, live, "phase=ready\n".into(), String::new(), "\0\u{1}".into()] {
        fs::write(home.path().join("run/daemon.state"), &state).unwrap();
        assert_eq!(status(&home).0, 3, "{state}");
        home.stigmer(["local", "stop"]).run().success();
        home.stigmer(["local", "start", "--detach"]).run().success().stdout_has("Ready.").stdout_lacks("already");
        stop(&home);
        assert!(!stranger.has_ended(), "it was signalled because of\n{state}");
    }
}

#[test]
fn twenty_starts_at_once_make_one_daemon_and_all_succeed() {
    let home = home();
    home.behave("slow-start 300");
    let starts: Vec<_> = (0..20).map(|_| home.stigmer(["local", "start", "--detach"]).spawn()).collect();
    let outcomes: Vec<_> = starts.into_iter().map(Running::wait).collect();
    let (mut started, mut found) = (0, 0);
    for outcome in &outcomes {
        outcome.success();
        assert_eq!(outcome.stderr, "", "{}", outcome.describe());
        started += usize::from(outcome.stdout.contains("[✓] Stigmer Daemon Ready.\n"));
        found += usize::from(outcome.stdout.contains("[✓] Temporal is already running (PID: "));
    }
    assert_eq!((started, found), (1, 19));
    assert_eq!(home.starts().len(), 1);
    assert_eq!(status(&home).0, 0);
    stop(&home);
}

#[test]
fn a_second_start_reports_the_first_and_changes_nothing() {
    let home = home();
    let daemon = start(&home);
    for arguments in [&["local", "start"][..], &["local", "start", "--detach"]] {
        let outcome = home.stigmer(arguments).run();
        outcome.success();
        let expected = format!(
            "[✓] Temporal is already running (PID: {})\n\
             [✓] UI available at http://localhost:{}\n\
             [•] Clients connect to 127.0.0.1:{}; 'stigmer local stop' stops it.\n",
            last_start(&home),
            home.ui_port(),
            home.port()
        );
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), (expected.as_str(), ""));
    }
    let other_port = home.stigmer(["local", "start", "--port", "7299"]).run();
    other_port.fails_with(&["--port 7299", &format!("127.0.0.1:{}", home.port()), "stigmer local stop"]);
    assert_eq!(home.starts().len(), 1);
    daemon.signal(libc::SIGTERM);
    daemon.wait().success();
    home.assert_quiet();
}

#[test]
#[cfg(target_os = "linux")]
fn a_detached_daemon_is_on_its_own_and_survives_the_terminal() {
    let home = home();
    let script = "\"$stigmer\" local start --detach; echo \"status $?\"; cat";
    let mut terminal = Pty::spawn(shell(&home, script), 80, 24);
    terminal.wait_for("status 0");
    terminal.wait_for("Ready.");
    let daemon = daemon_pid(&home);
    let (_, session, controlling_terminal) = stat(daemon);
    assert_eq!((session, controlling_terminal), (daemon, 0));
    assert_eq!(fs::read_link(format!("/proc/{daemon}/cwd")).unwrap(), Path::new("/"));
    for descriptor in 0..3 {
        let target = fs::read_link(format!("/proc/{daemon}/fd/{descriptor}")).unwrap();
        let expected = if descriptor == 0 { "/dev/null".into() } else { home.path().join("logs/daemon.log") };
        assert_eq!(target, expected);
    }
    terminal.hang_up();
    terminal.wait();
    // It still does its work: a restart is more than being alive.
    home.stigmer(["local", "restart"]).run().success();
    assert_eq!(status(&home).0, 0);
    stop(&home);
}

#[test]
fn closing_the_terminal_stops_the_foreground_daemon_gracefully() {
    let home = home();
    let mut terminal = Pty::spawn(home.stigmer(["local", "start"]), 80, 24);
    terminal.wait_for("Ready.");
    terminal.hang_up();
    assert!(terminal.wait().success());
    assert_eq!(home.stops(), [last_start(&home)]);
    home.assert_quiet();
}

#[test]
fn a_daemon_under_nohup_survives_its_terminal() {
    let home = home();
    let mut terminal = Pty::spawn(shell(&home, "exec nohup \"$stigmer\" local start"), 80, 24);
    wait_for_phase(&home, "ready");
    terminal.hang_up();
    home.stigmer(["local", "restart"]).run().success();
    assert_eq!(status(&home).0, 0);
    stop(&home);
    assert!(terminal.wait().success());
}

#[test]
fn ctrl_c_stops_with_one_clean_line() {
    let home = home();
    let mut terminal = Pty::spawn(home.stigmer(["local", "start"]), 80, 24);
    terminal.wait_for("Ready.");
    terminal.ctrl_c();
    assert!(terminal.wait().success());
    terminal.wait_for("stopped.\r\n");
    let lines = rendered(&terminal.screen());
    let ready = lines.iter().position(|line| line == "[✓] Stigmer Daemon Ready.").unwrap();
    assert_eq!(lines[ready + 1..], ["[✓] Temporal stopped.", ""], "{}", terminal.screen());
    assert_eq!(home.stops(), [last_start(&home)]);
    home.assert_quiet();
}

#[test]
#[cfg(target_os = "linux")]
fn ctrl_z_suspends_the_daemon_and_fg_brings_it_back() {
    let home = home();
    let interactive = Stigmer::of_program(&home, "sh".as_ref(), ["-i"]).env("PS1", "> ").env("stigmer", binary());
    let mut terminal = Pty::spawn(interactive, 80, 24);
    terminal.wait_for("> ");
    terminal.type_keys(b"\"$stigmer\" local start; echo \"status $?\"\n");
    terminal.wait_for("Ready.");
    let daemon = daemon_pid(&home);
    terminal.ctrl_z();
    home.wait_for("the daemon to be suspended", || stat(daemon).0 == 'T');
    // Temporal serves on, but nobody looks after it.
    assert_eq!(status(&home).0, 1);
    terminal.wait_for("topped");
    terminal.type_keys(b"fg; echo \"after fg $?\"\n");
    home.wait_for("the daemon to go on", || stat(daemon).0 != 'T');
    terminal.ctrl_c();
    terminal.wait_for("Temporal stopped.");
    terminal.wait_for("after fg 0");
    terminal.type_keys(b"exit\n");
    terminal.wait();
    assert_eq!(home.stops(), [last_start(&home)]);
    home.assert_quiet();
}

#[test]
fn a_start_that_was_suspended_finds_what_serves_by_then() {
    let home = home();
    home.behave("never-serve");
    let mut start = home.stigmer(["local", "start", "--ready-timeout", "1"]).spawn();
    home.wait_for("the server", || home.starts().len() == 1);
    let over = Instant::now() + Duration::from_millis(1100);
    suspend(start.id());
    home.behave("");
    home.wait_for("its time to be over", || Instant::now() > over);
    start.signal(libc::SIGCONT);
    start.wait_for_stdout("Ready.\n");
    start.signal(libc::SIGTERM);
    start.wait().success();
    assert_eq!(home.starts().len(), 1);
}

#[test]
fn commands_on_a_home_where_nothing_runs_say_so() {
    let home = home();
    home.stigmer(["local", "stop"]).run().success().stdout_has("Temporal is not running.");
    home.stigmer(["local", "stop", "--force"]).run().success();
    let outcome = home.stigmer(["local", "status"]).run();
    outcome.exits_with(3).stdout_has("Temporal is not running.");
    let (code, state) = status(&home);
    assert_eq!((code, &state["running"], &state["ready"]), (3, &Value::Bool(false), &Value::Bool(false)));
    let unknown =
        ["mode", "address", "ui_url", "temporal_version", "daemon_pid", "temporal_pid", "restarts", "uptime_seconds"];
    for name in unknown {
        assert_eq!(state[name], Value::Null, "{name}");
    }
    assert_eq!(state["home"].text(), home.path().to_str().unwrap());
    let restart = home.stigmer(["local", "restart"]).run();
    assert!(restart.fails_with(&["cannot restart Temporal", "not running"]).hint().is_some());
}

#[test]
fn status_shows_everything_about_a_running_daemon() {
    let home = home();
    start_detached(&home);
    let (code, state) = status(&home);
    assert_eq!(code, 0);
    let address = format!("127.0.0.1:{}", home.port());
    let url = format!("http://localhost:{}", home.ui_port());
    assert_eq!((&state["running"], &state["ready"]), (&Value::Bool(true), &Value::Bool(true)));
    assert_eq!((state["mode"].text(), state["address"].text(), state["ui_url"].text()), ("managed", &*address, &*url));
    assert_eq!(state["daemon_pid"].number(), daemon_pid(&home).into());
    assert_eq!(state["temporal_pid"].number(), last_start(&home).into());
    assert_eq!(state["restarts"].number(), 0);
    state["uptime_seconds"].number();
    assert_eq!(state["home"].text(), home.path().to_str().unwrap());
    assert_eq!(state["database"].text(), home.database().to_str().unwrap());
    assert_eq!(state["log"].text(), home.log().to_str().unwrap());
    assert_eq!(state["database_version"].text(), "9.9.9");
    assert_eq!(state.len(), 14);
    let text = home.stigmer(["local", "status"]).run();
    text.success().stdout_has("running and ready").stdout_has(&address).stdout_has(&url);
    text.stdout_has(&last_start(&home).to_string()).stdout_has(&daemon_pid(&home).to_string());
    stop(&home);
}

#[test]
fn status_and_stop_are_right_while_it_installs() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let gate = Gate::new();
    server.script(&asset_path(VERSION), [Reply::Cut(1000, Cut::Hold(gate.clone()))]);
    let daemon = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base()).spawn();
    gate.wait_until_reached();
    wait_for_phase(&home, "installing");
    home.wait_for("what was sent", || home.kept_bytes() == 1000);
    let (code, state) = status(&home);
    assert_eq!((code, &state["running"], &state["ready"]), (1, &Value::Bool(true), &Value::Bool(false)));
    home.stigmer(["local", "status"]).run().exits_with(1).stdout_has("installing");
    stop(&home);
    let outcome = daemon.wait();
    outcome.stdout_lacks("Ready");
    assert_eq!(home.bin_names(), [".temporal.download"]);
    gate.open();
}

#[test]
fn status_and_stop_are_right_while_it_starts() {
    let home = home();
    home.behave("slow-start 60000");
    let daemon = home.stigmer(["local", "start"]).spawn();
    wait_for_phase(&home, "starting");
    let (code, state) = status(&home);
    assert_eq!((code, &state["running"], &state["ready"]), (1, &Value::Bool(true), &Value::Bool(false)));
    home.stigmer(["local", "status"]).run().exits_with(1).stdout_has("starting");
    home.wait_for("the server's handlers", || fs::read_to_string(home.log()).is_ok_and(|log| log.contains("Server:")));
    stop(&home);
    daemon.wait().success();
    assert_eq!(home.stops(), [last_start(&home)]);
}

#[test]
fn a_detached_start_that_is_interrupted_leaves_nothing() {
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let home = home();
        home.behave("slow-start 60000");
        let start = home.stigmer(["local", "start", "--detach"]).spawn();
        wait_for_phase(&home, "starting");
        start.signal(number);
        start.wait().fails_as(128 + number, &["cannot start the daemon", "interrupted before it was ready"]);
        home.wait_until_quiet(LIMIT);
        assert_eq!(status(&home).0, 3);
    }
}

#[test]
fn a_detached_start_leaves_nothing_at_whatever_moment_it_is_interrupted() {
    // Spread over its way from the exec to the waiting parent, which takes a
    // few milliseconds.
    in_parallel(4, 0..40, |number: u64| {
        let home = home();
        home.behave("slow-start 60000");
        let start = home.stigmer(["local", "start", "--detach"]).spawn();
        std::thread::sleep(Duration::from_micros(150 * number));
        start.signal(libc::SIGINT);
        assert_ne!(start.wait().code(), 0);
        home.wait_until_quiet(LIMIT);
    });
}

#[test]
fn a_state_that_cannot_be_written_does_not_stop_the_daemon() {
    let home = home();
    fs::create_dir_all(home.path().join("run/daemon.state.partial/in-the-way")).unwrap();
    let mut daemon = start(&home);
    daemon.wait_for_stdout(&format!("[!] Cannot write {}", home.path().join("run/daemon.state").display()));
    home.crash("1");
    daemon.wait_for_stdout("[✓] Temporal is ready again");
    daemon.signal(libc::SIGTERM);
    let outcome = daemon.wait();
    outcome.success();
    assert_eq!(outcome.stdout.matches("Cannot write").count(), 1, "{}", outcome.describe());
    home.assert_quiet();
}

#[test]
fn a_start_waits_for_another_that_is_under_way() {
    let home = home();
    home.behave("never-serve");
    let first = home.stigmer(["local", "start", "--detach"]).spawn();
    wait_for_phase(&home, "starting");
    let mut second = home.stigmer(["local", "start"]).spawn();
    second.wait_for_stdout("is starting Temporal; waiting for it.");
    home.behave("");
    second.wait().success().stdout_has("already running");
    first.wait().success();
    assert_eq!(home.starts().len(), 1);
    stop(&home);
}

#[test]
fn status_is_right_while_it_stops_and_stop_waits() {
    let home = home();
    home.behave("ignore-term");
    let daemon = start(&home);
    daemon.signal(libc::SIGTERM);
    wait_for_phase(&home, "stopping");
    let (code, state) = status(&home);
    assert_eq!((code, &state["ready"]), (1, &Value::Bool(false)));
    home.stigmer(["local", "status"]).run().exits_with(1).stdout_has("stopping");
    // A start that comes now waits for the end, and makes a new daemon.
    let mut next = home.stigmer(["local", "start", "--detach"]).spawn();
    next.wait_for_stdout("stopping Temporal; waiting for it.");
    home.behave("");
    next.wait().success().stdout_has("Ready.");
    daemon.wait().success();
    assert_eq!(home.starts().len(), 2);
    stop(&home);
}

#[test]
fn a_restart_keeps_the_daemon_and_its_options_and_returns_when_it_is_ready() {
    let home = home();
    home.stigmer(["local", "start", "--detach", "--temporal-arg=--log-level", "--temporal-arg=debug"]).run().success();
    let (before, daemon) = (last_start(&home), daemon_pid(&home));
    home.behave("slow-start 300");
    let outcome = home.stigmer(["local", "restart"]).run();
    let after = last_start(&home);
    outcome.success().stdout_has(&format!("Temporal restarted (PID: {after})."));
    let starts = home.starts();
    assert_eq!(starts.len(), 2);
    assert_eq!(starts[0].1, starts[1].1);
    assert!(starts[1].1.ends_with("--log-level debug"));
    assert_eq!(home.stops(), [before]);
    let (code, state) = status(&home);
    // It was asked for: no failure.
    assert_eq!((code, state["restarts"].number(), state["daemon_pid"].number()), (0, 0, daemon.into()));
    stop(&home);
}

#[test]
fn a_restart_of_one_that_is_starting_waits_for_it_first() {
    let home = home();
    home.behave("slow-start 500");
    let start = home.stigmer(["local", "start", "--detach"]).spawn();
    wait_for_phase(&home, "starting");
    home.stigmer(["local", "restart"]).run().success();
    start.wait().success();
    assert_eq!((home.starts().len(), home.stops().len()), (2, 1));
    stop(&home);
}

#[test]
fn a_stop_during_a_restart_wins() {
    let home = home();
    start_detached(&home);
    home.behave("slow-start 60000");
    let restart = home.stigmer(["local", "restart"]).spawn();
    home.wait_for("the second server", || home.starts().len() == 2);
    wait_for_phase(&home, "restarting");
    home.stigmer(["local", "status"]).run().exits_with(1).stdout_has("restarting");
    home.stigmer(["local", "stop"]).run().success();
    let outcome = restart.wait();
    home.assert_quiet();
    assert!(outcome.fails_with(&["cannot restart Temporal"]).hint().is_some());
}

#[test]
fn a_stop_ends_the_wait_before_a_restart() {
    let home = home();
    let mut daemon = start(&home);
    // The third crash in a row waits for a second.
    for delay in ["0.25", "0.5", "1"] {
        wait_for_phase(&home, "ready");
        home.crash("1");
        daemon.wait_for_stdout(&format!("restarting in {delay} s."));
    }
    let starts = home.starts().len();
    stop(&home);
    daemon.wait().success();
    assert_eq!(home.starts().len(), starts);
}

#[test]
fn status_reports_a_server_that_does_not_answer() {
    let home = home();
    start_detached(&home);
    home.behave("hang");
    let outcome = home.stigmer(["local", "status"]).run();
    outcome.exits_with(1).stdout_has("does not answer");
    stop(&home);
}

#[test]
fn a_daemon_runs_on_when_nobody_can_read_it() {
    for streams in [">&- 2>&-", ">/dev/full 2>/dev/full", "| true"] {
        let home = home();
        let daemon = shell(&home, &format!("\"$stigmer\" local start {streams}")).spawn();
        wait_for_phase(&home, "ready");
        home.crash("1");
        home.wait_for("the second server", || home.starts().len() == 2);
        wait_for_phase(&home, "ready");
        assert_eq!(status(&home).0, 0, "{streams}");
        home.stigmer(["local", "stop"]).run().success();
        daemon.wait().success();
        home.assert_quiet();
    }
}

#[test]
fn logs_show_the_last_lines_as_they_are() {
    let home = home();
    let logs = |arguments: &[&str]| {
        let output = home.stigmer(["local", "logs"]).args(arguments).into_command().output().unwrap();
        assert!(output.status.success());
        output.stdout
    };
    let missing = home.stigmer(["local", "logs"]).run();
    assert!(missing.fails_with(&["it does not exist yet", &home.log().display().to_string()]).hint().is_some());
    fs::create_dir_all(home.log().parent().unwrap()).unwrap();
    fs::write(home.log(), "").unwrap();
    assert_eq!(logs(&[]), b"");
    let lines: Vec<String> = (1..=250).map(|number| format!("line {number}\n")).collect();
    fs::write(home.log(), lines.concat()).unwrap();
    assert_eq!(logs(&[]), lines[150..].concat().as_bytes());
    for arguments in [&["-n", "2"][..], &["-n2"], &["--lines", "2"], &["--lines=2"]] {
        assert_eq!(logs(arguments), lines[248..].concat().as_bytes(), "{arguments:?}");
    }
    assert_eq!(logs(&["-n", "0"]), b"");
    assert_eq!(logs(&["-n", "999999"]), lines.concat().as_bytes());
    fs::write(home.log(), b"old\nbad \xff\xfe\x00 bytes\nno newline").unwrap();
    assert_eq!(logs(&["-n2"]), b"bad \xff\xfe\x00 bytes\nno newline");
}

#[test]
fn a_huge_log_is_shown_without_reading_it() {
    let home = home();
    fs::create_dir_all(home.log().parent().unwrap()).unwrap();
    let mut file = File::create(home.log()).unwrap();
    file.set_len(1 << 30).unwrap();
    append_to(&home.log()).write_all(b"\nthe last line\n").unwrap();
    file.flush().unwrap();
    let outcome = home.stigmer(["local", "logs", "-n", "1"]).run();
    outcome.success();
    assert_eq!(outcome.stdout, "the last line\n");
}

#[test]
fn followed_logs_go_on_across_rotation_and_truncation() {
    let home = home();
    fs::create_dir_all(home.log().parent().unwrap()).unwrap();
    fs::write(home.log(), "before\none\n").unwrap();
    let mut follow = home.stigmer(["local", "logs", "-f", "-n", "1"]).spawn();
    follow.wait_for_stdout("one\n");
    let mut log = append_to(&home.log());
    log.write_all(b"two\n").unwrap();
    follow.wait_for_stdout("two\n");
    // The last words in the old file and the first in the new one.
    log.write_all(b"three\n").unwrap();
    fs::rename(home.log(), home.path().join("logs/temporal.log.1")).unwrap();
    fs::write(home.log(), "four\n").unwrap();
    follow.wait_for_stdout("four\n");
    File::create(home.log()).unwrap();
    append_to(&home.log()).write_all(b"5\n").unwrap();
    follow.wait_for_stdout("5\n");
    assert_eq!(follow.stdout(), "one\ntwo\nthree\nfour\n5\n");
    follow.signal(libc::SIGINT);
    assert_eq!(follow.wait().code(), 128 + libc::SIGINT);
}

#[test]
fn a_suspended_temporal_is_stopped_gracefully() {
    let home = home();
    start_detached(&home);
    let temporal = last_start(&home);
    signal(temporal, libc::SIGSTOP);
    stop(&home);
    assert_eq!(home.stops(), [temporal]);
}

#[test]
fn a_log_that_grows_large_is_rotated_under_its_server_and_followed_across() {
    let home = home();
    home.behave("count\nprint 10485760");
    start_detached(&home);
    let mut follow = home.stigmer(["local", "logs", "-f", "-n", "1"]).spawn();
    let (old, daemon_log) = (home.path().join("logs/temporal.log.1"), home.path().join("logs/daemon.log"));
    // The daemon's own grows, too.
    let daemon_lines = "a line of the daemon\n".repeat(500_000);
    append_to(&daemon_log).write_all(daemon_lines.as_bytes()).unwrap();
    // With the next health check.
    home.wait_for("the rotation", || old.exists());
    let header = "=== ";
    home.wait_for("lines after it", || fs::read_to_string(home.log()).unwrap().lines().count() > 200);
    follow.wait_for_stdout(header);
    let shown = follow.stdout().lines().count();
    home.wait_for("lines that are followed", || follow.stdout().lines().count() > shown + 200);
    let last_lines = home.stigmer(["local", "logs", "-n", "30000"]).run().stdout;
    assert!(last_lines.lines().count() >= 30_000);
    home.stigmer(["local", "stop"]).run().success();
    let log = fs::read_to_string(home.log()).unwrap();
    home.wait_for("the last line", || follow.stdout().ends_with(&log[log.len() - 100..]));
    follow.signal(libc::SIGINT);
    let followed = follow.wait().stdout;
    home.assert_quiet();

    let kept = fs::read_to_string(&old).unwrap() + &log;
    for lines in [kept, followed, last_lines] {
        let counted = lines.lines().filter_map(|line| line.strip_prefix("count ")).map(|n| n.parse::<u64>().unwrap());
        let counted: Vec<u64> = counted.collect();
        let first = counted[0];
        assert!(counted.iter().copied().eq(first..first + counted.len() as u64), "{counted:?}");
        assert!(lines.contains(header));
    }
    assert_eq!(home.starts().len(), 1);
    let rotated = fs::read_to_string(home.path().join("logs/daemon.log.1")).unwrap();
    assert!(rotated.contains("Ready.") && rotated.ends_with(&daemon_lines));
    assert!(fs::read_to_string(&daemon_log).unwrap().contains("Temporal stopped."));
}

#[test]
fn followed_logs_may_begin_before_the_log_exists() {
    let home = home();
    let mut follow = home.stigmer(["local", "logs", "--follow"]).spawn();
    home.behave("say good morning");
    start_detached(&home);
    follow.wait_for_stdout("good morning\n");
    follow.signal(libc::SIGTERM);
    follow.wait();
    stop(&home);
}

#[test]
fn logs_end_quietly_when_their_reader_has_seen_enough() {
    let home = home();
    fs::create_dir_all(home.log().parent().unwrap()).unwrap();
    fs::write(home.log(), "a line of the log\n".repeat(100_000)).unwrap();
    for options in ["-n 100000", "-f -n 100000", "-f -n 1"] {
        let script = format!("{{ \"$stigmer\" local logs {options}; echo \"status $?\" >&2; }} | head -n 1");
        let outcome = shell(&home, &script).run();
        assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("a line of the log\n", "status 0\n"));
    }
}

#[test]
fn a_large_log_is_rotated_at_start_and_each_session_has_a_header() {
    let home = home();
    fs::create_dir_all(home.log().parent().unwrap()).unwrap();
    for (number, name) in ["temporal.log", "temporal.log.1", "temporal.log.2", "temporal.log.3"].iter().enumerate() {
        let mut file = File::create(home.path().join("logs").join(name)).unwrap();
        write!(file, "log {number}").unwrap();
        file.set_len((10 << 20) + 1).unwrap();
    }
    for _ in 0..2 {
        start_detached(&home);
        stop(&home);
    }
    let begins =
        |name: &str, text: &str| fs::read(home.path().join("logs").join(name)).unwrap().starts_with(text.as_bytes());
    for (name, text) in [("temporal.log.1", "log 0"), ("temporal.log.2", "log 1"), ("temporal.log.3", "log 2")] {
        assert!(begins(name, text), "{name}");
    }
    assert!(!home.path().join("logs/temporal.log.4").exists());
    let log = fs::read_to_string(home.log()).unwrap();
    let headers: Vec<_> = log.lines().filter(|line| line.starts_with("=== ")).collect();
    assert_eq!(headers.len(), 2, "{log}");
    assert!(headers.iter().all(|line| line.contains(&format!("127.0.0.1:{}", home.port()))), "{log}");
}
