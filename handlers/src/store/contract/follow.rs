//! Following channels.

use zhttp::Cursor;

use super::*;

/// The next announcement, which must be an event.
async fn next_event(stream: &mut FollowStream) -> (ChannelName, StoredEvent) {
    match stream.next().await {
        Some(Followed::Event { channel, event }) => (channel, event),
        other => panic!("not an event: {other:?}"),
    }
}

pub(super) async fn a_follower_gets_what_it_follows_in_order<S: Store>(store: S) {
    let (followed, other, later) = (room("followed"), room("other"), room("later"));
    append(&store, &followed, event("before")).await;
    let (handle, mut stream) = store.follow();
    handle.add(followed.clone()).await.unwrap();
    handle.add(followed.clone()).await.unwrap();
    let after = head(&store, &followed).await.id;
    for number in 0..50 {
        append(&store, &other, event("not followed")).await;
        let new = match number {
            20 => end_event(),
            30 => NewEvent { kind: EventKind::Control, ..event("control ü") },
            _ => event(&format!("number {number}")),
        };
        append(&store, &followed, new).await;
    }
    let range = store.range(&followed, after, ALL).await.unwrap();
    assert_eq!(range.events.len(), 50);
    for expected in range.events {
        assert_eq!(next_event(&mut stream).await, (followed.clone(), expected));
    }
    // A repetition is no event.
    let conditions = Conditions::default();
    let id = store.append(&followed, event_with_id(5), &conditions).await.unwrap().id;
    assert_eq!(next_event(&mut stream).await.1.id, id);
    assert!(store.append(&followed, event_with_id(5), &conditions).await.unwrap().duplicate);
    // Once removed, a channel is silent; removing what is not followed is fine.
    handle.remove(followed.clone()).await.unwrap();
    handle.remove(followed.clone()).await.unwrap();
    append(&store, &followed, event("no longer followed")).await;
    handle.add(later.clone()).await.unwrap();
    let id = append(&store, &later, event("later")).await;
    let (channel, event) = next_event(&mut stream).await;
    assert_eq!((channel, event.id, event.prev), (later, id, Cursor::START));
    assert_eq!(stream.dropped_total(), 0);
}

pub(super) async fn a_follower_is_told_of_a_deletion<S: Store>(store: S) {
    let channel = room("deleted");
    let (handle, mut stream) = store.follow();
    handle.add(channel.clone()).await.unwrap();
    let id = append(&store, &channel, event("x")).await;
    assert!(!store.delete(&channel, Some(id.plus(1))).await.unwrap());
    assert!(store.delete(&channel, Some(id)).await.unwrap());
    let new = append(&store, &channel, event("y")).await;
    assert_eq!(next_event(&mut stream).await.1.id, id);
    assert_eq!(stream.next().await, Some(Followed::Deleted { channel: channel.clone() }));
    let (_, event) = next_event(&mut stream).await;
    assert_eq!((event.id, event.prev), (new, Cursor::START));
}

pub(super) async fn two_followers_get_the_same<S: Store>(store: S) {
    let channel = room("both");
    let (one_handle, mut one) = store.follow();
    let (two_handle, mut two) = store.follow();
    one_handle.add(channel.clone()).await.unwrap();
    two_handle.add(channel.clone()).await.unwrap();
    for _ in 0..10 {
        append(&store, &channel, event("x")).await;
    }
    for _ in 0..10 {
        assert_eq!(next_event(&mut one).await, next_event(&mut two).await);
    }
    // One goes; the other still follows, even without its handle.
    drop(one);
    drop(two_handle);
    let id = append(&store, &channel, event("x")).await;
    assert_eq!(next_event(&mut two).await.1.id, id);
}

pub(super) async fn following_ends_with_the_stream<S: Store>(store: S) {
    let (handle, stream) = store.follow();
    handle.add(room("ended")).await.unwrap();
    drop(stream);
    eventually("the follower is closed", || async { handle.add(room("another")).await.is_err() })
        .await;
}
