//! Writing a response (RFC 9112 §4, §6, §9; RFC 9110 §6.4, §8.6).
//!
//! A handler says what the response is: a code, header fields, content that is whole or comes in pieces. How it
//! travels on *this* connection is decided here: which framing it gets, whether the connection goes on behind it, and
//! which fields say so. `Connection`, `Keep-Alive`, `Proxy-Connection`, `Transfer-Encoding`, `Trailer` and `Upgrade` of
//! the handler are about a connection that it does not have, so they are dropped, not merged (RFC 9110 §7.6.1); but for the
//! `Upgrade` of a 426, which says what the client should have asked for (RFC 9110 §15.5.22).
//!
//! | content | HTTP/1.1 | HTTP/1.0 |
//! | --- | --- | --- |
//! | whole | `Content-Length`, computed | same |
//! | in pieces, the handler gave a length | `Content-Length`, as given, and kept to | same |
//! | in pieces, no length | chunked | until the connection closes |
//! | to HEAD, or 204, 304 | none; a length that was given stays, but in a 204 | same |
//! | 205 | none, `Content-Length: 0` (RFC 9110 §15.3.6) | same |
//!
//! A head goes to a `Vec`, as it is many small pieces. Content is not copied: [`BodyEncoder::piece`] says which few bytes
//! go before and behind each piece, for a vectored write.
//!
//! What a handler may not do is put a second response, or a field of its own, into a value: CR, LF and NUL are refused,
//! not replaced, because a handler that sends them has passed on something that it did not look at.

use super::encoder::BodyEncoder;
use super::error_response::reason_phrase;
use super::framing::parse_content_length;
use super::request_line::{Version, is_token};

/// What a handler answers.
#[derive(Clone, Copy, Debug)]
pub struct ResponseHead<'a, H> {
    /// The status code: 200 to 599. Interim responses and the switch to WebSocket are not a handler's to write.
    pub code: u16,
    /// The reason phrase; if it is empty, the code's usual one is sent.
    pub reason: &'a str,
    /// The fields: an iterator of names and values, in their order. It is cloned to look at it twice.
    pub headers: H,
}

/// How the content comes from the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyPlan {
    /// All of it is there: that many bytes.
    Whole(u64),
    /// In pieces, of which the first may be there.
    Streamed,
}

/// What the request and the state of the connection say about the response.
#[derive(Clone, Copy, Debug)]
pub struct RequestContext<'a> {
    /// The version of the request.
    pub version: Version,
    /// Whether the method was `HEAD`: the response has the fields of a `GET`, but no content (RFC 9110 §9.3.2).
    pub is_head: bool,
    /// Whether the client and the edge both want to go on with the connection.
    pub keep_alive: bool,
    /// The current time as an IMF-fixdate (RFC 9110 §5.6.7), for responses without a `Date`. The caller caches it for a
    /// second.
    pub date: &'a str,
}

impl<'a> RequestContext<'a> {
    /// For a request that could not be read: the connection is closed behind the response.
    pub fn unreadable(date: &'a str) -> Self {
        RequestContext { version: Version::Http11, is_head: false, keep_alive: false, date }
    }
}

/// What follows from a head that was written.
#[derive(Debug, PartialEq, Eq)]
#[must_use]
pub struct WrittenHead {
    /// Frames the content.
    pub body: BodyEncoder,
    /// Whether the connection goes on behind the response; if not, it must be closed, and the head said so.
    pub keep_alive: bool,
}

/// Why a handler's head was not written; nothing of it was. The client gets a 500 and the handler is told.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResponseError {
    /// A code that is none, or that is not a final response (RFC 9110 §15).
    #[error("code {code} is not in 200..=599")]
    Code {
        /// What the handler sent.
        code: u16,
    },
    /// CR, LF or NUL in the reason phrase (RFC 9112 §4).
    #[error("reason has a control character")]
    Reason,
    /// A field name that is no token (RFC 9110 §5.1).
    #[error("headers: {name:?} is no header name")]
    FieldName {
        /// The name, with replacements for what is not UTF-8.
        name: String,
    },
    /// CR, LF or NUL in a field value (RFC 9110 §5.5).
    #[error("headers: the value of {name} has a control character")]
    FieldValue {
        /// The name of the field.
        name: String,
    },
    /// A `Content-Length` that is not a number (RFC 9110 §8.6).
    #[error("headers: Content-Length is not a number")]
    ContentLength,
    /// Two values for `Content-Length` (RFC 9110 §8.6).
    #[error("headers: Content-Length is given twice")]
    ContentLengthRepeated,
    /// More than [`RESPONSE_HEAD_BYTES_MAX`].
    #[error("headers: {bytes} bytes are more than {RESPONSE_HEAD_BYTES_MAX}")]
    HeadTooLarge {
        /// How large the head would be.
        bytes: usize,
    },
}

/// Writes the head of a response behind what is in `out`.
///
/// # Errors
///
/// What is wrong with the head; `out` is then as it was.
pub fn write_head<'h, H>(
    out: &mut Vec<u8>,
    request: &RequestContext<'_>,
    response: ResponseHead<'_, H>,
    plan: BodyPlan,
) -> Result<WrittenHead, ResponseError>
where
    H: Iterator<Item = (&'h [u8], &'h [u8])> + Clone,
{
    let ResponseHead { code, reason, headers } = response;
    if !(200..=599).contains(&code) {
        return Err(ResponseError::Code { code });
    }
    let given = check(reason, headers.clone())?;
    let (length, body) = frame(request, code, plan, given.length);
    let keep_alive = request.keep_alive && body != BodyEncoder::UntilClose;

    write_status_line(out, code, if reason.is_empty() { reason_phrase(code) } else { reason });
    for (name, value) in headers {
        if code == UPGRADE_REQUIRED && name.eq_ignore_ascii_case(b"upgrade") {
            // RFC 9110 §7.8: whoever sends the one sends the other.
            write_field(out, b"Connection", b"upgrade");
            write_field(out, name, value);
        } else if !is_dropped(name) {
            write_field(out, name, value);
        }
    }
    if let Some(length) = length {
        write_field(out, b"Content-Length", itoa::Buffer::new().format(length).as_bytes());
    }
    if body == BodyEncoder::Chunked {
        write_field(out, b"Transfer-Encoding", b"chunked");
    }
    write_connection(out, request.version, keep_alive);
    if !given.has_date {
        write_field(out, b"Date", request.date.as_bytes());
    }
    out.extend_from_slice(CRLF);
    Ok(WrittenHead { body, keep_alive })
}

/// What a handler's fields say that matters here.
pub(crate) struct Given {
    length: Option<u64>,
    has_date: bool,
}

/// Refuses a reason and fields that must not be sent.
pub(crate) fn check<'h>(
    reason: &str,
    headers: impl Iterator<Item = (&'h [u8], &'h [u8])>,
) -> Result<Given, ResponseError> {
    if breaks_line(reason.as_bytes()) {
        return Err(ResponseError::Reason);
    }
    let mut given = Given { length: None, has_date: false };
    let mut bytes = reason.len();
    for (name, value) in headers {
        bytes += name.len() + FIELD_SEPARATORS_BYTES + value.len();
        let lossy = || String::from_utf8_lossy(name).into_owned();
        if !is_token(name) {
            return Err(ResponseError::FieldName { name: lossy() });
        }
        if breaks_line(value) {
            return Err(ResponseError::FieldValue { name: lossy() });
        }
        given.has_date |= name.eq_ignore_ascii_case(b"date");
        if name.eq_ignore_ascii_case(b"content-length") {
            let length =
                parse_content_length(value.trim_ascii()).ok_or(ResponseError::ContentLength)?;
            if given.length.replace(length).is_some() {
                return Err(ResponseError::ContentLengthRepeated);
            }
        }
    }
    if bytes > RESPONSE_HEAD_BYTES_MAX {
        return Err(ResponseError::HeadTooLarge { bytes });
    }
    Ok(given)
}

/// The `Content-Length` to send, if any, and the framing (RFC 9112 §6.3). See the table at the head of this file.
fn frame(
    request: &RequestContext<'_>,
    code: u16,
    plan: BodyPlan,
    given: Option<u64>,
) -> (Option<u64>, BodyEncoder) {
    match (code, plan) {
        // RFC 9110 §8.6: a 204 MUST NOT have a length.
        (204, _) => (None, BodyEncoder::None),
        (205, _) => (Some(0), BodyEncoder::None),
        // Both tell of the response that a GET would have got (RFC 9110 §8.6), which only the handler knows.
        (304, _) => (given, BodyEncoder::None),
        (_, BodyPlan::Whole(0) | BodyPlan::Streamed) if request.is_head => {
            (given, BodyEncoder::None)
        }
        (_, BodyPlan::Whole(length)) if request.is_head => {
            (given.or(Some(length)), BodyEncoder::None)
        }
        (_, BodyPlan::Whole(length)) => (Some(length), BodyEncoder::Length { remaining: length }),
        (_, BodyPlan::Streamed) => match (given, request.version) {
            (Some(length), _) => (Some(length), BodyEncoder::Length { remaining: length }),
            (None, Version::Http11) => (None, BodyEncoder::Chunked),
            (None, Version::Http10) => (None, BodyEncoder::UntilClose),
        },
    }
}

/// Whether a field of a handler does not go to the client: it is about the connection, or is written here.
pub(crate) fn is_dropped(name: &[u8]) -> bool {
    DROPPED_FIELDS.iter().any(|dropped| name.eq_ignore_ascii_case(dropped))
}

/// Whether those bytes would end a line for some reader (RFC 9110 §5.5).
fn breaks_line(bytes: &[u8]) -> bool {
    memchr::memchr3(b'\r', b'\n', 0, bytes).is_some()
}

/// RFC 9112 §4.
pub(crate) fn write_status_line(out: &mut Vec<u8>, code: u16, reason: &str) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(itoa::Buffer::new().format(code).as_bytes());
    out.push(b' ');
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(CRLF);
}

pub(crate) fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(CRLF);
}

/// RFC 9112 §9.3, §9.6: each version says what its default is not; `close` is said to both.
pub(super) fn write_connection(out: &mut Vec<u8>, version: Version, keep_alive: bool) {
    match (version, keep_alive) {
        (_, false) => write_field(out, b"Connection", b"close"),
        (Version::Http10, true) => write_field(out, b"Connection", b"keep-alive"),
        (Version::Http11, true) => {}
    }
}

/// RFC 9110 §15.5.22.
pub(super) const UPGRADE_REQUIRED: u16 = 426;

/// Fields of a handler that do not go to the client. `Content-Length` is written from what it said.
const DROPPED_FIELDS: [&[u8]; 7] = [
    b"connection",
    b"content-length",
    b"keep-alive",
    b"proxy-connection",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
];

/// Bytes of a handler's reason phrase and headers as they would be sent, also of those that are dropped: 64 KiB, twice
/// what a request may have. Past it the client gets a 500 and the handler an error. A client that takes nothing holds up
/// to that much memory beside its buffer.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;

/// Of `name: value` CRLF.
const FIELD_SEPARATORS_BYTES: usize = 4;

const CRLF: &[u8] = b"\r\n";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const GET: RequestContext<'_> =
        RequestContext { version: Version::Http11, is_head: false, keep_alive: true, date: DATE };
    const HEAD: RequestContext<'_> = RequestContext { is_head: true, ..GET };
    const OLD: RequestContext<'_> = RequestContext { version: Version::Http10, ..GET };

    type Field<'a> = (&'a str, &'a str);

    /// The head, without its status line, `Date` and last empty line, and what follows from it.
    fn write(
        request: &RequestContext<'_>,
        code: u16,
        headers: &[Field<'_>],
        plan: BodyPlan,
    ) -> Result<(String, WrittenHead), ResponseError> {
        let mut out = b"before".to_vec();
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let head = ResponseHead { code, reason: "", headers };
        let written = write_head(&mut out, request, head, plan);
        if written.is_err() {
            assert_eq!(out, b"before");
        }
        let text = String::from_utf8(out).unwrap();
        let date = format!("Date: {DATE}\r\n\r\n");
        let fields = text.split_once("\r\n").map_or("", |(_, fields)| fields);
        Ok((fields.trim_end_matches(&date).replace("\r\n", "; "), written?))
    }

    fn framing(
        request: &RequestContext<'_>,
        code: u16,
        given: &[Field<'_>],
        plan: BodyPlan,
    ) -> String {
        let (fields, written) = write(request, code, given, plan).unwrap();
        format!("{fields}{:?}, {}", written.body, if written.keep_alive { "on" } else { "close" })
    }

    #[test]
    fn a_whole_head() {
        let headers: [(&[u8], &[u8]); 3] =
            [(b"X-A", b"1"), (b"date", b"then"), (b"X-Obs", b"\xe4")];
        let head = ResponseHead { code: 299, reason: "Fine", headers: headers.into_iter() };
        let mut out = Vec::new();
        let written = write_head(&mut out, &GET, head, BodyPlan::Whole(3)).unwrap();
        assert_eq!(
            out,
            b"HTTP/1.1 299 Fine\r\nX-A: 1\r\ndate: then\r\nX-Obs: \xe4\r\nContent-Length: 3\r\n\r\n"
        );
        assert_eq!(written.body, BodyEncoder::Length { remaining: 3 });
    }

    #[test]
    fn chooses_the_framing() {
        use BodyPlan::{Streamed, Whole};
        let given = [("Content-Length", "7")];
        for (request, code, headers, plan, expected) in [
            (&GET, 200, &[][..], Whole(5), "Content-Length: 5; Length { remaining: 5 }, on"),
            (&GET, 200, &given, Whole(5), "Content-Length: 5; Length { remaining: 5 }, on"),
            (&GET, 200, &given, Streamed, "Content-Length: 7; Length { remaining: 7 }, on"),
            (&GET, 200, &[], Streamed, "Transfer-Encoding: chunked; Chunked, on"),
            (&OLD, 200, &[], Streamed, "Connection: close; UntilClose, close"),
            (
                &OLD,
                200,
                &[],
                Whole(5),
                "Content-Length: 5; Connection: keep-alive; Length { remaining: 5 }, on",
            ),
            (&HEAD, 200, &given, Whole(0), "Content-Length: 7; None, on"),
            (&HEAD, 200, &[], Whole(0), "None, on"),
            (&HEAD, 200, &[], Whole(5), "Content-Length: 5; None, on"),
            (&HEAD, 200, &[], Streamed, "None, on"),
            (&GET, 204, &given, Whole(5), "None, on"),
            (&GET, 205, &given, Whole(5), "Content-Length: 0; None, on"),
            (&GET, 304, &given, Streamed, "Content-Length: 7; None, on"),
            (&GET, 304, &[], Whole(0), "None, on"),
        ] {
            assert_eq!(
                framing(request, code, headers, plan),
                expected,
                "{request:?} {code} {plan:?}"
            );
        }
    }

    #[test]
    fn the_connection_is_not_the_handlers() {
        let headers = [
            ("Connection", "close, x-a"),
            ("keep-alive", "timeout=5"),
            ("Proxy-Connection", "close"),
            ("TRANSFER-ENCODING", "gzip"),
            ("trailer", "X-A"),
            ("Upgrade", "h2c"),
            ("X-A", "1"),
        ];
        let (fields, written) = write(&GET, 200, &headers, BodyPlan::Whole(0)).unwrap();
        assert_eq!(fields, "X-A: 1; Content-Length: 0; ");
        assert!(written.keep_alive);
        let closing = RequestContext { keep_alive: false, ..GET };
        let (fields, written) = write(&closing, 200, &[], BodyPlan::Streamed).unwrap();
        assert_eq!(fields, "Transfer-Encoding: chunked; Connection: close; ");
        assert!(!written.keep_alive);
    }

    #[test]
    fn a_head_may_be_as_large_as_the_limit() {
        let value = "x".repeat(RESPONSE_HEAD_BYTES_MAX - "X: \r\n".len());
        assert!(write(&GET, 200, &[("X", &value)], BodyPlan::Whole(0)).is_ok());
        let error = write(&GET, 200, &[("X", &(value + "x"))], BodyPlan::Whole(0)).unwrap_err();
        assert_eq!(error, ResponseError::HeadTooLarge { bytes: RESPONSE_HEAD_BYTES_MAX + 1 });
    }

    #[test]
    fn injects_nothing() {
        let refused = |code, name, value| {
            write(&GET, code, &[(name, value)], BodyPlan::Streamed).unwrap_err()
        };
        for code in [0, 99, 100, 101, 199, 600, 65535] {
            assert_eq!(refused(code, "X", ""), ResponseError::Code { code });
        }
        for name in ["", "X ", "X:", "X\r\nY", "\u{e4}"] {
            assert_eq!(refused(200, name, ""), ResponseError::FieldName { name: name.into() });
        }
        for value in ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "\0"] {
            assert_eq!(refused(200, "X", value), ResponseError::FieldValue { name: "X".into() });
        }
        for value in ["", "+5", "5, 5", "-1", "0x5", "18446744073709551616"] {
            assert_eq!(refused(200, "content-length", value), ResponseError::ContentLength);
        }
        let twice = [("Content-Length", "5"), ("content-length", "5")];
        let error = write(&GET, 200, &twice, BodyPlan::Streamed).unwrap_err();
        assert_eq!(error, ResponseError::ContentLengthRepeated);
        let head = ResponseHead { code: 200, reason: "a\r\nb", headers: std::iter::empty() };
        let written = write_head(&mut Vec::new(), &GET, head, BodyPlan::Streamed);
        assert_eq!(written, Err(ResponseError::Reason));
    }
}
