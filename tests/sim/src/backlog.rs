//! What waits in the edge: for each client no more than is promised, and in each worker what a fan-out has not served.
//!
//! A reader of channels is given no more once its backlog is over its bound, so never more waits for it than that and
//! one delivery, which is written whole (hold.md H-62, H-63): the events of one batch, or one packet of a handler. An
//! answer waits within the credits of its handler (zhttp.md §7). The edge says how many bytes wait; what they may be is
//! worked out here, from what handlers and publishers of this world send.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use forebay_core::Key;
use forebay_core::hold::{Fed, Run};
use forebay_core::hub::FromHub;
use forebay_core::session::SessionId;
use zhttp::hold::Change;
use zhttp::{Kind, Packet};

use crate::clients::State;
use crate::coverage::Mark;
use crate::handler::PIECE_BYTES_MAX;
use crate::scenario::{CROWD, Limits, REQ_BODY_BYTES_MAX, Scenario};
use crate::sockets::Conn;
use crate::world::World;

/// Data of the shortest event.
const EVENT_BYTES_MIN: usize = 40;

/// What an event has besides its padding, at most; a control event of the store has none.
const EVENT_BYTES_MAX: usize = 300;

/// What is around the data of an event on the wire, at most: its type, a composite id of four channels, a chunk.
const EVENT_FRAMING_BYTES_MAX: usize = 200;

/// What a handler sends unasked in one packet, at most: the events that answer a `feed`, or the head of a hold with
/// gaps in four channels.
const PACKET_BYTES_MAX: usize = 2000;

/// The word to a client that the edge stops, and the last chunk: they end a response, however much waits.
const END_BYTES_MAX: usize = 300;

/// A pong: who takes nothing is not read either, but for the ping that came first (hold.md §4.1).
const PONG_BYTES_MAX: usize = 127;

/// What is around a text message, at most: its head, and what compression adds to what it cannot make shorter.
const MESSAGE_FRAMING_BYTES_MAX: usize = 24;

/// The head of an answer, or an answer of the edge itself.
const HEAD_BYTES_MAX: usize = 300;

/// What is around a piece of an answer, at most: the line before a chunk, and that behind it.
const PIECE_FRAMING_BYTES_MAX: usize = 9;

/// Pieces of an answer that are shorter than they could be, at most: each is what a handler got credits for at once.
const SHORT_PIECES_MAX: usize = 40;

/// Members that a fan-out serves in one go, before another channel has its turn.
const SLICE_MEMBERS: usize = 64;

/// Events that have come since a worker was last done with what it had to deliver: their bytes, by channel.
#[derive(Debug, Default)]
pub(crate) struct Unserved {
    /// It had more to deliver when its turn was over.
    has_more: bool,
    bytes: BTreeMap<Arc<str>, usize>,
}

/// Bytes that one delivery to a reader takes, at most.
fn delivery_bytes_max(scenario: &Scenario) -> usize {
    let Limits { fanout, range_bytes_max, .. } = &scenario.limits;
    let event_bytes = scenario.padding_bytes as usize + EVENT_BYTES_MAX;
    let run_bytes = event_bytes.max(PACKET_BYTES_MAX).max(*range_bytes_max);
    let data_bytes = run_bytes.max(fanout.write_bytes_max);
    data_bytes + (data_bytes / EVENT_BYTES_MIN + 1) * EVENT_FRAMING_BYTES_MAX
}

/// Bytes that may wait for a reader.
fn reader_bytes_max(scenario: &Scenario) -> usize {
    scenario.limits.backlog_bytes_max + delivery_bytes_max(scenario) + END_BYTES_MAX
}

/// Bytes that may wait for a visitor.
fn visitor_bytes_max(scenario: &Scenario) -> usize {
    let credits = scenario.limits.buffer_bytes as usize;
    let pieces = credits / PIECE_BYTES_MAX as usize + SHORT_PIECES_MAX;
    HEAD_BYTES_MAX + credits.max(REQ_BODY_BYTES_MAX) + pieces * PIECE_FRAMING_BYTES_MAX
}

impl World {
    /// Judges what waits for the clients of a worker.
    pub(crate) fn judge_backlogs(&self, worker: usize) -> Result<(), String> {
        let Some(edge) = &self.edge else { return Ok(()) };
        let seat = &edge.seats[worker];
        for (key, socket) in &seat.sockets.table {
            let unsent = seat.machine.unsent_bytes(*key);
            // Most have nothing waiting.
            if unsent == 0 {
                continue;
            }
            let max = if socket.is_reader {
                reader_bytes_max(&self.scenario) + PONG_BYTES_MAX + socket.answer_bytes
            } else {
                visitor_bytes_max(&self.scenario)
            };
            if unsent > max {
                let conn = Conn { life: edge.life, worker, key: *key };
                return Err(format!("{unsent} bytes wait for {conn:?}, and {max} are the most"));
            }
        }
        Ok(())
    }

    /// A worker's turn is over; it may have more to deliver.
    pub(crate) fn see_turn(&mut self, life: u64, worker: usize, has_more: bool) {
        let Some(edge) = self.edge_of(life) else { return };
        let is_draining = edge.is_draining;
        let unserved = &mut edge.seats[worker].unserved;
        unserved.has_more = has_more && !is_draining;
        if !has_more {
            unserved.bytes.clear();
        }
        if unserved.has_more {
            self.mark(Mark::TurnUnfinished);
        }
    }

    /// A worker is about to hear of something.
    pub(crate) fn see_worker_message(&mut self, life: u64, worker: usize, message: &FromHub) {
        if let FromHub::Packet(bytes) = message {
            return self.see_answer(worker, bytes);
        }
        let FromHub::Fed(Fed::Events(run)) = message else { return };
        self.see_crowd(worker, run);
        let max = self.scenario.limits.fanout.queue_bytes_max;
        let Some(edge) = self.edge_of(life) else { return };
        let unserved = &mut edge.seats[worker].unserved;
        if !unserved.has_more {
            return;
        }
        let bytes = unserved.bytes.entry(Arc::clone(run.channel())).or_default();
        let is_full = *bytes >= max;
        *bytes += run.bytes();
        self.mark(Mark::EventsInFanout);
        if is_full {
            self.mark(Mark::FanoutFull);
        }
    }

    /// A worker is about to hear what a handler answers to a client, which passes the bound of what waits for it, by one
    /// answer (H-94).
    fn see_answer(&mut self, worker: usize, bytes: &Bytes) {
        let Ok(packet @ Packet { kind: Kind::Hold, .. }) = Packet::parse(bytes) else { return };
        let Ok(change @ Change { answers: Some(_), .. }) = Change::read(&packet) else { return };
        let framed = |body: &str| body.len() + MESSAGE_FRAMING_BYTES_MAX;
        let answer_bytes = change.bodies.map(framed).sum();
        let max = self.scenario.limits.backlog_bytes_max;
        let Some(edge) = &mut self.edge else { return };
        let seat = &mut edge.seats[worker];
        let session = { packet.ids }.next().and_then(|id| SessionId::parse(id.id));
        let is_its = |key: &Key| session.is_some_and(|session| session.slot == key.index);
        let open = seat.sockets.table.iter_mut().find(|(key, it)| is_its(key) && !it.is_closed);
        let Some((key, socket)) = open else { return };
        socket.answer_bytes = socket.answer_bytes.max(answer_bytes);
        if seat.machine.unsent_bytes(*key) > max {
            self.mark(Mark::AnswerToFull);
        }
    }

    fn see_crowd(&mut self, worker: usize, run: &Run) {
        if self.scenario.clients < CROWD {
            return;
        }
        let reads = |client: &&crate::clients::Client| {
            let is_here = client.conn.is_some_and(|conn| conn.worker == worker);
            let names = |want: &usize| *self.store.channels[*want].name == **run.channel();
            let is_held = matches!(client.state, State::Held { .. });
            is_here && is_held && !client.is_paused && client.wants.iter().any(names)
        };
        if self.clients.iter().filter(reads).count() > SLICE_MEMBERS {
            self.mark(Mark::CrowdServed);
        }
    }
}
