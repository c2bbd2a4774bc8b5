//! A model of a handler, as seen from the edge: it greets, feeds, and answers requests.
//!
//! It keeps nothing about holds. What it follows it was asked to follow; what it sends it reads in the store at that
//! moment. Announcements of the store reach it or not. One of role [`Role::Plain`](crate::scenario::Role::Plain) says no
//! hello: requests are pushed to it.

mod feeding;
mod serving;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use zhttp::hold::{self, Hello};
use zhttp::{Cursor, Kind};

pub(crate) use feeding::gap_data;
pub(crate) use serving::{Job, PIECE_BYTES_MAX, Work, pattern};

use crate::coverage::Mark;
use crate::hearing::PATH;
use crate::scenario::{Role, TTL_MS};
use crate::store::Store;
use crate::talk::MessageKey;

/// One part in so many of the channels that have not moved is named in each beat.
const SHARE: usize = 4;

/// What it knows of a channel that it feeds.
#[derive(Clone, Copy, Debug)]
struct Fed {
    /// Where the log ended when it heard of it last.
    said: Cursor,
    /// That is an END.
    ended: bool,
}

/// A handler.
#[derive(Debug)]
pub(crate) struct Handler {
    /// Its identity.
    pub(crate) name: String,
    pub(crate) role: Role,
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
    /// Channels that it feeds.
    following: BTreeMap<usize, Fed>,
    beats: usize,
    /// Requests that it is working on.
    pub(crate) works: BTreeMap<Bytes, Work>,
    /// Requests that it has ever taken.
    pub(crate) had: BTreeSet<Bytes>,
    /// What it has heard of clients of WebSockets.
    pub(crate) heard: BTreeSet<MessageKey>,
}

/// What a handler does when something happens to it.
#[derive(Debug, Default)]
pub(crate) struct Doings {
    /// Packets about feeding and presence.
    pub(crate) feeding: Vec<Vec<u8>>,
    /// Packets of sessions.
    pub(crate) session: Vec<Vec<u8>>,
    /// Channels whose log has fallen back to this head, or is gone: to be made known by an event.
    pub(crate) losses: Vec<(usize, Cursor)>,
    /// Requests to go on with.
    pub(crate) advances: Vec<Bytes>,
    /// A session that another handler is to take over.
    pub(crate) handed: Option<Work>,
    pub(crate) marks: Vec<Mark>,
}

impl Handler {
    /// A handler that has not started yet.
    pub(crate) fn new(name: String, role: Role, requests_max: u32) -> Self {
        Handler {
            name,
            role,
            alive: false,
            leaving: false,
            incarnation: 0,
            connection: 0,
            stalled_until_ms: 0,
            requests_max,
            following: BTreeMap::new(),
            beats: 0,
            works: BTreeMap::new(),
            had: BTreeSet::new(),
            heard: BTreeSet::new(),
        }
    }

    /// It says hello.
    pub(crate) fn greets(&self) -> bool {
        self.role != Role::Plain
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
        self.forget();
    }

    /// The connection is lost, and with it all that was about the edge.
    pub(crate) fn forget(&mut self) {
        self.connection += 1;
        self.following.clear();
        self.works.clear();
        self.had.clear();
        self.heard.clear();
    }

    fn hello(&self) -> Vec<u8> {
        let hello = Hello {
            ttl_ms: TTL_MS,
            incarnation: self.incarnation,
            feeds: matches!(self.role, Role::Both | Role::Feeds),
            serves: hold::Serves::default(),
            requests_max: self.requests_max,
        };
        let serves: &[(&str, &str)] = match self.role {
            Role::Both | Role::Serves => {
                &[("GET", "/events/"), ("GET", PATH), ("MESSAGE", PATH), ("*", "/plain")]
            }
            Role::Feeds | Role::Plain => &[],
        };
        let mut out = Vec::new();
        hold::write_packet(&mut out, self.name.as_bytes(), Kind::Hello, |fields| {
            hello.write(fields, serves);
        });
        out
    }

    /// What it says each second.
    pub(crate) fn beat(&mut self, store: &Store) -> Doings {
        let mut doings = Doings::default();
        self.keep_sessions(&mut doings);
        if self.leaving || !self.greets() {
            return doings;
        }
        doings.feeding.push(self.hello());
        self.beats += 1;
        self.tell_heads(store, &mut doings);
        doings
    }

    /// It leaves, in good order.
    pub(crate) fn bye(&mut self) -> Vec<u8> {
        self.leaving = true;
        self.following.clear();
        let mut out = Vec::new();
        hold::write_packet(&mut out, self.name.as_bytes(), Kind::Bye, |_| {});
        out
    }
}
