//! Certificates for the tests of this module.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

/// What everything is signed with.
pub(super) fn provider() -> CryptoProvider {
    ring::default_provider()
}

/// A self-signed certificate and its key.
pub(super) struct Pair {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
    key_der: Vec<u8>,
}

impl Pair {
    /// Of this name.
    pub(super) fn new(name: &str) -> Pair {
        // Some of the names in tests are none that a certificate may have.
        let params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        let mut params = params;
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.subject_alt_names = name
            .try_into()
            .map(|dns_name| vec![rcgen::SanType::DnsName(dns_name)])
            .unwrap_or_default();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Pair {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
            key_der: key.serialize_der(),
        }
    }

    /// Writes it as an identity of this name.
    pub(super) fn write(&self, dir: &Path, name: &str) {
        std::fs::write(dir.join(format!("{name}.crt")), &self.certificate_pem).unwrap();
        std::fs::write(dir.join(format!("{name}.key")), &self.key_pem).unwrap();
    }

    /// The same, as it is loaded.
    pub(super) fn identity(&self) -> Arc<CertifiedKey> {
        let key = PrivateKeyDer::Pkcs8(self.key_der.clone().into());
        let chain = vec![self.certificate.clone()];
        Arc::new(CertifiedKey::from_der(chain, key, &provider()).unwrap())
    }
}
