//! Ids that handlers still speak of though nobody here has them: each is answered with one `cancel`
//! a second (hold.md H-20), however often it comes, so that two sides that do not know each other
//! cannot keep each other busy.

use std::collections::{HashSet, VecDeque};

use crate::seeded::Seed;
use crate::session::SessionId;

/// An id is not answered again for so long.
const ANSWER_INTERVAL_MS: u64 = 1_000;

/// Ids that are answered in one interval, at most. A handler that speaks of more is answered when it
/// speaks of them in the next. Costs 64 bytes for each, but only after such a second.
const ANSWERS_PER_INTERVAL_MAX: usize = 16_384;

/// Remembers which ids were answered.
#[derive(Debug)]
pub(super) struct UnknownIds {
    answered: HashSet<SessionId, Seed>,
    /// When each may be answered again, in order.
    expiries: VecDeque<(u64, SessionId)>,
}

impl UnknownIds {
    pub(super) fn new(seed: u64) -> Self {
        UnknownIds { answered: HashSet::with_hasher(Seed(seed)), expiries: VecDeque::new() }
    }

    /// Says whether a packet for this id is to be answered.
    pub(super) fn admit(&mut self, now_ms: u64, id: SessionId) -> bool {
        while let Some((_, expired)) = self.expiries.pop_front_if(|(due, _)| *due <= now_ms) {
            self.answered.remove(&expired);
        }
        let admitted = self.expiries.len() < ANSWERS_PER_INTERVAL_MAX && self.answered.insert(id);
        if admitted {
            self.expiries.push_back((now_ms.saturating_add(ANSWER_INTERVAL_MS), id));
        }
        admitted
    }

    /// Checks that each id that was answered will be forgotten.
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.answered.len(), self.expiries.len(), "an answer expires");
        assert!(self.expiries.len() <= ANSWERS_PER_INTERVAL_MAX, "answers are bounded");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(counter: u64) -> SessionId {
        SessionId { worker: 0, slot: 0, counter }
    }

    #[test]
    fn an_id_is_answered_once_a_second() {
        let mut ids = UnknownIds::new(7);
        assert!(ids.admit(0, id(1)));
        assert!(!ids.admit(999, id(1)));
        assert!(ids.admit(999, id(2)));
        assert!(ids.admit(1_000, id(1)));
        assert!(!ids.admit(1_998, id(2)));
        ids.check_invariants();
    }

    #[test]
    fn answers_are_bounded() {
        let mut ids = UnknownIds::new(7);
        let admitted = (0..20_000).filter(|&counter| ids.admit(5, id(counter))).count();
        assert_eq!(admitted, ANSWERS_PER_INTERVAL_MAX);
        ids.check_invariants();
        assert!(ids.admit(1_005, id(19_999)));
        assert_eq!(ids.expiries.len(), 1);
    }
}
