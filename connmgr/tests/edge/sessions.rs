//! Sessions that more than one packet, handler or socket is about (zhttp-spec/zhttp.md §4, §8, §9).

use serde_json::json;
use zhttp::{IDS_MAX, Kind, Packet};

use crate::client::{Client, SocketOptions};
use crate::handler::{Handler, sequence};
use crate::peers::{hex, unhex};
use crate::process::EdgeProcess;

#[tokio::test]
async fn a_packet_is_about_128_sessions_at_most() {
    let mut edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::plain(&edge, "h").await;
    let (mut clients, mut ids) = (Vec::new(), Vec::new());
    for _ in 0..=IDS_MAX {
        clients.push(Client::get(edge.address, "/").await);
        ids.push(handler.request().await.id);
    }
    let answer = |text: &'static str| {
        move |fields: &mut zhttp::Fields<'_, '_>| {
            fields.int("code", 200);
            fields.bytes("body", text.as_bytes());
        }
    };
    let packet = handler.packet_about(&ids, Kind::Data, answer("to too many"));
    handler.send_stream(&packet).await;
    let line = edge.line("refused").await;
    assert!(line.contains("\"h\"") && line.contains("128"), "{line}");
    let packet = handler.packet_about(&ids[..IDS_MAX], Kind::Data, answer("to many"));
    handler.send_stream(&packet).await;
    handler.answer(&ids[IDS_MAX], "to one").await;
    for (index, client) in clients.iter_mut().enumerate() {
        let expected = if index < IDS_MAX { "to many" } else { "to one" };
        assert_eq!(client.response().await.text(), expected, "{index}");
    }
}

/// The sequence of the handoff, number by number, as Condure has it.
#[tokio::test]
async fn a_session_is_handed_over() {
    let edge = EdgeProcess::start(&[]).await;
    let mut one = Handler::plain(&edge, "one").await;
    let mut client = Client::connect_by(
        edge.address,
        SocketOptions { resets: true, ..SocketOptions::default() },
    )
    .await;
    client.ask("/").await;
    let request = one.request().await;
    assert_eq!(request.seq, Some(0));
    let id = &request.id;
    let head = one.packet(id, Some(0), Kind::Data, |fields| {
        fields.int("code", 200);
        fields.bytes("body", b"a");
        fields.flag("more", true);
    });
    one.send_stream(&head).await;
    let start = one.packet(id, Some(1), Kind::HandoffStart, |_| {});
    one.send_stream(&start).await;
    client.until("a\r\n").await;
    let credit = one.next().await;
    assert_eq!((credit.kind, credit.credits, credit.seq), (Kind::Credit, 1, Some(1)));
    let proceed = one.next().await;
    assert_eq!((proceed.kind, proceed.seq), (Kind::HandoffProceed, Some(2)));

    let mut two = Handler::unasked(&edge.spec("zhttp"), "two").await;
    let alive = two.packet(id, Some(2), Kind::KeepAlive, |_| {});
    two.send_stream(&alive).await;
    let piece = two.packet(id, Some(3), Kind::Data, |fields| {
        fields.bytes("body", b"b");
        fields.flag("more", true);
    });
    two.send_stream(&piece).await;
    client.until("b\r\n").await;
    let credit = two.next().await;
    assert_eq!((credit.kind, credit.credits, credit.seq), (Kind::Credit, 1, Some(3)));
    drop(client);
    let cancel = two.next().await;
    assert_eq!((cancel.kind, &cancel.id, cancel.seq), (Kind::Cancel, id, Some(4)));
    assert_eq!(one.settle(0).await.len(), 0, "it hears no more of it");
}

/// Whoever spoke last has the session, also without a handoff.
#[tokio::test]
async fn who_speaks_has_the_session() {
    let edge = EdgeProcess::start(&[]).await;
    let mut one = Handler::plain(&edge, "one").await;
    let mut two = Handler::unasked(&edge.spec("zhttp"), "two").await;
    let mut client = Client::connect(edge.address).await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20\r\n\r\n").await;
    let request = one.request().await;
    for (turn, bytes) in [5, 6, 9].into_iter().enumerate() {
        let handler = if turn % 2 == 0 { &mut one } else { &mut two };
        let credit =
            handler.packet(&request.id, None, Kind::Credit, |fields| fields.int("credits", bytes));
        handler.send_stream(&credit).await;
        client.send(sequence(0..bytes as usize)).await;
        let piece = handler.next().await;
        assert_eq!((piece.kind, piece.body.len()), (Kind::Data, bytes as usize));
    }
    two.answer(&request.id, "from two").await;
    assert_eq!(client.response().await.text(), "from two");
}

/// As Pushpin does: by a ROUTER that addresses the edge by its id, and without a PUB.
#[tokio::test]
async fn a_handler_may_answer_by_router() {
    let edge = EdgeProcess::start(&[]).await;
    let mut handler = Handler::router_at(&edge.spec("zhttp"), "h").await;
    let mut client = Client::get(edge.address, "/").await;
    let request = handler.request().await;
    let packet = Packet::parse(&request.bytes).unwrap();
    assert!(packet.payload().unwrap().router_resp);
    let head = handler.packet(&request.id, None, Kind::Data, |fields| {
        fields.int("code", 200);
        fields.bytes("body", b"by ROUTER");
        fields.flag("more", true);
    });
    let frames = [hex(b"edge"), String::new(), hex(&head)];
    let send = json!({"do": "send_when_there", "name": "stream", "frames": frames});
    handler.peer.ask(send).await;
    client.until("by ROUTER\r\n").await;
    let answer = handler.peer.ask(json!({"do": "recv", "name": "stream"})).await;
    let frames: Vec<Vec<u8>> = answer["messages"][0]
        .as_array()
        .unwrap()
        .iter()
        .map(|frame| unhex(frame.as_str().unwrap()))
        .collect();
    assert_eq!(frames[..2], [b"edge".to_vec(), b"".to_vec()]);
    let credit = Packet::parse(&frames[2]).unwrap();
    assert_eq!((credit.kind, credit.payload().unwrap().credits), (Kind::Credit, 9));
}

/// One of two handlers stops in the middle of everything, with much on its way to it.
#[tokio::test]
async fn a_stuck_handler_delays_no_other() {
    let edge = EdgeProcess::start(&["--workers=1"]).await;
    let mut other = Handler::plain(&edge, "other").await;
    let mut stuck = Handler::unasked(&edge.spec("zhttp"), "stuck").await;
    let mut upload = Client::connect(edge.address).await;
    upload.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n").await;
    let request = other.request().await;
    let credit =
        stuck.packet(&request.id, None, Kind::Credit, |fields| fields.int("credits", 4_000_000));
    stuck.send_stream(&credit).await;
    stuck.settle(0).await;
    stuck.peer.signal("-STOP");
    // More than its queues keep: the edge has to keep it.
    upload.send(sequence(0..4_000_000)).await;
    let mut client = Client::connect(edge.address).await;
    for number in 0..200 {
        client.ask("/").await;
        let request = other.request().await;
        other.say(&request.id, (200, b"x"), true).await;
        assert_eq!(other.next_of(Kind::Credit).await.credits, 1, "{number}");
        other.say(&request.id, (0, b"y"), false).await;
        assert_eq!(client.response().await.text(), "xy");
    }
    stuck.peer.signal("-CONT");
    let mut got = 0;
    while got < 4_000_000 {
        let piece = stuck.next().await;
        assert!(piece.body == sequence(got..got + piece.body.len()), "from {got} on");
        got += piece.body.len();
    }
}
