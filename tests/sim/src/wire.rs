//! What is between the hub and its handlers: queues that fill, and a wire that delays, reorders, loses and repeats.

use std::collections::VecDeque;

use bytes::Bytes;
use forebay_core::ShortText;
use forebay_core::hub::{FromHub, Pending};
use forebay_core::session::SessionId;
use zhttp::{Envelope, Id, Kind, Packet};

use crate::coverage::Mark;
use crate::edge::PLAIN_GROUP;
use crate::handler::pattern;
use crate::oracles::is_request;
use crate::scenario::Role;
use crate::schedule::{Action, Line};
use crate::world::{World, trace};

/// How long after a refusal a stalled packet is tried again, in milliseconds.
const STALLED_RETRY_MS: u64 = 10;

/// How long a REP socket takes, in milliseconds, at most.
const REPLY_MS: u64 = 300;

/// The queue of the edge to one handler.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Packets in it.
    in_flight: usize,
    /// Packets that wait for room.
    stalled: VecDeque<Bytes>,
}

/// The session that a packet brings a piece of a body of, and its worker; `None` if it is another packet.
fn session_of_piece(packet: &Bytes) -> Option<(usize, Bytes)> {
    let Packet { kind: Kind::Data | Kind::Message, mut ids, .. } = Packet::parse(packet).ok()?
    else {
        return None;
    };
    let id = ids.next()?.id;
    Some((usize::from(SessionId::parse(id)?.worker), packet.slice_ref(id)))
}

/// Of what a packet is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// About feeding and presence: it may go wrong in every way.
    Feeding,
    /// About a session: it keeps its order.
    Session,
}

impl World {
    /// The hub sends a packet to a handler, behind those that wait for it.
    pub(crate) fn route(&mut self, peer: &[u8], bytes: Bytes) -> Result<(), String> {
        self.counts.packets += 1;
        let is_peer = |handler: &crate::handler::Handler| handler.name.as_bytes() == peer;
        let handler = self.handlers.iter().position(is_peer).ok_or("a packet to nobody")?;
        self.see_routed(handler, &bytes)?;
        let limits = &self.scenario.limits;
        let (stalled_max, queue_max) = (limits.peer_stalled_max, limits.peer_queue_max);
        let link = &mut self.links[handler];
        if link.in_flight < queue_max && link.stalled.is_empty() {
            self.send_to_handler(handler, &bytes);
            return Ok(());
        }
        if link.stalled.len() >= stalled_max
            && let Some((worker, id)) = session_of_piece(&bytes)
        {
            self.mark(Mark::PeerDropped);
            self.undelivered.insert(id.clone());
            self.oracles.talk.refuse(id.clone());
            let id = ShortText::new(&id).expect("it is an edge's");
            self.tell_worker(worker, FromHub::Undelivered(id));
            return Ok(());
        }
        if link.stalled.is_empty() {
            let due_ms = self.now_ms + STALLED_RETRY_MS;
            self.schedule.at(due_ms, Action::RetryStalled { handler });
            self.tell_workers(&FromHub::Stalled(peer.into()));
        }
        self.links[handler].stalled.push_back(bytes);
        self.mark(Mark::PeerFull);
        Ok(())
    }

    fn see_routed(&mut self, handler: usize, bytes: &Bytes) -> Result<(), String> {
        let packet = Packet::parse(bytes).map_err(|error| error.to_string())?;
        let Some(edge) = &self.edge else { return Ok(()) };
        let times = (edge.clock_ms(self.now_ms), self.scenario.limits.linger_ms);
        let is_followed = |name: &str| edge.hub.feeds().name(name).is_some();
        let to = &self.handlers[handler].name;
        if packet.kind == Kind::Closed {
            let closed = { packet.ids }.next().ok_or("a hold without an id has closed")?.id;
            // An edge that has begun anew gives the same ids, and two handlers may take one hold.
            if !self.takes.iter().any(|take| take.notify && *take.id == *closed) {
                return Err(
                    "a handler is told of the end of a hold, and has not asked for that".into()
                );
            }
        }
        let remarks = self.oracles.handle_route(times, to, (&packet, bytes), is_followed)?;
        let multi = packet.kind == Kind::Cancel && packet.ids.count() > 1;
        let unnumbered =
            packet.kind == Kind::Cancel && { packet.ids }.next().is_some_and(|id| id.seq.is_none());
        let marks = [
            (remarks.is_range_again, Mark::RangeAgain),
            (remarks.is_feeder_changed_in_range, Mark::FeederChangedInRange),
            (remarks.is_unfed, Mark::Unfed),
            (remarks.is_given_again, Mark::GivenAgain),
            (remarks.is_said_again, Mark::SaidAgain),
            (multi, Mark::MultiCancel),
            (unnumbered && packet.ext.multi, Mark::UnknownCancelled),
            (unnumbered && !packet.ext.multi, Mark::Withdrawn),
            (packet.kind == Kind::Closed, Mark::ClosedTold),
        ];
        marks.into_iter().filter(|(is, _)| *is).for_each(|(_, mark)| self.mark(mark));
        Ok(())
    }

    fn send_to_handler(&mut self, handler: usize, bytes: &Bytes) {
        let is_feeding = Packet::parse(bytes)
            .is_ok_and(|packet| matches!(packet.kind, Kind::Feed | Kind::Unfeed | Kind::Range));
        let class = if is_feeding { Class::Feeding } else { Class::Session };
        let connection = self.handlers[handler].connection;
        let make = || Action::HandlerPacket { handler, connection, bytes: bytes.clone() };
        let copies = self.send(Line::ToHandler(handler), class, make);
        self.links[handler].in_flight += copies;
    }

    /// A handler has taken a packet out of its queue.
    pub(crate) fn packet_taken(&mut self, handler: usize) {
        let link = &mut self.links[handler];
        link.in_flight = link.in_flight.saturating_sub(1);
    }

    /// What waits for a handler is tried again, in order.
    pub(crate) fn retry_stalled(&mut self, handler: usize) {
        let queue_max = self.scenario.limits.peer_queue_max;
        while self.links[handler].in_flight < queue_max {
            let Some(bytes) = self.links[handler].stalled.pop_front() else { return };
            self.send_to_handler(handler, &bytes);
            if self.links[handler].stalled.is_empty() {
                self.tell_flowing(handler);
            }
        }
        if !self.links[handler].stalled.is_empty() {
            let due_ms = self.now_ms + STALLED_RETRY_MS;
            self.schedule.at(due_ms, Action::RetryStalled { handler });
        }
    }

    /// Nothing of a handler's connection is on its way any more.
    pub(crate) fn clear_lines(&mut self, handler: usize) {
        self.schedule.clear_line(Line::ToHandler(handler));
        self.schedule.clear_line(Line::FromHandler(handler));
        let link = std::mem::take(&mut self.links[handler]);
        if !link.stalled.is_empty() {
            self.tell_flowing(handler);
        }
    }

    fn tell_flowing(&mut self, handler: usize) {
        let peer = self.handlers[handler].name.as_bytes().into();
        self.tell_workers(&FromHub::Flowing(peer));
    }

    /// What a handler sends.
    pub(crate) fn send_to_hub(&mut self, handler: usize, class: Class, packet: Vec<u8>) {
        self.counts.packets += 1;
        let bytes = Bytes::from(packet);
        let connection = self.handlers[handler].connection;
        let make = || Action::HubPacket { handler, connection, bytes: bytes.clone() };
        self.send(Line::FromHandler(handler), class, make);
    }

    /// Puts a packet on the wire. How often it arrives.
    fn send(&mut self, line: Line, class: Class, make: impl Fn() -> Action) -> usize {
        // Sessions are told of a loss by their numbers, but die of it: so that is more seldom.
        let part = match class {
            Class::Feeding => 1,
            Class::Session if self.faults.sessions_too => 8,
            Class::Session => 0,
        };
        let is_struck = |per_mille: u64| per_mille.checked_div(part).unwrap_or(0);
        let mut copies = 1;
        if self.random.chance(is_struck(self.faults.loss_per_mille)) {
            self.mark(Mark::PacketLost);
            copies = 0;
        } else if self.random.chance(is_struck(self.faults.repeat_per_mille)) {
            self.mark(Mark::PacketRepeated);
            copies = 2;
        }
        for _ in 0..copies {
            let due_ms = self.now_ms + self.random.up_to(self.faults.delay_ms);
            if self.faults.fifo || class == Class::Session {
                self.schedule.in_line(line, due_ms, make());
            } else {
                let due_ms = self.schedule.behind_partition(line, due_ms);
                self.schedule.at(due_ms, make());
            }
        }
        copies
    }

    /// Whether no packet of a session can have been lost since the run began.
    pub(crate) fn is_strict(&self) -> bool {
        let faults = &self.scenario.faults;
        let loses = faults.sessions_too && faults.loss_per_mille + faults.repeat_per_mille > 0;
        !loses
    }

    /// Pushes a request to a plain handler, if one takes it.
    pub(crate) fn push(&mut self, group: usize, pending: Pending) -> Result<(), String> {
        let max = self.scenario.limits.peer_queue_max;
        let takes = |index: &usize| {
            let handler = &self.handlers[*index];
            let has_room = self.links[*index].in_flight < max;
            handler.role == Role::Plain && handler.alive && has_room
        };
        let handlers: Vec<usize> = (0..self.handlers.len()).filter(takes).collect();
        if group != PLAIN_GROUP || handlers.is_empty() || self.random.chance(50) {
            self.refuse_push(group, pending);
            return Ok(());
        }
        let handler = handlers[self.random.index(handlers.len())];
        self.send_to_handler(handler, &pending.packet);
        Ok(())
    }

    fn refuse_push(&mut self, group: usize, pending: Pending) {
        self.mark(Mark::PushRefused);
        let now_ms = self.now_ms;
        if let Some(edge) = &mut self.edge {
            let clock_ms = edge.clock_ms(now_ms);
            edge.hub.handle_push_refused(clock_ms, group, pending);
        }
    }

    /// Plain handlers have come or gone.
    pub(crate) fn announce_plain(&mut self) -> Result<(), String> {
        let is_there =
            |handler: &&crate::handler::Handler| handler.role == Role::Plain && handler.alive;
        let count = self.handlers.iter().filter(is_there).count();
        if let Some(edge) = &mut self.edge {
            edge.hub.handle_push_peers(PLAIN_GROUP, count);
        }
        self.pump_hub()
    }

    /// A request of req mode goes to a REP socket, if one takes it. It answers, or has died.
    pub(crate) fn push_req(&mut self, pending: Pending) {
        if self.is_operating && self.random.chance(100) {
            return self.refuse_push(crate::edge::REQ_GROUP, pending);
        }
        if self.is_operating && self.random.chance(100) {
            return;
        }
        let Ok(packet) = Packet::parse(&pending.packet) else { return };
        if !is_request(&packet) {
            return;
        }
        let Ok(payload) = packet.payload() else { return };
        let number = |name: &str| {
            let query = payload.uri.unwrap_or_default().split_once('?').unwrap_or_default().1;
            let value = query.split('&').find_map(|pair| pair.strip_prefix(name));
            value.and_then(|value| value.parse::<u64>().ok()).unwrap_or_default()
        };
        let (down, token) = (number("down="), number("token="));
        let is_whole = payload.body.iter().zip(0..).all(|(byte, at)| *byte == pattern(token, at));
        let code = if is_whole && payload.body.len() as u64 == number("up=") { 200 } else { 599 };
        let seed = self.random.number();
        let body: Vec<u8> = (0..down).map(|index| pattern(seed, index)).collect();
        let (text, token) = (seed.to_string(), token.to_string());
        let mut out = Vec::new();
        let ids = [Id { id: &pending.id, seq: None }];
        Envelope { from: b"", ids: &ids, kind: Kind::Data, multi: false }.write(
            &mut out,
            |fields| {
                fields.int("code", code);
                let headers: [(&[u8], &[u8]); 2] =
                    [(b"X-Seed", text.as_bytes()), (b"X-Token", token.as_bytes())];
                fields.headers(headers.into_iter());
                fields.bytes("body", &body);
            },
        );
        let Some(edge) = &self.edge else { return };
        let life = edge.life;
        trace!(self, "rep > hub {:?}", pending.id);
        let due_ms = self.now_ms + self.random.up_to(REPLY_MS);
        self.schedule.at(due_ms, Action::Reply { life, bytes: out.into() });
    }
}
