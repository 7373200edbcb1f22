//! Temporal's log and the daemon's: opened for append, rotated at start and
//! under their writers, and read from the end without reading the rest.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::own_file::{self, beside};

/// A log that is larger is rotated.
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
    if fs::metadata(path).is_ok_and(|metadata| is_large(&metadata)) {
        make_room(path);
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

/// Whether the log is to be rotated. What is no file has no size.
pub fn is_due(log: &File) -> bool {
    log.metadata().is_ok_and(|metadata| is_large(&metadata))
}

fn is_large(metadata: &Metadata) -> bool {
    metadata.is_file() && metadata.len() > MAX_SIZE
}

/// Moves what `log`, open for append at `path`, holds to `.1`, under writers who
/// keep their descriptors: by copying and truncating. Most is copied while they
/// write; for the rest and the truncation `hold` keeps them still as long as its
/// value lives, so that not a byte comes between. Where it cannot, or the disk
/// is full, an error, and the log is as it was.
pub fn rotate<T>(log: &File, path: &Path, hold: impl FnOnce() -> Option<T>) -> io::Result<()> {
    let partial = beside(path, ".1.partial");
    let copied = match copy_to(&partial, path) {
        // The oldest one goes with the next rotation anyway.
        Err(cause) if matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
            own_file::remove_if_present(&numbered(path, KEPT))?;
            copy_to(&partial, path)
        }
        copied => copied,
    };
    let moved = copied.and_then(|(mut source, mut copy)| {
        let held = hold().ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "its writer cannot be held still"))?;
        io::copy(&mut source, &mut copy)?;
        make_room(path);
        // Whoever is killed in between leaves lines twice, and loses none.
        fs::rename(&partial, numbered(path, 1))?;
        log.set_len(0)?;
        drop(held);
        Ok(())
    });
    if moved.is_err() {
        let _ = own_file::remove_if_present(&partial);
    }
    moved
}

/// Both files, at the end of what was copied.
fn copy_to(copy: &Path, path: &Path) -> io::Result<(File, File)> {
    let (mut source, mut copy) = (open_to_read(path)?, own_file::create(copy)?);
    io::copy(&mut source, &mut copy)?;
    Ok((source, copy))
}

/// Moves the old logs on, so that `.1` is free.
fn make_room(path: &Path) {
    for number in (1..KEPT).rev() {
        let _ = fs::rename(numbered(path, number), numbered(path, number + 1));
    }
}

/// Opens a log to be read.
pub fn open_to_read(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(NO_WAITING).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_char_device() {
        // It keeps nothing, though it may be read without end.
        return File::open("/dev/null");
    }
    match kind.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::NotSeekable, "not a file")),
    }
}

/// The log that was rotated last.
pub fn previous(path: &Path) -> PathBuf {
    numbered(path, 1)
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    beside(path, &format!(".{number}"))
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
/// ones, or the first of a panic, or those before an explanation of the usage.
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
    let mut lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(printable).collect();
    // Behind an argument that is refused comes all that could have been given.
    if let Some(refusal) = lines.windows(2).position(|two| two[0].starts_with("Error: ") && two[1] == "Usage:") {
        lines.truncate(refusal + 1);
    }
    // Behind a panic of Go come the stacks of all its goroutines.
    let is_panic = |line: &String| line.starts_with("panic: ") || line.starts_with("fatal error: ");
    let from = lines.iter().position(is_panic).unwrap_or(lines.len().saturating_sub(count));
    lines.into_iter().skip(from).take(count).collect()
}

/// What was written first after `start`, as far as it may hold the line with
/// which Temporal begins; nothing where it cannot be read.
pub fn beginning(path: &Path, start: u64) -> String {
    let read = || {
        let (mut file, mut bytes) = (open_to_read(path)?, Vec::new());
        file.seek(SeekFrom::Start(start))?;
        file.take(BLOCK).read_to_end(&mut bytes)?;
        io::Result::Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

/// Where the last `count` lines begin, and how many of them are missing. Reads
/// backwards, block by block, so that the size of the file does not matter.
pub fn start_of_last_lines(file: &mut File, count: u64) -> io::Result<(u64, u64)> {
    let end = file.seek(SeekFrom::End(0))?;
    if count == 0 || end == 0 {
        return Ok((end, count));
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
                return Ok((at + 1, 0));
            }
        }
    }
    Ok((0, count - newlines - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use crate::sys;
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    fn the_last_lines_are_found_from_the_end() {
        let long = format!("{}\n", "x".repeat(200_000));
        let scratch = Scratch::new();
        let path = scratch.join("log");
        for (content, count, expected, missing) in [
            ("", 5, "", 5),
            ("a", 5, "a", 4),
            ("a\nb\nc\n", 2, "b\nc\n", 0),
            ("a\nb\nc", 2, "b\nc", 0),
            ("a\nb\nc", 3, "a\nb\nc", 0),
            ("a\nb\n\n", 2, "b\n\n", 0),
            ("a\nb\n", 0, "", 0),
            ("a\nb\n", 9, "a\nb\n", 7),
            (&format!("a\n{long}b\n"), 1, "b\n", 0),
            (&format!("a\n{long}b\n"), 2, &format!("{long}b\n"), 0),
        ] {
            fs::write(&path, content).unwrap();
            let mut file = File::open(&path).unwrap();
            let (start, absent) = start_of_last_lines(&mut file, count).unwrap();
            assert_eq!((&content[start as usize..], absent), (expected, missing), "{content:.9} {count}");
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
    fn a_log_is_rotated_under_its_writer_and_keeps_every_line() {
        let scratch = Scratch::new();
        let path = scratch.join("log");
        let log = open(&path).unwrap();
        let count = "i=0; while :; do i=$((i + 1)); echo line $i; done";
        let mut writer = Command::new("sh");
        writer.args(["-c", count]).stdout(log.try_clone().unwrap()).process_group(0);
        let mut writer = writer.spawn().unwrap();
        let hold = || {
            sys::signal_group(writer.id(), sys::SIGSTOP);
            while !sys::is_group_stopped(writer.id()) {
                std::thread::yield_now();
            }
            Some(())
        };
        let mut all = Vec::new();
        for _ in 0..20 {
            while log.metadata().unwrap().len() < 9999 {
                std::thread::yield_now();
            }
            rotate(&log, &path, hold).unwrap();
            assert_eq!(log.metadata().unwrap().len(), 0);
            sys::signal_group(writer.id(), sys::SIGCONT);
            all.extend(fs::read(previous(&path)).unwrap());
        }
        writer.kill().unwrap();
        writer.wait().unwrap();
        all.extend(fs::read(&path).unwrap());
        let text = String::from_utf8(all).unwrap();
        let wrong = text.lines().zip(1..).find(|(line, number)| **line != format!("line {number}"));
        assert_eq!(wrong, None);
        assert!(numbered(&path, 3).exists() && !numbered(&path, 4).exists());
    }

    #[test]
    fn a_log_whose_writer_does_not_stand_still_or_that_finds_no_room_stays_as_it_is() {
        let scratch = Scratch::new();
        let path = scratch.join("log");
        fs::write(&path, "new").unwrap();
        fs::write(previous(&path), "old").unwrap();
        let log = open(&path).unwrap();
        let holds = |path: &Path, text: &str| assert_eq!(fs::read_to_string(path).unwrap(), text);
        rotate(&log, &path, || None::<()>).unwrap_err();
        fs::create_dir(beside(&path, ".1.partial")).unwrap();
        rotate(&log, &path, || Some(())).unwrap_err();
        holds(&path, "new");
        holds(&previous(&path), "old");
        fs::remove_dir(beside(&path, ".1.partial")).unwrap();
        rotate(&log, &path, || Some(())).unwrap();
        holds(&previous(&path), "new");
        holds(&numbered(&path, 2), "old");
    }

    #[test]
    fn the_beginning_is_that_of_this_start_however_much_follows() {
        let scratch = Scratch::new();
        let path = scratch.join("log");
        fs::write(&path, format!("old\nfirst\n{}", "another\n".repeat(99_999))).unwrap();
        let beginning = beginning(&path, 4);
        assert!(beginning.starts_with("first\nanother\n") && beginning.len() == BLOCK as usize);
        assert_eq!(super::beginning(Path::new("/nonexistent"), 0), "");
    }

    #[test]
    fn a_log_that_is_a_device_is_empty() {
        let scratch = Scratch::new();
        let path = scratch.join("log");
        for device in ["/dev/null", "/dev/zero"] {
            std::os::unix::fs::symlink(device, &path).unwrap();
            let mut file = open_to_read(&path).unwrap();
            assert_eq!(start_of_last_lines(&mut file, 2).unwrap(), (0, 2), "{device}");
            assert_eq!(file.read(&mut [0; 9]).unwrap(), 0, "{device}");
            fs::remove_file(&path).unwrap();
        }
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
        fs::write(&path, format!("begun\nError: unknown flag: --x\nUsage:\n{}", "  --y\n".repeat(99))).unwrap();
        assert_eq!(quote(&path, 0, 2), ["begun", "Error: unknown flag: --x"]);
        assert_eq!(quote(Path::new("/nonexistent"), 0, 9), [""; 0]);
    }
}
