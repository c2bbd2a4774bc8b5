//! Who is there: the handlers that have said `hello`, and what they do.
//!
//! A handler is present until its ttl has passed or its connection is lost, whichever comes first.
//! One that said `bye` gets nothing new, but may finish what it has until its connection closes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zhttp::hold::Hello;

use super::HandlerId;
use super::dispatch::Withdrawn;
use crate::seeded::rendezvous;

/// The longest ttl that is believed, in milliseconds: what a handler that vanishes can cost.
const TTL_MS_MAX: u64 = 60_000;

/// How long a handler that said `bye` may take to finish what it has, in milliseconds, if its
/// connection does not close before. Handlers give themselves 10 s.
const LEAVING_MS: u64 = 15_000;

/// Handlers that one edge knows at most; the hello of one more is ignored.
const HANDLERS_MAX: usize = 4096;

/// Prefixes that are remembered; of more, requests wait as if somebody might come.
const SERVED_MAX: usize = 4096;

#[derive(Debug)]
struct Handler {
    incarnation: u64,
    expires_ms: u64,
    feeds: bool,
    leaving: bool,
    serves: Vec<(Box<str>, Box<str>)>,
    requests_max: u32,
    in_flight: u32,
    /// Grows with each request given to anyone: the one that waited longest wins a tie.
    last_given: u64,
}

/// What a packet changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// It came, or says something new about what it does.
    Joined(HandlerId),
    /// It left and came back, unnoticed.
    Restarted(HandlerId),
    Leaving(HandlerId),
}

/// Whether somebody takes a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Handler(HandlerId),
    /// Those who serve it have enough to do. They serve the first so many bytes of its path.
    Busy {
        prefix_len: usize,
    },
    Nobody,
}

/// The handlers.
#[derive(Debug, Default)]
pub(super) struct Presence {
    handlers: BTreeMap<HandlerId, Handler>,
    expiries: BTreeSet<(u64, HandlerId)>,
    given: u64,
    /// Methods and prefixes that some handler has ever served.
    served: BTreeSet<(Box<str>, Box<str>)>,
}

impl Presence {
    pub(super) fn len(&self) -> usize {
        self.handlers.len()
    }

    /// Whether this handler feeds channels.
    pub(super) fn feeds(&self, id: &[u8]) -> bool {
        self.handlers.get(id).is_some_and(|handler| handler.feeds && !handler.leaving)
    }

    /// Whether some handler has ever served anything.
    pub(super) fn has_servers(&self) -> bool {
        !self.served.is_empty()
    }

    /// Whether some handler has ever served this: one may come back and do it again.
    pub(super) fn has_served(&self, method: &str, path: &str) -> bool {
        let serves = |(served, prefix): &(Box<str>, Box<str>)| {
            (**served == *"*" || **served == *method) && path.starts_with(&**prefix)
        };
        self.served.len() >= SERVED_MAX || self.served.iter().any(serves)
    }

    pub(super) fn handle_hello(&mut self, now_ms: u64, id: &[u8], hello: &Hello<'_>) -> Change {
        let change = self.greet(now_ms, id, hello);
        // Most hellos only say again what is known.
        if let Change::Joined(id) | Change::Restarted(id) = &change {
            for served in &self.handlers[id].serves {
                if self.served.len() < SERVED_MAX && !self.served.contains(served) {
                    self.served.insert(served.clone());
                }
            }
        }
        change
    }

    fn greet(&mut self, now_ms: u64, id: &[u8], hello: &Hello<'_>) -> Change {
        let expires_ms = now_ms + hello.ttl_ms.min(TTL_MS_MAX);
        if let Some((known, _)) = self.handlers.get_key_value(id) {
            let known = Arc::clone(known);
            return self.greet_again(known, expires_ms, hello);
        }
        if self.handlers.len() >= HANDLERS_MAX {
            return Change::None;
        }
        let id: HandlerId = id.into();
        self.expiries.insert((expires_ms, Arc::clone(&id)));
        self.handlers.insert(Arc::clone(&id), Handler::new(hello, expires_ms));
        Change::Joined(id)
    }

    /// A handler that is known says hello. Each hello is the whole truth about it.
    fn greet_again(&mut self, id: HandlerId, expires_ms: u64, hello: &Hello<'_>) -> Change {
        let handler = self.handlers.get_mut(&id).expect("it was just found");
        let restarted = handler.incarnation != hello.incarnation;
        if handler.leaving && !restarted {
            // Said before the bye, and late: who comes back is a new incarnation.
            return Change::None;
        }
        self.expiries.remove(&(handler.expires_ms, Arc::clone(&id)));
        self.expiries.insert((expires_ms, Arc::clone(&id)));
        handler.expires_ms = expires_ms;
        if restarted {
            *handler = Handler::new(hello, expires_ms);
            return Change::Restarted(id);
        }
        if handler.update(hello) { Change::Joined(id) } else { Change::None }
    }

    pub(super) fn handle_bye(&mut self, now_ms: u64, id: &[u8]) -> Change {
        let Some((known, _)) = self.handlers.get_key_value(id) else { return Change::None };
        let known = Arc::clone(known);
        let handler = self.handlers.get_mut(id).expect("it was just found");
        if std::mem::replace(&mut handler.leaving, true) {
            return Change::None;
        }
        self.expiries.remove(&(handler.expires_ms, Arc::clone(&known)));
        handler.expires_ms = now_ms + LEAVING_MS;
        self.expiries.insert((handler.expires_ms, Arc::clone(&known)));
        Change::Leaving(known)
    }

    /// The connection of a handler is lost. Says whether it was there.
    pub(super) fn handle_lost(&mut self, id: &[u8]) -> bool {
        let Some((id, handler)) = self.handlers.remove_entry(id) else { return false };
        self.expiries.remove(&(handler.expires_ms, id));
        true
    }

    /// Takes out a handler whose ttl has passed. Says which one, and which incarnation of it.
    pub(super) fn pop_expired(&mut self, now_ms: u64) -> Option<(HandlerId, u64)> {
        if self.expiries.first()?.0 > now_ms {
            return None;
        }
        let (_, id) = self.expiries.pop_first()?;
        let handler = self.handlers.remove(&id).expect("who expires is there");
        Some((id, handler.incarnation))
    }

    /// Which incarnation of a handler is there.
    pub(super) fn incarnation(&self, id: &[u8]) -> Option<u64> {
        self.handlers.get(id).map(|handler| handler.incarnation)
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.expiries.first().map(|(due, _)| *due)
    }

    /// Who takes a request: of those with the longest prefix of the path the one with the fewest
    /// requests in flight. Not one of those whom it was taken from. Counts the request as given.
    pub(super) fn give(&mut self, method: &str, path: &str, withdrawn: &Withdrawn) -> Choice {
        let mut longest = None;
        let mut best: Option<(u32, u64, &HandlerId)> = None;
        for (id, handler) in &self.handlers {
            let Some(prefix) = handler.prefix(method, path) else { continue };
            if !withdrawn.is_empty() && withdrawn.bars(id, self) {
                continue;
            }
            if longest < Some(prefix) {
                (longest, best) = (Some(prefix), None);
            }
            let rank = (handler.in_flight, handler.last_given, id);
            if longest == Some(prefix) && handler.has_room() && best.is_none_or(|best| rank < best)
            {
                best = Some(rank);
            }
        }
        let Some((_, _, id)) = best else {
            return longest.map_or(Choice::Nobody, |prefix_len| Choice::Busy { prefix_len });
        };
        let id = Arc::clone(id);
        self.given += 1;
        let handler = self.handlers.get_mut(&id).expect("it was just found");
        handler.in_flight += 1;
        handler.last_given = self.given;
        Choice::Handler(id)
    }

    /// A handler has a request that it was given before. Counts it, if that incarnation is there.
    pub(super) fn resume(&mut self, id: &[u8], incarnation: u64) -> bool {
        match self.handlers.get_mut(id) {
            Some(handler) if handler.incarnation == incarnation => {
                handler.in_flight += 1;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Whether a handler names just this prefix, for this method.
    pub(super) fn serves(&self, id: &[u8], method: &str, prefix: &str) -> bool {
        let names = |(served, named): &(Box<str>, Box<str>)| {
            **named == *prefix && (**served == *"*" || **served == *method)
        };
        self.handlers.get(id).is_some_and(|handler| handler.serves.iter().any(names))
    }

    /// A request of this handler is done.
    pub(super) fn finished(&mut self, id: &[u8]) {
        if let Some(handler) = self.handlers.get_mut(id) {
            handler.in_flight = handler.in_flight.saturating_sub(1);
        }
    }

    /// How many requests each handler has.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = (&HandlerId, u32)> {
        self.handlers.iter().map(|(id, handler)| (id, handler.in_flight))
    }

    /// One of the handlers that are there, always the same for the same name.
    pub(super) fn by_rendezvous(&self, name: &[u8]) -> Option<HandlerId> {
        let present = self.handlers.iter().filter(|(_, handler)| !handler.leaving);
        present.map(|(id, _)| id).max_by_key(|id| rendezvous(name, id)).cloned()
    }
}

impl Handler {
    fn new(hello: &Hello<'_>, expires_ms: u64) -> Self {
        Handler {
            incarnation: hello.incarnation,
            expires_ms,
            feeds: hello.feeds,
            leaving: false,
            serves: hello.serves.map(|(method, prefix)| (method.into(), prefix.into())).collect(),
            requests_max: hello.requests_max,
            in_flight: 0,
            last_given: 0,
        }
    }

    /// Takes over what a hello says. Says whether that is something new.
    fn update(&mut self, hello: &Hello<'_>) -> bool {
        let serves = self.serves.iter().map(|(method, prefix)| (&**method, &**prefix));
        if self.feeds == hello.feeds
            && self.requests_max == hello.requests_max
            && serves.eq(hello.serves)
        {
            return false;
        }
        let (in_flight, last_given) = (self.in_flight, self.last_given);
        *self = Handler { in_flight, last_given, ..Handler::new(hello, self.expires_ms) };
        true
    }

    /// The length of the longest prefix of the path that it serves.
    fn prefix(&self, method: &str, path: &str) -> Option<usize> {
        let serves = |(served, prefix): &&(Box<str>, Box<str>)| {
            (**served == *"*" || **served == *method) && path.starts_with(&**prefix)
        };
        let longest = self.serves.iter().filter(serves).map(|(_, prefix)| prefix.len()).max();
        longest.filter(|_| !self.leaving)
    }

    fn has_room(&self) -> bool {
        self.requests_max == 0 || self.in_flight < self.requests_max
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use zhttp::{Kind, Packet, hold};

    fn hello(presence: &mut Presence, now: u64, id: &str, incarnation: u64, max: u32) -> Change {
        let mut out = Vec::new();
        let serves = [("GET", "/events/"), ("*", "/")];
        let hello = Hello {
            ttl_ms: 3000,
            incarnation,
            feeds: true,
            serves: hold::Serves::default(),
            requests_max: max,
        };
        let serves = if id.starts_with('e') { &serves[..1] } else { &serves[1..] };
        hold::write_packet(&mut out, id.as_bytes(), Kind::Hello, |fields| {
            hello.write(fields, serves);
        });
        let packet = Packet::parse(&out).unwrap();
        presence.handle_hello(now, packet.from, &Hello::read(&packet).unwrap())
    }

    fn id(name: &str) -> HandlerId {
        name.as_bytes().into()
    }

    fn give(presence: &mut Presence, method: &str, path: &str) -> Choice {
        presence.give(method, path, &Withdrawn::default())
    }

    #[test]
    fn what_was_served_is_remembered_within_a_bound() {
        let mut presence = Presence::default();
        hello(&mut presence, 0, "e", 1, 0);
        presence.handle_lost(b"e");
        assert!(presence.has_served("GET", "/events/1"));
        assert!(!presence.has_served("POST", "/events/1"));
        assert!(!presence.has_served("GET", "/other"));

        let prefixes: Vec<String> = (0..SERVED_MAX).map(|number| format!("/{number}/")).collect();
        let serves: Vec<(&str, &str)> = prefixes.iter().map(|prefix| ("*", &**prefix)).collect();
        let greeting = Hello {
            ttl_ms: 3000,
            incarnation: 1,
            feeds: false,
            serves: hold::Serves::default(),
            requests_max: 0,
        };
        let mut out = Vec::new();
        hold::write_packet(&mut out, b"many", Kind::Hello, |fields| {
            greeting.write(fields, &serves);
        });
        let packet = Packet::parse(&out).unwrap();
        presence.handle_hello(0, packet.from, &Hello::read(&packet).unwrap());
        assert_eq!(presence.served.len(), SERVED_MAX);
        assert!(presence.has_served("GET", "/other"), "what was not remembered is waited for");
    }

    #[test]
    fn the_longest_prefix_wins_then_the_fewest_in_flight() {
        let mut presence = Presence::default();
        assert_eq!(hello(&mut presence, 0, "a", 1, 0), Change::Joined(id("a")));
        hello(&mut presence, 0, "b", 1, 0);
        hello(&mut presence, 0, "e", 1, 1);
        assert_eq!(give(&mut presence, "GET", "/events/1"), Choice::Handler(id("e")));
        assert_eq!(give(&mut presence, "GET", "/events/1"), Choice::Busy { prefix_len: 8 });
        assert_eq!(give(&mut presence, "POST", "/events/1"), Choice::Handler(id("a")));
        assert_eq!(give(&mut presence, "GET", "/other"), Choice::Handler(id("b")));
        presence.finished(b"b");
        assert_eq!(give(&mut presence, "GET", "/other"), Choice::Handler(id("b")));
        presence.finished(b"e");
        assert_eq!(give(&mut presence, "GET", "/events/2"), Choice::Handler(id("e")));
        assert_eq!(give(&mut presence, "GET", "no slash"), Choice::Nobody);
    }

    #[test]
    fn presence_ends_with_the_ttl_the_connection_or_a_new_incarnation() {
        let mut presence = Presence::default();
        hello(&mut presence, 0, "a", 1, 0);
        assert_eq!(hello(&mut presence, 1000, "a", 1, 0), Change::None);
        assert_eq!(presence.next_deadline(), Some(4000));
        assert_eq!(hello(&mut presence, 2000, "a", 2, 0), Change::Restarted(id("a")));
        assert_eq!(presence.pop_expired(4999), None);
        assert_eq!(presence.pop_expired(5000), Some((id("a"), 2)));
        assert_eq!(presence.len(), 0);
        hello(&mut presence, 6000, "a", 2, 0);
        assert!(presence.handle_lost(b"a"));
        assert!(!presence.handle_lost(b"a"));
        assert_eq!(presence.next_deadline(), None);
    }

    #[test]
    fn each_hello_is_the_whole_truth() {
        let mut presence = Presence::default();
        hello(&mut presence, 0, "a", 1, 1);
        assert_eq!(give(&mut presence, "GET", "/"), Choice::Handler(id("a")));
        assert_eq!(give(&mut presence, "GET", "/"), Choice::Busy { prefix_len: 1 });
        assert_eq!(hello(&mut presence, 1, "a", 1, 2), Change::Joined(id("a")));
        assert_eq!(hello(&mut presence, 2, "a", 1, 2), Change::None);
        assert_eq!(give(&mut presence, "GET", "/"), Choice::Handler(id("a")));
        let busy = Choice::Busy { prefix_len: 1 };
        assert_eq!(give(&mut presence, "GET", "/"), busy, "what is in flight still counts");
    }

    #[test]
    fn a_handler_that_leaves_has_time_to_finish() {
        let mut presence = Presence::default();
        hello(&mut presence, 0, "a", 1, 0);
        presence.handle_bye(100, b"a");
        assert_eq!(presence.pop_expired(3000), None, "though it greets no more");
        assert_eq!(hello(&mut presence, 3000, "a", 1, 0), Change::None);
        assert_eq!(
            give(&mut presence, "GET", "/"),
            Choice::Nobody,
            "a late hello does not bring it back"
        );
        assert_eq!(presence.next_deadline(), Some(100 + LEAVING_MS));
        assert_eq!(hello(&mut presence, 3000, "a", 2, 0), Change::Restarted(id("a")));
        assert_eq!(give(&mut presence, "GET", "/"), Choice::Handler(id("a")));
    }

    #[test]
    fn a_handler_that_says_bye_gets_nothing_new() {
        let mut presence = Presence::default();
        hello(&mut presence, 0, "a", 1, 0);
        assert_eq!(presence.handle_bye(10, b"a"), Change::Leaving(id("a")));
        assert_eq!(presence.handle_bye(10, b"a"), Change::None);
        assert_eq!(give(&mut presence, "GET", "/"), Choice::Nobody);
        assert!(!presence.feeds(b"a"));
        assert_eq!(presence.by_rendezvous(b"x"), None);
        assert!(presence.handle_lost(b"a"));
    }
}
