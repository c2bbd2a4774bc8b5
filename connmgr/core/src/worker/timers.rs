//! When a connection is given up, and what is done regularly.
//!
//! Each connection has one timer. Deadlines that move with every packet are not re-armed with every
//! packet: when the timer fires, what is due is worked out from the state, and the timer is armed
//! again for what remains.

use zhttp::Kind;

use super::connection::{Response, State};
use super::{CloseReason, RequestParts, TIMER_STEPS_PER_TURN, Transport, Worker};
use crate::http1::{ErrorResponse, Version};
use crate::slab::Key;

/// Times, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutConfig {
    /// A connection without a request, or with half a head, ends.
    pub idle_ms: u64,
    /// A handler that says nothing is given up.
    pub session_ms: u64,
    /// A client that neither takes nor sends is given up.
    pub stream_ms: u64,
    /// A handler is told that a session is alive.
    pub keep_alive_ms: u64,
    /// A client that has closed its side may only have done that: it is taken for gone after this.
    pub eof_ms: u64,
    /// What a client sends is dropped for so long after the last answer.
    pub linger_ms: u64,
}

impl Default for TimeoutConfig {
    /// Condure's where it has them (`--stream-timeout` is a setting of its own).
    fn default() -> Self {
        TimeoutConfig {
            idle_ms: 60_000,
            session_ms: 60_000,
            stream_ms: 1_800_000,
            keep_alive_ms: 45_000,
            eof_ms: 2_000,
            linger_ms: 2_000,
        }
    }
}

impl Worker {
    /// Lets time pass. A turn does a bounded number of things; what remains is due at once.
    pub fn handle_timeout(&mut self, now_ms: u64, transport: &mut impl Transport) {
        self.members.handle_timeout(now_ms);
        let mut steps = TIMER_STEPS_PER_TURN;
        while let Some(key) = self.wheel.pop_expired(now_ms, &mut steps) {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.timer = None;
            self.handle_timer(now_ms, transport, key);
            self.rearm(key);
        }
    }

    /// When [`Worker::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<u64> {
        self.wheel.next_deadline().into_iter().chain(self.members.next_deadline()).min()
    }

    /// Makes sure that the timer fires no later than something is due.
    pub(super) fn rearm(&mut self, key: Key) {
        let Some(due_ms) = self.due_ms(key) else { return };
        let connection = &mut self.connections[key.index];
        match connection.timer {
            // It may fire too early, and is then armed again.
            Some(timer) if self.wheel.is_armed(timer) && !connection.is_urgent() => {}
            Some(timer) if self.wheel.reschedule(timer, due_ms) => {}
            Some(_) | None => connection.timer = Some(self.wheel.insert(due_ms, key)),
        }
    }

    /// When the next thing is due for a connection.
    fn due_ms(&self, key: Key) -> Option<u64> {
        let timeouts = &self.config.timeouts;
        let connection = self.connections.get(key)?;
        Some(match &connection.state {
            State::Reading(reading) => reading.since_ms + timeouts.idle_ms,
            State::Exchange(exchange) => {
                let mut due = exchange.heard_ms + timeouts.session_ms;
                due = due.min(exchange.progress_ms + timeouts.stream_ms);
                if exchange.session.handler().is_some() {
                    due = due.min(exchange.spoke_ms + timeouts.keep_alive_ms);
                }
                due.min(exchange.eof_until_ms.unwrap_or(u64::MAX))
            }
            State::Held(held) => {
                let mut due = held.expires_at_ms.unwrap_or(u64::MAX);
                if held.keep_alive_ms > 0 {
                    due = due.min(held.sent_ms + held.keep_alive_ms);
                }
                if !connection.output.is_empty() {
                    due = due.min(held.progress_ms + timeouts.stream_ms);
                }
                due
            }
            State::Closing(closing) => closing.linger_until_ms,
        })
    }

    /// Does what is due for a connection.
    fn handle_timer(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        if self.due_ms(key).is_none_or(|due| due > now_ms) {
            return;
        }
        let timeouts = self.config.timeouts;
        let connection = &mut self.connections[key.index];
        match &mut connection.state {
            State::Reading(reading) if reading.is_idle() => {
                self.close(key, CloseReason::TimedOut);
            }
            State::Reading(_) => {
                let request = RequestParts { version: Version::Http11, is_head: false };
                let error = ErrorResponse::new(408, "The request took too long");
                self.answer_error(now_ms, transport, key, request, &error);
            }
            State::Exchange(exchange) => {
                if exchange.eof_until_ms.is_some_and(|until| until <= now_ms) {
                    self.close(key, CloseReason::ClientLeft);
                } else if exchange.progress_ms + timeouts.stream_ms <= now_ms {
                    self.close(key, CloseReason::TimedOut);
                } else if exchange.heard_ms + timeouts.session_ms <= now_ms {
                    match exchange.response {
                        Response::Awaited => {
                            let request = RequestParts {
                                version: exchange.version,
                                is_head: exchange.is_head,
                            };
                            let error = ErrorResponse::new(504, "The handler did not answer");
                            self.answer_error(now_ms, transport, key, request, &error);
                        }
                        Response::Streaming(_) => self.close(key, CloseReason::TimedOut),
                    }
                } else {
                    self.send_to_handler(now_ms, key, Kind::KeepAlive, |_| {});
                }
            }
            State::Held(held) => {
                let stuck = held.progress_ms + timeouts.stream_ms <= now_ms;
                if held.expires_at_ms.is_some_and(|at| at <= now_ms) {
                    self.end_response(now_ms, transport, key);
                } else if stuck && !connection.output.is_empty() {
                    self.close(key, CloseReason::TimedOut);
                } else {
                    self.keep_alive(now_ms, transport, key);
                }
            }
            State::Closing(_) => self.close(key, CloseReason::Finished),
        }
    }
}

impl super::Connection {
    /// Whether its deadline has moved to an earlier time than the timer may be armed for: states
    /// that are entered late in the life of the timer of another.
    fn is_urgent(&self) -> bool {
        match &self.state {
            State::Reading(_) => false,
            State::Exchange(exchange) => exchange.eof_until_ms.is_some(),
            State::Held(_) | State::Closing(_) => true,
        }
    }
}
