//! Two schemas compared; where they differ, all rows in a database of the new
//! one.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sqlite::{Script, Sqlite, Workspace};
use super::{INSTALL_SQLITE, Upgrade, name};
use crate::error::Error;
use crate::events::{Events, Halt};
use crate::own_file::beside;
use crate::record::{Program, Refusal, Until};
use crate::supervisor::make_database;
use crate::terminal::{Mark, Terminal};

const COMPARE: &str = include_str!("compare.sql");
const MIGRATE: &str = include_str!("migrate.sql");
/// Whatever is left of its log goes into the database.
const CLOSE: &str = "PRAGMA journal_mode = DELETE; SELECT '=closed';";
const MAKE_WHOLE: &str = "SELECT '=' || count(*) FROM sqlite_schema;";
/// For what does not grow with the database, or hardly.
const SHORT: Duration = Duration::from_secs(60);
/// Nobody waits for the end of what is slower.
const BYTES_A_SECOND: u64 = 1 << 20;
/// What the new schema takes, and SQLite beside it.
const SPARE: u64 = 4 << 20;

/// Why there is no answer.
pub enum Stop {
    Refused(Refusal),
    Halted(Halt),
}

impl From<Halt> for Stop {
    fn from(halt: Halt) -> Stop {
        Stop::Halted(halt)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Halted(error.into())
    }
}

/// What a schema is looked at with.
pub struct Look<'a> {
    pub upgrade: &'a Upgrade<'a>,
    pub executable: &'a Path,
    pub from: &'a Program,
    pub to: &'a Program,
    pub workspace: &'a Workspace,
}

impl Look<'_> {
    /// None where the database has the schema that the executable makes; else a
    /// new one, whole and durable in the workspace.
    pub fn look(&self, events: &mut Events, terminal: &mut Terminal) -> Result<Option<PathBuf>, Stop> {
        let Look { upgrade, executable, workspace, .. } = self;
        let path = upgrade.database.path();
        let sqlite = Sqlite::find(upgrade.variable, workspace, events)?
            .map_err(|why| self.refused(why, INSTALL_SQLITE, Until::Sqlite))?;
        let damaged = |why: String| self.refused(format!("the database {why}"), "", Until::Asked);
        // A crash left it in the middle of a change.
        if fs::metadata(beside(path, "-journal")).is_ok_and(|journal| journal.len() > 0) {
            let script = Script { text: MAKE_WHOLE, database: path, old: None, limit: SHORT };
            sqlite.execute(&script, workspace, events, &mut || {})?.map_err(damaged)?;
        }
        let limit = upgrade.config.ready_timeout.value;
        let fresh = make_database(upgrade.home, executable, &workspace.path, limit, events)?
            .map_err(|why| self.refused(format!("it makes no database to compare with: {why}"), "", Until::Asked))?;
        let script = Script { text: COMPARE, database: &fresh, old: path.file_name(), limit: SHORT };
        if sqlite.execute(&script, workspace, events, &mut || {})?.map_err(damaged)? == "same" {
            return Ok(None);
        }
        self.migrate(&sqlite, &fresh, events, terminal)?;
        Ok(Some(fresh))
    }

    fn migrate(&self, sqlite: &Sqlite, fresh: &Path, events: &mut Events, terminal: &mut Terminal) -> Result<(), Stop> {
        let database = self.upgrade.database;
        let (path, size) = (database.path(), database.size());
        let needed = 2 * size + SPARE;
        if let Some(free) = self.upgrade.free_space().filter(|free| *free < needed) {
            let [needed_mb, free_mb] = [needed, free].map(|bytes| bytes.div_ceil(1_000_000));
            let why = format!("to migrate the database takes {needed_mb} MB, but only {free_mb} MB are free");
            return Err(self.refused(why, "free some space", Until::Space(needed)));
        }
        let title = format!("Migrating the database from {} to {}...", name(self.from), self.to.name());
        terminal.line(Mark::Info, &title);
        let limit = SHORT + Duration::from_secs(size / BYTES_A_SECOND);
        let script = Script { text: MIGRATE, database: fresh, old: path.file_name(), limit };
        let mut show = || {
            let done = fs::metadata(fresh).map_or(0, |file| file.len());
            terminal.transient(Mark::Info, &format!("{title} {}%", (done * 100 / size.max(1)).min(99)));
        };
        let not_migrated = |why: String| self.refused(format!("the database {why}"), "", Until::Asked);
        sqlite.execute(&script, self.workspace, events, &mut show)?.map_err(not_migrated)?;
        let finish = || {
            let (file, old) = (File::open(fresh)?, fs::metadata(path)?);
            file.set_permissions(old.permissions())?;
            // Only root may give it away, and only root has to.
            let _ = chown(fresh, Some(old.uid()), Some(old.gid()));
            file.sync_all()
        };
        finish().map_err(|cause| Error::io_in_home("write", fresh, &cause))?;
        // From here on the old one changes, though nothing in it does.
        let script = Script { text: CLOSE, database: path, old: None, limit: SHORT };
        sqlite.execute(&script, self.workspace, events, &mut || {})?.map_err(not_migrated)?;
        match ["-wal", "-journal"].into_iter().find(|suffix| beside(path, suffix).exists()) {
            Some(suffix) => Err(not_migrated(format!("its {suffix} does not go away"))),
            None => Ok(()),
        }
    }

    fn refused(&self, why: String, way_out: &str, until: Until) -> Stop {
        let version = self.to.version.as_ref().unwrap_or(&self.upgrade.config.version.value).clone();
        Stop::Refused(Refusal { version, why, way_out: way_out.into(), until })
    }
}
