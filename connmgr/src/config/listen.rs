//! Listen specs: where clients connect, and how their requests go to handlers.
//!
//! A place ([`ListenAddress`]), and behind it `stream` or `req`. `stream` is the default and beats `req`, whatever
//! their order (pushpin-connmgr; in condure the last one wins).
//!
//! `shared` is for TCP ports: other processes may listen there, too, if they say so as well (`listener.rs`).
//!
//! `tls` is for TCP ports, and `default-cert=NAME` says which identity of `--tls-identities-dir` clients get that ask for none
//! that is there (`tls.rs`). Without `tls` it is refused: who names a certificate believes that the port is encrypted.

use std::fmt;
use std::str::FromStr;

use forebay_core::worker::Mode;

use super::address::{self, AddressError, ListenAddress};
use crate::tls;

/// One place where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSpec {
    /// Where.
    pub address: ListenAddress,
    /// How the requests of these clients go to handlers.
    pub mode: Mode,
    /// How they are encrypted. `None`: they are not. Always `None` for a unix socket.
    pub tls: Option<TlsSpec>,
    /// Whether other edges may have the port, too. Always false for a unix socket.
    pub is_shared: bool,
}

/// How the clients of a port are encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsSpec {
    /// The name of the identity for clients that ask for none that is there. `None`: those are refused.
    pub default_cert: Option<String>,
}

impl ListenSpec {
    /// The name of the default identity, if there is one.
    pub fn default_cert(&self) -> Option<&str> {
        self.tls.as_ref()?.default_cert.as_deref()
    }
}

impl FromStr for ListenSpec {
    type Err = AddressError;

    fn from_str(spec: &str) -> Result<Self, AddressError> {
        let (mut is_stream, mut is_req) = (false, false);
        let (mut is_tls, mut is_shared) = (false, false);
        let mut default_cert = None;
        let address = address::parse(spec, |param, is_local| {
            match param {
                "stream" => is_stream = true,
                "req" => is_req = true,
                "tls" if !is_local => is_tls = true,
                "shared" if !is_local => is_shared = true,
                _ => {
                    let name = param.strip_prefix("default-cert=").filter(|_| !is_local);
                    let Some(name) = name else { return Ok(false) };
                    if !tls::is_valid_name(name) {
                        return Err(AddressError::InvalidCertName { name: name.to_owned() });
                    }
                    default_cert = Some(name.to_owned());
                }
            }
            Ok(true)
        })?;
        if default_cert.is_some() && !is_tls {
            return Err(AddressError::CertWithoutTls);
        }
        let tls = is_tls.then_some(TlsSpec { default_cert });
        let mode = if is_req && !is_stream { Mode::Req } else { Mode::Stream };
        Ok(ListenSpec { address, mode, tls, is_shared })
    }
}

impl fmt::Display for ListenSpec {
    /// The address alone, as messages name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn stream_beats_req() {
        for (params, mode) in [
            ("", Mode::Stream),
            (",stream", Mode::Stream),
            (",req", Mode::Req),
            (",req,req", Mode::Req),
            (",req,stream", Mode::Stream),
            (",stream,req", Mode::Stream),
        ] {
            let tcp: ListenSpec = format!("8000{params}").parse().unwrap();
            assert_eq!((tcp.to_string().as_str(), tcp.mode), ("0.0.0.0:8000", mode), "{params}");
            let unix: ListenSpec = format!("/x,local,mode=600{params}").parse().unwrap();
            assert_eq!((unix.to_string().as_str(), unix.mode), ("/x", mode), "{params}");
        }
    }

    #[test]
    fn tls_with_and_without_a_default() {
        for (params, tls) in [
            ("", None),
            (",tls", Some(TlsSpec { default_cert: None })),
            (",req,tls,stream", Some(TlsSpec { default_cert: None })),
            (",tls,default-cert=a", Some(TlsSpec { default_cert: Some("a".into()) })),
            (",default-cert=_.a.b,tls", Some(TlsSpec { default_cert: Some("_.a.b".into()) })),
            // The last one wins, as in Condure.
            (
                ",tls,default-cert=a,default-cert=b",
                Some(TlsSpec { default_cert: Some("b".into()) }),
            ),
        ] {
            let spec: ListenSpec = format!("8443{params}").parse().unwrap();
            assert_eq!(spec.tls, tls, "{params}");
            assert_eq!(
                spec.default_cert(),
                tls.as_ref().and_then(|tls| tls.default_cert.as_deref())
            );
        }
    }

    #[test]
    fn a_port_may_be_shared() {
        let is_shared = |spec: &str| spec.parse::<ListenSpec>().unwrap().is_shared;
        assert!(is_shared("8000,shared") && is_shared("[::1]:8443,req,shared,tls"));
        assert!(!is_shared("8000") && !is_shared("/x,local"));
    }

    #[test]
    fn refusals_tell_why() {
        for (text, message) in [
            ("8443,default-cert=a", "default-cert is without effect if there is no tls"),
            ("8443,default-cert", "invalid param: default-cert"),
            ("8443,tls=1", "invalid param: tls=1"),
            ("8443,tls,default-cert=", "default-cert must be the name of a file: \"\""),
            ("8443,tls,default-cert=../a", "default-cert must be the name of a file: \"../a\""),
            ("8000,stream=1", "invalid param: stream=1"),
            ("/x,local,tls", "invalid param: tls"),
            ("/x,local,shared", "invalid param: shared"),
            ("8000,shared=2", "invalid param: shared=2"),
            ("/x,local,default-cert=a", "invalid param: default-cert=a"),
        ] {
            assert_eq!(text.parse::<ListenSpec>().unwrap_err().to_string(), message, "{text:?}");
        }
    }
}
