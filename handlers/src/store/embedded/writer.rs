//! The writer: one thread that does all that changes something, in the order in which it is asked.
//!
//! It takes what has gathered meanwhile as a group: the index decides each operation, the whole
//! group is committed as one batch, and only then are the answers given and the events announced.
//! So the busier the store, the larger the groups, and one write (and with [`Fsync::Always`] one
//! sync) serves them all. Disk calls block this thread and nobody else's.
//!
//! Between groups it syncs and sweeps when it is time. A failed write is final: what is on disk is
//! then unknown, and only opening the files again can tell. Every later operation is refused.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use zhttp::Cursor;

use super::Fsync;
use super::disk::{Disk, clock};
use super::followers::Followers;
use super::index::{Done, Index, Now};
use crate::store::{
    AppendError, Appended, ChannelName, Conditions, Followed, Idle, NewEvent, StoreError,
};

/// Operations that wait for the writer. At the limit callers wait.
pub(super) const OPERATIONS_WAITING_MAX: usize = 4096;

/// Operations in a group.
const GROUP_OPERATIONS_MAX: usize = 256;

/// How often the writer looks for logs that are over.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);

/// Channels that one sweep looks after before operations get their turn again. Each may have to
/// remove a whole history.
const SWEEP_CHANNELS_MAX: usize = 64;

type Answer<T> = oneshot::Sender<T>;

/// What the writer is asked to do.
pub(super) enum Operation {
    Append {
        channel: ChannelName,
        event: NewEvent,
        conditions: Conditions,
        answer: Answer<Result<Appended, AppendError>>,
    },
    Delete {
        channel: ChannelName,
        if_head: Option<Cursor>,
        answer: Answer<Result<bool, StoreError>>,
    },
    Idle {
        shard: u32,
        before_ms: u64,
        limit: usize,
        answer: Answer<Result<Vec<Idle>, StoreError>>,
    },
    Lease {
        shard: u32,
        owner: String,
        ttl_ms: u64,
        answer: Answer<Result<bool, StoreError>>,
    },
    Ping {
        answer: Answer<Result<(), StoreError>>,
    },
    Close {
        answer: Answer<Result<(), StoreError>>,
    },
}

/// An answer that is given when the group is committed.
enum Outcome {
    Append(ChannelName, Result<Done, AppendError>, Answer<Result<Appended, AppendError>>),
    Delete(ChannelName, bool, Answer<Result<bool, StoreError>>),
    Idle(Vec<Idle>, Answer<Result<Vec<Idle>, StoreError>>),
    Lease(bool, Answer<Result<bool, StoreError>>),
    Ping(Answer<Result<(), StoreError>>),
}

/// The thread's state.
pub(super) struct Writer {
    disk: Arc<Disk>,
    index: Index,
    followers: Arc<Followers>,
    fsync: Fsync,
    /// Whether something was written since the last sync.
    unsynced: bool,
    /// Why nothing can be written any more.
    failed: Option<StoreError>,
}

fn now() -> Now {
    Now { us: u64::try_from(clock().as_micros()).unwrap_or(u64::MAX) }
}

impl Writer {
    /// Reads what is on disk.
    pub(super) fn new(
        disk: Arc<Disk>,
        followers: Arc<Followers>,
        fsync: Fsync,
    ) -> Result<Self, StoreError> {
        let remains = disk.remains()?;
        if remains.torn {
            // The note stays as it is until every log has gone on or is over: should this process
            // end before that, the next one must know it as well.
            tracing::warn!("the system went down over the data directory; logs begin new epochs");
        } else {
            disk.mark(true)?;
        }
        let index = Index::new(now(), remains);
        Ok(Writer { disk, index, followers, fsync, unsynced: false, failed: None })
    }

    /// Serves operations until it is told to close or nobody can ask any more.
    pub(super) async fn run(mut self, mut operations: mpsc::Receiver<Operation>) {
        let sync_interval = match self.fsync {
            Fsync::Interval(interval) => Some(interval.max(Duration::from_millis(1))),
            Fsync::Always | Fsync::Never => None,
        };
        let mut sweeps = tokio::time::interval(SWEEP_INTERVAL);
        sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sync_at: Option<Instant> = None;
        let mut group = Vec::with_capacity(GROUP_OPERATIONS_MAX);
        let close = loop {
            if self.unsynced && sync_at.is_none() {
                sync_at = sync_interval.map(|interval| Instant::now() + interval);
            }
            let sync_due = async {
                match sync_at {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = sync_due => {
                    sync_at = None;
                    self.sync();
                }
                _ = sweeps.tick() => self.sweep(&mut sweeps),
                count = operations.recv_many(&mut group, GROUP_OPERATIONS_MAX) => {
                    if count == 0 {
                        break None;
                    }
                    if let Some(close) = self.group(&mut group) {
                        break Some(close);
                    }
                }
            }
        };
        self.close(operations, close);
    }

    /// Ends the thread's hold on the files before it says so, so that they can be opened again.
    fn close(
        mut self,
        operations: mpsc::Receiver<Operation>,
        answer: Option<Answer<Result<(), StoreError>>>,
    ) {
        drop(operations);
        self.sync();
        if self.failed.is_none()
            && !self.index.is_torn()
            && let Err(error) = self.disk.mark(false)
        {
            self.fail(error);
        }
        let outcome = self.failed.take().map_or(Ok(()), Err);
        drop(self);
        if let Some(answer) = answer {
            let _ = answer.send(outcome);
        }
    }

    /// Carries out a group of operations; returns the answer to be given after a `Close`.
    fn group(&mut self, group: &mut Vec<Operation>) -> Option<Answer<Result<(), StoreError>>> {
        let now = now();
        let mut close = None;
        let mut outcomes = Vec::with_capacity(group.len());
        for operation in group.drain(..) {
            match operation {
                Operation::Append { channel, event, conditions, answer } => {
                    let result = self.index.append(now, &channel, event, &conditions);
                    outcomes.push(Outcome::Append(channel, result, answer));
                }
                Operation::Delete { channel, if_head, answer } => {
                    let deleted = self.index.delete(now, &channel, if_head);
                    outcomes.push(Outcome::Delete(channel, deleted, answer));
                }
                Operation::Idle { shard, before_ms, limit, answer } => {
                    let listed = self.index.idle(now, shard, before_ms, limit);
                    outcomes.push(Outcome::Idle(listed, answer));
                }
                Operation::Lease { shard, owner, ttl_ms, answer } => {
                    let held = self.index.lease(now, shard, owner, ttl_ms);
                    outcomes.push(Outcome::Lease(held, answer));
                }
                Operation::Ping { answer } => outcomes.push(Outcome::Ping(answer)),
                Operation::Close { answer } => close = Some(answer),
            }
        }
        self.commit();
        for outcome in outcomes {
            self.answer(outcome);
        }
        close
    }

    /// Gives an answer, and announces what was done.
    fn answer(&self, outcome: Outcome) {
        // Whoever asked may be gone; what was done is done all the same.
        let failed = self.failed.clone();
        match outcome {
            Outcome::Append(channel, result, answer) => {
                let result = match (failed, result) {
                    (Some(error), _) => Err(AppendError::Unavailable(error)),
                    (None, Err(error)) => Err(error),
                    (None, Ok(Done { appended, event })) => {
                        if let Some(event) = event {
                            self.followers.announce(&Followed::Event { channel, event });
                        }
                        Ok(appended)
                    }
                };
                let _ = answer.send(result);
            }
            Outcome::Delete(channel, deleted, answer) => {
                if deleted && failed.is_none() {
                    self.followers.announce(&Followed::Deleted { channel });
                }
                let _ = answer.send(failed.map_or(Ok(deleted), Err));
            }
            Outcome::Idle(listed, answer) => {
                let _ = answer.send(failed.map_or(Ok(listed), Err));
            }
            Outcome::Lease(held, answer) => {
                let _ = answer.send(failed.map_or(Ok(held), Err));
            }
            Outcome::Ping(answer) => {
                let _ = answer.send(failed.map_or(Ok(()), Err));
            }
        }
    }

    /// Writes what the index wants written, unless writing failed before.
    fn commit(&mut self) {
        let batch = self.index.take_batch();
        if batch.is_empty() || self.failed.is_some() {
            return;
        }
        let sync = self.fsync == Fsync::Always;
        match self.disk.commit(batch, sync) {
            Ok(()) => self.unsynced |= !sync,
            Err(error) => self.fail(error),
        }
    }

    fn sync(&mut self) {
        if !self.unsynced || self.failed.is_some() {
            return;
        }
        self.unsynced = false;
        if let Err(error) = self.disk.sync() {
            self.fail(error);
        }
    }

    fn sweep(&mut self, sweeps: &mut tokio::time::Interval) {
        if self.index.sweep(now(), SWEEP_CHANNELS_MAX) {
            sweeps.reset_after(Duration::from_millis(1));
        }
        self.commit();
    }

    fn fail(&mut self, error: StoreError) {
        tracing::error!(%error, "the embedded store cannot be written any more; restart it");
        self.failed = Some(error);
    }
}
