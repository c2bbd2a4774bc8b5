//! Small texts against naive readers: cursors, and the base64url of composite ones.

use crate::base64url::{self, Encoder};
use crate::cursor::Cursor;

use super::Choices;

/// Any bytes as the text of a cursor, and any two numbers as a cursor.
///
/// # Panics
///
/// If another reader reads another cursor, or a cursor has two texts.
pub fn cursor(bytes: &[u8]) {
    let read = Cursor::from_bytes(bytes).ok();
    assert_eq!(read, naive_cursor(bytes), "{}", bytes.escape_ascii());
    if let Some(cursor) = read {
        assert_eq!(cursor.to_string().as_bytes(), bytes, "one text for each cursor");
        assert!(bytes.len() <= Cursor::TEXT_BYTES_MAX);
    }
    let mut choices = Choices::new(bytes);
    let [a, b] = [(); 2].map(|()| Cursor::new(choices.number(), choices.number()));
    assert_eq!(a < b, (a.epoch, a.offset) < (b.epoch, b.offset), "the order is that of the log");
    let later = a.plus(b.offset);
    assert_eq!((later.epoch, later.offset), (a.epoch, a.offset.saturating_add(b.offset)));
    let is_cursor = a.epoch > 0 || a.offset == 0;
    assert_eq!(a.to_string().parse(), if is_cursor { Ok(a) } else { Err(crate::CursorError) });
}

/// Lets the standard library read the numbers, and then looks whether that is how they are written.
fn naive_cursor(bytes: &[u8]) -> Option<Cursor> {
    let (epoch, offset) = std::str::from_utf8(bytes).ok()?.split_once('-')?;
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| number.to_string() == text);
    let cursor = Cursor::new(number(epoch)?, number(offset)?);
    (cursor.epoch > 0 || cursor.offset == 0).then_some(cursor)
}

/// Any bytes as what is to be written in base64url, and as a text of it.
///
/// # Panics
///
/// If it is not what comes out bit by bit, or some bytes have two texts.
pub fn base64url(bytes: &[u8]) {
    let text = encode(bytes);
    assert_eq!(base64url::decode(&text).as_deref(), Some(bytes), "{}", text.escape_ascii());
    assert_eq!(naive_decode(&text).as_deref(), Some(bytes), "{}", text.escape_ascii());
    let decoded = base64url::decode(bytes);
    assert_eq!(decoded, naive_decode(bytes), "{}", bytes.escape_ascii());
    if let Some(decoded) = decoded {
        assert_eq!(encode(&decoded), bytes, "one text for each value");
    }
}

fn encode(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::new(&mut out);
    bytes.iter().for_each(|&byte| encoder.push(byte));
    encoder.finish();
    out
}

/// RFC 4648 §5, one bit at a time. What is behind the last whole byte is less than a digit, and zero.
fn naive_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bits = Vec::new();
    for &digit in text {
        let value = (b'A'..=b'Z')
            .chain(b'a'..=b'z')
            .chain(b'0'..=b'9')
            .chain([b'-', b'_'])
            .position(|other| other == digit)?;
        bits.extend((0..6).rev().map(|bit| value >> bit & 1 == 1));
    }
    let byte = |bits: &[bool]| bits.iter().fold(0, |byte, &bit| byte << 1 | u8::from(bit));
    let bytes = bits.chunks_exact(8);
    let rest = bytes.remainder();
    (rest.len() < 6 && !rest.contains(&true)).then(|| bytes.map(byte).collect())
}
