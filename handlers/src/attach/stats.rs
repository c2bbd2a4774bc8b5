//! What an attachment has counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A snapshot for metrics; see [`Attached::stats`](super::Attached::stats).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachStats {
    /// Edges that are connected.
    pub links_up: u64,
    /// Requests that have come and were not answered to the end. A `message`, with what the client
    /// of a held WebSocket says, is one here, and wherever it is not said otherwise.
    pub requests_in_flight: u64,
    /// Requests that have come, without messages.
    pub requests_total: u64,
    /// Messages that have come.
    pub messages_total: u64,
    /// Requests that were refused, as too many were in flight; and messages whose answer found no
    /// room.
    pub requests_refused_total: u64,
    /// Requests whose service panicked.
    pub requests_panicked_total: u64,
    /// Requests whose client or edge left before the end of the answer.
    pub requests_gone_total: u64,
    /// `feed`, `unfeed` and `range` packets that found the queue full.
    pub feed_requests_dropped_total: u64,
    /// Packets that could not be read, or that broke a rule of their session.
    pub packets_bad_total: u64,
}

/// A number that goes up, and perhaps down. Nothing else is published by it, so no order is needed.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, count: u64) {
        self.0.fetch_sub(count, Ordering::Relaxed);
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) links_up: Counter,
    requests_in_flight: Counter,
    pub(super) requests: Counter,
    pub(super) messages: Counter,
    pub(super) requests_refused: Counter,
    pub(super) requests_panicked: Counter,
    pub(super) requests_gone: Counter,
    pub(super) feed_requests_dropped: Counter,
    pub(super) packets_bad: Counter,
}

impl Counters {
    pub(super) fn snapshot(&self) -> AttachStats {
        AttachStats {
            links_up: self.links_up.value(),
            requests_in_flight: self.requests_in_flight.value(),
            requests_total: self.requests.value(),
            messages_total: self.messages.value(),
            requests_refused_total: self.requests_refused.value(),
            requests_panicked_total: self.requests_panicked.value(),
            requests_gone_total: self.requests_gone.value(),
            feed_requests_dropped_total: self.feed_requests_dropped.value(),
            packets_bad_total: self.packets_bad.value(),
        }
    }
}

/// A place among the requests in flight. Given back when dropped, however its request ends.
#[derive(Debug)]
pub(super) struct Ticket(Arc<Counters>);

impl Ticket {
    /// Takes a place, unless `max` are taken.
    pub(super) fn take(counters: &Arc<Counters>, max: u64) -> Option<Ticket> {
        let Counter(in_flight) = &counters.requests_in_flight;
        let one_more = |taken: u64| (taken < max).then_some(taken + 1);
        in_flight.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok()?;
        Some(Ticket(Arc::clone(counters)))
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.0.requests_in_flight.subtract(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_are_counted_and_given_back() {
        let counters = Arc::new(Counters::default());
        let first = Ticket::take(&counters, 2);
        let second = Ticket::take(&counters, 2);
        assert!(first.is_some() && second.is_some());
        assert!(Ticket::take(&counters, 2).is_none());
        drop(first);
        assert_eq!(counters.snapshot().requests_in_flight, 1);
        assert!(Ticket::take(&counters, 2).is_some());
    }
}
