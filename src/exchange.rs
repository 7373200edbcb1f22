//! One pair of executable and database for another, wherever it is cut short.
//!
//! A journal beside the database says how far it has come. What is exchanged is
//! kept until the new pair has served: until then every way out leads back to
//! the old one. Only a new pair that a kill ended while it was tried is tried
//! again: it may have served already.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::database::Database;
use crate::error::{Error, Result};
use crate::home::{Home, Installation};
use crate::install::{Fetched, Installed};
use crate::record::{self, Program, Record};
use crate::release::Version;
use crate::terminal::{Mark, Terminal};
use crate::{own_file, sys};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// The new pair is not whole yet.
    Switching,
    /// It is, and has not served.
    Trial,
    /// It did not serve.
    Undoing,
}

const PHASES: [(&str, Phase); 3] =
    [("switching", Phase::Switching), ("trial", Phase::Trial), ("undoing", Phase::Undoing)];

/// What the journal says.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    phase: Phase,
    /// What served the old pair, and what is to serve the new one.
    pub from: Program,
    pub to: Program,
    /// The old database's file.
    old: String,
    /// The new one's, where it is another.
    new: Option<String>,
    /// The name of the old one while the new one has its own.
    kept: String,
    /// Whether there was an old executable that the new one has replaced.
    has_previous: bool,
}

/// What a start finds of an exchange that was cut short.
pub enum Left {
    Nothing,
    /// The old pair is there again.
    Undone(Exchange),
    /// The new pair is there, to be tried again.
    ToBeTried(Exchange),
}

/// Puts a new pair in place of the old one, to be tried. `migrated` is the new
/// database, whole and durable; without it the old one stays.
pub fn perform(
    (database, home): (&Database, &Home),
    (from, to): (Program, Program),
    migrated: Option<&Path>,
    fetched: Option<Fetched<'_>>,
    terminal: &mut Terminal,
) -> Result<Option<Installed>> {
    let path = database.path();
    let failed = |cause: io::Error| Error::io_in_home("exchange", path, &cause);
    let identity = |path: &Path| sys::identity(path).map_err(failed);
    let kept = database.free_name(&format!(".{}", from.name()));
    let mut exchange = Exchange {
        phase: Phase::Switching,
        from,
        to,
        old: identity(path)?,
        new: migrated.map(identity).transpose()?,
        kept: kept.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        has_previous: fetched.is_some() && home.installation.executable().exists(),
    };
    let switch = || {
        exchange.write(path).map_err(failed)?;
        if fetched.is_some() {
            for (name, previous) in files(&home.installation) {
                keep(&name, &previous).map_err(failed)?;
            }
            sync(&home.installation.directory).map_err(failed)?;
        }
        if let Some(migrated) = migrated {
            keep(path, &kept).and_then(|()| fs::rename(migrated, path)).map_err(failed)?;
            sync_directory_of(path).map_err(failed)?;
        }
        let installed = fetched.map(|fetched| fetched.put_in_place(terminal)).transpose()?;
        exchange.phase = Phase::Trial;
        exchange.write(path).map_err(failed)?;
        Ok(installed)
    };
    let switched = switch();
    if switched.is_err() {
        exchange.phase = Phase::Switching;
        exchange.undo(database, home).map_err(failed)?;
    }
    switched
}

/// Undoes what a killed start left half done.
pub fn recover(database: &Database, home: &Home) -> Result<Left> {
    let path = database.path();
    let recover = || {
        let Some(exchange) = Exchange::read(path)? else {
            // What a kill behind the end of the journal leaves.
            remove_previous(home)?;
            return Ok(Left::Nothing);
        };
        let new = exchange.new.as_ref().unwrap_or(&exchange.old);
        if exchange.phase == Phase::Trial && is_at(path, new) {
            return Ok(Left::ToBeTried(exchange));
        }
        exchange.undo(database, home)?;
        Ok(Left::Undone(exchange))
    };
    recover().map_err(|cause| cannot_undo(path, &cause))
}

/// Goes back to the old pair where the new one has not served; says which was
/// tried.
pub fn undo_if_pending(database: &Database, home: &Home) -> Result<Option<Exchange>> {
    let path = database.path();
    let undo = || {
        let Some(mut exchange) = Exchange::read(path)? else { return Ok(None) };
        exchange.phase = Phase::Undoing;
        exchange.write(path)?;
        exchange.undo(database, home)?;
        Ok(Some(exchange))
    };
    undo().map_err(|cause| cannot_undo(path, &cause))
}

/// To be called when a server serves from the database: from now on the new
/// pair is the one.
pub fn commit(database: &Database, home: &Home, terminal: &mut Terminal) -> Result<()> {
    let path = database.path();
    let failed = |cause: io::Error| Error::io_in_home("complete the upgrade of", path, &cause);
    let Some(exchange) = Exchange::read(path).map_err(failed)? else { return Ok(()) };
    let earlier = record::kept(path);
    let kept = if exchange.new.is_some() { Some(exchange.kept.clone()) } else { earlier.clone() };
    end(path, home).map_err(failed)?;
    // Without it the next start compares the schemas, which are the same.
    let _ = Record { program: exchange.to, kept, refusal: None }.write(path, true);
    if exchange.new.is_some() {
        // The last one alone is kept.
        if let Some(earlier) = earlier.filter(|earlier| *earlier != exchange.kept) {
            let _ = fs::remove_file(path.with_file_name(earlier));
        }
        let shown = home.display(&path.with_file_name(&exchange.kept));
        terminal.line(Mark::Done, &format!("Database migrated; the old one is kept at {shown}"));
    }
    Ok(())
}

impl Exchange {
    /// Whether the database was exchanged, too.
    pub fn has_migrated(&self) -> bool {
        self.new.is_some()
    }

    /// Whether an old executable comes back with the old pair.
    pub fn has_previous(&self) -> bool {
        self.has_previous
    }

    /// Whatever of it was done. In a copy of a home no file is the one that was
    /// meant: there its names count.
    fn undo(&self, database: &Database, home: &Home) -> io::Result<()> {
        let path = database.path();
        let kept = path.with_file_name(&self.kept);
        let is_gone = fs::symlink_metadata(path).is_err();
        if self.new.is_some() && !is_at(path, &self.old) && (is_at(&kept, &self.old) || is_gone && kept.exists()) {
            match self.phase {
                // It has served nobody.
                Phase::Switching => own_file::remove_if_present(path)?,
                Phase::Trial | Phase::Undoing => {
                    database.move_aside(".failed").map_err(|error| io::Error::other(error.message().to_owned()))?;
                }
            }
            fs::rename(&kept, path)?;
        }
        if is_at(path, &self.old) && is_at(&kept, &self.old) {
            fs::remove_file(&kept)?;
        }
        sync_directory_of(path)?;
        for (name, previous) in files(&home.installation) {
            if fs::symlink_metadata(&previous).is_ok() {
                fs::rename(&previous, &name)?;
            }
        }
        end(path, home)
    }

    fn read(database: &Path) -> io::Result<Option<Exchange>> {
        match own_file::read(&journal(database)) {
            Ok(text) => Exchange::parse(&text)
                .map(Some)
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "its journal is damaged")),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(cause),
        }
    }

    fn parse(text: &str) -> Option<Exchange> {
        let field = |name: &str| own_file::field(text, name);
        let owned = |name: &str| field(name).map(str::to_owned);
        let program = |version, fingerprint| Program {
            version: field(version).and_then(Version::parse),
            fingerprint: owned(fingerprint),
        };
        let phase = field("phase")?;
        Some(Exchange {
            phase: PHASES.iter().find(|(name, _)| *name == phase)?.1,
            from: program("from", "from_fingerprint"),
            to: program("to", "to_fingerprint"),
            old: owned("old")?,
            new: owned("new"),
            kept: owned("kept").filter(|name| !name.contains('/') && !name.is_empty())?,
            has_previous: field("executable") == Some("exchanged"),
        })
    }

    fn text(&self) -> String {
        let phase = PHASES.iter().find(|(_, phase)| *phase == self.phase).map(|(name, _)| *name);
        let mut text = String::new();
        let mut field = |name: &str, value: Option<&str>| own_file::push_field(&mut text, name, value);
        field("phase", phase);
        field("from", self.from.version.as_ref().map(Version::as_str));
        field("from_fingerprint", self.from.fingerprint.as_deref());
        field("to", self.to.version.as_ref().map(Version::as_str));
        field("to_fingerprint", self.to.fingerprint.as_deref());
        field("old", Some(&self.old));
        field("new", self.new.as_deref());
        field("kept", Some(&self.kept));
        field("executable", self.has_previous.then_some("exchanged"));
        text
    }

    fn write(&self, database: &Path) -> io::Result<()> {
        own_file::replace(&journal(database), &self.text(), true)?;
        sync_directory_of(database)
    }
}

fn journal(database: &Path) -> PathBuf {
    own_file::beside(database, ".upgrade")
}

/// What is installed, and where it is kept: the executable, and its receipt.
fn files(installation: &Installation) -> [(PathBuf, PathBuf); 2] {
    let previous = |name| installation.directory.join(name);
    [
        (installation.executable(), previous(".temporal.previous")),
        (installation.receipt(), previous(".temporal.previous.receipt")),
    ]
}

fn remove_previous(home: &Home) -> io::Result<()> {
    files(&home.installation).iter().try_for_each(|(_, previous)| own_file::remove_if_present(previous))
}

/// Whichever pair is there is the one from now on.
fn end(database: &Path, home: &Home) -> io::Result<()> {
    sync(&home.installation.directory)?;
    own_file::remove_if_present(&journal(database))?;
    sync_directory_of(database)?;
    remove_previous(home)
}

/// A second name for a file; where a disk has no links, another one.
fn keep(path: &Path, kept: &Path) -> io::Result<()> {
    own_file::remove_if_present(kept)?;
    match fs::hard_link(path, kept) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(_) => fs::rename(path, kept),
        Ok(()) => Ok(()),
    }
}

fn is_at(path: &Path, identity: &str) -> bool {
    sys::identity(path).is_ok_and(|there| there == identity)
}

/// The names in a directory are on disk when it is.
fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn sync_directory_of(path: &Path) -> io::Result<()> {
    sync(path.parent().unwrap_or(Path::new("/")))
}

fn cannot_undo(path: &Path, cause: &io::Error) -> Error {
    let error = Error::io_in_home("undo the upgrade of", path, cause);
    match cause.kind() {
        io::ErrorKind::InvalidData => {
            let (journal, path) = (journal(path), path.display());
            error.hint(format!("remove {} to go on with what is at {path}; see what else is there", journal.display()))
        }
        _ => error,
    }
}
