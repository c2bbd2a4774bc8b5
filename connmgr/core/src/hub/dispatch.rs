//! Dispatch: gives each request to one handler, and to another if that one leaves.
//!
//! ```text
//!            somebody serves it              its first packet
//!   Waiting ───────────────────▶ Given ─────────────────────▶ Started ──▶ (done)
//!      ▲                           │ the handler leaves          │ the handler leaves
//!      └───────────────────────────┘                             └──▶ HandlerLeft to the worker
//! ```
//!
//! Handlers that said `hello` come first and are addressed; what none of them serves is pushed to a
//! group of plain handlers, and then known here no more. A request that nobody takes waits, so that
//! a restart of the only handler is invisible, within a bound in number and time. A handler that a
//! request was taken from may be late rather than dead ([`withdrawn`]). The first who answers has it:
//! what others say is kept from the worker, or two would answer one request.
//!
//! Most requests are taken at once and never stand in the [`Line`]. Those who do are not tried in
//! vain: a request that is done lets one more in, at the handler that it was with; a group that has
//! refused a request gets no other until it says that it takes some; only when handlers come or leave
//! all are looked at.

mod invariants;
mod line;
#[cfg(test)]
mod tests;
mod withdrawn;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

use self::line::{Lane, Line, Waiting};
pub(super) use self::withdrawn::Withdrawn;
use super::presence::{Choice, Presence};
use super::{FromHub, HandlerId};
use crate::short_text::ShortText;

/// A group that refused a request gets another one after so many milliseconds, even if its sockets
/// never said that they take one again.
const PUSH_RETRY_MS: u64 = 1_000;

/// A request is given to so many handlers at most; if the last of them leaves too, it is refused. So
/// a request that kills whoever takes it does not kill them all, again and again.
const HANDLERS_PER_REQUEST_MAX: usize = 16;

/// What the shell sets.
#[derive(Clone, Debug)]
pub struct DispatchConfig {
    /// How long a request waits for a handler, in milliseconds.
    pub handler_wait_ms: u64,
    /// Requests that wait at most; one more is refused.
    pub waiting_requests_max: usize,
    /// The same in bytes of their packets: in stream mode some 500 each, in req mode with the body, and what clients of held
    /// WebSockets say up to 64 KiB and more.
    pub waiting_bytes_max: usize,
    /// Groups of plain handlers by path prefix; what matches none goes to group 0.
    pub routes: Vec<Route>,
    /// The group that has the requests of req mode, whatever their path.
    pub req_group: usize,
}

/// Requests under a path prefix go to a group of plain handlers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The prefix of the path.
    pub prefix: Box<str>,
    /// The group.
    pub group: usize,
}

/// A request on its way to a handler.
#[derive(Clone, Debug)]
pub struct Pending {
    /// The worker whose it is.
    pub worker: u16,
    /// Who may have it.
    pub class: Class,
    /// The id of the session; of a message any that names it.
    pub id: ShortText,
    /// The method.
    pub method: Box<str>,
    /// The path, without the query.
    pub path: Box<str>,
    /// The request packet, the same for whoever gets it.
    pub packet: Bytes,
    /// When it is refused if nobody took it. `None` is a while from now, and again a while when its handler has left.
    pub deadline_ms: Option<u64>,
}

/// What a request is, and so who may have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A request in stream mode: those who said hello, or else a group of plain handlers.
    Stream,
    /// A request in req mode: those of one group.
    Req,
    /// What the client of a held WebSocket has said (hold.md §4.1): those who said hello. It is not begun with, only done.
    Message,
}

/// What to do.
#[derive(Debug)]
pub(super) enum DispatchOutput {
    Push(usize, Pending),
    Route(HandlerId, Bytes),
    Worker(u16, FromHub),
}

/// Whether a handler may speak about a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pass,
    /// It may, and this one is to stop, who was given the request too.
    PassInsteadOf(HandlerId),
    /// The request was taken from it.
    Withdrawn,
}

#[derive(Debug)]
enum Stage {
    /// Nobody has it.
    Waiting { place: u64 },
    /// About to be pushed to plain handlers; or pushed, which is known here only of what was taken from others before.
    Pushed { withdrawn: Withdrawn },
    /// A handler has it, and has said nothing yet.
    Given { handler: HandlerId, withdrawn: Withdrawn, pending: Pending },
    /// A handler is at it: `owner`, who may have taken it over from the handler that it was given to.
    /// It counts for that one, as long as it is there.
    Started { counted: Option<HandlerId>, owner: HandlerId, withdrawn: Withdrawn, worker: u16 },
}

/// The machine.
#[derive(Debug)]
pub(super) struct Dispatch {
    config: DispatchConfig,
    /// By id; the ids are ours and hold nothing that a client chose.
    requests: HashMap<ShortText, Stage, crate::seeded::Seed>,
    line: Line,
    /// Handlers have come or left: whoever waits may wait for something else now.
    resort: bool,
    /// Groups that have refused a request, and when they are asked again at the latest.
    blocked: BTreeMap<usize, u64>,
    /// Groups that a plain handler has ever been in.
    peopled: BTreeSet<usize>,
    /// From when on handlers had time to say what they serve; `None` before the first that serves anything came.
    introduced_ms: Option<u64>,
    /// Who was last pushed out of the line, and from where: if it is refused it goes back there.
    pushing: Option<(ShortText, u64)>,
    outputs: VecDeque<DispatchOutput>,
}

impl Dispatch {
    pub(super) fn new(config: DispatchConfig) -> Self {
        Dispatch {
            config,
            requests: HashMap::with_hasher(crate::seeded::Seed(0)),
            line: Line::default(),
            resort: false,
            blocked: BTreeMap::new(),
            peopled: BTreeSet::new(),
            introduced_ms: None,
            pushing: None,
            outputs: VecDeque::new(),
        }
    }

    pub(super) fn handle_request(
        &mut self,
        now_ms: u64,
        presence: &mut Presence,
        mut pending: Pending,
    ) {
        // Behind those who came before. Who still waits then waits for what is not there now.
        self.sort(presence);
        pending.deadline_ms.get_or_insert(now_ms.saturating_add(self.config.handler_wait_ms));
        match choose(presence, &pending, &Withdrawn::default()) {
            Choice::Handler(handler) => self.give(handler, pending, Withdrawn::default()),
            Choice::Busy { prefix_len } => {
                let lane = room_lane(&pending, prefix_len);
                self.wait(now_ms, pending, Withdrawn::default(), lane);
            }
            Choice::Nobody if pending.class == Class::Message => {
                self.wait(now_ms, pending, Withdrawn::default(), Lane::Handlers);
            }
            Choice::Nobody => {
                let group = self.group(&pending);
                let lane = Lane::Group(group);
                if self.blocked.contains_key(&group) || self.line.has(&lane) {
                    self.wait(now_ms, pending, Withdrawn::default(), lane);
                } else {
                    self.push(group, pending, Withdrawn::default());
                }
            }
        }
    }

    /// A group takes a request not, or not now. One that no handler of any kind has ever served is
    /// not waited for, once they all had time to come.
    pub(super) fn handle_push_refused(
        &mut self,
        now_ms: u64,
        presence: &Presence,
        (group, pending): (usize, Pending),
    ) {
        debug_assert!(group == self.group(&pending));
        if pending.class == Class::Stream
            && self.introduced_ms.is_some_and(|at| at <= now_ms)
            && !self.peopled.contains(&group)
            && !presence.has_served(&pending.method, &pending.path)
        {
            self.requests.remove(&pending.id);
            let message = FromHub::Unserved(pending.id);
            self.outputs.push_back(DispatchOutput::Worker(pending.worker, message));
            return;
        }
        self.blocked.entry(group).or_insert(now_ms.saturating_add(PUSH_RETRY_MS));
        self.take_back(now_ms, group, pending);
    }

    /// Lets a request wait that was to be pushed to a group.
    fn take_back(&mut self, now_ms: u64, group: usize, pending: Pending) {
        let withdrawn = match self.requests.remove(&pending.id) {
            Some(Stage::Pushed { withdrawn }) => withdrawn,
            Some(Stage::Waiting { .. } | Stage::Given { .. } | Stage::Started { .. }) | None => {
                Withdrawn::default()
            }
        };
        self.wait(now_ms, pending, withdrawn, Lane::Group(group));
    }

    /// Lets a request wait, or refuses it if too many do or too many handlers have failed at it.
    fn wait(&mut self, now_ms: u64, mut pending: Pending, withdrawn: Withdrawn, lane: Lane) {
        let bytes = self.line.bytes() + pending.packet.len();
        let is_full = self.line.len() >= self.config.waiting_requests_max
            || bytes > self.config.waiting_bytes_max;
        if is_full || withdrawn.len() >= HANDLERS_PER_REQUEST_MAX {
            self.refuse(&pending);
            return;
        }
        let wait_ms = self.config.handler_wait_ms;
        let deadline_ms =
            *pending.deadline_ms.get_or_insert_with(|| now_ms.saturating_add(wait_ms));
        let place = match self.pushing.take_if(|(id, _)| *id == pending.id) {
            Some((_, place)) => place,
            None => self.line.new_place(),
        };
        self.requests.insert(pending.id, Stage::Waiting { place });
        self.line.insert(place, (pending, deadline_ms), withdrawn, lane);
    }

    fn refuse(&mut self, pending: &Pending) {
        self.requests.remove(&pending.id);
        let message = FromHub::Refused(pending.id);
        self.outputs.push_back(DispatchOutput::Worker(pending.worker, message));
    }

    /// A handler speaks about a request: it has started, or is not to. `is_end` says that it gives up.
    pub(super) fn handle_answer(
        &mut self,
        presence: &mut Presence,
        (from, is_end): (&[u8], bool),
        id: &[u8],
    ) -> Verdict {
        let Some(stage) = self.requests.get_mut(id) else { return Verdict::Pass };
        match stage {
            // Who was late and gives up does not answer; somebody else does, or will.
            Stage::Waiting { place } if is_end => {
                let waiting = self.line.get_mut(*place).expect("who waits has a place");
                waiting.withdrawn.handle_unheard(from);
                Verdict::Withdrawn
            }
            Stage::Given { handler, withdrawn, .. } if is_end && **handler != *from => {
                withdrawn.handle_unheard(from);
                Verdict::Withdrawn
            }
            Stage::Waiting { place } => {
                let place = *place;
                self.handle_late_answer(presence, from, place)
            }
            Stage::Given { handler, withdrawn, pending } if **handler != *from => {
                let Some((owner, incarnation)) = withdrawn.give_back(from, presence) else {
                    return Verdict::Withdrawn;
                };
                let slower = handler.clone();
                withdrawn.add(slower.clone(), presence.incarnation(&slower));
                *stage = Stage::Started {
                    counted: presence.resume(&owner, incarnation).then(|| owner.clone()),
                    owner,
                    withdrawn: std::mem::take(withdrawn),
                    worker: pending.worker,
                };
                self.finish(presence, &slower);
                Verdict::PassInsteadOf(slower)
            }
            Stage::Given { handler, withdrawn, pending } => {
                *stage = Stage::Started {
                    counted: Some(handler.clone()),
                    owner: handler.clone(),
                    withdrawn: std::mem::take(withdrawn),
                    worker: pending.worker,
                };
                Verdict::Pass
            }
            // Who does not say who it is takes nothing over.
            Stage::Started { owner, .. } if **owner == *from || from.is_empty() => Verdict::Pass,
            Stage::Started { withdrawn, .. } | Stage::Pushed { withdrawn }
                if withdrawn.contains(from) =>
            {
                withdrawn.handle_unheard(from);
                Verdict::Withdrawn
            }
            Stage::Started { owner, .. } => {
                // Any other handler may speak too: sessions can be handed over.
                *owner = from.into();
                Verdict::Pass
            }
            Stage::Pushed { .. } => Verdict::Pass,
        }
    }

    /// Somebody speaks about a request that waits: whom it was taken from, perhaps, and that is well.
    fn handle_late_answer(&mut self, presence: &mut Presence, from: &[u8], place: u64) -> Verdict {
        let waiting = self.line.get_mut(place).expect("who waits has a place");
        let Some((owner, incarnation)) = waiting.withdrawn.give_back(from, presence) else {
            return Verdict::Withdrawn;
        };
        let Waiting { pending, withdrawn, .. } =
            self.line.remove(place).expect("it was just found");
        // Who has not said hello again counts for nobody.
        let counted = presence.resume(&owner, incarnation).then(|| owner.clone());
        let stage = Stage::Started { counted, owner, withdrawn, worker: pending.worker };
        self.requests.insert(pending.id, stage);
        Verdict::Pass
    }

    /// A worker needs no handler for this request any more. Whoever has it but has not started is sent the cancel.
    pub(super) fn handle_done(
        &mut self,
        presence: &mut Presence,
        id: &[u8],
        cancel: Option<Bytes>,
    ) {
        match self.requests.remove(id) {
            Some(Stage::Waiting { place }) => {
                self.line.remove(place);
            }
            Some(Stage::Given { handler, .. }) => {
                // Behind the request, which may still be here.
                let route = |packet| DispatchOutput::Route(handler.clone(), packet);
                self.outputs.extend(cancel.map(route));
                self.finish(presence, &handler);
            }
            Some(Stage::Started { counted: Some(handler), .. }) => self.finish(presence, &handler),
            Some(Stage::Started { counted: None, .. } | Stage::Pushed { .. }) | None => {}
        }
    }

    /// A handler has done with a request: it has room for another one.
    fn finish(&mut self, presence: &mut Presence, handler: &HandlerId) {
        presence.finished(handler);
        let first =
            self.line.first_for_room(|prefix, method| presence.serves(handler, method, prefix));
        // If all are looked at anyway, whoever came first has the room.
        if let Some(place) = first.filter(|_| !self.resort) {
            self.try_give(presence, place);
        }
    }

    /// A handler is there, or says something new about what it does.
    pub(super) fn handle_joined(&mut self, now_ms: u64, presence: &Presence) {
        if presence.has_servers() {
            let introduced_ms = now_ms.saturating_add(self.config.handler_wait_ms);
            self.introduced_ms.get_or_insert(introduced_ms);
        }
        self.resort = true;
    }

    /// A handler is about to leave.
    pub(super) fn handle_leaving(&mut self) {
        self.resort = true;
    }

    /// A plain handler is in this group.
    pub(super) fn handle_peopled(&mut self, group: usize) {
        self.peopled.insert(group);
    }

    pub(super) fn handle_push_ready(&mut self) {
        self.blocked.clear();
    }

    /// A handler has forgotten all requests: its connection is lost, or it was started anew.
    pub(super) fn handle_gone(&mut self, id: &[u8]) {
        self.line.withdrawn_mut().for_each(|withdrawn| withdrawn.handle_gone(id));
        for stage in self.requests.values_mut() {
            match stage {
                Stage::Pushed { withdrawn }
                | Stage::Given { withdrawn, .. }
                | Stage::Started { withdrawn, .. } => withdrawn.handle_gone(id),
                Stage::Waiting { .. } => {}
            }
        }
        self.resort = true;
    }

    /// Takes everything from a handler that is not there any more. `incarnation` is that in which it
    /// still has its requests, if its connection lives.
    ///
    /// A session that another handler has taken over goes on.
    pub(super) fn handle_left(
        &mut self,
        now_ms: u64,
        presence: &mut Presence,
        (id, incarnation): (&HandlerId, Option<u64>),
    ) {
        let mut taken = Vec::new();
        for (request, stage) in &mut self.requests {
            match stage {
                Stage::Given { handler: owner, .. } | Stage::Started { owner, .. }
                    if owner == id =>
                {
                    taken.push(*request);
                }
                Stage::Started { counted, .. } => {
                    counted.take_if(|handler| handler == id);
                }
                Stage::Waiting { .. } | Stage::Pushed { .. } | Stage::Given { .. } => {}
            }
        }
        taken.sort_unstable();
        for request in taken {
            match self.requests.remove(&request) {
                Some(Stage::Given { mut pending, mut withdrawn, .. }) => {
                    match pending.class {
                        Class::Stream | Class::Req => pending.deadline_ms = None,
                        Class::Message => {}
                    }
                    withdrawn.add(id.clone(), incarnation);
                    self.wait(now_ms, pending, withdrawn, Lane::Unsorted);
                }
                Some(Stage::Started { counted, worker, .. }) => {
                    // It may count for another one, which has room again: all are looked at below.
                    if let Some(handler) = counted.filter(|handler| handler != id) {
                        presence.finished(&handler);
                    }
                    let message = FromHub::HandlerLeft(request);
                    self.outputs.push_back(DispatchOutput::Worker(worker, message));
                }
                Some(Stage::Waiting { .. } | Stage::Pushed { .. }) | None => {
                    unreachable!("picked above")
                }
            }
        }
        self.resort = true;
    }

    pub(super) fn handle_timeout(&mut self, now_ms: u64) {
        self.blocked.retain(|_, retry_ms| *retry_ms > now_ms);
        while let Some((_, place)) = self.line.first_deadline().filter(|(due, _)| *due <= now_ms) {
            let late = self.line.remove(place).expect("who has a deadline waits");
            self.refuse(&late.pending);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        let first = self.line.first_deadline().map(|(due_ms, _)| due_ms);
        first.into_iter().chain(self.blocked.values().copied()).min()
    }

    pub(super) fn poll_output(
        &mut self,
        now_ms: u64,
        presence: &mut Presence,
    ) -> Option<DispatchOutput> {
        self.sort(presence);
        loop {
            let output = match self.outputs.pop_front() {
                Some(output) => output,
                None => {
                    self.push_next();
                    self.outputs.pop_front()?
                }
            };
            let DispatchOutput::Push(group, pending) = output else { return Some(output) };
            if !matches!(self.requests.get(&pending.id), Some(Stage::Pushed { .. })) {
                // Its worker has no use for it any more.
                continue;
            }
            if self.blocked.contains_key(&group) {
                // Refused since it was put here: so this one would be, too.
                self.take_back(now_ms, group, pending);
                continue;
            }
            if matches!(&self.requests[&pending.id], Stage::Pushed { withdrawn } if withdrawn.is_empty())
            {
                self.requests.remove(&pending.id);
            }
            return Some(DispatchOutput::Push(group, pending));
        }
    }

    /// Looks at all who wait, if handlers have come or left.
    fn sort(&mut self, presence: &mut Presence) {
        if std::mem::take(&mut self.resort) {
            for place in self.line.places() {
                self.try_give(presence, place);
            }
        }
    }

    /// Gives a request that waits to whoever takes it, or finds out what it waits for.
    fn try_give(&mut self, presence: &mut Presence, place: u64) {
        let Some(Waiting { pending, withdrawn, .. }) = self.line.get(place) else { return };
        if let Some(handler) = withdrawn.holder(presence) {
            return self.give_back(presence, place, handler);
        }
        let lane = match choose(presence, pending, withdrawn) {
            Choice::Handler(handler) => {
                let waiting = self.line.remove(place).expect("it was just found");
                return self.give(handler, waiting.pending, waiting.withdrawn);
            }
            Choice::Busy { prefix_len } => room_lane(pending, prefix_len),
            Choice::Nobody if pending.class == Class::Message => Lane::Handlers,
            Choice::Nobody => Lane::Group(self.group(pending)),
        };
        self.line.move_to(place, lane);
    }

    /// A handler that a request was taken from is heard of again, and still has it.
    fn give_back(&mut self, presence: &mut Presence, place: u64, handler: HandlerId) {
        let Waiting { pending, mut withdrawn, .. } =
            self.line.remove(place).expect("it was just found");
        if let Some((_, incarnation)) = withdrawn.give_back(&handler, presence) {
            presence.resume(&handler, incarnation);
        }
        let id = pending.id;
        self.requests.insert(id, Stage::Given { handler, withdrawn, pending });
    }

    fn give(&mut self, handler: HandlerId, pending: Pending, withdrawn: Withdrawn) {
        let route = DispatchOutput::Route(handler.clone(), pending.packet.clone());
        self.outputs.push_back(route);
        let id = pending.id;
        self.requests.insert(id, Stage::Given { handler, withdrawn, pending });
    }

    /// Pushes the first of those who wait for groups that take requests. One only, since the answer
    /// decides about the others.
    fn push_next(&mut self) {
        let is_open = |group| !self.blocked.contains_key(&group);
        let Some((place, group)) = self.line.first_for_group(is_open) else { return };
        let Waiting { pending, withdrawn, .. } =
            self.line.remove(place).expect("it was just found");
        self.pushing = Some((pending.id, place));
        self.push(group, pending, withdrawn);
    }

    /// Pushes a request to a group of plain handlers.
    fn push(&mut self, group: usize, pending: Pending, withdrawn: Withdrawn) {
        self.requests.insert(pending.id, Stage::Pushed { withdrawn });
        self.outputs.push_back(DispatchOutput::Push(group, pending));
    }

    fn group(&self, pending: &Pending) -> usize {
        if pending.class == Class::Req {
            return self.config.req_group;
        }
        let is_matching = |route: &&Route| pending.path.starts_with(&*route.prefix);
        let matching = self.config.routes.iter().filter(is_matching);
        matching.max_by_key(|route| route.prefix.len()).map_or(0, |route| route.group)
    }
}

/// Who is to have a request, of those who have said what they serve: they serve in stream mode.
fn choose(presence: &mut Presence, pending: &Pending, withdrawn: &Withdrawn) -> Choice {
    match pending.class {
        Class::Stream | Class::Message => presence.give(&pending.method, &pending.path, withdrawn),
        Class::Req => Choice::Nobody,
    }
}

/// Where a request waits for room at those who serve this much of its path.
fn room_lane(pending: &Pending, prefix_len: usize) -> Lane {
    Lane::Room { prefix: pending.path[..prefix_len].into(), method: pending.method.clone() }
}
