//! The bodies of the fuzz targets in `fuzz/`, and what they share with the tests of the vectors.
//!
//! They stand here and not in the targets, so that `cargo test` runs them over the seeds: a target
//! that no longer builds or that fails on what it once found is seen at once. Each body takes any
//! bytes and panics if a promise of this crate is broken. Those that are about operations rather than
//! bytes read them with [`Choices`], which the targets of other crates use, too.

mod choices;
mod fields;
mod text;

pub use choices::Choices;
pub use fields::fields;
pub use text::{base64url, cursor};

use crate::composite;
use crate::cursor::Cursor;
use crate::error::PacketError;
use crate::hold::{
    Change, ChangeLists, Closed, Events, Feed, Gap, HOLD_VERSION, Heads, Hello, HoldParams,
    Message, Names, Range, Send, Unfeed,
};
use crate::packet::{FROM_BYTES_MAX, IDS_MAX, Id, Kind, Packet};
use crate::payload::Payload;
use crate::tnetstring::{self, List, Map, Value};
use crate::write::{Envelope, Fields};

/// What a packet carries, read as one kind has it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Body<'a> {
    /// Plain ZHTTP, with what a response says about a hold.
    Plain(Payload<'a>, Option<HoldParams<'a>>),
    /// `hello`.
    Hello(Hello<'a>),
    /// `bye`.
    Bye,
    /// `feed`.
    Feed(Feed<'a>),
    /// `unfeed`.
    Unfeed(Names<'a>),
    /// `range`.
    Range(Range<'a>),
    /// `events`.
    Events(Events<'a>),
    /// `gap`.
    Gap(Gap<'a>),
    /// `heads`.
    Heads(Heads<'a>),
    /// `hold`.
    Hold(Change<'a>),
    /// `send`.
    Send(Send<'a>),
    /// `message`.
    Message(Message<'a>),
    /// `closed`.
    Closed(Closed<'a>),
}

impl<'a> Body<'a> {
    /// Reads the body of a packet as if it were of that kind.
    ///
    /// # Errors
    ///
    /// Those of the reader.
    pub fn read(packet: &Packet<'a>, kind: Kind) -> Result<Self, PacketError> {
        Ok(match kind {
            Kind::Data
            | Kind::Error
            | Kind::Credit
            | Kind::KeepAlive
            | Kind::Cancel
            | Kind::HandoffStart
            | Kind::HandoffProceed
            | Kind::Close
            | Kind::Ping
            | Kind::Pong => Body::Plain(packet.payload()?, read_hold(packet, kind)?),
            Kind::Hello => Body::Hello(Hello::read(packet)?),
            Kind::Bye => Body::Bye,
            Kind::Feed => Body::Feed(Feed::read(packet)?),
            Kind::Unfeed => Body::Unfeed(Unfeed::read(packet)?),
            Kind::Range => Body::Range(Range::read(packet)?),
            Kind::Events => Body::Events(Events::read(packet)?),
            Kind::Gap => Body::Gap(Gap::read(packet)?),
            Kind::Heads => Body::Heads(Heads::read(packet)?),
            Kind::Hold => Body::Hold(Change::read(packet)?),
            Kind::Send => Body::Send(Send::read(packet)?),
            Kind::Message => Body::Message(Message::read(packet)?),
            Kind::Closed => Body::Closed(Closed::read(packet)?),
        })
    }

    fn write(&self, fields: &mut Fields<'_, '_>) {
        match *self {
            Body::Plain(payload, _) => payload.write(fields),
            Body::Hello(hello) => hello.write(fields, &hello.serves.collect::<Vec<_>>()),
            Body::Bye => {}
            Body::Feed(feed) => Feed::write(fields, feed),
            Body::Unfeed(names) => Unfeed::write(fields, names),
            Body::Range(range) => range.write(fields),
            Body::Events(events) => events.write(fields, events.events),
            Body::Gap(gap) => gap.write(fields),
            Body::Heads(heads) => Heads::write(fields, heads),
            Body::Hold(change) => {
                let add: Vec<_> = change.add.collect();
                let remove: Vec<_> = change.remove.collect();
                let bodies: Vec<_> = change.bodies.collect();
                let lists = ChangeLists { add: &add, remove: &remove, bodies: &bodies };
                change.write(fields, &lists);
            }
            Body::Send(send) => send.write(fields),
            Body::Message(message) => message.write(fields, message.bodies),
            Body::Closed(closed) => closed.write(fields),
        }
    }
}

/// A version in `ext.hold`, as requests have it, is no hold.
fn read_hold<'a>(packet: &Packet<'a>, kind: Kind) -> Result<Option<HoldParams<'a>>, PacketError> {
    match packet.ext.hold {
        Some(Value::Int(_)) => Ok(None),
        Some(_) if kind == Kind::Data => HoldParams::read(packet),
        Some(_) | None => Ok(None),
    }
}

/// Reads a packet and writes it again, in the canonical form: the fields that are known, in their
/// order, the empty ones left out.
///
/// # Errors
///
/// Those of the readers.
pub fn rewrite(bytes: &[u8]) -> Result<Vec<u8>, PacketError> {
    let packet = Packet::parse(bytes)?;
    let body = Body::read(&packet, packet.kind)?;
    let ids: Vec<Id<'_>> = packet.ids.collect();
    let envelope =
        Envelope { from: packet.from, ids: &ids, kind: packet.kind, multi: packet.ext.multi };
    let mut out = Vec::new();
    let ext = |ext: &mut Fields<'_, '_>| {
        ext.flag("ping", packet.ext.ping);
        if let Body::Plain(_, Some(hold)) = body {
            hold.write_channels(ext, hold.channels);
        } else if matches!(packet.ext.hold, Some(Value::Int(1..))) {
            ext.int("hold", HOLD_VERSION);
        }
    };
    envelope.write_ext(&mut out, ext, |fields| body.write(fields));
    Ok(out)
}

/// Any bytes as a packet: no reader panics, what was accepted can be written and read again, and of what
/// was not, no more sessions are salvaged than a packet may have.
pub fn packet(bytes: &[u8]) {
    if let Some(salvage) = Packet::salvage(bytes) {
        assert!((1..=IDS_MAX).contains(&salvage.ids.count()), "some sessions, and not too many");
        assert!(salvage.from.len() <= FROM_BYTES_MAX, "an address, or none");
    }
    let Ok(packet) = Packet::parse(bytes) else { return };
    for &kind in Kind::ALL {
        let _ = Body::read(&packet, kind);
    }
    if let Ok(written) = rewrite(bytes) {
        assert_eq!(rewrite(&written).as_ref(), Ok(&written), "the canonical form is stable");
    }
}

/// Any bytes as a tnetstring: a naive reader reads the same, no walk panics, and no list goes on after
/// an error.
pub fn tnetstring(bytes: &[u8]) {
    let read = tnetstring::read(bytes).ok();
    assert_eq!(read, naive_tnetstring(bytes), "{}", bytes.escape_ascii());
    let Some((value, rest)) = read else { return };
    assert!(bytes.ends_with(rest) && rest.len() < bytes.len(), "the rest is what follows");
    let whole = &bytes[..bytes.len() - rest.len()];
    assert!(tnetstring::read(&whole[..whole.len() - 1]).is_err(), "no value is the start of one");
    // A stack of our own: a nest of lists may be as deep as the input is long.
    let mut values = vec![value];
    while let Some(value) = values.pop() {
        match value {
            Value::List(list) => values.extend(walk_list(list)),
            Value::Map(map) => values.extend(walk_map(map)),
            Value::Bytes(_) | Value::Int(_) | Value::Float(_) | Value::Bool(_) | Value::Null => {}
        }
    }
}

/// Reads one value as the page of the format puts it: the digits up to the colon, so many bytes, a tag.
fn naive_tnetstring(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let colon = bytes.iter().position(|&byte| byte == b':')?;
    let digits = std::str::from_utf8(&bytes[..colon]).ok()?;
    let len: usize = digits.parse().ok().filter(|len: &usize| len.to_string() == digits)?;
    if digits.len() > 9 {
        return None;
    }
    let (data, behind) = bytes[colon + 1..].split_at_checked(len)?;
    let (tag, rest) = behind.split_first()?;
    let text = std::str::from_utf8(data).ok();
    let value = match tag {
        b',' => Value::Bytes(data),
        b'#' => Value::Int(text?.parse().ok()?),
        b'^' => Value::Float(data),
        b'!' => Value::Bool(text?.parse().ok()?),
        b'~' if len == 0 => Value::Null,
        // What is in lists and maps is walked by the caller.
        b']' | b'}' => tnetstring::read(bytes).ok()?.0,
        _ => return None,
    };
    Some((value, rest))
}

fn walk_list(mut list: List<'_>) -> Vec<Value<'_>> {
    let values = list.by_ref().map_while(Result::ok).collect();
    assert!(list.next().is_none(), "nothing after the end or an error");
    values
}

fn walk_map(mut map: Map<'_>) -> Vec<Value<'_>> {
    let values = map.by_ref().map_while(Result::ok).map(|(_, value)| value).collect();
    assert!(map.next().is_none(), "nothing after the end or an error");
    values
}

/// Any text as a composite cursor, and any bytes as the names and cursors of one.
pub fn composite(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(composite) = composite::decode(text) {
        assert!(composite::is_composite(text) && text.parse::<Cursor>().is_err());
        let _ = composite.cursor_of(text);
        for cut in 0..text.len() {
            assert!(composite::decode(&text[..cut]).is_err(), "no part of a cursor is one");
        }
    }
    let channels = text.split(',').map(|name| (name, Cursor::new(1 + name.len() as u64, 7)));
    let mut out = Vec::new();
    if composite::encode(channels.clone(), &mut out).is_ok() {
        let written = std::str::from_utf8(&out).expect("base64url is ASCII");
        let composite = composite::decode(written).expect("what is written can be read");
        for (name, cursor) in channels {
            assert_eq!(composite.cursor_of(name), Some(cursor));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use proptest::prelude::*;

    /// Runs a body over the seeds of its target.
    fn run_seeds(target: &str, body: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).unwrap() {
            body(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count >= 3, "{count} seeds in {}", folder.display());
    }

    #[test]
    fn packet_seeds() {
        run_seeds("packet", super::packet);
    }

    #[test]
    fn tnetstring_seeds() {
        run_seeds("tnetstring", super::tnetstring);
    }

    #[test]
    fn composite_seeds() {
        run_seeds("composite", super::composite);
    }

    #[test]
    fn fields_seeds() {
        run_seeds("fields", super::fields);
    }

    #[test]
    fn cursor_seeds() {
        run_seeds("cursor", super::cursor);
    }

    #[test]
    fn base64url_seeds() {
        run_seeds("base64url", super::base64url);
    }

    proptest! {
        #[test]
        fn choices_of_fields(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            super::fields(&bytes);
        }

        #[test]
        fn small_texts(text in "[0-9]{0,21}-?[0-9]{0,21}|[A-Za-z0-9_=+/-]{0,20}", bytes: Vec<u8>) {
            super::cursor(text.as_bytes());
            super::cursor(&bytes);
            super::base64url(text.as_bytes());
            super::base64url(&bytes);
        }
    }
}
