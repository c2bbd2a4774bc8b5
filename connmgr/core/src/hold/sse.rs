//! Server-sent events (WHATWG HTML, §9.2): how events, gaps and comments look on the wire.

use zhttp::Cursor;

use super::{MissingRun, Run, Shared};

/// The comment that keeps a connection alive.
pub(crate) const KEEP_ALIVE: &[u8] = b":\n\n";

/// Events that were rendered once for all who get them.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Shared,
    /// Where each event ends.
    ends: Box<[u32]>,
}

impl Block {
    /// Renders runs that follow each other, each from some event on.
    pub(super) fn render(runs: &[(std::sync::Arc<Run>, usize)]) -> Block {
        let bytes = runs.iter().map(|(run, _)| run.bytes() + run.events().len() * 80).sum();
        let mut out = Vec::with_capacity(bytes);
        let mut ends = Vec::new();
        let mut id = Vec::with_capacity(Cursor::TEXT_BYTES_MAX);
        for (run, skip) in runs {
            for (index, event) in run.events().iter().enumerate().skip(*skip) {
                id.clear();
                write_cursor(&mut id, run.id(index));
                write_event(&mut out, event.kind(), &id, &event.data);
                ends.push(u32::try_from(out.len()).unwrap_or(u32::MAX));
            }
        }
        Block { bytes: out.into(), ends: ends.into() }
    }

    /// The bytes of all events.
    pub(super) fn bytes(&self) -> &Shared {
        &self.bytes
    }

    /// Where the bytes of event `index` begin.
    pub(super) fn start_of(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }
}

/// Writes one event; without an id if that is empty.
pub(crate) fn write_event(out: &mut Vec<u8>, kind: &str, id: &[u8], data: &[u8]) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(kind.as_bytes());
    if !id.is_empty() {
        out.extend_from_slice(b"\nid: ");
        out.extend_from_slice(id);
    }
    out.extend_from_slice(b"\ndata: ");
    out.extend_from_slice(data);
    out.extend_from_slice(b"\n\n");
}

/// Writes the text of a cursor.
pub(super) fn write_cursor(out: &mut Vec<u8>, cursor: Cursor) {
    out.extend_from_slice(itoa::Buffer::new().format(cursor.epoch).as_bytes());
    out.push(b'-');
    out.extend_from_slice(itoa::Buffer::new().format(cursor.offset).as_bytes());
}

/// The control event that tells a reader at `from` of a gap, without its line breaks.
pub(super) fn gap_data(gap: &MissingRun, from: Cursor) -> String {
    zhttp::hold::gap_event(&gap.channel, from, gap.first, gap.reason_at(from))
}

/// The type of control events.
pub(super) const CONTROL: &str = "control";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::run::tests::run;
    use super::*;
    use zhttp::hold::GapReason;

    #[test]
    fn a_block_can_be_entered_at_any_event() {
        let first = run("o:c", Cursor::new(7, 1), None, 2, false);
        let second = run("o:c", Cursor::new(7, 3), None, 1, true);
        let block = Block::render(&[(first, 1), (second, 0)]);
        let text = std::str::from_utf8(block.bytes()).unwrap();
        let want =
            "event: stream\nid: 7-3\ndata: \"7-3\"\n\nevent: stream\nid: 7-4\ndata: \"7-4\"\n\n";
        assert_eq!(text, want);
        assert_eq!(&text[block.start_of(1)..], &want[want.len() / 2..]);
        assert_eq!(block.start_of(0), 0);
    }

    #[test]
    fn a_gap_is_told() {
        let gap = MissingRun {
            channel: "org:a:b".into(),
            after: Cursor::new(1, 2),
            first: Cursor::new(1, 9),
            reason: GapReason::Trimmed,
        };
        let data = gap_data(&gap, Cursor::new(1, 3));
        let (id, rest) =
            data.strip_prefix(r#"{"event_type":"control","message_id":""#).unwrap().split_at(36);
        assert_eq!(
            rest,
            r#"","control_type":"gap","channel":"a:b","from":"1-3","to":"1-9","reason":"trimmed"}"#
        );
        assert_eq!((&id[14..15], id.len()), ("8", 36));
        assert_eq!(data, gap_data(&gap, Cursor::new(1, 3)));
        assert_ne!(data, gap_data(&gap, Cursor::new(1, 4)));
    }
}
