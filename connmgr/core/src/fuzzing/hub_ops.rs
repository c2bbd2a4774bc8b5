//! The hub, by the packets of handlers and the messages of workers: every request ends in one place, whoever comes
//! and goes, and nothing is said about a request that is over.

mod request;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use zhttp::fuzzing::Choices;
use zhttp::hold::{Heads, Hello, Serves, write_packet};
use zhttp::{Cursor, Envelope, Id, Kind};

use self::request::{Place, Request};
use super::log::Log;
use crate::hold::{Fed, FeedsConfig, Want};
use crate::hub::{
    Class, DispatchConfig, FromHub, Hub, HubConfig, HubOutput, Pending, Route, ToHub,
};
use crate::session::SessionId;
use crate::short_text::ShortText;

const WORKERS: u16 = 2;
const HANDLERS: [&str; 3] = ["h1", "h2", "h3"];
const CHANNELS: [&str; 2] = ["o:a", "o:b"];
const HANDLER_WAIT_MS: u64 = 10_000;
const WAITING_REQUESTS_MAX: usize = 6;
const WAITING_BYTES_MAX: usize = 60;

/// Groups of plain handlers: for all paths, for one prefix, and for req mode.
const GROUPS: usize = 3;
const PREFIX: &str = "/plain/";
const REQ_GROUP: usize = 2;

const PATHS: [&str; 4] = ["/", "/events/a", "/plain/a", "/\u{e4}"];
const SERVES: [&[(&str, &str)]; 5] =
    [&[("*", "/")], &[("GET", "/events/")], &[("GET", "/e"), ("*", "/plain/")], &[], &[("*", "")]];

/// What a handler says of itself; nothing, if it never did.
#[derive(Clone, Copy, Default)]
struct Said {
    incarnation: u64,
    feeds: bool,
    serves: &'static [(&'static str, &'static str)],
    requests_max: u32,
}

impl Said {
    fn write(&self, out: &mut Vec<u8>, from: &[u8], ttl_ms: u64) {
        let Said { incarnation, feeds, requests_max, .. } = *self;
        let hello = Hello { ttl_ms, incarnation, feeds, serves: Serves::default(), requests_max };
        write_packet(out, from, Kind::Hello, |fields| hello.write(fields, self.serves));
    }
}

struct World {
    hub: Hub,
    now_ms: u64,
    requests: BTreeMap<ShortText, Request>,
    /// How many requests there ever were.
    count: u64,
    /// Groups that take requests.
    takes: [bool; GROUPS],
    /// How many packets were passed to workers.
    passed: u64,
    /// What each handler said last of itself.
    said: BTreeMap<&'static str, Said>,
    open: BTreeSet<(u16, &'static str)>,
    logs: [Log; CHANNELS.len()],
}

/// Does what the choices say to a hub, then lets everybody leave.
///
/// # Panics
///
/// If a request is lost, or has two ends.
pub fn fuzz(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut world = World::new();
    while !choices.is_over() {
        world.apply(&mut choices);
        world.settle();
    }
    world.end();
}

impl World {
    fn new() -> Self {
        let routes = vec![Route { prefix: PREFIX.into(), group: 1 }];
        let config = HubConfig {
            instance_id: b"edge"[..].into(),
            workers: WORKERS,
            dispatch: DispatchConfig {
                handler_wait_ms: HANDLER_WAIT_MS,
                waiting_requests_max: WAITING_REQUESTS_MAX,
                waiting_bytes_max: WAITING_BYTES_MAX,
                routes,
                req_group: REQ_GROUP,
            },
            feeds: FeedsConfig {
                seed: 7,
                tail_bytes_max: 700,
                tails_bytes_max: 1_000,
                range_bytes_max: 30,
                ranges_in_flight_max: 2,
                answer_timeout_ms: 2_000,
                linger_ms: 5_000,
            },
        };
        World {
            hub: Hub::new(config),
            now_ms: 0,
            requests: BTreeMap::new(),
            count: 0,
            takes: [false; GROUPS],
            passed: 0,
            said: BTreeMap::new(),
            open: BTreeSet::new(),
            logs: CHANNELS.map(Log::new),
        }
    }

    fn apply(&mut self, choices: &mut Choices<'_>) {
        match choices.index(16) {
            0..=2 => self.request(choices),
            3 | 4 => self.hello(choices),
            5 => {
                let from = choices.one_of(&HANDLERS);
                self.packet(choices, from, |out, from| write_packet(out, from, Kind::Bye, |_| {}));
            }
            6 => {
                let peer = choices.one_of(&HANDLERS);
                self.lose(peer);
            }
            7 | 8 => self.session_packet(choices),
            9 => {
                if let Some(id) = self.pick(choices) {
                    self.done(id, choices.flag());
                }
            }
            10 => {
                let group = choices.index(GROUPS);
                self.takes[group] = choices.flag();
                if self.takes[group] {
                    self.hub.handle_push_peers(group, choices.index(3));
                    self.hub.handle_push_ready();
                }
            }
            11 => self.want(choices),
            12 => self.feed(choices),
            13 => {
                let (id, packet) = (choices.bytes(20), Bytes::from_static(b"notice"));
                let id = ShortText::new(id).expect("it is short");
                let message = ToHub::Notify { id, packet };
                self.hub.handle_worker(self.now_ms, 0, message);
            }
            14 => {
                let bytes = Bytes::copy_from_slice(choices.bytes(60));
                let _ = self.hub.handle_packet(self.now_ms, None, &bytes);
                let _ = self.hub.handle_reply(&bytes);
            }
            _ => self.advance(choices.up_to(40_000)),
        }
    }

    fn request(&mut self, choices: &mut Choices<'_>) {
        let worker = choices.index(WORKERS.into()) as u16;
        let class = choices.one_of(&[Class::Stream, Class::Stream, Class::Message, Class::Req]);
        let path = choices.one_of(&PATHS);
        self.count += 1;
        let id = SessionId { worker, slot: 0, counter: self.count }.text();
        let packet = Bytes::from(format!("request {}", self.count));
        let group = match class {
            Class::Req => Some(REQ_GROUP),
            Class::Stream => Some(usize::from(path.starts_with(PREFIX))),
            Class::Message => None,
        };
        let (place, withdrawn) = (Place::Waiting, BTreeSet::new());

        let request = Request {
            worker,
            group,
            packet: packet.clone(),
            place,
            withdrawn,
            may_be_answered: false,
        };
        self.requests.insert(id, request);
        let method = choices.one_of(&["GET", "POST"]).into();
        let pending =
            Pending { worker, class, id, method, path: path.into(), packet, deadline_ms: None };
        self.hub.handle_worker(self.now_ms, worker, ToHub::Request(pending));
    }

    /// A handler says that it is there, and what it does from now on.
    fn hello(&mut self, choices: &mut Choices<'_>) {
        let from = choices.one_of(&HANDLERS);
        let ttl_ms = 1 + choices.number() / 2;
        let said = Said {
            incarnation: choices.up_to(1),
            feeds: choices.flag(),
            requests_max: choices.up_to(3) as u32,
            serves: choices.one_of(&SERVES),
        };
        self.said.insert(from, said);
        self.packet(choices, from, |out, from| said.write(out, from, ttl_ms));
    }

    /// A handler says again what it said last.
    fn greet(&mut self, from: &'static str) {
        let mut out = Vec::new();
        self.said.entry(from).or_default().write(&mut out, from.as_bytes(), 60_000);
        let result = self.hub.handle_packet(self.now_ms, Some(from.as_bytes()), &out.into());
        assert_eq!(result, Ok(()));
        self.settle();
    }

    /// What a handler says about some sessions, which may not be its own.
    fn session_packet(&mut self, choices: &mut Choices<'_>) {
        let from = choices.one_of(&HANDLERS);
        // Whoever nobody knows cannot be missed either: what it takes over is not the hub's any more.
        self.greet(from);
        let named: Vec<ShortText> =
            (0..=choices.index(3)).filter_map(|_| self.pick(choices)).collect();
        let ids: Vec<Id<'_>> = named.iter().map(|id| Id { id, seq: None }).collect();
        let kind = choices.one_of(&[Kind::Data, Kind::KeepAlive, Kind::Cancel, Kind::Hold]);
        let has_no_say = named.iter().all(|id| self.requests[id].is_closed_to(from));
        let passed = self.passed;
        let is_spoiled = self.packet(choices, from, |out, from| {
            Envelope::new(from, kind).about(&ids).write(out, |_| {});
        });
        self.settle();
        assert!(!has_no_say || is_spoiled || self.passed == passed, "others have it, or nobody");
        // With a byte changed it may name any.
        let named = |id: &ShortText| is_spoiled || named.contains(id);
        for (_, request) in self.requests.iter_mut().filter(|(id, _)| named(id)) {
            request.hear(from);
        }
    }

    /// Hands over a packet, one time in sixteen with a byte changed. Says whether that was so.
    fn packet(
        &mut self,
        choices: &mut Choices<'_>,
        from: &'static str,
        write: impl FnOnce(&mut Vec<u8>, &[u8]),
    ) -> bool {
        let mut out = Vec::new();
        write(&mut out, from.as_bytes());
        let is_spoiled = choices.byte() >= 0xf0;
        if is_spoiled {
            let at = choices.index(out.len());
            out[at] = choices.byte();
        }
        let result = self.hub.handle_packet(self.now_ms, Some(from.as_bytes()), &out.into());
        // A session packet without a session has nobody to go to.
        let missing = matches!(result, Err(zhttp::PacketError::Missing("id")));
        assert!(result.is_ok() || missing || is_spoiled, "{result:?}");
        is_spoiled
    }

    fn want(&mut self, choices: &mut Choices<'_>) {
        let worker = choices.index(WORKERS.into()) as u16;
        let name = choices.one_of(&CHANNELS);
        let want = match choices.index(3) {
            0 => {
                self.open.insert((worker, name));
                Want::Open(name.into())
            }
            1 => {
                self.open.remove(&(worker, name));
                Want::Close(name.into())
            }
            _ if self.open.contains(&(worker, name)) => {
                let log = self.logs.iter().find(|log| *log.name == *name).expect("one of ours");
                Want::Range(name.into(), log.id(choices.index(log.len() + 1)))
            }
            _ => return,
        };
        self.hub.handle_worker(self.now_ms, worker, ToHub::Want(want));
    }

    /// Events, or where a channel ends.
    fn feed(&mut self, choices: &mut Choices<'_>) {
        let from = choices.one_of(&HANDLERS).as_bytes();
        let log = &mut self.logs[choices.index(CHANNELS.len())];
        if choices.flag() && log.len() < 100 {
            log.append(choices.index(8) == 7, choices.index(8) == 7);
        }
        let mut head = Vec::new();
        let heads = [(&*log.name, log.last())];
        write_packet(&mut head, from, Kind::Heads, |fields| {
            Heads::write(fields, heads.into_iter());
        });
        let from_index = log.len().saturating_sub(1 + choices.index(5));
        let packet = log.events_packet(from_index, 3).filter(|_| choices.flag());
        let packet = packet.unwrap_or(head.into());
        assert_eq!(self.hub.handle_packet(self.now_ms, Some(from), &packet), Ok(()));
    }

    fn pick(&self, choices: &mut Choices<'_>) -> Option<ShortText> {
        let index = usize::from(choices.byte()).checked_rem(self.requests.len())?;
        self.requests.keys().nth(index).cloned()
    }

    /// The worker needs no answer to it any more.
    fn done(&mut self, id: ShortText, is_cancelled: bool) {
        let request = self.requests.remove(&id).expect("it is not over");
        let cancel = is_cancelled.then(|| Bytes::from_static(b"cancel"));
        self.hub.handle_worker(self.now_ms, request.worker, ToHub::Done { id, cancel });
    }

    fn lose(&mut self, peer: &'static str) {
        self.hub.handle_peer_lost(self.now_ms, peer.as_bytes());
    }

    fn advance(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
        self.hub.handle_timeout(self.now_ms);
        self.settle();
        let due = self.hub.next_deadline();
        assert!(due.is_none_or(|due_ms| due_ms > self.now_ms), "what is due is done");
    }

    /// Does what the hub says, and checks it.
    fn settle(&mut self) {
        while let Some(output) = self.hub.poll_output(self.now_ms) {
            self.handle_output(output);
        }
        self.hub.check_invariants();
    }

    fn handle_output(&mut self, output: HubOutput) {
        match output {
            HubOutput::Push { group, pending } => {
                let request = self.requests.get_mut(&pending.id).expect("it is not over");
                assert_eq!((Some(group), &pending.packet), (request.group, &request.packet));
                assert_ne!(request.place, Place::Pushed, "it is pushed once");
                if self.takes[group] {
                    request.move_to(Place::Pushed);
                } else {
                    request.move_to(Place::Waiting);
                    self.hub.handle_push_refused(self.now_ms, group, pending);
                }
            }
            HubOutput::Route { peer, packet } => {
                let handler = HANDLERS.into_iter().find(|handler| handler.as_bytes() == &*peer);
                let handler = handler.expect("only to who has said something");
                if packet.starts_with(b"request ") {
                    let mut requests = self.requests.values_mut();
                    let request = requests.find(|request| request.packet == packet);
                    let request = request.expect("nobody gets what is over");
                    assert_ne!(request.group, Some(REQ_GROUP), "they do stream mode");
                    assert_ne!(request.place, Place::Pushed, "it is given once");
                    request.move_to(Place::Given(handler));
                }
            }
            HubOutput::Worker { worker, message } => self.handle_message(worker, message),
        }
    }

    fn handle_message(&mut self, worker: u16, message: FromHub) {
        assert!(worker < WORKERS, "there is such a worker");
        match message {
            FromHub::Undelivered(_)
            | FromHub::Stalled(_)
            | FromHub::Flowing(_)
            | FromHub::Missed(..) => {
                unreachable!("the shell says that")
            }
            FromHub::Packet(_) | FromHub::Reply(_) | FromHub::Malformed { .. } => self.passed += 1,
            FromHub::Refused(id) | FromHub::Unserved(id) | FromHub::HandlerLeft(id) => {
                let request = self.requests.get(&id).expect("a request ends once");
                assert_eq!(request.worker, worker);
                // The worker answers its client, and says that it is done.
                self.done(id, false);
            }
            FromHub::Fed(fed) => {
                let (name, head): (&str, Cursor) = match &fed {
                    Fed::Events(run) => (run.channel(), run.last()),
                    Fed::Head(name, head) => (name, *head),
                    Fed::Gap(gap) => (&gap.channel, gap.last_known()),
                };
                let log = self.logs.iter().find(|log| *log.name == *name).expect("one of ours");
                assert!(head <= log.last(), "there is such an event");
                let is_open = |open: &(u16, &str)| open.0 == worker && open.1 == name;
                assert!(self.open.iter().any(is_open), "only to who has members");
            }
        }
    }

    /// All handlers leave and no group takes anything: then no request is left with anybody.
    fn end(&mut self) {
        self.takes = [false; GROUPS];
        // Each leaves what it has to the next, until none is left.
        for _ in 0..2 {
            for handler in HANDLERS {
                self.greet(handler);
                self.lose(handler);
                self.settle();
            }
        }
        assert_eq!(self.hub.handlers(), 0);
        self.advance(HANDLER_WAIT_MS);
        self.advance(HANDLER_WAIT_MS);
        let left: Vec<&Request> =
            self.requests.values().filter(|request| request.place != Place::Pushed).collect();
        assert!(left.is_empty(), "every request has an end: {left:?}");
    }
}
