//! An attached service against edges that the tests play themselves, packet by packet.
//!
//! Nothing here sleeps. A hello every few milliseconds takes the place of the second one;
//! everything else is awaited, under a patience that only a failure uses up.

#![allow(clippy::unwrap_used, reason = "tests")]

mod bodies;
mod edge;
mod feeds;
mod lifecycle;
mod messages;
mod requests;

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::{Semaphore, mpsc};

use super::session::KeepAlive;
use super::tuning::Tuning;
use super::{AttachConfig, Attached, FeedRequest, FeedRequests, Request, Response, Service};
use edge::{FakeEdge, Got};

/// Nothing takes longer, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Awaits something that must happen.
#[track_caller]
fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("what is awaited at {caller} does not happen"),
        }
    }
}

/// Hellos come fast; keep-alives don't come in any test that doesn't ask for them.
fn tuning() -> Tuning {
    let long = Duration::from_secs(3600);
    Tuning {
        hello_every: Duration::from_millis(20),
        keep_alive: KeepAlive { first_after: long, every: long },
        ..Tuning::default()
    }
}

/// A handler, and the edges that it is attached to.
struct World {
    attached: Attached,
    edges: Vec<FakeEdge>,
    dir: TempDir,
}

impl World {
    /// One edge, which has been greeted.
    async fn new<S: Service>(service: S) -> World {
        World::tuned(service, tuning()).await
    }

    async fn tuned<S: Service>(service: S, tuning: Tuning) -> World {
        World::with(service, config(), 1, tuning).await
    }

    async fn with<S: Service>(
        service: S,
        mut config: AttachConfig,
        edges: usize,
        tuning: Tuning,
    ) -> World {
        let dir = tempfile::tempdir().unwrap();
        let mut fake = Vec::new();
        for number in 0..edges {
            config.edges.push(base(&dir, number));
            fake.push(FakeEdge::bind(&base(&dir, number)).await);
        }
        let attached = Attached::start_tuned(config, service, tuning).await.unwrap();
        for edge in &mut fake {
            edge.greeted().await;
        }
        World { attached, edges: fake, dir }
    }

    fn edge(&mut self) -> &mut FakeEdge {
        &mut self.edges[0]
    }

    /// Waits until the statistics are as they should be; hellos mark the time.
    async fn until(&mut self, check: impl Fn(super::AttachStats) -> bool) {
        let World { attached, edges, .. } = self;
        within(async {
            while !check(attached.stats()) {
                edges[0].recv_any().await;
            }
        })
        .await;
    }
}

fn config() -> AttachConfig {
    let serves = vec![("*".to_owned(), "/".to_owned())];
    AttachConfig { id: "handler".into(), serves, ..AttachConfig::default() }
}

fn base(dir: &TempDir, number: usize) -> String {
    format!("ipc://{}/edge{number}", dir.path().display())
}

/// Tells, when it is dropped, that the future it lives in was.
struct Dropped(mpsc::UnboundedSender<()>);

impl Drop for Dropped {
    fn drop(&mut self) {
        // The test may be over.
        let _ = self.0.send(());
    }
}

/// A service that says when it was called, then never answers, and says when its future is dropped.
fn stuck() -> (impl Service, mpsc::UnboundedReceiver<()>, mpsc::UnboundedReceiver<()>) {
    let (called, is_called) = mpsc::unbounded_channel();
    let (dropped, is_dropped) = mpsc::unbounded_channel();
    let service = move |_request: Request| {
        let (called, dropped) = (called.clone(), dropped.clone());
        async move {
            let _dropped = Dropped(dropped);
            called.send(()).unwrap();
            std::future::pending::<Response>().await
        }
    };
    (service, is_called, is_dropped)
}

/// A service that says when it was called, and answers when it is let.
fn gated() -> (impl Service, mpsc::UnboundedReceiver<()>, Arc<Semaphore>) {
    let (called, is_called) = mpsc::unbounded_channel();
    let gate = Arc::new(Semaphore::new(0));
    let service = {
        let gate = Arc::clone(&gate);
        move |_request: Request| {
            let (called, gate) = (called.clone(), Arc::clone(&gate));
            async move {
                called.send(()).unwrap();
                gate.acquire().await.unwrap().forget();
                Response::text(200, "at last")
            }
        }
    };
    (service, is_called, gate)
}

async fn next(requests: &mut FeedRequests) -> FeedRequest {
    within(requests.next()).await.unwrap()
}
