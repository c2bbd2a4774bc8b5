//! The status table of `docs/channels.md`, "Subscribe", and where readers are put.

#![allow(clippy::unwrap_used)]

use zhttp::composite;

use super::super::heads::HeadsReader;
use super::*;
use crate::auth::Role;
use crate::store::contract::{RedisServer, append, event};
use crate::store::{Retention, Store};
use crate::testing::{NOW_MS, NOW_S, TestStore, answer, header, token, token_at, verifier};
use crate::web::tests::{head_of, headers_of};

fn room(name: &str) -> ChannelName {
    ChannelName::new("acme", name).unwrap()
}

fn subscribe<S: Store>(store: S) -> Subscribe<S> {
    let heads = HeadsReader::new(store.clone());
    let placer = Placer { store, heads, retention: Retention::default() };
    Subscribe { placer, verifier: verifier(Role::Subscriber), close_at_expiry: false }
}

struct Bench {
    store: TestStore,
    subscribe: Subscribe<TestStore>,
    token: String,
}

impl Bench {
    async fn new() -> Self {
        let store = TestStore::open().await;
        let subscribe = subscribe(store.clone());
        Bench { store, subscribe, token: token(Role::Subscriber, "acme", &["*"]) }
    }

    /// Subscribes as an EventSource does.
    async fn ask(&self, query: &str) -> Response {
        let uri = format!("/events/acme?token={}&{query}", self.token);
        self.request(&uri, &[("Accept", "text/event-stream")]).await
    }

    async fn request(&self, uri: &str, headers: &[(&str, &str)]) -> Response {
        let headers = headers_of(headers);
        self.subscribe.answer(&head_of("GET", uri, &headers), true, NOW_MS).await
    }
}

/// The channels of the hold and their cursors.
fn held(response: &Response) -> Vec<(&str, Cursor)> {
    let hold = response.hold.as_ref().expect("a hold");
    hold.channels.iter().map(|channel| (channel.name.as_str(), channel.cursor)).collect()
}

#[tokio::test]
async fn a_reader_is_held_from_the_oldest_event() {
    let bench = Bench::new().await;
    bench.store.put(&room("a"), "1", false).await;
    let response = bench.ask("channel_id=a").await;
    assert_eq!(answer(&response), (200, "retry: 500\n\n"));
    let headers: Vec<_> =
        response.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let expected =
        ["Content-Type: text/event-stream", "Cache-Control: no-cache", "X-Accel-Buffering: no"];
    assert_eq!(headers, expected);
    assert_eq!(held(&response), [("acme:a", Cursor::START)]);
    let hold = response.hold.unwrap();
    assert_eq!(hold.format, Format::Sse);
    assert_eq!((hold.expires, hold.notify), (None, false));
}

#[tokio::test]
async fn tokens_are_checked() {
    let bench = Bench::new().await;
    let ask = |token: String| async move { format!("/events/acme?channel_id=a&token={token}") };
    let wrong = [
        (String::new(), (401, "Invalid token")),
        ("x".to_owned(), (401, "Invalid token")),
        (token_at(Role::Subscriber, "acme", &["a"], NOW_S - 1000), (401, "Token expired")),
        (token(Role::Subscriber, "other", &["a"]), (403, "Invalid token claims")),
        (token(Role::Subscriber, "acme", &["b"]), (403, "Invalid token claims")),
    ];
    for (token, expected) in wrong {
        let response = bench.request(&ask(token).await, &[]).await;
        assert_eq!(answer(&response), expected);
    }
    // A page names the token in the query, others in a header.
    let bearer = format!("Bearer {}", token(Role::Subscriber, "acme", &["a"]));
    let response = bench.request("/events/acme?channel_id=a", &[("Authorization", &bearer)]).await;
    assert_eq!(response.code, 200);
    // What is wrong with the request comes first.
    let response = bench.request("/events/acme", &[]).await;
    assert_eq!(answer(&response), (400, "Missing channel_id"));
}

#[tokio::test]
async fn what_cannot_be_is_answered_so() {
    let bench = Bench::new().await;
    for path in ["/events/", "/events/acme/news"] {
        assert_eq!(answer(&bench.request(path, &[]).await), (404, "Not found"));
    }
    let uri = format!("/events/acme?channel_id=a&token={}", bench.token);
    let response = bench.subscribe.answer(&head_of("POST", &uri, &[]), true, NOW_MS).await;
    assert_eq!((response.code, header(&response, "Allow")), (405, Some("GET, OPTIONS")));
    let response = bench.subscribe.answer(&head_of("OPTIONS", &uri, &[]), true, NOW_MS).await;
    assert_eq!(response.code, 204);
    let response = bench.subscribe.answer(&head_of("GET", &uri, &[]), false, NOW_MS).await;
    assert_eq!(answer(&response), (501, "This edge does not hold connections"));
}

#[tokio::test]
async fn a_reader_that_has_the_end_is_stopped() {
    let bench = Bench::new().await;
    let first = bench.store.put(&room("a"), "1", false).await;
    let end = bench.store.put(&room("a"), "2", true).await;
    let response = bench.ask(&format!("channel_id=a&last_event_id={end}")).await;
    assert_eq!(answer(&response), (204, ""));
    assert!(response.hold.is_none());
    let response = bench.ask(&format!("channel_id=a&last_event_id={first}")).await;
    assert_eq!(held(&response), [("acme:a", first)]);
    let response = bench.ask("channel_id=a").await;
    assert_eq!(held(&response), [("acme:a", Cursor::START)]);
    // Who wants what comes from now on gets the next epoch.
    let response = bench.ask("channel_id=a&last_event_id=$").await;
    assert_eq!(held(&response), [("acme:a", end)]);
    assert_eq!(answer(&response), (200, &*format!("retry: 500\n\nid: {end}\n\n")));
}

#[tokio::test]
async fn from_now_on_is_a_place_that_a_reader_can_come_back_to() {
    let bench = Bench::new().await;
    let a = bench.store.put(&room("a"), "1", false).await;
    let now = bench.ask("channel_id=a&channel_id=b&last_event_id=$").await;
    assert_eq!(held(&now), [("acme:a", a), ("acme:b", Cursor::START)]);
    let (_, body) = answer(&now);
    let id = body.strip_prefix("retry: 500\n\nid: ").unwrap().strip_suffix("\n\n").unwrap();
    // It breaks off before the first event, and misses none of these.
    bench.store.put(&room("a"), "2", false).await;
    bench.store.put(&room("b"), "1", false).await;
    let again = bench.ask(&format!("channel_id=a&channel_id=b&last_event_id={id}")).await;
    assert_eq!(held(&again), held(&now));
    assert_eq!(answer(&again).1, "retry: 500\n\n");
}

#[tokio::test]
async fn all_channels_must_have_ended() {
    let bench = Bench::new().await;
    let a = bench.store.put(&room("a"), "1", true).await;
    let b = bench.store.put(&room("b"), "1", false).await;
    let composite = |cursors: &[(&str, Cursor)]| {
        let mut out = Vec::new();
        composite::encode(cursors.iter().copied(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let query = |cursor: &str| format!("channel_id=a&channel_id=b&last_event_id={cursor}");
    let cursor = composite(&[("acme:a", a), ("acme:b", b)]);
    let response = bench.ask(&query(&cursor)).await;
    assert_eq!(held(&response), [("acme:a", a), ("acme:b", b)]);
    let end = bench.store.put(&room("b"), "2", true).await;
    let cursor = composite(&[("acme:a", a), ("acme:b", end)]);
    assert_eq!(bench.ask(&query(&cursor)).await.code, 204);
    // One that is not in it begins with its oldest event.
    let cursor = composite(&[("acme:b", b)]);
    let response = bench.ask(&query(&cursor)).await;
    assert_eq!(held(&response), [("acme:a", Cursor::START), ("acme:b", b)]);
}

#[tokio::test]
async fn a_cursor_beyond_the_head_is_told_of_a_gap() {
    let bench = Bench::new().await;
    let head = bench.store.put(&room("a"), "1", false).await;
    let lost = head.plus(3);
    let response = bench.ask(&format!("channel_id=a&last_event_id={lost}")).await;
    assert_eq!(held(&response), [("acme:a", head)]);
    let (_, body) = answer(&response);
    let block = format!("retry: 500\n\nevent: control\nid: {head}\ndata: ");
    let data = body.strip_prefix(&block).unwrap().strip_suffix("\n\n").unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["control_type"], "gap");
    assert_eq!(data["from"], lost.to_string());
    assert_eq!(data["to"], head.plus(1).to_string());
    assert_eq!((&data["channel"], &data["reason"]), (&"a".into(), &"recreated".into()));
}

#[tokio::test]
async fn many_gaps_have_one_id_and_fit_a_packet() {
    let bench = Bench::new().await;
    let mut cursors = Vec::new();
    for number in 0..100 {
        let channel = room(&format!("a-rather-long-name-of-a-channel-{number}"));
        cursors.push((channel.to_string(), bench.store.put(&channel, "1", false).await.plus(9)));
    }
    let mut cursor = Vec::new();
    let named = cursors.iter().map(|(name, cursor)| (name.as_str(), *cursor));
    composite::encode(named, &mut cursor).unwrap();
    let mut query = format!("last_event_id={}", String::from_utf8(cursor).unwrap());
    for (name, _) in &cursors {
        query.push_str(&format!("&channel_id={}", name.split_once(':').unwrap().1));
    }
    let response = bench.ask(&query).await;
    let (code, body) = answer(&response);
    assert!(code == 200 && body.len() < 8192, "{}", body.len());
    let ids: Vec<_> = body.lines().filter_map(|line| line.strip_prefix("id: ")).collect();
    let told = body.matches("event: control").count();
    assert!(ids.len() == 1 && told > 10, "{told} were told");
    // The id says where the connection is held.
    let id = composite::decode(ids[0]).unwrap();
    for (index, (name, cursor)) in held(&response).into_iter().enumerate() {
        assert_eq!(id.cursor_of(name), Some(cursor));
        assert_eq!(cursor == BEFORE_ALL_LOGS, index >= told);
    }
}

/// A server that has lost what was appended after its last snapshot, and nobody else who saw it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_a_lost_tail_is_put_where_it_is_told() {
    let mut server = RedisServer::prepare(false);
    server.resume().await;
    let store = server.open().await;
    let kept = append(&store, &room("a"), event("1")).await;
    server.ask::<()>(&["SAVE"]).await;
    let lost = append(&store, &room("a"), event("2")).await;
    server.kill();
    server.resume().await;
    let store = server.open().await;
    let subscribe = subscribe(store.clone());
    let token = token(Role::Subscriber, "acme", &["*"]);
    let ask = async |cursor: Cursor| {
        let uri = format!("/events/acme?token={token}&channel_id=a&last_event_id={cursor}");
        subscribe.answer(&head_of("GET", &uri, &[]), true, NOW_MS).await
    };
    // One that has what there is goes on, and causes nothing.
    assert_eq!(held(&ask(kept).await), [("acme:a", kept)]);
    assert_eq!(store.heads(&[room("a")]).await.unwrap()[0].id, kept);
    // One that has more is held where it is, and behind it the log has gone on: the edge tells it.
    let response = ask(lost).await;
    assert_eq!((held(&response), answer(&response).1), (vec![("acme:a", lost)], "retry: 500\n\n"));
    let head = store.heads(&[room("a")]).await.unwrap()[0].id;
    assert!(head > lost && head.offset == 1, "{head} after {lost}");
    // Once. What was never there is told by the response.
    ask(lost).await;
    let response = ask(head.plus(7)).await;
    assert_eq!(held(&response), [("acme:a", head)]);
    assert!(answer(&response).1.contains("recreated"));
    assert_eq!(store.heads(&[room("a")]).await.unwrap()[0].id, head);
}

#[tokio::test]
async fn while_the_store_is_away_an_event_source_waits() {
    let bench = Bench::new().await;
    bench.store.set_away(true);
    let response = bench.ask("channel_id=a&last_event_id=5-7").await;
    assert_eq!(answer(&response), (200, "retry: 500\n\n"));
    assert_eq!(held(&response), [("acme:a", Cursor::new(5, 7))]);
    let response = bench.ask("channel_id=a").await;
    assert_eq!(held(&response), [("acme:a", Cursor::START)]);
    // There is no cursor to hold it at: the stream ends, and it comes back.
    let response = bench.ask("channel_id=a&last_event_id=$").await;
    assert_eq!(answer(&response), (200, "retry: 500\n\n"));
    assert!(response.hold.is_none());

    let uri = format!("/events/acme?channel_id=a&token={}", bench.token);
    for accept in ["*/*", "application/json, text/html"] {
        let response = bench.request(&uri, &[("Accept", accept)]).await;
        assert_eq!(answer(&response), (503, "Store unavailable"));
        assert_eq!(header(&response, "Retry-After"), Some("1"));
    }
    let accept = "text/html, TEXT/event-stream;q=0.9";
    assert_eq!(bench.request(&uri, &[("Accept", accept)]).await.code, 200);
}

#[tokio::test]
async fn a_connection_may_end_with_its_token() {
    let mut bench = Bench::new().await;
    bench.subscribe.close_at_expiry = true;
    let response = bench.ask("channel_id=a").await;
    // A minute, and the leeway.
    assert_eq!(response.hold.unwrap().expires, Some(Duration::from_secs(60 + LEEWAY_S)));
}

#[tokio::test]
async fn many_at_once_are_few_reads() {
    let bench = std::sync::Arc::new(Bench::new().await);
    let head = bench.store.put(&room("a"), "1", false).await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let bench = std::sync::Arc::clone(&bench);
        asking.spawn(async move {
            let response = bench.ask("channel_id=a&last_event_id=$").await;
            held(&response)[0].1
        });
    }
    assert!(asking.join_all().await.iter().all(|cursor| *cursor == head));
    assert!(bench.store.heads_calls() < 250, "{} reads", bench.store.heads_calls());
}
