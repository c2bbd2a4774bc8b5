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
//! request was taken from may be late rather than dead: what it says is kept from the worker, or two
//! would answer one request.

mod invariants;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use bytes::Bytes;

use super::presence::{Choice, Presence};
use super::{FromHub, HandlerId};

/// How often requests that wait for plain handlers are pushed again, in milliseconds: the sockets
/// do not say when they take one.
const PUSH_RETRY_MS: u64 = 10;

/// A request is given to so many handlers at most; if the last of them leaves too, it is refused. So
/// a request that kills whoever takes it does not kill them all, again and again.
const HANDLERS_PER_REQUEST_MAX: usize = 16;

/// What the shell sets.
#[derive(Clone, Debug)]
pub struct DispatchConfig {
    /// How long a request waits for a handler, in milliseconds.
    pub handler_wait_ms: u64,
    /// Requests that wait at most; one more is refused. Each costs its packet, some 500 bytes.
    pub waiting_requests_max: usize,
    /// Groups of plain handlers by path prefix; what matches none goes to group 0.
    pub routes: Vec<Route>,
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
    /// The id of the session.
    pub id: Bytes,
    /// The method.
    pub method: Box<str>,
    /// The path, without the query.
    pub path: Box<str>,
    /// The request packet, the same for whoever gets it.
    pub packet: Bytes,
    /// When it is refused if nobody took it.
    pub deadline_ms: Option<u64>,
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
    /// The request was taken from it.
    Withdrawn,
}

/// The handlers that a request was taken from, one entry for each time. What they may still say
/// about it is late: another one may have it.
type Withdrawn = Vec<HandlerId>;

#[derive(Debug)]
enum Stage {
    /// Nobody has it.
    Waiting { place: u64 },
    /// Pushed to plain handlers. Known here only if it was taken from others before.
    Pushed { withdrawn: Withdrawn },
    /// A handler has it, and has said nothing yet.
    Given { handler: HandlerId, withdrawn: Withdrawn, pending: Pending },
    /// A handler is at it: `owner`, who may have taken it over from the handler that it was given to.
    /// It counts for that one, as long as it is there.
    Started { counted: Option<HandlerId>, owner: HandlerId, withdrawn: Withdrawn, worker: u16 },
}

#[derive(Debug)]
struct Waiting {
    pending: Pending,
    deadline_ms: u64,
    withdrawn: Withdrawn,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Dispatch {
    config: DispatchConfig,
    /// By id; the ids are ours and hold nothing that a client chose.
    requests: HashMap<Bytes, Stage, crate::seeded::Seed>,
    /// In the order of arrival.
    waiting: BTreeMap<u64, Waiting>,
    /// When those who wait are refused, and their places.
    deadlines: BTreeSet<(u64, u64)>,
    places: u64,
    /// Something has changed: those who wait may have their turn.
    retry: bool,
    push_retry_ms: Option<u64>,
    outputs: VecDeque<DispatchOutput>,
}

impl Dispatch {
    pub(super) fn new(config: DispatchConfig) -> Self {
        Dispatch {
            config,
            requests: HashMap::with_hasher(crate::seeded::Seed(0)),
            waiting: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            places: 0,
            retry: false,
            push_retry_ms: None,
            outputs: VecDeque::new(),
        }
    }

    pub(super) fn handle_request(&mut self, now_ms: u64, pending: Pending) {
        self.wait(now_ms, pending, Withdrawn::new());
        self.retry = true;
    }

    pub(super) fn handle_push_refused(&mut self, now_ms: u64, group: usize, pending: Pending) {
        debug_assert!(group == self.group(&pending.path));
        let withdrawn = match self.requests.remove(&pending.id) {
            Some(Stage::Pushed { withdrawn }) => withdrawn,
            Some(Stage::Waiting { .. } | Stage::Given { .. } | Stage::Started { .. }) | None => {
                Withdrawn::new()
            }
        };
        self.wait(now_ms, pending, withdrawn);
        self.push_retry_ms.get_or_insert(now_ms + PUSH_RETRY_MS);
    }

    /// Lets a request wait, or refuses it if too many do or too many handlers have failed at it.
    fn wait(&mut self, now_ms: u64, mut pending: Pending, withdrawn: Withdrawn) {
        let full = self.waiting.len() >= self.config.waiting_requests_max;
        if full || withdrawn.len() >= HANDLERS_PER_REQUEST_MAX {
            self.refuse(&pending);
            return;
        }
        let deadline_ms = *pending.deadline_ms.get_or_insert(now_ms + self.config.handler_wait_ms);
        self.places += 1;
        let place = self.places;
        self.deadlines.insert((deadline_ms, place));
        self.requests.insert(pending.id.clone(), Stage::Waiting { place });
        self.waiting.insert(place, Waiting { pending, deadline_ms, withdrawn });
    }

    /// Takes out a request that waits.
    fn take_waiting(&mut self, place: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&place)?;
        self.deadlines.remove(&(waiting.deadline_ms, place));
        Some(waiting)
    }

    fn refuse(&mut self, pending: &Pending) {
        self.requests.remove(&pending.id);
        let message = FromHub::Refused(pending.id.clone());
        self.outputs.push_back(DispatchOutput::Worker(pending.worker, message));
    }

    /// A handler speaks about a request: it has started, or is not to.
    pub(super) fn handle_answer(&mut self, from: &[u8], id: &[u8]) -> Verdict {
        let Some(stage) = self.requests.get_mut(id) else { return Verdict::Pass };
        let late = |withdrawn: &Withdrawn| withdrawn.iter().any(|handler| **handler == *from);
        match stage {
            Stage::Waiting { .. } => Verdict::Withdrawn,
            Stage::Given { handler, withdrawn, pending } => {
                if **handler != *from {
                    return Verdict::Withdrawn;
                }
                *stage = Stage::Started {
                    counted: Some(handler.clone()),
                    owner: handler.clone(),
                    withdrawn: std::mem::take(withdrawn),
                    worker: pending.worker,
                };
                Verdict::Pass
            }
            Stage::Started { owner, .. } if **owner == *from => Verdict::Pass,
            Stage::Started { withdrawn, .. } | Stage::Pushed { withdrawn } if late(withdrawn) => {
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

    /// A worker needs no handler for this request any more. Says who has it but has not started.
    pub(super) fn handle_done(&mut self, presence: &mut Presence, id: &[u8]) -> Option<HandlerId> {
        match self.requests.remove(id)? {
            Stage::Waiting { place } => {
                self.take_waiting(place);
                None
            }
            Stage::Pushed { .. } => None,
            Stage::Given { handler, .. } => {
                presence.finished(&handler);
                self.retry = true;
                Some(handler)
            }
            Stage::Started { counted, .. } => {
                if let Some(handler) = counted {
                    presence.finished(&handler);
                }
                self.retry = true;
                None
            }
        }
    }

    pub(super) fn handle_joined(&mut self) {
        self.retry = true;
    }

    pub(super) fn handle_push_ready(&mut self) {
        self.push_retry_ms = None;
        self.retry = true;
    }

    /// Takes everything from a handler that is gone.
    ///
    /// A session that another handler has taken over goes on.
    pub(super) fn handle_left(&mut self, now_ms: u64, id: &HandlerId) {
        let mut taken = Vec::new();
        for (request, stage) in &mut self.requests {
            match stage {
                Stage::Given { handler: owner, .. } | Stage::Started { owner, .. }
                    if owner == id =>
                {
                    taken.push(request.clone());
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
                    pending.deadline_ms = None;
                    withdrawn.push(id.clone());
                    self.wait(now_ms, pending, withdrawn);
                }
                Some(Stage::Started { worker, .. }) => {
                    let message = FromHub::HandlerLeft(request);
                    self.outputs.push_back(DispatchOutput::Worker(worker, message));
                }
                Some(Stage::Waiting { .. } | Stage::Pushed { .. }) | None => {
                    unreachable!("picked above")
                }
            }
        }
        self.retry = true;
    }

    pub(super) fn handle_timeout(&mut self, now_ms: u64) {
        if self.push_retry_ms.is_some_and(|due| due <= now_ms) {
            self.push_retry_ms = None;
            self.retry = true;
        }
        while let Some(&(_, place)) = self.deadlines.first().filter(|(due, _)| *due <= now_ms) {
            let late = self.take_waiting(place).expect("who has a deadline waits");
            self.refuse(&late.pending);
        }
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        let first = self.deadlines.first().map(|(due, _)| *due);
        first.into_iter().chain(self.push_retry_ms).min()
    }

    pub(super) fn poll_output(
        &mut self,
        now_ms: u64,
        presence: &mut Presence,
    ) -> Option<DispatchOutput> {
        if std::mem::take(&mut self.retry) {
            self.give_waiting(now_ms, presence);
        }
        self.outputs.pop_front()
    }

    /// Gives those who wait to whoever takes them, in the order of arrival.
    fn give_waiting(&mut self, now_ms: u64, presence: &mut Presence) {
        let pushing = self.push_retry_ms.is_none_or(|due| due <= now_ms);
        let places: Vec<u64> = self.waiting.keys().copied().collect();
        for place in places {
            let pending = &self.waiting[&place].pending;
            match presence.give(&pending.method, &pending.path) {
                Choice::Handler(handler) => {
                    let Waiting { pending, withdrawn, .. } =
                        self.take_waiting(place).expect("it was just found");
                    let route = DispatchOutput::Route(handler.clone(), pending.packet.clone());
                    self.outputs.push_back(route);
                    let id = pending.id.clone();
                    self.requests.insert(id, Stage::Given { handler, withdrawn, pending });
                }
                Choice::Nobody if pushing => self.push(place),
                Choice::Busy | Choice::Nobody => {}
            }
        }
    }

    /// Pushes a request to a group of plain handlers.
    fn push(&mut self, place: u64) {
        let Some(Waiting { pending, withdrawn, .. }) = self.take_waiting(place) else { return };
        if withdrawn.is_empty() {
            self.requests.remove(&pending.id);
        } else {
            self.requests.insert(pending.id.clone(), Stage::Pushed { withdrawn });
        }
        let group = self.group(&pending.path);
        self.outputs.push_back(DispatchOutput::Push(group, pending));
    }

    fn group(&self, path: &str) -> usize {
        let matching = self.config.routes.iter().filter(|route| path.starts_with(&*route.prefix));
        matching.max_by_key(|route| route.prefix.len()).map_or(0, |route| route.group)
    }
}
