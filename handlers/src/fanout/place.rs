//! Where a reader is put in a channel, whatever it reads by.
//!
//! [`place`] decides it, from the cursor that the client named and the channel's head:
//!
//! | the client | the channel | it begins |
//! | --- | --- | --- |
//! | names none | | before the oldest event that is kept |
//! | says `$` | | at the head, also if that is an END: what comes then is a new epoch. It is told the id |
//! | has the END | has ended | there: it has everything ([`Place::finished`]) |
//! | is beyond the head | has lost its tail | there: the log goes on beyond what it lost ([`mend_if_torn`]), and the edge tells it of the gap |
//! | is beyond the head | is there | at the head, and is told of a gap ([`Place::gap`]): its log is gone |
//! | names any other | | there. If that is before what is kept, the edge tells it of the gap |
//!
//! A cursor in a channel that is unknown is kept: should the channel be made anew, its reader is
//! told of the gap. Only a cursor from the future is not, as it would match no event ever.

use zhttp::Cursor;

use super::heads::HeadsReader;
use super::lost::{LostTail, mend_if_torn};
use super::params::Start;
use crate::control::gap_data;
use crate::store::{ChannelName, GapReason, Head, Retention, Store, StoreError};

/// How far ahead of our clock a cursor's epoch may lie, in milliseconds: clocks differ, and epochs
/// run ahead of them if a channel ends more than a thousand times in a second.
const EPOCH_AHEAD_MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// Finds out where readers begin.
#[derive(Clone, Debug)]
pub(crate) struct Placer<S> {
    pub(crate) store: S,
    pub(crate) heads: HeadsReader,
    /// How long its own events are kept.
    pub(crate) retention: Retention,
}

impl<S: Store> Placer<S> {
    /// The places of a reader that begins so in these channels, in their order; all from one look at
    /// the store, after this was called. `now_ms` is in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// If the store failed.
    pub(crate) async fn places(
        &self,
        wanted: &[(ChannelName, Start)],
        now_ms: u64,
    ) -> Result<Vec<Place>, StoreError> {
        let heads = self.read_heads(wanted).await?;
        let placed = |((_, start), head): (&(ChannelName, Start), _)| place(start, head, now_ms);
        Ok(wanted.iter().zip(heads).map(placed).collect())
    }

    /// The heads of the channels. If the reader is beyond one, and that log has lost its tail, the log
    /// has gone on when this returns.
    async fn read_heads(&self, wanted: &[(ChannelName, Start)]) -> Result<Vec<Head>, StoreError> {
        let channels = || wanted.iter().map(|(channel, _)| channel.clone()).collect();
        let heads = self.heads.read(channels()).await?;
        let mut is_old = false;
        for ((channel, start), &head) in wanted.iter().zip(&heads) {
            let Start::After(seen) = *start else { continue };
            if head.id != Cursor::START && seen > head.id {
                let lost = LostTail { channel: channel.clone(), head, seen };
                is_old |= mend_if_torn(&self.store, self.retention, lost).await?;
            }
        }
        if is_old { self.heads.read(channels()).await } else { Ok(heads) }
    }
}

/// Where a reader begins in one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) cursor: Cursor,
    /// The cursor that it came with, which fits no event of this log.
    pub(crate) lost: Option<Cursor>,
    /// It has everything, and nothing follows.
    pub(crate) finished: bool,
}

impl Place {
    /// What the reader is told if its log is gone: the data of a control event.
    pub(crate) fn gap(&self, channel: &ChannelName) -> Option<String> {
        let to = next_after(self.cursor);
        self.lost.map(|from| gap_data(channel, from, to, GapReason::Recreated))
    }
}

/// See the table above. `start` is where the reader is in this channel, and so never composite.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::NOW_MS;

    #[test]
    fn a_cursor_in_an_unknown_channel_is_kept() {
        let after = |cursor| place(&Start::After(cursor), Head::default(), NOW_MS);
        let kept = Cursor::new(NOW_MS, 3);
        assert_eq!(after(kept), Place { cursor: kept, lost: None, finished: false });
        let future = Cursor::new(u64::MAX, 3);
        let expected = Place { cursor: Cursor::START, lost: Some(future), finished: false };
        assert_eq!(after(future), expected);
        let oldest = place(&Start::Oldest, Head::default(), NOW_MS);
        assert_eq!(oldest.cursor, Cursor::START);
    }

    #[test]
    fn who_is_beyond_an_end_is_told_before_it_is_over() {
        let end = Cursor::new(5, 9);
        let head = Head { id: end, ended: true, oldest_prev: Cursor::new(5, 4) };
        let after = |cursor| place(&Start::After(cursor), head, NOW_MS);
        assert_eq!(after(end), Place { cursor: end, lost: None, finished: true });
        let beyond = Cursor::new(6, 1);
        assert_eq!(after(beyond), Place { cursor: end, lost: Some(beyond), finished: true });
        assert_eq!(after(Cursor::new(5, 8)), Place { finished: false, ..after(Cursor::new(5, 8)) });
    }

    #[test]
    fn a_reader_without_a_cursor_begins_before_the_oldest_event() {
        let (id, oldest_prev) = (Cursor::new(5, 9), Cursor::new(5, 4));
        let head = Head { id, ended: true, oldest_prev };
        assert_eq!(place(&Start::Oldest, head, NOW_MS).cursor, oldest_prev);
        assert!(!place(&Start::Oldest, head, NOW_MS).finished);
        assert_eq!(place(&Start::After(Cursor::new(3, 1)), head, NOW_MS).cursor, Cursor::new(3, 1));
    }
}
