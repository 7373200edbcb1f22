//! The one error type, and the words for causes that come from the system.
//!
//! An error says what failed, on what, why, and what to do next. It is worded
//! once, where the object is known; nothing here guesses what that is.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::sys;

pub type Result<T, E = Error> = std::result::Result<T, E>;

const PREFIX: &str = "error: ";
const LOG_PREFIX: &str = "  | ";
const HINT_PREFIX: &str = "hint: ";
const IN_THE_WAY: &str = "something else is in the way; move it, or set STIGMER_HOME to another directory";

/// A failure as the user reads it: `error: WHAT: WHY`, the end of Temporal's
/// log where it explains the failure, and `hint: WHAT TO DO`.
///
/// In a box: it is seldom there, but passed on at every step, where its size is
/// that of the program.
#[derive(Debug, Clone)]
pub struct Error {
    parts: Box<Parts>,
}

#[derive(Debug, Clone)]
struct Parts {
    message: String,
    hint: Option<String>,
    usage: Option<String>,
    log_tail: Vec<String>,
    exit_code: u8,
}

impl Error {
    pub fn new(message: impl Into<String>) -> Error {
        Error::of(message.into())
    }

    fn of(message: String) -> Error {
        let parts = Parts { message, hint: None, usage: None, log_tail: Vec::new(), exit_code: 1 };
        Error { parts: Box::new(parts) }
    }

    /// The error of another process, from the text that it printed.
    pub fn relayed(text: &str) -> Error {
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let mut error = Error::new(first.strip_prefix(PREFIX).unwrap_or(first));
        for line in lines {
            match (line.strip_prefix(LOG_PREFIX), line.strip_prefix(HINT_PREFIX)) {
                (Some(line), _) => error.parts.log_tail.push(line.into()),
                (None, Some(hint)) => error.parts.hint = Some(hint.into()),
                (None, None) => {}
            }
        }
        error
    }

    /// Wrong words on the command line or in a variable: exit code 2.
    pub fn usage(message: impl Into<String>) -> Error {
        Error::new(message).with_exit_code(2)
    }

    /// "cannot ACTION OBJECT: CAUSE" for a failed system call. What to do about
    /// it only the caller knows, unless it is a limit of this process.
    pub fn io(action: &str, object: impl fmt::Display, cause: &io::Error) -> Error {
        let error = Error::new(format!("cannot {action} {object}: {}", reason(cause)));
        match (cause.kind(), cause.raw_os_error()) {
            (io::ErrorKind::FileTooLarge, _) => error.hint("the limit of a file's size is too low here: ulimit -f"),
            (_, Some(libc::EMFILE | libc::ENFILE)) => {
                error.hint("too many files are open here: ulimit -n raises the limit, closing others helps too")
            }
            _ => error,
        }
    }

    /// The same for a file of stigmer's own, where another home is a way out.
    pub fn io_in_home(action: &str, path: &Path, cause: &io::Error) -> Error {
        let error = Error::io(action, path.display(), cause);
        let hint = match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "free some space, or set STIGMER_HOME to a directory on another disk"
            }
            io::ErrorKind::PermissionDenied => return error.hint(way_in(path)),
            io::ErrorKind::ReadOnlyFilesystem => {
                "make its disk writable, or set STIGMER_HOME to a directory on another one"
            }
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory | io::ErrorKind::NotSeekable => IN_THE_WAY,
            // A link; a FIFO.
            _ if matches!(cause.raw_os_error(), Some(libc::ELOOP | libc::ENXIO)) => IN_THE_WAY,
            _ => return error,
        };
        error.hint(hint)
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.parts.hint = Some(hint.into());
        self
    }

    /// How the command is typed, to be shown behind the message.
    pub fn usage_line(mut self, usage: String) -> Error {
        self.parts.usage = Some(usage);
        self
    }

    /// The last lines of Temporal's log, to be shown between error and hint.
    pub fn with_log_tail(mut self, lines: Vec<String>) -> Error {
        self.parts.log_tail = lines;
        self
    }

    pub fn with_exit_code(mut self, code: u8) -> Error {
        self.parts.exit_code = code;
        self
    }

    /// Puts what was being done before the cause: `CONTEXT: MESSAGE`.
    pub fn in_context(mut self, context: &str) -> Error {
        self.parts.message = format!("{context}: {}", self.parts.message);
        self
    }

    pub fn exit_code(&self) -> u8 {
        self.parts.exit_code
    }

    pub fn message(&self) -> &str {
        &self.parts.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}", one_line(&self.parts.message))?;
        if let Some(usage) = &self.parts.usage {
            write!(f, "\nusage: {}", one_line(usage))?;
        }
        for line in &self.parts.log_tail {
            write!(f, "\n{LOG_PREFIX}{}", one_line(line))?;
        }
        match &self.parts.hint {
            Some(hint) => write!(f, "\n{HINT_PREFIX}{}", one_line(hint)),
            None => Ok(()),
        }
    }
}

/// What to do about a file that may not be touched: it depends on whose it is.
fn way_in(path: &Path) -> String {
    let me = sys::effective_user();
    let owner = |path: &Path| Some(std::fs::symlink_metadata(path).ok()?.uid());
    // From it upwards, as far as one can see.
    let seen: Vec<_> = path.ancestors().filter_map(|above| Some((above, owner(above)?))).collect();
    let of_others = seen.iter().take_while(|(_, owner)| *owner != me).count();
    match seen.as_slice() {
        [(_, 0), ..] if (1..seen.len()).contains(&of_others) => {
            let top = seen[of_others - 1].0;
            // Rarely it is the only one.
            let home = path.ancestors().find(|above| above.ends_with(".stigmer")).unwrap_or(top);
            let (top, home) = (top.display(), home.display());
            format!("{top} belongs to root, as after sudo; to have all back: sudo chown -R {me} {home}")
        }
        [(lowest, owner), ..] if of_others > 0 => {
            let (lowest, whose) = (lowest.display(), if *owner == 0 { "root".into() } else { format!("uid {owner}") });
            format!("{lowest} belongs to {whose}: do this as that user, or set STIGMER_HOME to a directory of your own")
        }
        _ => "give yourself access to it, or set STIGMER_HOME to a directory of your own".into(),
    }
}

/// The text with its control characters escaped: what comes from elsewhere, a
/// name in an archive or a path, neither steers the terminal nor begins a line
/// that looks like ours.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => line.push(character),
            control if control.is_control() => line.extend(control.escape_default()),
            other => line.push(other),
        }
    }
    line
}

/// The cause in words: what the system says, without "(os error N)" after it.
pub fn reason(cause: &io::Error) -> String {
    let text = cause.to_string();
    let text = match text.find(" (os error ") {
        Some(end) => &text[..end],
        None => &text,
    };
    let mut characters = text.chars();
    match characters.next() {
        // "Permission denied" reads as "permission denied" after a colon; "I/O" stays.
        Some(first) if !text[first.len_utf8()..].starts_with(char::is_uppercase) && !text.starts_with("I/O") => {
            first.to_lowercase().chain(characters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_from_the_system_is_worded_without_its_number() {
        let cause = io::Error::from_raw_os_error(libc::ENOENT);
        assert_eq!(reason(&cause), "no such file or directory");
    }

    #[test]
    fn an_error_prints_message_log_and_hint_in_this_order() {
        let error = Error::new("cannot start Temporal: exit status 1")
            .with_log_tail(vec!["bind: address already in use".into()])
            .hint("choose another port with --port");
        assert_eq!(
            error.to_string(),
            "error: cannot start Temporal: exit status 1\n  | bind: address already in use\nhint: choose another port with --port"
        );
    }

    #[test]
    fn another_home_is_suggested_for_files_of_the_home_alone() {
        let access = if sys::effective_user() == 0 { "give yourself access" } else { "/ belongs to " };
        for (number, way_out) in [
            (libc::ENOSPC, "free some space"),
            (libc::EDQUOT, "free some space"),
            (libc::EACCES, access),
            (libc::EROFS, "writable"),
            (libc::EISDIR, "move it"),
            (libc::ENOTDIR, "move it"),
            (libc::ELOOP, "move it"),
            (libc::ENXIO, "move it"),
        ] {
            let cause = io::Error::from_raw_os_error(number);
            let hint = Error::io_in_home("write", Path::new("/x"), &cause).parts.hint.unwrap();
            assert!(hint.contains(way_out) && hint.contains("STIGMER_HOME"), "{number}: {hint}");
            assert_eq!(Error::io("write", "/x", &cause).parts.hint, None, "{number}");
        }
    }

    #[test]
    fn nothing_that_is_quoted_looks_like_a_line_of_ours() {
        let error = Error::new("cannot unpack a\nhint: rm -rf ~\x1b[2J: why")
            .with_log_tail(vec!["x\rerror: y".into()])
            .hint("see z\n[✓] Stigmer Daemon Ready.");
        let text = error.to_string();
        assert_eq!(text.lines().count(), 3, "{text}");
        assert!(!text.contains(['\r', '\x1b']), "{text}");
        assert_eq!(Error::relayed(&text).to_string(), text);
    }
}
