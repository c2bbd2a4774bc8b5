//! What comes from clients: heads, bodies, and the end.

use std::net::SocketAddr;

use zhttp::hold::HOLD_VERSION;
use zhttp::{Fields, Kind};

use super::connection::{Exchange, Framing, RequestParts, Response, State};
use super::{CloseReason, Mode, Output, Transport, Worker};
use crate::http1::{
    BodyDecoder, BodyError, CONTINUE, ErrorResponse, HeadScanner, RequestHead, TargetForm,
};
use crate::hub::{Class, Pending, ToHub};
use crate::session::{Session, SessionId};
use crate::short_text::ShortText;
use crate::slab::Key;
use crate::websocket::Upgrade;

/// To who wants a WebSocket where requests and answers go whole.
const NO_WEBSOCKET: ErrorResponse<'_> =
    ErrorResponse::new(400, "WebSocket is not served on a port in req mode");

/// What became of the bytes that a client sent.
pub(super) enum Step {
    /// So many are used, and there may be more to do.
    Used(usize),
    /// Nothing can be done before something else comes.
    Wait,
}

impl Worker {
    /// Takes bytes that a client sent, at most as many as [`Worker::room`] said.
    pub fn handle_input(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        bytes: &[u8],
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.is_new = false;
        let was_empty = connection.input.is_empty();
        let used = if was_empty { self.process(now_ms, transport, key, bytes) } else { 0 };
        let Some(connection) = self.connections.get_mut(key) else { return };
        if used < bytes.len() && !matches!(connection.state, State::Closing(_)) {
            let unused = &bytes[used..];
            let len_max = connection.input.len() + unused.len();
            connection.input.extend(&mut self.pool, unused, len_max).expect("within its bound");
            if !was_empty {
                self.process_input(now_ms, transport, key);
            }
        }
    }

    /// Goes on with what came before.
    pub(super) fn process_input(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        let was_full = self.room(key) == 0;
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut input = std::mem::take(&mut connection.input);
        let used = self.process(now_ms, transport, key, input.contiguous());
        match self.connections.get_mut(key) {
            Some(connection) if !matches!(connection.state, State::Closing(_)) => {
                input.consume(&mut self.pool, used);
                connection.input = input;
            }
            Some(_) | None => input.clear(&mut self.pool),
        }
        self.resume_reading(key, was_full);
    }

    /// Has the shell read on if it stopped because there was no room.
    pub(super) fn resume_reading(&mut self, key: Key, was_full: bool) {
        if was_full && self.room(key) > 0 {
            self.outputs.push_back(Output::Read(key));
        }
    }

    /// Uses as much of the input as can be used now; says how much.
    fn process(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        input: &[u8],
    ) -> usize {
        let mut used = 0;
        loop {
            let Some(connection) = self.connections.get_mut(key) else { return input.len() };
            let step = match &mut connection.state {
                // An answer that waits to be sent would only grow by the next one.
                State::Reading(_) if !connection.output.is_empty() => Step::Wait,
                State::Reading(_) => self.read_head(now_ms, transport, key, &input[used..]),
                State::Exchange(exchange) => match exchange.response {
                    Response::Awaited(_) | Response::Streaming(_) => {
                        self.read_body(now_ms, transport, key, &input[used..])
                    }
                    Response::Socket(_) => self.read_frames(now_ms, transport, key, &input[used..]),
                },
                State::Req(_) => self.read_req(now_ms, transport, key, &input[used..]),
                State::Held(held) => match held.framing {
                    Framing::Response(_) => {
                        held.is_reusable &= input.is_empty();
                        return input.len();
                    }
                    Framing::Socket(_) => {
                        self.read_held_frames(now_ms, transport, key, &input[used..])
                    }
                },
                State::Closing(_) => return input.len(),
            };
            match step {
                Step::Used(bytes) => used += bytes,
                Step::Wait => return used,
            }
        }
    }

    fn read_head(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        input: &[u8],
    ) -> Step {
        let State::Reading(reading) = &mut self.connections[key.index].state else {
            return Step::Wait;
        };
        if input.is_empty() {
            return Step::Wait;
        }
        // Mostly a head comes whole, and nothing of the search is kept.
        let mut new_scanner = HeadScanner::new();
        let scanner = reading.scanner.as_deref_mut().unwrap_or_else(|| {
            reading.since_ms = now_ms;
            &mut new_scanner
        });
        let head = match scanner.scan(input, &self.config.head) {
            Ok(None) => {
                reading.scanner.get_or_insert_with(|| Box::new(new_scanner));
                return Step::Wait;
            }
            Ok(Some(span)) => RequestHead::parse(input, span, &self.config.head)
                .map(|head| (head, &input[span.start..span.end])),
            Err(error) => Err(error),
        };
        match head {
            Ok((head, raw)) => {
                self.stats.requests += 1;
                match (
                    Upgrade::read(&head, self.config.compression),
                    self.connections[key.index].mode,
                ) {
                    (None, Mode::Req) => {
                        self.begin_req(now_ms, transport, key, (&head, raw));
                    }
                    (None, Mode::Stream) => self.begin(now_ms, transport, key, (&head, None)),
                    (Some(Ok(upgrade)), Mode::Stream) => {
                        self.begin(now_ms, transport, key, (&head, Some(upgrade)));
                    }
                    (Some(Ok(_)), Mode::Req) => {
                        self.refuse_upgrade(now_ms, transport, key, (&head, &NO_WEBSOCKET));
                    }
                    (Some(Err(error)), _) => {
                        let text = error.to_string();
                        let error = ErrorResponse::new(error.status(), &text);
                        self.refuse_upgrade(now_ms, transport, key, (&head, &error));
                    }
                }
                Step::Used(head.head_bytes)
            }
            Err(error) => {
                // To HEAD no answer has content (RFC 9110 §9.3.2), also not to one that is refused.
                let is_head = input.trim_ascii_start().starts_with(b"HEAD ");
                let request = RequestParts { is_head, ..RequestParts::UNREADABLE };
                let text = error.to_string();
                let error = ErrorResponse::new(error.status(), &text);
                self.answer_error(now_ms, transport, key, request, &error);
                Step::Wait
            }
        }
    }

    /// Answers a request that is not to become a WebSocket.
    fn refuse_upgrade(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        (head, error): (&RequestHead<'_>, &ErrorResponse<'_>),
    ) {
        let request = RequestParts { version: head.version, is_head: head.method == "HEAD" };
        self.answer_error(now_ms, transport, key, request, error);
    }

    /// An id that no session had before.
    pub(super) fn next_session_id(&mut self, key: Key) -> SessionId {
        self.sessions += 1;
        SessionId { worker: self.config.index, slot: key.index, counter: self.sessions }
    }

    /// Begins the session of a request.
    fn begin(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        (head, upgrade): (&RequestHead<'_>, Option<Upgrade>),
    ) {
        let id = self.next_session_id(key);
        let mut session = Session::new(id, self.config.buffer_bytes);
        let decoder = BodyDecoder::new(head.body);
        let peer = transport.peer(key);
        let scheme = scheme(self.connections[key.index].is_secure, upgrade.is_some());
        let mut out = self.scratches.take();
        session.write(
            (&self.config.instance_id, Kind::Data),
            &mut out,
            |ext| ext.int("hold", HOLD_VERSION),
            |fields| {
                write_request(fields, head, scheme);
                fields.int("credits", self.config.buffer_bytes.into());
                fields.flag("more", !decoder.is_done());
                fields.flag("stream", upgrade.is_none());
                fields.flag("router-resp", true);
                write_peer(fields, peer);
            },
        );
        let packet = self.scratches.keep(out);
        self.outputs.push_back(Output::Hub(ToHub::Request(Pending {
            worker: self.config.index,
            class: Class::Stream,
            id: id.text(),
            method: head.method.into(),
            path: head.path.into(),
            packet,
            deadline_ms: None,
        })));
        let connection = &mut self.connections[key.index];
        let eof_until_ms = connection.first_eof_until_ms(now_ms, &self.config.timeouts);
        connection.state = State::Exchange(Box::new(Exchange {
            session,
            version: head.version,
            is_head: head.method == "HEAD",
            // Behind a WebSocket, and a handshake that was refused, nothing comes.
            keep_alive: head.keep_alive && !self.draining && upgrade.is_none(),
            expects_continue: head.expect_continue,
            decoder,
            response: Response::Awaited(upgrade.map(Box::new)),
            heard_ms: now_ms,
            progress_ms: now_ms,
            kept_alive_ms: now_ms,
            eof_until_ms,
            waits_for: None,
        }));
        self.rearm(key);
    }

    /// Passes on what the handler takes of a body.
    fn read_body(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        input: &[u8],
    ) -> Step {
        let connection = &mut self.connections[key.index];
        let State::Exchange(exchange) = &mut connection.state else { return Step::Wait };
        if exchange.decoder.is_done() {
            return Step::Wait;
        }
        if input.is_empty() && connection.eof {
            // The rest of the body will never come.
            self.close(key, CloseReason::ClientLeft);
            return Step::Wait;
        }
        if exchange.session.handler().is_none() {
            return Step::Wait;
        }
        let credits = exchange.session.credits();
        if input.is_empty() {
            let is_awaited = matches!(exchange.response, Response::Awaited(_));
            if exchange.expects_continue && is_awaited && credits > 0 {
                exchange.expects_continue = false;
                self.send(now_ms, transport, key, &[CONTINUE]);
            }
            return Step::Wait;
        }
        if self.must_wait(key) {
            return Step::Wait;
        }
        let State::Exchange(exchange) = &mut self.connections[key.index].state else {
            return Step::Wait;
        };
        exchange.expects_continue = false;
        // Without credits only what is no content can be used: the framing, up to the end.
        let mut decoder = exchange.decoder.clone();
        let piece_bytes_max = credits.min(self.config.buffer_bytes as usize);
        let window_bytes = if credits == 0 { input.len() } else { piece_bytes_max };
        let window = &input[..input.len().min(window_bytes)];
        let decoded = match decoder.decode(window) {
            Ok(decoded) => decoded,
            Err(error) => {
                self.refuse_body(now_ms, transport, key, error);
                return Step::Wait;
            }
        };
        if credits == 0 && !decoded.data.is_empty() {
            return Step::Wait;
        }
        exchange.decoder = decoder;
        exchange.handle_progress(now_ms, &self.config.timeouts);
        exchange.session.spend(decoded.data.len());
        let data = &window[decoded.data];
        if !data.is_empty() || decoded.end {
            self.send_to_handler(key, Kind::Data, |fields| {
                fields.bytes("body", data);
                fields.flag("more", !decoded.end);
            });
        }
        Step::Used(decoded.consumed)
    }

    /// Ends a request whose body cannot be read on.
    fn refuse_body(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        error: BodyError,
    ) {
        let State::Exchange(exchange) = &self.connections[key.index].state else { return };
        match exchange.response {
            Response::Awaited(_) => {
                let request = exchange.request();
                let text = error.to_string();
                let error = ErrorResponse::new(error.status(), &text);
                self.answer_error(now_ms, transport, key, request, &error);
            }
            Response::Streaming(_) | Response::Socket(_) => {
                self.close(key, CloseReason::Protocol);
            }
        }
    }

    /// The client sends nothing more: it has closed, or only its side.
    pub fn handle_eof(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if std::mem::replace(&mut connection.eof, true) {
            return;
        }
        match &mut connection.state {
            State::Reading(_) if connection.output.is_empty() => {
                self.close(key, CloseReason::ClientLeft);
            }
            // It may still take its answer, and what it sent before has its turn then.
            State::Reading(_) => self.end_if_over(now_ms, key),
            // What it has said before is answered, if it still takes that.
            State::Held(held) if matches!(held.framing, Framing::Socket(_)) => {
                self.process_input(now_ms, transport, key);
            }
            State::Held(_) => self.close(key, CloseReason::ClientLeft),
            State::Closing(closing) if closing.is_shut => {
                self.close(key, CloseReason::Finished);
            }
            State::Closing(_) => {}
            State::Exchange(_) | State::Req(_) => {
                let until_ms = now_ms.saturating_add(self.config.timeouts.eof_ms);
                *connection.eof_until_ms().expect("there is a request") = Some(until_ms);
                self.process_input(now_ms, transport, key);
                self.rearm(key);
            }
        }
    }

    /// The client will send nothing more than what the socket still has, which cannot be read for want
    /// of room ([`Worker::room`]). If nobody takes that for a while, the client is taken for gone.
    pub fn handle_read_closed(&mut self, now_ms: u64, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.is_read_closed = true;
        if let Some(eof_until_ms @ None) = connection.eof_until_ms() {
            *eof_until_ms = Some(now_ms.saturating_add(self.config.timeouts.eof_ms));
            self.rearm(key);
        }
    }

    /// The socket has failed.
    pub fn handle_error(&mut self, key: Key) {
        self.close(key, CloseReason::Failed);
    }

    /// Goes on with a connection that has just begun to wait for the next request.
    pub(super) fn read_next(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        self.rearm(key);
        self.process_input(now_ms, transport, key);
        self.end_if_over(now_ms, key);
    }
}

/// Writes what a handler is told of a head.
pub(super) fn write_request(fields: &mut Fields<'_, '_>, head: &RequestHead<'_>, scheme: &str) {
    fields.bytes("method", head.method.as_bytes());
    fields.bytes_of("uri", &uri(head, scheme));
    fields.headers(head.headers().map(|(name, value)| (name.as_bytes(), value)));
}

/// What a handler is told of how a request came, and what it is to become.
pub(super) fn scheme(is_secure: bool, is_websocket: bool) -> &'static str {
    match (is_secure, is_websocket) {
        (false, false) => "http",
        (true, false) => "https",
        (false, true) => "ws",
        (true, true) => "wss",
    }
}

/// Writes where a request came from; nothing for a unix socket.
pub(super) fn write_peer(fields: &mut Fields<'_, '_>, peer: Option<SocketAddr>) {
    if let Some(peer) = peer {
        let address = ShortText::of(peer.ip()).expect("an address has 45 bytes at most");
        fields.bytes("peer-address", &address);
        fields.int("peer-port", peer.port().into());
    }
}

/// The parts of the absolute URI of a request, as Condure makes it; but for `OPTIONS *`, of which it makes another host.
fn uri<'a>(head: &RequestHead<'a>, scheme: &'a str) -> [&'a [u8]; 4] {
    let authority = if head.host.is_empty() { "localhost" } else { head.host };
    let parts = match head.target_form {
        TargetForm::Origin => [scheme, "://", authority, head.target],
        // RFC 9112 §3.3.
        TargetForm::Asterisk => [scheme, "://", authority, ""],
        TargetForm::Absolute => [head.target, "", "", ""],
    };
    parts.map(str::as_bytes)
}
