//! Control events that handlers make: what a reader is told that is no message (`docs/channels.md`,
//! "Subscribe").
//!
//! Each is a pure function of what it says, its `message_id` too: whoever tells the same thing
//! twice, be it another process or the same one after a restart, makes the same bytes, so that
//! readers recognise a repetition by its id (H-65), and the store deduplicates by it.

use uuid::Uuid;
use zhttp::{Cursor, hold};

use crate::event::{ControlField, control_event};
use crate::store::{ChannelName, EventKind, GapReason, Head, NewEvent};

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
    // Neither has a space, so no two say the same.
    let said = format!("{} {channel} {last}", reason.name());
    let id = Uuid::from_bytes(hold::derived_uuid(&said));
    let fields = [("channel", ControlField::Text(channel.channel()))];
    let data = control_event(id, reason.name(), &fields);
    NewEvent { message_id: Some(id), end: true, kind: EventKind::Control, data }
}

/// Tells the readers of `channel` that its log ends at `head` though it had been at `seen`: what lay
/// in between was lost by the store. An END if the log had ended.
pub(crate) fn failover_event(channel: &ChannelName, head: Head, seen: Cursor) -> NewEvent {
    let said = format!("failover {channel} {} {seen}", head.id);
    let id = Uuid::from_bytes(hold::derived_uuid(&said));
    let fields = [("channel", ControlField::Text(channel.channel()))];
    let data = control_event(id, "failover", &fields);
    NewEvent { message_id: Some(id), end: head.ended, kind: EventKind::Control, data }
}

/// Tells a reader that stood at `from` that nothing is to be had before `to`; in the same bytes as
/// an edge would.
pub(crate) fn gap_data(channel: &ChannelName, from: Cursor, to: Cursor, why: GapReason) -> String {
    let reason = match why {
        GapReason::Trimmed => hold::GapReason::Trimmed,
        GapReason::Recreated => hold::GapReason::Recreated,
    };
    hold::gap_event(channel.as_str(), from, to, reason)
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
    fn a_failover_is_told_by_all_alike() {
        let channel = ChannelName::new("acme", "news").unwrap();
        let head = Head { id: Cursor::new(5, 7), ..Head::default() };
        let event = failover_event(&channel, head, Cursor::new(5, 9));
        assert_eq!(event, failover_event(&channel, head, Cursor::new(5, 9)));
        assert!(!event.end && event.data.ends_with(br#""failover","channel":"news"}"#));
        let ended = failover_event(&channel, Head { ended: true, ..head }, Cursor::new(5, 9));
        assert!(ended.end);
        let other = failover_event(&channel, head, Cursor::new(5, 10));
        assert_ne!(other.message_id, event.message_id);
    }

    #[test]
    fn a_gap_says_from_where_to_where() {
        let channel = ChannelName::new("acme", "a:b").unwrap();
        let (from, to) = (Cursor::new(5, 7), Cursor::new(6, 1));
        let data = gap_data(&channel, from, to, GapReason::Recreated);
        let (_, rest) = data.split_once(r#""control_type""#).unwrap();
        let expected = r#":"gap","channel":"a:b","from":"5-7","to":"6-1","reason":"recreated"}"#;
        assert_eq!(rest, expected);
    }
}
