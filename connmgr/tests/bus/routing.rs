//! ROUTER: packets to one certain handler, who is there, and what one that is stuck does to the
//! others.

use bytes::Bytes;
use forebay_connmgr::bus::{HIGH_WATER_MARK, Inbound, Refused};
use serde_json::json;

use crate::{Edge, Peer, dealer};

#[tokio::test]
async fn a_packet_goes_to_the_peer_it_names() {
    let mut edge = Edge::open().await;
    let (mut one, mut two) = (dealer(&edge.spec(), "one").await, dealer(&edge.spec(), "two").await);
    edge.until_joined("one").await;
    edge.until(|_| true).await;
    edge.bus.try_route(b"two", "T-2".into()).unwrap();
    edge.bus.try_route(b"one", "T-1".into()).unwrap();
    edge.bus.flush().await;
    assert_eq!(one.recv().await, [&b""[..], b"T-1"]);
    assert_eq!(two.recv().await, [&b""[..], b"T-2"]);
}

#[tokio::test]
async fn without_that_peer_the_packet_comes_back() {
    let mut edge = Edge::open().await;
    let handler = dealer(&edge.spec(), "h").await;
    edge.until_joined("h").await;
    assert_eq!(edge.bus.try_route(b"other", "T".into()), Err(Refused::NoPeer("T".into())));
    handler.kill().await;
    edge.until_lost("h").await;
    assert_eq!(edge.bus.try_route(b"h", "T".into()), Err(Refused::NoPeer("T".into())));
}

/// A ROUTER on the other side knows this edge by its instance id, and is known by its own.
#[tokio::test]
async fn router_to_router() {
    let mut edge = Edge::open().await;
    let spec = edge.spec();
    let mut handler = Peer::with(json!({
        "type": "ROUTER", "identity": "handler", "connect": [spec.out_stream()],
        "options": {"ROUTER_MANDATORY": 1},
    }))
    .await;
    edge.until_joined("handler").await;
    edge.bus.try_route(b"handler", "T-there".into()).unwrap();
    edge.bus.flush().await;
    assert_eq!(handler.recv().await, [&b"edge"[..], b"", b"T-there"]);
    handler.send(&[b"edge", b"", b"T-back"]).await;
    assert_eq!(edge.packet_from("handler").await, "T-back");
}

/// A handler that is restarted under its name is another one: the requests of the first are lost.
#[tokio::test]
async fn an_identity_is_taken_over_by_who_connects_last() {
    let mut edge = Edge::open().await;
    let spec = edge.spec();
    // The one that is put out would otherwise come back and take over in turn.
    let once = json!({
        "type": "DEALER", "identity": "h", "connect": [spec.out_stream()],
        "options": {"RECONNECT_IVL": -1},
    });
    let mut first = Peer::with(once).await;
    edge.until_joined("h").await;
    edge.round_trip("h", &mut first).await;

    let mut second = dealer(&spec, "h").await;
    assert_eq!(edge.recv().await, Inbound::PeerLost { peer: "h".into() });
    assert_eq!(edge.recv().await, Inbound::PeerJoined { peer: "h".into() });
    edge.round_trip("h", &mut second).await;
    assert_eq!(edge.bus.try_recv(), None, "told once");
}

#[tokio::test]
async fn a_stalled_peer_delays_no_other_and_takes_only_so_much() {
    let mut edge = Edge::open().await;
    let (mut stalled, mut other) =
        (dealer(&edge.spec(), "stalled").await, dealer(&edge.spec(), "other").await);
    edge.round_trip_when_there("stalled", &mut stalled).await;
    edge.round_trip_when_there("other", &mut other).await;
    stalled.signal("-STOP");
    let packet = Bytes::from(vec![b'x'; 16 * 1024]);
    let taken = edge.fill(|bus| bus.try_route(b"stalled", packet.clone())).await;
    assert!((HIGH_WATER_MARK as usize..3 * HIGH_WATER_MARK as usize).contains(&taken), "{taken}");
    assert_eq!(edge.bus.try_route(b"stalled", "T".into()), Err(Refused::Full("T".into())));
    for _ in 0..100 {
        edge.round_trip("other", &mut other).await;
    }
    stalled.signal("-CONT");
    let drained = stalled.ask(crate::drain(taken)).await;
    assert_eq!(drained["count"].as_u64(), Some(taken as u64));
    edge.round_trip("stalled", &mut stalled).await;
}

#[tokio::test]
async fn a_stalled_peer_is_killed_with_its_queue_full() {
    let mut edge = Edge::open().await;
    let (mut stalled, mut other) =
        (dealer(&edge.spec(), "stalled").await, dealer(&edge.spec(), "other").await);
    edge.round_trip_when_there("stalled", &mut stalled).await;
    edge.round_trip_when_there("other", &mut other).await;
    stalled.signal("-STOP");
    let packet = Bytes::from(vec![b'x'; 16 * 1024]);
    edge.fill(|bus| bus.try_route(b"stalled", packet.clone())).await;
    stalled.kill().await;
    edge.until_lost("stalled").await;
    assert_eq!(edge.bus.try_route(b"stalled", "T".into()), Err(Refused::NoPeer("T".into())));
    edge.round_trip("other", &mut other).await;
}

#[tokio::test]
async fn ten_megabytes_go_there_and_back() {
    let mut edge = Edge::open().await;
    let mut handler = dealer(&edge.spec(), "h").await;
    edge.until_joined("h").await;
    let packet = Bytes::from((0..10_000_000_u32).map(|at| (at % 251) as u8).collect::<Vec<u8>>());
    edge.bus.try_route(b"h", packet.clone()).unwrap();
    handler.tell(json!({"do": "echo", "name": "s", "count": 1})).await;
    assert_eq!(edge.packet_from("h").await, packet);
}

impl Edge {
    /// A round trip with a peer that may not have joined yet.
    async fn round_trip_when_there(&mut self, name: &str, peer: &mut Peer) {
        while let Err(refused) = self.bus.try_route(name.as_bytes(), "T-first".into()) {
            assert!(matches!(refused, Refused::NoPeer(_)), "{refused:?}");
            self.recv().await;
        }
        peer.tell(json!({"do": "echo", "name": "s", "count": 1})).await;
        assert_eq!(self.packet_from(name).await, "T-first");
        assert_eq!(peer.answer().await["count"], 1);
    }
}
