//! The routes of a whole process, without an edge.

#![allow(clippy::unwrap_used)]

use super::super::{FanoutConfig, Limits};
use super::*;
use crate::auth::Role;
use crate::testing::{TestStore, answer, header, token_at, verifier};

async fn service(roles: Roles) -> RolesService<TestStore> {
    let store = TestStore::open().await;
    let health = Health::new();
    let limits = Limits::default();
    let fanout = || {
        let config = FanoutConfig {
            verifier: verifier(Role::Subscriber),
            close_at_expiry: false,
            from: "fan".into(),
            retention: limits.retention(),
            draining: health.draining(),
        };
        Fanout::start(store.clone(), config)
    };
    let publisher = || Arc::new(Publisher::new(store.clone(), verifier(Role::Publisher), limits));
    let delete = || Delete { store: store.clone(), verifier: verifier(Role::Publisher), limits };
    RolesService {
        publish: roles.publish.then(publisher),
        fanout: roles.fanout.then(fanout),
        delete: roles.cleanup.then(delete),
        health: Arc::clone(&health),
    }
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
    for path in ["/publish/acme/news", "/events/acme", "/channels/acme/news"] {
        let preflight = ask("OPTIONS", path).await;
        assert_eq!(answer(&preflight), (204, ""), "{path}");
        assert_eq!(header(&preflight, "Access-Control-Allow-Origin"), Some("*"));
        assert_eq!(ask("PATCH", path).await.code, 405, "{path}");
    }
    let allow = ask("PATCH", "/channels/acme/news").await;
    assert_eq!(header(&allow, "Allow"), Some("GET, DELETE, OPTIONS"));
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
    assert_eq!(fanout[2..], ["* /events/", "GET /channels/", "OPTIONS /channels/"]);
    let cleanup = announced(Roles { cleanup: true, ..Roles::NONE });
    assert_eq!(cleanup[2..], ["DELETE /channels/", "OPTIONS /channels/"]);
    assert_eq!(announced(Roles::ALL).len(), 7);
}
