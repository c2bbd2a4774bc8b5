//! Events as JSON: the one line that is stored, and that every reader of every protocol gets.
//!
//! The names and their order are those of Sentry's gateway (`docs/channels.md`, "Subscribe"):
//! `event_type`, `message_id`, `channel_id`, `phase`, `sequence`, `payload`. The text is compact,
//! and control characters are escaped, so an event is a single line whatever its publisher put in,
//! and can stand in a `data:` field as it is.
//!
//! In a payload, keys are sorted by their bytes at every level (a Struct is a map: it has no order
//! to keep), and numbers are written as JavaScript writes them (ECMA-262, `Number::toString`; the
//! same as RFC 8785 §3.2.2.3): the shortest text that reads back as the same double, so that 42.0
//! is `42`, as a reader in a browser would print it.

use std::io::Write;

use bytes::Bytes;
use forebay_proto::PublishRequest;
use prost_types::{Struct, Value, value::Kind};
use uuid::Uuid;

/// A first guess at the size of an event, in bytes: the fixed part and a short payload.
const EVENT_BYTES_GUESS: usize = 256;

/// Why writing to a `Vec` is not checked.
const INFALLIBLE: &str = "a Vec takes every byte";

/// Renders a message. `channel` is canonical.
pub(super) fn stream_event(channel: &str, message_id: Uuid, request: &PublishRequest) -> Bytes {
    let mut out = Vec::with_capacity(EVENT_BYTES_GUESS);
    write!(out, r#"{{"event_type":"stream","message_id":"{message_id}","channel_id":"#)
        .expect(INFALLIBLE);
    text(&mut out, channel);
    let phase = request.phase().as_str_name();
    write!(out, r#","phase":"{phase}","sequence":{},"payload":"#, request.sequence)
        .expect(INFALLIBLE);
    match &request.payload {
        Some(payload) => object(&mut out, payload),
        None => out.extend_from_slice(b"null"),
    }
    out.push(b'}');
    Bytes::from(out)
}

/// The value of a field of a control event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlField<'a> {
    /// A string.
    Text(&'a str),
    /// A number; beyond 2^53 a reader in JavaScript loses digits.
    Number(u64),
}

/// Renders a control event: what a reader is told that is no message (`docs/channels.md`, "Subscribe").
///
/// `fields` follow `event_type`, `message_id` and `control_type` in their order, and must not
/// repeat one of these names. One line, as for messages.
pub fn control_event(
    message_id: Uuid,
    control_type: &str,
    fields: &[(&str, ControlField<'_>)],
) -> Bytes {
    let mut out = Vec::with_capacity(EVENT_BYTES_GUESS);
    write!(out, r#"{{"event_type":"control","message_id":"{message_id}","control_type":"#)
        .expect(INFALLIBLE);
    text(&mut out, control_type);
    for (name, field) in fields {
        debug_assert!(!["event_type", "message_id", "control_type"].contains(name));
        out.push(b',');
        text(&mut out, name);
        out.push(b':');
        match field {
            ControlField::Text(value) => text(&mut out, value),
            ControlField::Number(value) => write!(out, "{value}").expect(INFALLIBLE),
        }
    }
    out.push(b'}');
    Bytes::from(out)
}

fn object(out: &mut Vec<u8>, object: &Struct) {
    out.push(b'{');
    // A BTreeMap: its order is that of the keys' bytes.
    for (index, (key, member)) in object.fields.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        text(out, key);
        out.push(b':');
        value(out, member);
    }
    out.push(b'}');
}

fn value(out: &mut Vec<u8>, any: &Value) {
    match &any.kind {
        None | Some(Kind::NullValue(_)) => out.extend_from_slice(b"null"),
        Some(Kind::BoolValue(flag)) => write!(out, "{flag}").expect(INFALLIBLE),
        Some(Kind::NumberValue(double)) => number(out, *double),
        Some(Kind::StringValue(string)) => text(out, string),
        Some(Kind::StructValue(inner)) => object(out, inner),
        Some(Kind::ListValue(list)) => {
            out.push(b'[');
            for (index, item) in list.values.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                value(out, item);
            }
            out.push(b']');
        }
    }
}

/// A JSON string with its quotes.
fn text(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect(INFALLIBLE);
}

/// A double, as JavaScript's `JSON.stringify` writes it.
fn number(out: &mut Vec<u8>, double: f64) {
    let magnitude = double.abs();
    if !double.is_finite() {
        out.extend_from_slice(b"null");
    } else if double == 0.0 {
        // -0 too.
        out.push(b'0');
    } else if (1e-6..1e21).contains(&magnitude) {
        // Rust's Display is the shortest decimal that reads back, never with an exponent or `.0`.
        write!(out, "{double}").expect(INFALLIBLE);
    } else if magnitude < 1.0 {
        write!(out, "{double:e}").expect(INFALLIBLE);
    } else {
        let scientific = format!("{double:e}");
        let (digits, exponent) = scientific.split_once('e').expect("LowerExp has an exponent");
        write!(out, "{digits}e+{exponent}").expect(INFALLIBLE);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn rendered(double: f64) -> String {
        let mut out = Vec::new();
        number(&mut out, double);
        String::from_utf8(out).unwrap()
    }

    /// Expected texts are what `JSON.stringify` answers.
    #[test]
    fn numbers_are_written_as_javascript_does() {
        let vectors: &[(f64, &str)] = &[
            (42.0, "42"),
            (-42.0, "-42"),
            (0.0, "0"),
            (-0.0, "0"),
            (0.1, "0.1"),
            (-1.5, "-1.5"),
            (0.000001, "0.000001"),
            (0.0000001, "1e-7"),
            (-1.25e-9, "-1.25e-9"),
            (9_007_199_254_740_991.0, "9007199254740991"),
            (9_007_199_254_740_992.0, "9007199254740992"),
            (1_152_921_504_606_846_976.0, "1152921504606847000"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            (f64::NAN, "null"),
            (f64::INFINITY, "null"),
            (f64::NEG_INFINITY, "null"),
        ];
        for &(double, expected) in vectors {
            assert_eq!(rendered(double), expected);
        }
    }

    proptest! {
        #[test]
        fn a_number_reads_back_as_the_same_double(bits: u64) {
            let double = f64::from_bits(bits);
            let read: Option<f64> = serde_json::from_str(&rendered(double)).unwrap();
            match read {
                Some(read) => prop_assert_eq!(read, double),
                None => prop_assert!(!double.is_finite()),
            }
        }

        #[test]
        fn an_integer_is_written_as_one(integer in -(1i64 << 53)..=1 << 53) {
            prop_assert_eq!(rendered(integer as f64), integer.to_string());
        }
    }

    #[test]
    fn control_events_keep_the_order_of_their_fields() {
        let fields =
            [("channel", ControlField::Text("a\"b\n")), ("missed", ControlField::Number(u64::MAX))];
        assert_eq!(
            control_event(Uuid::from_u128(7), "gap", &fields),
            concat!(
                r#"{"event_type":"control","message_id":"00000000-0000-0000-0000-000000000007","#,
                r#""control_type":"gap","channel":"a\"b\n","missed":18446744073709551615}"#
            )
        );
        assert_eq!(
            control_event(Uuid::nil(), "server_draining", &[]),
            concat!(
                r#"{"event_type":"control","message_id":"00000000-0000-0000-0000-000000000000","#,
                r#""control_type":"server_draining"}"#
            )
        );
    }
}
