//! Putting the framing on a response body (RFC 9112 §6, §7.1).
//!
//! The counterpart of [`BodyDecoder`](super::BodyDecoder). It never sees the content: [`BodyEncoder::piece`] gets the
//! length of the next piece and says which few bytes go before and behind it, so that an event which is shared by a
//! million connections goes out in a vectored write without being copied for one of them.
//!
//! It also keeps the handler to its word. If a `Content-Length` was sent, more bytes are refused before they are
//! written, and fewer are an error at the end: in both cases the stream is out of step and the connection must close.

/// Frames the content of one response.
#[derive(Debug, PartialEq, Eq)]
pub enum BodyEncoder {
    /// The response has no content; what comes is dropped.
    None,
    /// A `Content-Length` was sent.
    Length {
        /// How many bytes are still due.
        remaining: u64,
    },
    /// Chunks (RFC 9112 §7.1).
    Chunked,
    /// All bytes until the connection is closed (RFC 9112 §6.3).
    UntilClose,
}

/// What to write for one piece of content: `head`, then the piece itself if `is_sent`, then `tail`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Goes before the piece; may be empty.
    pub head: ChunkHead,
    /// Whether the piece goes out at all: not if the response has no content.
    pub is_sent: bool,
    /// Goes behind the piece; may be empty.
    pub tail: &'static [u8],
}

/// The content is not what the head promised. The client cannot be told but by closing the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyMismatch {
    /// More bytes than the `Content-Length`; the piece must not be sent.
    #[error("{excess} bytes more than the Content-Length")]
    TooLong {
        /// How many too many.
        excess: u64,
    },
    /// The end came before that many more bytes.
    #[error("{missing} bytes less than the Content-Length")]
    TooShort {
        /// How many are missing.
        missing: u64,
    },
}

impl BodyEncoder {
    /// What goes around the next `len` bytes of content. An empty piece is nothing at all: as a chunk it would end the
    /// body.
    ///
    /// # Errors
    ///
    /// [`BodyMismatch::TooLong`].
    pub fn piece(&mut self, len: usize) -> Result<Piece, BodyMismatch> {
        let bare = Piece { head: ChunkHead::EMPTY, is_sent: len > 0, tail: b"" };
        match self {
            BodyEncoder::None => Ok(Piece { is_sent: false, ..bare }),
            BodyEncoder::Length { remaining } => {
                let len = len as u64;
                if len > *remaining {
                    return Err(BodyMismatch::TooLong { excess: len - *remaining });
                }
                *remaining -= len;
                Ok(bare)
            }
            BodyEncoder::Chunked if len == 0 => Ok(bare),
            BodyEncoder::Chunked => {
                Ok(Piece { head: ChunkHead::new(len), tail: CHUNK_END, ..bare })
            }
            BodyEncoder::UntilClose => Ok(bare),
        }
    }

    /// Writes the next bytes of content, framed, behind what is in `out`: for callers that copy them anyway.
    ///
    /// # Errors
    ///
    /// [`BodyMismatch::TooLong`]; `out` is then as it was.
    pub fn encode(&mut self, data: &[u8], out: &mut Vec<u8>) -> Result<(), BodyMismatch> {
        let piece = self.piece(data.len())?;
        if piece.is_sent {
            out.extend_from_slice(piece.head.as_bytes());
            out.extend_from_slice(data);
            out.extend_from_slice(piece.tail);
        }
        Ok(())
    }

    /// Ends the body: what to write behind the last piece.
    ///
    /// # Errors
    ///
    /// [`BodyMismatch::TooShort`]: the connection must be closed, so that the client sees that something is missing.
    pub fn finish(self) -> Result<&'static [u8], BodyMismatch> {
        match self {
            BodyEncoder::Length { remaining: missing @ 1.. } => {
                Err(BodyMismatch::TooShort { missing })
            }
            BodyEncoder::Chunked => Ok(LAST_CHUNK),
            BodyEncoder::None | BodyEncoder::Length { remaining: 0 } | BodyEncoder::UntilClose => {
                Ok(b"")
            }
        }
    }
}

/// The line before the content of a chunk: its size in hexadecimal digits, and CRLF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHead {
    /// Filled from the end.
    bytes: [u8; CHUNK_HEAD_BYTES_MAX],
    start: u8,
}

impl ChunkHead {
    const EMPTY: ChunkHead =
        ChunkHead { bytes: [0; CHUNK_HEAD_BYTES_MAX], start: CHUNK_HEAD_BYTES_MAX as u8 };

    /// That of a chunk of so many bytes, which must not be 0.
    pub fn new(len: usize) -> Self {
        let mut head = ChunkHead::EMPTY;
        let mut prepend = |byte| {
            head.start -= 1;
            head.bytes[usize::from(head.start)] = byte;
        };
        prepend(b'\n');
        prepend(b'\r');
        let mut rest = len;
        loop {
            prepend(b"0123456789abcdef"[rest & 0xf]);
            rest >>= 4;
            if rest == 0 {
                return head;
            }
        }
    }

    /// The bytes to write.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[usize::from(self.start)..]
    }
}

/// 16 digits for 64 bits, and CRLF.
const CHUNK_HEAD_BYTES_MAX: usize = 18;

/// The chunk of size 0 and no trailers (RFC 9112 §7.1).
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Behind the content of a chunk.
pub const CHUNK_END: &[u8] = b"\r\n";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn chunk_heads_are_hexadecimal() {
        for len in [1, 9, 10, 15, 16, 255, 4096, 65_535, 1 << 32, usize::MAX] {
            assert_eq!(ChunkHead::new(len).as_bytes(), format!("{len:x}\r\n").as_bytes());
        }
    }

    #[test]
    fn an_empty_piece_does_not_end_the_body() {
        let mut encoder = BodyEncoder::Chunked;
        let mut out = Vec::new();
        encoder.encode(b"hello, world", &mut out).unwrap();
        encoder.encode(b"", &mut out).unwrap();
        out.extend_from_slice(encoder.finish().unwrap());
        assert_eq!(out, b"c\r\nhello, world\r\n0\r\n\r\n");
    }

    #[test]
    fn a_promise_is_kept() {
        let mut encoder = BodyEncoder::Length { remaining: 5 };
        let mut out = Vec::new();
        encoder.encode(b"abc", &mut out).unwrap();
        assert_eq!(encoder.encode(b"abc", &mut out), Err(BodyMismatch::TooLong { excess: 1 }));
        assert_eq!(out, b"abc");
        assert_eq!(encoder.finish(), Err(BodyMismatch::TooShort { missing: 2 }));
        let mut encoder = BodyEncoder::Length { remaining: 2 };
        encoder.encode(b"ab", &mut out).unwrap();
        assert_eq!(encoder.finish(), Ok(&b""[..]));
    }

    #[test]
    fn content_is_dropped_where_there_is_none() {
        let mut encoder = BodyEncoder::None;
        let mut out = Vec::new();
        encoder.encode(b"abc", &mut out).unwrap();
        assert_eq!((out.len(), encoder.finish()), (0, Ok(&b""[..])));
    }
}
