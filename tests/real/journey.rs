//! The main job, and the ways in which people use what it gives them.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use crate::support::*;
use crate::tools::*;

#[test]
fn workflows_and_their_histories_outlive_every_graceful_stop() {
    let Some(tools) = tools() else { return };
    let home = Home::new();
    let server = ReleaseServer::with_release(PINNED, &fs::read(archive_of(&tools.mirror, PINNED)).unwrap());

    let mut daemon = home.stigmer(["local", "start", "--mirror"]).args([server.base()]).spawn();
    daemon.wait_for_stdout("Stigmer Daemon Ready.\n");
    let pid = temporal_pid(&home).unwrap();
    let (platform, port, ui) = (archive::platform().replace('_', "/"), home.port(), home.ui_port());
    let expected = format!(
        "[•] Stigmer Local Daemon starting...\n\
         [!] Temporal not found locally.\n\
         [⬇] Downloading Temporal CLI v{PINNED} ({platform})... 100%\n\
         [✓] Temporal binary installed to ~/.stigmer/bin/temporal\n\
         [✓] Temporal Server started (PID: {pid})\n\
         [✓] UI available at http://localhost:{ui}\n\
         [•] Clients connect to 127.0.0.1:{port}; Ctrl-C stops it.\n\
         [✓] Stigmer Daemon Ready.\n"
    );
    assert_eq!(daemon.stdout(), expected);
    let page = page(home.ui_port());
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("<!doctype html>") && page.contains("/_app/"), "{page}");
    run_workflow(&home, tools, "before");

    // A timer runs while Temporal is away.
    client(&home, tools, home.port(), ["begin", "across", "2"]).run().success();
    home.stigmer(["local", "restart"]).run().success();
    assert_ne!(temporal_pid(&home).unwrap(), pid, "restart left the old server in place");
    check_workflow(&client(&home, tools, home.port(), ["finish", "across"]).run(), "across");
    read_workflow(&home, tools, "before");

    daemon.signal(libc::SIGINT);
    daemon.wait().success();
    home.assert_quiet();
    assert!(home.database().exists() && home.log().exists(), "{}", home.describe());

    // Once installed it needs no request, and no network.
    let (connections, base) = (server.connections(), server.base());
    home.stigmer(["local", "start", "--detach", "--mirror", &base]).run().success();
    read_workflow(&home, tools, "across");
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
    assert_eq!(server.connections(), connections, "a later start asked the network");
    drop(server);
    home.stigmer(["local", "start", "--detach", "--mirror", &base]).run().success();
    read_workflow(&home, tools, "before");
    run_workflow(&home, tools, "after");
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
}

#[test]
fn a_worker_needs_no_address_in_its_code() {
    let Some(tools) = tools() else { return };
    let home = Home::new();
    for status in [7, 0] {
        let done = home
            .stigmer(["local", "run", "--mirror"])
            .args([&tools.mirror])
            .args(["--"])
            .args(worker(tools))
            .args([status.to_string()])
            .run();
        done.exits_with(status);
        assert_eq!(done.stdout, "the workflow says 42\n", "stdout is the command's alone");
        home.assert_quiet();
        assert!(!answers(home.port()));
    }
}

#[test]
fn an_external_temporal_is_used_and_left_alone() {
    let Some(tools) = tools() else { return };
    let (home, other) = (Home::new(), Home::new());
    let port = other.port();
    start_detached(&other, tools).run().success();
    let address = format!("127.0.0.1:{port}");

    let started = home.stigmer(["local", "start", "--detach", "--temporal-host", &address]).run();
    let expected = format!(
        "[•] Stigmer Local Daemon starting...\n\
         [•] Using external Temporal: {address} (from --temporal-host)\n\
         [•] Skipping local Temporal startup\n\
         [✓] Stigmer Daemon Ready.\n"
    );
    assert_eq!(started.success().stdout, expected);
    assert_eq!(status(&home, "mode").as_deref(), Some("external"));
    assert_eq!(status(&home, "address").as_deref(), Some(address.as_str()));
    assert!(is_ready(&home));
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();

    let run = home.stigmer(["local", "run", "--"]).args(worker(tools)).env("TEMPORAL_SERVICE_ADDRESS", &address);
    let done = run.run();
    done.success().stdout_has("the workflow says 42");
    home.assert_quiet();
    assert!(!home.temporal().exists() && !home.database().exists(), "{}", home.describe());

    run_workflow(&other, tools, "still-there");
    other.stigmer(["local", "stop"]).run().success();
    other.assert_quiet();
}

#[test]
fn a_database_of_another_version_opens_in_the_pinned_one() {
    let Some(tools) = tools() else { return };
    let home = Home::new();
    let start = |version: &str| {
        let started = home.stigmer(["local", "start", "--detach"]).with_mirror(version, &tools.mirror).run();
        started.success().stdout_has(&format!("Unpacking Temporal CLI v{version} "));
        assert_eq!(home.receipt_field("version").as_deref(), Some(version));
        assert_eq!(status(&home, "temporal_version").as_deref(), Some(version));
    };
    start(other_version());
    run_workflow(&home, tools, "old");
    home.stigmer(["local", "stop"]).run().success();
    start(PINNED);
    read_workflow(&home, tools, "old");
    run_workflow(&home, tools, "new");
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
}

/// The command line of a user's worker.
fn worker(tools: &Tools) -> [PathBuf; 3] {
    [tools.python.clone(), "-B".into(), here("worker_test.py")]
}

/// What the UI answers with at `/`.
fn page(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}
