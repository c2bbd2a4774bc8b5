//! Answers, as clients get them; credits, as handlers get them back.

use zhttp::Kind;

use super::{BUFFER_BYTES, Edge, lines};

#[test]
fn a_whole_answer() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    session.answer(&mut edge, &[("X-A", "1"), ("Content-Length", "99")], "hello", false);
    let head = ["HTTP/1.1 200 OK", "X-A: 1", "Content-Length: 5"];
    assert_eq!(edge.got(client), lines(&head, "hello"));
    assert_eq!(edge.told_kinds(), ["done "], "no credits behind the end");
}

#[test]
fn an_answer_in_pieces() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    session.answer(&mut edge, &[], "", true);
    assert_eq!(edge.got(client), lines(&["HTTP/1.1 200 OK", "Transfer-Encoding: chunked"], ""));
    session.body(&mut edge, "hello", true);
    assert_eq!(edge.got(client), "5\r\nhello\r\n");
    session.body(&mut edge, "", true);
    assert_eq!(edge.got(client), "");
    session.body(&mut edge, "!", false);
    assert_eq!(edge.got(client), "1\r\n!\r\n0\r\n\r\n");
    let told = edge.told();
    let credits: Vec<_> = told.iter().map(|told| (told.to.as_str(), told.credits)).collect();
    assert_eq!(credits, [("h1", 5), ("done", 0)]);
    assert_eq!(told[0].seq, Some(1));
}

#[test]
fn a_length_that_was_given_is_kept_to() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    session.answer(&mut edge, &[("Content-Length", "3")], "a", true);
    session.body(&mut edge, "bc", false);
    assert_eq!(edge.got(client), lines(&["HTTP/1.1 200 OK", "Content-Length: 3"], "abc"));

    for (piece, more) in [("bcd", true), ("b", false)] {
        let (client, mut session) = edge.get_next();
        session.answer(&mut edge, &[("Content-Length", "3")], "a", true);
        edge.told();
        session.body(&mut edge, piece, more);
        assert!(edge.is_closed(client), "the client must see that this is wrong");
        assert_eq!(edge.told_kinds(), ["h1 error", "done "]);
    }
}

#[test]
fn what_has_no_content_gets_none() {
    let mut edge = Edge::new();
    let client = edge.connect_with("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    edge.request().answer(&mut edge, &[], "hello", false);
    assert_eq!(edge.got(client), lines(&["HTTP/1.1 200 OK", "Content-Length: 5"], ""));
    edge.told();
    edge.send(client, "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut session = edge.request();
    session.answer(&mut edge, &[], "hello", true);
    session.body(&mut edge, "more", false);
    assert_eq!(edge.got(client), lines(&["HTTP/1.1 200 OK"], ""));
    assert_eq!(edge.told()[0].credits, 5, "what is dropped is given back");

    let (client, mut session) = edge.get_next();
    session.answer_code(&mut edge, (204, &[("Content-Length", "5")]), "hello", false);
    assert_eq!(edge.got(client), lines(&["HTTP/1.1 204 No Content"], ""));
    edge.end();
}

#[test]
fn an_old_client_reads_to_the_end_of_the_connection() {
    let mut edge = Edge::new();
    let client = edge.connect_with("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let mut session = edge.request();
    session.answer(&mut edge, &[], "a", true);
    session.body(&mut edge, "b", false);
    assert_eq!(edge.got(client), lines(&["HTTP/1.1 200 OK", "Connection: close"], "ab"));
    assert!(edge.is_shut(client));
}

/// Condure 1.9.1 leaves bytes in its buffer for good when the handler has no credits left.
#[test]
fn a_slow_reader_gets_everything() {
    for step in [1, 7, 64] {
        let mut edge = Edge::new();
        let client = edge.connect();
        edge.client(client).takes = Some(0);
        edge.send(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        let mut session = edge.request();
        session.answer(&mut edge, &[("Content-Length", "1000")], "", true);
        let (mut sent, mut credits) = (0_u32, BUFFER_BYTES);
        for _ in 0..2_000 {
            let piece = credits.min(1_000 - sent);
            if piece > 0 {
                sent += piece;
                credits -= piece;
                session.body(&mut edge, "x".repeat(piece as usize), sent < 1_000);
            }
            edge.take(client, step);
            credits += edge.told().iter().map(|told| told.credits).sum::<u32>();
            assert!(credits <= BUFFER_BYTES, "no credit is given twice");
        }
        assert_eq!(sent, 1_000);
        assert!(edge.got(client).ends_with(&"x".repeat(1_000)));
        assert!(!edge.is_shut(client), "and the connection goes on");
        edge.end();
    }
}

#[test]
fn credits_come_back_as_the_client_reads() {
    let mut edge = Edge::new();
    let client = edge.connect();
    edge.client(client).takes = Some(1_000);
    edge.send(client, "GET / HTTP/1.0\r\n\r\n");
    let mut session = edge.request();
    session.answer(&mut edge, &[], "", true);
    edge.client(client).takes = Some(0);
    session.body(&mut edge, "x".repeat(100), true);
    assert_eq!(edge.told(), []);
    edge.take(client, 30);
    edge.take(client, 20);
    edge.take(client, 50);
    let credits: Vec<_> = edge.told().iter().map(|told| told.credits).collect();
    assert_eq!(credits, [30, 20, 50]);
}

#[test]
fn more_than_the_credits_allow_is_refused() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    session.answer(&mut edge, &[], &"x".repeat(101), false);
    assert!(edge.got(client).starts_with("HTTP/1.1 500"));
    assert_eq!(edge.told_kinds(), ["h1 error", "done "]);

    let (client, mut session) = edge.get_next();
    session.answer(&mut edge, &[], "", true);
    edge.client(client).takes = Some(0);
    session.body(&mut edge, "x".repeat(60), true);
    session.body(&mut edge, "x".repeat(41), true);
    assert!(edge.is_closed(client));
    assert_eq!(edge.told_kinds(), ["h1 error", "done "]);
}

#[test]
fn nothing_is_injected() {
    for head in [("X", "a\r\nSet-Cookie: b"), ("X\r\nY", "a"), ("Content-Length", "1, 2")] {
        let mut edge = Edge::new();
        let (client, mut session) = edge.get();
        session.answer(&mut edge, &[head], "x", false);
        let got = edge.got(client);
        assert!(got.starts_with("HTTP/1.1 500") && !got.contains("Cookie"), "{got}");
        let told = edge.told();
        assert_eq!((&*told[0].to, &*told[0].condition), ("h1", "bad-request"));
        let refusal = edge.worker.poll_refusal().unwrap();
        assert_eq!(refusal.from, b"h1");
    }
}

#[test]
fn an_answer_without_a_code_is_none() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    session.body(&mut edge, "x", false);
    assert!(edge.got(client).starts_with("HTTP/1.1 500"));
    assert_eq!(edge.told_kinds(), ["h1 error", "done "]);
}

#[test]
fn who_answers_need_not_be_who_was_asked() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    session.from = "responder".into();
    session.answer(&mut edge, &[], "x", true);
    session.from = "another".into();
    session.body(&mut edge, "y", true);
    let told = edge.told();
    let to: Vec<_> = told.iter().map(|told| &*told.to).collect();
    assert_eq!(to, ["responder", "another"], "credits go to whoever spoke last");
    assert!(edge.got(client).ends_with("1\r\ny\r\n"));
}

/// zhttp.md §9.
#[test]
fn a_session_changes_hands() {
    let mut edge = Edge::new();
    let client = edge.connect_with("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n");
    let mut session = edge.request();
    session.answer(&mut edge, &[], "a", true);
    session.credit(&mut edge, 10);
    edge.send(client, "12");
    edge.told();
    edge.client(client).takes = Some(0);
    session.body(&mut edge, "b", true);
    session.say(&mut edge, Kind::HandoffStart);
    let told = edge.told();
    assert_eq!((told.len(), &*told[0].kind, told[0].seq), (1, "handoff-proceed", Some(3)));
    edge.take(client, 100);
    edge.send(client, "34");
    assert_eq!(edge.told(), [], "nobody is there to be told");
    session.from = "h2".into();
    session.say(&mut edge, Kind::KeepAlive);
    let told = edge.told();
    let told: Vec<_> =
        told.iter().map(|told| (&*told.to, told.seq, told.credits, &*told.body)).collect();
    assert_eq!(told, [("h2", Some(4), 1, &b""[..]), ("h2", Some(5), 0, b"34")]);
    session.body(&mut edge, "c", false);
    assert!(edge.got(client).ends_with("1\r\nb\r\n1\r\nc\r\n0\r\n\r\n"));
}

#[test]
fn one_packet_may_speak_to_several_sessions() {
    let mut edge = Edge::new();
    let (one, first) = edge.get();
    let (two, second) = edge.get_next();
    let ids = [
        zhttp::Id { id: first.id.as_bytes(), seq: Some(0) },
        zhttp::Id { id: second.id.as_bytes(), seq: None },
        zhttp::Id { id: b"4-0-1", seq: None },
    ];
    let envelope = zhttp::Envelope { from: b"h", ids: &ids, kind: Kind::Data, multi: true };
    let mut out = Vec::new();
    envelope.write(&mut out, |fields| fields.int("code", 204));
    edge.packet(out);
    for client in [one, two] {
        assert_eq!(edge.got(client), lines(&["HTTP/1.1 204 No Content"], ""));
    }
    assert_eq!(edge.told_kinds(), ["done ", "done "], "another worker's id is that worker's");
}
