//! An ear: one pub/sub connection to one server, made again when it is lost.
//!
//! It holds the set of channels that are wanted of it. On a new connection it subscribes to all of
//! them, [`BATCH_MAX`] at a time, each batch after the server has confirmed the one before it, and
//! with the commands that came meanwhile in between: so 100,000 channels cost a server that has just
//! come back no burst, and whoever wants one more waits for a batch and not for all. Until the last
//! one is confirmed the ear is not *whole*, and its reader knows that announcements may be missing.
//!
//! **A connection can be fine and deaf.** Subscriptions may be gone or have their messages swallowed
//! on the way, or the server may have been demoted and hears of nothing: commands are answered all
//! the same. So an ear publishes a beat every second ([`BEAT_INTERVAL`]) to a pub/sub channel of its
//! own, over the connection for commands, which is the way that events take, and must hear it
//! ([`HEARD_WITHIN`]). If it doesn't, the connection is made anew. It is also asked by `PING` itself:
//! there may be nobody who can publish, and a dead path says nothing.
//!
//! On a cluster an ear is to one node, and its channels are in slots of that node. A slot that moves
//! makes the node end its subscriptions. Those moved channels are handed back as *strays*, when the
//! next connection's subscriptions are answered by `MOVED`. (The next: the `redis` crate counts the
//! announcement that a subscription has ended as the answer to whatever was asked last, so that a
//! connection that has seen one cannot be trusted any more.)

use std::collections::{HashSet, VecDeque};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, PushInfo, PushKind, RedisResult, ServerErrorKind, Value};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::deaf::{DeafEars, DeafFlag};
use crate::store::follow::{FollowChange, FollowCommand, FollowQueue};
use crate::store::redis::dial::{Backoff, dial, failure, require_master};
use crate::store::redis::nodes::Place;
use crate::store::redis::scripts::{
    Announce, Announcement, Keys, announcement, channel_of_live, value,
};
use crate::store::{ChannelName, Followed, StoreError};

/// Subscriptions that are asked for at once; also the commands of handles that are taken together.
pub(super) const BATCH_MAX: usize = 256;

/// How often an ear tries whether it hears.
const BEAT_INTERVAL: Duration = Duration::from_secs(1);

/// How soon a beat must be heard after the server has taken it.
const HEARD_WITHIN: Duration = Duration::from_secs(3);

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// A connection that lasted so long was a good one: the next attempt after it is made soon.
const GOOD_CONNECTION_MIN: Duration = Duration::from_secs(5);

/// What an ear tells the task that it belongs to.
#[derive(Debug, Default)]
pub(super) struct Report {
    whole: AtomicBool,
    losses: AtomicU64,
    strays: Mutex<Vec<ChannelName>>,
}

impl Report {
    /// Whether all that is wanted of it is heard.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.load(Ordering::Acquire)
    }

    /// How often a connection was lost, or could not be made.
    pub(super) fn losses(&self) -> u64 {
        self.losses.load(Ordering::Acquire)
    }

    /// Channels that belong to another node, and are wanted of this ear no more.
    pub(super) fn take_strays(&self) -> Vec<ChannelName> {
        std::mem::take(&mut *self.strays.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Where an ear gets what it does and puts what it hears.
pub(super) struct Ends {
    pub(super) commands: mpsc::Receiver<FollowCommand>,
    pub(super) queue: FollowQueue,
    pub(super) report: Arc<Report>,
    /// Something in the report has changed.
    pub(super) changed: Arc<Notify>,
    pub(super) deaf: DeafEars,
}

/// An ear.
pub(super) struct Ear {
    place: Place,
    announce: Announce,
    ends: Ends,
    deaf: DeafFlag,
    wanted: HashSet<ChannelName>,
    /// Those that are not subscribed to on this connection yet.
    waiting: VecDeque<ChannelName>,
}

/// Why a turn of the task is over.
enum Over {
    /// The connection is lost.
    Lost(StoreError),
    /// The reader or the task that it belongs to is gone.
    Closed,
}

/// What a connection's callback and the task share.
#[derive(Default)]
struct Heard {
    /// The callback is to be silent.
    silenced: AtomicBool,
    /// The connection is closed, or not to be trusted any more.
    over: Notify,
    /// The last beat that was heard.
    beat: AtomicU64,
    beats: Notify,
    /// Subscriptions that the ear itself has asked to end.
    ending: AtomicU64,
}

/// A connection.
struct Session {
    connection: MultiplexedConnection,
    heard: Arc<Heard>,
    /// The pub/sub channel of its beats.
    beat_channel: String,
}

impl Drop for Session {
    /// What an old connection still has in its buffers must not mix with what the next one brings.
    fn drop(&mut self) {
        self.heard.silenced.store(true, Ordering::Release);
    }
}

impl Ear {
    pub(super) fn new(place: Place, ends: Ends) -> Self {
        let announce = place.announce();
        let deaf = ends.deaf.flag();
        let (wanted, waiting) = (HashSet::new(), VecDeque::new());
        Ear { place, announce, ends, deaf, wanted, waiting }
    }

    /// Works until the reader is gone, or the task that it belongs to.
    pub(super) async fn run(mut self) {
        let mut backoff = Backoff::new(BACKOFF_FIRST, BACKOFF_MAX);
        loop {
            let start = Instant::now();
            let why = match self.session().await {
                Ok(mut session) => match self.serve(&mut session).await {
                    Over::Lost(why) => why,
                    Over::Closed => return,
                },
                Err(why) => why,
            };
            if start.elapsed() >= GOOD_CONNECTION_MIN {
                backoff.reset();
            }
            tracing::debug!(place = ?self.place, error = %why, "announcements are not heard");
            self.ends.report.whole.store(false, Ordering::Release);
            self.ends.report.losses.fetch_add(1, Ordering::AcqRel);
            self.ends.changed.notify_one();
            self.deaf.raise(&self.place);
            self.place.doubt();
            if let Over::Closed = self.wait(backoff.delay(), &why).await {
                return;
            }
        }
    }

    /// A connection that hears its own beats, and nothing else yet.
    async fn session(&mut self) -> Result<Session, StoreError> {
        let heard = Arc::new(Heard::default());
        let beat_channel = self.place.beat_channel()?;
        let info = self.place.locate().await?;
        let mut connection = dial(&info, {
            let (heard, queue) = (Arc::clone(&heard), self.ends.queue.clone());
            let beat_channel = beat_channel.clone();
            move |push| heard.handle_push(push, &beat_channel, &queue)
        })
        .await?;
        // Replicas are told of announcements too, but of none in a failover.
        require_master(&mut connection).await?;
        // And a master that was replaced tells of what will be lost.
        self.place.confirm(&info).await?;
        let mut session = Session { connection, heard, beat_channel };
        let beat = session.beat_channel.clone();
        for answer in session.send(self.announce.subscribe(), &[beat]).await? {
            answer.map_err(failure)?;
        }
        self.waiting = self.wanted.iter().cloned().collect();
        Ok(session)
    }

    /// Subscribes to what is waiting and serves commands, until the connection is lost or the reader is
    /// gone.
    async fn serve(&mut self, session: &mut Session) -> Over {
        let mut commands = Vec::with_capacity(BATCH_MAX);
        let mut lost = pin!(lost(self.place.clone(), session.parts()));
        loop {
            let result = if self.waiting.is_empty() {
                self.become_whole();
                let Ends { commands: coming, queue, .. } = &mut self.ends;
                tokio::select! {
                    count = coming.recv_many(&mut commands, BATCH_MAX) => {
                        if count == 0 {
                            return Over::Closed;
                        }
                        self.handle_commands(session, &mut commands).await
                    }
                    why = &mut lost => Err(why),
                    () = queue.closed() => return Over::Closed,
                }
            } else {
                while commands.len() < BATCH_MAX
                    && let Ok(command) = self.ends.commands.try_recv()
                {
                    commands.push(command);
                }
                tokio::select! {
                    biased;
                    why = &mut lost => Err(why),
                    () = self.ends.queue.closed() => return Over::Closed,
                    () = std::future::ready(()) => self.go_on(session, &mut commands).await,
                }
            };
            if let Err(why) = result {
                for command in commands.drain(..) {
                    self.note(&command);
                    let _ = command.done.send(Err(why.clone()));
                }
                return Over::Lost(why);
            }
        }
    }

    fn become_whole(&mut self) {
        if !self.ends.report.whole.swap(true, Ordering::AcqRel) {
            self.deaf.lower();
            self.ends.changed.notify_one();
        }
    }

    /// The commands that came, and one batch of those that are waiting.
    async fn go_on(
        &mut self,
        session: &mut Session,
        commands: &mut Vec<FollowCommand>,
    ) -> Result<(), StoreError> {
        if !commands.is_empty() {
            self.handle_commands(session, commands).await?;
        }
        let batch_len = self.waiting.len().min(BATCH_MAX);
        let batch: Vec<ChannelName> =
            self.waiting.drain(..batch_len).filter(|name| self.wanted.contains(name)).collect();
        self.subscribe(session, &batch).await?;
        Ok(())
    }

    /// Carries out commands in order, neighbours of the same kind together.
    async fn handle_commands(
        &mut self,
        session: &mut Session,
        commands: &mut Vec<FollowCommand>,
    ) -> Result<(), StoreError> {
        let mut outcome = Ok(());
        let mut strays = HashSet::new();
        for run in commands.chunk_by(|one, next| one.change == next.change) {
            let change = run[0].change;
            let changed = run.iter().filter(|command| self.note(command));
            let channels: Vec<ChannelName> =
                changed.map(|command| command.channel.clone()).collect();
            if outcome.is_err() || channels.is_empty() {
                continue;
            }
            outcome = match change {
                FollowChange::Add => {
                    self.subscribe(session, &channels).await.map(|own| strays.extend(own))
                }
                FollowChange::Remove => self.unsubscribe(session, &channels).await,
            };
        }
        for command in commands.drain(..) {
            let moved = || StoreError::Unavailable("Redis: the channel has moved".to_owned());
            let done = match &outcome {
                Ok(()) if strays.contains(&command.channel) => Err(moved()),
                outcome => outcome.clone(),
            };
            let _ = command.done.send(done);
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

    /// Subscribes to channels; those that belong to another node are handed back, and returned.
    async fn subscribe(
        &mut self,
        session: &mut Session,
        channels: &[ChannelName],
    ) -> Result<Vec<ChannelName>, StoreError> {
        let answers = session.send(self.announce.subscribe(), &live_names(channels)).await?;
        let mut strays = Vec::new();
        for (channel, answer) in channels.iter().zip(answers) {
            match answer {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::Moved) => {
                    self.wanted.remove(channel);
                    strays.push(channel.clone());
                }
                Err(error) => return Err(failure(error)),
            }
        }
        if !strays.is_empty() {
            let report = &self.ends.report;
            let mut handed = report.strays.lock().unwrap_or_else(PoisonError::into_inner);
            handed.extend(strays.iter().cloned());
            self.ends.changed.notify_one();
        }
        Ok(strays)
    }

    async fn unsubscribe(
        &mut self,
        session: &mut Session,
        channels: &[ChannelName],
    ) -> Result<(), StoreError> {
        session.heard.ending.fetch_add(channels.len() as u64, Ordering::AcqRel);
        let answers = session.send(self.announce.unsubscribe(), &live_names(channels)).await?;
        for (channel, answer) in channels.iter().zip(answers) {
            // One that has moved is not subscribed to here any more.
            if let Err(error) = answer {
                tracing::debug!(%channel, %error, "not unsubscribed from");
                session.heard.ending.fetch_sub(1, Ordering::AcqRel);
            }
        }
        Ok(())
    }

    /// Waits before the next attempt, and answers commands meanwhile: they count from then on.
    async fn wait(&mut self, delay: Duration, why: &StoreError) -> Over {
        let over = tokio::time::sleep(delay);
        tokio::pin!(over);
        loop {
            tokio::select! {
                () = &mut over => return Over::Lost(why.clone()),
                () = self.ends.queue.closed() => return Over::Closed,
                command = self.ends.commands.recv() => match command {
                    Some(command) => {
                        self.note(&command);
                        let _ = command.done.send(Err(why.clone()));
                    }
                    None => return Over::Closed,
                },
            }
        }
    }
}

fn live_names(channels: &[ChannelName]) -> Vec<String> {
    channels.iter().map(|channel| Keys::new(channel).live()).collect()
}

impl Session {
    /// Sends a command for each name, all at once. Each name is a command of its own, since on a
    /// cluster those of one command must be in one slot.
    async fn send(
        &mut self,
        command: &str,
        names: &[String],
    ) -> Result<Vec<RedisResult<Value>>, StoreError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = redis::pipe();
        for name in names {
            pipeline.cmd(command).arg(name);
        }
        pipeline.ignore_errors();
        pipeline.query_async(&mut self.connection).await.map_err(failure)
    }

    /// What is needed to notice its loss.
    fn parts(&self) -> (MultiplexedConnection, Arc<Heard>, String) {
        (self.connection.clone(), Arc::clone(&self.heard), self.beat_channel.clone())
    }
}

/// Waits for the loss of a connection: it says so, it doesn't hear, or it does not answer.
async fn lost(
    place: Place,
    (mut connection, heard, beat_channel): (MultiplexedConnection, Arc<Heard>, String),
) -> StoreError {
    let beats = async {
        for number in 1.. {
            tokio::time::sleep(BEAT_INTERVAL).await;
            let ping = redis::cmd("PING");
            let asked = ping.exec_async(&mut connection);
            let (taken, answered) = tokio::join!(place.publish(&beat_channel, number), asked);
            if let Err(error) = answered {
                return failure(error);
            }
            match taken {
                Ok(0) => break,
                Ok(_) if !heard.has_beat(number).await => break,
                Ok(_) => {}
                // The server takes no commands now. That is not this connection's fault.
                Err(error) => tracing::trace!(%error, "no beat"),
            }
        }
        StoreError::Unavailable("Redis: connected, but announcements are not heard".to_owned())
    };
    tokio::select! {
        () = heard.over.notified() => {
            StoreError::Unavailable("Redis: the connection is lost".to_owned())
        }
        why = beats => why,
    }
}

impl Heard {
    /// Waits until that beat is heard. Returns whether it was, in time.
    async fn has_beat(&self, number: u64) -> bool {
        let late = tokio::time::sleep(HEARD_WITHIN);
        tokio::pin!(late);
        while self.beat.load(Ordering::Acquire) < number {
            tokio::select! {
                biased;
                () = self.beats.notified() => {}
                () = &mut late => return self.beat.load(Ordering::Acquire) >= number,
            }
        }
        true
    }

    /// Takes what the server says without being asked.
    fn handle_push(&self, push: PushInfo, beat_channel: &str, queue: &FollowQueue) {
        if self.silenced.load(Ordering::Acquire) {
            return;
        }
        match push.kind {
            PushKind::Disconnection => self.over.notify_one(),
            PushKind::Message | PushKind::SMessage => {
                self.handle_message(push, beat_channel, queue);
            }
            PushKind::SUnsubscribe | PushKind::Unsubscribe => {
                let asked = self
                    .ending
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
                if asked.is_err() {
                    self.over.notify_one();
                }
            }
            _ => {}
        }
    }

    /// Puts an announcement into the reader's queue.
    fn handle_message(&self, push: PushInfo, beat_channel: &str, queue: &FollowQueue) {
        let Ok([live, payload]): Result<[Value; 2], _> = push.data.try_into() else { return };
        let Ok(live) = value::<String>(live) else { return };
        if live == beat_channel {
            if let Ok(number) = value::<u64>(payload) {
                self.beat.fetch_max(number, Ordering::AcqRel);
                self.beats.notify_one();
            }
            return;
        }
        let read = || {
            let channel = channel_of_live(&live)?;
            Some(match announcement(value(payload).ok()?)? {
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
}
