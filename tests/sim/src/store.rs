//! A model of the store: what a channel's log holds now, and everything that it ever held.
//!
//! A log goes on over an END: the next event begins a new epoch and names what it follows (`prev`).
//! A log that was deleted is gone; the next event begins another log, and follows `0-0`. A reader
//! at a cursor is contiguous with an event iff that follows the cursor: same epoch and the next
//! offset, or `prev` is the cursor. Nothing else is, and that is all that gaps are made from.

use std::collections::VecDeque;

use zhttp::Cursor;
use zhttp::hold::{GapReason, HoldChannel};

/// One event, as it was stored.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    /// Its id.
    pub(crate) id: Cursor,
    /// What it follows.
    pub(crate) prev: Cursor,
    /// It ended the channel.
    pub(crate) end: bool,
    /// What readers get.
    pub(crate) data: String,
}

impl Event {
    /// Whether a reader at `cursor` misses nothing when it gets this next.
    pub(crate) fn follows(&self, cursor: Cursor) -> bool {
        self.prev == cursor || Cursor::new(self.id.epoch, self.id.offset - 1) == cursor
    }
}

/// One channel.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    /// Its name on the wire.
    pub(crate) name: String,
    /// Every event that there ever was, in the order of ids.
    pub(crate) history: Vec<Event>,
    /// The log, as indices of `history`: what is kept of it. Never empty while there is a log.
    kept: VecDeque<usize>,
    /// The epoch in which the log began.
    log_epoch: u64,
    last_epoch: u64,
}

/// What is kept after a cursor.
#[derive(Debug, Default)]
pub(crate) struct Range {
    /// Nothing is kept between the cursor and this event.
    pub(crate) gap: Option<(Cursor, GapReason)>,
    /// Indices in the history.
    pub(crate) events: Vec<usize>,
}

impl Channel {
    /// A channel without a log.
    pub(crate) fn new(name: String) -> Self {
        Channel { name, ..Channel::default() }
    }

    /// The last event of the log; `0-0` if there is none.
    pub(crate) fn head(&self) -> Cursor {
        self.kept.back().map_or(Cursor::START, |&index| self.history[index].id)
    }

    /// The log ends with END.
    pub(crate) fn ended(&self) -> bool {
        self.kept.back().is_some_and(|&index| self.history[index].end)
    }

    /// This is where the log ends with END.
    pub(crate) fn ends_at(&self, cursor: Cursor) -> bool {
        self.ended() && self.head() == cursor
    }

    /// What a handler says of the channel to the edge, for a reader who stands there.
    pub(crate) fn read_from(&self, cursor: Cursor) -> HoldChannel<'_> {
        HoldChannel { name: &self.name, cursor, ended: self.ends_at(cursor) }
    }

    /// Whether the event of this id is in the log.
    pub(crate) fn keeps(&self, id: Cursor) -> bool {
        self.kept.iter().any(|&index| self.history[index].id == id)
    }

    /// The event of this id.
    pub(crate) fn event(&self, id: Cursor) -> Option<&Event> {
        let index = self.history.binary_search_by_key(&id, |event| event.id).ok()?;
        Some(&self.history[index])
    }

    /// The log to which this cursor belongs is there still.
    pub(crate) fn has_log_of(&self, cursor: Cursor) -> bool {
        cursor.epoch >= self.log_epoch || cursor == Cursor::START
    }

    /// Appends an event, with so much padding in its data.
    pub(crate) fn append(&mut self, now_ms: u64, end: bool, padding: usize) -> usize {
        let head = self.head();
        let id = if self.kept.is_empty() || self.ended() {
            self.last_epoch = now_ms.max(self.last_epoch + 1);
            if self.kept.is_empty() {
                self.log_epoch = self.last_epoch;
            }
            Cursor::new(self.last_epoch, 1)
        } else {
            head.plus(1)
        };
        let data =
            format!(r#"{{"channel":"{}","id":"{id}","pad":"{}"}}"#, self.name, "x".repeat(padding));
        let index = self.history.len();
        self.history.push(Event { id, prev: head, end, data });
        self.kept.push_back(index);
        index
    }

    /// Drops the oldest events, but for the last one.
    pub(crate) fn trim(&mut self, count: usize) {
        let count = count.min(self.kept.len().saturating_sub(1));
        self.kept.drain(..count);
    }

    /// Deletes the log.
    pub(crate) fn delete(&mut self) {
        self.kept.clear();
    }

    /// Reads after a cursor: up to so many bytes of data, but at least one event if there is one.
    pub(crate) fn range(&self, after: Cursor, bytes_max: usize) -> Range {
        let first = self.kept.partition_point(|&index| self.history[index].id <= after);
        let mut range = Range::default();
        let Some(&next) = self.kept.get(first) else { return range };
        let next = &self.history[next];
        if !next.follows(after) {
            let same = self.has_log_of(after);
            let reason = if same { GapReason::Trimmed } else { GapReason::Recreated };
            range.gap = Some((next.id, reason));
        }
        let mut bytes = 0;
        for &index in self.kept.range(first..) {
            let size = self.history[index].data.len();
            if bytes > 0 && bytes + size > bytes_max {
                break;
            }
            bytes += size;
            range.events.push(index);
        }
        range
    }
}
