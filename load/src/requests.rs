//! `forebay load requests`: how fast requests are answered, and how long each takes.

use std::sync::Arc;

use clap::Args;

use crate::caller::{Next, Pace, Source, Window};
use crate::error::LoadError;
use crate::measure::{CallOptions, Measured, conclude, measure};
use crate::options::{CommonOptions, parse_positive};
use crate::report::{Figure, Report};
use crate::wire::request::{Header, Request, Template, parse_header, parse_path};

/// Sends requests and times the answers.
#[derive(Args, Clone, Debug)]
pub struct RequestsOptions {
    #[command(flatten)]
    common: CommonOptions,

    /// What is asked for
    #[arg(
        long,
        env = "FOREBAY_LOAD_PATH",
        value_name = "PATH",
        default_value = "/",
        value_parser = parse_path
    )]
    path: String,

    /// A header field of each request; repeatable
    #[arg(
        long,
        env = "FOREBAY_LOAD_HEADER",
        value_name = "NAME: VALUE",
        value_delimiter = '\n',
        value_parser = parse_header
    )]
    header: Vec<Header>,

    #[command(flatten)]
    load: CallOptions,

    /// Requests that a connection has without an answer
    #[arg(long, env = "FOREBAY_LOAD_PIPELINE", value_name = "N", default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..))]
    pipeline: u16,

    /// Requests a second, of all connections together; the time of each counts from when it was due [default: the next one
    /// when the one before is answered]
    #[arg(long, env = "FOREBAY_LOAD_RATE", value_name = "R", value_parser = parse_positive)]
    rate: Option<f64>,
}

/// Sends requests, and prints a report.
///
/// # Errors
/// If the server cannot be reached, or not all requests were answered well.
pub fn run(options: &RequestsOptions) -> Result<(), LoadError> {
    let CommonOptions { connect, .. } = &options.common;
    let mut request = Vec::new();
    let path = Template::new(&options.path, "{n}");
    Request::get(connect, path, &options.header).write(0, &mut request);
    let pipeline = usize::from(options.pipeline);
    let measured = measure(&options.common, &options.load, pipeline, |window, _, threads| {
        let pace = Pace::new(options.rate.map(|rate| rate / f64::from(threads)));
        Repeating { request: request.clone(), pace, window }
    })?;
    let Measured { stats, mut usage, seconds, is_interrupted, console, .. } = measured;
    let mut all = Report::default();
    all.add("report", Figure::Text("requests".to_owned()));
    all.count("connections", options.load.connections.into());
    all.add("window_s", Figure::Seconds(seconds));
    all.count("requests", stats.answers());
    all.add("requests_per_s", Figure::Number(stats.answers() as f64 / seconds));
    all.add("read_bytes_per_s", Figure::Number(stats.read_bytes as f64 / seconds));
    all.times("latency", &stats.latency);
    stats.tell(&mut all);
    all.add("interrupted", Figure::Flag(is_interrupted));
    all.append(&mut usage);
    conclude(console, &all, &stats, "requests")
}

/// The same request again and again.
#[derive(Debug)]
struct Repeating {
    request: Vec<u8>,
    pace: Pace,
    window: Arc<Window>,
}

impl Source for Repeating {
    fn next(&mut self, now_ns: u64, out: &mut Vec<u8>) -> Next {
        if self.window.is_over(now_ns) {
            return Next::End;
        }
        match self.pace.take(now_ns) {
            Ok(due_ns) => {
                out.extend_from_slice(&self.request);
                Next::Request { tag: 0, due_ns }
            }
            Err(at_ns) => Next::At(at_ns),
        }
    }
}
