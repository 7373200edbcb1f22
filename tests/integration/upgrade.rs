//! Another Temporal for a database that one has served: both change, or
//! neither, and no row is ever lost. The stand-in makes real databases here.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::install::SmallDisk;
use crate::support::archive::{PINNED_VERSION, asset_path, release};
use crate::support::stand_in_build::stand_in_bytes;
use crate::support::*;

/// Of schema 1, and of schema 2.
pub const OLD: &str = "9.9.7";
pub const NEW: &str = "9.9.8";
/// What the fresh database of the stand-in has no row for.
const ROWS: usize = 300;

/// The stand-in as a version of its own, which makes databases of this schema.
fn executable(version: &str, schema: u32) -> Vec<u8> {
    [stand_in_bytes(), format!("\nstand-in {version} {schema}\n").as_bytes()].concat()
}

/// Both versions; None where this machine has no sqlite3.
#[track_caller]
pub fn server() -> Option<ReleaseServer> {
    if !has_sqlite() {
        return None;
    }
    let server = ReleaseServer::with_release(OLD, &release(&executable(OLD, 1)));
    server.publish(NEW, &release(&executable(NEW, 2)));
    Some(server)
}

pub fn run<'h>(home: &'h Home, version: &str, server: &ReleaseServer) -> Stigmer<'h> {
    home.stigmer(["local", "run"]).with_mirror(version, server.base()).args(["--", "true"])
}

pub fn start<'h>(home: &'h Home, version: &str, server: &ReleaseServer) -> Stigmer<'h> {
    home.stigmer(["local", "start"]).with_mirror(version, server.base())
}

/// A home whose database is of the old version, and full.
fn old_home(server: &ReleaseServer) -> Home {
    let home = Home::new();
    begin_with_old(&home, server);
    home
}

pub fn begin_with_old(home: &Home, server: &ReleaseServer) {
    run(home, OLD, server).run().success();
    fill(&home.database());
}

/// What SQLite answers; of a database that may be in the middle of something.
pub fn sql(database: &Path, text: &str) -> String {
    let output = Command::new("sqlite3").args(["-batch", "-bail"]).arg(database).arg(text).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {said}", database.display());
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn fill(database: &Path) {
    let text = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS})
         INSERT INTO executions(rowid, id, data, words) SELECT i * 3, 'w' || i, randomblob(200), 'common word' || i FROM n;
         INSERT INTO namespaces VALUES ('default', x'010203');
         INSERT INTO queue VALUES ('a', 1), ('a', 2), ('b', 1);"
    );
    sql(database, &text);
}

/// Every row that both schemas have, and what a search finds.
fn content(database: &Path) -> String {
    sql(
        database,
        "SELECT rowid, id, hex(data), words FROM executions ORDER BY rowid;
         SELECT * FROM queue; SELECT id, hex(data) FROM namespaces ORDER BY id;
         SELECT rowid FROM search WHERE search MATCH 'word7'; SELECT count(*) FROM search WHERE search MATCH 'common';
         PRAGMA integrity_check;",
    )
}

fn has_new_schema(database: &Path) -> bool {
    sql(database, "SELECT count(*) FROM sqlite_schema WHERE name = 'chasm'") == "1"
}

/// The names beside the database that are not its own.
fn names_in_data(home: &Home) -> Vec<String> {
    let entries = fs::read_dir(home.path().join("data")).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !["temporal.db", "temporal.db.lock", "temporal.db.temporal"].contains(&name.as_str()));
    names.sort();
    names
}

/// A directory on PATH with a `sqlite3` that is this script, or none.
pub fn path_with(home: &Home, script: Option<&str>) -> PathBuf {
    let directory = home.root().join("path");
    fs::create_dir_all(&directory).unwrap();
    for program in ["true", "sh", "sleep", "cat", "grep"] {
        let found = ["/bin", "/usr/bin"].map(|directory| Path::new(directory).join(program));
        let found = found.iter().find(|path| path.exists()).unwrap();
        let _ = std::os::unix::fs::symlink(found, directory.join(program));
    }
    let _ = fs::remove_file(directory.join("sqlite3"));
    if let Some(script) = script {
        // Not by this process, which another thread's fork would keep from executing it.
        let text = format!("cat > \"$0\" <<'EOF'\n#!/bin/sh\n{script}\nEOF\nchmod 755 \"$0\"");
        let status = Command::new("sh").arg("-c").arg(text).arg(directory.join("sqlite3")).status().unwrap();
        assert!(status.success());
    }
    directory
}

/// Puts an executable in place of whatever is there.
fn put(path: &Path, bytes: &[u8]) {
    // Not written by this process, which another thread's fork would keep from
    // executing it.
    let [new, copy] = ["new", "copy"].map(|extension| path.with_extension(extension));
    fs::write(&new, bytes).unwrap();
    assert!(Command::new("cp").args([&new, &copy]).status().unwrap().success());
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    fs::rename(&copy, path).unwrap();
    fs::remove_file(&new).unwrap();
}

/// The program under test, which pins an executable of the tests'.
fn program_that_pins(home: &Home, executable: &[u8]) -> PathBuf {
    let mut bytes = fs::read(process::binary()).unwrap();
    let platform = platform().replace('_', "/");
    let size = pinned::fact(&format!("{platform}/size")).unwrap();
    let width = size.len();
    for (name, is, shall) in [
        ("executable", pinned::fact(&format!("{platform}/executable")).unwrap(), sha256(executable)),
        ("size", size, format!("{:0width$}", executable.len())),
    ] {
        let [is, shall] = [is, &shall].map(|value| format!("\n{platform}/{name} {value}").into_bytes());
        let places: Vec<_> =
            bytes.windows(is.len()).enumerate().filter(|(_, it)| *it == is).map(|(at, _)| at).collect();
        assert!(!places.is_empty());
        places.into_iter().for_each(|at| bytes[at..at + shall.len()].copy_from_slice(&shall));
    }
    let path = home.root().join("stigmer");
    let mut writer = Command::new("sh")
        .args(["-c", "cat > \"$0\" && chmod 755 \"$0\""])
        .arg(&path)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut writer.stdin.take().unwrap(), &bytes).unwrap();
    assert!(writer.wait().unwrap().success());
    path
}

#[test]
fn an_upgrade_keeps_every_row_and_says_what_it_did() {
    let Some(server) = server() else { return };
    let home = old_home(&server);
    let before = content(&home.database());
    let mut daemon = start(&home, NEW, &server).spawn();
    daemon.wait_for_stdout("Ready.\n");
    let kept = home.path().join("data/temporal.db.9.9.7");
    let expected = format!(
        "[•] Stigmer Local Daemon starting...\n\
         [•] Temporal 9.9.7 is installed; 9.9.8 is wanted.\n\
         [⬇] Downloading Temporal CLI v9.9.8 ({})... 100%\n\
         [•] Migrating the database from Temporal 9.9.7 to 9.9.8...\n\
         [✓] Temporal binary installed to ~/.stigmer/bin/temporal\n\
         [✓] Database migrated; the old one is kept at ~/.stigmer/data/temporal.db.9.9.7\n\
         [✓] Temporal Server started",
        platform().replace('_', "/"),
    );
    assert!(daemon.stdout().starts_with(&expected), "{}", daemon.stdout());
    let status = home.stigmer(["local", "status", "--json"]).run();
    status.success().stdout_has("\"temporal_version\":\"9.9.8\"").stdout_has("\"database_version\":\"9.9.8\"");
    daemon.signal(libc::SIGTERM);
    daemon.wait().success();
    assert_eq!(content(&home.database()), before);
    assert!(has_new_schema(&home.database()) && !has_new_schema(&kept));
    assert_eq!(content(&kept), before);
    assert_eq!(sql(&home.database(), "SELECT count(*) FROM executions WHERE length = length(words)"), ROWS.to_string());
    assert_eq!(names_in_data(&home), ["temporal.db.9.9.7"]);
    assert_eq!(home.bin_names(), ["temporal", "temporal.receipt"]);
    let log = fs::read_to_string(home.log()).unwrap();
    assert!(
        log.contains("Temporal 9.9.8 on ") && log.contains(", the database migrated from Temporal 9.9.7\n"),
        "{log}"
    );
    home.stigmer(["local", "status", "--json"]).run().exits_with(3).stdout_has("\"database_version\":\"9.9.8\"");
    home.assert_quiet();
}

#[test]
fn the_same_temporal_again_is_not_looked_at() {
    let Some(server) = server() else { return };
    let home = old_home(&server);
    run(&home, NEW, &server).run().success();
    let (starts, record) = (home.starts().len(), home.path().join("data/temporal.db.temporal"));
    let before = fs::read(&record).unwrap();
    let no_sqlite = path_with(&home, None);
    run(&home, NEW, &server).env("PATH", &no_sqlite).run().success().stderr_lacks("Migrating").stderr_lacks("[!]");
    assert_eq!((home.starts().len(), fs::read(&record).unwrap()), (starts + 1, before));
}

#[test]
fn versions_that_are_known_to_have_one_schema_are_not_compared() {
    let Some(server) = server() else { return };
    let home = Home::new();
    let since = pinned::fact("schema-since").unwrap();
    let (one, other) = (since.to_owned(), format!("{since}1"));
    for version in [&one, &other] {
        server.publish(version, &release(&executable(version, 1)));
    }
    let no_sqlite = path_with(&home, None);
    for version in [&one, &other, &one] {
        let starts = home.starts().len();
        run(&home, version, &server)
            .env("PATH", &no_sqlite)
            .run()
            .success()
            .stderr_lacks("igrat")
            .stderr_lacks("not used");
        assert_eq!(home.starts().len(), starts + 1, "{version}");
        assert_eq!(home.receipt_field("version").as_ref(), Some(version));
    }
    assert!(names_in_data(&home).is_empty());
    assert_eq!(home.bin_names(), ["temporal", "temporal.receipt"]);
}

#[test]
fn another_version_with_the_same_schema_changes_nothing_in_the_database() {
    let Some(server) = server() else { return };
    let home = old_home(&server);
    server.publish("9.9.6", &release(&executable("9.9.6", 1)));
    let before = fs::read(home.database()).unwrap();
    run(&home, "9.9.6", &server).run().success().stderr_lacks("igrat");
    assert!(fs::read(home.database()).unwrap() == before);
    assert!(names_in_data(&home).is_empty());
    assert_eq!(home.receipt_field("version").unwrap(), "9.9.6");
}

#[test]
fn a_way_back_is_the_same_question_and_is_lossless_or_not_at_all() {
    let Some(server) = server() else { return };
    for (loss, why) in [
        ("", None),
        ("INSERT INTO chasm VALUES ('a', NULL)", Some("has rows in the table chasm")),
        ("UPDATE executions SET extra = 'x' WHERE id = 'w9'", Some("has values in the column extra of executions")),
        ("CREATE TABLE \"of a 'user'\"(x)", None),
        ("CREATE TABLE \"of a 'user'\" AS SELECT 1", Some("has rows in the table of a 'user'")),
    ] {
        let home = old_home(&server);
        run(&home, NEW, &server).run().success();
        sql(&home.database(), &format!("PRAGMA user_version; {loss}"));
        let before = content(&home.database());
        let bytes = fs::read(home.database()).unwrap();
        let outcome = run(&home, OLD, &server).run();
        let Some(why) = why else {
            outcome.success().stderr_has("Migrating the database from Temporal 9.9.8 to 9.9.7...");
            assert_eq!((content(&home.database()), has_new_schema(&home.database())), (before, false));
            // The last one alone is kept.
            assert_eq!(names_in_data(&home), ["temporal.db.9.9.8"]);
            continue;
        };
        outcome.fails_with(&[why, "cannot use Temporal 9.9.7", "hint: ", "--temporal-version 9.9.8", "STIGMER_HOME"]);
        assert!(fs::read(home.database()).unwrap() == bytes, "{loss}");
        assert_eq!(names_in_data(&home), ["temporal.db.9.9.7"]);
        assert_eq!(home.receipt_field("version").unwrap(), NEW);
        run(&home, NEW, &server).run().success().stderr_lacks("igrat");
        home.assert_quiet();
    }
}

#[test]
fn without_a_sqlite3_that_works_nothing_changes_and_nothing_is_downloaded() {
    let Some(server) = server() else { return };
    let real = "exec /usr/bin/sqlite3 \"$@\"";
    let fails_on = |word: &str| {
        format!(
            "case $1 in -version) ;; *) if grep -q '{word}'; then echo 'disk I/O error' >&2; exit 1; fi ;; esac\n{real}"
        )
    };
    let compare = fails_on("sqlite_schema");
    for (script, why) in [
        (None, "the program sqlite3, which compares and migrates databases, is not installed"),
        (Some("echo '3.36.0 2021'"), "3.36.0, and 3.37 is needed"),
        (Some("echo nonsense"), "nonsense, and 3.37 is needed"),
        (Some("exit 7"), "does not work: exit status 7"),
        (Some("kill -9 $$"), "does not work: signal 9"),
        (Some("exec sleep 1000"), "does not work: it did not end within 10 s"),
        (Some(compare.as_str()), "disk I/O error"),
    ] {
        let home = old_home(&server);
        let bytes = fs::read(home.database()).unwrap();
        let asked = server.requests_for(&asset_path(NEW)).len();
        let path = path_with(&home, script);
        let outcome = run(&home, NEW, &server).env("PATH", &path).run();
        outcome.fails_with(&[why, "9.9.8", "hint: ", "--temporal-version 9.9.7", "STIGMER_HOME", "-wal"]);
        assert!(fs::read(home.database()).unwrap() == bytes, "{why}");
        assert!(names_in_data(&home).is_empty(), "{:?}", names_in_data(&home));
        if !why.starts_with("disk") {
            assert_eq!(server.requests_for(&asset_path(NEW)).len(), asked, "{why}");
        }
        run(&home, OLD, &server).env("PATH", &path).run().success().stderr_lacks("[!]");
        home.assert_quiet();
    }
}

#[test]
fn a_default_that_moved_is_not_used_where_it_cannot_be_and_not_downloaded_again() {
    let Some(server) = server() else { return };
    let new = executable(PINNED_VERSION, 2);
    server.publish(PINNED_VERSION, &release(&new));
    // A row in the way of a migration; no sqlite3; a Temporal that does not serve.
    for (loss, has_sqlite, behaviour, why, downloads) in [
        (
            "CREATE TABLE mine AS SELECT 1",
            true,
            "",
            "the database has rows in the table mine, which the new schema lacks",
            1,
        ),
        ("SELECT 1", false, "", "the program sqlite3, which compares and migrates databases, is not installed", 0),
        ("SELECT 1", true, "refuse-home", "cannot start Temporal: it ended with exit status 1 before it served", 1),
    ] {
        let home = old_home(&server);
        sql(&home.database(), loss);
        let before = content(&home.database());
        let program = program_that_pins(&home, &new);
        let asked = server.requests_for(&asset_path(PINNED_VERSION)).len();
        home.behave(&format!("{behaviour} {PINNED_VERSION}"));
        let start = |has_sqlite| {
            let stigmer = Stigmer::of_program(&home, program.as_os_str(), ["local", "run", "--mirror", &server.base()]);
            let stigmer = stigmer.args(["--", "true"]);
            if has_sqlite { stigmer } else { stigmer.env("PATH", path_with(&home, None)) }
        };
        for _ in 0..2 {
            let outcome = start(has_sqlite).run();
            outcome.success().stderr_has(&format!("[!] Temporal {PINNED_VERSION} is not used: "));
            outcome.stderr_has(why).stderr_has("; going on with 9.9.7\n");
            assert_eq!(server.requests_for(&asset_path(PINNED_VERSION)).len(), asked + downloads, "{why}");
            assert_eq!(content(&home.database()), before);
            assert_eq!(home.receipt_field("version").unwrap(), OLD);
        }
        home.behave("");
        if !has_sqlite {
            // Nothing stands in the way any more.
            start(true).run().success().stderr_has("Database migrated");
            assert_eq!(content(&home.database()), before);
        }
        home.assert_quiet();
    }
}

#[test]
fn a_new_pair_that_does_not_serve_is_exchanged_for_the_old_one() {
    let Some(server) = server() else { return };
    let home = old_home(&server);
    let before = content(&home.database());
    home.behave(&format!("refuse-home {NEW}"));
    let outcome = run(&home, NEW, &server).run();
    outcome.fails_with(&["failing on this database as requested", "it ended with exit status 1"]);
    outcome.stderr_has("The upgrade to Temporal 9.9.8 did not succeed; all is as Temporal 9.9.7 left it.");
    assert_eq!((content(&home.database()), has_new_schema(&home.database())), (before.clone(), false));
    assert_eq!(home.receipt_field("version").unwrap(), OLD);
    assert!(fs::read(home.temporal()).unwrap() == executable(OLD, 1));
    assert_eq!((names_in_data(&home), home.bin_names().len()), (vec!["temporal.db.failed".to_owned()], 2));
    run(&home, OLD, &server).run().success().stderr_lacks("[!]");
    home.behave("");
    run(&home, NEW, &server).run().success().stderr_has("Database migrated");
    assert_eq!(content(&home.database()), before);
    home.assert_quiet();
}

#[test]
fn one_that_is_interrupted_leaves_the_old_pair() {
    let Some(server) = server() else { return };
    for in_trial in [false, true] {
        let home = old_home(&server);
        let before = content(&home.database());
        let marker = home.root().join("reached");
        let script = format!(
            "case $1 in -version) ;; *) cat > {0}.sql; if grep -q journal_mode {0}.sql; then > {0}; exec sleep 1000; fi; \
             exec /usr/bin/sqlite3 \"$@\" < {0}.sql ;; esac\nexec /usr/bin/sqlite3 \"$@\"",
            marker.display()
        );
        let mut stigmer = start(&home, NEW, &server);
        if in_trial {
            home.behave(&format!("hold-home {NEW}"));
        } else {
            stigmer = stigmer.env("PATH", path_with(&home, Some(&script)));
        }
        let daemon = stigmer.spawn();
        match in_trial {
            true => {
                home.wait_for("the trial", || home.state_field("phase").as_deref() == Some("starting"));
                assert!(has_new_schema(&home.database()));
            }
            false => home.wait_for("the migration", || marker.exists()),
        }
        daemon.signal(libc::SIGINT);
        let outcome = daemon.wait();
        outcome.success().stdout_lacks("Ready");
        if in_trial {
            outcome.stdout_has("The upgrade to Temporal 9.9.8 was not completed; all is as Temporal 9.9.7 left it.");
        }
        home.wait_until_quiet(LIMIT);
        home.behave("");
        assert_eq!((content(&home.database()), has_new_schema(&home.database())), (before, false));
        // What came of the download serves the next attempt.
        let names: Vec<_> = home.bin_names().into_iter().filter(|name| name != ".temporal.download").collect();
        assert_eq!((home.receipt_field("version").unwrap(), names.len()), (OLD.to_owned(), 2));
        let left: &[&str] = if in_trial { &["temporal.db.failed"] } else { &[] };
        assert_eq!(names_in_data(&home), left);
    }
}

#[test]
fn a_trial_that_was_killed_goes_on() {
    let Some(server) = server() else { return };
    let home = old_home(&server);
    let before = content(&home.database());
    home.behave(&format!("hold-home {NEW}"));
    let daemon = start(&home, NEW, &server).spawn();
    home.wait_for("the trial", || home.state_field("phase").as_deref() == Some("starting"));
    daemon.signal(libc::SIGKILL);
    home.wait_until_quiet(LIMIT);
    home.behave("");
    let starts = home.starts().len();
    let outcome = run(&home, NEW, &server).run();
    outcome.success().stderr_has("The upgrade to Temporal 9.9.8 was interrupted; going on with it.");
    outcome.stderr_has("Database migrated; the old one is kept at ~/.stigmer/data/temporal.db.9.9.7");
    assert_eq!(home.starts().len(), starts + 1);
    assert_eq!((content(&home.database()), names_in_data(&home)), (before, vec!["temporal.db.9.9.7".to_owned()]));
}

#[test]
fn a_trial_that_was_killed_is_undone_where_the_old_one_is_wanted() {
    let Some(server) = server() else { return };
    let home = old_home(&server);
    let before = content(&home.database());
    home.behave(&format!("hold-home {NEW}"));
    let daemon = start(&home, NEW, &server).spawn();
    home.wait_for("the trial", || home.state_field("phase").as_deref() == Some("starting"));
    daemon.signal(libc::SIGKILL);
    home.wait_until_quiet(LIMIT);
    let downloads = server.requests_for(&asset_path(OLD)).len();
    let outcome = run(&home, OLD, &server).run();
    outcome.success().stderr_has("The upgrade to Temporal 9.9.8 was interrupted; all is as Temporal 9.9.7 left it.");
    assert_eq!((content(&home.database()), has_new_schema(&home.database())), (before, false));
    assert_eq!(server.requests_for(&asset_path(OLD)).len(), downloads);
}

#[test]
fn whatever_executable_the_user_brings_is_compared_too() {
    let Some(server) = server() else { return };
    let home = old_home(&server);
    let before = content(&home.database());
    // By --temporal-bin.
    let own = home.root().join("my-temporal");
    put(&own, &executable("9.9.8-mine", 2));
    let by_name = || home.stigmer(["local", "run", "--temporal-bin"]).args([&own]).args(["--", "true"]);
    let no_sqlite = path_with(&home, None);
    by_name().env("PATH", &no_sqlite).run().fails_with(&["my-temporal", "leave out --temporal-bin", "sqlite3"]);
    by_name().run().success().stderr_has("Migrating the database from Temporal 9.9.7 to 9.9.8-mine...");
    assert_eq!(content(&home.database()), before);
    let starts = home.starts().len();
    by_name().env("PATH", &no_sqlite).run().success().stderr_lacks("[!]");
    assert_eq!(home.starts().len(), starts + 1);
    // In the place of the installed one.
    fs::remove_file(home.receipt()).unwrap();
    put(&home.temporal(), &executable("9.9.7-mine", 1));
    let plain = || home.stigmer(["local", "run", "--", "true"]);
    plain().env("PATH", &no_sqlite).run().fails_with(&["Temporal 9.9.7-mine", "sqlite3"]);
    plain().run().success().stderr_has("Migrating the database from Temporal 9.9.8-mine to 9.9.7-mine...");
    assert_eq!((content(&home.database()), has_new_schema(&home.database())), (before, false));
    assert_eq!(home.bin_names(), ["temporal"]);
}

/// The real one begins to serve, and then says which one it is.
#[test]
fn a_version_that_is_named_late_is_learned_late() {
    let Some(_server) = server() else { return };
    let home = Home::new();
    let own = home.root().join("my-temporal");
    put(&own, &executable("9.9.7-mine", 1));
    let record = || fs::read_to_string(home.path().join("data/temporal.db.temporal")).unwrap();
    let is_named = || fs::read_to_string(home.log()).unwrap().contains("CLI 9.9.7-mine");
    let start = || {
        home.behave("late-banner");
        home.stigmer(["local", "start", "--detach", "--temporal-bin"]).args([&own]).run().success();
        assert_eq!(home.state_field("database_version"), None);
        home.behave("");
    };
    // At the end, where it does not run long.
    start();
    home.wait_for("the version in the log", is_named);
    home.stigmer(["local", "stop"]).run().success();
    assert!(record().contains("version=9.9.7-mine\n"), "{}", record());
    fs::remove_file(home.path().join("data/temporal.db.temporal")).unwrap();
    fs::remove_file(home.database()).unwrap();
    // Or at the next look.
    start();
    home.wait_for("the version", || home.state_field("database_version").as_deref() == Some("9.9.7-mine"));
    assert!(record().contains("version=9.9.7-mine\n"), "{}", record());
    home.stigmer(["local", "stop"]).run().success();
}

#[test]
fn what_is_replaced_under_a_running_daemon_is_compared_before_it_is_restarted() {
    let Some(server) = server() else { return };
    let home = old_home(&server);
    let before = content(&home.database());
    let own = home.root().join("my-temporal");
    put(&own, &executable("9.9.7-mine", 1));
    let start = || home.stigmer(["local", "start", "--detach", "--temporal-bin"]).args([&own]);
    let restart = || home.stigmer(["local", "restart"]).run();
    start().run().success();
    let database_version = || home.state_field("database_version").unwrap();
    assert_eq!(database_version(), "9.9.7-mine");
    // The executable, on request.
    put(&own, &executable("9.9.8-mine", 2));
    restart().success();
    assert_eq!((has_new_schema(&home.database()), database_version().as_str()), (true, "9.9.8-mine"));
    // The database, and Temporal is killed.
    fs::rename(home.path().join("data/temporal.db.9.9.7-mine"), home.database()).unwrap();
    assert!(!has_new_schema(&home.database()));
    let killed = home.state_field("temporal_pid").unwrap();
    process::signal(killed.parse().unwrap(), libc::SIGKILL);
    home.wait_for("Temporal to serve again", || {
        home.state_field("phase").as_deref() == Some("ready") && home.state_field("temporal_pid").unwrap() != killed
    });
    home.stigmer(["local", "stop"]).run().success();
    assert!(content(&home.database()) == before && has_new_schema(&home.database()), "{}", home.describe());
    // What cannot be ends the daemon, and says why.
    start().env("PATH", path_with(&home, None)).run().success();
    put(&own, &executable("9.9.7-again", 1));
    restart().fails_with(&["the daemon ended", "logs/daemon.log"]);
    home.wait_until_quiet(LIMIT);
    let said = fs::read_to_string(home.path().join("logs/daemon.log")).unwrap();
    let why = "my-temporal (Temporal 9.9.7-again) for a database of Temporal 9.9.8-mine: the program sqlite3";
    assert!(said.lines().any(|line| line.contains("cannot use /") && line.contains(why)), "{said}");
    assert!(content(&home.database()) == before && has_new_schema(&home.database()), "{}", home.describe());
}

#[test]
fn a_database_that_nobody_knows_is_compared_once() {
    let Some(server) = server() else { return };
    let home = old_home(&server);
    let before = content(&home.database());
    // As before there were records, or after a backup came back.
    run(&home, NEW, &server).run().success();
    fs::rename(home.path().join("data/temporal.db.9.9.7"), home.database()).unwrap();
    let no_sqlite = path_with(&home, None);
    let elsewhere = home.root().join("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    let argument = format!("--temporal-arg=--db-filename={}", elsewhere.join("copy.db").display());
    fs::copy(home.database(), elsewhere.join("copy.db")).unwrap();
    run(&home, NEW, &server).run().success().stderr_has("Migrating the database from an unknown Temporal to 9.9.8...");
    assert_eq!(content(&home.database()), before);
    assert_eq!(names_in_data(&home), ["temporal.db.unknown"]);
    let starts = home.starts().len();
    run(&home, NEW, &server).run().success();
    assert_eq!(home.starts().len(), starts + 1);
    let by_path = || home.stigmer(["local", "run", &argument]).with_mirror(NEW, server.base()).args(["--", "true"]);
    by_path().run().success().stderr_has("Migrating the database from an unknown Temporal to 9.9.8...");
    assert_eq!(content(&elsewhere.join("copy.db")), before);
    by_path().env("PATH", no_sqlite).run().success().stderr_lacks("[!]");
}

#[test]
fn what_a_crash_left_in_the_database_is_in_the_new_one() {
    let Some(server) = server() else { return };
    // A log with content, and a change that was half written.
    for (crash, counts) in [
        ("PRAGMA journal_mode=WAL; INSERT INTO executions(id) VALUES ('in the log');\n.shell kill -9 $PPID", true),
        ("PRAGMA cache_size=1; BEGIN; UPDATE executions SET data = randomblob(2000);\n.shell kill -9 $PPID", false),
    ] {
        let home = old_home(&server);
        let before = content(&home.database());
        let mut sqlite = Command::new("sqlite3")
            .arg("-batch")
            .arg(home.database())
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut sqlite.stdin.take().unwrap(), format!("{crash}\n").as_bytes()).unwrap();
        assert!(!sqlite.wait().unwrap().success());
        let left = if counts { "data/temporal.db-wal" } else { "data/temporal.db-journal" };
        assert!(fs::metadata(home.path().join(left)).unwrap().len() > 0);
        run(&home, NEW, &server).run().success().stderr_has("Database migrated");
        let number = if counts { "1" } else { "0" };
        assert_eq!(sql(&home.database(), "SELECT count(*) FROM executions WHERE id = 'in the log'"), number);
        sql(&home.database(), "DELETE FROM executions WHERE id = 'in the log'");
        assert_eq!(content(&home.database()), before);
        assert_eq!(names_in_data(&home), ["temporal.db.9.9.7"]);
    }
}

#[test]
fn a_damaged_database_is_told_as_such_and_left_alone() {
    let Some(server) = server() else { return };
    for page in [0, 2, 5] {
        let home = old_home(&server);
        let mut bytes = fs::read(home.database()).unwrap();
        let at = if page == 0 { 100 } else { page * 4096 };
        bytes[at..at + 900].fill(0x55);
        fs::write(home.database(), &bytes).unwrap();
        let outcome = run(&home, NEW, &server).run();
        outcome.fails_with(&["9.9.8", "the database is damaged", "hint: "]);
        assert!(fs::read(home.database()).unwrap() == bytes, "page {page}");
        assert_eq!(home.receipt_field("version").unwrap(), OLD);
    }
}

#[test]
fn where_a_disk_has_no_room_for_two_nothing_changes() {
    let Some(server) = server() else { return };
    let Some(disk) = SmallDisk::mount(9 << 20) else {
        return skip("this user cannot mount a small disk");
    };
    let home = Home::below(&disk.path);
    run(&home, OLD, &server).run().success();
    fill(&home.database());
    sql(&home.database(), "UPDATE executions SET data = randomblob(6000)");
    let before = content(&home.database());
    let outcome = run(&home, NEW, &server).run();
    outcome.fails_with(&["to migrate the database takes", "MB, but only", "free some space"]);
    assert_eq!((content(&home.database()), home.receipt_field("version").unwrap()), (before, OLD.into()));
    assert!(names_in_data(&home).is_empty());
    home.assert_quiet();
}

#[test]
fn two_starts_at_once_migrate_once() {
    let Some(server) = server() else { return };
    let home = old_home(&server);
    let before = content(&home.database());
    let detached = || home.stigmer(["local", "start", "--detach"]).with_mirror(NEW, server.base()).spawn();
    let starts: Vec<_> = (0..4).map(|_| detached()).collect();
    let outcomes: Vec<_> = starts.into_iter().map(Running::wait).collect();
    let migrated = outcomes.iter().filter(|outcome| outcome.success().stdout.contains("Database migrated")).count();
    assert_eq!(migrated, 1);
    home.stigmer(["local", "stop"]).run().success();
    assert_eq!(content(&home.database()), before);
    home.assert_quiet();
}

#[test]
fn a_file_of_the_users_is_never_overwritten_by_what_is_kept() {
    let Some(server) = server() else { return };
    let home = old_home(&server);
    fs::write(home.path().join("data/temporal.db.9.9.7"), "mine").unwrap();
    run(&home, NEW, &server).run().success().stderr_has("data/temporal.db.9.9.7.1");
    assert_eq!(fs::read_to_string(home.path().join("data/temporal.db.9.9.7")).unwrap(), "mine");
    run(&home, OLD, &server).run().success();
    assert_eq!(names_in_data(&home), ["temporal.db.9.9.7", "temporal.db.9.9.8"]);
}

#[test]
fn a_client_and_an_ephemeral_run_leave_the_executable_that_the_database_needs() {
    let Some(server) = server() else { return };
    let home = old_home(&server);
    let client = home.stigmer(["local", "temporal", "--version"]).env("STIGMER_TEMPORAL_MIRROR", server.base());
    let outcome = client.run();
    outcome.success().stdout_has("temporal version 9.9.7").stderr_has("[!]").stderr_has("using Temporal 9.9.7");
    let ephemeral = home.stigmer(["local", "run", "--ephemeral"]).with_mirror(NEW, server.base()).args(["--", "true"]);
    ephemeral.run().fails_with(&["cannot install Temporal 9.9.8", "temporal.db", "stigmer local start"]);
    assert_eq!(home.receipt_field("version").unwrap(), OLD);
    run(&home, NEW, &server).run().success();
    let ephemeral = home.stigmer(["local", "run", "--ephemeral"]).with_mirror(NEW, server.base()).args(["--", "true"]);
    ephemeral.run().success();
}

/// Stops the daemon of `home` once it serves: until `is_over`.
fn stop_when_it_serves(home: &Home, is_over: &AtomicBool) {
    let mut answers = 0;
    while !is_over.load(Ordering::SeqCst) {
        // A daemon that has no room for its state serves, too.
        answers = if TcpStream::connect(("127.0.0.1", home.port())).is_ok() { answers + 1 } else { 0 };
        if home.state_field("phase").as_deref() == Some("ready") || answers > 100 {
            home.stigmer(["local", "stop"]).run();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What `traced` returns of a start of the new version, which it ends or the
/// end of serving does.
#[cfg(target_os = "linux")]
fn until_it_serves<T>(home: &Home, server: &ReleaseServer, traced: impl FnOnce(Command) -> T) -> T {
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| stop_when_it_serves(home, &is_over));
        let result = traced(start(home, NEW, server).into_command());
        is_over.store(true, Ordering::SeqCst);
        result
    })
}

/// Killed before each change of the disk that it makes itself; what it starts
/// goes on or ends as it does after any kill.
#[cfg(target_os = "linux")]
#[test]
fn a_kill_before_any_change_of_the_disk_leaves_one_whole_pair() {
    let Some(server) = server() else { return };
    let server = &server;
    let killed =
        |home: &Home, change| until_it_serves(home, server, |command| trace::kill_at_any_change(command, change));
    let changes = match killed(&old_home(server), usize::MAX) {
        Ok(changes) => changes,
        Err(error) => return skip(&format!("this process may not trace another: {error}")),
    };
    eprintln!("{changes} changes");
    assert!((30..500).contains(&changes), "{changes} changes");
    in_parallel(4, 0..changes, |change| {
        let home = old_home(server);
        let before = content(&home.database());
        killed(&home, change).unwrap();
        home.wait_until_quiet(LIMIT);
        assert_one_whole_pair(&home, server, &before, change);
    });
}

/// Killed before the change, it was; or refused it.
#[track_caller]
fn assert_one_whole_pair(home: &Home, server: &ReleaseServer, content_before: &str, change: usize) {
    // Either is whole, whichever is asked for then.
    let (next, other) = if change.is_multiple_of(2) { (NEW, OLD) } else { (OLD, NEW) };
    for version in [next, other] {
        run(home, version, server).run().success();
        assert_eq!(content(&home.database()), content_before, "change {change}, then {version}\n{}", home.describe());
        assert_eq!(has_new_schema(&home.database()), version == NEW, "change {change}, then {version}");
        assert_eq!(home.receipt_field("version").as_deref(), Some(version), "change {change}");
    }
    let left = names_in_data(home);
    let is_known = |name: &String| name.starts_with("temporal.db.9.9.") || name.starts_with("temporal.db.failed");
    assert!(left.iter().all(is_known), "change {change}: {left:?}");
    assert_eq!(home.bin_names(), ["temporal", "temporal.receipt"], "change {change}");
}

/// Whatever it was about to write: it ends with an error, or does without.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn a_disk_that_is_full_from_any_change_on_leaves_one_whole_pair() {
    let Some(server) = server() else { return };
    let server = &server;
    let refused =
        |home: &Home, change| until_it_serves(home, server, |command| trace::fill_disk_at_change(command, change));
    let changes = match refused(&old_home(server), usize::MAX) {
        Ok((changes, status)) => {
            assert!(status.success(), "{status}");
            changes
        }
        Err(error) => return skip(&format!("this process may not trace another: {error}")),
    };
    assert!((30..500).contains(&changes), "{changes} changes");
    in_parallel(4, 0..changes, |change| {
        let home = old_home(server);
        let before = content(&home.database());
        let (_, status) = refused(&home, change).unwrap();
        assert!(matches!(status.code(), Some(0 | 1)), "change {change}: {status}\n{}", home.describe());
        home.wait_until_quiet(LIMIT);
        assert_one_whole_pair(&home, server, &before, change);
    });
}

#[test]
fn in_a_directory_that_cannot_be_written_to_nothing_changes() {
    let Some(server) = server() else { return };
    let home = old_home(&server);
    let data = home.path().join("data");
    let upgrade = home.stigmer_without_privileges(["local", "run"]).with_mirror(NEW, server.base());
    let before = content(&home.database());
    fs::set_permissions(&data, fs::Permissions::from_mode(0o555)).unwrap();
    let outcome = upgrade.args(["--", "true"]).run();
    outcome.fails_with(&["user/.stigmer/data/", "permission denied", "hint: "]);
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!((content(&home.database()), home.receipt_field("version").unwrap()), (before, OLD.into()));
    assert!(names_in_data(&home).is_empty());
    home.stigmer_without_privileges(["local", "run"])
        .with_mirror(NEW, server.base())
        .args(["--", "true"])
        .run()
        .success();
}
