//! What goes over a connection: messages, whole or in pieces, and control frames (RFC 6455 §5.4, §6.1).
//!
//! Each piece of a message is a frame: whoever makes pieces wants them to go out. Only messages that come whole are
//! compressed (`deflate` says why). Frames of a client are masked, each with a key of its own that the caller brings:
//! there is no chance in here.

use super::deflate::{Deflate, Pool};
use super::frame::{FrameHead, Mask, Opcode};
use super::utf8::Utf8;
use super::{Close, MessageKind};

/// The sending half of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Sender {
    deflate: Option<Deflate>,
    /// The message goes on with the next piece.
    begun: Option<MessageKind>,
    text: Utf8,
}

/// A text that is none: what was to be sent is not UTF-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a text message that is not UTF-8")]
pub struct NotText;

impl Sender {
    /// At the beginning of a connection, and what was agreed upon for it.
    pub const fn new(deflate: Option<Deflate>) -> Self {
        Sender { deflate, begun: None, text: Utf8::new() }
    }

    /// Writes a message, or its next piece, as a frame behind what is in `out`. Of pieces behind the first `kind` is not
    /// heeded.
    ///
    /// # Errors
    ///
    /// A text that is not UTF-8. Nothing was written, and the message cannot be ended.
    pub fn message(
        &mut self,
        pool: &mut Pool,
        (kind, piece, end): (MessageKind, &[u8], bool),
        mask: Option<Mask>,
        out: &mut Vec<u8>,
    ) -> Result<(), NotText> {
        let (opcode, kind) = match (self.begun, kind) {
            (Some(begun), _) => (Opcode::Continuation, begun),
            (None, MessageKind::Text) => (Opcode::Text, kind),
            (None, MessageKind::Binary) => (Opcode::Binary, kind),
        };
        let is_text = kind == MessageKind::Text;
        if is_text && !(self.text.push(piece) && (!end || self.text.is_complete())) {
            return Err(NotText);
        }
        let is_whole = end && self.begun.is_none();
        self.begun = (!end).then_some(kind);
        if is_whole && self.deflate.is_some_and(|deflate| deflate.compresses(piece.len())) {
            let mut compressed = Vec::new();
            pool.compress(piece, &mut compressed);
            if compressed.len() < piece.len() {
                write_frame((end, true, opcode), mask, &compressed, out);
                return Ok(());
            }
        }
        write_frame((end, false, opcode), mask, piece, out);
        Ok(())
    }

    /// Whether each message is sent compressed, if it is not short.
    pub fn compresses_all(&self) -> bool {
        self.deflate == Some(Deflate::UNLIMITED)
    }

    /// Whether a message has begun and is not whole.
    #[cfg(test)]
    pub(super) fn is_in_message(&self) -> bool {
        self.begun.is_some()
    }

    /// Writes a ping. Its payload is at most [`CONTROL_BYTES_MAX`](super::CONTROL_BYTES_MAX) bytes.
    pub fn ping(payload: &[u8], mask: Option<Mask>, out: &mut Vec<u8>) {
        write_frame((true, false, Opcode::Ping), mask, payload, out);
    }

    /// Writes a pong. Its payload is at most [`CONTROL_BYTES_MAX`](super::CONTROL_BYTES_MAX) bytes.
    pub fn pong(payload: &[u8], mask: Option<Mask>, out: &mut Vec<u8>) {
        write_frame((true, false, Opcode::Pong), mask, payload, out);
    }

    /// Writes a close, after which nothing may be written.
    pub fn close(close: Option<&Close<'_>>, mask: Option<Mask>, out: &mut Vec<u8>) {
        let mut payload = Vec::new();
        close.into_iter().for_each(|close| close.write(&mut payload));
        write_frame((true, false, Opcode::Close), mask, &payload, out);
    }
}

fn write_frame(
    (fin, rsv1, opcode): (bool, bool, Opcode),
    mask: Option<Mask>,
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    let head = FrameHead { fin, rsv1, opcode, mask, len: payload.len() as u64 };
    out.reserve(super::HEAD_BYTES_MAX + payload.len());
    out.extend_from_slice(head.encode().as_bytes());
    let before = out.len();
    out.extend_from_slice(payload);
    mask.into_iter().for_each(|mut mask| mask.apply(&mut out[before..]));
}
