//! `install.sh`, in every shell and with everything that downloads, against a
//! loopback server on which releases lie as they are published.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use crate::install::SmallDisk;
use crate::support::archive::noise;
use crate::support::home::NOBODY;
use crate::support::process::{Outcome, is_root};
use crate::support::*;

const INSTALLED: [(&str, u32); 5] = [
    ("bin/stigmer", 0o755),
    ("share/bash-completion/completions/stigmer", 0o644),
    ("share/fish/vendor_completions.d/stigmer.fish", 0o644),
    ("share/man/man1/stigmer.1", 0o644),
    ("share/zsh/site-functions/_stigmer", 0o644),
];

/// What the script may call, but for curl and wget.
const TOOLS: [&str; 20] = [
    "cat",
    "chmod",
    "cp",
    "cut",
    "dash",
    "gzip",
    "head",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "rmdir",
    "sed",
    "sh",
    "sha256sum",
    "sleep",
    "tail",
    "tar",
    "timeout",
    "uname",
];

/// A shell, and the programs that it finds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum World {
    BashCurl,
    DashCurl,
    DashWget,
    /// Nothing but busybox, as in Alpine.
    Busybox,
}

impl World {
    /// Those that this machine has.
    fn all() -> Vec<World> {
        let shell = |name| has(name, &["-c", "true"]);
        let worlds = [
            (World::DashCurl, shell("dash") && has("curl", &["--version"])),
            (World::BashCurl, shell("bash") && has("curl", &["--version"])),
            (World::DashWget, shell("dash") && has("wget", &["--version"])),
            (World::Busybox, has("busybox", &["true"])),
        ];
        for (world, _) in worlds.iter().filter(|(_, is_there)| !is_there) {
            skip(&format!("a shell or a downloader of {world:?} is missing"));
        }
        worlds.into_iter().filter(|(_, is_there)| *is_there).map(|(world, _)| world).collect()
    }

    fn shell(self) -> &'static str {
        match self {
            World::BashCurl => "bash",
            World::DashCurl | World::DashWget => "dash",
            World::Busybox => "sh",
        }
    }

    /// A directory with the programs of this world.
    fn programs(self, home: &Home) -> PathBuf {
        let directory = home.root().join(format!("{self:?}"));
        if directory.exists() {
            return directory;
        }
        fs::create_dir(&directory).unwrap();
        let link = |name: &str, to: PathBuf| symlink(to, directory.join(name)).unwrap();
        match self {
            World::Busybox => {
                let applets = std::process::Command::new("busybox").arg("--list").output().unwrap().stdout;
                for name in String::from_utf8(applets).unwrap().lines() {
                    link(name, which("busybox"));
                }
            }
            World::BashCurl | World::DashCurl | World::DashWget => {
                let more: &[&str] = if matches!(self, World::DashWget) { &["wget"] } else { &["curl", "bash"] };
                TOOLS.iter().chain(more).for_each(|name| link(name, which(name)));
            }
        }
        directory
    }
}

fn which(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not on the PATH"))
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".packaging/install.sh")
}

/// A user of `install.sh`: a home, a world, and a place to install to.
struct Desk {
    home: Home,
    world: World,
    prefix: PathBuf,
}

impl Desk {
    fn new(world: World) -> Desk {
        let home = Home::new();
        let prefix = home.root().join("user/.local");
        Desk { home, world, prefix }
    }

    fn script(&self, arguments: &[&str]) -> Stigmer<'_> {
        self.shell(&script(), arguments)
    }

    fn shell(&self, script: &Path, arguments: &[&str]) -> Stigmer<'_> {
        let programs = self.world.programs(&self.home);
        let temporary = self.home.root().join("temporary");
        fs::create_dir_all(&temporary).unwrap();
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o777)).unwrap();
        let shell = programs.join(self.world.shell());
        let stigmer = Stigmer::of_program(&self.home, shell.as_os_str(), [script]).args(arguments);
        stigmer.env("PATH", &programs).env("TMPDIR", temporary)
    }

    fn from(&self, server: &ReleaseServer) -> Stigmer<'_> {
        self.script(&[]).env("STIGMER_DOWNLOAD_URL", server.base())
    }

    /// Nothing of a run that failed is left, and what was there before is as it was.
    #[track_caller]
    fn assert_untouched(&self, outcome: &Outcome<'_>, before: &[String]) {
        assert_eq!(files(&self.prefix), before, "{}", outcome.describe());
        assert_eq!(files(&self.home.root().join("temporary")), [""; 0], "{}", outcome.describe());
    }
}

/// Every file below a directory, with its length.
fn files(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(format!("{} {}", entry.path().display(), entry.metadata().unwrap().len())),
        }
    }
    found.sort();
    found
}

fn target() -> String {
    let system = if cfg!(target_os = "macos") { "apple-darwin" } else { "unknown-linux-musl" };
    format!("{}-{system}", std::env::consts::ARCH)
}

fn archive_name(version: &str) -> String {
    format!("stigmer-{version}-{}.tar.gz", target())
}

/// Something that says its version, and that it does not run.
fn program(version: &str) -> Vec<u8> {
    format!("#!/bin/sh\n[ \"$1\" = --version ] || exit 3\necho stigmer {version}\n").into_bytes()
}

fn archive(version: &str, program: &[u8]) -> Vec<u8> {
    let name = |rest: &str| format!("stigmer-{version}/{rest}");
    Archive::new()
        .file(&name("stigmer"), program)
        .file(&name("completions/stigmer.bash"), b"bash\n")
        .file(&name("completions/_stigmer"), b"zsh\n")
        .file(&name("completions/stigmer.fish"), b"fish\n")
        .file(&name("stigmer.1"), b"page\n")
        .gzip()
}

fn sums(version: &str, archive: &[u8]) -> String {
    let other = "0123456789abcdef".repeat(4);
    let name = archive_name(version);
    format!(
        "{other}  install.sh\n{other}  stigmer-{version}-riscv64.tar.gz\n{}  {name}\n{other}  x.deb\n",
        sha256(archive)
    )
}

/// A server that has `archive` as a release, at its root.
fn released(version: &str, archive: &[u8]) -> ReleaseServer {
    let server = ReleaseServer::start();
    server.put("/SHA256SUMS", File::new(sums(version, archive)));
    server.put(&format!("/{}", archive_name(version)), File::new(archive));
    server
}

#[test]
fn it_installs_what_is_verified_twice_the_same_and_removes_exactly_that() {
    let server = released("9.9.9", &archive("9.9.9", &program("9.9.9")));
    for world in World::all() {
        let desk = Desk::new(world);
        let bin = desk.prefix.join("bin");
        for _ in 0..2 {
            let outcome = desk.from(&server).run();
            outcome.success().stdout_has(&format!("[✓] stigmer 9.9.9 installed to {}/stigmer\n", bin.display()));
            outcome.stdout_has(&format!("    export PATH=\"{}:$PATH\"\n", bin.display()));
            assert_eq!(outcome.stderr, "", "{}", outcome.describe());
            let installed = INSTALLED.map(|(name, mode)| (desk.prefix.join(name), mode));
            for (path, mode) in &installed {
                let metadata = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                assert_eq!(metadata.mode() & 0o7777, *mode, "{}", path.display());
            }
            assert_eq!(files(&desk.prefix).len(), installed.len(), "{:?}", files(&desk.prefix));
        }
        let own = desk.prefix.join("share/man/man1/other.1");
        fs::write(&own, "mine").unwrap();
        desk.script(&["--uninstall"]).run().success().stdout_has("[✓] stigmer removed from ");
        assert_eq!(files(&desk.prefix), [format!("{} 4", own.display())]);
        assert!(!bin.exists(), "an empty directory is left");
        desk.script(&["--uninstall"]).run().success().stdout_has("Nothing of stigmer is in ");
        assert_eq!(files(&desk.home.root().join("temporary")), [""; 0]);
    }
}

/// What is wrong with a server, and the words of the error.
type Fault<'a> = (&'a str, &'a dyn Fn(&ReleaseServer), &'a [&'a str]);

#[test]
fn what_is_not_verified_or_not_whole_is_not_installed() {
    let good = archive("9.9.9", &program("9.9.9"));
    let path = format!("/{}", archive_name("9.9.9"));
    let cut = |server: &ReleaseServer, file: File| {
        server.put(&path, file.without_ranges());
        server.always(&path, Reply::Cut(200, Cut::Close));
    };
    let lose = |server: &ReleaseServer, path: &str| server.always(path, Reply::status("404 Not Found"));
    let changed = [&good[..], b"x"].concat();
    let faults: [Fault; 6] = [
        (
            "wrong bytes",
            &|server| server.put(&path, File::new(&changed[..])),
            &["cannot trust", &path, &sha256(&good), &sha256(&changed), "hint: "],
        ),
        ("cut", &|server| cut(server, File::new(&good[..])), &["cannot download", &path, "hint: "]),
        (
            "cut, and nobody can know",
            &|server| cut(server, File::new(&good[..]).without_length()),
            &["cannot trust", &path, "changed or cut"],
        ),
        ("no archive", &|server| lose(server, &path), &["cannot download", &path, "404"]),
        ("no sums", &|server| lose(server, "/SHA256SUMS"), &["cannot download", "/SHA256SUMS", "404"]),
        ("another page", &|server| server.put("/SHA256SUMS", File::new("<html>\n")), &["lists no archive", &target()]),
    ];
    for world in World::all() {
        faults.iter().for_each(|fault| assert_refused(world, &good, fault));
    }
}

#[track_caller]
fn assert_refused(world: World, good: &[u8], (name, prepare, words): &Fault) {
    println!("{world:?}: {name}");
    let desk = Desk::new(world);
    desk.from(&released("9.9.8", &archive("9.9.8", &program("9.9.8")))).run().success();
    let before = files(&desk.prefix);
    let server = released("9.9.9", good);
    prepare(&server);
    let outcome = desk.from(&server).run();
    outcome.fails_with(words);
    desk.assert_untouched(&outcome, &before);
}

#[test]
fn a_release_is_found_as_its_repository_publishes_it() {
    let Some(world) = World::all().into_iter().next() else { return };
    let desk = Desk::new(world);
    let server = ReleaseServer::start();
    for (directory, version) in [("latest/download", "9.9.9"), ("download/v9.9.7", "9.9.7")] {
        let archive = archive(version, &program(version));
        server.put(&format!("/owner/releases/{directory}/SHA256SUMS"), File::new(sums(version, &archive)));
        server.put(&format!("/owner/releases/{directory}/{}", archive_name(version)), File::new(archive));
    }
    // As `make dist` writes it.
    let text = fs::read_to_string(script()).unwrap();
    assert_eq!(text.matches("\nrepository=\n").count(), 1);
    let ours = desk.home.root().join("install.sh");
    fs::write(&ours, text.replace("\nrepository=\n", &format!("\nrepository={}/owner\n", server.base()))).unwrap();
    desk.shell(&ours, &[]).run().success().stdout_has("stigmer 9.9.9 installed");
    for version in ["9.9.7", "v9.9.7"] {
        desk.shell(&ours, &[]).env("STIGMER_VERSION", version).run().success().stdout_has("stigmer 9.9.7 installed");
    }
    desk.shell(&ours, &[]).env("STIGMER_VERSION", "9.9.6").run().fails_with(&["v9.9.6", "404"]);
    desk.script(&[]).run().fails_with(&["names no place", "hint: ", "STIGMER_DOWNLOAD_URL"]);
}

#[test]
fn a_machine_without_a_build_or_without_a_downloader_is_named() {
    if !World::all().contains(&World::DashCurl) {
        return;
    }
    let server = released("9.9.9", &archive("9.9.9", &program("9.9.9")));
    for (system, machine) in [("SunOS", "x86_64"), ("Linux", "riscv64"), ("Darwin", "ppc")] {
        let desk = Desk::new(World::DashCurl);
        let uname = desk.world.programs(&desk.home).join("uname");
        fs::remove_file(&uname).unwrap();
        fs::write(&uname, format!("#!/bin/sh\n[ \"$1\" = -s ] && echo {system} || echo {machine}\n")).unwrap();
        fs::set_permissions(&uname, fs::Permissions::from_mode(0o755)).unwrap();
        desk.from(&server).run().fails_with(&[&format!("{system} {machine}: there is no build"), "hint: "]);
    }
    let desk = Desk::new(World::DashCurl);
    fs::remove_file(desk.world.programs(&desk.home).join("curl")).unwrap();
    desk.from(&server).run().fails_with(&["neither curl nor wget", "hint: "]);
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_place_that_cannot_be_written_to_stays_as_it_is() {
    let server = released("9.9.9", &archive("9.9.9", &program("9.9.9")));
    for world in World::all() {
        let desk = Desk::new(world);
        let locked = desk.home.root().join("locked");
        fs::create_dir(&locked).unwrap();
        fs::set_permissions(&locked, fs::Permissions::from_mode(0o555)).unwrap();
        let mut run = desk.from(&server).env("PREFIX", &locked);
        if is_root() {
            run = run.by_user(NOBODY);
        }
        let outcome = run.run();
        outcome.fails_with(&["cannot write", &locked.display().to_string(), "ermission denied", "hint: ", "PREFIX"]);
        desk.assert_untouched(&outcome, &[]);
    }
}

#[test]
fn a_full_disk_keeps_what_was_there() {
    let large = archive("9.9.9", &[&program("9.9.9")[..], b"exit\n", &noise(600_000, 7)].concat());
    let server = released("9.9.9", &large);
    for world in World::all() {
        let Some(disk) = SmallDisk::mount(300 << 10) else {
            return skip("this user cannot mount a small disk");
        };
        let desk = Desk::new(world);
        // No room to install to: the older one stays.
        desk.from(&released("9.9.8", &archive("9.9.8", &program("9.9.8")))).env("PREFIX", &disk.path).run().success();
        let before = files(&disk.path);
        let outcome = desk.from(&server).env("PREFIX", &disk.path).run();
        outcome.fails_with(&["cannot write", "bin/stigmer", "No space left", "hint: "]);
        let others: Vec<_> = files(&disk.path).into_iter().filter(|file| file.contains("bin/")).collect();
        assert_eq!(others, before.into_iter().filter(|file| file.contains("bin/")).collect::<Vec<_>>());
        // No room to download to.
        let outcome = desk.from(&server).env("TMPDIR", &disk.path).run();
        outcome.fails_with(&["cannot download"]);
        assert_eq!(files(&desk.prefix), [""; 0]);
        assert!(!files(&disk.path).iter().any(|file| file.contains("/tmp.")), "{:?}", files(&disk.path));
    }
}

#[test]
fn a_program_that_does_not_run_here_never_gets_its_name() {
    let Some(world) = World::all().into_iter().next() else { return };
    let desk = Desk::new(world);
    let outcome = desk.from(&released("9.9.9", &archive("9.9.9", b"\x7fELF for another machine"))).run();
    outcome.fails_with(&["cannot run stigmer in ", "hint: "]);
    assert!(!desk.prefix.join("bin/stigmer").exists());
}

#[test]
fn it_goes_through_a_proxy() {
    let server = released("9.9.9", &archive("9.9.9", &program("9.9.9")));
    for world in World::all() {
        let desk = Desk::new(world);
        let proxy = Proxy::to(server.address());
        let run = desk.script(&[]).env("STIGMER_DOWNLOAD_URL", "http://releases.invalid");
        run.env("http_proxy", proxy.url()).run().success().stdout_has("stigmer 9.9.9 installed");
        assert!(proxy.requests().len() >= 2, "{:?}", proxy.requests());
    }
}

#[test]
fn a_part_of_the_script_does_nothing() {
    let Some(world) = World::all().into_iter().next() else { return };
    let desk = Desk::new(world);
    let server = released("9.9.9", &archive("9.9.9", &program("9.9.9")));
    let text = fs::read_to_string(script()).unwrap();
    let part = desk.home.root().join("part.sh");
    for (at, _) in text.match_indices('\n').rev().skip(1) {
        fs::write(&part, &text[..at]).unwrap();
        desk.shell(&part, &[]).env("STIGMER_DOWNLOAD_URL", server.base()).run();
    }
    assert_eq!((files(&desk.prefix), server.requests().len()), (Vec::new(), 0));
}

#[test]
fn a_directory_is_installed_to_any_place_without_a_network() {
    for world in World::all() {
        let desk = Desk::new(world);
        let unpacked = desk.home.root().join("stigmer-9.9.9");
        fs::create_dir_all(unpacked.join("completions")).unwrap();
        for name in ["completions/stigmer.bash", "completions/_stigmer", "completions/stigmer.fish", "stigmer.1"] {
            fs::write(unpacked.join(name), name).unwrap();
        }
        fs::write(unpacked.join("stigmer"), program("9.9.9")).unwrap();
        for (prefix, place) in [("relative", "relative"), ("~/tilde", "user/tilde"), ("with space/", "with space")] {
            let run = || desk.script(&["--from", "stigmer-9.9.9"]).env("PREFIX", prefix);
            run().run().success();
            assert!(desk.home.root().join(place).join("bin/stigmer").exists(), "{prefix}");
            desk.script(&["--uninstall"]).env("PREFIX", prefix).run().success();
            assert_eq!(files(&desk.home.root().join(place)), [""; 0]);
        }
        let nothing = desk.script(&["--from", "nowhere"]).run();
        nothing.fails_with(&["cannot install from nowhere", "hint: "]);
        desk.script(&["--force"]).run().exits_with(2).stderr_has("usage: ");
        desk.script(&["--help"]).run().success().stdout_has("STIGMER_DOWNLOAD_URL");
    }
}

#[test]
fn a_program_whose_daemon_runs_is_not_removed() {
    let Some(world) = World::all().into_iter().next() else { return };
    let desk = Desk::new(world);
    let running = b"#!/bin/sh\necho stigmer 9.9.9\n";
    desk.from(&released("9.9.9", &archive("9.9.9", running))).run().success();
    let outcome = desk.script(&["--uninstall"]).run();
    outcome.fails_with(&["its daemon runs", "hint: ", "stigmer local stop"]);
    assert_eq!(files(&desk.prefix).len(), INSTALLED.len());
}
