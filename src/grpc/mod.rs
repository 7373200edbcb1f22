//! gRPC calls, one at a time, over HTTP/2 on any stream.
//!
//! As much of both as asking a Temporal about itself takes: no window is ever
//! used up by these small messages, and the server pushes nothing. `Exchange`
//! is the conversation without its wire; `Client` puts it on one, with one
//! `poll` for answer, interruption and deadline.

mod frames;
pub mod hpack;
pub mod proto;

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use crate::sys::{self, Ready};

use frames::Frame;

/// A non-blocking connection.
pub trait Stream: Read + Write + AsFd {}

impl<T: Read + Write + AsFd> Stream for T {}

/// How long to wait, and for what not to.
#[derive(Clone, Copy)]
pub struct Patience<'a> {
    pub deadline: Instant,
    /// Readable when there is something better to do.
    pub interrupt: Option<BorrowedFd<'a>>,
}

impl Patience<'_> {
    /// Sleeps until `stream` can be read.
    pub fn wait(&self, stream: &dyn Stream) -> Result<(), Fault> {
        match sys::wait(stream.as_fd(), self.interrupt, Some(self.deadline)) {
            Ready::Second => Err(Fault::Interrupted),
            _ if Instant::now() >= self.deadline => Err(Fault::Silent),
            _ => Ok(()),
        }
    }
}

/// Why there is no reply.
#[derive(Debug)]
pub enum Fault {
    /// It speaks something else; these are its first bytes.
    NotHttp2(Vec<u8>),
    /// It speaks HTTP/2 that breaks the rules, or ends the call without reply.
    Broken,
    /// The connection ended.
    Closed,
    /// Nothing came in time.
    Silent,
    Interrupted,
    Io(io::Error),
}

impl Fault {
    pub fn io(cause: io::Error) -> Fault {
        match cause.kind() {
            io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => Fault::Closed,
            _ => Fault::Io(cause),
        }
    }
}

/// One call.
pub struct Request<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    pub authority: &'a str,
    pub path: &'a str,
    pub metadata: &'a [hpack::Field],
    pub message: &'a [u8],
}

/// What came back.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The status of HTTP, 200 for any answer of gRPC.
    pub http: u16,
    /// The status of gRPC; None where none was sent.
    pub code: Option<u32>,
    /// What the server says about it.
    pub text: String,
    /// The first message.
    pub message: Vec<u8>,
}

/// Temporal's answers have some hundred bytes each.
const MAX_ANSWER: usize = 64 << 10;

/// The client's side of one connection: bytes in, bytes out.
pub struct Exchange {
    /// What is to be sent.
    out: Vec<u8>,
    /// What came and is not yet a frame.
    received: Vec<u8>,
    /// Bytes since the last call.
    answered: usize,
    greeted: bool,
    decoder: hpack::Decoder,
    /// The header block that has begun, and whether the stream ends with it.
    block: Option<(u32, bool, Vec<u8>)>,
    call: u32,
    reply: Reply,
    is_complete: bool,
}

impl Exchange {
    pub fn new() -> Exchange {
        let mut out = frames::PREFACE.to_vec();
        Frame { kind: frames::SETTINGS, flags: 0, stream: 0, payload: &[] }.push_to(&mut out);
        Exchange {
            out,
            received: Vec::new(),
            answered: 0,
            greeted: false,
            decoder: hpack::Decoder::new(),
            block: None,
            call: 0,
            reply: Reply::default(),
            is_complete: false,
        }
    }

    /// Begins a call. The one before has had its reply.
    pub fn begin(&mut self, request: &Request<'_>) {
        let mut block = Vec::new();
        for (name, value) in [
            (":method", "POST"),
            (":scheme", request.scheme),
            (":path", request.path),
            (":authority", request.authority),
            ("content-type", "application/grpc"),
            ("te", "trailers"),
        ] {
            hpack::push(&mut block, name, value);
        }
        request.metadata.iter().for_each(|(name, value)| hpack::push(&mut block, name, value));
        // Odd numbers are the client's.
        self.call = if self.call == 0 { 1 } else { self.call + 2 };
        (self.reply, self.is_complete, self.answered) = (Reply::default(), false, 0);
        let mut kind = frames::HEADERS;
        let mut parts = block.chunks(frames::MAX_PAYLOAD).peekable();
        while let Some(payload) = parts.next() {
            let flags = if parts.peek().is_none() { frames::END_HEADERS } else { 0 };
            Frame { kind, flags, stream: self.call, payload }.push_to(&mut self.out);
            kind = frames::CONTINUATION;
        }
        // Not compressed, length, message.
        let mut payload = vec![0];
        payload.extend_from_slice(&(request.message.len() as u32).to_be_bytes());
        payload.extend_from_slice(request.message);
        let payload = &payload;
        Frame { kind: frames::DATA, flags: frames::END_STREAM, stream: self.call, payload }.push_to(&mut self.out);
    }

    /// Takes what came.
    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.received.extend_from_slice(bytes);
        self.answered += bytes.len();
        // Another protocol shows within its first bytes (a TLS alert has seven).
        if !self.greeted && self.received.first().is_some_and(|byte| *byte != 0) {
            return Err(Fault::NotHttp2(std::mem::take(&mut self.received)));
        }
        let received = std::mem::take(&mut self.received);
        let mut rest = received.as_slice();
        while let Some((frame, length)) = frames::first(rest).map_err(|()| self.broken(&received))? {
            // A server's first frame is SETTINGS (RFC 9113, 3.4).
            if !self.greeted && frame.kind != frames::SETTINGS {
                return Err(self.broken(&received));
            }
            self.greeted = true;
            self.take(&frame)?;
            rest = &rest[length..];
        }
        self.received = rest.to_vec();
        if self.answered > MAX_ANSWER { Err(Fault::Broken) } else { Ok(()) }
    }

    fn broken(&self, received: &[u8]) -> Fault {
        if self.greeted { Fault::Broken } else { Fault::NotHttp2(received.to_vec()) }
    }

    fn take(&mut self, frame: &Frame<'_>) -> Result<(), Fault> {
        let is_ours = frame.stream == self.call && !self.is_complete;
        let ends = frame.has(frames::END_STREAM);
        match (frame.kind, &mut self.block) {
            (frames::CONTINUATION, Some((stream, _, block))) if *stream == frame.stream => {
                block.extend_from_slice(frame.payload);
            }
            // Nothing may come between the parts of a block (RFC 9113, 6.10).
            (_, Some(_)) | (frames::CONTINUATION, None) => return Err(Fault::Broken),
            (frames::HEADERS, None) => {
                let block = frame.content().ok_or(Fault::Broken)?.to_vec();
                self.block = Some((frame.stream, ends, block));
            }
            (frames::SETTINGS | frames::PING, None) => {
                if !frame.has(frames::ACK) {
                    let payload = if frame.kind == frames::PING { frame.payload } else { &[] };
                    Frame { flags: frames::ACK, payload, ..*frame }.push_to(&mut self.out);
                }
                return Ok(());
            }
            (frames::DATA, None) if is_ours => {
                self.reply.message.extend_from_slice(frame.content().ok_or(Fault::Broken)?);
                return if ends { self.complete() } else { Ok(()) };
            }
            (frames::RST_STREAM, None) if is_ours => return Err(Fault::Broken),
            (frames::GOAWAY, None) if !self.is_complete && !frame.lets_end(self.call) => return Err(Fault::Broken),
            _ => return Ok(()),
        }
        match self.block.take() {
            Some((stream, ends, block)) if frame.has(frames::END_HEADERS) => self.take_headers(stream, ends, &block),
            unfinished => {
                self.block = unfinished;
                Ok(())
            }
        }
    }

    fn take_headers(&mut self, stream: u32, ends: bool, block: &[u8]) -> Result<(), Fault> {
        // Read in any case: the next block may refer to it.
        let fields = self.decoder.decode(block).ok_or(Fault::Broken)?;
        if stream != self.call || self.is_complete {
            return Ok(());
        }
        for (name, value) in fields {
            match name.as_str() {
                ":status" => self.reply.http = value.parse().map_err(|_| Fault::Broken)?,
                "grpc-status" => self.reply.code = value.parse().ok(),
                "grpc-message" => self.reply.text = percent_decoded(&value),
                _ => {}
            }
        }
        // Where HTTP failed, what follows is a page for people.
        match ends || self.reply.http >= 300 {
            true => self.complete(),
            false => Ok(()),
        }
    }

    fn complete(&mut self) -> Result<(), Fault> {
        self.is_complete = true;
        let whole = std::mem::take(&mut self.reply.message);
        if let Some((head, rest)) = whole.split_at_checked(5) {
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
            // We never said that we would take compressed ones.
            let message = rest.get(..length).filter(|_| head[0] == 0);
            self.reply.message = message.unwrap_or_default().to_vec();
        }
        Ok(())
    }
}

/// `grpc-message` as it was meant: `%0A` is a line break.
fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let hex = || u8::from_str_radix(std::str::from_utf8(behind.get(..2)?).ok()?, 16).ok();
        match hex().filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// An exchange on a wire.
pub struct Client<'s> {
    stream: &'s mut dyn Stream,
    exchange: Exchange,
}

impl<'s> Client<'s> {
    pub fn new(stream: &'s mut dyn Stream) -> Client<'s> {
        Client { stream, exchange: Exchange::new() }
    }

    /// Finds out whether the other side speaks HTTP/2, and says nothing else.
    pub fn greet(&mut self, patience: Patience<'_>) -> Result<(), Fault> {
        self.converse(patience, |exchange| exchange.greeted)
    }

    pub fn call(&mut self, request: &Request<'_>, patience: Patience<'_>) -> Result<Reply, Fault> {
        self.exchange.begin(request);
        self.converse(patience, |exchange| exchange.is_complete)?;
        Ok(std::mem::take(&mut self.exchange.reply))
    }

    fn converse(&mut self, patience: Patience<'_>, is_done: fn(&Exchange) -> bool) -> Result<(), Fault> {
        let mut buffer = [0; 4096];
        while !is_done(&self.exchange) {
            self.send(patience)?;
            // A peer that never stops talking says nothing either.
            if Instant::now() >= patience.deadline {
                return Err(Fault::Silent);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(Fault::Closed),
                Ok(count) => match self.exchange.receive(&buffer[..count]) {
                    // What is wrong behind the reply is not asked for.
                    Err(fault) if !is_done(&self.exchange) => return Err(fault),
                    _ => {}
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => patience.wait(self.stream)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Fault::io(error)),
            }
        }
        Ok(())
    }

    fn send(&mut self, patience: Patience<'_>) -> Result<(), Fault> {
        let mut out = std::mem::take(&mut self.exchange.out);
        while !out.is_empty() {
            match self.stream.write(&out) {
                Ok(count) => drop(out.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left = patience.deadline.saturating_duration_since(Instant::now());
                    if !sys::is_writable(self.stream.as_fd(), left) {
                        return Err(Fault::Silent);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What it has said before it went away is worth more.
                Err(_) => break,
            }
        }
        Ok(())
    }
}

/// For the fuzz target of `tests/fuzz`: an answer is the same however it was
/// cut on its way.
#[cfg(fuzzing)]
pub fn fuzz(data: &[u8]) {
    let request = Request { scheme: "http", authority: "x", path: "/x", metadata: &[], message: b"x" };
    let hear = |size: usize| {
        let mut exchange = Exchange::new();
        exchange.begin(&request);
        for part in data.chunks(size) {
            let heard = exchange.receive(part);
            if exchange.is_complete || heard.is_err() {
                break;
            }
        }
        exchange.is_complete.then_some(exchange.reply)
    };
    let (one, some) = (hear(1), hear(7));
    assert_eq!(one, some);
}

#[cfg(test)]
mod tests {
    use super::*;
    use frames::{CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, RST_STREAM, SETTINGS};

    const REQUEST: Request<'_> =
        Request { scheme: "http", authority: "localhost", path: "/x/Y", metadata: &[], message: b"abc" };

    type Sent<'a> = (u8, u8, u32, &'a [u8]);

    fn bytes(sent: &[Sent<'_>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for &(kind, flags, stream, payload) in sent {
            Frame { kind, flags, stream, payload }.push_to(&mut bytes);
        }
        bytes
    }

    fn block(fields: &[(&str, &str)]) -> Vec<u8> {
        let mut block = Vec::new();
        fields.iter().for_each(|(name, value)| hpack::push(&mut block, name, value));
        block
    }

    fn begun() -> Exchange {
        let mut exchange = Exchange::new();
        exchange.begin(&REQUEST);
        exchange
    }

    /// The reply to one call whose answer comes in parts of `size` bytes.
    fn hear(answer: &[u8], size: usize) -> Result<Option<Reply>, Fault> {
        let mut exchange = begun();
        for part in answer.chunks(size) {
            exchange.receive(part)?;
        }
        Ok(exchange.is_complete.then_some(exchange.reply))
    }

    #[test]
    fn a_call_is_what_temporal_was_seen_to_take() {
        let out = begun().out;
        assert!(out.starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"));
        assert!(out.ends_with(b"\0\0\x08\0\x01\0\0\0\x01\0\0\0\0\x03abc"));
        let mut headers = &out[frames::PREFACE.len() + 9..];
        let (frame, length) = frames::first(headers).unwrap().unwrap();
        let fields = hpack::Decoder::new().decode(frame.payload).unwrap();
        assert_eq!((frame.kind, frame.flags, frame.stream), (HEADERS, END_HEADERS, 1));
        assert_eq!(fields[2], (":path".into(), "/x/Y".into()));
        headers = &headers[length..];
        assert_eq!(frames::first(headers).unwrap().unwrap().0.kind, DATA);
    }

    #[test]
    fn headers_that_fill_more_than_a_frame_are_continued() {
        let metadata = [("long".to_owned(), "v".repeat(40_000))];
        let mut exchange = Exchange::new();
        exchange.begin(&Request { metadata: &metadata, ..REQUEST });
        let mut rest = &exchange.out[frames::PREFACE.len() + 9..];
        let (mut block, mut kinds) = (Vec::new(), Vec::new());
        while let Some((frame, length)) = frames::first(rest).unwrap() {
            kinds.push((frame.kind, frame.flags));
            if frame.kind != DATA {
                block.extend_from_slice(frame.payload);
            }
            rest = &rest[length..];
        }
        assert_eq!(kinds, [(HEADERS, 0), (CONTINUATION, 0), (CONTINUATION, END_HEADERS), (DATA, END_STREAM)]);
        assert_eq!(hpack::Decoder::new().decode(&block).unwrap().last(), Some(&metadata[0]));
    }

    #[test]
    fn a_reply_is_the_same_however_it_is_cut() {
        let (head, trailers) =
            (block(&[(":status", "200")]), block(&[("grpc-status", "0"), ("grpc-message", "a%20b")]));
        let answer = bytes(&[
            (SETTINGS, 0, 0, &[0, 5, 0, 0, 64, 0]),
            (SETTINGS, 1, 0, &[]),
            (GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 0]),
            (8, 0, 0, &[0, 0, 0, 9]),
            (HEADERS, 0, 1, &head[..3]),
            (CONTINUATION, END_HEADERS, 1, &head[3..]),
            (DATA, 0, 1, &[0, 0, 0]),
            (DATA, 8, 1, &[2, 0, 2, 8, 1, 9, 9]),
            (HEADERS, END_HEADERS | END_STREAM, 1, &trailers),
        ]);
        let expected = Reply { http: 200, code: Some(0), text: "a b".into(), message: vec![8, 1] };
        for size in 1..=answer.len() {
            assert_eq!(hear(&answer, size).unwrap(), Some(expected.clone()), "{size}");
        }
        for cut in 0..answer.len() {
            assert_eq!(hear(&answer[..cut], answer.len()).unwrap(), None, "{cut}");
        }
    }

    #[test]
    fn a_status_comes_in_trailers_alone_or_from_http() {
        let only = block(&[(":status", "200"), ("grpc-status", "16"), ("grpc-message", "%zz no%")]);
        let proxy = block(&[(":status", "502"), ("content-type", "text/html")]);
        let ends = END_HEADERS | END_STREAM;
        let reply = |frame| hear(&bytes(&[(SETTINGS, 0, 0, &[]), frame]), 4096).unwrap().unwrap();
        let refused = reply((HEADERS, ends, 1, &only));
        assert_eq!((refused.code, refused.text.as_str()), (Some(16), "%zz no%"));
        assert_eq!(reply((HEADERS, END_HEADERS, 1, &proxy)).http, 502);
    }

    #[test]
    fn what_asks_for_an_answer_gets_one() {
        let mut exchange = begun();
        exchange.out.clear();
        exchange.receive(&bytes(&[(SETTINGS, 0, 0, &[]), (PING, 0, 0, &[7; 8]), (PING, 1, 0, &[0; 8])])).unwrap();
        assert_eq!(exchange.out, bytes(&[(SETTINGS, 1, 0, &[]), (PING, 1, 0, &[7; 8])]));
    }

    #[test]
    fn what_is_no_reply_is_a_fault() {
        let settings: Sent<'_> = (SETTINGS, 0, 0, &[]);
        let bad = [0x80];
        for frame in [
            (RST_STREAM, 0, 1, &[0, 0, 0, 1][..]),
            (GOAWAY, 0, 0, &[0; 8]),
            (GOAWAY, 0, 0, &[0, 0, 0, 1, 0, 0, 0, 2]),
            (HEADERS, END_HEADERS, 1, &bad),
            (CONTINUATION, END_HEADERS, 1, &[]),
            (DATA, 8, 1, &[]),
        ] {
            let fault = hear(&bytes(&[settings, frame]), 4096);
            assert!(matches!(fault, Err(Fault::Broken)), "{frame:?}: {fault:?}");
        }
        let between = bytes(&[settings, (HEADERS, 0, 1, &[]), (DATA, 0, 1, &[])]);
        assert!(matches!(hear(&between, 4096), Err(Fault::Broken)));
        let another = bytes(&[settings, (DATA, END_STREAM, 3, &[0, 0, 0, 0, 2, 8, 1])]);
        assert!(matches!(hear(&another, 4096), Ok(None)));
        for start in
            [b"HTTP/1.1 400 Bad Request\r\n".as_slice(), &[21, 3, 1, 0, 2, 2, 80], &bytes(&[(PING, 0, 0, &[])])]
        {
            assert!(matches!(hear(start, 4096), Err(Fault::NotHttp2(seen)) if seen == start), "{start:?}");
        }
    }
}
