//! What a daemon holds of its instance, compared with what lies at the paths.
//!
//! Cleaners of temporary files, and users, take directories away under a living
//! daemon, and another one may begin in their place. Nothing is written where
//! the lock is not the one that is held. What was removed is put back; where the
//! home is gone, or another daemon has it, this one ends.

use std::mem::{self, ManuallyDrop};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::after;
use crate::error::{Error, Result, one_line};
use crate::home::Home;
use crate::lock::{Lock, Shares};
use crate::log_file;
use crate::notify::{Notifier, Watchdog};
use crate::state::{self, Lifetime, Mode, Phase, State};
use crate::sys;
use crate::terminal::{Mark, Terminal};

/// No less than the longest `--ready-timeout`. Each wait has an end of its own;
/// an earlier one would have a slow download begin anew, again and again.
const PATIENCE: &str = "EXTEND_TIMEOUT_USEC=90000000000";

/// Whoever only looks at a lock holds it no longer.
const MOMENT: Duration = Duration::from_millis(100);
const RETRY: Duration = Duration::from_millis(3);

pub struct Tenure {
    home: Home,
    /// Never unlocked but by the end of the process: whoever waits for the
    /// lock may rely on it that this process is gone.
    lock: ManuallyDrop<Lock>,
    /// Of the `run`s that use this daemon.
    shares: Option<Shares>,
    /// The home's directory.
    root: Option<String>,
    /// Who started the daemon as a service, if somebody did.
    notifier: Notifier,
    pub state: State,
}

impl Tenure {
    pub fn begin(home: &Home, lock: Lock, state: State, notifier: Notifier) -> Tenure {
        lock.sign();
        let root = sys::identity(home.root()).ok();
        let shares = Shares::open(home.instance.users_lock()).ok();
        Tenure { home: home.clone(), lock: ManuallyDrop::new(lock), shares, root, notifier, state }
    }

    /// Whether every `run` for which this daemon was started is gone without
    /// having stopped it, as after a kill -9. Then no other may begin.
    pub fn is_unused(&self) -> bool {
        self.state.lifetime == Lifetime::Shared && self.shares.as_ref().is_some_and(Shares::close_if_unused)
    }

    /// Reports to the other commands, unless the place is no longer ours, and
    /// to the service manager: whoever hears of it from there finds it here.
    pub fn publish(&mut self, terminal: &mut Terminal) {
        if self.holds_its_lock() {
            self.state.publish(&self.home.instance.state(), terminal);
        }
        self.notifier.send(&notice(&self.state));
    }

    pub fn watchdog(&self) -> Option<Watchdog> {
        self.notifier.watchdog()
    }

    /// An error when the home is no longer the directory in which this began.
    pub fn check_home(&self) -> Result<()> {
        if sys::identity(self.home.root()).ok() == self.root {
            return Ok(());
        }
        let text = format!("cannot go on: the home {} was removed or replaced", self.home.root().display());
        Err(Error::new(text).hint("its database went with it; 'stigmer local start' begins anew"))
    }

    /// Puts back what was removed or damaged. An error says that it cannot be.
    pub fn keep(&mut self, terminal: &mut Terminal) -> Result<()> {
        self.check_home()?;
        let instance = &self.home.instance;
        if !self.holds_its_lock() {
            self.home.create()?;
            let path = instance.daemon_lock();
            let Some(lock) = take(&path)? else {
                let text = format!("cannot go on: another stigmer has taken over {}", path.display());
                return Err(Error::new(text).hint("stigmer local status"));
            };
            lock.sign();
            // The old one stays held: its file may only have been moved.
            let _ = mem::replace(&mut self.lock, ManuallyDrop::new(lock));
            self.state.place = state::place(instance);
            terminal.line(Mark::Warning, &format!("{} was removed, and is put back.", path.display()));
        }
        if !self.state.is_written_to(&instance.state()) {
            self.state.publish(&instance.state(), terminal);
        }
        self.keep_log(&instance.daemon_log(), terminal)
    }

    fn holds_its_lock(&self) -> bool {
        self.lock.is_at(&self.home.instance.daemon_lock())
    }

    /// Opens the daemon's log anew when it was taken away; rotates it when it
    /// has grown large.
    fn keep_log(&self, path: &Path, terminal: &mut Terminal) -> Result<()> {
        let is_gone = |log| sys::identity_of(log).ok() != sys::identity(path).ok();
        if let Some(log) = terminal.log().filter(|log| log_file::is_due(log) && !is_gone(log)) {
            // Its one writer is here. Not to be rotated is no reason to end.
            let _ = log_file::rotate(log, path, || Some(()));
        }
        if terminal.log().is_some_and(is_gone) {
            self.home.create()?;
            // Not to be written is no reason to end.
            if let Ok(log) = log_file::open(path) {
                terminal.also_to(log);
                terminal.line(Mark::Warning, &format!("{} was removed; it begins anew.", path.display()));
            }
        }
        Ok(())
    }
}

/// The lock at `path`, unless another one keeps it.
fn take(path: &Path) -> Result<Option<Lock>> {
    let deadline = after(MOMENT);
    loop {
        match Lock::try_exclusive(path)? {
            None if Instant::now() < deadline => thread::sleep(RETRY),
            lock => return Ok(lock),
        }
    }
}

/// What a service manager is told of `state`.
fn notice(state: &State) -> String {
    let address = &state.address;
    let (what, status) = match (state.phase, &state.external) {
        (Phase::Installing, _) => (PATIENCE.into(), "installing Temporal".into()),
        (Phase::Starting, _) if state.mode == Mode::External => {
            (PATIENCE.into(), format!("asking external Temporal {address}"))
        }
        (Phase::Starting, _) => (PATIENCE.into(), "starting Temporal".into()),
        (Phase::Ready, None) => {
            let ui = state.ui_url.as_ref().map_or(String::new(), |url| format!(", its UI at {url}"));
            ("READY=1".into(), format!("Temporal serves at {address}{ui}"))
        }
        (Phase::Ready, Some(external)) => {
            let lost = external.lost.as_ref().map(|lost| format!("external Temporal {address} is lost: {}", lost.why));
            ("READY=1".into(), lost.unwrap_or_else(|| format!("external Temporal {address} is serving")))
        }
        (Phase::Restarting, _) => {
            let what = format!("RELOADING=1\nMONOTONIC_USEC={}", sys::monotonic_microseconds());
            let waits = state.retry.as_ref().map(|retry| format!("waiting to restart Temporal: {}", retry.why));
            (what, waits.unwrap_or_else(|| "restarting Temporal".into()))
        }
        (Phase::Stopping, _) => ("STOPPING=1".into(), "stopping Temporal".into()),
    };
    // A line of somebody else's would be another message.
    format!("{what}\nSTATUS={}", one_line(&status))
}
