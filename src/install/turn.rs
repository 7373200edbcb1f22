//! One process at a time looks for the executable and installs it; the others
//! wait for their turn, and then find it there.

use std::ffi::OsString;
use std::thread;
use std::time::Duration;

use super::{Found, Installed, fetch, find};
use crate::config::Managed;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::lock::{Holder, Lock};
use crate::record;
use crate::terminal::{Mark, Terminal, Wait};

const POLL: Duration = Duration::from_millis(5);

/// Waits as long as another process installs; its lock ends with it. `pause`
/// sleeps, or says why not to wait any longer.
pub fn wait_for_turn<E: From<Error>>(
    home: &Home,
    terminal: &mut Terminal,
    mut pause: impl FnMut(Duration) -> Result<(), E>,
) -> Result<Lock, E> {
    let mut wait = Wait::begin();
    loop {
        if let Some(turn) = Lock::try_exclusive(&home.installation.lock)? {
            return Ok(turn);
        }
        wait.explain(terminal, || "Another stigmer is installing Temporal; waiting for it.".into());
        pause(POLL)?;
    }
}

/// The wanted executable, installed if it is missing, beside a daemon that may run.
pub fn ensure(
    config: &Managed,
    home: &Home,
    variable: &dyn Fn(&str) -> Option<OsString>,
    terminal: &mut Terminal,
) -> Result<Installed> {
    let _turn: Lock = wait_for_turn(home, terminal, |delay| {
        thread::sleep(delay);
        Result::Ok(())
    })?;
    let fallback = match find(config, home, terminal)? {
        Found::Usable(installed) => return Ok(installed),
        Found::Missing(fallback) => fallback,
    };
    // After a crash its Temporal is spawned from there again.
    if home.installation.executable().exists() && Lock::holder(&home.instance.daemon_lock())? != Holder::Nobody {
        let wanted = &config.version.value;
        let text = format!("cannot install Temporal {wanted}: the daemon of this home uses the one that is installed");
        return Err(Error::new(text).hint("run 'stigmer local stop' first, or set STIGMER_HOME to another directory"));
    }
    // Nor one that the database of this home could not be served by.
    let (wanted, database) = (&config.version.value, home.instance.database());
    if home.installation.executable().exists() && record::may_differ(&database, wanted) {
        let text = format!(
            "cannot install Temporal {wanted}: the one that is installed serves {}, and another may not",
            home.display(&database)
        );
        let error =
            Error::new(text).hint("'stigmer local start' upgrades both; or set STIGMER_HOME to another directory");
        return fall_back(error, fallback, terminal);
    }
    fetch(config, home, variable, terminal)
        .and_then(|fetched| fetched.put_in_place(terminal))
        .or_else(|error| fall_back(error, fallback, terminal))
}

/// Goes on with what is installed where the wanted version cannot be.
pub fn fall_back(error: Error, fallback: Option<Installed>, terminal: &mut Terminal) -> Result<Installed> {
    let Some(Installed { executable, version: Some(version) }) = fallback else { return Err(error) };
    let text = format!("{}; using Temporal {version}, which is installed", error.message());
    terminal.line(Mark::Warning, &text);
    Ok(Installed { executable, version: Some(version) })
}
