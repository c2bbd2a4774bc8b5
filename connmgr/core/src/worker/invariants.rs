//! What is always true of a [`Worker`], for tests and the simulation: called after each step.

use super::connection::{Connection, Framing, State};
use super::{Mode, Worker};
use crate::slab::Key;
use crate::wheel::{NEVER_MS, TICK_MS};

impl Worker {
    /// Checks that the tables agree with each other, that buffers are within their limits, and that
    /// no connection was forgotten by its timer. `now_ms` is the last time that the worker was told.
    ///
    /// Looks at everything, so it is slow.
    ///
    /// # Panics
    ///
    /// They do not.
    #[doc(hidden)]
    pub fn check_invariants(&self, now_ms: u64) {
        self.members.check_invariants();
        self.unknown.check_invariants();
        let (mut holds, mut in_req_mode) = (0, 0);
        for key in self.connections.keys() {
            let connection = &self.connections[key.index];
            holds += usize::from(matches!(connection.state, State::Held(_)));
            in_req_mode += usize::from(connection.mode == Mode::Req);
            self.check_connection(key, connection);
        }
        assert_eq!(holds, self.members.holds(), "a hold has a connection");
        assert_eq!(in_req_mode, self.req_connections, "req mode is counted");
        assert_eq!(self.wheel.len(), self.connections.len(), "a timer for each connection");
        self.check_deadlines(now_ms);
    }

    /// The worker wakes up no later than the first thing is due. What is due already, it does when it wakes up next.
    fn check_deadlines(&self, now_ms: u64) {
        // Those whom a drain has still to look at have less time than their timers know.
        let places = self.connections.keys().filter(|key| !self.undrained.contains(&key.index));
        let due = places.map(|key| (self.next_expiry(&self.connections[key.index]), key));
        let Some(((due_ms, expiry), key)) = due.min_by_key(|((due_ms, _), _)| *due_ms) else {
            return;
        };
        let due_ms = due_ms.div_ceil(TICK_MS).saturating_mul(TICK_MS).max(now_ms);
        let wakes_ms = self.wheel.next_deadline().unwrap_or(NEVER_MS);
        assert!(
            wakes_ms <= due_ms.min(NEVER_MS),
            "{key:?}: {expiry:?} is due at {due_ms}, not at {wakes_ms}"
        );
        let members_ms = self.members.next_deadline().unwrap_or(NEVER_MS);
        let next_ms = self.next_deadline().unwrap_or(NEVER_MS);
        assert_eq!(next_ms, wakes_ms.min(members_ms), "it wakes up for both");
    }

    fn check_connection(&self, key: Key, connection: &Connection) {
        assert!(self.wheel.is_armed(key.index), "the timer of {key:?} runs");
        assert!(connection.output.len() <= self.output_bytes_max(), "unsent bytes are bounded");
        let blocks_max = connection.output.len() + 2 * self.pool.block_bytes();
        assert!(connection.output.capacity() < blocks_max, "so is their memory");
        let input_bytes_max =
            self.config.head.head_bytes_max.max(self.config.buffer_bytes as usize);
        assert!(connection.input.len() <= input_bytes_max, "bytes read ahead are bounded");
        match &connection.state {
            State::Reading(reading) => {
                let is_waiting = !connection.output.is_empty();
                assert!(reading.is_idle() || !is_waiting, "answers go out in order");
                assert!(!connection.eof || is_waiting, "nobody waits for who has left");
            }
            State::Exchange(exchange) => {
                exchange.session.check_invariants(self.config.buffer_bytes);
                let is_timed = exchange.eof_until_ms.is_some();
                assert!(is_timed || !connection.eof, "a half-closed client has a time");
            }
            State::Req(exchange) => {
                exchange.check_invariants(self.config.body_bytes_max);
                let is_timed = exchange.eof_until_ms.is_some();
                assert!(is_timed || !connection.eof, "a half-closed client has a time");
            }
            State::Held(held) if matches!(held.framing, Framing::Socket(_)) => {
                let is_full = self.is_full(key);
                held.speech().into_iter().for_each(|speech| speech.check_invariants(is_full));
            }
            State::Held(_) | State::Closing(_) => {
                assert!(connection.input.is_empty(), "what comes now is dropped");
            }
        }
    }
}
