//! What the homes of one user share: verified executables, so that a second
//! project downloads nothing.
//!
//! An entry is a directory with a hard link to the executable of the home that
//! downloaded it, and a receipt. It is not trusted for being there: whoever
//! takes it verifies it under a name of its own home. Nothing here fails either:
//! what cannot be used is passed over, and the next download replaces it.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::partial::Partial;
use super::receipt::{Receipt, modified};
use crate::digest::Digest;
use crate::error::Error;
use crate::home::Home;
use crate::release::{Asset, Location, Version};
use crate::{own_file, ownership, sys};

/// Those used last stay, of 156 MB each. A home's own is no copy of it.
const MAX_ENTRIES: usize = 3;
const ROOT: u32 = 0;

pub struct Cache {
    directory: PathBuf,
}

impl Cache {
    /// None where it is turned off, or nowhere.
    pub fn of(home: &Home) -> Option<Cache> {
        Some(Cache { directory: home.cache.clone()? })
    }

    fn entry(&self, asset: &Asset) -> Entry {
        let Asset { version, platform } = asset;
        Entry { directory: self.directory.join(format!("{version}-{}-{}", platform.os, platform.arch)) }
    }

    /// Puts the wanted executable in the place of `partial`, verified, and
    /// returns its receipt. A version without a pin must come from `location`,
    /// which is what would be trusted otherwise.
    pub fn take(&self, asset: &Asset, location: &Location, partial: &Partial) -> Option<Receipt> {
        let entry = self.entry(asset);
        ownership::hold(&self.directory, sys::effective_user()).ok()?;
        ownership::hold(&entry.directory, sys::effective_user()).ok()?;
        let mut receipt = Receipt::load(&entry.receipt())?;
        let is_wanted = match asset.pin() {
            Some(pin) => pin.accepts(receipt.sha256),
            None => receipt.source == location.to_string(),
        };
        if receipt.version != asset.version || !is_wanted {
            return None;
        }
        let mut file = partial.take(&entry.executable()).ok()?;
        if file.metadata().ok()?.len() != receipt.size || Digest::of(&mut file).ok()? != receipt.sha256 {
            return None;
        }
        receipt.modified = modified(&partial.complete(file).ok()?);
        // Used last.
        let _ = File::open(entry.receipt()).and_then(|receipt| receipt.set_modified(SystemTime::now()));
        Some(receipt)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Why it must not be used, where it is there.
    pub fn fault(&self) -> Option<Error> {
        fs::symlink_metadata(&self.directory).ok()?;
        ownership::hold(&self.directory, sys::effective_user()).err()
    }

    /// Keeps the executable of a home, which is verified and on disk. Only a
    /// link to it costs next to nothing, so there is none on another disk.
    pub fn store(&self, asset: &Asset, executable: &Path, receipt: &Receipt) {
        let entry = self.entry(asset);
        let me = sys::effective_user();
        let above = self.directory.ancestors().find_map(|above| fs::metadata(above).ok());
        let beside = executable.parent().and_then(|bin| fs::metadata(bin).ok());
        let (Some(above), Some(beside)) = (above, beside) else { return };
        // What root makes in the home of another user, as sudo leaves HOME,
        // would be in that user's way.
        let is_ours = above.dev() == beside.dev()
            && (me != ROOT || above.uid() == ROOT)
            && ownership::create_below(&self.directory, me).is_ok()
            && ownership::create_below(&entry.directory, me).is_ok();
        if is_ours && entry.replace(executable, receipt).is_ok() {
            self.drop_old();
        }
        // Where there was nothing to keep.
        let _ = fs::remove_dir(&entry.directory);
    }

    /// Other directories that lie there are none of ours.
    fn drop_old(&self) {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut entries: Vec<_> = entries
            .filter(|entry| is_name(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| {
                let entry = Entry { directory: entry.path() };
                let used = fs::symlink_metadata(entry.receipt()).map_or((0, 0), |metadata| modified(&metadata));
                (used, entry)
            })
            .collect();
        entries.sort_by_key(|(used, _)| std::cmp::Reverse(*used));
        entries.iter().skip(MAX_ENTRIES).for_each(|(_, entry)| entry.remove());
    }
}

/// Whether an entry has such a name: `1.9.1-linux-amd64`.
fn is_name(name: &OsStr) -> bool {
    let mut parts = name.to_str().unwrap_or_default().rsplitn(3, '-');
    let (arch, os, version) = (parts.next(), parts.next(), parts.next());
    matches!(arch, Some("amd64" | "arm64"))
        && matches!(os, Some("linux" | "darwin"))
        && version.and_then(Version::parse).is_some()
}

struct Entry {
    directory: PathBuf,
}

impl Entry {
    fn executable(&self) -> PathBuf {
        self.directory.join("temporal")
    }

    fn receipt(&self) -> PathBuf {
        self.directory.join("temporal.receipt")
    }

    fn replace(&self, executable: &Path, receipt: &Receipt) -> io::Result<()> {
        let next = self.directory.join(".next");
        let result = (|| {
            own_file::remove_if_present(&next)?;
            fs::hard_link(executable, &next)?;
            // The receipt first: with one of them new, no executable fits.
            receipt.write(&self.receipt())?;
            fs::rename(&next, self.executable())
        })();
        // It stays where both names were the same file, too.
        let _ = fs::remove_file(&next);
        result
    }

    fn remove(&self) {
        for path in [self.executable(), self.receipt()] {
            let _ = fs::remove_file(path);
        }
        let _ = fs::remove_dir(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_entries_are_ours_to_remove() {
        for name in ["1.9.1-linux-amd64", "10.0.0-rc.1-darwin-arm64"] {
            assert!(is_name(OsStr::new(name)), "{name}");
        }
        for name in ["", "1.9.1", "photos-linux-amd64", "1.9.1-linux", "v-linux-amd64", "1.9.1-plan9-amd64", ".git"] {
            assert!(!is_name(OsStr::new(name)), "{name}");
        }
    }
}
