//! The ZHTTP side of a handler: how it is attached to edges.
//!
//! A handler author writes a [`Service`], which makes a [`Response`] of a [`Request`], and starts
//! it with [`Attached::start`]. What lies between that and the edges' sockets is here:
//!
//! | file | noun |
//! | --- | --- |
//! | `service`, `request`, `response` | what the author sees |
//! | `message` | what clients of held WebSockets say, and how it is answered |
//! | `respond` | how a response becomes packets |
//! | `flow` | the machine of one session: numbers and credits in both directions |
//! | `session` | a session as the tasks on its two sides share it |
//! | `edge` | the task of one edge: who gets which packet, hello, keep-alives |
//! | `feed` | the queue of what edges ask of a feeder |
//! | `link` | the ZeroMQ connection to one edge |
//!
//! The handler connects, the edge listens. The handler says `hello` each second, with what it
//! serves; the edge gives it requests and counts on it until the hellos stop (`zhttp-spec/hold.md`
//! §5). All packets go over this one connection in order, so nothing is lost but with the
//! connection, and then everything of it is: sessions of a lost edge are dropped on the spot, and a
//! client that is still there asks again.
//!
//! There is no handoff here. A handler that leaves says bye and finishes what it has; a long-lived
//! connection belongs in a [`Hold`], which needs no handler at all.
//!
//! ```no_run
//! use forebay_handlers::attach::{AttachConfig, Attached, Request, Response};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = AttachConfig {
//!     id: "hello-1".into(),
//!     edges: vec!["ipc:///run/forebay/client".into()],
//!     serves: vec![("GET".into(), "/hello/".into())],
//!     ..AttachConfig::default()
//! };
//! let attached = Attached::start(config, async |request: Request| {
//!     Response::text(200, format!("You asked for {}\n", request.path()))
//! });
//! let attached = attached.await?;
//! tokio::signal::ctrl_c().await?;
//! attached.shutdown(std::time::Duration::from_secs(10)).await;
//! # Ok(()) }
//! ```

mod edge;
mod feed;
mod flow;
mod link;
mod message;
mod request;
mod respond;
mod response;
mod service;
mod session;
mod stats;
#[cfg(test)]
mod tests;
mod tuning;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use zhttp::{Kind, hold};

pub use feed::{
    Down, EdgeId, EdgeSender, FEED_REQUESTS_MAX, FeedRequest, FeedRequests, RangeWanted,
    UNFEED_REQUESTS_MAX,
};
pub use link::{
    HIGH_WATER_MARK, LINGER_MAX, Link, LinkError, LinkEvent, LinkSender, MESSAGE_SIZE_MAX, Refused,
};
pub(crate) use message::CLOSE_INTERNAL;
pub use message::{Answer, ClientMessage, ClientMessages, Close, Expires};
pub use request::{BodyError, Request};
pub use response::{Body, HeldChannel, Hold, Response};
pub use service::{ClosedConnection, Service};
pub(crate) use service::{catch_panic, panic_text};
pub use stats::AttachStats;
pub use tuning::{BODY_BYTES_MAX, REQUESTS_MAX, WAITING_ANSWERS_BYTES_MAX};

use edge::{EdgeTask, Hellos, Phase, Shared};
use feed::FeedQueue;
use stats::Counters;
use tuning::{HELLO_TTL_MS, Tuning};

/// Who a handler is, where its edges are, and what it does for them.
#[derive(Clone, Debug, Default)]
pub struct AttachConfig {
    /// The instance id: the identity of the sockets, and the `from` of all packets. 1 to 64 bytes
    /// without a space. No two processes at one edge may have the same.
    pub id: String,
    /// Base specs of the edges, `ipc://PATH` or `tcp://HOST:PORT`, as the edge's own
    /// `--zclient-stream`. None twice.
    pub edges: Vec<String>,
    /// What is served: method (`*` is any) and path prefix, which begins with `/`. What clients of
    /// held WebSockets say has the method `MESSAGE`; see [`Service::message`]. Empty: no requests are
    /// wanted.
    pub serves: Vec<(String, String)>,
    /// Whether this handler feeds channels; see [`Attached::feed_requests`].
    pub feeds: bool,
    /// Requests that this handler wants in flight at most from each edge, which gives further ones
    /// to others, or lets them wait; 0 is no limit, but for [`REQUESTS_MAX`].
    pub requests_max: u32,
}

/// Why a handler could not be attached. That an edge is not there is no error: it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There is no edge to attach to.
    #[error("edges: at least one is needed")]
    NoEdge,
    /// An edge stands there twice. Its second connection would take the place of the first, for
    /// they have the same identity.
    #[error("edges: {spec:?} stands there twice")]
    EdgeTwice {
        /// The base spec.
        spec: String,
    },
    /// What is served is no method and no path prefix.
    #[error("serves: want a method or *, and a prefix that begins with /: {method:?} {prefix:?}")]
    Serves {
        /// The method.
        method: String,
        /// The path prefix.
        prefix: String,
    },
    /// A base spec, or the instance id, is wrong.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A service that is attached to its edges. Dropped without [`Attached::shutdown`] it ends at once,
/// as if killed.
#[derive(Debug)]
pub struct Attached {
    phase: watch::Sender<Phase>,
    edges: JoinSet<()>,
    shared: Arc<Shared>,
    _closer: QueueCloser,
}

/// Tells the edges whether a handler can feed now. At first it can, if it was configured to.
///
/// A feeder that is cut off from its store is worse than none: the edge would wait for it while
/// others could feed. Requests still come to it: each is answered by itself, if with a 503.
#[derive(Clone, Debug)]
pub struct FeedSwitch(Arc<Shared>);

impl FeedSwitch {
    /// Says so with the next hello, within a second. When it can feed again the edges ask anew for
    /// all channels that are its own.
    pub fn set(&self, can_feed: bool) {
        if self.0.can_feed.swap(can_feed, Ordering::Relaxed) != can_feed && self.0.feeds {
            tracing::info!(can_feed, "whether channels can be fed from here has changed");
        }
    }
}

/// Ends the feed requests with the attachment, however that ends.
#[derive(Debug)]
struct QueueCloser(Arc<FeedQueue>);

impl Drop for QueueCloser {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Attached {
    /// Connects to the edges, says hello every second to each, and serves until
    /// [`Attached::shutdown`]. Must be called in a tokio runtime. Edges that are not there are
    /// tried again, for ever.
    ///
    /// # Errors
    /// See [`AttachError`]: all of them are mistakes in the configuration.
    pub async fn start<S: Service>(
        config: AttachConfig,
        service: S,
    ) -> Result<Attached, AttachError> {
        Attached::start_tuned(config, service, Tuning::default()).await
    }

    async fn start_tuned<S: Service>(
        config: AttachConfig,
        service: S,
        tuning: Tuning,
    ) -> Result<Attached, AttachError> {
        check(&config)?;
        let mut links = Vec::with_capacity(config.edges.len());
        for spec in &config.edges {
            links.push(Link::connect(spec, &config.id).await?);
        }
        let shared = Arc::new(Shared {
            from: config.id.as_bytes().into(),
            hellos: hellos(&config),
            feeds: config.feeds,
            can_feed: AtomicBool::new(true),
            feed_queue: Arc::default(),
            counters: Arc::new(Counters::default()),
            body_room: Arc::new(Semaphore::new(tuning.body_bytes_max)),
            tuning,
        });
        let service = Arc::new(service);
        let (phase, phases) = watch::channel(Phase::Serving);
        let mut edges = JoinSet::new();
        for (id, link) in links.into_iter().enumerate() {
            tracing::info!(edge = id, spec = config.edges[id], "attaching");
            let sender = EdgeSender::new(id, Arc::clone(&shared.from), link.sender());
            let task = EdgeTask::new(sender, &link, Arc::clone(&service), Arc::clone(&shared));
            edges.spawn(task.run(link, phases.clone()));
        }
        let closer = QueueCloser(Arc::clone(&shared.feed_queue));
        Ok(Attached { phase, edges, shared, _closer: closer })
    }

    /// What the edges ask of a feeder; if the configuration does not say that this is one, nothing
    /// ever. To be taken once: two takers would each get a part.
    pub fn feed_requests(&mut self) -> FeedRequests {
        FeedRequests(Arc::clone(&self.shared.feed_queue))
    }

    /// What tells the edges whether this handler can feed now.
    pub fn feed_switch(&self) -> FeedSwitch {
        FeedSwitch(Arc::clone(&self.shared))
    }

    /// What has been counted so far.
    pub fn stats(&self) -> AttachStats {
        self.shared.counters.snapshot()
    }

    /// Says bye to the edges, so that no new requests come, and finishes those in flight. After
    /// `limit` the rest is dropped. Then closes the links, which waits up to [`LINGER_MAX`] for
    /// what has not been written yet.
    ///
    /// Requests that cross the bye on their way are served as well, if they come before the others
    /// are finished; else they were not begun, and the edge gives them to another handler.
    pub async fn shutdown(mut self, limit: Duration) {
        self.phase.send_replace(Phase::Leaving);
        let all = async { while self.edges.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            self.phase.send_replace(Phase::Closing);
            while self.edges.join_next().await.is_some() {}
        }
    }
}

fn check(config: &AttachConfig) -> Result<(), AttachError> {
    if config.edges.is_empty() {
        return Err(AttachError::NoEdge);
    }
    for (at, spec) in config.edges.iter().enumerate() {
        if config.edges[..at].contains(spec) {
            return Err(AttachError::EdgeTwice { spec: spec.clone() });
        }
    }
    for (method, prefix) in &config.serves {
        if method.is_empty() || !prefix.starts_with('/') {
            return Err(AttachError::Serves { method: method.clone(), prefix: prefix.clone() });
        }
    }
    Ok(())
}

/// The packets that say who is there. The incarnation is the time of the start: another one for
/// each start, as far as anything can be told apart by it.
fn hellos(config: &AttachConfig) -> Hellos {
    let since_1970 = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let incarnation = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
    let serves: Vec<(&str, &str)> =
        config.serves.iter().map(|(method, prefix)| (&**method, &**prefix)).collect();
    let hello = |feeds| {
        let hello = hold::Hello {
            ttl_ms: HELLO_TTL_MS,
            incarnation,
            feeds,
            // Written from the slice.
            serves: hold::Serves::default(),
            requests_max: config.requests_max,
        };
        let mut packet = Vec::new();
        let from = config.id.as_bytes();
        hold::write_packet(&mut packet, from, Kind::Hello, |fields| hello.write(fields, &serves));
        packet.into()
    };
    Hellos { able: hello(config.feeds), unable: hello(false) }
}
