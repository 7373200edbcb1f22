//! What a hostile neighbour, or bad luck, leaves in the way: nothing of it is
//! followed, waited for, executed or damaged.

use std::fs::{self, File, TryLockError};
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use crate::support::archive::{VERSION, small_release};
use crate::support::process::is_root;
use crate::support::*;

const STRANGER: u32 = 65_533;
/// Every file that stigmer makes for itself.
const OWN_FILES: [&str; 7] = [
    "run/daemon.lock",
    "run/daemon.state",
    "run/users.lock",
    "bin/temporal.receipt",
    "data/temporal.db.lock",
    "logs/temporal.log",
    "logs/daemon.log",
];

fn home() -> Home {
    Home::new().with_stand_in()
}

fn make_fifo(path: &Path) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

#[test]
fn a_fifo_in_the_place_of_a_file_is_never_waited_for() {
    in_parallel(4, OWN_FILES, |name| {
        let home = home();
        let path = home.path().join(name);
        make_fifo(&path);
        for command in [
            &["local", "status"][..],
            &["local", "logs"],
            &["local", "start", "--detach", "--offline"],
            &["local", "restart"],
            &["local", "run", "--offline", "--", "true"],
            &["local", "stop"],
        ] {
            let outcome = home.stigmer(command).run();
            if outcome.code() == 1 {
                assert!(outcome.hint().is_some(), "{name}\n{}", outcome.describe());
            } else {
                assert!([0, 3].contains(&outcome.code()), "{name}\n{}", outcome.describe());
            }
        }
        home.assert_quiet();
    });
}

#[test]
fn a_fifo_in_a_mirror_is_never_waited_for() {
    let home = Home::new();
    let mirror = home.root().join("mirror");
    make_fifo(&mirror.join(format!("v{VERSION}/checksums.txt")));
    let outcome = home.stigmer(["local", "start"]).with_mirror(VERSION, &mirror).run();
    outcome.fails_with(&["cannot read", "it is no file"]);
}

#[test]
fn a_detached_daemon_lets_go_of_all_that_its_caller_left_open() {
    let home = home();
    let lock = home.root().join("lock");
    let script = "exec 9>\"$lock\"; flock 9; exec 8>&1; exec \"$stigmer\" local start --detach";
    let start = Stigmer::of_program(&home, "sh".as_ref(), ["-c", script])
        .env("lock", &lock)
        .env("stigmer", process::binary())
        .spawn();
    // Waits for the end of stdout, too.
    start.wait().success();
    match File::open(&lock).unwrap().try_lock() {
        Err(TryLockError::WouldBlock) => panic!("the daemon holds its caller's lock\n{}", home.describe()),
        other => other.unwrap(),
    }
    home.stigmer(["local", "stop"]).run().success();
}

#[test]
fn a_taken_port_is_told_before_anything_is_downloaded() {
    let server = ReleaseServer::with_release(VERSION, small_release());
    let home = Home::new();
    let _other = TcpListener::bind(("127.0.0.1", home.port())).unwrap();
    let outcome = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base()).run();
    outcome.fails_with(&["cannot use port", "another program listens"]);
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_lock_whose_holder_tells_nothing_is_waited_for_and_explained() {
    let home = home();
    fs::create_dir_all(home.path().join("run")).unwrap();
    let lock = File::create(home.path().join("run/daemon.lock")).unwrap();
    lock.lock().unwrap();
    let mut start = home.stigmer(["local", "start"]).spawn();
    start.wait_for_stdout("[•] Another stigmer is starting; waiting for it.");
    home.stigmer(["local", "status"]).run().exits_with(1).stdout_has("starting");
    drop(lock);
    start.wait_for_stdout("[✓] Stigmer Daemon Ready.");
    start.signal(libc::SIGINT);
    start.wait().success();
}

#[test]
fn nothing_is_used_from_directories_that_others_may_write_to() {
    if !is_root() {
        eprintln!("NOT TESTED: only root can give files away");
        return;
    }
    type Plant = fn(&Home);
    let plants: [(&str, Plant); 4] = [
        ("everybody may write", |home| set_mode(&home.path(), 0o777)),
        ("everybody may write", |home| set_mode(&home.bin(), 0o1777)),
        ("belongs to another user", |home| chown(home.bin(), Some(STRANGER), None).unwrap()),
        // As with STIGMER_HOME=/tmp.
        ("belongs to another user", |home| {
            set_mode(&home.path(), 0o1777);
            chown(home.bin(), Some(STRANGER), None).unwrap();
        }),
    ];
    for (why, plant) in plants {
        let home = home();
        plant(&home);
        let outcome = home.stigmer(["local", "start"]).run();
        outcome.fails_with(&[why]);
        assert!(outcome.hint().is_some());
        assert_eq!(home.starts(), []);
    }
}

#[test]
fn root_may_use_a_volume_that_belongs_to_the_user_outside() {
    if !is_root() {
        eprintln!("NOT TESTED: only root can give files away");
        return;
    }
    let home = home();
    for path in [home.path(), home.bin(), home.temporal()] {
        chown(path, Some(STRANGER), None).unwrap();
    }
    home.stigmer(["local", "run", "--", "true"]).run().success();
    assert_eq!(home.starts().len(), 1);
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
