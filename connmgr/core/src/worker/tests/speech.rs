//! What the clients of held WebSockets say (hold.md §4.1).

use std::io::Write as _;

use crate::ShortText;
use zhttp::hold::{Change, ChangeLists, Format, HoldParams, Message};
use zhttp::{Cursor, Kind, Packet};

use super::held_sockets::{event, events, head, hold, hold_with};
use super::sockets::{close, compressed, frames, ping, text};
use super::{BACKLOG_BYTES_MAX, Edge, Key, Session, WorkerConfig, config};
use crate::hub::{Class, FromHub, Pending, ToHub};
use crate::websocket::{Mask, MessageKind, Pool, Sender};

/// Of a client that may speak, and is not sent away when its channels have ended.
fn params() -> HoldParams<'static> {
    HoldParams {
        context: b"u=7",
        persistent: true,
        messages: "/ws/",
        ..HoldParams::new(Format::Ws)
    }
}

/// A `message` that the hub was given.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    /// Its name there.
    name: String,
    id: String,
    number: u64,
    channels: u64,
    bodies: Vec<String>,
}

impl Edge {
    /// What has been said since the last time.
    fn said(&mut self) -> Vec<Said> {
        let pending = self.to_hub.drain(..).filter_map(|message| match message {
            ToHub::Request(pending) => Some(said(&pending)),
            ToHub::Done { .. } | ToHub::Want(_) => None,
            ToHub::Packet { .. } | ToHub::Notify { .. } => panic!("{message:?}"),
        });
        pending.collect()
    }

    /// Which of them need no answer any more.
    fn done(&mut self) -> Vec<String> {
        let told = self.told().into_iter().filter(|told| told.to == "done");
        told.map(|told| told.id).collect()
    }

    fn answer(&mut self, session: &mut Session, number: u64, bodies: &[&str]) {
        let lists = ChangeLists { bodies, ..ChangeLists::default() };
        self.answer_with(session, number, &lists);
    }

    fn answer_with(&mut self, session: &mut Session, number: u64, lists: &ChangeLists<'_>) {
        let change = Change { answers: Some(number), ..Change::default() };
        let packet = session.packet(Kind::Hold, |fields| change.write(fields, lists));
        self.packet(packet);
    }
}

fn said(pending: &Pending) -> Said {
    assert_eq!((pending.class, &*pending.method), (Class::Message, "MESSAGE"));
    let packet = Packet::parse(&pending.packet).unwrap();
    assert_eq!((packet.from, packet.kind), (&b"edge"[..], Kind::Message));
    let message = Message::read(&packet).unwrap();
    assert_eq!((message.path, &*pending.path, message.context), ("/ws/", "/ws/", &b"u=7"[..]));
    let id = { packet.ids }.next().unwrap();
    let body = |(body, binary): (&[u8], bool)| {
        let body = String::from_utf8_lossy(body).into_owned();
        if binary { format!("binary {body}") } else { body }
    };
    Said {
        name: String::from_utf8_lossy(&pending.id).into_owned(),
        id: String::from_utf8_lossy(id.id).into_owned(),
        number: message.number,
        channels: message.channels,
        bodies: message.bodies.map(body).collect(),
    }
}

/// A message in pieces.
fn pieces(pieces: &[&str]) -> Vec<u8> {
    let (mut out, mut pool, mut sender) = (Vec::new(), Pool::new(), Sender::new(None));
    for (index, piece) in pieces.iter().enumerate() {
        let message = (MessageKind::Binary, piece.as_bytes(), index + 1 == pieces.len());
        sender.message(&mut pool, message, Some(Mask::new([1, 2, 3, 4])), &mut out).unwrap();
    }
    out
}

#[test]
fn one_packet_is_out_at_a_time_and_the_next_has_all_that_waits() {
    let mut edge = Edge::new();
    let (client, mut session) = hold(&mut edge, &params(), &["o:a"]);
    edge.send(client, text("one"));
    edge.send(client, [text("two"), pieces(&["th", "", "ree"])].concat());
    let [first] = &edge.said()[..] else { panic!("one") };
    let (id, name) = (session.id.clone(), format!("{}/1", session.id));
    let bodies = vec!["one".to_owned()];
    assert_eq!(*first, Said { name, id, number: 1, channels: 1, bodies });
    edge.answer(&mut session, 1, &["done one", "and more"]);
    assert_eq!(frames(&mut edge, client), ["Text done one", "Text and more"]);
    let [second] = &edge.said()[..] else { panic!("one") };
    assert_eq!(
        (second.number, &second.bodies[..]),
        (2, &["two".into(), "binary three".into()][..])
    );
    edge.answer(&mut session, 2, &[]);
    assert_eq!(edge.done(), [format!("{}/2", session.id)]);
    assert_eq!(edge.said(), [], "nothing waits");
    edge.end();
}

#[test]
fn an_answer_changes_the_hold_and_comes_before_its_events() {
    let mut edge = Edge::new();
    let (client, mut session) = hold(&mut edge, &params(), &[]);
    edge.send(client, text("subscribe"));
    edge.told();
    let add = &[("o:a", Cursor::new(5, 0)).into()];
    let lists = ChangeLists { add, remove: &[], bodies: &["subscribed"] };
    edge.answer_with(&mut session, 1, &lists);
    head(&mut edge, "o:a", 0);
    edge.hub(&events("o:a", 0, 1, true));
    assert_eq!(frames(&mut edge, client), ["Text subscribed", &event("a", 1)]);
    assert!(!edge.is_shut(client), "it stays");
    edge.told();
    edge.send(client, text("unsubscribe"));
    assert_eq!(edge.said()[0].channels, 1);
    let lists = ChangeLists { remove: &["o:a"], bodies: &["unsubscribed"], add: &[] };
    edge.answer_with(&mut session, 2, &lists);
    edge.hub(&events("o:a", 1, 1, false));
    assert_eq!(frames(&mut edge, client), ["Text unsubscribed"]);
    edge.end();
}

/// H-93: what comes late, or answers something else, has no effect at all.
#[test]
fn the_first_answer_counts() {
    let mut edge = Edge::new();
    let (client, mut session) = hold(&mut edge, &params(), &[]);
    edge.answer(&mut session, 1, &["nobody has asked"]);
    edge.send(client, text("hello"));
    edge.answer(&mut session, 2, &["not yet"]);
    edge.told();
    edge.answer(&mut session, 1, &["first"]);
    edge.answer(&mut session, 1, &["late"]);
    assert_eq!(frames(&mut edge, client), ["Text first"]);
    assert_eq!(edge.done(), [format!("{}/1", session.id)]);
    edge.send(client, text("again"));
    edge.answer(&mut session, 1, &["very late"]);
    assert_eq!(frames(&mut edge, client), [""; 0]);
    assert_eq!(edge.worker.stats().bad_packets, 0, "that is nobody's fault");
    // What answers nothing is said all the same.
    let lists = ChangeLists { bodies: &["by the way"], ..ChangeLists::default() };
    let packet = session.packet(Kind::Hold, |fields| Change::default().write(fields, &lists));
    edge.packet(packet);
    assert_eq!(frames(&mut edge, client), ["Text by the way"]);
    edge.end();
}

/// H-95.
#[test]
fn an_answer_that_cannot_be_ends_it() {
    let mut edge = Edge::new();
    let (client, mut session) = hold(&mut edge, &params(), &["o:x"]);
    edge.send(client, text("hello"));
    let names: Vec<String> = (0..128).map(|n| format!("o:{n}")).collect();
    let add: Vec<_> = names.iter().map(|name| (&**name, Cursor::START).into()).collect();
    let lists = ChangeLists { add: &add, bodies: &["too many"], remove: &[] };
    edge.answer_with(&mut session, 1, &lists);
    assert_eq!(frames(&mut edge, client), ["close 1011 The handler sent an invalid answer"]);
    assert_eq!(edge.worker.stats().bad_packets, 1);
    assert!(edge.done().contains(&format!("{}/1", session.id)));
    edge.end();
}

#[test]
fn who_is_not_answered_is_told() {
    let mut edge = Edge::new();
    let unanswered = ["close 1013 Nobody has answered"];
    let (client, session) = hold(&mut edge, &params(), &[]);
    edge.send(client, text("hello"));
    edge.advance(59_900);
    assert_eq!(frames(&mut edge, client), [""; 0]);
    edge.advance(200);
    assert_eq!(frames(&mut edge, client), unanswered);
    assert!(edge.done().contains(&format!("{}/1", session.id)));
    type Refusal = fn(ShortText) -> FromHub;
    let refusals: [Refusal; 3] = [FromHub::Refused, FromHub::Unserved, FromHub::HandlerLeft];
    for refusal in refusals {
        let (client, session) = hold(&mut edge, &params(), &[]);
        edge.send(client, text("hello"));
        edge.hub(&refusal(format!("{}/2", session.id).into()));
        edge.hub(&refusal(session.id.clone().into()));
        assert_eq!(frames(&mut edge, client), [""; 0], "that is about something else");
        edge.hub(&refusal(format!("{}/1", session.id).into()));
        assert_eq!(frames(&mut edge, client), unanswered);
    }
    let (client, session) = hold(&mut edge, &params(), &[]);
    edge.hub(&FromHub::Undelivered(session.id.clone().into()));
    assert_eq!(frames(&mut edge, client), [""; 0], "nothing was under way");
    edge.send(client, text("hello"));
    edge.hub(&FromHub::Undelivered(session.id.clone().into()));
    assert_eq!(frames(&mut edge, client), unanswered);
    edge.end();
}

/// H-96.
#[test]
fn what_is_said_is_bounded() {
    let mut edge = Edge::with(WorkerConfig { buffer_bytes: 8_192, ..config() });
    let (client, mut session) = hold(&mut edge, &params(), &[]);
    let longest = "x".repeat(65_536);
    edge.send(client, text(&longest));
    assert_eq!(edge.said()[0].bodies, [&*longest]);
    // What waits behind it is read up to the bound; pings are answered as far.
    edge.send(client, [ping("a"), text(&longest), ping("b"), text("more")].concat());
    assert_eq!(frames(&mut edge, client), ["pong a"]);
    edge.answer(&mut session, 1, &[]);
    assert_eq!(frames(&mut edge, client), ["pong b"]);
    let bodies = edge.said().remove(0).bodies;
    assert_eq!(bodies.iter().map(String::len).collect::<Vec<_>>(), [65_536]);
    edge.answer(&mut session, 2, &[]);
    assert_eq!(edge.said()[0].bodies, ["more"]);

    let small = text("").repeat(300);
    edge.send(client, [small, ping("c")].concat());
    for (number, count, got) in [(4, 128, &[][..]), (5, 128, &["pong c"]), (6, 44, &[])] {
        edge.answer(&mut session, number - 1, &[]);
        let said = edge.said();
        assert_eq!((said.len(), said[0].number, said[0].bodies.len()), (1, number, count));
        assert_eq!(frames(&mut edge, client), got);
    }
    edge.answer(&mut session, 6, &[]);
    edge.send(client, text(&"x".repeat(65_537)));
    assert_eq!(frames(&mut edge, client), ["close 1009 The message is too long"]);
    edge.end();
}

/// A close is the last word: what was said before it is answered.
#[test]
fn a_close_waits_for_the_answers() {
    let mut edge = Edge::new();
    let (client, mut session) = hold(&mut edge, &params(), &[]);
    edge.send(client, [text("one"), text("two"), close(Some(1000), "")].concat());
    assert_eq!(edge.said()[0].bodies, ["one"]);
    edge.answer(&mut session, 1, &["done one"]);
    assert_eq!(edge.said()[0].bodies, ["two"]);
    assert_eq!(frames(&mut edge, client), ["Text done one"]);
    edge.answer(&mut session, 2, &["done two"]);
    assert_eq!(frames(&mut edge, client), ["Text done two", "close 1000 "]);
    assert!(edge.is_shut(client));
    edge.end();
}

/// H-94: an answer, but nothing else, passes the bound of what waits for a client.
#[test]
fn a_client_that_takes_nothing_gets_its_answer() {
    let mut edge = Edge::new();
    let (client, mut session) = hold(&mut edge, &params(), &["o:a"]);
    head(&mut edge, "o:a", 0);
    edge.send(client, text("hello"));
    edge.client(client).takes = Some(0);
    for after in 0..50 {
        edge.hub(&events("o:a", after, 1, false));
    }
    let before = edge.worker.unsent_bytes(client);
    assert!(before > BACKLOG_BYTES_MAX);
    let lists = ChangeLists { bodies: &["dropped"], ..ChangeLists::default() };
    let packet = session.packet(Kind::Hold, |fields| Change::default().write(fields, &lists));
    edge.packet(packet);
    assert_eq!((edge.worker.unsent_bytes(client), edge.worker.stats().sends_dropped), (before, 1));
    edge.answer(&mut session, 1, &["answer"]);
    assert_eq!(edge.worker.unsent_bytes(client), before + 2 + "answer".len());
    edge.told();
    edge.send(client, text("who takes nothing waits for itself"));
    assert_eq!(edge.said(), []);
    edge.take(client, 100_000);
    assert_eq!(frames(&mut edge, client).last().unwrap(), "Text answer");
    assert_eq!(edge.said().len(), 1);
    edge.end();
}

/// What an inflater has taken in and not given out needs no further byte.
#[test]
fn the_rest_of_a_compressed_message_is_not_waited_for() {
    let mut edge = Edge::new();
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let (client, mut session) = hold_with(&mut edge, &params(), &[], offer);
    // Bytes of eight and of nine bits, and repetitions of many lengths: so some end with the last bit of a byte.
    let shapes = (0..16).flat_map(|prefix| (101..200).map(move |len| (prefix, len)));
    for (number, (prefix, len)) in (1..).zip(shapes) {
        let mut body: Vec<u8> = (0..prefix).map(|byte| 200 + byte).collect();
        body.resize(len, b'x');
        edge.send(client, compressed_to_the_end(&body));
        assert_eq!(edge.said().len(), 1, "{prefix} {len}");
        edge.answer(&mut session, number, &[]);
    }
    edge.send(client, compressed(&[b'x'; 1000]));
    assert_eq!(edge.said().len(), 1);
    edge.end();
}

/// A binary message whose last block is marked so. Masked with zeros.
fn compressed_to_the_end(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(body).unwrap();
    let deflated = encoder.finish().unwrap();
    let mut frame = vec![0xc2, 0x80 | deflated.len() as u8, 0, 0, 0, 0];
    frame.extend(deflated);
    frame
}

/// H-94: so no more than one answer can pass the bound.
#[test]
fn while_a_client_takes_nothing_nothing_goes_out_for_it() {
    let mut edge = Edge::new();
    let (client, mut session) = hold(&mut edge, &params(), &["o:a"]);
    head(&mut edge, "o:a", 0);
    edge.send(client, [text("one"), text("two")].concat());
    edge.said();
    edge.client(client).takes = Some(0);
    for after in 0..50 {
        edge.hub(&events("o:a", after, 1, false));
    }
    edge.answer(&mut session, 1, &["done one"]);
    assert_eq!(edge.said(), []);
    edge.advance(100_000);
    assert!(!edge.is_shut(client), "that is its own fault");
    edge.take(client, 100_000);
    assert_eq!(edge.said()[0].bodies, ["two"]);
    edge.end();
}

/// H-96: who has closed its side is answered, as far as it takes that.
#[test]
fn the_end_of_what_is_sent_waits_for_the_answers() {
    let mut edge = Edge::new();
    let (client, mut session) = hold(&mut edge, &params(), &[]);
    edge.send(client, [text("one"), text("two")].concat());
    edge.half_close(client);
    edge.said();
    edge.answer(&mut session, 1, &["done one"]);
    assert_eq!(edge.said()[0].bodies, ["two"]);
    assert!(!edge.is_closed(client));
    edge.answer(&mut session, 2, &["done two"]);
    assert_eq!(frames(&mut edge, client), ["Text done one", "Text done two"]);
    assert!(edge.is_closed(client));

    let (client, mut session) = hold(&mut edge, &params(), &[]);
    edge.send(client, [text("one"), close(Some(3000), "")].concat());
    edge.half_close(client);
    edge.answer(&mut session, 1, &["done one"]);
    assert_eq!(frames(&mut edge, client), ["Text done one", "close 3000 "]);

    // It takes its answer slowly, and half a frame is no reason to wait for the other half.
    let (client, mut session) = hold(&mut edge, &params(), &[]);
    edge.client(client).takes = Some(5);
    edge.send(client, [&text("one"), &ping("half")[..7]].concat());
    edge.half_close(client);
    edge.answer(&mut session, 1, &["done one"]);
    assert!(!edge.is_closed(client));
    edge.take(client, 100);
    assert_eq!(frames(&mut edge, client), ["Text done one"]);
    assert!(edge.is_closed(client));
    edge.end();
}

#[test]
fn a_message_has_a_minute_to_become_whole() {
    let mut edge = Edge::new();
    let (client, mut session) = hold(&mut edge, &params(), &[]);
    let [begin, end] = [&pieces(&["on", "e"])[..8], &pieces(&["on", "e"])[8..]];
    edge.send(client, begin);
    edge.advance(59_900);
    edge.send(client, [end, begin].concat());
    assert_eq!(edge.said()[0].bodies, ["binary one"]);
    edge.advance(59_900);
    edge.answer(&mut session, 1, &[]);
    edge.advance(90);
    assert_eq!(frames(&mut edge, client), [""; 0], "its time began with it");
    edge.advance(20);
    assert_eq!(frames(&mut edge, client), ["close 1008 The message took too long"]);
    edge.end();
}

/// H-95.
#[test]
fn a_malformed_answer_ends_it() {
    let mut edge = Edge::new();
    let (client, mut session) = hold(&mut edge, &params(), &[]);
    edge.send(client, text("hello"));
    for (number, got) in [(2, &[][..]), (1, &["close 1011 The handler sent an invalid answer"])] {
        let packet = session.packet(Kind::Hold, |fields| {
            fields.int("answers", number);
            fields.int("bodies", 7);
        });
        edge.packet(packet);
        assert_eq!(frames(&mut edge, client), got);
    }
    assert_eq!(edge.worker.stats().bad_packets, 2);
    edge.end();
}

/// An edge that stops lets the answer that is under way through; what nobody has yet is not taken any more.
#[test]
fn a_drain_waits_for_the_answer() {
    let mut edge = Edge::new();
    let (client, mut session) = hold(&mut edge, &params(), &[]);
    edge.send(client, [text("one"), text("two")].concat());
    edge.worker.drain(edge.now_ms, &mut edge.sockets);
    edge.turn();
    assert_eq!(frames(&mut edge, client), [""; 0]);
    edge.said();
    edge.answer(&mut session, 1, &["done one"]);
    let got = frames(&mut edge, client);
    assert_eq!(got, ["Text done one", "close 1001 The server is stopping"]);
    assert_eq!(edge.said(), []);

    // Whom nobody answers until it stops is sent away all the same.
    let mut edge = Edge::new();
    let (client, _) = hold(&mut edge, &params(), &[]);
    edge.send(client, text("one"));
    edge.worker.drain(edge.now_ms, &mut edge.sockets);
    edge.worker.stop(edge.now_ms, &mut edge.sockets);
    edge.turn();
    assert_eq!(frames(&mut edge, client), ["close 1001 The server is stopping"]);
    assert!(edge.is_closed(client));
    edge.end();
}

#[test]
fn it_expires_with_the_code_of_its_handler() {
    let mut edge = Edge::new();
    let expiring = HoldParams { expires_s: 2, expires_code: 3502, ..params() };
    let (client, _) = hold(&mut edge, &expiring, &[]);
    edge.advance(2_010);
    assert_eq!(frames(&mut edge, client), ["close 3502 "]);

    let (client, mut session) = hold(&mut edge, &expiring, &[]);
    for (code, refused) in [(1005, 1), (3000, 1)] {
        let change = Change { expires_s: Some(9), expires_code: Some(code), ..Change::default() };
        let lists = ChangeLists::default();
        edge.packet(session.packet(Kind::Hold, |fields| change.write(fields, &lists)));
        assert_eq!(edge.worker.stats().bad_packets, refused, "{code}");
    }
    edge.advance(8_990);
    assert_eq!(frames(&mut edge, client), [""; 0]);
    edge.advance(20);
    assert_eq!(frames(&mut edge, client), ["close 3000 "]);
    edge.end();
}

#[test]
fn nothing_is_said_on_an_event_stream() {
    let mut edge = Edge::new();
    let (client, session) = super::holds::hold(&mut edge, &super::holds::params());
    edge.got(client);
    let lists = ChangeLists { bodies: &["no"], remove: &["o:a"], add: &[] };
    edge.packet(super::holds::about(&session, Kind::Hold, |fields| {
        Change::default().write(fields, &lists);
    }));
    assert_eq!((edge.got(client), edge.worker.stats().bad_packets), (String::new(), 1));
    edge.end();
}

/// The client of a connection that comes to the same place later is somebody else.
#[test]
fn who_leaves_needs_no_answer() {
    let mut edge = Edge::new();
    let (client, mut session): (Key, Session) = hold(&mut edge, &params(), &[]);
    edge.send(client, text("hello"));
    edge.told();
    edge.worker.handle_error(client);
    edge.turn();
    assert!(edge.is_closed(client));
    assert_eq!(edge.done(), [format!("{}/1", session.id)]);
    let (next, _) = hold(&mut edge, &params(), &[]);
    assert_eq!(next.index, client.index);
    edge.send(next, text("hello"));
    edge.answer(&mut session, 1, &["for somebody else"]);
    assert_eq!(frames(&mut edge, next), [""; 0]);
    edge.end();
}
