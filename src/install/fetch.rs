//! A release, from its mirror to an executable that may be run where it lies;
//! and from there, as a step of its own, to its final name.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::cache::Cache;
use super::download::Download;
use super::failure::Failure;
use super::kept::Kept;
use super::network::{Client, Settings, WRONG_ANSWER};
use super::partial::Partial;
use super::receipt::{Receipt, modified, next_path};
use super::trust::Trust;
use super::unpack::{Fault, Unpacked, unpack};
use super::{Installed, kept_path, partial_path};
use crate::config::Managed;
use crate::digest::HashingReader;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::release::{Asset, Location, Mirror, Platform, Version};
use crate::sys;
use crate::terminal::{Mark, Terminal};

/// A file that changes this often while it is downloaded is not a release.
const MAX_FRESH_STARTS: u32 = 3;

/// A Temporal that is verified, durable and executable, but not yet in place.
/// Dropped before it is, or ended by a signal, it leaves nothing behind but the
/// archive that is kept.
pub struct Fetched<'a> {
    home: &'a Home,
    asset: Asset,
    partial: Partial,
    kept: Kept,
    receipt: Receipt,
    /// Where it is to be kept for other homes.
    cache: Option<Cache>,
}

/// Fetches the wanted version, from the cache or its mirror, and verifies it.
pub fn fetch<'a>(
    config: &Managed,
    home: &'a Home,
    variable: &dyn Fn(&str) -> Option<OsString>,
    terminal: &mut Terminal,
) -> Result<Fetched<'a>> {
    let asset = Asset { version: config.version.value.clone(), platform: Platform::current()? };
    let location = config.mirror.value.locate(&asset.path());
    let mut kept = Kept::open(kept_path(home), location.to_string());
    // Made before the first request, so that a home that cannot be written to
    // is reported before 45 MB have come.
    let partial = Partial::create(partial_path(home), kept.extent(), terminal)?;
    let cache = Cache::of(home);
    if let Some(cache) = &cache {
        let shown = home.display(cache.directory());
        if let Some(receipt) = cache.take(&asset, &location, &partial) {
            let text = format!("Using Temporal CLI v{} ({}) from {shown}", asset.version, asset.platform);
            terminal.line(Mark::Info, &text);
            return Ok(Fetched { home, asset, partial, kept, receipt, cache: None });
        }
        if let Some(error) = cache.fault() {
            terminal.line(Mark::Warning, &format!("{}; going on without the cache.", error.message()));
        }
    }
    check(config, &asset.version)?;
    let settings = match location {
        Location::Url(_) => Settings::from_environment(variable),
        // Nothing is requested, so nothing that is wrong with them matters.
        Location::File(_) => Settings::default(),
    };
    let client = Client::new(settings)?;
    let trust = Trust::of(&asset, &config.mirror.value, &client, terminal)?;
    let is_hashed = matches!(trust, Trust::Listed(_));
    let mut archive = Archive { client, asset, location, trust, is_hashed };
    let (file, unpacked) = archive.download(&partial, &mut kept, terminal).inspect_err(|_| {
        let extent = kept.extent();
        if !extent.is_empty() {
            terminal.line(Mark::Info, &extent.to_string());
        }
    })?;
    let metadata = partial.complete(file)?;
    let receipt = Receipt {
        version: archive.asset.version.clone(),
        size: unpacked.size,
        sha256: unpacked.sha256,
        source: archive.location.to_string(),
        modified: modified(&metadata),
    };
    Ok(Fetched { home, asset: archive.asset, partial, kept, receipt, cache })
}

/// Whether there is anything to fetch it from.
fn check(config: &Managed, version: &Version) -> Result<()> {
    let cannot_install = |why: String| Error::new(format!("cannot install Temporal CLI {version}: {why}"));
    match &config.mirror.value {
        Mirror::Url(_) if config.offline.value => {
            Err(cannot_install(format!("offline ({}), and it is not installed", config.offline.source))
                .hint("go online once, or give --mirror DIR or --temporal-bin PATH"))
        }
        Mirror::Directory(path) if !path.is_dir() => {
            let (path, source) = (path.display(), config.mirror.source);
            Err(cannot_install(format!("the mirror {path} ({source}) is not a directory"))
                .hint("name a directory that is there, or a URL, which begins with https://"))
        }
        _ => Ok(()),
    }
}

impl Fetched<'_> {
    /// Where it lies until it is put in place. It may be executed there:
    /// nothing unverified is ever executable.
    pub fn executable(&self) -> &Path {
        self.partial.path()
    }

    /// From now on a signal is the caller's to heed: it is to be put in place as a
    /// step among others.
    pub fn leave_signals(&mut self) {
        self.partial.leave_signals();
    }

    pub fn version(&self) -> &Version {
        &self.receipt.version
    }

    /// Gives it its final name, and its receipt. What was installed before
    /// stays until then.
    pub fn put_in_place(mut self, terminal: &mut Terminal) -> Result<Installed> {
        let installation = &self.home.installation;
        let (executable, receipt) = (installation.executable(), installation.receipt());
        let next = next_path(&receipt);
        let place = || {
            self.receipt.write(&next)?.sync_all()?;
            fs::rename(self.executable(), &executable)?;
            fs::rename(&next, &receipt)?;
            // The names are on disk when the directory is.
            File::open(&installation.directory)?.sync_all()
        };
        place().map_err(|cause| Error::io_in_home("install Temporal to", &executable, &cause))?;
        self.kept.discard();
        if let Some(cache) = &self.cache {
            cache.store(&self.asset, &executable, &self.receipt);
        }
        terminal.line(Mark::Done, &format!("Temporal binary installed to {}", self.home.display(&executable)));
        Ok(Installed { executable, version: Some(self.receipt.version.clone()) })
    }
}

/// The archive that is wanted, and what it must be.
struct Archive {
    client: Client,
    asset: Asset,
    location: Location,
    trust: Trust,
    /// Whether its own digest is taken. Where that of the executable is known it
    /// decides, and the archive's is asked for only if it is another one: that
    /// saves more than it costs to keep the archive.
    is_hashed: bool,
}

impl Archive {
    /// Streams it into `partial`: the executable, verified, in its file.
    fn download(&mut self, partial: &Partial, kept: &mut Kept, terminal: &mut Terminal) -> Result<(File, Unpacked)> {
        // What an earlier process kept may be damaged, or of another file that
        // looked the same from here; what comes in one go is not.
        let mut is_found = !kept.extent().is_empty();
        for _ in 0..=MAX_FRESH_STARTS {
            let mut file = partial.open()?;
            match self.attempt(&mut file, partial.directory(), kept, terminal) {
                Ok(unpacked) => return Ok((file, unpacked)),
                Err(Fault::Download(Failure::Changed)) => {}
                Err(Fault::Distrusted(_)) if !self.is_hashed => {
                    self.is_hashed = true;
                    kept.rewind();
                    continue;
                }
                Err(Fault::Refused(_) | Fault::Distrusted(_)) if is_found => {}
                Err(fault) => {
                    if !matches!(fault, Fault::Download(_)) {
                        kept.discard();
                    }
                    return Err(self.explain(fault, partial));
                }
            }
            kept.discard();
            is_found = false;
        }
        Err(Failure::Changed.of(&self.location))
    }

    /// One pass over the archive's bytes, of which only the executable's go to
    /// `file`.
    fn attempt(
        &self,
        file: &mut File,
        directory: &Path,
        kept: &mut Kept,
        terminal: &mut Terminal,
    ) -> Result<Unpacked, Fault> {
        let Archive { client, asset, location, trust, is_hashed } = self;
        let doing = match location {
            Location::Url(_) => "Downloading",
            Location::File(_) => "Unpacking",
        };
        let mut progress =
            terminal.progress(&format!("{doing} Temporal CLI v{} ({})...", asset.version, asset.platform));
        let download = Download::open(client, location, self.missing(), &mut progress, Some(kept));
        let mut reader = HashingReader::new(download.map_err(Fault::Download)?);
        let stream: &mut dyn Read = if *is_hashed { &mut reader } else { reader.inner() };
        let unpacked = unpack(stream, trust.limit(), file, || sys::free_space(directory))?;
        if *is_hashed || !trust.accepts(unpacked.sha256) {
            trust.verify(reader.finish(), &unpacked).map_err(Fault::Distrusted)?;
        }
        progress.finish();
        Ok(unpacked)
    }

    fn missing(&self) -> Error {
        let Asset { version, platform } = &self.asset;
        Error::new(format!("no Temporal CLI {version} for {platform} found there")).hint(
            "check the version with --temporal-version (CLI and Server versions differ), and --mirror if you set it",
        )
    }

    fn explain(&self, fault: Fault, partial: &Partial) -> Error {
        match fault {
            Fault::Download(failure) => failure.of(&self.location),
            Fault::Refused(why) => {
                let next = match self.location {
                    Location::File(_) => "copy the release there again",
                    Location::Url(_) => WRONG_ANSWER,
                };
                Error::new(format!("cannot unpack {}: {why}", self.location))
                    .hint(format!("nothing of it was kept; {next}"))
            }
            Fault::Distrusted(why) => Error::new(format!("cannot trust {}: {why}", self.location)).hint(
                "nothing of it was kept; something on the way changed it, or the mirror is wrong: \
                 check --mirror and your proxy",
            ),
            Fault::Write(cause) => Error::io_in_home("write", partial.path(), &cause),
            Fault::NoSpace { needed, free } => {
                let directory = partial.directory().display();
                let [needed, free] = [needed, free].map(|bytes| bytes.div_ceil(1_000_000));
                Error::new(format!(
                    "cannot install Temporal to {directory}: it needs {needed} MB, but only {free} MB are free"
                ))
                .hint("free some space, or set STIGMER_HOME to a directory on another disk")
            }
        }
    }
}
