//! Temporal's log and the daemon's: opened for append, rotated at start, and
//! read from the end without reading the rest.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::own_file;

/// A log that is larger at start is rotated.
const MAX_SIZE: u64 = 10 << 20;
const KEPT: u32 = 3;
/// How much of a log's end an error may quote from.
const MAX_QUOTED: u64 = 1 << 20;
/// Characters of one line.
const MAX_QUOTED_LINE: usize = 400;
const BLOCK: u64 = 64 << 10;
/// Users may make a log a link, to /dev/null perhaps; a FIFO must not be waited for.
const NO_WAITING: i32 = libc::O_NONBLOCK;

/// Opens `path` for append; a large one becomes `.1`, the older ones move on.
pub fn open(path: &Path) -> Result<File> {
    if fs::metadata(path).is_ok_and(|metadata| metadata.len() > MAX_SIZE) {
        for number in (1..KEPT).rev() {
            let _ = fs::rename(numbered(path, number), numbered(path, number + 1));
        }
        fs::rename(path, numbered(path, 1)).map_err(|cause| Error::io_in_home("rotate", path, &cause))?;
    }
    File::options()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(NO_WAITING)
        .open(path)
        .map_err(|cause| Error::io_in_home("open the log", path, &cause))
}

/// Opens a log to be read.
pub fn open_to_read(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(NO_WAITING).open(path)?;
    let kind = file.metadata()?.file_type();
    match kind.is_dir() || kind.is_fifo() {
        true => Err(io::Error::new(io::ErrorKind::NotSeekable, "not a file")),
        false => Ok(file),
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// A log in `directory` that is gone with the last who has it open, however
/// they end.
pub fn nameless(directory: &Path) -> Result<File> {
    let path = directory.join("nameless.partial");
    let create = || loop {
        // What a kill left here is removed by the next who comes.
        own_file::remove_if_present(&path)?;
        match own_file::open(&path, File::options().read(true).append(true).create_new(true)) {
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => {}
            file => break own_file::remove_if_present(&path).and(file),
        }
    };
    create().map_err(|cause| Error::io("create a log in", directory.display(), &cause))
}

/// `count` lines that came after `start`, to be quoted in an error: the last
/// ones, or the first of a panic.
pub fn quote(path: &Path, start: u64, count: usize) -> Vec<String> {
    open_to_read(path).map_or_else(|_| Vec::new(), |file| quote_from(&file, start, count))
}

/// The same of a log that is open. It was opened for append, so that reading
/// does not move where the server writes.
pub fn quote_from(mut file: &File, start: u64, count: usize) -> Vec<String> {
    let mut read = || {
        let end = file.metadata()?.len();
        file.seek(SeekFrom::Start(start.max(end.saturating_sub(MAX_QUOTED)).min(end)))?;
        let mut bytes = Vec::new();
        file.take(MAX_QUOTED).read_to_end(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let printable = |line: &str| {
        let line: Vec<char> = line.chars().filter(|c| !c.is_control() || *c == '\t').collect();
        // Of a long line the end: Temporal puts the cause last.
        line[line.len().saturating_sub(MAX_QUOTED_LINE)..].iter().collect()
    };
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(printable).collect();
    // Behind a panic of Go come the stacks of all its goroutines.
    let is_panic = |line: &String| line.starts_with("panic: ") || line.starts_with("fatal error: ");
    let from = lines.iter().position(is_panic).unwrap_or(lines.len().saturating_sub(count));
    lines.into_iter().skip(from).take(count).collect()
}

/// Where the last `count` lines begin. Reads backwards, block by block, so
/// that the size of the file does not matter.
pub fn start_of_last_lines(file: &mut File, count: u64) -> io::Result<u64> {
    let end = file.seek(SeekFrom::End(0))?;
    if count == 0 {
        return Ok(end);
    }
    let mut position = end;
    let mut newlines = 0;
    let mut block = vec![0; BLOCK as usize];
    while position > 0 {
        let length = position.min(BLOCK);
        position -= length;
        file.seek(SeekFrom::Start(position))?;
        let bytes = &mut block[..length as usize];
        file.read_exact(bytes)?;
        for (index, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            let at = position + index as u64;
            // The newline that ends the file ends the last line.
            if at + 1 == end {
                continue;
            }
            newlines += 1;
            if newlines == count {
                return Ok(at + 1);
            }
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        let long = format!("{}\n", "x".repeat(200_000));
        let scratch = Scratch::new();
        let path = scratch.join("log");
        for (content, count, expected) in [
            ("", 5, ""),
            ("a", 5, "a"),
            ("a\nb\nc\n", 2, "b\nc\n"),
            ("a\nb\nc", 2, "b\nc"),
            ("a\nb\n\n", 2, "b\n\n"),
            ("a\nb\n", 0, ""),
            ("a\nb\n", 9, "a\nb\n"),
            (&format!("a\n{long}b\n"), 1, "b\n"),
            (&format!("a\n{long}b\n"), 2, &format!("{long}b\n")),
        ] {
            fs::write(&path, content).unwrap();
            let mut file = File::open(&path).unwrap();
            let start = start_of_last_lines(&mut file, count).unwrap() as usize;
            assert_eq!(&content[start..], expected);
        }
    }

    #[test]
    fn a_large_log_is_rotated_and_three_old_ones_are_kept() {
        let scratch = Scratch::new();
        let path = scratch.join("log");
        for round in 0..6 {
            fs::write(&path, vec![b'0' + round; MAX_SIZE as usize + 1]).unwrap();
            assert_eq!(open(&path).unwrap().metadata().unwrap().len(), 0);
        }
        for (number, round) in [(1, b'5'), (2, b'4'), (3, b'3')] {
            assert_eq!(fs::read(numbered(&path, number)).unwrap()[0], round);
        }
        assert!(!numbered(&path, 4).exists());
    }

    #[test]
    fn quotes_hold_only_the_lines_of_this_start_and_no_control_characters() {
        let scratch = Scratch::new();
        let path = scratch.join("log");
        fs::write(&path, b"old\nnew \x1b[31mred\n\n\xff\nlast\n").unwrap();
        assert_eq!(quote(&path, 4, 9), ["new [31mred", "\u{fffd}", "last"]);
        assert_eq!(quote(&path, 4, 1), ["last"]);
        fs::write(&path, format!("{}: the cause\n", "x".repeat(9000))).unwrap();
        assert!(quote(&path, 0, 1)[0].ends_with("xx: the cause"));
        fs::write(&path, format!("begun\npanic: boom\n\ngoroutine 1:\n{}", "\tat x.go\n".repeat(9999))).unwrap();
        assert_eq!(quote(&path, 0, 2), ["panic: boom", "goroutine 1:"]);
        assert_eq!(quote(Path::new("/nonexistent"), 0, 9), [""; 0]);
    }
}
