//! Which numbers of a sequence have come: exactly, in twelve bytes, as long as none comes more than [`REACH`] behind another.
//!
//! The publisher makes sure of that: it publishes nothing to a channel while an event is unanswered there that is [`REACH`]
//! behind. What was answered is in the log, and what is published later comes later.

/// How far behind the newest a number may come.
pub(super) const REACH: u64 = 64;

/// The numbers of one sequence, from 0 on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// All below have come, or are known to be lost.
    base: u32,
    /// Which have come of the next 64.
    bits: [u32; 2],
}

/// What became of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It is new; so many below it will not come any more.
    New { lost: u64 },
    /// It has come before.
    Repeated,
}

impl Seen {
    fn bits(&self) -> u64 {
        u64::from(self.bits[0]) | (u64::from(self.bits[1]) << 32)
    }

    fn set(&mut self, base: u64, bits: u64) {
        self.base = base as u32;
        self.bits = [bits as u32, (bits >> 32) as u32];
    }

    /// All numbers below this have come, or were given up.
    pub(super) fn base(&self) -> u64 {
        self.base.into()
    }

    /// Takes a number.
    pub(super) fn insert(&mut self, number: u64) -> Arrival {
        let (mut base, mut bits) = (self.base(), self.bits());
        let Some(mut place) = number.checked_sub(base) else { return Arrival::Repeated };
        let mut lost = 0;
        if place >= REACH {
            let shift = place - (REACH - 1);
            let (left, given_up) = if shift >= REACH {
                (0, u64::from(bits.count_zeros()) + shift - REACH)
            } else {
                (bits >> shift, shift - u64::from((bits & ((1 << shift) - 1)).count_ones()))
            };
            (base, bits, lost, place) = (base + shift, left, given_up, REACH - 1);
        }
        if bits & (1 << place) != 0 {
            return Arrival::Repeated;
        }
        bits |= 1 << place;
        let whole = bits.trailing_ones();
        bits = bits.checked_shr(whole).unwrap_or(0);
        self.set(base + u64::from(whole), bits);
        Arrival::New { lost }
    }

    /// Whether a number has come or was given up.
    pub(super) fn contains(&self, number: u64) -> bool {
        let Some(place) = number.checked_sub(self.base()) else { return true };
        place < REACH && self.bits() & (1 << place) != 0
    }

    /// How many below `end` have not come, of those that were not given up.
    pub(super) fn missing(&self, end: u64) -> u64 {
        end.saturating_sub(self.base() + u64::from(self.bits().count_ones()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Seen>(), 12);
    }

    proptest! {
        #[test]
        fn it_knows_what_a_set_would(steps in prop::collection::vec(0u64..90, 1..300)) {
            let mut seen = Seen::default();
            let mut oracle = BTreeSet::new();
            let (mut lost, mut newest) = (0, 0);
            for step in steps {
                // Ahead by up to 29, or behind by up to 60, which is within reach.
                let number = (newest + step).saturating_sub(60);
                newest = newest.max(number);
                let is_known = oracle.contains(&number);
                prop_assert_eq!(seen.contains(number), is_known || number < seen.base());
                match seen.insert(number) {
                    Arrival::New { lost: more } => {
                        prop_assert!(oracle.insert(number));
                        lost += more;
                    }
                    Arrival::Repeated => {
                        // What has come within reach, or what was given up beyond it.
                        prop_assert!(is_known || number + REACH <= newest + 1, "{number} {newest}");
                    }
                }
                let holes = newest + 1 - oracle.len() as u64;
                prop_assert_eq!(lost + seen.missing(newest + 1), holes);
            }
        }

        #[test]
        fn it_leaps(leap in 0u64..300, before in 0u64..70) {
            let mut seen = Seen::default();
            for number in 0..before {
                // 0 has come, so the window is one ahead of the even numbers: the first that is given up is 1, for 66.
                let lost = u64::from(number > 32);
                prop_assert_eq!(seen.insert(number * 2), Arrival::New { lost });
            }
            let newest = before * 2 + leap;
            seen.insert(newest);
            prop_assert!(seen.contains(newest) && !seen.contains(newest + 1));
            prop_assert_eq!(seen.insert(newest), Arrival::Repeated);
        }
    }
}
