//! Subscribers: each reads one connection from its beginning to its END, and never comes back.
//!
//! So whatever breaks a connection shows. What came is written down as it is; `judge` compares it
//! with what was published. Only what can be seen nowhere else is judged here: the form of
//! responses and events, and that the id of an event on a connection with several channels tells
//! where *each* of them stands.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use uuid::Uuid;
use zhttp::Cursor;
use zhttp::composite::{self, Composite};

use crate::Phase;
use crate::cluster::ORG;
use crate::connection::READ_BYTES;
use crate::http::{Part, ResponseReader};
use crate::scenario::Pause;
use crate::sse::{SseEvent, SseReader};

/// Characters of an event's data that a violation tells.
const DATA_CHARS_TOLD_MAX: usize = 300;

/// One client.
#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) address: Address,
    pub(crate) token: Arc<str>,
    /// What it reads, as numbers of channels and their names.
    pub(crate) channels: Vec<(usize, String)>,
    pub(crate) pause: Option<Pause>,
    pub(crate) phase: watch::Receiver<Phase>,
    /// Is told once, when the stream has begun or cannot begin any more.
    pub(crate) ready: mpsc::UnboundedSender<()>,
}

/// Where the edge takes a client.
#[derive(Clone, Debug)]
pub(crate) enum Address {
    /// Where a client connects that reads all the time.
    Tcp(SocketAddr),
    /// Where a slow one connects: behind a Unix socket the kernel keeps 208 KiB for it (unix(7)). For
    /// a TCP connection on one machine that is megabytes, and the edge would not notice in seconds
    /// that somebody reads nothing.
    Unix(PathBuf),
}

/// A connection of either kind.
trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Duplex for S {}

/// An event that came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Delivery {
    pub(crate) cursor: Cursor,
    pub(crate) message_id: Uuid,
    pub(crate) at: Instant,
}

/// What a client got.
#[derive(Debug)]
pub(crate) struct Reading {
    /// Of each channel that it read, in the order in which it came.
    pub(crate) channels: Vec<(usize, Vec<Delivery>)>,
    pub(crate) ending: Ending,
    /// It stopped reading for a while: its times say nothing about the system.
    pub(crate) is_slow: bool,
    /// What was wrong with what it got.
    pub(crate) violations: Vec<String>,
}

/// How a client's stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// After the END of each channel, in good form.
    Ended,
    /// Not at all, until the run was over.
    Open,
    /// Before that.
    Disconnected(String),
}

/// The part of an event's data that counts here.
#[derive(Deserialize)]
struct Data {
    message_id: String,
    channel_id: String,
    phase: String,
}

impl Subscriber {
    /// Reads until the stream ends, or the run is over.
    pub(crate) async fn run(self) -> Reading {
        let mut stream = Stream {
            reading: Reading {
                channels: self.channels.iter().map(|(number, _)| (*number, Vec::new())).collect(),
                ending: Ending::Open,
                is_slow: self.pause.is_some(),
                violations: Vec::new(),
            },
            names: self.channels.iter().map(|(_, name)| name.clone()).collect(),
            response: ResponseReader::new(),
            events: SseReader::default(),
            ends: 0,
        };
        let mut over = self.phase.clone();
        let ending = tokio::select! {
            ending = self.read(&mut stream) => ending.unwrap_or_else(Ending::Disconnected),
            _ = over.wait_for(|phase| *phase == Phase::Over) => Ending::Open,
        };
        // If it is told already, nobody listens any more.
        let _ = self.ready.send(());
        Reading { ending, ..stream.reading }
    }

    async fn read(&self, stream: &mut Stream) -> Result<Ending, String> {
        let text = |error: io::Error| error.to_string();
        let mut socket = self.connect().await.map_err(text)?;
        let mut phase = self.phase.clone();
        let mut buffer = [0; READ_BYTES];
        let mut is_ready = false;
        let mut pause = self.pause;
        loop {
            let len = tokio::select! {
                len = socket.read(&mut buffer) => len.map_err(text)?,
                duration = due(&mut phase, pause) => {
                    pause = None;
                    tokio::time::sleep(duration).await;
                    continue;
                }
            };
            if len == 0 {
                return Err("the connection was closed".to_owned());
            }
            let has_ended = stream.handle_bytes(&buffer[..len])?;
            if has_ended {
                return stream.ending();
            }
            if !is_ready && stream.events.has_begun() {
                is_ready = true;
                let _ = self.ready.send(());
            }
        }
    }

    async fn connect(&self) -> io::Result<Box<dyn Duplex>> {
        let mut stream: Box<dyn Duplex> = match &self.address {
            Address::Tcp(address) => Box::new(TcpStream::connect(address).await?),
            Address::Unix(path) => Box::new(UnixStream::connect(path).await?),
        };
        let channels = self.channels.iter().map(|(_, name)| format!("channel_id={name}&"));
        let request = format!(
            "GET /events/{ORG}?{}token={} HTTP/1.1\r\nHost: chaos\r\nAccept: text/event-stream\r\n\r\n",
            channels.collect::<String>(),
            self.token
        );
        stream.write_all(request.as_bytes()).await?;
        Ok(stream)
    }
}

/// Waits until a pause begins, and says how long it lasts. Forever, if there is none.
async fn due(phase: &mut watch::Receiver<Phase>, pause: Option<Pause>) -> Duration {
    let Some(pause) = pause else { return std::future::pending().await };
    loop {
        let now = *phase.borrow_and_update();
        match now {
            Phase::Load { since } => {
                tokio::time::sleep_until(since + pause.at).await;
                return pause.duration;
            }
            Phase::Connecting => {}
            Phase::Over => return std::future::pending().await,
        }
        if phase.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

/// The stream of a client, as far as it came.
struct Stream {
    reading: Reading,
    names: Vec<String>,
    response: ResponseReader,
    events: SseReader,
    /// Channels whose END came.
    ends: usize,
}

impl Stream {
    /// Takes what came. Whether the response is over. The error says what cannot be read.
    fn handle_bytes(&mut self, bytes: &[u8]) -> Result<bool, String> {
        self.response.feed(bytes);
        let mut events = Vec::new();
        let mut has_ended = false;
        while let Some(part) = self.response.next_part().map_err(|error| error.to_string())? {
            match part {
                Part::Head(head) if head.status == 200 => {}
                Part::Head(head) => return Err(format!("status {}", head.status)),
                Part::Body(bytes) => {
                    self.events.feed(&bytes, &mut events).map_err(|error| error.to_string())?;
                }
                Part::End => has_ended = true,
            }
        }
        for event in events {
            if let Err(violation) = self.handle_event(&event) {
                let SseEvent { kind, id, data } = event;
                let data: String = data.chars().take(DATA_CHARS_TOLD_MAX).collect();
                self.reading.violations.push(format!("{violation}: {kind} {id} {data}"));
            }
        }
        Ok(has_ended)
    }

    /// How the stream ended that is over.
    fn ending(&self) -> Result<Ending, String> {
        if self.ends < self.names.len() {
            return Err("the response ended before its channels did".to_owned());
        }
        if !self.events.is_at_boundary() {
            return Err("the response ended within an event".to_owned());
        }
        Ok(Ending::Ended)
    }

    fn handle_event(&mut self, event: &SseEvent) -> Result<(), &'static str> {
        if event.kind != "stream" {
            return Err("an event that is no message");
        }
        let data: Data = serde_json::from_str(&event.data).map_err(|_| "malformed data")?;
        let message_id = data.message_id.parse().map_err(|_| "a malformed message_id")?;
        let index = self.names.iter().position(|name| *name == data.channel_id);
        let index = index.ok_or("an event of another channel")?;
        self.ends += usize::from(data.phase == "PHASE_END");
        let (cursor, others) = self.positions(&event.id, index)?;
        let at = Instant::now();
        self.reading.channels[index].1.push(Delivery { cursor, message_id, at });
        others
    }

    /// Where an event's id says that it stands, and whether it is right about the other channels.
    fn positions(
        &self,
        id: &str,
        index: usize,
    ) -> Result<(Cursor, Result<(), &'static str>), &'static str> {
        if self.names.len() == 1 {
            return Ok((id.parse().map_err(|_| "a malformed id")?, Ok(())));
        }
        let id = composite::decode(id).map_err(|_| "a malformed composite id")?;
        let cursor = self.cursor_in(&id, index).ok_or("an id without the event's channel")?;
        Ok((cursor, self.check_others(&id, index)))
    }

    /// For the channels that the event is not of, its id must name the last event that came.
    fn check_others(&self, id: &Composite, event_index: usize) -> Result<(), &'static str> {
        for (index, (_, deliveries)) in self.reading.channels.iter().enumerate() {
            let Some(last) = deliveries.last().filter(|_| index != event_index) else { continue };
            if self.cursor_in(id, index) != Some(last.cursor) {
                return Err("an id that is wrong about another channel");
            }
        }
        Ok(())
    }

    fn cursor_in(&self, id: &Composite, index: usize) -> Option<Cursor> {
        id.cursor_of(&format!("{ORG}:{}", self.names[index]))
    }
}
