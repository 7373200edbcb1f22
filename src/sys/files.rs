//! Files and the disks they are on.

use std::ffi::CString;
use std::fs::File;
#[cfg(target_os = "linux")]
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
