//! One server that goes away, hangs, is demoted, or forgets its scripts.

use std::time::{Duration, Instant};

use super::{AT_ONCE, append_when_back, try_append, wait_until_away, wait_until_back};
use crate::store::contract::{ALL, RedisServer, append, event, event_with_id, head, room};
use crate::store::redis::link::Access;
use crate::store::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_the_server_interrupts_and_loses_nothing() {
    let mut server = RedisServer::prepare(true);
    server.resume().await;
    let store = server.open().await;
    let (channel, added_while_away) = (room("restart"), room("added-while-away"));
    let (handle, mut stream) = store.follow();
    handle.add(channel.clone()).await.unwrap();
    let first = append(&store, &channel, event("before")).await;
    assert!(matches!(stream.next().await, Some(Followed::Event { .. })));

    server.kill();
    assert_eq!(stream.next().await, Some(Followed::Interrupted));
    wait_until_away(&store).await;
    let start = Instant::now();
    for _ in 0..100 {
        let refused = try_append(&store, &channel).await;
        assert!(matches!(refused, Err(AppendError::Unavailable(StoreError::Unavailable(_)))));
        assert!(store.range(&channel, first, ALL).await.is_err());
        assert!(store.heads(std::slice::from_ref(&channel)).await.is_err());
        assert!(store.idle(0, 0, 10).await.is_err());
    }
    assert!(handle.add(added_while_away.clone()).await.is_err());
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());

    server.resume().await;
    wait_until_back(&store).await;
    // Nothing is lost here, but nobody knows that: so the log goes on in a new epoch.
    let after = append(&store, &channel, event("after")).await;
    assert!(after.epoch > first.epoch && after.offset == 1, "{after} after {first}");
    let range = store.range(&channel, first, ALL).await.unwrap();
    assert_eq!((range.events[0].prev, range.gap), (first, None));
    // The follower comes back with all that it was asked for. If it is back before that append, it
    // is told of it too, maybe just before it can say so.
    loop {
        match stream.next().await {
            Some(Followed::Restored) => break,
            Some(Followed::Event { event, .. }) => assert_eq!(event.id, after),
            other => panic!("neither restored nor an event: {other:?}"),
        }
    }
    assert_eq!(head(&store, &channel).await.id, after);
    for channel in [channel, added_while_away] {
        let id = append(&store, &channel, event("live again")).await;
        loop {
            match stream.next().await {
                Some(Followed::Event { event, .. }) if event.id == id => break,
                Some(Followed::Event { event, .. }) => assert_eq!(event.id, after),
                other => panic!("not an event: {other:?}"),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_can_be_opened_before_its_server() {
    let mut server = RedisServer::prepare(false);
    let store = server.open().await;
    let channel = room("early");
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    let (handle, mut stream) = store.follow();
    assert!(handle.add(channel.clone()).await.is_err());
    assert_eq!(stream.next().await, Some(Followed::Interrupted));
    server.resume().await;
    assert_eq!(stream.next().await, Some(Followed::Restored));
    wait_until_back(&store).await;
    let id = append(&store, &channel, event("x")).await;
    match stream.next().await {
        Some(Followed::Event { event, .. }) => assert_eq!(event.id, id),
        other => panic!("not an event: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgot_its_scripts_gets_them_again() {
    let server = RedisServer::start().await;
    let store = server.open().await;
    let channel = room("flushed");
    // Without message ids a repetition would show as an offset that is skipped.
    for offset in 1..5 {
        let id = append(&store, &channel, event("x")).await;
        assert_eq!(id.offset, offset);
        server.ask::<()>(&["SCRIPT", "FLUSH"]).await;
        assert_eq!(head(&store, &channel).await.id, id);
        server.ask::<()>(&["SCRIPT", "FLUSH"]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_is_given_up_and_taken_again() {
    let server = RedisServer::start().await;
    let store = server.open().await;
    let channel = room("hangs");
    let conditions = Conditions::default();
    server.signal("-STOP");
    // The first ones wait for the timeout; then it is known, and they fail at once.
    let failed = store.append(&channel, event_with_id(1), &conditions).await;
    assert!(matches!(failed, Err(AppendError::Unavailable(StoreError::Unavailable(_)))));
    wait_until_away(&store).await;
    let start = Instant::now();
    for _ in 0..100 {
        assert!(store.ping().await.is_err());
    }
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    server.signal("-CONT");
    wait_until_back(&store).await;
    // Whether or not the first attempt came through: sent again, it is stored once.
    store.append(&channel, event_with_id(1), &conditions).await.unwrap();
    assert_eq!(head(&store, &channel).await.id.offset, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_notices_a_server_that_hangs_however_busy_it_is() {
    let server = RedisServer::start().await;
    let store = server.open().await;
    let channel = room("hangs");
    let (handle, mut stream) = store.follow();
    handle.add(channel.clone()).await.unwrap();
    server.signal("-STOP");
    // It is followed already, so this asks the server for nothing.
    let busy = async {
        loop {
            let _ = handle.add(channel.clone()).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = busy => {}
        followed = tokio::time::timeout(AT_ONCE, stream.next()) => {
            assert_eq!(followed, Ok(Some(Followed::Interrupted)));
        }
    }
    server.signal("-CONT");
    assert_eq!(stream.next().await, Some(Followed::Restored));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_ours_is_reported_and_not_touched() {
    let server = RedisServer::start().await;
    let store = server.open().await;
    let channel = room("foreign");
    let key = "fb:{acme:foreign}:meta";
    server.ask::<()>(&["SET", key, "mine"]).await;
    let refused = try_append(&store, &channel).await;
    assert!(
        matches!(refused, Err(AppendError::Unavailable(StoreError::Corrupt(_)))),
        "{refused:?}"
    );
    assert_eq!(server.ask::<String>(&["GET", key]).await, "mine");
    assert_eq!(store.ping().await, Ok(()));
}

/// The index is elsewhere than the log on a cluster, so an append is two commands: one that touches
/// the index, then the append. Here a deletion gets between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_between_the_two_steps_of_an_append_leaves_the_channel_listed() {
    let server = RedisServer::start().await;
    let store = server.open().await;
    let channel = room("crossed");
    append(&store, &channel, event("x")).await;
    let before_ms = store.now_ms().await.unwrap() + 60_000;
    let idle = store.idle(channel.shard(), before_ms, 10).await.unwrap().remove(0);

    store.send_one(store.scripts.touch(&channel), Access::Write).await.unwrap();
    assert!(store.delete_idle(&idle).await.unwrap());
    let append = store.scripts.append(&channel, &event("y"), &Conditions::default());
    store.send_one(append, Access::Write).await.unwrap();
    let listed = store.idle(channel.shard(), before_ms, 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].head, head(&store, &channel).await.id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_demoted_is_left_until_it_is_a_master_again() {
    let server = RedisServer::start().await;
    let store = server.open().await;
    let channel = room("demoted");
    let first = append(&store, &channel, event("1")).await;
    // Of a master that is not there.
    server.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let refused = try_append(&store, &channel).await;
    let Err(AppendError::Unavailable(StoreError::Unavailable(why))) = refused else {
        panic!("not refused: {refused:?}");
    };
    assert!(why.contains("read only replica"), "{why}");
    // From then on nothing is read there either: it may be old.
    wait_until_away(&store).await;
    let read = store.range(&channel, first, ALL).await;
    assert!(matches!(read, Err(StoreError::Unavailable(_))), "{read:?}");
    let new = server.open().await;
    assert!(matches!(new.ping().await, Err(StoreError::Unavailable(_))));

    server.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    let next = append_when_back(&store, &channel).await;
    assert!(next.epoch > first.epoch && next.offset == 1, "{next} after {first}");
    let range = store.range(&channel, first, ALL).await.unwrap();
    assert_eq!((range.events[0].prev, range.gap), (first, None));
    // Whoever else appends there finds the same server, and goes on in that epoch.
    assert_eq!(append_when_back(&new, &channel).await, next.plus(1));
}
