//! The environment in which a client finds the Temporal that is meant, and no other.
//!
//! Pure: the variables of this process come in, what is to be set and to be
//! taken out comes back. Taken out, never left blank: some SDKs take an empty
//! `TEMPORAL_TLS` or `TEMPORAL_API_KEY` for a wish for TLS.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Command;

/// What names another Temporal, or how to talk to it, and nothing else
/// (Temporal's SDKs; TEMPORAL_ENV and its file: the CLI 1.9.1).
const FOREIGN: [&str; 5] =
    ["TEMPORAL_PROFILE", "TEMPORAL_API_KEY", "TEMPORAL_CLIENT_AUTHORITY", "TEMPORAL_ENV", "TEMPORAL_ENV_FILE"];
/// The older names of the CLI (`TEMPORAL_TLS_CERT`) begin like this as well.
const FOREIGN_PREFIXES: [&str; 3] = ["TEMPORAL_TLS", "TEMPORAL_CODEC_", "TEMPORAL_GRPC_META_"];

/// What is to be done to an environment.
#[derive(Debug, Default, PartialEq)]
pub struct Changes {
    pub set: Vec<(Cow<'static, str>, OsString)>,
    pub unset: Vec<OsString>,
}

/// The variables of a process, as `std::env::vars_os` gives them.
pub type Variables = [(OsString, OsString)];

/// A Temporal that is stigmer's own.
pub struct Local<'a> {
    pub address: &'a str,
    pub namespace: &'a str,
    /// A configuration file for clients that says nothing: with it the default
    /// profile in the user's own does not count.
    pub configuration: &'a Path,
    /// Where the Temporal CLI is.
    pub programs: &'a Path,
}

/// For a client of a Temporal of ours: only what says so counts.
pub fn of_local(local: &Local<'_>, variables: &Variables) -> Changes {
    let mut changes = of_external(local.address, local.namespace);
    changes.set.push(("TEMPORAL_CONFIG_FILE".into(), local.configuration.into()));
    changes.set.extend(with_programs(local.programs, variables).map(|path| ("PATH".into(), path)));
    changes.unset = foreign(variables).collect();
    changes
}

/// For a client of somebody else's: all that the user says about it stays.
pub fn of_external(address: &str, namespace: &str) -> Changes {
    let set = [("TEMPORAL_ADDRESS", address), ("TEMPORAL_SERVICE_ADDRESS", address), ("TEMPORAL_NAMESPACE", namespace)];
    Changes { set: set.map(|(name, value)| (name.into(), value.into())).into(), unset: Vec::new() }
}

/// The variables that are there and speak of another Temporal.
pub fn foreign(variables: &Variables) -> impl Iterator<Item = OsString> {
    let is_foreign = |name: &OsStr| {
        FOREIGN.iter().any(|foreign| name == *foreign)
            || FOREIGN_PREFIXES.iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
    };
    variables.iter().map(|(name, _)| name).filter(move |name| is_foreign(name)).cloned()
}

/// PATH with `programs` at its end, so that what the user has comes first. None
/// where it is there already, and where no PATH is set: a new one would hide
/// what is found without.
fn with_programs(programs: &Path, variables: &Variables) -> Option<OsString> {
    let path = value("PATH", variables).filter(|path| !path.is_empty())?;
    let mut directories: Vec<_> = std::env::split_paths(path).collect();
    if directories.iter().any(|directory| directory == programs) {
        return None;
    }
    directories.push(programs.into());
    // No PATH can name a directory with a colon.
    std::env::join_paths(directories).ok()
}

fn value<'a>(name: &str, variables: &'a Variables) -> Option<&'a OsStr> {
    variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_os_str())
}

impl Changes {
    pub fn apply_to(&self, command: &mut Command) {
        for (name, value) in &self.set {
            command.env(name.as_ref(), value);
        }
        for name in &self.unset {
            command.env_remove(name);
        }
    }

    /// Lines for `eval` in a POSIX shell.
    pub fn for_sh(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        for (name, value) in &self.set {
            lines.extend_from_slice(format!("export {name}='").as_bytes());
            append_replacing(&mut lines, value, |byte| (byte == b'\'').then_some(&br"'\''"[..]));
            lines.extend_from_slice(b"'\n");
        }
        for name in self.nameable() {
            lines.extend_from_slice(format!("unset {name}\n").as_bytes());
        }
        lines
    }

    /// Lines for `eval`, or `source`, in fish. Its `eval` joins lines, so each
    /// has its end, and none has a newline inside.
    pub fn for_fish(&self) -> Vec<u8> {
        let mut lines = Vec::new();
        let special = |byte| match byte {
            b'\'' => Some(&br"\'"[..]),
            b'\\' => Some(&br"\\"[..]),
            b'\n' => Some(&br"'\n'"[..]),
            _ => None,
        };
        for (name, value) in &self.set {
            lines.extend_from_slice(format!("set -gx {name} '").as_bytes());
            append_replacing(&mut lines, value, special);
            lines.extend_from_slice(b"';\n");
        }
        for name in self.nameable() {
            // A universal one is the user's for good: only hidden here.
            let line = format!("set -eg {name}; set -qU {name}; and set -gu {name};\n");
            lines.extend_from_slice(line.as_bytes());
        }
        lines
    }

    /// What a shell can unset. Any other name would be code to it, and no
    /// shell has such a variable.
    fn nameable(&self) -> impl Iterator<Item = &str> {
        let is_name = |name: &&str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        self.unset.iter().filter_map(|name| name.to_str()).filter(is_name)
    }
}

fn append_replacing<'r>(lines: &mut Vec<u8>, value: &OsStr, replacement: impl Fn(u8) -> Option<&'r [u8]>) {
    for &byte in value.as_bytes() {
        match replacement(byte) {
            Some(text) => lines.extend_from_slice(text),
            None => lines.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(words: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        words.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    fn local(words: &[(&str, &str)]) -> Changes {
        let local = Local {
            address: "127.0.0.1:7300",
            namespace: "orders",
            configuration: "/h/run/client.toml".as_ref(),
            programs: "/h/bin".as_ref(),
        };
        of_local(&local, &variables(words))
    }

    fn set<'a>(changes: &'a Changes, name: &str) -> Option<&'a str> {
        let mut values = changes.set.iter().filter(|(key, _)| *key == name).map(|(_, value)| value.to_str().unwrap());
        let value = values.next();
        assert_eq!(values.next(), None, "{name} is set twice");
        value
    }

    #[test]
    fn everything_of_another_temporal_is_taken_out_and_nothing_else() {
        let foreign = [
            "TEMPORAL_PROFILE",
            "TEMPORAL_API_KEY",
            "TEMPORAL_CLIENT_AUTHORITY",
            "TEMPORAL_TLS",
            "TEMPORAL_TLS_CLIENT_CERT_PATH",
            "TEMPORAL_TLS_CLIENT_CERT_DATA",
            "TEMPORAL_TLS_SERVER_NAME",
            "TEMPORAL_TLS_DISABLE_HOST_VERIFICATION",
            "TEMPORAL_TLS_CERT",
            "TEMPORAL_TLS_KEY_DATA",
            "TEMPORAL_TLS_CA",
            "TEMPORAL_CODEC_ENDPOINT",
            "TEMPORAL_CODEC_AUTH",
            "TEMPORAL_GRPC_META_X_TENANT",
            "TEMPORAL_ENV",
            "TEMPORAL_ENV_FILE",
        ];
        let kept =
            ["TEMPORAL_ADDRESS", "TEMPORAL_NAMESPACE", "TEMPORAL_CONFIG_FILE", "TEMPORAL_DEBUG", "MY_TEMPORAL_TLS"];
        let all: Vec<_> = foreign.iter().chain(&kept).map(|name| (*name, "x")).collect();
        let changes = local(&all);
        assert_eq!(changes.unset, foreign.map(OsString::from));
        assert!(changes.set.iter().all(|(_, value)| !value.is_empty()), "{changes:?}");
        // With nothing there, nothing is taken out.
        assert_eq!(local(&[]).unset, [""; 0].map(OsString::from));
    }

    #[test]
    fn address_namespace_and_configuration_are_set() {
        let changes = local(&[("TEMPORAL_ADDRESS", "prod.example:7233"), ("TEMPORAL_NAMESPACE", "prod")]);
        assert_eq!(set(&changes, "TEMPORAL_ADDRESS"), Some("127.0.0.1:7300"));
        assert_eq!(set(&changes, "TEMPORAL_SERVICE_ADDRESS"), Some("127.0.0.1:7300"));
        assert_eq!(set(&changes, "TEMPORAL_NAMESPACE"), Some("orders"));
        assert_eq!(set(&changes, "TEMPORAL_CONFIG_FILE"), Some("/h/run/client.toml"));
        let external = of_external("t.example:7233", "orders");
        assert_eq!((set(&external, "TEMPORAL_CONFIG_FILE"), external.unset.len()), (None, 0));
    }

    #[test]
    fn the_directory_of_the_cli_comes_last_and_once() {
        let path = |path: &str| set(&local(&[("PATH", path)]), "PATH").map(str::to_owned);
        assert_eq!(path("/usr/bin:/bin").as_deref(), Some("/usr/bin:/bin:/h/bin"));
        assert_eq!(path("/h/bin:/bin"), None);
        assert_eq!((path(""), set(&local(&[]), "PATH")), (None, None));
    }

    #[test]
    fn lines_for_shells_quote_every_value_and_name_only_names() {
        let changes = Changes {
            set: vec![("A".into(), "it's $HOME `x` \\ \"y\"\n".into())],
            unset: vec!["TEMPORAL_TLS".into(), "TEMPORAL_TLS;rm -r ~".into(), "TEMPORAL_TLS\u{e9}".into()],
        };
        let text = |lines: Vec<u8>| String::from_utf8(lines).unwrap();
        assert_eq!(text(changes.for_sh()), "export A='it'\\''s $HOME `x` \\ \"y\"\n'\nunset TEMPORAL_TLS\n");
        assert_eq!(
            text(changes.for_fish()),
            "set -gx A 'it\\'s $HOME `x` \\\\ \"y\"'\\n'';\n\
             set -eg TEMPORAL_TLS; set -qU TEMPORAL_TLS; and set -gu TEMPORAL_TLS;\n"
        );
    }
}
