//! Taking the hold: `ext.hold` (`zhttp-spec/hold.md` §3).
//!
//! An edge offers the extension with a version in each request, `ext: {hold: 1}`. A handler takes
//! the offer with a map in the same place of its response, and from then on owes the connection
//! nothing.

use crate::Cursor;
use crate::error::PacketError;
use crate::field::{bool_of, bytes_of, map_of, str_of, u16_of, u64_of};
use crate::packet::Packet;
use crate::tnetstring::Value;
use crate::write::Fields;

use super::channels::{Channels, HoldChannel, write_channels};

/// The version of the extension that an edge offers in `ext.hold` of a request.
pub const HOLD_VERSION: u64 = 1;

/// The longest `context`, in bytes. It is kept for as long as the connection is held.
pub const CONTEXT_BYTES_MAX: usize = 1024;

/// The longest path of `messages`, in bytes.
pub const MESSAGES_PATH_BYTES_MAX: usize = 64;

/// How events are rendered for a held connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Server-sent events.
    Sse,
    /// WebSocket text messages.
    Ws,
}

impl Format {
    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Format::Sse => "sse",
            Format::Ws => "ws",
        }
    }
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
    /// With which code a WebSocket is closed then; 0 is the usual one.
    pub expires_code: u16,
    /// Opaque to the edge.
    pub context: &'a [u8],
    /// A handler wants to be told when the connection closes.
    pub notify: bool,
    /// The connection stays when its channels have ended.
    pub persistent: bool,
    /// The path of those handlers to whom goes what the client says; empty if it may say nothing.
    pub messages: &'a str,
}

impl<'a> HoldParams<'a> {
    /// A hold of a connection that reads nothing yet, and wants nothing else.
    pub fn new(format: Format) -> Self {
        HoldParams {
            format,
            channels: Channels::default(),
            keep_alive_ms: 0,
            expires_s: 0,
            expires_code: 0,
            context: b"",
            notify: false,
            persistent: false,
            messages: "",
        }
    }

    /// Reads `ext.hold` of a response; `None` if it has none.
    ///
    /// # Errors
    ///
    /// Says which field is wrong.
    pub fn read(packet: &Packet<'a>) -> Result<Option<Self>, PacketError> {
        let Some(value) = packet.ext.hold else { return Ok(None) };
        let (mut format, mut channels) = (None, None);
        let (mut keep_alive_ms, mut expires_s, mut expires_code) = (0, 0, 0);
        let (mut notify, mut persistent) = (false, false);
        let mut context: &[u8] = b"";
        let mut messages = "";
        for entry in map_of(value, "ext.hold")? {
            match entry? {
                (_, Value::Null) => {}
                (b"format", value) => format = Some(format_of(value)?),
                (b"channels", value) => {
                    channels = Some(Channels::check(value, "ext.hold.channels")?);
                }
                (b"keep-alive", value) => keep_alive_ms = u64_of(value, "ext.hold.keep-alive")?,
                (b"expires", value) => expires_s = u64_of(value, "ext.hold.expires")?,
                (b"expires-code", value) => {
                    expires_code = close_code_of(value, "ext.hold.expires-code")?;
                }
                (b"context", value) => context = context_of(value, "ext.hold.context")?,
                (b"notify", value) => notify = bool_of(value, "ext.hold.notify")?,
                (b"persistent", value) => persistent = bool_of(value, "ext.hold.persistent")?,
                (b"messages", value) => messages = path_of(value, "ext.hold.messages")?,
                _ => {}
            }
        }
        let format = format.ok_or(PacketError::Missing("ext.hold.format"))?;
        let channels = channels.ok_or(PacketError::Missing("ext.hold.channels"))?;
        if format == Format::Sse && !messages.is_empty() {
            return Err(PacketError::field("ext.hold.messages", "nothing in format sse"));
        }
        Ok(Some(HoldParams {
            format,
            channels,
            keep_alive_ms,
            expires_s,
            expires_code,
            context,
            notify,
            persistent,
            messages,
        }))
    }

    /// Writes the fields of `ext.hold` but its channels, which come from `channels`. None of them
    /// has ended for the reader; [`HoldParams::write_channels`] can say that too.
    pub fn write(&self, ext: &mut Fields<'_, '_>, channels: &[(&str, Cursor)]) {
        self.write_channels(ext, channels.iter().map(|&channel| channel.into()));
    }

    /// Writes the fields of `ext.hold` but its channels, which come from `channels`.
    pub fn write_channels<'c>(
        &self,
        ext: &mut Fields<'_, '_>,
        channels: impl Iterator<Item = HoldChannel<'c>>,
    ) {
        ext.map("hold", |fields| {
            fields.bytes("format", self.format.name().as_bytes());
            fields.list("channels", |writer| write_channels(writer, channels));
            fields.int("keep-alive", self.keep_alive_ms);
            fields.int("expires", self.expires_s);
            fields.int("expires-code", self.expires_code.into());
            fields.bytes("context", self.context);
            fields.flag("notify", self.notify);
            fields.flag("persistent", self.persistent);
            fields.bytes("messages", self.messages.as_bytes());
        });
    }
}

fn format_of(value: Value<'_>) -> Result<Format, PacketError> {
    match bytes_of(value, "ext.hold.format")? {
        b"sse" => Ok(Format::Sse),
        b"ws" => Ok(Format::Ws),
        _ => Err(PacketError::field("ext.hold.format", "sse or ws")),
    }
}

/// Whether a close with this code may be sent (RFC 6455 §7.4.2, and the registry of §11.7).
pub const fn is_close_code(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// The code of a close that may be sent, or 0, in whichever packet it stands.
pub(super) fn close_code_of(value: Value<'_>, field: &'static str) -> Result<u16, PacketError> {
    match u16_of(value, field)? {
        code if code == 0 || is_close_code(code) => Ok(code),
        _ => Err(PacketError::field(field, "0, or a close code that may be sent")),
    }
}

/// The path of those who hear what clients say, in whichever packet it stands; empty for nobody.
pub(super) fn path_of<'a>(value: Value<'a>, field: &'static str) -> Result<&'a str, PacketError> {
    let path = str_of(value, field)?;
    if path.len() > MESSAGES_PATH_BYTES_MAX || !(path.is_empty() || path.starts_with('/')) {
        return Err(PacketError::field(field, "a path of at most 64 bytes"));
    }
    Ok(path)
}

/// A context, in whichever packet it stands.
pub(super) fn context_of<'a>(
    value: Value<'a>,
    field: &'static str,
) -> Result<&'a [u8], PacketError> {
    let context = bytes_of(value, field)?;
    if context.len() > CONTEXT_BYTES_MAX {
        return Err(PacketError::field(field, "at most 1024 bytes"));
    }
    Ok(context)
}
