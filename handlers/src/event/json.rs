//! The JSON form of a message, and the two ways in which a batch of them is written.
//!
//! One message is the protobuf JSON mapping of `PublishRequest`
//! (<https://protobuf.dev/programming-guides/json/>), a little wider: names in `snake_case` as well
//! as in `lowerCamelCase`, phases without their prefix, `null` for any absent field, and unknown
//! fields ignored, so that a newer publisher can talk to an older server. It is read straight into
//! the protobuf type; the checks on it are the caller's, the same for both forms.
//!
//! A batch is cut into its items before any of them is looked at, so that one bad item spoils only
//! itself. An array that does not parse has no items, and is refused whole.

use std::fmt;

use forebay_proto::{Phase, PublishRequest};
use prost_types::{Struct, Timestamp};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::payload::ObjectSeed;
use super::{BATCH_ITEMS_MAX, EventError};

/// Reads one message. An absent field has protobuf's default.
pub(super) fn request(text: &[u8]) -> Result<PublishRequest, EventError> {
    // Checked apart, because serde would also take a struct's fields from an array, by position.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err(EventError::Json("expected an object at line 1 column 1".to_owned()));
    }
    let message: JsonMessage = serde_json::from_slice(text).map_err(|error| invalid(&error))?;
    Ok(PublishRequest {
        channel_id: message.channel_id.unwrap_or_default(),
        message_id: message.message_id.unwrap_or_default(),
        client_timestamp: message.client_timestamp.map(|JsonTime(time)| time),
        phase: message.phase.map_or(0, |JsonPhase(number)| number),
        sequence: message.sequence.map_or(0, |JsonSequence(number)| number),
        payload: message.payload.map(|JsonPayload(object)| object),
    })
}

/// Whether a JSON body is a batch.
pub(super) fn is_array(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

/// The items of a JSON array, uninterpreted.
pub(super) fn array_items(body: &[u8]) -> Result<Vec<&[u8]>, EventError> {
    let array: JsonArray<'_> = serde_json::from_slice(body).map_err(|error| invalid(&error))?;
    if array.is_over {
        return Err(EventError::BatchItems);
    }
    Ok(array.items.into_iter().map(|item| item.get().as_bytes()).collect())
}

/// The lines of NDJSON, uninterpreted; blank ones are skipped.
pub(super) fn line_items(body: &[u8]) -> Result<Vec<&[u8]>, EventError> {
    let lines = body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
    let items: Vec<_> = lines.filter(|line| !line.is_empty()).take(BATCH_ITEMS_MAX + 1).collect();
    if items.len() > BATCH_ITEMS_MAX {
        return Err(EventError::BatchItems);
    }
    Ok(items)
}

/// serde_json's texts end with the position: `… at line 1 column 7`.
fn invalid(error: &serde_json::Error) -> EventError {
    EventError::Json(error.to_string())
}

/// A message as it stands in JSON.
#[derive(serde::Deserialize)]
struct JsonMessage {
    #[serde(default, alias = "channelId")]
    channel_id: Option<String>,
    #[serde(default, alias = "messageId")]
    message_id: Option<String>,
    #[serde(default, alias = "clientTimestamp")]
    client_timestamp: Option<JsonTime>,
    #[serde(default)]
    phase: Option<JsonPhase>,
    #[serde(default)]
    sequence: Option<JsonSequence>,
    #[serde(default)]
    payload: Option<JsonPayload>,
}

/// An RFC 3339 time.
struct JsonTime(Timestamp);

impl<'de> Deserialize<'de> for JsonTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let time = text
            .parse()
            .map_err(|_| de::Error::custom("client_timestamp is not an RFC 3339 time"))?;
        Ok(JsonTime(time))
    }
}

/// A phase: its name, its name without `PHASE_`, or its number, which need not be known to us.
struct JsonPhase(i32);

impl<'de> Deserialize<'de> for JsonPhase {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PhaseVisitor).map(JsonPhase)
    }
}

struct PhaseVisitor;

impl Visitor<'_> for PhaseVisitor {
    type Value = i32;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a phase: START, DELTA, END, ERROR or its number")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<i32, E> {
        let phases = [Phase::Unspecified, Phase::Start, Phase::Delta, Phase::End, Phase::Error];
        phases
            .into_iter()
            .find(|phase| {
                let known = phase.as_str_name();
                name == known || Some(name) == known.strip_prefix("PHASE_")
            })
            .map(i32::from)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Str(name), &self))
    }

    /// A number past an `i32` is one that we do not know, like any other.
    fn visit_u64<E: de::Error>(self, number: u64) -> Result<i32, E> {
        Ok(i32::try_from(number).unwrap_or(i32::MAX))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<i32, E> {
        Ok(i32::try_from(number).unwrap_or(i32::MIN))
    }
}

/// A sequence number: a number, or a string of one, since JavaScript's numbers end at 2^53.
struct JsonSequence(u64);

impl<'de> Deserialize<'de> for JsonSequence {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SequenceVisitor).map(JsonSequence)
    }
}

struct SequenceVisitor;

impl Visitor<'_> for SequenceVisitor {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a sequence number from 0 to 2^64-1")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<u64, E> {
        Ok(number)
    }

    fn visit_str<E: de::Error>(self, digits: &str) -> Result<u64, E> {
        digits.parse().map_err(|_| E::invalid_value(de::Unexpected::Str(digits), &self))
    }
}

/// The payload, which is an object and nothing else: `google.protobuf.Struct` can hold nothing
/// else.
struct JsonPayload(Struct);

impl<'de> Deserialize<'de> for JsonPayload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        de::DeserializeSeed::deserialize(ObjectSeed, deserializer).map(JsonPayload)
    }
}

/// The items of an array, as the text between its commas.
struct JsonArray<'a> {
    items: Vec<&'a RawValue>,
    /// There are more than [`BATCH_ITEMS_MAX`]; the rest was read over, not kept.
    is_over: bool,
}

impl<'de> Deserialize<'de> for JsonArray<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ArrayVisitor)
    }
}

struct ArrayVisitor;

impl<'de> Visitor<'de> for ArrayVisitor {
    type Value = JsonArray<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of messages")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<JsonArray<'de>, A::Error> {
        let mut items = Vec::new();
        while items.len() < BATCH_ITEMS_MAX {
            match array.next_element()? {
                Some(item) => items.push(item),
                None => return Ok(JsonArray { items, is_over: false }),
            }
        }
        let mut is_over = false;
        while array.next_element::<IgnoredAny>()?.is_some() {
            is_over = true;
        }
        Ok(JsonArray { items, is_over })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn error(text: &str) -> String {
        request(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn all_fields_in_both_spellings() {
        let snake = r#"{"channel_id":"c","message_id":"m","client_timestamp":"2026-01-02T03:04:05Z",
            "phase":"PHASE_END","sequence":7,"payload":{},"later":[{"x":1}]}"#;
        let camel = r#"{"channelId":"c","messageId":"m","clientTimestamp":"2026-01-02T03:04:05Z",
            "phase":"END","sequence":"7","payload":{}}"#;
        let expected = PublishRequest {
            channel_id: "c".to_owned(),
            message_id: "m".to_owned(),
            client_timestamp: Some(Timestamp { seconds: 1_767_323_045, nanos: 0 }),
            phase: 3,
            sequence: 7,
            payload: Some(Struct::default()),
        };
        assert_eq!(request(snake.as_bytes()), Ok(expected.clone()));
        assert_eq!(request(camel.as_bytes()), Ok(expected));
    }

    #[test]
    fn absent_and_null_fields_are_defaults() {
        let nulls = r#"{"channel_id":null,"message_id":null,"client_timestamp":null,
            "phase":null,"sequence":null,"payload":null}"#;
        for text in ["{}", nulls, " \n{ } "] {
            assert_eq!(request(text.as_bytes()), Ok(PublishRequest::default()));
        }
    }

    #[test]
    fn phases_by_name_and_number() {
        let phase = |value: &str| {
            request(format!(r#"{{"phase":{value}}}"#).as_bytes()).map(|request| request.phase())
        };
        assert_eq!(phase(r#""START""#), Ok(Phase::Start));
        assert_eq!(phase(r#""PHASE_ERROR""#), Ok(Phase::Error));
        assert_eq!(phase("2"), Ok(Phase::Delta));
        for unknown in ["9", "-1", "99999999999", "-99999999999"] {
            assert_eq!(phase(unknown), Ok(Phase::Unspecified), "{unknown}");
        }
        for bad in [r#""start""#, r#""PHASE_PHASE_END""#, "1.5", "true", "[]"] {
            let text = phase(bad).unwrap_err().to_string();
            assert!(text.contains("expected a phase: START"), "{text}");
        }
    }

    #[test]
    fn sequences_reach_two_to_the_64() {
        let sequence = |value: &str| {
            request(format!(r#"{{"sequence":{value}}}"#).as_bytes()).map(|request| request.sequence)
        };
        assert_eq!(sequence("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(sequence(r#""18446744073709551615""#), Ok(u64::MAX));
        for bad in ["-1", "1.5", "18446744073709551616", r#""x""#, r#""""#, "{}"] {
            assert!(sequence(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn errors_say_what_and_where() {
        assert_eq!(error("[1]"), "Invalid JSON: expected an object at line 1 column 1");
        assert_eq!(error(""), "Invalid JSON: expected an object at line 1 column 1");
        assert_eq!(
            error("{\n\"payload\": 5}"),
            "Invalid JSON: invalid type: integer `5`, expected a JSON object as payload at line 2 column 12"
        );
        assert_eq!(
            error(r#"{"client_timestamp":"yesterday"}"#),
            "Invalid JSON: client_timestamp is not an RFC 3339 time at line 1 column 32"
        );
        assert_eq!(error("{} x"), "Invalid JSON: trailing characters at line 1 column 4");
        for bad in ["{", r#"{"a":1,}"#, r#"{"phase":1,"phase":2}"#, r#"{"channel_id":1}"#] {
            assert!(error(bad).contains(" at line 1 column "), "{bad}");
        }
    }

    #[test]
    fn a_batch_is_cut_at_its_commas_or_lines() {
        let items: Vec<&[u8]> = vec![b"{\"a\":[1,2]}", b"7", b"\"x,y\""];
        assert_eq!(array_items(b" [ {\"a\":[1,2]} , 7,\"x,y\" ]\n"), Ok(items));
        assert_eq!(array_items(b"[]"), Ok(vec![]));
        assert!(matches!(array_items(b"[1,"), Err(EventError::Json(_))));
        assert!(matches!(array_items(b"[1] 2"), Err(EventError::Json(_))));
        let lines: Vec<&[u8]> = vec![b"{}", b"}{"];
        assert_eq!(line_items(b"\n{}\r\n \r\n}{"), Ok(lines));
        assert_eq!(line_items(b""), Ok(vec![]));
    }

    #[test]
    fn a_batch_has_a_largest_size() {
        let array = |items: usize| format!("[{}]", vec!["0"; items].join(","));
        assert_eq!(array_items(array(1000).as_bytes()).unwrap().len(), 1000);
        assert_eq!(array_items(array(1001).as_bytes()), Err(EventError::BatchItems));
        assert_eq!(line_items("0\n".repeat(1000).as_bytes()).unwrap().len(), 1000);
        assert_eq!(line_items("0\n".repeat(1001).as_bytes()), Err(EventError::BatchItems));
    }
}
