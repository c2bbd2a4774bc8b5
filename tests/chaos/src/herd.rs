//! The herd: the edge is killed under ten thousand clients, and all come back at once.
//!
//! A hundred clients read each of a hundred channels, in which there is an event a second. The edge gets
//! SIGKILL and is started again at once. Every client comes back within two seconds, as an `EventSource`
//! does: with the id that it got last, and again after a moment if nobody listens yet. Then both handlers
//! get SIGKILL and are started again, which no client may notice. What must hold:
//!
//! * Each client goes on without a hole or a repeat, over both; and nobody loses its connection but by
//!   the edge's own death.
//! * Redis sees few reads for each channel, and not some for each client ([`report`] says how they are
//!   counted, and what few are).
//!
//! How long it takes until the last is connected, and until each has an event again that was sent after
//! the restart, is reported, not judged.

mod report;

pub use report::HerdReport;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use forebay_handlers::auth::Role;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};

use crate::slow_and_herd::Clock;
use crate::slow_and_herd::client::{Buffers, Progress, Reads, StreamError};
use crate::slow_and_herd::publisher::{Published, Publisher, sent_us_of};
use crate::slow_and_herd::replay::{Readings, judge};
use crate::slow_and_herd::system::{Settings, System, calls_between};
use crate::slow_and_herd::transcript::{Blocks, Transcript, What};
use crate::{ChaosError, PATIENCE};
use report::{Phase, Phases};

/// The edge is killed with ten thousand clients on a hundred channels, and all come back at once.
#[derive(Clone, Debug, Args)]
pub struct Herd {
    /// The binary of forebay
    #[arg(long, env = "FOREBAY_BIN", default_value = "target/release/forebay")]
    pub forebay: PathBuf,
    /// Clients
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=18_000))]
    pub clients: u32,
    /// Channels; each has its share of the clients
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub channels: u32,
    /// Milliseconds between two events of a channel
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub interval_ms: u64,
    /// Milliseconds over which the clients come back, spread evenly
    #[arg(long, value_name = "N", default_value_t = 1500, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub spread_ms: u64,
}

/// Bytes of text of an event.
const TEXT_BYTES: usize = 100;

/// Bytes that a client reads at once.
const READ_BYTES: usize = 4 * 1024;

/// Events of a channel that are kept: more than a run has.
const HISTORY: usize = 100_000;

/// How long a client waits that was refused.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// How many clients a second connect when the run begins.
const FIRST_PER_SECOND: u32 = 2000;

/// How long the system is left alone, to see what it does then.
const QUIET: Duration = Duration::from_secs(3);

/// What clients tell.
#[derive(Clone, Copy, Debug)]
enum Notice {
    /// It has its stream.
    Connected { at_us: u64 },
    /// It has an event that was sent since the last disturbance.
    Live { since_us: u64, at_us: u64 },
}

/// Runs it, in processes of its own.
///
/// # Errors
///
/// If the system cannot be started. Whatever is wrong with a system that runs is in the report.
pub async fn run_herd(options: &Herd) -> Result<HerdReport, ChaosError> {
    let mut run = Run::begin(options).await?;
    let first = run.since().await?;
    let first = run.until_live(first, true).await?;
    let quiet = run.since().await?;
    sleep(QUIET).await;
    let quiet = run.until_live(quiet, false).await?;
    let edge = run.since().await?;
    run.system.kill_edge().await?;
    let edge = run.until_live(edge, true).await?;
    let handlers = run.since().await?;
    run.system.kill_handlers().await?;
    let handlers = run.until_live(handlers, false).await?;
    run.finish(Phases { first, quiet, edge, handlers }).await
}

/// A run, as far as it is.
struct Run<'a> {
    options: &'a Herd,
    clock: Clock,
    system: System,
    notices: mpsc::UnboundedReceiver<Notice>,
    /// When the last disturbance was.
    since_us: watch::Sender<u64>,
    stop: watch::Sender<bool>,
    over: watch::Sender<bool>,
    clients: JoinSet<(u32, Transcript)>,
    publishers: JoinSet<(u32, Published)>,
}

impl<'a> Run<'a> {
    /// Starts the system, its publishers and its clients.
    async fn begin(options: &'a Herd) -> Result<Self, ChaosError> {
        let settings = Settings {
            forebay: &options.forebay,
            // The kernel does not spread connections evenly over the workers.
            edge: vec![format!("--stream-maxconn={}", 2 * options.clients + 200)],
            handlers: vec!["--channel-rate=0".to_owned(), format!("--history-max={HISTORY}")],
        };
        let system = System::start(&settings).await?;
        let (notify, notices) = mpsc::unbounded_channel();
        let mut run = Run {
            options,
            clock: Clock::start(),
            system,
            notices,
            since_us: watch::Sender::new(0),
            stop: watch::Sender::new(false),
            over: watch::Sender::new(false),
            clients: JoinSet::new(),
            publishers: JoinSet::new(),
        };
        run.publish()?;
        run.connect(&notify)?;
        Ok(run)
    }

    fn publish(&mut self) -> Result<(), ChaosError> {
        let token: Arc<str> = self.system.token(Role::Publisher)?.into();
        let interval = Duration::from_millis(self.options.interval_ms);
        for number in 0..self.options.channels {
            let publisher = Publisher {
                clock: self.clock,
                address: self.system.address,
                token: Arc::clone(&token),
                channel: channel_name(number),
                offset: interval * number / self.options.channels,
                interval,
                text_bytes: TEXT_BYTES,
                stop: self.stop.subscribe(),
                head: watch::Sender::new(None),
            };
            self.publishers.spawn(async move { (number, publisher.run().await) });
        }
        Ok(())
    }

    fn connect(&mut self, notify: &mpsc::UnboundedSender<Notice>) -> Result<(), ChaosError> {
        let token: Arc<str> = self.system.token(Role::Subscriber)?.into();
        let Herd { clients, channels, spread_ms, .. } = *self.options;
        let blocks = Arc::new(Blocks::default());
        for number in 0..clients {
            let client = Client {
                number,
                reads: Reads {
                    clock: self.clock,
                    address: self.system.address,
                    token: Arc::clone(&token),
                    channel: channel_name(number % channels).into(),
                },
                first: Duration::from_secs(1) * number / FIRST_PER_SECOND,
                again: Duration::from_millis(spread_ms) * number / clients,
                since_us: self.since_us.subscribe(),
                told_us: None,
                notify: notify.clone(),
            };
            let (mut over, blocks) = (self.over.subscribe(), Arc::clone(&blocks));
            self.clients.spawn(async move {
                let mut transcript = Transcript::new(blocks);
                tokio::select! {
                    () = client.run(&mut transcript) => {}
                    _ = over.wait_for(|over| *over) => {}
                }
                (number, transcript)
            });
        }
        Ok(())
    }

    /// A phase begins: what there was until now.
    async fn since(&mut self) -> Result<Phase, ChaosError> {
        self.system.forget_peaks();
        let mut phase = Phase {
            edge: self.system.edge_load(),
            handlers: self.system.handlers_load(),
            calls: self.system.redis_calls().await?,
            ..Phase::default()
        };
        phase.since_us = self.clock.now_us();
        self.since_us.send_replace(phase.since_us);
        Ok(phase)
    }

    /// Waits until all clients are live again, after they have connected if they must; and what it took.
    async fn until_live(&mut self, mut phase: Phase, connects: bool) -> Result<Phase, ChaosError> {
        let deadline = Instant::now() + PATIENCE;
        let all = self.options.clients;
        let wanted = if connects { all } else { 0 };
        while phase.live < all || phase.connected < wanted {
            let Ok(Some(notice)) = timeout_at(deadline, self.notices.recv()).await else { break };
            match notice {
                Notice::Connected { at_us } => {
                    phase.connected += 1;
                    phase.connected_us = at_us.saturating_sub(phase.since_us);
                }
                Notice::Live { since_us, at_us } if since_us == phase.since_us => {
                    phase.live += 1;
                    phase.live_us = at_us.saturating_sub(phase.since_us);
                }
                // Late for the phase before.
                Notice::Live { .. } => {}
            }
        }
        phase.took_us = self.clock.now_us() - phase.since_us;
        phase.calls = calls_between(&phase.calls, &self.system.redis_calls().await?);
        let is_new = |cpu: Duration, before: Duration| cpu.checked_sub(before).unwrap_or(cpu);
        let (edge, handlers) = (self.system.edge_load(), self.system.handlers_load());
        phase.edge_cpu = is_new(edge.cpu, phase.edge.cpu);
        phase.handlers_cpu = is_new(handlers.cpu, phase.handlers.cpu);
        (phase.edge, phase.handlers) = (edge, handlers);
        Ok(phase)
    }

    /// Ends all channels, waits for all clients, and judges.
    async fn finish(mut self, phases: Phases) -> Result<HerdReport, ChaosError> {
        self.stop.send_replace(true);
        let mut published = Vec::new();
        while let Some(one) = self.publishers.join_next().await {
            published.push(one.expect("a publisher does not panic"));
        }
        published.sort_by_key(|(number, _)| *number);
        let mut published: Vec<_> = published.into_iter().map(|(_, one)| one).collect();
        let over = self.over.clone();
        let patience = tokio::spawn(async move {
            sleep(PATIENCE).await;
            over.send_replace(true);
        });
        let mut readings = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            readings.push(client.expect("a client does not panic"));
        }
        patience.abort();
        readings.sort_by_key(|(number, _)| *number);
        let channels = self.options.channels;
        let channel_of = |number| usize::try_from(number % channels).unwrap_or(0);
        let readings: Readings =
            readings.into_iter().map(|(number, one)| (channel_of(number), one)).collect();
        let task = tokio::task::spawn_blocking(move || {
            let judgement = judge(&mut published, HISTORY, &readings);
            let events = published.iter().map(|one| one.events.len() as u64).sum();
            let retries = published.iter().map(|one| one.retries).sum();
            (judgement, events, retries)
        });
        let judged = task.await.expect("the judge does not panic");
        let wrong = self.system.stop().await?;
        let mut report = HerdReport::new(self.options, phases, judged);
        report.judge(wrong);
        if !report.is_clean() {
            report.files = Some(self.system.keep_files());
        }
        Ok(report)
    }
}

fn channel_name(number: u32) -> String {
    format!("room-{number}")
}

/// One client.
struct Client {
    number: u32,
    reads: Reads,
    /// It waits that long before it connects first, and after it has lost its connection.
    first: Duration,
    again: Duration,
    since_us: watch::Receiver<u64>,
    /// The disturbance after which it has told that it is live again.
    told_us: Option<u64>,
    notify: mpsc::UnboundedSender<Notice>,
}

impl Client {
    /// Reads until the END, with as many connections as that takes.
    async fn run(mut self, transcript: &mut Transcript) {
        sleep(self.first).await;
        loop {
            let len_before = transcript.entries.len();
            let Err(error) = self.read(transcript).await else { return };
            // One entry says that a request was sent; the next ones are what came.
            let had_stream = transcript.entries.len() > len_before + 1;
            match error {
                StreamError::Lost(_) if had_stream => {
                    transcript.add_error(self.reads.clock.now_us(), &error);
                    sleep(self.again).await;
                }
                // Refused, or lost before there was an answer: that was no connection yet.
                StreamError::Lost(_) => {
                    transcript.entries.truncate(len_before);
                    sleep(RETRY_DELAY).await;
                }
                StreamError::Wrong(_) => {
                    return transcript.add_error(self.reads.clock.now_us(), &error);
                }
            }
        }
    }

    /// Reads one connection to the END.
    async fn read(&mut self, transcript: &mut Transcript) -> Result<(), StreamError> {
        let after = transcript.last_id();
        let number = usize::try_from(self.number).unwrap_or(0);
        let at_us = self.reads.clock.now_us();
        let mut stream = self.reads.connect(number, Buffers::Usual, after.as_deref()).await?;
        transcript.add(at_us, What::Began(after.map(Into::into)));
        let mut is_connected = false;
        loop {
            match self.reads.read(&mut stream, READ_BYTES, transcript).await? {
                Progress::Ended => return Ok(()),
                Progress::Blocks(0) => {}
                Progress::Blocks(count) => {
                    if !is_connected {
                        is_connected = true;
                        let at_us = self.reads.clock.now_us();
                        let _ = self.notify.send(Notice::Connected { at_us });
                    }
                    self.tell_if_live(transcript, count);
                }
            }
        }
    }

    /// Tells of the first event that was sent since the last disturbance.
    fn tell_if_live(&mut self, transcript: &Transcript, count: usize) {
        let since_us = *self.since_us.borrow();
        if self.told_us == Some(since_us) {
            return;
        }
        for entry in transcript.entries.iter().rev().take(count) {
            let What::Block(number) = entry.what else { continue };
            let sent_us = sent_us_of(&transcript.blocks.bytes(number));
            if sent_us.is_some_and(|sent_us| sent_us >= since_us) {
                self.told_us = Some(since_us);
                let _ = self.notify.send(Notice::Live { since_us, at_us: entry.at_us });
                return;
            }
        }
    }
}
