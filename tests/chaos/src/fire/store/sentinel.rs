//! A master with two replicas, which three Sentinels watch over.

use std::path::Path;

use super::super::hosts::Host;
use super::Nodes;
use super::node::{NAMES, Node, answers, free_port, shared, wait_until};
use crate::{ChaosError, ledger};

/// Servers that hold the logs.
const SERVERS: usize = 3;

const SENTINEL_NAMES: [&str; 3] = ["sentinel-0", "sentinel-1", "sentinel-2"];

/// How long a master is away before Sentinels replace it, and how long they give each other for that, in milliseconds.
const DOWN_AFTER_MS: u32 = 1000;
const FAILOVER_TIMEOUT_MS: u32 = 4000;

/// Starts all.
pub(super) async fn start(host: &Host, dir: &Path, settings: &str) -> Result<Nodes, ChaosError> {
    let mut nodes: Vec<Node> = Vec::new();
    for name in NAMES.into_iter().take(SERVERS) {
        let of = nodes.first().map(|master| format!("replicaof 127.0.0.1 {}\n", master.port));
        let settings = format!("{settings}{}", of.unwrap_or_default());
        nodes.push(Node::start(host, dir, (name, 0), &settings).await?);
    }
    for replica in &nodes[1..] {
        wait_until(replica.name, || async {
            let info = replica.ask::<String>(&["INFO", "replication"]).await.unwrap_or_default();
            info.contains("master_link_status:up")
        })
        .await?;
    }
    let (mut sentinels, mut urls, mut ports) = (Vec::new(), Vec::new(), Vec::new());
    for name in SENTINEL_NAMES {
        let (port, own) = (free_port()?, dir.join(name));
        std::fs::create_dir_all(&own).map_err(ChaosError::Setup)?;
        let (file, socket) = (own.join("sentinel.conf"), own.join("redis.sock"));
        let text = format!(
            "port {port}\nbind 127.0.0.1\nunixsocket {}\ndir {}\n\
             sentinel monitor main 127.0.0.1 {} 2\n\
             sentinel down-after-milliseconds main {DOWN_AFTER_MS}\n\
             sentinel failover-timeout main {FAILOVER_TIMEOUT_MS}\n\
             sentinel parallel-syncs main 2\n",
            socket.display(),
            own.display(),
            nodes[0].port
        );
        std::fs::write(&file, text).map_err(ChaosError::Setup)?;
        let program = Path::new("redis-server");
        let mut process = host.process(name, program, dir).args([file]).args(["--sentinel"]);
        process.start()?;
        let url = format!("redis+unix://{}", socket.display());
        wait_until(name, || answers(&url)).await?;
        sentinels.push(shared(process));
        urls.push(url);
        ports.push(format!("127.0.0.1:{port}"));
    }
    for url in &urls {
        wait_until("Sentinels that know all", || async {
            let info = ledger::ask::<String>(url, &["INFO", "sentinel"]).await.unwrap_or_default();
            info.contains("status=ok") && info.contains("slaves=2,sentinels=3")
        })
        .await?;
    }
    let url = format!("redis+sentinel://{}/main", ports.join(","));
    Ok(Nodes { nodes, sentinels, url, shards: 1 })
}
