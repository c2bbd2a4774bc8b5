//! The roles of one process, put together: [`Handlers`].
//!
//! Everything that a process shares is made here once: the store, the attachment to the edges, the
//! tasks. A role knows nothing of the others. `forebay up` has all of them in one process, and a
//! large deployment each in processes of its own; the code is the same.
//!
//! # Leaving
//!
//! [`Handlers::shutdown`] goes through these steps, each of which is needed by the one after it:
//!
//! 1. not ready any more; long polls are answered;
//! 2. bye to the edges, which give new requests and channels to others; what is in flight is
//!    finished;
//! 3. what was answered with 202 is stored;
//! 4. the tasks end. The store is the caller's to close.

mod config;
mod service;

pub use self::config::{CLEANUP_GRACE, Limits, Roles, RolesConfig};

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use self::service::{RolesService, serves};
use crate::attach::{AttachConfig, AttachError, AttachStats, Attached, EdgeSender, FeedRequests};
use crate::auth::KeyError;
use crate::cleanup::Cleaner;
use crate::fanout::{FeederHandle, FeederStats, Input};
use crate::health::{Health, Links};
use crate::publish::{Outcomes, Publisher};
use crate::store::Store;

/// How often the numbers of the attachment are looked at.
const STATS_INTERVAL: Duration = Duration::from_secs(1);

/// Why a process could not be started. All of these are the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A key that readers' or publishers' tokens are checked with.
    #[error(transparent)]
    Keys(#[from] KeyError),
    /// The instance id or the edges.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// Something ended that should not have: a bug, as all of these tasks outlive every failure of what
/// they depend on. The process is to be shut down and started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// What feeds edges.
    #[error("the feeder ended unexpectedly")]
    Feeder,
    /// The connections to the edges.
    #[error("the attachment to the edges ended unexpectedly")]
    Attachment,
    /// One of the tasks that check, clean up and count.
    #[error("a background task ended unexpectedly")]
    Task,
}

/// The handlers of one process. Dropped without [`Handlers::shutdown`] they end at once, as if
/// killed.
pub struct Handlers<S> {
    health: Arc<Health>,
    publisher: Option<Arc<Publisher<S>>>,
    feeder: Option<FeederHandle<EdgeSender>>,
    feeder_stats: Option<Arc<FeederStats>>,
    stats: watch::Receiver<AttachStats>,
    leave: oneshot::Sender<Duration>,
    attachment: tokio::task::JoinHandle<()>,
    /// Ended when dropped.
    tasks: JoinSet<()>,
}

impl<S: Store> Handlers<S> {
    /// Starts the roles, and attaches them to the edges. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// If the configuration cannot be right. Edges that are not there are waited for, and so is the
    /// store.
    pub async fn start(config: RolesConfig, store: S) -> Result<Self, StartError> {
        let health = Health::new();
        let service = RolesService::start(&config, &store, Arc::clone(&health))?;
        let RolesConfig { id, edges, roles, limits, requests_max, .. } = config;
        let fanout = service.fanout.as_ref();
        let feeder = fanout.map(|fanout| fanout.feeder().clone());
        let feeder_stats = fanout.map(|fanout| Arc::clone(fanout.stats()));
        let publisher = service.publisher().cloned();
        let edges_total = edges.len();
        let serves = serves(roles);
        let feeds = roles.fanout;
        let attach = AttachConfig { id: id.clone(), edges, serves, feeds, requests_max };
        let mut attached = Attached::start(attach, service).await?;

        let mut tasks = JoinSet::new();
        if let Some(feeder) = feeder.clone() {
            tasks.spawn(pass_on(attached.feed_requests(), feeder));
        }
        if roles.cleanup {
            tasks.spawn(Cleaner::new(store.clone(), id, limits).run());
        }
        if let Some(publisher) = &publisher {
            let outcomes = Arc::clone(publisher.outcomes());
            tasks.spawn(async move { outcomes.log_each_interval().await });
        }
        let (switch, fed_by) = (attached.feed_switch(), feeder.clone());
        let (leave, leaving) = oneshot::channel();
        let (publish, stats) = watch::channel(AttachStats::default());
        let attachment = tokio::spawn(keep(attached, publish, leaving));
        let (checked, numbers) = (Arc::clone(&health), stats.clone());
        tasks.spawn(async move {
            let links = || Links { up: numbers.borrow().links_up as usize, total: edges_total };
            let tell = |store_is_there| {
                let has_feeder = fed_by.as_ref().is_some_and(|feeder| !feeder.has_ended());
                switch.set(store_is_there && has_feeder);
            };
            checked.check_each_interval(store, links, tell).await;
        });
        Ok(Handlers { health, publisher, feeder, feeder_stats, stats, leave, attachment, tasks })
    }

    /// Returns, having logged it, when something has ended that should not have; never while all is
    /// well. Whoever waits for a signal to leave waits for this too, and leaves in either case: a
    /// process that answers but does not feed would only be in the way of the others. Cancel-safe.
    pub async fn failed(&mut self) -> Failure {
        let feeder_ended = async {
            match &self.feeder {
                Some(feeder) => feeder.ended().await,
                None => std::future::pending().await,
            }
        };
        let mut stats = self.stats.clone();
        // Its numbers come every second, as long as it is there.
        let attachment_ended = async { while stats.changed().await.is_ok() {} };
        let failure = tokio::select! {
            biased;
            () = feeder_ended => Failure::Feeder,
            () = attachment_ended => Failure::Attachment,
            // It has ended by a panic, or by what it works for being gone.
            Some(_) = self.tasks.join_next() => Failure::Task,
        };
        tracing::error!(%failure, "the handlers have to be restarted");
        failure
    }

    /// The numbers of the attachment, at most a second old.
    pub fn attach_stats(&self) -> AttachStats {
        *self.stats.borrow()
    }

    /// The numbers of the feeder, if the process has the fanout role.
    pub fn feeder_stats(&self) -> Option<&FeederStats> {
        self.feeder_stats.as_deref()
    }

    /// What became of the messages that were to be published, if the process takes any.
    pub fn outcomes(&self) -> Option<&Outcomes> {
        self.publisher.as_ref().map(|publisher| &**publisher.outcomes())
    }

    /// Leaves, as said above; within `limit`, or soon after it. What is not finished by then is
    /// dropped.
    pub async fn shutdown(mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.health.drain();
        // If the attachment has ended by itself there is nobody to say bye to.
        let _ = self.leave.send(limit);
        if let Err(error) = self.attachment.await {
            tracing::error!(%error, "the attachment ended in a panic");
        }
        if let Some(publisher) = &self.publisher
            && timeout_at(deadline, publisher.drained()).await.is_err()
        {
            tracing::warn!("accepted messages are lost: the store did not take them in time");
        }
        self.tasks.shutdown().await;
    }
}

/// Keeps the attachment, and publishes its numbers, until it is told to leave within a time.
async fn keep(
    attached: Attached,
    publish: watch::Sender<AttachStats>,
    mut leave: oneshot::Receiver<Duration>,
) {
    let mut interval = tokio::time::interval(STATS_INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => drop(publish.send_replace(attached.stats())),
            limit = &mut leave => {
                // An error says that nobody will ever tell: then it ends as if killed.
                if let Ok(limit) = limit {
                    attached.shutdown(limit).await;
                }
                return;
            }
        }
    }
}

/// Passes on what edges ask of the feeder.
async fn pass_on(mut requests: FeedRequests, feeder: FeederHandle<EdgeSender>) {
    while let Some(request) = requests.next().await {
        feeder.send(Input::from(request)).await;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::auth::Role;
    use crate::testing::{TestStore, verifier_config};

    /// Handlers of an edge that is not there.
    async fn handlers() -> (Handlers<TestStore>, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let config = RolesConfig {
            id: "handler".to_owned(),
            edges: vec![format!("ipc://{}/edge", directory.path().display())],
            roles: Roles::ALL,
            subscriber: verifier_config(Role::Subscriber),
            publisher: verifier_config(Role::Publisher),
            limits: Limits::default(),
            requests_max: 0,
        };
        (Handlers::start(config, TestStore::open().await).await.unwrap(), directory)
    }

    /// What has failed by now.
    async fn failed_now<S: Store>(handlers: &mut Handlers<S>) -> Option<Failure> {
        tokio::select! {
            biased;
            failure = handlers.failed() => Some(failure),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn what_ends_unexpectedly_is_noticed() {
        let (mut handlers, _directory) = handlers().await;
        assert_eq!(failed_now(&mut handlers).await, None);
        handlers.tasks.abort_all();
        assert_eq!(handlers.failed().await, Failure::Task);
        while handlers.tasks.join_next().await.is_some() {}
        handlers.attachment.abort();
        assert_eq!(handlers.failed().await, Failure::Attachment);
        // It can be shut down all the same.
        handlers.shutdown(Duration::ZERO).await;
    }
}
