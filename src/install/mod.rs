//! From a decided configuration to an executable that may be run, in three
//! steps: `find`, `fetch` where there is none, `Fetched::put_in_place`.
//!
//! Promises: nothing unverified is ever executable or gets its final name, what
//! was installed before stays until its successor is whole, and what is
//! installed is used again without asking the network.

mod cache;
mod connection;
mod download;
mod executable;
mod failure;
mod fetch;
mod kept;
mod network;
mod partial;
mod receipt;
mod trust;
mod turn;
mod unpack;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use self::fetch::{Fetched, fetch};
use self::receipt::Receipt;
pub use self::turn::{ensure, fall_back, wait_for_turn};
use crate::config::Managed;
use crate::error::{Error, Result};
use crate::home::Home;
use crate::own_file;
use crate::release::Version;
use crate::terminal::{Mark, Terminal};

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
    /// Not the wanted one; perhaps another version, to fall back on where the
    /// wanted one cannot be had and nobody asked for just that.
    Missing(Option<Installed>),
}

/// Looks for the wanted executable. It is the caller's turn until the last
/// step, so no other process installs into this home meanwhile.
pub fn find(config: &Managed, home: &Home, terminal: &mut Terminal) -> Result<Found> {
    if let Some(path) = &config.executable.value {
        executable::check(path, &config.executable.source.to_string())?;
        return Ok(Found::Usable(Installed { executable: path.clone(), version: None }));
    }
    remove_leftovers(home)?;
    let found = look(config, home, terminal)?;
    if let Found::Usable(_) = found {
        // It is of another version, or of what has been installed since.
        let _ = own_file::remove_if_present(&kept_path(home));
    }
    Ok(found)
}

fn look(config: &Managed, home: &Home, terminal: &mut Terminal) -> Result<Found> {
    let exists = |path: &Path| fs::symlink_metadata(path).is_ok();
    let (executable, wanted) = (home.installation.executable(), &config.version);
    let mut fallback = None;
    match Receipt::load(&home.installation.receipt()) {
        _ if !exists(&executable) => terminal.line(Mark::Warning, "Temporal not found locally."),
        // Nothing can take its place.
        _ if executable.is_dir() => {
            let cause = io::Error::from(io::ErrorKind::IsADirectory);
            return Err(Error::io_in_home("install Temporal to", &executable, &cause));
        }
        Some(receipt) if receipt.matches(&executable) => {
            let version = Some(receipt.version.clone());
            if receipt.version == wanted.value {
                return Ok(Found::Usable(Installed { executable, version }));
            }
            let text = format!("Temporal {} is installed; {} is wanted.", receipt.version, wanted.value);
            terminal.line(Mark::Info, &text);
            fallback = (!wanted.source.is_explicit()).then_some(Installed { executable, version });
        }
        None if !exists(&home.installation.receipt()) => {
            executable::check(&executable, "put there without a receipt, so used as it is")?;
            if wanted.source.is_explicit() {
                let (source, shown) = (wanted.source, home.display(&executable));
                let text = format!(
                    "{source} is ignored: {shown} was not installed by stigmer; move it away to install another"
                );
                terminal.line(Mark::Warning, &text);
            }
            return Ok(Found::Usable(Installed { executable, version: None }));
        }
        _ => terminal.line(Mark::Warning, "The installed Temporal differs from its receipt; installing it again."),
    }
    Ok(Found::Missing(fallback))
}

fn partial_path(home: &Home) -> PathBuf {
    home.installation.directory.join(".temporal.partial")
}

/// What came of a download that has not been finished.
fn kept_path(home: &Home) -> PathBuf {
    home.installation.directory.join(".temporal.download")
}

/// Clears away what a killed run left behind.
fn remove_leftovers(home: &Home) -> Result<()> {
    let partial = partial_path(home);
    own_file::remove_if_present(&partial).map_err(|cause| Error::io_in_home("remove", &partial, &cause))?;
    receipt::recover(&home.installation.receipt(), &home.installation.executable())
        .map_err(|cause| Error::io_in_home("update", &home.installation.receipt(), &cause))
}

/// What the fuzz targets of `tests/fuzz` call.
#[cfg(fuzzing)]
pub use self::{download::parse_content_range, unpack::unpack};
