//! A whole short response for what the edge refuses or cannot do by itself.
//!
//! The body is exactly the text, without a newline, as clients and tests compare it. It says what went wrong and
//! nothing of what the client sent.

use super::response::{
    RequestContext, UPGRADE_REQUIRED, write_connection, write_field, write_status_line,
};

/// What the edge answers without a handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorResponse<'a> {
    /// The status code: 400 to 599.
    pub status: u16,
    /// The whole body.
    pub text: &'a str,
    /// When to come again, in seconds (RFC 9110 §10.2.3).
    pub retry_after_secs: Option<u32>,
}

impl<'a> ErrorResponse<'a> {
    /// An error without `Retry-After`.
    pub const fn new(status: u16, text: &'a str) -> Self {
        ErrorResponse { status, text, retry_after_secs: None }
    }
}

/// Writes an error, head and body, behind what is in `out`. To `HEAD` it has the same head and no body.
///
/// The caller closes the connection behind it exactly if `request.keep_alive` is not set; the head says so.
pub fn write_error(out: &mut Vec<u8>, request: &RequestContext<'_>, error: &ErrorResponse<'_>) {
    debug_assert!((400..=599).contains(&error.status), "{} is no error", error.status);
    write_status_line(out, error.status, reason_phrase(error.status));
    write_field(out, b"Content-Type", b"text/plain");
    let mut number = itoa::Buffer::new();
    write_field(out, b"Content-Length", number.format(error.text.len()).as_bytes());
    if let Some(seconds) = error.retry_after_secs {
        write_field(out, b"Retry-After", number.format(seconds).as_bytes());
    }
    if error.status == UPGRADE_REQUIRED {
        // RFC 6455 §4.4, RFC 9110 §15.5.22.
        write_field(out, b"Upgrade", b"websocket");
        let options: &[u8] = if request.keep_alive { b"upgrade" } else { b"upgrade, close" };
        write_field(out, b"Connection", options);
        write_field(out, b"Sec-WebSocket-Version", b"13");
    } else {
        write_connection(out, request.version, request.keep_alive);
    }
    write_field(out, b"Date", request.date.as_bytes());
    out.extend_from_slice(b"\r\n");
    if !request.is_head {
        out.extend_from_slice(error.text.as_bytes());
    }
}

/// The usual reason phrase of a status code (RFC 9110 §15, RFC 6585), or an empty one, which is allowed (RFC 9112 §4).
pub fn reason_phrase(code: u16) -> &'static str {
    match code {
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        511 => "Network Authentication Required",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::Version;

    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn written(request: &RequestContext<'_>, error: &ErrorResponse<'_>) -> String {
        let mut out = Vec::new();
        write_error(&mut out, request, error);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn an_error_is_whole() {
        let error = ErrorResponse::new(414, "Request target too long");
        assert_eq!(
            written(&RequestContext::unreadable(DATE), &error),
            "HTTP/1.1 414 URI Too Long\r\nContent-Type: text/plain\r\nContent-Length: 23\r\n\
             Connection: close\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\nRequest target too long"
        );
    }

    /// It is the only thing that the edge wants a client to switch to.
    #[test]
    fn who_comes_with_another_version_of_websocket_is_told_which_is_spoken() {
        let text = written(&RequestContext::unreadable(DATE), &ErrorResponse::new(426, "x"));
        let fields =
            "Upgrade: websocket\r\nConnection: upgrade, close\r\nSec-WebSocket-Version: 13\r\n";
        assert!(text.contains(fields), "{text}");
    }

    #[test]
    fn an_error_may_leave_the_connection() {
        let error = ErrorResponse { retry_after_secs: Some(2), ..ErrorResponse::new(503, "away") };
        let mut request = RequestContext {
            version: Version::Http10,
            is_head: true,
            keep_alive: true,
            date: DATE,
        };
        assert_eq!(
            written(&request, &error),
            "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 4\r\n\
             Retry-After: 2\r\nConnection: keep-alive\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n"
        );
        request.version = Version::Http11;
        assert!(!written(&request, &error).contains("Connection"));
    }
}
