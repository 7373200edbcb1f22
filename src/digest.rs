//! SHA-256 of the bytes that a reader hands on.

use std::fmt;
use std::io::{self, BufReader, Read};

use sha2::{Digest as _, Sha256};

const BUFFER: usize = 64 << 10;

/// A SHA-256 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest([u8; 32]);

impl Digest {
    /// From 64 hexadecimal digits.
    pub fn parse(hex: &str) -> Option<Digest> {
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut digest = [0; 32];
        for (index, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
        }
        Some(Digest(digest))
    }

    /// The digest of everything left in `reader`.
    pub fn of(reader: impl Read) -> io::Result<Digest> {
        let mut reader = BufReader::with_capacity(BUFFER, HashingReader::new(reader));
        io::copy(&mut reader, &mut io::sink())?;
        Ok(reader.into_inner().finish())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Hashes what is read through it.
pub struct HashingReader<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> HashingReader<R> {
    pub fn new(inner: R) -> HashingReader<R> {
        HashingReader { inner, hasher: Sha256::new() }
    }

    /// The reader itself, for what need not be hashed.
    pub fn inner(&mut self) -> &mut R {
        &mut self.inner
    }

    /// The digest of all that was read.
    pub fn finish(self) -> Digest {
        Digest(self.hasher.finalize().into())
    }
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-2, appendix B.1.
    const OF_ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn digests_are_read_and_written_as_hexadecimal() {
        assert_eq!(Digest::parse(OF_ABC).unwrap().to_string(), OF_ABC);
        assert_eq!(Digest::parse(&OF_ABC.to_uppercase()), Digest::parse(OF_ABC));
        for bad in ["", "ba78", &format!("{OF_ABC}0"), &OF_ABC.replace('b', "g"), &"é".repeat(32)] {
            assert_eq!(Digest::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_read_is_hashed() {
        let mut reader = HashingReader::new(&b"abc"[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.finish().to_string(), OF_ABC);
        assert_eq!(Digest::of(&b"abc"[..]).unwrap().to_string(), OF_ABC);
    }
}
