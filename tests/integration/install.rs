//! What gets its final name in the home, and what happens to the home when
//! the disk, the user or the power interferes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use tar::EntryType;

use crate::support::archive::{
    Archive, PINNED_VERSION, VERSION, asset_name, asset_path, checksums, checksums_path, executable, release,
    small_release,
};
use crate::support::server::wait_for_requests;
use crate::support::stand_in_build::stand_in_bytes;
use crate::support::*;

/// Installs `VERSION` from `base`, starts it, runs `true`, and stops it.
fn install<'h>(home: &'h Home, base: impl AsRef<std::ffi::OsStr>) -> Stigmer<'h> {
    home.stigmer(["local", "run"]).with_mirror(VERSION, base).args(["--", "true"])
}

#[track_caller]
fn assert_installed(home: &Home, executable: &[u8]) {
    let installed = fs::read(home.temporal()).unwrap_or_else(|error| panic!("{error}\n{}", home.describe()));
    assert!(installed == executable, "bin/temporal has other bytes\n{}", home.describe());
    assert_eq!(home.bin_names(), ["temporal", "temporal.receipt"]);
    assert_eq!(home.receipt_field("sha256").unwrap(), sha256(executable));
}

#[test]
fn the_first_start_installs_and_says_what_it_does() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let mut start = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base()).spawn();
    start.wait_for_stdout("Ready.\n");
    let pid = home.starts()[0].0;
    let expected = format!(
        "[•] Stigmer Local Daemon starting...\n\
         [!] Temporal not found locally.\n\
         [⬇] Downloading Temporal CLI v9.9.9 ({})... 100%\n\
         [✓] Temporal binary installed to ~/.stigmer/bin/temporal\n\
         [✓] Temporal Server started (PID: {pid})\n\
         [✓] UI available at http://localhost:{}\n\
         [•] Clients connect to 127.0.0.1:{}; Ctrl-C stops it.\n\
         [✓] Stigmer Daemon Ready.\n",
        platform().replace('_', "/"),
        home.ui_port(),
        home.port()
    );
    assert_eq!(start.stdout(), expected);
    start.signal(libc::SIGTERM);
    let outcome = start.wait();
    outcome.success();
    assert_eq!(outcome.stderr, "");
    assert_eq!(home.stops(), [pid]);
    assert_installed(&home, stand_in_bytes());
    assert!(home.database().exists() && home.log().exists());
    home.assert_quiet();
}

#[test]
fn what_is_installed_is_private_executable_and_has_a_receipt() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    install(&home, server.base()).run().success();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&home.path()), 0o700);
    assert_eq!(mode(&home.temporal()), 0o755);
    let field = |name: &str| home.receipt_field(name).unwrap();
    assert_eq!(field("version"), VERSION);
    assert_eq!(field("size"), stand_in_bytes().len().to_string());
    assert_eq!(field("sha256"), sha256(stand_in_bytes()));
    assert_eq!(field("source"), server.url(&asset_path(VERSION)));
}

#[test]
fn a_detached_start_shows_the_install_and_its_failure_to_whoever_typed_it() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    server.script(&checksums_path(VERSION), [Reply::status("404 Not Found")]);
    let start = || home.stigmer(["local", "start", "--detach"]).with_mirror(VERSION, server.base()).run();
    start().fails_with(&["checksums.txt", "hint: "]).stdout_lacks("Ready");
    home.assert_quiet();
    let outcome = start();
    outcome.success();
    let expected = format!(
        "[•] Stigmer Local Daemon starting...\n\
         [!] Temporal not found locally.\n\
         [⬇] Downloading Temporal CLI v9.9.9 ({})... 100%\n\
         [✓] Temporal binary installed to ~/.stigmer/bin/temporal\n\
         [✓] Temporal Server started (PID: {})\n\
         [✓] UI available at http://localhost:{}\n\
         [•] Clients connect to 127.0.0.1:{}; 'stigmer local stop' stops it.\n\
         [✓] Stigmer Daemon Ready.\n",
        platform().replace('_', "/"),
        home.starts()[0].0,
        home.ui_port(),
        home.port()
    );
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), (expected.as_str(), ""));
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
}

#[test]
fn permissions_do_not_depend_on_the_umask() {
    let server = ReleaseServer::with_release(VERSION, small_release());
    for umask in ["000", "077"] {
        let home = Home::new();
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let shell = Stigmer::of_program(&home, "sh".as_ref(), ["-c", &script]).args([process::binary()]);
        let stigmer = shell.args(["local", "run"]).with_mirror(VERSION, server.base());
        stigmer.args(["--", "true"]).run().success();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        for name in ["", "bin", "data", "logs", "run"] {
            assert_eq!(mode(&home.path().join(name)), 0o700, "umask {umask}: {name}");
        }
        assert_eq!(mode(&home.temporal()), 0o755, "umask {umask}");
        assert_eq!(mode(&home.receipt()) & 0o077, 0, "umask {umask}");
    }
}

#[test]
fn a_home_may_have_any_name() {
    let server = ReleaseServer::with_release(VERSION, small_release());
    for name in [" with spaces", "-ünïcode-🚀", "'quoted\" $HOME `%s` \\;=", &"-long".repeat(40)] {
        let home = Home::named(&std::env::temp_dir(), name);
        install(&home, server.base()).run().success();
        assert_installed(&home, stand_in_bytes());
        install(&home, server.base()).run().success();
        home.assert_quiet();
    }
    assert_eq!(server.requests_for(&asset_path(VERSION)).len(), 4);
}

#[test]
fn bin_may_be_a_link_to_a_larger_disk_and_other_files_in_it_stay() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let elsewhere = home.root().join("elsewhere");
    fs::create_dir_all(&elsewhere).unwrap();
    fs::write(elsewhere.join("mine"), "kept").unwrap();
    fs::create_dir_all(home.path()).unwrap();
    symlink(&elsewhere, home.bin()).unwrap();
    install(&home, server.base()).run().success();
    assert_eq!(home.bin_names(), ["mine", "temporal", "temporal.receipt"]);
    assert_eq!(fs::read_to_string(elsewhere.join("mine")).unwrap(), "kept");
    assert_eq!(fs::read(elsewhere.join("temporal")).unwrap(), stand_in_bytes());
}

#[test]
fn a_damaged_receipt_is_made_anew_with_its_executable() {
    let server = ReleaseServer::with_release(VERSION, small_release());
    let large = "x".repeat(4 << 20);
    for content in ["", "nonsense", "version=9.9.9\n", "version=../../etc\nsize=1\n", &large] {
        let home = Home::new();
        install(&home, server.base()).run().success();
        fs::write(home.receipt(), content).unwrap();
        install(&home, server.base()).run().success().stderr_has("[!]");
        assert_installed(&home, stand_in_bytes());
    }
    let home = Home::new();
    install(&home, server.base()).run().success();
    fs::remove_file(home.receipt()).unwrap();
    fs::create_dir(home.receipt()).unwrap();
    install(&home, server.base()).run().fails_with(&["temporal"]);
    home.assert_quiet();
}

#[test]
fn a_later_start_makes_no_request() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    install(&home, server.base()).run().success();
    let connections = server.connections();
    let again = install(&home, server.base()).run();
    again.success().stderr_lacks("Downloading").stderr_lacks("not found");
    assert_eq!(server.connections(), connections);
    let base = server.base();
    drop(server);
    install(&home, base).run().success();
}

#[test]
fn versions_with_and_without_v_are_the_same() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    install(&home, server.base()).run().success();
    let connections = server.connections();
    home.stigmer(["local", "run"]).with_mirror("v9.9.9", server.base()).args(["--", "true"]).run().success();
    assert_eq!(server.connections(), connections);
}

#[test]
fn the_pinned_version_accepts_nothing_but_itself() {
    // A well-made release, with checksums to match, that is not the real one.
    let home = Home::new();
    let server = ReleaseServer::with_release(PINNED_VERSION, small_release());
    let outcome = home.stigmer(["local", "run", "--mirror", &server.base(), "--", "true"]).run();
    let url = server.url(&asset_path(PINNED_VERSION));
    outcome.fails_with(&[&url, &sha256(small_release()), &sha256(stand_in_bytes()), "expected", "hint: "]);
    let fact = |name| pinned::fact(&format!("{}/{name}", platform().replace('_', "/")));
    outcome.stderr_has(fact("executable").unwrap());
    outcome.stderr_has(fact("archive").unwrap_or_default());
    assert!(home.bin_names().is_empty(), "{:?}", home.bin_names());
    assert!(home.starts().is_empty(), "it was run");
}

#[test]
fn a_mismatch_leaves_what_was_installed_in_place_and_working() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    install(&home, server.base()).run().success();
    server.publish("9.9.8", small_release());
    server.put(&asset_path("9.9.8"), File::new(release(&executable(1000, 1))));
    let outcome = home.stigmer(["local", "run"]).with_mirror("9.9.8", server.base()).args(["--", "true"]).run();
    outcome.fails_with(&[&server.url(&asset_path("9.9.8")), &sha256(small_release()), "hint: "]);
    assert_installed(&home, stand_in_bytes());
    install(&home, server.base()).run().success();
}

#[test]
fn another_version_replaces_the_installed_one() {
    let home = Home::new();
    let newer = executable(5000, 2);
    let server = ReleaseServer::with_release(VERSION, small_release());
    server.publish("10.0.0-rc.1", &release(&newer));
    install(&home, server.base()).run().success();
    let other = || home.stigmer(["local", "run"]).with_mirror("10.0.0-rc.1", server.base()).args(["--", "true"]);
    other().run().success().stderr_has("Downloading Temporal CLI v10.0.0-rc.1");
    assert_installed(&home, &newer);
    assert_eq!(home.receipt_field("version").unwrap(), "10.0.0-rc.1");
}

#[test]
fn a_running_server_is_not_touched_by_a_start_with_another_version() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    server.publish("9.9.8", &release(&executable(5000, 3)));
    let start = |version| home.stigmer(["local", "start", "--detach"]).with_mirror(version, server.base());
    start(VERSION).run().success();
    start("9.9.8").run().fails_with(&["--temporal-version 9.9.8", "is version 9.9.9"]);
    assert_eq!(home.starts().len(), 1);
    assert_installed(&home, stand_in_bytes());
    home.stigmer(["local", "stop"]).run().success();
    start("9.9.8").run().success();
    assert_eq!(home.receipt_field("version").unwrap(), "9.9.8");
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
}

#[test]
fn an_installed_version_is_used_when_the_default_one_cannot_be_fetched() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    install(&home, server.base()).run().success();
    // Nothing there, and then something that is not to be trusted.
    for publish in [false, true] {
        if publish {
            server.publish(PINNED_VERSION, small_release());
        }
        let outcome = home.stigmer(["local", "run", "--mirror", &server.base(), "--", "true"]).run();
        outcome.success().stderr_has("[!]").stderr_has(&format!("using Temporal {VERSION}"));
        assert_installed(&home, stand_in_bytes());
    }
    // Asked for by name, it is that one or none.
    for (name, value) in [("STIGMER_TEMPORAL_VERSION", PINNED_VERSION), ("STIGMER_TEMPORAL_VERSION", "9.9.7")] {
        let stigmer = home.stigmer(["local", "run", "--mirror", &server.base(), "--", "true"]);
        stigmer.env(name, value).run().fails_with(&[value]);
    }
}

#[test]
fn an_executable_that_differs_from_its_receipt_is_installed_anew() {
    let server = ReleaseServer::with_release(VERSION, small_release());
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("shortened", |path| {
            let file = fs::File::options().write(true).open(path).unwrap();
            file.set_len(1000).unwrap();
        }),
        ("lengthened", |path| fs::write(path, [stand_in_bytes(), b"more"].concat()).unwrap()),
        ("emptied", |path| fs::write(path, b"").unwrap()),
    ];
    for (what, damage) in damages {
        let home = Home::new();
        install(&home, server.base()).run().success();
        damage(&home.temporal());
        let outcome = install(&home, server.base()).run();
        assert!(outcome.code() == 0 && outcome.stderr.contains("[!]"), "{what}\n{}", outcome.describe());
        assert_installed(&home, stand_in_bytes());
    }
}

#[test]
fn an_executable_without_a_receipt_is_the_users_and_used_as_it_is() {
    let home = Home::new().with_stand_in();
    let server = ReleaseServer::start();
    home.stigmer(["local", "run", "--mirror", &server.base(), "--", "true"]).run().success();
    // It says so when a version was asked for, because it cannot be promised.
    install(&home, server.base()).run().success().stderr_has("[!]").stderr_has("--temporal-version");
    assert_eq!(server.connections(), 0);
    assert_eq!(home.bin_names(), ["temporal"]);
}

#[test]
fn an_executable_for_another_machine_or_without_permission_is_reported_as_such() {
    let home = Home::new().with_stand_in();
    let run = || home.stigmer(["local", "run", "--", "true"]).run();
    fs::set_permissions(home.temporal(), fs::Permissions::from_mode(0o644)).unwrap();
    run().fails_with(&["not executable", "hint: chmod +x"]);
    fs::set_permissions(home.temporal(), fs::Permissions::from_mode(0o755)).unwrap();
    // ELF with the machine number of SPARC.
    let mut foreign = stand_in_bytes().to_vec();
    foreign[18..20].copy_from_slice(&2u16.to_le_bytes());
    fs::write(home.temporal(), foreign).unwrap();
    run().fails_with(&["built for", "hint: "]);
    fs::write(home.temporal(), "this is no program\n").unwrap();
    run().fails_with(&["temporal"]);
    assert!(home.starts().is_empty());
    home.assert_quiet();
}

#[test]
fn a_given_executable_is_used_and_nothing_is_downloaded() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let temporal = stand_in().to_str().unwrap();
    let run = |path: &str| {
        home.stigmer(["local", "run", "--temporal-bin", path, "--mirror", &server.base(), "--", "true"]).run()
    };
    run(temporal).success();
    assert_eq!((server.connections(), home.starts().len(), home.bin_names().len()), (0, 1, 0));
    run("/no/such/temporal").fails_with(&["/no/such/temporal", "--temporal-bin", "no such file"]);
    run(home.root().to_str().unwrap()).fails_with(&["--temporal-bin"]);
    let variable = home.stigmer(["local", "run", "--", "true"]).env("STIGMER_TEMPORAL_BIN", "/no/such/temporal");
    variable.run().fails_with(&["/no/such/temporal", "STIGMER_TEMPORAL_BIN"]);
    assert_eq!(server.connections(), 0);
}

#[test]
fn offline_means_no_request_at_all() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    install(&home, server.base()).env("STIGMER_OFFLINE", "1").run().fails_with(&[
        "offline",
        "STIGMER_OFFLINE",
        "not installed",
        "hint: ",
    ]);
    let offline =
        || home.stigmer(["local", "run", "--offline"]).with_mirror(VERSION, server.base()).args(["--", "true"]);
    offline().run().fails_with(&["offline", "--offline", "hint: "]);
    assert_eq!(server.connections(), 0);
    install(&home, server.base()).run().success();
    let connections = server.connections();
    offline().run().success();
    // Nor by the browser that shows the Web UI.
    let told: Vec<_> = home.starts().iter().map(|(_, words)| words.contains("--ui-disable-news-fetch")).collect();
    assert_eq!(told, [false, true]);
    // The default version is not there, but the installed one may be used.
    let outcome = home.stigmer(["local", "run", "--offline", "--", "true"]).run();
    outcome.success().stderr_has("[!]").stderr_has(&format!("using Temporal {VERSION}"));
    assert_eq!(server.connections(), connections);
}

#[test]
fn a_directory_is_a_mirror_too() {
    let home = Home::new();
    let mirror = home.root().join("my mirror");
    let outcome = install(&home, &mirror).run();
    outcome.fails_with(&[mirror.to_str().unwrap(), VERSION, "is not a directory", "hint: ", "https://"]);
    fs::create_dir_all(mirror.join("v9.9.9")).unwrap();
    fs::write(mirror.join("v9.9.9").join(asset_name(VERSION)), small_release()).unwrap();
    install(&home, &mirror).run().fails_with(&["checksums.txt"]);
    fs::write(mirror.join("v9.9.9/checksums.txt"), checksums(VERSION, small_release())).unwrap();
    // The mirror is local: being offline does not matter, nor what is wrong with the network's settings.
    let absent = home.root().join("absent.pem");
    let outcome = install(&home, "my mirror").env("STIGMER_OFFLINE", "1").env("SSL_CERT_FILE", absent).run();
    outcome.success().stderr_has("Unpacking Temporal CLI").stderr_lacks("Downloading");
    assert_installed(&home, stand_in_bytes());
    let archive = mirror.join("v9.9.9").join(asset_name(VERSION));
    assert_eq!(home.receipt_field("source").unwrap(), archive.to_str().unwrap());
    let other = Home::new();
    let url = format!("file://{}", mirror.display().to_string().replace("my mirror", "mirror"));
    fs::rename(&mirror, home.root().join("mirror")).unwrap();
    install(&other, url).run().success();
}

#[test]
fn the_mirror_and_the_version_may_come_from_the_environment() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let stigmer = home.stigmer(["local", "run", "--", "true"]);
    let stigmer = stigmer.env("STIGMER_TEMPORAL_MIRROR", server.base()).env("STIGMER_TEMPORAL_VERSION", "v9.9.9");
    stigmer.run().success();
    assert_installed(&home, stand_in_bytes());
}

#[test]
fn leftovers_of_a_killed_run_are_removed() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    fs::create_dir_all(home.bin()).unwrap();
    for name in [".temporal.partial", ".temporal.receipt.next"] {
        fs::write(home.bin().join(name), "half a file").unwrap();
    }
    install(&home, server.base()).run().success();
    assert_installed(&home, stand_in_bytes());
}

#[test]
fn a_planted_link_is_replaced_and_never_followed() {
    let server = ReleaseServer::with_release(VERSION, small_release());
    for name in [".temporal.partial", ".temporal.receipt.next", "temporal.receipt"] {
        let home = Home::new();
        let victim = home.root().join("victim");
        fs::write(&victim, "precious").unwrap();
        fs::create_dir_all(home.bin()).unwrap();
        symlink(&victim, home.bin().join(name)).unwrap();
        install(&home, server.base()).run().success();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious", "{name}");
        assert_installed(&home, stand_in_bytes());
    }
}

#[test]
fn an_interrupted_download_leaves_nothing_behind_but_what_came() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let home = Home::new();
        let server = ReleaseServer::with_release(VERSION, small_release());
        let gate = Gate::new();
        server.script(&asset_path(VERSION), [Reply::Cut(100_000, Cut::Hold(gate.clone()))]);
        let start = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base()).spawn();
        gate.wait_until_reached();
        // It exists, but nothing unverified is executable.
        let partial = fs::metadata(home.bin().join(".temporal.partial")).unwrap();
        assert_eq!(partial.mode() & 0o777, 0o600);
        home.wait_for("what was sent", || home.kept_bytes() == 100_000);
        start.signal(signal);
        let outcome = start.wait();
        assert_ne!(outcome.code(), 101, "{}", outcome.describe());
        assert_eq!(home.bin_names(), [".temporal.download"], "signal {signal}");
        assert_eq!(fs::metadata(home.kept()).unwrap().mode() & 0o777, 0o600);
        home.assert_quiet();
        gate.open();
    }
}

#[test]
fn something_else_in_the_place_of_a_directory_is_reported() {
    let server = ReleaseServer::with_release(VERSION, small_release());
    for name in ["", "bin", "data", "logs", "run"] {
        let home = Home::new();
        let path = home.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(home.path().join(name).to_str().unwrap().trim_end_matches('/'), "a file").unwrap();
        let shown = path.to_str().unwrap().trim_end_matches('/').to_owned();
        install(&home, server.base()).run().fails_with(&[&shown, "hint: "]);
        home.assert_quiet();
    }
    // A directory where the executable belongs, before the first and after it.
    let home = Home::new();
    for _ in 0..2 {
        fs::create_dir_all(home.temporal()).unwrap();
        let asked = server.connections();
        install(&home, server.base()).run().fails_with(&["install Temporal to", "bin/temporal: is a directory"]);
        assert_eq!(server.connections(), asked);
        fs::remove_dir(home.temporal()).unwrap();
        install(&home, server.base()).run().success();
        assert_eq!(home.bin_names(), ["temporal", "temporal.receipt"]);
        fs::remove_file(home.temporal()).unwrap();
    }
}

#[test]
fn a_home_that_cannot_be_written_to_fails_before_anything_is_downloaded() {
    for locked in ["user", "user/.stigmer/bin"] {
        let home = Home::new();
        let server = ReleaseServer::with_release(VERSION, small_release());
        let path = home.root().join(locked);
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o555)).unwrap();
        let stigmer = home.stigmer_without_privileges(["local", "run"]).with_mirror(VERSION, server.base());
        let outcome = stigmer.args(["--", "true"]).run();
        outcome.fails_with(&["permission denied", "hint: ", "STIGMER_HOME"]);
        assert_eq!(server.connections(), 0, "{}", outcome.describe());
    }
}

#[test]
fn a_full_disk_is_reported_and_leaves_no_file() {
    let Some(disk) = SmallDisk::mount(4 << 20) else {
        return skip("this user cannot mount a small disk");
    };
    // Its size, as the archive gives it, does not fit.
    let home = Home::below(&disk.path);
    let large = ReleaseServer::with_release(VERSION, &release(&executable(8 << 20, 4)));
    install(&home, large.base()).run().fails_with(&["MB", "free", "hint: ", "STIGMER_HOME"]);
    assert!(home.bin_names().is_empty(), "{:?}", home.bin_names());
    // It would fit, but somebody else fills the disk first.
    let gate = Gate::new();
    let fitting = ReleaseServer::with_release(VERSION, &release(&executable(1 << 20, 5)));
    fitting.script(&asset_path(VERSION), [Reply::Cut(700_000, Cut::Hold(gate.clone()))]);
    let running = install(&home, fitting.base()).spawn();
    gate.wait_until_reached();
    let partial = home.bin().join(".temporal.partial");
    home.wait_for("the first bytes on the disk", || fs::metadata(&partial).is_ok_and(|file| file.len() > 0));
    let filler = disk.fill();
    gate.open();
    running.wait().fails_with(&["no space left", "hint: ", "STIGMER_HOME"]);
    assert!(home.bin_names().is_empty(), "{:?}", home.bin_names());
    // With room again, it installs on a file system of its own.
    fs::remove_file(filler).unwrap();
    install(&home, fitting.base()).run().success();
    home.assert_quiet();
}

/// A small file system in memory; only root can mount one.
pub struct SmallDisk {
    pub path: std::path::PathBuf,
}

impl SmallDisk {
    pub fn mount(bytes: u64) -> Option<SmallDisk> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("stigmer-test-disk-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        let options = format!("size={bytes},mode=0755");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&path).output();
        if mount.is_ok_and(|output| output.status.success()) {
            return Some(SmallDisk { path });
        }
        let _ = fs::remove_dir(&path);
        None
    }

    /// Fills the rest of it.
    fn fill(&self) -> std::path::PathBuf {
        use std::io::Write;
        let path = self.path.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
        let _ = fs::remove_dir(&self.path);
    }
}

#[test]
fn twenty_first_starts_at_once_download_once() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let start = || home.stigmer(["local", "start", "--detach"]).with_mirror(VERSION, server.base()).spawn();
    let starts: Vec<_> = (0..20).map(|_| start()).collect();
    for start in starts {
        start.wait().success().stdout_has("UI available at");
    }
    assert_eq!(server.requests_for(&asset_path(VERSION)).len(), 1);
    assert_eq!(home.starts().len(), 1, "{}", home.describe());
    home.stigmer(["local", "stop"]).run().success();
    home.assert_quiet();
}

#[test]
fn twenty_first_runs_at_once_download_once_and_the_last_one_stops_temporal() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let runs: Vec<_> = (0..20).map(|_| install(&home, server.base()).spawn()).collect();
    for run in runs {
        run.wait().success();
    }
    assert_eq!(server.requests_for(&asset_path(VERSION)).len(), 1);
    assert_eq!(home.starts().len(), home.stops().len(), "{}", home.describe());
    home.assert_quiet();
}

#[test]
fn a_waiting_start_says_who_installs_and_takes_over_when_that_one_is_killed() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let gate = Gate::new();
    server.script(&asset_path(VERSION), [Reply::Cut(100_000, Cut::Hold(gate.clone()))]);
    let start = || home.stigmer(["local", "start"]).with_mirror(VERSION, server.base()).spawn();
    let first = start();
    gate.wait_until_reached();
    let mut second = start();
    second.wait_for_stdout(&first.id().to_string());
    assert_eq!(server.requests_for(&asset_path(VERSION)).len(), 1);
    first.signal(libc::SIGKILL);
    first.wait().exits_with(128 + libc::SIGKILL);
    second.wait_for_stdout("Ready.");
    assert_installed(&home, stand_in_bytes());
    second.signal(libc::SIGTERM);
    second.wait().success();
    gate.open();
}

#[test]
fn a_waiting_start_goes_on_when_the_install_is_done() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    let gate = Gate::new();
    server.script(&asset_path(VERSION), [Reply::Cut(100_000, Cut::Hold(gate.clone()))]);
    let start = || home.stigmer(["local", "start", "--detach"]).with_mirror(VERSION, server.base()).spawn();
    let first = start();
    gate.wait_until_reached();
    let second = start();
    gate.open();
    first.wait().success();
    second.wait().success();
    assert_eq!(server.requests_for(&asset_path(VERSION)).len(), 1);
    home.stigmer(["local", "stop"]).run().success();
}

/// The installing process is killed when the server has given so many bytes;
/// the points are spread over the whole archive.
#[test]
fn a_kill_at_any_of_200_points_of_the_download_is_survived() {
    let content = executable(300 << 10, 6);
    let archive = release(&content);
    let old = release(stand_in_bytes());
    let points = (0..200u64).map(|point| (point, archive.len() as u64 * point / 199));
    in_parallel(6, points.collect::<Vec<_>>(), |(point, bytes)| {
        let home = Home::new();
        let server = ReleaseServer::with_release(VERSION, &archive);
        // Half of them have another version installed, which must stay.
        let upgrades = point % 2 == 1;
        if upgrades {
            server.publish("9.9.8", &old);
            let earlier = home.stigmer(["local", "run"]).with_mirror("9.9.8", server.base()).args(["--", "true"]);
            earlier.run().success();
        }
        let gate = Gate::new();
        server.script(&asset_path(VERSION), [Reply::Cut(bytes, Cut::Hold(gate.clone()))]);
        let start = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base()).spawn();
        gate.wait_until_reached();
        start.signal(libc::SIGKILL);
        drop(start.wait());
        gate.open();
        match fs::read(home.temporal()) {
            Ok(bytes) if bytes == content => {}
            Ok(bytes) if upgrades => assert!(bytes == stand_in_bytes(), "point {point}: other bytes"),
            Ok(_) => panic!("point {point}: a file that nobody verified\n{}", home.describe()),
            Err(_) => assert!(!upgrades, "point {point}: the old version is gone"),
        }
        install(&home, server.base()).run().success();
        assert_installed(&home, &content);
        home.assert_quiet();
    });
}

/// The same before every system call that changes something, the two renames
/// at the end included; first on an empty home, then with an older version.
#[cfg(target_os = "linux")]
#[test]
fn a_kill_before_any_change_of_the_disk_is_survived() {
    let content = executable(300 << 10, 7);
    let server = ReleaseServer::with_release(VERSION, &release(&content));
    server.publish("9.9.8", small_release());
    let (server, content) = (&server, &content);
    let run = |home: &Home, version| {
        home.stigmer(["local", "run"]).with_mirror(version, server.base()).args(["--", "true"]).run().success();
    };
    let killed = |home: &Home, upgrades: bool, change| {
        if upgrades {
            run(home, "9.9.8");
        }
        let start = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base());
        trace::kill_at_change(start.into_command(), change)
    };
    let mut points = Vec::new();
    for upgrades in [false, true] {
        let changes = match killed(&Home::new(), upgrades, usize::MAX) {
            Ok(changes) => changes,
            Err(error) => return skip(&format!("this process may not trace another: {error}")),
        };
        // Two files are made, written, synced and renamed.
        assert!((8..300).contains(&changes), "{changes} changes");
        points.extend((0..=changes).map(|change| (upgrades, change)));
    }
    eprintln!("{} points", points.len());
    in_parallel(4, points, |(upgrades, change)| {
        let home = Home::new();
        // A start makes a few changes more or less than the one that was counted.
        assert!(killed(&home, upgrades, change).unwrap() <= change);
        match fs::read(home.temporal()) {
            Ok(bytes) => assert!(bytes == *content || upgrades && bytes == stand_in_bytes(), "{change}: other bytes"),
            Err(_) => assert!(!upgrades, "change {change}: the old version is gone"),
        }
        if upgrades {
            // One or the other version is whole and usable without a network.
            home.stigmer(["local", "run", "--offline", "--", "true"]).run().success();
        }
        run(&home, VERSION);
        assert_installed(&home, content);
        assert_eq!(home.receipt_field("version").as_deref(), Some(VERSION), "change {change}");
    });
}

#[test]
fn a_home_copied_elsewhere_works_without_a_download() {
    let home = Home::new();
    let server = ReleaseServer::with_release(VERSION, small_release());
    install(&home, server.base()).run().success();
    let copy = Home::new();
    let status = Command::new("cp").arg("-R").arg(home.path()).arg(copy.path()).status().unwrap();
    assert!(status.success());
    let connections = server.connections();
    install(&copy, server.base()).run().success();
    assert_eq!(server.connections(), connections);
}

/// Entries that an archive has no reason to hold.
fn hostile_entries() -> Vec<(&'static str, Vec<u8>)> {
    let good = stand_in_bytes();
    let archive = || Archive::new().file("temporal", good);
    let gnu_sparse = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.name", "temporal")];
    vec![
        ("path traversal", archive().file("../temporal", b"x").gzip()),
        ("path traversal inside", archive().file("a/../../b", b"x").gzip()),
        ("absolute name", archive().file("/tmp/temporal", b"x").gzip()),
        ("symlink", Archive::new().symlink("temporal", "/bin/sh").gzip()),
        ("hard link", Archive::new().hard_link("temporal", "/bin/sh").gzip()),
        ("symlink, then the file", Archive::new().symlink("temporal", "/tmp/x").file("temporal", good).gzip()),
        ("directory", Archive::new().directory("temporal").gzip()),
        ("directory with a slash", Archive::new().directory("temporal/").gzip()),
        ("two entries", archive().file("temporal", b"x").gzip()),
        ("two entries, other spelling", archive().file("./temporal", b"x").gzip()),
        ("empty executable", Archive::new().file("temporal", b"").gzip()),
        ("no entry", Archive::new().file("LICENSE", b"x").gzip()),
        ("only below", Archive::new().file("bin/temporal", good).gzip()),
        ("empty archive", Archive::new().gzip()),
        ("fifo", Archive::new().entry("temporal", EntryType::Fifo, "", b"").gzip()),
        ("device", Archive::new().entry("temporal", EntryType::Block, "", b"").gzip()),
        ("sparse", Archive::new().entry("temporal", EntryType::GNUSparse, "", good).gzip()),
        ("sparse by pax", Archive::new().pax(&gnu_sparse).file("x", good).gzip()),
        ("name by pax", Archive::new().pax(&[("path", "temporal")]).file("x", good).gzip()),
        ("size by pax", Archive::new().pax(&[("size", "1")]).file("temporal", good).gzip()),
        ("long name", Archive::new().entry("x", EntryType::GNULongName, "", b"temporal\0").file("y", good).gzip()),
        ("size beyond the archive", Archive::new().file_of_size(good.len() as u64 * 2, "temporal", good).gzip()),
        ("size beyond all limits", Archive::new().file_of_size(2 << 30, "temporal", b"x").gzip()),
    ]
}

/// What is not a whole archive, or is more than one.
fn damaged_archives() -> Vec<(&'static str, Vec<u8>)> {
    let whole = release(stand_in_bytes());
    let mut corrupt = whole.clone();
    let middle = corrupt.len() / 2;
    corrupt[middle] ^= 0x55;
    vec![
        ("truncated", whole[..whole.len() - 100].to_vec()),
        ("truncated within the trailer", whole[..whole.len() - 1].to_vec()),
        ("truncated to the magic", whole[..2].to_vec()),
        ("garbage behind", [&whole[..], b"garbage"].concat()),
        ("zeros behind", [&whole[..], &[0; 512]].concat()),
        ("a second archive behind", [&whole[..], &whole[..]].concat()),
        ("damaged in the middle", corrupt),
        ("a web page", b"<!DOCTYPE html><html><title>Please log in</title></html>\n".to_vec()),
        ("empty", Vec::new()),
        ("tar without gzip", Archive::new().file("temporal", stand_in_bytes()).tar()),
    ]
}

#[test]
fn hostile_archives_are_refused_and_nothing_gets_its_final_name() {
    let server = ReleaseServer::start();
    let cases: Vec<_> = hostile_entries().into_iter().chain(damaged_archives()).enumerate().collect();
    let server = &server;
    in_parallel(2, cases, move |(number, (what, bytes))| {
        let home = Home::new();
        // Its digest is the published one: only what is inside is wrong.
        let version = format!("9.1.{number}");
        server.publish(&version, &bytes);
        let outcome = home.stigmer(["local", "run"]).with_mirror(&version, server.base()).args(["--", "true"]).run();
        eprintln!("{what:32} {}", outcome.error().replace(&server.base(), "BASE"));
        let url = server.url(&asset_path(&version));
        outcome.fails_with(&[&url, "hint: "]);
        assert!(home.bin_names().is_empty(), "{what}: {:?}", home.bin_names());
        assert!(home.starts().is_empty(), "{what}: it was run");
    });
}

#[test]
fn a_gzip_bomb_is_refused_before_it_fills_the_disk() {
    // The pinned version has a size of its own, so a smaller bomb does.
    let home = Home::new();
    let server = ReleaseServer::with_release(PINNED_VERSION, &archive::bomb(200 << 20));
    let outcome = home.stigmer(["local", "run", "--mirror", &server.base(), "--", "true"]).run();
    outcome.fails_with(&["cannot unpack", "more than any release", "hint: "]);
    assert!(home.bin_names().is_empty());
}

#[cfg(target_os = "linux")]
#[test]
fn memory_does_not_grow_with_the_archive() {
    let home = Home::new();
    let large = [stand_in_bytes(), &vec![0; 100 << 20]].concat();
    let server = ReleaseServer::with_release(VERSION, &release(&large));
    let mut start = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base()).spawn();
    start.wait_for_stdout("Ready.");
    let status = fs::read_to_string(format!("/proc/{}/status", start.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    // A debug build takes more than the 12 MB of a release build.
    assert!(peak.parse::<u64>().unwrap() < 24 << 10, "{peak} kB");
    start.signal(libc::SIGTERM);
    start.wait().success();
}

#[test]
fn a_digest_that_is_not_known_is_refused() {
    let digest = sha256(small_release());
    let name = asset_name(VERSION);
    for (what, text) in [
        ("no file", None),
        ("empty", Some(String::new())),
        ("other assets only", Some(format!("{digest}  other.tar.gz\n"))),
        ("a longer name", Some(format!("{digest}  {name}.sig\n"))),
        ("too short", Some(format!("{}  {name}\n", &digest[1..]))),
        ("two that differ", Some(format!("{digest}  {name}\n{}  {name}\n", "0".repeat(64)))),
        ("no text", Some("\u{0}\u{1}".repeat(1000))),
        ("a web page", Some("<!DOCTYPE html><html></html>".into())),
        ("beyond all measure", Some("x".repeat(3 << 20))),
    ] {
        let home = Home::new();
        let server = ReleaseServer::start();
        server.put(&asset_path(VERSION), File::new(small_release()));
        if let Some(text) = text {
            server.put(&checksums_path(VERSION), File::new(text));
        }
        let outcome = install(&home, server.base()).run();
        outcome.fails_with(&["checksums.txt", "hint: "]);
        assert!(home.bin_names().is_empty(), "{what}: {:?}", home.bin_names());
    }
}

#[test]
fn checksums_are_read_in_every_usual_form() {
    let digest = sha256(small_release());
    let name = asset_name(VERSION);
    for text in [
        format!("{digest}  {name}"),
        format!("{digest} *{name}\n"),
        format!("{}\t{name}\r\n", digest.to_uppercase()),
        format!("# comment\n\n{digest}  {name}\n{digest}  {name}\n"),
    ] {
        let home = Home::new();
        let server = ReleaseServer::with_release(VERSION, small_release());
        server.put(&checksums_path(VERSION), File::new(text));
        install(&home, server.base()).run().success();
    }
}

#[test]
fn a_failed_install_starts_nothing_and_asks_for_the_checksums_first() {
    let home = Home::new();
    let server = ReleaseServer::start();
    install(&home, server.base()).run().fails_with(&[VERSION]);
    wait_for_requests(&server, &checksums_path(VERSION), 1);
    assert_eq!(server.requests_for(&asset_path(VERSION)).len(), 0);
    home.assert_quiet();
}
