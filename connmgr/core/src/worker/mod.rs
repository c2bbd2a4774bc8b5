//! A worker: the connections of one thread, from the first byte of a request to the close.
//!
//! ```text
//!                a head                  an answer                 it is out
//!   Reading ───────────────▶ Exchange ───────────────▶ Exchange ───────────▶ Reading
//!      │ nonsense               │ no handler, …            │ with a hold         ▲ keep-alive
//!      ▼                        ▼                          ▼                     │
//!   Closing ◀───── error response, end of body, drain ─── Held ─────────────────┘ (never)
//! ```
//!
//! The shell owns the sockets. It says what came ([`Worker::handle_input`], [`Worker::handle_eof`],
//! [`Worker::handle_writable`], [`Worker::handle_hub`], [`Worker::handle_timeout`]) and lends a
//! [`Transport`] to write to, because what happens next depends on how much a socket takes. Everything
//! else that is to be done comes out of [`Worker::poll_output`]. [`Worker::handle_work`] delivers
//! events to members, a bounded number at a time, so that one large channel stalls nobody.
//!
//! A connection is small: an idle one owns no buffer, its state is one pointer, and that is asserted
//! by a test.

mod connection;
mod exchange;
mod held;
mod input;
mod timers;

use std::collections::VecDeque;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use zhttp::{Envelope, Id, Kind, Packet, PacketError};

use self::connection::{Closing, Connection, State};
use crate::hold::{Members, MembersConfig};
use crate::http1::{ErrorResponse, HeadLimits, RequestContext, write_error};
use crate::hub::{FromHub, ToHub};
use crate::ring::{Pool, Ring};
use crate::session::SessionId;
use crate::slab::{Key, Slab};
use crate::wheel::Wheel;

pub use self::timers::TimeoutConfig;

/// Blocks of buffer memory that the worker keeps for the next one who needs it.
const BLOCKS_KEPT_MAX: usize = 64;

/// Bytes of answers that may wait for one client beyond its backlog: one delivery, or one packet of
/// a handler that knows its credits. What does not fit ends the connection.
const OUTPUT_SLACK_BYTES: usize = 4 * 1024 * 1024;

/// Timers that fire or move in one turn.
const TIMER_STEPS_PER_TURN: usize = 1000;

/// Sockets, or a model of them.
pub trait Transport {
    /// Writes what fits of these slices to the connection, without blocking. Says how many bytes
    /// were taken; `None` if the connection is gone.
    fn write(&mut self, connection: Key, slices: &[IoSlice<'_>]) -> Option<usize>;

    /// The address of the client; `None` if it has none, as on a Unix socket.
    fn peer(&self, connection: Key) -> Option<SocketAddr>;
}

/// What the shell is to do.
#[derive(Debug)]
pub enum Output {
    /// Pass a message to the hub.
    Hub(ToHub),
    /// There is room again: read on, even if the socket does not say that it is readable.
    Read(Key),
    /// Send what was written, then no more: shut down the write side.
    Shutdown(Key),
    /// Drop the socket.
    Close(Key),
}

/// What the shell sets.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// Which worker this is.
    pub index: u16,
    /// The instance id of the edge: its `from`.
    pub instance_id: Arc<[u8]>,
    /// Bytes of a body that are kept for either side of a connection: the credits of a handler.
    pub buffer_bytes: u32,
    /// How large a request head may be.
    pub head: HeadLimits,
    /// Bytes that may wait for a held client before it is given no more.
    pub client_backlog_bytes_max: usize,
    /// When to give up.
    pub timeouts: TimeoutConfig,
    /// What the members get.
    pub members: MembersConfig,
}

/// Counts of what happened, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerStats {
    /// Requests whose head was understood.
    pub requests: u64,
    /// Connections that became held.
    pub holds: u64,
    /// Writes of events to members.
    pub deliveries: u64,
    /// Error responses that the edge made itself.
    pub errors: u64,
    /// `send` packets dropped because their client takes nothing.
    pub sends_dropped: u64,
    /// Packets of handlers that did not fit their session.
    pub bad_packets: u64,
    /// Connections that ended, by [`CloseReason`] in its order.
    pub closed: [u64; CloseReason::COUNT],
}

/// Why a connection ends. The one place where they are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// Everything was said.
    Finished,
    /// The client has closed.
    ClientLeft,
    /// The socket failed.
    Failed,
    /// Nothing came, or nothing could be written, for too long.
    TimedOut,
    /// The handler ended the session, or broke its rules.
    Handler,
    /// The client sent what cannot be read.
    Protocol,
    /// The edge stops.
    Drained,
}

impl CloseReason {
    /// How many reasons there are.
    pub const COUNT: usize = CloseReason::Drained as usize + 1;
}

/// The machine.
#[derive(Debug)]
pub struct Worker {
    config: WorkerConfig,
    connections: Slab<Connection>,
    wheel: Wheel<Key>,
    pool: Pool,
    members: Members,
    sessions: u64,
    draining: bool,
    /// The current time for `Date`.
    date: String,
    /// Where a response is put together; kept for its memory.
    scratch: Vec<u8>,
    outputs: VecDeque<Output>,
    stats: WorkerStats,
    refusals: VecDeque<PacketRefusal>,
}

/// A packet of a handler that did not fit, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PacketRefusal {
    /// Who sent it.
    pub from: Vec<u8>,
    /// What was wrong.
    pub why: String,
}

/// Refusals that wait to be logged; the others are only counted.
const REFUSALS_KEPT_MAX: usize = 16;

impl Worker {
    /// A worker without connections.
    pub fn new(config: WorkerConfig, now_ms: u64) -> Self {
        Worker {
            connections: Slab::default(),
            wheel: Wheel::new(now_ms),
            pool: Pool::new(config.buffer_bytes as usize, BLOCKS_KEPT_MAX),
            members: Members::new(config.members),
            sessions: 0,
            draining: false,
            date: String::new(),
            scratch: Vec::new(),
            outputs: VecDeque::new(),
            stats: WorkerStats::default(),
            refusals: VecDeque::new(),
            config,
        }
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// How many of them are held.
    pub fn holds(&self) -> usize {
        self.members.holds()
    }

    /// Counts of what happened.
    pub fn stats(&self) -> WorkerStats {
        self.stats
    }

    /// A packet of a handler that was refused, to be logged.
    pub fn poll_refusal(&mut self) -> Option<PacketRefusal> {
        self.refusals.pop_front()
    }

    /// The bytes that a connection takes in its table.
    pub const fn connection_bytes() -> usize {
        size_of::<Connection>()
    }

    /// Sets the time of day that responses carry, as an IMF-fixdate (RFC 9110 §5.6.7).
    pub fn set_date(&mut self, date: &str) {
        self.date.clear();
        self.date.push_str(date);
    }

    /// A client has connected. The key names the connection from now on.
    pub fn accept(&mut self, now_ms: u64) -> Key {
        let key = self.connections.insert(Connection::new(now_ms));
        self.rearm(key);
        key
    }

    /// How many bytes the connection takes now; 0 if it is not to be read, until [`Output::Read`].
    pub fn room(&self, key: Key) -> usize {
        let Some(connection) = self.connections.get(key) else { return 0 };
        let max = match connection.state {
            State::Reading(_) => self.config.head.head_bytes_max,
            State::Exchange(_) => self.config.buffer_bytes as usize,
            State::Held(_) | State::Closing(_) => return usize::MAX,
        };
        connection.input.room(max)
    }

    /// The socket takes bytes again.
    pub fn handle_writable(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        self.flush(now_ms, transport, key);
    }

    /// Takes a message of the hub.
    ///
    /// # Errors
    ///
    /// A packet that is not understood. It had no effect.
    pub fn handle_hub(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        message: &FromHub,
    ) -> Result<(), PacketError> {
        match message {
            FromHub::Packet(bytes) => return self.handle_packet(now_ms, transport, bytes),
            FromHub::Refused(id) => {
                let error = ErrorResponse {
                    retry_after_secs: Some(1),
                    ..ErrorResponse::new(503, "No handler is available")
                };
                self.refuse_session(now_ms, transport, id, &error);
            }
            FromHub::HandlerLeft(id) => {
                let error = ErrorResponse {
                    retry_after_secs: Some(0),
                    ..ErrorResponse::new(502, "The handler has left")
                };
                self.refuse_session(now_ms, transport, id, &error);
            }
            FromHub::Fed(fed) => self.members.handle_fed(fed),
        }
        Ok(())
    }

    fn handle_packet(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        bytes: &Bytes,
    ) -> Result<(), PacketError> {
        let packet = Packet::parse(bytes)?;
        for id in packet.ids {
            let Some(session) = SessionId::parse(id.id) else { continue };
            if session.worker != self.config.index {
                continue;
            }
            let key = self.connections.key_at(session.slot);
            match key.map(|key| (key, &self.connections[key.index].state)) {
                Some((key, State::Exchange(exchange))) if *exchange.session.id() == session => {
                    self.handle_exchange_packet(now_ms, transport, key, (&packet, id.seq));
                }
                Some((key, State::Held(held))) if held.counter == session.counter => {
                    self.handle_held_packet(now_ms, transport, key, &packet);
                }
                Some(_) | None => self.cancel_unknown(&packet, id),
            }
        }
        Ok(())
    }

    /// Tells a handler that works for a client that is gone.
    fn cancel_unknown(&mut self, packet: &Packet<'_>, id: Id<'_>) {
        let works = matches!(packet.kind, Kind::Data | Kind::Credit | Kind::Hold | Kind::Send);
        if works && !packet.from.is_empty() {
            let ids = [Id { id: id.id, seq: None }];
            let mut out = Vec::new();
            let envelope = Envelope::new(&self.config.instance_id, Kind::Cancel);
            envelope.about(&ids).write(&mut out, |_| {});
            let to = packet.from.into();
            self.outputs.push_back(Output::Hub(ToHub::Packet { to, packet: out.into() }));
        }
    }

    /// Delivers events to members, at most `deliveries_max` writes. Says whether there is more.
    pub fn handle_work(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        deliveries_max: usize,
    ) -> bool {
        for _ in 0..deliveries_max {
            let Some(delivery) = self.members.poll_delivery() else { break };
            self.deliver(now_ms, transport, &delivery);
        }
        self.members.has_deliveries()
    }

    /// What to do next. Poll it until there is nothing more.
    pub fn poll_output(&mut self, now_ms: u64) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if self.members.has_deliveries() {
            return None;
        }
        self.members.poll_output(now_ms).map(|want| Output::Hub(ToHub::Want(want)))
    }

    /// Writes bytes to a client: to the socket as far as it takes them, the rest to its buffer.
    /// Says whether the connection is still there.
    fn send(&mut self, transport: &mut impl Transport, key: Key, slices: &[&[u8]]) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let mut taken = 0;
        if connection.output.is_empty() {
            let [first, second, third] =
                [0, 1, 2].map(|index| IoSlice::new(slices.get(index).copied().unwrap_or_default()));
            debug_assert!(slices.len() <= 3);
            match transport.write(key, &[first, second, third][..slices.len()]) {
                Some(bytes) => taken = bytes,
                None => {
                    self.close(key, CloseReason::Failed);
                    return false;
                }
            }
        }
        let bytes_max = self.config.client_backlog_bytes_max + OUTPUT_SLACK_BYTES;
        for slice in slices {
            let skip = taken.min(slice.len());
            taken -= skip;
            if connection.output.extend(&mut self.pool, &slice[skip..], bytes_max).is_err() {
                self.close(key, CloseReason::Handler);
                return false;
            }
        }
        true
    }

    /// Writes what waits for a client, and does what was waiting for that.
    fn flush(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.output.is_empty() {
            return;
        }
        loop {
            let (first, second) = connection.output.slices();
            match transport.write(key, &[IoSlice::new(first), IoSlice::new(second)]) {
                None => return self.close(key, CloseReason::Failed),
                Some(0) => break,
                Some(bytes) => connection.output.consume(&mut self.pool, bytes),
            }
            if connection.output.is_empty() {
                break;
            }
        }
        let unsent = connection.output.len();
        match &mut connection.state {
            State::Reading(_) => {}
            State::Exchange(exchange) => {
                exchange.progress_ms = now_ms;
                self.repay(key, unsent);
            }
            State::Held(held) => {
                held.progress_ms = now_ms;
                if unsent == 0 {
                    self.members.handle_drained(held.hold);
                }
            }
            State::Closing(_) if unsent == 0 => self.shutdown(now_ms, key),
            State::Closing(_) => {}
        }
    }

    /// Answers with an error of the edge's own and ends the connection behind it.
    fn answer_error(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        request: RequestParts,
        error: &ErrorResponse<'_>,
    ) {
        self.stats.errors += 1;
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let context = RequestContext {
            version: request.version,
            is_head: request.is_head,
            keep_alive: false,
            date: &self.date,
        };
        write_error(&mut out, &context, error);
        if self.send(transport, key, &[&out]) {
            self.finish(now_ms, key);
        }
        self.scratch = out;
    }

    /// Lets the client have what was written, then ends the connection: what it still sends is read
    /// and dropped for a while, so that a reset does not destroy the answer (RFC 9112 §9.6).
    fn finish(&mut self, now_ms: u64, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.input.clear(&mut self.pool);
        // Until it is all sent a slow client has as much time as any.
        let linger_until_ms = now_ms + self.config.timeouts.stream_ms;
        let before = std::mem::replace(
            &mut connection.state,
            State::Closing(Closing { linger_until_ms, is_shut: false }),
        );
        self.leave(before, key);
        self.outputs.push_back(Output::Read(key));
        if self.connections[key.index].output.is_empty() {
            self.shutdown(now_ms, key);
        }
        self.rearm(key);
    }

    fn shutdown(&mut self, now_ms: u64, key: Key) {
        let connection = &mut self.connections[key.index];
        if connection.eof {
            return self.close(key, CloseReason::Finished);
        }
        if let State::Closing(closing) = &mut connection.state
            && !std::mem::replace(&mut closing.is_shut, true)
        {
            closing.linger_until_ms = now_ms + self.config.timeouts.linger_ms;
            self.outputs.push_back(Output::Shutdown(key));
        }
    }

    /// Ends a connection at once. The only way out of the table.
    fn close(&mut self, key: Key, reason: CloseReason) {
        let Some(mut connection) = self.connections.remove(key) else { return };
        self.stats.closed[reason as usize] += 1;
        if let Some(timer) = connection.timer {
            self.wheel.cancel(timer);
        }
        connection.input.clear(&mut self.pool);
        connection.output.clear(&mut self.pool);
        self.leave(connection.state, key);
        self.outputs.push_back(Output::Close(key));
    }

    /// Takes leave of the handler or the channels that a connection was with.
    fn leave(&mut self, state: State, key: Key) {
        match state {
            State::Reading(_) | State::Closing(_) => {}
            State::Exchange(exchange) => self.end_session(*exchange),
            State::Held(held) => self.end_hold(&held, key),
        }
    }

    /// Takes the input out of a connection, to be looked at while the connection changes.
    fn take_input(&mut self, key: Key) -> Option<Ring> {
        Some(std::mem::take(&mut self.connections.get_mut(key)?.input))
    }

    fn refuse_packet(&mut self, from: &[u8], why: String) {
        self.stats.bad_packets += 1;
        if self.refusals.len() < REFUSALS_KEPT_MAX {
            self.refusals.push_back(PacketRefusal { from: from.to_vec(), why });
        }
    }

    /// The edge is about to stop: answers end their connections, held ones are ended in order.
    pub fn drain(&mut self, now_ms: u64, transport: &mut impl Transport) {
        self.draining = true;
        let keys: Vec<Key> = self.connections.keys().collect();
        for key in keys {
            match &self.connections[key.index].state {
                State::Reading(reading) if reading.is_idle() => {
                    self.close(key, CloseReason::Drained);
                }
                State::Held(_) => self.drain_hold(now_ms, transport, key),
                State::Reading(_) | State::Exchange(_) | State::Closing(_) => {}
            }
        }
    }

    /// The edge stops: whatever is left ends now.
    pub fn stop(&mut self) {
        let keys: Vec<Key> = self.connections.keys().collect();
        for key in keys {
            self.close(key, CloseReason::Drained);
        }
    }
}

/// What of a request an answer depends on.
#[derive(Clone, Copy, Debug)]
struct RequestParts {
    version: crate::http1::Version,
    is_head: bool,
}
