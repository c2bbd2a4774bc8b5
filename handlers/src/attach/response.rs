//! A response, as a handler makes it.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use zhttp::Cursor;
use zhttp::hold::{Format, HoldChannel};

/// What a handler answers.
#[derive(Debug)]
pub struct Response {
    /// The status (RFC 9110 §15). The edge writes the reason phrase that belongs to it.
    pub code: u16,
    /// Names and values, in order. The edge frames the body by itself, and adds a `Date`.
    pub headers: Vec<(String, String)>,
    /// What follows the head.
    pub body: Body,
    /// Leave the connection to the edge (`zhttp-spec/hold.md` §3).
    pub hold: Option<Hold>,
}

/// The body of a response.
#[derive(Debug)]
pub enum Body {
    /// All of it. Sent in pieces if it is larger than what the edge takes at once.
    Whole(Bytes),
    /// Pieces, until the sender is dropped. Pieces are taken as fast as the client reads them, so
    /// give the channel a small capacity. When the client leaves, the channel is closed. The way to
    /// break off a body that cannot be finished is not here: what was sent counts as all of it.
    Stream(mpsc::Receiver<Bytes>),
}

/// How a connection is to be held once the head and the body of the response are written.
#[derive(Clone, Debug)]
pub struct Hold {
    /// How events are rendered: [`Format::Sse`] for an HTTP request, [`Format::Ws`] for a
    /// WebSocket.
    pub format: Format,
    /// What the connection reads: at most 128 channels.
    pub channels: Vec<HeldChannel>,
    /// A comment or a ping goes out after that long without a write, in whole milliseconds; zero is
    /// never.
    pub keep_alive: Duration,
    /// The connection is closed after that long, in whole seconds, rounded up; `None` is never.
    pub expires: Option<Duration>,
    /// With which code a WebSocket is closed then; 0 is the usual one, 1000.
    pub expires_code: u16,
    /// Handed back with what the edge says about the connection; at most 1024 bytes.
    pub context: Bytes,
    /// The edge is to tell a handler when the connection closes.
    pub notify: bool,
    /// The connection stays when its channels have ended.
    pub persistent: bool,
    /// What the client of a WebSocket says goes to handlers that serve the method `MESSAGE` at this
    /// path, of at most 64 bytes; see [`Service::message`](super::Service::message). Empty: it may
    /// say nothing.
    pub messages: String,
}

impl Hold {
    /// A hold that only reads: without keep-alives, an end, a context or messages.
    pub fn new(format: Format, channels: Vec<HeldChannel>) -> Self {
        Hold {
            format,
            channels,
            keep_alive: Duration::ZERO,
            expires: None,
            expires_code: 0,
            context: Bytes::new(),
            notify: false,
            persistent: false,
            messages: String::new(),
        }
    }
}

/// What a held connection reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldChannel {
    /// The channel's name on the wire, `<org>:<channel>`.
    pub name: String,
    /// The last event that the reader has.
    pub cursor: Cursor,
    /// That event is the end of the channel: it does not keep the connection open.
    pub ended: bool,
}

impl HeldChannel {
    /// A channel that has not ended for this reader.
    pub fn new(name: impl Into<String>, cursor: Cursor) -> Self {
        HeldChannel { name: name.into(), cursor, ended: false }
    }
}

impl<'a> From<&'a HeldChannel> for HoldChannel<'a> {
    fn from(HeldChannel { name, cursor, ended }: &'a HeldChannel) -> Self {
        HoldChannel { name, cursor: *cursor, ended: *ended }
    }
}

/// A time in whole seconds as packets have it: rounded up, and at least one, as 0 says "never".
pub(super) fn whole_seconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis().div_ceil(1000).max(1)).unwrap_or(u64::MAX)
}

impl Response {
    /// A response without headers and body.
    pub fn new(code: u16) -> Self {
        Response { code, headers: Vec::new(), body: Body::Whole(Bytes::new()), hold: None }
    }

    /// Plain text in UTF-8.
    pub fn text(code: u16, body: impl Into<String>) -> Self {
        Response::new(code).header("Content-Type", "text/plain; charset=utf-8").body(body.into())
    }

    /// JSON, already rendered.
    pub fn json(code: u16, body: impl Into<String>) -> Self {
        Response::new(code).header("Content-Type", "application/json").body(body.into())
    }

    /// A body in pieces; see [`Body::Stream`].
    pub fn stream(code: u16, pieces: mpsc::Receiver<Bytes>) -> Self {
        Response { body: Body::Stream(pieces), ..Response::new(code) }
    }

    /// The same with one more header.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same with another body.
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        Response { body: Body::Whole(body.into()), ..self }
    }

    /// The same, held. The body must be whole and fit what the edge takes at once (8 KiB unless
    /// configured otherwise): a hold is taken with one packet. A hold that the edge could not apply
    /// becomes a 500, and is logged.
    pub fn hold(self, hold: Hold) -> Self {
        Response { hold: Some(hold), ..self }
    }

    pub(super) fn has_header(&self, name: &str) -> bool {
        self.headers.iter().any(|(found, _)| found.eq_ignore_ascii_case(name))
    }

    /// A status that never has a body (RFC 9110 §6.4.1).
    pub(super) fn is_bodyless(&self) -> bool {
        matches!(self.code, 100..=199 | 204 | 304)
    }
}
