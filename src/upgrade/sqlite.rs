//! The program `sqlite3`, as a child that can be interrupted.
//!
//! It is fed from a file and writes to others, all in one directory, which is
//! gone afterwards: whatever it does, nobody waits for a pipe.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::clock::after;
use crate::error::{Error, Result, reason};
use crate::events::{Events, Halt};
use crate::log_file;
use crate::own_file::beside;
use crate::supervisor::{Server, in_words};
use crate::sys::SIGKILL;

/// The first with `PRAGMA table_list`.
const OLDEST: (u32, u32) = (3, 37);
/// For what takes milliseconds.
const SHORT: Duration = Duration::from_secs(10);
/// With this the scripts begin a line that says why not.
const REASON: &str = "!";
const TICK: Duration = Duration::from_millis(200);

/// A directory for what is only needed meanwhile; gone when this is dropped.
pub struct Workspace {
    pub path: PathBuf,
}

impl Workspace {
    /// Beside the database: what is made there is renamed to its name.
    pub fn create(database: &Path) -> Result<Workspace> {
        let workspace = Workspace { path: beside(database, ".workspace") };
        // Of one who was killed.
        workspace.remove();
        let made = fs::DirBuilder::new().mode(0o700).create(&workspace.path);
        made.map_err(|cause| Error::io_in_home("create", &workspace.path, &cause))?;
        Ok(workspace)
    }

    /// Nothing here makes a directory in it.
    fn remove(&self) {
        for entry in fs::read_dir(&self.path).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
        let _ = fs::remove_dir(&self.path).or_else(|_| fs::remove_file(&self.path));
    }

    /// Does `job` in it; what it printed, or why it failed. `tick` is called now
    /// and then.
    pub fn run(
        &self,
        job: Job<'_>,
        events: &mut Events,
        tick: &mut dyn FnMut(),
    ) -> Result<Result<String, String>, Halt> {
        let Job { mut command, held, input, limit } = job;
        let [input_path, output, errors] = ["input", "output", "errors"].map(|name| self.path.join(name));
        let open = || {
            fs::write(&input_path, input)?;
            command.stdin(File::open(&input_path)?).stdout(File::create(&output)?).stderr(File::create(&errors)?);
            command.current_dir(&self.path);
            Server::launch(command, held.into_iter(), SIGKILL)
        };
        let mut child = match open() {
            Ok(child) => child,
            Err(cause) => return Ok(Err(reason(&cause))),
        };
        let deadline = after(limit);
        let status = loop {
            if let Some(status) = child.reap_if_ended() {
                break status;
            }
            if Instant::now() >= deadline {
                return Ok(Err(format!("it did not end within {} s", limit.as_secs())));
            }
            tick();
            events.wait(Some(deadline.min(after(TICK))))?;
        };
        if status.success() {
            return Ok(Ok(fs::read_to_string(&output).unwrap_or_default()));
        }
        // What it had to say is on the first line, or it says how it ended.
        let said = log_file::quote(&errors, 0, usize::MAX).into_iter().next();
        let told = fs::read_to_string(&output).unwrap_or_default();
        let fault = told.lines().find(|line| line.starts_with(REASON)).map(str::to_owned);
        Ok(Err(fault.or(said).unwrap_or_else(|| in_words(status))))
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        self.remove();
    }
}

/// A program to be run.
pub struct Job<'a> {
    pub command: Command,
    /// What it needs to be open.
    pub held: Option<&'a File>,
    /// Its standard input.
    pub input: &'a str,
    pub limit: Duration,
}

/// One that can do what is needed.
pub struct Sqlite {
    program: PathBuf,
}

impl Sqlite {
    /// The first on PATH; or why there is none.
    pub fn find(
        variable: &dyn Fn(&str) -> Option<OsString>,
        workspace: &Workspace,
        events: &mut Events,
    ) -> Result<Result<Sqlite, String>, Halt> {
        let is_program = |path: &PathBuf| {
            fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
        };
        let path = variable("PATH").unwrap_or_default();
        // A relative directory is whichever one stands in.
        let directories = std::env::split_paths(&path).filter(|directory| directory.is_absolute());
        let Some(program) = directories.map(|directory| directory.join("sqlite3")).find(is_program) else {
            return Ok(Err("the program sqlite3, which compares and migrates databases, is not installed".into()));
        };
        let shown = program.display().to_string();
        let mut command = Command::new(&program);
        command.arg("-version");
        let job = Job { command, held: None, input: "", limit: SHORT };
        Ok(match workspace.run(job, events, &mut || {})? {
            Err(why) => Err(format!("{shown} does not work: {why}")),
            Ok(text) if version(&text).is_none_or(|version| version < OLDEST) => {
                let text = text.split_whitespace().next().unwrap_or("of an unknown version");
                Err(format!("{shown} is {text}, and {}.{} is needed", OLDEST.0, OLDEST.1))
            }
            Ok(_) => Ok(Sqlite { program }),
        })
    }

    /// Executes `script`; what it answered, or what the database is or why it
    /// cannot be. An answer begins with '='.
    pub fn execute(
        &self,
        script: &Script<'_>,
        workspace: &Workspace,
        events: &mut Events,
        tick: &mut dyn FnMut(),
    ) -> Result<Result<String, String>, Halt> {
        let mut command = Command::new(&self.program);
        command.args(["-batch", "-bail", "-list", "-noheader", "-init", "/dev/null"]).arg(script.database);
        let mut text = String::from(".timeout 5000\n");
        if let Some(old) = script.old {
            // Temporal's schema has strings in double quotes.
            text.push_str(".dbconfig dqs_ddl on\n.dbconfig dqs_dml on\n");
            let old = old.to_string_lossy().replace('\'', "''");
            text.push_str(&format!("ATTACH 'file:../{old}?mode=ro' AS old;\n"));
        }
        text.push_str(script.text);
        let job = Job { command, held: None, input: &text, limit: script.limit };
        let told = workspace.run(job, events, tick)?;
        Ok(told.map_err(|why| predicate(&why)).and_then(|told| {
            let answer = told.lines().find_map(|line| line.strip_prefix('='));
            answer.map(str::to_owned).ok_or_else(|| predicate("it did not answer"))
        }))
    }
}

/// What `sqlite3` is to do.
pub struct Script<'a> {
    pub text: &'a str,
    pub database: &'a Path,
    /// The name of the one beside the workspace, to be read alone.
    pub old: Option<&'a std::ffi::OsStr>,
    pub limit: Duration,
}

/// What sqlite3 said, without where in the script it was; of the script's own
/// reasons what they say.
fn predicate(why: &str) -> String {
    if let Some(reason) = why.strip_prefix(REASON) {
        return reason.to_owned();
    }
    let said = why.split_once(": ").filter(|(place, _)| place.contains("rror")).map_or(why, |(_, said)| said);
    // SQLITE_CORRUPT and SQLITE_NOTADB.
    match said.ends_with("(11)") || said.ends_with("(26)") {
        true => format!("is damaged: {said}"),
        false => format!("cannot be read or copied by sqlite3: {said}"),
    }
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split_whitespace().next()?.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_sqlite_says_is_put_into_words() {
        for (said, predicate_of) in [
            ("!has a row too many", "has a row too many"),
            (
                "Runtime error near line 4: unable to open database: x (11)",
                "is damaged: unable to open database: x (11)",
            ),
            (
                "Error: near line 9: disk I/O error (10)",
                "cannot be read or copied by sqlite3: near line 9: disk I/O error (10)",
            ),
            ("signal 9 (SIGKILL)", "cannot be read or copied by sqlite3: signal 9 (SIGKILL)"),
        ] {
            assert_eq!(predicate(said), predicate_of);
        }
    }

    #[test]
    fn the_version_of_sqlite_is_understood() {
        assert_eq!(version("3.40.1 2022-12-28 14:03:47 df5c\n"), Some((3, 40)));
        assert!(version("3.37.0 x").unwrap() >= OLDEST && version("3.36.9").unwrap() < OLDEST);
        assert!(version("4.0").unwrap() > OLDEST);
        assert_eq!((version(""), version("sqlite3")), (None, None));
    }
}
