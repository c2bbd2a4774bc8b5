//! The feeder against stores and edges that record what they get.

#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use super::super::packets::tests::shown;
use super::*;
use crate::store::contract::{ALL, ClusterServers, RedisServer};
use crate::store::{EventKind, NewEvent, RedisStore};
use crate::testing::{TestStore, eventually};

/// An edge that records its packets, and takes none while it is full.
#[derive(Clone, Debug)]
struct Recorder {
    id: EdgeId,
    packets: Arc<Mutex<Vec<String>>>,
    full: Arc<Mutex<bool>>,
}

impl Recorder {
    fn new(id: EdgeId) -> Self {
        Recorder { id, packets: Arc::default(), full: Arc::default() }
    }

    /// Everything that came.
    fn packets(&self) -> Vec<String> {
        self.packets.lock().unwrap().clone()
    }

    /// Waits until a packet has come; says what came until then. Heartbeats may be among it.
    async fn until(&self, packet: &str) -> Vec<String> {
        eventually(packet, || async { self.packets().iter().any(|own| own == packet) }).await;
        self.packets()
    }

    fn set_full(&self, full: bool) {
        *self.full.lock().unwrap() = full;
    }
}

impl EdgeSink for Recorder {
    fn id(&self) -> EdgeId {
        self.id
    }

    fn try_send(&self, packet: Bytes) -> Result<(), Refused> {
        if *self.full.lock().unwrap() {
            return Err(Refused::Full(packet));
        }
        self.packets.lock().unwrap().push(shown(&packet));
        Ok(())
    }

    async fn send(&self, packet: Bytes) -> Result<(), Down> {
        let mut packet = packet;
        loop {
            match self.try_send(packet) {
                Ok(()) => return Ok(()),
                Err(refused) => packet = refused.into_packet(),
            }
            tokio::task::yield_now().await;
        }
    }
}

struct Bench {
    store: TestStore,
    feeder: FeederHandle<Recorder>,
    stats: Arc<FeederStats>,
}

impl Bench {
    async fn new() -> Self {
        let store = TestStore::open().await;
        let (feeder, stats) = start(store.clone());
        Bench { store, feeder, stats }
    }

    async fn feed(&self, edge: &Recorder, channels: &[(&str, Option<Cursor>)]) {
        let channels = channels.iter().map(|(name, head)| ((*name).to_owned(), *head)).collect();
        self.feeder.send(Input::Feed(edge.clone(), channels)).await;
    }

    async fn range(&self, edge: &Recorder, after: Cursor, bytes: u64) {
        let wanted = RangeWanted { channel: "o:a".to_owned(), after, bytes };
        self.feeder.send(Input::Range(edge.clone(), wanted)).await;
    }

    /// Waits until channel `a` has an END of a later epoch; returns its id.
    async fn end_behind(&self, before: Cursor) -> Cursor {
        let read = || async { self.store.heads(&[room("a")]).await.unwrap()[0] };
        eventually("an END", || async { read().await.id.epoch > before.epoch }).await;
        let head = read().await;
        assert!(head.ended && head.id.offset == 1, "{head:?}");
        head.id
    }
}

fn start<S: Store>(store: S) -> (FeederHandle<Recorder>, Arc<FeederStats>) {
    let stats = Arc::new(FeederStats::default());
    let heads = HeadsReader::new(store.clone());
    let from = Bytes::from_static(b"fan");
    (Feeder::start(store, heads, (from, Retention::default()), Arc::clone(&stats)), stats)
}

fn room(name: &str) -> ChannelName {
    ChannelName::new("o", name).unwrap()
}

#[tokio::test]
async fn a_feed_is_answered_with_heads_and_then_with_events() {
    let bench = Bench::new().await;
    let head = bench.store.put(&room("a"), "1", false).await;
    let edge = Recorder::new(0);
    bench.feed(&edge, &[("o:a", None), ("o:b", None)]).await;
    edge.until(&format!("heads o:a={head} o:b=0-0")).await;
    let next = bench.store.put(&room("a"), "2", false).await;
    edge.until(&format!("events o:a {}-{}: 2", next.epoch, next.offset - 1)).await;
    let end = bench.store.put(&room("b"), "x", true).await;
    edge.until(&format!("events o:b {}-0 prev 0-0: x.", end.epoch)).await;
    let again = bench.store.put(&room("b"), "y", false).await;
    edge.until(&format!("events o:b {}-0 prev {end}: y", again.epoch)).await;
}

#[tokio::test]
async fn an_edge_that_names_its_head_gets_what_it_misses() {
    let bench = Bench::new().await;
    let first = bench.store.put(&room("a"), "1", false).await;
    let head = bench.store.put(&room("a"), "2", false).await;
    let edge = Recorder::new(0);
    bench.feed(&edge, &[("o:a", Some(first))]).await;
    edge.until(&format!("events o:a {}-1: 2", head.epoch)).await;
    edge.until(&format!("heads o:a={head}")).await;
}

#[tokio::test]
async fn two_edges_are_fed_by_one_following() {
    let bench = Bench::new().await;
    let (one, two) = (Recorder::new(0), Recorder::new(1));
    bench.feed(&one, &[("o:a", None)]).await;
    bench.feed(&two, &[("o:a", None), ("o:b", None)]).await;
    one.until("heads o:a=0-0").await;
    two.until("heads o:a=0-0 o:b=0-0").await;
    let id = bench.store.put(&room("a"), "1", false).await;
    let events = format!("events o:a {}-0 prev 0-0: 1", id.epoch);
    one.until(&events).await;
    two.until(&events).await;
    // One leaves, the other stays. The answer to a range says that the feeder knows of it.
    bench.feeder.send(Input::Unfeed(0, vec!["o:a".to_owned()])).await;
    bench.feeder.send(Input::EdgeDown(0)).await;
    let third = Recorder::new(2);
    bench.range(&third, id, 0).await;
    third.until(&format!("heads o:a={id}")).await;
    let before = one.packets();
    bench.store.put(&room("a"), "2", false).await;
    two.until(&format!("events o:a {}-1: 2", id.epoch)).await;
    assert_eq!(one.packets(), before);
}

#[tokio::test]
async fn a_full_edge_delays_nobody_and_hears_of_it_by_the_heads() {
    let bench = Bench::new().await;
    let (one, two) = (Recorder::new(0), Recorder::new(1));
    for edge in [&one, &two] {
        bench.feed(edge, &[("o:a", None)]).await;
        edge.until("heads o:a=0-0").await;
    }
    one.set_full(true);
    let id = bench.store.put(&room("a"), "1", false).await;
    two.until(&format!("events o:a {}-0 prev 0-0: 1", id.epoch)).await;
    eventually("the loss is counted", || async {
        bench.stats.dropped_total.load(Ordering::Relaxed) > 0
    })
    .await;
    one.set_full(false);
    one.until(&format!("heads o:a={id}")).await;
}

#[tokio::test]
async fn ranges_are_answered() {
    let bench = Bench::new().await;
    let first = bench.store.put(&room("a"), "1", false).await;
    let end = bench.store.put(&room("a"), "2", true).await;
    let last = bench.store.put(&room("a"), "3", false).await;
    // Edges that are not fed get nothing but the answer.
    let answer = |after, bytes, last_packet: String| {
        let (bench, edge) = (&bench, Recorder::new(0));
        async move {
            bench.range(&edge, after, bytes).await;
            edge.until(&last_packet).await
        }
    };
    let third = format!("events o:a {}-0 prev {end}: 3", last.epoch);
    let packets = answer(first, 0, third.clone()).await;
    assert_eq!(packets, [format!("events o:a {}-1: 2.", first.epoch), third.clone()]);
    // One event at least, whatever the limit.
    let one = format!("events o:a {}-0 prev 0-0: 1", first.epoch);
    assert_eq!(answer(Cursor::START, 1, one.clone()).await, [one]);
    answer(last, 0, format!("heads o:a={last}")).await;
    let packets = answer(Cursor::new(1, 7), 0, third).await;
    assert_eq!(packets[0], format!("gap o:a 1-7 {first} recreated"));
}

#[tokio::test]
async fn a_range_waits_a_moment_for_the_store() {
    let bench = Bench::new().await;
    let id = bench.store.put(&room("a"), "1", false).await;
    let edge = Recorder::new(0);
    bench.store.set_away(true);
    bench.range(&edge, Cursor::START, 0).await;
    tokio::task::yield_now().await;
    bench.store.set_away(false);
    edge.until(&format!("events o:a {}-0 prev 0-0: 1", id.epoch)).await;
}

#[tokio::test]
async fn those_who_are_live_in_a_deleted_log_are_told() {
    let bench = Bench::new().await;
    let id = bench.store.put(&room("a"), "1", false).await;
    let edge = Recorder::new(0);
    bench.feed(&edge, &[("o:a", None)]).await;
    edge.until(&format!("heads o:a={id}")).await;
    assert!(bench.store.delete(&room("a"), Some(id)).await.unwrap());
    // By the END of a log that is another one.
    let end = bench.end_behind(id).await;
    let told = format!("events o:a {}-0 prev 0-0: !expired.", end.epoch);
    edge.until(&told).await;
    // Each who had something asks what comes after it.
    bench.range(&edge, id, 0).await;
    edge.until(&format!("gap o:a {id} {end} recreated")).await;
    // That END goes quietly.
    assert!(bench.store.delete(&room("a"), Some(end)).await.unwrap());
    let new = bench.store.put(&room("a"), "2", false).await;
    edge.until(&format!("events o:a {}-0 prev 0-0: 2", new.epoch)).await;
    let ends = edge.packets().iter().filter(|packet| **packet == told).count();
    assert_eq!(ends, 2, "announced, and as a range");
}

#[tokio::test]
async fn who_is_behind_in_a_log_that_is_gone_is_told() {
    let bench = Bench::new().await;
    let id = bench.store.put(&room("a"), "1", true).await;
    let edge = Recorder::new(0);
    bench.feed(&edge, &[("o:a", None)]).await;
    edge.until(&format!("heads o:a={id}")).await;
    // The log had ended, and those who have that need nothing; but somebody was slow.
    assert!(bench.store.delete(&room("a"), Some(id)).await.unwrap());
    let behind = Cursor::new(id.epoch, 0);
    bench.range(&edge, behind, 0).await;
    let end = bench.end_behind(id).await;
    edge.until(&format!("gap o:a {behind} {end} recreated")).await;
    edge.until(&format!("events o:a {}-0 prev 0-0: !expired.", end.epoch)).await;
}

#[tokio::test]
async fn an_edge_that_comes_with_a_head_of_a_log_that_is_gone_is_told() {
    let bench = Bench::new().await;
    let edge = Recorder::new(0);
    // Another feeder told it of that event, before the log expired.
    bench.feed(&edge, &[("o:a", Some(Cursor::new(5, 7))), ("o:b", Some(Cursor::START))]).await;
    let end = bench.end_behind(Cursor::new(5, 7)).await;
    edge.until(&format!("events o:a {}-0 prev 0-0: !expired.", end.epoch)).await;
    let packets = edge.until("heads o:a=0-0 o:b=0-0").await;
    assert!(!packets.iter().any(|packet| packet.contains("events o:b")), "{packets:?}");
}

/// An edge that is a bug.
#[derive(Clone)]
struct Broken;

impl EdgeSink for Broken {
    fn id(&self) -> EdgeId {
        7
    }

    fn try_send(&self, _: Bytes) -> Result<(), Refused> {
        panic!("on purpose");
    }

    async fn send(&self, packet: Bytes) -> Result<(), Down> {
        drop(packet);
        Err(Down)
    }
}

#[tokio::test]
async fn a_feeder_that_fails_is_noticed() {
    let store = TestStore::open().await;
    let heads = HeadsReader::new(store.clone());
    let from = Bytes::from_static(b"fan");
    let feeder = Feeder::start(store, heads, (from, Retention::default()), Arc::default());
    assert!(!feeder.has_ended());
    feeder.send(Input::Feed(Broken, vec![("o:a".to_owned(), None)])).await;
    feeder.ended().await;
    assert!(feeder.has_ended());
}

#[tokio::test]
async fn a_deletion_behind_an_end_is_quiet() {
    let bench = Bench::new().await;
    let id = bench.store.put(&room("a"), "1", true).await;
    let edge = Recorder::new(0);
    bench.feed(&edge, &[("o:a", None), ("o:b", None)]).await;
    edge.until(&format!("heads o:a={id} o:b=0-0")).await;
    assert!(bench.store.delete(&room("a"), Some(id)).await.unwrap());
    let new = bench.store.put(&room("a"), "2", false).await;
    let packets = edge.until(&format!("events o:a {}-0 prev 0-0: 2", new.epoch)).await;
    assert!(!packets.iter().any(|packet| packet.contains("!expired")), "{packets:?}");
}

#[tokio::test]
async fn a_feed_while_the_store_is_away_is_answered_when_asked_again() {
    let bench = Bench::new().await;
    let edge = Recorder::new(0);
    bench.store.set_away(true);
    bench.feed(&edge, &[("o:a", None)]).await;
    bench.store.set_away(false);
    bench.feed(&edge, &[("o:a", None)]).await;
    edge.until("heads o:a=0-0").await;
}

#[tokio::test]
async fn names_that_are_none_of_ours_are_passed_over() {
    let bench = Bench::new().await;
    let edge = Recorder::new(0);
    bench.feed(&edge, &[("no-colon", None), ("o:a", None), ("a.b:c", None)]).await;
    edge.until("heads o:a=0-0").await;
}

/// The same over Redis, whose announcements can be interrupted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_interruption_edges_are_told_what_moved() {
    let mut server = RedisServer::prepare(true);
    server.resume().await;
    let store = server.open().await;
    let append = |data: &'static str| {
        let store = store.clone();
        async move {
            let data = Bytes::from_static(data.as_bytes());
            let event = NewEvent { message_id: None, end: false, kind: EventKind::Stream, data };
            store.append(&room("a"), event, &Default::default()).await.map(|done| done.id)
        }
    };
    let (feeder, stats) = start(store.clone());
    let edge = Recorder::new(0);
    let channels = vec![("o:a".to_owned(), None)];
    feeder.send(Input::Feed(edge.clone(), channels)).await;
    edge.until("heads o:a=0-0").await;
    let first = append("1").await.unwrap();
    // Whether it was announced to us already, or found.
    edge.until(&format!("heads o:a={first}")).await;

    server.kill();
    eventually("the interruption is seen", || async {
        stats.interrupted_total.load(Ordering::Relaxed) > 0
    })
    .await;
    server.resume().await;
    let mut last = None;
    while last.is_none() {
        last = append("2").await.ok();
        tokio::task::yield_now().await;
    }
    // Whether it was announced or not, the edge hears of it.
    edge.until(&format!("heads o:a={}", last.unwrap())).await;
}

#[tokio::test]
async fn an_edge_that_has_more_than_the_store_is_told() {
    let bench = Bench::new().await;
    let head = bench.store.put(&room("a"), "1", false).await;
    bench.store.put(&room("b"), "1", true).await;
    let ended = bench.store.heads(&[room("b")]).await.unwrap()[0].id;
    let edge = Recorder::new(0);
    // Another feeder told it of those events, before they were lost.
    bench.feed(&edge, &[("o:a", Some(head.plus(3))), ("o:b", Some(ended.plus(1)))]).await;
    let next = Cursor::new(head.epoch + 1, 1);
    eventually("the logs go on", || async {
        let heads = bench.store.heads(&[room("a"), room("b")]).await.unwrap();
        heads[0].id > head.plus(3) && heads[1].id > ended.plus(1) && heads[1].ended
    })
    .await;
    let heads = bench.store.heads(&[room("a"), room("b")]).await.unwrap();
    assert!(heads[0].id >= next);
    edge.until(&format!("events o:a {}-0 prev {head}: !failover", heads[0].id.epoch)).await;
    edge.until(&format!("events o:b {}-0 prev {ended}: !failover.", heads[1].id.epoch)).await;
    eventually("both are counted", || async {
        bench.stats.lost_tails_total.load(Ordering::Relaxed) == 2
    })
    .await;
    // Another edge that says so is behind now, and gets the same.
    let late = Recorder::new(1);
    bench.feed(&late, &[("o:a", Some(head.plus(3)))]).await;
    late.until(&format!("gap o:a {} {} recreated", head.plus(3), heads[0].id)).await;
    late.until(&format!("events o:a {}-0 prev {head}: !failover", heads[0].id.epoch)).await;
    assert_eq!(bench.stats.lost_tails_total.load(Ordering::Relaxed), 2);
}

async fn append(store: &RedisStore, data: &str) -> Cursor {
    let data = Bytes::copy_from_slice(data.as_bytes());
    let event = NewEvent { message_id: None, end: false, kind: EventKind::Stream, data };
    store.append(&room("a"), event, &Default::default()).await.unwrap().id
}

/// Two feeders feed an edge each. Events are appended that reach both, `keep` is done, more are, and
/// `lose` makes the store go back to what it had at `keep`. Nobody publishes anything after that.
async fn readers_of_a_lost_tail_are_told(
    store: &RedisStore,
    keep: impl Future<Output = ()>,
    lose: impl Future<Output = ()>,
) {
    let edges = [Recorder::new(0), Recorder::new(1)];
    let feeders = [start(store.clone()).0, start(store.clone()).0];
    for (feeder, edge) in feeders.iter().zip(&edges) {
        feeder.send(Input::Feed(edge.clone(), vec![("o:a".to_owned(), None)])).await;
        edge.until("heads o:a=0-0").await;
    }
    append(store, "1").await;
    let kept = append(store, "2").await;
    keep.await;
    append(store, "3").await;
    let lost = append(store, "4").await;
    for edge in &edges {
        // In whichever packet.
        let is_last = |packet: &String| packet.starts_with("events") && packet.ends_with(" 4");
        eventually("the last event", || async { edge.packets().iter().any(is_last) }).await;
    }
    lose.await;
    eventually("the log goes on", || async {
        store.heads(&[room("a")]).await.is_ok_and(|heads| heads[0].id > lost)
    })
    .await;
    // It is told once, whoever noticed.
    let range = store.range(&room("a"), kept, ALL).await.unwrap();
    let next = range.head.id;
    let ids: Vec<Cursor> = range.events.iter().map(|event| event.id).collect();
    assert_eq!((ids, range.events[0].prev, range.gap), (vec![next], kept, None));
    assert_eq!(next.offset, 1);
    let told = format!("events o:a {}-0 prev {kept}: !failover", next.epoch);
    for (feeder, edge) in feeders.iter().zip(&edges) {
        // Announced, or named in the heads, after which the edge asks.
        eventually("the edge hears of it", || async {
            let packets = edge.packets();
            packets.contains(&told) || packets.contains(&format!("heads o:a={next}"))
        })
        .await;
        let wanted = RangeWanted { channel: "o:a".to_owned(), after: lost, bytes: 0 };
        feeder.send(Input::Range(edge.clone(), wanted)).await;
        let packets = edge.until(&format!("gap o:a {lost} {next} recreated")).await;
        let gap = packets.iter().position(|packet| packet.starts_with("gap")).unwrap();
        eventually("what follows the gap", || async { edge.packets()[gap..].contains(&told) })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_back_older_loses_no_reader() {
    let mut server = RedisServer::prepare(false);
    server.resume().await;
    let store = server.open().await;
    let server = tokio::sync::Mutex::new(server);
    let keep = async { server.lock().await.ask::<()>(&["SAVE"]).await };
    let lose = async {
        let mut server = server.lock().await;
        server.kill();
        server.resume().await;
    };
    readers_of_a_lost_tail_are_told(&store, keep, lose).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_lacks_the_last_events_loses_no_reader() {
    let servers = ClusterServers::start(3).await;
    let store = servers.open().await;
    let (_, master) = servers.slot_and_master("o:a").await;
    let (old, new) = (&servers.nodes[master], &servers.nodes[3 + master]);
    let keep = async {
        new.wait_until_equal(old).await;
        old.stop_replication().await;
    };
    let lose = async {
        old.signal("-KILL");
        new.ask::<()>(&["CLUSTER", "FAILOVER", "TAKEOVER"]).await;
    };
    readers_of_a_lost_tail_are_told(&store, keep, lose).await;
}
