//! Watches the nodes of a store: who is master, and who has everything.
//!
//! A node may be broken only while its shard has another one that has everything: else all would be lost, by no fault of
//! anybody's. And a fail-over is what is seen here: a replica that is a master the next time.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::ledger;

/// How often nodes are asked, and how long an answer may take.
const INTERVAL: Duration = Duration::from_millis(150);
const ANSWER_PATIENCE: Duration = Duration::from_millis(300);

/// How long a shard must have been whole before one of its nodes is broken.
const WHOLE_FOR: Duration = Duration::from_millis(700);

/// Bytes of the replication stream that a replica may lack that has everything, but for what is on its way.
const LAG_BYTES_MAX: u64 = 64 * 1024;

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Master { offset: u64, replicas: usize },
    Replica { offset: u64, is_linked: bool },
}

/// What is known of a store.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    said: Vec<Option<Said>>,
    /// Since when each shard has been whole.
    whole: BTreeMap<usize, Instant>,
    /// Replicas that were seen to have become masters.
    pub(crate) failovers: u64,
}

impl View {
    /// Whether a node of this shard may be broken.
    pub(crate) fn may_break(&self, shard: usize) -> bool {
        self.whole.get(&shard).is_some_and(|since| since.elapsed() >= WHOLE_FOR)
    }

    /// Whether a node is a master.
    pub(crate) fn is_master(&self, node: usize) -> bool {
        matches!(self.said.get(node), Some(Some(Said::Master { .. })))
    }

    /// How many shards are whole.
    pub(crate) fn whole(&self) -> usize {
        self.whole.len()
    }
}

/// A node to be watched.
#[derive(Clone, Debug)]
pub(crate) struct Watched {
    pub(crate) url: String,
    pub(crate) shard: usize,
}

/// Watches for ever.
pub(crate) async fn watch(nodes: Vec<Watched>, tell: watch::Sender<View>) {
    let mut connections: Vec<Option<MultiplexedConnection>> = vec![None; nodes.len()];
    let mut was_replica = vec![false; nodes.len()];
    loop {
        let mut said = Vec::new();
        for (node, connection) in nodes.iter().zip(&mut connections) {
            let answer = timeout(ANSWER_PATIENCE, ask(&node.url, connection)).await;
            let one = answer.ok().flatten();
            if one.is_none() {
                *connection = None;
            }
            said.push(one);
        }
        tell.send_modify(|view| {
            for (was_replica, said) in was_replica.iter_mut().zip(&said) {
                match said {
                    Some(Said::Master { .. }) => {
                        view.failovers += u64::from(std::mem::take(was_replica));
                    }
                    Some(Said::Replica { .. }) => *was_replica = true,
                    None => {}
                }
            }
            let shards: std::collections::BTreeSet<usize> =
                nodes.iter().map(|node| node.shard).collect();
            for shard in shards {
                let of = nodes.iter().zip(&said).filter(|(node, _)| node.shard == shard);
                if is_whole(&of.map(|(_, said)| *said).collect::<Vec<_>>()) {
                    view.whole.entry(shard).or_insert_with(Instant::now);
                } else {
                    view.whole.remove(&shard);
                }
            }
            view.said = said;
        });
        tokio::time::sleep(INTERVAL).await;
    }
}

async fn ask(url: &str, connection: &mut Option<MultiplexedConnection>) -> Option<Said> {
    if connection.is_none() {
        *connection = Some(ledger::dial(url).await.ok()?);
    }
    let connection = connection.as_mut()?;
    let info: String = redis::cmd("INFO").arg("replication").query_async(connection).await.ok()?;
    read(&info)
}

fn read(info: &str) -> Option<Said> {
    let field = |name: &str| info.lines().find_map(|line| line.trim_end().strip_prefix(name));
    let offset = |name| field(name)?.parse().ok();
    Some(match field("role:")? {
        "master" => Said::Master {
            offset: offset("master_repl_offset:")?,
            replicas: info.lines().filter(|line| line.contains("state=online")).count(),
        },
        _ => Said::Replica {
            offset: offset("slave_repl_offset:")?,
            is_linked: field("master_link_status:") == Some("up"),
        },
    })
}

/// Whether all are there, and have what the one master among them has.
fn is_whole(said: &[Option<Said>]) -> bool {
    let masters = said.iter().flatten().filter_map(|said| match said {
        Said::Master { offset, replicas } => Some((*offset, *replicas)),
        Said::Replica { .. } => None,
    });
    let masters: Vec<(u64, usize)> = masters.collect();
    let [(newest, replicas)] = masters[..] else { return false };
    let has_all = |said: &Option<Said>| match said {
        Some(Said::Master { .. }) => true,
        Some(Said::Replica { offset, is_linked }) => {
            *is_linked && newest.saturating_sub(*offset) <= LAG_BYTES_MAX
        }
        None => false,
    };
    replicas + 1 == said.len() && said.iter().all(has_all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASTER: &str = "# Replication\r\nrole:master\r\nconnected_slaves:1\r\n\
        slave0:ip=127.0.0.1,port=1,state=online,offset=90,lag=0\r\nmaster_repl_offset:100\r\n";
    const REPLICA: &str = "role:slave\r\nmaster_link_status:up\r\nslave_repl_offset:90\r\n";

    #[test]
    fn a_shard_is_whole_when_its_replicas_have_what_its_one_master_has() {
        let (master, replica) = (read(MASTER), read(REPLICA));
        assert!(is_whole(&[master, replica]));
        assert!(!is_whole(&[master, None]));
        assert!(!is_whole(&[replica, replica]));
        assert!(!is_whole(&[master, master]));
        assert!(!is_whole(&[master, read(&REPLICA.replace(":up", ":down"))]));
        assert!(!is_whole(&[read(&MASTER.replace("online", "wait_bgsave")), replica]));
        assert!(is_whole(&[read("role:master\r\nmaster_repl_offset:0\r\n")]));
    }
}
