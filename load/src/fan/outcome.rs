//! What came of it, as a report, and what was wrong.

use std::collections::BTreeMap;

use super::board::Board;
use super::options::FanOptions;
use super::publisher::Publisher;
use super::subscribers::Findings;
use crate::caller::Stats;
use crate::console::Console;
use crate::error::LoadError;
use crate::holder::Counts;
use crate::options;
use crate::report::{Figure, Report};
use crate::usage::Snapshot;

/// What was measured from outside.
pub(super) struct Measured {
    /// At the begin and at the end of the window.
    pub(super) usage: (Snapshot, Snapshot),
    pub(super) read_bytes: u64,
    pub(super) is_interrupted: bool,
}

/// All that is known in the end.
pub(super) struct Outcome {
    pub(super) measured: Measured,
    pub(super) stats: Stats,
    pub(super) publisher: Publisher,
    pub(super) counts: Counts,
    pub(super) findings: Findings,
    /// Why subscribers were lost.
    pub(super) drops: BTreeMap<String, u64>,
}

impl Outcome {
    fn report(&self, options: &FanOptions, board: &Board, lost: u64) -> Report {
        let Outcome { measured, stats, publisher, counts, findings, .. } = self;
        let (before, after) = &measured.usage;
        let seconds = after.seconds_since(before);
        let deliveries = findings.deliveries;
        let mut report = Report::default();
        report.add("report", Figure::Text("fan".to_owned()));
        report.count("subscribers", counts.open);
        report.count("channels", options.channels);
        report.add("payload_bytes", Figure::Bytes(options.payload.into()));
        report.add("window_s", Figure::Seconds(seconds));
        report.count("published", stats.good());
        report.add("publishes_per_s", Figure::Number(stats.good() as f64 / seconds));
        report.count("deliveries", deliveries);
        report.add("deliveries_per_s", Figure::Number(deliveries as f64 / seconds));
        report.times("latency", &findings.latency);
        report.times("last_delivery", &findings.last_delivery);
        report.times("publish_latency", &stats.latency);
        report.times("publish_lag", &publisher.lag);
        if deliveries > 0 {
            let each = measured.read_bytes as f64 / deliveries as f64;
            report.add("read_bytes_per_delivery", Figure::Number(each));
        }
        report.count("lost", lost);
        report.count("repeated", findings.repeated);
        report.count("strayed", findings.strayed);
        report.count("damaged", findings.damaged);
        report.count("unfinished_events", board.unfinished() + board.abandoned());
        report.count("dropped", counts.dropped);
        stats.tell(&mut report);
        report.add("interrupted", Figure::Flag(measured.is_interrupted));
        after.tell(before, ("delivery", deliveries), &mut report);
        report
    }

    /// Prints the report, and says what was wrong.
    pub(super) fn conclude(
        &self,
        options: &FanOptions,
        board: &Board,
        mut console: Console,
    ) -> Result<(), LoadError> {
        let Outcome { publisher, findings, counts, .. } = self;
        // What the server has refused, nobody can have lost.
        let lost = findings.lost.saturating_sub(publisher.refused_deliveries());
        console.print(&self.report(options, board, lost))?;
        let mut wrong = Vec::new();
        let mut say = |error: Option<LoadError>| wrong.extend(error.map(|error| error.to_string()));
        say(options::failed(&self.drops, counts.opened, "subscribers"));
        say(options::failed(&publisher.refused, board.published(), "events"));
        for (count, what) in [
            (lost, "lost"),
            (findings.repeated, "delivered twice"),
            (findings.strayed, "delivered to the wrong subscriber"),
            (findings.damaged, "damaged"),
        ] {
            if count > 0 {
                wrong.push(format!("{count} deliveries were {what}"));
            }
        }
        if wrong.is_empty() && findings.deliveries == 0 {
            wrong.push("nothing was delivered".to_owned());
        }
        if wrong.is_empty() { Ok(()) } else { Err(LoadError::Failed(wrong.join("; "))) }
    }
}
