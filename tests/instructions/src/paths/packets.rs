//! The codec of ZHTTP alone, on a request packet as the edge writes it.

use std::hint::black_box;

use bytes::Bytes;
use zhttp::hold::HOLD_VERSION;
use zhttp::{Envelope, Id, Kind, Packet, Payload};

use crate::Path;
use crate::edge::{EDGE, Edge, HEAD};

/// The packet of a request.
fn request() -> Bytes {
    let mut edge = Edge::new();
    let key = edge.accept();
    edge.request(key, HEAD).packet
}

/// A packet is read, as a handler reads it: its fields, its ids and its headers.
pub(crate) struct Parse {
    packet: Bytes,
    headers: usize,
}

impl Parse {
    pub(crate) fn new(_: usize) -> Self {
        Parse { packet: request(), headers: 0 }
    }
}

impl Path for Parse {
    fn step(&mut self) {
        let packet = Packet::parse(black_box(&self.packet)).expect("the edge wrote it");
        let payload = packet.payload().expect("the edge wrote it");
        black_box((packet.ids.count(), payload.uri));
        self.headers += black_box(payload.headers).count();
    }

    fn check(&self, steps: usize) {
        assert_eq!(self.headers, HEADERS * steps);
    }
}

/// Fields of [`HEAD`].
const HEADERS: usize = 11;

/// A packet is written into a buffer that has room for it, from what the edge has at hand: slices.
pub(crate) struct Write {
    packet: &'static [u8],
    id: Id<'static>,
    payload: Payload<'static>,
    headers: Vec<(&'static [u8], &'static [u8])>,
    out: Vec<u8>,
}

impl Write {
    pub(crate) fn new(_: usize) -> Self {
        let bytes: &'static [u8] = request().to_vec().leak();
        let mut packet = Packet::parse(bytes).expect("the edge wrote it");
        let payload = packet.payload().expect("the edge wrote it");
        Write {
            packet: bytes,
            id: packet.ids.next().expect("it is about a session"),
            headers: payload.headers.collect(),
            payload,
            out: Vec::new(),
        }
    }
}

impl Path for Write {
    fn step(&mut self) {
        let Write { id, payload, headers, out, .. } = self;
        out.clear();
        let ids = [black_box(*id)];
        Envelope { from: EDGE, ids: &ids, kind: Kind::Data, multi: true }.write_ext(
            out,
            |ext| ext.int("hold", HOLD_VERSION),
            |fields| {
                fields.bytes("method", payload.method.unwrap_or_default().as_bytes());
                fields.bytes("uri", payload.uri.unwrap_or_default().as_bytes());
                fields.headers(black_box(&*headers).iter().copied());
                fields.int("credits", payload.credits.into());
                fields.flag("more", payload.more);
                fields.flag("stream", payload.stream);
                fields.flag("router-resp", payload.router_resp);
                fields.bytes("peer-address", payload.peer_address.unwrap_or_default().as_bytes());
                fields.int("peer-port", payload.peer_port.unwrap_or_default().into());
            },
        );
    }

    fn check(&self, _: usize) {
        assert_eq!(self.out, self.packet, "what was read can be written again");
    }
}
