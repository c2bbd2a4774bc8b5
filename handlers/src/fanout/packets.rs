//! What a feeder sends, as packets (`zhttp-spec/hold.md` §6 and §7).
//!
//! Events travel as they were stored: their data is copied into the packet, once for all edges, and
//! looked at by nobody. A run of them has one channel and one epoch, and begins after the offset
//! that it says; the first of an epoch also says what it follows in the log, so that readers get
//! from one epoch to the next without a gap.

use bytes::Bytes;
use zhttp::hold::{self, Event, EventList, Events, Gap, Heads};
use zhttp::{Cursor, Kind};

use crate::store::{ChannelName, GapReason, Range, StoredEvent};

/// Bytes of event data in one packet, but one event at least. A larger packet would keep what comes
/// behind it waiting.
pub(super) const PACKET_BYTES_MAX: usize = 64 * 1024;

/// Channels in one `heads` packet: some 220 bytes each at the most.
pub(super) const HEADS_PER_PACKET_MAX: usize = 1000;

/// What the fields of a packet cost besides the data, in bytes, roughly; a first guess at its size.
const PACKET_OVERHEAD_BYTES: usize = 320;

/// What the attributes of an event cost, in bytes, roughly.
const EVENT_OVERHEAD_BYTES: usize = 48;

/// Makes the packets of a feeder.
#[derive(Clone, Debug)]
pub(super) struct Packets {
    from: Bytes,
}

impl Packets {
    /// Packets whose `from` is this.
    pub(super) fn new(from: impl Into<Bytes>) -> Self {
        Packets { from: from.into() }
    }

    /// The answer to a range after a cursor: a gap if something is missing, then what is kept; or
    /// where the log ends if nothing comes after. Who is in a later epoch than the log is led back to its
    /// end (H-59).
    pub(super) fn range(&self, channel: &ChannelName, after: Cursor, range: &Range) -> Vec<Bytes> {
        let mut packets = Vec::new();
        if let Some(gap) = &range.gap {
            packets.push(self.gap(channel, after, gap.first, gap.reason));
        }
        packets.extend(self.events(channel, &range.events));
        let head = range.head.id;
        if head != Cursor::START && head.epoch < after.epoch {
            packets.push(self.gap(channel, after, head.plus(1), GapReason::Recreated));
        } else if range.events.is_empty() {
            packets.extend(self.heads(&[(channel.clone(), head)]));
        }
        packets
    }

    /// Events that follow each other, in as few packets as may be.
    pub(super) fn events(&self, channel: &ChannelName, events: &[StoredEvent]) -> Vec<Bytes> {
        let mut packets = Vec::new();
        let mut rest = events;
        while let Some((run, after)) = split_run(rest) {
            packets.push(self.run(channel, run));
            rest = after;
        }
        packets
    }

    /// Events of one epoch that follow each other; at least one.
    fn run(&self, channel: &ChannelName, run: &[StoredEvent]) -> Bytes {
        let first = &run[0];
        let is_first_of_epoch = first.id.offset == 1 && first.prev.epoch < first.id.epoch;
        let bytes: usize =
            run.iter().map(|event| event.data.len() + EVENT_OVERHEAD_BYTES).sum::<usize>();
        let mut out = Vec::with_capacity(bytes + PACKET_OVERHEAD_BYTES);
        hold::write_packet(&mut out, &self.from, Kind::Events, |fields| {
            let head = Events {
                channel: channel.as_str(),
                epoch: first.id.epoch,
                after: first.id.offset - 1,
                prev: is_first_of_epoch.then_some(first.prev),
                events: EventList::default(),
            };
            let events = run.iter().map(|stored| Event {
                data: &stored.data,
                kind: stored.kind.as_str(),
                end: stored.end,
            });
            head.write(fields, events);
        });
        out.into()
    }

    fn gap(&self, channel: &ChannelName, after: Cursor, first: Cursor, why: GapReason) -> Bytes {
        let reason = match why {
            GapReason::Trimmed => hold::GapReason::Trimmed,
            GapReason::Recreated => hold::GapReason::Recreated,
        };
        let mut out = Vec::with_capacity(PACKET_OVERHEAD_BYTES);
        hold::write_packet(&mut out, &self.from, Kind::Gap, |fields| {
            Gap { channel: channel.as_str(), after, first, reason }.write(fields);
        });
        out.into()
    }

    /// Where these channels end.
    pub(super) fn heads(&self, heads: &[(ChannelName, Cursor)]) -> Vec<Bytes> {
        let packet = |heads: &[(ChannelName, Cursor)]| {
            let mut out = Vec::new();
            hold::write_packet(&mut out, &self.from, Kind::Heads, |fields| {
                Heads::write(fields, heads.iter().map(|(name, head)| (name.as_str(), *head)));
            });
            Bytes::from(out)
        };
        heads.chunks(HEADS_PER_PACKET_MAX).map(packet).collect()
    }
}

/// Parts the events that go into one packet from the rest; `None` if there are none.
fn split_run(events: &[StoredEvent]) -> Option<(&[StoredEvent], &[StoredEvent])> {
    let first = events.first()?;
    let mut bytes = 0;
    let len = events
        .iter()
        .enumerate()
        .take_while(|(index, event)| {
            bytes += event.data.len();
            let follows = event.id == first.id.plus(*index as u64);
            follows && (*index == 0 || bytes <= PACKET_BYTES_MAX)
        })
        .count();
    Some(events.split_at(len))
}

/// An event as it is known to this module's tests and to the feeder's.
#[cfg(test)]
pub(super) fn event(id: Cursor, prev: Cursor, data: &str) -> StoredEvent {
    let data = Bytes::copy_from_slice(data.as_bytes());
    StoredEvent { id, prev, end: false, kind: crate::store::EventKind::Stream, data }
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::{Gap as StoreGap, Head};
    use zhttp::Packet;

    /// A packet in one line of text, for tests to compare.
    pub(in crate::fanout) fn shown(packet: &Bytes) -> String {
        let packet = Packet::parse(packet).unwrap();
        assert_eq!(packet.from, b"fan");
        match packet.kind {
            Kind::Events => {
                let events = Events::read(&packet).unwrap();
                let Events { channel, epoch, after, prev, events } = events;
                let prev = prev.map(|prev| format!(" prev {prev}")).unwrap_or_default();
                let events: Vec<_> = events
                    .map(|event| {
                        let data = std::str::from_utf8(event.data).unwrap();
                        let control = data.split(r#""control_type":""#).nth(1);
                        let data = control.map_or(data, |rest| rest.split('"').next().unwrap());
                        let kind = if event.kind == "stream" { "" } else { "!" };
                        let end = if event.end { "." } else { "" };
                        format!("{kind}{data}{end}")
                    })
                    .collect();
                format!("events {channel} {epoch}-{after}{prev}: {}", events.join(" "))
            }
            Kind::Gap => {
                let Gap { channel, after, first, reason } = Gap::read(&packet).unwrap();
                format!("gap {channel} {after} {first} {}", reason.name())
            }
            Kind::Heads => {
                let heads = Heads::read(&packet).unwrap();
                let heads: Vec<_> = heads.map(|(name, head)| format!("{name}={head}")).collect();
                format!("heads {}", heads.join(" "))
            }
            other => panic!("no packet of a feeder: {other:?}"),
        }
    }

    fn all_shown(packets: &[Bytes]) -> Vec<String> {
        packets.iter().map(shown).collect()
    }

    fn channel() -> ChannelName {
        ChannelName::new("o", "c").unwrap()
    }

    fn at(epoch: u64, offset: u64) -> Cursor {
        Cursor::new(epoch, offset)
    }

    #[test]
    fn each_epoch_has_its_packet_and_says_what_it_follows() {
        let end = StoredEvent { end: true, ..event(at(5, 3), at(5, 2), "c") };
        let events = [
            event(at(5, 2), at(5, 1), "b"),
            end,
            event(at(6, 1), at(5, 3), "d"),
            event(at(6, 2), at(6, 1), "e"),
        ];
        let packets = Packets::new("fan").events(&channel(), &events);
        let expected = ["events o:c 5-1: b c.", "events o:c 6-0 prev 5-3: d e"];
        assert_eq!(all_shown(&packets), expected);
        let new = Packets::new("fan").events(&channel(), &[event(at(7, 1), Cursor::START, "x")]);
        assert_eq!(all_shown(&new), ["events o:c 7-0 prev 0-0: x"]);
    }

    #[test]
    fn a_packet_has_a_largest_size_but_one_event_at_least() {
        let data = "x".repeat(PACKET_BYTES_MAX / 2 + 1);
        let events: Vec<_> =
            (1..=3).map(|offset| event(at(5, offset), at(5, offset - 1), &data)).collect();
        let packets = Packets::new("fan").events(&channel(), &events);
        assert_eq!(packets.len(), 3);
        let half = "x".repeat(PACKET_BYTES_MAX / 2);
        let events: Vec<_> =
            (1..=3).map(|offset| event(at(5, offset), at(5, offset - 1), &half)).collect();
        assert_eq!(Packets::new("fan").events(&channel(), &events).len(), 2);
    }

    #[test]
    fn a_range_is_a_gap_and_events_or_a_head() {
        let packets =
            |after, range: Range| all_shown(&Packets::new("fan").range(&channel(), after, &range));
        let head = Head { id: at(5, 4), ended: false, oldest_prev: at(5, 2) };
        let gap = StoreGap { prev: at(5, 2), first: at(5, 3), reason: GapReason::Trimmed };
        let events = vec![event(at(5, 3), at(5, 2), "a"), event(at(5, 4), at(5, 3), "b")];
        let range = Range { events, head, gap: Some(gap) };
        let expected = ["gap o:c 5-1 5-3 trimmed", "events o:c 5-2: a b"];
        assert_eq!(packets(at(5, 1), range), expected);
        let nothing = Range { events: Vec::new(), head, gap: None };
        assert_eq!(packets(at(5, 4), nothing), ["heads o:c=5-4"]);
        let nothing = Range { events: Vec::new(), head, gap: None };
        assert_eq!(packets(at(5, 6), nothing.clone()), ["heads o:c=5-4"]);
        assert_eq!(packets(at(6, 1), nothing), ["gap o:c 6-1 5-5 recreated"]);
        assert_eq!(packets(at(6, 1), Range::default()), ["heads o:c=0-0"]);
        assert_eq!(packets(Cursor::START, Range::default()), ["heads o:c=0-0"]);
    }
}
