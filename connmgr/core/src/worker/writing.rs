//! What goes to clients, and how connections end.
//!
//! Bytes go straight to the socket as far as it takes them; the rest waits in the connection's [`Backlog`](crate::backlog).
//! A connection that is to end first lets the client have what was written ([`Worker::finish`]), or
//! ends at once ([`Worker::close`], the only way out of the table).

use std::io::IoSlice;

use super::connection::{Closing, Framing, Reading, RequestParts, Response, State};
use super::{CloseReason, Mode, Output, Transport, Worker, socket};
use crate::http1::{ErrorResponse, RequestContext, write_error};
use crate::slab::Key;

/// Bytes that may wait for one client beyond its backlog: one delivery, or one packet of a handler
/// within its credits. What does not fit ends the connection.
const OUTPUT_SLACK_BYTES: usize = 4 * 1024 * 1024;

/// Connections that a drain looks at in one turn: a millisecond of writes, so that answers of others
/// get out.
const DRAINS_PER_TURN: usize = 256;

/// To who waits for an answer when the edge stops.
const STOPPING: ErrorResponse<'_> =
    ErrorResponse { status: 503, text: "The server is stopping", retry_after_secs: Some(1) };

/// Slices of one write: framing, content, framing.
pub(super) const SLICES_MAX: usize = 3;

/// Blocks of a backlog that are written at once: all of it, at the usual sizes. More takes more writes.
const FLUSH_SLICES_MAX: usize = 16;

impl Worker {
    /// Bytes that may wait for one client.
    pub(super) fn output_bytes_max(&self) -> usize {
        let buffer_bytes = self.config.buffer_bytes as usize;
        let content_bytes = buffer_bytes.max(self.config.body_bytes_max);
        self.config.client_backlog_bytes_max.max(content_bytes) + OUTPUT_SLACK_BYTES
    }

    /// Writes bytes to a client: to the socket as far as it takes them, the rest to its buffer.
    /// Says whether the connection is still there.
    pub(super) fn send(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        slices: &[&[u8]],
    ) -> bool {
        debug_assert!(slices.len() <= SLICES_MAX, "one write");
        let bytes_max = self.output_bytes_max();
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let mut taken = 0;
        if connection.output.is_empty() && slices.iter().any(|slice| !slice.is_empty()) {
            let vectored: [IoSlice<'_>; SLICES_MAX] = std::array::from_fn(|index| {
                IoSlice::new(slices.get(index).copied().unwrap_or_default())
            });
            match transport.write(key, &vectored[..slices.len()]) {
                Some(bytes) => taken = bytes,
                None => {
                    self.close(key, CloseReason::Failed);
                    return false;
                }
            }
            if taken > 0 {
                connection.handle_progress(now_ms, &self.config.timeouts);
            }
            if taken == slices.iter().map(|slice| slice.len()).sum() {
                return true;
            }
        }
        let was_empty = connection.output.is_empty();
        for slice in slices {
            let skip = taken.min(slice.len());
            taken -= skip;
            if connection.output.extend(&mut self.pool, &slice[skip..], bytes_max).is_err() {
                self.close(key, CloseReason::Handler);
                return false;
            }
        }
        if was_empty && !connection.output.is_empty() {
            // From now on it matters how long the client takes nothing.
            self.rearm(key);
        }
        true
    }

    /// Writes what waits for a client, and does what was waiting for that.
    pub(super) fn flush(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let before = connection.output.len();
        while !connection.output.is_empty() {
            let mut slices = [IoSlice::new(&[]); FLUSH_SLICES_MAX];
            let mut count = 0;
            for (place, slice) in slices.iter_mut().zip(connection.output.slices()) {
                *place = IoSlice::new(slice);
                count += 1;
            }
            match transport.write(key, &slices[..count]) {
                None => return self.close(key, CloseReason::Failed),
                Some(0) => break,
                Some(bytes) => connection.output.consume(&mut self.pool, bytes),
            }
        }
        let unsent = connection.output.len();
        if unsent == before {
            return;
        }
        connection.handle_progress(now_ms, &self.config.timeouts);
        match &connection.state {
            State::Exchange(exchange) => {
                let is_socket = matches!(exchange.response, Response::Socket(_));
                self.repay(key);
                if is_socket && unsent == 0 {
                    self.handle_socket_drained(now_ms, key);
                }
                if is_socket {
                    // What the client sends waits while it takes nothing.
                    self.process_input(now_ms, transport, key);
                }
            }
            State::Reading(_) if unsent == 0 => {
                self.process_input(now_ms, transport, key);
                self.end_if_over(now_ms, key);
            }
            State::Held(held) => {
                let is_socket = matches!(held.framing, Framing::Socket(_));
                if unsent == 0 {
                    self.members.handle_drained(key);
                }
                if is_socket {
                    self.say(now_ms, key);
                    self.process_input(now_ms, transport, key);
                }
            }
            State::Closing(_) if unsent == 0 => self.shutdown(now_ms, key),
            State::Reading(_) | State::Req(_) | State::Closing(_) => {}
        }
        if unsent == 0 {
            self.rearm(key);
        }
    }

    /// Answers with an error of the edge's own and ends the connection behind it.
    pub(super) fn answer_error(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        request: RequestParts,
        error: &ErrorResponse<'_>,
    ) {
        self.stats.errors += 1;
        let mut out = self.scratches.take();
        let context = RequestContext {
            version: request.version,
            is_head: request.is_head,
            keep_alive: false,
            date: &self.date,
        };
        write_error(&mut out, &context, error);
        if self.send(now_ms, transport, key, &[&out]) {
            self.finish(now_ms, key);
        }
        self.scratches.give_back(out);
    }

    /// Begins to wait for a request, in whatever state the connection was. Says which that was; the
    /// caller takes leave of it.
    pub(super) fn begin_reading(&mut self, now_ms: u64, key: Key) -> State {
        let connection = &mut self.connections[key.index];
        std::mem::replace(&mut connection.state, State::Reading(Reading::new(now_ms)))
    }

    /// Ends a connection that waits for a request and is to have none.
    pub(super) fn end_if_over(&mut self, now_ms: u64, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        let State::Reading(reading) = &connection.state else { return };
        // What a client sent before it closed its side may still be waiting for its turn.
        let has_all = connection.input.is_empty() || connection.output.is_empty();
        let is_sent_away = self.draining && reading.is_idle() && !connection.is_new;
        if is_sent_away || connection.eof && has_all {
            self.finish(now_ms, key);
        }
    }

    /// Lets the client have what was written, then ends the connection: what it still sends is read
    /// and dropped for a while, so that a reset does not destroy the answer (RFC 9112 §9.6).
    pub(super) fn finish(&mut self, now_ms: u64, key: Key) {
        let was_full = self.room(key) == 0;
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.input.clear(&mut self.pool);
        let is_sent = connection.output.is_empty();
        // Until it is all sent a slow client has as much time as any.
        let linger_until_ms = now_ms.saturating_add(self.config.timeouts.stream_ms);
        let closing = State::Closing(Closing { linger_until_ms, is_shut: false });
        let before = std::mem::replace(&mut connection.state, closing);
        self.leave(before, key);
        self.resume_reading(key, was_full);
        if is_sent {
            self.shutdown(now_ms, key);
        }
        self.rearm(key);
    }

    /// Everything is sent: tells the client, and waits a little for it to close.
    pub(super) fn shutdown(&mut self, now_ms: u64, key: Key) {
        let connection = &mut self.connections[key.index];
        if connection.eof {
            return self.close(key, CloseReason::Finished);
        }
        if let State::Closing(closing) = &mut connection.state
            && !std::mem::replace(&mut closing.is_shut, true)
        {
            closing.linger_until_ms = now_ms.saturating_add(self.config.timeouts.linger_ms);
            self.outputs.push_back(Output::Shutdown(key));
        }
    }

    /// Ends a connection at once. The only way out of the table.
    pub(super) fn close(&mut self, key: Key, reason: CloseReason) {
        let Some(mut connection) = self.connections.remove(key) else { return };
        self.stats.closed[reason as usize] += 1;
        self.req_connections -= usize::from(connection.mode == Mode::Req);
        self.wheel.disarm(key.index);
        connection.input.clear(&mut self.pool);
        connection.output.clear(&mut self.pool);
        self.leave(connection.state, key);
        self.outputs.push_back(Output::Close(key, reason));
    }

    /// Takes leave of the handler or the channels that a connection was with.
    pub(super) fn leave(&mut self, state: State, key: Key) {
        match state {
            State::Reading(_) | State::Closing(_) => {}
            State::Exchange(exchange) => self.end_session(*exchange),
            State::Req(exchange) => self.end_req(&exchange),
            State::Held(mut held) => self.end_hold(&mut held, key),
        }
    }

    /// The edge is about to stop: answers end their connections, held ones are ended in order. Not all
    /// at once: [`Worker::handle_work`] goes on with it.
    pub fn drain(&mut self, now_ms: u64, transport: &mut impl Transport) {
        self.draining = true;
        // Whoever comes from now on knows by itself.
        let places = u32::try_from(self.connections.places()).expect("below 2^32 connections");
        self.undrained = 0..places;
        self.drain_on(now_ms, transport);
    }

    /// Goes on to send away those who were there when the drain began.
    pub(super) fn drain_on(&mut self, now_ms: u64, transport: &mut impl Transport) {
        for place in self.undrained.by_ref().take(DRAINS_PER_TURN).collect::<Vec<u32>>() {
            let Some(key) = self.connections.key_at(place) else { continue };
            match &self.connections[place].state {
                State::Held(_) => self.drain_hold(now_ms, transport, key),
                State::Reading(_) if self.is_parked(place) => self.close(key, CloseReason::Drained),
                State::Reading(_) => {
                    self.end_if_over(now_ms, key);
                    // One that is new has less time now.
                    self.rearm(key);
                }
                State::Exchange(_) => self.drain_socket(now_ms, transport, key),
                State::Req(_) | State::Closing(_) => {}
            }
        }
    }

    /// Whether a connection is between two requests: everything is said, so nothing is lost if it ends at once.
    fn is_parked(&self, place: u32) -> bool {
        let connection = &self.connections[place];
        let is_idle = match &connection.state {
            State::Reading(reading) => reading.is_idle() && !connection.is_new,
            State::Exchange(_) | State::Req(_) | State::Held(_) | State::Closing(_) => false,
        };
        is_idle && connection.output.is_empty() && connection.input.is_empty()
    }

    /// The edge stops: whatever is left ends now. Who waits for an answer is told that there will be none, as far as
    /// the socket takes it.
    pub fn stop(&mut self, now_ms: u64, transport: &mut impl Transport) {
        let keys: Vec<Key> = self.connections.keys().collect();
        for key in keys {
            let request = match &self.connections[key.index].state {
                State::Exchange(exchange) => exchange.awaiting(),
                State::Req(exchange) => Some(exchange.request()),
                State::Reading(_) | State::Held(_) | State::Closing(_) => None,
            };
            if let Some(request) = request {
                self.answer_error(now_ms, transport, key, request, &STOPPING);
            } else if self.is_held_socket(key) {
                // Its client has had no answer: all others were sent away before.
                self.end_held_socket(now_ms, transport, key, Some(socket::STOPPING));
            }
            self.close(key, CloseReason::Drained);
        }
    }
}
