//! An HTTP proxy on loopback: `CONNECT`, and requests with a whole URL.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use super::http::{Head, Listener, base64, tunnel, write_head};

pub struct Proxy {
    listener: Listener,
    shared: Arc<Shared>,
}

struct Shared {
    /// Where every request goes, whatever host it names: nothing here is
    /// resolved, and nothing leaves the machine.
    target: SocketAddr,
    /// `user:password` in base64.
    credentials: Option<String>,
    requests: Mutex<Vec<Head>>,
}

impl Proxy {
    pub fn to(target: SocketAddr) -> Proxy {
        Proxy::launch(target, None)
    }

    pub fn with_password(target: SocketAddr, user: &str, password: &str) -> Proxy {
        Proxy::launch(target, Some(base64(format!("{user}:{password}").as_bytes())))
    }

    fn launch(target: SocketAddr, credentials: Option<String>) -> Proxy {
        let shared = Arc::new(Shared { target, credentials, requests: Mutex::default() });
        let serving = shared.clone();
        let listener = Listener::start(move |stream, _| {
            let _ = serving.serve(stream);
        });
        Proxy { listener, shared }
    }

    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// The requests that it let through and those that it refused.
    pub fn requests(&self) -> Vec<Head> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Shared {
    fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let Some(head) = Head::read(&mut stream)? else { return Ok(()) };
        self.requests.lock().unwrap().push(head.clone());
        let given = head.header("proxy-authorization").and_then(|value| value.strip_prefix("Basic "));
        if self.credentials.as_deref().is_some_and(|wanted| given != Some(wanted)) {
            let headers =
                [("Proxy-Authenticate", "Basic realm=\"proxy\""), ("Content-Length", "0"), ("Connection", "close")];
            let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
            return write_head(&mut stream, "407 Proxy Authentication Required", &headers);
        }
        let mut upstream = TcpStream::connect(self.target)?;
        match head.method.as_str() {
            "CONNECT" => write_head(&mut stream, "200 Connection established", &[])?,
            method => {
                let mut text = format!("{method} {} HTTP/1.1\r\n", head.target);
                for (name, value) in head.headers.iter().filter(|(name, _)| !name.starts_with("proxy-")) {
                    text.push_str(&format!("{name}: {value}\r\n"));
                }
                text.push_str("\r\n");
                upstream.write_all(text.as_bytes())?;
            }
        }
        tunnel(stream, upstream);
        Ok(())
    }
}
