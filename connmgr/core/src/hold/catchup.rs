//! Catch-ups of one channel in one worker: what came for members that stand behind, in the order in
//! which it came.
//!
//! A range is answered by many runs as a rule (the tail of a live channel has one event in each), or
//! by a gap and runs. Members take all of that in their turn: the end of one part is where the next
//! one begins, so a part may be for members who will only stand there once the part before it was
//! delivered. Runs that follow each other are one part, and one write to each member, up to a bound.
//!
//! A part has no list of members. It walks over those who stand behind, in the order of their cursors,
//! and has but a place in that walk: whoever left costs nothing, and a crowd is one job, which can be
//! put aside after each member.

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use zhttp::Cursor;

use super::MissingRun;
use super::batch::{Batch, Entry};
use super::channel::FanoutLimits;
use super::run::Run;
use crate::slab::NONE;

/// Members with a cursor of their own.
pub(super) type Behind = BTreeSet<(Cursor, u32)>;

/// What came, and has not gone out.
#[derive(Debug, Default)]
pub(super) struct Catchups {
    parts: VecDeque<Part>,
    /// The bytes of data in them.
    bytes: usize,
}

#[derive(Debug)]
struct Part {
    what: What,
    /// Where the walk over those behind goes on.
    at: (Cursor, u32),
    bytes: usize,
}

#[derive(Debug)]
enum What {
    /// Runs that follow each other; more may be added, for nobody has got them.
    Gathering(Vec<(Arc<Run>, usize)>),
    /// The same, on their way to members.
    Delivering(Rc<Batch>),
    Gap(Arc<MissingRun>),
}

/// What is next.
#[derive(Debug)]
pub(super) enum Next {
    /// This member, at this cursor, gets the batch from that entry on.
    Events(u32, Rc<Batch>, Entry),
    /// This member, at this cursor, is told of a gap.
    Gap(u32, Cursor, Arc<MissingRun>),
    /// Somebody was looked at who gets nothing, or a part is over. There may be more.
    Nobody,
    /// All is out.
    Nothing,
}

impl Catchups {
    /// Whether all is out.
    pub(super) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Takes a run, if anybody stands in it, or will when what came before is out. Past the bound of
    /// what may wait it is dropped: it is asked for again.
    pub(super) fn push_run(&mut self, run: &Arc<Run>, behind: &Behind, limits: &FanoutLimits) {
        if self.bytes >= limits.queue_bytes_max {
            return;
        }
        if self.extend(run, limits.write_bytes_max) {
            return;
        }
        let goes_on = self.end().is_some_and(|end| run.index_after(end).is_some());
        let (after, prev) = run.befores();
        let stands = |from, to| behind.range(from..to).next().is_some();
        let wanted = goes_on
            || stands((after, 0), (run.last(), 0))
            || prev.is_some_and(|prev| stands((prev, 0), (prev, NONE)));
        if wanted {
            let at = (prev.unwrap_or(after), 0);
            let bytes = run.bytes();
            self.push(Part { what: What::Gathering(vec![(Arc::clone(run), 0)]), at, bytes });
        }
    }

    /// Takes a gap, if it concerns anybody, or will when what came before is out. Bounded as runs are.
    pub(super) fn push_gap(
        &mut self,
        gap: &Arc<MissingRun>,
        behind: &Behind,
        limits: &FanoutLimits,
    ) {
        if self.bytes >= limits.queue_bytes_max {
            return;
        }
        let goes_on = self.end().is_some_and(|end| gap.concerns(end));
        if goes_on || behind.range(range_of(gap)).any(|(cursor, _)| gap.concerns(*cursor)) {
            let bytes = size_of::<MissingRun>();
            self.push(Part { what: What::Gap(Arc::clone(gap)), at: (gap.after, 0), bytes });
        }
    }

    fn push(&mut self, part: Part) {
        self.bytes += part.bytes;
        self.parts.push_back(part);
    }

    /// Adds a run to the last part, if it goes on just where that ends and nobody has got that.
    fn extend(&mut self, run: &Arc<Run>, write_bytes_max: usize) -> bool {
        let Some(Part { what: What::Gathering(runs), bytes, .. }) = self.parts.back_mut() else {
            return false;
        };
        let end = runs.last().expect("a part has a run").0.last();
        // One that begins earlier may have events for those who stand before this part.
        if run.index_after(end) != Some(0) || *bytes + run.bytes() > write_bytes_max {
            return false;
        }
        runs.push((Arc::clone(run), 0));
        *bytes += run.bytes();
        self.bytes += run.bytes();
        true
    }

    /// Where members will stand when all is out.
    fn end(&self) -> Option<Cursor> {
        Some(match &self.parts.back()?.what {
            What::Gathering(runs) => runs.last()?.0.last(),
            What::Delivering(batch) => batch.last(),
            What::Gap(gap) => gap.resume(),
        })
    }

    /// Goes one step on in the walk over those behind.
    pub(super) fn next(&mut self, behind: &Behind) -> Next {
        let Some(part) = self.parts.front_mut() else { return Next::Nothing };
        if let What::Gathering(runs) = &mut part.what {
            let end = runs.last().expect("a part has a run").0.last();
            if behind.range(part.at..(end, 0)).next().is_none() {
                // All have left: it is rendered for nobody.
                return self.pop();
            }
            part.what = What::Delivering(Batch::new(std::mem::take(runs)));
        }
        let next = match &part.what {
            What::Gathering(_) => unreachable!("it was just closed"),
            What::Delivering(batch) => next_in_batch(&mut part.at, batch, behind),
            What::Gap(gap) => next_in_gap(&mut part.at, gap, behind),
        };
        match next {
            Some(next) => next,
            None => self.pop(),
        }
    }

    fn pop(&mut self) -> Next {
        if let Some(part) = self.parts.pop_front() {
            self.bytes -= part.bytes;
        }
        if self.parts.is_empty() { Next::Nothing } else { Next::Nobody }
    }

    /// Checks what is true of it by itself.
    ///
    /// # Panics
    ///
    /// It is not.
    pub(super) fn check_invariants(&self) {
        let bytes: usize = self.parts.iter().map(|part| part.bytes).sum();
        assert_eq!(bytes, self.bytes, "bytes of catch-ups are counted");
        let delivering = |part: &Part| matches!(part.what, What::Delivering(_));
        assert!(!self.parts.iter().skip(1).any(delivering), "one part after the other");
    }
}

/// The next step within a batch; `None` if nobody is left.
fn next_in_batch(at: &mut (Cursor, u32), batch: &Rc<Batch>, behind: &Behind) -> Option<Next> {
    let &(cursor, index) = behind.range(*at..(batch.last(), 0)).next()?;
    match batch.entry_of(cursor) {
        Some(entry) => {
            *at = (cursor, index + 1);
            Some(Next::Events(index, Rc::clone(batch), entry))
        }
        None => {
            *at = (batch.next_begin(cursor)?, 0);
            Some(Next::Nobody)
        }
    }
}

/// The next step within a gap; `None` if nobody is left.
fn next_in_gap(at: &mut (Cursor, u32), gap: &Arc<MissingRun>, behind: &Behind) -> Option<Next> {
    let &(cursor, index) = behind.range(*at..range_of(gap).end).next()?;
    if gap.concerns(cursor) {
        *at = (cursor, index + 1);
        return Some(Next::Gap(index, cursor, Arc::clone(gap)));
    }
    *at = (cursor, NONE);
    Some(Next::Nobody)
}

fn range_of(gap: &MissingRun) -> std::ops::Range<(Cursor, u32)> {
    // Whoever is at `after` at least.
    (gap.after, 0)..(gap.resume(), 0).max((gap.after, NONE))
}
