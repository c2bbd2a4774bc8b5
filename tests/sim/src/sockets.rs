//! A model of sockets: what the edge writes to, and what clients read from.
//!
//! A socket keeps a bounded number of bytes for its client. What does not fit is not taken, and the edge hears later,
//! once, that there is room (as with an edge-triggered poll). A client may close its side, reset, or vanish without
//! a word.

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::net::SocketAddr;

use forebay_core::Key;
use forebay_core::worker::Transport;

/// Names a connection, over all lives of the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Conn {
    pub(crate) life: u64,
    pub(crate) worker: usize,
    pub(crate) key: Key,
}

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Somebody who reads channels.
    Client(usize),
    /// Somebody who does so on a WebSocket.
    Speaker(usize),
    /// Somebody who makes other requests.
    Visitor(usize),
    /// Nobody any more, and the edge does not know.
    Vanished,
}

/// One socket.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) owner: Owner,
    /// It was opened to read channels.
    pub(crate) is_reader: bool,
    /// Bytes of the longest answer to what its client has said.
    pub(crate) answer_bytes: usize,
    /// What the client has sent and the edge has not read.
    pub(crate) unread: VecDeque<u8>,
    /// The client has closed its side.
    pub(crate) fin: bool,
    /// The edge knows that.
    pub(crate) fin_read: bool,
    /// What the edge has written and the client has not read.
    pub(crate) kernel: VecDeque<u8>,
    pub(crate) capacity: usize,
    /// Since when a write was cut short.
    pub(crate) full_since_ms: Option<u64>,
    /// Writes fail.
    pub(crate) is_reset: bool,
    /// The edge sends no more.
    pub(crate) is_shut: bool,
    /// The edge has dropped it.
    pub(crate) is_closed: bool,
    /// It was full for so long that the edge may have given the client up.
    pub(crate) is_given_up: bool,
    /// The client is going to read.
    pub(crate) is_read_planned: bool,
    /// The edge is going to read.
    pub(crate) is_edge_read_planned: bool,
    /// More than its backlog waits in the edge.
    pub(crate) is_blocked: bool,
}

impl Socket {
    pub(crate) fn new(owner: Owner, capacity: usize) -> Self {
        Socket {
            owner,
            is_reader: matches!(owner, Owner::Client(_) | Owner::Speaker(_)),
            answer_bytes: 0,
            unread: VecDeque::new(),
            fin: false,
            fin_read: false,
            kernel: VecDeque::new(),
            capacity,
            full_since_ms: None,
            is_reset: false,
            is_shut: false,
            is_closed: false,
            is_given_up: false,
            is_read_planned: false,
            is_edge_read_planned: false,
            is_blocked: false,
        }
    }

    /// Whether there is room for a good part of what it keeps at most.
    pub(crate) fn has_room(&self) -> bool {
        self.kernel.len() <= self.capacity / 2
    }
}

/// The sockets of one worker.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) table: BTreeMap<Key, Socket>,
    /// Those with something new for their clients.
    pub(crate) news: Vec<Key>,
    /// So many bytes of a write were not taken: whose, and how many.
    pub(crate) refused: Vec<(Key, usize)>,
    /// What the edge did that it must not.
    pub(crate) wrong: Option<String>,
    pub(crate) now_ms: u64,
}

impl Transport for Sockets {
    fn write(&mut self, key: Key, slices: &[IoSlice<'_>]) -> Option<usize> {
        let Some(socket) = self.table.get_mut(&key) else {
            self.wrong = Some(format!("a write to {key:?}, which is nobody's"));
            return None;
        };
        if socket.is_shut || socket.is_closed {
            self.wrong = Some(format!("a write to {key:?} behind its end"));
            return None;
        }
        if socket.is_reset {
            return None;
        }
        let mut taken = 0;
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        for slice in slices {
            let room = socket.capacity.saturating_sub(socket.kernel.len()).min(slice.len());
            socket.kernel.extend(&slice[..room]);
            taken += room;
        }
        if taken > 0 {
            self.news.push(key);
        }
        if taken < total {
            socket.full_since_ms.get_or_insert(self.now_ms);
            self.refused.push((key, total - taken));
        }
        Some(taken)
    }

    fn peer(&self, key: Key) -> Option<SocketAddr> {
        key.index.is_multiple_of(2).then_some(SocketAddr::from(([127, 0, 0, 1], 4000)))
    }
}
