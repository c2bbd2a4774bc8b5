//! What the herd came to.
//!
//! **How reads are counted.** Redis counts the commands that scripts execute like all others
//! (`INFO commandstats`). `append.lua` executes one `INFO` and one `HMGET`; `head.lua` and `range.lua`, by
//! which all is read, one `HMGET` each; nothing else of Forebay executes an `HMGET` while all channels are
//! busy. So there are as many reads as `HMGET`s, less the appends. (One `INFO` is our own.)
//!
//! **How many are few.** Each handler reads the head of a channel a few times at once, and then only so
//! often in a second, however many ask ([`PACE_BURST`], [`PACE_INTERVAL_US`]). Ranges are asked for once by
//! each worker of the edge for all who stand at the same place, and there are not many such places.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::Herd;
use crate::slow_and_herd::replay::Judgement;
use crate::slow_and_herd::system::Load;
use crate::slow_and_herd::{markdown, mebibytes, seconds};

/// What `handlers/src/fanout/heads.rs` says of the reads of a channel's head.
const PACE_BURST: u64 = 4;
const PACE_INTERVAL_US: u64 = 100_000;

/// Handlers of a run.
const HANDLERS: u64 = 2;

/// Ranges of a channel that may be read while its clients come back.
const RANGES_MAX: u64 = 8;

/// A phase of a run.
#[derive(Clone, Debug, Default)]
pub(super) struct Phase {
    /// When it began. The other times count from then.
    pub(super) since_us: u64,
    /// Connections that were made, and when the last one was.
    pub(super) connected: u32,
    pub(super) connected_us: u64,
    /// Clients that have an event again that was sent in this phase, and when the last one had.
    pub(super) live: u32,
    pub(super) live_us: u64,
    pub(super) took_us: u64,
    /// What Redis executed.
    pub(super) calls: BTreeMap<String, u64>,
    pub(super) edge: Load,
    pub(super) handlers: Load,
    pub(super) edge_cpu: Duration,
    pub(super) handlers_cpu: Duration,
}

/// All of them.
#[derive(Clone, Debug)]
pub(super) struct Phases {
    /// Clients connect for the first time.
    pub(super) first: Phase,
    /// Nothing happens but events.
    pub(super) quiet: Phase,
    /// The edge was killed.
    pub(super) edge: Phase,
    /// The handlers were killed.
    pub(super) handlers: Phase,
}

/// What a run came to.
#[derive(Debug)]
pub struct HerdReport {
    options: Herd,
    phases: Phases,
    judgement: Judgement,
    published: u64,
    retries: u64,
    pub(super) files: Option<PathBuf>,
}

impl Phase {
    fn calls(&self, name: &str) -> u64 {
        self.calls.get(name).copied().unwrap_or(0)
    }

    /// See "How reads are counted" above.
    fn reads(&self) -> u64 {
        let appends = self.calls("info").saturating_sub(1);
        self.calls("hmget").saturating_sub(appends)
    }

    /// How many there may be for each channel. Heads are read for those who connect, so not for longer than they do.
    fn reads_max(&self) -> u64 {
        let heads = PACE_BURST + self.connected_us.div_ceil(PACE_INTERVAL_US);
        HANDLERS * heads + RANGES_MAX
    }
}

impl HerdReport {
    pub(super) fn new(
        options: &Herd,
        phases: Phases,
        (judgement, published, retries): (Judgement, u64, u64),
    ) -> Self {
        let options = options.clone();
        HerdReport { options, phases, judgement, published, retries, files: None }
    }

    /// Whether everything was as it must be.
    pub fn is_clean(&self) -> bool {
        self.judgement.violations.count() == 0
    }

    /// Judges what the judge of sequences does not.
    pub(super) fn judge(&mut self, wrong: Vec<String>) {
        let Herd { clients, channels, .. } = self.options;
        let Phases { first, quiet, edge, handlers } = &self.phases;
        let violations = &mut self.judgement.violations;
        violations.extend(wrong);
        let phases = [
            ("at first", first, clients),
            ("quiet", quiet, 0),
            ("edge", edge, clients),
            ("handlers", handlers, 0),
        ];
        for (name, phase, connects) in phases {
            if phase.connected != connects {
                let connected = phase.connected;
                violations
                    .add(format!("{name}: {connected} connections were made, not {connects}"));
            }
            if phase.live < clients {
                let missing = clients - phase.live;
                violations.add(format!("{name}: {missing} clients got no event of this phase"));
            }
        }
        for (name, phase) in [("edge", edge), ("handlers", handlers)] {
            let (reads, of_each) = (phase.reads(), phase.reads_max());
            if reads > of_each * u64::from(channels) {
                violations.add(format!(
                    "{name}: {reads} reads of the store for {channels} channels, and not {of_each} for each at most"
                ));
            }
        }
        if self.judgement.cuts != u64::from(clients) {
            let cuts = self.judgement.cuts;
            violations.add(format!(
                "{cuts} connections were lost, by {clients} clients and one restart of the edge"
            ));
        }
    }

    fn rows(&self) -> Vec<(String, Vec<String>)> {
        let Phases { first, quiet, edge, handlers } = &self.phases;
        let phases = [first, quiet, edge, handlers];
        let row = |name: &str, value: &dyn Fn(&Phase) -> String| {
            (name.to_owned(), phases.iter().map(|phase| value(phase)).collect())
        };
        let per = |count: u64, of: u32| format!("{:.2}", count as f64 / f64::from(of.max(1)));
        let Herd { clients, channels, .. } = self.options;
        let mut rows = vec![
            row("connections made", &|phase| phase.connected.to_string()),
            row("until the last was connected", &|phase| match phase.connected {
                0 => "–".to_owned(),
                _ => seconds(phase.connected_us),
            }),
            row("until all had a new event", &|phase| seconds(phase.live_us)),
            row("time of the phase", &|phase| seconds(phase.took_us)),
            row("reads of the store", &|phase| phase.reads().to_string()),
            row("  for each channel", &|phase| per(phase.reads(), channels)),
            row("  for each channel, at most", &|phase| phase.reads_max().to_string()),
            row("  for each client", &|phase| per(phase.reads(), clients)),
        ];
        let mut kinds: Vec<&String> = phases.iter().flat_map(|phase| phase.calls.keys()).collect();
        kinds.sort();
        kinds.dedup();
        for kind in kinds {
            rows.push(row(&format!("Redis: {kind}"), &|phase| phase.calls(kind).to_string()));
        }
        let cpu = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        rows.extend([
            row("edge: peak of resident memory", &|phase| mebibytes(phase.edge.peak_bytes)),
            row("edge: processor time", &|phase| cpu(phase.edge_cpu)),
            row("handlers: peak of resident memory", &|phase| mebibytes(phase.handlers.peak_bytes)),
            row("handlers: processor time", &|phase| cpu(phase.handlers_cpu)),
        ]);
        rows
    }
}

impl fmt::Display for HerdReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Herd { clients, channels, interval_ms, spread_ms, .. } = self.options;
        writeln!(
            f,
            "{clients} clients on {channels} channels, an event each {interval_ms} ms in a channel; the clients come back within \
             {spread_ms} ms\n"
        )?;
        let heads = ["at first", "quiet", "edge killed", "handlers killed"].map(str::to_owned);
        f.write_str(&markdown(&heads, &self.rows()))?;
        let judgement = &self.judgement;
        writeln!(
            f,
            "\n{} events published (sent again {} times), {} delivered, {} gaps told, {} connections lost, {} clients got to \
             the END, {} violations",
            self.published,
            self.retries,
            judgement.events,
            judgement.gaps,
            judgement.cuts,
            judgement.finished,
            judgement.violations.count()
        )?;
        for words in judgement.violations.words() {
            writeln!(f, "{words}")?;
        }
        if let Some(files) = &self.files {
            writeln!(f, "logs are in {}", files.display())?;
        }
        Ok(())
    }
}
