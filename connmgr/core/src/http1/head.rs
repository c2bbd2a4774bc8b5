//! A request head, read (RFC 9112 §2–§6, as far as they concern the head).
//!
//! [`RequestHead::parse`] gets the bytes of one whole head, whose line ends the scanner has checked, and says everything
//! that the edge has to know of it. All of it borrows the buffer; nothing is copied, nothing allocated.
//!
//! `httparse` checks the field lines in one pass (it uses SIMD for that); the request line is read in `request_line`,
//! because its faults have different statuses and `httparse` has one error for most of them. The table of fields that
//! `httparse` fills lives on the stack and only for the verdict: keeping it would make a head 8 KiB large or tie it to
//! a table of the caller's. [`Headers`] walks the checked lines again instead, which is a `memchr` for each.

use super::authority;
use super::error::HeadError;
use super::framing::{BodyFraming, FramingFields};
use super::request_line::{RequestLine, TargetForm, Version};
use super::scanner::{HeadLimits, HeadSpan};

/// A request head that may be acted upon. Borrows the buffer it was read from.
#[derive(Clone, Debug)]
pub struct RequestHead<'b> {
    /// The method, a token; case-sensitive (RFC 9110 §9.1).
    pub method: &'b str,
    /// The request target as it was sent; visible ASCII.
    pub target: &'b str,
    /// Which form the target has.
    pub target_form: TargetForm,
    /// The path of the target; `/` if it has an empty one, `*` if the request is for the server as a whole.
    pub path: &'b str,
    /// The query of the target, without the question mark.
    pub query: Option<&'b str>,
    /// The version in the request line.
    pub version: Version,
    /// The authority that the request is for: of the target if that names one, else of the `Host` field (RFC 9112
    /// §3.2.2, §3.3). Empty if an HTTP/1.0 request has no `Host`, or if the client says that there is none.
    pub host: &'b str,
    /// How the body behind the head is delimited.
    pub body: BodyFraming,
    /// Whether the client would like to go on with this connection after the response (RFC 9112 §9.3).
    pub keep_alive: bool,
    /// Whether the client waits for [`CONTINUE`](super::CONTINUE) before it sends the body (RFC 9110 §10.1.1). False if
    /// there is no body to wait for.
    pub expect_continue: bool,
    /// How many bytes of the input the head takes, with empty lines before it: the body begins there.
    pub head_bytes: usize,
    fields: Headers<'b>,
}

/// The field lines of a head, in their order, as names and values. Values are without the white space around them;
/// they may hold tabs, but no other control character.
///
/// If the target names an authority, that is the value of `Host`, whatever was sent: nobody behind may read two of them
/// (RFC 9112 §3.2.2).
#[derive(Clone, Debug)]
pub struct Headers<'b> {
    /// Checked field lines, each with its CRLF.
    lines: &'b [u8],
    /// The authority of an absolute-form target.
    target_host: Option<&'b str>,
}

impl<'b> RequestHead<'b> {
    /// Reads the head that a [`HeadScanner`](super::HeadScanner) found in `input` with the same limits.
    ///
    /// # Errors
    ///
    /// The first rule that the head breaks, in the order of its lines, except that what concerns several lines together
    /// comes last.
    ///
    /// # Panics
    ///
    /// If the span is not one of that input.
    pub fn parse(input: &'b [u8], span: HeadSpan, limits: &HeadLimits) -> Result<Self, HeadError> {
        let head = &input[span.start..span.end];
        let line_len = memchr::memchr(b'\r', head).ok_or(HeadError::RequestLine)?;
        let line = RequestLine::parse(&head[..line_len], limits.target_bytes_max)?;
        let block = &head[line_len + CRLF.len()..];

        let mut table = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let fields = match httparse::parse_headers(block, &mut table) {
            Ok(httparse::Status::Complete((_, fields))) => fields,
            Ok(httparse::Status::Partial) => return Err(HeadError::FieldName),
            Err(httparse::Error::HeaderValue) => return Err(HeadError::FieldValue),
            Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooManyHeaders),
            Err(_) => return Err(HeadError::FieldName),
        };
        let mut verdict = Verdict::default();
        for field in fields.iter() {
            verdict.field(field.name, field.value)?;
        }
        let host = verdict.host(line.version)?;
        let expects = verdict.expects_continue(line.version)?;
        let keep_alive = verdict.keep_alive(line.version);
        let body = verdict.framing.finish(line.version)?;
        Ok(RequestHead {
            method: line.method,
            target: line.target.text,
            target_form: line.target.form,
            path: line.target.path,
            query: line.target.query,
            version: line.version,
            host: line.target.authority.unwrap_or(host),
            body,
            keep_alive,
            expect_continue: expects && !matches!(body, BodyFraming::None | BodyFraming::Length(0)),
            head_bytes: span.end,
            fields: Headers {
                lines: &block[..block.len() - CRLF.len()],
                target_host: line.target.authority,
            },
        })
    }

    /// The field lines.
    pub fn headers(&self) -> Headers<'b> {
        self.fields.clone()
    }

    /// The value of the first field of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&'b [u8]> {
        self.headers().find_map(|(field, value)| field.eq_ignore_ascii_case(name).then_some(value))
    }
}

impl<'b> Iterator for Headers<'b> {
    type Item = (&'b str, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let line_len = memchr::memchr(b'\r', self.lines)?;
        let line = &self.lines[..line_len];
        self.lines = &self.lines[line_len + CRLF.len()..];
        let name_len = memchr::memchr(b':', line)?;
        let name = std::str::from_utf8(&line[..name_len]).expect("a checked name is ASCII");
        match self.target_host {
            Some(host) if name.eq_ignore_ascii_case("host") => Some((name, host.as_bytes())),
            Some(_) | None => Some((name, line[name_len + 1..].trim_ascii())),
        }
    }
}

/// What the field lines together say about the message and the connection.
#[derive(Default)]
struct Verdict<'b> {
    framing: FramingFields,
    host: Option<&'b [u8]>,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    expects_other: bool,
}

impl<'b> Verdict<'b> {
    /// Takes one field line.
    fn field(&mut self, name: &str, value: &'b [u8]) -> Result<(), HeadError> {
        let is = |known| name.eq_ignore_ascii_case(known);
        if is("host") {
            if self.host.replace(value).is_some() {
                return Err(HeadError::HostRepeated);
            }
        } else if is("content-length") {
            self.framing.content_length(value)?;
        } else if is("transfer-encoding") {
            self.framing.transfer_encoding(value)?;
        } else if is("connection") {
            for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                self.close |= option.eq_ignore_ascii_case(b"close");
                self.keep_alive |= option.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is("expect") {
            // A list, whose empty elements do not count (RFC 9110 §5.6.1.2).
            let elements = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
            for expectation in elements.filter(|element| !element.is_empty()) {
                let is_continue = expectation.eq_ignore_ascii_case(b"100-continue");
                self.expects_continue |= is_continue;
                self.expects_other |= !is_continue;
            }
        }
        Ok(())
    }

    /// RFC 9112 §3.2: exactly one in HTTP/1.1, at most one before, and a valid one.
    fn host(&self, version: Version) -> Result<&'b str, HeadError> {
        match (self.host, version) {
            (None, Version::Http10) => Ok(""),
            (None, Version::Http11) => Err(HeadError::HostMissing),
            (Some(host), Version::Http10 | Version::Http11) => std::str::from_utf8(host)
                .ok()
                .filter(|host| authority::is_valid(host.as_bytes()))
                .ok_or(HeadError::Host),
        }
    }

    /// RFC 9110 §10.1.1: unknown ones may be refused with 417, and in HTTP/1.0 `100-continue` is ignored.
    fn expects_continue(&self, version: Version) -> Result<bool, HeadError> {
        match version {
            Version::Http10 => Ok(false),
            Version::Http11 if self.expects_other => Err(HeadError::Expectation),
            Version::Http11 => Ok(self.expects_continue),
        }
    }

    /// RFC 9112 §9.3: `close` wins; then HTTP/1.1 persists, HTTP/1.0 if it asks for it.
    fn keep_alive(&self, version: Version) -> bool {
        !self.close
            && match version {
                Version::Http11 => true,
                Version::Http10 => self.keep_alive,
            }
    }
}

/// Field lines in one head. More are answered with 431. The limit that is meant to be felt is the one on the bytes of a
/// head; this one bounds the table on the stack, 32 bytes for each.
pub const HEADERS_MAX: usize = 256;

const CRLF: &[u8] = b"\r\n";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::http1::HeadScanner;

    fn parse(input: &[u8]) -> Result<RequestHead<'_>, HeadError> {
        let limits = HeadLimits::default();
        let span = HeadScanner::new().scan(input, &limits)?.unwrap();
        RequestHead::parse(input, span, &limits)
    }

    #[test]
    fn walks_the_headers() {
        let input =
            b"GET / HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nx-two:  b: c \t\r\nX-Obs: \xe4\r\n\r\n";
        let head = parse(input).unwrap();
        let headers: Vec<_> = head.headers().collect();
        let expected: [(&str, &[u8]); 4] =
            [("Host", b"a"), ("X-Empty", b""), ("x-two", b"b: c"), ("X-Obs", b"\xe4")];
        assert_eq!(headers, expected);
        assert_eq!(head.header("X-TWO"), Some(b"b: c".as_slice()));
        assert_eq!(head.header("X-Three"), None);
        assert_eq!(head.head_bytes, input.len());
    }

    #[test]
    fn nobody_reads_two_hosts() {
        let input = b"GET http://a:1/ HTTP/1.1\r\nhOST: b\r\nX: c\r\n\r\n";
        let head = parse(input).unwrap();
        assert_eq!(head.host, "a:1");
        let expected: [(&str, &[u8]); 2] = [("hOST", b"a:1"), ("X", b"c")];
        assert_eq!(head.headers().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn counts_the_headers() {
        let head = |count| {
            let mut head = b"GET / HTTP/1.1\r\nHost: a\r\n".to_vec();
            head.extend(std::iter::repeat_n(b"X: y\r\n", count).flatten());
            head.extend_from_slice(b"\r\n");
            head
        };
        assert_eq!(parse(&head(HEADERS_MAX - 1)).unwrap().headers().count(), HEADERS_MAX);
        assert_eq!(parse(&head(HEADERS_MAX)).unwrap_err(), HeadError::TooManyHeaders);
    }

    #[test]
    fn no_control_byte_gets_into_a_value() {
        for byte in (0..=31).chain([127]).filter(|byte| !b"\t\r\n".contains(byte)) {
            for pad in [0, 7, 40] {
                let mut input = b"GET / HTTP/1.1\r\nHost: a\r\nX: ".to_vec();
                input.extend(std::iter::repeat_n(b'a', pad));
                input.push(byte);
                input.extend_from_slice(b"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n\r\n");
                assert_eq!(parse(&input).unwrap_err(), HeadError::FieldValue, "{byte:#x}, {pad}");
            }
        }
    }
}
