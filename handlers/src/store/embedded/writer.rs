//! The writer: one thread that does all that changes something, in the order in which it is asked.
//!
//! It takes what has gathered meanwhile as a group: the index decides each operation, the whole
//! group is committed as one batch, and only then are the answers given and the events announced.
//! So the busier the store, the larger the groups, and one write (and with [`Fsync::Always`] one
//! sync) serves them all. Disk calls block this thread and nobody else's.
//!
//! Between groups it syncs and sweeps when it is time.
//!
//! After a failed write what is on disk is unknown, and only opening the files again can tell. From
//! then on every operation is refused ([`Health`]). If the disk was full, the writer looks from time
//! to time whether there is room, opens the files again and begins anew with what it finds there,
//! as a new process would. Its followers are told that they may have missed something: what was
//! refused may be in the log all the same, and was never announced. After any other failed write it
//! stays so until somebody restarts the process; what fails while the files are opened is tried again.
//!
//! What is acknowledged was written before, and is found again. But if it was not synced yet, and
//! the sync is what failed, the system may have dropped it: then logs begin new epochs, as after a
//! power loss. (Only this process knows of that: one that is started instead of it, before the
//! machine is, does not.)

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use zhttp::Cursor;

use super::Fsync;
use super::disk::Disk;
use super::failure::Failure;
use super::files::clock;
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

/// How long the writer waits before it looks again whether the disk has room. A disk that is full
/// again at once costs a reading of the journals each time.
const ROOM_INTERVAL: Duration = Duration::from_millis(500);

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

impl Operation {
    /// Answers that it cannot be done; for a `Close` returns the answer to be given afterwards.
    fn refuse(self, why: &StoreError) -> Option<Answer<Result<(), StoreError>>> {
        let why = why.clone();
        // Whoever asked may be gone.
        match self {
            Operation::Append { answer, .. } => drop(answer.send(Err(why.into()))),
            Operation::Delete { answer, .. } => drop(answer.send(Err(why))),
            Operation::Idle { answer, .. } => drop(answer.send(Err(why))),
            Operation::Lease { answer, .. } => drop(answer.send(Err(why))),
            Operation::Ping { answer } => drop(answer.send(Err(why))),
            Operation::Close { answer } => return Some(answer),
        }
        None
    }
}

/// An answer that is given when the group is committed.
enum Outcome {
    Append(ChannelName, Result<Done, AppendError>, Answer<Result<Appended, AppendError>>),
    Delete(ChannelName, bool, Answer<Result<bool, StoreError>>),
    Idle(Vec<Idle>, Answer<Result<Vec<Idle>, StoreError>>),
    Lease(bool, Answer<Result<bool, StoreError>>),
    Ping(Answer<Result<(), StoreError>>),
}

/// Whether anything can be written.
enum Health {
    Sound,
    /// Not now; at that time it is tried again.
    Full {
        why: StoreError,
        retry_at: Instant,
    },
    /// Not any more.
    Broken {
        why: StoreError,
    },
}

impl Health {
    /// What those are told who want something.
    fn refusal(&self) -> Option<&StoreError> {
        match self {
            Health::Sound => None,
            Health::Full { why, .. } | Health::Broken { why } => Some(why),
        }
    }
}

/// The thread's state.
pub(super) struct Writer {
    disk: Arc<Disk>,
    index: Index,
    followers: Arc<Followers>,
    fsync: Fsync,
    /// Whether something was written since the last sync.
    unsynced: bool,
    /// Whether a sync may have failed that was to save what is acknowledged: then the system may
    /// have dropped some of it.
    is_doubtful: bool,
    health: Health,
}

fn now() -> Now {
    Now { us: u64::try_from(clock().as_micros()).unwrap_or(u64::MAX) }
}

/// Takes up what is on disk. If it is doubtful, something acknowledged may be lost.
pub(super) fn take_up(disk: &Disk, is_doubtful: bool) -> Result<Index, Failure> {
    if is_doubtful {
        disk.with(|files| files.mark_torn())?;
    }
    let remains = disk.with(|files| files.remains())?;
    if remains.torn {
        // The note stays as it is until every log has gone on or is over: should this process
        // end before that, the next one must know it as well.
        tracing::warn!("not all may be on the disk that was written; logs begin new epochs");
    } else {
        disk.with(|files| files.mark(true))?;
    }
    Ok(Index::new(now(), remains))
}

/// When it is that time; never, without one.
async fn reached(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

impl Writer {
    /// Reads what is on disk.
    pub(super) fn new(
        disk: Arc<Disk>,
        followers: Arc<Followers>,
        fsync: Fsync,
    ) -> Result<Self, Failure> {
        let index = take_up(&disk, false)?;
        Ok(Writer {
            disk,
            index,
            followers,
            fsync,
            unsynced: false,
            is_doubtful: false,
            health: Health::Sound,
        })
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
            if self.unsynced && sync_at.is_none() && self.health.refusal().is_none() {
                sync_at = sync_interval.map(|interval| Instant::now() + interval);
            }
            let retry_at = match &self.health {
                Health::Full { retry_at, .. } => Some(*retry_at),
                Health::Sound | Health::Broken { .. } => None,
            };
            tokio::select! {
                biased;
                () = reached(sync_at) => {
                    sync_at = None;
                    self.sync();
                }
                () = reached(retry_at) => self.restore(),
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
        if self.health.refusal().is_none()
            && !self.index.is_torn()
            && let Err(failure) = self.disk.with(|files| files.mark(false))
        {
            self.fail(&failure);
        }
        let outcome = self.health.refusal().cloned().map_or(Ok(()), Err);
        drop(self);
        if let Some(answer) = answer {
            let _ = answer.send(outcome);
        }
    }

    /// Carries out a group of operations; returns the answer to be given after a `Close`.
    fn group(&mut self, group: &mut Vec<Operation>) -> Option<Answer<Result<(), StoreError>>> {
        if let Some(why) = self.health.refusal() {
            return group.drain(..).filter_map(|operation| operation.refuse(why)).last();
        }
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
        let failed = self.health.refusal().cloned();
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

    /// Writes what the index wants written.
    fn commit(&mut self) {
        let batch = self.index.take_batch();
        if batch.is_empty() {
            return;
        }
        let sync = self.fsync == Fsync::Always;
        match self.disk.with(|files| files.commit(batch, sync)) {
            Ok(()) => self.unsynced |= !sync,
            Err(failure) => self.fail(&failure),
        }
    }

    fn sync(&mut self) {
        if !self.unsynced || self.health.refusal().is_some() {
            return;
        }
        match self.disk.with(|files| files.sync()) {
            Ok(()) => self.unsynced = false,
            Err(failure) => {
                self.is_doubtful = true;
                self.fail(&failure);
            }
        }
    }

    fn sweep(&mut self, sweeps: &mut tokio::time::Interval) {
        if self.health.refusal().is_some() {
            return;
        }
        // Found out now, before somebody wants to append.
        if let Err(failure) = self.disk.with(|files| files.check()) {
            return self.fail(&failure);
        }
        if self.index.sweep(now(), SWEEP_CHANNELS_MAX) {
            sweeps.reset_after(Duration::from_millis(1));
        }
        self.commit();
    }

    /// Goes on, if there is room.
    fn restore(&mut self) {
        let opened = self.disk.find_room().and_then(|()| self.disk.reopen());
        if let Err(failure) = opened {
            // Whatever it is, nothing was written that could be lost.
            tracing::debug!(?failure, "the embedded store cannot go on yet");
            let why = failure.told(&self.disk.name());
            self.health = Health::Full { why, retry_at: Instant::now() + ROOM_INTERVAL };
            return;
        }
        match take_up(&self.disk, self.is_doubtful) {
            Ok(index) => {
                self.index = index;
                (self.unsynced, self.is_doubtful) = (false, false);
                self.health = Health::Sound;
                self.followers.announce_unseen();
                tracing::warn!("the embedded store has room again, and goes on");
            }
            Err(failure) => self.fail(&failure),
        }
    }

    fn fail(&mut self, failure: &Failure) {
        // `fjall` syncs as well.
        self.is_doubtful |= self.unsynced && matches!(failure, Failure::Background);
        let why = failure.told(&self.disk.name());
        self.health = if failure.passes() {
            tracing::error!(error = %why, "the embedded store takes nothing until there is room");
            Health::Full { why, retry_at: Instant::now() + ROOM_INTERVAL }
        } else {
            tracing::error!(error = %why, "the embedded store cannot be written any more; restart it");
            Health::Broken { why }
        };
    }
}
