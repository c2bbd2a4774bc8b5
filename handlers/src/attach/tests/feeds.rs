//! What edges ask of a feeder.

use zhttp::hold::{Feed, Hello, Range, Unfeed};
use zhttp::{Cursor, Kind};

use super::super::{
    ClosedConnection, Down, FEED_REQUESTS_MAX, FeedRequest, RangeWanted, Request, Response, Service,
};
use super::{FakeEdge, World, base, config, next, tuning, within};

async fn nothing(_request: Request) -> Response {
    Response::new(404)
}

async fn feeder(edges: usize) -> World {
    let mut config = config();
    config.feeds = true;
    World::with(nothing, config, edges, tuning()).await
}

async fn send_range(edge: &FakeEdge, channel: &str) {
    let range = Range { channel, after: Cursor::new(5, 7), bytes: 65_536 };
    edge.send(Kind::Range, &[], |fields| range.write(fields)).await;
}

#[tokio::test]
async fn feed_requests_come_in_order_and_are_answered() {
    let mut world = feeder(1).await;
    let mut requests = world.attached.feed_requests();
    let FeedRequest::EdgeUp(up) = next(&mut requests).await else { panic!("no edge") };
    assert_eq!((up.id(), up.from()), (0, &b"handler"[..]));

    let edge = world.edge();
    let channels = [("o:a", None), ("o:b", Some(Cursor::new(3, 4)))];
    edge.send(Kind::Feed, &[], |fields| Feed::write(fields, channels.into_iter())).await;
    send_range(edge, "o:b").await;
    edge.send(Kind::Unfeed, &[], |fields| Unfeed::write(fields, ["o:a"].into_iter())).await;

    let FeedRequest::Feed(sender, wanted) = next(&mut requests).await else { panic!("no feed") };
    assert_eq!(wanted, channels.map(|(name, head)| (name.to_owned(), head)));
    sender.send("T16:4:type,5:heads,}".into()).await.unwrap();
    let FeedRequest::Range(sender, wanted) = next(&mut requests).await else { panic!("no range") };
    let want = RangeWanted { channel: "o:b".into(), after: Cursor::new(5, 7), bytes: 65_536 };
    assert_eq!((sender.id(), wanted), (0, want));
    let FeedRequest::Unfeed(0, names) = next(&mut requests).await else { panic!("no unfeed") };
    assert_eq!(names, ["o:a"]);

    world.attached.shutdown(super::PATIENCE).await;
    let FeedRequest::EdgeDown(0) = next(&mut requests).await else { panic!("it is not down") };
    assert!(within(requests.next()).await.is_none());
    assert_eq!(sender.send("T0:}".into()).await, Err(Down));
}

#[tokio::test]
async fn hello_says_whether_it_can_feed_now() {
    let mut world = feeder(1).await;
    let mut requests = world.attached.feed_requests();
    assert!(matches!(next(&mut requests).await, FeedRequest::EdgeUp(_)));
    let switch = world.attached.feed_switch();
    for can_feed in [false, true] {
        switch.set(can_feed);
        loop {
            let hello = world.edge().greeted().await;
            let packet = hello.packet();
            let hello = Hello::read(&packet).unwrap();
            assert_eq!(hello.serves.count(), 1);
            if hello.feeds == can_feed {
                break;
            }
        }
        // What was asked for before is void.
        assert!(matches!(next(&mut requests).await, FeedRequest::EdgeUp(_)));
    }
}

#[tokio::test]
async fn an_edge_that_is_restarted_goes_and_comes() {
    let mut world = feeder(2).await;
    let mut requests = world.attached.feed_requests();
    for _ in 0..2 {
        assert!(matches!(next(&mut requests).await, FeedRequest::EdgeUp(_)));
    }
    send_range(world.edge(), "o:of-no-use-soon").await;
    world.edges.remove(0).close().await;
    // The range may have been taken before the loss was seen, or was forgotten with it.
    loop {
        match next(&mut requests).await {
            FeedRequest::Range(sender, _) => assert_eq!(sender.id(), 0),
            FeedRequest::EdgeDown(id) => break assert_eq!(id, 0),
            other => panic!("{other:?}"),
        }
    }
    let mut edge = FakeEdge::bind(&base(&world.dir, 0)).await;
    edge.greeted().await;
    let FeedRequest::EdgeUp(up) = next(&mut requests).await else { panic!("it does not come") };
    assert_eq!(up.id(), 0);
}

#[tokio::test]
async fn what_nobody_has_heard_of_yet_cancels_out() {
    let mut world = feeder(1).await;
    let mut requests = world.attached.feed_requests();
    for _ in 0..2 {
        world.edges.remove(0).close().await;
        let mut edge = FakeEdge::bind(&base(&world.dir, 0)).await;
        edge.greeted().await;
        world.edges.push(edge);
    }
    send_range(world.edge(), "o:a").await;
    assert!(matches!(next(&mut requests).await, FeedRequest::EdgeUp(_)));
    assert!(matches!(next(&mut requests).await, FeedRequest::Range(..)));
}

#[tokio::test]
async fn a_full_queue_drops_and_holds_up_nobody() {
    let mut world = feeder(1).await;
    let mut requests = world.attached.feed_requests();
    let edge = world.edge();
    // `EdgeUp` waits there as well.
    for number in 0..FEED_REQUESTS_MAX + 9 {
        send_range(edge, &format!("o:{number}")).await;
    }
    edge.send(Kind::Unfeed, &[], |fields| Unfeed::write(fields, ["o:a"].into_iter())).await;
    edge.get("1", "/", 100).await;
    assert_eq!(edge.expect(Kind::Data, "1", 0).await.payload().code, Some(404));
    assert_eq!(world.attached.stats().feed_requests_dropped_total, 10);
    assert!(matches!(next(&mut requests).await, FeedRequest::EdgeUp(_)));
    for number in 0..FEED_REQUESTS_MAX - 1 {
        let FeedRequest::Range(_, wanted) = next(&mut requests).await else { panic!("no range") };
        assert_eq!(wanted.channel, format!("o:{number}"));
    }
    assert!(matches!(next(&mut requests).await, FeedRequest::Unfeed(0, _)));
}

#[tokio::test]
async fn who_does_not_feed_gets_no_feed_requests() {
    let mut world = World::new(nothing).await;
    let mut requests = world.attached.feed_requests();
    send_range(world.edge(), "o:a").await;
    world.edge().get("1", "/", 100).await;
    world.edge().expect(Kind::Data, "1", 0).await;
    drop(world.attached);
    assert!(within(requests.next()).await.is_none());
}

/// Passes on the connections that have closed; panics at one without a context.
struct Watching(tokio::sync::mpsc::UnboundedSender<ClosedConnection>);

impl Service for Watching {
    async fn call(&self, _request: Request) -> Response {
        Response::new(404)
    }

    fn closed(&self, connection: ClosedConnection) {
        assert!(!connection.context.is_empty(), "a bug");
        self.0.send(connection).unwrap();
    }
}

#[tokio::test]
async fn a_service_is_told_of_held_connections_that_close() {
    let (closed, mut is_closed) = tokio::sync::mpsc::unbounded_channel();
    let mut world = World::new(Watching(closed)).await;
    for context in ["", "u=7"] {
        let ids = [("0-0-1", None)];
        let write = |fields: &mut zhttp::Fields<'_, '_>| {
            fields.bytes("context", context.as_bytes());
        };
        world.edge().send(Kind::Closed, &ids, write).await;
    }
    let connection = ClosedConnection { edge: 0, context: "u=7".into() };
    assert_eq!(within(is_closed.recv()).await.unwrap(), connection);
}
