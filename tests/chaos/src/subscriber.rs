//! Subscribers: each reads its channels to their END, over as many connections as that takes.
//!
//! A client does what an EventSource does: when its connection is lost it comes back with the id that it got last. That is
//! right when the edge was ended; at any other time it is a violation, so each client knows of which edge its connection
//! is ([`EdgeLives`]), and writes down what was not to be. What came is written down as it is; `judge` compares it with
//! what was published. Only what can be seen nowhere else is judged here: the form of responses and of blocks.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use forebay_judge::sse::{SseReader, field};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::Phase;
use crate::clients::Ready;
use crate::cluster::ORG;
use crate::connection::{Address, Duplex, READ_BYTES};
use crate::http::{Head, Part, ResponseReader};
use crate::record::{Came, Life, Reading, Words};
use crate::scenario::Pause;

/// How long a client waits for an answer before it tries again: longer than an edge waits for a handler.
pub(crate) const ANSWER_PATIENCE: Duration = Duration::from_secs(15);

/// The pause before a client comes back; half of what `retry:` tells an EventSource, so that herds are tried too.
pub(crate) const COME_BACK_DELAY: Duration = Duration::from_millis(250);

/// How often edges were ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EdgeLives {
    /// Edges that were told to end, or killed.
    pub(crate) condemned: u64,
    /// Those of them that are gone.
    pub(crate) gone: u64,
}

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct Subscriber {
    pub(crate) address: Address,
    pub(crate) token: Arc<str>,
    /// What it reads, as numbers of channels and their names.
    pub(crate) channels: Vec<(usize, String)>,
    /// When it does not read for a while.
    pub(crate) pauses: Vec<Pause>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) edge: watch::Receiver<EdgeLives>,
    /// Is told once, when the stream has begun or cannot begin any more.
    pub(crate) ready: Ready,
    pub(crate) words: Words,
}

/// Where slow clients connect: behind a Unix socket the kernel keeps 208 KiB for a client (unix(7)). For a TCP connection on
/// one machine that is megabytes, and the edge would not notice in seconds that somebody reads nothing.
pub(crate) fn address_of(is_slow: bool, quick: &Address, socket: &Path) -> Address {
    if is_slow { Address::Unix(socket.to_owned()) } else { quick.clone() }
}

/// How a connection ended.
enum End {
    /// The response ended in order; its block-wise end is in the record.
    Whole,
    /// 204: nothing is to come.
    Nothing,
    /// To be tried again after that time.
    Later(Duration),
    /// It was lost.
    Lost(String),
    /// What came is no stream.
    Malformed(String),
}

impl Subscriber {
    /// Reads until all its channels have ended, or the run is over.
    pub(crate) async fn run(mut self) -> Reading {
        let mut client = Client {
            reading: Reading {
                channels: self.channels.iter().map(|(number, _)| *number).collect(),
                is_slow: !self.pauses.is_empty(),
                ..Reading::default()
            },
            last_id: None,
            ends: 0,
            is_sent_away: false,
        };
        let mut over = self.phase.clone();
        tokio::select! {
            () = self.read_all(&mut client) => {}
            _ = over.wait_for(|phase| *phase == Phase::Over) => {}
        }
        self.ready.tell();
        client.reading
    }

    async fn read_all(&mut self, client: &mut Client) {
        loop {
            let lives = *self.edge.borrow();
            client.is_sent_away = false;
            let end = self.read_one(client).await;
            // The edge may have been condemned, and a client that comes at its end is of it, too.
            let was_condemned = self.edge.borrow().condemned > lives.gone;
            let is_done = client.ends >= self.channels.len();
            match end {
                End::Whole | End::Nothing if is_done => {
                    client.reading.has_ended = true;
                    return;
                }
                End::Whole if client.is_sent_away => client.lost("sent away", was_condemned),
                End::Whole => client.lost("the response ended before its channels", false),
                End::Nothing => {
                    let why = "204 to a client that has not all ENDs";
                    client.reading.violations.push(why.to_owned());
                    return;
                }
                End::Later(delay) => {
                    client.reading.sent_away += 1;
                    sleep(delay).await;
                    continue;
                }
                End::Lost(why) => client.lost(&why, was_condemned),
                End::Malformed(why) => client.reading.violations.push(why),
            }
            sleep(COME_BACK_DELAY).await;
        }
    }

    async fn read_one(&mut self, client: &mut Client) -> End {
        let opened = timeout(ANSWER_PATIENCE, self.open(client.last_id.as_deref())).await;
        let (mut socket, mut response, head) = match opened {
            Ok(Ok(opened)) => opened,
            Ok(Err(end)) => return end,
            Err(_) => return End::Later(COME_BACK_DELAY),
        };
        match head.status {
            200 => {}
            204 => return End::Nothing,
            502..=504 => return later(&head),
            status => return End::Malformed(format!("status {status} to a subscriber")),
        }
        let presented = client.last_id.clone();
        client.reading.lives.push(Life { presented, came: Vec::new(), is_whole: false });
        let mut events = SseReader::default();
        let mut buffer = [0; READ_BYTES];
        let mut is_over = false;
        loop {
            match self.take(client, &mut response, &mut events) {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(why) => return End::Malformed(why),
            }
            if is_over {
                return End::Lost("the connection was closed".to_owned());
            }
            let len = tokio::select! {
                len = socket.read(&mut buffer) => len,
                duration = due(&mut self.phase, self.pauses.first().copied()) => {
                    self.pauses.remove(0);
                    sleep(duration).await;
                    continue;
                }
            };
            match len {
                Ok(0) => is_over = true,
                Ok(len) => response.feed(&buffer[..len]),
                Err(error) => return End::Lost(error.to_string()),
            }
        }
    }

    /// Takes what came of a stream; how it ended, if it has.
    fn take(
        &mut self,
        client: &mut Client,
        response: &mut ResponseReader,
        events: &mut SseReader,
    ) -> Result<Option<End>, String> {
        while let Some(part) = response.next_part().map_err(|error| error.to_string())? {
            match part {
                Part::Head(_) => return Err("a second head".to_owned()),
                Part::Body(bytes) => events.push(&bytes),
                Part::End if events.is_at_boundary() => {
                    client.life().is_whole = true;
                    return Ok(Some(End::Whole));
                }
                Part::End => return Err("the response ended within an event".to_owned()),
            }
            let at = Instant::now();
            while let Some(block) = events.next_block()? {
                if block.retry {
                    self.ready.tell();
                }
                if let Some(data) = &block.data {
                    client.note(data);
                }
                if block.id.is_some() {
                    client.last_id.clone_from(&block.id);
                }
                let came = Came::of(&self.words, block, at);
                client.life().came.extend(came);
            }
        }
        Ok(None)
    }

    /// Connects and asks; returns the head of the answer.
    async fn open(
        &self,
        last_id: Option<&str>,
    ) -> Result<(Box<dyn Duplex>, ResponseReader, Head), End> {
        let lost = |error: io::Error| End::Lost(error.to_string());
        // Nobody listens while an edge starts.
        let refused = |_: io::Error| End::Later(COME_BACK_DELAY);
        let mut stream = self.address.connect().await.map_err(refused)?;
        let channels = self.channels.iter().map(|(_, name)| format!("channel_id={name}&"));
        let last_id = last_id.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let request = format!(
            "GET /events/{ORG}?{}token={} HTTP/1.1\r\nHost: chaos\r\nAccept: text/event-stream\r\n{last_id}\r\n",
            channels.collect::<String>(),
            self.token
        );
        stream.write_all(request.as_bytes()).await.map_err(lost)?;
        let mut response = ResponseReader::new();
        let mut buffer = [0; READ_BYTES];
        loop {
            match response.next_part() {
                Ok(Some(Part::Head(head))) => return Ok((stream, response, head)),
                Ok(Some(Part::Body(_) | Part::End)) => {
                    return Err(End::Malformed("a body without a head".to_owned()));
                }
                Ok(None) => {}
                Err(error) => return Err(End::Malformed(error.to_string())),
            }
            match stream.read(&mut buffer).await.map_err(lost)? {
                0 => return Err(End::Lost("closed before an answer".to_owned())),
                len => response.feed(&buffer[..len]),
            }
        }
    }
}

/// Such an answer must say when to come again.
fn later(head: &Head) -> End {
    match head.field("retry-after").and_then(|value| value.parse().ok()) {
        Some(seconds) => End::Later(Duration::from_secs(seconds).max(COME_BACK_DELAY)),
        None => End::Malformed(format!("status {} without Retry-After", head.status)),
    }
}

/// What a client knows.
struct Client {
    reading: Reading,
    last_id: Option<String>,
    /// Channels whose END came.
    ends: usize,
    /// It was told that the edge drains.
    is_sent_away: bool,
}

impl Client {
    /// Its newest connection.
    fn life(&mut self) -> &mut Life {
        self.reading.lives.last_mut().expect("a connection is there before anything comes of it")
    }

    fn note(&mut self, data: &str) {
        // Ends are published once each, when all trouble is over.
        self.ends += usize::from(field(data, "phase") == Ok("PHASE_END"));
        self.is_sent_away |= field(data, "control_type") == Ok("server_draining");
    }

    fn lost(&mut self, why: &str, is_expected: bool) {
        if is_expected {
            self.reading.expected_losses += 1;
        } else {
            self.reading.disconnects.push(why.to_owned());
        }
    }
}

/// Waits until a pause begins, and says how long it lasts. Forever, if there is none.
pub(crate) async fn due(phase: &mut watch::Receiver<Phase>, pause: Option<Pause>) -> Duration {
    let Some(pause) = pause else { return std::future::pending().await };
    loop {
        let now = *phase.borrow_and_update();
        match now {
            Phase::Load { since } => {
                tokio::time::sleep_until(since + pause.at).await;
                return pause.duration;
            }
            Phase::Connecting => {}
            Phase::Over => return std::future::pending().await,
        }
        if phase.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
