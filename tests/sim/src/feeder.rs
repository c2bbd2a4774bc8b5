//! A model of a fanout handler, as seen from the edge: it greets, feeds, and answers requests.
//!
//! It keeps nothing that its death would lose. What it follows it was asked to follow; what it sends
//! it reads in the store at that moment. Announcements of the store reach it or not. It answers a
//! request once, after a while, sometimes with a sign of life before.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use zhttp::hold::{self, EVENT_KIND_DEFAULT, Event, EventList, Events, Gap, Heads, Hello};
use zhttp::{Cursor, Envelope, Id, Kind, Packet};

use crate::scenario::TTL_MS;
use crate::store::Channel;

/// Bytes of events with which a `feed` is answered; what is left the edge asks for.
pub(crate) const FEED_BYTES_MAX: usize = 2000;

/// One part in so many of the channels that have not moved is named in each beat.
const SHARE: usize = 4;

/// A handler.
#[derive(Debug)]
pub(crate) struct Feeder {
    /// Its identity.
    pub(crate) name: String,
    /// The process runs.
    pub(crate) alive: bool,
    /// It has said bye, and will be gone soon.
    pub(crate) leaving: bool,
    /// Grows with each start.
    pub(crate) incarnation: u64,
    /// Grows with each connection.
    pub(crate) connection: u64,
    /// It does nothing until then.
    pub(crate) stalled_until_ms: u64,
    /// The most requests that it wants.
    pub(crate) requests_max: u32,
    /// Channels that it feeds, by index, and the head that it named last.
    following: BTreeMap<usize, Cursor>,
    beats: usize,
    /// Requests that it is working on.
    working: BTreeSet<Vec<u8>>,
}

impl Feeder {
    /// A handler that has not started yet.
    pub(crate) fn new(name: String, requests_max: u32) -> Self {
        Feeder {
            name,
            alive: false,
            leaving: false,
            incarnation: 0,
            connection: 0,
            stalled_until_ms: 0,
            requests_max,
            following: BTreeMap::new(),
            beats: 0,
            working: BTreeSet::new(),
        }
    }

    /// The process starts anew.
    pub(crate) fn start(&mut self, now_ms: u64) {
        self.alive = true;
        self.leaving = false;
        self.incarnation += 1;
        self.connection += 1;
        self.stalled_until_ms = now_ms;
    }

    /// The process is gone, and everything in it.
    pub(crate) fn kill(&mut self) {
        self.alive = false;
        self.connection += 1;
        self.following.clear();
        self.working.clear();
    }

    /// What it says each second.
    pub(crate) fn beat(&mut self, store: &[Channel]) -> Vec<Vec<u8>> {
        if self.leaving {
            return Vec::new();
        }
        let mut out = Vec::new();
        let hello = Hello {
            ttl_ms: TTL_MS,
            incarnation: self.incarnation,
            feeds: true,
            serves: hold::Serves::default(),
            requests_max: self.requests_max,
        };
        hold::write_packet(&mut out, self.name.as_bytes(), Kind::Hello, |fields| {
            hello.write(fields, &[("*", "/")]);
        });
        self.beats += 1;
        let share = self.beats % SHARE;
        let mut named = Vec::new();
        for (place, (&index, said)) in self.following.iter_mut().enumerate() {
            let head = store[index].head();
            if *said != head || place % SHARE == share {
                *said = head;
                named.push(index);
            }
        }
        let mut packets = vec![out];
        if !named.is_empty() {
            packets.push(self.heads(store, &named));
        }
        packets
    }

    /// It leaves, in good order.
    pub(crate) fn bye(&mut self) -> Vec<u8> {
        self.leaving = true;
        self.following.clear();
        let mut out = Vec::new();
        hold::write_packet(&mut out, self.name.as_bytes(), Kind::Bye, |_| {});
        out
    }

    /// The store announces an event.
    pub(crate) fn handle_announced(
        &mut self,
        store: &[Channel],
        channel: usize,
        event: usize,
    ) -> Vec<Vec<u8>> {
        match self.following.get_mut(&channel) {
            Some(said) => {
                *said = (*said).max(store[channel].history[event].id);
                vec![self.events(&store[channel], &[event])]
            }
            None => Vec::new(),
        }
    }

    /// Takes a packet about feeding. What it answers, at once.
    ///
    /// # Errors
    ///
    /// The edge has sent something that it must not.
    pub(crate) fn handle_feeding(
        &mut self,
        store: &[Channel],
        bytes: &Bytes,
    ) -> Result<Vec<Vec<u8>>, String> {
        let packet = Packet::parse(bytes).map_err(|error| error.to_string())?;
        let find = |name: &str| store.iter().position(|channel| channel.name == name);
        let mut packets = Vec::new();
        match packet.kind {
            Kind::Feed => {
                let mut heads = Vec::new();
                for (name, head) in hold::Feed::read(&packet).map_err(|error| error.to_string())? {
                    let index = find(name).ok_or("a feed of an unknown channel")?;
                    self.following.insert(index, store[index].head());
                    let sent = head.map(|head| self.after(&store[index], head, FEED_BYTES_MAX));
                    packets.extend(sent.into_iter().flatten());
                    heads.push(index);
                }
                packets.push(self.heads(store, &heads));
            }
            Kind::Unfeed => {
                for name in hold::Unfeed::read(&packet).map_err(|error| error.to_string())? {
                    self.following.remove(&find(name).ok_or("an unfeed of an unknown channel")?);
                }
            }
            Kind::Range => {
                let range = hold::Range::read(&packet).map_err(|error| error.to_string())?;
                let index = find(range.channel).ok_or("a range of an unknown channel")?;
                packets = self.after(&store[index], range.after, range.bytes as usize);
                if packets.is_empty() {
                    packets.push(self.heads(store, &[index]));
                }
            }
            other => return Err(format!("a handler got {other:?} about feeding")),
        }
        Ok(packets)
    }

    /// The packets with what is kept after a cursor; none if nothing is.
    fn after(&self, channel: &Channel, after: Cursor, bytes_max: usize) -> Vec<Vec<u8>> {
        let range = channel.range(after, bytes_max);
        let mut packets = Vec::new();
        if let Some((first, reason)) = range.gap {
            let mut out = Vec::new();
            let gap = Gap { channel: &channel.name, after, first, reason };
            let from = self.name.as_bytes();
            hold::write_packet(&mut out, from, Kind::Gap, |fields| gap.write(fields));
            packets.push(out);
        }
        let same_epoch =
            |a: &usize, b: &usize| channel.history[*a].id.epoch == channel.history[*b].id.epoch;
        for events in range.events.chunk_by(same_epoch) {
            packets.push(self.events(channel, events));
        }
        packets
    }

    /// A packet with these events, which are of one epoch and follow each other.
    fn events(&self, channel: &Channel, events: &[usize]) -> Vec<u8> {
        let first = &channel.history[events[0]];
        let header = Events {
            channel: &channel.name,
            epoch: first.id.epoch,
            after: first.id.offset - 1,
            prev: (first.id.offset == 1).then_some(first.prev),
            events: EventList::default(),
        };
        let mut out = Vec::new();
        hold::write_packet(&mut out, self.name.as_bytes(), Kind::Events, |fields| {
            let events = events.iter().map(|&index| &channel.history[index]);
            let events = events.map(|event| Event {
                data: event.data.as_bytes(),
                kind: EVENT_KIND_DEFAULT,
                end: event.end,
            });
            header.write(fields, events);
        });
        out
    }

    fn heads(&self, store: &[Channel], indices: &[usize]) -> Vec<u8> {
        let mut out = Vec::new();
        hold::write_packet(&mut out, self.name.as_bytes(), Kind::Heads, |fields| {
            let heads = indices.iter().map(|&index| (&*store[index].name, store[index].head()));
            Heads::write(fields, heads);
        });
        out
    }

    /// It gets a request. Whether it begins to work on it.
    pub(crate) fn handle_request(&mut self, id: &[u8]) -> bool {
        self.working.insert(id.to_vec())
    }

    /// It hears that a request is not wanted any more.
    pub(crate) fn handle_cancel(&mut self, id: &[u8]) {
        self.working.remove(id);
    }

    /// A packet of its answer to a request, if it is still at it: the answer, or a sign of life.
    pub(crate) fn answer(&mut self, id: &[u8], last: bool) -> Option<Vec<u8>> {
        if !self.working.contains(id) {
            return None;
        }
        if last {
            self.working.remove(id);
        }
        let kind = if last { Kind::Data } else { Kind::KeepAlive };
        let ids = [Id { id, seq: None }];
        let mut out = Vec::new();
        Envelope::new(self.name.as_bytes(), kind).about(&ids).write(&mut out, |fields| {
            fields.int("incarnation", self.incarnation);
        });
        Some(out)
    }
}
