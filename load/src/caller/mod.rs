//! Sends requests over connections that stay open, and awaits the answers.
//!
//! A [`Source`] says what is sent and when; a [`worker`] has the connections and the poll. So publishing in a closed loop, at
//! a rate, or as others have got what was published, is the same code with another source.

mod exchange;
mod pace;
mod worker;

pub(crate) use self::pace::Pace;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use mio::{Poll, Waker};

use crate::error::LoadError;
use crate::histogram::Histogram;
use crate::report::{Figure, Report};
use crate::wire::request::Target;

/// Where requests come from. Each worker has one, on its own thread.
pub(crate) trait Source: Send + 'static {
    /// Writes the next request behind `out`, if one is to be sent now.
    fn next(&mut self, now_ns: u64, out: &mut Vec<u8>) -> Next;

    /// A piece of an answer's content has come.
    fn handle_content(&mut self, _tag: u64, _content: &[u8]) {}

    /// An answer has come, all of it; without a status if none will come.
    fn handle_answer(&mut self, _tag: u64, _status: Option<u16>) {}
}

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The request that was written. Its answer comes with this tag, and its time counts from this moment.
    Request { tag: u64, due_ns: u64 },
    /// Nothing before this moment, or before an answer comes or the waker is called.
    At(u64),
    /// Nothing any more.
    End,
}

/// The time in which things are measured. The main thread sets it while others work.
#[derive(Debug)]
pub(crate) struct Window {
    begin_ns: AtomicU64,
    end_ns: AtomicU64,
}

impl Default for Window {
    /// One that has not begun.
    fn default() -> Self {
        Window { begin_ns: AtomicU64::new(u64::MAX), end_ns: AtomicU64::new(u64::MAX) }
    }
}

impl Window {
    pub(crate) fn begin(&self, now_ns: u64) {
        self.begin_ns.store(now_ns, Ordering::SeqCst);
    }

    pub(crate) fn end(&self, now_ns: u64) {
        self.end_ns.store(now_ns, Ordering::SeqCst);
    }

    /// Whether it was measured at this moment.
    pub(crate) fn contains(&self, now_ns: u64) -> bool {
        now_ns >= self.begin_ns.load(Ordering::Relaxed) && !self.is_over(now_ns)
    }

    pub(crate) fn is_over(&self, now_ns: u64) -> bool {
        now_ns >= self.end_ns.load(Ordering::Relaxed)
    }
}

/// Where requests go.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) target: Target,
    /// Connections of this worker.
    pub(crate) connections: usize,
    /// Requests that a connection has without an answer.
    pub(crate) pipeline: usize,
    pub(crate) window: Arc<Window>,
}

/// What became of the requests. All but what failed is of the measured window.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) latency: Histogram,
    pub(crate) statuses: BTreeMap<u16, u64>,
    pub(crate) read_bytes: u64,
    /// Connections that were made anew because the server had closed them.
    pub(crate) reconnects: u64,
    /// Why requests have no answer.
    pub(crate) failures: BTreeMap<String, u64>,
}

impl Stats {
    pub(crate) fn merge(&mut self, other: &Stats) {
        self.latency.merge(&other.latency);
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        for (reason, count) in &other.failures {
            *self.failures.entry(reason.clone()).or_default() += count;
        }
        self.read_bytes += other.read_bytes;
        self.reconnects += other.reconnects;
    }

    /// Answers that came.
    pub(crate) fn answers(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Answers that were good.
    pub(crate) fn good(&self) -> u64 {
        self.statuses.range(200..300).map(|(_, count)| count).sum()
    }

    /// Why requests were in vain, answers that refuse them included, and how many.
    pub(crate) fn reasons(&self) -> BTreeMap<String, u64> {
        let mut reasons = self.failures.clone();
        for (status, count) in self.statuses.range(400..) {
            reasons.insert(format!("status {status}"), *count);
        }
        reasons
    }

    /// Adds answers by status, failures and reconnects.
    pub(crate) fn tell(&self, report: &mut Report) {
        let statuses = self.statuses.iter().map(|(status, count)| (status.to_string(), *count));
        report.add("statuses", Figure::Counts(statuses.collect()));
        report.count("failed", self.failures.values().sum());
        report.count("reconnects", self.reconnects);
    }
}

/// The poll of a worker that is still to be started, and what wakes it. Whoever wakes it from a thread with a descriptor table
/// of its own must have been started when this was there: the waker is a descriptor, and such a thread has only those that were
/// open before.
#[derive(Debug)]
pub(crate) struct Door {
    poll: Poll,
    pub(crate) waker: Arc<Waker>,
}

impl Door {
    /// # Errors
    /// If the system gives no poll.
    pub(crate) fn new() -> Result<Door, LoadError> {
        let poll = Poll::new().map_err(LoadError::system("a poll cannot be made"))?;
        let waker = Waker::new(poll.registry(), worker::WAKE);
        let waker = Arc::new(waker.map_err(LoadError::system("a waker cannot be made"))?);
        Ok(Door { poll, waker })
    }
}

/// A worker that was started.
#[derive(Debug)]
pub(crate) struct Caller<S> {
    thread: JoinHandle<(Stats, S)>,
    answered: Arc<AtomicU64>,
}

impl<S: Source> Caller<S> {
    /// Opens the connections and starts to send.
    ///
    /// # Errors
    /// If a connection cannot be made.
    pub(crate) fn start(
        door: Door,
        plan: Plan,
        name: &str,
        source: S,
    ) -> Result<Caller<S>, LoadError> {
        let answered = Arc::new(AtomicU64::new(0));
        let mut worker = worker::Worker::new(plan, door, source, Arc::clone(&answered))?;
        let (ready, is_ready) = mpsc::channel();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            let opened = worker.open();
            let is_good = opened.is_ok();
            // The main thread waits for it.
            let _ = ready.send(opened);
            if is_good {
                worker.run();
            }
            worker.into_parts()
        });
        let thread = thread.map_err(LoadError::system("a thread cannot be started"))?;
        match is_ready.recv() {
            Ok(Ok(())) => Ok(Caller { thread, answered }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(LoadError::Failed("a thread has ended before its time".to_owned())),
        }
    }

    /// Requests that were answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Whether it has ended by itself.
    pub(crate) fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end, which its source or the window brings about.
    ///
    /// # Errors
    /// If it has panicked: our bug.
    pub(crate) fn join(self) -> Result<(Stats, S), LoadError> {
        let ended = self.thread.join();
        ended.map_err(|_| LoadError::Failed("a thread of the generator has panicked".to_owned()))
    }
}
