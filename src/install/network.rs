//! One HTTP request: proxies, certificates, redirects.
//!
//! Redirects are followed here and not by the HTTP library, so that an error
//! can name the host that failed, every hop finds its own proxy, and none
//! downgrades https to http.

use std::ffi::OsString;
use std::net::{IpAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use ureq::http::{Response, Uri};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, NextTimeout, RustlsConnector};
use ureq::{Agent, Body, Proxy, ProxyProtocol};

use super::connection::{Direct, STALL_TIMEOUT};
use super::failure::Failure;
use crate::certificates;
use crate::cryptography;
use crate::error::{Error, Result, reason};
use crate::release::without_credentials;

/// Over all addresses of a host, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// For the whole head of an answer, `100 Continue`s before it included: a few
/// hundred bytes.
const ANSWER_TIMEOUT: Duration = STALL_TIMEOUT;
const MAX_REDIRECTS: usize = 10;
/// Addresses of one host that are tried.
const MAX_ADDRESSES: usize = 16;
/// What to do where something else than a release answers.
pub const WRONG_ANSWER: &str = "check --mirror, and whether a proxy or a login page answers instead of the server";

/// Proxy and certificate settings, as the environment gives them.
#[derive(Debug, Default)]
pub struct Settings {
    https_proxy: Option<String>,
    http_proxy: Option<String>,
    all_proxy: Option<String>,
    no_proxy: String,
    certificates: Option<PathBuf>,
}

impl Settings {
    pub fn from_environment(variable: &dyn Fn(&str) -> Option<OsString>) -> Settings {
        let text = |name: &str| {
            let value = |name: &str| variable(name)?.into_string().ok().filter(|text| !text.trim().is_empty());
            value(name).or_else(|| value(&name.to_ascii_lowercase()))
        };
        Settings {
            https_proxy: text("HTTPS_PROXY"),
            http_proxy: text("HTTP_PROXY"),
            all_proxy: text("ALL_PROXY"),
            no_proxy: text("NO_PROXY").unwrap_or_default(),
            certificates: certificates::file(variable),
        }
    }

    /// The proxy for a URL, with the variable that names it.
    fn proxy_for(&self, scheme: &str, host: &str) -> Option<(&'static str, &str)> {
        if bypasses_proxy(&self.no_proxy, host) {
            return None;
        }
        let (name, own) = match scheme {
            "https" => ("HTTPS_PROXY", &self.https_proxy),
            _ => ("HTTP_PROXY", &self.http_proxy),
        };
        let own = own.as_deref().map(|proxy| (name, proxy));
        own.or_else(|| Some(("ALL_PROXY", self.all_proxy.as_deref()?)))
    }
}

/// `NO_PROXY`: names, each with everything below it, IP addresses, or `*` for
/// everything.
fn bypasses_proxy(no_proxy: &str, host: &str) -> bool {
    let bare = |text: &str| {
        let inside = text.strip_prefix('[').and_then(|text| text.split_once(']'));
        inside.map_or(text, |(address, _)| address).to_ascii_lowercase()
    };
    let host = bare(host);
    no_proxy.split([',', ' ']).filter(|entry| !entry.is_empty()).any(|entry| {
        let entry = bare(entry);
        let entry = match entry.rsplit_once(':') {
            // host:port, but not an IPv6 address
            Some((name, port)) if !name.contains(':') && port.bytes().all(|b| b.is_ascii_digit()) => name.to_owned(),
            _ => entry,
        };
        let name = entry.trim_start_matches("*.").trim_start_matches('.');
        let same_address = || matches!((host.parse::<IpAddr>(), name.parse::<IpAddr>()), (Ok(a), Ok(b)) if a == b);
        entry == "*"
            || host == name
            || same_address()
            || (!name.is_empty() && host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')))
    })
}

pub struct Client {
    settings: Settings,
    /// Trusts the roots that are built in.
    bundled: Agent,
    /// Trusts those of `SSL_CERT_FILE`; asked when the built-in ones do not
    /// know the server, so that either suffices.
    additional: Option<Agent>,
}

impl Client {
    pub fn new(settings: Settings) -> Result<Client> {
        let additional = match &settings.certificates {
            None => None,
            Some(path) => {
                let read = certificates::read(path)?;
                let certificates: Vec<_> = read.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
                Some(agent(RootCerts::new_with_certs(&certificates)))
            }
        };
        Ok(Client { settings, bundled: agent(RootCerts::WebPki), additional })
    }

    /// GETs `url`, through redirects. The answer may have any other status.
    /// The second value is the host that gave it.
    pub fn get(&self, url: &str, headers: &[(&str, String)]) -> Result<(Response<Body>, String), Failure> {
        let mut uri: Uri = url.parse().map_err(|_| {
            Error::new(format!("'{}' is not a valid URL", without_credentials(url)))
                .hint("check --mirror and STIGMER_TEMPORAL_MIRROR")
        })?;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.get_once(&uri, headers)?;
            let is_redirect = matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
            let location = response.headers().get("location").and_then(|value| value.to_str().ok());
            match location.filter(|_| is_redirect) {
                Some(location) => uri = redirected(&uri, location)?,
                None => return Ok((response, authority(&uri))),
            }
        }
        let last = without_credentials(&uri.to_string());
        Err(Error::new(format!("more than {MAX_REDIRECTS} redirects, the last to {last}")).hint(WRONG_ANSWER).into())
    }

    fn get_once(&self, uri: &Uri, headers: &[(&str, String)]) -> Result<Response<Body>, Failure> {
        let proxy = self.proxy(uri)?;
        let send = |agent: &Agent| {
            let request = headers.iter().fold(agent.get(uri), |request, (name, value)| request.header(*name, value));
            request.config().proxy(proxy.as_ref().map(|(_, proxy)| proxy.clone())).build().call()
        };
        let mut answer = send(&self.bundled);
        if let (Err(error), Some(additional)) = (&answer, &self.additional)
            && is_certificate_error(error)
        {
            answer = send(additional);
        }
        let proxy = proxy.as_ref().map(|(variable, proxy)| (*variable, proxy.host()));
        answer.map_err(|error| failure(&error, &authority(uri), proxy))
    }

    /// The proxy for `uri`, with the variable that names it.
    fn proxy(&self, uri: &Uri) -> Result<Option<(&'static str, Proxy)>> {
        let (scheme, host) = (uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default());
        let Some((variable, address)) = self.settings.proxy_for(scheme, host) else {
            return Ok(None);
        };
        let refused = |why: &str| {
            let shown = without_credentials(address);
            Error::new(format!("cannot use the proxy in {variable}, '{shown}': {why}"))
                .hint(format!("write {variable}=http://[USER:PASSWORD@]HOST:PORT, or unset it"))
        };
        let proxy = Proxy::new(address).map_err(|_| refused("not the URL of a proxy"))?;
        match proxy.protocol() {
            ProxyProtocol::Http | ProxyProtocol::Https => Ok(Some((variable, proxy))),
            _ => Err(refused("only http and https proxies are supported")),
        }
    }
}

fn agent(roots: RootCerts) -> Agent {
    let tls =
        TlsConfig::builder().unversioned_rustls_crypto_provider(cryptography::provider()).root_certs(roots).build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .user_agent(concat!("stigmer/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .timeout_per_write(Some(ANSWER_TIMEOUT))
        // A connection is used once: each resume needs a new one.
        .max_idle_connections(0)
        .tls_config(tls)
        .build();
    let connector = ().chain(ConnectProxyConnector::default()).chain(Direct).chain(RustlsConnector::default());
    Agent::with_parts(config, connector, PlainResolver)
}

/// Resolves in this thread. The library's own resolver starts a thread as soon
/// as a time limit applies; the system's has limits of its own.
#[derive(Debug)]
struct PlainResolver;

impl Resolver for PlainResolver {
    fn resolve(&self, uri: &Uri, _: &ureq::config::Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.host().ok_or(ureq::Error::HostNotFound)?;
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
        let mut addresses = self.empty();
        let found = (bare, port).to_socket_addrs().map_err(|_| ureq::Error::HostNotFound)?;
        found.take(MAX_ADDRESSES).for_each(|address| addresses.push(address));
        (!addresses.is_empty()).then_some(addresses).ok_or(ureq::Error::HostNotFound)
    }
}

fn is_certificate_error(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Rustls(_) => true,
        ureq::Error::Io(error) => error.get_ref().is_some_and(|inner| inner.to_string().contains("certificate")),
        _ => false,
    }
}

/// `why` is rustls's: of a certificate that is not valid now, the clock is
/// suspected first.
fn certificate_hint(why: &str) -> &'static str {
    match ["xpired", "NotValidYet", "not valid yet"].iter().any(|word| why.contains(word)) {
        true => "is the clock of this machine right? date -u",
        false => "if your network inspects TLS, set SSL_CERT_FILE to your company's CA certificate",
    }
}

/// Words a transport error, and decides whether trying again may help.
fn failure(error: &ureq::Error, host: &str, proxy: Option<(&'static str, &str)>) -> Failure {
    let why = match proxy {
        Some((variable, proxy)) => format!("{host} through the proxy {proxy} ({variable}): {}", cause(error)),
        None => format!("{host}: {}", cause(error)),
    };
    if is_certificate_error(error) {
        let hint = certificate_hint(&why);
        return Error::new(why).hint(hint).into();
    }
    match (error, proxy) {
        (ureq::Error::ConnectProxyFailed(_), Some((variable, _))) => {
            Error::new(why).hint(format!("check {variable}, or set NO_PROXY={host}")).into()
        }
        (ureq::Error::BadUri(_), _) => Error::new(why).into(),
        _ => Failure::Passing(why, None),
    }
}

/// The cause in words, without the library's prefixes.
fn cause(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => io_cause(error),
        ureq::Error::HostNotFound => "the name cannot be resolved".into(),
        ureq::Error::Timeout(ureq::Timeout::Connect) => {
            format!("no connection within {} s", CONNECT_TIMEOUT.as_secs())
        }
        ureq::Error::Timeout(_) => format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()),
        ureq::Error::Rustls(error) => error.to_string(),
        ureq::Error::ConnectProxyFailed(why) => format!("the proxy refused: {why}"),
        ureq::Error::BadUri(why) => why.clone(),
        ureq::Error::Protocol(error) => format!("the answer is not valid HTTP: {error}"),
        other => other.to_string(),
    }
}

/// The cause of a failed read of a body.
pub fn io_cause(error: &std::io::Error) -> String {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        Some(inner) => cause(inner),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => "the connection was closed too early".into(),
        None => reason(error),
    }
}

/// host:port as the URL has it, without user and password.
fn authority(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    authority.rsplit('@').next().unwrap_or(authority).to_owned()
}

/// Where `from` redirects to: the web alone, and never from https to http.
fn redirected(from: &Uri, location: &str) -> Result<Uri> {
    let next = join(from, location);
    let what = format!("{} redirects to {}", without_credentials(&from.to_string()), without_credentials(&next));
    let is_web = |uri: &Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
    match next.parse().ok().filter(is_web) {
        None => Err(Error::new(format!("{what}, which is not an http or https URL")).hint(WRONG_ANSWER)),
        Some(uri) if from.scheme_str() == Some("https") && uri.scheme_str() != Some("https") => {
            Err(Error::new(format!("{what}, which downgrades https to http"))
                .hint("something on the way is not to be trusted; use another network, or --mirror"))
        }
        Some(uri) => Ok(uri),
    }
}

/// The URL that `location` means in an answer from `base` (RFC 3986, 5.2, as
/// far as redirects use it).
fn join(base: &Uri, location: &str) -> String {
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = authority(base);
    let location = location.split('#').next().unwrap_or_default();
    let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
    match location {
        url if url.contains("://") => url.into(),
        host if host.starts_with("//") => format!("{scheme}:{host}"),
        path if path.starts_with('/') => format!("{scheme}://{authority}{path}"),
        name => format!("{scheme}://{authority}{directory}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_scheme_has_its_proxy_and_all_proxy_is_for_both() {
        let settings = |pairs: &'static [(&str, &str)]| {
            Settings::from_environment(&|name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
            })
        };
        let proxy = |settings: &Settings, scheme, host| settings.proxy_for(scheme, host).map(|(_, p)| p.to_owned());
        let both = settings(&[("HTTPS_PROXY", "http://s:1"), ("http_proxy", "http://p:2"), ("NO_PROXY", "in.example")]);
        assert_eq!(proxy(&both, "https", "x"), Some("http://s:1".into()));
        assert_eq!(proxy(&both, "http", "x"), Some("http://p:2".into()));
        assert_eq!(proxy(&both, "http", "a.in.example"), None);
        let all = settings(&[("ALL_PROXY", "http://a:3"), ("HTTPS_PROXY", "")]);
        assert_eq!(proxy(&all, "https", "x"), Some("http://a:3".into()));
        assert_eq!(proxy(&settings(&[]), "https", "x"), None);
    }

    #[test]
    fn no_proxy_takes_names_suffixes_addresses_and_ports() {
        for (list, host) in [
            ("*", "x"),
            ("example.com", "example.com"),
            ("example.com", "a.example.com"),
            (".example.com", "a.example.com"),
            ("*.example.com", "a.example.com"),
            ("a, b ,EXAMPLE.com", "example.COM"),
            ("localhost:8080", "localhost"),
            ("127.0.0.1", "127.0.0.1"),
            ("::1", "[::1]"),
            ("[::1]:80", "::1"),
        ] {
            assert!(bypasses_proxy(list, host), "{list} {host}");
        }
        for (list, host) in [("", "x"), ("example.com", "badexample.com"), ("a.example.com", "example.com"), (",", "x")]
        {
            assert!(!bypasses_proxy(list, host), "{list} {host}");
        }
    }

    #[test]
    fn a_certificate_that_is_not_valid_now_casts_suspicion_on_the_clock() {
        use rustls::CertificateError::{Expired, NotValidYet, UnknownIssuer};
        for (cause, word) in [(Expired, "clock"), (NotValidYet, "clock"), (UnknownIssuer, "SSL_CERT_FILE")] {
            let why = rustls::Error::InvalidCertificate(cause).to_string();
            assert!(certificate_hint(&why).contains(word), "{why}");
        }
    }

    #[test]
    fn redirects_are_joined() {
        let base: Uri = "https://h.example:1/a/b?c".parse().unwrap();
        for (location, url) in [
            ("http://x/y", "http://x/y"),
            ("//x/y", "https://x/y"),
            ("/y?z#f", "https://h.example:1/y?z"),
            ("y", "https://h.example:1/a/y"),
        ] {
            assert_eq!(join(&base, location), url);
        }
    }
}
