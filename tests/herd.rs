//! The edge is killed under its clients, and all come back at once: nobody misses anything, and the store is
//! asked for each channel, not for each client.
//!
//! A short form of what `scripts/herd` runs in full.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use forebay_chaos::{Herd, run_herd};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_comes_back_and_the_store_hardly_notices() {
    let options = Herd {
        forebay: PathBuf::from(env!("CARGO_BIN_EXE_forebay")),
        clients: 300,
        channels: 10,
        interval_ms: 250,
        spread_ms: 200,
    };
    let report = run_herd(&options).await.unwrap();
    println!("{report}");
    assert!(report.is_clean(), "see the report above");
}
