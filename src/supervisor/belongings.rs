//! What the server was given, its log, database and executable, compared with
//! what lies at their paths now.
//!
//! A file that is removed under a running server goes on to exist for it alone,
//! so nothing fails before the next restart: it is said at once.

use std::path::Path;

use super::held::Held;
use super::{Plan, STOP_GRACE, Supervisor};
use crate::database::Database;
use crate::error::reason;
use crate::events::Halt;
use crate::log_file;
use crate::sys;
use crate::terminal::Mark;

/// What was there when the server began to use it.
#[derive(Default)]
pub struct Belongings {
    database: Option<String>,
    executable: Option<String>,
}

impl Belongings {
    pub fn note_executable(&mut self, plan: &Plan<'_>) {
        self.executable = sys::identity(&plan.choice.installed.executable).ok();
    }

    /// Whether what is there now is not what the last server was given.
    pub fn are_replaced(&self, plan: &Plan<'_>) -> bool {
        let is_other = |path, known| matches!(fate(path, known), Some(Fate::Replaced));
        let database = plan.database.as_ref().map(Database::path);
        is_other(&plan.choice.installed.executable, self.executable.as_ref())
            || database.is_some_and(|path| is_other(path, self.database.as_ref()))
    }

    pub fn note_database(&mut self, plan: &Plan<'_>) {
        self.database = plan.database.as_ref().and_then(|database| sys::identity(database.path()).ok());
    }
}

/// What became of a file.
enum Fate {
    Removed,
    Replaced,
}

fn fate(path: &Path, known: Option<&String>) -> Option<Fate> {
    match (known?, sys::identity(path)) {
        (_, Err(_)) => Some(Fate::Removed),
        (known, Ok(now)) => (*known != now).then_some(Fate::Replaced),
    }
}

impl Supervisor<'_> {
    /// To be called now and then while the server serves. An error says that
    /// this daemon has lost its home; the server is stopped by then.
    pub(super) fn look_after_belongings(&mut self) -> Result<(), Halt> {
        if let Err(error) = self.tenure.keep(self.terminal) {
            self.terminal.line(Mark::Warning, &format!("{}; stopping Temporal.", error.message()));
            self.stop(STOP_GRACE)?;
            return Err(error.into());
        }
        self.keep_log();
        if let Some(database) = &mut self.plan.database
            && !database.keep_lock()
        {
            let path = database.path().display();
            self.terminal.warn_once(&format!("The lock of {path} was taken away: another Temporal may use it too."));
        }
        let database = self.plan.database.as_ref().map(Database::path);
        let executable = &self.plan.choice.installed.executable;
        let of_database = database.and_then(|path| Some((path, fate(path, self.belongings.database.as_ref())?)));
        if let Some((path, fate)) = of_database {
            let path = path.display();
            self.terminal.warn_once(&match fate {
                Fate::Removed => format!("The database {path} was removed: what it held is lost when Temporal stops."),
                Fate::Replaced => {
                    format!("The database {path} was replaced: Temporal uses the new one once restarted.")
                }
            });
        }
        if let Some(fate) = fate(executable, self.belongings.executable.as_ref()) {
            let path = executable.display();
            self.terminal.warn_once(&match fate {
                Fate::Removed => {
                    format!("{path} was removed: Temporal runs on, but cannot be restarted; 'stigmer local stop' and 'start' install it anew.")
                }
                Fate::Replaced => format!("{path} was replaced: Temporal runs on, and a restart takes the new one."),
            });
        }
        Ok(())
    }

    /// Before a start: that nothing of an earlier database is left is not to go
    /// without a word.
    pub(super) fn say_if_database_is_new(&mut self) {
        let database = self.plan.database.as_ref().map(Database::path);
        if let Some(path) = database.filter(|path| self.belongings.database.is_some() && !path.exists()) {
            let text = format!("The database {} is gone; Temporal begins with a new one.", path.display());
            self.terminal.line(Mark::Warning, &text);
        }
    }

    /// Opens Temporal's log anew when it was taken away. What runs has the old one.
    /// One that has grown large is rotated.
    fn keep_log(&mut self) {
        let path = self.plan.home.instance.log();
        if sys::identity_of(&self.log).ok() == sys::identity(&path).ok() {
            if log_file::is_due(&self.log) {
                self.rotate_log(&path);
            }
            return;
        }
        let opened = self.plan.home.create().and_then(|()| log_file::open(&path));
        if let Ok(log) = opened {
            (self.log, self.log_start) = (log, 0);
            let text = format!(
                "{} was removed; it begins anew when Temporal is restarted: stigmer local restart",
                path.display()
            );
            self.terminal.line(Mark::Warning, &text);
        }
    }

    fn rotate_log(&mut self, path: &Path) {
        let Some(pid) = self.pid() else { return };
        match log_file::rotate(&self.log, path, || Held::hold(pid)) {
            Ok(()) => {
                self.log_start = 0;
                self.write_log_header("");
            }
            Err(cause) => {
                let text = format!("The log {} cannot be rotated and grows: {}.", path.display(), reason(&cause));
                self.terminal.warn_once(&text);
            }
        }
    }
}
