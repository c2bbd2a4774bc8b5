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
//! lane tries its first message again, until [`RETRY_MAX`] after it was accepted: the message id
//! makes that safe. After that, and if the process dies, the message is lost: a 202 is no promise.
//! A publisher that waits for its answer is not kept waiting behind a lane that tries again: it gets
//! the store's failure at once, and decides by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use super::outcomes::{Outcome, Outcomes};
use crate::store::{AppendError, Appended, ChannelName, Conditions, NewEvent, Store, StoreError};

/// How many lanes there are. Each has one append underway at most: with a store that answers in a
/// millisecond all together store 64,000 messages a second.
pub const LANES: usize = 64;

/// How long after it was accepted a message is tried again while the store is away. It is tried
/// once at least, unless the one before it has just failed.
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
    waits: Waits,
    /// Its part of the room that all lanes have together.
    _room: OwnedSemaphorePermit,
}

/// For what a job waits that is in a lane.
enum Waits {
    /// For its turn, and somebody for its answer.
    Answered(oneshot::Sender<Result<Appended, AppendError>>),
    /// For its turn; it was accepted, and is not tried again after that.
    Accepted(Instant),
}

/// What is known of a lane outside of its task.
#[derive(Debug, Default)]
struct Gauge {
    /// Jobs in it, the one that is being done counted in.
    len: AtomicUsize,
    /// The store is away, and the first job is tried again and again.
    retrying: AtomicBool,
}

/// One queue.
struct Lane {
    queue: mpsc::UnboundedSender<Queued>,
    gauge: Arc<Gauge>,
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
            let gauge = Arc::new(Gauge::default());
            let task = Task {
                store: store.clone(),
                jobs,
                ahead: VecDeque::new(),
                gauge: Arc::clone(&gauge),
                outcomes: Arc::clone(outcomes),
                away: None,
            };
            tokio::spawn(task.run());
            Lane { queue, gauge }
        };
        let lanes = (0..LANES).map(|_| lane()).collect();
        let room = Arc::new(Semaphore::new(messages_max as usize));
        Lanes { store, lanes, room, messages_max }
    }

    /// Appends, behind what was accepted before for the same channel, and says how it went.
    pub(super) async fn append(&self, job: Job) -> Result<Appended, AppendError> {
        let lane = self.lane_of(&job.channel);
        if lane.gauge.len.load(Ordering::Acquire) == 0 {
            return self.store.append(&job.channel, job.event, &job.conditions).await;
        }
        if lane.gauge.retrying.load(Ordering::Acquire) {
            return Err(behind());
        }
        let lost = |why: &str| AppendError::Unavailable(StoreError::Unavailable(why.to_owned()));
        let room = Arc::clone(&self.room).try_acquire_owned();
        let room = room.map_err(|_| lost("too many accepted messages wait"))?;
        let (answer, answered) = oneshot::channel();
        lane.push(Queued { job, waits: Waits::Answered(answer), _room: room });
        answered.await.map_err(|_| lost("the queue is closed"))?
    }

    /// Takes messages to be appended in their order some time after this; all or none.
    pub(super) fn accept(&self, jobs: Vec<Job>) -> Result<(), Full> {
        let count = u32::try_from(jobs.len()).map_err(|_| Full)?;
        let mut room = Arc::clone(&self.room).try_acquire_many_owned(count).map_err(|_| Full)?;
        let until = Instant::now() + RETRY_MAX;
        for job in jobs {
            let room = room.split(1).expect("there is a permit for each");
            let waits = Waits::Accepted(until);
            self.lane_of(&job.channel).push(Queued { job, waits, _room: room });
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
        self.gauge.len.fetch_add(1, Ordering::AcqRel);
        if self.queue.send(queued).is_err() {
            // The runtime is going down and took the task with it.
            self.gauge.len.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Why a job is not done that wants its answer while those before it are tried again.
fn behind() -> AppendError {
    let why = "accepted messages of the same lane wait for it".to_owned();
    AppendError::Unavailable(StoreError::Unavailable(why))
}

/// The task of a lane.
struct Task<S> {
    store: S,
    jobs: mpsc::UnboundedReceiver<Queued>,
    /// Jobs that were taken from the queue before their turn, in order; none wants an answer.
    ahead: VecDeque<Queued>,
    gauge: Arc<Gauge>,
    outcomes: Arc<Outcomes>,
    /// Why the last job failed, if the store was away until it was given up.
    away: Option<StoreError>,
}

impl<S: Store> Task<S> {
    async fn run(mut self) {
        while let Some(Queued { job, waits, _room }) = self.next().await {
            match waits {
                Waits::Answered(answer) => {
                    let result = self.store.append(&job.channel, job.event, &job.conditions).await;
                    self.gauge.len.fetch_sub(1, Ordering::AcqRel);
                    // Who asked may have left.
                    let _ = answer.send(result);
                }
                Waits::Accepted(until) => {
                    let result = self.append_patiently(&job, until).await;
                    self.gauge.len.fetch_sub(1, Ordering::AcqRel);
                    let (outcome, reason) = super::answer::outcome(&result);
                    if outcome == Outcome::Internal {
                        tracing::warn!(channel = %job.channel, reason, "an accepted message is lost");
                    }
                    self.outcomes.count(outcome, reason);
                }
            }
        }
    }

    async fn next(&mut self) -> Option<Queued> {
        match self.ahead.pop_front() {
            Some(queued) => Some(queued),
            None => self.jobs.recv().await,
        }
    }

    /// Appends, again and again while the store is away, up to a time. What was accepted long ago
    /// is not tried at all if the one before it was just given up: else each of a full lane would
    /// wait for the store's time limit.
    async fn append_patiently(
        &mut self,
        job: &Job,
        until: Instant,
    ) -> Result<Appended, AppendError> {
        if let Some(error) = self.away.clone().filter(|_| Instant::now() >= until) {
            return Err(AppendError::Unavailable(error));
        }
        let result = loop {
            let result = self.store.append(&job.channel, job.event.clone(), &job.conditions).await;
            if !matches!(result, Err(AppendError::Unavailable(_)))
                || Instant::now() + RETRY_PAUSE >= until
            {
                break result;
            }
            self.gauge.retrying.store(true, Ordering::Release);
            self.refuse_those_who_wait();
            tokio::time::sleep(RETRY_PAUSE).await;
        };
        self.gauge.retrying.store(false, Ordering::Release);
        self.away = match &result {
            Err(AppendError::Unavailable(error)) => Some(error.clone()),
            Ok(_) | Err(AppendError::Conflict { .. } | AppendError::RateLimited { .. }) => None,
        };
        result
    }

    /// Answers all those in the queue who want an answer: no.
    fn refuse_those_who_wait(&mut self) {
        while let Ok(queued) = self.jobs.try_recv() {
            match queued.waits {
                Waits::Answered(answer) => {
                    self.gauge.len.fetch_sub(1, Ordering::AcqRel);
                    let _ = answer.send(Err(behind()));
                }
                Waits::Accepted(_) => self.ahead.push_back(queued),
            }
        }
    }
}
