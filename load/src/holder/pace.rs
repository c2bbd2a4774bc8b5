//! When connections may begin: at a rate, by credit that grows with time.

use std::time::Duration;

use crate::clock::SECOND_NS;

/// What a thread that comes late may catch up at once, in seconds of the rate.
const BURST_S: f64 = 0.05;

/// Lets connections begin at a rate.
#[derive(Debug)]
pub(super) struct Pace {
    /// Connections a second; 0 is without a limit.
    per_s: f64,
    /// Connections that may begin now.
    credit: f64,
    at_ns: u64,
}

impl Pace {
    /// So many a second; the first at once.
    pub(super) fn new(per_s: f64, now_ns: u64) -> Pace {
        Pace { per_s, credit: 1.0, at_ns: now_ns }
    }

    /// Begins to count here: what was not wanted before is not made up for.
    pub(super) fn restart(&mut self, now_ns: u64) {
        self.at_ns = now_ns;
    }

    /// Time has passed.
    pub(super) fn turn(&mut self, now_ns: u64) {
        let passed_s = now_ns.saturating_sub(self.at_ns) as f64 / SECOND_NS as f64;
        self.credit = (self.credit + passed_s * self.per_s).min((self.per_s * BURST_S).max(1.0));
        self.at_ns = now_ns;
    }

    /// Takes the right to begin one.
    pub(super) fn take(&mut self) -> bool {
        if self.per_s == 0.0 {
            return true;
        }
        let may = self.credit >= 1.0;
        if may {
            self.credit -= 1.0;
        }
        may
    }

    /// How long until the next may begin.
    pub(super) fn wait(&self) -> Duration {
        if self.per_s == 0.0 {
            return Duration::ZERO;
        }
        Duration::from_secs_f64(((1.0 - self.credit) / self.per_s).clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_begin_at_a_rate() {
        let mut pace = Pace::new(1000.0, 0);
        assert!(pace.take() && !pace.take());
        assert_eq!(pace.wait(), Duration::from_millis(1));
        pace.turn(SECOND_NS / 1000);
        assert!(pace.take() && !pace.take());
        // A second late: only so many at once.
        pace.turn(SECOND_NS * 2);
        let burst = std::iter::from_fn(|| pace.take().then_some(())).count();
        assert_eq!(burst, 50);
        pace.restart(SECOND_NS * 9);
        pace.turn(SECOND_NS * 9);
        assert!(!pace.take());
        let mut unlimited = Pace::new(0.0, 0);
        assert!((0..1000).all(|_| unlimited.take()));
    }
}
