//! What the clients connect to: Redis, two handlers of all roles, and an edge that compresses, each a process of its own.

use std::path::Path;
use std::process::Command;

use forebay_handlers::auth::Role;
use serde_json::Value;

use super::peer::{Make, Opening};
use super::socket::Socket;
use crate::support::process::{Process, forebay};
use crate::support::up::{DataDir, ORG};
use crate::support::{Response, eventually, get, post};

/// The names of the handlers.
const HANDLERS: [&str; 2] = ["a", "b"];

pub struct System {
    pub dir: DataDir,
    pub redis: Process,
    pub edge: Process,
    /// `127.0.0.1:PORT`.
    pub address: String,
    /// The same, for TLS.
    pub tls_address: String,
    handlers: Vec<Process>,
    options: Vec<String>,
}

impl System {
    /// Starts everything, and waits until it is ready. Handlers have these options besides the usual.
    pub fn start(options: &[&str]) -> System {
        let dir = DataDir::new();
        let redis = Process::redis(dir.path(), &[]);
        make_certificate(dir.path());
        let mut command = forebay();
        command.args(["connmgr", "--compression", "--drain-timeout=60", "--listen=127.0.0.1:0"]);
        command.arg("--listen=127.0.0.1:0,tls,default-cert=edge");
        command.arg(format!("--tls-identities-dir={}", dir.path().display()));
        let edge = Process::spawn(command.args(["--zclient-stream", &spec(dir.path())]));
        let mut listening = || {
            let line = edge.line_with("");
            line.split_once(" listening on ").map(|(_, address)| address.to_owned())
        };
        let address = eventually("it listens", &mut listening);
        let tls_address = eventually("it listens for TLS", &mut listening);
        let options = options.iter().map(|&option| option.to_owned()).collect();
        let handlers = Vec::new();
        let mut system = System { dir, redis, edge, address, tls_address, handlers, options };
        system.start_handlers();
        system
    }

    fn handler(&self, name: &str) -> Process {
        let mut command = forebay();
        command.args(["handler", "--role", "publish,fanout,cleanup", "--id", name]);
        // No test is so slow that its channels end by themselves.
        command.args(["--idle-ttl=1h", "--end-ttl=1h", "--edge", &spec(self.dir.path())]);
        let redis = format!("redis+unix://{}", self.dir.join("redis.sock").display());
        command.args(["--redis", &redis, "--data-dir"]).arg(self.dir.path()).args(&self.options);
        Process::spawn(&mut command)
    }

    /// New ones in the place of all; waits until the system is ready.
    pub fn start_handlers(&mut self) {
        self.handlers = HANDLERS.iter().map(|name| self.handler(name)).collect();
        for handler in &self.handlers {
            is_linked(handler);
        }
        eventually("somebody answers", || {
            let response = get("/readyz").try_send(&self.address).ok()?;
            (response.status() == 200).then_some(())
        });
    }

    /// Ends all of them with a signal, and waits until they are gone.
    pub fn end_handlers(&mut self, signal: &str) {
        for handler in &self.handlers {
            handler.signal(signal);
        }
        for handler in &mut self.handlers {
            eventually("a handler ends", || (!handler.is_running()).then_some(()));
        }
    }

    /// Sends a signal to the handler of that number.
    pub fn signal_handler(&self, number: usize, signal: &str) {
        self.handlers[number].signal(signal);
    }

    /// Waits until the handler of that number is gone.
    pub fn wait_for_end(&mut self, number: usize) {
        eventually("a handler ends", || (!self.handlers[number].is_running()).then_some(()));
    }

    /// Waits until the handler of that number is gone, and starts another one of the same name; returns when that one is
    /// there.
    pub fn restart_handler(&mut self, number: usize) {
        self.wait_for_end(number);
        self.handlers[number] = self.handler(HANDLERS[number]);
        is_linked(&self.handlers[number]);
    }

    /// A token of a reader.
    pub fn reader(&self, channels: &[&str]) -> String {
        self.dir.token(Role::Subscriber, ORG, channels)
    }

    /// A token of a publisher.
    pub fn publisher(&self, channels: &[&str]) -> String {
        self.dir.token(Role::Publisher, ORG, channels)
    }

    /// `ws://…`, without a token.
    pub fn url(&self) -> String {
        format!("ws://{}/ws/{ORG}", self.address)
    }

    /// A socket with both tokens for every channel whose name begins so: the reader's by the query, the publisher's by a
    /// message.
    #[track_caller]
    pub fn socket(&self, (make, compression): (Make, bool), prefix: &str) -> Socket {
        let channels = format!("{prefix}*");
        let url = format!("{}?token={}", self.url(), self.reader(&[&channels]));
        let (mut socket, _) = Socket::open(make, &Opening::new(url).compressed(compression));
        let agreed = socket.opened["extensions"].as_str().unwrap_or_default();
        assert_eq!(agreed.starts_with("permessage-deflate"), compression, "{agreed}");
        let token = self.publisher(&[&channels]);
        socket.done(serde_json::json!({"type": "refresh", "token": token}));
        socket
    }

    /// Publishes by HTTP; returns its id.
    #[track_caller]
    pub fn publish(&self, channel: &str, message: &Value) -> String {
        let request = post(format!("/publish/{ORG}/{channel}")).bearer(&self.publisher(&[channel]));
        request.json(message).send(&self.address).good().to_owned()
    }

    /// Publishes a DELTA with this value by HTTP; returns its id.
    #[track_caller]
    pub fn delta(&self, channel: &str, value: impl Into<Value>) -> String {
        let value: Value = value.into();
        let payload = serde_json::json!({"value": value});
        self.publish(channel, &serde_json::json!({"phase": "PHASE_DELTA", "payload": payload}))
    }

    /// `GET /channels/{org}/{channel}` and what follows.
    pub fn channel(&self, channel: &str, rest: &str) -> Response {
        let request = get(format!("/channels/{ORG}/{channel}{rest}"));
        request.bearer(&self.reader(&[channel])).send(&self.address)
    }

    /// Ids and data of a channel's history, up to 1000.
    #[track_caller]
    pub fn history(&self, channel: &str) -> Vec<(String, Value)> {
        let page = self.channel(channel, "?limit=1000").json();
        assert!(page["gap"].is_null(), "{page}");
        let event =
            |event: &Value| (event["id"].as_str().unwrap().to_owned(), event["data"].clone());
        page["events"].as_array().unwrap().iter().map(event).collect()
    }
}

/// Waits until a handler says that the edge has it.
fn is_linked(handler: &Process) {
    eventually("it is linked", || handler.line().contains("link to an edge").then_some(()));
}

/// The base spec of the edge.
fn spec(dir: &Path) -> String {
    format!("ipc://{}", dir.join("edge").display())
}

/// A certificate for the loopback, signed by itself.
fn make_certificate(dir: &Path) {
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
    command.args(["-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]);
    command.args(["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "edge.key"]);
    Process::run(command.args(["-out", "edge.crt"]).current_dir(dir)).good();
}
