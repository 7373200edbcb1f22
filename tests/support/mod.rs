//! What the tests of the built program share.
//!
//! `Home` is one machine's worth of stigmer: an empty home, two free ports, a
//! clean environment; every process that was started in it is ended.
//! `ReleaseServer` and `Proxy` are the network, on loopback; `archive` makes
//! what is downloaded; `stand_in` is a `temporal` that misbehaves on request,
//! `Frontend` one elsewhere; `Pty` is a terminal.
//!
//! `STIGMER_TEST_BINARY` names another build of the program to be tested;
//! `STIGMER_KEEP_HOMES`, when it is set, keeps the homes for a look at them.

// Each test crate uses only a part of it.
#![allow(dead_code, unused_imports)]

pub mod archive;
pub mod frontend;
pub mod home;
pub mod http;
pub mod json;
#[path = "../../src/pinned.rs"]
pub mod pinned;
pub mod process;
pub mod proxy;
pub mod pty;
pub mod server;
pub mod stand_in_build;
pub mod tls;
#[cfg(target_os = "linux")]
pub mod trace;

pub use archive::{Archive, platform, sha256};
pub use frontend::{Answer, Call, Frontend};
pub use home::Home;
pub use process::{Outcome, Running, Stigmer};
pub use proxy::Proxy;
pub use pty::Pty;
pub use server::{Cut, File, Gate, ReleaseServer, Reply, Request};
pub use stand_in_build::stand_in;
pub use tls::{Authority, Identity, Tls};

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Says on stderr that the running test, or a part of it, cannot be done on
/// this machine. Under `CI=true`, where nothing may be missing, it fails.
#[track_caller]
pub fn skip(why: &str) {
    assert!(std::env::var_os("CI").is_none_or(|value| value != "true"), "cannot be skipped in CI: {why}");
    let thread = std::thread::current();
    let text = format!("*** SKIPPED {}: {why} ***\n", thread.name().unwrap_or("a part of a test"));
    // Past libtest, which shows nothing of a test that passes.
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// Whether this machine has a program.
pub fn has(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    let status = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

/// Whether stigmer can compare databases here; says so where it cannot.
pub fn has_sqlite() -> bool {
    let has_it = has("sqlite3", &["-version"]);
    if !has_it {
        skip("there is no sqlite3 (on Debian: sqlite3)");
    }
    has_it
}

/// Far beyond what anything here takes: a test that reaches it has failed.
pub const LIMIT: Duration = Duration::from_secs(60);

/// Waits until `condition` returns something; None when the time is up, so
/// that the caller can show what it knows.
pub fn wait_until<T>(limit: Duration, mut condition: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = condition() {
            return Some(value);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until `condition` holds. With a home at hand use `Home::wait_for`,
/// which shows its logs.
#[track_caller]
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    if wait_until(limit, || condition().then_some(())).is_none() {
        panic!("gave up after {limit:?} waiting for {what}");
    }
}

/// Runs `work` for each item, `threads` at a time: most of a test is waiting.
pub fn in_parallel<T: Send>(threads: usize, items: impl IntoIterator<Item = T>, work: impl Fn(T) + Sync) {
    let items = std::sync::Mutex::new(items.into_iter().collect::<std::collections::VecDeque<T>>());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                scope.spawn(|| {
                    loop {
                        let next = items.lock().unwrap().pop_front();
                        match next {
                            Some(item) => work(item),
                            None => return,
                        }
                    }
                })
            })
            .collect();
        for worker in workers {
            // Resumed, so that the worker's own message is the one shown.
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}
