//! What is always true of [`Members`], for tests and the simulation: called after each step.

use std::collections::BTreeMap;

use super::super::channel::{Channel, Place};
use super::{Hold, Job, Members, STAYS};
use crate::slab::{Key, NONE};

impl Members {
    /// Checks that the tables agree with each other, and that nothing that is due was forgotten.
    ///
    /// Looks at everything, so it is slow.
    ///
    /// # Panics
    ///
    /// They do not.
    #[doc(hidden)]
    pub fn check_invariants(&self) {
        let mut members = 0;
        for key in self.holds.keys() {
            members += self.check_hold(key);
        }
        assert_eq!(members, self.members.len(), "each member is in one hold");
        let mut jobs: BTreeMap<Key, u32> = BTreeMap::new();
        for channel in &self.catchups {
            *jobs.entry(*channel).or_default() += 1;
        }
        for key in self.channels.keys() {
            let channel = &self.channels[key.index];
            assert_eq!(self.names.get(&channel.name), Some(&key), "a channel is found by its name");
            let goes_on = u32::from(!channel.catchups.is_empty());
            let count = jobs.get(&key).copied().unwrap_or(0);
            assert_eq!(count, goes_on, "catch-ups have one job");
            self.check_channel(key, channel);
        }
        assert_eq!(self.names.len(), self.channels.len(), "a name names a channel");
    }

    fn check_hold(&self, key: Key) -> usize {
        let hold: &Hold = &self.holds[key.index];
        let (mut count, mut open) = (0, 0);
        for index in self.chain(hold.members) {
            let member = &self.members[index];
            count += 1;
            open += u16::from(!member.ended);
            assert_eq!(member.hold, key.index, "a member knows its hold");
            let channel = &self.channels[member.channel];
            match member.place {
                Place::Listed { position, round } => {
                    let list = if round == channel.round {
                        &channel.live
                    } else {
                        &channel.fanout.as_ref().expect("somebody is due").due
                    };
                    assert_eq!(list.get(position as usize), Some(&index), "a place in the list");
                }
                Place::Behind(cursor) => {
                    assert!(channel.behind.contains(&(cursor, index)), "a place behind");
                    assert!(!hold.blocked, "a blocked connection takes nothing");
                }
                Place::Stalled(_) => assert!(hold.blocked, "what takes bytes is not stalled"),
            }
        }
        assert_eq!(hold.open & !STAYS, open, "open channels are counted");
        count
    }

    fn check_channel(&self, key: Key, channel: &Channel) {
        let of_channel = |index: &u32| self.members[*index].channel == key.index;
        let due = channel.fanout.as_ref().map_or(&[][..], |fanout| &fanout.due);
        assert!(channel.live.iter().chain(due).all(of_channel), "members of the channel");
        assert!(
            channel.behind.iter().all(|(_, index)| of_channel(index)),
            "members of the channel"
        );
        let members = self.members.keys().filter(|member| of_channel(&member.index));
        assert_eq!(members.count(), channel.members as usize, "members are counted");
        channel.check_invariants();
        if let Some(head) = channel.head {
            let there = channel.behind.range((head, 0)..=(head, NONE)).next();
            assert!(there.is_none(), "who is at the head is live");
        }
        if channel.fanout.is_some() {
            let job = |job: &Job| matches!(job, Job::Fanout(other) if *other == key);
            assert!(self.jobs.iter().any(job), "a fan-out goes on");
        }
        if let Some((_, due)) = channel.asked {
            assert!(self.retries.contains(&(due, key)), "an answer that is late is noticed");
        } else if channel.need().is_some() && channel.catchups.is_empty() {
            assert!(channel.unsettled, "what is needed is asked for");
        }
        assert_eq!(channel.unsettled, self.unsettled.contains(&key), "a mark and its list");
    }
}
