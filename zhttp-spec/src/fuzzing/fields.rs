//! Packets made of choices: fields that exist, with values that mostly have the right shape.
//!
//! A mutator of bytes hardly gets past the first length of a packet, because one byte more or less makes all lengths
//! around it wrong. Here the choices say what is in a packet, and its lengths always fit.

use super::Choices;

/// What a field should be.
#[derive(Clone, Copy)]
enum Shape {
    /// One of these, or any bytes.
    Text(&'static [&'static str]),
    Int,
    Bool,
    /// A list of any length.
    List(&'static Shape),
    /// A list of just these, from which the last may be missing.
    Tuple(&'static [Shape]),
    Map(&'static [(&'static str, Shape)]),
    /// One of these.
    Either(&'static [Shape]),
}

/// How deep values lie in each other, at most.
const DEPTH_MAX: u8 = 6;

/// How many values a list or a map has, at most: one more than the most ids of a packet.
const VALUES_MAX: u64 = 129;

/// The longest byte string that is made.
const TEXT_BYTES_MAX: usize = 80;

const ANY: Shape = Shape::Text(&["", "a", "\r\n", "\u{e4}"]);
const NAME: Shape = Shape::Text(&["o:a", "o:b", "o:a.b~c-d_e", "o", "", "o:a b"]);
const CURSOR: Shape = Shape::Text(&["0-0", "1-0", "5-3", "5-4", "9223372036854775807-1", "0-1"]);
const PATH: Shape = Shape::Text(&["/ws/", "/", "", "ws"]);
const CHANNELS: Shape = Shape::List(&Shape::Tuple(&[NAME, CURSOR, Shape::Bool]));
const ID: Shape = Shape::Text(&["0-0-1", "1-2-3"]);
const IDS: Shape = Shape::List(&Shape::Map(&[("id", ID), ("seq", Shape::Int)]));
const KINDS: &[&str] = &[
    "error",
    "credit",
    "keep-alive",
    "cancel",
    "handoff-start",
    "handoff-proceed",
    "close",
    "ping",
    "pong",
    "hello",
    "bye",
    "feed",
    "unfeed",
    "range",
    "events",
    "gap",
    "heads",
    "hold",
    "send",
    "message",
    "closed",
    "",
];
const HOLD: Shape = Shape::Map(&[
    ("format", Shape::Text(&["sse", "ws"])),
    ("channels", CHANNELS),
    ("keep-alive", Shape::Int),
    ("expires", Shape::Int),
    ("context", ANY),
    ("notify", Shape::Bool),
    ("expires-code", Shape::Int),
    ("persistent", Shape::Bool),
    ("messages", PATH),
]);
/// What a client has said, and what is said to it.
const BODIES: Shape = Shape::List(&Shape::Either(&[
    Shape::Tuple(&[ANY, Shape::Map(&[("binary", Shape::Bool)])]),
    ANY,
]));
const EVENT: Shape = Shape::Tuple(&[
    Shape::Text(&["{}", "\"\"", "a\nb"]),
    Shape::Map(&[("type", Shape::Text(&["stream", "other"])), ("end", Shape::Bool)]),
]);
/// With offset or epoch, as `feed` and `heads` have them.
const HEAD: Shape = Shape::Either(&[
    Shape::Tuple(&[NAME, CURSOR]),
    Shape::Tuple(&[NAME, Shape::Int, Shape::Int]),
    NAME,
]);

/// Every field of a packet that means something.
const FIELDS: &[(&str, Shape)] = &[
    ("from", Shape::Text(&["edge", "h1", "a b"])),
    ("id", Shape::Either(&[ID, IDS])),
    ("seq", Shape::Int),
    ("type", Shape::Text(KINDS)),
    ("ext", Shape::Map(&[("multi", Shape::Bool), ("hold", Shape::Either(&[HOLD, Shape::Int]))])),
    ("method", Shape::Text(&["GET", "POST"])),
    ("uri", Shape::Text(&["http://a/", "/"])),
    ("code", Shape::Int),
    ("reason", Shape::Text(&["OK"])),
    ("headers", Shape::List(&Shape::Tuple(&[Shape::Text(&["Host"]), Shape::Text(&["a"])]))),
    ("body", ANY),
    ("content-type", Shape::Text(&["text", "binary"])),
    ("condition", Shape::Text(&["bad-request"])),
    ("credits", Shape::Int),
    ("more", Shape::Bool),
    ("stream", Shape::Bool),
    ("router-resp", Shape::Bool),
    ("peer-address", Shape::Text(&["::1"])),
    ("peer-port", Shape::Either(&[Shape::Int, Shape::Text(&["80"])])),
    ("ttl", Shape::Int),
    ("incarnation", Shape::Int),
    ("feeds", Shape::Bool),
    ("serves", Shape::List(&Shape::Tuple(&[Shape::Text(&["GET", "*"]), Shape::Text(&["/"])]))),
    ("requests-max", Shape::Int),
    ("channels", Shape::Either(&[Shape::List(&HEAD), CHANNELS])),
    ("heads", Shape::List(&HEAD)),
    ("channel", NAME),
    ("after", Shape::Either(&[CURSOR, Shape::Int])),
    ("bytes", Shape::Int),
    ("epoch", Shape::Int),
    ("prev", CURSOR),
    ("events", Shape::List(&EVENT)),
    ("first", CURSOR),
    ("add", CHANNELS),
    ("remove", Shape::List(&NAME)),
    ("context", ANY),
    ("expires", Shape::Int),
    ("expires-code", Shape::Int),
    ("path", PATH),
    ("number", Shape::Int),
    ("bodies", BODIES),
    ("answers", Shape::Int),
    ("event", Shape::Text(&["stream", "control"])),
];

/// The packet that these choices make, held to the same promises as any bytes.
///
/// # Panics
///
/// If one is broken.
pub fn fields(bytes: &[u8]) {
    let packet = made(bytes);
    super::tnetstring(&packet[1..]);
    super::packet(&packet);
}

/// Each choice is a field, and what makes its value; the last ones may be over before it is made.
fn made(bytes: &[u8]) -> Vec<u8> {
    let mut choices = Choices::new(bytes);
    let mut data = Vec::new();
    while !choices.is_over() {
        let (key, shape) = choices.one_of(FIELDS);
        scalar(&mut data, key.as_bytes(), b',');
        value(&mut choices, &mut data, shape, DEPTH_MAX);
    }
    let mut packet = vec![b'T'];
    scalar(&mut packet, &data, b'}');
    packet
}

/// Writes a value, one time in sixteen of another shape than it should have.
fn value(choices: &mut Choices<'_>, out: &mut Vec<u8>, shape: Shape, depth: u8) {
    let how = choices.byte();
    if how >= 0xf0 {
        return wrong_value(choices, out, (how, depth));
    }
    let Some(depth) = depth.checked_sub(1) else { return scalar(out, b"", b'~') };
    match shape {
        Shape::Text(words) if how < 0xc0 => {
            scalar(out, words[usize::from(how) % words.len()].as_bytes(), b',');
        }
        Shape::Text(_) => scalar(out, choices.bytes(TEXT_BYTES_MAX), b','),
        Shape::Int => int(choices, out),
        Shape::Bool if how & 1 == 0 => scalar(out, b"true", b'!'),
        Shape::Bool => scalar(out, b"false", b'!'),
        Shape::Either(shapes) => {
            value(choices, out, shapes[usize::from(how) % shapes.len()], depth);
        }
        Shape::List(shape) => {
            let mut data = Vec::new();
            for _ in 0..count(choices) {
                value(choices, &mut data, *shape, depth);
            }
            scalar(out, &data, b']');
        }
        Shape::Tuple(shapes) => {
            let mut data = Vec::new();
            for shape in &shapes[..shapes.len() - usize::from(how & 1)] {
                value(choices, &mut data, *shape, depth);
            }
            scalar(out, &data, b']');
        }
        Shape::Map(fields) => {
            let mut data = Vec::new();
            for _ in 0..count(choices) {
                let (key, shape) = choices.one_of(fields);
                scalar(&mut data, key.as_bytes(), b',');
                value(choices, &mut data, shape, depth);
            }
            scalar(out, &data, b'}');
        }
    }
}

fn wrong_value(choices: &mut Choices<'_>, out: &mut Vec<u8>, (how, depth): (u8, u8)) {
    match how {
        0xf0..0xf4 => scalar(out, b"", b'~'),
        0xf4..0xf6 => scalar(out, b"1.5", b'^'),
        0xf6..0xf8 => int(choices, out),
        0xf8..0xfa => scalar(out, b"true", b'!'),
        0xfa => scalar(out, choices.bytes(TEXT_BYTES_MAX), b']'),
        0xfb => scalar(out, choices.bytes(TEXT_BYTES_MAX), b'}'),
        0xfc => {
            let tag = choices.byte();
            scalar(out, choices.bytes(TEXT_BYTES_MAX), tag);
        }
        _ => {
            let (_, shape) = choices.one_of(FIELDS);
            let mut data = Vec::new();
            value(choices, &mut data, shape, depth.saturating_sub(1));
            scalar(out, &data, b']');
        }
    }
}

/// Mostly few, and sometimes more than is allowed.
fn count(choices: &mut Choices<'_>) -> u64 {
    match choices.byte() {
        byte @ 0..0xf8 => u64::from(byte) % 5,
        _ => VALUES_MAX,
    }
}

fn int(choices: &mut Choices<'_>, out: &mut Vec<u8>) {
    let number = choices.number().cast_signed();
    scalar(out, number.to_string().as_bytes(), b'#');
}

fn scalar(out: &mut Vec<u8>, data: &[u8], tag: u8) {
    out.extend_from_slice(data.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(data);
    out.push(tag);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::hold::HoldParams;
    use crate::packet::Packet;

    /// A seed is of use as long as it makes what it is named for: fields are chosen by their number.
    #[test]
    fn seeds_make_what_they_are_named_for() {
        let held = made(include_bytes!("../../fuzz/seeds/fields/held-response"));
        let params = HoldParams::read(&Packet::parse(&held).unwrap()).unwrap().unwrap();
        assert_eq!((params.channels.count(), params.notify), (1, true));
        let many = made(include_bytes!("../../fuzz/seeds/fields/many-ids"));
        assert_eq!(Packet::parse(&many).unwrap_err(), crate::PacketError::TooManyIds);
    }
}
