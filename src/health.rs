//! One question to a Temporal frontend: do you serve?
//!
//! The gRPC health check over HTTP/2, in one request, because an open port is
//! not yet a serving server: right after it opens, Temporal answers NOT_SERVING
//! for some milliseconds.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use crate::error::reason;
use crate::sys::{self, Ready};

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
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Health::Unreachable("no connection in time".into());
    }
    let mut stream = match TcpStream::connect_timeout(&address, left) {
        Ok(stream) => stream,
        Err(cause) if cause.kind() == io::ErrorKind::TimedOut => {
            return Health::Unreachable("no connection in time".into());
        }
        Err(cause) => return Health::Unreachable(reason(&cause)),
    };
    ask(&mut stream, "localhost", deadline, interrupt)
}

/// Asks the one at the other end of `stream`, as `authority`.
pub fn ask<S: Read + Write + AsFd>(
    stream: &mut S,
    authority: &str,
    deadline: Instant,
    interrupt: Option<BorrowedFd<'_>>,
) -> Health {
    // The request fits any socket buffer, so writing does not block.
    if stream.write_all(&request(authority)).is_err() {
        return Health::NoGrpc;
    }
    let mut received = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        match sys::wait(stream.as_fd(), interrupt, Some(deadline)) {
            Ready::Second => return Health::Interrupted,
            Ready::TimedOut if Instant::now() >= deadline => return Health::Silent,
            Ready::TimedOut => continue,
            Ready::First => {}
        }
        // A peer that never stops talking answers nothing either.
        if Instant::now() >= deadline {
            return Health::Silent;
        }
        if received.len() > MAX_ANSWER {
            return Health::NoGrpc;
        }
        match stream.read(&mut buffer) {
            Ok(0) => return Health::NoGrpc,
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Health::NoGrpc,
        }
        match read_answer(&received) {
            Answer::Incomplete => {}
            Answer::Status(SERVING) => return Health::Serving,
            Answer::Status(_) => return Health::NotServing,
            Answer::NoStatus => return Health::NoHealthCheck,
            Answer::NotHttp2 => return Health::NoGrpc,
        }
    }
}

const SERVICE: &[u8] = b"temporal.api.workflowservice.v1.WorkflowService";
/// `grpc.health.v1.HealthCheckResponse.ServingStatus`
const SERVING: u8 = 1;
const NOT_SERVING: u8 = 2;

/// Temporal's answer has about 150 bytes.
const MAX_ANSWER: usize = 64 << 10;
const FRAME_DATA: u8 = 0;
const FRAME_HEADERS: u8 = 1;
const FRAME_RST_STREAM: u8 = 3;
const FRAME_SETTINGS: u8 = 4;
const FRAME_GOAWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const OUR_STREAM: u32 = 1;
/// What a peer may send in one frame when we allow no more (RFC 9113, 4.2).
const MAX_FRAME: usize = 16_384;

/// The whole client side of the conversation (RFC 9113).
fn request(authority: &str) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    push_frame(&mut bytes, FRAME_SETTINGS, 0, 0, &[]);
    let mut headers = Vec::new();
    for (name, value) in [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ] {
        // Literal without indexing, new name (RFC 7541, 6.2.2); all lengths
        // are below 127, so each is one byte.
        headers.push(0);
        for text in [name, value] {
            headers.push(text.len() as u8);
            headers.extend_from_slice(text.as_bytes());
        }
    }
    push_frame(&mut bytes, FRAME_HEADERS, END_HEADERS, OUR_STREAM, &headers);
    // HealthCheckRequest { service = 1: string }
    let mut message = vec![0x0a, SERVICE.len() as u8];
    message.extend_from_slice(SERVICE);
    // gRPC: not compressed, length, message.
    let mut data = vec![0];
    data.extend_from_slice(&(message.len() as u32).to_be_bytes());
    data.extend_from_slice(&message);
    push_frame(&mut bytes, FRAME_DATA, END_STREAM, OUR_STREAM, &data);
    bytes
}

fn push_frame(bytes: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(&[kind, flags]);
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
}

#[derive(Debug, PartialEq)]
enum Answer {
    Incomplete,
    Status(u8),
    /// The call ended without a status: an error, such as UNIMPLEMENTED.
    NoStatus,
    NotHttp2,
}

/// Reads the frames that came so far.
fn read_answer(mut bytes: &[u8]) -> Answer {
    let mut first = true;
    let mut body = Vec::new();
    loop {
        let Some((head, rest)) = bytes.split_at_checked(9) else {
            // Another protocol shows within its first bytes (a TLS alert has seven).
            let may_be_settings = bytes.first().is_none_or(|byte| *byte == 0);
            return if first && !may_be_settings { Answer::NotHttp2 } else { Answer::Incomplete };
        };
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]) & 0x7fff_ffff;
        // A server's first frame is SETTINGS (RFC 9113, 3.4).
        if length > MAX_FRAME || (first && kind != FRAME_SETTINGS) {
            return Answer::NotHttp2;
        }
        first = false;
        let Some((payload, rest)) = rest.split_at_checked(length) else { return Answer::Incomplete };
        bytes = rest;
        match kind {
            FRAME_DATA if stream == OUR_STREAM => {
                body.extend_from_slice(payload);
                if let Some(status) = status(&body) {
                    return Answer::Status(status);
                }
                if flags & END_STREAM != 0 {
                    return Answer::NoStatus;
                }
            }
            FRAME_HEADERS if stream == OUR_STREAM && flags & END_STREAM != 0 => return Answer::NoStatus,
            FRAME_RST_STREAM if stream == OUR_STREAM => return Answer::NoStatus,
            FRAME_GOAWAY => return Answer::NoStatus,
            _ => {}
        }
    }
}

/// The status in `HealthCheckResponse { status = 1: enum }` behind gRPC's five
/// bytes; None while incomplete or when it is another message.
fn status(body: &[u8]) -> Option<u8> {
    let (head, rest) = body.split_at_checked(5)?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    match (head[0], rest.get(..length)?) {
        // proto3 leaves out a field that is zero (UNKNOWN).
        (0, []) => Some(NOT_SERVING),
        (0, [0x08, status, ..]) => Some(*status),
        _ => None,
    }
}

/// For the fuzz target of `tests/fuzz`: an answer must be the same however it
/// was cut on its way, once it is complete.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let whole = read_answer(data);
    for cut in 0..data.len().min(256) {
        let part = read_answer(&data[..cut]);
        assert!(part == Answer::Incomplete || part == whole);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::after;
    use std::net::TcpListener;
    use std::time::Duration;

    fn answer(frames: &[(u8, u8, u32, &[u8])]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, flags, stream, payload) in frames {
            push_frame(&mut bytes, *kind, *flags, *stream, payload);
        }
        bytes
    }

    #[test]
    fn the_request_is_what_temporal_was_seen_to_take() {
        let request = request("localhost");
        assert!(request.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"));
        let data = &request[request.len() - SERVICE.len() - 7..];
        assert_eq!(data[..7], [0, 0, 0, 0, 49, 0x0a, 47]);
    }

    #[test]
    fn an_answer_is_read_frame_by_frame_at_any_cut() {
        let serving: &[u8] = &[0, 0, 0, 0, 2, 8, 1];
        let whole = answer(&[
            (FRAME_SETTINGS, 0, 0, &[0, 5, 0, 0, 64, 0]),
            (FRAME_SETTINGS, 1, 0, &[]),
            (8, 0, 0, &[0, 0, 0, 9]),
            (FRAME_HEADERS, END_HEADERS, 1, b"x"),
            (FRAME_DATA, 0, 1, &serving[..3]),
            (FRAME_DATA, 0, 1, &serving[3..]),
        ]);
        for cut in 0..whole.len() {
            assert_eq!(read_answer(&whole[..cut]), Answer::Incomplete, "{cut}");
        }
        assert_eq!(read_answer(&whole), Answer::Status(SERVING));
    }

    #[test]
    fn answers_without_serving_are_told_apart() {
        let settings = (FRAME_SETTINGS, 0, 0, &[][..]);
        for (frames, expected) in [
            (vec![settings, (FRAME_DATA, 0, 1, &[0, 0, 0, 0, 2, 8, 2])], Answer::Status(NOT_SERVING)),
            (vec![settings, (FRAME_DATA, 0, 1, &[0, 0, 0, 0, 0])], Answer::Status(NOT_SERVING)),
            (vec![settings, (FRAME_HEADERS, END_HEADERS | END_STREAM, 1, b"x")], Answer::NoStatus),
            (vec![settings, (FRAME_RST_STREAM, 0, 1, &[0, 0, 0, 1])], Answer::NoStatus),
            (vec![settings, (FRAME_GOAWAY, 0, 0, &[0; 8])], Answer::NoStatus),
            (vec![settings, (FRAME_DATA, 0, 3, &[0, 0, 0, 0, 2, 8, 1])], Answer::Incomplete),
            (vec![(FRAME_HEADERS, 0, 1, b"x")], Answer::NotHttp2),
        ] {
            assert_eq!(read_answer(&answer(&frames)), expected, "{frames:?}");
        }
        assert_eq!(read_answer(b"HTTP/1.1 400 Bad Request\r\n"), Answer::NotHttp2);
        assert_eq!(read_answer(&[21, 3, 1, 0, 2, 2, 80]), Answer::NotHttp2);
    }

    #[test]
    fn a_peer_that_floods_is_left_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let flood = std::thread::spawn(move || {
            let mut stream = listener.accept().unwrap().0;
            let mut ping = Vec::new();
            push_frame(&mut ping, FRAME_SETTINGS, 0, 0, &[]);
            while stream.write_all(&ping).is_ok() {
                push_frame(&mut ping, 6, 0, 0, &[0; 8]);
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
