//! What is said about a connection while it is held (`zhttp-spec/hold.md` §4).
//!
//! All of these name the connection by the `id` of the request that it came with. A handler changes
//! the hold with `hold`, writes to the client with `send`, and ends the connection with plain
//! ZHTTP's `close`, which needs nothing from here; the edge tells of the end with `closed`.

use crate::Cursor;
use crate::error::PacketError;
use crate::field::u64_of;
use crate::packet::Packet;
use crate::tnetstring::Value;
use crate::write::Fields;

use super::channels::{Channels, HoldChannel, Names, write_channels, write_names};
use super::params::context_of;
use super::read::{line_of, optional, required};

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
                (_, Value::Null) => {}
                (b"add", value) => change.add = Channels::check(value, "add")?,
                (b"remove", value) => change.remove = Names::check(value, "remove")?,
                (b"context", value) => change.context = Some(context_of(value, "context")?),
                (b"expires", value) => change.expires_s = Some(u64_of(value, "expires")?),
                _ => {}
            }
        }
        Ok(change)
    }

    /// Writes the fields but the channels, which come from `add` and `remove`. None of those to add
    /// has ended for the reader; [`Change::write_channels`] can say that too.
    pub fn write(&self, fields: &mut Fields<'_, '_>, add: &[(&str, Cursor)], remove: &[&str]) {
        let add: Vec<HoldChannel<'_>> = add.iter().map(|&channel| channel.into()).collect();
        self.write_channels(fields, &add, remove);
    }

    /// Writes the fields but the channels, which come from `add` and `remove`.
    pub fn write_channels(
        &self,
        fields: &mut Fields<'_, '_>,
        add: &[HoldChannel<'_>],
        remove: &[&str],
    ) {
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
    }
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
