//! The hub's thread: turns the bus and the [`Hub`] machine, and serves the workers' queues.
//!
//! One turn: wait for anything; take what came in, up to [`SENDS_PER_FLUSH`]; take what the workers
//! have put; let time pass; do what the machine says; hand each worker its batch; let the sockets
//! write. A packet for a handler whose queue is full waits here, in order, and is tried again; so a
//! stuck handler delays no other, and a `cancel` is late rather than lost.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use forebay_core::hub::{FromHub, HandlerId, Hub, HubOutput, ToHub};
use tokio::sync::Notify;

use crate::bus::{Bus, Inbound, Refused, SENDS_PER_FLUSH};
use crate::clock::Clock;
use crate::log::OncePerSecond;
use crate::queue::Queue;

/// Bytes of packets that wait for one handler whose queue is full, beyond what the queue holds. What
/// comes then is dropped, and the sessions that it was about will end for want of it. This is the
/// memory that a stuck handler costs until its connection is lost or its sessions have timed out.
const STALLED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long the end of the edge waits for handlers whose queues are full.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// How long after a refusal a stalled packet is tried again.
const STALLED_RETRY: Duration = Duration::from_millis(10);

/// From a worker to the hub.
pub(crate) type ToHubQueue = Queue<ToHub, Arc<Notify>>;

/// From the hub to a worker.
pub(crate) type FromHubQueue = Queue<FromHub, mio::Waker>;

impl crate::queue::Wake for Arc<Notify> {
    fn wake(&self) {
        self.notify_one();
    }
}

/// The queues to and from one worker.
#[derive(Clone, Debug)]
pub(crate) struct WorkerQueues {
    pub(crate) to_hub: Arc<ToHubQueue>,
    pub(crate) from_hub: Arc<FromHubQueue>,
}

/// Packets for a handler whose queue is full.
#[derive(Debug, Default)]
struct Stalled {
    packets: VecDeque<Bytes>,
    bytes: usize,
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
    batches: Vec<VecDeque<FromHub>>,
    stalled: HashMap<HandlerId, Stalled>,
    sends: usize,
    /// The sockets have ended by themselves.
    is_closed: bool,
    malformed: OncePerSecond,
    dropped: OncePerSecond,
}

impl HubLoop {
    pub(crate) fn new(
        bus: Bus,
        hub: Hub,
        clock: Clock,
        workers: Vec<WorkerQueues>,
        (notify, stop): (Arc<Notify>, Arc<Notify>),
    ) -> Self {
        let batches = workers.iter().map(|_| VecDeque::new()).collect();
        HubLoop {
            bus,
            hub,
            clock,
            workers,
            notify,
            stop,
            inbox: VecDeque::new(),
            batches,
            stalled: HashMap::new(),
            sends: 0,
            is_closed: false,
            malformed: OncePerSecond::default(),
            dropped: OncePerSecond::default(),
        }
    }

    /// Turns until it is told to stop; then sends what is left and closes the bus. Ends by itself only
    /// if the sockets do.
    pub(crate) async fn run(mut self) {
        let stop = Arc::clone(&self.stop);
        let mut stopped = std::pin::pin!(stop.notified());
        while !self.is_closed {
            let is_idle = self.workers.iter().all(|worker| worker.to_hub.may_sleep());
            let wait = if is_idle { self.wait() } else { Duration::ZERO };
            tokio::select! {
                biased;
                () = &mut stopped => break,
                inbound = self.bus.recv() => self.handle_inbound(inbound),
                () = self.notify.notified() => {}
                () = tokio::time::sleep(wait) => {}
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

    /// How long nothing is due.
    fn wait(&self) -> Duration {
        let now_ms = self.clock.now_ms();
        let deadline = self.hub.next_deadline().map_or(Duration::from_secs(60), |due_ms| {
            Duration::from_millis(due_ms.saturating_sub(now_ms))
        });
        if self.stalled.is_empty() { deadline } else { deadline.min(STALLED_RETRY) }
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
        self.retry_stalled();
        while let Some(output) = self.hub.poll_output(now_ms) {
            self.handle_output(now_ms, output);
            if self.sends >= SENDS_PER_FLUSH {
                self.sends = 0;
                self.bus.flush().await;
            }
        }
        for (worker, batch) in self.workers.iter().zip(&mut self.batches) {
            worker.from_hub.put(batch);
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
                    self.log_malformed(now_ms, b"", &error.to_string());
                }
            }
            Inbound::PeerLost { peer } => {
                self.stalled.remove(&*peer);
                self.hub.handle_peer_lost(now_ms, &peer);
            }
            Inbound::PushPeers { .. } | Inbound::PushReady { .. } => self.hub.handle_push_ready(),
            Inbound::PeerJoined { .. } => {}
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
        if let Some(suppressed) = self.malformed.handle_line(now_ms) {
            let peer = String::from_utf8_lossy(peer);
            tracing::warn!("packet from handler {peer:?} refused: {reason} ({suppressed} more)");
        }
    }

    fn handle_output(&mut self, now_ms: u64, output: HubOutput) {
        match output {
            HubOutput::Worker { worker, message } => {
                self.batches[usize::from(worker)].push_back(message);
            }
            HubOutput::Push { group, pending } => {
                self.sends += 1;
                if self.bus.try_push(group, pending.packet.clone()).is_err() {
                    self.hub.handle_push_refused(now_ms, group, pending);
                }
            }
            HubOutput::Route { peer, packet } => self.route(now_ms, peer, packet),
        }
    }

    /// Sends a packet to a handler, behind those that wait for it.
    fn route(&mut self, now_ms: u64, peer: HandlerId, packet: Bytes) {
        self.sends += 1;
        if let Some(stalled) = self.stalled.get_mut(&peer) {
            if stalled.bytes + packet.len() <= STALLED_BYTES_MAX {
                stalled.bytes += packet.len();
                stalled.packets.push_back(packet);
            } else if let Some(suppressed) = self.dropped.handle_line(now_ms) {
                let peer = String::from_utf8_lossy(&peer);
                tracing::warn!("a packet to handler {peer:?} is dropped ({suppressed} more)");
            }
            return;
        }
        match self.bus.try_route(&peer, packet) {
            Ok(()) => {}
            Err(Refused::Full(packet)) => {
                let bytes = packet.len();
                let stalled = Stalled { packets: VecDeque::from([packet]), bytes };
                self.stalled.insert(peer, stalled);
            }
            Err(Refused::NoPeer(_)) => {
                tracing::debug!(
                    "no handler {:?} to send a packet to",
                    String::from_utf8_lossy(&peer)
                );
            }
        }
    }

    /// Tries again what waits for handlers whose queues were full, in order.
    fn retry_stalled(&mut self) {
        self.stalled.retain(|peer, stalled| {
            while let Some(packet) = stalled.packets.pop_front() {
                self.sends += 1;
                stalled.bytes -= packet.len();
                match self.bus.try_route(peer, packet) {
                    Ok(()) => {}
                    Err(Refused::Full(packet)) => {
                        stalled.bytes += packet.len();
                        stalled.packets.push_front(packet);
                        return true;
                    }
                    Err(Refused::NoPeer(_)) => return false,
                }
            }
            false
        });
    }
}
