//! A measurement of requests: connections on some threads, a warm-up, a window, and what came of it.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::caller::{Caller, Door, Plan, Source, Stats, Window};
use crate::clock;
use crate::console::{Console, Heard, TICK};
use crate::error::LoadError;
use crate::options::{self, CommonOptions, parse_number, parse_positive};
use crate::report::{Report, grouped};
use crate::sources;
use crate::usage::Snapshot;

/// How much is sent, and for how long.
#[derive(Args, Clone, Debug)]
pub(crate) struct CallOptions {
    /// Connections that stay open
    #[arg(long, env = "FOREBAY_LOAD_CONNECTIONS", value_name = "K", default_value = "64")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,

    /// Threads that share them
    #[arg(long, env = "FOREBAY_LOAD_THREADS", value_name = "T", default_value = "1")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) threads: u32,

    /// How long it is measured
    #[arg(
        long,
        env = "FOREBAY_LOAD_SECONDS",
        value_name = "S",
        default_value = "10",
        value_parser = parse_positive
    )]
    pub(crate) seconds: f64,

    /// How long it runs before it is measured
    #[arg(
        long,
        env = "FOREBAY_LOAD_WARMUP",
        value_name = "S",
        default_value = "1",
        value_parser = parse_number
    )]
    pub(crate) warmup: f64,
}

/// What came of it.
pub(crate) struct Measured<S> {
    pub(crate) stats: Stats,
    pub(crate) sources: Vec<S>,
    /// What was used, by servers and generator.
    pub(crate) usage: Report,
    pub(crate) seconds: f64,
    pub(crate) is_interrupted: bool,
    pub(crate) console: Console,
}

/// Runs a source on each thread, and measures all of them in the same window. `source` is told the window, which thread it is
/// for, and how many there are.
///
/// # Errors
/// If the server cannot be reached.
pub(crate) fn measure<S: Source>(
    common: &CommonOptions,
    load: &CallOptions,
    pipeline: usize,
    source: impl Fn(Arc<Window>, u32, u32) -> S,
) -> Result<Measured<S>, LoadError> {
    let mut console = Console::new(common.json, false)?;
    Snapshot::take(&common.pid)?;
    sources::connections_per_table();
    let window = Arc::new(Window::default());
    let threads = load.threads.min(load.connections);
    let mut callers = Vec::new();
    for index in 0..threads {
        let share = load.connections / threads + u32::from(index < load.connections % threads);
        let plan = Plan {
            target: common.connect.clone(),
            connections: share as usize,
            pipeline,
            window: Arc::clone(&window),
        };
        let source = source(Arc::clone(&window), index, threads);
        callers.push(Caller::start(Door::new()?, plan, &format!("load-{index}"), source)?);
    }
    let mut is_interrupted = !wait(&mut console, load.warmup, &callers, "s of warm-up");
    let before = Snapshot::take(&common.pid)?;
    window.begin(clock::now_ns());
    if !is_interrupted {
        is_interrupted = !wait(&mut console, load.seconds, &callers, "s");
    }
    window.end(clock::now_ns());
    let after = Snapshot::take(&common.pid)?;
    console.clear();
    let (mut stats, mut ended) = (Stats::default(), Vec::new());
    for caller in callers {
        let (own, source) = caller.join()?;
        stats.merge(&own);
        ended.push(source);
    }
    let mut usage = Report::default();
    after.tell(&before, ("request", stats.answers()), &mut usage);
    let seconds = after.seconds_since(&before);
    Ok(Measured { stats, sources: ended, usage, seconds, is_interrupted, console })
}

/// Waits for so long, and returns whether nothing came in between.
fn wait<S: Source>(console: &mut Console, seconds: f64, callers: &[Caller<S>], what: &str) -> bool {
    let begin_ns = clock::now_ns();
    let time_ns = clock::seconds(seconds);
    loop {
        let passed_ns = clock::now_ns() - begin_ns;
        if passed_ns >= time_ns {
            return true;
        }
        let answered: u64 = callers.iter().map(Caller::answered).sum();
        let text = format!("{what} · {} answers", grouped(answered));
        console.progress(passed_ns / clock::SECOND_NS, seconds as u64, &text);
        let left = Duration::from_nanos(time_ns - passed_ns);
        let is_over = callers.iter().all(Caller::is_finished);
        if is_over || console.hear(TICK.min(left)) == Some(Heard::Interrupt) {
            return false;
        }
    }
}

/// Prints the report, and says what was wrong.
pub(crate) fn conclude(
    mut console: Console,
    report: &Report,
    stats: &Stats,
    what: &str,
) -> Result<(), LoadError> {
    console.print(report)?;
    let reasons = stats.reasons();
    let total = stats.answers() + stats.failures.values().sum::<u64>();
    match options::failed(&reasons, total, what) {
        Some(error) => Err(error),
        None if total == 0 => Err(LoadError::Failed(format!("no {what} were answered"))),
        None => Ok(()),
    }
}
