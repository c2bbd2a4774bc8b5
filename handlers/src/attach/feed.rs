//! What edges ask of a feeder, on its way from the links to the feeder (`zhttp-spec/hold.md` §6,
//! §7).
//!
//! One queue for all edges. A link never waits for it, since behind a `range` there may be packets
//! of sessions that somebody waits for. So it is bounded by dropping, in three classes:
//!
//! | what | past its bound | why that is right |
//! | --- | --- | --- |
//! | `feed`, `range` | dropped at [`FEED_REQUESTS_MAX`] | the edge asks again (H-54), and asks another feeder if there is one |
//! | `unfeed` | dropped at [`UNFEED_REQUESTS_MAX`] | not asked again, so it gets more room; lost, it costs a channel that is followed for nothing |
//! | an edge came or went | never dropped | at most two of them wait for each edge, for the queue leaves out those that cancel out |
//!
//! When an edge goes, what it asked for is forgotten with it.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use zhttp::{Cursor, Kind, Packet, PacketError, hold};

use super::link::{LinkSender, Refused};

/// `feed` and `range` requests that wait at most. A `range` is some 300 bytes; a `feed` up to 256
/// KiB, but edges send few of those.
pub const FEED_REQUESTS_MAX: usize = 1_024;

/// So many requests, of whatever kind, have to wait until an `unfeed` is dropped.
pub const UNFEED_REQUESTS_MAX: usize = 4 * FEED_REQUESTS_MAX;

/// An edge: its index in [`AttachConfig::edges`](super::AttachConfig::edges).
pub type EdgeId = usize;

/// The edge is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the edge is away")]
pub struct Down;

/// What an edge asks of a feeder.
#[derive(Clone, Debug)]
pub enum FeedRequest {
    /// The edge is there, perhaps again: it knows nothing of what was sent before.
    EdgeUp(EdgeSender),
    /// The edge is gone; what it asked for is of no use any more. Follows its `EdgeUp`.
    EdgeDown(EdgeId),
    /// Follow these channels, and send what comes after each head; without a head, from where the
    /// log ends.
    Feed(EdgeSender, Vec<(String, Option<Cursor>)>),
    /// Nobody reads these channels at this edge any more.
    Unfeed(EdgeId, Vec<String>),
    /// Send stored events.
    Range(EdgeSender, RangeWanted),
}

/// Which stored events an edge wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeWanted {
    /// Of this channel, `<org>:<channel>`.
    pub channel: String,
    /// After this cursor.
    pub after: Cursor,
    /// About so many bytes of event data; at least one event.
    pub bytes: u64,
}

/// Sends packets to one edge. Cheap to clone; all clones share one queue, in order.
#[derive(Clone, Debug)]
pub struct EdgeSender {
    id: EdgeId,
    from: Arc<[u8]>,
    link: LinkSender,
}

impl EdgeSender {
    pub(super) fn new(id: EdgeId, from: Arc<[u8]>, link: LinkSender) -> Self {
        EdgeSender { id, from, link }
    }

    /// The edge.
    pub fn id(&self) -> EdgeId {
        self.id
    }

    /// Our instance id: the `from` of the packets.
    pub fn from(&self) -> &[u8] {
        &self.from
    }

    /// Sends an encoded packet, `T…`; waits while the link's bounded queue is full. Cancel-safe: if
    /// the future is dropped, the packet has not been taken.
    ///
    /// # Errors
    /// The edge is away. What it asked for is of no use any more.
    pub async fn send(&self, packet: Bytes) -> Result<(), Down> {
        self.link.send(packet).await.map_err(|_| Down)
    }

    /// Sends an encoded packet, `T…`, if the link's queue has room for it.
    ///
    /// # Errors
    /// Gives the packet back.
    pub fn try_send(&self, packet: Bytes) -> Result<(), Refused> {
        self.link.try_send(packet)
    }
}

/// The receiving end of the queue.
#[derive(Debug)]
pub struct FeedRequests(pub(super) Arc<FeedQueue>);

impl FeedRequests {
    /// The next request; `None` when the attachment has ended and nothing waits any more.
    /// Cancel-safe.
    pub async fn next(&mut self) -> Option<FeedRequest> {
        loop {
            // Before the look, so that what comes in between is not slept over.
            let changed = self.0.changed.notified();
            {
                let mut waiting = self.0.waiting();
                if let Some(request) = waiting.requests.pop_front() {
                    return Some(request);
                }
                if waiting.closed {
                    return None;
                }
            }
            changed.await;
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct FeedQueue {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    requests: VecDeque<FeedRequest>,
    closed: bool,
}

/// A packet that was not queued.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotQueued {
    #[error("too many feed requests wait")]
    Full,
    #[error(transparent)]
    Bad(#[from] PacketError),
}

impl FeedQueue {
    /// The lock is held for a few instructions at a time, in which nothing can panic.
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn handle_up(&self, edge: EdgeSender) {
        self.waiting().requests.push_back(FeedRequest::EdgeUp(edge));
        self.changed.notify_one();
    }

    /// Forgets what the edge asked for. If nobody has heard yet that it came, nobody needs to hear
    /// that it went.
    pub(super) fn handle_down(&self, edge: EdgeId) {
        let mut waiting = self.waiting();
        let mut unheard = false;
        waiting.requests.retain(|request| match request {
            FeedRequest::EdgeUp(sender) if sender.id == edge => {
                unheard = true;
                false
            }
            FeedRequest::Feed(sender, _) | FeedRequest::Range(sender, _) => sender.id != edge,
            FeedRequest::Unfeed(id, _) => *id != edge,
            FeedRequest::EdgeUp(_) | FeedRequest::EdgeDown(_) => true,
        });
        if !unheard {
            waiting.requests.push_back(FeedRequest::EdgeDown(edge));
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// Takes a `feed`, `unfeed` or `range` packet.
    pub(super) fn handle_packet(
        &self,
        edge: &EdgeSender,
        packet: &Packet<'_>,
    ) -> Result<(), NotQueued> {
        let (request, room) = if packet.kind == Kind::Unfeed {
            let names = hold::Unfeed::read(packet)?.map(str::to_owned).collect();
            (FeedRequest::Unfeed(edge.id, names), UNFEED_REQUESTS_MAX)
        } else if packet.kind == Kind::Feed {
            let channels = hold::Feed::read(packet)?;
            let channels = channels.map(|(name, head)| (name.to_owned(), head)).collect();
            (FeedRequest::Feed(edge.clone(), channels), FEED_REQUESTS_MAX)
        } else {
            let hold::Range { channel, after, bytes } = hold::Range::read(packet)?;
            let wanted = RangeWanted { channel: channel.to_owned(), after, bytes };
            (FeedRequest::Range(edge.clone(), wanted), FEED_REQUESTS_MAX)
        };
        let mut waiting = self.waiting();
        if waiting.requests.len() >= room {
            return Err(NotQueued::Full);
        }
        waiting.requests.push_back(request);
        drop(waiting);
        self.changed.notify_one();
        Ok(())
    }

    /// Nothing more comes.
    pub(super) fn close(&self) {
        self.waiting().closed = true;
        self.changed.notify_one();
    }
}
