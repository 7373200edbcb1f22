//! Files and the disks they are on.

use std::ffi::CString;
use std::fs::{File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// What tells the file that `path` leads to from any other that has, had or
/// will have this name: its inode and, as numbers are used again, its birth.
/// Without the device, whose number may be another after a reboot.
pub fn identity(path: &Path) -> io::Result<String> {
    let metadata = std::fs::metadata(path)?;
    Ok(identity_text(&metadata, birth(path, &metadata)))
}

/// The same of an open file.
pub fn identity_of(file: &File) -> io::Result<String> {
    let metadata = file.metadata()?;
    Ok(identity_text(&metadata, birth_of(file, &metadata)))
}

fn identity_text(metadata: &Metadata, birth: Option<SystemTime>) -> String {
    match birth.and_then(|birth| birth.duration_since(UNIX_EPOCH).ok()) {
        Some(birth) => format!("{}@{}.{:09}", metadata.ino(), birth.as_secs(), birth.subsec_nanos()),
        None => format!("{}@{}", metadata.ino(), metadata.dev()),
    }
}

#[cfg(not(target_os = "linux"))]
fn birth(_: &Path, metadata: &Metadata) -> Option<SystemTime> {
    metadata.created().ok()
}

#[cfg(not(target_os = "linux"))]
fn birth_of(_: &File, metadata: &Metadata) -> Option<SystemTime> {
    metadata.created().ok()
}

// std asks for the birth only where the C library is glibc.
#[cfg(target_os = "linux")]
fn birth(path: &Path, _: &Metadata) -> Option<SystemTime> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    ask_birth(libc::AT_FDCWD, &path, 0)
}

#[cfg(target_os = "linux")]
fn birth_of(file: &File, _: &Metadata) -> Option<SystemTime> {
    ask_birth(file.as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

#[cfg(target_os = "linux")]
fn ask_birth(directory: i32, path: &std::ffi::CStr, flags: i32) -> Option<SystemTime> {
    /// Of linux/stat.h.
    const STATX_BTIME: u32 = 0x800;
    // SAFETY: the path is NUL-terminated; statx is plain data and only written.
    let (result, info) = unsafe {
        let mut info: libc::statx = std::mem::zeroed();
        let pointer = std::ptr::from_mut(&mut info);
        (libc::syscall(libc::SYS_statx, directory, path.as_ptr(), flags, STATX_BTIME, pointer), info)
    };
    let is_known = result == 0 && info.stx_mask & STATX_BTIME != 0;
    let birth = std::time::Duration::new(info.stx_btime.tv_sec.max(0) as u64, info.stx_btime.tv_nsec);
    is_known.then(|| UNIX_EPOCH + birth)
}

/// Bytes that an unprivileged user may still write on the disk of `path`. None
/// where it does not say: some file systems (FUSE) claim to have no size at all.
pub fn free_space(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: the path is NUL-terminated; statvfs is plain data and only written.
    unsafe {
        let mut info: libc::statvfs = std::mem::zeroed();
        // The fields' width differs between platforms.
        #[allow(clippy::unnecessary_cast)]
        (libc::statvfs(path.as_ptr(), &mut info) == 0 && info.f_blocks != 0)
            .then(|| info.f_bavail as u64 * info.f_frsize as u64)
    }
}

/// Whether processes can share memory through `file`, which is open for
/// reading and writing; some file systems (FUSE with direct I/O, 9p) have none.
pub fn can_map_shared(file: &File) -> bool {
    const LENGTH: libc::size_t = 4096;
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: the system chooses the place; nobody looks at what is mapped,
    // not even when the file is shorter, and it is unmapped at once.
    unsafe {
        let address = libc::mmap(std::ptr::null_mut(), LENGTH, access, libc::MAP_SHARED, file.as_raw_fd(), 0);
        address != libc::MAP_FAILED && libc::munmap(address, LENGTH) == 0
    }
}

/// Starts writing out what the file got so far, and does not wait for it: the
/// fsync at the end then finds little left to do. Linux only, elsewhere nothing.
pub fn start_writeback(file: &File) {
    #[cfg(target_os = "linux")]
    // SAFETY: no memory is involved; it is a hint, a failure changes nothing.
    unsafe {
        libc::sync_file_range(file.as_raw_fd(), 0, 0, libc::SYNC_FILE_RANGE_WRITE);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared_through_an_empty_file_but_not_through_a_directory() {
        let path = std::env::temp_dir().join(format!("stigmer-map-{}", std::process::id()));
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        assert!(can_map_shared(&file));
        assert!(!can_map_shared(&File::open(std::env::temp_dir()).unwrap()));
        std::fs::remove_file(&path).unwrap();
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_file_system_without_a_size_is_not_a_full_one() {
        assert!(free_space(&std::env::temp_dir()).is_some());
        assert_eq!(free_space(Path::new("/proc")), None);
    }

    #[test]
    fn a_file_is_recognised_whatever_its_name_and_a_new_one_is_another() {
        let path = std::env::temp_dir().join(format!("stigmer-identity-{}", std::process::id()));
        let file = File::create(&path).unwrap();
        let first = identity(&path).unwrap();
        assert_eq!(identity_of(&file).unwrap(), first);
        let renamed = path.with_extension("renamed");
        std::fs::rename(&path, &renamed).unwrap();
        File::create(&path).unwrap();
        assert_eq!(identity(&renamed).unwrap(), first);
        assert_ne!(identity(&path).unwrap(), first);
        std::fs::remove_file(&path).unwrap();
        std::fs::remove_file(&renamed).unwrap();
    }
}
