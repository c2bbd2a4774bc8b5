//! A handler whose sockets are libzmq's, in a process of its own; what it says is decided by the test.

use serde_json::{Value, json};
use zhttp::hold::Hello;
use zhttp::{Envelope, Fields, Id, Kind, Packet};

use crate::peers::{Peer, hex, unhex};
use crate::process::EdgeProcess;

/// Longer than any test.
const TTL_MS: u64 = 60_000;

pub struct Handler {
    peer: Peer,
    name: String,
}

/// A packet of the edge.
#[derive(Clone, Debug)]
pub struct Got {
    pub bytes: Vec<u8>,
    pub kind: Kind,
    pub id: String,
    pub uri: String,
    pub body: Vec<u8>,
    pub credits: usize,
    pub more: bool,
}

impl Got {
    fn read(bytes: &[u8]) -> Got {
        let mut packet = Packet::parse(bytes).unwrap();
        assert_eq!(packet.from, b"edge");
        let payload = packet.payload().unwrap();
        let id = packet.ids.next().map_or(&b""[..], |id| id.id);
        Got {
            kind: packet.kind,
            id: String::from_utf8(id.to_vec()).unwrap(),
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
        let mut handler = Handler::responder_at(spec, name).await;
        let dealer =
            json!({"type": "DEALER", "identity": name, "connect": [format!("{spec}-out-stream")]});
        handler.peer.open("stream", dealer).await;
        let pull = json!({"type": "PULL", "connect": [format!("{spec}-out")]});
        handler.peer.open("pull", pull).await;
        handler
    }

    /// One that only answers what others were asked. An XPUB sees that the edge has subscribed.
    pub async fn responder_at(spec: &str, name: &str) -> Handler {
        let mut peer = Peer::start();
        let publisher = json!({"type": "XPUB", "connect": [format!("{spec}-in")]});
        peer.open("pub", publisher).await;
        let mut handler = Handler { peer, name: name.into() };
        let subscription = handler.frames("pub").await;
        assert_eq!(subscription, [b"\x01edge "]);
        handler
    }

    /// One that says hello, and gets requests because of it.
    pub async fn greeting(edge: &EdgeProcess, name: &str) -> Handler {
        let mut peer = Peer::start();
        let spec = format!("{}-out-stream", edge.spec("zhttp"));
        peer.open("stream", json!({"type": "DEALER", "identity": name, "connect": [spec]})).await;
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

    /// The next packet of a kind, passing over all others.
    pub async fn next_of(&mut self, kind: Kind) -> Got {
        loop {
            let got = self.next().await;
            if got.kind == kind {
                return got;
            }
        }
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
