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
//! a restart of the only handler is invisible, within a bound in number and time.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;

use super::presence::{Choice, Presence};
use super::{FromHub, HandlerId};

/// How often requests that wait for plain handlers are pushed again, in milliseconds: the sockets
/// do not say when they take one.
const PUSH_RETRY_MS: u64 = 10;

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

#[derive(Debug)]
enum Stage {
    Waiting { place: u64 },
    Given { handler: HandlerId, withdrawn: Option<HandlerId>, pending: Pending },
    Started { handler: HandlerId, withdrawn: Option<HandlerId>, worker: u16 },
}

/// The machine.
#[derive(Debug)]
pub(super) struct Dispatch {
    config: DispatchConfig,
    /// By id; the ids are ours and hold nothing that a client chose.
    requests: HashMap<Bytes, Stage, crate::seeded::Seed>,
    /// In the order of arrival.
    waiting: BTreeMap<u64, (Pending, Option<HandlerId>)>,
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
            places: 0,
            retry: false,
            push_retry_ms: None,
            outputs: VecDeque::new(),
        }
    }

    pub(super) fn handle_request(&mut self, now_ms: u64, pending: Pending) {
        self.wait(now_ms, pending, None);
        self.retry = true;
    }

    pub(super) fn handle_push_refused(&mut self, now_ms: u64, group: usize, pending: Pending) {
        debug_assert!(group == self.group(&pending.path));
        self.wait(now_ms, pending, None);
        self.push_retry_ms.get_or_insert(now_ms + PUSH_RETRY_MS);
    }

    /// Lets a request wait, or refuses it if too many do.
    fn wait(&mut self, now_ms: u64, mut pending: Pending, withdrawn: Option<HandlerId>) {
        if self.waiting.len() >= self.config.waiting_requests_max {
            self.refuse(&pending);
            return;
        }
        pending.deadline_ms.get_or_insert(now_ms + self.config.handler_wait_ms);
        self.places += 1;
        self.requests.insert(pending.id.clone(), Stage::Waiting { place: self.places });
        self.waiting.insert(self.places, (pending, withdrawn));
    }

    fn refuse(&mut self, pending: &Pending) {
        self.requests.remove(&pending.id);
        let message = FromHub::Refused(pending.id.clone());
        self.outputs.push_back(DispatchOutput::Worker(pending.worker, message));
    }

    /// A handler speaks about a request: it has started, or is not to.
    pub(super) fn handle_answer(&mut self, from: &[u8], id: &[u8]) -> Verdict {
        let Some(stage) = self.requests.get_mut(id) else { return Verdict::Pass };
        match stage {
            Stage::Waiting { place } => {
                // It may have been taken from this one a moment ago; then it is late.
                let withdrawn = &self.waiting[place].1;
                let late = withdrawn.as_deref() == Some(from);
                if late { Verdict::Withdrawn } else { Verdict::Pass }
            }
            Stage::Given { handler, withdrawn, pending } => {
                if **handler != *from {
                    return Verdict::Withdrawn;
                }
                *stage = Stage::Started {
                    handler: handler.clone(),
                    withdrawn: withdrawn.take(),
                    worker: pending.worker,
                };
                Verdict::Pass
            }
            Stage::Started { withdrawn, .. } if withdrawn.as_deref() == Some(from) => {
                Verdict::Withdrawn
            }
            Stage::Started { .. } => Verdict::Pass,
        }
    }

    /// A worker needs no handler for this request any more. Says who has it but has not started.
    pub(super) fn handle_done(&mut self, presence: &mut Presence, id: &[u8]) -> Option<HandlerId> {
        match self.requests.remove(id)? {
            Stage::Waiting { place } => {
                self.waiting.remove(&place);
                None
            }
            Stage::Given { handler, .. } => {
                presence.finished(&handler);
                self.retry = true;
                Some(handler)
            }
            Stage::Started { handler, .. } => {
                presence.finished(&handler);
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
    pub(super) fn handle_left(&mut self, now_ms: u64, id: &HandlerId) {
        let mut taken = Vec::new();
        for (request, stage) in &self.requests {
            match stage {
                Stage::Given { handler, .. } | Stage::Started { handler, .. } if handler == id => {
                    taken.push(request.clone());
                }
                Stage::Waiting { .. } | Stage::Given { .. } | Stage::Started { .. } => {}
            }
        }
        taken.sort_unstable();
        for request in taken {
            match self.requests.remove(&request) {
                Some(Stage::Given { mut pending, .. }) => {
                    pending.deadline_ms = None;
                    self.wait(now_ms, pending, Some(id.clone()));
                }
                Some(Stage::Started { worker, .. }) => {
                    let message = FromHub::HandlerLeft(request);
                    self.outputs.push_back(DispatchOutput::Worker(worker, message));
                }
                Some(Stage::Waiting { .. }) | None => unreachable!("picked above"),
            }
        }
        self.retry = true;
    }

    pub(super) fn handle_timeout(&mut self, now_ms: u64) {
        if self.push_retry_ms.is_some_and(|due| due <= now_ms) {
            self.push_retry_ms = None;
            self.retry = true;
        }
        // Those who came first wait longest; one taken from a handler may stand behind them.
        let late = |(place, (pending, _)): (&u64, &(Pending, Option<HandlerId>))| {
            pending.deadline_ms.is_some_and(|due| due <= now_ms).then_some(*place)
        };
        let late: Vec<u64> = self.waiting.iter().filter_map(late).collect();
        for place in late {
            if let Some((pending, _)) = self.waiting.remove(&place) {
                self.refuse(&pending);
            }
        }
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        let first = self.waiting.values().next().and_then(|(pending, _)| pending.deadline_ms);
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
        let mut keep = BTreeMap::new();
        for (place, (pending, withdrawn)) in std::mem::take(&mut self.waiting) {
            match presence.give(&pending.method, &pending.path) {
                Choice::Handler(handler) => {
                    let route = DispatchOutput::Route(handler.clone(), pending.packet.clone());
                    self.outputs.push_back(route);
                    let id = pending.id.clone();
                    let withdrawn = withdrawn.filter(|withdrawn| *withdrawn != handler);
                    self.requests.insert(id, Stage::Given { handler, withdrawn, pending });
                }
                Choice::Nobody if pushing => {
                    self.requests.remove(&pending.id);
                    let group = self.group(&pending.path);
                    self.outputs.push_back(DispatchOutput::Push(group, pending));
                }
                Choice::Busy | Choice::Nobody => {
                    keep.insert(place, (pending, withdrawn));
                }
            }
        }
        self.waiting = keep;
    }

    fn group(&self, path: &str) -> usize {
        let matching = self.config.routes.iter().filter(|route| path.starts_with(&*route.prefix));
        matching.max_by_key(|route| route.prefix.len()).map_or(0, |route| route.group)
    }
}
