//! The contract of a link, kept against a ROUTER of libzmq (pyzmq in a process of its own) in the
//! place of the edge.
//!
//! The peers, and the rules for these tests, are those of the bus: see `connmgr/tests/bus.rs`.

#![allow(unreachable_pub, clippy::unwrap_used)]

#[path = "../../connmgr/tests/peers/mod.rs"]
mod peers;

use bytes::Bytes;
use forebay_handlers::attach::{HIGH_WATER_MARK, Link, LinkError, LinkEvent, Refused};
use serde_json::json;
use tempfile::TempDir;

use peers::{Peer, hex, within};

/// A link named `handler`, to an edge that is not there yet.
struct Handler {
    link: Link,
    dir: TempDir,
}

impl Handler {
    async fn new() -> Handler {
        let dir = tempfile::tempdir().unwrap();
        let link = Link::connect(&format!("ipc://{}/edge", dir.path().display()), "handler").await;
        Handler { link: link.unwrap(), dir }
    }

    /// Starts an edge where the link expects it.
    async fn edge(&self) -> Peer {
        let endpoint = format!("ipc://{}/edge-out-stream", self.dir.path().display());
        let options = json!({"ROUTER_MANDATORY": 1, "SNDHWM": 0});
        Peer::with(
            json!({"type": "ROUTER", "identity": "edge", "bind": [endpoint], "options": options}),
        )
        .await
    }

    async fn recv(&mut self) -> LinkEvent {
        within(self.link.recv()).await
    }

    /// Says hello, after which the edge knows this handler, too: a link can be up here a moment
    /// before it is up there.
    async fn hello(&self, edge: &mut Peer) {
        self.link.try_send("T-hello".into()).unwrap();
        assert_eq!(edge.recv().await, [&b"handler"[..], b"", b"T-hello"]);
    }
}

fn packet(packet: &'static str) -> LinkEvent {
    LinkEvent::Packet(packet.into())
}

#[tokio::test]
async fn packets_go_both_ways() {
    let mut handler = Handler::new().await;
    let mut edge = handler.edge().await;
    assert_eq!(handler.recv().await, LinkEvent::Up);
    handler.hello(&mut edge).await;
    edge.send(&[b"handler", b"", b"T-1"]).await;
    edge.send(&[b"handler", b"T-2"]).await;
    edge.send(&[b"handler", b"", b"of", b"no use"]).await;
    edge.send(&[b"handler", b"", b"T-3"]).await;
    for text in ["T-1", "T-2", "T-3"] {
        assert_eq!(handler.recv().await, packet(text));
    }
}

#[tokio::test]
async fn while_the_edge_is_away_packets_come_back() {
    let mut handler = Handler::new().await;
    let sender = handler.link.sender();
    assert_eq!(sender.try_send("T".into()), Err(Refused::Down("T".into())));
    assert_eq!(sender.send("T".into()).await, Err(Refused::Down("T".into())));
    let edge = handler.edge().await;
    assert_eq!(handler.recv().await, LinkEvent::Up);
    assert!(sender.is_up());
    edge.kill().await;
    assert_eq!(handler.recv().await, LinkEvent::Down);
    assert_eq!(sender.try_send("T".into()), Err(Refused::Down("T".into())));
}

#[tokio::test]
async fn the_link_comes_back_when_the_edge_is_restarted() {
    let mut handler = Handler::new().await;
    for _ in 0..3 {
        let mut edge = handler.edge().await;
        assert_eq!(handler.recv().await, LinkEvent::Up);
        handler.hello(&mut edge).await;
        edge.kill().await;
        assert_eq!(handler.recv().await, LinkEvent::Down);
    }
}

/// Fills the queue towards an edge that is stopped. Returns how many packets were taken.
async fn fill(link: &Link) -> usize {
    let (mut taken, mut refused_in_a_row) = (0, 0);
    while refused_in_a_row < 100 {
        match link.try_send(vec![b'x'; 16 * 1024].into()) {
            Ok(()) => (taken, refused_in_a_row) = (taken + 1, 0),
            Err(Refused::Full(_)) => refused_in_a_row += 1,
            Err(refused @ Refused::Down(_)) => panic!("{refused:?}"),
        }
        tokio::task::yield_now().await;
    }
    taken
}

#[tokio::test]
async fn send_waits_while_the_edge_is_stopped() {
    let mut handler = Handler::new().await;
    let mut edge = handler.edge().await;
    assert_eq!(handler.recv().await, LinkEvent::Up);
    edge.signal("-STOP");
    let taken = fill(&handler.link).await;
    let hwm = HIGH_WATER_MARK as usize;
    assert!((hwm..3 * hwm).contains(&taken), "{taken}");
    let sender = handler.link.sender();
    let waiting = tokio::spawn(async move { sender.send("T-last".into()).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    edge.signal("-CONT");
    assert_eq!(edge.ask(json!({"do": "drain", "name": "s", "count": taken})).await["count"], taken);
    assert_eq!(within(waiting).await.unwrap(), Ok(()));
    assert_eq!(edge.recv().await, [&b"handler"[..], b"", b"T-last"]);
}

#[tokio::test]
async fn send_ends_when_the_edge_is_killed() {
    let mut handler = Handler::new().await;
    let edge = handler.edge().await;
    assert_eq!(handler.recv().await, LinkEvent::Up);
    edge.signal("-STOP");
    fill(&handler.link).await;
    let sender = handler.link.sender();
    let waiting = tokio::spawn(async move { sender.send("T".into()).await });
    edge.kill().await;
    assert_eq!(within(waiting).await.unwrap(), Err(Refused::Down("T".into())));
    assert_eq!(handler.recv().await, LinkEvent::Down);

    // Nothing of the old connection's queue reaches the next edge.
    let mut edge = handler.edge().await;
    assert_eq!(handler.recv().await, LinkEvent::Up);
    within(handler.link.send("T-first".into())).await.unwrap();
    assert_eq!(edge.recv().await, [&b"handler"[..], b"", b"T-first"]);
}

#[tokio::test]
async fn down_comes_after_the_last_packet() {
    const PACKETS: usize = 3_000;
    let mut handler = Handler::new().await;
    let mut edge = handler.edge().await;
    assert_eq!(handler.recv().await, LinkEvent::Up);
    handler.hello(&mut edge).await;
    let prefix = [hex(b"handler"), String::new(), hex(b"T")];
    edge.tell(json!({"do": "number", "name": "s", "prefix": prefix, "count": PACKETS})).await;
    edge.tell(json!({"do": "close", "name": "s"})).await;
    for number in 0..PACKETS {
        assert_eq!(handler.recv().await, LinkEvent::Packet(format!("T{number}").into()));
    }
    assert_eq!(handler.recv().await, LinkEvent::Down);
}

#[tokio::test]
async fn up_comes_before_the_first_packet() {
    for _ in 0..10 {
        let mut handler = Handler::new().await;
        let mut edge = handler.edge().await;
        // The link is not asked for anything until its edge has sent.
        while !handler.link.sender().is_up() {
            tokio::task::yield_now().await;
        }
        handler.hello(&mut edge).await;
        edge.send(&[b"handler", b"", b"T"]).await;
        assert_eq!(handler.recv().await, LinkEvent::Up);
        assert_eq!(handler.recv().await, packet("T"));
    }
}

#[tokio::test]
async fn ten_megabytes_go_there_and_back() {
    let mut handler = Handler::new().await;
    let mut edge = handler.edge().await;
    assert_eq!(handler.recv().await, LinkEvent::Up);
    edge.tell(json!({"do": "echo", "name": "s", "count": 1})).await;
    let large = Bytes::from((0..10_000_000_u32).map(|at| (at % 251) as u8).collect::<Vec<u8>>());
    handler.link.send(large.clone()).await.unwrap();
    assert_eq!(handler.recv().await, LinkEvent::Packet(large));
}

#[tokio::test]
async fn what_was_sent_before_close_arrives() {
    let mut handler = Handler::new().await;
    let mut edge = handler.edge().await;
    assert_eq!(handler.recv().await, LinkEvent::Up);
    let sender = handler.link.sender();
    for _ in 0..500 {
        sender.try_send("T".into()).unwrap();
    }
    within(handler.link.close()).await;
    assert_eq!(edge.ask(json!({"do": "drain", "name": "s", "count": 500})).await["count"], 500);
    assert_eq!(sender.try_send("T".into()), Err(Refused::Down("T".into())));
}

#[tokio::test]
async fn what_cannot_be_a_link_is_named() {
    match Link::connect("udp://x", "handler").await {
        Err(LinkError::Spec { spec }) => assert_eq!(spec, "udp://x"),
        other => panic!("{other:?}"),
    }
    for identity in ["", "two words", &"x".repeat(65)] {
        let refused = Link::connect("ipc://x", identity).await;
        assert!(matches!(refused, Err(LinkError::Identity { .. })), "{identity:?}");
    }
}
