//! What only the store in Redis has: servers that go away, hang, move, forget, and lose.
//!
//! All against real servers. What becomes of the readers of a log that has lost its tail is tested
//! through the feeder, as that is who tells them.

#![allow(clippy::unwrap_used)]

mod cluster;
mod deaf;
mod fake_sentinel;
mod lost_tail;
mod one;
mod proxy;
mod replaced;
mod sentinel;

use std::time::Duration;

use zhttp::Cursor;

use crate::store::contract::{event, eventually};
use crate::store::*;

/// More than a hundred operations take on any machine that fail because the server is known to be
/// away; far less than they take if each waits for a timeout.
pub(super) const AT_ONCE: Duration = Duration::from_secs(30);

async fn try_append(store: &RedisStore, channel: &ChannelName) -> Result<Appended, AppendError> {
    store.append(channel, event("x"), &Conditions::default()).await
}

/// Appends as soon as the store takes it.
async fn append_when_back(store: &RedisStore, channel: &ChannelName) -> Cursor {
    let start = std::time::Instant::now();
    loop {
        match try_append(store, channel).await {
            Ok(appended) => return appended.id,
            Err(error) => assert!(start.elapsed() < Duration::from_secs(60), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn wait_until_away(store: &RedisStore) {
    eventually("the loss is noticed", || async { store.ping().await.is_err() }).await;
}

async fn wait_until_back(store: &RedisStore) {
    eventually("the store is back", || async { store.ping().await.is_ok() }).await;
}

/// Waits for an event, past all that comes before it.
async fn heard(stream: &mut FollowStream, id: Cursor) {
    loop {
        match stream.next().await {
            Some(Followed::Event { event, .. }) if event.id == id => return,
            Some(_) => {}
            None => panic!("the stream is over"),
        }
    }
}

/// Waits until announcements are seen again, past all that comes before that.
async fn restored(stream: &mut FollowStream) {
    while stream.next().await != Some(Followed::Restored) {}
}

/// Appends until one of the events is heard: a channel on its way from one ear to another may miss
/// one, which the reader is told.
async fn live_again(store: &RedisStore, channel: &ChannelName, stream: &mut FollowStream) {
    for _ in 0..60 {
        let id = append_when_back(store, channel).await;
        if tokio::time::timeout(Duration::from_secs(1), heard(stream, id)).await.is_ok() {
            return;
        }
    }
    panic!("nothing is heard of {channel}");
}
