//! Opens connections at a bounded rate, verifies their answers, holds them, and hands what comes on to a [`Receiver`].
//!
//! [`Crew`] is the side of the main thread; each [`worker`] is a thread with an edge-triggered poll and its share of the
//! connections. Workers share nothing but a few counters that each writes alone: **each has a descriptor table of its own**
//! (`unshare(CLONE_FILES)`), so a process that may have 20,000 descriptors holds a million connections, and no thread waits for
//! another in the kernel's table. What a worker and the main thread both use, its poll and its waker, is made before the
//! tables part.
//!
//! An idle connection is an [`Entry`](connection::Entry) of 32 bytes. There is one buffer for each thread; only a connection
//! that is being opened has memory of its own.

pub(crate) mod connection;
mod crew;
mod pace;
mod worker;

pub(crate) use self::crew::{Counts, Crew};

use std::collections::BTreeMap;

use crate::histogram::Histogram;
use crate::sources::Sources;
use crate::wire::request::{Request, Template};

/// What is to be opened.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) sources: Sources,
    pub(crate) ask: Ask,
    /// New connections a second, of all threads together; 0 is as fast as the server takes them.
    pub(crate) rate_per_s: f64,
    pub(crate) threads: usize,
}

/// What a connection says when it is there, and so when it is open.
#[derive(Clone, Debug)]
pub(crate) enum Ask {
    /// Nothing; it is open when it is connected.
    Nothing,
    /// A request; it is open, and idle, when the answer has come, all of it.
    Answer(Request),
    /// A request; it is open when the head of the answer has come.
    Stream(Request),
    /// A handshake; it is open when that is done, or, if it then says something, when a message with these bytes has come.
    Socket { request: Request, say: Option<Say> },
}

/// A message that a WebSocket begins with, and what is in the one that answers it.
#[derive(Clone, Debug)]
pub(crate) struct Say {
    pub(crate) message: Template,
    pub(crate) expected: Vec<u8>,
}

/// Takes what open connections bring. Each worker has one, on its own thread; `slot` is the connection's place there.
pub(crate) trait Receiver: Send + 'static {
    /// The connection with this number, counted over all threads, is open.
    fn handle_open(&mut self, slot: usize, number: u64);

    /// Content has come: of a body without its framing, or of a WebSocket message. Returns how many events ended in it.
    fn handle_content(&mut self, slot: usize, content: &[u8], now_ns: u64) -> u64;

    /// A message of a WebSocket has ended. Returns how many events that is.
    fn handle_message_end(&mut self, slot: usize) -> u64;

    /// The server has closed it.
    fn handle_close(&mut self, slot: usize);

    /// Makes what it knows known to others.
    fn flush(&mut self) {}
}

/// What the workers know beyond their counters, taken from them and put together.
#[derive(Debug, Default)]
pub(crate) struct Collected {
    /// From the begin of `connect` until a connection was open.
    pub(crate) open_time: Histogram,
    /// Why connections did not open, and how many.
    pub(crate) failures: BTreeMap<String, u64>,
    /// Why open ones were lost.
    pub(crate) drops: BTreeMap<String, u64>,
}

impl Collected {
    fn merge(&mut self, other: Collected) {
        self.open_time.merge(&other.open_time);
        for (own, more) in [(&mut self.failures, other.failures), (&mut self.drops, other.drops)] {
            for (reason, count) in more {
                *own.entry(reason).or_default() += count;
            }
        }
    }
}
