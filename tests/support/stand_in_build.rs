//! Compiles the stand-in, once for each version of its source.

use std::env;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const SOURCE: &str = include_str!("stand_in.rs");

/// The executable of the stand-in.
pub fn stand_in() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let rustc = env::var_os("RUSTC").filter(|name| !name.is_empty()).unwrap_or_else(|| "rustc".into());
        let mut hasher = DefaultHasher::new();
        (SOURCE, &rustc).hash(&mut hasher);
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let path = directory.join(format!("stand-in-{:016x}", hasher.finish()));
        // Several test programs may compile it at once; the rename makes one that
        // is killed harmless.
        let lock = File::create(directory.join("stand-in.lock")).unwrap();
        lock.lock().unwrap();
        if !path.exists() {
            let source = path.with_extension("rs");
            let partial = path.with_extension("partial");
            fs::write(&source, SOURCE).unwrap();
            let status = Command::new(&rustc)
                .args(["--edition", "2024", "-C", "opt-level=1", "-C", "strip=symbols", "-C", "panic=abort", "-o"])
                .arg(&partial)
                .arg(&source)
                .status()
                .unwrap_or_else(|error| panic!("cannot run {}: {error}", rustc.display()));
            assert!(status.success(), "the stand-in does not compile");
            fs::rename(partial, &path).unwrap();
        }
        path
    })
}

/// Its bytes.
pub fn stand_in_bytes() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| fs::read(stand_in()).unwrap())
}
