//! The bytes of one file of a mirror, over connections that come and go.
//!
//! `Download` is a plain `Read`: a dropped, reset or stalled connection is
//! continued with a range request from where it was, and the decoder above
//! never notices; so is one that an earlier process began, and `Kept` kept.
//! What cannot be continued ends it with a `Failure`.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::BodyReader;
use ureq::http::{HeaderMap, Response};

use super::connection::{MIN_BYTES, is_tick};
use super::failure::Failure;
use super::kept::Kept;
use super::network::{Client, io_cause};
use crate::error::{Error, reason};
use crate::release::Location;
use crate::terminal::Progress;

/// Failures in a row, without progress in between, after which we give up.
const MAX_FAILURES: u32 = 6;
/// Bytes after which earlier failures are forgotten. With fewer, a server that
/// delivers one byte per connection would keep us for days.
const PROGRESS: u64 = MIN_BYTES;
const FIRST_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(10);
/// The longest `Retry-After` that is waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

pub struct Download<'a> {
    source: Source<'a>,
    progress: &'a mut Progress,
}

enum Source<'a> {
    Local { file: File, position: u64, total: u64 },
    Http(Http<'a>),
}

impl<'a> Download<'a> {
    /// Opens `location`; `missing` is the cause to report where nothing is
    /// there. Network errors come with the first read, those of a directory at
    /// once.
    pub fn open(
        client: &'a Client,
        location: &'a Location,
        missing: Error,
        progress: &'a mut Progress,
        kept: Option<&'a mut Kept>,
    ) -> Result<Download<'a>, Failure> {
        let source = match location {
            Location::Url(url) => Source::Http(Http::new(client, url, missing, kept)),
            Location::File(path) => {
                let (file, total) = open_local(path).map_err(|cause| match cause.kind() {
                    io::ErrorKind::NotFound => missing,
                    _ => unreadable(&cause),
                })?;
                Source::Local { file, position: 0, total }
            }
        };
        Ok(Download { source, progress })
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = match &mut self.source {
            _ if buffer.is_empty() => Ok(0),
            Source::Http(http) => http.read(buffer, self.progress),
            Source::Local { file, position, total } => read_local(file, buffer).inspect(|&count| {
                *position += count as u64;
                self.progress.advance(*position, Some(*total));
            }),
        };
        result.map_err(io::Error::other)
    }
}

/// The file and its size.
fn open_local(path: &Path) -> io::Result<(File, u64)> {
    // Not waited for, should it be a FIFO.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    match metadata.is_file() {
        true => Ok((file, metadata.len())),
        false => Err(io::Error::new(io::ErrorKind::IsADirectory, "not a file")),
    }
}

fn read_local(file: &mut File, buffer: &mut [u8]) -> Result<usize, Failure> {
    loop {
        match file.read(buffer) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer.map_err(|cause| Failure::Final(unreadable(&cause))),
        }
    }
}

/// The cause, and what to do about a file in a directory used as a mirror.
fn unreadable(cause: &io::Error) -> Error {
    Error::new(reason(cause)).hint(match cause.kind() {
        io::ErrorKind::PermissionDenied => "make it readable for you, or name another place with --mirror",
        io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            "check --mirror; it must name a directory that holds this file"
        }
        _ => "copy the release there again, or name another place with --mirror",
    })
}

struct Http<'a> {
    client: &'a Client,
    url: &'a str,
    missing: Error,
    /// What earlier processes left, and what comes now.
    kept: Option<&'a mut Kept>,
    connection: Option<Connected>,
    /// What the first answer said of the file.
    identity: Option<Identity>,
    /// Bytes delivered to the reader so far.
    position: u64,
    /// In a row, without much in between.
    failures: u32,
    /// The position of the last one.
    failed_at: u64,
}

struct Connected {
    body: BodyReader<'static>,
    /// At its other end.
    host: String,
    /// Bytes to come that we have: a server without ranges sends them again.
    skip: u64,
}

/// What distinguishes one state of a file from another.
#[derive(Debug, PartialEq)]
struct Identity {
    /// A strong ETag, else the time of the last change; what `If-Range` takes.
    validator: Option<String>,
    total: Option<u64>,
}

impl<'a> Http<'a> {
    fn new(client: &'a Client, url: &'a str, missing: Error, kept: Option<&'a mut Kept>) -> Http<'a> {
        let known = kept.as_ref().and_then(|kept| kept.identity());
        let identity = known.map(|(validator, total)| Identity { validator: validator.clone(), total: Some(*total) });
        Http { client, url, missing, kept, connection: None, identity, position: 0, failures: 0, failed_at: 0 }
    }

    /// Bytes of the whole file, where they are known.
    fn total(&self) -> Option<u64> {
        self.identity.as_ref()?.total
    }

    fn read(&mut self, buffer: &mut [u8], progress: &mut Progress) -> Result<usize, Failure> {
        loop {
            match self.read_once(buffer, progress) {
                Ok(Some(count)) => {
                    self.position += count as u64;
                    progress.advance(self.position, self.total());
                    return Ok(count);
                }
                Ok(None) => progress.wait(),
                Err(failure) => self.pause_after(failure, progress)?,
            }
        }
    }

    /// Reads from the connection, which is made where there is none and given
    /// up when it fails. None: nothing came for now.
    fn read_once(&mut self, buffer: &mut [u8], progress: &mut Progress) -> Result<Option<usize>, Failure> {
        if let Some(kept) = &mut self.kept {
            // What cannot be read is as good as another file's.
            let count = kept.read(buffer).map_err(|_| Failure::Changed)?;
            if count > 0 {
                return Ok(Some(count));
            }
        }
        let mut connected = match self.connection.take() {
            Some(connected) => connected,
            None if self.total() == Some(self.position) => return Ok(Some(0)),
            None => {
                let connected = self.connect()?;
                if self.position > 0 {
                    progress.resumed();
                }
                connected
            }
        };
        let Connected { body, host, skip } = &mut connected;
        let wanted = match *skip {
            0 => buffer.len(),
            skip => buffer.len().min(usize::try_from(skip).unwrap_or(usize::MAX)),
        };
        let count = match body.read(&mut buffer[..wanted]) {
            Ok(0) if *skip > 0 || self.total().is_some_and(|total| total != self.position) => {
                return Err(lost(host, &io::ErrorKind::UnexpectedEof.into()));
            }
            Ok(count) if *skip == 0 => {
                if let Some(kept) = &mut self.kept {
                    kept.append(&buffer[..count]);
                }
                Some(count)
            }
            Ok(count) => {
                *skip -= count as u64;
                None
            }
            Err(cause) if is_tick(&cause) => None,
            Err(cause) => return Err(lost(host, &cause)),
        };
        self.connection = Some(connected);
        Ok(count)
    }

    /// Waits as long as the failure asks for; Err when it is the end.
    fn pause_after(&mut self, failure: Failure, progress: &mut Progress) -> Result<(), Failure> {
        let Failure::Passing(cause, after) = failure else { return Err(failure) };
        if self.position - self.failed_at >= PROGRESS {
            self.failures = 0;
        }
        (self.failures, self.failed_at) = (self.failures + 1, self.position);
        if self.failures < MAX_FAILURES {
            progress.interrupted(&cause, self.failures + 1, MAX_FAILURES);
            thread::sleep(after.unwrap_or_else(|| backoff(self.failures, jitter())));
            return Ok(());
        }
        let got = match self.position {
            0 => String::new(),
            position => format!(" (after {position} bytes)"),
        };
        Err(Failure::Passing(format!("{cause}{got}; gave up after {MAX_FAILURES} attempts"), None))
    }

    /// Opens a connection that goes on at `position`.
    fn connect(&mut self) -> Result<Connected, Failure> {
        let position = self.position;
        // What is counted and verified are the bytes of the file itself.
        let mut headers = vec![("accept-encoding", "identity".to_owned())];
        if position > 0 {
            headers.push(("range", format!("bytes={position}-")));
            let validator = self.identity.as_ref().and_then(|identity| identity.validator.clone());
            headers.extend(validator.map(|validator| ("if-range", validator)));
        }
        let (response, host) = self.client.get(self.url, &headers)?;
        let skip = match (response.status().as_u16(), &self.identity) {
            (200, known) => {
                let identity = Identity::of_whole(response.headers());
                if known.as_ref().is_some_and(|known| *known != identity) {
                    return Err(Failure::Changed);
                }
                if let (None, Some(kept)) = (known, &mut self.kept) {
                    kept.begin(identity.validator.as_deref(), identity.total);
                }
                self.identity = Some(identity);
                position
            }
            (206, Some(known)) if position > 0 => match Identity::of_part(response.headers(), position) {
                Some(part) if known.is_continued_by(&part) => 0,
                _ => return Err(Failure::Changed),
            },
            (416, _) if position > 0 => return Err(Failure::Changed),
            _ => return Err(self.refusal(&response, &host)),
        };
        let body = response.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(Connected { body, host, skip })
    }

    /// What an answer that is neither 200 nor 206 means.
    fn refusal(&self, response: &Response<ureq::Body>, host: &str) -> Failure {
        let wanted = retry_after(response.headers());
        let after = wanted.filter(|wanted| *wanted <= MAX_RETRY_AFTER);
        let error = match response.status().as_u16() {
            404 | 410 => self.missing.clone(),
            code @ (403 | 429) if after.is_some() || (code == 429 && wanted.is_none()) => {
                return Failure::Passing(format!("{host} is rate-limited (HTTP {code})"), after);
            }
            code @ (403 | 429) => {
                let until = match wanted {
                    None => String::new(),
                    Some(Duration::MAX) => ", for longer than a minute".into(),
                    Some(wanted) => format!(", for {} s", wanted.as_secs()),
                };
                Error::new(format!("{host} refused or is rate-limited (HTTP {code}{until})"))
                    .hint("wait and try again, or get it from elsewhere with --mirror URL|DIR")
            }
            407 => Error::new(format!("{host}: the proxy requires a user and a password (HTTP 407)"))
                .hint("set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"),
            code @ (408 | 500..=599) => return Failure::Passing(format!("{host} answered HTTP {code}"), after),
            code => Error::new(format!("{host} answered HTTP {code}"))
                .hint("check --mirror and STIGMER_TEMPORAL_MIRROR, and what answers at that URL"),
        };
        error.into()
    }
}

/// A connection that broke.
fn lost(host: &str, cause: &io::Error) -> Failure {
    Failure::Passing(format!("{host}: {}", io_cause(cause)), None)
}

impl Identity {
    /// Of an answer with the whole file.
    fn of_whole(headers: &HeaderMap) -> Identity {
        let total = header(headers, "content-length").and_then(|text| text.trim().parse().ok());
        Identity { validator: validator(headers), total }
    }

    /// Of an answer with the part from `position` to the end; None for any
    /// other part.
    fn of_part(headers: &HeaderMap, position: u64) -> Option<Identity> {
        let (start, end, total) = parse_content_range(header(headers, "content-range")?)?;
        let to_the_end = total.is_none_or(|total| end.checked_add(1) == Some(total));
        (start == position && to_the_end).then(|| Identity { validator: validator(headers), total })
    }

    /// Whether a part of `other` continues this file. What a server leaves out
    /// of such an answer means nothing.
    fn is_continued_by(&self, other: &Identity) -> bool {
        let validator_fits = other.validator.is_none() || self.validator == other.validator;
        let total_fits = other.total.is_none() || self.total.is_none() || self.total == other.total;
        validator_fits && total_fits
    }
}

/// What `If-Range` takes: a strong ETag, else the last change (RFC 9110, 13.1.5).
fn validator(headers: &HeaderMap) -> Option<String> {
    let etag = header(headers, "etag").filter(|tag| tag.starts_with('"'));
    etag.or_else(|| header(headers, "last-modified")).map(str::to_owned)
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// First and last byte and the file's size from `bytes 5-9/10`; the size may be `*`.
pub fn parse_content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, end) = range.split_once('-')?;
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (start, end) = (number(start)?, number(end)?);
    let total = match total.trim() {
        "*" => None,
        total => Some(number(total)?),
    };
    (start <= end && total.is_none_or(|total| end < total)).then_some((start, end, total))
}

/// `Retry-After` in seconds. A date counts as too long to wait for; anything
/// else means nothing.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = header(headers, "retry-after")?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => text.ends_with("GMT").then_some(Duration::MAX),
    }
}

/// The pause after the given number of failures; `jitter`, from 0 to 1, takes
/// up to half of it away, so that many clients do not come back at once.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let full = FIRST_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MAX_DELAY);
    full.mul_f64(1.0 - jitter / 2.0)
}

fn jitter() -> f64 {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    f64::from(nanoseconds % 1_000_003) / 1_000_003.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges_are_strict() {
        assert_eq!(parse_content_range("bytes 5-9/10"), Some((5, 9, Some(10))));
        assert_eq!(parse_content_range("bytes 5-9/*"), Some((5, 9, None)));
        for bad in
            ["", "bytes", "bytes */10", "bytes 9-5/10", "bytes 5-10/10", "bits 5-9/10", "bytes 5-9", "bytes -5/10"]
        {
            assert_eq!(parse_content_range(bad), None, "{bad}");
        }
        assert_eq!(parse_content_range("bytes 0-18446744073709551616/1"), None);
    }

    #[test]
    fn pauses_double_up_to_ten_seconds() {
        let milliseconds: Vec<_> = (1..=8).map(|failures| backoff(failures, 0.0).as_millis()).collect();
        assert_eq!(milliseconds, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        assert_eq!(backoff(1, 1.0).as_millis(), 100);
        assert!((0.0..=1.0).contains(&jitter()));
    }

    #[test]
    fn a_part_continues_only_the_file_it_is_of() {
        let identity = |validator: Option<&str>, total| Identity { validator: validator.map(str::to_owned), total };
        let known = identity(Some("\"a\""), Some(10));
        assert!(known.is_continued_by(&identity(Some("\"a\""), Some(10))));
        assert!(known.is_continued_by(&identity(None, None)));
        assert!(!known.is_continued_by(&identity(Some("\"b\""), Some(10))));
        assert!(!known.is_continued_by(&identity(None, Some(11))));
        let part = |range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("content-range", range.parse().unwrap());
            Identity::of_part(&headers, 5)
        };
        assert_eq!(part("bytes 5-9/10"), Some(identity(None, Some(10))));
        assert_eq!(part("bytes 5-8/10"), None);
        assert_eq!(part("bytes 4-9/10"), None);
    }

    #[test]
    fn weak_etags_are_no_validators() {
        let mut headers = HeaderMap::new();
        headers.insert("etag", "W/\"x\"".parse().unwrap());
        assert_eq!(validator(&headers), None);
        headers.insert("last-modified", "Mon, 23 Nov 2026 03:50:00 GMT".parse().unwrap());
        assert_eq!(validator(&headers).unwrap(), "Mon, 23 Nov 2026 03:50:00 GMT");
        headers.insert("etag", "\"x\"".parse().unwrap());
        assert_eq!(validator(&headers).unwrap(), "\"x\"");
    }
}
