//! The status table of `docs/channels.md`, "Publish", row by row.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use forebay_proto::PublishRequest;
use prost::Message;
use zhttp::Cursor;

use super::*;
use crate::auth::Role;
use crate::store::{EmbeddedStore, Fsync, RangeLimits, Rate};
use crate::testing::{NOW_S, TestStore, answer, eventually, header, token, token_at};
use crate::web::tests::{head_of, headers_of};

const PATH: &str = "/publish/acme/news";
const MESSAGE: &str = "6f1a8f5e-3e9a-4a52-9b3b-2f0b6a7c1d84";

struct Bench {
    store: TestStore,
    publisher: Publisher<TestStore>,
}

impl Bench {
    async fn new() -> Self {
        Bench::with(Limits { rate: None, ..Limits::default() }).await
    }

    async fn with(limits: Limits) -> Self {
        let store = TestStore::open().await;
        let verifier = crate::testing::verifier(Role::Publisher);
        Bench { publisher: Publisher::new(store.clone(), verifier, limits), store }
    }

    /// Sends JSON with a good token.
    async fn json(&self, uri: &str, body: &str) -> Response {
        let token = format!("Bearer {}", token(Role::Publisher, "acme", &["news*"]));
        let headers = [("Authorization", token.as_str()), ("Content-Type", "application/json")];
        self.send(uri, &headers, body.as_bytes()).await
    }

    async fn send(&self, uri: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let headers = headers_of(headers);
        let head = head_of("POST", uri, &headers);
        answer_to(&self.publisher, &head, &Bytes::copy_from_slice(body), NOW_S).await
    }

    async fn stored(&self) -> Vec<String> {
        let channel = ChannelName::new("acme", "news").unwrap();
        let limits = RangeLimits { events_max: u32::MAX, bytes_max: u64::MAX };
        let range = self.store.range(&channel, Cursor::START, limits).await.unwrap();
        range
            .events
            .iter()
            .map(|event| {
                let text = std::str::from_utf8(&event.data).unwrap();
                text.split_once(r#""sequence":"#).unwrap().1.split_once(',').unwrap().0.to_owned()
            })
            .collect()
    }

    fn outcomes(&self) -> Vec<(&'static str, &'static str, u64)> {
        let totals = self.publisher.outcomes().totals();
        totals.into_iter().map(|(outcome, reason, n)| (outcome.as_str(), reason, n)).collect()
    }
}

#[tokio::test]
async fn a_message_is_stored_and_answered_with_its_id() {
    let bench = Bench::new().await;
    let body = format!(r#"{{"message_id":"{MESSAGE}","sequence":1}}"#);
    let stored = bench.json(PATH, &body).await;
    let (code, id) = answer(&stored);
    assert_eq!((code, id.parse::<Cursor>().unwrap().offset), (200, 1));
    assert_eq!(header(&stored, "Content-Type"), Some("text/plain; charset=utf-8"));
    assert_eq!(header(&stored, "Forebay-Duplicate"), None);

    let again = bench.json(PATH, &body).await;
    assert_eq!(answer(&again), (200, id));
    assert_eq!(header(&again, "Forebay-Duplicate"), Some("true"));
    assert_eq!(bench.stored().await, ["1"]);
    assert_eq!(bench.outcomes(), [("accepted", "duplicate", 1), ("accepted", "stored", 1)]);
}

#[tokio::test]
async fn protobuf_is_what_no_content_type_means() {
    let bench = Bench::new().await;
    let token = format!("Bearer {}", token(Role::Publisher, "acme", &["*"]));
    let request = PublishRequest { channel_id: "news".to_owned(), ..PublishRequest::default() };
    let headers = [("Authorization", token.as_str())];
    let stored = bench.send(PATH, &headers, &request.encode_to_vec()).await;
    assert_eq!(stored.code, 200);
    let refused = bench.send(PATH, &headers, b"\xff").await;
    assert_eq!(answer(&refused), (400, "Invalid protobuf"));
    let headers = [headers[0], ("Content-Type", "text/html")];
    let refused = bench.send(PATH, &headers, b"").await;
    assert_eq!(answer(&refused), (415, "Unsupported content type text/html"));
}

#[tokio::test]
async fn what_is_wrong_with_a_message_is_said() {
    let bench = Bench::new().await;
    for (body, text) in [
        (r#"{"channel_id":"other"}"#, "channel_id differs from the path"),
        (r#"{"message_id":"7"}"#, "message_id is not a UUID"),
        ("7", "Invalid JSON: expected an object at line 1 column 1"),
    ] {
        assert_eq!(answer(&bench.json(PATH, body).await), (400, text));
    }
    for (uri, text) in [
        ("/publish/acme/a%20b", "Invalid path: a channel is 1 to 128 of A-Z a-z 0-9 _ . : ~ -"),
        ("/publish/a.b/news", "Invalid path: an org is 1 to 64 of A-Z a-z 0-9 _ -"),
        ("/publish/acme/news?expect=-1", "Invalid expect: an offset is a number from 0"),
        ("/publish/acme/news?expect=", "Invalid expect: an offset is a number from 0"),
        ("/publish/acme/news?ack=later", "Invalid ack: stored or accepted"),
    ] {
        assert_eq!(answer(&bench.json(uri, "{}").await), (400, text), "{uri}");
    }
    assert_eq!(answer(&bench.json("/publish/acme", "{}").await), (404, "Not found"));
    assert_eq!(answer(&bench.json("/publish/acme/news/x", "{}").await), (404, "Not found"));
}

#[tokio::test]
async fn tokens_are_checked_in_order() {
    let bench = Bench::new().await;
    let bench = &bench;
    let send = |header: Option<String>| async move {
        let headers: Vec<_> = header.iter().map(|value| ("Authorization", &**value)).collect();
        let response = bench.send(PATH, &headers, b"").await;
        (answer(&response).0, answer(&response).1.to_owned())
    };
    let bearer = |org, channel, now_s| {
        Some(format!("Bearer {}", token_at(Role::Publisher, org, &[channel], now_s)))
    };
    let said = |code, text: &str| (code, text.to_owned());
    assert_eq!(send(None).await, said(401, "Missing authorization header"));
    assert_eq!(send(Some("Basic x".into())).await, said(401, "Invalid authorization format"));
    assert_eq!(send(Some("Bearer x".into())).await, said(401, "Token validation failed"));
    let expired = bearer("acme", "news", NOW_S - 1000);
    assert_eq!(send(expired).await, said(401, "Token expired"));
    let wrong = said(403, "Token not valid for this channel");
    assert_eq!(send(bearer("other", "news", NOW_S)).await, wrong);
    assert_eq!(send(bearer("acme", "other", NOW_S)).await, wrong);
    // The path comes before the token, the token before the size.
    let response = bench.send("/publish/a.b/c", &[], b"").await;
    assert_eq!(response.code, 400);
}

#[tokio::test]
async fn a_size_that_is_named_is_refused_before_the_scope() {
    let bench = Bench::new().await;
    let admit = |length, channel, kind: &str| {
        let token = format!("Bearer {}", token(Role::Publisher, "acme", &[channel]));
        let headers = headers_of(&[("Authorization", &token), ("Content-Type", kind)]);
        let head = RequestHead { content_length: Some(length), ..head_of("POST", PATH, &headers) };
        let response = bench.publisher.admit(&head, NOW_S).map(|_| ());
        response.map_err(|response| answer(&response).1.to_owned())
    };
    let too_large = |size: u64| Err(format!("Message size {size} exceeds maximum of 16384 bytes"));
    assert_eq!(admit(16_385, "other", "application/x-protobuf"), too_large(16_385));
    assert_eq!(admit(16_385, "news", "text/html"), too_large(16_385));
    assert_eq!(admit(16_384, "news", "application/x-protobuf"), Ok(()));
    // It may be a batch.
    assert_eq!(admit(16_385, "news", "application/json"), Ok(()));
    let batch = "Batch size 1048577 exceeds maximum of 1048576 bytes";
    assert_eq!(admit(1_048_577, "news", "application/x-ndjson"), Err(batch.to_owned()));

    let json = format!(r#"{{"payload":{{"x":"{}"}}}}"#, "x".repeat(16_384));
    let response = bench.json(PATH, &json).await;
    assert_eq!(answer(&response), (413, "Message size 16404 exceeds maximum of 16384 bytes"));
}

#[tokio::test]
async fn a_message_may_be_limited_to_less() {
    let limits = Limits { message_bytes_max: 20, rate: None, ..Limits::default() };
    let bench = Bench::with(limits).await;
    assert_eq!(bench.json(PATH, r#"{"sequence":12}"#).await.code, 200);
    let refused = bench.json(PATH, r#"{"sequence":1234567890}"#).await;
    assert_eq!(answer(&refused), (413, "Message size 23 exceeds maximum of 20 bytes"));
}

#[tokio::test]
async fn an_expectation_that_does_not_hold_is_a_conflict() {
    let bench = Bench::new().await;
    let first = bench.json("/publish/acme/news?expect=0", "{}").await;
    let (code, id) = answer(&first);
    assert_eq!(code, 200);
    let second = bench.json("/publish/acme/news?expect=0", "{}").await;
    let body = format!(r#"{{"error":"conflict","head":"{id}"}}"#);
    assert_eq!(answer(&second), (409, &*body));
    assert_eq!(header(&second, "Content-Type"), Some("application/json"));
    assert_eq!(bench.json("/publish/acme/news?expect=1", "{}").await.code, 200);
    let batch = bench.json("/publish/acme/news?expect=2", "[{}]").await;
    assert_eq!(answer(&batch), (400, "expect is not for batches"));
}

#[tokio::test]
async fn a_channel_has_a_rate() {
    let rate = Some(Rate { messages: 1, per_ms: 3_600_000 });
    let bench = Bench::with(Limits { rate, ..Limits::default() }).await;
    assert_eq!(bench.json(PATH, "{}").await.code, 200);
    let refused = bench.json(PATH, "{}").await;
    let text = "Rate limit exceeded: maximum 1 requests per 3600 second(s) per channel";
    assert_eq!(answer(&refused), (429, text));
    assert_eq!(header(&refused, "Retry-After"), Some("3600"));
    assert_eq!(header(&refused, "Forebay-Limit"), Some("channel-rate"));
    assert_eq!(bench.json("/publish/acme/news2", "{}").await.code, 200);
}

#[tokio::test]
async fn while_the_store_is_away_nothing_is_stored() {
    let bench = Bench::new().await;
    bench.store.set_away(true);
    let refused = bench.json(PATH, "{}").await;
    assert_eq!(answer(&refused), (503, "Store unavailable"));
    assert_eq!(header(&refused, "Retry-After"), Some("1"));
    let batch = bench.json(PATH, r#"[{}, {"sequence":"x"}, {}]"#).await;
    let away = r#"{"error":"Store unavailable","retry_after":1,"status":503}"#;
    let (code, body) = answer(&batch);
    assert!(code == 200 && body.starts_with(&format!("[{away},")), "{body}");
    assert!(body.ends_with(&format!(",{away}]")), "{body}");
    bench.store.set_away(false);
    assert_eq!(bench.stored().await, Vec::<String>::new());
}

#[tokio::test]
async fn each_message_of_a_batch_is_answered() {
    let bench = Bench::new().await;
    let body = format!(
        r#"[{{"message_id":"{MESSAGE}","sequence":1}},{{"channel_id":"x"}},{{"message_id":"{MESSAGE}"}},{{"sequence":2}}]"#
    );
    let response = bench.json(PATH, &body).await;
    let (code, text) = answer(&response);
    let items: Vec<serde_json::Value> = serde_json::from_str(text).unwrap();
    let statuses: Vec<_> = items.iter().map(|item| item["status"].as_u64().unwrap()).collect();
    assert_eq!((code, statuses), (200, vec![200, 400, 200, 200]));
    assert_eq!(items[1]["error"], "channel_id differs from the path");
    assert_eq!((&items[2]["id"], &items[2]["duplicate"]), (&items[0]["id"], &true.into()));
    assert_eq!(header(&response, "Content-Type"), Some("application/json"));
    assert_eq!(bench.stored().await, ["1", "2"]);

    let token = format!("Bearer {}", token(Role::Publisher, "acme", &["*"]));
    let headers = [("Authorization", &*token), ("Content-Type", "application/x-ndjson")];
    let response = bench.send(PATH, &headers, b"{\"sequence\":3}\n{\"sequence\":4}\n").await;
    assert!(answer(&response).1.starts_with(r#"[{"id":"#));
    assert_eq!(bench.stored().await, ["1", "2", "3", "4"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn accepted_messages_keep_their_order() {
    let bench = Bench::new().await;
    let mut expected = Vec::new();
    for sequence in 0..100 {
        // Every tenth waits for its answer; it is stored behind those that did not.
        let waits = sequence % 10 == 9;
        let uri = if waits { PATH } else { "/publish/acme/news?ack=accepted" };
        let response = bench.json(uri, &format!(r#"{{"sequence":{sequence}}}"#)).await;
        assert_eq!(response.code, if waits { 200 } else { 202 });
        expected.push(sequence.to_string());
    }
    bench.publisher.drained().await;
    assert_eq!(bench.stored().await, expected);
    assert_eq!(bench.outcomes(), [("accepted", "stored", 100)]);
}

#[tokio::test]
async fn accepted_messages_wait_for_the_store_and_have_their_bound() {
    let limits = Limits { accepted_messages_max: 2, rate: None, ..Limits::default() };
    let bench = Bench::with(limits).await;
    bench.store.set_away(true);
    let uri = "/publish/acme/news?ack=accepted";
    let accepted = bench.json(uri, r#"[{"sequence":1},{"sequence":"x"},{"sequence":2}]"#).await;
    assert_eq!(answer(&accepted), (202, ""));
    let full = bench.json(uri, "{}").await;
    assert_eq!(answer(&full), (503, "Too many accepted messages wait"));
    assert_eq!(header(&full, "Retry-After"), Some("1"));
    bench.store.set_away(false);
    bench.publisher.drained().await;
    assert_eq!(bench.stored().await, ["1", "2"]);
    let expected =
        [("accepted", "stored", 2), ("invalid", "json", 1), ("internal", "queue_full", 1)];
    assert_eq!(bench.outcomes(), expected);
}

#[tokio::test]
async fn an_outage_costs_a_lane_its_patience_once() {
    let bench = Bench::new().await;
    bench.store.set_away(true);
    tokio::time::pause();
    let start = tokio::time::Instant::now();
    let uri = "/publish/acme/news?ack=accepted";
    for _ in 0..50 {
        assert_eq!(bench.json(uri, "{}").await.code, 202);
    }
    // One that wants its answer does not wait behind them, whether they are being tried or not yet.
    for _ in 0..2 {
        assert_eq!(answer(&bench.json(PATH, "{}").await), (503, "Store unavailable"));
        assert!(start.elapsed() < RETRY_MAX / 2, "{:?}", start.elapsed());
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    bench.publisher.drained().await;
    assert!(start.elapsed() < RETRY_MAX * 2, "{:?}", start.elapsed());
    assert_eq!(bench.outcomes(), [("internal", "store", 52)]);

    bench.store.set_away(false);
    assert_eq!(bench.json(uri, r#"{"sequence":1}"#).await.code, 202);
    bench.publisher.drained().await;
    assert_eq!(bench.stored().await, ["1"]);
}

#[tokio::test]
async fn other_methods_are_told_which_are_right() {
    let bench = Bench::new().await;
    let ask = |method| bench.publisher.admit(&head_of(method, PATH, &[]), NOW_S).unwrap_err();
    let refused = ask("PUT");
    assert_eq!(answer(&refused), (405, "Method not allowed"));
    assert_eq!(header(&refused, "Allow"), Some("POST, OPTIONS"));
    let preflight = ask("OPTIONS");
    assert_eq!(answer(&preflight), (204, ""));
    assert_eq!(header(&preflight, "Access-Control-Allow-Methods"), Some("POST, OPTIONS"));
    let headers = header(&preflight, "Access-Control-Allow-Headers");
    assert_eq!(headers, Some("Authorization, Content-Type, Last-Event-ID"));
}

#[tokio::test]
async fn the_lanes_end_with_the_publisher() {
    let directory = tempfile::tempdir().unwrap();
    let store = EmbeddedStore::open(directory.path(), Fsync::default()).await.unwrap();
    let verifier = crate::testing::verifier(Role::Publisher);
    drop(Publisher::new(store.clone(), verifier, Limits::default()));
    let metrics = tokio::runtime::Handle::current().metrics();
    eventually("no task is left", || async { metrics.num_alive_tasks() == 0 }).await;
    store.close().await.unwrap();
}
