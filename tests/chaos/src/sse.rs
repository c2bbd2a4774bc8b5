//! A strict reader of server-sent events (WHATWG HTML §9.2.6): what our edge writes, and no more.
//!
//! An event must have a type, an id and one line of data, each once and in this order, as
//! `channels.md` says. So an event that lost its beginning, or has another one in its middle, is
//! seen even if a browser could make something of it.

/// What is wrong with a stream: the edge's fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SseError {
    #[error("a line that is no UTF-8")]
    Utf8,
    #[error("an unexpected line: {0:?}")]
    Line(String),
}

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) data: String,
}

/// Which line may come next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expected {
    /// The first one of an event, a comment, or `retry:`.
    #[default]
    Any,
    Id,
    Data,
    /// The empty line that ends an event.
    Dispatch,
    /// The empty line behind a comment or `retry:`.
    Blank,
}

/// Reads a stream that comes in pieces.
#[derive(Debug, Default)]
pub(crate) struct SseReader {
    line: Vec<u8>,
    event: SseEvent,
    expected: Expected,
    has_begun: bool,
}

impl SseReader {
    /// Takes the next bytes, and adds the events that they complete.
    pub(crate) fn feed(
        &mut self,
        bytes: &[u8],
        events: &mut Vec<SseEvent>,
    ) -> Result<(), SseError> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.pop_if(|byte| *byte == b'\n').is_some() {
                let line = String::from_utf8(std::mem::take(&mut self.line));
                let line = line.map_err(|_| SseError::Utf8)?;
                events.extend(self.handle_line(&line)?);
            }
        }
        Ok(())
    }

    /// Whether the first thing came whole: `retry:`, which a handler sends as it hands a connection over.
    pub(crate) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Whether the stream may end here: an event would be cut off elsewhere.
    pub(crate) fn is_at_boundary(&self) -> bool {
        self.line.is_empty() && self.expected == Expected::Any
    }

    fn handle_line(&mut self, line: &str) -> Result<Option<SseEvent>, SseError> {
        let (field, value) = line.split_once(": ").unwrap_or((line, ""));
        self.expected = match (self.expected, field) {
            (Expected::Any, "event") => {
                value.clone_into(&mut self.event.kind);
                Expected::Id
            }
            (Expected::Any, "retry" | ":") => Expected::Blank,
            (Expected::Blank, "") => {
                self.has_begun = true;
                Expected::Any
            }
            (Expected::Id, "id") => {
                value.clone_into(&mut self.event.id);
                Expected::Data
            }
            (Expected::Data, "data") => {
                value.clone_into(&mut self.event.data);
                Expected::Dispatch
            }
            (Expected::Dispatch, "") => {
                self.expected = Expected::Any;
                return Ok(Some(std::mem::take(&mut self.event)));
            }
            (
                Expected::Any
                | Expected::Id
                | Expected::Data
                | Expected::Dispatch
                | Expected::Blank,
                _,
            ) => return Err(SseError::Line(line.to_owned())),
        };
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const STREAM: &str = "retry: 500\n\nevent: stream\nid: 7-1\ndata: {\"a\": 1}\n\n:\n\nevent: e\nid: 7-2\ndata: x\n\n";

    fn read(text: &str, piece: usize) -> Result<(Vec<SseEvent>, bool), SseError> {
        let (mut reader, mut events) = (SseReader::default(), Vec::new());
        for bytes in text.as_bytes().chunks(piece) {
            reader.feed(bytes, &mut events)?;
        }
        Ok((events, reader.is_at_boundary()))
    }

    #[test]
    fn events_come_in_any_pieces() {
        for piece in 1..=STREAM.len() {
            let (events, at_boundary) = read(STREAM, piece).unwrap();
            let texts: Vec<_> = events.iter().map(|event| (&*event.id, &*event.data)).collect();
            assert_eq!(texts, [("7-1", "{\"a\": 1}"), ("7-2", "x")]);
            assert!(at_boundary);
        }
        assert!(!read(&STREAM[..STREAM.len() - 1], 9).unwrap().1);
    }

    #[test]
    fn nothing_is_forgiven() {
        for bad in [
            "id: 7-1\n",
            "event: a\ndata: x\n",
            "event: a\nid: 7-1\ndata: x\ndata: y\n",
            "event: a\nid: 7-1\n\n",
            "event: a\r\n\r\n",
            "x\n",
            "\n",
        ] {
            assert!(read(bad, 3).is_err(), "{bad:?}");
        }
    }
}
