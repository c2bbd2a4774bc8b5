//! `forebay up` in a data directory of its own, and what tests ask of it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_handlers::auth::{DevKeys, Grant, Minter, Role};
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use tempfile::TempDir;

use super::http::{Request, Response, get, post};
use super::process::{Process, forebay};
use super::stream::EventStream;

/// The org of these tests.
pub const ORG: &str = "1";

/// No limit on how fast a channel grows: for tests that are not about it.
pub const NO_RATE: &str = "--channel-rate=0";

/// A running `forebay up`.
pub struct Up {
    pub process: Process,
    /// `127.0.0.1:PORT`.
    pub address: String,
    pub dir: DataDir,
}

/// A port that stays ours while no server listens on it, for a server that comes back.
///
/// It is bound and not listened on, with SO_REUSEADDR as the edge's own listeners are: so these can bind it, the system
/// gives it to nobody else, and who connects while there is no listener is refused.
pub struct ReservedPort {
    _socket: Socket,
    address: String,
}

impl ReservedPort {
    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }
}

/// Reserves a port of the loopback.
pub fn reserved_port() -> ReservedPort {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap().to_string();
    ReservedPort { _socket: socket, address }
}

/// A data directory, removed when the last copy of this is dropped.
#[derive(Clone)]
pub struct DataDir(Arc<TempDir>);

impl DataDir {
    pub fn new() -> DataDir {
        DataDir(Arc::new(tempfile::tempdir().unwrap()))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A file in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// A token made with its keys, good for `ttl_s` seconds that began `age_s` seconds ago.
    pub fn token_aged(&self, role: Role, org: &str, channels: &[&str], age_s: u64) -> String {
        let keys = DevKeys::load_or_create(self.path()).unwrap();
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - age_s;
        let grant = Grant { org: Some(org), channels, ttl_s: 600, now_s };
        Minter::new(keys.minter_config(role)).unwrap().mint(&grant).unwrap()
    }

    /// A token that is good for ten minutes.
    pub fn token(&self, role: Role, org: &str, channels: &[&str]) -> String {
        self.token_aged(role, org, channels, 0)
    }
}

/// Channels that are read, and from where.
#[derive(Clone, Debug)]
pub struct Reading {
    query: String,
    token: String,
    last_event_id: Option<String>,
}

impl Reading {
    /// Begins after an event, by the header.
    pub fn after(mut self, id: impl Into<String>) -> Reading {
        self.last_event_id = Some(id.into());
        self
    }

    /// Adds a parameter to the query.
    pub fn with(mut self, parameter: &str) -> Reading {
        self.query.push('&');
        self.query.push_str(parameter);
        self
    }

    /// The request.
    pub fn request(&self) -> Request {
        let request = get(format!("/events/{ORG}?{}&token={}", self.query, self.token))
            .header("Accept", "text/event-stream");
        match &self.last_event_id {
            Some(id) => request.header("Last-Event-ID", id),
            None => request,
        }
    }
}

impl Up {
    /// Starts it in a fresh directory on a free port, without a limit on the rate.
    pub fn start() -> Up {
        Up::start_in(&DataDir::new(), "127.0.0.1:0", &[NO_RATE])
    }

    /// Starts it in a fresh directory on a free port.
    pub fn start_with(arguments: &[&str]) -> Up {
        Up::start_in(&DataDir::new(), "127.0.0.1:0", arguments)
    }

    /// Starts it, and waits until it is ready.
    pub fn start_in(dir: &DataDir, listen: &str, arguments: &[&str]) -> Up {
        let mut command = forebay();
        command.args(["up", "--listen", listen, "--data-dir"]).arg(dir.path()).args(arguments);
        let process = Process::spawn(&mut command);
        let address = process.line_with("ready http://");
        Up { process, address, dir: dir.clone() }
    }

    /// SIGKILL, and starts it again: same directory, same port.
    pub fn kill_and_start(mut self, arguments: &[&str]) -> Up {
        self.process.kill();
        Up::start_in(&self.dir, &self.address, arguments)
    }

    /// SIGTERM, and starts it again: same directory, same port.
    pub fn stop_and_start(self, arguments: &[&str]) -> Up {
        let Up { process, address, dir } = self;
        assert_eq!(process.terminate().code(), 0);
        Up::start_in(&dir, &address, arguments)
    }

    /// `http://…`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn send(&self, request: &Request) -> Response {
        request.send(&self.address)
    }

    /// A request to publish, with a token, without a body.
    pub fn publishing(&self, channel: &str, query: &str) -> Request {
        let token = self.dir.token(Role::Publisher, ORG, &[channel]);
        post(format!("/publish/{ORG}/{channel}{query}")).bearer(&token)
    }

    /// Publishes a message; returns its id.
    #[track_caller]
    pub fn publish(&self, channel: &str, message: &Value) -> String {
        self.send(&self.publishing(channel, "").json(message)).good().to_owned()
    }

    /// Publishes a DELTA with this value; returns its id.
    #[track_caller]
    pub fn delta(&self, channel: &str, value: impl Into<Value>) -> String {
        let value: Value = value.into();
        self.publish(channel, &json!({"phase": "PHASE_DELTA", "payload": {"value": value}}))
    }

    /// Publishes an END; returns its id.
    #[track_caller]
    pub fn end(&self, channel: &str) -> String {
        self.publish(channel, &json!({"phase": "PHASE_END"}))
    }

    /// What reads channels from their beginning.
    pub fn reading(&self, channels: &[&str]) -> Reading {
        let token = self.dir.token(Role::Subscriber, ORG, channels);
        let query: Vec<_> = channels.iter().map(|name| format!("channel_id={name}")).collect();
        Reading { query: query.join("&"), token, last_event_id: None }
    }

    /// Opens a stream.
    #[track_caller]
    pub fn read(&self, reading: &Reading) -> EventStream {
        EventStream::open(&reading.request(), &self.address)
    }

    /// `GET /channels/…`, with a token.
    pub fn history(&self, channel: &str, query: &str) -> Request {
        let token = self.dir.token(Role::Subscriber, ORG, &[channel]);
        get(format!("/channels/{ORG}/{channel}{query}")).bearer(&token)
    }

    /// The events of a channel's history, all of them.
    #[track_caller]
    pub fn all_events(&self, channel: &str) -> Vec<(String, Value)> {
        let page = self.send(&self.history(channel, "?limit=1000"));
        page.good();
        let page = page.json();
        assert!(page["gap"].is_null(), "{page}");
        let event =
            |event: &Value| (event["id"].as_str().unwrap().to_owned(), event["data"].clone());
        page["events"].as_array().unwrap().iter().map(event).collect()
    }
}
