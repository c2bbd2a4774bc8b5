//! HTTP/1.1, the server's side, as small pure pieces (RFC 9110 and RFC 9112).
//!
//! ```text
//! bytes ─▶ HeadScanner ─▶ RequestHead ─▶ BodyDecoder ─▶ ranges of the same bytes
//!          (where does     (what does     (which of them
//!           it end?)        it ask?)       are content?)
//!
//! ResponseHead ─▶ write_head ─▶ BodyEncoder ─▶ what to write around the content
//! ```
//!
//! One file for each noun: [`HeadScanner`] finds the end of a head as its bytes arrive, [`RequestHead`] reads it once it
//! is there (`request_line`, `authority` and `framing` hold the rules of its parts), [`BodyDecoder`] takes the framing off
//! a body, [`write_head`] and [`BodyEncoder`] put it on, [`write_error`] makes a whole short response. Which of them is
//! at work on a connection, its timeouts and its buffers are the business of the session machine; sockets are the
//! business of the shell.
//!
//! **Strict in what it accepts.** An edge stands before and behind other parsers. Whatever two of them could read
//! differently is refused, also where RFC 9112 would let a lenient recipient guess: a bare LF or CR, folded lines, a
//! `Content-Length` next to `Transfer-Encoding`, repeated lengths, white space around the colon or in a chunk size. That is
//! how request smuggling is kept out: not by reading such a message in the right way, but by not reading it.
//!
//! Each refusal has a status and a short text ([`HeadError`], [`BodyError`]), and each ends the connection, because from
//! then on nobody knows where the next message begins. The cases are data, in `vectors/http1/`, run piece by piece in
//! `vectors` and by the whole machine in `worker/tests/conformance.rs`.

mod authority;
mod body;
mod encoder;
mod error;
mod error_response;
mod framing;
mod head;
mod request_line;
mod response;
mod scanner;
#[cfg(test)]
pub(crate) mod vectors;

pub use body::{BodyDecoder, BodyError, CHUNK_EXTENSION_BYTES_MAX, Decoded, TRAILER_BYTES_MAX};
pub use encoder::{BodyEncoder, BodyMismatch, CHUNK_END, ChunkHead, Piece};
pub use error::HeadError;
pub use error_response::{ErrorResponse, reason_phrase, write_error};
pub use framing::BodyFraming;
pub use head::{HEADERS_MAX, Headers, RequestHead};
pub use request_line::{METHOD_BYTES_MAX, TargetForm, Version};
pub use response::{
    BodyPlan, RESPONSE_HEAD_BYTES_MAX, RequestContext, ResponseError, ResponseHead, WrittenHead,
    write_head,
};
pub(crate) use response::{check, is_dropped, write_field, write_status_line};
pub use scanner::{HeadLimits, HeadScanner, HeadSpan, LEADING_CRLFS_MAX};

/// The interim response that lets a client go on which sent `Expect: 100-continue` (RFC 9110 §15.2.1). Only for
/// HTTP/1.1, and only before the final response.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
