//! The identities that are loaded, and which of them a client gets.
//!
//! The loader's thread puts them in; workers look them up in the middle of a handshake. A lookup takes a lock that is held
//! for as long as a hash map takes to be asked or changed, and never while a file is read. What a client says (SNI, RFC 6066
//! §3) is compared with names that are loaded and used for nothing else, so that nothing in it can be a path.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// Identities by name. Shared by all listeners.
#[derive(Default)]
pub(super) struct Identities {
    by_name: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl Identities {
    /// The identity for a client that asks for `host`: that of the name, or that of all names of its parent domain.
    pub(super) fn of_host(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        // Names of the DNS have no case (RFC 4343), files do; rustls has lower case here.
        let by_name = self.read();
        let exact = by_name.get(host);
        let found = exact.or_else(|| {
            let (_, parent) = host.split_once('.')?;
            by_name.get(&format!("_.{parent}"))
        });
        found.cloned()
    }

    /// The identity of a name, as it stands.
    pub(super) fn named(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.read().get(name).cloned()
    }

    /// Adds an identity, or puts it in the place of the one that had its name.
    pub(super) fn insert(&self, name: &str, identity: Arc<CertifiedKey>) {
        self.write().insert(name.to_owned(), identity);
    }

    /// Forgets an identity. Connections that have it go on.
    pub(super) fn remove(&self, name: &str) {
        self.write().remove(name);
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.read().len()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<String, Arc<CertifiedKey>>> {
        // Who panicked with it has left it whole: each change is one call.
        self.by_name.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<String, Arc<CertifiedKey>>> {
        self.by_name.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Identities {
    /// Names alone: there are private keys in here.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.read().keys()).finish()
    }
}

/// The choice of a listener.
#[derive(Debug)]
pub(super) struct Resolver {
    pub(super) identities: Arc<Identities>,
    /// For clients that ask for no name, or for one that there is no identity of.
    pub(super) default_name: Option<String>,
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let by_host = hello.server_name().and_then(|host| self.identities.of_host(host));
        let by_default = || self.identities.named(self.default_name.as_deref()?);
        by_host.or_else(by_default)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tls::test_support::Pair;

    #[test]
    fn a_host_has_its_own_identity_or_its_parents() {
        let identities = Identities::default();
        assert_eq!(identities.len(), 0);
        for name in ["a.test", "_.a.test", "_.test", "default", "_."] {
            identities.insert(name, Pair::new(name).identity());
        }
        for (host, name) in [
            ("a.test", Some("a.test")),
            ("b.a.test", Some("_.a.test")),
            ("b.test", Some("_.test")),
            // A wildcard is of one level (RFC 6125 §6.4.3).
            ("c.b.a.test", None),
            ("test", None),
            ("", None),
            ("c.", Some("_.")),
            ("../a.test", None),
            ("/etc/passwd", None),
            ("a.test\0", None),
        ] {
            let found = identities.of_host(host).map(|identity| identity.cert[0].clone());
            let expected = name.map(|name| identities.named(name).unwrap().cert[0].clone());
            assert_eq!(found, expected, "{host:?}");
        }
        identities.remove("a.test");
        let wildcard = identities.named("_.test").unwrap();
        assert_eq!(identities.of_host("a.test").unwrap().cert, wildcard.cert);
    }

    #[test]
    fn no_key_is_printed() {
        let identities = Identities::default();
        identities.insert("a", Pair::new("a.test").identity());
        assert_eq!(format!("{identities:?}"), "{\"a\"}");
    }
}
