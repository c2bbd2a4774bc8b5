//! The request line: method, target, version (RFC 9112 §3).
//!
//! `method SP request-target SP HTTP-version`, with single spaces and nothing else. The RFC lets a lenient recipient split at
//! any white space; two recipients that do so differently see two requests, so this one does not.
//!
//! A target is accepted if it is visible ASCII without `#`. That is more than RFC 3986 allows, because browsers follow
//! the WHATWG URL standard and send `|`, `{`, `^` and the like unescaped. A fragment never travels, and whoever gets a
//! `#` cuts it off or not: refused.

use super::authority;
use super::error::HeadError;

/// The version of HTTP that a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Version {
    /// HTTP/1.0: one request a connection unless both sides agree, no transfer codings.
    Http10,
    /// HTTP/1.1.
    Http11,
}

/// Which form a request target has (RFC 9112 §3.2). The fourth, authority-form, belongs to `CONNECT`, which is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetForm {
    /// `/path?query`: §3.2.1.
    Origin,
    /// `http://host/path?query`: §3.2.2. What it names wins over the `Host` field.
    Absolute,
    /// `*`, only with `OPTIONS`: §3.2.4.
    Asterisk,
}

/// A request line, taken apart.
pub(super) struct RequestLine<'b> {
    pub(super) method: &'b str,
    pub(super) target: Target<'b>,
    pub(super) version: Version,
}

/// A request target, taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target<'b> {
    pub(super) form: TargetForm,
    /// As it was sent.
    pub(super) text: &'b str,
    /// Only an absolute-form has one.
    pub(super) authority: Option<&'b str>,
    /// `/` if it was empty; `*` in asterisk-form and what is equivalent to it.
    pub(super) path: &'b str,
    /// Without the question mark.
    pub(super) query: Option<&'b str>,
}

impl<'b> RequestLine<'b> {
    /// Reads a line without its CRLF.
    pub(super) fn parse(line: &'b [u8], target_bytes_max: usize) -> Result<Self, HeadError> {
        let mut parts = line.split(|&byte| byte == b' ');
        let (Some(method), Some(target), Some(version), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(HeadError::RequestLine);
        };
        let method = parse_method(method)?;
        if target.len() > target_bytes_max {
            return Err(HeadError::TargetTooLong);
        }
        let version = parse_version(version)?;
        if method == "CONNECT" {
            return Err(HeadError::Connect);
        }
        let target = Target::parse(target, method)?;
        Ok(RequestLine { method, target, version })
    }
}

impl<'b> Target<'b> {
    fn parse(target: &'b [u8], method: &str) -> Result<Self, HeadError> {
        if !target.iter().all(|&byte| byte.is_ascii_graphic() && byte != b'#') {
            return Err(HeadError::Target);
        }
        let text = std::str::from_utf8(target).map_err(|_not_ascii| HeadError::Target)?;
        if text.starts_with('/') {
            let (path, query) = split_query(text);
            return Ok(Target { form: TargetForm::Origin, text, authority: None, path, query });
        }
        if text == "*" && method == "OPTIONS" {
            let form = TargetForm::Asterisk;
            return Ok(Target { form, text, authority: None, path: text, query: None });
        }
        Target::parse_absolute(text, method)
    }

    /// absolute-form (§3.2.2), with the schemes that an HTTP server answers for (RFC 9110 §4.2).
    fn parse_absolute(text: &'b str, method: &str) -> Result<Self, HeadError> {
        let (scheme, rest) = text.split_once("://").ok_or(HeadError::Target)?;
        if !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)) {
            return Err(HeadError::Target);
        }
        let authority_len = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path_and_query) = rest.split_at(authority_len);
        // RFC 9110 §4.2.1: an http URI has a host; §4.2.4: user information in it is an error.
        if authority.is_empty()
            || authority.starts_with(':')
            || !authority::is_valid(authority.as_bytes())
        {
            return Err(HeadError::Target);
        }
        let (path, query) = match split_query(path_and_query) {
            // §3.2.4: this is how OPTIONS * looks on its way through a proxy.
            ("", None) if method == "OPTIONS" => ("*", None),
            // RFC 9110 §4.2.3: an empty path is the same as "/".
            ("", query) => ("/", query),
            split => split,
        };
        let form = TargetForm::Absolute;
        Ok(Target { form, text, authority: Some(authority), path, query })
    }
}

fn parse_method(method: &[u8]) -> Result<&str, HeadError> {
    if !is_token(method) {
        return Err(HeadError::Method);
    }
    if method.len() > METHOD_BYTES_MAX {
        return Err(HeadError::MethodTooLong);
    }
    std::str::from_utf8(method).map_err(|_not_ascii| HeadError::Method)
}

/// `"HTTP/" DIGIT "." DIGIT`, case-sensitive (RFC 9112 §2.3).
///
/// RFC 9110 §2.5 would have a later 1.x read as 1.1. None exists or will; what says that it is one is a probe for a
/// reader that takes it for 1.0 and does not heed `Transfer-Encoding`.
fn parse_version(version: &[u8]) -> Result<Version, HeadError> {
    match version {
        b"HTTP/1.1" => Ok(Version::Http11),
        b"HTTP/1.0" => Ok(Version::Http10),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            Err(HeadError::VersionNotSupported)
        }
        _ => Err(HeadError::RequestLine),
    }
}

fn split_query(text: &str) -> (&str, Option<&str>) {
    match text.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (text, None),
    }
}

/// `token = 1*tchar` (RFC 9110 §5.6.2).
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().copied().all(is_tchar)
}

/// `tchar` (RFC 9110 §5.6.2).
pub(super) fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The longest method that is read, in bytes; a longer one is answered with 501. The longest registered one
/// (`UPDATEREDIRECTREF`) has 17.
pub const METHOD_BYTES_MAX: usize = 32;

/// The length of `HTTP/1.1`.
pub(super) const VERSION_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn path_and_query(line: &str) -> (&str, Option<&str>) {
        let target = RequestLine::parse(line.as_bytes(), 100).map_err(|e| e.to_string()).unwrap();
        (target.target.path, target.target.query)
    }

    #[test]
    fn takes_targets_apart() {
        for (line, path, query) in [
            ("GET / HTTP/1.1", "/", None),
            ("GET /a?b?c HTTP/1.1", "/a", Some("b?c")),
            ("GET /? HTTP/1.1", "/", Some("")),
            ("GET //a HTTP/1.1", "//a", None),
            ("GET http://h HTTP/1.1", "/", None),
            ("GET http://h?q HTTP/1.1", "/", Some("q")),
            ("GET HTTPS://h:1/a?q HTTP/1.1", "/a", Some("q")),
            ("OPTIONS * HTTP/1.1", "*", None),
            ("OPTIONS http://h HTTP/1.1", "*", None),
            ("OPTIONS http://h/ HTTP/1.1", "/", None),
            ("OPTIONS http://h?q HTTP/1.1", "/", Some("q")),
        ] {
            assert_eq!(path_and_query(line), (path, query), "{line}");
        }
    }
}
