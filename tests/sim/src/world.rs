//! One run: the edge's machines, the models around them, and the clock.
//!
//! The loop takes the next action, or lets a machine's deadline pass, whichever comes first; then
//! everything that the machines want to say is put on its way, and every machine checks itself.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use bytes::Bytes;
use forebay_core::hold::{FanoutLimits, FeedsConfig, Members, MembersConfig};
use forebay_core::hub::{DispatchConfig, FromHub, Hub, HubConfig, HubOutput, ToHub};
use zhttp::{Kind, Packet};

use crate::client::{Client, State};
use crate::feeder::Feeder;
use crate::random::Random;
use crate::requests::Requests;
use crate::scenario::{BEAT_MS, Faults, HANDLER_WAIT_MS, Scenario};
use crate::schedule::{Action, Line, Schedule};
use crate::store::Channel;

/// The virtual time at which each run begins, in milliseconds.
const BEGIN_MS: u64 = 1_000_000;

/// With so few places for requests that wait, one may be refused at once.
const WAITING_REQUESTS_FEW: usize = 2;

/// The machines check themselves after so many steps.
const CHECK_STEPS: u64 = 4;

/// Things that happen at one virtual moment, at most: beyond it the machines spin.
const MOMENT_ACTIONS_MAX: u32 = 100_000;

/// What a run has done, to be counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Packets between hub and handlers, as sent.
    pub(crate) packets: u64,
    /// Messages between hub and workers.
    pub(crate) messages: u64,
    /// Deliveries to connections.
    pub(crate) deliveries: u64,
}

/// A run.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) random: Random,
    pub(crate) scenario: Scenario,
    /// What goes wrong now.
    pub(crate) faults: Faults,
    pub(crate) schedule: Schedule,
    pub(crate) store: Vec<Channel>,
    pub(crate) hub: Hub,
    pub(crate) workers: Vec<Members>,
    /// Which workers have a turn to come.
    turns: BTreeSet<usize>,
    pub(crate) feeders: Vec<Feeder>,
    pub(crate) clients: Vec<Client>,
    pub(crate) requests: Requests,
    pub(crate) operations_left: u64,
    pub(crate) counts: Counts,
    moment: (u64, u32),
    steps: u64,
    pub(crate) trace: Option<String>,
}

/// Writes a line into the trace, if one is kept.
macro_rules! trace {
    ($world:expr, $($format:tt)*) => {
        if $world.trace.is_some() {
            let line = format!($($format)*);
            $world.note(&line);
        }
    };
}
pub(crate) use trace;

impl World {
    /// The world of a seed, before its first step.
    pub(crate) fn new(seed: u64, operations: u64, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::draw(&mut random);
        let mut world = World {
            now_ms: BEGIN_MS,
            faults: scenario.faults.clone(),
            schedule: Schedule::default(),
            store: (0..scenario.channels)
                .map(|index| Channel::new(format!("o:c{index}")))
                .collect(),
            hub: hub(&scenario),
            workers: (0..scenario.workers).map(|_| members(&scenario)).collect(),
            turns: BTreeSet::new(),
            feeders: Vec::new(),
            clients: Vec::new(),
            requests: Requests::default(),
            operations_left: operations,
            counts: Counts::default(),
            moment: (0, 0),
            steps: 0,
            trace: trace.then(String::new),
            scenario,
            random,
        };
        trace!(world, "{:?}", world.scenario);
        world.populate();
        world
    }

    fn populate(&mut self) {
        for index in 0..self.scenario.feeders {
            let max = self.scenario.limits.handler_requests_max;
            self.feeders.push(Feeder::new(format!("fan-{index}"), max));
            let due_ms = self.now_ms + self.random.up_to(2000);
            self.schedule.at(due_ms, Action::Start { feeder: index });
        }
        for index in 0..self.scenario.clients {
            let count = if self.random.chance(600) { 1 } else { self.random.between(1, 4) };
            let wants = (0..count).map(|_| self.random.index(self.store.len())).collect();
            let from_now = self.random.chance(300);
            self.clients.push(Client::new(wants, from_now));
            let due_ms = self.now_ms + self.random.up_to(1000);
            self.schedule.at(due_ms, Action::Connect { client: index });
        }
        self.schedule.at(self.now_ms, Action::Operate);
    }

    /// Lets everything happen until then, or until the operations are done.
    ///
    /// # Errors
    ///
    /// What went wrong.
    pub(crate) fn run_until(&mut self, end_ms: u64, operating: bool) -> Result<(), String> {
        while !operating || self.operations_left > 0 {
            let deadlines = self.workers.iter().filter_map(Members::next_deadline);
            let next =
                deadlines.chain(self.hub.next_deadline()).chain(self.schedule.next_ms()).min();
            let Some(next_ms) = next.filter(|next| *next <= end_ms) else { break };
            self.advance(next_ms)?;
            match self.schedule.pop(self.now_ms) {
                Some(action) => self.act(action)?,
                None => self.pass_time(),
            }
            self.pump_hub()?;
            self.steps += 1;
            if self.steps.is_multiple_of(CHECK_STEPS) {
                self.check();
            }
        }
        if !operating {
            self.now_ms = end_ms;
        }
        Ok(())
    }

    fn advance(&mut self, next_ms: u64) -> Result<(), String> {
        self.now_ms = self.now_ms.max(next_ms);
        if self.moment.0 != self.now_ms {
            self.moment = (self.now_ms, 0);
        }
        self.moment.1 += 1;
        if self.moment.1 > MOMENT_ACTIONS_MAX {
            return Err("the machines spin: time does not pass".into());
        }
        Ok(())
    }

    fn pass_time(&mut self) {
        self.hub.handle_timeout(self.now_ms);
        for worker in 0..self.workers.len() {
            if self.workers[worker].next_deadline().is_some_and(|due| due <= self.now_ms) {
                self.workers[worker].handle_timeout(self.now_ms);
                self.wake(worker);
            }
        }
    }

    fn check(&self) {
        self.hub.check_invariants();
        self.workers.iter().for_each(Members::check_invariants);
    }

    /// Puts on its way what the hub says.
    fn pump_hub(&mut self) -> Result<(), String> {
        while let Some(output) = self.hub.poll_output(self.now_ms) {
            match output {
                HubOutput::Route { peer, packet } => self.send_to_feeder(&peer, &packet)?,
                HubOutput::Push { group, pending } => {
                    self.hub.handle_push_refused(self.now_ms, group, pending);
                }
                HubOutput::Worker { worker, message } => {
                    self.counts.messages += 1;
                    let worker = usize::from(worker);
                    let due_ms = self.now_ms + self.random.up_to(self.faults.queue_delay_ms);
                    let action = Action::WorkerMessage { worker, message };
                    self.schedule.in_line(Line::ToWorker(worker), due_ms, action);
                }
            }
        }
        Ok(())
    }

    pub(crate) fn tell_hub(&mut self, worker: usize, message: ToHub) {
        self.counts.messages += 1;
        let due_ms = self.now_ms + self.random.up_to(self.faults.queue_delay_ms);
        let action = Action::HubMessage { worker, message };
        self.schedule.in_line(Line::ToHub(worker), due_ms, action);
    }

    /// A worker has something to do.
    pub(crate) fn wake(&mut self, worker: usize) {
        if self.turns.insert(worker) {
            let due_ms = self.now_ms + self.random.up_to(1);
            self.schedule.at(due_ms, Action::WorkerTurn { worker });
        }
    }

    fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Operate => self.operate(),
            Action::HubPacket { feeder, connection, bytes } => {
                if self.feeders[feeder].connection == connection {
                    let name = self.feeders[feeder].name.clone();
                    trace!(self, "{name} > hub {}", bytes.escape_ascii());
                    let taken = self.hub.handle_packet(self.now_ms, Some(name.as_bytes()), &bytes);
                    return taken.map_err(|error| error.to_string());
                }
            }
            Action::FeederPacket { feeder, connection, bytes } => {
                self.feeder_packet(feeder, connection, &bytes)?;
            }
            Action::WorkerMessage { worker, message } => self.worker_message(worker, message)?,
            Action::HubMessage { worker, message } => {
                trace!(self, "worker {worker} > hub {message:?}");
                self.hub.handle_worker(self.now_ms, worker as u16, message);
            }
            Action::WorkerTurn { worker } => self.worker_turn(worker)?,
            Action::Beat { feeder, incarnation } => self.beat(feeder, incarnation),
            Action::Announce { feeder, incarnation, channel, event } => {
                self.announced(feeder, incarnation, channel, event);
            }
            Action::Start { feeder } => self.start(feeder),
            Action::Exit { feeder, incarnation } => {
                if self.feeders[feeder].incarnation == incarnation {
                    self.kill(feeder);
                }
            }
            Action::PeerLost { feeder, connection } => {
                // The shell reports a loss before anything that comes by a later connection.
                if self.feeders[feeder].connection == connection {
                    trace!(self, "hub lost {}", self.feeders[feeder].name);
                    let name = self.feeders[feeder].name.clone();
                    self.hub.handle_peer_lost(self.now_ms, name.as_bytes());
                }
            }
            Action::Answer { feeder, incarnation, id, last } => {
                self.answer(feeder, incarnation, &id, last);
            }
            Action::Connect { client } => self.connect(client),
            Action::Open { client, attempt, cursors } => self.open(client, attempt, &cursors),
            Action::Read { client } => self.read(client)?,
        }
        Ok(())
    }

    fn worker_message(&mut self, worker: usize, message: FromHub) -> Result<(), String> {
        trace!(self, "hub > worker {worker} {message:?}");
        match message {
            FromHub::Fed(fed) => {
                self.workers[worker].handle_fed(&fed);
                self.wake(worker);
            }
            FromHub::Packet(bytes)
            | FromHub::Reply(bytes)
            | FromHub::Malformed { packet: bytes, .. } => {
                for id in self.requests.handle_packet(worker, &bytes)? {
                    self.tell_hub(worker, ToHub::Done { id, cancel: None });
                }
            }
            FromHub::Refused(id) => {
                let room = self.scenario.limits.waiting_requests_max > WAITING_REQUESTS_FEW;
                self.requests.handle_refused(self.now_ms, &id, room)?;
            }
            FromHub::Unserved(_) => {
                return Err("a request that is served was not waited for".into());
            }
            FromHub::HandlerLeft(id) => self.requests.handle_left(&id)?,
        }
        Ok(())
    }

    /// A worker's turn: some deliveries, then what it asks.
    fn worker_turn(&mut self, worker: usize) -> Result<(), String> {
        self.turns.remove(&worker);
        for _ in 0..self.scenario.limits.turn_deliveries_max {
            let Some(delivery) = self.workers[worker].poll_delivery() else { break };
            self.counts.deliveries += 1;
            self.deliver(worker, &delivery)?;
        }
        while let Some(want) = self.workers[worker].poll_output(self.now_ms) {
            self.tell_hub(worker, ToHub::Want(want));
        }
        if self.workers[worker].has_deliveries() {
            self.wake(worker);
        }
        Ok(())
    }

    fn send_to_feeder(&mut self, peer: &[u8], packet: &Bytes) -> Result<(), String> {
        self.counts.packets += 1;
        let find = |feeder: &Feeder| feeder.name.as_bytes() == peer;
        let feeder = self.feeders.iter().position(find).ok_or("a packet to nobody")?;
        let kind = Packet::parse(packet).map_err(|error| error.to_string())?.kind;
        let feeding = matches!(kind, Kind::Feed | Kind::Unfeed | Kind::Range);
        let connection = self.feeders[feeder].connection;
        let make = || Action::FeederPacket { feeder, connection, bytes: packet.clone() };
        self.send(Line::ToFeeder(feeder), feeding, make);
        Ok(())
    }

    /// What a handler sends; `feeding` may go wrong, the rest keeps its order and arrives.
    pub(crate) fn send_to_hub(&mut self, feeder: usize, feeding: bool, packet: Vec<u8>) {
        self.counts.packets += 1;
        let bytes = Bytes::from(packet);
        let connection = self.feeders[feeder].connection;
        let make = || Action::HubPacket { feeder, connection, bytes: bytes.clone() };
        self.send(Line::FromFeeder(feeder), feeding, make);
    }

    fn send(&mut self, line: Line, feeding: bool, make: impl Fn() -> Action) {
        let copies = if !feeding {
            1
        } else if self.random.chance(self.faults.loss_per_mille) {
            0
        } else {
            1 + u32::from(self.random.chance(self.faults.repeat_per_mille))
        };
        for _ in 0..copies {
            let due_ms = self.now_ms + self.random.up_to(self.faults.delay_ms);
            if self.faults.fifo || !feeding {
                self.schedule.in_line(line, due_ms, make());
            } else {
                self.schedule.at(due_ms, make());
            }
        }
    }

    pub(crate) fn client_of(&self, connection: forebay_core::Key) -> Option<usize> {
        let client = connection.index as usize;
        let held = matches!(self.clients[client].state, State::Held { .. });
        (held && self.clients[client].attempt == connection.generation).then_some(client)
    }

    pub(crate) fn note(&mut self, line: &str) {
        let now_ms = self.now_ms - BEGIN_MS;
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{now_ms:>8} {line}");
        }
    }

    /// The trace, if one was kept.
    pub(crate) fn into_trace(self) -> String {
        self.trace.unwrap_or_default()
    }

    pub(crate) fn beat_later(&mut self, feeder: usize) {
        let incarnation = self.feeders[feeder].incarnation;
        self.schedule.at(self.now_ms + BEAT_MS, Action::Beat { feeder, incarnation });
    }
}

fn hub(scenario: &Scenario) -> Hub {
    let limits = &scenario.limits;
    Hub::new(HubConfig {
        instance_id: b"edge"[..].into(),
        workers: scenario.workers,
        dispatch: DispatchConfig {
            req_group: usize::MAX,
            handler_wait_ms: HANDLER_WAIT_MS,
            waiting_requests_max: limits.waiting_requests_max,
            routes: Vec::new(),
        },
        feeds: FeedsConfig {
            seed: 1,
            tail_bytes_max: limits.tail_bytes_max,
            tails_bytes_max: limits.tails_bytes_max,
            range_bytes_max: limits.range_bytes_max,
            ranges_in_flight_max: limits.ranges_in_flight_max,
            answer_timeout_ms: limits.answer_timeout_ms,
            linger_ms: limits.linger_ms,
        },
    })
}

fn members(scenario: &Scenario) -> Members {
    let config = MembersConfig { seed: 2, range_retry_ms: scenario.limits.range_retry_ms };
    let limits = FanoutLimits {
        write_bytes_max: scenario.limits.fanout_bytes_max,
        queue_bytes_max: scenario.limits.queue_bytes_max,
    };
    Members::with_fanout_limits(config, limits)
}
