//! One TCP connection of a download: to the first address that answers, and
//! given up when too little comes over it.
//!
//! In place of the HTTP library's own, which gives the first of two addresses
//! two thirds of the time, and limits each silence alone: a byte every ten
//! seconds would hold it for years. Below TLS, where no record hides a drip.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, Transport,
};
use ureq::{Error, Timeout};

use crate::clock::after;

/// How long an address may take while others are left, in one round over them
/// and the next; then those that are left share the time. The first is what
/// RFC 8305 (5) recommends, and costs a dead IPv6 a quarter of a second.
const ROUNDS: [Duration; 3] = [Duration::from_millis(250), Duration::from_secs(2), Duration::MAX];
/// Within this time the next `MIN_BYTES` of a body have to come. Who gets less
/// than a kilobyte a second would wait for a release for half a day.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Fewer bytes are no progress.
pub const MIN_BYTES: u64 = 16 << 10;
/// How long a read of a body waits before whoever reads may show that nothing comes.
const TICK: Duration = Duration::from_secs(1);

/// Makes the connections of an agent.
#[derive(Debug)]
pub struct Direct;

impl<In: Transport> Connector<In> for Direct {
    type Out = Either<In, Connection>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        if let Some(through_proxy) = chained {
            return Ok(Some(Either::A(through_proxy)));
        }
        let stream = connect(&details.addrs, *details.timeout.after)?;
        stream.set_nodelay(true)?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(Connection { stream, buffers, waited: Duration::ZERO, came: 0 })))
    }
}

/// Connects to one of `addresses`, each of which gets a short time first.
fn connect(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, Error> {
    let deadline = Instant::now() + limit;
    let mut waiting = addresses.to_vec();
    let mut refused = None;
    for patience in ROUNDS {
        let count = waiting.len();
        let mut silent = Vec::new();
        for (index, address) in waiting.into_iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / (count - index) as u32;
            // One that stands alone makes room for no other.
            let limit = if count == 1 { left } else { share.min(patience) };
            match TcpStream::connect_timeout(&address, limit.max(Duration::from_millis(1))) {
                Ok(stream) => return Ok(stream),
                Err(cause) if cause.kind() == io::ErrorKind::TimedOut => silent.push(address),
                Err(cause) => refused = Some(cause),
            }
        }
        waiting = silent;
        if Instant::now() >= deadline {
            break;
        }
    }
    match refused {
        Some(cause) if waiting.is_empty() => Err(cause.into()),
        _ => Err(Error::Timeout(Timeout::Connect)),
    }
}

#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffers: LazyBuffers,
    /// Since the last `MIN_BYTES` were whole.
    waited: Duration,
    came: u64,
}

impl Connection {
    fn receive(&mut self, limit: Duration) -> io::Result<usize> {
        let deadline = after(limit);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            match self.stream.read(self.buffers.input_append_buf()) {
                // Stopped and continued (Ctrl-Z, fg).
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                answer => return answer,
            }
        }
    }

    fn account(&mut self, waited: Duration, count: usize) {
        (self.waited, self.came) = (self.waited + waited, self.came + count as u64);
        if self.came >= MIN_BYTES {
            (self.waited, self.came) = (Duration::ZERO, 0);
        }
    }

    /// Err when too little came.
    fn check(&self) -> Result<(), Error> {
        if self.waited < STALL_TIMEOUT {
            return Ok(());
        }
        let seconds = STALL_TIMEOUT.as_secs();
        Err(Error::Io(io::Error::other(match self.came {
            0 => format!("no data for {seconds} s"),
            came => format!("no more than {came} bytes in {seconds} s"),
        })))
    }
}

impl Transport for Connection {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.set_write_timeout(timeout.for_write().not_zero().map(|limit| *limit))?;
        match self.stream.write_all(&self.buffers.output()[..amount]) {
            Err(cause) if is_timeout(&cause) => Err(Error::Timeout(timeout.reason)),
            answer => Ok(answer?),
        }
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        // All but a body has a limit as a whole, which the library keeps.
        let is_body = timeout.after.is_not_happening();
        self.check()?;
        let limit = if is_body { TICK } else { *timeout.after };
        if limit.is_zero() {
            return Err(Error::Timeout(timeout.reason));
        }
        let began = Instant::now();
        let answer = self.receive(limit);
        if is_body {
            self.account(began.elapsed(), *answer.as_ref().unwrap_or(&0));
        }
        match answer {
            Ok(count) => {
                self.buffers.input_appended(count);
                Ok(count > 0)
            }
            Err(cause) if is_timeout(&cause) => {
                Err(Error::Timeout(if is_body { Timeout::RecvBody } else { timeout.reason }))
            }
            Err(cause) => Err(cause.into()),
        }
    }

    /// Connections are used once.
    fn is_open(&mut self) -> bool {
        false
    }
}

/// Whether a read of a body ended only for whoever reads to look around.
pub fn is_tick(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    matches!(inner, Some(Error::Timeout(Timeout::RecvBody)))
}

fn is_timeout(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// An address that answers nothing, as long as the second value lives:
    /// nobody accepts, and the queue is full.
    fn silent() -> (SocketAddr, impl Sized) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).ok();
        let queue: Vec<_> = std::iter::from_fn(connect).take(10_000).collect();
        (address, (listener, queue))
    }

    #[test]
    fn an_address_that_does_not_answer_hardly_delays_the_next_one() {
        let (dead, _keep) = silent();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let alive = listener.local_addr().unwrap();
        let limit = Duration::from_secs(120);
        let began = Instant::now();
        let stream = connect(&[dead, dead, alive], limit).unwrap();
        assert_eq!(stream.peer_addr().unwrap(), alive);
        // Both of them wait again only when all have been tried.
        assert!(began.elapsed() < limit / 4, "{:?}", began.elapsed());
    }

    #[test]
    fn silence_is_a_timeout_and_a_refusal_is_said() {
        let (dead, _keep) = silent();
        let refusing = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let limit = Duration::from_millis(600);
        for addresses in [&[dead][..], &[dead, dead], &[refusing, dead], &[dead, refusing]] {
            assert!(matches!(connect(addresses, limit), Err(Error::Timeout(Timeout::Connect))), "{addresses:?}");
        }
        match connect(&[refusing, refusing], limit) {
            Err(Error::Io(cause)) => assert_eq!(cause.kind(), io::ErrorKind::ConnectionRefused),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_next_bytes_have_to_come_in_time_however_many_came_before() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let buffers = LazyBuffers::new(1, 1);
        let mut connection = Connection { stream, buffers, waited: Duration::ZERO, came: 0 };
        for _ in 0..100 {
            connection.account(STALL_TIMEOUT / 2, MIN_BYTES as usize / 2);
            connection.check().unwrap();
        }
        connection.account(STALL_TIMEOUT / 2, 1);
        connection.check().unwrap();
        connection.account(STALL_TIMEOUT / 2, 1);
        assert_eq!(connection.check().unwrap_err().to_string(), "io: no more than 2 bytes in 15 s");
    }
}
