//! Events: what a publisher sends, checked, and rendered once into what every reader gets.
//!
//! `docs/channels.md` ("Publish", "Subscribe") is the specification. A body comes as protobuf, as one
//! JSON object, or as a batch of JSON objects; [`decode`] turns each message into a
//! [`PublishItem`], whose `data` is the one line of JSON that goes into the store and from there,
//! byte for byte, to every reader. Nothing downstream looks into it again: fan-out copies bytes.
//!
//! The protobuf type is the meeting point. JSON is read straight into a `PublishRequest`
//! (`json.rs`, `payload.rs`), so there is one set of checks (here) and one renderer (`render.rs`),
//! and a message means and renders the same in both forms. The price is that a number in a payload
//! is a double in both: `google.protobuf.Struct` has no other kind, and neither has a browser.
//!
//! Going through `serde_json::Value` instead was rejected: its map changes its order and its
//! numbers change their type when any crate in the build turns on a feature.
//!
//! This module is pure: no clock, no randomness (the caller supplies new ids), no I/O. Who may
//! publish is for `auth`, how fast for the store.

mod channel;
mod format;
mod json;
mod payload;
mod render;

use bytes::Bytes;
use forebay_proto::{Phase, PublishRequest};
use prost::Message;
use uuid::Uuid;

pub use channel::canonical_channel;
pub use format::Format;
pub use render::{ControlField, control_event};

/// The largest message that a handler can be configured to take, and the default, in bytes as sent:
/// a protobuf body, a JSON object, or one item of a batch. Past the configured limit the message is
/// refused with [`EventError::MessageSize`].
///
/// What is rendered from it may be larger, at most 6 times: a control character in a protobuf
/// string is one byte, and `\u0001` in JSON.
pub const MESSAGE_BYTES_MAX: usize = 16_384;

/// The largest body of a batch, in bytes; past it the whole batch is refused with
/// [`EventError::BatchSize`]. It is what a request may make a handler hold in memory, a few times
/// over.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// The most messages in a batch; past it the whole batch is refused with
/// [`EventError::BatchItems`].
pub const BATCH_ITEMS_MAX: usize = 1000;

/// How deep objects and arrays of a payload may nest, the payload itself counted; deeper ones are
/// refused, so that decoding, rendering and dropping a payload need a bounded stack.
///
/// Protobuf bodies meet the decoder's own bound first: prost stops at 100 nested messages, and an
/// object in an object is three, an array in an array two.
pub const PAYLOAD_DEPTH_MAX: usize = 64;

/// A message that was checked, in the form in which it is stored and delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishItem {
    /// The same in every attempt to send this message; the store deduplicates by it.
    pub message_id: Uuid,
    /// Where the message stands in the life of its channel. A number that we do not know counts as
    /// [`Phase::Unspecified`].
    pub phase: Phase,
    /// Whether the message ends its channel: `phase` is [`Phase::End`].
    pub end: bool,
    /// The event as every reader gets it: one line of JSON, without a newline.
    pub data: Bytes,
}

/// What a publish body held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    /// One message; the request is answered for it.
    One(PublishItem),
    /// A batch in the order of the body; each item is answered by itself. Positions in the errors
    /// count from the start of the item.
    Batch(Vec<Result<PublishItem, EventError>>),
}

/// Why a body, or one message of it, was refused. The text is the body of the answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    /// The content type is none of those of [`Format`]. Holds it, cut to what is safe to show.
    #[error("Unsupported content type {0}")]
    ContentType(String),
    /// A message is over the limit.
    #[error("Message size {size} exceeds maximum of {max} bytes")]
    MessageSize {
        /// Its size, in bytes.
        size: u64,
        /// The limit, in bytes.
        max: usize,
    },
    /// A batch of this many bytes is over [`BATCH_BYTES_MAX`].
    #[error("Batch size {0} exceeds maximum of {BATCH_BYTES_MAX} bytes")]
    BatchSize(u64),
    /// A batch has more than [`BATCH_ITEMS_MAX`] messages.
    #[error("Batch exceeds maximum of {BATCH_ITEMS_MAX} messages")]
    BatchItems,
    /// The body is no `PublishRequest`.
    #[error("Invalid protobuf")]
    Protobuf,
    /// The body is not JSON, or a field has the wrong type. Holds what, and where.
    #[error("Invalid JSON: {0}")]
    Json(String),
    /// The message names another channel than the path.
    #[error("channel_id differs from the path")]
    Channel,
    /// The message's id is there, and is no UUID.
    #[error("message_id is not a UUID")]
    MessageId,
}

impl EventError {
    /// The HTTP status that answers it (RFC 9110 §15.5): 413, 415, or 400.
    pub fn status(&self) -> u16 {
        match self {
            EventError::ContentType(_) => 415,
            EventError::MessageSize { .. } | EventError::BatchSize(_) | EventError::BatchItems => {
                413
            }
            EventError::Protobuf
            | EventError::Json(_)
            | EventError::Channel
            | EventError::MessageId => 400,
        }
    }

    /// The short stable reason under which outcomes are counted.
    pub fn reason(&self) -> &'static str {
        match self {
            EventError::ContentType(_) => "content_type",
            EventError::MessageSize { .. } => "message_size",
            EventError::BatchSize(_) => "batch_size",
            EventError::BatchItems => "batch_items",
            EventError::Protobuf => "protobuf",
            EventError::Json(_) => "json",
            EventError::Channel => "channel_id",
            EventError::MessageId => "message_id",
        }
    }
}

/// Decodes a publish body for `channel` (the one in the path), checks it, and renders its events.
///
/// A message may have `message_bytes_max` bytes. `new_id` makes the id of a message that has none; it should return random (version 4) UUIDs.
///
/// A JSON body whose first character is `[`, and any NDJSON body, is a batch. In a batch an item's
/// error is its own; an error of the whole batch (its size, or an array that does not parse) is
/// `Err`.
pub fn decode(
    format: Format,
    channel: &str,
    body: &[u8],
    message_bytes_max: usize,
    mut new_id: impl FnMut() -> Uuid,
) -> Result<Decoded, EventError> {
    let channel = &*canonical_channel(channel);
    let sized = |message| within_message_size(message, message_bytes_max);
    let mut json_item = |text| json_item(channel, sized(text)?, &mut new_id);
    match format {
        Format::Protobuf => protobuf_item(channel, sized(body)?, &mut new_id).map(Decoded::One),
        Format::Json if json::is_array(body) => {
            let items = json::array_items(within_batch_size(body)?)?;
            Ok(Decoded::Batch(items.into_iter().map(json_item).collect()))
        }
        Format::Json => json_item(body).map(Decoded::One),
        Format::Ndjson => {
            let items = json::line_items(within_batch_size(body)?)?;
            Ok(Decoded::Batch(items.into_iter().map(json_item).collect()))
        }
    }
}

/// Decodes one message that stands in a JSON object, perhaps beside members that mean something else;
/// otherwise like [`decode`].
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn decode_json(
    channel: &str,
    text: &[u8],
    message_bytes_max: usize,
    mut new_id: impl FnMut() -> Uuid,
) -> Result<PublishItem, EventError> {
    let text = within_message_size(text, message_bytes_max)?;
    json_item(&canonical_channel(channel), text, &mut new_id)
}

/// The protobuf form of one message. `channel_id` is required: without this, an empty body, which
/// is a valid proto3 message, would be published as an event.
fn protobuf_item(
    channel: &str,
    body: &[u8],
    new_id: &mut impl FnMut() -> Uuid,
) -> Result<PublishItem, EventError> {
    let request = PublishRequest::decode(body).map_err(|_| EventError::Protobuf)?;
    if canonical_channel(&request.channel_id) != channel {
        return Err(EventError::Channel);
    }
    item(channel, &request, new_id)
}

/// The JSON form of one message. `channel_id` may be left out: the path has it.
fn json_item(
    channel: &str,
    text: &[u8],
    new_id: &mut impl FnMut() -> Uuid,
) -> Result<PublishItem, EventError> {
    let request = json::request(text)?;
    if !request.channel_id.is_empty() && canonical_channel(&request.channel_id) != channel {
        return Err(EventError::Channel);
    }
    item(channel, &request, new_id)
}

/// What both forms share. `channel` is canonical.
fn item(
    channel: &str,
    request: &PublishRequest,
    new_id: &mut impl FnMut() -> Uuid,
) -> Result<PublishItem, EventError> {
    let message_id = if request.message_id.is_empty() {
        new_id()
    } else {
        Uuid::try_parse(&request.message_id).map_err(|_| EventError::MessageId)?
    };
    let phase = request.phase();
    let data = render::stream_event(channel, message_id, request);
    Ok(PublishItem { message_id, phase, end: phase == Phase::End, data })
}

fn within_message_size(message: &[u8], max: usize) -> Result<&[u8], EventError> {
    if message.len() > max {
        return Err(EventError::MessageSize { size: message.len() as u64, max });
    }
    Ok(message)
}

fn within_batch_size(body: &[u8]) -> Result<&[u8], EventError> {
    if body.len() > BATCH_BYTES_MAX {
        return Err(EventError::BatchSize(body.len() as u64));
    }
    Ok(body)
}

#[cfg(test)]
mod tests;
