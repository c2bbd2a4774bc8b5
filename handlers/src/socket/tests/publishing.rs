//! Publishing by a socket.

use super::*;
use crate::store::{RangeLimits, Rate};

const MESSAGE: &str = "6f1a8f5e-3e9a-4a52-9b3b-2f0b6a7c1d84";

async fn stored(bench: &Bench, channel: &str) -> Vec<Value> {
    let limits = RangeLimits { events_max: u32::MAX, bytes_max: u64::MAX };
    let range = bench.store.range(&room(channel), Cursor::START, limits).await.unwrap();
    range.events.iter().map(|event| serde_json::from_slice(&event.data).unwrap()).collect()
}

fn publish(more: &Value) -> Value {
    let mut request = json!({"type": "publish", "channel": "news"});
    let members = more.as_object().unwrap().clone();
    request.as_object_mut().unwrap().extend(members);
    request
}

#[tokio::test]
async fn a_message_is_stored_once_and_answered_with_its_id() {
    let bench = Bench::new().await;
    let mut client = bench.all().await;
    let message = publish(&json!({"id": "p", "message_id": MESSAGE, "channel_id": "news",
        "phase": "PHASE_DELTA", "sequence": 7, "payload": {"b": 1, "a": [true]}}));
    let heard = client.ask(&message).await;
    let head = client.ask(&json!({"type": "head", "channel": "news"})).await;
    let id = &head["result"]["head"];
    assert_eq!(heard, json!({"type": "answer", "id": "p", "result": {"id": id}}));
    let again = client.ask(&message).await;
    assert_eq!(again["result"], json!({"id": id, "duplicate": true}));
    let expected = json!({"event_type": "stream", "message_id": MESSAGE, "channel_id": "news",
        "phase": "PHASE_DELTA", "sequence": 7, "payload": {"a": [true], "b": 1}});
    assert_eq!(stored(&bench, "news").await, [expected]);
    assert_eq!(bench.outcomes(), [("accepted", "duplicate", 1), ("accepted", "stored", 1)]);
}

#[tokio::test]
async fn messages_are_stored_in_their_order() {
    let bench = Bench::new().await;
    let mut client = bench.all().await;
    let request = |sequence: u64| {
        let ack = if sequence % 3 == 1 { "accepted" } else { "stored" };
        publish(&json!({"sequence": sequence, "ack": ack}))
    };
    let requests: Vec<Value> = (0..100).map(request).collect();
    for (sequence, heard) in client.ask_all(&requests).await.iter().enumerate() {
        assert_eq!(heard["type"], "answer");
        assert_eq!(heard["result"].get("id").is_none(), sequence % 3 == 1, "{heard}");
    }
    bench.sockets.publisher.as_ref().unwrap().drained().await;
    let sequences: Vec<_> = stored(&bench, "news").await;
    let sequences: Vec<_> = sequences.iter().map(|event| event["sequence"].as_u64()).collect();
    assert_eq!(sequences, (0..100).map(Some).collect::<Vec<_>>());
}

/// The first handler does half of it, or all of it, and dies; the next does it again.
#[tokio::test]
async fn what_is_done_twice_is_stored_once() {
    let bench = Bench::new().await;
    let client = bench.all().await;
    let requests: Vec<String> = (0..5)
        .map(|sequence| publish(&json!({"sequence": sequence, "ack": "stored"})).to_string())
        .collect();
    let ids = |answer: &Answer| -> Vec<Value> {
        let heard = answer.bodies.iter().map(|body| serde_json::from_str::<Value>(body).unwrap());
        heard.map(|heard| heard["result"]["id"].clone()).collect()
    };
    let whole = client.said(&requests);
    let half = client.said(&requests[..3]);
    let first = bench.sockets.message(&half, NOW_MS).await;
    let second = bench.sockets.message(&whole, NOW_MS).await;
    assert_eq!(ids(&second)[..3], ids(&first));
    let third = bench.sockets.message(&whole, NOW_MS + 5000).await;
    assert_eq!(ids(&third), ids(&second));
    let events = stored(&bench, "news").await;
    assert_eq!(events.len(), 5);
    // The next packet says something else, even if it is the same; and so does another socket.
    let next = ClientMessages { number: whole.number + 1, ..whole.clone() };
    bench.sockets.message(&next, NOW_MS).await;
    let other = bench.all().await;
    bench.sockets.message(&other.said(&requests), NOW_MS).await;
    let events = stored(&bench, "news").await;
    let messages: std::collections::HashSet<_> =
        events.iter().map(|event| event["message_id"].as_str().unwrap()).collect();
    assert_eq!((events.len(), messages.len()), (15, 15));
}

#[tokio::test]
async fn an_expectation_is_kept_or_a_conflict() {
    let bench = Bench::new().await;
    let mut client = bench.all().await;
    let first = client.ask(&publish(&json!({"expect": 0}))).await;
    let heard = client.ask(&publish(&json!({"expect": 0, "id": 2}))).await;
    let expected = json!({"type": "error", "id": 2, "code": "conflict", "kind": "permanent",
        "message": "conflict", "data": {"head": first["result"]["id"]}});
    assert_eq!(heard, expected);
    assert_eq!(client.ask(&publish(&json!({"expect": 1}))).await["type"], "answer");
    assert_eq!(bench.outcomes(), [("accepted", "stored", 2), ("invalid", "conflict", 1)]);
}

#[tokio::test]
async fn what_is_wrong_with_a_message_is_said() {
    let bench = Bench::new().await;
    let mut client = bench.all().await;
    for (more, text) in [
        (json!({"channel_id": "other"}), "channel_id differs from the path"),
        (json!({"message_id": "7"}), "message_id is not a UUID"),
        (json!({"ack": 7}), "ack: want stored or accepted"),
        (json!({"expect": "7"}), "expect: want an offset, a number from 0"),
    ] {
        let heard = client.ask(&publish(&more)).await;
        assert_eq!((&heard["code"], &heard["message"]), (&json!("bad_request"), &json!(text)));
    }
    let heard = client.ask(&publish(&json!({"payload": 7}))).await;
    assert_eq!(heard["code"], "bad_request");
    assert!(heard["message"].as_str().unwrap().starts_with("Invalid JSON: invalid type"));
    let size = |len: usize| publish(&json!({"payload": {"x": "x".repeat(len)}}));
    let overhead = size(0).to_string().len();
    assert_eq!(client.ask(&size(16_384 - overhead)).await["type"], "answer");
    let heard = client.ask(&size(16_385 - overhead)).await;
    let text = "Message size 16385 exceeds maximum of 16384 bytes";
    assert_eq!((&heard["code"], &heard["message"]), (&json!("too_large"), &json!(text)));
    let expected = [
        ("accepted", "stored", 1),
        ("invalid", "channel_id", 1),
        ("invalid", "json", 1),
        ("invalid", "message_id", 1),
        ("invalid", "message_size", 1),
        ("invalid", "request", 2),
    ];
    assert_eq!(bench.outcomes(), expected);
}

#[tokio::test]
async fn a_channel_has_a_rate() {
    let rate = Some(Rate { messages: 1, per_ms: 3_600_000 });
    let bench = Bench::with(Some(Limits { rate, ..Limits::default() })).await;
    let mut client = bench.all().await;
    assert_eq!(client.ask(&publish(&json!({}))).await["type"], "answer");
    let heard = client.ask(&publish(&json!({}))).await;
    let expected = json!({"type": "error", "code": "rate_limited", "kind": "transient",
        "message": "Rate limit exceeded: maximum 1 requests per 3600 second(s) per channel",
        "data": {"retry_after": 3600, "limit": "channel-rate"}});
    assert_eq!(heard, expected);
    assert_eq!(bench.outcomes(), [("accepted", "stored", 1), ("rate_limited", "channel_rate", 1)]);
}

#[tokio::test]
async fn while_the_store_is_away_a_message_is_refused_or_waits() {
    let limits = Limits { accepted_messages_max: 1, rate: None, ..Limits::default() };
    let bench = Bench::with(Some(limits)).await;
    let mut client = bench.all().await;
    bench.store.set_away(true);
    let heard = client.ask(&publish(&json!({}))).await;
    let away = json!({"type": "error", "code": "unavailable", "kind": "transient",
        "message": "Store unavailable", "data": {"retry_after": 1}});
    assert_eq!(heard, away);
    let accepted = publish(&json!({"ack": "accepted", "sequence": 7}));
    assert_eq!(client.ask(&accepted).await, json!({"type": "answer", "result": {}}));
    let heard = client.ask(&accepted).await;
    let expected = [json!("unavailable"), json!("Too many accepted messages wait")];
    assert_eq!([&heard["code"], &heard["message"]], [&expected[0], &expected[1]]);
    bench.store.set_away(false);
    bench.sockets.publisher.as_ref().unwrap().drained().await;
    assert_eq!(stored(&bench, "news").await.len(), 1);
    let expected =
        [("accepted", "stored", 1), ("internal", "queue_full", 1), ("internal", "store", 1)];
    assert_eq!(bench.outcomes(), expected);
}
