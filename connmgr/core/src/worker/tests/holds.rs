//! Held connections: how they begin, what they get, how they end.

use std::sync::Arc;

use bytes::Bytes;
use zhttp::hold::{Change, ChangeLists, Event, EventList, Events, Format, HoldParams, Send};
use zhttp::{Cursor, Envelope, Id, Kind, Packet};

use super::{BACKLOG_BYTES_MAX, Edge, Session, lines};
use crate::hold::{Fed, Run};
use crate::hub::FromHub;
use crate::slab::Key;
use crate::worker::Mode;

const HEAD: [&str; 3] =
    ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked"];

/// How a handler takes the hold.
pub(super) fn params() -> HoldParams<'static> {
    HoldParams { context: b"u=7", notify: true, ..HoldParams::new(Format::Sse) }
}

fn hold_packet(
    session: &Session,
    params: &HoldParams<'_>,
    channels: &[(&str, Cursor)],
    headers: &[(&str, &str)],
) -> Bytes {
    let ids = [Id { id: session.id.as_bytes(), seq: Some(session.seq) }];
    let mut out = Vec::new();
    let from = session.from.as_bytes();
    Envelope { from, ids: &ids, kind: Kind::Data, multi: true }.write_ext(
        &mut out,
        |ext| params.write(ext, channels),
        |fields| {
            fields.int("code", 200);
            fields.headers(headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())));
            fields.bytes("body", b"retry: 500\n\n");
            // Means nothing here (H-13); set where a length is given, too, as it would matter there.
            fields.flag("more", !headers.is_empty());
        },
    );
    out.into()
}

const SSE: [(&str, &str); 2] = [("Content-Type", "text/event-stream"), ("Content-Length", "7")];

/// A held client of one channel, `o:a`, at its beginning.
pub(super) fn hold(edge: &mut Edge, params: &HoldParams<'_>) -> (Key, Session) {
    hold_channels(edge, params, &[("o:a", Cursor::new(5, 0))])
}

fn hold_channels(
    edge: &mut Edge,
    params: &HoldParams<'_>,
    channels: &[(&str, Cursor)],
) -> (Key, Session) {
    let (client, session) = edge.get_next();
    edge.packet(hold_packet(&session, params, channels, &SSE));
    assert_eq!(edge.got(client), lines(&HEAD, "c\r\nretry: 500\n\n\r\n"));
    assert_eq!(edge.told()[0].to, "done");
    (client, session)
}

/// Events of a channel in epoch 5, as the hub passes them on.
pub(super) fn fed(channel: &str, after: u64, data: &[&str], end: bool) -> FromHub {
    let list = EventList::default();
    let events = Events { channel, epoch: 5, after, prev: None, events: list };
    let mut out = Vec::new();
    zhttp::hold::write_packet(&mut out, b"f", Kind::Events, |fields| {
        let last = data.len();
        let event = |(index, data): (usize, &&'static str)| Event {
            data: data.as_bytes(),
            kind: "stream",
            end: end && index + 1 == last,
        };
        let data: Vec<&'static str> = data.iter().map(|data| leak(data)).collect();
        events.write(fields, data.iter().enumerate().map(event));
    });
    let bytes = Bytes::from(out);
    let packet = Packet::parse(&bytes).unwrap();
    let run = Run::new(channel.into(), &bytes, &Events::read(&packet).unwrap());
    FromHub::Fed(Fed::Events(Arc::new(run.unwrap())))
}

fn leak(text: &str) -> &'static str {
    Box::leak(text.into())
}

/// One event as a client gets it: a chunk.
fn chunk(offset: u64, data: &str) -> String {
    let event = format!("event: stream\nid: 5-{offset}\ndata: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len())
}

/// A packet of any handler about a held connection.
pub(super) fn about(
    session: &Session,
    kind: Kind,
    fill: impl FnOnce(&mut zhttp::Fields<'_, '_>),
) -> Bytes {
    let ids = [Id { id: session.id.as_bytes(), seq: None }];
    let mut out = Vec::new();
    Envelope { from: b"h9", ids: &ids, kind, multi: true }.write(&mut out, fill);
    out.into()
}

#[test]
fn a_hold_gets_its_events() {
    let mut edge = Edge::new();
    let (client, _) = hold(&mut edge, &params());
    assert_eq!((edge.worker.holds(), edge.worker.stats().holds), (1, 1));
    edge.hub(&fed("o:a", 0, &["one"], false));
    edge.hub(&fed("o:a", 1, &["two"], false));
    edge.hub(&fed("o:a", 1, &["two"], false));
    edge.hub(&fed("o:b", 0, &["other"], false));
    assert_eq!(edge.got(client), chunk(1, "one") + &chunk(2, "two"));
    edge.end();
}

#[test]
fn the_handler_of_a_hold_is_forgotten() {
    let mut edge = Edge::new();
    let (client, mut session) = hold(&mut edge, &params());
    // What it said before it knew, or out of habit.
    session.seq = 7;
    for kind in [Kind::KeepAlive, Kind::Credit] {
        session.say(&mut edge, kind);
    }
    edge.advance(1_000_000);
    assert!(!edge.is_closed(client), "nobody is waited for");
    let told = edge.told();
    assert!(told.iter().all(|told| told.to == "want"), "{told:?}");
    session.say(&mut edge, Kind::Data);
    assert_eq!(edge.told_kinds(), ["h1 cancel"], "it is no session");
    assert!(!edge.is_closed(client));
}

#[test]
fn silence_is_broken() {
    let mut edge = Edge::new();
    let (client, _) = hold(&mut edge, &HoldParams { keep_alive_ms: 15_000, ..params() });
    edge.advance(14_990);
    assert_eq!(edge.got(client), "");
    edge.advance(20);
    assert_eq!(edge.got(client), "3\r\n:\n\n\r\n");
    edge.advance(10_000);
    edge.hub(&fed("o:a", 0, &["one"], false));
    edge.got(client);
    edge.advance(14_000);
    assert_eq!(edge.got(client), "", "the event said it");
    edge.advance(1_500);
    assert_eq!(edge.got(client), "3\r\n:\n\n\r\n");
}

#[test]
fn a_hold_expires() {
    let mut edge = Edge::new();
    let (client, _) = hold(&mut edge, &HoldParams { expires_s: 10, ..params() });
    edge.advance(9_990);
    assert_eq!(edge.got(client), "");
    edge.advance(20);
    assert_eq!(edge.got(client), "0\r\n\r\n");
    let told = edge.told();
    let closed = told.iter().find(|told| told.to == "notify").unwrap();
    assert_eq!((&*closed.kind, &*closed.id), ("closed", "3-0-1"));
    // The connection carries another request.
    edge.send(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    edge.request().answer(&mut edge, &[], "x", false);
    assert!(edge.got(client).ends_with("\r\n\r\nx"));
    edge.end();
}

#[test]
fn the_end_of_all_channels_ends_the_hold() {
    let mut edge = Edge::new();
    let two = [("o:a", Cursor::new(5, 0)), ("o:b", Cursor::new(5, 0))];
    let (client, _) = hold_channels(&mut edge, &params(), &two);
    edge.hub(&fed("o:a", 0, &["last"], true));
    assert!(edge.got(client).contains("last"));
    edge.hub(&fed("o:b", 0, &["very last"], true));
    let got = edge.got(client);
    assert!(got.contains("very last") && got.ends_with("0\r\n\r\n"), "{got}");
    assert_eq!(edge.worker.holds(), 0);
    assert!(!edge.is_shut(client));
    edge.end();
}

#[test]
fn whoever_sent_something_meanwhile_is_not_taken_on() {
    let mut edge = Edge::new();
    let (client, session) = hold(&mut edge, &params());
    edge.send(client, "GET / HTTP/1.1\r\n");
    edge.packet(about(&session, Kind::Close, |_| {}));
    assert_eq!(edge.got(client), "0\r\n\r\n");
    assert!(edge.is_shut(client), "a part of it was dropped");

    let client = edge.connect_with("GET / HTTP/1.0\r\n\r\n");
    let session = Session { id: "3-1-2".into(), ..session };
    edge.packet(hold_packet(&session, &params(), &[], &SSE));
    edge.packet(about(&session, Kind::Close, |_| {}));
    assert!(edge.is_shut(client));
    assert!(edge.got(client).ends_with("\r\n\r\nretry: 500\n\n"));
}

#[test]
fn a_client_that_leaves_is_gone_at_once() {
    let mut edge = Edge::new();
    let (client, _) = hold(&mut edge, &params());
    edge.told();
    edge.half_close(client);
    assert!(edge.is_closed(client));
    assert!(edge.told_kinds().contains(&"notify closed".into()));

    let (client, _) = hold(&mut edge, &HoldParams { notify: false, ..params() });
    edge.half_close(client);
    assert!(edge.is_closed(client));
    assert!(!edge.told_kinds().contains(&"notify closed".into()));

    // It had closed its side before it was held.
    let (client, session) = edge.get_next();
    edge.half_close(client);
    edge.packet(hold_packet(&session, &params(), &[], &SSE));
    assert!(edge.is_closed(client));
    assert_eq!(edge.told_kinds(), ["done ", "notify closed"]);

    // A write fails in the moment in which it is held: no cancel, for the session is over.
    let (client, session) = edge.get_next();
    edge.sockets.is_broken = true;
    edge.packet(hold_packet(&session, &params(), &[], &SSE));
    assert!(edge.is_closed(client));
    assert_eq!(edge.told_kinds(), ["done ", "notify closed"]);
}

#[test]
fn a_hold_is_changed_by_anyone() {
    let mut edge = Edge::new();
    let (client, session) = hold(&mut edge, &params());
    let change = Change { context: Some(b"u=8"), expires_s: Some(100), ..Change::default() };
    edge.packet(about(&session, Kind::Hold, |fields| {
        let add = &[("o:b", Cursor::new(5, 0)).into()];
        change.write(fields, &ChangeLists { add, remove: &["o:a"], bodies: &[] });
    }));
    edge.hub(&fed("o:a", 0, &["one"], false));
    assert_eq!(edge.got(client), "");
    edge.hub(&fed("o:b", 0, &["two"], false));
    assert_eq!(edge.got(client), chunk(1, "two"));
    edge.advance(100_010);
    assert_eq!(edge.got(client), "0\r\n\r\n");
}

/// H-21: all of it or nothing.
#[test]
fn a_change_to_too_many_channels_is_refused() {
    let mut edge = Edge::new();
    let (client, session) = hold(&mut edge, &params());
    let names: Vec<String> = (0..128).map(|n| format!("o:{n}")).collect();
    let add: Vec<_> = names.iter().map(|name| (&**name, Cursor::new(5, 0)).into()).collect();
    let add_all = ChangeLists { add: &add, ..ChangeLists::default() };
    let change = Change { expires_s: Some(1), ..Change::default() };
    edge.packet(about(&session, Kind::Hold, |fields| change.write(fields, &add_all)));
    assert_eq!(edge.worker.poll_refusal().unwrap().from, b"h9");
    edge.advance(2_000);
    edge.hub(&fed("o:7", 0, &["no"], false));
    assert_eq!(edge.got(client), "");
    edge.packet(about(&session, Kind::Hold, |fields| {
        Change::default().write(fields, &ChangeLists { remove: &["o:a"], ..add_all });
    }));
    edge.hub(&fed("o:7", 0, &["yes"], false));
    assert!(edge.got(client).contains("yes"));
}

#[test]
fn handlers_write_to_held_clients() {
    let mut edge = Edge::new();
    let (client, session) = hold(&mut edge, &params());
    let send = |kind, body: &'static str| Send { kind, body: body.as_bytes() };
    edge.packet(about(&session, Kind::Send, |fields| send(None, "{}").write(fields)));
    edge.packet(about(&session, Kind::Send, |fields| send(Some("x"), "hi").write(fields)));
    let expected = "19\r\nevent: control\ndata: {}\n\n\r\n13\r\nevent: x\ndata: hi\n\n\r\n";
    assert_eq!(edge.got(client), expected);
    for evil in ["a\nevent: stream", "a\r", ""] {
        edge.packet(about(&session, Kind::Send, |fields| fields.bytes("body", evil.as_bytes())));
        assert_eq!(edge.got(client), "");
        assert!(edge.worker.poll_refusal().is_some());
    }
}

#[test]
fn a_slow_client_falls_behind_and_comes_back() {
    let mut edge = Edge::new();
    let (client, session) = hold(&mut edge, &params());
    edge.told();
    edge.client(client).takes = Some(0);
    let data = "x".repeat(200);
    for offset in 0..20 {
        edge.hub(&fed("o:a", offset, &[&data], false));
    }
    let key = edge.worker.connections.keys().next().unwrap();
    let waiting = edge.worker.connections[key.index].output.len();
    assert!((BACKLOG_BYTES_MAX..BACKLOG_BYTES_MAX + 300).contains(&waiting), "{waiting}");
    let send = Send { kind: None, body: b"{}" };
    edge.packet(about(&session, Kind::Send, |fields| send.write(fields)));
    assert_eq!(edge.worker.stats().sends_dropped, 1);
    edge.take(client, waiting - 1);
    assert_eq!(edge.told(), [], "it reads on when it has read all");
    edge.take(client, 100_000);
    let told = edge.told();
    assert!(told.iter().any(|told| told.kind.starts_with("Range")), "{told:?}");
    let got = edge.got(client);
    let seen = got.matches("event: stream").count() as u64;
    edge.hub(&fed("o:a", seen, &vec![&*data; 20 - seen as usize], false));
    let all = got + &edge.got(client);
    for offset in 1..=20 {
        assert_eq!(all.matches(&format!("id: 5-{offset}\n")).count(), 1, "event {offset}");
    }
}

#[test]
fn a_held_client_that_takes_nothing_is_given_up() {
    let mut edge = Edge::new();
    let (client, _) = hold(&mut edge, &params());
    edge.advance(10_000_000);
    assert!(!edge.is_closed(client), "nothing was there to take");
    edge.client(client).takes = Some(3);
    edge.hub(&fed("o:a", 0, &["one"], false));
    edge.advance(1_799_000);
    assert!(!edge.is_closed(client));
    edge.advance(1_100);
    assert!(edge.is_closed(client));
    edge.end();
}

#[test]
fn a_drain_sends_held_clients_away_in_order() {
    let mut edge = Edge::new();
    let (client, _) = hold(&mut edge, &params());
    let (late, session) = edge.get_next();
    edge.worker.drain(edge.now_ms, &mut edge.sockets);
    edge.turn();
    let got = edge.got(client);
    assert!(got.contains("server_draining") && got.ends_with("0\r\n\r\n"), "{got}");
    assert!(edge.is_shut(client));
    edge.packet(hold_packet(&session, &params(), &[], &SSE));
    let got = edge.got(late);
    assert!(got.contains("Connection: close") && got.ends_with("0\r\n\r\n"), "{got}");
    assert!(edge.is_shut(late));
    edge.end();
}

#[test]
fn what_cannot_be_held_is_not() {
    let mut edge = Edge::new();
    let (client, session) = edge.get();
    let ws = HoldParams { format: Format::Ws, ..params() };
    edge.packet(hold_packet(&session, &ws, &[], &[]));
    assert!(edge.got(client).starts_with("HTTP/1.1 500"), "no WebSocket, H-15");
    assert_eq!(edge.told_kinds(), ["h1 error", "done "]);

    // HEAD has no content that could go on.
    let client = edge.connect_with("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
    let session = edge.request();
    edge.packet(hold_packet(&session, &params(), &[], &SSE));
    assert!(edge.got(client).starts_with("HTTP/1.1 200 OK"));
    assert_eq!((edge.worker.holds(), edge.told_kinds()), (0, vec!["done ".to_owned()]));
    edge.send(client, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    edge.request();
    edge.end();
}

/// What it was to say can be said again; the reader's place is its cursor.
#[test]
fn a_hold_outlives_a_packet_that_is_not_understood() {
    let mut edge = Edge::new();
    let (client, session) = hold(&mut edge, &params());
    let map = format!("2:id,{}:{},4:type,4:what,", session.id.len(), session.id);
    edge.malformed(Mode::Stream, "h1", format!("T{}:{map}}}", map.len()));
    assert!(!edge.is_closed(client));
    assert_eq!(edge.worker.holds(), 1);
    assert!(edge.worker.poll_refusal().is_some(), "it is logged");
    edge.end();
}

/// Both were given the request, and one of them has the hold.
#[test]
fn who_answers_too_late_is_told_so() {
    let mut edge = Edge::new();
    let (client, session) = hold(&mut edge, &params());
    edge.told_kinds();
    edge.packet(hold_packet(&session, &params(), &[], &SSE));
    assert_eq!(edge.told_kinds(), ["h1 cancel"]);
    assert!(!edge.is_closed(client));
    assert!(edge.worker.poll_refusal().is_none());
    edge.packet(about(&session, Kind::Ping, |_| {}));
    let refusal = edge.worker.poll_refusal().unwrap();
    assert!(refusal.why.contains("takes no ping"), "{}", refusal.why);
    edge.end();
}
