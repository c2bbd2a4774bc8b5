//! What clients of WebSockets say to handlers, and handlers to them: texts that only this world knows, but of the shape
//! of the public ones (docs/channels.md, "WebSocket"): each has a number that its answer repeats, some change what the
//! connection reads.

use std::fmt;

use zhttp::Cursor;

/// One message of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Saying {
    /// Counts the messages of a connection, from 1.
    pub(crate) serial: u64,
    pub(crate) what: What,
}

/// What it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// An answer with so much padding.
    Word { padding: usize },
    /// To read a channel.
    Subscribe { channel: usize, start: Start },
    /// To read it no more.
    Unsubscribe { channel: usize },
}

/// From where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    Oldest,
    Now,
    After(Cursor),
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) serial: u64,
    /// Where a reader was put, and whether that is an end.
    pub(crate) placed: Option<(Cursor, bool)>,
}

impl What {
    /// The channel that it is about.
    pub(crate) fn channel(self) -> Option<usize> {
        match self {
            What::Word { .. } => None,
            What::Subscribe { channel, .. } | What::Unsubscribe { channel } => Some(channel),
        }
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Start::Oldest => f.write_str("oldest"),
            Start::Now => f.write_str("now"),
            Start::After(cursor) => cursor.fmt(f),
        }
    }
}

impl Start {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "oldest" => Some(Start::Oldest),
            "now" => Some(Start::Now),
            cursor => cursor.parse().ok().map(Start::After),
        }
    }
}

impl fmt::Display for Saying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let serial = self.serial;
        match self.what {
            What::Word { padding } => write!(f, "{serial} word {padding} "),
            What::Subscribe { channel, start } => write!(f, "{serial} sub {channel} {start} "),
            What::Unsubscribe { channel } => write!(f, "{serial} unsub {channel} "),
        }
    }
}

impl Saying {
    /// Reads it; padding of its own may be behind it.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let serial = words.next()?.parse().ok()?;
        let kind = words.next()?;
        let number = words.next()?.parse().ok()?;
        let what = match kind {
            "word" => What::Word { padding: number },
            "sub" => What::Subscribe { channel: number, start: Start::parse(words.next()?)? },
            "unsub" => What::Unsubscribe { channel: number },
            _ => return None,
        };
        Some(Saying { serial, what })
    }
}

impl Answer {
    /// Writes it, with so much padding.
    pub(crate) fn text(&self, padding: usize) -> String {
        let mut text = format!("re {} ", self.serial);
        if let Some((place, ended)) = self.placed {
            text.push_str(&format!("{place} {ended} "));
        }
        text.extend(std::iter::repeat_n('p', padding));
        text
    }

    /// Reads it, and how much padding there is; `None` if it is no answer.
    pub(crate) fn parse(text: &str) -> Option<(Self, usize)> {
        let mut words = text.strip_prefix("re ")?.split(' ');
        let serial = words.next()?.parse().ok()?;
        let second = words.next()?;
        let Ok(place) = second.parse() else {
            return Some((Answer { serial, placed: None }, second.len()));
        };
        let ended = words.next()?.parse().ok()?;
        Some((Answer { serial, placed: Some((place, ended)) }, 0))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let whats = [
            What::Word { padding: 7 },
            What::Subscribe { channel: 2, start: Start::Oldest },
            What::Subscribe { channel: 2, start: Start::Now },
            What::Subscribe { channel: 0, start: Start::After(Cursor::new(5, 6)) },
            What::Unsubscribe { channel: 3 },
        ];
        for (serial, what) in (1..).zip(whats) {
            let saying = Saying { serial, what };
            assert_eq!(Saying::parse(&format!("{saying}xxx")), Some(saying));
        }
        for placed in [None, Some((Cursor::START, false)), Some((Cursor::new(5, 6), true))] {
            let answer = Answer { serial: 9, placed };
            assert_eq!(Answer::parse(&answer.text(0)), Some((answer, 0)));
        }
        let answer = Answer { serial: 9, placed: None };
        assert_eq!(Answer::parse(&answer.text(4)), Some((answer, 4)));
        assert_eq!((Saying::parse("1 shout 2 "), Answer::parse("hello 3")), (None, None));
    }
}
