//! Kernel locks on files: they die with their holder, so a lock that is held
//! has a living holder, and the mere existence of a file means nothing.
//! Where it can, the kernel names the holder; what a file says is only words.

use std::fs::{File, TryLockError};
use std::mem;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::sys::Signer;
use crate::{own_file, sys};

/// Who holds a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    Nobody,
    Process(u32),
    /// A process of another container, whose number means nothing here.
    Elsewhere,
    /// Somebody whom the kernel does not name.
    Unknown,
}

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
            Ok(()) => Ok(Some(Lock { file }).filter(|lock| lock.is_at(path))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(Error::io_in_home("lock", path, &cause)),
        }
    }

    /// Shares the lock with others; None while somebody holds it alone.
    pub fn try_shared(path: &Path) -> Result<Option<Lock>> {
        let file = open(path)?;
        match file.try_lock_shared() {
            Ok(()) => Ok(Some(Lock { file }).filter(|lock| lock.is_at(path))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(Error::io_in_home("lock", path, &cause)),
        }
    }

    /// Whether it is what others find at `path`: a file that was removed can be
    /// locked for ever, and keeps nobody out.
    pub fn is_at(&self, path: &Path) -> bool {
        is_at(&self.file, path)
    }

    /// Turns a shared lock into an exclusive one; None, and the share given
    /// up, when others share it.
    pub fn into_exclusive(self) -> Option<Lock> {
        self.file.try_lock().is_ok().then_some(self)
    }

    /// Has the kernel name this process to whoever asks for the holder.
    pub fn sign(&self) {
        // Where it cannot, the holder is known by its state alone.
        let _ = sys::sign(&self.file);
    }

    /// Who holds the lock now. Only asks: creates no file. Fails where it cannot
    /// be known.
    pub fn holder(path: &Path) -> Result<Holder> {
        let file = match own_file::open(path, File::options().read(true)) {
            Ok(file) => file,
            Err(cause) if own_file::is_hidden(&cause) => return Err(Error::io_in_home("read", path, &cause)),
            Err(_) => return Ok(Holder::Nobody),
        };
        Ok(match sys::signer(&file) {
            Signer::Process(pid) => Holder::Process(pid),
            Signer::Elsewhere => Holder::Elsewhere,
            Signer::Unknown if matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)) => Holder::Unknown,
            Signer::Unknown => Holder::Nobody,
        })
    }

    /// The same of a lock that is held: the answer never holds it for a moment.
    pub fn signer(path: &Path) -> Holder {
        let file = own_file::open(path, File::options().read(true));
        match file.map(|file| sys::signer(&file)) {
            Ok(Signer::Process(pid)) => Holder::Process(pid),
            Ok(Signer::Elsewhere) => Holder::Elsewhere,
            Ok(Signer::Unknown) | Err(_) => Holder::Unknown,
        }
    }

    pub fn file(&self) -> &File {
        &self.file
    }
}

/// The file of a lock that others share, kept open: they are seen here also
/// when the file has lost its name.
pub struct Shares {
    file: File,
    path: PathBuf,
}

impl Shares {
    pub fn open(path: PathBuf) -> Result<Shares> {
        Ok(Shares { file: open(&path)?, path })
    }

    /// Whether nobody holds a share. Then nobody gets one as long as this
    /// process lives.
    pub fn close_if_unused(&self) -> bool {
        if self.file.try_lock().is_err() {
            return false;
        }
        // Those who came after the file was taken away have another one.
        let others = match is_at(&self.file, &self.path) {
            true => Some(None),
            false => Lock::try_exclusive(&self.path).ok().flatten().map(Some),
        };
        let Some(others) = others else {
            let _ = self.file.unlock();
            return false;
        };
        mem::forget((self.file.try_clone(), others));
        true
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    sys::identity(path).is_ok_and(|there| sys::identity_of(file).is_ok_and(|held| held == there))
}

fn open(path: &Path) -> Result<File> {
    own_file::open(path, File::options().read(true).write(true).create(true).truncate(false))
        .map_err(|cause| Error::io_in_home("open the lock", path, &cause))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::after;
    use crate::scratch::Scratch;

    /// A child that another test has just forked holds what was open then, too.
    fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
        let deadline = after(std::time::Duration::from_secs(10));
        loop {
            if let Some(value) = attempt() {
                return value;
            }
            assert!(std::time::Instant::now() < deadline, "it is still held");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_lock_excludes_others_until_it_is_dropped() {
        let scratch = Scratch::new();
        let path = scratch.join("lock");
        let lock = Lock::try_exclusive(&path).unwrap().unwrap();
        assert!(Lock::try_exclusive(&path).unwrap().is_none());
        assert_ne!(Lock::holder(&path).unwrap(), Holder::Nobody);
        drop(lock);
        eventually(|| (Lock::holder(&path).unwrap() == Holder::Nobody).then_some(()));
        let first = Lock::try_shared(&path).unwrap().unwrap();
        let second = Lock::try_shared(&path).unwrap().unwrap();
        assert!(first.into_exclusive().is_none());
        drop(second);
        let alone = eventually(|| Lock::try_shared(&path).unwrap()?.into_exclusive());
        assert!(Lock::try_shared(&path).unwrap().is_none());
        drop(alone);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_names_the_holder_to_others() {
        let path = std::env::temp_dir().join(format!("stigmer-signed-{}", std::process::id()));
        let lock = Lock::try_exclusive(&path).unwrap().unwrap();
        lock.sign();
        // A record lock is never in its own holder's way, so another asks.
        match sys::fork().unwrap() {
            sys::Fork::Child => {
                let parent = std::os::unix::process::parent_id();
                std::process::exit((Lock::holder(&path).unwrap() != Holder::Process(parent)).into());
            }
            sys::Fork::Parent(pid) => assert_eq!(sys::wait_for_child(pid).unwrap(), 0),
        }
        drop(lock);
        std::fs::remove_file(&path).unwrap();
    }
}
