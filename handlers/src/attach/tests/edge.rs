//! An edge that does what a test says: a ROUTER, and packets written by the codec.

use std::collections::VecDeque;

use bytes::Bytes;
use omq_tokio::{IdentitySocket, Message, Options, Socket, SocketType};
use zhttp::{Envelope, Fields, Id, Kind, Packet, Payload};

use super::within;

pub(super) struct FakeEdge {
    router: IdentitySocket,
    /// What came while something else was awaited.
    early: VecDeque<Got>,
}

/// A packet that came.
#[derive(Clone, Debug)]
pub(super) struct Got(pub(super) Bytes);

impl Got {
    pub(super) fn packet(&self) -> Packet<'_> {
        Packet::parse(&self.0).unwrap()
    }

    pub(super) fn payload(&self) -> Payload<'_> {
        self.packet().payload().unwrap()
    }

    pub(super) fn kind(&self) -> Kind {
        self.packet().kind
    }

    /// The only id, and its number.
    pub(super) fn id(&self) -> (String, Option<u32>) {
        let mut ids = self.packet().ids;
        let Id { id, seq } = ids.next().unwrap();
        assert!(ids.next().is_none());
        (String::from_utf8(id.to_vec()).unwrap(), seq)
    }

    pub(super) fn body(&self) -> &str {
        std::str::from_utf8(self.payload().body).unwrap()
    }

    pub(super) fn headers(&self) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        self.payload().headers.map(|(name, value)| (text(name), text(value))).collect()
    }
}

impl FakeEdge {
    pub(super) async fn bind(base: &str) -> FakeEdge {
        let options = Options::default().identity("edge").router_mandatory(true);
        let socket = Socket::try_new(SocketType::Router, options).unwrap();
        socket.bind(format!("{base}-out-stream").as_str()).await.unwrap();
        FakeEdge { router: IdentitySocket::try_from(socket).unwrap(), early: VecDeque::new() }
    }

    pub(super) async fn close(self) {
        self.router.into_inner().close().await.unwrap();
    }

    /// The next packet, of whatever kind.
    pub(super) async fn recv_any(&mut self) -> Got {
        let (peer, message) = within(self.router.recv_from()).await.unwrap();
        assert_eq!(peer.to_bytes(), &b"handler"[..]);
        assert_eq!(message.part_bytes(0), Some(Bytes::new()));
        let got = Got(message.part_bytes(message.len() - 1).unwrap());
        assert_eq!(got.packet().from, b"handler");
        if got.kind() != Kind::Hello {
            self.early.push_back(got.clone());
        }
        got
    }

    /// The next packet that is no hello.
    pub(super) async fn recv(&mut self) -> Got {
        loop {
            if let Some(got) = self.early.pop_front() {
                return got;
            }
            self.recv_any().await;
        }
    }

    /// Waits for a hello.
    pub(super) async fn greeted(&mut self) -> Got {
        loop {
            let got = self.recv_any().await;
            if got.kind() == Kind::Hello {
                return got;
            }
        }
    }

    /// The next packet, which is of this kind and about this session.
    #[track_caller]
    pub(super) fn expect(&mut self, kind: Kind, id: &str, seq: u32) -> impl Future<Output = Got> {
        let caller = std::panic::Location::caller();
        async move {
            let got = self.recv().await;
            let (found, number) = (got.kind(), got.id());
            assert_eq!((found, number), (kind, (id.to_owned(), Some(seq))), "at {caller}");
            got
        }
    }

    pub(super) async fn send_bytes(&self, packet: Vec<u8>) {
        let message = Message::multipart([Bytes::new(), packet.into()]);
        within(self.router.send_to(b"handler", message)).await.unwrap();
    }

    pub(super) async fn send(
        &self,
        kind: Kind,
        ids: &[(&str, Option<u32>)],
        fields: impl FnOnce(&mut Fields<'_, '_>),
    ) {
        self.send_ext(kind, ids, |_| {}, fields).await;
    }

    pub(super) async fn send_ext(
        &self,
        kind: Kind,
        ids: &[(&str, Option<u32>)],
        ext: impl FnOnce(&mut Fields<'_, '_>),
        fields: impl FnOnce(&mut Fields<'_, '_>),
    ) {
        let ids: Vec<Id<'_>> =
            ids.iter().map(|(id, seq)| Id { id: id.as_bytes(), seq: *seq }).collect();
        let mut packet = Vec::new();
        let envelope = Envelope { multi: true, ..Envelope::new(b"edge", kind).about(&ids) };
        envelope.write_ext(&mut packet, ext, fields);
        self.send_bytes(packet).await;
    }

    /// A request without a body.
    pub(super) async fn get(&self, id: &str, path: &str, credits: u64) {
        self.request(id, "GET", path, credits, false).await;
    }

    pub(super) async fn request(
        &self,
        id: &str,
        method: &str,
        path: &str,
        credits: u64,
        more: bool,
    ) {
        let fields = |fields: &mut Fields<'_, '_>| {
            fields.bytes("method", method.as_bytes());
            fields.bytes("uri", format!("http://host{path}").as_bytes());
            let host: (&[u8], &[u8]) = (b"Host", b"host");
            fields.headers([host].into_iter());
            fields.int("credits", credits);
            fields.flag("more", more);
            fields.flag("stream", true);
            fields.bytes("peer-address", b"192.0.2.1");
        };
        let ext = |ext: &mut Fields<'_, '_>| ext.int("hold", 1);
        self.send_ext(Kind::Data, &[(id, Some(0))], ext, fields).await;
    }

    /// A piece of a request's body.
    pub(super) async fn piece(&self, id: &str, seq: u32, body: &[u8], more: bool) {
        self.send(Kind::Data, &[(id, Some(seq))], |fields| {
            fields.bytes("body", body);
            fields.flag("more", more);
        })
        .await;
    }

    pub(super) async fn credit(&self, id: &str, seq: u32, credits: u64) {
        self.send(Kind::Credit, &[(id, Some(seq))], |fields| fields.int("credits", credits)).await;
    }

    pub(super) async fn cancel(&self, id: &str, seq: u32) {
        self.send(Kind::Cancel, &[(id, Some(seq))], |_| {}).await;
    }
}
