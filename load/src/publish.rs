//! `forebay load publish`: how fast events are taken, alone or in batches.
//!
//! Nobody needs to listen: what is measured is the way to the store and back.

use std::collections::HashMap;
use std::sync::Arc;

use clap::Args;
use memchr::memmem::Finder;

use crate::caller::{Next, Pace, Source, Window};
use crate::error::LoadError;
use crate::measure::{CallOptions, Measured, conclude, measure};
use crate::options::{CommonOptions, parse_positive};
use crate::report::{Figure, Report};
use crate::wire::request::{Header, Request, Template};

/// Publishes in a closed loop, or at a rate.
#[derive(Args, Clone, Debug)]
pub struct PublishOptions {
    #[command(flatten)]
    common: CommonOptions,

    #[command(flatten)]
    load: CallOptions,

    /// Channels, which the requests go round
    #[arg(long, env = "FOREBAY_LOAD_CHANNELS", value_name = "C", default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    channels: u64,

    /// Bytes of each event's payload
    #[arg(long, env = "FOREBAY_LOAD_PAYLOAD", value_name = "BYTES", default_value = "100")]
    payload: usize,

    /// Events of each request; several are a batch
    #[arg(long, env = "FOREBAY_LOAD_BATCH", value_name = "B", default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    batch: u16,

    /// Events a second, of all connections together; the time of a request counts from when it was due [default: the next
    /// request when the one before is answered]
    #[arg(long, env = "FOREBAY_LOAD_RATE", value_name = "EVENTS/S", value_parser = parse_positive)]
    rate: Option<f64>,
}

/// Where events are published: a path for each channel, and what proves that one may.
#[derive(Clone, Debug)]
pub struct Publishing {
    /// The path; {c} is the number of the channel.
    pub path: String,
    /// Header fields of each request.
    pub headers: Vec<Header>,
}

impl PublishOptions {
    /// What all commands have.
    #[must_use]
    pub fn common(&self) -> &CommonOptions {
        &self.common
    }
}

/// Publishes, and prints a report.
///
/// # Errors
/// If the server cannot be reached, or did not take all events.
pub fn run(options: &PublishOptions, publishing: &Publishing) -> Result<(), LoadError> {
    let mut headers = publishing.headers.clone();
    headers.push(Header::new("Content-Type", "application/json"));
    let path = Template::new(&publishing.path, "{c}");
    let request = Request::post(&options.common.connect, path, &headers);
    let batch = u64::from(options.batch);
    let measured =
        measure(&options.common, &options.load, 1, |window, index, threads| Publisher {
            request: request.clone(),
            body: body(options),
            channels: options.channels,
            next: u64::from(index),
            step: u64::from(threads),
            pace: Pace::new(options.rate.map(|rate| rate / f64::from(threads) / batch as f64)),
            window,
            items: (batch > 1).then(Items::default),
        })?;
    let Measured { stats, sources, mut usage, seconds, is_interrupted, console } = measured;
    let refused: u64 = sources.iter().flat_map(|one| &one.items).map(|items| items.refused).sum();
    let events = (stats.good() * batch).saturating_sub(refused);
    let mut report = Report::default();
    report.add("report", Figure::Text("publish".to_owned()));
    report.count("connections", options.load.connections.into());
    report.count("channels", options.channels);
    report.add("payload_bytes", Figure::Bytes(options.payload as u64));
    report.count("batch", batch);
    report.add("window_s", Figure::Seconds(seconds));
    report.count("events", events);
    report.add("events_per_s", Figure::Number(events as f64 / seconds));
    report.add("requests_per_s", Figure::Number(stats.answers() as f64 / seconds));
    report.times("latency", &stats.latency);
    stats.tell(&mut report);
    report.count("refused_events_of_batches", refused);
    report.add("interrupted", Figure::Flag(is_interrupted));
    report.append(&mut usage);
    conclude(console, &report, &stats, "requests")?;
    if refused > 0 {
        return Err(LoadError::Failed(format!("{refused} events of batches were refused")));
    }
    Ok(())
}

/// One event, or an array of them.
fn body(options: &PublishOptions) -> Vec<u8> {
    let value = "x".repeat(options.payload);
    let event = format!(r#"{{"phase":"PHASE_DELTA","payload":{{"value":"{value}"}}}}"#);
    if options.batch == 1 {
        return event.into_bytes();
    }
    format!("[{}]", vec![event; usize::from(options.batch)].join(",")).into_bytes()
}

/// Publishes the same body to one channel after the other.
#[derive(Debug)]
struct Publisher {
    request: Request,
    body: Vec<u8>,
    channels: u64,
    /// The number of the next request, and how far it is to the one behind it.
    next: u64,
    step: u64,
    pace: Pace,
    window: Arc<Window>,
    /// Of batches.
    items: Option<Items>,
}

impl Source for Publisher {
    fn next(&mut self, now_ns: u64, out: &mut Vec<u8>) -> Next {
        if self.window.is_over(now_ns) {
            return Next::End;
        }
        match self.pace.take(now_ns) {
            Ok(due_ns) => {
                let tag = self.next;
                self.next += self.step;
                self.request.write_with(tag % self.channels, &self.body, out);
                Next::Request { tag, due_ns }
            }
            Err(at_ns) => Next::At(at_ns),
        }
    }

    fn handle_content(&mut self, tag: u64, content: &[u8]) {
        if let Some(items) = &mut self.items {
            items.answers.entry(tag).or_default().extend_from_slice(content);
        }
    }

    fn handle_answer(&mut self, tag: u64, status: Option<u16>) {
        if let Some(items) = &mut self.items {
            let answer = items.answers.remove(&tag).unwrap_or_default();
            if status == Some(200) {
                items.refused += items.count_refused(&answer);
            }
        }
    }
}

/// What became of each event of a batch: the answer is a 200, with a status for each.
#[derive(Debug)]
struct Items {
    /// Answers that have not come whole.
    answers: HashMap<u64, Vec<u8>>,
    finder: Finder<'static>,
    refused: u64,
}

impl Default for Items {
    fn default() -> Self {
        Items { answers: HashMap::new(), finder: Finder::new(r#""status":"#), refused: 0 }
    }
}

impl Items {
    fn count_refused(&self, answer: &[u8]) -> u64 {
        let behind = self.finder.find_iter(answer).map(|place| &answer[place + 9..]);
        behind.filter(|status| !status.starts_with(b"2")).count() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_items_are_counted() {
        let answer = br#"[{"status":200,"id":"1-1"},{"status":429,"error":"x"},{"status":200}]"#;
        assert_eq!(Items::default().count_refused(answer), 1);
    }
}
