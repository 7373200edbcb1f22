//! From a decided configuration to an executable that may be run.
//!
//! Promises: nothing unverified is ever executed or gets its final name, what
//! was installed before stays until its successor is whole, and what is
//! installed is used again without asking the network.

mod download;
mod executable;
mod network;
mod receipt;
mod unpack;

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use self::download::{Download, Stop};
use self::network::{Client, Settings};
use self::receipt::{Receipt, modified, next_path};
use self::unpack::{Failure, Unpacked, unpack};
use crate::config::Managed;
use crate::digest::{Digest, HashingReader};
use crate::error::{Error, Result};
use crate::home::Home;
use crate::release::{self, Asset, Location, Pin, Platform, Version, digest_in_checksums};
use crate::terminal::{Mark, Terminal};
use crate::{own_file, sys};

/// For versions whose size is not pinned.
const MAX_EXECUTABLE: u64 = 1 << 30;
const MAX_CHECKSUMS: u64 = 1 << 20;
/// A file that changes this often while it is downloaded is not a release.
const MAX_FRESH_STARTS: u32 = 3;

/// An executable that may be run.
#[derive(Debug, Clone)]
pub struct Installed {
    pub executable: PathBuf,
    /// None for an executable that is not ours.
    pub version: Option<Version>,
}

/// What there is to run before anything is installed.
pub enum Found {
    Usable(Installed),
    /// None that is wanted; perhaps another version, of an earlier install.
    Missing(Option<Version>),
}

/// Looks for the wanted executable. The caller holds the daemon's lock, here
/// and for `install`, so no other process installs into this home meanwhile.
pub fn find(config: &Managed, home: &Home, terminal: &mut Terminal) -> Result<Found> {
    let usable = |executable, version| Ok(Found::Usable(Installed { executable, version }));
    if let Some(path) = &config.executable.value {
        executable::check(path, &config.executable.source.to_string())?;
        return usable(path.clone(), None);
    }
    let path = home.installation.executable();
    remove_leftovers(home)?;
    match Presence::of(home) {
        Presence::Ours(receipt) if receipt.version == config.version.value => usable(path, Some(receipt.version)),
        Presence::Ours(receipt) => {
            let text = format!("Temporal {} is installed, {} is wanted.", receipt.version, config.version.value);
            terminal.line(Mark::Info, &text);
            Ok(Found::Missing(Some(receipt.version)))
        }
        Presence::Theirs => {
            executable::check(&path, "put there without a receipt, so used as it is")?;
            if config.version.source.is_explicit() {
                let (source, shown) = (config.version.source, home.display(&path));
                let text =
                    format!("{source} is ignored: {shown} is not of stigmer's making; move it away to install another");
                terminal.line(Mark::Warning, &text);
            }
            usable(path, None)
        }
        Presence::Damaged => {
            terminal.line(Mark::Warning, "The installed Temporal differs from its receipt; installing it anew.");
            Ok(Found::Missing(None))
        }
        Presence::Absent => {
            terminal.line(Mark::Warning, "Temporal not found locally.");
            Ok(Found::Missing(None))
        }
    }
}

/// Installs the wanted version. Where that fails, and nobody asked for just
/// this version, `present` goes on to be used.
pub fn install(
    config: &Managed,
    home: &Home,
    present: Option<Version>,
    variable: &dyn Fn(&str) -> Option<OsString>,
    terminal: &mut Terminal,
) -> Result<Installed> {
    let installer = Installer { config, home, network: Settings::from_environment(variable) };
    let version = match (installer.install(terminal), present) {
        (Ok(version), _) => version,
        (Err(error), Some(present)) if !config.version.source.is_explicit() => {
            let text = format!("{}; using Temporal {present}, which is installed", error.message());
            terminal.line(Mark::Warning, &text);
            present
        }
        (Err(error), _) => return Err(error),
    };
    Ok(Installed { executable: home.installation.executable(), version: Some(version) })
}

/// What is at `bin/temporal`.
enum Presence {
    Absent,
    /// No receipt: the user put it there.
    Theirs,
    Ours(Receipt),
    /// There is a receipt, but for another file.
    Damaged,
}

impl Presence {
    fn of(home: &Home) -> Presence {
        let exists = fs::symlink_metadata(home.installation.executable()).is_ok();
        let has_receipt = fs::symlink_metadata(home.installation.receipt()).is_ok();
        match Receipt::load(&home.installation.receipt()) {
            _ if !exists => Presence::Absent,
            Some(receipt) if receipt.matches(&home.installation.executable()) => Presence::Ours(receipt),
            None if !has_receipt => Presence::Theirs,
            _ => Presence::Damaged,
        }
    }
}

fn partial_path(home: &Home) -> PathBuf {
    home.installation.directory.join(".temporal.partial")
}

/// Clears away what a killed run left.
fn remove_leftovers(home: &Home) -> Result<()> {
    let partial = partial_path(home);
    own_file::remove_if_present(&partial).map_err(|cause| Error::io_in_home("remove", &partial, &cause))?;
    receipt::recover(&home.installation.receipt(), &home.installation.executable())
        .map_err(|cause| Error::io_in_home("update", &home.installation.receipt(), &cause))
}

struct Installer<'a> {
    config: &'a Managed,
    home: &'a Home,
    network: Settings,
}

/// What a download must be to be trusted.
enum Trust {
    Pinned(Pin),
    /// The archive's digest, from the list beside it.
    Listed(Digest),
}

impl Trust {
    fn limit(&self) -> u64 {
        match self {
            Trust::Pinned(pin) => pin.executable_size,
            Trust::Listed(_) => MAX_EXECUTABLE,
        }
    }

    /// Compares; the error tells what was expected and what came.
    fn verify(&self, archive: Digest, unpacked: &Unpacked) -> Result<(), String> {
        match self {
            Trust::Listed(expected) if archive == *expected => Ok(()),
            Trust::Listed(expected) => {
                Err(format!("its SHA-256 is {archive}, but checksums.txt beside it says {expected}"))
            }
            Trust::Pinned(pin) => pin.verify(archive, unpacked.sha256),
        }
    }
}

impl Installer<'_> {
    fn install(self, terminal: &mut Terminal) -> Result<Version> {
        let asset = Asset { version: self.config.version.value.clone(), platform: Platform::current()? };
        let location = self.config.mirror.value.locate(&asset.path());
        if self.config.offline.value && matches!(location, Location::Url(_)) {
            return Err(Error::new(format!(
                "cannot install Temporal CLI {}: offline ({}), and it is not installed",
                asset.version, self.config.offline.source
            ))
            .hint("go online once, or give --mirror DIR or --temporal-bin PATH"));
        }
        // Made before the first request: a home that cannot be written to is
        // told before 45 MB have come.
        let partial_path = partial_path(self.home);
        let partial = Partial::create(&partial_path)?;
        let client = Client::new(self.network)?;
        let title = format!("Downloading Temporal CLI v{} ({})...", asset.version, asset.platform);
        let trust = trust(&client, &self.config.mirror.value, &asset, terminal)?;
        let mut fresh_starts = 0;
        let unpacked = loop {
            match fetch(&client, &location, &asset, &trust, &partial, terminal, &title)? {
                Some(unpacked) => break unpacked,
                None if fresh_starts < MAX_FRESH_STARTS => fresh_starts += 1,
                None => return Err(Error::new(format!("cannot download {location}: it changes all the time"))),
            }
        };
        partial.put_in_place(self.home, &asset, unpacked, &location)?;
        let path = self.home.installation.executable();
        terminal.line(Mark::Done, &format!("Temporal binary installed to {}", self.home.display(&path)));
        Ok(asset.version)
    }
}

/// The digest that the asset must have. None known means refused.
fn trust(client: &Client, mirror: &release::Mirror, asset: &Asset, terminal: &mut Terminal) -> Result<Trust> {
    if let Some(pin) = asset.pin() {
        return Ok(Trust::Pinned(pin));
    }
    let location = mirror.locate(&asset.checksums_path());
    let mut progress = terminal.silent_progress();
    let mut text = String::new();
    let mut download = Download::open(client, &location, asset, &mut progress)?;
    let read = (&mut download).take(MAX_CHECKSUMS).read_to_string(&mut text);
    if let Err(cause) = read {
        return Err(match download.stopped() {
            Some(Stop::Failed(error)) => error,
            _ => Error::io("read", &location, &cause),
        });
    }
    digest_in_checksums(&text, &asset.name()).map(Trust::Listed).ok_or_else(|| {
        Error::new(format!("cannot trust {}: {location} has no digest for it", asset.name()))
            .hint("stigmer installs nothing that it cannot verify; check the mirror, or use --temporal-bin")
    })
}

/// Streams the asset into `partial` and verifies it: one pass over the
/// network's bytes, none of them kept but the executable's. None: the file
/// changed meanwhile, and all has to begin again.
fn fetch(
    client: &Client,
    location: &Location,
    asset: &Asset,
    trust: &Trust,
    partial: &Partial<'_>,
    terminal: &mut Terminal,
    title: &str,
) -> Result<Option<Unpacked>> {
    let mut progress = terminal.progress(title);
    let mut download = Download::open(client, location, asset, &mut progress)?;
    let mut hashing = HashingReader::new(&mut download);
    let mut output = partial.restart()?;
    let directory = partial.path.parent().unwrap_or(Path::new("/"));
    let result = unpack(&mut hashing, trust.limit(), &mut output, || sys::free_space(directory));
    let archive = hashing.finish();
    let stopped = download.stopped();
    let unpacked = match (result, stopped) {
        (Ok(unpacked), _) => unpacked,
        (Err(_), Some(Stop::Changed)) => return Ok(None),
        (Err(_), Some(Stop::Failed(error))) => return Err(error),
        (Err(failure), None) => return Err(explain(failure, location, partial.path)),
    };
    trust.verify(archive, &unpacked).map_err(|why| {
        Error::new(format!("cannot trust {location}: {why}")).hint(
            "nothing of it was kept; something on the way changed it, or the mirror is wrong: check --mirror and your proxy",
        )
    })?;
    progress.finish();
    Ok(Some(unpacked))
}

fn explain(failure: Failure, location: &Location, partial: &Path) -> Error {
    match failure {
        Failure::Read(why) | Failure::Refused(why) => {
            let error = Error::new(format!("cannot unpack {location}: {why}"));
            error.hint(match location {
                Location::File(_) => "nothing of it was kept; copy the release there anew",
                Location::Url(_) => {
                    "nothing of it was kept; check --mirror, and whether a proxy or a login page answers instead of the server"
                }
            })
        }
        Failure::Write(cause) => Error::io_in_home("write", partial, &cause),
        Failure::NoSpace { needed, free } => {
            let megabytes = |bytes: u64| bytes.div_ceil(1_000_000);
            Error::new(format!(
                "cannot install Temporal to {}: it needs {} MB, {} MB are free",
                partial.parent().unwrap_or(partial).display(),
                megabytes(needed),
                megabytes(free)
            ))
            .hint("free some space, or set STIGMER_HOME to a directory on another disk")
        }
    }
}

/// The file that is being made. Removed unless it is put in place, also when
/// a signal ends the process.
struct Partial<'a> {
    path: &'a Path,
    file: File,
    _removed_on_signal: sys::Handlers,
}

impl<'a> Partial<'a> {
    fn create(path: &'a Path) -> Result<Partial<'a>> {
        let failed = |cause: io::Error| Error::io_in_home("create", path, &cause);
        let removed_on_signal = sys::remove_on_signal(path).map_err(failed)?;
        let file = File::options().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
        Ok(Partial { path, file, _removed_on_signal: removed_on_signal })
    }

    /// The file, empty again.
    fn restart(&self) -> Result<File> {
        let restart = || {
            use io::Seek;
            let mut file = self.file.try_clone()?;
            file.set_len(0)?;
            file.rewind()?;
            Ok(file)
        };
        restart().map_err(|cause| Error::io_in_home("write", self.path, &cause))
    }

    /// Makes the verified file executable and durable, and gives it its final
    /// name and its receipt.
    fn put_in_place(&self, home: &Home, asset: &Asset, unpacked: Unpacked, location: &Location) -> Result<()> {
        let next = next_path(&home.installation.receipt());
        let place = || {
            self.file.set_permissions(fs::Permissions::from_mode(0o755))?;
            self.file.sync_all()?;
            let receipt = Receipt {
                version: asset.version.clone(),
                size: unpacked.size,
                sha256: unpacked.sha256,
                source: location.to_string(),
                modified: modified(&self.file.metadata()?),
            };
            receipt.write(&next)?;
            fs::rename(self.path, home.installation.executable())?;
            fs::rename(&next, home.installation.receipt())?;
            // The names are on disk when the directory is.
            File::open(&home.installation.directory)?.sync_all()
        };
        place().map_err(|cause| Error::io_in_home("install Temporal to", &home.installation.executable(), &cause))
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.path);
    }
}

/// What the fuzz targets of `tests/fuzz` call.
#[cfg(fuzzing)]
pub mod fuzz {
    use super::unpack::unpack;

    const LIMIT: u64 = 1 << 20;

    /// The bytes as they are, and as the content of a gzip stream.
    pub fn archive(data: &[u8]) {
        use std::io::Write;
        let mut compressed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        compressed.write_all(data).expect("a Vec takes all");
        for bytes in [data, &compressed.finish().expect("a Vec takes all")] {
            let mut output = std::fs::File::create("/dev/null").expect("/dev/null");
            if let Ok(unpacked) = unpack(bytes, LIMIT, &mut output, || None) {
                assert!(unpacked.size <= LIMIT);
            }
        }
    }

    pub fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
        super::download::parse_content_range(text)
    }
}
