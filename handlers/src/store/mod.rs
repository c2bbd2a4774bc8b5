//! The store: where all stream state lives.
//!
//! A channel is a log. This module is the contract that such a log keeps ([`Store`]), and its two
//! implementations: [`RedisStore`], for any number of processes, and [`EmbeddedStore`], in the one
//! process of `forebay up`. One contract test-suite runs against both, and a role is generic over
//! the trait. The contract is `docs/channels.md`, "The store contract"; the rest of this page is what
//! goes beyond it.
//!
//! # Ids
//!
//! An event's id is a [`Cursor`], `<epoch>-<offset>`. Offsets of an epoch are 1, 2,
//! 3 … without holes. A log outlives its epochs: an append after an END begins a new epoch *in the
//! same log*, and a reader that stands at the END goes on there without a gap. An epoch is the
//! store's clock in milliseconds when it began, or one more than the last epoch of that channel if
//! the clock says less; it never comes again, not after a deletion and not after a restart.
//!
//! An append also begins a new epoch if events behind the head may have been lost: acknowledged,
//! perhaps read, and then forgotten by a failover of Redis or by a power cut. So no id is ever given
//! to two events, and a reader that has more than the log finds that no event follows its cursor: it
//! is told of a gap, by the same comparison as everywhere. [`Conditions::beyond`] and
//! [`Conditions::torn`] are for those who find such readers, to let the log go on before the next
//! message does.
//!
//! Every event has a predecessor, [`StoredEvent::prev`]: the event before it in the log, or `0-0`
//! if the log was new with it. So whether a reader misses something is decided in the same way
//! everywhere, across epochs, trims and deletions: `event.prev == cursor`, or else there is a gap.
//!
//! # Appends
//!
//! An append is one atomic step, in this order: a repeated message id is answered with the earlier
//! event's id, whatever the other conditions say, as it *was* accepted; then the head is compared;
//! then the rate is checked; only then is anything written or charged. A message id is remembered
//! no longer than the log that it went into: after a deletion the same ids may be published anew.
//!
//! # Time
//!
//! Only the store's clock counts ([`Store::now_ms`]): the clocks of handlers differ, and a channel
//! must not look idle because one of them is late.
//!
//! A log is dropped by the store itself when its TTL is over. Its entry in the activity index
//! remains, so that [`Store::idle`] still lists it, with a head of `0-0`, and cleanup can tell its
//! readers by [`Store::delete`]. The index has [`INDEX_SHARDS`] shards, and a cleaner works on those
//! that it holds a lease for.
//!
//! # Failure
//!
//! Every operation ends within seconds. While Redis is away, operations fail at once with
//! [`StoreError::Unavailable`], and work again by themselves soon after it is back, or soon after a
//! replica has taken its place. On a cluster that is so for the channels of a node each. An append that
//! failed so may have been done or not; sent again with its message id, it is done once.

mod embedded;
mod follow;
mod name;
mod redis;
mod types;

#[cfg(test)]
pub(crate) mod contract;

use std::future::Future;

use zhttp::Cursor;

pub use self::embedded::{DirectoryLock, EmbeddedStore, Fsync};
pub use self::follow::{FOLLOW_QUEUE_EVENTS_MAX, FollowHandle, FollowStream, Followed};
pub use self::name::{ChannelName, NameError};
pub use self::redis::RedisStore;
pub use self::types::{
    AppendError, Appended, Conditions, EventKind, Gap, GapReason, Head, Idle, NewEvent, OpenError,
    Range, RangeLimits, Rate, Retention, StoreError, StoredEvent,
};

/// Shards of the activity index. Fixed: a deployed index is found again by the number of a name.
pub const INDEX_SHARDS: u32 = 64;

/// A store of channels. A clone is another handle to the same one, and cheap.
///
/// Futures must run within a tokio runtime.
pub trait Store: Clone + Send + Sync + 'static {
    /// Appends an event, if the conditions hold: see "Appends" above.
    ///
    /// # Errors
    ///
    /// Says which condition did not hold, or that the store failed.
    fn append(
        &self,
        channel: &ChannelName,
        event: NewEvent,
        conditions: &Conditions,
    ) -> impl Future<Output = Result<Appended, AppendError>> + Send;

    /// Reads events after a cursor, oldest first, with the head and the gap of the same moment.
    ///
    /// There is at least one event if there is one after `after`. An `after` beyond the head gets
    /// no events and no gap.
    ///
    /// # Errors
    ///
    /// If the store failed.
    fn range(
        &self,
        channel: &ChannelName,
        after: Cursor,
        limits: RangeLimits,
    ) -> impl Future<Output = Result<Range, StoreError>> + Send;

    /// The heads of channels, in the same order. One that is unknown has the head `0-0`.
    ///
    /// # Errors
    ///
    /// If the store failed.
    fn heads(
        &self,
        channels: &[ChannelName],
    ) -> impl Future<Output = Result<Vec<Head>, StoreError>> + Send;

    /// Begins to follow channels, none at first. One following serves a whole process: with Redis
    /// each has connections of its own.
    ///
    /// Must be called within a tokio runtime.
    fn follow(&self) -> (FollowHandle, FollowStream);

    /// Ends a channel with the END event given, unless it moved on from `if_head` or has ended.
    /// Returns whether it did.
    ///
    /// # Errors
    ///
    /// If the store failed.
    fn end(
        &self,
        channel: &ChannelName,
        if_head: Cursor,
        event: NewEvent,
        retention: Retention,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send {
        let event = NewEvent { end: true, ..event };
        let fence = Some(if_head);
        let conditions = Conditions { fence, open: true, retention, ..Conditions::default() };
        async move {
            match self.append(channel, event, &conditions).await {
                Ok(_) => Ok(true),
                Err(AppendError::Conflict { .. } | AppendError::RateLimited { .. }) => Ok(false),
                Err(AppendError::Unavailable(error)) => Err(error),
            }
        }
    }

    /// Deletes a channel's log and tells its followers. Returns whether it is gone.
    ///
    /// With `if_head` it is kept if its head is another by now. An `if_head` of `0-0` is for a
    /// channel whose log has expired: its followers are told. Without `if_head`, an unknown channel
    /// gives `false`. It may stay listed as idle, as one whose log is gone.
    ///
    /// # Errors
    ///
    /// If the store failed.
    fn delete(
        &self,
        channel: &ChannelName,
        if_head: Option<Cursor>,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Deletes the log of a channel that [`Store::idle`] has listed, like [`Store::delete`] with the
    /// head that it had then, and takes the channel off the list; both only if it was not active
    /// again.
    ///
    /// # Errors
    ///
    /// If the store failed.
    fn delete_idle(&self, idle: &Idle) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Channels in a shard of the activity index that had no append since `before_ms`, on the
    /// store's clock; the longest idle first, at most `limit`.
    ///
    /// # Errors
    ///
    /// If the store failed.
    fn idle(
        &self,
        shard: u32,
        before_ms: u64,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Idle>, StoreError>> + Send;

    /// Takes or renews the lease of a shard for `ttl_ms`. Returns whether `owner` has it.
    ///
    /// # Errors
    ///
    /// If the store failed.
    fn lease(
        &self,
        shard: u32,
        owner: &str,
        ttl_ms: u64,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// The store's clock, in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// If the store failed.
    fn now_ms(&self) -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Whether the store works: asks it for the smallest thing, and whether what is followed is heard.
    ///
    /// # Errors
    ///
    /// If it doesn't, and why.
    fn ping(&self) -> impl Future<Output = Result<(), StoreError>> + Send;
}
