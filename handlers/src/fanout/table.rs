//! Which channels are fed to whom, and what is known of each: the feeder's state, without any I/O.
//!
//! A channel is in the table while an edge is fed with it or somebody waits for its next event, and
//! a little longer. It is followed once, however many edges and waiting requests there are. For each
//! the table knows where its log ends, as far as was heard: from announcements, and from heads that
//! were read. An entry is some 150 bytes and the name.
//!
//! A head that is heard of can be older than one heard before, since reads and announcements come
//! on different ways: then it is ignored. But that a log is *shorter* than it was is news, if it was
//! read for certain after that was known: then the store has lost its tail, or all of it by its
//! deletion or expiry. Those who were live in it would wait in vain, so the table says so
//! ([`HeadNews::Lost`]), each time that it is read, until the log has gone on. Only one that had ended
//! goes quietly: its readers know.
//!
//! That news must not be older than the log. A channel that is read for the first time is often
//! published to in the same moment: the read finds nothing, the first event is announced, and only
//! then does the answer arrive. So each read has the moment in which it was asked for ([`Asked`]),
//! and what was learned after it makes it doubtful ([`HeadNews::Doubtful`]): then it is read again.
//!
//! To be in the table is not to be followed: that takes the store, and may fail, or find no room. Edges are told the head
//! of a channel regularly only once it is confirmed ([`Table::handle_followed`]): an edge that hears nothing of it asks again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;
use zhttp::Cursor;

use crate::attach::EdgeId;
use crate::store::{ChannelName, Head, StoredEvent};

/// How long a channel is followed that nobody wants any more, so that one that goes and comes back
/// costs nothing.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// Each head is repeated after so many heartbeats at the latest, whether it moved or not: what a
/// full queue swallowed is found within that many seconds.
pub(super) const HEADS_REPEAT_BEATS: u8 = 10;

/// The head of a channel that had no event for so many heartbeats is read again, at the latest after
/// twice as many. That a log has expired is learned in no other way if no cleaner runs. With a
/// million quiet channels it is 17,000 heads a second, some 20 of the store's pipelines.
pub(super) const QUIET_BEATS: u8 = 60;

/// What is known of one channel.
#[derive(Debug)]
struct Fed {
    /// The last event of the log; `0-0` if there is none, or none was heard of.
    head: Cursor,
    /// When that was learned, by [`Table::lessons`].
    learned: u64,
    /// That event is an END.
    ended: bool,
    /// Who is fed.
    edges: Vec<EdgeId>,
    /// Who waits for an event after a cursor.
    waits: Vec<(Cursor, oneshot::Sender<()>)>,
    /// Something was appended since the last heartbeat.
    moved: bool,
    /// It is confirmed that its events are announced.
    is_followed: bool,
    /// Which entry of the table it is, of all that were ever made.
    number: u64,
    /// The heartbeat in which its head is repeated.
    beat: u8,
    /// The heartbeat in which it is looked at whether it is quiet.
    quiet_beat: u8,
    /// Nothing was learned of it since that was looked at last.
    quiet: bool,
    /// Since when nobody wants it.
    unwanted_since: Option<Instant>,
}

impl Fed {
    fn is_wanted(&self) -> bool {
        !self.edges.is_empty() || !self.waits.is_empty()
    }

    fn wake(&mut self) {
        let head = self.head;
        for index in (0..self.waits.len()).rev() {
            if head > self.waits[index].0 {
                // Who waited may have left.
                let _ = self.waits.swap_remove(index).1.send(());
            }
        }
    }
}

/// What a head that was read says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeadNews {
    /// Nothing.
    None,
    /// The log has gone on.
    Moved,
    /// The log ends before this event, which was in it; or there is none any more.
    Lost(Cursor),
    /// There was no log when it was read, but one may have come since: it is to be read again.
    Doubtful,
}

/// The moment in which a read was asked for. What is read was so at that moment or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    lessons: u64,
    /// Entries that had been made by then.
    entries: u64,
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Table {
    channels: HashMap<ChannelName, Fed>,
    /// Counts the heads that were learned: the clock of [`Asked`].
    lessons: u64,
    /// Counts the entries that were made.
    entries: u64,
    beat: u8,
    next_beat: u8,
    quiet_beat: u8,
    next_quiet_beat: u8,
}

impl Table {
    /// How many channels are followed.
    pub(super) fn len(&self) -> usize {
        self.channels.len()
    }

    /// How many wait for an event.
    pub(super) fn waits(&self) -> usize {
        self.channels.values().map(|fed| fed.waits.len()).sum()
    }

    /// All channels that are followed.
    pub(super) fn names(&self) -> Vec<ChannelName> {
        self.channels.keys().cloned().collect()
    }

    /// Where a channel ends, as far as was heard; or ended, if its log is shorter now.
    pub(super) fn head(&self, channel: &ChannelName) -> Cursor {
        self.channels.get(channel).map_or(Cursor::START, |fed| fed.head)
    }

    /// The moment in which a read is asked for.
    pub(super) fn asked(&self) -> Asked {
        Asked { lessons: self.lessons, entries: self.entries }
    }

    /// Who is fed with a channel.
    pub(super) fn edges(&self, channel: &ChannelName) -> &[EdgeId] {
        self.channels.get(channel).map_or(&[], |fed| &fed.edges)
    }

    /// An edge wants to be fed.
    pub(super) fn handle_feed(&mut self, channel: &ChannelName, edge: EdgeId) {
        let fed = self.entry(channel);
        fed.unwanted_since = None;
        if !fed.edges.contains(&edge) {
            fed.edges.push(edge);
        }
    }

    /// Somebody waits for an event after a cursor. One that is known already ends the wait at once.
    pub(super) fn handle_wait(
        &mut self,
        channel: &ChannelName,
        after: Cursor,
        done: oneshot::Sender<()>,
    ) {
        let fed = self.entry(channel);
        fed.unwanted_since = None;
        fed.waits.push((after, done));
        fed.wake();
    }

    fn entry(&mut self, channel: &ChannelName) -> &mut Fed {
        let (next_beat, next_quiet_beat) = (&mut self.next_beat, &mut self.next_quiet_beat);
        let entries = &mut self.entries;
        self.channels.entry(channel.clone()).or_insert_with(|| {
            *next_beat = (*next_beat + 1) % HEADS_REPEAT_BEATS;
            *next_quiet_beat = (*next_quiet_beat + 1) % QUIET_BEATS;
            *entries += 1;
            Fed {
                head: Cursor::START,
                learned: 0,
                ended: false,
                edges: Vec::new(),
                waits: Vec::new(),
                moved: false,
                is_followed: false,
                number: *entries,
                beat: *next_beat,
                quiet_beat: *next_quiet_beat,
                quiet: false,
                unwanted_since: None,
            }
        })
    }

    /// An edge is to be fed with a channel no more.
    pub(super) fn handle_unfeed(&mut self, channel: &ChannelName, edge: EdgeId) {
        if let Some(fed) = self.channels.get_mut(channel) {
            fed.edges.retain(|other| *other != edge);
        }
    }

    /// An edge is gone, or has begun anew.
    pub(super) fn handle_edge_down(&mut self, edge: EdgeId) {
        for fed in self.channels.values_mut() {
            fed.edges.retain(|other| *other != edge);
        }
    }

    /// It is confirmed that a channel is followed, as was asked for in that moment. If it was forgotten since, and is wanted
    /// again, that is another following.
    pub(super) fn handle_followed(&mut self, channel: &ChannelName, asked: Asked) {
        if let Some(fed) = self.channels.get_mut(channel) {
            fed.is_followed |= fed.number <= asked.entries;
        }
    }

    /// An event was announced. Returns whether the channel is followed.
    pub(super) fn handle_event(&mut self, channel: &ChannelName, event: &StoredEvent) -> bool {
        let Some(fed) = self.channels.get_mut(channel) else { return false };
        if event.id > fed.head {
            self.lessons += 1;
            fed.head = event.id;
            fed.learned = self.lessons;
            fed.ended = event.end;
            fed.moved = true;
            fed.quiet = false;
            fed.wake();
        }
        true
    }

    /// A head was read, as was asked for in that moment.
    pub(super) fn handle_head(
        &mut self,
        channel: &ChannelName,
        head: &Head,
        asked: Asked,
    ) -> HeadNews {
        let Some(fed) = self.channels.get_mut(channel) else { return HeadNews::None };
        if head.id == Cursor::START {
            if fed.head == Cursor::START {
                return HeadNews::None;
            }
            if fed.learned > asked.lessons {
                return HeadNews::Doubtful;
            }
            if !fed.ended {
                return HeadNews::Lost(fed.head);
            }
            fed.head = Cursor::START;
            fed.ended = false;
            return HeadNews::None;
        }
        if head.id < fed.head && fed.learned <= asked.lessons {
            return HeadNews::Lost(fed.head);
        }
        if head.id <= fed.head {
            return HeadNews::None;
        }
        self.lessons += 1;
        fed.head = head.id;
        fed.learned = self.lessons;
        fed.ended = head.ended;
        fed.moved = true;
        fed.quiet = false;
        fed.wake();
        HeadNews::Moved
    }

    /// A heartbeat: the channels whose heads are to be read again, as nothing was heard of them for
    /// long. One without a log cannot lose it.
    pub(super) fn poll_quiet(&mut self) -> Vec<ChannelName> {
        self.quiet_beat = (self.quiet_beat + 1) % QUIET_BEATS;
        let turn = |fed: &Fed| fed.quiet_beat == self.quiet_beat && fed.head != Cursor::START;
        let due = self.channels.iter_mut().filter(|(_, fed)| turn(fed));
        due.filter_map(|(name, fed)| std::mem::replace(&mut fed.quiet, true).then(|| name.clone()))
            .collect()
    }

    /// A heartbeat: the heads that each edge is to be told, of what moved since the last one, and
    /// of the share whose turn it is.
    pub(super) fn poll_beat(&mut self) -> BTreeMap<EdgeId, Vec<(ChannelName, Cursor)>> {
        self.beat = (self.beat + 1) % HEADS_REPEAT_BEATS;
        let mut heads: BTreeMap<EdgeId, Vec<(ChannelName, Cursor)>> = BTreeMap::new();
        for (name, fed) in &mut self.channels {
            fed.waits.retain(|(_, done)| !done.is_closed());
            if !fed.is_followed {
                continue;
            }
            if !std::mem::take(&mut fed.moved) && fed.beat != self.beat {
                continue;
            }
            for edge in &fed.edges {
                heads.entry(*edge).or_default().push((name.clone(), fed.head));
            }
        }
        heads
    }

    /// Channels that nobody has wanted for [`LINGER`], at most `max`: they are forgotten.
    pub(super) fn poll_unwanted(&mut self, now: Instant, max: usize) -> Vec<ChannelName> {
        let mut unwanted = Vec::new();
        for (name, fed) in &mut self.channels {
            if fed.is_wanted() {
                fed.unwanted_since = None;
                continue;
            }
            let since = *fed.unwanted_since.get_or_insert(now);
            if now.duration_since(since) >= LINGER && unwanted.len() < max {
                unwanted.push(name.clone());
            }
        }
        for name in &unwanted {
            self.channels.remove(name);
        }
        unwanted
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::packets::event;
    use super::*;

    fn room(name: &str) -> ChannelName {
        ChannelName::new("o", name).unwrap()
    }

    fn at(offset: u64) -> Cursor {
        Cursor::new(5, offset)
    }

    fn head(offset: u64) -> Head {
        Head { id: at(offset), ended: false, oldest_prev: Cursor::START }
    }

    /// A head is read in this moment.
    fn read(table: &mut Table, channel: &ChannelName, head: &Head) -> HeadNews {
        table.handle_head(channel, head, table.asked())
    }

    /// Else the edge would take it for fed, and never ask again.
    #[test]
    fn the_head_of_a_channel_that_is_not_followed_is_told_to_nobody() {
        let mut table = Table::default();
        let channel = room("a");
        table.handle_feed(&channel, 7);
        read(&mut table, &channel, &head(3));
        let told =
            |table: &mut Table| (0..HEADS_REPEAT_BEATS).flat_map(|_| table.poll_beat()).count();
        assert_eq!(told(&mut table), 0);
        let asked = table.asked();
        table.handle_unfeed(&channel, 7);
        let start = Instant::now();
        table.poll_unwanted(start, 1);
        assert_eq!(table.poll_unwanted(start + LINGER, 1).len(), 1);
        table.handle_feed(&channel, 7);
        table.handle_followed(&channel, asked);
        assert_eq!(told(&mut table), 0, "that following was given up");
        table.handle_followed(&channel, table.asked());
        assert_eq!(told(&mut table), 1);
    }

    #[test]
    fn a_read_that_was_overtaken_does_not_end_a_log() {
        let mut table = Table::default();
        let channel = room("a");
        table.handle_feed(&channel, 0);
        let before = table.asked();
        table.handle_event(&channel, &event(at(1), Cursor::START, ""));
        // The read found nothing, for it was before the event.
        assert_eq!(table.handle_head(&channel, &Head::default(), before), HeadNews::Doubtful);
        assert_eq!(table.head(&channel), at(1));
        // It finds nothing after it: then the log is gone indeed.
        let after = table.asked();
        table.handle_feed(&room("b"), 0);
        table.handle_event(&room("b"), &event(at(1), Cursor::START, ""));
        assert_eq!(table.handle_head(&channel, &Head::default(), after), HeadNews::Lost(at(1)));
    }

    #[test]
    fn heads_only_grow_until_the_log_is_gone() {
        let mut table = Table::default();
        let channel = room("a");
        assert_eq!(read(&mut table, &channel, &head(3)), HeadNews::None, "not followed");
        table.handle_feed(&channel, 0);
        assert_eq!(read(&mut table, &channel, &head(3)), HeadNews::Moved);
        let before = table.asked();
        assert!(table.handle_event(&channel, &event(at(4), at(3), "")));
        assert_eq!(table.handle_head(&channel, &head(3), before), HeadNews::None);
        assert_eq!(table.head(&channel), at(4));
        // It says so until there is a log again.
        for _ in 0..2 {
            assert_eq!(read(&mut table, &channel, &Head::default()), HeadNews::Lost(at(4)));
        }
        let new = event(Cursor::new(6, 1), Cursor::START, "");
        table.handle_event(&channel, &new);
        assert_eq!(read(&mut table, &channel, &Head { id: new.id, ..head(1) }), HeadNews::None);
        assert_eq!(table.head(&channel), new.id);
    }

    #[test]
    fn a_log_that_is_shorter_than_it_was_has_lost_its_tail() {
        let mut table = Table::default();
        let channel = room("a");
        table.handle_feed(&channel, 0);
        table.handle_event(&channel, &event(at(4), at(3), ""));
        assert_eq!(read(&mut table, &channel, &head(3)), HeadNews::Lost(at(4)));
        // Until it has gone on, beyond what was lost.
        assert_eq!(read(&mut table, &channel, &head(3)), HeadNews::Lost(at(4)));
        let next = Cursor::new(6, 1);
        table.handle_event(&channel, &event(next, at(3), ""));
        assert_eq!(read(&mut table, &channel, &Head { id: next, ..head(3) }), HeadNews::None);
        assert_eq!(table.head(&channel), next);
    }

    #[test]
    fn a_log_that_had_ended_goes_quietly() {
        let mut table = Table::default();
        let channel = room("a");
        table.handle_feed(&channel, 0);
        table.handle_event(&channel, &StoredEvent { end: true, ..event(at(1), at(0), "") });
        assert_eq!(read(&mut table, &channel, &Head::default()), HeadNews::None);
        assert_eq!(table.head(&channel), Cursor::START);
    }

    #[test]
    fn a_beat_tells_what_moved_and_all_in_ten() {
        let mut table = Table::default();
        let channels: Vec<_> = (0..25).map(|number| room(&number.to_string())).collect();
        for channel in &channels {
            table.handle_feed(channel, 0);
            table.handle_followed(channel, table.asked());
        }
        table.handle_feed(&channels[3], 1);
        let mut told = HashMap::<ChannelName, usize>::new();
        for _ in 0..HEADS_REPEAT_BEATS {
            for (name, _) in table.poll_beat().remove(&0).unwrap_or_default() {
                *told.entry(name).or_default() += 1;
            }
        }
        assert!(channels.iter().all(|channel| told.get(channel) == Some(&1)), "{told:?}");
        table.handle_event(&channels[3], &event(at(1), Cursor::START, ""));
        let beat = table.poll_beat();
        assert!(beat[&0].contains(&(channels[3].clone(), at(1))));
        assert_eq!(beat[&1], [(channels[3].clone(), at(1))]);
    }

    #[test]
    fn the_head_of_a_quiet_channel_is_read_again_once_in_a_while() {
        let mut table = Table::default();
        let (busy, quiet, empty) = (room("busy"), room("quiet"), room("empty"));
        for channel in [&busy, &quiet, &empty] {
            table.handle_feed(channel, 0);
        }
        table.handle_event(&quiet, &event(at(1), Cursor::START, ""));
        let mut reread = Vec::new();
        for beat in 1..=u64::from(QUIET_BEATS) * 3 {
            table.handle_event(&busy, &event(at(beat), at(beat - 1), ""));
            reread.extend(table.poll_quiet());
        }
        assert_eq!(reread, [quiet.clone(), quiet]);
    }

    #[test]
    fn what_nobody_wants_is_forgotten_after_a_while() {
        let mut table = Table::default();
        let start = Instant::now();
        table.handle_feed(&room("a"), 0);
        table.handle_feed(&room("b"), 0);
        table.handle_feed(&room("b"), 1);
        table.handle_edge_down(0);
        assert_eq!(table.poll_unwanted(start, 10), []);
        assert_eq!(table.poll_unwanted(start + LINGER / 2, 10), []);
        table.handle_feed(&room("a"), 1);
        table.handle_unfeed(&room("a"), 1);
        assert_eq!(table.poll_unwanted(start + LINGER, 10), []);
        assert_eq!(table.poll_unwanted(start + LINGER * 2, 10), [room("a")]);
        assert_eq!((table.len(), table.edges(&room("b"))), (1, &[1][..]));
    }

    #[tokio::test]
    async fn waits_end_with_an_event_behind_their_cursor() {
        let mut table = Table::default();
        let channel = room("a");
        let (early, at_once) = oneshot::channel();
        let (late, after_second) = oneshot::channel();
        table.handle_wait(&channel, at(1), early);
        table.handle_wait(&channel, at(2), late);
        read(&mut table, &channel, &head(2));
        assert_eq!(at_once.await, Ok(()));
        table.handle_event(&channel, &event(at(3), at(2), ""));
        assert_eq!(after_second.await, Ok(()));
        let (known, at_once) = oneshot::channel();
        table.handle_wait(&channel, at(2), known);
        assert_eq!(at_once.await, Ok(()));
    }
}
