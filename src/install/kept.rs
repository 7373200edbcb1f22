//! What came of an archive, kept for the next process: a download that a
//! signal, `kill -9` or the network ends goes on from there.
//!
//! Nothing of it is trusted. Its bytes go the way of those that come over the
//! network, and the digest decides. Nothing here fails either: where something
//! is wrong with the file, the download begins anew; where there is no room for
//! it, nothing is kept.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::{own_file, sys};

/// Who comes back later begins anew: what was kept lies in the way till then.
const MAX_AGE: Duration = Duration::from_secs(7 * 86_400);
/// Bytes before those of the archive: a page, so that theirs are whole ones,
/// which takes a tenth off the cost.
const HEADER: usize = 4096;
/// Archive and executable have to find room, and something has to be left.
const ROOM: u64 = 6;

pub struct Kept {
    path: PathBuf,
    /// The URL of the archive.
    source: String,
    /// None: nothing is kept.
    file: Option<File>,
    /// Of the file that was found, until it is read.
    identity: Option<(Option<String>, u64)>,
    /// Bytes of it that are still to be read.
    unread: u64,
    extent: Arc<Extent>,
}

impl Kept {
    /// Looks for what was kept of `source`; anything else at `path` is removed.
    pub fn open(path: PathBuf, source: String) -> Kept {
        let mut kept = Kept { path, source, file: None, identity: None, unread: 0, extent: Arc::default() };
        kept.rewind();
        kept
    }

    /// What is kept by now is to be read.
    pub fn rewind(&mut self) {
        if !matches!(self.load(), Ok(Some(()))) {
            self.discard();
        }
    }

    fn load(&mut self) -> io::Result<Option<()>> {
        let mut file = own_file::open(&self.path, File::options().read(true).append(true))?;
        let metadata = file.metadata()?;
        // Under another name, too, it would be somebody's else.
        if metadata.nlink() != 1 || metadata.modified()?.elapsed().is_ok_and(|age| age > MAX_AGE) {
            return Ok(None);
        }
        let mut header = [0; HEADER];
        file.read_exact(&mut header)?;
        let Some(identity) = self.parse(&header) else { return Ok(None) };
        let there = metadata.len().saturating_sub(HEADER as u64);
        if there == 0 || there > identity.1 {
            return Ok(None);
        }
        self.extent.set(there, identity.1);
        (self.file, self.identity, self.unread) = (Some(file), Some(identity), there);
        Ok(Some(()))
    }

    /// Validator and length, where the header is of our source.
    fn parse(&self, header: &[u8]) -> Option<(Option<String>, u64)> {
        let text = std::str::from_utf8(header).ok()?.trim_end_matches('\n').strip_prefix("source=")?;
        let (validator, total) =
            text.strip_prefix(&self.source)?.strip_prefix("\nvalidator=")?.split_once("\ntotal=")?;
        Some((Some(validator.to_owned()).filter(|text| !text.is_empty()), total.parse().ok()?))
    }

    /// Validator and length of the file of which something is there to be read.
    pub fn identity(&self) -> Option<&(Option<String>, u64)> {
        self.identity.as_ref()
    }

    /// Reads on in what was found; 0 at its end.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(file) = self.file.as_mut().filter(|_| self.unread > 0) else { return Ok(0) };
        let count = file.take(self.unread).read(buffer)?;
        match count {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.unread -= count as u64;
                Ok(count)
            }
        }
    }

    /// From now on the bytes of a file are kept that begins with the next one.
    pub fn begin(&mut self, validator: Option<&str>, total: Option<u64>) {
        self.discard();
        let Some(total) = total else { return };
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        if sys::free_space(directory).is_some_and(|free| free / ROOM < total) {
            return;
        }
        let text = format!("source={}\nvalidator={}\ntotal={total}", self.source, validator.unwrap_or_default());
        let mut header = [b'\n'; HEADER];
        let Some(place) = header.get_mut(..text.len()) else { return };
        place.copy_from_slice(text.as_bytes());
        let create = || {
            let mut file = own_file::create(&self.path)?;
            file.write_all(&header)?;
            io::Result::Ok(file)
        };
        self.file = create().ok();
        self.extent.set(0, total);
    }

    /// The next bytes, as they came.
    pub fn append(&mut self, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        match file.write_all(bytes) {
            Ok(()) => self.extent.grow(bytes.len() as u64),
            // No room is left: others need what this takes.
            Err(_) => self.discard(),
        }
    }

    /// Nothing is kept any more.
    pub fn discard(&mut self) {
        (self.file, self.identity, self.unread) = (None, None, 0);
        self.extent.set(0, 0);
        let _ = own_file::remove_if_present(&self.path);
    }

    pub fn extent(&self) -> Arc<Extent> {
        self.extent.clone()
    }
}

/// How much is kept. A signal's handler reads it, too.
#[derive(Default)]
pub struct Extent {
    there: AtomicU64,
    total: AtomicU64,
}

impl Extent {
    fn set(&self, there: u64, total: u64) {
        self.there.store(there, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    fn grow(&self, count: u64) {
        self.there.fetch_add(count, Ordering::Relaxed);
    }

    pub fn is_empty(&self) -> bool {
        self.there.load(Ordering::Relaxed) == 0
    }
}

/// What is said of it. Allocates nothing: it is used where a signal may come at
/// any time.
impl fmt::Display for Extent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = |bytes: &AtomicU64| bytes.load(Ordering::Relaxed).saturating_add(50_000) / 100_000;
        let (there, total) = (tenths(&self.there), tenths(&self.total));
        let [there, total] = [there, total].map(|tenths| (tenths / 10, tenths % 10));
        write!(f, "Kept {}.{} of {}.{} MB; the next start goes on from there.", there.0, there.1, total.0, total.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const SOURCE: &str = "http://m.example/a=b";

    fn open(scratch: &Scratch, source: &str) -> Kept {
        Kept::open(scratch.join("kept"), source.into())
    }

    fn text(kept: &mut Kept) -> String {
        let (mut text, mut buffer) = (Vec::new(), [0; 2]);
        while let count @ 1.. = kept.read(&mut buffer).unwrap() {
            text.extend_from_slice(&buffer[..count]);
        }
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn what_was_kept_is_read_back_and_goes_on() {
        for validator in [None, Some("\"tag\"")] {
            let scratch = Scratch::new();
            let mut kept = open(&scratch, SOURCE);
            kept.begin(validator, Some(10));
            kept.append(b"abcde");
            for (expected, more) in [("abcde", &b"fg"[..]), ("abcdefg", b"hij"), ("abcdefghij", b"")] {
                let mut kept = open(&scratch, SOURCE);
                assert_eq!(kept.identity(), Some(&(validator.map(str::to_owned), 10)));
                assert_eq!(text(&mut kept), expected);
                kept.append(more);
                assert_eq!(text(&mut kept), "");
            }
            assert_eq!(text(&mut open(&scratch, SOURCE)), "abcdefghij");
            // Of another place it is nothing, and goes.
            assert_eq!(open(&scratch, "http://m.example/a").identity(), None);
            assert!(!scratch.join("kept").exists());
        }
    }

    #[test]
    fn what_has_no_length_or_too_long_a_name_is_not_kept() {
        let scratch = Scratch::new();
        for (source, total) in [(SOURCE, None), (&*"x".repeat(HEADER), Some(10)), (SOURCE, Some(u64::MAX))] {
            let mut kept = open(&scratch, source);
            kept.begin(None, total);
            kept.append(b"abc");
            assert!(kept.extent().is_empty() && !scratch.join("kept").exists(), "{total:?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_full_disk_ends_the_keeping_and_nothing_else() {
        let scratch = Scratch::new();
        let mut kept = open(&scratch, SOURCE);
        kept.begin(None, Some(10));
        kept.append(b"abc");
        assert_eq!(kept.extent().to_string(), "Kept 0.0 of 0.0 MB; the next start goes on from there.");
        kept.file = Some(File::options().write(true).open("/dev/full").unwrap());
        kept.append(b"def");
        kept.append(b"ghi");
        assert!(kept.extent().is_empty() && !scratch.join("kept").exists());
    }
}
