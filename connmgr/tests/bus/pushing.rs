//! PUSH: requests dealt out to pullers, and what a puller that stalls or dies does to the others.

use bytes::Bytes;
use forebay_connmgr::bus::{Bus, HIGH_WATER_MARK, Inbound, Refused};
use serde_json::json;

use crate::peers::{hex, within};
use crate::{Edge, Peer, config, drain, puller, spec_in};

#[tokio::test]
async fn two_pullers_are_served_in_turn() {
    let mut edge = Edge::open().await;
    let (mut one, mut two) = (puller(&edge.spec()).await, puller(&edge.spec()).await);
    edge.until_pullers(2).await;
    for number in 0..100 {
        edge.push(format!("T{number}").into()).await;
    }
    let (one, two) = tokio::join!(one.ask(drain(50)), two.ask(drain(50)));
    assert_eq!((one["count"].as_u64(), two["count"].as_u64()), (Some(50), Some(50)));
}

#[tokio::test]
async fn without_pullers_the_message_comes_back() {
    let mut edge = Edge::open().await;
    assert_eq!(edge.bus.try_push(0, "T-a".into()), Err(Refused::NoPeer("T-a".into())));
    assert_eq!(
        edge.bus.try_push(1, "T-b".into()),
        Err(Refused::NoPeer("T-b".into())),
        "there is no such group"
    );
    assert_eq!((edge.bus.push_peers(0), edge.bus.push_peers(1)), (0, 0));
}

#[tokio::test]
async fn the_number_of_pullers_is_told() {
    let mut edge = Edge::open().await;
    let one = puller(&edge.spec()).await;
    assert_eq!(edge.recv().await, Inbound::PushPeers { group: 0, count: 1 });
    let two = puller(&edge.spec()).await;
    assert_eq!(edge.recv().await, Inbound::PushPeers { group: 0, count: 2 });
    one.kill().await;
    assert_eq!(edge.recv().await, Inbound::PushPeers { group: 0, count: 1 });
    two.kill().await;
    assert_eq!(edge.recv().await, Inbound::PushPeers { group: 0, count: 0 });
    assert!(matches!(edge.bus.try_push(0, "T".into()), Err(Refused::NoPeer(_))));
}

/// What a stopped puller takes is bounded, be it large or small; nothing of it is lost when it goes on.
#[tokio::test]
async fn a_stalled_puller_fills_up_and_room_is_told() {
    let hwm = HIGH_WATER_MARK as usize;
    for len in [200, 16 * 1024] {
        let mut edge = Edge::open().await;
        let mut stalled = puller(&edge.spec()).await;
        edge.until_pullers(1).await;
        stalled.signal("-STOP");
        let packet = Bytes::from(vec![b'x'; len]);
        let taken = edge.fill(|bus| bus.try_push(0, packet.clone())).await;
        // The queue, and what the kernel keeps.
        assert!((hwm..3 * hwm).contains(&taken), "{taken} of {len} bytes");
        assert_eq!(edge.bus.try_push(0, "T".into()), Err(Refused::Full("T".into())));
        stalled.signal("-CONT");
        stalled.tell(drain(taken)).await;
        let ready = edge.until(|event| matches!(event, Inbound::PushReady { .. })).await;
        assert_eq!(ready, Inbound::PushReady { group: 0 });
        assert_eq!(stalled.answer().await["count"].as_u64(), Some(taken as u64));
        assert_eq!(edge.bus.try_push(0, "T".into()), Ok(()));
    }
}

#[tokio::test]
async fn one_of_two_pullers_stalls_and_the_other_gets_on() {
    let mut edge = Edge::open().await;
    let (stalled, mut other) = (puller(&edge.spec()).await, puller(&edge.spec()).await);
    edge.until_pullers(2).await;
    stalled.signal("-STOP");
    let packet = Bytes::from(vec![b'x'; 4 * 1024]);
    other.tell(drain(10_000)).await;
    let answer = other.answer();
    tokio::pin!(answer);
    let answer = loop {
        tokio::select! {
            answer = &mut answer => break answer,
            () = edge.push(packet.clone()) => edge.bus.flush().await,
        }
    };
    assert_eq!(answer["count"], 10_000);
}

/// The row on which another library froze its runtime thread for good.
#[tokio::test]
async fn a_stalled_puller_is_killed_while_a_send_waits() {
    let mut edge = Edge::open().await;
    let stalled = puller(&edge.spec()).await;
    edge.until_pullers(1).await;
    stalled.signal("-STOP");
    let packet = Bytes::from(vec![b'x'; 16 * 1024]);
    edge.fill(|bus| bus.try_push(0, packet.clone())).await;
    stalled.kill().await;
    edge.until_pullers(0).await;
    assert_eq!(edge.bus.try_push(0, "T".into()), Err(Refused::NoPeer("T".into())));

    let mut next = puller(&edge.spec()).await;
    edge.until_pullers(1).await;
    edge.push("T-next".into()).await;
    assert_eq!(next.recv().await, [b"T-next"]);
}

#[tokio::test]
async fn ten_megabytes_arrive_as_they_were() {
    let mut edge = Edge::open().await;
    let mut peer = puller(&edge.spec()).await;
    edge.until_pullers(1).await;
    edge.push(Bytes::from(vec![b'x'; 10_000_000])).await;
    let got = peer.ask(drain(1)).await;
    // What `python3 -c 'import zlib; print(zlib.crc32(b"x" * 10_000_000))'` prints.
    assert_eq!(got["last"], json!([[10_000_000, 3_955_074_224_u32]]));
}

#[tokio::test]
async fn groups_do_not_share_requests() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b, c) = (spec_in(&dir, "a"), spec_in(&dir, "b"), spec_in(&dir, "c"));
    let bus = Bus::open(config(&[&[a.base()], &[b.base(), c.base()]])).await.unwrap();
    let mut edge = Edge::of(bus, dir);
    let (mut in_a, mut in_b, mut in_c) = (puller(&a).await, puller(&b).await, puller(&c).await);
    while (edge.bus.push_peers(0), edge.bus.push_peers(1)) != (1, 2) {
        edge.until(|event| matches!(event, Inbound::PushPeers { .. })).await;
    }
    edge.bus.try_push(0, "T-first".into()).unwrap();
    edge.bus.try_push(1, "T-second".into()).unwrap();
    edge.bus.try_push(1, "T-second".into()).unwrap();
    edge.bus.flush().await;
    assert_eq!(in_a.recv().await, [b"T-first"]);
    assert_eq!(in_b.recv().await, [b"T-second"]);
    assert_eq!(in_c.recv().await, [b"T-second"]);

    // The other two sockets are on the addresses of every group.
    let mut handler = crate::dealer(&c, "h").await;
    handler.send(&[b"", b"T-routed"]).await;
    assert_eq!(edge.packet_from("h").await, "T-routed");
}

/// A bus that connects gives requests to those who are there; it keeps none for those who are not.
#[tokio::test]
async fn when_connecting_absent_handlers_get_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (here, gone) = (spec_in(&dir, "here"), spec_in(&dir, "gone"));
    let mut config = config(&[&[here.base(), gone.base()]]);
    config.connect = true;
    let mut edge = Edge::of(Bus::open(config).await.unwrap(), dir);
    assert_eq!(edge.bus.try_push(0, "T".into()), Err(Refused::NoPeer("T".into())));

    let mut peer = Peer::with(json!({"type": "PULL", "bind": [here.out()]})).await;
    edge.until_pullers(1).await;
    for _ in 0..100 {
        edge.push("T".into()).await;
    }
    edge.bus.flush().await;
    assert_eq!(peer.ask(drain(100)).await["count"], 100);

    // The other one comes, and is served; the first one leaves, and comes back.
    let mut late = Peer::with(json!({"type": "PULL", "bind": [gone.out()]})).await;
    edge.until_pullers(2).await;
    edge.push("T-1".into()).await;
    edge.push("T-2".into()).await;
    within(edge.bus.flush()).await;
    let (first, second) = tokio::join!(peer.recv(), late.recv());
    assert_ne!(hex(&first[0]), hex(&second[0]));
    peer.kill().await;
    edge.until_pullers(1).await;
    let mut again = Peer::with(json!({"type": "PULL", "bind": [here.out()]})).await;
    edge.until_pullers(2).await;
    edge.push("T-3".into()).await;
    edge.push("T-4".into()).await;
    tokio::join!(again.recv(), late.recv());
}
