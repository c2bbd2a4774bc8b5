//! A reader of server-sent events (WHATWG HTML, §9.2.6), as a machine that takes lines.

use std::time::Duration;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    /// Its type; `message` if the server named none.
    pub(crate) kind: String,
    /// Its data, lines joined by line feeds.
    pub(crate) data: String,
}

/// Reads lines; remembers the last event id and the time to wait before reconnecting.
#[derive(Debug, Default)]
pub(crate) struct SseReader {
    kind: String,
    data: Option<String>,
    /// The id of the event that is being read; it counts once the event is whole.
    id: String,
    /// The id that a reconnect is to send.
    pub(crate) last_event_id: String,
    /// What the server wants a client to wait before it reconnects.
    pub(crate) retry: Option<Duration>,
}

impl SseReader {
    /// A reader that goes on after this event id; an empty one is none.
    pub(crate) fn from(last_event_id: String) -> Self {
        SseReader { id: last_event_id.clone(), last_event_id, ..SseReader::default() }
    }

    /// Forgets an event that the end of the connection has cut off.
    pub(crate) fn reconnected(&mut self) {
        self.kind.clear();
        self.data = None;
        self.last_event_id.clone_into(&mut self.id);
    }

    /// Takes a line without its line break. An empty line completes an event.
    pub(crate) fn handle_line(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            self.id.clone_into(&mut self.last_event_id);
            let kind = std::mem::take(&mut self.kind);
            let data = self.data.take()?;
            let kind = if kind.is_empty() { "message".to_owned() } else { kind };
            return Some(SseEvent { kind, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            "retry" => self.retry = value.parse().ok().map(Duration::from_millis).or(self.retry),
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn events(reader: &mut SseReader, text: &str) -> Vec<SseEvent> {
        text.lines().filter_map(|line| reader.handle_line(line)).collect()
    }

    #[test]
    fn what_a_browser_would_see() {
        let mut reader = SseReader::default();
        let text = ":\n\nretry: 500\n\nevent: stream\nid: 7-1\ndata: {\"a\":1}\n\ndata:x\ndata\ndata: y\n\nretry: soon\nid\nevent: nothing\n\n";
        let got = events(&mut reader, text);
        assert_eq!(got[0], SseEvent { kind: "stream".into(), data: "{\"a\":1}".into() });
        assert_eq!(got[1], SseEvent { kind: "message".into(), data: "x\n\ny".into() });
        assert_eq!(got.len(), 2);
        assert_eq!(reader.retry, Some(Duration::from_millis(500)));
        assert_eq!(reader.last_event_id, "");
    }

    #[test]
    fn half_an_event_is_forgotten() {
        let mut reader = SseReader::default();
        assert_eq!(events(&mut reader, "id: 7-1\ndata: first\n\n").len(), 1);
        assert!(events(&mut reader, "id: 7-2\nevent: stream\ndata: cut").is_empty());
        assert_eq!(reader.last_event_id, "7-1", "the second event is not whole");
        reader.reconnected();
        assert_eq!(events(&mut reader, "data: whole\n\n")[0].data, "whole");
        assert_eq!(reader.last_event_id, "7-1");
    }
}
