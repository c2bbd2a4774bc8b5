//! Answers to `range`: stored events for an edge some of whose readers are behind.
//!
//! Each is answered in a task of its own, so that many channels are read at once, and an edge that
//! takes its packets slowly delays nobody else's. If the store does not answer, it is asked again
//! for a moment, since an edge that hears nothing waits for its whole time limit. After that the
//! range stays unanswered: then the edge asks another feeder, which may see another store.
//!
//! A reader whose place is in the log no more would ask for ever. If the log is gone it gets an END,
//! and if it has lost its tail it goes on ([`lost`](super::lost)), before it is read once more.

use std::time::Duration;

use tokio::time::Instant;
use zhttp::Cursor;

use super::feeder::EdgeSink;
use super::lost::{LostTail, mend, mend_if_torn};
use super::packets::Packets;
use crate::attach::Down;
use crate::store::{ChannelName, Range, RangeLimits, Retention, Store, StoreError};

/// Bytes of event data that one answer has at most, whatever was asked for; one event at least.
pub(super) const RANGE_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of an answer to a range that names none.
const RANGE_BYTES_DEFAULT: u64 = 64 * 1024;

/// Events that one answer has at most: small events should not make large packets.
const RANGE_EVENTS_MAX: u32 = 4096;

/// How long the store is asked again.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A range to be answered.
#[derive(Debug)]
pub(super) struct RangeJob<E> {
    pub(super) edge: E,
    pub(super) channel: ChannelName,
    pub(super) after: Cursor,
    /// As much as the edge wants; 0 is as we like.
    pub(super) bytes: u64,
    /// The last event that was heard of, also if it is gone; `0-0` if none was.
    pub(super) seen: Cursor,
    /// The head is to follow, as it was not told yet.
    pub(super) and_head: bool,
}

/// Why a range stayed unanswered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Edge(#[from] Down),
}

/// Reads the range and sends it. What is appended to say that something is lost is kept for
/// `retention`.
pub(super) async fn answer_range<S: Store, E: EdgeSink>(
    store: &S,
    retention: Retention,
    packets: &Packets,
    job: &RangeJob<E>,
) -> Result<(), Unanswered> {
    let range = read_whole(store, retention, job).await.inspect_err(|error| {
        tracing::warn!(channel = %job.channel, %error, "a range stays unanswered");
    })?;
    let mut answer = packets.range(&job.channel, job.after, &range);
    if job.and_head && !range.events.is_empty() {
        answer.extend(packets.heads(&[(job.channel.clone(), range.head.id)]));
    }
    for packet in answer {
        job.edge.send(packet).await?;
    }
    Ok(())
}

/// Reads the range; again, after the log has gone on, if the reader is beyond its end.
async fn read_whole<S: Store, E>(
    store: &S,
    retention: Retention,
    job: &RangeJob<E>,
) -> Result<Range, StoreError> {
    let range = read(store, job).await?;
    if job.after <= range.head.id {
        return Ok(range);
    }
    let head = range.head;
    let lost = |seen| LostTail { channel: job.channel.clone(), head, seen };
    if head.id == Cursor::START {
        // There were events behind the reader, or the edge would not have asked. Who was faster, or
        // whether it failed, shows when it is read again.
        mend(store, retention, vec![lost(job.seen)]).await;
    } else if !mend_if_torn(store, retention, lost(job.after)).await? {
        return Ok(range);
    }
    read(store, job).await
}

async fn read<S: Store, E>(store: &S, job: &RangeJob<E>) -> Result<Range, StoreError> {
    let bytes = if job.bytes == 0 { RANGE_BYTES_DEFAULT } else { job.bytes };
    let limits =
        RangeLimits { events_max: RANGE_EVENTS_MAX, bytes_max: bytes.min(RANGE_BYTES_MAX) };
    let deadline = Instant::now() + RETRY_MAX;
    loop {
        match store.range(&job.channel, job.after, limits).await {
            Err(_) if Instant::now() + RETRY_PAUSE < deadline => {
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            result => return result,
        }
    }
}
