//! One server.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use redis::FromRedisValue;
use tokio::sync::Mutex;

use super::super::hosts::Host;
use super::Nodes;
use crate::process::Process;
use crate::{ChaosError, PATIENCE, PROBE_INTERVAL, ledger};

/// A process that faults have a lock on while they have it broken.
pub(crate) type Shared = Arc<Mutex<Process>>;

/// For several to use.
pub(crate) fn shared(process: Process) -> Shared {
    Arc::new(Mutex::new(process))
}

/// Names of nodes, and of their logs.
pub(super) const NAMES: [&str; 6] =
    ["redis-0", "redis-1", "redis-2", "redis-3", "redis-4", "redis-5"];

/// What all nodes have. The backlog is large, so that a node that comes back needs only what it missed.
const COMMON: &str = "save \"\"\nappendonly yes\nrepl-diskless-sync-delay 0\nrepl-backlog-size 64mb\n\
                      repl-ping-replica-period 1\nrepl-timeout 5\nbind 127.0.0.1\n";

/// A server that holds logs.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) process: Shared,
    pub(crate) name: &'static str,
    /// Where we reach it.
    pub(crate) url: String,
    pub(crate) port: u16,
    /// Which part of the logs it has a copy of.
    pub(crate) shard: usize,
}

impl Node {
    /// Starts a server with these settings, and waits until it answers.
    pub(super) async fn start(
        host: &Host,
        dir: &Path,
        (name, shard): (&'static str, usize),
        settings: &str,
    ) -> Result<Self, ChaosError> {
        let own = dir.join(name);
        std::fs::create_dir_all(&own).map_err(ChaosError::Setup)?;
        let socket = own.join("redis.sock");
        let port = free_port()?;
        let text = format!(
            "{COMMON}port {port}\nunixsocket {}\ndir {}\n{settings}",
            socket.display(),
            own.display()
        );
        let file = own.join("redis.conf");
        std::fs::write(&file, text).map_err(ChaosError::Setup)?;
        let mut process = host.process(name, Path::new("redis-server"), dir).args([file]);
        process.start()?;
        let url = format!("redis+unix://{}", socket.display());
        wait_until(name, || answers(&url)).await?;
        Ok(Node { process: shared(process), name, url, port, shard })
    }

    /// Sends words.
    pub(super) async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> Result<T, ChaosError> {
        let answer = ledger::ask(&self.url, words).await;
        answer.map_err(|error| ChaosError::NotReady(format!("{} {words:?}: {error}", self.name)))
    }
}

/// Whether a server answers.
pub(super) async fn answers(url: &str) -> bool {
    ledger::ask::<String>(url, &["PING"]).await.is_ok()
}

/// Waits until something is so.
pub(super) async fn wait_until<F: Future<Output = bool>>(
    what: &str,
    is_so: impl Fn() -> F,
) -> Result<(), ChaosError> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so().await {
        if Instant::now() > deadline {
            return Err(ChaosError::NotReady(what.to_owned()));
        }
        tokio::time::sleep(PROBE_INTERVAL).await;
    }
    Ok(())
}

/// A port that is free now.
pub(super) fn free_port() -> Result<u16, ChaosError> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(ChaosError::Setup)?;
    Ok(listener.local_addr().map_err(ChaosError::Setup)?.port())
}

/// One server, which syncs each write before it answers.
pub(super) async fn alone(host: &Host, dir: &Path) -> Result<Nodes, ChaosError> {
    let node = Node::start(host, dir, (NAMES[0], 0), "appendfsync always\n").await?;
    let url = node.url.clone();
    Ok(Nodes { nodes: vec![node], sentinels: Vec::new(), url, shards: 1 })
}
