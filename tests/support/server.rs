//! A release server on loopback that does whatever networks do.

use std::collections::{HashMap, VecDeque};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::archive::{asset_path, checksums, checksums_path};
use super::http::{Connections, Head, Listener, reset, write_head};
use super::{LIMIT, wait_until};

/// Small, so that a cut falls where it is meant to.
const CHUNK: usize = 16 << 10;
/// Between the pieces of an answer that never comes to its end.
const DRIP: Duration = Duration::from_millis(300);

/// A file that the server has.
#[derive(Debug, Clone)]
pub struct File {
    pub bytes: Arc<Vec<u8>>,
    pub etag: Option<String>,
    pub last_modified: Option<String>,
    /// Whether `Range` is honoured.
    pub ranges: bool,
    /// Whether `Content-Length` is sent; otherwise the connection ends with the file.
    pub length: bool,
}

impl File {
    pub fn new(bytes: impl Into<Vec<u8>>) -> File {
        let bytes = bytes.into();
        let etag = Some(format!("\"{}\"", &super::sha256(&bytes)[..16]));
        File { bytes: Arc::new(bytes), etag, last_modified: None, ranges: true, length: true }
    }

    pub fn without_ranges(self) -> File {
        File { ranges: false, ..self }
    }

    pub fn without_etag(self) -> File {
        File { etag: None, ..self }
    }

    pub fn without_length(self) -> File {
        File { length: false, ..self }
    }

    pub fn last_modified(self, time: &str) -> File {
        File { last_modified: Some(time.into()), ..self }
    }

    /// The first byte that is wanted, unless the whole file has to be sent.
    fn range_start(&self, head: &Head) -> Option<u64> {
        let validators = || [&self.etag, &self.last_modified].into_iter().flatten();
        let fits = head.header("if-range").is_none_or(|wanted| validators().any(|own| own == wanted));
        let range = head.header("range").filter(|_| self.ranges && fits)?;
        range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }

    /// The headers of the file when it is sent from byte `start` on.
    fn headers(&self, start: Option<u64>) -> Vec<(String, String)> {
        let total = self.bytes.len() as u64;
        let mut headers = Vec::new();
        let mut header = |name: &str, value: String| headers.push((name.to_owned(), value));
        if let Some(etag) = &self.etag {
            header("ETag", etag.clone());
        }
        if let Some(time) = &self.last_modified {
            header("Last-Modified", time.clone());
        }
        match start {
            Some(start) if start >= total => {
                header("Content-Range", format!("bytes */{total}"));
                // `Content-Length` is that of the body, which is not the file.
                return headers;
            }
            Some(start) => header("Content-Range", format!("bytes {start}-{}/{total}", total - 1)),
            None => {}
        }
        match self.length {
            true => header("Content-Length", (total - start.unwrap_or(0)).to_string()),
            false => header("Connection", "close".into()),
        }
        headers
    }
}

/// The answer to one request.
#[derive(Clone)]
pub enum Reply {
    /// The file, as asked for.
    Serve,
    /// The file, cut after so many bytes of this answer's body.
    Cut(u64, Cut),
    /// A status with a text, and headers.
    Status(&'static str, Vec<(&'static str, String)>, Vec<u8>),
    Redirect(&'static str, String),
    /// The file is another one from now on.
    Replace(File),
    /// These bytes and nothing else, then the end of the connection.
    Raw(Vec<u8>),
    /// 206 with this `Content-Range`, whatever was requested, and these bytes.
    Part(String, Vec<u8>),
    /// Closed before a byte of the answer.
    Nothing,
    /// No answer and no end, until the other side goes away.
    Silence,
    /// The first bytes, and then the others again and again.
    Endless(&'static [u8], &'static [u8]),
}

impl Reply {
    pub fn status(status: &'static str) -> Reply {
        Reply::Status(status, Vec::new(), b"words\n".to_vec())
    }

    pub fn retry_after(status: &'static str, after: &str) -> Reply {
        Reply::Status(status, vec![("Retry-After", after.into())], Vec::new())
    }

    pub fn redirect(to: impl Into<String>) -> Reply {
        Reply::Redirect("302 Found", to.into())
    }
}

/// How a connection is cut.
#[derive(Clone)]
pub enum Cut {
    Close,
    Reset,
    /// No byte more, until the other side goes away.
    Stall,
    /// A byte at a time, until the other side goes away.
    Drip,
    /// No byte more until the gate is opened; then the rest comes.
    Hold(Gate),
}

/// Where a test and the server meet.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<GateState>, Condvar)>);

#[derive(Default)]
struct GateState {
    reached: bool,
    open: bool,
}

impl Gate {
    pub fn new() -> Gate {
        Gate::default()
    }

    /// Waits until the server has come here.
    #[track_caller]
    pub fn wait_until_reached(&self) {
        let (state, changed) = &*self.0;
        let (state, _) = changed.wait_timeout_while(state.lock().unwrap(), LIMIT, |state| !state.reached).unwrap();
        assert!(state.reached, "the server was not asked for so many bytes within {LIMIT:?}");
    }

    pub fn is_reached(&self) -> bool {
        self.0.0.lock().unwrap().reached
    }

    pub fn open(&self) {
        self.0.0.lock().unwrap().open = true;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.reached = true;
        changed.notify_all();
        let _ = changed.wait_timeout_while(state, LIMIT, |state| !state.open);
    }
}

/// What was asked, and what was given.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    /// First byte and count of the file's bytes that were sent.
    pub served: Option<(u64, u64)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The position that was asked for with `Range`.
    pub fn range_start(&self) -> Option<u64> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

pub struct ReleaseServer {
    listener: Listener,
    scheme: &'static str,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    files: Mutex<HashMap<String, File>>,
    /// Replies to come, per path; after them the file itself.
    scripts: Mutex<HashMap<String, VecDeque<Reply>>>,
    /// Replies that never end.
    always: Mutex<HashMap<String, Reply>>,
    requests: Mutex<Vec<Request>>,
}

impl ReleaseServer {
    pub fn start() -> ReleaseServer {
        ReleaseServer::launch(None)
    }

    pub fn start_tls(config: Arc<ServerConfig>) -> ReleaseServer {
        ReleaseServer::launch(Some(config))
    }

    /// A server that has `archive` as the release `version`, and its checksums.
    pub fn with_release(version: &str, archive: &[u8]) -> ReleaseServer {
        let server = ReleaseServer::start();
        server.publish(version, archive);
        server
    }

    fn launch(tls: Option<Arc<ServerConfig>>) -> ReleaseServer {
        let scheme = if tls.is_some() { "https" } else { "http" };
        let shared = Arc::new(Shared::default());
        let serving = shared.clone();
        let listener = Listener::start(move |stream, connections| serving.converse(stream, connections, tls.clone()));
        ReleaseServer { listener, scheme, shared }
    }

    /// What `--mirror` takes.
    pub fn base(&self) -> String {
        format!("{}://{}", self.scheme, self.address())
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base())
    }

    pub fn put(&self, path: &str, file: File) {
        self.shared.files.lock().unwrap().insert(path.into(), file);
    }

    pub fn publish(&self, version: &str, archive: &[u8]) {
        self.put(&asset_path(version), File::new(archive));
        self.put(&checksums_path(version), File::new(checksums(version, archive)));
    }

    /// Answers the next requests for `path` with these replies, one each.
    pub fn script(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        self.shared.scripts.lock().unwrap().entry(path.into()).or_default().extend(replies);
    }

    /// Answers every request for `path` with this reply.
    pub fn always(&self, path: &str, reply: Reply) {
        self.shared.always.lock().unwrap().insert(path.into(), reply);
    }

    /// The requests so far, those under way included.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub fn requests_for(&self, path: &str) -> Vec<Request> {
        self.requests().into_iter().filter(|request| request.path == path).collect()
    }

    /// Connections so far, whatever came over them.
    pub fn connections(&self) -> usize {
        self.listener.accepted()
    }

    pub fn forget_requests(&self) {
        self.shared.requests.lock().unwrap().clear();
    }
}

/// What happens to the connection after an answer.
enum After {
    Keep,
    Close,
    Reset,
}

impl Shared {
    fn converse(&self, stream: TcpStream, connections: &Connections, tls: Option<Arc<ServerConfig>>) {
        let after = match tls {
            None => self.answer_all(&mut &stream, &stream),
            Some(config) => {
                let connection = ServerConnection::new(config).unwrap();
                let mut secure = StreamOwned::new(connection, stream.try_clone().unwrap());
                let after = self.answer_all(&mut secure, &stream);
                if let Ok(After::Close) = after {
                    secure.conn.send_close_notify();
                    let _ = secure.flush();
                }
                after
            }
        };
        match after {
            Ok(After::Reset) => {
                connections.remove(&stream);
                reset(stream);
            }
            _ => {
                let _ = stream.shutdown(Shutdown::Write);
            }
        }
    }

    fn answer_all(&self, stream: &mut (impl Read + Write), socket: &TcpStream) -> io::Result<After> {
        loop {
            let after = match Head::read(stream) {
                Ok(Some(head)) => self.answer(&head, stream, socket)?,
                Ok(None) => After::Close,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    whole(stream, "400 Bad Request", Vec::new(), b"this is an HTTP server\n")?;
                    After::Close
                }
                Err(error) => return Err(error),
            };
            match after {
                After::Keep => {}
                after => return Ok(after),
            }
        }
    }

    /// Which of the recorded requests it is.
    fn record(&self, head: &Head, path: &str) -> usize {
        let (method, headers) = (head.method.clone(), head.headers.clone());
        let mut requests = self.requests.lock().unwrap();
        requests.push(Request { method, path: path.into(), headers, served: None });
        requests.len() - 1
    }

    fn answer(&self, head: &Head, stream: &mut (impl Read + Write), socket: &TcpStream) -> io::Result<After> {
        // A proxy is asked with the whole URL.
        let path = match head.target.split_once("://") {
            Some((_, rest)) => rest.find('/').map_or("/", |at| &rest[at..]),
            None => &head.target,
        };
        let number = self.record(head, path);
        let scripted = self.scripts.lock().unwrap().get_mut(path).and_then(VecDeque::pop_front);
        let reply = scripted.or_else(|| self.always.lock().unwrap().get(path).cloned()).unwrap_or(Reply::Serve);
        match reply {
            Reply::Nothing => Ok(After::Close),
            Reply::Silence => {
                let _ = io::copy(&mut &*socket, &mut io::sink());
                Ok(After::Close)
            }
            Reply::Endless(first, others) => drip(stream, first, others),
            Reply::Raw(bytes) => {
                stream.write_all(&bytes)?;
                stream.flush()?;
                Ok(After::Close)
            }
            Reply::Status(status, headers, body) => {
                let headers: Vec<_> = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
                whole(stream, status, headers, &body)
            }
            Reply::Redirect(status, to) => whole(stream, status, vec![("Location".into(), to)], b""),
            Reply::Part(range, body) => {
                whole(stream, "206 Partial Content", vec![("Content-Range".into(), range)], &body)
            }
            Reply::Replace(file) => {
                self.files.lock().unwrap().insert(path.into(), file);
                Answer { shared: self, number, stream, socket }.serve(head, path, None)
            }
            Reply::Serve => Answer { shared: self, number, stream, socket }.serve(head, path, None),
            Reply::Cut(after, how) => {
                Answer { shared: self, number, stream, socket }.serve(head, path, Some((after, how)))
            }
        }
    }
}

/// Ends when the other side goes away.
fn drip(stream: &mut impl Write, first: &[u8], others: &[u8]) -> io::Result<After> {
    stream.write_all(first)?;
    loop {
        stream.write_all(others)?;
        stream.flush()?;
        thread::sleep(DRIP);
    }
}

/// The answer to one request for a file, and where it goes.
struct Answer<'a, S> {
    shared: &'a Shared,
    /// Which of the recorded requests it answers.
    number: usize,
    stream: &'a mut S,
    socket: &'a TcpStream,
}

impl<S: Read + Write> Answer<'_, S> {
    fn serve(mut self, head: &Head, path: &str, cut: Option<(u64, Cut)>) -> io::Result<After> {
        let Some(file) = self.shared.files.lock().unwrap().get(path).cloned() else {
            return whole(self.stream, "404 Not Found", Vec::new(), b"Not Found\n");
        };
        let total = file.bytes.len() as u64;
        let range = file.range_start(head);
        if range.is_some_and(|start| start >= total) {
            return whole(self.stream, "416 Range Not Satisfiable", file.headers(range), b"");
        }
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        write_head(self.stream, status, &file.headers(range))?;
        let start = range.unwrap_or(0);
        let limit = cut.as_ref().map_or(total - start, |(after, _)| (*after).min(total - start));
        let end = start + limit;
        self.send(&file.bytes, start..end)?;
        match cut {
            None if file.length => Ok(After::Keep),
            None | Some((_, Cut::Close)) => Ok(After::Close),
            Some((_, Cut::Reset)) => Ok(After::Reset),
            Some((_, Cut::Stall)) => {
                // Whoever asked must be the one to give up.
                let _ = io::copy(&mut &*self.socket, &mut io::sink());
                Ok(After::Close)
            }
            Some((_, Cut::Drip)) => {
                for at in end..total {
                    self.send(&file.bytes, at..at + 1)?;
                    thread::sleep(DRIP);
                }
                Ok(After::Close)
            }
            Some((_, Cut::Hold(gate))) => {
                gate.pass();
                self.send(&file.bytes, end..total)?;
                Ok(After::Close)
            }
        }
    }

    /// Sends a part of a file and records how much of it went out.
    fn send(&mut self, bytes: &[u8], part: Range<u64>) -> io::Result<()> {
        let mut at = part.start as usize;
        while at < part.end as usize {
            let next = (at + CHUNK).min(part.end as usize);
            self.stream.write_all(&bytes[at..next])?;
            if let Some(request) = self.shared.requests.lock().unwrap().get_mut(self.number) {
                let (first, count) = request.served.unwrap_or((part.start, 0));
                request.served = Some((first, count + (next - at) as u64));
            }
            at = next;
        }
        self.stream.flush()
    }
}

fn whole(stream: &mut impl Write, status: &str, mut headers: Vec<(String, String)>, body: &[u8]) -> io::Result<After> {
    headers.push(("Content-Length".into(), body.len().to_string()));
    write_head(stream, status, &headers)?;
    stream.write_all(body)?;
    stream.flush()?;
    Ok(After::Keep)
}

/// A port of loopback on which nobody listens, and nobody will: it is bound.
pub struct DeadPort(std::os::fd::OwnedFd, pub u16);

impl DeadPort {
    pub fn new() -> DeadPort {
        let listener = bound_socket();
        let port = port_of(&listener);
        DeadPort(listener, port)
    }
}

fn bound_socket() -> std::os::fd::OwnedFd {
    use std::os::fd::FromRawFd;
    // SAFETY: the descriptor is new and ours; the address is plain data.
    unsafe {
        let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        assert!(socket >= 0);
        let owned = std::os::fd::OwnedFd::from_raw_fd(socket);
        let mut address: libc::sockaddr_in = std::mem::zeroed();
        address.sin_family = libc::AF_INET as libc::sa_family_t;
        address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
        let length = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        assert_eq!(libc::bind(socket, (&raw const address).cast(), length), 0);
        owned
    }
}

fn port_of(socket: &std::os::fd::OwnedFd) -> u16 {
    let clone = TcpListener::from(socket.try_clone().unwrap());
    clone.local_addr().unwrap().port()
}

/// Waits until the server was asked `count` times for `path`.
#[track_caller]
pub fn wait_for_requests(server: &ReleaseServer, path: &str, count: usize) {
    let limit = Duration::from_secs(30);
    let came = wait_until(limit, || (server.requests_for(path).len() >= count).then_some(()));
    assert!(came.is_some(), "fewer than {count} requests for {path}: {:#?}", server.requests());
}
