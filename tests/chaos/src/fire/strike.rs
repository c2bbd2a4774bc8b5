//! Carries out a plan.
//!
//! Faults overlap. Whoever is broken is locked while it is, so that nobody is broken twice at once; a fault whose victim is
//! taken, or must not be broken now, is passed over and counted, and the plan goes on.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::disk::Disk;
use super::plan::{Kind, Plan, Planned};
use super::store::watch::View;
use super::store::{Shared, StoreKind};
use super::system::System;
use super::wire::Weather;
use crate::process::Process;
use crate::scenario::Ended;
use crate::{ChaosError, PROBE_INTERVAL};

/// What faults came to.
#[derive(Clone, Debug, Default)]
pub struct Struck {
    /// Faults that were carried out.
    pub faults: BTreeMap<Kind, u64>,
    /// Faults that were passed over.
    pub passed_over: u64,
    /// The longest time that a handler took to end when it was told to.
    pub slowest_exit: Duration,
    /// What was not right about processes.
    pub violations: Vec<String>,
}

/// How long a store may take to refuse when its disk is full, and to go on when there is room again.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

/// What a fault in work says when it is over.
type Over = Result<(Option<String>, Duration), ChaosError>;

/// A fault that is about to be carried out, with a lock on its victims.
enum Blow {
    End { victims: Vec<OwnedMutexGuard<Process>>, how: Ended, is_edge: bool },
    Stop { victims: Vec<OwnedMutexGuard<Process>> },
    Peer { peer: Box<Process> },
    Wire { lock: OwnedMutexGuard<()>, weather: Weather },
    Disk { disk: OwnedMutexGuard<Disk>, edge: Vec<OwnedMutexGuard<Process>> },
}

/// Carries out plans.
pub(crate) struct Striker {
    pub(crate) system: Arc<System>,
    pub(crate) view: watch::Receiver<View>,
    pub(crate) log: File,
    pub(crate) since: Instant,
    /// Is held while the weather is bad.
    pub(crate) wire: Arc<Mutex<()>>,
}

impl Striker {
    /// Carries out so many faults, and waits until all is as before.
    pub(crate) async fn run(mut self, plan: Plan, count: u64) -> Result<Struck, ChaosError> {
        let mut struck = Struck::default();
        let mut working: JoinSet<Over> = JoinSet::new();
        let mut carried_out = 0;
        for planned in plan {
            if carried_out == count {
                break;
            }
            sleep(planned.pause).await;
            let blow = self.aim(&planned);
            self.note(&planned, blow.as_ref());
            let Some(blow) = blow else {
                struck.passed_over += 1;
                continue;
            };
            carried_out += 1;
            *struck.faults.entry(planned.kind).or_default() += 1;
            let system = Arc::clone(&self.system);
            working.spawn(async move { blow.carry_out(&system, planned.holds).await });
            while let Some(over) = working.try_join_next() {
                struck.add(over.expect("a fault does not panic")?);
            }
        }
        while let Some(over) = working.join_next().await {
            struck.add(over.expect("a fault does not panic")?);
        }
        Ok(struck)
    }

    /// Chooses victims, and locks them; `None` if there are none now.
    fn aim(&self, planned: &Planned) -> Option<Blow> {
        let system = &self.system;
        let end = |victims: Option<Vec<_>>, how, is_edge| {
            Some(Blow::End { victims: victims?, how, is_edge })
        };
        let (killed, terminated) = (Ended::Killed, Ended::Terminated);
        match planned.kind {
            Kind::HandlerKill => end(self.handlers(planned), killed, false),
            Kind::HandlerTerm => end(self.handlers(planned), terminated, false),
            Kind::HandlerStop => Some(Blow::Stop { victims: self.handlers(planned)? }),
            Kind::EdgeKill => end(lock(&[&system.edge]), killed, true),
            Kind::EdgeTerm => end(lock(&[&system.edge]), terminated, true),
            Kind::EdgeStop => Some(Blow::Stop { victims: lock(&[&system.edge])? }),
            Kind::StoreKill => end(self.node(planned), killed, false),
            Kind::StoreTerm => end(self.node(planned), terminated, false),
            Kind::StoreStop => Some(Blow::Stop { victims: self.node(planned)? }),
            Kind::SentinelKill => {
                // Two must be there to decide.
                let mut all = lock(&system.store.sentinels.iter().collect::<Vec<_>>())?;
                let victim = all.swap_remove(index(planned.victim, all.len()));
                end(Some(vec![victim]), killed, false)
            }
            Kind::PeerSilent | Kind::PeerStopped | Kind::PeerHalfOpen => {
                let peer = system.peers.as_ref()?.peer(planned.kind, system.dir())?;
                Some(Blow::Peer { peer: Box::new(peer) })
            }
            Kind::WireLoss => {
                self.wire(Weather { loss_per_mille: 10 + planned.victim % 300, delay_ms: (0, 0) })
            }
            Kind::WireDelay => self.wire(Weather {
                loss_per_mille: planned.victim % 50,
                delay_ms: (1, 10 + planned.victim % 300),
            }),
            Kind::WirePartition => self.wire(Weather::PARTITION),
            Kind::DiskFull => {
                let disk = Arc::clone(system.disk.as_ref()?).try_lock_owned().ok()?;
                Some(Blow::Disk { disk, edge: lock(&[&system.edge])? })
            }
        }
    }

    fn wire(&self, weather: Weather) -> Option<Blow> {
        Some(Blow::Wire { lock: Arc::clone(&self.wire).try_lock_owned().ok()?, weather })
    }

    fn handlers(&self, planned: &Planned) -> Option<Vec<OwnedMutexGuard<Process>>> {
        let handlers: Vec<&Shared> = self.system.handlers.iter().collect();
        if planned.is_all {
            return lock(&handlers);
        }
        lock(&handlers[index(planned.victim, handlers.len())..][..1])
    }

    /// A node whose shard has others that have everything. Of a cluster only while all shards have: else there may be no
    /// majority to replace a master.
    fn node(&self, planned: &Planned) -> Option<Vec<OwnedMutexGuard<Process>>> {
        let nodes = &self.system.store.nodes;
        let view = self.view.borrow();
        let masters: Vec<usize> = (0..nodes.len()).filter(|at| view.is_master(*at)).collect();
        // Of several nodes every second victim is a master: that is what fail-overs come of.
        let at = if planned.is_master && !masters.is_empty() {
            masters[index(planned.victim, masters.len())]
        } else {
            index(planned.victim, nodes.len())
        };
        let node = nodes.get(at)?;
        let is_majority = self.system.kind != StoreKind::Cluster
            || (0..self.system.store.shards).all(|shard| view.may_break(shard));
        (is_majority && view.may_break(node.shard)).then(|| lock(&[&node.process])).flatten()
    }

    fn note(&mut self, planned: &Planned, blow: Option<&Blow>) {
        let names: Vec<&str> = match blow {
            Some(Blow::End { victims, .. } | Blow::Stop { victims }) => {
                victims.iter().map(|victim| victim.name()).collect()
            }
            Some(Blow::Peer { .. } | Blow::Wire { .. } | Blow::Disk { .. }) => vec!["it is so"],
            None => vec!["passed over"],
        };
        let view = self.view.borrow();
        let masters = self.system.store.nodes.iter().enumerate();
        let masters: Vec<_> =
            masters.filter(|(at, _)| view.is_master(*at)).map(|(_, node)| node.name).collect();
        let at = self.since.elapsed().as_secs_f64();
        let (kind, holds) = (planned.kind.name(), planned.holds);
        // A log that cannot be written is missed by whoever looks for it.
        let _ = writeln!(
            self.log,
            "{at:9.3} {kind}: {} for {holds:?}; masters {}, failovers {}",
            names.join(", "),
            masters.join(", "),
            view.failovers
        );
    }
}

impl Struck {
    fn add(&mut self, (violation, exit): (Option<String>, Duration)) {
        self.violations.extend(violation);
        self.slowest_exit = self.slowest_exit.max(exit);
    }

    /// All faults.
    pub fn count(&self) -> u64 {
        self.faults.values().sum()
    }
}

impl Blow {
    async fn carry_out(self, system: &System, holds: Duration) -> Over {
        match self {
            Blow::End { mut victims, how, is_edge } => {
                let began = Instant::now();
                let mut wrong = None;
                if is_edge {
                    system.lives.send_modify(|lives| lives.condemned += 1);
                }
                for victim in &mut victims {
                    wrong = victim.end(how).await?.or(wrong);
                }
                let exit = if how == Ended::Terminated { began.elapsed() } else { Duration::ZERO };
                if is_edge {
                    system.lives.send_modify(|lives| lives.gone += 1);
                }
                sleep(holds).await;
                for victim in &mut victims {
                    victim.start()?;
                }
                Ok((wrong, exit))
            }
            Blow::Stop { mut victims } => {
                let mut wrong = None;
                for victim in &mut victims {
                    if !victim.signal("STOP")? {
                        wrong = Some(format!("{} ended by itself", victim.name()));
                    }
                }
                sleep(holds).await;
                for victim in &mut victims {
                    victim.signal("CONT")?;
                }
                Ok((wrong, Duration::ZERO))
            }
            Blow::Peer { mut peer } => {
                peer.start()?;
                sleep(holds).await;
                // One that says hello stops itself, and is killed as it stands.
                let wrong = peer.end(Ended::Killed).await?.map(|_| peer.last_words());
                Ok((wrong, Duration::ZERO))
            }
            Blow::Wire { lock, weather } => {
                let wire = system.hosts.wire.iter();
                wire.clone().for_each(|wire| wire.set(weather));
                sleep(holds).await;
                wire.for_each(|wire| wire.set(Weather::default()));
                drop(lock);
                Ok((None, Duration::ZERO))
            }
            Blow::Disk { disk, edge } => fill(system, &disk, edge, holds).await,
        }
    }
}

/// Fills the disk, and makes room again. Meanwhile nothing can be published, and then it can, without a restart.
async fn fill(
    system: &System,
    disk: &Disk,
    mut edge: Vec<OwnedMutexGuard<Process>>,
    holds: Duration,
) -> Over {
    disk.fill().map_err(ChaosError::Setup)?;
    let filled = Instant::now();
    // What was set aside before takes some events still.
    let mut told = Some(200);
    while told == Some(200) && filled.elapsed() < ROOM_PATIENCE {
        told = system.publish_probe().await?;
    }
    let wrong = (told != Some(503)).then(|| format!("disk full: a publisher got {told:?}"));
    sleep_until(filled + holds).await;
    disk.empty().map_err(ChaosError::Setup)?;
    let began = Instant::now();
    while began.elapsed() < ROOM_PATIENCE {
        if system.publish_probe().await? == Some(200) {
            return Ok((wrong, Duration::ZERO));
        }
        sleep(PROBE_INTERVAL).await;
    }
    system.lives.send_modify(|lives| lives.condemned += 1);
    for edge in &mut edge {
        edge.end(Ended::Killed).await?;
    }
    system.lives.send_modify(|lives| lives.gone += 1);
    for edge in &mut edge {
        edge.start()?;
    }
    let stuck = "there was room again, and nothing could be published before a restart".to_owned();
    Ok((Some(wrong.unwrap_or(stuck)), Duration::ZERO))
}

/// Locks all of them, or none.
fn lock(processes: &[&Shared]) -> Option<Vec<OwnedMutexGuard<Process>>> {
    processes.iter().map(|process| Arc::clone(process).try_lock_owned().ok()).collect()
}

fn index(number: u64, len: usize) -> usize {
    usize::try_from(number % len.max(1) as u64).unwrap_or(0)
}
