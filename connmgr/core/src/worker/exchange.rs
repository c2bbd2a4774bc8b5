//! A request that is with a handler: its packets, and the answer that they make.

use bytes::Bytes;
use zhttp::hold::HoldParams;
use zhttp::{Fields, Headers, Kind, Packet, PacketError, Payload};

use super::connection::{Exchange, Response, State};
use super::{CloseReason, Output, RequestParts, Transport, Worker};
use crate::http1::{
    BodyEncoder, BodyMismatch, BodyPlan, ErrorResponse, RequestContext, ResponseError,
    ResponseHead, write_head,
};
use crate::hub::ToHub;
use crate::session::{BadSeq, SessionId};
use crate::slab::Key;

/// Why a packet ends its session: the handler's fault, each.
#[derive(Debug, thiserror::Error)]
enum Fault {
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
    #[error("more body than the credits allow")]
    Credits,
    #[error("type {0} has no place in this session")]
    Kind(&'static str),
}

/// What a packet leads to.
enum Next {
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
        let next = match exchange.session.handle_packet(packet.from, seq) {
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
            Ok(Next::Open) => self.process_input(now_ms, transport, key),
            Ok(Next::Hold) => {}
            Ok(Next::Finished) => self.complete(now_ms, transport, key),
            Ok(Next::Given(why)) => {
                self.give_up(now_ms, transport, key, &ErrorResponse::new(500, why));
            }
            Err(fault) => {
                let from = packet.from.to_vec();
                self.refuse_packet(&from, fault.to_string());
                let condition = "bad-request";
                self.send_to_handler(now_ms, key, Kind::Error, |fields| {
                    fields.bytes("condition", condition.as_bytes());
                });
                let error = ErrorResponse::new(500, "The handler sent an invalid response");
                self.give_up(now_ms, transport, key, &error);
            }
        }
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
            Kind::Error => Ok(Next::Given("The handler failed")),
            Kind::HandoffStart => {
                self.send_to_handler(now_ms, key, Kind::HandoffProceed, |_| {});
                Ok(Next::Open)
            }
            Kind::HandoffProceed
            | Kind::Close
            | Kind::Ping
            | Kind::Pong
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
        match exchange.response {
            Response::Awaited => self.apply_head(now_ms, transport, key, packet, &payload),
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
        let code = payload.code.ok_or(Fault::NoCode)?;
        let hold = HoldParams::read(packet)?;
        let reason = std::str::from_utf8(payload.reason)
            .map_err(|_| PacketError::Field { field: "reason", want: "UTF-8" })?;
        let State::Exchange(exchange) = &mut self.connections[key.index].state else {
            return Ok(Next::Open);
        };
        let plan = if payload.more || hold.is_some() {
            BodyPlan::Streamed
        } else {
            BodyPlan::Whole(payload.body.len() as u64)
        };
        let request = RequestContext {
            version: exchange.version,
            is_head: exchange.is_head,
            // What is left of the request's body would be read as the next request.
            keep_alive: exchange.keep_alive && exchange.decoder.is_done() && !self.draining,
            date: &self.date,
        };
        let headers = ResponseHeaders { headers: payload.headers, is_held: hold.is_some() };
        let mut out = std::mem::take(&mut self.scratch);
        out.clear();
        let head = ResponseHead { code, reason, headers };
        let written = write_head(&mut out, &request, head, plan);
        let result = written.map_err(Fault::from).and_then(|written| {
            exchange.keep_alive = written.keep_alive;
            let mut encoder = written.body;
            encoder.encode(payload.body, &mut out)?;
            let is_over = !payload.more && hold.is_none();
            if is_over {
                out.extend_from_slice(encoder.finish()?);
                encoder = BodyEncoder::None;
            }
            let holds = hold.is_some() && encoder != BodyEncoder::None;
            exchange.response = Response::Streaming(encoder);
            Ok(if holds {
                Next::Hold
            } else if is_over || hold.is_some() {
                Next::Finished
            } else {
                Next::Open
            })
        });
        if result.is_ok() && self.send(transport, key, &[&out]) {
            let unsent = self.connections[key.index].output.len();
            match (&result, hold) {
                (Ok(Next::Hold), Some(hold)) => self.begin_hold(now_ms, key, &hold),
                (Ok(Next::Open), _) => self.repay(key, unsent),
                _ => {}
            }
        }
        self.scratch = out;
        result
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
        if self.send(transport, key, &slices) && payload.more {
            let connection = &mut self.connections[key.index];
            let unsent = connection.output.len();
            self.exchange(key).progress_ms = now_ms;
            self.repay(key, unsent);
        }
        Ok(if payload.more { Next::Open } else { Next::Finished })
    }

    fn exchange(&mut self, key: Key) -> &mut Exchange {
        match &mut self.connections[key.index].state {
            State::Exchange(exchange) => exchange,
            State::Reading(_) | State::Held(_) | State::Closing(_) => {
                unreachable!("only called for a connection in an exchange")
            }
        }
    }

    /// Gives the handler credits for what the client has taken.
    pub(super) fn repay(&mut self, key: Key, unsent: usize) {
        let State::Exchange(exchange) = &mut self.connections[key.index].state else { return };
        let credits = exchange.session.repay(unsent);
        if credits > 0 {
            let now_ms = exchange.heard_ms.max(exchange.progress_ms);
            self.send_to_handler(now_ms, key, Kind::Credit, |fields| {
                fields.int("credits", credits.into());
            });
        }
    }

    /// Sends a packet to the handler of the session that a connection is in.
    pub(super) fn send_to_handler(
        &mut self,
        now_ms: u64,
        key: Key,
        kind: Kind,
        payload: impl FnOnce(&mut Fields<'_, '_>),
    ) {
        let State::Exchange(exchange) = &mut self.connections[key.index].state else { return };
        let Some(to) = exchange.session.handler().cloned() else { return };
        exchange.spoke_ms = now_ms;
        let packet = exchange.session.write(&self.config.instance_id, kind, |_| {}, payload);
        self.outputs.push_back(Output::Hub(ToHub::Packet { to, packet }));
    }

    /// The answer is out: the connection goes on or ends.
    fn complete(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        let connection = &mut self.connections[key.index];
        let State::Exchange(exchange) = &connection.state else { return };
        let goes_on = exchange.keep_alive && !self.draining;
        let id = exchange.session.id().to_string().into();
        self.outputs.push_back(Output::Hub(ToHub::Done { id, cancel: None }));
        connection.state =
            State::Reading(super::connection::Reading { since_ms: now_ms, scanner: None });
        if goes_on {
            self.read_next(now_ms, transport, key);
        } else {
            self.finish(now_ms, key);
        }
    }

    /// The handler will not answer: the edge does, or ends the connection if the head is out.
    fn give_up(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        error: &ErrorResponse<'_>,
    ) {
        let connection = &mut self.connections[key.index];
        let State::Exchange(exchange) = &connection.state else { return };
        let request = RequestParts { version: exchange.version, is_head: exchange.is_head };
        let is_awaited = matches!(exchange.response, Response::Awaited);
        let id = exchange.session.id().to_string().into();
        self.outputs.push_back(Output::Hub(ToHub::Done { id, cancel: None }));
        connection.state =
            State::Reading(super::connection::Reading { since_ms: now_ms, scanner: None });
        if is_awaited {
            self.answer_error(now_ms, transport, key, request, error);
        } else {
            self.close(key, CloseReason::Handler);
        }
    }

    /// The hub has no handler for the session of that id.
    pub(super) fn refuse_session(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        id: &Bytes,
        error: &ErrorResponse<'_>,
    ) {
        let Some(session) = SessionId::parse(id) else { return };
        let Some(key) = self.connections.key_at(session.slot) else { return };
        if matches!(&self.connections[key.index].state,
            State::Exchange(exchange) if *exchange.session.id() == session)
        {
            self.give_up(now_ms, transport, key, error);
        }
    }

    /// The connection of a session is gone, or no longer wants an answer: the handler is told.
    pub(super) fn end_session(&mut self, mut exchange: Exchange) {
        let id = exchange.session.id().to_string().into();
        let handler = exchange.session.handler().cloned();
        let cancel = exchange.session.write(&self.config.instance_id, Kind::Cancel, |_| {}, |_| {});
        let done = match handler {
            Some(to) => {
                self.outputs.push_back(Output::Hub(ToHub::Packet { to, packet: cancel }));
                ToHub::Done { id, cancel: None }
            }
            None => ToHub::Done { id, cancel: Some(cancel) },
        };
        self.outputs.push_back(Output::Hub(done));
    }
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
