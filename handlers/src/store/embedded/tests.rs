//! What only the embedded store has: a directory that is closed, opened again, and kept small.

#![allow(clippy::unwrap_used)]

mod full;

use zhttp::Cursor;

use super::codec::{self, OPEN_KEY};
use super::files::Space;
use crate::store::contract::{
    ALL, append, end_event, event, event_with_id, eventually, head, kept, room,
};
use crate::store::*;

/// How many keys there are in each keyspace.
fn keys(store: &EmbeddedStore) -> [usize; 3] {
    store.disk.with(|files| Ok::<_, StoreError>(files.keys())).unwrap()
}

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
    // channel, the channels' records (until their followers are told) with the floor of epochs
    // and the note that the files are open, and at most the message ids that were not over yet at the last append.
    eventually("the expired logs are removed", || async {
        let [events, channels, messages] = keys(&store);
        events == 3 && channels == 23 && messages <= 5
    })
    .await;
    for number in 0..20 {
        let channel = room(&format!("short-{number}"));
        assert!(store.delete(&channel, Some(Cursor::START)).await.unwrap());
    }
    assert_eq!(keys(&store)[1], 3);
    assert!(store.delete(&channel, None).await.unwrap());
    assert_eq!(keys(&store), [0, 2, 0]);
    store.close().await.unwrap();
}

/// A directory with a copy of the files, as a process that is killed now would leave them.
fn killed(directory: &tempfile::TempDir) -> tempfile::TempDir {
    fn copy(from: &std::path::Path, to: &std::path::Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &to);
            } else {
                std::fs::copy(entry.path(), to).unwrap();
            }
        }
    }
    let copied = tempfile::tempdir().unwrap();
    copy(directory.path(), copied.path());
    copied
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_a_log_goes_on_in_its_epoch() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Fsync::Never).await;
    let channel = room("killed");
    let first = append(&store, &channel, event("1")).await;
    let directory = killed(&directory);
    store.close().await.unwrap();
    // Nothing was lost, if the system names its boots.
    let store = open(&directory, Fsync::Never).await;
    let second = append(&store, &channel, event("2")).await;
    assert_eq!(second == first.plus(1), cfg!(target_os = "linux"));
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_power_loss_no_id_is_used_twice() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Fsync::default()).await;
    let (channel, quiet) = (room("torn"), room("quiet"));
    let left = append(&store, &channel, event("left")).await;
    let quiet_left = append(&store, &quiet, event("left")).await;
    let note = codec::open_value("another boot");
    let batch = [((Space::Channels, OPEN_KEY.to_vec()), Some(note))].into();
    store.disk.with(|files| files.commit(batch, true)).unwrap();
    // What comes now is what the disk never got.
    let directory = killed(&directory);
    let lost = append(&store, &channel, event("lost")).await;
    let quiet_lost = append(&store, &quiet, event("lost")).await;
    store.close().await.unwrap();

    let store = open(&directory, Fsync::default()).await;
    assert_eq!(head(&store, &channel).await.id, left);
    let new = append(&store, &channel, event("new")).await;
    assert!(new.epoch > lost.epoch && new.offset == 1, "{new}");
    assert_eq!(append(&store, &channel, event("newer")).await, new.plus(1));
    // Who had no more than is left misses nothing; who had more is told.
    let range = store.range(&channel, left, ALL).await.unwrap();
    assert_eq!((range.gap, range.events[0].prev), (None, left));
    let range = store.range(&channel, lost, ALL).await.unwrap();
    assert_eq!((range.gap.unwrap().first, range.events.len()), (new, 2));
    store.close().await.unwrap();

    // It holds for a log that only the next process appends to, too.
    let store = open(&directory, Fsync::default()).await;
    assert_eq!(head(&store, &quiet).await.id, quiet_left);
    let new = append(&store, &quiet, event("new")).await;
    assert!(new.epoch > quiet_lost.epoch, "{new}");
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
