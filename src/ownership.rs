//! Files that are the user's own: whoever may write to them decides what is
//! executed.
//!
//! What lies above a home may be written to by others, as CI machines make it:
//! whoever swaps the home for another cannot make that one ours. Only where the
//! home is not ours itself, root's use of a volume, the way to it has to hold.

use std::fs::{DirBuilder, File, Metadata};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use crate::error::{Error, Result};
use crate::sys;

const ROOT: u32 = 0;
/// In a directory with this bit nobody can replace the files of others.
const STICKY: u32 = 0o1000;
const WRITABLE_FOR_GROUP: u32 = 0o020;
const WRITABLE_FOR_ALL: u32 = 0o002;

/// Makes the home itself; returns its owner.
pub fn create_root(path: &Path) -> Result<u32> {
    create(path)?;
    let me = sys::effective_user();
    // Root may use any home: a mounted volume often belongs to the user outside.
    // It holds nothing but directories, so it may be sticky as /tmp is.
    let metadata = read(path)?;
    check(path, &metadata, STICKY, |owner| me == ROOT || [me, ROOT].contains(&owner))?;
    let owner = metadata.uid();
    path.ancestors().try_for_each(|above| check_link(above, owner))?;
    if owner != me {
        let way = std::fs::canonicalize(path).map_err(|cause| Error::io_in_home("read", path, &cause))?;
        way.ancestors().skip(1).try_for_each(|above| check(above, &read(above)?, STICKY, |_| true))?;
    }
    Ok(owner)
}

/// Makes a directory of a home that belongs to `owner`.
pub fn create_below(path: &Path, owner: u32) -> Result<()> {
    create(path)?;
    check_link(path, owner)?;
    check(path, &read(path)?, 0, |other| is_trusted(other, owner))
}

/// Opens the directory `path` of a home that belongs to `owner`: what was looked
/// at is what is held, whatever has the name by then.
pub fn hold(path: &Path, owner: u32) -> Result<File> {
    let failed = |cause| Error::io_in_home("read", path, &cause);
    let directory = File::open(path).map_err(failed)?;
    check(path, &directory.metadata().map_err(failed)?, 0, |other| is_trusted(other, owner))?;
    Ok(directory)
}

/// Checks the executable at `path`, in a home that belongs to `owner`, and the
/// link that leads to it.
pub fn check_executable(path: &Path, shown: &Path, owner: u32) -> Result<()> {
    let check = || {
        check_link(path, owner)?;
        check(shown, &read(path)?, 0, |other| is_trusted(other, owner))
    };
    check().map_err(|error| error.hint(format!("if you trust it: --temporal-bin {}", shown.display())))
}

/// Whether `other` may decide what is executed from a home that belongs to `owner`.
fn is_trusted(other: u32, owner: u32) -> bool {
    [sys::effective_user(), ROOT, owner].contains(&other)
}

/// A link leads to where its owner wants.
fn check_link(path: &Path, owner: u32) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_symlink() && !is_trusted(metadata.uid(), owner) => {
            Err(of_another_user(path, metadata.uid()))
        }
        _ => Ok(()),
    }
}

fn read(path: &Path) -> Result<Metadata> {
    std::fs::metadata(path).map_err(|cause| Error::io_in_home("read", path, &cause))
}

/// The owner must be one whom `is_trusted` accepts. Others may write only where
/// the mode has the bit `excuse`.
fn check(path: &Path, metadata: &Metadata, excuse: u32, is_trusted: impl Fn(u32) -> bool) -> Result<()> {
    let (owner, group, mode) = (metadata.uid(), metadata.gid(), metadata.mode());
    // Groups with one member have his number; root's are the administrators, or
    // nobody, as where containers run under any number.
    let is_shared = group != owner && group != ROOT;
    let (who, letter) = match mode {
        _ if mode & excuse != 0 => return of_trusted(path, owner, is_trusted),
        _ if mode & WRITABLE_FOR_ALL != 0 => ("everybody".to_owned(), 'o'),
        _ if mode & WRITABLE_FOR_GROUP != 0 && is_shared => (format!("a group (gid {group})"), 'g'),
        _ => return of_trusted(path, owner, is_trusted),
    };
    Err(Error::new(format!("cannot use {}: {who} may write to it", path.display()))
        .hint(format!("chmod {letter}-w {}, or set STIGMER_HOME to a directory of your own", path.display())))
}

fn of_trusted(path: &Path, owner: u32, is_trusted: impl Fn(u32) -> bool) -> Result<()> {
    match is_trusted(owner) {
        true => Ok(()),
        false => Err(of_another_user(path, owner)),
    }
}

fn of_another_user(path: &Path, owner: u32) -> Error {
    Error::new(format!("cannot use {}: it belongs to another user (uid {owner})", path.display()))
        .hint("set STIGMER_HOME to a directory of your own")
}

fn create(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|cause| {
        let error = Error::io_in_home("create the directory", path, &cause);
        match path.exists() {
            true => error.hint(format!("{} is in the way; move it, or set STIGMER_HOME", path.display())),
            false => error,
        }
    })
}
