//! Naive oracles of what the hub knows: who has left, which channel is read, which range is on its way. Each is told what
//! the hub is told, and judges what the hub says.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use forebay_core::hold::Want;
use zhttp::{Cursor, Kind, Packet, hold};

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
    /// Requests that were given, and how often.
    given: BTreeMap<Bytes, u32>,
}

/// What is remarkable about a packet.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    pub(crate) is_range_again: bool,
    pub(crate) is_feeder_changed_in_range: bool,
    pub(crate) is_unfed: bool,
    pub(crate) is_given_again: bool,
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
    }

    /// The hub hears of a request.
    pub(crate) fn handle_request(&mut self, id: &Bytes, path: &str) {
        if path.starts_with("/events/") || path.starts_with("/plain") {
            self.asked.insert(id.clone());
        }
    }

    /// The hub says that nobody ever served a request. Whether that is a lie.
    pub(crate) fn is_served(&self, id: &Bytes) -> bool {
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
        packet: &Packet<'_>,
        is_followed: impl Fn(&str) -> bool,
    ) -> Result<Remarks, String> {
        let text = |error: zhttp::PacketError| error.to_string();
        let mut remarks = Remarks::default();
        if is_request(packet) {
            if self.departed.contains_key(to) {
                return Err(format!("{to} gets a request, and has left"));
            }
            for id in packet.ids {
                let given = self.given.entry(Bytes::copy_from_slice(id.id)).or_default();
                *given += 1;
                remarks.is_given_again |= *given > 1;
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
            }
        } else if packet.kind == Kind::Unfeed {
            for name in hold::Unfeed::read(packet).map_err(text)? {
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

/// Whether this begins a session.
pub(crate) fn is_request(packet: &Packet<'_>) -> bool {
    packet.kind == Kind::Data && packet.payload().is_ok_and(|payload| payload.method.is_some())
}
