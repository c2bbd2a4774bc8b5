//! The only source of chance in a run: SplitMix64 (Steele, Lea and Flood, 2014), so that a seed says
//! everything. A crate was not taken: a seed must mean the same run after its next release.

/// A sequence of numbers that a seed decides.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The sequence of this seed.
    pub(crate) const fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// The next number.
    pub(crate) const fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `max`, both included.
    pub(crate) const fn up_to(&mut self, max: u64) -> u64 {
        match max.checked_add(1) {
            Some(count) => self.number() % count,
            None => self.number(),
        }
    }

    /// A number from `min` to `max`, both included.
    pub(crate) const fn between(&mut self, min: u64, max: u64) -> u64 {
        min + self.up_to(max - min)
    }

    /// An index below `len`, which is not 0.
    pub(crate) const fn index(&mut self, len: usize) -> usize {
        self.up_to(len as u64 - 1) as usize
    }

    /// True so many times in a thousand.
    pub(crate) const fn chance(&mut self, per_mille: u64) -> bool {
        self.up_to(999) < per_mille
    }

    /// One of these, of which there is at least one.
    pub(crate) const fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }
}
