//! A publisher: sends events to one channel at a steady pace, each until it is acknowledged.
//!
//! It makes each event so that it knows the very bytes that readers must get, and says in them when it
//! was sent. With the id of the acknowledgement that is all that the judge wants to know.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use forebay_judge::Id;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, sleep};
use uuid::Uuid;

use super::{Clock, Violations};
use crate::PATIENCE;
use crate::cluster::ORG;
use crate::connection::{Connection, ExchangeError};

/// Time before an event is sent again.
const RETRY_DELAY: Duration = Duration::from_millis(50);

/// Publishes to one channel.
#[derive(Debug)]
pub(crate) struct Publisher {
    pub(crate) clock: Clock,
    pub(crate) address: SocketAddr,
    pub(crate) token: Arc<str>,
    /// The channel's name, without its org.
    pub(crate) channel: String,
    /// The first event is sent after this, and the others each time that `interval` has passed.
    pub(crate) offset: Duration,
    pub(crate) interval: Duration,
    /// Bytes of text in each event.
    pub(crate) text_bytes: usize,
    /// The END is published, and the publisher is done, once this says so.
    pub(crate) stop: watch::Receiver<bool>,
    /// Is told the id of the last event.
    pub(crate) head: watch::Sender<Option<Id>>,
}

/// An event that is stored.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub(crate) id: Id,
    pub(crate) end: bool,
    /// What readers get.
    pub(crate) data: Arc<str>,
    /// When it was sent first.
    pub(crate) sent_us: u64,
    /// When its publisher knew.
    pub(crate) acknowledged_us: u64,
}

/// What a publisher did.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) channel: String,
    pub(crate) events: Vec<Stored>,
    /// Attempts after which an event was sent again: refused for a while, or the connection was lost.
    pub(crate) retries: u64,
    pub(crate) violations: Violations,
}

impl Publisher {
    /// Publishes until it is told to stop, and the END then.
    pub(crate) async fn run(mut self) -> Published {
        let mut connection = Connection::new(self.address);
        let mut published = Published {
            channel: self.channel.clone(),
            events: Vec::new(),
            retries: 0,
            violations: Violations::default(),
        };
        let first = tokio::time::Instant::now() + self.offset;
        let mut turns = tokio::time::interval_at(first, self.interval);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_over = tokio::select! {
                _ = turns.tick() => false,
                _ = self.stop.wait_for(|stop| *stop) => true,
            };
            let sequence = published.events.len() as u64;
            let stored = self.publish(&mut connection, (sequence, is_over), &mut published).await;
            if is_over || !stored {
                return published;
            }
        }
    }

    /// Publishes one event. Whether it is stored.
    async fn publish(
        &self,
        connection: &mut Connection,
        (sequence, end): (u64, bool),
        published: &mut Published,
    ) -> bool {
        let (message_id, sent_us) = (Uuid::new_v4(), self.clock.now_us());
        let (body, data) = self.event(message_id, sent_us, (sequence, end));
        let request = self.request(&body);
        let deadline = self.clock.at(sent_us) + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            let answer = connection.exchange(&request).await;
            let failed = match answer {
                Ok((head, body)) if head.status == 200 => {
                    let id = std::str::from_utf8(&body).ok().and_then(Id::parse);
                    if let Some(id) = id {
                        let acknowledged_us = self.clock.now_us();
                        let data = data.as_str().into();
                        published.events.push(Stored { id, end, data, sent_us, acknowledged_us });
                        self.head.send_replace(Some(id));
                        return true;
                    }
                    Some("a 200 without an id".to_owned())
                }
                Ok((head, _)) if matches!(head.status, 429 | 502 | 503) => None,
                Ok((head, _)) => Some(format!("status {}", head.status)),
                Err(ExchangeError::Lost(_)) => None,
                Err(ExchangeError::Malformed(error)) => Some(error.to_string()),
            };
            if let Some(why) = failed {
                published.violations.add(format!("publish to {}: {why}", self.channel));
                return false;
            }
            published.retries += 1;
            sleep(RETRY_DELAY).await;
        }
        let channel = &self.channel;
        published.violations.add(format!("publish to {channel}: refused for {PATIENCE:?}"));
        false
    }

    /// The message, and what readers get of it: without white space, the payload's keys in order.
    fn event(
        &self,
        message_id: Uuid,
        sent_us: u64,
        (sequence, end): (u64, bool),
    ) -> (Value, String) {
        let phase = if end { "PHASE_END" } else { "PHASE_DELTA" };
        let text: String = "forebay ".chars().cycle().take(self.text_bytes).collect();
        let (channel, message_id) = (&self.channel, message_id.to_string());
        let payload = json!({"sent_us": sent_us.to_string(), "text": text});
        let data = format!(
            r#"{{"event_type":"stream","message_id":"{message_id}","channel_id":"{channel}","phase":"{phase}","sequence":{sequence},"payload":{payload}}}"#
        );
        let body = json!({
            "message_id": message_id,
            "phase": phase,
            "sequence": sequence,
            "payload": payload,
        });
        (body, data)
    }

    fn request(&self, body: &Value) -> Vec<u8> {
        let (channel, token, body) = (&self.channel, &self.token, body.to_string());
        format!(
            "POST /publish/{ORG}/{channel} HTTP/1.1\r\nHost: crowd\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }
}

/// When the event of a block was sent, as its data says.
pub(crate) fn sent_us_of(block: &[u8]) -> Option<u64> {
    const KEY: &str = r#""sent_us":""#;
    let text = std::str::from_utf8(block).ok()?;
    let value = &text[text.find(KEY)? + KEY.len()..];
    value[..value.find('"')?].parse().ok()
}
