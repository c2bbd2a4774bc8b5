//! A master that was replaced and does not know it: nothing is appended there.
//!
//! Two servers that both say that they are masters, as the old and the new one do after a failover
//! until a Sentinel gets to the old one.

use std::pin::pin;
use std::time::Instant;

use zhttp::Cursor;

use super::fake_sentinel::{FakeSentinel, Says, url};
use super::proxy::Proxy;
use super::{AT_ONCE, append_when_back, try_append, wait_until_away};
use crate::store::contract::{
    ALL, RedisServer, WatchedServers, append, event, eventually, head, room,
};
use crate::store::redis::standing::MASTER_LEASE;
use crate::store::*;

/// A server on a port.
struct Master {
    server: RedisServer,
    proxy: Proxy,
}

impl Master {
    async fn start() -> Self {
        let server = RedisServer::start().await;
        let proxy = Proxy::start(server.socket()).await;
        Master { server, proxy }
    }

    fn here(&self) -> Says {
        Says::Port(self.proxy.port())
    }

    /// How many events of a channel it has.
    async fn events(&self, channel: &ChannelName) -> u64 {
        self.server.ask(&["XLEN", &log_key(channel)]).await
    }

    async fn has(&self, channel: &ChannelName, id: Cursor) -> bool {
        let id = id.to_string();
        let found: Vec<redis::Value> =
            self.server.ask(&["XRANGE", &log_key(channel), &id, &id]).await;
        !found.is_empty()
    }
}

fn log_key(channel: &ChannelName) -> String {
    format!("fb:{{{channel}}}:log")
}

/// The old master, the new one, and so many Sentinels that name the old one.
async fn start(sentinels: usize) -> (Master, Master, Vec<FakeSentinel>) {
    let (old, new) = (Master::start().await, Master::start().await);
    let mut all = Vec::new();
    for _ in 0..sentinels {
        all.push(FakeSentinel::start(old.here()).await);
    }
    (old, new, all)
}

fn all_say(sentinels: &[FakeSentinel], says: Says) {
    for sentinel in sentinels {
        sentinel.say(says);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_acknowledged_there_once_the_lease_is_over() {
    let (old, new, sentinels) = start(3).await;
    let store = RedisStore::open(&url(&sentinels)).await.unwrap();
    let channel = room("replaced");
    append(&store, &channel, event("1")).await;
    assert_eq!(old.events(&channel).await, 1);
    // The third one has not heard of it.
    all_say(&sentinels[..2], new.here());
    let replaced = Instant::now();
    loop {
        let Ok(appended) = try_append(&store, &channel).await else { continue };
        let acknowledged = replaced.elapsed();
        if new.has(&channel, appended.id).await {
            break;
        }
        assert!(acknowledged < MASTER_LEASE, "{acknowledged:?}");
    }
    // Nor does one that comes now believe the old one, whomever it asks first.
    let kept = old.events(&channel).await;
    let other = RedisStore::open(&url(&sentinels[1..])).await.unwrap();
    let reversed: Vec<FakeSentinel> = sentinels.into_iter().rev().collect();
    let third = RedisStore::open(&url(&reversed)).await.unwrap();
    let id = append_when_back(&third, &channel).await;
    assert!(new.has(&channel, id).await);
    // Of two that don't agree none is believed.
    assert!(try_append(&other, &channel).await.is_err());
    assert_eq!(old.events(&channel).await, kept);
}

/// What was true when a connection was begun need not be when it is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_is_replaced_while_it_is_dialled_is_left() {
    let (old, new, sentinels) = start(1).await;
    sentinels[0].say(Says::Once(old.proxy.port(), new.proxy.port()));
    let store = RedisStore::open(&url(&sentinels)).await.unwrap();
    let channel = room("dialled");
    let refused = try_append(&store, &channel).await;
    assert!(refused.is_err() || new.events(&channel).await == 1, "{refused:?}");
    let id = append_when_back(&store, &channel).await;
    assert!(new.has(&channel, id).await);
    assert_eq!(old.events(&channel).await, 0);
}

/// After a pause of this process nothing is sent on the strength of what was known before.
#[tokio::test]
async fn a_process_that_was_stopped_appends_nothing_to_a_master_that_was_replaced_meanwhile() {
    let (old, new, sentinels) = start(3).await;
    let store = RedisStore::open(&url(&sentinels)).await.unwrap();
    let channel = room("stopped");
    append(&store, &channel, event("1")).await;
    all_say(&sentinels, new.here());
    // The only thread: no task runs meanwhile.
    std::thread::sleep(MASTER_LEASE);
    let first = try_append(&store, &channel).await;
    assert!(first.is_err(), "{first:?}");
    let id = append_when_back(&store, &channel).await;
    assert!(new.has(&channel, id).await);
    assert_eq!(old.events(&channel).await, 1);
}

/// One that was replaced by nobody goes on at once, and no append fails.
#[tokio::test]
async fn a_process_that_was_stopped_goes_on_with_the_same_master() {
    let (old, _new, sentinels) = start(3).await;
    let store = RedisStore::open(&url(&sentinels)).await.unwrap();
    let channel = room("goes-on");
    let first = append(&store, &channel, event("1")).await;
    std::thread::sleep(MASTER_LEASE);
    assert_eq!(append(&store, &channel, event("2")).await, first.plus(1));
    assert_eq!(old.events(&channel).await, 2);
}

/// The server is stopped with an append before it, is replaced, and does the append when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_replaced_master_does_late_is_not_acknowledged() {
    let (old, new, sentinels) = start(3).await;
    let store = RedisStore::open(&url(&sentinels)).await.unwrap();
    let channel = room("late");
    append(&store, &channel, event("1")).await;
    old.server.signal("-STOP");
    let mut late = pin!(try_append(&store, &channel));
    let early = tokio::time::timeout(MASTER_LEASE / 10, &mut late).await;
    assert!(early.is_err(), "{early:?}");
    all_say(&sentinels, new.here());
    let moved = append_when_back(&store, &channel).await;
    old.server.signal("-CONT");
    assert!(new.has(&channel, moved).await);
    let late = late.await;
    assert!(late.is_err(), "{late:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_sentinels_are_silent_logs_are_read_and_not_written() {
    let (old, new, sentinels) = start(2).await;
    let store = RedisStore::open(&url(&sentinels)).await.unwrap();
    let channel = room("silent");
    let first = append(&store, &channel, event("1")).await;
    for is_silent in [true, false] {
        let before = head(&store, &channel).await.id;
        // Silence, or no majority.
        sentinels[0].say(if is_silent { Says::Nothing } else { new.here() });
        sentinels[1].say(if is_silent { Says::Nothing } else { old.here() });
        let mut last = before;
        eventually("appends are refused", || async {
            let appended = try_append(&store, &channel).await;
            matches!(appended, Err(AppendError::Unavailable(StoreError::Unavailable(_))))
        })
        .await;
        last = last.max(head(&store, &channel).await.id);
        let start = Instant::now();
        for _ in 0..3 {
            assert!(try_append(&store, &channel).await.is_err());
        }
        assert!(start.elapsed() < AT_ONCE, "{:?}", start.elapsed());
        let range = store.range(&channel, first, ALL).await.unwrap();
        assert_eq!(range.head.id, last);
        assert_eq!(store.ping().await, Ok(()));
        // The connection is the same all the time, and nothing refused is in the log.
        all_say(&sentinels, old.here());
        let next = append_when_back(&store, &channel).await;
        assert_eq!(next, last.plus(1));
    }
}

/// The same with a real Sentinel, and a master that is stopped, replaced, and goes on.
/// One that is cut off together with the old master and us would name it for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sentinel_of_three_is_enough_to_read_and_not_to_write() {
    let (old, _new, sentinels) = start(3).await;
    let store = RedisStore::open(&url(&sentinels)).await.unwrap();
    let channel = room("alone");
    let first = append(&store, &channel, event("1")).await;
    all_say(&sentinels[..2], Says::Nothing);
    eventually("appends are refused", || async { try_append(&store, &channel).await.is_err() })
        .await;
    let first = head(&store, &channel).await.id.max(first);
    let before = old.events(&channel).await;
    let fresh = RedisStore::open(&url(&sentinels)).await.unwrap();
    assert_eq!(head(&fresh, &channel).await.id, first);
    assert!(try_append(&fresh, &channel).await.is_err());
    assert_eq!(old.events(&channel).await, before);
    all_say(&sentinels[1..2], old.here());
    append_when_back(&store, &channel).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_master_that_was_stopped_and_is_back_gets_nothing() {
    let servers = WatchedServers::start().await;
    let store = servers.open().await;
    let channel = room("back");
    append(&store, &channel, event("1")).await;
    let [master, replica] = &servers.servers;
    replica.wait_until_equal(master).await;
    master.signal("-STOP");
    wait_until_away(&store).await;
    eventually("the master is replaced", || async {
        servers.master().await.port() == replica.port()
    })
    .await;
    master.signal("-CONT");
    let back = Instant::now();
    let mut is_over = false;
    while !is_over {
        is_over = back.elapsed() >= 2 * MASTER_LEASE;
        let id = append_when_back(&store, &channel).await.to_string();
        let found: Vec<redis::Value> = replica.ask(&["XRANGE", &log_key(&channel), &id, &id]).await;
        assert_eq!(found.len(), 1, "{id}");
    }
}
