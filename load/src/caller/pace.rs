//! When requests are due.

use crate::clock::SECOND_NS;

/// Evenly spaced moments, from the first call on; or no wait at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    interval_ns: Option<f64>,
    begin_ns: Option<u64>,
    /// How many were taken.
    taken: u64,
}

impl Pace {
    /// So many a second; `None`: as fast as answers come.
    pub(crate) fn new(per_s: Option<f64>) -> Pace {
        let interval_ns = per_s.map(|per_s| SECOND_NS as f64 / per_s);
        Pace { interval_ns, begin_ns: None, taken: 0 }
    }

    /// Takes the next moment, if it has come; else says when it comes.
    ///
    /// # Errors
    /// The moment that is to be waited for.
    pub(crate) fn take(&mut self, now_ns: u64) -> Result<u64, u64> {
        let begin_ns = *self.begin_ns.get_or_insert(now_ns);
        let Some(interval_ns) = self.interval_ns else { return Ok(now_ns) };
        let due_ns = begin_ns + (interval_ns * self.taken as f64) as u64;
        if due_ns > now_ns {
            return Err(due_ns);
        }
        self.taken += 1;
        Ok(due_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_evenly_spaced_and_none_is_lost() {
        let mut pace = Pace::new(Some(1000.0));
        assert_eq!(pace.take(5), Ok(5));
        assert_eq!(pace.take(5), Err(1_000_005));
        // Late: all that were due are taken, with the moments at which they were.
        assert_eq!(pace.take(3_000_004), Ok(1_000_005));
        assert_eq!(pace.take(3_000_004), Ok(2_000_005));
        assert_eq!(pace.take(3_000_004), Err(3_000_005));
        assert_eq!(Pace::new(None).take(7), Ok(7));
    }
}
