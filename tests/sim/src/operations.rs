//! What publishers, clients and fate do: one operation after another, drawn by weight.

use forebay_core::hub::ToHub;

use crate::client::State;
use crate::connections::EVENT_BYTES_MAX;
use crate::requests::Requests;
use crate::schedule::Action;
use crate::world::{World, trace};

/// A handler stays away for so long, in milliseconds, at most.
const AWAY_MS: u64 = 6000;

/// Events of a burst, at most.
const BURST_EVENTS: u64 = 40;

/// The padding in an event, in bytes, at most: with what is around it below the limit.
const PADDING_BYTES: u64 = EVENT_BYTES_MAX as u64 - 100;

/// The store's announcements take so long, in milliseconds, at most.
const ANNOUNCE_MS: u64 = 20;

impl World {
    /// Does one thing, and has the next one happen a little later.
    pub(crate) fn operate(&mut self) {
        if self.operations_left == 0 {
            return;
        }
        self.operations_left -= 1;
        let gap_ms = if self.random.chance(self.scenario.pause_per_mille) {
            self.random.up_to(8000)
        } else {
            self.random.up_to(self.scenario.operation_gap_ms)
        };
        self.schedule.at(self.now_ms + gap_ms, Action::Operate);
        let channel = self.random.index(self.store.len());
        let client = self.random.index(self.clients.len());
        match self.random.up_to(119 + self.faults.handler_weight) {
            0..=37 => self.publish(channel, false),
            38..=43 => self.publish(channel, true),
            44..=46 => {
                for _ in 0..self.random.between(1, BURST_EVENTS) {
                    self.publish(channel, false);
                }
            }
            47..=50 => {
                let count = self.random.between(1, 30) as usize;
                trace!(self, "trim {count} of {channel}");
                self.store[channel].trim(count);
            }
            51..=52 => {
                trace!(self, "delete {channel}");
                self.store[channel].delete();
            }
            53..=60 => self.connect(client),
            61..=66 => {
                self.disconnect(client);
                if self.random.chance(800) {
                    self.reconnect(client);
                }
            }
            67..=76 => self.clients[client].paused = true,
            77..=84 => {
                self.clients[client].paused = false;
                self.schedule.at(self.now_ms, Action::Read { client });
            }
            85..=90 => self.add_channel(client, channel),
            91..=95 => self.remove_channel(client, channel),
            96..=109 => self.request(),
            110..=113 => self.cancel(),
            114..=119 => {}
            _ => self.strike(),
        }
    }

    /// Appends an event, and announces it to every handler.
    pub(crate) fn publish(&mut self, channel: usize, end: bool) {
        let padding = self.random.up_to(PADDING_BYTES) as usize;
        let event = self.store[channel].append(self.now_ms, end, padding);
        trace!(self, "append {} to {channel}, end: {end}", self.store[channel].history[event].id);
        for feeder in 0..self.feeders.len() {
            let incarnation = self.feeders[feeder].incarnation;
            if !self.random.chance(self.faults.announce_loss_per_mille) {
                let due_ms = self.now_ms + self.random.up_to(ANNOUNCE_MS);
                let action = Action::Announce { feeder, incarnation, channel, event };
                self.schedule.at(due_ms, action);
            }
        }
        for client in 0..self.clients.len() {
            let entry = &self.clients[client];
            if entry.state == State::Resting && entry.wants.contains(&channel) {
                self.reconnect(client);
            }
        }
    }

    fn request(&mut self) {
        let worker = self.random.index(self.workers.len());
        let pending = self.requests.make(self.now_ms, worker);
        self.tell_hub(worker, ToHub::Request(pending));
    }

    fn cancel(&mut self) {
        if self.requests.open().is_empty() {
            return;
        }
        let id = self.requests.open()[self.random.index(self.requests.open().len())].clone();
        let worker = self.requests.worker_of(&id);
        if self.requests.cancel(&id) {
            let cancel = Some(Requests::cancel_packet(&id));
            self.tell_hub(worker, ToHub::Done { id, cancel });
        }
    }

    /// Something happens to a handler.
    fn strike(&mut self) {
        let feeder = self.random.index(self.feeders.len());
        let away_ms = self.random.up_to(AWAY_MS);
        match self.random.up_to(9) {
            0..=3 => {
                self.kill(feeder);
                self.schedule.at(self.now_ms + away_ms, Action::Start { feeder });
            }
            4 => {
                self.leave(feeder);
                self.schedule.at(self.now_ms + 2 * AWAY_MS, Action::Start { feeder });
            }
            5..=6 => self.stall(feeder, self.now_ms + away_ms),
            _ => self.cut(feeder),
        }
    }
}
