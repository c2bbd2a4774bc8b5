//! WebSockets that are with a handler.

use zhttp::{Envelope, Fields, Id, Kind};

use super::{Edge, Key, Mode, Session, Told, config};
use crate::hub::FromHub;
use crate::websocket::{Close, Deflate, Mask, MessageKind, Pool, Received, Receiver, Role, Sender};

pub(super) const HANDSHAKE: &str = "GET /chat HTTP/1.1\r\nHost: x.com\r\nUpgrade: websocket\r\n\
                         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                         Sec-WebSocket-Version: 13\r\n";

const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

pub(super) const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                        Connection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

const MASK: Option<Mask> = Some(Mask::new([1, 2, 3, 4]));

/// A WebSocket that its handler has accepted with so many credits, and nothing was said.
fn open(edge: &mut Edge, credits: u64) -> (Key, Session) {
    open_with(edge, credits, |_| {})
}

fn open_with(
    edge: &mut Edge,
    credits: u64,
    ext: impl FnOnce(&mut Fields<'_, '_>),
) -> (Key, Session) {
    let client = edge.connect_with(format!("{HANDSHAKE}\r\n"));
    let mut session = edge.request();
    accept(edge, &mut session, ext, |fields| {
        fields.int("code", 101);
        fields.int("credits", credits);
    });
    assert_eq!(edge.got(client), format!("{SWITCHED}\r\n"));
    assert_eq!(edge.told_kinds(), Vec::<String>::new());
    (client, session)
}

pub(super) fn accept(
    edge: &mut Edge,
    session: &mut Session,
    ext: impl FnOnce(&mut Fields<'_, '_>),
    payload: impl FnOnce(&mut Fields<'_, '_>),
) {
    let ids = [Id { id: session.id.as_bytes(), seq: Some(session.seq) }];
    let mut out = Vec::new();
    let envelope = Envelope { from: b"h1", ids: &ids, kind: Kind::Data, multi: true };
    envelope.write_ext(&mut out, ext, payload);
    session.seq += 1;
    edge.packet(out);
}

impl Session {
    fn message(&mut self, edge: &mut Edge, (kind, body): (&str, &[u8]), more: bool) {
        let packet = self.packet(Kind::Data, |fields| {
            fields.bytes("content-type", kind.as_bytes());
            fields.bytes("body", body);
            fields.flag("more", more);
        });
        edge.packet(packet);
    }

    fn control(&mut self, edge: &mut Edge, kind: Kind, body: &str) {
        let packet = self.packet(kind, |fields| fields.bytes("body", body.as_bytes()));
        edge.packet(packet);
    }

    fn close(&mut self, edge: &mut Edge, code: u64, reason: &str) {
        let packet = self.packet(Kind::Close, |fields| {
            fields.int("code", code);
            fields.bytes("body", reason.as_bytes());
        });
        edge.packet(packet);
    }
}

/// The same with compression offered; the head of the answer.
fn open_compressed(edge: &mut Edge, credits: u64) -> (Key, Session, String) {
    let client = edge.connect_with(format!("{HANDSHAKE}{OFFER}\r\n"));
    let mut session = edge.request();
    accept(
        edge,
        &mut session,
        |_| {},
        |fields| {
            fields.int("code", 101);
            fields.int("credits", credits);
        },
    );
    let head = edge.got(client);
    edge.told();
    (client, session, head)
}

/// A message of a client that compresses.
pub(super) fn compressed(body: &[u8]) -> Vec<u8> {
    let deflate = Deflate::choose([&b"permessage-deflate"[..]].into_iter());
    let mut frame = Vec::new();
    let message = (MessageKind::Binary, body, true);
    Sender::new(deflate).message(&mut Pool::new(), message, MASK, &mut frame).unwrap();
    frame
}

/// Frames of a client.
pub(super) fn text(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let message = (MessageKind::Text, text.as_bytes(), true);
    Sender::new(None).message(&mut Pool::new(), message, MASK, &mut out).unwrap();
    out
}

pub(super) fn ping(payload: &str) -> Vec<u8> {
    let mut out = Vec::new();
    Sender::ping(payload.as_bytes(), MASK, &mut out);
    out
}

pub(super) fn pong(payload: &str) -> Vec<u8> {
    let mut out = Vec::new();
    Sender::pong(payload.as_bytes(), MASK, &mut out);
    out
}

pub(super) fn close(code: Option<u16>, reason: &str) -> Vec<u8> {
    let mut payload = Vec::new();
    if let Some(code) = code {
        payload.extend(code.to_be_bytes());
        payload.extend(reason.as_bytes());
    }
    let mut out = Vec::new();
    let close = Close::parse(&payload).unwrap();
    Sender::close(close.as_ref(), MASK, &mut out);
    out
}

/// What a client has got since the last time, in words.
pub(super) fn frames(edge: &mut Edge, client: Key) -> Vec<String> {
    let bytes = std::mem::take(&mut edge.client(client).got);
    let (mut receiver, mut pool) = (Receiver::new(Role::Client, true), Pool::new());
    let (mut rest, mut words) = (&bytes[..], Vec::new());
    while !rest.is_empty() {
        let mut out = Vec::new();
        let (used, received) = receiver.receive(&mut pool, rest, (&mut out, 1000)).unwrap();
        rest = &rest[used..];
        let body = String::from_utf8_lossy(&out).into_owned();
        words.push(match received {
            Received::Message { kind, end } => {
                format!("{kind:?} {body}{}", if end { "" } else { " …" })
            }
            Received::Ping => format!("ping {body}"),
            Received::Pong => format!("pong {body}"),
            Received::Close => match Close::parse(&out).unwrap() {
                Some(close) => format!("close {} {}", close.code.get(), close.reason),
                None => "close".to_owned(),
            },
            Received::Nothing => panic!("a frame that is not whole"),
        });
    }
    words
}

/// What handlers were told, in words.
fn said(edge: &mut Edge) -> Vec<String> {
    let word = |told: Told| {
        let body = String::from_utf8_lossy(&told.body).into_owned();
        let credits = if told.credits > 0 { told.credits.to_string() } else { String::new() };
        let more = if told.more { " …" } else { "" };
        format!("{} {} {body}{credits}{more}", told.to, told.kind).trim_end().to_owned()
    };
    edge.told().into_iter().map(word).collect()
}

#[test]
fn a_handshake_is_a_request_and_becomes_a_socket() {
    let mut edge = Edge::new();
    let client = edge.connect_with(format!("{HANDSHAKE}\r\n"));
    let super::ToHub::Request(pending) = edge.to_hub.pop_front().unwrap() else { panic!() };
    let packet = zhttp::Packet::parse(&pending.packet).unwrap();
    let payload = packet.payload().unwrap();
    assert_eq!(payload.uri, Some("ws://x.com/chat"));
    assert_eq!((payload.stream, payload.more, payload.router_resp), (false, false, true));
    assert_eq!(payload.credits, super::BUFFER_BYTES);
    let id = String::from_utf8(pending.id.to_vec()).unwrap();
    let mut session = Session { from: "h1".into(), id, seq: 0 };
    accept(
        &mut edge,
        &mut session,
        |_| {},
        |fields| {
            fields.int("code", 101);
            let headers = [(&b"Sec-WebSocket-Protocol"[..], &b"chat"[..]), (b"Upgrade", b"other")];
            fields.headers(headers.into_iter());
            fields.bytes("body", b"welcome");
        },
    );
    let head = format!("{SWITCHED}Sec-WebSocket-Protocol: chat\r\n\r\n");
    let got = edge.got(client);
    assert_eq!(got, format!("{head}\u{fffd}\u{7}welcome"));
    assert_eq!(said(&mut edge), ["h1 credit 7"]);
    // It has not said how much it takes: so much, and not a byte more.
    for _ in 0..90 {
        edge.send(client, text(&"x".repeat(100)));
    }
    let taken: usize = edge.told().iter().map(|told| told.body.len()).sum();
    assert_eq!(taken, 8192);
    edge.end();
}

#[test]
fn messages_go_both_ways_within_credits() {
    let mut edge = Edge::new();
    let (client, mut session) = open(&mut edge, 10);
    edge.send(client, [text("hello"), text("and more")].concat());
    assert_eq!(said(&mut edge), ["h1  hello", "h1  and m …"]);
    session.credit(&mut edge, 3);
    assert_eq!(said(&mut edge), ["h1  ore"]);
    session.message(&mut edge, ("text", b"one"), false);
    session.message(&mut edge, ("binary", b"tw"), true);
    session.message(&mut edge, ("binary", b"o"), false);
    assert_eq!(frames(&mut edge, client), ["Text one", "Binary tw …", "Binary o"]);
    assert_eq!(said(&mut edge), ["h1 credit 3", "h1 credit 2", "h1 credit 1"]);
    // What does not fit its credits is its end.
    edge.client(client).takes = Some(0);
    session.message(&mut edge, ("text", &[b'x'; 101]), false);
    edge.take(client, 1000);
    let invalid = "close 1011 The handler sent an invalid response";
    assert_eq!(frames(&mut edge, client), [invalid]);
    assert_eq!(said(&mut edge), ["h1 error", "done"]);
    assert!(edge.is_shut(client));
    edge.end();
}

#[test]
fn pings_are_answered_and_told_to_who_asked() {
    let mut edge = Edge::new();
    let (client, mut session) = open(&mut edge, 4);
    edge.send(client, [ping("a"), pong("b")].concat());
    assert_eq!(frames(&mut edge, client), ["pong a"]);
    assert_eq!(said(&mut edge), ["h1 pong b"]);
    session.control(&mut edge, Kind::Ping, "p");
    session.control(&mut edge, Kind::Pong, "q");
    assert_eq!(frames(&mut edge, client), ["ping p", "pong q"]);
    assert_eq!(said(&mut edge), ["h1 credit 1", "h1 credit 1"], "they cost what messages cost");
    let (client, _) = open_with(&mut edge, 4, |ext| ext.flag("ping", true));
    edge.send(client, [ping("abc"), ping("de"), ping("f")].concat());
    assert_eq!(frames(&mut edge, client), ["pong abc", "pong de", "pong f"]);
    assert_eq!(said(&mut edge), ["h1 ping abc", "h1 ping f"], "as far as it takes them");
    edge.end();
}

/// Who sends pings and takes no pongs must not grow.
#[test]
fn pings_wait_for_their_pongs_to_be_taken() {
    let mut edge = Edge::new();
    let (client, _) = open(&mut edge, 1);
    edge.client(client).takes = Some(0);
    for _ in 0..100 {
        edge.send(client, ping("0123456789"));
    }
    assert!(edge.worker.unsent_bytes(client) <= 112, "{}", edge.worker.unsent_bytes(client));
    for _ in 0..100 {
        edge.take(client, 12);
    }
    assert_eq!(frames(&mut edge, client).len(), 100);
    edge.end();
}

#[test]
fn a_client_closes() {
    let mut edge = Edge::new();
    let (client, mut session) = open(&mut edge, 9);
    edge.send(client, [text("last"), close(Some(3001), "bye"), text("too late")].concat());
    assert_eq!(said(&mut edge), ["h1  last", "h1 close bye"]);
    session.message(&mut edge, ("text", b"answer"), false);
    session.close(&mut edge, 3002, "well");
    assert_eq!(frames(&mut edge, client), ["Text answer", "close 3002 well"]);
    assert_eq!(said(&mut edge), ["h1 credit 6", "done"]);
    assert!(edge.is_shut(client));

    // A handler that says nothing does not keep it.
    for (said_code, answered) in [(Some(3001), "close 3001 "), (None, "close")] {
        let (client, _) = open(&mut edge, 9);
        edge.send(client, close(said_code, ""));
        edge.told();
        edge.advance(1990);
        assert_eq!(frames(&mut edge, client), Vec::<String>::new());
        edge.advance(20);
        assert_eq!(frames(&mut edge, client), [answered]);
        assert_eq!(said(&mut edge), ["done", "h1 cancel"]);
    }
    edge.end();
}

#[test]
fn a_handler_closes() {
    let mut edge = Edge::new();
    let (client, mut session) = open(&mut edge, 0);
    session.close(&mut edge, 1000, "enough");
    assert_eq!(frames(&mut edge, client), ["close 1000 enough"]);
    edge.send(client, [text("on its way"), ping("?"), close(Some(1000), "")].concat());
    assert_eq!(frames(&mut edge, client), Vec::<String>::new());
    assert_eq!(said(&mut edge), ["h1 close", "done"]);
    assert!(edge.is_shut(client));

    let (client, mut session) = open(&mut edge, 0);
    session.close(&mut edge, 1000, "");
    session.message(&mut edge, ("text", b"behind it"), false);
    assert_eq!(frames(&mut edge, client), ["close 1000 "]);
    edge.advance(2010);
    assert!(edge.is_shut(client), "it does not answer");
    assert_eq!(said(&mut edge), ["h1 credit 9", "done", "h1 cancel"]);
    edge.end();
}

/// What was written before the close is not cut off by it.
#[test]
fn a_slow_client_has_its_time_to_close_once_it_has_taken_all() {
    let mut edge = Edge::new();
    let (client, mut session) = open(&mut edge, 0);
    edge.client(client).takes = Some(0);
    session.message(&mut edge, ("text", b"the last"), false);
    session.close(&mut edge, 1000, "");
    edge.advance(30_000);
    assert!(!edge.is_closed(client) && !edge.is_shut(client));
    edge.take(client, 1000);
    assert_eq!(frames(&mut edge, client), ["Text the last", "close 1000 "]);
    edge.advance(1990);
    assert!(!edge.is_shut(client));
    edge.advance(20);
    assert!(edge.is_shut(client));
    edge.end();
}

/// A client that says that it closes, and sends nothing more, is answered.
#[test]
fn a_client_closes_and_half_closes() {
    let mut edge = Edge::new();
    let (client, mut session) = open(&mut edge, 9);
    edge.send(client, [text("last"), close(Some(1000), "")].concat());
    edge.half_close(client);
    assert_eq!(said(&mut edge), ["h1  last", "h1 close"]);
    session.message(&mut edge, ("text", b"answer"), false);
    session.close(&mut edge, 1000, "");
    assert_eq!(frames(&mut edge, client), ["Text answer", "close 1000 "]);
    assert_eq!(said(&mut edge), ["h1 credit 6", "done"]);
    assert!(edge.is_closed(client));
    edge.end();
}

/// What of a message was not passed on for want of credits waits for them, and for nothing else.
#[test]
fn the_end_of_a_compressed_message_waits_for_credits_alone() {
    for len in (64..1200).step_by(7) {
        for granted in [1, 63, 64, 100] {
            let mut edge = Edge::new();
            let (client, mut session, _) = open_compressed(&mut edge, granted);
            edge.send(client, compressed(&vec![b'a'; len]));
            let (mut got, mut is_whole) = (0, false);
            for _ in 0..=len {
                for told in edge.told() {
                    got += told.body.len();
                    is_whole |= !told.more;
                }
                if is_whole {
                    break;
                }
                session.credit(&mut edge, granted);
            }
            assert_eq!((got, is_whole), (len, true), "{len} bytes, {granted} credits");
            edge.end();
        }
    }
}

#[test]
fn a_stalled_handler_keeps_no_ping_from_its_answer() {
    let mut edge = Edge::new();
    let (client, _) = open(&mut edge, 100);
    edge.hub(&FromHub::Stalled(b"h1"[..].into()));
    edge.send(client, [ping("a"), text("waits"), ping("b")].concat());
    assert_eq!(frames(&mut edge, client), ["pong a"]);
    assert_eq!(said(&mut edge), Vec::<String>::new());
    edge.hub(&FromHub::Flowing(b"h1"[..].into()));
    assert_eq!(frames(&mut edge, client), ["pong b"]);
    assert_eq!(said(&mut edge), ["h1  waits"]);
    edge.end();
}

/// What its handler has to say to the messages before goes out first.
#[test]
fn a_client_that_breaks_the_protocol_is_told() {
    let mut edge = Edge::new();
    let (client, mut session) = open(&mut edge, 9);
    edge.send(client, [text("well"), b"\x83\x80".to_vec(), text("dropped")].concat());
    assert_eq!(said(&mut edge), ["h1  well", "h1 close opcode 3 is reserved"]);
    session.message(&mut edge, ("text", b"well"), false);
    session.close(&mut edge, 1000, "whatever it says");
    assert_eq!(frames(&mut edge, client), ["Text well", "close 1002 opcode 3 is reserved"]);
    assert_eq!(said(&mut edge), ["h1 credit 4", "done"]);
    assert!(edge.is_shut(client));

    let (client, _) = open(&mut edge, 9);
    edge.send(client, b"\x81\x81\0\0\0\0\xff");
    edge.told();
    edge.advance(2010);
    assert_eq!(frames(&mut edge, client), ["close 1007 text is not UTF-8"]);
    assert_eq!(said(&mut edge), ["done", "h1 cancel"]);

    let (client, mut session) = open(&mut edge, 9);
    session.close(&mut edge, 1000, "");
    edge.send(client, b"\x83\x80");
    assert_eq!(said(&mut edge), ["done", "h1 cancel"]);
    assert_eq!(frames(&mut edge, client), ["close 1000 "], "only one is said");
    assert!(edge.is_shut(client));
    edge.end();
}

#[test]
fn a_handler_may_refuse_a_handshake() {
    let mut edge = Edge::new();
    let client = edge.connect_with(format!("{HANDSHAKE}\r\n"));
    let mut session = edge.request();
    let packet = session.packet(Kind::Error, |fields| {
        fields.bytes("condition", b"rejected");
        fields.int("code", 403);
        fields.headers([(&b"X-Why"[..], &b"no"[..])].into_iter());
        fields.bytes("body", b"go away");
    });
    edge.packet(packet);
    assert_eq!(
        edge.got(client),
        "HTTP/1.1 403 Forbidden\r\nX-Why: no\r\nContent-Length: 7\r\nConnection: close\r\n\r\ngo away"
    );
    assert_eq!(said(&mut edge), ["done"]);
    assert!(edge.is_shut(client));
    edge.end();
}

#[test]
fn what_a_handler_may_not_say_ends_the_socket() {
    let faults: [fn(&mut Edge, &mut Session); 5] = [
        |edge, session| session.close(edge, 1005, ""),
        |edge, session| session.message(edge, ("text", b"\xff"), false),
        |edge, session| session.control(edge, Kind::Ping, &"x".repeat(126)),
        |edge, session| session.say(edge, Kind::HandoffProceed),
        |edge, session| {
            session.seq += 1;
            session.say(edge, Kind::KeepAlive);
        },
    ];
    for fault in faults {
        let mut edge = Edge::new();
        let (client, mut session) = open(&mut edge, 9);
        fault(&mut edge, &mut session);
        let close = "close 1011 The handler sent an invalid response";
        assert_eq!(frames(&mut edge, client), [close]);
        assert_eq!(said(&mut edge), ["h1 error", "done"]);
        assert_eq!(edge.worker.stats().bad_packets, 1);
        edge.end();
    }
    let mut edge = Edge::new();
    let client = edge.connect_with(format!("{HANDSHAKE}\r\n"));
    let mut session = edge.request();
    session.answer(&mut edge, &[], "no socket", false);
    assert!(edge.got(client).starts_with("HTTP/1.1 500"), "101 it must be");
    let (client, mut session) = edge.get_next();
    session.control(&mut edge, Kind::Ping, "");
    assert!(edge.got(client).starts_with("HTTP/1.1 500"), "what is no socket takes no ping");
    edge.end();
}

#[test]
fn a_handler_that_gives_up_ends_the_socket() {
    for kind in [Kind::Cancel, Kind::Error] {
        let mut edge = Edge::new();
        let (client, mut session) = open(&mut edge, 9);
        // What would refuse a handshake comes too late for that.
        let packet = session.packet(kind, |fields| {
            fields.bytes("condition", b"rejected");
            fields.int("code", 403);
        });
        edge.packet(packet);
        assert!(frames(&mut edge, client)[0].starts_with("close 1011 The handler"));
        assert_eq!(said(&mut edge), ["done"], "it knows");
        edge.end();
    }
    let mut edge = Edge::new();
    let (client, _) = open(&mut edge, 9);
    edge.advance(60_010);
    assert_eq!(frames(&mut edge, client), ["close 1011 The handler did not answer"]);
    assert_eq!(said(&mut edge), ["h1 keep-alive", "done", "h1 cancel"]);
    edge.end();
}

#[test]
fn a_client_that_leaves_is_told() {
    let mut edge = Edge::new();
    let (client, mut session) = open(&mut edge, 2);
    edge.send(client, text("more than it takes"));
    edge.half_close(client);
    assert_eq!(said(&mut edge), ["h1  mo …"]);
    assert!(!edge.is_closed(client), "what it sent has its turn");
    session.credit(&mut edge, 16);
    assert_eq!(said(&mut edge), ["h1  re than it takes", "done", "h1 cancel"]);
    assert!(edge.is_closed(client));

    let (client, _) = open(&mut edge, 2);
    edge.half_close(client);
    assert!(edge.is_closed(client));
    edge.end();
}

#[test]
fn a_drain_sends_sockets_away() {
    let mut edge = Edge::new();
    let (client, mut session) = open(&mut edge, 9);
    edge.worker.drain(edge.now_ms, &mut edge.sockets);
    edge.turn();
    assert_eq!(frames(&mut edge, client), ["close 1001 The server is stopping"]);
    session.message(&mut edge, ("text", b"on its way"), false);
    edge.send(client, close(Some(1001), ""));
    assert_eq!(said(&mut edge), ["h1 credit 10", "h1 close", "done"]);
    assert!(edge.is_shut(client));
    edge.end();

    // One that was accepted meanwhile goes too.
    let mut edge = Edge::new();
    let client = edge.connect_with(format!("{HANDSHAKE}\r\n"));
    let mut session = edge.request();
    edge.worker.drain(edge.now_ms, &mut edge.sockets);
    accept(
        &mut edge,
        &mut session,
        |_| {},
        |fields| {
            fields.int("code", 101);
            fields.bytes("body", b"hello");
        },
    );
    let head_len = SWITCHED.len() + 2;
    edge.client(client).got.drain(..head_len);
    let close = "close 1001 The server is stopping";
    assert_eq!(frames(&mut edge, client), ["Text hello", close]);
    edge.end();
}

#[test]
fn what_is_no_handshake_is_refused() {
    let mut edge = Edge::new();
    let client = edge.connect_with(format!("{HANDSHAKE}\r\n").replace(": 13", ": 8"));
    let got = edge.got(client);
    assert!(got.starts_with("HTTP/1.1 426 ") && got.contains("Sec-WebSocket-Version: 13"), "{got}");
    let client = edge.connect_with(format!("{HANDSHAKE}\r\n").replace("GET", "PUT"));
    assert!(edge.got(client).starts_with("HTTP/1.1 400 "));
    let client = edge.connect_to(Mode::Req);
    edge.send(client, format!("{HANDSHAKE}\r\n"));
    assert!(edge.got(client).ends_with("WebSocket is not served on a port in req mode"));
    assert_eq!(edge.told_kinds(), Vec::<String>::new());
    edge.end();
}

#[test]
fn a_socket_is_handed_over() {
    let mut edge = Edge::new();
    let (client, mut session) = open(&mut edge, 9);
    session.say(&mut edge, Kind::HandoffStart);
    assert_eq!(said(&mut edge), ["h1 handoff-proceed"]);
    edge.send(client, text("waits"));
    assert_eq!(said(&mut edge), Vec::<String>::new());
    session.from = "h2".into();
    session.say(&mut edge, Kind::KeepAlive);
    assert_eq!(said(&mut edge), ["h2  waits"]);
    edge.end();
}

#[test]
fn messages_are_compressed_if_that_was_agreed_upon() {
    for is_allowed in [true, false] {
        let mut edge = Edge::with(super::WorkerConfig { compression: is_allowed, ..config() });
        let (client, mut session, head) = open_compressed(&mut edge, 100);
        assert_eq!(head.contains("Sec-WebSocket-Extensions: permessage-deflate"), is_allowed);
        let long = "a".repeat(80);
        session.message(&mut edge, ("text", long.as_bytes()), false);
        assert_eq!(edge.client(client).got.len() < 20, is_allowed);
        assert_eq!(frames(&mut edge, client), [format!("Text {long}")]);
        edge.told();
        edge.send(client, compressed(long.as_bytes()));
        let told = if is_allowed { format!("h1  {long}") } else { "h1 close RSV1 is set".into() };
        assert_eq!(said(&mut edge), [told]);
        edge.end();
    }
}
