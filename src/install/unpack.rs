//! The one file that we want, out of a release archive.
//!
//! The archive is a stranger's until its digest is compared, which happens
//! after this. So output and memory are bounded, only a regular file named
//! `temporal` at the root is taken, and the whole archive is refused for
//! anything that a release has no reason to hold.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use flate2::bufread::GzDecoder;
use tar::{Archive, Entry, EntryType, PaxExtensions};

use super::failure::Failure;
use crate::digest::{Digest, HashingReader};
use crate::error::reason;
use crate::sys;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const EXECUTABLE_NAME: &[u8] = b"temporal";
/// For what an archive holds besides the executable: licence, headers, padding.
const ALLOWANCE: u64 = 16 << 20;
const MAX_PAX_HEADER: u64 = 64 << 10;
const BUFFER: usize = 128 << 10;
/// Written bytes after which the system is asked to start writing them out.
const WRITEBACK_STEP: u64 = 8 << 20;

/// What was unpacked.
#[derive(Debug)]
pub struct Unpacked {
    pub size: u64,
    pub sha256: Digest,
}

/// Why an archive was not unpacked.
#[derive(Debug)]
pub enum Fault {
    Download(Failure),
    /// The bytes are damaged, or not what a release holds.
    Refused(String),
    /// It is not what it must be.
    Distrusted(String),
    /// Writing the file failed.
    Write(io::Error),
    /// The disk lacks the room: bytes needed, bytes free.
    NoSpace {
        needed: u64,
        free: u64,
    },
}

impl From<io::Error> for Fault {
    /// What the readers below handed up: the download, the decoder, `Limited`.
    fn from(cause: io::Error) -> Fault {
        match cause.downcast() {
            Ok(failure) => Fault::Download(failure),
            Err(cause) => refused(match cause.kind() {
                io::ErrorKind::UnexpectedEof => "the archive is truncated".into(),
                io::ErrorKind::FileTooLarge => "it unpacks to more than any release does".into(),
                _ => format!("the archive is damaged: {}", reason(&cause)),
            }),
        }
    }
}

/// Reads the archive to its very end and writes its executable, of at most
/// `limit` bytes, to `output`. `free` returns the room on the disk.
pub fn unpack(
    compressed: impl Read,
    limit: u64,
    output: &mut File,
    free: impl Fn() -> Option<u64>,
) -> Result<Unpacked, Fault> {
    let mut compressed = BufReader::with_capacity(BUFFER, compressed);
    check_magic(&mut compressed)?;
    let decoder = GzDecoder::new(compressed);
    let mut archive = Archive::new(Limited { inner: decoder, left: limit.saturating_add(ALLOWANCE) });
    let mut unpacked = None;
    for entry in archive.entries()?.raw(true) {
        let mut entry = entry?;
        if !is_executable(&mut entry)? {
            continue;
        }
        if unpacked.is_some() {
            return Err(refused("it contains two entries named temporal"));
        }
        unpacked = Some(write(&mut entry, limit, output, &free)?);
    }
    let mut decoder = archive.into_inner();
    // The digest is that of the whole file, and a checksum stands at gzip's end.
    io::copy(&mut decoder, &mut io::sink())?;
    let mut rest = decoder.inner.into_inner();
    if !rest.fill_buf()?.is_empty() {
        return Err(refused("something follows the end of the archive"));
    }
    unpacked.ok_or_else(|| refused("it contains no file named temporal"))
}

/// A web page instead of an archive is the commonest damage: say so.
fn check_magic(compressed: &mut impl BufRead) -> Result<(), Fault> {
    let start = compressed.fill_buf()?;
    if start.is_empty() {
        return Err(refused("the file is empty"));
    }
    if GZIP_MAGIC.starts_with(&start[..start.len().min(GZIP_MAGIC.len())]) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&start[..start.len().min(32)]).replace(char::is_control, " ");
    Err(refused(format!("not a gzip archive: it begins with '{}'", text.trim())))
}

/// Judges an entry by its header: true for the executable, false for one to
/// skip.
fn is_executable<R: Read>(entry: &mut Entry<'_, R>) -> Result<bool, Fault> {
    let kind = entry.header().entry_type();
    match kind {
        EntryType::XHeader | EntryType::XGlobalHeader => return check_pax(entry).map(|()| false),
        EntryType::GNULongName | EntryType::GNULongLink => {
            return Err(refused("it contains an entry with a long name, which no release has"));
        }
        _ => {}
    }
    let name = entry.path_bytes();
    let shown = String::from_utf8_lossy(&name).into_owned();
    if name.starts_with(b"/") || name.split(|byte| *byte == b'/').any(|part| part == b"..") {
        return Err(refused(format!("it contains a path that leads outside: {shown}")));
    }
    let mut plain: &[u8] = &name;
    while let Some(rest) = plain.strip_prefix(b"./") {
        plain = rest;
    }
    if plain.strip_suffix(b"/").unwrap_or(plain) != EXECUTABLE_NAME {
        return Ok(false);
    }
    let what = match kind {
        EntryType::Regular if plain == EXECUTABLE_NAME => return Ok(true),
        EntryType::Symlink => "a symbolic link",
        EntryType::Link => "a hard link",
        EntryType::Regular | EntryType::Directory => "a directory",
        _ => "not a regular file",
    };
    Err(refused(format!("its temporal is {what}")))
}

/// PAX headers may carry times and owners; the archive is refused for one that
/// changes what the next entry is.
fn check_pax<R: Read>(entry: &mut Entry<'_, R>) -> Result<(), Fault> {
    if entry.size() > MAX_PAX_HEADER {
        return Err(refused("it contains a PAX header of more than 64 KiB"));
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content)?;
    for extension in PaxExtensions::new(&content) {
        let extension = extension.map_err(|_| refused("it contains a damaged PAX header"))?;
        let key = extension.key().unwrap_or_default();
        if matches!(key, "path" | "linkpath" | "size" | "") || key.starts_with("GNU.sparse") {
            return Err(refused(format!("it contains a PAX header that sets '{key}', which no release has")));
        }
    }
    Ok(())
}

fn write<R: Read>(
    entry: &mut Entry<'_, R>,
    limit: u64,
    output: &mut File,
    free: &impl Fn() -> Option<u64>,
) -> Result<Unpacked, Fault> {
    let needed = entry.size();
    if needed > limit {
        return Err(refused(format!("its temporal has {needed} bytes, more than the limit of {limit}")));
    }
    if needed == 0 {
        return Err(refused("its temporal is empty"));
    }
    if let Some(free) = free().filter(|free| *free < needed) {
        return Err(Fault::NoSpace { needed, free });
    }
    let mut entry = HashingReader::new(entry);
    let mut buffer = vec![0; BUFFER];
    let (mut size, mut written_back) = (0, 0);
    loop {
        let count = entry.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        output.write_all(&buffer[..count]).map_err(Fault::Write)?;
        size += count as u64;
        if size - written_back >= WRITEBACK_STEP {
            sys::start_writeback(output);
            written_back = size;
        }
    }
    match size == needed {
        true => Ok(Unpacked { size, sha256: entry.finish() }),
        false => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
    }
}

fn refused(why: impl Into<String>) -> Fault {
    Fault::Refused(why.into())
}

/// Ends a gzip bomb.
struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use flate2::{Compression, write::GzEncoder};
    use tar::Header;

    const LIMIT: u64 = 1 << 20;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// A tar stream of (name, type, content), unclosed.
    fn tar(entries: &[(&str, u8, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (name, kind, content) in entries {
            let mut header = Header::new_ustar();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(EntryType::new(*kind));
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            header.set_cksum();
            bytes.extend_from_slice(header.as_bytes());
            bytes.extend_from_slice(content);
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes
    }

    fn closed(mut tar: Vec<u8>) -> Vec<u8> {
        tar.resize(tar.len() + 1024, 0);
        tar
    }

    fn run(compressed: &[u8]) -> (Result<Unpacked, Fault>, Vec<u8>) {
        let scratch = Scratch::new();
        let path = scratch.join("temporal");
        let mut file = File::create(&path).unwrap();
        let result = unpack(compressed, LIMIT, &mut file, || Some(1 << 30));
        let content = std::fs::read(&path).unwrap();
        (result, content)
    }

    fn refusal(compressed: &[u8]) -> String {
        match run(compressed).0 {
            Err(Fault::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_executable_is_taken_and_the_rest_skipped() {
        for name in ["temporal", "./temporal"] {
            let archive = tar(&[("LICENSE", b'0', b"words"), (name, b'0', b"program"), ("doc/", b'5', b"")]);
            let (result, content) = run(&gzip(&closed(archive)));
            let unpacked = result.unwrap();
            assert_eq!((unpacked.size, content.as_slice()), (7, &b"program"[..]));
            assert_eq!(unpacked.sha256, Digest::of(&b"program"[..]).unwrap());
        }
    }

    #[test]
    fn harmless_pax_headers_are_skipped() {
        let archive = tar(&[("p", b'x', b"30 mtime=1795405845.123456789\n"), ("temporal", b'0', b"program")]);
        assert_eq!(run(&gzip(&closed(archive))).0.unwrap().size, 7);
    }

    #[test]
    fn hostile_entries_refuse_the_archive() {
        let good = ("temporal", b'0', &b"program"[..]);
        for (entries, why) in [
            (vec![("temporal", b'2', &b""[..])], "symbolic link"),
            (vec![("temporal", b'1', b"")], "hard link"),
            (vec![("temporal", b'5', b"")], "directory"),
            (vec![("temporal/", b'0', b"")], "directory"),
            (vec![("temporal", b'S', b"")], "not a regular file"),
            (vec![("temporal", b'3', b"")], "not a regular file"),
            (vec![good, good], "two entries"),
            (vec![good, ("./temporal", b'0', b"x")], "two entries"),
            (vec![good, ("../temporal", b'0', b"x")], "leads out"),
            (vec![("/bin/temporal", b'0', b"x"), good], "leads out"),
            (vec![("a/../../temporal", b'0', b"x"), good], "leads out"),
            (vec![("bin/temporal", b'0', b"x")], "no file named temporal"),
            (vec![("Temporal", b'0', b"x")], "no file named temporal"),
            (vec![], "no file named temporal"),
            (vec![("temporal", b'0', b"")], "its temporal is empty"),
            (vec![("l", b'L', b"temporal\0"), good], "long name"),
            (vec![("p", b'x', b"17 path=temporal\n"), good], "sets 'path'"),
            (vec![("p", b'x', b"10 size=1\n"), good], "sets 'size'"),
            (vec![("p", b'g', b"22 GNU.sparse.major=1\n"), good], "sets 'GNU.sparse"),
            (vec![("p", b'x', b"nonsense"), good], "damaged PAX"),
        ] {
            let text = refusal(&gzip(&closed(tar(&entries))));
            assert!(text.contains(why), "{entries:?}: {text}");
        }
    }

    #[test]
    fn too_much_is_refused_before_it_is_written() {
        let large = vec![0; LIMIT as usize + 1];
        let text = refusal(&gzip(&closed(tar(&[("temporal", b'0', &large)]))));
        assert!(text.contains("1048577 bytes, more than the limit of 1048576"), "{text}");
        let bomb = vec![0; (LIMIT + ALLOWANCE) as usize + 1024];
        let text = refusal(&gzip(&closed(tar(&[("temporal", b'0', b"x"), ("bomb", b'0', &bomb)]))));
        assert!(text.contains("more than any release"), "{text}");
    }

    #[test]
    fn damage_at_any_place_is_found() {
        let whole = gzip(&closed(tar(&[("temporal", b'0', b"program")])));
        for length in 0..whole.len() {
            assert!(run(&whole[..length]).0.is_err(), "cut at {length}");
        }
        let mut longer = whole.clone();
        longer.extend_from_slice(b"garbage");
        assert!(refusal(&longer).contains("follows the end"));
        let mut twice = whole.clone();
        twice.extend_from_slice(&whole);
        assert!(refusal(&twice).contains("follows the end"));
        assert!(refusal(b"<!DOCTYPE html><html>").contains("<!DOCTYPE html>"));
        assert!(refusal(b"").contains("empty"));
    }

    /// Gives these bytes, and then the failure of a download.
    struct Failing<'a>(&'a [u8]);

    impl Read for Failing<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Err(io::Error::other(Failure::Changed)),
                count => Ok(count),
            }
        }
    }

    #[test]
    fn a_failed_download_is_handed_up_as_itself_wherever_it_happens() {
        let whole = gzip(&closed(tar(&[("LICENSE", b'0', b"words"), ("temporal", b'0', b"program")])));
        let mut output = File::create("/dev/null").unwrap();
        for length in 0..=whole.len() {
            let result = unpack(Failing(&whole[..length]), LIMIT, &mut output, || None);
            assert!(matches!(result, Err(Fault::Download(Failure::Changed))), "after {length}: {result:?}");
        }
    }

    #[test]
    fn a_full_disk_is_noticed_before_it_is_full() {
        let archive = gzip(&closed(tar(&[("temporal", b'0', b"program")])));
        let scratch = Scratch::new();
        let mut file = File::create(scratch.join("temporal")).unwrap();
        let result = unpack(&archive[..], LIMIT, &mut file, || Some(6));
        assert!(matches!(result, Err(Fault::NoSpace { needed: 7, free: 6 })), "{result:?}");
    }
}
