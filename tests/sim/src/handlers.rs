//! What happens to handlers, in the world's time.

use bytes::Bytes;
use zhttp::{Kind, Packet};

use crate::schedule::{Action, Line};
use crate::world::{World, trace};

/// How long a handler works on a request, in milliseconds, at most.
const WORK_MS: u64 = 400;

/// How long a handler that leaves stays to finish what it has, in milliseconds.
const FINISH_MS: u64 = 5000;

/// How long the shell takes to see that a connection is lost, in milliseconds, at most.
const LOSS_SEEN_MS: u64 = 200;

impl World {
    pub(crate) fn start(&mut self, feeder: usize) {
        if self.feeders[feeder].alive {
            return;
        }
        self.feeders[feeder].start(self.now_ms);
        self.begin_connection(feeder);
        trace!(self, "{} starts", self.feeders[feeder].name);
        let incarnation = self.feeders[feeder].incarnation;
        self.schedule.at(self.now_ms, Action::Beat { feeder, incarnation });
    }

    fn begin_connection(&mut self, feeder: usize) {
        self.schedule.clear_line(Line::ToFeeder(feeder));
        self.schedule.clear_line(Line::FromFeeder(feeder));
    }

    pub(crate) fn kill(&mut self, feeder: usize) {
        if !self.feeders[feeder].alive {
            return;
        }
        trace!(self, "{} is gone", self.feeders[feeder].name);
        self.feeders[feeder].kill();
        self.report_loss(feeder);
    }

    /// The connection breaks and comes back at once; the process lives on.
    pub(crate) fn cut(&mut self, feeder: usize) {
        trace!(self, "{} is cut off", self.feeders[feeder].name);
        self.feeders[feeder].connection += 1;
        self.begin_connection(feeder);
        let name = self.feeders[feeder].name.clone();
        self.hub.handle_peer_lost(self.now_ms, name.as_bytes());
    }

    fn report_loss(&mut self, feeder: usize) {
        if self.faults.losses_reported {
            let connection = self.feeders[feeder].connection;
            let due_ms = self.now_ms + self.random.up_to(LOSS_SEEN_MS);
            self.schedule.at(due_ms, Action::PeerLost { feeder, connection });
        }
    }

    /// The handler does nothing for a while, and then does what it missed.
    pub(crate) fn stall(&mut self, feeder: usize, until_ms: u64) {
        trace!(self, "{} stalls", self.feeders[feeder].name);
        self.feeders[feeder].stalled_until_ms = until_ms;
        if self.random.chance(500) {
            // What it has read already it sends when it wakes up.
            self.schedule.hold_line(Line::FromFeeder(feeder), until_ms);
        }
    }

    pub(crate) fn leave(&mut self, feeder: usize) {
        if !self.feeders[feeder].alive || self.feeders[feeder].leaving {
            return;
        }
        trace!(self, "{} says bye", self.feeders[feeder].name);
        let bye = self.feeders[feeder].bye();
        self.send_to_hub(feeder, true, bye);
        let incarnation = self.feeders[feeder].incarnation;
        self.schedule.at(self.now_ms + FINISH_MS, Action::Exit { feeder, incarnation });
    }

    /// Puts off what a stalled handler would do. Whether it was put off.
    fn put_off(&mut self, feeder: usize, action: impl FnOnce() -> Action) -> bool {
        let until_ms = self.feeders[feeder].stalled_until_ms;
        if until_ms <= self.now_ms {
            return false;
        }
        self.schedule.at(until_ms, action());
        true
    }

    pub(crate) fn beat(&mut self, feeder: usize, incarnation: u64) {
        let stale = !self.feeders[feeder].alive || self.feeders[feeder].incarnation != incarnation;
        if stale || self.put_off(feeder, || Action::Beat { feeder, incarnation }) {
            return;
        }
        for packet in self.feeders[feeder].beat(&self.store) {
            self.send_to_hub(feeder, true, packet);
        }
        self.beat_later(feeder);
    }

    pub(crate) fn announced(
        &mut self,
        feeder: usize,
        incarnation: u64,
        channel: usize,
        event: usize,
    ) {
        let stale = !self.feeders[feeder].alive || self.feeders[feeder].incarnation != incarnation;
        let again = || Action::Announce { feeder, incarnation, channel, event };
        if stale || self.put_off(feeder, again) {
            return;
        }
        for packet in self.feeders[feeder].handle_announced(&self.store, channel, event) {
            self.send_to_hub(feeder, true, packet);
        }
    }

    pub(crate) fn feeder_packet(
        &mut self,
        feeder: usize,
        connection: u64,
        bytes: &Bytes,
    ) -> Result<(), String> {
        let stale = !self.feeders[feeder].alive || self.feeders[feeder].connection != connection;
        let again = || Action::FeederPacket { feeder, connection, bytes: bytes.clone() };
        if stale || self.put_off(feeder, again) {
            return Ok(());
        }
        trace!(self, "hub > {} {}", self.feeders[feeder].name, bytes.escape_ascii());
        let packet = Packet::parse(bytes).map_err(|error| error.to_string())?;
        match packet.kind {
            Kind::Data => {
                for id in packet.ids {
                    self.work(feeder, id.id);
                }
            }
            Kind::Cancel => {
                packet.ids.for_each(|id| self.feeders[feeder].handle_cancel(id.id));
            }
            _ => {
                for packet in self.feeders[feeder].handle_feeding(&self.store, bytes)? {
                    self.send_to_hub(feeder, true, packet);
                }
            }
        }
        Ok(())
    }

    fn work(&mut self, feeder: usize, id: &[u8]) {
        // A handler that leaves takes nothing new: the request goes to another once it is gone.
        if self.feeders[feeder].leaving || !self.feeders[feeder].handle_request(id) {
            return;
        }
        let incarnation = self.feeders[feeder].incarnation;
        let due_ms = self.now_ms + self.random.up_to(WORK_MS);
        let id = Bytes::copy_from_slice(id);
        if self.random.chance(500) {
            let id = id.clone();
            self.schedule.at(due_ms, Action::Answer { feeder, incarnation, id, last: false });
        }
        let due_ms = due_ms + self.random.up_to(WORK_MS);
        self.schedule.at(due_ms, Action::Answer { feeder, incarnation, id, last: true });
    }

    pub(crate) fn answer(&mut self, feeder: usize, incarnation: u64, id: &Bytes, last: bool) {
        let stale = !self.feeders[feeder].alive || self.feeders[feeder].incarnation != incarnation;
        let again = || Action::Answer { feeder, incarnation, id: id.clone(), last };
        if stale || self.put_off(feeder, again) {
            return;
        }
        if let Some(packet) = self.feeders[feeder].answer(id, last) {
            self.send_to_hub(feeder, false, packet);
        }
    }
}
