//! Requests, as handlers get them and as clients may send them.

use super::{Edge, config, lines};
use crate::hub::ToHub;

fn packet_of(edge: &mut Edge) -> String {
    let Some(ToHub::Request(pending)) = edge.to_hub.pop_front() else { panic!("a request") };
    String::from_utf8(pending.packet.to_vec()).unwrap()
}

/// Condure's first packet, byte by byte (facts of condure 1.9.1), with the `router-resp` of later
/// ones and the `hold` of ours.
#[test]
fn the_packet_of_a_request_is_condures() {
    let mut edge = Edge::new();
    edge.sockets.peer = Some("127.0.0.1:35880".parse().unwrap());
    edge.connect_with("GET /a?b=c HTTP/1.1\r\nHost: x.com\r\nX-Two:  b \r\n\r\n");
    let expected = concat!(
        "4:from,4:edge,2:id,5:3-0-1,3:seq,1:0#",
        "3:ext,26:5:multi,4:true!4:hold,1:1#}",
        "6:method,3:GET,3:uri,18:http://x.com/a?b=c,",
        "7:headers,35:15:4:Host,5:x.com,]12:5:X-Two,1:b,]]",
        "7:credits,3:100#6:stream,4:true!11:router-resp,4:true!",
        "12:peer-address,9:127.0.0.1,9:peer-port,5:35880#",
    );
    assert_eq!(packet_of(&mut edge), format!("T{}:{expected}}}", expected.len()));
}

#[test]
fn the_packet_of_a_post_has_no_body_yet() {
    let mut edge = Edge::new();
    edge.connect_with("POST http://y.com:81/p HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
    let packet = packet_of(&mut edge);
    assert!(packet.contains("6:method,4:POST,3:uri,17:http://y.com:81/p,"), "{packet}");
    assert!(packet.contains("4:more,4:true!6:stream,"), "{packet}");
    assert!(!packet.contains("4:body") && !packet.contains("peer-"), "{packet}");
}

#[test]
fn what_the_hub_needs_stands_beside_the_packet() {
    let mut edge = Edge::new();
    edge.connect_with("PUT /a/b?c HTTP/1.1\r\nHost: x.com\r\n\r\n");
    let Some(ToHub::Request(pending)) = edge.to_hub.pop_front() else { panic!("a request") };
    assert_eq!((&*pending.method, &*pending.path, pending.worker), ("PUT", "/a/b", 3));
    assert_eq!(*pending.id, *b"3-0-1");
}

#[test]
fn a_connection_carries_one_request_after_the_other() {
    let mut edge = Edge::new();
    let (client, mut first) = edge.get();
    first.answer(&mut edge, &[], "one", false);
    assert_eq!(edge.got(client), lines(&["HTTP/1.1 200 OK", "Content-Length: 3"], "one"));
    assert_eq!(edge.told_kinds(), ["done "]);
    edge.send(client, "GET /2 HTTP/1.1\r\nHost: x.com\r\n\r\n");
    let mut second = edge.request();
    assert_eq!((&*first.id, &*second.id), ("3-0-1", "3-0-2"));
    second.answer(&mut edge, &[], "two", false);
    assert!(edge.got(client).ends_with("two"));
    assert_eq!(edge.worker.stats().requests, 2);
    edge.end();
}

#[test]
fn close_is_obeyed_and_said() {
    for (request, head) in [
        ("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "Connection: close"),
        ("GET / HTTP/1.0\r\n\r\n", "Connection: close"),
    ] {
        let mut edge = Edge::new();
        let client = edge.connect_with(request);
        edge.request().answer(&mut edge, &[], "x", false);
        assert!(edge.got(client).contains(head));
        assert!(edge.is_shut(client) && !edge.is_closed(client), "it lingers");
        edge.half_close(client);
        assert!(edge.is_closed(client));
    }
    let mut edge = Edge::new();
    let client = edge.connect_with("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    edge.request().answer(&mut edge, &[], "x", false);
    assert!(edge.got(client).contains("Connection: keep-alive"));
    assert!(!edge.is_shut(client));
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut edge = Edge::new();
    let request = |n: u32| format!("GET /{n} HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(60));
    // More than the edge reads ahead of one that is in flight.
    let client = edge.connect_with((0..9).map(request).collect::<String>());
    for n in 0..9 {
        let mut session = edge.request();
        session.answer(&mut edge, &[], &n.to_string(), false);
        assert!(edge.got(client).ends_with(&n.to_string()));
        let done = edge.to_hub.pop_front();
        assert!(matches!(done, Some(ToHub::Done { cancel: None, .. })), "{done:?}");
    }
    assert!(edge.client(client).unread.is_empty());
    edge.end();
}

/// The head in flight is longer than what is read ahead, so the edge must ask for the rest.
#[test]
fn a_pipelined_head_that_was_cut_is_read_on() {
    let mut edge = Edge::new();
    edge.read_bytes_max = 50;
    let long = format!("GET /2 HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(500));
    let client = edge.connect_with(format!("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n{long}"));
    let mut session = edge.request();
    assert!(!edge.client(client).unread.is_empty(), "the edge stopped reading");
    session.answer(&mut edge, &[], "1", false);
    assert!(edge.client(client).unread.is_empty());
    assert_eq!(edge.told().iter().filter(|told| told.to == "request").count(), 1);
}

#[test]
fn requests_wait_while_an_answer_does() {
    let mut edge = Edge::new();
    let client = edge.connect();
    edge.client(client).takes = Some(10);
    edge.send(client, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    edge.request().answer(&mut edge, &[], "first", false);
    assert_eq!(edge.told_kinds(), ["done "], "the second waits");
    edge.advance(100_000);
    assert!(!edge.is_closed(client), "a slow client is no idle one");
    edge.take(client, 20);
    assert_eq!(edge.told_kinds(), [""; 0]);
    edge.take(client, 1_000);
    assert!(edge.got(client).ends_with("first"));
    edge.request();
}

#[test]
fn heads_may_come_byte_by_byte() {
    let mut edge = Edge::new();
    edge.read_bytes_max = 1;
    let (client, mut session) = edge.get();
    session.answer(&mut edge, &[], "", false);
    assert_eq!(edge.got(client), lines(&["HTTP/1.1 200 OK", "Content-Length: 0"], ""));
}

#[test]
fn continue_is_said_only_when_a_handler_takes_the_body() {
    let mut edge = Edge::new();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    let client = edge.connect_with(head);
    let mut session = edge.request();
    session.say(&mut edge, zhttp::Kind::KeepAlive);
    assert_eq!(edge.got(client), "");
    session.credit(&mut edge, 10);
    assert_eq!(edge.got(client), "HTTP/1.1 100 Continue\r\n\r\n");
    session.credit(&mut edge, 10);
    assert_eq!(edge.got(client), "", "once is enough");
    edge.send(client, "abc");
    assert_eq!(edge.told()[0].body, b"abc");

    // Who sends the body unasked, or has the answer already, needs none.
    let client = edge.connect_with(format!("{head}ab"));
    let mut session = edge.request();
    session.credit(&mut edge, 10);
    assert_eq!(edge.got(client), "");
    let client = edge.connect_with(head);
    edge.told();
    let mut session = super::Session { id: "3-2-3".into(), seq: 0, ..session };
    session.answer(&mut edge, &[], "x", true);
    session.credit(&mut edge, 10);
    assert!(!edge.got(client).contains("100 Continue"));
}

#[test]
fn an_idle_connection_owns_nothing() {
    let mut edge = Edge::with(config());
    let (client, mut session) = edge.get();
    session.answer(&mut edge, &[], "x", false);
    let key = edge.worker.connections.keys().next().unwrap();
    let connection = &edge.worker.connections[key.index];
    assert_eq!((connection.input.capacity(), connection.output.capacity()), (0, 0));
    assert_eq!(client, key);
}
