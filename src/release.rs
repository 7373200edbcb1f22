//! Releases of the Temporal CLI: versions, platforms, the names of assets, and
//! the digests that an asset must have. Pure.

use std::ffi::OsStr;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::pinned;

/// A version of the Temporal CLI (not of the Temporal Server), without the `v`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version(String);

impl Version {
    /// Accepts `1.2.3`, `v1.2.3` and `1.2.3-rc.1`. Strict, because the text
    /// becomes part of URLs and paths.
    pub fn parse(text: &str) -> Option<Version> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let (core, suffix) = text.split_once('-').map_or((text, None), |(core, suffix)| (core, Some(suffix)));
        let is_number = |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        let is_word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let is_core = core.split('.').count() == 3 && core.split('.').all(is_number);
        let is_suffix = |suffix: &str| suffix.len() <= 64 && suffix.split('.').all(is_word);
        (is_core && suffix.is_none_or(is_suffix)).then(|| Version(text.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the databases of the two are known to have one schema.
    pub fn has_schema_of(&self, other: &Version) -> bool {
        let of_pinned = |version: &Version| {
            let order = |text: &str| Version::parse(text)?.order();
            let since = order(pinned::fact("schema-since").unwrap_or(pinned::VERSION));
            version.order().is_some_and(|order_of| since <= Some(order_of) && Some(order_of) <= order(pinned::VERSION))
        };
        self == other || of_pinned(self) && of_pinned(other)
    }

    /// None for a version before a release: it may be anything.
    fn order(&self) -> Option<[u32; 3]> {
        let mut numbers = self.0.split('.').map(str::parse);
        let mut next = || numbers.next()?.ok();
        let order = [next()?, next()?, next()?];
        next().is_none().then_some(order)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Rust's names, and those of the releases.
const NAMES: [(&str, &str); 4] = [("linux", "linux"), ("macos", "darwin"), ("x86_64", "amd64"), ("aarch64", "arm64")];

/// A platform as Temporal's releases name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    pub os: &'static str,
    pub arch: &'static str,
}

impl Platform {
    /// The platform that this program was built for.
    pub fn current() -> Result<Platform> {
        Platform::from_rust(std::env::consts::OS, std::env::consts::ARCH)
    }

    /// From Rust's names for operating system and architecture.
    fn from_rust(os: &str, arch: &str) -> Result<Platform> {
        let name = |rust: &str| NAMES.iter().find(|(theirs, _)| *theirs == rust).map(|(_, name)| *name);
        match (name(os), name(arch)) {
            (Some(os), Some(arch)) => Ok(Platform { os, arch }),
            _ => Err(Error::new(format!("cannot install Temporal on {os}/{arch}: there is no release for it")).hint(
                "supported are linux/amd64, linux/arm64, darwin/amd64 and darwin/arm64; \
                     elsewhere give an executable with --temporal-bin or a server with --temporal-host",
            )),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.arch)
    }
}

/// One archive of one release.
#[derive(Debug, Clone)]
pub struct Asset {
    pub version: Version,
    pub platform: Platform,
}

impl Asset {
    /// `temporal_cli_1.2.3_linux_amd64.tar.gz`
    pub fn name(&self) -> String {
        format!("temporal_cli_{}_{}_{}.tar.gz", self.version, self.platform.os, self.platform.arch)
    }

    /// Its path below a mirror's base.
    pub fn path(&self) -> String {
        format!("v{}/{}", self.version, self.name())
    }

    /// The path of the list of digests beside it.
    pub fn checksums_path(&self) -> String {
        format!("v{}/checksums.txt", self.version)
    }

    /// The digests built into this program; None for all but the pinned version.
    pub fn pin(&self) -> Option<Pin> {
        if self.version.0 != pinned::VERSION {
            return None;
        }
        let fact = |name| pinned::fact(&format!("{}/{name}", self.platform));
        Some(Pin {
            archive: fact("archive").and_then(Digest::parse),
            executable: Digest::parse(fact("executable")?)?,
            executable_size: fact("size")?.parse().ok()?,
        })
    }
}

/// What a download of the pinned version must be: its archive or its
/// executable has the digest.
#[derive(Debug, Clone, PartialEq)]
pub struct Pin {
    /// None where upstream's own is not known.
    archive: Option<Digest>,
    executable: Digest,
    pub executable_size: u64,
}

impl Pin {
    /// Whether this is the pinned executable.
    pub fn accepts(&self, executable: Digest) -> bool {
        self.executable == executable
    }

    /// Compares; the error says what was expected and what came.
    pub fn verify(&self, archive: Digest, executable: Digest) -> Result<(), String> {
        if self.archive == Some(archive) || self.accepts(executable) {
            return Ok(());
        }
        let expected = self.archive.map_or(String::new(), |expected| format!(", expected {expected}"));
        Err(format!(
            "its SHA-256 is {archive}{expected}; its executable's is {executable}, expected {}",
            self.executable
        ))
    }
}

/// The digest of `asset` in the text of a `checksums.txt`: lines of
/// `<64 hex digits>  <name>`, or `*<name>` as sha256sum writes binary files.
/// Also None when two lines disagree about it.
pub fn digest_in_checksums(text: &str, asset: &str) -> Option<Digest> {
    let mut found = None;
    for line in text.lines() {
        let Some((hex, name)) = line.trim().split_once(char::is_whitespace) else { continue };
        let name = name.trim_start();
        if name.strip_prefix('*').unwrap_or(name) != asset {
            continue;
        }
        let digest = Digest::parse(hex)?;
        if found.replace(digest).is_some_and(|earlier| earlier != digest) {
            return None;
        }
    }
    found
}

/// Where releases come from: `<base>/v<version>/<asset>`.
#[derive(Debug, Clone, PartialEq)]
pub enum Mirror {
    /// http or https, without a trailing slash.
    Url(String),
    Directory(PathBuf),
}

impl Mirror {
    pub fn github() -> Mirror {
        Mirror::Url("https://github.com/temporalio/cli/releases/download".into())
    }

    /// A URL where there is a scheme, else a directory.
    pub fn parse(text: &OsStr) -> Result<Mirror, &'static str> {
        let url = text.to_str().unwrap_or_default();
        let Some((scheme, rest)) = url.split_once("://") else {
            return if text.is_empty() { Err("it is empty") } else { Ok(Mirror::Directory(text.into())) };
        };
        match scheme.to_ascii_lowercase().as_str() {
            "file" if rest.starts_with('/') => Ok(Mirror::Directory(rest.into())),
            "http" | "https" if rest.is_empty() || rest.starts_with(['/', '?', '#']) => Err("the host is missing"),
            "http" | "https" if url.contains(['?', '#']) || !url.bytes().all(|b| b.is_ascii_graphic()) => {
                Err("a base URL cannot contain a query, a fragment or whitespace")
            }
            "http" | "https" => Ok(Mirror::Url(url.trim_end_matches('/').into())),
            _ => Err("only http, https and directories are supported"),
        }
    }

    /// The URL or file of `path` below this base, to be shown and opened.
    pub fn locate(&self, path: &str) -> Location {
        match self {
            Mirror::Url(base) => Location::Url(format!("{base}/{path}")),
            Mirror::Directory(base) => Location::File(base.join(path)),
        }
    }
}

/// One file on a mirror.
#[derive(Debug, Clone, PartialEq)]
pub enum Location {
    Url(String),
    File(PathBuf),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // A password in a URL is for the server, not for logs.
            Location::Url(url) => f.write_str(&without_credentials(url)),
            Location::File(path) => write!(f, "{}", path.display()),
        }
    }
}

/// The URL without `user:password@`.
pub fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rfind('@') {
        Some(at) => format!("{scheme}://{}", &rest[at + 1..]),
        None => url.into(),
    }
}

/// Where in `text` the `user:password` of a URL stands.
pub fn credentials(text: &[u8]) -> Option<Range<usize>> {
    let begin = text.windows(3).position(|bytes| bytes == b"://")? + 3;
    let host = text[begin..].split(|byte| *byte == b'/').next()?;
    let end = begin + host.iter().rposition(|byte| *byte == b'@')?;
    Some(begin..end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asset(version: &str, platform: Platform) -> Asset {
        Asset { version: Version::parse(version).unwrap(), platform }
    }

    #[test]
    fn credentials_are_found_in_any_argument() {
        let found = |text: &str| credentials(text.as_bytes()).map(|range| text[range].to_owned());
        assert_eq!(found("--mirror=http://ada:s@cret@m.example/x").as_deref(), Some("ada:s@cret"));
        assert_eq!(found("https://token@m.example").as_deref(), Some("token"));
        for text in ["https://m.example/a@b", "ada@m.example", "--port", "://", ""] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn versions_are_strict_and_the_v_is_optional() {
        for good in ["1.9.1", "v1.9.1", "1.10.0-rc.1", "0.0.0"] {
            assert!(Version::parse(good).is_some(), "{good}");
        }
        assert_eq!(Version::parse("v1.9.1"), Version::parse("1.9.1"));
        for bad in
            ["", "v", "1.9", "1.9.1.1", "vv1.9.1", "1.9.x", "1.9.1/..", "1.9.1-", "1.9.1-a..b", "latest", "1. 9.1"]
        {
            assert!(Version::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn only_releases_up_to_the_pinned_one_are_known_to_have_its_schema() {
        let version = |text: &str| Version::parse(text).unwrap();
        let is_known = |one: &str, other: &str| version(one).has_schema_of(&version(other));
        let since = pinned::fact("schema-since").unwrap();
        assert!(is_known(since, pinned::VERSION) && is_known(pinned::VERSION, since));
        assert!(is_known("1.6.2", "1.6.2") && is_known("99.0.0-rc.1", "99.0.0-rc.1"));
        let rc = format!("{}-rc.1", pinned::VERSION);
        for other in ["1.6.2", "0.99.99", "99.0.0", &rc] {
            assert!(!is_known(other, pinned::VERSION) && !is_known(pinned::VERSION, other), "{other}");
        }
    }

    #[test]
    fn platforms_have_the_names_of_temporals_assets() {
        for (os, arch, name) in [
            ("linux", "x86_64", "temporal_cli_1.2.3_linux_amd64.tar.gz"),
            ("linux", "aarch64", "temporal_cli_1.2.3_linux_arm64.tar.gz"),
            ("macos", "x86_64", "temporal_cli_1.2.3_darwin_amd64.tar.gz"),
            ("macos", "aarch64", "temporal_cli_1.2.3_darwin_arm64.tar.gz"),
        ] {
            let asset = asset("1.2.3", Platform::from_rust(os, arch).unwrap());
            assert_eq!(asset.name(), name);
            assert_eq!(asset.path(), format!("v1.2.3/{name}"));
        }
        for (os, arch) in [("freebsd", "x86_64"), ("linux", "riscv64"), ("windows", "x86_64")] {
            let error = Platform::from_rust(os, arch).unwrap_err().to_string();
            assert!(error.contains(os) && error.contains("linux/arm64"), "{error}");
        }
    }

    #[test]
    fn only_the_pinned_version_has_a_pin_and_that_on_every_platform() {
        for (os, arch) in [("linux", "amd64"), ("linux", "arm64"), ("darwin", "amd64"), ("darwin", "arm64")] {
            let pin = |version| asset(version, Platform { os, arch }).pin();
            assert!(pin(pinned::VERSION).is_some_and(|pin| pin.executable_size > 100_000_000), "{os}/{arch}");
            assert_eq!(pin("0.0.1"), None);
            assert_eq!(pin(&format!("{}-rc.1", pinned::VERSION)), None);
        }
        // A digest that is there, but damaged, must not pass for an unknown one.
        let digests = include_str!("pinned.txt").lines().filter(|line| line.contains("/archive "));
        for digest in digests.map(|line| line.split(' ').next_back().unwrap()) {
            assert!(Digest::parse(digest).is_some(), "{digest}");
        }
    }

    #[test]
    fn the_archive_or_the_executable_must_have_its_digest() {
        let digest = |digit: &str| Digest::parse(&digit.repeat(64)).unwrap();
        let (good, other) = (digest("a"), digest("b"));
        let pin = |archive| Pin { archive, executable: good, executable_size: 1 };
        assert_eq!(pin(Some(good)).verify(good, other), Ok(()));
        assert_eq!(pin(Some(other)).verify(digest("c"), good), Ok(()));
        assert_eq!(pin(None).verify(other, good), Ok(()));
        let why = pin(Some(digest("c"))).verify(digest("d"), other).unwrap_err();
        assert!(["a", "b", "c", "d"].iter().all(|digit| why.contains(&digit.repeat(64))), "{why}");
        let why = pin(None).verify(digest("d"), other).unwrap_err();
        assert_eq!(why.matches("expected").count(), 1, "{why}");
    }

    #[test]
    fn checksums_are_found_by_the_whole_name() {
        let (a, b) = ("a".repeat(64), "b".repeat(64));
        let text = format!("{a}  x.tar.gz\r\n{b} *y.tar.gz\nnoise\n\n{b}  xx.tar.gz\n");
        assert_eq!(digest_in_checksums(&text, "x.tar.gz"), Digest::parse(&a));
        assert_eq!(digest_in_checksums(&text, "y.tar.gz"), Digest::parse(&b));
        for missing in ["tar.gz", "z.tar.gz", "", "X.tar.gz"] {
            assert_eq!(digest_in_checksums(&text, missing), None, "{missing}");
        }
        assert_eq!(digest_in_checksums(&format!("{a}  x\n{b}  x\n"), "x"), None);
        assert_eq!(digest_in_checksums("abc  x\n", "x"), None);
    }

    #[test]
    fn mirrors_are_urls_or_directories() {
        let parse = |text: &str| Mirror::parse(OsStr::new(text));
        assert_eq!(parse("https://m.example/r/"), Ok(Mirror::Url("https://m.example/r".into())));
        assert_eq!(parse("/srv/mirror"), Ok(Mirror::Directory("/srv/mirror".into())));
        assert_eq!(parse("file:///srv/mirror"), Ok(Mirror::Directory("/srv/mirror".into())));
        for bad in ["", "ftp://x", "http://", "https:///x", "http://x?y", "http://a b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let location = parse("http://u:p@m.example").unwrap().locate("v1/x");
        assert_eq!(location.to_string(), "http://m.example/v1/x");
    }
}
