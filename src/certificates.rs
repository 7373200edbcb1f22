//! The authorities whose certificates are trusted: those built in, and those
//! of `SSL_CERT_FILE`.
//!
//! Both who downloads and who talks to an external Temporal need them, and the
//! words for a file that holds none.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::error::{Error, Result, reason};

const VARIABLE: &str = "SSL_CERT_FILE";

/// The file of `SSL_CERT_FILE`; an empty variable counts as unset.
pub fn file(variable: &dyn Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    variable(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The certificates in the file of `SSL_CERT_FILE`, at least one.
pub fn read(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |why: &str| {
        Error::new(format!("cannot read the certificates in {}: {why}", path.display()))
            .hint(format!("{VARIABLE} must name a file of PEM certificates, or be unset"))
    };
    let pem = std::fs::read(path).map_err(|cause| failed(&reason(&cause)))?;
    // Whatever else the file holds is passed over.
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(&pem).flatten().collect();
    match certificates.is_empty() {
        true => Err(failed("there is none in it")),
        false => Ok(certificates),
    }
}
