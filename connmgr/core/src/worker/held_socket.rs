//! WebSockets that are held: their events are messages, and so is what their clients say (hold.md §3, §4.1, H-61).
//!
//! No handler has a say in their frames: pings are answered, a close is answered in its own words, and whoever breaks
//! the protocol is told so. What messages say goes to a handler if the hold says to whom ([`Speech`]).

use zhttp::hold::HoldParams;

use super::connection::{Framing, State};
use super::input::Step;
use super::socket::Halves;
use super::speech::{Speech, TooLong};
use super::{CloseReason, Transport, Worker};
use crate::slab::Key;
use crate::websocket::{Close, CloseCode, MessageKind, Received, Sender};

/// To a client that says something, where nobody would hear it.
const NOT_HEARD: Close<'_> =
    Close { code: CloseCode::UNSUPPORTED, reason: "Messages are not taken here" };

/// To a client that says too much at once.
const TOO_LONG: Close<'_> = Close { code: CloseCode::TOO_LARGE, reason: "The message is too long" };

/// A WebSocket that is held.
#[derive(Debug)]
pub(super) struct HeldSocket {
    pub(super) halves: Halves,
    /// What its client says, if it may say anything.
    pub(super) speech: Option<Speech>,
}

impl Worker {
    /// A WebSocket as a handler wants to have it held.
    pub(super) fn held_socket(&mut self, halves: Halves, params: &HoldParams<'_>) -> HeldSocket {
        let is_heard = !params.messages.is_empty();
        let speech = is_heard.then(|| Speech::new(self.shared_path(params.messages)));
        HeldSocket { halves, speech }
    }

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
        let connection = &self.connections[key.index];
        // Nothing more comes, and what was said before is out.
        let is_over = connection.eof && connection.output.is_empty();
        // Who sends pings and takes no pongs has to wait for itself.
        let is_full = self.is_full(key);
        let State::Held(held) = &mut self.connections[key.index].state else { return Step::Wait };
        let Framing::Socket(socket) = &mut held.framing else { return Step::Wait };
        let HeldSocket { halves, speech, .. } = &mut **socket;
        let has_all = input.is_empty() && !halves.receiver.has_rest();
        let is_over = is_over && speech.as_ref().is_none_or(Speech::is_done);
        if is_over && has_all {
            self.close(key, CloseReason::ClientLeft);
            return Step::Wait;
        }
        if has_all || is_full || speech.as_ref().is_some_and(Speech::is_full) {
            return Step::Wait;
        }
        let mut out = Vec::new();
        let room = (&mut out, self.config.buffer_bytes as usize);
        let close = match halves.receiver.receive(&mut self.compression, input, room) {
            // The rest of a frame will never come.
            Ok((0, Received::Nothing)) if is_over => {
                self.close(key, CloseReason::ClientLeft);
                return Step::Wait;
            }
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
            Ok((used, Received::Message { kind, end })) => {
                let Some(speech) = speech else {
                    self.end_held_socket(now_ms, transport, key, Some(NOT_HEARD));
                    return Step::Used(input.len());
                };
                let until_ms = now_ms.saturating_add(self.config.timeouts.message_ms);
                match speech.hear((kind, &out, end), until_ms) {
                    Ok(()) => {
                        self.say(now_ms, key);
                        self.rearm(key);
                        return Step::Used(used);
                    }
                    Err(TooLong) => Some(TOO_LONG),
                }
            }
            // It says that nothing follows what is still to be answered.
            Ok((_, Received::Close)) if speech.as_ref().is_some_and(|speech| !speech.is_done()) => {
                return Step::Wait;
            }
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
        let Framing::Socket(socket) = &mut held.framing else { return false };
        let message = (MessageKind::Text, text, true);
        let written = socket.halves.sender.message(&mut self.compression, message, None, out);
        written.expect("a packet whose body is not UTF-8 is refused");
        true
    }
}
