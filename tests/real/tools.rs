//! Temporal's executable, its SDK, and what the tests here do with them.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::support::*;

pub const PINNED: &str = pinned::VERSION;

/// Another version whose database has the same schema.
pub fn other_version() -> &'static str {
    if PINNED == "1.8.3" { "1.9.1" } else { "1.8.3" }
}

/// What had to be fetched before a test here can run.
pub struct Tools {
    /// A directory laid out as the releases are.
    pub mirror: PathBuf,
    /// The Python that has the SDK.
    pub python: PathBuf,
    /// The pinned executable, for tests that install nothing.
    pub temporal: PathBuf,
}

/// None where this machine has no Python to fetch them with; the test is skipped.
#[track_caller]
pub fn tools() -> Option<&'static Tools> {
    static TOOLS: OnceLock<Option<Tools>> = OnceLock::new();
    let tools = TOOLS.get_or_init(fetch).as_ref();
    if tools.is_none() {
        skip("python3 with pip and venv is missing (on Debian: python3-pip python3-venv)");
    }
    tools
}

/// The same, with other versions in the mirror.
#[track_caller]
pub fn tools_with(versions: &[&str]) -> Option<&'static Tools> {
    let tools = tools()?;
    let options = versions.iter().flat_map(|version| ["--version", version]);
    let mirror = [tools.mirror.as_os_str().to_str().unwrap()];
    script("mirror.py", &mirror.into_iter().chain(options).collect::<Vec<_>>());
    Some(tools)
}

fn fetch() -> Option<Tools> {
    if !has("python3", &["-m", "pip", "--version"]) || !has("python3", &["-c", "import venv"]) {
        return None;
    }
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let mirror = target.join("mirror");
    let python = target.join("python");
    script("mirror.py", &[mirror.as_os_str().to_str().unwrap(), "--version", PINNED, "--version", other_version()]);
    script("sdk.py", &[python.to_str().unwrap()]);
    let temporal = unpack(&archive_of(&mirror, PINNED), PINNED);
    Some(Tools { mirror, python: python.join("bin/python"), temporal })
}

fn script(name: &str, arguments: &[&str]) {
    let output = Command::new("python3").arg("-B").arg(here(name)).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A copy of a Node project with what it depends on, in the target directory.
pub fn node_project(source: &Path) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().join("vitest");
    std::fs::create_dir_all(&target).unwrap();
    let lock = std::fs::File::create(target.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    // Written last: a killed run leaves a directory without it.
    let (wanted, complete) = (std::fs::read_to_string(source.join("package.json")).unwrap(), target.join("complete"));
    if std::fs::read_to_string(&complete).ok().as_ref() != Some(&wanted) {
        std::fs::write(target.join("package.json"), &wanted).unwrap();
        let options = ["install", "--no-package-lock", "--no-audit", "--no-fund", "--loglevel=error"];
        let output = Command::new("npm").args(options).current_dir(&target).output().unwrap();
        assert!(output.status.success(), "npm install: {}", String::from_utf8_lossy(&output.stderr));
        std::fs::write(&complete, wanted).unwrap();
    }
    std::fs::copy(source.join("greetings.test.js"), target.join("greetings.test.js")).unwrap();
    target
}

/// The executable of an archive, unpacked once and kept beside it.
pub fn unpack(archive: &Path, version: &str) -> PathBuf {
    let executable = archive.with_file_name(format!("temporal-{version}"));
    if !executable.exists() {
        let partial = archive.with_file_name(format!(".temporal.{}", std::process::id()));
        let file = std::fs::File::create(&partial).unwrap();
        let status = Command::new("tar").arg("xzOf").arg(archive).arg("temporal").stdout(file).status().unwrap();
        assert!(status.success(), "cannot unpack {}", archive.display());
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&partial, mode).unwrap();
        std::fs::rename(partial, &executable).unwrap();
    }
    executable
}

pub fn archive_of(mirror: &Path, version: &str) -> PathBuf {
    mirror.join(archive::asset_path(version).trim_start_matches('/'))
}

/// A file beside this one.
pub fn here(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real").join(name)
}

/// How often a long test repeats itself: `few` times, or `full` on request.
pub fn rounds(few: usize, full: usize) -> usize {
    if std::env::var_os("STIGMER_FULL").is_some_and(|value| !value.is_empty()) { full } else { few }
}

/// A home in which the real executable need not be installed.
pub fn start<'h>(home: &'h Home, tools: &Tools) -> Stigmer<'h> {
    home.stigmer(["local", "start"]).env("STIGMER_TEMPORAL_BIN", &tools.temporal)
}

pub fn start_detached<'h>(home: &'h Home, tools: &Tools) -> Stigmer<'h> {
    start(home, tools).args(["--detach"])
}

/// A script of this directory, as a client of the Temporal at `port`.
pub fn client<'h, S: AsRef<std::ffi::OsStr>>(
    home: &'h Home,
    tools: &Tools,
    port: u16,
    arguments: impl IntoIterator<Item = S>,
) -> Stigmer<'h> {
    Stigmer::of_program(home, tools.python.as_os_str(), ["-B"])
        .args([here("workflows.py")])
        .args(arguments)
        .env("TEMPORAL_ADDRESS", format!("127.0.0.1:{port}"))
}

/// Runs a workflow to its end; fails unless result and history are as they must be.
#[track_caller]
pub fn run_workflow(home: &Home, tools: &Tools, id: &str) {
    check_workflow(&client(home, tools, home.port(), ["run", id]).run(), id);
}

/// The same of a workflow that ended earlier.
#[track_caller]
pub fn read_workflow(home: &Home, tools: &Tools, id: &str) {
    check_workflow(&client(home, tools, home.port(), ["read", id]).run(), id);
}

#[track_caller]
pub fn check_workflow(outcome: &Outcome<'_>, id: &str) {
    outcome.success().stdout_has(&format!("\"result\": \"Hello, {id}! Waited"));
    for event in
        ["workflow_execution_started", "activity_task_completed", "timer_fired", "workflow_execution_completed"]
    {
        outcome.stdout_has(&format!("\"{event}\""));
    }
}

/// A field of `status --json`; None when it is null.
pub fn status(home: &Home, field: &str) -> Option<String> {
    let json = home.stigmer(["local", "status", "--json"]).run().stdout;
    let (_, rest) = json.split_once(&format!("\"{field}\":"))?;
    let value = rest.split([',', '}']).next()?.trim_matches('"');
    (value != "null").then(|| value.to_owned())
}

pub fn temporal_pid(home: &Home) -> Option<u32> {
    status(home, "temporal_pid")?.parse().ok()
}

pub fn is_ready(home: &Home) -> bool {
    status(home, "ready").as_deref() == Some("true")
}

/// Sends a signal to a process that this test started.
pub fn signal(pid: u32, number: i32) {
    // SAFETY: no memory is involved.
    unsafe { libc::kill(pid as i32, number) };
}

/// Whether something accepts connections there.
pub fn answers(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// Moments for faults, the same again for the same seed.
pub struct Moments(u64);

impl Moments {
    /// The seed is shown when the test fails.
    pub fn new() -> Moments {
        let chosen = std::env::var("STIGMER_SEED").ok().and_then(|text| text.parse().ok());
        let seed = chosen.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64);
        println!("STIGMER_SEED={seed}");
        Moments(seed)
    }

    pub fn within(&mut self, limit: Duration) -> Duration {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        Duration::from_micros(bits % limit.as_micros() as u64)
    }
}
