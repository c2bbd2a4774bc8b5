//! What the slow readers and the herd share: a system whose settings they choose, publishers that know
//! when what was stored, clients that write down every block that they get, and the judge over it all.
//!
//! A run is told in two records. Publishers note of each event the id under which it was stored, the
//! bytes that readers must get, and when it was sent ([`publisher`]). Clients note what came, block by
//! block, and when, and where each of their connections begins and ends ([`transcript`], [`client`]).
//! Nothing is judged while it runs: that would take the time of those who are measured. Afterwards both
//! records are put in one order by their times, and `forebay-judge` reads along as each client did
//! ([`replay`]).
//!
//! All times are microseconds of one [`Clock`] that begins with the run.

pub(crate) mod client;
pub(crate) mod publisher;
pub(crate) mod replay;
pub(crate) mod system;
pub(crate) mod transcript;

use std::time::Duration;

use tokio::time::Instant;

/// Words that a report says about violations; the others are counted.
const WORDS_MAX: usize = 20;

/// The time of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Clock { start: Instant::now() }
    }

    /// Microseconds since it began.
    pub(crate) fn now_us(self) -> u64 {
        u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The moment at that time.
    pub(crate) fn at(self, us: u64) -> Instant {
        self.start + Duration::from_micros(us)
    }
}

/// What was wrong: the first in words, all in number.
#[derive(Clone, Debug, Default)]
pub(crate) struct Violations {
    count: u64,
    words: Vec<String>,
}

impl Violations {
    pub(crate) fn add(&mut self, what: impl Into<String>) {
        self.count += 1;
        if self.words.len() < WORDS_MAX {
            self.words.push(what.into());
        }
    }

    pub(crate) fn extend(&mut self, all: impl IntoIterator<Item = String>) {
        all.into_iter().for_each(|what| self.add(what));
    }

    pub(crate) fn merge(&mut self, other: Violations) {
        self.count += other.count;
        let room = WORDS_MAX - self.words.len();
        self.words.extend(other.words.into_iter().take(room));
    }

    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    pub(crate) fn words(&self) -> &[String] {
        &self.words
    }
}

/// The time that this many of a hundred did not exceed; 0 of none.
pub(crate) fn quantile_us(times: &mut [u64], percent: usize) -> u64 {
    times.sort_unstable();
    let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(index).copied().unwrap_or(0)
}

/// A table in Markdown: a row for each name, a column for each run.
pub(crate) fn markdown(heads: &[String], rows: &[(String, Vec<String>)]) -> String {
    let mut out = format!("| | {} |\n|---|{}\n", heads.join(" | "), "---:|".repeat(heads.len()));
    for (name, values) in rows {
        out.push_str(&format!("| {name} | {} |\n", values.join(" | ")));
    }
    out
}

/// Milliseconds, for people.
pub(crate) fn milliseconds(us: u64) -> String {
    format!("{:.1} ms", us as f64 / 1000.0)
}

/// Seconds, for people.
pub(crate) fn seconds(us: u64) -> String {
    format!("{:.2} s", us as f64 / 1e6)
}

/// Mebibytes, for people.
pub(crate) fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_all_times() {
        let mut times: Vec<u64> = (1..=200).rev().collect();
        assert_eq!([50, 99, 100].map(|percent| quantile_us(&mut times, percent)), [100, 198, 200]);
        assert_eq!(quantile_us(&mut [], 99), 0);
    }

    #[test]
    fn a_table_is_markdown() {
        let rows = [("a".to_owned(), vec!["1".to_owned(), "2".to_owned()])];
        let table = markdown(&["x".to_owned(), "y".to_owned()], &rows);
        assert_eq!(table, "| | x | y |\n|---|---:|---:|\n| a | 1 | 2 |\n");
    }
}
