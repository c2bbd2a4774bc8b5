//! A channel's log as JSON, in pages, and its head (`docs/channels.md`); for all who ask for history.
//!
//! ```json
//! {"channel":"news","events":[{"id":"5-1","event":"stream","data":{}}],
//!  "head":"5-1","ended":false,"gap":null,"next":"5-1"}
//! ```
//!
//! `next` is what to pass as `after` the next time; a client that does so reads the channel as a
//! subscriber does, with the same cursors, and is told of the same gaps. Without `after` it begins
//! with the oldest event that is kept, and nothing counts as missing.

use serde::Serialize;
use serde_json::value::RawValue;
use zhttp::Cursor;

use super::params::Start;
use super::place::{next_after, place};
use crate::store::{ChannelName, GapReason, Head, Range, RangeLimits, Store, StoreError};

/// Events in a page unless the client says otherwise.
pub(crate) const LIMIT_DEFAULT: u32 = 100;

/// The most events that a client may ask for.
pub(crate) const LIMIT_MAX: u32 = 1000;

/// The most bytes that a page has for each of its events beside its data: the id and the names.
pub(crate) const EVENT_OVERHEAD_BYTES_MAX: usize = 96;

/// The most bytes that a page has beside its events.
pub(crate) const PAGE_OVERHEAD_BYTES_MAX: usize = 512;

/// Reads pages.
#[derive(Clone, Debug)]
pub(crate) struct Pages<S>(pub(crate) S);

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

impl<S: Store> Pages<S> {
    /// Where the channel ends, as JSON.
    ///
    /// # Errors
    ///
    /// If the store failed.
    pub(crate) async fn head(&self, channel: &ChannelName) -> Result<String, StoreError> {
        let Head { id, ended, .. } = self.read_head(channel).await?;
        Ok(serde_json::json!({"head": id.to_string(), "ended": ended}).to_string())
    }

    /// A page, as JSON, as it is at this moment.
    ///
    /// # Errors
    ///
    /// If the store failed.
    pub(crate) async fn page(
        &self,
        channel: &ChannelName,
        start: &Start,
        limits: RangeLimits,
        now_ms: u64,
    ) -> Result<String, StoreError> {
        let start = self.begin(channel, start).await?;
        let range = self.range(channel, &start, limits).await?;
        Ok(render(channel, &start, &range, now_ms))
    }

    /// Where the reader begins in this channel. "From now on" is resolved at once, so that a reader that
    /// waits does not skip what is published meanwhile.
    pub(super) async fn begin(
        &self,
        channel: &ChannelName,
        start: &Start,
    ) -> Result<Start, StoreError> {
        match start.in_channel(channel) {
            Start::Now => Ok(Start::After(self.read_head(channel).await?.id)),
            other => Ok(other),
        }
    }

    /// What is kept from there on.
    pub(super) async fn range(
        &self,
        channel: &ChannelName,
        start: &Start,
        limits: RangeLimits,
    ) -> Result<Range, StoreError> {
        self.0.range(channel, after(start), limits).await
    }

    async fn read_head(&self, channel: &ChannelName) -> Result<Head, StoreError> {
        let heads = self.0.heads(std::slice::from_ref(channel)).await?;
        Ok(heads.first().copied().unwrap_or_default())
    }
}

/// The cursor of a reader that begins so.
pub(super) fn after(start: &Start) -> Cursor {
    match start {
        Start::After(cursor) => *cursor,
        Start::Oldest | Start::Now | Start::Composite(_) => Cursor::START,
    }
}

/// A page, as JSON.
pub(super) fn render(channel: &ChannelName, start: &Start, range: &Range, now_ms: u64) -> String {
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
    let page = Page {
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
    };
    serde_json::to_string(&page).expect("strings, numbers and JSON are JSON")
}

/// Event data as it stands. What is in the store was rendered by us, and is JSON; should something
/// else have got there, the answer stays JSON.
fn raw(data: &[u8]) -> &RawValue {
    serde_json::from_slice(data).unwrap_or(RawValue::NULL)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bytes::Bytes;

    use super::*;
    use crate::store::{EventKind, Gap, StoredEvent};

    #[test]
    fn a_page_is_no_larger_than_is_said() {
        let last = Cursor::new(i64::MAX as u64, i64::MAX as u64);
        let data = Bytes::from_static(b"{}");
        let event =
            StoredEvent { id: last, prev: last, end: false, kind: EventKind::Control, data };
        let gap = Gap { prev: last, first: last, reason: GapReason::Recreated };
        let channel = ChannelName::new(&"o".repeat(64), &"c".repeat(128)).unwrap();
        let head = Head { id: last, ended: false, oldest_prev: last };
        let size = |count| {
            let range = Range { events: vec![event.clone(); count], head, gap: Some(gap) };
            render(&channel, &Start::After(Cursor::new(1, 1)), &range, 0).len()
        };
        assert!(size(0) <= PAGE_OVERHEAD_BYTES_MAX, "{}", size(0));
        assert!(size(2) - size(1) <= EVENT_OVERHEAD_BYTES_MAX + 2, "{}", size(2) - size(1));
    }
}
