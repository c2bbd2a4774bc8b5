//! A hierarchical timing wheel: O(1) to arm, to cancel and to fire a timer.
//!
//! An edge with a million connections has a million timers, and nearly all of them are cancelled or moved before they
//! fire. A heap pays a logarithm for each of those and cannot forget an entry in its middle; a wheel unlinks it from a
//! list (Varghese and Lauck, *Hashed and Hierarchical Timing Wheels*, SOSP 1987).
//!
//! Time is a `u64` of milliseconds that the caller names; there is no clock in here. It is cut into ticks of
//! [`TICK_MS`]. A deadline is rounded *up* to a tick and `now` is rounded down, so no timer ever fires early.
//!
//! ```text
//! tick number, 61 bits:   … | level 2: 6 bits | level 1: 6 bits | level 0: 6 bits
//! ```
//!
//! The wheel stands at a *position*, a tick. An entry lies on the level of the highest group of six bits in which its
//! tick differs from the position, in the slot that this group of its tick names. From this follows all the rest:
//!
//! * On its level an entry's slot is *after* the position's, so a level never wraps around, and the first occupied slot
//!   of a level is found with one count of trailing zeros.
//! * All that lies on a level fires before anything on a higher one. The first occupied slot of the lowest occupied
//!   level is the next thing to do.
//! * Eleven levels cover every `u64`, so there is no overflow list and no longest timeout.
//! * The position may jump to any tick as long as no occupied slot begins before it: a silent hour costs nothing.
//!
//! When the position arrives at a slot of a higher level, its entries move down. A million keep-alives may share such
//! a slot, so that is done entry by entry within the caller's budget, like the firing itself: while a slot is being
//! emptied the position simply stays at its beginning. That way no turn of a worker's loop is long.
//!
//! The order of timers that are due together is unspecified.

use std::num::NonZeroU32;

/// The grain of all timers, in milliseconds.
pub const TICK_MS: u64 = 10;

/// Names one armed timer. After it fired or was cancelled, its id is recognised as stale, even when the slot in memory
/// has been used again (until 2³² timers have used that very slot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TimerId {
    index: u32,
    /// Never 0, so that an `Option<TimerId>` is as small as the id.
    generation: NonZeroU32,
}

/// A set of timers, each with a key that the caller gets back when it fires.
///
/// Memory: 2.9 KB, and an entry of 24 bytes and the key for each of the most timers that were ever armed together.
#[derive(Debug)]
pub struct Wheel<K> {
    entries: Vec<Entry<K>>,
    /// The first free entry, or `NIL`.
    free: u32,
    /// How many timers are armed.
    len: usize,
    /// The tick at which the wheel stands: everything before it has fired.
    position: u64,
    levels: [Level; LEVELS],
    /// Bit `l` is set iff level `l` has an occupied slot.
    occupied: u16,
}

#[derive(Debug)]
struct Level {
    /// The first entry of each slot, or `NIL`.
    slots: [u32; SLOTS],
    /// Bit `s` is set iff slot `s` is occupied.
    occupied: u64,
}

/// Kept to 24 bytes and the key: this is what an idle connection pays.
#[derive(Debug)]
struct Entry<K> {
    key: K,
    /// The tick at which it fires.
    tick: u64,
    /// The next entry of the slot or, in a free entry, of the free list; `NIL` at the end.
    next: u32,
    /// The entry before it in the slot; `NIL` for the first.
    prev: u32,
    generation: NonZeroU32,
    /// `level * SLOTS + slot`, or `VACANT`.
    place: u16,
}

impl<K: Copy> Wheel<K> {
    /// An empty wheel that stands at `now_ms`.
    pub fn new(now_ms: u64) -> Self {
        Wheel {
            entries: Vec::new(),
            free: NIL,
            len: 0,
            position: now_ms / TICK_MS,
            levels: [const { Level { slots: [NIL; SLOTS], occupied: 0 } }; LEVELS],
            occupied: 0,
        }
    }

    /// How many timers are armed.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Arms a timer. It fires at the first [`Wheel::pop_expired`] at or after `deadline_ms` rounded up to a tick; one
    /// whose deadline is past fires at the next.
    ///
    /// Every deadline is accepted. One within the last tick before `u64::MAX`, which stands for *never*, rounds up to a
    /// time that does not exist, and does not fire.
    ///
    /// # Panics
    ///
    /// If 2³² - 1 timers are armed.
    pub fn insert(&mut self, deadline_ms: u64, key: K) -> TimerId {
        let index = self.allocate(key);
        self.link(index, deadline_ms.div_ceil(TICK_MS));
        self.len += 1;
        TimerId { index, generation: self.entries[index as usize].generation }
    }

    /// Disarms a timer. Says whether it was armed: not if it has fired or was cancelled before.
    pub fn cancel(&mut self, id: TimerId) -> bool {
        if !self.is_armed(id) {
            return false;
        }
        self.unlink(id.index);
        self.release(id.index);
        true
    }

    /// Moves an armed timer to another deadline; its id stays. Says whether it was armed; if not, nothing is done.
    pub fn reschedule(&mut self, id: TimerId, deadline_ms: u64) -> bool {
        if !self.is_armed(id) {
            return false;
        }
        self.unlink(id.index);
        self.link(id.index, deadline_ms.div_ceil(TICK_MS));
        true
    }

    /// Whether that timer is still armed.
    pub fn is_armed(&self, id: TimerId) -> bool {
        self.entries
            .get(id.index as usize)
            .is_some_and(|entry| entry.place != VACANT && entry.generation == id.generation)
    }

    /// When to call [`Wheel::pop_expired`] next, in the caller's milliseconds; `None` if no timer is armed.
    ///
    /// It may be earlier than the next timer fires, when that one lies on a higher level, but never later. The wheel
    /// then only moves on; that happens at most once for each level that the timer passes.
    pub fn next_deadline(&self) -> Option<u64> {
        self.next_slot().map(|slot| slot.start.saturating_mul(TICK_MS))
    }

    /// Fires one timer that is due at `now_ms`: disarms it and returns its key.
    ///
    /// `None` if none is due, or if the budget is spent: `steps` counts down by one for each timer that fires or moves
    /// to a lower level, and nothing is done at 0. What is left is then due at once, as [`Wheel::next_deadline`] says.
    ///
    /// A `now_ms` before an earlier one fires nothing and does no harm.
    pub fn pop_expired(&mut self, now_ms: u64, steps: &mut usize) -> Option<K> {
        let now = now_ms / TICK_MS;
        while let Some(slot) = self.next_slot().filter(|slot| slot.start <= now) {
            if *steps == 0 {
                return None;
            }
            *steps -= 1;
            self.position = self.position.max(slot.start);
            let index = slot.first;
            self.unlink(index);
            if slot.level == 0 {
                self.release(index);
                return Some(self.entries[index as usize].key);
            }
            self.link(index, self.entries[index as usize].tick);
        }
        // Nothing occupied begins at or before `now`, so every entry is on the same level as seen from there.
        self.position = self.position.max(now);
        None
    }

    /// The occupied slot that comes first.
    ///
    /// That is the first of the lowest level, unless the wheel stands in the slot of a higher level, which it then is
    /// emptying: what is left in there may be due before anything below.
    fn next_slot(&self) -> Option<NextSlot> {
        let standing = (1..LEVELS).find(|&level| {
            self.occupied >> level & 1 == 1
                && self.levels[level].occupied >> slot_of(self.position, level) & 1 == 1
        });
        let level = match standing {
            Some(level) => level,
            None if self.occupied == 0 => return None,
            None => self.occupied.trailing_zeros() as usize,
        };
        let slot = self.levels[level].occupied.trailing_zeros() as usize;
        debug_assert!(slot >= slot_of(self.position, level), "the wheel has passed a slot");
        // The groups above the level are those of the position, the groups below are zero.
        let shift = BITS * level;
        let above = self.position >> shift >> BITS << BITS;
        let start = (above | slot as u64) << shift;
        Some(NextSlot { level, start, first: self.levels[level].slots[slot] })
    }

    /// Puts an entry that is in no slot into the one of `tick`, as seen from the position.
    fn link(&mut self, index: u32, tick: u64) {
        let tick = tick.max(self.position);
        let level = level_of(tick, self.position);
        let slot = slot_of(tick, level);
        let next = self.levels[level].slots[slot];
        if next != NIL {
            self.entries[next as usize].prev = index;
        }
        let entry = &mut self.entries[index as usize];
        entry.tick = tick;
        entry.next = next;
        entry.prev = NIL;
        entry.place = u16::try_from(level * SLOTS + slot).expect("there are 704 places");
        self.levels[level].slots[slot] = index;
        self.levels[level].occupied |= 1 << slot;
        self.occupied |= 1 << level;
    }

    /// Takes an entry out of its slot. The caller links it again or releases it.
    fn unlink(&mut self, index: u32) {
        let Entry { next, prev, place, .. } = self.entries[index as usize];
        if next != NIL {
            self.entries[next as usize].prev = prev;
        }
        if prev != NIL {
            self.entries[prev as usize].next = next;
            return;
        }
        let (level, slot) = (usize::from(place) / SLOTS, usize::from(place) % SLOTS);
        self.levels[level].slots[slot] = next;
        if next == NIL {
            self.levels[level].occupied &= !(1 << slot);
            if self.levels[level].occupied == 0 {
                self.occupied &= !(1 << level);
            }
        }
    }

    /// An entry for `key`, in no slot yet.
    fn allocate(&mut self, key: K) -> u32 {
        if self.free == NIL {
            let index = u32::try_from(self.entries.len()).unwrap_or(NIL);
            assert!(index != NIL, "more timers than an index can name");
            let generation = NonZeroU32::MIN;
            self.entries.push(Entry { key, tick: 0, next: NIL, prev: NIL, generation, place: 0 });
            return index;
        }
        let index = self.free;
        let entry = &mut self.entries[index as usize];
        self.free = entry.next;
        entry.key = key;
        index
    }

    /// Gives an entry that is in no slot to the free list, and makes its id stale.
    fn release(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.place = VACANT;
        entry.generation = entry.generation.checked_add(1).unwrap_or(NonZeroU32::MIN);
        entry.next = self.free;
        self.free = index;
        self.len -= 1;
    }
}

/// What [`Wheel::next_slot`] finds.
struct NextSlot {
    level: usize,
    /// The first tick of the slot.
    start: u64,
    first: u32,
}

/// The level of the highest group of bits in which the two ticks differ; 0 if they are the same.
fn level_of(tick: u64, position: u64) -> usize {
    let highest_bit = 63 - ((tick ^ position) | 1).leading_zeros() as usize;
    highest_bit / BITS
}

/// The group of bits of `tick` that belongs to `level`.
fn slot_of(tick: u64, level: usize) -> usize {
    (tick >> (BITS * level)) as usize & (SLOTS - 1)
}

/// Bits of a tick that one level sorts by.
const BITS: usize = 6;
/// Slots of a level: as many as a `u64` has bits, for the bitmap.
const SLOTS: usize = 1 << BITS;
/// Levels that cover every tick of a `u64` of milliseconds: ⌈61 / 6⌉.
const LEVELS: usize = 11;
/// No entry.
const NIL: u32 = u32::MAX;
/// The place of an entry that is in no slot, but in the free list.
const VACANT: u16 = u16::MAX;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::fuzzing::wheel_ops::{Op, run};

    /// Spans that land on each level, and on both sides of each border between two.
    fn span_ms() -> impl Strategy<Value = u64> {
        prop_oneof![
            4 => 0..100_u64,
            4 => 0..2_000_u64,
            4 => 0..100_000_u64,
            2 => (0..61_u32, -11..=11_i64)
                .prop_map(|(bit, nudge)| (TICK_MS << bit).saturating_add_signed(nudge)),
            1 => any::<u64>(),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            8 => span_ms().prop_map(|after_ms| Op::Insert { after_ms }),
            1 => any::<u64>().prop_map(|deadline_ms| Op::InsertAt { deadline_ms }),
            3 => any::<u8>().prop_map(|nth| Op::Cancel { nth }),
            3 => (any::<u8>(), span_ms())
                .prop_map(|(nth, after_ms)| Op::Reschedule { nth, after_ms }),
            4 => (span_ms(), 0..20_usize)
                .prop_map(|(by_ms, steps)| Op::Advance { by_ms, steps: Some(steps) }),
            4 => span_ms().prop_map(|by_ms| Op::Advance { by_ms, steps: None }),
            2 => Just(Op::AdvanceToDeadline),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]
        #[test]
        fn fires_as_the_naive_one(
            start_ms in prop_oneof![Just(0), 0..1_000_000_u64, any::<u64>()],
            ops in proptest::collection::vec(op(), 1..120),
        ) {
            run(start_ms, ops);
        }
    }

    /// Fires all that is due, and counts the calls that a caller who follows `next_deadline` makes until then.
    fn wakeups_until_empty(wheel: &mut Wheel<u64>) -> usize {
        let mut wakeups = 0;
        while let Some(deadline_ms) = wheel.next_deadline() {
            wakeups += 1;
            let mut steps = usize::MAX;
            while wheel.pop_expired(deadline_ms, &mut steps).is_some() {}
        }
        wakeups
    }

    #[test]
    fn an_entry_is_small() {
        assert_eq!(size_of::<Entry<u64>>(), 32);
        assert_eq!(size_of::<Option<TimerId>>(), 8);
    }

    #[test]
    fn a_deadline_is_rounded_up_to_the_tick() {
        let mut wheel = Wheel::new(0);
        wheel.insert(11, 'a');
        let mut max = usize::MAX;
        let steps = &mut max;
        assert_eq!(wheel.pop_expired(11, steps), None);
        assert_eq!(wheel.pop_expired(19, steps), None);
        assert_eq!(wheel.next_deadline(), Some(20));
        assert_eq!(wheel.pop_expired(20, steps), Some('a'));
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_stale_id_is_recognised() {
        let mut wheel = Wheel::new(0);
        let first = wheel.insert(10, 1);
        assert!(wheel.cancel(first));
        let second = wheel.insert(10, 2);
        assert_eq!(first.index, second.index, "the entry was used again");
        assert!(!wheel.cancel(first));
        assert!(!wheel.reschedule(first, 20));
        assert!(wheel.cancel(second));
        assert!(wheel.is_empty());
    }

    #[test]
    fn a_far_deadline_wakes_at_most_once_a_level() {
        for bit in 0..61 {
            let mut wheel = Wheel::new(12_345);
            wheel.insert(12_345 + (TICK_MS << bit) - 1, 0);
            assert!(wakeups_until_empty(&mut wheel) <= LEVELS);
        }
    }

    #[test]
    fn moving_a_crowded_slot_down_is_bounded() {
        let mut wheel = Wheel::new(0);
        for key in 0..1_000 {
            wheel.insert(60_000, key);
        }
        let (mut calls, mut fired) = (0, 0);
        while !wheel.is_empty() {
            let mut steps = 64;
            while wheel.pop_expired(60_000, &mut steps).is_some() {
                fired += 1;
            }
            assert!(wheel.next_deadline().is_none_or(|deadline_ms| deadline_ms <= 60_000));
            calls += 1;
        }
        assert_eq!(fired, 1_000);
        assert!(calls >= 2 * 1_000 / 64, "{calls} calls did it");
    }

    #[test]
    fn never_is_never() {
        let mut wheel = Wheel::new(0);
        wheel.insert(u64::MAX, 'a');
        wheel.insert(u64::MAX - u64::MAX % TICK_MS, 'b');
        let mut max = usize::MAX;
        let steps = &mut max;
        assert_eq!(wheel.pop_expired(u64::MAX, steps), Some('b'));
        assert_eq!(wheel.pop_expired(u64::MAX, steps), None);
        assert_eq!(wheel.len(), 1);
    }
}
