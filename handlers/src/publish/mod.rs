//! The publish role: takes messages, checks who may send what and how fast, and appends them to a
//! channel's log (`docs/channels.md`, "Publish").
//!
//! A request goes through two steps, with its body between them:
//!
//! 1. `Publisher::admit` looks at the head alone: path, token, size, scope, in that order. What
//!    can be refused here is refused before a byte of the body is read.
//! 2. `Publisher::publish` decodes the body and appends what is in it: one message, or a batch
//!    whose messages are answered one by one.
//!
//! `answer.rs` has the status table, `lanes.rs` the order of a channel's messages and what is done
//! after a 202, `outcomes.rs` the counts of what became of them.
//!
//! Limits are the same for all orgs, and nothing is remembered of them here: each refusal for its rate
//! costs the one round trip of the append that was tried.

mod answer;
mod lanes;
mod outcomes;

use std::sync::Arc;

use uuid::Uuid;

pub use self::lanes::{LANES, RETRY_MAX};
pub use self::outcomes::{OUTCOMES_LOG_INTERVAL, Outcome, Outcomes};

pub(crate) use self::answer::Refusal;
use self::answer::{Refused, Stored};
use self::lanes::{Job, Lanes};
use crate::attach::{BodyError, Response};
use crate::auth::{AuthError, Verifier, bearer};
use crate::event::{
    BATCH_BYTES_MAX, Decoded, EventError, Format, PublishItem, decode, decode_json,
};
use crate::roles::Limits;
use crate::store::{
    AppendError, Appended, ChannelName, Conditions, EventKind, NewEvent, Store, StoreError,
};
use crate::web::{self, RequestHead};

/// Where the role's routes begin.
pub(crate) const PREFIX: &str = "/publish/";

/// The methods of its one route.
const METHODS: &str = "POST, OPTIONS";

/// The publish role of one process.
pub(crate) struct Publisher<S> {
    verifier: Verifier,
    limits: Limits,
    lanes: Lanes<S>,
    outcomes: Arc<Outcomes>,
}

/// A request whose head is good: its body may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Admission {
    channel: ChannelName,
    format: Format,
    expect: Option<u64>,
    ack: Ack,
}

/// When a publisher is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ack {
    /// When its message is stored.
    #[default]
    Stored,
    /// When its message is good, and has a place in the queue.
    Accepted,
}

impl Ack {
    /// What a publisher writes; nothing else is right.
    pub(crate) const NAMES: &str = "stored or accepted";

    /// The one of that name.
    pub(crate) fn parse(name: &str) -> Option<Ack> {
        match name {
            "stored" => Some(Ack::Stored),
            "accepted" => Some(Ack::Accepted),
            _ => None,
        }
    }
}

/// What became of a message that is not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Published {
    Stored(Appended),
    /// It will be, some time after this.
    Accepted,
}

impl<S: Store> Publisher<S> {
    /// Must be called within a tokio runtime.
    pub(crate) fn new(store: S, verifier: Verifier, limits: Limits) -> Self {
        let outcomes = Arc::new(Outcomes::default());
        let lanes = Lanes::new(store, limits.accepted_messages_max, &outcomes);
        Publisher { verifier, limits, lanes, outcomes }
    }

    /// What became of the messages so far.
    pub(crate) fn outcomes(&self) -> &Arc<Outcomes> {
        &self.outcomes
    }

    /// Waits until everything that was accepted has its outcome.
    pub(crate) async fn drained(&self) {
        self.lanes.drained().await;
    }

    /// The most bytes of its body that an admitted request may have.
    pub(crate) fn body_bytes_max(&self, admission: &Admission) -> usize {
        body_bytes_max(admission.format, &self.limits)
    }

    /// Checks the head of a request at `now_s`, in seconds since 1970. `Err` is the answer.
    pub(crate) fn admit(
        &self,
        head: &RequestHead<'_>,
        now_s: u64,
    ) -> Result<Admission, Box<Response>> {
        let rest = head.path.strip_prefix(PREFIX).ok_or_else(web::not_found)?;
        let channel = web::channel_of_path(rest).ok_or_else(web::not_found)?;
        match head.method {
            "POST" => {}
            "OPTIONS" => return Err(web::preflight(METHODS).into()),
            _ => return Err(web::method_not_allowed(METHODS).into()),
        }
        let channel = channel.map_err(|error| self.invalid("path", error.to_string()))?;
        let expect = expect_of(head).map_err(|text| self.invalid("expect", text))?;
        let ack = ack_of(head).map_err(|text| self.invalid("ack", text))?;

        let token = bearer(head.header("authorization")).map_err(|error| {
            self.outcomes.count(Outcome::Invalid, "authorization");
            web::unauthorized(error.to_string())
        })?;
        let refused = |error: AuthError| {
            self.outcomes.count(Outcome::Invalid, "token");
            web::token_refused(error.publish_answer())
        };
        let claims = self.verifier.verify(token, now_s).map_err(refused)?;

        let format = Format::from_content_type(head.header("content-type"));
        // A body of an unknown type is not read, however small. It is measured as one message.
        let measured_as = format.clone().unwrap_or(Format::Protobuf);
        if let Some(size) = head.content_length
            && size > body_bytes_max(measured_as, &self.limits) as u64
        {
            return Err(self.too_large(measured_as, size).into());
        }
        claims.authorize(channel.org(), &[channel.channel()]).map_err(refused)?;
        let format = format.map_err(|error| self.refused(error))?;
        Ok(Admission { channel, format, expect, ack })
    }

    /// The answer to an admitted request whose body could not be read.
    pub(crate) fn body_refused(&self, admission: &Admission, error: BodyError) -> Response {
        match error {
            BodyError::TooLarge { size } => self.too_large(admission.format, size),
            BodyError::NoRoom => {
                self.outcomes.count(Outcome::Internal, "body_room");
                web::unavailable("Too many messages are being read")
            }
            BodyError::Gone => {
                self.outcomes.count(Outcome::Invalid, "client_left");
                // Nobody is there to read it.
                Response::text(400, "The body is incomplete")
            }
        }
    }

    /// Decodes the body of an admitted request, appends what is in it, and answers.
    pub(crate) async fn publish(&self, admission: &Admission, body: &[u8]) -> Response {
        let channel = admission.channel.channel();
        let max = self.limits.message_bytes_max;
        let decoded = match decode(admission.format, channel, body, max, Uuid::new_v4) {
            Ok(Decoded::Batch(_)) if admission.expect.is_some() => {
                return self.invalid("expect", "expect is not for batches");
            }
            Ok(decoded) => decoded,
            Err(error) => return self.refused(error),
        };
        match (admission.ack, decoded) {
            (Ack::Accepted, Decoded::One(item)) => self.answer_accept(admission, vec![Ok(item)]),
            (Ack::Accepted, Decoded::Batch(items)) => self.answer_accept(admission, items),
            (Ack::Stored, Decoded::One(item)) => {
                let stored = self.append(admission, item).await.map_err(Refused::Append);
                answer::one(&stored, self.limits.rate)
            }
            (Ack::Stored, Decoded::Batch(items)) => {
                answer::batch(&self.append_all(admission, items).await, self.limits.rate)
            }
        }
    }

    /// Publishes one message, as JSON in an object that may have other members too; `new_id` is its id
    /// unless it has one. The caller has seen that its sender may do so.
    ///
    /// # Errors
    ///
    /// What its sender is to be told.
    pub(crate) async fn publish_one(
        &self,
        channel: ChannelName,
        (expect, ack): (Option<u64>, Ack),
        text: &[u8],
        new_id: Uuid,
    ) -> Result<Published, Refusal> {
        let max = self.limits.message_bytes_max;
        let decoded = decode_json(channel.channel(), text, max, || new_id);
        let published = match decoded {
            Err(error) => {
                self.outcomes.count(Outcome::Invalid, error.reason());
                Err(Refused::Event(error))
            }
            Ok(item) => {
                let admission = Admission { channel, format: Format::Json, expect, ack };
                match ack {
                    Ack::Stored => {
                        let stored = self.append(&admission, item).await;
                        stored.map(Published::Stored).map_err(Refused::Append)
                    }
                    Ack::Accepted => {
                        let accepted = self.accept(&admission, vec![Ok(item)]);
                        accepted.map(|()| Published::Accepted)
                    }
                }
            }
        };
        published.map_err(|refused| refused.refusal(self.limits.rate))
    }

    /// Counts a message that was refused before it came here.
    pub(crate) fn count_invalid(&self, reason: &'static str) {
        self.outcomes.count(Outcome::Invalid, reason);
    }

    /// Counts a message that was not tried, as its sender could not be kept waiting any longer.
    pub(crate) fn count_unavailable(&self) {
        self.outcomes.count(Outcome::Internal, "store");
    }

    /// Appends the messages of a batch one after the other. Once the store is found to be away, the
    /// rest is not tried: a batch must not wait a thousand times.
    async fn append_all(
        &self,
        admission: &Admission,
        items: Vec<Result<PublishItem, EventError>>,
    ) -> Vec<Stored> {
        let mut stored = Vec::with_capacity(items.len());
        let mut away: Option<StoreError> = None;
        for item in items {
            let item = match (item, &away) {
                (Err(error), _) => {
                    self.outcomes.count(Outcome::Invalid, error.reason());
                    Err(Refused::Event(error))
                }
                (Ok(_), Some(error)) => {
                    self.outcomes.count(Outcome::Internal, "store");
                    Err(Refused::Append(AppendError::Unavailable(error.clone())))
                }
                (Ok(item), None) => self.append(admission, item).await.map_err(Refused::Append),
            };
            if let Err(Refused::Append(AppendError::Unavailable(error))) = &item {
                away = Some(error.clone());
            }
            stored.push(item);
        }
        stored
    }

    async fn append(
        &self,
        admission: &Admission,
        item: PublishItem,
    ) -> Result<Appended, AppendError> {
        let result = self.lanes.append(self.job(admission, item)).await;
        let (outcome, reason) = answer::outcome(&result);
        self.outcomes.count(outcome, reason);
        if let Err(AppendError::Unavailable(error)) = &result {
            tracing::warn!(channel = %admission.channel, %error, "a message was not stored");
        }
        result
    }

    /// Takes the good messages into the queue, and answers 202; 503 if there is no room for all.
    fn answer_accept(
        &self,
        admission: &Admission,
        items: Vec<Result<PublishItem, EventError>>,
    ) -> Response {
        match self.accept(admission, items) {
            Ok(()) => Response::new(202),
            Err(refused) => answer::one(&Err(refused), None),
        }
    }

    /// Takes the good messages into the queue, if there is room for all.
    fn accept(
        &self,
        admission: &Admission,
        items: Vec<Result<PublishItem, EventError>>,
    ) -> Result<(), Refused> {
        let mut jobs = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Ok(item) => jobs.push(self.job(admission, item)),
                Err(error) => self.outcomes.count(Outcome::Invalid, error.reason()),
            }
        }
        let count = jobs.len();
        self.lanes.accept(jobs).map_err(|lanes::Full| {
            (0..count).for_each(|_| self.outcomes.count(Outcome::Internal, "queue_full"));
            Refused::Full
        })
    }

    fn job(&self, admission: &Admission, item: PublishItem) -> Job {
        let PublishItem { message_id, end, data, .. } = item;
        Job {
            channel: admission.channel.clone(),
            event: NewEvent { message_id: Some(message_id), end, kind: EventKind::Stream, data },
            conditions: Conditions {
                expect: admission.expect,
                rate: self.limits.rate,
                retention: self.limits.retention(),
                ..Conditions::default()
            },
        }
    }

    fn too_large(&self, format: Format, size: u64) -> Response {
        self.refused(match format {
            Format::Protobuf => {
                EventError::MessageSize { size, max: self.limits.message_bytes_max }
            }
            Format::Json | Format::Ndjson => EventError::BatchSize(size),
        })
    }

    fn refused(&self, error: EventError) -> Response {
        self.outcomes.count(Outcome::Invalid, error.reason());
        answer::one(&Err(Refused::Event(error)), None)
    }

    fn invalid(&self, reason: &'static str, text: impl Into<String>) -> Response {
        self.outcomes.count(Outcome::Invalid, reason);
        Response::text(400, text)
    }
}

/// The most bytes of a body. JSON may turn out to be a batch, which is seen in its first character.
fn body_bytes_max(format: Format, limits: &Limits) -> usize {
    match format {
        Format::Protobuf => limits.message_bytes_max,
        Format::Json | Format::Ndjson => BATCH_BYTES_MAX,
    }
}

fn expect_of(head: &RequestHead<'_>) -> Result<Option<u64>, String> {
    let value = head.parameter("expect").map_err(|error| error.to_string())?;
    let Some(value) = value else { return Ok(None) };
    let is_number = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_number.then(|| value.parse().ok()).flatten();
    number.map(Some).ok_or_else(|| "Invalid expect: an offset is a number from 0".to_owned())
}

fn ack_of(head: &RequestHead<'_>) -> Result<Ack, String> {
    let value = head.parameter("ack").map_err(|error| error.to_string())?;
    let Some(value) = value else { return Ok(Ack::default()) };
    Ack::parse(&value).ok_or_else(|| format!("Invalid ack: {}", Ack::NAMES))
}

/// What a whole request comes to, given its body: both steps without an edge between them.
#[cfg(test)]
async fn answer_to<S: Store>(
    publisher: &Publisher<S>,
    head: &RequestHead<'_>,
    body: &bytes::Bytes,
    now_s: u64,
) -> Response {
    match publisher.admit(head, now_s) {
        Ok(admission) if body.len() > publisher.body_bytes_max(&admission) => {
            let size = body.len() as u64;
            publisher.body_refused(&admission, BodyError::TooLarge { size })
        }
        Ok(admission) => publisher.publish(&admission, body).await,
        Err(response) => *response,
    }
}

#[cfg(test)]
mod tests;
