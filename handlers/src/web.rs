//! What the public routes share: the head of a request as they look at it, percent-decoding, and
//! the answers that are the same everywhere.
//!
//! Routes take a [`RequestHead`] and not the request itself: so each can be tested without an edge,
//! and none can read a body by accident before it has decided that it wants one.
//!
//! Every answer of a public route carries `Access-Control-Allow-Origin: *` (`docs/channels.md`): what is
//! protected is protected by a token that the page must have, never by a cookie, so there is
//! nothing that another origin could borrow. Preflights (Fetch standard, §3.2) are answered here.

use std::borrow::Cow;

use bytes::Bytes;

use crate::attach::{Request, Response};
use crate::auth::BearerError;
use crate::store::{ChannelName, NameError};

/// How long a browser may remember a preflight, in seconds. Browsers cut it to between 2 and 24
/// hours.
const PREFLIGHT_MAX_AGE_S: u32 = 86_400;

/// After how many seconds a client may ask again when the store is away. It comes back within
/// seconds or after minutes; a longer wait would help nobody in the first case.
pub(crate) const STORE_RETRY_AFTER_S: u64 = 1;

/// The answer's text while the store is away.
pub(crate) const STORE_AWAY: &str = "Store unavailable";

/// The head of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestHead<'a> {
    /// In upper case, as it came.
    pub(crate) method: &'a str,
    /// Percent-encoded, without the query.
    pub(crate) path: &'a str,
    /// What follows the `?`, percent-encoded.
    pub(crate) query: Option<&'a str>,
    pub(crate) headers: &'a [(String, Bytes)],
    /// What the client says about the size of its body, if anything.
    pub(crate) content_length: Option<u64>,
}

impl<'a> From<&'a Request> for RequestHead<'a> {
    fn from(request: &'a Request) -> Self {
        RequestHead {
            method: &request.method,
            path: request.path(),
            query: request.query(),
            headers: &request.headers,
            content_length: request.content_length(),
        }
    }
}

impl<'a> RequestHead<'a> {
    /// The first header of that name, whatever its case (RFC 9110 §5.1).
    pub(crate) fn header(&self, name: &str) -> Option<&'a [u8]> {
        let is_named = |(own, _): &&(String, Bytes)| own.eq_ignore_ascii_case(name);
        self.headers.iter().find(is_named).map(|(_, value)| &value[..])
    }

    /// The first parameter of that name in the query.
    pub(crate) fn parameter(&self, name: &str) -> Result<Option<Cow<'a, str>>, Malformed> {
        Ok(self.parameters(name)?.into_iter().next())
    }

    /// All parameters of that name in the query, decoded, in their order. What the values of others
    /// hold is not looked at.
    pub(crate) fn parameters(&self, name: &str) -> Result<Vec<Cow<'a, str>>, Malformed> {
        let pairs = self.query.unwrap_or_default().split('&');
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let mut values = Vec::new();
        for (key, value) in pairs {
            if form_decoded(key).is_ok_and(|key| key == name) {
                values.push(form_decoded(value)?);
            }
        }
        Ok(values)
    }
}

/// A percent-encoding that is none, or that is not of UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Malformed percent-encoding")]
pub(crate) struct Malformed;

/// Decodes a part of a path (RFC 3986 §2.1).
pub(crate) fn percent_decoded(text: &str) -> Result<Cow<'_, str>, Malformed> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let (&[high, low], after) = rest.split_first_chunk().ok_or(Malformed)?;
        decoded.push(hex_digit(high).ok_or(Malformed)? << 4 | hex_digit(low).ok_or(Malformed)?);
        rest = after;
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|_| Malformed)
}

/// Decodes a key or a value of a query (WHATWG URL, `application/x-www-form-urlencoded`): there a
/// `+` is a space. No channel, token or cursor has one.
fn form_decoded(text: &str) -> Result<Cow<'_, str>, Malformed> {
    if !text.contains('+') {
        return percent_decoded(text);
    }
    let spaced = text.replace('+', " ");
    percent_decoded(&spaced).map(|decoded| Cow::Owned(decoded.into_owned()))
}

fn hex_digit(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

/// The channel that the rest of a path names as `{org}/{channel}`; `None` if it has another form.
pub(crate) fn channel_of_path(rest: &str) -> Option<Result<ChannelName, PathError>> {
    let (org, channel) = rest.split_once('/')?;
    if channel.contains('/') || channel.is_empty() {
        return None;
    }
    let name = || Ok(ChannelName::new(&percent_decoded(org)?, &percent_decoded(channel)?)?);
    Some(name())
}

/// The org that is the rest of a path; `None` if it has another form.
pub(crate) fn org_of_path(rest: &str) -> Option<Result<String, PathError>> {
    if rest.is_empty() || rest.contains('/') {
        return None;
    }
    let name = || Ok(ChannelName::new(&percent_decoded(rest)?, "any")?.org().to_owned());
    Some(name())
}

/// What is wrong with a name in a path. The text is the body of the 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    #[error("Invalid path: malformed percent-encoding")]
    Encoding,
    #[error("Invalid path: {0}")]
    Name(#[from] NameError),
}

impl From<Malformed> for PathError {
    fn from(Malformed: Malformed) -> Self {
        PathError::Encoding
    }
}

/// 404.
pub(crate) fn not_found() -> Response {
    Response::text(404, "Not found")
}

/// 405; `allow` names what the resource has instead (RFC 9110 §15.5.6).
pub(crate) fn method_not_allowed(allow: &str) -> Response {
    Response::text(405, "Method not allowed").header("Allow", allow)
}

/// 401 with the challenge that RFC 9110 §15.5.2 asks for.
pub(crate) fn unauthorized(body: impl Into<String>) -> Response {
    Response::text(BearerError::STATUS, body).header("WWW-Authenticate", "Bearer")
}

/// The answer to a token that was refused: 401, or 403 without a challenge.
pub(crate) fn token_refused((code, body): (u16, &str)) -> Response {
    if code == BearerError::STATUS { unauthorized(body) } else { Response::text(code, body) }
}

/// 503: try again soon.
pub(crate) fn unavailable(body: impl Into<String>) -> Response {
    Response::text(503, body).header("Retry-After", STORE_RETRY_AFTER_S.to_string())
}

/// The answer to a preflight of a resource with these methods.
pub(crate) fn preflight(methods: &str) -> Response {
    Response::new(204)
        .header("Allow", methods)
        .header("Access-Control-Allow-Methods", methods)
        .header("Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID")
        .header("Access-Control-Max-Age", PREFLIGHT_MAX_AGE_S.to_string())
}

/// What a page may read of an answer only if it is told so (Fetch standard, §3.2.3, "CORS-safelisted
/// response-header name").
const EXPOSED: [&str; 3] = ["Retry-After", "Forebay-Limit", "Forebay-Duplicate"];

/// Lets pages of any origin read the answer, and those of its headers that say something.
pub(crate) fn with_cors(response: Response) -> Response {
    let is_there = |name: &&str| response.headers.iter().any(|(own, _)| own == name);
    let exposed: Vec<&str> = EXPOSED.into_iter().filter(is_there).collect();
    let response = response.header("Access-Control-Allow-Origin", "*");
    if exposed.is_empty() {
        return response;
    }
    response.header("Access-Control-Expose-Headers", exposed.join(", "))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn pages_may_read_what_answers_say() {
        let exposed = |response: Response| {
            let mut headers = with_cors(response).headers.into_iter();
            assert!(
                headers.any(|header| header == ("Access-Control-Allow-Origin".into(), "*".into()))
            );
            headers
                .find(|(name, _)| name == "Access-Control-Expose-Headers")
                .map(|(_, value)| value)
        };
        assert_eq!(exposed(Response::new(204)), None);
        let limited = unavailable("no").header("Forebay-Limit", "channel-rate");
        assert_eq!(exposed(limited).as_deref(), Some("Retry-After, Forebay-Limit"));
    }

    /// The head of a request for a URI, with headers.
    pub(crate) fn head_of<'a>(
        method: &'a str,
        uri: &'a str,
        headers: &'a [(String, Bytes)],
    ) -> RequestHead<'a> {
        let (path, query) = match uri.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (uri, None),
        };
        RequestHead { method, path, query, headers, content_length: None }
    }

    /// Headers from text.
    pub(crate) fn headers_of(headers: &[(&str, &str)]) -> Vec<(String, Bytes)> {
        let owned = |text: &str| Bytes::copy_from_slice(text.as_bytes());
        headers.iter().map(|(name, value)| ((*name).to_owned(), owned(value))).collect()
    }

    #[test]
    fn percent_encodings_are_decoded_or_refused() {
        assert_eq!(percent_decoded("a%2Fb%c3%a4").unwrap(), "a/bä");
        assert_eq!(percent_decoded("a+b").unwrap(), "a+b");
        assert_eq!(form_decoded("a+b%2B").unwrap(), "a b+");
        for bad in ["%", "%2", "%zz", "a%+1", "%ff", "%c3x"] {
            assert_eq!(percent_decoded(bad), Err(Malformed), "{bad}");
        }
    }

    #[test]
    fn parameters_are_found_by_their_decoded_names() {
        let head = head_of("GET", "/x?a=1&b=2&%61=3&a&c=%zz&a=x=y", &[]);
        assert_eq!(head.parameters("a").unwrap(), ["1", "3", "", "x=y"]);
        assert_eq!(head.parameter("b").unwrap().as_deref(), Some("2"));
        assert_eq!(head.parameter("none").unwrap(), None);
        assert_eq!(head.parameter("c"), Err(Malformed));
    }

    #[test]
    fn paths_name_channels() {
        let name = |rest: &str| channel_of_path(rest).map(|name| name.map(|name| name.to_string()));
        assert_eq!(name("acme/a%3Ab").unwrap().unwrap(), "acme:a:b");
        let upper = "7/97F58C19-CE38-4C6B-8A5B-47F3405691F0";
        assert_eq!(name(upper).unwrap().unwrap(), "7:97f58c19-ce38-4c6b-8a5b-47f3405691f0");
        for other in ["", "acme", "acme/", "acme/a/b", "acme/a/"] {
            assert_eq!(name(other), None, "{other}");
        }
        assert_eq!(name("a%2/b"), Some(Err(PathError::Encoding)));
        assert_eq!(
            name("acme/a%2Fb").unwrap().unwrap_err().to_string(),
            "Invalid path: a channel is 1 to 128 of A-Z a-z 0-9 _ . : ~ -"
        );
        assert_eq!(name("a.b/c"), Some(Err(PathError::Name(NameError::Org))));
    }

    #[test]
    fn paths_name_orgs() {
        let org = |rest: &str| org_of_path(rest).map(|org| org.map_err(|error| error.to_string()));
        assert_eq!(org("a%2Dc"), Some(Ok("a-c".to_owned())));
        assert_eq!(org(""), None);
        assert_eq!(org("a/b"), None);
        let wrong = "Invalid path: an org is 1 to 64 of A-Z a-z 0-9 _ -";
        for other in ["a.b", "a%2Fb", &"o".repeat(65)] {
            assert_eq!(org(other), Some(Err(wrong.to_owned())), "{other}");
        }
        assert_eq!(org("%"), Some(Err("Invalid path: malformed percent-encoding".to_owned())));
    }

    #[test]
    fn headers_have_no_case() {
        let headers = headers_of(&[("AUTHORIZATION", "1"), ("authorization", "2")]);
        let head = head_of("GET", "/", &headers);
        assert_eq!(head.header("Authorization"), Some(&b"1"[..]));
        assert_eq!(head.header("other"), None);
    }
}
