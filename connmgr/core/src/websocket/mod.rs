//! A WebSocket, as small pure pieces (RFC 6455, and RFC 7692 for compressed messages).
//!
//! ```text
//! RequestHead ─▶ Upgrade ─▶ write_switch           a request becomes a WebSocket, or is refused
//!
//! bytes ─▶ Receiver ─▶ pieces of messages, pings, pongs, a close
//! messages ─▶ Sender ─▶ bytes
//! ```
//!
//! One file for each noun: `frame` has heads and masks, `utf8` judges text, `close` the codes, `deflate` compression;
//! [`Receiver`] and [`Sender`] are the two halves of a connection, [`Upgrade`] the way to it. Who is at which end is data
//! ([`Role`]). When to answer, when to give up and what a message is for is the business of whoever has the
//! connection (`worker/socket.rs`, `worker/held_socket.rs`).
//!
//! **Strict in what it accepts**, for the reason that `http1` gives. Each refusal has a close code ([`WebSocketError::code`])
//! and ends the connection: behind a broken frame nobody knows where the next one begins.
//!
//! **Nothing is kept for a connection that rests.** Between two messages each half is a word or two.

mod close;
mod deflate;
mod frame;
mod handshake;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;
mod utf8;

pub use close::{CLOSE_REASON_BYTES_MAX, Close, CloseCode};
pub use deflate::{COMPRESS_BYTES_MIN, Deflate, INFLATERS_MAX, Pool};
pub use frame::{
    CONTROL_BYTES_MAX, FrameError, FrameHead, HEAD_BYTES_MAX, HeadBytes, Mask, Opcode,
};
pub use handshake::{HandshakeError, Upgrade, write_switch};
pub use receiver::{Received, Receiver};
pub use sender::{NotText, Sender};

/// Which end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It was asked. What it gets is masked.
    Server,
    /// It has asked. What it sends is masked.
    Client,
}

/// What a message is (RFC 6455 §5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageKind {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

/// Why a connection cannot go on: what the peer has broken, or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketError {
    /// A head that is none.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// RFC 6455 §5.1: what a client sends is masked, what a server sends is not.
    #[error("a frame that is masked or not, against the rule")]
    Masking,
    /// RFC 7692 §6: only the first frame of a message says so, and only if it was agreed upon.
    #[error("RSV1 is set")]
    Rsv1,
    /// RFC 6455 §5.4.
    #[error("a message begins within another one")]
    Interleaved,
    /// RFC 6455 §5.4.
    #[error("a continuation of no message")]
    Continuation,
    /// RFC 6455 §8.1.
    #[error("text is not UTF-8")]
    Text,
    /// RFC 7692 §7.2.2.
    #[error("compressed data is malformed")]
    Compressed,
    /// Too many compressed messages have begun and are not whole: [`INFLATERS_MAX`].
    #[error("too many compressed messages at once")]
    Busy,
    /// RFC 6455 §5.5.1.
    #[error("a close frame of one byte")]
    CloseTooShort,
    /// RFC 6455 §7.4.
    #[error("close code {0} must not be sent")]
    CloseCode(u16),
    /// RFC 6455 §5.5.1.
    #[error("the reason of a close is not UTF-8")]
    CloseReason,
}

impl WebSocketError {
    /// What the peer is told (RFC 6455 §7.4.1).
    pub fn code(self) -> CloseCode {
        match self {
            WebSocketError::Text | WebSocketError::Compressed | WebSocketError::CloseReason => {
                CloseCode::INVALID_DATA
            }
            WebSocketError::Busy => CloseCode::TRY_AGAIN,
            WebSocketError::Frame(_)
            | WebSocketError::Masking
            | WebSocketError::Rsv1
            | WebSocketError::Interleaved
            | WebSocketError::Continuation
            | WebSocketError::CloseTooShort
            | WebSocketError::CloseCode(_) => CloseCode::PROTOCOL,
        }
    }
}
