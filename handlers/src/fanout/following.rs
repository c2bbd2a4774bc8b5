//! The follow task: follows channels, and reads their heads once that is confirmed.
//!
//! Both need the store, and so wait; the feeder must not. Jobs are done in the order in which they
//! come, so that a channel that is wanted again just after it was given up ends up followed. What a
//! job follows is asked for all at once, which a store turns into few commands; the heads are read
//! in tasks of their own, so that a slow read keeps nobody waiting.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use zhttp::Cursor;

use super::heads::HeadsReader;
use super::table::Asked;
use crate::store::{ChannelName, FollowHandle, Head};

/// Reads that are underway at once; past it jobs wait.
const READS_MAX: usize = 64;

/// Channels in one read of those that are read again.
const REREAD_CHANNELS_MAX: usize = 1000;

/// The pause after a read that failed, when all channels are read again.
const REREAD_PAUSE: Duration = Duration::from_millis(250);

/// Attempts to read channels again. An edge is told of each head every ten seconds at the latest,
/// but a head that was never read again stays unknown: so there are many, over minutes. Should the
/// store be away for longer, its return is another reason to read.
const REREAD_ATTEMPTS_MAX: u32 = 480;

/// What the feeder wants.
#[derive(Debug)]
pub(super) enum FollowJob<E> {
    /// Follow these, then read their heads.
    Follow(Vec<ChannelName>, Asked, Purpose<E>),
    /// Read the heads of these, whatever it takes.
    Reread(Vec<ChannelName>, Asked),
    /// Follow these no more.
    Unfollow(Vec<ChannelName>),
}

/// What heads are read for.
#[derive(Debug)]
pub(super) enum Purpose<E> {
    /// To know them.
    Update,
    /// To answer an edge that has each channel up to there.
    Answer {
        /// Who asked.
        edge: E,
        /// For each channel what it has.
        has: Vec<Option<Cursor>>,
    },
}

/// Heads, read after their channels were followed.
#[derive(Debug)]
pub(super) struct HeadsRead<E> {
    pub(super) names: Vec<ChannelName>,
    /// For each name its head.
    pub(super) heads: Vec<Head>,
    /// When that was asked for.
    pub(super) asked: Asked,
    pub(super) purpose: Purpose<E>,
}

/// The task.
pub(super) struct Follower<E> {
    pub(super) handle: FollowHandle,
    pub(super) heads: HeadsReader,
    pub(super) jobs: mpsc::Receiver<FollowJob<E>>,
    pub(super) reads: mpsc::Sender<HeadsRead<E>>,
}

impl<E: Send + 'static> Follower<E> {
    /// Works until there is nobody who wants anything.
    pub(super) async fn run(mut self) {
        let room = Arc::new(Semaphore::new(READS_MAX));
        while let Some(job) = self.jobs.recv().await {
            match job {
                FollowJob::Follow(names, asked, purpose) => {
                    if !self.follow(&names).await {
                        // Not confirmed: the edge asks again. What was wanted is followed when the
                        // store is back, and then all heads are read.
                        continue;
                    }
                    let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
                    let (heads, reads) = (self.heads.clone(), self.reads.clone());
                    tokio::spawn(async move {
                        if let Ok(heads) = heads.read(names.clone()).await {
                            let _ = reads.send(HeadsRead { names, heads, asked, purpose }).await;
                        }
                        drop(permit);
                    });
                }
                FollowJob::Reread(names, asked) => {
                    tokio::spawn(reread(self.heads.clone(), self.reads.clone(), names, asked));
                }
                FollowJob::Unfollow(names) => self.unfollow(&names).await,
            }
        }
    }

    /// Follows all of these; returns whether that is confirmed for each.
    async fn follow(&self, names: &[ChannelName]) -> bool {
        let mut adding = JoinSet::new();
        for name in names {
            let (handle, name) = (self.handle.clone(), name.clone());
            adding.spawn(async move { handle.add(name).await });
        }
        adding.join_all().await.iter().all(Result::is_ok)
    }

    async fn unfollow(&self, names: &[ChannelName]) {
        let mut removing = JoinSet::new();
        for name in names {
            let (handle, name) = (self.handle.clone(), name.clone());
            removing.spawn(async move { handle.remove(name).await });
        }
        // A store that is away forgets them all the same.
        removing.join_all().await;
    }
}

/// Reads heads a piece at a time, again if it fails.
async fn reread<E>(
    reader: HeadsReader,
    reads: mpsc::Sender<HeadsRead<E>>,
    names: Vec<ChannelName>,
    asked: Asked,
) {
    let mut attempts = 0;
    for names in names.chunks(REREAD_CHANNELS_MAX) {
        let heads = loop {
            match reader.read(names.to_vec()).await {
                Ok(heads) => break heads,
                Err(error) if attempts == REREAD_ATTEMPTS_MAX => {
                    tracing::error!(%error, "heads could not be read again");
                    return;
                }
                Err(_) => attempts += 1,
            }
            if reads.is_closed() {
                return;
            }
            tokio::time::sleep(REREAD_PAUSE).await;
        };
        let read = HeadsRead { names: names.to_vec(), heads, asked, purpose: Purpose::Update };
        if reads.send(read).await.is_err() {
            return;
        }
    }
}
