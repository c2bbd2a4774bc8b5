//! Places to listen: a TCP port or a socket in the file system, with parameters behind commas.
//!
//! ```text
//! [address:]port[,param…]      127.0.0.1:8000   8000   [::1]:8000
//! path,local[,param…]          /run/edge.sock,local,mode=660,group=www-data
//! ```
//!
//! The grammar is that of condure 1.10 and pushpin-connmgr. A port alone is all of IPv4; an address is an IP
//! address, never a name. `mode`, `user` and `group` are for sockets in the file system, and `local`, which says that
//! it is one, may come last. Whatever else may stand there depends on the option: `--listen` has modes (`listen.rs`),
//! `--prometheus` a prefix (`prometheus.rs`), `--debug-socket` is always a path and has no `local`.

use std::fmt;
use std::net::{AddrParseError, SocketAddr};
use std::path::PathBuf;

use super::prometheus::PREFIX_LEN_MAX;
use super::value::{FILE_MODE_MAX, parse_file_mode};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP port. `[::]` takes IPv4 clients too.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(UnixSpec),
}

impl fmt::Display for ListenAddress {
    /// The address alone, as messages name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(unix) => unix.path.display().fmt(f),
        }
    }
}

/// A socket in the file system, and who may connect to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnixSpec {
    /// Where; relative to the working directory.
    pub path: PathBuf,
    /// As for `chmod`. `None`: what the umask gives.
    pub mode: Option<u32>,
    /// The owner's name. `None`: the user of this process.
    pub user: Option<String>,
    /// The group's name. `None`: the group of this process.
    pub group: Option<String>,
}

/// Why a place to listen was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// A parameter that does not exist, or not for this kind of address, or lacks its value.
    #[error("invalid param: {param}")]
    InvalidParam {
        /// The parameter, as it was typed.
        param: String,
    },
    /// The port is no number up to 65535.
    #[error("invalid port {port}")]
    InvalidPort {
        /// What was typed after the last colon.
        port: String,
    },
    /// What stands before the port is no IP address.
    #[error("{reason}: {address}")]
    InvalidAddress {
        /// The address with its port, as it was typed.
        address: String,
        /// What the parser says.
        reason: AddrParseError,
    },
    /// `mode=` is not octal.
    #[error("mode must be octal, at most {FILE_MODE_MAX:o}: {mode}")]
    InvalidMode {
        /// The mode, as it was typed.
        mode: String,
    },
    /// A socket in the file system without a path.
    #[error("there is no path")]
    NoPath,
    /// `prefix=` is none that a metric's name may begin with.
    #[error(
        "prefix must be 1 to {PREFIX_LEN_MAX} letters, digits and underscores, no digit first: {prefix}"
    )]
    InvalidPrefix {
        /// The prefix, as it was typed.
        prefix: String,
    },
    /// `default-cert=` is none that a file can have, below its directory.
    #[error("default-cert must be the name of a file: {name:?}")]
    InvalidCertName {
        /// The name, as it was typed.
        name: String,
    },
    /// A certificate for clients that are not encrypted.
    #[error("default-cert is without effect if there is no tls")]
    CertWithoutTls,
}

/// Parses a place with its parameters. What is no parameter of a place goes to `other`, with whether the place is
/// a path; it says whether the option knows it.
pub(super) fn parse<'s>(
    text: &'s str,
    mut other: impl FnMut(&'s str, bool) -> Result<bool, AddressError>,
) -> Result<ListenAddress, AddressError> {
    let mut parts = text.split(',');
    let place = parts.next().unwrap_or_default();
    let params: Vec<&str> = parts.collect();
    // Which parameters there are depends on `local`, which may come last.
    let is_local = params.contains(&"local");
    let mut unix = UnixSpec::default();
    for param in params {
        let is_known = is_local && (param == "local" || unix.take_param(param)?);
        if !is_known && !other(param, is_local)? {
            return Err(invalid(param));
        }
    }
    if is_local {
        Ok(ListenAddress::Unix(unix.at(place)?))
    } else {
        parse_tcp(place).map(ListenAddress::Tcp)
    }
}

impl UnixSpec {
    /// Parses `path[,mode=][,user=][,group=]`.
    pub(super) fn parse(text: &str) -> Result<UnixSpec, AddressError> {
        let mut parts = text.split(',');
        let path = parts.next().unwrap_or_default();
        let mut unix = UnixSpec::default();
        for param in parts {
            if !unix.take_param(param)? {
                return Err(invalid(param));
            }
        }
        unix.at(path)
    }

    /// Takes a parameter, if it is one of a socket in the file system.
    fn take_param(&mut self, param: &str) -> Result<bool, AddressError> {
        let Some((key, value)) = param.split_once('=') else { return Ok(false) };
        match key {
            "mode" | "user" | "group" if value.is_empty() => return Err(invalid(param)),
            "mode" => {
                let refused = |_| AddressError::InvalidMode { mode: value.to_owned() };
                self.mode = Some(parse_file_mode(value).map_err(refused)?);
            }
            "user" => self.user = Some(value.to_owned()),
            "group" => self.group = Some(value.to_owned()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn at(self, path: &str) -> Result<UnixSpec, AddressError> {
        if path.is_empty() {
            return Err(AddressError::NoPath);
        }
        Ok(UnixSpec { path: path.into(), ..self })
    }
}

fn parse_tcp(place: &str) -> Result<SocketAddr, AddressError> {
    let (host, port) = match place.rsplit_once(':') {
        Some((host, port)) => (host, port),
        None => ("0.0.0.0", place),
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || port.parse::<u16>().is_err() {
        return Err(AddressError::InvalidPort { port: port.to_owned() });
    }
    let address = format!("{host}:{port}");
    match address.parse() {
        Ok(address) => Ok(address),
        Err(reason) => Err(AddressError::InvalidAddress { address, reason }),
    }
}

pub(super) fn invalid(param: &str) -> AddressError {
    AddressError::InvalidParam { param: param.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn plain(text: &str) -> Result<ListenAddress, AddressError> {
        parse(text, |param, _| Ok(param == "known"))
    }

    #[test]
    fn tcp() {
        for (text, address) in [
            ("8000", "0.0.0.0:8000"),
            ("8000,known", "0.0.0.0:8000"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:8000", "[::1]:8000"),
            ("[::]:65535,known,known", "[::]:65535"),
        ] {
            let parsed = plain(text).unwrap();
            assert_eq!(parsed, ListenAddress::Tcp(address.parse().unwrap()), "{text}");
            assert_eq!(parsed.to_string(), address);
        }
    }

    #[test]
    fn unix() {
        let full = UnixSpec {
            path: "x y".into(),
            mode: Some(0o660),
            user: Some("www".into()),
            group: Some("web".into()),
        };
        let parsed = plain("x y,mode=0660,user=www,known,group=web,local").unwrap();
        assert_eq!(parsed, ListenAddress::Unix(full.clone()));
        assert_eq!(parsed.to_string(), "x y");
        assert_eq!(UnixSpec::parse("x y,mode=660,group=web,user=www"), Ok(full));
        let bare = UnixSpec { path: "/x".into(), ..UnixSpec::default() };
        assert_eq!(plain("/x,local"), Ok(ListenAddress::Unix(bare.clone())));
        assert_eq!(UnixSpec::parse("/x"), Ok(bare));
    }

    #[test]
    fn refusals_tell_why() {
        for (text, message) in [
            ("8000,foo", "invalid param: foo"),
            ("8000,", "invalid param: "),
            ("8000,known=1", "invalid param: known=1"),
            ("8000,mode=660", "invalid param: mode=660"),
            ("8000,user=x", "invalid param: user=x"),
            ("/x,local,foo=1", "invalid param: foo=1"),
            ("/x,local,user=", "invalid param: user="),
            ("/x,local,mode=9", "mode must be octal, at most 7777: 9"),
            (",local", "there is no path"),
            ("", "invalid port "),
            ("http", "invalid port http"),
            ("/run/x", "invalid port /run/x"),
            ("65536", "invalid port 65536"),
            ("127.0.0.1:+80", "invalid port +80"),
            ("localhost:80", "invalid socket address syntax: localhost:80"),
            (":80", "invalid socket address syntax: :80"),
            ("::1:80", "invalid socket address syntax: ::1:80"),
        ] {
            assert_eq!(plain(text).unwrap_err().to_string(), message, "{text:?}");
        }
        for (text, message) in [
            ("", "there is no path"),
            (",mode=600", "there is no path"),
            ("/x,local", "invalid param: local"),
            ("/x,known", "invalid param: known"),
            ("/x,group=", "invalid param: group="),
            ("/x,mode=x", "mode must be octal, at most 7777: x"),
        ] {
            assert_eq!(UnixSpec::parse(text).unwrap_err().to_string(), message, "{text:?}");
        }
    }
}
