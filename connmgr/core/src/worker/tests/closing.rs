//! How connections end: clients that leave, or only close their side; the drain; the stop.

use super::{Edge, lines};

#[test]
fn a_client_that_leaves_is_told_to_its_handler() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    session.answer(&mut edge, &[], "a", true);
    edge.told();
    edge.worker.handle_error(client);
    edge.turn();
    let told = edge.told();
    assert_eq!((&*told[0].to, &*told[0].kind), ("done", ""));
    assert_eq!((&*told[1].to, &*told[1].kind, told[1].seq), ("h1", "cancel", Some(2)));

    // Nobody has answered yet: the hub knows who has it.
    let (client, session) = edge.get_next();
    edge.worker.handle_error(client);
    edge.turn();
    let told = edge.told();
    assert_eq!((&*told[0].to, &*told[0].kind, &*told[0].id), ("done", "cancel", &*session.id));
}

#[test]
fn a_write_that_fails_ends_the_connection() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    edge.sockets.is_broken = true;
    session.answer(&mut edge, &[], "a", true);
    assert!(edge.is_closed(client));
    assert_eq!(edge.told_kinds(), ["done ", "h1 cancel"]);
    edge.sockets.is_broken = false;
    let (client, mut session) = edge.get_next();
    edge.client(client).takes = Some(3);
    session.answer(&mut edge, &[], "a", true);
    edge.sockets.is_broken = true;
    edge.take(client, 1);
    assert!(edge.is_closed(client));
}

#[test]
fn a_half_close_is_held_until_the_answer() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    edge.half_close(client);
    edge.advance(1_990);
    session.answer(&mut edge, &[], "hello", false);
    assert!(edge.got(client).ends_with("hello"));
    assert!(edge.is_closed(client));
    assert_eq!(edge.told_kinds(), ["done "]);

    let (client, _) = edge.get_next();
    edge.half_close(client);
    edge.advance(2_010);
    assert!(edge.is_closed(client), "it has left");
    assert_eq!(edge.told_kinds(), ["done cancel"]);
}

#[test]
fn a_half_closed_client_that_reads_on_is_no_gone_one() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    edge.half_close(client);
    session.answer(&mut edge, &[], "", true);
    for _ in 0..10 {
        edge.advance(1_500);
        session.body(&mut edge, "x", true);
    }
    session.body(&mut edge, "", false);
    assert!(edge.got(client).ends_with("0\r\n\r\n"));
    assert!(edge.is_closed(client));
}

#[test]
fn pipelined_requests_of_a_half_closed_client_are_answered() {
    let mut edge = Edge::new();
    let client = edge.connect();
    edge.client(client).takes = Some(5);
    edge.send(client, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut first = edge.request();
    edge.half_close(client);
    first.answer(&mut edge, &[], "one", false);
    edge.told();
    edge.take(client, 1_000);
    edge.request().answer(&mut edge, &[], "two", false);
    let one = lines(&["HTTP/1.1 200 OK", "Content-Length: 3"], "one");
    assert_eq!(edge.got(client), one.clone() + &one.replace("one", "two"));
    assert!(edge.is_closed(client));

    // The second one is not whole, and never will be.
    let client = edge.connect();
    edge.client(client).takes = Some(5);
    edge.send(client, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2");
    edge.told();
    edge.half_close(client);
    let mut session = super::Session { from: "h1".into(), id: "3-0-3".into(), seq: 0 };
    session.answer(&mut edge, &[], "one", false);
    edge.take(client, 1_000);
    assert!(edge.is_closed(client));
    assert_eq!(edge.told_kinds(), ["done "]);
}

#[test]
fn a_client_that_leaves_in_its_body_is_gone() {
    let mut edge = Edge::new();
    let client = edge.connect_with("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab");
    let mut session = edge.request();
    session.credit(&mut edge, 100);
    edge.told();
    edge.half_close(client);
    assert!(edge.is_closed(client), "the rest will never come");
    assert_eq!(edge.told_kinds(), ["done ", "h1 cancel"]);

    // There is more than the edge reads ahead, so it cannot see the end of it.
    let client = edge.connect_with("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 900\r\n\r\n");
    let mut session = edge.request();
    edge.client(client).unread.extend([b'x'; 800]);
    edge.half_close(client);
    assert!(!edge.client(client).eof_is_read);
    edge.advance(1_990);
    session.credit(&mut edge, 100);
    edge.advance(1_990);
    assert!(!edge.is_closed(client), "its handler takes what it sent");
    edge.advance(20);
    assert!(edge.is_closed(client));
}

#[test]
fn an_end_without_a_request_is_no_news() {
    let mut edge = Edge::new();
    for sent in ["", "\r\n", "GET / HT"] {
        let client = edge.connect_with(sent);
        edge.half_close(client);
        assert!(edge.is_closed(client));
        assert_eq!(edge.got(client), "");
    }
    assert_eq!(edge.told(), []);
    edge.end();
}

#[test]
fn what_was_answered_is_sent_before_the_end() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    edge.client(client).takes = Some(10);
    session.answer(&mut edge, &[], "hello", false);
    edge.half_close(client);
    assert!(!edge.is_closed(client));
    edge.take(client, 1_000);
    assert!(edge.got(client).ends_with("hello"));
    assert!(edge.is_closed(client));

    let client = edge.connect_with("GET / HTTP/1.0\r\n\r\n");
    edge.client(client).takes = Some(10);
    edge.told();
    let mut session = super::Session { from: "h1".into(), id: "3-0-2".into(), seq: 0 };
    session.answer(&mut edge, &[], "hello", false);
    assert!(!edge.is_shut(client));
    edge.take(client, 1_000);
    assert!(edge.is_shut(client));
    edge.advance(2_010);
    assert!(edge.is_closed(client), "it lingers for two seconds, not for long");
}

#[test]
fn a_drain_lets_answers_through() {
    let mut edge = Edge::new();
    let (busy, mut session) = edge.get();
    let (idle, mut asked) = edge.get_next();
    asked.answer(&mut edge, &[], "x", false);
    edge.told();
    let (half, slow) = (edge.connect_with("GET / HT"), edge.connect());
    edge.client(slow).takes = Some(5);
    edge.send(slow, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    edge.request().answer(&mut edge, &[], "slow", false);
    edge.worker.drain(edge.now_ms, &mut edge.sockets);
    edge.turn();
    edge.told();
    assert!(edge.is_closed(idle));
    assert!(!edge.is_shut(busy) && !edge.is_shut(half) && !edge.is_shut(slow));
    session.answer(&mut edge, &[], "x", false);
    assert!(edge.got(busy).contains("Connection: close"));
    assert!(edge.is_shut(busy));
    edge.take(slow, 1_000);
    assert!(edge.got(slow).ends_with("slow") && edge.is_shut(slow));
    edge.told();
    edge.send(half, "TP/1.1\r\nHost: a\r\n\r\n");
    edge.request().answer(&mut edge, &[], "x", false);
    assert!(edge.got(half).contains("Connection: close"));
    edge.end();
}

#[test]
fn a_drain_waits_a_little_for_the_first_request() {
    let mut edge = Edge::new();
    let (quick, silent) = (edge.connect(), edge.connect());
    edge.worker.drain(edge.now_ms, &mut edge.sockets);
    edge.turn();
    let late = edge.connect();
    edge.advance(490);
    assert!(!edge.is_closed(silent) && !edge.is_closed(late));
    for client in [quick, late] {
        edge.send(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        edge.request().answer(&mut edge, &[], "x", false);
        assert!(edge.got(client).contains("Connection: close"));
        assert!(edge.is_shut(client));
        edge.told();
    }
    edge.advance(20);
    assert!(edge.is_closed(silent));
    edge.end();
}

#[test]
fn a_drain_looks_at_everybody_but_not_at_once() {
    let mut edge = Edge::new();
    let clients: Vec<_> = (0..600).map(|_| edge.get_next()).collect();
    for (_, mut session) in clients.clone() {
        session.answer(&mut edge, &[], "x", false);
    }
    edge.worker.drain(edge.now_ms, &mut edge.sockets);
    assert!(edge.worker.handle_work(edge.now_ms, &mut edge.sockets, 0), "two turns are not enough");
    assert!(!edge.worker.handle_work(edge.now_ms, &mut edge.sockets, 0), "three are");
    edge.turn();
    assert!(clients.iter().all(|(client, _)| edge.is_closed(*client)));
    edge.end();
}

#[test]
fn a_stop_tells_every_handler() {
    let mut edge = Edge::new();
    let (one, mut session) = edge.get();
    session.answer(&mut edge, &[], "a", true);
    edge.told();
    let (two, _) = edge.get();
    edge.worker.stop(edge.now_ms, &mut edge.sockets);
    edge.turn();
    assert!(edge.is_closed(one) && edge.is_closed(two));
    assert_eq!(edge.told_kinds(), ["done ", "done cancel", "h1 cancel"]);
    assert!(edge.got(two).starts_with("HTTP/1.1 503 "), "as far as the socket takes it");
    assert!(!edge.got(one).contains("0\r\n\r\n"), "what is cut looks cut");
    assert_eq!(edge.worker.stats().closed[super::super::CloseReason::Drained as usize], 2);
    edge.end();
}

/// A request that was pipelined begins when its client has half-closed long ago, which cannot be read yet.
#[test]
fn a_pipelined_request_of_a_client_that_has_left_is_given_up() {
    let mut edge = Edge::new();
    let request = "GET / HTTP/1.1\r\nHost: x.com\r\n\r\n";
    let client = edge.connect_with(request.repeat(7));
    let mut session = edge.request();
    edge.half_close(client);
    edge.advance(1_000);
    session.answer(&mut edge, &[], "one", false);
    assert!(edge.told_kinds().contains(&"request ".into()));
    edge.advance(1_990);
    assert!(!edge.is_closed(client));
    edge.advance(20);
    assert!(edge.is_closed(client));
    edge.end();
}
