//! Subscribing, and reading what is kept.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

fn subscribe(channel: &str, cursor: &str) -> Value {
    json!({"type": "subscribe", "channel": channel, "cursor": cursor})
}

fn unsubscribe(channel: &str) -> Value {
    json!({"type": "unsubscribe", "channel": channel})
}

#[tokio::test]
async fn a_reader_begins_where_it_says() {
    let bench = Bench::new().await;
    let first = bench.store.put(&room("a"), "1", false).await;
    let second = bench.store.put(&room("a"), "2", false).await;
    let mut composite = Vec::new();
    let both = [("acme:a", first), ("acme:b", second)];
    zhttp::composite::encode(both.iter().copied(), &mut composite).unwrap();
    let composite = String::from_utf8(composite).unwrap();
    let mut client = bench.all().await;
    for (cursor, expected) in [
        (String::new(), Cursor::START),
        ("$".to_owned(), second),
        (first.to_string(), first),
        (second.to_string(), second),
        // As any other reader's.
        (composite, first),
    ] {
        let heard = client.ask(&subscribe("a", &cursor)).await;
        let result = json!({"channel": "a", "cursor": expected.to_string()});
        assert_eq!(heard, json!({"type": "answer", "result": result}));
        assert_eq!(client.reads(), [("acme:a", expected)]);
    }
    let heard = client.ask(&unsubscribe("a")).await;
    assert_eq!(heard["result"], json!({"channel": "a"}));
    assert!(client.reads().is_empty());
}

#[tokio::test]
async fn one_name_has_one_spelling() {
    let bench = Bench::new().await;
    let mut client = bench.all().await;
    let heard = client.ask(&subscribe("97F58C19CE384C6B8A5B47F3405691F0", "")).await;
    assert_eq!(heard["result"]["channel"], "97f58c19-ce38-4c6b-8a5b-47f3405691f0");
    assert_eq!(client.reads()[0].0, "acme:97f58c19-ce38-4c6b-8a5b-47f3405691f0");
}

#[tokio::test]
async fn a_cursor_of_another_log_is_told_of_a_gap_behind_its_answer() {
    let bench = Bench::new().await;
    let head = bench.store.put(&room("a"), "1", false).await;
    let lost = head.plus(3);
    let mut client = bench.all().await;
    let requests = [subscribe("a", &lost.to_string()), json!({"type": "ping", "id": 2})];
    let heard = client.ask_all(&requests).await;
    assert_eq!(heard.len(), 3);
    assert_eq!(heard[0]["result"]["cursor"], head.to_string());
    let gap = &heard[1];
    assert_eq!((&gap["type"], &gap["event"]), (&json!("event"), &json!("control")));
    assert_eq!((&gap["channel"], &gap["cursor"]), (&json!("a"), &json!(head.to_string())));
    let data = &gap["data"];
    assert_eq!((&data["control_type"], &data["reason"]), (&json!("gap"), &json!("recreated")));
    let expected = [json!(lost.to_string()), json!(head.plus(1).to_string())];
    assert_eq!([&data["from"], &data["to"]], [&expected[0], &expected[1]]);
    assert_eq!(heard[2]["id"], 2);
    assert_eq!(client.reads(), [("acme:a", head)]);
    // Byte for byte as an edge tells it.
    let said = client.said(&[requests[0].to_string()]);
    let answer = bench.sockets.message(&said, NOW_MS).await;
    let data =
        zhttp::hold::gap_event("acme:a", lost, head.plus(1), zhttp::hold::GapReason::Recreated);
    let head = head.to_string();
    let expected = format!(
        r#"{{"type":"event","channel":"a","cursor":"{head}","event":"control","data":{data}}}"#
    );
    assert_eq!(answer.bodies[1], expected);
}

#[tokio::test]
async fn who_has_the_end_waits_for_what_follows_it() {
    let bench = Bench::new().await;
    let first = bench.store.put(&room("a"), "1", false).await;
    let end = bench.store.put(&room("a"), "2", true).await;
    let mut client = bench.all().await;
    for (cursor, place, ended) in [
        (end.to_string(), end, true),
        (first.to_string(), first, false),
        (String::new(), Cursor::START, false),
        ("$".to_owned(), end, false),
    ] {
        client.ask(&subscribe("a", &cursor)).await;
        let channel = &client.channels["acme:a"];
        assert_eq!((channel.cursor, channel.ended), (place, ended), "{cursor}");
    }
    let head = client.ask(&json!({"type": "head", "channel": "a"})).await;
    assert_eq!(head["result"], json!({"head": end.to_string(), "ended": true}));
}

#[tokio::test]
async fn what_comes_at_once_is_one_change() {
    let bench = Bench::new().await;
    let a = bench.store.put(&room("a"), "1", false).await;
    let mut client = bench.all().await;
    client.ask_all(&[subscribe("a", ""), subscribe("b", ""), subscribe("c", "")]).await;
    let requests = [
        subscribe("a", "$"),
        unsubscribe("b"),
        subscribe("d", ""),
        unsubscribe("d"),
        subscribe("e", "5-5"),
        subscribe("e", "5-7"),
        unsubscribe("a"),
        subscribe("a", "$"),
    ];
    let said = client.said(&requests.clone().map(|request| request.to_string()));
    let answer = bench.sockets.message(&said, NOW_MS).await;
    assert_eq!(answer.bodies.len(), requests.len());
    assert_eq!(answer.remove, ["acme:a", "acme:b", "acme:d", "acme:e"]);
    let add = [HeldChannel::new("acme:e", Cursor::new(5, 7)), HeldChannel::new("acme:a", a)];
    assert_eq!(answer.add, add);
    client.apply(&answer);
    let expected = [("acme:a", a), ("acme:c", Cursor::START), ("acme:e", Cursor::new(5, 7))];
    assert_eq!(client.reads(), expected);
}

/// However the edge has gathered what was said, it comes to the same.
#[test]
fn batches_are_the_same_as_one_after_the_other() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let bench = runtime.block_on(async {
        let bench = Bench::new().await;
        for (channel, end) in [("a", false), ("a", false), ("b", true)] {
            bench.store.put(&room(channel), "1", end).await;
        }
        bench
    });
    let channel = prop::sample::select(vec!["a", "b", "c"]);
    let cursor = prop::sample::select(vec!["", "$", "5-5", "9999999999999-1"]);
    let request = (any::<bool>(), channel, cursor).prop_map(|(is_subscribe, channel, cursor)| {
        if is_subscribe { subscribe(channel, cursor) } else { unsubscribe(channel) }
    });
    let batches = prop::collection::vec(prop::collection::vec(request, 0..5), 1..5);
    // Heads are read at a pace, so that many cases take their time.
    let mut runner = TestRunner::new(Config { cases: 24, ..Config::default() });
    let run = runner.run(&batches, |batches| {
        runtime.block_on(async {
            let (mut at_once, mut one_by_one) = (bench.all().await, bench.all().await);
            let (mut heard_at_once, mut heard_one_by_one) = (Vec::new(), Vec::new());
            for batch in &batches {
                heard_at_once.extend(at_once.ask_all(batch).await);
                for request in batch {
                    let request = std::slice::from_ref(request);
                    heard_one_by_one.extend(one_by_one.ask_all(request).await);
                }
                prop_assert_eq!(&at_once.channels, &one_by_one.channels);
            }
            prop_assert_eq!(heard_at_once, heard_one_by_one);
            Ok(())
        })
    });
    run.unwrap();
}

#[tokio::test]
async fn who_comes_back_is_looked_up_at_once() {
    let bench = Bench::new().await;
    let mut client = bench.all().await;
    let requests: Vec<Value> =
        (0..100).map(|number| subscribe(&format!("c{number}"), "5-7")).collect();
    let before = bench.store.heads_calls();
    assert_eq!(client.ask_all(&requests).await.len(), 100);
    assert_eq!(bench.store.heads_calls(), before + 1);
    assert_eq!(client.reads().len(), 100);
    // But "now" is behind what was published before it on the same socket.
    let publish = json!({"type": "publish", "channel": "a"});
    let heard = client.ask_all(&[subscribe("a", "$"), publish, subscribe("a", "$")]).await;
    assert_eq!(heard[0]["result"]["cursor"], "0-0");
    assert_eq!(heard[2]["result"]["cursor"], heard[1]["result"]["id"]);
}

#[tokio::test]
async fn a_socket_reads_so_many_channels() {
    let bench = Bench::new().await;
    let mut client = bench.all().await;
    let requests: Vec<Value> =
        (0..129).map(|number| subscribe(&format!("c{number}"), "5-7")).collect();
    let heard = client.ask_all(&requests).await;
    assert!(heard[..128].iter().all(|heard| heard["type"] == "answer"));
    let expected = json!({"type": "error", "code": "too_many_channels", "kind": "permanent",
        "message": "A socket reads at most 128 channels"});
    assert_eq!(heard[128], expected);
    assert_eq!(client.reads().len(), 128);
    // One that may be read already counts twice.
    assert_eq!(client.refused(&requests[0]).await, permanent("too_many_channels"));
    client.ask(&unsubscribe("c1")).await;
    let twice = [requests[0].clone(), requests[0].clone()];
    assert!(client.ask_all(&twice).await.iter().all(|heard| heard["type"] == "answer"));
    assert_eq!(client.reads().len(), 127);
}

#[tokio::test]
async fn history_and_heads_are_those_of_http() {
    let bench = Bench::new().await;
    let first = bench.store.put(&room("a"), r#"{"n":1}"#, false).await;
    let second = bench.store.put(&room("a"), r#"{"n":2}"#, false).await;
    let mut client = bench.all().await;
    let mut ask = async |more: Value| {
        let mut request = json!({"type": "history", "channel": "a"});
        request.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        client.ask(&request).await["result"].clone()
    };
    let event =
        |id: Cursor, n: u64| json!({"id": id.to_string(), "event": "stream", "data": {"n": n}});
    let page = |events: Vec<Value>, next: Cursor| {
        json!({"channel": "a", "events": events, "head": second.to_string(), "ended": false,
            "gap": null, "next": next.to_string()})
    };
    assert_eq!(ask(json!({})).await, page(vec![event(first, 1), event(second, 2)], second));
    assert_eq!(ask(json!({"limit": 1})).await, page(vec![event(first, 1)], first));
    let after = json!({"after": first.to_string()});
    assert_eq!(ask(after).await, page(vec![event(second, 2)], second));
    assert_eq!(ask(json!({"after": "$"})).await, page(vec![], second));
    let beyond = second.plus(2).to_string();
    let gap = json!({"from": beyond, "to": second.plus(1).to_string(), "reason": "recreated"});
    assert_eq!(ask(json!({"after": beyond})).await["gap"], gap);
    let head = client.ask(&json!({"type": "head", "channel": "a"})).await;
    assert_eq!(head["result"], json!({"head": second.to_string(), "ended": false}));
}

#[tokio::test]
async fn history_has_a_size_for_each_and_for_all_together() {
    let bench = Bench::new().await;
    // Events of the largest size that there can be.
    let data = format!("\"{}\"", "x".repeat(6 * 16_384));
    for _ in 0..12 {
        bench.store.put(&room("a"), &data, false).await;
    }
    let mut client = bench.all().await;
    let history = json!({"type": "history", "channel": "a"});
    let page = client.ask(&history).await;
    assert_eq!(page["result"]["events"].as_array().unwrap().len(), 2);
    let next = json!({"type": "history", "channel": "a", "after": page["result"]["next"]});
    assert_eq!(client.ask(&next).await["result"]["gap"], Value::Null);

    let many = vec![history.clone(); 128];
    let heard = client.ask_all(&many).await;
    let good = heard.iter().filter(|heard| heard["type"] == "answer").count();
    assert!((2..=10).contains(&good), "{good}");
    let limited = json!({"type": "error", "code": "rate_limited", "kind": "transient",
        "message": "Too much history is asked for at once",
        "data": {"retry_after": 1, "limit": "answer-bytes"}});
    assert!(heard.iter().all(|heard| heard["type"] == "answer" || *heard == limited));
    // Each gets something by itself, whatever it asks for.
    let most = json!({"type": "history", "channel": "a", "limit": 1000});
    assert_eq!(client.ask(&most).await["type"], "answer");
}

/// Counts what sockets log, and nothing else.
#[derive(Default)]
struct Lines(AtomicUsize);

impl tracing::Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.is_event() && metadata.target().ends_with("socket::batch")
    }

    fn event(&self, _: &tracing::Event<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn while_the_store_is_away_a_batch_logs_one_line() {
    let bench = Bench::new().await;
    let mut client = bench.all().await;
    bench.store.set_away(true);
    let lines = Arc::new(Lines::default());
    let _guard = tracing::subscriber::set_default(Arc::clone(&lines));
    for logged in 1..=3 {
        let requests: Vec<Value> = ["a", "b", "c"]
            .iter()
            .flat_map(|name| {
                let of = |kind| json!({"type": kind, "channel": name});
                [subscribe(name, ""), of("history"), of("head")]
            })
            .collect();
        for heard in client.ask_all(&requests).await {
            assert_eq!(heard["code"], "unavailable");
        }
        assert_eq!(lines.0.load(Ordering::Relaxed), logged);
    }
}

#[tokio::test]
async fn while_the_store_is_away_nothing_changes() {
    let bench = Bench::new().await;
    let mut client = bench.all().await;
    client.ask(&subscribe("a", "5-7")).await;
    let (reads, requests) = (
        vec![("acme:a", Cursor::new(5, 7))],
        [
            subscribe("a", "$"),
            subscribe("b", ""),
            json!({"type": "history", "channel": "a"}),
            json!({"type": "head", "channel": "a"}),
        ],
    );
    bench.store.set_away(true);
    for request in &requests {
        assert_eq!(client.refused(request).await, transient("unavailable"));
    }
    for heard in client.ask_all(&requests).await {
        let expected = [json!("unavailable"), json!({"retry_after": 1})];
        assert_eq!([&heard["code"], &heard["data"]], [&expected[0], &expected[1]]);
    }
    assert_eq!(client.reads(), reads);
    bench.store.set_away(false);
    bench.store.set_corrupt(true);
    for request in &requests {
        assert_eq!(client.refused(request).await, transient("internal"));
    }
    bench.store.set_corrupt(false);
    assert_eq!(client.reads(), reads);
    assert_eq!(client.ask(&requests[0]).await["type"], "answer");
}

#[tokio::test]
async fn a_bug_costs_its_request_only() {
    let bench = Bench::new().await;
    let mut client = bench.all().await;
    bench.store.set_panicking(true);
    let requests = [
        json!({"type": "head", "channel": "a", "id": 1}),
        json!({"type": "unsubscribe", "channel": "a"}),
        json!({"type": "history", "channel": "a", "id": 2}),
    ];
    let heard = client.ask_all(&requests).await;
    let error = |id| {
        json!({"type": "error", "id": id, "code": "internal", "kind": "transient",
            "message": "Internal error", "data": {"retry_after": 1}})
    };
    let unsubscribed = json!({"type": "answer", "result": {"channel": "a"}});
    assert_eq!(heard, [error(1), unsubscribed, error(2)]);
    bench.store.set_panicking(false);
    assert_eq!(client.ask(&requests[0]).await["type"], "answer");
}

#[tokio::test]
async fn what_takes_too_long_is_broken_off() {
    let bench = Bench::new().await;
    let client = bench.all().await;
    let requests = [
        subscribe("a", ""),
        unsubscribe("b"),
        json!({"type": "history", "channel": "a"}),
        json!({"type": "publish", "channel": "a"}),
        json!({"type": "head", "channel": "a"}),
        json!({"type": "ping"}),
    ];
    let said = client.said(&requests.map(|request| request.to_string()));
    let Some(Standing::Open(socket)) = Standing::decode(&said.context) else { panic!() };
    let over = (NOW_MS, Instant::now());
    let answer = Batch::new(&bench.sockets, *socket, &said, over).run().await;
    let heard: Vec<Value> =
        answer.bodies.iter().map(|body| serde_json::from_str(body).unwrap()).collect();
    let codes: Vec<_> = heard.iter().map(|heard| heard["code"].as_str()).collect();
    let away = Some("unavailable");
    assert_eq!(codes, [away, None, away, away, away, None]);
    assert_eq!((answer.add, answer.remove), (Vec::new(), vec!["acme:b".to_owned()]));
    assert_eq!(bench.outcomes(), [("internal", "store", 1)]);
}
