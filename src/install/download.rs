//! The bytes of one file of a mirror, over connections that come and go.
//!
//! `Download` is a plain `Read`: a dropped, reset or stalled connection is
//! continued with a range request from where it was, and the decoder above
//! never notices. It ends early only with a reason, kept in `stopped`.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ureq::BodyReader;
use ureq::http::{HeaderMap, Response};

use super::network::{Client, Fault, io_cause};
use crate::error::{Error, Result};
use crate::release::{Asset, Location, without_credentials};
use crate::terminal::Progress;

/// Failures in a row, without progress between, after which we give up.
const MAX_FAILURES: u32 = 6;
/// Bytes that make a failure forgotten. Fewer would keep us for days with a
/// server that gives one byte for each connection.
const PROGRESS: u64 = 16 << 10;
const FIRST_DELAY: Duration = Duration::from_millis(200);
const MAX_DELAY: Duration = Duration::from_secs(10);
/// The longest `Retry-After` that is waited for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(60);

/// Why a download ended before its end.
pub enum Stop {
    Failed(Error),
    /// The file is another one than the one we began with: start over.
    Changed,
}

pub struct Download<'a> {
    source: Source<'a>,
    asset: &'a Asset,
    progress: &'a mut Progress,
    /// Bytes delivered to the reader so far.
    position: u64,
    /// Bytes of the whole file, where they are known.
    total: Option<u64>,
    stopped: Option<Stop>,
}

enum Source<'a> {
    File(File, &'a Location),
    Http(Http<'a>),
}

struct Http<'a> {
    client: &'a Client,
    url: String,
    /// The connection, with the host that it goes to.
    body: Option<(BodyReader<'static>, String)>,
    identity: Option<Identity>,
    /// In a row, without much between.
    failures: u32,
    /// Where the last one was, bytes.
    failed_at: u64,
}

/// What tells one state of a file from another.
#[derive(Debug, PartialEq)]
struct Identity {
    /// A strong ETag, else the time of the last change; what `If-Range` takes.
    validator: Option<String>,
    total: Option<u64>,
}

impl<'a> Download<'a> {
    /// Opens `location`. Network errors come with the first read; a directory
    /// answers at once.
    pub fn open(
        client: &'a Client,
        location: &'a Location,
        asset: &'a Asset,
        progress: &'a mut Progress,
    ) -> Result<Download<'a>> {
        let (source, total) = match location {
            Location::Url(url) => {
                let http = Http { client, url: url.clone(), body: None, identity: None, failures: 0, failed_at: 0 };
                (Source::Http(http), None)
            }
            Location::File(path) => {
                // Not waited for, should it be a FIFO.
                let open = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
                let file = open.map_err(|cause| match cause.kind() {
                    io::ErrorKind::NotFound => missing(asset, location),
                    _ => unreadable(path, &cause),
                })?;
                let metadata = file.metadata().map_err(|cause| unreadable(path, &cause))?;
                if !metadata.is_file() {
                    return Err(Error::new(format!("cannot read {}: it is no file", path.display()))
                        .hint("check --mirror; it must hold v1.9.1/temporal_cli_1.9.1_...tar.gz"));
                }
                (Source::File(file, location), Some(metadata.len()))
            }
        };
        Ok(Download { source, asset, progress, position: 0, total, stopped: None })
    }

    /// Why reading failed, when it was the download's fault.
    pub fn stopped(&mut self) -> Option<Stop> {
        self.stopped.take()
    }

    fn stop(&mut self, stop: Stop) -> io::Error {
        self.stopped = Some(stop);
        io::Error::other("the download stopped")
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let count = match &mut self.source {
            Source::File(file, location) => read_file(file, location, buffer),
            Source::Http(http) => http.read(buffer, self.position, self.asset, self.progress, &mut self.total),
        };
        let count = count.map_err(|stop| self.stop(stop))?;
        self.position += count as u64;
        self.progress.advance(self.position, self.total);
        Ok(count)
    }
}

fn read_file(file: &mut File, location: &Location, buffer: &mut [u8]) -> Result<usize, Stop> {
    loop {
        match file.read(buffer) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            answer => return answer.map_err(|cause| Stop::Failed(Error::io("read", location, &cause))),
        }
    }
}

impl Http<'_> {
    fn read(
        &mut self,
        buffer: &mut [u8],
        position: u64,
        asset: &Asset,
        progress: &mut Progress,
        total: &mut Option<u64>,
    ) -> Result<usize, Stop> {
        loop {
            let failure = match &mut self.body {
                None if self.identity.is_some() && *total == Some(position) => return Ok(0),
                None => match self.connect(position, asset) {
                    Ok(()) => {
                        *total = self.identity.as_ref().and_then(|identity| identity.total);
                        if position > 0 {
                            progress.resumed();
                        }
                        continue;
                    }
                    Err(failure) => failure,
                },
                Some((body, host)) => match body.read(buffer) {
                    Ok(0) if total.is_none_or(|total| total == position) => return Ok(0),
                    Ok(0) => Failure::passing(format!("{host}: the connection was closed too early")),
                    Ok(count) => return Ok(count),
                    Err(error) => Failure::passing(format!("{host}: {}", io_cause(&error))),
                },
            };
            self.body = None;
            self.wait_after(failure, position)?;
        }
    }

    /// Decides what a failure means: a pause, or the end.
    fn wait_after(&mut self, failure: Failure, position: u64) -> Result<(), Stop> {
        let (cause, after) = match failure {
            Failure::Stop(stop) => return Err(stop),
            Failure::Passing { cause, after } => (cause, after),
        };
        if position - self.failed_at >= PROGRESS {
            self.failures = 0;
        }
        (self.failures, self.failed_at) = (self.failures + 1, position);
        if self.failures >= MAX_FAILURES {
            let got = match position {
                0 => String::new(),
                _ => format!(" (after {position} bytes)"),
            };
            return Err(Stop::Failed(
                Error::new(format!(
                    "cannot download {}: {cause}{got}; gave up after {MAX_FAILURES} attempts",
                    without_credentials(&self.url)
                ))
                .hint("check your network; behind a proxy set HTTPS_PROXY, without a network use --mirror DIR"),
            ));
        }
        thread::sleep(after.unwrap_or_else(|| backoff(self.failures, jitter())));
        Ok(())
    }

    /// Opens a connection that goes on at `position`.
    fn connect(&mut self, position: u64, asset: &Asset) -> Result<(), Failure> {
        // The bytes of the file itself are what is counted and verified.
        let mut headers = vec![("accept-encoding", "identity".to_owned())];
        if position > 0 {
            headers.push(("range", format!("bytes={position}-")));
            if let Some(validator) = self.identity.as_ref().and_then(|identity| identity.validator.clone()) {
                headers.push(("if-range", validator));
            }
        }
        let (response, host) = match self.client.get(&self.url, &headers) {
            Ok(answer) => answer,
            Err(Fault::Passing(cause)) => return Err(Failure::passing(cause)),
            Err(Fault::Final(error)) => return Err(Failure::Stop(Stop::Failed(self.explain(error)))),
        };
        let status = response.status().as_u16();
        let skip = match status {
            200 => {
                let identity = Identity::of_whole(response.headers());
                match &self.identity {
                    Some(known) if *known != identity => return Err(Failure::Stop(Stop::Changed)),
                    _ => self.identity = Some(identity),
                }
                position
            }
            206 if position > 0 => {
                let identity = Identity::of_part(response.headers(), position);
                match (&self.identity, identity) {
                    (Some(known), Some(identity)) if known.is_continued_by(&identity) => 0,
                    _ => return Err(Failure::Stop(Stop::Changed)),
                }
            }
            416 if position > 0 => return Err(Failure::Stop(Stop::Changed)),
            _ => return Err(self.refusal(&response, &host, asset)),
        };
        let mut body = response.into_body().into_with_config().limit(u64::MAX).reader();
        // A server without ranges sends what we have once more.
        let skipped = io::copy(&mut (&mut body).take(skip), &mut io::sink());
        match skipped {
            Ok(skipped) if skipped == skip => {
                self.body = Some((body, host));
                Ok(())
            }
            Ok(_) => Err(Failure::passing(format!("{host}: the connection was closed too early"))),
            Err(error) => Err(Failure::passing(format!("{host}: {}", io_cause(&error)))),
        }
    }

    fn explain(&self, error: Error) -> Error {
        error.in_context(&format!("cannot download {}", without_credentials(&self.url)))
    }

    /// What an answer that is neither 200 nor 206 means.
    fn refusal(&self, response: &Response<ureq::Body>, host: &str, asset: &Asset) -> Failure {
        let status = response.status();
        let after = retry_after(response.headers());
        let failed = |error: Error| Failure::Stop(Stop::Failed(self.explain(error)));
        match status.as_u16() {
            404 | 410 => Failure::Stop(Stop::Failed(missing(asset, &Location::Url(self.url.clone())))),
            code @ (403 | 429) => match after {
                Some(after) if after <= MAX_RETRY_AFTER => {
                    Failure::Passing { cause: format!("{host} is rate-limited (HTTP {code})"), after: Some(after) }
                }
                None if code == 429 => Failure::passing(format!("{host} is rate-limited (HTTP {code})")),
                _ => {
                    let until = match after {
                        None => String::new(),
                        Some(Duration::MAX) => ", for longer than a minute".into(),
                        Some(after) => format!(", for {} s", after.as_secs()),
                    };
                    failed(
                        Error::new(format!("{host} refused or is rate-limited (HTTP {code}{until})"))
                            .hint("wait and try again, or get it from elsewhere with --mirror URL|DIR"),
                    )
                }
            },
            407 => failed(
                Error::new(format!("{host}: the proxy wants a user and a password (HTTP 407)"))
                    .hint("set HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT"),
            ),
            code @ (408 | 500..=599) => {
                let after = after.filter(|after| *after <= MAX_RETRY_AFTER);
                Failure::Passing { cause: format!("{host} answered HTTP {code}"), after }
            }
            code => failed(
                Error::new(format!("{host} answered HTTP {code}"))
                    .hint("check --mirror and STIGMER_TEMPORAL_MIRROR, and what answers at that URL"),
            ),
        }
    }
}

enum Failure {
    Passing { cause: String, after: Option<Duration> },
    Stop(Stop),
}

impl Failure {
    fn passing(cause: String) -> Failure {
        Failure::Passing { cause, after: None }
    }
}

impl Identity {
    /// Of an answer with the whole file.
    fn of_whole(headers: &HeaderMap) -> Identity {
        let total = header(headers, "content-length").and_then(|text| text.trim().parse().ok());
        Identity { validator: validator(headers), total }
    }

    /// Of an answer with the part from `position` to the end; None when it is
    /// another part.
    fn of_part(headers: &HeaderMap, position: u64) -> Option<Identity> {
        let (start, end, total) = parse_content_range(header(headers, "content-range")?)?;
        let to_the_end = total.is_none_or(|total| end.checked_add(1) == Some(total));
        (start == position && to_the_end).then(|| Identity { validator: validator(headers), total })
    }

    /// Whether a part of `other` continues this file. What a server leaves out
    /// in an answer with a part says nothing.
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

/// `Retry-After` in seconds. A date counts as too long to wait for; what is
/// neither says nothing.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = header(headers, "retry-after")?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => text.ends_with("GMT").then_some(Duration::MAX),
    }
}

/// The pause after the given number of failures; `jitter` from 0 to 1 takes up
/// to half of it away, so that many clients do not come back at once.
fn backoff(failures: u32, jitter: f64) -> Duration {
    let full = FIRST_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MAX_DELAY);
    full.mul_f64(1.0 - jitter / 2.0)
}

fn jitter() -> f64 {
    let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.subsec_nanos());
    f64::from(nanoseconds % 1_000_003) / 1_000_003.0
}

/// The error of a file in a directory used as a mirror.
fn unreadable(path: &Path, cause: &io::Error) -> Error {
    Error::io("read", path.display(), cause).hint(match cause.kind() {
        io::ErrorKind::PermissionDenied => "make it readable for you, or name another place with --mirror",
        io::ErrorKind::NotADirectory => "check --mirror; it must name a directory that holds this file",
        _ => "copy the release there again, or name another place with --mirror",
    })
}

fn missing(asset: &Asset, location: &Location) -> Error {
    Error::new(format!(
        "cannot download Temporal CLI {} for {}: there is none at {location}",
        asset.version, asset.platform
    ))
    .hint("check the version with --temporal-version (CLI and Server versions differ), and --mirror if you set it")
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
