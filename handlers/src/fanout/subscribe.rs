//! `GET /events/{org}`: who may read what, from where; then the connection is the edge's.
//!
//! The request is answered with the head of an event stream, its `retry:` field, and a hold
//! (`zhttp-spec/hold.md` §3). From then on no handler knows of the connection: events come to it
//! from whichever feeder the edge asks.
//!
//! # Where a reader is put
//!
//! [`place`] decides it for each channel, from the cursor that the client named and the channel's
//! head:
//!
//! | the client | the channel | it begins |
//! | --- | --- | --- |
//! | names none | | before the oldest event that is kept |
//! | says `$` | | at the head, also if that is an END: what comes then is a new epoch. It is told the id |
//! | has the END | has ended | not at all: it has everything. If that is so for all its channels, 204 |
//! | is beyond the head | has lost its tail | there: the log goes on beyond what it lost ([`mend_if_torn`]), and the edge tells it of the gap |
//! | is beyond the head | is there | at the head, and is told of a gap: its log is gone. Closed behind that if the head is an END |
//! | names any other | | there. If that is before what is kept, the edge tells it of the gap |
//!
//! A cursor in a channel that is unknown is kept: should the channel be made anew, its reader is
//! told of the gap. Only a cursor from the future is not, as it would match no event ever.
//!
//! # While the store is away
//!
//! An EventSource that gets anything but a 200 stops for good, so it gets one, and is held at the
//! cursor that it came with: it goes on when the store is back. Without a cursor that is the
//! beginning; then it may be told of a gap before the oldest event. With `$` there is nothing to
//! hold it at, and the response ends at once: it comes back by itself. A client that does not ask
//! for an event stream gets a 503.

use std::time::Duration;

use zhttp::Cursor;
use zhttp::hold::Format;

use super::heads::HeadsReader;
use super::lost::{LostTail, mend_if_torn};
use super::params::{Start, Subscription};
use crate::attach::{HeldChannel, Hold, Response};
use crate::auth::{AuthError, LEEWAY_S, Verifier};
use crate::control::gap_data;
use crate::store::{ChannelName, GapReason, Head, Retention, Store, StoreError};
use crate::web::{self, RequestHead};

/// Where the route begins.
pub(crate) const PREFIX: &str = "/events/";

/// The methods of the route.
const METHODS: &str = "GET, OPTIONS";

/// A comment goes to a reader that got nothing for that long (`docs/channels.md`).
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long an EventSource waits before it connects again, in milliseconds.
const RETRY_MS: u32 = 500;

/// How far ahead of our clock a cursor's epoch may lie, in milliseconds: clocks differ, and epochs
/// run ahead of them if a channel ends more than a thousand times in a second.
const EPOCH_AHEAD_MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// Bytes of gaps that are told in the response itself: with the rest of it they fit the 8 KiB that
/// an edge takes in one packet. Channels whose gap has no room begin at [`BEFORE_ALL_LOGS`].
const GAP_BYTES_MAX: usize = 4096;

/// A place in no log that there is, or will be: its reader is told by the edge of a gap, and gets
/// all that is kept.
const BEFORE_ALL_LOGS: Cursor = Cursor::new(1, 0);

/// Answers subscribers.
#[derive(Debug)]
pub(crate) struct Subscribe<S> {
    pub(crate) store: S,
    pub(crate) verifier: Verifier,
    pub(crate) heads: HeadsReader,
    /// How long its own events are kept.
    pub(crate) retention: Retention,
    /// Whether a connection is closed when its token has expired.
    pub(crate) close_at_expiry: bool,
}

impl<S: Store> Subscribe<S> {
    /// Answers at `now_ms`, in milliseconds since 1970. `can_hold` says whether the edge holds
    /// connections.
    pub(crate) async fn answer(
        &self,
        head: &RequestHead<'_>,
        can_hold: bool,
        now_ms: u64,
    ) -> Response {
        let org = head.path.strip_prefix(PREFIX).filter(|org| !org.is_empty());
        let Some(org) = org.filter(|org| !org.contains('/')) else { return web::not_found() };
        match head.method {
            "GET" => {}
            "OPTIONS" => return web::preflight(METHODS),
            _ => return web::method_not_allowed(METHODS),
        }
        let subscription = match Subscription::parse(head, org) {
            Ok(subscription) => subscription,
            Err(error) => return Response::text(400, error.to_string()),
        };
        let now_s = now_ms / 1000;
        let expires_s = match self.authorize(&subscription, now_s) {
            Ok(expires_s) => expires_s,
            Err(error) => return web::token_refused(error.subscribe_answer()),
        };
        if !can_hold {
            return Response::text(501, "This edge does not hold connections");
        }
        let expires = self
            .close_at_expiry
            .then(|| Duration::from_secs((expires_s + LEEWAY_S).saturating_sub(now_s).max(1)));
        match self.read_heads(&subscription).await {
            Ok(heads) => placed(&subscription, &heads, now_ms, expires),
            Err(error) => {
                tracing::warn!(%error, "a subscriber came while the store is away");
                if asks_for_events(head) {
                    unplaced(&subscription, expires)
                } else {
                    web::unavailable(web::STORE_AWAY)
                }
            }
        }
    }

    /// The heads of its channels. If it is beyond one, and that log has lost its tail, the log has gone
    /// on when this returns.
    async fn read_heads(&self, subscription: &Subscription) -> Result<Vec<Head>, StoreError> {
        let channels = &subscription.channels;
        let heads = self.heads.read(channels.clone()).await?;
        let mut is_old = false;
        for (channel, &head) in channels.iter().zip(&heads) {
            let Start::After(seen) = subscription.start.in_channel(channel) else { continue };
            if head.id != Cursor::START && seen > head.id {
                let lost = LostTail { channel: channel.clone(), head, seen };
                is_old |= mend_if_torn(&self.store, self.retention, lost).await?;
            }
        }
        if is_old { self.heads.read(channels.clone()).await } else { Ok(heads) }
    }

    /// Until when the token is good, in seconds since 1970.
    fn authorize(&self, subscription: &Subscription, now_s: u64) -> Result<u64, AuthError> {
        let token = subscription.token.as_deref().ok_or(AuthError::Invalid("no token"))?;
        let channels: Vec<&str> = subscription.channels.iter().map(ChannelName::channel).collect();
        let claims = self.verifier.authorize(token, &subscription.org, &channels, now_s)?;
        Ok(claims.expires_s)
    }
}

/// Whether the client names the type of event streams as one that it takes. `*/*` does not count:
/// an EventSource always names it (WHATWG HTML §9.2.2).
fn asks_for_events(head: &RequestHead<'_>) -> bool {
    let accept = head.header("accept").unwrap_or_default();
    let types = accept.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let essence = |one: &[u8]| one.split(|&byte| byte == b';').next().unwrap_or_default().to_vec();
    types.map(essence).any(|one| one.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// Where a reader begins in one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) cursor: Cursor,
    /// The cursor that it came with, which fits no event of this log.
    pub(super) lost: Option<Cursor>,
    /// It has everything, and nothing follows.
    pub(super) finished: bool,
}

/// See "Where a reader is put" above.
pub(super) fn place(start: &Start, head: Head, now_ms: u64) -> Place {
    let at = |cursor| Place { cursor, lost: None, finished: false };
    let after = match start {
        Start::Oldest | Start::Composite(_) => return at(head.oldest_prev),
        Start::Now => return at(head.id),
        Start::After(cursor) => *cursor,
    };
    let is_known = head.id != Cursor::START;
    let is_from_the_future = after.epoch > now_ms.saturating_add(EPOCH_AHEAD_MAX_MS);
    if (is_known && after > head.id) || (!is_known && is_from_the_future) {
        return Place { cursor: head.id, lost: Some(after), finished: head.ended };
    }
    Place { finished: is_known && head.ended && after == head.id, ..at(after) }
}

/// The first event that a reader can get who was put at the head of a log that has not ended.
pub(super) fn next_after(head: Cursor) -> Cursor {
    if head == Cursor::START { head } else { head.plus(1) }
}

fn placed(
    subscription: &Subscription,
    heads: &[Head],
    now_ms: u64,
    expires: Option<Duration>,
) -> Response {
    let start = |channel| subscription.start.in_channel(channel);
    let of_all = subscription.channels.iter().zip(heads);
    let places: Vec<Place> =
        of_all.map(|(channel, head)| place(&start(channel), *head, now_ms)).collect();
    if places.iter().all(|place| place.finished && place.lost.is_none()) {
        return Response::new(204);
    }
    let mut channels: Vec<HeldChannel> = subscription
        .channels
        .iter()
        .zip(&places)
        .map(|(channel, place)| HeldChannel {
            name: channel.to_string(),
            cursor: place.cursor,
            ended: place.finished,
        })
        .collect();
    let mut gaps = Vec::new();
    let mut gap_bytes = 0;
    for ((channel, place), hold) in subscription.channels.iter().zip(&places).zip(&mut channels) {
        let Some(lost) = place.lost else { continue };
        let gap = gap_data(channel, lost, next_after(place.cursor), GapReason::Recreated);
        gap_bytes += gap.len();
        if gap_bytes <= GAP_BYTES_MAX {
            gaps.push(gap);
        } else {
            hold.cursor = BEFORE_ALL_LOGS;
        }
    }
    let mut body = stream_start();
    if subscription.start == Start::Now {
        // Without it, who comes back before the first event would begin at a later "now", and miss
        // what was between. Data without a line dispatches no event (WHATWG HTML §9.2.6).
        body.push_str(&format!("id: {}\n\n", id_of(&channels)));
    }
    let last = gaps.len().saturating_sub(1);
    for (index, gap) in gaps.iter().enumerate() {
        body.push_str("event: control\n");
        // One id says it for all channels: so only the last one has it.
        if index == last {
            body.push_str(&format!("id: {}\n", id_of(&channels)));
        }
        body.push_str(&format!("data: {gap}\n\n"));
    }
    stream(body).hold(hold(channels, expires))
}

/// The answer while the store is away.
fn unplaced(subscription: &Subscription, expires: Option<Duration>) -> Response {
    let cursor = |channel| match subscription.start.in_channel(channel) {
        Start::After(cursor) => cursor,
        Start::Oldest | Start::Now | Start::Composite(_) => Cursor::START,
    };
    if subscription.start == Start::Now {
        return stream(stream_start());
    }
    let channels = subscription.channels.iter();
    let channels = channels.map(|channel| HeldChannel::new(channel.to_string(), cursor(channel)));
    let channels = channels.collect();
    stream(stream_start()).hold(hold(channels, expires))
}

fn hold(channels: Vec<HeldChannel>, expires: Option<Duration>) -> Hold {
    Hold {
        format: Format::Sse,
        channels,
        keep_alive: KEEP_ALIVE,
        expires,
        context: bytes::Bytes::new(),
        notify: false,
    }
}

fn stream_start() -> String {
    format!("retry: {RETRY_MS}\n\n")
}

fn stream(body: String) -> Response {
    Response::new(200)
        .header("Content-Type", "text/event-stream")
        .header("Cache-Control", "no-cache")
        .header("X-Accel-Buffering", "no")
        .body(body)
}

/// The id that says where a connection stands in all its channels (H-60).
fn id_of(channels: &[HeldChannel]) -> String {
    if let [channel] = channels {
        return channel.cursor.to_string();
    }
    let mut out = Vec::new();
    let named = channels.iter().map(|channel| (channel.name.as_str(), channel.cursor));
    // 100 channels always fit (H-73); if not, an empty id makes the client begin anew.
    let _ = zhttp::composite::encode(named, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

#[cfg(test)]
mod tests;
