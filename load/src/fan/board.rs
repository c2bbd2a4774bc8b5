//! What the publisher and the subscribers' threads share: the window, and which events are not everywhere yet.
//!
//! An event that was published has a place in a ring, with the number of subscribers who are to get it. Each who does takes one
//! off; the one who takes the last knows that it was the last, and wakes the publisher if that waits. So an event costs one
//! word while it is on its way, and a delivery one compare-and-swap that hardly anybody contends for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mio::Waker;

use crate::caller::Window;

/// Events on their way. With more the oldest are abandoned: nobody is told any more when the last subscriber has them.
const EVENTS_MAX: u64 = 1 << 16;

/// Of a place in the ring, the bits of how many are to get it; the event's number, cut off, is above them.
const COUNT_BITS: u32 = 32;

/// One channel.
#[derive(Debug, Default)]
struct Channel {
    /// Events that were published to it.
    published: AtomicU64,
    /// Subscribers who listen to it.
    listeners: AtomicU64,
}

/// The state that is shared.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) window: Arc<Window>,
    channels: Vec<Channel>,
    /// Places of events by their number.
    ring: Vec<AtomicU64>,
    published: AtomicU64,
    finished: AtomicU64,
    abandoned: AtomicU64,
    /// The publisher wants to know when an event has finished.
    is_awaited: AtomicBool,
    /// Of the publisher; in tests there is none.
    waker: Option<Arc<Waker>>,
}

impl Board {
    pub(super) fn new(channels: u64, waker: Option<Arc<Waker>>) -> Board {
        Board {
            window: Arc::default(),
            channels: (0..channels).map(|_| Channel::default()).collect(),
            ring: (0..EVENTS_MAX).map(|_| AtomicU64::new(0)).collect(),
            published: AtomicU64::new(0),
            finished: AtomicU64::new(0),
            abandoned: AtomicU64::new(0),
            is_awaited: AtomicBool::new(false),
            waker,
        }
    }

    pub(super) fn channels(&self) -> u64 {
        self.channels.len() as u64
    }

    /// The channel that a number belongs to.
    pub(super) fn channel_of(&self, number: u64) -> u64 {
        number % self.channels()
    }

    /// Which of its channel's events it is.
    pub(super) fn index_of(&self, event: u64) -> u64 {
        event / self.channels()
    }

    fn channel(&self, channel: u64) -> &Channel {
        &self.channels[channel as usize]
    }

    /// Events that were published to a channel.
    pub(super) fn published_to(&self, channel: u64) -> u64 {
        self.channel(channel).published.load(Ordering::SeqCst)
    }

    pub(super) fn listeners(&self, channel: u64) -> u64 {
        self.channel(channel).listeners.load(Ordering::SeqCst)
    }

    /// A subscriber listens to a channel.
    pub(super) fn join(&self, channel: u64) {
        self.channel(channel).listeners.fetch_add(1, Ordering::SeqCst);
    }

    /// A subscriber listens no more.
    pub(super) fn leave(&self, channel: u64) {
        self.channel(channel).listeners.fetch_sub(1, Ordering::SeqCst);
    }

    /// All events that were published.
    pub(super) fn published(&self) -> u64 {
        self.published.load(Ordering::SeqCst)
    }

    /// Events that some are still to get.
    pub(super) fn unfinished(&self) -> u64 {
        // Less than nothing for the moment in which somebody leaves to whom the next event is just being published.
        self.published().saturating_sub(self.finished.load(Ordering::SeqCst))
    }

    /// Events that finished without all of their subscribers.
    pub(super) fn abandoned(&self) -> u64 {
        self.abandoned.load(Ordering::SeqCst)
    }

    /// The next event is about to be sent. Only the publisher does that.
    pub(super) fn publish(&self) -> u64 {
        let event = self.published();
        if let Some(old) = event.checked_sub(EVENTS_MAX) {
            self.abandon(old);
        }
        let channel = self.channel(self.channel_of(event));
        let listeners = channel.listeners.load(Ordering::SeqCst);
        self.place(event).store(tag(event) | listeners, Ordering::SeqCst);
        channel.published.fetch_add(1, Ordering::SeqCst);
        self.published.fetch_add(1, Ordering::SeqCst);
        if listeners == 0 {
            self.finished.fetch_add(1, Ordering::SeqCst);
        }
        event
    }

    fn place(&self, event: u64) -> &AtomicU64 {
        &self.ring[(event % EVENTS_MAX) as usize]
    }

    /// One more has an event. Returns whether it was the last.
    pub(super) fn deliver(&self, event: u64) -> bool {
        let take = |place: u64| is_waiting(place, event).then(|| place - 1);
        let before = self.place(event).fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        let is_last = before == Ok(tag(event) | 1);
        if is_last {
            self.finish();
        }
        is_last
    }

    /// Nobody waits for it any more.
    pub(super) fn abandon(&self, event: u64) {
        let give_up = |place: u64| is_waiting(place, event).then_some(tag(event));
        let before = self.place(event).fetch_update(Ordering::SeqCst, Ordering::SeqCst, give_up);
        if before.is_ok() {
            self.abandoned.fetch_add(1, Ordering::SeqCst);
            self.finish();
        }
    }

    /// Abandons all that is on its way.
    pub(super) fn abandon_all(&self) {
        let published = self.published();
        for event in published.saturating_sub(EVENTS_MAX)..published {
            self.abandon(event);
        }
    }

    fn finish(&self) {
        self.finished.fetch_add(1, Ordering::SeqCst);
        if self.is_awaited.load(Ordering::SeqCst)
            && self.is_awaited.swap(false, Ordering::SeqCst)
            && let Some(waker) = &self.waker
        {
            // A publisher that has ended needs no waking.
            let _ = waker.wake();
        }
    }

    /// Has the publisher woken when an event finishes; it must look at [`Board::unfinished`] once more after that.
    pub(super) fn await_finish(&self) {
        self.is_awaited.store(true, Ordering::SeqCst);
    }
}

fn tag(event: u64) -> u64 {
    event << COUNT_BITS
}

/// Whether a place is that of this event, and some are still to get it.
fn is_waiting(place: u64, event: u64) -> bool {
    place ^ tag(event) != 0 && (place ^ tag(event)) >> COUNT_BITS == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_finished_by_the_last_who_gets_it() {
        let board = Board::new(2, None);
        for channel in [0, 1, 0] {
            board.join(channel);
        }
        assert_eq!((board.publish(), board.publish(), board.publish()), (0, 1, 2));
        assert_eq!((board.published_to(0), board.published_to(1)), (2, 1));
        assert_eq!((board.channel_of(2), board.index_of(2)), (0, 1));
        assert!(!board.deliver(2));
        assert!(board.deliver(1));
        assert!(!board.deliver(1), "nobody is left who could get it");
        assert!(board.deliver(2));
        assert_eq!(board.unfinished(), 1);
        board.abandon_all();
        assert_eq!((board.unfinished(), board.abandoned()), (0, 1));
        assert!(!board.deliver(0));
    }

    #[test]
    fn the_ring_goes_round() {
        let board = Board::new(1, None);
        board.join(0);
        for _ in 0..=EVENTS_MAX {
            board.publish();
        }
        assert_eq!((board.unfinished(), board.abandoned()), (EVENTS_MAX, 1));
        assert!(!board.deliver(0), "its place has another");
        assert!(board.deliver(EVENTS_MAX));
        board.leave(0);
        board.publish();
        assert_eq!(board.unfinished(), EVENTS_MAX - 2);
    }
}
