//! The line: requests that nobody takes now, in the order of their arrival.
//!
//! Each stands in a [`Lane`], by what it waits for. So when one handler has room, or one group takes
//! requests again, only those are looked at who wait for just that, however many others stand by.

use std::collections::{BTreeMap, BTreeSet};

use super::Pending;
use super::withdrawn::Withdrawn;

/// What a request waits for. The groups come last, so that they are found without the others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// It was not looked at since handlers came or left.
    Unsorted,
    /// That a handler comes who serves it; plain ones do not.
    Handlers,
    /// Room at one of those who serve this prefix for this method.
    Room { prefix: Box<str>, method: Box<str> },
    /// A group of plain handlers that takes requests.
    Group(usize),
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) pending: Pending,
    pub(super) deadline_ms: u64,
    pub(super) withdrawn: Withdrawn,
    lane: Lane,
}

/// Those who wait, by place, by deadline and by lane.
#[derive(Debug, Default)]
pub(super) struct Line {
    requests: BTreeMap<u64, Waiting>,
    /// When each is refused.
    deadlines: BTreeSet<(u64, u64)>,
    /// The places in each lane; no lane is empty.
    lanes: BTreeMap<Lane, BTreeSet<u64>>,
    last_place: u64,
    /// Of all their packets.
    bytes: usize,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// The bytes of all packets that wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// A place at the end of the line.
    pub(super) fn new_place(&mut self) -> u64 {
        self.last_place += 1;
        self.last_place
    }

    /// Lets a request wait at a place that is free.
    pub(super) fn insert(
        &mut self,
        place: u64,
        (pending, deadline_ms): (Pending, u64),
        withdrawn: Withdrawn,
        lane: Lane,
    ) {
        self.bytes += pending.packet.len();
        self.deadlines.insert((deadline_ms, place));
        self.lanes.entry(lane.clone()).or_default().insert(place);
        let waiting = Waiting { pending, deadline_ms, withdrawn, lane };
        let before = self.requests.insert(place, waiting);
        debug_assert!(before.is_none(), "a place of its own");
    }

    pub(super) fn get(&self, place: u64) -> Option<&Waiting> {
        self.requests.get(&place)
    }

    pub(super) fn get_mut(&mut self, place: u64) -> Option<&mut Waiting> {
        self.requests.get_mut(&place)
    }

    /// Whom each was taken from.
    pub(super) fn withdrawn_mut(&mut self) -> impl Iterator<Item = &mut Withdrawn> {
        self.requests.values_mut().map(|waiting| &mut waiting.withdrawn)
    }

    /// Takes out a request.
    pub(super) fn remove(&mut self, place: u64) -> Option<Waiting> {
        let waiting = self.requests.remove(&place)?;
        self.bytes -= waiting.pending.packet.len();
        self.deadlines.remove(&(waiting.deadline_ms, place));
        self.leave_lane(&waiting.lane, place);
        Some(waiting)
    }

    /// Lets a request wait for something else, at the same place.
    pub(super) fn move_to(&mut self, place: u64, lane: Lane) {
        let Some(waiting) = self.requests.get_mut(&place) else { return };
        if waiting.lane == lane {
            return;
        }
        let before = std::mem::replace(&mut waiting.lane, lane.clone());
        self.lanes.entry(lane).or_default().insert(place);
        self.leave_lane(&before, place);
    }

    fn leave_lane(&mut self, lane: &Lane, place: u64) {
        if let Some(places) = self.lanes.get_mut(lane) {
            places.remove(&place);
            if places.is_empty() {
                self.lanes.remove(lane);
            }
        }
    }

    /// All places, in the order of arrival.
    pub(super) fn places(&self) -> Vec<u64> {
        self.requests.keys().copied().collect()
    }

    /// Whether somebody waits in this lane.
    pub(super) fn has(&self, lane: &Lane) -> bool {
        self.lanes.contains_key(lane)
    }

    /// The first of those who wait for room, where prefix and method are as wanted.
    pub(super) fn first_for_room(&self, wanted: impl Fn(&str, &str) -> bool) -> Option<u64> {
        let is_wanted = |lane: &Lane| match lane {
            Lane::Room { prefix, method } => wanted(prefix, method),
            Lane::Unsorted | Lane::Handlers | Lane::Group(_) => false,
        };
        let lanes = self.lanes.iter().filter(|(lane, _)| is_wanted(lane));
        lanes.filter_map(|(_, places)| places.first().copied()).min()
    }

    /// The first of those who wait for a group that is wanted, and the group.
    pub(super) fn first_for_group(&self, wanted: impl Fn(usize) -> bool) -> Option<(u64, usize)> {
        let lanes = self.lanes.range(Lane::Group(0)..);
        let firsts = lanes.filter_map(|(lane, places)| match lane {
            Lane::Group(group) if wanted(*group) => Some((*places.first()?, *group)),
            Lane::Unsorted | Lane::Handlers | Lane::Room { .. } | Lane::Group(_) => None,
        });
        firsts.min()
    }

    /// The next one that is to be refused, and when.
    pub(super) fn first_deadline(&self) -> Option<(u64, u64)> {
        self.deadlines.first().copied()
    }

    /// Checks that the three tables agree.
    pub(super) fn check_invariants(&self) {
        assert_eq!(self.requests.len(), self.deadlines.len(), "deadlines belong to requests");
        let in_lanes: usize = self.lanes.values().map(BTreeSet::len).sum();
        assert_eq!(self.requests.len(), in_lanes, "each request stands in one lane");
        let packets = self.requests.values().map(|waiting| waiting.pending.packet.len());
        assert_eq!(self.bytes, packets.sum::<usize>(), "their bytes are counted");
        for (place, waiting) in &self.requests {
            assert!(self.deadlines.contains(&(waiting.deadline_ms, *place)), "it has an end");
            assert!(self.lanes[&waiting.lane].contains(place), "it stands where it says");
            assert!(*place <= self.last_place, "places are given out once");
        }
        assert!(self.lanes.values().all(|places| !places.is_empty()), "no lane is empty");
    }
}
