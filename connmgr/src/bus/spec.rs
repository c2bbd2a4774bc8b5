//! Base specs: one address that names all three sockets of stream mode.
//!
//! A handler and an edge agree on one *base spec*, and each derives from it where the three sockets
//! are (Condure 1.9.1, `make_specs`; Pushpin's `zhttp` options rely on the same order):
//!
//! | base | `-out` (PUSH) | `-out-stream` (ROUTER) | `-in` (SUB) |
//! | --- | --- | --- | --- |
//! | `ipc://X` | `ipc://X-out` | `ipc://X-out-stream` | `ipc://X-in` |
//! | `tcp://host:PORT` | `PORT` | `PORT+1` | `PORT+2` |
//!
//! An `ipc` path is taken as it stands, so a relative one is relative to the working directory of
//! the process. Condure adds to the port without looking; here a port that leaves no room for the
//! other two is refused, and so is port 0, because nobody could derive the other two from a port
//! that the kernel picks.

use std::fmt;
use std::str::FromStr;

/// The last port from which `PORT+1` and `PORT+2` still exist.
const TCP_BASE_PORT_MAX: u16 = u16::MAX - 2;

/// The addresses of the three sockets that one base spec names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Spec {
    base: String,
    out: String,
    out_stream: String,
    inward: String,
}

/// Why a base spec was refused. Each names the spec, as it was typed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Neither `ipc://` nor `tcp://`.
    #[error("base spec must be ipc or tcp: {spec:?}")]
    Scheme {
        /// The spec, as it was typed.
        spec: String,
    },
    /// `ipc://` without a path.
    #[error("base spec has no path: {spec:?}")]
    Path {
        /// The spec, as it was typed.
        spec: String,
    },
    /// `tcp://` without a host, or with a port that is no number from 1 to 65533.
    #[error("base spec must be tcp://HOST:PORT with a port of 1 to {TCP_BASE_PORT_MAX}: {spec:?}")]
    Port {
        /// The spec, as it was typed.
        spec: String,
    },
}

impl Spec {
    /// The base spec, as it was typed.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// Where requests are pushed.
    pub fn out(&self) -> &str {
        &self.out
    }

    /// Where packets go to, and come from, one certain handler.
    pub fn out_stream(&self) -> &str {
        &self.out_stream
    }

    /// Where handlers publish to this edge.
    pub fn inward(&self) -> &str {
        &self.inward
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    /// Expands a base spec. Whether the address can be bound or connected is known only when that
    /// is tried.
    fn from_str(spec: &str) -> Result<Self, SpecError> {
        if let Some(path) = spec.strip_prefix("ipc://") {
            if path.is_empty() {
                return Err(SpecError::Path { spec: spec.to_owned() });
            }
            return Ok(Spec {
                base: spec.to_owned(),
                out: format!("{spec}-out"),
                out_stream: format!("{spec}-out-stream"),
                inward: format!("{spec}-in"),
            });
        }
        let Some(address) = spec.strip_prefix("tcp://") else {
            return Err(SpecError::Scheme { spec: spec.to_owned() });
        };
        let (host, port) = split_address(address)
            .filter(|(_, port)| *port <= TCP_BASE_PORT_MAX)
            .ok_or_else(|| SpecError::Port { spec: spec.to_owned() })?;
        let at = |offset: u16| format!("tcp://{host}:{}", port + offset);
        Ok(Spec { base: spec.to_owned(), out: at(0), out_stream: at(1), inward: at(2) })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

/// Splits `host:port`. An IPv6 host is in brackets, so the last colon is always the port's. `None`
/// without a host, or if the port is no number from 1 on.
pub(super) fn split_address(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    // `u16::from_str` would take a sign.
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let port = if digits { port.parse::<u16>().ok()? } else { return None };
    (!host.is_empty() && port > 0).then_some((host, port))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn expand(base: &str) -> [String; 3] {
        let spec: Spec = base.parse().unwrap();
        assert_eq!(spec.base(), base);
        assert_eq!(spec.to_string(), base);
        [spec.out, spec.out_stream, spec.inward]
    }

    #[test]
    fn ipc_gets_suffixes() {
        assert_eq!(
            expand("ipc://client"),
            ["ipc://client-out", "ipc://client-out-stream", "ipc://client-in"]
        );
        assert_eq!(expand("ipc:///run/x/y")[2], "ipc:///run/x/y-in");
    }

    #[test]
    fn tcp_gets_consecutive_ports() {
        let ports = |host: &str, port: u16| {
            [0, 1, 2].map(|offset| format!("tcp://{host}:{}", port + offset))
        };
        assert_eq!(expand("tcp://127.0.0.1:5560"), ports("127.0.0.1", 5560));
        assert_eq!(expand("tcp://*:1"), ports("*", 1));
        assert_eq!(expand("tcp://[::1]:65533"), ports("[::1]", 65533));
    }

    #[test]
    fn whatever_else_is_refused_and_named() {
        for base in ["", "client", "udp://x:1", "inproc://x", "IPC://x"] {
            let error = base.parse::<Spec>().unwrap_err();
            assert_eq!(error, SpecError::Scheme { spec: base.to_owned() });
            assert!(error.to_string().starts_with("base spec must be ipc or tcp"));
        }
        assert_eq!("ipc://".parse::<Spec>(), Err(SpecError::Path { spec: "ipc://".to_owned() }));
        for base in [
            "tcp://",
            "tcp://h",
            "tcp://h:",
            "tcp://:1",
            "tcp://h:0",
            "tcp://h:65534",
            "tcp://h:65536",
            "tcp://h:+1",
            "tcp://h:*",
        ] {
            assert_eq!(
                base.parse::<Spec>(),
                Err(SpecError::Port { spec: base.to_owned() }),
                "{base}"
            );
        }
    }
}
