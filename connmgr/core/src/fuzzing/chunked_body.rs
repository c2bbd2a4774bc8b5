//! Chunked bodies: the same content however the bytes are cut, and the content that a naive reader finds.

use crate::http1::{BodyDecoder, BodyError, BodyFraming};

/// The content and how many bytes its framing and it take; `None` if the end is missing.
type Verdict = Result<Option<(Vec<u8>, usize)>, BodyError>;

/// Decodes `bytes` as a chunked body, whole, byte by byte, and in pieces of three.
///
/// # Panics
///
/// If the results differ, or a naive reader finds another body in what was accepted.
pub fn fuzz(bytes: &[u8]) {
    let whole = decode(bytes, usize::MAX);
    for piece_bytes in [1, 3] {
        assert_eq!(decode(bytes, piece_bytes), whole, "{}", bytes.escape_ascii());
    }
    if let Ok(Some((body, consumed))) = whole {
        assert_eq!(naive(&bytes[..consumed]), Some(body), "{}", bytes.escape_ascii());
    }
}

fn decode(mut input: &[u8], piece_bytes: usize) -> Verdict {
    let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
    let (mut body, mut consumed) = (Vec::new(), 0);
    while !input.is_empty() {
        let decoded = decoder.decode(&input[..piece_bytes.min(input.len())])?;
        assert!(decoded.consumed > 0 && decoded.data.end <= decoded.consumed);
        body.extend_from_slice(&input[decoded.data]);
        consumed += decoded.consumed;
        if decoded.end {
            return Ok(Some((body, consumed)));
        }
        input = &input[decoded.consumed..];
    }
    Ok(None)
}

/// Reads a complete and correct body, line by line.
pub(super) fn naive(mut input: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line = take_line(&mut input)?;
        let size = line.split(|&byte| byte == b';').next()?;
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            while !take_line(&mut input)?.is_empty() {}
            return input.is_empty().then_some(body);
        }
        body.extend_from_slice(input.get(..size)?);
        input = input.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

fn take_line<'i>(input: &mut &'i [u8]) -> Option<&'i [u8]> {
    let len = input.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &input[..len];
    *input = &input[len + 2..];
    Some(line)
}
