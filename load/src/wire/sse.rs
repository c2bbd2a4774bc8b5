//! Counts server-sent events (WHATWG HTML §9.2.6) in a body that comes in pieces, with three bytes of memory.
//!
//! An event is a block of lines with at least one `data` field, ended by an empty line: so comments, which keep a connection
//! alive, and blocks of only an `id` are none, as they are none to an `EventSource`.

/// Where in an event stream a reader stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventCounter {
    place: Place,
    /// The block has had a `data` field.
    has_data: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// In the name of a field, so many bytes of which are those of `data`; 0 is the begin of a line.
    Name(u8),
    /// In the rest of a line that says nothing more to us.
    Rest,
    /// At the begin of a line, behind a carriage return, whose line feed may follow.
    Return,
}

impl Default for Place {
    fn default() -> Self {
        Place::Name(0)
    }
}

const DATA: &[u8] = b"data";

impl EventCounter {
    /// Reads on; returns how many events ended in these bytes.
    pub(crate) fn count(&mut self, mut bytes: &[u8]) -> u64 {
        let mut events = 0;
        loop {
            if self.place == Place::Rest {
                let Some(end) = memchr::memchr2(b'\n', b'\r', bytes) else { return events };
                bytes = &bytes[end..];
            }
            let Some((byte, rest)) = bytes.split_first() else { return events };
            bytes = rest;
            events += u64::from(self.handle(*byte));
        }
    }

    /// Whether this byte ends an event.
    fn handle(&mut self, byte: u8) -> bool {
        let known = match self.place {
            Place::Name(known) => usize::from(known),
            Place::Return if byte == b'\n' => {
                self.place = Place::Name(0);
                return false;
            }
            Place::Return => 0,
            Place::Rest => usize::MAX,
        };
        if byte == b'\n' || byte == b'\r' {
            self.place = if byte == b'\r' { Place::Return } else { Place::Name(0) };
            // A line that is "data" alone is an empty field of that name.
            self.has_data |= known == DATA.len();
            return known == 0 && std::mem::take(&mut self.has_data);
        }
        if DATA.get(known) == Some(&byte) {
            self.place = Place::Name(known as u8 + 1);
        } else {
            self.has_data |= known == DATA.len() && byte == b':';
            self.place = Place::Rest;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(text: &str, size: usize) -> u64 {
        let mut counter = EventCounter::default();
        text.as_bytes().chunks(size).map(|piece| counter.count(piece)).sum()
    }

    #[test]
    fn events_are_what_a_browser_would_see() {
        for (text, events) in [
            ("", 0),
            ("\n\n\n", 0),
            (":\n\nretry: 500\n\nid: 7-1\n\n", 0),
            ("data: a\n\n", 1),
            ("event: stream\nid: 7-1\ndata: {\"a\":1}\n\ndata\n\ndata:\n\n", 3),
            ("data: a\r\ndata: b\r\n\r\ndata: c\r\r", 2),
            ("database: a\n\ndat: a\n\n data: a\n\n", 0),
            ("data: cut", 0),
            ("data: cut\n", 0),
            ("xdata: a\n\ndata: data\n\n", 1),
        ] {
            for size in 1..=text.len().max(1) {
                assert_eq!(count(text, size), events, "{text:?} by {size}");
            }
        }
        assert_eq!(size_of::<EventCounter>(), 3);
    }
}
