//! The head of an answer (RFC 9112 §4 to §6): its status, and what follows it.

use std::str;

use super::body::Body;

/// Header fields of an answer; more are refused.
const FIELDS_MAX: usize = 64;

/// Bytes of a head, so that a server that sends no end of one takes no memory.
pub(crate) const HEAD_BYTES_MAX: usize = 64 << 10;

/// What the head of an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Bytes of the head itself.
    pub(crate) bytes: usize,
    pub(crate) body: Body,
    /// The connection takes another request behind this answer.
    pub(crate) stays: bool,
    /// `Sec-WebSocket-Accept`.
    pub(crate) accept: Option<String>,
}

/// What is no head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadError {
    #[error("the answer is not HTTP")]
    Syntax,
    #[error("the head of the answer is longer than {HEAD_BYTES_MAX} bytes")]
    TooLong,
    #[error("the length of the answer is no number")]
    Length,
}

impl Head {
    /// Reads the head of an answer to a GET or a POST; `None` if it is not whole yet.
    ///
    /// # Errors
    /// If it is no head.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Head>, HeadError> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut response = httparse::Response::new(&mut fields);
        let len = match response.parse(bytes) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(HeadError::TooLong),
            Err(_) => return Err(HeadError::Syntax),
        };
        let status = response.code.unwrap_or_default();
        let stays = response.version == Some(1);
        let mut head = Head { status, bytes: len, body: Body::UntilClose, stays, accept: None };
        let mut length = None;
        for field in response.headers.iter() {
            let value = || str::from_utf8(field.value).unwrap_or_default().trim();
            if field.name.eq_ignore_ascii_case("content-length") {
                length = Some(value().parse().map_err(|_| HeadError::Length)?);
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                if value().to_ascii_lowercase().ends_with("chunked") {
                    head.body = Body::CHUNKED;
                }
            } else if field.name.eq_ignore_ascii_case("connection") {
                head.stays &= !value().eq_ignore_ascii_case("close");
            } else if field.name.eq_ignore_ascii_case("sec-websocket-accept") {
                head.accept = Some(value().to_owned());
            }
        }
        if matches!(status, 100..=199 | 204 | 304) {
            head.body = Body::Length(0);
        } else if let (Some(length), Body::UntilClose) = (length, head.body) {
            head.body = Body::Length(length);
        }
        head.stays &= head.body != Body::UntilClose;
        Ok(Some(head))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn read(head: &str) -> Head {
        for len in 0..head.len() {
            assert_eq!(Head::read(&head.as_bytes()[..len]), Ok(None), "{len} of {head}");
        }
        Head::read(format!("{head}more").as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn a_head_says_what_follows() {
        for (head, status, body, stays) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", 200, Body::Length(12), true),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 200, Body::CHUNKED, true),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\ntransfer-encoding: Chunked\r\n\r\n",
                200,
                Body::CHUNKED,
                true,
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", 200, Body::UntilClose, false),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", 200, Body::Length(1), false),
            (
                "HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                503,
                Body::Length(0),
                false,
            ),
            ("HTTP/1.1 204 No Content\r\n\r\n", 204, Body::Length(0), true),
        ] {
            let got = read(head);
            assert_eq!(
                (got.status, got.bytes, got.body, got.stays),
                (status, head.len(), body, stays)
            );
        }
        let upgrade = "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept:  abc= \r\n\r\n";
        assert_eq!(read(upgrade).accept.as_deref(), Some("abc="));
    }

    #[test]
    fn what_is_no_head_is_refused() {
        assert_eq!(Head::read(b"SSH-2.0-x\r\n"), Err(HeadError::Syntax));
        let length = b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n";
        assert_eq!(Head::read(length), Err(HeadError::Length));
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "a".repeat(HEAD_BYTES_MAX));
        assert_eq!(Head::read(long.as_bytes()), Err(HeadError::TooLong));
    }
}
