//! Taking the framing off a request body (RFC 9112 §6, §7.1).
//!
//! [`BodyDecoder::decode`] looks at some input and says which range of it is content, and how much of it is done with.
//! It copies nothing and keeps nothing but its state, so it does not matter how the bytes are cut. One call gives one
//! piece of content at most, with all framing before it and, if it is there, behind it; a caller that wants less at a
//! time passes less.
//!
//! ```text
//!            hex digits          CRLF                    all of it         CR LF
//! SizeStart ───────▶ Size ─┬──────────────▶ Data ─────────────▶ DataCr ▶ DataLf ─▶ SizeStart
//!                          └─";"▶ Extension ┘
//!                     size 0: ▶ TrailerStart ─ field lines, then an empty one ─▶ Done
//! ```
//!
//! Stricter than §7.1 in one point: white space before the `;` of an extension is refused, which a recipient should
//! tolerate. Nobody sends it but who probes for a parser that reads `5 ` in its own way. Extensions and trailers are
//! dropped: no handler gets them (§7.1.1, §7.1.2), and both are bounded, as otherwise they were a way to keep a
//! connection busy without sending anything.

use std::ops::Range;

use super::framing::BodyFraming;
use super::request_line::is_tchar;

/// What one call of [`BodyDecoder::decode`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of the input that are done with. Never 0 unless the input is empty or the body has ended.
    pub consumed: usize,
    /// Which bytes of the input are content; may be empty, and lies within what was consumed.
    pub data: Range<usize>,
    /// Whether the body is complete. What comes behind `consumed` then belongs to the next request.
    pub end: bool,
}

/// Why a body cannot be read on. Nobody knows where the next message begins, so the connection ends with it; the
/// status for a client that has no response yet is [`BodyError::status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// A chunk size that is not `1*HEXDIG`, or something other than `;` or CRLF behind it (RFC 9112 §7.1).
    #[error("Malformed chunk size")]
    ChunkSize,
    /// A chunk size of more than 16 digits: it could exceed 64 bits (RFC 9112 §7.1 warns of just that).
    #[error("Chunk size too large")]
    ChunkSizeTooLarge,
    /// A control byte in a chunk extension (RFC 9112 §7.1.1).
    #[error("Malformed chunk extension")]
    ChunkExtension,
    /// The extensions of one chunk are longer than [`CHUNK_EXTENSION_BYTES_MAX`] (RFC 9112 §7.1.1 asks for a limit).
    #[error("Chunk extension too large")]
    ChunkExtensionTooLarge,
    /// No CRLF behind the content of a chunk (RFC 9112 §7.1).
    #[error("Malformed end of chunk")]
    ChunkEnd,
    /// A CR without LF or an LF without CR in a chunk's first line or a trailer (RFC 9112 §2.2).
    #[error("Malformed line end in the request body")]
    LineEnd,
    /// A trailer that is no field line (RFC 9112 §7.1.2, §5).
    #[error("Malformed trailer")]
    Trailer,
    /// The trailers are longer than [`TRAILER_BYTES_MAX`] (RFC 6585 §5).
    #[error("Trailers too large")]
    TrailerTooLarge,
}

impl BodyError {
    /// The status code of the response, if there was none yet.
    pub fn status(self) -> u16 {
        match self {
            BodyError::ChunkSize
            | BodyError::ChunkSizeTooLarge
            | BodyError::ChunkExtension
            | BodyError::ChunkExtensionTooLarge
            | BodyError::ChunkEnd
            | BodyError::LineEnd
            | BodyError::Trailer => 400,
            BodyError::TrailerTooLarge => 431,
        }
    }
}

/// Finds the content in the bytes behind a request head. See the head of this file.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Content up to a `Content-Length`; never 0.
    Length {
        remaining: u64,
    },
    /// Content of a chunk; never 0.
    Data {
        remaining: u64,
    },
    /// Bytes that are no content.
    Framing(Framing),
    Done,
    /// It was refused, and stays so.
    Failed(BodyError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// The first digit of a chunk size is due.
    SizeStart,
    Size {
        size: u64,
        digits: u8,
    },
    Extension {
        size: u64,
        bytes: u16,
    },
    /// The LF of a chunk's first line is due.
    SizeLf {
        size: u64,
    },
    DataCr,
    DataLf,
    /// `bytes` counts all trailers so far.
    Trailer {
        part: TrailerPart,
        bytes: u16,
    },
    /// The very last LF is due.
    EndLf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TrailerPart {
    /// The first byte of a field line is due, or the CR of the empty line.
    Start,
    Name,
    Value,
    Lf,
}

impl BodyDecoder {
    /// A decoder for the body that a head announces.
    pub fn new(framing: BodyFraming) -> Self {
        let state = match framing {
            BodyFraming::None | BodyFraming::Length(0) => State::Done,
            BodyFraming::Length(remaining) => State::Length { remaining },
            BodyFraming::Chunked => State::Framing(Framing::SizeStart),
        };
        BodyDecoder { state }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Looks at the next bytes of the stream, from the first that was not consumed before.
    ///
    /// Call it again with what was not consumed until `end`, or until there is no input.
    ///
    /// # Errors
    ///
    /// What breaks the framing; every later call says the same. Content in the same input before the fault is not
    /// handed out: the request has failed.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
        let mut data = 0..0;
        let mut at = 0;
        while let Some(&byte) = input.get(at) {
            match self.state {
                State::Length { remaining } | State::Data { remaining } => {
                    if !data.is_empty() {
                        break;
                    }
                    let available = input.len() - at;
                    let taken = usize::try_from(remaining).map_or(available, |n| n.min(available));
                    self.state = self.state.after_data(taken as u64);
                    data = at..at + taken;
                    at = data.end;
                }
                State::Framing(framing) => {
                    self.state = framing.step(byte).unwrap_or_else(State::Failed);
                    at += 1;
                }
                State::Done | State::Failed(_) => break,
            }
        }
        match self.state {
            State::Failed(error) => Err(error),
            State::Length { .. } | State::Data { .. } | State::Framing(_) | State::Done => {
                Ok(Decoded { consumed: at, data, end: self.is_done() })
            }
        }
    }
}

impl State {
    /// The state behind `taken` bytes of content.
    fn after_data(self, taken: u64) -> State {
        match self {
            State::Length { remaining } if remaining == taken => State::Done,
            State::Length { remaining } => State::Length { remaining: remaining - taken },
            State::Data { remaining } if remaining == taken => State::Framing(Framing::DataCr),
            State::Data { remaining } => State::Data { remaining: remaining - taken },
            State::Framing(_) | State::Done | State::Failed(_) => self,
        }
    }
}

impl Framing {
    /// One byte that is no content.
    fn step(self, byte: u8) -> Result<State, BodyError> {
        let next = match (self, byte) {
            (Framing::SizeStart, _) => {
                let size = hex_digit(byte).ok_or(BodyError::ChunkSize)?;
                Framing::Size { size, digits: 1 }
            }
            (Framing::Size { size, .. } | Framing::Extension { size, .. }, b'\r') => {
                Framing::SizeLf { size }
            }
            (Framing::Size { .. } | Framing::Extension { .. }, b'\n') => {
                return Err(BodyError::LineEnd);
            }
            (Framing::Size { size, .. }, b';') => Framing::Extension { size, bytes: 1 },
            (Framing::Size { size, digits }, _) => {
                let digit = hex_digit(byte).ok_or(BodyError::ChunkSize)?;
                if digits == CHUNK_SIZE_DIGITS_MAX {
                    return Err(BodyError::ChunkSizeTooLarge);
                }
                Framing::Size { size: size << 4 | digit, digits: digits + 1 }
            }
            (Framing::Extension { size, bytes }, _) => {
                if !is_text(byte) {
                    return Err(BodyError::ChunkExtension);
                }
                if bytes == CHUNK_EXTENSION_BYTES_MAX {
                    return Err(BodyError::ChunkExtensionTooLarge);
                }
                Framing::Extension { size, bytes: bytes + 1 }
            }
            // §7.1: the chunk of size 0 is the last, and has no content but trailers.
            (Framing::SizeLf { size: 0 }, b'\n') => {
                Framing::Trailer { part: TrailerPart::Start, bytes: 0 }
            }
            (Framing::SizeLf { size }, b'\n') => return Ok(State::Data { remaining: size }),
            (Framing::DataCr, b'\r') => Framing::DataLf,
            (Framing::DataLf, b'\n') => Framing::SizeStart,
            (Framing::DataCr | Framing::DataLf, _) => return Err(BodyError::ChunkEnd),
            (Framing::Trailer { part: TrailerPart::Start, .. }, b'\r') => Framing::EndLf,
            (Framing::Trailer { bytes: TRAILER_BYTES_MAX, .. }, _) => {
                return Err(BodyError::TrailerTooLarge);
            }
            (Framing::Trailer { part, bytes }, _) => {
                Framing::Trailer { part: part.step(byte)?, bytes: bytes + 1 }
            }
            (Framing::EndLf, b'\n') => return Ok(State::Done),
            (Framing::SizeLf { .. } | Framing::EndLf, _) => return Err(BodyError::LineEnd),
        };
        Ok(State::Framing(next))
    }
}

impl TrailerPart {
    /// One byte of `*( field-line CRLF )`; the empty line behind them is the caller's.
    fn step(self, byte: u8) -> Result<TrailerPart, BodyError> {
        match (self, byte) {
            (TrailerPart::Lf, b'\n') => Ok(TrailerPart::Start),
            (TrailerPart::Lf, _) | (_, b'\n') => Err(BodyError::LineEnd),
            (TrailerPart::Name, b':') => Ok(TrailerPart::Value),
            (TrailerPart::Start | TrailerPart::Name, _) if is_tchar(byte) => Ok(TrailerPart::Name),
            (TrailerPart::Value, b'\r') => Ok(TrailerPart::Lf),
            (TrailerPart::Value, _) if is_text(byte) => Ok(TrailerPart::Value),
            (TrailerPart::Start | TrailerPart::Name | TrailerPart::Value, _) => {
                Err(BodyError::Trailer)
            }
        }
    }
}

fn hex_digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

/// What a field value or a quoted string may hold (RFC 9110 §5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Bytes of extensions behind one chunk size, from the `;` on; more are answered with 400. Costs no memory, only time.
pub const CHUNK_EXTENSION_BYTES_MAX: u16 = 256;

/// Bytes of all trailers of a body together, with their CRLFs; more are answered with 431. Costs no memory, only time.
pub const TRAILER_BYTES_MAX: u16 = 4096;

/// Digits of a chunk size: as many as 64 bits have. Leading zeros count, so that they end, too.
const CHUNK_SIZE_DIGITS_MAX: u8 = 16;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;
    use crate::http1::BodyEncoder;

    /// Decodes with the input cut after each of those counts of bytes, the last being "all the rest".
    fn decode(
        framing: BodyFraming,
        mut input: &[u8],
        cuts: &[usize],
    ) -> Result<(Vec<u8>, usize), BodyError> {
        let (mut decoder, mut body, mut consumed) = (BodyDecoder::new(framing), Vec::new(), 0);
        let mut cuts = cuts.iter();
        while !decoder.is_done() && !input.is_empty() {
            let len = cuts.next().map_or(input.len(), |&cut| cut.clamp(1, input.len()));
            let decoded = decoder.decode(&input[..len])?;
            assert!(decoded.consumed > 0, "no progress");
            assert!(decoded.data.end <= decoded.consumed);
            assert_eq!(decoded.end, decoder.is_done());
            body.extend_from_slice(&input[decoded.data]);
            consumed += decoded.consumed;
            input = &input[decoded.consumed..];
        }
        Ok((body, consumed))
    }

    proptest! {
        #[test]
        fn decodes_what_was_encoded(
            pieces in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..300), 0..8),
            cuts in proptest::collection::vec(0..40_usize, 0..60),
            behind in proptest::collection::vec(any::<u8>(), 0..8),
        ) {
            let mut encoder = BodyEncoder::Chunked;
            let mut encoded = Vec::new();
            for piece in &pieces {
                encoder.encode(piece, &mut encoded).unwrap();
            }
            encoded.extend_from_slice(encoder.finish().unwrap());
            let len = encoded.len();
            encoded.extend_from_slice(&behind);
            let expected = Ok((pieces.concat(), len));
            prop_assert_eq!(decode(BodyFraming::Chunked, &encoded, &cuts), expected);
        }
    }

    #[test]
    fn a_length_ends_the_body() {
        let length = BodyFraming::Length(5);
        assert_eq!(decode(length, b"hello, world", &[]), Ok((b"hello".to_vec(), 5)));
        assert_eq!(decode(length, b"hello, world", &[1, 1, 2]), Ok((b"hello".to_vec(), 5)));
        for framing in [BodyFraming::None, BodyFraming::Length(0)] {
            let mut decoder = BodyDecoder::new(framing);
            let nothing = Decoded { consumed: 0, data: 0..0, end: true };
            assert_eq!(decoder.decode(b"GET"), Ok(nothing));
        }
    }

    #[test]
    fn framing_around_a_piece_is_taken_with_it() {
        let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
        let input = b"3;a=\"b\"\r\nabc\r\n0\r\nT: x\r\n\r\nGET";
        let decoded = decoder.decode(input).unwrap();
        assert_eq!(&input[decoded.data], b"abc");
        assert_eq!(&input[decoded.consumed..], b"GET");
        assert!(decoded.end);
    }

    #[test]
    fn overhead_is_bounded() {
        let extension = |bytes: u16| {
            let text = "x".repeat(usize::from(bytes) - 1);
            decode(BodyFraming::Chunked, format!("0;{text}\r\n\r\n").as_bytes(), &[])
        };
        assert!(extension(CHUNK_EXTENSION_BYTES_MAX).is_ok());
        assert_eq!(
            extension(CHUNK_EXTENSION_BYTES_MAX + 1),
            Err(BodyError::ChunkExtensionTooLarge)
        );
        let trailer = |bytes: u16| {
            let text = "x".repeat(usize::from(bytes) - "a:\r\n".len());
            decode(BodyFraming::Chunked, format!("0\r\na:{text}\r\n\r\n").as_bytes(), &[])
        };
        assert!(trailer(TRAILER_BYTES_MAX).is_ok());
        assert_eq!(trailer(TRAILER_BYTES_MAX + 1), Err(BodyError::TrailerTooLarge));
    }

    #[test]
    fn stays_refused() {
        let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
        assert_eq!(decoder.decode(b"x"), Err(BodyError::ChunkSize));
        assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(BodyError::ChunkSize));
    }
}
