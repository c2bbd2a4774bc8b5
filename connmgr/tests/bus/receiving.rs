//! What comes in: framings, subscriptions, losses after the last words, and a `recv` that can be
//! dropped.

use forebay_connmgr::bus::Inbound;
use serde_json::json;

use crate::peers::within;
use crate::{Edge, Peer, dealer};

#[tokio::test]
async fn a_publisher_is_subscribed_by_prefix() {
    let mut edge = Edge::open().await;
    let mut publisher =
        Peer::with(json!({"type": "XPUB", "connect": [edge.spec().inward()]})).await;
    publisher.tell(json!({"do": "recv", "name": "s"})).await;
    let subscription = tokio::select! {
        answer = publisher.answer() => answer,
        event = edge.recv() => panic!("{event:?}"),
    };
    assert_eq!(subscription["messages"], json!([[crate::peers::hex(b"\x01edge ")]]));
    for message in ["other T-0", "edge T-1", "edge2 T-2", "edg", "edge", "edge T-3"] {
        publisher.send(&[message.as_bytes()]).await;
    }
    assert_eq!(edge.recv().await, Inbound::Published { packet: "T-1".into() });
    assert_eq!(edge.recv().await, Inbound::Published { packet: "T-3".into() });
}

/// Handlers that follow the README of Pushpin connect a PUB and send 10 ms later; what is sent
/// before the subscription is lost. The best of twenty tells a delay that is built in from a
/// machine that is busy.
#[tokio::test]
async fn a_new_publisher_is_subscribed_within_ten_milliseconds() {
    let mut edge = Edge::open().await;
    let mut publisher = Peer::start();
    let mut best = f64::INFINITY;
    for _ in 0..20 {
        let asked =
            publisher.ask(json!({"do": "first_subscription", "endpoint": edge.spec().inward()}));
        let answer = tokio::select! {
            answer = asked => answer,
            event = edge.recv() => panic!("{event:?}"),
        };
        assert_eq!(answer["subscription"], json!(crate::peers::hex(b"\x01edge ")));
        best = best.min(answer["ms"].as_f64().unwrap());
    }
    assert!(best < 10.0, "{best} ms");
}

#[tokio::test]
async fn both_framings_are_taken_and_others_told() {
    let mut edge = Edge::open().await;
    let mut handler = dealer(&edge.spec(), "h").await;
    for frames in
        [&[&b""[..], b"T-1"][..], &[b"T-2"], &[b"", b"T", b"more"], &[b""], &[b"", b"T-3"]]
    {
        handler.send(frames).await;
    }
    edge.until_joined("h").await;
    let routed = |packet: &'static str| Inbound::Routed { peer: "h".into(), packet: packet.into() };
    assert_eq!(edge.recv().await, routed("T-1"));
    assert_eq!(edge.recv().await, routed("T-2"));
    assert!(
        matches!(edge.recv().await, Inbound::Malformed { peer: Some(peer), .. } if peer == "h")
    );
    assert!(
        matches!(edge.recv().await, Inbound::Malformed { peer: Some(peer), .. } if peer == "h")
    );
    assert_eq!(edge.recv().await, routed("T-3"));
}

/// More than any queue holds, and then the end of the connection: first all packets, in their
/// order, then the loss.
#[tokio::test]
async fn a_loss_comes_after_the_last_words() {
    const MESSAGES: usize = 5_000;
    let mut edge = Edge::open().await;
    let mut handler = dealer(&edge.spec(), "h").await;
    let prefix = [String::new(), crate::peers::hex(b"T")];
    handler.tell(json!({"do": "number", "name": "s", "prefix": prefix, "count": MESSAGES})).await;
    handler.tell(json!({"do": "close", "name": "s"})).await;
    edge.until_joined("h").await;
    for number in 0..MESSAGES {
        let packet = format!("T{number}").into();
        assert_eq!(edge.recv().await, Inbound::Routed { peer: "h".into(), packet });
    }
    assert_eq!(edge.recv().await, Inbound::PeerLost { peer: "h".into() });
}

#[tokio::test]
async fn a_dropped_recv_loses_nothing() {
    const MESSAGES: usize = 3_000;
    let mut edge = Edge::open().await;
    let mut handler = dealer(&edge.spec(), "h").await;
    edge.until_joined("h").await;
    let prefix = [crate::peers::hex(b"T")];
    handler.tell(json!({"do": "number", "name": "s", "prefix": prefix, "count": MESSAGES})).await;
    let (mut received, mut dropped) = (0, 0);
    within(async {
        while received < MESSAGES {
            let event = tokio::select! {
                biased;
                event = edge.bus.recv() => event,
                // Ready a few polls later: most receives are dropped in the middle.
                () = async { for _ in 0..received % 3 { tokio::task::yield_now().await } } => {
                    dropped += 1;
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let packet = format!("T{received}").into();
            assert_eq!(event, Inbound::Routed { peer: "h".into(), packet });
            received += 1;
        }
    })
    .await;
    assert!(dropped > 0);
}

/// Fast heartbeats, and as many round trips as it takes for many of them to pass.
#[tokio::test]
async fn a_peer_with_heartbeats_stays_connected() {
    let mut edge = Edge::open().await;
    let options = json!({"HEARTBEAT_IVL": 1, "HEARTBEAT_TIMEOUT": 30_000, "HEARTBEAT_TTL": 30_000});
    let mut handler = Peer::with(json!({
        "type": "DEALER", "identity": "h", "connect": [edge.spec().out_stream()],
        "options": options,
    }))
    .await;
    edge.until_joined("h").await;
    for _ in 0..300 {
        edge.bus.try_route(b"h", "T".into()).unwrap();
        handler.tell(json!({"do": "echo", "name": "s", "count": 1})).await;
        // The very next event: neither a loss nor a join comes between.
        assert_eq!(edge.recv().await, Inbound::Routed { peer: "h".into(), packet: "T".into() });
        handler.answer().await;
    }
    assert_eq!(
        handler.ask(json!({"do": "drain", "name": "s", "count": 1, "timeout": 0})).await["count"],
        0
    );
}
