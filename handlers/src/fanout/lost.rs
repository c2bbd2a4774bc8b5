//! What the feeder does about a log that has lost its tail.
//!
//! A store that replicates asynchronously may come back from a failover without the last events that
//! it acknowledged. They are gone; but they were announced, and readers have them. Such a reader stands
//! beyond the log's end, and matches no event until one is appended, which for a quiet channel may be
//! never: so it would wait in the belief that it has everything.
//!
//! A feeder notices: the head that it reads is behind one that it has seen, or that an edge says it
//! has. Then it appends a control event (`failover`) that begins a new epoch beyond what was lost. From
//! there all goes its ordinary way. Readers that have just what the log has get the event, since its
//! predecessor is where they stand; those that have more ask for what follows, and are told of a gap.
//!
//! Each feeder that notices tries the same. The append is fenced by the head that was read, so that
//! one of them does it. (A publisher may have been faster: its event began a new epoch by itself.)
//!
//! After a restart of everything nobody has seen what was lost, but those readers: they come back with
//! a cursor beyond the head. What a client says is not to be believed, so there the append has one more
//! condition, that the store knows of a reason for a loss ([`Conditions::torn`]).

use std::time::Duration;

use zhttp::Cursor;

use crate::control::failover_event;
use crate::store::{AppendError, ChannelName, Conditions, Head, Retention, Store};

/// The pause before heads are read again whose logs could not be appended to.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// A log that has lost its tail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LostTail {
    pub(super) channel: ChannelName,
    /// Where the log ends.
    pub(super) head: Head,
    /// The last event that is known to have been in it.
    pub(super) seen: Cursor,
}

/// Lets these logs go on beyond what they lost. Returns the channels whose heads are to be read again,
/// as the store failed, or somebody else has appended meanwhile.
pub(super) async fn mend<S: Store>(
    store: &S,
    retention: Retention,
    lost: Vec<LostTail>,
) -> Vec<ChannelName> {
    let mut doubtful = Vec::new();
    for LostTail { channel, head, seen } in lost {
        tracing::warn!(%channel, head = %head.id, %seen, "a log has lost its tail");
        let event = failover_event(&channel, head, seen);
        let conditions = Conditions {
            fence: Some(head.id),
            beyond: Some(seen),
            retention,
            ..Conditions::default()
        };
        match store.append(&channel, event, &conditions).await {
            Ok(_) => {}
            Err(AppendError::Conflict { .. }) => doubtful.push(channel),
            Err(error @ (AppendError::Unavailable(_) | AppendError::RateLimited { .. })) => {
                tracing::warn!(%channel, %error, "its readers cannot be told yet");
                doubtful.push(channel);
            }
        }
    }
    doubtful
}

/// Does the same for a channel whose reader says that it was at `seen`, if a tail may be lost indeed.
/// Returns whether the log has gone on.
pub(super) async fn mend_if_torn<S: Store>(
    store: &S,
    retention: Retention,
    LostTail { channel, head, seen }: LostTail,
) -> bool {
    let event = failover_event(&channel, head, seen);
    let fence = Some(head.id);
    let conditions = Conditions { fence, torn: true, retention, ..Conditions::default() };
    match store.append(&channel, event, &conditions).await {
        Ok(_) => {
            tracing::warn!(%channel, head = %head.id, %seen, "a reader has more than the log");
            true
        }
        // Somebody was faster, or the reader is of another world.
        Err(AppendError::Conflict { head: now }) => now != head.id,
        Err(AppendError::RateLimited { .. } | AppendError::Unavailable(_)) => false,
    }
}
