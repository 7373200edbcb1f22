//! Release archives: good ones, and every kind of bad one.

use std::io::Write;
use std::sync::OnceLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

use super::pinned;
use super::stand_in_build::stand_in_bytes;

/// The version under which the tests publish what they make. The pinned one
/// accepts the real Temporal alone.
pub const VERSION: &str = "9.9.9";
pub const PINNED_VERSION: &str = pinned::VERSION;

/// `linux_amd64`, as in the names of assets.
pub fn platform() -> String {
    let os = match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    };
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        arch => arch,
    };
    format!("{os}_{arch}")
}

/// `/v9.9.9/temporal_cli_9.9.9_linux_amd64.tar.gz`
pub fn asset_path(version: &str) -> String {
    format!("/v{version}/{}", asset_name(version))
}

pub fn asset_name(version: &str) -> String {
    format!("temporal_cli_{version}_{}.tar.gz", platform())
}

pub fn checksums_path(version: &str) -> String {
    format!("/v{version}/checksums.txt")
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that no compression makes smaller, the same ones for the same seed.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // xorshift64*
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The stand-in with `length` bytes of noise behind it, which the system
/// ignores: an executable of any size.
pub fn executable(length: usize, seed: u64) -> Vec<u8> {
    [stand_in_bytes(), &noise(length, seed)].concat()
}

/// A release with a small executable that works.
pub fn small_release() -> &'static [u8] {
    static RELEASE: OnceLock<Vec<u8>> = OnceLock::new();
    RELEASE.get_or_init(|| release(stand_in_bytes()))
}

/// What upstream publishes: `LICENSE` and `temporal` at the root.
pub fn release(executable: &[u8]) -> Vec<u8> {
    Archive::new().file("LICENSE", b"The MIT License\n").file("temporal", executable).gzip()
}

/// A tar archive, entry by entry; nothing is too strange to be written.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
}

impl Archive {
    pub fn new() -> Archive {
        Archive::default()
    }

    pub fn file(self, name: &str, content: &[u8]) -> Archive {
        self.entry(name, EntryType::Regular, "", content)
    }

    pub fn directory(self, name: &str) -> Archive {
        self.entry(name, EntryType::Directory, "", b"")
    }

    pub fn symlink(self, name: &str, target: &str) -> Archive {
        self.entry(name, EntryType::Symlink, target, b"")
    }

    pub fn hard_link(self, name: &str, target: &str) -> Archive {
        self.entry(name, EntryType::Link, target, b"")
    }

    /// A PAX header for the next entry, its records as `key=value`.
    pub fn pax(self, records: &[(&str, &str)]) -> Archive {
        let content: String = records.iter().map(|(key, value)| pax_record(key, value)).collect();
        self.entry("PaxHeaders/next", EntryType::XHeader, "", content.as_bytes())
    }

    pub fn entry(self, name: &str, kind: EntryType, link: &str, content: &[u8]) -> Archive {
        self.entry_of_size(content.len() as u64, name, kind, link).content(content)
    }

    /// A file whose header lies about its size.
    pub fn file_of_size(self, size: u64, name: &str, content: &[u8]) -> Archive {
        self.entry_of_size(size, name, EntryType::Regular, "").content(content)
    }

    fn entry_of_size(mut self, size: u64, name: &str, kind: EntryType, link: &str) -> Archive {
        let mut header = Header::new_gnu();
        // By hand: the library refuses to write what we want to see refused.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o755);
        header.set_mtime(1_795_405_845);
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self
    }

    fn content(mut self, content: &[u8]) -> Archive {
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }

    /// The tar with its two blocks of zeros at the end.
    pub fn tar(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 1024, 0);
        self.bytes
    }

    pub fn gzip(self) -> Vec<u8> {
        gzip(&self.tar())
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A valid start of a release, then `length` zeros more: hardly any bytes on
/// the wire.
pub fn bomb(length: u64) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&Archive::new().file("temporal", b"x").bytes).unwrap();
    let mut header = Header::new_gnu();
    header.set_path("zeros").unwrap();
    header.set_size(length);
    header.set_cksum();
    encoder.write_all(header.as_bytes()).unwrap();
    let zeros = vec![0; 1 << 20];
    let mut left = length;
    while left > 0 {
        let count = left.min(zeros.len() as u64);
        encoder.write_all(&zeros[..count as usize]).unwrap();
        left -= count;
    }
    encoder.finish().unwrap()
}

/// `LENGTH key=value\n`, where LENGTH counts itself.
fn pax_record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    format!("{length} {key}={value}\n")
}

/// A file of checksums as upstream publishes it, for `asset` and others.
pub fn checksums(version: &str, asset: &[u8]) -> String {
    let other = "0123456789abcdef".repeat(4);
    format!(
        "{other}  temporal_cli_{version}_windows_amd64.zip\n{}  {}\n{other}  temporal_cli_{version}_plan9_mips.tar.gz\n",
        sha256(asset),
        asset_name(version)
    )
}
