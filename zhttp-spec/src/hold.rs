//! The packets of the hold extension (`zhttp-spec/hold.md`): what they carry, read and written.
//!
//! Each type here is a view into a [`Packet`], checked as a whole when it is read; its lists are
//! then walked without errors. Writers take what an edge or a feeder has at hand.

use crate::cursor::Cursor;
use crate::error::PacketError;
use crate::packet::{Packet, bool_of, bytes_of, list_of, map_of, str_of, u32_of, u64_of};
use crate::tnetstring::{List, Value, Writer};
use crate::write::{Envelope, Fields};

/// The version of the extension that an edge offers in `ext.hold` of a request.
pub const HOLD_VERSION: u64 = 1;

/// The most channels that one connection may read.
pub const CHANNELS_PER_HOLD_MAX: usize = 128;

/// The longest `context`, in bytes.
pub const CONTEXT_BYTES_MAX: usize = 1024;

/// The longest name of a channel, in bytes: an org of 64, a colon, a channel of 128.
pub const CHANNEL_BYTES_MAX: usize = 193;

/// How events are rendered for a held connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Server-sent events.
    Sse,
    /// WebSocket text messages.
    Ws,
}

/// `ext.hold` of a response: the connection is to be held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldParams<'a> {
    /// How events are rendered.
    pub format: Format,
    /// What the connection reads, and from where.
    pub channels: Channels<'a>,
    /// A comment or a ping goes out after so many milliseconds without a write; 0 is never.
    pub keep_alive_ms: u64,
    /// The connection is closed after so many seconds; 0 is never.
    pub expires_s: u64,
    /// Opaque to the edge.
    pub context: &'a [u8],
    /// A handler wants to be told when the connection closes.
    pub notify: bool,
}

impl<'a> HoldParams<'a> {
    /// Reads `ext.hold` of a response; `None` if it has none.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn read(packet: &Packet<'a>) -> Result<Option<Self>, PacketError> {
        let Some(value) = packet.ext.hold else { return Ok(None) };
        let (mut format, mut channels) = (None, None);
        let (mut keep_alive_ms, mut expires_s, mut notify) = (0, 0, false);
        let mut context: &[u8] = b"";
        for entry in map_of(value, "ext.hold")? {
            let (key, value) = entry?;
            match key {
                b"format" => format = Some(read_format(value)?),
                b"channels" => channels = Some(Channels::check(value, "ext.hold.channels")?),
                b"keep-alive" => keep_alive_ms = u64_of(value, "ext.hold.keep-alive")?,
                b"expires" => expires_s = u64_of(value, "ext.hold.expires")?,
                b"context" => context = read_context(value)?,
                b"notify" => notify = bool_of(value, "ext.hold.notify")?,
                _ => {}
            }
        }
        let format = format.ok_or(PacketError::Missing("ext.hold.format"))?;
        let channels = channels.ok_or(PacketError::Missing("ext.hold.channels"))?;
        Ok(Some(HoldParams { format, channels, keep_alive_ms, expires_s, context, notify }))
    }

    /// Writes the fields of `ext.hold` but its channels, which come from `channels`.
    pub fn write<'c>(&self, ext: &mut Fields<'_, '_>, channels: &[(&'c str, Cursor)]) {
        ext.map("hold", |fields| {
            let format = match self.format {
                Format::Sse => b"sse".as_slice(),
                Format::Ws => b"ws",
            };
            fields.bytes("format", format);
            fields.list("channels", |writer| write_channels(writer, channels));
            fields.int("keep-alive", self.keep_alive_ms);
            fields.int("expires", self.expires_s);
            fields.bytes("context", self.context);
            fields.flag("notify", self.notify);
        });
    }
}

fn read_format(value: Value<'_>) -> Result<Format, PacketError> {
    match bytes_of(value, "ext.hold.format")? {
        b"sse" => Ok(Format::Sse),
        b"ws" => Ok(Format::Ws),
        _ => Err(PacketError::field("ext.hold.format", "sse or ws")),
    }
}

fn read_context(value: Value<'_>) -> Result<&[u8], PacketError> {
    let context = bytes_of(value, "context")?;
    if context.len() > CONTEXT_BYTES_MAX {
        return Err(PacketError::field("context", "at most 1024 bytes"));
    }
    Ok(context)
}

fn read_name<'a>(value: Value<'a>, field: &'static str) -> Result<&'a str, PacketError> {
    let name = str_of(value, field)?;
    if name.is_empty() || name.len() > CHANNEL_BYTES_MAX {
        return Err(PacketError::field(field, "1 to 193 bytes"));
    }
    Ok(name)
}

fn read_cursor(value: Value<'_>, field: &'static str) -> Result<Cursor, PacketError> {
    Cursor::from_bytes(bytes_of(value, field)?)
        .map_err(|_| PacketError::field(field, "a cursor, <epoch>-<offset>"))
}

/// Channels with a cursor each; iterate to read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels<'a>(List<'a>);

impl<'a> Channels<'a> {
    fn check(value: Value<'a>, field: &'static str) -> Result<Self, PacketError> {
        let list = list_of(value, field)?;
        for (count, pair) in list.enumerate() {
            if count == CHANNELS_PER_HOLD_MAX {
                return Err(PacketError::field(field, "at most 128 channels"));
            }
            channel(pair?, field)?;
        }
        Ok(Channels(list))
    }
}

impl<'a> Iterator for Channels<'a> {
    type Item = (&'a str, Cursor);

    fn next(&mut self) -> Option<Self::Item> {
        channel(self.0.next()?.ok()?, "channels").ok()
    }
}

fn channel<'a>(value: Value<'a>, field: &'static str) -> Result<(&'a str, Cursor), PacketError> {
    let mut pair = list_of(value, field)?;
    match (pair.next(), pair.next(), pair.next()) {
        (Some(name), Some(cursor), None) => {
            Ok((read_name(name?, field)?, read_cursor(cursor?, field)?))
        }
        _ => Err(PacketError::field(field, "a list of [name, cursor]")),
    }
}

fn write_channels(writer: &mut Writer<'_>, channels: &[(&str, Cursor)]) {
    for (name, cursor) in channels {
        writer.list(|writer| {
            writer.bytes(name.as_bytes());
            writer.bytes(cursor.to_string().as_bytes());
        });
    }
}

/// Names of channels; iterate to read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names<'a>(List<'a>);

impl<'a> Names<'a> {
    fn check(value: Value<'a>, field: &'static str) -> Result<Self, PacketError> {
        let list = list_of(value, field)?;
        for name in list {
            read_name(name?, field)?;
        }
        Ok(Names(list))
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        read_name(self.0.next()?.ok()?, "channels").ok()
    }
}

/// `hello`: a handler is there, and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello<'a> {
    /// How long the edge may count on it, in milliseconds.
    pub ttl_ms: u64,
    /// Changes when the handler is started anew, so that a quick restart is noticed.
    pub incarnation: u64,
    /// It feeds channels.
    pub feeds: bool,
    /// The requests that it takes.
    pub serves: Serves<'a>,
    /// The most requests that it wants in flight; 0 is no limit.
    pub requests_max: u32,
}

/// What a handler serves: methods (`*` is any) and path prefixes; iterate to read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serves<'a>(List<'a>);

impl<'a> Iterator for Serves<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        serve(self.0.next()?.ok()?).ok()
    }
}

fn serve(value: Value<'_>) -> Result<(&str, &str), PacketError> {
    let mut pair = list_of(value, "serves")?;
    match (pair.next(), pair.next(), pair.next()) {
        (Some(method), Some(prefix), None) => {
            Ok((str_of(method?, "serves")?, str_of(prefix?, "serves")?))
        }
        _ => Err(PacketError::field("serves", "a list of [method, path prefix]")),
    }
}

impl<'a> Hello<'a> {
    /// Reads a `hello` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn read(packet: &Packet<'a>) -> Result<Self, PacketError> {
        let (mut ttl_ms, mut incarnation, mut feeds, mut requests_max) = (None, 0, false, 0);
        let mut serves = Serves::default();
        for entry in packet.fields {
            match entry? {
                (b"ttl", value) => ttl_ms = Some(u64_of(value, "ttl")?),
                (b"incarnation", value) => incarnation = u64_of(value, "incarnation")?,
                (b"feeds", value) => feeds = bool_of(value, "feeds")?,
                (b"requests-max", value) => requests_max = u32_of(value, "requests-max")?,
                (b"serves", value) => {
                    serves = Serves(list_of(value, "serves")?);
                    for pair in serves.0 {
                        serve(pair?)?;
                    }
                }
                _ => {}
            }
        }
        let ttl_ms = ttl_ms.ok_or(PacketError::Missing("ttl"))?;
        Ok(Hello { ttl_ms, incarnation, feeds, serves, requests_max })
    }

    /// Writes the fields but `serves`, which comes from `serves`.
    pub fn write(&self, fields: &mut Fields<'_, '_>, serves: &[(&str, &str)]) {
        fields.int("ttl", self.ttl_ms);
        fields.int("incarnation", self.incarnation);
        fields.flag("feeds", self.feeds);
        if !serves.is_empty() {
            fields.list("serves", |writer| {
                for (method, prefix) in serves {
                    writer.list(|writer| {
                        writer.bytes(method.as_bytes());
                        writer.bytes(prefix.as_bytes());
                    });
                }
            });
        }
        fields.int("requests-max", self.requests_max.into());
    }
}

/// `feed`: channels to follow, each with the edge's own head of it, or none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Feed<'a>(List<'a>);

impl<'a> Feed<'a> {
    /// Reads a `feed` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn read(packet: &Packet<'a>) -> Result<Self, PacketError> {
        let list = list_of(required(packet, "channels")?, "channels")?;
        for pair in list {
            feed(pair?)?;
        }
        Ok(Feed(list))
    }

    /// Writes the fields.
    pub fn write<'c>(
        fields: &mut Fields<'_, '_>,
        channels: impl Iterator<Item = (&'c str, Option<Cursor>)>,
    ) {
        fields.list("channels", |writer| {
            for (name, head) in channels {
                writer.list(|writer| {
                    writer.bytes(name.as_bytes());
                    writer.bytes(head.map(|head| head.to_string()).unwrap_or_default().as_bytes());
                });
            }
        });
    }
}

impl<'a> Iterator for Feed<'a> {
    type Item = (&'a str, Option<Cursor>);

    fn next(&mut self) -> Option<Self::Item> {
        feed(self.0.next()?.ok()?).ok()
    }
}

fn feed(value: Value<'_>) -> Result<(&str, Option<Cursor>), PacketError> {
    let mut pair = list_of(value, "channels")?;
    match (pair.next(), pair.next(), pair.next()) {
        (Some(name), Some(head), None) => {
            let name = read_name(name?, "channels")?;
            let head = match head? {
                Value::Null | Value::Bytes(b"") => None,
                head => Some(read_cursor(head, "channels")?),
            };
            Ok((name, head))
        }
        _ => Err(PacketError::field("channels", "a list of [name, head]")),
    }
}

/// `unfeed`: channels that the edge has no member in.
#[derive(Clone, Copy, Debug)]
pub struct Unfeed;

impl Unfeed {
    /// Reads an `unfeed` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn read<'a>(packet: &Packet<'a>) -> Result<Names<'a>, PacketError> {
        Names::check(required(packet, "channels")?, "channels")
    }

    /// Writes the fields.
    pub fn write<'c>(fields: &mut Fields<'_, '_>, channels: impl Iterator<Item = &'c str>) {
        fields.list("channels", |writer| {
            channels.for_each(|name| writer.bytes(name.as_bytes()));
        });
    }
}

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
        Ok(Range {
            channel: read_name(required(packet, "channel")?, "channel")?,
            after: read_cursor(required(packet, "after")?, "after")?,
            bytes: u64_of(required(packet, "bytes")?, "bytes")?,
        })
    }

    /// Writes the fields.
    pub fn write(&self, fields: &mut Fields<'_, '_>) {
        fields.bytes("channel", self.channel.as_bytes());
        fields.bytes("after", self.after.to_string().as_bytes());
        fields.int("bytes", self.bytes);
    }
}

/// One event as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What the client gets: one line of JSON.
    pub data: &'a [u8],
    /// The type of the event: `stream` unless it says otherwise.
    pub kind: &'a str,
    /// It ends the channel.
    pub end: bool,
}

/// The type of an event that names none.
pub const EVENT_KIND_DEFAULT: &str = "stream";

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

/// Events in the order of their offsets; iterate to read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventList<'a>(List<'a>);

impl<'a> Iterator for EventList<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        event(self.0.next()?.ok()?).ok()
    }
}

fn event(value: Value<'_>) -> Result<Event<'_>, PacketError> {
    let mut pair = list_of(value, "events")?;
    let (Some(data), attrs, None) = (pair.next(), pair.next(), pair.next()) else {
        return Err(PacketError::field("events", "a list of [data, attributes]"));
    };
    let data = bytes_of(data?, "events")?;
    let mut event = Event { data, kind: EVENT_KIND_DEFAULT, end: false };
    if let Some(attrs) = attrs {
        for entry in map_of(attrs?, "events")? {
            match entry? {
                (b"type", value) => event.kind = str_of(value, "events.type")?,
                (b"end", value) => event.end = bool_of(value, "events.end")?,
                _ => {}
            }
        }
    }
    Ok(event)
}

impl<'a> Events<'a> {
    /// Reads an `events` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong. Event data and types must not hold a line break: they are
    /// written into server-sent events as they are.
    pub fn read(packet: &Packet<'a>) -> Result<Self, PacketError> {
        let list = list_of(required(packet, "events")?, "events")?;
        let mut count = 0u64;
        for pair in list {
            let event = event(pair?)?;
            if event
                .data
                .iter()
                .chain(event.kind.as_bytes())
                .any(|&byte| matches!(byte, b'\r' | b'\n'))
            {
                return Err(PacketError::field("events", "data and types without line breaks"));
            }
            count += 1;
        }
        let epoch = u64_of(required(packet, "epoch")?, "epoch")?;
        let after = optional(packet, "after")?.map_or(Ok(0), |value| u64_of(value, "after"))?;
        if epoch == 0 || after.checked_add(count).is_none() {
            return Err(PacketError::field("epoch", "an epoch from 1, with offsets within u64"));
        }
        let prev = optional(packet, "prev")?.map(|value| read_cursor(value, "prev")).transpose()?;
        if prev.is_some_and(|prev| after != 0 || prev.epoch >= epoch) {
            return Err(PacketError::field("prev", "a cursor of an earlier epoch, and after 0"));
        }
        let channel = read_name(required(packet, "channel")?, "channel")?;
        Ok(Events { channel, epoch, after, prev, events: EventList(list) })
    }

    /// Writes the fields but the events, which come from `events`.
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

/// `gap`: of what follows `after`, nothing before `first` is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap<'a> {
    /// The channel.
    pub channel: &'a str,
    /// The last cursor before the gap.
    pub after: Cursor,
    /// The first event behind it that is kept.
    pub first: Cursor,
    /// Why.
    pub reason: GapReason,
}

impl<'a> Gap<'a> {
    /// Reads a `gap` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn read(packet: &Packet<'a>) -> Result<Self, PacketError> {
        let gap = Gap {
            channel: read_name(required(packet, "channel")?, "channel")?,
            after: read_cursor(required(packet, "after")?, "after")?,
            first: read_cursor(required(packet, "first")?, "first")?,
            reason: match bytes_of(required(packet, "reason")?, "reason")? {
                b"trimmed" => GapReason::Trimmed,
                b"recreated" => GapReason::Recreated,
                _ => return Err(PacketError::field("reason", "trimmed or recreated")),
            },
        };
        if gap.first <= gap.after || gap.first.offset == 0 {
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

/// `heads`: the last event of each channel; iterate to read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heads<'a>(List<'a>);

impl<'a> Heads<'a> {
    /// Reads a `heads` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn read(packet: &Packet<'a>) -> Result<Self, PacketError> {
        let list = list_of(required(packet, "heads")?, "heads")?;
        for triple in list {
            head(triple?)?;
        }
        Ok(Heads(list))
    }

    /// Writes the fields.
    pub fn write<'c>(fields: &mut Fields<'_, '_>, heads: impl Iterator<Item = (&'c str, Cursor)>) {
        fields.list("heads", |writer| {
            for (name, head) in heads {
                writer.list(|writer| {
                    writer.bytes(name.as_bytes());
                    writer.int(i64::try_from(head.epoch).unwrap_or(i64::MAX));
                    writer.int(i64::try_from(head.offset).unwrap_or(i64::MAX));
                });
            }
        });
    }
}

impl<'a> Iterator for Heads<'a> {
    type Item = (&'a str, Cursor);

    fn next(&mut self) -> Option<Self::Item> {
        head(self.0.next()?.ok()?).ok()
    }
}

fn head(value: Value<'_>) -> Result<(&str, Cursor), PacketError> {
    let mut triple = list_of(value, "heads")?;
    match (triple.next(), triple.next(), triple.next(), triple.next()) {
        (Some(name), Some(epoch), Some(offset), None) => Ok((
            read_name(name?, "heads")?,
            Cursor::new(u64_of(epoch?, "heads")?, u64_of(offset?, "heads")?),
        )),
        _ => Err(PacketError::field("heads", "a list of [channel, epoch, offset]")),
    }
}

/// `hold`: a change of a hold that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change<'a> {
    /// Channels to read from now on.
    pub add: Channels<'a>,
    /// Channels to read no more.
    pub remove: Names<'a>,
    /// A new context.
    pub context: Option<&'a [u8]>,
    /// Seconds from now until the connection is closed; 0 is never.
    pub expires_s: Option<u64>,
}

impl<'a> Change<'a> {
    /// Reads a `hold` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn read(packet: &Packet<'a>) -> Result<Self, PacketError> {
        let mut change = Change::default();
        for entry in packet.fields {
            match entry? {
                (b"add", value) => change.add = Channels::check(value, "add")?,
                (b"remove", value) => change.remove = Names::check(value, "remove")?,
                (b"context", value) => change.context = Some(read_context(value)?),
                (b"expires", value) => change.expires_s = Some(u64_of(value, "expires")?),
                _ => {}
            }
        }
        Ok(change)
    }
}

/// `closed`: a held connection that asked for it has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed<'a> {
    /// The context of its hold.
    pub context: &'a [u8],
}

impl Closed<'_> {
    /// Writes the fields.
    pub fn write(&self, fields: &mut Fields<'_, '_>) {
        fields.bytes("context", self.context);
    }
}

fn optional<'a>(packet: &Packet<'a>, key: &str) -> Result<Option<Value<'a>>, PacketError> {
    for entry in packet.fields {
        let (found, value) = entry?;
        if found == key.as_bytes() && value != Value::Null {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

fn required<'a>(packet: &Packet<'a>, key: &'static str) -> Result<Value<'a>, PacketError> {
    optional(packet, key)?.ok_or(PacketError::Missing(key))
}

/// Writes a packet of the extension that is about no session.
pub fn write_packet(
    out: &mut Vec<u8>,
    from: &[u8],
    kind: crate::Kind,
    payload: impl FnOnce(&mut Fields<'_, '_>),
) {
    Envelope::new(from, kind).write(out, payload);
}
