//! A cluster whose nodes are replaced, and whose slots move.

use std::time::{Duration, Instant};

use ::redis::Value;
use zhttp::Cursor;

use super::{AT_ONCE, append_when_back, heard, live_again, restored, try_append, wait_until_back};
use crate::store::contract::{
    ALL, ClusterServers, append, event, event_with_id, eventually, head, room,
};
use crate::store::*;

/// A channel whose slot that master has, and the slot.
pub(super) async fn room_of(servers: &ClusterServers, master: usize) -> (ChannelName, u16) {
    for number in 0.. {
        let room = room(&format!("room-{number}"));
        let (slot, owner) = servers.slot_and_master(room.as_str()).await;
        if owner == master {
            return (room, slot);
        }
    }
    unreachable!("each master has slots");
}

/// Appends numbered events until told to stop; returns the acknowledged ids in order.
fn publisher(
    store: &RedisStore,
    channel: &ChannelName,
    stop: tokio::sync::watch::Receiver<bool>,
) -> tokio::task::JoinHandle<Vec<Cursor>> {
    let (store, channel) = (store.clone(), channel.clone());
    tokio::spawn(async move {
        let mut ids = Vec::new();
        let mut number = 0;
        while !*stop.borrow() {
            // Sent again with its message id, each is stored once.
            match store.append(&channel, event_with_id(number), &Conditions::default()).await {
                Ok(appended) => {
                    ids.push(appended.id);
                    number += 1;
                }
                Err(AppendError::Unavailable(StoreError::Unavailable(_))) => {}
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        ids
    })
}

/// The log has just these, and each is the predecessor of the next.
async fn is_whole(store: &RedisStore, channel: &ChannelName, ids: &[Cursor]) {
    let range = store.range(channel, Cursor::START, ALL).await.unwrap();
    let stored: Vec<Cursor> = range.events.iter().map(|event| event.id).collect();
    assert_eq!(stored, ids);
    assert!(range.events.windows(2).all(|pair| pair[1].prev == pair[0].id));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_under_load_loses_nothing() {
    let servers = ClusterServers::start(1).await;
    let store = servers.open().await;
    let (moved, _) = room_of(&servers, 0).await;
    let (other, _) = room_of(&servers, 1).await;
    let (handle, mut stream) = store.follow();
    handle.add(moved.clone()).await.unwrap();
    handle.add(other.clone()).await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (one, two) =
        (publisher(&store, &moved, stopped.clone()), publisher(&store, &other, stopped));
    let first = head(&store, &moved).await.id;
    servers.nodes[3].ask::<()>(&["CLUSTER", "FAILOVER"]).await;
    servers.nodes[3].wait_for_info("replication", "role:master").await;
    eventually("the log goes on", || async { head(&store, &moved).await.id.epoch > first.epoch })
        .await;
    // The other node's channel was heard all the time; this one is, again.
    restored(&mut stream).await;
    stop.send_replace(true);
    is_whole(&store, &moved, &one.await.unwrap()).await;
    let ids = two.await.unwrap();
    is_whole(&store, &other, &ids).await;
    assert!(ids.iter().all(|id| id.epoch == ids[0].epoch));
    for channel in [&moved, &other] {
        live_again(&store, channel, &mut stream).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_master_concerns_its_own_channels_only_until_it_is_replaced() {
    let servers = ClusterServers::start(1).await;
    let store = servers.open().await;
    let (lost, _) = room_of(&servers, 0).await;
    let (other, _) = room_of(&servers, 1).await;
    let (handle, mut stream) = store.follow();
    handle.add(lost.clone()).await.unwrap();
    handle.add(other.clone()).await.unwrap();
    let first = append(&store, &lost, event("1")).await;
    heard(&mut stream, first).await;
    let replica = servers.nodes[3].port();
    servers.nodes[0].signal("-KILL");
    assert_eq!(stream.next().await, Some(Followed::Interrupted));
    eventually("the loss is noticed", || async { try_append(&store, &lost).await.is_err() }).await;
    let start = Instant::now();
    for _ in 0..100 {
        assert!(try_append(&store, &lost).await.is_err());
    }
    assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
    // The others work on, and so does the store.
    let id = append_when_back(&store, &other).await;
    heard(&mut stream, id).await;
    wait_until_back(&store).await;

    servers.nodes[3].ask::<()>(&["CLUSTER", "FAILOVER", "TAKEOVER"]).await;
    let next = append_when_back(&store, &lost).await;
    assert!(next.epoch > first.epoch, "{next} after {first}, at port {replica}");
    restored(&mut stream).await;
    live_again(&store, &lost, &mut stream).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slot_moves_under_appends() {
    let servers = ClusterServers::start(0).await;
    let store = servers.open().await;
    let (channel, slot) = room_of(&servers, 0).await;
    let (handle, mut stream) = store.follow();
    handle.add(channel.clone()).await.unwrap();
    let first = append(&store, &channel, event_with_id(1_000_000)).await;
    heard(&mut stream, first).await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let publishing = publisher(&store, &channel, stopped);

    let (source, target) = (&servers.nodes[0], &servers.nodes[1]);
    let slot = slot.to_string();
    let set = |state: &'static str, node: usize| {
        ["CLUSTER", "SETSLOT", &slot, state, servers.id(node)].map(str::to_owned)
    };
    let words = |words: &[String; 5]| words.clone();
    let (importing, migrating) = (words(&set("IMPORTING", 0)), words(&set("MIGRATING", 1)));
    target.ask::<()>(&importing.each_ref().map(String::as_str)).await;
    source.ask::<()>(&migrating.each_ref().map(String::as_str)).await;
    let port = target.port().to_string();
    loop {
        let keys: Vec<String> = source.ask(&["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await;
        if keys.is_empty() {
            break;
        }
        let mut migrate = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000", "KEYS"];
        migrate.extend(keys.iter().map(String::as_str));
        source.ask::<Value>(&migrate).await;
    }
    // All keys are there, and the slot is not: reads are sent on, once.
    let moving = head(&store, &channel).await;
    assert!(moving.id >= first, "{moving:?}");
    assert!(store.range(&channel, Cursor::START, ALL).await.unwrap().gap.is_none());
    let taken = set("NODE", 1);
    for node in [target, source] {
        node.ask::<()>(&taken.each_ref().map(String::as_str)).await;
    }
    eventually("the log goes on", || async { head(&store, &channel).await.id > moving.id.plus(3) })
        .await;
    stop.send_replace(true);
    let mut ids = vec![first];
    ids.extend(publishing.await.unwrap());
    is_whole(&store, &channel, &ids).await;
    // The subscription has moved, too.
    live_again(&store, &channel, &mut stream).await;
    let subscribers: Vec<Value> = target.ask(&["PUBSUB", "SHARDCHANNELS", "*live"]).await;
    assert_eq!(subscribers.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_forgot_their_scripts_get_them_again() {
    let servers = ClusterServers::start(0).await;
    let store = servers.open().await;
    for master in 0..3 {
        let (channel, _) = room_of(&servers, master).await;
        append(&store, &channel, event("1")).await;
        for node in &servers.nodes {
            node.ask::<()>(&["SCRIPT", "FLUSH"]).await;
        }
        assert_eq!(append(&store, &channel, event("2")).await.offset, 2);
    }
}
