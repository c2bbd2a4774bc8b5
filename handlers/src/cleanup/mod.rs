//! The cleanup role: ends idle channels, deletes ended ones, and deletes on request
//! (`docs/channels.md`, "Cleanup").
//!
//! A channel goes in two steps. First its log gets an END, like any other event, so that its readers
//! are told by the log itself and closed by the one rule that closes readers, wherever they are and
//! however far behind. Only when the END has been readable for a while is the log deleted. Both
//! steps are fenced by the head that was seen: a channel that somebody published to in between is
//! not touched.
//!
//! * `sweep` looks at one shard of the activity index, and does what is due there.
//! * `Cleaner` does that for all shards, again and again, together with the cleaners of other
//!   processes.
//! * `delete` answers `DELETE /channels/{org}/{channel}`.
//!
//! Should no cleaner run, the store drops logs by itself a little later than a cleaner would
//! ([`Limits::retention`](crate::roles::Limits::retention)): then readers are told by feeders.

mod delete;
mod sweep;

pub(crate) use self::delete::Delete;
pub(crate) use self::sweep::{Sweep, Swept};

use std::time::Duration;

use tokio::time::Instant;

use crate::roles::Limits;
use crate::store::{INDEX_SHARDS, Store};

/// The longest time between two looks at a shard.
const PACE_MAX: Duration = Duration::from_secs(5);

/// The shortest one, however soon channels expire.
const PACE_MIN: Duration = Duration::from_millis(100);

/// Looks at a shard for each of the times after which something is due in it: so it is done at most
/// a quarter late.
const LOOKS_PER_TTL: u32 = 4;

/// Cleans, together with the cleaners of other processes.
///
/// A lease is a turn: who gets the lease of a shard sweeps it once, and does not try again before
/// the lease is over. So each shard is swept once in each [`pace`], by whoever comes first, and a
/// cleaner that dies is replaced within one. A sweep that takes longer than its lease may meet
/// another one; as each step is fenced, that costs work and nothing else.
pub(crate) struct Cleaner<S> {
    sweep: Sweep<S>,
    /// The instance id.
    owner: String,
    pace: Duration,
}

impl<S: Store> Cleaner<S> {
    pub(crate) fn new(store: S, owner: String, limits: Limits) -> Self {
        Cleaner { pace: pace(&limits), owner, sweep: Sweep { store, limits } }
    }

    /// Works until it is dropped.
    pub(crate) async fn run(self) {
        // The turns of the shards are spread over the pace.
        let start = Instant::now();
        let mut turns: Vec<(Instant, u32)> = (0..INDEX_SHARDS)
            .map(|shard| (start + self.pace * shard / INDEX_SHARDS, shard))
            .collect();
        loop {
            turns.sort_unstable();
            let (turn, shard) = turns[0];
            tokio::time::sleep_until(turn).await;
            self.take_turn(shard).await;
            turns[0].0 = Instant::now() + self.pace;
        }
    }

    async fn take_turn(&self, shard: u32) {
        let store = &self.sweep.store;
        // Milliseconds of 5 seconds at most fit.
        let ttl_ms = self.pace.as_millis() as u64;
        match store.lease(shard, &self.owner, ttl_ms).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                tracing::debug!(shard, %error, "no lease");
                return;
            }
        }
        match self.sweep.shard(shard).await {
            Ok(Swept { ended: 0, deleted: 0, .. }) => {}
            Ok(Swept { ended, deleted, kept }) => {
                tracing::debug!(shard, ended, deleted, kept, "swept");
            }
            Err(error) => tracing::warn!(shard, %error, "a shard could not be swept"),
        }
    }
}

/// How often a shard is looked at.
fn pace(limits: &Limits) -> Duration {
    let shortest = limits.idle_ttl.min(limits.end_ttl);
    (shortest / LOOKS_PER_TTL).clamp(PACE_MIN, PACE_MAX)
}

#[cfg(test)]
mod tests;
