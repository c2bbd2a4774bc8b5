//! A handler as a feeder (hold.md §6 and §7): what it follows, ranges, heads, and what it says of a log that is gone
//! or has fallen back.

use std::rc::Rc;

use bytes::Bytes;
use zhttp::hold::{
    self, EVENT_KIND_DEFAULT, Event as WireEvent, EventList, Events, Gap, GapReason, Heads,
};
use zhttp::{Cursor, Kind, Packet};

use super::{Doings, Fed, Handler, SHARE};
use crate::coverage::Mark;
use crate::store::{Event, Store};

/// Bytes of events with which a `feed` is answered; what is left the edge asks for.
const FEED_BYTES_MAX: usize = 2000;

impl Handler {
    /// Names the heads that have moved, and a share of the others; sees what was lost.
    pub(super) fn tell_heads(&mut self, store: &Store, doings: &mut Doings) {
        let share = self.beats % SHARE;
        let mut named = Vec::new();
        for (place, (&index, fed)) in self.following.iter_mut().enumerate() {
            let channel = &store.channels[index];
            let head = channel.head();
            if head < fed.said && !(head == Cursor::START && fed.ended) {
                doings.losses.push((index, head));
            }
            if fed.said != head || place % SHARE == share {
                *fed = Fed { said: head, ended: channel.ended() };
                named.push(index);
            }
        }
        if !named.is_empty() {
            doings.feeding.push(self.heads(store, &named));
        }
    }

    /// The store announces an event.
    pub(crate) fn handle_announced(
        &mut self,
        store: &Store,
        index: usize,
        event: &Rc<Event>,
    ) -> Doings {
        let mut doings = Doings::default();
        if let Some(fed) = self.following.get_mut(&index) {
            if event.id > fed.said {
                *fed = Fed { said: event.id, ended: event.end };
            }
            doings.feeding.push(self.events(store, index, std::slice::from_ref(event)));
        }
        doings
    }

    /// Takes a packet about feeding.
    ///
    /// # Errors
    ///
    /// The edge has sent something that it must not; `range_bytes` is what it may ask for.
    pub(crate) fn handle_feeding(
        &mut self,
        store: &Store,
        bytes: &Bytes,
        range_bytes: usize,
    ) -> Result<Doings, String> {
        let packet = Packet::parse(bytes).map_err(|error| error.to_string())?;
        let find = |name: &str| {
            let is = |channel: &crate::store::Channel| channel.name == name;
            store.channels.iter().position(is).ok_or("an unknown channel")
        };
        let mut doings = Doings::default();
        match packet.kind {
            Kind::Feed => {
                let mut named = Vec::new();
                for (name, head) in hold::Feed::read(&packet).map_err(|error| error.to_string())? {
                    let index = find(name)?;
                    self.follow(store, index, head, &mut doings);
                    named.push(index);
                }
                doings.feeding.push(self.heads(store, &named));
            }
            Kind::Unfeed => {
                for name in hold::Unfeed::read(&packet).map_err(|error| error.to_string())? {
                    self.following.remove(&find(name)?);
                }
            }
            Kind::Range => {
                let range = hold::Range::read(&packet).map_err(|error| error.to_string())?;
                if range.bytes != range_bytes as u64 {
                    return Err(format!("a range of {} bytes", range.bytes));
                }
                self.answer_range(store, find(range.channel)?, &range, &mut doings);
            }
            other => return Err(format!("a handler got {other:?} about feeding")),
        }
        Ok(doings)
    }

    fn follow(&mut self, store: &Store, index: usize, has: Option<Cursor>, doings: &mut Doings) {
        let channel = &store.channels[index];
        let head = channel.head();
        self.following.insert(index, Fed { said: head, ended: channel.ended() });
        let Some(has) = has.filter(|has| *has != Cursor::START) else { return };
        doings.marks.push(Mark::FeedWithHead);
        if has > head {
            doings.marks.push(Mark::RangeBeyond);
            doings.losses.push((index, head));
        } else {
            self.send_range(store, index, (has, FEED_BYTES_MAX), doings);
        }
    }

    fn answer_range(
        &mut self,
        store: &Store,
        index: usize,
        range: &hold::Range<'_>,
        doings: &mut Doings,
    ) {
        let head = store.channels[index].head();
        if range.after > head {
            doings.marks.push(Mark::RangeBeyond);
            doings.losses.push((index, head));
            let is_of_another = !store.channels[index].is_renewed() && head != Cursor::START;
            if is_of_another && range.after.epoch > head.epoch {
                let gap = self.gap(store, index, (range.after, head.plus(1)), GapReason::Recreated);
                doings.feeding.push(gap);
                return;
            }
        }
        if !self.send_range(store, index, (range.after, range.bytes as usize), doings) {
            doings.marks.push(Mark::RangeEmpty);
            doings.feeding.push(self.heads(store, &[index]));
        }
    }

    /// The packets with what is kept after a cursor. Whether anything is.
    fn send_range(
        &self,
        store: &Store,
        index: usize,
        (after, bytes_max): (Cursor, usize),
        doings: &mut Doings,
    ) -> bool {
        let range = store.channels[index].range(after, bytes_max);
        if let Some((first, reason)) = range.gap {
            doings.feeding.push(self.gap(store, index, (after, first), reason));
        }
        for events in range.events.chunk_by(|a, b| a.id.epoch == b.id.epoch) {
            doings.feeding.push(self.events(store, index, events));
        }
        !range.events.is_empty()
    }

    fn gap(
        &self,
        store: &Store,
        index: usize,
        (after, first): (Cursor, Cursor),
        reason: GapReason,
    ) -> Vec<u8> {
        let gap = Gap { channel: &store.channels[index].name, after, first, reason };
        let mut out = Vec::new();
        hold::write_packet(&mut out, self.name.as_bytes(), Kind::Gap, |fields| gap.write(fields));
        out
    }

    /// A packet with these events, which are of one epoch and follow each other.
    fn events(&self, store: &Store, index: usize, events: &[Rc<Event>]) -> Vec<u8> {
        let first = &events[0];
        let begins = first.id.offset == 1 && first.prev.epoch < first.id.epoch;
        let header = Events {
            channel: &store.channels[index].name,
            epoch: first.id.epoch,
            after: first.id.offset - 1,
            prev: begins.then_some(first.prev),
            events: EventList::default(),
        };
        let mut out = Vec::new();
        hold::write_packet(&mut out, self.name.as_bytes(), Kind::Events, |fields| {
            let events = events.iter().map(|event| WireEvent {
                data: event.data.as_bytes(),
                kind: if event.control { "control" } else { EVENT_KIND_DEFAULT },
                end: event.end,
            });
            header.write(fields, events);
        });
        out
    }

    fn heads(&self, store: &Store, indices: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        hold::write_packet(&mut out, self.name.as_bytes(), Kind::Heads, |fields| {
            let channels = indices.iter().map(|&index| &store.channels[index]);
            Heads::write(fields, channels.map(|channel| (&*channel.name, channel.head())));
        });
        out
    }
}

/// What a client is told of a gap by the handler that takes its hold.
pub(crate) fn gap_data(name: &str, from: Cursor, to: Cursor) -> String {
    hold::gap_event(name, from, to, GapReason::Recreated)
}
