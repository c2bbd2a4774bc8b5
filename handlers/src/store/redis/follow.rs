//! Following channels in Redis: one pub/sub connection, made again when it is lost.
//!
//! The task holds the set of channels that are wanted. On each new connection it subscribes to all
//! of them before it says [`Followed::Restored`], so that between two heads that a reader compares
//! nothing is missed unnoticed. A connection that is silent is asked with `PING`, since through a
//! dead network path nothing comes, and no error either.
//!
//! Announcements come in a callback of the client (RESP3 pushes), which puts them into the reader's
//! bounded queue itself: nothing is buffered in between. Each carries its whole event, so nobody
//! reads it back.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{Client, PushInfo, PushKind};
use tokio::sync::Notify;

use super::link::{Backoff, dial, failure};
use super::scripts::{Announcement, Keys, announcement, channel_of_live, value};
use crate::store::follow::{FollowChange, FollowCommand, FollowQueue, FollowTask};
use crate::store::{ChannelName, Followed, StoreError};

/// Channels in one `SUBSCRIBE`; also the commands of handles that are taken together.
const CHANNELS_PER_COMMAND_MAX: usize = 256;

/// How often a connection is asked whether it still works.
const PING_INTERVAL: Duration = Duration::from_secs(2);

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// The task behind a follow handle and stream.
pub(super) struct Follower {
    client: Client,
    task: FollowTask,
    wanted: HashSet<ChannelName>,
    /// Whether the reader was told that announcements may be missed, and not yet otherwise.
    interrupted: bool,
}

/// Why a turn of the task is over.
enum Over {
    /// The connection is lost.
    Lost(StoreError),
    /// The reader or all handles are gone.
    Closed,
}

/// A connection, and how its callback is told to be silent and tells that it is over.
struct Session {
    connection: MultiplexedConnection,
    silenced: Arc<AtomicBool>,
    disconnected: Arc<Notify>,
}

impl Drop for Session {
    /// What an old connection still has in its buffers must not mix with what the next one brings.
    fn drop(&mut self) {
        self.silenced.store(true, Ordering::Release);
    }
}

impl Follower {
    pub(super) fn new(client: Client, task: FollowTask) -> Self {
        Follower { client, task, wanted: HashSet::new(), interrupted: false }
    }

    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX);
        loop {
            let why = match self.session().await {
                Ok(mut session) => {
                    backoff.reset();
                    match self.serve(&mut session).await {
                        Over::Lost(why) => why,
                        Over::Closed => return,
                    }
                }
                Err(why) => why,
            };
            if !self.interrupted {
                tracing::warn!(error = %why, "announcements are interrupted");
                self.interrupted = true;
                self.task.queue.push(Followed::Interrupted);
            }
            if let Over::Closed = self.wait(backoff.delay(), &why).await {
                return;
            }
        }
    }

    /// A connection that is subscribed to all that is wanted.
    async fn session(&mut self) -> Result<Session, StoreError> {
        let silenced = Arc::new(AtomicBool::new(false));
        let disconnected = Arc::new(Notify::new());
        let queue = self.task.queue.clone();
        let (is_silenced, tell) = (Arc::clone(&silenced), Arc::clone(&disconnected));
        let connection = dial(&self.client, move |push| {
            if push.kind == PushKind::Disconnection {
                tell.notify_one();
            } else if !is_silenced.load(Ordering::Acquire) {
                announce(push, &queue);
            }
        })
        .await?;
        let mut session = Session { connection, silenced, disconnected };
        let wanted: Vec<&ChannelName> = self.wanted.iter().collect();
        for channels in wanted.chunks(CHANNELS_PER_COMMAND_MAX) {
            subscribe(&mut session.connection, channels).await?;
        }
        if self.interrupted {
            self.interrupted = false;
            self.task.queue.push(Followed::Restored);
        }
        Ok(session)
    }

    /// Serves commands until the connection is lost or the reader is gone.
    async fn serve(&mut self, session: &mut Session) -> Over {
        let mut commands = Vec::with_capacity(CHANNELS_PER_COMMAND_MAX);
        // One for all turns: commands that change nothing ask the server for nothing, and however
        // often they come they must not begin its wait anew.
        let mut lost = pin!(lost(session.connection.clone(), Arc::clone(&session.disconnected)));
        loop {
            let FollowTask { commands: waiting, queue } = &mut self.task;
            tokio::select! {
                count = waiting.recv_many(&mut commands, CHANNELS_PER_COMMAND_MAX) => {
                    if count == 0 {
                        return self.serve_without_commands(lost).await;
                    }
                    if let Err(why) = self.handle_commands(session, &mut commands).await {
                        return Over::Lost(why);
                    }
                }
                why = &mut lost => return Over::Lost(why),
                () = queue.closed() => return Over::Closed,
            }
        }
    }

    /// All handles are gone, but what is followed already still is.
    async fn serve_without_commands(&self, lost: impl Future<Output = StoreError>) -> Over {
        tokio::select! {
            why = lost => Over::Lost(why),
            () = self.task.queue.closed() => Over::Closed,
        }
    }

    /// Carries out commands in order, neighbours of the same kind together.
    async fn handle_commands(
        &mut self,
        session: &mut Session,
        commands: &mut Vec<FollowCommand>,
    ) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        for run in commands.chunk_by(|one, next| one.change == next.change) {
            let change = run[0].change;
            let changed = run.iter().filter(|command| self.note(command));
            let channels: Vec<&ChannelName> = changed.map(|command| &command.channel).collect();
            if outcome.is_err() || channels.is_empty() {
                continue;
            }
            let connection = &mut session.connection;
            outcome = match change {
                FollowChange::Add => subscribe(connection, &channels).await,
                FollowChange::Remove => unsubscribe(connection, &channels).await,
            };
        }
        for command in commands.drain(..) {
            let _ = command.done.send(outcome.clone());
        }
        outcome
    }

    /// Updates what is wanted; returns whether that is a change.
    fn note(&mut self, command: &FollowCommand) -> bool {
        match command.change {
            FollowChange::Add => self.wanted.insert(command.channel.clone()),
            FollowChange::Remove => self.wanted.remove(&command.channel),
        }
    }

    /// Waits before the next attempt, and answers commands meanwhile: they count from then on.
    async fn wait(&mut self, delay: Duration, why: &StoreError) -> Over {
        let over = tokio::time::sleep(delay);
        tokio::pin!(over);
        let mut handles_left = true;
        loop {
            tokio::select! {
                () = &mut over => return Over::Lost(why.clone()),
                () = self.task.queue.closed() => return Over::Closed,
                command = self.task.commands.recv(), if handles_left => match command {
                    Some(command) => {
                        self.note(&command);
                        let _ = command.done.send(Err(why.clone()));
                    }
                    None => handles_left = false,
                },
            }
        }
    }
}

/// Waits for the loss of a connection: it says so, or does not answer a ping.
async fn lost(mut connection: MultiplexedConnection, disconnected: Arc<Notify>) -> StoreError {
    loop {
        tokio::select! {
            () = disconnected.notified() => {
                return StoreError::Unavailable("Redis: the connection is lost".to_owned());
            }
            () = tokio::time::sleep(PING_INTERVAL) => {
                if let Err(error) = redis::cmd("PING").exec_async(&mut connection).await {
                    return failure(error);
                }
            }
        }
    }
}

async fn subscribe(
    connection: &mut MultiplexedConnection,
    channels: &[&ChannelName],
) -> Result<(), StoreError> {
    let names: Vec<String> = channels.iter().map(|channel| Keys::new(channel).live()).collect();
    connection.subscribe(names).await.map_err(failure)
}

async fn unsubscribe(
    connection: &mut MultiplexedConnection,
    channels: &[&ChannelName],
) -> Result<(), StoreError> {
    let names: Vec<String> = channels.iter().map(|channel| Keys::new(channel).live()).collect();
    connection.unsubscribe(names).await.map_err(failure)
}

/// Puts an announcement into the reader's queue.
fn announce(push: PushInfo, queue: &FollowQueue) {
    if push.kind != PushKind::Message {
        return;
    }
    let read = || {
        let [live, payload]: [redis::Value; 2] = push.data.try_into().ok()?;
        let channel = channel_of_live(&value::<String>(live).ok()?)?;
        let announcement = announcement(value(payload).ok()?)?;
        Some(match announcement {
            Announcement::Event(event) => Followed::Event { channel, event },
            Announcement::Deleted => Followed::Deleted { channel },
        })
    };
    match read() {
        Some(followed) => queue.push(followed),
        // Somebody else's, or of a later version. If it was an event, the heads will show it.
        None => tracing::warn!("an announcement that cannot be read"),
    }
}
