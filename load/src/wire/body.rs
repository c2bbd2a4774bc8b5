//! Bodies of answers (RFC 9112 §6 and §7), taken apart as they come.
//!
//! [`Body::next`] cuts the next piece of content off what was read. Between two reads it remembers 16 bytes, and nothing of the
//! content.

/// What is left of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// So many bytes (RFC 9112 §6.2).
    Length(u64),
    /// Chunks (RFC 9112 §7.1), and within the one that is read so many bytes.
    Chunked(Step, u64),
    /// All until the server closes (RFC 9112 §6.3, rule 8).
    UntilClose,
}

/// Where in the framing of chunks the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// In the size, before its first digit.
    FirstDigit,
    /// In the size.
    Digits,
    /// Behind the size: an extension, or the end of the line.
    Extension,
    /// In the content.
    Content,
    /// Behind the content, where a line break is.
    ContentEnd,
    /// At the begin of a line of the trailer.
    TrailerBegin,
    /// Within such a line.
    Trailer,
    /// At the line feed that ends the trailer, and the body.
    TrailerEnd,
    /// Behind all.
    Done,
}

/// What is no body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the size of a chunk is not a hexadecimal number")]
    ChunkSize,
    #[error("a chunk does not end where its size says")]
    ChunkEnd,
}

/// The largest chunk size that may be multiplied by 16.
const CHUNK_SIZE_MAX: u64 = u64::MAX >> 4;

impl Body {
    /// A body in chunks, from its begin.
    pub(crate) const CHUNKED: Body = Body::Chunked(Step::FirstDigit, 0);

    /// Whether all of it has come. A body that ends with the connection never has.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Body::Length(0) | Body::Chunked(Step::Done, _))
    }

    /// Cuts the next piece of content off the input; `None` when the input is used up or the body is done.
    ///
    /// # Errors
    /// If it is no body; then nothing behind it can be read.
    pub(crate) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, BodyError> {
        match self {
            Body::Length(left) => Ok(cut(input, left)),
            Body::UntilClose => {
                let all = std::mem::take(input);
                Ok((!all.is_empty()).then_some(all))
            }
            Body::Chunked(step, left) => loop {
                if *step == Step::Content {
                    if let Some(piece) = cut(input, left) {
                        if *left == 0 {
                            *step = Step::ContentEnd;
                        }
                        return Ok(Some(piece));
                    }
                    return Ok(None);
                }
                let Some((byte, rest)) = input.split_first() else { return Ok(None) };
                if *step == Step::Done {
                    return Ok(None);
                }
                *input = rest;
                *step = framing(*step, *byte, left)?;
            },
        }
    }
}

/// Cuts what is there, but at most `left`.
fn cut<'a>(input: &mut &'a [u8], left: &mut u64) -> Option<&'a [u8]> {
    let len = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    if len == 0 {
        return None;
    }
    let (piece, rest) = input.split_at(len);
    *input = rest;
    *left -= len as u64;
    Some(piece)
}

/// Takes one byte that is not content. A bare line feed ends a line too (RFC 9112 §2.2).
fn framing(step: Step, byte: u8, left: &mut u64) -> Result<Step, BodyError> {
    Ok(match (step, byte) {
        (Step::FirstDigit | Step::Digits, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
            if *left > CHUNK_SIZE_MAX {
                return Err(BodyError::ChunkSize);
            }
            let digit = char::from(byte).to_digit(16).ok_or(BodyError::ChunkSize)?;
            *left = (*left << 4) | u64::from(digit);
            Step::Digits
        }
        (Step::Digits | Step::Extension, b'\n') if *left == 0 => Step::TrailerBegin,
        (Step::Digits | Step::Extension, b'\n') => Step::Content,
        (Step::Digits, b'\r' | b';' | b' ' | b'\t') | (Step::Extension, _) => Step::Extension,
        (Step::FirstDigit | Step::Digits, _) => return Err(BodyError::ChunkSize),
        (Step::ContentEnd, b'\r') => Step::ContentEnd,
        (Step::ContentEnd, b'\n') => Step::FirstDigit,
        (Step::Content | Step::ContentEnd, _) => return Err(BodyError::ChunkEnd),
        (Step::TrailerBegin, b'\r') => Step::TrailerEnd,
        (Step::TrailerBegin | Step::TrailerEnd, b'\n') => Step::Done,
        (Step::Trailer, b'\n') => Step::TrailerBegin,
        (Step::TrailerBegin | Step::Trailer | Step::TrailerEnd, _) => Step::Trailer,
        (Step::Done, _) => Step::Done,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Reads it in pieces of this size; returns the content, whether it is done, and how many bytes are left.
    fn read(
        mut body: Body,
        bytes: &[u8],
        size: usize,
    ) -> Result<(Vec<u8>, bool, usize), BodyError> {
        let mut content = Vec::new();
        let mut left = 0;
        for mut input in bytes.chunks(size) {
            while let Some(piece) = body.next(&mut input)? {
                assert!(!piece.is_empty());
                content.extend_from_slice(piece);
            }
            left += input.len();
        }
        Ok((content, body.is_done(), left))
    }

    #[test]
    fn however_it_is_cut_the_content_is_the_same() {
        let chunked = b"5\r\nhello\r\n00A;x=y\r\n, world 12\r\n0\r\nA: b\r\n\r\nnext";
        for size in 1..=chunked.len() {
            let got = read(Body::CHUNKED, chunked, size).unwrap();
            assert_eq!(got, (b"hello, world 12".to_vec(), true, 4), "{size}");
            let got = read(Body::Length(7), b"content and more", size.min(16)).unwrap();
            assert_eq!(got, (b"content".to_vec(), true, 9), "{size}");
            let got = read(Body::UntilClose, b"all", size).unwrap();
            assert_eq!(got, (b"all".to_vec(), false, 0), "{size}");
        }
        assert!(read(Body::Length(0), b"x", 1).unwrap().1);
        assert_eq!(read(Body::CHUNKED, b"0\n\n", 1).unwrap(), (Vec::new(), true, 0));
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        for (bytes, error) in [
            (&b"x\r\n"[..], BodyError::ChunkSize),
            (b"\r\n", BodyError::ChunkSize),
            (b"1g\r\n", BodyError::ChunkSize),
            (b"11111111111111111\r\n", BodyError::ChunkSize),
            (b"1\r\nab", BodyError::ChunkEnd),
        ] {
            assert_eq!(read(Body::CHUNKED, bytes, 1), Err(error), "{bytes:?}");
        }
    }
}
