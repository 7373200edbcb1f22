//! TLS to an external Temporal: at least 1.2, verified, with HTTP/2 in it.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error as TlsError, ProtocolVersion, RootCertStore,
    SignatureScheme, StreamOwned,
};

use super::cause::Cause;
use crate::certificates;
use crate::config::{Pem, Setting, Tls};
use crate::cryptography;
use crate::error::reason;
use crate::grpc::{Fault, Patience};

/// What `ClientConnection` needs, read anew for every connection: certificates
/// are renewed while a daemon runs.
pub fn configure(tls: &Tls, additional: Option<&Path>) -> Result<Arc<ClientConfig>, Cause> {
    let provider = cryptography::provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| Cause::new(error.to_string()))?;
    let builder = match tls.unverified {
        Some(_) => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))),
        None => builder.with_root_certificates(roots(tls, additional)?),
    };
    let mut config = match &tls.client {
        None => builder.with_no_client_auth(),
        Some(identity) => {
            let chain = certificates_in(&identity.certificate)?;
            let key = PrivateKeyDer::from_pem_slice(&text(&identity.key)?).map_err(|_| {
                unreadable(&identity.key, "there is no PEM private key in it")
                    .hint("an encrypted key must be decrypted first")
            })?;
            let (certificate, key_source) = (identity.certificate.source, identity.key.source);
            builder.with_client_auth_cert(chain, key).map_err(|error| match error {
                TlsError::InconsistentKeys(_) => {
                    Cause::new(format!("{key_source} is not the key of the certificate in {certificate}"))
                        .hint("give the two that were made together")
                }
                other => Cause::new(format!("{certificate} and {key_source} cannot be used: {other}")),
            })?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

fn roots(tls: &Tls, additional: Option<&Path>) -> Result<RootCertStore, Cause> {
    let mut roots = RootCertStore::empty();
    if let Some(authority) = &tls.authority {
        for certificate in certificates_in(authority)? {
            roots.add(certificate).map_err(|error| unreadable(authority, &error.to_string()))?;
        }
        return Ok(roots);
    }
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    if let Some(path) = additional {
        let more = certificates::read(path).map_err(|error| Cause::new(error.message()))?;
        roots.add_parsable_certificates(more);
    }
    Ok(roots)
}

fn certificates_in(pem: &Setting<Pem>) -> Result<Vec<CertificateDer<'static>>, Cause> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&text(pem)?).flatten().collect();
    match certificates.is_empty() {
        true => Err(unreadable(pem, "there is no PEM certificate in it")),
        false => Ok(certificates),
    }
}

fn text(pem: &Setting<Pem>) -> Result<Vec<u8>, Cause> {
    match &pem.value {
        Pem::Text(text) => Ok(text.reveal().into()),
        Pem::File(path) => {
            let hint = format!("check the path in {}, and whether you may read it", pem.source);
            std::fs::read(path).map_err(|cause| unreadable(pem, &reason(&cause)).hint(hint))
        }
    }
}

fn unreadable(pem: &Setting<Pem>, why: &str) -> Cause {
    match &pem.value {
        Pem::File(path) => Cause::new(format!("cannot read {} (from {}): {why}", path.display(), pem.source)),
        Pem::Text(_) => Cause::new(format!("cannot read {}: {why}", pem.source)),
    }
    .hint(format!("{} takes PEM, which begins with -----BEGIN", pem.source))
}

/// The name that the certificate must have: `given` by a setting, or the host.
pub fn name(host: &str, given: Option<&Setting<String>>) -> Result<ServerName<'static>, Cause> {
    let name = given.map_or(host, |given| &given.value);
    let source = given.map_or("the address".to_owned(), |given: &Setting<String>| given.source.to_string());
    ServerName::try_from(name.to_owned())
        .map_err(|_| Cause::new(format!("'{name}' of {source} is not a name that a certificate can have")))
}

/// A connection that speaks TLS.
pub struct Encrypted(StreamOwned<ClientConnection, TcpStream>);

impl Encrypted {
    /// Shakes hands over `socket`, which does not block.
    pub fn new(
        mut socket: TcpStream,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        patience: Patience<'_>,
    ) -> Result<Encrypted, Fault> {
        let failed = |error| Fault::Io(io::Error::new(io::ErrorKind::InvalidData, error));
        let mut connection = ClientConnection::new(config, name).map_err(failed)?;
        while connection.is_handshaking() {
            match connection.complete_io(&mut socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(Fault::io(error)),
                _ if connection.is_handshaking() => patience.wait(&socket)?,
                _ => {}
            }
        }
        Ok(Encrypted(StreamOwned::new(connection, socket)))
    }

    pub fn speaks_http2(&self) -> bool {
        self.0.conn.alpn_protocol() == Some(b"h2")
    }

    pub fn version(&self) -> &'static str {
        match self.0.conn.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLS 1.3",
            _ => "TLS 1.2",
        }
    }
}

impl Read for Encrypted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Encrypted {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl AsFd for Encrypted {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.sock.as_fd()
    }
}

/// Believes every certificate, but not that its key is there: that is checked.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
