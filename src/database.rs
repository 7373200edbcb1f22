//! The SQLite database: one server for each, and none broken for good.
//!
//! Temporal sets up its schema only when the file does not exist. A server
//! killed while it does so leaves a file that no later start can use. So a
//! database that has not served yet is marked, and only a marked one may be
//! moved aside.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::after;
use crate::error::{Error, Result};
use crate::events::{Events, Halt};
use crate::lock::Lock;
use crate::sys;
use crate::terminal::{Terminal, Wait};

/// A server that lost its daemon stops within this time.
const ORPHAN_LIMIT: Duration = Duration::from_secs(15);
const RETRY: Duration = Duration::from_millis(10);
/// SQLite's own files beside the database, and it: last, so that a new one
/// never meets the journal of another.
const SUFFIXES: [&str; 4] = ["-wal", "-shm", "-journal", ""];
/// As many as Linux follows.
const MAX_LINKS: usize = 40;

pub struct Database {
    path: PathBuf,
    lock: Lock,
}

impl Database {
    /// Locks the database at `path` against every other server; waits a while
    /// for one that is just stopping.
    pub fn open(path: PathBuf, events: &mut Events, terminal: &mut Terminal) -> Result<Database, Halt> {
        let path = resolve(path);
        let directory = path.parent().unwrap_or(Path::new("/"));
        if !directory.is_dir() {
            let text =
                format!("cannot use the database {}: there is no directory {}", path.display(), directory.display());
            return Err(Error::new(text).hint(format!("mkdir -p {}", directory.display())).into());
        }
        let mut wait = Wait::begin();
        loop {
            if let Some(lock) = Lock::try_exclusive(&with_suffix(&path, ".lock"))? {
                return Ok(Database { path, lock });
            }
            let shown = path.display();
            if wait.elapsed() >= ORPHAN_LIMIT {
                return Err(Error::new(format!("cannot use the database {shown}: another Temporal uses it"))
                    .hint("stop that one first, or set STIGMER_HOME to another directory")
                    .into());
            }
            wait.explain(terminal, || format!("Another Temporal uses {shown}; waiting for it to stop."));
            events.wait(Some(after(RETRY)))?;
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Whether it can have a write-ahead log: SQLite's needs memory that
    /// processes share, in a file beside the database. Where there is none,
    /// a database that is in this mode cannot be opened at all.
    pub fn can_have_wal(&self) -> bool {
        sys::can_map_shared(self.lock.file())
    }

    /// To be called before each start: marks a database that is about to be made.
    pub fn prepare(&self) -> Result<()> {
        if self.path.exists() {
            return Ok(());
        }
        let mark = self.mark();
        match fs::File::create_new(&mark) {
            Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => {
                Err(Error::io("create", mark.display(), &cause))
            }
            _ => Ok(()),
        }
    }

    /// To be called when a server serves from it. One that was just made is
    /// new until its namespaces are what they shall be.
    pub fn has_served(&self) {
        let _ = fs::rename(self.mark(), self.new_mark());
    }

    /// Whether its namespaces are still as Temporal made them.
    pub fn is_new(&self) -> bool {
        self.new_mark().exists()
    }

    /// To be called when they are not any more.
    pub fn completed(&self) {
        let _ = fs::remove_file(self.new_mark());
    }

    /// Whether no server ever served from it, so that nothing can be lost.
    pub fn never_served(&self) -> bool {
        self.mark().exists()
    }

    /// Moves the database away, so that the next start makes a new one. Only
    /// the last one is kept: no server ever served from it.
    pub fn move_aside(&self) -> Result<PathBuf> {
        let aside = with_suffix(&self.path, ".broken");
        for suffix in SUFFIXES {
            let (from, to) = (with_suffix(&self.path, suffix), with_suffix(&aside, suffix));
            let moved = match fs::rename(&from, &to) {
                // What an earlier one left there is not of this one.
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => remove_if_there(&to),
                done => done,
            };
            moved.map_err(|cause| Error::io("move away", from.display(), &cause))?;
        }
        Ok(aside)
    }

    fn mark(&self) -> PathBuf {
        with_suffix(&self.path, ".unproven")
    }

    fn new_mark(&self) -> PathBuf {
        with_suffix(&self.path, ".new")
    }
}

/// One name for one file, whatever links lead to it, there already or not.
fn resolve(mut path: PathBuf) -> PathBuf {
    for _ in 0..MAX_LINKS {
        if let Ok(whole) = fs::canonicalize(&path) {
            return whole;
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        match (fs::read_link(&path), fs::canonicalize(directory), path.file_name()) {
            (Ok(to), ..) => path = directory.join(to),
            (_, Ok(directory), Some(name)) => return directory.join(name),
            _ => return path,
        }
    }
    path
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name: OsString = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn only_a_database_that_never_served_counts_as_such() {
        let directory = Scratch::new();
        let mut terminal = Terminal::new(crate::terminal::Stream::Nowhere, &|_| None);
        let mut events = Events::new().unwrap();
        let database = Database::open(directory.join("t.db"), &mut events, &mut terminal).unwrap();
        database.prepare().unwrap();
        fs::write(database.path(), "half").unwrap();
        fs::write(with_suffix(database.path(), "-wal"), "w").unwrap();
        fs::write(directory.join("t.db.broken-shm"), "of an earlier one").unwrap();
        assert!(database.never_served());
        let aside = database.move_aside().unwrap();
        assert_eq!(fs::read(&aside).unwrap(), b"half");
        assert!(!database.path().exists() && with_suffix(&aside, "-wal").exists());
        assert!(!with_suffix(&aside, "-shm").exists());
        fs::write(database.path(), "whole").unwrap();
        database.has_served();
        database.prepare().unwrap();
        assert!(!database.never_served() && database.is_new());
        database.completed();
        assert!(!database.is_new());
    }
}
