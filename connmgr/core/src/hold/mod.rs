//! Holds: connections that read channels (`zhttp-spec/hold.md`).
//!
//! A channel is a log, and a held connection a cursor in it for each channel it reads. Two
//! machines keep that up, and talk in messages only, so that a simulation can put anything between
//! them:
//!
//! * [`Members`], one in each worker: the connections of each channel, their cursors, what to write
//!   next, and which stored events are wanted.
//! * [`Feeds`], one for the edge: which handler feeds which channel, which worker wants it, the
//!   stored events asked for, and the newest events of each channel (its tail).
//!
//! The rule of delivery is in one place, [`Run::index_after`]: a member gets the event that follows
//! its cursor, and nothing else.

mod batch;
mod block;
mod catchup;
mod channel;
mod feeds;
mod members;
mod message;
mod names;
mod run;
mod sse;
pub(crate) mod tail;

pub use block::Rendering;
pub use channel::FanoutLimits;
pub use feeds::{Feeds, FeedsConfig, FeedsOutput};
pub use members::{Delivery, DeliveryBytes, Members, MembersConfig};
pub use run::{RUN_BYTES_MAX, Run, RunError, RunEvent};
pub(crate) use sse::{KEEP_ALIVE, KEEP_ALIVE_CHUNK, write_event};

use std::rc::Rc;
use std::sync::Arc;

use zhttp::Cursor;
use zhttp::hold::GapReason;

/// What [`Members`] of a worker ask of [`Feeds`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// This worker has members in the channel.
    Open(Arc<str>),
    /// It has none any more.
    Close(Arc<str>),
    /// A member needs what follows a cursor.
    Range(Arc<str>, Cursor),
}

/// What [`Feeds`] tell the [`Members`] of a worker.
#[derive(Clone, Debug)]
pub enum Fed {
    /// Events of a channel.
    Events(Arc<Run>),
    /// Where a channel ends.
    Head(Arc<str>, Cursor),
    /// Events that are gone.
    Gap(Arc<MissingRun>),
}

/// Events that are not kept: of what follows `after`, nothing before `first`. If `first` is of an earlier epoch than
/// `after`, readers there are beyond the log, and are led back to its end (hold.md H-59).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingRun {
    /// The channel.
    pub channel: Arc<str>,
    /// The last cursor before the gap.
    pub after: Cursor,
    /// The first event behind it that is kept; the one that would be next, if it leads back.
    pub first: Cursor,
    /// Why.
    pub reason: GapReason,
}

impl MissingRun {
    /// Whether a reader at `cursor` misses something because of this, and is helped by being moved.
    ///
    /// The reader at `after` does: that was found out for it. For one behind it this is not sure as
    /// soon as the epoch changes in between: it may stand just where an earlier epoch ended and the
    /// first kept event goes on, and then misses nothing. Such a reader asks for itself.
    pub(crate) fn concerns(&self, cursor: Cursor) -> bool {
        if self.leads_back() {
            return cursor == self.after;
        }
        let within = self.after <= cursor && cursor < self.resume();
        let begun = cursor.epoch == self.first.epoch;
        let cut = self.first.offset > 1 || self.reason == GapReason::Recreated;
        within && (cursor == self.after || begun || (cursor.epoch == self.after.epoch && cut))
    }

    fn leads_back(&self) -> bool {
        self.first.epoch < self.after.epoch
    }

    /// The last event that there is, as far as this tells.
    pub(crate) fn last_known(&self) -> Cursor {
        if self.leads_back() { self.resume() } else { self.first }
    }

    /// Why a reader at `cursor`, which this concerns, misses something: within one epoch, and so
    /// within one log, events can only be trimmed.
    fn reason_at(&self, cursor: Cursor) -> GapReason {
        if cursor.epoch == self.first.epoch { GapReason::Trimmed } else { self.reason }
    }

    /// Where a reader goes on: the place just before the first event that is kept.
    fn resume(&self) -> Cursor {
        Cursor::new(self.first.epoch, self.first.offset.saturating_sub(1))
    }
}

/// Rendered events, shared by all who get them.
type Shared = Rc<[u8]>;
