//! Handlers are killed and stopped, Redis goes away, and no client notices.
//!
//! Short forms of what `scripts/chaos` runs in full: real processes, a real Redis, clients that hold
//! streams through all of it. What is counted and how is told in `forebay-chaos`.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;
use std::time::Duration;

use forebay_chaos::{Disruption, Ended, Scenario, run};

/// Runs the load of all these tests, and fails with the report if anything was not as it must be.
async fn survives(disruption: Disruption) {
    let scenario = Scenario {
        forebay: PathBuf::from(env!("CARGO_BIN_EXE_forebay")),
        clients: 100,
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
