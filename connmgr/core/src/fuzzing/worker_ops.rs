//! The whole worker by operations: clients that send anything and take little, handlers that say anything about any
//! session, feeds, time and the end.
//!
//! The oracle is what each side can see. Packets of a session are numbered without a hole, and none comes behind its
//! `cancel`; each request is done once; a packet concerns only those it names; who has room is read from; nothing is
//! written behind the end, and what is written are responses; and when all have left, nothing is left.

mod packets;
mod reading;
mod sockets;

use std::collections::BTreeSet;

use bytes::Bytes;
use zhttp::fuzzing::Choices;
use zhttp::hold::Message;
use zhttp::{Envelope, Id, Kind, Packet};

use self::packets::write_packet;
use self::sockets::{Shell, Sockets};
use super::log::Log;
use crate::hold::{Fed, MembersConfig, Want};
use crate::http1::HeadLimits;
use crate::hub::{Class, FromHub, HandlerId, Pending, ToHub};
use crate::session::SessionId;
use crate::short_text::ShortText;
use crate::slab::Key;
use crate::worker::{Mode, TimeoutConfig, Worker, WorkerConfig};

const WORKER: u16 = 3;
const CLIENTS_MAX: usize = 5;
const HANDLERS: [&[u8]; 2] = [b"h1", b"h2"];
const CHANNELS: [&str; 2] = ["o:a", "o:b"];
const EVENTS_MAX: usize = 60;
const BACKLOG_BYTES_MAX: usize = 300;

/// What clients send, right and wrong.
const TEXTS: &[&str] = &[
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 150\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    "HEAD / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET",
    "hello",
    "5\r\nhello\r\n",
    "c8\r\n",
    "0\r\n\r\n",
    "0\r\nA: b\r\n\r\n",
    "\r\n",
    "GET",
    "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567",
];

/// What they send once they are WebSockets, right and wrong; masked with zeros, so that it can be read here.
const FRAMES: &[&[u8]] = &[
    b"\x81\x85\0\0\0\0hello",
    b"\x01\x83\0\0\0\0hel",
    b"\x80\x82\0\0\0\0lo",
    b"\x82\xfe\0\x96\0\0\0\0",
    b"\x89\x82\0\0\0\0hi",
    b"\x8a\x80\0\0\0\0",
    b"\x88\x82\0\0\0\0\x03\xe8",
    b"\x88\x80\0\0\0\0",
    b"\xc1\x87\0\0\0\0\xf2\x48\xcd\xc9\xc9\x07\x00",
    b"\x81\x81\0\0\0\0\xff",
    b"\x83\x80\0\0\0\0",
];

/// A request that was made.
struct Request {
    id: ShortText,
    client: Key,
    mode: Mode,
    /// Numbers of packets to its handler that have come; one is the request itself.
    packets: u32,
    /// Packets with a number that its handler has sent.
    replies: u32,
    is_cancelled: bool,
    /// The names of the packets with what its client says once it is held.
    said: Vec<ShortText>,
}

struct World {
    shell: Shell,
    requests: Vec<Request>,
    /// Those that are over. In req mode a client may leave before its request is whole and known.
    done: BTreeSet<ShortText>,
    /// The handlers that take nothing.
    stalled: BTreeSet<HandlerId>,
    logs: [Log; CHANNELS.len()],
    wants: Vec<Want>,
    open: BTreeSet<String>,
}

/// Does what the choices say to a worker, then lets everybody leave.
///
/// # Panics
///
/// If it breaks one of the promises above.
pub fn fuzz(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut world = World::new();
    while !choices.is_over() {
        world.apply(&mut choices);
        world.shell.turn();
        world.learn();
    }
    world.end();
}

fn config() -> WorkerConfig {
    WorkerConfig {
        index: WORKER,
        instance_id: b"edge"[..].into(),
        buffer_bytes: 100,
        body_bytes_max: 200,
        head: HeadLimits { head_bytes_max: 400, target_bytes_max: 60 },
        client_backlog_bytes_max: BACKLOG_BYTES_MAX,
        timeouts: TimeoutConfig::default(),
        compression: true,
        members: MembersConfig { seed: 7, range_retry_ms: 5_000 },
    }
}

impl World {
    fn new() -> Self {
        let now_ms = 1_000;
        let mut worker = Worker::new(config(), now_ms);
        worker.set_date("Sun, 06 Nov 1994 08:49:37 GMT");
        let sockets = Sockets::default();
        World {
            shell: Shell { worker, sockets, now_ms, to_hub: Default::default() },
            requests: Vec::new(),
            done: BTreeSet::new(),
            stalled: BTreeSet::new(),
            logs: CHANNELS.map(Log::new),
            wants: Vec::new(),
            open: BTreeSet::new(),
        }
    }

    fn apply(&mut self, choices: &mut Choices<'_>) {
        let present = self.shell.present();
        let how = choices.index(20);
        let client = (!present.is_empty()).then(|| present[choices.index(present.len())]);
        match (how, client) {
            (0, _) | (_, None) if present.len() < CLIENTS_MAX => self.connect(choices),
            (1..=4, Some(key)) => {
                let text = choices.one_of(TEXTS);
                self.shell.send(key, text.as_bytes());
            }
            (5, Some(key)) => self.shell.send(key, choices.bytes(120)),
            (18 | 19, Some(key)) => self.shell.send(key, choices.one_of(FRAMES)),
            (6, Some(key)) => match choices.index(4) {
                0 => self.shell.worker.handle_error(key),
                1 => self.shell.break_off(key),
                _ => self.shell.half_close(key),
            },
            (7 | 8, Some(key)) => self.shell.take(key, choices.index(600)),
            (9..=12, _) => self.packet(choices),
            (13, _) => self.hub_message(choices),
            (14, _) => self.feed(choices),
            (15, _) => self.answer_want(choices),
            (16, _) => self.shell.advance(choices.number().min(2_000_000)),
            _ if choices.byte() >= 0xfa => {
                let Shell { worker, sockets, now_ms, .. } = &mut self.shell;
                worker.drain(*now_ms, sockets);
            }
            _ => self.shell.advance(choices.up_to(3_000)),
        }
    }

    fn connect(&mut self, choices: &mut Choices<'_>) {
        let mode = if choices.index(4) == 3 { Mode::Req } else { Mode::Stream };
        let key = self.shell.worker.accept(self.shell.now_ms, mode, false);
        let before = self.shell.sockets.clients.insert(key, Default::default());
        assert!(before.is_none(), "a key names one connection");
        if choices.flag() {
            self.shell.take(key, choices.index(2_000));
        }
    }

    /// A request, mostly of the newest.
    fn pick(&self, choices: &mut Choices<'_>) -> Option<usize> {
        let back = usize::from(choices.byte() % 16);
        self.requests.len().checked_sub(1 + back.min(self.requests.len().saturating_sub(1)))
    }

    /// A handler says something about a session or some, and one time in ten a byte of it is wrong.
    fn packet(&mut self, choices: &mut Choices<'_>) {
        let Some(first) = self.pick(choices) else { return };
        let mut picked = vec![first];
        if choices.index(8) == 7 {
            picked.extend((0..choices.index(5)).filter_map(|_| self.pick(choices)));
        }
        let kind = match choices.index(3) {
            0 => choices.one_of(Kind::ALL),
            1 => choices.one_of(&[Kind::Credit, Kind::KeepAlive, Kind::Hold, Kind::Send]),
            _ => Kind::Data,
        };
        let seq = choices.index(8);
        let seqs = picked.iter().map(|&index| match seq {
            0 | 1 => None,
            2 => Some(choices.number() as u32),
            _ => Some(self.requests[index].replies),
        });
        let seqs: Vec<Option<u32>> = seqs.collect();
        let ids =
            picked.iter().zip(&seqs).map(|(&index, &seq)| Id { id: &self.requests[index].id, seq });
        let ids: Vec<Id<'_>> = ids.collect();
        let mut bytes = Vec::new();
        let from = choices.one_of(&[HANDLERS[0], HANDLERS[0], HANDLERS[1], b""]);
        let envelope = Envelope { from, ids: &ids, kind, multi: true };
        let number = self.requests[first].said.len() as u64;
        write_packet(&mut bytes, (&envelope, number), choices);
        let is_spoiled = choices.byte() >= 0xe8;
        if is_spoiled {
            let at = choices.index(bytes.len());
            bytes[at] = choices.byte();
        }
        for (&index, seq) in picked.iter().zip(&seqs) {
            self.requests[index].replies += u32::from(seq.is_some());
        }
        let owners: BTreeSet<Key> =
            picked.iter().map(|&index| self.requests[index].client).collect();
        // Mostly by the sockets of its mode.
        let mode = match choices.index(16) {
            15 => choices.one_of(&[Mode::Stream, Mode::Req]),
            _ => self.requests[first].mode,
        };
        self.hand_over(mode, &bytes.into(), &owners);
    }

    /// Hands a packet to the worker as the hub does: it concerns those whose sessions it names.
    fn hand_over(&mut self, mode: Mode, packet: &Bytes, owners: &BTreeSet<Key>) {
        let names = |key: Key| {
            let prefix = format!("{WORKER}-{}-", key.index);
            packet.windows(prefix.len()).any(|window| window == prefix.as_bytes())
        };
        let others = |shell: &Shell| -> Vec<(Key, usize)> {
            let clients = shell.sockets.clients.iter();
            let unnamed = clients.filter(|(key, _)| !owners.contains(key) && !names(**key));
            unnamed.map(|(key, client)| (*key, client.got.len())).collect()
        };
        let message = match Packet::parse(packet) {
            Ok(_) if mode == Mode::Stream => FromHub::Packet(packet.clone()),
            Ok(_) => FromHub::Reply(packet.clone()),
            Err(error) => {
                let from = Packet::salvage(packet).map_or(&b""[..], |salvage| salvage.from).into();
                FromHub::Malformed { mode, from, error, packet: packet.clone() }
            }
        };
        let before = others(&self.shell);
        let Shell { worker, sockets, now_ms, .. } = &mut self.shell;
        let result = worker.handle_hub(*now_ms, sockets, &message);
        assert_eq!(result, Ok(()), "it was understood before");
        assert_eq!(others(&self.shell), before, "a packet concerns those that it names");
    }

    fn hub_message(&mut self, choices: &mut Choices<'_>) {
        let Some(index) = self.pick(choices) else { return };
        let Request { id, said, .. } = &self.requests[index];
        let id = *said.last().filter(|_| choices.flag()).unwrap_or(id);
        let handler: HandlerId = choices.one_of(&HANDLERS).into();
        let message = match choices.index(8) {
            0 => FromHub::Refused(id),
            1 => FromHub::Unserved(id),
            2 => FromHub::HandlerLeft(id),
            3 => FromHub::Undelivered(id),
            4 => FromHub::Packet(Bytes::copy_from_slice(choices.bytes(60))),
            5 => {
                self.stalled.insert(handler.clone());
                FromHub::Stalled(handler)
            }
            _ => {
                self.stalled.remove(&handler);
                FromHub::Flowing(handler)
            }
        };
        let Shell { worker, sockets, now_ms, .. } = &mut self.shell;
        let _ = worker.handle_hub(*now_ms, sockets, &message);
    }

    fn tell(&mut self, fed: Fed) {
        let Shell { worker, sockets, now_ms, .. } = &mut self.shell;
        let told = worker.handle_hub(*now_ms, sockets, &FromHub::Fed(fed));
        assert_eq!(told, Ok(()));
    }

    /// New events, or some that came before.
    fn feed(&mut self, choices: &mut Choices<'_>) {
        let log = &mut self.logs[choices.index(CHANNELS.len())];
        let how = choices.byte();
        if log.len() < EVENTS_MAX {
            log.append(how >= 0xf0, how & 0xf == 0xf);
        }
        if how & 0x30 == 0x30 {
            log.trim(2);
        }
        let from = log.len().saturating_sub(1 + usize::from(how & 7));
        if let Some(run) = log.run(from, usize::MAX) {
            self.tell(Fed::Events(run));
        }
    }

    fn answer_want(&mut self, choices: &mut Choices<'_>) {
        let Some(index) = usize::from(choices.byte()).checked_rem(self.wants.len()) else { return };
        let log = |name: &str| self.logs.iter().find(|log| *log.name == *name);
        let fed = match self.wants.swap_remove(index) {
            Want::Open(name) => log(&name).map(|log| Fed::Head(name, log.last())),
            Want::Range(name, after) => log(&name).map(|log| log.answer(after, 4)),
            Want::Close(_) => None,
        };
        if let Some(fed) = fed {
            self.tell(fed);
        }
    }

    /// Looks at what the hub was told.
    fn learn(&mut self) {
        for message in std::mem::take(&mut self.shell.to_hub) {
            match message {
                ToHub::Request(pending) if pending.class == Class::Message => self.hear(&pending),
                ToHub::Request(pending) => self.begin(&pending),
                ToHub::Packet { to, packet } => {
                    let kind = self.count(&packet);
                    let is_body = kind == Kind::Data;
                    assert!(!is_body || !self.stalled.contains(&to), "bodies wait");
                }
                ToHub::Done { id, cancel } => {
                    assert!(self.done.insert(id), "it is done once");
                    if let Some(cancel) = cancel {
                        assert_eq!(self.count(&cancel), Kind::Cancel);
                    }
                }
                ToHub::Notify { id, .. } => {
                    assert!(self.done.contains(&id), "it was held");
                }
                ToHub::Want(want) => {
                    let is_open = match &want {
                        Want::Open(name) => {
                            self.open.insert(name.to_string());
                            true
                        }
                        Want::Close(name) => self.open.remove(&**name),
                        Want::Range(name, _) => self.open.contains(&**name),
                    };
                    assert!(is_open, "{want:?}");
                    self.wants.push(want);
                }
            }
        }
    }

    /// A request wants a handler.
    fn begin(&mut self, pending: &Pending) {
        let slot = SessionId::parse(&pending.id).map(|session| session.slot);
        let mut clients = self.shell.sockets.clients.iter_mut().rev();
        let client = clients.find(|(key, _)| Some(key.index) == slot);
        let (key, client) = client.expect("it has a client");
        client.is_head.push(&*pending.method == "HEAD");
        let known = self.requests.iter().any(|request| request.id == pending.id);
        assert!(!known, "an id of its own");
        let packet = Packet::parse(&pending.packet).expect("it was written here");
        let seq = { packet.ids }.next().and_then(|id| id.seq);
        let mode = if pending.class == Class::Req { Mode::Req } else { Mode::Stream };
        assert_eq!(seq, (mode == Mode::Stream).then_some(0), "it is the first packet");
        self.requests.push(Request {
            id: pending.id,
            client: *key,
            mode,
            packets: 1,
            replies: 0,
            is_cancelled: false,
            said: Vec::new(),
        });
    }

    /// A client on a held WebSocket has said something.
    fn hear(&mut self, pending: &Pending) {
        let packet = Packet::parse(&pending.packet).expect("it was written here");
        assert_eq!((packet.kind, packet.from), (Kind::Message, &b"edge"[..]));
        let message = Message::read(&packet).expect("it was written here");
        let id = { packet.ids }.next().expect("it is about a session");
        let request = self.requests.iter_mut().find(|request| *request.id == *id.id);
        let request = request.expect("there was such a request");
        assert!(self.done.contains(&request.id), "it is held");
        assert_eq!(message.path, &*pending.path);
        assert_eq!(message.number, request.said.len() as u64 + 1, "numbers have no hole");
        assert!(message.bodies.count() > 0, "something was said");
        assert!(request.said.iter().all(|id| self.done.contains(id)), "one is out at a time");
        request.said.push(pending.id);
    }

    /// A packet to a handler: the next one of each session that it numbers. Says what it is.
    fn count(&mut self, bytes: &Bytes) -> Kind {
        let packet = Packet::parse(bytes).expect("it was written here");
        assert_eq!(packet.from, b"edge");
        assert!(packet.ids.count() <= zhttp::IDS_MAX);
        for Id { id, seq } in packet.ids {
            // Of sessions that are over, or never were, handlers are told without a number.
            let Some(seq) = seq else {
                assert_eq!(packet.kind, Kind::Cancel);
                continue;
            };
            let request = self.requests.iter_mut().find(|request| *request.id == *id);
            let request = request.expect("there was such a request");
            assert_eq!(request.mode, Mode::Stream, "in req mode nobody is told anything");
            assert_eq!(seq, request.packets, "numbers have no hole");
            assert!(!request.is_cancelled, "nothing comes behind a cancel");
            request.packets += 1;
            request.is_cancelled = packet.kind == Kind::Cancel;
        }
        packet.kind
    }

    /// All clients leave, or the edge does: nothing is left of anybody.
    fn end(mut self) {
        if self.requests.len().is_multiple_of(2) {
            let Shell { worker, sockets, now_ms, .. } = &mut self.shell;
            worker.stop(*now_ms, sockets);
        }
        for key in self.shell.present() {
            self.shell.worker.handle_error(key);
        }
        self.shell.turn();
        self.learn();
        let worker = &self.shell.worker;
        assert_eq!((worker.connections(), worker.holds()), (0, 0));
        assert_eq!([Mode::Stream, Mode::Req].map(|mode| worker.connections_in(mode)), [0, 0]);
        let said = self.requests.iter().flat_map(|request| &request.said);
        let mut ids = self.requests.iter().map(|request| &request.id).chain(said);
        assert!(ids.all(|id| self.done.contains(id)), "each request is done");
        assert!(self.open.is_empty(), "no channel is read");
        let stats = worker.stats();
        let clients = self.shell.sockets.clients.len() as u64;
        assert_eq!(stats.closed.iter().sum::<u64>(), clients, "each end is counted");
        for client in self.shell.sockets.clients.values() {
            reading::check(&client.got, &client.is_head);
        }
        let said = self.requests.iter().map(|request| request.said.len()).sum::<usize>();
        assert!((self.done.len() - said) as u64 <= stats.requests, "each request is counted");
    }
}
