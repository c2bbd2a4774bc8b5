//! Clients that read a byte a second, then nothing, then all: the edge's memory stays within its bound, and
//! each client gets everything that is kept, or is told the gap.
//!
//! A short form of what `scripts/slow-readers` runs in full, without its judgement of times.

#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use forebay_chaos::{SlowReaders, run_slow_readers};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_readers_cost_what_they_may_and_miss_nothing_untold() {
    let options = SlowReaders {
        forebay: PathBuf::from(env!("CARGO_BIN_EXE_forebay")),
        slow: 50,
        quick: 10,
        rate: 300,
        seconds: 1,
        // More than fits the kernel's buffers, the backlog, the edge's tail and the short history, each
        // event being 1 KiB.
        behind: 800,
        short_history: 100,
        client_backlog_max: 16 * 1024,
        judge_latency: false,
    };
    let report = run_slow_readers(&options).await.unwrap();
    println!("{report}");
    assert!(report.is_clean(), "see the report above");
    let gaps = report.gaps();
    assert!(
        gaps[0] == 0 && gaps[1] > 0,
        "gaps where the history is short, and only there: {gaps:?}"
    );
}
