//! What is meant: options and environment decided into one value.
//!
//! One rule for every setting, flag > environment variable > default, and each
//! setting knows where it came from. Pure: the environment comes in as a
//! function, so that the whole is tested as a table.

mod connection;
pub mod namespaces;

pub use connection::{API_KEY, Connection, Encryption, METADATA, Pem, Tls};

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use self::namespaces::{Namespaces, SearchAttribute, parse_namespace, parse_retention, parse_search_attribute};
use crate::cli::{self, OptionSpec, Options};
use crate::error::{Error, Result};
use crate::pinned;
use crate::release::{Mirror, Version, without_credentials};

/// For an address without a port.
const DEFAULT_PORT: &str = cli::PORT.default.unwrap();
const MAX_READY_TIMEOUT: u64 = 86_400;
/// Bytes of a name (RFC 1035, 2.3.4).
const MAX_HOST: usize = 253;

/// What `start` and `run` are to do.
#[derive(Debug)]
pub enum Config {
    Managed(Managed),
    External(External),
}

/// A Temporal that we install, start and supervise.
#[derive(Debug)]
pub struct Managed {
    pub ip: Setting<IpAddr>,
    pub port: Setting<Port>,
    /// None: `--temporal-arg --headless` turned it off.
    pub ui: Option<Ui>,
    pub database: DatabaseChoice,
    /// Those that `--temporal-arg --sqlite-pragma` sets, `name=value` each.
    pub pragmas: Vec<OsString>,
    pub version: Setting<Version>,
    /// None: the one that we install.
    pub executable: Setting<Option<PathBuf>>,
    pub mirror: Setting<Mirror>,
    pub offline: Setting<bool>,
    pub namespaces: Namespaces,
    /// Those that `--temporal-arg --namespace` names.
    pub namespace_args: Vec<OsString>,
    pub temporal_args: Vec<OsString>,
    pub ready_timeout: Setting<Duration>,
}

/// Where the Web UI listens.
#[derive(Debug)]
pub struct Ui {
    pub ip: IpAddr,
    pub port: Setting<Port>,
}

/// A port as it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    Number(u16),
    /// Whichever is free when the server starts.
    Free,
}

/// Where Temporal keeps its workflows.
#[derive(Debug, PartialEq, Eq)]
pub enum DatabaseChoice {
    /// In the home.
    Home,
    /// In a file that `--temporal-arg --db-filename` names.
    At(PathBuf),
    /// Nowhere: they are gone with the server.
    InMemory,
}

/// A Temporal that somebody else runs.
#[derive(Debug)]
pub struct External {
    pub connection: Connection,
    /// Flags that were given, and mean nothing here.
    pub ignored: Vec<&'static str>,
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting<T> {
    pub value: T,
    pub source: Source,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Flag(&'static str),
    Variable(&'static str),
    Default,
}

impl Source {
    /// Whether somebody asked for it.
    pub fn is_explicit(self) -> bool {
        self != Source::Default
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(long) => write!(f, "--{long}"),
            Source::Variable(name) => f.write_str(name),
            Source::Default => f.write_str("the default"),
        }
    }
}

/// Where programs on this machine reach what binds to `ip`.
pub fn local(ip: IpAddr, port: u16) -> SocketAddr {
    let ip = match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, port)
}

/// Where a browser finds the Web UI that listens at `address`.
pub fn ui_url(address: SocketAddr) -> String {
    // The UI of a server on IPv6 loopback is not on the IPv4 one that
    // `localhost` may mean.
    match local(address.ip(), address.port()) {
        address if address.ip() == Ipv4Addr::LOCALHOST => format!("http://localhost:{}", address.port()),
        address => format!("http://{address}"),
    }
}

/// host:port as people and SDKs write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Decides every setting of `start` and `run`. `metadata_names` are those of
/// the variables that begin with `METADATA`. `directory` is where the options
/// were typed; the daemon leaves it, so every path is made absolute.
pub fn resolve(
    options: &Options,
    variable: &dyn Fn(&str) -> Option<OsString>,
    metadata_names: &[String],
    directory: &Path,
) -> Result<Config> {
    let resolver = Resolver { options, variable, metadata_names, directory };
    match resolver.typed(&cli::TEMPORAL_HOST) {
        Some(typed) => resolver.external(&typed).map(Config::External),
        None => resolver.managed().map(Config::Managed),
    }
}

/// What the environment alone says about a Temporal of ours, even where it
/// names another to be used.
pub fn resolve_managed(variable: &dyn Fn(&str) -> Option<OsString>, directory: &Path) -> Result<Managed> {
    Resolver { options: &Options::default(), variable, metadata_names: &[], directory }.managed()
}

/// The same as `resolve` for `run --ephemeral`: always a Temporal of ours, in
/// memory. Its ports are those that were typed, or free ones: the variables
/// name the ports of the home's lasting Temporal, beside which it runs.
pub fn resolve_ephemeral(
    options: &Options,
    variable: &dyn Fn(&str) -> Option<OsString>,
    directory: &Path,
) -> Result<Managed> {
    if options.has(&cli::TEMPORAL_HOST) {
        let text = format!("--ephemeral cannot go with --{}: no Temporal is started there", cli::TEMPORAL_HOST.long);
        return Err(Error::usage(text).hint("leave out one of them"));
    }
    let mut options = options.clone();
    for option in [&cli::PORT, &cli::UI_PORT] {
        if !options.has(option) {
            options.push(option, "0");
        }
    }
    let config = Resolver { options: &options, variable, metadata_names: &[], directory }.managed()?;
    match config.database {
        DatabaseChoice::At(path) => {
            let text = format!("cannot use the database {}: --ephemeral keeps nothing", path.display());
            Err(Error::usage(text).hint("leave out --ephemeral or --db-filename"))
        }
        _ => Ok(Managed { database: DatabaseChoice::InMemory, ..config }),
    }
}

impl Setting<OsString> {
    fn parse<T>(self, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Setting<T>> {
        let parsed = self.value.to_str().ok_or_else(|| "valid UTF-8".into()).and_then(parse);
        match parsed {
            Ok(value) => Ok(Setting { value, source: self.source }),
            Err(wanted) => Err(Error::usage(format!("{} takes {wanted}, not '{}'", self.source, self.value.display()))),
        }
    }
}

struct Resolver<'a> {
    options: &'a Options,
    variable: &'a dyn Fn(&str) -> Option<OsString>,
    metadata_names: &'a [String],
    directory: &'a Path,
}

impl Resolver<'_> {
    fn managed(&self) -> Result<Managed> {
        // Their variables are often there for other programs, and mean nothing here.
        if let Some(option) = cli::EXTERNAL_OPTIONS.iter().find(|option| self.options.has(option)) {
            return Err(Error::usage(format!("--{} is for an external Temporal, and none is given", option.long))
                .hint(format!("add --{} HOST[:PORT], or leave it out", cli::TEMPORAL_HOST.long)));
        }
        let version = |text: &str| Version::parse(text).ok_or_else(|| format!("a version such as {}", pinned::VERSION));
        let ip = self.setting(&cli::IP, ip_address)?;
        let port = self.setting(&cli::PORT, port_or_free)?;
        let temporal_args = self.temporal_args()?;
        Ok(Managed {
            ui: self.ui(ip.value, port.value, &temporal_args)?,
            database: self.database(&temporal_args),
            pragmas: owned(arguments(&temporal_args, &["--sqlite-pragma"])),
            namespace_args: owned(arguments(&temporal_args, &["--namespace", "-n"])),
            version: self.setting(&cli::TEMPORAL_VERSION, version)?,
            executable: self.executable()?,
            mirror: self.mirror()?,
            offline: self.setting(&cli::OFFLINE, yes_or_no)?,
            namespaces: Namespaces {
                names: self.namespaces()?,
                search_attributes: self.search_attributes()?,
                retention: self.setting(&cli::RETENTION, parse_retention)?,
            },
            ready_timeout: self.setting(&cli::READY_TIMEOUT, seconds)?,
            ip,
            port,
            temporal_args,
        })
    }

    fn ui(&self, ip: IpAddr, port: Port, temporal_args: &[OsString]) -> Result<Option<Ui>> {
        let chosen = self.typed(&cli::UI_PORT).map(|typed| typed.parse(port_or_free)).transpose()?;
        if is_headless(temporal_args) {
            return Ok(None);
        }
        let ui_port = match chosen {
            Some(chosen) => chosen,
            None => Setting { value: port_above(port)?, source: Source::Default },
        };
        if let Port::Number(number) = port
            && ui_port.value == port
        {
            return Err(Error::usage(format!("port {number} cannot serve both gRPC and the Web UI"))
                .hint("choose two with --port and --ui-port"));
        }
        let ip = arguments(temporal_args, &["--ui-ip"]).last().and_then(|ip| ip.to_str()?.parse().ok()).unwrap_or(ip);
        Ok(Some(Ui { ip, port: ui_port }))
    }

    fn database(&self, temporal_args: &[OsString]) -> DatabaseChoice {
        match arguments(temporal_args, &["--db-filename", "-f"]).last() {
            None => DatabaseChoice::Home,
            Some(path) if path.is_empty() || *path == ":memory:" => DatabaseChoice::InMemory,
            Some(path) => DatabaseChoice::At(self.directory.join(path)),
        }
    }

    fn external(&self, typed: &Setting<OsString>) -> Result<External> {
        let of_both = [cli::TEMPORAL_HOST.long, cli::NAMESPACE.long];
        let managed_only = cli::SERVER_OPTIONS.iter().filter(|option| !of_both.contains(&option.long));
        let given = managed_only.filter(|option| self.options.value(option).is_some());
        let ignored: Vec<_> = given.map(|option| option.long).collect();
        if let (Source::Flag(host), [first, ..]) = (typed.source, ignored.as_slice()) {
            return Err(Error::usage(format!("--{first} cannot be used with --{host}, which starts no Temporal"))
                .hint(format!("leave one of them out; --{first} is for a Temporal that stigmer starts")));
        }
        let address = parse_address(typed.value.to_str().unwrap_or("\u{fffd}")).map_err(|why| {
            let shown = without_credentials(&typed.value.to_string_lossy());
            Error::usage(format!("{} cannot be '{shown}': {}", typed.source, why.what)).hint(why.hint)
        })?;
        let connection = self.connection(Setting { value: address, source: typed.source })?;
        Ok(External { connection, ignored })
    }

    /// All that were typed, or the one of the variable; each once.
    fn namespaces(&self) -> Result<Setting<Vec<String>>> {
        let first = self.typed(&cli::NAMESPACE).unwrap_or_else(|| default_of(&cli::NAMESPACE));
        let source = first.source;
        let typed = match source {
            Source::Flag(_) => self.options.values(&cli::NAMESPACE).map(OsString::from).collect(),
            _ => vec![first.value],
        };
        let mut names = Vec::new();
        for value in typed {
            let name = Setting { value, source }.parse(parse_namespace)?.value;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        Ok(Setting { value: names, source })
    }

    fn search_attributes(&self) -> Result<Vec<SearchAttribute>> {
        let mut attributes: Vec<SearchAttribute> = Vec::new();
        for typed in self.options.values(&cli::SEARCH_ATTRIBUTE) {
            let source = Source::Flag(cli::SEARCH_ATTRIBUTE.long);
            let attribute = Setting { value: typed.into(), source }.parse(parse_search_attribute)?.value;
            match attributes.iter().find(|other| other.name == attribute.name) {
                Some(other) if *other != attribute => {
                    return Err(Error::usage(format!("a search attribute cannot be both {other} and {attribute}"))
                        .hint("leave out one of them"));
                }
                Some(_) => {}
                None => attributes.push(attribute),
            }
        }
        Ok(attributes)
    }

    /// Flag > environment variable; an empty variable counts as unset.
    fn typed(&self, option: &OptionSpec) -> Option<Setting<OsString>> {
        if let Some(value) = self.options.value(option) {
            return Some(Setting { value: value.into(), source: Source::Flag(option.long) });
        }
        let name = option.variable?;
        let value = (self.variable)(name).filter(|value| !value.is_empty())?;
        Some(Setting { value, source: Source::Variable(name) })
    }

    /// The option's value, or its default, which is parsed just the same.
    fn setting<T>(&self, option: &OptionSpec, parse: impl FnOnce(&str) -> Result<T, String>) -> Result<Setting<T>> {
        self.typed(option).unwrap_or_else(|| default_of(option)).parse(parse)
    }

    fn executable(&self) -> Result<Setting<Option<PathBuf>>> {
        match self.typed(&cli::TEMPORAL_BIN) {
            None => Ok(Setting { value: None, source: Source::Default }),
            Some(Setting { value, source }) if value.is_empty() => {
                Err(Error::usage(format!("{source} takes the path of a file, not ''")))
            }
            Some(Setting { value, source }) => Ok(Setting { value: Some(self.directory.join(value)), source }),
        }
    }

    fn mirror(&self) -> Result<Setting<Mirror>> {
        let Some(Setting { value, source }) = self.typed(&cli::MIRROR) else {
            return Ok(Setting { value: Mirror::github(), source: Source::Default });
        };
        let mirror = Mirror::parse(&value).map_err(|why| {
            let shown = without_credentials(&value.to_string_lossy());
            Error::usage(format!("{source} cannot be '{shown}': {why}"))
                .hint("give the URL (http or https) or the directory that holds vX.Y.Z/temporal_cli_X.Y.Z_...tar.gz")
        })?;
        Ok(Setting {
            value: match mirror {
                Mirror::Directory(path) => Mirror::Directory(self.directory.join(path)),
                url => url,
            },
            source,
        })
    }

    /// They are passed on as they are, except those that would move Temporal
    /// to where nobody looks for it.
    fn temporal_args(&self) -> Result<Vec<OsString>> {
        let arguments: Vec<OsString> = self.options.values(&cli::TEMPORAL_ARG).map(OsString::from).collect();
        for argument in &arguments {
            let name = argument.as_bytes().split(|&byte| byte == b'=').next().unwrap_or_default();
            let own = match name {
                b"--port" => cli::PORT.long,
                b"--ip" => cli::IP.long,
                b"--ui-port" => cli::UI_PORT.long,
                [b'-', b'p', ..] => cli::PORT.long,
                _ => continue,
            };
            let text = format!("--{} cannot be {}", cli::TEMPORAL_ARG.long, argument.display());
            return Err(Error::usage(text).hint(format!("use --{own} of stigmer itself")));
        }
        Ok(arguments)
    }
}

/// Every value of a flag, as Temporal's parser (pflag) reads it: in the next
/// argument, after a `=`, or, for a short flag, attached.
fn arguments<'a>(arguments: &'a [OsString], names: &[&str]) -> Vec<&'a OsStr> {
    let mut arguments = arguments.iter().map(|argument| argument.as_bytes());
    let mut found = Vec::new();
    while let Some(argument) = arguments.next() {
        for name in names {
            match argument.strip_prefix(name.as_bytes()) {
                Some([]) => found.extend(arguments.next()),
                Some([b'=', value @ ..]) => found.push(value),
                Some(value) if name.len() == 2 => found.push(value),
                _ => continue,
            }
        }
    }
    found.into_iter().map(OsStr::from_bytes).collect()
}

fn owned(values: Vec<&OsStr>) -> Vec<OsString> {
    values.into_iter().map(OsString::from).collect()
}

/// In the words that Temporal takes (Go's strconv.ParseBool).
fn is_headless(arguments: &[OsString]) -> bool {
    let of_argument = |argument: &OsString| match argument.to_str()?.strip_prefix("--headless")? {
        "" | "=1" | "=t" | "=T" | "=true" | "=TRUE" | "=True" => Some(true),
        "=0" | "=f" | "=F" | "=false" | "=FALSE" | "=False" => Some(false),
        _ => None,
    };
    arguments.iter().filter_map(of_argument).next_back().unwrap_or(false)
}

/// The Web UI's port where nobody chose one, by the rule in the table.
fn port_above(port: Port) -> Result<Port> {
    let Port::Number(port) = port else { return Ok(Port::Free) };
    let offset = cli::UI_PORT.default.and_then(|rule| rule.strip_prefix("port + ")).unwrap_or_default();
    offset.parse().ok().and_then(|offset| port.checked_add(offset)).map(Port::Number).ok_or_else(|| {
        Error::usage(format!("no port is left for the Web UI: {port} + {offset} is above 65535"))
            .hint("choose one with --ui-port, for example --ui-port 8233")
    })
}

fn default_of(option: &OptionSpec) -> Setting<OsString> {
    Setting { value: option.default.unwrap_or_default().into(), source: Source::Default }
}

/// Empty, as the default of a switch, is no.
fn yes_or_no(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "" | "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("1 or 0".into()),
    }
}

fn port_number(text: &str) -> Result<u16, String> {
    let port = number(text).and_then(|number| u16::try_from(number).ok());
    port.filter(|port| *port > 0).ok_or_else(|| "a port from 1 to 65535, such as 7234".into())
}

/// Of digits alone.
fn number(text: &str) -> Option<u64> {
    text.parse().ok().filter(|_| !text.starts_with('+'))
}

fn port_or_free(text: &str) -> Result<Port, String> {
    match text {
        "0" => Ok(Port::Free),
        text => port_number(text).map(Port::Number).map_err(|wanted| format!("{wanted}, or 0 for a free one")),
    }
}

fn ip_address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| "an IP address such as 127.0.0.1".into())
}

fn seconds(text: &str) -> Result<Duration, String> {
    let count = number(text).filter(|count| (1..=MAX_READY_TIMEOUT).contains(count));
    let wanted = || format!("a number of seconds from 1 to {MAX_READY_TIMEOUT}, such as 60");
    count.map(Duration::from_secs).ok_or_else(wanted)
}

/// Why a text is not an address, and the text that was probably meant.
#[derive(Debug, PartialEq)]
pub struct BadAddress {
    pub what: String,
    pub hint: String,
}

/// `host`, `host:port`, `[IPv6]` or `[IPv6]:port`; names stay as they are.
pub fn parse_address(text: &str) -> Result<Address, BadAddress> {
    if let Some((_, rest)) = text.split_once("://") {
        return Err(BadAddress::url(rest));
    }
    let is_odd = |character: char| character.is_whitespace() || character.is_control();
    if text.contains(is_odd) {
        let stripped = text.replace(is_odd, "");
        let hint = parse_address(&stripped).map_or(example(), |_| format!("write {stripped}"));
        return Err(BadAddress::new("it contains white space", hint));
    }
    if text.parse::<Ipv6Addr>().is_ok() {
        return Err(BadAddress::new("an IPv6 address needs brackets", format!("write [{text}]:{DEFAULT_PORT}")));
    }
    let (host, port) = split_port(text)?;
    if host.is_empty() {
        return Err(BadAddress::new("the host is missing", example()));
    }
    if let Some(wrong) = host.chars().find(|&c| "/\\?#@[]<>\"'`{}|^%,;=&$!*()\u{fffd}".contains(c)) {
        return Err(BadAddress::new(format!("a host cannot contain '{wrong}'"), example()));
    }
    if host.len() > MAX_HOST {
        return Err(BadAddress::new(format!("the host is longer than {MAX_HOST} bytes"), example()));
    }
    let port = port_number(port.unwrap_or(DEFAULT_PORT)).map_err(|_| {
        let hint = format!("write {host}:{DEFAULT_PORT}");
        BadAddress::new("the port must be a number from 1 to 65535", hint)
    })?;
    Ok(Address { host: host.into(), port })
}

/// The host without its brackets, and what follows the colon.
fn split_port(text: &str) -> Result<(&str, Option<&str>), BadAddress> {
    let Some(rest) = text.strip_prefix('[') else {
        return Ok(text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))));
    };
    let bad = |what| Err(BadAddress::new(what, format!("write [::1]:{DEFAULT_PORT}")));
    let Some((host, rest)) = rest.split_once(']') else {
        return bad("the bracket is not closed");
    };
    if host.parse::<Ipv6Addr>().is_err() {
        return bad("what stands in the brackets is not an IPv6 address");
    }
    match rest.strip_prefix(':') {
        Some(port) => Ok((host, Some(port))),
        None if rest.is_empty() => Ok((host, None)),
        None => Err(BadAddress::new("only a colon and a port may follow the bracket", example())),
    }
}

fn example() -> String {
    "write HOST or HOST:PORT, for example temporal.example.com:7233".into()
}

impl BadAddress {
    fn new(what: impl Into<String>, hint: String) -> BadAddress {
        BadAddress { what: what.into(), hint }
    }

    /// `rest` is what follows the scheme.
    fn url(rest: &str) -> BadAddress {
        let authority = rest.split(['/', '?', '#']).next().unwrap_or("");
        let bare = authority.rsplit('@').next().unwrap_or(authority);
        let hint = parse_address(bare).map_or(example(), |address| format!("give the address alone: {address}"));
        BadAddress::new("it is a URL, not an address", hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was typed.
    fn typed(words: &[(&'static OptionSpec, &str)]) -> Options {
        let mut options = Options::default();
        words.iter().for_each(|(option, value)| options.push(option, *value));
        options
    }

    fn resolve_with(options: Options, environment: &[(&str, &str)]) -> Result<Config> {
        let variable = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
        let names: Vec<String> = environment.iter().map(|(name, _)| (*name).to_owned()).collect();
        let names: Vec<String> = names.into_iter().filter(|name| name.starts_with(METADATA)).collect();
        resolve(&options, &variable, &names, Path::new("/where/typed"))
    }

    fn managed(options: Options, environment: &[(&str, &str)]) -> Managed {
        match resolve_with(options, environment).unwrap() {
            Config::Managed(managed) => managed,
            Config::External(external) => panic!("{external:?}"),
        }
    }

    #[test]
    fn nothing_given_means_the_defaults() {
        let config = managed(Options::default(), &[]);
        assert_eq!(config.port, Setting { value: Port::Number(7233), source: Source::Default });
        assert_eq!(config.ip.value.to_string(), "127.0.0.1");
        assert_eq!(config.database, DatabaseChoice::Home);
        assert_eq!(config.ui.unwrap().port.value, Port::Number(8233));
        assert_eq!(config.version.value.to_string(), pinned::VERSION);
        assert_eq!(config.mirror.value, Mirror::github());
        assert!(!config.offline.value && config.executable.value.is_none());
        assert_eq!(config.ready_timeout.value, Duration::from_secs(30));
    }

    #[test]
    fn a_flag_wins_over_its_variable_and_an_empty_variable_is_unset() {
        let flag = || typed(&[(&cli::PORT, "7200"), (&cli::PORT, "7300")]);
        let variable = [("STIGMER_TEMPORAL_PORT", "7400")];
        let empty = [("STIGMER_TEMPORAL_PORT", "")];
        let port = |options, environment: &[(&str, &str)]| managed(options, environment).port;
        assert_eq!(port(flag(), &variable), Setting { value: Port::Number(7300), source: Source::Flag("port") });
        let from_variable = Setting { value: Port::Number(7400), source: Source::Variable("STIGMER_TEMPORAL_PORT") };
        assert_eq!(port(Options::default(), &variable), from_variable);
        assert_eq!(port(Options::default(), &empty).source, Source::Default);
        assert_eq!(managed(Options::default(), &variable).ui.unwrap().port.value, Port::Number(8400));
    }

    #[test]
    fn every_variable_is_read() {
        let config = managed(
            Options::default(),
            &[
                ("STIGMER_TEMPORAL_PORT", "1"),
                ("STIGMER_TEMPORAL_UI_PORT", "2"),
                ("STIGMER_TEMPORAL_IP", "0.0.0.0"),
                ("STIGMER_TEMPORAL_VERSION", "v1.8.3"),
                ("STIGMER_TEMPORAL_BIN", "/opt/temporal"),
                ("STIGMER_TEMPORAL_MIRROR", "https://mirror.example/releases/"),
                ("STIGMER_OFFLINE", "1"),
                ("STIGMER_READY_TIMEOUT", "7"),
                ("TEMPORAL_NAMESPACE", "orders"),
                ("STIGMER_RETENTION", "36h"),
            ],
        );
        assert_eq!(config.namespaces.names.value, ["orders"]);
        assert_eq!(config.namespaces.retention.value, Duration::from_secs(36 * 3600));
        assert_eq!((config.port.value, config.ui.unwrap().port.value), (Port::Number(1), Port::Number(2)));
        assert_eq!(local(config.ip.value, 1).to_string(), "127.0.0.1:1");
        assert_eq!(config.version.value.to_string(), "1.8.3");
        assert_eq!(config.executable.value.unwrap(), PathBuf::from("/opt/temporal"));
        assert!(config.offline.value);
        assert_eq!(config.ready_timeout.value, Duration::from_secs(7));
        assert_eq!(config.mirror.source, Source::Variable("STIGMER_TEMPORAL_MIRROR"));
    }

    #[test]
    fn a_wrong_value_is_a_usage_error_that_names_its_source() {
        for (variable, value) in [
            ("STIGMER_TEMPORAL_PORT", "00"),
            ("STIGMER_TEMPORAL_PORT", "65536"),
            ("STIGMER_TEMPORAL_PORT", "+7233"),
            ("STIGMER_TEMPORAL_IP", "localhost"),
            ("STIGMER_TEMPORAL_VERSION", "latest"),
            ("STIGMER_TEMPORAL_VERSION", "../../x"),
            ("STIGMER_TEMPORAL_MIRROR", "ftp://x"),
            ("STIGMER_OFFLINE", "maybe"),
            ("STIGMER_READY_TIMEOUT", "0"),
            ("STIGMER_READY_TIMEOUT", "soon"),
            ("STIGMER_RETENTION", "30"),
            ("TEMPORAL_NAMESPACE", "two words"),
            ("TEMPORAL_SERVICE_ADDRESS", "http://x:1"),
        ] {
            let error = resolve_with(Options::default(), &[(variable, value)]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{variable}={value}");
            assert!(error.message().contains(variable), "{variable}={value}: {error}");
        }
    }

    #[test]
    fn two_ports_that_cannot_be_are_a_usage_error_that_names_the_options() {
        for (variable, value, words) in [
            ("STIGMER_TEMPORAL_PORT", "64600", "64600 + 1000"),
            ("STIGMER_TEMPORAL_UI_PORT", "7233", "7233 cannot serve both"),
        ] {
            let error = resolve_with(Options::default(), &[(variable, value)]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{variable}={value}");
            assert!(error.message().contains(words) && error.to_string().contains("--ui-port"), "{error}");
            assert!(managed(typed(&[(&cli::TEMPORAL_ARG, "--headless")]), &[(variable, value)]).ui.is_none());
        }
    }

    #[test]
    fn an_external_address_takes_precedence_and_excludes_flags_of_the_managed_server() {
        let (host, port) = ((&cli::TEMPORAL_HOST, "a.example"), (&cli::PORT, "7300"));
        let environment = [("TEMPORAL_SERVICE_ADDRESS", "b.example:1")];
        let external = |options, environment: &[(&str, &str)]| match resolve_with(options, environment) {
            Ok(Config::External(external)) => external,
            other => panic!("{other:?}"),
        };
        assert_eq!(external(typed(&[host]), &environment).connection.address.value.to_string(), "a.example:7233");
        let ignoring = external(typed(&[port]), &environment);
        assert_eq!(ignoring.connection.address.source, Source::Variable("TEMPORAL_SERVICE_ADDRESS"));
        assert_eq!(ignoring.ignored, ["port"]);
        assert_eq!(resolve_with(typed(&[host, port]), &[]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn namespaces_and_attributes_are_all_taken_each_once_and_the_flag_wins() {
        let words = [
            (&cli::NAMESPACE, "orders"),
            (&cli::NAMESPACE, "billing"),
            (&cli::NAMESPACE, "orders"),
            (&cli::SEARCH_ATTRIBUTE, "A=int"),
            (&cli::SEARCH_ATTRIBUTE, "A=Int"),
        ];
        let namespaces = managed(typed(&words), &[("TEMPORAL_NAMESPACE", "other")]).namespaces;
        assert_eq!(namespaces.names.value, ["orders", "billing"]);
        assert_eq!((namespaces.first(), namespaces.search_attributes.len()), ("orders", 1));
        let conflict = typed(&[(&cli::SEARCH_ATTRIBUTE, "A=Int"), (&cli::SEARCH_ATTRIBUTE, "A=Text")]);
        let error = resolve_with(conflict, &[]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.message().contains("A=Int and A=Text"), "{error}");
    }

    #[test]
    fn nothing_is_asked_for_where_temporal_itself_sees_to_it() {
        let asks =
            |environment: &[(&str, &str)]| managed(Options::default(), environment).namespaces.ask_for_something();
        assert!(!asks(&[]) && !asks(&[("TEMPORAL_NAMESPACE", "default")]));
        assert!(asks(&[("TEMPORAL_NAMESPACE", "orders")]) && asks(&[("STIGMER_RETENTION", "7d")]));
    }

    #[test]
    fn a_namespace_goes_with_an_external_temporal() {
        let options = typed(&[(&cli::TEMPORAL_HOST, "a.example"), (&cli::NAMESPACE, "orders")]);
        let Ok(Config::External(external)) = resolve_with(options, &[]) else { panic!() };
        assert_eq!(external.connection.namespaces.value, ["orders"]);
        let retention = typed(&[(&cli::TEMPORAL_HOST, "a.example"), (&cli::RETENTION, "7d")]);
        assert_eq!(resolve_with(retention, &[]).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn good_addresses_are_taken() {
        for (text, host, port) in [
            ("localhost", "localhost", 7233),
            ("temporal.example.com:443", "temporal.example.com", 443),
            ("10.1.2.3", "10.1.2.3", 7233),
            ("[::1]", "::1", 7233),
            ("[fe80::1]:65535", "fe80::1", 65535),
            ("bücher.example:1", "bücher.example", 1),
            ("my_service", "my_service", 7233),
        ] {
            assert_eq!(parse_address(text), Ok(Address { host: host.into(), port }), "{text}");
        }
    }

    #[test]
    fn bad_addresses_are_refused_with_what_was_meant() {
        for (text, hint) in [
            ("", "HOST"),
            (":7233", "HOST"),
            ("::1", "[::1]:7233"),
            ("[::1", "[::1]:7233"),
            ("[::1]7233", "HOST"),
            ("[host]:1", "[::1]:7233"),
            ("host:0", "host:7233"),
            ("host:65536", "host:7233"),
            ("host:", "host:7233"),
            ("host:1:2", "host:7233"),
            ("host:grpc", "host:7233"),
            (" host:1", "host:1"),
            ("host :1", "host:1"),
            ("https://t.example:7233/namespaces", "t.example:7233"),
            ("http://user:pw@t.example", "t.example:7233"),
            ("t.example/x", "HOST"),
            ("user@host", "HOST"),
        ] {
            let bad = parse_address(text).unwrap_err();
            assert!(bad.hint.contains(hint), "{text}: {bad:?}");
        }
    }

    #[test]
    fn arguments_for_temporal_that_matter_to_us_are_seen() {
        let options = |arguments: &[&str]| {
            typed(&arguments.iter().map(|argument| (&cli::TEMPORAL_ARG, *argument)).collect::<Vec<_>>())
        };
        let with = |arguments: &[&str]| managed(options(arguments), &[]);
        let url = |arguments: &[&str]| with(arguments).ui.map(|ui| ui_url((ui.ip, 8233).into()));
        assert_eq!(url(&["--headless"]), None);
        assert_eq!(url(&["--headless=1"]), None);
        assert_eq!(url(&["--headless", "--headless=false"]).unwrap(), "http://localhost:8233");
        assert_eq!(url(&["--ui-ip", "192.0.2.1"]).unwrap(), "http://192.0.2.1:8233");
        assert_eq!(url(&["--ui-ip=::"]).unwrap(), "http://[::1]:8233");
        let at = |path: &str| DatabaseChoice::At(path.into());
        for (arguments, database) in [
            (&["--db-filename", "/x"][..], at("/x")),
            (&["--db-filename=/y", "-f", "/z"], at("/z")),
            (&["-f/a"], at("/a")),
            (&["-f=b"], at("/where/typed/b")),
            (&["-f", "/x", "--db-filename="], DatabaseChoice::InMemory),
            (&["--db-filename", ":memory:"], DatabaseChoice::InMemory),
            (&["--log-level", "--pprof", "--ports", "--db-filenames=/x"], DatabaseChoice::Home),
        ] {
            assert_eq!(with(arguments).database, database, "{arguments:?}");
        }
        let config = with(&["--sqlite-pragma", "a=1", "--x", "--sqlite-pragma=b=2", "--sqlite-pragmas=c=3"]);
        assert_eq!(config.pragmas, ["a=1", "b=2"]);
        for argument in ["--port", "--port=1", "--ip", "--ui-port=2", "-p", "-p7300"] {
            let error = resolve_with(options(&["--log-level", argument]), &[]).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{argument}");
        }
    }

    #[test]
    fn port_0_takes_a_free_one_and_the_ui_follows() {
        let ports = |words: &[(&'static OptionSpec, &str)]| {
            let config = managed(typed(words), &[]);
            (config.port.value, config.ui.unwrap().port.value)
        };
        assert_eq!(ports(&[(&cli::PORT, "0")]), (Port::Free, Port::Free));
        assert_eq!(ports(&[(&cli::UI_PORT, "0")]), (Port::Number(7233), Port::Free));
        assert_eq!(ports(&[(&cli::PORT, "0"), (&cli::UI_PORT, "8300")]), (Port::Free, Port::Number(8300)));
    }

    #[test]
    fn an_ephemeral_temporal_is_ours_in_memory_and_on_free_ports_or_those_typed() {
        let resolve = |options, environment: &[(&str, &str)]| {
            let variable = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into());
            resolve_ephemeral(&options, &variable, Path::new("/"))
        };
        let lasting = [("STIGMER_TEMPORAL_PORT", "7300"), ("TEMPORAL_SERVICE_ADDRESS", "prod.example:7233")];
        let config = resolve(Options::default(), &lasting).unwrap();
        assert_eq!((config.port.value, config.ui.unwrap().port.value), (Port::Free, Port::Free));
        assert_eq!(config.database, DatabaseChoice::InMemory);
        let config = resolve(typed(&[(&cli::PORT, "7400")]), &lasting).unwrap();
        assert_eq!((config.port.value, config.ui.unwrap().port.value), (Port::Number(7400), Port::Free));
        for (option, value) in [(&cli::TEMPORAL_HOST, "t.example"), (&cli::TEMPORAL_ARG, "--db-filename=/x")] {
            assert_eq!(resolve(typed(&[(option, value)]), &[]).unwrap_err().exit_code(), 2);
        }
    }

    #[test]
    fn paths_are_meant_from_where_they_were_typed() {
        let config = managed(typed(&[(&cli::TEMPORAL_BIN, "t"), (&cli::MIRROR, "m")]), &[]);
        assert_eq!(config.executable.value.unwrap(), Path::new("/where/typed/t"));
        assert_eq!(config.mirror.value, Mirror::Directory("/where/typed/m".into()));
    }
}
