//! `forebay load idle`: opens connections, verifies them, holds them, and counts what comes and what is lost.
//!
//! With `--steps` a script leads it from one count to the next and measures in between, from outside: the slope of memory over
//! connections is what a connection costs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use clap::Args;
use clap::builder::BoolishValueParser;

use crate::console::{Console, Heard, TICK};
use crate::error::LoadError;
use crate::holder::{Ask, Collected, Counts, Crew, Plan, Receiver, Say};
use crate::options::{self, CommonOptions, parse_number};
use crate::report::{Figure, Report, grouped};
use crate::sources::Sources;
use crate::usage::Snapshot;
use crate::wire::request::{Header, Request, Template, parse_header, parse_path};
use crate::wire::sse::EventCounter;

/// Between two looks at nothing, while a line is awaited that may never come.
const LINE_PATIENCE: Duration = Duration::from_secs(3600);

/// Holds connections. The help says "n in braces", as clap takes `{n}` for a line break.
#[derive(Args, Clone, Debug)]
pub struct IdleOptions {
    #[command(flatten)]
    common: CommonOptions,

    /// What each connection asks for; n in braces is its number
    #[arg(
        long,
        env = "FOREBAY_LOAD_PATH",
        value_name = "TEMPLATE",
        value_parser = parse_path,
        required_unless_present = "silent"
    )]
    path: Option<String>,

    /// How many connections to hold; several are steps, each larger than the one before
    #[arg(
        long,
        env = "FOREBAY_LOAD_COUNT",
        value_name = "N[,N...]",
        value_delimiter = ',',
        required = true,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    count: Vec<u64>,

    /// Open WebSockets, and verify their accept keys; without it GET requests, whose answer must be a 200
    #[arg(
        long,
        env = "FOREBAY_LOAD_WEBSOCKET",
        value_parser = BoolishValueParser::new(),
        conflicts_with_all = ["silent", "keep_alive"]
    )]
    websocket: bool,

    /// Connect, and send nothing
    #[arg(
        long,
        env = "FOREBAY_LOAD_SILENT",
        value_parser = BoolishValueParser::new(),
        conflicts_with = "keep_alive"
    )]
    silent: bool,

    /// Read the whole answer, and stay idle behind it
    #[arg(long, env = "FOREBAY_LOAD_KEEP_ALIVE", value_parser = BoolishValueParser::new())]
    keep_alive: bool,

    /// A message that each WebSocket sends first; n in braces is its number. It is open when the answer has come
    #[arg(long, env = "FOREBAY_LOAD_MESSAGE", value_name = "TEMPLATE", requires = "websocket")]
    message: Option<String>,

    /// What is in the message that answers the first one
    #[arg(
        long,
        env = "FOREBAY_LOAD_EXPECT",
        value_name = "TEXT",
        requires = "message",
        default_value = ""
    )]
    expect: String,

    /// A header field of each request; repeatable
    #[arg(
        long,
        env = "FOREBAY_LOAD_HEADER",
        value_name = "NAME: VALUE",
        value_delimiter = '\n',
        value_parser = parse_header
    )]
    header: Vec<Header>,

    /// Source addresses, 127.0.0.2 and those behind it [default: one for each 14,000 connections to a server on 127.0.0.0/8;
    /// to others the system's own]
    #[arg(long, env = "FOREBAY_LOAD_SOURCES", value_name = "K")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    sources: Option<u32>,

    /// New connections a second; 0 is as fast as the server takes them, with 256 at a time
    #[arg(
        long,
        env = "FOREBAY_LOAD_RATE",
        value_name = "CONN/S",
        default_value = "5000",
        value_parser = parse_number
    )]
    rate: f64,

    /// Threads, each with descriptors of its own [default: as many as the descriptors demand]
    #[arg(long, env = "FOREBAY_LOAD_THREADS", value_name = "T")]
    threads: Option<usize>,

    /// How long all are held
    #[arg(
        long,
        env = "FOREBAY_LOAD_HOLD",
        value_name = "SECONDS",
        default_value = "10",
        value_parser = parse_number
    )]
    hold: f64,

    /// Print the report of each step as one line, and wait for a line of standard input before the next step. The line
    /// "stats" prints a report and goes on waiting; the end of standard input ends it all
    #[arg(
        long,
        env = "FOREBAY_LOAD_STEPS",
        value_parser = BoolishValueParser::new(),
        conflicts_with = "hold"
    )]
    steps: bool,
}

/// Opens and holds connections, and prints reports.
///
/// # Errors
/// If what was asked for is impossible, or not all connections opened and stayed.
pub fn run(options: &IdleOptions) -> Result<(), LoadError> {
    if !options.count.is_sorted_by(|one, next| one < next) {
        return Err(LoadError::Usage(
            "--count: each step is larger than the one before".to_owned(),
        ));
    }
    let most = options.count.last().copied().unwrap_or_default();
    let target = &options.common.connect;
    let plan = Plan {
        sources: Sources::new(target, options.sources, most)?,
        ask: ask(options),
        rate_per_s: options.rate,
        threads: options::holders(options.threads, most)?,
    };
    let console = Console::new(options.common.json, options.steps)?;
    let is_socket = options.websocket;
    let begin = Snapshot::take(&options.common.pid)?;
    let crew = Crew::start(&plan, || Listener { is_socket, counters: Vec::new() })?;
    let mut holding = Holding {
        pids: &options.common.pid,
        resident_begin: begin.resident_bytes(),
        crew,
        console,
        early: VecDeque::new(),
        before: Mark { snapshot: begin, counts: Counts::default() },
        all: Collected::default(),
        is_interrupted: false,
    };
    if options.steps {
        holding.lead(&options.count)?;
    } else {
        holding.hold(most, Duration::from_secs_f64(options.hold))?;
    }
    holding.finish()
}

fn ask(options: &IdleOptions) -> Ask {
    let target = &options.common.connect;
    let path = Template::new(options.path.as_deref().unwrap_or("/"), "{n}");
    if options.silent {
        return Ask::Nothing;
    }
    if options.websocket {
        let say = options.message.as_ref().map(|message| Say {
            message: Template::new(message, "{n}"),
            expected: options.expect.clone().into_bytes(),
        });
        return Ask::Socket { request: Request::upgrade(target, path, &options.header), say };
    }
    let request = Request::get(target, path, &options.header);
    if options.keep_alive { Ask::Answer(request) } else { Ask::Stream(request) }
}

/// Counts what comes: events of an event stream, or messages of a WebSocket.
#[derive(Debug)]
struct Listener {
    is_socket: bool,
    /// By slot; none for WebSockets, whose frames say where a message ends.
    counters: Vec<EventCounter>,
}

impl Receiver for Listener {
    fn handle_open(&mut self, slot: usize, _number: u64) {
        if !self.is_socket && self.counters.len() <= slot {
            self.counters.resize(slot + 1, EventCounter::default());
        }
    }

    fn handle_content(&mut self, slot: usize, content: &[u8], _now_ns: u64) -> u64 {
        self.counters.get_mut(slot).map_or(0, |counter| counter.count(content))
    }

    fn handle_message_end(&mut self, _slot: usize) -> u64 {
        1
    }

    fn handle_close(&mut self, _slot: usize) {}
}

/// Where the last report was.
#[derive(Debug)]
struct Mark {
    snapshot: Snapshot,
    counts: Counts,
}

/// What became of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

struct Holding<'a> {
    pids: &'a [u32],
    /// Resident memory of the servers before the first connection.
    resident_begin: u64,
    crew: Crew,
    console: Console,
    /// What standard input said before its time.
    early: VecDeque<Heard>,
    before: Mark,
    /// What was collected so far.
    all: Collected,
    is_interrupted: bool,
}

impl Holding<'_> {
    /// Goes from step to step as standard input says.
    fn lead(&mut self, counts: &[u64]) -> Result<(), LoadError> {
        for count in counts {
            let next = self.open(*count);
            let report = self.report("step", *count)?;
            self.console.print_line(&report)?;
            if next == Next::End || self.await_line(*count)? == Next::End {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Waits for the line that says to go on.
    fn await_line(&mut self, count: u64) -> Result<Next, LoadError> {
        loop {
            let early = self.early.pop_front();
            match early.or_else(|| self.console.hear(LINE_PATIENCE)) {
                None => {}
                Some(Heard::Line(line)) if line.trim() == "stats" => {
                    let report = self.report("stats", count)?;
                    self.console.print_line(&report)?;
                }
                Some(Heard::Line(_)) => return Ok(Next::GoOn),
                Some(Heard::EndOfInput | Heard::Interrupt) => return Ok(Next::End),
            }
        }
    }

    /// Opens them all, holds them for so long, and reports both.
    fn hold(&mut self, count: u64, time: Duration) -> Result<(), LoadError> {
        let next = self.open(count);
        let mut report = self.report("idle", count)?;
        let open = self.crew.counts().open;
        if next == Next::GoOn && open > 0 && !time.is_zero() {
            self.wait(time);
            self.tell_hold(&mut report)?;
        }
        report.add("interrupted", Figure::Flag(self.is_interrupted));
        self.console.print(&report)
    }

    /// Has connections opened until there are so many, those that failed included.
    fn open(&mut self, count: u64) -> Next {
        let begin = Instant::now();
        let before = self.crew.counts().settled();
        self.crew.open(count);
        loop {
            let counts = self.crew.counts();
            if counts.settled() >= count {
                self.console.clear();
                return Next::GoOn;
            }
            let rate = (counts.settled() - before) as f64 / begin.elapsed().as_secs_f64().max(1e-3);
            let left_s = (count - counts.settled()) as f64 / rate.max(1.0);
            let lost = counts.failed + counts.dropped;
            let what = format!(
                "connections · {} a second · {left_s:.0} s to go · {lost} lost",
                grouped(rate as u64)
            );
            self.console.progress(counts.settled(), count, &what);
            match self.console.hear(TICK) {
                Some(Heard::Interrupt) => {
                    self.is_interrupted = true;
                    return Next::End;
                }
                // What is said before a step is done, is done behind it.
                Some(early @ (Heard::Line(_) | Heard::EndOfInput)) => self.early.push_back(early),
                None => {}
            }
        }
    }

    fn wait(&mut self, time: Duration) {
        let begin = Instant::now();
        while begin.elapsed() < time {
            let counts = self.crew.counts();
            if counts.open == 0 {
                break;
            }
            let (done, total) = (begin.elapsed().as_secs(), time.as_secs());
            let (open, events) = (grouped(counts.open), grouped(counts.events));
            let what = format!("s · {open} open · {} dropped · {events} events", counts.dropped);
            self.console.progress(done, total, &what);
            if self.console.hear(TICK.min(time)) == Some(Heard::Interrupt) {
                self.is_interrupted = true;
                break;
            }
        }
        self.console.clear();
    }

    /// What happened since the last report.
    fn report(&mut self, kind: &str, count: u64) -> Result<Report, LoadError> {
        let snapshot = Snapshot::take(self.pids)?;
        let collected = self.crew.collect();
        let counts = self.crew.counts();
        let Mark { snapshot: before, counts: earlier } = &self.before;
        let opened = counts.opened - earlier.opened;
        let seconds = snapshot.seconds_since(before);
        let mut report = Report::default();
        report.add("report", Figure::Text(kind.to_owned()));
        report.count("count", count);
        report.count("open", counts.open);
        report.count("opened", opened);
        report.count("failed", counts.failed);
        report.count("dropped", counts.dropped);
        report.add("window_s", Figure::Seconds(seconds));
        if opened > 0 {
            report.add("opens_per_s", Figure::Number(opened as f64 / seconds));
            report.times("open_latency", &collected.open_time);
        }
        report.add("read_bytes", Figure::Bytes(counts.bytes - earlier.bytes));
        report.count("events", counts.events - earlier.events);
        snapshot.tell(before, ("connection", opened), &mut report);
        self.tell_memory(&snapshot, counts, &mut report);
        self.before = Mark { snapshot, counts };
        self.keep(collected);
        Ok(report)
    }

    /// What a connection takes: of the servers since the begin, of us altogether.
    fn tell_memory(&self, snapshot: &Snapshot, counts: Counts, report: &mut Report) {
        if counts.open == 0 {
            return;
        }
        let each = |bytes: u64| Figure::Number(bytes as f64 / counts.open as f64);
        if !self.pids.is_empty() {
            let grown = snapshot.resident_bytes().saturating_sub(self.resident_begin);
            report.add("server_rss_bytes_per_connection", each(grown));
        }
        let own = Snapshot::take(&[std::process::id()]);
        let own = own.map_or(0, |own| own.resident_bytes());
        report.add("generator_rss_bytes", Figure::Bytes(own));
        report.add("generator_rss_bytes_per_connection", each(own));
    }

    /// Adds what happened while all were held.
    fn tell_hold(&mut self, report: &mut Report) -> Result<(), LoadError> {
        let snapshot = Snapshot::take(self.pids)?;
        let counts = self.crew.counts();
        let Mark { snapshot: before, counts: earlier } = &self.before;
        let mut hold = Report::default();
        hold.add("s", Figure::Seconds(snapshot.seconds_since(before)));
        hold.count("open", counts.open);
        hold.count("dropped", counts.dropped - earlier.dropped);
        hold.add("read_bytes", Figure::Bytes(counts.bytes - earlier.bytes));
        let events = counts.events - earlier.events;
        hold.count("events", events);
        snapshot.tell(before, ("event", events), &mut hold);
        report.extend_as("hold", hold);
        Ok(())
    }

    fn keep(&mut self, collected: Collected) {
        for (reason, count) in collected.failures {
            *self.all.failures.entry(reason).or_default() += count;
        }
        for (reason, count) in collected.drops {
            *self.all.drops.entry(reason).or_default() += count;
        }
    }

    /// Ends the crew, and says what was wrong.
    fn finish(mut self) -> Result<(), LoadError> {
        let collected = self.crew.collect();
        self.keep(collected);
        let counts = self.crew.counts();
        self.crew.stop();
        let failures = options::failed(&self.all.failures, counts.settled(), "connections");
        let drops = options::failed(&self.all.drops, counts.opened, "open connections");
        match (failures, drops) {
            (None, None) => Ok(()),
            (Some(error), None) | (None, Some(error)) => Err(error),
            (Some(one), Some(other)) => Err(LoadError::Failed(format!("{one}; {other}"))),
        }
    }
}
