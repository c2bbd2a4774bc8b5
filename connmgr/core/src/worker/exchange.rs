//! A request that is with a handler: its packets, and the answer that they make.

use zhttp::hold::{Format, HoldParams};
use zhttp::{Fields, Headers, Kind, Packet, PacketError, Payload};

use super::connection::{Exchange, Framing, RequestParts, Response, State};
use super::socket::{Acceptance, REJECTED};
use super::speech::message_of;
use super::{CloseReason, INVALID_ANSWER, Named, Output, Transport, Worker};
use crate::http1::{
    BodyEncoder, BodyMismatch, BodyPlan, ErrorResponse, RequestContext, ResponseError,
    ResponseHead, WrittenHead, write_head,
};
use crate::hub::ToHub;
use crate::session::BadSeq;
use crate::slab::Key;
use crate::websocket::{Close, CloseCode, NotText, Sender};

/// Why a packet ends its session: the handler's fault, each.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Seq(#[from] BadSeq),
    #[error(transparent)]
    Packet(#[from] PacketError),
    #[error(transparent)]
    Head(#[from] ResponseError),
    #[error(transparent)]
    Body(#[from] BodyMismatch),
    #[error("code is missing")]
    NoCode,
    /// hold.md H-15.
    #[error("format {0} has no place in this response")]
    Format(&'static str),
    #[error("more body than the credits allow")]
    Credits,
    #[error("a body of more than {0} bytes")]
    TooLarge(usize),
    #[error("type {0} has no place in this session")]
    Kind(&'static str),
    #[error("a WebSocket is accepted with code 101")]
    NotSwitched,
    #[error("text is not UTF-8")]
    Text,
    #[error(transparent)]
    Message(#[from] NotText),
    #[error("a control frame of more than 125 bytes")]
    ControlTooLong,
    #[error("close code {0} must not be sent")]
    CloseCode(u16),
}

/// What a packet leads to.
pub(super) enum Next {
    /// The session goes on.
    Open,
    /// The answer is whole.
    Finished,
    /// The connection is held from now on.
    Hold,
    /// The handler does not want to go on.
    Given(&'static str),
}

impl Worker {
    /// Takes a packet for the session that a connection is in.
    pub(super) fn handle_exchange_packet(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        (packet, seq): (&Packet<'_>, Option<u32>),
    ) {
        let State::Exchange(exchange) = &mut self.connections[key.index].state else { return };
        let next = match exchange.session.handle_packet(&mut self.handlers, packet.from, seq) {
            Ok(()) => {
                exchange.heard_ms = now_ms;
                self.apply(now_ms, transport, key, packet)
            }
            Err(error) => Err(error.into()),
        };
        if self.connections.get(key).is_none() {
            return;
        }
        match next {
            Ok(Next::Open) => {
                self.repay(key);
                self.process_input(now_ms, transport, key);
            }
            Ok(Next::Hold) => {}
            Ok(Next::Finished) => self.complete(now_ms, transport, key),
            Ok(Next::Given(why)) => {
                self.give_up(now_ms, transport, key, &ErrorResponse::new(500, why));
            }
            Err(fault) => {
                self.refuse_packet(packet.from, fault.to_string());
                self.fail_session(now_ms, transport, key, packet.from);
            }
        }
    }

    /// Ends a session in which `from` said what cannot be, and lets it know.
    pub(super) fn fail_session(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        from: &[u8],
    ) {
        let State::Exchange(exchange) = &mut self.connections[key.index].state else { return };
        exchange.session.handle_sender(&mut self.handlers, from);
        self.send_to_handler(key, Kind::Error, |fields| {
            fields.bytes("condition", b"bad-request");
        });
        self.give_up(now_ms, transport, key, &INVALID_ANSWER);
    }

    fn apply(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        packet: &Packet<'_>,
    ) -> Result<Next, Fault> {
        match packet.kind {
            Kind::Data => self.apply_data(now_ms, transport, key, packet),
            Kind::Credit => {
                let credits = packet.payload()?.credits;
                self.exchange(key).session.add_credits(credits);
                Ok(Next::Open)
            }
            Kind::KeepAlive => Ok(Next::Open),
            Kind::Cancel => Ok(Next::Given("The handler cancelled the request")),
            Kind::Close => self.apply_close(now_ms, transport, key, packet),
            Kind::Ping => self.apply_control(now_ms, transport, key, (packet, Sender::ping)),
            Kind::Pong => self.apply_control(now_ms, transport, key, (packet, Sender::pong)),
            Kind::Error => match packet.payload() {
                Ok(payload) if self.is_handshake(key) && payload.condition == Some(REJECTED) => {
                    self.apply_rejection(now_ms, transport, key, &payload)
                }
                Ok(_) | Err(_) => Ok(Next::Given("The handler failed")),
            },
            Kind::HandoffStart => {
                // It gets what it is still owed first, and nothing behind the word to proceed.
                self.repay(key);
                self.send_to_handler(key, Kind::HandoffProceed, |_| {});
                self.exchange(key).session.release();
                Ok(Next::Open)
            }
            Kind::HandoffProceed
            | Kind::Hello
            | Kind::Bye
            | Kind::Feed
            | Kind::Unfeed
            | Kind::Range
            | Kind::Events
            | Kind::Gap
            | Kind::Heads
            | Kind::Hold
            | Kind::Send
            | Kind::Message
            | Kind::Closed => Err(Fault::Kind(packet.kind.name())),
        }
    }

    fn apply_data(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        packet: &Packet<'_>,
    ) -> Result<Next, Fault> {
        let payload = packet.payload()?;
        let exchange = self.exchange(key);
        exchange.session.add_credits(payload.credits);
        if !exchange.session.receive(payload.body.len()) {
            return Err(Fault::Credits);
        }
        match &exchange.response {
            Response::Awaited(None) => self.apply_head(now_ms, transport, key, packet, &payload),
            Response::Awaited(Some(upgrade)) => {
                let acceptance = Acceptance { packet, payload: &payload, upgrade: **upgrade };
                self.apply_acceptance(now_ms, transport, key, &acceptance)
            }
            Response::Socket(_) => self.apply_message(now_ms, transport, key, &payload),
            Response::Streaming(_) => self.apply_body(now_ms, transport, key, &payload),
        }
    }

    fn apply_head(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        packet: &Packet<'_>,
        payload: &Payload<'_>,
    ) -> Result<Next, Fault> {
        let hold = HoldParams::read(packet)?;
        if hold.is_some_and(|hold| hold.format == Format::Ws) {
            return Err(Fault::Format(Format::Ws.name()));
        }
        let is_held = hold.is_some();
        let mut out = self.scratches.take();
        let exchange = self.exchange(key);
        // What is left of the request's body would be read as the next request.
        let keep_alive = exchange.keep_alive && exchange.decoder.is_done() && !self.draining;
        let RequestParts { version, is_head } = self.exchange(key).request();
        let request = RequestContext { version, is_head, keep_alive, date: &self.date };
        let extent = match is_held {
            true => Extent::Held,
            false if payload.more => Extent::Streamed,
            false => Extent::Whole,
        };
        let written = write_response(&request, payload, extent, &mut out);
        let next = written.map(|written| {
            self.exchange(key).keep_alive = written.keep_alive;
            written.body
        });
        let next = next.map(|encoder| match hold {
            // Only a response that has content can be held.
            Some(hold) if encoder != BodyEncoder::None => {
                let framing = Framing::Response(encoder);
                self.begin_hold(now_ms, transport, key, (&hold, framing, &out));
                Next::Hold
            }
            Some(_) | None => {
                self.exchange(key).response = Response::Streaming(encoder);
                self.send(now_ms, transport, key, &[&out]);
                if payload.more && !is_held { Next::Open } else { Next::Finished }
            }
        });
        self.scratches.give_back(out);
        next
    }

    fn apply_body(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        payload: &Payload<'_>,
    ) -> Result<Next, Fault> {
        let exchange = self.exchange(key);
        let Response::Streaming(encoder) = &mut exchange.response else { return Ok(Next::Open) };
        let piece = encoder.piece(payload.body.len())?;
        let body = if piece.is_sent { payload.body } else { b"" };
        let last = if payload.more {
            b""
        } else {
            std::mem::replace(encoder, BodyEncoder::None).finish()?
        };
        let mut tail = [0; 8];
        let tail_len = piece.tail.len() + last.len();
        tail[..piece.tail.len()].copy_from_slice(piece.tail);
        tail[piece.tail.len()..tail_len].copy_from_slice(last);
        let slices: [&[u8]; 3] = [piece.head.as_bytes(), body, &tail[..tail_len]];
        self.send(now_ms, transport, key, &slices);
        Ok(if payload.more { Next::Open } else { Next::Finished })
    }

    pub(super) fn exchange(&mut self, key: Key) -> &mut Exchange {
        match &mut self.connections[key.index].state {
            State::Exchange(exchange) => exchange,
            State::Reading(_) | State::Req(_) | State::Held(_) | State::Closing(_) => {
                unreachable!("only called for a connection in an exchange")
            }
        }
    }

    /// Gives the handler credits for what the client has taken.
    pub(super) fn repay(&mut self, key: Key) {
        let connection = &mut self.connections[key.index];
        let State::Exchange(exchange) = &mut connection.state else { return };
        if exchange.session.handler().is_none() {
            // Whoever takes the session over gets them.
            return;
        }
        let credits = exchange.session.repay(connection.output.len());
        if credits > 0 {
            self.send_to_handler(key, Kind::Credit, |fields| {
                fields.int("credits", credits.into());
            });
        }
    }

    /// Sends a packet to the handler of the session that a connection is in.
    pub(super) fn send_to_handler(
        &mut self,
        key: Key,
        kind: Kind,
        payload: impl FnOnce(&mut Fields<'_, '_>),
    ) {
        let State::Exchange(exchange) = &mut self.connections[key.index].state else { return };
        let Some(to) = exchange.session.handler().cloned() else { return };
        let mut out = self.scratches.take();
        let from = &self.config.instance_id;
        exchange.session.write((from, kind), &mut out, |_| {}, payload);
        let packet = self.scratches.keep(out);
        self.outputs.push_back(Output::Hub(ToHub::Packet { to, packet }));
    }

    /// The answer is out: the connection goes on or ends.
    pub(super) fn complete(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        let was_full = self.room(key) == 0;
        let Some(exchange) = self.take_exchange(now_ms, key) else { return };
        if exchange.keep_alive && !self.draining {
            self.read_next(now_ms, transport, key);
        } else {
            self.finish(now_ms, key);
        }
        self.resume_reading(key, was_full);
    }

    /// The handler will not answer: the edge does, or ends the connection if the head is out.
    fn give_up(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        error: &ErrorResponse<'_>,
    ) {
        let was_full = self.room(key) == 0;
        if matches!(self.exchange(key).response, Response::Socket(_)) {
            let close = Close { code: CloseCode::INTERNAL, reason: error.text };
            self.say_last(now_ms, transport, key, close);
            if self.connections.get(key).is_none() {
                return;
            }
        }
        let Some(exchange) = self.take_exchange(now_ms, key) else { return };
        match exchange.response {
            Response::Awaited(_) => {
                self.answer_error(now_ms, transport, key, exchange.request(), error);
                self.resume_reading(key, was_full);
            }
            Response::Streaming(_) => self.close(key, CloseReason::Handler),
            Response::Socket(_) => {
                self.finish(now_ms, key);
                self.resume_reading(key, was_full);
            }
        }
    }

    /// Ends a session that its handler has ended, or has nothing to hear about.
    fn take_exchange(&mut self, now_ms: u64, key: Key) -> Option<Box<Exchange>> {
        match self.begin_reading(now_ms, key) {
            State::Exchange(exchange) => {
                let id = exchange.session.id().text();
                self.outputs.push_back(Output::Hub(ToHub::Done { id, cancel: None }));
                Some(exchange)
            }
            other @ (State::Reading(_) | State::Req(_) | State::Held(_) | State::Closing(_)) => {
                self.connections[key.index].state = other;
                None
            }
        }
    }

    /// The hub has no handler for the session of that id, or for what its client has said.
    pub(super) fn refuse_session(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        id: &[u8],
        error: &ErrorResponse<'_>,
    ) {
        if let Some((session, number)) = message_of(id) {
            return self.refuse_message(now_ms, transport, session, number);
        }
        match self.find(id) {
            Named::Exchange(key) => self.give_up(now_ms, transport, key, error),
            Named::Req(key) => self.fail_req(now_ms, transport, key, error),
            Named::Held(_) | Named::Nothing | Named::Elsewhere => {}
        }
    }

    /// What a session was to tell its handler is lost: it ends, and the handler is told.
    pub(super) fn abandon_session(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        id: &[u8],
        error: &ErrorResponse<'_>,
    ) {
        let key = match self.find(id) {
            Named::Exchange(key) => key,
            // Nothing goes from there to a handler but what its client says.
            Named::Held(key) if self.is_unanswered(key) => {
                return self.end_unanswered(now_ms, transport, key);
            }
            Named::Held(_) | Named::Req(_) | Named::Nothing | Named::Elsewhere => return,
        };
        let State::Exchange(exchange) = &self.connections[key.index].state else { return };
        match exchange.response {
            Response::Awaited(_) => {
                let request = exchange.request();
                self.answer_error(now_ms, transport, key, request, error);
            }
            Response::Streaming(_) => self.close(key, CloseReason::Handler),
            Response::Socket(_) => {
                let close = Close { code: CloseCode::INTERNAL, reason: error.text };
                self.fail_socket(now_ms, transport, key, close);
            }
        }
    }

    /// The connection of a session is gone, or no longer wants an answer: the handler is told.
    pub(super) fn end_session(&mut self, mut exchange: Exchange) {
        let id = exchange.session.id().text();
        let handler = exchange.session.handler().cloned();
        let cancel = match handler {
            Some(handler) => {
                let seq = exchange.session.next_seq();
                self.cancels.add(handler, *exchange.session.id(), seq);
                None
            }
            None => {
                let mut out = self.scratches.take();
                let from = &self.config.instance_id;
                exchange.session.write((from, Kind::Cancel), &mut out, |_| {}, |_| {});
                Some(self.scratches.keep(out))
            }
        };
        self.outputs.push_back(Output::Hub(ToHub::Done { id, cancel }));
    }
}

/// What of a response its first packet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Extent {
    /// All of it.
    Whole,
    /// More of it comes.
    Streamed,
    /// Its end is open, whatever the handler says of it (hold.md H-12, H-13).
    Held,
}

/// Writes the head of a response and what its first packet brings of the content. Says how the content goes on.
pub(super) fn write_response(
    request: &RequestContext<'_>,
    payload: &Payload<'_>,
    extent: Extent,
    out: &mut Vec<u8>,
) -> Result<WrittenHead, Fault> {
    let code = payload.code.ok_or(Fault::NoCode)?;
    let reason = std::str::from_utf8(payload.reason)
        .map_err(|_| PacketError::Field { field: "reason", want: "UTF-8" })?;
    let plan = match extent {
        Extent::Whole => BodyPlan::Whole(payload.body.len() as u64),
        Extent::Streamed | Extent::Held => BodyPlan::Streamed,
    };
    let headers = ResponseHeaders { headers: payload.headers, is_held: extent == Extent::Held };
    let mut written = write_head(out, request, ResponseHead { code, reason, headers }, plan)?;
    written.body.encode(payload.body, out)?;
    if extent == Extent::Whole {
        let last = std::mem::replace(&mut written.body, BodyEncoder::None).finish()?;
        out.extend_from_slice(last);
    }
    Ok(written)
}

/// The headers of a response; of one that is held without a length, which the handler cannot know.
#[derive(Clone, Copy)]
struct ResponseHeaders<'a> {
    headers: Headers<'a>,
    is_held: bool,
}

impl<'a> Iterator for ResponseHeaders<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let is_held = self.is_held;
        self.headers.find(|(name, _)| !is_held || !name.eq_ignore_ascii_case(b"content-length"))
    }
}
