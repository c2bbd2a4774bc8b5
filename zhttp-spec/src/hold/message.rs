//! What the client of a held WebSocket says (`zhttp-spec/hold.md` §4.1).
//!
//! It comes in a `message`, and a [`Change`](super::Change) that names its number answers it.

use crate::error::PacketError;
use crate::field::{bool_of, bytes_of, list_of, map_of, u64_of};
use crate::packet::Packet;
use crate::tnetstring::{List, Value, Writer};
use crate::write::Fields;

use super::params::{context_of, path_of};
use super::read::{optional, required};

/// `message`: what the client of a held WebSocket has said since the last one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Who hears it; the `messages` of its hold.
    pub path: &'a str,
    /// Counts them, for each connection from 1.
    pub number: u64,
    /// The context of its hold.
    pub context: &'a [u8],
    /// How many channels the connection reads.
    pub channels: u64,
    /// What was said.
    pub bodies: Said<'a>,
}

/// What a client has said, in order; iterate to read the messages, and whether each is binary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Said<'a>(List<'a>);

impl<'a> Iterator for Said<'a> {
    type Item = (&'a [u8], bool);

    fn next(&mut self) -> Option<Self::Item> {
        said_of(self.0.next()?.ok()?).ok()
    }
}

fn said_of(value: Value<'_>) -> Result<(&[u8], bool), PacketError> {
    let mut pair = list_of(value, "bodies")?;
    let (Some(body), attrs, None) = (pair.next(), pair.next(), pair.next()) else {
        return Err(PacketError::field("bodies", "a list of [body, attributes]"));
    };
    let body = bytes_of(body?, "bodies")?;
    let mut binary = false;
    if let Some(attrs) = attrs {
        for entry in map_of(attrs?, "bodies")? {
            match entry? {
                (_, Value::Null) => {}
                (b"binary", value) => binary = bool_of(value, "bodies.binary")?,
                _ => {}
            }
        }
    }
    if !binary && std::str::from_utf8(body).is_err() {
        return Err(PacketError::field("bodies", "UTF-8, unless it is binary"));
    }
    Ok((body, binary))
}

impl<'a> Message<'a> {
    /// Reads a `message` packet.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn read(packet: &Packet<'a>) -> Result<Self, PacketError> {
        let list = list_of(required(packet, "bodies")?, "bodies")?;
        for said in list {
            said_of(said?)?;
        }
        let context = optional(packet, "context")?;
        let channels = optional(packet, "channels")?;
        Ok(Message {
            path: path_of(required(packet, "path")?, "path")?,
            number: number_of(required(packet, "number")?, "number")?,
            context: context.map_or(Ok(&b""[..]), |value| context_of(value, "context"))?,
            channels: channels.map_or(Ok(0), |value| u64_of(value, "channels"))?,
            bodies: Said(list),
        })
    }

    /// Writes the fields but what was said, which comes from `bodies`.
    pub fn write<'b>(
        &self,
        fields: &mut Fields<'_, '_>,
        bodies: impl Iterator<Item = (&'b [u8], bool)>,
    ) {
        fields.bytes("path", self.path.as_bytes());
        fields.int("number", self.number);
        fields.bytes("context", self.context);
        fields.int("channels", self.channels);
        fields.list("bodies", |writer| {
            for (body, binary) in bodies {
                writer.list(|writer| write_said(writer, body, binary));
            }
        });
    }
}

fn write_said(writer: &mut Writer<'_>, body: &[u8], binary: bool) {
    writer.bytes(body);
    writer.map(|writer| {
        if binary {
            writer.bytes(b"binary");
            writer.bool(true);
        }
    });
}

/// The number of a [`Message`], in whichever packet it stands.
pub(super) fn number_of(value: Value<'_>, field: &'static str) -> Result<u64, PacketError> {
    let number = u64_of(value, field)?;
    if number == 0 { Err(PacketError::field(field, "an integer from 1")) } else { Ok(number) }
}
