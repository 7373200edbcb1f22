//! Kernel locks on files: they die with their holder, so a lock that is held
//! has a living holder, and the mere existence of a file means nothing.

use std::fs::{File, TryLockError};
use std::path::Path;

use crate::error::{Error, Result};
use crate::own_file;

/// A held lock; dropped, it is free.
#[derive(Debug)]
pub struct Lock {
    file: File,
}

impl Lock {
    /// Takes the lock for this process alone; None while another one holds it.
    pub fn try_exclusive(path: &Path) -> Result<Option<Lock>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(Error::io("lock", path.display(), &cause)),
        }
    }

    /// Shares the lock with others; None while somebody holds it alone.
    pub fn try_shared(path: &Path) -> Result<Option<Lock>> {
        let file = open(path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Lock { file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(Error::io("lock", path.display(), &cause)),
        }
    }

    /// Turns a shared lock into an exclusive one; None, and the share given
    /// up, when others share it.
    pub fn into_exclusive(self) -> Option<Lock> {
        self.file.try_lock().is_ok().then_some(self)
    }

    /// Whether somebody holds the lock now. Only asks: creates no file.
    pub fn is_held(path: &Path) -> bool {
        let Ok(file) = own_file::open(path, File::options().read(true)) else { return false };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }

    pub fn file(&self) -> &File {
        &self.file
    }
}

fn open(path: &Path) -> Result<File> {
    own_file::open(path, File::options().read(true).write(true).create(true).truncate(false))
        .map_err(|cause| Error::io("open the lock", path.display(), &cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_lock_excludes_others_until_it_is_dropped() {
        let scratch = Scratch::new();
        let path = scratch.join("lock");
        let lock = Lock::try_exclusive(&path).unwrap().unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        assert!(Lock::is_held(&path));
        drop(lock);
        assert!(!Lock::is_held(&path));
        let first = Lock::try_shared(&path).unwrap().unwrap();
        let second = Lock::try_shared(&path).unwrap().unwrap();
        assert!(first.into_exclusive().is_none());
        let alone = second.into_exclusive().unwrap();
        assert!(Lock::try_shared(&path).unwrap().is_none());
        drop(alone);
    }
}
