//! Tests of [`super::decode`] as a whole; above all that both forms of a message render alike.

#![allow(clippy::unwrap_used)]

use forebay_proto::{Phase, PublishRequest};
use proptest::prelude::*;
use prost::Message;
use prost_types::{ListValue, Struct, Value, value::Kind};
use uuid::Uuid;

use super::*;

const CHANNEL: &str = "97f58c19-ce38-4c6b-8a5b-47f3405691f0";
const MESSAGE: &str = "6f1a8f5e-3e9a-4a52-9b3b-2f0b6a7c1d84";
/// The id that these tests give to messages without one.
const MADE: Uuid = Uuid::from_u128(1);

fn decoded(format: Format, body: impl AsRef<[u8]>) -> Result<Decoded, EventError> {
    decode(format, CHANNEL, body.as_ref(), MESSAGE_BYTES_MAX, || MADE)
}

fn one(format: Format, body: impl AsRef<[u8]>) -> Result<PublishItem, EventError> {
    match decoded(format, body)? {
        Decoded::One(item) => Ok(item),
        Decoded::Batch(items) => panic!("a batch: {items:?}"),
    }
}

fn batch(format: Format, body: impl AsRef<[u8]>) -> Vec<Result<PublishItem, EventError>> {
    match decoded(format, body).unwrap() {
        Decoded::One(item) => panic!("one message: {item:?}"),
        Decoded::Batch(items) => items,
    }
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

fn request() -> PublishRequest {
    let hello = value(Kind::StringValue("hello,".to_owned()));
    PublishRequest {
        channel_id: CHANNEL.to_owned(),
        message_id: MESSAGE.to_owned(),
        client_timestamp: None,
        phase: Phase::Delta.into(),
        sequence: 2,
        payload: Some(Struct { fields: [("value".to_owned(), hello)].into() }),
    }
}

#[test]
fn the_event_is_the_one_of_the_specification() {
    let item = one(Format::Protobuf, request().encode_to_vec()).unwrap();
    assert_eq!(
        item.data,
        concat!(
            r#"{"event_type":"stream","message_id":"6f1a8f5e-3e9a-4a52-9b3b-2f0b6a7c1d84","#,
            r#""channel_id":"97f58c19-ce38-4c6b-8a5b-47f3405691f0","phase":"PHASE_DELTA","#,
            r#""sequence":2,"payload":{"value":"hello,"}}"#
        )
    );
    assert_eq!(item.message_id.to_string(), MESSAGE);
    assert_eq!((item.phase, item.end), (Phase::Delta, false));

    let json = format!(
        r#"{{"channel_id":"{}","message_id":"{}","phase":"DELTA","sequence":"2",
            "payload":{{"value":"hello,"}}}}"#,
        CHANNEL.to_uppercase(),
        MESSAGE.replace('-', ""),
    );
    assert_eq!(one(Format::Json, json), Ok(item));
}

#[test]
fn phases_and_absent_payloads() {
    let mut request = request();
    request.payload = None;
    let tails = [
        (3, "PHASE_END", true),
        (4, "PHASE_ERROR", false),
        (0, "PHASE_UNSPECIFIED", false),
        (99, "PHASE_UNSPECIFIED", false),
    ];
    for (number, name, end) in tails {
        request.phase = number;
        let item = one(Format::Protobuf, request.encode_to_vec()).unwrap();
        let tail = format!(r#","phase":"{name}","sequence":2,"payload":null}}"#);
        assert!(item.data.ends_with(tail.as_bytes()), "{item:?}");
        assert_eq!(item.end, end);
    }
    request.payload = Some(Struct::default());
    let item = one(Format::Protobuf, request.encode_to_vec()).unwrap();
    assert!(item.data.ends_with(br#""payload":{}}"#));
}

#[test]
fn channels_must_match_the_path() {
    let other = PublishRequest { channel_id: "other".to_owned(), ..request() };
    let absent = PublishRequest { channel_id: String::new(), ..request() };
    for request in [other, absent] {
        assert_eq!(one(Format::Protobuf, request.encode_to_vec()), Err(EventError::Channel));
    }
    assert_eq!(one(Format::Protobuf, ""), Err(EventError::Channel));
    assert_eq!(one(Format::Json, r#"{"channel_id":"other"}"#), Err(EventError::Channel));
    assert!(one(Format::Json, "{}").is_ok());
    assert_eq!(EventError::Channel.to_string(), "channel_id differs from the path");

    // The path's own spelling does not matter either.
    let upper = CHANNEL.to_uppercase();
    let Decoded::One(item) =
        decode(Format::Protobuf, &upper, &request().encode_to_vec(), MESSAGE_BYTES_MAX, || MADE)
            .unwrap()
    else {
        panic!("a batch")
    };
    assert_eq!(item, one(Format::Protobuf, request().encode_to_vec()).unwrap());
}

#[test]
fn message_ids_are_uuids_or_made() {
    let bad = PublishRequest { message_id: "7".to_owned(), ..request() };
    assert_eq!(one(Format::Protobuf, bad.encode_to_vec()), Err(EventError::MessageId));
    assert_eq!(one(Format::Json, r#"{"message_id":"7"}"#), Err(EventError::MessageId));
    assert_eq!(EventError::MessageId.to_string(), "message_id is not a UUID");

    let absent = PublishRequest { message_id: String::new(), ..request() };
    assert_eq!(one(Format::Protobuf, absent.encode_to_vec()).unwrap().message_id, MADE);
    assert_eq!(one(Format::Json, "{}").unwrap().message_id, MADE);
}

#[test]
fn what_does_not_decode_is_refused() {
    assert_eq!(one(Format::Protobuf, "{}"), Err(EventError::Protobuf));
    assert_eq!(EventError::Protobuf.to_string(), "Invalid protobuf");
    let text = one(Format::Json, r#"{"a" 1}"#).unwrap_err().to_string();
    assert_eq!(text, "Invalid JSON: expected `:` at line 1 column 6");
}

#[test]
fn a_message_has_a_largest_size() {
    // A JSON object of exactly `len` bytes.
    let json = |len: usize| format!(r#"{{"payload":{{"x":"{}"}}}}"#, "x".repeat(len - 20));
    assert_eq!(json(100).len(), 100);
    assert!(one(Format::Json, json(16_384)).is_ok());
    let error = one(Format::Json, json(16_385)).unwrap_err();
    assert_eq!(error.to_string(), "Message size 16385 exceeds maximum of 16384 bytes");
    assert_eq!(error.status(), 413);
    assert_eq!(
        one(Format::Protobuf, [0; 16_385]),
        Err(EventError::MessageSize { size: 16_385, max: 16_384 })
    );

    // In a batch it is each item that counts.
    let items = batch(Format::Json, format!("[{}, {}]", json(16_384), json(16_385)));
    assert!(items[0].is_ok());
    assert_eq!(items[1], Err(EventError::MessageSize { size: 16_385, max: 16_384 }));

    let spaces = format!("[{}", " ".repeat(BATCH_BYTES_MAX));
    let expected = Err(EventError::BatchSize(BATCH_BYTES_MAX as u64 + 1));
    assert_eq!(decoded(Format::Json, &spaces), expected);
    assert_eq!(decoded(Format::Ndjson, &spaces), expected);
}

#[test]
fn each_item_of_a_batch_is_answered_by_itself() {
    let bodies = [
        (Format::Json, r#"[{"sequence":1}, {"channel_id":"other"}, [], {"phase":"END"}]"#),
        (
            Format::Ndjson,
            "{\"sequence\":1}\n{\"channel_id\":\"other\"}\r\n\n[]\n{\"phase\":\"END\"}",
        ),
    ];
    for (format, body) in bodies {
        let items = batch(format, body);
        assert_eq!(items.len(), 4);
        assert!(!items[0].as_ref().unwrap().end);
        assert_eq!(items[1], Err(EventError::Channel));
        assert!(matches!(items[2], Err(EventError::Json(_))));
        assert!(items[3].as_ref().unwrap().end);
    }
    assert!(batch(Format::Json, "[]").is_empty());
    assert!(batch(Format::Ndjson, "\n").is_empty());
    assert!(matches!(decoded(Format::Json, "[{}"), Err(EventError::Json(_))));
}

/// A payload of objects in objects, `depth` deep.
fn nested_objects(depth: usize) -> Struct {
    (1..depth).fold(Struct::default(), |inner, _| Struct {
        fields: [("x".to_owned(), value(Kind::StructValue(inner)))].into(),
    })
}

#[test]
fn payloads_have_a_largest_depth() {
    let json = |depth: usize| {
        let nested = format!("{}{}", r#"{"x":"#.repeat(depth - 1), "{}") + &"}".repeat(depth - 1);
        one(Format::Json, format!(r#"{{"payload":{nested}}}"#))
    };
    let arrays = |depth: usize| {
        let nested = "[".repeat(depth - 1) + &"]".repeat(depth - 1);
        one(Format::Json, format!(r#"{{"payload":{{"x":{nested}}}}}"#))
    };
    assert!(json(64).is_ok());
    assert!(arrays(64).is_ok());
    for error in [json(65).unwrap_err(), arrays(65).unwrap_err(), json(1000).unwrap_err()] {
        let text = error.to_string();
        assert!(text.starts_with("Invalid JSON: payload is nested deeper than 64"), "{text}");
    }

    let protobuf = |depth: usize| {
        let payload = Some(nested_objects(depth));
        one(Format::Protobuf, PublishRequest { payload, ..request() }.encode_to_vec())
    };
    assert!(protobuf(32).is_ok());
    assert_eq!(protobuf(64), Err(EventError::Protobuf));
    assert_eq!(protobuf(1000), Err(EventError::Protobuf));
}

/// Any double, and often one at which the text changes its form.
fn any_double() -> impl Strategy<Value = f64> {
    prop_oneof![
        any::<u64>().prop_map(f64::from_bits),
        any::<i64>().prop_map(|integer| integer as f64),
        (-1000i32..1000).prop_map(f64::from),
        (any::<i32>(), -30i32..30).prop_map(|(digits, ten)| f64::from(digits) * 10f64.powi(ten)),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Kind::NullValue(0)),
        any::<bool>().prop_map(Kind::BoolValue),
        any_double().prop_map(Kind::NumberValue),
        any::<String>().prop_map(Kind::StringValue),
    ]
    .prop_map(value);
    leaf.prop_recursive(4, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5)
                .prop_map(|values| value(Kind::ListValue(ListValue { values }))),
            prop::collection::btree_map(any::<String>(), inner, 0..5)
                .prop_map(|fields| value(Kind::StructValue(Struct { fields }))),
        ]
    })
}

/// The oracle: a payload as JSON, by way of serde_json's own values and text.
fn naive_json(any: &Value) -> serde_json::Value {
    match any.kind.as_ref().unwrap() {
        Kind::NullValue(_) => serde_json::Value::Null,
        Kind::BoolValue(flag) => (*flag).into(),
        Kind::NumberValue(double) => (*double).into(),
        Kind::StringValue(text) => text.clone().into(),
        Kind::ListValue(list) => list.values.iter().map(naive_json).collect(),
        // Turned round, so that nothing depends on the order in which keys come.
        Kind::StructValue(object) => object
            .fields
            .iter()
            .rev()
            .map(|(key, member)| (key.clone(), naive_json(member)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
    }
}

/// Numbers as the doubles that they are: 42 and 42.0 are one value, and so are 0 and -0.
fn as_doubles(json: serde_json::Value) -> serde_json::Value {
    match json {
        serde_json::Value::Number(number) => (number.as_f64().unwrap() + 0.0).into(),
        serde_json::Value::Array(items) => items.into_iter().map(as_doubles).collect(),
        serde_json::Value::Object(members) => {
            members.into_iter().map(|(key, member)| (key, as_doubles(member))).collect()
        }
        other @ (serde_json::Value::Null
        | serde_json::Value::Bool(_)
        | serde_json::Value::String(_)) => other,
    }
}

proptest! {
    #[test]
    fn both_forms_render_alike(
        fields in prop::collection::btree_map(any::<String>(), any_value(), 0..6),
        phase in -1..6,
        sequence: u64,
    ) {
        let payload = Struct { fields };
        let naive = naive_json(&value(Kind::StructValue(payload.clone())));
        let body = serde_json::json!({
            "payload": naive, "phase": phase, "sequence": sequence,
            "messageId": MESSAGE, "channelId": CHANNEL,
        });
        let request =
            PublishRequest { phase, sequence, payload: Some(payload), ..request() };
        let (protobuf, json) = (request.encode_to_vec(), body.to_string());
        prop_assume!(protobuf.len() <= MESSAGE_BYTES_MAX && json.len() <= MESSAGE_BYTES_MAX);

        let from_protobuf = one(Format::Protobuf, protobuf).unwrap();
        prop_assert_eq!(&from_protobuf, &one(Format::Json, json).unwrap());

        // And what they render is the payload, on one line.
        prop_assert!(from_protobuf.data.iter().all(|&byte| byte >= b' '));
        let event: serde_json::Value = serde_json::from_slice(&from_protobuf.data).unwrap();
        prop_assert_eq!(as_doubles(event["payload"].clone()), as_doubles(naive));
        prop_assert_eq!(&event["sequence"], &serde_json::json!(sequence));
    }

    #[test]
    fn no_bytes_can_panic(body: Vec<u8>) {
        for format in [Format::Protobuf, Format::Json, Format::Ndjson] {
            let _ = decoded(format, &body);
        }
    }
}
