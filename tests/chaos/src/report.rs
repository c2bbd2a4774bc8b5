//! What a run came to, and runs side by side as a table.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::{Unnamed, Verdict};

/// The figures of a run, and its judgement.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was broken.
    pub name: &'static str,
    /// Clients with event streams.
    pub clients: usize,
    /// Clients with WebSockets.
    pub sockets: usize,
    /// Those of them that read two channels at once.
    pub clients_of_two: usize,
    /// Those of them that stopped reading for a while.
    pub clients_slow: usize,
    /// Channels.
    pub channels: usize,
    /// Events that publishers know to be stored.
    pub acknowledged: u64,
    /// Those of them that were stored by an attempt whose answer was lost.
    pub duplicates: u64,
    /// Events without a `message_id`.
    pub unnamed: Unnamed,
    /// Answers after which an event was sent again, by status; each had a `Retry-After`.
    pub refused: BTreeMap<u16, u64>,
    /// Attempts to publish whose connection was lost.
    pub lost: u64,
    /// The longest time that it took to publish an event, with all attempts.
    pub slowest_publish: Duration,
    /// Processes that were ended.
    pub ended: u64,
    /// The longest time that a handler took to end.
    pub slowest_exit: Duration,
    /// From the first event to the last acknowledgement.
    pub took: Duration,
    /// Resident memory of the edge with all clients, before and after the load, in bytes.
    pub edge_bytes: (u64, u64),
    /// What clients got.
    pub verdict: Verdict,
    /// Where logs are, if something was wrong.
    pub files: Option<PathBuf>,
}

impl Report {
    /// Whether everything was as it must be.
    pub fn is_clean(&self) -> bool {
        self.verdict.is_clean()
    }

    /// Names and values, in the order in which they are shown.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let verdict = &self.verdict;
        let refused = |status| self.refused.get(&status).copied().unwrap_or(0).to_string();
        vec![
            ("event streams", self.clients.to_string()),
            ("WebSockets", self.sockets.to_string()),
            ("  on two channels", self.clients_of_two.to_string()),
            ("  slow for a while", self.clients_slow.to_string()),
            ("channels", self.channels.to_string()),
            ("time", seconds(self.took)),
            ("processes ended", self.ended.to_string()),
            ("  slowest exit", seconds(self.slowest_exit)),
            ("events acknowledged", self.acknowledged.to_string()),
            ("  by an earlier attempt", self.duplicates.to_string()),
            ("  without message_id", self.unnamed.acknowledged.to_string()),
            ("    stored before", self.unnamed.repeated.to_string()),
            ("    looked for", self.unnamed.looks.to_string()),
            ("    found", self.unnamed.found.to_string()),
            ("  slowest", seconds(self.slowest_publish)),
            ("sent again after 429", refused(429)),
            ("sent again after 502", refused(502)),
            ("sent again after 503", refused(503)),
            ("  connection lost", self.lost.to_string()),
            ("events delivered", verdict.tally.events.to_string()),
            ("  ack to last client p50", milliseconds(verdict.latency.p50)),
            ("  p99", milliseconds(verdict.latency.p99)),
            ("  max", milliseconds(verdict.latency.max)),
            ("  longest silence", seconds(verdict.longest_silence)),
            ("edge, resident, before", mebibytes(self.edge_bytes.0)),
            ("  after", mebibytes(self.edge_bytes.1)),
            ("DISCONNECTED", verdict.disconnects.to_string()),
            ("UNFINISHED", verdict.unfinished.to_string()),
            ("HOLES", verdict.tally.holes.to_string()),
            ("REPEATS", verdict.tally.repeats.to_string()),
            ("UNSIGNALLED LOSSES", verdict.tally.unsignalled.to_string()),
            ("OTHER VIOLATIONS", verdict.tally.others.to_string()),
        ]
    }
}

/// Runs side by side; below them what was wrong, in words.
pub fn table(reports: &[Report]) -> String {
    const NAME_WIDTH: usize = 26;
    const VALUE_WIDTH: usize = 20;
    let mut out = format!("{:NAME_WIDTH$}", "");
    let line = |out: &mut String| {
        out.truncate(out.trim_end().len());
        out.push('\n');
    };
    for report in reports {
        out.push_str(&format!("{:>VALUE_WIDTH$}", report.name));
    }
    line(&mut out);
    let columns: Vec<_> = reports.iter().map(Report::rows).collect();
    for (row, (name, _)) in columns.first().into_iter().flatten().enumerate() {
        out.push_str(&format!("{name:NAME_WIDTH$}"));
        for column in &columns {
            out.push_str(&format!("{:>VALUE_WIDTH$}", column[row].1));
        }
        line(&mut out);
    }
    for report in reports {
        for violation in &report.verdict.tally.words {
            out.push_str(&format!("{}: {violation}\n", report.name));
        }
        if let Some(files) = &report.files {
            out.push_str(&format!("{}: logs are in {}\n", report.name, files.display()));
        }
    }
    out
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&table(std::slice::from_ref(self)))
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let mut verdict = Verdict::default();
        verdict.tally.events = 42;
        verdict.blame("something".to_owned());
        Report {
            name: "a run",
            clients: 3,
            sockets: 3,
            clients_of_two: 1,
            clients_slow: 0,
            channels: 2,
            acknowledged: 14,
            duplicates: 0,
            unnamed: Unnamed::default(),
            refused: BTreeMap::from([(503, 7)]),
            lost: 0,
            slowest_publish: Duration::from_millis(1500),
            ended: 1,
            slowest_exit: Duration::ZERO,
            took: Duration::from_secs(2),
            edge_bytes: (3 << 20, 7 << 19),
            verdict,
            files: Some("/tmp/x".into()),
        }
    }

    #[test]
    fn runs_stand_side_by_side() {
        let table = table(&[report(), report()]);
        let row = |name: &str| -> Vec<&str> {
            let line = table.lines().find(|line| line.trim_start().starts_with(name));
            line.unwrap_or_default().trim_start()[name.len()..].split_whitespace().collect()
        };
        assert_eq!(row("sent again after 503"), ["7", "7"]);
        assert_eq!(row("events delivered"), ["42", "42"]);
        assert_eq!(row("after"), ["3.5", "MiB", "3.5", "MiB"]);
        assert_eq!(row("OTHER VIOLATIONS"), ["1", "1"]);
        assert!(table.ends_with("a run: something\na run: logs are in /tmp/x\n"));
        assert!(!report().is_clean());
    }
}
