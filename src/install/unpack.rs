//! Out of a release archive, the one file that we want.
//!
//! The archive is a stranger's until its digest is compared, which happens
//! after this. So: bounded output, bounded memory, only a regular file named
//! `temporal` at the root is taken, and anything a release has no reason to
//! hold refuses the whole archive.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};

use flate2::bufread::GzDecoder;
use tar::{Archive, Entry, EntryType, PaxExtensions};

use crate::digest::{Digest, Hasher};
use crate::sys;

const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
const EXECUTABLE_NAME: &[u8] = b"temporal";
/// What one archive may hold beside the executable: licence, headers, padding.
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
pub enum Failure {
    /// Reading failed, or the bytes are no gzip or tar: `stopped` of the
    /// download tells which.
    Read(String),
    /// The archive is well-formed but not what a release holds.
    Refused(String),
    /// Writing the file failed.
    Write(io::Error),
    /// The disk has not the room: bytes needed, bytes free.
    NoSpace { needed: u64, free: u64 },
}

/// Reads the archive to its very end and writes its executable, of at most
/// `limit` bytes, to `output`. `free` tells the room on the disk.
pub fn unpack(
    compressed: impl Read,
    limit: u64,
    output: &mut File,
    free: impl Fn() -> Option<u64>,
) -> Result<Unpacked, Failure> {
    let mut compressed = BufReader::with_capacity(BUFFER, compressed);
    check_magic(&mut compressed)?;
    let decoder = GzDecoder::new(compressed);
    let mut archive = Archive::new(Limited { inner: decoder, left: limit.saturating_add(ALLOWANCE) });
    let mut unpacked = None;
    for entry in archive.entries().map_err(read_failure)?.raw(true) {
        let mut entry = entry.map_err(read_failure)?;
        if !is_executable(&mut entry)? {
            continue;
        }
        if unpacked.is_some() {
            return Err(refused("it holds two entries named temporal"));
        }
        unpacked = Some(write(&mut entry, limit, output, &free)?);
    }
    let mut decoder = archive.into_inner();
    // The digest is that of the whole file, and a checksum stands at gzip's end.
    io::copy(&mut decoder, &mut io::sink()).map_err(read_failure)?;
    let mut rest = decoder.inner.into_inner();
    if !rest.fill_buf().map_err(read_failure)?.is_empty() {
        return Err(refused("something follows the end of the archive"));
    }
    unpacked.ok_or_else(|| refused("it holds no file named temporal"))
}

/// A web page instead of an archive is the commonest damage: say so.
fn check_magic(compressed: &mut impl BufRead) -> Result<(), Failure> {
    let start = compressed.fill_buf().map_err(read_failure)?;
    if !start.is_empty() && GZIP_MAGIC.starts_with(&start[..start.len().min(GZIP_MAGIC.len())]) {
        return Ok(());
    }
    let text: String = String::from_utf8_lossy(&start[..start.len().min(32)])
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect();
    Err(refused(&match start {
        [] => "the file is empty".into(),
        _ => format!("it is no gzip archive, it begins with '{}'", text.trim()),
    }))
}

/// Judges an entry by its header: true for the executable, false for one to
/// pass over.
fn is_executable<R: Read>(entry: &mut Entry<'_, R>) -> Result<bool, Failure> {
    let kind = entry.header().entry_type();
    match kind {
        EntryType::XHeader | EntryType::XGlobalHeader => {
            check_pax(entry)?;
            return Ok(false);
        }
        EntryType::GNULongName | EntryType::GNULongLink => {
            return Err(refused("it holds an entry with a long name, which no release has"));
        }
        _ => {}
    }
    let name = entry.path_bytes();
    let shown = String::from_utf8_lossy(&name).into_owned();
    if name.starts_with(b"/") || name.split(|byte| *byte == b'/').any(|part| part == b"..") {
        return Err(refused(&format!("it holds a path that leads out of it: {shown}")));
    }
    let mut plain: &[u8] = &name;
    while let Some(rest) = plain.strip_prefix(b"./") {
        plain = rest;
    }
    if plain.strip_suffix(b"/").unwrap_or(plain) != EXECUTABLE_NAME {
        return Ok(false);
    }
    match kind {
        EntryType::Regular if plain == EXECUTABLE_NAME => Ok(true),
        EntryType::Symlink => Err(refused("temporal is a symbolic link in it")),
        EntryType::Link => Err(refused("temporal is a hard link in it")),
        EntryType::Regular | EntryType::Directory => Err(refused("temporal is a directory in it")),
        _ => Err(refused("temporal is no regular file in it")),
    }
}

/// PAX headers may carry times and owners; one that changes what the next
/// entry is refuses the archive.
fn check_pax<R: Read>(entry: &mut Entry<'_, R>) -> Result<(), Failure> {
    if entry.size() > MAX_PAX_HEADER {
        return Err(refused("it holds a PAX header of more than 64 KiB"));
    }
    let mut content = Vec::new();
    entry.read_to_end(&mut content).map_err(read_failure)?;
    for extension in PaxExtensions::new(&content) {
        let extension = extension.map_err(|_| refused("it holds a damaged PAX header"))?;
        let key = extension.key().unwrap_or_default();
        if matches!(key, "path" | "linkpath" | "size" | "") || key.starts_with("GNU.sparse") {
            return Err(refused(&format!("it holds a PAX header that sets '{key}', which no release has")));
        }
    }
    Ok(())
}

fn write<R: Read>(
    entry: &mut Entry<'_, R>,
    limit: u64,
    output: &mut File,
    free: &impl Fn() -> Option<u64>,
) -> Result<Unpacked, Failure> {
    let needed = entry.size();
    if needed > limit {
        return Err(refused(&format!("temporal has {needed} bytes in it, {limit} are the most")));
    }
    if let Some(free) = free().filter(|free| *free < needed) {
        return Err(Failure::NoSpace { needed, free });
    }
    let mut hasher = Hasher::default();
    let mut buffer = vec![0; BUFFER];
    let (mut size, mut written_back) = (0, 0);
    loop {
        let count = match entry.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_failure(error)),
        };
        hasher.update(&buffer[..count]);
        output.write_all(&buffer[..count]).map_err(Failure::Write)?;
        size += count as u64;
        if size - written_back >= WRITEBACK_STEP {
            sys::start_writeback(output);
            written_back = size;
        }
    }
    match size == needed {
        true => Ok(Unpacked { size, sha256: hasher.finish() }),
        false => Err(Failure::Read("the archive ends in the middle".into())),
    }
}

fn refused(why: &str) -> Failure {
    Failure::Refused(why.into())
}

fn read_failure(error: io::Error) -> Failure {
    if let Some(over) = error.get_ref().and_then(|inner| inner.downcast_ref::<TooMuch>()) {
        return Failure::Refused(over.to_string());
    }
    Failure::Read(match error.kind() {
        io::ErrorKind::UnexpectedEof => "the archive ends in the middle".into(),
        _ => format!("the archive is damaged: {error}"),
    })
}

/// Ends a gzip bomb.
struct Limited<R> {
    inner: R,
    left: u64,
}

#[derive(Debug)]
struct TooMuch;

impl std::fmt::Display for TooMuch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("it unpacks to more than any release")
    }
}

impl std::error::Error for TooMuch {}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| io::Error::other(TooMuch))?;
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

    fn run(compressed: &[u8]) -> (Result<Unpacked, Failure>, Vec<u8>) {
        let scratch = Scratch::new();
        let path = scratch.join("temporal");
        let mut file = File::create(&path).unwrap();
        let result = unpack(compressed, LIMIT, &mut file, || Some(1 << 30));
        let content = std::fs::read(&path).unwrap();
        (result, content)
    }

    fn refusal(compressed: &[u8]) -> String {
        match run(compressed).0 {
            Err(Failure::Refused(why) | Failure::Read(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_executable_is_taken_and_the_rest_passed_over() {
        for name in ["temporal", "./temporal"] {
            let archive = tar(&[("LICENSE", b'0', b"words"), (name, b'0', b"program"), ("doc/", b'5', b"")]);
            let (result, content) = run(&gzip(&closed(archive)));
            let unpacked = result.unwrap();
            assert_eq!((unpacked.size, content.as_slice()), (7, &b"program"[..]));
            assert_eq!(unpacked.sha256, Digest::of(&mut &b"program"[..]).unwrap());
        }
    }

    #[test]
    fn harmless_pax_headers_are_passed_over() {
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
            (vec![("temporal", b'S', b"")], "no regular file"),
            (vec![("temporal", b'3', b"")], "no regular file"),
            (vec![good, good], "two entries"),
            (vec![good, ("./temporal", b'0', b"x")], "two entries"),
            (vec![good, ("../temporal", b'0', b"x")], "leads out"),
            (vec![("/bin/temporal", b'0', b"x"), good], "leads out"),
            (vec![("a/../../temporal", b'0', b"x"), good], "leads out"),
            (vec![("bin/temporal", b'0', b"x")], "no file named temporal"),
            (vec![("Temporal", b'0', b"x")], "no file named temporal"),
            (vec![], "no file named temporal"),
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
        assert!(text.contains("1048576 are the most"), "{text}");
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

    #[test]
    fn a_full_disk_is_noticed_before_it_is_full() {
        let archive = gzip(&closed(tar(&[("temporal", b'0', b"program")])));
        let scratch = Scratch::new();
        let mut file = File::create(scratch.join("temporal")).unwrap();
        let result = unpack(&archive[..], LIMIT, &mut file, || Some(6));
        assert!(matches!(result, Err(Failure::NoSpace { needed: 7, free: 6 })), "{result:?}");
    }
}
