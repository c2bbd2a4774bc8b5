//! `GET /channels/{org}/{channel}`: history as JSON, and long polls; `…/head`: where a channel ends.
//!
//! ```json
//! {"channel":"news","events":[{"id":"5-1","event":"stream","data":{}}],
//!  "head":"5-1","ended":false,"gap":null,"next":"5-1"}
//! ```
//!
//! `next` is what to pass as `after` the next time; a client that does so reads the channel as an
//! event stream does, with the same cursors, and is told of the same gaps. Without `after` it
//! begins with the oldest event that is kept, and nothing counts as missing.
//!
//! With `wait` an answer without events is held back until there is one, for so many seconds at the
//! most. Nobody polls the store meanwhile: the wait is the feeder's, which follows the channel anyway
//! or begins to, and then it is read once more. A channel that has ended, and a gap, are worth an
//! answer by themselves.

use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use zhttp::Cursor;

use super::feeder::{EdgeSink, FeederHandle};
use super::params::{Start, token_of};
use super::subscribe::{next_after, place};
use crate::attach::Response;
use crate::auth::{AuthError, Verifier};
use crate::health::Draining;
use crate::store::{ChannelName, GapReason, Head, Range, RangeLimits, Store, StoreError};
use crate::web::{self, RequestHead};

/// Where the routes begin.
pub(crate) const PREFIX: &str = "/channels/";

/// What follows the channel in the path of its head.
const HEAD_SUFFIX: &str = "/head";

/// Events in an answer unless the client says otherwise.
const LIMIT_DEFAULT: u32 = 100;

/// The most events that a client may ask for.
const LIMIT_MAX: u32 = 1000;

/// The longest that a client may wait, in seconds: shorter than what proxies allow.
const WAIT_MAX_S: u64 = 30;

/// Bytes of event data in an answer, but one event at least; the client goes on at `next`.
const HISTORY_BYTES_MAX: u64 = 1024 * 1024;

/// Reads channels for those who do not want a stream.
pub(crate) struct History<S, E> {
    pub(crate) store: S,
    pub(crate) verifier: Verifier,
    pub(crate) feeder: FeederHandle<E>,
    pub(crate) draining: Draining,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ask {
    start: Start,
    limit: u32,
    wait: Duration,
}

/// The answer.
#[derive(Serialize)]
struct Page<'a> {
    channel: &'a str,
    events: Vec<PageEvent<'a>>,
    head: String,
    ended: bool,
    gap: Option<PageGap>,
    next: String,
}

#[derive(Serialize)]
struct PageEvent<'a> {
    id: String,
    event: &'static str,
    data: &'a RawValue,
}

#[derive(Serialize)]
struct PageGap {
    from: String,
    to: String,
    reason: &'static str,
}

impl<S: Store, E: EdgeSink> History<S, E> {
    /// Answers `GET` at `now_ms`, in milliseconds since 1970.
    pub(crate) async fn answer(&self, head: &RequestHead<'_>, now_ms: u64) -> Response {
        let Some(rest) = head.path.strip_prefix(PREFIX) else { return web::not_found() };
        let (rest, of_head) = match rest.strip_suffix(HEAD_SUFFIX) {
            // A channel may be called "head": then there is no slash before its org.
            Some(channel) if channel.contains('/') => (channel, true),
            Some(_) | None => (rest, false),
        };
        let channel = match web::channel_of_path(rest) {
            Some(Ok(channel)) => channel,
            Some(Err(error)) => return Response::text(400, error.to_string()),
            None => return web::not_found(),
        };
        let ask = match Ask::parse(head) {
            Ok(ask) => ask,
            Err(text) => return Response::text(400, text),
        };
        if let Err(error) = self.authorize(head, &channel, now_ms / 1000) {
            return web::token_refused(error.subscribe_answer());
        }
        let answer = if of_head {
            self.head(&channel).await
        } else {
            self.page(&channel, ask, now_ms).await
        };
        answer.unwrap_or_else(|error| {
            tracing::warn!(%channel, %error, "history could not be read");
            web::unavailable(web::STORE_AWAY)
        })
    }

    fn authorize(
        &self,
        head: &RequestHead<'_>,
        channel: &ChannelName,
        now_s: u64,
    ) -> Result<(), AuthError> {
        let token = token_of(head).ok().flatten().ok_or(AuthError::Invalid("no token"))?;
        self.verifier.authorize(&token, channel.org(), &[channel.channel()], now_s)?;
        Ok(())
    }

    async fn read_head(&self, channel: &ChannelName) -> Result<Head, StoreError> {
        let heads = self.store.heads(std::slice::from_ref(channel)).await?;
        Ok(heads.first().copied().unwrap_or_default())
    }

    async fn head(&self, channel: &ChannelName) -> Result<Response, StoreError> {
        let Head { id, ended, .. } = self.read_head(channel).await?;
        Ok(json(&serde_json::json!({"head": id.to_string(), "ended": ended})))
    }

    async fn page(
        &self,
        channel: &ChannelName,
        ask: Ask,
        now_ms: u64,
    ) -> Result<Response, StoreError> {
        let start = match ask.start.in_channel(channel) {
            // Resolved at once, so that what is published during the wait is not skipped.
            Start::Now => Start::After(self.read_head(channel).await?.id),
            other => other,
        };
        let after = match start {
            Start::After(cursor) => cursor,
            Start::Oldest | Start::Now | Start::Composite(_) => Cursor::START,
        };
        let limits = RangeLimits { events_max: ask.limit, bytes_max: HISTORY_BYTES_MAX };
        let mut range = self.store.range(channel, after, limits).await?;
        let is_poll = !ask.wait.is_zero() && range.events.is_empty() && range.gap.is_none();
        let place_now = place(&start, range.head, now_ms);
        if is_poll && !range.head.ended && place_now.lost.is_none() {
            tokio::select! {
                () = self.feeder.wait(channel.clone(), after) => {}
                () = tokio::time::sleep(ask.wait) => {}
                // The client asks again, of a handler that stays.
                () = self.draining.begun() => {}
            }
            range = self.store.range(channel, after, limits).await?;
        }
        Ok(page(channel, &start, &range, now_ms))
    }
}

impl Ask {
    /// Reads the parameters; `Err` is the body of the 400.
    fn parse(head: &RequestHead<'_>) -> Result<Self, String> {
        let parameter =
            |name| head.parameter(name).map_err(|error| format!("Invalid query: {error}"));
        let after = parameter("after")?.unwrap_or_default();
        let start = Start::parse(&after).map_err(|error| format!("Invalid after: {error}"))?;
        let limit = match parameter("limit")? {
            Some(text) => {
                let limit = number(&text).and_then(|number| u32::try_from(number).ok());
                limit
                    .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                    .ok_or_else(|| format!("Invalid limit: 1 to {LIMIT_MAX} events"))?
            }
            None => LIMIT_DEFAULT,
        };
        let wait = match parameter("wait")? {
            Some(text) => number(&text)
                .filter(|seconds| *seconds <= WAIT_MAX_S)
                .ok_or_else(|| format!("Invalid wait: 0 to {WAIT_MAX_S} seconds"))?,
            None => 0,
        };
        Ok(Ask { start, limit, wait: Duration::from_secs(wait) })
    }
}

/// A decimal number without a sign.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn page(channel: &ChannelName, start: &Start, range: &Range, now_ms: u64) -> Response {
    let Range { events, head, gap } = range;
    let place = place(start, *head, now_ms);
    let next = match (events.last(), gap) {
        (Some(event), _) => event.id,
        (None, Some(gap)) => gap.prev,
        (None, None) => place.cursor,
    };
    let gap = match (start, place.lost, gap) {
        (Start::After(from), Some(_), _) => {
            Some((*from, next_after(place.cursor), GapReason::Recreated))
        }
        (Start::After(from), None, Some(gap)) => Some((*from, gap.first, gap.reason)),
        _ => None,
    };
    let events = events.iter().map(|event| PageEvent {
        id: event.id.to_string(),
        event: event.kind.as_str(),
        data: raw(&event.data),
    });
    json(&Page {
        channel: channel.channel(),
        events: events.collect(),
        head: head.id.to_string(),
        ended: head.ended,
        gap: gap.map(|(from, to, reason)| PageGap {
            from: from.to_string(),
            to: to.to_string(),
            reason: reason.as_str(),
        }),
        next: next.to_string(),
    })
}

/// Event data as it stands. What is in the store was rendered by us, and is JSON; should something
/// else have got there, the answer stays JSON.
fn raw(data: &[u8]) -> &RawValue {
    serde_json::from_slice(data).unwrap_or(RawValue::NULL)
}

fn json(value: &impl Serialize) -> Response {
    let body = serde_json::to_string(value).expect("strings, numbers and JSON are JSON");
    Response::json(200, body).header("Cache-Control", "no-store")
}

#[cfg(test)]
mod tests;
