//! What the protocol of service managers needs beyond std.

use std::os::unix::net::SocketAddr;

/// The socket that has this name and is no file. Only Linux has such.
#[cfg(target_os = "linux")]
pub fn abstract_address(name: &[u8]) -> Option<SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    SocketAddr::from_abstract_name(name).ok()
}

#[cfg(not(target_os = "linux"))]
pub fn abstract_address(_: &[u8]) -> Option<SocketAddr> {
    None
}
