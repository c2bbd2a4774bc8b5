//! Publishers: each sends its events one after the other, and each event until it is acknowledged.
//!
//! A channel has two publishers, so that its events are appended by both handlers at once: one by HTTP,
//! one on a WebSocket (`socket_publisher`), which no handler's end may cost it. An event
//! keeps its `message_id` however often it is sent: whatever the attempts before came to, it may be
//! stored once only. The id in the acknowledgement tells where it stands in the channel's log; all
//! acknowledgements of a channel together *are* that log, and what every reader must have got.
//!
//! On the WebSockets of odd channels events have no `message_id`. Then the handler that stores one gives it an id that is the
//! same for whoever does the same request, so that the end of a handler stores nothing twice (`docs/channels.md`, "A request
//! whose handler dies"). For us that id is whatever the store holds; an event is known by its publisher and its sequence.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use forebay_judge::sse::field;
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
use crate::socket_publisher::SocketPublisher;
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
    /// What it was published with; if with none, only the store knows it.
    pub(crate) message_id: Option<Uuid>,
    pub(crate) cursor: Cursor,
    /// Which publisher of the channel, and its how manyth event.
    pub(crate) publisher: u64,
    pub(crate) sequence: u64,
    /// How often it may be stored besides, by attempts of which nobody was told what they came to. With a `message_id` never.
    pub(crate) doubts: u64,
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
    /// Of events without a `message_id`.
    pub(crate) unnamed: Unnamed,
    /// Answers that should not be, and events that were never acknowledged.
    pub(crate) violations: Vec<String>,
}

/// What became of events that were published without a `message_id`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unnamed {
    /// Those that are known to be stored.
    pub acknowledged: u64,
    /// Those of them whose answer said that they had been stored before: by a handler that was ended before it had answered, and
    /// but for the derived id they would be stored twice. (Where a handler did the same later, no answer says so.)
    pub repeated: u64,
    /// Looks into history for one, after an attempt of which nobody knows what it came to.
    pub looks: u64,
    /// Those of them that found it.
    pub found: u64,
}

impl Unnamed {
    fn add(&mut self, other: Unnamed) {
        self.acknowledged += other.acknowledged;
        self.repeated += other.repeated;
        self.looks += other.looks;
        self.found += other.found;
    }
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
        self.unnamed.add(other.unnamed);
        self.violations.extend(other.violations);
    }
}

/// What all publishers of a run share.
#[derive(Clone, Debug)]
pub(crate) struct Publishing {
    pub(crate) address: Address,
    pub(crate) token: String,
    /// For who has to look into history.
    pub(crate) reader_token: Arc<str>,
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
    Socket(Box<SocketPublisher>),
}

/// An event that is to be published.
pub(crate) struct Event {
    pub(crate) message_id: Option<Uuid>,
    pub(crate) publisher: u64,
    pub(crate) sequence: u64,
    /// As JSON.
    pub(crate) body: Value,
}

/// What an attempt was answered with.
pub(crate) enum Answered {
    Stored {
        cursor: Cursor,
        is_duplicate: bool,
        /// As in an [`Ack`].
        doubts: u64,
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
            SOCKET_PUBLISHER => Way::Socket(Box::new(SocketPublisher::new(&common, channel))),
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
        let event = self.event(sequence, phase);
        let first = Instant::now();
        let mut over = self.common.phase.clone();
        loop {
            let attempt = async {
                let attempt = self.attempt(&event).await;
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

    async fn attempt(&mut self, event: &Event) -> Attempt {
        let request = async {
            match &mut self.way {
                Way::Http(connection) => {
                    let (channel, token) =
                        (&self.common.channels[self.channel], &self.common.token);
                    answered(connection.exchange(&request(channel, token, &event.body)).await)
                }
                Way::Socket(socket) => socket.publish(event, &mut self.tally.unnamed).await,
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
            Answered::Stored { cursor, is_duplicate, doubts } => {
                self.tally.duplicates += u64::from(is_duplicate);
                let Event { message_id, publisher, sequence, .. } = *event;
                let at = Instant::now();
                self.acks.push(Ack { message_id, cursor, publisher, sequence, doubts, at });
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

    fn event(&self, sequence: u64, phase: &str) -> Event {
        let publisher = self.number;
        let text = text(self.channel, publisher, sequence);
        let mut body = json!({
            "phase": phase,
            "sequence": sequence,
            "payload": {"publisher": publisher, "text": text},
        });
        let message_id = is_named(self.channel, publisher).then(Uuid::new_v4);
        if let Some(message_id) = message_id {
            body["message_id"] = json!(message_id.to_string());
        }
        Event { message_id, publisher, sequence, body }
    }
}

/// Whether a publisher gives its events a `message_id`.
fn is_named(channel: usize, publisher: u64) -> bool {
    publisher != SOCKET_PUBLISHER || channel.is_multiple_of(2)
}

/// Nobody knows what became of an attempt.
pub(crate) struct Lost;

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
                Answered::Stored { cursor, is_duplicate, doubts: 0 }
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

/// The text in an event: its length is all that differs.
fn text(channel: usize, publisher: u64, sequence: u64) -> String {
    /// 2^64 divided by the golden ratio: multiples of it are spread evenly.
    const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
    let range = if is_wide(channel) { WIDE_TEXT_BYTES } else { TEXT_BYTES };
    let number = (sequence << 8 | publisher).wrapping_mul(SPREAD) >> 32;
    let bytes = range.start() + number % (range.end() - range.start());
    "forebay ".chars().cycle().take(usize::try_from(bytes).unwrap_or(0)).collect()
}

impl Ack {
    /// Whether it is the END of its channel.
    pub(crate) fn is_end(&self) -> bool {
        self.publisher == PUBLISHERS_PER_CHANNEL
    }

    /// The line that readers must get (`docs/channels.md`), of this event in that channel, if it has this `message_id`.
    pub(crate) fn line(&self, channel: usize, name: &str, message_id: Uuid) -> String {
        let Ack { sequence, publisher, .. } = *self;
        let phase = if self.is_end() { "PHASE_END" } else { "PHASE_DELTA" };
        let text = text(channel, publisher, sequence);
        format!(
            r#"{{"event_type":"stream","message_id":"{message_id}","channel_id":"{name}","phase":"{phase}","sequence":{sequence},"payload":{{"publisher":{publisher},"text":"{text}"}}}}"#
        )
    }

    /// The `message_id` in a line, if it is a line that readers may get of this event.
    pub(crate) fn message_id_in(&self, channel: usize, name: &str, line: &str) -> Option<Uuid> {
        let message_id = field(line, "message_id").ok()?.parse().ok()?;
        let is_its_own = self.message_id.is_none_or(|own| own == message_id);
        (is_its_own && self.line(channel, name, message_id) == line).then_some(message_id)
    }
}
