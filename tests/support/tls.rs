//! A certificate authority of our own, such as companies have.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::http::base64;

pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: Vec<u8>,
}

/// A certificate with its key.
pub struct Identity {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// How a server speaks TLS.
#[derive(Default)]
pub struct Tls<'a> {
    /// What it offers (ALPN).
    pub protocols: &'a [&'a str],
    /// Whoever else may enter must have a certificate of this one.
    pub clients: Option<&'a Authority>,
}

impl Authority {
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let name = format!("Test Authority {}", COUNTER.fetch_add(1, Ordering::Relaxed));
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().to_vec();
        Authority { issuer: Issuer::new(params, key), certificate }
    }

    /// The certificate, as `SSL_CERT_FILE` wants it.
    pub fn pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    pub fn write_pem(&self, path: &Path) {
        std::fs::write(path, self.pem()).unwrap();
    }

    /// For whoever answers to `names`.
    pub fn identity(&self, names: &[&str]) -> Identity {
        self.identity_between(names, (1975, 4096))
    }

    /// The same, from the beginning of one year to that of another.
    pub fn identity_between(&self, names: &[&str], years: (i32, i32)) -> Identity {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (date_time_ymd(years.0, 1, 1), date_time_ymd(years.1, 1, 1));
        params.distinguished_name.push(DnType::CommonName, "Test Server");
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Identity { certificate: certificate.der().to_vec(), key: key.serialize_der() }
    }

    /// The configuration of a server that answers to `names`.
    pub fn server(&self, names: &[&str]) -> Arc<ServerConfig> {
        self.identity(names).server(&Tls::default())
    }
}

impl Identity {
    pub fn server(&self, tls: &Tls<'_>) -> Arc<ServerConfig> {
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.clone()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
        let builder = match tls.clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.certificate.clone().into()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let mut config = builder.with_single_cert(vec![self.certificate.clone().into()], private).unwrap();
        config.alpn_protocols = tls.protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        Arc::new(config)
    }

    pub fn certificate_pem(&self) -> String {
        pem("CERTIFICATE", &self.certificate)
    }

    pub fn key_pem(&self) -> String {
        pem("PRIVATE KEY", &self.key)
    }

    /// Writes `NAME.crt` and `NAME.key`.
    pub fn write(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let paths = (directory.join(format!("{name}.crt")), directory.join(format!("{name}.key")));
        std::fs::write(&paths.0, self.certificate_pem()).unwrap();
        std::fs::write(&paths.1, self.key_pem()).unwrap();
        paths
    }
}

fn pem(label: &str, der: &[u8]) -> String {
    let text = base64(der);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
