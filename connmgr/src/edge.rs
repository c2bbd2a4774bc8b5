//! The edge as a whole: its threads, from the first bind to the last `cancel`.
//!
//! ```text
//! Edge::start ─▶ bind ─▶ hub thread, bus ─▶ listen ─▶ worker threads ─▶ Edge::drain ─▶ Edge::stop
//! ```
//!
//! Everything that can fail because of the configuration fails in [`Edge::start`], in an order that does no harm. The
//! clients' places are bound first: the bus replaces the ipc files of an edge that runs, as libzmq does, and must not
//! come to that if the other one has our port. Clients are let in last: who gets in finds the handlers' sockets open, as
//! with Condure, so that a script may take a connection for a sign that handlers can connect. Draining gives the
//! ports free at once, lets requests in flight finish, sends held clients away at an event
//! boundary, and after `--drain-timeout` ends what is left.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use forebay_core::hold::{FeedsConfig, MembersConfig};
use forebay_core::hub::{DispatchConfig, Hub, HubConfig, Route};
use forebay_core::worker::{TimeoutConfig, Worker, WorkerConfig};
use mio::Poll;
use tokio::sync::{Notify, oneshot};

use crate::bus::{Bus, BusError};
use crate::clock::Clock;
use crate::config::Config;
use crate::hub::{HubLoop, WorkerQueues};
use crate::listener::{self, Bound, ListenError, Listener};
use crate::memory::Memory;
use crate::metrics::{self, Metrics, MetricsServer, ThreadMetrics};
use crate::observe::ObserveError;
use crate::queue::Queue;
use crate::tls::{Tls, TlsError};
use crate::worker::{Shared, WorkerLoop};

/// Requests that wait for a handler, at most.
const WAITING_REQUESTS_MAX: usize = 10_000;

/// The same in bytes: bodies of req mode, and what the clients of held WebSockets say, may be large.
const WAITING_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of event data that a range brings.
const RANGE_BYTES_MAX: usize = 64 * 1024;

/// Ranges in flight to one feeder.
const RANGES_IN_FLIGHT_MAX: usize = 64;

/// A range or a feed that was not answered goes to another feeder after so long.
const ANSWER_TIMEOUT_MS: u64 = 2_000;

/// A worker asks the hub again for a range after so long: after the hub has tried two feeders.
const RANGE_RETRY_MS: u64 = 5_000;

/// A channel that has lost its last member is followed for so long, so that reconnects find it.
const LINGER_MS: u64 = 10_000;

/// How often [`Edge::drain`] looks whether everybody has left.
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// Why an edge could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port or a path cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// Metrics cannot be served.
    #[error(transparent)]
    Metrics(#[from] ObserveError),
    /// The ZeroMQ sockets cannot be opened.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The system has no thread, no poll or no waker for it.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
    /// The hub's thread ended before it had begun.
    #[error("the hub's thread has ended")]
    HubEnded,
}

/// An edge that serves.
#[derive(Debug)]
pub struct Edge {
    shared: Arc<Shared>,
    queues: Vec<WorkerQueues>,
    workers: Vec<JoinHandle<io::Result<()>>>,
    hub: JoinHandle<()>,
    stop_hub: Arc<Notify>,
    drain_timeout: Duration,
    addresses: Vec<SocketAddr>,
    metrics: Metrics,
    memory: Memory,
    /// For listeners with TLS.
    tls: Option<Tls>,
    /// Answers until the edge has ended.
    _metrics_server: Option<MetricsServer>,
}

impl Edge {
    /// Binds and starts everything. Clients are accepted when it returns.
    ///
    /// # Errors
    /// What cannot be bound or started; what was, is closed again.
    pub fn start(config: &Config) -> Result<Self, StartError> {
        let workers = config.workers.get();
        let metrics = Metrics::new(workers);
        let tls = Tls::start(&config.tls_identities_dir, &config.listen)?;
        let serve = |spec| metrics::serve(spec, metrics.clone());
        let metrics_server = config.prometheus.as_ref().map(serve).transpose()?;
        let bound: Result<Vec<Bound>, ListenError> =
            config.listen.iter().map(listener::bind).collect();
        let bound = bound?;
        let clock = Clock::start();
        let notify = Arc::new(Notify::new());
        let mut polls = Vec::new();
        let mut queues = Vec::new();
        for _ in 0..workers {
            let poll = Poll::new()?;
            let from_hub = Arc::new(Queue::new(WorkerLoop::waker(&poll)?));
            let to_hub = Arc::new(Queue::new(Arc::clone(&notify)));
            queues.push(WorkerQueues { to_hub, from_hub });
            polls.push(poll);
        }
        let stop_hub = Arc::new(Notify::new());
        let signals = (notify, Arc::clone(&stop_hub));
        let hub = start_hub(config, (clock, metrics.hub()), queues.clone(), signals)?;
        let shared = Arc::new(Shared::new(&config.limits));
        let mut edge = Edge {
            shared,
            queues,
            workers: Vec::new(),
            hub,
            stop_hub,
            drain_timeout: config.timeouts.drain,
            addresses: bound.iter().filter_map(Bound::local_addr).collect(),
            metrics,
            memory: Memory::default(),
            tls,
            _metrics_server: metrics_server,
        };
        if let Err(error) = edge.let_in(config, clock, polls, bound) {
            // The first error is the one to tell.
            let _ = edge.stop();
            return Err(error);
        }
        Ok(edge)
    }

    /// Listens, and starts the workers.
    fn let_in(
        &mut self,
        config: &Config,
        clock: Clock,
        polls: Vec<Poll>,
        bound: Vec<Bound>,
    ) -> Result<(), StartError> {
        let mut listeners: Vec<Vec<Listener>> = polls.iter().map(|_| Vec::new()).collect();
        let mut places = Vec::new();
        for (spec, bound) in config.listen.iter().zip(bound) {
            // With the real port where that was left to the system.
            let address = bound.local_addr().map(|address| address.to_string());
            places.push(address.unwrap_or_else(|| spec.to_string()));
            let of_listener = |tls: &Tls| tls.server_config(spec.default_cert());
            let has_tls = |_: &&Tls| spec.tls.is_some();
            let tls = self.tls.as_ref().filter(has_tls).map(of_listener).transpose()?;
            for (worker, listener) in bound.listen(config.workers)?.into_iter().enumerate() {
                listeners[worker].push(listener.with_tls(tls.clone()));
            }
        }
        for (index, (poll, listeners)) in polls.into_iter().zip(listeners).enumerate() {
            self.start_worker(config, clock, index, (poll, listeners))?;
        }
        for place in places {
            tracing::info!("listening on {place}");
        }
        Ok(())
    }

    fn start_worker(
        &mut self,
        config: &Config,
        clock: Clock,
        index: usize,
        (poll, listeners): (Poll, Vec<Listener>),
    ) -> io::Result<()> {
        let worker_config = worker_config(config, index);
        let shared = (Arc::clone(&self.shared), self.metrics.worker(index), clock);
        let queues = self.queues[index].clone();
        // The machine never leaves its thread.
        let run = move || {
            let machine = Worker::new(worker_config, clock.now_ms());
            WorkerLoop::new(poll, listeners, machine, queues, shared)?.run()
        };
        let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(run)?;
        self.workers.push(thread);
        Ok(())
    }

    /// Where TCP clients connect, in the order of the configuration: with the real port where that
    /// was left to the system.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Connections that clients have.
    pub fn connections(&self) -> usize {
        self.shared.connections()
    }

    /// Does what is due from time to time: to be called once a second. Gives memory back to the system when many clients
    /// have left.
    pub fn tend(&self) {
        self.memory.handle_second(self.connections());
    }

    /// Whether a thread of the edge has ended though nobody stopped it.
    pub fn has_failed(&self) -> bool {
        self.hub.is_finished() || self.workers.iter().any(JoinHandle::is_finished)
    }

    /// Ends an edge that has failed. Says what a thread of it ended with.
    pub fn into_failure(self) -> io::Error {
        let closed = || io::Error::other("the ZeroMQ sockets have ended");
        self.stop().err().unwrap_or_else(closed)
    }

    /// Takes no more clients, lets those that are there finish for at most the drain timeout, then
    /// stops. Handlers are told of every session that is cut.
    ///
    /// # Errors
    /// What ended a worker, if one did not end as it should.
    pub fn drain(self) -> io::Result<()> {
        self.shared.is_draining.store(true, Ordering::Release);
        self.wake();
        let until = Instant::now() + self.drain_timeout;
        while !self.is_drained() && Instant::now() < until {
            std::thread::sleep(DRAIN_POLL);
        }
        self.stop()
    }

    /// Whether everybody has left, and nobody can come.
    fn is_drained(&self) -> bool {
        // In that order: a worker counts its last clients before it says that they were the last.
        let deaf_workers = self.shared.deaf_workers.load(Ordering::Acquire);
        (deaf_workers == self.workers.len() || self.has_failed()) && self.connections() == 0
    }

    fn stop(self) -> io::Result<()> {
        self.shared.is_stopping.store(true, Ordering::Release);
        self.wake();
        let mut result = Ok(());
        for worker in self.workers {
            let ended =
                worker.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            result = result.and(ended);
        }
        self.stop_hub.notify_one();
        let hub = self.hub.join().map_err(|_| io::Error::other("the hub panicked"));
        result.and(hub)
    }

    fn wake(&self) {
        for queues in &self.queues {
            crate::queue::Wake::wake(queues.from_hub.waker());
        }
    }
}

/// Opens the bus in the hub's own thread and waits until that has succeeded or failed.
fn start_hub(
    config: &Config,
    shared: (Clock, Arc<ThreadMetrics>),
    queues: Vec<WorkerQueues>,
    signals: (Arc<Notify>, Arc<Notify>),
) -> Result<JoinHandle<()>, StartError> {
    let hub = Hub::new(hub_config(config));
    let bus = config.bus();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (opened, is_open) = oneshot::channel();
    let thread = std::thread::Builder::new().name("hub".into()).spawn(move || {
        runtime.block_on(async move {
            match Bus::open(bus).await {
                Ok(bus) => {
                    // If nobody waits for it, the edge is being stopped, and says so.
                    let _ = opened.send(Ok(()));
                    HubLoop::new(bus, hub, shared, queues, signals).run().await;
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            }
        });
    })?;
    let error = match is_open.blocking_recv() {
        Ok(Ok(())) => return Ok(thread),
        Ok(Err(error)) => error.into(),
        Err(_) => StartError::HubEnded,
    };
    // The files of what had been opened go at the end of the thread, which must not be cut off by that of the process. If
    // it has panicked, that was printed.
    let _ = thread.join();
    Err(error)
}

fn hub_config(config: &Config) -> HubConfig {
    let routes = config.handlers.routes.iter();
    HubConfig {
        instance_id: config.instance_id.as_bytes().into(),
        workers: u16::try_from(config.workers.get()).expect("at most 1024 workers"),
        dispatch: DispatchConfig {
            handler_wait_ms: millis(config.timeouts.handler_wait),
            waiting_requests_max: WAITING_REQUESTS_MAX,
            waiting_bytes_max: WAITING_BYTES_MAX,
            req_group: config.handlers.groups.len(),
            routes: routes.map(|(prefix, group)| Route { prefix: prefix.into(), group }).collect(),
        },
        feeds: FeedsConfig {
            seed: seed(),
            tail_bytes_max: config.limits.tail_bytes,
            tails_bytes_max: config.limits.tail_budget_bytes,
            range_bytes_max: RANGE_BYTES_MAX,
            ranges_in_flight_max: RANGES_IN_FLIGHT_MAX,
            answer_timeout_ms: ANSWER_TIMEOUT_MS,
            linger_ms: LINGER_MS,
        },
    }
}

fn worker_config(config: &Config, index: usize) -> WorkerConfig {
    WorkerConfig {
        index: u16::try_from(index).expect("at most 1024 workers"),
        instance_id: config.instance_id.as_bytes().into(),
        buffer_bytes: u32::try_from(config.limits.buffer_size).expect("at most 8 MiB"),
        body_bytes_max: config.limits.body_buffer_size,
        head: config.limits.head,
        client_backlog_bytes_max: config.limits.client_backlog_max,
        timeouts: TimeoutConfig {
            stream_ms: millis(config.timeouts.stream),
            req_ms: millis(config.timeouts.req),
            ..TimeoutConfig::default()
        },
        compression: config.compression,
        members: MembersConfig { seed: seed(), range_retry_ms: RANGE_RETRY_MS },
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A number that nobody can guess: the standard library's source of them.
fn seed() -> u64 {
    RandomState::new().hash_one(0)
}
