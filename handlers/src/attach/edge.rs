//! The task of one edge: it owns the link, reads all that comes by it, and knows the edge's
//! sessions.
//!
//! ```text
//!                     ┌──────────────── edge task ────────────────┐
//!  link ── packets ──▶│ by id: Flow of the session ─────────────▶ │──▶ request task: Service::call
//!                     │ feed, unfeed, range ────────────────────▶ │──▶ FeedRequests
//!  link ◀── hello, bye, keep-alive, refusals ── outbox ◀───────── │
//!                     └───────────────────────────────────────────┘
//!  link ◀── credits, responses ─────────────────────────────────────── request tasks
//! ```
//!
//! **It never waits for one thing only.** What it has to say itself goes to a small outbox that is
//! sent while it goes on reading; only when that is full does it stop to read. So an edge that is
//! stuck costs nothing but itself, and in no order of events do the two sides wait for each other.
//!
//! **What clients say** on WebSockets that the edge holds is no session: it is answered by a task of
//! its own ([`hear`]), which nobody but the end of this one breaks off.
//!
//! **A request ends in one place**, [`EdgeTask::end`], whoever ends it: its task by itself, a
//! `cancel` of the edge, a broken rule, the loss of the link. Then its [`Flow`] is told, and its
//! task is dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::sync::{Semaphore, watch};
use tokio::task::{AbortHandle, Id as TaskId, JoinError, JoinSet};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use zhttp::{Envelope, Fields, IDS_MAX, Id, Kind, Packet, Payload, hold};

use super::feed::{EdgeSender, FeedQueue};
use super::flow::{Fault, Flow};
use super::link::{Link, LinkEvent, LinkSender, Refused};
use super::message::{CLOSE_BUSY, ClientMessages, Reply, close_packet, hear};
use super::request::{Coming, Request};
use super::service::{ClosedConnection, Service, serve, tell_closed};
use super::session::Session;
use super::stats::{Counters, Ticket};
use super::tuning::Tuning;

/// Packets of the edge's task itself that wait for the link. When it is full, nothing more is read
/// from the edge.
const OUTBOX_PACKETS_MAX: usize = 256;

/// Where a process stands with its attachment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Serving,
    /// Said bye; finishes what is in flight, and what else comes until that is finished.
    Leaving,
    /// Finishes nothing more.
    Closing,
}

/// What the tasks of all edges share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) from: Arc<[u8]>,
    pub(super) hellos: Hellos,
    pub(super) feeds: bool,
    /// Whether it can feed now; see [`FeedSwitch`](super::FeedSwitch).
    pub(super) can_feed: AtomicBool,
    pub(super) feed_queue: Arc<FeedQueue>,
    pub(super) counters: Arc<Counters>,
    /// A permit for each byte of a body that is gathered.
    pub(super) body_room: Arc<Semaphore>,
    pub(super) tuning: Tuning,
}

/// What there is to say of a handler: everything each time, so there are two such packets.
#[derive(Debug)]
pub(super) struct Hellos {
    pub(super) able: Bytes,
    /// The same without feeding.
    pub(super) unable: Bytes,
}

impl Hellos {
    fn contain(&self, packet: &Bytes) -> bool {
        [&self.able, &self.unable].contains(&packet)
    }
}

#[derive(Debug)]
struct InFlight {
    session: Arc<Session>,
    task: AbortHandle,
}

/// The task.
pub(super) struct EdgeTask<S> {
    sender: EdgeSender,
    link: LinkSender,
    service: Arc<S>,
    shared: Arc<Shared>,
    phase: Phase,
    up: bool,
    /// Whether the last hello said that it can feed.
    said_feeds: bool,
    sessions: HashMap<Bytes, InFlight>,
    /// Their requests' tasks; each gives back the session's id.
    tasks: JoinSet<Bytes>,
    /// Those that answer what clients say.
    hearings: JoinSet<()>,
    /// A permit for each byte of an answer to them that waits for the link.
    answer_room: Arc<Semaphore>,
    /// How often the link was lost.
    losses: watch::Sender<u64>,
    outbox: VecDeque<Bytes>,
}

impl<S: Service> EdgeTask<S> {
    pub(super) fn new(
        sender: EdgeSender,
        link: &Link,
        service: Arc<S>,
        shared: Arc<Shared>,
    ) -> Self {
        let answer_room = Arc::new(Semaphore::new(shared.tuning.waiting_answers_bytes_max));
        EdgeTask {
            sender,
            link: link.sender(),
            service,
            shared,
            phase: Phase::Serving,
            up: false,
            said_feeds: true,
            sessions: HashMap::new(),
            tasks: JoinSet::new(),
            hearings: JoinSet::new(),
            answer_room,
            losses: watch::Sender::new(0),
            outbox: VecDeque::new(),
        }
    }

    /// Serves the edge until the phase says otherwise.
    pub(super) async fn run(mut self, mut link: Link, mut phase: watch::Receiver<Phase>) {
        let mut ticker = tokio::time::interval(self.shared.tuning.hello_every);
        ticker.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.is_done() {
            tokio::select! {
                event = link.recv(), if self.outbox.len() < OUTBOX_PACKETS_MAX => {
                    self.handle_link(event, &mut ticker);
                }
                Some(ended) = self.tasks.join_next_with_id() => self.handle_ended(ended),
                Some(heard) = self.hearings.join_next() => self.handle_heard(heard),
                sent = send_first(&self.link, &self.outbox), if !self.outbox.is_empty() => {
                    self.handle_sent(&sent);
                }
                _ = ticker.tick() => self.handle_tick(),
                // Whoever drops the sender ends this task as well.
                Ok(()) = phase.changed() => {
                    let phase = *phase.borrow_and_update();
                    self.handle_phase(phase);
                }
            }
        }
        self.end_all();
        self.set_up(false);
        link.close().await;
    }

    fn is_done(&self) -> bool {
        match self.phase {
            Phase::Serving => false,
            Phase::Leaving => {
                let is_idle = self.sessions.is_empty() && self.hearings.is_empty();
                is_idle && (self.outbox.is_empty() || !self.up)
            }
            Phase::Closing => true,
        }
    }

    fn handle_phase(&mut self, phase: Phase) {
        self.phase = phase;
        if phase == Phase::Leaving && self.up {
            self.outbox.retain(|packet| !self.shared.hellos.contain(packet));
            self.outbox.push_back(self.packet(Kind::Bye, &[], |_| {}));
        }
    }

    fn handle_link(&mut self, event: LinkEvent, ticker: &mut Interval) {
        match event {
            LinkEvent::Packet(bytes) => self.handle_packet(&bytes),
            LinkEvent::Up => {
                self.set_up(true);
                // Says hello at once.
                ticker.reset_immediately();
            }
            LinkEvent::Down => {
                self.set_up(false);
                self.end_all();
                self.losses.send_modify(|losses| *losses += 1);
                self.outbox.clear();
            }
        }
    }

    fn set_up(&mut self, up: bool) {
        if std::mem::replace(&mut self.up, up) == up {
            return;
        }
        let Shared { feeds, feed_queue, counters, .. } = &*self.shared;
        if up {
            counters.links_up.add(1);
        } else {
            counters.links_up.subtract(1);
        }
        tracing::info!(edge = self.sender.id(), up, "link to an edge");
        match (*feeds, up) {
            (false, _) => {}
            (true, true) => feed_queue.handle_up(self.sender.clone()),
            (true, false) => feed_queue.handle_down(self.sender.id()),
        }
    }

    fn handle_tick(&mut self) {
        if !self.up {
            return;
        }
        if self.phase == Phase::Serving {
            self.say_hello();
        }
        self.send_keep_alives(Instant::now());
    }

    fn say_hello(&mut self) {
        let Shared { hellos, feeds, can_feed, feed_queue, .. } = &*self.shared;
        let can_feed = can_feed.load(Ordering::Relaxed);
        let hello = if can_feed { &hellos.able } else { &hellos.unable };
        // A second hello behind one that could not be sent yet says nothing more, but what it says
        // may have changed.
        if !self.outbox.contains(hello) {
            self.outbox.retain(|packet| !hellos.contain(packet));
            self.outbox.push_back(hello.clone());
        }
        if std::mem::replace(&mut self.said_feeds, can_feed) != can_feed && *feeds {
            // The edge gives its channels to others now, or asks for all of them anew. In both
            // cases what it asked for before is void, as if it had just come.
            feed_queue.handle_up(self.sender.clone());
        }
    }

    fn handle_sent(&mut self, sent: &Result<(), Refused>) {
        match sent {
            Ok(()) => {
                self.outbox.pop_front();
            }
            // Nobody is there to read them. (`send` waits while the queue is full.)
            Err(Refused::Down(_) | Refused::Full(_)) => self.outbox.clear(),
        }
    }

    fn handle_packet(&mut self, bytes: &Bytes) {
        let packet = match Packet::parse(bytes) {
            Ok(packet) => packet,
            Err(error) => return self.count_bad("packet", &error),
        };
        match packet.kind {
            Kind::Data
            | Kind::Error
            | Kind::Credit
            | Kind::KeepAlive
            | Kind::Cancel
            | Kind::HandoffStart
            | Kind::HandoffProceed
            | Kind::Close
            | Kind::Ping
            | Kind::Pong => {
                self.handle_session_packets(bytes, &packet);
            }
            Kind::Feed | Kind::Unfeed | Kind::Range => {
                if self.shared.feeds
                    && let Err(error) = self.shared.feed_queue.handle_packet(&self.sender, &packet)
                {
                    self.shared.counters.feed_requests_dropped.add(1);
                    tracing::debug!(edge = self.sender.id(), %error, "a feed request is dropped");
                }
            }
            Kind::Message => match ClientMessages::read(bytes, &packet, self.sender.id()) {
                Ok(said) => self.begin_hearing(said),
                Err(error) => self.count_bad("packet", &error),
            },
            Kind::Closed => match hold::Closed::read(&packet) {
                Ok(closed) => {
                    let context = Bytes::copy_from_slice(closed.context);
                    let connection = ClosedConnection { edge: self.sender.id(), context };
                    tell_closed(&*self.service, connection);
                }
                Err(error) => self.count_bad("packet", &error),
            },
            Kind::Hello
            | Kind::Bye
            | Kind::Events
            | Kind::Gap
            | Kind::Heads
            | Kind::Hold
            | Kind::Send => {
                self.count_bad("packet", &"a type that edges do not send");
            }
        }
    }

    fn handle_session_packets(&mut self, bytes: &Bytes, packet: &Packet<'_>) {
        match packet.payload() {
            Ok(payload) => {
                for id in packet.ids {
                    self.handle_session_packet(bytes, packet, &payload, id);
                }
            }
            Err(error) => {
                self.count_bad("packet", &error);
                for id in packet.ids {
                    self.refuse(id.id);
                }
            }
        }
    }

    fn handle_session_packet(
        &mut self,
        bytes: &Bytes,
        packet: &Packet<'_>,
        payload: &Payload<'_>,
        id: Id<'_>,
    ) {
        let Some(InFlight { session, .. }) = self.sessions.get(id.id) else {
            // Anything but a request is about a session that has just ended here.
            if packet.kind == Kind::Data && payload.method.is_some() {
                self.begin(bytes, packet, payload, id);
            }
            return;
        };
        if packet.kind == Kind::Data && payload.method.is_some() {
            tracing::debug!(edge = self.sender.id(), "a request came twice");
            return;
        }
        if let Err(fault) = hand_in(session, packet.kind, payload, id.seq) {
            self.count_bad("session", &fault);
            return self.refuse(id.id);
        }
        if matches!(packet.kind, Kind::Cancel | Kind::Error) {
            self.shared.counters.requests_gone.add(1);
            self.end(id.id);
        }
    }

    /// Begins with a request.
    fn begin(&mut self, bytes: &Bytes, packet: &Packet<'_>, payload: &Payload<'_>, id: Id<'_>) {
        let counters = &self.shared.counters;
        counters.requests.add(1);
        let Some(ticket) = Ticket::take(counters, self.shared.tuning.requests_in_flight_max) else {
            counters.requests_refused.add(1);
            return self.answer_busy(id.id);
        };
        let key = Bytes::copy_from_slice(id.id);
        let flow = Flow::new(id.seq, payload.credits, payload.body, payload.more);
        let from = Arc::clone(&self.shared.from);
        let session = Arc::new(Session::new(key.clone(), from, self.link.clone(), flow));
        let edge = self.sender.id();
        let coming = Coming::new(Arc::clone(&session), Arc::clone(&self.shared.body_room));
        let Some(request) = Request::new(bytes, packet.ext, payload, edge, coming) else {
            self.count_bad("request", &"it has no URI");
            return self.refuse(id.id);
        };
        let served =
            serve(Arc::clone(&self.service), request, Arc::clone(&session), Arc::clone(counters));
        let task = self.tasks.spawn({
            let key = key.clone();
            async move {
                let _ticket = ticket;
                served.await;
                key
            }
        });
        self.sessions.insert(key, InFlight { session, task });
    }

    /// Begins with what a client has said. What comes twice is done twice, and the edge takes one of
    /// the answers (H-93).
    fn begin_hearing(&mut self, said: ClientMessages) {
        let Shared { from, counters, tuning, .. } = &*self.shared;
        counters.messages.add(1);
        let Some(ticket) = Ticket::take(counters, tuning.requests_in_flight_max) else {
            counters.requests_refused.add(1);
            return self.outbox.push_back(close_packet(from, &said.id, CLOSE_BUSY, ""));
        };
        let reply = Reply {
            from: Arc::clone(from),
            link: self.link.clone(),
            room: Arc::clone(&self.answer_room),
            losses: self.losses.subscribe(),
            counters: Arc::clone(counters),
            ticket,
        };
        self.hearings.spawn(hear(Arc::clone(&self.service), said, reply));
    }

    fn handle_heard(&self, heard: Result<(), JoinError>) {
        if let Err(error) = heard {
            // Not the service, whose panics are caught: a bug of ours. The edge's patience ends.
            tracing::error!(edge = self.sender.id(), %error, "a message's task failed");
        }
    }

    /// A request's task has ended.
    fn handle_ended(&mut self, ended: Result<(TaskId, Bytes), JoinError>) {
        match ended {
            Ok((task, id)) => {
                // After the loss of a link, another session may have the same id.
                if self.sessions.get(&id).is_some_and(|in_flight| in_flight.task.id() == task) {
                    self.end(&id);
                }
            }
            // It was ended here, and the session is gone already.
            Err(error) if error.is_cancelled() => {}
            // The task itself panicked, not the service: a bug of ours, so rare that a search is fine.
            Err(error) => {
                let mut sessions = self.sessions.iter();
                let lost = sessions.find(|(_, in_flight)| in_flight.task.id() == error.id());
                if let Some(id) = lost.map(|(id, _)| id.clone()) {
                    tracing::error!(edge = self.sender.id(), %error, "a request's task failed");
                    self.refuse(&id);
                }
            }
        }
    }

    /// Ends a session here, if there is one.
    fn end(&mut self, id: &[u8]) {
        if let Some(InFlight { session, task }) = self.sessions.remove(id) {
            session.handle_gone();
            task.abort();
        }
    }

    fn end_all(&mut self) {
        self.shared.counters.requests_gone.add(self.sessions.len() as u64);
        let ids: Vec<Bytes> = self.sessions.keys().cloned().collect();
        for id in ids {
            self.end(&id);
        }
    }

    /// Ends a session and tells the edge. Without a number: which one is due, a task that sends may
    /// be changing.
    fn refuse(&mut self, id: &[u8]) {
        self.end(id);
        let ids = [Id { id, seq: None }];
        self.outbox.push_back(self.packet(Kind::Cancel, &ids, |_| {}));
    }

    fn answer_busy(&mut self, id: &[u8]) {
        let ids = [Id { id, seq: Some(0) }];
        let packet = self.packet(Kind::Data, &ids, |fields| {
            fields.int("code", 503);
            let retry: (&[u8], &[u8]) = (b"Retry-After", b"1");
            fields.headers([retry].into_iter());
            fields.bytes("body", b"Too many requests are in flight\n");
        });
        self.outbox.push_back(packet);
    }

    /// Says of each session that has long been silent that it lives. What the link does not take
    /// now is due again at the next tick.
    fn send_keep_alives(&self, now: Instant) {
        let keep_alive = self.shared.tuning.keep_alive;
        let mut due = self.sessions.values().filter_map(|in_flight| {
            let out = in_flight.session.try_out()?;
            out.is_due(now, keep_alive).then_some((&in_flight.session.id, out))
        });
        loop {
            let mut batch: Vec<_> = due.by_ref().take(IDS_MAX).collect();
            if batch.is_empty() {
                return;
            }
            let ids = batch.iter().map(|(id, out)| Id { id: id.as_ref(), seq: Some(out.seq) });
            let ids: Vec<Id<'_>> = ids.collect();
            if self.link.try_send(self.packet(Kind::KeepAlive, &ids, |_| {})).is_err() {
                return;
            }
            for (_, out) in &mut batch {
                out.handle_sent(now);
            }
        }
    }

    fn packet(
        &self,
        kind: Kind,
        ids: &[Id<'_>],
        payload: impl FnOnce(&mut Fields<'_, '_>),
    ) -> Bytes {
        let mut packet = Vec::new();
        Envelope::new(&self.shared.from, kind).about(ids).write(&mut packet, payload);
        packet.into()
    }

    fn count_bad(&self, what: &str, error: &dyn std::fmt::Display) {
        self.shared.counters.packets_bad.add(1);
        tracing::warn!(edge = self.sender.id(), %error, "an edge sent a bad {what}");
    }
}

/// Sends the first packet of the outbox. It stays there until it is sent, so that this future may
/// be dropped.
async fn send_first(link: &LinkSender, outbox: &VecDeque<Bytes>) -> Result<(), Refused> {
    match outbox.front() {
        Some(packet) => link.send(packet.clone()).await,
        None => Ok(()),
    }
}

/// Gives a packet of the edge to its session.
fn hand_in(
    session: &Session,
    kind: Kind,
    payload: &Payload<'_>,
    seq: Option<u32>,
) -> Result<(), Fault> {
    // The end is believed whatever its number.
    if !matches!(kind, Kind::Cancel | Kind::Error) {
        session.handle_seq(seq)?;
    }
    // Any packet may carry credits.
    if payload.credits > 0 {
        session.handle_credits(payload.credits);
    }
    if kind == Kind::Data {
        session.handle_body(payload.body, payload.more)?;
    }
    Ok(())
}
