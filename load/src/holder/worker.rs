//! A thread that opens connections and reads them.
//!
//! The poll is edge-triggered and each socket is registered once, for reading and writing, so that a connection costs one
//! `epoll_ctl` in its life. A read that does not fill the buffer has emptied the socket, and the next bytes are a new edge;
//! only where the server has closed too, which is no new edge, is it read on to the end.

use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender, TryRecvError};
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use nix::sched::{CloneFlags, unshare};

use super::connection::{Entry, Opening, State};
use super::crew::Tally;
use super::pace::Pace;
use super::{Collected, Plan, Receiver};
use crate::clock::{self, SECOND_NS};
use crate::error::words;
use crate::wire::Stream;
use crate::wire::frames::{self, CONTROL_BYTES_MAX, Kind};

/// The token of the waker; all others are slots.
pub(super) const WAKE: Token = Token(usize::MAX);

/// Bytes of a read; one buffer for each thread.
const READ_BYTES: usize = 128 << 10;

/// Events of one turn.
const EVENTS_MAX: usize = 1024;

/// Connections of all threads together that are being opened at a time: half of what an edge lets wait.
const IN_FLIGHT_MAX: usize = 2048;

/// After so long a connection that is not open has failed.
const OPEN_TIMEOUT_S: u64 = 30;

/// Between two looks at which have.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// What the main thread wants.
#[derive(Debug)]
pub(super) enum Order {
    /// Open connections until so many were begun.
    Open(u64),
    Collect(Sender<Collected>),
    Stop,
}

/// One thread's share.
pub(super) struct Worker<R> {
    plan: Plan,
    /// Its place among the workers; its connections have the numbers `index`, `index + threads`, and so on.
    index: usize,
    poll: Poll,
    entries: Vec<Entry>,
    /// Connections to be begun, those that were included.
    wanted: usize,
    /// Those that are being opened, and when they began; some have opened since.
    opening: VecDeque<(usize, u64)>,
    in_flight: usize,
    pace: Pace,
    /// Payloads of control frames that have not come whole.
    controls: HashMap<usize, Vec<u8>>,
    /// What is to be written.
    out: Vec<u8>,
    tally: Arc<Tally>,
    collected: Collected,
    receiver: R,
}

impl<R: Receiver> Worker<R> {
    pub(super) fn new(
        plan: &Plan,
        index: usize,
        poll: Poll,
        tally: Arc<Tally>,
        receiver: R,
    ) -> Self {
        let per_s = plan.rate_per_s / plan.threads.max(1) as f64;
        Worker {
            plan: plan.clone(),
            index,
            poll,
            entries: Vec::new(),
            wanted: 0,
            opening: VecDeque::new(),
            in_flight: 0,
            pace: Pace::new(per_s, clock::now_ns()),
            controls: HashMap::new(),
            out: Vec::new(),
            tally,
            collected: Collected::default(),
            receiver,
        }
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self, orders: &mpsc::Receiver<Order>, ready: &Sender<io::Result<()>>) {
        let parted = unshare(CloneFlags::CLONE_FILES).map_err(io::Error::from);
        let is_good = parted.is_ok();
        // The main thread waits for it.
        let _ = ready.send(parted);
        if !is_good {
            return;
        }
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut buffer = vec![0; READ_BYTES];
        while self.handle_orders(orders) {
            let now_ns = clock::now_ns();
            self.open_due(now_ns);
            self.fail_late(now_ns);
            match self.poll.poll(&mut events, self.wait()) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    panic!("a poll that was made well has failed: {error}");
                }
                Ok(()) | Err(_) => {}
            }
            for event in &events {
                if event.token() != WAKE {
                    self.handle_event(event, &mut buffer);
                }
            }
        }
    }

    /// Whether it is to go on.
    fn handle_orders(&mut self, orders: &mpsc::Receiver<Order>) -> bool {
        loop {
            match orders.try_recv() {
                Ok(Order::Open(count)) => {
                    self.wanted = usize::try_from(count).unwrap_or(usize::MAX);
                    // No more than that: a vector that doubles takes half in vain.
                    self.entries.reserve_exact(self.wanted.saturating_sub(self.entries.len()));
                    self.pace.restart(clock::now_ns());
                }
                Ok(Order::Collect(answer)) => {
                    self.receiver.flush();
                    // Who asked may be gone.
                    let _ = answer.send(std::mem::take(&mut self.collected));
                }
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return false,
                Err(TryRecvError::Empty) => return true,
            }
        }
    }

    fn in_flight_max(&self) -> usize {
        (IN_FLIGHT_MAX / self.plan.threads.max(1)).max(4)
    }

    /// How long nothing but the poll brings work.
    fn wait(&self) -> Option<Duration> {
        let is_opening = self.in_flight > 0;
        if self.entries.len() < self.wanted && self.in_flight < self.in_flight_max() {
            return Some(self.pace.wait().max(Duration::from_millis(1)).min(LOOK_INTERVAL));
        }
        is_opening.then_some(LOOK_INTERVAL)
    }

    fn number(&self, slot: usize) -> u64 {
        (self.index + slot * self.plan.threads.max(1)) as u64
    }

    fn open_due(&mut self, now_ns: u64) {
        self.pace.turn(now_ns);
        while self.entries.len() < self.wanted
            && self.in_flight < self.in_flight_max()
            && self.pace.take()
        {
            let slot = self.entries.len();
            let since_ns = clock::now_ns();
            let state = State::Opening(Opening::new(since_ns));
            self.entries.push(Entry { socket: None, state });
            self.opening.push_back((slot, since_ns));
            self.in_flight += 1;
            if let Err(error) = self.connect(slot) {
                self.fail(slot, words(&error));
            }
        }
    }

    fn connect(&mut self, slot: usize) -> io::Result<()> {
        let socket = self.plan.sources.connect(self.number(slot))?;
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut SourceFd(&socket.as_raw_fd()), Token(slot), both)?;
        self.entries[slot].socket = Some(socket);
        Ok(())
    }

    /// Fails those that have been opening for too long.
    fn fail_late(&mut self, now_ns: u64) {
        while let Some((slot, since_ns)) = self.opening.front().copied() {
            let is_opening = matches!(self.entries[slot].state, State::Opening(_));
            if is_opening && now_ns.saturating_sub(since_ns) < OPEN_TIMEOUT_S * SECOND_NS {
                return;
            }
            self.opening.pop_front();
            if let State::Opening(opening) = &self.entries[slot].state {
                self.fail(slot, format!("no {} within {OPEN_TIMEOUT_S} s", opening.waits_for()));
            }
        }
    }

    fn handle_event(&mut self, event: &Event, buffer: &mut [u8]) {
        let slot = event.token().0;
        if event.is_writable() || event.is_error() {
            self.handle_writable(slot);
        }
        if !(event.is_readable() || event.is_read_closed() || event.is_error()) {
            return;
        }
        loop {
            let Some(socket) = &mut self.entries[slot].socket else { return };
            match socket.read(buffer) {
                Ok(0) => return self.close(slot, "closed by the server".to_owned()),
                Ok(len) => {
                    Tally::add(&self.tally.bytes, len as u64);
                    self.handle_bytes(slot, &buffer[..len]);
                    if len < buffer.len() && !event.is_read_closed() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.close(slot, words(&error)),
            }
        }
    }

    /// A connection that was being made is there, or will not be.
    fn handle_writable(&mut self, slot: usize) {
        let number = self.number(slot);
        let entry = &mut self.entries[slot];
        let (Some(socket), State::Opening(opening)) = (&entry.socket, &mut entry.state) else {
            return;
        };
        if !matches!(opening.phase, super::connection::Phase::Connecting) {
            return;
        }
        match socket.take_error() {
            Ok(None) => {}
            Ok(Some(error)) | Err(error) => return self.fail(slot, words(&error)),
        }
        let state = opening.handle_connected(&self.plan.ask, number, &mut self.out);
        self.write(slot);
        if let Some(state) = state {
            self.hold(slot, state);
        }
    }

    fn handle_bytes(&mut self, slot: usize, mut input: &[u8]) {
        let number = self.number(slot);
        if let State::Opening(opening) = &mut self.entries[slot].state {
            match opening.handle_bytes(&self.plan.ask, number, &mut input, &mut self.out) {
                Ok(Some(state)) => self.hold(slot, state),
                Ok(None) => {}
                Err(reason) => return self.fail(slot, reason),
            }
            self.write(slot);
        }
        let now_ns = if input.is_empty() { return } else { clock::now_ns() };
        // Copied out and back in: 24 bytes, so that the receiver and the rest of us can be lent.
        let State::Held(mut stream) = self.entries[slot].state else { return };
        let ended = match &mut stream {
            Stream::Http(body) => loop {
                match body.next(&mut input) {
                    Ok(Some(content)) => self.handle_content(slot, content, now_ns),
                    Ok(None) => break body.is_done().then(|| "the response ended".to_owned()),
                    Err(error) => break Some(error.to_string()),
                }
            },
            Stream::Socket(frames) => self.handle_frames(slot, frames, &mut input, now_ns),
        };
        if let State::Held(held) = &mut self.entries[slot].state {
            *held = stream;
        }
        if let Some(reason) = ended {
            self.close(slot, reason);
        }
    }

    fn handle_content(&mut self, slot: usize, content: &[u8], now_ns: u64) {
        let events = self.receiver.handle_content(slot, content, now_ns);
        Tally::add(&self.tally.events, events);
    }

    /// Reads frames, and answers those that ask for it. Returns why the connection ends, if it does.
    fn handle_frames(
        &mut self,
        slot: usize,
        frames: &mut frames::Frames,
        input: &mut &[u8],
        now_ns: u64,
    ) -> Option<String> {
        loop {
            let piece = match frames.next(input) {
                Ok(Some(piece)) => piece,
                Ok(None) => return None,
                Err(error) => return Some(error.to_string()),
            };
            if piece.kind == Kind::Data {
                if !piece.payload.is_empty() {
                    self.handle_content(slot, piece.payload, now_ns);
                }
                if piece.ends_message {
                    Tally::add(&self.tally.events, self.receiver.handle_message_end(slot));
                }
                continue;
            }
            let mut payload = self.controls.remove(&slot).unwrap_or_default();
            payload.extend_from_slice(piece.payload);
            payload.truncate(CONTROL_BYTES_MAX);
            if !piece.ends_frame {
                self.controls.insert(slot, payload);
                continue;
            }
            if piece.kind == Kind::Pong {
                continue;
            }
            frames::write_answer(piece.kind, &payload, self.number(slot), &mut self.out);
            self.write(slot);
            if piece.kind == Kind::Close {
                let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                let code = code.map_or("no code".to_owned(), |code| code.to_string());
                return Some(format!("closed by the server with {code}"));
            }
        }
    }

    /// Writes what is to be written. It is less than any socket takes that nothing else was written to.
    fn write(&mut self, slot: usize) {
        if self.out.is_empty() {
            return;
        }
        let out = std::mem::take(&mut self.out);
        if let Some(socket) = &mut self.entries[slot].socket {
            match socket.write(&out) {
                Ok(len) if len == out.len() => {}
                Ok(_) => self.close(slot, "the socket takes no more".to_owned()),
                Err(error) => self.close(slot, words(&error)),
            }
        }
        self.out = out;
        self.out.clear();
    }

    /// It is open.
    fn hold(&mut self, slot: usize, state: State) {
        let number = self.number(slot);
        let before = std::mem::replace(&mut self.entries[slot].state, state);
        if let State::Opening(opening) = before {
            self.collected.open_time.record(clock::now_ns().saturating_sub(opening.since_ns));
            self.in_flight -= 1;
            Tally::add(&self.tally.open, 1);
            Tally::add(&self.tally.opened, 1);
            self.receiver.handle_open(slot, number);
        } else {
            // What it had to say could not be written.
            self.entries[slot].state = before;
        }
    }

    /// It will not open.
    fn fail(&mut self, slot: usize, reason: String) {
        let entry = &mut self.entries[slot];
        entry.socket = None;
        entry.state = State::Closed;
        self.in_flight -= 1;
        Tally::add(&self.tally.failed, 1);
        *self.collected.failures.entry(reason).or_default() += 1;
    }

    /// The one way in which a connection ends that the server or the network has ended.
    fn close(&mut self, slot: usize, reason: String) {
        match &self.entries[slot].state {
            State::Opening(opening) => {
                let waits_for = opening.waits_for();
                self.fail(slot, format!("{reason} before the {waits_for}"));
            }
            State::Held(_) | State::Idle => {
                self.entries[slot] = Entry { socket: None, state: State::Closed };
                let open = self.tally.open.load(Ordering::Relaxed);
                self.tally.open.store(open.saturating_sub(1), Ordering::Relaxed);
                Tally::add(&self.tally.dropped, 1);
                *self.collected.drops.entry(reason).or_default() += 1;
                self.controls.remove(&slot);
                self.receiver.handle_close(slot);
            }
            State::Closed => {}
        }
    }
}
