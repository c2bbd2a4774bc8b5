//! A batch: runs that follow each other, rendered once, for all who stand at a place in them.
//!
//! A reader who stands before the first event gets all of it, one who stands further on the rest: so
//! one batch serves a crowd that came back from many places, and one rendering in each form serves the crowd.

use std::rc::Rc;
use std::sync::Arc;

use zhttp::Cursor;

use super::Shared;
use super::block::{Blocks, Rendering};
use super::run::{Run, RunEvent};
use crate::websocket::Pool;

/// Runs that follow each other; at least one.
#[derive(Debug)]
pub(super) struct Batch {
    /// The runs, each from some event on.
    runs: Vec<(Arc<Run>, usize)>,
    /// How many events of the batch come before each run.
    before: Box<[u32]>,
    blocks: Blocks,
}

/// A place in a batch, where a reader goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    run: usize,
    /// The event in that run.
    event: usize,
}

impl Batch {
    /// Of runs that follow each other, each from some event on.
    pub(super) fn new(runs: Vec<(Arc<Run>, usize)>) -> Rc<Self> {
        let count = |(run, skip): &(Arc<Run>, usize)| (run.events().len() - skip) as u32;
        let before = runs.iter().scan(0, |events, run| {
            let before = *events;
            *events += count(run);
            Some(before)
        });
        Rc::new(Batch { before: before.collect(), blocks: Blocks::default(), runs })
    }

    /// The last event.
    pub(super) fn last(&self) -> Cursor {
        self.runs.last().expect("a batch has a run").0.last()
    }

    /// Whether the last event ends the channel.
    pub(super) fn ends(&self) -> bool {
        let last = self.runs.last().and_then(|(run, _)| run.events().last());
        last.is_some_and(|event| event.end)
    }

    /// The place before all events.
    pub(super) fn start(&self) -> Entry {
        Entry { run: 0, event: self.runs[0].1 }
    }

    /// Where a reader at `cursor` goes on, if its next event is one of these.
    pub(super) fn entry_of(&self, cursor: Cursor) -> Option<Entry> {
        // The runs are in order: the first that ends after the cursor holds the next event or none.
        let place = self.runs.partition_point(|(run, _)| run.last() <= cursor);
        let (run, skip) = self.runs.get(place)?;
        let event = run.index_after(cursor).filter(|event| event >= skip)?;
        Some(Entry { run: place, event })
    }

    /// The next cursor behind `cursor` that a run goes on from, if there is one.
    pub(super) fn next_begin(&self, cursor: Cursor) -> Option<Cursor> {
        let place = self.runs.partition_point(|(run, _)| run.befores().0 <= cursor);
        self.runs.get(place).map(|(run, _)| run.befores().0)
    }

    /// The rendered events with plain ids, from a place on.
    pub(super) fn rendered_from(
        &self,
        entry: Entry,
        rendering: Rendering,
        pool: &mut Pool,
    ) -> (Shared, usize) {
        let skipped = entry.event - self.runs[entry.run].1;
        let block = self.blocks.of(rendering, pool, &self.runs);
        block.from(self.before[entry.run] as usize + skipped)
    }

    /// The events from a place on, each with its id.
    pub(super) fn events_from(&self, entry: Entry) -> impl Iterator<Item = (Cursor, &RunEvent)> {
        self.runs[entry.run..].iter().enumerate().flat_map(move |(place, (run, skip))| {
            let skip = if place == 0 { entry.event } else { *skip };
            let events = run.events().iter().enumerate().skip(skip);
            events.map(|(index, event)| (run.id(index), event))
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::run::tests::run;
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn it_can_be_entered_over_the_end_of_an_epoch() {
        let first = run("o:c", Cursor::new(1, 2), None, 2, true);
        let second = run("o:c", Cursor::new(7, 0), Some(Cursor::new(1, 4)), 1, false);
        let batch = Batch::new(vec![(first, 0), (second, 0)]);
        assert_eq!((batch.last(), batch.ends()), (Cursor::new(7, 1), false));
        let ids = |epoch, offset| {
            let entry = batch.entry_of(Cursor::new(epoch, offset))?;
            Some(batch.events_from(entry).map(|(id, _)| id.to_string()).collect::<Vec<_>>())
        };
        assert_eq!(ids(1, 3).unwrap(), ["1-4", "7-1"]);
        assert_eq!(ids(1, 4).unwrap(), ["7-1"]);
        assert_eq!(ids(7, 0).unwrap(), ["7-1"]);
        assert_eq!([ids(1, 1), ids(1, 5), ids(7, 1)], [None, None, None]);
        assert_eq!(batch.next_begin(Cursor::START), Some(Cursor::new(1, 2)));
        assert_eq!(batch.next_begin(Cursor::new(1, 5)), Some(Cursor::new(7, 0)));
        assert_eq!(batch.next_begin(Cursor::new(7, 0)), None);
    }

    proptest! {
        /// From each place, the rendered bytes are those of the events of a plain list.
        #[test]
        fn each_reader_gets_what_follows(sizes in prop::collection::vec(1u64..5, 1..8), skip in 0u64..4) {
            let skip = skip.min(sizes[0] - 1);
            let mut end = 0;
            let runs: Vec<_> = sizes.iter().map(|&count| {
                let run = run("o:c", Cursor::new(3, end), None, count, false);
                end += count;
                (run, if end == count { skip as usize } else { 0 })
            }).collect();
            let batch = Batch::new(runs);
            for offset in 0..=end {
                let entry = batch.entry_of(Cursor::new(3, offset));
                prop_assert_eq!(entry.is_some(), offset >= skip && offset < end);
                let Some(entry) = entry else { continue };
                let want: String = (offset + 1..=end)
                    .map(|o| format!("event: stream\nid: 3-{o}\ndata: \"3-{o}\"\n\n"))
                    .collect();
                let (bytes, start) =
                    batch.rendered_from(entry, Rendering::Sse, &mut Pool::new());
                prop_assert_eq!(std::str::from_utf8(&bytes[start..]).unwrap(), want);
                let ids: Vec<_> = batch.events_from(entry).map(|(id, _)| id.offset).collect();
                prop_assert_eq!(ids, (offset + 1..=end).collect::<Vec<_>>());
            }
            prop_assert_eq!(batch.entry_of(Cursor::new(3, skip)), Some(batch.start()));
        }
    }
}
