//! What is known of a database: which Temporal served it last.
//!
//! A small file beside it, whole or absent, that names the very file it is of:
//! of a database that was put in its place nothing is known.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::one_line;
use crate::release::Version;
use crate::{own_file, sys};

/// How every database begins (sqlite.org/fileformat.html, 1.3).
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    pub program: Program,
    /// What was kept beside it by the last migration: a file's name.
    pub kept: Option<String>,
    pub refusal: Option<Refusal>,
}

/// A Temporal, as far as databases go.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Program {
    pub version: Option<Version>,
    /// Of an executable that is not a release of ours.
    pub fingerprint: Option<String>,
}

/// Why a version that nobody asked for by name is not used.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    pub version: Version,
    pub why: String,
    pub way_out: String,
    pub until: Until,
}

/// When to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// The program `sqlite3` is there.
    Sqlite,
    /// So many bytes are free.
    Space(u64),
    /// It is asked for by name.
    Asked,
}

impl Program {
    /// Whether this is the one that `other` is, without a look at either.
    pub fn is(&self, other: &Program) -> bool {
        match (&self.fingerprint, &other.fingerprint) {
            (Some(one), Some(other)) if one == other => true,
            _ => self.version.is_some() && self.version == other.version,
        }
    }

    /// "1.9.1", or what to call one that is not known.
    pub fn name(&self) -> String {
        self.version.as_ref().map_or("unknown".into(), ToString::to_string)
    }
}

/// What tells an executable from another one that takes its place.
pub fn fingerprint(executable: &Path) -> Option<String> {
    let file = fs::metadata(executable).ok()?;
    Some(format!("{} {}.{:09} {}", file.len(), file.mtime(), file.mtime_nsec(), file.ino()))
}

/// Where the record of a database is.
pub fn path(database: &Path) -> PathBuf {
    own_file::beside(database, ".temporal")
}

impl Record {
    /// What is known of the database that is there now.
    pub fn of(database: &Path) -> Option<Record> {
        Record::parse(&own_file::read(&path(database)).ok()?, &sys::identity(database).ok()?)
    }

    /// The same of what `text` says of the file `database`.
    fn parse(text: &str, database: &str) -> Option<Record> {
        let field = |name: &str| own_file::field(text, name);
        let owned = |name: &str| field(name).map(str::to_owned);
        let refusal = || {
            let until = match field("refused_until")? {
                "sqlite3" => Until::Sqlite,
                text => text.parse().map_or(Until::Asked, Until::Space),
            };
            let version = Version::parse(field("refused")?)?;
            Some(Refusal { version, why: owned("refused_why")?, way_out: owned("way_out")?, until })
        };
        // The last line: a file that was cut says nothing.
        (field("database")? == database).then_some(())?;
        Some(Record {
            program: Program { version: field("version").and_then(Version::parse), fingerprint: owned("fingerprint") },
            kept: owned("kept"),
            refusal: refusal(),
        })
    }

    fn text(&self, database: &str) -> String {
        let mut text = String::new();
        let version = self.program.version.as_ref().map(Version::as_str);
        let mut field = |name: &str, value: Option<&str>| own_file::push_field(&mut text, name, value);
        field("version", version);
        field("fingerprint", self.program.fingerprint.as_deref());
        field("kept", self.kept.as_deref());
        if let Some(Refusal { version, why, way_out, until }) = &self.refusal {
            field("refused", Some(version.as_str()));
            field("refused_why", Some(&one_line(why)));
            field("way_out", Some(way_out));
            let bytes = match until {
                Until::Space(bytes) => bytes.to_string(),
                Until::Sqlite => "sqlite3".into(),
                Until::Asked => "asked".into(),
            };
            field("refused_until", Some(&bytes));
        }
        field("database", Some(database));
        text
    }

    /// Writes it down; on disk, where it `must_last`.
    pub fn write(&self, database: &Path, must_last: bool) -> io::Result<()> {
        own_file::replace(&path(database), &self.text(&sys::identity(database)?), must_last)
    }

    /// Notes that `program` serves the database; writes only what is new.
    pub fn note(database: &Path, program: Program, refusal: Option<Refusal>) {
        let known = Record::of(database);
        let same = known.as_ref().filter(|known| known.program == program);
        let refusal = refusal.or_else(|| same.and_then(|known| known.refusal.clone()));
        let record = Record { program, kept: known.as_ref().and_then(|known| known.kept.clone()), refusal };
        if known.as_ref() != Some(&record) {
            // Without it the next start looks for itself.
            let _ = record.write(database, false);
        }
    }
}

/// The name of what the last migration kept beside the database, whichever file
/// that is now.
pub fn kept(database: &Path) -> Option<String> {
    let text = own_file::read(&path(database)).ok()?;
    let kept = own_file::field(&text, "kept")?;
    let own = format!("{}.", database.file_name()?.to_str()?);
    (kept.starts_with(&own) && !kept.contains('/')).then(|| kept.to_owned())
}

/// Of the Temporal that served the database last.
pub fn version(database: &Path) -> Option<Version> {
    Record::of(&fs::canonicalize(database).ok()?)?.program.version
}

/// Whether SQLite may find a database there. Of anything else Temporal itself
/// says what is wrong.
pub fn is_database(path: &Path) -> bool {
    let mut head = [0; MAGIC.len()];
    let read = own_file::open(path, File::options().read(true)).and_then(|mut file| file.read_exact(&mut head));
    read.is_ok() && head == *MAGIC
}

/// Whether the database may need another schema than that of `wanted`, as far
/// as its record says; without one it may.
pub fn may_differ(database: &Path, wanted: &Version) -> bool {
    let Ok(database) = fs::canonicalize(database) else { return false };
    is_database(&database) && !version(&database).is_some_and(|served| served.has_schema_of(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_record_reads_back_as_written_and_is_of_one_file() {
        let directory = Scratch::new();
        let database = directory.join("t.db");
        fs::write(&database, "one").unwrap();
        let version = |text| Version::parse(text).unwrap();
        for until in [Until::Sqlite, Until::Space(7), Until::Asked] {
            let refusal = Refusal { version: version("2.0.0"), why: "a=b".into(), way_out: "c".into(), until };
            let program = Program { version: Some(version("1.9.1")), fingerprint: Some("1 2 3".into()) };
            let record = Record { program, kept: Some("t.db.1.6.2".into()), refusal: Some(refusal) };
            record.write(&database, true).unwrap();
            assert_eq!(Record::of(&database), Some(record));
        }
        let text = fs::read_to_string(path(&database)).unwrap();
        for end in 0..text.len() - 1 {
            fs::write(path(&database), &text[..end]).unwrap();
            assert_eq!(Record::of(&database), None, "{end}");
        }
        fs::write(path(&database), &text).unwrap();
        fs::rename(&database, directory.join("away")).unwrap();
        fs::write(&database, "another").unwrap();
        assert_eq!(Record::of(&database), None);
    }

    #[test]
    fn a_refusal_is_remembered_as_long_as_the_same_temporal_serves() {
        let directory = Scratch::new();
        let database = directory.join("t.db");
        fs::write(&database, "one").unwrap();
        let program = |text| Program { version: Version::parse(text), fingerprint: None };
        let version = Version::parse("2.0.0").unwrap();
        let refusal = Refusal { version, why: "w".into(), way_out: "o".into(), until: Until::Asked };
        Record::note(&database, program("1.6.2"), Some(refusal.clone()));
        Record::note(&database, program("1.6.2"), None);
        assert_eq!(Record::of(&database).unwrap().refusal, Some(refusal));
        Record::note(&database, program("2.0.0"), None);
        assert_eq!(Record::of(&database).unwrap().refusal, None);
    }
}
