//! Whether this machine can execute a file, decided before the system reports
//! no more than "exec format error".

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::{Error, Result, reason};
use crate::release::Platform;

/// How executables begin: ELF, Mach-O for one and for several platforms,
/// scripts, and Windows programs, which are reported as such.
const MAGICS: [&[u8]; 5] = [b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"#!", b"MZ"];

/// Checks `path`, which is to be used because of `named_by`.
pub fn check(path: &Path, named_by: &str) -> Result<()> {
    let failed = |why: &str| Error::new(format!("cannot use {} ({named_by}): {why}", path.display()));
    let unfit = |why: &str| Err(failed(why).hint("give the path of a Temporal CLI executable"));
    let metadata = match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(metadata) if metadata.is_dir() => return unfit("is a directory"),
        Ok(_) => return unfit("not a file"),
        Err(cause) => return unfit(&reason(&cause)),
    };
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(failed("not executable").hint(format!("chmod +x {}", path.display())));
    }
    let mut start = Vec::new();
    // An executable that may not be read can still be executed.
    let Ok(_) = File::open(path).and_then(|file| file.take(20).read_to_end(&mut start)) else { return Ok(()) };
    if !MAGICS.iter().any(|magic| start.starts_with(magic)) {
        // The system would have a shell run it, line by line.
        return unfit("neither a program nor a script");
    }
    match (built_for(&start), Platform::current()) {
        (Some(built_for), Ok(this)) if built_for != this => {
            Err(failed(&format!("built for {built_for}, but this machine is {this}"))
                .hint("get the executable for this platform"))
        }
        _ => Ok(()),
    }
}

/// The platform that the start of an ELF, Mach-O or Windows file names.
fn built_for(start: &[u8]) -> Option<Platform> {
    let half = |at: usize| Some(u16::from_le_bytes([*start.get(at)?, *start.get(at + 1)?]));
    let platform = |os, arch| Some(Platform { os, arch });
    match start.get(..4)? {
        // ELF: e_machine is at 18.
        b"\x7fELF" => match half(18)? {
            62 => platform("linux", "amd64"),
            183 => platform("linux", "arm64"),
            _ => platform("linux", "another architecture"),
        },
        // Mach-O, 64 bits: cputype is at 4.
        [0xcf, 0xfa, 0xed, 0xfe] => match half(4)? {
            0x0007 => platform("darwin", "amd64"),
            0x000c => platform("darwin", "arm64"),
            _ => None,
        },
        [b'M', b'Z', ..] => platform("windows", "any architecture"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executables_name_the_platform_they_are_built_for() {
        let elf = |machine: u8| [&b"\x7fELF"[..], &[0; 14], &[machine, 0]].concat();
        let name = |start: &[u8]| built_for(start).map(|platform| platform.to_string());
        assert_eq!(name(&elf(62)).unwrap(), "linux/amd64");
        assert_eq!(name(&elf(183)).unwrap(), "linux/arm64");
        assert_eq!(name(&[0xcf, 0xfa, 0xed, 0xfe, 0x0c, 0, 0, 1]).unwrap(), "darwin/arm64");
        assert_eq!(name(b"#!/bin/sh\n"), None);
        assert_eq!(name(b""), None);
        assert!(check(&std::env::current_exe().unwrap(), "test").is_ok());
    }
}
