//! What holds for any packet: what is written is read; no bytes, and no change to a good packet,
//! make a reader panic; no list goes on after an error.

#![allow(clippy::unwrap_used)]

mod support;

use proptest::prelude::*;
use proptest::sample::Index;
use support::vectors;
use zhttp::hold::{
    Change, ChangeLists, Closed, Event, Events, Feed, Format, Gap, GapReason, Heads, Hello,
    HoldChannel, HoldParams, Message, Range, Send, Unfeed,
};
use zhttp::{Cursor, Envelope, Fields, Id, Kind, Packet, Payload, fuzzing};

/// Writes a packet of one session and hands what was read to `check`.
fn round_trip(
    kind: Kind,
    write: impl FnOnce(&mut Fields<'_, '_>),
    check: impl FnOnce(Packet<'_>) -> Result<(), TestCaseError>,
) -> Result<(), TestCaseError> {
    let mut out = Vec::new();
    let ids = [Id { id: b"0-0-1", seq: Some(0) }];
    Envelope::new(b"edge", kind).about(&ids).write(&mut out, write);
    prop_assert_eq!(fuzzing::rewrite(&out), Ok(out.clone()), "the writers are canonical");
    let packet = Packet::parse(&out).unwrap();
    prop_assert_eq!((packet.from, packet.kind), (&b"edge"[..], kind));
    prop_assert!(packet.ids.eq(ids));
    check(packet)
}

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z0-9_-]{1,64}:[A-Za-z0-9_.:~-]{1,128}"
}

fn cursor() -> impl Strategy<Value = Cursor> {
    let any_event = (1..=u64::MAX, any::<u64>()).prop_map(|(e, o)| Cursor::new(e, o));
    prop_oneof![Just(Cursor::START), any_event]
}

/// A cursor that also fits an integer of the wire.
fn head() -> impl Strategy<Value = Cursor> {
    let numbers = (1..=i64::MAX as u64, 0..=i64::MAX as u64);
    prop_oneof![Just(Cursor::START), numbers.prop_map(|(e, o)| Cursor::new(e, o))]
}

fn borrow<T: Copy>(pairs: &[(String, T)]) -> Vec<(&str, T)> {
    pairs.iter().map(|(name, value)| (&name[..], *value)).collect()
}

fn hold_channels() -> impl Strategy<Value = Vec<(String, Cursor, bool)>> {
    prop::collection::vec((name(), cursor(), any::<bool>()), 0..5)
}

fn borrow_channels(channels: &[(String, Cursor, bool)]) -> Vec<HoldChannel<'_>> {
    let channel = |entry| {
        let (name, cursor, ended): &(String, Cursor, bool) = entry;
        HoldChannel { name, cursor: *cursor, ended: *ended }
    };
    channels.iter().map(channel).collect()
}

/// One line of text.
fn line() -> impl Strategy<Value = String> {
    "[^\r\n]{0,40}"
}

/// A close code that may be sent, or none.
fn close_code() -> impl Strategy<Value = u16> {
    prop_oneof![Just(0u16), 1000..=1003u16, 1007..=1014u16, 3000..=4999u16]
}

proptest! {
    #[test]
    fn ids(
        from in "[!-~]{1,64}",
        ids in prop::collection::vec(any::<(Vec<u8>, Option<u32>)>(), 0..128),
        multi: bool,
    ) {
        let ids: Vec<Id<'_>> = ids.iter().map(|(id, seq)| Id { id, seq: *seq }).collect();
        let envelope = Envelope { from: from.as_bytes(), ids: &ids, kind: Kind::KeepAlive, multi };
        let mut out = Vec::new();
        envelope.write(&mut out, |_| {});
        let packet = Packet::parse(&out).unwrap();
        prop_assert!(packet.ids.eq(ids));
        prop_assert_eq!((packet.from, packet.ext.multi), (from.as_bytes(), multi));
    }

    #[test]
    fn payloads(
        (method, uri, peer_address) in ("[A-Z]{1,8}", "[!-~]{1,40}", "[0-9a-f:.]{1,40}"),
        (code, peer_port, credits) in (1..=u16::MAX, 1..=u16::MAX, any::<u32>()),
        (reason, content_type, body) in any::<(Vec<u8>, Vec<u8>, Vec<u8>)>(),
        (more, stream, router_resp) in any::<(bool, bool, bool)>(),
        headers in prop::collection::vec(any::<(Vec<u8>, Vec<u8>)>(), 0..6),
    ) {
        let write = |fields: &mut Fields<'_, '_>| {
            let payload = Payload {
                method: Some(&method),
                uri: Some(&uri),
                code: Some(code),
                reason: &reason,
                condition: None,
                content_type: &content_type,
                body: &body,
                credits,
                more,
                stream,
                router_resp,
                peer_address: Some(&peer_address),
                peer_port: Some(peer_port),
                ..Payload::default()
            };
            payload.write(fields);
            // Last, and so not in the canonical place, but as good.
            fields.headers(headers.iter().map(|(name, value)| (&name[..], &value[..])));
        };
        let mut out = Vec::new();
        Envelope::new(b"h", Kind::Data).write(&mut out, write);
        let read = Packet::parse(&out).unwrap().payload().unwrap();
        prop_assert_eq!((read.method, read.uri), (Some(&method[..]), Some(&uri[..])));
        prop_assert_eq!((read.code, read.peer_port), (Some(code), Some(peer_port)));
        prop_assert_eq!((read.credits, read.reason), (credits, &reason[..]));
        prop_assert_eq!((read.content_type, read.body), (&content_type[..], &body[..]));
        prop_assert_eq!((read.more, read.stream, read.router_resp), (more, stream, router_resp));
        prop_assert_eq!((read.condition, read.peer_address), (None, Some(&peer_address[..])));
        let read = read.headers.map(|(name, value)| (name.to_vec(), value.to_vec()));
        prop_assert!(read.eq(headers));
    }

    #[test]
    fn holds(
        channels in hold_channels(),
        (keep_alive_ms, expires_s) in (0..1u64 << 63, 0..1u64 << 63),
        context in prop::collection::vec(any::<u8>(), 0..1024),
        (ws, notify, persistent) in any::<(bool, bool, bool)>(),
        (expires_code, messages) in (close_code(), "(/[ -~]{0,63})?"),
    ) {
        let hold = HoldParams {
            format: if ws { Format::Ws } else { Format::Sse },
            channels: Default::default(),
            keep_alive_ms,
            expires_s,
            expires_code,
            context: &context,
            notify,
            persistent,
            messages: if ws { &messages } else { "" },
        };
        let mut out = Vec::new();
        let write = |ext: &mut Fields<'_, '_>| hold.write_channels(ext, borrow_channels(&channels).into_iter());
        Envelope::new(b"h", Kind::Data).write_ext(&mut out, write, |_| {});
        let read = HoldParams::read(&Packet::parse(&out).unwrap()).unwrap().unwrap();
        prop_assert!(read.channels.eq(borrow_channels(&channels)));
        prop_assert_eq!(HoldParams { channels: Default::default(), ..read }, hold);
    }

    #[test]
    fn changes(
        add in hold_channels(),
        remove in prop::collection::vec(name(), 0..5),
        context in prop::option::of(prop::collection::vec(any::<u8>(), 0..1024)),
        (expires_s, expires_code) in prop::option::of((0..1u64 << 63, close_code())).prop_map(Option::unzip),
        (answers, bodies) in (prop::option::of(1..1u64 << 63), prop::collection::vec(".{0,20}", 0..4)),
    ) {
        let context = context.as_deref();
        let change = Change { context, expires_s, expires_code, answers, ..Change::default() };
        let remove: Vec<&str> = remove.iter().map(|name| &name[..]).collect();
        let bodies: Vec<&str> = bodies.iter().map(|body| &body[..]).collect();
        let add = borrow_channels(&add);
        let lists = ChangeLists { add: &add, remove: &remove, bodies: &bodies };
        let write = |fields: &mut Fields<'_, '_>| change.write(fields, &lists);
        round_trip(Kind::Hold, write, |packet| {
            let read = Change::read(&packet).unwrap();
            prop_assert!(read.add.eq(add.iter().copied()) && read.remove.eq(remove.iter().copied()));
            prop_assert!(read.bodies.eq(bodies.iter().copied()));
            prop_assert_eq!(
                Change {
                    add: Default::default(),
                    remove: Default::default(),
                    bodies: Default::default(),
                    ..read
                },
                change
            );
            Ok(())
        })?;
    }

    #[test]
    fn messages(
        (number, channels) in (1..1u64 << 63, 0..1u64 << 63),
        (path, context) in ("/[ -~]{0,63}", prop::collection::vec(any::<u8>(), 0..1024)),
        texts in prop::collection::vec(".{0,20}", 0..4),
        binaries in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..4),
    ) {
        let bodies = Default::default();
        let message = Message { path: &path, number, context: &context, channels, bodies };
        let texts = texts.iter().map(|text| (text.as_bytes(), false));
        let said: Vec<(&[u8], bool)> = texts.chain(binaries.iter().map(|body| (&body[..], true))).collect();
        let write = |fields: &mut Fields<'_, '_>| message.write(fields, said.iter().copied());
        round_trip(Kind::Message, write, |packet| {
            let read = Message::read(&packet).unwrap();
            prop_assert!(read.bodies.eq(said.iter().copied()));
            prop_assert_eq!(Message { bodies: Default::default(), ..read }, message);
            Ok(())
        })?;
    }

    #[test]
    fn sends(kind in prop::option::of("[^\r\n]{1,20}"), body in "[^\r\n]{1,40}") {
        let send = Send { kind: kind.as_deref(), body: body.as_bytes() };
        round_trip(Kind::Send, |fields| send.write(fields), |packet| {
            prop_assert_eq!(Send::read(&packet), Ok(send));
            Ok(())
        })?;
    }

    #[test]
    fn closed(context in prop::collection::vec(any::<u8>(), 0..1024)) {
        let closed = Closed { context: &context };
        round_trip(Kind::Closed, |fields| closed.write(fields), |packet| {
            prop_assert_eq!(Closed::read(&packet), Ok(closed));
            Ok(())
        })?;
    }

    #[test]
    fn hellos(
        (ttl_ms, incarnation) in (1..1u64 << 63, 0..1u64 << 63),
        (feeds, requests_max) in any::<(bool, u32)>(),
        serves in prop::collection::vec((".{0,8}", ".{0,30}"), 0..5),
    ) {
        let hello = Hello { ttl_ms, incarnation, feeds, serves: Default::default(), requests_max };
        let serves: Vec<(&str, &str)> = serves.iter().map(|(m, p)| (&m[..], &p[..])).collect();
        round_trip(Kind::Hello, |fields| hello.write(fields, &serves), |packet| {
            let read = Hello::read(&packet).unwrap();
            prop_assert!(read.serves.eq(serves.iter().copied()));
            prop_assert_eq!(Hello { serves: Default::default(), ..read }, hello);
            Ok(())
        })?;
    }

    #[test]
    fn feeds(
        feed in prop::collection::vec((name(), prop::option::of(cursor())), 0..5),
        heads in prop::collection::vec((name(), head()), 0..5),
    ) {
        let (feed, heads) = (borrow(&feed), borrow(&heads));
        round_trip(Kind::Feed, |fields| Feed::write(fields, feed.iter().copied()), |packet| {
            prop_assert!(Feed::read(&packet).unwrap().eq(feed.iter().copied()));
            Ok(())
        })?;
        let names = feed.iter().map(|&(name, _)| name);
        round_trip(Kind::Unfeed, |fields| Unfeed::write(fields, names.clone()), |packet| {
            prop_assert!(Unfeed::read(&packet).unwrap().eq(names.clone()));
            Ok(())
        })?;
        round_trip(Kind::Heads, |fields| Heads::write(fields, heads.iter().copied()), |packet| {
            prop_assert!(Heads::read(&packet).unwrap().eq(heads.iter().copied()));
            Ok(())
        })?;
    }

    #[test]
    fn ranges(channel in name(), after in cursor(), bytes in 0..1u64 << 63) {
        let range = Range { channel: &channel, after, bytes };
        round_trip(Kind::Range, |fields| range.write(fields), |packet| {
            prop_assert_eq!(Range::read(&packet), Ok(range));
            Ok(())
        })?;
    }

    #[test]
    fn runs_of_events(
        channel in name(),
        (epoch, after) in (2..1u64 << 63, 0..1u64 << 62),
        prev in prop::option::of(any::<Index>()),
        events in prop::collection::vec((line(), "[^\r\n]{1,10}", any::<bool>()), 0..6),
    ) {
        let prev = prev.map(|at| Cursor::new(1 + at.index(epoch as usize - 1) as u64, 3));
        let after = if prev.is_some() { 0 } else { after };
        let run = Events { channel: &channel, epoch, after, prev, events: Default::default() };
        let events: Vec<Event<'_>> = events
            .iter()
            .map(|(data, kind, end)| Event { data: data.as_bytes(), kind, end: *end })
            .collect();
        round_trip(Kind::Events, |fields| run.write(fields, events.iter().copied()), |packet| {
            let read = Events::read(&packet).unwrap();
            prop_assert!(read.events.eq(events.iter().copied()));
            prop_assert_eq!(Events { events: Default::default(), ..read }, run);
            Ok(())
        })?;
    }

    #[test]
    fn gaps(channel in name(), (a, b) in (cursor(), cursor()), trimmed: bool) {
        let (after, first) = (a.min(b), a.max(b));
        prop_assume!(after < first && first.offset > 0);
        let reason = if trimmed { GapReason::Trimmed } else { GapReason::Recreated };
        let gap = Gap { channel: &channel, after, first, reason };
        round_trip(Kind::Gap, |fields| gap.write(fields), |packet| {
            prop_assert_eq!(Gap::read(&packet), Ok(gap));
            Ok(())
        })?;
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes: Vec<u8>) {
        fuzzing::packet(&bytes);
        fuzzing::tnetstring(&bytes);
        fuzzing::composite(&bytes);
        // Bytes in a valid frame get further.
        let framed = [b"T", bytes.len().to_string().as_bytes(), b":", &bytes, b"}"].concat();
        fuzzing::packet(&framed);
        fuzzing::tnetstring(&framed[1..]);
    }

    #[test]
    fn no_text_makes_the_reader_of_composites_panic(
        text in "~AQA[ABC][A-Za-z0-9_-]{0,60}|.{0,40}",
    ) {
        fuzzing::composite(text.as_bytes());
    }
}

/// Each vector many times, with a few of its bytes replaced, so that its lengths still fit; and
/// with a few put in or taken out, so that they do not.
#[test]
fn no_change_to_a_packet_makes_a_reader_panic() {
    let files = ["packets", "hold", "malformed"];
    let packets: Vec<Vec<u8>> = files
        .iter()
        .flat_map(|file| vectors(file, "packet"))
        .map(|(_, packet, _)| packet)
        .collect();
    let mutation = (any::<Index>(), 0..4u8, any::<Index>());
    let mutations = prop::collection::vec(mutation, 1..4);
    let mut runner = proptest::test_runner::TestRunner::default();
    for packet in packets.iter().filter(|packet| !packet.is_empty() && packet.len() < 2048) {
        runner
            .run(&mutations, |mutations| {
                let mut packet = packet.clone();
                for (place, how, byte) in mutations {
                    mutate(&mut packet, place, how, byte);
                }
                fuzzing::packet(&packet);
                fuzzing::tnetstring(packet.strip_prefix(b"T").unwrap_or(&packet));
                Ok(())
            })
            .unwrap();
    }
}

fn mutate(packet: &mut Vec<u8>, place: Index, how: u8, byte: Index) {
    // What means something in a tnetstring, and a few others.
    const BYTES: &[u8] = b"0123456789:,#^!~]}T-\0\n\xff az";
    if packet.is_empty() {
        return;
    }
    let (place, byte) = (place.index(packet.len()), BYTES[byte.index(BYTES.len())]);
    match how {
        0 => packet.insert(place, byte),
        1 => drop(packet.remove(place)),
        2 => packet[place] = byte,
        _ => packet[place] = packet[place].wrapping_add(1),
    }
}
