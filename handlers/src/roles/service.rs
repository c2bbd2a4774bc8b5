//! The routes of one process: which role answers which request.
//!
//! What a process serves is what it announces to the edges ([`serves`]), so an edge gives it nothing
//! else. `/channels/` has two owners, one for each method; the preflight of a page is answered by
//! either. The paths of one owner are announced with all methods, so that a wrong method is
//! answered with a 405 that says which are right.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::{Roles, RolesConfig, StartError};
use crate::attach::{
    Answer, CLOSE_INTERNAL, ClientMessages, EdgeSender, Request, Response, Service,
};
use crate::auth::Verifier;
use crate::cleanup::Delete;
use crate::fanout::{CHANNELS_PREFIX, EVENTS_PREFIX, Fanout, FanoutConfig};
use crate::health::Health;
use crate::publish::{self, Publisher};
use crate::socket::{self, Sockets, Tokens};
use crate::store::Store;
use crate::web::{self, RequestHead};

/// Whether the process lives.
const HEALTHZ: &str = "/healthz";

/// Whether it should get work.
const READYZ: &str = "/readyz";

/// The methods of `/channels/`, whoever answers them.
const CHANNELS_METHODS: &str = "GET, DELETE, OPTIONS";

/// The roles of one process, as a service.
pub(crate) struct RolesService<S> {
    pub(crate) health: Arc<Health>,
    pub(crate) publish: Option<Arc<Publisher<S>>>,
    pub(crate) fanout: Option<Fanout<S, EdgeSender>>,
    pub(crate) delete: Option<Delete<S>>,
    pub(crate) sockets: Option<Arc<Sockets<S>>>,
    /// After how much silence held connections hear that they live.
    keep_alive: Duration,
}

/// The methods and path prefixes of these roles.
pub(crate) fn serves(roles: Roles) -> Vec<(String, String)> {
    let mut serves = vec![("GET", HEALTHZ), ("GET", READYZ)];
    if roles.publish {
        serves.push(("*", publish::PREFIX));
    }
    if roles.fanout {
        serves.extend([("*", EVENTS_PREFIX), ("GET", CHANNELS_PREFIX)]);
        // What clients of sockets say comes by this, too: its method is MESSAGE (hold.md, H-91).
        serves.push(("*", socket::PREFIX));
    }
    if roles.cleanup {
        serves.push(("DELETE", CHANNELS_PREFIX));
    }
    if roles.fanout || roles.cleanup {
        serves.push(("OPTIONS", CHANNELS_PREFIX));
    }
    serves.into_iter().map(|(method, prefix)| (method.to_owned(), prefix.to_owned())).collect()
}

impl<S: Store> RolesService<S> {
    /// Starts the roles that the configuration names. Must be called within a tokio runtime.
    pub(crate) fn start(
        config: &RolesConfig,
        store: &S,
        health: Arc<Health>,
    ) -> Result<Self, StartError> {
        let RolesConfig { roles, limits, .. } = *config;
        // Who comes by a WebSocket publishes in whichever process has sockets, if that knows its keys.
        let sockets_publish = roles.fanout && !config.publisher.keys.is_empty();
        let knows_publishers = roles.publish || roles.cleanup || sockets_publish;
        let verifier = || Verifier::new(config.publisher.clone());
        let publishers = knows_publishers.then(verifier).transpose()?;
        let verifier = || Verifier::new(config.subscriber.clone());
        let subscribers = roles.fanout.then(verifier).transpose()?;

        let publisher = publishers.clone().filter(|_| roles.publish || sockets_publish);
        let publisher =
            publisher.map(|verifier| Arc::new(Publisher::new(store.clone(), verifier, limits)));
        let fanout = subscribers.clone().map(|verifier| {
            let config = FanoutConfig {
                verifier,
                close_at_expiry: limits.close_at_expiry,
                from: Bytes::from(config.id.clone().into_bytes()),
                retention: limits.retention(),
                draining: health.draining(),
            };
            Fanout::start(store.clone(), config)
        });
        let sockets = fanout.as_ref().zip(subscribers).map(|(fanout, subscriber)| {
            Arc::new(Sockets {
                tokens: Tokens { subscriber, publisher: publishers.clone() },
                placer: fanout.placer().clone(),
                pages: fanout.pages().clone(),
                publisher: publisher.clone(),
            })
        });
        let delete = publishers.filter(|_| roles.cleanup);
        let delete = delete.map(|verifier| Delete { store: store.clone(), verifier, limits });
        let publish = publisher.filter(|_| roles.publish);
        Ok(RolesService { health, publish, fanout, delete, sockets, keep_alive: limits.keep_alive })
    }

    /// Who publishes here, by whatever way messages come.
    pub(crate) fn publisher(&self) -> Option<&Arc<Publisher<S>>> {
        let of_sockets = || self.sockets.as_ref().and_then(|sockets| sockets.publisher.as_ref());
        self.publish.as_ref().or_else(of_sockets)
    }
}

impl<S: Store> Service for RolesService<S> {
    async fn call(&self, request: Request) -> Response {
        let path = request.path();
        let response = match path {
            HEALTHZ => self.health.healthz(),
            READYZ => self.health.readyz(),
            _ if path.starts_with(publish::PREFIX) => self.publish(request).await,
            _ if path.starts_with(EVENTS_PREFIX) => self.subscribe(&request).await,
            _ if path.starts_with(CHANNELS_PREFIX) => self.channel(&request).await,
            _ if path.starts_with(socket::PREFIX) => self.open(&request),
            _ => web::not_found(),
        };
        let mut response = web::with_cors(response);
        if let Some(hold) = &mut response.hold {
            hold.keep_alive = self.keep_alive;
        }
        response
    }

    async fn message(&self, said: ClientMessages) -> Answer {
        let Some(sockets) = self.sockets.clone() else {
            return Answer::close(CLOSE_INTERNAL, "");
        };
        // What is published must not be half done, also if the process has no more time: so it is done
        // in a task of its own.
        let doing = tokio::spawn(async move { sockets.message(&said, now_ms()).await });
        doing.await.unwrap_or_else(|error| {
            tracing::error!(%error, "what a client said was broken off");
            Answer::close(CLOSE_INTERNAL, "")
        })
    }
}

impl<S: Store> RolesService<S> {
    async fn publish(&self, mut request: Request) -> Response {
        let Some(publisher) = &self.publish else { return web::not_found() };
        let admission = match publisher.admit(&RequestHead::from(&request), now_ms() / 1000) {
            Ok(admission) => admission,
            Err(response) => return *response,
        };
        let body = match request.body(publisher.body_bytes_max(&admission)).await {
            Ok(body) => body,
            Err(error) => return publisher.body_refused(&admission, error),
        };
        // If the client leaves now this future is dropped. What it published must not be half done,
        // so it is done in a task of its own.
        let publisher = Arc::clone(publisher);
        let publishing = tokio::spawn(async move { publisher.publish(&admission, &body).await });
        publishing.await.unwrap_or_else(|error| {
            tracing::error!(%error, "publishing was broken off");
            Response::text(500, "Internal error")
        })
    }

    async fn subscribe(&self, request: &Request) -> Response {
        let Some(fanout) = &self.fanout else { return web::not_found() };
        fanout.subscribe(&RequestHead::from(request), request.can_hold(), now_ms()).await
    }

    fn open(&self, request: &Request) -> Response {
        let Some(sockets) = &self.sockets else { return web::not_found() };
        let can = (request.is_websocket(), request.can_hold());
        sockets.handshake(&RequestHead::from(request), can, now_ms())
    }

    async fn channel(&self, request: &Request) -> Response {
        let head = RequestHead::from(request);
        match (head.method, &self.fanout, &self.delete) {
            ("OPTIONS", _, _) => web::preflight(CHANNELS_METHODS),
            ("GET", Some(fanout), _) => fanout.history(&head, now_ms()).await,
            ("DELETE", _, Some(delete)) => delete.answer(&head, now_ms() / 1000).await,
            _ => web::method_not_allowed(CHANNELS_METHODS),
        }
    }
}

/// Our clock, in milliseconds since 1970: for tokens, and for what cannot be a cursor.
fn now_ms() -> u64 {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
