//! Outcomes: what became of each message that somebody wanted to publish.
//!
//! Every message has exactly one, whether it was stored, refused at the door, or lost after a 202
//! that promised nothing else. They are counted in memory by outcome and reason, and what was
//! counted is logged each minute, so that a publisher's "where is my message" has an answer. Counts
//! end with the process; nothing is written to the store yet, so that there is no view over all
//! processes but the sum of their logs.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How often what was counted is logged.
pub const OUTCOMES_LOG_INTERVAL: Duration = Duration::from_secs(60);

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It is in the log, now or since an earlier attempt.
    Accepted,
    /// It came too fast.
    RateLimited,
    /// It, or the request that it came in, was wrong.
    Invalid,
    /// It was good, and is lost for a fault of ours.
    Internal,
}

impl Outcome {
    /// Its name in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Accepted => "accepted",
            Outcome::RateLimited => "rate_limited",
            Outcome::Invalid => "invalid",
            Outcome::Internal => "internal",
        }
    }
}

/// Counters by outcome and reason. Reasons are constants of this program: their number is bounded.
#[derive(Debug, Default)]
pub struct Outcomes {
    counts: Mutex<BTreeMap<(Outcome, &'static str), u64>>,
}

impl Outcomes {
    /// Counts one message.
    pub fn count(&self, outcome: Outcome, reason: &'static str) {
        // A counter is right even if somebody panicked while holding it.
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((outcome, reason)).or_default() += 1;
    }

    /// How many there were so far of each outcome and reason, in order.
    pub fn totals(&self) -> Vec<(Outcome, &'static str, u64)> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(&(outcome, reason), &count)| (outcome, reason, count)).collect()
    }

    /// Logs what was counted in each interval. Never returns.
    pub(crate) async fn log_each_interval(&self) {
        let mut logged = BTreeMap::new();
        loop {
            tokio::time::sleep(OUTCOMES_LOG_INTERVAL).await;
            for (outcome, reason, total) in self.totals() {
                let before = logged.insert((outcome, reason), total).unwrap_or(0);
                if total > before {
                    let (outcome, count) = (outcome.as_str(), total - before);
                    tracing::info!(outcome, reason, count, "outcomes of the last minute");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_once() {
        let outcomes = Outcomes::default();
        outcomes.count(Outcome::Invalid, "json");
        outcomes.count(Outcome::Accepted, "stored");
        outcomes.count(Outcome::Invalid, "json");
        let expected = [(Outcome::Accepted, "stored", 1), (Outcome::Invalid, "json", 2)];
        assert_eq!(outcomes.totals(), expected);
    }
}
