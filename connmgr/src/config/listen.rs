//! Listen specs: where clients connect, and how their requests go to handlers.
//!
//! A place ([`ListenAddress`]), and behind it `stream` or `req`. `stream` is the default and beats `req`, whatever
//! their order (pushpin-connmgr; in condure the last one wins).
//!
//! What cannot be served yet (`tls`, `default-cert`) is parsed and refused, so that the error tells an unsupported
//! parameter from a misspelt one.

use std::fmt;
use std::str::FromStr;

use forebay_core::worker::Mode;

use super::address::{self, AddressError, ListenAddress};

/// One place where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenSpec {
    /// Where.
    pub address: ListenAddress,
    /// How the requests of these clients go to handlers.
    pub mode: Mode,
}

impl FromStr for ListenSpec {
    type Err = AddressError;

    fn from_str(spec: &str) -> Result<Self, AddressError> {
        let (mut is_stream, mut is_req) = (false, false);
        let address = address::parse(spec, |param, is_local| {
            match param {
                "stream" => is_stream = true,
                "req" => is_req = true,
                "tls" if !is_local => return Err(AddressError::NotSupported { param: "tls" }),
                _ if !is_local && param.starts_with("default-cert=") => {
                    return Err(AddressError::NotSupported { param: "default-cert" });
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let mode = if is_req && !is_stream { Mode::Req } else { Mode::Stream };
        Ok(ListenSpec { address, mode })
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
    fn what_condure_has_besides_is_refused_by_name() {
        for (text, message) in [
            ("8443,stream,tls", "tls is not supported yet"),
            ("8443,default-cert=a", "default-cert is not supported yet"),
            ("8443,default-cert", "invalid param: default-cert"),
            ("8000,stream=1", "invalid param: stream=1"),
            ("/x,local,tls", "invalid param: tls"),
            ("/x,local,default-cert=a", "invalid param: default-cert=a"),
        ] {
            assert_eq!(text.parse::<ListenSpec>().unwrap_err().to_string(), message, "{text:?}");
        }
    }
}
