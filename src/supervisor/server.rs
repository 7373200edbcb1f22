//! The Temporal process: spawned, signalled, reaped.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::Plan;
use super::program::Program;
use crate::config::DatabaseChoice;
use crate::database::Database;
use crate::error::{Error, Result, reason};
use crate::release::Version;
use crate::sys::{self, SIGCONT, SIGKILL, SIGTERM};
use crate::{environment, notify};

/// How SQLite is to keep the database. Measured with 300 small workflows, 40 in
/// flight: with Temporal's defaults, a rollback journal that is synced at each
/// commit, 13 a second; with a write-ahead log that is synced only when it is
/// emptied into the database 44; in memory 38. A larger cache, memory
/// maps, temporary tables in memory and rarer checkpoints changed nothing.
const PRAGMAS: [(&str, &str); 2] = [("journal_mode", "WAL"), ("synchronous", "NORMAL")];
/// What takes the path of a file (Temporal CLI 1.9.1), but for the database.
const PATH_FLAGS: [&str; 3] = ["--config-file", "--env-file", "--ui-asset-path"];

/// A server that was spawned and not yet reaped. Dropped, it is killed: the
/// supervisor leaves nothing running on any path.
pub struct Server {
    child: Option<Child>,
    pid: u32,
}

impl Server {
    pub fn spawn(plan: &Plan<'_>, log: &File) -> Result<Server> {
        let program = Program::look_at(plan.home, &plan.choice.installed.executable)?;
        let mut command = command(plan, &program.path);
        write_to(&mut command, log)?;
        // Kept open by the server: the lock shows that the database is in use as
        // long as the server lives, even when this process does not; a script
        // is read by its interpreter through the directory.
        let lock = plan.database.as_ref().map(|database| database.lock().file());
        // What is in memory alone needs no time to be saved.
        let at_our_death = if plan.database.is_some() { SIGTERM } else { SIGKILL };
        let held = lock.into_iter().chain(&program.directory);
        Server::launch(command, held, at_our_death)
            .map_err(|cause| cannot_execute(&plan.choice.installed.executable, &cause))
    }

    /// Any other program, to be held in the same way.
    pub fn launch<'f>(
        mut command: Command,
        held: impl Iterator<Item = &'f File>,
        at_our_death: i32,
    ) -> io::Result<Server> {
        sys::prepare_server(&mut command, held, at_our_death);
        let child = command.spawn()?;
        let pid = child.id();
        Ok(Server { child: Some(child), pid })
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The status of a server that has ended, reaped together with whatever
    /// it left in its process group; None while it lives.
    pub fn reap_if_ended(&mut self) -> Option<ExitStatus> {
        if !sys::has_ended(self.pid) {
            return None;
        }
        // Before the reaping, while the group's number cannot be another's.
        sys::signal_group(self.pid, SIGKILL);
        self.child.take()?.wait().ok()
    }

    /// One that was suspended hears it, too.
    pub fn terminate(&self) {
        sys::signal(self.pid, SIGTERM);
        sys::signal(self.pid, SIGCONT);
    }

    /// Ends the whole group at once.
    pub fn kill(&self) {
        sys::signal_group(self.pid, SIGKILL);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            sys::signal_group(self.pid, SIGKILL);
            let _ = child.wait();
        }
    }
}

fn command(plan: &Plan<'_>, program: &Path) -> Command {
    let config = plan.config;
    let mut command = Command::new(program);
    command.arg0(&plan.choice.installed.executable);
    command.args(["server", "start-dev"]);
    command.arg("--ip").arg(config.ip.value.to_string());
    command.arg("--port").arg(plan.endpoints.frontend.port().to_string());
    if let Some(ui) = plan.endpoints.ui {
        command.arg("--ui-port").arg(ui.port().to_string());
        if config.offline.value && plan.choice.installed.version.as_ref().is_some_and(can_do_without_news) {
            command.arg("--ui-disable-news-fetch");
        }
    }
    if plan.database.as_ref().is_some_and(Database::can_have_wal) {
        command.args(pragma_options(&config.pragmas));
    }
    let in_home = config.database == DatabaseChoice::Home;
    let (elsewhere, name) = plan.database.as_ref().map_or((None, None), |database| {
        let (directory, name) = database.name_for_temporal();
        (directory, Some(name))
    });
    if let Some(name) = name.filter(|_| in_home) {
        command.arg("--db-filename").arg(name);
    }
    // It may be closed to this user, as after `sudo -u`.
    let elsewhere = elsewhere.or_else(|| (!can_enter(&plan.directory)).then_some(Path::new("/")));
    match elsewhere {
        None => command.args(&config.temporal_args).current_dir(&plan.directory),
        Some(directory) => command.args(absolute(&config.temporal_args, &plan.directory)).current_dir(directory),
    };
    if let Some(name) = name.filter(|_| elsewhere.is_some() && !in_home) {
        // The last one counts.
        command.arg("--db-filename").arg(name);
    }
    let home = plan.database.as_ref().and_then(|database| database.path().parent()).unwrap_or(&plan.directory);
    prepare_environment(&mut command, home);
    command
}

pub fn write_to(command: &mut Command, log: &File) -> Result<()> {
    let log = || log.try_clone().map_err(|cause| Error::io("open", "the log", &cause));
    command.stdin(Stdio::null()).stdout(log()?).stderr(log()?);
    Ok(())
}

/// What every Temporal of ours needs; `home` is for one that has none.
pub fn prepare_environment(command: &mut Command, home: &Path) {
    // A TEMPORAL_ENV that is not in the user's file ends even a server.
    for name in environment::foreign(&std::env::vars_os().collect::<Vec<_>>()) {
        command.env_remove(name);
    }
    for name in notify::VARIABLES {
        command.env_remove(name);
    }
    // Without one, in a container with no /etc/passwd, Temporal 1.9.1 ends
    // with "user: Current requires cgo or $USER set in environment".
    for (name, value) in [("USER", "stigmer".as_ref()), ("HOME", home.as_os_str())] {
        if std::env::var_os(name).is_none_or(|value| value.is_empty()) {
            command.env(name, value);
        }
    }
}

/// Whether the Web UI of this CLI can be kept from asking newsfeed.temporal.io,
/// as it does in each browser: 1.6.2 has no such flag, 1.8.0 has.
fn can_do_without_news(version: &Version) -> bool {
    let text = version.to_string();
    let mut numbers = text.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(1), Some(8))
}

fn can_enter(directory: &Path) -> bool {
    std::fs::metadata(directory.join(".")).is_ok()
}

/// Ours, but for those that the user sets. Without our journal none is left:
/// with a rollback journal `synchronous=NORMAL` could break the database.
fn pragma_options(of_user: &[OsString]) -> Vec<String> {
    let name_of = |pragma: &OsString| {
        let pragma = pragma.to_string_lossy();
        pragma.split('=').next().unwrap_or_default().trim().to_ascii_lowercase()
    };
    let theirs: Vec<_> = of_user.iter().map(name_of).collect();
    let is_theirs = |name: &str| theirs.iter().any(|their| their == name);
    if is_theirs("journal_mode") {
        return Vec::new();
    }
    let ours = PRAGMAS.iter().filter(|(name, _)| !is_theirs(name));
    ours.map(|(name, value)| format!("--sqlite-pragma={name}={value}")).collect()
}

/// The arguments for a Temporal that does not run in `directory`, where they
/// were typed: relative paths among them still begin there.
fn absolute(arguments: &[OsString], directory: &Path) -> Vec<OsString> {
    let is_path = |name: &[u8]| PATH_FLAGS.iter().any(|flag| flag.as_bytes() == name);
    let mut follows = false;
    let whole = |argument: &OsString| {
        let bytes = argument.as_bytes();
        let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
            Some(at) => (&bytes[..at], Some(OsStr::from_bytes(&bytes[at + 1..]))),
            None => (bytes, None),
        };
        let is_value = std::mem::replace(&mut follows, value.is_none() && is_path(name));
        match value.filter(|_| is_path(name)) {
            _ if is_value => directory.join(argument).into_os_string(),
            Some(value) => {
                let mut text = OsStr::from_bytes(name).to_owned();
                text.push("=");
                text.push(directory.join(value));
                text
            }
            None => argument.clone(),
        }
    };
    arguments.iter().map(whole).collect()
}

pub fn cannot_execute(executable: &Path, cause: &io::Error) -> Error {
    let error = Error::new(format!("cannot execute {}: {}", executable.display(), reason(cause)));
    match cause.raw_os_error() {
        Some(libc::ENOEXEC) => error.hint("it is not an executable for this machine"),
        Some(libc::EACCES) => error.hint("is it executable for you, and its disk not mounted noexec?"),
        Some(libc::ENOENT) => error.hint("the file or the program that interprets it is missing"),
        _ => error,
    }
}

/// `exit status 1`, or `signal 9 (SIGKILL)`.
pub fn in_words(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => {
            let name = signal_hook::low_level::signal_name(signal).unwrap_or("unknown");
            format!("signal {signal} ({name})")
        }
        (None, code) => format!("exit status {}", code.unwrap_or(-1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pragma_of_the_user_wins_and_his_journal_excludes_all_of_ours() {
        let options = |of_user: &[&str]| pragma_options(&of_user.iter().map(OsString::from).collect::<Vec<_>>());
        let (journal, synchronous) = ("--sqlite-pragma=journal_mode=WAL", "--sqlite-pragma=synchronous=NORMAL");
        assert_eq!(options(&[]), [journal, synchronous]);
        assert_eq!(options(&["cache_size=-65536"]), [journal, synchronous]);
        assert_eq!(options(&["Synchronous = FULL"]), [journal]);
        assert_eq!(options(&["journal_mode=DELETE"]), [""; 0]);
        assert_eq!(options(&["journal_mode=WAL", "synchronous=EXTRA"]), [""; 0]);
    }

    #[test]
    fn only_a_cli_that_knows_the_flag_is_told_to_fetch_no_news() {
        for (version, knows) in [("1.5.1", false), ("1.6.2", false), ("1.8.0", true), ("1.10.0", true), ("2.0.0", true)]
        {
            assert_eq!(can_do_without_news(&Version::parse(version).unwrap()), knows, "{version}");
        }
    }

    #[test]
    fn relative_paths_among_the_arguments_begin_where_they_were_typed() {
        let given = ["--ui-asset-path", "a", "--env-file=b", "--log-level", "c", "--config-file=/d", "--headless"];
        let wanted =
            ["--ui-asset-path", "/w/a", "--env-file=/w/b", "--log-level", "c", "--config-file=/d", "--headless"];
        let whole = absolute(&given.map(OsString::from), Path::new("/w"));
        assert_eq!(whole, wanted.map(OsString::from));
    }
}
