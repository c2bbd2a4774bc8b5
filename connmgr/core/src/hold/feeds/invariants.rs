//! What is always true of [`Feeds`], for tests and the simulation: called after each step.

use std::collections::{BTreeMap, BTreeSet};

use super::{Feeds, NEVER};

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
        let mut waiting: BTreeSet<_> = self.unplaced.iter().collect();
        for feeder in self.feeders.values() {
            waiting.extend(&feeder.waiting);
            let has_room = feeder.in_flight < self.config.ranges_in_flight_max;
            assert!(!has_room || feeder.waiting.is_empty(), "where there is room, nothing waits");
        }
        assert!(self.stirred.is_empty(), "every change was looked at");
        assert!(self.unplaced.is_empty() || self.feeders.is_empty(), "a range has its feeder");
        let mut in_flight = BTreeMap::new();
        let (mut tails_bytes, mut range_timers, mut timers) = (0, 0, 0);
        for key in self.channels.keys() {
            let channel = &self.channels[key.index];
            assert_eq!(self.find(&channel.name), Some(key), "a channel is found by its name");
            assert_eq!(channel.feeder, self.ranked(&channel.name, 0), "the best feeder feeds");
            tails_bytes += channel.tail_bytes();
            assert_eq!(
                self.tails.contains(&key.index),
                channel.tail_bytes() > 0,
                "a tail is found again"
            );
            let lingers = channel.linger_until_ms().is_some();
            assert_eq!(channel.workers.is_empty(), lingers, "it lingers");
            let is_checked = channel.check_ms < NEVER;
            assert_eq!(channel.feeder.is_some(), is_checked, "a feed is checked");
            let is_timed = lingers || is_checked;
            assert_eq!(self.wheel.is_armed(key.index), is_timed, "what is due has a time");
            timers += usize::from(is_timed);
            let ranges = channel.extra.iter().flat_map(|extra| &extra.ranges);
            for (after, range) in ranges {
                match &range.asked {
                    Some((feeder, due)) => {
                        *in_flight.entry(feeder).or_insert(0) += 1;
                        range_timers += 1;
                        let timer = (*due, key, *after);
                        assert!(self.range_timers.contains(&timer), "{timer:?} has its time");
                    }
                    None => {
                        assert!(waiting.contains(&(key, *after)), "a range has its turn");
                    }
                }
            }
        }
        assert_eq!(self.names.len(), self.channels.len(), "a name names a channel");
        assert_eq!(timers, self.wheel.len(), "no time of anything that is gone");
        assert_eq!(range_timers, self.range_timers.len(), "no time of anything that is gone");
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
