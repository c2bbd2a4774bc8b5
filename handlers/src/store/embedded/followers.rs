//! Who follows which channel, within this process.
//!
//! The writer announces from its thread, and followers come and go on tokio's; between them is a
//! map under a lock that is held for a look-up and some pushes into queues that never wait.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::store::follow::{FollowChange, FollowQueue, FollowTask};
use crate::store::{ChannelName, Followed};

/// All followers of the process.
#[derive(Debug, Default)]
pub(super) struct Followers {
    registry: Mutex<Registry>,
}

#[derive(Debug, Default)]
struct Registry {
    number_last: u64,
    channels: HashMap<ChannelName, HashMap<u64, FollowQueue>>,
}

impl Registry {
    fn remove(&mut self, channel: &ChannelName, number: u64) {
        if let Some(queues) = self.channels.get_mut(channel) {
            queues.remove(&number);
            if queues.is_empty() {
                self.channels.remove(channel);
            }
        }
    }
}

impl Followers {
    fn registry(&self) -> MutexGuard<'_, Registry> {
        // Each change is complete by itself, so a panic elsewhere leaves nothing half done.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells those who follow the channel.
    pub(super) fn announce(&self, followed: &Followed) {
        let (Followed::Event { channel, .. } | Followed::Deleted { channel }) = followed else {
            return;
        };
        let registry = self.registry();
        let Some(queues) = registry.channels.get(channel) else { return };
        for queue in queues.values() {
            queue.push(followed.clone());
        }
    }

    /// Tells all that what is in the store may be more than was announced.
    pub(super) fn announce_unseen(&self) {
        let registry = self.registry();
        // Some follow several channels, and each is to be told once.
        let mut told = HashSet::new();
        for (number, queue) in registry.channels.values().flatten() {
            if told.insert(number) {
                queue.push(Followed::Interrupted);
                queue.push(Followed::Restored);
            }
        }
    }

    /// Serves one follower until its stream is dropped.
    pub(super) async fn serve(self: Arc<Self>, mut task: FollowTask) {
        let number = {
            let mut registry = self.registry();
            registry.number_last += 1;
            registry.number_last
        };
        let mut handles_left = true;
        loop {
            tokio::select! {
                () = task.queue.closed() => break,
                command = task.commands.recv(), if handles_left => {
                    let Some(command) = command else {
                        handles_left = false;
                        continue;
                    };
                    let mut registry = self.registry();
                    match command.change {
                        FollowChange::Add => {
                            let queues = registry.channels.entry(command.channel).or_default();
                            queues.insert(number, task.queue.clone());
                        }
                        FollowChange::Remove => registry.remove(&command.channel, number),
                    }
                    let _ = command.done.send(Ok(()));
                }
            }
        }
        self.registry().channels.retain(|_, queues| {
            queues.remove(&number);
            !queues.is_empty()
        });
    }
}
