//! How a run ends: faults stop, and what was promised must come true within a stated time.

use crate::clients::{RECONNECT_MS, State};
use crate::handler::{Handler, Work};
use crate::scenario::{Faults, HANDLER_WAIT_MS, Role, TTL_MS};
use crate::schedule::Action;
use crate::sockets::Owner;
use crate::speakers::{Speaker, Stage};
use crate::store::NewEvent;
use crate::visitors::{Whom, Wish};
use crate::world::World;

/// Once faults have stopped and one handler feeds, every client that reads has every event that is
/// kept within this time, in virtual milliseconds: a dead handler is noticed (ttl), a channel that
/// its feeder forgot is asked for again, heads come around, ranges that were lost are asked again.
pub const CATCH_UP_MS: u64 = 45_000;

/// Bytes that sockets keep for their clients then.
const CALM_SOCKET_BYTES: usize = 64 * 1024;

/// Packets that the queue of a handler holds then.
const CALM_PEER_PACKETS: usize = 1000;

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
    /// Responses that visitors got whole.
    pub responses: u64,
    /// Events that fail-overs lost although they had been acknowledged, and those that had not been.
    pub lost: (u64, u64),
}

/// What is asked when all is calm, and must be answered.
const CALM_WISHES: &[Wish] = &[
    Wish { up: 1500, down: 900, ..calm(Whom::Served) },
    Wish { down: 10, silent: true, ..calm(Whom::Served) },
    Wish { up: 20, down: 300, ..calm(Whom::Rep) },
];

const fn calm(whom: Whom) -> Wish {
    Wish { whom, up: 0, down: 0, chunked: true, length: false, hand: false, silent: false }
}

impl World {
    /// Runs to the end: so many steps of trouble, and then calm.
    ///
    /// # Errors
    ///
    /// What went wrong.
    pub(crate) fn run(&mut self, steps: u64) -> Result<Report, String> {
        self.run_until(u64::MAX, steps)?;
        self.calm()?;
        self.run_on(CATCH_UP_MS + self.ends_kept() * RECONNECT_MS)?;
        self.judge_clients()?;
        for wish in CALM_WISHES {
            self.judge_request(*wish)?;
        }
        self.judge_takeover()?;
        self.judge_said()?;
        self.judge_cancel()?;
        self.judge_idle()?;
        self.part()?;
        Ok(Report {
            events: self.counts.events,
            gaps: self.counts.gaps,
            packets: self.counts.packets,
            responses: self.counts.responses,
            lost: self.store.history.lost(),
        })
    }

    /// The most ENDs that one log holds: a reader of its beginning comes back behind each.
    fn ends_kept(&self) -> u64 {
        let history = &self.store.history;
        let ends = |channel| history.log(channel).kept().filter(|record| record.end).count();
        (0..self.store.channels.len()).map(ends).max().unwrap_or(0) as u64
    }

    fn run_on(&mut self, for_ms: u64) -> Result<(), String> {
        self.run_until(self.now_ms + for_ms, u64::MAX)
    }

    /// Faults stop; the edge and one handler at least are there, and every client comes and reads.
    fn calm(&mut self) -> Result<(), String> {
        self.note("calm");
        self.is_operating = false;
        self.faults = Faults::none();
        self.schedule.mend();
        self.silent_until_ms = 0;
        self.calm_token = self.tokens;
        let limits = &mut self.scenario.limits;
        limits.socket_bytes = CALM_SOCKET_BYTES;
        limits.peer_queue_max = CALM_PEER_PACKETS;
        limits.peer_stalled_max = CALM_PEER_PACKETS;
        for conn in self.leftovers().2 {
            if let Some(socket) = self.socket(conn) {
                socket.capacity = CALM_SOCKET_BYTES;
            }
        }
        self.edge_start()?;
        let both = |index: &usize| self.handlers[*index].role == Role::Both;
        let able: Vec<usize> = (0..self.handlers.len()).filter(both).collect();
        let survivor = able[self.random.index(able.len())];
        self.kill(survivor);
        self.start(survivor)?;
        for client in 0..self.clients.len() {
            self.clients[client].sip_bytes = 0;
            self.wake_client(client);
            if !self.clients[client].reader.is_settled() {
                self.disconnect(client)?;
            }
            self.schedule.at(self.now_ms, Action::Connect { client });
        }
        for speaker in 0..self.speakers.len() {
            self.speakers[speaker].sip_bytes = 0;
            self.wake_speaker(speaker);
            if !self.speakers[speaker].reader.is_settled() {
                self.detach(speaker)?;
            }
            self.schedule.at(self.now_ms, Action::Attach { speaker });
        }
        for channel in 0..self.store.channels.len() {
            for _ in 0..self.random.between(0, 3) {
                self.publish(channel)?;
            }
            if self.random.chance(300) {
                self.append(channel, NewEvent::End)?;
            }
        }
        Ok(())
    }

    fn judge_clients(&self) -> Result<(), String> {
        for (index, client) in self.clients.iter().enumerate() {
            match client.state {
                State::Held { .. } => {
                    if client.reader.is_finished() {
                        return Err(format!("client {index} got every end, and is held"));
                    }
                    if let Some(lack) = client.reader.lack(&self.store.history) {
                        return Err(format!("client {index} {lack} after the time to catch up"));
                    }
                }
                State::Resting => {}
                State::Away | State::Asking | State::Refused => {
                    return Err(format!("client {index} is {:?}", client.state));
                }
            }
        }
        for (index, speaker) in self.speakers.iter().enumerate() {
            self.judge_speaker(speaker).map_err(|error| format!("speaker {index} {error}"))?;
        }
        match self.visitors.iter().position(|visitor| visitor.is_asking) {
            Some(visitor) => {
                Err(format!("visitor {visitor} has no answer: {:?}", self.visitors[visitor]))
            }
            None => Ok(()),
        }
    }

    fn judge_speaker(&self, speaker: &Speaker) -> Result<(), String> {
        let Stage::Held { take } = speaker.stage else {
            return Err(format!("is {:?}", speaker.stage));
        };
        let (reader, doings) = (&speaker.reader, &speaker.doings);
        if reader.is_finished() && !self.takes[take].persistent {
            return Err("got every end, and is held".into());
        }
        if *reader.channels() != speaker.wants {
            return Err(format!("reads {:?}, and wants {:?}", reader.channels(), speaker.wants));
        }
        if !doings.said.is_empty() || !doings.pinged.is_empty() {
            return Err(format!("has no answer to {:?} and {:?}", doings.said, doings.pinged));
        }
        match reader.lack(&self.store.history) {
            Some(lack) => Err(format!("{lack} after the time to catch up")),
            None => Ok(()),
        }
    }

    /// A request is answered.
    fn judge_request(&mut self, wish: Wish) -> Result<(), String> {
        self.visit(0, wish)?;
        let token = self.visitors[0].token;
        self.run_on(self.slow_work_ms() + HANDLER_WAIT_MS)?;
        match self.visitors[0].answered {
            Some((answered, 200)) if answered == token => Ok(()),
            other => Err(format!("{wish:?} came to {other:?}")),
        }
    }

    /// A handler dies before its first word, and its request is answered all the same.
    fn judge_takeover(&mut self) -> Result<(), String> {
        self.visit(0, Wish { down: 10, chunked: false, ..calm(Whom::Served) })?;
        let token = self.visitors[0].token;
        let is_it = |work: &Work| work.token() == Some(token) && !work.has_spoken();
        let has_it = |handler: &Handler| handler.works.values().any(is_it);
        for _ in 0..200 {
            if let Some(handler) = self.handlers.iter().position(has_it) {
                self.kill(handler);
                self.start(handler)?;
                break;
            }
            self.run_on(1)?;
        }
        self.run_on(self.slow_work_ms())?;
        match self.visitors[0].answered {
            Some((answered, 200)) if answered == token => Ok(()),
            other => Err(format!("a request whose handler died came to {other:?}")),
        }
    }

    /// A handler dies before it has answered what a client says, and that is answered all the same.
    fn judge_said(&mut self) -> Result<(), String> {
        let hears = |speaker: &Speaker| matches!(speaker.stage, Stage::Held { take } if self.takes[take].hears);
        let Some(speaker) = self.speakers.iter().position(hears) else { return Ok(()) };
        let heard: Vec<usize> = self.handlers.iter().map(|handler| handler.heard.len()).collect();
        self.say_words(speaker);
        for _ in 0..200 {
            let has_it = |(handler, heard): (&Handler, &usize)| handler.heard.len() > *heard;
            if let Some(handler) = self.handlers.iter().zip(&heard).position(has_it) {
                self.kill(handler);
                self.start(handler)?;
                break;
            }
            self.run_on(1)?;
        }
        self.run_on(self.slow_work_ms())?;
        let entry = &self.speakers[speaker];
        match (entry.stage, entry.doings.said.front()) {
            (Stage::Held { .. }, None) => Ok(()),
            (stage, said) => Err(format!("a message whose handler died: {stage:?}, {said:?}")),
        }
    }

    /// A client leaves in the middle of its response, and its handler is told, with a number.
    fn judge_cancel(&mut self) -> Result<(), String> {
        let wish = Wish { down: 300_000, ..calm(Whom::Served) };
        self.visit(0, wish)?;
        let token = self.visitors[0].token;
        for _ in 0..200 {
            if self.visitors[0].got() > 0 {
                break;
            }
            self.run_on(50)?;
        }
        self.visitors[0].is_asking = false;
        if let Some(conn) = self.visitors[0].conn.take()
            && let Some(socket) = self.socket(conn)
        {
            socket.owner = Owner::Vanished;
            socket.is_reset = true;
            self.plan_edge_read(conn);
        }
        self.run_on(5000)?;
        let has_it =
            |handler: &Handler| handler.works.values().any(|work| work.token() == Some(token));
        let is_told = self.sessions.get(&token).is_some_and(|id| self.cancelled.contains(id));
        if !is_told || self.handlers.iter().any(has_it) {
            return Err("a client left, and its handler was not told".into());
        }
        Ok(())
    }

    fn judge_idle(&mut self) -> Result<(), String> {
        let before = self.counts.clone();
        let comments: Vec<u64> = self.clients.iter().map(|client| client.comments).collect();
        let pings: Vec<u64> = self.speakers.iter().map(|speaker| speaker.pings).collect();
        self.run_on(IDLE_MS)?;
        let seconds = IDLE_MS / 1000;
        let (handlers, channels) = (self.handlers.len() as u64, self.store.channels.len() as u64);
        let workers = u64::from(self.scenario.workers);
        // Hello and heads; and ranges, ever more seldom, of channels that were deleted meanwhile.
        let packets_max = seconds * 2 * handlers + IDLE_RANGES_MAX * channels * workers;
        let packets = self.counts.packets - before.packets;
        if packets > packets_max {
            return Err(format!("{packets} packets in {seconds} idle seconds"));
        }
        let messages = self.counts.messages - before.messages;
        if messages > seconds * 4 * channels * workers {
            return Err(format!("{messages} messages in {seconds} idle seconds"));
        }
        if self.counts.events != before.events {
            return Err("events while nothing happens".into());
        }
        for (index, (client, comments)) in self.clients.iter().zip(comments).enumerate() {
            let State::Held { take } = client.state else { continue };
            if self.takes[take].keep_alive_ms > 0 && client.comments == comments {
                return Err(format!("client {index} heard nothing for {seconds} seconds"));
            }
        }
        for (index, (speaker, pings)) in self.speakers.iter().zip(pings).enumerate() {
            let Stage::Held { take } = speaker.stage else { continue };
            if self.takes[take].keep_alive_ms > 0 && speaker.pings == pings {
                return Err(format!("speaker {index} heard nothing for {seconds} seconds"));
            }
        }
        Ok(())
    }

    /// Everybody goes, by closing; nothing may be left.
    fn part(&mut self) -> Result<(), String> {
        for client in 0..self.clients.len() {
            self.disconnect(client)?;
        }
        for speaker in 0..self.speakers.len() {
            self.detach(speaker)?;
        }
        for visitor in 0..self.visitors.len() {
            self.visitor_leaves(visitor)?;
        }
        // Of those who have vanished the edge hears at last.
        for conn in self.leftovers().2 {
            if let Some(socket) = self.socket(conn)
                && socket.owner == Owner::Vanished
                && !socket.fin
            {
                socket.is_reset = true;
                self.plan_edge_read(conn);
            }
        }
        let linger_ms = self.scenario.limits.linger_ms;
        let timeouts = &self.scenario.timeouts;
        self.run_on(2 * linger_ms + TTL_MS + HANDLER_WAIT_MS + timeouts.stream_ms)?;
        let works = |handler: &&Handler| handler.works.values().any(Work::speaks);
        if let Some(handler) = self.handlers.iter().find(works) {
            return Err(format!("{} still works, for nobody", handler.name));
        }
        let (channels, holds, conns) = self.leftovers();
        if channels + holds > 0 {
            return Err(format!("{channels} channels and {holds} holds are left over"));
        }
        if let Some(conn) = conns.first() {
            return Err(format!("{conn:?} is left over: {:?}", self.socket(*conn)));
        }
        Ok(())
    }
}
