//! The nouns of the store contract: what goes in, what comes out, what can go wrong.
//!
//! These types are shared by all implementations, and so is the one rule that readers depend on
//! most: [`Gap::between`] decides whether something is missing between a reader's cursor and what
//! the store can still give it.

use bytes::Bytes;
use uuid::Uuid;
use zhttp::Cursor;

use super::ChannelName;

/// What an event is to its readers; decides the `event:` line of its SSE block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A message that somebody published.
    Stream,
    /// Something about the stream itself.
    Control,
}

impl EventKind {
    /// The name on the wire: `stream` or `control`.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventKind::Stream => "stream",
            EventKind::Control => "control",
        }
    }

    /// The kind with that name, if there is one.
    pub fn parse(name: &str) -> Option<Self> {
        [EventKind::Stream, EventKind::Control].into_iter().find(|kind| kind.as_str() == name)
    }
}

/// An event that wants to be appended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// What tells a repetition from a new event; without one nothing is deduplicated.
    pub message_id: Option<Uuid>,
    /// Whether it is the END of its epoch: readers get it and are closed.
    pub end: bool,
    /// What it is to readers.
    pub kind: EventKind,
    /// The rendered JSON, in one line. The store doesn't look into it.
    pub data: Bytes,
}

/// An event as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEvent {
    /// Its id, and its place in the log.
    pub id: Cursor,
    /// The id of its predecessor: a reader that stands there misses nothing by taking this one.
    pub prev: Cursor,
    /// Whether it is the END of its epoch.
    pub end: bool,
    /// What it is to readers.
    pub kind: EventKind,
    /// The rendered JSON, in one line.
    pub data: Bytes,
}

/// Under what conditions an event is appended, and how long it is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The offset that the channel's head must have; 0 for a channel without events. The epoch is
    /// not compared.
    pub expect: Option<u64>,
    /// The exact event that must be the head. For those who decided something from what they read,
    /// like cleanup.
    pub fence: Option<Cursor>,
    /// The channel must not have ended.
    pub open: bool,
    /// A cursor that a reader has got and that lies beyond the head, since the log lost its tail or is
    /// gone: the event begins a new epoch, larger than the cursor's.
    pub beyond: Option<Cursor>,
    /// The log may have lost its tail since the last append: the server is another one, or was
    /// started anew after it went down over it. For those who heard of a loss from somebody whom
    /// they need not believe.
    pub torn: bool,
    /// How fast the channel may grow.
    pub rate: Option<Rate>,
    /// How much is kept, and for how long.
    pub retention: Retention,
}

/// How fast a channel may grow: `messages` in a window of `per_ms`.
///
/// The window begins with the first message after the last window, so that a time to wait is
/// exact: after it the next message is accepted, unless another publisher was faster. Up to twice
/// the messages can fall into a stretch of `per_ms` that spans two windows; a sliding log would
/// not allow that, but costs memory for each message instead of a number for each channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Messages in a window; 0 refuses everything.
    pub messages: u32,
    /// The length of a window, in milliseconds; at least 1.
    pub per_ms: u64,
}

/// How much of a channel is kept, and for how long after the last append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Until a log is dropped after its last append, in milliseconds; 0 counts as 1.
    pub idle_ttl_ms: u64,
    /// Until a log is dropped whose last event is an END, in milliseconds; 0 counts as 1.
    pub end_ttl_ms: u64,
    /// How long a message id is remembered, in milliseconds, but no longer than the log itself; 0
    /// is not at all.
    pub dedup_ttl_ms: u64,
    /// The newest events that are kept, over all epochs; 0 counts as 1, as the log needs its last
    /// event to be one.
    pub history_max: u32,
}

impl Default for Retention {
    /// The defaults of `docs/channels.md`.
    fn default() -> Self {
        Retention {
            idle_ttl_ms: 120_000,
            end_ttl_ms: 120_000,
            dedup_ttl_ms: 120_000,
            history_max: 1200,
        }
    }
}

impl Retention {
    /// How long the log lives after an event that is an END or not, in milliseconds.
    pub(crate) fn ttl_ms(&self, end: bool) -> u64 {
        if end { self.end_ttl_ms.max(1) } else { self.idle_ttl_ms.max(1) }
    }

    /// The number of events to keep, at least one.
    pub(crate) fn events_max(&self) -> u64 {
        u64::from(self.history_max.max(1))
    }
}

/// The answer to an append that is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The event's id.
    pub id: Cursor,
    /// Whether it had been appended before, by its message id; then nothing was done now.
    pub duplicate: bool,
}

/// Where a channel's log ends and begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The id of the newest event; `0-0` for a channel that is unknown, expired or deleted.
    pub id: Cursor,
    /// Whether that event is an END.
    pub ended: bool,
    /// The cursor just before the oldest event that is kept: where a reader begins that has no
    /// cursor and wants all. `0-0` for an unknown channel.
    pub oldest_prev: Cursor,
}

/// How much a range may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RangeLimits {
    /// Events; 0 counts as 1.
    pub events_max: u32,
    /// Bytes of data in all of them, but the first is returned whatever its size.
    pub bytes_max: u64,
}

/// A piece of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Range {
    /// Events in order, each the predecessor of the next.
    pub events: Vec<StoredEvent>,
    /// The log's head at the same moment.
    pub head: Head,
    /// What is missing between the asked cursor and the first event.
    pub gap: Option<Gap>,
}

/// Events are missing: nothing is kept after the reader's cursor and before `first`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The predecessor of `first`: the cursor from which the reader goes on.
    pub prev: Cursor,
    /// The first event that is kept. If none is, the one that would follow the head.
    pub first: Cursor,
    /// Why they are missing.
    pub reason: GapReason,
}

/// Why events are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapReason {
    /// The log outgrew its retention.
    Trimmed,
    /// The log in which the reader stood is gone; this is another one of the same name, or the same
    /// one without what the reader had last.
    Recreated,
}

impl GapReason {
    /// The name on the wire: `trimmed` or `recreated`.
    pub const fn as_str(self) -> &'static str {
        match self {
            GapReason::Trimmed => "trimmed",
            GapReason::Recreated => "recreated",
        }
    }
}

impl Gap {
    /// What is missing for a reader at `after` whose next kept event is `first`, in a log that
    /// ends at `head` and whose first epoch ever was `born`.
    ///
    /// Contiguity is `first.prev == after`: it holds across epochs, and a cursor of another log of
    /// this name fits no event of this one. The place before the first event of an epoch,
    /// `<epoch>-0`, is contiguous with that event too: a reader is put there after a gap (H-56). A
    /// cursor at or beyond the head misses nothing: there is nothing that it could get.
    ///
    /// A cursor between two events that follow each other is of a tail that was lost: what its
    /// reader had last is in the log no more, so this is, to it, another log.
    pub(crate) fn between(
        after: Cursor,
        first: Option<&StoredEvent>,
        head: Cursor,
        born: u64,
    ) -> Option<Gap> {
        if after >= head {
            return None;
        }
        let (prev, first) = match first {
            Some(event) if event.prev == after || event.id == after.plus(1) => return None,
            Some(event) => (event.prev, event.id),
            None => (head, head.plus(1)),
        };
        let of_this_log = after == Cursor::START || (after.epoch >= born && after <= prev);
        let reason = if of_this_log { GapReason::Trimmed } else { GapReason::Recreated };
        Some(Gap { prev, first, reason })
    }
}

/// A channel that had no append for a while, as cleanup finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Which one.
    pub channel: ChannelName,
    /// Its head when it was listed, for the fence of `end` and `delete`; `0-0` if its log has
    /// expired already, and only its readers are left to be told.
    pub head: Cursor,
    /// Whether the head is an END.
    pub ended: bool,
    /// When something was last appended to it, on the store's clock, in microseconds since 1970.
    /// With it [`Store::delete_idle`](super::Store::delete_idle) sees whether there was one since.
    pub active_us: u64,
    /// When the store drops the log by itself, in milliseconds; 0 if it has.
    pub expires_ms: u64,
}

impl Idle {
    /// When something was last appended, in milliseconds since 1970.
    pub fn active_ms(&self) -> u64 {
        self.active_us / 1000
    }
}

/// An operation of the store failed. Nobody's fault who asked; to be tried again later.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The store is away, or too slow. Whether a write was done is unknown, but the same message
    /// id may be sent again safely.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The store answered with something that this version never writes.
    #[error("the store holds or answered what it should not: {0}")]
    Corrupt(String),
}

/// Why an event was not appended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// `expect`, `fence` or `open` did not hold. The publisher's view is old.
    #[error("the channel's head is {head}")]
    Conflict {
        /// The actual head; `0-0` if the channel has no events.
        head: Cursor,
    },
    /// The channel grows too fast. Nothing was charged.
    #[error("the channel's rate is reached; accepted again in {retry_after_ms} ms")]
    RateLimited {
        /// After that long the next message is accepted, in milliseconds; at least 1.
        retry_after_ms: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Unavailable(#[from] StoreError),
}

/// A store could not be opened. A start-up error: the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address of the Redis server is none.
    #[error("the Redis address is not usable: {0}")]
    Address(String),
    /// Another process has the data directory.
    #[error("data directory {directory} is in use by another process (pid {pid})")]
    InUse {
        /// The directory.
        directory: String,
        /// The process, as it wrote itself down; `unknown` if it did not get to it.
        pid: String,
    },
    /// The directory cannot be created, read or written.
    #[error("data directory {directory}: {source}")]
    Directory {
        /// The directory.
        directory: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The data in the directory cannot be used.
    #[error("data directory {directory}: {reason}")]
    Data {
        /// The directory.
        directory: String,
        /// What is wrong with it.
        reason: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: Cursor, prev: Cursor) -> StoredEvent {
        StoredEvent { id, prev, end: false, kind: EventKind::Stream, data: Bytes::new() }
    }

    #[test]
    fn a_gap_is_where_the_predecessor_is_another() {
        let (born, head) = (10, Cursor::new(20, 5));
        let at = |epoch, offset| Cursor::new(epoch, offset);
        let gap = |after: Cursor, first: Option<(Cursor, Cursor)>| {
            let first = first.map(|(id, prev)| event(id, prev));
            Gap::between(after, first.as_ref(), head, born)
        };
        // Contiguous: within an epoch, across epochs, from before everything.
        assert_eq!(gap(at(20, 3), Some((at(20, 4), at(20, 3)))), None);
        assert_eq!(gap(at(10, 7), Some((at(20, 1), at(10, 7)))), None);
        assert_eq!(gap(Cursor::START, Some((at(10, 1), Cursor::START))), None);
        // At the place before an epoch.
        assert_eq!(gap(at(20, 0), Some((at(20, 1), at(10, 7)))), None);
        // At the head, beyond it, in a later epoch.
        for after in [head, at(20, 6), at(30, 1)] {
            assert_eq!(gap(after, None), None);
        }
        let trimmed = |prev, first| Some(Gap { prev, first, reason: GapReason::Trimmed });
        let first = Some((at(20, 4), at(20, 3)));
        assert_eq!(gap(at(20, 1), first), trimmed(at(20, 3), at(20, 4)));
        assert_eq!(gap(at(10, 2), first), trimmed(at(20, 3), at(20, 4)));
        assert_eq!(gap(Cursor::START, first), trimmed(at(20, 3), at(20, 4)));
        assert_eq!(gap(at(20, 4), None), trimmed(head, at(20, 6)));
        let recreated = Gap { prev: at(20, 3), first: at(20, 4), reason: GapReason::Recreated };
        assert_eq!(gap(at(9, 100), first), Some(recreated));
        // Of a tail that was lost: the log went on from 10-7 with 20-1.
        let lost = Gap { prev: at(10, 7), first: at(20, 1), reason: GapReason::Recreated };
        assert_eq!(gap(at(10, 9), Some((at(20, 1), at(10, 7)))), Some(lost));
    }
}
