//! Peers that are broken or mean: they lose their own connection, and nobody else notices.

use forebay_connmgr::bus::{Bus, Inbound, MESSAGE_SIZE_MAX};
use serde_json::json;

use crate::zmtp::{Raw, announcement, frame, garbage, greeting, ping, pong};
use crate::{Edge, config, dealer};

/// The row on which another library aborted the process.
#[tokio::test]
async fn a_frame_of_one_terabyte_closes_that_peer_only() {
    let mut edge = Edge::open().await;
    let mut good = dealer(&edge.spec(), "good").await;
    edge.until_joined("good").await;
    for announced in [1 << 40, u64::MAX, 1 << 63, MESSAGE_SIZE_MAX as u64 + 1] {
        let mut bad = Raw::dealer(edge.spec().out_stream(), "bad").await;
        edge.until_joined("bad").await;
        bad.write(&announcement(announced)).await;
        bad.read_to_end().await;
        edge.until_lost("bad").await;
        edge.round_trip("good", &mut good).await;
    }
}

/// A message may not be larger in pieces than it may be in one.
#[tokio::test]
async fn a_message_too_large_in_its_sum_closes_that_peer_only() {
    let mut edge = Edge::open().await;
    let (mut good, mut bad) =
        (dealer(&edge.spec(), "good").await, dealer(&edge.spec(), "bad").await);
    let half = format!("@{}", MESSAGE_SIZE_MAX / 2);
    bad.tell(json!({"do": "send", "name": "s", "frames": ["54", half, half]})).await;
    edge.until_lost("bad").await;
    good.send(&[b"T"]).await;
    assert_eq!(edge.packet_from("good").await, "T");
}

#[tokio::test]
async fn a_message_just_below_the_limit_is_taken() {
    const LEN: usize = MESSAGE_SIZE_MAX - 1_024;
    let mut edge = Edge::open().await;
    let mut handler = dealer(&edge.spec(), "h").await;
    let frames = [format!("@{LEN}")];
    handler.tell(json!({"do": "send", "name": "s", "frames": frames})).await;
    assert_eq!(edge.packet_from("h").await.len(), LEN);
}

#[tokio::test]
async fn greetings_of_garbage_harm_nobody() {
    let mut edge = Edge::open().await;
    let spec = edge.spec();
    let mut good = dealer(&spec, "good").await;
    edge.until_joined("good").await;

    for endpoint in [spec.out(), spec.out_stream(), spec.inward()] {
        for bytes in garbage() {
            let mut bad = Raw::connect(endpoint).await;
            bad.write(&bytes).await;
            bad.read_to_end().await;
        }
    }
    edge.round_trip("good", &mut good).await;
}

/// One that connects and says nothing, or half a greeting, holds up nobody; nor does one that
/// leaves then.
#[tokio::test]
async fn silent_connections_harm_nobody() {
    let mut edge = Edge::open().await;
    let spec = edge.spec();
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(Raw::connect(spec.out_stream()).await);
        let mut half = Raw::connect(spec.out_stream()).await;
        half.write(&greeting()[..11]).await;
        silent.push(half);
    }
    let mut good = dealer(&spec, "good").await;
    edge.until_joined("good").await;
    edge.round_trip("good", &mut good).await;
    drop(silent);
    edge.round_trip("good", &mut good).await;
}

/// The row on which another library disconnected at each PING.
#[tokio::test]
async fn each_ping_is_answered() {
    let mut edge = Edge::open().await;
    let mut peer = Raw::dealer(edge.spec().out_stream(), "h").await;
    edge.until_joined("h").await;
    for number in 0..100_u8 {
        peer.write(&ping(&[number; 4])).await;
        assert_eq!(peer.read_frame().await, pong(&[number; 4]));
    }
    peer.write(&frame(0, b"T")).await;
    assert_eq!(edge.recv().await, Inbound::Routed { peer: "h".into(), packet: "T".into() });
}

/// A frame that comes byte by byte is the same frame; one that is cut off is none. On TCP, for a
/// change.
#[tokio::test]
async fn pieces_and_cuts() {
    let dir = tempfile::tempdir().unwrap();
    let (bus, base) = open_on_tcp().await;
    let mut edge = Edge::of(bus, dir);
    let endpoint = base.parse::<forebay_connmgr::bus::Spec>().unwrap().out_stream().to_owned();
    let mut slow = Raw::dealer(&endpoint, "slow").await;
    let mut cut = Raw::dealer(&endpoint, "cut").await;
    for byte in [frame(1, b""), frame(0, b"T-slow")].concat() {
        slow.write(&[byte]).await;
        edge.bus.flush().await;
    }
    assert_eq!(edge.packet_from("slow").await, "T-slow");
    cut.write(&frame(0, b"T-never")[..5]).await;
    drop(cut);
    edge.until_lost("cut").await;
}

/// Opens a bus on three free ports in a row, and tells its base spec.
async fn open_on_tcp() -> (Bus, String) {
    loop {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let base = format!("tcp://127.0.0.1:{port}");
        if port < u16::MAX - 2
            && let Ok(bus) = Bus::open(config(&[&[&base]])).await
        {
            return (bus, base);
        }
    }
}
