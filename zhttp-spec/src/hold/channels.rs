//! Names of channels, alone and with cursors (`zhttp-spec/hold.md` §2).
//!
//! A name on the wire is `<org>:<channel>`. Its alphabet is checked here, for the edge writes names
//! into JSON and into server-sent events as they are.

use crate::cursor::Cursor;
use crate::error::PacketError;
use crate::field::{bool_of, bytes_of, list_of};
use crate::tnetstring::{List, Value, Writer};

use super::read::cursor_of;

/// The most channels that one connection may read, and that one change may add.
///
/// A hold with more is refused as a whole. It bounds what a connection costs the edge: an entry for
/// each channel.
pub const CHANNELS_PER_HOLD_MAX: usize = 128;

/// The longest name of a channel, in bytes: an org of 64, a colon, a channel of 128.
pub const CHANNEL_BYTES_MAX: usize = 193;

/// The name of a channel.
pub(super) fn name_of<'a>(value: Value<'a>, field: &'static str) -> Result<&'a str, PacketError> {
    let fits = |name: &&[u8]| {
        (1..=CHANNEL_BYTES_MAX).contains(&name.len()) && name.iter().all(|&byte| is_name_byte(byte))
    };
    Some(bytes_of(value, field)?)
        .filter(fits)
        .and_then(|name| std::str::from_utf8(name).ok())
        .ok_or(PacketError::field(field, "a channel, 1 to 193 of A-Z a-z 0-9 _ . : ~ -"))
}

const fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':' | b'~' | b'-')
}

/// A channel that a connection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldChannel<'a> {
    /// Its name.
    pub name: &'a str,
    /// The last event that the connection's reader has.
    pub cursor: Cursor,
    /// That event is the end of the channel: nothing more is expected of it, and it does not keep
    /// the connection open (H-28).
    pub ended: bool,
}

impl<'a> From<(&'a str, Cursor)> for HoldChannel<'a> {
    fn from((name, cursor): (&'a str, Cursor)) -> Self {
        HoldChannel { name, cursor, ended: false }
    }
}

/// Channels with a cursor each; iterate to read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Channels<'a>(List<'a>);

impl<'a> Channels<'a> {
    pub(super) fn check(value: Value<'a>, field: &'static str) -> Result<Self, PacketError> {
        let list = list_of(value, field)?;
        for (count, pair) in list.enumerate() {
            if count == CHANNELS_PER_HOLD_MAX {
                return Err(PacketError::field(field, "at most 128 channels"));
            }
            channel_of(pair?, field)?;
        }
        Ok(Channels(list))
    }
}

impl<'a> Iterator for Channels<'a> {
    type Item = HoldChannel<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        channel_of(self.0.next()?.ok()?, "channels").ok()
    }
}

fn channel_of<'a>(value: Value<'a>, field: &'static str) -> Result<HoldChannel<'a>, PacketError> {
    let mut parts = list_of(value, field)?;
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(cursor), ended, None) => {
            let ended = match ended.transpose()? {
                None | Some(Value::Null) => false,
                Some(ended) => bool_of(ended, field)?,
            };
            Ok(HoldChannel {
                name: name_of(name?, field)?,
                cursor: cursor_of(cursor?, field)?,
                ended,
            })
        }
        _ => Err(PacketError::field(field, "a list of [name, cursor, ended]")),
    }
}

pub(super) fn write_channels<'c>(
    writer: &mut Writer<'_>,
    channels: impl Iterator<Item = HoldChannel<'c>>,
) {
    for HoldChannel { name, cursor, ended } in channels {
        writer.list(|writer| {
            writer.bytes(name.as_bytes());
            writer.bytes(cursor.to_string().as_bytes());
            if ended {
                writer.bool(true);
            }
        });
    }
}

/// Names of channels; iterate to read them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Names<'a>(List<'a>);

impl<'a> Names<'a> {
    pub(super) fn check(value: Value<'a>, field: &'static str) -> Result<Self, PacketError> {
        let list = list_of(value, field)?;
        for name in list {
            name_of(name?, field)?;
        }
        Ok(Names(list))
    }
}

impl<'a> Iterator for Names<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        name_of(self.0.next()?.ok()?, "channels").ok()
    }
}

pub(super) fn write_names<'c>(writer: &mut Writer<'_>, names: impl Iterator<Item = &'c str>) {
    names.for_each(|name| writer.bytes(name.as_bytes()));
}
