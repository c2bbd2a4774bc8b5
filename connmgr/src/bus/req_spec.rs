//! The address of req mode, which is used as it stands.
//!
//! Stream mode has three sockets and derives their addresses from a base ([`Spec`](super::Spec));
//! req mode has one, a DEALER, and `--zclient-req` says where it is, without suffix and without
//! ports behind it (Condure 1.9.1 and pushpin-connmgr: the option is handed to libzmq as typed). So
//! the same `ipc://client` may serve as base of stream mode and as address of req mode: none of
//! `client-out`, `client-out-stream` and `client-in` is `client`.
//!
//! Condure leaves it to libzmq which transports there are. Here an address is checked as a base is,
//! so that a misspelled one is refused by name before anything is opened: `ipc` and `tcp`, no port 0
//! (handlers could not know which one the kernel has picked).

use std::fmt;
use std::str::FromStr;

use super::spec::split_address;

/// Where the DEALER of req mode is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ReqSpec {
    address: String,
}

/// Why an address of req mode was refused. Each names it, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReqSpecError {
    /// Neither `ipc://` nor `tcp://`.
    #[error("req spec must be ipc or tcp: {spec:?}")]
    Scheme {
        /// The spec, as it was typed.
        spec: String,
    },
    /// `ipc://` without a path.
    #[error("req spec has no path: {spec:?}")]
    Path {
        /// The spec, as it was typed.
        spec: String,
    },
    /// `tcp://` without a host, or with a port that is no number from 1 to 65535.
    #[error("req spec must be tcp://HOST:PORT with a port of 1 to 65535: {spec:?}")]
    Port {
        /// The spec, as it was typed.
        spec: String,
    },
}

impl ReqSpec {
    /// The address to bind or connect: what was typed.
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl FromStr for ReqSpec {
    type Err = ReqSpecError;

    /// Checks an address. Whether it can be bound or connected is known only when that is tried.
    fn from_str(spec: &str) -> Result<Self, ReqSpecError> {
        let address = spec.to_owned();
        if let Some(path) = spec.strip_prefix("ipc://") {
            if path.is_empty() {
                return Err(ReqSpecError::Path { spec: address });
            }
        } else if let Some(host_and_port) = spec.strip_prefix("tcp://") {
            if split_address(host_and_port).is_none() {
                return Err(ReqSpecError::Port { spec: address });
            }
        } else {
            return Err(ReqSpecError::Scheme { spec: address });
        }
        Ok(ReqSpec { address })
    }
}

impl fmt::Display for ReqSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn an_address_is_taken_as_it_stands() {
        for address in [
            "ipc://client",
            "ipc:///run/x/y",
            "ipc://@abstract",
            "tcp://127.0.0.1:1",
            "tcp://*:65535",
            "tcp://[::1]:5560",
        ] {
            let spec: ReqSpec = address.parse().unwrap();
            assert_eq!((spec.address(), spec.to_string()), (address, address.to_owned()));
        }
    }

    #[test]
    fn whatever_else_is_refused_and_named() {
        for typed in ["", "client", "udp://x:1", "inproc://x", "IPC://x"] {
            let error = typed.parse::<ReqSpec>().unwrap_err();
            assert_eq!(error, ReqSpecError::Scheme { spec: typed.to_owned() });
            assert!(error.to_string().starts_with("req spec must be ipc or tcp"));
        }
        let error = "ipc://".parse::<ReqSpec>();
        assert_eq!(error, Err(ReqSpecError::Path { spec: "ipc://".to_owned() }));
        for typed in
            ["tcp://", "tcp://h", "tcp://h:", "tcp://:1", "tcp://h:0", "tcp://h:65536", "tcp://h:*"]
        {
            let error = typed.parse::<ReqSpec>();
            assert_eq!(error, Err(ReqSpecError::Port { spec: typed.to_owned() }), "{typed}");
        }
    }
}
