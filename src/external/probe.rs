//! What an external Temporal answers: asked step by step, as a client of it
//! would, until it is certain that one can work with it.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use std::{io, iter};

use super::cause::{self, Cause};
use super::tls::{self, Encrypted};
use crate::config::{Address, Connection, Encryption, Tls};
use crate::grpc::proto::{self, Message};
use crate::grpc::{Client, Fault, Patience, Reply, Request};
use crate::health;

const SYSTEM_INFO: &str = "/temporal.api.workflowservice.v1.WorkflowService/GetSystemInfo";
const DESCRIBE_NAMESPACE: &str = "/temporal.api.workflowservice.v1.WorkflowService/DescribeNamespace";

/// Statuses of gRPC.
const OK: u32 = 0;
const INVALID_ARGUMENT: u32 = 3;
const NOT_FOUND: u32 = 5;
const PERMISSION_DENIED: u32 = 7;
const UNIMPLEMENTED: u32 = 12;
const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// One that serves.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Found {
    /// The version of TLS; None over cleartext.
    pub tls: Option<&'static str>,
    /// The version of the server, where it gives one.
    pub server: Option<String>,
    /// The namespaces that may be there or not, because this client may not
    /// ask, each with what the server says.
    pub forbidden: Vec<(String, String)>,
}

#[derive(Debug)]
pub enum Failure {
    /// No connection, for this cause.
    Unreachable(String),
    /// It answers, and does not serve yet.
    NotServing,
    Unusable(Cause),
    Interrupted,
}

impl Failure {
    fn of(fault: &Fault, explain: impl FnOnce(&Fault) -> Cause) -> Failure {
        match fault {
            Fault::Interrupted => Failure::Interrupted,
            fault => Failure::Unusable(explain(fault)),
        }
    }
}

impl From<Cause> for Failure {
    fn from(cause: Cause) -> Failure {
        Failure::Unusable(cause)
    }
}

pub struct Probe<'a> {
    pub connection: &'a Connection,
    /// Authorities beside the built-in ones.
    pub additional: Option<PathBuf>,
}

impl Probe<'_> {
    /// Asks the addresses of the name, one after the other, until one serves.
    pub fn ask(&self, patience: Patience<'_>) -> Result<Found, Failure> {
        let addresses = resolve(&self.connection.address.value).map_err(Cause::new)?;
        let (mut unreachable, mut worst) = (Vec::new(), None);
        for (index, address) in addresses.iter().enumerate() {
            // What is left is shared among those not asked yet.
            let share = part(patience, (addresses.len() - index) as u32);
            match self.ask_one(*address, share) {
                Err(Failure::Unreachable(why)) => unreachable.push(format!("{address}: {why}")),
                // One that answers says more than one that does not.
                Err(failure @ (Failure::NotServing | Failure::Unusable(_))) => worst = worst.or(Some(failure)),
                certain => return certain,
            }
        }
        Err(worst.unwrap_or_else(|| Failure::Unreachable(unreachable.join("; "))))
    }

    fn ask_one(&self, address: SocketAddr, patience: Patience<'_>) -> Result<Found, Failure> {
        match &self.connection.encryption {
            Encryption::Always(tls, _) => self.over_tls(address, tls, patience)?.map_err(|fault| self.of_tls(&fault)),
            Encryption::Never(_) => self.over_cleartext(address, patience)?.map_err(|fault| self.of_cleartext(&fault)),
            Encryption::FindOut => {
                let clear = match self.over_cleartext(address, part(patience, 2))? {
                    Err(Fault::Interrupted) => return Err(Failure::Interrupted),
                    Err(clear) => clear,
                    Ok(found) => return Ok(found),
                };
                self.over_tls(address, &Tls::default(), patience)?.map_err(|fault| match cause::is_no_tls(&fault) {
                    true => self.of_cleartext(&clear),
                    false => self.of_tls(&fault),
                })
            }
        }
    }

    fn of_tls(&self, fault: &Fault) -> Failure {
        Failure::of(fault, |fault| cause::of_tls(fault, self.connection))
    }

    fn of_cleartext(&self, fault: &Fault) -> Failure {
        Failure::of(fault, |fault| cause::of_cleartext(fault, self.connection))
    }

    /// The inner error: it does not speak HTTP/2 in cleartext. Nothing was said
    /// then but the greeting.
    fn over_cleartext(&self, address: SocketAddr, patience: Patience<'_>) -> Result<Result<Found, Fault>, Failure> {
        let mut stream = health::connect(address, patience.deadline).map_err(Failure::Unreachable)?;
        let mut client = Client::new(&mut stream);
        if let Err(fault) = client.greet(patience) {
            return Ok(Err(fault));
        }
        let mut talk = Talk { probe: self, client, scheme: "http", patience };
        talk.through(None).map(Ok)
    }

    /// The inner error: there is no TLS with it.
    fn over_tls(
        &self,
        address: SocketAddr,
        tls: &Tls,
        patience: Patience<'_>,
    ) -> Result<Result<Found, Fault>, Failure> {
        let config = tls::configure(tls, self.additional.as_deref())?;
        let name = tls::name(&self.connection.address.value.host, tls.server_name.as_ref())?;
        let socket = health::connect(address, patience.deadline).map_err(Failure::Unreachable)?;
        let mut stream = match Encrypted::new(socket, config, name, patience) {
            Ok(stream) => stream,
            Err(fault) => return Ok(Err(fault)),
        };
        if !stream.speaks_http2() {
            return Err(cause::no_http2().into());
        }
        let version = stream.version();
        let mut talk = Talk { probe: self, client: Client::new(&mut stream), scheme: "https", patience };
        talk.through(Some(version)).map(Ok)
    }
}

/// So much of the time that is left.
fn part(patience: Patience<'_>, share: u32) -> Patience<'_> {
    let now = Instant::now();
    let left = patience.deadline.saturating_duration_since(now);
    Patience { deadline: now + (left / share).max(Duration::from_millis(1)), ..patience }
}

fn resolve(address: &Address) -> Result<Vec<SocketAddr>, String> {
    let found = (address.host.as_str(), address.port).to_socket_addrs();
    match found.map(Iterator::collect::<Vec<_>>) {
        Ok(addresses) if !addresses.is_empty() => Ok(addresses),
        Err(cause) if cause.kind() == io::ErrorKind::InvalidInput => Err("the name is not valid".into()),
        _ => Err("the name cannot be resolved".into()),
    }
}

/// One conversation, from the health check to the namespace.
struct Talk<'a, 's> {
    probe: &'a Probe<'a>,
    client: Client<'s>,
    scheme: &'static str,
    patience: Patience<'a>,
}

impl Talk<'_, '_> {
    fn through(&mut self, tls: Option<&'static str>) -> Result<Found, Failure> {
        let has_health_check = self.check_health()?;
        let server = self.ask_version(has_health_check)?;
        let mut forbidden = Vec::new();
        for name in &self.probe.connection.namespaces.value {
            forbidden.extend(self.ask_namespace(name)?.map(|why| (name.clone(), why)));
        }
        Ok(Found { tls, server, forbidden })
    }

    /// Whether it serves; false where it has no health check to say so.
    fn check_health(&mut self) -> Result<bool, Failure> {
        let reply = self.call(health::PATH, &health::message(), None)?;
        match reply.code {
            Some(OK) if health::is_serving(&reply) == Some(true) => Ok(true),
            Some(OK) => Err(Failure::NotServing),
            // A proxy may forbid it and let through what matters.
            Some(NOT_FOUND | UNIMPLEMENTED | PERMISSION_DENIED) => Ok(false),
            _ => Err(self.unexpected("the health check", &reply)),
        }
    }

    fn ask_version(&mut self, has_health_check: bool) -> Result<Option<String>, Failure> {
        let reply = self.call(SYSTEM_INFO, &[], None)?;
        match reply.code {
            Some(OK) => {
                let version = proto::bytes(&reply.message, 1).and_then(|version| str::from_utf8(version).ok());
                Ok(version.filter(|text| is_version(text)).map(str::to_owned))
            }
            Some(UNIMPLEMENTED) if has_health_check => Ok(None),
            Some(UNIMPLEMENTED) => Err(Cause::new("it speaks gRPC, but is not a Temporal frontend").into()),
            Some(PERMISSION_DENIED) => {
                let connection = self.probe.connection;
                Err(cause::forbidden(connection, &cause::status(&reply, connection)).into())
            }
            _ => Err(self.unexpected("GetSystemInfo", &reply)),
        }
    }

    /// Finds out that the namespace is there; or why that cannot be known.
    fn ask_namespace(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let connection = self.probe.connection;
        let reply = self.call(DESCRIBE_NAMESPACE, &Message::default().text(1, name).into_bytes(), Some(name))?;
        let status = || cause::status(&reply, connection);
        match reply.code {
            Some(OK | UNIMPLEMENTED) => Ok(None),
            Some(NOT_FOUND | INVALID_ARGUMENT) => {
                let source = connection.namespaces.source;
                let why = format!("it has no namespace '{name}' (from {source}; {})", status());
                Err(Cause::new(why).hint("name another with --namespace NS, or create it there").into())
            }
            Some(PERMISSION_DENIED) if connection.has_credentials() => Ok(Some(status())),
            Some(PERMISSION_DENIED) => Err(cause::forbidden(connection, &status()).into()),
            _ => Err(self.unexpected("DescribeNamespace", &reply)),
        }
    }

    fn unexpected(&self, what: &str, reply: &Reply) -> Failure {
        match reply.code {
            Some(UNAVAILABLE) => Failure::NotServing,
            _ => Cause::new(format!("it answers {what} with {}", cause::status(reply, self.probe.connection))).into(),
        }
    }

    /// A call; the reply has a status of gRPC, and not that of a wrong key.
    fn call(&mut self, path: &str, message: &[u8], namespace: Option<&str>) -> Result<Reply, Failure> {
        let connection = self.probe.connection;
        let named = namespace.map(|name| ("temporal-namespace".to_owned(), name.to_owned()));
        let given = connection.metadata.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned()));
        let metadata: Vec<_> = given.chain(iter::once(named).flatten()).collect();
        let authority = match &connection.encryption {
            Encryption::Always(Tls { server_name: Some(name), .. }, _) => name.value.clone(),
            _ => connection.address.value.to_string(),
        };
        let request = Request { scheme: self.scheme, authority: &authority, path, metadata: &metadata, message };
        let reply = self.client.call(&request, self.patience).map_err(|fault| match self.scheme {
            "https" => self.probe.of_tls(&fault),
            _ => self.probe.of_cleartext(&fault),
        })?;
        if let Some(cause) = cause::of_http(&reply, connection) {
            return Err(cause.into());
        }
        match reply.code {
            Some(UNAUTHENTICATED) => Err(cause::refused(connection, &cause::status(&reply, connection)).into()),
            _ => Ok(reply),
        }
    }
}

/// What may be printed as a version.
fn is_version(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+_".contains(&byte);
    (1..=40).contains(&text.len()) && text.bytes().all(is_plain)
}
