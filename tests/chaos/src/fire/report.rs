//! What fires came to, as one table.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

use super::{Fire, Kind, Struck};
use crate::Verdict;
use crate::publisher::{Tally, Unnamed};

/// The figures of a run, and its judgement.
#[derive(Clone, Debug)]
pub struct FireReport {
    /// What was run.
    pub fire: Fire,
    /// Events that publishers know to be stored.
    pub acknowledged: u64,
    /// What publishers saw.
    pub tally: Publishers,
    /// Clients that stopped reading at times.
    pub clients_slow: usize,
    /// The faults.
    pub struck: Struck,
    /// Replicas that were seen to have become masters.
    pub failovers: u64,
    /// When the first event was published.
    pub since: Instant,
    /// From then until all was mended, and published.
    pub took: Duration,
    /// Packets that the wire lost.
    pub packets_lost: u64,
    /// What could not be broken here, and why.
    pub left_out: Vec<String>,
    /// What clients got.
    pub verdict: Verdict,
    /// Where logs are, if something was wrong.
    pub files: Option<PathBuf>,
}

/// What publishers saw.
#[derive(Clone, Debug, Default)]
pub struct Publishers {
    /// Answers after which an event was sent again, by status; each had a `Retry-After`.
    pub refused: BTreeMap<u16, u64>,
    /// Attempts whose connection was lost.
    pub lost: u64,
    /// Attempts that nobody answered in time.
    pub unanswered: u64,
    /// Events that were stored by an attempt whose answer was lost.
    pub duplicates: u64,
    /// Events without a `message_id`.
    pub unnamed: Unnamed,
    /// The longest time that it took to publish an event, with all attempts.
    pub slowest: Duration,
}

impl From<Tally> for Publishers {
    fn from(tally: Tally) -> Self {
        let Tally { refused, lost, unanswered, duplicates, slowest, unnamed, .. } = tally;
        Publishers { refused, lost, unanswered, duplicates, unnamed, slowest }
    }
}

impl FireReport {
    /// Whether everything was as it must be.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean()
    }

    /// When the event came that took longest.
    fn slowest(&self) -> String {
        let acked = self.verdict.latency.slowest_acked;
        let after = acked.map(|acked| seconds(acked.saturating_duration_since(self.since)));
        after.map_or(String::new(), |after| format!(", of {after}"))
    }

    /// Names and values, in the order in which they are shown.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let (verdict, tally) = (&self.verdict, &self.verdict.tally);
        let mut rows = vec![
            ("seed", self.fire.seed.to_string()),
            ("min-replicas-to-write", u8::from(self.fire.min_replicas).to_string()),
            ("time", seconds(self.took)),
            ("**faults**", self.struck.count().to_string()),
        ];
        for kind in Kind::ALL {
            let count = self.struck.faults.get(&kind).copied().unwrap_or(0);
            rows.push((kind.name(), if count == 0 { "–".to_owned() } else { count.to_string() }));
        }
        let unnamed = self.tally.unnamed;
        let refused = |status| self.tally.refused.get(&status).copied().unwrap_or(0);
        rows.extend([
            ("faults passed over", self.struck.passed_over.to_string()),
            ("packets lost by the wire", self.packets_lost.to_string()),
            ("fail-overs seen", self.failovers.to_string()),
            (
                "event streams / WebSockets",
                format!("{} / {}", self.fire.clients, self.fire.sockets),
            ),
            ("of them slow at times", self.clients_slow.to_string()),
            ("channels", self.fire.channels.to_string()),
            ("events acknowledged", self.acknowledged.to_string()),
            ("stored by an attempt without answer", self.tally.duplicates.to_string()),
            (
                "without `message_id` / of them stored before",
                format!("{} / {}", unnamed.acknowledged, unnamed.repeated),
            ),
            ("looked for in history / found", format!("{} / {}", unnamed.looks, unnamed.found)),
            ("slowest publish", seconds(self.tally.slowest)),
            (
                "sent again after 429 / 502 / 503",
                format!("{} / {} / {}", refused(429), refused(502), refused(503)),
            ),
            (
                "sent again, connection lost / no answer",
                format!("{} / {}", self.tally.lost, self.tally.unanswered),
            ),
            ("events delivered", tally.events.to_string()),
            (
                "ack to last client, p50 / p99",
                format!(
                    "{} / {}",
                    milliseconds(verdict.latency.p50),
                    milliseconds(verdict.latency.p99)
                ),
            ),
            (
                "ack to last client, max",
                format!("{}{}", seconds(verdict.latency.max), self.slowest()),
            ),
            ("reconnects, as the edge was ended", verdict.reconnects.to_string()),
            ("attempts to come back in vain", verdict.sent_away.to_string()),
            ("acknowledged events lost by the store", verdict.lost_acknowledged.to_string()),
            ("fail-overs that logs tell of", verdict.failovers_told.to_string()),
            ("gaps told, of losses / other", format!("{} / {}", tally.gaps_lost, tally.gaps_other)),
            (
                "lost events before which a reader stood (nothing to tell)",
                tally.never_seen.to_string(),
            ),
            ("**disconnects**", verdict.disconnects.to_string()),
            ("**clients that did not get to the END**", verdict.unfinished.to_string()),
            ("**repeats**", tally.repeats.to_string()),
            ("**holes**", tally.holes.to_string()),
            ("**kept events that a gap passed over**", tally.astray.to_string()),
            ("**unsignalled losses**", tally.unsignalled.to_string()),
            ("**other violations**", tally.others.to_string()),
        ]);
        rows
    }
}

/// Runs side by side, in Markdown; below them what was wrong, in words.
pub fn markdown(reports: &[FireReport]) -> String {
    let mut out = String::from("| |");
    reports.iter().for_each(|report| out.push_str(&format!(" {} |", report.fire.store.name())));
    out.push_str("\n| --- |");
    reports.iter().for_each(|_| out.push_str(" ---: |"));
    out.push('\n');
    let columns: Vec<_> = reports.iter().map(FireReport::rows).collect();
    for (row, (name, _)) in columns.first().into_iter().flatten().enumerate() {
        out.push_str(&format!("| {name} |"));
        columns.iter().for_each(|column| out.push_str(&format!(" {} |", column[row].1)));
        out.push('\n');
    }
    for report in reports {
        for what in &report.left_out {
            out.push_str(&format!("\n* {}: left out: {what}", report.fire.store.name()));
        }
        for word in &report.verdict.tally.words {
            out.push_str(&format!("\n* {}: {word}", report.fire.store.name()));
        }
        if let Some(files) = &report.files {
            out.push_str(&format!(
                "\n* {}: logs are in {}",
                report.fire.store.name(),
                files.display()
            ));
        }
    }
    out
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
