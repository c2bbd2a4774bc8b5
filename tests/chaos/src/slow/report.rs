//! What the slow readers came to: memory, times, and what each got.
//!
//! **The bound of memory.** It is the one that `--client-backlog-max` states. So many bytes may wait for a
//! held connection; the delivery that passes this limit is taken whole, and is at most [`DELIVERY_BYTES`].
//! They wait in blocks of [`BLOCK_BYTES`] (`--buffer-size`), of which the first and the last may be used in
//! part. So a slow client costs at most the sum of both and two blocks, and [`ENTRY_BYTES`] for being
//! there at all; and the edge that many times the slow clients, and [`SHARED_BYTES`] for what all share: the
//! tails of two channels (`--tail-bytes`), 64 ranges in flight, and the queues between threads. Memory of the
//! kernel's sockets is not the edge's, and is only shown.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use forebay_judge::Id;

use super::{BUSY, SlowReaders};
use crate::slow_and_herd::publisher::{Published, Stored};
use crate::slow_and_herd::replay::{Judgement, Readings};
use crate::slow_and_herd::system::Load;
use crate::slow_and_herd::transcript::{BlockNumber, Entry, Transcript, What, id_of};
use crate::slow_and_herd::{markdown, mebibytes, milliseconds, quantile_us, seconds};

/// Bytes of the largest delivery to a client that is behind: a range as the edge asks for it, and what frames
/// its events, each of which has more than 1 KiB: its type and its id.
const DELIVERY_BYTES: u64 = 64 * 1024 + 64 * 64;

/// Bytes of a block, with what the allocator keeps beside it and what finds it.
const BLOCK_BYTES: u64 = 8 * 1024 + 48;

/// Bytes of a held connection for which nothing waits: twice what `scripts/idle-memory` says.
const ENTRY_BYTES: u64 = 1024;

/// Bytes that the edge may take more under this load, whoever is slow.
const SHARED_BYTES: u64 = 16 * 1024 * 1024;

/// How much longer the quick clients' p99 may become: so many times, and so much.
const LATENCY_RATIO_MAX: u64 = 3;
const LATENCY_MORE_US_MAX: u64 = 20_000;

/// What was measured while it ran. Times are those of the run's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Measured {
    /// From then until then there are only quick clients.
    pub(super) alone_us: u64,
    pub(super) alone_end_us: u64,
    /// From then on all slow clients are there, and slow.
    pub(super) slow_us: u64,
    /// From then on they read on.
    pub(super) read_on_us: u64,
    pub(super) end_us: u64,
    /// The edge before the slow clients came, when they were slowest, and when all was over.
    pub(super) before: Load,
    pub(super) slow: Load,
    pub(super) read_on: Load,
    /// Bytes of the kernel's sockets before, and when the clients were slowest.
    pub(super) kernel_before: u64,
    pub(super) kernel_slow: u64,
}

/// Times of one phase: from the sending of an event, and from its acknowledgement, to the client.
#[derive(Clone, Debug, Default)]
struct Latencies {
    sent_us: Vec<u64>,
    acknowledged_us: Vec<u64>,
}

/// Quantiles of them, in microseconds: from sending p50, p99, from acknowledgement p50, p99.
#[derive(Clone, Copy, Debug, Default)]
struct Latency {
    sent: [u64; 2],
    acknowledged: [u64; 2],
}

/// The phases in which the quick clients' times are taken.
const PHASES: [&str; 3] = ["alone", "beside slow clients", "while these read on"];

/// A run and its judgement.
#[derive(Debug)]
pub(super) struct Run {
    name: &'static str,
    slow_clients: u64,
    /// What each slow client may take, and all together with what is shared, in bytes.
    bounds: (u64, u64),
    measured: Measured,
    judgement: Judgement,
    published: u64,
    latencies: [Latency; 3],
    /// Events that the slow clients were behind when they read on: the least and the most.
    behind: (u64, u64),
    /// When the last of them had an event that was sent after they read on.
    caught_up_us: u64,
    pub(super) files: Option<PathBuf>,
}

/// What all runs came to.
#[derive(Debug)]
pub struct SlowReport {
    pub(super) options: SlowReaders,
    pub(super) runs: Vec<Run>,
}

impl SlowReport {
    /// Whether everything was as it must be.
    pub fn is_clean(&self) -> bool {
        self.runs.iter().all(Run::is_clean)
    }

    /// Gaps that were told in each run.
    pub fn gaps(&self) -> Vec<u64> {
        self.runs.iter().map(|run| run.judgement.gaps).collect()
    }
}

impl Run {
    pub(super) fn new(
        name: &'static str,
        options: &SlowReaders,
        (measured, judgement): (Measured, Judgement),
    ) -> Self {
        let waiting = options.client_backlog_max + DELIVERY_BYTES;
        let blocks = waiting.div_ceil(8 * 1024) + 2;
        let of_each = ENTRY_BYTES + blocks * BLOCK_BYTES;
        let slow_clients = options.slow as u64;
        Run {
            name,
            slow_clients,
            bounds: (of_each, of_each * slow_clients + SHARED_BYTES),
            measured,
            judgement,
            published: 0,
            latencies: [Latency::default(); 3],
            behind: (0, 0),
            caught_up_us: measured.end_us,
            files: None,
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.judgement.violations.count() == 0
    }

    pub(super) fn blame(&mut self, what: impl IntoIterator<Item = String>) {
        self.judgement.violations.extend(what);
    }

    /// Bytes that the edge has taken at most since the slow clients came.
    fn grown_bytes(&self) -> u64 {
        let Measured { before, slow, read_on, .. } = &self.measured;
        slow.peak_bytes.max(read_on.peak_bytes).saturating_sub(before.resident_bytes)
    }

    /// Takes times and places from what was published and read.
    pub(super) fn look_at(&mut self, published: &[Published], readings: &Readings) {
        self.published = published.iter().map(|one| one.events.len() as u64).sum();
        let quick = readings.len() - usize::try_from(self.slow_clients).unwrap_or(usize::MAX);
        let events = &published[BUSY].events;
        let read_on_us = self.measured.read_on_us;
        let head = events.partition_point(|event| event.sent_us < read_on_us);
        let mut behind = Vec::new();
        let mut caught_up_us = 0;
        for (_, transcript) in &readings[quick..] {
            let (before, since) = {
                let index = transcript.entries.partition_point(|entry| entry.at_us < read_on_us);
                transcript.entries.split_at(index)
            };
            let place = |entry: &Entry| {
                let id = match &entry.what {
                    What::Block(number) => {
                        id_of(&transcript.blocks.bytes(*number)).and_then(Id::parse)
                    }
                    What::Began(id) => id.as_deref().and_then(Id::parse),
                    What::Ended(_) | What::Cut | What::Wrong(_) => None,
                }?;
                Some(events.partition_point(|event| event.id <= id))
            };
            let stood = before.iter().rev().find_map(place).unwrap_or(0);
            behind.push(head.saturating_sub(stood) as u64);
            let first_live =
                since.iter().find(|entry| place(entry).is_some_and(|place| place > head));
            let at_us = first_live.map_or(self.measured.end_us, |entry| entry.at_us);
            caught_up_us = at_us.max(caught_up_us);
        }
        let (least, most) = (behind.iter().min(), behind.iter().max());
        self.behind = (least.copied().unwrap_or(0), most.copied().unwrap_or(0));
        self.caught_up_us = caught_up_us;
        self.look_at_times(published, &readings[..quick]);
    }

    fn look_at_times(&mut self, published: &[Published], quick: &[(usize, Transcript)]) {
        let Measured { alone_us, alone_end_us, slow_us, read_on_us, .. } = self.measured;
        let caught_up_us = self.caught_up_us;
        let windows = [alone_us..alone_end_us, slow_us..read_on_us, read_on_us..caught_up_us];
        let mut latencies: [Latencies; 3] = Default::default();
        let mut known: HashMap<(usize, BlockNumber), Option<&Stored>> = HashMap::new();
        for (channel, transcript) in quick {
            for entry in &transcript.entries {
                let What::Block(number) = entry.what else { continue };
                let stored = known.entry((*channel, number)).or_insert_with(|| {
                    let id = id_of(&transcript.blocks.bytes(number)).and_then(Id::parse)?;
                    let events = &published[*channel].events;
                    let index = events.binary_search_by_key(&id, |event| event.id).ok()?;
                    Some(&events[index])
                });
                let Some(stored) = stored else { continue };
                let Some(phase) =
                    windows.iter().position(|window| window.contains(&stored.sent_us))
                else {
                    continue;
                };
                latencies[phase].sent_us.push(entry.at_us.saturating_sub(stored.sent_us));
                let since_ack = entry.at_us.saturating_sub(stored.acknowledged_us);
                latencies[phase].acknowledged_us.push(since_ack);
            }
        }
        self.latencies = latencies.map(|Latencies { mut sent_us, mut acknowledged_us }| Latency {
            sent: [50, 99].map(|percent| quantile_us(&mut sent_us, percent)),
            acknowledged: [50, 99].map(|percent| quantile_us(&mut acknowledged_us, percent)),
        });
    }

    /// Judges what the judge of sequences does not: memory, connections, and whether there was anything to see.
    pub(super) fn judge(&mut self, options: &SlowReaders, is_short: bool) {
        let grown = self.grown_bytes();
        let (cuts, gaps) = (self.judgement.cuts, self.judgement.gaps);
        let violations = &mut self.judgement.violations;
        if grown > self.bounds.1 {
            let (grown, bound) = (mebibytes(grown), mebibytes(self.bounds.1));
            violations.add(format!("the edge took {grown} more, and may take {bound}"));
        }
        if cuts > 0 {
            violations.add(format!("{cuts} clients were disconnected"));
        }
        if is_short && gaps == 0 {
            violations.add("no gap was told: this run proves nothing");
        }
        if self.behind.0 == 0 {
            violations.add("a slow client was not behind: this run proves nothing");
        }
        let [alone, beside, _] = &self.latencies;
        let limits = alone.sent[1] * LATENCY_RATIO_MAX + LATENCY_MORE_US_MAX;
        if options.judge_latency && beside.sent[1] > limits {
            let times = [alone.sent[1], beside.sent[1]].map(milliseconds);
            violations
                .add(format!("the quick clients' p99 went from {} to {}", times[0], times[1]));
        }
    }

    fn rows(&self) -> Vec<(String, String)> {
        let Measured { before, slow, read_on, .. } = &self.measured;
        let kernel = self.measured.kernel_slow.saturating_sub(self.measured.kernel_before);
        let of_each = |bytes: u64| {
            format!("{:.1} KiB", bytes as f64 / 1024.0 / self.slow_clients.max(1) as f64)
        };
        let slow_grown = slow.peak_bytes.saturating_sub(before.resident_bytes);
        let mut rows = vec![
            ("events published".to_owned(), self.published.to_string()),
            ("events delivered".to_owned(), self.judgement.events.to_string()),
            (
                "slow clients behind when they read on, events".to_owned(),
                format!("{} to {}", self.behind.0, self.behind.1),
            ),
            (
                "time until all had caught up".to_owned(),
                seconds(self.caught_up_us.saturating_sub(self.measured.read_on_us)),
            ),
            ("edge, resident, before slow clients".to_owned(), mebibytes(before.resident_bytes)),
            ("peak while they are slow".to_owned(), mebibytes(slow.peak_bytes)),
            ("peak while they read on".to_owned(), mebibytes(read_on.peak_bytes)),
            ("after".to_owned(), mebibytes(read_on.resident_bytes)),
            ("for each slow client, while slow".to_owned(), of_each(slow_grown)),
            ("for each slow client, at most".to_owned(), of_each(self.grown_bytes())),
            (
                "bound for each, besides what all share".to_owned(),
                of_each(self.bounds.0 * self.slow_clients),
            ),
            ("bound for all".to_owned(), mebibytes(self.bounds.1)),
            ("kernel's sockets, more by".to_owned(), mebibytes(kernel)),
        ];
        for (phase, latency) in PHASES.iter().zip(&self.latencies) {
            let pair =
                |[p50, p99]: [u64; 2]| format!("{} / {}", milliseconds(p50), milliseconds(p99));
            rows.push((
                format!("quick clients {phase}: sent → got, p50 / p99"),
                pair(latency.sent),
            ));
            rows.push((
                format!("quick clients {phase}: acknowledged → got"),
                pair(latency.acknowledged),
            ));
        }
        let ratio = self.latencies[1].sent[1] as f64 / self.latencies[0].sent[1].max(1) as f64;
        rows.push(("ratio of p99, beside slow clients : alone".to_owned(), format!("{ratio:.2}")));
        rows.extend([
            ("gaps told".to_owned(), self.judgement.gaps.to_string()),
            ("clients told of a gap".to_owned(), self.judgement.clients_with_gaps.to_string()),
            ("clients that got to the END".to_owned(), self.judgement.finished.to_string()),
            ("DISCONNECTED".to_owned(), self.judgement.cuts.to_string()),
            ("VIOLATIONS".to_owned(), self.judgement.violations.count().to_string()),
        ]);
        rows
    }
}

impl fmt::Display for SlowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SlowReaders { slow, quick, rate, seconds, client_backlog_max, .. } = &self.options;
        writeln!(
            f,
            "{slow} slow clients and {quick} quick ones on a channel of {rate} events/s, {quick} quick ones on \
             another; {seconds} s a phase, --client-backlog-max {client_backlog_max}\n"
        )?;
        let names: Vec<String> = self.runs.iter().map(|run| run.name.to_owned()).collect();
        let columns: Vec<_> = self.runs.iter().map(Run::rows).collect();
        let names_of_rows = columns.first().into_iter().flatten().map(|(name, _)| name.clone());
        let rows: Vec<(String, Vec<String>)> = names_of_rows
            .enumerate()
            .map(|(row, name)| (name, columns.iter().map(|column| column[row].1.clone()).collect()))
            .collect();
        f.write_str(&markdown(&names, &rows))?;
        for run in &self.runs {
            for words in run.judgement.violations.words() {
                writeln!(f, "{}: {words}", run.name)?;
            }
            if let Some(files) = &run.files {
                writeln!(f, "{}: logs are in {}", run.name, files.display())?;
            }
        }
        Ok(())
    }
}
