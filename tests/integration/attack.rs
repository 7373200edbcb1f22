//! What a hostile neighbour, or bad luck, leaves in the way: nothing of it is
//! followed, waited for, executed or damaged.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::net::TcpListener;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::archive::{VERSION, small_release};
use crate::support::process::is_root;
use crate::support::*;

const STRANGER: u32 = 65_533;
/// What a pipe takes before it is full, on Linux and macOS.
const PIPE_SIZE: usize = 64 << 10;
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
    outcome.fails_with(&["cannot read", "checksums.txt: not a file", "hint: check --mirror"]);
}

#[test]
fn a_detached_daemon_lets_go_of_all_that_its_caller_left_open() {
    if !has("flock", &["--version"]) {
        return skip("flock is missing");
    }
    let home = home();
    let lock = home.root().join("lock");
    let script = "exec 9>\"$lock\" && flock 9 && exec 8>&1 && exec \"$stigmer\" local start --detach";
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
fn a_taken_port_is_reported_before_anything_is_downloaded() {
    let server = ReleaseServer::with_release(VERSION, small_release());
    let home = Home::new();
    let _other = TcpListener::bind(("127.0.0.1", home.port())).unwrap();
    let outcome = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base()).run();
    outcome.fails_with(&["cannot use port", "another program listens"]);
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_silent_holder_of_the_lock_is_waited_for_and_mentioned() {
    let home = home();
    fs::create_dir_all(home.path().join("run")).unwrap();
    let lock = File::create(home.path().join("run/daemon.lock")).unwrap();
    lock.lock().unwrap();
    let mut start = home.stigmer(["local", "start"]).spawn();
    start.wait_for_stdout("[•] Another stigmer is starting; waiting for it.");
    home.stigmer(["local", "status"]).run().exits_with(1).stdout_has("starting");
    let mut restart = home.stigmer(["local", "restart"]).spawn();
    restart.wait_for_stderr("[•] Stigmer is still starting; waiting for it.");
    restart.signal(libc::SIGTERM);
    restart.wait().exits_with(128 + libc::SIGTERM);
    drop(lock);
    start.wait_for_stdout("[✓] Stigmer Daemon Ready.");
    start.signal(libc::SIGINT);
    start.wait().success();
}

#[test]
fn nothing_is_used_from_directories_that_others_may_write_to() {
    if !is_root() {
        return skip("only root can give files away");
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
        return skip("only root can give files away");
    }
    let home = home();
    for path in [home.path(), home.bin(), home.temporal()] {
        chown(path, Some(STRANGER), None).unwrap();
    }
    home.stigmer(["local", "run", "--", "true"]).run().success();
    assert_eq!(home.starts().len(), 1);
}

#[test]
fn a_stream_that_nobody_reads_holds_nothing_up() {
    let home = home();
    let (reader, mut full) = std::io::pipe().unwrap();
    full.write_all(&vec![b'x'; PIPE_SIZE]).unwrap();
    let mut command = home.stigmer(["local", "start"]).into_command();
    let mut daemon = command.stdin(Stdio::null()).stdout(full.try_clone().unwrap()).stderr(full).spawn().unwrap();
    home.wait_for("the server", || home.state_field("phase").as_deref() == Some("ready"));
    home.crash("1");
    home.wait_for("the second server", || home.starts().len() == 2);
    home.wait_for("it to be ready", || home.state_field("phase").as_deref() == Some("ready"));
    home.stigmer(["local", "stop"]).run().success();
    assert!(daemon.wait().unwrap().success());
    drop(reader);
}

#[test]
fn signals_that_the_caller_ignored_or_blocked_do_their_work() {
    let home = home();
    // With SIGCHLD ignored nobody can wait for a child.
    let ignoring = |command: &str| {
        let script = format!("trap '' CHLD; exec \"$stigmer\" {command}");
        Stigmer::of_program(&home, "sh".as_ref(), ["-c".to_owned(), script]).env("stigmer", process::binary())
    };
    ignoring("local run -- sh -c 'exit 7'").run().exits_with(7);
    ignoring("local start --detach --temporal-bin /nonexistent").run().fails_with(&["cannot use /nonexistent"]);

    let mut command = home.stigmer(["local", "start"]).into_command();
    process::with_blocked_signals(&mut command);
    let mut daemon = command.stdout(Stdio::null()).spawn().unwrap();
    home.wait_for("the server", || home.state_field("phase").as_deref() == Some("ready"));
    let starts = home.starts().len();
    home.crash("1");
    home.wait_for("another server", || home.starts().len() == starts + 1);
    home.stigmer(["local", "stop"]).run().success();
    assert!(daemon.wait().unwrap().success());
}

#[test]
fn two_links_to_a_database_that_is_not_there_yet_are_one_database() {
    let (one, other) = (home(), home());
    let database = one.root().join("shared.db");
    for home in [&one, &other] {
        fs::create_dir_all(home.database().parent().unwrap()).unwrap();
        symlink(&database, home.database()).unwrap();
    }
    one.stigmer(["local", "start", "--detach"]).run().success();
    let mut second = other.stigmer(["local", "start"]).spawn();
    second.wait_for_stdout("Another Temporal uses");
    assert!(second.stdout().contains(&format!("{}", database.display())));
    second.signal(libc::SIGTERM);
    second.wait();
    assert_eq!(other.starts(), []);
    one.stigmer(["local", "stop"]).run().success();
}

#[test]
fn a_link_in_a_shared_directory_is_followed_only_if_its_owner_is_trusted() {
    if !is_root() {
        return skip("only root can give files away");
    }
    // As with STIGMER_HOME=/tmp, and /tmp/bin a stranger's link to our own files.
    let home = home();
    set_mode(&home.path(), 0o1777);
    let elsewhere = home.root().join("bin");
    fs::rename(home.bin(), &elsewhere).unwrap();
    symlink(&elsewhere, home.bin()).unwrap();
    lchown(home.bin(), Some(STRANGER), None).unwrap();
    home.stigmer(["local", "start"]).run().fails_with(&["belongs to another user"]);
    assert_eq!(home.starts(), []);
}

#[test]
fn a_password_in_a_mirrors_url_is_never_shown() {
    for url in [
        "http://user:secret@[::1/x",
        "http://user:secret@",
        "ftp://user:secret@m.example",
        "http://user:secret@127.0.0.1:1",
    ] {
        let home = Home::new();
        let outcome = home.stigmer(["local", "start", "--mirror", url]).env("STIGMER_READY_TIMEOUT", "1").run();
        assert!([1, 2].contains(&outcome.code()), "{}", outcome.describe());
        let shown = format!("{}{}", outcome.stdout, outcome.stderr);
        assert!(!shown.contains("secret"), "{shown}");
        assert!(outcome.hint().is_some(), "{}", outcome.describe());
    }
}

#[test]
fn nonsense_in_any_variable_is_reported_with_its_name() {
    let nonsense = OsString::from_vec([&b"\xff\xfe\n\x1b[31m"[..], &[b'x'; 100_000]].concat());
    for (name, code) in [
        ("STIGMER_TEMPORAL_PORT", 2),
        ("STIGMER_TEMPORAL_UI_PORT", 2),
        ("STIGMER_TEMPORAL_IP", 2),
        ("STIGMER_TEMPORAL_VERSION", 2),
        ("STIGMER_OFFLINE", 2),
        ("STIGMER_READY_TIMEOUT", 2),
        ("TEMPORAL_SERVICE_ADDRESS", 2),
        ("STIGMER_TEMPORAL_BIN", 1),
    ] {
        let home = home();
        let outcome = home.stigmer(["local", "start"]).env(name, &nonsense).run();
        outcome.exits_with(code);
        outcome.stderr_has(name);
        assert!(!outcome.stderr.contains('\x1b'), "{name} steers the terminal");
    }
}

#[test]
fn as_many_arguments_as_the_system_takes_are_a_usage_error() {
    for arguments in [vec!["x".repeat(100_000)], vec!["--port".into(); 20_000], vec!["--temporal-arg=x".into(); 20_000]]
    {
        let home = home();
        let outcome = home.stigmer(["local", "run"]).args(arguments).run();
        assert!([1, 2, 126, 127].contains(&outcome.code()), "{}", outcome.code());
        assert_eq!(outcome.stderr.matches("error: ").count(), 1);
        home.assert_quiet();
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}
