//! What a service manager hears of the daemon that it started.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;

use crate::support::archive::{VERSION, asset_path, small_release};
use crate::support::process::{binary, suspend};
use crate::support::*;

/// Pings then come every 100 ms.
const PERIOD: &str = "200000";

/// A service manager, as far as its socket goes.
struct Manager {
    socket: UnixDatagram,
    path: PathBuf,
    heard: Vec<String>,
}

impl Manager {
    fn new(home: &Home) -> Manager {
        let path = home.root().join("notify");
        Manager::of(UnixDatagram::bind(&path).unwrap(), path)
    }

    fn of(socket: UnixDatagram, path: PathBuf) -> Manager {
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        Manager { socket, path, heard: Vec::new() }
    }

    /// The next message but those of the watchdog.
    #[track_caller]
    fn next(&mut self) -> String {
        loop {
            let message = self.receive();
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }

    /// Reads on until a message begins like this.
    #[track_caller]
    fn wait_for(&mut self, beginning: &str) -> String {
        loop {
            let message = self.receive();
            if message.starts_with(beginning) {
                return message;
            }
        }
    }

    #[track_caller]
    fn receive(&mut self) -> String {
        let mut buffer = [0; 4096];
        let Ok(count) = self.socket.recv(&mut buffer) else { panic!("nothing more after {:#?}", self.heard) };
        let message = String::from_utf8(buffer[..count].to_vec()).unwrap();
        self.heard.push(message.clone());
        message
    }

    /// Reads what is there already; whether there was anything.
    fn drain(&mut self) -> bool {
        let before = self.heard.len();
        let mut buffer = [0; 4096];
        self.socket.set_nonblocking(true).unwrap();
        while let Ok(count) = self.socket.recv(&mut buffer) {
            self.heard.push(String::from_utf8_lossy(&buffer[..count]).into_owned());
        }
        self.socket.set_nonblocking(false).unwrap();
        self.heard.len() > before
    }
}

fn home() -> Home {
    Home::new().with_stand_in()
}

/// Microseconds on the clock that counts since the machine was booted.
fn monotonic() -> u64 {
    // SAFETY: timespec is plain data, and the pointer is to our own.
    let now = unsafe {
        let mut now: libc::timespec = std::mem::zeroed();
        libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now);
        now
    };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// A start takes as long as stigmer lets it: a day.
const PATIENCE: &str = "EXTEND_TIMEOUT_USEC=90000000000";

fn serves(home: &Home) -> String {
    let (port, ui) = (home.port(), home.ui_port());
    format!("READY=1\nSTATUS=Temporal serves at 127.0.0.1:{port}, its UI at http://localhost:{ui}")
}

#[test]
fn it_hears_of_each_step_and_of_ready_when_temporal_serves_and_not_before() {
    let home = home();
    let mut manager = Manager::new(&home);
    home.behave("never-serve");
    let start = home.stigmer(["local", "start"]).env("NOTIFY_SOCKET", &manager.path).spawn();
    assert_eq!(manager.next(), format!("{PATIENCE}\nSTATUS=installing Temporal"));
    assert_eq!(manager.next(), format!("{PATIENCE}\nSTATUS=starting Temporal"));
    home.wait_for("a server that listens and does not serve", || {
        TcpStream::connect(("127.0.0.1", home.port())).is_ok()
    });
    assert!(!manager.drain(), "{:#?}", manager.heard);
    home.behave("");
    assert_eq!(manager.next(), serves(&home));
    // Whoever starts because of that finds it ready.
    home.stigmer(["local", "status"]).run().success();
    start.signal(libc::SIGTERM);
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping Temporal");
    start.wait().success();
    assert!(!manager.drain(), "{:#?}", manager.heard);
}

#[test]
fn a_first_download_is_given_its_time_and_watched_only_when_ready() {
    let home = Home::new();
    let mut manager = Manager::new(&home);
    let server = ReleaseServer::with_release(VERSION, small_release());
    let gate = Gate::new();
    server.script(&asset_path(VERSION), [Reply::Cut(1000, Cut::Hold(gate.clone()))]);
    home.behave("slow-start 300");
    let start = home.stigmer(["local", "start"]).with_mirror(VERSION, server.base());
    // Watched already, this would be a ping every 10 ms.
    let start = start.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "20000").spawn();
    gate.wait_until_reached();
    assert_eq!(manager.receive(), format!("{PATIENCE}\nSTATUS=installing Temporal"));
    gate.open();
    assert_eq!(manager.receive(), format!("{PATIENCE}\nSTATUS=starting Temporal"));
    assert_eq!(manager.receive(), serves(&home));
    assert_eq!(manager.receive(), "WATCHDOG=1");
    start.signal(libc::SIGTERM);
    start.wait().success();
}

#[test]
fn a_restart_asked_for_or_not_is_a_reload_from_then_to_ready_again() {
    let home = home();
    let mut manager = Manager::new(&home);
    let start = home.stigmer(["local", "start"]).env("NOTIFY_SOCKET", &manager.path).spawn();
    manager.wait_for("READY=1");
    for asked in [true, false] {
        let before = monotonic();
        let expected = match asked {
            true => {
                home.stigmer(["local", "restart"]).run().success();
                "STATUS=restarting Temporal"
            }
            false => {
                home.crash("3");
                "STATUS=waiting to restart Temporal: exit status 3"
            }
        };
        let reload = manager.next();
        let (when, status) = reload.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().split_once('\n').unwrap();
        assert!((before..=monotonic()).contains(&when.parse().unwrap()), "{reload}");
        assert_eq!(status, expected);
        manager.wait_for(&serves(&home));
    }
    start.signal(libc::SIGTERM);
    manager.wait_for("STOPPING=1");
    start.wait().success();
}

#[test]
fn its_watchdog_is_fed_while_the_daemon_works_and_not_while_it_is_suspended() {
    let homes = [home(), home()];
    let mut managers = homes.each_ref().map(Manager::new);
    // Named as the process that is watched, as systemd does.
    let script = "WATCHDOG_PID=$$ exec \"$stigmer\" local start";
    let starts = [0, 1].map(|at| {
        let start = Stigmer::of_program(&homes[at], "sh".as_ref(), ["-c", script]).env("stigmer", binary());
        start.env("NOTIFY_SOCKET", &managers[at].path).env("WATCHDOG_USEC", PERIOD).spawn()
    });
    for manager in &mut managers {
        manager.wait_for("READY=1");
        manager.wait_for("WATCHDOG=1");
    }
    let [working, suspended] = &mut managers;
    suspend(starts[1].id());
    suspended.drain();
    working.drain();
    // Long enough for many.
    for _ in 0..5 {
        assert_eq!(working.receive(), "WATCHDOG=1");
    }
    assert!(!suspended.drain(), "{:#?}", suspended.heard);
    starts[1].signal(libc::SIGCONT);
    assert_eq!(suspended.receive(), "WATCHDOG=1");
    // A server that takes its time is not a daemon that hangs.
    homes[0].behave("never-serve");
    homes[0].crash("3");
    working.wait_for("RELOADING=1");
    for _ in 0..3 {
        working.wait_for("WATCHDOG=1");
    }
    homes[0].behave("");
    working.wait_for("READY=1");
    for start in starts {
        start.signal(libc::SIGTERM);
        start.wait().success();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn its_socket_may_be_an_abstract_one() {
    use std::os::linux::net::SocketAddrExt;
    let home = home();
    let name = format!("stigmer-test-{}-{}", std::process::id(), home.port());
    let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
    let mut manager = Manager::of(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}").into());
    let start = home.stigmer(["local", "start"]).env("NOTIFY_SOCKET", &manager.path).spawn();
    manager.wait_for(&serves(&home));
    start.signal(libc::SIGTERM);
    manager.wait_for("STOPPING=1");
    start.wait().success();
}

#[test]
fn a_manager_that_is_not_there_or_does_not_listen_harms_nothing() {
    let home = home();
    let deaf = Manager::new(&home);
    let full = UnixDatagram::unbound().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send_to(b"READY=1", &deaf.path).is_ok() {}
    fs::write(home.root().join("file"), "").unwrap();
    let [file, nowhere, root] = ["file", "nowhere/notify", ""].map(|name| home.root().join(name));
    let long = format!("/{}", "x".repeat(4000));
    for socket in [&*deaf.path, &file, &nowhere, &root, "@".as_ref(), "notify".as_ref(), long.as_ref(), "".as_ref()] {
        let start = home.stigmer(["local", "start"]).env("NOTIFY_SOCKET", socket).env("WATCHDOG_USEC", PERIOD);
        let mut start = start.spawn();
        start.wait_for_stdout("Ready.\n");
        home.stigmer(["local", "restart"]).run().success();
        start.signal(libc::SIGTERM);
        let outcome = start.wait();
        assert_eq!(outcome.success().stderr, "", "{}", outcome.describe());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn temporal_is_no_service_of_its() {
    let home = home();
    let mut manager = Manager::new(&home);
    let start = home.stigmer(["local", "start"]).env("NOTIFY_SOCKET", &manager.path);
    let start = start.env("WATCHDOG_USEC", PERIOD).env("WATCHDOG_PID", "1").spawn();
    manager.wait_for("READY=1");
    let environment = fs::read(format!("/proc/{}/environ", home.starts()[0].0)).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    assert!(environment.contains("\0STIGMER_HOME="), "{environment}");
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        assert!(!environment.contains(name), "{environment}");
    }
    start.signal(libc::SIGTERM);
    start.wait().success();
    assert!(!manager.heard.contains(&"WATCHDOG=1".to_owned()), "{:#?}", manager.heard);
}

#[test]
fn a_daemon_in_the_background_is_not_its_service() {
    let home = home();
    let mut manager = Manager::new(&home);
    for words in [&["local", "start", "--detach"][..], &["local", "stop"], &["local", "run", "--", "true"]] {
        home.stigmer(words).env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", PERIOD).run().success();
    }
    assert!(!manager.drain(), "{:#?}", manager.heard);
}

#[test]
fn an_external_temporal_is_ready_when_it_serves_and_said_to_be_lost_when_it_is() {
    let (other, home) = (home(), Home::new());
    other.stigmer(["local", "start", "--detach"]).run().success();
    let address = format!("127.0.0.1:{}", other.port());
    let mut manager = Manager::new(&home);
    let start = home.stigmer(["local", "start", "--temporal-host", &address]);
    let start = start.env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", PERIOD).spawn();
    assert_eq!(manager.next(), format!("{PATIENCE}\nSTATUS=asking external Temporal {address}"));
    assert_eq!(manager.next(), format!("READY=1\nSTATUS=external Temporal {address} is serving"));
    manager.wait_for("WATCHDOG=1");
    other.stigmer(["local", "stop"]).run().success();
    // It is asked at once.
    home.stigmer(["local", "status"]).run().exits_with(1);
    let lost = format!("READY=1\nSTATUS=external Temporal {address} is lost: {address}: connection refused");
    assert_eq!(manager.next(), lost);
    start.signal(libc::SIGTERM);
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=stopping Temporal");
    start.wait().success();
}
