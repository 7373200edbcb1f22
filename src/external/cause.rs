//! Why an external Temporal cannot be used: one sentence for each cause, and
//! the setting to change.

use rustls::{AlertDescription, CertificateError, Error as TlsError};

use crate::clock::utc;
use crate::config::{API_KEY, Connection, Encryption, Source};
use crate::error::reason;
use crate::grpc::{Fault, Reply};

/// Of what a stranger writes no more is shown.
const MAX_TEXT: usize = 200;
const CREDENTIALS: &str = "set TEMPORAL_API_KEY, or give a client certificate with --tls-cert-path and --tls-key-path";

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub why: String,
    /// None: nothing but the address is to be checked.
    pub hint: Option<String>,
}

impl Cause {
    pub fn new(why: impl Into<String>) -> Cause {
        Cause { why: why.into(), hint: None }
    }

    pub fn hint(self, hint: impl Into<String>) -> Cause {
        Cause { hint: Some(hint.into()), ..self }
    }
}

/// Why a conversation in cleartext came to nothing.
pub fn of_cleartext(fault: &Fault, connection: &Connection) -> Cause {
    let forbidden = match &connection.encryption {
        Encryption::Never(by) => Some(by),
        _ => None,
    };
    let closed = "it closed the connection without a word";
    match (fault, forbidden) {
        (Fault::NotHttp2(bytes), _) if bytes.starts_with(b"HTTP/") => web_server(),
        // An alert, or a handshake.
        (Fault::NotHttp2(bytes), Some(by)) if matches!(bytes[..], [21 | 22, 3, ..]) => {
            Cause::new(format!("it wants TLS, which {by}=false forbids")).hint(format!("unset {by}"))
        }
        (Fault::Closed, Some(by)) => {
            Cause::new(format!("{closed}; perhaps it wants TLS, which {by}=false forbids")).hint(format!("unset {by}"))
        }
        (Fault::NotHttp2(_), _) => Cause::new("what answers there does not speak gRPC"),
        (Fault::Closed, None) => Cause::new(closed),
        _ => of_any(fault),
    }
}

/// Why one over TLS did.
pub fn of_tls(fault: &Fault, connection: &Connection) -> Cause {
    if let Fault::Io(error) = fault
        && let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>())
    {
        return of_tls_error(error, connection);
    }
    match fault {
        Fault::NotHttp2(_) => Cause::new("it speaks TLS, but not HTTP/2 in it"),
        Fault::Closed => no_tls(connection, "it closed the connection when TLS began; perhaps it speaks none"),
        _ => of_any(fault),
    }
}

fn of_any(fault: &Fault) -> Cause {
    match fault {
        Fault::Silent => Cause::new("it takes connections and does not answer"),
        Fault::Io(error) => Cause::new(reason(error)),
        _ => Cause::new("it ends the call without an answer, against the rules of HTTP/2"),
    }
}

/// What to say where TLS meets something else; `None` would do no better.
fn no_tls(connection: &Connection, why: &str) -> Cause {
    match &connection.encryption {
        Encryption::Always(_, Source::Variable(API_KEY)) => Cause::new(format!("{why}, and {API_KEY} demands TLS"))
            .hint(format!("a key never goes over cleartext: check the address, or unset {API_KEY}")),
        Encryption::Always(_, by) => Cause::new(format!("{why}, and {by} demands TLS"))
            .hint(format!("check the address, or leave out {by} and other settings of TLS")),
        _ => Cause::new(why),
    }
}

/// Whether the other side proved to speak no TLS at all.
pub fn is_no_tls(fault: &Fault) -> bool {
    match fault {
        Fault::Io(error) => matches!(
            error.get_ref().and_then(|inner| inner.downcast_ref()),
            Some(TlsError::InvalidMessage(_) | TlsError::InappropriateMessage { .. })
        ),
        Fault::Closed | Fault::Silent => true,
        _ => false,
    }
}

fn of_tls_error(error: &TlsError, connection: &Connection) -> Cause {
    match error {
        TlsError::InvalidCertificate(error) => of_certificate(error, connection),
        TlsError::AlertReceived(alert) => of_alert(*alert, connection),
        TlsError::InvalidMessage(_) => no_tls(connection, "it does not speak TLS"),
        TlsError::PeerIncompatible(_) => Cause::new("the newest TLS that it offers is older than 1.2"),
        TlsError::NoApplicationProtocol => no_http2(),
        other => Cause::new(format!("TLS failed: {other}")),
    }
}

pub fn no_http2() -> Cause {
    Cause::new("it speaks TLS, but does not offer HTTP/2 (ALPN h2)")
        .hint("where a proxy stands before Temporal, let it offer h2")
}

fn of_certificate(error: &CertificateError, connection: &Connection) -> Cause {
    let tls = match &connection.encryption {
        Encryption::Always(tls, _) => Some(tls),
        _ => None,
    };
    match error {
        // The latter where an authority of the same name has another key.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            match tls.and_then(|tls| tls.authority.as_ref()) {
                Some(given) => Cause::new(format!("its certificate is not from an authority in {}", given.source))
                    .hint("give the certificate of the authority that signed it"),
                None => Cause::new("its certificate is from an authority that is not known here")
                    .hint("name the file of that authority's certificate with --tls-ca-path or SSL_CERT_FILE"),
            }
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names: Vec<_> = presented.iter().map(|name| bare_name(name)).collect();
            let names = if names.is_empty() { "no name".into() } else { names.join(", ") };
            Cause::new(format!("its certificate is for {}, not for {}", cleaned(&names), expected.to_str()))
                .hint("if this is the right server, give the name in its certificate with --tls-server-name")
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            Cause::new(format!("its certificate expired at {}", utc(not_after.as_secs())))
                .hint("renew it there; or is this machine's clock wrong?")
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            Cause::new(format!("its certificate is not valid before {}", utc(not_before.as_secs())))
                .hint("is this machine's clock right?")
        }
        // What `openssl req -x509` makes: an authority that is its own server.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            Cause::new("its certificate is that of an authority, not of a server")
                .hint("make it one of a server (basicConstraints=CA:FALSE), signed by that authority")
        }
        other => Cause::new(format!("its certificate is not valid: {other}")),
    }
}

/// `DnsName("a.example")`, as the library writes it, without the wrapping.
fn bare_name(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')')).unwrap_or(name);
    inside.trim_matches('"')
}

fn of_alert(alert: AlertDescription, connection: &Connection) -> Cause {
    use AlertDescription as Alert;
    let identity = match &connection.encryption {
        Encryption::Always(tls, _) => tls.client.as_ref(),
        _ => None,
    };
    match (alert, identity) {
        (Alert::ProtocolVersion, _) => Cause::new("the newest TLS that it offers is older than 1.2"),
        (Alert::NoApplicationProtocol, _) => no_http2(),
        (Alert::UnrecognisedName, _) => Cause::new("it does not know the name that it was asked for")
            .hint("give the name that it knows with --tls-server-name"),
        (Alert::CertificateRequired | Alert::HandshakeFailure | Alert::BadCertificate, None) => {
            Cause::new("it demands a client certificate")
                .hint("give one with --tls-cert-path FILE and --tls-key-path FILE")
        }
        (alert, Some(identity)) => {
            Cause::new(format!("it refuses the client certificate of {} ({alert:?})", identity.certificate.source))
                .hint("is it from an authority that the server trusts, and not expired?")
        }
        (alert, None) => Cause::new(format!("it refuses TLS with the alert {alert:?}")),
    }
}

fn web_server() -> Cause {
    Cause::new("a web server answers there, not a Temporal frontend").hint("is it the port of gRPC, such as 7233?")
}

/// Why a reply of HTTP is not one of gRPC; None where it is.
pub fn of_http(reply: &Reply, connection: &Connection) -> Option<Cause> {
    Some(match (reply.http, reply.code) {
        (200, Some(_)) => return None,
        (200, None) => web_server(),
        (401, _) => refused(connection, "HTTP 401"),
        (403, _) => forbidden(connection, "HTTP 403"),
        (404, _) => Cause::new("a web server answers there, and knows no Temporal (HTTP 404)")
            .hint("check the address, and the proxy if there is one"),
        (status @ 502..=504, _) => {
            Cause::new(format!("a proxy answers there, but reaches no Temporal (HTTP {status})"))
                .hint("start Temporal behind the proxy, or correct the proxy's address of it")
        }
        (status, _) => Cause::new(format!("it answers with HTTP {status}, not with gRPC")),
    })
}

/// UNAUTHENTICATED, or its like.
pub fn refused(connection: &Connection, answer: &str) -> Cause {
    match connection.key {
        Some(key) => Cause::new(format!("it refuses the key in {key} ({answer})"))
            .hint(format!("check that {key} is whole, not expired, and for this server")),
        None => Cause::new(format!("it demands credentials ({answer})")).hint(CREDENTIALS),
    }
}

/// PERMISSION_DENIED, or its like.
pub fn forbidden(connection: &Connection, answer: &str) -> Cause {
    match connection.has_credentials() {
        true => Cause::new(format!("it does not allow this with these credentials ({answer})"))
            .hint("check that they are for this server and namespace"),
        false => Cause::new(format!("it allows nothing without credentials ({answer})")).hint(CREDENTIALS),
    }
}

/// The status of gRPC in words, and what the server says about it.
pub fn status(reply: &Reply, connection: &Connection) -> String {
    let names = "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED \
                 RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE \
                 DATA_LOSS UNAUTHENTICATED";
    let code = reply.code.unwrap_or_default();
    let name = names.split_whitespace().nth(code as usize).map_or(format!("status {code}"), str::to_owned);
    // A server may repeat what it was sent.
    let mut text = reply.text.clone();
    for (_, secret) in &connection.metadata {
        // `Bearer` and its like say nothing, what stands behind them does.
        let last = secret.reveal().rsplit(' ').next().unwrap_or_default();
        text = text.replace(secret.reveal(), "***").replace(last, "***");
    }
    match text.is_empty() {
        true => name,
        false => format!("{name}: {}", cleaned(&text)),
    }
}

/// A stranger's text on one line, without what a terminal would obey.
fn cleaned(text: &str) -> String {
    let shown = text.chars().map(|character| if character.is_control() { ' ' } else { character });
    shown.take(MAX_TEXT).collect::<String>().trim().to_owned()
}
