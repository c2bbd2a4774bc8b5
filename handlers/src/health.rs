//! Health: whether the process lives, and whether it should get work.
//!
//! `GET /healthz` says that the process answers, and since when. `GET /readyz` says whether what it
//! needs is there: the store, and an edge. That is found out in the background every
//! [`CHECK_INTERVAL`], or sooner while something is missing, never inside a request: a probe must
//! not be what a store that is in trouble is asked most often, and must not take as long as the
//! store does. From the first moment of a drain a process is not ready, whatever the last check
//! said.
//!
//! A probe may look away, but edges must not: what a check finds of the store also decides whether
//! this process says that it can feed ([`crate::attach::FeedSwitch`]).

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::attach::Response;
use crate::store::Store;

/// How often the dependencies are looked at.
pub(crate) const CHECK_INTERVAL: Duration = Duration::from_secs(3);

/// How soon they are looked at again if something was missing: a process that has just started, or
/// whose store is back, should not be passed over for longer than it takes.
const RECHECK_INTERVAL: Duration = Duration::from_millis(500);

/// How long the store may take to answer a check.
const PING_MAX: Duration = Duration::from_secs(2);

/// Whether the process is leaving, for those who wait for something.
#[derive(Clone, Debug)]
pub(crate) struct Draining(watch::Receiver<bool>);

impl Draining {
    /// Returns when the drain has begun.
    pub(crate) async fn begun(&self) {
        // An error says that the process is going down: so it has begun.
        let _ = self.0.clone().wait_for(|draining| *draining).await;
    }
}

/// How many links to edges there are, and how many of them are up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Links {
    pub(crate) up: usize,
    pub(crate) total: usize,
}

/// What the last check found.
#[derive(Clone, Debug)]
struct Found {
    /// What is wrong with the store.
    store: Result<(), String>,
    links: Links,
}

impl Found {
    /// One edge is enough to be of use.
    fn is_complete(&self) -> bool {
        self.store.is_ok() && self.links.up > 0
    }
}

/// The state of the process.
#[derive(Debug)]
pub(crate) struct Health {
    started: Instant,
    /// `None` until the first check.
    found: Mutex<Option<Found>>,
    draining: watch::Sender<bool>,
}

impl Health {
    pub(crate) fn new() -> Arc<Self> {
        let draining = watch::Sender::new(false);
        Arc::new(Health { started: Instant::now(), found: Mutex::new(None), draining })
    }

    /// From now on the process is not ready.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// For those who must not wait on while the process leaves.
    pub(crate) fn draining(&self) -> Draining {
        Draining(self.draining.subscribe())
    }

    /// Looks at the dependencies, again and again, and says each time whether the store is there.
    /// Never returns.
    pub(crate) async fn check_each_interval<S: Store>(
        &self,
        store: S,
        links: impl Fn() -> Links,
        tell: impl Fn(bool),
    ) {
        loop {
            let complete = self.check(&store, &links).await;
            tell(self.found().is_some_and(|found| found.store.is_ok()));
            let pause = if complete { CHECK_INTERVAL } else { RECHECK_INTERVAL };
            tokio::time::sleep(pause).await;
        }
    }

    /// Looks once; returns whether everything is there.
    async fn check<S: Store>(&self, store: &S, links: &impl Fn() -> Links) -> bool {
        let store = match tokio::time::timeout(PING_MAX, store.ping()).await {
            Ok(answer) => answer.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {} s", PING_MAX.as_secs())),
        };
        let found = Found { store, links: links() };
        let complete = found.is_complete();
        *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        complete
    }

    /// What the last check found.
    fn found(&self) -> Option<Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// `GET /healthz`.
    pub(crate) fn healthz(&self) -> Response {
        let uptime = self.started.elapsed().as_secs();
        Response::json(200, format!(r#"{{"status":"ok","uptime":{uptime}}}"#))
            .header("Cache-Control", "no-store")
    }

    /// `GET /readyz`.
    pub(crate) fn readyz(&self) -> Response {
        let found = self.found().unwrap_or_else(|| Found {
            store: Err("not looked at yet".to_owned()),
            links: Links { up: 0, total: 0 },
        });
        let draining = *self.draining.borrow();
        let ready = found.is_complete() && !draining;
        let Found { store, links } = found;
        let body = json!({
            "status": if ready { "ready" } else { "not ready" },
            "draining": draining,
            "dependencies": {
                "store": store.map_or_else(Value::from, |()| Value::from("ok")),
                "edges": {"up": links.up, "total": links.total},
            },
        });
        let code = if ready { 200 } else { 503 };
        Response::json(code, body.to_string()).header("Cache-Control", "no-store")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::attach::Body;
    use crate::store::{EmbeddedStore, Fsync};

    fn answer(response: &Response) -> (u16, String) {
        let Body::Whole(body) = &response.body else { panic!("a stream") };
        (response.code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn ready_is_what_the_last_check_found_until_the_drain() {
        let directory = tempfile::tempdir().unwrap();
        let store = EmbeddedStore::open(directory.path(), Fsync::default()).await.unwrap();
        let health = Health::new();
        assert_eq!(answer(&health.healthz()), (200, r#"{"status":"ok","uptime":0}"#.to_owned()));
        let (code, body) = answer(&health.readyz());
        assert!(code == 503 && body.contains("not looked at yet"), "{body}");

        health.check(&store, &|| Links { up: 1, total: 2 }).await;
        let ready = r#"{"dependencies":{"edges":{"total":2,"up":1},"store":"ok"},"draining":false,"status":"ready"}"#;
        assert_eq!(answer(&health.readyz()), (200, ready.to_owned()));
        health.check(&store, &|| Links { up: 0, total: 2 }).await;
        assert_eq!(health.readyz().code, 503);

        health.check(&store, &|| Links { up: 2, total: 2 }).await;
        assert_eq!(health.readyz().code, 200);
        health.drain();
        health.draining().begun().await;
        let (code, body) = answer(&health.readyz());
        assert!(code == 503 && body.contains(r#""draining":true"#), "{body}");
        store.close().await.unwrap();
    }
}
