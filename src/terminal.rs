//! What the user sees: status lines, the progress of a download, errors.
//!
//! Nothing here can fail: a closed or broken stream must never stop the
//! daemon, so what cannot be written is dropped.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use crate::clock::{unix_time, utc};
use crate::error::{Error, one_line};
use crate::sys;

/// A wait that lasts longer is explained to the user.
const EXPLAIN_AFTER: Duration = Duration::from_millis(200);
/// How long a line waits for a stream that is full.
const WRITE_LIMIT: Duration = Duration::from_millis(200);
const ERROR_LIMIT: Duration = Duration::from_secs(5);
const MIN_REDRAW: Duration = Duration::from_millis(100);
/// How often a download that cannot be redrawn gets a line.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// The speed is that of the last one to two such times.
const SPEED_WINDOW: Duration = Duration::from_secs(2);
const DEFAULT_COLUMNS: usize = 80;

/// What kind of line this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Info,
    Warning,
    Download,
    Done,
}

/// How a stream is to be written to.
#[derive(Debug, Clone, Copy)]
struct Style {
    colour: bool,
    /// Lines may be redrawn in place.
    live: bool,
    ascii: bool,
}

impl Style {
    fn of(is_terminal: bool, variable: &dyn Fn(&str) -> Option<OsString>) -> Style {
        let text = |name: &str| variable(name).unwrap_or_default().to_string_lossy().into_owned();
        let plain = !text("NO_COLOR").is_empty() || text("TERM") == "dumb" || !is_terminal;
        // The first that is set decides (POSIX). With none set the glyphs stay:
        // bare containers and CI show UTF-8 without saying so.
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(text).into_iter().find(|value| !value.is_empty());
        let ascii = locale.is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            !locale.contains("utf-8") && !locale.contains("utf8")
        });
        Style { colour: !plain, live: !plain, ascii }
    }

    fn mark(self, mark: Mark) -> String {
        let (glyph, plain, colour) = match mark {
            Mark::Info => ('•', '*', 36),
            Mark::Warning => ('!', '!', 33),
            Mark::Download => ('⬇', 'v', 36),
            Mark::Done => ('✓', '+', 32),
        };
        let glyph = if self.ascii { plain } else { glyph };
        match self.colour {
            true => format!("\x1b[{colour}m[{glyph}]\x1b[0m"),
            false => format!("[{glyph}]"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Stdout,
    Stderr,
    /// Nobody watches.
    Nowhere,
}

impl Stream {
    fn is_terminal(self) -> bool {
        match self {
            Stream::Stdout => io::stdout().is_terminal(),
            Stream::Stderr => io::stderr().is_terminal(),
            Stream::Nowhere => false,
        }
    }

    fn descriptor(self) -> Option<RawFd> {
        match self {
            Stream::Stdout => Some(io::stdout().as_raw_fd()),
            Stream::Stderr => Some(io::stderr().as_raw_fd()),
            Stream::Nowhere => None,
        }
    }

    fn columns(self) -> usize {
        let columns = match self {
            Stream::Stdout => sys::columns(io::stdout()),
            Stream::Stderr => sys::columns(io::stderr()),
            Stream::Nowhere => None,
        };
        columns.unwrap_or(DEFAULT_COLUMNS)
    }

    /// Drops the text where nothing can be written within `limit`: a
    /// reader that does not read must not hold up the daemon.
    fn write(self, text: &str, limit: Duration) {
        // One write for a line, so that lines of two processes do not mix.
        let _ = match self {
            Stream::Stdout if sys::is_writable(io::stdout().as_fd(), limit) => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush())
            }
            Stream::Stderr if sys::is_writable(io::stderr().as_fd(), limit) => io::stderr().write_all(text.as_bytes()),
            _ => Ok(()),
        };
    }
}

/// Where status lines go: a stream, and the daemon's log when detached.
pub struct Terminal {
    stream: Stream,
    style: Style,
    log: Option<File>,
    /// A line stands there that the next one replaces.
    transient: bool,
    /// What `warn_once` has printed.
    warned: Vec<String>,
}

impl Terminal {
    pub fn new(stream: Stream, variable: &dyn Fn(&str) -> Option<OsString>) -> Terminal {
        Terminal {
            stream,
            style: Style::of(stream.is_terminal(), variable),
            log: None,
            transient: false,
            warned: Vec::new(),
        }
    }

    /// Writes every line to `log` too, with its time.
    pub fn also_to(&mut self, log: File) {
        self.log = Some(log);
    }

    /// The log to which lines go, if there is one.
    pub fn log(&self) -> Option<&File> {
        self.log.as_ref()
    }

    /// From now on only the log is written.
    pub fn leave_stream(&mut self) {
        self.stream = Stream::Nowhere;
        self.style = Style { colour: false, live: false, ..self.style };
    }

    pub fn line(&mut self, mark: Mark, text: &str) {
        let text = one_line(text);
        // \r and erase: after ^C or a transient line this begins the line anew.
        let begin = if std::mem::take(&mut self.transient) { "\r\x1b[K" } else { "" };
        self.stream.write(&format!("{begin}{} {text}\n", self.style.mark(mark)), WRITE_LIMIT);
        write_log(self.log.as_mut(), self.style, mark, &text);
    }

    /// Where its lines go and how the last one begins, for whom a signal leaves
    /// no time for more. On a terminal it comes below the progress.
    pub fn last_line(&self) -> (Option<RawFd>, &'static str, String) {
        let end = if self.stream.is_terminal() { "\n" } else { "" };
        (self.stream.descriptor(), end, self.style.mark(Mark::Info))
    }

    /// A warning that need not be repeated: the second time it says nothing.
    pub fn warn_once(&mut self, text: &str) {
        if !self.warned.iter().any(|warned| warned == text) {
            self.warned.push(text.into());
            self.line(Mark::Warning, text);
        }
    }

    /// A line that the next one replaces; shown only where that is possible.
    pub fn transient(&mut self, mark: Mark, text: &str) {
        if self.style.live {
            self.stream.write(&format!("\r\x1b[K{} {text}", self.style.mark(mark)), WRITE_LIMIT);
            self.transient = true;
        }
    }

    /// An error that the user has seen otherwise, for the log alone.
    pub fn log_error(&mut self, error: &Error) {
        write_log(self.log.as_mut(), self.style, Mark::Warning, &error.to_string());
    }

    /// The progress of a download under `title`.
    pub fn progress(&mut self, title: &str) -> Progress {
        Progress {
            stream: self.stream,
            style: self.style,
            log: self.log.as_ref().and_then(|log| log.try_clone().ok()),
            title: title.into(),
            marks: [(Instant::now(), 0); 2],
            drawn: None,
            line: Instant::now(),
            trouble: None,
            resumed: 0,
            done: 0,
            total: None,
            silent: false,
        }
    }

    /// The progress of something too small to show, unless it is interrupted.
    pub fn silent_progress(&mut self) -> Progress {
        let mut progress = self.progress("");
        progress.silent = true;
        progress
    }
}

/// A wait for something that others hold, explained once it is noticed.
pub struct Wait {
    began: Instant,
    explained: bool,
}

impl Wait {
    pub fn begin() -> Wait {
        Wait { began: Instant::now(), explained: false }
    }

    /// Starts over: there was a sign of progress.
    pub fn renew(&mut self) {
        self.began = Instant::now();
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn explain(&mut self, terminal: &mut Terminal, text: impl FnOnce() -> String) {
        if !self.explained && self.elapsed() > EXPLAIN_AFTER {
            terminal.line(Mark::Info, &text());
            self.explained = true;
        }
    }
}

fn write_log(log: Option<&mut File>, style: Style, mark: Mark, text: &str) {
    if let Some(log) = log {
        let plain = Style { colour: false, ..style }.mark(mark);
        let _ = log.write_all(format!("{} {plain} {text}\n", utc(unix_time())).as_bytes());
    }
}

/// One download: redrawn in place on a terminal, elsewhere one line at its end,
/// and others before it where it takes long.
pub struct Progress {
    stream: Stream,
    style: Style,
    log: Option<File>,
    title: String,
    /// What had come when, one to two `SPEED_WINDOW`s ago and since.
    marks: [(Instant, u64); 2],
    drawn: Option<Instant>,
    /// When the last line was written that stays.
    line: Instant,
    /// Why nothing comes.
    trouble: Option<String>,
    resumed: u32,
    done: u64,
    total: Option<u64>,
    silent: bool,
}

impl Progress {
    /// `done` of `total` bytes have come.
    pub fn advance(&mut self, done: u64, total: Option<u64>) {
        (self.done, self.total, self.trouble) = (done, total, None);
        self.wait();
    }

    /// Nothing came for a moment.
    pub fn wait(&mut self) {
        let now = Instant::now();
        if now - self.marks[1].0 >= SPEED_WINDOW {
            self.marks = [self.marks[1], (now, self.done)];
        }
        self.show(MIN_REDRAW);
    }

    /// The connection was lost because of `cause`; it is tried again.
    pub fn interrupted(&mut self, cause: &str, attempt: u32, attempts: u32) {
        let again = format!("rying again ({attempt} of {attempts}): {cause}");
        self.trouble = Some(one_line(&match self.percent() {
            Some(percent) => format!("{percent}, t{again}"),
            None => format!("T{again}"),
        }));
        self.show(Duration::ZERO);
    }

    /// The connection was lost, and the download goes on.
    pub fn resumed(&mut self) {
        self.resumed += 1;
        self.marks = [(Instant::now(), self.done); 2];
    }

    /// It is whole.
    pub fn finish(&mut self) {
        if self.silent {
            return;
        }
        let resumed = match self.resumed {
            0 => String::new(),
            1 => " (resumed once)".into(),
            count => format!(" (resumed {count} times)"),
        };
        let text = format!("{} 100%{resumed}", self.title);
        self.keep_line(Mark::Download, &text);
        self.drawn = None;
    }

    /// Shows how it stands, where `pause` has passed since it was last drawn.
    fn show(&mut self, pause: Duration) {
        if self.silent && self.trouble.is_none() {
            return;
        }
        if self.line.elapsed() >= LINE_EVERY {
            let (mark, text) = self.text(usize::MAX);
            match self.style.live {
                true => write_log(self.log.as_mut(), self.style, mark, &text),
                false => self.keep_line(mark, &text),
            }
            self.line = Instant::now();
        }
        if self.style.live && self.drawn.is_none_or(|drawn| drawn.elapsed() >= pause) {
            // The mark takes four columns; the last stays free, or the line wraps.
            let (mark, text) = self.text(self.stream.columns().saturating_sub(5));
            self.stream.write(&format!("\r\x1b[K{} {text}", self.style.mark(mark)), Duration::ZERO);
            self.drawn = Some(Instant::now());
        }
    }

    /// Writes a line that stays.
    fn keep_line(&mut self, mark: Mark, text: &str) {
        let begin = if self.style.live { "\r\x1b[K" } else { "" };
        self.stream.write(&format!("{begin}{} {text}\n", self.style.mark(mark)), WRITE_LIMIT);
        write_log(self.log.as_mut(), self.style, mark, text);
    }

    fn text(&self, room: usize) -> (Mark, String) {
        match &self.trouble {
            Some(trouble) => (Mark::Warning, trouble.chars().take(room).collect()),
            None => (Mark::Download, fit(&self.title, &self.details(), self.percent().as_deref(), room)),
        }
    }

    fn percent(&self) -> Option<String> {
        let total = self.total.filter(|total| *total > 0)?;
        Some(format!("{}%", (self.done.min(total) as u128 * 100 / total as u128).min(99)))
    }

    /// From the most to the least important.
    fn details(&self) -> Vec<String> {
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let mut details = vec![match self.total {
            Some(total) => format!("{:.1} of {:.1} MB", megabytes(self.done), megabytes(total)),
            None => format!("{:.1} MB", megabytes(self.done)),
        }];
        let (since, before) = self.marks[0];
        let elapsed = since.elapsed().as_secs_f64();
        if elapsed > 0.5 && self.done > 0 {
            let speed = self.done.saturating_sub(before) as f64 / elapsed;
            details.push(format!("{:.1} MB/s", speed / 1e6));
            if let Some(total) = self.total.filter(|_| speed >= 1.0) {
                details.push(format!("{:.0} s left", total.saturating_sub(self.done) as f64 / speed));
            }
        }
        if self.resumed > 0 {
            details.push("resumed".into());
        }
        details
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.drawn.is_some() {
            // What comes next, an error most likely, begins on its own line.
            let end = if self.silent && self.trouble.is_none() { "\r\x1b[K" } else { "\n" };
            self.stream.write(end, WRITE_LIMIT);
        }
    }
}

/// As much as fits into `room` columns: title, percent, then the details.
fn fit(title: &str, details: &[String], percent: Option<&str>, room: usize) -> String {
    let head = match percent {
        Some(percent) => format!("{title} {percent}"),
        None => title.to_owned(),
    };
    let length = |text: &str| text.chars().count();
    if length(&head) > room {
        return percent.unwrap_or(title).chars().take(room).collect();
    }
    let mut text = head;
    for (index, detail) in details.iter().enumerate() {
        let longer = match index {
            0 => format!("{text} ({detail})"),
            _ => format!("{}, {detail})", text.trim_end_matches(')')),
        };
        if length(&longer) > room {
            break;
        }
        text = longer;
    }
    text
}

/// Prints an error to stderr, the only place where errors go.
pub fn print_error(error: &Error, variable: &dyn Fn(&str) -> Option<OsString>) {
    let text = error.to_string();
    let style = Style::of(io::stderr().is_terminal(), variable);
    let text = match text.strip_prefix("error:").filter(|_| style.colour) {
        Some(rest) => format!("\x1b[1;31merror:\x1b[0m{rest}\n"),
        None => format!("{text}\n"),
    };
    Stream::Stderr.write(&text, ERROR_LIMIT);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn style(is_terminal: bool, environment: &'static [(&str, &str)]) -> Style {
        Style::of(is_terminal, &|name| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn colour_and_redrawing_need_a_terminal_that_wants_them() {
        assert!(style(true, &[]).live && style(true, &[]).colour);
        for (is_terminal, environment) in
            [(false, &[][..]), (true, &[("NO_COLOR", "1")][..]), (true, &[("TERM", "dumb")][..])]
        {
            let style = style(is_terminal, environment);
            assert!(!style.live && !style.colour, "{environment:?}");
        }
        assert!(style(true, &[("NO_COLOR", "")]).colour);
    }

    #[test]
    fn a_locale_without_utf_8_gets_ascii() {
        assert_eq!(style(false, &[("LANG", "C")]).mark(Mark::Done), "[+]");
        assert_eq!(style(false, &[("LC_ALL", "POSIX"), ("LANG", "en_US.UTF-8")]).mark(Mark::Info), "[*]");
        assert_eq!(style(false, &[("LC_CTYPE", "en_US.utf8"), ("LANG", "C")]).mark(Mark::Done), "[✓]");
        assert_eq!(style(false, &[]).mark(Mark::Download), "[⬇]");
        assert_eq!(style(true, &[]).mark(Mark::Warning), "\x1b[33m[!]\x1b[0m");
    }

    #[test]
    fn a_progress_line_fits_any_width() {
        let details = ["19.1 of 45.3 MB".to_owned(), "12.3 MB/s".into(), "2 s left".into()];
        let title = "Downloading Temporal CLI v1.9.1 (linux/amd64)...";
        for room in 0..120 {
            assert!(fit(title, &details, Some("42%"), room).chars().count() <= room);
        }
        let whole = "Downloading Temporal CLI v1.9.1 (linux/amd64)... 42% (19.1 of 45.3 MB, 12.3 MB/s, 2 s left)";
        assert_eq!(fit(title, &details, Some("42%"), 120), whole);
        assert_eq!(fit(title, &details, Some("42%"), 10), "42%");
    }
}
