//! `GET /events/{org}`: who may read what, from where; then the connection is the edge's.
//!
//! The request is answered with the head of an event stream, its `retry:` field, and a hold
//! (`zhttp-spec/hold.md` §3). From then on no handler knows of the connection: events come to it
//! from whichever feeder the edge asks.
//!
//! Where it begins in each channel is decided in [`place`](super::place). A client that has the END of
//! all its channels gets a 204, which stops an EventSource: nothing follows.
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

use super::params::{Start, Subscription};
use super::place::{Place, Placer};
use crate::attach::{HeldChannel, Hold, Response};
use crate::auth::{AuthError, LEEWAY_S, Verifier};
use crate::store::{ChannelName, Store};
use crate::web::{self, RequestHead};

/// Where the route begins.
pub(crate) const PREFIX: &str = "/events/";

/// The methods of the route.
const METHODS: &str = "GET, OPTIONS";

/// How long an EventSource waits before it connects again, in milliseconds.
const RETRY_MS: u32 = 500;

/// Bytes of gaps that are told in the response itself: with the rest of it they fit the 8 KiB that
/// an edge takes in one packet. Channels whose gap has no room begin at [`BEFORE_ALL_LOGS`].
const GAP_BYTES_MAX: usize = 4096;

/// A place in no log that there is, or will be: its reader is told by the edge of a gap, and gets
/// all that is kept.
const BEFORE_ALL_LOGS: Cursor = Cursor::new(1, 0);

/// Answers subscribers.
#[derive(Debug)]
pub(crate) struct Subscribe<S> {
    pub(crate) placer: Placer<S>,
    pub(crate) verifier: Verifier,
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
        let in_channel = |name: &ChannelName| (name.clone(), subscription.start.in_channel(name));
        let wanted: Vec<_> = subscription.channels.iter().map(in_channel).collect();
        match self.placer.places(&wanted, now_ms).await {
            Ok(places) => placed(&subscription, &places, expires),
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

fn placed(subscription: &Subscription, places: &[Place], expires: Option<Duration>) -> Response {
    if places.iter().all(|place| place.finished && place.lost.is_none()) {
        return Response::new(204);
    }
    let mut channels: Vec<HeldChannel> = subscription
        .channels
        .iter()
        .zip(places)
        .map(|(channel, place)| HeldChannel {
            name: channel.to_string(),
            cursor: place.cursor,
            ended: place.finished,
        })
        .collect();
    let mut gaps = Vec::new();
    let mut gap_bytes = 0;
    for ((channel, place), hold) in subscription.channels.iter().zip(places).zip(&mut channels) {
        let Some(gap) = place.gap(channel) else { continue };
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
    Hold { expires, ..Hold::new(Format::Sse, channels) }
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
