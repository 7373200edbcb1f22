//! A Temporal that somebody else runs: found, asked whether one can work with
//! it, and asked again for as long as the daemon serves it.

mod cause;
mod probe;
mod tls;
mod watch;

use std::ffi::OsString;
use std::thread;
use std::time::{Duration, Instant};

use crate::certificates;
use crate::clock::after;
use crate::config::{Connection, Encryption, External};
use crate::error::{Error, Result};
use crate::grpc::Patience;
use crate::state;
use crate::terminal::{Mark, Terminal};

pub use probe::Probe;
use probe::{Failure, Found};
pub use watch::{CHECK_LIMIT, CHECK_SIGNAL, watch};

/// For all addresses of the name together.
const TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);

/// Reports which Temporal is used and why, and makes sure that one can work
/// with it. What it returns is for the daemon's state and for clients.
pub fn connect(
    external: &External,
    variable: &dyn Fn(&str) -> Option<OsString>,
    terminal: &mut Terminal,
) -> Result<state::External> {
    let connection = &external.connection;
    let (address, source) = (&connection.address.value, connection.address.source);
    for flag in &external.ignored {
        terminal.line(Mark::Warning, &format!("--{flag} is ignored: {source} selects an external Temporal"));
    }
    for name in ["TEMPORAL_CONFIG_FILE", "TEMPORAL_PROFILE"] {
        if variable(name).is_some_and(|value| !value.is_empty()) {
            terminal.line(Mark::Warning, &format!("{name} is ignored: stigmer reads no temporal.toml"));
        }
    }
    terminal.line(Mark::Info, &format!("Using external Temporal: {address} (from {source})"));
    if let Encryption::Always(tls, _) = &connection.encryption
        && let Some(by) = tls.unverified
    {
        terminal.line(Mark::Warning, &format!("{by}: whoever answers there is trusted, no certificate is checked."));
    }
    let found = wait_until_serving(&probe(connection, variable)).map_err(|cause| {
        let drop_it = || format!("check the address and that Temporal runs there, or drop {source} to use a local one");
        Error::new(format!("cannot use the external Temporal {address} (from {source}): {}", cause.why))
            .hint(cause.hint.unwrap_or_else(drop_it))
    })?;
    report(connection, &found, terminal);
    let variables = connection.variables(found.tls.is_some());
    let text = |value: OsString| value.into_string().ok();
    Ok(state::External {
        tls: found.tls.map(str::to_owned),
        server: found.server,
        variables: variables.into_iter().map(|(name, value)| (name.to_owned(), value.and_then(text))).collect(),
        lost: None,
        checks: 0,
    })
}

pub fn probe<'a>(connection: &'a Connection, variable: &dyn Fn(&str) -> Option<OsString>) -> Probe<'a> {
    Probe { connection, additional: certificates::file(variable) }
}

/// What is known of one that is encrypted or wants credentials: more than that
/// it answers.
fn report(connection: &Connection, found: &Found, terminal: &mut Terminal) {
    for (namespace, why) in &found.forbidden {
        let text = format!("These credentials may not ask whether namespace {namespace} is there ({why}); going on.");
        terminal.line(Mark::Warning, &text);
    }
    if found.tls.is_some() || connection.has_credentials() {
        let is_known = |name: &&String| found.forbidden.iter().all(|(forbidden, _)| forbidden != *name);
        let namespaces = connection.namespaces.value.iter().filter(is_known).map(|name| format!("namespace {name}"));
        let server = found.server.as_ref().map(|version| format!("server {version}"));
        let known = found.tls.map(str::to_owned).into_iter().chain(server).chain(namespaces);
        let known = known.collect::<Vec<_>>().join(", ");
        terminal.line(Mark::Done, &format!("External Temporal is serving ({known})"));
    }
}

/// One that answers and does not serve is asked until the end of the time.
fn wait_until_serving(probe: &Probe<'_>) -> Result<Found, cause::Cause> {
    let deadline = after(TIMEOUT);
    let mut has_answered = false;
    loop {
        match probe.ask(Patience { deadline, interrupt: None }) {
            Ok(found) => return Ok(found),
            Err(Failure::NotServing) => has_answered = true,
            // It was just too little time for one more answer.
            Err(_) if has_answered => {}
            Err(failure) => return Err(in_words(failure)),
        }
        if Instant::now() + RETRY >= deadline {
            let text = format!("it answers, but did not serve within {} s", TIMEOUT.as_secs());
            return Err(cause::Cause::new(text).hint("wait until it serves, and see its own log"));
        }
        thread::sleep(RETRY);
    }
}

fn in_words(failure: Failure) -> cause::Cause {
    match failure {
        Failure::Unusable(cause) => cause,
        Failure::Unreachable(why) => cause::Cause::new(why),
        Failure::NotServing | Failure::Interrupted => cause::Cause::new("it answers, but does not serve"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{self, Options};
    use crate::config::{self, Config};
    use std::path::Path;

    /// Why `address` cannot be used.
    fn why(address: &str) -> String {
        let mut options = Options::default();
        options.push(&cli::TEMPORAL_HOST, address);
        let Config::External(external) = config::resolve(&options, &|_| None, &[], Path::new("/")).unwrap() else {
            panic!("{address} is external")
        };
        let probe = Probe { connection: &external.connection, additional: None };
        wait_until_serving(&probe).unwrap_err().why
    }

    #[test]
    fn a_refusing_address_is_reported_with_its_cause() {
        // tcpmux: nobody serves it, and no test is ever given this port.
        assert_eq!(why("127.0.0.1:1"), "127.0.0.1:1: connection refused");
    }

    #[test]
    fn a_name_that_is_none_is_reported_as_such() {
        assert_eq!(why("nowhere.invalid"), "the name cannot be resolved");
    }
}
