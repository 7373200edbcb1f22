//! The SQLite database: one server for each, and none broken for good.
//!
//! Temporal sets up its schema only when the file does not exist. A server
//! killed while it does so leaves a file that no later start can use. So a
//! database that has not served yet is marked, and only a marked one may be
//! moved aside. The mark names the very file that was made under it: another
//! one in its place, a backup perhaps, is not touched.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock::after;
use crate::error::{Error, Result};
use crate::events::{Events, Halt};
use crate::lock::Lock;
use crate::own_file::beside;
use crate::record;
use crate::terminal::{Terminal, Wait};
use crate::{own_file, sys};

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
    /// Where the lock was taken away: the one that took its place.
    lock_put_back: Option<Lock>,
    /// It was not there before this start, and its mark names no file yet.
    is_awaited: Cell<bool>,
}

/// What the mark says of the file that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Making {
    /// It was made under the mark, and never served.
    Unfinished,
    /// Whoever was to note which file was made under the mark was killed first.
    Unknown,
    /// It is not the marked one, or there is no mark, or no file.
    Finished,
}

impl Database {
    /// Locks the database at `path` against every other server; waits a while
    /// for one that is just stopping.
    pub fn open(path: PathBuf, events: &mut Events, terminal: &mut Terminal) -> Result<Database, Halt> {
        let path = resolve(path);
        if !path.file_name().is_some_and(is_plain) {
            let text = format!("cannot use the database {}: SQLite reads its name as a URI", path.display());
            return Err(Error::new(text).hint("give the file a name in UTF-8 without '?', '#' and '%'").into());
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        if let Err(cause) = fs::metadata(directory)
            && own_file::is_hidden(&cause)
        {
            return Err(Error::io_in_home("use the database", &path, &cause).into());
        }
        if !directory.is_dir() {
            let text =
                format!("cannot use the database {}: there is no directory {}", path.display(), directory.display());
            return Err(Error::new(text).hint(format!("mkdir -p {}", directory.display())).into());
        }
        let mut wait = Wait::begin();
        loop {
            if let Some(lock) = Lock::try_exclusive(&beside(&path, ".lock"))? {
                return Ok(Database { path, lock, lock_put_back: None, is_awaited: Cell::new(false) });
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

    /// The directory that Temporal has to run in, if any, and the name by which
    /// it finds the database there. It puts the name unescaped into a URI, and
    /// looks with the same name for the file: of a path with a `?`, `#` or `%`
    /// only the last part can be given. Any other is given whole: Temporal
    /// keeps it in the cluster's metadata, so it is to stay what it was.
    pub fn name_for_temporal(&self) -> (Option<&Path>, &OsStr) {
        match (self.path.parent(), self.path.file_name()) {
            (Some(directory), Some(name)) if !is_plain(self.path.as_os_str()) => (Some(directory), name),
            _ => (None, self.path.as_os_str()),
        }
    }

    pub fn lock(&self) -> &Lock {
        &self.lock
    }

    /// Takes the lock anew where its file was taken away; false when another
    /// Temporal has it by now.
    pub fn keep_lock(&mut self) -> bool {
        let path = beside(&self.path, ".lock");
        if self.lock_put_back.as_ref().unwrap_or(&self.lock).is_at(&path) {
            return true;
        }
        if let Ok(Some(lock)) = Lock::try_exclusive(&path) {
            self.lock_put_back = Some(lock);
            return true;
        }
        false
    }

    /// Whether it can have a write-ahead log: SQLite's needs memory that
    /// processes share, in a file beside the database. Where there is none,
    /// a database that is in this mode cannot be opened at all.
    pub fn can_have_wal(&self) -> bool {
        sys::can_map_shared(self.lock.file())
    }

    /// To be called before each start: marks a database that is about to be made.
    pub fn prepare(&self) -> Result<()> {
        let mark = self.mark();
        let failed = |cause: io::Error| Error::io_in_home("create", &mark, &cause);
        match self.making() {
            // Of another file, which is gone.
            Making::Finished if self.path.exists() => own_file::remove_if_present(&mark).map_err(failed)?,
            Making::Finished => {
                own_file::create(&mark).map_err(failed)?;
                self.is_awaited.set(true);
            }
            Making::Unfinished | Making::Unknown => {}
        }
        Ok(())
    }

    /// To be called while a server starts: once there is a file, the mark is its.
    pub fn note_file(&self) {
        if !self.is_awaited.get() {
            return;
        }
        let Ok(identity) = sys::identity(&self.path) else { return };
        self.is_awaited.set(false);
        // In place: it must not be lost in between.
        let note = |mut mark: fs::File| mark.write_all(identity.as_bytes());
        let _ = own_file::open(&self.mark(), fs::File::options().write(true)).and_then(note);
    }

    /// To be called when a server serves from it. One that was just made is
    /// new until its namespaces are what they shall be.
    pub fn has_served(&self) {
        self.note_file();
        self.is_awaited.set(false);
        let _ = fs::rename(self.mark(), self.new_mark());
    }

    /// Whether its namespaces are still as Temporal made them.
    pub fn is_new(&self) -> bool {
        is_mark_of(&self.new_mark(), &self.path)
    }

    /// To be called when they no longer are.
    pub fn completed(&self) {
        let _ = fs::remove_file(self.new_mark());
    }

    /// To be called when a server failed to start: where it made nothing, there
    /// is nothing to mark.
    pub fn has_failed(&self) {
        self.note_file();
        if self.is_awaited.take() {
            let _ = fs::remove_file(self.mark());
        }
    }

    /// Whether there is a database of SQLite's that a server has completed.
    pub fn is_complete(&self) -> bool {
        record::is_database(&self.path) && self.making() == Making::Finished
    }

    /// Bytes that it takes on the disk.
    pub fn size(&self) -> u64 {
        SUFFIXES.iter().filter_map(|suffix| Some(fs::metadata(beside(&self.path, suffix)).ok()?.len())).sum()
    }

    pub fn making(&self) -> Making {
        let (Ok(mark), Ok(identity)) = (own_file::read(&self.mark()), sys::identity(&self.path)) else {
            return Making::Finished;
        };
        match mark.as_str() {
            "" => Making::Unknown,
            marked if marked == identity => Making::Unfinished,
            _ => Making::Finished,
        }
    }

    /// Moves the database away, so that another one can have its name; to a
    /// name that ends with `suffix`, or a number behind it, and that nothing has.
    pub fn move_aside(&self, suffix: &str) -> Result<PathBuf> {
        let aside = self.free_name(suffix);
        for suffix in SUFFIXES {
            let (from, to) = (beside(&self.path, suffix), beside(&aside, suffix));
            match fs::rename(&from, &to) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io_in_home("move away", &from, &cause));
                }
                _ => {}
            }
        }
        Ok(aside)
    }

    pub fn free_name(&self, suffix: &str) -> PathBuf {
        let is_free =
            |path: &PathBuf| SUFFIXES.iter().all(|suffix| fs::symlink_metadata(beside(path, suffix)).is_err());
        let numbered = (1..).map(|number| beside(&self.path, &format!("{suffix}.{number}")));
        let mut names = std::iter::once(beside(&self.path, suffix)).chain(numbered);
        names.find(is_free).unwrap_or_default()
    }

    fn mark(&self) -> PathBuf {
        beside(&self.path, ".unproven")
    }

    fn new_mark(&self) -> PathBuf {
        beside(&self.path, ".new")
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

/// Whether a mark names the very file that is at `path`.
fn is_mark_of(mark: &Path, path: &Path) -> bool {
    matches!((own_file::read(mark), sys::identity(path)), (Ok(marked), Ok(identity)) if marked == identity)
}

/// Whether SQLite takes the text of a URI for just this name, and Temporal, which
/// also writes it into a protocol buffer, takes it at all.
fn is_plain(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| !name.contains(['?', '#', '%']))
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
        let made = |content: &str| {
            database.prepare().unwrap();
            fs::write(database.path(), content).unwrap();
            database.note_file();
        };
        made("half");
        fs::write(beside(database.path(), "-wal"), "w").unwrap();
        assert_eq!(database.making(), Making::Unfinished);
        let first = database.move_aside(".broken").unwrap();
        made("half again");
        assert_eq!(database.making(), Making::Unfinished);
        let second = database.move_aside(".broken").unwrap();
        assert_eq!((fs::read(&first).unwrap(), fs::read(&second).unwrap()), (b"half".into(), b"half again".into()));
        assert!(!database.path().exists() && beside(&first, "-wal").exists());
        made("whole");
        database.has_served();
        database.prepare().unwrap();
        assert_eq!(database.making(), Making::Finished);
        assert!(database.is_new());
        database.completed();
        assert!(!database.is_new());
    }

    #[test]
    fn a_mark_is_of_the_file_that_was_made_under_it() {
        let directory = Scratch::new();
        let mut terminal = Terminal::new(crate::terminal::Stream::Nowhere, &|_| None);
        let mut events = Events::new().unwrap();
        let database = Database::open(directory.join("t.db"), &mut events, &mut terminal).unwrap();
        // Nothing was made: no mark.
        database.prepare().unwrap();
        database.has_failed();
        assert!(!database.mark().exists());
        // Killed before it could be noted.
        database.prepare().unwrap();
        fs::write(database.path(), "half").unwrap();
        assert_eq!(database.making(), Making::Unknown);
        database.has_failed();
        assert_eq!(database.making(), Making::Unfinished);
        // Another file in its place.
        fs::rename(database.path(), directory.join("half")).unwrap();
        fs::write(database.path(), "a backup").unwrap();
        assert_eq!(database.making(), Making::Finished);
        database.prepare().unwrap();
        assert!(!database.mark().exists());
    }

    #[test]
    fn a_path_that_is_no_plain_text_of_a_uri_is_given_relative_to_its_directory() {
        let directory = Scratch::new();
        let mut terminal = Terminal::new(crate::terminal::Stream::Nowhere, &|_| None);
        let mut events = Events::new().unwrap();
        for (name, is_plain) in [("plain & simple", true), ("a?b", false), ("a#b", false), ("a%2Fb", false)] {
            let directory = directory.join(name);
            fs::create_dir_all(&directory).unwrap();
            let database = Database::open(directory.join("t.db"), &mut events, &mut terminal).unwrap();
            match is_plain {
                true => assert_eq!(database.name_for_temporal(), (None, database.path().as_os_str())),
                false => assert_eq!(database.name_for_temporal(), (database.path().parent(), "t.db".as_ref())),
            }
            assert!(Database::open(directory.join("t?.db"), &mut events, &mut terminal).is_err());
        }
    }
}
