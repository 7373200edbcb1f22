//! One question to a Temporal frontend: do you serve?
//!
//! The gRPC health check, because an open port is not yet a serving server:
//! right after it opens, Temporal answers NOT_SERVING for some milliseconds.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::error::reason;
use crate::grpc::proto::{self, Message};
use crate::grpc::{Client, Fault, Patience, Reply, Request};

/// What an address answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Serving,
    /// It speaks gRPC and does not serve, or not yet.
    NotServing,
    /// It speaks gRPC, but has no health check.
    NoHealthCheck,
    /// It takes connections and speaks something else, TLS perhaps.
    NoGrpc,
    /// It took the connection and said nothing in time.
    Silent,
    /// No connection, for this cause.
    Unreachable(String),
    /// `interrupt` became readable.
    Interrupted,
}

/// Asks `address` over cleartext, until `deadline` at the latest.
pub fn check(address: SocketAddr, deadline: Instant, interrupt: Option<BorrowedFd<'_>>) -> Health {
    let mut stream = match connect(address, deadline) {
        Ok(stream) => stream,
        Err(cause) => return Health::Unreachable(cause),
    };
    let request = Request { scheme: "http", authority: "localhost", path: PATH, metadata: &[], message: &message() };
    match Client::new(&mut stream).call(&request, Patience { deadline, interrupt }) {
        Ok(reply) => match is_serving(&reply) {
            Some(true) => Health::Serving,
            Some(false) => Health::NotServing,
            None => Health::NoHealthCheck,
        },
        Err(Fault::Silent) => Health::Silent,
        Err(Fault::Interrupted) => Health::Interrupted,
        Err(Fault::NotHttp2(_) | Fault::Broken | Fault::Closed | Fault::Io(_)) => Health::NoGrpc,
    }
}

/// A connection that does not block; or why there is none.
pub fn connect(address: SocketAddr, deadline: Instant) -> Result<TcpStream, String> {
    let too_late = || "no connection in time".to_owned();
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(too_late());
    }
    let stream = TcpStream::connect_timeout(&address, left);
    match stream.and_then(|stream| stream.set_nonblocking(true).map(|()| stream)) {
        Ok(stream) => Ok(stream),
        Err(cause) if cause.kind() == io::ErrorKind::TimedOut => Err(too_late()),
        Err(cause) => Err(reason(&cause)),
    }
}

pub const PATH: &str = "/grpc.health.v1.Health/Check";
const SERVICE: &str = "temporal.api.workflowservice.v1.WorkflowService";
/// `grpc.health.v1.HealthCheckResponse.ServingStatus`
const SERVING: u64 = 1;

/// `HealthCheckRequest { service = 1 }`
pub fn message() -> Vec<u8> {
    Message::default().text(1, SERVICE).into_bytes()
}

/// What `HealthCheckResponse { status = 1 }` says; None without one.
pub fn is_serving(reply: &Reply) -> Option<bool> {
    (reply.code == Some(0)).then(|| proto::number(&reply.message, 1) == Some(SERVING))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::after;
    use std::io::Write;
    use std::net::TcpListener;
    use std::os::fd::AsFd;
    use std::time::Duration;

    #[test]
    fn only_the_status_serving_is_serving() {
        let reply = |code, message: &[u8]| Reply { code, message: message.to_vec(), ..Reply::default() };
        assert_eq!(is_serving(&reply(Some(0), &[8, 1])), Some(true));
        assert_eq!(is_serving(&reply(Some(0), &[8, 2])), Some(false));
        // UNKNOWN is zero, which is left out.
        assert_eq!(is_serving(&reply(Some(0), &[])), Some(false));
        assert_eq!(is_serving(&reply(Some(12), &[])), None);
        assert_eq!(is_serving(&reply(None, &[8, 1])), None);
    }

    #[test]
    fn a_peer_that_floods_is_left_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let flood = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            // SETTINGS, then PINGs that want no answer.
            let mut frame = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
            while stream.write_all(&frame).is_ok() {
                frame = vec![0, 0, 8, 6, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            }
        });
        let health = check(address, after(Duration::from_secs(60)), None);
        assert_eq!(health, Health::NoGrpc);
        flood.join().unwrap();
    }

    #[test]
    fn addresses_that_do_not_serve_are_told_apart() {
        let soon = || after(Duration::from_millis(200));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(check(address, soon(), None), Health::Silent);
        let (read, write) = std::io::pipe().unwrap();
        drop(write);
        assert_eq!(check(address, after(Duration::from_secs(60)), Some(read.as_fd())), Health::Interrupted);
        // tcpmux: nobody serves it, and no test is ever given this port.
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        assert_eq!(check(nobody, soon(), None), Health::Unreachable("connection refused".into()));
    }
}
