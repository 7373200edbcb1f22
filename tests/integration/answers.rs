//! Every answer is true: what cannot be known is not denied, what was asked for
//! by name is so or an error, and what cannot be done is said at once.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use crate::support::archive::{VERSION, asset_path, small_release};
use crate::support::home::NOBODY;
use crate::support::process::{binary, is_root, signal, suspend};
use crate::support::*;

const STRANGER: u32 = 65_533;

fn home() -> Home {
    Home::new().with_stand_in()
}

fn daemon_of(home: &Home) -> u32 {
    home.state_field("daemon_pid").unwrap().parse().unwrap()
}

/// By a user who owns nothing here.
fn by_stranger<'h>(home: &'h Home, command: &str) -> Stigmer<'h> {
    let program = home.root().join("stigmer");
    if !program.exists() {
        // The program may lie where that user has no access.
        assert!(std::process::Command::new("cp").arg(binary()).arg(&program).status().unwrap().success());
    }
    let arguments = ["local"].into_iter().chain(command.split(' '));
    Stigmer::of_program(home, program.as_os_str(), arguments).by_user(STRANGER)
}

#[test]
fn a_home_that_cannot_be_read_is_never_taken_for_an_idle_one() {
    if !is_root() {
        return skip("only root can act as another user");
    }
    let home = home();
    home.stigmer(["local", "start", "--detach"]).run().success();
    for command in ["status", "status --json", "stop", "stop --force", "restart", "env", "logs", "temporal env"] {
        let outcome = by_stranger(&home, command).run();
        outcome.fails_with(&["permission denied", "belongs to root: do this as that user"]).stdout_lacks("running");
        assert!(outcome.hint().unwrap().contains("STIGMER_HOME"), "{}", outcome.describe());
    }
    by_stranger(&home, "start").run().fails_with(&["permission denied", "belongs to root"]);
    home.stigmer(["local", "status"]).run().success();
    home.stigmer(["local", "stop"]).run().success();
}

#[test]
fn what_sudo_left_in_a_home_is_to_be_given_back() {
    if !is_root() {
        return skip("only root can act as another user");
    }
    let home = home();
    home.stigmer(["local", "run", "--", "true"]).run().success();
    for directory in [home.root().to_owned(), home.user(), home.path()] {
        chown(directory, Some(STRANGER), Some(STRANGER)).unwrap();
    }
    let give_back = format!("sudo chown -R {STRANGER} {}", home.path().display());
    for command in ["start", "status", "stop", "logs"] {
        let outcome = by_stranger(&home, command).run();
        assert!(
            outcome.fails_with(&["permission denied"]).hint().unwrap().contains(&give_back),
            "{}",
            outcome.describe()
        );
    }
}

#[test]
fn a_daemon_of_another_user_is_named_at_once() {
    if !is_root() {
        return skip("only root can act as another user");
    }
    let home = home();
    home.stigmer(["local", "start", "--detach"]).run().success();
    let daemon = daemon_of(&home);
    let run = home.path().join("run");
    let give = |path: &std::path::Path| chown(path, Some(STRANGER), Some(STRANGER)).unwrap();
    // As after a `sudo chown` of the home; what the daemon wrote, and then all.
    [home.path(), run.clone(), run.join("daemon.lock"), run.join("users.lock")].iter().for_each(|path| give(path));
    by_stranger(&home, "status").run().fails_with(&["daemon.state", "permission denied", "root"]);
    give(&run.join("daemon.state"));
    by_stranger(&home, "status").run().success().stdout_has("running and ready");
    for command in ["stop", "stop --force", "restart"] {
        let outcome = by_stranger(&home, command).run();
        outcome.fails_with(&["belongs to another user (uid 0)", &format!("sudo kill {daemon}")]);
    }
    home.stigmer(["local", "stop"]).run().success();
}

#[test]
fn a_suspended_daemon_is_said_to_be_suspended() {
    let home = home();
    home.stigmer(["local", "start", "--detach"]).run().success();
    let daemon = daemon_of(&home);
    suspend(daemon);
    let go_on = format!("kill -CONT {daemon}");
    home.stigmer(["local", "status"]).run().exits_with(1).stdout_has("suspended").stdout_has(&go_on);
    home.stigmer(["local", "status", "--json"]).run().exits_with(1).stdout_has("\"running\":true,\"ready\":false");
    for command in ["stop", "restart"] {
        home.stigmer(["local", command]).run().fails_with(&["is suspended", &go_on]);
    }
    signal(daemon, libc::SIGCONT);
    home.stigmer(["local", "status"]).run().success();
    suspend(daemon);
    home.stigmer(["local", "stop", "--force"]).run().success().stdout_has("killed");
    home.wait_until_quiet(LIMIT);
}

#[test]
fn a_start_from_a_closed_directory_begins_in_the_root() {
    if !is_root() {
        return skip("only root can act as another user");
    }
    let home = home();
    let closed = home.root().join("closed");
    fs::create_dir(&closed).unwrap();
    // It becomes the other user's, but for this directory.
    drop(home.stigmer_without_privileges(["--version"]));
    chown(&closed, Some(0), Some(0)).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    let run = |arguments: &str| {
        let become_nobody = format!("setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups");
        let script = format!("exec {become_nobody} \"$stigmer\" local run {arguments} -- true");
        let program = home.root().join("stigmer");
        Stigmer::of_program(&home, "sh".as_ref(), ["-c", &script]).env("stigmer", program).current_dir(&closed).run()
    };
    run("").success();
    run("--temporal-arg --ui-asset-path=ui").success();
    let (_, arguments) = home.starts().pop().unwrap();
    assert!(arguments.contains(&format!("--ui-asset-path={}/ui", closed.display())), "{arguments}");
    run("--temporal-arg --db-filename=x.db").fails_with(&["closed/x.db", "permission denied"]);
}

#[test]
fn what_was_asked_for_by_name_and_is_not_so_is_an_error() {
    let home = home();
    home.stigmer(["local", "start", "--detach", "--temporal-arg", "--log-level=warn"]).run().success();
    let (pid, port) = (home.starts()[0].0, home.port());
    let (at, ui) = (format!("is at 127.0.0.1:{port}"), format!("UI at http://localhost:{}", home.ui_port()));
    let is_own = format!("is {}", home.temporal().display());
    for (option, value, is) in [
        ("--port", "7299", &*at),
        ("--ui-port", "8299", &*ui),
        ("--ip", "0.0.0.0", "binds to 127.0.0.1"),
        ("--temporal-bin", "/bin/true", &*is_own),
        ("--temporal-arg", "--headless", "was started with --log-level=warn"),
        ("--temporal-host", "t.example:7233", &*at),
    ] {
        let outcome = home.stigmer(["local", "start", option, value]).run();
        outcome.fails_with(&[option, value, is, &format!("PID: {pid}"), "'stigmer local stop'", "leave out"]);
        assert_eq!(outcome.stdout, "");
    }
    let start = || home.stigmer(["local", "start", "--detach"]);
    let run = |option: &str| home.stigmer(["local", "run", option, "--", "echo", "begun"]);
    start().env("STIGMER_TEMPORAL_PORT", "7299").run().fails_with(&[&at, "unset STIGMER_TEMPORAL_PORT"]);
    run("--port=7299").run().fails_with(&["--port 7299", &at]).stdout_lacks("begun");
    // What was not asked for, or is so, is no difference.
    start().run().success();
    start().args(["--temporal-arg", "--log-level=warn", "--port", "0"]).run().success();
    run("--ip=127.0.0.1").run().success().stderr_lacks("[!]");
    home.stigmer(["local", "stop"]).run().success();
}

#[test]
fn one_interruption_that_arrives_twice_is_one() {
    let home = home();
    home.behave("slow-stop 300");
    let mut start = home.stigmer(["local", "start"]).spawn();
    start.wait_for_stdout("Ready.");
    for _ in 0..5 {
        start.signal(libc::SIGINT);
        signal(start.id(), libc::SIGTERM);
    }
    start.wait().success().stdout_lacks("Killing");
    assert_eq!(home.stops().len(), 1);
    home.behave("ignore-term");
    let mut start = home.stigmer(["local", "start"]).spawn();
    start.wait_for_stdout("Ready.");
    home.wait_for("it to be killed", || {
        start.signal(libc::SIGINT);
        start.stdout().contains("Killing Temporal")
    });
    start.wait().success().stdout_has("interrupted twice.");
}

#[test]
fn nothing_that_did_not_serve_is_said_to_have_started_or_stopped() {
    let home = Home::new();
    let start = home.stigmer(["local", "start", "--temporal-bin", "/bin/true"]).run();
    start.fails_with(&["cannot start Temporal"]).stdout_lacks("[✓]");

    let server = ReleaseServer::with_release(VERSION, small_release());
    let gate = Gate::new();
    server.script(&asset_path(VERSION), [Reply::Cut(1000, Cut::Hold(gate.clone()))]);
    let start = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base()).spawn();
    gate.wait_until_reached();
    let mut restart = home.stigmer(["local", "restart"]).spawn();
    restart.wait_for_stderr("is still installing; waiting for it.");
    let stop = home.stigmer(["local", "stop"]).run();
    stop.success().stdout_has("was not running").stdout_lacks("Temporal stopped");
    start.wait().success();
    restart.wait().fails_with(&["not running"]);
    gate.open();

    let frontend = Frontend::new(None);
    let address = frontend.address();
    home.stigmer(["local", "start", "--detach", "--temporal-host", &address]).run().success();
    home.stigmer(["local", "stop"]).run().success().stdout_has(&address).stdout_lacks("Temporal stopped");
}
