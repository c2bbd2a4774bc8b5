//! `GET /channels/{org}/{channel}`: history as JSON, and long polls; `…/head`: where a channel ends.
//!
//! What a page holds is said in [`pages`]. With `wait` an answer without events is held back until
//! there is one, for so many seconds at the most. Nobody polls the store meanwhile: the wait is the
//! feeder's, which follows the channel anyway or begins to, and then it is read once more. A channel
//! that has ended, and a gap, are worth an answer by themselves.

use std::time::Duration;

use super::feeder::{EdgeSink, FeederHandle};
use super::pages::{self, LIMIT_DEFAULT, LIMIT_MAX, Pages};
use super::params::{Start, token_of};
use super::place::place;
use crate::attach::Response;
use crate::auth::{AuthError, Verifier};
use crate::health::Draining;
use crate::store::{ChannelName, RangeLimits, Store, StoreError};
use crate::web::{self, RequestHead};

/// Where the routes begin.
pub(crate) const PREFIX: &str = "/channels/";

/// What follows the channel in the path of its head.
const HEAD_SUFFIX: &str = "/head";

/// The longest that a client may wait, in seconds: shorter than what proxies allow.
const WAIT_MAX_S: u64 = 30;

/// Bytes of event data in an answer, but one event at least; the client goes on at `next`.
const HISTORY_BYTES_MAX: u64 = 1024 * 1024;

/// Reads channels for those who do not want a stream.
pub(crate) struct History<S, E> {
    pub(crate) pages: Pages<S>,
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
            self.pages.head(&channel).await
        } else {
            self.page(&channel, ask, now_ms).await
        };
        answer.map(json).unwrap_or_else(|error| {
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

    async fn page(
        &self,
        channel: &ChannelName,
        ask: Ask,
        now_ms: u64,
    ) -> Result<String, StoreError> {
        let start = self.pages.begin(channel, &ask.start).await?;
        let limits = RangeLimits { events_max: ask.limit, bytes_max: HISTORY_BYTES_MAX };
        let mut range = self.pages.range(channel, &start, limits).await?;
        let is_poll = !ask.wait.is_zero() && range.events.is_empty() && range.gap.is_none();
        let place_now = place(&start, range.head, now_ms);
        if is_poll && !range.head.ended && place_now.lost.is_none() {
            tokio::select! {
                () = self.feeder.wait(channel.clone(), pages::after(&start)) => {}
                () = tokio::time::sleep(ask.wait) => {}
                // The client asks again, of a handler that stays.
                () = self.draining.begun() => {}
            }
            range = self.pages.range(channel, &start, limits).await?;
        }
        Ok(pages::render(channel, &start, &range, now_ms))
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

fn json(body: String) -> Response {
    Response::json(200, body).header("Cache-Control", "no-store")
}

#[cfg(test)]
mod tests;
