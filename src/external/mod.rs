//! A Temporal that somebody else runs: found, and asked whether it serves.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use crate::clock::after;
use crate::config::{Address, Connection, External};
use crate::error::{Error, Result};
use crate::health::{self, Health};
use crate::terminal::{Mark, Terminal};

/// For all addresses of the name together.
const TIMEOUT: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(100);

/// Reports which Temporal is used and why, and checks that it can be reached.
pub fn connect(config: &External, terminal: &mut Terminal) -> Result<()> {
    let Connection { address, .. } = &config.connection;
    let (address, source) = (&address.value, address.source);
    for flag in &config.ignored {
        terminal.line(Mark::Warning, &format!("--{flag} is ignored: {source} selects an external Temporal"));
    }
    terminal.line(Mark::Info, &format!("Using external Temporal: {address} (from {source})"));
    match reach(address, TIMEOUT) {
        Ok(Reached::Serving) => Ok(()),
        Ok(Reached::Connected) => {
            let text = "It takes connections, but answers no cleartext gRPC health check (TLS, perhaps).";
            terminal.line(Mark::Info, text);
            Ok(())
        }
        Err(why) => Err(Error::new(format!("cannot reach the external Temporal {address} (from {source}): {why}"))
            .hint(format!("check the address and that Temporal runs there, or drop {source} to use a local one"))),
    }
}

#[derive(Debug, PartialEq, Eq)]
pub enum Reached {
    /// It answers the health check.
    Serving,
    /// It takes connections; whether it serves is not known.
    Connected,
}

/// Asks all addresses of the name, within `limit` in all once the system has
/// found them.
pub fn reach(address: &Address, limit: Duration) -> Result<Reached, String> {
    let addresses = resolve(address)?;
    let deadline = after(limit);
    let mut answered = false;
    loop {
        let mut causes = Vec::new();
        for (index, candidate) in addresses.iter().enumerate() {
            // What is left is shared among those not asked yet.
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / (addresses.len() - index) as u32;
            match health::check(*candidate, after(share), None) {
                Health::Serving => return Ok(Reached::Serving),
                Health::NotServing => answered = true,
                // It was just too little time for one more answer.
                Health::Silent if answered => {}
                Health::NoGrpc | Health::NoHealthCheck | Health::Silent => return Ok(Reached::Connected),
                Health::Unreachable(cause) => causes.push(format!("{candidate}: {cause}")),
                Health::Interrupted => {}
            }
        }
        // One that answered once is asked until the end, whatever comes between.
        if !answered {
            return Err(match causes.len() {
                0 => format!("no answer within {} s", limit.as_secs()),
                _ => causes.join("; "),
            });
        }
        if Instant::now() + RETRY >= deadline {
            return Err(format!("it answers, but did not serve within {} s", limit.as_secs()));
        }
        thread::sleep(RETRY);
    }
}

fn resolve(address: &Address) -> Result<Vec<SocketAddr>, String> {
    let found = (address.host.as_str(), address.port).to_socket_addrs();
    match found.map(Iterator::collect::<Vec<_>>) {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => Err("the name is not valid".into()),
        _ => Err("the name cannot be resolved".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn at(host: &str, port: u16) -> Address {
        Address { host: host.into(), port }
    }

    #[test]
    fn a_refusing_address_is_reported_with_its_cause() {
        // tcpmux: nobody serves it, and no test is ever given this port.
        let why = reach(&at("127.0.0.1", 1), TIMEOUT).unwrap_err();
        assert_eq!(why, "127.0.0.1:1: connection refused");
    }

    #[test]
    fn a_server_that_says_nothing_counts_as_connected() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(reach(&at("127.0.0.1", port), Duration::from_millis(100)), Ok(Reached::Connected));
    }
}
