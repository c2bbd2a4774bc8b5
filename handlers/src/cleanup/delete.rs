//! `DELETE /channels/{org}/{channel}`: a publisher is done with a channel.
//!
//! The log gets an END of type `deleted`, and from then on lives for [`Limits::delete_linger`] only:
//! the store drops it by itself, so nothing has to be remembered for the second step. Deleting at
//! once was rejected: readers that are behind would ask for a log that is not there, and those that
//! are live would learn of it by an announcement, which may get lost. An END in the log reaches all
//! of them by the rules that carry any event. Who is still behind after the linger is told by a
//! feeder that its log is gone.
//!
//! A channel that had ended already gets that END too, in an epoch of its own. A channel whose last
//! event is the END of a deletion is left alone, so that asking twice does not prolong its life. The
//! END is appended only behind the very event that was looked at: a publisher that is faster makes
//! it look again ([`ATTEMPTS_MAX`]), and two deletions at once are one.

use zhttp::Cursor;

use crate::attach::Response;
use crate::auth::{AuthError, Verifier, bearer};
use crate::control::{EndReason, end_event};
use crate::roles::Limits;
use crate::store::{
    AppendError, ChannelName, Conditions, RangeLimits, Retention, Store, StoreError,
};
use crate::web::{self, RequestHead};

use super::sweep::ms;

/// Where the route begins; reading has the same path.
const PREFIX: &str = "/channels/";

/// How often it is looked where the log ends. Each time but the last a publisher was faster than the
/// two round trips of a look and an append; one who always is has not stopped publishing, and the
/// deletion is answered with a 503, to be asked again.
const ATTEMPTS_MAX: u32 = 16;

/// Answers deletions.
#[derive(Clone, Debug)]
pub(crate) struct Delete<S> {
    pub(crate) store: S,
    pub(crate) verifier: Verifier,
    pub(crate) limits: Limits,
}

impl<S: Store> Delete<S> {
    /// Answers `DELETE` at `now_s`, in seconds since 1970: 204, or 404 if there is no such channel.
    pub(crate) async fn answer(&self, head: &RequestHead<'_>, now_s: u64) -> Response {
        let rest = head.path.strip_prefix(PREFIX).unwrap_or_default();
        let channel = match web::channel_of_path(rest) {
            Some(Ok(channel)) => channel,
            Some(Err(error)) => return Response::text(400, error.to_string()),
            None => return web::not_found(),
        };
        let token = match bearer(head.header("authorization")) {
            Ok(token) => token,
            Err(error) => return web::unauthorized(error.to_string()),
        };
        if let Err(error) = self.authorize(token, &channel, now_s) {
            return web::token_refused(error.publish_answer());
        }
        match self.delete(&channel).await {
            Ok(true) => Response::new(204),
            Ok(false) => Response::text(404, "Unknown channel"),
            Err(error) => {
                tracing::warn!(%channel, %error, "a channel was not deleted");
                web::unavailable(web::STORE_AWAY)
            }
        }
    }

    fn authorize(&self, token: &str, channel: &ChannelName, now_s: u64) -> Result<(), AuthError> {
        self.verifier.authorize(token, channel.org(), &[channel.channel()], now_s)?;
        Ok(())
    }

    /// Returns whether there was anything to delete.
    async fn delete(&self, channel: &ChannelName) -> Result<bool, StoreError> {
        for _ in 0..ATTEMPTS_MAX {
            let heads = self.store.heads(std::slice::from_ref(channel)).await?;
            let head = heads.first().copied().unwrap_or_default();
            if head.id == Cursor::START {
                return Ok(false);
            }
            if head.ended && self.is_deleted(channel, head.id).await? {
                return Ok(true);
            }
            if self.end(channel, head.id).await? {
                return Ok(true);
            }
        }
        Err(StoreError::Unavailable("others publish to the channel all the time".to_owned()))
    }

    /// Appends the END if that is still the head, which may be an END itself. The same deletion at
    /// the same head has the same message id, and so is done once.
    async fn end(&self, channel: &ChannelName, head: Cursor) -> Result<bool, StoreError> {
        let event = end_event(channel, head, EndReason::Deleted);
        let linger_ms = ms(self.limits.delete_linger);
        let retention = Retention { end_ttl_ms: linger_ms, ..self.limits.retention() };
        let conditions = Conditions { fence: Some(head), retention, ..Conditions::default() };
        match self.store.append(channel, event, &conditions).await {
            Ok(_) => Ok(true),
            Err(AppendError::Conflict { .. }) => Ok(false),
            Err(AppendError::Unavailable(error)) => Err(error),
            Err(AppendError::RateLimited { .. }) => unreachable!("no rate was asked for"),
        }
    }

    /// Whether the last event of a channel is the END of a deletion. What such an event looks like
    /// follows from the event before it.
    async fn is_deleted(&self, channel: &ChannelName, head: Cursor) -> Result<bool, StoreError> {
        let before = Cursor::new(head.epoch, head.offset - 1);
        let limits = RangeLimits { events_max: 1, bytes_max: u64::MAX };
        let range = self.store.range(channel, before, limits).await?;
        Ok(range.events.first().is_some_and(|last| {
            last.data == end_event(channel, last.prev, EndReason::Deleted).data
        }))
    }
}
