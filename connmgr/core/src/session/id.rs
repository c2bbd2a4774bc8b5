//! Session ids: `{worker}-{slot}-{counter}`, the counter in hexadecimal, as Condure makes them.
//! Opaque to everybody else; to the edge they say where to look.

use std::fmt;

use crate::short_text::ShortText;

/// The id of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The worker that has the connection.
    pub worker: u16,
    /// The place of the connection in the worker's table.
    pub slot: u32,
    /// Counts the sessions of the worker, so that no id comes twice.
    pub counter: u64,
}

impl SessionId {
    /// Its text.
    pub fn text(&self) -> ShortText {
        let mut hexadecimal = [0; 16];
        let mut start = hexadecimal.len();
        let mut rest = self.counter;
        while rest > 0 || start == hexadecimal.len() {
            start -= 1;
            hexadecimal[start] = b"0123456789abcdef"[(rest & 0xf) as usize];
            rest >>= 4;
        }
        let (mut worker, mut slot) = (itoa::Buffer::new(), itoa::Buffer::new());
        let (worker, slot) = (worker.format(self.worker), slot.format(self.slot));
        ShortText::concat(&[worker.as_bytes(), b"-", slot.as_bytes(), b"-", &hexadecimal[start..]])
    }

    /// Parses an id; `None` if it is none of ours. Each id has one text, so that whoever compares
    /// ids as texts and whoever compares them parsed agree.
    pub fn parse(id: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(id).ok()?.splitn(3, '-').map(canonical);
        let worker = parts.next()??.parse().ok()?;
        let slot = parts.next()??.parse().ok()?;
        let counter = u64::from_str_radix(parts.next()??, 16).ok()?;
        Some(SessionId { worker, slot, counter })
    }
}

/// The digits, unless they could be written in another way: with a sign, leading zeros or capitals.
fn canonical(digits: &str) -> Option<&str> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_lowercase();
    let is_short = digits == "0" || !digits.starts_with('0');
    (is_short && digits.bytes().all(is_digit)).then_some(digits)
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_text() {
        let longest = SessionId { worker: u16::MAX, slot: u32::MAX, counter: u64::MAX };
        assert_eq!(longest.to_string(), "65535-4294967295-ffffffffffffffff");
        assert_eq!(SessionId { worker: 0, slot: 10, counter: 0 }.to_string(), "0-10-0");
        let id = SessionId { worker: 1, slot: 0, counter: 0xab };
        assert_eq!(SessionId::parse(id.to_string().as_bytes()), Some(id));
        for text in
            ["", "1", "1-0", "1-0-", "1-0-AB", "1-0-0ab", "1-00-ab", "+1-0-ab", "1-0-ab-", "x-0-ab"]
        {
            assert_eq!(SessionId::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(SessionId::parse(b"70000-0-1"), None);
        assert_eq!(SessionId::parse(b"0-0-10000000000000000"), None);
        assert_eq!(SessionId::parse(b"0-0-\xff"), None);
    }
}
