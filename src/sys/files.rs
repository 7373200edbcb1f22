//! Files and the disks they are on.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Bytes that an unprivileged user may still write on the disk of `path`.
pub fn free_space(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: the path is NUL-terminated; statvfs is plain data and only written.
    unsafe {
        let mut info: libc::statvfs = std::mem::zeroed();
        // The fields' width differs between platforms.
        #[allow(clippy::unnecessary_cast)]
        (libc::statvfs(path.as_ptr(), &mut info) == 0).then(|| info.f_bavail as u64 * info.f_frsize as u64)
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
}
