//! The timing wheel against a `BTreeMap` that does the same, slowly and obviously.

use std::collections::{BTreeMap, BTreeSet};

use crate::wheel::{NEVER_MS, TICK_MS, Wheel};

/// One thing that a caller does to a wheel.
#[derive(Clone, Debug)]
pub enum Op {
    /// Arm or move a timer to that long from now.
    Arm {
        /// Whose.
        index: u32,
        /// Milliseconds from now.
        after_ms: u64,
    },
    /// Arm or move a timer to a moment that may be past.
    ArmAt {
        /// Whose.
        index: u32,
        /// Milliseconds of the caller's time.
        deadline_ms: u64,
    },
    /// Disarm a timer that may be armed.
    Disarm {
        /// Whose.
        index: u32,
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
    wheel: Wheel,
    now_ms: u64,
    /// Armed timers: the first tick at which each may fire; `None` is never.
    armed: BTreeMap<u32, Option<u64>>,
    /// The same by tick, for the order.
    by_tick: BTreeSet<(u64, u32)>,
}

/// Runs the operations that `bytes` encode: ten bytes each, a code, a byte and a number whose low six bits scale it.
pub fn fuzz(bytes: &[u8]) {
    let ops = bytes.chunks_exact(10).map(|chunk| {
        let number = u64::from_le_bytes(std::array::from_fn(|i| chunk[i + 2]));
        let span_ms = number >> (number & 63);
        // On several pages.
        let index = u32::from(chunk[1]) * 40;
        match chunk[0] % 8 {
            0 | 1 | 4 => Op::Arm { index, after_ms: span_ms },
            2 => Op::ArmAt { index, deadline_ms: number },
            3 => Op::Disarm { index },
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
    };
    for op in ops {
        pair.apply(&op);
        pair.check();
    }
}

impl Pair {
    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Arm { index, after_ms } => self.arm(index, self.now_ms.saturating_add(after_ms)),
            Op::ArmAt { index, deadline_ms } => self.arm(index, deadline_ms),
            Op::Disarm { index } => {
                let was_armed = self.forget(index);
                assert_eq!(self.wheel.is_armed(index), was_armed);
                assert_eq!(self.wheel.disarm(index), was_armed);
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

    fn arm(&mut self, index: u32, deadline_ms: u64) {
        self.forget(index);
        self.wheel.arm(index, deadline_ms);
        let tick = (deadline_ms < NEVER_MS).then(|| deadline_ms.div_ceil(TICK_MS));
        self.armed.insert(index, tick);
        self.by_tick.extend(tick.map(|tick| (tick, index)));
    }

    fn expire(&mut self, budget: Option<usize>) {
        let mut steps = budget.unwrap_or(usize::MAX);
        let now = self.now_ms / TICK_MS;
        while let Some(index) = self.wheel.pop_expired(self.now_ms, &mut steps) {
            let tick = self.armed.get(&index).expect("what fires is armed");
            let tick = tick.expect("what fires is ever due");
            assert!(tick <= now, "{index} fired at {} before its tick {tick}", self.now_ms);
            self.forget(index);
        }
        let due = self.by_tick.first().is_some_and(|&(tick, _)| tick <= now);
        assert!(!due || steps == 0, "a timer that is due did not fire");
        assert!(!due || budget.is_some());
    }

    fn check(&self) {
        assert_eq!(self.wheel.len(), self.armed.len());
        assert_eq!(self.wheel.is_empty(), self.armed.is_empty());
        let next_ms = self.by_tick.first().map(|&(tick, _)| tick * TICK_MS);
        match (self.wheel.next_deadline(), next_ms) {
            // Only what is never may lie there.
            (None, None) => {}
            (Some(said_ms), None) => assert!(!self.armed.is_empty() && said_ms < NEVER_MS),
            // A timer that was armed for a moment that is past is due now.
            (Some(said_ms), Some(next_ms)) => assert!(said_ms <= next_ms.max(self.now_ms)),
            (None, Some(next_ms)) => panic!("no deadline, though one is due at {next_ms}"),
        }
    }

    fn forget(&mut self, index: u32) -> bool {
        let Some(tick) = self.armed.remove(&index) else { return false };
        let tick = tick.map(|tick| self.by_tick.remove(&(tick, index)));
        assert_ne!(tick, Some(false));
        true
    }
}
