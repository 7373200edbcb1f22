//! Both ports, before the start: of a taken one the error says what took it.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use crate::clock::after;
use crate::config::{Managed, local};
use crate::error::{Error, Result, reason};
use crate::health::{self, Health};

const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

pub fn check(config: &Managed) -> Result<()> {
    check_one(config.ip.value, config.port.value, "--port", "gRPC")?;
    match &config.ui {
        None => Ok(()),
        Some(ui) => check_one(ui.ip, ui.port.value, "--ui-port", "the Web UI"),
    }
}

fn check_one(ip: IpAddr, port: u16, flag: &str, purpose: &str) -> Result<()> {
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
        io::ErrorKind::AddrNotAvailable => {
            Error::new(format!("cannot bind to {ip}: no network interface of this machine has this address"))
                .hint("choose one with --ip, for example --ip 127.0.0.1")
        }
        // No fault of the port.
        _ if matches!(cause.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => Error::io("check port", port, &cause),
        _ => failed(&reason(&cause)).hint(format!("choose another port with {flag}")),
    })
}

fn next_port(port: u16) -> u16 {
    port.checked_add(1).unwrap_or(DYNAMIC)
}

/// The first port that nobody registered (RFC 6335).
const DYNAMIC: u16 = 49_152;
