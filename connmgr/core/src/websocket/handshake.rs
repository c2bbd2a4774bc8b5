//! How a request becomes a WebSocket (RFC 6455 §4).
//!
//! The edge answers for the protocol: it judges the handshake, makes `Sec-WebSocket-Accept`, and agrees on compression.
//! Whether the client may come, and which sub-protocol is spoken, is for the handler to say; its other fields go to the
//! client. `Origin` is the handler's business too.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

use super::deflate::Deflate;
use crate::http1::{
    BodyFraming, RequestHead, ResponseError, Version, check, is_dropped, write_field,
    write_status_line,
};

/// A handshake that is right, and waits for its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upgrade {
    accept: [u8; ACCEPT_BYTES],
    deflate: Option<Deflate>,
}

/// Base64 of a SHA-1.
const ACCEPT_BYTES: usize = 28;

/// Bytes of a key before it is encoded.
const KEY_BYTES: usize = 16;

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Why a request that wants to become a WebSocket does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// RFC 6455 §4.1.
    #[error("A WebSocket handshake is a GET")]
    Method,
    /// RFC 6455 §4.1.
    #[error("A WebSocket handshake needs HTTP/1.1")]
    HttpVersion,
    /// RFC 6455 §4.2.1, RFC 9110 §7.8.
    #[error("Connection does not say upgrade")]
    Connection,
    /// A body would be taken for frames.
    #[error("A WebSocket handshake has no body")]
    Body,
    /// RFC 6455 §4.4.
    #[error("Sec-WebSocket-Version is not 13")]
    Version,
    /// RFC 6455 §4.2.1.
    #[error("Sec-WebSocket-Key is not the base64 of 16 bytes")]
    Key,
}

impl HandshakeError {
    /// The status of the answer.
    pub fn status(self) -> u16 {
        match self {
            HandshakeError::Version => 426,
            HandshakeError::Method
            | HandshakeError::HttpVersion
            | HandshakeError::Connection
            | HandshakeError::Body
            | HandshakeError::Key => 400,
        }
    }
}

impl Upgrade {
    /// Reads a request; `None` if it does not want to become a WebSocket. `compresses` says whether compression may be
    /// agreed upon.
    pub fn read(head: &RequestHead<'_>, compresses: bool) -> Option<Result<Self, HandshakeError>> {
        has_token(head, "upgrade", b"websocket").then(|| Upgrade::judge(head, compresses))
    }

    fn judge(head: &RequestHead<'_>, compresses: bool) -> Result<Self, HandshakeError> {
        if head.method != "GET" {
            return Err(HandshakeError::Method);
        }
        if head.version != Version::Http11 {
            return Err(HandshakeError::HttpVersion);
        }
        if !has_token(head, "connection", b"upgrade") {
            return Err(HandshakeError::Connection);
        }
        if !matches!(head.body, BodyFraming::None | BodyFraming::Length(0)) {
            return Err(HandshakeError::Body);
        }
        if sole(head, "sec-websocket-version") != Some(b"13") {
            return Err(HandshakeError::Version);
        }
        let key = sole(head, "sec-websocket-key").ok_or(HandshakeError::Key)?;
        let decoded = STANDARD.decode(key).map_err(|_| HandshakeError::Key)?;
        if decoded.len() != KEY_BYTES {
            return Err(HandshakeError::Key);
        }
        let deflate = if compresses {
            Deflate::choose(values(head, "sec-websocket-extensions"))
        } else {
            None
        };
        Ok(Upgrade { accept: accept_of(key), deflate })
    }

    /// What was agreed upon.
    pub fn deflate(&self) -> Option<Deflate> {
        self.deflate
    }
}

/// Writes the head of the response that accepts a handshake, behind what is in `out`.
///
/// # Errors
///
/// What is wrong with the reason or the fields; `out` is then as it was.
pub fn write_switch<'h>(
    out: &mut Vec<u8>,
    upgrade: &Upgrade,
    reason: &str,
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
) -> Result<(), ResponseError> {
    check(reason, headers.clone())?;
    write_status_line(out, 101, if reason.is_empty() { "Switching Protocols" } else { reason });
    write_field(out, b"Upgrade", b"websocket");
    write_field(out, b"Connection", b"Upgrade");
    write_field(out, b"Sec-WebSocket-Accept", &upgrade.accept);
    if let Some(deflate) = upgrade.deflate {
        write_field(out, b"Sec-WebSocket-Extensions", deflate.to_string().as_bytes());
    }
    for (name, value) in headers.filter(|(name, _)| !is_ours(name)) {
        write_field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// Whether a field of a handler is one that is written here.
fn is_ours(name: &[u8]) -> bool {
    let prefix = b"sec-websocket-";
    let is_of_websocket =
        name.get(..prefix.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(prefix));
    let is_protocol = name.eq_ignore_ascii_case(b"sec-websocket-protocol");
    is_dropped(name) || is_of_websocket && !is_protocol
}

/// RFC 6455 §4.2.2.
fn accept_of(key: &[u8]) -> [u8; ACCEPT_BYTES] {
    let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
    let mut accept = [0; ACCEPT_BYTES];
    STANDARD.encode_slice(digest, &mut accept).expect("it is as long as that");
    accept
}

fn values<'h>(head: &'h RequestHead<'_>, name: &'static str) -> impl Iterator<Item = &'h [u8]> {
    head.headers()
        .filter_map(move |(field, value)| field.eq_ignore_ascii_case(name).then_some(value))
}

/// The value of a field that stands there once.
fn sole<'h>(head: &'h RequestHead<'_>, name: &'static str) -> Option<&'h [u8]> {
    let mut values = values(head, name);
    values.next().filter(|_| values.next().is_none())
}

/// Whether a field that is a list has this token, in any case.
fn has_token(head: &RequestHead<'_>, name: &'static str, token: &[u8]) -> bool {
    values(head, name)
        .flat_map(|value| value.split(|byte| *byte == b','))
        .any(|element| element.trim_ascii().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::http1::{HeadLimits, HeadScanner};

    const REQUEST: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                           Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

    fn read(request: &str) -> Option<Result<Upgrade, HandshakeError>> {
        let limits = HeadLimits::default();
        let span = HeadScanner::new().scan(request.as_bytes(), &limits).unwrap().unwrap();
        let head = RequestHead::parse(request.as_bytes(), span, &limits).unwrap();
        Upgrade::read(&head, true)
    }

    fn switch(upgrade: &Upgrade, headers: &[(&str, &str)]) -> Result<String, ResponseError> {
        let mut out = b"before".to_vec();
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        write_switch(&mut out, upgrade, "", headers)?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// RFC 6455 §1.3.
    #[test]
    fn the_example_of_the_specification() {
        let upgrade = read(REQUEST).unwrap().unwrap();
        let headers = [
            ("Sec-WebSocket-Protocol", "chat"),
            ("X-Other", "1"),
            ("Connection", "close"),
            ("Sec-WebSocket-Accept", "forged"),
            ("sec-websocket-extensions", "forged"),
            ("Content-Length", "3"),
        ];
        assert_eq!(
            switch(&upgrade, &headers).unwrap(),
            "beforeHTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
             X-Other: 1\r\n\r\n"
        );
    }

    #[test]
    fn what_a_handler_may_not_say_is_refused() {
        let upgrade = read(REQUEST).unwrap().unwrap();
        let outcome = switch(&upgrade, &[("X", "a\r\nb")]);
        assert_eq!(outcome, Err(ResponseError::FieldValue { name: "X".into() }));
    }

    #[test]
    fn what_is_no_handshake_is_left_alone() {
        assert_eq!(read("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), None);
        let other = REQUEST.replace("Upgrade: websocket", "Upgrade: h2c");
        assert_eq!(read(&other), None);
    }

    #[test]
    fn each_rule_is_kept() {
        for (from, to, outcome) in [
            ("Upgrade: websocket", "upgrade: h2c , WebSocket", Ok(())),
            ("Connection: Upgrade", "connection: keep-alive, upgrade", Ok(())),
            ("GET", "POST", Err(HandshakeError::Method)),
            ("HTTP/1.1", "HTTP/1.0", Err(HandshakeError::HttpVersion)),
            ("Connection: Upgrade", "Connection: keep-alive", Err(HandshakeError::Connection)),
            ("Host: a", "Host: a\r\nContent-Length: 1", Err(HandshakeError::Body)),
            ("Version: 13", "Version: 8", Err(HandshakeError::Version)),
            ("Sec-WebSocket-Version: 13\r\n", "", Err(HandshakeError::Version)),
            (
                "Version: 13",
                "Version: 13\r\nSec-WebSocket-Version: 8",
                Err(HandshakeError::Version),
            ),
            ("dGhlIHNhbXBsZSBub25jZQ==", "abcde", Err(HandshakeError::Key)),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", Err(HandshakeError::Key)),
            ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQo=", Err(HandshakeError::Key)),
            ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", Err(HandshakeError::Key)),
        ] {
            let request = REQUEST.replace(from, to);
            let read = read(&request).unwrap().map(|_| ());
            assert_eq!(read, outcome, "{to}");
        }
        assert_eq!(HandshakeError::Version.status(), 426);
        assert_eq!(HandshakeError::Key.status(), 400);
    }

    #[test]
    fn compression_is_agreed_upon_if_it_is_allowed_and_offered() {
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
        let upgrade = read(&REQUEST.replace("13\r\n\r\n", &format!("13\r\n{offer}")));
        let upgrade = upgrade.unwrap().unwrap();
        let answer = switch(&upgrade, &[]).unwrap();
        assert!(answer.contains("\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_"));
        assert!(read(REQUEST).unwrap().unwrap().deflate().is_none());
    }
}
