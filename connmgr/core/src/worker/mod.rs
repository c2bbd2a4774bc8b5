//! A worker: the connections of one thread, from the first byte of a request to the close.
//!
//! ```text
//!                a head                  an answer                 it is out
//!   Reading ───────────────▶ Exchange ───────────────▶ Exchange ───────────▶ Reading
//!      │ nonsense               │ no handler, …            │ with a hold         ▲ keep-alive
//!      ▼                        ▼                          ▼                     │
//!   Closing ◀──────── error response, or the last answer ─ Held ─────────────────┘ its end
//! ```
//!
//! In req mode there is `Req` in the place of `Exchange`, and no hold.
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
mod held_socket;
mod input;
mod invariants;
mod multi;
mod req;
mod scratch;
mod socket;
mod speech;
mod stalls;
mod timers;
mod unknown;
mod writing;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use zhttp::{Envelope, Id, Ids, Kind, Packet, PacketError};

use self::connection::{Connection, Framing, State};
use self::multi::Multi;
use self::scratch::Scratches;
use self::stalls::Stalls;
use self::unknown::UnknownIds;
use crate::hold::{FanoutLimits, Members, MembersConfig};
use crate::http1::{ErrorResponse, HeadLimits};
use crate::hub::{FromHub, ToHub};
use crate::ring::Pool;
use crate::session::{HandlerIds, SessionId};
use crate::slab::{Key, Slab};
use crate::websocket;
use crate::wheel::Wheel;

pub use self::timers::TimeoutConfig;

/// Blocks of buffer memory that the worker keeps for the next one who needs it.
const BLOCKS_KEPT_MAX: usize = 64;

/// Timers that fire or move in one turn.
const TIMER_STEPS_PER_TURN: usize = 1000;

/// Bytes of events that are delivered in one turn, and what the last delivery has more: less than a millisecond, after
/// which the worker looks at what came meanwhile. (The kernel does most of what it takes a client to receive within
/// the write.)
const DELIVERED_BYTES_PER_TURN: usize = 256 * 1024;

/// Sockets, or a model of them.
pub trait Transport {
    /// Writes what fits of these slices to the connection, without blocking. Says how many bytes
    /// were taken; `None` if the connection is gone. What was not taken is what the next write begins with: a transport
    /// may have encrypted it.
    fn write(&mut self, connection: Key, slices: &[IoSlice<'_>]) -> Option<usize>;

    /// The address of the client; `None` if it has none, as on a Unix socket.
    fn peer(&self, connection: Key) -> Option<SocketAddr>;
}

/// How the requests of a connection go to handlers (zhttp-spec/zhttp.md §1). Its listener says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Head and body in pieces under flow control.
    #[default]
    Stream,
    /// The whole request in one packet, and the whole answer.
    Req,
}

impl fmt::Display for Mode {
    /// As in `--listen`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Stream => "stream",
            Mode::Req => "req",
        })
    }
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
    /// Drop the socket. Why is for the log.
    Close(Key, CloseReason),
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
    /// Bytes of a body in req mode, either way. One more, and the client gets a 413 for its own, a 500 for the
    /// handler's. A request whose body is coming holds up to that much memory.
    pub body_bytes_max: usize,
    /// How large a request head may be.
    pub head: HeadLimits,
    /// Bytes that may wait for a held client before it is given no more. Its memory is at most that, one delivery
    /// ([`FanoutLimits::write_bytes_max`] and framing, or one larger packet), and two blocks of `buffer_bytes`.
    pub client_backlog_bytes_max: usize,
    /// When to give up.
    pub timeouts: TimeoutConfig,
    /// WebSockets may be compressed, if their clients offer it.
    pub compression: bool,
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
    /// `send` packets that were dropped because their client takes nothing.
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

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CloseReason::Finished => "finished",
            CloseReason::ClientLeft => "the client has left",
            CloseReason::Failed => "the socket failed",
            CloseReason::TimedOut => "timed out",
            CloseReason::Handler => "by its handler",
            CloseReason::Protocol => "what the client sends cannot be read",
            CloseReason::Drained => "the edge stops",
        })
    }
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
    /// How many of them are in req mode.
    req_connections: usize,
    wheel: Wheel,
    pool: Pool,
    members: Members,
    /// What compresses the messages of WebSockets.
    compression: websocket::Pool,
    /// Sessions that handlers are to hear are over.
    cancels: Multi,
    /// Sessions that handlers are to hear are alive.
    keep_alives: Multi,
    /// Handlers that take nothing, and who waits for them.
    stalls: Stalls,
    /// Ids of nobody that handlers were told of.
    unknown: UnknownIds,
    sessions: u64,
    /// Of those who answer.
    handlers: HandlerIds,
    /// Where the last WebSocket that was held sends what its client says.
    last_path: Arc<str>,
    draining: bool,
    /// The places of connections that the drain has still to look at.
    undrained: Range<u32>,
    /// The current time for `Date`.
    date: String,
    /// Where responses and packets are put together.
    scratches: Scratches,
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

/// What the id of a packet names.
enum Named {
    /// The session of a connection.
    Exchange(Key),
    /// A request in req mode.
    Req(Key),
    /// A connection that is held.
    Held(Key),
    /// A session of this worker that is over, or never was.
    Nothing,
    /// It is none of this worker's.
    Elsewhere,
}

/// To the client of a handler that says what cannot be.
const INVALID_ANSWER: ErrorResponse<'_> =
    ErrorResponse::new(500, "The handler sent an invalid response");

impl Worker {
    /// A worker without connections.
    pub fn new(config: WorkerConfig, now_ms: u64) -> Self {
        Worker::with_fanout_limits(config, FanoutLimits::default(), now_ms)
    }

    /// A worker without connections, with other limits of its fan-outs: what a test reaches sooner with small ones.
    pub fn with_fanout_limits(config: WorkerConfig, limits: FanoutLimits, now_ms: u64) -> Self {
        Worker {
            connections: Slab::default(),
            req_connections: 0,
            wheel: Wheel::new(now_ms),
            pool: Pool::new(config.buffer_bytes as usize, BLOCKS_KEPT_MAX),
            members: Members::with_fanout_limits(config.members, limits),
            compression: websocket::Pool::new(),
            cancels: Multi::new(Kind::Cancel),
            keep_alives: Multi::new(Kind::KeepAlive),
            stalls: Stalls::default(),
            unknown: UnknownIds::new(config.members.seed),
            sessions: 0,
            handlers: HandlerIds::default(),
            last_path: "".into(),
            draining: false,
            undrained: 0..0,
            date: String::new(),
            scratches: Scratches::default(),
            outputs: VecDeque::new(),
            stats: WorkerStats::default(),
            refusals: VecDeque::new(),
            config,
        }
    }

    /// Which worker this is.
    pub fn index(&self) -> u16 {
        self.config.index
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// How many of them came by a listener of that mode.
    pub fn connections_in(&self, mode: Mode) -> usize {
        match mode {
            Mode::Stream => self.connections.len() - self.req_connections,
            Mode::Req => self.req_connections,
        }
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

    /// A client has connected. The key names the connection from now on. What it sends is secure if it comes over TLS:
    /// handlers are told so by the scheme of the URI.
    pub fn accept(&mut self, now_ms: u64, mode: Mode, is_secure: bool) -> Key {
        self.req_connections += usize::from(mode == Mode::Req);
        let key = self.connections.insert(Connection::new(now_ms, mode, is_secure));
        self.rearm(key);
        key
    }

    /// How many bytes the connection takes now; 0 if it is not to be read, until [`Output::Read`].
    pub fn room(&self, key: Key) -> usize {
        let Some(connection) = self.connections.get(key) else { return 0 };
        let max = match &connection.state {
            State::Reading(_) => self.config.head.head_bytes_max,
            State::Exchange(_) | State::Req(_) => self.config.buffer_bytes as usize,
            State::Held(held) => match held.framing {
                Framing::Response(_) => return usize::MAX,
                Framing::Socket(_) => self.config.buffer_bytes as usize,
            },
            State::Closing(_) => return usize::MAX,
        };
        connection.input.room(max)
    }

    /// How many bytes wait for the client of a connection: what its socket has not taken.
    pub fn unsent_bytes(&self, key: Key) -> usize {
        self.connections.get(key).map_or(0, |connection| connection.output.len())
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
            FromHub::Packet(bytes) => {
                return self.handle_packet(now_ms, transport, (Mode::Stream, bytes));
            }
            FromHub::Reply(bytes) => {
                return self.handle_packet(now_ms, transport, (Mode::Req, bytes));
            }
            FromHub::Malformed { mode, from, error, packet } => {
                let ids = Packet::salvage(packet).map_or(Ids::One(None), |salvage| salvage.ids);
                self.handle_malformed(now_ms, transport, (*mode, ids), (from, *error));
            }
            FromHub::Refused(id) => {
                let error = ErrorResponse {
                    retry_after_secs: Some(1),
                    ..ErrorResponse::new(503, "No handler is available")
                };
                self.refuse_session(now_ms, transport, id, &error);
            }
            FromHub::Unserved(id) => {
                let error = ErrorResponse::new(404, "No handler serves this");
                self.refuse_session(now_ms, transport, id, &error);
            }
            FromHub::HandlerLeft(id) => {
                let error = ErrorResponse {
                    retry_after_secs: Some(0),
                    ..ErrorResponse::new(502, "The handler has left")
                };
                self.refuse_session(now_ms, transport, id, &error);
            }
            FromHub::Undelivered(id) => {
                let error = ErrorResponse {
                    retry_after_secs: Some(1),
                    ..ErrorResponse::new(503, "The handler takes nothing")
                };
                self.abandon_session(now_ms, transport, id, &error);
            }
            FromHub::Stalled(handler) => self.stalls.handle_stalled(handler),
            FromHub::Flowing(handler) => {
                for key in self.stalls.handle_flowing(handler) {
                    self.resume_upload(now_ms, transport, key, handler);
                }
            }
            FromHub::Fed(fed) => self.members.handle_fed(fed),
            FromHub::Missed(channel, head) => self.members.handle_missed(channel, *head),
        }
        Ok(())
    }

    fn handle_packet(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        (mode, bytes): (Mode, &Bytes),
    ) -> Result<(), PacketError> {
        let packet = Packet::parse(bytes)?;
        let mut unknown = Vec::new();
        for id in packet.ids {
            match (mode, self.find(id.id)) {
                (Mode::Stream, Named::Exchange(key)) => {
                    self.handle_exchange_packet(now_ms, transport, key, (&packet, id.seq));
                }
                // Another handler was given the request too, and has taken the hold: this answer is late.
                (Mode::Stream, Named::Held(key)) if packet.kind != Kind::Data => {
                    self.handle_held_packet(now_ms, transport, key, &packet);
                }
                (Mode::Stream, Named::Held(_) | Named::Nothing) => {
                    if let Some(session) = SessionId::parse(id.id)
                        && self.unknown.admit(now_ms, session)
                    {
                        unknown.push(Id { id: id.id, seq: None });
                    }
                }
                (Mode::Req, Named::Req(key)) => {
                    self.handle_req_packet(now_ms, transport, key, &packet);
                }
                // Nobody speaks for the sessions of the other mode; and an answer that comes too late is no reason to
                // tell anybody anything.
                (Mode::Stream, Named::Req(_) | Named::Elsewhere)
                | (
                    Mode::Req,
                    Named::Exchange(_) | Named::Held(_) | Named::Nothing | Named::Elsewhere,
                ) => {}
            }
        }
        self.cancel_unknown(&packet, &unknown);
        Ok(())
    }

    /// Ends the sessions of a packet that cannot be understood: nobody knows what they missed by it.
    fn handle_malformed(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        (mode, ids): (Mode, Ids<'_>),
        (from, error): (&[u8], PacketError),
    ) {
        self.refuse_packet(from, error.to_string());
        for id in ids {
            match (mode, self.find(id.id)) {
                (Mode::Stream, Named::Exchange(key)) => {
                    self.fail_session(now_ms, transport, key, from);
                }
                (Mode::Req, Named::Req(key)) => {
                    self.fail_req(now_ms, transport, key, &INVALID_ANSWER);
                }
                // A hold goes on without it; and nobody speaks for the sessions of the other mode.
                (Mode::Stream, Named::Req(_))
                | (Mode::Req, Named::Exchange(_))
                | (_, Named::Held(_) | Named::Nothing | Named::Elsewhere) => {}
            }
        }
    }

    /// What a session id names.
    fn find(&self, id: &[u8]) -> Named {
        let Some(session) = SessionId::parse(id).filter(|id| id.worker == self.config.index) else {
            return Named::Elsewhere;
        };
        let key = self.connections.key_at(session.slot);
        match key.map(|key| (key, &self.connections[key.index].state)) {
            Some((key, State::Exchange(exchange))) if *exchange.session.id() == session => {
                Named::Exchange(key)
            }
            Some((key, State::Req(exchange))) if exchange.id == session => Named::Req(key),
            Some((key, State::Held(held))) if held.counter == session.counter => Named::Held(key),
            Some(_) | None => Named::Nothing,
        }
    }

    /// Tells a handler that it works for clients that are gone (hold.md H-20).
    fn cancel_unknown(&mut self, packet: &Packet<'_>, ids: &[Id<'_>]) {
        // Who ends a session does not work for it; answering would only be the last word.
        let ends = matches!(packet.kind, Kind::Cancel | Kind::Error);
        if ends || ids.is_empty() || packet.from.is_empty() {
            return;
        }
        let mut out = self.scratches.take();
        let envelope = Envelope::new(&self.config.instance_id, Kind::Cancel).about(ids);
        Envelope { multi: true, ..envelope }.write(&mut out, |_| {});
        let (to, packet) = (packet.from.into(), self.scratches.keep(out));
        self.outputs.push_back(Output::Hub(ToHub::Packet { to, packet }));
    }

    /// Delivers events to members, at most `deliveries_max` writes and some 256 KiB, and goes on with a drain. Says
    /// whether there is more to do.
    pub fn handle_work(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        deliveries_max: usize,
    ) -> bool {
        let mut bytes = 0;
        for _ in 0..deliveries_max {
            let Some(delivery) = self.members.poll_delivery() else { break };
            self.deliver(now_ms, transport, &delivery);
            bytes += delivery.bytes.as_ref().len();
            if bytes >= DELIVERED_BYTES_PER_TURN {
                break;
            }
        }
        if !self.undrained.is_empty() {
            self.drain_on(now_ms, transport);
        }
        self.members.has_deliveries() || !self.undrained.is_empty()
    }

    /// How much there is to do: outputs that wait to be polled. A shell that reads on for long looks at it.
    pub fn waiting_outputs(&self) -> usize {
        self.outputs.len()
    }

    /// What to do next. Poll it until there is nothing more.
    pub fn poll_output(&mut self, now_ms: u64) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        if let Some((to, packet)) = self.cancels.poll(&self.config.instance_id) {
            return Some(Output::Hub(ToHub::Packet { to, packet }));
        }
        self.members.poll_output(now_ms).map(|want| Output::Hub(ToHub::Want(want)))
    }

    fn refuse_packet(&mut self, from: &[u8], why: String) {
        self.stats.bad_packets += 1;
        if self.refusals.len() < REFUSALS_KEPT_MAX {
            self.refusals.push_back(PacketRefusal { from: from.to_vec(), why });
        }
    }
}
