//! Connections that read channels: what is written to them, and how they end.

use std::collections::HashSet;

use zhttp::hold::{CHANNELS_PER_HOLD_MAX, Change, Closed, HoldParams, Send};
use zhttp::{Envelope, Id, Kind, Packet, PacketError, Payload};

use super::connection::{Framing, Held, State};
use super::socket::STOPPING;
use super::timers::NEVER;
use super::{CloseReason, Output, Transport, Worker};
use crate::hold::{Delivery, KEEP_ALIVE, KEEP_ALIVE_CHUNK, Rendering, write_event};
use crate::http1::BodyEncoder;
use crate::hub::ToHub;
use crate::slab::Key;
use crate::websocket::{Close, CloseCode};

impl Worker {
    /// Turns an exchange into a hold, and writes `out`, the head of its answer.
    pub(super) fn begin_hold(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        (params, framing, out): (&HoldParams<'_>, Framing, &[u8]),
    ) {
        let was_full = self.room(key) == 0;
        let connection = &mut self.connections[key.index];
        let State::Exchange(exchange) = &connection.state else { return };
        let id = *exchange.session.id();
        let (rendering, is_response) = match &framing {
            Framing::Response(BodyEncoder::Chunked) => (Rendering::SseChunks, true),
            Framing::Response(_) => (Rendering::Sse, true),
            Framing::Socket(socket) => (socket.halves.rendering(), false),
        };
        let held = Held {
            counter: id.counter,
            framing,
            keep_alive_ms: u32::try_from(params.keep_alive_ms).unwrap_or(u32::MAX),
            expires_at_ms: expiry(now_ms, params.expires_s),
            expires_code: expires_code(params.expires_code),
            sent_ms: now_ms,
            progress_ms: now_ms,
            context: params.context.into(),
            notify: params.notify,
            is_reusable: exchange.keep_alive && connection.input.is_empty(),
        };
        self.members.open((key, rendering), params.channels);
        if params.persistent {
            self.members.keep_open(key);
        }
        self.stats.holds += 1;
        if is_response {
            connection.input.clear(&mut self.pool);
        }
        let is_gone = connection.eof;
        // With that the session is over, and its handler is told nothing more (H-13).
        connection.state = State::Held(Box::new(held));
        let done = ToHub::Done { id: id.text(), cancel: None };
        self.outputs.push_back(Output::Hub(done));
        self.resume_reading(key, was_full);
        if !self.send(now_ms, transport, key, &[out]) {
            return;
        }
        if is_gone {
            self.close(key, CloseReason::ClientLeft);
        } else if self.draining {
            self.drain_hold(now_ms, transport, key);
        } else {
            self.block_if_full(key);
            self.rearm(key);
            // On a WebSocket something may have come meanwhile.
            self.process_input(now_ms, transport, key);
        }
    }

    /// Takes a packet about a connection that is held, from any handler.
    pub(super) fn handle_held_packet(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        packet: &Packet<'_>,
    ) {
        let result = match packet.kind {
            Kind::Hold => self.take_hold_packet(now_ms, transport, key, packet),
            // A client that takes nothing gets no more than its cursors can make good (H-24).
            Kind::Send if self.is_full(key) => {
                self.stats.sends_dropped += 1;
                Ok(())
            }
            Kind::Send => Send::read(packet).map(|send| {
                let mut out = Vec::with_capacity(send.body.len() + 64);
                if !self.write_held_message(key, send.body, &mut out) {
                    write_event(&mut out, send.kind_or_default(), b"", send.body);
                }
                self.write(now_ms, transport, key, &out);
            }),
            Kind::Close => packet.payload().and_then(|payload| {
                let close = close_of(&payload)?;
                self.end_held(now_ms, transport, key, close);
                Ok(())
            }),
            Kind::Cancel => {
                self.end_response(now_ms, transport, key);
                Ok(())
            }
            // What the handler sent before it knew that the session is over.
            Kind::KeepAlive | Kind::Credit | Kind::Error => Ok(()),
            Kind::Data
            | Kind::HandoffStart
            | Kind::HandoffProceed
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
            | Kind::Message
            | Kind::Closed => {
                let name = packet.kind.name();
                return self
                    .refuse_packet(packet.from, format!("a held connection takes no {name}"));
            }
        };
        if let Err(error) = result {
            self.refuse_packet(packet.from, error.to_string());
        }
    }

    /// Changes a hold, or nothing of it if it would then read too many channels (H-21).
    pub(super) fn change(
        &mut self,
        now_ms: u64,
        key: Key,
        change: &Change<'_>,
    ) -> Result<(), PacketError> {
        let State::Held(held) = &mut self.connections[key.index].state else { return Ok(()) };
        let mut names: HashSet<&str> = self.members.cursors(key).map(|(name, _)| name).collect();
        for name in change.remove {
            names.remove(name);
        }
        names.extend(change.add.map(|channel| channel.name));
        if names.len() > CHANNELS_PER_HOLD_MAX {
            return Err(PacketError::Field { field: "add", want: "at most 128 channels in all" });
        }
        if let Some(context) = change.context {
            held.context = context.into();
        }
        if let Some(expires_s) = change.expires_s {
            held.expires_at_ms = expiry(now_ms, expires_s);
        }
        if let Some(code) = change.expires_code {
            held.expires_code = expires_code(code);
        }
        for name in change.remove {
            self.members.remove(key, name);
        }
        for channel in change.add {
            self.members.add(key, channel);
        }
        self.rearm(key);
        Ok(())
    }

    /// Writes what is due to a member.
    pub(super) fn deliver(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        delivery: &Delivery,
    ) {
        let key = delivery.connection;
        debug_assert!(self.connections.get(key).is_some(), "holds end with their connection");
        self.stats.deliveries += 1;
        // So no more waits for it than the bound and one write (H-63), or an answer (H-94).
        let bytes = delivery.bytes.as_ref();
        debug_assert!(bytes.is_empty() || !self.is_full(key), "who is full gets nothing");
        self.write_framed(now_ms, transport, key, bytes);
        if delivery.end {
            self.end_response(now_ms, transport, key);
        }
    }

    /// Writes bytes of the body to a held client.
    pub(super) fn write(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        bytes: &[u8],
    ) {
        let Some(held) = self.prepare_write(now_ms, key) else { return };
        // A client that does not get what its cursor passes must not stay. (A hold has no length, so it
        // cannot be passed.)
        let is_there = match &mut held.framing {
            Framing::Response(encoder) => {
                let Ok(piece) = encoder.piece(bytes.len()) else {
                    return self.close(key, CloseReason::Handler);
                };
                let slices: [&[u8]; 3] = [piece.head.as_bytes(), bytes, piece.tail];
                self.send(now_ms, transport, key, &slices)
            }
            Framing::Socket(_) => self.send(now_ms, transport, key, &[bytes]),
        };
        if is_there {
            self.block_if_full(key);
        }
    }

    /// Writes what has its framing already, as events do, each by itself.
    fn write_framed(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        bytes: &[u8],
    ) {
        if self.prepare_write(now_ms, key).is_some() && self.send(now_ms, transport, key, &[bytes])
        {
            self.block_if_full(key);
        }
    }

    /// Something is about to be written to a held client.
    fn prepare_write(&mut self, now_ms: u64, key: Key) -> Option<&mut Held> {
        let connection = self.connections.get_mut(key)?;
        let State::Held(held) = &mut connection.state else { return None };
        held.sent_ms = now_ms;
        if connection.output.is_empty() {
            // It can be slow only from now on.
            held.progress_ms = now_ms;
        }
        Some(held)
    }

    pub(super) fn is_full(&self, key: Key) -> bool {
        self.unsent_bytes(key) > self.config.client_backlog_bytes_max
    }

    pub(super) fn block_if_full(&mut self, key: Key) {
        if self.is_full(key) {
            self.members.handle_blocked(key);
        }
    }

    /// Tells the client that the connection lives.
    pub(super) fn keep_alive(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        let connection = &mut self.connections[key.index];
        let State::Held(held) = &mut connection.state else { return };
        // What waits to be sent already says more than a comment would.
        if connection.output.is_empty() {
            let said = match held.framing {
                Framing::Response(BodyEncoder::Chunked) => KEEP_ALIVE_CHUNK,
                Framing::Response(_) => KEEP_ALIVE,
                Framing::Socket(_) => PING,
            };
            self.write_framed(now_ms, transport, key, said);
        } else {
            held.sent_ms = now_ms;
        }
    }

    /// Ends the response of a held client at an event boundary. The connection goes on if it can
    /// (H-27).
    pub(super) fn end_response(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        self.end_held(now_ms, transport, key, ALL_SAID);
    }

    /// The time of a held client is up.
    pub(super) fn expire_hold(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        let State::Held(held) = &self.connections[key.index].state else { return };
        let code = held.expires_code;
        self.end_held(now_ms, transport, key, Close { code, reason: "" });
    }

    /// The same; a WebSocket ends with that close.
    fn end_held(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        close: Close<'_>,
    ) {
        if self.is_held_socket(key) {
            self.end_held_socket(now_ms, transport, key, Some(close));
        } else {
            self.end_response_with(now_ms, transport, key, b"");
        }
    }

    /// The same, behind a last event; both in one write.
    fn end_response_with(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        event: &[u8],
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let State::Held(held) = &mut connection.state else { return };
        let goes_on = held.is_reusable && !self.draining;
        let Framing::Response(encoder) = &mut held.framing else { return };
        let mut encoder = std::mem::replace(encoder, BodyEncoder::None);
        let mut out = Vec::new();
        let Ok(last) = encoder.encode(event, &mut out).and_then(|()| encoder.finish()) else {
            // As in `write`.
            return self.close(key, CloseReason::Handler);
        };
        out.extend_from_slice(last);
        if !self.send(now_ms, transport, key, &[&out]) {
            return;
        }
        if goes_on {
            let before = self.begin_reading(now_ms, key);
            self.leave(before, key);
            self.read_next(now_ms, transport, key);
        } else {
            self.finish(now_ms, key);
        }
    }

    /// Sends a held client away, because the edge stops.
    pub(super) fn drain_hold(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        if self.is_held_socket(key) {
            if !self.is_unanswered(key) {
                self.end_held_socket(now_ms, transport, key, Some(STOPPING));
            }
            return;
        }
        let mut event = Vec::new();
        write_event(&mut event, "control", b"", SERVER_DRAINING);
        self.end_response_with(now_ms, transport, key, &event);
    }

    /// A hold is over: its members leave, and a handler that asked for it is told.
    pub(super) fn end_hold(&mut self, held: &mut Held, key: Key) {
        self.members.close(key);
        let id = held.session(self.config.index, key);
        self.end_speech(held, id);
        if !held.notify {
            return;
        }
        let id = id.text();
        let ids = [Id { id: &id, seq: None }];
        let mut out = self.scratches.take();
        let envelope = Envelope::new(&self.config.instance_id, Kind::Closed).about(&ids);
        envelope.write(&mut out, |fields| Closed { context: &held.context }.write(fields));
        let packet = self.scratches.keep(out);
        self.outputs.push_back(Output::Hub(ToHub::Notify { id, packet }));
    }
}

/// What a handler says with the `close` of a WebSocket.
fn close_of<'a>(payload: &Payload<'a>) -> Result<Close<'a>, PacketError> {
    let code = payload.code.map_or(Some(CloseCode::NORMAL), CloseCode::new);
    let code = code.ok_or(PacketError::Field { field: "code", want: "one that may be sent" })?;
    let reason = std::str::from_utf8(payload.body)
        .map_err(|_| PacketError::Field { field: "body", want: "UTF-8" })?;
    Ok(Close { code, reason })
}

/// The end of a WebSocket that has nothing more to get.
const ALL_SAID: Close<'_> = Close { code: CloseCode::NORMAL, reason: "" };

/// A ping that says nothing.
const PING: &[u8] = b"\x89\0";

/// The control event of an edge that stops.
const SERVER_DRAINING: &[u8] = br#"{"event_type":"control","message_id":"00000000-0000-8000-8000-000000000001","control_type":"server_draining"}"#;

/// The code of the close when the time of a hold is up. The reader of the packet lets no other through than 0 and what may be
/// sent.
fn expires_code(code: u16) -> CloseCode {
    CloseCode::new(code).unwrap_or(CloseCode::NORMAL)
}

fn expiry(now_ms: u64, expires_s: u64) -> u64 {
    if expires_s == 0 { NEVER } else { now_ms.saturating_add(expires_s.saturating_mul(1000)) }
}
