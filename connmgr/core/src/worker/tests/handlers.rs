//! What handlers are told besides requests: that sessions live, and that they do not.

use zhttp::{Envelope, Id, Kind, Packet};

use super::Edge;
use crate::hub::ToHub;

#[test]
fn sessions_are_kept_alive() {
    let mut edge = Edge::new();
    let (_, mut session) = edge.get();
    session.answer(&mut edge, &[], "", true);
    for _ in 0..45 {
        edge.advance(10_000);
        session.say(&mut edge, Kind::KeepAlive);
    }
    let told = edge.told();
    let seqs: Vec<_> = told.iter().map(|told| (&*told.kind, told.seq)).collect();
    let kept: Vec<_> = (1..=10).map(|seq| ("keep-alive", Some(seq))).collect();
    assert_eq!(seqs, kept, "once in 45 seconds");
    edge.end();
}

/// The kinds of the packets that a handler was sent since the last time, and how many sessions each was about.
fn packets(edge: &mut Edge, handler: &[u8]) -> Vec<(Kind, usize)> {
    let mut packets = Vec::new();
    for message in edge.to_hub.drain(..) {
        if let ToHub::Packet { to, packet } = message {
            let packet = Packet::parse(&packet).unwrap();
            assert_eq!(&*to, handler);
            packets.push((packet.kind, packet.ids.count()));
        }
    }
    packets
}

#[test]
fn handlers_are_told_of_many_sessions_at_once() {
    let mut edge = Edge::new();
    let mut clients = Vec::new();
    for _ in 0..300 {
        let (client, mut session) = edge.get_next();
        session.answer(&mut edge, &[], "", true);
        clients.push(client);
    }
    edge.to_hub.clear();
    edge.advance(45_000);
    let mut kept = packets(&mut edge, b"h1");
    kept.sort_unstable_by_key(|(_, count)| *count);
    assert_eq!(kept, [(Kind::KeepAlive, 44), (Kind::KeepAlive, 128), (Kind::KeepAlive, 128)]);
    for client in clients {
        edge.worker.handle_error(client);
    }
    edge.turn();
    let cancels = [(Kind::Cancel, 128), (Kind::Cancel, 128), (Kind::Cancel, 44)];
    assert_eq!(packets(&mut edge, b"h1"), cancels);
    edge.end();
}

#[test]
fn whoever_works_for_nobody_is_told_once_a_second() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    session.answer(&mut edge, &[], "a", true);
    edge.worker.handle_error(client);
    edge.turn();
    edge.told();
    session.body(&mut edge, "b", true);
    session.body(&mut edge, "c", true);
    let told = edge.told();
    assert_eq!((told.len(), &*told[0].to, &*told[0].kind), (1, "h1", "cancel"));
    assert_eq!((&*told[0].id, told[0].seq), (&*session.id, None));
    edge.advance(990);
    session.say(&mut edge, Kind::KeepAlive);
    assert_eq!(edge.told(), []);
    edge.advance(20);
    session.say(&mut edge, Kind::KeepAlive);
    assert_eq!(edge.told_kinds(), ["h1 cancel"]);
    edge.advance(2_000);
    for kind in [Kind::Cancel, Kind::Error] {
        session.say(&mut edge, kind);
        assert_eq!(edge.told(), [], "it has ended the session itself");
    }
    // Nobody can be told who does not say who he is.
    edge.advance(2_000);
    session.from = String::new();
    session.say(&mut edge, Kind::KeepAlive);
    assert_eq!(edge.told(), []);
}

#[test]
fn unknown_ids_are_answered_together() {
    let mut edge = Edge::new();
    let (_, session) = edge.get();
    let texts = ["3-0-99", session.id.as_str(), "3-7-1", "4-0-1", "x"];
    let ids = texts.map(|id| Id { id: id.as_bytes(), seq: None });
    let mut out = Vec::new();
    Envelope { from: b"h", ids: &ids, kind: Kind::KeepAlive, multi: true }.write(&mut out, |_| {});
    edge.packet(out);
    let Some(ToHub::Packet { to, packet }) = edge.to_hub.pop_front() else { panic!("a cancel") };
    assert_eq!(&*to, b"h");
    let packet = Packet::parse(&packet).unwrap();
    let told: Vec<_> = packet.ids.map(|id| id.id).collect();
    assert_eq!(told, [b"3-0-99", &b"3-7-1"[..]]);
    assert_eq!((packet.kind, packet.ext.multi), (Kind::Cancel, true));
    assert!(edge.to_hub.is_empty());
}

#[test]
fn the_place_of_a_connection_may_be_anothers() {
    let mut edge = Edge::new();
    let (first, mut stale) = edge.get();
    edge.worker.handle_error(first);
    edge.turn();
    edge.told();
    let (second, session) = edge.get();
    assert_eq!((first.index, &*session.id), (second.index, "3-0-2"));
    stale.answer(&mut edge, &[], "for another", false);
    assert_eq!(edge.got(second), "");
    assert_eq!(edge.told_kinds(), ["h1 cancel"]);
}

#[test]
fn a_packet_without_a_number_is_taken() {
    let mut edge = Edge::new();
    let (client, session) = edge.get();
    let ids = [Id { id: session.id.as_bytes(), seq: None }];
    for (code, more) in [(200, true), (0, false)] {
        let mut out = Vec::new();
        Envelope { from: b"h", ids: &ids, kind: Kind::Data, multi: false }.write(
            &mut out,
            |fields| {
                fields.int("code", code);
                fields.bytes("body", b"x");
                fields.flag("more", more);
            },
        );
        edge.packet(out);
    }
    assert!(edge.got(client).ends_with("1\r\nx\r\n1\r\nx\r\n0\r\n\r\n"));
}

#[test]
fn a_handler_without_a_name_can_answer() {
    let mut edge = Edge::new();
    let (client, mut session) = edge.get();
    session.from = String::new();
    session.answer(&mut edge, &[], "hello", false);
    assert!(edge.got(client).ends_with("hello"));
    assert_eq!(edge.told_kinds(), ["done "]);
}
