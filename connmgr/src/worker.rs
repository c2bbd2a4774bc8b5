//! A worker's thread: turns mio and the [`Worker`] machine.
//!
//! One turn: wait for sockets, the hub or a deadline; read what came, at most
//! [`READS_PER_TURN`] times for a connection, and with few steps of TLS handshakes, which take time; pass
//! on what the hub said; let time pass; write a slice of what waits for those who take bytes again; deliver
//! a slice of the events that are due; do what the machine says; hand the hub its batch. Sockets are watched
//! edge-triggered, both ways, from accept to close, so that an idle connection costs no system call.
//!
//! Slices are of bytes, as copying them is what takes the time: when a thousand slow clients read on at
//! once there are 64 MiB to be written, and events for all others must not wait behind them.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use forebay_core::Key;
use forebay_core::worker::{Mode, Output, Worker};
use mio::event::Event;
use mio::{Events, Interest, Poll, Token};

use crate::clock::Clock;
use crate::config::Limits;
use crate::hub::WorkerQueues;
use crate::listener::{AcceptError, BACKLOG, Listener};
use crate::log::OncePerSecond;
use crate::metrics::ThreadMetrics;
use crate::sockets::{ReadOutcome, Sockets};

/// Socket events of one turn.
const EVENTS_PER_TURN: usize = 1024;

/// Bytes of one read.
const READ_BYTES: usize = 64 * 1024;

/// Reads of one connection in one turn; what is left is read in the next.
const READS_PER_TURN: usize = 8;

/// Connections accepted in one turn by each listener: less than a millisecond.
const ACCEPTS_PER_TURN: usize = 64;

/// Writes of events in one turn: a quarter of a millisecond, after which it is looked at what came meanwhile. An event of a
/// small channel waits for no more than this while a large one is served. (Large writes are fewer: the machine counts their
/// bytes.)
const DELIVERIES_PER_TURN: usize = 32;

/// Bytes that are written in one turn to connections that take bytes again, and what the last of them takes more: less
/// than a millisecond, at the default `--client-backlog-max`. The others wait for the next one.
const FLUSHED_BYTES_PER_TURN: u64 = 128 * 1024;

/// When so much came of what clients sent in one turn, the rest of it is read in the next: 8 MiB of bodies, at the
/// default `--buffer-size`.
const OUTPUTS_PER_TURN: usize = 1024;

/// Messages that may wait for the hub. Beyond it no client is read from until it has caught up.
const TO_HUB_MAX: usize = 2048;

/// When accepting was paused for want of descriptors, it is tried again after so long.
const ACCEPT_PAUSE_MS: u64 = 100;

/// When the edge has as many connections as it may, a worker whose clients wait looks again after so
/// long: another one may have lost some.
const FULL_PAUSE_MS: u64 = 50;

/// How long a worker waits before it looks again whether the hub has caught up.
const CONGESTED_WAIT: Duration = Duration::from_millis(1);

/// The token of the waker; those of listeners are below it, those of connections far below.
const WAKER: Token = Token(usize::MAX);

/// What the threads of an edge share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// The edge takes no more clients and sends those that it has away.
    pub(crate) is_draining: AtomicBool,
    /// The edge stops now.
    pub(crate) is_stopping: AtomicBool,
    /// Connections in stream mode, and how many there may be.
    stream: Places,
    /// The same in req mode.
    req: Places,
    /// Workers that have taken their last client.
    pub(crate) deaf_workers: AtomicUsize,
}

/// Places for connections of all workers.
#[derive(Debug, Default)]
struct Places {
    /// Those that are taken, also for who is just being accepted.
    taken: AtomicUsize,
    max: usize,
}

impl Places {
    fn new(max: usize) -> Self {
        Places { taken: AtomicUsize::new(0), max }
    }

    /// Takes one more, if there is one.
    fn reserve(&self) -> bool {
        let one_more = |taken| (taken < self.max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).is_ok()
    }

    /// Gives some back.
    fn release(&self, count: usize) {
        self.taken.fetch_sub(count, Ordering::AcqRel);
    }
}

impl Shared {
    /// For an edge that may have so many connections.
    pub(crate) fn new(limits: &Limits) -> Self {
        Shared {
            stream: Places::new(limits.stream_maxconn),
            req: Places::new(limits.req_maxconn),
            ..Shared::default()
        }
    }

    /// Connections of all workers.
    pub(crate) fn connections(&self) -> usize {
        let taken = |places: &Places| places.taken.load(Ordering::Acquire);
        taken(&self.stream) + taken(&self.req)
    }

    fn places(&self, mode: Mode) -> &Places {
        match mode {
            Mode::Stream => &self.stream,
            Mode::Req => &self.req,
        }
    }
}

/// Whether a listener has clients for us.
#[derive(Clone, Copy, Debug, Default)]
struct Acceptance {
    /// It may have more.
    is_ready: bool,
    /// They wait until then: there was no place, or no descriptor.
    paused_until_ms: u64,
}

/// The shell around the machine.
pub(crate) struct WorkerLoop {
    poll: Poll,
    listeners: Vec<Listener>,
    machine: Worker,
    sockets: Sockets,
    queues: WorkerQueues,
    shared: Arc<Shared>,
    metrics: Arc<ThreadMetrics>,
    clock: Clock,
    to_hub: VecDeque<forebay_core::hub::ToHub>,
    from_hub: VecDeque<forebay_core::hub::FromHub>,
    /// Connections that may be read without waiting for the socket to say so.
    readable: VecDeque<Key>,
    /// Connections whose TLS handshake has something to go on with, in the order in which they came.
    handshakes: VecDeque<Key>,
    /// Connections that take bytes again, each once.
    writable: VecDeque<Key>,
    /// By listener.
    acceptances: Vec<Acceptance>,
    is_congested: bool,
    is_draining: bool,
    has_work: bool,
    /// Places that are taken here, in stream and in req mode.
    counted_stream: usize,
    counted_req: usize,
    date_s: u64,
    buffer: Box<[u8]>,
    accept_pauses: OncePerSecond,
    refusals: OncePerSecond,
}

impl WorkerLoop {
    /// A worker that serves these listeners. `poll` is the one that wakes by the queue's waker.
    ///
    /// # Errors
    /// If the listeners cannot be watched.
    pub(crate) fn new(
        poll: Poll,
        mut listeners: Vec<Listener>,
        machine: Worker,
        queues: WorkerQueues,
        (shared, metrics, clock): (Arc<Shared>, Arc<ThreadMetrics>, Clock),
    ) -> io::Result<Self> {
        for (index, listener) in listeners.iter_mut().enumerate() {
            poll.registry().register(listener, listener_token(index), Interest::READABLE)?;
        }
        Ok(WorkerLoop {
            acceptances: vec![Acceptance::default(); listeners.len()],
            poll,
            listeners,
            machine,
            sockets: Sockets::default(),
            queues,
            shared,
            metrics,
            clock,
            to_hub: VecDeque::new(),
            from_hub: VecDeque::new(),
            readable: VecDeque::new(),
            handshakes: VecDeque::new(),
            writable: VecDeque::new(),
            is_congested: false,
            is_draining: false,
            has_work: false,
            counted_stream: 0,
            counted_req: 0,
            date_s: 0,
            buffer: vec![0; READ_BYTES].into(),
            accept_pauses: OncePerSecond::default(),
            refusals: OncePerSecond::default(),
        })
    }

    /// The waker of a worker that is to turn with this poll.
    ///
    /// # Errors
    /// If the system has none.
    pub(crate) fn waker(poll: &Poll) -> io::Result<mio::Waker> {
        mio::Waker::new(poll.registry(), WAKER)
    }

    /// Turns until the edge stops.
    ///
    /// # Errors
    /// If sockets cannot be waited for.
    pub(crate) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.shared.is_stopping.load(Ordering::Acquire) {
            let timeout = self.timeout();
            match self.poll.poll(&mut events, timeout) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            for event in &events {
                self.handle_event(event);
            }
            self.turn();
        }
        self.machine.stop(self.clock.now_ms(), &mut self.sockets);
        self.handle_outputs();
        self.queues.to_hub.put(&mut self.to_hub);
        self.count();
        Ok(())
    }

    /// How long nothing is due.
    fn timeout(&self) -> Option<Duration> {
        let has_input = !self.readable.is_empty() || !self.handshakes.is_empty();
        let may_read = has_input && !self.is_congested;
        let is_busy = self.has_work || !self.writable.is_empty() || may_read;
        if is_busy || !self.queues.from_hub.may_sleep() {
            return Some(Duration::ZERO);
        }
        let now_ms = self.clock.now_ms();
        let waiting = self.acceptances.iter().filter(|acceptance| acceptance.is_ready);
        let retries_ms = waiting.map(|acceptance| acceptance.paused_until_ms);
        let deadline_ms = self.machine.next_deadline().into_iter().chain(retries_ms).min();
        let wait = deadline_ms.map(|due| Duration::from_millis(due.saturating_sub(now_ms)));
        if self.is_congested { Some(CONGESTED_WAIT) } else { wait }
    }

    fn handle_event(&mut self, event: &Event) {
        let token = event.token();
        if token == WAKER {
            return;
        }
        let from_top = WAKER.0 - token.0;
        if from_top <= self.listeners.len() {
            self.acceptances[from_top - 1].is_ready = true;
            return;
        }
        let key = Key::from_u64(token.0 as u64);
        if event.is_error() {
            self.machine.handle_error(key);
            return;
        }
        if event.is_writable() && self.sockets.handle_writable(key) {
            self.writable.push_back(key);
        }
        if event.is_read_closed() {
            self.sockets.handle_read_closed(key);
        }
        if event.is_readable() || event.is_read_closed() {
            self.readable.push_back(key);
        }
    }

    fn turn(&mut self) {
        let now_ms = self.clock.now_ms();
        self.set_date();
        self.accept(now_ms);
        if !self.is_congested {
            self.shake_hands(now_ms);
            for _ in 0..self.readable.len() {
                if self.machine.waiting_outputs() >= OUTPUTS_PER_TURN {
                    // The others have their turn first, and the hub tells whether it goes on.
                    break;
                }
                let Some(key) = self.readable.pop_front() else { break };
                self.read(now_ms, key);
            }
        }
        self.queues.from_hub.take(&mut self.from_hub);
        while let Some(message) = self.from_hub.pop_front() {
            if let Err(error) = self.machine.handle_hub(now_ms, &mut self.sockets, &message) {
                self.log_refusal(now_ms, b"", &error.to_string());
            }
        }
        self.machine.handle_timeout(now_ms, &mut self.sockets);
        if self.shared.is_draining.load(Ordering::Acquire) && !self.is_draining {
            self.is_draining = true;
            self.accept_last(now_ms);
            self.stop_listening();
            self.machine.drain(now_ms, &mut self.sockets);
            self.shared.deaf_workers.fetch_add(1, Ordering::AcqRel);
        }
        self.flush(now_ms);
        self.has_work = self.machine.handle_work(now_ms, &mut self.sockets, DELIVERIES_PER_TURN);
        self.handle_outputs();
        self.is_congested = self.queues.to_hub.put(&mut self.to_hub) > TO_HUB_MAX;
        while let Some(refusal) = self.machine.poll_refusal() {
            self.log_refusal(now_ms, &refusal.from, &refusal.why);
        }
        self.count();
        let machine = &self.machine;
        self.metrics.store(&machine.stats(), machine.connections(), machine.holds());
    }

    fn handle_outputs(&mut self) {
        let now_ms = self.clock.now_ms();
        while let Some(output) = self.machine.poll_output(now_ms) {
            match output {
                Output::Hub(message) => self.to_hub.push_back(message),
                Output::Read(key) => self.readable.push_back(key),
                Output::Shutdown(key) => self.sockets.shutdown(key),
                Output::Close(key, reason) => {
                    let worker = self.machine.index();
                    tracing::debug!("connection {worker}-{}: closed, {reason}", key.index);
                    self.sockets.remove(self.poll.registry(), key, reason);
                    // There is a place again, and a descriptor.
                    self.resume_accepting();
                }
            }
        }
    }

    fn flush(&mut self, now_ms: u64) {
        let until_bytes = self.sockets.written_bytes() + FLUSHED_BYTES_PER_TURN;
        while self.sockets.written_bytes() < until_bytes
            && let Some(key) = self.writable.pop_front()
        {
            self.sockets.handle_flushing(key);
            self.machine.handle_writable(now_ms, &mut self.sockets, key);
        }
    }

    /// Goes on with handshakes that had to wait.
    fn shake_hands(&mut self, now_ms: u64) {
        self.sockets.handle_turn();
        while self.sockets.may_shake_hands()
            && let Some(key) = self.handshakes.pop_front()
        {
            self.read(now_ms, key);
        }
    }

    fn read(&mut self, now_ms: u64, key: Key) {
        for _ in 0..READS_PER_TURN {
            let room = self.machine.room(key).min(READ_BYTES);
            if room == 0 {
                // The machine says when there is room again. Until then it does not see the end of
                // what the client sends.
                if self.sockets.is_read_closed(key) {
                    self.machine.handle_read_closed(now_ms, key);
                }
                return;
            }
            match self.sockets.read(key, &mut self.buffer[..room]) {
                ReadOutcome::Bytes(bytes) => {
                    let input = &self.buffer[..bytes];
                    self.machine.handle_input(now_ms, &mut self.sockets, key, input);
                }
                ReadOutcome::Last(bytes) => {
                    let input = &self.buffer[..bytes];
                    self.machine.handle_input(now_ms, &mut self.sockets, key, input);
                    return;
                }
                ReadOutcome::Blocked => return,
                ReadOutcome::Deferred => {
                    self.handshakes.push_back(key);
                    return;
                }
                ReadOutcome::Eof => {
                    self.machine.handle_eof(now_ms, &mut self.sockets, key);
                    return;
                }
                ReadOutcome::Refused(error) => {
                    let worker = self.machine.index();
                    tracing::debug!("connection {worker}-{}: TLS refused, {error}", key.index);
                    self.machine.handle_error(key);
                    return;
                }
                ReadOutcome::Failed => {
                    self.machine.handle_error(key);
                    return;
                }
            }
        }
        self.readable.push_back(key);
    }

    fn accept(&mut self, now_ms: u64) {
        for index in 0..self.listeners.len() {
            let mut budget = ACCEPTS_PER_TURN;
            loop {
                let Acceptance { is_ready, paused_until_ms } = self.acceptances[index];
                if !is_ready || budget == 0 || now_ms < paused_until_ms {
                    break;
                }
                budget -= 1;
                self.accept_one(now_ms, index);
            }
        }
    }

    fn resume_accepting(&mut self) {
        for acceptance in &mut self.acceptances {
            acceptance.paused_until_ms = 0;
        }
    }

    /// Takes those who wait in the backlogs, before these go and take them along.
    fn accept_last(&mut self, now_ms: u64) {
        self.acceptances.fill(Acceptance { is_ready: true, paused_until_ms: 0 });
        for _ in 0..BACKLOG as usize / ACCEPTS_PER_TURN {
            self.accept(now_ms);
        }
    }

    fn accept_one(&mut self, now_ms: u64, index: usize) {
        let mode = self.listeners[index].mode();
        if !self.shared.places(mode).reserve() {
            self.acceptances[index].paused_until_ms = now_ms + FULL_PAUSE_MS;
            return;
        }
        match self.listeners[index].accept() {
            // The machine asks for the address when a request needs it.
            Ok((stream, _)) => {
                match mode {
                    Mode::Stream => self.counted_stream += 1,
                    Mode::Req => self.counted_req += 1,
                }
                let tls = self.listeners[index].tls().cloned();
                let key = self.machine.accept(now_ms, mode, tls.is_some());
                // The ids of its sessions begin so, too.
                let worker = self.machine.index();
                tracing::debug!("connection {worker}-{}: accepted, in {mode} mode", key.index);
                if self.sockets.insert(self.poll.registry(), key, stream, tls).is_err() {
                    self.machine.handle_error(key);
                }
            }
            Err(error) => {
                self.shared.places(mode).release(1);
                self.handle_accept_error(now_ms, index, error);
            }
        }
    }

    fn handle_accept_error(&mut self, now_ms: u64, index: usize, error: AcceptError) {
        match error {
            AcceptError::WouldBlock => self.acceptances[index].is_ready = false,
            AcceptError::Lasting(error) => {
                for acceptance in &mut self.acceptances {
                    acceptance.paused_until_ms = now_ms + ACCEPT_PAUSE_MS;
                }
                if let Some(suppressed) = self.accept_pauses.handle_line(now_ms) {
                    tracing::warn!("accepting is paused: {error} ({suppressed} more)");
                }
            }
            AcceptError::Transient(error) => {
                tracing::debug!("a client left before it was accepted: {error}");
            }
        }
    }

    /// Gives the ports free, for an edge that takes over.
    fn stop_listening(&mut self) {
        for mut listener in self.listeners.drain(..) {
            let _ = self.poll.registry().deregister(&mut listener);
        }
        self.acceptances.clear();
    }

    fn set_date(&mut self) {
        let unix_s = Clock::unix_s();
        if unix_s != self.date_s {
            self.date_s = unix_s;
            self.machine.set_date(&Clock::http_date(unix_s));
        }
    }

    /// Gives back the places of connections that have ended.
    fn count(&mut self) {
        let counts = [(Mode::Stream, &mut self.counted_stream), (Mode::Req, &mut self.counted_req)];
        for (mode, counted) in counts {
            let ended = *counted - self.machine.connections_in(mode);
            if ended > 0 {
                self.shared.places(mode).release(ended);
                *counted -= ended;
            }
        }
    }

    fn log_refusal(&mut self, now_ms: u64, from: &[u8], why: &str) {
        if let Some(suppressed) = self.refusals.handle_line(now_ms) {
            let from = String::from_utf8_lossy(from);
            tracing::warn!("packet from handler {from:?} refused: {why} ({suppressed} more)");
        }
    }
}

fn listener_token(index: usize) -> Token {
    Token(WAKER.0 - 1 - index)
}
