//! WebSockets that are held: their events are messages, and what their clients say (hold.md §3, H-15, H-61).
//!
//! There is no handler who would have a say: pings are answered, a close is answered in its own words, and whoever breaks
//! the protocol is told so. A held WebSocket takes no messages yet (H-29).

use super::connection::{Framing, State};
use super::input::Step;
use super::{Transport, Worker};
use crate::slab::Key;
use crate::websocket::{Close, CloseCode, MessageKind, Received, Sender};

/// To a client that says something, where nobody would hear it.
const NOT_HEARD: Close<'_> =
    Close { code: CloseCode::UNSUPPORTED, reason: "Messages are not taken here" };

impl Worker {
    /// Whether a connection is a held WebSocket.
    pub(super) fn is_held_socket(&self, key: Key) -> bool {
        let state = self.connections.get(key).map(|connection| &connection.state);
        matches!(state, Some(State::Held(held)) if matches!(held.framing, Framing::Socket(_)))
    }

    /// Takes what came of a held WebSocket.
    pub(super) fn read_held_frames(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        input: &[u8],
    ) -> Step {
        // Who sends pings and takes no pongs has to wait for itself.
        if input.is_empty() || self.is_full(key) {
            return Step::Wait;
        }
        let State::Held(held) = &mut self.connections[key.index].state else { return Step::Wait };
        let Framing::Socket(halves) = &mut held.framing else { return Step::Wait };
        let mut out = Vec::new();
        let room = (&mut out, self.config.buffer_bytes as usize);
        let close = match halves.receiver.receive(&mut self.compression, input, room) {
            Ok((0, Received::Nothing)) => return Step::Wait,
            Ok((used, Received::Nothing | Received::Pong)) => return Step::Used(used),
            Ok((used, Received::Ping)) => {
                let mut pong = Vec::new();
                Sender::pong(&out, None, &mut pong);
                if self.send(now_ms, transport, key, &[&pong]) {
                    self.block_if_full(key);
                }
                return Step::Used(used);
            }
            Ok((_, Received::Message { .. })) => Some(NOT_HEARD),
            Ok((_, Received::Close)) => {
                let close = Close::parse(&out).expect("the receiver has read it");
                close.map(|close| Close { reason: "", ..close })
            }
            Err(error) => {
                let reason = error.to_string();
                let close = Close { code: error.code(), reason: &reason };
                self.end_held_socket(now_ms, transport, key, Some(close));
                return Step::Used(input.len());
            }
        };
        self.end_held_socket(now_ms, transport, key, close);
        Step::Used(input.len())
    }

    /// Says the close of a held WebSocket, and ends it.
    pub(super) fn end_held_socket(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        close: Option<Close<'_>>,
    ) {
        let mut out = Vec::new();
        Sender::close(close.as_ref(), None, &mut out);
        if self.send(now_ms, transport, key, &[&out]) {
            self.finish(now_ms, key);
        }
    }

    /// Writes a text message for a held WebSocket behind what is in `out`. Says whether the connection is one.
    pub(super) fn write_held_message(&mut self, key: Key, text: &[u8], out: &mut Vec<u8>) -> bool {
        let State::Held(held) = &mut self.connections[key.index].state else { return false };
        let Framing::Socket(halves) = &mut held.framing else { return false };
        let message = (MessageKind::Text, text, true);
        let written = halves.sender.message(&mut self.compression, message, None, out);
        written.expect("a packet whose body is not UTF-8 is refused");
        true
    }
}
