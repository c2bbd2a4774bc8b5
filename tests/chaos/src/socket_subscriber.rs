//! Subscribers on WebSockets: each reads its channels to their END, over as many connections as that takes.
//!
//! What `subscriber` is for event streams. A WebSocket has a cursor for each channel, so what comes is written down as if each
//! channel were read by itself: one [`Reading`] for each, all of whose events have plain cursors. The first of them bears what
//! happens to the connection.

use std::sync::Arc;
use std::time::Duration;

use forebay_judge::sse::{Block, field};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::Phase;
use crate::clients::Ready;
use crate::connection::Address;
use crate::record::{Came, Life, Reading, Words};
use crate::scenario::Pause;
use crate::socket::{Answer, Credentials, Heard, Socket, SocketError, SocketEvent};
use crate::subscriber::{ANSWER_PATIENCE, COME_BACK_DELAY, EdgeLives, due};

/// The close code of an edge that stops.
const GOING_AWAY: u16 = 1001;

/// One client.
#[derive(Clone, Debug)]
pub(crate) struct SocketSubscriber {
    pub(crate) address: Address,
    pub(crate) token: Arc<str>,
    pub(crate) how: Credentials,
    /// What it reads, as numbers of channels and their names.
    pub(crate) channels: Vec<(usize, String)>,
    /// When it does not read for a while.
    pub(crate) pauses: Vec<Pause>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) edge: watch::Receiver<EdgeLives>,
    /// Is told once, when it has subscribed to all or cannot any more.
    pub(crate) ready: Ready,
    pub(crate) words: Words,
}

/// What a client knows of a channel.
struct Channel {
    name: String,
    reading: Reading,
    cursor: Option<String>,
    has_end: bool,
    is_subscribed: bool,
}

impl SocketSubscriber {
    /// Reads until all its channels have ended, or the run is over. One reading for each channel.
    pub(crate) async fn run(mut self) -> Vec<Reading> {
        let channel = |(number, name): &(usize, String)| Channel {
            name: name.clone(),
            reading: Reading {
                channels: vec![*number],
                is_slow: !self.pauses.is_empty(),
                ..Reading::default()
            },
            cursor: None,
            has_end: false,
            is_subscribed: false,
        };
        let mut channels: Vec<Channel> = self.channels.iter().map(channel).collect();
        let mut over = self.phase.clone();
        tokio::select! {
            () = self.read_all(&mut channels) => {}
            _ = over.wait_for(|phase| *phase == Phase::Over) => {}
        }
        self.ready.tell();
        channels.into_iter().map(|channel| channel.reading).collect()
    }

    async fn read_all(&mut self, channels: &mut [Channel]) {
        loop {
            let lives = *self.edge.borrow();
            let Err(error) = self.read_one(channels).await else {
                channels.iter_mut().for_each(|channel| channel.reading.has_ended = true);
                return;
            };
            // The edge may have been condemned, and a client that comes at its end is of it, too.
            let was_condemned = self.edge.borrow().condemned > lives.gone;
            let about = &mut channels[0].reading;
            let mut delay = COME_BACK_DELAY;
            match error {
                SocketError::Away(_) => about.sent_away += 1,
                SocketError::Later { after, .. } => {
                    about.sent_away += 1;
                    delay = after.max(COME_BACK_DELAY);
                }
                SocketError::Closed { code: GOING_AWAY, .. } | SocketError::Lost(_)
                    if was_condemned =>
                {
                    about.expected_losses += 1;
                }
                SocketError::Closed { .. } | SocketError::Lost(_) => {
                    about.disconnects.push(error.to_string());
                }
                SocketError::Malformed(why) => about.violations.push(why),
            }
            sleep(delay).await;
        }
    }

    /// One connection, to the ENDs of all channels.
    async fn read_one(&mut self, channels: &mut [Channel]) -> Result<(), SocketError> {
        let opening = Socket::open(&self.address, &self.token, self.how);
        let late = || SocketError::Later { status: 0, after: COME_BACK_DELAY };
        let mut socket = timeout(ANSWER_PATIENCE, opening).await.map_err(|_| late())??;
        for (index, channel) in channels.iter_mut().enumerate() {
            channel.is_subscribed = false;
            subscribe(&mut socket, index, channel).await?;
        }
        while !channels.iter().all(|channel| channel.has_end) {
            let heard = tokio::select! {
                heard = socket.hear() => heard?,
                duration = due(&mut self.phase, self.pauses.first().copied()) => {
                    self.pauses.remove(0);
                    sleep(duration).await;
                    continue;
                }
            };
            match heard {
                Heard::Open => {}
                Heard::Answer { id: 0, answer: Answer::Done(_) } => {}
                Heard::Answer { id, answer } => {
                    let index = usize::try_from(id).unwrap_or(usize::MAX).wrapping_sub(1);
                    let channel = channels.get_mut(index).ok_or_else(|| unasked(id))?;
                    if let Some(after) = channel.handle_answer(answer)? {
                        sleep(after).await;
                        subscribe(&mut socket, index, channel).await?;
                    }
                    if channels.iter().all(|channel| channel.is_subscribed) {
                        self.ready.tell();
                    }
                }
                Heard::Event(event) => {
                    let mut all = channels.iter_mut();
                    let channel = all.find(|channel| channel.name == event.channel);
                    let unread = || SocketError::Malformed(format!("of no channel: {event:?}"));
                    channel.ok_or_else(unread)?.handle_event(&self.words, event)?;
                }
            }
        }
        socket.close().await
    }
}

/// Asks for what follows the last event that it has.
async fn subscribe(
    socket: &mut Socket,
    index: usize,
    channel: &mut Channel,
) -> Result<(), SocketError> {
    let mut request = json!({"id": index + 1, "type": "subscribe", "channel": channel.name});
    if let Some(cursor) = &channel.cursor {
        request["cursor"] = json!(cursor);
    }
    socket.ask(&request).await
}

fn unasked(id: u64) -> SocketError {
    SocketError::Malformed(format!("an answer to nothing that was asked: {id}"))
}

impl Channel {
    /// Takes the answer to its subscription. Says when to ask again, if it was refused.
    fn handle_answer(&mut self, answer: Answer) -> Result<Option<Duration>, SocketError> {
        match answer {
            Answer::Done(_) if self.is_subscribed => {
                Err(SocketError::Malformed(format!("{}: answered twice", self.name)))
            }
            Answer::Done(_) => {
                self.is_subscribed = true;
                let presented = self.cursor.clone();
                self.reading.lives.push(Life { presented, came: Vec::new(), is_whole: false });
                Ok(None)
            }
            Answer::Refused { again: Some(after), .. } => {
                self.reading.sent_away += 1;
                Ok(Some(after.max(COME_BACK_DELAY)))
            }
            Answer::Refused { code, message, again: None } => {
                Err(SocketError::Malformed(format!("{}: {code}: {message}", self.name)))
            }
        }
    }

    fn handle_event(&mut self, words: &Words, event: SocketEvent) -> Result<(), SocketError> {
        let Some(life) = self.reading.lives.last_mut().filter(|_| self.is_subscribed) else {
            return Err(SocketError::Malformed(format!("before its answer: {event:?}")));
        };
        // Ends are published once each, when all trouble is over.
        self.has_end |= field(&event.data, "phase") == Ok("PHASE_END");
        self.cursor = Some(event.cursor.clone());
        let SocketEvent { cursor, kind, data, .. } = event;
        let (id, kind, data) = (Some(cursor), Some(kind), Some(data));
        let block = Block { kind, id, data, ..Block::default() };
        life.came.extend(Came::of(words, block, Instant::now()));
        Ok(())
    }
}
