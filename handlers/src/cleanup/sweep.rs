//! What is due in one shard of the activity index.
//!
//! | the channel | for how long | what is done |
//! | --- | --- | --- |
//! | has not ended | no append for `idle_ttl` | an END is appended, of type `expired` |
//! | has ended | since `end_ttl` | its log is deleted |
//! | has no log any more | | it is taken off the index, and its followers are told |
//!
//! The index lists what was idle for longest first. Were the two times very different, many
//! channels that are not due yet could stand before one that is: so a look that found nothing due
//! is repeated with a larger batch, up to [`LOOK_CHANNELS_MAX`]. What is beyond that waits until
//! the store drops its log by itself.

use std::time::Duration;

use crate::control::{EndReason, end_event};
use crate::roles::Limits;
use crate::store::{Idle, Store, StoreError};

/// Channels in the first look at a shard.
const LOOK_CHANNELS: usize = 64;

/// Channels in the largest look: what a sweep holds in memory, some 300 bytes each.
const LOOK_CHANNELS_MAX: usize = 4096;

/// Channels that one sweep ends or deletes at most. The rest is for the next turn, so that a shard
/// with a great deal to do does not keep the others waiting.
const SWEEP_CHANNELS_MAX: usize = 1024;

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Channels that got an END.
    pub(crate) ended: usize,
    /// Channels that were deleted, or were found to be gone.
    pub(crate) deleted: usize,
    /// Channels that were due, but somebody published to them meanwhile.
    pub(crate) kept: usize,
}

/// Sweeps shards.
#[derive(Clone, Debug)]
pub(crate) struct Sweep<S> {
    pub(crate) store: S,
    pub(crate) limits: Limits,
}

/// What is to be done about a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    End,
    Delete,
    Nothing,
}

impl<S: Store> Sweep<S> {
    /// Does what is due in a shard.
    ///
    /// # Errors
    ///
    /// If the store fails; what was done until then is done.
    pub(crate) async fn shard(&self, shard: u32) -> Result<Swept, StoreError> {
        let now_ms = self.store.now_ms().await?;
        let shortest = ms(self.limits.idle_ttl.min(self.limits.end_ttl));
        let before_ms = now_ms.saturating_sub(shortest);
        let mut swept = Swept::default();
        let mut look = LOOK_CHANNELS;
        loop {
            let listed = self.store.idle(shard, before_ms, look).await?;
            let is_all = listed.len() < look;
            let mut done = 0;
            for idle in listed {
                match self.due(&idle, now_ms) {
                    Due::Nothing => continue,
                    Due::End => self.end(&idle, &mut swept).await?,
                    Due::Delete => self.delete(&idle, &mut swept).await?,
                }
                done += 1;
            }
            let total = swept.ended + swept.deleted + swept.kept;
            if is_all || total >= SWEEP_CHANNELS_MAX {
                return Ok(swept);
            }
            // What was done is off the list, or at its other end.
            if done == 0 && look >= LOOK_CHANNELS_MAX {
                return Ok(swept);
            }
            if done == 0 {
                look *= 2;
            }
        }
    }

    fn due(&self, idle: &Idle, now_ms: u64) -> Due {
        let is_over = |ttl| now_ms.saturating_sub(idle.active_ms()) >= ms(ttl);
        if idle.head == zhttp::Cursor::START {
            return Due::Delete;
        }
        match idle.ended {
            true if is_over(self.limits.end_ttl) => Due::Delete,
            false if is_over(self.limits.idle_ttl) => Due::End,
            true | false => Due::Nothing,
        }
    }

    async fn end(&self, idle: &Idle, swept: &mut Swept) -> Result<(), StoreError> {
        let event = end_event(&idle.channel, idle.head, EndReason::Expired);
        let retention = self.limits.retention();
        let ended = self.store.end(&idle.channel, idle.head, event, retention).await?;
        *(if ended { &mut swept.ended } else { &mut swept.kept }) += 1;
        Ok(())
    }

    async fn delete(&self, idle: &Idle, swept: &mut Swept) -> Result<(), StoreError> {
        let deleted = self.store.delete_idle(idle).await?;
        *(if deleted { &mut swept.deleted } else { &mut swept.kept }) += 1;
        Ok(())
    }
}

/// Whole milliseconds.
pub(super) fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
