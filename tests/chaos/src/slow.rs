//! Slow readers: a thousand clients that do not keep up, and what that costs everybody else.
//!
//! On a busy channel there are a hundred quick clients, and a hundred more are on another one. Then come
//! the slow ones. They read a byte a second for a while, then nothing at all, then everything that is to
//! be had. Their sockets have small buffers, so that what they do not read waits in the edge. What must
//! hold:
//!
//! * The edge's memory stays within its bound ([`report`]): a slow client costs what
//!   `--client-backlog-max` says and the delivery that passed it, however long it sleeps.
//! * The quick ones get their events as before: a first phase without slow clients is compared with the
//!   one in which these hurt.
//! * Each slow client gets everything that is still kept, in order, or is told the gap; then the END.
//!   Nobody is disconnected. It is done twice: with a history that holds all, where no gap may be told;
//!   and with one that is much shorter than the time in which nobody reads, where gaps must be.

mod report;

pub use report::SlowReport;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use forebay_handlers::auth::Role;
use forebay_judge::Id;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::slow_and_herd::Clock;
use crate::slow_and_herd::client::{Buffers, Progress, Reads, Stream, StreamError};
use crate::slow_and_herd::publisher::{Published, Publisher};
use crate::slow_and_herd::replay::{Readings, judge};
use crate::slow_and_herd::system::{Settings, System};
use crate::slow_and_herd::transcript::{Blocks, Transcript, What};
use crate::{ChaosError, PATIENCE};
use report::{Measured, Run};

/// A thousand clients that read a byte a second on a busy channel, then nothing, then all. Done twice: with a
/// history that keeps everything, and with a short one, of which gaps must be told.
#[derive(Clone, Debug, Args)]
pub struct SlowReaders {
    /// The binary of forebay
    #[arg(long, env = "FOREBAY_BIN", default_value = "target/release/forebay")]
    pub forebay: PathBuf,
    /// Slow clients
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub slow: usize,
    /// Quick clients on the busy channel, and as many on another one
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub quick: usize,
    /// Events a second on the busy channel, 1 KiB each
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rate: u32,
    /// Seconds of each phase: without slow clients; while they read a byte a second; while they read nothing;
    /// while they read all
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Events that must have been published while they were slow, however long that takes, before they read on
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub behind: usize,
    /// Events that the short history keeps
    #[arg(long, value_name = "N", default_value_t = 200)]
    pub short_history: usize,
    /// Unsent bytes at which the edge lets a client fall behind
    #[arg(long, value_name = "BYTES", default_value_t = 65_536)]
    pub client_backlog_max: u64,
    /// Fail if the quick clients' times become much longer: their p99 more than 3 times and 20 ms
    #[arg(long)]
    pub judge_latency: bool,
}

/// Bytes of text of an event.
const TEXT_BYTES: usize = 1024;

/// Events of the history that holds all: more than any run has.
const LONG_HISTORY: usize = 10_000_000;

/// The busy channel, and the other one, among the channels of a run.
const BUSY: usize = 0;
const OTHER: usize = 1;
const CHANNELS: [&str; 2] = ["busy", "other"];

/// The other channel has one event when the busy one has as many.
const BUSY_PER_OTHER: u32 = 5;

/// How long it may take until all have read all.
const CATCH_UP_TIMEOUT: Duration = Duration::from_secs(300);

/// The time between two bytes.
const BYTE_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes that a client reads at once while its answer begins, and when it reads all it can.
const BEGINNING_BYTES: usize = 64;
const READ_BYTES: usize = 64 * 1024;

/// Connections that are made at once: fewer than wait in the kernel's backlog.
const CONNECTING_MAX: usize = 100;

/// How clients read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    ByteBySecond,
    Nothing,
    All,
    /// Patience is over.
    Over,
}

/// Runs it with both histories, in processes of its own.
///
/// # Errors
///
/// If the system cannot be started. Whatever is wrong with a system that runs is in the report.
pub async fn run_slow_readers(options: &SlowReaders) -> Result<SlowReport, ChaosError> {
    let mut runs = Vec::new();
    for (name, history_max) in
        [("all is kept", LONG_HISTORY), ("short history", options.short_history)]
    {
        eprintln!("slow readers, {name}: about {} s …", 4 * options.seconds);
        runs.push(Attempt::begin(options, history_max).await?.run(name).await?);
    }
    Ok(SlowReport { options: options.clone(), runs })
}

/// One run, as far as it is.
struct Attempt<'a> {
    options: &'a SlowReaders,
    history_max: usize,
    system: System,
    clock: Clock,
    reads: [Reads; 2],
    set_pace: watch::Sender<Pace>,
    head: watch::Sender<Option<Id>>,
    clients: JoinSet<(usize, usize, Transcript)>,
    /// Runs the slow clients, apart from those whose times are taken: when they read all they can, they
    /// would keep these waiting in here, and it would look like the edge's doing.
    slow_runtime: Apart,
    publishers: JoinSet<(usize, Published)>,
    stop: watch::Sender<bool>,
}

impl<'a> Attempt<'a> {
    async fn begin(options: &'a SlowReaders, history_max: usize) -> Result<Self, ChaosError> {
        let connections = options.slow + 2 * options.quick;
        let args = |pairs: &[(&str, u64)]| -> Vec<String> {
            pairs.iter().map(|(name, value)| format!("--{name}={value}")).collect()
        };
        let settings = Settings {
            forebay: &options.forebay,
            // The kernel does not spread connections evenly over the workers.
            edge: args(&[
                ("client-backlog-max", options.client_backlog_max),
                ("stream-maxconn", 2 * connections as u64 + 100),
            ]),
            handlers: args(&[("channel-rate", 0), ("history-max", history_max as u64)]),
        };
        let system = System::start(&settings).await?;
        let clock = Clock::start();
        let slow_runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let slow_runtime = Apart(Some(slow_runtime.map_err(ChaosError::Setup)?));
        let token: Arc<str> = system.token(Role::Subscriber)?.into();
        let reads = CHANNELS.map(|channel| Reads {
            clock,
            address: system.address,
            token: Arc::clone(&token),
            channel: channel.into(),
        });
        let mut attempt = Attempt {
            options,
            history_max,
            system,
            clock,
            reads,
            set_pace: watch::Sender::new(Pace::ByteBySecond),
            head: watch::Sender::new(None),
            clients: JoinSet::new(),
            slow_runtime,
            publishers: JoinSet::new(),
            stop: watch::Sender::new(false),
        };
        attempt.publish()?;
        Ok(attempt)
    }

    fn publish(&mut self) -> Result<(), ChaosError> {
        let token: Arc<str> = self.system.token(Role::Publisher)?.into();
        let interval = Duration::from_secs(1) / self.options.rate;
        let others = watch::Sender::new(None);
        let kinds = [(interval, self.head.clone()), (interval * BUSY_PER_OTHER, others)];
        for (channel, (interval, head)) in kinds.into_iter().enumerate() {
            let publisher = Publisher {
                clock: self.clock,
                address: self.system.address,
                token: Arc::clone(&token),
                channel: CHANNELS[channel].to_owned(),
                offset: Duration::ZERO,
                interval,
                text_bytes: TEXT_BYTES,
                stop: self.stop.subscribe(),
                head,
            };
            self.publishers.spawn(async move { (channel, publisher.run().await) });
        }
        Ok(())
    }

    async fn run(mut self, name: &'static str) -> Result<Run, ChaosError> {
        let phase = Duration::from_secs(self.options.seconds);
        for channel in [BUSY, OTHER] {
            self.connect(channel, self.options.quick, Buffers::Usual).await?;
        }
        let mut measured = Measured { alone_us: self.clock.now_us(), ..Measured::default() };
        sleep(phase).await;
        measured.alone_end_us = self.clock.now_us();
        measured.before = self.system.edge_load();
        measured.kernel_before = socket_bytes();
        self.system.forget_peaks();
        self.connect(BUSY, self.options.slow, Buffers::Small).await?;
        let slow_since = *self.head.borrow();
        measured.slow_us = self.clock.now_us();
        sleep(phase).await;
        self.set_pace.send_replace(Pace::Nothing);
        sleep(phase).await;
        self.wait_for_events(slow_since).await?;
        measured.slow = self.system.edge_load();
        measured.kernel_slow = socket_bytes();
        self.system.forget_peaks();
        measured.read_on_us = self.clock.now_us();
        self.set_pace.send_replace(Pace::All);
        // Events go on: they are to catch up with a live channel.
        sleep(phase).await;
        self.stop.send_replace(true);
        let (mut published, readings) = self.finish().await;
        measured.end_us = self.clock.now_us();
        measured.read_on = self.system.edge_load();

        let history_max = self.history_max;
        let task = tokio::task::spawn_blocking(move || {
            let judgement = judge(&mut published, history_max, &readings);
            (judgement, published, readings)
        });
        let (judgement, published, readings) = task.await.expect("the judge does not panic");
        let wrong = self.system.stop().await?;
        let mut run = Run::new(name, self.options, (measured, judgement));
        run.look_at(&published, &readings);
        run.judge(self.options, self.history_max < LONG_HISTORY);
        run.blame(wrong);
        if !run.is_clean() {
            run.files = Some(self.system.keep_files());
        }
        Ok(run)
    }

    /// Waits until so much was published since then that the slow clients are behind, on any machine.
    async fn wait_for_events(&self, since: Option<Id>) -> Result<(), ChaosError> {
        let offset = |id: &Option<Id>| id.map_or(0, |id| id.offset);
        let wanted = offset(&since) + self.options.behind as u64;
        let mut head = self.head.subscribe();
        let waited = timeout(PATIENCE, head.wait_for(|head| offset(head) >= wanted)).await;
        match waited {
            Ok(_) => Ok(()),
            Err(_) => Err(ChaosError::NotReady("too few events are published".to_owned())),
        }
    }

    /// Connects so many clients more, and waits until each has its stream.
    async fn connect(
        &mut self,
        channel: usize,
        count: usize,
        buffers: Buffers,
    ) -> Result<(), ChaosError> {
        let (ready, mut is_ready) = mpsc::unbounded_channel();
        let mut head = self.head.subscribe();
        // Slow ones begin at the head: what was before is not their matter.
        let after = match buffers {
            Buffers::Usual => None,
            Buffers::Small => {
                let head = head.wait_for(Option::is_some);
                let known = timeout(PATIENCE, head).await.ok().and_then(Result::ok);
                known.and_then(|head| *head).map(|id| id.to_string())
            }
        };
        let blocks = Arc::new(Blocks::default());
        let mut waiting = 0;
        for _ in 0..count {
            let number = self.clients.len();
            let client = Client {
                number,
                reads: self.reads[channel].clone(),
                buffers,
                after: after.clone(),
                pace: self.set_pace.subscribe(),
                ready: ready.clone(),
            };
            let transcript = Transcript::new(Arc::clone(&blocks));
            let client = async move { (number, channel, client.run(transcript).await) };
            match buffers {
                Buffers::Usual => self.clients.spawn(client),
                Buffers::Small => self.slow_runtime.spawn(client, &mut self.clients),
            };
            waiting += 1;
            if waiting >= CONNECTING_MAX {
                is_ready.recv().await;
                waiting -= 1;
            }
        }
        let rest = async {
            for _ in 0..waiting {
                is_ready.recv().await;
            }
        };
        let got = timeout(PATIENCE, rest).await;
        got.map_err(|_| ChaosError::NotReady("clients got no stream".to_owned()))
    }

    /// Waits until all that was published has come to all.
    async fn finish(&mut self) -> (Vec<Published>, Readings) {
        let mut published = Vec::new();
        while let Some(one) = self.publishers.join_next().await {
            published.push(one.expect("a publisher does not panic"));
        }
        published.sort_by_key(|(channel, _)| *channel);
        let set_pace = self.set_pace.clone();
        let over = tokio::spawn(async move {
            sleep(CATCH_UP_TIMEOUT).await;
            set_pace.send_replace(Pace::Over);
        });
        let mut readings = Vec::new();
        while let Some(client) = self.clients.join_next().await {
            readings.push(client.expect("a client does not panic"));
        }
        over.abort();
        readings.sort_by_key(|(number, _, _)| *number);
        let readings = readings.into_iter().map(|(_, channel, transcript)| (channel, transcript));
        (published.into_iter().map(|(_, one)| one).collect(), readings.collect())
    }
}

/// A runtime that ends without waiting for its tasks, as within another one it must not wait.
struct Apart(Option<Runtime>);

impl Apart {
    fn spawn<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
        tasks: &mut JoinSet<T>,
    ) -> AbortHandle {
        let runtime = self.0.as_ref().expect("it is there until it is dropped");
        tasks.spawn_on(task, runtime.handle())
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(Runtime::shutdown_background);
    }
}

/// One client.
struct Client {
    number: usize,
    reads: Reads,
    buffers: Buffers,
    after: Option<String>,
    pace: watch::Receiver<Pace>,
    /// Is told once, when the stream has begun or cannot begin any more.
    ready: mpsc::UnboundedSender<()>,
}

impl Client {
    /// Reads one connection to its end.
    async fn run(mut self, mut transcript: Transcript) -> Transcript {
        let mut over = self.pace.clone();
        let what = tokio::select! {
            what = self.read(&mut transcript) => what,
            _ = over.wait_for(|pace| *pace == Pace::Over) => Ok(()),
        };
        if let Err(error) = what {
            transcript.add_error(self.reads.clock.now_us(), &error);
        }
        let _ = self.ready.send(());
        transcript
    }

    async fn read(&mut self, transcript: &mut Transcript) -> Result<(), StreamError> {
        let after = self.after.as_deref();
        let at_us = self.reads.clock.now_us();
        let mut stream = self.reads.connect(self.number, self.buffers, after).await?;
        transcript.add(at_us, What::Began(after.map(Into::into)));
        while self.reads.read(&mut stream, BEGINNING_BYTES, transcript).await?
            == Progress::Blocks(0)
        {}
        let _ = self.ready.send(());
        if self.buffers == Buffers::Small {
            self.read_slowly(&mut stream, transcript).await?;
            stream.enlarge_buffer(READ_BYTES)?;
        }
        while self.reads.read(&mut stream, READ_BYTES, transcript).await? != Progress::Ended {}
        Ok(())
    }

    /// Reads a byte a second, and then nothing, until it may read on.
    async fn read_slowly(
        &mut self,
        stream: &mut Stream,
        transcript: &mut Transcript,
    ) -> Result<(), StreamError> {
        while *self.pace.borrow() == Pace::ByteBySecond {
            self.reads.read(stream, 1, transcript).await?;
            // It is not worth waiting for the byte's second when all may be read.
            let _ = timeout(BYTE_INTERVAL, self.pace.changed()).await;
        }
        // The sender lives as long as the run.
        let _ = self.pace.wait_for(|pace| *pace == Pace::All).await;
        Ok(())
    }
}

/// Bytes that the kernel holds for all TCP sockets of this host (`mem` in /proc/net/sockstat, in pages of 4 KiB).
fn socket_bytes() -> u64 {
    let stat = std::fs::read_to_string("/proc/net/sockstat").unwrap_or_default();
    let line = stat.lines().find_map(|line| line.strip_prefix("TCP:")).unwrap_or_default();
    let mut words = line.split_whitespace().skip_while(|word| *word != "mem").skip(1);
    words.next().and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0) * 4096
}
