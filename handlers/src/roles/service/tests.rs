//! The routes of a whole process, without an edge.

#![allow(clippy::unwrap_used)]

use super::super::Limits;
use super::*;
use crate::attach::ClientMessage;
use crate::auth::Role;
use crate::testing::{TestStore, answer, header, token_at, verifier_config};

async fn service(roles: Roles) -> RolesService<TestStore> {
    let config = RolesConfig {
        id: "handler".to_owned(),
        edges: Vec::new(),
        roles,
        subscriber: verifier_config(Role::Subscriber),
        publisher: verifier_config(Role::Publisher),
        limits: Limits::default(),
        requests_max: 0,
    };
    RolesService::start(&config, &TestStore::open().await, Health::new()).unwrap()
}

fn bearer(role: Role) -> String {
    format!("Bearer {}", token_at(role, "acme", &["news"], now_ms() / 1000))
}

#[tokio::test]
async fn a_message_goes_all_the_way() {
    let service = service(Roles::ALL).await;
    let request = Request::detached("POST", "http://h/publish/acme/news", r#"{"sequence":7}"#)
        .with_header("Authorization", bearer(Role::Publisher))
        .with_header("Content-Type", "application/json");
    let published = service.call(request).await;
    assert_eq!(published.code, 200);
    let id = answer(&published).1.to_owned();

    let reader = bearer(Role::Subscriber);
    let request = Request::detached("GET", "http://h/events/acme?channel_id=news", "")
        .with_header("Authorization", reader.clone());
    let held = service.call(request).await;
    assert_eq!((held.code, header(&held, "Access-Control-Allow-Origin")), (200, Some("*")));
    assert_eq!(held.headers.len(), 4);
    assert_eq!(held.hold.unwrap().channels[0].name, "acme:news");

    let request = Request::detached("GET", "http://h/channels/acme/news/head", "")
        .with_header("Authorization", reader);
    let head = service.call(request).await;
    assert_eq!(answer(&head), (200, &*format!(r#"{{"ended":false,"head":"{id}"}}"#)));

    let request = Request::detached("DELETE", "http://h/channels/acme/news", "")
        .with_header("Authorization", bearer(Role::Publisher));
    assert_eq!(service.call(request).await.code, 204);
}

#[tokio::test]
async fn a_socket_reads_what_it_publishes() {
    let service = service(Roles { fanout: true, ..Roles::NONE }).await;
    let reader = bearer(Role::Subscriber);
    let request =
        Request::detached("GET", "ws://h/ws/acme", "").with_header("Authorization", reader);
    let held = service.call(request).await;
    let hold = held.hold.unwrap();
    assert_eq!((held.code, &*hold.messages), (101, "/ws/"));
    let writer = token_at(Role::Publisher, "acme", &["news"], now_ms() / 1000);
    let said = |text: String| ClientMessage { body: text.into(), binary: false };
    let said = ClientMessages {
        edge: 0,
        id: "0-0-1".into(),
        path: hold.messages,
        number: 1,
        context: hold.context,
        channels: 0,
        bodies: vec![
            said(r#"{"type":"subscribe","channel":"news"}"#.to_owned()),
            said(format!(r#"{{"type":"publish","channel":"news","token":"{writer}"}}"#)),
        ],
    };
    let answer = service.message(said.clone()).await;
    assert!(answer.bodies.iter().all(|body| body.contains(r#""type":"answer""#)), "{answer:?}");
    assert_eq!(answer.add[0].name, "acme:news");
    assert_eq!(service.publisher().unwrap().outcomes().totals().len(), 1);
    // By HTTP it takes nothing.
    let request = Request::detached("POST", "http://h/publish/acme/news", "");
    assert_eq!(service.call(request).await.code, 404);
    // One that has no sockets closes them.
    let other = self::service(Roles::NONE).await;
    assert_eq!(other.message(said).await, Answer::close(1011, ""));
    let request = Request::detached("GET", "ws://h/ws/acme", "");
    assert_eq!(other.call(request).await.code, 404);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let service = service(Roles::ALL).await;
    let request = Request::detached("POST", "http://h/publish/acme/news", vec![0; 16_385])
        .with_header("Authorization", bearer(Role::Publisher));
    let refused = service.call(request).await;
    assert_eq!(answer(&refused), (413, "Message size 16385 exceeds maximum of 16384 bytes"));
    assert_eq!(header(&refused, "Access-Control-Allow-Origin"), Some("*"));
}

#[tokio::test]
async fn preflights_wrong_methods_and_unknown_paths() {
    let service = service(Roles::ALL).await;
    let ask = |method: &'static str, path: &str| {
        service.call(Request::detached(method, &format!("http://h{path}"), ""))
    };
    for path in ["/publish/acme/news", "/events/acme", "/channels/acme/news", "/ws/acme"] {
        let preflight = ask("OPTIONS", path).await;
        assert_eq!(answer(&preflight), (204, ""), "{path}");
        assert_eq!(header(&preflight, "Access-Control-Allow-Origin"), Some("*"));
        assert_eq!(ask("PATCH", path).await.code, 405, "{path}");
    }
    let allow = ask("PATCH", "/channels/acme/news").await;
    assert_eq!(header(&allow, "Allow"), Some("GET, DELETE, OPTIONS"));
    for method in ["POST", "HEAD", "MESSAGE"] {
        let refused = ask(method, "/ws/acme").await;
        assert_eq!((refused.code, header(&refused, "Allow")), (405, Some("GET, OPTIONS")));
    }
    assert_eq!(ask("GET", "/ws/acme").await.code, 426);
    assert_eq!(ask("GET", "/nothing").await.code, 404);
    assert_eq!(ask("GET", "/healthz").await.code, 200);
    assert_eq!(ask("GET", "/readyz").await.code, 503);
}

#[tokio::test]
async fn a_process_answers_for_its_roles_only() {
    let service = service(Roles { publish: true, ..Roles::NONE }).await;
    let ask = |method: &'static str, path: &str| {
        service.call(Request::detached(method, &format!("http://h{path}"), ""))
    };
    assert_eq!(ask("GET", "/events/acme").await.code, 404);
    assert_eq!(ask("GET", "/channels/acme/news").await.code, 405);
    assert_eq!(ask("POST", "/publish/acme/news").await.code, 401);
    let announced = |roles| {
        let serves = serves(roles);
        serves.iter().map(|(method, prefix)| format!("{method} {prefix}")).collect::<Vec<_>>()
    };
    assert_eq!(announced(Roles::NONE), ["GET /healthz", "GET /readyz"]);
    let fanout = announced(Roles { fanout: true, ..Roles::NONE });
    assert_eq!(fanout[2..], ["* /events/", "GET /channels/", "* /ws/", "OPTIONS /channels/"]);
    let cleanup = announced(Roles { cleanup: true, ..Roles::NONE });
    assert_eq!(cleanup[2..], ["DELETE /channels/", "OPTIONS /channels/"]);
    assert_eq!(announced(Roles::ALL).len(), 8);
    // What clients of sockets say comes to those who have sockets only.
    let hears = |roles| {
        let covers = |(method, prefix): (String, String)| {
            ["*", "MESSAGE"].contains(&&*method) && "/ws/".starts_with(&*prefix)
        };
        serves(roles).into_iter().any(covers)
    };
    assert!(!hears(Roles { publish: true, cleanup: true, ..Roles::NONE }));
    assert!(hears(Roles { fanout: true, ..Roles::NONE }));
}
