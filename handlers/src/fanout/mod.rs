//! The fanout role: answers subscribers, and feeds edges (`docs/channels.md`, "Subscribe";
//! `zhttp-spec/hold.md`).
//!
//! | file | what it does |
//! | --- | --- |
//! | `params`, `subscribe` | a subscriber's request becomes a hold, and the connection the edge's |
//! | `place` | where a reader begins |
//! | `history`, `pages` | the same log as JSON, with long polls |
//! | `heads` | reads heads, for all who ask at once |
//! | `feeder`, `table` | what is appended goes to the edges whose clients read it |
//! | `following`, `ranges` | what the feeder must not wait for |
//! | `lost` | what it does when the store has lost events |
//! | `packets` | what it sends |
//!
//! Nothing in here belongs to a connection: any fanout process answers any subscriber and feeds any
//! channel, and one that is killed is missed by nobody for longer than an edge takes to ask another.

mod feeder;
mod following;
mod heads;
mod history;
mod lost;
mod packets;
mod pages;
mod params;
mod place;
mod ranges;
mod subscribe;
mod table;

use std::sync::Arc;

use bytes::Bytes;

pub use self::feeder::FeederStats;
pub(crate) use self::feeder::{EdgeSink, Feeder, FeederHandle, Input};
pub(crate) use self::history::PREFIX as CHANNELS_PREFIX;
pub(crate) use self::subscribe::PREFIX as EVENTS_PREFIX;

pub(crate) use self::heads::HeadsReader;
use self::history::History;
pub(crate) use self::pages::{
    EVENT_OVERHEAD_BYTES_MAX, LIMIT_DEFAULT, LIMIT_MAX, PAGE_OVERHEAD_BYTES_MAX, Pages,
};
pub(crate) use self::params::Start;
pub(crate) use self::place::{Place, Placer};
use self::subscribe::Subscribe;
use crate::attach::Response;
use crate::auth::Verifier;
use crate::health::Draining;
use crate::store::{Retention, Store};
use crate::web::RequestHead;

/// The fanout role of one process.
pub(crate) struct Fanout<S, E> {
    subscribe: Subscribe<S>,
    history: History<S, E>,
    feeder: FeederHandle<E>,
    stats: Arc<FeederStats>,
}

/// What the role needs to know.
pub(crate) struct FanoutConfig {
    pub(crate) verifier: Verifier,
    /// Whether connections are closed when their token has expired.
    pub(crate) close_at_expiry: bool,
    /// The instance id: the `from` of the feeder's packets.
    pub(crate) from: Bytes,
    /// How long the feeder's own events are kept.
    pub(crate) retention: Retention,
    pub(crate) draining: Draining,
}

impl<S: Store, E: EdgeSink> Fanout<S, E> {
    /// Starts the feeder. Must be called within a tokio runtime.
    pub(crate) fn start(store: S, config: FanoutConfig) -> Self {
        let FanoutConfig { verifier, close_at_expiry, from, retention, draining } = config;
        let heads = HeadsReader::new(store.clone());
        let stats = Arc::new(FeederStats::default());
        let feeder =
            Feeder::start(store.clone(), heads.clone(), (from, retention), Arc::clone(&stats));
        let pages = Pages(store.clone());
        let placer = Placer { store, heads, retention };
        let subscribe = Subscribe { placer, verifier: verifier.clone(), close_at_expiry };
        let history = History { pages, verifier, feeder: feeder.clone(), draining };
        Fanout { subscribe, history, feeder, stats }
    }

    /// Where edges' requests for events go.
    pub(crate) fn feeder(&self) -> &FeederHandle<E> {
        &self.feeder
    }

    /// What says where readers begin.
    pub(crate) fn placer(&self) -> &Placer<S> {
        &self.subscribe.placer
    }

    /// What reads history.
    pub(crate) fn pages(&self) -> &Pages<S> {
        &self.history.pages
    }

    /// What the feeder did so far.
    pub(crate) fn stats(&self) -> &Arc<FeederStats> {
        &self.stats
    }

    /// Answers a subscriber: see [`Subscribe::answer`].
    pub(crate) async fn subscribe(
        &self,
        head: &RequestHead<'_>,
        can_hold: bool,
        now_ms: u64,
    ) -> Response {
        self.subscribe.answer(head, can_hold, now_ms).await
    }

    /// Answers a reader of history: see [`History::answer`].
    pub(crate) async fn history(&self, head: &RequestHead<'_>, now_ms: u64) -> Response {
        self.history.answer(head, now_ms).await
    }
}
