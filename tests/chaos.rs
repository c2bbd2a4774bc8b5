//! Handlers are killed and stopped, Redis goes away, and no client notices; then everything is broken at random, with each
//! store, and nobody misses anything without a word.
//!
//! Short forms of what `scripts/chaos` runs in full: real processes, real Redis servers, clients that hold
//! streams through all of it. What is counted and how is told in `forebay-chaos`.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use forebay_chaos::{
    Disruption, Ended, Fire, FireReport, Kind, Scenario, StoreKind, markdown, run,
};

/// Runs the load of all these tests, and fails with the report if anything was not as it must be.
async fn survives(disruption: Disruption) {
    let scenario = Scenario {
        forebay: PathBuf::from(env!("CARGO_BIN_EXE_forebay")),
        clients: 100,
        sockets: 100,
        channels: 10,
        events_per_second: 100,
        duration: Duration::from_secs(8),
        disruption,
    };
    let report = run(&scenario).await.unwrap();
    println!("{report}");
    assert!(report.is_clean(), "see the report above");
    let wanted = scenario.events_per_second * 8 + scenario.channels as u64;
    assert_eq!(report.acknowledged, wanted, "every event, and an END for each channel");
}

fn handlers(how: Ended) -> Disruption {
    let (every, both_down) = (Duration::from_secs(1), Duration::from_millis(1500));
    Disruption::Handlers { how, every, both_down }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_handlers_lose_nothing_and_no_client() {
    survives(handlers(Ended::Killed)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_handlers_lose_nothing_and_no_client() {
    survives(handlers(Ended::Terminated)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_redis_loses_nothing_and_no_client() {
    survives(Disruption::Store { down: Duration::from_secs(2) }).await;
}

/// Faults of each short fire.
const FAULTS: u64 = 8;

/// Carries out a few faults of these kinds, and fails with the report if anything was not as it must be.
async fn outlives(store: StoreKind, kinds: &[Kind], wire: bool) -> FireReport {
    let fire = Fire {
        forebay: PathBuf::from(env!("CARGO_BIN_EXE_forebay")),
        store,
        faults: FAULTS,
        seed: 1,
        kinds: kinds.to_vec(),
        wire,
        min_replicas: false,
        python: None,
        clients: 60,
        sockets: 40,
        channels: 6,
        events_per_second: 60,
    };
    let report = fire.run().await.unwrap();
    println!("{}", markdown(std::slice::from_ref(&report)));
    assert!(report.is_clean(), "see the report above");
    assert_eq!(report.struck.count(), FAULTS);
    assert!(
        report.verdict.tally.events > report.acknowledged,
        "each event goes to several clients"
    );
    report
}

const OF_PROCESSES: [Kind; 6] = [
    Kind::HandlerKill,
    Kind::HandlerStop,
    Kind::EdgeKill,
    Kind::EdgeTerm,
    Kind::StoreKill,
    Kind::StoreStop,
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fire_over_one_redis_behind_a_wire() {
    // Without root there is no wire, and the report says so.
    let of_wire = [Kind::WireLoss, Kind::WireDelay, Kind::WirePartition];
    outlives(StoreKind::Redis, &[&OF_PROCESSES[..], &of_wire].concat(), true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fire_over_redis_sentinel() {
    outlives(StoreKind::Sentinel, &OF_PROCESSES, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fire_over_redis_cluster() {
    outlives(StoreKind::Cluster, &OF_PROCESSES, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fire_over_the_embedded_store() {
    // Without root the disk cannot be made full, and the report says so.
    let kinds = [Kind::EdgeKill, Kind::EdgeTerm, Kind::EdgeStop, Kind::DiskFull];
    let report = outlives(StoreKind::Embedded, &kinds, false).await;
    let can_be_full = !report.left_out.iter().any(|what| what.contains("the full disk"));
    assert_eq!(report.struck.faults.contains_key(&Kind::DiskFull), can_be_full);
}
