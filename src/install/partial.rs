//! The file that is being made, under a name of its own until it is whole.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::kept::Extent;
use crate::error::{Error, Result};
use crate::terminal::Terminal;
use crate::{own_file, ownership, sys};

/// Removed when this is dropped, and when a signal ends the process, which then
/// says what is kept.
pub struct Partial {
    path: PathBuf,
    removed_on_signal: Option<sys::Handlers>,
}

impl Partial {
    /// Makes the file; nothing may be there.
    pub fn create(path: PathBuf, kept: Arc<Extent>, terminal: &Terminal) -> Result<Partial> {
        let (output, end, mark) = terminal.last_line();
        let words = move |mut buffer: &mut [u8]| {
            let room = buffer.len();
            let _ = match kept.is_empty() {
                true => write!(buffer, "{end}"),
                false => writeln!(buffer, "{end}{mark} {kept}"),
            };
            room - buffer.len()
        };
        let create = || {
            let removed_on_signal = sys::remove_on_signal(&path, output, words)?;
            own_file::open(&path, File::options().write(true).create_new(true))?;
            Ok(removed_on_signal)
        };
        let handlers = create().map_err(|cause| Error::io_in_home("create", &path, &cause))?;
        Ok(Partial { path, removed_on_signal: Some(handlers) })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on a signal is the caller's to heed.
    pub fn leave_signals(&mut self) {
        self.removed_on_signal = None;
    }

    pub fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(Path::new("/"))
    }

    /// The file to write to, empty; a new one, as the one before may have other
    /// names.
    pub fn open(&self) -> Result<File> {
        self.open_new().map_err(|cause| Error::io_in_home("write", &self.path, &cause))
    }

    fn open_new(&self) -> io::Result<File> {
        own_file::create(&self.path)
    }

    /// The executable at `from`, under this name: a link to it, or a copy where
    /// there can be none; to be verified, and then completed. Whose it is, and who
    /// else may write to it, is checked under the new name, which nobody else can
    /// give to another.
    pub fn take(&self, from: &Path) -> Result<File> {
        let take = || {
            own_file::remove_if_present(&self.path)?;
            if fs::hard_link(from, &self.path).is_err() {
                io::copy(&mut own_file::open(from, File::options().read(true))?, &mut self.open_new()?)?;
            }
            own_file::open(&self.path, File::options().read(true))
        };
        let file = take().map_err(|cause| Error::io_in_home("write", &self.path, &cause))?;
        ownership::check_executable(&self.path, &self.path, sys::effective_user())?;
        Ok(file)
    }

    /// Makes what was written to `file` executable and durable. Closes it: the
    /// system executes nothing that is open for writing.
    pub fn complete(&self, file: File) -> Result<Metadata> {
        let complete = || {
            file.set_permissions(fs::Permissions::from_mode(0o755))?;
            file.sync_all()?;
            file.metadata()
        };
        complete().map_err(|cause| Error::io_in_home("write", &self.path, &cause))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use crate::terminal::Stream;
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[test]
    fn what_is_complete_can_be_executed_where_it_lies_and_is_removed_unless_it_is_moved() {
        let scratch = Scratch::new();
        let path = scratch.join("temporal");
        let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        let create = || Partial::create(path.clone(), Arc::default(), &Terminal::new(Stream::Nowhere, &|_| None));
        let partial = create().unwrap();
        assert!(create().is_err());
        partial.open().unwrap().write_all(b"#!/bin/sh\nexit 9 # of an earlier attempt").unwrap();
        let mut file = partial.open().unwrap();
        file.write_all(b"#!/bin/sh\nexit 7\n").unwrap();
        assert_eq!(mode(), 0o600);
        assert_eq!(partial.complete(file).unwrap().len(), 17);
        assert_eq!(mode(), 0o755);
        // Another test's child may hold the file open until it executes.
        let deadline = Instant::now() + Duration::from_secs(10);
        let status = loop {
            match Command::new(partial.path()).status() {
                Err(cause) if cause.kind() == std::io::ErrorKind::ExecutableFileBusy && Instant::now() < deadline => {}
                status => break status.unwrap(),
            }
        };
        assert_eq!(status.code(), Some(7));
        drop(partial);
        assert!(!path.exists());
    }
}
