//! Logs that have lost events which were acknowledged: their offsets are never used again.

use zhttp::Cursor;

use super::append_when_back;
use super::cluster::room_of;
use crate::store::contract::{
    ALL, ClusterServers, RedisServer, WatchedServers, append, event, event_with_id, head, room,
};
use crate::store::*;

/// The log went on after `kept` with `next`, and a reader that has `lost` is told so.
async fn is_told(store: &RedisStore, channel: &ChannelName, ids: [Cursor; 3]) {
    let [kept, lost, next] = ids;
    assert!(next.epoch > lost.epoch && next.offset == 1, "{next} after {kept}, lost {lost}");
    let range = store.range(channel, kept, ALL).await.unwrap();
    assert_eq!((range.events[0].id, range.events[0].prev, range.gap), (next, kept, None));
    let range = store.range(channel, lost, ALL).await.unwrap();
    let gap = Gap { prev: kept, first: next, reason: GapReason::Recreated };
    assert_eq!((range.events[0].id, range.gap), (next, Some(gap)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_older() {
    let mut server = RedisServer::prepare(false);
    server.resume().await;
    let store = server.open().await;
    let (channel, untouched) = (room("older"), room("untouched"));
    let kept = append(&store, &channel, event("1")).await;
    append(&store, &untouched, event("1")).await;
    server.ask::<()>(&["SAVE"]).await;
    let conditions = Conditions::default();
    let lost = store.append(&channel, event_with_id(7), &conditions).await.unwrap().id;
    server.kill();
    server.resume().await;
    // That a tail may be lost is known here; that one is, to its readers: see the feeder's tests.
    super::wait_until_back(&store).await;
    let torn = Conditions { torn: true, fence: Some(lost), ..conditions };
    let refused = store.append(&channel, event("x"), &torn).await;
    assert_eq!(refused, Err(AppendError::Conflict { head: kept }));
    let torn = Conditions { fence: Some(kept), ..torn };
    let next = store.append(&channel, event("x"), &torn).await.unwrap().id;
    is_told(&store, &channel, [kept, lost, next]).await;
    // What was lost may be published again, and is not taken for a repetition.
    let again = store.append(&channel, event_with_id(7), &conditions).await.unwrap();
    assert_eq!(again, Appended { id: next.plus(1), duplicate: false });
    // A log that lost nothing goes on all the same.
    let before = head(&store, &untouched).await.id;
    let next = append(&store, &untouched, event("2")).await;
    let range = store.range(&untouched, before, ALL).await.unwrap();
    assert_eq!((range.events[0].id, range.events[0].prev, range.gap), (next, before, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lacks_the_last_events_behind_sentinels() {
    let servers = WatchedServers::start().await;
    let store = servers.open().await;
    let channel = room("behind");
    let kept = append(&store, &channel, event("1")).await;
    let [master, replica] = &servers.servers;
    replica.wait_until_equal(master).await;
    master.stop_replication().await;
    append(&store, &channel, event("2")).await;
    let lost = append(&store, &channel, event("3")).await;
    master.signal("-KILL");
    let next = append_when_back(&store, &channel).await;
    is_told(&store, &channel, [kept, lost, next]).await;
}

/// Each server has been a master before, and the connections to them live on: still each change is
/// noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_a_master_again_is_another_one() {
    let servers = ClusterServers::start(1).await;
    let store = servers.open().await;
    let (channel, _) = room_of(&servers, 0).await;
    let mut last = append(&store, &channel, event("1")).await;
    let [one, other] = [&servers.nodes[0], &servers.nodes[3]];
    for (new, old) in [(other, one), (one, other), (other, one)] {
        new.wait_until_equal(old).await;
        // Masters vote for such a change once in a while only; this one needs no votes.
        new.ask::<()>(&["CLUSTER", "FAILOVER", "TAKEOVER"]).await;
        new.wait_for_info("replication", "role:master").await;
        old.wait_for_info("replication", "master_link_status:up").await;
        let next = append_when_back(&store, &channel).await;
        assert!(next.epoch > last.epoch && next.offset == 1, "{next} after {last}");
        let range = store.range(&channel, last, ALL).await.unwrap();
        assert_eq!((range.events[0].prev, range.gap), (last, None));
        last = next;
    }
}
