//! Control events that handlers make: what a reader is told that is no message (`docs/channels.md`,
//! "Subscribe").
//!
//! Each is a pure function of what it says, its `message_id` too: whoever tells the same thing
//! twice, be it another process or the same one after a restart, makes the same bytes, so that
//! readers recognise a repetition by its id (H-65), and the store deduplicates by it.

use bytes::Bytes;
use uuid::Uuid;
use zhttp::Cursor;

use crate::event::{ControlField, control_event};
use crate::store::{ChannelName, EventKind, GapReason, NewEvent};

/// Why a channel ends that nobody ended by a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// Nothing was published for its idle time, or its log is gone.
    Expired,
    /// Somebody deleted it.
    Deleted,
}

impl EndReason {
    /// The `control_type`.
    const fn name(self) -> &'static str {
        match self {
            EndReason::Expired => "expired",
            EndReason::Deleted => "deleted",
        }
    }
}

/// The END that tells the readers of `channel` that nothing follows `last`.
pub(crate) fn end_event(channel: &ChannelName, last: Cursor, reason: EndReason) -> NewEvent {
    let id = message_id(&[reason.name(), channel.as_str(), &last.to_string()]);
    let fields = [("channel", ControlField::Text(channel.channel()))];
    let data = control_event(id, reason.name(), &fields);
    NewEvent { message_id: Some(id), end: true, kind: EventKind::Control, data }
}

/// Tells a reader that stood at `from` that nothing is to be had before `to`.
pub(crate) fn gap_data(channel: &ChannelName, from: Cursor, to: Cursor, why: GapReason) -> Bytes {
    let (from, to) = (from.to_string(), to.to_string());
    let id = message_id(&["gap", channel.as_str(), &from, &to]);
    let fields = [
        ("channel", ControlField::Text(channel.channel())),
        ("from", ControlField::Text(&from)),
        ("to", ControlField::Text(&to)),
        ("reason", ControlField::Text(why.as_str())),
    ];
    control_event(id, "gap", &fields)
}

/// A UUID of version 8 (RFC 9562 §5.8) made of texts. Not a secret, and not meant to withstand
/// somebody who looks for two texts with the same id.
fn message_id(texts: &[&str]) -> Uuid {
    // FNV-1a, 64 bits, twice with different beginnings; a 0 byte after each text keeps
    // ["a", "bc"] and ["ab", "c"] apart.
    let hash = |salt: u8| {
        let bytes = texts.iter().flat_map(|text| text.bytes().chain([0]));
        std::iter::once(salt).chain(bytes).fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&hash(0).to_be_bytes());
    bytes[8..].copy_from_slice(&hash(1).to_be_bytes());
    Uuid::new_v8(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn the_same_is_told_in_the_same_bytes() {
        let channel = ChannelName::new("acme", "news").unwrap();
        let end = end_event(&channel, Cursor::new(5, 7), EndReason::Expired);
        assert_eq!(end, end_event(&channel, Cursor::new(5, 7), EndReason::Expired));
        let id = end.message_id.unwrap();
        assert_eq!(id.get_version_num(), 8);
        assert_eq!(
            String::from_utf8(end.data.to_vec()).unwrap(),
            format!(
                r#"{{"event_type":"control","message_id":"{id}","control_type":"expired","channel":"news"}}"#
            )
        );
        let deleted = end_event(&channel, Cursor::new(5, 7), EndReason::Deleted);
        assert_ne!(deleted.message_id, end.message_id);
        let later = end_event(&channel, Cursor::new(5, 8), EndReason::Expired);
        assert_ne!(later.message_id, end.message_id);
    }

    #[test]
    fn a_gap_says_from_where_to_where() {
        let channel = ChannelName::new("acme", "a:b").unwrap();
        let (from, to) = (Cursor::new(5, 7), Cursor::new(6, 1));
        let data = gap_data(&channel, from, to, GapReason::Recreated);
        let text = String::from_utf8(data.to_vec()).unwrap();
        let (_, rest) = text.split_once(r#""control_type""#).unwrap();
        let expected = r#":"gap","channel":"a:b","from":"5-7","to":"6-1","reason":"recreated"}"#;
        assert_eq!(rest, expected);
    }
}
