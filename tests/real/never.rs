//! A name is never taken for the thing, also with the real Temporal: a port for
//! its server, a path for its database, a directory for its home.

use std::fs;
use std::thread;
use std::time::Duration;

use crate::support::*;
use crate::tools::*;

/// `stigmer local ARGS` of `home` with the real executable, on the ports of `ports`.
fn on_ports_of<'h>(home: &'h Home, ports: &Home, tools: &Tools, arguments: &[&str]) -> Stigmer<'h> {
    let stigmer = home.stigmer(["local"]).args(arguments).env("STIGMER_TEMPORAL_BIN", &tools.temporal);
    let stigmer = stigmer.env("STIGMER_TEMPORAL_PORT", ports.port().to_string());
    stigmer.env("STIGMER_TEMPORAL_UI_PORT", ports.ui_port().to_string())
}

#[test]
fn of_two_homes_on_one_port_each_command_finds_its_own_temporal_or_none() {
    let Some(tools) = tools() else { return };
    let pairs = rounds(10, 200);
    let mut lost = 0;
    let (one, other) = (Home::new(), Home::new());
    for pair in 0..pairs {
        let command = |home: &Home| {
            let shown = format!("{} local status --json", process::binary().to_string_lossy());
            [format!("{shown}; exit 0"), home.path().display().to_string()]
        };
        let ([first, first_home], [second, second_home]) = (command(&one), command(&other));
        let early = on_ports_of(&one, &one, tools, &["run", "--", "sh", "-c", &first]).spawn();
        thread::sleep(Duration::from_millis(250) * pair as u32 / pairs as u32);
        let late = on_ports_of(&other, &one, tools, &["run", "--", "sh", "-c", &second]).spawn();
        let mut executed = 0;
        for (run, home) in [(early, first_home), (late, second_home)] {
            let outcome = run.wait();
            match outcome.code() {
                0 => {
                    executed += 1;
                    outcome.stdout_has("\"ready\":true").stdout_has(&format!("\"home\":\"{home}\""));
                }
                _ => {
                    outcome.exits_with(1).stderr_lacks("Ready");
                    assert_eq!(outcome.stdout, "", "{}", outcome.describe());
                }
            }
        }
        assert!(executed > 0, "pair {pair}: neither had a Temporal\n{}\n{}", one.describe(), other.describe());
        lost += (executed == 1) as usize;
        one.wait_until_quiet(LIMIT);
        other.wait_until_quiet(LIMIT);
    }
    println!("{pairs} pairs: {lost} lost the port and said so");
}

#[test]
fn a_backup_put_where_a_first_start_failed_is_what_is_served() {
    let Some(tools) = tools().filter(|_| has_sqlite()) else { return };
    let home = Home::new();
    start_detached(&home, tools).run().success();
    run_workflow(&home, tools, "kept");
    home.stigmer(["local", "stop"]).run().success();
    let data = home.path().join("data");
    let backup = home.root().join("backup");
    fs::rename(&data, &backup).unwrap();
    let typo = || {
        start(&home, tools).args(["--temporal-arg=--typo"]).run().fails_with(&["unknown flag"]);
    };
    typo();
    for entry in fs::read_dir(&backup).unwrap().flatten() {
        fs::copy(entry.path(), data.join(entry.file_name())).unwrap();
    }
    typo();
    typo();
    start_detached(&home, tools).run().success();
    read_workflow(&home, tools, "kept");
    home.stigmer(["local", "stop"]).run().success();
}

#[test]
fn a_temporal_at_another_address_has_the_time_it_needs_to_stop() {
    let Some(tools) = tools() else { return };
    let home = Home::new();
    let mut daemon = start(&home, tools).args(["--ip", "127.0.0.9"]).spawn();
    daemon.wait_for_stdout("Ready.\n");
    home.stigmer(["local", "stop"]).run().success();
    daemon.wait().success().stdout_lacks("Killing");
    home.assert_quiet();
}

#[test]
fn a_run_directory_that_is_removed_comes_back_and_one_temporal_with_it() {
    let Some(tools) = tools() else { return };
    let home = Home::new();
    start_detached(&home, tools).run().success();
    let pid = temporal_pid(&home).unwrap();
    fs::remove_dir_all(home.path().join("run")).unwrap();
    home.wait_for("it to come back", || is_ready(&home));
    assert_eq!(temporal_pid(&home), Some(pid));
    fs::remove_file(home.path().join("run/daemon.lock")).unwrap();
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
}

#[test]
fn a_home_may_have_any_name() {
    let Some(tools) = tools() else { return };
    for name in ["?a=b", "#c", "feature%2Flogin", "%00", "a\nb"] {
        let home = Home::named(&std::env::temp_dir(), name);
        start_detached(&home, tools).run().success();
        run_workflow(&home, tools, "kept");
        home.stigmer(["local", "stop"]).run().success();
        start_detached(&home, tools).run().success();
        read_workflow(&home, tools, "kept");
        home.stigmer(["local", "stop"]).run().success();
        assert!(home.database().exists(), "{name}");
    }
}
