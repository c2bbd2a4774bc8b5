//! Following channels: the two halves that a reader gets, and the queue between them and a store.
//!
//! Announcements are at most once. What a reader needs is not that none is lost, but that it is
//! told when some may be: then it compares heads, and reads the ranges that it misses. So the queue
//! to the reader is bounded, and a full one drops announcements, counts them, and turns into an
//! [`Followed::Interrupted`] and [`Followed::Restored`], just as a lost connection does. A slow
//! reader costs itself a look at the heads, and nobody else anything.
//!
//! The halves are the same for every store. What is behind them is a task that belongs to the
//! store: it takes [`FollowCommand`]s, and pushes into the [`FollowQueue`]. It ends when the
//! stream is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::{ChannelName, StoreError, StoredEvent};

/// Announcements that wait for the reader. At the limit further ones are dropped, and the reader
/// is told. With events of 1 KiB a full queue holds 16 MiB.
pub const FOLLOW_QUEUE_EVENTS_MAX: usize = 16_384;

/// Commands that wait for the store's task. At the limit `add` and `remove` wait.
const FOLLOW_COMMANDS_MAX: usize = 1024;

/// What a follower is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// Something was appended.
    Event {
        /// To which channel.
        channel: ChannelName,
        /// What.
        event: StoredEvent,
    },
    /// A channel was deleted.
    Deleted {
        /// Which one.
        channel: ChannelName,
    },
    /// From some moment before this on, announcements may have been missed, and more may be.
    Interrupted,
    /// Announcements are seen again. What was appended meanwhile shows in the heads.
    Restored,
}

/// Says which channels to follow. Clones speak for the same stream.
#[derive(Clone, Debug)]
pub struct FollowHandle {
    commands: mpsc::Sender<FollowCommand>,
}

impl FollowHandle {
    /// Follows a channel too. When this returns, whatever is appended from now on is announced.
    /// Following it already is fine.
    ///
    /// # Errors
    ///
    /// If the store is away. The channel is followed all the same once the stream says
    /// [`Followed::Restored`].
    pub async fn add(&self, channel: ChannelName) -> Result<(), StoreError> {
        self.command(channel, FollowChange::Add).await
    }

    /// Follows a channel no more. Announcements that are in the queue already may still come.
    /// Not following it is fine.
    ///
    /// # Errors
    ///
    /// If the store is away; the channel will not be followed again all the same.
    pub async fn remove(&self, channel: ChannelName) -> Result<(), StoreError> {
        self.command(channel, FollowChange::Remove).await
    }

    async fn command(&self, channel: ChannelName, change: FollowChange) -> Result<(), StoreError> {
        let closed = || StoreError::Unavailable("the follower is closed".to_owned());
        let (done, answer) = oneshot::channel();
        let command = FollowCommand { channel, change, done };
        self.commands.send(command).await.map_err(|_| closed())?;
        answer.await.map_err(|_| closed())?
    }
}

/// What is announced in the channels that are followed. Dropping it ends the following.
#[derive(Debug)]
pub struct FollowStream {
    queue: mpsc::Receiver<Followed>,
    overflow: Arc<Overflow>,
    restored_is_due: bool,
}

impl FollowStream {
    /// The next announcement; `None` when the store is closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Followed> {
        if self.restored_is_due {
            self.restored_is_due = false;
            return Some(Followed::Restored);
        }
        // What was dropped was dropped before this, so heads that are read after this show it.
        // Nothing can be dropped while we wait below, as the queue is then empty.
        if self.overflow.missed.swap(false, Ordering::AcqRel) {
            self.restored_is_due = true;
            return Some(Followed::Interrupted);
        }
        self.queue.recv().await
    }

    /// Announcements dropped so far because this stream was not read fast enough.
    pub fn dropped_total(&self) -> u64 {
        self.overflow.dropped_total.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
struct Overflow {
    missed: AtomicBool,
    dropped_total: AtomicU64,
}

/// The store's end of the queue.
#[derive(Clone, Debug)]
pub(super) struct FollowQueue {
    queue: mpsc::Sender<Followed>,
    overflow: Arc<Overflow>,
}

impl FollowQueue {
    /// Hands an announcement to the reader, or drops it and remembers that. Never waits.
    pub(super) fn push(&self, followed: Followed) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.queue.try_send(followed) {
            self.overflow.dropped_total.fetch_add(1, Ordering::Relaxed);
            self.overflow.missed.store(true, Ordering::Release);
        }
    }

    /// Returns when the reader is gone.
    pub(super) async fn closed(&self) {
        self.queue.closed().await;
    }
}

/// What a [`FollowHandle`] wants.
#[derive(Debug)]
pub(super) struct FollowCommand {
    pub(super) channel: ChannelName,
    pub(super) change: FollowChange,
    /// Answered when it is in force.
    pub(super) done: oneshot::Sender<Result<(), StoreError>>,
}

/// What to do about a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FollowChange {
    Add,
    Remove,
}

/// The store's halves of a [`FollowHandle`] and a [`FollowStream`].
pub(super) struct FollowTask {
    pub(super) commands: mpsc::Receiver<FollowCommand>,
    pub(super) queue: FollowQueue,
}

/// Both sides of a following, with room for `events_max` announcements.
pub(super) fn follow_halves(events_max: usize) -> (FollowHandle, FollowStream, FollowTask) {
    let (commands, commands_taken) = mpsc::channel(FOLLOW_COMMANDS_MAX);
    let (sender, queue) = mpsc::channel(events_max);
    let overflow = Arc::new(Overflow::default());
    let task = FollowTask {
        commands: commands_taken,
        queue: FollowQueue { queue: sender, overflow: Arc::clone(&overflow) },
    };
    let stream = FollowStream { queue, overflow, restored_is_due: false };
    (FollowHandle { commands }, stream, task)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn deleted(number: u32) -> Followed {
        let channel = ChannelName::new("acme", &format!("room-{number}")).unwrap();
        Followed::Deleted { channel }
    }

    #[tokio::test]
    async fn a_full_queue_drops_and_says_so() {
        let (_handle, mut stream, task) = follow_halves(2);
        for number in 0..5 {
            task.queue.push(deleted(number));
        }
        assert_eq!(stream.dropped_total(), 3);
        assert_eq!(stream.next().await, Some(Followed::Interrupted));
        assert_eq!(stream.next().await, Some(Followed::Restored));
        assert_eq!(stream.next().await, Some(deleted(0)));
        task.queue.push(deleted(5));
        assert_eq!(stream.next().await, Some(deleted(1)));
        assert_eq!(stream.next().await, Some(deleted(5)));
        drop(task);
        assert_eq!(stream.next().await, None);
    }

    #[tokio::test]
    async fn commands_after_the_end_are_refused() {
        let (handle, _stream, task) = follow_halves(2);
        drop(task);
        let channel = ChannelName::new("acme", "room").unwrap();
        assert!(matches!(handle.add(channel).await, Err(StoreError::Unavailable(_))));
    }
}
