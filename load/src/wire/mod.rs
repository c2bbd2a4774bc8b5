//! What goes over the wire, as pure machines that take whatever a read has brought.
//!
//! A million connections are read, so nothing here has a buffer of its own: [`body`], [`frames`] and [`sse`] keep a few bytes of
//! state between two reads, and hand out pieces of the reader's buffer. Only what may not be understood in pieces is put
//! together first, by whoever reads: heads, and marks that are cut in two.

pub(crate) mod body;
pub(crate) mod frames;
pub(crate) mod head;
pub(crate) mod mark;
pub(crate) mod request;
pub(crate) mod sse;

use self::body::Body;
use self::frames::Frames;

/// What follows the head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    /// A body of HTTP/1.1.
    Http(Body),
    /// The frames of a WebSocket.
    Socket(Frames),
}
