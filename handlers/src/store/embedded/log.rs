//! A channel's log, without its events' data: which ids are kept, and which comes next.
//!
//! Offsets have no holes, so the ids that a log keeps are a few runs, one for each epoch that is
//! not trimmed away; most logs have one. That is small enough to be in memory for every channel,
//! and to be written with every event, so that the writer reads nothing from the disk, and a
//! reader finds head, oldest event and the bounds of its scan in one record.

use std::collections::VecDeque;

use zhttp::Cursor;

use crate::store::Head;

/// Kept events of one epoch: offsets `first..=last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) epoch: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    /// The predecessor of the epoch's offset 1.
    pub(super) prev: Cursor,
}

impl Run {
    fn oldest_prev(&self) -> Cursor {
        if self.first == 1 { self.prev } else { Cursor::new(self.epoch, self.first - 1) }
    }
}

/// A log. It always has at least one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Log {
    /// The first epoch that it ever had.
    pub(super) born: u64,
    /// Whether the newest event is an END.
    pub(super) ended: bool,
    /// When it is over, in milliseconds since 1970.
    pub(super) expires_ms: u64,
    /// Whether events behind the newest one may have been lost. Then the log goes on in a new epoch,
    /// so that no id is used twice. Not on disk: what is read from there says whether it may be so.
    pub(super) torn: bool,
    /// Oldest first; never empty.
    pub(super) runs: VecDeque<Run>,
}

impl Log {
    /// A new log, with its first event.
    pub(super) fn new(epoch: u64, ended: bool) -> Self {
        let run = Run { epoch, first: 1, last: 1, prev: Cursor::START };
        Log { born: epoch, ended, expires_ms: 0, torn: false, runs: VecDeque::from([run]) }
    }

    fn newest(&self) -> &Run {
        self.runs.back().expect("a log has at least one run")
    }

    fn oldest(&self) -> &Run {
        self.runs.front().expect("a log has at least one run")
    }

    /// The id of the newest event.
    pub(super) fn head_id(&self) -> Cursor {
        Cursor::new(self.newest().epoch, self.newest().last)
    }

    /// The predecessor of the newest event.
    pub(super) fn head_prev(&self) -> Cursor {
        let Run { epoch, last, prev, .. } = *self.newest();
        if last == 1 { prev } else { Cursor::new(epoch, last - 1) }
    }

    pub(super) fn head(&self) -> Head {
        let oldest_prev = self.oldest().oldest_prev();
        Head { id: self.head_id(), ended: self.ended, oldest_prev }
    }

    /// Adds an event. After an END, or where events may have been lost, it begins an epoch, which is
    /// the clock's `now_ms` if that is larger than the last one.
    pub(super) fn push(&mut self, now_ms: u64, end: bool) {
        let head = self.head_id();
        if self.ended || self.torn {
            let epoch = now_ms.max(head.epoch + 1);
            self.runs.push_back(Run { epoch, first: 1, last: 1, prev: head });
        } else {
            self.runs.back_mut().expect("a log has at least one run").last += 1;
        }
        self.ended = end;
        self.torn = false;
    }

    /// Drops the oldest events until `events_max` are left, at least one; returns their ids.
    pub(super) fn trim(&mut self, events_max: u64) -> Vec<Cursor> {
        let mut len: u64 = self.runs.iter().map(|run| run.last - run.first + 1).sum();
        let mut dropped = Vec::new();
        while len > events_max.max(1) {
            let run = self.runs.front_mut().expect("a log has at least one run");
            dropped.push(Cursor::new(run.epoch, run.first));
            run.first += 1;
            len -= 1;
            if run.first > run.last {
                self.runs.pop_front();
            }
        }
        dropped
    }

    /// The ids of all events that are kept.
    pub(super) fn ids(&self) -> impl Iterator<Item = Cursor> {
        self.runs
            .iter()
            .flat_map(|run| (run.first..=run.last).map(|offset| Cursor::new(run.epoch, offset)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    /// The same in the plainest way: every kept event with its predecessor.
    struct Oracle {
        events: Vec<(Cursor, Cursor)>,
        ended: bool,
    }

    #[test]
    fn a_torn_log_goes_on_in_a_new_epoch() {
        let mut log = Log::new(100, false);
        log.push(100, false);
        log.torn = true;
        log.push(90, false);
        assert_eq!((log.head_id(), log.head_prev()), (Cursor::new(101, 1), Cursor::new(100, 2)));
        log.push(120, false);
        assert_eq!(log.head_id(), Cursor::new(101, 2));
        assert_eq!(log.ids().count(), 4);
    }

    proptest! {
        #[test]
        fn a_log_is_what_a_list_of_its_events_is(
            steps in proptest::collection::vec((any::<bool>(), 0u64..20, 1u64..8), 1..60)
        ) {
            let mut log = Log::new(100, false);
            let mut oracle = Oracle { events: vec![(Cursor::new(100, 1), Cursor::START)], ended: false };
            let mut now_ms = 100;
            for (end, passed_ms, events_max) in steps {
                now_ms += passed_ms;
                let (head, _) = *oracle.events.last().unwrap();
                let id = if oracle.ended {
                    Cursor::new(now_ms.max(head.epoch + 1), 1)
                } else {
                    head.plus(1)
                };
                oracle.events.push((id, head));
                oracle.ended = end;
                let excess = oracle.events.len().saturating_sub(events_max as usize);
                let trimmed: Vec<Cursor> = oracle.events.drain(..excess).map(|event| event.0).collect();

                log.push(now_ms, end);
                prop_assert_eq!(log.head_prev(), head);
                prop_assert_eq!(log.trim(events_max), trimmed);
                let ids: Vec<Cursor> = oracle.events.iter().map(|event| event.0).collect();
                prop_assert_eq!(log.ids().collect::<Vec<_>>(), ids);
                let oldest_prev = oracle.events[0].1;
                prop_assert_eq!(log.head(), Head { id, ended: end, oldest_prev });
            }
        }
    }
}
