//! What the database and the namespaces in it are worth: nothing acknowledged
//! is lost, and what was asked for holds on every database.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::*;
use crate::tools::*;

/// A daemon that was killed leaves a Temporal that stops by itself in 1.5 s.
const ORPHAN_LIMIT: Duration = Duration::from_secs(5);
const DATABASE_FILES: [&str; 3] = ["temporal.db", "temporal.db-wal", "temporal.db-shm"];
/// Bytes of a write-ahead log's head, and of a frame in it: 24 and a page.
const WAL_HEAD: u64 = 32;
const WAL_FRAME: u64 = 24 + 4096;
/// Where `-shm` says how many frames may have been written to the database
/// (nBackfillAttempted); these were synced before.
const BACKFILL_ATTEMPTED: usize = 128;

#[test]
fn every_acknowledged_start_outlives_the_death_of_temporal_and_daemon() {
    let Some(tools) = tools() else { return };
    let mut moments = Moments::new();
    let home = Home::new();
    let mut acknowledged = String::new();
    for round in 0..rounds(3, 50) {
        let mut daemon = start(&home, tools).spawn();
        daemon.wait_for_stdout("Stigmer Daemon Ready.");
        let temporal = temporal_pid(&home).unwrap();
        let mut starts = client(&home, tools, home.port(), ["starts", &format!("round-{round}")]).spawn();
        starts.wait_for_stdout("round-");
        std::thread::sleep(moments.within(Duration::from_millis(1500)));
        signal(temporal, libc::SIGKILL);
        daemon.signal(libc::SIGKILL);
        // It would try again for ever.
        starts.signal(libc::SIGKILL);
        acknowledged.push_str(&starts.wait().stdout);
        home.wait_until_quiet(ORPHAN_LIMIT);
    }
    start_detached(&home, tools).run().success();
    let count = acknowledged.lines().count();
    let told = client(&home, tools, home.port(), ["present"]).input(acknowledged).run();
    told.success().stdout_has(&format!("{{\"asked\": {count}, \"present\": {count}}}"));
    println!("{count} acknowledged starts, all there");
    home.stigmer(["local", "stop"]).run().success();
    assert_eq!(integrity(tools, &home.database()), "ok");
    home.assert_quiet();
}

/// A cut of power leaves the files as they were at one moment, but for the end
/// of the write-ahead log, of which any part may not have reached the disk.
#[test]
fn what_a_cut_of_power_leaves_opens_is_whole_and_serves() {
    let Some(tools) = tools().filter(|_| has_sqlite()) else { return };
    let mut moments = Moments::new();
    let home = Home::new();
    start_detached(&home, tools).run().success();
    run_workflow(&home, tools, "long-before");
    // Long before: it is in the database, not in its log alone.
    home.stigmer(["local", "stop"]).run().success();
    assert_eq!(integrity(tools, &home.database()), "ok");
    start_detached(&home, tools).run().success();
    let temporal = temporal_pid(&home).unwrap();
    let mut starts = client(&home, tools, home.port(), ["starts", "load"]).spawn();
    starts.wait_for_stdout("load-");
    let copies: Vec<_> = (0..rounds(4, 20))
        .map(|cut| {
            std::thread::sleep(moments.within(Duration::from_millis(800)));
            let copy = Home::new();
            fs::create_dir_all(copy.path().join("data")).unwrap();
            signal(temporal, libc::SIGSTOP);
            for name in DATABASE_FILES {
                fs::copy(home.path().join("data").join(name), copy.path().join("data").join(name)).unwrap();
            }
            signal(temporal, libc::SIGCONT);
            if cut % 2 == 1 {
                tear_log(&copy.path().join("data"), &mut moments);
            }
            copy
        })
        .collect();
    starts.signal(libc::SIGKILL);
    starts.wait();
    home.stigmer(["local", "stop"]).run().success();
    for copy in copies {
        fs::set_permissions(copy.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        start_detached(&copy, tools).run().success();
        read_workflow(&copy, tools, "long-before");
        run_workflow(&copy, tools, "after");
        copy.stigmer(["local", "stop"]).run().success();
        assert_eq!(integrity(tools, &copy.database()), "ok");
        copy.assert_quiet();
    }
    home.assert_quiet();
}

/// Takes away a part of the end of the log that no sync has vouched for.
fn tear_log(data: &Path, moments: &mut Moments) {
    let shared = fs::read(data.join("temporal.db-shm")).unwrap();
    let synced = u32::from_ne_bytes(shared[BACKFILL_ATTEMPTED..BACKFILL_ATTEMPTED + 4].try_into().unwrap());
    let log = fs::File::options().write(true).open(data.join("temporal.db-wal")).unwrap();
    let (least, length) = (WAL_HEAD + u64::from(synced) * WAL_FRAME, log.metadata().unwrap().len());
    if least < length {
        let kept = least + moments.within(Duration::from_micros(length - least)).as_micros() as u64;
        log.set_len(kept).unwrap();
    }
    // Memory, of which nothing is left.
    fs::remove_file(data.join("temporal.db-shm")).unwrap();
}

/// What SQLite says of a database that nobody uses.
fn integrity(tools: &Tools, database: &Path) -> String {
    let program =
        "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('pragma integrity_check').fetchone()[0])";
    let output = Command::new(&tools.python).args(["-c", program]).arg(database).output().unwrap();
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)).trim_end().into()
}

/// How the database was made that a start finds.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Made {
    New,
    ByStigmer,
    ByBareStartDev,
}

#[test]
fn namespaces_attributes_and_retention_hold_on_every_database() {
    let Some(tools) = tools().filter(|_| has_sqlite()) else { return };
    let asked = ["--namespace=orders", "--search-attribute=CustomerId=Keyword", "--search-attribute=Amount=Int"];
    let (day, week, asked_for) = ("86400s", "604800s", "129600s");
    for made in [Made::New, Made::ByStigmer, Made::ByBareStartDev] {
        let home = home_with(tools, made);
        let untouched = if made == Made::ByBareStartDev { day } else { week };
        // Twice: it is not the first start alone that sees to it.
        for _ in 0..2 {
            start_detached(&home, tools).run().success();
            assert_eq!(retention(&home, tools, "default"), untouched, "{made:?}");
            home.stigmer(["local", "stop"]).run().success();
        }
        for _ in 0..2 {
            start_detached(&home, tools).args(asked).run().success();
            // Ready means that they can be used.
            let id = ["workflow", "start", "--type=T", "--task-queue=q", "--namespace=orders"];
            let attributes = ["--search-attribute=CustomerId=\"c1\"", "--search-attribute=Amount=7"];
            temporal(&home, tools, &[&id[..], &attributes].concat());
            assert_eq!(retention(&home, tools, "orders"), week, "{made:?}");
            home.stigmer(["local", "stop"]).run().success();
        }
        let outcome = start(&home, tools).args(["-n", "orders", "--search-attribute=Amount=Text"]).run();
        outcome.fails_with(&["Amount=Text", "there is Amount=Int"]);
        start_detached(&home, tools).args(asked).args(["-n", "default", "--retention", "36h"]).run().success();
        for name in ["orders", "default"] {
            assert_eq!(retention(&home, tools, name), asked_for, "{made:?}");
            let listed = temporal(&home, tools, &["operator", "search-attribute", "list", "--namespace", name]);
            assert!(listed.contains("CustomerId") && listed.contains("Amount"), "{made:?}: {listed}");
        }
        let run = home.stigmer(["local", "run", "-n", "late", "--", "sh", "-c", "echo $TEMPORAL_NAMESPACE"]).run();
        assert_eq!(run.success().stdout, "late\n");
        assert_eq!(retention(&home, tools, "late"), week);
        home.stigmer(["local", "stop"]).run().success();
        home.assert_quiet();
    }
}

fn home_with(tools: &Tools, made: Made) -> Home {
    let home = Home::new();
    match made {
        Made::New => {}
        Made::ByStigmer => {
            start_detached(&home, tools).run().success();
            home.stigmer(["local", "stop"]).run().success();
        }
        Made::ByBareStartDev => {
            // The directories, with the right permissions.
            start_detached(&home, tools).run().success();
            home.stigmer(["local", "stop"]).run().success();
            for name in DATABASE_FILES {
                fs::remove_file(home.path().join("data").join(name)).unwrap();
            }
            let port = home.port().to_string();
            let words = ["server", "start-dev", "--headless", "--port", &port, "--db-filename"];
            let server = Stigmer::of_program(&home, tools.temporal.as_os_str(), words).args([home.database()]).spawn();
            home.wait_for("the bare server", || {
                let health = ["operator", "cluster", "health"];
                Stigmer::of_program(&home, tools.temporal.as_os_str(), health).args(address(&home)).run().code() == 0
            });
            server.signal(libc::SIGTERM);
            server.wait().success();
        }
    }
    home
}

fn address(home: &Home) -> [String; 2] {
    ["--address".into(), format!("127.0.0.1:{}", home.port())]
}

/// The real CLI's answer.
fn temporal(home: &Home, tools: &Tools, words: &[&str]) -> String {
    let told = Stigmer::of_program(home, tools.temporal.as_os_str(), words).args(address(home)).run();
    told.success().stdout.clone()
}

fn retention(home: &Home, tools: &Tools, namespace: &str) -> String {
    let words = ["operator", "namespace", "describe", "--output=json", "--namespace", namespace];
    let described = temporal(home, tools, &words);
    let (_, rest) = described.split_once("\"workflowExecutionRetentionTtl\": \"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}
