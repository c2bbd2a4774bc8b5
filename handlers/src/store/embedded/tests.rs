//! What only the embedded store has: a directory that is closed, opened again, and kept small.

#![allow(clippy::unwrap_used)]

use zhttp::Cursor;

use crate::store::contract::{
    ALL, append, end_event, event, event_with_id, eventually, head, kept, room,
};
use crate::store::*;

async fn open(directory: &tempfile::TempDir, fsync: Fsync) -> EmbeddedStore {
    EmbeddedStore::open(directory.path(), fsync).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_there_after_a_restart() {
    for fsync in [Fsync::Always, Fsync::default(), Fsync::Never] {
        let directory = tempfile::tempdir().unwrap();
        let store = open(&directory, fsync).await;
        let (channel, ended) = (room("kept"), room("ended"));
        let conditions = kept(Retention { history_max: 4, ..Retention::default() });
        let with_id = store.append(&channel, event_with_id(1), &conditions).await.unwrap();
        for _ in 0..6 {
            store.append(&channel, event("x"), &conditions).await.unwrap();
        }
        let end = append(&store, &ended, end_event()).await;
        let before_ms = store.now_ms().await.unwrap() + 1;
        let range = store.range(&channel, Cursor::START, ALL).await.unwrap();
        let idle = store.idle(channel.shard(), before_ms, 10).await.unwrap();
        assert_eq!((range.events.len(), idle.len()), (4, 1));
        store.close().await.unwrap();

        let store = open(&directory, fsync).await;
        assert_eq!(store.range(&channel, Cursor::START, ALL).await.unwrap(), range);
        assert_eq!(store.idle(channel.shard(), before_ms, 10).await.unwrap(), idle);
        let again = store.append(&channel, event_with_id(1), &conditions).await.unwrap();
        assert_eq!(again, Appended { id: with_id.id, duplicate: true });
        assert_eq!(append(&store, &channel, event("next")).await, range.head.id.plus(1));
        assert!(head(&store, &ended).await.ended);
        let next = append(&store, &ended, event("next")).await;
        assert!(next.epoch > end.epoch);
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn epochs_never_come_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let channel = room("epochs");
    let mut last = Cursor::START;
    for _ in 0..5 {
        let store = open(&directory, Fsync::Never).await;
        // So many ends in a row that epochs run ahead of the clock.
        for _ in 0..200 {
            let id = append(&store, &channel, end_event()).await;
            assert!(id.epoch > last.epoch, "{id} after {last}");
            last = id;
        }
        assert!(store.delete(&channel, Some(last)).await.unwrap());
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_over_leaves_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Fsync::default()).await;
    let short = kept(Retention { idle_ttl_ms: 1, ..Retention::default() });
    for number in 0..20 {
        for message in 0..5 {
            let event = event_with_id(message);
            store.append(&room(&format!("short-{number}")), event, &short).await.unwrap();
        }
    }
    let channel = room("stays");
    let long = kept(Retention { dedup_ttl_ms: 1, history_max: 3, ..Retention::default() });
    for message in 0..5 {
        store.append(&channel, event_with_id(message), &long).await.unwrap();
    }
    // Nobody asks for them, but the sweep finds them: what stays is the events of the other
    // channel, the channels' records (until their followers are told) with the floor of epochs,
    // and at most the message ids that were not over yet at the last append.
    eventually("the expired logs are removed", || async {
        let [events, channels, messages] = store.disk.keys();
        events == 3 && channels == 22 && messages <= 5
    })
    .await;
    for number in 0..20 {
        let channel = room(&format!("short-{number}"));
        assert!(store.delete(&channel, Some(Cursor::START)).await.unwrap());
    }
    assert_eq!(store.disk.keys()[1], 2);
    assert!(store.delete(&channel, None).await.unwrap());
    assert_eq!(store.disk.keys(), [0, 1, 0]);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_has_one_user() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Fsync::default()).await;
    let refused = EmbeddedStore::open(directory.path(), Fsync::default()).await;
    let error = refused.err().unwrap();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    let (path, pid) = (directory.path().display(), std::process::id());
    let expected = format!("data directory {path} is in use by another process (pid {pid})");
    assert_eq!(error.to_string(), expected);
    store.close().await.unwrap();
    open(&directory, Fsync::default()).await.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_store_says_so() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Fsync::default()).await;
    let other_handle = store.clone();
    store.close().await.unwrap();
    let closed = StoreError::Unavailable("the store is closed".to_owned());
    assert_eq!(other_handle.ping().await, Err(closed));
}
