//! What happens to clients and their connections, in the world's time.

use std::collections::BTreeMap;

use forebay_core::hold::Delivery;
use forebay_core::{Key, hold::HoldKey};
use zhttp::Cursor;

use crate::client::State;
use crate::feeder::FEED_BYTES_MAX;
use crate::schedule::Action;
use crate::world::{World, trace};

/// How long a handler takes to answer a subscriber, in milliseconds, at most.
const CONNECT_MS: u64 = 30;

/// How long a client waits before it connects again, in milliseconds, at most.
const RECONNECT_MS: u64 = 700;

/// An event takes so many times its data, at most: its type, its id, four cursors in that.
const OVERHEAD_FACTOR: usize = 5;

/// The data of one event, in bytes, at most.
pub(crate) const EVENT_BYTES_MAX: usize = 400;

impl World {
    /// A client asks; a handler says where it begins, or that all has ended.
    pub(crate) fn connect(&mut self, client: usize) {
        let entry = &mut self.clients[client];
        if !matches!(entry.state, State::Away | State::Resting) || entry.wants.is_empty() {
            return;
        }
        let begin = |channel: usize| {
            let channel = &self.store[channel];
            if entry.from_now { channel.head() } else { Cursor::START }
        };
        let cursors = entry.wants.iter().map(|&channel| {
            let resumed = entry.reader.resume(&self.store, channel);
            (channel, resumed.unwrap_or_else(|| begin(channel)))
        });
        let cursors: Vec<(usize, Cursor)> = cursors.collect();
        let ended = |&(channel, cursor): &(usize, Cursor)| self.store[channel].ends_at(cursor);
        if cursors.iter().all(ended) {
            entry.state = State::Resting;
            trace!(self, "client {client} rests");
            return;
        }
        entry.attempt += 1;
        entry.state = State::Connecting;
        let attempt = entry.attempt;
        let due_ms = self.now_ms + self.random.up_to(CONNECT_MS);
        self.schedule.at(due_ms, Action::Open { client, attempt, cursors });
    }

    pub(crate) fn open(&mut self, client: usize, attempt: u32, cursors: &[(usize, Cursor)]) {
        let entry = &mut self.clients[client];
        if entry.state != State::Connecting || entry.attempt != attempt {
            return;
        }
        let worker = self.random.index(self.workers.len());
        let connection = Key { index: client as u32, generation: attempt };
        let named = cursors.iter().map(|&(channel, cursor)| self.store[channel].read_from(cursor));
        let hold = self.workers[worker].open(connection, named);
        entry.reader.connect(cursors.iter().copied().collect::<BTreeMap<_, _>>());
        for &(channel, cursor) in cursors {
            if self.store[channel].ends_at(cursor) {
                entry.reader.know_end(channel);
            }
        }
        entry.state = State::Held { worker, hold };
        entry.unsent.clear();
        entry.blocked = false;
        trace!(self, "client {client} opens {hold:?} in worker {worker} at {cursors:?}");
        self.wake(worker);
    }

    /// The edge writes to a connection.
    pub(crate) fn deliver(&mut self, worker: usize, delivery: &Delivery) -> Result<(), String> {
        let bytes = delivery.bytes.as_ref();
        let client = self.client_of(delivery.connection).ok_or("a delivery to nobody")?;
        trace!(self, "worker {worker} > client {client} {}", bytes.escape_ascii());
        let limits = &self.scenario.limits;
        let entry = &mut self.clients[client];
        if entry.state != (State::Held { worker, hold: delivery.hold }) {
            return Err(format!("a delivery to client {client}, who is not there"));
        }
        if entry.blocked {
            return Err(format!("a delivery to client {client}, who takes nothing"));
        }
        entry.unsent.extend_from_slice(bytes);
        let data = limits.fanout_bytes_max.max(limits.range_bytes_max).max(FEED_BYTES_MAX);
        let data = data + EVENT_BYTES_MAX;
        let max = limits.backlog_bytes_max + data * OVERHEAD_FACTOR;
        if entry.unsent.len() > max {
            return Err(format!("{} bytes wait for client {client}", entry.unsent.len()));
        }
        if delivery.end {
            entry.state = State::Ending;
            self.workers[worker].close(delivery.hold);
        } else if entry.paused && entry.unsent.len() > limits.backlog_bytes_max {
            entry.blocked = true;
            self.workers[worker].handle_blocked(delivery.hold);
        }
        if !self.clients[client].paused {
            self.read(client)?;
        }
        Ok(())
    }

    /// The client reads everything that waits for it.
    pub(crate) fn read(&mut self, client: usize) -> Result<(), String> {
        let entry = &mut self.clients[client];
        let bytes = std::mem::take(&mut entry.unsent);
        let read = entry.reader.handle_bytes(&self.store, &bytes);
        read.map_err(|error| format!("client {client}: {error}"))?;
        match entry.state {
            State::Held { worker, hold } => {
                if std::mem::take(&mut entry.blocked) {
                    self.workers[worker].handle_drained(hold);
                    self.wake(worker);
                }
            }
            State::Ending => {
                entry.state = State::Away;
                self.judge_end(client)?;
                self.reconnect(client);
            }
            State::Away | State::Connecting | State::Resting => {}
        }
        Ok(())
    }

    /// A connection ends by itself only if it has got the end of each of its channels.
    fn judge_end(&self, client: usize) -> Result<(), String> {
        for (&channel, &at) in &self.clients[client].reader.positions {
            let channel = &self.store[channel];
            if !channel.event(at).is_some_and(|event| event.end) {
                return Err(format!("client {client} is closed at {at} in {}", channel.name));
            }
        }
        Ok(())
    }

    pub(crate) fn reconnect(&mut self, client: usize) {
        let due_ms = self.now_ms + self.random.up_to(RECONNECT_MS);
        self.schedule.at(due_ms, Action::Connect { client });
    }

    /// The client goes away; what it has not read is lost.
    pub(crate) fn disconnect(&mut self, client: usize) {
        if let Some((worker, hold)) = self.held(client) {
            self.workers[worker].close(hold);
            self.wake(worker);
        }
        trace!(self, "client {client} goes");
        let entry = &mut self.clients[client];
        entry.state = State::Away;
        entry.unsent.clear();
        entry.blocked = false;
    }

    pub(crate) fn held(&self, client: usize) -> Option<(usize, HoldKey)> {
        match self.clients[client].state {
            State::Held { worker, hold } => Some((worker, hold)),
            State::Away | State::Connecting | State::Ending | State::Resting => None,
        }
    }

    /// A handler lets the client read one channel more.
    pub(crate) fn add_channel(&mut self, client: usize, channel: usize) {
        let Some((worker, hold)) = self.held(client) else { return };
        // Its bytes on the way have ids without the new channel: let them be read first.
        let entry = &mut self.clients[client];
        if !entry.unsent.is_empty() || entry.wants.len() >= 4 || !entry.wants.insert(channel) {
            return;
        }
        let resumed = entry.reader.resume(&self.store, channel);
        let head = self.store[channel].head();
        let cursor = resumed.unwrap_or(if entry.from_now { head } else { Cursor::START });
        entry.reader.positions.insert(channel, cursor);
        trace!(self, "client {client} reads {channel} too, from {cursor}");
        if self.store[channel].ends_at(cursor) {
            self.clients[client].reader.know_end(channel);
        }
        self.workers[worker].add(hold, self.store[channel].read_from(cursor));
        self.wake(worker);
    }

    /// A handler lets the client read one channel less.
    pub(crate) fn remove_channel(&mut self, client: usize, channel: usize) {
        let Some((worker, hold)) = self.held(client) else { return };
        let entry = &mut self.clients[client];
        if !entry.unsent.is_empty() || entry.wants.len() < 2 || !entry.wants.remove(&channel) {
            return;
        }
        entry.reader.forget(channel);
        trace!(self, "client {client} reads {channel} no more");
        self.workers[worker].remove(hold, &self.store[channel].name);
        self.wake(worker);
    }
}
