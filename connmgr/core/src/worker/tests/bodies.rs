//! Bodies of requests: they reach the handler whole, however they are cut and however few credits
//! there are.

use super::{BUFFER_BYTES, Edge, Session};
use crate::hub::FromHub;
use crate::slab::Key;

const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// What the handler has got of the body since the last time, and whether that is all. Checks that
/// no piece is larger than what it had credits for.
fn body(edge: &mut Edge, credits: &mut u32) -> (Vec<u8>, bool) {
    let (mut body, mut is_whole) = (Vec::new(), false);
    for told in edge.told() {
        if told.to == "h1" && told.kind.is_empty() {
            assert!(!is_whole, "nothing comes behind the end");
            *credits -= u32::try_from(told.body.len()).unwrap();
            is_whole = !told.more;
            body.extend(told.body);
        }
    }
    (body, is_whole)
}

/// Grants so many credits again and again until the body is whole.
fn receive(edge: &mut Edge, session: &mut Session, step: u32) -> Vec<u8> {
    let (mut whole, mut credits) = (Vec::new(), 0);
    for _ in 0..1_000 {
        let (piece, is_whole) = body(edge, &mut credits);
        whole.extend(piece);
        if is_whole {
            return whole;
        }
        if credits == 0 {
            credits += step;
            session.credit(edge, step.into());
        }
    }
    panic!("the body stalls behind {}", whole.escape_ascii());
}

/// Pushpin's connmgr loses track of a chunked body that is cut right behind the line with its size.
#[test]
fn a_body_may_be_cut_anywhere() {
    let chunked = format!("{CHUNKED}5\r\nhello\r\n7;x=y\r\n, world\r\n0\r\nT: x\r\n\r\n");
    let length = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\n\r\nhello, world".to_owned();
    for input in [&chunked, &length] {
        for cut in 0..=input.len() {
            for step in [1, 3, 100] {
                let mut edge = Edge::new();
                let client = edge.connect_with(&input[..cut]);
                let mut told = edge.told();
                edge.send(client, &input[cut..]);
                told.extend(edge.told());
                let mut session = Session { from: "h1".into(), id: told[0].id.clone(), seq: 0 };
                assert_eq!(receive(&mut edge, &mut session, step), b"hello, world");
                session.answer(&mut edge, &[], "x", false);
                assert!(!edge.is_shut(client), "the connection goes on");
            }
        }
    }
}

#[test]
fn a_body_may_come_byte_by_byte() {
    let mut edge = Edge::new();
    edge.read_bytes_max = 1;
    let client = edge.connect_with(CHUNKED);
    let mut session = edge.request();
    session.credit(&mut edge, 3);
    edge.send(client, "a\r\n0123456789\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut got = edge.told().iter().flat_map(|told| told.body.clone()).collect::<Vec<u8>>();
    assert_eq!(got, b"012");
    got.extend(receive(&mut edge, &mut session, 2));
    assert_eq!(got, b"0123456789");
    session.answer(&mut edge, &[], "", false);
    assert_eq!(edge.told_kinds(), ["done ", "request "]);
}

/// Far more than the edge reads ahead: it must stop reading, and go on.
#[test]
fn a_large_body_is_pushed_back() {
    for step in [7, 100, 1_000] {
        let mut edge = Edge::new();
        let sent: Vec<u8> = (0..50_000).map(|n: u32| n.to_le_bytes()[0]).collect();
        let client =
            edge.connect_with("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n");
        edge.send(client, &sent);
        assert!(edge.client(client).unread.len() >= 49_800, "no credits, nothing is read");
        let mut session = edge.request();
        let (mut got, mut credits) = (Vec::new(), 0);
        loop {
            let (piece, is_whole) = body(&mut edge, &mut credits);
            got.extend(piece);
            if is_whole {
                break;
            }
            if credits == 0 {
                credits += step;
                session.credit(&mut edge, step.into());
            } else {
                assert!(!edge.client(client).unread.is_empty() || got.len() == sent.len());
            }
        }
        assert_eq!(got, sent);
        edge.end();
    }
}

/// What came with the head may be more than a buffer, for heads are.
#[test]
fn no_piece_is_larger_than_a_buffer() {
    let mut edge = Edge::new();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 250\r\n\r\n";
    edge.connect_with(format!("{head}{}", "x".repeat(250)));
    let mut session = edge.request();
    session.credit(&mut edge, 1_000);
    let pieces: Vec<_> = edge.told().iter().map(|told| told.body.len()).collect();
    assert_eq!(pieces, [100, 100, 50]);
}

#[test]
fn nothing_is_sent_before_a_handler_is_known() {
    let mut edge = Edge::new();
    let client = edge.connect_with(format!("{CHUNKED}1\r\na\r\n0\r\n\r\n"));
    let mut session = edge.request();
    session.say(&mut edge, zhttp::Kind::KeepAlive);
    assert_eq!(edge.told(), []);
    session.credit(&mut edge, 1);
    let told = edge.told();
    let pieces: Vec<_> = told.iter().map(|told| (&*told.body, told.more)).collect();
    assert_eq!(pieces, [(&b"a"[..], true), (b"", false)], "the end costs no credits");
    assert_eq!(edge.client(client).unread.len(), 0);
}

#[test]
fn pieces_are_numbered() {
    let mut edge = Edge::new();
    let client = edge.connect_with("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab");
    let mut session = edge.request();
    session.credit(&mut edge, 100);
    edge.send(client, "cd");
    let told = edge.told();
    let seqs: Vec<_> = told.iter().map(|told| (told.seq.unwrap(), told.more)).collect();
    assert_eq!(seqs, [(1, true), (2, false)]);
}

#[test]
fn an_early_answer_ends_the_connection() {
    let mut edge = Edge::new();
    let client = edge.connect_with("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\nab");
    edge.request().answer_code(&mut edge, (413, &[]), "too large", false);
    let got = edge.got(client);
    assert!(got.starts_with("HTTP/1.1 413") && got.contains("Connection: close"), "{got}");
    assert!(edge.is_shut(client));
    edge.send(client, "c".repeat(5_000));
    assert!(edge.client(client).unread.is_empty(), "what still comes is read and dropped");
    edge.advance(1_990);
    assert!(!edge.is_closed(client));
    edge.advance(20);
    assert!(edge.is_closed(client));
    assert_eq!(edge.told_kinds(), ["done "]);
}

#[test]
fn a_broken_body_is_told() {
    let mut edge = Edge::new();
    let client = edge.connect_with(format!("{CHUNKED}xyz\r\n"));
    let mut session = edge.request();
    session.credit(&mut edge, 100);
    assert!(edge.got(client).starts_with("HTTP/1.1 400 Bad Request\r\n"));
    assert_eq!(edge.told_kinds(), ["done ", "h1 cancel"]);
    assert!(edge.is_shut(client));

    // Behind the head of an answer only the end of the connection can tell it.
    let client = edge.connect_with(CHUNKED);
    let mut session = edge.request();
    session.answer(&mut edge, &[], "x", true);
    session.credit(&mut edge, 100);
    edge.told();
    edge.send(client, "xyz\r\n");
    assert!(edge.is_closed(client));
    assert_eq!(edge.told_kinds(), ["done ", "h1 cancel"]);
}

/// A client that has begun to send a body of so many bytes, for which its handler has given credits.
fn upload(edge: &mut Edge, bytes: usize) -> (Key, Session) {
    edge.told();
    let head = format!("POST / HTTP/1.1\r\nHost: x.com\r\nContent-Length: {bytes}\r\n\r\n");
    let client = edge.connect_with(head);
    let mut session = edge.request();
    session.credit(edge, 1_000);
    (client, session)
}

fn stalled(edge: &mut Edge, handler: &str) {
    edge.hub(&FromHub::Stalled(handler.as_bytes().into()));
}

fn flowing(edge: &mut Edge, handler: &str) {
    edge.hub(&FromHub::Flowing(handler.as_bytes().into()));
}

/// The bytes of bodies that handlers were sent since the last time.
fn uploaded(edge: &mut Edge) -> Vec<u8> {
    edge.told().into_iter().flat_map(|told| told.body).collect()
}

#[test]
fn a_body_waits_with_its_client_while_its_handler_takes_nothing() {
    let mut edge = Edge::new();
    let (client, mut session) = upload(&mut edge, 1_000);
    stalled(&mut edge, "h1");
    let body: Vec<u8> = (0..1_000).map(|at| at as u8).collect();
    edge.send(client, &body);
    assert_eq!(uploaded(&mut edge), b"");
    assert_eq!(edge.client(client).unread.len(), 1_000 - BUFFER_BYTES as usize);
    session.credit(&mut edge, 1);
    assert_eq!(uploaded(&mut edge), b"", "a word of the handler is no room in its queue");
    flowing(&mut edge, "another");
    assert_eq!(uploaded(&mut edge), b"");
    flowing(&mut edge, "h1");
    assert_eq!(uploaded(&mut edge), body);
    session.answer(&mut edge, &[], "thanks", false);
    assert!(edge.got(client).ends_with("thanks"));
    edge.end();
}

#[test]
fn a_body_goes_on_with_another_handler() {
    let mut edge = Edge::new();
    let (client, mut session) = upload(&mut edge, 9);
    stalled(&mut edge, "h1");
    edge.send(client, "abc");
    session.from = "h2".into();
    session.say(&mut edge, zhttp::Kind::KeepAlive);
    assert_eq!(uploaded(&mut edge), b"abc");
    // Back again, and it stalls again: it is remembered again.
    flowing(&mut edge, "h1");
    stalled(&mut edge, "h1");
    session.from = "h1".into();
    session.say(&mut edge, zhttp::Kind::KeepAlive);
    edge.send(client, "def");
    assert_eq!(uploaded(&mut edge), b"");
    flowing(&mut edge, "h1");
    assert_eq!(uploaded(&mut edge), b"def");
    edge.end();
}

#[test]
fn a_session_whose_piece_was_dropped_is_over() {
    let mut edge = Edge::new();
    let (awaits, first) = upload(&mut edge, 9);
    let (reads, mut second) = upload(&mut edge, 9);
    second.answer(&mut edge, &[], "early", true);
    edge.told();
    for session in [first, second] {
        edge.hub(&FromHub::Undelivered(session.id.into()));
        assert_eq!(edge.told_kinds(), ["done ", "h1 cancel"]);
    }
    assert!(edge.got(awaits).starts_with("HTTP/1.1 503 "));
    assert!(edge.is_closed(reads));
    edge.end();
}
