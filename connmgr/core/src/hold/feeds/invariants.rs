//! What is always true of [`Feeds`], for tests and the simulation: called after each step.

use std::collections::BTreeMap;

use super::{Feeds, Timer};

impl Feeds {
    /// Checks that the tables agree with each other, and that nothing that is due was forgotten.
    ///
    /// Looks at everything, so it is slow.
    ///
    /// # Panics
    ///
    /// They do not.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        let mut in_flight = BTreeMap::new();
        let mut tails_bytes = 0;
        for key in self.channels.keys() {
            let channel = &self.channels[key.index];
            assert_eq!(self.names.get(&channel.name), Some(&key), "a channel is found by its name");
            assert_eq!(channel.feeder, self.ranked(&channel.name, 0), "the best feeder feeds");
            tails_bytes += channel.tail.bytes();
            let timer = |wanted: Timer| self.timers.iter().any(|(_, timer)| *timer == wanted);
            assert!(!channel.workers.is_empty() || timer(Timer::Linger(key)), "a linger ends");
            let confirmed = channel.confirmed || channel.feeder.is_none();
            assert!(confirmed || timer(Timer::Confirm(key)), "a feed is confirmed");
            for (after, range) in &channel.ranges {
                match &range.feeder {
                    Some(feeder) => {
                        *in_flight.entry(feeder).or_insert(0) += 1;
                        assert!(timer(Timer::Range(key, *after)), "an answer that is late is noticed");
                    }
                    None => {
                        assert!(self.waiting.contains(&(key, *after)), "a range has its turn");
                    }
                }
            }
        }
        assert_eq!(self.names.len(), self.channels.len(), "a name names a channel");
        assert_eq!(tails_bytes, self.tails_bytes, "bytes of tails are counted");
        assert!(tails_bytes <= self.config.tails_bytes_max, "tails are bounded");
        for (id, feeder) in &self.feeders {
            let count = in_flight.remove(id).unwrap_or(0);
            assert_eq!(feeder.in_flight, count, "ranges in flight are counted");
            assert!(count <= self.config.ranges_in_flight_max, "ranges in flight are bounded");
        }
        assert!(in_flight.is_empty(), "ranges are asked of feeders that are there");
    }
}
