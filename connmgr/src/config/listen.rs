//! Listen specs: where clients connect.
//!
//! ```text
//! [address:]port[,param…]      127.0.0.1:8000   8000,stream   [::1]:8000
//! path,local[,param…]          /run/edge.sock,local,mode=660,group=www-data
//! ```
//!
//! The grammar is that of condure 1.10 and pushpin-connmgr. A port alone is all of IPv4; an address is an IP
//! address, never a name. `stream` is the default and beats `req`, whatever their order (pushpin-connmgr; in
//! condure the last one wins). `mode`, `user` and `group` are for sockets in the file system.
//!
//! What cannot be served yet (`req` without `stream`, `tls`, `default-cert`) is parsed and refused, so that the error
//! tells an unsupported parameter from a misspelt one.

use std::fmt;
use std::net::{AddrParseError, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use super::value::{FILE_MODE_MAX, parse_file_mode};

/// One place to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenSpec {
    /// A TCP port. `[::]` takes IPv4 clients too.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(UnixSpec),
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

/// Why a listen spec was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ListenSpecError {
    /// A parameter that does not exist, or not for this kind of address, or lacks its value.
    #[error("failed to parse listen: invalid param: {param}")]
    InvalidParam {
        /// The parameter, as it was typed.
        param: String,
    },
    /// The port is no number up to 65535.
    #[error("failed to parse listen: invalid port {port}")]
    InvalidPort {
        /// What was typed after the last colon.
        port: String,
    },
    /// What stands before the port is no IP address.
    #[error("failed to parse listen: {reason}: {address}")]
    InvalidAddress {
        /// The address with its port, as it was typed.
        address: String,
        /// What the parser says.
        reason: AddrParseError,
    },
    /// `mode=` is not octal.
    #[error("failed to parse listen: mode must be octal, at most {FILE_MODE_MAX:o}: {mode}")]
    InvalidMode {
        /// The mode, as it was typed.
        mode: String,
    },
    /// `local` without a path before it.
    #[error("failed to parse listen: local needs a path")]
    NoPath,
    /// A parameter of Condure that Forebay does not have yet.
    #[error("failed to parse listen: {param} is not supported yet")]
    NotSupported {
        /// The parameter's name.
        param: &'static str,
    },
}

impl FromStr for ListenSpec {
    type Err = ListenSpecError;

    fn from_str(spec: &str) -> Result<Self, ListenSpecError> {
        let mut parts = spec.split(',');
        let address = parts.next().unwrap_or_default();
        let params: Vec<&str> = parts.collect();
        // Which parameters there are depends on `local`, which may come last.
        let spec = if params.contains(&"local") {
            parse_unix(address, &params)?
        } else {
            parse_tcp(address, &params)?
        };
        if params.contains(&"req") && !params.contains(&"stream") {
            return Err(ListenSpecError::NotSupported { param: "req" });
        }
        Ok(spec)
    }
}

impl fmt::Display for ListenSpec {
    /// The address alone, as messages name it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenSpec::Tcp(address) => address.fmt(f),
            ListenSpec::Unix(unix) => unix.path.display().fmt(f),
        }
    }
}

fn parse_tcp(address: &str, params: &[&str]) -> Result<ListenSpec, ListenSpecError> {
    for &param in params {
        match param.split_once('=') {
            None if matches!(param, "stream" | "req") => {}
            None if param == "tls" => return Err(ListenSpecError::NotSupported { param: "tls" }),
            Some(("default-cert", _)) => {
                return Err(ListenSpecError::NotSupported { param: "default-cert" });
            }
            None | Some(_) => return Err(invalid(param)),
        }
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) => (Some(host), port),
        None => (None, address),
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if !digits || port.parse::<u16>().is_err() {
        return Err(ListenSpecError::InvalidPort { port: port.to_owned() });
    }
    let full = format!("{}:{port}", host.unwrap_or("0.0.0.0"));
    match full.parse() {
        Ok(address) => Ok(ListenSpec::Tcp(address)),
        Err(reason) => Err(ListenSpecError::InvalidAddress { address: full, reason }),
    }
}

fn parse_unix(path: &str, params: &[&str]) -> Result<ListenSpec, ListenSpecError> {
    if path.is_empty() {
        return Err(ListenSpecError::NoPath);
    }
    let mut unix = UnixSpec { path: path.into(), ..UnixSpec::default() };
    for &param in params {
        match param.split_once('=') {
            None if matches!(param, "local" | "stream" | "req") => {}
            Some((_, "")) => return Err(invalid(param)),
            Some(("mode", mode)) => {
                let parsed = parse_file_mode(mode);
                let refused = |_| ListenSpecError::InvalidMode { mode: mode.to_owned() };
                unix.mode = Some(parsed.map_err(refused)?);
            }
            Some(("user", user)) => unix.user = Some(user.to_owned()),
            Some(("group", group)) => unix.group = Some(group.to_owned()),
            None | Some(_) => return Err(invalid(param)),
        }
    }
    Ok(ListenSpec::Unix(unix))
}

fn invalid(param: &str) -> ListenSpecError {
    ListenSpecError::InvalidParam { param: param.to_owned() }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn tcp() {
        for (text, address) in [
            ("8000", "0.0.0.0:8000"),
            ("8000,stream", "0.0.0.0:8000"),
            ("8000,req,stream", "0.0.0.0:8000"),
            ("8000,stream,req", "0.0.0.0:8000"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("0.0.0.0:7999,stream", "0.0.0.0:7999"),
            ("[::1]:8000", "[::1]:8000"),
            ("[::]:65535,stream", "[::]:65535"),
        ] {
            let spec: ListenSpec = text.parse().unwrap();
            assert_eq!(spec, ListenSpec::Tcp(address.parse().unwrap()), "{text}");
            assert_eq!(spec.to_string(), address);
        }
    }

    #[test]
    fn unix() {
        let plain = UnixSpec { path: "/run/x y".into(), ..UnixSpec::default() };
        for text in ["/run/x y,local", "/run/x y,local,stream", "/run/x y,req,stream,local"] {
            assert_eq!(text.parse(), Ok(ListenSpec::Unix(plain.clone())), "{text}");
        }
        let spec: ListenSpec = "s,mode=0660,user=www,group=web,stream,local".parse().unwrap();
        let full = UnixSpec {
            path: "s".into(),
            mode: Some(0o660),
            user: Some("www".into()),
            group: Some("web".into()),
        };
        assert_eq!(spec, ListenSpec::Unix(full));
        assert_eq!(spec.to_string(), "s");
    }

    #[test]
    fn refusals_tell_why() {
        for (text, message) in [
            ("8000,foo", "invalid param: foo"),
            ("8000,", "invalid param: "),
            ("8000,stream=1", "invalid param: stream=1"),
            ("8000,mode=660", "invalid param: mode=660"),
            ("8000,user=x", "invalid param: user=x"),
            ("/x,local,tls", "invalid param: tls"),
            ("/x,local,default-cert=a", "invalid param: default-cert=a"),
            ("/x,local,user=", "invalid param: user="),
            ("/x,local,mode=9", "mode must be octal, at most 7777: 9"),
            (",local", "local needs a path"),
            ("", "invalid port "),
            ("http", "invalid port http"),
            ("/run/x", "invalid port /run/x"),
            ("65536", "invalid port 65536"),
            ("127.0.0.1:+80", "invalid port +80"),
            ("localhost:80", "invalid socket address syntax: localhost:80"),
            (":80", "invalid socket address syntax: :80"),
            ("::1:80", "invalid socket address syntax: ::1:80"),
            ("8000,req", "req is not supported yet"),
            ("/x,local,req", "req is not supported yet"),
            ("8443,stream,tls", "tls is not supported yet"),
            ("8443,default-cert=a", "default-cert is not supported yet"),
        ] {
            let error = text.parse::<ListenSpec>().unwrap_err();
            assert_eq!(error.to_string(), format!("failed to parse listen: {message}"), "{text:?}");
        }
    }
}
