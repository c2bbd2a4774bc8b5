//! Requests: where they go, and the text of each, made from a template.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};

use super::frames;

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// As it was given, which is what `Host` says.
    pub(crate) host: String,
    pub(crate) address: SocketAddr,
}

/// Resolves `HOST:PORT`.
///
/// # Errors
/// Says what is wrong with it, or that there is no such host.
pub fn parse_target(text: &str) -> Result<Target, String> {
    let mut addresses = text.to_socket_addrs().map_err(|error| {
        let has_port = text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        if has_port { crate::error::words(&error) } else { "not HOST:PORT".to_owned() }
    })?;
    let address = addresses.next().ok_or("there is no such host")?;
    Ok(Target { host: text.to_owned(), address })
}

/// A text with a place for a number, `{n}` or `{c}`. All other braces are what they are, so that it may be JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<String>,
    /// The number is that of a connection, and what is written is its remainder.
    modulo: Option<u64>,
}

impl Template {
    /// Cuts a text at each place for a number.
    pub(crate) fn new(text: &str, place: &str) -> Template {
        Template { parts: text.split(place).map(str::to_owned).collect(), modulo: None }
    }

    /// The same, for numbers that go round.
    pub(crate) fn modulo(self, modulo: u64) -> Template {
        Template { modulo: Some(modulo), ..self }
    }

    /// Writes it with a number in its places.
    pub(crate) fn write(&self, number: u64, out: &mut Vec<u8>) {
        let number = self.modulo.map_or(number, |modulo| number % modulo);
        let mut parts = self.parts.iter();
        out.extend(parts.next().into_iter().flat_map(|part| part.as_bytes()));
        for part in parts {
            out.extend_from_slice(number.to_string().as_bytes());
            out.extend_from_slice(part.as_bytes());
        }
    }

    fn text(&self) -> String {
        self.parts.concat()
    }
}

/// Checks a path with its query (RFC 9112 §3.2.1), which may be a template.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse_path(text: &str) -> Result<String, &'static str> {
    if !text.starts_with('/') {
        return Err("a path begins with /");
    }
    let is_good = text.bytes().all(|byte| byte.is_ascii_graphic());
    is_good.then(|| text.to_owned()).ok_or("has characters that must be escaped")
}

/// A header field that is sent with each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header(String);

/// Checks a header field, `Name: value` (RFC 9110 §5).
///
/// # Errors
/// Says what is wrong with it.
pub fn parse_header(text: &str) -> Result<Header, &'static str> {
    let (name, value) = text.split_once(':').ok_or("not 'Name: value'")?;
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err("the name of a header field has other characters than it may have");
    }
    if value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err("the value of a header field has control characters");
    }
    Ok(Header(format!("{name}: {}", value.trim())))
}

impl Header {
    /// A field whose name and value are known to be good.
    #[must_use]
    pub fn new(name: &str, value: &str) -> Header {
        Header(format!("{name}: {value}"))
    }

    /// Whether it is the field of this name.
    pub(crate) fn has_name(&self, name: &str) -> bool {
        self.0.split_once(':').is_some_and(|(own, _)| own.eq_ignore_ascii_case(name))
    }
}

/// What is asked, of which connection or channel is the number.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    method: &'static str,
    path: Template,
    /// The rest of the head, without its end.
    fields: String,
}

impl Request {
    /// A request without a body.
    pub(crate) fn get(target: &Target, path: Template, headers: &[Header]) -> Request {
        Request::new("GET", target, path, headers)
    }

    /// A request whose body is given when it is written.
    pub(crate) fn post(target: &Target, path: Template, headers: &[Header]) -> Request {
        Request::new("POST", target, path, headers)
    }

    /// A handshake (RFC 6455 §4.1), but for its key.
    pub(crate) fn upgrade(target: &Target, path: Template, headers: &[Header]) -> Request {
        let mut request = Request::new("GET", target, path, headers);
        request
            .fields
            .push_str("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n");
        request
    }

    fn new(method: &'static str, target: &Target, path: Template, headers: &[Header]) -> Request {
        let mut fields = format!(" HTTP/1.1\r\nHost: {}\r\n", target.host);
        for Header(field) in headers {
            fields.push_str(field);
            fields.push_str("\r\n");
        }
        Request { method, path, fields }
    }

    fn write_head(&self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method.as_bytes());
        out.push(b' ');
        self.path.write(number, out);
        out.extend_from_slice(self.fields.as_bytes());
    }

    /// Writes it without a body.
    pub(crate) fn write(&self, number: u64, out: &mut Vec<u8>) {
        self.write_head(number, out);
        out.extend_from_slice(b"\r\n");
    }

    /// Writes it as a handshake, with the key that this connection has.
    pub(crate) fn write_upgrade(&self, number: u64, out: &mut Vec<u8>) {
        self.write_head(number, out);
        let key = frames::key(number);
        out.extend_from_slice(format!("Sec-WebSocket-Key: {key}\r\n\r\n").as_bytes());
    }

    /// Writes it with a body.
    pub(crate) fn write_with(&self, number: u64, body: &[u8], out: &mut Vec<u8>) {
        self.write_head(number, out);
        out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        out.extend_from_slice(body);
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.method, self.path.text())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn target() -> Target {
        parse_target("127.0.0.1:8000").unwrap()
    }

    #[test]
    fn a_request_is_these_bytes() {
        let header = parse_header("A:  b ").unwrap();
        let path = Template::new("/x/{n}?{n}{c}", "{n}");
        let mut out = Vec::new();
        Request::get(&target(), path.clone(), &[header]).write(12, &mut out);
        assert_eq!(out, b"GET /x/12?12{c} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nA: b\r\n\r\n");
        out.clear();
        Request::post(&target(), path.clone(), &[]).write_with(0, b"body", &mut out);
        let text =
            "POST /x/0?0{c} HTTP/1.1\r\nHost: 127.0.0.1:8000\r\nContent-Length: 4\r\n\r\nbody";
        assert_eq!(out, text.as_bytes());
        out.clear();
        Request::upgrade(&target(), path, &[]).write_upgrade(7, &mut out);
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.ends_with(&format!("Sec-WebSocket-Key: {}\r\n\r\n", frames::key(7))),
            "{text}"
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        assert_eq!(parse_target("localhost"), Err("not HOST:PORT".to_owned()));
        assert_eq!(parse_target("127.0.0.1:99999"), Err("not HOST:PORT".to_owned()));
        assert!(parse_path("x").is_err() && parse_path("/a b").is_err());
        assert_eq!(parse_path("/a?b={n}"), Ok("/a?b={n}".to_owned()));
        for bad in ["x", ": x", "a b: x", "A: x\r\nB: y"] {
            assert!(parse_header(bad).is_err(), "{bad}");
        }
    }
}
