//! What is said about a connection while it is held (`zhttp-spec/hold.md` §4).
//!
//! All of these name the connection by the `id` of the request that it came with. A handler changes
//! the hold with `hold`, writes to the client with `send`, and ends the connection with plain
//! ZHTTP's `close`, which needs nothing from here; the edge tells of the end with `closed`.

use crate::error::PacketError;
use crate::field::{list_of, str_of, u64_of};
use crate::packet::Packet;
use crate::tnetstring::{List, Value};
use crate::write::Fields;

use super::channels::{Channels, HoldChannel, Names, write_channels, write_names};
use super::message::number_of;
use super::params::{close_code_of, context_of};
use super::read::{line_of, optional, required};

/// The most bytes of all that a `hold` says to its client.
pub const BODIES_BYTES_MAX: usize = 1024 * 1024;

/// The most that it says, in messages.
pub const BODIES_MAX: usize = 1024;

/// `hold`: a change of a hold that is there, or the answer to what its client has said.
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
    /// The code of the close then; 0 is the usual one.
    pub expires_code: Option<u16>,
    /// What is said to the client, behind the change.
    pub bodies: Texts<'a>,
    /// The number of the [`Message`](super::Message) that this answers; `None` if it answers none.
    pub answers: Option<u64>,
}

/// Text messages; iterate to read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Texts<'a>(List<'a>);

impl<'a> Texts<'a> {
    fn check(value: Value<'a>, field: &'static str) -> Result<Self, PacketError> {
        let list = list_of(value, field)?;
        let mut bytes = 0;
        for (count, text) in list.enumerate() {
            bytes += str_of(text?, field)?.len();
            if count >= BODIES_MAX || bytes > BODIES_BYTES_MAX {
                return Err(PacketError::field(field, "at most 1024 texts, of 1 MiB in all"));
            }
        }
        Ok(Texts(list))
    }
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        str_of(self.0.next()?.ok()?, "bodies").ok()
    }
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
                (_, Value::Null) => {}
                (b"add", value) => change.add = Channels::check(value, "add")?,
                (b"remove", value) => change.remove = Names::check(value, "remove")?,
                (b"context", value) => change.context = Some(context_of(value, "context")?),
                (b"expires", value) => change.expires_s = Some(u64_of(value, "expires")?),
                (b"expires-code", value) => {
                    change.expires_code = Some(close_code_of(value, "expires-code")?);
                }
                (b"bodies", value) => change.bodies = Texts::check(value, "bodies")?,
                (b"answers", value) => change.answers = Some(number_of(value, "answers")?),
                _ => {}
            }
        }
        Ok(change)
    }

    /// Which [`Message`](super::Message) a `hold` packet answers, whatever else is wrong with it.
    pub fn answered_by(packet: &Packet<'_>) -> Option<u64> {
        let value = optional(packet, "answers").ok()??;
        number_of(value, "answers").ok()
    }

    /// Writes the fields but the lists, which come from `lists`.
    pub fn write(&self, fields: &mut Fields<'_, '_>, lists: &ChangeLists<'_>) {
        let ChangeLists { add, remove, bodies } = *lists;
        if !add.is_empty() {
            fields.list("add", |writer| write_channels(writer, add.iter().copied()));
        }
        if !remove.is_empty() {
            fields.list("remove", |writer| write_names(writer, remove.iter().copied()));
        }
        // Empty and 0 say something here, so they are written.
        if let Some(context) = self.context {
            fields.bytes_even_if_empty("context", context);
        }
        if let Some(expires_s) = self.expires_s {
            fields.int_even_if_zero("expires", expires_s);
        }
        if let Some(code) = self.expires_code {
            fields.int_even_if_zero("expires-code", code.into());
        }
        if !bodies.is_empty() {
            fields.list("bodies", |writer| {
                bodies.iter().for_each(|body| writer.bytes(body.as_bytes()));
            });
        }
        fields.int("answers", self.answers.unwrap_or(0));
    }
}

/// The lists of a [`Change`], to be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeLists<'a> {
    /// Channels to read from now on.
    pub add: &'a [HoldChannel<'a>],
    /// Channels to read no more.
    pub remove: &'a [&'a str],
    /// What is said to the client.
    pub bodies: &'a [&'a str],
}

/// The name of the server-sent event that a [`Send`] without a name becomes.
pub const SEND_KIND_DEFAULT: &str = "control";

/// `send`: something for the client that is no event of a channel, and moves no cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Send<'a> {
    /// The name of the server-sent event, `event` on the wire; [`SEND_KIND_DEFAULT`] if there is
    /// none. WebSocket messages have no name.
    pub kind: Option<&'a str>,
    /// One line of data, not empty: UTF-8 without CR and LF.
    pub body: &'a [u8],
}

impl<'a> Send<'a> {
    /// Reads a `send` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong. Neither the name nor the data may hold a line break: they are
    /// written into server-sent events as they are.
    pub fn read(packet: &Packet<'a>) -> Result<Self, PacketError> {
        let kind = optional(packet, "event")?.map(|value| line_of(value, "event")).transpose()?;
        let body = line_of(required(packet, "body")?, "body")?;
        if body.is_empty() {
            return Err(PacketError::Missing("body"));
        }
        Ok(Send { kind: kind.filter(|kind| !kind.is_empty()), body: body.as_bytes() })
    }

    /// The name of the server-sent event.
    pub fn kind_or_default(&self) -> &'a str {
        self.kind.unwrap_or(SEND_KIND_DEFAULT)
    }

    /// Writes the fields.
    pub fn write(&self, fields: &mut Fields<'_, '_>) {
        fields.bytes("event", self.kind.unwrap_or_default().as_bytes());
        fields.bytes("body", self.body);
    }
}

/// `closed`: a held connection that asked for it has closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closed<'a> {
    /// The context of its hold.
    pub context: &'a [u8],
}

impl<'a> Closed<'a> {
    /// Reads a `closed` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn read(packet: &Packet<'a>) -> Result<Self, PacketError> {
        let context = optional(packet, "context")?;
        let context = context.map_or(Ok(&b""[..]), |value| context_of(value, "context"))?;
        Ok(Closed { context })
    }

    /// Writes the fields.
    pub fn write(&self, fields: &mut Fields<'_, '_>) {
        fields.bytes("context", self.context);
    }
}
