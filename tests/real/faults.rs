//! What may happen to Temporal, and to the daemon that keeps it running.

use std::fs;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use crate::support::*;
use crate::tools::*;

/// A daemon that was killed leaves a Temporal that stops by itself in 1.5 s.
const ORPHAN_LIMIT: Duration = Duration::from_secs(5);

/// Having served this long Temporal is restarted at once, however often; what
/// ends it earlier counts against it.
const STABLE: Duration = Duration::from_millis(10_200);

#[test]
fn every_workflow_completes_while_temporal_is_killed_again_and_again() {
    let Some(tools) = tools() else { return };
    let kills = rounds(2, 50);
    let home = Home::new();
    start_detached(&home, tools).run().success();

    let mut stream = client(&home, tools, home.port(), ["stream"]).into_command();
    let stream = stream.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut stream = stream.spawn().unwrap();
    for kill in 1..=kills {
        thread::sleep(STABLE);
        let pid = temporal_pid(&home).unwrap();
        signal(pid, libc::SIGKILL);
        home.wait_for("Temporal to be back", || is_ready(&home) && temporal_pid(&home) != Some(pid));
        assert_eq!(status(&home, "restarts"), Some(kill.to_string()), "{}", home.describe());
    }
    drop(stream.stdin.take());
    let output = stream.wait_with_output().unwrap();
    let (printed, complaint) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{printed}\n{complaint}\n{}", home.describe());
    let completed =
        printed.split_once("\"completed\": ").and_then(|(_, rest)| rest.trim_end_matches("}\n").parse().ok());
    let completed: usize = completed.unwrap_or_else(|| panic!("{printed}\n{complaint}"));
    // One each 100 ms while Temporal serves, were it never slowed down.
    assert!(completed >= 10 * kills, "{printed}\n{complaint}");
    println!("{kills} kills, {completed} workflows completed");
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
}

#[test]
fn nothing_outlives_a_killed_daemon_and_the_next_start_is_ready() {
    let Some(tools) = tools() else { return };
    let mut moments = Moments::new();
    let kills = rounds(12, 50);
    let home = Home::new();
    for kill in 0..kills {
        // Every other start has to make its database.
        if kill % 2 == 0 {
            let _ = fs::remove_dir_all(home.path().join("data"));
        }
        let mut daemon = start(&home, tools).spawn();
        let state = match kill % 3 {
            0 => {
                thread::sleep(moments.within(Duration::from_millis(400)));
                "starting"
            }
            1 => {
                daemon.wait_for_stdout("Stigmer Daemon Ready.");
                thread::sleep(moments.within(Duration::from_millis(300)));
                "serving"
            }
            _ => {
                daemon.wait_for_stdout("Stigmer Daemon Ready.");
                daemon.signal(libc::SIGTERM);
                thread::sleep(moments.within(Duration::from_millis(1400)));
                "stopping"
            }
        };
        println!("kill {kill}, while {state}");
        daemon.signal(libc::SIGKILL);
        home.wait_until_quiet(ORPHAN_LIMIT);
        drop(daemon);

        start_detached(&home, tools).run().success();
        assert!(is_ready(&home), "{}", home.describe());
        home.stigmer(["local", "stop"]).run().success();
        home.assert_quiet();
    }
}

#[test]
fn a_temporal_that_hangs_is_replaced() {
    let Some(tools) = tools() else { return };
    let home = Home::new();
    start_detached(&home, tools).run().success();
    run_workflow(&home, tools, "before");
    let pid = temporal_pid(&home).unwrap();
    signal(pid, libc::SIGSTOP);
    // Three checks in 30 s, 2 s each, and the time it gets to stop.
    let limit = Duration::from_secs(90);
    wait_for("Temporal to be replaced", limit, || is_ready(&home) && temporal_pid(&home) != Some(pid));
    assert_eq!(status(&home, "restarts").as_deref(), Some("1"));
    read_workflow(&home, tools, "before");
    run_workflow(&home, tools, "after");
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
}

/// Temporal sets up its schema only where there is no file. Killed meanwhile,
/// some 50 ms in, it leaves one that no later start of it can use.
#[test]
fn a_kill_at_the_birth_of_the_database_breaks_no_later_start() {
    let Some(tools) = tools() else { return };
    let points = rounds(20, 40) as u32;
    in_parallel(2, [0, 1], |lane| {
        let home = Home::new();
        let mut broken = 0;
        for point in (0..points).filter(|point| point % 2 == lane) {
            let _ = fs::remove_dir_all(home.path().join("data"));
            let mut daemon = start(&home, tools).spawn();
            daemon.wait_for_stdout("Temporal Server started (PID: ");
            thread::sleep(Duration::from_millis(200) * point / points);
            // On one lane the daemon lives and sees it; on the other both die at once.
            if lane == 1 {
                daemon.signal(libc::SIGKILL);
            }
            let printed = daemon.stdout();
            let (_, rest) = printed.split_once("(PID: ").unwrap();
            let pid = rest.split(')').next().unwrap().parse().unwrap();
            signal(pid, libc::SIGKILL);
            if lane == 1 {
                home.wait_until_quiet(ORPHAN_LIMIT);
            }
            let next = start_detached(&home, tools).run();
            next.success();
            home.wait_for("Temporal to serve", || is_ready(&home));
            broken += fs::read_dir(home.path().join("data")).unwrap().flatten().any(is_aside) as u32;
            home.stigmer(["local", "stop", "--force"]).run().success();
            home.wait_until_quiet(ORPHAN_LIMIT);
            drop(daemon);
        }
        println!("lane {lane}: {broken} databases had to be made anew");
    });
}

fn is_aside(entry: fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with("temporal.db.broken")
}

#[test]
fn twenty_starts_and_stops_at_once_agree_on_one_temporal() {
    let Some(tools) = tools() else { return };
    let home = Home::new();
    for round in 0..rounds(2, 10) {
        let starts: Vec<_> = (0..20).map(|_| start_detached(&home, tools).spawn()).collect();
        for start in starts {
            start.wait().success();
        }
        assert!(is_ready(&home), "round {round}\n{}", home.describe());
        assert_eq!(servers(&home), 1, "round {round}\n{}", home.describe());

        let mixed: Vec<_> = (0..20)
            .map(|number| match number % 2 {
                0 => start_detached(&home, tools).spawn(),
                _ => home.stigmer(["local", "stop"]).spawn(),
            })
            .collect();
        for (number, command) in mixed.into_iter().enumerate() {
            let done = command.wait();
            let stopped_meanwhile = number % 2 == 0 && done.stderr.contains("it was stopped before it was ready");
            if !stopped_meanwhile {
                done.success();
            }
            assert!(servers(&home) <= 1, "round {round}\n{}", home.describe());
        }

        let stops: Vec<_> = (0..20).map(|_| home.stigmer(["local", "stop"]).spawn()).collect();
        for stop in stops {
            stop.wait().success();
        }
        home.wait_until_quiet(ORPHAN_LIMIT);
    }
}

/// How many of this home's processes are Temporal.
fn servers(home: &Home) -> usize {
    let is_server = |pid: &u32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        arguments.split(|byte| *byte == 0).any(|argument| argument == b"start-dev")
    };
    home.processes().iter().filter(|pid| is_server(pid)).count()
}
