//! A short text, kept in place.
//!
//! Ids and addresses are made, compared and passed on with every request. On the heap each of them would be an
//! allocation, often freed by another thread than the one that made it.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// A text of at most [`ShortText::BYTES_MAX`] bytes.
#[derive(Clone, Copy)]
pub struct ShortText {
    len: u8,
    bytes: [u8; ShortText::BYTES_MAX],
}

impl ShortText {
    /// How long it may be, in bytes. A session id with the number of a packet behind it has 44 at most, an IP address 45.
    pub const BYTES_MAX: usize = 47;

    const EMPTY: ShortText = ShortText { len: 0, bytes: [0; ShortText::BYTES_MAX] };

    /// That text; `None` if it is too long.
    pub fn new(text: &[u8]) -> Option<Self> {
        let mut short = ShortText::EMPTY;
        short.push(text).then_some(short)
    }

    /// What is displayed so; `None` if it is too long.
    pub(crate) fn of(text: impl fmt::Display) -> Option<Self> {
        let mut short = ShortText::EMPTY;
        fmt::write(&mut short, format_args!("{text}")).ok()?;
        Some(short)
    }

    /// Appends to the text. Says whether there was room for it.
    fn push(&mut self, text: &[u8]) -> bool {
        let len = usize::from(self.len);
        let Some(room) = self.bytes.get_mut(len..len + text.len()) else { return false };
        room.copy_from_slice(text);
        self.len += text.len() as u8;
        true
    }

    /// Made of its parts, which must fit.
    pub(crate) fn concat(parts: &[&[u8]]) -> Self {
        let mut short = ShortText::EMPTY;
        for part in parts {
            assert!(short.push(part), "what is put together is short");
        }
        short
    }
}

impl fmt::Write for ShortText {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.push(text.as_bytes()) { Ok(()) } else { Err(fmt::Error) }
    }
}

impl Deref for ShortText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl Borrow<[u8]> for ShortText {
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl PartialEq for ShortText {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ShortText {}

impl PartialOrd for ShortText {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ShortText {
    fn cmp(&self, other: &Self) -> Ordering {
        (**self).cmp(&**other)
    }
}

/// As its slice, by which maps are asked.
impl Hash for ShortText {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl fmt::Debug for ShortText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self))
    }
}

/// For tests, which know that their texts are short.
#[cfg(test)]
impl<T: AsRef<[u8]>> From<T> for ShortText {
    fn from(text: T) -> Self {
        ShortText::new(text.as_ref()).expect("it is short")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::collections::{BTreeSet, HashSet};

    #[test]
    fn it_is_found_as_its_bytes() {
        let texts: [&[u8]; 4] = [b"", b"0-1-a", b"0-1-b", &[b'9'; ShortText::BYTES_MAX]];
        let shorts = texts.map(|text| ShortText::new(text).unwrap());
        let (hashed, ordered) = (HashSet::from(shorts), BTreeSet::from(shorts));
        for text in texts {
            assert!(hashed.contains(text) && ordered.contains(text), "{text:?}");
        }
        assert!(ordered.iter().map(|short| &**short).eq(texts));
        assert_eq!(ShortText::new(&[b'9'; ShortText::BYTES_MAX + 1]), None);
        assert_eq!(ShortText::of(format_args!("{}", "long".repeat(12))), None);
    }
}
