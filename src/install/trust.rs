//! What a download must be to be trusted: pinned, or listed beside it.

use std::io::Read;

use super::download::Download;
use super::failure::Failure;
use super::network::Client;
use super::unpack::Unpacked;
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::release::{Asset, Mirror, Pin, digest_in_checksums};
use crate::terminal::Terminal;

/// For versions whose size is not pinned.
const MAX_EXECUTABLE: u64 = 1 << 30;
const MAX_CHECKSUMS: u64 = 1 << 20;

pub enum Trust {
    Pinned(Pin),
    /// The archive's digest, from the list beside it.
    Listed(Digest),
}

impl Trust {
    /// How `asset` is to be verified. One without a known digest is refused.
    pub fn of(asset: &Asset, mirror: &Mirror, client: &Client, terminal: &mut Terminal) -> Result<Trust> {
        if let Some(pin) = asset.pin() {
            return Ok(Trust::Pinned(pin));
        }
        let location = mirror.locate(&asset.checksums_path());
        let missing = Error::new(format!("the list of digests for Temporal CLI {} is missing", asset.version)).hint(
            "check the version with --temporal-version (CLI and Server versions differ); \
             a --mirror must hold the release's checksums.txt beside the archive",
        );
        let mut progress = terminal.silent_progress();
        let read = || -> Result<Vec<u8>, Failure> {
            let mut text = Vec::new();
            Download::open(client, &location, missing, &mut progress, None)?
                .take(MAX_CHECKSUMS)
                .read_to_end(&mut text)?;
            Ok(text)
        };
        let text = read().map_err(|failure| failure.of(&location))?;
        digest_in_checksums(&String::from_utf8_lossy(&text), &asset.name()).map(Trust::Listed).ok_or_else(|| {
            Error::new(format!("cannot trust {}: {location} has no digest for it", asset.name()))
                .hint("stigmer installs nothing that it cannot verify; check the mirror, or use --temporal-bin")
        })
    }

    /// The most bytes that the executable may have.
    pub fn limit(&self) -> u64 {
        match self {
            Trust::Pinned(pin) => pin.executable_size,
            Trust::Listed(_) => MAX_EXECUTABLE,
        }
    }

    /// Whether the digest of the executable alone is enough.
    pub fn accepts(&self, executable: Digest) -> bool {
        match self {
            Trust::Pinned(pin) => pin.accepts(executable),
            Trust::Listed(_) => false,
        }
    }

    /// Compares; the error names what was expected and what came.
    pub fn verify(&self, archive: Digest, unpacked: &Unpacked) -> Result<(), String> {
        match self {
            Trust::Listed(expected) if archive == *expected => Ok(()),
            Trust::Listed(expected) => {
                Err(format!("its SHA-256 is {archive}, but checksums.txt beside it says {expected}"))
            }
            Trust::Pinned(pin) => pin.verify(archive, unpacked.sha256),
        }
    }
}
