//! What `publish` and `tail` have in common: an HTTP client, and patience with a server that restarts.

pub(crate) mod sse;

use std::time::Duration;

use clap::Args;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

/// How long a server may take to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a server may take to begin an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// The longest time between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Where the server is.
#[derive(Args, Clone, Debug)]
pub(crate) struct ServerArgs {
    /// Where the edge listens
    #[arg(
        long,
        env = "FOREBAY_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:8000",
        value_parser = parse_url
    )]
    url: String,
}

/// Checks that it is where a server can be. Returns it without a slash at its end.
fn parse_url(text: &str) -> Result<String, &'static str> {
    let uri = text.parse::<Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.query().is_none()
    });
    uri.map(|_| text.trim_end_matches('/').to_owned()).ok_or("not a URL such as http://HOST:PORT")
}

impl ServerArgs {
    /// The URL of a path; parts of the path must need no escaping.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }
}

/// A client that reports every status as an answer.
pub(crate) fn agent() -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .user_agent(concat!("forebay/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// Whether the same request may succeed later: the server restarts, or the network is in trouble.
pub(crate) fn may_pass(error: &ureq::Error) -> bool {
    use ureq::Error;
    matches!(
        error,
        Error::Io(_)
            | Error::Timeout(_)
            | Error::HostNotFound
            | Error::ConnectionFailed
            | Error::Protocol(_)
    )
}

/// Whether the same request may succeed later: refused for now, or a handler that left in the middle.
pub(crate) fn is_transient(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// How long to wait before the next try: what the server says, or a little more each time.
pub(crate) fn wait_before_retry(headers: Option<&HeaderMap>, attempt: u32) -> Duration {
    let told = headers
        .and_then(|headers| headers.get("retry-after"))
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    told.unwrap_or_else(|| {
        (Duration::from_millis(100) * 2u32.saturating_pow(attempt.min(10))).min(BACKOFF_MAX)
    })
}

/// The text of an answer, for people; at most a kilobyte.
pub(crate) fn text_of(response: &mut Response<Body>) -> String {
    let status = response.status();
    let body = response.body_mut().with_config().limit(1024).read_to_string().unwrap_or_default();
    format!("{status}: {}", body.trim_end())
}

/// Escapes a query value (RFC 3986 §2.1).
pub(crate) fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_values_are_escaped() {
        assert_eq!(escape("a-Z_0.~:*/ é"), "a-Z_0.~%3A%2A%2F%20%C3%A9");
    }

    #[test]
    fn a_url_is_where_a_server_can_be() {
        assert_eq!(parse_url("http://[::1]:8000/"), Ok("http://[::1]:8000".to_owned()));
        assert_eq!(parse_url("https://a.example/b"), Ok("https://a.example/b".to_owned()));
        for bad in ["", "localhost:8000", "/a", "ftp://a", "http://", "http://a b", "http://a?b"] {
            assert!(parse_url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_server_says_when_to_come_again() {
        let mut headers = HeaderMap::new();
        assert_eq!(wait_before_retry(Some(&headers), 0), Duration::from_millis(100));
        assert_eq!(wait_before_retry(None, 3), Duration::from_millis(800));
        assert_eq!(wait_before_retry(None, 99), BACKOFF_MAX);
        headers.insert("retry-after", ureq::http::HeaderValue::from_static("3"));
        assert_eq!(wait_before_retry(Some(&headers), 0), Duration::from_secs(3));
    }
}
