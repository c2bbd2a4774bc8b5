//! A histogram of times: exact below 128 ns, and within 1 % above, up to 584 years.
//!
//! Log-linear, as HdrHistogram's are: each power of two is cut into [`STEPS`] steps of the same width, so a bucket is found
//! with a count of leading zeros and a shift. Recording costs a few instructions and never allocates.

/// Steps of a power of two: what a value is rounded to is at most 1/128 of it.
const STEPS: usize = 1 << STEPS_BITS;

const STEPS_BITS: u32 = 7;

/// Buckets of the whole range: 464 KiB would be more than a cache likes, this is 58 KiB.
const BUCKETS: usize = STEPS * (64 - STEPS_BITS as usize + 1);

/// How often which time was taken, in nanoseconds.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
    sum: u128,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: vec![0; BUCKETS], count: 0, max: 0, sum: 0 }
    }
}

impl Histogram {
    /// Records a time.
    pub(crate) fn record(&mut self, ns: u64) {
        self.buckets[bucket(ns)] += 1;
        self.count += 1;
        self.sum += u128::from(ns);
        self.max = self.max.max(ns);
    }

    /// Adds what another one has recorded.
    pub(crate) fn merge(&mut self, other: &Histogram) {
        for (own, more) in self.buckets.iter_mut().zip(&other.buckets) {
            *own += more;
        }
        self.count += other.count;
        self.sum += other.sum;
        self.max = self.max.max(other.max);
    }

    /// How many were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The largest, exactly.
    pub(crate) fn max(&self) -> u64 {
        self.max
    }

    /// The mean; 0 of nothing.
    pub(crate) fn mean(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum as f64 / self.count as f64 }
    }

    /// The time that this share of all did not pass, rounded up to the end of its step; 0 of nothing.
    pub(crate) fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= wanted {
                return largest(index).min(self.max);
            }
        }
        self.max
    }
}

fn bucket(ns: u64) -> usize {
    if ns < STEPS as u64 {
        return ns as usize;
    }
    let shift = 63 - ns.leading_zeros() - STEPS_BITS;
    ((shift as usize + 1) << STEPS_BITS) + ((ns >> shift) as usize - STEPS)
}

/// The largest time that is in a bucket.
fn largest(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64;
    }
    let shift = (bucket >> STEPS_BITS) - 1;
    let first = ((bucket & (STEPS - 1)) + STEPS) as u64;
    (first << shift) + ((1u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_zero() {
        let empty = Histogram::default();
        assert_eq!((empty.count(), empty.quantile(0.99), empty.max()), (0, 0, 0));
        assert!(empty.mean() == 0.0);
    }

    #[test]
    fn the_whole_range_has_a_bucket() {
        for ns in [0, 1, 127, 128, 129, 255, 256, 1 << 40, u64::MAX] {
            let index = bucket(ns);
            assert!(index < BUCKETS && largest(index) >= ns, "{ns}");
            assert!(index == 0 || largest(index - 1) < ns, "{ns}");
        }
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_values(
            mut values in prop::collection::vec(0u64..10_000_000_000, 1..400),
            share in 0.01f64..=1.0,
        ) {
            let (mut histogram, mut other) = (Histogram::default(), Histogram::default());
            for (index, value) in values.iter().enumerate() {
                if index % 3 == 0 { other.record(*value) } else { histogram.record(*value) }
            }
            histogram.merge(&other);
            values.sort_unstable();
            let exact = values[((values.len() as f64 * share).ceil() as usize).max(1) - 1];
            let told = histogram.quantile(share);
            prop_assert!(told >= exact && told <= exact + exact / 100 + 1, "{told} for {exact}");
            prop_assert_eq!(histogram.max(), values[values.len() - 1]);
            prop_assert_eq!(histogram.count(), values.len() as u64);
        }
    }
}
