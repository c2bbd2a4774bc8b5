//! The judge: compares what each client saw with what the store acknowledged.
//!
//! Written apart from the code under test, and sharing nothing with it: its own cursors ([`Id`], [`Cursors`]), its own
//! readers of server-sent events ([`sse`]) and of WebSocket frames ([`frames`]), its own idea of what follows what. Plain
//! data comes in: what became of each log ([`History`]), the bytes that a client got ([`Reader`], [`SocketReader`]); a
//! verdict comes out. So the same judge can be held
//! against a simulation, or against real processes.
//!
//! What is promised, and judged:
//!
//! * Nothing twice, in order, without a hole: an event that a client gets follows the place where it stands, or a gap
//!   was told between the two. Over reconnects too: a client goes on from the id that it got last.
//! * Nothing changed: the data is the store's, and so is the type of the event.
//! * A gap is true: it begins where the reader stands, ends before an event that does not follow, and nothing that it
//!   spans is kept. A gap that leads back is told only to who stood beyond the end of the log (a fail-over had lost the
//!   place), and leads to where the log ended.
//! * An id says where the reader stands in each of its channels, exactly. On a WebSocket each event says it for its own.
//! * A response that ends in order ends behind a whole event, and only if its end was due.
//! * In the end everybody has everything that is kept ([`Reader::lack`]), and nobody stands beyond the end of a log.

#![forbid(unsafe_code)]

mod afterwards;
pub mod frames;
mod history;
mod id;
mod reader;
mod socket;
pub mod sse;
mod standing;
#[cfg(test)]
mod tests;

pub use afterwards::Known;
pub use history::{History, Log, Record};
pub use id::{Cursors, Id};
pub use reader::{Begin, GapKind, Reader, Seen, Taken, Tally};
pub use socket::{Got, SocketReader};
