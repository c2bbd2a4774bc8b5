//! Whatever comes from either side, in whatever order: nothing panics, nothing grows without bound,
//! nobody gets what is another's, and nothing is left behind.

use proptest::prelude::*;
use zhttp::hold::{Format, HoldParams};
use zhttp::{Cursor, Envelope, Id, Kind};

use super::{Edge, config};
use crate::hub::{FromHub, ToHub};
use crate::slab::Key;

const CLIENTS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Connect,
    Send(usize, Vec<u8>),
    Request(usize, usize),
    HalfClose(usize),
    Reset(usize),
    Take(usize, usize),
    /// A packet of a handler: about which session, of which kind, and how it is spoiled.
    Packet(usize, usize, Said, Option<(prop::sample::Index, u8)>),
    Refused(usize),
    HandlerLeft(usize),
    Advance(u64),
    Drain,
}

/// What a handler says.
#[derive(Clone, Debug)]
struct Said {
    has_seq: bool,
    code: u64,
    body: Vec<u8>,
    credits: u64,
    more: bool,
    holds: bool,
}

const REQUESTS: [&str; 5] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET",
];

fn said() -> impl Strategy<Value = Said> {
    let code = prop_oneof![6 => Just(200), 1 => Just(204), 2 => 0..700_u64];
    (
        any::<bool>(),
        code,
        prop::collection::vec(any::<u8>(), 0..120),
        0..200_u64,
        any::<bool>(),
        0..4,
    )
        .prop_map(|(has_seq, code, body, credits, more, holds)| Said {
            has_seq,
            code,
            body,
            credits,
            more,
            holds: holds == 0,
        })
}

fn step() -> impl Strategy<Value = Step> {
    let spoiled = prop::option::weighted(0.2, (any::<prop::sample::Index>(), any::<u8>()));
    let kind = prop_oneof![6 => Just(0), 3 => 0..Kind::ALL.len()];
    let some_bytes = prop::collection::vec(any::<u8>(), 0..60);
    prop_oneof![
        2 => Just(Step::Connect),
        1 => (0..CLIENTS, some_bytes).prop_map(|(client, bytes)| Step::Send(client, bytes)),
        6 => (0..CLIENTS, 0..REQUESTS.len()).prop_map(|(client, n)| Step::Request(client, n)),
        1 => (0..CLIENTS).prop_map(Step::HalfClose),
        1 => (0..CLIENTS).prop_map(Step::Reset),
        4 => (0..CLIENTS, 0..500_usize).prop_map(|(client, bytes)| Step::Take(client, bytes)),
        12 => (0..8_usize, kind, said(), spoiled)
            .prop_map(|(session, kind, said, spoiled)| Step::Packet(session, kind, said, spoiled)),
        1 => (0..8_usize).prop_map(Step::Refused),
        1 => (0..8_usize).prop_map(Step::HandlerLeft),
        3 => (0..100_000_u64).prop_map(Step::Advance),
        1 => prop::option::weighted(0.05, Just(Step::Drain))
            .prop_map(|drain| drain.unwrap_or(Step::Advance(1))),
    ]
}

struct World {
    edge: Edge,
    clients: Vec<Key>,
    /// Each session that ever was, with its client.
    sessions: Vec<(String, Key)>,
}

impl World {
    fn new() -> Self {
        let mut config = config();
        config.client_backlog_bytes_max = 300;
        World { edge: Edge::with(config), clients: Vec::new(), sessions: Vec::new() }
    }

    fn client(&mut self, index: usize) -> Option<Key> {
        let key = *self.clients.get(index)?;
        (!self.edge.is_closed(key)).then_some(key)
    }

    fn session(&self, index: usize) -> Option<(String, Key)> {
        // The newest are the ones that live.
        let index = self.sessions.len().checked_sub(1 + index)?;
        Some(self.sessions[index].clone())
    }

    fn connect(&mut self) {
        let key = self.edge.connect();
        // It takes nothing by itself.
        self.edge.client(key).takes = Some(0);
        self.clients.insert(0, key);
        self.clients.truncate(CLIENTS);
    }

    fn apply(&mut self, step: Step) {
        match step {
            Step::Connect => self.connect(),
            Step::Send(client, bytes) => {
                if let Some(key) = self.client(client) {
                    self.edge.send(key, bytes);
                }
            }
            Step::Request(client, n) => {
                if let Some(key) = self.client(client) {
                    self.edge.send(key, REQUESTS[n]);
                }
            }
            Step::HalfClose(client) => {
                if let Some(key) = self.client(client) {
                    self.edge.half_close(key);
                }
            }
            Step::Reset(client) => {
                if let Some(key) = self.client(client) {
                    self.edge.worker.handle_error(key);
                    self.edge.turn();
                }
            }
            Step::Take(client, bytes) => {
                if let Some(key) = self.client(client)
                    && !self.edge.is_shut(key)
                {
                    self.edge.take(key, bytes);
                }
            }
            Step::Packet(session, kind, said, spoiled) => {
                self.packet(session, Kind::ALL[kind], &said, spoiled);
            }
            Step::Refused(session) => {
                if let Some((id, _)) = self.session(session) {
                    self.edge.hub(&FromHub::Refused(id.into()));
                }
            }
            Step::HandlerLeft(session) => {
                if let Some((id, _)) = self.session(session) {
                    self.edge.hub(&FromHub::HandlerLeft(id.into()));
                }
            }
            Step::Advance(ms) => self.edge.advance(ms),
            Step::Drain => {
                self.edge.worker.drain(self.edge.now_ms, &mut self.edge.sockets);
                self.edge.turn();
            }
        }
        self.learn();
    }

    /// Notes which client a new session is of.
    fn learn(&mut self) {
        for message in self.edge.to_hub.drain(..) {
            if let ToHub::Request(pending) = message {
                let id = String::from_utf8(pending.id.to_vec()).unwrap();
                let slot: u32 = id.split('-').nth(1).unwrap().parse().unwrap();
                let key = self.edge.worker.connections.key_at(slot).unwrap();
                self.sessions.push((id, key));
            }
        }
    }

    fn packet(
        &mut self,
        session: usize,
        kind: Kind,
        said: &Said,
        spoiled: Option<(prop::sample::Index, u8)>,
    ) {
        let Some((id, owner)) = self.session(session) else { return };
        let mut bytes = write(&id, kind, said);
        if let Some((at, byte)) = spoiled {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let names = |key: Key, bytes: &[u8]| {
            let prefix = format!("3-{}-", key.index);
            bytes.windows(prefix.len()).any(|window| window == prefix.as_bytes())
        };
        let others = |world: &World| -> Vec<(Key, usize)> {
            let clients = world.edge.sockets.clients.iter();
            let unnamed = clients.filter(|(key, _)| **key != owner && !names(**key, &bytes));
            unnamed.map(|(key, client)| (*key, client.got.len())).collect()
        };
        let before = others(self);
        let message = FromHub::Packet(bytes.clone().into());
        let result =
            self.edge.worker.handle_hub(self.edge.now_ms, &mut self.edge.sockets, &message);
        assert!(result.is_ok() || spoiled.is_some(), "{result:?}");
        self.edge.turn();
        assert_eq!(others(self), before, "a packet concerns those that it names");
    }
}

fn write(id: &str, kind: Kind, said: &Said) -> Vec<u8> {
    let ids = [Id { id: id.as_bytes(), seq: said.has_seq.then_some(0) }];
    let params = HoldParams {
        keep_alive_ms: said.credits * 100,
        expires_s: said.code % 20,
        context: b"context",
        notify: said.more,
        ..HoldParams::new(if said.credits == 7 { Format::Ws } else { Format::Sse })
    };
    let channels = [("o:a", Cursor::new(1, 0)), ("o:b", Cursor::START)];
    let mut out = Vec::new();
    Envelope { from: b"h1", ids: &ids, kind, multi: true }.write_ext(
        &mut out,
        |ext| {
            if said.holds {
                params.write(ext, &channels);
            }
        },
        |fields| {
            fields.int("code", said.code);
            fields.bytes("body", &said.body);
            fields.int("credits", said.credits);
            fields.flag("more", said.more);
        },
    );
    out
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn nothing_disturbs_the_worker(steps in prop::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        world.connect();
        for step in steps {
            world.apply(step);
        }
        world.edge.end();
    }

    #[test]
    fn no_bytes_disturb_the_worker(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..20),
    ) {
        let mut edge = Edge::new();
        let (client, _) = edge.get();
        for packet in packets {
            let message = FromHub::Packet(packet.into());
            let result = edge.worker.handle_hub(edge.now_ms, &mut edge.sockets, &message);
            prop_assert!(result.is_err());
        }
        edge.turn();
        prop_assert_eq!(edge.got(client), "");
        edge.end();
    }
}
