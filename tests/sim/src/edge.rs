//! The edge in its world: the real hub and the real workers, the queues between them, and their clock.
//!
//! What the shell does in production is done here: it reads sockets, hands messages over, drops events for a worker
//! whose queue is full and tells it the heads later. It can be killed, drained and paused, and its clock can stand
//! still for a while and then leap.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use forebay_core::hold::{Fed, FeedsConfig, MembersConfig};
use forebay_core::http1::HeadLimits;
use forebay_core::hub::{
    Class, DispatchConfig, FromHub, HandlerId, Hub, HubConfig, HubOutput, Pending, Route, ToHub,
};
use forebay_core::worker::{Output, Worker, WorkerConfig};
use zhttp::{Cursor, Kind, Packet};

use crate::backlog::Unserved;
use crate::coverage::Mark;
use crate::scenario::{HANDLER_WAIT_MS, REQ_BODY_BYTES_MAX, Scenario};
use crate::schedule::{Action, Line};
use crate::sockets::{Conn, Sockets};
use crate::world::{World, trace};

/// The group of the plain handlers, and that of req mode.
pub(crate) const PLAIN_GROUP: usize = 0;
pub(crate) const REQ_GROUP: usize = 1;

/// How soon it is looked again whether a worker that had missed events has caught up.
const MISSED_RETRY_MS: u64 = 10;

/// How long the edge drains that is told to stop in mid-delivery, in milliseconds, at most.
const DRAIN_MS: u64 = 4000;

/// One worker.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(crate) machine: Worker,
    pub(crate) sockets: Sockets,
    has_turn: bool,
    /// Messages on their way to it.
    waiting: usize,
    /// What came while it had enough to do.
    pub(crate) unserved: Unserved,
    /// Handlers that take no bodies, as far as it was told.
    stalled: BTreeSet<HandlerId>,
    /// Where channels end of which events were dropped.
    missed: BTreeMap<Arc<str>, Cursor>,
}

/// A life of the edge.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) life: u64,
    pub(crate) hub: Hub,
    pub(crate) seats: Vec<Seat>,
    pub(crate) is_draining: bool,
    /// The process does nothing until then.
    pub(crate) paused_until_ms: u64,
    /// Its clock stands until then, at that time.
    frozen: Option<(u64, u64)>,
    plans_good: bool,
}

impl Edge {
    pub(crate) fn new(life: u64, scenario: &Scenario, now_ms: u64) -> Self {
        let seat = |index| Seat {
            machine: worker(scenario, index, now_ms),
            sockets: Sockets::default(),
            has_turn: false,
            waiting: 0,
            unserved: Unserved::default(),
            stalled: BTreeSet::new(),
            missed: BTreeMap::new(),
        };
        Edge {
            life,
            hub: hub(scenario),
            seats: (0..scenario.workers).map(seat).collect(),
            is_draining: false,
            paused_until_ms: 0,
            frozen: None,
            plans_good: false,
        }
    }

    /// The time on its clock.
    pub(crate) fn clock_ms(&self, now_ms: u64) -> u64 {
        self.frozen.filter(|(until, _)| now_ms < *until).map_or(now_ms, |(_, at)| at)
    }

    /// Its clock stands for so long.
    pub(crate) fn freeze(&mut self, now_ms: u64, for_ms: u64) {
        let at = self.clock_ms(now_ms);
        self.frozen = Some((now_ms + for_ms, at));
    }

    /// When it has something to do, in the world's time.
    pub(crate) fn next_deadline(&self, now_ms: u64) -> Option<u64> {
        let deadlines = self.seats.iter().filter_map(|seat| seat.machine.next_deadline());
        let due_ms = deadlines.chain(self.hub.next_deadline()).min()?;
        let due_ms = match self.frozen {
            Some((until, at)) if now_ms < until && due_ms > at => due_ms.max(until),
            Some(_) | None => due_ms,
        };
        Some(due_ms.max(self.paused_until_ms))
    }

    /// Whether its clock has ever stood, and leapt: then it may have given up somebody sooner than one would think.
    pub(crate) fn has_leapt(&self) -> bool {
        self.frozen.is_some()
    }

    pub(crate) fn check_invariants(&self, now_ms: u64) {
        let clock_ms = self.clock_ms(now_ms);
        self.hub.check_invariants();
        self.seats.iter().for_each(|seat| seat.machine.check_invariants(clock_ms));
    }

    /// The connections that clients have.
    pub(crate) fn conns(&self) -> Vec<Conn> {
        let seats = self.seats.iter().enumerate();
        let life = self.life;
        let conns = seats.flat_map(|(worker, seat)| {
            seat.sockets.table.keys().map(move |key| Conn { life, worker, key: *key })
        });
        conns.collect()
    }
}

impl World {
    /// The edge of this life, if it is there still.
    pub(crate) fn edge_of(&mut self, life: u64) -> Option<&mut Edge> {
        self.edge.as_mut().filter(|edge| edge.life == life)
    }

    /// Lets time pass in the machines.
    pub(crate) fn pass_time(&mut self) -> Result<(), String> {
        let Some(edge) = &mut self.edge else { return Ok(()) };
        let now_ms = edge.clock_ms(self.now_ms);
        let handlers = edge.hub.handlers();
        edge.hub.handle_timeout(now_ms);
        let expired = edge.hub.handlers() < handlers;
        for worker in 0..edge.seats.len() {
            let due_ms =
                self.edge.as_ref().and_then(|edge| edge.seats[worker].machine.next_deadline());
            if due_ms.is_some_and(|due| due <= now_ms) {
                self.at_worker(worker, |machine, sockets, now_ms| {
                    machine.handle_timeout(now_ms, sockets);
                })?;
            }
        }
        if expired {
            self.mark(Mark::HandlerExpired);
        }
        self.pump_hub()
    }

    /// Does something with a worker, and what follows from it.
    pub(crate) fn at_worker(
        &mut self,
        worker: usize,
        act: impl FnOnce(&mut Worker, &mut Sockets, u64),
    ) -> Result<(), String> {
        let Some(edge) = &mut self.edge else { return Ok(()) };
        let clock_ms = edge.clock_ms(self.now_ms);
        let seat = &mut edge.seats[worker];
        seat.sockets.now_ms = self.now_ms;
        act(&mut seat.machine, &mut seat.sockets, clock_ms);
        if let Some(wrong) = seat.sockets.wrong.take() {
            return Err(wrong);
        }
        while seat.machine.poll_refusal().is_some() {}
        let life = edge.life;
        let news = std::mem::take(&mut seat.sockets.news);
        let refused = std::mem::take(&mut seat.sockets.refused);
        if !std::mem::replace(&mut seat.has_turn, true) {
            let due_ms = self.now_ms + self.random.up_to(1);
            self.schedule.at(due_ms, Action::WorkerTurn { life, worker });
        }
        for key in news {
            self.plan_client_read(Conn { life, worker, key });
        }
        for (key, bytes) in refused {
            self.see_refused(Conn { life, worker, key }, bytes);
        }
        Ok(())
    }

    /// A worker's turn: some deliveries, then what it says.
    pub(crate) fn worker_turn(&mut self, life: u64, worker: usize) -> Result<(), String> {
        let max = self.scenario.limits.turn_deliveries_max;
        let Some(edge) = self.edge_of(life) else { return Ok(()) };
        // What it does now needs no further turn.
        edge.seats[worker].has_turn = true;
        edge.seats[worker].machine.set_date("Sun, 06 Nov 1994 08:49:37 GMT");
        let mut has_more = false;
        self.at_worker(worker, |machine, sockets, now_ms| {
            has_more = machine.handle_work(now_ms, sockets, max);
        })?;
        self.worker_outputs(life, worker)?;
        self.judge_backlogs(worker)?;
        self.see_turn(life, worker, has_more);
        let due_ms = self.now_ms + self.random.up_to(1);
        let Some(edge) = self.edge_of(life) else { return Ok(()) };
        edge.seats[worker].has_turn = has_more;
        if has_more {
            self.schedule.at(due_ms, Action::WorkerTurn { life, worker });
            // A bad moment to be told to stop.
            if self.faults.edge_weight > 0 && self.random.chance(4) {
                let stop_ms = self.random.up_to(DRAIN_MS);
                return self.edge_drain(stop_ms);
            }
        }
        Ok(())
    }

    pub(crate) fn worker_outputs(&mut self, life: u64, worker: usize) -> Result<(), String> {
        loop {
            let now_ms = self.now_ms;
            let Some(edge) = self.edge_of(life) else { return Ok(()) };
            let clock_ms = edge.clock_ms(now_ms);
            let Some(output) = edge.seats[worker].machine.poll_output(clock_ms) else {
                return Ok(());
            };
            match output {
                Output::Hub(message) => self.tell_hub(life, worker, message)?,
                Output::Read(key) => self.plan_edge_read(Conn { life, worker, key }),
                Output::Shutdown(key) => self.see_shutdown(Conn { life, worker, key })?,
                Output::Close(key, _) => self.see_closed(Conn { life, worker, key })?,
            }
        }
    }

    fn tell_hub(&mut self, life: u64, worker: usize, message: ToHub) -> Result<(), String> {
        if let ToHub::Packet { to, packet } = &message
            && let Some(edge) = self.edge_of(life)
            && edge.seats[worker].stalled.contains(to)
            && Packet::parse(packet).is_ok_and(|packet| packet.kind == Kind::Data)
        {
            return Err("a body is sent to a handler that takes nothing".into());
        }
        if let ToHub::Request(Pending { class: Class::Message, packet, .. }) = &message {
            self.judge_sent(life, packet)?;
        }
        self.counts.messages += 1;
        let due_ms = self.now_ms + self.random.up_to(self.faults.queue_delay_ms);
        let action = Action::HubMessage { life, worker, message };
        self.schedule.in_line(Line::ToHub(worker), due_ms, action);
        Ok(())
    }

    pub(crate) fn hub_message(
        &mut self,
        life: u64,
        worker: usize,
        message: ToHub,
    ) -> Result<(), String> {
        let now_ms = self.now_ms;
        let Some(edge) = self.edge.as_mut().filter(|edge| edge.life == life) else {
            return Ok(());
        };
        let clock_ms = edge.clock_ms(now_ms);
        if let ToHub::Want(want) = &message
            && self.oracles.handle_want(clock_ms, worker, want)
        {
            self.coverage.count(Mark::LingerSaved);
        }
        if let ToHub::Request(pending) = &message {
            self.oracles.handle_request(&pending.id, &pending.path);
        }
        let asked = match &message {
            ToHub::Want(forebay_core::hold::Want::Range(name, _)) => Some(Arc::clone(name)),
            ToHub::Want(_)
            | ToHub::Request(_)
            | ToHub::Packet { .. }
            | ToHub::Done { .. }
            | ToHub::Notify { .. } => None,
        };
        trace!(self, "worker {worker} > hub {message:?}");
        if let Some(edge) = self.edge_of(life) {
            edge.hub.handle_worker(clock_ms, worker as u16, message);
        }
        self.pump_hub_for(asked.as_ref())
    }

    /// Puts on its way what the hub says.
    pub(crate) fn pump_hub(&mut self) -> Result<(), String> {
        self.pump_hub_for(None)
    }

    /// The same, behind a range that a worker has asked for: what comes at once is from the tail.
    fn pump_hub_for(&mut self, asked: Option<&Arc<str>>) -> Result<(), String> {
        let mut from_tail = Vec::new();
        loop {
            let now_ms = self.now_ms;
            let Some(edge) = &mut self.edge else { return Ok(()) };
            let clock_ms = edge.clock_ms(now_ms);
            let Some(output) = edge.hub.poll_output(clock_ms) else { break };
            match output {
                HubOutput::Route { peer, packet } => self.route(&peer, packet)?,
                HubOutput::Push { group: REQ_GROUP, pending } => self.push_req(pending),
                HubOutput::Push { group, pending } => self.push(group, pending)?,
                HubOutput::Worker { worker, message } => {
                    if let FromHub::Unserved(id) = &message
                        && self.oracles.is_served(id)
                    {
                        return Err(format!("{id:?} is said to be served by nobody"));
                    }
                    if let FromHub::Refused(id) = &message
                        && let Some(slash) = id.iter().position(|byte| *byte == b'/')
                    {
                        self.oracles.talk.refuse(Bytes::copy_from_slice(&id[..slash]));
                    }
                    if let FromHub::Fed(Fed::Events(run)) = &message
                        && asked.is_some_and(|name| name == run.channel())
                    {
                        from_tail.push(run.bytes());
                    }
                    self.tell_worker(usize::from(worker), message);
                }
            }
        }
        if !from_tail.is_empty() {
            self.mark(Mark::TailServed);
            let max = self.scenario.limits.range_bytes_max;
            let bytes: usize = from_tail.iter().sum();
            if from_tail.len() > 1 && bytes > max {
                return Err(format!("a range of {bytes} bytes out of the tail"));
            }
        }
        Ok(())
    }

    /// Hands a message over, as the shell does: of events only where they end, if too much waits.
    pub(crate) fn tell_worker(&mut self, worker: usize, message: FromHub) {
        let max = self.scenario.limits.worker_queue_max;
        let Some(edge) = &mut self.edge else { return };
        let life = edge.life;
        let seat = &mut edge.seats[worker];
        if let FromHub::Fed(Fed::Events(run)) = &message
            && seat.waiting >= max
        {
            let head = seat.missed.entry(Arc::clone(run.channel())).or_insert(run.last());
            *head = run.last().max(*head);
            if !std::mem::replace(&mut edge.plans_good, true) {
                self.schedule.at(self.now_ms + MISSED_RETRY_MS, Action::MakeGood { life });
            }
            return self.mark(Mark::WorkerMissed);
        }
        seat.waiting += 1;
        self.counts.messages += 1;
        let due_ms = self.now_ms + self.random.up_to(self.faults.queue_delay_ms);
        let action = Action::WorkerMessage { life, worker, message };
        self.schedule.in_line(Line::ToWorker(worker), due_ms, action);
    }

    /// Tells all workers that a handler takes nothing for now, or something again.
    pub(crate) fn tell_workers(&mut self, message: &FromHub) {
        for worker in 0..usize::from(self.scenario.workers) {
            self.tell_worker(worker, message.clone());
        }
    }

    /// Tells workers that have caught up what they missed.
    pub(crate) fn make_good(&mut self, life: u64) {
        let max = self.scenario.limits.worker_queue_max;
        let Some(edge) = self.edge_of(life) else { return };
        edge.plans_good = false;
        let mut good = Vec::new();
        for (worker, seat) in edge.seats.iter_mut().enumerate() {
            if seat.missed.is_empty() {
                continue;
            }
            if seat.waiting < max / 2 {
                let missed = std::mem::take(&mut seat.missed);
                let told = missed.into_iter().map(|(name, head)| FromHub::Missed(name, head));
                good.extend(told.map(|message| (worker, message)));
            } else {
                edge.plans_good = true;
            }
        }
        if edge.plans_good {
            self.schedule.at(self.now_ms + MISSED_RETRY_MS, Action::MakeGood { life });
        }
        for (worker, message) in good {
            self.mark(Mark::WorkerTold);
            self.tell_worker(worker, message);
        }
    }

    pub(crate) fn worker_message(
        &mut self,
        life: u64,
        worker: usize,
        message: &FromHub,
    ) -> Result<(), String> {
        let Some(edge) = self.edge_of(life) else { return Ok(()) };
        edge.seats[worker].waiting -= 1;
        trace!(self, "hub > worker {worker} {message:?}");
        self.see_worker_message(life, worker, message);
        if matches!(message, FromHub::Stalled(_)) {
            // What it has said before it knew.
            self.worker_outputs(life, worker)?;
        }
        let Some(edge) = self.edge_of(life) else { return Ok(()) };
        match message {
            FromHub::Stalled(handler) => {
                edge.seats[worker].stalled.insert(handler.clone());
            }
            FromHub::Flowing(handler) => {
                edge.seats[worker].stalled.remove(handler);
            }
            FromHub::Packet(_)
            | FromHub::Reply(_)
            | FromHub::Malformed { .. }
            | FromHub::Refused(_)
            | FromHub::Unserved(_)
            | FromHub::HandlerLeft(_)
            | FromHub::Undelivered(_)
            | FromHub::Fed(_)
            | FromHub::Missed(..) => {}
        }
        let mut told = Ok(());
        self.at_worker(worker, |machine, sockets, now_ms| {
            told = machine.handle_hub(now_ms, sockets, message);
        })?;
        told.map_err(|error| format!("a worker does not understand: {error}"))?;
        self.judge_backlogs(worker)
    }

    /// A packet comes by the socket of req mode.
    pub(crate) fn reply(&mut self, life: u64, bytes: &Bytes) -> Result<(), String> {
        let Some(edge) = self.edge_of(life) else { return Ok(()) };
        edge.hub.handle_reply(bytes).map_err(|error| error.to_string())?;
        self.pump_hub()
    }
}

fn hub(scenario: &Scenario) -> Hub {
    let limits = &scenario.limits;
    Hub::new(HubConfig {
        instance_id: b"edge"[..].into(),
        workers: scenario.workers,
        dispatch: DispatchConfig {
            req_group: REQ_GROUP,
            handler_wait_ms: HANDLER_WAIT_MS,
            waiting_requests_max: limits.waiting_requests_max,
            waiting_bytes_max: usize::MAX,
            // Nobody is ever in this group.
            routes: vec![Route { prefix: "/nobody".into(), group: REQ_GROUP + 1 }],
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

fn worker(scenario: &Scenario, index: u16, now_ms: u64) -> Worker {
    let limits = &scenario.limits;
    let config = WorkerConfig {
        index,
        instance_id: b"edge"[..].into(),
        buffer_bytes: limits.buffer_bytes,
        body_bytes_max: REQ_BODY_BYTES_MAX,
        head: HeadLimits::default(),
        client_backlog_bytes_max: limits.backlog_bytes_max,
        timeouts: scenario.timeouts,
        compression: true,
        members: MembersConfig { seed: 2, range_retry_ms: limits.range_retry_ms },
    };
    Worker::with_fanout_limits(config, limits.fanout, now_ms)
}
