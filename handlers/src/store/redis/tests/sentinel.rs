//! A master that Sentinels replace.

use std::sync::atomic::{AtomicU32, Ordering};

use super::{append_when_back, heard, live_again, restored};
use crate::store::contract::{ALL, WatchedServers, append, event, eventually, room};
use crate::store::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_is_followed_and_loses_nothing() {
    let servers = WatchedServers::start().await;
    let store = servers.open().await;
    let channel = room("planned");
    let (handle, mut stream) = store.follow();
    handle.add(channel.clone()).await.unwrap();
    let first = append(&store, &channel, event("1")).await;
    let replica = &servers.servers[1];
    // Sentinels don't wait for a replica to have everything.
    replica.wait_until_equal(&servers.servers[0]).await;
    servers.fail_over().await;
    replica.wait_for_info("replication", "role:master").await;
    // What the old master takes until the store has followed is lost with it.
    let leases = AtomicU32::new(0);
    eventually("the store has followed", || async {
        let shard = leases.fetch_add(1, Ordering::Relaxed);
        let _ = store.lease(shard, "store", 60_000).await;
        replica.ask::<bool>(&["EXISTS", &format!("fb:lease:{{{shard}}}")]).await
    })
    .await;

    let next = append_when_back(&store, &channel).await;
    assert!(next.epoch > first.epoch && next.offset == 1, "{next} after {first}");
    let range = store.range(&channel, first, ALL).await.unwrap();
    assert_eq!((range.events[0].id, range.events[0].prev, range.gap), (next, first, None));
    restored(&mut stream).await;
    live_again(&store, &channel, &mut stream).await;
    assert_eq!(servers.master().await.port(), replica.port());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_is_replaced() {
    let servers = WatchedServers::start().await;
    let store = servers.open().await;
    let channel = room("killed");
    let (handle, mut stream) = store.follow();
    handle.add(channel.clone()).await.unwrap();
    let first = append(&store, &channel, event("1")).await;
    heard(&mut stream, first).await;
    servers.servers[0].signal("-KILL");
    assert_eq!(stream.next().await, Some(Followed::Interrupted));
    let next = append_when_back(&store, &channel).await;
    assert!(next.epoch > first.epoch, "{next} after {first}");
    restored(&mut stream).await;
    live_again(&store, &channel, &mut stream).await;
}
