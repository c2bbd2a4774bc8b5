//! ZHTTP as Forebay speaks it: tnetstrings, packets, cursors, and the hold extension.
//!
//! The prose specification and the test vectors stand beside this crate, in `zhttp-spec/`.

#![forbid(unsafe_code)]

mod cursor;
mod error;
pub mod hold;
mod packet;
pub mod tnetstring;
mod write;

pub use cursor::{Cursor, CursorError};
pub use error::PacketError;
pub use packet::{Ext, FROM_BYTES_MAX, Headers, IDS_MAX, Id, Ids, Kind, Packet, Payload};
pub use write::{Envelope, Fields};
