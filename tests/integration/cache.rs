//! Homes that share what was downloaded.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crate::install::SmallDisk;
use crate::support::archive::{PINNED_VERSION, VERSION, asset_path, executable, release};
use crate::support::home::NOBODY;
use crate::support::process::is_root;
use crate::support::*;

fn install<'h>(home: &'h Home, cache: &Path, version: &str, base: &str) -> Stigmer<'h> {
    let stigmer = home.stigmer(["local", "run"]).with_mirror(version, base).args(["--", "true"]);
    stigmer.env("STIGMER_CACHE", cache)
}

fn entry(cache: &Path, version: &str) -> PathBuf {
    cache.join(format!("{version}-{}", platform().replace('_', "-")))
}

fn file(path: &Path) -> (u64, u64) {
    let metadata = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    (metadata.dev(), metadata.ino())
}

#[track_caller]
fn assert_installed(home: &Home, executable: &[u8]) {
    assert!(fs::read(home.temporal()).unwrap() == executable, "{}", home.describe());
    assert_eq!(home.bin_names(), ["temporal", "temporal.receipt"]);
    assert_eq!(fs::metadata(home.temporal()).unwrap().mode() & 0o777, 0o755);
    assert_eq!(home.receipt_field("sha256").unwrap(), sha256(executable));
    home.assert_quiet();
}

/// A home that has `VERSION`, and the cache that has it too.
fn filled(server: &ReleaseServer) -> (Home, PathBuf) {
    let home = Home::new();
    let cache = home.root().join("cache");
    install(&home, &cache, VERSION, &server.base()).run().success().stderr_has("Downloading");
    server.forget_requests();
    (home, cache)
}

#[test]
fn a_second_home_needs_no_network() {
    let content = executable(100_000, 61);
    let server = ReleaseServer::with_release(VERSION, &release(&content));
    let (first, cache) = filled(&server);
    let (base, connections) = (server.base(), server.connections());
    let platform = platform().replace('_', "/");
    for offline in [true, false] {
        let second = Home::new();
        let stigmer = install(&second, &cache, VERSION, &base);
        let stigmer = if offline { stigmer.env("STIGMER_OFFLINE", "1") } else { stigmer };
        let shown = format!("[•] Using Temporal CLI v{VERSION} ({platform}) from {}\n", cache.display());
        stigmer.run().success().stderr_has(&shown).stderr_lacks("Downloading");
        assert_eq!(server.connections(), connections);
        assert_installed(&second, &content);
        // A link, which takes no room.
        assert_eq!(file(&second.temporal()), file(&first.temporal()));
        assert_eq!(second.receipt_field("source"), first.receipt_field("source"));
    }
    drop(server);
    let third = Home::new();
    install(&third, &cache, VERSION, &base).run().success();
    assert_installed(&third, &content);
    // Another version of one home is nothing to the others.
    let other = ReleaseServer::with_release("9.9.8", &release(&executable(1000, 62)));
    install(&third, &cache, "9.9.8", &other.base()).run().success();
    install(&first, &cache, VERSION, &base).env("STIGMER_OFFLINE", "1").run().success().stderr_lacks("Using");
    assert_installed(&first, &content);
}

#[test]
fn the_cache_is_where_the_system_has_them_and_can_be_turned_off() {
    let server = ReleaseServer::with_release(VERSION, &release(&executable(1000, 63)));
    let place = if cfg!(target_os = "macos") { "Library/Caches/stigmer" } else { ".cache/stigmer" };
    let run = |home: &Home, variables: &[(&str, &str)]| {
        let stigmer = home.stigmer(["local", "run"]).with_mirror(VERSION, server.base()).args(["--", "true"]);
        variables.iter().fold(stigmer, |stigmer, (name, value)| stigmer.env(name, value)).run().success();
    };
    for (variables, expected) in [
        (vec![], format!("user/{place}")),
        (vec![("STIGMER_CACHE", "")], format!("user/{place}")),
        (vec![("XDG_CACHE_HOME", "relative")], format!("user/{place}")),
        (vec![("STIGMER_CACHE", "here")], "here".into()),
    ] {
        let home = Home::new();
        run(&home, &variables);
        let executable = entry(&home.root().join(&expected), VERSION).join("temporal");
        assert_eq!(file(&executable), file(&home.temporal()), "{variables:?}");
        let cache = fs::metadata(home.root().join(&expected)).unwrap();
        assert_eq!(cache.mode() & 0o777, 0o700);
    }
    let home = Home::new();
    let xdg = home.root().join("xdg");
    run(&home, &[("XDG_CACHE_HOME", xdg.to_str().unwrap())]);
    assert!(entry(&xdg.join("stigmer"), VERSION).exists());
    for variables in [[("STIGMER_CACHE", "off")], [("STIGMER_TEMPORAL_BIN", stand_in().to_str().unwrap())]] {
        let home = Home::new();
        run(&home, &variables);
        assert_eq!(fs::read_dir(home.user()).unwrap().count(), 1, "{variables:?}");
        assert!(!home.root().join("off").exists());
    }
    // What root makes in the home of another user would stay there.
    if is_root() {
        let home = Home::new();
        chown(home.user(), Some(NOBODY), Some(NOBODY)).unwrap();
        run(&home, &[]);
        assert!(!home.user().join(".cache").exists());
    }
}

/// What is done to an entry; the second path may take what was in it.
type Damage = fn(&Path, &Path);

fn damages() -> Vec<(&'static str, Damage)> {
    let mut damages: Vec<(&'static str, Damage)> = vec![
        ("a bit", |entry, _| {
            let mut bytes = fs::read(entry.join("temporal")).unwrap();
            bytes[50_000] ^= 1;
            // Into the file that the first home has, too.
            fs::write(entry.join("temporal"), bytes).unwrap();
        }),
        ("shorter", |entry, _| {
            fs::File::options().write(true).open(entry.join("temporal")).unwrap().set_len(9000).unwrap();
        }),
        ("gone", |entry, _| fs::remove_file(entry.join("temporal")).unwrap()),
        ("a link", |entry, victim| {
            fs::rename(entry.join("temporal"), victim).unwrap();
            symlink(victim, entry.join("temporal")).unwrap();
        }),
        ("a fifo", |entry, _| {
            fs::remove_file(entry.join("temporal")).unwrap();
            assert!(Command::new("mkfifo").arg(entry.join("temporal")).status().unwrap().success());
        }),
        ("writable for all", |entry, _| {
            fs::set_permissions(entry.join("temporal"), fs::Permissions::from_mode(0o777)).unwrap();
        }),
        ("no receipt", |entry, _| fs::remove_file(entry.join("temporal.receipt")).unwrap()),
        ("a receipt of another version", |entry, _| {
            let text = fs::read_to_string(entry.join("temporal.receipt")).unwrap();
            fs::write(entry.join("temporal.receipt"), text.replace(VERSION, "9.9.8")).unwrap();
        }),
        ("from another mirror", |entry, _| {
            let text = fs::read_to_string(entry.join("temporal.receipt")).unwrap();
            fs::write(entry.join("temporal.receipt"), text.replace("http://", "https://")).unwrap();
        }),
    ];
    if is_root() {
        damages.push(("another user's", |entry, _| chown(entry.join("temporal"), Some(NOBODY), None).unwrap()));
        damages.push(("in another user's directory", |entry, _| chown(entry, Some(NOBODY), None).unwrap()));
    }
    damages
}

#[test]
fn a_damaged_or_foreign_entry_is_passed_over_and_replaced() {
    let content = executable(100_000, 64);
    let server = ReleaseServer::with_release(VERSION, &release(&content));
    for (what, damage) in damages() {
        let (first, cache) = filled(&server);
        let entry = entry(&cache, VERSION);
        let victim = first.root().join("victim");
        damage(&entry, &victim);
        let before = fs::read(&victim).ok();
        let second = Home::new();
        install(&second, &cache, VERSION, &server.base()).run().success().stderr_has("Downloading");
        assert_eq!(server.requests_for(&asset_path(VERSION)).len(), 1, "{what}");
        server.forget_requests();
        assert_installed(&second, &content);
        assert!(fs::read(&victim).ok() == before, "{what}");
        if what == "in another user's directory" {
            continue;
        }
        assert_eq!(file(&entry.join("temporal")), file(&second.temporal()), "{what}");
        let third = Home::new();
        install(&third, &cache, VERSION, &server.base()).run().success().stderr_has("Using");
        assert_installed(&third, &content);
        // A home whose own was damaged with it takes the new one.
        if what == "a bit" {
            install(&first, &cache, VERSION, &server.base()).run().success().stderr_has("Using");
            assert_installed(&first, &content);
        }
    }
}

#[test]
fn the_pinned_version_is_known_by_its_digest_alone() {
    let (home, content) = (Home::new(), executable(1000, 65));
    let entry = entry(&home.root().join("cache"), PINNED_VERSION);
    fs::create_dir_all(&entry).unwrap();
    for directory in [&home.root().join("cache"), &entry] {
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700)).unwrap();
    }
    fs::write(entry.join("temporal"), &content).unwrap();
    fs::set_permissions(entry.join("temporal"), fs::Permissions::from_mode(0o755)).unwrap();
    let server = ReleaseServer::start();
    let source = server.url(&asset_path(PINNED_VERSION));
    let pin = pinned::fact(&format!("{}/executable", platform().replace('_', "/"))).unwrap();
    for digest in [sha256(&content).as_str(), pin] {
        let size = content.len();
        let text =
            format!("version={PINNED_VERSION}\nsize={size}\nsha256={digest}\nsource={source}\nmodified=1.000000000\n");
        fs::write(entry.join("temporal.receipt"), text).unwrap();
        let stigmer = install(&home, &home.root().join("cache"), PINNED_VERSION, &server.base());
        stigmer.env("STIGMER_OFFLINE", "1").run().fails_with(&["offline"]).stderr_lacks("Using");
        assert!(home.bin_names().is_empty());
        assert!(home.starts().is_empty());
    }
}

#[test]
fn a_cache_that_others_could_write_to_is_not_used_and_that_is_said() {
    let server = ReleaseServer::with_release(VERSION, &release(&executable(1000, 66)));
    let (_first, cache) = filled(&server);
    let said = |why: &str| {
        let home = Home::new();
        let outcome = install(&home, &cache, VERSION, &server.base()).run();
        outcome
            .success()
            .stderr_has("Downloading")
            .stderr_has(&format!("[!] cannot use {}: {why}; going on without the cache.\n", cache.display()));
    };
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    said("everybody may write to it");
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o700)).unwrap();
    if is_root() {
        chown(&cache, Some(NOBODY), Some(NOBODY)).unwrap();
        said(&format!("it belongs to another user (uid {NOBODY})"));
        chown(&cache, Some(0), Some(0)).unwrap();
    }
    let home = Home::new();
    install(&home, &cache, VERSION, &server.base()).run().success().stderr_has("Using");
}

#[test]
fn a_read_only_cache_is_read() {
    let content = executable(1000, 67);
    let server = ReleaseServer::with_release(VERSION, &release(&content));
    let (_first, cache) = filled(&server);
    let read_only = |cache: &Path| {
        for path in [entry(cache, VERSION), cache.to_owned()] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o555)).unwrap();
        }
    };
    // The user's own, of which another home of that user takes a link.
    let second = Home::new();
    let moved = second.root().join("cache");
    fs::rename(&cache, &moved).unwrap();
    read_only(&moved);
    let unprivileged = |home| {
        let stigmer = Home::stigmer_without_privileges(home, ["local", "run"]).with_mirror(VERSION, server.base());
        stigmer.args(["--", "true"]).env("STIGMER_CACHE", &moved).run()
    };
    unprivileged(&second).success().stderr_has("Using");
    assert_installed(&second, &content);
    assert_eq!(file(&second.temporal()), file(&entry(&moved, VERSION).join("temporal")));
    // What is not in it is downloaded, and that is all.
    server.publish("9.9.8", &release(&content));
    let other = second.stigmer_without_privileges(["local", "run"]).with_mirror("9.9.8", server.base());
    other
        .args(["--", "true"])
        .env("STIGMER_CACHE", &moved)
        .run()
        .success()
        .stderr_has("Downloading")
        .stderr_lacks("[!] cannot");
    assert!(!entry(&moved, "9.9.8").exists());
    // The administrator's: others may not link to it everywhere, but copy it.
    if is_root() {
        let third = Home::new();
        assert!(Command::new("chown").args(["-R", "0:0"]).arg(&moved).status().unwrap().success());
        assert!(Command::new("chmod").args(["-R", "a+rX"]).arg(&moved).status().unwrap().success());
        unprivileged(&third).success().stderr_has("Using");
        assert_installed(&third, &content);
    }
}

#[test]
fn on_another_disk_it_is_copied_and_none_is_filled_from_there() {
    let content = executable(100_000, 68);
    let server = ReleaseServer::with_release(VERSION, &release(&content));
    let (first, cache) = filled(&server);
    let Some(disk) = SmallDisk::mount(8 << 20) else {
        return skip("this user cannot mount a small disk");
    };
    let second = Home::below(&disk.path);
    install(&second, &cache, VERSION, &server.base()).env("STIGMER_OFFLINE", "1").run().success().stderr_has("Using");
    assert_installed(&second, &content);
    assert_ne!(file(&second.temporal()).0, file(&first.temporal()).0);
    server.publish("9.9.8", &release(&content));
    install(&second, &cache, "9.9.8", &server.base()).run().success().stderr_has("Downloading");
    assert!(!entry(&cache, "9.9.8").exists() && entry(&cache, VERSION).exists());
    let nowhere = first.root().join("nowhere");
    install(&second, &nowhere, VERSION, &server.base()).run().success().stderr_has("Downloading");
    assert!(!nowhere.exists());
}

#[test]
fn the_three_that_were_used_last_stay() {
    let server = ReleaseServer::start();
    let versions = ["9.9.1", "9.9.2", "9.9.3", "9.9.4", "9.9.5"];
    let home = Home::new();
    let cache = home.root().join("cache");
    let names = || {
        let mut names: Vec<_> = fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    let age = |version: &str, hours: u64| {
        let time = SystemTime::now() - Duration::from_secs(hours * 3600);
        fs::File::open(entry(&cache, version).join("temporal.receipt")).unwrap().set_modified(time).unwrap();
    };
    for (number, version) in versions.iter().enumerate() {
        server.publish(version, &release(&executable(1000, 70 + number as u64)));
        if number == 3 {
            // Taken, it counts as used.
            let other = Home::new();
            install(&other, &cache, versions[0], &server.base()).run().success().stderr_has("Using");
            // Whatever else lies there is somebody else's.
            fs::create_dir(cache.join("mine")).unwrap();
            fs::write(cache.join("mine/temporal"), "kept").unwrap();
            // The next one that is made is the first that has to go.
            fs::create_dir(entry(&cache, "9.9.0")).unwrap();
        }
        install(&home, &cache, version, &server.base()).run().success();
        age(version, 10 - number as u64);
    }
    let expected = [versions[0], versions[3], versions[4]].map(|version| entry(&cache, version));
    let mut expected: Vec<_> = expected.iter().map(|path| path.file_name().unwrap().to_owned()).collect();
    expected.push("mine".into());
    assert_eq!(names(), expected);
    assert_eq!(fs::read_to_string(cache.join("mine/temporal")).unwrap(), "kept");
}

#[test]
fn homes_that_install_at_once_share_a_cache_in_peace() {
    let content = executable(100_000, 80);
    let server = ReleaseServer::with_release(VERSION, &release(&content));
    let root = Home::new();
    let cache = root.root().join("cache");
    in_parallel(8, 0..24, |_| {
        let home = Home::new();
        install(&home, &cache, VERSION, &server.base()).run().success();
        assert_installed(&home, &content);
    });
    let last = Home::new();
    install(&last, &cache, VERSION, &server.base()).env("STIGMER_OFFLINE", "1").run().success();
    assert_installed(&last, &content);
    let mut names: Vec<_> =
        fs::read_dir(entry(&cache, VERSION)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["temporal", "temporal.receipt"]);
}
