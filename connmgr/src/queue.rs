//! The queues between the workers and the hub: whole batches go over, with one wake-up for each.
//!
//! A message costs next to nothing, a wake-up tens of microseconds. So a thread collects what it
//! has for another during one turn of its loop and hands it over at the end; the other takes all
//! there is. A sleeper is woken once, and only if it sleeps: the flag for that lies under the same
//! lock as the messages, so that neither can be seen without the other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// The memory of so many messages is kept for the next batch. That of a burst is not: it would stay for good.
const MESSAGES_KEPT_MAX: usize = 256;

/// What wakes the thread that takes from a queue.
pub(crate) trait Wake {
    /// Wakes it; it is asleep, or about to be.
    fn wake(&self);
}

impl Wake for mio::Waker {
    fn wake(&self) {
        // It fails only if the poll is gone, and with it whoever would read.
        let _ = mio::Waker::wake(self);
    }
}

impl Wake for Arc<Notify> {
    fn wake(&self) {
        self.notify_one();
    }
}

#[derive(Debug)]
struct State<T> {
    messages: VecDeque<T>,
    /// The taker sleeps, or is about to.
    is_asleep: bool,
}

/// A queue of one taker.
#[derive(Debug)]
pub(crate) struct Queue<T, W> {
    state: Mutex<State<T>>,
    waker: W,
}

impl<T, W: Wake> Queue<T, W> {
    /// An empty queue whose taker is woken by `waker`.
    pub(crate) fn new(waker: W) -> Self {
        Queue { state: Mutex::new(State { messages: VecDeque::new(), is_asleep: false }), waker }
    }

    /// What wakes the taker.
    pub(crate) fn waker(&self) -> &W {
        &self.waker
    }

    /// Hands a batch over, and leaves it empty. Says how many messages wait now.
    pub(crate) fn put(&self, batch: &mut VecDeque<T>) -> usize {
        let mut state = self.lock();
        hand_over(batch, &mut state.messages);
        let waiting = state.messages.len();
        let wakes = waiting > 0 && std::mem::take(&mut state.is_asleep);
        drop(state);
        if wakes {
            self.waker.wake();
        }
        waiting
    }

    /// Takes all there is, behind what is in `into`.
    pub(crate) fn take(&self, into: &mut VecDeque<T>) {
        hand_over(&mut self.lock().messages, into);
    }

    /// Says whether the taker may sleep: only if nothing waits. From then on it is woken.
    pub(crate) fn may_sleep(&self) -> bool {
        let mut state = self.lock();
        state.is_asleep = state.messages.is_empty();
        state.is_asleep
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        // Nothing in here panics under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Moves all messages behind those that are there already; mostly none are, and then none is copied.
fn hand_over<T>(from: &mut VecDeque<T>, to: &mut VecDeque<T>) {
    if to.is_empty() {
        std::mem::swap(from, to);
        if from.capacity() > MESSAGES_KEPT_MAX {
            *from = VecDeque::new();
        }
    } else {
        to.append(from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_memory_of_a_burst_goes() {
        let queue = Queue::new(Count::default());
        let (mut batch, mut taken) = (VecDeque::new(), VecDeque::new());
        for count in [10_000, 1, 0, 1] {
            batch.extend(0..count);
            assert_eq!(queue.put(&mut batch), count);
            queue.take(&mut taken);
            assert!(taken.drain(..).eq(0..count), "in order");
        }
        let kept = batch.capacity().max(taken.capacity()).max(queue.lock().messages.capacity());
        assert!(kept <= MESSAGES_KEPT_MAX, "{kept}");
    }

    #[test]
    fn a_sleeper_is_woken_once() {
        let queue = Queue::new(Count::default());
        assert_eq!(queue.put(&mut VecDeque::from([1, 2])), 2);
        assert_eq!(queue.waker().0.load(Ordering::Relaxed), 0, "it was awake");
        assert!(!queue.may_sleep());
        let mut taken = VecDeque::new();
        queue.take(&mut taken);
        assert_eq!(taken, [1, 2]);
        assert!(queue.may_sleep());
        assert_eq!(queue.put(&mut VecDeque::new()), 0);
        assert_eq!(queue.waker().0.load(Ordering::Relaxed), 0, "nothing came");
        queue.put(&mut VecDeque::from([3]));
        queue.put(&mut VecDeque::from([4]));
        assert_eq!(queue.waker().0.load(Ordering::Relaxed), 1);
    }
}
