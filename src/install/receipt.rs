//! The receipt: what was installed, from where, and how to recognise the
//! executable beside it.
//!
//! A new receipt is written under another name before the executable is
//! renamed, and gets its own name after: wherever a run is killed in between,
//! the next one knows which of the two receipts is true.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::own_file;
use crate::release::Version;

#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    pub version: Version,
    /// Bytes of the executable.
    pub size: u64,
    /// Of the executable.
    pub sha256: Digest,
    /// URL or file of the archive.
    pub source: String,
    /// Modification time of the executable, in seconds and nanoseconds: while
    /// it is unchanged the file need not be read again.
    pub modified: (i64, i64),
}

impl Receipt {
    pub fn load(path: &Path) -> Option<Receipt> {
        Receipt::parse(&own_file::read(path).ok()?)
    }

    fn parse(text: &str) -> Option<Receipt> {
        let field = |name: &str| own_file::field(text, name).map(str::trim);
        let (seconds, nanoseconds) = field("modified")?.split_once('.')?;
        Some(Receipt {
            version: Version::parse(field("version")?)?,
            size: field("size")?.parse().ok()?,
            sha256: Digest::parse(field("sha256")?)?,
            source: field("source")?.to_owned(),
            modified: (seconds.parse().ok()?, nanoseconds.parse().ok()?),
        })
    }

    fn text(&self) -> String {
        let Receipt { version, size, sha256, source, modified: (seconds, nanoseconds) } = self;
        format!(
            "version={version}\nsize={size}\nsha256={sha256}\nsource={source}\nmodified={seconds}.{nanoseconds:09}\n"
        )
    }

    /// Whether `executable` is the one that this receipt describes. It is read
    /// in full only when its time has changed, as in a copied home.
    pub fn matches(&self, executable: &Path) -> bool {
        let Ok(metadata) = fs::symlink_metadata(executable) else { return false };
        if !metadata.is_file() || metadata.len() != self.size {
            return false;
        }
        modified(&metadata) == self.modified
            || File::open(executable).and_then(Digest::of).is_ok_and(|digest| digest == self.sha256)
    }

    /// Writes the whole receipt to `path`, replacing what is there; to be synced
    /// where it has to last.
    pub fn write(&self, path: &Path) -> io::Result<File> {
        let mut file = own_file::create(path)?;
        file.write_all(self.text().as_bytes())?;
        Ok(file)
    }
}

/// Where the next receipt waits until its executable is in place.
pub fn next_path(receipt: &Path) -> PathBuf {
    receipt.with_file_name(".temporal.receipt.next")
}

/// Finishes or undoes what a killed run left between its two renames.
pub fn recover(receipt: &Path, executable: &Path) -> io::Result<()> {
    let next = next_path(receipt);
    match Receipt::load(&next) {
        Some(waiting) if waiting.matches(executable) => fs::rename(&next, receipt),
        _ => own_file::remove_if_present(&next),
    }
}

pub fn modified(metadata: &Metadata) -> (i64, i64) {
    (metadata.mtime(), metadata.mtime_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    fn receipt(content: &[u8]) -> Receipt {
        Receipt {
            version: Version::parse("1.8.3").unwrap(),
            size: content.len() as u64,
            sha256: Digest::of(content).unwrap(),
            source: "http://m.example/a=b".into(),
            modified: (7, 5),
        }
    }

    #[test]
    fn a_receipt_reads_back_as_written_and_damage_is_no_receipt() {
        let receipt = receipt(b"x");
        assert_eq!(Receipt::parse(&receipt.text()), Some(receipt.clone()));
        for line in receipt.text().lines() {
            assert_eq!(Receipt::parse(&receipt.text().replace(line, "")), None, "{line}");
        }
        assert_eq!(Receipt::parse(""), None);
    }

    #[test]
    fn a_killed_install_is_finished_when_the_executable_is_in_place_and_undone_when_not() {
        let directory = Scratch::new();
        let (path, executable) = (directory.join("temporal.receipt"), directory.join("temporal"));
        let (old, new) = (receipt(b"old"), receipt(b"newer"));
        for (content, expected) in [(&b"old"[..], &old), (b"newer", &new)] {
            fs::write(&executable, content).unwrap();
            old.write(&path).unwrap();
            new.write(&next_path(&path)).unwrap();
            recover(&path, &executable).unwrap();
            assert_eq!(Receipt::load(&path).as_ref(), Some(expected));
            assert!(expected.matches(&executable) && !next_path(&path).exists());
        }
        fs::write(&executable, b"evil!").unwrap();
        assert!(!new.matches(&executable));
    }
}
