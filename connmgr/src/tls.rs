//! TLS at the edge: `--listen …,tls`.
//!
//! ```text
//!  DIR/NAME.crt, NAME.key ──loader thread──▶ Identities ──Resolver──▶ ServerConfig of a listener
//!                                                                          │ each client
//!  socket ◀────────────────── Session (rustls) ──────────────────▶ the worker's machine
//! ```
//!
//! TLS 1.2 and 1.3 by rustls with *ring*: no C++ to build, and no other dependency than what its HTTP client already has.
//! The parts: `identity.rs` reads a certificate and its key; `identities.rs` has those that are loaded and chooses one by
//! the name that a client asks for (SNI); `loader.rs` watches the directory; `session.rs` is one connection.
//!
//! Which identity: that of the name `a.example.com`, else `_.example.com`, which stands for all names of one level below
//! `example.com`, else the listener's `default-cert`, else none: the handshake ends with the alert `unrecognized_name`.
//! That is Condure's rule, but for the alert.
//!
//! Sessions are resumed by tickets, of 1.2 and of 1.3, so that no worker keeps state for those who have left. The keys of
//! tickets are made by this process, change every six hours, and are shared by its workers. There is no early data: it
//! can be replayed. ALPN offers `http/1.1`; who offers other protocols alone is refused (RFC 7301 §3.2).

mod identities;
mod identity;
mod loader;
mod session;

#[cfg(test)]
mod test_support;

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, ring};
use rustls::server::{NoServerSessionStorage, ProducesTickets};

use self::identities::{Identities, Resolver};
use self::loader::{Directory, Loader};
use crate::config::ListenSpec;

pub use self::identity::IdentityError;
pub(crate) use self::identity::is_valid_name;
pub(crate) use self::session::{Session, Steps};

/// What is spoken over it (the registry of RFC 7301).
const ALPN_PROTOCOL: &[u8] = b"http/1.1";

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The identity of a `default-cert`.
    #[error("cannot listen on {address} with default-cert={name}")]
    DefaultCert {
        /// The listener.
        address: String,
        /// The name of the identity.
        name: String,
        /// What is wrong with it.
        source: Box<IdentityError>,
    },
    /// rustls refuses, or there is no randomness for tickets.
    #[error("cannot prepare TLS")]
    Prepare(#[from] rustls::Error),
    /// The system has no thread for the loader.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// What the TLS listeners of an edge share. Certificates are reloaded until it is dropped.
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    ticketer: Arc<dyn ProducesTickets>,
    identities: Arc<Identities>,
    _loader: Loader,
}

impl Tls {
    /// Loads the identities, if any of the listeners has TLS.
    ///
    /// # Errors
    /// In particular if a `default-cert` cannot be used.
    pub(crate) fn start(dir: &Path, listen: &[ListenSpec]) -> Result<Option<Self>, TlsError> {
        if listen.iter().all(|spec| spec.tls.is_none()) {
            return Ok(None);
        }
        let provider = Arc::new(ring::default_provider());
        let identities = Arc::new(Identities::default());
        let default_names = listen.iter().filter_map(ListenSpec::default_cert);
        let kept: BTreeSet<String> = default_names.map(str::to_owned).collect();
        let directory = Directory::open(dir, Arc::clone(&provider), Arc::clone(&identities), kept);
        let directory = directory.map_err(|(name, source)| {
            let of_it = |spec: &&ListenSpec| spec.default_cert() == Some(name.as_str());
            let address = listen.iter().find(of_it).map(ToString::to_string).unwrap_or_default();
            TlsError::DefaultCert { address, name, source }
        })?;
        if identities.len() == 0 {
            tracing::warn!("no client can be served over TLS: there is no certificate");
        }
        Ok(Some(Tls {
            ticketer: ring::Ticketer::new()?,
            _loader: Loader::start(directory).map_err(TlsError::Thread)?,
            provider,
            identities,
        }))
    }

    /// What the sessions of a listener are made with.
    ///
    /// # Errors
    /// If rustls refuses.
    pub(crate) fn server_config(
        &self,
        default_name: Option<&str>,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let resolver = Resolver {
            identities: Arc::clone(&self.identities),
            default_name: default_name.map(str::to_owned),
        };
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN_PROTOCOL.to_vec()];
        config.ticketer = Arc::clone(&self.ticketer);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Arc::new(config))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("identities", &self.identities).finish_non_exhaustive()
    }
}
