//! ZHTTP packets: `T` and a tnetstring map (`zhttp-spec/zhttp.md`).
//!
//! [`Packet::parse`] walks the top level of the map once. It reads what every packet has (`from`,
//! the ids, `type`, `ext`) and leaves the rest as a [`Map`]; a [`Payload`], or one of the hold
//! extension's packets, is read from it by whoever needs that. So routing a packet by its id costs
//! no more than that one walk, and nothing is allocated. [`Envelope`] is the way back.
//!
//! The sides are told apart by who sends, not by the packet: the same types serve an edge and a
//! handler.

use crate::error::PacketError;
use crate::field::{bool_of, bytes_of, map_of, u32_of};
use crate::payload::Payload;
use crate::tnetstring::{self, List, Map, Value};

/// The most ids that one packet may carry.
pub const IDS_MAX: usize = 128;

/// The longest `from`, in bytes: as Condure has it.
pub const FROM_BYTES_MAX: usize = 64;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a packet is: its `type`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kind { $($(#[$doc])* $variant,)* }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[$(Kind::$variant,)*];

            /// The name on the wire; empty for data, whose type is left out.
            pub const fn name(self) -> &'static str {
                match self { $(Kind::$variant => $name,)* }
            }

            /// The kind of that name.
            pub fn from_name(name: &[u8]) -> Option<Self> {
                $(if name == $name.as_bytes() { return Some(Kind::$variant); })*
                None
            }
        }
    };
}

kinds! {
    /// The head or a piece of the body of a request or a response. Has no `type` field.
    Data = "",
    /// The sender cannot go on; `condition` says why.
    Error = "error",
    /// More bytes may be sent.
    Credit = "credit",
    /// The session is alive.
    KeepAlive = "keep-alive",
    /// The session is over; nothing more is wanted.
    Cancel = "cancel",
    /// The handler wants to give the session away.
    HandoffStart = "handoff-start",
    /// Everything is flushed: the session may be taken over.
    HandoffProceed = "handoff-proceed",
    /// A WebSocket close.
    Close = "close",
    /// A WebSocket ping.
    Ping = "ping",
    /// A WebSocket pong.
    Pong = "pong",
    /// Hold extension, handler → edge: I am here, and this is what I do.
    Hello = "hello",
    /// Hold extension, handler → edge: I am leaving.
    Bye = "bye",
    /// Hold extension, edge → feeder: follow these channels.
    Feed = "feed",
    /// Hold extension, edge → feeder: no member is left in these channels.
    Unfeed = "unfeed",
    /// Hold extension, edge → feeder: send stored events.
    Range = "range",
    /// Hold extension, feeder → edge: events of a channel.
    Events = "events",
    /// Hold extension, feeder → edge: nothing is kept between two cursors.
    Gap = "gap",
    /// Hold extension, feeder → edge: where channels end.
    Heads = "heads",
    /// Hold extension, handler → edge: change a hold.
    Hold = "hold",
    /// Hold extension, handler → edge: write to a held connection.
    Send = "send",
    /// Hold extension, edge → handler: the client of a held connection has said this.
    Message = "message",
    /// Hold extension, edge → handler: a held connection has closed.
    Closed = "closed",
}

/// One session that a packet is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Id<'a> {
    /// Names the session; opaque to whoever did not make it.
    pub id: &'a [u8],
    /// The number of the packet in its direction of the session, from 0; optional on input.
    pub seq: Option<u32>,
}

/// The sessions that a packet is about; iterate to read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids<'a> {
    /// The form with one id, `id` and `seq` at the top level; or the end of either form.
    One(Option<Id<'a>>),
    /// The form with a list of maps of `id` and `seq`.
    List(List<'a>),
}

impl<'a> Iterator for Ids<'a> {
    type Item = Id<'a>;

    fn next(&mut self) -> Option<Id<'a>> {
        match self {
            Ids::One(id) => id.take(),
            // Checked when the packet was parsed: an error cannot come here.
            Ids::List(list) => read_id(list.next()?.ok()?).ok(),
        }
    }
}

/// The extensions that a packet uses or offers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ext<'a> {
    /// `multi`: packets with several ids are understood.
    pub multi: bool,
    /// `ping`: the handler of a WebSocket wants to see pings, though they are answered for it.
    pub ping: bool,
    /// `hold`: a version in a request, a map in a response (`zhttp-spec/hold.md`).
    pub hold: Option<Value<'a>>,
}

/// A packet, as far as every kind has the same fields.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// The address of the sender; empty if absent.
    pub from: &'a [u8],
    /// The sessions; none in a packet that is about no session.
    pub ids: Ids<'a>,
    /// What it is.
    pub kind: Kind,
    /// Extensions.
    pub ext: Ext<'a>,
    /// All fields, these and the rest.
    pub fields: Map<'a>,
}

impl<'a> Packet<'a> {
    /// Parses a packet, `T` and one map.
    ///
    /// # Errors
    ///
    /// Says which field is wrong. Unknown fields are skipped.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let map = bytes.strip_prefix(b"T").ok_or(PacketError::Format)?;
        let (Value::Map(fields), []) = tnetstring::read(map)? else {
            return Err(PacketError::Format);
        };
        let (mut id, mut seq) = (Value::Null, None);
        let mut packet = Packet {
            from: b"",
            ids: Ids::One(None),
            kind: Kind::Data,
            ext: Ext::default(),
            fields,
        };
        for entry in fields {
            let (key, value) = entry?;
            if value == Value::Null {
                continue;
            }
            match key {
                b"from" => packet.from = read_from(value)?,
                b"id" => id = value,
                b"seq" => seq = Some(read_seq(value)?),
                b"type" => {
                    packet.kind = Kind::from_name(bytes_of(value, "type")?)
                        .ok_or(PacketError::UnknownType)?;
                }
                b"ext" => packet.ext = read_ext(value)?,
                _ => {}
            }
        }
        packet.ids = read_ids(id, seq)?;
        Ok(packet)
    }

    /// Reads of a packet that [`Packet::parse`] refuses who sent it, and which sessions it was about; `None` if it does
    /// not tell. For who ends those sessions, as nobody knows what the packet was to say.
    pub fn salvage(bytes: &'a [u8]) -> Option<Salvage<'a>> {
        let (Value::Map(fields), []) = tnetstring::read(bytes.strip_prefix(b"T")?).ok()? else {
            return None;
        };
        let mut salvage = Salvage { from: b"", ids: Ids::One(None) };
        // Behind an entry that cannot be read nothing can.
        for (key, value) in fields.map_while(Result::ok) {
            if value == Value::Null {
                continue;
            }
            match key {
                b"from" => salvage.from = read_from(value).unwrap_or_default(),
                b"id" => salvage.ids = read_ids(value, None).ok()?,
                _ => {}
            }
        }
        { salvage.ids }.next().is_some().then_some(salvage)
    }

    /// The fields of the payload of plain ZHTTP.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn payload(&self) -> Result<Payload<'a>, PacketError> {
        Payload::read(self.fields)
    }
}

/// What can still be read of a packet that [`Packet::parse`] refuses.
#[derive(Clone, Copy, Debug)]
pub struct Salvage<'a> {
    /// The address of the sender; empty if it is absent or wrong.
    pub from: &'a [u8],
    /// The sessions that it was about, at least one.
    pub ids: Ids<'a>,
}

fn read_from(value: Value<'_>) -> Result<&[u8], PacketError> {
    let from = bytes_of(value, "from")?;
    if from.is_empty() || from.len() > FROM_BYTES_MAX || from.contains(&b' ') {
        return Err(PacketError::field("from", "1 to 64 bytes without a space"));
    }
    Ok(from)
}

fn read_seq(value: Value<'_>) -> Result<u32, PacketError> {
    u32_of(value, "seq")
}

fn read_ids<'a>(id: Value<'a>, seq: Option<u32>) -> Result<Ids<'a>, PacketError> {
    match id {
        Value::Null => Ok(Ids::One(None)),
        Value::Bytes(id) => Ok(Ids::One(Some(Id { id, seq }))),
        Value::List(list) => {
            for (count, value) in list.enumerate() {
                if count == IDS_MAX {
                    return Err(PacketError::TooManyIds);
                }
                read_id(value?)?;
            }
            Ok(Ids::List(list))
        }
        Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Map(_) => {
            Err(PacketError::field("id", "a byte string or a list"))
        }
    }
}

fn read_id(value: Value<'_>) -> Result<Id<'_>, PacketError> {
    let Value::Map(map) = value else {
        return Err(PacketError::field("id", "a list of maps"));
    };
    let (mut id, mut seq) = (None, None);
    for entry in map {
        match entry? {
            (_, Value::Null) => {}
            (b"id", value) => id = Some(bytes_of(value, "id")?),
            (b"seq", value) => seq = Some(read_seq(value)?),
            _ => {}
        }
    }
    Ok(Id { id: id.ok_or(PacketError::Missing("id"))?, seq })
}

fn read_ext(value: Value<'_>) -> Result<Ext<'_>, PacketError> {
    let mut ext = Ext::default();
    for entry in map_of(value, "ext")? {
        match entry? {
            (_, Value::Null) => {}
            (b"multi", value) => ext.multi = bool_of(value, "ext.multi")?,
            (b"ping", value) => ext.ping = bool_of(value, "ext.ping")?,
            (b"hold", value) => ext.hold = Some(value),
            _ => {}
        }
    }
    Ok(ext)
}
