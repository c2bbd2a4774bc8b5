//! The mark that is at the end of each payload: when it was sent, which event it is of, and how long the payload is.
//!
//! ```text
//! xxxxxxxxxxxxxx@T=00000000012345678901;E=0000000042;B=00000100;
//! ```
//!
//! It survives what servers make of a payload (JSON strings, lines of an event stream), and is found again by a search for
//! three bytes. It is at the end, so that the time of its arrival is that of the whole payload; what is before it, the padding,
//! is looked at in one place only: where it begins.

use std::collections::HashMap;

use memchr::memmem::Finder;

/// Bytes of a mark.
pub(crate) const MARK_BYTES: usize = 48;

const BEGIN: &[u8] = b"@T=";

const PADDING: u8 = b'x';

/// Where in a mark its numbers are.
const SENT: std::ops::Range<usize> = 3..23;
const EVENT: std::ops::Range<usize> = 26..36;
const BYTES: std::ops::Range<usize> = 39..47;

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    /// When the payload was sent, on the clock of `clock`.
    pub(crate) sent_ns: u64,
    /// The number of the event.
    pub(crate) event: u64,
    /// Bytes of the payload, the mark included.
    pub(crate) bytes: usize,
}

impl Mark {
    /// Writes a payload of so many bytes, at least [`MARK_BYTES`].
    pub(crate) fn write_payload(&self, out: &mut Vec<u8>) {
        out.resize(out.len() + self.bytes.saturating_sub(MARK_BYTES), PADDING);
        let Mark { sent_ns, event, bytes } = self;
        out.extend_from_slice(format!("@T={sent_ns:020};E={event:010};B={bytes:08};").as_bytes());
    }

    /// Reads one at the begin of the bytes.
    fn read(bytes: &[u8]) -> Option<Mark> {
        let has = |place: usize, text: &[u8]| bytes.get(place..place + text.len()) == Some(text);
        if !(has(0, BEGIN) && has(23, b";E=") && has(36, b";B=") && has(47, b";")) {
            return None;
        }
        Some(Mark {
            sent_ns: number(&bytes[SENT])?,
            event: number(&bytes[EVENT])?,
            bytes: usize::try_from(number(&bytes[BYTES])?).ok()?,
        })
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A mark that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) mark: Mark,
    /// What is before it, as far as it was in the same read, is not the padding that the mark promises.
    pub(crate) is_damaged: bool,
}

/// Finds marks in what many connections bring in pieces. Only of a mark that is cut, what has come of it is kept.
#[derive(Debug)]
pub(crate) struct Marks {
    finder: Finder<'static>,
    cut: HashMap<usize, Vec<u8>>,
}

impl Default for Marks {
    fn default() -> Self {
        Marks { finder: Finder::new(BEGIN), cut: HashMap::new() }
    }
}

impl Marks {
    /// Reads on in a connection's content, and tells each mark that ends in this piece.
    pub(crate) fn read(&mut self, slot: usize, piece: &[u8], mut tell: impl FnMut(Found)) {
        // Most connections never have a mark that is cut.
        if !self.cut.is_empty()
            && let Some(mut joined) = self.cut.remove(&slot)
        {
            joined.extend_from_slice(piece);
            self.search(slot, &joined, &mut tell);
        } else {
            self.search(slot, piece, &mut tell);
        }
    }

    /// Forgets a connection.
    pub(crate) fn forget(&mut self, slot: usize) {
        self.cut.remove(&slot);
    }

    fn search(&mut self, slot: usize, bytes: &[u8], tell: &mut impl FnMut(Found)) {
        let mut from = 0;
        while let Some(place) = self.finder.find(&bytes[from..]) {
            let place = from + place;
            if bytes.len() - place < MARK_BYTES {
                self.cut.insert(slot, bytes[place..].to_vec());
                return;
            }
            from = place + BEGIN.len();
            if let Some(mark) = Mark::read(&bytes[place..]) {
                from = place + MARK_BYTES;
                tell(Found { mark, is_damaged: is_damaged(bytes, place, &mark) });
            }
        }
        // The begin itself may be cut.
        let cut = (1..BEGIN.len()).rev().find(|len| bytes[from..].ends_with(&BEGIN[..*len]));
        if let Some(len) = cut {
            self.cut.insert(slot, BEGIN[..len].to_vec());
        }
    }
}

/// Whether the padding before a mark is longer or shorter than it says.
fn is_damaged(bytes: &[u8], place: usize, mark: &Mark) -> bool {
    let Some(begin) = (place + MARK_BYTES).checked_sub(mark.bytes) else { return false };
    let has_padding = begin == place || bytes[begin] == PADDING;
    let has_more = begin > 0 && bytes[begin - 1] == PADDING;
    !has_padding || has_more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(event: u64, bytes: usize) -> (Mark, Vec<u8>) {
        let mark = Mark { sent_ns: 1_234_567_890_123 + event, event, bytes };
        let mut out = Vec::new();
        mark.write_payload(&mut out);
        assert_eq!(out.len(), bytes);
        (mark, out)
    }

    #[test]
    fn however_they_are_cut_the_marks_are_found() {
        let mut bytes = b"@ @T @T= @T=12;".to_vec();
        let mut marks = Vec::new();
        for (event, size) in [(0, 48), (1, 49), (42, 100), (9_999_999_999, 64)] {
            let (mark, payload) = payload(event, size);
            marks.push(mark);
            bytes.extend_from_slice(b"data: {\"value\":\"");
            bytes.extend_from_slice(&payload);
            bytes.extend_from_slice(b"\"}\n\n");
        }
        for size in 1..bytes.len() {
            let mut reader = Marks::default();
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                reader.read(7, piece, |one| found.push(one));
                reader.read(8, b"@T=", |one| panic!("{one:?}"));
                reader.forget(8);
            }
            assert!(found.iter().all(|found| !found.is_damaged), "{size}");
            assert_eq!(found.iter().map(|found| found.mark).collect::<Vec<_>>(), marks, "{size}");
            assert!(reader.cut.is_empty(), "{size}");
        }
    }

    #[test]
    fn padding_that_is_not_as_long_as_promised_is_damage() {
        let (_, whole) = payload(1, 80);
        for damaged in [[b"x", &whole[..]].concat(), [b"\"", &whole[1..]].concat()] {
            let mut reader = Marks::default();
            reader.read(0, &[b"\"\"", &damaged[..]].concat(), |found| assert!(found.is_damaged));
        }
    }
}
