//! Events as text messages of a WebSocket (hold.md H-61).
//!
//! One is a JSON object, made once for all who get it: it names its channel, and where a reader of that channel stands
//! behind it. The data of the event is put in as it stands, so it must be JSON itself.

use crate::websocket::{Deflate, MessageKind, Pool, Sender};

/// An event, as it is written.
pub(super) struct Event<'a> {
    /// The name of its channel, as on the wire (H-4).
    pub(super) channel: &'a str,
    pub(super) kind: &'a str,
    /// The text of its cursor.
    pub(super) id: &'a [u8],
    pub(super) data: &'a [u8],
}

/// Writes a frame with an event, compressed if that was agreed upon.
pub(super) fn write(
    out: &mut Vec<u8>,
    pool: &mut Pool,
    deflate: Option<Deflate>,
    event: &Event<'_>,
) {
    let mut text = Vec::with_capacity(event.data.len() + event.channel.len() + 100);
    text.extend_from_slice(br#"{"type":"event","channel":""#);
    // Names hold nothing that would have to be escaped.
    let channel = event.channel.split_once(':').map_or(event.channel, |(_, channel)| channel);
    text.extend_from_slice(channel.as_bytes());
    text.extend_from_slice(br#"","cursor":""#);
    text.extend_from_slice(event.id);
    text.extend_from_slice(br#"","event":""#);
    write_escaped(&mut text, event.kind);
    text.extend_from_slice(br#"","data":"#);
    text.extend_from_slice(event.data);
    text.push(b'}');
    let message = (MessageKind::Text, &*text, true);
    let written = Sender::new(deflate).message(pool, message, None, out);
    written.expect("a packet with events that are not UTF-8 is refused");
}

/// Writes what stands in a JSON string (RFC 8259 §7).
fn write_escaped(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend([b'\\', byte]),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_escaped() {
        let mut out = Vec::new();
        write_escaped(&mut out, "a\"\\\tä");
        assert_eq!(out, "a\\\"\\\\\\u0009ä".as_bytes());
    }
}
