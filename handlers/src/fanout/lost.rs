//! What the feeder does about a log that has lost its tail, or all of itself.
//!
//! A store that replicates asynchronously may come back from a failover without the last events that
//! it acknowledged. They are gone; but they were announced, and readers have them. Such a reader stands
//! beyond the log's end, and matches no event until one is appended, which for a quiet channel may be
//! never: so it would wait in the belief that it has everything. The same happens to the readers of a
//! log that has expired, or was deleted, without an END that they got.
//!
//! A feeder notices: the head that it reads is behind one that it has seen, or that an edge says it
//! has. Then it appends a control event that begins a new epoch beyond what was lost: `failover`, or, if
//! there is no log any more, the END `expired`. From there all goes its ordinary way. Readers that have
//! just what the log has get the event, since its predecessor is where they stand; all others ask for
//! what follows, and are told of a gap.
//!
//! Each feeder that notices tries the same. The append is fenced by the head that was read, so that
//! one of them does it. (A publisher may have been faster: its event began a new epoch by itself.)
//!
//! After a restart of everything nobody has seen what was lost, but those readers: they come back with
//! a cursor beyond the head. What a client says is not to be believed, so there the append has one more
//! condition, that the store knows of a reason for a loss ([`Conditions::torn`]).

use std::time::Duration;

use zhttp::Cursor;

use crate::control::{EndReason, end_event, failover_event};
use crate::store::{
    AppendError, ChannelName, Conditions, Head, NewEvent, Retention, Store, StoreError,
};

/// The pause before heads are read again whose logs could not be appended to.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// A log that has lost its tail, or is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LostTail {
    pub(super) channel: ChannelName,
    /// Where the log ends; `0-0` if there is none.
    pub(super) head: Head,
    /// The last event that is known to have been in it.
    pub(super) seen: Cursor,
}

impl LostTail {
    /// What its readers are told.
    fn event(&self) -> NewEvent {
        if self.head.id == Cursor::START {
            end_event(&self.channel, self.seen, EndReason::Expired)
        } else {
            failover_event(&self.channel, self.head, self.seen)
        }
    }
}

/// What came of letting logs go on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mended {
    /// Channels whose heads are to be read again: the store failed, or somebody else has appended meanwhile.
    pub(super) doubtful: Vec<ChannelName>,
    /// Logs that had lost their tail, and go on by us.
    pub(super) tails: u64,
}

/// Lets these logs go on beyond what they lost.
pub(super) async fn mend<S: Store>(store: &S, retention: Retention, lost: Vec<LostTail>) -> Mended {
    let mut mended = Mended::default();
    for lost in lost {
        let event = lost.event();
        let LostTail { channel, head, seen } = lost;
        if head.id == Cursor::START {
            tracing::info!(%channel, %seen, "a log is gone that had readers");
        } else {
            tracing::warn!(%channel, head = %head.id, %seen, "a log has lost its tail");
        }
        let conditions = Conditions {
            fence: Some(head.id),
            beyond: Some(seen),
            retention,
            ..Conditions::default()
        };
        match store.append(&channel, event, &conditions).await {
            Ok(_) => mended.tails += u64::from(head.id != Cursor::START),
            Err(AppendError::Conflict { .. }) => mended.doubtful.push(channel),
            Err(error @ (AppendError::Unavailable(_) | AppendError::RateLimited { .. })) => {
                tracing::warn!(%channel, %error, "its readers cannot be told yet");
                mended.doubtful.push(channel);
            }
        }
    }
    mended
}

/// Does the same for a channel whose reader says that it was at `seen`, if a tail may be lost indeed.
/// Returns whether the log has gone on.
///
/// # Errors
///
/// It is not known whether a tail is lost.
pub(super) async fn mend_if_torn<S: Store>(
    store: &S,
    retention: Retention,
    lost: LostTail,
) -> Result<bool, StoreError> {
    let event = lost.event();
    let LostTail { channel, head, seen } = lost;
    let fence = Some(head.id);
    let conditions = Conditions { fence, torn: true, retention, ..Conditions::default() };
    match store.append(&channel, event, &conditions).await {
        Ok(_) => {
            tracing::warn!(%channel, head = %head.id, %seen, "a reader has more than the log");
            Ok(true)
        }
        // Somebody was faster, or the reader is of another world.
        Err(AppendError::Conflict { head: now }) => Ok(now != head.id),
        // No rate was set.
        Err(AppendError::RateLimited { .. }) => Ok(false),
        Err(AppendError::Unavailable(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::store::RangeLimits;
    use crate::testing::TestStore;

    #[tokio::test]
    async fn a_loss_is_told_once_whoever_notices() {
        let store = TestStore::open().await;
        let channel = ChannelName::new("o", "a").unwrap();
        let id = store.put(&channel, "1", false).await;
        let head = store.heads(std::slice::from_ref(&channel)).await.unwrap()[0];
        // Each has seen another part of what is lost, so they would say different things.
        let lost = |offset| LostTail { channel: channel.clone(), head, seen: id.plus(offset) };
        let retention = Retention::default();
        let told = Mended { doubtful: Vec::new(), tails: 1 };
        assert_eq!(mend(&store, retention, vec![lost(3)]).await, told);
        let late = Mended { doubtful: vec![channel.clone()], tails: 0 };
        assert_eq!(mend(&store, retention, vec![lost(5)]).await, late);
        let limits = RangeLimits { events_max: 10, bytes_max: 10_000 };
        let range = store.range(&channel, id, limits).await.unwrap();
        assert_eq!((range.events.len(), range.head.id.offset), (1, 1));
        assert!(range.head.id.epoch > id.epoch);
    }
}
