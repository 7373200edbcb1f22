//! A Temporal frontend on loopback that answers as a test wants it to, in
//! cleartext or over TLS.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::http::Listener;

pub const HEALTH: &str = "/grpc.health.v1.Health/Check";
pub const SYSTEM_INFO: &str = "/temporal.api.workflowservice.v1.WorkflowService/GetSystemInfo";
pub const DESCRIBE: &str = "/temporal.api.workflowservice.v1.WorkflowService/DescribeNamespace";

/// The answer to one call.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Status 0 and this message.
    Ok(Vec<u8>),
    /// Another status, with its text, in trailers that come alone.
    Status(u32, String),
    /// The same, as a header block that was encoded elsewhere.
    Block(Vec<u8>),
    /// A status of HTTP and a page.
    Http(u16),
    /// The call is reset.
    Reset,
    /// No answer and no end.
    Silence,
}

/// One call that came: its path and the other fields of its headers.
#[derive(Debug, Clone)]
pub struct Call {
    pub path: String,
    pub fields: HashMap<String, String>,
}

impl Call {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }
}

#[derive(Default)]
struct Shared {
    answers: Mutex<HashMap<String, Answer>>,
    calls: Mutex<Vec<Call>>,
    /// What came before and outside of TLS.
    cleartext: Mutex<Vec<u8>>,
}

pub struct Frontend {
    listener: Listener,
    shared: Arc<Shared>,
}

impl Frontend {
    /// One that serves, and has every namespace.
    pub fn new(tls: Option<Arc<ServerConfig>>) -> Frontend {
        Frontend::writing(tls, usize::MAX)
    }

    /// The same, which writes so many bytes at a time.
    pub fn writing(tls: Option<Arc<ServerConfig>>, at_a_time: usize) -> Frontend {
        let shared = Arc::<Shared>::default();
        let server = shared.clone();
        let listener = Listener::start(move |stream, _| {
            let _ = match &tls {
                None => converse(stream, &server, at_a_time),
                Some(config) => encrypted(stream, config.clone(), &server, at_a_time),
            };
        });
        Frontend { listener, shared }
    }

    /// From now on calls of `path` get this answer.
    pub fn answer(&self, path: &str, answer: Answer) {
        self.shared.answers.lock().unwrap().insert(path.into(), answer);
    }

    pub fn address(&self) -> String {
        format!("localhost:{}", self.listener.address().port())
    }

    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// Every byte that came and was not encrypted.
    pub fn cleartext(&self) -> Vec<u8> {
        self.shared.cleartext.lock().unwrap().clone()
    }
}

fn encrypted(stream: TcpStream, config: Arc<ServerConfig>, shared: &Shared, at_a_time: usize) -> io::Result<()> {
    let mut first = [0];
    stream.peek(&mut first)?;
    // A handshake begins with 22 (RFC 8446, 5.1).
    if first != [22] {
        let mut stream = &stream;
        let mut buffer = [0; 4096];
        loop {
            let count = stream.read(&mut buffer)?;
            shared.cleartext.lock().unwrap().extend_from_slice(&buffer[..count]);
            if count == 0 {
                return Ok(());
            }
            // Not before what came is noted: then the other side goes away.
            stream.write_all(&[21, 3, 3, 0, 2, 2, 10])?;
        }
    }
    let connection = ServerConnection::new(config).unwrap();
    converse(StreamOwned::new(connection, stream), shared, at_a_time)
}

fn converse(mut stream: impl Read + Write, shared: &Shared, at_a_time: usize) -> io::Result<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface)?;
    let mut out = frame(4, 0, 0, &[]);
    if !preface.starts_with(b"PRI * HTTP/2.0") {
        // As Temporal does to TLS.
        return stream.write_all(&out);
    }
    let (mut block, mut path) = (Vec::new(), String::new());
    loop {
        for part in out.chunks(at_a_time.min(out.len().max(1))) {
            stream.write_all(part)?;
            stream.flush()?;
        }
        out.clear();
        let mut head = [0; 9];
        stream.read_exact(&mut head)?;
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        stream.read_exact(&mut payload)?;
        let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (head[3], head[4]) {
            (4, 0) => out = frame(4, 1, 0, &[]),
            (6, 0) => out = frame(6, 1, 0, &payload),
            (1 | 9, flags) => {
                block.extend_from_slice(&payload);
                if flags & 4 != 0 {
                    let fields = literals(&std::mem::take(&mut block));
                    path = fields[":path"].clone();
                    shared.calls.lock().unwrap().push(Call { path: path.clone(), fields });
                }
            }
            (0, 1) => out = reply(number, shared.answers.lock().unwrap().get(&path), &path),
            _ => {}
        }
    }
}

fn reply(number: u32, answer: Option<&Answer>, path: &str) -> Vec<u8> {
    let usual = match path {
        HEALTH => Answer::Ok(vec![8, 1]),
        SYSTEM_INFO => Answer::Ok(b"\x0a\x061.31.2\x12\0".to_vec()),
        _ => Answer::Ok(Vec::new()),
    };
    let answer = answer.unwrap_or(&usual);
    let grpc = [(":status", "200"), ("content-type", "application/grpc")];
    match answer {
        Answer::Ok(message) => {
            let mut data = vec![0];
            data.extend_from_slice(&(message.len() as u32).to_be_bytes());
            data.extend_from_slice(message);
            let parts = [
                frame(1, 4, number, &encoded(&grpc)),
                frame(0, 0, number, &data),
                frame(1, 5, number, &encoded(&[("grpc-status", "0")])),
            ];
            parts.concat()
        }
        Answer::Status(code, text) => {
            let code = code.to_string();
            let fields = [grpc[0], grpc[1], ("grpc-status", &code), ("grpc-message", text)];
            frame(1, 5, number, &encoded(&fields))
        }
        Answer::Block(block) => frame(1, 5, number, block),
        Answer::Http(status) => {
            let status = status.to_string();
            let fields = [(":status", status.as_str()), ("content-type", "text/html")];
            [frame(1, 4, number, &encoded(&fields)), frame(0, 1, number, b"<title>page</title>")].concat()
        }
        Answer::Reset => frame(3, 0, number, &[0, 0, 0, 2]),
        Answer::Silence => Vec::new(),
    }
}

fn frame(kind: u8, flags: u8, number: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&number.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Literals without indexing; every text is shorter than 254 bytes.
fn encoded(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            match text.len() {
                short @ ..127 => block.push(short as u8),
                long => block.extend_from_slice(&[127, (long - 127) as u8]),
            }
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// The fields of a block that holds nothing but literals that are never
/// indexed: what stigmer sends.
fn literals(mut block: &[u8]) -> HashMap<String, String> {
    let mut fields = HashMap::new();
    let text = |block: &mut &[u8]| {
        let mut length = usize::from(*block.split_off_first().unwrap());
        if length == 127 {
            for shift in [0, 7, 14] {
                let byte = *block.split_off_first().unwrap();
                length += usize::from(byte & 127) << shift;
                if byte < 128 {
                    break;
                }
            }
        }
        String::from_utf8(block.split_off(..length).unwrap().to_vec()).unwrap()
    };
    while let Some(first) = block.split_off_first() {
        assert_eq!(*first, 0x10, "a field that may be indexed");
        let name = text(&mut block);
        fields.insert(name, text(&mut block));
    }
    fields
}
