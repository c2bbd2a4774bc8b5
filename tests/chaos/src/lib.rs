//! Breaks a running Forebay, and judges what every client got.
//!
//! Separate processes: Redis, one edge, two handlers of all roles. Hundreds of clients hold event
//! streams through the edge, publishers send events at a steady rate, and meanwhile handlers are
//! killed or stopped and started again, one after the other and both at once, or Redis goes away.
//! What must hold is what Forebay promises: no client is disconnected, and each has exactly the
//! published events of its channels, in their order.
//!
//! One [`Scenario`] is one [`run`], from processes that are started for it to a [`Report`].
//! `tests/chaos.rs` runs short ones in the test suite, `scripts/chaos` long ones for their figures.
//!
//! | part | what it does |
//! | --- | --- |
//! | `scenario` | says what is run, and what is broken when |
//! | `process`, `cluster` | start and end the processes |
//! | `http`, `sse` | read what the edge sends; they forgive nothing |
//! | `publisher` | sends each event until it is acknowledged |
//! | `subscriber` | reads one stream to its END, and writes down what came |
//! | `faults` | breaks things |
//! | `judge` | compares what came with what was acknowledged |
//! | `report` | the figures as a table |
//!
//! No judgement depends on how fast the machine is: whatever is late is waited for, for
//! [`PATIENCE`], and times are only reported.

#![forbid(unsafe_code)]

mod cluster;
mod connection;
mod faults;
mod http;
mod judge;
mod process;
mod publisher;
mod report;
mod scenario;
mod sse;
mod subscriber;

pub use judge::{Latency, Verdict};
pub use report::{Report, table};
pub use scenario::{Disruption, Ended, Scenario};

use std::io;
use std::sync::Arc;
use std::time::Duration;

use forebay_handlers::auth::{DevKeysError, KeyProblem, MintError, Role};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use cluster::Cluster;
use faults::Broken;
use publisher::{Published, Publishing};
use subscriber::{Address, Reading, Subscriber};

/// How long something may take that should happen soon: clients to connect, events that are late to
/// be published, streams to end. What takes longer does not happen.
pub const PATIENCE: Duration = Duration::from_secs(60);

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
    let mut clients = connect(scenario, &cluster, &phase).await?;
    let edge_bytes_before = cluster.edge_resident_bytes();

    let publishing = Publishing {
        address: cluster.address,
        token: cluster.token(Role::Publisher, &[])?,
        channels: channel_names(scenario),
        events_per_channel: scenario.events_per_channel(),
        interval: scenario.interval(),
        phase,
        store_away: watch::Sender::new(false),
    };
    let since = Instant::now();
    let (mut published, broken) = load(scenario, &mut cluster, &publishing, &set_phase).await?;
    let took = since.elapsed();
    let edge_bytes_after = cluster.edge_resident_bytes();
    let (ended, readings) = finish(&publishing, &mut clients, &set_phase).await;
    published.add(ended);

    let mut verdict = Verdict::of(&published.acks, &readings);
    let stopped = cluster.stop().await?;
    let told = published.tally.violations.iter().chain(&broken.violations).chain(&stopped);
    told.for_each(|violation| verdict.blame(violation.clone()));
    let files = (!verdict.is_clean()).then(|| cluster.keep_files());
    Ok(Report {
        name: scenario.name(),
        clients: readings.len(),
        clients_of_two: readings.iter().filter(|reading| reading.channels.len() == 2).count(),
        clients_slow: readings.iter().filter(|reading| reading.is_slow).count(),
        channels: scenario.channels,
        acknowledged: published.acks.iter().map(|acks| acks.len() as u64).sum(),
        duplicates: published.tally.duplicates,
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

/// Starts all clients, and waits until each has its stream, or cannot get it.
async fn connect(
    scenario: &Scenario,
    cluster: &Cluster,
    phase: &watch::Receiver<Phase>,
) -> Result<JoinSet<(usize, Reading)>, ChaosError> {
    let names = channel_names(scenario);
    let token: Arc<str> = cluster.token(Role::Subscriber, &["*"])?.into();
    let (ready, mut is_ready) = mpsc::unbounded_channel();
    let mut clients = JoinSet::new();
    for client in 0..scenario.clients {
        let channels = scenario.channels_of(client).into_iter();
        let pause = scenario.pause_of(client);
        let subscriber = Subscriber {
            address: match pause {
                Some(_) => Address::Unix(cluster.edge_socket.clone()),
                None => Address::Tcp(cluster.address),
            },
            token: Arc::clone(&token),
            channels: channels.map(|channel| (channel, names[channel].clone())).collect(),
            pause,
            phase: phase.clone(),
            ready: ready.clone(),
        };
        clients.spawn(async move { (client, subscriber.run().await) });
    }
    let all = async {
        for _ in 0..scenario.clients {
            is_ready.recv().await;
        }
    };
    match timeout(PATIENCE, all).await {
        Ok(()) => Ok(clients),
        Err(_) => Err(ChaosError::NotReady("clients got no stream".to_owned())),
    }
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
    clients: &mut JoinSet<(usize, Reading)>,
    set_phase: &watch::Sender<Phase>,
) -> (Published, Vec<Reading>) {
    let ended = patiently(publishing.end(), PATIENCE, set_phase).await;
    let all = async {
        let mut readings = Vec::new();
        while let Some(client) = clients.join_next().await {
            readings.push(client.expect("a client does not panic"));
        }
        readings
    };
    let mut readings = patiently(all, PATIENCE, set_phase).await;
    readings.sort_by_key(|(client, _)| *client);
    (ended, readings.into_iter().map(|(_, reading)| reading).collect())
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
