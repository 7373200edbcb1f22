//! Who listens on a port: what the kernel says, not who answers there.

#[cfg(any(target_os = "linux", test))]
use std::net::IpAddr;
use std::net::SocketAddr;

/// Whether a process of the group that `leader` leads listens at `address`;
/// None where the system does not say.
pub fn listens(leader: u32, address: SocketAddr) -> Option<bool> {
    system::listens(leader, address)
}

/// Whether who listens at `bound` gets what is sent to `ip`.
#[cfg(any(target_os = "linux", test))]
fn covers(bound: IpAddr, ip: IpAddr) -> bool {
    bound.is_unspecified() || bound.to_canonical() == ip.to_canonical()
}

#[cfg(target_os = "linux")]
mod system {
    use super::{IpAddr, SocketAddr, covers};
    use crate::sys::processes::{group_of, has_own_proc};
    use std::fs::{self, File};
    use std::io::{self, BufRead, BufReader};

    const LISTEN: &str = "0A";

    pub fn listens(leader: u32, address: SocketAddr) -> Option<bool> {
        let mut tables = ["/proc/net/tcp", "/proc/net/tcp6"];
        if address.is_ipv6() {
            tables.reverse();
        }
        // One after the other: measured, reading a table to its end takes 6 ms.
        let mut answers = Vec::new();
        for table in tables.into_iter().filter_map(|table| File::open(table).ok()) {
            let sockets = listening_sockets(BufReader::new(table), address);
            if !sockets.is_empty() {
                match group_holds_one(leader, &sockets) {
                    Some(true) => return Some(true),
                    answer => answers.push(answer),
                }
            }
        }
        (!answers.is_empty() && !answers.contains(&None)).then_some(false)
    }

    fn group_holds_one(leader: u32, sockets: &[String]) -> Option<bool> {
        if !has_own_proc() {
            return None;
        }
        if holds_one(leader, sockets) == Some(true) {
            return Some(true);
        }
        // The server of a script that did not `exec` it is its child.
        let members = group_of(leader)?;
        let answers: Vec<_> = members.into_iter().map(|pid| holds_one(pid, sockets)).collect();
        match answers.contains(&Some(true)) {
            true => Some(true),
            false => (!answers.contains(&None)).then_some(false),
        }
    }

    /// The sockets that listen at `address`, as /proc/PID/fd names them (proc(5)).
    /// Those that listen come first: thousands of closed connections are not read.
    pub fn listening_sockets(table: impl BufRead, address: SocketAddr) -> Vec<String> {
        let is_listener = |line: &String| line.split_ascii_whitespace().nth(3) == Some(LISTEN);
        let socket = |line: String| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (local, inode) = (fields.next()?, fields.nth(7)?);
            let (ip, port) = local.split_once(':')?;
            let is_wanted = u16::from_str_radix(port, 16) == Ok(address.port()) && covers(parse_ip(ip)?, address.ip());
            is_wanted.then(|| format!("socket:[{inode}]"))
        };
        let lines = table.lines().skip(1).map_while(Result::ok);
        lines.take_while(is_listener).filter_map(socket).collect()
    }

    /// One or four words in hexadecimal, each in the machine's own byte order.
    fn parse_ip(text: &str) -> Option<IpAddr> {
        let word = |at: usize| Some(u32::from_str_radix(text.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
        match text.len() {
            8 => Some(IpAddr::from(word(0)?)),
            32 => {
                let bytes = [word(0)?, word(8)?, word(16)?, word(24)?].concat();
                Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?))
            }
            _ => None,
        }
    }

    /// None for a process that does not let itself be looked at.
    fn holds_one(pid: u32, sockets: &[String]) -> Option<bool> {
        let entries = match fs::read_dir(format!("/proc/{pid}/fd")) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Some(false),
            Err(_) => return None,
        };
        let targets = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
        Some(targets.into_iter().any(|target| sockets.iter().any(|socket| target.as_os_str() == socket.as_str())))
    }
}

#[cfg(not(target_os = "linux"))]
mod system {
    use super::SocketAddr;

    /// `socket_fdinfo` of <sys/proc_info.h>, which libc does not declare: its
    /// size, and where in it the fields are that are read here.
    const SOCKET_FDINFO: usize = 792;
    const OPTIONS: usize = 188;
    const KIND: usize = 256;
    const LOCAL_PORT: usize = 268;
    const PROC_PIDFDSOCKETINFO: i32 = 3;
    const SOCKINFO_TCP: i32 = 2;
    const MOST_MEMBERS: usize = 64;
    const MOST_DESCRIPTORS: usize = 4096;

    /// Never `Some(false)`: what is not found may have been overlooked.
    pub fn listens(leader: u32, address: SocketAddr) -> Option<bool> {
        let mut members = [0i32; MOST_MEMBERS];
        let size = size_of_val(&members) as i32;
        // SAFETY: the buffer has the size that is passed.
        let count = unsafe { libc::proc_listpgrppids(leader as i32, members.as_mut_ptr().cast(), size) };
        let members = &members[..(count.max(0) as usize).min(MOST_MEMBERS)];
        members.iter().any(|&pid| listens_there(pid, address.port())).then_some(true)
    }

    fn listens_there(pid: i32, port: u16) -> bool {
        let none = libc::proc_fdinfo { proc_fd: 0, proc_fdtype: 0 };
        let mut descriptors = vec![none; MOST_DESCRIPTORS];
        let size = (MOST_DESCRIPTORS * size_of::<libc::proc_fdinfo>()) as i32;
        // SAFETY: the buffer has the size that is passed.
        let got = unsafe { libc::proc_pidinfo(pid, libc::PROC_PIDLISTFDS, 0, descriptors.as_mut_ptr().cast(), size) };
        descriptors.truncate(got.max(0) as usize / size_of::<libc::proc_fdinfo>());
        let sockets = descriptors.iter().filter(|entry| entry.proc_fdtype == libc::PROX_FDTYPE_SOCKET as u32);
        sockets.into_iter().any(|entry| is_listener(pid, entry.proc_fd, port))
    }

    fn is_listener(pid: i32, descriptor: i32, port: u16) -> bool {
        let mut info = [0u8; SOCKET_FDINFO];
        let size = SOCKET_FDINFO as i32;
        // SAFETY: the buffer has the size that is passed.
        let got =
            unsafe { libc::proc_pidfdinfo(pid, descriptor, PROC_PIDFDSOCKETINFO, info.as_mut_ptr().cast(), size) };
        let number = |at: usize| i32::from_ne_bytes([info[at], info[at + 1], info[at + 2], info[at + 3]]);
        let options = i16::from_ne_bytes([info[OPTIONS], info[OPTIONS + 1]]);
        got >= (LOCAL_PORT + 4) as i32
            && number(KIND) == SOCKINFO_TCP
            && options as i32 & libc::SO_ACCEPTCONN != 0
            // In the network's byte order.
            && [info[LOCAL_PORT], info[LOCAL_PORT + 1]] == port.to_be_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn an_address_is_covered_by_itself_its_mapped_form_and_the_unspecified_one() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        for (bound, asked, expected) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("::", "127.0.0.1", true),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("::1", "::1", true),
            ("127.0.0.2", "127.0.0.1", false),
            ("::1", "127.0.0.1", false),
        ] {
            assert_eq!(covers(ip(bound), ip(asked)), expected, "{bound} {asked}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernels_tables_are_read_by_port_state_and_address() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1C41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 811123 2 0 100 0 0 10 0\n\
            2: 0200007F:1C41 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 6 2 0 100 0 0 10 0\n\
            3: 00000000000000000000000001000000:1C41 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 7 2 0 100 0 0 10 0\n\
            1: 0100007F:1C41 0100007F:B615 01 00000000:00000000 00:00000000 00000000     0        0 5 2 0 100 0 0 10 0\n";
        let found = |address: &str| system::listening_sockets(table.as_bytes(), address.parse().unwrap());
        if cfg!(target_endian = "little") {
            assert_eq!(found("127.0.0.1:7233"), ["socket:[811123]"]);
            assert_eq!(found("[::1]:7233"), ["socket:[7]"]);
            assert_eq!(found("127.0.0.1:7234"), [""; 0]);
        }
    }

    #[test]
    fn a_port_is_its_listeners_and_nobody_elses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert_eq!(listens(std::process::id(), address), Some(true));
        // Its group is ours here, so it is asked as a leader of nobody.
        assert_ne!(listens(other.id(), address), Some(true));
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
