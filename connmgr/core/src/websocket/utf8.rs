//! Whether a text message is UTF-8, piece by piece (RFC 6455 §8.1).
//!
//! A character may lie across frames, and across what came of them. Bytes that no character can begin with, or go on
//! with, are seen as soon as they are there: a peer that sends nonsense is told before it has sent all of it.

/// A text so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Utf8 {
    /// The beginning of a character whose end has not come.
    begun: [u8; CHAR_BYTES_MAX],
    len: u8,
}

/// Bytes of a character (RFC 3629 §3).
const CHAR_BYTES_MAX: usize = 4;

impl Utf8 {
    /// Before a text, and behind one that is complete.
    pub(super) const fn new() -> Self {
        Utf8 { begun: [0; CHAR_BYTES_MAX], len: 0 }
    }

    /// Takes the next bytes. Says whether all so far may be UTF-8.
    pub(super) fn push(&mut self, mut bytes: &[u8]) -> bool {
        while self.len > 0 {
            let [next, rest @ ..] = bytes else { return true };
            bytes = rest;
            self.begun[usize::from(self.len)] = *next;
            self.len += 1;
            match std::str::from_utf8(&self.begun[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        let Err(error) = std::str::from_utf8(bytes) else { return true };
        if error.error_len().is_some() {
            return false;
        }
        let begun = &bytes[error.valid_up_to()..];
        self.begun[..begun.len()].copy_from_slice(begun);
        self.len = u8::try_from(begun.len()).expect("less than a character");
        true
    }

    /// Whether no character is cut.
    pub(super) fn is_complete(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nonsense_is_seen_with_its_first_byte() {
        for (bytes, wrong_at) in [
            (&b"\xff"[..], 0),
            (b"\x80", 0),
            (b"a\xc0", 1),
            (b"\xc3a", 1),
            (b"\xe0\x9f", 1),
            (b"\xed\xa0", 1),
            (b"\xf0\x8f", 1),
            (b"\xf4\x90", 1),
            (b"\xf0\x9f\x98a", 3),
            (b"\xf5", 0),
        ] {
            let mut text = Utf8::new();
            for (at, byte) in bytes.iter().enumerate() {
                assert_eq!(text.push(&[*byte]), at < wrong_at, "{bytes:x?} at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn however_it_is_cut_it_is_judged_as_a_whole(
            bytes in prop_oneof![
                any::<String>().prop_map(String::into_bytes),
                proptest::collection::vec(any::<u8>(), 0..12),
                (any::<String>(), any::<u8>(), any::<prop::sample::Index>()).prop_map(|(text, byte, at)| {
                    let mut bytes = text.into_bytes();
                    if !bytes.is_empty() {
                        let at = at.index(bytes.len());
                        bytes[at] = byte;
                    }
                    bytes
                }),
            ],
            pieces in proptest::collection::vec(1_usize..5, 0..20),
        ) {
            let mut text = Utf8::new();
            let mut rest = &bytes[..];
            let mut is_valid = true;
            for piece in pieces {
                let (now, later) = rest.split_at(piece.min(rest.len()));
                is_valid = is_valid && text.push(now);
                rest = later;
            }
            is_valid = is_valid && text.push(rest);
            prop_assert_eq!(is_valid && text.is_complete(), std::str::from_utf8(&bytes).is_ok());
        }
    }
}
