//! The machines of Forebay's edge: what to do with bytes, packets and time, without any I/O.
//!
//! Nothing here has a socket, a clock, a thread, a lock or randomness. Bytes, packets and `now` come
//! in; bytes, packets and a deadline go out. The shell is `forebay-connmgr`, and a simulation is
//! another.

#![forbid(unsafe_code)]

mod backlog;
#[doc(hidden)]
pub mod fuzzing;
pub mod hold;
pub mod http1;
pub mod hub;
mod paged;
pub mod ring;
mod seeded;
pub mod session;
mod short_text;
mod slab;
pub mod websocket;
pub mod wheel;
pub mod worker;

pub use paged::Paged;
pub use short_text::ShortText;
pub use slab::{Key, Slab};
