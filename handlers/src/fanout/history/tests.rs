//! History and long polls, against a store and a feeder.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::super::feeder::{Feeder, FeederStats};
use super::super::heads::HeadsReader;
use super::*;
use crate::attach::EdgeSender;
use crate::auth::Role;
use crate::health::Health;
use crate::store::Retention;
use crate::testing::{NOW_MS, TestStore, answer, eventually, token, verifier};
use crate::web::tests::head_of;

struct Bench {
    store: TestStore,
    history: History<TestStore, EdgeSender>,
    stats: Arc<FeederStats>,
    health: Arc<Health>,
    token: String,
}

impl Bench {
    async fn new() -> Arc<Self> {
        let store = TestStore::open().await;
        let heads = HeadsReader::new(store.clone());
        let stats = Arc::new(FeederStats::default());
        let from = Bytes::from_static(b"fan");
        let feeder =
            Feeder::start(store.clone(), heads, (from, Retention::default()), Arc::clone(&stats));
        let health = Health::new();
        let draining = health.draining();
        let verifier = verifier(Role::Subscriber);
        let history = History { pages: Pages(store.clone()), verifier, feeder, draining };
        let token = token(Role::Subscriber, "acme", &["a*"]);
        Arc::new(Bench { store, history, stats, health, token })
    }

    async fn ask(&self, path_and_query: &str) -> Response {
        let mark = if path_and_query.contains('?') { '&' } else { '?' };
        let uri = format!("/channels/{path_and_query}{mark}token={}", self.token);
        self.history.answer(&head_of("GET", &uri, &[]), NOW_MS).await
    }

    async fn json(&self, path_and_query: &str) -> Value {
        let response = self.ask(path_and_query).await;
        let (code, body) = answer(&response);
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(body).unwrap()
    }
}

fn room() -> ChannelName {
    ChannelName::new("acme", "a").unwrap()
}

#[tokio::test]
async fn history_is_read_in_pages() {
    let bench = Bench::new().await;
    let first = bench.store.put(&room(), r#"{"n":1}"#, false).await;
    let second = bench.store.put(&room(), r#"{"n":2}"#, false).await;
    let third = bench.store.put(&room(), r#"{"n":3}"#, true).await;
    let response = bench.ask("acme/a?limit=2").await;
    let expected = format!(
        r#"{{"channel":"a","events":[{{"id":"{first}","event":"stream","data":{{"n":1}}}},{{"id":"{second}","event":"stream","data":{{"n":2}}}}],"head":"{third}","ended":true,"gap":null,"next":"{second}"}}"#
    );
    assert_eq!(answer(&response), (200, &*expected));
    let page = bench.json(&format!("acme/a?after={second}")).await;
    assert_eq!(
        (&page["events"][0]["data"]["n"], &page["next"]),
        (&json!(3), &json!(third.to_string()))
    );
    // Nothing follows an END, so nobody waits for it.
    let page = bench.json(&format!("acme/a?after={third}&wait=30")).await;
    assert_eq!((&page["events"], &page["next"]), (&json!([]), &json!(third.to_string())));
    let head = bench.json("acme/a/head").await;
    assert_eq!(head, json!({"head": third.to_string(), "ended": true}));
}

#[tokio::test]
async fn an_unknown_channel_is_empty() {
    let bench = Bench::new().await;
    let page = bench.json("acme/a").await;
    let expected = json!({
        "channel": "a", "events": [], "head": "0-0", "ended": false, "gap": null, "next": "0-0"
    });
    assert_eq!(page, expected);
    assert_eq!(bench.json("acme/a/head").await, json!({"head": "0-0", "ended": false}));
    let page = bench.json("acme/a?after=7-7").await;
    assert_eq!(page["next"], "7-7");
}

#[tokio::test]
async fn gaps_are_told() {
    let bench = Bench::new().await;
    let old = bench.store.put(&room(), "1", false).await;
    let page = bench.json(&format!("acme/a?after={}&wait=30", old.plus(2))).await;
    let to = old.plus(1).to_string();
    let expected = json!({"from": old.plus(2).to_string(), "to": to, "reason": "recreated"});
    assert_eq!((&page["gap"], &page["next"]), (&expected, &json!(old.to_string())));

    assert!(bench.store.delete(&room(), Some(old)).await.unwrap());
    let new = bench.store.put(&room(), "2", false).await;
    let page = bench.json(&format!("acme/a?after={old}")).await;
    let expected = json!({"from": old.to_string(), "to": new.to_string(), "reason": "recreated"});
    assert_eq!((&page["gap"], &page["events"][0]["id"]), (&expected, &json!(new.to_string())));
    // Without a cursor nothing is missing.
    assert_eq!(bench.json("acme/a").await["gap"], Value::Null);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_poll_ends_with_the_first_event() {
    let bench = Bench::new().await;
    let head = bench.store.put(&room(), "1", false).await;
    let polls = ["acme/a?after=$&wait=30".to_owned(), format!("acme/a?after={head}&wait=30")];
    let polls: Vec<_> = polls
        .into_iter()
        .map(|poll| {
            let bench = Arc::clone(&bench);
            tokio::spawn(async move { bench.json(&poll).await })
        })
        .collect();
    eventually("both wait", || async {
        bench.stats.waits.load(std::sync::atomic::Ordering::Relaxed) == 2
    })
    .await;
    assert!(polls.iter().all(|poll| !poll.is_finished()));
    let next = bench.store.put(&room(), "2", false).await;
    for poll in polls {
        let page = poll.await.unwrap();
        assert_eq!(page["events"][0]["id"], next.to_string());
    }
}

#[tokio::test]
async fn a_long_poll_ends_with_its_time_and_with_a_drain() {
    let bench = Bench::new().await;
    let page = bench.json("acme/a?wait=1").await;
    assert_eq!(page["events"], json!([]));
    let polling = Arc::clone(&bench);
    let poll = tokio::spawn(async move { polling.json("acme/a?wait=30").await });
    bench.health.drain();
    let page = tokio::time::timeout(Duration::from_secs(20), poll).await.unwrap().unwrap();
    assert_eq!(page["next"], "0-0");
}

#[tokio::test]
async fn what_is_wrong_is_said() {
    let bench = Bench::new().await;
    for (ask, expected) in [
        ("acme/a?limit=0", (400, "Invalid limit: 1 to 1000 events")),
        ("acme/a?limit=1001", (400, "Invalid limit: 1 to 1000 events")),
        ("acme/a?wait=31", (400, "Invalid wait: 0 to 30 seconds")),
        ("acme/a?wait=x", (400, "Invalid wait: 0 to 30 seconds")),
        (
            "acme/a?after=5",
            (400, "Invalid after: a cursor is <epoch>-<offset>, two decimal numbers"),
        ),
        ("acme/a%20b", (400, "Invalid path: a channel is 1 to 128 of A-Z a-z 0-9 _ . : ~ -")),
        ("acme/b", (403, "Invalid token claims")),
        ("acme/b/head", (403, "Invalid token claims")),
        ("acme", (404, "Not found")),
        ("acme/a/tail", (404, "Not found")),
        // A channel of that name; the token covers another one.
        ("acme/head", (403, "Invalid token claims")),
    ] {
        assert_eq!(answer(&bench.ask(ask).await), expected, "{ask}");
    }
    let response = bench.history.answer(&head_of("GET", "/channels/acme/a", &[]), NOW_MS).await;
    assert_eq!(answer(&response), (401, "Invalid token"));
    bench.store.set_away(true);
    assert_eq!(answer(&bench.ask("acme/a").await), (503, "Store unavailable"));
    assert_eq!(answer(&bench.ask("acme/a/head").await), (503, "Store unavailable"));
}
