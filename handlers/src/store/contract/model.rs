//! Random operations, against the plainest store there could be: a list of events.

use bytes::Bytes;
use zhttp::Cursor;

use super::*;

/// A channel as a list.
#[derive(Default)]
struct Oracle {
    events: Vec<StoredEvent>,
    /// All ids that there ever were, over all logs.
    ids_ever: Vec<Cursor>,
    /// The first epoch of the log.
    born: u64,
}

impl Oracle {
    fn head(&self) -> Head {
        let ended = self.events.last().is_some_and(|event| event.end);
        let id = self.events.last().map_or(Cursor::START, |event| event.id);
        let oldest_prev = self.events.first().map_or(Cursor::START, |event| event.prev);
        Head { id, ended, oldest_prev }
    }

    /// Takes an event that the store gave that id.
    fn append(&mut self, id: Cursor, new: &NewEvent, history_max: usize) {
        let Head { id: head, ended, .. } = self.head();
        if head == Cursor::START || ended {
            let last = self.ids_ever.last().copied().unwrap_or_default();
            assert!(id.epoch > last.epoch && id.offset == 1, "{id} after {last}");
        } else {
            assert_eq!(id, head.plus(1));
        }
        if head == Cursor::START {
            self.born = id.epoch;
        }
        let NewEvent { end, kind, data, .. } = new.clone();
        self.events.push(StoredEvent { id, prev: head, end, kind, data });
        self.ids_ever.push(id);
        let excess = self.events.len().saturating_sub(history_max);
        self.events.drain(..excess);
    }

    fn range(&self, after: Cursor, events_max: usize) -> Range {
        let events: Vec<StoredEvent> =
            self.events.iter().filter(|event| event.id > after).cloned().collect();
        let follows = |first: &StoredEvent| first.prev == after || first.id == after.plus(1);
        let gap = events.first().filter(|first| !follows(first)).map(|first| {
            let of_this_log = after.epoch >= self.born && after <= first.prev;
            let reason = if after == Cursor::START || of_this_log {
                GapReason::Trimmed
            } else {
                GapReason::Recreated
            };
            Gap { prev: first.prev, first: first.id, reason }
        });
        let events = events.into_iter().take(events_max).collect();
        Range { events, head: self.head(), gap }
    }
}

/// A small generator of numbers (xorshift64), so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

pub(super) async fn random_operations_agree_with_a_list<S: Store>(store: S) {
    for seed in 1..=4 {
        let mut dice = Dice(seed);
        let channel = room(&format!("model-{seed}"));
        let mut oracle = Oracle::default();
        for step in 0..250 {
            random_step(&store, &channel, &mut oracle, &mut dice).await;
            let context = format!("seed {seed}, step {step}");
            assert_eq!(head(&store, &channel).await, oracle.head(), "{context}");
            let (past, count) = (oracle.ids_ever.len(), 1 + dice.below(6));
            let after = match dice.below(8) {
                0 => Cursor::START,
                1 if past > 0 => oracle.ids_ever[dice.below(past)].plus(1),
                2 if past > 0 => Cursor::new(oracle.ids_ever[dice.below(past)].epoch, 0),
                _ if past > 0 => oracle.ids_ever[past - 1 - dice.below(past.min(8))],
                _ => Cursor::START,
            };
            let limits = RangeLimits { events_max: count as u32, bytes_max: u64::MAX };
            let range = store.range(&channel, after, limits).await.unwrap();
            assert_eq!(range, oracle.range(after, count), "{context}, after {after}");
        }
    }
}

async fn random_step(
    store: &impl Store,
    channel: &ChannelName,
    oracle: &mut Oracle,
    dice: &mut Dice,
) {
    if dice.below(12) == 0 {
        let head = oracle.head().id;
        let fence = if dice.below(3) == 0 { head.plus(1) } else { head };
        let deleted = store.delete(channel, Some(fence)).await.unwrap();
        assert_eq!(deleted, fence == head);
        if deleted {
            oracle.events.clear();
        }
        return;
    }
    let history_max = 2 + dice.below(5);
    let mut conditions =
        kept(Retention { history_max: history_max as u32, ..Retention::default() });
    let head = oracle.head().id;
    let expected = head.offset + dice.below(2) as u64;
    conditions.expect = (dice.below(4) == 0).then_some(expected);
    let data = Bytes::from(format!("data {}", dice.below(1_000_000)));
    let new = NewEvent { end: dice.below(6) == 0, data, ..event("") };
    match store.append(channel, new.clone(), &conditions).await {
        Ok(Appended { id, duplicate }) => {
            assert!(!duplicate && conditions.expect.is_none_or(|expect| expect == head.offset));
            oracle.append(id, &new, history_max);
        }
        Err(error) => {
            assert_eq!(error, AppendError::Conflict { head });
            assert!(conditions.expect.is_some_and(|expect| expect != head.offset));
        }
    }
}
