//! Which channels a handler feeds to an edge, and where they end (`zhttp-spec/hold.md` §6).
//!
//! An edge asks with `feed` and ends it with `unfeed`. The feeder says with `heads` where channels
//! end: at once when there is nothing new to send, and every second for what has moved, so that an
//! event that was lost on its way is missed within that second.

use crate::cursor::Cursor;
use crate::error::PacketError;
use crate::field::{list_of, u64_of};
use crate::packet::Packet;
use crate::tnetstring::{List, Value};
use crate::write::Fields;

use super::channels::{Names, name_of, write_names};
use super::read::{cursor_of, required};

/// `feed`: channels to follow, each with the edge's own head of it, or none; iterate to read them.
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
            feed_of(pair?)?;
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
        feed_of(self.0.next()?.ok()?).ok()
    }
}

fn feed_of(value: Value<'_>) -> Result<(&str, Option<Cursor>), PacketError> {
    let mut pair = list_of(value, "channels")?;
    match (pair.next(), pair.next(), pair.next()) {
        (Some(name), Some(head), None) => {
            let name = name_of(name?, "channels")?;
            let head = match head? {
                Value::Null | Value::Bytes(b"") => None,
                head => Some(cursor_of(head, "channels")?),
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
        fields.list("channels", |writer| write_names(writer, channels));
    }
}

/// `heads`: the last event of each channel; iterate to read them. `0-0` is a channel without a log.
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
            head_of(triple?)?;
        }
        Ok(Heads(list))
    }

    /// Writes the fields. Epochs and offsets are below 2⁶³ (H-5).
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
        head_of(self.0.next()?.ok()?).ok()
    }
}

fn head_of(value: Value<'_>) -> Result<(&str, Cursor), PacketError> {
    let mut triple = list_of(value, "heads")?;
    match (triple.next(), triple.next(), triple.next(), triple.next()) {
        (Some(name), Some(epoch), Some(offset), None) => {
            let name = name_of(name?, "heads")?;
            let head = Cursor::new(u64_of(epoch?, "heads")?, u64_of(offset?, "heads")?);
            if head.epoch == 0 && head.offset != 0 {
                return Err(PacketError::field("heads", "epochs from 1, or 0 and offset 0"));
            }
            Ok((name, head))
        }
        _ => Err(PacketError::field("heads", "a list of [channel, epoch, offset]")),
    }
}
