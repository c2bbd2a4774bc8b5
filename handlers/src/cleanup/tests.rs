//! Sweeps and deletions, with times so small that everything is due.

#![allow(clippy::unwrap_used)]

use zhttp::Cursor;

use super::*;
use crate::attach::Response;
use crate::auth::Role;
use crate::store::{ChannelName, EventKind, Head, Range, RangeLimits};
use crate::testing::{NOW_S, TestStore, answer, eventually, token, verifier};
use crate::web::tests::{head_of, headers_of};

fn room(name: &str) -> ChannelName {
    ChannelName::new("acme", name).unwrap()
}

/// Limits under which these are due at once.
fn limits(idle_ttl: Duration, end_ttl: Duration) -> Limits {
    Limits { idle_ttl, end_ttl, ..Limits::default() }
}

const NEVER: Duration = Duration::from_secs(100_000);

async fn head(store: &TestStore, channel: &ChannelName) -> Head {
    store.heads(std::slice::from_ref(channel)).await.unwrap()[0]
}

async fn all(store: &TestStore, channel: &ChannelName) -> Range {
    let limits = RangeLimits { events_max: u32::MAX, bytes_max: u64::MAX };
    store.range(channel, Cursor::START, limits).await.unwrap()
}

/// Sweeps the shard of a channel until something was done.
async fn sweep(store: &TestStore, limits: Limits, channel: &ChannelName) -> Swept {
    let sweep = Sweep { store: store.clone(), limits };
    let start = std::time::Instant::now();
    loop {
        let swept = sweep.shard(channel.shard()).await.unwrap();
        if swept != Swept::default() {
            return swept;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "nothing is ever due");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn an_idle_channel_is_ended_and_then_deleted() {
    let store = TestStore::open().await;
    let channel = room("idle");
    let id = store.put(&channel, "1", false).await;
    let swept = sweep(&store, limits(Duration::ZERO, NEVER), &channel).await;
    assert_eq!(swept, Swept { ended: 1, ..Swept::default() });
    let range = all(&store, &channel).await;
    let end = &range.events[1];
    assert_eq!((end.id, end.end, end.kind), (id.plus(1), true, EventKind::Control));
    let text = std::str::from_utf8(&end.data).unwrap();
    assert!(text.contains(r#""control_type":"expired","channel":"idle""#), "{text}");

    // It is not due for what is left of its time.
    let kept = Sweep { store: store.clone(), limits: limits(Duration::ZERO, NEVER) };
    assert_eq!(kept.shard(channel.shard()).await.unwrap(), Swept::default());
    let swept = sweep(&store, limits(NEVER, Duration::ZERO), &channel).await;
    assert_eq!(swept, Swept { deleted: 1, ..Swept::default() });
    assert_eq!(head(&store, &channel).await, Head::default());
}

#[tokio::test]
async fn a_channel_that_goes_on_is_kept() {
    let store = TestStore::open().await;
    let channel = room("busy");
    let id = store.put(&channel, "1", false).await;
    // Somebody publishes between the listing and the step.
    let listed = {
        eventually("it is listed", || async {
            let now = store.now_ms().await.unwrap();
            !store.idle(channel.shard(), now, 1).await.unwrap().is_empty()
        })
        .await;
        store.idle(channel.shard(), u64::MAX, 1).await.unwrap().remove(0)
    };
    assert_eq!(listed.head, id);
    let next = store.put(&channel, "2", false).await;
    let event = crate::control::end_event(&channel, id, crate::control::EndReason::Expired);
    let retention = Limits::default().retention();
    assert!(!store.end(&channel, listed.head, event, retention).await.unwrap());
    assert!(!store.delete(&channel, Some(listed.head)).await.unwrap());
    let expected = Head { id: next, ended: false, oldest_prev: Cursor::START };
    assert_eq!(head(&store, &channel).await, expected);
}

#[tokio::test]
async fn what_is_not_due_hides_nothing() {
    let store = TestStore::open().await;
    // More live channels in one shard than a first look lists, and behind them an ended one.
    let shard = room("x").shard();
    let names =
        (0..).map(|number| room(&format!("c{number}"))).filter(|name| name.shard() == shard);
    let names: Vec<_> = names.take(70).collect();
    let (ended, live) = names.split_last().unwrap();
    for channel in live {
        store.put(channel, "1", false).await;
    }
    store.put(ended, "1", true).await;
    let swept = sweep(&store, limits(NEVER, Duration::ZERO), ended).await;
    assert_eq!(swept, Swept { deleted: 1, ..Swept::default() });
    assert_eq!(head(&store, &live[0]).await.id.offset, 1);
}

#[tokio::test]
async fn cleaners_share_the_shards() {
    let store = TestStore::open().await;
    let mut channels = Vec::new();
    for number in 0..20 {
        let channel = room(&format!("c{number}"));
        store.put(&channel, "1", false).await;
        channels.push(channel);
    }
    let limits = limits(Duration::from_millis(1), Duration::from_millis(1));
    let cleaners: Vec<_> = ["one", "two"]
        .map(|owner| tokio::spawn(Cleaner::new(store.clone(), owner.to_owned(), limits).run()))
        .into();
    for channel in &channels {
        eventually("it is gone", || async { head(&store, channel).await == Head::default() }).await;
    }
    cleaners.iter().for_each(tokio::task::JoinHandle::abort);
}

#[test]
fn the_pace_follows_the_shortest_time() {
    let pace_of = |idle: u64, end: u64| {
        pace(&limits(Duration::from_millis(idle), Duration::from_millis(end)))
    };
    assert_eq!(pace_of(120_000, 120_000), Duration::from_secs(5));
    assert_eq!(pace_of(120_000, 4000), Duration::from_secs(1));
    assert_eq!(pace_of(1, 120_000), Duration::from_millis(100));
}

async fn ask(delete: &Delete<TestStore>, uri: &str, token: Option<&str>) -> Response {
    let bearer = token.map(|token| format!("Bearer {token}"));
    let headers: Vec<_> = bearer.iter().map(|bearer| ("Authorization", &**bearer)).collect();
    let headers = headers_of(&headers);
    delete.answer(&head_of("DELETE", uri, &headers), NOW_S).await
}

#[tokio::test]
async fn a_deleted_channel_ends_and_goes_soon() {
    let store = TestStore::open().await;
    let linger = Duration::from_millis(300);
    let limits = Limits { delete_linger: linger, ..Limits::default() };
    let verifier = verifier(Role::Publisher);
    let delete = Delete { store: store.clone(), verifier, limits };
    let token = token(Role::Publisher, "acme", &["a"]);
    let asked = ask(&delete, "/channels/acme/a", Some(&token)).await;
    assert_eq!(answer(&asked), (404, "Unknown channel"));

    let id = store.put(&room("a"), "1", false).await;
    let asked = ask(&delete, "/channels/acme/a", Some(&token)).await;
    assert_eq!(answer(&asked), (204, ""));
    // Asked again, nothing is added, unless it is gone already.
    let asked = ask(&delete, "/channels/acme/a", Some(&token)).await;
    assert!([204, 404].contains(&asked.code));
    eventually("it is gone", || async { head(&store, &room("a")).await == Head::default() }).await;
    let again = store.put(&room("a"), "2", false).await;
    assert!(again.epoch > id.epoch);
}

#[tokio::test]
async fn a_deletion_tells_readers_by_an_end() {
    let store = TestStore::open().await;
    let limits = Limits { delete_linger: NEVER, ..Limits::default() };
    let delete = Delete { store: store.clone(), verifier: verifier(Role::Publisher), limits };
    let token = token(Role::Publisher, "acme", &["*"]);
    for (name, ended) in [("live", false), ("ended", true)] {
        store.put(&room(name), "1", ended).await;
        for _ in 0..3 {
            let uri = format!("/channels/acme/{name}");
            assert_eq!(ask(&delete, &uri, Some(&token)).await.code, 204);
        }
        let range = all(&store, &room(name)).await;
        assert_eq!(range.events.len(), 2, "{name}");
        let text = std::str::from_utf8(&range.events[1].data).unwrap();
        assert!(range.events[1].end && text.contains(r#""control_type":"deleted""#), "{text}");
    }
}

#[tokio::test]
async fn a_deletion_that_is_overtaken_is_done_again() {
    let store = TestStore::open().await;
    let limits = Limits::default();
    let delete = Delete { store: store.clone(), verifier: verifier(Role::Publisher), limits };
    let token = token(Role::Publisher, "acme", &["*"]);
    store.put(&room("a"), "1", false).await;
    store.overtake(3);
    assert_eq!(ask(&delete, "/channels/acme/a", Some(&token)).await.code, 204);
    // Everything that came before its END is before it, and there is one END.
    let events = all(&store, &room("a")).await.events;
    let ends: Vec<bool> = events.iter().map(|event| event.end).collect();
    assert_eq!(ends, [false, false, false, false, true]);
    assert_eq!(ask(&delete, "/channels/acme/a", Some(&token)).await.code, 204);
    assert_eq!(all(&store, &room("a")).await.events, events);

    // One who never stops is not stopped.
    store.put(&room("a"), "again", false).await;
    store.overtake(usize::MAX);
    assert_eq!(ask(&delete, "/channels/acme/a", Some(&token)).await.code, 503);
    store.overtake(0);
}

#[tokio::test]
async fn a_deletion_needs_a_publishers_token() {
    let store = TestStore::open().await;
    let limits = Limits::default();
    let delete = Delete { store: store.clone(), verifier: verifier(Role::Publisher), limits };
    store.put(&room("a"), "1", false).await;
    let other = token(Role::Publisher, "acme", &["b"]);
    for (uri, token, expected) in [
        ("/channels/acme/a", None, (401, "Missing authorization header")),
        ("/channels/acme/a", Some("x"), (401, "Token validation failed")),
        ("/channels/acme/a", Some(&*other), (403, "Token not valid for this channel")),
        ("/channels/a.b/a", None, (400, "Invalid path: an org is 1 to 64 of A-Z a-z 0-9 _ -")),
        ("/channels/acme", None, (404, "Not found")),
    ] {
        assert_eq!(answer(&ask(&delete, uri, token).await), expected, "{uri}");
    }
    store.set_away(true);
    let good = token(Role::Publisher, "acme", &["a"]);
    let asked = ask(&delete, "/channels/acme/a", Some(&good)).await;
    assert_eq!(answer(&asked), (503, "Store unavailable"));
}
