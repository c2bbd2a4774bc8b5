//! What happens when: actions in the order of virtual time, and of their making within a millisecond.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use forebay_core::hub::{FromHub, ToHub};
use zhttp::Cursor;

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Action {
    /// The next operation of publishers, clients and fate.
    Operate,
    /// A packet of a handler reaches the hub.
    HubPacket { feeder: usize, connection: u64, bytes: Bytes },
    /// A packet of the hub reaches a handler.
    FeederPacket { feeder: usize, connection: u64, bytes: Bytes },
    /// A message of the hub reaches a worker.
    WorkerMessage { worker: usize, message: FromHub },
    /// A message of a worker reaches the hub.
    HubMessage { worker: usize, message: ToHub },
    /// A worker has a turn.
    WorkerTurn { worker: usize },
    /// A handler greets.
    Beat { feeder: usize, incarnation: u64 },
    /// The store announces an event to a handler.
    Announce { feeder: usize, incarnation: u64, channel: usize, event: usize },
    /// A handler starts.
    Start { feeder: usize },
    /// A handler that has said bye exits.
    Exit { feeder: usize, incarnation: u64 },
    /// The edge hears that the connection of a handler is lost.
    PeerLost { feeder: usize, connection: u64 },
    /// A handler sends about a request.
    Answer { feeder: usize, incarnation: u64, id: Bytes, last: bool },
    /// A client connects; a handler finds out where it begins.
    Connect { client: usize },
    /// The edge takes the hold.
    Open { client: usize, attempt: u32, cursors: Vec<(usize, Cursor)> },
    /// A client reads what waits for it.
    Read { client: usize },
}

/// Whose packets keep their order among themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Line {
    /// From the hub to a worker.
    ToWorker(usize),
    /// From a worker to the hub.
    ToHub(usize),
    /// From the hub to a handler.
    ToFeeder(usize),
    /// From a handler to the hub.
    FromFeeder(usize),
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    actions: BTreeMap<(u64, u64), Action>,
    count: u64,
    /// When the last packet of a line arrives.
    lines: HashMap<Line, u64>,
}

impl Schedule {
    /// When the next action is due.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        self.actions.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes the next action that is due.
    pub(crate) fn pop(&mut self, now_ms: u64) -> Option<Action> {
        self.next_ms().filter(|due| *due <= now_ms)?;
        self.actions.pop_first().map(|(_, action)| action)
    }

    /// Something is to happen then.
    pub(crate) fn at(&mut self, due_ms: u64, action: Action) {
        self.count += 1;
        self.actions.insert((due_ms, self.count), action);
    }

    /// Something is to happen then, but not before what was put on the same line earlier.
    pub(crate) fn in_line(&mut self, line: Line, due_ms: u64, action: Action) {
        let last = self.lines.entry(line).or_default();
        *last = due_ms.max(*last);
        let due_ms = *last;
        self.at(due_ms, action);
    }

    /// A connection begins anew: nothing of it is on its way.
    pub(crate) fn clear_line(&mut self, line: Line) {
        self.lines.remove(&line);
    }

    /// Nothing of this line arrives before then.
    pub(crate) fn hold_line(&mut self, line: Line, until_ms: u64) {
        let last = self.lines.entry(line).or_default();
        *last = until_ms.max(*last);
    }
}
