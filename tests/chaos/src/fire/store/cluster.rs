//! A Redis Cluster of three masters with a replica each.

use std::path::Path;

use super::super::hosts::Host;
use super::Nodes;
use super::node::{NAMES, Node, free_port, wait_until};
use crate::ChaosError;

/// Masters of the beginning.
const MASTERS: usize = 3;

/// The slots that each of them begins with.
const SLOT_RANGES: [[&str; 2]; MASTERS] = [["0", "5460"], ["5461", "10922"], ["10923", "16383"]];

/// How long a node is away before its replica takes its place, in milliseconds.
const NODE_TIMEOUT_MS: u32 = 1000;

/// Starts all.
pub(super) async fn start(host: &Host, dir: &Path, common: &str) -> Result<Nodes, ChaosError> {
    let (mut nodes, mut ids, mut buses) = (Vec::new(), Vec::new(), Vec::new());
    for (place, name) in NAMES.into_iter().enumerate() {
        let bus = free_port()?;
        let settings = format!(
            "{common}cluster-enabled yes\ncluster-port {bus}\ncluster-node-timeout {NODE_TIMEOUT_MS}\n\
             cluster-require-full-coverage no\n"
        );
        let node = Node::start(host, dir, (name, place % MASTERS), &settings).await?;
        ids.push(node.ask::<String>(&["CLUSTER", "MYID"]).await?);
        node.ask::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(place + 1).to_string()]).await?;
        if let Some([first, last]) = SLOT_RANGES.get(place) {
            node.ask::<()>(&["CLUSTER", "ADDSLOTSRANGE", first, last]).await?;
        }
        buses.push(bus.to_string());
        nodes.push(node);
    }
    meet(&nodes, &buses).await?;
    for (place, replica) in nodes.iter().enumerate().skip(MASTERS) {
        replica.ask::<()>(&["CLUSTER", "REPLICATE", &ids[place - MASTERS]]).await?;
        wait_until(replica.name, || async {
            let info = replica.ask::<String>(&["INFO", "replication"]).await.unwrap_or_default();
            info.contains("master_link_status:up")
        })
        .await?;
    }
    // Masters vote for those only of whom they know that they are replicas.
    for node in &nodes {
        wait_until("replicas that are known", || async {
            let known = node.ask::<String>(&["CLUSTER", "NODES"]).await.unwrap_or_default();
            known.lines().filter(|line| line.contains("slave")).count() == MASTERS
        })
        .await?;
    }
    let seeds: Vec<String> = nodes.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
    let url = format!("redis+cluster://{}", seeds.join(","));
    Ok(Nodes { nodes, sentinels: Vec::new(), url, shards: MASTERS })
}

async fn meet(nodes: &[Node], buses: &[String]) -> Result<(), ChaosError> {
    for node in nodes {
        for (other, bus) in nodes.iter().zip(buses) {
            let port = other.port.to_string();
            node.ask::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port, bus]).await?;
        }
    }
    let known = format!("cluster_known_nodes:{}", nodes.len());
    for node in nodes {
        wait_until("a cluster that is one", || async {
            let info = node.ask::<String>(&["CLUSTER", "INFO"]).await.unwrap_or_default();
            ["cluster_state:ok", &known, "cluster_slots_ok:16384"]
                .iter()
                .all(|line| info.contains(line))
        })
        .await?;
    }
    Ok(())
}
