//! Breaks a running Forebay, and judges what every client got.
//!
//! Separate processes: a store, one edge, two handlers of all roles. Hundreds of clients hold event streams through the edge,
//! publishers send events at a steady rate, and meanwhile things are broken. What must hold is what Forebay promises: no
//! client is disconnected but by the end of its edge, each has exactly the published events of its channels, in their order,
//! and what the store has lost is said.
//!
//! Two kinds of runs:
//!
//! * A [`Scenario`] is one kind of fault on one arrangement, at set times: handlers killed, handlers stopped, Redis away
//!   ([`run`]).
//! * A [`Fire`] is hundreds of faults of all kinds, drawn by a seed, on one of four arrangements ([`Fire::run`]).
//!
//! `tests/chaos.rs` runs short ones in the test suite, `scripts/chaos` long ones for their figures. ([`SlowReaders`] and
//! [`Herd`] are measurements of their own, beside these.)
//!
//! | part | what it does |
//! | --- | --- |
//! | `scenario`, `faults` | what is broken when in a scenario, and how |
//! | `fire` | random faults, and the arrangements |
//! | `process`, `cluster` | start and end the processes |
//! | `http`, `connection` | read what the edge sends; they forgive nothing |
//! | `publisher`, `socket_publisher` | sends each event until it is acknowledged |
//! | `clients`, `subscriber`, `socket_subscriber`, `record` | reads to the END over as many connections as it takes, and writes down what came |
//! | `socket` | a WebSocket of the public API |
//! | `ledger` | reads what the store holds in the end |
//! | `evidence`, `judge` | put together what is known, and hold against it what came: with `forebay-judge` |
//! | `report` | the figures as a table |
//!
//! No judgement depends on how fast the machine is: whatever is late is waited for, for
//! [`PATIENCE`], and times are only reported.

#![forbid(unsafe_code)]

mod clients;
mod cluster;
mod connection;
mod evidence;
mod faults;
mod fire;
mod herd;
mod http;
mod judge;
mod ledger;
mod port;
mod process;
mod publisher;
mod record;
mod report;
mod scenario;
mod slow;
mod slow_and_herd;
mod socket;
mod socket_publisher;
mod socket_subscriber;
mod subscriber;

pub use fire::{Disk, Fire, FireReport, Kind, StoreKind, Struck, markdown};
pub use herd::{Herd, HerdReport, run_herd};
pub use judge::{Latency, Verdict};
pub use publisher::Unnamed;
pub use report::{Report, table};
pub use scenario::{Disruption, Ended, Scenario};
pub use slow::{SlowReaders, SlowReport, run_slow_readers};

use std::io;
use std::sync::Arc;
use std::time::Duration;

use forebay_handlers::auth::{DevKeysError, KeyProblem, MintError, Role};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use clients::{Client, Clients, Common};
use cluster::Cluster;
use connection::Address;
use evidence::Evidence;
use faults::Broken;
use publisher::{Published, Publishing};
use record::Reading;
use socket::Credentials;
use subscriber::{EdgeLives, address_of};

/// How long something may take that should happen soon: clients to connect, events that are late to
/// be published, streams to end. What takes longer does not happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often something is looked at that is to become so.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// Why a run came to no judgement.
#[derive(Debug, thiserror::Error)]
pub enum ChaosError {
    /// A directory or a port could not be had.
    #[error("cannot prepare the run: {0}")]
    Setup(io::Error),
    /// A process could not be started or ended.
    #[error("{name}: {source}")]
    Process {
        /// Which.
        name: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The system did not come up. Holds the last words of what failed.
    #[error("the system did not come up: {0}")]
    NotReady(String),
    /// No keys for tokens.
    #[error(transparent)]
    Keys(#[from] DevKeysError),
    /// A key that signs nothing.
    #[error("development keys: {0}")]
    Key(KeyProblem),
    /// No token.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// None of the faults that are wanted is possible in this arrangement, or here.
    #[error(
        "nothing can be broken: no fault that is wanted is possible in this arrangement, or without root"
    )]
    NothingToBreak,
    /// What the store holds cannot be read.
    #[error("the store: {0}")]
    Store(String),
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Clients connect.
    Connecting,
    /// Events are published, and awaited.
    Load { since: Instant },
    /// Patience is over.
    Over,
}

/// Runs a scenario, in processes of its own.
///
/// # Errors
///
/// If the system cannot be started. Whatever is wrong with a system that runs is in the report.
pub async fn run(scenario: &Scenario) -> Result<Report, ChaosError> {
    let mut cluster = Cluster::start(scenario).await?;
    let (set_phase, phase) = watch::channel(Phase::Connecting);
    let edge = watch::Sender::new(EdgeLives::default());
    let token: Arc<str> = cluster.token(Role::Subscriber, &["*"])?.into();
    let reader_token = Arc::clone(&token);
    let common = Common { token, phase: phase.clone(), edge: edge.subscribe() };
    let mut clients = Clients::connect(&common, self::clients(scenario, &cluster)).await?;
    let edge_bytes_before = cluster.edge_resident_bytes();

    let publishing = Publishing {
        address: Address::Tcp(cluster.address),
        token: cluster.token(Role::Publisher, &[])?,
        reader_token,
        channels: channel_names(scenario),
        events_per_channel: scenario.events_per_channel(),
        interval: scenario.interval(),
        phase,
        edge: edge.subscribe(),
        store_away: watch::Sender::new(false),
        enough: watch::Sender::new(false).subscribe(),
    };
    let since = Instant::now();
    let (mut published, broken) = load(scenario, &mut cluster, &publishing, &set_phase).await?;
    let took = since.elapsed();
    let edge_bytes_after = cluster.edge_resident_bytes();
    let (ended, readings) = finish(&publishing, &mut clients, &set_phase).await;
    published.add(ended);

    let names = channel_names(scenario);
    let kept = ledger::of_redis(&[cluster.redis_url()], &names).await?;
    let (acks, readings) = (&published.acks, &readings);
    let mut verdict = Verdict::of(&Evidence { names: &names, acks, kept: &kept, readings });
    if verdict.lost_acknowledged > 0 {
        verdict.blame(format!("{} acknowledged events are lost", verdict.lost_acknowledged));
    }
    let stopped = cluster.stop().await?;
    let told = published.tally.violations.iter().chain(&broken.violations).chain(&stopped);
    told.for_each(|violation| verdict.blame(violation.clone()));
    let files = (!verdict.is_clean()).then(|| cluster.keep_files());
    Ok(Report {
        name: scenario.name(),
        clients: scenario.clients,
        sockets: scenario.sockets,
        clients_of_two: scenario.count_clients(|client| scenario.channels_of(client).len() == 2),
        clients_slow: scenario.count_clients(|client| scenario.pause_of(client).is_some()),
        channels: scenario.channels,
        acknowledged: published.acks.iter().map(|acks| acks.len() as u64).sum(),
        duplicates: published.tally.duplicates,
        unnamed: published.tally.unnamed,
        refused: published.tally.refused,
        lost: published.tally.lost,
        slowest_publish: published.tally.slowest,
        ended: broken.ended,
        slowest_exit: broken.slowest_exit,
        took,
        edge_bytes: (edge_bytes_before, edge_bytes_after),
        verdict,
        files,
    })
}

fn channel_names(scenario: &Scenario) -> Vec<String> {
    (0..scenario.channels).map(|number| format!("room-{number}")).collect()
}

/// All who read: event streams, and as WebSockets as many again.
fn clients<'a>(scenario: &'a Scenario, cluster: &'a Cluster) -> impl Iterator<Item = Client> + 'a {
    let names = channel_names(scenario);
    let tcp = Address::Tcp(cluster.address);
    let client = move |number: usize, socket| {
        let channels = scenario.channels_of(number).into_iter();
        let pause = scenario.pause_of(number);
        Client {
            socket,
            address: address_of(pause.is_some(), &tcp, &cluster.edge_socket),
            channels: channels.map(|channel| (channel, names[channel].clone())).collect(),
            pauses: pause.into_iter().collect(),
        }
    };
    let streams = (0..scenario.clients).map(|number| (number, None));
    let sockets = (0..scenario.sockets).map(|number| (number, Some(Credentials::of(number))));
    streams.chain(sockets).map(move |(number, socket)| client(number, socket))
}

/// Publishes everything, and breaks things meanwhile.
async fn load(
    scenario: &Scenario,
    cluster: &mut Cluster,
    publishing: &Publishing,
    set_phase: &watch::Sender<Phase>,
) -> Result<(Published, Broken), ChaosError> {
    let since = Instant::now();
    set_phase.send_replace(Phase::Load { since });
    let faults = scenario.faults();
    let publish = patiently(publishing.run(), scenario.duration + 2 * PATIENCE, set_phase);
    let store_away = publishing.store_away.subscribe();
    let breaking = faults::carry_out(cluster, &faults, since, store_away);
    let (published, broken) = tokio::join!(publish, breaking);
    Ok((published, broken?))
}

/// Ends all channels, and waits until each client has got to the end of its stream.
async fn finish(
    publishing: &Publishing,
    clients: &mut Clients,
    set_phase: &watch::Sender<Phase>,
) -> (Published, Vec<Reading>) {
    let ended = patiently(publishing.end(), PATIENCE, set_phase).await;
    let readings = patiently(clients.finish(), PATIENCE, set_phase).await;
    (ended, readings)
}

/// Waits for something that ends soon once the run is over, which it is after `limit`.
async fn patiently<F: Future>(
    what: F,
    limit: Duration,
    set_phase: &watch::Sender<Phase>,
) -> F::Output {
    tokio::pin!(what);
    match timeout(limit, &mut what).await {
        Ok(output) => output,
        Err(_) => {
            set_phase.send_replace(Phase::Over);
            what.await
        }
    }
}
