//! Base64url without padding (RFC 4648 §5), for the text of composite cursors.
//!
//! By hand, because a composite cursor is written for each event on a connection with several
//! channels: [`Encoder`] takes its bytes one by one and appends to the buffer that goes to the
//! socket, with nothing in between. Decoding is strict: one text for each value.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Appends the text of the bytes that it is given.
#[derive(Debug)]
pub(crate) struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    /// Bits that have not been written yet, the newest lowest; what is above them is stale.
    pending: u32,
    /// How many they are: 0, 2 or 4 between calls.
    pending_bits: u32,
}

impl<'o> Encoder<'o> {
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Self {
        Encoder { out, pending: 0, pending_bits: 0 }
    }

    pub(crate) fn push(&mut self, byte: u8) {
        self.pending = self.pending << 8 | u32::from(byte);
        self.pending_bits += 8;
        while self.pending_bits >= 6 {
            self.pending_bits -= 6;
            self.push_sextet(self.pending >> self.pending_bits);
        }
    }

    /// Writes the last bits.
    pub(crate) fn finish(mut self) {
        if self.pending_bits > 0 {
            self.push_sextet(self.pending << (6 - self.pending_bits));
        }
    }

    fn push_sextet(&mut self, bits: u32) {
        self.out.push(ALPHABET[(bits & 63) as usize]);
    }
}

/// The bytes of a text; `None` if it is not exactly what [`Encoder`] makes of them.
pub(crate) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut pending, mut pending_bits) = (0u32, 0);
    for &digit in text {
        pending = pending << 6 | sextet(digit)?;
        pending_bits += 6;
        if pending_bits >= 8 {
            pending_bits -= 8;
            bytes.push((pending >> pending_bits & 0xff) as u8);
        }
    }
    // A digit that begins no byte, or bits behind the last byte, would be a second text for the
    // same bytes.
    let rest = pending & ((1 << pending_bits) - 1);
    (pending_bits < 6 && rest == 0).then_some(bytes)
}

const fn sextet(digit: u8) -> Option<u32> {
    Some(match digit {
        b'A'..=b'Z' => digit - b'A',
        b'a'..=b'z' => digit - b'a' + 26,
        b'0'..=b'9' => digit - b'0' + 52,
        b'-' => 62,
        b'_' => 63,
        _ => return None,
    } as u32)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as ORACLE;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_writes_what_the_library_writes(bytes in any::<Vec<u8>>()) {
            let mut out = Vec::new();
            let mut encoder = Encoder::new(&mut out);
            bytes.iter().for_each(|&byte| encoder.push(byte));
            encoder.finish();
            prop_assert_eq!(std::str::from_utf8(&out).unwrap(), ORACLE.encode(&bytes));
            prop_assert_eq!(decode(&out), Some(bytes));
        }

        #[test]
        fn it_reads_what_the_library_reads(text in "[A-Za-z0-9_=+/-]{0,12}") {
            prop_assert_eq!(decode(text.as_bytes()), ORACLE.decode(&text).ok());
        }
    }
}
