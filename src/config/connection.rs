//! How an external Temporal is reached: address, namespace, encryption and
//! credentials, by the names and rules of Temporal's own clients.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::{Address, Resolver, Setting, Source};
use crate::cli::{self, OptionSpec};
use crate::error::{Error, Result};

pub const API_KEY: &str = "TEMPORAL_API_KEY";
/// Behind it stands the name of a metadata field.
pub const METADATA: &str = "TEMPORAL_GRPC_META_";
const AUTHORITY_DATA: &str = "TEMPORAL_TLS_SERVER_CA_CERT_DATA";
const CERTIFICATE_DATA: &str = "TEMPORAL_TLS_CLIENT_CERT_DATA";
const KEY_DATA: &str = "TEMPORAL_TLS_CLIENT_KEY_DATA";

/// What `start`, `run` and the daemon share.
#[derive(Debug)]
pub struct Connection {
    pub address: Setting<Address>,
    /// Never empty; the first is the one that clients are told.
    pub namespaces: Setting<Vec<String>>,
    pub encryption: Encryption,
    /// Sent with every call; the API key is `authorization`.
    pub metadata: Metadata,
    /// What brought `authorization`.
    pub key: Option<Source>,
}

pub type Metadata = Vec<(String, Secret)>;

#[derive(Debug)]
pub enum Encryption {
    /// As this demands.
    Never(Source),
    /// Cleartext, or TLS where the other side wants it.
    FindOut,
    Always(Tls, Source),
}

/// How TLS is spoken; by default with the built-in authorities.
#[derive(Debug, Default)]
pub struct Tls {
    /// Trusted instead of the built-in ones.
    pub authority: Option<Setting<Pem>>,
    pub client: Option<Identity>,
    /// Expected and sent instead of the host of the address.
    pub server_name: Option<Setting<String>>,
    /// What turned verification off.
    pub unverified: Option<Source>,
}

#[derive(Debug)]
pub struct Identity {
    pub certificate: Setting<Pem>,
    pub key: Setting<Pem>,
}

/// Where PEM text comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Pem {
    File(PathBuf),
    Text(Secret),
}

/// A text that nobody may see: no output, log, state or panic.
#[derive(Clone, PartialEq)]
pub struct Secret(String);

impl Secret {
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl Connection {
    /// The one that clients are told.
    pub fn namespace(&self) -> &str {
        self.namespaces.value.first().map_or("", String::as_str)
    }

    /// What a client needs in its environment to reach the same, besides address
    /// and namespace, and the secrets, which it has; `is_encrypted` is what was found. None: it must
    /// not be there.
    pub fn variables(&self, is_encrypted: bool) -> Vec<(&'static str, Option<OsString>)> {
        let mut all = Vec::new();
        if is_encrypted {
            all.push((cli::TLS.variable, Some("true".into())));
        }
        if let Encryption::Always(tls, _) = &self.encryption {
            let identity = |part: fn(&Identity) -> &Setting<Pem>| tls.client.as_ref().map(part);
            for (option, data, pem) in [
                (&cli::TLS_CA_PATH, AUTHORITY_DATA, tls.authority.as_ref()),
                (&cli::TLS_CERT_PATH, CERTIFICATE_DATA, identity(|identity| &identity.certificate)),
                (&cli::TLS_KEY_PATH, KEY_DATA, identity(|identity| &identity.key)),
            ] {
                if let Some(Setting { value: Pem::File(path), .. }) = pem {
                    all.extend([(option.variable, Some(path.clone().into())), (Some(data), None)]);
                }
            }
            let name = tls.server_name.as_ref().map(|name| name.value.clone().into());
            all.extend(name.map(|name| (cli::TLS_SERVER_NAME.variable, Some(name))));
            all.extend(tls.unverified.map(|_| (cli::TLS_UNVERIFIED.variable, Some("true".into()))));
        }
        all.into_iter().filter_map(|(name, value)| Some((name?, value))).collect()
    }

    /// Whether anything is sent that says who asks.
    pub fn has_credentials(&self) -> bool {
        self.key.is_some() || matches!(&self.encryption, Encryption::Always(Tls { client: Some(_), .. }, _))
    }
}

impl Resolver<'_> {
    pub(super) fn connection(&self, address: Setting<Address>) -> Result<Connection> {
        let namespaces = self.namespaces()?;
        let (metadata, key) = self.metadata()?;
        let encryption = self.encryption(key)?;
        if let (Some(key @ Source::Variable(API_KEY)), Encryption::Never(by)) = (key, &encryption) {
            return Err(Error::usage(format!("{key} cannot go over cleartext, which {by}=false demands"))
                .hint(format!("unset one of them: {key} is for servers that speak TLS")));
        }
        Ok(Connection { address, namespaces, encryption, metadata, key })
    }

    fn encryption(&self, key: Option<Source>) -> Result<Encryption> {
        let (tls, setting) = self.tls()?;
        let api_key = key.filter(|key| *key == Source::Variable(API_KEY));
        Ok(match (self.truth(&cli::TLS)?, setting.or(api_key)) {
            (Some((false, by)), _) => Encryption::Never(by),
            (Some((true, by)), _) | (None, Some(by)) => Encryption::Always(tls, by),
            (None, None) => Encryption::FindOut,
        })
    }

    /// The settings of TLS, and one that was given.
    fn tls(&self) -> Result<(Tls, Option<Source>)> {
        let authority = self.pem(&cli::TLS_CA_PATH, AUTHORITY_DATA)?;
        let certificate = self.pem(&cli::TLS_CERT_PATH, CERTIFICATE_DATA)?;
        let key = self.pem(&cli::TLS_KEY_PATH, KEY_DATA)?;
        let is_name = |text: &str| super::parse_address(text).is_ok_and(|address| address.host == text);
        let server_name = self.text(&cli::TLS_SERVER_NAME, "a host name, without a port", is_name)?;
        let unverified = self.truth(&cli::TLS_UNVERIFIED)?.and_then(|(is_so, by)| is_so.then_some(by));
        let first = [&authority, &certificate, &key].into_iter().flatten().map(|pem| pem.source).next();
        let setting = first.or(server_name.as_ref().map(|name| name.source)).or(unverified);
        let client = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(Identity { certificate, key }),
            (None, None) => None,
            (Some(given), None) => return Err(half(given.source, "certificate", "key", &cli::TLS_KEY_PATH)),
            (None, Some(given)) => return Err(half(given.source, "key", "certificate", &cli::TLS_CERT_PATH)),
        };
        Ok((Tls { authority, client, server_name, unverified }, setting))
    }

    fn text(&self, option: &OptionSpec, wanted: &str, is_right: fn(&str) -> bool) -> Result<Option<Setting<String>>> {
        let Some(Setting { value, source }) = self.typed(option) else { return Ok(None) };
        match value.into_string() {
            Ok(value) if is_right(&value) => Ok(Some(Setting { value, source })),
            Ok(value) => Err(Error::usage(format!("{source} takes {wanted}, not '{value}'"))),
            Err(value) => Err(Error::usage(format!("{source} takes {wanted}, not '{}'", value.display()))),
        }
    }

    /// As Temporal's own clients read it.
    fn truth(&self, option: &OptionSpec) -> Result<Option<(bool, Source)>> {
        let is_right = |text: &str| ["1", "0", "true", "false"].iter().any(|word| text.eq_ignore_ascii_case(word));
        let text = self.text(option, "true or false", is_right)?;
        Ok(text.map(|text| (text.value == "1" || text.value.eq_ignore_ascii_case("true"), text.source)))
    }

    /// A file, or the text itself in the variable `data`.
    fn pem(&self, option: &OptionSpec, data: &'static str) -> Result<Option<Setting<Pem>>> {
        let text = (self.variable)(data).filter(|text| !text.is_empty());
        match (self.typed(option), text) {
            (None, None) => Ok(None),
            (Some(Setting { source: source @ Source::Variable(_), .. }), Some(_)) => {
                Err(Error::usage(format!("{source} and {data} are both set")).hint("unset one of them"))
            }
            (Some(Setting { value, source }), _) => {
                Ok(Some(Setting { value: Pem::File(self.directory.join(value)), source }))
            }
            (None, Some(text)) => {
                let text = text.into_string().map_err(|_| Error::usage(format!("{data} is not text")))?;
                Ok(Some(Setting { value: Pem::Text(Secret(text)), source: Source::Variable(data) }))
            }
        }
    }

    /// The metadata of every call, and what brought `authorization`.
    fn metadata(&self) -> Result<(Metadata, Option<Source>)> {
        let mut metadata = Vec::new();
        for name in self.metadata_names {
            if let Some(value) = self.header(name)? {
                let field = name[METADATA.len()..].to_ascii_lowercase().replace('_', "-");
                metadata.push((field, value));
            }
        }
        let is_authorized = metadata.iter().any(|(name, _)| name == "authorization");
        Ok(match self.header(API_KEY)? {
            // As the SDKs do: what is written out wins.
            _ if is_authorized => (metadata, Some(Source::Variable("TEMPORAL_GRPC_META_AUTHORIZATION"))),
            None => (metadata, None),
            Some(key) => {
                metadata.push(("authorization".into(), Secret(format!("Bearer {}", key.reveal()))));
                (metadata, Some(Source::Variable(API_KEY)))
            }
        })
    }

    /// A variable whose value a header can carry. The value is never shown.
    fn header(&self, name: &str) -> Result<Option<Secret>> {
        let Some(value) = (self.variable)(name).filter(|value| !value.is_empty()) else { return Ok(None) };
        match value.into_string() {
            Ok(text) if text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) => Ok(Some(Secret(text))),
            _ => Err(Error::usage(format!("{name} holds a character that no header can carry"))
                .hint("is a line break at its end?")),
        }
    }
}

fn half(given: Source, what: &str, missing: &str, option: &OptionSpec) -> Error {
    let variable = option.variable.unwrap_or_default();
    Error::usage(format!("{given} gives a client {what}, but its {missing} is missing"))
        .hint(format!("give both: --{} or {variable}", option.long))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Options;
    use crate::config::{Config, resolve};
    use std::path::Path;

    fn connection(flags: &[(&'static OptionSpec, &str)], variables: &[(&str, &str)]) -> Result<Connection> {
        let mut options = Options::default();
        options.push(&cli::TEMPORAL_HOST, "t.example");
        flags.iter().for_each(|(option, value)| options.push(option, *value));
        let variable = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let names = variables.iter().map(|(name, _)| (*name).to_owned());
        let names: Vec<String> = names.filter(|name| name.starts_with(METADATA)).collect();
        match resolve(&options, &variable, &names, Path::new("/typed"))? {
            Config::External(external) => Ok(external.connection),
            Config::Managed(managed) => panic!("{managed:?}"),
        }
    }

    /// What turned TLS on or off; None where it is to be found out.
    fn encryption(flags: &[(&'static OptionSpec, &str)], variables: &[(&str, &str)]) -> Option<(bool, Source)> {
        match connection(flags, variables).unwrap().encryption {
            Encryption::Never(by) => Some((false, by)),
            Encryption::FindOut => None,
            Encryption::Always(_, by) => Some((true, by)),
        }
    }

    #[test]
    fn tls_is_on_by_any_setting_of_it_and_off_by_one_word() {
        let variable = |is_on, name| Some((is_on, Source::Variable(name)));
        for (name, value, expected) in [
            ("TEMPORAL_TLS", "", None),
            ("TEMPORAL_TLS", "TRUE", variable(true, "TEMPORAL_TLS")),
            ("TEMPORAL_TLS", "0", variable(false, "TEMPORAL_TLS")),
            ("TEMPORAL_API_KEY", "k", variable(true, API_KEY)),
            ("TEMPORAL_TLS_SERVER_CA_CERT_DATA", "pem", variable(true, AUTHORITY_DATA)),
            ("TEMPORAL_TLS_SERVER_NAME", "x", variable(true, "TEMPORAL_TLS_SERVER_NAME")),
            ("TEMPORAL_TLS_DISABLE_HOST_VERIFICATION", "true", variable(true, cli::TLS_UNVERIFIED.variable.unwrap())),
            ("TEMPORAL_TLS_DISABLE_HOST_VERIFICATION", "false", None),
            ("TEMPORAL_GRPC_META_AUTHORIZATION", "k", None),
        ] {
            assert_eq!(encryption(&[], &[(name, value)]), expected, "{name}={value}");
        }
        let off = ("TEMPORAL_TLS", "false");
        let settings = [off, ("TEMPORAL_TLS_SERVER_NAME", "x")];
        assert_eq!(encryption(&[], &settings), variable(false, "TEMPORAL_TLS"));
        assert_eq!(encryption(&[(&cli::TLS_CA_PATH, "ca")], &[off]), variable(false, "TEMPORAL_TLS"));
        // A flag wins over its own variable.
        assert_eq!(encryption(&[(&cli::TLS, "1")], &[off]), Some((true, Source::Flag("tls"))));
    }

    #[test]
    fn a_flag_wins_over_both_variables_and_paths_are_from_where_they_were_typed() {
        let data = ("TEMPORAL_TLS_SERVER_CA_CERT_DATA", "pem");
        let found =
            connection(&[(&cli::TLS_CA_PATH, "ca")], &[data, ("TEMPORAL_TLS_SERVER_CA_CERT_PATH", "x")]).unwrap();
        let Encryption::Always(tls, _) = &found.encryption else { panic!("{found:?}") };
        let expected = Setting { value: Pem::File("/typed/ca".into()), source: Source::Flag("tls-ca-path") };
        assert_eq!(tls.authority, Some(expected));
        let variables = found.variables(true);
        assert!(variables.contains(&("TEMPORAL_TLS_SERVER_CA_CERT_PATH", Some("/typed/ca".into()))), "{variables:?}");
        assert!(variables.contains(&("TEMPORAL_TLS_SERVER_CA_CERT_DATA", None)), "{variables:?}");
    }

    #[test]
    fn metadata_has_the_names_of_its_variables_and_what_is_written_out_wins() {
        let key = ("TEMPORAL_API_KEY", "k");
        let own = ("TEMPORAL_GRPC_META_AUTHORIZATION", "Basic x");
        let sent = |variables: &[(&str, &str)]| {
            let metadata = connection(&[], variables).unwrap().metadata.into_iter();
            metadata.map(|(name, value)| format!("{name}: {}", value.reveal())).collect::<Vec<_>>()
        };
        assert_eq!(sent(&[key]), ["authorization: Bearer k"]);
        assert_eq!(sent(&[key, own]), ["authorization: Basic x"]);
        assert_eq!(sent(&[("TEMPORAL_GRPC_META_X_A", "1"), ("TEMPORAL_GRPC_META_B", "")]), ["x-a: 1"]);
    }

    #[test]
    fn a_secret_is_not_even_in_what_a_panic_would_show() {
        let data = [("TEMPORAL_TLS_CLIENT_CERT_DATA", "sesame"), ("TEMPORAL_TLS_CLIENT_KEY_DATA", "sesame")];
        let all = [&data[..], &[("TEMPORAL_API_KEY", "sesame"), ("TEMPORAL_GRPC_META_A", "sesame")]].concat();
        let shown = format!("{:?}", connection(&[], &all).unwrap());
        assert!(!shown.contains("sesame") && shown.contains("[secret]"), "{shown}");
    }
}
