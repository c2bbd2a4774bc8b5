//! Req mode: one packet there, one packet back.

use zhttp::{Envelope, Fields, Id, Kind};

use super::{BODY_BYTES_MAX, BUFFER_BYTES, Edge, lines};
use crate::hub::{Class, FromHub, Pending, ToHub};
use crate::slab::Key;
use crate::worker::{Mode, Transport};

const POST: &str = "POST /a HTTP/1.1\r\nHost: x.com\r\n";

/// The one request that was made since the last time.
fn next(edge: &mut Edge) -> Pending {
    let ToHub::Request(pending) = edge.to_hub.pop_front().expect("a request") else {
        panic!("a request")
    };
    assert!(edge.to_hub.is_empty());
    pending
}

/// A client whose request has come, and its id.
fn ask(edge: &mut Edge, request: &str) -> (Key, String) {
    let client = edge.connect_to(Mode::Req);
    edge.send(client, request);
    let id = String::from_utf8(next(edge).id.to_vec()).unwrap();
    (client, id)
}

/// A packet as a REP socket sends it: no `from`, and no number.
fn reply(edge: &mut Edge, id: &str, kind: Kind, fill: impl FnOnce(&mut Fields<'_, '_>)) {
    let ids = [Id { id: id.as_bytes(), seq: None }];
    let mut out = Vec::new();
    Envelope { from: b"", ids: &ids, kind, multi: false }.write(&mut out, fill);
    edge.hub(&FromHub::Reply(out.into()));
}

fn answer(edge: &mut Edge, id: &str, body: &str) {
    reply(edge, id, Kind::Data, |fields| {
        fields.int("code", 200);
        fields.bytes("reason", b"OK");
        fields.bytes("body", body.as_bytes());
    });
}

#[test]
fn a_request_is_one_packet_and_so_is_its_answer() {
    let mut edge = Edge::new();
    edge.sockets.peer = Some(([127, 0, 0, 1], 39638).into());
    let client = edge.connect_to(Mode::Req);
    edge.send(client, format!("{POST}Content-Length: 3\r\n\r\nab"));
    assert!(edge.to_hub.is_empty(), "not before it is whole");
    edge.send(client, "c");
    let pending = next(&mut edge);
    assert_eq!((pending.class, &*pending.method, &*pending.path), (Class::Req, "POST", "/a"));
    // As Condure 1.9.1 writes it.
    let expected = concat!(
        "T169:2:id,5:3-0-1,3:ext,15:5:multi,4:true!}6:method,4:POST,3:uri,14:http://x.com/a,",
        "7:headers,45:15:4:Host,5:x.com,]22:14:Content-Length,1:3,]]4:body,3:abc,",
        "12:peer-address,9:127.0.0.1,9:peer-port,5:39638#}"
    );
    let got = String::from_utf8(pending.packet.to_vec()).unwrap();
    assert_eq!(got.split_once(':').unwrap().1, expected.split_once(':').unwrap().1);
    answer(&mut edge, "3-0-1", "hello");
    assert_eq!(edge.got(client), lines(&["HTTP/1.1 200 OK", "Content-Length: 5"], "hello"));
    assert_eq!(edge.told_kinds(), ["done "]);

    // The connection goes on, with what was pipelined.
    edge.send(client, "GET /b HTTP/1.1\r\nHost: x.com\r\n\r\nGET /c HTTP/1.0\r\n\r\n");
    assert_eq!(&*next(&mut edge).path, "/b");
    answer(&mut edge, "3-0-2", "");
    edge.to_hub.pop_front();
    assert_eq!(&*next(&mut edge).path, "/c");
    answer(&mut edge, "3-0-3", "c");
    assert!(edge.got(client).ends_with("\r\n\r\nc"));
    assert!(edge.is_shut(client), "that is how 1.0 ends");
    edge.end();
}

#[test]
fn a_body_may_come_in_chunks_and_in_any_cut() {
    let request = format!(
        "{POST}Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
    );
    for cut in 0..request.len() {
        let mut edge = Edge::new();
        let client = edge.connect_to(Mode::Req);
        edge.send(client, &request[..cut]);
        assert!(edge.to_hub.is_empty());
        edge.send(client, &request[cut..]);
        let packet = next(&mut edge).packet;
        let packet = zhttp::Packet::parse(&packet).unwrap();
        assert_eq!(packet.payload().unwrap().body, b"abcde", "cut at {cut}");
        edge.end();
    }
}

/// As in Condure 1.9.1.
#[test]
fn that_there_is_more_is_not_heeded() {
    let mut edge = Edge::new();
    let (client, id) = ask(&mut edge, "GET / HTTP/1.1\r\nHost: x.com\r\n\r\n");
    reply(&mut edge, &id, Kind::Data, |fields| {
        fields.int("code", 200);
        fields.bytes("body", b"all");
        fields.flag("more", true);
    });
    assert_eq!(edge.got(client), lines(&["HTTP/1.1 200 OK", "Content-Length: 3"], "all"));
    edge.end();
}

#[test]
fn a_client_may_wait_for_the_word_to_continue() {
    let mut edge = Edge::new();
    let client = edge.connect_to(Mode::Req);
    edge.send(client, format!("{POST}Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"));
    assert_eq!(edge.got(client), "HTTP/1.1 100 Continue\r\n\r\n");
    edge.send(client, "a");
    edge.send(client, "b");
    assert_eq!(edge.got(client), "", "once");
    next(&mut edge);
    edge.end();
}

#[test]
fn bodies_are_bounded() {
    let chunk = format!("{:x}\r\n{}\r\n", BODY_BYTES_MAX, "x".repeat(BODY_BYTES_MAX));
    for request in [
        format!("{POST}Expect: 100-continue\r\nContent-Length: {}\r\n\r\n", BODY_BYTES_MAX + 1),
        format!("{POST}Transfer-Encoding: chunked\r\n\r\n{chunk}1\r\nx\r\n"),
    ] {
        let mut edge = Edge::new();
        let client = edge.connect_to(Mode::Req);
        edge.send(client, request);
        let got = edge.got(client);
        assert!(got.starts_with("HTTP/1.1 413 "), "{got}");
        assert!(edge.is_shut(client) && !edge.told_kinds().contains(&"request ".into()));
        edge.end();
    }
    let mut edge = Edge::new();
    let (client, id) =
        ask(&mut edge, &format!("{POST}Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"));
    answer(&mut edge, &id, &"x".repeat(BODY_BYTES_MAX));
    assert!(edge.got(client).starts_with("HTTP/1.1 200 "));
    edge.end();
}

#[test]
fn a_handler_that_answers_nonsense_is_a_500_and_logged() {
    type Fill = fn(&mut Fields<'_, '_>);
    let cases: [(Kind, Fill, &str); 6] = [
        (Kind::Data, |_| {}, "code is missing"),
        (
            Kind::Data,
            |fields| fields.int("code", 70_000),
            "field code: want an integer from 0 to 65535",
        ),
        (Kind::Data, |fields| fields.int("code", 99), "99"),
        (
            Kind::Data,
            |fields| {
                fields.int("code", 200);
                fields.bytes("body", &[b'x'; BODY_BYTES_MAX + 1]);
            },
            "a body of more than 200 bytes",
        ),
        (Kind::Credit, |_| {}, "type credit has no place in this session"),
        (Kind::Hold, |_| {}, "type hold has no place in this session"),
    ];
    for (kind, fill, why) in cases {
        let mut edge = Edge::new();
        let (client, id) = ask(&mut edge, "GET / HTTP/1.1\r\nHost: x.com\r\n\r\n");
        reply(&mut edge, &id, kind, fill);
        assert!(edge.got(client).starts_with("HTTP/1.1 500 "));
        assert_eq!(edge.told_kinds(), ["done "]);
        let refusal = edge.worker.poll_refusal().expect("it is logged");
        assert!(refusal.why.contains(why), "{refusal:?}");
        edge.end();
    }
    for kind in [Kind::Error, Kind::Cancel] {
        let mut edge = Edge::new();
        let (client, id) = ask(&mut edge, "GET / HTTP/1.1\r\nHost: x.com\r\n\r\n");
        reply(&mut edge, &id, kind, |_| {});
        assert!(edge.got(client).starts_with("HTTP/1.1 500 "));
        assert_eq!(edge.worker.poll_refusal(), None, "it may");
    }
}

#[test]
fn no_handler_and_a_silent_one_have_their_status() {
    let mut edge = Edge::new();
    let (client, id) = ask(&mut edge, "HEAD / HTTP/1.1\r\nHost: x.com\r\n\r\n");
    edge.hub(&FromHub::Refused(id.into()));
    let got = edge.got(client);
    assert!(got.starts_with("HTTP/1.1 503 ") && got.ends_with("\r\n\r\n"), "{got}");

    edge.told();
    let (client, id) = ask(&mut edge, "GET / HTTP/1.1\r\nHost: x.com\r\n\r\n");
    edge.advance(29_990);
    assert_eq!(edge.got(client), "");
    edge.advance(20);
    assert!(edge.got(client).starts_with("HTTP/1.1 504 "));
    answer(&mut edge, &id, "late");
    assert_eq!(edge.got(client), "");

    let client = edge.connect_to(Mode::Req);
    edge.send(client, format!("{POST}Content-Length: 2\r\n\r\na"));
    edge.advance(30_010);
    assert!(edge.got(client).starts_with("HTTP/1.1 408 "));
    edge.end();
}

#[test]
fn clients_that_leave_are_forgotten() {
    let mut edge = Edge::new();
    // In its body: nobody has it yet.
    let client = edge.connect_to(Mode::Req);
    edge.send(client, format!("{POST}Content-Length: 2\r\n\r\na"));
    edge.half_close(client);
    assert!(edge.is_closed(client));
    edge.told();
    // While it waits: it may only have closed its side, for a while.
    let (client, id) = ask(&mut edge, "GET / HTTP/1.1\r\nHost: x.com\r\n\r\n");
    edge.half_close(client);
    edge.advance(1_990);
    assert!(!edge.is_closed(client));
    edge.advance(20);
    assert!(edge.is_closed(client));
    assert_eq!(edge.told_kinds(), ["done "]);
    answer(&mut edge, &id, "late");
    assert_eq!(edge.told_kinds(), [""; 0]);
    let (client, id) = ask(&mut edge, "GET / HTTP/1.1\r\nHost: x.com\r\n\r\n");
    edge.half_close(client);
    answer(&mut edge, &id, "in time");
    assert!(edge.got(client).ends_with("in time"));
    assert!(edge.is_closed(client));
}

#[test]
fn a_slow_client_gets_its_whole_answer() {
    let mut edge = Edge::new();
    let (client, id) = ask(&mut edge, "GET / HTTP/1.1\r\nHost: x.com\r\n\r\n");
    edge.client(client).takes = Some(0);
    let body = "y".repeat(BODY_BYTES_MAX);
    answer(&mut edge, &id, &body);
    edge.send(client, "GET /next HTTP/1.1\r\nHost: x.com\r\n\r\n");
    let mut got = String::new();
    while !got.ends_with(&body) {
        assert_eq!(edge.told_kinds().iter().filter(|kind| *kind == "request ").count(), 0);
        edge.take(client, 7);
        got += &edge.got(client);
    }
    assert!(got.starts_with("HTTP/1.1 200 "));
    assert_eq!(edge.told_kinds(), ["request "]);
    edge.end();
}

#[test]
fn who_speaks_too_soon_is_not_heard() {
    let mut edge = Edge::new();
    let client = edge.connect_to(Mode::Req);
    edge.send(client, format!("{POST}Content-Length: 2\r\n\r\na"));
    answer(&mut edge, "3-0-1", "early");
    assert_eq!(edge.got(client), "");
    edge.send(client, "b");
    next(&mut edge);
    answer(&mut edge, "3-0-1", "now");
    assert!(edge.got(client).ends_with("now"));
    assert!(edge.sockets.peer(client).is_none());
    edge.end();
}

#[test]
fn a_malformed_answer_is_a_500() {
    let mut edge = Edge::new();
    let (client, id) = ask(&mut edge, "GET / HTTP/1.1\r\nHost: x.com\r\n\r\n");
    let map = format!("2:id,{}:{id},4:code,1:x,4:type,1:?,", id.len());
    let packet = format!("T{}:{map}}}", map.len());
    edge.malformed(Mode::Stream, "", packet.clone());
    assert_eq!(edge.got(client), "", "nobody speaks for the other mode");
    edge.malformed(Mode::Req, "", packet.clone());
    assert!(edge.got(client).starts_with("HTTP/1.1 500 "));
    // Before anybody was asked it means nothing.
    let client = edge.connect_to(Mode::Req);
    edge.send(client, format!("{POST}Content-Length: 2\r\n\r\na"));
    let packet = packet.replace(&id, "3-1-2");
    edge.malformed(Mode::Req, "", packet);
    assert_eq!(edge.got(client), "");
    edge.end();
}

#[test]
fn the_modes_do_not_hear_each_other() {
    let mut edge = Edge::new();
    let (client, id) = ask(&mut edge, "GET / HTTP/1.1\r\nHost: x.com\r\n\r\n");
    let (streams, mut session) = edge.get_next();
    session.id.clone_from(&id);
    session.answer(&mut edge, &[], "by stream", false);
    assert_eq!((edge.got(client), edge.told()), (String::new(), vec![]));
    answer(&mut edge, "3-1-2", "by req");
    assert_eq!((edge.got(streams), edge.told()), (String::new(), vec![]));
    answer(&mut edge, &id, "by req");
    assert!(edge.got(client).ends_with("by req"));
    edge.end();
}

#[test]
fn a_drain_lets_the_answer_through_and_ends_the_connection() {
    let mut edge = Edge::new();
    let (client, id) = ask(&mut edge, "GET / HTTP/1.1\r\nHost: x.com\r\n\r\n");
    edge.worker.drain(edge.now_ms, &mut edge.sockets);
    edge.turn();
    answer(&mut edge, &id, "the last");
    let got = edge.got(client);
    assert!(got.contains("Connection: close\r\n") && got.ends_with("the last"), "{got}");
    assert!(edge.is_shut(client));
    edge.end();
}

/// What is pipelined fills the room, so that the end cannot be read; the socket tells it all the same.
#[test]
fn an_end_behind_pipelined_requests_is_seen() {
    let mut edge = Edge::new();
    let client = edge.connect_to(Mode::Req);
    let request = "GET /1 HTTP/1.1\r\nHost: x.com\r\n\r\n";
    edge.send(client, request.repeat(BUFFER_BYTES as usize / request.len() + 3));
    let id = String::from_utf8(next(&mut edge).id.to_vec()).unwrap();
    edge.half_close(client);
    edge.advance(1_990);
    assert!(!edge.is_closed(client));
    // Whoever takes answers is there. What is left still fills the room.
    answer(&mut edge, &id, "one");
    assert!(edge.got(client).ends_with("one"));
    edge.advance(1_990);
    assert!(!edge.is_closed(client));
    edge.advance(20);
    assert!(edge.is_closed(client));
    edge.end();
}

/// Places in req mode are few (`--req-maxconn`).
#[test]
fn an_idle_connection_has_no_more_time_than_a_request() {
    let mut edge = Edge::new();
    let (idle, half) = (edge.connect_to(Mode::Req), edge.connect_to(Mode::Req));
    edge.send(half, "GET / HT");
    edge.advance(29_990);
    assert!(!edge.is_closed(idle));
    edge.advance(20);
    assert!(edge.is_closed(idle));
    assert!(edge.got(half).starts_with("HTTP/1.1 408 "));
    edge.end();
}
