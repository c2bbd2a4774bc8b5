//! What is broken, and when: drawn by a seed, without end.
//!
//! A plan says the kind of a fault, how long it holds, and a number by which the victim is chosen of those that there are.
//! Whether it can be carried out depends on the moment (a node is not killed while its shard has no other), so a fault may
//! be passed over; the plan goes on with the next one all the same.

use std::time::Duration;

use super::random::Random;

/// Kinds of faults, in the order of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A handler, or both, killed and started again.
    HandlerKill,
    /// A handler, or both, told to end and started again.
    HandlerTerm,
    /// A handler, or both, stopped and continued.
    HandlerStop,
    /// The edge killed and started again.
    EdgeKill,
    /// The edge told to end and started again.
    EdgeTerm,
    /// The edge stopped and continued.
    EdgeStop,
    /// A node of the store killed and started again.
    StoreKill,
    /// A node of the store told to end and started again.
    StoreTerm,
    /// A node of the store stopped and continued.
    StoreStop,
    /// A Sentinel killed and started again.
    SentinelKill,
    /// A peer at the edge's ZeroMQ sockets that reads nothing.
    PeerSilent,
    /// A peer that says hello as a feeder, and then is stopped.
    PeerStopped,
    /// A connection to the ROUTER that says nothing, or half a greeting.
    PeerHalfOpen,
    /// Packets between the hosts are lost.
    WireLoss,
    /// Packets between the hosts are late, and overtake each other.
    WireDelay,
    /// No packets between the hosts.
    WirePartition,
    /// The disk of the embedded store is full.
    DiskFull,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 17] = [
        Kind::HandlerKill,
        Kind::HandlerTerm,
        Kind::HandlerStop,
        Kind::EdgeKill,
        Kind::EdgeTerm,
        Kind::EdgeStop,
        Kind::StoreKill,
        Kind::StoreTerm,
        Kind::StoreStop,
        Kind::SentinelKill,
        Kind::PeerSilent,
        Kind::PeerStopped,
        Kind::PeerHalfOpen,
        Kind::WireLoss,
        Kind::WireDelay,
        Kind::WirePartition,
        Kind::DiskFull,
    ];

    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Kind::HandlerKill => "handlers SIGKILL",
            Kind::HandlerTerm => "handlers SIGTERM",
            Kind::HandlerStop => "handlers SIGSTOP",
            Kind::EdgeKill => "edge SIGKILL",
            Kind::EdgeTerm => "edge SIGTERM",
            Kind::EdgeStop => "edge SIGSTOP",
            Kind::StoreKill => "store SIGKILL",
            Kind::StoreTerm => "store SIGTERM",
            Kind::StoreStop => "store SIGSTOP",
            Kind::SentinelKill => "Sentinel SIGKILL",
            Kind::PeerSilent => "peer reads nothing",
            Kind::PeerStopped => "peer SIGSTOP",
            Kind::PeerHalfOpen => "peer half open",
            Kind::WireLoss => "wire: loss",
            Kind::WireDelay => "wire: delay, reordering",
            Kind::WirePartition => "wire: partition",
            Kind::DiskFull => "disk full",
        }
    }

    /// How often it is drawn, against the others.
    const fn weight(self) -> u64 {
        match self {
            Kind::HandlerKill | Kind::HandlerTerm | Kind::HandlerStop => 12,
            Kind::StoreKill | Kind::StoreStop => 7,
            Kind::StoreTerm => 5,
            Kind::EdgeStop | Kind::SentinelKill => 4,
            Kind::EdgeKill | Kind::EdgeTerm | Kind::PeerSilent | Kind::PeerStopped => 3,
            Kind::PeerHalfOpen | Kind::WireLoss | Kind::WireDelay | Kind::WirePartition => 3,
            Kind::DiskFull => 3,
        }
    }

    /// For how long it holds, in milliseconds.
    const fn holds_ms(self) -> (u64, u64) {
        match self {
            Kind::HandlerKill | Kind::HandlerTerm | Kind::EdgeKill | Kind::EdgeTerm => (0, 1500),
            Kind::HandlerStop | Kind::EdgeStop => (200, 4000),
            // With these a fail-over takes place of some, and of others not.
            Kind::StoreKill | Kind::StoreTerm | Kind::StoreStop => (0, 5000),
            Kind::SentinelKill | Kind::PeerSilent | Kind::PeerStopped => (500, 5000),
            Kind::PeerHalfOpen | Kind::WireLoss | Kind::WireDelay => (500, 5000),
            Kind::WirePartition => (200, 4000),
            Kind::DiskFull => (1000, 4000),
        }
    }
}

/// A fault to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// After the one before.
    pub(crate) pause: Duration,
    pub(crate) kind: Kind,
    /// Says who of those that there are.
    pub(crate) victim: u64,
    /// Until all is as before.
    pub(crate) holds: Duration,
    /// Of handlers: both at once.
    pub(crate) is_all: bool,
    /// Of nodes of a store: a master.
    pub(crate) is_master: bool,
}

/// The faults of a seed.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    random: Random,
    kinds: Vec<Kind>,
}

/// The time between two faults, in milliseconds.
const PAUSE_MS: (u64, u64) = (300, 1500);

/// How many of a thousand faults of handlers are of both.
const ALL_PER_MILLE: u64 = 200;

/// How many of a thousand faults of nodes are of a master for sure.
const MASTER_PER_MILLE: u64 = 500;

impl Plan {
    /// The faults of this seed, of these kinds.
    pub(crate) fn new(seed: u64, kinds: Vec<Kind>) -> Self {
        Plan { random: Random::new(seed), kinds }
    }
}

impl Iterator for Plan {
    type Item = Planned;

    fn next(&mut self) -> Option<Planned> {
        let random = &mut self.random;
        let sum = self.kinds.iter().map(|kind| kind.weight()).sum();
        let pause = random.time(PAUSE_MS.0, PAUSE_MS.1);
        let mut place = random.below(sum);
        let kind = self.kinds.iter().copied().find(|kind| {
            let is_here = place < kind.weight();
            place = place.saturating_sub(kind.weight());
            is_here
        })?;
        let (min_ms, max_ms) = kind.holds_ms();
        let holds = random.time(min_ms, max_ms);
        let victim = random.number();
        let is_all = random.chance(ALL_PER_MILLE);
        let is_master = random.chance(MASTER_PER_MILLE);
        Some(Planned { pause, kind, victim, holds, is_all, is_master })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_says_everything() {
        let plan = |seed| Plan::new(seed, Kind::ALL.to_vec()).take(500).collect::<Vec<_>>();
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        for kind in Kind::ALL {
            assert!(plan(7).iter().any(|fault| fault.kind == kind), "{kind:?} is never drawn");
        }
        assert!(plan(7).iter().all(|fault| fault.pause.as_millis() <= 1500));
    }

    #[test]
    fn only_what_there_is_is_broken() {
        let plan = Plan::new(1, vec![Kind::EdgeKill]).take(20);
        assert!(plan.into_iter().all(|fault| fault.kind == Kind::EdgeKill));
    }
}
