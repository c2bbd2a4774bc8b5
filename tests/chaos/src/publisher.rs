//! Publishers: each sends its events one after the other, and each event until it is acknowledged.
//!
//! A channel has two publishers, so that its events are appended by both handlers at once: one by HTTP,
//! one on a WebSocket, which no handler's end may cost it. An event
//! keeps its `message_id` however often it is sent: whatever the attempts before came to, it may be
//! stored once only. The id in the acknowledgement tells where it stands in the channel's log; all
//! acknowledgements of a channel together *are* that log, and what every reader must have got.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, sleep, timeout};
use uuid::Uuid;
use zhttp::Cursor;

use crate::Phase;
use crate::cluster::ORG;
use crate::connection::{Address, Connection, ExchangeError};
use crate::http::Head;
use crate::scenario::is_wide;
use crate::socket::{Answer, Credentials, Heard, Socket, SocketError};
use crate::subscriber::EdgeLives;

/// Publishers of one channel.
const PUBLISHERS_PER_CHANNEL: u64 = 2;

/// The one that publishes on a WebSocket.
const SOCKET_PUBLISHER: u64 = 1;

/// Time before an event is sent again if the server did not say how long to wait, or said 0.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// How long a publisher waits for an answer. Then it makes a new connection, and sends the event again: longer than the
/// edge waits for a handler, and a handler for the store.
const ANSWER_PATIENCE: Duration = Duration::from_secs(15);

/// Bytes of text in the payload of an event, and of one in a wide channel, where events are nearly as
/// large as they may be.
const TEXT_BYTES: RangeInclusive<u64> = 100..=1000;
const WIDE_TEXT_BYTES: RangeInclusive<u64> = 12_000..=15_000;

/// An event that is stored, as its publisher knows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ack {
    pub(crate) message_id: Uuid,
    pub(crate) cursor: Cursor,
    /// Which publisher of the channel, and its how manyth event.
    pub(crate) publisher: u64,
    pub(crate) sequence: u64,
    pub(crate) at: Instant,
}

/// What publishing came to.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Of each channel.
    pub(crate) acks: Vec<Vec<Ack>>,
    pub(crate) tally: Tally,
}

/// What publishers saw.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answers after which the event was sent again, by status.
    pub(crate) refused: BTreeMap<u16, u64>,
    /// Attempts whose connection was refused or lost.
    pub(crate) lost: u64,
    /// Attempts that nobody answered.
    pub(crate) unanswered: u64,
    /// Acknowledgements of an event that an earlier attempt had stored.
    pub(crate) duplicates: u64,
    /// The longest time between the first attempt and the acknowledgement.
    pub(crate) slowest: Duration,
    /// Answers that should not be, and events that were never acknowledged.
    pub(crate) violations: Vec<String>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        for (status, count) in other.refused {
            *self.refused.entry(status).or_default() += count;
        }
        self.lost += other.lost;
        self.unanswered += other.unanswered;
        self.duplicates += other.duplicates;
        self.slowest = self.slowest.max(other.slowest);
        self.violations.extend(other.violations);
    }
}

/// What all publishers of a run share.
#[derive(Clone, Debug)]
pub(crate) struct Publishing {
    pub(crate) address: Address,
    pub(crate) token: String,
    /// Names of the channels.
    pub(crate) channels: Vec<String>,
    /// Events of each channel, and the time between two of them.
    pub(crate) events_per_channel: u64,
    pub(crate) interval: Duration,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) edge: watch::Receiver<EdgeLives>,
    /// Is set when a publisher was told that the store is away.
    pub(crate) store_away: watch::Sender<bool>,
    /// Is set when no further events are wanted.
    pub(crate) enough: watch::Receiver<bool>,
}

impl Publishing {
    /// Publishes all events. Ends when each is acknowledged, or the run is over.
    pub(crate) async fn run(&self) -> Published {
        let mut publishers = JoinSet::new();
        for channel in 0..self.channels.len() {
            for number in 0..PUBLISHERS_PER_CHANNEL {
                let mut publisher = Publisher::new(self.clone(), channel, number);
                publishers.spawn(async move {
                    publisher.publish_all().await;
                    publisher
                });
            }
        }
        self.collect(publishers).await
    }

    /// Publishes the END of each channel.
    pub(crate) async fn end(&self) -> Published {
        let mut publishers = JoinSet::new();
        for channel in 0..self.channels.len() {
            let mut publisher = Publisher::new(self.clone(), channel, PUBLISHERS_PER_CHANNEL);
            publishers.spawn(async move {
                publisher.publish(0, "PHASE_END").await;
                publisher
            });
        }
        self.collect(publishers).await
    }

    async fn collect(&self, mut publishers: JoinSet<Publisher>) -> Published {
        let acks = vec![Vec::new(); self.channels.len()];
        let mut published = Published { acks, tally: Tally::default() };
        while let Some(publisher) = publishers.join_next().await {
            // A panic in here is a bug of the harness: it goes on.
            let publisher = publisher.expect("a publisher does not panic");
            published.acks[publisher.channel].extend(publisher.acks);
            published.tally.add(publisher.tally);
        }
        published
    }
}

impl Published {
    /// Adds what came later.
    pub(crate) fn add(&mut self, later: Published) {
        for (acks, later) in self.acks.iter_mut().zip(later.acks) {
            acks.extend(later);
        }
        self.tally.add(later.tally);
    }
}

/// How an attempt ended.
enum Attempt {
    Stored,
    /// To be sent again after that time.
    Again(Duration),
    /// Nothing that sending again would mend.
    Failed(String),
}

/// How events get to the edge.
enum Way {
    Http(Connection),
    Socket(SocketPublisher),
}

/// What an attempt was answered with.
enum Answered {
    Stored {
        cursor: Cursor,
        is_duplicate: bool,
    },
    /// By this status, or what would be one; with when to come again, if that was said.
    Refused {
        status: u16,
        after: Option<Duration>,
    },
    Failed(String),
}

struct Publisher {
    common: Publishing,
    channel: usize,
    number: u64,
    way: Way,
    acks: Vec<Ack>,
    tally: Tally,
}

impl Publisher {
    fn new(common: Publishing, channel: usize, number: u64) -> Self {
        let way = match number {
            SOCKET_PUBLISHER => Way::Socket(SocketPublisher::new(&common, channel)),
            _ => Way::Http(Connection::to(common.address.clone())),
        };
        Publisher { common, channel, number, way, acks: Vec::new(), tally: Tally::default() }
    }

    /// Every publisher has its turn in each round of the channel; who is late hurries.
    async fn publish_all(&mut self) {
        let rounds = PUBLISHERS_PER_CHANNEL;
        let interval = self.common.interval * u32::try_from(rounds).unwrap_or(1);
        let first = Instant::now() + self.common.interval * u32::try_from(self.number).unwrap_or(0);
        let mut turns = tokio::time::interval_at(first, interval);
        turns.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let count =
            (self.common.events_per_channel.saturating_add(rounds) - 1 - self.number) / rounds;
        let mut enough = self.common.enough.clone();
        for sequence in 1..=count {
            tokio::select! {
                _ = turns.tick() => {}
                Ok(_) = enough.wait_for(|is_enough| *is_enough) => return,
            }
            if !self.publish(sequence, "PHASE_DELTA").await {
                return;
            }
        }
    }

    /// Publishes one event. Whether it is stored.
    async fn publish(&mut self, sequence: u64, phase: &str) -> bool {
        let message_id = Uuid::new_v4();
        let body = self.body(message_id, sequence, phase);
        let first = Instant::now();
        let mut over = self.common.phase.clone();
        loop {
            let attempt = async {
                let attempt = self.attempt(&body, message_id, sequence).await;
                if let Attempt::Again(delay) = attempt {
                    sleep(delay).await;
                }
                attempt
            };
            let attempt = tokio::select! {
                attempt = attempt => attempt,
                _ = over.wait_for(|phase| *phase == Phase::Over) => {
                    Attempt::Failed("no acknowledgement until the end of the run".to_owned())
                }
            };
            match attempt {
                Attempt::Stored => {
                    self.tally.slowest = self.tally.slowest.max(first.elapsed());
                    return true;
                }
                Attempt::Again(_) => {}
                Attempt::Failed(why) => {
                    let channel = &self.common.channels[self.channel];
                    self.tally.violations.push(format!("publish to {channel}: {why}"));
                    return false;
                }
            }
        }
    }

    async fn attempt(&mut self, body: &Value, message_id: Uuid, sequence: u64) -> Attempt {
        let request = async {
            match &mut self.way {
                Way::Http(connection) => {
                    let (channel, token) =
                        (&self.common.channels[self.channel], &self.common.token);
                    answered(connection.exchange(&request(channel, token, body)).await)
                }
                Way::Socket(socket) => socket.publish(body).await,
            }
        };
        let answered = match timeout(ANSWER_PATIENCE, request).await {
            Ok(Ok(answered)) => answered,
            Ok(Err(Lost)) => {
                self.tally.lost += 1;
                return Attempt::Again(RETRY_DELAY);
            }
            Err(_) => {
                self.tally.unanswered += 1;
                return Attempt::Again(RETRY_DELAY);
            }
        };
        match answered {
            Answered::Stored { cursor, is_duplicate } => {
                self.tally.duplicates += u64::from(is_duplicate);
                let (publisher, at) = (self.number, Instant::now());
                self.acks.push(Ack { message_id, cursor, publisher, sequence, at });
                Attempt::Stored
            }
            Answered::Refused { status, after } => self.refused(status, after),
            Answered::Failed(why) => Attempt::Failed(why),
        }
    }

    /// Each of these answers must say when to come again.
    fn refused(&mut self, status: u16, after: Option<Duration>) -> Attempt {
        *self.tally.refused.entry(status).or_default() += 1;
        if status == 503 {
            self.common.store_away.send_replace(true);
        }
        match after {
            Some(after) => Attempt::Again(after.max(RETRY_DELAY)),
            None => Attempt::Failed(format!("status {status} without a time to come again")),
        }
    }

    fn body(&self, message_id: Uuid, sequence: u64, phase: &str) -> Value {
        let payload = json!({"publisher": self.number, "text": text(self.channel, message_id)});
        json!({
            "message_id": message_id.to_string(),
            "phase": phase,
            "sequence": sequence,
            "payload": payload,
        })
    }
}

/// Nobody knows what became of an attempt.
struct Lost;

/// What an exchange by HTTP came to.
fn answered(exchanged: Result<(Head, Vec<u8>), ExchangeError>) -> Result<Answered, Lost> {
    let (head, body) = match exchanged {
        Ok(exchanged) => exchanged,
        Err(ExchangeError::Lost(_)) => return Err(Lost),
        Err(ExchangeError::Malformed(error)) => return Ok(Answered::Failed(error.to_string())),
    };
    Ok(match head.status {
        200 => match Cursor::from_bytes(&body) {
            Ok(cursor) => {
                let is_duplicate = head.field("forebay-duplicate").is_some();
                Answered::Stored { cursor, is_duplicate }
            }
            Err(error) => Answered::Failed(format!("a 200 without an id: {error}")),
        },
        429 | 502 | 503 => {
            let after = head.field("retry-after").and_then(|value| value.parse().ok());
            Answered::Refused { status: head.status, after: after.map(Duration::from_secs) }
        }
        status => Answered::Failed(format!("status {status}: {}", String::from_utf8_lossy(&body))),
    })
}

/// A request by HTTP.
fn request(channel: &str, token: &str, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "POST /publish/{ORG}/{channel} HTTP/1.1\r\nHost: chaos\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A publisher's WebSocket: made again when it is lost, which it may be only with its edge.
struct SocketPublisher {
    address: Address,
    token: String,
    channel: String,
    how: Credentials,
    edge: watch::Receiver<EdgeLives>,
    /// With how many edges had ended when it was made.
    open: Option<(Socket, EdgeLives)>,
    last_id: u64,
}

impl SocketPublisher {
    fn new(common: &Publishing, channel: usize) -> Self {
        SocketPublisher {
            address: common.address.clone(),
            token: common.token.clone(),
            channel: common.channels[channel].clone(),
            how: Credentials::of(channel),
            edge: common.edge.clone(),
            open: None,
            last_id: 0,
        }
    }

    /// One attempt. If it is broken off, the next makes a new connection.
    async fn publish(&mut self, body: &Value) -> Result<Answered, Lost> {
        let lives = self.open.as_ref().map_or_else(|| *self.edge.borrow(), |(_, lives)| *lives);
        match self.exchange(body, lives).await {
            Ok(Answer::Done(result)) => Ok(stored(&result)),
            Ok(Answer::Refused { code, message, again }) => {
                let status = match code.as_str() {
                    "rate_limited" => 429,
                    "unavailable" => 503,
                    "internal" => 500,
                    _ => return Ok(Answered::Failed(format!("{code}: {message}"))),
                };
                Ok(Answered::Refused { status, after: again })
            }
            Err(SocketError::Away(_)) => Err(Lost),
            Err(SocketError::Later { status, after }) => {
                Ok(Answered::Refused { status, after: Some(after) })
            }
            Err(SocketError::Closed { .. } | SocketError::Lost(_))
                if self.edge.borrow().condemned > lives.gone =>
            {
                Err(Lost)
            }
            Err(error) => Ok(Answered::Failed(format!("its WebSocket: {error}"))),
        }
    }

    async fn exchange(&mut self, body: &Value, lives: EdgeLives) -> Result<Answer, SocketError> {
        let mut socket = match self.open.take() {
            Some((socket, _)) => socket,
            None => Socket::open(&self.address, &self.token, self.how).await?,
        };
        self.last_id += 1;
        let mut request = body.clone();
        request["id"] = json!(self.last_id);
        request["type"] = json!("publish");
        request["channel"] = json!(self.channel);
        socket.ask(&request).await?;
        loop {
            match socket.hear().await? {
                Heard::Open | Heard::Answer { id: 0, answer: Answer::Done(_) } => {}
                Heard::Answer { id, answer } if id == self.last_id => {
                    self.open = Some((socket, lives));
                    return Ok(answer);
                }
                other => {
                    let why = format!("this is no answer to {}: {other:?}", self.last_id);
                    return Err(SocketError::Malformed(why));
                }
            }
        }
    }
}

/// What a publish was answered with.
fn stored(result: &Value) -> Answered {
    let id = result.get("id").and_then(Value::as_str);
    match id.map(|id| id.parse()) {
        Some(Ok(cursor)) => {
            let is_duplicate = result.get("duplicate") == Some(&Value::Bool(true));
            Answered::Stored { cursor, is_duplicate }
        }
        Some(Err(_)) | None => Answered::Failed(format!("a publish without an id: {result}")),
    }
}

/// The text in an event: its length is all that differs.
fn text(channel: usize, message_id: Uuid) -> String {
    let range = if is_wide(channel) { WIDE_TEXT_BYTES } else { TEXT_BYTES };
    let bytes = range.start() + message_id.as_u64_pair().0 % (range.end() - range.start());
    "forebay ".chars().cycle().take(usize::try_from(bytes).unwrap_or(0)).collect()
}

impl Ack {
    /// Whether it is the END of its channel.
    pub(crate) fn is_end(&self) -> bool {
        self.publisher == PUBLISHERS_PER_CHANNEL
    }

    /// The line that readers must get (`docs/channels.md`), of this event in that channel.
    pub(crate) fn line(&self, channel: usize, name: &str) -> String {
        let Ack { message_id, sequence, publisher, .. } = self;
        let phase = if self.is_end() { "PHASE_END" } else { "PHASE_DELTA" };
        let text = text(channel, *message_id);
        format!(
            r#"{{"event_type":"stream","message_id":"{message_id}","channel_id":"{name}","phase":"{phase}","sequence":{sequence},"payload":{{"publisher":{publisher},"text":"{text}"}}}}"#
        )
    }
}
