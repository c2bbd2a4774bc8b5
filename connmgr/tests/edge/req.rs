//! Req mode, where a REP that answers wrongly is the only handler there is: what it says about one
//! request harms no other (zhttp-spec/zhttp.md §10).

use serde_json::json;
use zhttp::{Envelope, Id, Kind, Packet};

use crate::client::{Client, SocketOptions};
use crate::mutator::Mutator;
use crate::peers::{Peer, hex};
use crate::process::EdgeProcess;

/// Packets that come unasked, by a ROUTER.
const PACKETS: usize = 10_000;

/// How much the memory of the edge may grow by all that, in KiB.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

/// Packets that are sent at once.
const GROUP: usize = 500;

/// Requests that a REP answers, one after the other.
const REPLIES: usize = 500;

/// Requests that wait at once.
const CROWD: usize = 25;

async fn start() -> EdgeProcess {
    // Clients that give up are not let go at once, as they may only have closed their side.
    let maxconn = format!("--req-maxconn={}", REPLIES + 100);
    EdgeProcess::start(&["--listen=127.0.0.1:0,req", "--zclient-req=ipc://req", &maxconn]).await
}

/// A process with one socket, which gets the requests.
async fn handler(edge: &EdgeProcess, kind: &str) -> Peer {
    Peer::with(json!({"type": kind, "connect": [edge.spec("req")]})).await
}

/// The next request: the frames before the packet, and the id.
async fn request(handler: &mut Peer) -> (Vec<Vec<u8>>, String) {
    let mut frames = handler.recv().await;
    let packet = frames.pop().unwrap();
    let id = Packet::parse(&packet).unwrap().ids.next().unwrap().id.to_vec();
    (frames, String::from_utf8(id).unwrap())
}

fn reply(id: &str, body: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let ids = [Id { id: id.as_bytes(), seq: None }];
    Envelope { from: b"", ids: &ids, kind: Kind::Data, multi: true }.write(&mut out, |fields| {
        fields.int("code", 200);
        fields.bytes("reason", b"OK");
        fields.headers([(&b"Content-Type"[..], &b"text/plain"[..])].into_iter());
        fields.bytes("body", body.as_bytes());
    });
    out
}

/// A request is answered, and the answer arrives.
async fn is_served(edge: &EdgeProcess, handler: &mut Peer) {
    let mut client = Client::get(edge.address, "/").await;
    let (mut frames, id) = request(handler).await;
    frames.push(reply(&id, &id));
    let frames: Vec<&[u8]> = frames.iter().map(|frame| &frame[..]).collect();
    handler.send(&frames).await;
    assert_eq!(client.response().await.text(), id);
}

#[tokio::test]
async fn a_rep_whose_replies_are_mutated() {
    let edge = start().await;
    let mut rep = handler(&edge, "REP").await;
    let mut mutator = Mutator::new(2);
    is_served(&edge, &mut rep).await;
    for _ in 0..REPLIES / CROWD {
        let mut clients = Vec::new();
        for _ in 0..CROWD {
            clients.push(Client::get(edge.address, "/").await);
        }
        for _ in 0..CROWD {
            let (_, id) = request(&mut rep).await;
            rep.send(&[&mutator.packet(&reply(&id, "hello"))]).await;
        }
        // Whoever has no answer yet gives up.
        drop(clients);
        is_served(&edge, &mut rep).await;
    }
}

#[tokio::test]
async fn mutated_packets_by_a_router() {
    let edge = start().await;
    let mut router = handler(&edge, "ROUTER").await;
    let mut witness = Client::get(edge.address, "/witness").await;
    let (frames, witness_id) = request(&mut router).await;
    let mut mutator = Mutator::new(3);
    let before = edge.memory();
    for _ in 0..PACKETS / GROUP {
        let mut clients = Vec::new();
        let mut good = vec![reply("0-4000000-1", "nobody's")];
        for _ in 0..5 {
            clients.push(Client::get(edge.address, "/").await);
            let (_, id) = request(&mut router).await;
            good.push(reply(&id, "hello"));
        }
        let mut messages = Vec::new();
        while messages.len() < GROUP {
            let packet = mutator.packet(&good[messages.len() % good.len()]);
            let names = |id: &str| packet.windows(id.len()).any(|part| part == id.as_bytes());
            if !names(&witness_id) {
                // One that is framed wrongly, now and then.
                let empty = if mutator.below(20) == 0 { vec![String::new()] } else { vec![] };
                let message = [vec![hex(&frames[0]), String::new()], empty, vec![hex(&packet)]];
                messages.push(message.concat());
            }
        }
        router.ask(json!({"do": "send_all", "name": "s", "messages": messages})).await;
        is_served(&edge, &mut router).await;
    }
    router.send(&[&frames[0], b"", &reply(&witness_id, "untouched")]).await;
    assert_eq!(witness.response().await.text(), "untouched");
    let growth_kib = edge.memory().peak_kib.saturating_sub(before.resident_kib);
    assert!(growth_kib <= GROWTH_KIB_MAX, "{growth_kib} KiB more");
}

/// There is nothing to be told: what a REP says for a client that has left goes nowhere, and who waits
/// to come in does so.
#[tokio::test]
async fn a_client_that_leaves_makes_room() {
    let edge = EdgeProcess::start(&[
        "--listen=127.0.0.1:0,req",
        "--zclient-req=ipc://req",
        "--workers=1",
        "--req-maxconn=1",
    ])
    .await;
    let mut rep = handler(&edge, "REP").await;
    for resets in [true, false] {
        let options = SocketOptions { resets, ..SocketOptions::default() };
        let mut client = Client::connect_by(edge.address, options).await;
        client.ask("/").await;
        let (_, id) = request(&mut rep).await;
        drop(client);
        rep.send(&[&reply(&id, "for nobody")]).await;
        is_served(&edge, &mut rep).await;
    }
}
