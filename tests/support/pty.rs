//! A terminal with a program on it.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::process::Stigmer;
use super::{LIMIT, wait_until};

/// For what a program wrote before it ended; no longer, for others may have the
/// terminal open.
const ON_ITS_WAY: Duration = Duration::from_secs(1);

pub struct Pty {
    /// None once the terminal is closed.
    master: Option<File>,
    reader: Option<(JoinHandle<()>, PipeWriter)>,
    child: Child,
    screen: Arc<Mutex<Vec<u8>>>,
    status: Option<ExitStatus>,
}

impl Pty {
    /// Runs `stigmer` as the leader of a session on a new terminal of so many
    /// columns and rows.
    pub fn spawn(stigmer: Stigmer<'_>, columns: u16, rows: u16) -> Pty {
        Pty::spawn_command(stigmer.env("TERM", "xterm-256color").into_command(), columns, rows)
    }

    pub fn spawn_command(mut command: Command, columns: u16, rows: u16) -> Pty {
        let (master, slave) = open(columns, rows);
        let stream = || slave.try_clone().unwrap();
        command.stdin(stream()).stdout(stream()).stderr(stream());
        // SAFETY: both calls may be made between fork and exec.
        unsafe {
            command.pre_exec(|| {
                if libc::setsid() < 0 || libc::ioctl(0, libc::TIOCSCTTY as _, 0) < 0 {
                    return Err(io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        // The command holds copies of the slave, which would keep it open.
        drop((command, slave));
        let screen = Arc::new(Mutex::new(Vec::new()));
        let (shared, mut reader) = (screen.clone(), master.try_clone().unwrap());
        let (closing, closer) = io::pipe().unwrap();
        let thread = thread::spawn(move || {
            let mut buffer = [0; 4096];
            // EIO: nobody has the slave open any more.
            while wait_for_output(&reader, &closing) {
                let Ok(count @ 1..) = reader.read(&mut buffer) else { return };
                shared.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        Pty { master: Some(master), reader: Some((thread, closer)), child, screen, status: None }
    }

    /// Closes the terminal, as closing its window does.
    pub fn hang_up(&mut self) {
        // Our reader holds the terminal open as well.
        if let Some((thread, closer)) = self.reader.take() {
            drop(closer);
            thread.join().unwrap();
        }
        self.master = None;
    }

    fn master(&self) -> &File {
        self.master.as_ref().expect("the terminal is open")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that was ever written to the terminal.
    pub fn screen(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    pub fn type_keys(&mut self, keys: &[u8]) {
        self.master().write_all(keys).unwrap();
    }

    pub fn ctrl_c(&mut self) {
        self.type_keys(b"\x03");
    }

    pub fn ctrl_z(&mut self) {
        self.type_keys(b"\x1a");
    }

    pub fn resize(&self, columns: u16, rows: u16) {
        let size = window(columns, rows);
        // SAFETY: the pointer is to a winsize, which the call reads.
        let result = unsafe { libc::ioctl(self.master().as_raw_fd(), libc::TIOCSWINSZ, &size) };
        assert_eq!(result, 0);
    }

    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let found = wait_until(LIMIT, || self.screen().contains(text).then_some(()));
        assert!(found.is_some(), "'{text}' never came on the terminal, but\n{}", self.screen());
    }

    pub fn signal(&self, number: i32) {
        if self.status.is_none() {
            // SAFETY: no memory is involved, and the child is not reaped yet.
            unsafe { libc::kill(self.child.id() as i32, number) };
        }
    }

    /// Waits for the end of the program, and for what it wrote last.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let child = &mut self.child;
        let status = wait_until(LIMIT, || child.try_wait().unwrap());
        self.status = status;
        let Some(status) = status else { panic!("it does not end; on the terminal\n{}", self.screen()) };
        if let Some((thread, _)) = &self.reader {
            wait_until(ON_ITS_WAY, || thread.is_finished().then_some(()));
        }
        status
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        if self.status.is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// False when the terminal is about to be closed.
fn wait_for_output(master: &File, closing: &PipeReader) -> bool {
    let of = |descriptor| libc::pollfd { fd: descriptor, events: libc::POLLIN, revents: 0 };
    let mut both = [of(master.as_raw_fd()), of(closing.as_raw_fd())];
    loop {
        // SAFETY: the pointer and the length are those of one array.
        let count = unsafe { libc::poll(both.as_mut_ptr(), both.len() as libc::nfds_t, -1) };
        if count > 0 {
            return both[1].revents == 0;
        }
    }
}

fn window(columns: u16, rows: u16) -> libc::winsize {
    libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

fn open(columns: u16, rows: u16) -> (File, OwnedFd) {
    let (mut master, mut slave) = (0, 0);
    let mut size = window(columns, rows);
    // SAFETY: the pointers are to our own variables; no name and no settings
    // are asked for. The descriptors are new and ours.
    unsafe {
        let result =
            libc::openpty(&mut master, &mut slave, std::ptr::null_mut(), std::ptr::null_mut(), (&raw mut size).cast());
        assert_eq!(result, 0, "no terminal: {}", io::Error::last_os_error());
        for descriptor in [master, slave] {
            // Or a program that another test starts at this moment keeps the
            // terminal open.
            libc::fcntl(descriptor, libc::F_SETFD, libc::FD_CLOEXEC);
        }
        (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave))
    }
}

/// The last state of each line of what was written to a terminal, as a person
/// sees it in the end: `\r` begins a line anew, and `\x1b[K` erases it.
pub fn rendered(screen: &str) -> Vec<String> {
    let plain = |line: &str| {
        let mut text = String::new();
        let mut rest = line;
        while let Some(at) = rest.find('\x1b') {
            text.push_str(&rest[..at]);
            let end = rest[at..].find(|character: char| character.is_ascii_alphabetic());
            rest = end.map_or("", |end| &rest[at + end + 1..]);
        }
        text.push_str(rest);
        text
    };
    let last = |line: &str| {
        let line = line.trim_end_matches('\r');
        plain(line.rsplit('\r').next().unwrap_or(line))
    };
    screen.split('\n').map(last).collect()
}
