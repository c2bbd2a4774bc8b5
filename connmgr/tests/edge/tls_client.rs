//! Certificates, an edge that serves them, and a client that says what it agreed on.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

use crate::client::Client;
use crate::peers::within;
use crate::process::EdgeProcess;

/// The name of the usual certificate.
pub const HOST: &str = "a.test";

/// Both versions that are spoken.
pub const VERSIONS: [&SupportedProtocolVersion; 2] = [&TLS12, &TLS13];

/// A self-signed certificate and its key.
pub struct Pair {
    pub certificate: CertificateDer<'static>,
    pub certificate_pem: String,
    pub key_pem: String,
}

impl Pair {
    /// For these names.
    pub fn new(names: &[&str]) -> Pair {
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        Pair {
            certificate: made.cert.der().clone(),
            certificate_pem: made.cert.pem(),
            key_pem: made.signing_key.serialize_pem(),
        }
    }

    /// Writes it as an identity of this name.
    pub fn write(&self, dir: &Path, name: &str) {
        fs::write(dir.join(format!("{name}.crt")), &self.certificate_pem).unwrap();
        fs::write(dir.join(format!("{name}.key")), &self.key_pem).unwrap();
    }
}

/// An edge with one encrypted port and its directory of certificates.
pub struct TlsEdge {
    pub edge: EdgeProcess,
    /// The usual certificate, of [`HOST`]: `usual` in the directory, and the default.
    pub pair: Pair,
    pub identities: TempDir,
}

impl TlsEdge {
    pub async fn start(options: &[&str]) -> TlsEdge {
        TlsEdge::start_with(options, |_| ()).await
    }

    /// With more certificates.
    pub async fn start_with(options: &[&str], fill: impl FnOnce(&Path)) -> TlsEdge {
        let identities = tempfile::tempdir().unwrap();
        let pair = Pair::new(&[HOST]);
        pair.write(identities.path(), "usual");
        fill(identities.path());
        let dir = format!("--tls-identities-dir={}", identities.path().display());
        let listen = "--listen=127.0.0.1:0,tls,default-cert=usual";
        let mut all = vec![dir.as_str()];
        if !options.iter().any(|option| option.starts_with("--listen")) {
            all.push(listen);
        }
        all.extend(options);
        TlsEdge { edge: EdgeProcess::start(&all).await, pair, identities }
    }

    /// A client of the usual certificate, of any version.
    pub async fn connect(&self) -> Client {
        self.connect_by(&VERSIONS).await
    }

    /// The same, of these versions.
    pub async fn connect_by(&self, versions: &[&'static SupportedProtocolVersion]) -> Client {
        let config = config(versions, &[&self.pair]);
        Client::over(handshake(self.edge.address, HOST, &config).await.unwrap())
    }
}

/// What a client takes: any of these versions and certificates.
pub fn config(
    versions: &[&'static SupportedProtocolVersion],
    trusted: &[&Pair],
) -> Arc<ClientConfig> {
    Arc::new(plain_config(versions, trusted))
}

/// The same, to be changed.
pub fn plain_config(
    versions: &[&'static SupportedProtocolVersion],
    trusted: &[&Pair],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    for pair in trusted {
        roots.add(pair.certificate.clone()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Who wants to resume says so.
    config.resumption = Resumption::disabled();
    config
}

/// Connects and shakes hands. With an error if either side refuses.
pub async fn handshake(
    address: SocketAddr,
    host: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    handshake_over(within(TcpStream::connect(address)).await.unwrap(), host, config).await
}

/// The same, over a socket that is connected.
pub async fn handshake_over(
    stream: TcpStream,
    host: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).unwrap();
    within(TlsConnector::from(Arc::clone(config)).connect(name, stream)).await
}

/// The certificate that was shown.
pub fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone()
}
