//! A publisher's WebSocket: made again when it is lost, which it may be only with its edge.
//!
//! Who gives its events a `message_id` may send one again whatever became of it. Who does not must know: a request that was
//! not answered, or was answered with `unavailable`, may have stored its event, or may still do so. So such an event is looked
//! for in the history before it is sent again, by its publisher and its sequence. A request that comes to a handler even later
//! stores the event once more, and nobody promises that it does not: each such doubt is counted, and goes into the
//! acknowledgement ([`crate::publisher::Ack`]).
//!
//! That a handler ends leaves no doubt: the edge gives the request to another one, and there is one answer.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use zhttp::Cursor;

use crate::connection::Address;
use crate::publisher::{Answered, Event, Lost, Publishing, Unnamed};
use crate::socket::{Answer, Credentials, Heard, Socket, SocketError};
use crate::subscriber::EdgeLives;

/// Events of a page of history: as many as the server gives.
const PAGE_EVENTS_MAX: u64 = 1000;

pub(crate) struct SocketPublisher {
    address: Address,
    token: String,
    reader_token: Arc<str>,
    channel: String,
    how: Credentials,
    edge: watch::Receiver<EdgeLives>,
    /// With how many edges had ended when it was made.
    open: Option<(Socket, EdgeLives)>,
    last_id: u64,
    /// Where its last event stands. What it does not know to be stored is behind that, if anywhere.
    last_stored: Cursor,
    /// Requests to store the event of this moment of which nobody knows what they came to.
    doubts: u64,
}

/// A page of `history`.
#[derive(Deserialize)]
struct Page {
    events: Vec<PageEvent>,
    head: String,
    next: String,
}

#[derive(Deserialize)]
struct PageEvent {
    id: String,
    data: Value,
}

/// What a look into history came to.
enum Looked {
    Found(Cursor),
    /// It is not there.
    Missing,
    /// There was nothing to see.
    Refused(Answered),
}

impl SocketPublisher {
    pub(crate) fn new(common: &Publishing, channel: usize) -> Self {
        SocketPublisher {
            address: common.address.clone(),
            token: common.token.clone(),
            reader_token: Arc::clone(&common.reader_token),
            channel: common.channels[channel].clone(),
            how: Credentials::of(channel),
            edge: common.edge.clone(),
            open: None,
            last_id: 0,
            last_stored: Cursor::new(0, 0),
            doubts: 0,
        }
    }

    /// One attempt. If it is broken off, the next makes a new connection.
    pub(crate) async fn publish(
        &mut self,
        event: &Event,
        unnamed: &mut Unnamed,
    ) -> Result<Answered, Lost> {
        let lives = self.open.as_ref().map_or_else(|| *self.edge.borrow(), |(_, lives)| *lives);
        let attempt = match event.message_id {
            Some(_) => self.store(event, lives).await,
            None => self.store_unnamed(event, lives, unnamed).await,
        };
        match attempt {
            Ok(answered) => Ok(answered),
            Err(SocketError::Away(_)) => Err(Lost),
            Err(SocketError::Later { status, after }) => {
                Ok(Answered::Refused { status, after: Some(after) })
            }
            Err(SocketError::Closed { .. } | SocketError::Lost(_))
                if self.edge.borrow().condemned > lives.gone =>
            {
                Err(Lost)
            }
            Err(error) => Ok(Answered::Failed(format!("its WebSocket: {error}"))),
        }
    }

    /// Publishes an event without a `message_id`, unless an attempt before has stored it.
    async fn store_unnamed(
        &mut self,
        event: &Event,
        lives: EdgeLives,
        unnamed: &mut Unnamed,
    ) -> Result<Answered, SocketError> {
        if self.doubts > 0 {
            let looked = self.look_for(event, lives).await?;
            unnamed.looks += u64::from(!matches!(looked, Looked::Refused(_)));
            match looked {
                Looked::Found(cursor) => {
                    unnamed.found += 1;
                    // One of them has stored it: no more doubt about that one.
                    self.doubts -= 1;
                    return Ok(self.stored(cursor, true, unnamed));
                }
                Looked::Missing => {}
                Looked::Refused(answered) => return Ok(answered),
            }
        }
        self.connect(lives).await?;
        // From here on it is not known, however this is broken off.
        self.doubts += 1;
        let answered = self.store(event, lives).await?;
        match answered {
            Answered::Stored { cursor, is_duplicate, .. } => {
                self.doubts -= 1;
                unnamed.repeated += u64::from(is_duplicate);
                Ok(self.stored(cursor, is_duplicate, unnamed))
            }
            // The store is away, or something failed: it may have been appended, and may still be.
            Answered::Refused { status: 500 | 503, .. } => Ok(answered),
            Answered::Refused { .. } | Answered::Failed(_) => {
                self.doubts -= 1;
                Ok(answered)
            }
        }
    }

    fn stored(&mut self, cursor: Cursor, is_duplicate: bool, unnamed: &mut Unnamed) -> Answered {
        unnamed.acknowledged += 1;
        self.last_stored = cursor;
        let doubts = std::mem::take(&mut self.doubts);
        Answered::Stored { cursor, is_duplicate, doubts }
    }

    /// Publishes an event.
    async fn store(&mut self, event: &Event, lives: EdgeLives) -> Result<Answered, SocketError> {
        let mut request = event.body.clone();
        request["type"] = json!("publish");
        request["channel"] = json!(self.channel);
        Ok(match self.exchange(request, lives).await? {
            Answer::Done(result) => stored(&result),
            Answer::Refused { code, message, again } => refused(&code, &message, again),
        })
    }

    /// Looks for an event behind the last one that is known to be stored.
    async fn look_for(&mut self, event: &Event, lives: EdgeLives) -> Result<Looked, SocketError> {
        let mut after = self.last_stored.to_string();
        loop {
            let request = json!({
                "type": "history",
                "channel": self.channel,
                "token": *self.reader_token,
                "after": after,
                "limit": PAGE_EVENTS_MAX,
            });
            let result = match self.exchange(request, lives).await? {
                Answer::Done(result) => result,
                Answer::Refused { code, message, again } => {
                    return Ok(Looked::Refused(refused(&code, &message, again)));
                }
            };
            let malformed = |why: &str| SocketError::Malformed(format!("a page of history: {why}"));
            let page: Page =
                serde_json::from_value(result).map_err(|error| malformed(&error.to_string()))?;
            if let Some(found) = page.events.iter().find(|found| is_told_by(event, &found.data)) {
                let cursor = found.id.parse().map_err(|_| malformed(&found.id))?;
                return Ok(Looked::Found(cursor));
            }
            if page.events.is_empty() || page.next == page.head {
                return Ok(Looked::Missing);
            }
            after = page.next;
        }
    }

    /// Sees that there is a connection.
    async fn connect(&mut self, lives: EdgeLives) -> Result<(), SocketError> {
        if self.open.is_none() {
            let socket = Socket::open(&self.address, &self.token, self.how).await?;
            self.open = Some((socket, lives));
        }
        Ok(())
    }

    /// Sends a request, and waits for its answer. Whatever else comes of it, the connection is given up.
    async fn exchange(
        &mut self,
        mut request: Value,
        lives: EdgeLives,
    ) -> Result<Answer, SocketError> {
        self.connect(lives).await?;
        let (mut socket, lives) = self.open.take().expect("there is a connection");
        self.last_id += 1;
        request["id"] = json!(self.last_id);
        socket.ask(&request).await?;
        loop {
            match socket.hear().await? {
                Heard::Open | Heard::Answer { id: 0, answer: Answer::Done(_) } => {}
                Heard::Answer { id, answer } if id == self.last_id => {
                    self.open = Some((socket, lives));
                    return Ok(answer);
                }
                other => {
                    let why = format!("this is no answer to {}: {other:?}", self.last_id);
                    return Err(SocketError::Malformed(why));
                }
            }
        }
    }
}

/// What a publish was answered with.
fn stored(result: &Value) -> Answered {
    let id = result.get("id").and_then(Value::as_str);
    match id.map(|id| id.parse()) {
        Some(Ok(cursor)) => {
            let is_duplicate = result.get("duplicate") == Some(&Value::Bool(true));
            Answered::Stored { cursor, is_duplicate, doubts: 0 }
        }
        Some(Err(_)) | None => Answered::Failed(format!("a publish without an id: {result}")),
    }
}

/// What a request was refused with, as a status of HTTP.
fn refused(code: &str, message: &str, again: Option<Duration>) -> Answered {
    let status = match code {
        "rate_limited" => 429,
        "unavailable" => 503,
        "internal" => 500,
        _ => return Answered::Failed(format!("{code}: {message}")),
    };
    Answered::Refused { status, after: again }
}

/// Whether an event in the history is this one.
fn is_told_by(event: &Event, data: &Value) -> bool {
    data["sequence"] == event.sequence && data["payload"]["publisher"] == event.publisher
}
