//! What handlers send: packets that are made before anybody counts.

use std::sync::Arc;

use bytes::Bytes;
use forebay_core::ShortText;
use forebay_core::hold::{Fed, Run};
use forebay_core::hub::FromHub;
use forebay_core::session::SessionId;
use zhttp::hold::{Event, EventList, Events, Format, Hello, HoldParams, Serves};
use zhttp::{Cursor, Envelope, Fields, Id, Kind, Packet};

/// The identity of the one handler, which also feeds all channels.
pub(crate) const HANDLER: &[u8] = b"handler-1";

/// The epoch of all channels.
const EPOCH: u64 = 5;

/// What an event brings, and a packet: so much is usual in chats and tickers. A line of JSON.
pub(crate) const DATA: &[u8; 125] =
    b"{\"id\":\"0198c0de-7a11-7000-8000-000000004711\",\"from\":\"ada\",\
    \"text\":\"The Analytical Engine weaves algebraical patterns.\",\"n\":42}";

/// A cursor in any channel.
pub(crate) fn at(offset: u64) -> Cursor {
    Cursor::new(EPOCH, offset)
}

/// The session that comes so many after that one, on the same connection.
pub(crate) fn session_after(id: &[u8], sessions: usize) -> ShortText {
    let id = SessionId::parse(id).expect("it is an id of the edge");
    SessionId { counter: id.counter + sessions as u64, ..id }.text()
}

fn packet(
    id: &[u8],
    seq: u32,
    ext: impl FnOnce(&mut Fields<'_, '_>),
    payload: impl FnOnce(&mut Fields<'_, '_>),
) -> Bytes {
    let ids = [Id { id, seq: Some(seq) }];
    let mut out = Vec::new();
    Envelope { from: HANDLER, ids: &ids, kind: Kind::Data, multi: true }
        .write_ext(&mut out, ext, payload);
    out.into()
}

/// A whole answer, or the beginning of one.
pub(crate) fn answer(id: &[u8], more: bool) -> Bytes {
    let payload = |fields: &mut Fields<'_, '_>| {
        fields.int("code", 200);
        fields.bytes("reason", b"OK");
        let headers: [(&[u8], &[u8]); 3] = [
            (b"Content-Type", b"application/json"),
            (b"Cache-Control", b"no-store"),
            (b"X-Request-Id", b"0198c0de-7a11-7000"),
        ];
        fields.headers(headers.into_iter());
        fields.bytes("body", DATA);
        fields.flag("more", more);
    };
    packet(id, 0, |_| {}, payload)
}

/// A piece of an answer, with [`DATA`].
pub(crate) fn piece(id: &[u8], seq: u32) -> Bytes {
    let payload = |fields: &mut Fields<'_, '_>| {
        fields.bytes("body", DATA);
        fields.flag("more", true);
    };
    packet(id, seq, |_| {}, payload)
}

/// How a connection is held.
#[derive(Clone, Copy)]
pub(crate) struct Hold<'a> {
    pub(crate) channel: &'a str,
    /// Where it stands.
    pub(crate) cursor: Cursor,
    pub(crate) is_websocket: bool,
}

/// Between two keep-alives of a held connection, in milliseconds.
pub(crate) const KEEP_ALIVE_MS: u64 = 55_000;

/// The answer that has a connection held.
pub(crate) fn hold(id: &[u8], hold: &Hold<'_>) -> FromHub {
    let Hold { channel, cursor, is_websocket } = *hold;
    let (format, code) = if is_websocket { (Format::Ws, 101) } else { (Format::Sse, 200) };
    let params = HoldParams {
        keep_alive_ms: KEEP_ALIVE_MS,
        context: b"user=4711",
        notify: true,
        ..HoldParams::new(format)
    };
    let payload = |fields: &mut Fields<'_, '_>| {
        fields.int("code", code);
        if !is_websocket {
            let headers: [(&[u8], &[u8]); 2] =
                [(b"Content-Type", b"text/event-stream"), (b"Cache-Control", b"no-store")];
            fields.headers(headers.into_iter());
        }
    };
    FromHub::Packet(packet(id, 0, |ext| params.write(ext, &[(channel, cursor)]), payload))
}

/// A packet with so many events of a channel behind an offset, each with [`DATA`].
pub(crate) fn events(channel: &str, after: u64, count: usize) -> Bytes {
    let list = EventList::default();
    let events = Events { channel, epoch: EPOCH, after, prev: None, events: list };
    let mut out = Vec::new();
    zhttp::hold::write_packet(&mut out, HANDLER, Kind::Events, |fields| {
        let event = Event { data: DATA, kind: zhttp::hold::EVENT_KIND_DEFAULT, end: false };
        events.write(fields, std::iter::repeat_n(event, count));
    });
    out.into()
}

/// The same, as the hub passes it on to a worker.
pub(crate) fn fed(channel: &Arc<str>, after: u64, count: usize) -> FromHub {
    let bytes = events(channel, after, count);
    let run = Packet::parse(&bytes).and_then(|packet| {
        let events = Events::read(&packet)?;
        Ok(Run::new(Arc::clone(channel), &bytes, &events))
    });
    let run = run.expect("a packet that was just written").expect("it has events, and few");
    FromHub::Fed(Fed::Events(Arc::new(run)))
}

/// Where a channel ends, as the hub tells it a worker.
pub(crate) fn head(channel: &Arc<str>, offset: u64) -> FromHub {
    FromHub::Fed(Fed::Head(Arc::clone(channel), at(offset)))
}

/// The handler is there, takes all requests and feeds all channels.
pub(crate) fn hello() -> Bytes {
    let hello = Hello {
        ttl_ms: 3_000,
        incarnation: 1,
        feeds: true,
        serves: Serves::default(),
        requests_max: 0,
    };
    let mut out = Vec::new();
    zhttp::hold::write_packet(&mut out, HANDLER, Kind::Hello, |fields| {
        hello.write(fields, &[("*", "/")]);
    });
    out.into()
}
