//! The hub's thread: turns the bus and the [`Hub`] machine, and serves the workers' queues.
//!
//! One turn: wait for anything, unless a worker has put something in the meantime; take what came in, up to [`SENDS_PER_FLUSH`]; take what the workers
//! have put; let time pass; do what the machine says; hand each worker its batch; let the sockets
//! write. A packet for a handler whose queue is full waits here, in order, and is tried again; so a
//! stuck handler delays no other, and a `cancel` is late rather than lost. A worker that does not keep
//! up is given no more events, but told where their channels end; it then asks for what it missed.

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_core::hold::{Fed, Run};
use forebay_core::hub::{FromHub, HandlerId, Hub, HubOutput, ToHub};
use forebay_core::session::SessionId;
use tokio::sync::Notify;
use tokio::time::Sleep;
use zhttp::{Cursor, Packet};

use crate::bus::{Bus, Inbound, Refused, SENDS_PER_FLUSH};
use crate::clock::Clock;
use crate::log::OncePerSecond;
use crate::metrics::ThreadMetrics;
use crate::queue::Queue;
use crate::stalled::{Kept, Stalled};

/// How long the end of the edge waits for handlers whose queues are full.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// How long after a refusal a stalled packet is tried again.
const STALLED_RETRY: Duration = Duration::from_millis(10);

/// Messages that wait for one worker. Past it events are dropped for that worker, never anything else,
/// and made good when half of them are taken. The memory is that of the packets with the events, of
/// which all workers share one copy.
const FROM_HUB_MAX: usize = 20_000;

/// How soon it is looked again whether a worker that had missed events has caught up.
const MISSED_RETRY: Duration = Duration::from_millis(10);

/// Without a deadline the hub looks about so often.
const IDLE_WAIT: Duration = Duration::from_secs(60);

/// From a worker to the hub.
pub(crate) type ToHubQueue = Queue<ToHub, Arc<Notify>>;

/// From the hub to a worker.
pub(crate) type FromHubQueue = Queue<FromHub, mio::Waker>;

/// The queues to and from one worker.
#[derive(Clone, Debug)]
pub(crate) struct WorkerQueues {
    pub(crate) to_hub: Arc<ToHubQueue>,
    pub(crate) from_hub: Arc<FromHubQueue>,
}

/// What is on its way to a worker.
#[derive(Debug, Default)]
struct Outbox {
    /// What this turn has for it.
    batch: VecDeque<FromHub>,
    /// Messages that waited for it at the end of the last turn.
    waiting: usize,
    /// Where channels end of which events were dropped.
    missed: HashMap<Arc<str>, Cursor>,
}

impl Outbox {
    /// Adds a message; of events only where they end, if too much waits.
    fn push(&mut self, message: FromHub) {
        if let FromHub::Fed(Fed::Events(run)) = &message
            && self.waiting + self.batch.len() >= FROM_HUB_MAX
        {
            self.miss(run);
        } else {
            self.batch.push_back(message);
        }
    }

    fn miss(&mut self, run: &Run) {
        let head = self.missed.entry(Arc::clone(run.channel())).or_insert(run.last());
        *head = run.last().max(*head);
    }

    /// Tells a worker that has caught up what it missed.
    fn make_good(&mut self) {
        if self.waiting < FROM_HUB_MAX / 2 {
            let missed = self.missed.drain().map(|(name, head)| FromHub::Missed(name, head));
            self.batch.extend(missed);
        }
    }

    /// Hands the batch over.
    fn flush(&mut self, queue: &FromHubQueue) {
        if !self.missed.is_empty() {
            self.make_good();
        }
        self.waiting = queue.put(&mut self.batch);
    }
}

/// The shell around the machine.
pub(crate) struct HubLoop {
    bus: Bus,
    hub: Hub,
    clock: Clock,
    workers: Vec<WorkerQueues>,
    notify: Arc<Notify>,
    stop: Arc<Notify>,
    inbox: VecDeque<ToHub>,
    outboxes: Vec<Outbox>,
    stalled: Stalled,
    sends: usize,
    /// The sockets have ended by themselves.
    is_closed: bool,
    metrics: Arc<ThreadMetrics>,
    malformed: OncePerSecond,
    dropped: OncePerSecond,
}

impl HubLoop {
    pub(crate) fn new(
        bus: Bus,
        hub: Hub,
        (clock, metrics): (Clock, Arc<ThreadMetrics>),
        workers: Vec<WorkerQueues>,
        (notify, stop): (Arc<Notify>, Arc<Notify>),
    ) -> Self {
        let outboxes = workers.iter().map(|_| Outbox::default()).collect();
        HubLoop {
            bus,
            hub,
            clock,
            workers,
            notify,
            stop,
            inbox: VecDeque::new(),
            outboxes,
            stalled: Stalled::default(),
            sends: 0,
            is_closed: false,
            metrics,
            malformed: OncePerSecond::default(),
            dropped: OncePerSecond::default(),
        }
    }

    /// Turns until it is told to stop; then sends what is left and closes the bus. Ends by itself only
    /// if the sockets do.
    pub(crate) async fn run(mut self) {
        let stop = Arc::clone(&self.stop);
        let mut stopped = std::pin::pin!(stop.notified());
        let mut alarm = std::pin::pin!(tokio::time::sleep(IDLE_WAIT));
        while !self.is_closed {
            if self.workers.iter().all(|worker| worker.to_hub.may_sleep()) {
                self.set_alarm(alarm.as_mut());
                tokio::select! {
                    biased;
                    () = &mut stopped => break,
                    inbound = self.bus.recv() => self.handle_inbound(inbound),
                    () = self.notify.notified() => {}
                    () = &mut alarm => {}
                }
            } else {
                // No timer: the shortest takes a millisecond, and there is something to do now.
                tokio::select! {
                    biased;
                    () = &mut stopped => break,
                    () = tokio::task::yield_now() => {}
                }
            }
            self.turn().await;
        }
        let until_ms = self.clock.now_ms() + STOP_WAIT.as_millis() as u64;
        self.turn().await;
        while !self.stalled.is_empty() && self.clock.now_ms() < until_ms {
            tokio::time::sleep(STALLED_RETRY).await;
            self.turn().await;
        }
        self.bus.close().await;
    }

    /// Sets the timer for what is due next; it is touched only if that has changed.
    fn set_alarm(&self, alarm: Pin<&mut Sleep>) {
        let now_ms = self.clock.now_ms();
        let after = |wait: Duration| now_ms + wait.as_millis() as u64;
        let mut due_ms = self.hub.next_deadline().unwrap_or(u64::MAX);
        if !self.stalled.is_empty() {
            due_ms = due_ms.min(after(STALLED_RETRY));
        }
        if self.outboxes.iter().any(|outbox| !outbox.missed.is_empty()) {
            due_ms = due_ms.min(after(MISSED_RETRY));
        }
        let due = if due_ms == u64::MAX {
            // That one may lie anywhere, as long as it lies ahead.
            if !alarm.is_elapsed() {
                return;
            }
            self.clock.instant(after(IDLE_WAIT))
        } else {
            self.clock.instant(due_ms)
        };
        if alarm.deadline() != due || alarm.is_elapsed() {
            alarm.reset(due);
        }
    }

    async fn turn(&mut self) {
        for _ in 0..SENDS_PER_FLUSH {
            let Some(inbound) = self.bus.try_recv() else { break };
            self.handle_inbound(inbound);
        }
        let now_ms = self.clock.now_ms();
        for index in 0..self.workers.len() {
            self.workers[index].to_hub.take(&mut self.inbox);
            let worker = u16::try_from(index).expect("at most 1024 workers");
            while let Some(message) = self.inbox.pop_front() {
                self.hub.handle_worker(now_ms, worker, message);
            }
        }
        self.hub.handle_timeout(now_ms);
        self.retry_stalled(now_ms);
        while let Some(output) = self.hub.poll_output(now_ms) {
            self.handle_output(now_ms, output);
            if self.sends >= SENDS_PER_FLUSH {
                self.sends = 0;
                self.bus.flush().await;
            }
        }
        for (worker, outbox) in self.workers.iter().zip(&mut self.outboxes) {
            outbox.flush(&worker.from_hub);
        }
        if std::mem::take(&mut self.sends) > 0 {
            self.bus.flush().await;
        }
    }

    fn handle_inbound(&mut self, inbound: Inbound) {
        let now_ms = self.clock.now_ms();
        match inbound {
            Inbound::Routed { peer, packet } => {
                if let Err(error) = self.hub.handle_packet(now_ms, Some(&peer), &packet) {
                    self.log_malformed(now_ms, &peer, &error.to_string());
                }
            }
            Inbound::Published { packet } => {
                if let Err(error) = self.hub.handle_packet(now_ms, None, &packet) {
                    // By PUB only the packet tells who sent it.
                    let from = Packet::parse(&packet).map_or(&b""[..], |packet| packet.from);
                    self.log_malformed(now_ms, from, &error.to_string());
                }
            }
            Inbound::Replied { packet } => {
                if let Err(error) = self.hub.handle_reply(&packet) {
                    self.log_malformed(now_ms, b"", &error.to_string());
                }
            }
            Inbound::PeerLost { peer } => {
                let handler = HandlerId::from(&peer[..]);
                if self.stalled.remove(&handler) {
                    self.tell_workers(&FromHub::Flowing(handler));
                }
                tracing::debug!("handler {:?}: lost", String::from_utf8_lossy(&peer));
                self.hub.handle_peer_lost(now_ms, &peer);
            }
            Inbound::PushPeers { group, count } => {
                tracing::debug!("group {group}: {count} handlers take requests");
                self.hub.handle_push_peers(group, count);
            }
            Inbound::PushReady { .. } => self.hub.handle_push_ready(),
            Inbound::PeerJoined { peer } => {
                tracing::debug!("handler {:?}: there", String::from_utf8_lossy(&peer));
            }
            Inbound::Malformed { peer, reason } => {
                self.log_malformed(now_ms, peer.as_deref().unwrap_or_default(), reason);
            }
            Inbound::Closed => {
                tracing::error!("the ZeroMQ sockets have ended");
                self.is_closed = true;
            }
        }
    }

    fn log_malformed(&mut self, now_ms: u64, peer: &[u8], reason: &str) {
        self.metrics.count_refusal();
        if let Some(suppressed) = self.malformed.handle_line(now_ms) {
            let peer = String::from_utf8_lossy(peer);
            tracing::warn!("packet from handler {peer:?} refused: {reason} ({suppressed} more)");
        }
    }

    fn handle_output(&mut self, now_ms: u64, output: HubOutput) {
        match output {
            HubOutput::Worker { worker, message } => {
                self.outboxes[usize::from(worker)].push(message);
            }
            HubOutput::Push { group, pending } => {
                self.sends += 1;
                let id = String::from_utf8_lossy(&pending.id);
                match self.bus.try_push(group, pending.packet.clone()) {
                    Ok(()) => tracing::debug!("request {id}: pushed to group {group}"),
                    Err(refused) => {
                        tracing::debug!("request {id}: not pushed to group {group}: {refused}");
                        self.hub.handle_push_refused(now_ms, group, pending);
                    }
                }
            }
            HubOutput::Route { peer, packet } => self.route(now_ms, peer, packet),
        }
    }

    /// Sends a packet to a handler, behind those that wait for it.
    fn route(&mut self, now_ms: u64, peer: HandlerId, packet: Bytes) {
        self.sends += 1;
        if self.stalled.is_stalled(&peer) {
            return self.keep(now_ms, &peer, packet);
        }
        match self.bus.try_route(&peer, packet) {
            Ok(()) => {}
            Err(Refused::Full(packet)) => {
                self.keep(now_ms, &peer, packet);
                self.tell_workers(&FromHub::Stalled(peer));
            }
            Err(Refused::NoPeer(_)) => {
                // Perhaps it only ever published its hello. What it was given goes to others.
                tracing::debug!(
                    "no handler {:?} to send a packet to",
                    String::from_utf8_lossy(&peer)
                );
                self.hub.handle_peer_lost(now_ms, &peer);
            }
        }
    }

    /// Lets a packet wait for a handler that takes nothing.
    fn keep(&mut self, now_ms: u64, peer: &HandlerId, packet: Bytes) {
        match self.stalled.keep(peer, packet) {
            Kept::Yes => return,
            Kept::Undelivered(id) => {
                let worker = SessionId::parse(&id).map(|session| usize::from(session.worker));
                if let Some(outbox) = worker.and_then(|worker| self.outboxes.get_mut(worker)) {
                    outbox.push(FromHub::Undelivered(id));
                }
            }
            Kept::Dropped => {}
        }
        if let Some(suppressed) = self.dropped.handle_line(now_ms) {
            let peer = String::from_utf8_lossy(peer);
            tracing::warn!(
                "handler {peer:?} takes nothing: a packet is dropped ({suppressed} more)"
            );
        }
    }

    /// Tries again what waits for handlers whose queues were full.
    fn retry_stalled(&mut self, now_ms: u64) {
        let retried = self.stalled.retry(|peer, packet| self.bus.try_route(peer, packet));
        self.sends += retried.sends;
        for peer in retried.flowing {
            self.tell_workers(&FromHub::Flowing(peer));
        }
        for peer in retried.lost {
            self.tell_workers(&FromHub::Flowing(peer.clone()));
            self.hub.handle_peer_lost(now_ms, &peer);
        }
    }

    fn tell_workers(&mut self, message: &FromHub) {
        for outbox in &mut self.outboxes {
            outbox.push(message.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use forebay_core::ShortText;
    use zhttp::Kind;
    use zhttp::hold::{Event, EventList, Events};

    fn events(after: u64) -> FromHub {
        let events =
            Events { channel: "o:a", epoch: 5, after, prev: None, events: EventList::default() };
        let mut out = Vec::new();
        zhttp::hold::write_packet(&mut out, b"f", Kind::Events, |fields| {
            events.write(fields, std::iter::once(Event { data: b"x", kind: "stream", end: false }));
        });
        let bytes = Bytes::from(out);
        let packet = Packet::parse(&bytes).unwrap();
        let run = Run::new("o:a".into(), &bytes, &Events::read(&packet).unwrap());
        FromHub::Fed(Fed::Events(Arc::new(run.unwrap())))
    }

    #[test]
    fn a_worker_that_is_behind_misses_events_and_is_told_where_they_end() {
        let poll = mio::Poll::new().unwrap();
        let queue = FromHubQueue::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap());
        let mut outbox = Outbox::default();
        for _ in 0..FROM_HUB_MAX {
            outbox.push(FromHub::Refused(ShortText::new(b"").unwrap()));
        }
        outbox.flush(&queue);
        outbox.push(events(1));
        outbox.push(events(0));
        outbox.push(FromHub::Refused(ShortText::new(b"").unwrap()));
        outbox.flush(&queue);
        assert_eq!(outbox.waiting, FROM_HUB_MAX + 1, "nothing else is dropped");
        let mut taken = VecDeque::new();
        queue.take(&mut taken);
        outbox.flush(&queue);
        assert_eq!(outbox.waiting, 0, "it was not known that it has caught up");
        outbox.push(events(2));
        outbox.flush(&queue);
        taken.clear();
        queue.take(&mut taken);
        assert!(matches!(&taken[0], FromHub::Fed(Fed::Events(_))));
        let FromHub::Missed(name, head) = &taken[1] else { panic!("{taken:?}") };
        assert_eq!((&**name, *head), ("o:a", Cursor::new(5, 2)));
        assert_eq!(taken.len(), 2);
    }
}
