//! `stigmer local logs`

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use super::context;
use crate::cli::{Action, CommandSpec, OptionSpec, Typed, setting, switch};
use crate::clock::after;
use crate::error::{Error, Result};
use crate::log_file::{self, open_to_read, start_of_last_lines};
use crate::sys;

/// How soon a followed line is shown. No other way to see a file
/// grow exists on every system.
const POLL: Duration = Duration::from_millis(100);

const FOLLOW: OptionSpec = switch("follow", "keep printing what is appended, across rotation").short('f');
const LINES: OptionSpec = setting("lines", "N", "how many lines to show").short('n').default("100");

pub static COMMAND: CommandSpec = CommandSpec {
    path: "stigmer local logs",
    summary: "show the end of Temporal's log",
    usage: "[-f] [-n N]",
    options: &[&[&FOLLOW, &LINES]],
    notes: "\
Examples:
  stigmer local logs -f
  stigmer local logs -n 20
",
    action: Action::Run(logs),
    ..CommandSpec::PLAIN
};

fn logs(typed: &Typed) -> Result<u8> {
    let follow = typed.options.has(&FOLLOW);
    let lines = typed.options.value(&LINES).or(LINES.default.map(OsStr::new)).unwrap_or_default();
    let lines = lines.to_str().and_then(|text| text.parse().ok()).ok_or_else(|| {
        let text = format!("--lines takes a whole number, not '{}'", lines.display());
        typed.command.usage_error(text).hint("for example: stigmer local logs -n 20")
    })?;
    let path = context()?.home.instance.log();
    let mut file = match open_to_read(&path) {
        Ok(file) => Some(file),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound && follow => None,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            return Err(Error::new(format!("cannot show the log {}: it does not exist yet", path.display()))
                .hint("Temporal writes it while it runs: stigmer local start"));
        }
        Err(cause) => return Err(Error::io_in_home("read", &path, &cause)),
    };
    match show(&path, &mut file, follow, lines) {
        // The reader has seen enough.
        Err(cause) if cause.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::io("show the log", path.display(), &cause))
        }
        _ => Ok(0),
    }
}

fn show(path: &Path, file: &mut Option<File>, follow: bool, lines: u64) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    let mut position = 0;
    let mut previous = sys::identity(&log_file::previous(path)).ok();
    if let Some(file) = file {
        let (start, missing) = start_of_last_lines(file, lines)?;
        // It may have been rotated a moment ago.
        if missing > 0
            && let Ok(mut old) = open_to_read(&log_file::previous(path))
        {
            let (start, _) = start_of_last_lines(&mut old, missing)?;
            copy_from(&mut old, start, &mut stdout)?;
        }
        position = start + copy_from(file, start, &mut stdout)?;
    }
    while follow && !sys::wait_for_reader_gone(io::stdout().as_fd(), after(POLL)) {
        if let Some(open) = file {
            // Before it is asked why.
            let is_shorter = open.metadata()?.len() < position;
            if let Some(mut old) = moved_from(open, path, &mut previous) {
                copy_from(&mut old, position, &mut stdout)?;
                position = 0;
            } else if is_shorter {
                position = 0;
            }
            position += copy_from(open, position, &mut stdout)?;
        }
        // At a start, rotation gives the name to a new file; whoever wrote to
        // the old one has ended by then.
        if let Some(new) = reopened(path, file.as_ref()) {
            if let Some(old) = file.replace(new) {
                copy_from(&mut { old }, position, &mut stdout)?;
            }
            position = 0;
            previous = sys::identity(&log_file::previous(path)).ok();
        }
    }
    Ok(())
}

/// What was in the log until it was rotated under its writer: a new file, larger
/// than what has come since.
fn moved_from(log: &File, path: &Path, known: &mut Option<String>) -> Option<File> {
    let old = open_to_read(&log_file::previous(path)).ok()?;
    let identity = sys::identity_of(&old).ok();
    let is_new = identity != *known && old.metadata().ok()?.len() > log.metadata().ok()?.len();
    is_new.then(|| {
        *known = identity;
        old
    })
}

/// The file that has the name now, when it is another one.
fn reopened(path: &Path, file: Option<&File>) -> Option<File> {
    let identity = |file: &File| sys::identity_of(file).ok();
    let new = open_to_read(path).ok()?;
    (file.and_then(identity) != identity(&new)).then_some(new)
}

/// Copies bytes as they are, valid UTF-8 or not; returns how many.
fn copy_from(file: &mut File, position: u64, output: &mut impl Write) -> io::Result<u64> {
    file.seek(SeekFrom::Start(position))?;
    let mut buffer = vec![0; 64 << 10];
    let mut copied = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                output.write_all(&buffer[..count])?;
                copied += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    output.flush()?;
    Ok(copied)
}
