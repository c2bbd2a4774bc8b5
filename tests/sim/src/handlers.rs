//! What happens to handlers, in the world's time.

use std::rc::Rc;

use bytes::Bytes;
use zhttp::{Kind, Packet};

use crate::coverage::Mark;
use crate::handler::{Doings, Job, Work};
use crate::oracles::is_request;
use crate::scenario::{BEAT_MS, Role};
use crate::schedule::{Action, Line};
use crate::store::{Event, NewEvent};
use crate::wire::Class;
use crate::world::{World, trace};

/// How long a handler works on a step of a request, in milliseconds, at most.
const WORK_MS: u64 = 300;

/// How long a handler that leaves stays to finish what it has, in milliseconds.
const FINISH_MS: u64 = 5000;

/// How long the shell takes to see that a connection is lost, in milliseconds, at most.
const LOSS_SEEN_MS: u64 = 200;

impl World {
    pub(crate) fn start(&mut self, handler: usize) -> Result<(), String> {
        if self.handlers[handler].alive {
            return Ok(());
        }
        self.handlers[handler].start(self.now_ms);
        self.clear_lines(handler);
        trace!(self, "{} starts", self.handlers[handler].name);
        let incarnation = self.handlers[handler].incarnation;
        self.schedule.at(self.now_ms, Action::Beat { handler, incarnation });
        self.announce_plain()
    }

    pub(crate) fn kill(&mut self, handler: usize) {
        if !self.handlers[handler].alive {
            return;
        }
        trace!(self, "{} is gone", self.handlers[handler].name);
        self.handlers[handler].kill();
        self.clear_lines(handler);
        if self.faults.losses_reported {
            let connection = self.handlers[handler].connection;
            let due_ms = self.now_ms + self.random.up_to(LOSS_SEEN_MS);
            self.schedule.at(due_ms, Action::PeerLost { handler, connection });
        }
    }

    /// The edge hears that a connection is lost: before anything that comes by a later one.
    pub(crate) fn peer_lost(&mut self, handler: usize, connection: u64) -> Result<(), String> {
        if self.handlers[handler].connection != connection {
            return Ok(());
        }
        let name = self.handlers[handler].name.clone();
        trace!(self, "hub lost {name}");
        let now_ms = self.now_ms;
        if let Some(edge) = &mut self.edge {
            let clock_ms = edge.clock_ms(now_ms);
            edge.hub.handle_peer_lost(clock_ms, name.as_bytes());
            self.oracles.handle_lost(&name);
        }
        self.announce_plain()
    }

    /// The connection breaks and comes back at once; the process lives on.
    pub(crate) fn cut(&mut self, handler: usize) -> Result<(), String> {
        trace!(self, "{} is cut off", self.handlers[handler].name);
        self.renew_connection(handler);
        let connection = self.handlers[handler].connection;
        self.peer_lost(handler, connection)
    }

    /// A handler connects anew.
    pub(crate) fn renew_connection(&mut self, handler: usize) {
        self.handlers[handler].forget();
        self.clear_lines(handler);
    }

    /// The handler does nothing for a while, and then does what it missed.
    pub(crate) fn stall(&mut self, handler: usize, until_ms: u64) {
        // What is put off keeps its order only if the stall is not made longer.
        if self.handlers[handler].stalled_until_ms > self.now_ms {
            return;
        }
        trace!(self, "{} stalls", self.handlers[handler].name);
        self.handlers[handler].stalled_until_ms = until_ms;
        if self.random.chance(300) {
            // What it has sent already is stuck too.
            self.schedule.cut_line(Line::FromHandler(handler), until_ms);
        }
    }

    /// The wire is cut in one direction, and mends.
    pub(crate) fn partition(&mut self, handler: usize, until_ms: u64) {
        trace!(self, "the wire of {} is cut", self.handlers[handler].name);
        self.mark(Mark::Partitioned);
        let line = if self.random.chance(500) {
            Line::FromHandler(handler)
        } else {
            Line::ToHandler(handler)
        };
        self.schedule.cut_line(line, until_ms);
    }

    pub(crate) fn leave(&mut self, handler: usize) {
        let entry = &self.handlers[handler];
        if !entry.alive || entry.leaving || !entry.greets() {
            return;
        }
        trace!(self, "{} says bye", entry.name);
        let bye = self.handlers[handler].bye();
        self.send_to_hub(handler, Class::Feeding, bye);
        let incarnation = self.handlers[handler].incarnation;
        self.schedule.at(self.now_ms + FINISH_MS, Action::Exit { handler, incarnation });
    }

    /// Whether a handler is that still. If it is stalled, what it would do is put off.
    pub(crate) fn is_up(
        &mut self,
        (handler, incarnation): (usize, u64),
        again: impl FnOnce() -> Action,
    ) -> bool {
        let entry = &self.handlers[handler];
        if !entry.alive || entry.incarnation != incarnation {
            return false;
        }
        let until_ms = entry.stalled_until_ms;
        if until_ms > self.now_ms {
            self.schedule.defer(until_ms, again());
            return false;
        }
        true
    }

    pub(crate) fn beat(&mut self, handler: usize, incarnation: u64) -> Result<(), String> {
        if !self.is_up((handler, incarnation), || Action::Beat { handler, incarnation }) {
            return Ok(());
        }
        let doings = self.handlers[handler].beat(&self.store);
        self.schedule.at(self.now_ms + BEAT_MS, Action::Beat { handler, incarnation });
        self.handler_does(handler, doings)
    }

    pub(crate) fn announced(
        &mut self,
        (handler, incarnation): (usize, u64),
        channel: usize,
        event: &Rc<Event>,
    ) -> Result<(), String> {
        let again = || Action::Announce { handler, incarnation, channel, event: Rc::clone(event) };
        if !self.is_up((handler, incarnation), again) {
            return Ok(());
        }
        let doings = self.handlers[handler].handle_announced(&self.store, channel, event);
        self.handler_does(handler, doings)
    }

    /// A packet of a handler reaches the hub.
    pub(crate) fn hub_packet(
        &mut self,
        handler: usize,
        connection: u64,
        bytes: &Bytes,
    ) -> Result<(), String> {
        let entry = &self.handlers[handler];
        if entry.connection != connection {
            return Ok(());
        }
        let (name, greets) = (entry.name.clone(), entry.greets());
        trace!(self, "{name} > hub {}", bytes.escape_ascii());
        let now_ms = self.now_ms;
        let Some(edge) = &mut self.edge else { return Ok(()) };
        let packet = Packet::parse(bytes).map_err(|error| error.to_string())?;
        let clock_ms = edge.clock_ms(now_ms);
        self.oracles.handle_packet(clock_ms, &name, &packet);
        // Plain handlers publish what they say.
        let peer = greets.then_some(name.as_bytes());
        edge.hub.handle_packet(clock_ms, peer, bytes).map_err(|error| error.to_string())?;
        self.pump_hub()
    }

    /// A packet of the hub reaches a handler.
    pub(crate) fn handler_packet(
        &mut self,
        handler: usize,
        connection: u64,
        bytes: &Bytes,
    ) -> Result<(), String> {
        if self.handlers[handler].connection != connection {
            return Ok(());
        }
        let incarnation = self.handlers[handler].incarnation;
        let again = || Action::HandlerPacket { handler, connection, bytes: bytes.clone() };
        if !self.is_up((handler, incarnation), again) {
            return Ok(());
        }
        self.packet_taken(handler);
        trace!(self, "hub > {} {}", self.handlers[handler].name, bytes.escape_ascii());
        let packet = Packet::parse(bytes).map_err(|error| error.to_string())?;
        if matches!(packet.kind, Kind::Feed | Kind::Unfeed | Kind::Range) {
            let range_bytes = self.scenario.limits.range_bytes_max;
            let entry = &mut self.handlers[handler];
            let doings = entry.handle_feeding(&self.store, bytes, range_bytes)?;
            return self.handler_does(handler, doings);
        }
        if packet.kind == Kind::Closed {
            return Ok(());
        }
        if packet.kind == Kind::Message {
            return self.handler_hears(handler, &packet);
        }
        if is_request(&packet) {
            let id = { packet.ids }.next().ok_or("a request without an id")?.id;
            let seed = self.random.number();
            if let Some(doings) = self.handlers[handler].handle_request(&packet, id, seed)? {
                // Given to the process before this one as well, for all that the edge knew: what follows comes twice, too.
                if !self.handlers[handler].had.insert(Bytes::copy_from_slice(id)) {
                    self.undelivered.insert(Bytes::copy_from_slice(id));
                }
                if let Some(token) = self.handlers[handler].works.get(id).and_then(Work::token) {
                    self.sessions.insert(token, Bytes::copy_from_slice(id));
                }
                self.handler_does(handler, doings)?;
            }
            return Ok(());
        }
        let is_strict = self.is_strict();
        for id in packet.ids {
            if packet.kind == Kind::Cancel && id.seq.is_some() {
                self.cancelled.insert(Bytes::copy_from_slice(id.id));
            }
            let is_strict = is_strict && !self.undelivered.contains(id.id);
            let doings = self.handlers[handler].handle_session(&packet, id, is_strict)?;
            self.handler_does(handler, doings)?;
        }
        Ok(())
    }

    /// Does what a handler wants done.
    pub(crate) fn handler_does(&mut self, handler: usize, doings: Doings) -> Result<(), String> {
        for mark in doings.marks {
            self.mark(mark);
        }
        for packet in doings.feeding {
            self.send_to_hub(handler, Class::Feeding, packet);
        }
        for packet in doings.session {
            self.send_to_hub(handler, Class::Session, packet);
        }
        for (channel, head) in doings.losses {
            self.tell_loss(channel, head)?;
        }
        let incarnation = self.handlers[handler].incarnation;
        for id in doings.advances {
            let is_slow = self.handlers[handler].works.get(&id).is_some_and(Work::is_slow);
            let wait_ms = if is_slow { self.slow_work_ms() } else { self.random.up_to(WORK_MS) };
            let action = Action::Advance { handler, incarnation, id };
            self.schedule.at(self.now_ms + wait_ms, action);
        }
        if let Some(work) = doings.handed {
            self.hand_over(work);
        }
        Ok(())
    }

    /// One who works so long must hear from the edge meanwhile.
    pub(crate) fn slow_work_ms(&self) -> u64 {
        self.scenario.timeouts.keep_alive_ms + 500
    }

    /// A session goes to another handler; if there is none, it is lost.
    fn hand_over(&mut self, work: Work) {
        let takes = |index: &usize| {
            let handler = &self.handlers[*index];
            handler.alive && !handler.leaving && handler.role != Role::Plain
        };
        let handlers: Vec<usize> = (0..self.handlers.len()).filter(takes).collect();
        if handlers.is_empty() {
            return;
        }
        let handler = handlers[self.random.index(handlers.len())];
        self.mark(Mark::HandedOff);
        let id = self.handlers[handler].take_over(work);
        let incarnation = self.handlers[handler].incarnation;
        self.schedule.at(self.now_ms + 1, Action::Advance { handler, incarnation, id });
    }

    /// A log has fallen back, or is gone: whoever sees it appends an event, if no other has.
    pub(crate) fn tell_loss(&mut self, channel: usize, head: zhttp::Cursor) -> Result<(), String> {
        let log = &self.store.channels[channel];
        if log.head() != head {
            return Ok(());
        }
        if head == zhttp::Cursor::START {
            self.mark(Mark::GoneTold);
            return self.append(channel, NewEvent::Gone);
        }
        // A cursor from beyond the end may also be another channel's: then nothing was lost.
        if !log.is_renewed() {
            return Ok(());
        }
        self.mark(Mark::LossTold);
        self.append(channel, NewEvent::Loss)
    }

    pub(crate) fn advance_work(
        &mut self,
        handler: usize,
        incarnation: u64,
        id: &Bytes,
    ) -> Result<(), String> {
        let again = || Action::Advance { handler, incarnation, id: id.clone() };
        if !self.is_up((handler, incarnation), again) {
            return Ok(());
        }
        let Some(work) = self.handlers[handler].works.get(id) else { return Ok(()) };
        if matches!(work.job, Job::Subscribe { .. }) {
            return self.answer_subscribe(handler, id);
        }
        if matches!(work.job, Job::Attach { .. }) {
            self.answer_attach(handler, id);
            return Ok(());
        }
        let is_calm = work.token().is_some_and(|token| token > self.calm_token);
        if is_calm && work.is_slow() && work.keep_alives == 0 {
            return Err("a handler that works long heard nothing from the edge".into());
        }
        let doings = self.handlers[handler].advance(id);
        self.handler_does(handler, doings)
    }
}
