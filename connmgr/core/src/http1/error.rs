//! Why a request head is refused.
//!
//! One variant for each rule, so that a log and a test can tell which one it was; the client sees the status and the
//! text. None of them is an error of ours, and after each the connection is closed (RFC 9112 §9.6).

/// Why a request head was refused. `Display` is a short text for the body of the response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    // Lines, found while the head is still arriving.
    /// A line that ends in LF alone. RFC 9112 §2.2 allows to accept it; parsers that do not would see another message.
    #[error("Bare LF in the request head")]
    BareLf,
    /// A CR that no LF follows (RFC 9112 §2.2).
    #[error("Bare CR in the request head")]
    BareCr,
    /// A line that begins with white space: obsolete folding (RFC 9112 §5.2), or a first field line that pretends to
    /// belong to the request line (§2.2).
    #[error("Folded header line")]
    FoldedLine,
    /// More empty lines before the request line than RFC 9112 §2.2 asks to be patient with.
    #[error("Too many empty lines before the request")]
    LeadingCrlfs,

    // The request line.
    /// Not `method SP request-target SP HTTP-version` (RFC 9112 §3).
    #[error("Malformed request line")]
    RequestLine,
    /// The method is no token (RFC 9110 §9.1).
    #[error("Malformed method")]
    Method,
    /// The method is longer than any that exists (RFC 9112 §3: 501).
    #[error("Method too long")]
    MethodTooLong,
    /// `CONNECT`: known, but this is no proxy (RFC 9110 §9.1: 501; a 405 would promise other methods for that target).
    #[error("CONNECT is not supported")]
    Connect,
    /// The target has none of the four forms, or bytes that no target has (RFC 9112 §3.2).
    #[error("Malformed request target")]
    Target,
    /// The target is longer than the limit (RFC 9112 §3, RFC 9110 §15.5.15).
    #[error("Request target too long")]
    TargetTooLong,
    /// `HTTP/` and two digits, but neither 1.0 nor 1.1 (RFC 9110 §15.6.6).
    #[error("HTTP version not supported")]
    VersionNotSupported,

    // Field lines.
    /// A field name that is no token, or white space before the colon (RFC 9112 §5.1: it MUST be refused).
    #[error("Malformed header name")]
    FieldName,
    /// A control byte in a field value (RFC 9110 §5.5).
    #[error("Malformed header value")]
    FieldValue,
    /// More than `HEADERS_MAX` field lines (RFC 6585 §5).
    #[error("Too many headers")]
    TooManyHeaders,
    /// The head is longer than the limit (RFC 6585 §5).
    #[error("Request head too large")]
    HeadTooLarge,
    /// No `Host` in an HTTP/1.1 request (RFC 9112 §3.2).
    #[error("Missing Host header")]
    HostMissing,
    /// More than one `Host` (RFC 9112 §3.2).
    #[error("More than one Host header")]
    HostRepeated,
    /// A `Host` that is not `uri-host [":" port]` (RFC 9112 §3.2, RFC 9110 §7.2).
    #[error("Malformed Host header")]
    Host,
    /// An expectation other than `100-continue` (RFC 9110 §10.1.1).
    #[error("Unknown expectation")]
    Expectation,

    // Framing of the body.
    /// `Content-Length` and `Transfer-Encoding` in one message (RFC 9112 §6.1, §6.3).
    #[error("Both Content-Length and Transfer-Encoding")]
    LengthAndCoding,
    /// More than one `Content-Length`, also if they agree (RFC 9110 §8.6 leaves the choice).
    #[error("More than one Content-Length")]
    LengthRepeated,
    /// A `Content-Length` that is not `1*DIGIT`, or does not fit 64 bits (RFC 9110 §8.6).
    #[error("Malformed Content-Length")]
    Length,
    /// `Transfer-Encoding` in an HTTP/1.0 request: its framing is faulty (RFC 9112 §6.1).
    #[error("Transfer-Encoding in an HTTP/1.0 request")]
    CodingInHttp10,
    /// The last transfer coding is not `chunked`, or it is applied twice, or has parameters: nobody knows the length
    /// (RFC 9112 §6.3, §7.1).
    #[error("Malformed Transfer-Encoding")]
    Coding,
    /// A transfer coding below `chunked` that is not implemented (RFC 9112 §6.1: 501).
    #[error("Transfer coding not supported")]
    CodingNotSupported,
}

impl HeadError {
    /// The status code of the response (RFC 9110 §15).
    pub fn status(self) -> u16 {
        match self {
            HeadError::BareLf
            | HeadError::BareCr
            | HeadError::FoldedLine
            | HeadError::LeadingCrlfs
            | HeadError::RequestLine
            | HeadError::Method
            | HeadError::Target
            | HeadError::FieldName
            | HeadError::FieldValue
            | HeadError::HostMissing
            | HeadError::HostRepeated
            | HeadError::Host
            | HeadError::LengthAndCoding
            | HeadError::LengthRepeated
            | HeadError::Length
            | HeadError::CodingInHttp10
            | HeadError::Coding => 400,
            HeadError::TargetTooLong => 414,
            HeadError::Expectation => 417,
            HeadError::TooManyHeaders | HeadError::HeadTooLarge => 431,
            HeadError::MethodTooLong | HeadError::Connect | HeadError::CodingNotSupported => 501,
            HeadError::VersionNotSupported => 505,
        }
    }
}
