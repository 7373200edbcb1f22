//! A name is never taken for the thing: a port for the server, a pid for the
//! process, a path for the file that was looked at.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpStream;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{chown, lchown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::archive::{VERSION, asset_path, small_release};
use crate::support::process::{binary, is_root, signal};
use crate::support::*;

fn home() -> Home {
    Home::new().with_stand_in()
}

/// `stigmer ARGS` in `home`, on the ports of `other`.
fn on_ports_of<'h>(home: &'h Home, other: &Home, arguments: &[&str]) -> Stigmer<'h> {
    let stigmer = home.stigmer(arguments).env("STIGMER_TEMPORAL_PORT", other.port().to_string());
    stigmer.env("STIGMER_TEMPORAL_UI_PORT", other.ui_port().to_string())
}

#[track_caller]
fn stop(home: &Home) {
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
}

/// `late` has found the ports free and spawned its server when `early` takes them.
#[track_caller]
fn lose_the_race<'h>(early: &'h Home, late: &'h Home, arguments: &[&str]) -> Outcome<'h> {
    late.behave("wait-to-listen");
    let loser = on_ports_of(late, early, arguments).spawn();
    late.wait_for("its server", || late.starts().len() == 1);
    early.stigmer(["local", "start", "--detach"]).run().success();
    // Time enough to take the other one's answer for its own.
    for _ in 0..10 {
        early.stigmer(["local", "status"]).run().success();
    }
    late.behave("");
    loser.wait()
}

#[test]
fn a_server_that_lost_its_port_to_another_home_is_never_said_to_be_ready() {
    for arguments in [&["local", "start"][..], &["local", "start", "--detach"]] {
        let (early, late) = (home(), home());
        let outcome = lose_the_race(&early, &late, arguments);
        outcome.fails_with(&["cannot start Temporal", "address already in use"]).stdout_lacks("Ready");
        assert!(outcome.hint().unwrap().contains("--port"), "{}", outcome.describe());
        late.assert_quiet();
        early.stigmer(["local", "status"]).run().success();
        stop(&early);
    }
}

#[test]
fn a_command_is_never_run_against_another_homes_server() {
    let (early, late) = (home(), home());
    let executed = late.root().join("executed");
    let outcome = lose_the_race(&early, &late, &["local", "run", "--", "touch", executed.to_str().unwrap()]);
    outcome.fails_with(&["cannot start Temporal", "address already in use"]);
    assert!(!executed.exists());
    late.assert_quiet();
    stop(&early);
}

#[test]
fn a_restart_never_takes_another_homes_server_for_its_own() {
    let (first, second) = (home(), home());
    let mut daemon = first.stigmer(["local", "start"]).spawn();
    daemon.wait_for_stdout("Ready.");
    first.behave("wait-to-listen");
    first.crash("1");
    first.wait_for("the second server", || first.starts().len() == 2);
    on_ports_of(&second, &first, &["local", "start", "--detach"]).run().success();
    for _ in 0..10 {
        let status = first.stigmer(["local", "status"]).run();
        status.exits_with(1).stdout_lacks("running and ready");
    }
    first.behave("");
    daemon.wait_for_stdout("Temporal ended unexpectedly (exit status 1)");
    stop(&second);
    // The port is free again: now it is its own.
    daemon.wait_for_stdout("Temporal is ready again");
    daemon.signal(libc::SIGTERM);
    daemon.wait().success();
}

#[test]
fn a_server_that_another_program_keeps_from_its_port_is_told_as_such() {
    let (early, late) = (home(), home());
    late.behave("wait-to-listen");
    let start = on_ports_of(&late, &early, &["local", "start", "--ready-timeout", "2"]).spawn();
    late.wait_for("its server", || late.starts().len() == 1);
    early.stigmer(["local", "start", "--detach"]).run().success();
    let outcome = start.wait();
    let address = format!("another program answers at 127.0.0.1:{}", early.port());
    outcome.fails_with(&["cannot start Temporal", &address]).stdout_lacks("Ready");
    stop(&early);
}

#[test]
fn status_never_takes_another_program_on_the_port_for_the_server() {
    let (own, other) = (home(), home());
    own.stigmer(["local", "start", "--detach"]).run().success();
    let daemon: u32 = own.state_field("daemon_pid").unwrap().parse().unwrap();
    // It cannot notice what happens now.
    signal(daemon, libc::SIGSTOP);
    signal(own.starts()[0].0, libc::SIGKILL);
    own.wait_for("its port", || TcpStream::connect(("127.0.0.1", own.port())).is_err());
    on_ports_of(&other, &own, &["local", "start", "--detach"]).run().success();
    own.stigmer(["local", "status"]).run().exits_with(1).stdout_lacks("running and ready");
    signal(daemon, libc::SIGCONT);
    stop(&other);
}

/// The program with no /proc to see, as in a bare chroot.
#[cfg(target_os = "linux")]
fn without_proc<'h>(home: &'h Home, other: &Home, command: &str) -> Stigmer<'h> {
    let script = format!("umount -l /proc && exec \"$stigmer\" {command}");
    Stigmer::of_program(home, "unshare".as_ref(), ["--mount", "--propagation", "private", "sh", "-c", &script])
        .env("stigmer", binary())
        .env("STIGMER_TEMPORAL_PORT", other.port().to_string())
        .env("STIGMER_TEMPORAL_UI_PORT", other.ui_port().to_string())
}

/// A script in this home, whose database has a small disk of its own.
#[cfg(target_os = "linux")]
fn on_small_disk<'h>(home: &'h Home, script: &str) -> Stigmer<'h> {
    let data = home.database().parent().unwrap().to_owned();
    fs::create_dir_all(&data).unwrap();
    let (options, data) = ("size=20m,mode=700", data.display());
    let script = format!("set -e; mount -t tmpfs -o {options} none {data}; cd {data}; {script}");
    let arguments = ["--mount", "--propagation", "private", "sh", "-c", &script];
    Stigmer::of_program(home, "unshare".as_ref(), arguments).env("stigmer", binary())
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_as_such_and_said_to_have_room_again() {
    if !is_root() {
        return skip("only root can make a small disk");
    }
    const FILL: &str = "head -c 30m /dev/zero > filler 2> /dev/null || true";
    let home = home();
    home.behave("exit-before-serving 1\nsay Error: database or disk is full (13)");
    let outcome = on_small_disk(&home, &format!("{FILL}; exec \"$stigmer\" local start")).run();
    outcome.fails_with(&["cannot start Temporal"]);
    assert!(outcome.hint().unwrap().starts_with("0 MB are free on the disk of "), "{}", outcome.describe());

    let go = home.root().join("go");
    let free = format!("(until [ -e {} ]; do sleep 0.1; done; rm filler) &", go.display());
    home.behave("");
    let script = format!("{FILL}; truncate -s -1M filler; {free} exec \"$stigmer\" local start");
    let mut start = on_small_disk(&home, &script).spawn();
    start.wait_for_stdout("Ready.");
    start.wait_for_stdout("[!] Only 1 MB is free on the disk of ");
    fs::write(go, "").unwrap();
    start.wait_for_stdout("[•] There is room again on the disk of ");
    assert_eq!(start.stdout().matches("is free").count(), 1);
    start.signal(libc::SIGTERM);
    start.wait().success();
    home.assert_quiet();
}

#[cfg(target_os = "linux")]
#[test]
fn where_the_system_does_not_say_who_listens_it_is_found_out() {
    if !is_root() {
        return skip("only root can take /proc away");
    }
    let (early, late) = (home(), home());
    late.behave("wait-to-listen");
    let loser = without_proc(&late, &early, "local start").spawn();
    late.wait_for("its server", || late.starts().len() == 1);
    early.stigmer(["local", "start", "--detach"]).run().success();
    for _ in 0..10 {
        early.stigmer(["local", "status"]).run().success();
    }
    late.behave("");
    loser.wait().fails_with(&["address already in use"]).stdout_lacks("Ready");
    stop(&early);
    let mut own = without_proc(&late, &late, "local start").spawn();
    own.wait_for_stdout("Ready.");
    own.signal(libc::SIGTERM);
    own.wait().success();
    late.assert_quiet();
}

#[cfg(target_os = "linux")]
#[test]
fn the_server_of_a_script_that_did_not_exec_it_is_ours() {
    let home = home();
    let script = home.root().join("temporal.sh");
    fs::write(&script, "#!/bin/sh\n\"$STIGMER_HOME/bin/temporal\" \"$@\"\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).unwrap();
    let ready = home.stigmer(["local", "run", "--", "true"]).env("STIGMER_TEMPORAL_BIN", &script).run();
    ready.success();
    home.assert_quiet();
}

fn beside(home: &Home, suffix: &str) -> PathBuf {
    home.path().join(format!("data/temporal.db{suffix}"))
}

#[test]
fn a_backup_put_where_a_first_start_failed_is_never_moved_away() {
    let home = home();
    let fail = || {
        home.behave("exit-before-serving 1\nsay Error: unknown flag: --typo");
        home.stigmer(["local", "start"]).run().fails_with(&["cannot start Temporal"]);
    };
    fail();
    assert!(!beside(&home, ".unproven").exists(), "nothing was made, so there is nothing to mark");
    home.behave("");
    home.stigmer(["local", "run", "--", "true"]).run().success();
    fs::rename(home.database(), home.root().join("backup")).unwrap();
    fail();
    fs::rename(home.root().join("backup"), home.database()).unwrap();
    fail();
    fail();
    assert!(!beside(&home, ".broken").exists());
    home.behave("");
    home.stigmer(["local", "run", "--", "true"]).run().success();
}

#[test]
fn a_backup_put_over_a_half_made_database_is_never_moved_away_because_of_a_typo() {
    let home = home();
    home.leave_half_a_database();
    // In place, as `cp` does it: the same file with another content.
    fs::write(home.database(), "a database of the stand-in\n").unwrap();
    home.behave("exit-before-serving 1\nsay Error: unknown flag: --typo");
    for _ in 0..2 {
        home.stigmer(["local", "start"]).run().fails_with(&["cannot start Temporal"]).stdout_lacks("moved it");
    }
    assert_eq!(fs::read(home.database()).unwrap(), b"a database of the stand-in\n");
}

#[test]
fn what_was_moved_away_is_never_overwritten() {
    let home = home();
    for number in 0..3 {
        home.leave_half_a_database();
        let outcome = home.stigmer(["local", "run", "--", "true"]).run();
        let suffix = if number == 0 { ".broken".into() } else { format!(".broken.{number}") };
        outcome.success().stderr_has(&format!("temporal.db{suffix} and making a new one"));
        assert_eq!(fs::read(beside(&home, &suffix)).unwrap(), b"half a schema\n");
        fs::write(beside(&home, &suffix), format!("kept {number}")).unwrap();
        fs::remove_file(home.database()).unwrap();
    }
    assert_eq!(fs::read(beside(&home, ".broken")).unwrap(), b"kept 0");
    assert_eq!(fs::read(beside(&home, ".broken.1")).unwrap(), b"kept 1");
}

#[test]
fn a_home_may_have_any_name() {
    in_parallel(4, ["?a=b", "#c", "feature%2Flogin", "%00", "a\nb", " '\"\\$&;|ü"], |name| {
        let home = Home::named(&std::env::temp_dir(), name).with_stand_in();
        for _ in 0..2 {
            home.stigmer(["local", "run", "--", "true"]).run().success();
        }
        let served = fs::read(home.database()).unwrap();
        assert_eq!(served, b"a database of the stand-in\n", "{name}");
        let begun = home.root().file_name().unwrap().to_str().unwrap().strip_suffix(name).unwrap().to_owned();
        let names: Vec<_> =
            fs::read_dir(std::env::temp_dir()).unwrap().flatten().map(|entry| entry.file_name()).collect();
        let strays: Vec<_> =
            names.iter().filter(|name| name.to_str().is_some_and(|name| name.starts_with(&begun))).collect();
        assert_eq!(strays, [home.root().file_name().unwrap()], "nothing lands outside of the home");
    });
}

#[test]
fn a_home_may_have_a_name_that_is_no_text() {
    let home = home();
    let odd = home.root().join(OsStr::from_bytes(b"\xff\xfe"));
    fs::create_dir(&odd).unwrap();
    let stigmer = |arguments: &[&str]| {
        home.stigmer(arguments).env("STIGMER_HOME", odd.join("h")).env("STIGMER_TEMPORAL_BIN", home.temporal())
    };
    stigmer(&["local", "start", "--detach"]).run().success();
    stigmer(&["local", "status", "--json"]).run().success();
    stigmer(&["local", "stop"]).run().success();
    assert!(odd.join("h/data/temporal.db").exists());
}

#[test]
fn a_database_whose_own_name_is_read_as_a_uri_is_refused_before_anything_is_made() {
    let home = home();
    let database = home.root().join("a?b.db");
    let argument = format!("--temporal-arg=--db-filename={}", database.display());
    let outcome = home.stigmer(["local", "start", &argument]).run();
    outcome.fails_with(&["cannot use the database", "URI"]);
    assert!(outcome.hint().is_some());
    assert_eq!(home.starts(), []);
    assert!(!home.root().join("a").exists() && !home.root().join("a?b.db.lock").exists());
    // In a directory with such a name it is found all the same.
    fs::create_dir(home.root().join("c#d")).unwrap();
    let argument = "--temporal-arg=--db-filename=c#d/own.db";
    for _ in 0..2 {
        home.stigmer(["local", "run", argument, "--", "true"]).run().success();
    }
    assert!(home.root().join("c#d/own.db").exists());
}

/// A shell script in a container's namespace of processes, in this home.
#[cfg(target_os = "linux")]
fn in_container<'h>(home: &'h Home, script: &str) -> Stigmer<'h> {
    let arguments = ["--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script];
    Stigmer::of_program(home, "unshare".as_ref(), arguments).env("stigmer", binary())
}

#[cfg(target_os = "linux")]
#[test]
fn process_1_of_a_container_reaps_what_is_left_to_it() {
    if !is_root() {
        return skip("only root can make namespaces");
    }
    // Each is left by a shell that has ended. The command ends when none is
    // there any more, living or dead.
    let leave = "for i in 1 2 3 4 5; do sh -c 'sleep 0.0$0 &' $i; done";
    let wait = "while grep -q '^Name:.sleep' /proc/[0-9]*/status; do sleep 0; done 2> /dev/null";
    for options in ["", "--ephemeral --port 0"] {
        let home = home();
        let script = format!("exec \"$stigmer\" local run {options} -- sh -c \"{leave}; {wait}\"");
        in_container(&home, &script).run().success();
        home.assert_quiet();
    }
    let home = home();
    home.behave("fork");
    let mut start = in_container(&home, "exec \"$stigmer\" local start").spawn();
    start.wait_for_stdout("Ready.");
    let is_first = |pid: &u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1"))
    };
    let first = home.processes().into_iter().find(is_first).unwrap();
    for count in 2..=4 {
        home.crash("1");
        home.wait_for("the next server", || {
            home.starts().len() == count && home.state_field("phase").as_deref() == Some("ready")
        });
    }
    let children = || fs::read_to_string(format!("/proc/{first}/task/{first}/children")).unwrap();
    home.wait_for("the grandchildren to be reaped", || children().split_whitespace().count() == 1);
    signal(first, libc::SIGTERM);
    start.wait().success();
    home.assert_quiet();
}

#[cfg(target_os = "linux")]
#[test]
fn a_daemon_in_another_container_is_said_to_be_there_and_nobody_is_signalled_in_its_place() {
    if !is_root() {
        return skip("only root can make namespaces");
    }
    let home = home();
    let mut daemon = in_container(&home, "\"$stigmer\" local start; true").spawn();
    daemon.wait_for_stdout("Ready.");
    let other = "another container";
    for command in ["stop", "stop --force", "restart", "start", "start --detach", "run -- true"] {
        let outcome = in_container(&home, &format!("\"$stigmer\" local {command}; exit $?")).run();
        outcome.fails_with(&[other, "daemon.lock"]);
        assert!(!outcome.hint().unwrap().contains("--force"), "{}", outcome.describe());
    }
    in_container(&home, "\"$stigmer\" local status").run().exits_with(1).stdout_has(other);
    in_container(&home, "\"$stigmer\" local status --json").run().exits_with(1).stdout_has("\"running\":true");
    assert!(!daemon.has_ended());
    // Of an enclosing namespace the kernel says which process it is.
    home.stigmer(["local", "stop"]).run().success();
    daemon.wait().success().stdout_has("Temporal stopped.");
    home.assert_quiet();
}

#[cfg(target_os = "linux")]
#[test]
fn a_bystander_with_the_pid_and_the_birth_of_another_containers_process_is_never_signalled() {
    if !is_root() {
        return skip("only root can make namespaces");
    }
    let home = home();
    home.stigmer(["local", "start", "--detach"]).run().success();
    // What the other container left behind, when it was killed: daemon and
    // Temporal have the bystander's number and tick there.
    let forge = "sleep 60 & pid=$!
        state=$STIGMER_HOME/run/daemon.state
        ticks=$(cut -d' ' -f22 /proc/$pid/stat)
        sed -E -e \"s/^(daemon|temporal)_pid=.*/\\1_pid=$pid/\" -e \"s/^(daemon|temporal)_birth=[0-9]*/\\1_birth=$ticks/\" \
            -e \"s|^temporal_executable=.*|temporal_executable=$(readlink /proc/$pid/exe)|\" $state > $state.new
        mv $state.new $state
        \"$stigmer\" local stop --force; \"$stigmer\" local run -- true
        kill -0 $pid && echo unharmed";
    home.stigmer(["local", "stop", "--force"]).run().success();
    let outcome = in_container(&home, forge).run();
    outcome.success().stdout_has("unharmed");
    home.assert_quiet();
}

#[test]
fn a_copy_of_a_home_that_runs_stops_nothing_of_the_original() {
    let (home, copy) = (home(), Home::new());
    home.stigmer(["local", "start", "--detach"]).run().success();
    let done = Command::new("cp").arg("-a").arg(home.path()).arg(copy.user()).status().unwrap();
    assert!(done.success());
    copy.stigmer(["local", "status"]).run().exits_with(3);
    copy.stigmer(["local", "stop"]).run().success().stdout_has("not running");
    copy.stigmer(["local", "run", "--", "true"]).run().success();
    assert_eq!(home.stops(), []);
    home.stigmer(["local", "status"]).run().success();
    stop(&home);
}

#[cfg(target_os = "linux")]
#[test]
fn a_daemon_is_stopped_also_where_there_is_no_proc() {
    if !is_root() {
        return skip("only root can take /proc away");
    }
    let home = home();
    without_proc(&home, &home, "local start --detach").run().success();
    without_proc(&home, &home, "local status").run().success();
    without_proc(&home, &home, "local run -- true").run().success();
    without_proc(&home, &home, "local stop").run().success().stdout_has("Temporal stopped.");
    home.assert_quiet();
}

#[test]
fn a_daemon_whose_run_directory_is_removed_puts_it_back() {
    let home = home();
    home.stigmer(["local", "start", "--detach"]).run().success();
    let state = fs::read(home.path().join("run/daemon.state")).unwrap();
    fs::remove_dir_all(home.path().join("run")).unwrap();
    home.wait_for("the lock and the state", || home.state_field("phase").as_deref() == Some("ready"));
    home.stigmer(["local", "status"]).run().success();
    let put_back = fs::read(home.path().join("run/daemon.state")).unwrap();
    assert_ne!(put_back, state, "it names its new directory");
    home.stigmer(["local", "start"]).run().success().stdout_has("already running");
    stop(&home);
    assert_eq!(home.stops().len(), 1);
}

#[test]
fn a_daemon_whose_lock_is_removed_is_not_taken_for_one_that_was_killed() {
    let home = home();
    home.stigmer(["local", "start", "--detach"]).run().success();
    fs::remove_file(home.path().join("run/daemon.lock")).unwrap();
    home.stigmer(["local", "status"]).run().success();
    home.stigmer(["local", "start"]).run().success().stdout_has("already running");
    home.stigmer(["local", "run", "--", "true"]).run().success();
    home.stigmer(["local", "restart"]).run().success();
    assert_eq!(home.starts().len(), 2);
    stop(&home);
    assert_eq!(home.stops().len(), 2);
}

#[test]
fn a_daemon_whose_home_is_made_anew_ends_and_writes_nothing_there() {
    let (home, ports) = (home(), Home::new());
    let mut old = home.stigmer(["local", "start"]).spawn();
    old.wait_for_stdout("Ready.");
    let aside = home.root().join("temporal");
    fs::copy(home.temporal(), &aside).unwrap();
    fs::remove_dir_all(home.path()).unwrap();
    let new = on_ports_of(&home, &ports, &["local", "start", "--detach"]).env("STIGMER_TEMPORAL_BIN", &aside);
    new.run().success();
    let daemon = home.state_field("daemon_pid");
    old.wait().fails_with(&["cannot go on", "removed or replaced"]).stdout_has("stopping Temporal");
    assert_eq!(home.stops().len(), 1, "{}", home.describe());
    assert_eq!(home.state_field("daemon_pid"), daemon);
    home.stigmer(["local", "status"]).run().success();
    stop(&home);
}

#[test]
fn two_daemons_never_share_an_instance_whose_run_directory_was_removed() {
    let (home, ports) = (home(), Home::new());
    let mut old = home.stigmer(["local", "start"]).spawn();
    old.wait_for_stdout("Ready.");
    fs::remove_dir_all(home.path().join("run")).unwrap();
    // It takes the lock, waits for the database, and gets it when the old one has ended.
    on_ports_of(&home, &ports, &["local", "start", "--detach"]).run().success().stdout_has("Another Temporal uses");
    old.wait().fails_with(&["cannot go on", "another stigmer has taken over"]);
    assert_eq!((home.starts().len(), home.stops().len()), (2, 1));
    stop(&home);
}

#[test]
fn a_damaged_state_is_written_anew_and_its_daemon_is_stopped_all_the_same() {
    let home = home();
    home.stigmer(["local", "start", "--detach"]).run().success();
    let state = home.path().join("run/daemon.state");
    let whole = fs::read(&state).unwrap();
    fs::write(&state, "phase=odd\n\0\0").unwrap();
    home.wait_for("the state", || fs::read(&state).is_ok_and(|text| text == whole));
    fs::write(&state, "").unwrap();
    stop(&home);
}

#[test]
fn what_is_taken_away_under_a_running_server_is_said_at_once() {
    let home = home();
    let mut daemon = home.stigmer(["local", "start"]).spawn();
    daemon.wait_for_stdout("Ready.");
    let aside = home.root().join("aside");
    fs::rename(home.temporal(), &aside).unwrap();
    fs::remove_file(home.database()).unwrap();
    fs::remove_dir_all(home.path().join("logs")).unwrap();
    daemon.wait_for_stdout("bin/temporal was removed: Temporal runs on, but cannot be restarted");
    assert!(daemon.stdout().contains("temporal.db was removed"), "{}", daemon.stdout());
    assert!(daemon.stdout().contains("temporal.log was removed; it begins anew"), "{}", daemon.stdout());
    assert!(home.log().exists());
    fs::copy(&aside, home.temporal()).unwrap();
    fs::write(home.database(), "another").unwrap();
    daemon.wait_for_stdout("temporal.db was replaced");
    daemon.wait_for_stdout("bin/temporal was replaced");
    fs::remove_file(home.database()).unwrap();
    home.stigmer(["local", "restart"]).run().success();
    daemon.wait_for_stdout("temporal.db is gone; Temporal begins with a new one");
    assert!(fs::read_to_string(home.log()).unwrap().contains("Temporal Server:"));
    daemon.signal(libc::SIGTERM);
    daemon.wait().success();
}

const STRANGER: u32 = 65_533;

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
}

#[test]
fn nothing_is_executed_that_others_could_have_put_there() {
    if !is_root() {
        return skip("only root can give files away");
    }
    type Plant = fn(&Home);
    let plants: [(&str, Plant); 6] = [
        ("a group (gid 65533) may write", |home| {
            chown(home.bin(), None, Some(STRANGER)).unwrap();
            set_mode(&home.bin(), 0o770);
        }),
        ("a group (gid 65533) may write", |home| {
            chown(home.temporal(), None, Some(STRANGER)).unwrap();
            set_mode(&home.temporal(), 0o775);
        }),
        ("everybody may write", |home| set_mode(&home.temporal(), 0o777)),
        ("belongs to another user", |home| chown(home.temporal(), Some(STRANGER), None).unwrap()),
        // A link of another user, to our own home.
        ("belongs to another user", |home| {
            let elsewhere = home.root().join("elsewhere");
            fs::rename(home.path(), &elsewhere).unwrap();
            symlink(&elsewhere, home.path()).unwrap();
            lchown(home.path(), Some(STRANGER), None).unwrap();
        }),
        // A volume of the user outside, which anybody could swap.
        ("everybody may write", |home| {
            chown(home.path(), Some(STRANGER), None).unwrap();
            set_mode(&home.user(), 0o777);
        }),
    ];
    for (why, plant) in plants {
        let home = home();
        plant(&home);
        let outcome = home.stigmer(["local", "start"]).run();
        outcome.fails_with(&["cannot use", why]);
        assert!(outcome.hint().is_some());
        assert_eq!(home.starts(), []);
    }
}

#[test]
fn a_home_that_is_swapped_while_it_runs_is_never_executed_from() {
    if !is_root() {
        return skip("only root can give files away");
    }
    let home = home();
    let mut daemon = home.stigmer(["local", "start"]).spawn();
    daemon.wait_for_stdout("Ready.");
    let theirs = home.root().join("theirs");
    let done = Command::new("cp").arg("-a").arg(home.path()).arg(&theirs).status().unwrap();
    assert!(done.success());
    for path in [&theirs, &theirs.join("bin"), &theirs.join("bin/temporal")] {
        chown(path, Some(STRANGER), None).unwrap();
    }
    fs::rename(home.path(), home.root().join("ours")).unwrap();
    fs::rename(&theirs, home.path()).unwrap();
    home.crash("1");
    daemon.wait().fails_with(&["was removed or replaced"]);
    assert_eq!(home.starts().len(), 1);
}

#[test]
fn a_group_of_ones_own_may_write() {
    if !is_root() {
        return skip("only root can give files away");
    }
    // As with umask 002 where every user has a group of his own.
    let home = home();
    for path in [home.path(), home.bin(), home.temporal()] {
        chown(&path, Some(STRANGER), Some(STRANGER)).unwrap();
        set_mode(&path, 0o775);
    }
    home.stigmer(["local", "run", "--", "true"]).run().success();
}

#[cfg(target_os = "linux")]
#[test]
fn what_is_executed_is_called_by_its_name_also_when_it_is_a_script() {
    let home = home();
    home.stigmer(["local", "start", "--detach"]).run().success();
    let pid = home.starts()[0].0;
    assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "temporal\n");
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(line.starts_with(home.temporal().as_os_str().as_bytes()));
    stop(&home);
    let real = home.bin().join("real");
    fs::rename(home.temporal(), &real).unwrap();
    fs::write(home.temporal(), "#!/bin/sh\nexec \"$(dirname \"$0\")/real\" \"$@\"\n").unwrap();
    set_mode(&home.temporal(), 0o755);
    home.stigmer(["local", "run", "--", "true"]).run().success();
}

#[cfg(target_os = "linux")]
#[test]
fn a_password_in_a_mirrors_url_is_not_in_the_process_list_of_the_daemon() {
    let home = home();
    let mirror = "--mirror=http://ada:secret@127.0.0.1:1/m";
    home.stigmer(["local", "start", "--detach", mirror]).run().success();
    let daemon = home.state_field("daemon_pid").unwrap();
    let line = fs::read(format!("/proc/{daemon}/cmdline")).unwrap();
    let line = String::from_utf8_lossy(&line);
    assert!(line.contains("http://xxxxxxxxxx@127.0.0.1:1/m"), "{line}");
    stop(&home);
}

#[test]
fn a_run_that_is_leaving_heeds_signals_at_once() {
    for number in [libc::SIGINT, libc::SIGTERM] {
        let home = home();
        home.behave("ignore-term");
        let mut run = home.stigmer(["local", "run", "--", "sh", "-c", "exit 5"]).spawn();
        home.wait_for("it to leave", || home.state_field("phase").as_deref() == Some("stopping"));
        // At once, but for what may be the first one again.
        home.wait_for("it to end", || {
            run.signal(number);
            run.has_ended()
        });
        run.wait().exits_with(5);
        let log = fs::read_to_string(home.path().join("logs/daemon.log")).unwrap();
        assert!(log.contains("interrupted twice"), "{}", home.describe());
        home.assert_quiet();
    }
}

#[test]
fn a_download_that_is_told_to_stop_ends_in_order() {
    let download = |home: &Home, start: &dyn Fn(&Home, &ReleaseServer) -> i32| {
        let server = ReleaseServer::with_release(VERSION, small_release());
        let gate = Gate::new();
        server.script(&asset_path(VERSION), [Reply::Cut(1000, Cut::Hold(gate.clone()))]);
        assert_eq!(start(home, &server), 0, "{}", home.describe());
        assert_eq!(home.bin_names(), [".temporal.download"]);
        gate.open();
    };
    for number in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        download(&Home::new(), &|home, server| {
            let start = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base()).spawn();
            home.wait_for("the download", || home.bin_names() == [".temporal.download", ".temporal.partial"]);
            start.signal(number);
            start.wait().code()
        });
    }
    #[cfg(target_os = "linux")]
    if is_root() {
        // As process 1, whom no signal ends by itself.
        download(&Home::new(), &|home, server| {
            let script = "echo pid $(cut -d' ' -f1 /proc/self/stat); exec \"$stigmer\" local start \"$@\"";
            let arguments = ["--pid", "--fork", "--mount-proc", "sh", "-c", script, "sh"];
            let start = Stigmer::of_program(home, "unshare".as_ref(), arguments).env("stigmer", binary());
            let start = start.with_mirror(VERSION, server.base()).spawn();
            home.wait_for("the download", || home.bin_names() == [".temporal.download", ".temporal.partial"]);
            let first = home.processes().into_iter().find(|pid| *pid != start.id()).unwrap();
            signal(first, libc::SIGTERM);
            start.wait().code()
        });
    }
}

fn with_limit<'h>(home: &'h Home, limit: &str, command: &str) -> Stigmer<'h> {
    let script = format!("ulimit {limit}; exec \"$stigmer\" {command} \"$@\"");
    Stigmer::of_program(home, "sh".as_ref(), ["-c", &script, "sh"]).env("stigmer", binary())
}

#[test]
fn a_limit_of_the_system_is_said_to_be_the_cause() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    // Blocks of 512 bytes, or of 1024.
    let install = with_limit(&home, "-f 20", "local start").with_mirror(VERSION, server.base()).run();
    assert!(install.fails_with(&["cannot", "file too large"]).hint().unwrap().contains("ulimit -f"));
    assert_eq!(home.bin_names(), [""; 0]);
    home.assert_quiet();

    let home = Home::new().with_stand_in();
    // Streams, log, locks and signals take the first ones.
    for limit in 5..16 {
        let start = with_limit(&home, &format!("-n {limit}"), "local run -- true").run();
        if start.code() != 0 {
            assert!(!start.stderr.contains("choose another port"), "{}", start.describe());
        }
    }
    home.wait_until_quiet(LIMIT);
}

#[test]
fn the_first_line_of_a_panic_is_quoted() {
    let home = home();
    let stacks = "\\tat x.go\\n".repeat(50);
    let script =
        format!("#!/bin/sh\nprintf 'begun\\npanic: it broke\\n\\ngoroutine 1 [running]:\\n{stacks}'; exit 2\n");
    let panics = home.root().join("panics");
    fs::write(&panics, script).unwrap();
    set_mode(&panics, 0o755);
    let outcome = home.stigmer(["local", "start"]).env("STIGMER_TEMPORAL_BIN", &panics).run();
    outcome.fails_with(&["exit status 2", "  | panic: it broke", "  | goroutine 1"]);
}

#[test]
fn a_path_never_prints_lines_of_ours() {
    let home = home();
    let path = "/nonexistent\nhint: rm -rf ~\n[✓] Stigmer Daemon Ready.";
    let detached: &[&str] = &["local", "start", "--detach", "--temporal-bin", path];
    for arguments in [&["local", "start", "--temporal-bin", path], detached] {
        let outcome = home.stigmer(arguments).run();
        outcome.fails_with(&["cannot use /nonexistent\\nhint: rm"]);
        assert_eq!(outcome.hint().map(|hint| hint.contains("rm -rf")), Some(false), "{}", outcome.describe());
        assert_eq!(outcome.stderr.lines().count(), 2, "{}", outcome.describe());
    }
}

#[test]
fn a_command_keeps_its_temporal_when_the_run_directory_is_removed() {
    let home = home();
    let wait = |name: &str| format!("touch begun-{name}; until [ -e end-{name} ]; do sleep 0.01; done");
    let begin = |name: &str| {
        let run = home.stigmer(["local", "run", "--", "sh", "-c", &wait(name)]).spawn();
        home.wait_for("the command", || home.root().join(format!("begun-{name}")).exists());
        run
    };
    let end = |name: &str| fs::write(home.root().join(format!("end-{name}")), "").unwrap();
    let first = begin("first");
    fs::remove_dir_all(home.path().join("run")).unwrap();
    home.wait_for("the state", || home.state_field("phase").as_deref() == Some("ready"));
    let second = begin("second");
    // The one whose share has no name any more takes nothing from the other.
    end("first");
    first.wait().success();
    home.stigmer(["local", "status"]).run().success();
    assert_eq!((home.starts().len(), home.stops().len()), (1, 0));
    end("second");
    second.wait().success();
    home.wait_until_quiet(LIMIT);
}

#[test]
fn a_database_whose_lock_is_removed_has_one_server_all_the_same() {
    let (one, other) = (home(), home());
    let lock = beside(&one, ".lock");
    one.stigmer(["local", "start", "--detach"]).run().success();
    fs::remove_file(&lock).unwrap();
    one.wait_for("the lock", || lock.exists());
    let argument = format!("--temporal-arg=--db-filename={}", one.database().display());
    let mut second = other.stigmer(["local", "start", &argument]).spawn();
    second.wait_for_stdout("Another Temporal uses");
    second.signal(libc::SIGTERM);
    second.wait();
    assert_eq!(other.starts(), []);
    stop(&one);
}
