//! How the fields of the extension's packets are found and checked.
//!
//! A field may stand anywhere in the map. A null counts as absent, and of a field that stands there
//! twice the last value counts: so do plain ZHTTP's fields, and so do the maps of the languages
//! that handlers are written in. No two readers may come to see different packets in the same
//! bytes.

use crate::cursor::Cursor;
use crate::error::PacketError;
use crate::field::bytes_of;
use crate::packet::Packet;
use crate::tnetstring::Value;

/// The value of a field that may be absent.
pub(super) fn optional<'a>(
    packet: &Packet<'a>,
    key: &str,
) -> Result<Option<Value<'a>>, PacketError> {
    let mut value = Value::Null;
    for entry in packet.fields {
        let (found, candidate) = entry?;
        if found == key.as_bytes() && candidate != Value::Null {
            value = candidate;
        }
    }
    Ok((value != Value::Null).then_some(value))
}

/// The value of a field that must be there.
pub(super) fn required<'a>(
    packet: &Packet<'a>,
    key: &'static str,
) -> Result<Value<'a>, PacketError> {
    optional(packet, key)?.ok_or(PacketError::Missing(key))
}

/// A cursor in its text form.
pub(super) fn cursor_of(value: Value<'_>, field: &'static str) -> Result<Cursor, PacketError> {
    Cursor::from_bytes(bytes_of(value, field)?)
        .map_err(|_| PacketError::field(field, "a cursor, <epoch>-<offset>"))
}

/// Text that may stand on one line of a server-sent event and in a WebSocket text message as it is:
/// UTF-8 without CR and LF.
pub(super) fn line_of<'a>(value: Value<'a>, field: &'static str) -> Result<&'a str, PacketError> {
    std::str::from_utf8(bytes_of(value, field)?)
        .ok()
        .filter(|line| memchr::memchr2(b'\r', b'\n', line.as_bytes()).is_none())
        .ok_or(PacketError::field(field, "UTF-8 without line breaks"))
}
