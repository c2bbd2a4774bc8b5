//! The stores that are set on fire: one Redis, a master behind Sentinels, a cluster, and the embedded one.
//!
//! Nodes are real `redis-server` processes with a file of settings each, which Sentinel and Cluster rewrite, so that a node
//! comes back as what it was made meanwhile. We speak to a node over its unix socket, which reaches into any network
//! namespace; they speak to each other over TCP.

mod cluster;
mod node;
mod sentinel;
pub(crate) mod watch;

use std::path::Path;

use crate::ChaosError;

use super::Fire;
use super::hosts::Host;
pub(crate) use node::{Node, Shared, shared};

/// Replicas say every second how far they are.
const MIN_REPLICAS: &str = "min-replicas-to-write 1\nmin-replicas-max-lag 2\n";

/// Which store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreKind {
    /// One Redis server that syncs each write.
    Redis,
    /// A master with two replicas, which three Sentinels watch over.
    Sentinel,
    /// Three masters with a replica each.
    Cluster,
    /// The one in the process of `forebay up`.
    Embedded,
}

impl StoreKind {
    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            StoreKind::Redis => "Redis",
            StoreKind::Sentinel => "Redis Sentinel",
            StoreKind::Cluster => "Redis Cluster",
            StoreKind::Embedded => "embedded",
        }
    }
}

/// The processes of a store.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    pub(crate) nodes: Vec<Node>,
    pub(crate) sentinels: Vec<Shared>,
    /// For `--redis`.
    pub(crate) url: String,
    /// Parts that each hold their share of the logs, of how many nodes each.
    pub(crate) shards: usize,
}

impl Nodes {
    /// Starts them on a host, with their files in `dir`, and waits until they are one store.
    pub(crate) async fn start(fire: &Fire, host: &Host, dir: &Path) -> Result<Self, ChaosError> {
        let settings = if fire.min_replicas { MIN_REPLICAS } else { "" };
        match fire.store {
            StoreKind::Redis => node::alone(host, dir).await,
            StoreKind::Sentinel => sentinel::start(host, dir, settings).await,
            StoreKind::Cluster => cluster::start(host, dir, settings).await,
            StoreKind::Embedded => Ok(Nodes::default()),
        }
    }

    /// Where the nodes are, for us.
    pub(crate) fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.url.clone()).collect()
    }
}
