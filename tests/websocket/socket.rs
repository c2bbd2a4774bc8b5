//! A socket of `GET /ws/{org}` as a test uses it: what it asks is answered, and events wait until somebody wants them.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::peer::{Make, Opening, Peer};

/// An open socket.
pub struct Socket {
    pub peer: Peer,
    /// What the handshake was answered with.
    pub opened: Value,
    /// Events that came before an answer that was waited for.
    events: VecDeque<Value>,
    next_id: u64,
}

/// How an attempt to open a socket went.
pub enum Attempt {
    Opened(Box<Socket>),
    /// `refused` or `failed`, as the peer says it.
    Not(Value),
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub code: String,
    pub kind: String,
    pub message: String,
    pub data: Value,
}

impl Refusal {
    fn of(error: &Value) -> Refusal {
        let text =
            |name: &str| error[name].as_str().unwrap_or_else(|| panic!("{error}")).to_owned();
        let (code, kind, message) = (text("code"), text("kind"), text("message"));
        Refusal { code, kind, message, data: error["data"].clone() }
    }

    /// Code and kind.
    pub fn is(&self) -> (&str, &str) {
        (&self.code, &self.kind)
    }
}

impl Socket {
    /// Tries to open one. Its first message is not read.
    pub fn attempt(make: Make, opening: &Opening) -> Attempt {
        let mut peer = Peer::start(make);
        peer.tell(opening.command());
        let mut happened = peer.hear();
        if happened.get("opened").is_none() {
            return Attempt::Not(happened);
        }
        let opened = happened["opened"].take();
        let events = VecDeque::new();
        Attempt::Opened(Box::new(Socket { peer, opened, events, next_id: 1 }))
    }

    /// Opens one; its first message, and nothing but that, is read: `open`.
    #[track_caller]
    pub fn open(make: Make, opening: &Opening) -> (Socket, Value) {
        let mut socket = match Socket::attempt(make, opening) {
            Attempt::Opened(socket) => *socket,
            Attempt::Not(why) => panic!("{why}"),
        };
        let first = socket.message();
        assert_eq!(first["type"], "open", "{first}");
        (socket, first)
    }

    /// The next text message as it came.
    #[track_caller]
    pub fn text(&mut self) -> String {
        let happened = self.peer.hear();
        happened["text"].as_str().unwrap_or_else(|| panic!("a text is due: {happened}")).to_owned()
    }

    /// The next message as it came, whatever it is.
    #[track_caller]
    pub fn message(&mut self) -> Value {
        let text = self.text();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub fn say(&mut self, request: &Value) {
        self.say_text(&request.to_string());
    }

    pub fn say_text(&mut self, text: &str) {
        self.peer.tell(&json!({"do": "text", "text": text}));
    }

    /// The next message that is no event.
    #[track_caller]
    pub fn reply(&mut self) -> Value {
        loop {
            let message = self.message();
            if message["type"] != "event" {
                return message;
            }
            self.events.push_back(message);
        }
    }

    /// Asks something, with an id, and waits for what comes of it.
    #[track_caller]
    pub fn ask(&mut self, mut request: Value) -> Result<Value, Refusal> {
        let id = self.next_id;
        self.next_id += 1;
        request["id"] = id.into();
        self.say(&request);
        let mut reply = self.reply();
        assert_eq!(reply["id"], id, "{reply}");
        match reply["type"].as_str() {
            Some("answer") => Ok(reply["result"].take()),
            Some("error") => Err(Refusal::of(&reply)),
            _ => panic!("{reply}"),
        }
    }

    /// Asks something that must be done.
    #[track_caller]
    pub fn done(&mut self, request: Value) -> Value {
        let text = request.to_string();
        self.ask(request).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"))
    }

    /// Asks something that must be refused.
    #[track_caller]
    pub fn refused(&mut self, request: Value) -> Refusal {
        let text = request.to_string();
        match self.ask(request) {
            Ok(result) => panic!("{text} is done: {result}"),
            Err(refusal) => refusal,
        }
    }

    /// The socket is there, and says nothing before the answer to a ping.
    #[track_caller]
    pub fn is_alive(&mut self) {
        assert_eq!(self.done(json!({"type": "ping"})), json!({}));
    }

    /// Subscribes; returns where it begins.
    #[track_caller]
    pub fn subscribe(&mut self, channel: &str, cursor: Option<&str>) -> String {
        let request = json!({"type": "subscribe", "channel": channel, "cursor": cursor});
        let result = self.done(request);
        assert_eq!(result["channel"], channel);
        result["cursor"].as_str().unwrap().to_owned()
    }

    /// Publishes a DELTA with this value; returns its id.
    #[track_caller]
    pub fn delta(&mut self, channel: &str, value: impl Into<Value>) -> String {
        let result = self.done(delta_request(channel, value));
        result["id"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned()
    }

    /// The next event.
    #[track_caller]
    pub fn event(&mut self) -> Value {
        let event = self.events.pop_front();
        let event = event.unwrap_or_else(|| self.message());
        assert_eq!(event["type"], "event", "{event}");
        event
    }

    /// The next event, which must be one of a channel with this cursor; its data.
    #[track_caller]
    pub fn event_of(&mut self, channel: &str, cursor: &str) -> Value {
        let mut event = self.event();
        let data = event["data"].take();
        let expected = json!({
            "type": "event", "channel": channel, "cursor": cursor, "event": "stream", "data": null
        });
        assert_eq!(event, expected, "{data}");
        data
    }

    /// No event has come that nobody asked for.
    #[track_caller]
    pub fn has_no_event(&self) {
        assert!(self.events.is_empty(), "{:?}", self.events);
    }

    /// Waits for the close; its code.
    #[track_caller]
    pub fn closed(&mut self) -> u64 {
        let happened = self.peer.hear();
        happened["closed"]["code"].as_u64().unwrap_or_else(|| panic!("a close is due: {happened}"))
    }
}

/// A request to publish a DELTA with this value.
pub fn delta_request(channel: &str, value: impl Into<Value>) -> Value {
    let value: Value = value.into();
    let payload = json!({"value": value});
    json!({"type": "publish", "channel": channel, "phase": "PHASE_DELTA", "payload": payload})
}
