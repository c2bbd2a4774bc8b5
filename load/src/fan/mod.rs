//! `forebay load fan`: subscribers on channels, events published to them, and how long it takes until each has each.
//!
//! ```text
//!               Board: window, events that are not everywhere yet
//!                 ▲                          ▲
//!   Publisher (a Source of a caller)   Subscribers (Receivers of holders)
//!        │  POST                             │ event streams, WebSockets
//!        └─────────────▶ server ─────────────┘
//! ```
//!
//! Each payload carries its time and its number (`wire::mark`). Event `e` is the `e / C`-th of channel `e % C`,
//! so a subscriber knows from the number alone what it should have had before, and counts what is lost and what comes twice,
//! exactly.

mod board;
mod body;
mod options;
mod outcome;
mod publisher;
mod seen;
mod subscribers;

pub use self::options::{Channels, FanOptions};

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::board::Board;
use self::outcome::{Measured, Outcome};
use self::publisher::Publisher;
use self::subscribers::Subscribers;
use crate::caller::{self, Caller, Door};
use crate::clock::{self, SECOND_NS};
use crate::console::{Console, Heard, TICK};
use crate::error::LoadError;
use crate::holder::Crew;
use crate::options::failed;
use crate::report::grouped;
use crate::usage::Snapshot;

/// How long the last deliveries are awaited, without any that comes.
const LAST_DELIVERY: Duration = Duration::from_secs(5);

/// Opens the subscribers, publishes to them, and prints a report.
///
/// # Errors
/// If not all subscribers opened and stayed, events were refused, or something was lost or came twice.
pub fn run(options: &FanOptions) -> Result<(), LoadError> {
    let plan = options.holder_plan()?;
    let (target, request) = options.publish_request()?;
    let mut console = Console::new(options.common.json, false)?;
    Snapshot::take(&options.common.pid)?;
    // Before the crew: its threads wake the publisher.
    let door = Door::new()?;
    let board = Arc::new(Board::new(options.channels, Some(Arc::clone(&door.waker))));
    let findings = Arc::default();
    let receiver = || Subscribers::new(Arc::clone(&board), Arc::clone(&findings));
    let crew = Crew::start(&plan, receiver)?;
    let opened = open(&mut console, &crew, options.subscribers);
    if opened.is_err() {
        crew.stop();
        return opened;
    }
    let plan = caller::Plan {
        target,
        connections: if options.one_at_a_time { 1 } else { options.publish_connections as usize },
        pipeline: 1,
        window: Arc::clone(&board.window),
    };
    let (body, payload_bytes) = (options.body.clone(), options.payload as usize);
    let source = Publisher::new(Arc::clone(&board), request, body, payload_bytes, options.pacing());
    console.hear(Duration::from_secs_f64(options.settle));
    let publisher = Caller::start(door, plan, "load-publish", source)?;
    let mut fan = Fan { options, console, board, crew, publisher: &publisher };
    let measured = fan.measure();
    fan.board.window.end(clock::now_ns());
    let measured = measured?;
    fan.await_last();
    let Fan { console, board, crew, .. } = fan;
    let (stats, publisher) = publisher.join()?;
    let lost = crew.collect();
    let counts = crew.counts();
    crew.stop();
    let findings = std::mem::take(&mut *subscribers::lock(&findings));
    let outcome = Outcome { measured, stats, publisher, counts, findings, drops: lost.drops };
    outcome.conclude(options, &board, console)
}

/// Opens the subscribers.
fn open(console: &mut Console, crew: &Crew, subscribers: u64) -> Result<(), LoadError> {
    crew.open(subscribers);
    loop {
        let counts = crew.counts();
        if counts.settled() >= subscribers {
            console.clear();
            let failures = crew.collect().failures;
            return failed(&failures, subscribers, "subscribers").map_or(Ok(()), Err);
        }
        console.progress(counts.settled(), subscribers, "subscribers");
        if console.hear(TICK) == Some(Heard::Interrupt) {
            let text = format!("interrupted with {} of {subscribers} subscribers", counts.open);
            return Err(LoadError::Failed(text));
        }
    }
}

/// What runs.
struct Fan<'a> {
    options: &'a FanOptions,
    console: Console,
    board: Arc<Board>,
    crew: Crew,
    publisher: &'a Caller<Publisher>,
}

impl Fan<'_> {
    fn measure(&mut self) -> Result<Measured, LoadError> {
        let mut is_interrupted = !self.wait(self.options.warmup, "s of warm-up");
        let before = Snapshot::take(&self.options.common.pid)?;
        let bytes_before = self.crew.counts().bytes;
        self.board.window.begin(clock::now_ns());
        if !is_interrupted {
            is_interrupted = !self.wait(self.options.seconds, "s");
        }
        self.board.window.end(clock::now_ns());
        let read_bytes = self.crew.counts().bytes - bytes_before;
        let after = Snapshot::take(&self.options.common.pid)?;
        self.console.clear();
        Ok(Measured { usage: (before, after), read_bytes, is_interrupted })
    }

    /// Waits for so long, and returns whether nothing came in between.
    fn wait(&mut self, seconds: f64, what: &str) -> bool {
        let begin_ns = clock::now_ns();
        let time_ns = clock::seconds(seconds);
        loop {
            let passed_ns = clock::now_ns() - begin_ns;
            if passed_ns >= time_ns {
                return true;
            }
            let counts = self.crew.counts();
            let deliveries = grouped(counts.events);
            let text = format!("{what} · {deliveries} deliveries · {} dropped", counts.dropped);
            self.console.progress(passed_ns / SECOND_NS, seconds as u64, &text);
            let left = Duration::from_nanos(time_ns - passed_ns);
            let is_interrupted = self.console.hear(TICK.min(left)) == Some(Heard::Interrupt);
            if is_interrupted || self.publisher.is_finished() || counts.open == 0 {
                return false;
            }
        }
    }

    /// Waits until all have all that was published, or nothing comes any more.
    fn await_last(&self) {
        let mut seen = (self.crew.counts().events, Instant::now());
        loop {
            let events = self.crew.counts().events;
            if events != seen.0 {
                seen = (events, Instant::now());
            }
            let is_done = self.publisher.is_finished() && self.board.unfinished() == 0;
            if is_done || seen.1.elapsed() > LAST_DELIVERY || self.crew.counts().open == 0 {
                return;
            }
            if self.console.hear(Duration::from_millis(1)) == Some(Heard::Interrupt) {
                return;
            }
        }
    }
}
