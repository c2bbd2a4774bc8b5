//! What the edge answers by itself: nonsense, silence, and handlers that are not there.

use super::{Edge, config, lines};
use crate::hub::FromHub;
use crate::worker::Mode;

#[test]
fn each_fault_of_a_head_has_its_status() {
    let long = "x".repeat(100_000);
    for (request, status) in [
        ("GET / HTTP/1.1\nHost: a\n\n", 400),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n", 400),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        (&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414),
        ("GET / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\n\r\n", 417),
        (&format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"), 431),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
        ("GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505),
    ] {
        let mut edge = Edge::new();
        let client = edge.connect_with(request);
        let got = edge.got(client);
        assert!(got.starts_with(&format!("HTTP/1.1 {status} ")), "{got}");
        assert!(got.contains("\r\nConnection: close\r\n"), "{got}");
        // Whoever still sends gets the answer nonetheless.
        assert!(edge.is_shut(client) && !edge.is_closed(client));
        edge.send(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(edge.told(), []);
        edge.half_close(client);
        assert!(edge.is_closed(client));
        edge.end();
    }
}

#[test]
fn half_a_head_is_told_and_an_idle_connection_is_not() {
    let mut edge = Edge::new();
    let (idle, half) = (edge.connect(), edge.connect());
    edge.advance(30_000);
    edge.send(half, "GET / HTTP/1.1\r\nHo");
    edge.advance(30_000);
    assert!(edge.is_closed(idle));
    assert_eq!(edge.got(idle), "");
    edge.advance(29_990);
    assert_eq!(edge.got(half), "");
    edge.advance(20);
    assert!(edge.got(half).starts_with("HTTP/1.1 408 Request Timeout\r\n"));
    edge.advance(2_000);
    assert!(edge.is_closed(half));
    edge.end();
}

#[test]
fn no_handler_is_a_503() {
    let mut edge = Edge::new();
    let (client, session) = edge.get();
    edge.hub(&FromHub::Refused(session.id.clone().into()));
    let head = [
        "HTTP/1.1 503 Service Unavailable",
        "Content-Type: text/plain",
        "Content-Length: 23",
        "Retry-After: 1",
        "Connection: close",
    ];
    assert_eq!(edge.got(client), lines(&head, "No handler is available"));
    edge.hub(&FromHub::Refused(session.id.into()));
    edge.hub(&FromHub::Refused("nonsense".into()));
    assert_eq!(edge.got(client), "", "once is enough");
}

#[test]
fn a_handler_that_leaves_is_a_502_or_a_cut_answer() {
    let mut edge = Edge::new();
    let (client, session) = edge.get();
    edge.hub(&FromHub::HandlerLeft(session.id.into()));
    let got = edge.got(client);
    assert!(got.starts_with("HTTP/1.1 502") && got.contains("Retry-After: 0\r\n"), "{got}");

    edge.told();
    let (client, mut session) = edge.get_next();
    session.answer(&mut edge, &[], "a", true);
    edge.told();
    edge.hub(&FromHub::HandlerLeft(session.id.clone().into()));
    assert!(edge.is_closed(client));
    assert!(!edge.got(client).contains("0\r\n\r\n"), "no last chunk");
    assert_eq!(edge.told_kinds(), ["done "]);
}

#[test]
fn a_silent_handler_is_a_504() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    session.say(&mut edge, zhttp::Kind::KeepAlive);
    edge.advance(59_990);
    assert_eq!(edge.got(client), "");
    edge.advance(20);
    assert!(edge.got(client).starts_with("HTTP/1.1 504 Gateway Timeout\r\n"));
    assert_eq!(edge.told_kinds(), ["h1 keep-alive", "done ", "h1 cancel"]);

    // Whoever got the request but has not answered is known to the hub alone.
    let (client, _) = edge.get_next();
    edge.advance(60_010);
    assert!(edge.got(client).starts_with("HTTP/1.1 504"));
    assert_eq!(edge.told_kinds(), ["done cancel"]);

    let (client, mut session) = edge.get_next();
    session.answer(&mut edge, &[], "a", true);
    edge.advance(60_010);
    assert!(edge.is_closed(client));
}

#[test]
fn the_stream_timeout_is_heeded_however_short() {
    let mut config = config();
    config.timeouts.stream_ms = 500;
    let mut edge = Edge::with(config);
    let (client, mut session) = edge.get();
    session.answer(&mut edge, &[], "a", true);
    edge.advance(400);
    session.body(&mut edge, "b", true);
    edge.advance(490);
    assert!(!edge.is_closed(client), "the client took something");
    edge.told();
    edge.advance(20);
    assert!(edge.is_closed(client));
    assert_eq!(edge.told_kinds(), ["done ", "h1 cancel"]);
}

#[test]
fn who_is_waited_for_too_long_is_named() {
    let mut config = config();
    config.timeouts.stream_ms = 500;
    for (credits, status) in [(0, "504 Gateway Timeout"), (50, "408 Request Timeout")] {
        let mut edge = Edge::with(config.clone());
        let client = edge.connect();
        edge.send(client, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n");
        let mut session = edge.request();
        session.credit(&mut edge, credits);
        edge.told();
        edge.advance(490);
        session.say(&mut edge, zhttp::Kind::KeepAlive);
        edge.advance(20);
        assert!(edge.got(client).starts_with(&format!("HTTP/1.1 {status}\r\n")), "{credits}");
        assert_eq!(edge.told_kinds(), ["done ", "h1 cancel"]);
    }
}

#[test]
fn a_handler_may_refuse() {
    for kind in [zhttp::Kind::Cancel, zhttp::Kind::Error] {
        let mut edge = Edge::new();
        let (client, mut session) = edge.get();
        session.say(&mut edge, kind);
        assert!(edge.got(client).starts_with("HTTP/1.1 500"));
        assert_eq!(edge.told_kinds(), ["done "], "it knows");
        let (client, mut session) = edge.get_next();
        session.answer(&mut edge, &[], "a", true);
        edge.told();
        session.say(&mut edge, kind);
        assert!(edge.is_closed(client));
        assert_eq!(edge.told_kinds(), ["done "]);
    }
}

#[test]
fn a_lost_packet_ends_the_session() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    session.seq = 1;
    session.answer(&mut edge, &[], "a", false);
    assert!(edge.got(client).starts_with("HTTP/1.1 500"));
    assert_eq!(edge.told_kinds(), ["h1 error", "done "], "also one that was unknown until now");

    let (client, mut session) = edge.get_next();
    session.answer(&mut edge, &[], "a", true);
    edge.told();
    session.seq += 1;
    session.body(&mut edge, "c", true);
    assert!(edge.is_closed(client));
    assert_eq!(edge.told_kinds(), ["h1 error", "done "]);
    assert_eq!(edge.worker.stats().bad_packets, 2);
}

#[test]
fn what_has_no_place_ends_the_session() {
    use zhttp::Kind;
    for kind in [Kind::HandoffProceed, Kind::Close, Kind::Ping, Kind::Pong, Kind::Hold, Kind::Send]
    {
        let mut edge = Edge::new();
        let (client, mut session) = edge.get();
        session.say(&mut edge, kind);
        assert!(edge.got(client).starts_with("HTTP/1.1 500"), "{kind:?}");
        assert_eq!(edge.told_kinds(), ["h1 error", "done "]);
    }
}

/// A packet that is not understood ends the sessions that it names, whatever it was to say; and no other.
#[test]
fn a_packet_that_is_not_understood_ends_its_session() {
    let mut edge = Edge::new();
    let (other, mut other_session) = edge.get();
    other_session.answer(&mut edge, &[], "a", true);
    edge.got(other);
    for wrong in ["4:type,4:what,", "4:type,1:1#", "3:ext,1:x,", "3:seq,2:-1#", "4:code,1:x,"] {
        let (awaits, session) = edge.get_next();
        let (reads, mut streaming) = edge.get_next();
        streaming.answer(&mut edge, &[], "a", true);
        edge.told();
        for id in [session.id, streaming.id] {
            let map = format!("4:from,2:h1,2:id,{}:{id},{wrong}", id.len());
            let packet = format!("T{}:{map}}}", map.len());
            edge.malformed(Mode::Req, "h1", packet.clone());
            assert_eq!(edge.told(), [], "nobody speaks for the other mode");
            edge.malformed(Mode::Stream, "h1", packet);
            assert_eq!(edge.told_kinds(), ["h1 error", "done "], "{wrong}");
            let refusal = edge.worker.poll_refusal().unwrap();
            let (_, field) = wrong.split_once(':').unwrap();
            let field = field.split(',').next().unwrap();
            assert!(refusal.why.contains(&format!("field {field}")), "{refusal:?}");
            assert_eq!(edge.worker.poll_refusal().unwrap(), refusal, "each is logged");
        }
        assert!(edge.got(awaits).starts_with("HTTP/1.1 500"), "{wrong}");
        assert!(edge.is_closed(reads), "{wrong}");
    }
    other_session.body(&mut edge, "b", true);
    assert!(edge.got(other).contains('b'));
    edge.end();
}

/// RFC 9110 §9.3.2.
#[test]
fn no_answer_to_head_has_content() {
    let mut edge = Edge::new();
    let client = edge.connect_with("\r\nHEAD / HTTP/1.1\r\n\r\n");
    let got = edge.got(client);
    assert!(got.starts_with("HTTP/1.1 400 ") && got.ends_with("\r\n\r\n"), "{got}");
    edge.end();
}
