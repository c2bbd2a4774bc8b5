//! What an operator wants to know of an edge first, as numbers for Prometheus.
//!
//! ```text
//! worker threads ──store, once a turn──▶ ThreadMetrics (atomics) ◀──load── render ◀── GET /metrics (server.rs)
//! hub thread ──────count_refusal────────▶
//! ```
//!
//! The machines count for themselves, without locks, in [`WorkerStats`]. Once a turn each worker leaves what it has in
//! atomics of its own, some twenty plain stores; whoever asks gets the sum over all workers. Nothing is published by these
//! numbers, so no order is needed between them: an answer may show a request that is counted and a connection that is
//! not yet, and the next one makes that good.
//!
//! Names are those of pushpin-connmgr where it has one (`connmgr_requests_total`), and follow Prometheus' conventions
//! else. The text is written by hand: it is twenty lines, and a client library would bring a registry of global counters
//! that machines may not touch.

mod server;

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use forebay_core::worker::{CloseReason, WorkerStats};

pub use server::{CLIENTS_MAX, EXCHANGE_MAX, MetricsServer, serve};

/// The numbers of one thread: of a worker, or of the hub, which has only refused packets.
///
/// Aligned to two cache lines, which is what processors fetch at once, so that workers don't slow each other down.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ThreadMetrics {
    connections: AtomicU64,
    held: AtomicU64,
    accepted: AtomicU64,
    closed: [AtomicU64; CloseReason::COUNT],
    requests: AtomicU64,
    holds: AtomicU64,
    deliveries: AtomicU64,
    errors: AtomicU64,
    packets_refused: AtomicU64,
    sends_dropped: AtomicU64,
}

impl ThreadMetrics {
    /// One more packet of a handler was refused. Of the hub, whose machine does not count.
    pub fn count_refusal(&self) {
        self.packets_refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Leaves the numbers of a worker, with how many connections it has now and how many of them are held.
    pub fn store(&self, stats: &WorkerStats, connections: usize, holds: usize) {
        let store = |number: &AtomicU64, value: u64| number.store(value, Ordering::Relaxed);
        store(&self.connections, connections as u64);
        store(&self.held, holds as u64);
        let ended: u64 = stats.closed.iter().sum();
        store(&self.accepted, ended + connections as u64);
        for (number, value) in self.closed.iter().zip(stats.closed) {
            store(number, value);
        }
        store(&self.requests, stats.requests);
        store(&self.holds, stats.holds);
        store(&self.deliveries, stats.deliveries);
        store(&self.errors, stats.errors);
        store(&self.packets_refused, stats.bad_packets);
        store(&self.sends_dropped, stats.sends_dropped);
    }
}

/// The numbers of an edge.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The workers, then the hub.
    threads: Vec<Arc<ThreadMetrics>>,
}

impl Metrics {
    /// For so many workers; all numbers are 0.
    pub fn new(workers: usize) -> Metrics {
        Metrics { threads: (0..=workers).map(|_| Arc::default()).collect() }
    }

    /// The numbers of one worker, for its thread.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn worker(&self, index: usize) -> Arc<ThreadMetrics> {
        Arc::clone(&self.threads[index])
    }

    /// The numbers of the hub, for its thread.
    pub fn hub(&self) -> Arc<ThreadMetrics> {
        Arc::clone(self.threads.last().expect("the hub is always there"))
    }

    /// All numbers in Prometheus' text format, version 0.0.4. `prefix` and an underscore stand before each name; nothing, if
    /// it is empty.
    pub fn render(&self, prefix: &str) -> String {
        let mut out = String::new();
        let separator = if prefix.is_empty() { "" } else { "_" };
        let prefix = format!("{prefix}{separator}");
        for family in FAMILIES {
            let Family { name, kind, help, .. } = family;
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
            };
            write!(out, "# HELP {prefix}{name} {help}\n# TYPE {prefix}{name} {kind}\n")
                .expect("a string takes all");
            for (labels, number) in family.samples {
                let value: u64 = self.threads.iter().map(|thread| number(thread)).sum();
                writeln!(out, "{prefix}{name}{labels} {value}").expect("a string takes all");
            }
        }
        out
    }
}

/// Metrics of one name.
struct Family {
    name: &'static str,
    kind: Kind,
    help: &'static str,
    /// The labels of each and where its number is.
    samples: &'static [(&'static str, Number)],
}

type Number = fn(&ThreadMetrics) -> u64;

enum Kind {
    Counter,
    Gauge,
}

fn load(number: &AtomicU64) -> u64 {
    number.load(Ordering::Relaxed)
}

fn closed(worker: &ThreadMetrics, reason: CloseReason) -> u64 {
    load(&worker.closed[reason as usize])
}

/// All that there is.
const FAMILIES: &[Family] = &[
    Family {
        name: "connmgr_requests_total",
        kind: Kind::Counter,
        help: "Total number of requests processed by connmgr",
        samples: &[("", |worker| load(&worker.requests))],
    },
    Family {
        name: "connmgr_connections",
        kind: Kind::Gauge,
        help: "Client connections now; those that are held read channels, others wait for a request or its answer",
        samples: &[
            (r#"{state="held"}"#, |worker| load(&worker.held)),
            (r#"{state="other"}"#, |worker| {
                load(&worker.connections).saturating_sub(load(&worker.held))
            }),
        ],
    },
    Family {
        name: "connmgr_connections_accepted_total",
        kind: Kind::Counter,
        help: "Client connections that were accepted",
        samples: &[("", |worker| load(&worker.accepted))],
    },
    Family {
        name: "connmgr_connections_closed_total",
        kind: Kind::Counter,
        help: "Client connections that ended, by why",
        samples: &[
            (r#"{reason="finished"}"#, |worker| closed(worker, CloseReason::Finished)),
            (r#"{reason="client_left"}"#, |worker| closed(worker, CloseReason::ClientLeft)),
            (r#"{reason="failed"}"#, |worker| closed(worker, CloseReason::Failed)),
            (r#"{reason="timed_out"}"#, |worker| closed(worker, CloseReason::TimedOut)),
            (r#"{reason="handler"}"#, |worker| closed(worker, CloseReason::Handler)),
            (r#"{reason="protocol"}"#, |worker| closed(worker, CloseReason::Protocol)),
            (r#"{reason="drained"}"#, |worker| closed(worker, CloseReason::Drained)),
        ],
    },
    Family {
        name: "connmgr_error_responses_total",
        kind: Kind::Counter,
        help: "Responses with an error status that connmgr made itself, without a handler",
        samples: &[("", |worker| load(&worker.errors))],
    },
    Family {
        name: "connmgr_holds_total",
        kind: Kind::Counter,
        help: "Connections that became held: they read channels from then on",
        samples: &[("", |worker| load(&worker.holds))],
    },
    Family {
        name: "connmgr_deliveries_total",
        kind: Kind::Counter,
        help: "Writes of events to held connections",
        samples: &[("", |worker| load(&worker.deliveries))],
    },
    Family {
        name: "connmgr_packets_refused_total",
        kind: Kind::Counter,
        help: "Packets of handlers that were not understood or did not fit their session",
        samples: &[("", |worker| load(&worker.packets_refused))],
    },
    Family {
        name: "connmgr_sends_dropped_total",
        kind: Kind::Counter,
        help: "Packets of handlers with data for a held connection that were dropped, as its client takes nothing",
        samples: &[("", |worker| load(&worker.sends_dropped))],
    },
];

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Numbers that all differ, from a base on.
    fn stats(base: u64) -> WorkerStats {
        let mut stats = WorkerStats {
            requests: base + 1,
            holds: base + 2,
            deliveries: base + 3,
            errors: base + 4,
            sends_dropped: base + 5,
            bad_packets: base + 6,
            ..WorkerStats::default()
        };
        for (reason, count) in stats.closed.iter_mut().enumerate() {
            *count = base + 10 + reason as u64;
        }
        stats
    }

    #[test]
    fn a_new_edge_has_all_names() {
        let text = Metrics::new(2).render("");
        let values: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(values.iter().all(|line| line.ends_with(" 0")), "{text}");
        assert_eq!(values.len(), 9 + CloseReason::COUNT, "each reason has a line");
    }

    #[test]
    fn workers_are_summed_up() {
        let metrics = Metrics::new(2);
        metrics.worker(0).store(&stats(100), 50, 30);
        // Only the last that was stored counts.
        metrics.worker(1).store(&stats(1), 1, 1);
        metrics.worker(1).store(&stats(1000), 7, 3);
        metrics.hub().count_refusal();
        let text = metrics.render("p");
        for line in [
            "# HELP p_connmgr_requests_total Total number of requests processed by connmgr",
            "# TYPE p_connmgr_requests_total counter",
            "p_connmgr_requests_total 1102",
            "# TYPE p_connmgr_connections gauge",
            r#"p_connmgr_connections{state="held"} 33"#,
            r#"p_connmgr_connections{state="other"} 24"#,
            // Seven reasons each, and who is still there.
            "p_connmgr_connections_accepted_total 7939",
            r#"p_connmgr_connections_closed_total{reason="finished"} 1120"#,
            r#"p_connmgr_connections_closed_total{reason="client_left"} 1122"#,
            r#"p_connmgr_connections_closed_total{reason="failed"} 1124"#,
            r#"p_connmgr_connections_closed_total{reason="timed_out"} 1126"#,
            r#"p_connmgr_connections_closed_total{reason="handler"} 1128"#,
            r#"p_connmgr_connections_closed_total{reason="protocol"} 1130"#,
            r#"p_connmgr_connections_closed_total{reason="drained"} 1132"#,
            "p_connmgr_error_responses_total 1108",
            "p_connmgr_holds_total 1104",
            "p_connmgr_deliveries_total 1106",
            "p_connmgr_packets_refused_total 1113",
            "p_connmgr_sends_dropped_total 1110",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }

    /// Prometheus' text format, version 0.0.4: `# HELP`, `# TYPE`, then the samples of one name, in one block.
    #[test]
    fn the_text_is_well_formed() {
        let text = Metrics::new(1).render("a");
        assert!(text.ends_with('\n'));
        let mut lines = text.lines().peekable();
        while let Some(help) = lines.next() {
            let (name, help) = help.strip_prefix("# HELP ").unwrap().split_once(' ').unwrap();
            assert!(!help.is_empty() && !help.contains('\\'), "{help}");
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            let mut labels = Vec::new();
            while let Some(sample) = lines.next_if(|line| !line.starts_with('#')) {
                let (metric, value) = sample.rsplit_once(' ').unwrap();
                value.parse::<u64>().unwrap();
                labels.push(metric.strip_prefix(name).unwrap());
            }
            assert!(!labels.is_empty(), "{name}");
            let mut unique = labels.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), labels.len(), "{name}");
        }
    }

    #[test]
    fn workers_share_no_cache_line() {
        assert_eq!(align_of::<ThreadMetrics>(), 128);
    }
}
