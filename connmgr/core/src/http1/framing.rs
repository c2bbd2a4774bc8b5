//! How long the body is (RFC 9112 §6).
//!
//! Of everything in HTTP/1 this decides most: who gets it wrong takes the rest of one request for the next one. The
//! rules of §6.3 for a request come down to: `Transfer-Encoding: chunked`, or one `Content-Length`, or no body. All
//! else is refused, and each for a reason of its own, because the refusals are what attackers try.

use super::error::HeadError;
use super::request_line::Version;

/// How the body of a request is delimited (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyFraming {
    /// There is none: neither field was sent.
    None,
    /// That many bytes, from `Content-Length`; may be 0.
    Length(u64),
    /// Chunks, up to the last one (§7.1).
    Chunked,
}

/// What the field lines say about the length, collected line by line.
#[derive(Debug, Default)]
pub(super) struct FramingFields {
    length: Option<u64>,
    coding: Coding,
}

/// The transfer codings seen so far; lines of the same name are one list (RFC 9110 §5.3).
#[derive(Debug, Default)]
enum Coding {
    #[default]
    Absent,
    /// The last one is not `chunked`.
    Unfinished,
    /// The last one is `chunked`, and before it came others or not.
    Chunked { over_others: bool },
}

impl FramingFields {
    /// Takes the value of a `Content-Length` line. A list, even of equal numbers, is no number and refused with it.
    pub(super) fn content_length(&mut self, value: &[u8]) -> Result<(), HeadError> {
        let length = parse_content_length(value).ok_or(HeadError::Length)?;
        match self.length.replace(length) {
            None => Ok(()),
            Some(_) => Err(HeadError::LengthRepeated),
        }
    }

    /// Takes the value of a `Transfer-Encoding` line.
    pub(super) fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), HeadError> {
        for coding in value.split(|&byte| byte == b',') {
            let coding = coding.trim_ascii();
            // An empty element could be skipped (RFC 9110 §5.6.1); who skips it sees another list than who does not.
            if coding.is_empty() {
                return Err(HeadError::Coding);
            }
            let is_chunked = coding.eq_ignore_ascii_case(b"chunked");
            self.coding = match (&self.coding, is_chunked) {
                // §7.1: chunked MUST NOT be applied twice; §6.3: and nothing comes after it.
                (Coding::Chunked { .. }, _) => return Err(HeadError::Coding),
                (Coding::Absent, true) => Coding::Chunked { over_others: false },
                (Coding::Unfinished, true) => Coding::Chunked { over_others: true },
                (Coding::Absent | Coding::Unfinished, false) => Coding::Unfinished,
            };
        }
        Ok(())
    }

    /// The verdict, once all lines were seen.
    pub(super) fn finish(self, version: Version) -> Result<BodyFraming, HeadError> {
        match (self.coding, self.length) {
            (Coding::Absent, None) => Ok(BodyFraming::None),
            (Coding::Absent, Some(length)) => Ok(BodyFraming::Length(length)),
            (Coding::Unfinished | Coding::Chunked { .. }, Some(_)) => {
                Err(HeadError::LengthAndCoding)
            }
            (Coding::Unfinished | Coding::Chunked { .. }, None) if version == Version::Http10 => {
                Err(HeadError::CodingInHttp10)
            }
            // §6.3 wants a 400 here even if the coding is one that is not implemented.
            (Coding::Unfinished, None) => Err(HeadError::Coding),
            (Coding::Chunked { over_others: true }, None) => Err(HeadError::CodingNotSupported),
            (Coding::Chunked { over_others: false }, None) => Ok(BodyFraming::Chunked),
        }
    }
}

/// `Content-Length = 1*DIGIT` (RFC 9110 §8.6), if it fits 64 bits. No sign, no white space, no list.
pub(super) fn parse_content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    value.iter().try_fold(0_u64, |length, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        length.checked_mul(10)?.checked_add(digit)
    })
}
