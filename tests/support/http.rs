//! As much of HTTP/1.1 as a test server and a test proxy need.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

const MAX_HEAD: usize = 64 << 10;

/// The head of a request.
#[derive(Debug, Clone)]
pub struct Head {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Reads up to the empty line; None at the end of the stream. Another
    /// protocol shows in its first byte, and is `InvalidData`.
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Head>> {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\r\n\r\n") {
            match stream.read(&mut byte)? {
                0 => return Ok(None),
                _ if bytes.is_empty() && !byte[0].is_ascii_uppercase() => {
                    let _ = stream.read(&mut [0; 4096]);
                    return Err(io::ErrorKind::InvalidData.into());
                }
                _ if bytes.len() > MAX_HEAD => return Err(io::Error::other("the head is too long")),
                _ => bytes.push(byte[0]),
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        let mut lines = text.lines();
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, target) = (words.next().unwrap_or_default().into(), words.next().unwrap_or_default().into());
        let header =
            |line: &str| line.split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
        Ok(Some(Head { method, target, headers: lines.filter_map(header).collect() }))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0u32, |group, at| group << 8 | u32::from(*chunk.get(at).unwrap_or(&0)));
        for at in 0..4 {
            let digit = ALPHABET[(group >> (18 - 6 * at) & 63) as usize];
            text.push(if at <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// Takes connections on a port of its own, a thread for each, until it is
/// dropped: then all are cut.
pub struct Listener {
    address: SocketAddr,
    connections: Arc<Connections>,
    accepted: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    pub fn start(serve: impl Fn(TcpStream, &Connections) + Send + Sync + 'static) -> Listener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, accepted) = (Arc::<Connections>::default(), Arc::<AtomicUsize>::default());
        let ended = Arc::<AtomicBool>::default();
        let (open, count, is_over) = (connections.clone(), accepted.clone(), ended.clone());
        let serve = Arc::new(serve);
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                let (open, serve) = (open.clone(), serve.clone());
                open.add(&stream);
                thread::spawn(move || {
                    let _ = stream.set_nodelay(true);
                    let clone = stream.try_clone();
                    serve(stream, &open);
                    if let Ok(clone) = clone {
                        open.remove(&clone);
                    }
                });
            }
        });
        Listener { address, connections, accepted, ended, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        self.connections.cut();
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.connections.cut();
    }
}

/// Every open connection of a server, to be cut when it ends.
#[derive(Default)]
pub struct Connections(Mutex<Vec<TcpStream>>);

impl Connections {
    pub fn add(&self, stream: &TcpStream) {
        if let Ok(clone) = stream.try_clone() {
            self.0.lock().unwrap().push(clone);
        }
    }

    /// Forgets a connection that is over: a clone that lives keeps it open.
    pub fn remove(&self, stream: &TcpStream) {
        let peer = stream.peer_addr().ok();
        self.0.lock().unwrap().retain(|other| peer.is_none() || other.peer_addr().ok() != peer);
    }

    pub fn cut(&self) {
        for stream in self.0.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// Closes with a reset. All that was written before arrives: we wait until the
/// other side has it.
pub fn reset(stream: TcpStream) {
    wait_until_acknowledged(&stream);
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the pointer and the length describe `linger`.
    unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        );
    }
}

#[cfg(target_os = "linux")]
fn wait_until_acknowledged(stream: &TcpStream) {
    super::wait_until(super::LIMIT, || {
        let mut unsent: libc::c_int = 0;
        // SAFETY: SIOCOUTQ (the same as TIOCOUTQ) writes one int.
        let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &mut unsent) };
        (result != 0 || unsent == 0).then_some(())
    });
}

#[cfg(not(target_os = "linux"))]
fn wait_until_acknowledged(_: &TcpStream) {}

/// Copies both ways until both directions have ended.
pub fn tunnel(one: TcpStream, other: TcpStream) {
    let (mut one_reader, mut other_writer) = (one.try_clone().unwrap(), other.try_clone().unwrap());
    let forth = std::thread::spawn(move || {
        let _ = io::copy(&mut one_reader, &mut other_writer);
        let _ = other_writer.shutdown(Shutdown::Write);
    });
    let (mut one, mut other) = (one, other);
    let _ = io::copy(&mut other, &mut one);
    let _ = one.shutdown(Shutdown::Write);
    let _ = forth.join();
}

pub fn write_head(stream: &mut impl Write, status: &str, headers: &[(String, String)]) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())
}
