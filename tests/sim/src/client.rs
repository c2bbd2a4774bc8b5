//! A client and its connection, from the kernel's buffer in the edge to the reader.

use std::collections::BTreeSet;

use forebay_core::hold::HoldKey;

use crate::reader::Reader;

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Not connected.
    Away,
    /// Its request is with a handler.
    Connecting,
    /// Held by a worker.
    Held { worker: usize, hold: HoldKey },
    /// Everything was written; bytes may wait to be read.
    Ending,
    /// It was told 204: all that it reads has ended.
    Resting,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    /// The channels that it wants, by index.
    pub(crate) wants: BTreeSet<usize>,
    /// It began from now on, not from the oldest event.
    pub(crate) from_now: bool,
    /// What it has got.
    pub(crate) reader: Reader,
    /// Where it is.
    pub(crate) state: State,
    /// Counts its connections.
    pub(crate) attempt: u32,
    /// Bytes that the edge keeps for it.
    pub(crate) unsent: Vec<u8>,
    /// The edge was told that it takes nothing more.
    pub(crate) blocked: bool,
    /// It does not read.
    pub(crate) paused: bool,
}

impl Client {
    /// A client that wants these channels.
    pub(crate) fn new(wants: BTreeSet<usize>, from_now: bool) -> Self {
        Client {
            wants,
            from_now,
            reader: Reader::default(),
            state: State::Away,
            attempt: 0,
            unsent: Vec::new(),
            blocked: false,
            paused: false,
        }
    }
}
