//! What publishers, clients and fate do: one operation after another, drawn by weight.

use std::rc::Rc;

use zhttp::Cursor;

use crate::clients::State;
use crate::coverage::Mark;
use crate::schedule::Action;
use crate::store::NewEvent;
use crate::world::{World, trace};

/// A handler stays away for so long, in milliseconds, at most.
const AWAY_MS: u64 = 6000;

/// Events of a burst, at most.
const BURST_EVENTS: u64 = 40;

/// The store's announcements take so long, in milliseconds, at most.
const ANNOUNCE_MS: u64 = 20;

/// A publisher hears of its success after so many milliseconds, at most.
const ACKNOWLEDGE_MS: u64 = 20;

/// Events that the next node has not got when it takes over, at most.
const LAG_EVENTS: u64 = 6;

/// The cleaner takes so long from one step to the next, in milliseconds, at most.
const CLEAN_MS: u64 = 400;

/// Which operation may be drawn, and how often, out of this sum; behind them come the faults.
const WEIGHTS: u64 = 129;

/// The weight of what clients of WebSockets do, if there are any.
const SPEECH_WEIGHT: u64 = 36;

impl World {
    /// Does one thing, and has the next one happen a little later.
    pub(crate) fn operate(&mut self) -> Result<(), String> {
        if !self.is_operating {
            return Ok(());
        }
        let gap_ms = if self.random.chance(self.scenario.pause_per_mille) {
            self.random.up_to(8000)
        } else {
            self.random.up_to(self.scenario.operation_gap_ms)
        };
        self.schedule.at(self.now_ms + gap_ms, Action::Operate);
        let channel = self.random.index(self.store.channels.len());
        let client = self.random.index(self.clients.len());
        let faults = &self.faults;
        let (handlers, edge) = (faults.handler_weight, faults.edge_weight);
        let speech = if self.speakers.is_empty() { 0 } else { SPEECH_WEIGHT };
        let drawn = self.random.up_to(WEIGHTS + speech + handlers + edge + faults.store_weight);
        match drawn {
            0..=52 => self.operate_store(drawn, channel),
            53..=95 => self.operate_client(drawn, client, channel),
            96..=125 => self.operate_visitor(drawn),
            126..=WEIGHTS => Ok(()),
            _ if drawn - WEIGHTS - 1 < speech => self.operate_speaker(drawn - WEIGHTS - 1, channel),
            _ => match drawn - WEIGHTS - 1 - speech {
                fault if fault < handlers => self.strike(),
                fault if fault < handlers + edge => self.strike_edge(),
                _ => self.strike_store(channel),
            },
        }
    }

    fn operate_store(&mut self, drawn: u64, channel: usize) -> Result<(), String> {
        match drawn {
            0..=34 => self.publish(channel)?,
            35..=40 => self.append(channel, NewEvent::End)?,
            41..=44 => {
                for _ in 0..self.random.between(1, BURST_EVENTS) {
                    self.publish(channel)?;
                }
            }
            45..=48 => {
                let count = self.random.between(1, 30) as usize;
                trace!(self, "trim {count} of {channel}");
                self.store.trim(channel, count);
            }
            49 => {
                trace!(self, "delete {channel}");
                let head = self.store.channels[channel].head();
                self.store.delete(channel, head)?;
            }
            _ => {
                let fence = self.store.channels[channel].head();
                let due_ms = self.now_ms + self.random.up_to(CLEAN_MS);
                self.schedule.at(due_ms, Action::CleanEnd { channel, fence });
            }
        }
        Ok(())
    }

    fn operate_client(&mut self, drawn: u64, client: usize, channel: usize) -> Result<(), String> {
        match drawn {
            53..=59 => self.connect(client)?,
            60..=65 => {
                self.disconnect(client)?;
                if self.random.chance(800) {
                    self.reconnect(client);
                }
            }
            66..=73 => self.clients[client].is_paused = true,
            74..=78 => self.clients[client].sip_bytes = self.random.pick(&[0, 1, 7, 100]),
            79..=86 => self.wake_client(client),
            87..=92 => self.change_hold(client, channel),
            93..=94 => self.speak_to(client, false),
            _ => self.speak_to(client, true),
        }
        Ok(())
    }

    /// A client reads on.
    pub(crate) fn wake_client(&mut self, client: usize) {
        self.clients[client].is_paused = false;
        if let Some(conn) = self.clients[client].conn {
            self.plan_client_read(conn);
        }
    }

    fn operate_visitor(&mut self, drawn: u64) -> Result<(), String> {
        let visitor = self.random.index(self.visitors.len());
        match drawn {
            96..=118 => {
                let wish = self.any_wish();
                self.visit(visitor, wish)?;
            }
            119..=123 => self.visitor_leaves(visitor)?,
            _ => {
                // All at once.
                for visitor in 0..self.visitors.len() {
                    self.visitor_leaves(visitor)?;
                }
            }
        }
        Ok(())
    }

    /// Appends a message.
    pub(crate) fn publish(&mut self, channel: usize) -> Result<(), String> {
        let padding = self.random.up_to(self.scenario.padding_bytes) as usize;
        self.append(channel, NewEvent::Message { padding })
    }

    /// Appends an event, and announces it to every handler.
    pub(crate) fn append(&mut self, channel: usize, new: NewEvent) -> Result<(), String> {
        let delay_ms = self.random.up_to(ACKNOWLEDGE_MS);
        let (event, is_ahead) = self.store.append(self.now_ms, channel, new, delay_ms)?;
        trace!(self, "append {} to {channel}: {new:?}", event.id);
        if is_ahead {
            self.mark(Mark::EpochAheadOfClock);
        }
        for handler in 0..self.handlers.len() {
            let incarnation = self.handlers[handler].incarnation;
            let is_lost = self.random.chance(self.faults.announce_loss_per_mille)
                || self.now_ms < self.silent_until_ms;
            if !is_lost && self.handlers[handler].greets() {
                let due_ms = self.now_ms + self.random.up_to(ANNOUNCE_MS);
                let event = Rc::clone(&event);
                let action = Action::Announce { handler, incarnation, channel, event };
                self.schedule.at(due_ms, action);
            }
        }
        for client in 0..self.clients.len() {
            let entry = &self.clients[client];
            if entry.state == State::Resting && entry.wants.contains(&channel) {
                self.reconnect(client);
            }
        }
        Ok(())
    }

    /// The cleaner ends a log that was idle when it looked.
    pub(crate) fn clean_end(&mut self, channel: usize, fence: Cursor) -> Result<(), String> {
        let log = &self.store.channels[channel];
        if fence == Cursor::START || log.head() != fence {
            if fence != Cursor::START {
                self.mark(Mark::FenceHeld);
            }
            return Ok(());
        }
        if !log.ended() {
            self.append(channel, NewEvent::Idle)?;
        }
        let fence = self.store.channels[channel].head();
        let due_ms = self.now_ms + self.random.up_to(CLEAN_MS);
        self.schedule.at(due_ms, Action::CleanDelete { channel, fence });
        Ok(())
    }

    pub(crate) fn clean_delete(&mut self, channel: usize, fence: Cursor) -> Result<(), String> {
        let is_deleted = self.store.delete(channel, fence)?;
        trace!(self, "the cleaner deletes {channel} at {fence}: {is_deleted}");
        self.mark(if is_deleted { Mark::IdleDeleted } else { Mark::FenceHeld });
        Ok(())
    }

    /// Something happens to a handler.
    fn strike(&mut self) -> Result<(), String> {
        let handler = self.random.index(self.handlers.len());
        let away_ms = self.random.up_to(AWAY_MS);
        match self.random.up_to(11) {
            0..=3 => {
                self.kill(handler);
                self.schedule.at(self.now_ms + away_ms, Action::Start { handler });
            }
            4..=5 => {
                self.leave(handler);
                self.schedule.at(self.now_ms + 2 * AWAY_MS, Action::Start { handler });
            }
            6..=7 => self.stall(handler, self.now_ms + away_ms),
            8..=9 => self.partition(handler, self.now_ms + away_ms),
            _ => self.cut(handler)?,
        }
        Ok(())
    }

    /// Something happens to the edge.
    fn strike_edge(&mut self) -> Result<(), String> {
        let now_ms = self.now_ms;
        let for_ms = self.random.up_to(4000);
        let kind = self.random.up_to(9);
        let Some(edge) = &mut self.edge else { return Ok(()) };
        match kind {
            0..=1 => self.edge_stop(false),
            2..=3 => self.edge_drain(for_ms),
            // What is put off keeps its order only if the pause is not made longer.
            4..=6 if edge.paused_until_ms > now_ms => Ok(()),
            4..=6 => {
                edge.paused_until_ms = now_ms + for_ms;
                trace!(self, "the edge pauses for {for_ms} ms");
                self.mark(Mark::EdgePaused);
                Ok(())
            }
            _ => {
                edge.freeze(now_ms, for_ms);
                trace!(self, "the clock of the edge stands for {for_ms} ms");
                self.mark(Mark::ClockFrozen);
                Ok(())
            }
        }
    }

    /// Something happens to the store.
    fn strike_store(&mut self, channel: usize) -> Result<(), String> {
        match self.random.up_to(5) {
            0..=1 => self.fail_over(channel),
            2..=3 => {
                self.silent_until_ms = self.now_ms + self.random.up_to(3000);
                trace!(self, "announcements are interrupted");
                self.mark(Mark::Interrupted);
            }
            _ => {
                self.store.clock_ahead_ms = self.random.pick(&[0, 5, 60_000]);
                trace!(self, "the store's clock is {} ms ahead", self.store.clock_ahead_ms);
            }
        }
        Ok(())
    }

    /// Another node takes over: each log may lose its newest events.
    fn fail_over(&mut self, channel: usize) {
        for index in 0..self.store.channels.len() {
            let mut lag = if index == channel { self.random.up_to(LAG_EVENTS) } else { 0 };
            if self.random.chance(100) {
                lag = usize::MAX as u64;
            }
            let loss = self.store.fail_over(self.now_ms, index, lag as usize);
            trace!(self, "fail-over in {index}: {loss:?}");
            let marks = [
                (loss.acknowledged > 0, Mark::LostAcknowledged),
                (loss.unacknowledged > 0, Mark::LostUnacknowledged),
                (loss.is_all, Mark::LostLog),
            ];
            marks.into_iter().filter(|(is, _)| *is).for_each(|(_, mark)| self.mark(mark));
        }
    }
}
