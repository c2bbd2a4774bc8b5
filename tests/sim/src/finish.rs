//! How a run ends: faults stop, and what was promised must come true within a stated time.

use crate::client::State;
use crate::requests::End;
use crate::scenario::{Faults, HANDLER_WAIT_MS, TTL_MS};
use crate::schedule::Action;
use crate::world::World;

/// Once faults have stopped and one handler feeds, every client that reads has every event that is
/// kept within this time, in virtual milliseconds: a dead handler is noticed (ttl), a channel that
/// its feeder forgot is asked for again, heads come around, ranges that were lost are asked again.
pub const CATCH_UP_MS: u64 = 45_000;

/// How long nothing happens, to see that the machines rest too, in virtual milliseconds.
const IDLE_MS: u64 = 20_000;

/// Ranges that one worker asks for in one channel in this time, at most, and their answers.
const IDLE_RANGES_MAX: u64 = 6;

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Events that clients got.
    pub events: u64,
    /// Gaps that clients were told of.
    pub gaps: u64,
    /// Packets between hub and handlers.
    pub packets: u64,
    /// Deliveries to connections.
    pub deliveries: u64,
    /// Requests that were answered, refused, and given up.
    pub requests: (usize, usize, usize),
}

impl World {
    /// Runs to the end.
    ///
    /// # Errors
    ///
    /// What went wrong.
    pub(crate) fn run(&mut self) -> Result<Report, String> {
        self.run_until(u64::MAX, true)?;
        self.calm();
        self.run_until(self.now_ms + CATCH_UP_MS, false)?;
        self.judge_clients()?;
        if let Some(id) = self.requests.open().first() {
            return Err(format!("request {id:?} has no end"));
        }
        self.judge_idle()?;
        self.part()?;
        let readers = || self.clients.iter().map(|client| &client.reader);
        Ok(Report {
            events: readers().map(|reader| reader.events).sum(),
            gaps: readers().map(|reader| reader.gaps).sum(),
            packets: self.counts.packets,
            deliveries: self.counts.deliveries,
            requests: (
                self.requests.count(End::Answered),
                self.requests.count(End::Refused),
                self.requests.count(End::Left),
            ),
        })
    }

    /// Faults stop; one handler at least is there, and every client comes and reads.
    fn calm(&mut self) {
        self.note("calm");
        self.faults = Faults::none();
        let survivor = self.random.index(self.feeders.len());
        for feeder in 0..self.feeders.len() {
            self.feeders[feeder].stalled_until_ms = self.now_ms;
            if feeder == survivor {
                self.kill(feeder);
                self.start(feeder);
            }
        }
        for client in 0..self.clients.len() {
            self.clients[client].paused = false;
            self.schedule.at(self.now_ms, Action::Read { client });
            self.schedule.at(self.now_ms, Action::Connect { client });
        }
        for channel in 0..self.store.len() {
            for _ in 0..self.random.up_to(3) {
                self.publish(channel, false);
            }
        }
    }

    fn judge_clients(&self) -> Result<(), String> {
        for (index, client) in self.clients.iter().enumerate() {
            match client.state {
                State::Held { .. } => {
                    if client.reader.is_finished() {
                        return Err(format!("client {index} got every end, and is held"));
                    }
                    if let Some(lack) = client.reader.lacks(&self.store) {
                        return Err(format!("client {index} {lack} after the time to catch up"));
                    }
                }
                State::Resting => {}
                State::Away | State::Connecting | State::Ending => {
                    return Err(format!("client {index} is {:?}", client.state));
                }
            }
        }
        Ok(())
    }

    fn judge_idle(&mut self) -> Result<(), String> {
        let before = self.counts.clone();
        self.run_until(self.now_ms + IDLE_MS, false)?;
        let seconds = IDLE_MS / 1000;
        let (feeders, channels) = (self.feeders.len() as u64, self.store.len() as u64);
        let workers = self.workers.len() as u64;
        // Hello and heads; and ranges, ever more seldom, of channels that were deleted meanwhile.
        let packets_max = seconds * 2 * feeders + IDLE_RANGES_MAX * channels * workers;
        let packets = self.counts.packets - before.packets;
        if packets > packets_max {
            return Err(format!("{packets} packets in {seconds} idle seconds"));
        }
        let messages = self.counts.messages - before.messages;
        if messages > seconds * 4 * channels * workers {
            return Err(format!("{messages} messages in {seconds} idle seconds"));
        }
        if self.counts.deliveries != before.deliveries {
            return Err("deliveries while nothing happens".into());
        }
        Ok(())
    }

    /// Everybody goes; nothing may be left.
    fn part(&mut self) -> Result<(), String> {
        for client in 0..self.clients.len() {
            self.disconnect(client);
        }
        let linger_ms = self.scenario.limits.linger_ms;
        let end_ms = self.now_ms + 2 * linger_ms + TTL_MS + HANDLER_WAIT_MS;
        self.run_until(end_ms, false)?;
        let left = self.hub.feeds().channels();
        let holds: usize = self.workers.iter().map(|members| members.holds()).sum();
        if left + holds > 0 {
            return Err(format!("{left} channels and {holds} holds are left over"));
        }
        Ok(())
    }
}
