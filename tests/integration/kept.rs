//! A download that outlives its process.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::download::assert_nothing_fetched_twice;
use crate::support::archive::{VERSION, asset_path, checksums, checksums_path, executable, release};
use crate::support::home::KEPT_HEADER;
use crate::support::*;

const DAY: Duration = Duration::from_secs(86_400);

fn start<'h>(home: &'h Home, server: &ReleaseServer) -> Stigmer<'h> {
    home.stigmer(["local", "start"]).with_mirror(VERSION, server.base())
}

fn install<'h>(home: &'h Home, server: &ReleaseServer) -> Stigmer<'h> {
    home.stigmer(["local", "run"]).with_mirror(VERSION, server.base()).args(["--", "true"])
}

#[track_caller]
fn assert_installed(home: &Home, executable: &[u8]) {
    let installed = fs::read(home.temporal()).unwrap_or_else(|error| panic!("{error}\n{}", home.describe()));
    assert!(installed == executable, "bin/temporal has other bytes\n{}", home.describe());
    assert_eq!(home.bin_names(), ["temporal", "temporal.receipt"]);
    home.assert_quiet();
}

/// Where the requests for the archive wanted it to begin.
fn begins(server: &ReleaseServer) -> Vec<Option<u64>> {
    server.requests_for(&asset_path(VERSION)).iter().map(Request::range_start).collect()
}

/// A start that is killed when it has the first `count` bytes.
fn leave(home: &Home, server: &ReleaseServer, count: u64) {
    server.script(&asset_path(VERSION), [Reply::Cut(count, Cut::Stall)]);
    let running = start(home, server).spawn();
    home.wait_for("what was sent", || home.kept_bytes() == count);
    running.signal(libc::SIGKILL);
    running.wait().exits_with(128 + libc::SIGKILL);
    server.forget_requests();
}

/// `STIGMER_INTERRUPTIONS` sets another number of them.
#[test]
fn a_download_outlives_any_number_of_interruptions_and_no_byte_is_fetched_twice() {
    let count = std::env::var("STIGMER_INTERRUPTIONS").map_or(20, |count| count.parse().unwrap());
    let content = executable(3 << 20, 41);
    let archive = release(&content);
    let total = archive.len() as u64;
    let (home, server) = (Home::new(), ReleaseServer::with_release(VERSION, &archive));
    let asset = asset_path(VERSION);
    for number in 1..=count {
        let position = total * number / (count + 1);
        let step = position - home.kept_bytes();
        let is_cut = number % 4 == 0;
        if is_cut {
            // What comes after it is not worth another attempt.
            server.script(&asset, [Reply::Cut(step, Cut::Reset), Reply::status("401 Unauthorized")]);
        } else {
            server.script(&asset, [Reply::Cut(step, Cut::Stall)]);
        }
        let running = start(&home, &server).spawn();
        home.wait_for("what was sent", || home.kept_bytes() == position);
        match number % 4 {
            0 => drop(running.wait().fails_with(&["401"])),
            1 => {
                running.signal(libc::SIGINT);
                running.wait().success();
            }
            2 => {
                running.signal(libc::SIGKILL);
                running.wait().exits_with(128 + libc::SIGKILL);
            }
            _ => {
                running.signal(libc::SIGTERM);
                running.wait().success();
            }
        }
        assert_eq!(home.kept_bytes(), position, "after interruption {number}\n{}", home.describe());
    }
    install(&home, &server).run().success().stderr_has("100% (resumed once)\n");
    assert_installed(&home, &content);
    assert_nothing_fetched_twice(&server.requests_for(&asset), total);
}

#[test]
fn who_interrupts_a_download_reads_what_is_kept_on_the_stream_of_the_progress() {
    let archive = release(&executable(2 << 20, 42));
    let total = archive.len() as u64;
    let server = ReleaseServer::with_release(VERSION, &archive);
    let tenths = |bytes: u64| format!("{:.1}", bytes as f64 / 1e6);
    let line = format!("[•] Kept {} of {} MB; the next start goes on from there.", tenths(total / 2), tenths(total));
    let interrupt = |arguments: &[&str], code: i32| {
        let home = Home::new();
        server.script(&asset_path(VERSION), [Reply::Cut(total / 2, Cut::Stall)]);
        let stigmer = home.stigmer(arguments).with_mirror(VERSION, server.base());
        let stigmer = if arguments.contains(&"run") { stigmer.args(["--", "true"]) } else { stigmer };
        let running = stigmer.spawn();
        home.wait_for("what was sent", || home.kept_bytes() == total / 2);
        running.signal(libc::SIGINT);
        let outcome = running.wait();
        outcome.exits_with(code);
        home.wait_until_quiet(LIMIT);
        [outcome.stdout, outcome.stderr].map(|text| text.lines().filter(|shown| *shown == line).count())
    };
    assert_eq!(interrupt(&["local", "start"], 0), [1, 0]);
    assert_eq!(interrupt(&["local", "start", "--detach"], 128 + libc::SIGINT), [1, 0]);
    assert_eq!(interrupt(&["local", "run"], 128 + libc::SIGINT), [0, 1]);
    assert_eq!(interrupt(&["local", "run", "--ephemeral"], 0), [0, 1]);

    let home = Home::new();
    server.script(&asset_path(VERSION), [Reply::Cut(total / 2, Cut::Stall)]);
    let mut terminal = Pty::spawn(start(&home, &server), 100, 24);
    terminal.wait_for("%");
    home.wait_for("what was sent", || home.kept_bytes() == total / 2);
    terminal.ctrl_c();
    assert!(terminal.wait().success());
    let screen = terminal.screen();
    let lines = pty::rendered(&screen);
    // On a line of its own, the last one.
    assert_eq!(lines[lines.len() - 2..], [line.as_str(), ""], "{screen}");
    assert!(lines[lines.len() - 3].contains("Downloading"), "{screen}");
}

#[test]
fn nothing_is_said_of_a_download_that_brought_nothing() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, &release(&executable(1 << 20, 43)));
    server.script(&asset_path(VERSION), [Reply::Silence]);
    let running = start(&home, &server).spawn();
    home.wait_for("the request", || server.requests_for(&asset_path(VERSION)).len() == 1);
    running.signal(libc::SIGINT);
    running.wait().success().stdout_lacks("Kept");
    assert!(home.bin_names().is_empty());
}

#[test]
fn what_is_kept_whole_needs_no_request() {
    let content = executable(1 << 20, 44);
    let archive = release(&content);
    let (home, server) = (Home::new(), ReleaseServer::with_release(VERSION, &archive));
    leave(&home, &server, archive.len() as u64 - 1);
    let kept = [fs::read(home.kept()).unwrap(), archive[archive.len() - 1..].to_vec()].concat();
    fs::write(home.kept(), kept).unwrap();
    install(&home, &server).run().success().stderr_has("100%\n");
    assert_eq!(begins(&server), []);
    assert_installed(&home, &content);
}

#[test]
fn another_file_at_the_same_place_is_fetched_from_its_beginning() {
    let (old, new) = (executable(1 << 20, 45), executable(1 << 20, 46));
    let (before, after) = (release(&old), release(&new));
    let timed = |bytes: &[u8], time: &str| File::new(bytes).without_etag().last_modified(time);
    for (old, replaced, expected) in [
        (File::new(&before[..]), File::new(&after[..]), vec![Some(500_000), None]),
        (File::new(&before[..]).without_ranges(), File::new(&after[..]).without_ranges(), vec![Some(500_000), None]),
        (
            timed(&before, "Mon, 23 Nov 2026 03:50:00 GMT"),
            timed(&after, "Mon, 23 Nov 2026 03:50:01 GMT"),
            vec![Some(500_000), None],
        ),
        // Nothing distinguishes these two but their digests.
        (File::new(&before[..]).without_etag(), File::new(&after[..]).without_etag(), vec![Some(500_000), None]),
    ] {
        let (home, server) = (Home::new(), ReleaseServer::with_release(VERSION, &before));
        server.put(&asset_path(VERSION), old);
        leave(&home, &server, 500_000);
        server.put(&asset_path(VERSION), replaced);
        server.put(&checksums_path(VERSION), File::new(checksums(VERSION, &after)));
        install(&home, &server).run().success();
        assert_eq!(begins(&server), expected);
        assert_installed(&home, &new);
    }
}

#[test]
fn a_server_without_ranges_sends_all_again_and_what_is_kept_is_not_lost() {
    let content = executable(1 << 20, 47);
    let archive = release(&content);
    let (home, server) = (Home::new(), ReleaseServer::with_release(VERSION, &archive));
    server.put(&asset_path(VERSION), File::new(&archive[..]).without_ranges());
    leave(&home, &server, 500_000);
    // Not even as much as is there.
    server.script(&asset_path(VERSION), [Reply::Cut(300_000, Cut::Reset), Reply::status("401 Unauthorized")]);
    install(&home, &server).run().fails_with(&["401"]).stderr_has("[•] Kept 0.5 of ");
    assert_eq!(home.kept_bytes(), 500_000);
    install(&home, &server).run().success();
    assert_installed(&home, &content);
}

#[test]
fn what_is_a_week_old_or_of_another_release_is_dropped() {
    let content = executable(1 << 20, 48);
    let archive = release(&content);
    for (age, begin) in [(6 * DAY, Some(500_000)), (8 * DAY, None)] {
        let (home, server) = (Home::new(), ReleaseServer::with_release(VERSION, &archive));
        leave(&home, &server, 500_000);
        fs::File::options().write(true).open(home.kept()).unwrap().set_modified(SystemTime::now() - age).unwrap();
        install(&home, &server).run().success();
        assert_eq!(begins(&server), [begin], "{age:?}");
        assert_installed(&home, &content);
    }
    let (home, server) = (Home::new(), ReleaseServer::with_release(VERSION, &archive));
    let other = ReleaseServer::with_release(VERSION, &archive);
    server.publish("9.9.8", &archive);
    leave(&home, &server, 500_000);
    let older = || home.stigmer(["local", "run"]).with_mirror("9.9.8", server.base()).args(["--", "true"]);
    server.script(&asset_path("9.9.8"), [Reply::Cut(300_000, Cut::Reset), Reply::status("401 Unauthorized")]);
    older().run().fails_with(&["401"]);
    assert_eq!(home.kept_bytes(), 300_000);
    install(&home, &other).run().success();
    assert_eq!(begins(&other), [None]);
    assert_installed(&home, &content);
    // What is needed no longer goes as well.
    server.script(&asset_path("9.9.8"), [Reply::Cut(300_000, Cut::Reset), Reply::status("401 Unauthorized")]);
    older().run().fails_with(&["401"]);
    assert_eq!(home.kept_bytes(), 300_000);
    install(&home, &other).run().success();
    assert_installed(&home, &content);
}

#[test]
fn whatever_a_crash_made_of_what_was_kept_the_right_bytes_are_installed() {
    let content = executable(1 << 20, 49);
    let archive = release(&content);
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage, Option<u64>); 10] = [
        ("a bit", |bytes| bytes[300_000] ^= 1, Some(500_000)),
        ("a hole", |bytes| bytes[100_000..200_000].fill(0), Some(500_000)),
        ("zeros", |bytes| bytes[KEPT_HEADER as usize..].fill(0), Some(500_000)),
        ("a hole at the end", |bytes| bytes.resize(bytes.len() + 4000, 0), Some(504_000)),
        ("all of it zeros", |bytes| bytes.fill(0), None),
        ("more than there is", |bytes| bytes.resize(bytes.len() * 10, 7), None),
        ("nothing", Vec::clear, None),
        ("less than a page", |bytes| bytes.truncate(4000), None),
        ("a page alone", |bytes| bytes.truncate(KEPT_HEADER as usize), None),
        (
            "another page",
            |bytes| bytes[..KEPT_HEADER as usize].copy_from_slice(&vec![b'\n'; KEPT_HEADER as usize]),
            None,
        ),
    ];
    for (what, damage, first) in damages {
        let (home, server) = (Home::new(), ReleaseServer::with_release(VERSION, &archive));
        leave(&home, &server, 500_000);
        let mut bytes = fs::read(home.kept()).unwrap();
        damage(&mut bytes);
        fs::write(home.kept(), bytes).unwrap();
        install(&home, &server).run().success();
        let expected = if first.is_some() { vec![first, None] } else { vec![None] };
        let begins = begins(&server);
        // Damage at the beginning is noticed before a byte is asked for.
        assert!(begins == expected || begins == [None], "{what}: {begins:?}");
        assert_installed(&home, &content);
    }
    // Where that of the server is damaged, too, it is not tried for ever.
    let (home, server) = (Home::new(), ReleaseServer::with_release(VERSION, &archive));
    leave(&home, &server, 500_000);
    server.put(&checksums_path(VERSION), File::new(checksums(VERSION, b"another")));
    install(&home, &server).run().fails_with(&["cannot trust", "nothing of it was kept"]);
    assert_eq!(begins(&server), [Some(500_000), None]);
    assert!(home.bin_names().is_empty());
}

#[test]
fn what_lies_in_its_place_is_neither_followed_nor_written_to() {
    let content = executable(1 << 20, 50);
    let archive = release(&content);
    let put = |home: &Home, how: &str, victim: &Path| {
        fs::create_dir_all(home.bin()).unwrap();
        match how {
            "link" => symlink(victim, home.kept()).unwrap(),
            "hard link" => fs::hard_link(victim, home.kept()).unwrap(),
            "fifo" => assert!(Command::new("mkfifo").arg(home.kept()).status().unwrap().success()),
            _ => fs::create_dir(home.kept()).unwrap(),
        }
    };
    for how in ["link", "hard link", "fifo", "directory"] {
        let (home, server) = (Home::new(), ReleaseServer::with_release(VERSION, &archive));
        leave(&home, &server, 500_000);
        let victim = home.root().join("victim");
        // It could be gone on with, were it the program's own.
        fs::rename(home.kept(), &victim).unwrap();
        let before = fs::read(&victim).unwrap();
        put(&home, how, &victim);
        install(&home, &server).run().success();
        assert!(fs::read(&victim).unwrap() == before, "{how}");
        assert_eq!(begins(&server), [None], "{how}");
        assert_eq!(fs::read(home.temporal()).unwrap(), content, "{how}");
        // A directory there is nobody's download.
        assert_eq!(home.kept().exists(), how == "directory");
    }
}
