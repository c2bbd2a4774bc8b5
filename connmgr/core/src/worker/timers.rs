//! When a connection is given up, and what is done regularly.
//!
//! Each connection has one timer. What is due next follows from its state, in one table
//! ([`Worker::next_expiry`]). Deadlines mostly move away, with every packet and every byte; the timer
//! does not follow them, but is armed again for what remains when it fires. Only where a deadline may
//! come nearer, the timer is set at once ([`Worker::rearm`]).

use super::connection::{Connection, Held, RequestParts, Response, State};
use super::speech::Speech;
use super::{CloseReason, Mode, Output, TIMER_STEPS_PER_TURN, Transport, Worker};
use crate::http1::ErrorResponse;
use crate::hub::ToHub;
use crate::slab::Key;
use crate::websocket::{Close, CloseCode};

/// Times, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutConfig {
    /// A connection without a request, or with half a head, ends.
    pub idle_ms: u64,
    /// A handler that says nothing is given up.
    pub session_ms: u64,
    /// A request in req mode is given up, from its head to its answer; and a connection that waits for one, if this is
    /// shorter than `idle_ms`.
    pub req_ms: u64,
    /// A client that neither takes nor sends is given up.
    pub stream_ms: u64,
    /// A handler is told that a session is alive, once in this time.
    pub keep_alive_ms: u64,
    /// A client that has closed its side may only have done that: it is taken for gone after this.
    pub eof_ms: u64,
    /// What a client sends is dropped for so long after the last answer.
    pub linger_ms: u64,
    /// What the client of a held WebSocket has said must be answered within this (hold.md H-95).
    pub answer_ms: u64,
    /// A message of it must be whole within this (hold.md H-96).
    pub message_ms: u64,
    /// Who closes a WebSocket waits so long for the other side to do so.
    pub close_ms: u64,
    /// When the edge stops, a client that has just connected may still send its request for so long.
    pub drain_new_ms: u64,
}

impl Default for TimeoutConfig {
    /// Condure's where it has them (those of a stream and of req mode are settings).
    fn default() -> Self {
        TimeoutConfig {
            idle_ms: 60_000,
            session_ms: 60_000,
            req_ms: 30_000,
            stream_ms: 1_800_000,
            keep_alive_ms: 45_000,
            eof_ms: 2_000,
            linger_ms: 2_000,
            answer_ms: 60_000,
            message_ms: 60_000,
            close_ms: 2_000,
            drain_new_ms: 500,
        }
    }
}

/// What is to be done with a connection when nothing else happens before.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expiry {
    /// End it.
    Close(CloseReason),
    /// Answer with an error, and end it.
    Answer(ErrorResponse<'static>),
    /// End a WebSocket, and say why.
    FailSocket(Close<'static>),
    /// A WebSocket that closes has had its time.
    EndSocket,
    /// Tell the handler that the session lives.
    KeepSession,
    /// End a hold whose time is up.
    EndHold,
    /// End a held WebSocket, and say why.
    EndHeld(Close<'static>),
    /// Tell a held client that the connection lives.
    KeepHold,
}

pub(super) const REQUEST_TIMEOUT: ErrorResponse<'_> =
    ErrorResponse::new(408, "The request took too long");
pub(super) const GATEWAY_TIMEOUT: ErrorResponse<'_> =
    ErrorResponse::new(504, "The handler did not answer");

/// To the client of a WebSocket whose handler is gone.
const HANDLER_SILENT: Close<'_> =
    Close { code: CloseCode::INTERNAL, reason: "The handler did not answer" };

/// To the client of a WebSocket that has neither sent nor taken anything.
const CLIENT_IDLE: Close<'_> = Close { code: CloseCode::GOING_AWAY, reason: "Idle for too long" };

impl Worker {
    /// Lets time pass. A turn does a bounded number of things; what remains is due at once.
    pub fn handle_timeout(&mut self, now_ms: u64, transport: &mut impl Transport) {
        self.members.handle_timeout(now_ms);
        let mut steps = TIMER_STEPS_PER_TURN;
        while let Some(index) = self.wheel.pop_expired(now_ms, &mut steps) {
            let key = self.connections.key_at(index).expect("timers go with their connection");
            let (due_ms, expiry) = self.next_expiry(&self.connections[index]);
            if due_ms <= now_ms {
                self.expire(now_ms, transport, key, expiry);
            }
            self.rearm(key);
        }
        while let Some((to, packet)) = self.keep_alives.poll(&self.config.instance_id) {
            self.outputs.push_back(Output::Hub(ToHub::Packet { to, packet }));
        }
    }

    /// When [`Worker::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<u64> {
        self.wheel.next_deadline().into_iter().chain(self.members.next_deadline()).min()
    }

    /// Sets the timer of a connection. To be called when something may be due earlier than before;
    /// what becomes due later is noticed when the timer fires.
    pub(super) fn rearm(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        let (due_ms, _) = self.next_expiry(connection);
        self.wheel.arm(key.index, due_ms);
    }

    /// The next thing that is due for a connection, and when; of two at once the first named here.
    pub(super) fn next_expiry(&self, connection: &Connection) -> (u64, Expiry) {
        let timeouts = &self.config.timeouts;
        let gone = Expiry::Close(CloseReason::ClientLeft);
        let stuck = Expiry::Close(CloseReason::TimedOut);
        match &connection.state {
            State::Reading(reading) if !connection.output.is_empty() => {
                (reading.since_ms.saturating_add(timeouts.stream_ms), stuck)
            }
            State::Reading(reading) if self.draining && connection.is_new => {
                let drained = Expiry::Close(CloseReason::Drained);
                (reading.since_ms.saturating_add(timeouts.drain_new_ms), drained)
            }
            State::Reading(reading) => {
                let late = Expiry::Answer(REQUEST_TIMEOUT);
                let expiry = if reading.is_idle() { stuck } else { late };
                let idle_ms = match connection.mode {
                    Mode::Stream => timeouts.idle_ms,
                    // There it is the time for all that there is (as in Condure): places are few.
                    Mode::Req => timeouts.idle_ms.min(timeouts.req_ms),
                };
                (reading.since_ms.saturating_add(idle_ms), expiry)
            }
            State::Exchange(exchange) => {
                let (silent, stalled) = match exchange.response {
                    Response::Awaited(_) => {
                        let late = if exchange.waits_for_client() {
                            REQUEST_TIMEOUT
                        } else {
                            GATEWAY_TIMEOUT
                        };
                        (Expiry::Answer(GATEWAY_TIMEOUT), Expiry::Answer(late))
                    }
                    Response::Streaming(_) => (stuck, stuck),
                    Response::Socket(_) => {
                        let idle = Expiry::FailSocket(CLIENT_IDLE);
                        let idle = if connection.output.is_empty() { idle } else { stuck };
                        (Expiry::FailSocket(HANDLER_SILENT), idle)
                    }
                };
                let closes_at_ms = match &exchange.response {
                    Response::Socket(socket) => socket.closes_at_ms(connection.output.is_empty()),
                    Response::Awaited(_) | Response::Streaming(_) => None,
                };
                earliest([
                    (closes_at_ms.unwrap_or(NEVER), Expiry::EndSocket),
                    (exchange.eof_until_ms.unwrap_or(NEVER), gone),
                    (exchange.progress_ms.saturating_add(timeouts.stream_ms), stalled),
                    (exchange.heard_ms.saturating_add(timeouts.session_ms), silent),
                    (exchange.next_keep_alive_ms(timeouts), Expiry::KeepSession),
                ])
            }
            State::Req(exchange) => earliest([
                (exchange.eof_until_ms.unwrap_or(NEVER), gone),
                exchange.expiry(timeouts.req_ms),
            ]),
            State::Held(held) => self.next_held_expiry(held, !connection.output.is_empty()),
            State::Closing(closing) if connection.output.is_empty() => {
                (closing.linger_until_ms, Expiry::Close(CloseReason::Finished))
            }
            State::Closing(closing) => (closing.linger_until_ms, stuck),
        }
    }

    /// The same of one that is held, and takes something or not.
    fn next_held_expiry(&self, held: &Held, is_blocked: bool) -> (u64, Expiry) {
        let stuck_ms = held.progress_ms.saturating_add(self.config.timeouts.stream_ms);
        let silent_ms = held.sent_ms.saturating_add(held.keep_alive_ms.into());
        let said = held.speech().and_then(Speech::due);
        let (said_ms, close) = said.unwrap_or((NEVER, CLIENT_IDLE));
        earliest([
            (held.expires_at_ms, Expiry::EndHold),
            (said_ms, Expiry::EndHeld(close)),
            (if is_blocked { stuck_ms } else { NEVER }, Expiry::Close(CloseReason::TimedOut)),
            (if held.keep_alive_ms > 0 { silent_ms } else { NEVER }, Expiry::KeepHold),
        ])
    }

    /// Does what is due for a connection. Moves its deadline, so that it is not due again at once.
    fn expire(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key, expiry: Expiry) {
        match expiry {
            Expiry::Close(reason) => self.close(key, reason),
            Expiry::Answer(error) => {
                let request = match &self.connections[key.index].state {
                    State::Exchange(exchange) => exchange.request(),
                    State::Req(exchange) => exchange.request(),
                    State::Reading(_) | State::Held(_) | State::Closing(_) => {
                        RequestParts::UNREADABLE
                    }
                };
                self.answer_error(now_ms, transport, key, request, &error);
            }
            Expiry::FailSocket(close) => self.fail_socket(now_ms, transport, key, close),
            Expiry::EndSocket => self.expire_close(now_ms, transport, key),
            Expiry::KeepSession => {
                if let State::Exchange(exchange) = &mut self.connections[key.index].state {
                    // Also if nobody is there yet to be told.
                    exchange.kept_alive_ms = now_ms;
                    if let Some(handler) = exchange.session.handler().cloned() {
                        let seq = exchange.session.next_seq();
                        self.keep_alives.add(handler, *exchange.session.id(), seq);
                    }
                }
            }
            Expiry::EndHold => self.expire_hold(now_ms, transport, key),
            Expiry::EndHeld(close) => self.end_held_socket(now_ms, transport, key, Some(close)),
            Expiry::KeepHold => self.keep_alive(now_ms, transport, key),
        }
    }
}

/// A deadline that does not come.
pub(super) const NEVER: u64 = u64::MAX;

fn earliest<const N: usize>(expiries: [(u64, Expiry); N]) -> (u64, Expiry) {
    let first = expiries.into_iter().min_by_key(|(due_ms, _)| *due_ms);
    first.expect("there is at least one")
}
