//! Lanes: the order of a channel's messages, also when some are answered before they are stored.
//!
//! With `ack=accepted` a publisher has its answer before the append, and may send the next message
//! while the last one is still on its way. So such messages go into one of [`LANES`] queues, by
//! their channel, each emptied by one task, one message after the other. A message that wants to be
//! answered when it is stored goes to the store directly, unless its lane has something in it: then
//! it queues up too. So what one connection sends to a channel is stored in its order, as long as
//! this process gets all of it; an edge that spreads a connection's requests over several publish
//! processes keeps that order only for those that wait for their answers.
//!
//! The queues are bounded together, by [`Lanes::new`]'s `messages_max`. While the store is away a
//! lane tries its first message again, for up to [`RETRY_MAX`]: the message id makes that safe.
//! After that, and if the process dies, the message is lost: a 202 is no promise.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::outcomes::{Outcome, Outcomes};
use crate::store::{AppendError, Appended, ChannelName, Conditions, NewEvent, Store, StoreError};

/// How many lanes there are. Each has one append underway at most: with a store that answers in a
/// millisecond all together store 64,000 messages a second.
pub const LANES: usize = 64;

/// How long an accepted message is tried again while the store is away.
pub const RETRY_MAX: Duration = Duration::from_secs(10);

/// The pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// An append that waits for its turn.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) channel: ChannelName,
    pub(super) event: NewEvent,
    pub(super) conditions: Conditions,
}

/// A job in its lane.
struct Queued {
    job: Job,
    /// Who waits for it; nobody, if it was accepted.
    answer: Option<oneshot::Sender<Result<Appended, AppendError>>>,
    /// Its part of the room that all lanes have together.
    _room: OwnedSemaphorePermit,
}

/// One queue and its length, the job that is being done counted in.
struct Lane {
    queue: mpsc::UnboundedSender<Queued>,
    len: Arc<AtomicUsize>,
}

/// All lanes.
pub(super) struct Lanes<S> {
    store: S,
    lanes: Vec<Lane>,
    room: Arc<Semaphore>,
    messages_max: u32,
}

/// No room in the lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl<S: Store> Lanes<S> {
    /// Empty lanes with room for `messages_max` messages together. Their tasks end with this.
    pub(super) fn new(store: S, messages_max: u32, outcomes: &Arc<Outcomes>) -> Self {
        let lane = || {
            let (queue, jobs) = mpsc::unbounded_channel();
            let len = Arc::new(AtomicUsize::new(0));
            tokio::spawn(serve(store.clone(), jobs, Arc::clone(&len), Arc::clone(outcomes)));
            Lane { queue, len }
        };
        let lanes = (0..LANES).map(|_| lane()).collect();
        let room = Arc::new(Semaphore::new(messages_max as usize));
        Lanes { store, lanes, room, messages_max }
    }

    /// Appends, behind what was accepted before for the same channel, and says how it went.
    pub(super) async fn append(&self, job: Job) -> Result<Appended, AppendError> {
        let lane = self.lane_of(&job.channel);
        if lane.len.load(Ordering::Acquire) == 0 {
            return self.store.append(&job.channel, job.event, &job.conditions).await;
        }
        let lost = |why: &str| AppendError::Unavailable(StoreError::Unavailable(why.to_owned()));
        let room = Arc::clone(&self.room).try_acquire_owned();
        let room = room.map_err(|_| lost("too many accepted messages wait"))?;
        let (answer, answered) = oneshot::channel();
        lane.push(Queued { job, answer: Some(answer), _room: room });
        answered.await.map_err(|_| lost("the queue is closed"))?
    }

    /// Takes messages to be appended in their order some time after this; all or none.
    pub(super) fn accept(&self, jobs: Vec<Job>) -> Result<(), Full> {
        let count = u32::try_from(jobs.len()).map_err(|_| Full)?;
        let mut room = Arc::clone(&self.room).try_acquire_many_owned(count).map_err(|_| Full)?;
        for job in jobs {
            let room = room.split(1).expect("there is a permit for each");
            self.lane_of(&job.channel).push(Queued { job, answer: None, _room: room });
        }
        Ok(())
    }

    /// Waits until everything that was accepted has its outcome.
    pub(super) async fn drained(&self) {
        // The semaphore is never closed, so this is no error.
        let _ = self.room.acquire_many(self.messages_max).await;
    }

    fn lane_of(&self, channel: &ChannelName) -> &Lane {
        // As many lanes as shards of the activity index, so its stable hash is as good as any.
        &self.lanes[channel.shard() as usize % LANES]
    }
}

impl Lane {
    fn push(&self, queued: Queued) {
        self.len.fetch_add(1, Ordering::AcqRel);
        if self.queue.send(queued).is_err() {
            // The runtime is going down and took the task with it.
            self.len.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The task of a lane.
async fn serve<S: Store>(
    store: S,
    mut queue: mpsc::UnboundedReceiver<Queued>,
    len: Arc<AtomicUsize>,
    outcomes: Arc<Outcomes>,
) {
    while let Some(Queued { job, answer, _room }) = queue.recv().await {
        match answer {
            Some(answer) => {
                let result = store.append(&job.channel, job.event, &job.conditions).await;
                len.fetch_sub(1, Ordering::AcqRel);
                // Who asked may have left.
                let _ = answer.send(result);
            }
            None => {
                let result = append_patiently(&store, &job).await;
                len.fetch_sub(1, Ordering::AcqRel);
                let (outcome, reason) = super::answer::outcome(&result);
                if outcome == Outcome::Internal {
                    tracing::warn!(channel = %job.channel, reason, "an accepted message is lost");
                }
                outcomes.count(outcome, reason);
            }
        }
    }
}

/// Appends, again and again while the store is away, up to a time.
async fn append_patiently<S: Store>(store: &S, job: &Job) -> Result<Appended, AppendError> {
    let deadline = Instant::now() + RETRY_MAX;
    loop {
        let result = store.append(&job.channel, job.event.clone(), &job.conditions).await;
        match result {
            Err(AppendError::Unavailable(_)) if Instant::now() + RETRY_PAUSE < deadline => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            result => return result,
        }
    }
}
