//! Packets of handlers that are right, of every kind: what mutations are made of.

use zhttp::hold::{
    Change, ChangeLists, Event, EventList, Events, Format, Gap, GapReason, Heads, Hello,
    HoldParams, Send, Serves,
};
use zhttp::{Cursor, Envelope, Fields, IDS_MAX, Id, Kind};

const CHANNEL: &str = "acme:victims";
const EPOCH: u64 = 1_736_467_200_000;

/// Packets of every kind about these sessions, from one handler.
pub fn good_packets(from: &str, sessions: &[String]) -> Vec<Vec<u8>> {
    let ids: Vec<Id<'_>> =
        sessions.iter().map(|id| Id { id: id.as_bytes(), seq: Some(0) }).collect();
    let many: Vec<Id<'_>> = ids.iter().copied().cycle().take(IDS_MAX).collect();
    let from = from.as_bytes();
    let mut packets = Vec::new();
    for ids in [&ids[..], &many] {
        let envelope = Envelope { from, ids, kind: Kind::KeepAlive, multi: true };
        packets.push(written(envelope));
    }
    for (index, id) in ids.into_iter().enumerate() {
        let ids = [Id { seq: index.is_multiple_of(2).then_some(0), ..id }];
        for &kind in Kind::ALL {
            packets.push(written(Envelope { from, ids: &ids, kind, multi: true }));
        }
        packets.push(hold(Envelope { from, ids: &ids, kind: Kind::Data, multi: false }));
    }
    packets
}

fn written(envelope: Envelope<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    envelope.write(&mut out, |fields| fill(envelope.kind, fields));
    out
}

/// A response that becomes a hold.
fn hold(envelope: Envelope<'_>) -> Vec<u8> {
    let params = HoldParams {
        keep_alive_ms: 50,
        expires_s: 60,
        context: b"user=7",
        notify: true,
        ..HoldParams::new(Format::Sse)
    };
    let mut out = Vec::new();
    envelope.write_ext(
        &mut out,
        |ext| params.write(ext, &[(CHANNEL, Cursor::new(EPOCH, 0))]),
        |fields| fields.int("code", 200),
    );
    out
}

fn fill(kind: Kind, fields: &mut Fields<'_, '_>) {
    match kind {
        Kind::Data => {
            fields.int("code", 200);
            fields.bytes("reason", b"OK");
            let headers = [(&b"X-Name"[..], &b"value"[..]), (b"Content-Length", b"4")];
            fields.headers(headers.into_iter());
            fields.bytes("body", b"body");
            fields.int("credits", 100);
            fields.flag("more", true);
        }
        Kind::Error => fields.bytes("condition", b"bad-request"),
        Kind::Credit => fields.int("credits", 100),
        Kind::Close => {
            fields.int("code", 1000);
            fields.bytes("body", b"bye");
        }
        Kind::Ping | Kind::Pong => fields.bytes("body", b"ping"),
        Kind::Hello => {
            // It serves nothing: it would be asked, as any other handler is.
            let serves = Serves::default();
            let hello = Hello { ttl_ms: 50, incarnation: 7, feeds: true, serves, requests_max: 3 };
            hello.write(fields, &[]);
        }
        Kind::Events => {
            let events = EventList::default();
            let events = Events { channel: CHANNEL, epoch: EPOCH, after: 0, prev: None, events };
            let event = Event { data: b"data\nof two lines", kind: "news", end: false };
            events.write(fields, [event, Event { end: true, ..event }].into_iter());
        }
        Kind::Gap => {
            let (after, first) = (Cursor::new(EPOCH, 1), Cursor::new(EPOCH, 9));
            Gap { channel: CHANNEL, after, first, reason: GapReason::Trimmed }.write(fields);
        }
        Kind::Heads => Heads::write(fields, [(CHANNEL, Cursor::new(EPOCH, 3))].into_iter()),
        Kind::Hold => {
            let change =
                Change { context: Some(b"user=8"), expires_s: Some(60), ..Change::default() };
            let add = &[("acme:more", Cursor::new(EPOCH, 1)).into()];
            change.write(fields, &ChangeLists { add, remove: &[CHANNEL], bodies: &["{}"] });
        }
        Kind::Send => Send { kind: Some("control"), body: b"{}" }.write(fields),
        Kind::KeepAlive
        | Kind::Cancel
        | Kind::HandoffStart
        | Kind::HandoffProceed
        | Kind::Bye
        // These are the edge's to send, and wrong whatever is in them.
        | Kind::Feed
        | Kind::Unfeed
        | Kind::Range
        | Kind::Message
        | Kind::Closed => {}
    }
}
