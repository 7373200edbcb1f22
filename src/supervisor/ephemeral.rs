//! A Temporal for one command: in memory, never started again, and killed when
//! it is dropped, for there is nothing to save.
//!
//! Its log has no name as long as nothing fails, so that nothing is left of it
//! even when this process is killed.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use super::diagnosis::{self, Cause, Evidence, Fault, QUOTED_LINES};
use super::listener;
use super::ports::{self, Endpoints};
use super::readiness::{PROBE_INTERVAL, STRANGER_INTERVAL, limit_of_probe};
use super::server::{Server, in_words};
use super::{Plan, check_ports};
use crate::clock::{after, unix_time, utc};
use crate::error::{Error, Result, reason};
use crate::events::{Events, Halt};
use crate::health::{self, Health};
use crate::log_file;
use crate::namespaces;

pub struct Ephemeral<'a> {
    plan: Plan<'a>,
    log: File,
    /// None once it has ended.
    server: Option<Server>,
}

impl<'a> Ephemeral<'a> {
    /// Starts Temporal and returns when it serves.
    pub fn start(plan: Plan<'a>, events: &mut Events) -> Result<Ephemeral<'a>, Halt> {
        check_ports(plan.config)?;
        let log = log_file::nameless(plan.home.instance.log_directory())?;
        let mut temporal = Ephemeral { plan, log, server: None };
        let mut choices = 1;
        while let Some(fault) = temporal.try_to_start(events)? {
            let can_choose = choices < ports::MAX_CHOICES && ports::are_free_to_choose(temporal.plan.config);
            if !can_choose || diagnosis::cause(&temporal.log_tail()) != Some(Cause::PortTaken) {
                let timeout = temporal.plan.config.ready_timeout.value;
                return Err(temporal.evidence().cannot_start(fault, timeout).into());
            }
            choices += 1;
            temporal.plan.endpoints = Endpoints::choose(temporal.plan.config)?;
            // What one that is forgotten has said explains nothing.
            temporal.log.set_len(0).map_err(|cause| Error::io("write", "the log", &cause))?;
        }
        namespaces::establish(&temporal.plan.config.namespaces, &[], temporal.plan.endpoints.address(), events)?;
        Ok(temporal)
    }

    fn try_to_start(&mut self, events: &mut Events) -> Result<Option<Fault>, Halt> {
        let mut server = match Server::spawn(&self.plan, &self.log) {
            Ok(server) => server,
            Err(error) => return Ok(Some(Fault::NotSpawned(error))),
        };
        let deadline = after(self.plan.config.ready_timeout.value);
        let fault = wait_until_serving(&mut server, self.plan.endpoints.address(), deadline, events)?;
        if fault.is_none() {
            self.server = Some(server);
        }
        Ok(fault)
    }

    pub fn endpoints(&self) -> Endpoints {
        self.plan.endpoints
    }

    pub fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// How it ended, when it has; said once.
    pub fn ended(&mut self) -> Option<String> {
        let status = self.server.as_mut()?.reap_if_ended()?;
        self.server = None;
        Some(in_words(status))
    }

    /// The end of its log, and where all of it lies from now on.
    pub fn explain(&self, error: Error) -> Error {
        self.evidence().explain(error, None)
    }

    fn log_tail(&self) -> Vec<String> {
        log_file::quote_from(&self.log, 0, QUOTED_LINES)
    }

    fn evidence(&self) -> Evidence {
        let log = match self.keep_log() {
            Ok(path) => self.plan.home.display(&path),
            Err(cause) => format!("nothing more: its log could not be kept ({})", reason(&cause)),
        };
        Evidence { address: self.plan.endpoints.address(), lines: self.log_tail(), database: None, log }
    }

    /// Gives the log a place under a name. Several may do so at once.
    fn keep_log(&self) -> io::Result<PathBuf> {
        let path = self.plan.home.instance.ephemeral_log();
        let mut kept = log_file::open(&path).map_err(|error| io::Error::other(error.message().to_owned()))?;
        let (time, address) = (utc(unix_time()), self.plan.endpoints.frontend);
        writeln!(kept, "=== {time} an ephemeral Temporal on {address}")?;
        let mut log = &self.log;
        log.rewind()?;
        io::copy(&mut log, &mut kept)?;
        Ok(path)
    }
}

/// None when the server serves at `address`; or why it does not.
pub fn wait_until_serving(
    server: &mut Server,
    address: SocketAddr,
    deadline: Instant,
    events: &mut Events,
) -> Result<Option<Fault>, Halt> {
    let mut stranger = false;
    loop {
        if let Some(status) = server.reap_if_ended() {
            return Ok(Some(Fault::Ended(status)));
        }
        let began = Instant::now();
        let answer = health::check(address, limit_of_probe(began, deadline), Some(events.pending()));
        let serves = answer == Health::Serving;
        if serves && listener::is_of(server.pid(), address) {
            return Ok(None);
        }
        stranger |= serves;
        if began >= deadline {
            return Ok(Some(if stranger { Fault::PortOfAnother } else { Fault::TimedOut }));
        }
        events.wait(Some(after(if serves { STRANGER_INTERVAL } else { PROBE_INTERVAL })))?;
    }
}
