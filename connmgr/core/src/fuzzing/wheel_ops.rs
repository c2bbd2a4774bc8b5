//! The timing wheel against a `BTreeMap` that does the same, slowly and obviously.

use std::collections::{BTreeMap, BTreeSet};

use crate::wheel::{TICK_MS, TimerId, Wheel};

/// One thing that a caller does to a wheel.
#[derive(Clone, Debug)]
pub enum Op {
    /// Arm a timer that long from now.
    Insert {
        /// Milliseconds from now.
        after_ms: u64,
    },
    /// Arm a timer for a moment that may be past.
    InsertAt {
        /// Milliseconds of the caller's time.
        deadline_ms: u64,
    },
    /// Cancel one of the ids that were ever given out.
    Cancel {
        /// Which one, modulo their number.
        nth: u8,
    },
    /// Move one of the ids that were ever given out.
    Reschedule {
        /// Which one, modulo their number.
        nth: u8,
        /// Milliseconds from now.
        after_ms: u64,
    },
    /// Let time pass and fire.
    Advance {
        /// Milliseconds.
        by_ms: u64,
        /// The budget of that call; `None` is all it takes.
        steps: Option<usize>,
    },
    /// Let time pass until the wheel wants to be called, and fire.
    AdvanceToDeadline,
}

/// The wheel and what it should be.
struct Pair {
    wheel: Wheel<u64>,
    now_ms: u64,
    /// Armed timers: the key, and the first tick at which it may fire.
    armed: BTreeMap<u64, u64>,
    /// The same by tick, for the order.
    by_tick: BTreeSet<(u64, u64)>,
    /// Every id ever given out; the key is its index.
    ids: Vec<TimerId>,
}

/// Runs the operations that `bytes` encode: ten bytes each, a code, a byte and a number whose low six bits scale it.
pub fn fuzz(bytes: &[u8]) {
    let ops = bytes.chunks_exact(10).map(|chunk| {
        let number = u64::from_le_bytes(std::array::from_fn(|i| chunk[i + 2]));
        let span_ms = number >> (number & 63);
        match chunk[0] % 8 {
            0 | 1 => Op::Insert { after_ms: span_ms },
            2 => Op::InsertAt { deadline_ms: number },
            3 => Op::Cancel { nth: chunk[1] },
            4 => Op::Reschedule { nth: chunk[1], after_ms: span_ms },
            5 => Op::Advance { by_ms: span_ms, steps: None },
            6 => Op::Advance { by_ms: span_ms, steps: Some(chunk[1].into()) },
            _ => Op::AdvanceToDeadline,
        }
    });
    run(u64::from(bytes.len() as u32), ops);
}

/// Does all operations to a wheel that begins at `start_ms` and to the naive one, and compares them after each.
///
/// # Panics
///
/// If they differ.
pub fn run(start_ms: u64, ops: impl IntoIterator<Item = Op>) {
    let mut pair = Pair {
        wheel: Wheel::new(start_ms),
        now_ms: start_ms,
        armed: BTreeMap::new(),
        by_tick: BTreeSet::new(),
        ids: Vec::new(),
    };
    for op in ops {
        pair.apply(&op);
        pair.check();
    }
}

impl Pair {
    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Insert { after_ms } => self.insert(self.now_ms.saturating_add(after_ms)),
            Op::InsertAt { deadline_ms } => self.insert(deadline_ms),
            Op::Cancel { nth } => {
                let Some((key, id)) = self.pick(nth) else { return };
                let was_armed = self.forget(key);
                assert_eq!(self.wheel.is_armed(id), was_armed);
                assert_eq!(self.wheel.cancel(id), was_armed);
            }
            Op::Reschedule { nth, after_ms } => {
                let Some((key, id)) = self.pick(nth) else { return };
                let deadline_ms = self.now_ms.saturating_add(after_ms);
                let was_armed = self.forget(key);
                assert_eq!(self.wheel.reschedule(id, deadline_ms), was_armed);
                if was_armed {
                    self.remember(key, deadline_ms);
                }
            }
            Op::Advance { by_ms, steps } => {
                self.now_ms = self.now_ms.saturating_add(by_ms);
                self.expire(steps);
            }
            Op::AdvanceToDeadline => {
                if let Some(deadline_ms) = self.wheel.next_deadline() {
                    self.now_ms = self.now_ms.max(deadline_ms);
                    self.expire(None);
                }
            }
        }
    }

    fn insert(&mut self, deadline_ms: u64) {
        let key = self.ids.len() as u64;
        self.ids.push(self.wheel.insert(deadline_ms, key));
        self.remember(key, deadline_ms);
    }

    fn expire(&mut self, budget: Option<usize>) {
        let mut steps = budget.unwrap_or(usize::MAX);
        let now = self.now_ms / TICK_MS;
        while let Some(key) = self.wheel.pop_expired(self.now_ms, &mut steps) {
            let tick = self.armed.get(&key).expect("what fires is armed");
            assert!(*tick <= now, "{key} fired at {} before its tick {tick}", self.now_ms);
            self.forget(key);
        }
        let due = self.by_tick.first().is_some_and(|&(tick, _)| tick <= now);
        assert!(!due || steps == 0, "a timer that is due did not fire");
        assert!(!due || budget.is_some());
    }

    fn check(&self) {
        assert_eq!(self.wheel.len(), self.armed.len());
        assert_eq!(self.wheel.is_empty(), self.armed.is_empty());
        let next_ms = self.by_tick.first().map(|&(tick, _)| tick.saturating_mul(TICK_MS));
        match (self.wheel.next_deadline(), next_ms) {
            (None, None) => {}
            // A timer that was armed for a moment that is past is due now.
            (Some(said_ms), Some(next_ms)) => assert!(said_ms <= next_ms.max(self.now_ms)),
            (said_ms, next_ms) => panic!("the next deadline is {said_ms:?}, not {next_ms:?}"),
        }
    }

    fn pick(&self, nth: u8) -> Option<(u64, TimerId)> {
        let index = usize::from(nth).checked_rem(self.ids.len())?;
        Some((index as u64, self.ids[index]))
    }

    fn remember(&mut self, key: u64, deadline_ms: u64) {
        let tick = deadline_ms.div_ceil(TICK_MS);
        self.armed.insert(key, tick);
        self.by_tick.insert((tick, key));
    }

    fn forget(&mut self, key: u64) -> bool {
        let tick = self.armed.remove(&key);
        tick.is_some_and(|tick| self.by_tick.remove(&(tick, key)))
    }
}
