//! Following channels in Redis: an [`Ear`] for each server, and a task that says which ear hears what.
//!
//! With one server there is one ear. On a cluster there is one for each master that has channels that
//! are wanted, since an announcement is heard at the node that has its channel's slot only. So a node
//! that is away silences its own channels and no others.
//!
//! # What the reader is told
//!
//! [`Followed::Interrupted`] when any ear has lost something, and [`Followed::Restored`] once all of
//! them hear all that they should again. In between, what comes from the others goes through.
//!
//! # Channels that move
//!
//! A channel whose ear hands it back, and one whose slot has another master in a new map, is a *stray*:
//! the task adds it to the ear of the node that the map names, as if it were wanted anew, until one
//! takes it. A handle that wants a channel while the map is wrong is told so, and hears of
//! [`Followed::Restored`] later, as always when the store is not there.

mod deaf;
mod ear;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

pub(super) use self::deaf::DeafEars;
use self::ear::{BATCH_MAX, Ear, Ends, Report};
use super::nodes::{Nodes, Place};
use super::slots::{Node, SlotMap, slot_of};
use crate::store::follow::{FollowChange, FollowCommand, FollowTask};
use crate::store::redis::scripts::Keys;
use crate::store::{ChannelName, Followed, StoreError};

/// Commands that wait for an ear. Past it the task waits, at most until the ear's connection is given
/// up for its silence; then the ear answers all of them.
const EAR_COMMANDS_MAX: usize = 1024;

/// The pause before strays that no ear took are tried again: time for a new map.
const STRAYS_PAUSE: Duration = Duration::from_millis(100);

/// Which ear: `None` is that of the only server.
type EarKey = Option<Node>;

/// The task behind a follow handle and stream.
pub(super) struct Follower {
    nodes: Nodes,
    task: FollowTask,
    deaf: DeafEars,
    ears: BTreeMap<EarKey, EarHandle>,
    /// All channels that are wanted, and which ear hears them; those without one are strays.
    wanted: HashMap<ChannelName, Option<EarKey>>,
    strays: HashSet<ChannelName>,
    /// Strays on their way to an ear.
    placing: JoinSet<()>,
    /// When strays are placed again: the map that they were placed by was wrong.
    pause_until: Option<Instant>,
    changed: Arc<Notify>,
    /// Whether the reader was told that announcements may be missed, and not yet otherwise.
    interrupted: bool,
}

struct EarHandle {
    commands: mpsc::Sender<FollowCommand>,
    report: Arc<Report>,
    /// Of its losses, those that the reader was told of.
    losses_told: u64,
}

impl Follower {
    pub(super) fn new(nodes: Nodes, task: FollowTask, deaf: DeafEars) -> Self {
        Follower {
            nodes,
            task,
            deaf,
            ears: BTreeMap::new(),
            wanted: HashMap::new(),
            strays: HashSet::new(),
            placing: JoinSet::new(),
            pause_until: None,
            changed: Arc::default(),
            interrupted: false,
        }
    }

    /// Works until the reader is gone.
    pub(super) async fn run(mut self) {
        let mut map = match &self.nodes {
            Nodes::One(..) => {
                // It says that the server is away even before anything is wanted.
                self.ear(&None);
                None
            }
            Nodes::Cluster(cluster) => Some(cluster.map()),
        };
        let mut commands = Vec::with_capacity(BATCH_MAX);
        let mut handles_left = true;
        loop {
            let FollowTask { commands: coming, queue } = &mut self.task;
            tokio::select! {
                count = coming.recv_many(&mut commands, BATCH_MAX), if handles_left => {
                    handles_left = count > 0;
                    for command in commands.drain(..) {
                        self.handle_command(command).await;
                    }
                }
                () = self.changed.notified() => self.take_strays(),
                () = new_map(&mut map) => self.handle_map(),
                Some(_) = self.placing.join_next() => {}
                () = over(self.pause_until) => self.pause_until = None,
                () = queue.closed() => return,
            }
            self.place_strays();
            self.tell();
        }
    }

    /// The ear of a channel; `None` if no node is known for it.
    fn owner(&self, channel: &ChannelName) -> Option<EarKey> {
        match &self.nodes {
            Nodes::One(..) => Some(None),
            Nodes::Cluster(cluster) => {
                let slot = slot_of(Keys::new(channel).live().as_bytes());
                cluster.map_now().owner(slot).cloned().map(Some)
            }
        }
    }

    /// An ear, which begins to listen if there is none.
    fn ear(&mut self, key: &EarKey) -> &EarHandle {
        let (nodes, task, deaf, changed) = (&self.nodes, &self.task, &self.deaf, &self.changed);
        self.ears.entry(key.clone()).or_insert_with(|| {
            let place = match (nodes, key) {
                (Nodes::Cluster(cluster), Some(node)) => Place::Node(cluster.clone(), node.clone()),
                (Nodes::One(link, target), _) => Place::Sole(link.clone(), target.clone()),
                (Nodes::Cluster(_), None) => unreachable!("the ears of a cluster have nodes"),
            };
            let (commands, coming) = mpsc::channel(EAR_COMMANDS_MAX);
            let report = Arc::new(Report::default());
            let ends = Ends {
                commands: coming,
                queue: task.queue.clone(),
                report: Arc::clone(&report),
                changed: Arc::clone(changed),
                deaf: deaf.clone(),
            };
            tokio::spawn(Ear::new(place, ends).run());
            EarHandle { commands, report, losses_told: 0 }
        })
    }

    async fn handle_command(&mut self, command: FollowCommand) {
        let channel = &command.channel;
        let known = self.wanted.get(channel).cloned();
        let key = match command.change {
            FollowChange::Add => match known {
                Some(Some(key)) => Some(key),
                Some(None) => None,
                None => {
                    let owner = self.owner(channel);
                    self.wanted.insert(channel.clone(), owner.clone());
                    if owner.is_none() {
                        self.strays.insert(channel.clone());
                    }
                    owner
                }
            },
            FollowChange::Remove => {
                self.wanted.remove(channel);
                self.strays.remove(channel);
                known.flatten()
            }
        };
        let Some(key) = key else {
            let done = match command.change {
                FollowChange::Add => Err(StoreError::Unavailable(
                    "Redis: the channel is moving, or no node is known for it".to_owned(),
                )),
                FollowChange::Remove => Ok(()),
            };
            let _ = command.done.send(done);
            return;
        };
        // An ear ends with this task only, so that it takes what is sent.
        let _ = self.ear(&key).commands.send(command).await;
    }

    /// Takes what ears have handed back.
    fn take_strays(&mut self) {
        let mut handed_back = false;
        for (key, ear) in &self.ears {
            for channel in ear.report.take_strays() {
                if let Some(place) = self.wanted.get_mut(&channel)
                    && place.as_ref() == Some(key)
                {
                    *place = None;
                    self.strays.insert(channel);
                    handed_back = true;
                }
            }
        }
        if handed_back {
            self.doubt_map();
        }
    }

    /// Has the map read anew, and waits a moment for it before strays are placed.
    fn doubt_map(&mut self) {
        if let Nodes::Cluster(cluster) = &self.nodes {
            cluster.doubt_map();
        }
        self.pause_until.get_or_insert_with(|| Instant::now() + STRAYS_PAUSE);
    }

    /// There is another map: channels whose slot has another master move, and ears end that are to
    /// nodes without slots.
    fn handle_map(&mut self) {
        let Nodes::Cluster(cluster) = &self.nodes else { return };
        let map: Arc<SlotMap> = cluster.map_now();
        let mut left: BTreeMap<EarKey, Vec<ChannelName>> = BTreeMap::new();
        for (channel, place) in &mut self.wanted {
            let slot = slot_of(Keys::new(channel).live().as_bytes());
            if let Some(Some(node)) = place.as_ref()
                && map.owner(slot) != Some(node)
            {
                let key = place.take().unwrap_or_default();
                left.entry(key).or_default().push(channel.clone());
                self.strays.insert(channel.clone());
            }
        }
        let masters = map.masters();
        self.ears.retain(|key, _| key.as_ref().is_none_or(|node| masters.contains(node)));
        for (key, channels) in left {
            if let Some(ear) = self.ears.get(&key) {
                let ear = ear.commands.clone();
                self.placing.spawn(command(ear, channels, FollowChange::Remove));
            }
        }
    }

    /// Lets strays be taken by the ears of their nodes, a batch at a time.
    fn place_strays(&mut self) {
        if self.strays.is_empty() || !self.placing.is_empty() || self.pause_until.is_some() {
            return;
        }
        let batch: Vec<ChannelName> = self.strays.iter().take(BATCH_MAX).cloned().collect();
        let mut groups: BTreeMap<EarKey, Vec<ChannelName>> = BTreeMap::new();
        for channel in batch {
            let Some(owner) = self.owner(&channel) else {
                self.doubt_map();
                continue;
            };
            self.strays.remove(&channel);
            self.wanted.insert(channel.clone(), Some(owner.clone()));
            groups.entry(owner).or_default().push(channel);
        }
        for (key, channels) in groups {
            let ear = self.ear(&key).commands.clone();
            self.placing.spawn(command(ear, channels, FollowChange::Add));
        }
    }

    /// Tells the reader when announcements may be missed, and when they are seen again.
    fn tell(&mut self) {
        // In this order: what is lost after its ear was seen whole is told the next time.
        let all_whole = self.ears.values().all(|ear| ear.report.is_whole());
        let settled = self.strays.is_empty() && self.placing.is_empty();
        let mut lost = !self.strays.is_empty();
        for ear in self.ears.values_mut() {
            let losses = ear.report.losses();
            lost |= std::mem::replace(&mut ear.losses_told, losses) != losses;
        }
        if lost && !self.interrupted {
            tracing::warn!("announcements are interrupted");
            self.interrupted = true;
            self.task.queue.push(Followed::Interrupted);
        }
        if self.interrupted && all_whole && settled {
            self.interrupted = false;
            self.task.queue.push(Followed::Restored);
        }
    }
}

/// Gives an ear commands about channels, and waits until all are answered. What it could not do it
/// does on its next connection, or hands back.
async fn command(
    ear: mpsc::Sender<FollowCommand>,
    channels: Vec<ChannelName>,
    change: FollowChange,
) {
    let mut answers = Vec::with_capacity(channels.len());
    for channel in channels {
        let (done, answer) = oneshot::channel();
        if ear.send(FollowCommand { channel, change, done }).await.is_err() {
            return;
        }
        answers.push(answer);
    }
    for answer in answers {
        let _ = answer.await;
    }
}

/// Returns at that time; never if there is none.
async fn over(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Returns when there is another map; never if there are no maps.
async fn new_map(map: &mut Option<watch::Receiver<Arc<SlotMap>>>) {
    let changed = match map {
        Some(map) => map.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending::<()>().await;
    }
}
