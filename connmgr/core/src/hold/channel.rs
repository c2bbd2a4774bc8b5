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
//!
//! Most channels rest most of the time: all who read them have all that there is. A million of them may have one reader
//! each, so what a channel needs only while something goes on ([`Motion`]) is made when something begins, and
//! dropped when it is over.

use std::collections::VecDeque;
use std::ops::{Bound, RangeBounds as _};
use std::rc::Rc;
use std::sync::Arc;

use smallvec::SmallVec;
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
        round: Round,
    },
    /// At a cursor of its own, wants what follows.
    Behind(OwnCursor),
    /// At a cursor of its own, with a connection that takes nothing for now.
    Stalled(OwnCursor),
}

/// Where the cursor of a member is kept that does not stand where others do. (In a place of its own, because few members
/// have one.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnCursor(pub(super) u32);

/// Counts the fan-outs of a channel, as far as it takes to tell two lists apart: one round ends before the next begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Round {
    is_odd: bool,
}

impl Round {
    fn next(self) -> Self {
        Round { is_odd: !self.is_odd }
    }
}

/// Members of a channel. Most channels have few, which then need no memory of their own.
pub(super) type MemberList = SmallVec<[u32; 4]>;

/// Events on their way to the members that were live when they came.
#[derive(Debug)]
pub(super) struct Fanout {
    /// Who has not got them yet.
    pub(super) due: MemberList,
    /// Where they stand.
    pub(super) from: Cursor,
    /// What they get, all of it.
    pub(super) batch: Rc<Batch>,
}

/// One channel.
#[derive(Debug)]
pub(super) struct Channel {
    /// Its name.
    pub(super) name: Arc<str>,
    /// Where live members stand; `None` until anything is known of the channel.
    pub(super) head: Option<Cursor>,
    /// Members at the head.
    pub(super) live: MemberList,
    /// Unless it rests.
    motion: Option<Box<Motion>>,
    /// How many members there are.
    pub(super) members: u32,
    /// Which list `live` is.
    pub(super) round: Round,
    /// It is in the list of those that may need a range.
    pub(super) unsettled: bool,
}

/// What a channel has while somebody in it does not have all that there is.
#[derive(Debug)]
pub(super) struct Motion {
    /// The last event that was heard of; the head of a channel that rests.
    known: Option<Cursor>,
    /// Members with a cursor of their own that can take events.
    pub(super) behind: Behind,
    /// What is being delivered to those who were live.
    pub(super) fanout: Option<Fanout>,
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
}

impl Motion {
    /// That of a channel that has rested.
    fn new(head: Option<Cursor>) -> Self {
        Motion {
            known: head,
            behind: Behind::new(),
            fanout: None,
            queue: VecDeque::new(),
            queue_bytes: 0,
            catchups: Catchups::default(),
            asked: None,
            fruitless: 0,
            swept: None,
        }
    }

    /// Whether it is over.
    fn is_over(&self, head: Option<Cursor>) -> bool {
        self.known == head
            && self.behind.is_empty()
            && self.fanout.is_none()
            && self.queue.is_empty()
            && self.catchups.is_empty()
            && self.asked.is_none()
            && self.fruitless == 0
    }

    /// Whether a range is on its way that brings what is known to exist.
    fn awaits(&self) -> bool {
        self.asked.is_some_and(|(after, _)| Some(after) <= self.known)
    }
}

impl Channel {
    pub(super) fn new(name: Arc<str>) -> Self {
        Channel {
            name,
            head: None,
            live: MemberList::new(),
            motion: None,
            members: 0,
            round: Round::default(),
            unsettled: false,
        }
    }

    /// What goes on in it; `None` if it rests.
    pub(super) fn motion(&self) -> Option<&Motion> {
        self.motion.as_deref()
    }

    /// What goes on in it, to be changed. [`Channel::rest`] ends it.
    pub(super) fn moving(&mut self) -> &mut Motion {
        let head = self.head;
        self.motion.get_or_insert_with(|| Box::new(Motion::new(head)))
    }

    /// Rests, if nothing goes on.
    pub(super) fn rest(&mut self) {
        self.motion.take_if(|motion| motion.is_over(self.head));
    }

    /// The last event that was heard of.
    pub(super) fn known(&self) -> Option<Cursor> {
        self.motion.as_ref().map_or(self.head, |motion| motion.known)
    }

    /// The fan-out in progress.
    pub(super) fn fanout(&self) -> Option<&Fanout> {
        self.motion()?.fanout.as_ref()
    }

    /// The fan-out in progress.
    pub(super) fn fanout_mut(&mut self) -> Option<&mut Fanout> {
        self.motion.as_mut()?.fanout.as_mut()
    }

    /// The last event that live members have or are about to get.
    fn tip(&self) -> Option<Cursor> {
        let queued = self.motion.as_ref().and_then(|motion| motion.queue.back());
        queued.map(|(run, _)| run.last()).or(self.head)
    }

    /// Whether anybody depends on `head`.
    fn followed(&self) -> bool {
        !self.live.is_empty() || self.fanout().is_some()
    }

    /// Hears of an event. Says whether it is new.
    pub(super) fn learn(&mut self, id: Cursor) -> bool {
        let new = self.known() < Some(id);
        if new {
            self.moving().known = Some(id);
        }
        new
    }

    /// Makes a member live; says where it stands.
    pub(super) fn join_live(&mut self, index: u32) -> Place {
        let position = u32::try_from(self.live.len()).expect("below 2^32 members");
        self.live.push(index);
        Place::Listed { position, round: self.round }
    }

    /// The list of that round.
    pub(super) fn list(&mut self, round: Round) -> &mut MemberList {
        if round == self.round {
            &mut self.live
        } else {
            &mut self.fanout_mut().expect("they wait for it").due
        }
    }

    /// Takes a run for the live members, if it follows what they have.
    pub(super) fn enqueue(&mut self, run: &Arc<Run>, limits: &FanoutLimits) {
        let Some(index) = self.tip().and_then(|tip| run.index_after(tip)) else { return };
        if !self.followed() {
            return;
        }
        let motion = self.moving();
        if motion.queue_bytes < limits.queue_bytes_max {
            motion.queue_bytes += run.bytes();
            motion.queue.push_back((Arc::clone(run), index));
        }
    }

    /// Takes a run for the members behind. Says whether that is the first thing to deliver to them.
    pub(super) fn catch_up(&mut self, run: &Arc<Run>, limits: &FanoutLimits) -> bool {
        let Some(motion) = &mut self.motion else { return false };
        let rests = motion.catchups.is_empty();
        motion.catchups.push_run(run, &motion.behind, limits);
        rests && !motion.catchups.is_empty()
    }

    /// Takes a gap for the members behind. Says whether that is the first thing to deliver to them.
    pub(super) fn catch_up_gap(&mut self, gap: &Arc<MissingRun>, limits: &FanoutLimits) -> bool {
        let Some(motion) = &mut self.motion else { return false };
        let rests = motion.catchups.is_empty();
        motion.catchups.push_gap(gap, &motion.behind, limits);
        rests && !motion.catchups.is_empty()
    }

    /// Begins a fan-out if none is in progress and something waits. Says whether one began.
    pub(super) fn begin_fanout(&mut self, limits: &FanoutLimits) -> bool {
        let Some(motion) = &mut self.motion else { return false };
        if motion.fanout.is_some() {
            return false;
        }
        if self.live.is_empty() {
            motion.queue.clear();
            motion.queue_bytes = 0;
            // Nobody depends on it: the next member that is up to date is live at once.
            self.head = motion.known;
            return false;
        }
        let Some(from) = self.head else { return false };
        let mut runs = Vec::new();
        let mut bytes = 0;
        while let Some((run, index)) = motion.queue.front() {
            if bytes > 0 && bytes + run.bytes() > limits.write_bytes_max {
                break;
            }
            bytes += run.bytes();
            motion.queue_bytes -= run.bytes();
            runs.push((Arc::clone(run), *index));
            motion.queue.pop_front();
        }
        if runs.is_empty() {
            return false;
        }
        let batch = Batch::new(runs);
        self.head = Some(batch.last());
        let due = std::mem::take(&mut self.live);
        self.live.reserve(due.len());
        self.round = self.round.next();
        motion.fanout = Some(Fanout { due, from, batch });
        true
    }

    /// A member behind that stands at the head, and so is behind no more.
    pub(super) fn next_at_head(&self) -> Option<u32> {
        let head = self.head?;
        let (_, index) = self.motion()?.behind.range((head, 0)..=(head, NONE)).next()?;
        Some(*index)
    }

    /// Whether a range is on its way that brings what is known to exist.
    pub(super) fn awaits(&self) -> bool {
        self.motion().is_some_and(Motion::awaits)
    }

    /// Whether something waits for members behind.
    pub(super) fn is_catching_up(&self) -> bool {
        self.motion().is_some_and(|motion| !motion.catchups.is_empty())
    }

    /// A cursor after which members need something that exists; `None` if nobody does.
    ///
    /// Who stands beyond all that is known comes last. Mostly it knows more than we do yet; but if its
    /// log has lost its tail it would hear of that never, unless somebody asks.
    ///
    /// Goes through the log like a lift: on from the range before, and back to the earliest reader at
    /// the end. The earliest each time would starve all others while readers keep coming to the
    /// beginning of a long log.
    pub(super) fn need(&self, limits: &FanoutLimits) -> Option<Cursor> {
        let motion = self.motion()?;
        let known = motion.known?;
        // What would be dropped for want of room is not asked for: the fan-out makes room.
        let room = motion.queue_bytes < limits.queue_bytes_max;
        let live = self.tip().filter(|_| self.followed() && room);
        let earliest = |from: Bound<(Cursor, u32)>| {
            let behind = motion.behind.range((from, Bound::Unbounded)).next();
            let behind = behind.map(|(cursor, _)| *cursor).filter(|cursor| *cursor < known);
            let within = |tip: &Cursor| (from, Bound::Unbounded).contains(&(*tip, NONE));
            let live = live.filter(|tip| *tip < known && within(tip));
            behind.into_iter().chain(live).min()
        };
        let on = motion.swept.and_then(|swept| earliest(Bound::Excluded((swept, NONE))));
        let beyond = || {
            let last = motion.behind.last().map(|(cursor, _)| *cursor);
            last.filter(|cursor| *cursor > known && known > Cursor::START)
        };
        on.or_else(|| earliest(Bound::Unbounded)).or_else(beyond)
    }

    /// Nothing waits for a fan-out: live members have what came, but for the one in progress.
    pub(super) fn is_queue_empty(&self) -> bool {
        self.motion().is_none_or(|motion| motion.queue.is_empty())
    }

    /// Checks what is true of a channel by itself.
    ///
    /// # Panics
    ///
    /// It is not.
    pub(super) fn check_invariants(&self) {
        assert!(self.head.is_some() || !self.followed(), "live members stand somewhere");
        let Some(motion) = self.motion() else { return };
        motion.catchups.check_invariants();
        let bytes: usize = motion.queue.iter().map(|(run, _)| run.bytes()).sum();
        assert_eq!(bytes, motion.queue_bytes, "queued bytes are counted");
        assert!(motion.queue.is_empty() || motion.fanout.is_some(), "what is queued goes out");
        assert!(self.head <= motion.known, "the head is known");
        let mut at = self.head;
        for (run, index) in &motion.queue {
            assert_eq!(at.and_then(|at| run.index_after(at)), Some(*index), "the queue goes on");
            at = Some(run.last());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a channel costs that rests, and a place in it.
    #[test]
    fn channels_at_rest_are_small() {
        assert_eq!(size_of::<Channel>(), 80);
        assert_eq!(size_of::<Place>(), 8);
    }
}
