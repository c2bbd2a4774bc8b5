//! ZHTTP as Forebay speaks it: tnetstrings, packets, cursors, and the hold extension.
//!
//! The prose specification (`zhttp.md`, `hold.md`) and the test vectors (`vectors/`) stand beside
//! this crate, in `zhttp-spec/`. Here is the codec and nothing else: no socket, no session, no
//! clock. From the bottom up:
//!
//! * [`tnetstring`]: the encoding of every packet;
//! * [`Packet`] and [`Payload`], [`Envelope`] and [`Fields`]: plain ZHTTP, read and written;
//! * [`hold`]: the packets of the hold extension;
//! * [`Cursor`] and [`composite`]: where a reader stands in one channel, and in several.
//!
//! Readers borrow and allocate nothing; no input makes them panic, and what they accept can be
//! written again.

#![forbid(unsafe_code)]

mod base64url;
pub mod composite;
mod cursor;
mod error;
mod field;
#[doc(hidden)]
pub mod fuzzing;
pub mod hold;
mod packet;
mod payload;
pub mod tnetstring;
mod write;

pub use cursor::{Cursor, CursorError};
pub use error::PacketError;
pub use packet::{Ext, FROM_BYTES_MAX, IDS_MAX, Id, Ids, Kind, Packet, Salvage};
pub use payload::{Headers, Payload};
pub use write::{Envelope, Fields};
