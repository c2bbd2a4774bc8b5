//! `--prometheus`: where metrics are served, and what their names begin with.
//!
//! ```text
//! [address:]port[,prefix=P]                               9090   127.0.0.1:9090,prefix=edge1
//! path,local[,prefix=P][,mode=][,user=][,group=]          /run/metrics.sock,local,mode=660
//! ```
//!
//! As in pushpin-connmgr: with `prefix=edge1`, `connmgr_requests_total` becomes `edge1_connmgr_requests_total`, and
//! underscores at the end of the prefix are not doubled.

use std::str::FromStr;

use super::address::{self, AddressError, ListenAddress};

/// The longest prefix, in bytes. It is in every line of an answer.
pub const PREFIX_LEN_MAX: usize = 64;

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusSpec {
    /// Where.
    pub address: ListenAddress,
    /// What stands before each name, without the underscore between; empty for none.
    pub prefix: String,
}

impl FromStr for PrometheusSpec {
    type Err = AddressError;

    fn from_str(spec: &str) -> Result<Self, AddressError> {
        let mut prefix = String::new();
        let address = address::parse(spec, |param, _| {
            let Some(value) = param.strip_prefix("prefix=") else { return Ok(false) };
            if !is_prefix(value) {
                return Err(AddressError::InvalidPrefix { prefix: value.to_owned() });
            }
            prefix = value.trim_end_matches('_').to_owned();
            Ok(true)
        })?;
        Ok(PrometheusSpec { address, prefix })
    }
}

/// Whether a metric's name may begin so (Prometheus' data model; colons are for recording rules).
fn is_prefix(text: &str) -> bool {
    (1..=PREFIX_LEN_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        && !text.starts_with(|first: char| first.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::config::UnixSpec;

    #[test]
    fn parses() {
        for (text, place, prefix) in [
            ("9090", "0.0.0.0:9090", ""),
            ("127.0.0.1:0,prefix=a", "127.0.0.1:0", "a"),
            ("[::1]:9090,prefix=_a_9__", "[::1]:9090", "_a_9"),
        ] {
            let spec: PrometheusSpec = text.parse().unwrap();
            assert_eq!((spec.address.to_string().as_str(), spec.prefix.as_str()), (place, prefix));
        }
        let spec: PrometheusSpec = "/x,prefix=p_,mode=660,local,group=g".parse().unwrap();
        let group = Some("g".to_owned());
        let unix = UnixSpec { path: "/x".into(), mode: Some(0o660), user: None, group };
        let expected =
            PrometheusSpec { address: ListenAddress::Unix(unix), prefix: "p".to_owned() };
        assert_eq!(spec, expected);
    }

    #[test]
    fn refusals_tell_why() {
        let long = format!("9090,prefix={}", "x".repeat(PREFIX_LEN_MAX + 1));
        let bad_prefixes = ["9090,prefix=", "9090,prefix=9a", "9090,prefix=a-b", "9090,prefix=é"];
        for text in bad_prefixes.iter().copied().chain([long.as_str()]) {
            let error = text.parse::<PrometheusSpec>().unwrap_err();
            assert!(matches!(error, AddressError::InvalidPrefix { .. }), "{text}: {error}");
        }
        for (text, message) in [
            ("9090,stream", "invalid param: stream"),
            ("9090,prefix", "invalid param: prefix"),
            ("9090,mode=600", "invalid param: mode=600"),
            ("x,prefix=a", "invalid port x"),
            (
                "9090,prefix=a b",
                "prefix must be 1 to 64 letters, digits and underscores, no digit first: a b",
            ),
        ] {
            assert_eq!(text.parse::<PrometheusSpec>().unwrap_err().to_string(), message);
        }
    }
}
