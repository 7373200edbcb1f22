//! A database as an executable makes it, to be compared with another one.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::diagnosis::{self, Cause, QUOTED_LINES};
use super::ephemeral::wait_until_serving;
use super::ports;
use super::program;
use super::server::{Server, cannot_execute, write_to};
use crate::clock::after;
use crate::error::Error;
use crate::events::{Events, Halt};
use crate::home::Home;
use crate::log_file;
use crate::sys::SIGKILL;

/// Makes one in `directory`; or says why there is none. It is whole when its
/// server serves, which is then killed: SQLite undoes what that one had begun.
pub fn make_database(
    home: &Home,
    executable: &Path,
    directory: &Path,
    limit: Duration,
    events: &mut Events,
) -> Result<Result<PathBuf, String>, Halt> {
    let (database, log_path) = (directory.join("fresh.db"), directory.join("temporal.log"));
    let mut choices = 0;
    loop {
        let log = log_file::open(&log_path)?;
        let start = log.metadata().map_or(0, |metadata| metadata.len());
        let (address, held) =
            ports::free(IpAddr::V4(Ipv4Addr::LOCALHOST)).map_err(|cause| Error::io("find", "a free port", &cause))?;
        drop(held);
        let (mut command, program) = program::command(home, executable)?;
        command.args(["server", "start-dev", "--headless", "--ip", "127.0.0.1", "--db-filename", "fresh.db"]);
        command.arg("--port").arg(address.port().to_string()).current_dir(directory);
        write_to(&mut command, &log)?;
        let mut server = Server::launch(command, program.directory.iter(), SIGKILL)
            .map_err(|cause| cannot_execute(executable, &cause))?;
        let Some(fault) = wait_until_serving(&mut server, address, after(limit), events)? else {
            return Ok(Ok(database));
        };
        let lines = log_file::quote(&log_path, start, QUOTED_LINES);
        choices += 1;
        if choices > ports::MAX_CHOICES || diagnosis::cause(&lines) != Some(Cause::PortTaken) {
            let last = lines.last().map_or(String::new(), |line| format!(": {line}"));
            return Ok(Err(format!("{}{last}", fault.in_words())));
        }
    }
}
