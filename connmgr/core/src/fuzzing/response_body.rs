//! Bodies there and back: what [`BodyEncoder`] frames, [`BodyDecoder`] finds again, however the bytes are cut.

use zhttp::fuzzing::Choices;

use crate::http1::{BodyDecoder, BodyEncoder, BodyFraming, BodyMismatch};

/// The longest piece of content, in bytes.
const PIECE_BYTES_MAX: usize = 300;

/// Frames pieces of content as chunks and under a length, and reads them again.
///
/// # Panics
///
/// If it is not the content, or its end is not seen where it is.
pub fn fuzz(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let difference = choices.index(5) as u64;
    let mut cuts = choices.bytes(30).iter().cycle().copied().map(usize::from);
    let mut pieces = Vec::new();
    while !choices.is_over() {
        pieces.push(choices.bytes(PIECE_BYTES_MAX));
    }
    let content = pieces.concat();
    let chunked = frame(BodyEncoder::Chunked, &pieces).expect("chunks have no length to keep to");
    check(BodyFraming::Chunked, &chunked, &content, &mut cuts);

    let length = content.len() as u64;
    let bare = frame(BodyEncoder::Length { remaining: length }, &pieces);
    assert_eq!(bare.as_ref(), Ok(&content), "content under a length has no framing");
    check(BodyFraming::Length(length), &content, &content, &mut cuts);
    assert_eq!(frame(BodyEncoder::UntilClose, &pieces).as_ref(), Ok(&content));
    assert_eq!(frame(BodyEncoder::None, &pieces).as_deref(), Ok(&b""[..]), "no content at all");
    check(BodyFraming::None, b"", b"", &mut cuts);

    if difference > 0 {
        let remaining = length + difference;
        let missing = Err(BodyMismatch::TooShort { missing: difference });
        assert_eq!(frame(BodyEncoder::Length { remaining }, &pieces), missing);
    }
    if let Some(remaining) = length.checked_sub(difference).filter(|_| difference > 0) {
        let framed = frame(BodyEncoder::Length { remaining }, &pieces);
        assert!(matches!(framed, Err(BodyMismatch::TooLong { excess: 1.. })), "{framed:?}");
    }
}

fn frame(mut encoder: BodyEncoder, pieces: &[&[u8]]) -> Result<Vec<u8>, BodyMismatch> {
    let mut out = Vec::new();
    for piece in pieces {
        encoder.encode(piece, &mut out)?;
    }
    out.extend_from_slice(encoder.finish()?);
    Ok(out)
}

/// Reads a body of which each read brings as much as `cuts` say, with the next request right behind it.
fn check(
    framing: BodyFraming,
    framed: &[u8],
    content: &[u8],
    cuts: &mut impl Iterator<Item = usize>,
) {
    let stream = [framed, b"GET / HTTP/1.1\r\n"].concat();
    let mut decoder = BodyDecoder::new(framing);
    let (mut at, mut read) = (0, Vec::new());
    while !decoder.is_done() {
        let window = &stream[at..][..cuts.next().unwrap_or(0).clamp(1, stream.len() - at)];
        let decoded = decoder.decode(window).expect("what is written can be read");
        assert!(decoded.consumed > 0, "it goes on");
        read.extend_from_slice(&window[decoded.data]);
        at += decoded.consumed;
        assert_eq!(decoded.end, decoder.is_done());
    }
    assert_eq!((at, &*read), (framed.len(), content), "all of it and nothing more");
}
