//! The small files that stigmer keeps for itself: locks, state, receipt.
//!
//! A link in their place is not followed, and a FIFO not waited for: either is
//! an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Opens `path` as `options` say; a file that this creates is private to the user.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let file = options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::NotSeekable, "not a file")),
    }
}

/// A new file at `path`, in place of whatever is there.
pub fn create(path: &Path) -> io::Result<File> {
    remove_if_present(path)?;
    open(path, File::options().write(true).create_new(true))
}

/// Gives `path` the content `text`, whole: a reader sees the old one or the new
/// one. On disk before it has its name, where it `must_last`.
pub fn replace(path: &Path, text: &str, must_last: bool) -> io::Result<()> {
    let partial = beside(path, ".partial");
    let mut file = create(&partial)?;
    file.write_all(text.as_bytes())?;
    if must_last {
        file.sync_all()?;
    }
    fs::rename(&partial, path)
}

/// The path of which the name is that of `path`, and `suffix`.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The text of `path`.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(path, File::options().read(true))?.read_to_string(&mut text)?;
    Ok(text)
}

/// The value of a line `NAME=VALUE`.
#[inline(never)]
pub fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
}

/// Adds such a line, where there is a value.
#[inline(never)]
pub fn push_field(text: &mut String, name: &str, value: Option<&str>) {
    if let Some(value) = value {
        for part in [name, "=", value, "\n"] {
            text.push_str(part);
        }
    }
}

/// Whether a failed attempt to read says nothing of what is there.
pub fn is_hidden(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::PermissionDenied
        || matches!(cause.raw_os_error(), Some(libc::EIO | libc::ESTALE | libc::EMFILE | libc::ENFILE | libc::ENOMEM))
}

pub fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(cause) if cause.kind() != io::ErrorKind::NotFound => Err(cause),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_is_not_a_file_is_neither_followed_nor_waited_for() {
        let directory = Scratch::new();
        let (victim, link, fifo) = (directory.join("victim"), directory.join("link"), directory.join("fifo"));
        create(&victim).unwrap().write_all(b"precious").unwrap();
        symlink(&victim, &link).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
        assert_eq!(read(&victim).unwrap(), "precious");
        for path in [link.as_path(), &fifo, &directory] {
            assert!(read(path).is_err(), "{}", path.display());
            assert!(open(path, File::options().write(true)).is_err(), "{}", path.display());
        }
        create(&link).unwrap().write_all(b"new").unwrap();
        create(&fifo).unwrap();
        assert_eq!((read(&victim).unwrap(), read(&link).unwrap()), ("precious".into(), "new".into()));
    }
}
