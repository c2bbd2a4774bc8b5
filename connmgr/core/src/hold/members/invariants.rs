//! What is always true of [`Members`], for tests and the simulation: called after each step.

use std::collections::BTreeMap;

use super::super::channel::{Channel, Place};
use super::{Hold, Job, Members, STAYS};
use crate::slab::Key;

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
        let mut holds = 0;
        for (index, hold) in self.holds.iter() {
            holds += 1;
            members += self.check_hold(index, hold);
        }
        assert_eq!(holds, self.holds.len(), "holds are counted");
        assert_eq!(members, self.members.len(), "each member is in one hold");
        let has_own =
            |member: &Key| !matches!(self.members[member.index].place, Place::Listed { .. });
        let own = self.members.keys().filter(has_own).count();
        assert_eq!(own, self.cursors.len(), "a cursor is somebody's");
        let mut jobs: BTreeMap<Key, u32> = BTreeMap::new();
        for channel in &self.catchups {
            *jobs.entry(*channel).or_default() += 1;
        }
        for key in self.channels.keys() {
            let channel = &self.channels[key.index];
            assert_eq!(self.find(&channel.name), Some(key), "a channel is found by its name");
            let goes_on = u32::from(channel.is_catching_up());
            let count = jobs.get(&key).copied().unwrap_or(0);
            assert_eq!(count, goes_on, "catch-ups have one job");
            self.check_channel(key, channel);
        }
        assert_eq!(self.names.len(), self.channels.len(), "a name names a channel");
    }

    fn check_hold(&self, index: u32, hold: &Hold) -> usize {
        let (mut count, mut open) = (0, 0);
        for place in self.chain(hold.members) {
            let member = &self.members[place];
            count += 1;
            open += u16::from(!member.ended);
            assert_eq!(member.hold, index, "a member knows its hold");
            let channel = &self.channels[member.channel];
            match member.place {
                Place::Listed { position, round } => {
                    let list = if round == channel.round {
                        &channel.live
                    } else {
                        &channel.fanout().expect("somebody is due").due
                    };
                    assert_eq!(list.get(position as usize), Some(&place), "a place in the list");
                }
                Place::Behind(own) => {
                    let motion = channel.motion().expect("who is behind has something to come");
                    let entry = (self.cursors[own.0], place);
                    assert!(motion.behind.contains(&entry), "a place behind");
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
        let due = channel.fanout().map_or(&[][..], |fanout| &fanout.due);
        assert!(channel.live.iter().chain(due).all(of_channel), "members of the channel");
        let members = self.members.keys().filter(|member| of_channel(&member.index));
        assert_eq!(members.count(), channel.members as usize, "members are counted");
        channel.check_invariants();
        assert_eq!(channel.next_at_head(), None, "who is at the head is live");
        if channel.fanout().is_some() {
            let job = |job: &Job| matches!(job, Job::Fanout(other) if *other == key);
            assert!(self.jobs.iter().any(job), "a fan-out goes on");
        }
        if let Some(motion) = channel.motion() {
            assert!(
                motion.behind.iter().all(|(_, index)| of_channel(index)),
                "members of the channel"
            );
            if let Some((_, due)) = motion.asked {
                assert!(self.retries.contains(&(due, key)), "an answer that is late is noticed");
            } else if channel.need(&self.limits).is_some() && motion.catchups.is_empty() {
                assert!(channel.unsettled, "what is needed is asked for");
            }
        }
        assert_eq!(channel.unsettled, self.unsettled.contains(&key), "a mark and its list");
    }
}
