//! A thread with connections, which sends what its source says and times the answers.
//!
//! Connections that may send stand in a queue; the one that has waited longest sends next. A timer with the resolution of the
//! kernel says when the source is to be asked again: a poll alone counts in milliseconds, which would send in bursts.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Events, Interest, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use super::exchange::{Awaited, Exchange, Part};
use super::{Door, Next, Plan, Source, Stats};
use crate::clock::{self, SECOND_NS};
use crate::error::{LoadError, words};

/// Whoever has the source's waker calls by this.
pub(super) const WAKE: Token = Token(usize::MAX);

const TIMER: Token = Token(usize::MAX - 1);

/// Bytes of a read.
const READ_BYTES: usize = 128 << 10;

/// Events of one turn.
const EVENTS_MAX: usize = 1024;

/// How long a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long answers are awaited when nothing is sent any more.
const LAST_ANSWER_NS: u64 = 5 * SECOND_NS;

/// Connections of one worker.
pub(super) struct Worker<S> {
    plan: Plan,
    door: Door,
    timer: TimerFd,
    /// What the timer is set to.
    alarm_ns: u64,
    exchanges: Vec<Exchange>,
    /// Those that may send.
    queue: VecDeque<usize>,
    source: S,
    /// Since when nothing is sent any more.
    ended_ns: Option<u64>,
    stats: Stats,
    answered: Arc<AtomicU64>,
}

impl<S: Source> Worker<S> {
    pub(super) fn new(
        plan: Plan,
        door: Door,
        source: S,
        answered: Arc<AtomicU64>,
    ) -> Result<Self, LoadError> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)
            .map_err(LoadError::system("a timer cannot be made"))?;
        let raw = timer.as_fd().as_raw_fd();
        let registered =
            door.poll.registry().register(&mut SourceFd(&raw), TIMER, Interest::READABLE);
        registered.map_err(LoadError::system("a timer cannot be awaited"))?;
        Ok(Worker {
            plan,
            door,
            timer,
            alarm_ns: 0,
            exchanges: Vec::new(),
            queue: VecDeque::new(),
            source,
            ended_ns: None,
            stats: Stats::default(),
            answered,
        })
    }

    /// Makes the connections.
    ///
    /// # Errors
    /// If the server does not take one.
    pub(super) fn open(&mut self) -> Result<(), LoadError> {
        for index in 0..self.plan.connections {
            let socket = self.connect(index).map_err(|reason| {
                let (of, host) = (self.plan.connections, &self.plan.target.host);
                LoadError::Failed(format!("connection {} of {of} to {host}: {reason}", index + 1))
            })?;
            self.exchanges.push(Exchange::new(socket));
            self.enqueue(index);
        }
        Ok(())
    }

    fn connect(&self, index: usize) -> Result<TcpStream, String> {
        let connect = || {
            let socket = TcpStream::connect_timeout(&self.plan.target.address, CONNECT_TIMEOUT)?;
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let both = Interest::READABLE | Interest::WRITABLE;
            let raw = socket.as_raw_fd();
            self.door.poll.registry().register(&mut SourceFd(&raw), Token(index), both)?;
            Ok(socket)
        };
        connect().map_err(|error| words(&error))
    }

    /// Sends and awaits until the source has ended, and the last answer has come.
    pub(super) fn run(&mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            self.send_due();
            if let Some(ended_ns) = self.ended_ns {
                let is_awaiting = self.exchanges.iter().any(|one| !one.awaited.is_empty());
                if !is_awaiting {
                    return;
                }
                if clock::now_ns().saturating_sub(ended_ns) > LAST_ANSWER_NS {
                    self.give_up();
                    return;
                }
            }
            // The end of the window, too, is looked at by whoever sends next.
            match self.door.poll.poll(&mut events, Some(Duration::from_millis(100))) {
                Err(error) if error.kind() != ErrorKind::Interrupted => {
                    *self.stats.failures.entry(words(&error)).or_default() += 1;
                    return;
                }
                Ok(()) | Err(_) => {}
            }
            for event in &events {
                if event.token() != WAKE && event.token() != TIMER {
                    self.handle_event(event, &mut buffer);
                }
            }
        }
    }

    pub(super) fn into_parts(self) -> (Stats, S) {
        (self.stats, self.source)
    }

    fn enqueue(&mut self, index: usize) {
        let exchange = &mut self.exchanges[index];
        if !exchange.is_queued && exchange.awaited.len() < self.plan.pipeline {
            exchange.is_queued = true;
            self.queue.push_back(index);
        }
    }

    /// Sends what is due now.
    fn send_due(&mut self) {
        while self.ended_ns.is_none() {
            let Some(index) = self.queue.front().copied() else { return };
            let exchange = &mut self.exchanges[index];
            let mut next = None;
            while exchange.awaited.len() < self.plan.pipeline {
                let now_ns = clock::now_ns();
                match self.source.next(now_ns, &mut exchange.unsent) {
                    Next::Request { tag, due_ns } => {
                        exchange.awaited.push_back(Awaited { tag, due_ns });
                    }
                    wait @ (Next::At(_) | Next::End) => {
                        next = Some(wait);
                        break;
                    }
                }
            }
            if next.is_none() {
                exchange.is_queued = false;
                self.queue.pop_front();
            }
            self.write(index);
            match next {
                Some(Next::At(at_ns)) => return self.set_alarm(at_ns),
                Some(Next::End) => self.ended_ns = Some(clock::now_ns()),
                Some(Next::Request { .. }) | None => {}
            }
        }
    }

    fn set_alarm(&mut self, at_ns: u64) {
        if self.alarm_ns == at_ns {
            return;
        }
        self.alarm_ns = at_ns;
        let time = Duration::from_nanos(at_ns);
        let once = Expiration::OneShot(TimeSpec::from_duration(time));
        if let Err(error) = self.timer.set(once, TimerSetTimeFlags::TFD_TIMER_ABSTIME) {
            *self.stats.failures.entry(error.desc().to_owned()).or_default() += 1;
        }
    }

    fn write(&mut self, index: usize) {
        loop {
            let exchange = &mut self.exchanges[index];
            let Some(socket) = &mut exchange.socket else { return };
            if exchange.unsent.is_empty() {
                return;
            }
            match socket.write(&exchange.unsent) {
                Ok(len) => drop(exchange.unsent.drain(..len)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.close(index, &words(&error)),
            }
        }
    }

    fn handle_event(&mut self, event: &Event, buffer: &mut [u8]) {
        let index = event.token().0;
        if event.is_writable() {
            self.write(index);
        }
        loop {
            let Some(socket) = &mut self.exchanges[index].socket else { return };
            match socket.read(buffer) {
                Ok(0) => return self.close(index, "closed before it was answered"),
                Ok(len) => {
                    if !self.handle_bytes(index, &buffer[..len]) {
                        return;
                    }
                    if len < buffer.len() && !event.is_read_closed() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return self.close(index, &words(&error)),
            }
        }
    }

    /// Reads answers. Returns whether the connection is still the same.
    fn handle_bytes(&mut self, index: usize, mut input: &[u8]) -> bool {
        let now_ns = clock::now_ns();
        if self.plan.window.contains(now_ns) {
            self.stats.read_bytes += input.len() as u64;
        }
        loop {
            match self.exchanges[index].next(&mut input) {
                Ok(Some(Part::Content(awaited, content))) => {
                    self.source.handle_content(awaited.tag, content);
                }
                Ok(Some(Part::End { awaited, status, stays })) => {
                    self.handle_answer(awaited, status, now_ns);
                    if !stays {
                        self.close(index, "closed behind the answer to another");
                        return false;
                    }
                    self.enqueue(index);
                }
                Ok(None) => return true,
                Err(reason) => {
                    self.close(index, &reason);
                    return false;
                }
            }
        }
    }

    fn handle_answer(&mut self, awaited: Awaited, status: u16, now_ns: u64) {
        self.source.handle_answer(awaited.tag, Some(status));
        self.answered.store(self.answered.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        if self.plan.window.contains(now_ns) {
            self.stats.latency.record(now_ns.saturating_sub(awaited.due_ns));
            *self.stats.statuses.entry(status).or_default() += 1;
        }
    }

    /// The one way in which a connection ends. It is made again at once, if the server lets it.
    fn close(&mut self, index: usize, reason: &str) {
        if let Some((awaited, status)) = self.exchanges[index].handle_close() {
            self.handle_answer(awaited, status, clock::now_ns());
        }
        self.fail_awaited(index, reason);
        self.exchanges[index].reset(None);
        if self.ended_ns.is_some() {
            return;
        }
        match self.connect(index) {
            Ok(socket) => {
                self.exchanges[index].reset(Some(socket));
                self.stats.reconnects += 1;
                self.enqueue(index);
            }
            Err(reason) => {
                *self.stats.failures.entry(reason).or_default() += 1;
                self.queue.retain(|queued| *queued != index);
                if self.exchanges.iter().all(|one| one.socket.is_none()) {
                    self.ended_ns = Some(clock::now_ns());
                }
            }
        }
    }

    fn fail_awaited(&mut self, index: usize, reason: &str) {
        while let Some(awaited) = self.exchanges[index].awaited.pop_front() {
            *self.stats.failures.entry(reason.to_owned()).or_default() += 1;
            self.source.handle_answer(awaited.tag, None);
        }
    }

    fn give_up(&mut self) {
        for index in 0..self.exchanges.len() {
            self.fail_awaited(index, "no answer within 5 s of the end");
        }
    }
}
