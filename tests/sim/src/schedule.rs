//! What happens when: actions in the order of virtual time, and of their making within a millisecond.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use bytes::Bytes;
use forebay_core::hub::{FromHub, ToHub};
use zhttp::Cursor;

use crate::hearing::Heard;
use crate::sockets::Conn;
use crate::store::Event;

/// Something that happens.
#[derive(Debug)]
pub(crate) enum Action {
    /// The next operation of publishers, clients and fate.
    Operate,
    /// A packet of a handler reaches the hub.
    HubPacket { handler: usize, connection: u64, bytes: Bytes },
    /// A packet of the hub reaches a handler.
    HandlerPacket { handler: usize, connection: u64, bytes: Bytes },
    /// What waits for a handler is tried again.
    RetryStalled { handler: usize },
    /// A message of the hub reaches a worker.
    WorkerMessage { life: u64, worker: usize, message: FromHub },
    /// A message of a worker reaches the hub.
    HubMessage { life: u64, worker: usize, message: ToHub },
    /// The hub looks whether workers that missed events have caught up.
    MakeGood { life: u64 },
    /// A worker has a turn.
    WorkerTurn { life: u64, worker: usize },
    /// A worker reads a socket.
    EdgeRead { conn: Conn },
    /// A socket takes bytes again.
    Writable { conn: Conn },
    /// A client reads what waits for it.
    ClientRead { conn: Conn },
    /// A client sends.
    ClientSend { conn: Conn, bytes: Vec<u8> },
    /// A client closes its side.
    ClientClose { conn: Conn },
    /// A visitor sends the body that it has held back.
    SendBody { visitor: usize, token: u64 },
    /// A handler greets.
    Beat { handler: usize, incarnation: u64 },
    /// The store announces an event to a handler.
    Announce { handler: usize, incarnation: u64, channel: usize, event: Rc<Event> },
    /// A handler starts.
    Start { handler: usize },
    /// A handler that has said bye exits.
    Exit { handler: usize, incarnation: u64 },
    /// The edge hears that the connection of a handler is lost.
    PeerLost { handler: usize, connection: u64 },
    /// A handler goes on with a request.
    Advance { handler: usize, incarnation: u64, id: Bytes },
    /// A handler answers what a client of a WebSocket has said.
    Answer { handler: usize, incarnation: u64, life: u64, heard: Rc<Heard> },
    /// A REP socket answers.
    Reply { life: u64, bytes: Bytes },
    /// A client connects.
    Connect { client: usize },
    /// A client connects that wants a WebSocket.
    Attach { speaker: usize },
    /// The cleaner ends a log, if this is its last event.
    CleanEnd { channel: usize, fence: Cursor },
    /// The cleaner deletes a log, if this is its last event.
    CleanDelete { channel: usize, fence: Cursor },
    /// The edge starts.
    EdgeStart,
    /// The time of a draining edge is up.
    EdgeStop { life: u64 },
}

/// Whose packets keep their order among themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Line {
    /// From the hub to a worker.
    ToWorker(usize),
    /// From a worker to the hub.
    ToHub(usize),
    /// From the hub to a handler.
    ToHandler(usize),
    /// From a handler to the hub.
    FromHandler(usize),
}

/// The queue.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    actions: BTreeMap<(u64, Order), Action>,
    count: u64,
    /// When the last packet of a line arrives.
    lines: HashMap<Line, u64>,
    /// Until when nothing of a line arrives, whatever keeps its order.
    partitions: HashMap<Line, u64>,
}

/// What comes first of what is due at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    Deferred(u64),
    Planned(u64),
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
        self.actions.insert((due_ms, Order::Planned(self.count)), action);
    }

    /// Something is due, and whom it is for does nothing until then. It comes before what is due at that time: on its line it was
    /// the earlier one.
    pub(crate) fn defer(&mut self, until_ms: u64, action: Action) {
        self.count += 1;
        self.actions.insert((until_ms, Order::Deferred(self.count)), action);
    }

    /// Something is to happen then, but not before what was put on the same line earlier.
    pub(crate) fn in_line(&mut self, line: Line, due_ms: u64, action: Action) {
        let due_ms = self.behind_partition(line, due_ms);
        let last = self.lines.entry(line).or_default();
        *last = due_ms.max(*last);
        let due_ms = *last;
        self.at(due_ms, action);
    }

    /// When something that would arrive then does, as the line may be cut.
    pub(crate) fn behind_partition(&self, line: Line, due_ms: u64) -> u64 {
        self.partitions.get(&line).map_or(due_ms, |until| due_ms.max(*until))
    }

    /// A connection begins anew: nothing of it is on its way.
    pub(crate) fn clear_line(&mut self, line: Line) {
        self.lines.remove(&line);
        self.partitions.remove(&line);
    }

    /// Nothing of this line that is sent from now on arrives before then.
    pub(crate) fn cut_line(&mut self, line: Line, until_ms: u64) {
        let until = self.partitions.entry(line).or_default();
        *until = until_ms.max(*until);
    }

    /// All lines are whole again.
    pub(crate) fn mend(&mut self) {
        self.partitions.clear();
    }
}
