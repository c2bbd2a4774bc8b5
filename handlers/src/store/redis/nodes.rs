//! Where commands go: to one server, or to the nodes of a cluster.

use std::fmt;
use std::sync::Arc;

use redis::{Cmd, ConnectionInfo, Value};
use uuid::Uuid;

use super::address::Address;
use super::cluster::Cluster;
use super::dial::failure;
use super::link::{Access, Link};
use super::scripts::{Announce, Scripts, corrupt, value};
use super::slots::{Node, slot_of, slot_of_command};
use super::target::Target;
use crate::store::StoreError;

/// Names that are tried until one is in a slot of a node: enough for one that has a single slot, as
/// good as always.
const SALTS_MAX: u32 = 200_000;

/// The servers of a store. Clones use the same connections.
#[derive(Clone)]
pub(super) enum Nodes {
    /// One server, wherever it is at the time.
    One(Link, Target),
    /// A cluster.
    Cluster(Cluster),
}

impl Nodes {
    /// Begins to connect, and waits for the first attempt, whether it succeeds or not. Must be called
    /// within a tokio runtime.
    pub(super) async fn open(address: Address) -> (Self, Arc<Scripts>) {
        let target = match address {
            Address::One(info) => Target::Fixed(info),
            Address::Sentinel(watched) => Target::watched(watched),
            Address::Cluster(seeds) => {
                let scripts = Arc::new(Scripts::new(Announce::Sharded));
                let cluster = Cluster::open(seeds, Arc::clone(&scripts)).await;
                return (Nodes::Cluster(cluster), scripts);
            }
        };
        let scripts = Arc::new(Scripts::new(Announce::Plain));
        let link = Link::new(target.clone(), Arc::clone(&scripts));
        link.begun().await;
        (Nodes::One(link, target), scripts)
    }

    /// Sends commands. The answers come in the same order, each with its own error. On a cluster only
    /// those for one node are carried out in order.
    pub(super) async fn send(
        &self,
        commands: Vec<Cmd>,
        access: Access,
    ) -> Vec<Result<Value, StoreError>> {
        match self {
            Nodes::One(link, _) => {
                let len = commands.len();
                let mut pipeline = redis::pipe();
                for command in commands {
                    pipeline.add_command(command);
                }
                match link.send(pipeline, access).await {
                    Ok(answers) => {
                        answers.into_iter().map(|answer| answer.map_err(failure)).collect()
                    }
                    Err(error) => vec![Err(error); len],
                }
            }
            Nodes::Cluster(cluster) => cluster.send(commands).await,
        }
    }

    /// Asks whether anything can be done: of a cluster, whether some node answers. While one is away
    /// the others work on, and who stopped for it would stop for all.
    ///
    /// # Errors
    ///
    /// If it cannot, and why.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        match self {
            Nodes::One(..) => {
                let answer = self.send(vec![redis::cmd("PING")], Access::Read).await.pop();
                answer.unwrap_or_else(|| Err(corrupt("no answer"))).map(|_| ())
            }
            Nodes::Cluster(cluster) => cluster.ping().await,
        }
    }

    /// Sends two commands that write, the second after the first was carried out or failed.
    pub(super) async fn send_in_order(
        &self,
        first: Cmd,
        second: Cmd,
    ) -> [Result<Value, StoreError>; 2] {
        let missing = || Err(StoreError::Unavailable("no answer".to_owned()));
        if self.may_part(&first, &second) {
            let first = self.send(vec![first], Access::Write).await.pop().unwrap_or_else(missing);
            let second = self.send(vec![second], Access::Write).await.pop().unwrap_or_else(missing);
            return [first, second];
        }
        let mut answers = self.send(vec![first, second], Access::Write).await;
        let second = answers.pop().unwrap_or_else(missing);
        [answers.pop().unwrap_or_else(missing), second]
    }

    /// Whether two commands may be carried out by different nodes.
    fn may_part(&self, one: &Cmd, other: &Cmd) -> bool {
        match self {
            Nodes::One(..) => false,
            // By the slot and not by its owner, who may change at any time.
            Nodes::Cluster(_) => slot_of_command(one) != slot_of_command(other),
        }
    }
}

/// One server to listen to, and how it is reached.
#[derive(Clone)]
pub(super) enum Place {
    /// The only one.
    Sole(Link, Target),
    /// A node of a cluster.
    Node(Cluster, Node),
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Sole(..) => f.write_str("the server"),
            Place::Node(_, node) => node.fmt(f),
        }
    }
}

impl Place {
    /// How announcements are made there.
    pub(super) fn announce(&self) -> Announce {
        match self {
            Place::Sole(..) => Announce::Plain,
            Place::Node(..) => Announce::Sharded,
        }
    }

    /// Whether it takes commands now.
    pub(super) fn is_up(&self) -> bool {
        match self {
            Place::Sole(link, _) => link.is_up(),
            Place::Node(cluster, node) => cluster.is_up(node),
        }
    }

    /// Where it is.
    ///
    /// # Errors
    ///
    /// If nobody knows.
    pub(super) async fn locate(&self) -> Result<ConnectionInfo, StoreError> {
        match self {
            Place::Sole(_, target) => Ok(target.locate().await?.info),
            Place::Node(cluster, node) => Ok(cluster.info(node)),
        }
    }

    /// Whether the server that was connected to is the right one still.
    ///
    /// # Errors
    ///
    /// If it is not, or nobody knows.
    pub(super) async fn confirm(&self, info: &ConnectionInfo) -> Result<(), StoreError> {
        match self {
            Place::Sole(_, target) => target.confirm(info).await.map(|_| ()),
            // It says so itself, by `MOVED`.
            Place::Node(..) => Ok(()),
        }
    }

    /// Something is wrong there: perhaps its channels are elsewhere by now.
    pub(super) fn doubt(&self) {
        match self {
            Place::Sole(..) => {}
            Place::Node(cluster, _) => cluster.doubt_map(),
        }
    }

    /// The name of a pub/sub channel that nobody else has, in a slot of that node.
    ///
    /// # Errors
    ///
    /// If the node has no slots.
    pub(super) fn beat_channel(&self) -> Result<String, StoreError> {
        let id = Uuid::new_v4().simple();
        match self {
            Place::Sole(..) => Ok(format!("fb:beat:{id}")),
            Place::Node(cluster, node) => {
                let map = cluster.map_now();
                let name = |salt| format!("fb:beat:{id}-{salt}");
                let is_there = |name: &String| map.owner(slot_of(name.as_bytes())) == Some(node);
                (0..SALTS_MAX).map(name).find(is_there).ok_or_else(|| {
                    StoreError::Unavailable(format!("Redis: node {node:?} has no slots"))
                })
            }
        }
    }

    /// Publishes a number there, and returns how many have heard it.
    ///
    /// # Errors
    ///
    /// If that is not known.
    pub(super) async fn publish(&self, channel: &str, number: u64) -> Result<u64, StoreError> {
        let mut publish = redis::cmd(self.announce().publish());
        publish.arg(channel).arg(number);
        let nodes = match self {
            Place::Sole(link, target) => Nodes::One(link.clone(), target.clone()),
            Place::Node(cluster, _) => Nodes::Cluster(cluster.clone()),
        };
        let answer = nodes.send(vec![publish], Access::Read).await.pop();
        value(answer.unwrap_or_else(|| Err(corrupt("no answer")))?)
    }
}
