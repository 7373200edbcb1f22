//! The executable, looked at before each start and held, so that what was
//! looked at is what is executed.
//!
//! Its directory is what is held: nobody but trusted users can change what has a
//! name in there, and the process is still called `temporal`. Where /proc does
//! not lead to it, the path is executed. An executable that the user named is
//! taken at his word.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::server::prepare_environment;
use crate::error::Result;
use crate::home::Home;
use crate::{ownership, sys};

pub struct Program {
    pub directory: Option<File>,
    /// By which it is to be executed.
    pub path: PathBuf,
}

impl Program {
    pub fn look_at(home: &Home, executable: &Path) -> Result<Program> {
        let installation = &home.installation;
        if executable.parent() != Some(&installation.directory) {
            return Ok(Program { directory: None, path: executable.to_owned() });
        }
        let owner = ownership::create_root(home.root())?;
        let directory = ownership::hold(&installation.directory, owner)?;
        let held = executable.file_name().map(Path::new).and_then(|name| path_in(&directory, name));
        let path = held.unwrap_or_else(|| executable.to_owned());
        // What is missing is reported by the attempt to execute it.
        if path.exists() {
            ownership::check_executable(&path, executable, owner)?;
        }
        Ok(Program { directory: Some(directory), path })
    }
}

/// A command that executes it as it was looked at; the program is to be held
/// until then.
pub fn command(home: &Home, executable: &Path) -> Result<(Command, Program)> {
    let program = Program::look_at(home, executable)?;
    let mut command = Command::new(&program.path);
    command.arg0(executable);
    prepare_environment(&mut command, &home.installation.directory);
    Ok((command, program))
}

/// A path to `name` that begins in `directory` itself, where the system has one.
fn path_in(directory: &File, name: &Path) -> Option<PathBuf> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    let leads_there = sys::identity(&path).ok()? == sys::identity_of(directory).ok()?;
    leads_there.then(|| path.join(name))
}
