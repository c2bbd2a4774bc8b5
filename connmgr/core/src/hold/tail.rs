//! A tail: the newest events of a channel, without holes, so that a herd of readers that come back
//! is served without asking anyone.

use std::collections::VecDeque;
use std::sync::Arc;

use zhttp::Cursor;

use super::run::Run;

/// What a run costs besides its data, roughly, in bytes: its entry and those of its events.
const RUN_OVERHEAD_BYTES: usize = 128;
/// What an event costs besides its data, in bytes.
const EVENT_OVERHEAD_BYTES: usize = size_of::<super::RunEvent>();

/// Runs that follow each other.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    runs: VecDeque<Arc<Run>>,
    bytes: usize,
}

impl Tail {
    /// What it costs, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is no event.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The last event; `None` if there is none.
    pub(crate) fn end(&self) -> Option<Cursor> {
        self.runs.back().map(|run| run.last())
    }

    /// Takes a run that goes on where this ends; begins anew with one that lies beyond a hole;
    /// ignores an old one.
    pub(crate) fn push(&mut self, run: &Arc<Run>, bytes_max: usize) {
        match self.end() {
            Some(end) if run.last() <= end => return,
            Some(end) if run.index_after(end).is_none() => {
                self.runs.clear();
                self.bytes = 0;
            }
            Some(_) | None => {}
        }
        self.bytes += cost(run);
        self.runs.push_back(Arc::clone(run));
        while self.bytes > bytes_max && self.runs.len() > 1 {
            self.pop_oldest();
        }
    }

    /// Drops the oldest run.
    pub(crate) fn pop_oldest(&mut self) {
        if let Some(run) = self.runs.pop_front() {
            self.bytes -= cost(&run);
        }
    }

    /// The runs that a reader at `cursor` needs, from the one that holds its next event on; `None`
    /// if that event is not here.
    pub(crate) fn after(&self, cursor: Cursor) -> Option<impl Iterator<Item = &Arc<Run>>> {
        // The runs are in order: the first that ends after the cursor holds the next event or none.
        let first = self.runs.partition_point(|run| run.last() <= cursor);
        self.runs.get(first)?.index_after(cursor)?;
        Some(self.runs.range(first..))
    }
}

fn cost(run: &Run) -> usize {
    run.bytes() + run.events().len() * EVENT_OVERHEAD_BYTES + RUN_OVERHEAD_BYTES
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::run::tests::run;
    use super::*;
    use proptest::prelude::*;

    fn ids(tail: &Tail, cursor: Cursor) -> Option<Vec<Cursor>> {
        let mut at = cursor;
        let mut ids = Vec::new();
        for run in tail.after(cursor)? {
            let skip = run.index_after(at).unwrap();
            ids.extend((skip..run.events().len()).map(|index| run.id(index)));
            at = run.last();
        }
        Some(ids)
    }

    #[test]
    fn it_goes_on_over_an_end_and_begins_anew_after_a_hole() {
        let mut tail = Tail::default();
        tail.push(&run("c", Cursor::new(1, 0), Some(Cursor::START), 3, true), usize::MAX);
        tail.push(&run("c", Cursor::new(2, 0), Some(Cursor::new(1, 3)), 2, false), usize::MAX);
        let want = [Cursor::new(1, 3), Cursor::new(2, 1), Cursor::new(2, 2)];
        assert_eq!(ids(&tail, Cursor::new(1, 2)).unwrap(), want);
        assert_eq!(ids(&tail, Cursor::new(1, 3)).unwrap(), want[1..]);
        assert_eq!(ids(&tail, Cursor::new(2, 2)), None);
        tail.push(&run("c", Cursor::new(2, 5), None, 1, false), usize::MAX);
        assert_eq!(ids(&tail, Cursor::new(2, 1)), None);
        assert_eq!(ids(&tail, Cursor::new(2, 5)).unwrap(), [Cursor::new(2, 6)]);
        tail.push(&run("c", Cursor::new(2, 0), None, 3, false), usize::MAX);
        assert_eq!(tail.end(), Some(Cursor::new(2, 6)));
    }

    proptest! {
        #[test]
        fn it_serves_a_suffix_of_the_log(sizes in prop::collection::vec((1u64..5, 0u64..3), 1..40), max in 1usize..3000) {
            let mut tail = Tail::default();
            let mut end = 0;
            for (count, overlap) in sizes {
                let after = Cursor::new(1, end.max(overlap) - overlap);
                let run = run("c", after, None, count + (end - after.offset), false);
                tail.push(&run, max);
                end = run.last().offset;
                prop_assert!(tail.bytes() <= max || tail.runs.len() == 1);
                prop_assert_eq!(tail.bytes(), tail.runs.iter().map(|run| cost(run)).sum::<usize>());
            }
            let mut served = false;
            for offset in 0..end {
                let ids = ids(&tail, Cursor::new(1, offset));
                prop_assert!(ids.is_some() || !served, "what is kept is a suffix");
                if let Some(ids) = ids {
                    served = true;
                    let want: Vec<_> = (offset + 1..=end).map(|o| Cursor::new(1, o)).collect();
                    prop_assert_eq!(ids, want);
                }
            }
            prop_assert!(served);
        }
    }
}
