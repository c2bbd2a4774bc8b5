//! What is always true of [`Dispatch`], for tests and the simulation: called after each step.

use std::collections::BTreeMap;

use super::{Dispatch, HandlerId, Stage};
use crate::hub::presence::Presence;

impl Dispatch {
    /// Checks that the tables agree with each other and with what handlers have in flight.
    ///
    /// # Panics
    ///
    /// They do not.
    pub(in crate::hub) fn check_invariants(&self, presence: &Presence) {
        let mut in_flight: BTreeMap<&HandlerId, u32> = BTreeMap::new();
        let mut waiting = 0;
        for (id, stage) in &self.requests {
            match stage {
                Stage::Waiting { place } => {
                    waiting += 1;
                    let entry = self.line.get(*place).expect("who waits has a place");
                    assert_eq!(entry.pending.id, *id, "a place of its own");
                }
                Stage::Given { handler, .. } | Stage::Started { counted: Some(handler), .. } => {
                    *in_flight.entry(handler).or_default() += 1;
                }
                Stage::Started { counted: None, .. } | Stage::Pushed { .. } => {}
            }
        }
        self.line.check_invariants();
        assert_eq!(waiting, self.line.len(), "places belong to requests");
        assert!(waiting <= self.config.waiting_requests_max, "who waits is bounded");
        assert!(self.line.bytes() <= self.config.waiting_bytes_max, "so are their bytes");
        for (handler, count) in presence.in_flight() {
            let known = in_flight.remove(handler).unwrap_or(0);
            assert_eq!(count, known, "requests in flight are counted");
        }
        assert!(in_flight.is_empty(), "requests are with handlers that are there");
    }
}
