//! Requests and their whole answers.

use std::time::Duration;

use bytes::Bytes;
use zhttp::hold::{Format, Hello, HoldParams};
use zhttp::{Cursor, Fields, Kind};

use super::super::{HeldChannel, Hold, Request, Response};
use super::{World, config, gated, stuck, tuning, within};

async fn echo(request: Request) -> Response {
    let Request { method, uri, peer_address, .. } = &request;
    let host = String::from_utf8_lossy(request.header("host").unwrap_or_default());
    Response::text(201, format!("{method} {uri} {host} {peer_address:?}")).header("X-A", "b")
}

#[tokio::test]
async fn a_get_is_answered_with_one_packet() {
    let mut world = World::new(echo).await;
    let edge = world.edge();
    edge.get("0-0-1", "/a?b", 8192).await;
    let got = edge.expect(Kind::Data, "0-0-1", 0).await;
    assert_eq!(got.payload().code, Some(201));
    assert!(!got.payload().more);
    assert_eq!(got.body(), "GET http://host/a?b host Some(192.0.2.1)");
    let headers = [("Content-Type", "text/plain; charset=utf-8"), ("X-A", "b")];
    assert_eq!(got.headers(), headers.map(|(name, value)| (name.into(), value.into())));
    world.until(|stats| stats.requests_in_flight == 0).await;
    assert_eq!(world.attached.stats().requests_total, 1);
}

#[tokio::test]
async fn a_hello_says_everything() {
    let mut config = config();
    config.requests_max = 7;
    config.feeds = true;
    config.serves = vec![("GET".into(), "/events/".into()), ("*".into(), "/x".into())];
    let mut world = World::with(echo, config, 1, tuning()).await;
    let first = world.edge().greeted().await;
    let packet = first.packet();
    let hello = Hello::read(&packet).unwrap();
    assert_eq!((hello.ttl_ms, hello.requests_max, hello.feeds), (3000, 7, true));
    assert!(hello.incarnation > 1_600_000_000_000);
    assert_eq!(hello.serves.collect::<Vec<_>>(), [("GET", "/events/"), ("*", "/x")]);
    assert_eq!(world.edge().greeted().await.0, first.0);
}

#[tokio::test]
async fn two_edges_have_the_same_ids_without_confusion() {
    let mut world = World::with(echo, config(), 2, tuning()).await;
    for (number, edge) in world.edges.iter().enumerate() {
        edge.get("0-0-1", &format!("/{number}"), 8192).await;
    }
    for (number, edge) in world.edges.iter_mut().enumerate() {
        let got = edge.expect(Kind::Data, "0-0-1", 0).await;
        assert!(got.body().starts_with(&format!("GET http://host/{number} ")), "{}", got.body());
    }
    assert_eq!(world.attached.stats().links_up, 2);
}

#[tokio::test]
async fn a_panic_is_a_500_and_nothing_else() {
    let service = |request: Request| {
        assert!(request.path() != "/before", "no future at all");
        async move {
            tokio::task::yield_now().await;
            assert!(request.path() == "/well", "a bug");
            Response::text(200, "well")
        }
    };
    let mut world = World::new(service).await;
    let edge = world.edge();
    for (id, path, code) in [("1", "/before", 500), ("2", "/within", 500), ("3", "/well", 200)] {
        edge.get(id, path, 8192).await;
        assert_eq!(edge.expect(Kind::Data, id, 0).await.payload().code, Some(code), "{path}");
    }
    assert_eq!(world.attached.stats().requests_panicked_total, 2);
}

#[tokio::test]
async fn more_requests_than_the_process_takes_are_refused() {
    let (service, mut called, gate) = gated();
    let tuning = super::Tuning { requests_in_flight_max: 1, ..tuning() };
    let mut world = World::tuned(service, tuning).await;
    let edge = world.edge();
    edge.get("1", "/", 8192).await;
    within(called.recv()).await.unwrap();
    edge.get("2", "/", 8192).await;
    let got = edge.expect(Kind::Data, "2", 0).await;
    assert_eq!(got.payload().code, Some(503));
    assert_eq!(got.headers(), [("Retry-After".to_owned(), "1".to_owned())]);
    gate.add_permits(1);
    edge.expect(Kind::Data, "1", 0).await;
    world.until(|stats| stats.requests_in_flight == 0).await;
    let edge = world.edge();
    edge.get("3", "/", 8192).await;
    gate.add_permits(1);
    assert_eq!(edge.expect(Kind::Data, "3", 0).await.payload().code, Some(200));
}

#[tokio::test]
async fn a_request_that_comes_twice_is_served_once() {
    let (service, mut called, gate) = gated();
    let mut world = World::new(service).await;
    let edge = world.edge();
    edge.get("1", "/", 8192).await;
    edge.get("1", "/", 8192).await;
    edge.get("2", "/", 8192).await;
    for _ in 0..2 {
        within(called.recv()).await.unwrap();
    }
    gate.add_permits(2);
    let mut ids = [edge.recv().await.id().0, edge.recv().await.id().0];
    ids.sort();
    assert_eq!(ids, ["1", "2"]);
    assert_eq!(world.attached.stats().requests_total, 2);
}

#[tokio::test]
async fn a_cancel_drops_the_future() {
    for kind in [Kind::Cancel, Kind::Error] {
        let (service, mut called, mut dropped) = stuck();
        let mut world = World::new(service).await;
        world.edge().get("1", "/", 8192).await;
        within(called.recv()).await.unwrap();
        world.edge().send(kind, &[("1", Some(1))], |_| {}).await;
        within(dropped.recv()).await.unwrap();
        world.until(|stats| stats.requests_in_flight == 0).await;
        assert_eq!(world.attached.stats().requests_gone_total, 1);
    }
}

#[tokio::test]
async fn what_cannot_be_read_ends_what_it_names_and_nothing_else() {
    let (service, mut called, mut dropped) = stuck();
    let mut world = World::new(service).await;
    let edge = world.edge();
    edge.get("1", "/", 8192).await;
    within(called.recv()).await.unwrap();
    for bytes in [&b"X"[..], b"T", b"T0:}1", b"T17:4:type,7:strange,}"] {
        edge.send_bytes(bytes.to_vec()).await;
    }
    edge.send(Kind::Hello, &[], |fields| fields.int("ttl", 1)).await;
    // Of a session that is not there (any more), and about which nothing is said.
    edge.credit("9", 3, 100).await;
    edge.cancel("9", 4).await;
    edge.send(Kind::Data, &[("1", Some(1))], |fields| fields.bytes("credits", b"x")).await;
    within(dropped.recv()).await.unwrap();
    let got = edge.recv().await;
    assert_eq!((got.kind(), got.id()), (Kind::Cancel, ("1".into(), None)));
    assert_eq!(world.attached.stats().packets_bad_total, 6);
}

#[tokio::test]
async fn a_lost_packet_ends_the_session() {
    let (service, mut called, mut dropped) = stuck();
    let mut world = World::new(service).await;
    let edge = world.edge();
    edge.get("1", "/", 8192).await;
    within(called.recv()).await.unwrap();
    edge.send(Kind::KeepAlive, &[("1", Some(1)), ("9", Some(5))], |_| {}).await;
    edge.credit("1", 3, 100).await;
    within(dropped.recv()).await.unwrap();
    let got = edge.recv().await;
    assert_eq!((got.kind(), got.id()), (Kind::Cancel, ("1".into(), None)));
}

fn hold() -> Hold {
    let channels = vec![HeldChannel::new("acme:news", Cursor::new(1_736_467_200_000, 2))];
    Hold {
        keep_alive: Duration::from_secs(15),
        expires: Some(Duration::from_millis(3_599_001)),
        context: Bytes::from_static(b"u=7"),
        notify: true,
        ..Hold::new(Format::Sse, channels)
    }
}

/// The vector "response that takes a hold".
const HELD: &str = "T290:4:from,7:handler,2:id,5:0-0-1,3:seq,1:0#3:ext,148:4:hold,136:6:format,\
    3:sse,8:channels,35:31:9:acme:news,15:1736467200000-2,]]10:keep-alive,5:15000#7:expires,\
    4:3600#7:context,3:u=7,6:notify,4:true!}}4:code,3:200#7:headers,41:37:12:Content-Type,\
    17:text/event-stream,]]4:body,12:retry: 500\n\n,}";

#[tokio::test]
async fn a_hold_is_one_packet_and_the_end_of_the_session() {
    let service = async |request: Request| {
        assert!(request.can_hold());
        let response = Response::new(200).header("Content-Type", "text/event-stream");
        response.body("retry: 500\n\n").hold(hold())
    };
    let mut world = World::new(service).await;
    world.edge().get("0-0-1", "/", 8192).await;
    let got = world.edge().recv().await;
    assert_eq!(std::str::from_utf8(&got.0).unwrap(), HELD);
    assert!(HoldParams::read(&got.packet()).unwrap().is_some());
    world.until(|stats| stats.requests_in_flight == 0).await;
}

#[tokio::test]
async fn a_hold_that_cannot_be_is_a_500() {
    let service = async |request: Request| {
        let response = Response::new(200);
        let Hold { channels, .. } = hold();
        match request.path() {
            "/body" => response.body("x".repeat(101)).hold(hold()),
            "/messages" => response.hold(Hold { messages: "/ws/".to_owned(), ..hold() }),
            "/format" => response.hold(Hold { format: Format::Ws, ..hold() }),
            "/context" => response.hold(Hold { context: vec![0; 1025].into(), ..hold() }),
            "/channels" => {
                response.hold(Hold { channels: vec![channels[0].clone(); 129], ..hold() })
            }
            "/name" => {
                let channels = vec![HeldChannel::new("a b", Cursor::START)];
                response.hold(Hold { channels, ..hold() })
            }
            _ => response.body("x".repeat(100)).hold(hold()),
        }
    };
    let mut world = World::new(service).await;
    let edge = world.edge();
    for path in ["/body", "/messages", "/format", "/context", "/channels", "/name"] {
        edge.get(path, path, 100).await;
        assert_eq!(edge.expect(Kind::Data, path, 0).await.payload().code, Some(500), "{path}");
    }
    edge.get("good", "/good", 100).await;
    assert_eq!(edge.expect(Kind::Data, "good", 0).await.payload().code, Some(200));
    // This edge does not say that it can.
    let fields = |fields: &mut Fields<'_, '_>| {
        fields.bytes("method", b"GET");
        fields.bytes("uri", b"http://host/good");
        fields.int("credits", 100);
    };
    edge.send(Kind::Data, &[("plain", Some(0))], fields).await;
    assert_eq!(edge.expect(Kind::Data, "plain", 0).await.payload().code, Some(500));
}

#[tokio::test]
async fn a_websocket_is_rejected_with_a_response_or_held() {
    let service = async |request: Request| match request.path() {
        "/no" => Response::text(403, "not you"),
        _ => Response::new(101).hold(Hold {
            format: Format::Ws,
            messages: "/ws/".to_owned(),
            persistent: true,
            expires_code: 3000,
            ..hold()
        }),
    };
    let mut world = World::new(service).await;
    let edge = world.edge();
    for (id, uri) in [("1", "ws://host/no"), ("2", "wss://host/yes")] {
        let fields = |fields: &mut Fields<'_, '_>| {
            fields.bytes("method", b"GET");
            fields.bytes("uri", uri.as_bytes());
            fields.int("credits", 100);
        };
        let ext = |ext: &mut Fields<'_, '_>| ext.int("hold", 1);
        edge.send_ext(Kind::Data, &[(id, Some(0))], ext, fields).await;
    }
    let mut got = [edge.recv().await, edge.recv().await];
    got.sort_by_key(|got| got.id().0);
    assert_eq!(got[0].kind(), Kind::Error);
    let payload = got[0].payload();
    assert_eq!((payload.condition, payload.code), (Some("rejected"), Some(403)));
    assert_eq!(got[0].body(), "not you");
    assert_eq!((got[1].kind(), got[1].payload().code), (Kind::Data, Some(101)));
    let packet = got[1].packet();
    let held = HoldParams::read(&packet).unwrap().unwrap();
    assert_eq!((held.messages, held.persistent, held.expires_code), ("/ws/", true, 3000));
}
