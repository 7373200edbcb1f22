//! Both ports, before the start: free ones where none was named, and of a taken
//! one the error says what took it.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use crate::clock::after;
use crate::config::{self, Managed, Port, local};
use crate::error::{Error, Result, reason};
use crate::health::{self, Health};

/// As often free ports are chosen anew when another program was faster.
pub const MAX_CHOICES: u32 = 5;
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The first port that nobody registered (RFC 6335).
const DYNAMIC: u16 = 49_152;

/// Where one server listens: every port a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoints {
    pub frontend: SocketAddr,
    pub ui: Option<SocketAddr>,
}

impl Endpoints {
    /// The ports that were asked for, and free ones where any will do.
    pub fn choose(config: &Managed) -> Result<Endpoints> {
        // Both are held until both are known, so that they differ.
        let frontend = Choice::of(config.ip.value, config.port.value)?;
        let ui = config.ui.as_ref().map(|ui| Choice::of(ui.ip, ui.port.value)).transpose()?;
        Ok(Endpoints { frontend: frontend.address, ui: ui.map(|ui| ui.address) })
    }

    /// Where clients on this machine reach the frontend.
    pub fn address(&self) -> SocketAddr {
        local(self.frontend.ip(), self.frontend.port())
    }

    /// Where a browser finds the Web UI.
    pub fn ui_url(&self) -> Option<String> {
        self.ui.map(config::ui_url)
    }
}

/// Fails when a port that was asked for is taken.
pub fn check(config: &Managed) -> Result<()> {
    check_one(config.ip.value, config.port.value, "--port", "gRPC")?;
    match &config.ui {
        None => Ok(()),
        Some(ui) => check_one(ui.ip, ui.port.value, "--ui-port", "the Web UI"),
    }
}

/// Whether other ports would do as well as those that turned out to be taken.
pub fn are_free_to_choose(config: &Managed) -> bool {
    config.port.value == Port::Free || config.ui.as_ref().is_some_and(|ui| ui.port.value == Port::Free)
}

/// An address, and what keeps others from being given it meanwhile.
struct Choice {
    address: SocketAddr,
    _held: Option<TcpListener>,
}

impl Choice {
    fn of(ip: IpAddr, port: Port) -> Result<Choice> {
        let Port::Number(port) = port else {
            let (address, held) = free(ip).map_err(|cause| cannot_choose(ip, &cause))?;
            return Ok(Choice { address, _held: Some(held) });
        };
        Ok(Choice { address: SocketAddr::new(ip, port), _held: None })
    }
}

/// A port that the kernel gives to nobody else who lets it choose, for as long
/// as a connection that was closed on this side waits (Linux: 60 s). Temporal
/// may listen there all the same. Where the kernel gives ports in order
/// (macOS) this is not needed, and does no harm.
pub fn free(ip: IpAddr) -> io::Result<(SocketAddr, TcpListener)> {
    let listener = TcpListener::bind((ip, 0))?;
    let address = listener.local_addr()?;
    let client = TcpStream::connect(local(ip, address.port()))?;
    let (accepted, _) = listener.accept()?;
    drop(accepted);
    drop(client);
    Ok((address, listener))
}

fn cannot_choose(ip: IpAddr, cause: &io::Error) -> Error {
    match cause.kind() {
        io::ErrorKind::AddrNotAvailable => no_such_address(ip),
        _ => Error::new(format!("cannot find a free port at {ip}: {}", reason(cause)))
            .hint("choose ports with --port and --ui-port"),
    }
}

fn no_such_address(ip: IpAddr) -> Error {
    Error::new(format!("cannot bind to {ip}: no network interface of this machine has this address"))
        .hint("choose one with --ip, for example --ip 127.0.0.1")
}

fn check_one(ip: IpAddr, port: Port, flag: &str, purpose: &str) -> Result<()> {
    // Of a free one Temporal itself says when it is taken meanwhile.
    let Port::Number(port) = port else { return Ok(()) };
    let address = SocketAddr::new(ip, port);
    // Listening is the only sure test; closed at once, it leaves no trace.
    let Err(cause) = TcpListener::bind(address) else { return Ok(()) };
    let failed = |why: &str| Error::new(format!("cannot use port {port} for {purpose}: {why}"));
    Err(match cause.kind() {
        io::ErrorKind::AddrInUse => {
            let local = local(ip, port);
            match health::check(local, after(PROBE_TIMEOUT), None) {
                Health::Serving | Health::NotServing => failed(&format!("a Temporal already runs at {local}"))
                    .hint(format!("use it with --temporal-host {local}, or choose another port with {flag}")),
                _ => failed(&format!("another program listens at {address}"))
                    .hint(format!("choose another port with {flag}, for example {flag} {}", next_port(port))),
            }
        }
        io::ErrorKind::PermissionDenied => {
            failed(&reason(&cause)).hint(format!("choose a port above 1023 with {flag}"))
        }
        io::ErrorKind::AddrNotAvailable => no_such_address(ip),
        // No fault of the port.
        _ if matches!(cause.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => Error::io("check port", port, &cause),
        _ => failed(&reason(&cause)).hint(format!("choose another port with {flag}")),
    })
}

fn next_port(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(DYNAMIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use std::time::Instant;

    #[test]
    fn a_free_port_is_given_once_and_can_be_listened_at() {
        let mut given = HashSet::new();
        for _ in 0..64 {
            let (address, listener) = free(IpAddr::from([127, 0, 0, 1])).unwrap();
            drop(listener);
            assert!(given.insert(address), "{address} was given twice");
            // A child that another test has just forked holds it until it executes.
            let limit = after(PROBE_TIMEOUT);
            while let Err(cause) = TcpListener::bind(address) {
                assert!(Instant::now() < limit, "{address} is not free: {cause}");
                std::thread::yield_now();
            }
        }
    }
}
