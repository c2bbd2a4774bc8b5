//! What cleanup uses: deletions, TTLs, the activity index, leases.

use zhttp::Cursor;

use super::*;

/// A TTL that a test waits for, in milliseconds.
const SHORT_MS: u64 = 100;

/// A TTL that never ends during a test, in milliseconds.
const LONG_MS: u64 = 3_600_000;

fn ttl(idle_ttl_ms: u64, end_ttl_ms: u64) -> Conditions {
    kept(Retention { idle_ttl_ms, end_ttl_ms, ..Retention::default() })
}

async fn wait_until_gone(store: &impl Store, channel: &ChannelName) {
    eventually("the log is over", || async { head(store, channel).await == Head::default() }).await;
}

/// What is listed of a channel, whatever its activity.
async fn listed(store: &impl Store, channel: &ChannelName) -> Option<Idle> {
    let before_ms = store.now_ms().await.unwrap() + 1000;
    let idle = store.idle(channel.shard(), before_ms, 1000).await.unwrap();
    idle.into_iter().find(|idle| idle.channel == *channel)
}

pub(super) async fn a_deletion_is_fenced<S: Store>(store: S) {
    let channel = room("delete");
    assert!(!store.delete(&channel, None).await.unwrap());
    let first = append(&store, &channel, event("1")).await;
    let second = append(&store, &channel, event("2")).await;
    assert!(!store.delete(&channel, Some(first)).await.unwrap());
    assert!(!store.delete(&channel, Some(Cursor::START)).await.unwrap());
    assert_eq!(head(&store, &channel).await.id, second);
    let idle = listed(&store, &channel).await.unwrap();
    let stale = Idle { head: first, ..idle.clone() };
    assert!(!store.delete_idle(&stale).await.unwrap());
    assert!(store.delete_idle(&idle).await.unwrap());
    assert_eq!(head(&store, &channel).await, Head::default());
    assert_eq!(listed(&store, &channel).await, None);
    let range = store.range(&channel, Cursor::START, ALL).await.unwrap();
    assert_eq!(range, Range::default());
    append(&store, &channel, event("3")).await;
    assert!(store.delete(&channel, None).await.unwrap());
    assert!(!store.delete(&channel, None).await.unwrap());
}

pub(super) async fn epochs_grow_over_deletions<S: Store>(store: S) {
    let channel = room("epochs");
    let mut last = Cursor::START;
    for _ in 0..50 {
        let id = append(&store, &channel, event("x")).await;
        assert!(id.epoch > last.epoch, "{id} after {last}");
        assert_eq!(id.offset, 1);
        last = id;
        assert!(store.delete(&channel, Some(id)).await.unwrap());
    }
}

pub(super) async fn an_idle_log_expires<S: Store>(store: S) {
    let (short, long) = (room("short"), room("long"));
    store.append(&long, event("x"), &ttl(LONG_MS, SHORT_MS)).await.unwrap();
    let old = store.append(&short, event("x"), &ttl(SHORT_MS, LONG_MS)).await.unwrap().id;
    wait_until_gone(&store, &short).await;
    assert_eq!(store.range(&short, Cursor::START, ALL).await.unwrap(), Range::default());
    assert_ne!(head(&store, &long).await, Head::default());
    // It comes back as a new one.
    let new = append(&store, &short, event("y")).await;
    assert!(new.epoch > old.epoch);
    let range = store.range(&short, old, ALL).await.unwrap();
    assert_eq!(range.gap.unwrap().reason, GapReason::Recreated);
    assert_eq!(range.events.len(), 1);
}

pub(super) async fn an_end_has_its_own_ttl<S: Store>(store: S) {
    let (short, long) = (room("end-short"), room("end-long"));
    store.append(&long, end_event(), &ttl(SHORT_MS, LONG_MS)).await.unwrap();
    store.append(&short, event("x"), &ttl(LONG_MS, SHORT_MS)).await.unwrap();
    store.append(&short, end_event(), &ttl(LONG_MS, SHORT_MS)).await.unwrap();
    wait_until_gone(&store, &short).await;
    assert!(head(&store, &long).await.ended);
}

pub(super) async fn an_append_after_an_end_lives_on<S: Store>(store: S) {
    let (goes_on, ends) = (room("goes-on"), room("ends"));
    let conditions = ttl(LONG_MS, SHORT_MS);
    store.append(&goes_on, end_event(), &conditions).await.unwrap();
    let id = store.append(&goes_on, event("x"), &conditions).await.unwrap().id;
    store.append(&ends, end_event(), &conditions).await.unwrap();
    wait_until_gone(&store, &ends).await;
    assert_eq!(head(&store, &goes_on).await.id, id);
}

/// Names of channels in one shard.
fn neighbours(count: usize) -> Vec<ChannelName> {
    let names = (0..).map(|number| room(&format!("neighbour-{number}")));
    names.filter(|name| name.shard() == 7).take(count).collect()
}

pub(super) async fn idle_channels_are_listed_longest_first<S: Store>(store: S) {
    let names = neighbours(3);
    let start_ms = store.now_ms().await.unwrap();
    let mut heads = vec![];
    for name in &names {
        heads.push(append(&store, name, event("x")).await);
    }
    let all_ms = store.now_ms().await.unwrap() + 1000;
    assert_eq!(store.idle(7, start_ms, 100).await.unwrap(), []);
    assert_eq!(store.idle(8, all_ms, 100).await.unwrap(), []);
    let order =
        |idle: &[Idle]| idle.iter().map(|idle| idle.channel.clone()).collect::<Vec<ChannelName>>();
    let idle = store.idle(7, all_ms, 100).await.unwrap();
    assert_eq!(order(&idle), names);
    for (idle, head) in idle.iter().zip(heads) {
        assert_eq!((idle.head, idle.ended), (head, false));
        assert!((start_ms..=all_ms).contains(&idle.active_ms()), "{idle:?}");
        assert!(idle.expires_ms > all_ms, "{idle:?}");
    }
    // An append makes a channel the least idle one; a limit cuts the list.
    let ended = append(&store, &names[0], end_event()).await;
    let idle = store.idle(7, all_ms, 100).await.unwrap();
    assert_eq!(order(&idle), [names[1].clone(), names[2].clone(), names[0].clone()]);
    assert_eq!((idle[2].head, idle[2].ended), (ended, true));
    assert_eq!(order(&store.idle(7, all_ms, 2).await.unwrap()), names[1..]);
}

pub(super) async fn an_expired_channel_is_listed_until_it_is_deleted<S: Store>(store: S) {
    let channel = room("expired");
    store.append(&channel, event("x"), &ttl(SHORT_MS, SHORT_MS)).await.unwrap();
    let (handle, mut stream) = store.follow();
    handle.add(channel.clone()).await.unwrap();
    wait_until_gone(&store, &channel).await;
    let idle = listed(&store, &channel).await.unwrap();
    assert_eq!((idle.head, idle.ended, idle.expires_ms), (Cursor::START, false, 0));
    assert!(!store.delete(&channel, None).await.unwrap());
    assert!(store.delete_idle(&idle).await.unwrap());
    assert_eq!(stream.next().await, Some(Followed::Deleted { channel: channel.clone() }));
    assert_eq!(listed(&store, &channel).await, None);
}

pub(super) async fn a_lease_has_one_owner<S: Store>(store: S) {
    assert!(store.lease(1, "a", LONG_MS).await.unwrap());
    assert!(!store.lease(1, "b", LONG_MS).await.unwrap());
    assert!(store.lease(2, "b", LONG_MS).await.unwrap());
    // Its owner may renew it, here to a time that will be over soon.
    assert!(store.lease(1, "a", SHORT_MS).await.unwrap());
    eventually("the lease is free", || async { store.lease(1, "b", LONG_MS).await.unwrap() }).await;
    assert!(!store.lease(1, "a", LONG_MS).await.unwrap());
}

pub(super) async fn a_store_answers_pings<S: Store>(store: S) {
    assert_eq!(store.ping().await, Ok(()));
}
