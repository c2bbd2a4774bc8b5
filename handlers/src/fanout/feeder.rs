//! The feeder: what is appended anywhere goes to the edges whose clients read it
//! (`zhttp-spec/hold.md` §6 and §7).
//!
//! ```text
//!  edges ── feed, unfeed, range ──▶ ┌────────┐ ──▶ the follow task: follows, then reads heads
//!  long polls ── wait ────────────▶ │ Feeder │ ◀── heads
//!  store ── announcements ────────▶ └────────┘ ──▶ tasks that answer ranges
//!                                        └─ events, heads, gaps ──▶ edges
//! ```
//!
//! One task owns the [`Table`], so there is no lock, and one order in which things happen. It waits
//! for nothing but its inputs: what waits for the store is in other tasks, and an edge whose queue
//! is full gets nothing, instead of making the others wait. What it missed it learns by the next
//! heads, and asks for.
//!
//! **No event falls between two chairs.** A channel is followed first, and once that is confirmed
//! its head is read (H-42); the edge compares it with what it has. After announcements were
//! interrupted all heads are read again. Each second edges are told the heads that moved, and each
//! head at least every ten seconds. An edge that finds itself behind asks for a range. A log that
//! expired is announced by nobody: the head of a quiet channel is read again within two minutes. One
//! that is gone, or has lost its tail, is made to go on ([`lost`](super::lost)).
//!
//! Announcements that are ready at the same time go out together: the busier a channel is, the
//! fewer packets an event costs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior};
use zhttp::Cursor;

use super::following::{FollowJob, Follower, HeadsRead, Purpose};
use super::heads::HeadsReader;
use super::lost::{LostTail, Mended, RETRY_PAUSE, mend};
use super::packets::Packets;
use super::ranges::{RangeJob, answer_range};
use super::table::{HeadNews, Table};
use crate::attach::{Down, EdgeId, EdgeSender, FeedRequest, RangeWanted, Refused};
use crate::store::{ChannelName, FollowStream, Followed, Retention, Store, StoredEvent};

/// How often edges are told the heads that moved (H-44).
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Announcements that are taken together. Bounds how long other inputs wait.
const EVENTS_PER_TURN_MAX: usize = 1024;

/// Inputs that wait for the feeder. At the limit those who ask wait.
const INPUTS_MAX: usize = 1024;

/// Ranges that are being answered. Past it a range is dropped; the edge asks again, or another. Each
/// holds at most [`super::ranges::RANGE_BYTES_MAX`].
const RANGES_MAX: usize = 256;

/// Jobs that wait for the follow task. Past it a `feed` is dropped. The edge asks again, as it hears nothing of the
/// channels.
const FOLLOW_JOBS_MAX: usize = 1024;

/// Tasks that append to logs that have lost their tail, each one log after the other; more wait.
const MENDS_MAX: usize = 8;

/// Channels that are forgotten in one heartbeat.
const UNWANTED_PER_BEAT_MAX: usize = 10_000;

/// Bytes of events that an edge gets unasked when it names its head (H-43).
const CATCH_UP_BYTES: u64 = 64 * 1024;

/// One edge, as the feeder needs it.
pub(crate) trait EdgeSink: Clone + Send + Sync + 'static {
    /// Which one.
    fn id(&self) -> EdgeId;

    /// Sends if there is room.
    fn try_send(&self, packet: Bytes) -> Result<(), Refused>;

    /// Sends when there is room.
    fn send(&self, packet: Bytes) -> impl Future<Output = Result<(), Down>> + Send;
}

impl EdgeSink for EdgeSender {
    fn id(&self) -> EdgeId {
        EdgeSender::id(self)
    }

    fn try_send(&self, packet: Bytes) -> Result<(), Refused> {
        EdgeSender::try_send(self, packet)
    }

    async fn send(&self, packet: Bytes) -> Result<(), Down> {
        EdgeSender::send(self, packet).await
    }
}

/// What is asked of the feeder.
#[derive(Debug)]
pub(crate) enum Input<E> {
    /// An edge is there, perhaps again.
    EdgeUp(E),
    /// An edge is gone.
    EdgeDown(EdgeId),
    /// An edge wants to be fed with these channels, and has them up to there.
    Feed(E, Vec<(String, Option<Cursor>)>),
    /// An edge has no reader of these channels any more.
    Unfeed(EdgeId, Vec<String>),
    /// An edge wants stored events.
    Range(E, RangeWanted),
    /// Somebody wants to know when there is an event after a cursor.
    Wait(ChannelName, Cursor, oneshot::Sender<()>),
}

impl From<FeedRequest> for Input<EdgeSender> {
    fn from(request: FeedRequest) -> Self {
        match request {
            FeedRequest::EdgeUp(edge) => Input::EdgeUp(edge),
            FeedRequest::EdgeDown(edge) => Input::EdgeDown(edge),
            FeedRequest::Feed(edge, channels) => Input::Feed(edge, channels),
            FeedRequest::Unfeed(edge, channels) => Input::Unfeed(edge, channels),
            FeedRequest::Range(edge, wanted) => Input::Range(edge, wanted),
        }
    }
}

/// What the feeder did so far.
#[derive(Debug, Default)]
pub struct FeederStats {
    /// Channels that are followed now.
    pub channels: AtomicU64,
    /// Long polls that wait now.
    pub waits: AtomicU64,
    /// Events that were put into packets.
    pub events_total: AtomicU64,
    /// Packets that an edge did not get since its queue was full.
    pub dropped_total: AtomicU64,
    /// Ranges that were answered.
    pub ranges_total: AtomicU64,
    /// Feeds and ranges that were not, since too many were underway.
    pub refused_total: AtomicU64,
    /// Times that announcements were interrupted.
    pub interrupted_total: AtomicU64,
    /// Logs that had lost their tail, and were made to go on from here.
    pub lost_tails_total: AtomicU64,
}

/// Asks the feeder. A clone asks the same one; it ends with the last of them.
#[derive(Debug)]
pub(crate) struct FeederHandle<E> {
    inputs: mpsc::Sender<Input<E>>,
}

impl<E> Clone for FeederHandle<E> {
    fn clone(&self) -> Self {
        FeederHandle { inputs: self.inputs.clone() }
    }
}

impl<E: EdgeSink> FeederHandle<E> {
    /// Returns when the feeder has ended: by a bug, or because its store is closed.
    pub(crate) async fn ended(&self) {
        self.inputs.closed().await;
    }

    /// Whether it has.
    pub(crate) fn has_ended(&self) -> bool {
        self.inputs.is_closed()
    }

    /// Waits for room.
    pub(crate) async fn send(&self, input: Input<E>) {
        // A feeder that is gone has no use for it.
        let _ = self.inputs.send(input).await;
    }

    /// Returns when there is an event after the cursor; never if the feeder is gone, so that the
    /// caller's time limit is what ends the wait.
    pub(crate) async fn wait(&self, channel: ChannelName, after: Cursor) {
        let (done, waited) = oneshot::channel();
        self.send(Input::Wait(channel, after, done)).await;
        if waited.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// The feeder of one process.
pub(crate) struct Feeder<S, E> {
    store: S,
    heads: HeadsReader,
    packets: Packets,
    table: Table,
    edges: BTreeMap<EdgeId, E>,
    follow_jobs: mpsc::Sender<FollowJob<E>>,
    ranges: Arc<Semaphore>,
    mends: Arc<Semaphore>,
    retention: Retention,
    stats: Arc<FeederStats>,
}

impl<S: Store, E: EdgeSink> Feeder<S, E> {
    /// Starts a feeder whose packets are from `from`, and whose own events are kept for `retention`.
    /// Must be called within a tokio runtime.
    pub(crate) fn start(
        store: S,
        heads: HeadsReader,
        (from, retention): (Bytes, Retention),
        stats: Arc<FeederStats>,
    ) -> FeederHandle<E> {
        let (inputs, waiting) = mpsc::channel(INPUTS_MAX);
        let (follow_jobs, jobs) = mpsc::channel(FOLLOW_JOBS_MAX);
        let (reads, heads_read) = mpsc::channel(FOLLOW_JOBS_MAX);
        let (handle, announcements) = store.follow();
        let follower = Follower { handle, heads: heads.clone(), jobs, reads };
        tokio::spawn(follower.run());
        let feeder = Feeder {
            store,
            heads,
            packets: Packets::new(from),
            table: Table::default(),
            edges: BTreeMap::new(),
            follow_jobs,
            ranges: Arc::new(Semaphore::new(RANGES_MAX)),
            mends: Arc::new(Semaphore::new(MENDS_MAX)),
            retention,
            stats,
        };
        tokio::spawn(feeder.run(waiting, announcements, heads_read));
        FeederHandle { inputs }
    }

    /// Works until nobody can ask it any more, or the store is closed, or one of the tasks is gone
    /// that it cannot work without.
    async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input<E>>,
        mut announcements: FollowStream,
        mut heads_read: mpsc::Receiver<HeadsRead<E>>,
    ) {
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (follower, reader) = (self.follow_jobs.clone(), self.heads.clone());
        loop {
            tokio::select! {
                () = follower.closed() => return tracing::error!("the follow task is gone"),
                () = reader.ended() => return tracing::error!("the reader of heads is gone"),
                input = inputs.recv() => match input {
                    Some(input) => self.handle_input(input),
                    None => return,
                },
                followed = announcements.next() => match followed {
                    Some(first) => self.handle_announcements(first, &mut announcements).await,
                    None => return,
                },
                Some(read) = heads_read.recv() => self.handle_heads(&read),
                _ = heartbeat.tick() => self.handle_heartbeat(Instant::now()),
            }
        }
    }

    fn handle_input(&mut self, input: Input<E>) {
        match input {
            Input::EdgeUp(edge) => {
                self.table.handle_edge_down(edge.id());
                self.edges.insert(edge.id(), edge);
            }
            Input::EdgeDown(id) => {
                self.table.handle_edge_down(id);
                self.edges.remove(&id);
            }
            Input::Feed(edge, channels) => self.handle_feed(edge, &channels),
            Input::Unfeed(id, channels) => {
                for channel in channels.iter().filter_map(|name| parsed(name)) {
                    self.table.handle_unfeed(&channel, id);
                }
            }
            Input::Range(edge, wanted) => {
                let Some(channel) = parsed(&wanted.channel) else { return };
                let RangeWanted { after, bytes, .. } = wanted;
                let seen = self.table.head(&channel);
                let job = RangeJob { edge, channel, after, bytes, seen, and_head: false };
                if self.spawn_range(job).is_err() {
                    self.count(&self.stats.refused_total);
                }
            }
            Input::Wait(channel, after, done) => {
                self.table.handle_wait(&channel, after, done);
                self.follow(vec![channel], Purpose::Update);
            }
        }
    }

    fn handle_feed(&mut self, edge: E, channels: &[(String, Option<Cursor>)]) {
        self.edges.insert(edge.id(), edge.clone());
        let mut names = Vec::with_capacity(channels.len());
        let mut has = Vec::with_capacity(channels.len());
        for (name, edge_head) in channels {
            let Some(channel) = parsed(name) else { continue };
            self.table.handle_feed(&channel, edge.id());
            names.push(channel);
            has.push(*edge_head);
        }
        self.follow(names, Purpose::Answer { edge, has });
    }

    fn follow(&self, names: Vec<ChannelName>, purpose: Purpose<E>) {
        if self.follow_jobs.try_send(FollowJob::Follow(names, self.table.asked(), purpose)).is_err()
        {
            self.count(&self.stats.refused_total);
        }
    }

    /// Takes this announcement and those that are ready behind it.
    async fn handle_announcements(&mut self, first: Followed, stream: &mut FollowStream) {
        let mut runs = Runs::default();
        let mut next = Some(first);
        let mut count = 0;
        while let Some(followed) = next {
            match followed {
                Followed::Event { channel, event } => {
                    if self.table.handle_event(&channel, &event) {
                        runs.push(channel, event);
                    }
                }
                Followed::Deleted { channel } => {
                    // What was announced before it goes out before it.
                    self.send_runs(std::mem::take(&mut runs));
                    self.reread(vec![channel]);
                }
                Followed::Interrupted => {
                    self.count(&self.stats.interrupted_total);
                    tracing::warn!("announcements may be missed");
                }
                Followed::Restored => {
                    tracing::info!(channels = self.table.len(), "announcements are seen again");
                    self.reread(self.table.names());
                }
            }
            count += 1;
            next = if count < EVENTS_PER_TURN_MAX { ready(stream).await } else { None };
        }
        self.send_runs(runs);
    }

    fn send_runs(&self, runs: Runs) {
        for (channel, events) in runs.channels {
            let edges = self.table.edges(&channel);
            self.stats.events_total.fetch_add(events.len() as u64, Ordering::Relaxed);
            for packet in self.packets.events(&channel, &events) {
                self.send_to(edges, &packet);
            }
        }
    }

    /// Lets the heads of channels be read that are followed already.
    fn reread(&self, names: Vec<ChannelName>) {
        // Lost, it would be lost for good, so this one waits for its place, in a task of its own.
        let (jobs, asked) = (self.follow_jobs.clone(), self.table.asked());
        tokio::spawn(async move { jobs.send(FollowJob::Reread(names, asked)).await });
    }

    /// Heads were read: for an edge that asked, or because some may have moved unseen.
    fn handle_heads(&mut self, read: &HeadsRead<E>) {
        let mut moved: BTreeMap<EdgeId, Vec<(ChannelName, Cursor)>> = BTreeMap::new();
        let (mut doubtful, mut lost) = (Vec::new(), Vec::new());
        for (name, head) in read.names.iter().zip(&read.heads) {
            if read.is_followed {
                self.table.handle_followed(name, read.asked);
            }
            match self.table.handle_head(name, head, read.asked) {
                HeadNews::None => {}
                HeadNews::Moved => {
                    for edge in self.table.edges(name) {
                        moved.entry(*edge).or_default().push((name.clone(), head.id));
                    }
                }
                HeadNews::Lost(seen) => {
                    lost.push(LostTail { channel: name.clone(), head: *head, seen });
                }
                HeadNews::Doubtful => doubtful.push(name.clone()),
            }
        }
        if !doubtful.is_empty() {
            self.reread(doubtful);
        }
        if let Purpose::Answer { edge, has } = &read.purpose {
            // It gets all heads below.
            moved.remove(&edge.id());
            lost.extend(self.lost_to_edge(read, has));
            self.answer_feed(edge, read, has);
        }
        if !lost.is_empty() {
            self.mend(lost);
        }
        for (edge, heads) in moved {
            self.send_heads(edge, &heads);
        }
    }

    /// Of the channels that an edge wants to be fed, those that it has further than the store has, and
    /// than this feeder has seen: what that has seen is noticed without it. What an edge has it had from a feeder, before this was read.
    fn lost_to_edge(&self, read: &HeadsRead<E>, has: &[Option<Cursor>]) -> Vec<LostTail> {
        let of_all = read.names.iter().zip(&read.heads).zip(has);
        of_all
            .filter_map(|((name, head), has)| {
                let seen = (*has)?;
                let is_lost = seen > self.table.head(name).max(head.id);
                is_lost.then(|| LostTail { channel: name.clone(), head: *head, seen })
            })
            .collect()
    }

    /// Lets logs go on that are shorter than they were, in a task of its own.
    fn mend(&self, lost: Vec<LostTail>) {
        let (store, retention, mends) = (self.store.clone(), self.retention, self.mends.clone());
        let stats = Arc::clone(&self.stats);
        // What is learned from now on is newer than what is read again as of now.
        let (jobs, asked) = (self.follow_jobs.clone(), self.table.asked());
        tokio::spawn(async move {
            let Ok(_permit) = mends.acquire_owned().await else { return };
            let Mended { doubtful, tails } = mend(&store, retention, lost).await;
            stats.lost_tails_total.fetch_add(tails, Ordering::Relaxed);
            if !doubtful.is_empty() {
                tokio::time::sleep(RETRY_PAUSE).await;
                let _ = jobs.send(FollowJob::Reread(doubtful, asked)).await;
            }
        });
    }

    /// Answers a `feed`: for each channel what the edge does not have yet, and its head (H-43).
    fn answer_feed(&self, edge: &E, read: &HeadsRead<E>, has: &[Option<Cursor>]) {
        let mut heads = Vec::with_capacity(read.names.len());
        for ((name, head), has) in read.names.iter().zip(&read.heads).zip(has) {
            // By now it may be further than what was read.
            let head_now = self.table.head(name).max(head.id);
            let catch_up = has.filter(|has| *has < head.id).map(|after| RangeJob {
                edge: edge.clone(),
                channel: name.clone(),
                after,
                bytes: CATCH_UP_BYTES,
                seen: head_now,
                and_head: true,
            });
            // Without room for the catch-up the head alone does: the edge asks for the range.
            if catch_up.is_none_or(|job| self.spawn_range(job).is_err()) {
                heads.push((name.clone(), head_now));
            }
        }
        self.send_heads(edge.id(), &heads);
    }

    fn handle_heartbeat(&mut self, now: Instant) {
        for (edge, heads) in self.table.poll_beat() {
            self.send_heads(edge, &heads);
        }
        // Expiry is not announced, so nobody would hear of it where no cleaner runs.
        let quiet = self.table.poll_quiet();
        if !quiet.is_empty() {
            self.reread(quiet);
        }
        // Only as many as the follow task has room for: else it would follow them for ever.
        if let Ok(permit) = self.follow_jobs.try_reserve() {
            let unwanted = self.table.poll_unwanted(now, UNWANTED_PER_BEAT_MAX);
            if !unwanted.is_empty() {
                permit.send(FollowJob::Unfollow(unwanted));
            }
        }
        self.stats.channels.store(self.table.len() as u64, Ordering::Relaxed);
        self.stats.waits.store(self.table.waits() as u64, Ordering::Relaxed);
    }

    fn send_heads(&self, edge: EdgeId, heads: &[(ChannelName, Cursor)]) {
        for packet in self.packets.heads(heads) {
            self.send_to(&[edge], &packet);
        }
    }

    fn send_to(&self, edges: &[EdgeId], packet: &Bytes) {
        for edge in edges.iter().filter_map(|id| self.edges.get(id)) {
            match edge.try_send(packet.clone()) {
                Ok(()) => {}
                Err(Refused::Full(_)) => self.count(&self.stats.dropped_total),
                // It will be told that it is down, and the edge asks anew when it is back.
                Err(Refused::Down(_)) => {}
            }
        }
    }

    /// Answers a range in a task of its own. `Err` if too many are being answered.
    fn spawn_range(&self, job: RangeJob<E>) -> Result<(), ()> {
        let permit = Arc::clone(&self.ranges).try_acquire_owned().map_err(|_| ())?;
        let (store, packets) = (self.store.clone(), self.packets.clone());
        let (stats, retention) = (Arc::clone(&self.stats), self.retention);
        tokio::spawn(async move {
            if answer_range(&store, retention, &packets, &job).await.is_ok() {
                stats.ranges_total.fetch_add(1, Ordering::Relaxed);
            }
            drop(permit);
        });
        Ok(())
    }

    fn count(&self, counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The name of a channel, as an edge says it. Edges check names against a wider alphabet; one that
/// is none of ours has no log, and was in no hold of ours.
fn parsed(name: &str) -> Option<ChannelName> {
    ChannelName::parse(name).ok().filter(|channel| channel.as_str() == name)
}

/// The next announcement, if it is there already.
async fn ready(stream: &mut FollowStream) -> Option<Followed> {
    tokio::select! {
        biased;
        followed = stream.next() => followed,
        () = std::future::ready(()) => None,
    }
}

/// Announced events by channel, each channel's in their order.
#[derive(Default)]
struct Runs {
    channels: Vec<(ChannelName, Vec<StoredEvent>)>,
    places: HashMap<ChannelName, usize>,
}

impl Runs {
    fn push(&mut self, channel: ChannelName, event: StoredEvent) {
        let place = *self.places.entry(channel).or_insert_with_key(|channel| {
            self.channels.push((channel.clone(), Vec::new()));
            self.channels.len() - 1
        });
        self.channels[place].1.push(event);
    }
}

#[cfg(test)]
mod tests;
