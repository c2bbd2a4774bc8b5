//! Opening, closing, and coming back: files, linger, restarts of either side, and churn.

use std::os::unix::fs::PermissionsExt;

use forebay_connmgr::bus::{Bus, BusError, Inbound, LINGER_MAX, Refused};
use serde_json::json;

use crate::peers::within;
use crate::{Edge, Peer, config, dealer, drain, puller, spec_in};

#[tokio::test]
async fn ipc_files_get_the_mode_and_go_with_the_bus() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec_in(&dir, "bus");
    for mode in [0o600, 0o660, 0o777] {
        let mut config = config(&[&[spec.base()]]);
        config.ipc_file_mode = Some(mode);
        let bus = Bus::open(config).await.unwrap();
        for name in ["bus-out", "bus-out-stream", "bus-in"] {
            let permissions = std::fs::metadata(dir.path().join(name)).unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777, mode, "{name}");
        }
        within(bus.close()).await;
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn stale_ipc_files_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec_in(&dir, "bus");
    for name in ["bus-out", "bus-out-stream", "bus-in"] {
        // What a killed process leaves behind: a socket file that nobody listens on.
        drop(std::os::unix::net::UnixListener::bind(dir.path().join(name)).unwrap());
    }
    let mut edge = Edge::of(Bus::open(config(&[&[spec.base()]])).await.unwrap(), dir);
    let mut handler = dealer(&spec, "h").await;
    edge.until_joined("h").await;
    edge.round_trip("h", &mut handler).await;
}

#[tokio::test]
async fn what_cannot_be_opened_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let missing = spec_in(&dir, "no/such/directory");
    match Bus::open(config(&[&[missing.base()]])).await {
        Err(BusError::Bind { endpoint, .. }) => assert_eq!(endpoint, missing.out()),
        other => panic!("{other:?}"),
    }
    for instance_id in ["", "two words", &"x".repeat(65)] {
        let mut config = config(&[&[missing.base()]]);
        config.instance_id = instance_id.to_owned();
        assert!(
            matches!(Bus::open(config).await, Err(BusError::InstanceId { .. })),
            "{instance_id:?}"
        );
    }
    assert!(matches!(Bus::open(config(&[])).await, Err(BusError::NoSpec)));
    assert!(matches!(Bus::open(config(&[&[]])).await, Err(BusError::NoSpec)));

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let base = format!("tcp://127.0.0.1:{}", taken.local_addr().unwrap().port().min(u16::MAX - 2));
    match Bus::open(config(&[&[&base]])).await {
        Err(BusError::Bind { endpoint, .. }) => assert!(endpoint.starts_with("tcp://127.0.0.1:")),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_was_sent_before_close_arrives() {
    let mut edge = Edge::open().await;
    let mut puller = puller(&edge.spec()).await;
    let mut handler = dealer(&edge.spec(), "h").await;
    edge.until_pullers(1).await;
    while let Err(refused) = edge.bus.try_route(b"h", "T-bye".into()) {
        assert!(matches!(refused, Refused::NoPeer(_)));
        edge.recv().await;
    }
    for _ in 0..500 {
        edge.bus.try_push(0, vec![b'x'; 1_000].into()).unwrap();
    }
    within(edge.bus.close()).await;
    assert_eq!(puller.ask(drain(500)).await["count"], 500);
    assert_eq!(handler.recv().await, [&b""[..], b"T-bye"]);
}

/// A peer that takes nothing does not keep the edge from ending: `close` ends by the clock of
/// tokio, which is stopped here, so that the test measures what the bus waits for and not how fast
/// the machine is.
#[tokio::test]
async fn close_does_not_wait_for_a_stalled_peer() {
    let mut edge = Edge::open().await;
    let stalled = puller(&edge.spec()).await;
    edge.until_pullers(1).await;
    stalled.signal("-STOP");
    edge.fill(|bus| bus.try_push(0, vec![b'x'; 16 * 1024].into())).await;
    tokio::time::pause();
    let started = tokio::time::Instant::now();
    edge.bus.close().await;
    assert!(started.elapsed() <= 2 * LINGER_MAX, "{:?}", started.elapsed());
}

#[tokio::test]
async fn handlers_come_back_when_the_edge_is_restarted() {
    let edge = Edge::open().await;
    let spec = edge.spec();
    let Edge { mut bus, dir, .. } = edge;
    let (mut handler, mut puller) = (dealer(&spec, "h").await, puller(&spec).await);
    // Without VERBOSE libzmq would hide that the new edge subscribes again.
    let options = json!({"XPUB_VERBOSE": 1});
    let mut publisher =
        Peer::with(json!({"type": "XPUB", "connect": [spec.inward()], "options": options})).await;
    for _ in 0..3 {
        let mut edge = Edge::of(bus, tempfile::tempdir().unwrap());
        edge.until_joined("h").await;
        edge.until_pullers(1).await;
        edge.push("T-push".into()).await;
        edge.round_trip("h", &mut handler).await;
        assert_eq!(puller.recv().await, [b"T-push"]);
        assert_eq!(publisher.recv().await, [b"\x01edge "]);
        publisher.send(&[b"edge T-published"]).await;
        let published = edge.until(|event| matches!(event, Inbound::Published { .. })).await;
        assert_eq!(published, Inbound::Published { packet: "T-published".into() });

        within(edge.bus.close()).await;
        bus = Bus::open(config(&[&[spec.base()]])).await.unwrap();
    }
    drop(dir);
}

#[tokio::test]
async fn an_edge_that_connects_comes_back_when_handlers_are_restarted() {
    let dir = tempfile::tempdir().unwrap();
    let spec = spec_in(&dir, "bus");
    let mut config = config(&[&[spec.base()]]);
    config.connect = true;
    let mut edge = Edge::of(Bus::open(config).await.unwrap(), dir);
    for _ in 0..3 {
        let mut handler = Peer::start();
        handler
            .open("s", json!({"type": "ROUTER", "identity": "h", "bind": [spec.out_stream()]}))
            .await;
        handler.open("pull", json!({"type": "PULL", "bind": [spec.out()]})).await;
        handler.open("pub", json!({"type": "XPUB", "bind": [spec.inward()]})).await;
        edge.until_joined("h").await;
        edge.until_pullers(1).await;
        edge.round_trip("h", &mut handler).await;
        edge.push("T-push".into()).await;
        edge.bus.flush().await;
        assert_eq!(
            handler.ask(json!({"do": "drain", "name": "pull", "count": 1})).await["count"],
            1
        );
        handler.tell(json!({"do": "recv", "name": "pub"})).await;
        handler
            .tell(json!({"do": "send", "name": "pub", "frames": [crate::peers::hex(b"edge T")]}))
            .await;
        assert_eq!(edge.recv().await, Inbound::Published { packet: "T".into() });
        handler.kill().await;
        edge.until_lost("h").await;
        edge.until_pullers(0).await;
    }
}

/// Handlers that come and are killed, in the middle of sending, for a while: the joins and losses
/// add up, and one that stays is served all the time.
#[tokio::test]
async fn churn_by_sigkill() {
    let mut edge = Edge::open().await;
    let spec = edge.spec();
    let mut steady = dealer(&spec, "steady").await;
    edge.until_joined("steady").await;
    for round in 0..15 {
        let name = format!("h{round}");
        let mut handler = dealer(&spec, &name).await;
        handler.open("pull", json!({"type": "PULL", "connect": [spec.out()]})).await;
        edge.until_joined(&name).await;
        edge.until_pullers(1).await;
        let flood =
            json!({"do": "send", "name": "s", "frames": ["", "@1000"], "copies": 1_000_000});
        handler.tell(flood).await;
        edge.packet_from(&name).await;
        for _ in 0..50 {
            edge.bus.try_route(name.as_bytes(), "T".into()).unwrap();
            edge.bus.try_push(0, "T".into()).unwrap();
        }
        handler.kill().await;
        edge.until_lost(&name).await;
        edge.until_pullers(0).await;
        edge.round_trip("steady", &mut steady).await;
    }
    assert_eq!(edge.bus.try_recv(), None);
}
