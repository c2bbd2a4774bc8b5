//! The workers, as the main thread sees them: it tells them how many connections to open, and sums what they count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};

use mio::{Poll, Waker};

use super::worker::{Order, WAKE, Worker};
use super::{Collected, Plan, Receiver};
use crate::error::LoadError;

/// Stack of a worker; it recurses nowhere.
const STACK_BYTES: usize = 256 << 10;

/// Counters of one worker, which alone writes them.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) open: AtomicU64,
    pub(super) opened: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) dropped: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) events: AtomicU64,
}

impl Tally {
    /// Adds to one of them. Not `fetch_add`: there is one writer.
    pub(super) fn add(counter: &AtomicU64, more: u64) {
        counter.store(counter.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }
}

/// What all workers together have counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Connections that are open now.
    pub(crate) open: u64,
    /// Those that have ever been.
    pub(crate) opened: u64,
    /// Those that did not open.
    pub(crate) failed: u64,
    /// Those that were open, and that the server closed.
    pub(crate) dropped: u64,
    /// Bytes read, all of them: heads and framing too.
    pub(crate) bytes: u64,
    /// What the receivers said that they were.
    pub(crate) events: u64,
}

impl Counts {
    /// Connections of which it is known whether they opened.
    pub(crate) fn settled(&self) -> u64 {
        self.opened + self.failed
    }
}

/// The workers.
#[derive(Debug)]
pub(crate) struct Crew {
    hands: Vec<Hand>,
}

#[derive(Debug)]
struct Hand {
    orders: Sender<Order>,
    waker: Arc<Waker>,
    tally: Arc<Tally>,
    thread: JoinHandle<()>,
}

impl Hand {
    fn order(&self, order: Order) {
        // A worker ends only when it is told to.
        let _ = self.orders.send(order);
        let _ = self.waker.wake();
    }
}

impl Crew {
    /// Starts the workers, each with the receiver that `receiver` makes for it. They open nothing yet.
    ///
    /// # Errors
    /// If the system gives no poll, no thread, or no table of descriptors.
    pub(crate) fn start<R: Receiver>(
        plan: &Plan,
        mut receiver: impl FnMut() -> R,
    ) -> Result<Crew, LoadError> {
        let threads = plan.threads.max(1);
        // All of these before the first thread: a table that parts has what is there in that moment.
        let polls: Vec<Poll> = (0..threads)
            .map(|_| Poll::new().map_err(LoadError::system("a poll cannot be made")))
            .collect::<Result<_, _>>()?;
        let (ready, are_ready) = mpsc::channel();
        let mut hands = Vec::with_capacity(threads);
        for (index, poll) in polls.into_iter().enumerate() {
            let waker = Waker::new(poll.registry(), WAKE);
            let waker = Arc::new(waker.map_err(LoadError::system("a waker cannot be made"))?);
            let tally = Arc::new(Tally::default());
            let (orders, inbox) = mpsc::channel();
            let worker = Worker::new(plan, index, poll, Arc::clone(&tally), receiver());
            let ready = ready.clone();
            let thread = thread::Builder::new()
                .name(format!("load-{index}"))
                .stack_size(STACK_BYTES)
                .spawn(move || worker.run(&inbox, &ready))
                .map_err(LoadError::system("a thread cannot be started"))?;
            hands.push(Hand { orders, waker, tally, thread });
        }
        drop(ready);
        for result in are_ready.iter().take(threads) {
            result
                .map_err(LoadError::system("a thread gets no table of descriptors of its own"))?;
        }
        Ok(Crew { hands })
    }

    /// Has them open connections until they have begun so many, counted from the start.
    pub(crate) fn open(&self, count: u64) {
        let threads = self.hands.len() as u64;
        for (index, hand) in (0..).zip(&self.hands) {
            let share = count / threads + u64::from(index < count % threads);
            hand.order(Order::Open(share));
        }
    }

    /// What they have counted so far.
    pub(crate) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for Hand { tally, .. } in &self.hands {
            let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            counts.open += read(&tally.open);
            counts.opened += read(&tally.opened);
            counts.failed += read(&tally.failed);
            counts.dropped += read(&tally.dropped);
            counts.bytes += read(&tally.bytes);
            counts.events += read(&tally.events);
        }
        counts
    }

    /// Takes from them what they know beyond that, and has their receivers flush.
    pub(crate) fn collect(&self) -> Collected {
        let (sender, answers) = mpsc::channel();
        for hand in &self.hands {
            hand.order(Order::Collect(sender.clone()));
        }
        drop(sender);
        let mut all = Collected::default();
        for one in answers {
            all.merge(one);
        }
        all
    }

    /// Closes all connections, and ends the workers.
    pub(crate) fn stop(self) {
        for hand in &self.hands {
            hand.order(Order::Stop);
        }
        for hand in self.hands {
            // One that has panicked has said so.
            let _ = hand.thread.join();
        }
    }
}
