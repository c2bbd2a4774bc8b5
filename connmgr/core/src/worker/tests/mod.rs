//! The worker machine on a model of sockets, with a clock that the test turns.
//!
//! [`Edge`] is what the shell is in production: it reads when there is room, writes what the model
//! of a socket takes, and does what the machine says. It reads on only when bytes come or the machine
//! asks for it, as with an edge-triggered poll, so that a forgotten [`Output::Read`] is a hang
//! here too. After each step it checks the invariants.

#![allow(clippy::unwrap_used)]

mod bodies;
mod closing;
mod conformance;
mod errors;
mod handlers;
mod held_sockets;
mod holds;
mod hostile;
mod req;
mod requests;
mod responses;
mod sockets;
mod speech;

use std::collections::{BTreeMap, VecDeque};
use std::io::IoSlice;
use std::net::SocketAddr;

use bytes::Bytes;
use zhttp::{Envelope, Fields, Id, Kind, Packet};

use super::{Mode, Output, TimeoutConfig, Transport, Worker, WorkerConfig};
use crate::hold::MembersConfig;
use crate::http1::HeadLimits;
use crate::hub::{FromHub, ToHub};
use crate::slab::Key;

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// Credits of the edge in these tests, unless they say otherwise.
const BUFFER_BYTES: u32 = 100;

/// Of a body in req mode.
const BODY_BYTES_MAX: usize = 200;

const BACKLOG_BYTES_MAX: usize = 1_000;

fn config() -> WorkerConfig {
    WorkerConfig {
        index: 3,
        instance_id: b"edge"[..].into(),
        buffer_bytes: BUFFER_BYTES,
        body_bytes_max: BODY_BYTES_MAX,
        head: HeadLimits::default(),
        client_backlog_bytes_max: BACKLOG_BYTES_MAX,
        timeouts: TimeoutConfig::default(),
        compression: true,
        members: MembersConfig { seed: 7, range_retry_ms: 5_000 },
    }
}

/// A client, and the model of its socket.
#[derive(Debug, Default)]
struct Client {
    /// What it has sent and the edge has not read.
    unread: VecDeque<u8>,
    has_closed: bool,
    /// The edge knows that.
    eof_is_read: bool,
    /// What it got.
    got: Vec<u8>,
    /// How many bytes the socket still takes; all, if nothing is said.
    takes: Option<usize>,
    is_shut: bool,
    is_closed: bool,
}

#[derive(Debug, Default)]
struct Sockets {
    clients: BTreeMap<Key, Client>,
    peer: Option<SocketAddr>,
    /// Writes fail, as after a reset.
    is_broken: bool,
}

impl Transport for Sockets {
    fn write(&mut self, key: Key, slices: &[IoSlice<'_>]) -> Option<usize> {
        if self.is_broken {
            return None;
        }
        let client = self.clients.get_mut(&key)?;
        assert!(!client.is_shut && !client.is_closed, "a write behind the end");
        let mut taken = 0;
        for slice in slices {
            let room = client.takes.unwrap_or(usize::MAX).min(slice.len());
            client.got.extend_from_slice(&slice[..room]);
            client.takes = client.takes.map(|takes| takes - room);
            taken += room;
        }
        Some(taken)
    }

    fn peer(&self, _: Key) -> Option<SocketAddr> {
        self.peer
    }
}

/// A packet or a word for the hub, read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    /// `request`, `done`, `notify`, `want`, or the handler that it goes to.
    to: String,
    id: String,
    seq: Option<u32>,
    kind: String,
    body: Vec<u8>,
    more: bool,
    credits: u32,
    condition: String,
}

struct Edge {
    worker: Worker,
    sockets: Sockets,
    now_ms: u64,
    /// Bytes of one read.
    read_bytes_max: usize,
    to_hub: VecDeque<ToHub>,
}

impl Edge {
    fn new() -> Self {
        Edge::with(config())
    }

    fn with(config: WorkerConfig) -> Self {
        let mut worker = Worker::new(config, 1_000);
        worker.set_date(DATE);
        Edge {
            worker,
            sockets: Sockets::default(),
            now_ms: 1_000,
            read_bytes_max: usize::MAX,
            to_hub: VecDeque::new(),
        }
    }

    fn connect(&mut self) -> Key {
        self.connect_to(Mode::Stream)
    }

    /// Connects a client to a listener of that mode.
    fn connect_to(&mut self, mode: Mode) -> Key {
        let key = self.worker.accept(self.now_ms, mode, false);
        self.sockets.clients.insert(key, Client::default());
        self.turn();
        key
    }

    /// Connects a client that sends this.
    fn connect_with(&mut self, bytes: impl AsRef<[u8]>) -> Key {
        let key = self.connect();
        self.send(key, bytes);
        key
    }

    /// The client sends bytes, and the edge reads as far as it wants.
    fn send(&mut self, key: Key, bytes: impl AsRef<[u8]>) {
        self.client(key).unread.extend(bytes.as_ref());
        self.read(key);
        self.turn();
    }

    /// The client closes its side.
    fn half_close(&mut self, key: Key) {
        self.client(key).has_closed = true;
        self.read(key);
        self.turn();
    }

    /// The client takes so many bytes more.
    fn take(&mut self, key: Key, bytes: usize) {
        *self.client(key).takes.get_or_insert(0) += bytes;
        self.worker.handle_writable(self.now_ms, &mut self.sockets, key);
        self.turn();
    }

    fn client(&mut self, key: Key) -> &mut Client {
        self.sockets.clients.get_mut(&key).unwrap()
    }

    /// What the client has got since the last time.
    fn got(&mut self, key: Key) -> String {
        let got = std::mem::take(&mut self.client(key).got);
        String::from_utf8_lossy(&got).replace(&format!("Date: {DATE}\r\n"), "")
    }

    fn is_closed(&mut self, key: Key) -> bool {
        self.client(key).is_closed
    }

    fn is_shut(&mut self, key: Key) -> bool {
        self.client(key).is_shut
    }

    /// Reads as the shell does.
    fn read(&mut self, key: Key) {
        loop {
            let room = self.worker.room(key).min(self.read_bytes_max);
            let client = self.sockets.clients.get_mut(&key).unwrap();
            if client.is_closed {
                return;
            }
            if room == 0 {
                if client.has_closed {
                    self.worker.handle_read_closed(self.now_ms, key);
                }
                return;
            }
            if client.unread.is_empty() {
                if client.has_closed && !std::mem::replace(&mut client.eof_is_read, true) {
                    self.worker.handle_eof(self.now_ms, &mut self.sockets, key);
                }
                return;
            }
            let bytes: Vec<u8> = client.unread.drain(..room.min(client.unread.len())).collect();
            self.worker.handle_input(self.now_ms, &mut self.sockets, key, &bytes);
            self.worker.check_invariants(self.now_ms);
        }
    }

    fn turn(&mut self) {
        loop {
            while self.worker.handle_work(self.now_ms, &mut self.sockets, 3) {}
            let Some(output) = self.worker.poll_output(self.now_ms) else { break };
            match output {
                Output::Hub(message) => self.to_hub.push_back(message),
                Output::Read(key) => {
                    // It may have been closed by now.
                    self.read(key);
                }
                Output::Shutdown(key) => self.client(key).is_shut = true,
                Output::Close(key, _) => self.client(key).is_closed = true,
            }
        }
        self.worker.check_invariants(self.now_ms);
    }

    fn hub(&mut self, message: &FromHub) {
        self.worker.handle_hub(self.now_ms, &mut self.sockets, message).unwrap();
        self.turn();
    }

    fn packet(&mut self, bytes: impl Into<Bytes>) {
        self.hub(&FromHub::Packet(bytes.into()));
    }

    /// A packet that the hub could not understand.
    fn malformed(&mut self, mode: Mode, from: &str, packet: impl Into<Bytes>) {
        let (from, packet) = (from.as_bytes().into(), packet.into());
        let error = Packet::parse(&packet).and_then(|packet| packet.payload()).unwrap_err();
        self.hub(&FromHub::Malformed { mode, from, error, packet });
    }

    /// Lets time pass, from deadline to deadline.
    fn advance(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        loop {
            let due_ms = self.worker.next_deadline().unwrap_or(u64::MAX);
            self.now_ms = due_ms.clamp(self.now_ms, until_ms);
            if due_ms <= self.now_ms {
                self.worker.handle_timeout(self.now_ms, &mut self.sockets);
                self.turn();
                let due_ms = self.worker.next_deadline();
                assert!(due_ms.is_none_or(|due| due > self.now_ms), "what is due is done");
            }
            if self.now_ms == until_ms {
                return;
            }
        }
    }

    /// What the hub was told since the last time.
    fn told(&mut self) -> Vec<Told> {
        self.to_hub.drain(..).map(told).collect()
    }

    /// The same, without what is about channels.
    fn told_kinds(&mut self) -> Vec<String> {
        self.told().iter().map(|told| format!("{} {}", told.to, told.kind)).collect()
    }

    /// The session of the one request that was made since the last time.
    fn request(&mut self) -> Session {
        let told = self.told();
        let [request] = &told[..] else { panic!("one request, not {told:?}") };
        assert_eq!(request.to, "request");
        Session { from: "h1".into(), id: request.id.clone(), seq: 0 }
    }

    /// Connects a client with a plain request.
    fn get(&mut self) -> (Key, Session) {
        let key = self.connect_with("GET / HTTP/1.1\r\nHost: x.com\r\n\r\n");
        (key, self.request())
    }

    /// The same, whatever was told before.
    fn get_next(&mut self) -> (Key, Session) {
        self.told();
        self.get()
    }

    /// Ends all connections, and checks that nothing is left of them.
    fn end(mut self) {
        for key in self.sockets.clients.keys().copied().collect::<Vec<_>>() {
            self.worker.handle_error(key);
        }
        self.turn();
        assert_eq!((self.worker.connections(), self.worker.holds()), (0, 0));
        assert!(self.sockets.clients.values().all(|client| client.is_closed));
        assert_eq!(self.worker.wheel.len(), 0);
    }
}

fn told(message: ToHub) -> Told {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    match message {
        ToHub::Request(pending) => read_packet("request".into(), &pending.packet),
        ToHub::Packet { to, packet } => read_packet(text(&to), &packet),
        ToHub::Notify { packet, .. } => read_packet("notify".into(), &packet),
        ToHub::Done { id, cancel: None } => {
            Told { to: "done".into(), id: text(&id), ..Told::default() }
        }
        ToHub::Done { cancel: Some(packet), .. } => read_packet("done".into(), &packet),
        ToHub::Want(want) => {
            Told { to: "want".into(), kind: format!("{want:?}"), ..Told::default() }
        }
    }
}

fn read_packet(to: String, bytes: &[u8]) -> Told {
    let mut packet = Packet::parse(bytes).unwrap();
    // In req mode nothing but the answer can come back, and that needs no address.
    assert!(packet.from == b"edge" || packet.from.is_empty() && to == "request");
    let payload = packet.payload().unwrap();
    let id = packet.ids.next();
    Told {
        to,
        id: id.map_or("", |id| std::str::from_utf8(id.id).unwrap()).into(),
        seq: id.and_then(|id| id.seq),
        kind: packet.kind.name().into(),
        body: payload.body.into(),
        more: payload.more,
        credits: payload.credits,
        condition: payload.condition.unwrap_or_default().into(),
    }
}

/// The handler's side of a session.
#[derive(Clone, Debug)]
struct Session {
    from: String,
    id: String,
    seq: u32,
}

impl Session {
    fn packet(&mut self, kind: Kind, payload: impl FnOnce(&mut Fields<'_, '_>)) -> Bytes {
        let ids = [Id { id: self.id.as_bytes(), seq: Some(self.seq) }];
        self.seq += 1;
        let mut out = Vec::new();
        let from = self.from.as_bytes();
        Envelope { from, ids: &ids, kind, multi: true }.write(&mut out, payload);
        out.into()
    }

    fn say(&mut self, edge: &mut Edge, kind: Kind) {
        let packet = self.packet(kind, |_| {});
        edge.packet(packet);
    }

    /// The head of the answer, and what it brings of the content.
    fn answer(&mut self, edge: &mut Edge, head: &[(&str, &str)], body: &str, more: bool) {
        self.answer_code(edge, (200, head), body, more);
    }

    fn answer_code(
        &mut self,
        edge: &mut Edge,
        (code, head): (u16, &[(&str, &str)]),
        body: &str,
        more: bool,
    ) {
        let packet = self.packet(Kind::Data, |fields| {
            fields.int("code", code.into());
            let headers = head.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            fields.headers(headers);
            fields.bytes("body", body.as_bytes());
            fields.flag("more", more);
        });
        edge.packet(packet);
    }

    fn body(&mut self, edge: &mut Edge, body: impl AsRef<[u8]>, more: bool) {
        let packet = self.packet(Kind::Data, |fields| {
            fields.bytes("body", body.as_ref());
            fields.flag("more", more);
        });
        edge.packet(packet);
    }

    fn credit(&mut self, edge: &mut Edge, credits: u64) {
        let packet = self.packet(Kind::Credit, |fields| fields.int("credits", credits));
        edge.packet(packet);
    }
}

/// The lines of a response, joined for comparing, without the date.
fn lines(head: &[&str], body: &str) -> String {
    format!("{}\r\n\r\n{body}", head.join("\r\n"))
}
