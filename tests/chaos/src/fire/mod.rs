//! Fire: arrangements of real processes, hundreds of random faults, and one checker.
//!
//! A [`Fire`] is one arrangement: a store ([`StoreKind`]), an edge, two handlers, publishers that send each event until it is
//! acknowledged, clients that read to the END. While they work, faults are drawn by a seed (`plan`) and carried out
//! (`strike`), several at a time; when enough have been, everything is mended, each channel gets its END, and every client
//! must come to it. Then the store is read as it stands (`ledger`), and all is judged (`evidence`, `judge`).
//!
//! What a seed decides is which faults come, for how long and in which order. It does not decide what the machine does
//! meanwhile: with real processes a seed plays the plan again, not the run.
//!
//! | part | what it does |
//! | --- | --- |
//! | `plan`, `random` | which faults, and when |
//! | `strike` | carries them out |
//! | `system`, `hosts`, `wire` | the processes, where they run, and what lies between |
//! | `peers`, `disk` | what else there is to break |
//! | `store` | Redis in its three arrangements, and who is master |
//! | `report` | the table |

mod disk;
mod hosts;
mod peers;
mod plan;
mod random;
mod report;
mod store;
mod strike;
mod system;
mod wire;

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use forebay_handlers::auth::Role;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

pub use disk::Disk;
pub use plan::Kind;
pub use report::{FireReport, markdown};
pub use store::StoreKind;
pub use strike::Struck;

use crate::clients::{Client, Clients, Common};
use crate::evidence::Evidence;
use crate::ledger::{self, Kept};
use crate::publisher::{Published, Publishing};
use crate::record::Reading;
use crate::scenario::{Pause, is_wide};
use crate::socket::Credentials;
use crate::{ChaosError, PATIENCE, Phase, Verdict, finish};
use plan::Plan;
use random::Random;
use store::watch::{View, Watched, watch as watch_nodes};
use strike::Striker;
use system::System;

/// Events of a channel that the store keeps: all, so that each gap that is told must be of a loss.
const HISTORY_MAX: u64 = 1_000_000;

/// How often a slow client stops reading, and for how long, in milliseconds.
const SLOW_EVERY_MS: (u64, u64) = (5_000, 40_000);
const SLOW_FOR_MS: (u64, u64) = (500, 5_000);

/// The longest that a run is thought to be.
const RUN_MAX: Duration = Duration::from_secs(3600);

/// An arrangement that is set on fire.
#[derive(Clone, Debug)]
pub struct Fire {
    /// The `forebay` binary.
    pub forebay: PathBuf,
    /// Where events are kept.
    pub store: StoreKind,
    /// Faults that are carried out.
    pub faults: u64,
    /// Decides which.
    pub seed: u64,
    /// Only faults of these kinds, if any are named.
    pub kinds: Vec<Kind>,
    /// Handlers and store are on another host than the edge, behind a wire. It takes root; without, that is left out.
    pub wire: bool,
    /// Servers that replicate take writes only while a replica keeps up (`min-replicas-to-write 1`): a master that was
    /// replaced while it was away refuses them.
    pub min_replicas: bool,
    /// A Python that has pyzmq, for peers.
    pub python: Option<PathBuf>,
    /// Readers. Every third reads two channels; those whose first channel is a wide one are slow at times.
    pub clients: usize,
    /// The same on WebSockets.
    pub sockets: usize,
    /// Channels; each has two publishers, one of them on a WebSocket. Every tenth one is wide: its events are large.
    pub channels: usize,
    /// Events a second, of all channels together.
    pub events_per_second: u64,
}

impl Fire {
    /// Events a second that a channel takes: with room for publishers that make up for an outage.
    fn channel_rate(&self) -> u64 {
        const DEFAULT: u64 = 20;
        DEFAULT.max(5 * self.events_per_second.div_ceil(self.channels as u64))
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(self.channels as u64)
            / u32::try_from(self.events_per_second.max(1)).unwrap_or(u32::MAX)
    }

    fn channel_names(&self) -> Vec<String> {
        (0..self.channels).map(|number| format!("room-{number}")).collect()
    }

    /// The channels that a client reads.
    fn channels_of(&self, client: usize) -> Vec<usize> {
        let first = client % self.channels;
        if client % 3 == 1 && self.channels > 1 {
            let step = 1 + (client / self.channels) % (self.channels - 1);
            vec![first, (first + step) % self.channels]
        } else {
            vec![first]
        }
    }

    /// When a client stops reading.
    fn pauses_of(&self, client: usize) -> Vec<Pause> {
        let mut random = Random::new(self.seed ^ (client as u64) << 32);
        let (mut pauses, mut at) = (Vec::new(), Duration::ZERO);
        while is_wide(client % self.channels) && at < RUN_MAX {
            at += random.time(SLOW_EVERY_MS.0, SLOW_EVERY_MS.1);
            let duration = random.time(SLOW_FOR_MS.0, SLOW_FOR_MS.1);
            pauses.push(Pause { at, duration });
            at += duration;
        }
        pauses
    }

    /// The kinds of faults that there can be.
    fn possible(&self, system: &System) -> Vec<Kind> {
        let is_possible = |kind: &Kind| match kind {
            Kind::HandlerKill | Kind::HandlerTerm | Kind::HandlerStop => {
                self.store != StoreKind::Embedded
            }
            Kind::StoreKill | Kind::StoreTerm | Kind::StoreStop => {
                self.store != StoreKind::Embedded
            }
            Kind::EdgeKill | Kind::EdgeTerm | Kind::EdgeStop => true,
            Kind::SentinelKill => self.store == StoreKind::Sentinel,
            Kind::PeerSilent | Kind::PeerStopped | Kind::PeerHalfOpen => system.peers.is_some(),
            Kind::WireLoss | Kind::WireDelay | Kind::WirePartition => system.hosts.wire.is_some(),
            Kind::DiskFull => system.disk.is_some(),
        };
        let is_wanted = |kind: &Kind| self.kinds.is_empty() || self.kinds.contains(kind);
        Kind::ALL.into_iter().filter(|kind| is_possible(kind) && is_wanted(kind)).collect()
    }

    /// Sets it on fire, and judges what became of it.
    ///
    /// # Errors
    ///
    /// If the system cannot be started, or does not come back. Whatever is wrong with a system that runs is in the report.
    pub async fn run(&self) -> Result<FireReport, ChaosError> {
        let system = Arc::new(System::start(self).await?);
        let burned = self.burn(&system).await;
        let stopped = system.stop().await?;
        match burned {
            Ok(burned) => Ok(self.report(system, burned, &stopped)),
            Err(error) => {
                let kept = Arc::into_inner(system).map(System::keep_files);
                eprintln!("{}: logs are in {:?}", self.store.name(), kept.unwrap_or_default());
                Err(error)
            }
        }
    }

    async fn burn(&self, system: &Arc<System>) -> Result<Burned, ChaosError> {
        let tell = watch::Sender::new(View::default());
        let view = tell.subscribe();
        let nodes = &system.store.nodes;
        let watched =
            nodes.iter().map(|node| Watched { url: node.url.clone(), shard: node.shard }).collect();
        let watching = tokio::spawn(watch_nodes(watched, tell));
        let (set_phase, phase) = watch::channel(Phase::Connecting);
        let token: Arc<str> = system.token(Role::Subscriber, &["*"])?.into();
        let reader_token = Arc::clone(&token);
        let common = Common { token, phase: phase.clone(), edge: system.lives.subscribe() };
        let mut clients = Clients::connect(&common, self.clients(system)).await?;
        let enough = watch::Sender::new(false);
        let publishing = Publishing {
            address: system.address.clone(),
            token: system.token(Role::Publisher, &[])?,
            reader_token,
            channels: self.channel_names(),
            events_per_channel: u64::MAX,
            interval: self.interval(),
            phase,
            edge: system.lives.subscribe(),
            store_away: watch::Sender::new(false),
            enough: enough.subscribe(),
        };
        let since = Instant::now();
        set_phase.send_replace(Phase::Load { since });
        let log = File::create(system.dir().join("faults.log")).map_err(ChaosError::Setup)?;
        let wire = Arc::default();
        let striker = Striker { system: Arc::clone(system), view: view.clone(), log, since, wire };
        let kinds = self.possible(system);
        if kinds.is_empty() {
            return Err(ChaosError::NothingToBreak);
        }
        let plan = Plan::new(self.seed, kinds);
        let (all_sent, mut is_all_sent) = watch::channel(false);
        let publish = async {
            let published = publishing.run().await;
            all_sent.send_replace(true);
            published
        };
        let strike = async {
            let struck = striker.run(plan, self.faults).await;
            let mended = mended(system, view.clone()).await;
            enough.send_replace(true);
            // Whoever is in the middle of an event may send it on for a while.
            if timeout(PATIENCE, is_all_sent.wait_for(|is_sent| *is_sent)).await.is_err() {
                set_phase.send_replace(Phase::Over);
            }
            (struck, mended)
        };
        let (mut published, (struck, mended)) = tokio::join!(publish, strike);
        let (struck, took) = (struck?, since.elapsed());
        mended?;
        let (ended, readings) = finish(&publishing, &mut clients, &set_phase).await;
        published.add(ended);
        watching.abort();
        let failovers = view.borrow().failovers;
        let kept = self.kept(system).await?;
        Ok(Burned { struck, published, readings, kept, failovers, since, took })
    }

    /// All who read: event streams, and WebSockets.
    fn clients<'a>(&'a self, system: &'a System) -> impl Iterator<Item = Client> + 'a {
        let names = self.channel_names();
        let client = move |number: usize, socket| {
            let channels = self.channels_of(number).into_iter();
            let pauses = self.pauses_of(number);
            let address = if pauses.is_empty() { &system.address } else { &system.slow_address };
            Client {
                socket,
                address: address.clone(),
                channels: channels.map(|channel| (channel, names[channel].clone())).collect(),
                pauses,
            }
        };
        let streams = (0..self.clients).map(|number| (number, None));
        let sockets = (0..self.sockets).map(|number| (number, Some(Credentials::of(number))));
        streams.chain(sockets).map(move |(number, socket)| client(number, socket))
    }

    /// What the store holds in the end.
    async fn kept(&self, system: &System) -> Result<Vec<Kept>, ChaosError> {
        let names = self.channel_names();
        if self.store == StoreKind::Embedded {
            let token = system.token(Role::Subscriber, &["*"])?;
            return ledger::of_history(system.address.clone(), &token, &names).await;
        }
        ledger::of_redis(&system.store.urls(), &names).await
    }

    fn report(&self, system: Arc<System>, burned: Burned, stopped: &[String]) -> FireReport {
        let Burned { struck, published, readings, kept, failovers, since, took } = burned;
        let names = self.channel_names();
        let evidence =
            Evidence { names: &names, acks: &published.acks, kept: &kept, readings: &readings };
        let mut verdict = Verdict::of(&evidence);
        let told = published.tally.violations.iter().chain(&struck.violations).chain(stopped);
        told.for_each(|violation| verdict.blame(violation.clone()));
        let is_replicated = matches!(self.store, StoreKind::Sentinel | StoreKind::Cluster);
        if !is_replicated && verdict.lost_acknowledged > 0 {
            verdict.blame(format!("{} acknowledged events are lost", verdict.lost_acknowledged));
        }
        // Nothing is trimmed, so nobody may be told that something is.
        if verdict.tally.gaps_other > 0 {
            verdict
                .blame(format!("{} gaps are told that are of no loss", verdict.tally.gaps_other));
        }
        let is_clean = verdict.is_clean();
        let left_out = system.left_out.clone();
        let packets_lost = system.hosts.wire.as_ref().map_or(0, wire::Wire::lost);
        // Nobody else has it any more, or its files are removed with it.
        let files = Arc::into_inner(system).filter(|_| !is_clean).map(System::keep_files);
        FireReport {
            fire: self.clone(),
            acknowledged: published.acks.iter().map(|acks| acks.len() as u64).sum(),
            tally: published.tally.into(),
            clients_slow: (0..self.clients)
                .chain(0..self.sockets)
                .filter(|client| !self.pauses_of(*client).is_empty())
                .count(),
            struck,
            failovers,
            since,
            took,
            packets_lost,
            left_out,
            verdict,
            files,
        }
    }
}

/// What is left of a run.
struct Burned {
    struck: Struck,
    published: Published,
    readings: Vec<Reading>,
    kept: Vec<Kept>,
    failovers: u64,
    since: Instant,
    took: Duration,
}

/// Waits until all is as it was, but for what is lost.
async fn mended(system: &System, mut view: watch::Receiver<View>) -> Result<(), ChaosError> {
    let shards = system.store.shards;
    let whole = view.wait_for(|view| view.whole() == shards);
    match timeout(PATIENCE, whole).await {
        Ok(Ok(_)) => {}
        Ok(Err(_)) | Err(_) => {
            return Err(ChaosError::NotReady("the store did not become whole".to_owned()));
        }
    }
    system.wait_until_healthy().await
}
