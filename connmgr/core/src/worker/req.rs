//! Req mode: the whole request goes to a handler in one packet, and the whole answer comes in one
//! (zhttp-spec/zhttp.md §1). So any ZeroMQ REP socket is a handler.
//!
//! ```text
//!            the whole body            an answer
//!   Reading ────────────────▶ Awaiting ──────────▶ the connection reads on, or ends
//! ```
//!
//! There is no flow control, no numbering and no address to send anything else to: a client that leaves is not told to
//! the handler, whose answer is then dropped. What the flow control of stream mode bounds is bounded here by
//! [`WorkerConfig::body_bytes_max`](super::WorkerConfig::body_bytes_max), both ways; and one timer runs from the head of
//! the request to the answer.

use zhttp::{Envelope, Id, Kind, Packet};

use super::connection::{RequestParts, State};
use super::exchange::{Extent, Fault, write_response};
use super::input::{Step, scheme, write_peer, write_request};
use super::timers::{Expiry, GATEWAY_TIMEOUT, REQUEST_TIMEOUT};
use super::{CloseReason, INVALID_ANSWER, Output, Transport, Worker};
use crate::http1::{
    BodyDecoder, BodyFraming, CONTINUE, ErrorResponse, HeadSpan, RequestContext, RequestHead,
};
use crate::hub::{Class, Pending, ToHub};
use crate::session::SessionId;
use crate::slab::Key;

/// A request in req mode.
#[derive(Debug)]
pub(super) struct ReqExchange {
    pub(super) id: SessionId,
    request: RequestParts,
    keep_alive: bool,
    stage: Stage,
    /// When its head was complete.
    began_ms: u64,
    /// When a client that has half-closed is taken to be gone.
    pub(super) eof_until_ms: Option<u64>,
}

#[derive(Debug)]
enum Stage {
    /// The body comes.
    Reading(Box<Upload>),
    /// The request is with a handler, or on its way to one.
    Awaiting,
}

/// A request whose body is not complete.
#[derive(Debug)]
struct Upload {
    /// The head, as it came: it is parsed again when there is a body to send with it.
    head: Box<[u8]>,
    decoder: BodyDecoder,
    body: Vec<u8>,
    /// The client waits for `100 Continue`.
    expects_continue: bool,
}

const TOO_LARGE: ErrorResponse<'_> = ErrorResponse::new(413, "Request body too large");

impl ReqExchange {
    /// What of the request an answer depends on.
    pub(super) fn request(&self) -> RequestParts {
        self.request
    }

    /// When it is given up, and how the client is told.
    pub(super) fn expiry(&self, req_ms: u64) -> (u64, Expiry) {
        let error = match self.stage {
            Stage::Reading(_) => REQUEST_TIMEOUT,
            Stage::Awaiting => GATEWAY_TIMEOUT,
        };
        (self.began_ms.saturating_add(req_ms), Expiry::Answer(error))
    }

    /// Checks that what was read of a body is within its limit.
    pub(super) fn check_invariants(&self, body_bytes_max: usize) {
        if let Stage::Reading(upload) = &self.stage {
            assert!(upload.body.len() <= body_bytes_max, "bodies are bounded");
            assert!(!upload.decoder.is_done(), "a whole request is sent");
        }
    }
}

impl Worker {
    /// Begins with a request, `raw` being its head as it came.
    pub(super) fn begin_req(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        (head, raw): (&RequestHead<'_>, &[u8]),
    ) {
        let request = RequestParts { version: head.version, is_head: head.method == "HEAD" };
        let body_bytes_max = self.config.body_bytes_max as u64;
        if matches!(head.body, BodyFraming::Length(bytes) if bytes > body_bytes_max) {
            return self.answer_error(now_ms, transport, key, request, &TOO_LARGE);
        }
        let id = self.next_session_id(key);
        let decoder = BodyDecoder::new(head.body);
        let stage = if decoder.is_done() {
            self.send_req(transport, key, id, (head, b""));
            Stage::Awaiting
        } else {
            Stage::Reading(Box::new(Upload {
                head: raw.into(),
                decoder,
                body: Vec::new(),
                expects_continue: head.expect_continue,
            }))
        };
        let connection = &mut self.connections[key.index];
        let eof_until_ms = connection.first_eof_until_ms(now_ms, &self.config.timeouts);
        connection.state = State::Req(Box::new(ReqExchange {
            id,
            request,
            keep_alive: head.keep_alive,
            stage,
            began_ms: now_ms,
            eof_until_ms,
        }));
        self.rearm(key);
    }

    /// Collects what came of a body.
    pub(super) fn read_req(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        input: &[u8],
    ) -> Step {
        let body_bytes_max = self.config.body_bytes_max;
        let connection = &mut self.connections[key.index];
        let State::Req(exchange) = &mut connection.state else { return Step::Wait };
        let Stage::Reading(upload) = &mut exchange.stage else { return Step::Wait };
        if input.is_empty() {
            if connection.eof {
                // The rest of the body will never come.
                self.close(key, CloseReason::ClientLeft);
            } else if std::mem::take(&mut upload.expects_continue) {
                self.send(now_ms, transport, key, &[CONTINUE]);
            }
            return Step::Wait;
        }
        upload.expects_continue = false;
        let decoded = match upload.decoder.decode(input) {
            Ok(decoded) => decoded,
            Err(error) => {
                let (request, text) = (exchange.request, error.to_string());
                let error = ErrorResponse::new(error.status(), &text);
                self.answer_error(now_ms, transport, key, request, &error);
                return Step::Wait;
            }
        };
        if upload.body.len() + decoded.data.len() > body_bytes_max {
            let request = exchange.request;
            self.answer_error(now_ms, transport, key, request, &TOO_LARGE);
            return Step::Wait;
        }
        upload.body.extend_from_slice(&input[decoded.data]);
        if decoded.end
            && let Stage::Reading(upload) = std::mem::replace(&mut exchange.stage, Stage::Awaiting)
        {
            let id = exchange.id;
            let span = HeadSpan { start: 0, end: upload.head.len() };
            let head = RequestHead::parse(&upload.head, span, &self.config.head)
                .expect("it was parsed when it came");
            self.send_req(transport, key, id, (&head, &upload.body));
        }
        Step::Used(decoded.consumed)
    }

    /// Sends a whole request to whoever takes it.
    fn send_req(
        &mut self,
        transport: &impl Transport,
        key: Key,
        id: SessionId,
        (head, body): (&RequestHead<'_>, &[u8]),
    ) {
        let is_secure = self.connections[key.index].is_secure;
        let id = id.text();
        let ids = [Id { id: &id, seq: None }];
        let mut out = self.scratches.take();
        // Nothing can be sent back but the answer: there is no address, and no number.
        let envelope = Envelope { from: b"", ids: &ids, kind: Kind::Data, multi: true };
        envelope.write(&mut out, |fields| {
            write_request(fields, head, scheme(is_secure, false));
            fields.bytes("body", body);
            write_peer(fields, transport.peer(key));
        });
        let packet = self.scratches.keep(out);
        self.outputs.push_back(Output::Hub(ToHub::Request(Pending {
            worker: self.config.index,
            class: Class::Req,
            id,
            method: head.method.into(),
            path: head.path.into(),
            packet,
            deadline_ms: None,
        })));
    }

    /// Takes the answer to the request that a connection waits for.
    pub(super) fn handle_req_packet(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        packet: &Packet<'_>,
    ) {
        let State::Req(exchange) = &self.connections[key.index].state else { return };
        if matches!(exchange.stage, Stage::Reading(_)) {
            return self.refuse_packet(packet.from, "nobody has asked yet".into());
        }
        let result = match packet.kind {
            Kind::Data => self.apply_reply(now_ms, transport, key, packet),
            Kind::Error | Kind::Cancel => {
                let error = ErrorResponse::new(500, "The handler failed");
                self.fail_req(now_ms, transport, key, &error);
                Ok(())
            }
            Kind::Credit
            | Kind::KeepAlive
            | Kind::HandoffStart
            | Kind::HandoffProceed
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
            | Kind::Message
            | Kind::Closed => Err(Fault::Kind(packet.kind.name())),
        };
        if let Err(fault) = result {
            self.refuse_packet(packet.from, fault.to_string());
            self.fail_req(now_ms, transport, key, &INVALID_ANSWER);
        }
    }

    /// Passes an answer on to the client. Whether it says that there is `more` does not matter: nothing could come.
    fn apply_reply(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        packet: &Packet<'_>,
    ) -> Result<(), Fault> {
        let payload = packet.payload()?;
        if payload.body.len() > self.config.body_bytes_max {
            return Err(Fault::TooLarge(self.config.body_bytes_max));
        }
        let mut out = self.scratches.take();
        let State::Req(exchange) = &self.connections[key.index].state else { return Ok(()) };
        let request = RequestContext {
            version: exchange.request.version,
            is_head: exchange.request.is_head,
            keep_alive: exchange.keep_alive && !self.draining,
            date: &self.date,
        };
        let written = write_response(&request, &payload, Extent::Whole, &mut out);
        let keep_alive = match written {
            Ok(written) => written.keep_alive,
            Err(fault) => {
                self.scratches.give_back(out);
                return Err(fault);
            }
        };
        let was_full = self.room(key) == 0;
        let before = self.begin_reading(now_ms, key);
        self.leave(before, key);
        if self.send(now_ms, transport, key, &[&out]) {
            if keep_alive {
                self.read_next(now_ms, transport, key);
            } else {
                self.finish(now_ms, key);
            }
            self.resume_reading(key, was_full);
        }
        self.scratches.give_back(out);
        Ok(())
    }

    /// No handler answers a request, or not as it should.
    pub(super) fn fail_req(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        error: &ErrorResponse<'_>,
    ) {
        let State::Req(exchange) = &self.connections[key.index].state else { return };
        // While the body comes nobody has been asked.
        if matches!(exchange.stage, Stage::Awaiting) {
            let request = exchange.request;
            self.answer_error(now_ms, transport, key, request, error);
        }
    }

    /// A request is answered, or its client is gone.
    pub(super) fn end_req(&mut self, exchange: &ReqExchange) {
        let id = exchange.id.text();
        self.outputs.push_back(Output::Hub(ToHub::Done { id, cancel: None }));
    }
}
