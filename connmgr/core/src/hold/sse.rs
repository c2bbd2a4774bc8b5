//! Server-sent events (WHATWG HTML, §9.2): how events, gaps and comments look on the wire.

use zhttp::Cursor;

use super::MissingRun;
use crate::http1::{CHUNK_END, ChunkHead};

/// The comment that keeps a connection alive.
pub(crate) const KEEP_ALIVE: &[u8] = b":\n\n";

/// The same in a chunk of its own.
pub(crate) const KEEP_ALIVE_CHUNK: &[u8] = b"3\r\n:\n\n\r\n";

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

/// Writes one event in a chunk of its own.
pub(super) fn write_chunk(out: &mut Vec<u8>, kind: &str, id: &[u8], data: &[u8]) {
    let id_bytes = if id.is_empty() { 0 } else { "\nid: ".len() + id.len() };
    let around_bytes = "event: ".len() + "\ndata: ".len() + "\n\n".len();
    let event_bytes = kind.len() + id_bytes + data.len() + around_bytes;
    out.extend_from_slice(ChunkHead::new(event_bytes).as_bytes());
    let start = out.len();
    write_event(out, kind, id, data);
    debug_assert_eq!(out.len() - start, event_bytes);
    out.extend_from_slice(CHUNK_END);
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

    use super::*;
    use zhttp::hold::GapReason;

    #[test]
    fn a_chunk_is_as_long_as_it_says() {
        let mut out = Vec::new();
        write_chunk(&mut out, "a", b"1-2", b"x");
        write_chunk(&mut out, "a", b"", b"x");
        let want = "1a\r\nevent: a\nid: 1-2\ndata: x\n\n\r\n12\r\nevent: a\ndata: x\n\n\r\n";
        assert_eq!(std::str::from_utf8(&out).unwrap(), want);
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
