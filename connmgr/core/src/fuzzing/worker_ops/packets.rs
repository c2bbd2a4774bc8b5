//! What handlers say to the worker, for the fuzz target: packets of every kind, with fields that are mostly right.

use zhttp::fuzzing::Choices;
use zhttp::hold::{
    Change, ChangeLists, Channels, Format, HoldChannel, HoldParams, Names, Send, Texts,
};
use zhttp::{Cursor, Envelope, Fields, Kind};

use super::CHANNELS;

/// Writes what a handler says: fields that its kind has, and at times others. `number` is that of the last `message` that it
/// may answer.
pub(super) fn write_packet(
    out: &mut Vec<u8>,
    (envelope, number): (&Envelope<'_>, u64),
    choices: &mut Choices<'_>,
) {
    let channels = (0..choices.index(3)).map(|_| HoldChannel {
        name: choices.one_of(&CHANNELS),
        cursor: choices.one_of(&[Cursor::START, Cursor::new(3, 1), Cursor::new(3, 4)]),
        ended: choices.index(8) == 7,
    });
    let channels: Vec<HoldChannel<'_>> = channels.collect();
    let params = HoldParams {
        format: choices.one_of(&[Format::Sse, Format::Ws]),
        channels: Channels::default(),
        keep_alive_ms: choices.number().min(100_000),
        expires_s: if choices.flag() { choices.number() / 2 } else { 0 },
        context: b"context",
        expires_code: choices.one_of(&[0, 0, 3000, 1005]),
        notify: choices.flag(),
        persistent: choices.flag(),
        messages: choices.one_of(&["", "/ws/"]),
    };
    let is_held = choices.index(4) == 3;
    let ext = |ext: &mut Fields<'_, '_>| {
        if is_held && envelope.kind == Kind::Data {
            params.write_channels(ext, channels.iter().copied());
        }
    };
    envelope.write_ext(out, ext, |fields| {
        if envelope.kind == Kind::Hold {
            let removed = choices.flag().then(|| choices.one_of(&CHANNELS));
            let change = Change {
                add: Channels::default(),
                remove: Names::default(),
                context: choices.flag().then_some(b"other"),
                expires_s: choices.flag().then(|| choices.up_to(100)),
                expires_code: choices.flag().then(|| choices.one_of(&[0, 3000, 1005])),
                bodies: Texts::default(),
                answers: match choices.index(4) {
                    0 => None,
                    1 => Some(1 + choices.up_to(4)),
                    _ => Some(number.max(1)),
                },
            };
            let bodies = &["answer", ""][..choices.index(3)];
            change
                .write(fields, &ChangeLists { add: &channels, remove: removed.as_slice(), bodies });
        } else if envelope.kind == Kind::Send {
            Send { kind: None, body: b"sent" }.write(fields);
        } else if is_held && params.format == Format::Ws && choices.byte() < 0xe0 {
            fields.int("code", 101);
        } else {
            write_payload(fields, choices);
        }
    });
}

/// The fields of plain ZHTTP.
fn write_payload(fields: &mut Fields<'_, '_>, choices: &mut Choices<'_>) {
    let code = match choices.index(8) {
        0 => choices.up_to(700),
        1 => choices.one_of(&[204, 205, 304]),
        2 | 3 => 101,
        _ => 200,
    };
    fields.int("code", code);
    let headers: [(&[u8], &[u8]); 5] = [
        (b"Content-Length", b"5"),
        (b"Content-Length", b"20"),
        (b"X-A", b"b"),
        (b"A", b"\r\n"),
        (b"Transfer-Encoding", b"chunked"),
    ];
    let header = headers.get(choices.index(12)).copied();
    fields.headers(header.into_iter());
    if choices.flag() {
        fields.bytes("condition", choices.one_of(&[b"rejected", b"whatever"]));
        fields.bytes("content-type", choices.one_of(&[&b"binary"[..], b"text"]));
    }
    fields.bytes("body", choices.bytes(130));
    fields.int("credits", if choices.flag() { choices.number() } else { choices.up_to(200) });
    fields.flag("more", choices.flag());
}
