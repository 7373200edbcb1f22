//! What a service manager is told: datagrams to the socket that NOTIFY_SOCKET
//! names, as sd_notify(3) has them.
//!
//! Nothing here can fail: the daemon goes on whether or not somebody listens.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::sys;

/// Meant for one process alone, and for none that it starts.
pub const VARIABLES: [&str; 3] = ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"];
/// How long a manager that does not read can hold up the daemon.
const SEND_LIMIT: Duration = Duration::from_millis(200);
/// A shorter one would keep the daemon from sleeping.
const MIN_PERIOD: Duration = Duration::from_millis(10);

/// The way to the service manager; the default one leads to nobody.
#[derive(Clone, Default)]
pub struct Notifier {
    address: Option<SocketAddr>,
    /// Within which it wants to hear from a service that is ready.
    period: Option<Duration>,
}

impl Notifier {
    pub fn new(variable: &dyn Fn(&str) -> Option<OsString>) -> Notifier {
        let [socket, period, pid] = VARIABLES.map(|name| variable(name).unwrap_or_default());
        let is_ours = pid.is_empty() || number(&pid) == Some(std::process::id().into());
        let period = number(&period).filter(|&period| is_ours && period > 0);
        Notifier {
            address: address(&socket),
            period: period.map(|period| Duration::from_micros(period).max(MIN_PERIOD)),
        }
    }

    pub fn send(&self, text: &str) {
        if let Some(address) = &self.address {
            let _ = UnixDatagram::unbound().and_then(|socket| {
                socket.set_write_timeout(Some(SEND_LIMIT))?;
                socket.send_to_addr(text.as_bytes(), address)
            });
        }
    }

    /// To be used from when the manager was told that the service is ready: it
    /// does not count before.
    pub fn watchdog(&self) -> Option<Watchdog> {
        self.address.as_ref()?;
        Some(Watchdog { notifier: self.clone(), period: self.period?, last: Instant::now() })
    }
}

fn number(text: &OsStr) -> Option<u64> {
    text.to_str()?.parse().ok()
}

/// None for what is no address of a socket on this machine.
fn address(name: &OsStr) -> Option<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name).ok(),
        [b'@', name @ ..] => sys::abstract_address(name),
        _ => None,
    }
}

/// Shows the manager that this process does not hang.
pub struct Watchdog {
    notifier: Notifier,
    period: Duration,
    last: Instant,
}

impl Watchdog {
    /// To be called before each sleep until `deadline`; returns how long it may
    /// last. Whoever wakes up anyway, as for a health check, makes good for the
    /// next wake-up of the watchdog's own.
    pub fn ping(&mut self, deadline: Option<Instant>) -> Instant {
        if self.last.elapsed() >= self.period / 4 {
            self.notifier.send("WATCHDOG=1");
            self.last = Instant::now();
        }
        let next = self.last + self.period / 2;
        deadline.map_or(next, |deadline| deadline.min(next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::after;

    fn notifier(variables: &[(&str, &str)]) -> Notifier {
        let variables = variables.to_vec();
        Notifier::new(&move |name| {
            variables.iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn only_the_process_that_is_meant_is_watched() {
        let socket = ("NOTIFY_SOCKET", "/run/notify");
        let period = |variables: &[(&str, &str)]| notifier(variables).watchdog().map(|watchdog| watchdog.period);
        let (ours, seconds) = (std::process::id().to_string(), Duration::from_secs);
        assert_eq!(period(&[socket, ("WATCHDOG_USEC", "30000000")]), Some(seconds(30)));
        assert_eq!(period(&[socket, ("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", &ours)]), Some(seconds(2)));
        assert_eq!(period(&[socket, ("WATCHDOG_USEC", "2000000"), ("WATCHDOG_PID", "1")]), None);
        assert_eq!(period(&[socket, ("WATCHDOG_USEC", "1")]), Some(MIN_PERIOD));
        for nothing in ["", "0", "-1", "soon"] {
            assert_eq!(period(&[socket, ("WATCHDOG_USEC", nothing)]), None, "{nothing}");
        }
        assert_eq!(period(&[("WATCHDOG_USEC", "2000000")]), None);
    }

    #[test]
    fn what_is_no_address_leads_to_nobody() {
        for name in ["", "run/notify", "vsock:2:1234", &format!("/{}", "x".repeat(200))] {
            let notifier = notifier(&[("NOTIFY_SOCKET", name)]);
            assert!(notifier.address.is_none(), "{name}");
            notifier.send("READY=1");
        }
    }

    #[test]
    fn whoever_wakes_often_pings_seldom_and_nobody_sleeps_for_longer_than_half_the_period() {
        let mut watchdog =
            notifier(&[("NOTIFY_SOCKET", "/nowhere"), ("WATCHDOG_USEC", "60000000")]).watchdog().unwrap();
        let began = watchdog.last;
        let soon = after(Duration::from_secs(1));
        assert_eq!(watchdog.ping(Some(soon)), soon);
        assert_eq!(watchdog.last, began);
        watchdog.last -= Duration::from_secs(15);
        assert!(watchdog.ping(None) <= after(Duration::from_secs(30)));
        assert!(watchdog.last >= began);
    }
}
