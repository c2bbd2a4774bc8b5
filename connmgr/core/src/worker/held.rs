//! Connections that read channels: what is written to them, and how they end.

use zhttp::hold::{Change, Closed, Format, HoldParams, Send};
use zhttp::{Envelope, Id, Kind, Packet, PacketError};

use super::connection::{Held, Response, State};
use super::{CloseReason, Output, Transport, Worker};
use crate::hold::{Delivery, KEEP_ALIVE, write_event};
use crate::http1::BodyEncoder;
use crate::hub::ToHub;
use crate::session::SessionId;
use crate::slab::Key;

impl Worker {
    /// Turns an exchange whose head is out into a hold.
    pub(super) fn begin_hold(&mut self, now_ms: u64, key: Key, params: &HoldParams<'_>) {
        let connection = &mut self.connections[key.index];
        let State::Exchange(exchange) = &mut connection.state else { return };
        let Response::Streaming(encoder) = &mut exchange.response else { return };
        debug_assert!(params.format == Format::Sse, "WebSocket holds are of a WebSocket");
        let id = *exchange.session.id();
        let held = Held {
            hold: self.members.open(key, params.channels),
            counter: id.counter,
            encoder: std::mem::replace(encoder, BodyEncoder::None),
            keep_alive_ms: params.keep_alive_ms,
            expires_at_ms: expiry(now_ms, params.expires_s),
            sent_ms: now_ms,
            progress_ms: now_ms,
            context: params.context.into(),
            notify: params.notify,
        };
        self.stats.holds += 1;
        connection.input.clear(&mut self.pool);
        let is_gone = connection.eof;
        connection.state = State::Held(Box::new(held));
        let done = ToHub::Done { id: id.to_string().into(), cancel: None };
        self.outputs.push_back(Output::Hub(done));
        self.outputs.push_back(Output::Read(key));
        if is_gone {
            self.close(key, CloseReason::ClientLeft);
        } else if self.draining {
            // It comes back to an edge that stays.
            self.finish(now_ms, key);
        } else {
            self.block_if_full(key);
            self.rearm(key);
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
            Kind::Hold => Change::read(packet).map(|change| self.change(now_ms, key, &change)),
            // A client that takes nothing gets no more than its cursors can make good (H-24).
            Kind::Send if self.is_full(key) => {
                self.stats.sends_dropped += 1;
                Ok(())
            }
            Kind::Send => Send::read(packet).map(|send| {
                let mut out = Vec::with_capacity(send.body.len() + 64);
                write_event(&mut out, send.kind_or_default(), b"", send.body);
                self.write(now_ms, transport, key, &out);
            }),
            Kind::Close | Kind::Cancel => {
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
            | Kind::Closed => Err(PacketError::UnknownType),
        };
        if let Err(error) = result {
            self.refuse_packet(packet.from, error.to_string());
        }
    }

    fn change(&mut self, now_ms: u64, key: Key, change: &Change<'_>) {
        let State::Held(held) = &mut self.connections[key.index].state else { return };
        if let Some(context) = change.context {
            held.context = context.into();
        }
        if let Some(expires_s) = change.expires_s {
            held.expires_at_ms = expiry(now_ms, expires_s);
        }
        let hold = held.hold;
        for name in change.remove {
            self.members.remove(hold, name);
        }
        for (name, cursor) in change.add {
            self.members.add(hold, name, cursor);
        }
        self.rearm(key);
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
        self.write(now_ms, transport, key, delivery.bytes.as_ref());
        if delivery.end {
            self.end_response(now_ms, transport, key);
        }
    }

    /// Writes bytes of the body to a held client.
    fn write(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let State::Held(held) = &mut connection.state else { return };
        held.sent_ms = now_ms;
        if connection.output.is_empty() {
            held.progress_ms = now_ms;
        }
        // A hold has no length that could be passed.
        let Ok(piece) = held.encoder.piece(bytes.len()) else { return };
        let slices: [&[u8]; 3] = [piece.head.as_bytes(), bytes, piece.tail];
        if self.send(transport, key, &slices) {
            self.block_if_full(key);
        }
    }

    fn is_full(&self, key: Key) -> bool {
        self.connections[key.index].output.len() > self.config.client_backlog_bytes_max
    }

    fn block_if_full(&mut self, key: Key) {
        if self.is_full(key)
            && let State::Held(held) = &self.connections[key.index].state
        {
            self.members.handle_blocked(held.hold);
        }
    }

    /// Tells the client that the connection lives.
    pub(super) fn keep_alive(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        let connection = &mut self.connections[key.index];
        let State::Held(held) = &mut connection.state else { return };
        // What waits to be sent already says more than a comment would.
        if connection.output.is_empty() {
            self.write(now_ms, transport, key, KEEP_ALIVE);
        } else {
            held.sent_ms = now_ms;
        }
    }

    /// Ends the response of a held client at an event boundary.
    pub(super) fn end_response(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let State::Held(held) = &mut connection.state else { return };
        let last = std::mem::replace(&mut held.encoder, BodyEncoder::None).finish();
        let last = last.unwrap_or_default();
        if last.is_empty() || self.send(transport, key, &[last]) {
            self.finish(now_ms, key);
        }
    }

    /// Sends a held client away, because the edge stops.
    pub(super) fn drain_hold(&mut self, now_ms: u64, transport: &mut impl Transport, key: Key) {
        let mut out = Vec::new();
        write_event(&mut out, "control", b"", SERVER_DRAINING);
        self.write(now_ms, transport, key, &out);
        self.end_response(now_ms, transport, key);
    }

    /// A hold is over: its members leave, and a handler that asked for it is told.
    pub(super) fn end_hold(&mut self, held: &Held, key: Key) {
        self.members.close(held.hold);
        if !held.notify {
            return;
        }
        let id = SessionId { worker: self.config.index, slot: key.index, counter: held.counter };
        let id = id.to_string();
        let ids = [Id { id: id.as_bytes(), seq: None }];
        let mut out = Vec::new();
        let envelope = Envelope::new(&self.config.instance_id, Kind::Closed).about(&ids);
        envelope.write(&mut out, |fields| Closed { context: &held.context }.write(fields));
        let packet = out.into();
        self.outputs.push_back(Output::Hub(ToHub::Notify { id: id.into(), packet }));
    }
}

/// The control event of an edge that stops.
const SERVER_DRAINING: &[u8] = br#"{"event_type":"control","message_id":"00000000-0000-8000-8000-000000000001","control_type":"server_draining"}"#;

fn expiry(now_ms: u64, expires_s: u64) -> Option<u64> {
    (expires_s > 0).then(|| now_ms.saturating_add(expires_s.saturating_mul(1000)))
}
