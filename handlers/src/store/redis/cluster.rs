//! A Redis Cluster: a [`Link`] to each master, and the map of who has which slots.
//!
//! Commands go to the node that the map says, those for one node in one pipeline, different nodes at
//! the same time. What the nodes answer corrects the map:
//!
//! | answer | what is done |
//! | --- | --- |
//! | `MOVED` | the command goes to the node that it names, and the map is read anew |
//! | `ASK` | it goes there once, after `ASKING`: the slot is on its way |
//! | `TRYAGAIN` | it goes to the same node after a pause: some keys of the channel are here, some there |
//! | `CLUSTERDOWN`, no connection | the caller is told at once, and the map is read anew |
//!
//! A command whose answer was lost with its connection is not repeated: it may have been executed.
//!
//! No lease is needed on a node (as `standing` has it for masters behind Sentinels): one that is cut
//! off from most masters refuses writes by itself after the cluster's node timeout, and one that was
//! stopped, and replaced meanwhile, answers `MOVED` as soon as it has heard the others.
//!
//! The map is read from any node that answers, in turn, so that one with an old view is corrected by
//! the next: when something hints that it is old, but not more often than every [`READ_PAUSE`], and
//! every [`READ_INTERVAL`] without a hint.
//!
//! `redis`'s cluster client was considered. It retries for the caller, who then waits while nodes are
//! away; it queues announcements without a bound; and it subscribes anew after a lost connection
//! without saying when that is done, which is what a reader has to know.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::dial::{COMMAND_TIMEOUT, dial, failure};
use super::link::{Access, Link, asking};
use super::scripts::{Scripts, corrupt};
use super::slots::{Node, SlotMap, slot_of_command};
use super::target::Target;
use crate::store::StoreError;

/// How often one command is sent on to another node. One suffices as a rule; several, if slots move
/// faster than one can follow.
const HOPS_MAX: u32 = 5;

/// The pause before a command is tried again whose keys are on their way.
const TRY_AGAIN_PAUSE: Duration = Duration::from_millis(20);

/// The shortest time between two reads of the map.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// The longest time between two reads of the map.
const READ_INTERVAL: Duration = Duration::from_secs(5);

/// How long a node may take to say who has which slots, before the next one is asked.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// A cluster. Clones are of the same one.
#[derive(Clone)]
pub(super) struct Cluster {
    shared: Arc<Shared>,
    map: watch::Receiver<Arc<SlotMap>>,
}

struct Shared {
    seeds: Vec<ConnectionInfo>,
    scripts: Arc<Scripts>,
    links: Mutex<HashMap<Node, Link>>,
    /// Something hints that the map is old.
    is_old: Notify,
}

impl Shared {
    /// The link to a node, which is made if there is none.
    fn link(&self, node: &Node) -> Link {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Link::new(Target::Fixed(self.info(node)), Arc::clone(&self.scripts));
        links.entry(node.clone()).or_insert_with(new).clone()
    }

    /// How to connect to a node: as to the seeds, but for host and port.
    fn info(&self, node: &Node) -> ConnectionInfo {
        self.seeds[0].clone().set_addr(ConnectionAddr::Tcp(node.host.to_string(), node.port))
    }

    /// Whether there is a connection for commands to a node now.
    fn is_up(&self, node: &Node) -> bool {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.get(node).is_some_and(Link::is_up)
    }

    /// Forgets links to nodes that have no slots any more.
    fn retain(&self, map: &SlotMap) {
        let masters = map.masters();
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        links.retain(|node, _| masters.contains(node));
    }
}

/// A command on its way, and where its answer belongs.
struct Job {
    place: usize,
    command: Cmd,
    hops: u32,
    /// Where it was sent on to, and whether only this once.
    sent_on: Option<(Node, bool)>,
}

/// What became of a job.
enum Outcome {
    Answered(Result<Value, StoreError>),
    /// It is to be sent on.
    Moved(Node, bool),
    /// It is to be sent again in a moment.
    TryAgain(StoreError),
}

impl Cluster {
    /// Begins with the nodes that are known; waits for the first attempt to read the map.
    pub(super) async fn open(seeds: Vec<ConnectionInfo>, scripts: Arc<Scripts>) -> Self {
        let shared = Shared { seeds, scripts, links: Mutex::default(), is_old: Notify::new() };
        let shared = Arc::new(shared);
        let (maps, mut map) = watch::channel(Arc::default());
        tokio::spawn(Mapper { shared: Arc::clone(&shared), maps, turn: 0 }.run());
        let _ = map.changed().await;
        let cluster = Cluster { shared, map };
        // So that the first command finds its link.
        for node in cluster.map_now().masters() {
            cluster.shared.link(node).begun().await;
        }
        cluster
    }

    /// The map, as it changes.
    pub(super) fn map(&self) -> watch::Receiver<Arc<SlotMap>> {
        self.map.clone()
    }

    /// The map now.
    pub(super) fn map_now(&self) -> Arc<SlotMap> {
        Arc::clone(&self.map.borrow())
    }

    /// How to connect to a node.
    pub(super) fn info(&self, node: &Node) -> ConnectionInfo {
        self.shared.info(node)
    }

    /// Whether there is a connection for commands to a node now.
    pub(super) fn is_up(&self, node: &Node) -> bool {
        self.shared.is_up(node)
    }

    /// Lets the map be read anew.
    pub(super) fn doubt_map(&self) {
        self.shared.is_old.notify_one();
    }

    /// Asks all masters at once, until one answers.
    ///
    /// # Errors
    ///
    /// If none does.
    pub(super) async fn ping(&self) -> Result<(), StoreError> {
        let mut asking = JoinSet::new();
        for node in self.map_now().masters() {
            let link = self.shared.link(node);
            let mut ping = redis::pipe();
            ping.cmd("PING");
            asking.spawn(async move { link.send(ping, Access::Read).await });
        }
        let mut why = StoreError::Unavailable("Redis: no node of the cluster is known".to_owned());
        while let Some(answer) = asking.join_next().await {
            match answer {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => why = error,
                Err(error) => why = StoreError::Unavailable(error.to_string()),
            }
        }
        self.doubt_map();
        Err(why)
    }

    /// Sends commands to the nodes that have their keys. The answers come in the same order, each with
    /// its own error. Only those for one node are carried out in order.
    pub(super) async fn send(&self, commands: Vec<Cmd>) -> Vec<Result<Value, StoreError>> {
        let unanswered = || Err(corrupt("no answer"));
        let mut answers: Vec<_> = commands.iter().map(|_| unanswered()).collect();
        let job = |(place, command)| Job { place, command, hops: 0, sent_on: None };
        let mut jobs: Vec<Job> = commands.into_iter().enumerate().map(job).collect();
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        while !jobs.is_empty() {
            let mut groups: BTreeMap<Node, Vec<Job>> = BTreeMap::new();
            for job in jobs.drain(..) {
                match self.node_for(&job) {
                    Ok(node) => groups.entry(node).or_default().push(job),
                    Err(error) => answers[job.place] = Err(error),
                }
            }
            let mut pause = false;
            for (job, outcome) in self.send_groups(groups).await {
                match outcome {
                    Outcome::Answered(answer) => answers[job.place] = answer,
                    Outcome::Moved(node, once) if job.hops < HOPS_MAX => {
                        let hops = job.hops + 1;
                        jobs.push(Job { sent_on: Some((node, once)), hops, ..job });
                    }
                    Outcome::Moved(node, _) => {
                        let why = format!("Redis: moved again and again, at last to {node:?}");
                        answers[job.place] = Err(StoreError::Unavailable(why));
                    }
                    Outcome::TryAgain(_) if Instant::now() < deadline => {
                        pause = true;
                        // Where it is now: the slot may have arrived meanwhile.
                        jobs.push(Job { sent_on: None, ..job });
                    }
                    Outcome::TryAgain(error) => answers[job.place] = Err(error),
                }
            }
            if pause {
                tokio::time::sleep(TRY_AGAIN_PAUSE).await;
            }
        }
        answers
    }

    /// The node that a job is to be sent to.
    fn node_for(&self, job: &Job) -> Result<Node, StoreError> {
        if let Some((node, _)) = &job.sent_on {
            return Ok(node.clone());
        }
        // What has no key goes to the same node each time: clocks differ.
        let slot = slot_of_command(&job.command).unwrap_or(0);
        self.map.borrow().owner(slot).cloned().ok_or_else(|| {
            self.doubt_map();
            StoreError::Unavailable(format!("Redis: no node is known for slot {slot}"))
        })
    }

    /// Sends to each node what is for it, to all at the same time.
    async fn send_groups(&self, mut groups: BTreeMap<Node, Vec<Job>>) -> Vec<(Job, Outcome)> {
        if groups.len() == 1
            && let Some((node, jobs)) = groups.pop_first()
        {
            return self.send_to(node, jobs).await;
        }
        let mut sending = JoinSet::new();
        for (node, jobs) in groups {
            let cluster = self.clone();
            sending.spawn(async move { cluster.send_to(node, jobs).await });
        }
        sending.join_all().await.into_iter().flatten().collect()
    }

    /// Sends these jobs to a node.
    async fn send_to(&self, node: Node, jobs: Vec<Job>) -> Vec<(Job, Outcome)> {
        let mut commands = redis::pipe();
        let mut places = Vec::with_capacity(jobs.len());
        for job in &jobs {
            if job.sent_on.as_ref().is_some_and(|(_, once)| *once) {
                commands.add_command(asking());
            }
            places.push(commands.len());
            commands.add_command(job.command.clone());
        }
        let answers = self.shared.link(&node).send(commands, Access::Write).await;
        let mut answers = match answers {
            Ok(answers) => answers,
            Err(error) => {
                self.doubt_map();
                let failed = |job| (job, Outcome::Answered(Err(error.clone())));
                return jobs.into_iter().map(failed).collect();
            }
        };
        let mut taken = |place: usize| match answers.get_mut(place) {
            Some(answer) => std::mem::replace(answer, Ok(Value::Nil)),
            None => Ok(Value::Nil),
        };
        let outcomes = jobs.into_iter().zip(places);
        outcomes.map(|(job, place)| (job, self.outcome(taken(place), &node))).collect()
    }

    fn outcome(&self, answer: RedisResult<Value>, from: &Node) -> Outcome {
        let error = match answer {
            Ok(value) => return Outcome::Answered(Ok(value)),
            Err(error) => error,
        };
        let kind = error.kind();
        let to = error.redirect_node().and_then(|(address, _)| Node::parse(address, from));
        match (kind, to) {
            (ErrorKind::Server(ServerErrorKind::Moved), Some(to)) => {
                self.doubt_map();
                Outcome::Moved(to, false)
            }
            (ErrorKind::Server(ServerErrorKind::Ask), Some(to)) => Outcome::Moved(to, true),
            (ErrorKind::Server(ServerErrorKind::TryAgain), _) => {
                self.doubt_map();
                Outcome::TryAgain(failure(error))
            }
            (_, _) => {
                if error.is_cluster_error() {
                    self.doubt_map();
                }
                Outcome::Answered(Err(failure(error)))
            }
        }
    }
}

/// The task that reads the map.
struct Mapper {
    shared: Arc<Shared>,
    maps: watch::Sender<Arc<SlotMap>>,
    /// Whom to ask next: so a node with an old view doesn't stay the one that is believed.
    turn: usize,
}

impl Mapper {
    /// Reads it again and again until nobody needs it any more.
    async fn run(mut self) {
        loop {
            match self.read().await {
                Ok(map) => {
                    self.shared.retain(&map);
                    let is_new = map != *self.maps.borrow();
                    if is_new {
                        tracing::debug!(masters = ?map.masters(), "another map of the cluster");
                        self.maps.send_replace(map);
                    }
                }
                Err(error) => {
                    tracing::debug!(%error, "no node of the cluster says who has which slots");
                    // Whoever waits for the first attempt waits no longer.
                    let knows_none = self.maps.borrow().masters().is_empty();
                    if knows_none {
                        self.maps.send_modify(|_| {});
                    }
                }
            }
            tokio::select! {
                () = self.maps.closed() => return,
                () = tokio::time::sleep(READ_PAUSE) => {}
            }
            tokio::select! {
                () = self.maps.closed() => return,
                () = self.shared.is_old.notified() => {}
                () = tokio::time::sleep(READ_INTERVAL) => {}
            }
        }
    }

    /// Asks the nodes that are known, one after the other, until one answers. Those to which there is
    /// no connection for commands come last.
    async fn read(&mut self) -> Result<Arc<SlotMap>, StoreError> {
        let mut nodes: Vec<Node> = self.maps.borrow().masters().into_iter().cloned().collect();
        let turn = self.turn % nodes.len().max(1);
        nodes.rotate_left(turn);
        self.turn = self.turn.wrapping_add(1);
        nodes.sort_by_key(|node| !self.shared.is_up(node));
        for seed in &self.shared.seeds {
            let ConnectionAddr::Tcp(host, port) = seed.addr() else { continue };
            nodes.push(Node { host: host.as_str().into(), port: *port });
        }
        let mut why = StoreError::Unavailable("no node is known".to_owned());
        for node in nodes {
            match tokio::time::timeout(ASK_TIMEOUT, self.ask(&node)).await {
                Ok(Ok(map)) => return Ok(Arc::new(map)),
                Ok(Err(error)) => why = error,
                Err(_) => why = StoreError::Unavailable(format!("no answer from {node:?}")),
            }
        }
        Err(why)
    }

    /// Asks over a connection of its own: a replica knows as well, and has no link.
    async fn ask(&self, node: &Node) -> Result<SlotMap, StoreError> {
        let mut connection = dial(&self.shared.info(node), |_| {}).await?;
        let mut question = redis::cmd("CLUSTER");
        question.arg("SLOTS");
        let answer = question.query_async(&mut connection).await.map_err(failure)?;
        let map = SlotMap::read(answer, node)?;
        if map.masters().is_empty() {
            return Err(StoreError::Unavailable("the cluster has no slots".to_owned()));
        }
        Ok(map)
    }
}
