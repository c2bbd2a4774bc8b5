//! Whether the server of a connection is the master still, as far as is known: a lease on writes.
//!
//! A master that Sentinels have replaced doesn't know it: one that was stopped, or cut off, goes on
//! as a master when it is back, until a Sentinel gets to it, which takes ten seconds and more. What is
//! written there meanwhile is thrown away, after it was acknowledged; and its logs lack what the new
//! master has, which looks like a loss and would be told to readers as one.
//!
//! So a write needs a confirmation by the Sentinels that is younger than [`MASTER_LEASE`]. Its age
//! counts from before they were asked, on a clock that goes on while a process is stopped: if it was
//! ours, then all that we know is old when it goes on, and writes wait for the next check.
//!
//! **The window that remains.** The lease is looked at when a write is sent, and again when its answer
//! is there. Hence nothing is acknowledged that a server has written more than [`MASTER_LEASE`] after
//! more than half of all Sentinels named another one. Before they do there is nobody to learn it from; and Redis may
//! lose at each failover what its replicas did not have yet. (A virtual machine that is suspended
//! as a whole stops this clock too. Its first check, at most one interval later, ends that.)
//!
//! Reads need no lease: a replaced master answers with what is old, and true. What is concluded from them that
//! something is *not* there is tried as a write first (`fanout/lost.rs`).

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// How long Sentinels' word is good for writes, from when they were asked.
///
/// Longer than the pause between two checks and the time that one may take together, so that writes
/// never wait while Sentinels answer.
pub(super) const MASTER_LEASE: Duration = Duration::from_secs(1);

/// How often Sentinels are asked whether the master is still the same.
pub(super) const MASTER_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Why Sentinels that answer are not believed.
pub(super) const TOO_FEW: &str = "fewer than half of the Sentinels answer";

/// What is known of the server at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nobody replaces it behind our back.
    Fixed,
    /// Sentinels watch over it.
    Watched {
        /// When they were asked, the last time that more than half of them named it.
        confirmed: Option<Instant>,
        /// When they were asked since then without a result, and what was wrong.
        doubt: Option<(Instant, Arc<str>)>,
    },
}

/// Whether a server may be written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Yes,
    /// What is known is too old, and a check is due or on its way.
    NotYet,
    /// A check has just failed, for this reason.
    No(Arc<str>),
}

impl Standing {
    /// Of a server that Sentinels named when they were asked at that time.
    pub(super) fn confirmed(asked: Instant) -> Self {
        Standing::Watched { confirmed: Some(asked), doubt: None }
    }

    /// Of a server that some Sentinels named then, too few to be sure.
    pub(super) fn unconfirmed(asked: Instant) -> Self {
        Standing::Watched { confirmed: None, doubt: Some((asked, TOO_FEW.into())) }
    }

    /// Sentinels were asked again, with no result.
    pub(super) fn doubt(&mut self, asked: Instant, why: &str) {
        match self {
            Standing::Fixed => {}
            Standing::Watched { doubt, .. } => *doubt = Some((asked, why.into())),
        }
    }

    /// Whether the server may be written to at this time, or what it has just written be believed.
    pub(super) fn verdict(&self, now: Instant) -> Verdict {
        let is_young = |asked: Instant| now.saturating_duration_since(asked) < MASTER_LEASE;
        match self {
            Standing::Fixed => Verdict::Yes,
            Standing::Watched { confirmed: Some(asked), .. } if is_young(*asked) => Verdict::Yes,
            // A failure that is old says nothing either.
            Standing::Watched { doubt: Some((asked, why)), .. } if is_young(*asked) => {
                Verdict::No(Arc::clone(why))
            }
            Standing::Watched { .. } => Verdict::NotYet,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(1);

    #[test]
    fn a_confirmation_is_good_for_the_lease_and_no_longer() {
        let start = Instant::now();
        let standing = Standing::confirmed(start);
        assert_eq!(standing.verdict(start), Verdict::Yes);
        assert_eq!(standing.verdict(start + MASTER_LEASE - TICK), Verdict::Yes);
        // As after a pause of the process.
        assert_eq!(standing.verdict(start + MASTER_LEASE), Verdict::NotYet);
        assert_eq!(Standing::Fixed.verdict(start + 1000 * MASTER_LEASE), Verdict::Yes);
    }

    #[test]
    fn a_check_without_a_result_takes_nothing_away_and_gives_nothing() {
        let start = Instant::now();
        let mut standing = Standing::confirmed(start);
        let asked = start + MASTER_LEASE / 2;
        standing.doubt(asked, "silence");
        assert_eq!(standing.verdict(start + MASTER_LEASE - TICK), Verdict::Yes);
        assert_eq!(standing.verdict(start + MASTER_LEASE), Verdict::No("silence".into()));
        // From before a pause.
        assert_eq!(standing.verdict(asked + MASTER_LEASE), Verdict::NotYet);
    }
}
