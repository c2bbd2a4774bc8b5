//! The follow task: follows channels, and reads their heads once that is confirmed.
//!
//! Both need the store, and so wait; the feeder must not. Jobs are done in the order in which they
//! come, so that a channel that is wanted again just after it was given up ends up followed. What the
//! jobs follow that wait is asked for all at once, which a store turns into few commands: ten thousand
//! clients with a channel each are no more work than one with ten thousand. The heads are read
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

/// Jobs that are done together.
const JOBS_TOGETHER_MAX: usize = 256;

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
    /// That they are followed was confirmed before.
    pub(super) is_followed: bool,
    pub(super) purpose: Purpose<E>,
}

/// A job to follow: the channels, when that was asked for, and what for.
type Wanted<E> = (Vec<ChannelName>, Asked, Purpose<E>);

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
        let mut jobs = Vec::new();
        while self.jobs.recv_many(&mut jobs, JOBS_TOGETHER_MAX).await > 0 {
            let mut together = Vec::new();
            for job in jobs.drain(..) {
                match job {
                    FollowJob::Follow(names, asked, purpose) => {
                        together.push((names, asked, purpose));
                    }
                    FollowJob::Reread(names, asked) => {
                        tokio::spawn(reread(self.heads.clone(), self.reads.clone(), names, asked));
                    }
                    FollowJob::Unfollow(names) => {
                        self.follow_all(std::mem::take(&mut together), &room).await;
                        self.unfollow(&names).await;
                    }
                }
            }
            self.follow_all(together, &room).await;
        }
    }

    /// Follows what these jobs want, then has the heads read for each job of which all is confirmed.
    async fn follow_all(&self, mut jobs: Vec<Wanted<E>>, room: &Arc<Semaphore>) {
        let names: Vec<ChannelName> = jobs.iter().flat_map(|(names, ..)| names).cloned().collect();
        let mut confirmed = self.follow(&names).await.into_iter();
        // Not confirmed: the edge asks again. What was wanted is followed when the store is back,
        // and then all heads are read.
        jobs.retain(|(names, ..)| {
            confirmed.by_ref().take(names.len()).fold(true, |all, is_confirmed| all & is_confirmed)
        });
        if jobs.is_empty() {
            return;
        }
        let Ok(permit) = Arc::clone(room).acquire_owned().await else { return };
        let (heads, reads) = (self.heads.clone(), self.reads.clone());
        tokio::spawn(async move {
            let names = jobs.iter().flat_map(|(names, ..)| names).cloned().collect();
            if let Ok(heads) = heads.read(names).await {
                let mut heads = heads.into_iter();
                for (names, asked, purpose) in jobs {
                    let heads = heads.by_ref().take(names.len()).collect();
                    let read = HeadsRead { names, heads, asked, is_followed: true, purpose };
                    let _ = reads.send(read).await;
                }
            }
            drop(permit);
        });
    }

    /// Follows all of these; returns for each whether that is confirmed.
    async fn follow(&self, names: &[ChannelName]) -> Vec<bool> {
        let mut adding = JoinSet::new();
        for (index, name) in names.iter().enumerate() {
            let (handle, name) = (self.handle.clone(), name.clone());
            adding.spawn(async move { (index, handle.add(name).await.is_ok()) });
        }
        let mut confirmed = vec![false; names.len()];
        for (index, is_confirmed) in adding.join_all().await {
            confirmed[index] = is_confirmed;
        }
        confirmed
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
        let (names, purpose) = (names.to_vec(), Purpose::Update);
        let read = HeadsRead { names, heads, asked, is_followed: false, purpose };
        if reads.send(read).await.is_err() {
            return;
        }
    }
}
