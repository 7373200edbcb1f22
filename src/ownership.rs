//! Directories that are the user's own: whoever may write to them decides what
//! is executed from them.

use std::fs::DirBuilder;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use crate::error::{Error, Result};
use crate::sys;

const ROOT: u32 = 0;
/// In a directory with this bit nobody can replace the files of others.
const STICKY: u32 = 0o1000;
const WRITABLE_FOR_ALL: u32 = 0o002;

/// Makes the home itself; returns its owner.
pub fn create_root(path: &Path) -> Result<u32> {
    create(path)?;
    let me = sys::effective_user();
    // Root may use any home: a mounted volume often belongs to the user outside.
    // It holds nothing but directories, so it may be sticky as /tmp is.
    check(path, STICKY, |owner| me == ROOT || [me, ROOT].contains(&owner))
}

/// Makes a directory of a home that belongs to `owner`.
pub fn create_below(path: &Path, owner: u32) -> Result<()> {
    create(path)?;
    let me = sys::effective_user();
    let is_trusted = |other| [me, ROOT, owner].contains(&other);
    check(path, 0, is_trusted)?;
    // A link leads to where its owner wants.
    match std::fs::symlink_metadata(path).map(|metadata| metadata.uid()) {
        Ok(link) if !is_trusted(link) => Err(of_another_user(path, link)),
        _ => Ok(()),
    }
}

/// Returns the owner, whom `is_trusted` must accept. Everybody may write only
/// where the mode has the bit `excuse`.
fn check(path: &Path, excuse: u32, is_trusted: impl Fn(u32) -> bool) -> Result<u32> {
    let metadata = std::fs::metadata(path).map_err(|cause| Error::io("read", path.display(), &cause))?;
    let (owner, mode) = (metadata.uid(), metadata.mode());
    if mode & WRITABLE_FOR_ALL != 0 && mode & excuse == 0 {
        return Err(Error::new(format!("cannot use {}: everybody may write to it", path.display()))
            .hint(format!("chmod o-w {}, or set STIGMER_HOME to a directory of your own", path.display())));
    }
    match is_trusted(owner) {
        true => Ok(owner),
        false => Err(of_another_user(path, owner)),
    }
}

fn of_another_user(path: &Path, owner: u32) -> Error {
    Error::new(format!("cannot use {}: it belongs to another user (uid {owner})", path.display()))
        .hint("set STIGMER_HOME to a directory of your own")
}

fn create(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|cause| {
        let error = Error::io("create the directory", path.display(), &cause);
        match path.exists() {
            true => error.hint(format!("{} is in the way; move it, or set STIGMER_HOME", path.display())),
            false => error,
        }
    })
}
