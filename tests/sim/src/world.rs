//! One run: the edge's machines, the models around them, and the clock.
//!
//! The loop takes the next action, or lets a machine's deadline pass, whichever comes first; then
//! everything that the machines want to say is put on its way. Each of these is a step. Every few steps every machine
//! checks itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use bytes::Bytes;

use crate::clients::Client;
use crate::coverage::{Coverage, Mark};
use crate::edge::Edge;
use crate::handler::Handler;
use crate::oracles::Oracles;
use crate::random::Random;
use crate::scenario::{Faults, Role, Scenario};
use crate::schedule::{Action, Schedule};
use crate::speakers::Speaker;
use crate::store::Store;
use crate::subscribe::Take;
use crate::visitors::Visitor;
use crate::wire::Link;

/// The virtual time at which each run begins, in milliseconds.
pub(crate) const BEGIN_MS: u64 = 1_000_000;

/// The machines check themselves after so many steps.
const CHECK_STEPS: u64 = 16;

/// Things that happen at one virtual moment, at most: beyond it the machines spin.
const MOMENT_ACTIONS_MAX: u32 = 100_000;

/// What a run has done, to be counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Packets between hub and handlers, as sent.
    pub(crate) packets: u64,
    /// Messages between hub and workers.
    pub(crate) messages: u64,
    /// Events that clients got.
    pub(crate) events: u64,
    /// Gaps that clients were told of.
    pub(crate) gaps: u64,
    /// Responses that visitors got whole.
    pub(crate) responses: u64,
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
    pub(crate) store: Store,
    /// No announcement arrives until then.
    pub(crate) silent_until_ms: u64,
    /// There may be none: then it starts soon.
    pub(crate) edge: Option<Edge>,
    pub(crate) edge_lives: u64,
    pub(crate) handlers: Vec<Handler>,
    pub(crate) links: Vec<Link>,
    pub(crate) clients: Vec<Client>,
    pub(crate) speakers: Vec<Speaker>,
    pub(crate) visitors: Vec<Visitor>,
    /// The sessions of visitors, by their tokens.
    pub(crate) sessions: BTreeMap<u64, Bytes>,
    /// Sessions of which a handler was told, with a number, that they are over.
    pub(crate) cancelled: BTreeSet<Bytes>,
    /// Sessions of which a piece was dropped, or that a handler was given twice.
    pub(crate) undelivered: BTreeSet<Bytes>,
    /// How handlers took holds.
    pub(crate) takes: Vec<Take>,
    pub(crate) oracles: Oracles,
    /// Draws numbers for names, not for chance.
    pub(crate) tokens: u64,
    /// The last life of the edge that was told to stop in order.
    pub(crate) drained_life: u64,
    /// The last one whose time to do so was up.
    pub(crate) stopped_life: u64,
    /// The last token before calm came.
    pub(crate) calm_token: u64,
    pub(crate) is_operating: bool,
    pub(crate) counts: Counts,
    pub(crate) coverage: Coverage,
    moment: (u64, u32),
    pub(crate) steps: u64,
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
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut random = Random::new(seed);
        let scenario = Scenario::draw(&mut random);
        let mut world = World {
            now_ms: BEGIN_MS,
            faults: scenario.faults.clone(),
            schedule: Schedule::default(),
            store: Store::new(scenario.channels),
            silent_until_ms: 0,
            edge: None,
            edge_lives: 0,
            handlers: Vec::new(),
            links: Vec::new(),
            clients: Vec::new(),
            speakers: Vec::new(),
            visitors: Vec::new(),
            sessions: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            undelivered: BTreeSet::new(),
            takes: Vec::new(),
            oracles: Oracles::default(),
            tokens: 0,
            drained_life: 0,
            stopped_life: 0,
            calm_token: u64::MAX,
            is_operating: true,
            counts: Counts::default(),
            coverage: Coverage::default(),
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
        self.schedule.at(self.now_ms, Action::EdgeStart);
        for (index, role) in self.scenario.roles.clone().into_iter().enumerate() {
            let max = self.scenario.limits.handler_requests_max;
            let kind = if role == Role::Plain { "plain" } else { "fan" };
            self.handlers.push(Handler::new(format!("{kind}-{index}"), role, max));
            self.links.push(Link::default());
            let due_ms = self.now_ms + self.random.up_to(2000);
            self.schedule.at(due_ms, Action::Start { handler: index });
        }
        for index in 0..self.scenario.clients {
            let count = if self.random.chance(600) { 1 } else { self.random.between(1, 4) };
            let channels = self.scenario.channels;
            let wants = (0..count).map(|_| self.random.index(channels)).collect();
            let from_now = self.random.chance(300);
            self.clients.push(Client::new(wants, from_now));
            let due_ms = self.now_ms + self.random.up_to(1000);
            self.schedule.at(due_ms, Action::Connect { client: index });
        }
        for index in 0..self.scenario.speakers {
            let channels = self.scenario.channels;
            let count = self.random.up_to(4);
            let wants = (0..count).map(|_| self.random.index(channels)).collect();
            self.speakers.push(Speaker::new(wants, self.random.chance(300)));
            let due_ms = self.now_ms + self.random.up_to(1000);
            self.schedule.at(due_ms, Action::Attach { speaker: index });
        }
        self.visitors.resize_with(self.scenario.visitors, Visitor::default);
        self.schedule.at(self.now_ms, Action::Operate);
    }

    /// Lets everything happen until then, or until so many steps are done.
    ///
    /// # Errors
    ///
    /// What went wrong.
    pub(crate) fn run_until(&mut self, end_ms: u64, steps_max: u64) -> Result<(), String> {
        while self.steps < steps_max {
            let deadline_ms = self.edge.as_ref().and_then(|edge| edge.next_deadline(self.now_ms));
            let next = deadline_ms.into_iter().chain(self.schedule.next_ms()).min();
            let Some(next_ms) = next.filter(|next| *next <= end_ms) else { break };
            self.advance(next_ms)?;
            self.steps += 1;
            match self.schedule.pop(self.now_ms) {
                Some(action) => self.act(action)?,
                None => self.pass_time()?,
            }
            if self.steps.is_multiple_of(CHECK_STEPS)
                && let Some(edge) = &self.edge
            {
                edge.check_invariants(self.now_ms);
            }
        }
        if end_ms != u64::MAX {
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

    fn act(&mut self, action: Action) -> Result<(), String> {
        let action = match self.put_off_edge(action) {
            Some(action) => action,
            None => return Ok(()),
        };
        match action {
            Action::Operate => self.operate()?,
            Action::HubPacket { handler, connection, bytes } => {
                self.hub_packet(handler, connection, &bytes)?;
            }
            Action::HandlerPacket { handler, connection, bytes } => {
                self.handler_packet(handler, connection, &bytes)?;
            }
            Action::RetryStalled { handler } => self.retry_stalled(handler),
            Action::WorkerMessage { life, worker, message } => {
                self.worker_message(life, worker, &message)?;
            }
            Action::HubMessage { life, worker, message } => {
                self.hub_message(life, worker, message)?;
            }
            Action::MakeGood { life } => self.make_good(life),
            Action::WorkerTurn { life, worker } => self.worker_turn(life, worker)?,
            Action::EdgeRead { conn } => self.edge_read(conn)?,
            Action::Writable { conn } => self.edge_writable(conn)?,
            Action::ClientRead { conn } => self.client_read(conn)?,
            Action::ClientSend { conn, bytes } => self.client_send(conn, &bytes),
            Action::ClientClose { conn } => self.close_side(conn),
            Action::SendBody { visitor, token } => self.send_body(visitor, token)?,
            Action::Beat { handler, incarnation } => self.beat(handler, incarnation)?,
            Action::Announce { handler, incarnation, channel, event } => {
                self.announced((handler, incarnation), channel, &event)?;
            }
            Action::Start { handler } => self.start(handler)?,
            Action::Exit { handler, incarnation } => {
                if self.handlers[handler].incarnation == incarnation {
                    self.kill(handler);
                }
            }
            Action::PeerLost { handler, connection } => self.peer_lost(handler, connection)?,
            Action::Advance { handler, incarnation, id } => {
                self.advance_work(handler, incarnation, &id)?;
            }
            Action::Answer { handler, incarnation, life, heard } => {
                self.answer_heard((handler, incarnation), life, &heard)?;
            }
            Action::Reply { life, bytes } => self.reply(life, &bytes)?,
            Action::Connect { client } => self.connect(client)?,
            Action::Attach { speaker } => self.attach(speaker)?,
            Action::CleanEnd { channel, fence } => self.clean_end(channel, fence)?,
            Action::CleanDelete { channel, fence } => self.clean_delete(channel, fence)?,
            Action::EdgeStart => self.edge_start()?,
            Action::EdgeStop { life } => {
                if self.edge.as_ref().is_some_and(|edge| edge.life == life) {
                    self.edge_stop(true)?;
                }
            }
        }
        Ok(())
    }

    pub(crate) fn mark(&mut self, mark: Mark) {
        self.coverage.count(mark);
    }

    /// A number that was not given before.
    pub(crate) fn token(&mut self) -> u64 {
        self.tokens += 1;
        self.tokens
    }

    pub(crate) fn note(&mut self, line: &str) {
        let now_ms = self.now_ms - BEGIN_MS;
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{now_ms:>8} {line}");
        }
    }

    /// The trace, if one was kept.
    pub(crate) fn take_trace(&mut self) -> String {
        self.trace.take().unwrap_or_default()
    }

    /// A handler that lives and says hello, if there is one.
    pub(crate) fn any_handler(&mut self) -> Option<usize> {
        let alive = |(index, handler): (usize, &Handler)| {
            (handler.alive && handler.greets()).then_some(index)
        };
        let all: Vec<usize> = self.handlers.iter().enumerate().filter_map(alive).collect();
        (!all.is_empty()).then(|| all[self.random.index(all.len())])
    }

    /// Cursors of the heads now, to see later what was there before.
    pub(crate) fn heads(&self) -> BTreeMap<usize, zhttp::Cursor> {
        let channels = self.store.channels.iter().enumerate();
        channels.map(|(index, channel)| (index, channel.head())).collect()
    }
}
