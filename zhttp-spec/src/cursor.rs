//! Cursors: where a reader stands in a channel's log (`zhttp-spec/hold.md` §2).
//!
//! A cursor is the id of the last event that a reader has, `<epoch>-<offset>`; `0-0` is before
//! everything. The text form is also the id of an event, and of its entry in a Redis stream.

use std::fmt;
use std::str::FromStr;

/// The id of an event, and with it a place in a channel's log.
///
/// Cursors of one channel are ordered as its events are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cursor {
    /// When the channel was created, in milliseconds since 1970; larger than any earlier epoch of
    /// the same channel. 0 only before everything.
    pub epoch: u64,
    /// The number of the event in its epoch: 1, 2, 3 … without holes. 0 is before the first.
    pub offset: u64,
}

impl Cursor {
    /// Before everything: `0-0`.
    pub const START: Cursor = Cursor { epoch: 0, offset: 0 };

    /// The longest text form, in bytes: two u64 and a hyphen.
    pub const TEXT_BYTES_MAX: usize = 41;

    /// The cursor of event `offset` in `epoch`.
    pub const fn new(epoch: u64, offset: u64) -> Self {
        Cursor { epoch, offset }
    }

    /// The cursor `count` events later in the same epoch; the last possible one on overflow.
    pub const fn plus(self, count: u64) -> Self {
        Cursor { epoch: self.epoch, offset: self.offset.saturating_add(count) }
    }

    /// Parses the text form from bytes, as they stand in packets and headers.
    pub fn from_bytes(text: &[u8]) -> Result<Self, CursorError> {
        let hyphen = text.iter().position(|&byte| byte == b'-').ok_or(CursorError)?;
        let epoch = decimal(&text[..hyphen]).ok_or(CursorError)?;
        let offset = decimal(&text[hyphen + 1..]).ok_or(CursorError)?;
        if epoch == 0 && offset != 0 {
            return Err(CursorError);
        }
        Ok(Cursor { epoch, offset })
    }
}

/// A canonical decimal number: no sign, no leading zero, within u64.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || (digits[0] == b'0' && digits.len() > 1) {
        return None;
    }
    digits.iter().try_fold(0u64, |value, &digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    })
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.offset)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        Cursor::from_bytes(text.as_bytes())
    }
}

/// The text is not `<epoch>-<offset>` with two canonical decimal numbers within u64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is <epoch>-<offset>, two decimal numbers")]
pub struct CursorError;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_text_form_is_canonical() {
        let good = ["0-0", "1-0", "1736467200000-2", "18446744073709551615-18446744073709551615"];
        for text in good {
            assert_eq!(text.parse::<Cursor>().unwrap().to_string(), text);
            assert!(text.len() <= Cursor::TEXT_BYTES_MAX);
        }
        let bad = [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "+1-1",
            "01-1",
            "1-01",
            " 1-1",
            "1-1 ",
            "0-1",
            "1-1-1",
            "$",
            "a-b",
            "18446744073709551616-0",
        ];
        for text in bad {
            assert_eq!(text.parse::<Cursor>(), Err(CursorError), "{text:?}");
        }
    }

    #[test]
    fn the_order_is_that_of_the_log() {
        assert!(Cursor::START < Cursor::new(1, 0));
        assert!(Cursor::new(1, 9) < Cursor::new(1, 10));
        assert!(Cursor::new(1, 10) < Cursor::new(2, 1));
        assert_eq!(Cursor::new(3, u64::MAX).plus(1), Cursor::new(3, u64::MAX));
    }
}
