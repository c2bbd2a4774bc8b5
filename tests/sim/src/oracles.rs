//! Naive oracles of what the hub knows: who has left, which channel is read, which range is on its way. Each is told what
//! the hub is told, and judges what the hub says.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use forebay_core::hold::Want;
use zhttp::{Cursor, Kind, Packet, hold};

use crate::talk::Talk;

/// What the hub should know.
#[derive(Debug, Default)]
pub(crate) struct Oracles {
    /// Handlers that have said bye or whose connection was lost, and their incarnation.
    departed: BTreeMap<String, u64>,
    /// Those that are there: their incarnation, and until when.
    present: BTreeMap<String, (u64, u64)>,
    /// Some handler has said that it serves.
    has_served: bool,
    /// Requests for what handlers serve that say hello.
    asked: BTreeSet<Bytes>,
    /// Which workers read a channel, and since when none does.
    readers: BTreeMap<String, (BTreeSet<usize>, u64)>,
    /// Ranges that were asked and not answered, and of whom.
    ranges: BTreeMap<(String, Cursor), String>,
    /// Requests that were given: to whom last, and its stay.
    given: BTreeMap<Bytes, (String, u64)>,
    /// Channels that a handler was asked to feed, in which stay of it.
    fed: BTreeMap<(String, String), u64>,
    /// How often a handler has left, or has come again: its stays.
    stays: BTreeMap<String, u64>,
    /// What clients of WebSockets say.
    pub(crate) talk: Talk,
}

/// What is remarkable about a packet.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    pub(crate) is_range_again: bool,
    pub(crate) is_feeder_changed_in_range: bool,
    pub(crate) is_unfed: bool,
    pub(crate) is_given_again: bool,
    /// It is what a client has said.
    pub(crate) is_said_again: bool,
}

impl Oracles {
    pub(crate) fn edge_started(&mut self) {
        *self = Oracles::default();
    }

    /// The hub hears a packet of a handler.
    pub(crate) fn handle_packet(&mut self, now_ms: u64, from: &str, packet: &Packet<'_>) {
        if packet.kind == Kind::Hello
            && let Ok(hello) = hold::Hello::read(packet)
        {
            self.has_served |= { hello.serves }.next().is_some();
            let known = self.present.get(from);
            let is_same = |(incarnation, until_ms): &(u64, u64)| {
                *incarnation == hello.incarnation && now_ms < *until_ms
            };
            if !known.is_some_and(is_same) {
                self.leaves(from);
            }
            // One that was said before the bye, and is late, says nothing.
            if self.departed.get(from) != Some(&hello.incarnation) {
                self.departed.remove(from);
                let until_ms = now_ms + hello.ttl_ms;
                self.present.insert(from.into(), (hello.incarnation, until_ms));
            }
        }
        // Of one that is not known a bye says nothing.
        if packet.kind == Kind::Bye
            && let Some((incarnation, until_ms)) = self.present.remove(from)
            && now_ms < until_ms
        {
            self.departed.insert(from.into(), incarnation);
            self.leaves(from);
        }
        if packet.kind == Kind::Events
            && let Ok(events) = hold::Events::read(packet)
        {
            self.ranges.retain(|(name, _), _| name != events.channel);
        }
        if packet.kind == Kind::Gap
            && let Ok(gap) = hold::Gap::read(packet)
        {
            self.ranges.retain(|(name, _), _| name != gap.channel);
        }
    }

    /// The hub hears that a connection is lost.
    pub(crate) fn handle_lost(&mut self, name: &str) {
        // Whoever comes back is welcome, in whatever incarnation.
        self.present.remove(name);
        self.departed.insert(name.into(), u64::MAX);
        self.leaves(name);
    }

    /// A stay of a handler is over: what it has is to be given to others.
    fn leaves(&mut self, name: &str) {
        *self.stays.entry(name.into()).or_default() += 1;
    }

    fn stay(&self, name: &str) -> u64 {
        self.stays.get(name).copied().unwrap_or_default()
    }

    /// Whether a handler is still in that stay.
    fn stays(&self, now_ms: u64, name: &str, stay: u64) -> bool {
        let is_present = self.present.get(name).is_some_and(|(_, until_ms)| now_ms < *until_ms);
        is_present && self.stay(name) == stay
    }

    /// Channels that some handler feeds though the hub has let them go.
    pub(crate) fn forgotten(&self, now_ms: u64, is_followed: impl Fn(&str) -> bool) -> usize {
        let is_left = |((name, to), stay): &(&(String, String), &u64)| {
            self.stays(now_ms, to, **stay) && !is_followed(name)
        };
        self.fed.iter().filter(is_left).count()
    }

    /// The hub hears of a request.
    pub(crate) fn handle_request(&mut self, id: &[u8], path: &str) {
        if ["/events/", "/ws/", "/plain"].iter().any(|prefix| path.starts_with(prefix)) {
            self.asked.insert(Bytes::copy_from_slice(id));
        }
    }

    /// The hub says that nobody ever served a request. Whether that is a lie.
    pub(crate) fn is_served(&self, id: &[u8]) -> bool {
        self.has_served && self.asked.contains(id)
    }

    /// The hub hears what a worker wants. Whether a channel that nobody has read for a moment is read again.
    pub(crate) fn handle_want(&mut self, now_ms: u64, worker: usize, want: &Want) -> bool {
        match want {
            Want::Open(name) => match self.readers.get_mut(&**name) {
                Some((workers, _)) => {
                    let was_empty = workers.is_empty();
                    workers.insert(worker);
                    was_empty
                }
                None => {
                    self.readers.insert(name.to_string(), (BTreeSet::from([worker]), 0));
                    false
                }
            },
            Want::Close(name) => {
                if let Some((workers, since_ms)) = self.readers.get_mut(&**name)
                    && workers.remove(&worker)
                    && workers.is_empty()
                {
                    *since_ms = now_ms;
                }
                false
            }
            Want::Range(..) => false,
        }
    }

    /// The hub sends a packet. `is_followed` says whether it still follows a channel.
    ///
    /// # Errors
    ///
    /// It must not.
    pub(crate) fn handle_route(
        &mut self,
        (now_ms, linger_ms): (u64, u64),
        to: &str,
        (packet, bytes): (&Packet<'_>, &Bytes),
        is_followed: impl Fn(&str) -> bool,
    ) -> Result<Remarks, String> {
        let text = |error: zhttp::PacketError| error.to_string();
        let mut remarks = Remarks::default();
        if is_request(packet) {
            if self.departed.contains_key(to) {
                return Err(format!("{to} gets a request, and has left"));
            }
            for id in packet.ids {
                remarks.is_given_again |= self.give(now_ms, to, Bytes::copy_from_slice(id.id))?;
            }
        } else if packet.kind == Kind::Message {
            if self.departed.contains_key(to) {
                return Err(format!("{to} gets a message, and has left"));
            }
            let number = hold::Message::read(packet).map_err(text)?.number;
            for id in packet.ids {
                let id = Bytes::copy_from_slice(id.id);
                self.talk.handle_routed(&id, number, bytes)?;
                let name = format!("{}/{number}", id.escape_ascii()).into();
                remarks.is_said_again |= self.give(now_ms, to, name)?;
            }
        } else if packet.kind == Kind::Range {
            let range = hold::Range::read(packet).map_err(text)?;
            let key = (range.channel.to_owned(), range.after);
            remarks.is_range_again = self.ranges.insert(key, to.into()).is_some();
        } else if packet.kind == Kind::Feed {
            for (name, _) in hold::Feed::read(packet).map_err(text)? {
                let in_flight =
                    |((other, _), of): (&(String, Cursor), &String)| *other == *name && of != to;
                remarks.is_feeder_changed_in_range |= self.ranges.iter().any(in_flight);
                self.fed.insert((name.to_owned(), to.to_owned()), self.stay(to));
            }
        } else if packet.kind == Kind::Unfeed {
            for name in hold::Unfeed::read(packet).map_err(text)? {
                self.fed.remove(&(name.to_owned(), to.to_owned()));
                if is_followed(name) {
                    continue;
                }
                let Some((workers, since_ms)) = self.readers.remove(name) else { continue };
                if !workers.is_empty() || now_ms < since_ms + linger_ms {
                    return Err(format!("{name} is let go too soon"));
                }
                remarks.is_unfed = true;
            }
        }
        Ok(remarks)
    }
}

impl Oracles {
    /// A request or a message is given to a handler. Whether another had it before, who is not there any more.
    fn give(&mut self, now_ms: u64, to: &str, name: Bytes) -> Result<bool, String> {
        let given = (to.to_owned(), self.stay(to));
        let before = self.given.insert(name, given);
        if let Some((name, stay)) = &before
            && self.stays(now_ms, name, *stay)
        {
            return Err(format!("{to} gets a request that {name} has"));
        }
        Ok(before.is_some())
    }
}

/// Whether this begins a session.
pub(crate) fn is_request(packet: &Packet<'_>) -> bool {
    packet.kind == Kind::Data && packet.payload().is_ok_and(|payload| payload.method.is_some())
}
