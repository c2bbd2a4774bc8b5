//! WebSockets that are held.

use zhttp::hold::{Change, ChangeLists, Format, HoldChannel, HoldParams, Send};
use zhttp::{Cursor, Kind};

use super::holds::{fed, params};
use super::sockets::{HANDSHAKE, SWITCHED, accept, close, frames, ping, pong, text};
use super::{BACKLOG_BYTES_MAX, Edge, Key, Session, WorkerConfig, config};
use crate::hold::Fed;
use crate::hub::FromHub;

/// A held WebSocket of these channels, each at its beginning.
pub(super) fn hold(edge: &mut Edge, params: &HoldParams<'_>, channels: &[&str]) -> (Key, Session) {
    hold_with(edge, params, channels, "")
}

pub(super) fn hold_with(
    edge: &mut Edge,
    params: &HoldParams<'_>,
    channels: &[&str],
    field: &str,
) -> (Key, Session) {
    edge.told();
    let client = edge.connect_with(format!("{HANDSHAKE}{field}\r\n"));
    let mut session = edge.request();
    let params = HoldParams { format: Format::Ws, ..*params };
    let channels: Vec<(&str, Cursor)> =
        channels.iter().map(|name| (*name, Cursor::new(5, 0))).collect();
    accept(
        edge,
        &mut session,
        |ext| params.write(ext, &channels),
        |fields| {
            fields.int("code", 101);
            fields.bytes("body", b"welcome");
        },
    );
    let got = String::from_utf8_lossy(&edge.client(client).got).into_owned();
    assert!(got.starts_with(SWITCHED), "{got}");
    let head_len = got.find("\r\n\r\n").unwrap() + 4;
    edge.client(client).got.drain(..head_len);
    assert_eq!(frames(edge, client), ["Text welcome"]);
    edge.told();
    (client, session)
}

/// Events of a channel in epoch 5, each with its id as data.
pub(super) fn events(channel: &str, after: u64, count: u64, end: bool) -> FromHub {
    let data: Vec<String> = (1..=count).map(|number| format!("\"5-{}\"", after + number)).collect();
    let data: Vec<&str> = data.iter().map(|data| &**data).collect();
    fed(channel, after, &data, end)
}

/// Where a channel ends.
pub(super) fn head(edge: &mut Edge, channel: &str, offset: u64) {
    edge.hub(&FromHub::Fed(Fed::Head(channel.into(), Cursor::new(5, offset))));
}

pub(super) fn event(channel: &str, offset: u64) -> String {
    format!(
        r#"Text {{"type":"event","channel":"{channel}","cursor":"5-{offset}","event":"stream","data":"5-{offset}"}}"#
    )
}

#[test]
fn events_are_messages_with_their_channel_and_cursor() {
    let mut edge = Edge::new();
    let (client, _) = hold(&mut edge, &params(), &["o:a", "o:b"]);
    let (other, _) = hold(&mut edge, &params(), &["o:a"]);
    head(&mut edge, "o:a", 0);
    head(&mut edge, "o:b", 0);
    edge.hub(&events("o:a", 0, 2, false));
    edge.hub(&events("o:b", 0, 1, false));
    let both = [event("a", 1), event("a", 2)];
    assert_eq!(frames(&mut edge, client), [&both[..], &[event("b", 1)]].concat());
    assert_eq!(frames(&mut edge, other), both);
    edge.end();
}

#[test]
fn compressed_events_are_the_same() {
    let mut edge = Edge::new();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let (plain, _) = hold(&mut edge, &params(), &["o:a"]);
    let (compressed, _) = hold_with(&mut edge, &params(), &["o:a"], offer);
    head(&mut edge, "o:a", 0);
    edge.hub(&events("o:a", 0, 1, false));
    let lens = [plain, compressed].map(|client| edge.client(client).got.len());
    assert!(lens[1] < lens[0], "{lens:?}");
    assert_eq!(frames(&mut edge, plain), [event("a", 1)]);
    assert_eq!(frames(&mut edge, compressed), [event("a", 1)]);
    edge.end();
}

#[test]
fn all_ends_end_it() {
    let mut edge = Edge::new();
    let (client, session) = hold(&mut edge, &params(), &["o:a"]);
    head(&mut edge, "o:a", 0);
    edge.told();
    edge.hub(&events("o:a", 0, 1, true));
    assert_eq!(frames(&mut edge, client), [event("a", 1), "close 1000 ".into()]);
    assert!(edge.is_shut(client));
    let told = edge.told();
    let closed = told.iter().find(|told| told.kind == "closed").unwrap();
    assert_eq!((&*closed.to, &*closed.id), ("notify", &*session.id));
    edge.send(client, close(Some(1000), ""));
    edge.half_close(client);
    assert!(edge.is_closed(client));
    edge.end();
}

#[test]
fn control_frames_are_answered() {
    let mut edge = Edge::new();
    let params = HoldParams { keep_alive_ms: 1000, ..params() };
    let (client, _) = hold(&mut edge, &params, &["o:a"]);
    edge.send(client, [ping("a"), pong("b"), ping("c")].concat());
    assert_eq!(frames(&mut edge, client), ["pong a", "pong c"]);
    edge.advance(1010);
    assert_eq!(frames(&mut edge, client), ["ping "]);
    for (sent, answer) in [
        (close(Some(3000), "bye"), "close 3000 "),
        (close(None, ""), "close"),
        (text("hello"), "close 1003 Messages are not taken here"),
        (b"\x83\x80".to_vec(), "close 1002 opcode 3 is reserved"),
    ] {
        let (client, _) = hold(&mut edge, &params, &["o:a"]);
        edge.send(client, [sent, ping("too late")].concat());
        assert_eq!(frames(&mut edge, client), [answer]);
        assert!(edge.is_shut(client));
    }
    edge.end();
}

/// Pongs count, as all does that waits for it: events stay behind its cursor until it has taken them.
#[test]
fn pongs_that_wait_make_it_fall_behind() {
    let config = WorkerConfig { buffer_bytes: 2_000, client_backlog_bytes_max: 300, ..config() };
    let mut edge = Edge::with(config);
    let (client, _) = hold(&mut edge, &params(), &["o:a"]);
    head(&mut edge, "o:a", 0);
    edge.client(client).takes = Some(0);
    for _ in 0..50 {
        edge.send(client, ping("0123456789"));
    }
    edge.hub(&events("o:a", 0, 1, false));
    assert!((301..=312).contains(&edge.worker.unsent_bytes(client)));
    edge.take(client, 100_000);
    edge.hub(&events("o:a", 0, 1, false));
    let got = frames(&mut edge, client);
    assert_eq!((got.len(), got.last()), (51, Some(&event("a", 1))));
    edge.end();
}

/// Its bytes are bounded, and it goes on from its cursor.
#[test]
fn a_slow_client_falls_behind() {
    let mut edge = Edge::new();
    let (client, _) = hold(&mut edge, &params(), &["o:a"]);
    head(&mut edge, "o:a", 0);
    edge.client(client).takes = Some(0);
    for after in 0..50 {
        edge.hub(&events("o:a", after, 1, false));
    }
    let unsent_bytes = edge.worker.unsent_bytes(client);
    assert!(unsent_bytes < BACKLOG_BYTES_MAX + 200, "{unsent_bytes}");
    edge.told();
    edge.take(client, 100_000);
    let got = frames(&mut edge, client);
    assert_eq!(got.last(), Some(&event("a", got.len() as u64)));
    assert_eq!(
        edge.told_kinds(),
        [format!("want Range(\"o:a\", {:?})", Cursor::new(5, got.len() as u64))]
    );
    edge.hub(&events("o:a", got.len() as u64, 50 - got.len() as u64, false));
    assert_eq!(frames(&mut edge, client).last(), Some(&event("a", 50)));
    edge.end();
}

#[test]
fn handlers_change_it_write_to_it_and_end_it() {
    let mut edge = Edge::new();
    let (client, mut session) = hold(&mut edge, &params(), &["o:a"]);
    head(&mut edge, "o:b", 0);
    let added: [HoldChannel<'_>; 1] = [("o:b", Cursor::new(5, 0)).into()];
    let lists = ChangeLists { add: &added, ..ChangeLists::default() };
    let packet = session.packet(Kind::Hold, |fields| Change::default().write(fields, &lists));
    edge.packet(packet);
    head(&mut edge, "o:b", 0);
    edge.hub(&events("o:b", 0, 1, false));
    let packet =
        session.packet(Kind::Send, |fields| Send { kind: None, body: b"{}" }.write(fields));
    edge.packet(packet);
    assert_eq!(frames(&mut edge, client), [event("b", 1), "Text {}".into()]);
    let packet = session.packet(Kind::Close, |fields| fields.int("code", 1005));
    edge.packet(packet);
    assert_eq!(edge.worker.stats().bad_packets, 1, "it stays");
    let packet = session.packet(Kind::Close, |fields| {
        fields.int("code", 3500);
        fields.bytes("body", b"enough");
    });
    edge.packet(packet);
    assert_eq!(frames(&mut edge, client), ["close 3500 enough"]);
    assert!(edge.is_shut(client));

    let expiring = HoldParams { expires_s: 2, ..params() };
    let (client, _) = hold(&mut edge, &expiring, &["o:a"]);
    edge.advance(2010);
    assert_eq!(frames(&mut edge, client), ["close 1000 "]);
    let (client, _) = hold(&mut edge, &params(), &["o:a"]);
    edge.worker.drain(edge.now_ms, &mut edge.sockets);
    edge.turn();
    assert_eq!(frames(&mut edge, client), ["close 1001 The server is stopping"]);
    edge.end();
}

#[test]
fn a_hold_of_another_format_is_refused() {
    let mut edge = Edge::new();
    let client = edge.connect_with(format!("{HANDSHAKE}\r\n"));
    let mut session = edge.request();
    let sse = params();
    accept(&mut edge, &mut session, |ext| sse.write(ext, &[]), |fields| fields.int("code", 101));
    assert!(edge.got(client).starts_with("HTTP/1.1 500"));
    edge.end();
}
