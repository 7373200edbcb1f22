//! The namespaces of the server that has just begun to serve: before anybody
//! reads that it is ready, they are what they were asked to be.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use super::{STOP_GRACE, Started, Supervisor};
use crate::clock::after;
use crate::config::namespaces::DEFAULT_NAMESPACE;
use crate::database::Database;
use crate::error::Error;
use crate::events::{Event, Halt};
use crate::namespaces::{self, Wait};
use crate::supervisor::diagnosis::Fault;
use crate::terminal::Mark;

/// Between the end of a process's connections and its own.
const DYING: Duration = Duration::from_millis(100);

impl Supervisor<'_> {
    /// To be called when a server serves. On a database that has served this
    /// daemon before there is nothing left to do.
    pub(super) fn establish_namespaces(&mut self) -> Result<Started, Halt> {
        let is_new = self.plan.database.as_ref().is_none_or(Database::is_new);
        if self.is_established && !is_new {
            return Ok(Started::Serving);
        }
        let (config, address) = (self.plan.config, self.plan.endpoints.address());
        let made = if is_new { self.made_by_temporal() } else { Vec::new() };
        match namespaces::establish(&config.namespaces, &made, address, self) {
            Ok(()) => {
                if let Some(database) = &self.plan.database {
                    database.completed();
                }
                self.is_established = true;
                Ok(Started::Serving)
            }
            Err(Halt::Failed(error)) => self.not_established(error),
            Err(halt) => Err(halt),
        }
    }

    /// What `start-dev` has made of a new database.
    fn made_by_temporal(&self) -> Vec<String> {
        let given = self
            .plan
            .config
            .namespace_args
            .iter()
            .filter_map(|name| name.to_str())
            .filter(|name| *name != DEFAULT_NAMESPACE);
        [DEFAULT_NAMESPACE].into_iter().chain(given).map(str::to_owned).collect()
    }

    /// The server may have ended meanwhile; if it has not, what nobody asked
    /// for is no reason to stop it, nor is what was there before.
    fn not_established(&mut self, error: Error) -> Result<Started, Halt> {
        let deadline = after(DYING);
        loop {
            if let Some(status) = self.reap() {
                return Ok(Started::Failed(Fault::Ended(status)));
            }
            if Supervisor::wait(self, Some(deadline))? == Event::Deadline {
                break;
            }
        }
        if self.plan.config.namespaces.ask_for_something() && !self.is_established {
            self.stop(STOP_GRACE)?;
            return Err(error.into());
        }
        self.terminal.line(Mark::Warning, &format!("Closed workflows may be kept for 24 h only: {}.", error.message()));
        Ok(Started::Serving)
    }
}

impl Wait for Supervisor<'_> {
    type Halt = Halt;

    fn interrupt(&self) -> Option<BorrowedFd<'_>> {
        Some(self.events.pending())
    }

    fn wait(&mut self, deadline: Instant) -> Result<(), Halt> {
        Supervisor::wait(self, Some(deadline)).map(drop)
    }
}
