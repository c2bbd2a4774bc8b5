//! Coming, staying and going: of edges, of sessions, and of the handler.

use std::collections::BTreeMap;
use std::time::Duration;

use zhttp::Kind;

use super::super::session::KeepAlive;
use super::super::{AttachConfig, AttachError, Attached, LinkError, Request, Response};
use super::{FakeEdge, Tuning, World, base, config, gated, stuck, tuning, within};

async fn answer(_request: Request) -> Response {
    Response::text(200, "well")
}

#[tokio::test]
async fn a_restarted_edge_is_greeted_and_served_again() {
    let (service, mut called, mut dropped) = stuck();
    let mut world = World::new(service).await;
    let mut first = world.edge().greeted().await;
    for _ in 0..2 {
        // Ids begin anew with the edge.
        world.edge().get("0-0-1", "/", 100).await;
        within(called.recv()).await.unwrap();
        world.edges.remove(0).close().await;
        within(dropped.recv()).await.unwrap();
        let mut edge = FakeEdge::bind(&base(&world.dir, 0)).await;
        let hello = edge.greeted().await;
        assert_eq!(hello.0, first.0);
        first = hello;
        world.edges.push(edge);
    }
    world.until(|stats| stats.requests_in_flight == 0 && stats.requests_gone_total == 2).await;
}

#[tokio::test]
async fn an_edge_may_come_later_than_the_handler() {
    let dir = tempfile::tempdir().unwrap();
    let config = AttachConfig { edges: vec![base(&dir, 0)], ..config() };
    let attached = Attached::start_tuned(config, answer, tuning()).await.unwrap();
    let mut edge = FakeEdge::bind(&base(&dir, 0)).await;
    edge.greeted().await;
    edge.get("1", "/", 100).await;
    edge.expect(Kind::Data, "1", 0).await;
    drop(attached);
}

#[tokio::test]
async fn shutdown_says_bye_and_finishes_what_is_in_flight() {
    let (service, mut called, gate) = gated();
    let mut world = World::new(service).await;
    world.edge().get("1", "/", 100).await;
    within(called.recv()).await.unwrap();
    let World { attached, mut edges, dir } = world;
    let leaving = tokio::spawn(attached.shutdown(Duration::MAX));
    let edge = &mut edges[0];
    assert_eq!(edge.recv().await.kind(), Kind::Bye);
    // On its way before the edge read the bye.
    edge.get("2", "/", 100).await;
    within(called.recv()).await.unwrap();
    assert!(!leaving.is_finished());
    gate.add_permits(2);
    let mut ids = [edge.recv().await.id().0, edge.recv().await.id().0];
    ids.sort();
    assert_eq!(ids, ["1", "2"]);
    within(leaving).await.unwrap();
    drop(dir);
}

#[tokio::test]
async fn shutdown_drops_what_is_not_finished_in_time() {
    let (service, mut called, mut dropped) = stuck();
    let mut world = World::new(service).await;
    world.edge().get("1", "/", 100).await;
    within(called.recv()).await.unwrap();
    within(world.attached.shutdown(Duration::ZERO)).await;
    within(dropped.recv()).await.unwrap();
}

#[tokio::test]
async fn shutdown_does_not_wait_for_edges_that_are_away() {
    let dir = tempfile::tempdir().unwrap();
    let config = AttachConfig { edges: vec![base(&dir, 0)], ..config() };
    let attached = Attached::start_tuned(config, answer, tuning()).await.unwrap();
    within(attached.shutdown(Duration::MAX)).await;
}

#[tokio::test]
async fn dropped_without_a_shutdown_it_ends_at_once() {
    let (service, mut called, mut dropped) = stuck();
    let mut world = World::new(service).await;
    world.edge().get("1", "/", 100).await;
    within(called.recv()).await.unwrap();
    drop(world.attached);
    within(dropped.recv()).await.unwrap();
}

#[tokio::test]
async fn silent_sessions_are_kept_alive_in_batches() {
    const SESSIONS: usize = 300;
    let (service, _called, gate) = gated();
    let soon = Duration::from_millis(1);
    let keep_alive = KeepAlive { first_after: soon, every: soon };
    let mut world = World::tuned(service, Tuning { keep_alive, ..tuning() }).await;
    let edge = world.edge();
    for number in 0..SESSIONS {
        edge.get(&format!("{number}"), "/", 100).await;
    }
    // The numbers of each session, whatever the packets that they come in.
    let mut next: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    let mut open = SESSIONS;
    let mut let_go = false;
    while open > 0 {
        let got = edge.recv().await;
        for id in got.packet().ids {
            let due = next.entry(id.id.to_vec()).or_default();
            assert_eq!(id.seq, Some(*due), "{got:?}");
            *due += 1;
        }
        match got.kind() {
            Kind::KeepAlive => {}
            Kind::Data => open -= 1,
            kind => panic!("{kind:?}"),
        }
        if !let_go && next.len() == SESSIONS && next.values().all(|due| *due >= 2) {
            let_go = true;
            gate.add_permits(SESSIONS);
        }
    }
}

#[tokio::test]
async fn mistakes_in_the_configuration_are_named() {
    let start = async |change: fn(&mut AttachConfig)| {
        let mut config = AttachConfig { edges: vec!["ipc:///nowhere".into()], ..config() };
        change(&mut config);
        Attached::start(config, answer).await.unwrap_err()
    };
    let error = start(|config| config.edges.clear()).await;
    assert!(matches!(error, AttachError::NoEdge));
    let error = start(|config| config.edges.push("ipc:///nowhere".into())).await;
    assert_eq!(error.to_string(), r#"edges: "ipc:///nowhere" stands there twice"#);
    let error = start(|config| config.serves.push(("GET".into(), "events".into()))).await;
    assert!(error.to_string().ends_with(r#": "GET" "events""#), "{error}");
    let error = start(|config| config.id = "two words".into()).await;
    assert!(matches!(error, AttachError::Link(LinkError::Identity { .. })));
    let error = start(|config| config.edges[0] = "nowhere".into()).await;
    assert!(matches!(error, AttachError::Link(LinkError::Spec { .. })));
}
