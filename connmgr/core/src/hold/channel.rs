//! One channel in one worker: who stands where in its log, and what is due to whom.
//!
//! ```text
//!            catch-up (a range)           an event
//!   Behind(c) ───────────────▶ Live ──────────────▶ Due ──▶ Live, or Stalled(c) if its
//!      ▲                         (at `head`)   (at `from`)         connection takes no more
//!      └───────── drained ───── Stalled(c)
//! ```
//!
//! Members at the head form one list and need no cursor of their own: an event to a million of
//! them moves that list to *due* in one step and touches no member: the number of the round tells
//! the lists apart. Due members are then served in slices, back into the live list. Events that come
//! meanwhile wait, and go out together as one write to each member. What comes for those behind is in
//! [`Catchups`].

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds as _};
use std::rc::Rc;
use std::sync::Arc;

use zhttp::Cursor;

use super::MissingRun;
use super::batch::Batch;
use super::catchup::{Behind, Catchups};
use super::run::Run;
use crate::slab::NONE;

/// Bounds of the fan-outs of one channel, in bytes of event data.
#[derive(Clone, Copy, Debug)]
pub struct FanoutLimits {
    /// So much goes out in one write to a member, but one packet of events at least. More waits for
    /// the next round.
    pub write_bytes_max: usize,
    /// So much waits for a fan-out to finish, and so much for catch-ups. What comes on top is dropped
    /// here, and asked for again as a range once the members get there.
    pub queue_bytes_max: usize,
}

impl Default for FanoutLimits {
    fn default() -> Self {
        FanoutLimits { write_bytes_max: 64 * 1024, queue_bytes_max: 1024 * 1024 }
    }
}

/// Where a member stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the list that was the live one in this round: at the head of the channel if the round is
    /// the channel's, else about to get the fan-out in progress.
    Listed {
        /// The index in the list.
        position: u32,
        /// The round.
        round: u32,
    },
    /// At this cursor, wants what follows.
    Behind(Cursor),
    /// At this cursor, with a connection that takes nothing for now.
    Stalled(Cursor),
}

/// Events on their way to the members that were live when they came.
#[derive(Debug)]
pub(super) struct Fanout {
    /// Who has not got them yet.
    pub(super) due: Vec<u32>,
    /// Where they stand.
    pub(super) from: Cursor,
    /// What they get, all of it.
    pub(super) batch: Rc<Batch>,
}

/// One channel.
#[derive(Debug)]
pub(super) struct Channel {
    limits: FanoutLimits,
    /// Its name.
    pub(super) name: Arc<str>,
    /// Where live members stand; `None` until anything is known of the channel.
    pub(super) head: Option<Cursor>,
    /// The last event that was heard of.
    pub(super) known: Option<Cursor>,
    /// Members at the head.
    pub(super) live: Vec<u32>,
    /// Which list `live` is: counts the fan-outs.
    pub(super) round: u32,
    /// Members with a cursor of their own that can take events.
    pub(super) behind: Behind,
    /// What is being delivered to those who were live.
    pub(super) fanout: Option<Box<Fanout>>,
    queue: VecDeque<(Arc<Run>, usize)>,
    queue_bytes: usize,
    /// What came for members behind, and is not yet delivered.
    pub(super) catchups: Catchups,
    /// The range that was asked for: after which cursor, and when it is asked again.
    pub(super) asked: Option<(Cursor, u64)>,
    /// How often in a row a range was asked for, and nothing came: what was known to be there may be
    /// deleted.
    pub(super) fruitless: u8,
    /// The cursor after which a range was asked for last.
    pub(super) swept: Option<Cursor>,
    /// How many members there are.
    pub(super) members: u32,
    /// It is in the list of those that may need a range.
    pub(super) unsettled: bool,
}

impl Channel {
    pub(super) fn new(name: Arc<str>, limits: FanoutLimits) -> Self {
        Channel {
            limits,
            name,
            head: None,
            known: None,
            live: Vec::new(),
            round: 0,
            behind: Behind::new(),
            fanout: None,
            queue: VecDeque::new(),
            queue_bytes: 0,
            catchups: Catchups::default(),
            asked: None,
            fruitless: 0,
            swept: None,
            members: 0,
            unsettled: false,
        }
    }

    /// The last event that live members have or are about to get.
    fn tip(&self) -> Option<Cursor> {
        self.queue.back().map(|(run, _)| run.last()).or(self.head)
    }

    /// Whether anybody depends on `head`.
    fn followed(&self) -> bool {
        !self.live.is_empty() || self.fanout.is_some()
    }

    /// Hears of an event. Says whether it is new.
    pub(super) fn learn(&mut self, id: Cursor) -> bool {
        let new = self.known < Some(id);
        self.known = self.known.max(Some(id));
        new
    }

    /// Makes a member live; says where it stands.
    pub(super) fn join_live(&mut self, index: u32) -> Place {
        let position = u32::try_from(self.live.len()).expect("below 2^32 members");
        self.live.push(index);
        Place::Listed { position, round: self.round }
    }

    /// Takes a run for the live members, if it follows what they have.
    pub(super) fn enqueue(&mut self, run: &Arc<Run>) {
        let Some(index) = self.tip().and_then(|tip| run.index_after(tip)) else { return };
        if self.followed() && self.queue_bytes < self.limits.queue_bytes_max {
            self.queue_bytes += run.bytes();
            self.queue.push_back((Arc::clone(run), index));
        }
    }

    /// Takes a run for the members behind. Says whether that is the first thing to deliver to them.
    pub(super) fn catch_up(&mut self, run: &Arc<Run>) -> bool {
        let rests = self.catchups.is_empty();
        self.catchups.push_run(run, &self.behind, &self.limits);
        rests && !self.catchups.is_empty()
    }

    /// Takes a gap for the members behind. Says whether that is the first thing to deliver to them.
    pub(super) fn catch_up_gap(&mut self, gap: &Arc<MissingRun>) -> bool {
        let rests = self.catchups.is_empty();
        self.catchups.push_gap(gap, &self.behind, &self.limits);
        rests && !self.catchups.is_empty()
    }

    /// Begins a fan-out if none is in progress and something waits. Says whether one began.
    pub(super) fn begin_fanout(&mut self) -> bool {
        if self.fanout.is_some() || self.live.is_empty() {
            if self.live.is_empty() && self.fanout.is_none() {
                self.queue.clear();
                self.queue_bytes = 0;
                // Nobody depends on it: the next member that is up to date is live at once.
                self.head = self.known;
            }
            return false;
        }
        let Some(from) = self.head else { return false };
        let mut runs = Vec::new();
        let mut bytes = 0;
        while let Some((run, index)) = self.queue.front() {
            if bytes > 0 && bytes + run.bytes() > self.limits.write_bytes_max {
                break;
            }
            bytes += run.bytes();
            self.queue_bytes -= run.bytes();
            runs.push((Arc::clone(run), *index));
            self.queue.pop_front();
        }
        if runs.is_empty() {
            return false;
        }
        let batch = Batch::new(runs);
        self.head = Some(batch.last());
        let due = std::mem::take(&mut self.live);
        self.round = self.round.wrapping_add(1);
        self.fanout = Some(Box::new(Fanout { due, from, batch }));
        true
    }

    /// Whether a range is on its way that brings what is known to exist.
    pub(super) fn awaits(&self) -> bool {
        self.asked.is_some_and(|(after, _)| Some(after) <= self.known)
    }

    /// A cursor after which members need something that exists; `None` if nobody does.
    ///
    /// Who stands beyond all that is known comes last. Mostly it knows more than we do yet; but if its
    /// log has lost its tail it would hear of that never, unless somebody asks.
    ///
    /// Goes through the log like a lift: on from the range before, and back to the earliest reader at
    /// the end. The earliest each time would starve all others while readers keep coming to the
    /// beginning of a long log.
    pub(super) fn need(&self) -> Option<Cursor> {
        let known = self.known?;
        // What would be dropped for want of room is not asked for: the fan-out makes room.
        let room = self.queue_bytes < self.limits.queue_bytes_max;
        let live = self.tip().filter(|_| self.followed() && room);
        let earliest = |from: Bound<(Cursor, u32)>| {
            let behind = self.behind.range((from, Bound::Unbounded)).next();
            let behind = behind.map(|(cursor, _)| *cursor).filter(|cursor| *cursor < known);
            let within = |tip: &Cursor| (from, Bound::Unbounded).contains(&(*tip, NONE));
            let live = live.filter(|tip| *tip < known && within(tip));
            behind.into_iter().chain(live).min()
        };
        let on = self.swept.and_then(|swept| earliest(Bound::Excluded((swept, NONE))));
        let beyond = || {
            let last = self.behind.last().map(|(cursor, _)| *cursor);
            last.filter(|cursor| *cursor > known && known > Cursor::START)
        };
        on.or_else(|| earliest(Bound::Unbounded)).or_else(beyond)
    }

    /// Nothing waits for a fan-out: live members have what came, but for the one in progress.
    pub(super) fn is_queue_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Checks what is true of a channel by itself.
    ///
    /// # Panics
    ///
    /// It is not.
    pub(super) fn check_invariants(&self) {
        self.catchups.check_invariants();
        let bytes: usize = self.queue.iter().map(|(run, _)| run.bytes()).sum();
        assert_eq!(bytes, self.queue_bytes, "queued bytes are counted");
        assert!(self.head.is_some() || !self.followed(), "live members stand somewhere");
        assert!(self.queue.is_empty() || self.fanout.is_some(), "what is queued goes out");
        assert!(self.head <= self.known, "the head is known");
        let mut at = self.head;
        for (run, index) in &self.queue {
            assert_eq!(at.and_then(|at| run.index_after(at)), Some(*index), "the queue goes on");
            at = Some(run.last());
        }
    }
}
