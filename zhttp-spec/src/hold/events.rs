//! Events, asked for and sent (`zhttp-spec/hold.md` §7).
//!
//! An event is stored, moved and delivered in one form: a line of JSON that nobody on the way looks
//! into. A run of them has one channel, one epoch and the offset that it begins after; so the id of
//! each is known without being written. `gap` stands where a run cannot be sent for it is no longer
//! kept.

use crate::cursor::Cursor;
use crate::error::PacketError;
use crate::field::{bool_of, bytes_of, list_of, map_of, u64_of};
use crate::packet::Packet;
use crate::tnetstring::{List, Value, Writer};
use crate::write::Fields;

use super::channels::name_of;
use super::read::{cursor_of, line_of, optional, required};

/// `range`: the edge wants stored events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range<'a> {
    /// Of this channel.
    pub channel: &'a str,
    /// After this cursor.
    pub after: Cursor,
    /// About so many bytes of event data; at least one event is sent if there is one.
    pub bytes: u64,
}

impl<'a> Range<'a> {
    /// Reads a `range` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn read(packet: &Packet<'a>) -> Result<Self, PacketError> {
        let bytes = optional(packet, "bytes")?.map_or(Ok(0), |value| u64_of(value, "bytes"))?;
        Ok(Range {
            channel: name_of(required(packet, "channel")?, "channel")?,
            after: cursor_of(required(packet, "after")?, "after")?,
            bytes,
        })
    }

    /// Writes the fields.
    pub fn write(&self, fields: &mut Fields<'_, '_>) {
        fields.bytes("channel", self.channel.as_bytes());
        fields.bytes("after", self.after.to_string().as_bytes());
        fields.int("bytes", self.bytes);
    }
}

/// The type of an event that names none.
pub const EVENT_KIND_DEFAULT: &str = "stream";

/// One event as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What the client gets: one line of JSON.
    pub data: &'a [u8],
    /// The type of the event: [`EVENT_KIND_DEFAULT`] unless it says otherwise.
    pub kind: &'a str,
    /// It ends the channel.
    pub end: bool,
}

/// Events in the order of their offsets; iterate to read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventList<'a>(List<'a>);

impl<'a> Iterator for EventList<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        event_of(self.0.next()?.ok()?).ok()
    }
}

fn event_of(value: Value<'_>) -> Result<Event<'_>, PacketError> {
    let mut pair = list_of(value, "events")?;
    let (Some(data), attrs, None) = (pair.next(), pair.next(), pair.next()) else {
        return Err(PacketError::field("events", "a list of [data, attributes]"));
    };
    let data = bytes_of(data?, "events")?;
    let mut event = Event { data, kind: EVENT_KIND_DEFAULT, end: false };
    if let Some(attrs) = attrs {
        for entry in map_of(attrs?, "events")? {
            match entry? {
                (_, Value::Null) => {}
                (b"type", value) => event.kind = line_of(value, "events.type")?,
                (b"end", value) => event.end = bool_of(value, "events.end")?,
                _ => {}
            }
        }
    }
    Ok(event)
}

/// `events`: a run of events of one channel and epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events<'a> {
    /// Their channel.
    pub channel: &'a str,
    /// Their epoch.
    pub epoch: u64,
    /// The offset before the first of them.
    pub after: u64,
    /// What the first follows, if that is of another epoch: then `after` is 0.
    pub prev: Option<Cursor>,
    /// The events.
    pub events: EventList<'a>,
}

impl<'a> Events<'a> {
    /// Reads an `events` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong. Event data and types must be UTF-8 without a line break: they are
    /// written into server-sent events and WebSocket text messages as they are.
    pub fn read(packet: &Packet<'a>) -> Result<Self, PacketError> {
        let list = list_of(required(packet, "events")?, "events")?;
        let mut count = 0u64;
        for pair in list {
            let event = event_of(pair?)?;
            line_of(Value::Bytes(event.data), "events")?;
            count += 1;
        }
        let epoch = u64_of(required(packet, "epoch")?, "epoch")?;
        let after = optional(packet, "after")?.map_or(Ok(0), |value| u64_of(value, "after"))?;
        if epoch == 0 || after.checked_add(count).is_none() {
            return Err(PacketError::field("epoch", "an epoch from 1, with offsets within u64"));
        }
        let prev = optional(packet, "prev")?.map(|value| cursor_of(value, "prev")).transpose()?;
        if prev.is_some_and(|prev| after != 0 || prev.epoch >= epoch) {
            return Err(PacketError::field("prev", "a cursor of an earlier epoch, and after 0"));
        }
        let channel = name_of(required(packet, "channel")?, "channel")?;
        Ok(Events { channel, epoch, after, prev, events: EventList(list) })
    }

    /// Writes the fields but the events, which come from `events`. Epoch and offset are below 2⁶³
    /// (H-5).
    pub fn write<'e>(&self, fields: &mut Fields<'_, '_>, events: impl Iterator<Item = Event<'e>>) {
        fields.bytes("channel", self.channel.as_bytes());
        fields.int("epoch", self.epoch);
        fields.int("after", self.after);
        if let Some(prev) = self.prev {
            fields.bytes("prev", prev.to_string().as_bytes());
        }
        fields.list("events", |writer| {
            for event in events {
                writer.list(|writer| write_event(writer, &event));
            }
        });
    }
}

fn write_event(writer: &mut Writer<'_>, event: &Event<'_>) {
    writer.bytes(event.data);
    writer.map(|writer| {
        if event.kind != EVENT_KIND_DEFAULT {
            writer.bytes(b"type");
            writer.bytes(event.kind.as_bytes());
        }
        if event.end {
            writer.bytes(b"end");
            writer.bool(true);
        }
    });
}

/// Why events are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The oldest events were dropped to keep the log within its bounds.
    Trimmed,
    /// The channel was deleted or has expired, and was made anew.
    Recreated,
}

impl GapReason {
    /// The name on the wire and in the control event.
    pub const fn name(self) -> &'static str {
        match self {
            GapReason::Trimmed => "trimmed",
            GapReason::Recreated => "recreated",
        }
    }
}

/// `gap`: of what follows `after`, nothing before `first` is kept. Or, if `first` is of an earlier epoch: `after` is beyond
/// the log, which ends just before `first` (hold.md H-59).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The last cursor before the gap.
    pub after: Cursor,
    /// The first event behind it that is kept; or that can be, if there is none.
    pub first: Cursor,
    /// Why.
    pub reason: GapReason,
}

impl<'a> Gap<'a> {
    /// Whether it leads those at `after` back to the end of a log that they are beyond (H-59).
    pub fn leads_back(&self) -> bool {
        self.first.epoch < self.after.epoch
    }

    /// Reads a `gap` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn read(packet: &Packet<'a>) -> Result<Self, PacketError> {
        let gap = Gap {
            channel: name_of(required(packet, "channel")?, "channel")?,
            after: cursor_of(required(packet, "after")?, "after")?,
            first: cursor_of(required(packet, "first")?, "first")?,
            reason: match bytes_of(required(packet, "reason")?, "reason")? {
                b"trimmed" => GapReason::Trimmed,
                b"recreated" => GapReason::Recreated,
                _ => return Err(PacketError::field("reason", "trimmed or recreated")),
            },
        };
        let leads_on = gap.first > gap.after || gap.leads_back();
        if !leads_on || gap.first.offset == 0 {
            return Err(PacketError::field("first", "the id of an event after the gap"));
        }
        Ok(gap)
    }

    /// Writes the fields.
    pub fn write(&self, fields: &mut Fields<'_, '_>) {
        fields.bytes("channel", self.channel.as_bytes());
        fields.bytes("after", self.after.to_string().as_bytes());
        fields.bytes("first", self.first.to_string().as_bytes());
        fields.bytes("reason", self.reason.name().as_bytes());
    }
}
