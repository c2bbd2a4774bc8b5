//! Connections that are lost, or are not, and are deaf.

use super::proxy::Proxy;
use super::{heard, live_again, restored, wait_until_away, wait_until_back};
use crate::store::contract::{RedisServer, append, event, eventually, room};
use crate::store::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriptions_that_a_server_ends_are_made_anew() {
    let server = RedisServer::start().await;
    let store = server.open().await;
    let channel = room("killed");
    let (handle, mut stream) = store.follow();
    handle.add(channel.clone()).await.unwrap();
    for _ in 0..3 {
        let killed: u64 = server.ask(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
        assert_eq!(killed, 1);
        assert_eq!(stream.next().await, Some(Followed::Interrupted));
        assert_eq!(stream.next().await, Some(Followed::Restored));
        let id = append(&store, &channel, event("x")).await;
        heard(&mut stream, id).await;
    }
}

/// The server takes commands, and what it announces comes nowhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deaf_connection_is_noticed_and_the_store_says_that_it_does_not_work() {
    let server = RedisServer::start().await;
    let proxy = Proxy::start(server.socket()).await;
    let store = RedisStore::open(&proxy.url()).await.unwrap();
    let channel = room("deaf");
    let (handle, mut stream) = store.follow();
    handle.add(channel.clone()).await.unwrap();
    let id = append(&store, &channel, event("heard")).await;
    heard(&mut stream, id).await;
    assert_eq!(store.ping().await, Ok(()));

    proxy.swallow(true);
    let id = append(&store, &channel, event("not heard")).await;
    assert_eq!(stream.next().await, Some(Followed::Interrupted));
    wait_until_away(&store).await;
    // It is the announcements and nothing else.
    assert_eq!(append(&store, &channel, event("not heard")).await, id.plus(1));

    proxy.swallow(false);
    assert_eq!(stream.next().await, Some(Followed::Restored));
    wait_until_back(&store).await;
    let id = append(&store, &channel, event("heard")).await;
    heard(&mut stream, id).await;
}

/// A server that was paused answers nobody, and hears of nothing later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_of_the_server_is_survived() {
    let server = RedisServer::start().await;
    let store = server.open().await;
    let channel = room("paused");
    let (handle, mut stream) = store.follow();
    handle.add(channel.clone()).await.unwrap();
    server.ask::<()>(&["CLIENT", "PAUSE", "3000", "ALL"]).await;
    wait_until_away(&store).await;
    // The two connections notice it and come back each at its own time.
    live_again(&store, &channel, &mut stream).await;
    wait_until_back(&store).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_channels_are_followed_again() {
    const CHANNELS: usize = 5000;
    let server = RedisServer::start().await;
    let store = server.open().await;
    let (handle, mut stream) = store.follow();
    let rooms: Vec<ChannelName> =
        (0..CHANNELS).map(|number| room(&format!("room-{number}"))).collect();
    let mut adding = tokio::task::JoinSet::new();
    for room in &rooms {
        let (handle, room) = (handle.clone(), room.clone());
        adding.spawn(async move { handle.add(room).await });
    }
    assert!(adding.join_all().await.iter().all(Result::is_ok));
    server.ask::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    assert_eq!(stream.next().await, Some(Followed::Interrupted));
    // Those that come and go meanwhile have their turn.
    let late = room("late");
    eventually("one more is followed", || async { handle.add(late.clone()).await.is_ok() }).await;
    handle.remove(rooms[1].clone()).await.unwrap();
    restored(&mut stream).await;
    append(&store, &rooms[1], event("not heard")).await;
    for room in rooms.iter().step_by(500).chain([&late]) {
        let id = append(&store, room, event("x")).await;
        match stream.next().await {
            Some(Followed::Event { channel, event }) => {
                assert_eq!((&channel, event.id), (room, id));
            }
            other => panic!("not an event: {other:?}"),
        }
    }
}
