//! ZHTTP as Forebay speaks it: tnetstrings, packets, cursors, and the hold extension.
//!
//! The prose specification and the test vectors stand beside this crate, in `zhttp-spec/`.

#![forbid(unsafe_code)]

mod cursor;

pub use cursor::{Cursor, CursorError};
