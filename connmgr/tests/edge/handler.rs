//! A handler whose sockets are libzmq's, in a process of its own; what it says is decided by the test.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use zhttp::hold::Hello;
use zhttp::{Envelope, Fields, Id, Kind, Packet};

use crate::peers::{Peer, hex, unhex};
use crate::process::EdgeProcess;

/// Longer than any test.
const TTL_MS: u64 = 60_000;

/// Tells the probes of all handlers apart.
static PROBES: AtomicUsize = AtomicUsize::new(1);

pub struct Handler {
    /// Its process.
    pub peer: Peer,
    name: String,
}

/// A packet of the edge.
#[derive(Clone, Debug)]
pub struct Got {
    pub bytes: Vec<u8>,
    pub kind: Kind,
    /// The first of its ids.
    pub id: String,
    pub ids: Vec<String>,
    /// The number that stands with the first id.
    pub seq: Option<u32>,
    pub uri: String,
    pub body: Vec<u8>,
    pub credits: usize,
    pub more: bool,
}

/// A part of the body that tests of bulk send: the numbers from 0 on, eight bytes each, so that whatever
/// is lost, doubled or swapped shows. `peers/zhttp.py` has the same.
pub fn sequence(range: Range<usize>) -> Vec<u8> {
    let (first, last) = (range.start / 8, range.end.div_ceil(8));
    let bytes: Vec<u8> = (first as u64..last as u64).flat_map(u64::to_le_bytes).collect();
    bytes[range.start - first * 8..range.end - first * 8].to_vec()
}

/// The addresses of a base spec: those of `-out`, `-out-stream` and `-in` (zhttp-spec/zhttp.md §2).
fn addresses(spec: &str) -> [String; 3] {
    if spec.starts_with("ipc://") {
        return ["-out", "-out-stream", "-in"].map(|suffix| format!("{spec}{suffix}"));
    }
    let (host, port) = spec.rsplit_once(':').unwrap();
    let port: u16 = port.parse().unwrap();
    [port, port + 1, port + 2].map(|port| format!("{host}:{port}"))
}

impl Got {
    fn read(bytes: &[u8]) -> Got {
        let packet = Packet::parse(bytes).unwrap();
        assert_eq!(packet.from, b"edge");
        let payload = packet.payload().unwrap();
        let text = |id: Id<'_>| String::from_utf8(id.id.to_vec()).unwrap();
        let ids: Vec<String> = packet.ids.map(text).collect();
        Got {
            kind: packet.kind,
            id: ids.first().cloned().unwrap_or_default(),
            ids,
            seq: packet.ids.clone().next().and_then(|id| id.seq),
            uri: payload.uri.unwrap_or_default().into(),
            body: payload.body.to_vec(),
            credits: payload.credits as usize,
            more: payload.more,
            bytes: bytes.to_vec(),
        }
    }
}

impl Handler {
    /// A plain one, as for Condure: requests by PULL, answers by PUB, the rest by DEALER.
    pub async fn plain(edge: &EdgeProcess, name: &str) -> Handler {
        Handler::plain_at(&edge.spec("zhttp"), name).await
    }

    /// The same, at another base spec.
    pub async fn plain_at(spec: &str, name: &str) -> Handler {
        let mut handler = Handler::unasked(spec, name).await;
        handler.take_requests(spec).await;
        handler
    }

    /// Makes one of an unasked one that is asked.
    pub async fn take_requests(&mut self, spec: &str) {
        let [out, ..] = addresses(spec);
        self.peer.open("pull", json!({"type": "PULL", "connect": [out]})).await;
    }

    /// One that has all but requests.
    pub async fn unasked(spec: &str, name: &str) -> Handler {
        let mut handler = Handler::responder_at(spec, name).await;
        let [_, stream, _] = addresses(spec);
        let dealer = json!({"type": "DEALER", "identity": name, "connect": [stream]});
        handler.peer.open("stream", dealer).await;
        // Only now can packets be sent to it.
        handler.settle(0).await;
        handler
    }

    /// One that only answers what others were asked. An XPUB sees that the edge has subscribed.
    pub async fn responder_at(spec: &str, name: &str) -> Handler {
        let mut peer = Peer::start();
        let [_, _, inward] = addresses(spec);
        peer.open("pub", json!({"type": "XPUB", "connect": [inward]})).await;
        let mut handler = Handler { peer, name: name.into() };
        handler.is_subscribed().await;
        handler
    }

    /// One that answers by ROUTER, as Pushpin does: its socket has an identity and addresses the edge
    /// by its own.
    pub async fn router_at(spec: &str, name: &str) -> Handler {
        let mut peer = Peer::start();
        let [out, stream, _] = addresses(spec);
        let mut router = json!({"type": "ROUTER", "identity": name, "connect": [stream]});
        router["options"] = json!({"ROUTER_MANDATORY": 1});
        peer.open("stream", router).await;
        peer.open("pull", json!({"type": "PULL", "connect": [out]})).await;
        Handler { peer, name: name.into() }
    }

    /// One that binds its sockets at a base spec, for an edge that connects.
    pub async fn bound(spec: &str, name: &str) -> Handler {
        let mut peer = Peer::start();
        let [out, stream, inward] = addresses(spec);
        peer.open("stream", json!({"type": "DEALER", "identity": name, "bind": [stream]})).await;
        peer.open("pull", json!({"type": "PULL", "bind": [out]})).await;
        peer.open("pub", json!({"type": "XPUB", "bind": [inward]})).await;
        let mut handler = Handler { peer, name: name.into() };
        handler.is_subscribed().await;
        handler
    }

    async fn is_subscribed(&mut self) {
        let subscription = self.frames("pub").await;
        assert_eq!(subscription, [b"\x01edge "]);
    }

    /// One that says hello, and gets requests because of it.
    pub async fn greeting(edge: &EdgeProcess, name: &str) -> Handler {
        let mut peer = Peer::start();
        let [_, stream, _] = addresses(&edge.spec("zhttp"));
        peer.open("stream", json!({"type": "DEALER", "identity": name, "connect": [stream]})).await;
        let mut handler = Handler { peer, name: name.into() };
        let hello = Hello {
            ttl_ms: TTL_MS,
            incarnation: 1,
            feeds: true,
            serves: zhttp::hold::Serves::default(),
            requests_max: 0,
        };
        let packet = handler.packet("", None, Kind::Hello, |fields| {
            hello.write(fields, &[("*", "/")]);
        });
        handler.send_stream(&packet).await;
        handler
    }

    /// Its `from`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn packet(
        &self,
        id: &str,
        seq: Option<u32>,
        kind: Kind,
        fill: impl FnOnce(&mut Fields<'_, '_>),
    ) -> Vec<u8> {
        let ids = [Id { id: id.as_bytes(), seq }];
        let ids = if id.is_empty() { &[][..] } else { &ids };
        let mut out = Vec::new();
        let from = self.name.as_bytes();
        Envelope { from, ids, kind, multi: false }.write(&mut out, fill);
        out
    }

    async fn frames(&mut self, socket: &str) -> Vec<Vec<u8>> {
        let answer = self.peer.ask(json!({"do": "recv", "name": socket})).await;
        let message = answer["messages"][0].as_array().expect("no message came");
        message.iter().map(|frame| unhex(frame.as_str().unwrap())).collect()
    }

    /// The next request that was pushed.
    pub async fn request(&mut self) -> Got {
        let frames = self.frames("pull").await;
        assert_eq!(frames.len(), 1);
        Got::read(&frames[0])
    }

    /// The next packet that was addressed to this handler.
    pub async fn next(&mut self) -> Got {
        let frames = self.frames("stream").await;
        let [empty, packet] = &frames[..] else { panic!("two frames: {frames:?}") };
        assert!(empty.is_empty());
        Got::read(packet)
    }

    /// A packet about many sessions, up to whatever number.
    pub fn packet_about(
        &self,
        ids: &[String],
        kind: Kind,
        fill: impl FnOnce(&mut Fields<'_, '_>),
    ) -> Vec<u8> {
        self.packet("", None, kind, |fields| {
            fill(fields);
            fields.list("id", |list| {
                for id in ids {
                    list.map(|map| {
                        map.bytes(b"id");
                        map.bytes(id.as_bytes());
                    });
                }
            });
        })
    }

    /// Waits until a worker has done what it was told by this handler; says what was sent here up to
    /// then. It is told of an id that is nobody's, and answers behind all that was on its way.
    pub async fn settle(&mut self, worker: usize) -> Vec<Got> {
        let (id, probe) = self.probe(worker);
        self.send_stream(&probe).await;
        self.until_cancelled(&id).await
    }

    /// The same for what was sent by PUB.
    pub async fn settle_published(&mut self, worker: usize) -> Vec<Got> {
        let (id, probe) = self.probe(worker);
        self.publish(&probe).await;
        self.until_cancelled(&id).await
    }

    fn probe(&self, worker: usize) -> (String, Vec<u8>) {
        // An id is answered only once a second, whoever names it.
        let number = PROBES.fetch_add(1, Ordering::Relaxed);
        let id = format!("{worker}-4000000-{number:x}");
        let probe = self.packet(&id, None, Kind::KeepAlive, |_| {});
        (id, probe)
    }

    async fn until_cancelled(&mut self, id: &str) -> Vec<Got> {
        let mut got = Vec::new();
        loop {
            let packet = self.next().await;
            if packet.id == id {
                return got;
            }
            got.push(packet);
        }
    }

    /// Answers a request with all of [`sequence`] that it may send, from `start` on and with so many
    /// credits, until nothing more is given back for it: the client does not read. Says up to where that
    /// was. The edge must have one worker.
    pub async fn spend_credits(&mut self, id: &str, start: usize, mut credits: usize) -> usize {
        let (mut end, mut quiet) = (start, 0);
        // What the kernels tell each other may lag a little behind.
        while quiet < 3 {
            if credits > 0 {
                let code = if end == 0 { 200 } else { 0 };
                self.say(id, (code, &sequence(end..end + credits)), true).await;
                end += credits;
            }
            let about_it = self.settle(0).await.into_iter().filter(|got| got.id == id);
            credits = about_it.map(|got| got.credits).sum();
            quiet = if credits == 0 { quiet + 1 } else { 0 };
        }
        end
    }

    /// The next packet of a kind, passing over all others.
    pub async fn next_of(&mut self, kind: Kind) -> Got {
        loop {
            let got = self.next().await;
            if got.kind == kind {
                return got;
            }
        }
    }

    /// Sends messages from a socket, as fast as it takes them.
    pub async fn send_all(&mut self, socket: &str, messages: &[Vec<Vec<u8>>]) {
        let frames = |message: &Vec<Vec<u8>>| -> Vec<String> {
            message.iter().map(|frame| hex(frame)).collect()
        };
        let messages: Vec<_> = messages.iter().map(frames).collect();
        let answer =
            self.peer.ask(json!({"do": "send_all", "name": socket, "messages": messages})).await;
        assert_eq!(answer, json!({}));
    }

    /// Has the process answer requests by itself; see `peers/zhttp.py` for what it can do.
    pub async fn begin(&mut self, what: &str, mut arguments: Value) {
        arguments["do"] = json!(what);
        arguments["name"] = json!(self.name);
        self.peer.tell(arguments).await;
    }

    async fn send_frames(&mut self, socket: &str, frames: &[&[u8]]) {
        let frames: Vec<String> = frames.iter().map(|frame| hex(frame)).collect();
        let answer: Value =
            self.peer.ask(json!({"do": "send", "name": socket, "frames": frames})).await;
        assert_eq!(answer, json!({}));
    }

    /// Sends a packet by PUB.
    pub async fn publish(&mut self, packet: &[u8]) {
        let message = [b"edge ", packet].concat();
        self.send_frames("pub", &[&message]).await;
    }

    /// Sends a packet by DEALER.
    pub async fn send_stream(&mut self, packet: &[u8]) {
        self.send_frames("stream", &[b"", packet]).await;
    }

    /// A whole answer, by PUB and without a number, as the simplest handlers do.
    pub async fn answer(&mut self, id: &str, body: &str) {
        let packet = self.packet(id, None, Kind::Data, |fields| {
            fields.int("code", 200);
            fields.bytes("body", body.as_bytes());
        });
        self.publish(&packet).await;
    }

    /// A piece of an answer or a whole one, by DEALER.
    pub async fn say(&mut self, id: &str, (code, body): (u64, &[u8]), more: bool) {
        let packet = self.packet(id, None, Kind::Data, |fields| {
            fields.int("code", code);
            fields.bytes("body", body);
            fields.flag("more", more);
        });
        self.send_stream(&packet).await;
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(self) {
        self.peer.kill().await;
    }
}
