//! Publishing to a running `forebay up`: every form of a message, and every promise to its publisher.
//!
//! What is wrong with a message is in `status.rs`.

#![allow(clippy::unwrap_used)]

mod support;

use std::process::Command;

use forebay_handlers::auth::Role;
use serde_json::{Value, json};
use support::up::ORG;
use support::{Process, Up, post};

/// A message id of some message.
const MESSAGE_ID: &str = "97f58c19-ce38-4c6b-8a5b-47f3405691f0";

#[test]
fn a_batch_is_answered_message_by_message() {
    let up = Up::start();
    let ndjson = "{\"phase\":\"START\"}\n\n{\"phase\":7,\"sequence\":\"3\"}\r\nnot json\n{\"message_id\":\"x\"}\n";
    let request = up.publishing("news", "").header("Content-Type", "application/x-ndjson");
    let lines = up.send(&request.body(ndjson)).json();
    let events = up.all_events("news");
    assert_eq!(lines[0], json!({"status": 200, "id": events[0].0}));
    assert_eq!(lines[1], json!({"status": 200, "id": events[1].0}));
    assert_eq!(
        lines[2],
        json!({"status": 400, "error": "Invalid JSON: expected an object at line 1 column 1"})
    );
    assert_eq!(lines[3], json!({"status": 400, "error": "message_id is not a UUID"}));
    assert_eq!((events.len(), &events[1].1["phase"]), (2, &json!("PHASE_UNSPECIFIED")));
    assert_eq!(events[1].1["sequence"], 3);

    let array =
        json!([{"message_id": MESSAGE_ID}, {"message_id": MESSAGE_ID}, {"channel_id": "x"}]);
    let items = up.send(&up.publishing("news", "").json(&array)).json();
    let id = up.all_events("news")[2].0.clone();
    assert_eq!(
        items,
        json!([{"status": 200, "id": id}, {"status": 200, "id": id, "duplicate": true},
            {"status": 400, "error": "channel_id differs from the path"}])
    );
}

/// Prints, in hex, the protobuf form of the message whose JSON form comes in, with the classes of Python's protobuf
/// library made at run time from the published numbers: no code of ours, and no protoc.
const ENCODE_PY: &str = r#"
import sys
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf import struct_pb2, timestamp_pb2

file = descriptor_pb2.FileDescriptorProto(
    name="publish.proto", package="sentry_protos.conduit.v1alpha", syntax="proto3",
    dependency=[struct_pb2.DESCRIPTOR.name, timestamp_pb2.DESCRIPTOR.name])
phase = file.enum_type.add(name="Phase")
for number, name in enumerate(["UNSPECIFIED", "START", "DELTA", "END", "ERROR"]):
    phase.value.add(name="PHASE_" + name, number=number)
Field = descriptor_pb2.FieldDescriptorProto
request = file.message_type.add(name="PublishRequest")
for number, (name, kind, type_name) in enumerate([
    ("channel_id", Field.TYPE_STRING, None),
    ("message_id", Field.TYPE_STRING, None),
    ("client_timestamp", Field.TYPE_MESSAGE, ".google.protobuf.Timestamp"),
    ("phase", Field.TYPE_ENUM, ".sentry_protos.conduit.v1alpha.Phase"),
    ("sequence", Field.TYPE_UINT64, None),
    ("payload", Field.TYPE_MESSAGE, ".google.protobuf.Struct"),
], start=1):
    request.field.add(name=name, number=number, type=kind, type_name=type_name, label=Field.LABEL_OPTIONAL)
pool = descriptor_pool.DescriptorPool()
for known in (struct_pb2, timestamp_pb2):
    pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
pool.Add(file)
kind = pool.FindMessageTypeByName("sentry_protos.conduit.v1alpha.PublishRequest")
message = json_format.Parse(sys.stdin.read(), message_factory.GetMessageClass(kind)())
print(message.SerializeToString().hex())
"#;

#[test]
fn protobuf_of_another_library_and_json_are_the_same_event() {
    let up = Up::start();
    let message = |channel: &str| {
        json!({"channel_id": channel, "message_id": MESSAGE_ID, "phase": "PHASE_DELTA",
            "client_timestamp": "2026-01-02T03:04:05.678Z", "sequence": 18_446_744_073_709_551_615_u64,
            "payload": {"value": "grüße", "count": 3, "big": 1e300, "tiny": -0.25, "z": null,
                "list": [1, [2.5, "three"], {"b": false, "a": true}]}})
    };
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv/bin/python");
    let mut encode = Command::new(python);
    let hex =
        Process::run_with(encode.args(["-c", ENCODE_PY]), &message("news").to_string()).good();
    let hex = hex.trim();
    let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    let protobuf: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();

    // Two servers, so that the same channel and message id are new in both.
    let other = Up::start();
    let request = up.publishing("news", "").header("Content-Type", "application/x-protobuf");
    up.send(&request.body(protobuf)).good();
    other.publish("news", &message("news"));
    let event = |up: &Up| up.read(&up.reading(&["news"])).event();
    assert_eq!(event(&up).data, event(&other).data);
    assert_eq!(event(&up).json()["payload"]["list"][1], json!([2.5, "three"]));
}

#[test]
fn a_repeated_message_is_stored_once() {
    let up = Up::start();
    let message = json!({"message_id": MESSAGE_ID, "payload": {"value": 1}});
    let send = || up.send(&up.publishing("news", "").json(&message));
    let first = send();
    assert_eq!(first.header("Forebay-Duplicate"), None);
    // Also after others, and whatever else it asks for.
    up.delta("news", 2);
    for query in ["", "?expect=7"] {
        let again = up.send(&up.publishing("news", query).json(&message));
        assert_eq!(again.good(), first.good());
        assert_eq!(again.header("Forebay-Duplicate"), Some("true"));
    }
    assert_eq!(up.all_events("news").len(), 2);
}

#[test]
fn an_expected_offset_keeps_writers_apart() {
    let up = Up::start();
    let append = |expect: u64, value: u64| {
        let request = up.publishing("news", &format!("?expect={expect}"));
        up.send(&request.json(&json!({"payload": {"value": value}})))
    };
    let first = append(0, 1).good().to_owned();
    let conflict = append(0, 2);
    assert_eq!(conflict.status(), 409);
    assert_eq!(conflict.text(), format!(r#"{{"error":"conflict","head":"{first}"}}"#));
    append(1, 3).good();
    let stored: Vec<_> =
        up.all_events("news").iter().map(|(_, data)| data["payload"].clone()).collect();
    assert_eq!(stored, [json!({"value": 1}), json!({"value": 3})]);
}

#[test]
fn an_accepted_message_is_delivered() {
    let up = Up::start();
    let mut stream = up.read(&up.reading(&["news"]));
    for number in 0..10 {
        let request = up.publishing("news", "?ack=accepted");
        let accepted = up.send(&request.json(&json!({"payload": {"value": number}})));
        assert_eq!(accepted.answer(), (202, ""));
    }
    let values: Vec<_> = stream.events(10).iter().map(|event| event.value()).collect();
    assert_eq!(values, (0..10).map(Value::from).collect::<Vec<_>>());
}

#[test]
fn a_chunked_body_is_a_body() {
    let up = Up::start();
    let chunks = [r#"{"payload":"#, r#"{"value":"in two chunks"}}"#];
    let chunks = chunks.map(|chunk| format!("{:x}\r\n{chunk}\r\n", chunk.len()));
    let body = chunks.concat() + "0\r\n\r\n";
    let token = up.dir.token(Role::Publisher, ORG, &["news"]);
    let request = post(format!("/publish/{ORG}/news"))
        .bearer(&token)
        .header("Content-Type", "application/json")
        .header("Transfer-Encoding", "chunked")
        .body(body);
    up.send(&request).good();
    assert_eq!(up.all_events("news")[0].1["payload"], json!({"value": "in two chunks"}));
}
