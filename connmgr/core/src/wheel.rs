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
//! tick number, 48 bits:   … | level 2: 6 bits | level 1: 6 bits | level 0: 6 bits
//! ```
//!
//! The wheel stands at a *position*, a tick. An entry lies on the level of the highest group of six bits in which its
//! tick differs from the position, in the slot that this group of its tick names. From this follows all the rest:
//!
//! * On its level an entry's slot is *after* the position's, so a level never wraps around, and the first occupied slot
//!   of a level is found with one count of trailing zeros.
//! * All that lies on a level fires before anything on a higher one. The first occupied slot of the lowest occupied
//!   level is the next thing to do.
//! * Eight levels cover 48 bits of ticks, which are 89 thousand years: there is no overflow list, and what lies beyond
//!   is never.
//! * The position may jump to any tick as long as no occupied slot begins before it: a silent hour costs nothing.
//!
//! When the position arrives at a slot of a higher level, its entries move down. A million keep-alives may share such
//! a slot, so that is done entry by entry within the caller's budget, like the firing itself: while a slot is being
//! emptied the position simply stays at its beginning. That way no turn of a worker's loop is long.
//!
//! The order of timers that are due together is unspecified.
//!
//! A timer has no identity of its own: each belongs to an entry of a slab, and has its index. So there is nothing to be
//! kept for it on the other side, and no stale name of it; who takes an entry away disarms its timer.

use std::num::NonZeroU64;

use crate::paged::Paged;
use crate::slab::NONE;

/// The grain of all timers, in milliseconds.
pub const TICK_MS: u64 = 10;

/// A set of timers, at most one for each index.
///
/// Memory: 2.1 KB, and 16 bytes for each armed timer.
#[derive(Debug)]
pub struct Wheel {
    entries: Paged<Entry>,
    /// The tick at which the wheel stands: everything before it has fired.
    position: u64,
    levels: [Level; LEVELS],
    /// Bit `l` is set iff level `l` has an occupied slot.
    occupied: u16,
}

#[derive(Debug)]
struct Level {
    /// The first entry of each slot, or `NONE`.
    slots: [u32; SLOTS],
    /// Bit `s` is set iff slot `s` is occupied.
    occupied: u64,
}

/// An armed timer, in 16 bytes: this is what an idle connection pays.
#[derive(Clone, Copy, Debug)]
struct Entry {
    /// The tick at which it fires, and where it lies.
    when: When,
    /// The next entry of the slot; `NONE` at the end.
    next: u32,
    /// The entry before it in the slot; `NONE` for the first.
    prev: u32,
}

/// A tick, and the slot of the level that it lies in, in one number: 48 and 16 bits.
#[derive(Clone, Copy, Debug)]
struct When(NonZeroU64);

impl When {
    fn new(tick: u64, level: usize, slot: usize) -> Self {
        debug_assert!(tick <= TICK_NEVER);
        let place = (level * SLOTS + slot + 1) as u64;
        When(NonZeroU64::new(tick << PLACE_BITS | place).expect("places are counted from 1"))
    }

    fn tick(self) -> u64 {
        self.0.get() >> PLACE_BITS
    }

    /// The level, and the slot.
    fn place(self) -> (usize, usize) {
        let place = (self.0.get() & ((1 << PLACE_BITS) - 1)) as usize - 1;
        (place / SLOTS, place % SLOTS)
    }
}

impl Wheel {
    /// An empty wheel that stands at `now_ms`.
    pub fn new(now_ms: u64) -> Self {
        Wheel {
            entries: Paged::default(),
            position: tick_at(now_ms),
            levels: [const { Level { slots: [NONE; SLOTS], occupied: 0 } }; LEVELS],
            occupied: 0,
        }
    }

    /// How many timers are armed.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether no timer is armed.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Arms the timer of that index, or moves it. It fires at the first [`Wheel::pop_expired`] at or after `deadline_ms`
    /// rounded up to a tick; if its deadline is past, at the next.
    ///
    /// Every deadline is accepted. One of [`NEVER_MS`] or later does not fire.
    pub fn arm(&mut self, index: u32, deadline_ms: u64) {
        let tick = deadline_ms.div_ceil(TICK_MS);
        if let Some(&entry) = self.entries.get(index) {
            self.unlink(entry);
            self.entries[index] = self.link(index, tick);
        } else {
            let entry = self.link(index, tick);
            self.entries.insert(index, entry);
        }
    }

    /// Disarms the timer of that index. Says whether it was armed.
    pub fn disarm(&mut self, index: u32) -> bool {
        let Some(entry) = self.entries.remove(index) else { return false };
        self.unlink(entry);
        true
    }

    /// Whether the timer of that index is armed.
    pub fn is_armed(&self, index: u32) -> bool {
        self.entries.get(index).is_some()
    }

    /// When to call [`Wheel::pop_expired`] next, in the caller's milliseconds; `None` if no timer is armed that ever fires.
    ///
    /// It may be earlier than the next timer fires, when that one lies on a higher level, but never later. The wheel
    /// then only moves on; that happens at most once for each level that the timer passes.
    pub fn next_deadline(&self) -> Option<u64> {
        let slot = self.next_slot()?;
        (slot.start < TICK_NEVER).then(|| slot.start * TICK_MS)
    }

    /// Fires one timer that is due at `now_ms`: disarms it and returns its index.
    ///
    /// `None` if none is due, or if the budget is spent: `steps` counts down by one for each timer that fires or moves
    /// to a lower level, and nothing is done at 0. What is left is then due at once, as [`Wheel::next_deadline`] says.
    ///
    /// A `now_ms` before an earlier one fires nothing and does no harm.
    pub fn pop_expired(&mut self, now_ms: u64, steps: &mut usize) -> Option<u32> {
        let now = tick_at(now_ms);
        while let Some(slot) = self.next_slot().filter(|slot| slot.start <= now) {
            if *steps == 0 {
                return None;
            }
            *steps -= 1;
            self.position = self.position.max(slot.start);
            let index = slot.first;
            if slot.level == 0 {
                self.disarm(index);
                return Some(index);
            }
            let entry = self.entries[index];
            self.unlink(entry);
            self.entries[index] = self.link(index, entry.when.tick());
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
        if self.occupied == 0 {
            return None;
        }
        let mut level = self.occupied.trailing_zeros() as usize;
        let mut higher = self.occupied & !1;
        while higher != 0 {
            let standing = higher.trailing_zeros() as usize;
            if self.levels[standing].occupied >> slot_of(self.position, standing) & 1 == 1 {
                level = standing;
                break;
            }
            higher &= higher - 1;
        }
        let slot = self.levels[level].occupied.trailing_zeros() as usize;
        debug_assert!(slot >= slot_of(self.position, level), "the wheel has passed a slot");
        // The groups above the level are those of the position, the groups below are zero.
        let shift = BITS * level;
        let above = self.position >> shift >> BITS << BITS;
        let start = (above | slot as u64) << shift;
        Some(NextSlot { level, start, first: self.levels[level].slots[slot] })
    }

    /// Puts the timer of an index, which is in no slot, into the one of `tick`, as seen from the position. The caller keeps
    /// the entry.
    fn link(&mut self, index: u32, tick: u64) -> Entry {
        let tick = tick.clamp(self.position, TICK_NEVER);
        let level = level_of(tick, self.position);
        let slot = slot_of(tick, level);
        let next = self.levels[level].slots[slot];
        if next != NONE {
            self.entries[next].prev = index;
        }
        self.levels[level].slots[slot] = index;
        self.levels[level].occupied |= 1 << slot;
        self.occupied |= 1 << level;
        Entry { when: When::new(tick, level, slot), next, prev: NONE }
    }

    /// Takes an entry out of its slot. The caller links it again or forgets it.
    fn unlink(&mut self, Entry { when, next, prev }: Entry) {
        if next != NONE {
            self.entries[next].prev = prev;
        }
        if prev != NONE {
            self.entries[prev].next = next;
            return;
        }
        let (level, slot) = when.place();
        self.levels[level].slots[slot] = next;
        if next == NONE {
            self.levels[level].occupied &= !(1 << slot);
            if self.levels[level].occupied == 0 {
                self.occupied &= !(1 << level);
            }
        }
    }
}

/// What [`Wheel::next_slot`] finds.
struct NextSlot {
    level: usize,
    /// The first tick of the slot.
    start: u64,
    first: u32,
}

/// The tick that has begun at that time.
fn tick_at(now_ms: u64) -> u64 {
    // Only what is never lies there.
    (now_ms / TICK_MS).min(TICK_NEVER - 1)
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
/// Levels that cover every tick: 48 bits of 6 each.
const LEVELS: usize = 8;
/// Bits of a [`When`] that name the level and the slot.
const PLACE_BITS: usize = 16;
/// The tick of what does not happen.
const TICK_NEVER: u64 = (1 << (BITS * LEVELS)) - 1;

/// Deadlines from here on, in 89 thousand years, are never.
pub const NEVER_MS: u64 = (TICK_NEVER - 1) * TICK_MS + 1;

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
            2 => (0..48_u32, -11..=11_i64)
                .prop_map(|(bit, nudge)| (TICK_MS << bit).saturating_add_signed(nudge)),
            1 => any::<u64>(),
        ]
    }

    /// Some that meet again, on two pages.
    fn index() -> impl Strategy<Value = u32> {
        prop_oneof![0..40_u32, 2000..2010_u32]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            11 => (index(), span_ms()).prop_map(|(index, after_ms)| Op::Arm { index, after_ms }),
            1 => (index(), any::<u64>())
                .prop_map(|(index, deadline_ms)| Op::ArmAt { index, deadline_ms }),
            3 => index().prop_map(|index| Op::Disarm { index }),
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
            start_ms in prop_oneof![Just(0), 0..1_000_000_u64, 0..NEVER_MS],
            ops in proptest::collection::vec(op(), 1..120),
        ) {
            run(start_ms, ops);
        }
    }

    /// Fires all that is due, and counts the calls that a caller who follows `next_deadline` makes until then.
    fn wakeups_until_empty(wheel: &mut Wheel) -> usize {
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
        assert_eq!(size_of::<Option<Entry>>(), 16);
    }

    #[test]
    fn a_deadline_is_rounded_up_to_the_tick() {
        let mut wheel = Wheel::new(0);
        wheel.arm(7, 11);
        let mut max = usize::MAX;
        let steps = &mut max;
        assert_eq!(wheel.pop_expired(11, steps), None);
        assert_eq!(wheel.pop_expired(19, steps), None);
        assert_eq!(wheel.next_deadline(), Some(20));
        assert_eq!(wheel.pop_expired(20, steps), Some(7));
        assert_eq!(wheel.next_deadline(), None);
    }

    #[test]
    fn a_far_deadline_wakes_at_most_once_a_level() {
        for bit in 0..47 {
            let mut wheel = Wheel::new(12_345);
            wheel.arm(0, 12_345 + (TICK_MS << bit) - 1);
            assert!(wakeups_until_empty(&mut wheel) <= LEVELS);
        }
    }

    #[test]
    fn moving_a_crowded_slot_down_is_bounded() {
        let mut wheel = Wheel::new(0);
        for index in 0..1_000 {
            wheel.arm(index, 60_000);
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
        wheel.arm(1, u64::MAX);
        wheel.arm(2, NEVER_MS);
        wheel.arm(3, NEVER_MS - 1);
        let mut max = usize::MAX;
        let steps = &mut max;
        assert_eq!(wheel.pop_expired(u64::MAX, steps), Some(3));
        assert_eq!(wheel.pop_expired(u64::MAX, steps), None);
        assert_eq!((wheel.len(), wheel.next_deadline()), (2, None));
    }
}
