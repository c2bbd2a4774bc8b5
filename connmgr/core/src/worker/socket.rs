//! A WebSocket that is with a handler: what it says goes out as frames, and what comes goes to it as packets
//! (zhttp-spec/zhttp.md §11, RFC 6455).
//!
//! It is an exchange like any other, with the same numbers, credits, keep-alives and handoffs: only its answer is no
//! response, but a [`Socket`]. Pings are answered here, whatever the handler does. A close is said by both sides:
//!
//! ```text
//!           a close comes, or a broken frame        the handler's close, or the time is up
//!   Open ───────────────────────────────▶ ClientSaid ─────────────────────────────────▶ over
//!     │                                              the client's close, or the time is up
//!     └── the handler's close, a drain ──▶ WeSaid ────────────────────────────────────▶ over
//! ```
//!
//! A client that breaks the protocol is told by a close with a code, but not before its handler had its say: what that has
//! to answer to the messages before goes out first.

use zhttp::hold::{Format, HoldParams};
use zhttp::{Kind, Packet, Payload};

use super::connection::{Exchange, Framing, RequestParts, Response, State};
use super::exchange::{Extent, Fault, Next, write_response};
use super::input::Step;
use super::{CloseReason, Transport, Worker};
use crate::hold::Rendering;
use crate::http1::RequestContext;
use crate::slab::Key;
use crate::websocket::{
    CONTROL_BYTES_MAX, Close, CloseCode, Deflate, Mask, MessageKind, Received, Receiver, Role,
    Sender, Upgrade, WebSocketError, write_switch,
};

/// What the handler of a WebSocket may be sent if it has not said how much: Pushpin's proxy relies on it.
const CREDITS_DEFAULT: u32 = 8192;

/// The condition of an error that refuses a handshake (zhttp-spec/zhttp.md §11).
pub(super) const REJECTED: &str = "rejected";

/// The status of an acceptance (RFC 6455 §4.2.2).
const SWITCHING_PROTOCOLS: u16 = 101;

/// To clients when the edge stops.
pub(super) const STOPPING: Close<'_> =
    Close { code: CloseCode::GOING_AWAY, reason: "The server is stopping" };

/// What comes and what goes, of any WebSocket of the server's side.
#[derive(Debug)]
pub(super) struct Halves {
    pub(super) receiver: Receiver,
    pub(super) sender: Sender,
}

/// The packet by which a handler accepts a WebSocket.
pub(super) struct Acceptance<'a> {
    pub(super) packet: &'a Packet<'a>,
    /// What is in it.
    pub(super) payload: &'a Payload<'a>,
    pub(super) upgrade: Upgrade,
}

/// A WebSocket with a handler.
#[derive(Debug)]
pub(super) struct Socket {
    halves: Halves,
    /// Its handler wants to see the pings that were answered for it.
    tells_pings: bool,
    closing: Closing,
}

/// How far the close is; see the head of this file.
#[derive(Clone, Copy, Debug)]
enum Closing {
    Open,
    ClientSaid { what: Ending, until_ms: u64 },
    WeSaid { until_ms: u64 },
}

/// Writes a ping or a pong.
type WriteControl = fn(&[u8], Option<Mask>, &mut Vec<u8>);

/// How a client ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    /// By a close, which its handler answers.
    Close(Option<CloseCode>),
    /// By what cannot be read, whatever its handler says to that.
    Fault(WebSocketError),
}

/// What is to be done with bytes that come.
enum Reading {
    /// They are read, and so many bytes of messages passed on.
    Passed { room: usize },
    /// Nobody wants them.
    Dropped,
    /// They wait.
    Later,
}

impl Halves {
    fn new(deflate: Option<Deflate>) -> Self {
        let receiver = Receiver::new(Role::Server, deflate.is_some());
        Halves { receiver, sender: Sender::new(deflate) }
    }

    /// In which form it gets events.
    pub(super) fn rendering(&self) -> Rendering {
        if self.sender.compresses_all() { Rendering::CompressedMessage } else { Rendering::Message }
    }
}

impl Socket {
    /// When the other side has had its time to close; a client has it once it has taken all that was written.
    pub(super) fn closes_at_ms(&self, is_all_sent: bool) -> Option<u64> {
        match self.closing {
            Closing::Open => None,
            Closing::ClientSaid { until_ms, .. } => Some(until_ms),
            Closing::WeSaid { until_ms } => is_all_sent.then_some(until_ms),
        }
    }

    /// Whether nobody has said that it closes.
    fn is_open(&self) -> bool {
        matches!(self.closing, Closing::Open)
    }
}

impl Worker {
    /// Takes the packet by which a handler accepts a WebSocket. What body it has is the first message.
    pub(super) fn apply_acceptance(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        acceptance: &Acceptance<'_>,
    ) -> Result<Next, Fault> {
        let hold = HoldParams::read(acceptance.packet)?;
        if hold.is_some_and(|hold| hold.format != Format::Ws) {
            return Err(Fault::Format(Format::Sse.name()));
        }
        let mut halves = Halves::new(acceptance.upgrade.deflate());
        let mut out = self.scratches.take();
        let written = self.write_acceptance(acceptance, &mut halves.sender, &mut out);
        let next = match (written, hold) {
            (Err(fault), _) => Err(fault),
            (Ok(()), Some(hold)) => {
                let framing = Framing::Socket(Box::new(self.held_socket(halves, &hold)));
                self.begin_hold(now_ms, transport, key, (&hold, framing, &out));
                Ok(Next::Hold)
            }
            (Ok(()), None) => {
                let exchange = self.exchange(key);
                if acceptance.payload.credits == 0 {
                    exchange.session.add_credits(CREDITS_DEFAULT);
                }
                let tells_pings = acceptance.packet.ext.ping;
                let socket = Socket { halves, tells_pings, closing: Closing::Open };
                exchange.response = Response::Socket(Box::new(socket));
                self.send(now_ms, transport, key, &[&out]);
                if self.draining {
                    self.drain_socket(now_ms, transport, key);
                }
                Ok(Next::Open)
            }
        };
        self.scratches.give_back(out);
        next
    }

    /// Writes the response that makes a WebSocket, and the first message.
    fn write_acceptance(
        &mut self,
        Acceptance { packet, payload, upgrade }: &Acceptance<'_>,
        sender: &mut Sender,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        if payload.code != Some(SWITCHING_PROTOCOLS) {
            return Err(Fault::NotSwitched);
        }
        let reason = std::str::from_utf8(payload.reason).map_err(|_| Fault::Text)?;
        write_switch(out, upgrade, reason, payload.headers)?;
        if !payload.body.is_empty() {
            // In a hold it has no other pieces (hold.md H-13).
            let end = !payload.more || packet.ext.hold.is_some();
            let message = (kind_of(payload), payload.body, end);
            sender.message(&mut self.compression, message, None, out)?;
        }
        Ok(())
    }

    /// Whether a request wants to become a WebSocket, and has no answer.
    pub(super) fn is_handshake(&mut self, key: Key) -> bool {
        matches!(self.exchange(key).response, Response::Awaited(Some(_)))
    }

    /// Takes the packet by which a handler refuses a WebSocket: an ordinary response.
    pub(super) fn apply_rejection(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        payload: &Payload<'_>,
    ) -> Result<Next, Fault> {
        if !self.exchange(key).session.receive(payload.body.len()) {
            return Err(Fault::Credits);
        }
        let RequestParts { version, is_head } = self.exchange(key).request();
        let mut out = self.scratches.take();
        let date = &self.date;
        let request = RequestContext { version, is_head, keep_alive: false, date };
        let written = write_response(&request, payload, Extent::Whole, &mut out);
        if written.is_ok() {
            self.send(now_ms, transport, key, &[&out]);
        }
        self.scratches.give_back(out);
        written.map(|_| Next::Finished)
    }

    /// Writes a message of the handler, or a piece of one.
    pub(super) fn apply_message(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        payload: &Payload<'_>,
    ) -> Result<Next, Fault> {
        let State::Exchange(exchange) = &mut self.connections[key.index].state else {
            return Ok(Next::Open);
        };
        let Response::Socket(socket) = &mut exchange.response else { return Ok(Next::Open) };
        if let Closing::WeSaid { .. } = socket.closing {
            // It was on its way when the edge began to stop, or comes behind its handler's own close.
            return Ok(Next::Open);
        }
        let mut out = self.scratches.take();
        let message = (kind_of(payload), payload.body, !payload.more);
        let written = socket.halves.sender.message(&mut self.compression, message, None, &mut out);
        if written.is_ok() {
            self.send(now_ms, transport, key, &[&out]);
        }
        self.scratches.give_back(out);
        written?;
        Ok(Next::Open)
    }

    /// Takes a ping or a pong of the handler; `write` makes the frame.
    pub(super) fn apply_control(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        (packet, write): (&Packet<'_>, WriteControl),
    ) -> Result<Next, Fault> {
        let payload = packet.payload()?;
        let exchange = self.exchange(key);
        let Response::Socket(socket) = &exchange.response else {
            return Err(Fault::Kind(packet.kind.name()));
        };
        exchange.session.add_credits(payload.credits);
        if payload.body.len() > CONTROL_BYTES_MAX {
            return Err(Fault::ControlTooLong);
        }
        if !exchange.session.receive(payload.body.len()) {
            return Err(Fault::Credits);
        }
        if let Closing::WeSaid { .. } = socket.closing {
            return Ok(Next::Open);
        }
        let mut out = Vec::new();
        write(payload.body, None, &mut out);
        self.send(now_ms, transport, key, &[&out]);
        Ok(Next::Open)
    }

    /// Takes a close of the handler.
    pub(super) fn apply_close(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        packet: &Packet<'_>,
    ) -> Result<Next, Fault> {
        let payload = packet.payload()?;
        let Some(socket) = self.socket(key) else {
            return Err(Fault::Kind(packet.kind.name()));
        };
        let closing = socket.closing;
        let code = match payload.code {
            None => CloseCode::NORMAL,
            Some(code) => CloseCode::new(code).ok_or(Fault::CloseCode(code))?,
        };
        let reason = std::str::from_utf8(payload.body).map_err(|_| Fault::Text)?;
        let close = Close { code, reason };
        match closing {
            Closing::ClientSaid { what: Ending::Close(_), .. } => {
                self.say_close(now_ms, transport, key, Some(close));
                Ok(Next::Finished)
            }
            Closing::ClientSaid { what: Ending::Fault(error), .. } => {
                self.say_fault(now_ms, transport, key, error);
                Ok(Next::Finished)
            }
            Closing::Open => {
                self.say_close(now_ms, transport, key, Some(close));
                Ok(Next::Open)
            }
            Closing::WeSaid { .. } => Ok(Next::Open),
        }
    }

    /// Tells a client what it has broken.
    fn say_fault(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        error: WebSocketError,
    ) {
        let reason = error.to_string();
        let close = Close { code: error.code(), reason: &reason };
        self.say_close(now_ms, transport, key, Some(close));
    }

    /// Says that the edge ends a WebSocket, unless it has, and waits for the client to say so too.
    pub(super) fn say_close(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        close: Option<Close<'_>>,
    ) {
        let until_ms = now_ms.saturating_add(self.config.timeouts.close_ms);
        let Some(socket) = self.socket(key) else { return };
        if let Closing::WeSaid { .. } = socket.closing {
            return;
        }
        socket.closing = Closing::WeSaid { until_ms };
        socket.halves.receiver.discard();
        let mut out = Vec::new();
        Sender::close(close.as_ref(), None, &mut out);
        if self.send(now_ms, transport, key, &[&out]) {
            self.rearm(key);
        }
    }

    /// All that was written is out: from now on it matters how long the client takes to close.
    pub(super) fn handle_socket_drained(&mut self, now_ms: u64, key: Key) {
        let until_ms = now_ms.saturating_add(self.config.timeouts.close_ms);
        if let Some(Socket { closing: Closing::WeSaid { until_ms: until }, .. }) = self.socket(key)
        {
            *until = until_ms;
        }
    }

    /// Sends the client of a WebSocket away, unless it goes by itself.
    pub(super) fn drain_socket(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        if self.socket(key).is_some_and(|socket| socket.is_open()) {
            self.say_close(now_ms, transport, key, Some(STOPPING));
        }
    }

    /// Ends a WebSocket whose client, or handler, cannot be borne any longer.
    pub(super) fn fail_socket(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        close: Close<'_>,
    ) {
        self.say_last(now_ms, transport, key, close);
        self.finish(now_ms, key);
    }

    /// Says the close of a WebSocket whose handler has no say any more: this one, if its client has broken nothing.
    pub(super) fn say_last(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        close: Close<'_>,
    ) {
        match self.socket(key).map(|socket| socket.closing) {
            Some(Closing::ClientSaid { what: Ending::Fault(error), .. }) => {
                self.say_fault(now_ms, transport, key, error);
            }
            Some(_) | None => self.say_close(now_ms, transport, key, Some(close)),
        }
    }

    /// The time to close is up.
    pub(super) fn expire_close(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        match self.socket(key).map(|socket| socket.closing) {
            // The handler says nothing: the client is answered in its own words (RFC 6455 §5.5.1).
            Some(Closing::ClientSaid { what: Ending::Close(code), .. }) => {
                let close = code.map(|code| Close { code, reason: "" });
                self.say_close(now_ms, transport, key, close);
            }
            Some(Closing::ClientSaid { what: Ending::Fault(error), .. }) => {
                self.say_fault(now_ms, transport, key, error);
            }
            Some(Closing::WeSaid { .. }) => {}
            Some(Closing::Open) | None => return,
        }
        // What the kernel still has for the client is not to be destroyed.
        self.finish(now_ms, key);
    }

    /// Passes on what came of a WebSocket, as far as its handler takes it.
    pub(super) fn read_frames(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        input: &[u8],
    ) -> Step {
        let socket = self.socket(key);
        let (has_rest, client_has_said) = socket.map_or((false, false), |socket| {
            let has_said = matches!(socket.closing, Closing::ClientSaid { .. });
            (socket.halves.receiver.has_rest(), has_said)
        });
        if input.is_empty() && !has_rest {
            // Who has said that it closes is answered, though it sends nothing more.
            if self.connections[key.index].eof && !client_has_said {
                self.close(key, CloseReason::ClientLeft);
            }
            return Step::Wait;
        }
        let room = match self.reading(key) {
            Reading::Passed { room } => room,
            Reading::Dropped if input.is_empty() => return Step::Wait,
            Reading::Dropped => return Step::Used(input.len()),
            Reading::Later => return Step::Wait,
        };
        let mut out = self.scratches.take();
        let mut pool = std::mem::take(&mut self.compression);
        let received = self
            .socket(key)
            .map(|socket| socket.halves.receiver.receive(&mut pool, input, (&mut out, room)));
        self.compression = pool;
        let step = match received {
            None | Some(Ok((0, Received::Nothing))) => Step::Wait,
            Some(Ok((used, Received::Nothing))) => Step::Used(used),
            Some(Ok((used, received))) => {
                let timeouts = self.config.timeouts;
                self.exchange(key).handle_progress(now_ms, &timeouts);
                self.handle_received(now_ms, transport, key, (received, &out));
                Step::Used(used)
            }
            Some(Err(error)) => {
                self.handle_fault(now_ms, key, error);
                Step::Used(input.len())
            }
        };
        self.scratches.give_back(out);
        step
    }

    /// What is to be done with bytes that come.
    fn reading(&mut self, key: Key) -> Reading {
        let buffer_bytes = self.config.buffer_bytes as usize;
        let connection = &self.connections[key.index];
        let unsent_bytes = connection.output.len();
        let State::Exchange(exchange) = &connection.state else { return Reading::Later };
        let Response::Socket(socket) = &exchange.response else { return Reading::Later };
        let room = exchange.session.credits().min(buffer_bytes);
        match socket.closing {
            Closing::ClientSaid { .. } => Reading::Dropped,
            // Only the close is wanted, for which nobody needs credits.
            Closing::WeSaid { .. } => Reading::Passed { room: buffer_bytes },
            // Who sends pings and takes no pongs has to wait for itself.
            Closing::Open if unsent_bytes > buffer_bytes => Reading::Later,
            Closing::Open if exchange.session.handler().is_none() => Reading::Later,
            Closing::Open => {
                // Pings are answered all the same.
                let room = if self.must_wait(key) { 0 } else { room };
                Reading::Passed { room }
            }
        }
    }

    /// The client has broken the protocol: its handler is told that it closes.
    fn handle_fault(&mut self, now_ms: u64, key: Key, error: WebSocketError) {
        let until_ms = now_ms.saturating_add(self.config.timeouts.close_ms);
        let Some(socket) = self.socket(key) else { return };
        if let Closing::WeSaid { .. } = socket.closing {
            return self.finish(now_ms, key);
        }
        socket.closing = Closing::ClientSaid { what: Ending::Fault(error), until_ms };
        let reason = error.to_string();
        self.tell_close(key, Some(Close { code: error.code(), reason: &reason }));
        self.rearm(key);
    }

    fn handle_received(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        (received, bytes): (Received, &[u8]),
    ) {
        let Some(socket) = self.socket(key) else { return };
        let (tells_pings, closing) = (socket.tells_pings, socket.closing);
        match (received, closing) {
            (Received::Close, _) => self.handle_close(now_ms, transport, key, bytes),
            (_, Closing::WeSaid { .. }) | (Received::Nothing, _) => {}
            (Received::Message { kind, end }, _) => {
                self.exchange(key).session.spend(bytes.len());
                self.send_to_handler(key, Kind::Data, |fields| {
                    fields.bytes("content-type", name_of(kind));
                    fields.bytes("body", bytes);
                    fields.flag("more", !end);
                });
            }
            (Received::Ping, _) => {
                let mut pong = Vec::new();
                Sender::pong(bytes, None, &mut pong);
                if self.send(now_ms, transport, key, &[&pong]) && tells_pings {
                    self.tell_control(key, Kind::Ping, bytes);
                }
            }
            (Received::Pong, _) => self.tell_control(key, Kind::Pong, bytes),
        }
    }

    /// Tells the handler of a ping or a pong, if it takes so many bytes: nothing waits for these.
    fn tell_control(&mut self, key: Key, kind: Kind, bytes: &[u8]) {
        let is_stalled = self.must_wait(key);
        let session = &mut self.exchange(key).session;
        if bytes.len().max(1) <= session.credits() && !is_stalled {
            session.spend(bytes.len());
            self.send_to_handler(key, kind, |fields| fields.bytes("body", bytes));
        }
    }

    /// The client has said that it closes.
    fn handle_close(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        bytes: &[u8],
    ) {
        let close = Close::parse(bytes).expect("the receiver has read it");
        let until_ms = now_ms.saturating_add(self.config.timeouts.close_ms);
        self.tell_close(key, close);
        let Some(socket) = self.socket(key) else { return };
        match socket.closing {
            Closing::WeSaid { .. } => self.complete(now_ms, transport, key),
            Closing::Open | Closing::ClientSaid { .. } => {
                let what = Ending::Close(close.map(|close| close.code));
                socket.closing = Closing::ClientSaid { what, until_ms };
                self.rearm(key);
            }
        }
    }

    /// Tells the handler that its client closes.
    fn tell_close(&mut self, key: Key, close: Option<Close<'_>>) {
        self.send_to_handler(key, Kind::Close, |fields| {
            if let Some(close) = close {
                fields.int("code", close.code.get().into());
                fields.bytes("body", close.reason.as_bytes());
            }
        });
    }

    fn socket(&mut self, key: Key) -> Option<&mut Socket> {
        let State::Exchange(exchange) = &mut self.connections.get_mut(key)?.state else {
            return None;
        };
        let Exchange { response: Response::Socket(socket), .. } = &mut **exchange else {
            return None;
        };
        Some(socket)
    }
}

/// What a message of a handler is.
fn kind_of(payload: &Payload<'_>) -> MessageKind {
    match payload.content_type {
        b"binary" => MessageKind::Binary,
        _ => MessageKind::Text,
    }
}

fn name_of(kind: MessageKind) -> &'static [u8] {
    match kind {
        MessageKind::Text => b"text",
        MessageKind::Binary => b"binary",
    }
}
