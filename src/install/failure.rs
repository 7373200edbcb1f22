//! A failed download, as one type from the socket to the user.
//!
//! It passes through the readers above the download as the payload of an
//! `io::Error`, and `io::Error::downcast` recovers it.

use std::fmt;
use std::io;
use std::time::Duration;

use crate::error::{Error, reason};
use crate::release::Location;

/// The causes name the host, not what was to be downloaded.
#[derive(Debug)]
pub enum Failure {
    /// Trying again may help, after the time that the server asked for.
    Passing(String, Option<Duration>),
    /// Starting over may help: the file is no longer the one it was at first.
    Changed,
    Final(Error),
}

impl Failure {
    /// The error of a download of `location`.
    pub fn of(self, location: &Location) -> Error {
        let error = match self {
            Failure::Passing(cause, _) => Error::new(cause)
                .hint("check your network; behind a proxy set HTTPS_PROXY, without a network use --mirror DIR"),
            Failure::Changed => Error::new("the file changes while it is being downloaded")
                .hint("try again later, or get it from elsewhere with --mirror URL|DIR"),
            Failure::Final(error) => error,
        };
        error.in_context(&match location {
            Location::File(path) => format!("cannot read {}", path.display()),
            Location::Url(_) => format!("cannot download {location}"),
        })
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Final(error)
    }
}

impl From<io::Error> for Failure {
    fn from(cause: io::Error) -> Failure {
        cause.downcast().unwrap_or_else(|cause| Failure::Final(Error::new(reason(&cause))))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the download failed")
    }
}

impl std::error::Error for Failure {}
