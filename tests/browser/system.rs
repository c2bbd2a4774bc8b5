//! What the page is opened against: Redis, two handlers of all roles, and two edges, each a process of its own.
//!
//! The page is at the front edge. What the tests publish goes through the one at the side, so that there are events to
//! miss while the front edge is away.

use std::path::Path;
use std::process::Command;

use forebay_handlers::auth::Role;
use serde_json::{Value, json};

use crate::support::process::{Process, forebay};
use crate::support::up::{DataDir, ORG, ReservedPort, reserved_port};
use crate::support::{Response, eventually, get, post};

/// The names of the handlers.
const HANDLERS: [&str; 2] = ["a", "b"];

pub struct System {
    pub dir: DataDir,
    _redis: Process,
    handlers: Vec<Process>,
    handler_options: Vec<String>,
    front: Edge,
    side: Edge,
}

/// An edge that can be started again at the same port.
struct Edge {
    name: &'static str,
    port: ReservedPort,
    process: Process,
}

impl Edge {
    fn start(name: &'static str, dir: &Path) -> Edge {
        let port = reserved_port();
        let process = Process::spawn(&mut Edge::command(name, dir, port.address()));
        Edge { name, port, process }
    }

    fn command(name: &str, dir: &Path, address: &str) -> Command {
        let mut command = forebay();
        command.args(["connmgr", "--listen", address, "--zclient-stream", &spec(name, dir)]);
        // So long it waits for somebody who answers; no test waits for the usual time.
        command.env("FOREBAY_HANDLER_WAIT", "0.1");
        command
    }
}

/// The base spec of an edge.
fn spec(name: &str, dir: &Path) -> String {
    format!("ipc://{}", dir.join(name).display())
}

impl System {
    /// Starts everything, and waits until requests go through both edges; handlers have these options besides the usual.
    pub fn start(handler_options: &[&str]) -> System {
        let dir = DataDir::new();
        let redis = Process::redis(dir.path(), &[]);
        let (front, side) = (Edge::start("front", dir.path()), Edge::start("side", dir.path()));
        let handler_options = handler_options.iter().map(|&option| option.to_owned()).collect();
        let mut system =
            System { dir, _redis: redis, handlers: Vec::new(), handler_options, front, side };
        system.start_handlers();
        system.wait_until_ready();
        system
    }

    fn handler(&self, name: &str) -> Process {
        let mut command = forebay();
        command.args(["handler", "--role", "publish,fanout,cleanup", "--id", name]);
        for edge in [&self.front, &self.side] {
            command.args(["--edge", &spec(edge.name, self.dir.path())]);
        }
        let redis = format!("redis+unix://{}", self.dir.join("redis.sock").display());
        command.args(["--redis", &redis, "--channel-rate=0", "--data-dir"]).arg(self.dir.path());
        Process::spawn(command.args(&self.handler_options))
    }

    /// Waits until both edges have somebody who answers.
    fn wait_until_ready(&self) {
        for edge in [&self.front, &self.side] {
            eventually("somebody answers", || {
                let response = get("/readyz").try_send(edge.port.address()).ok()?;
                (response.status() == 200).then_some(())
            });
        }
    }

    /// SIGKILL for the handler of that number, and another one of the same name in its place.
    pub fn kill_handler(&mut self, number: usize) {
        self.handlers[number].kill();
        self.handlers[number] = self.handler(HANDLERS[number]);
    }

    /// SIGKILL for all handlers.
    pub fn kill_handlers(&mut self) {
        self.handlers.clear();
    }

    /// New ones in the place of all.
    pub fn start_handlers(&mut self) {
        self.handlers = HANDLERS.iter().map(|name| self.handler(name)).collect();
    }

    /// SIGKILL for the edge of the page.
    pub fn kill_front(&mut self) {
        self.front.process.kill();
    }

    /// SIGTERM for it, which tells its clients, and waits for its end.
    pub fn stop_front(&mut self) {
        self.front.process.signal("TERM");
        eventually("the edge ends", || (!self.front.process.is_running()).then_some(()));
    }

    /// Starts it again: same port, same sockets for handlers.
    pub fn start_front(&mut self) {
        let address = self.front.port.address();
        let mut command = Edge::command(self.front.name, self.dir.path(), address);
        self.front.process = Process::spawn(&mut command);
    }

    /// Publishes through the side edge, again while nobody could do it; returns its id.
    pub fn publish(&self, channel: &str, message: &Value) -> String {
        let token = self.dir.token(Role::Publisher, ORG, &[channel]);
        let mut message = message.clone();
        message["message_id"] = json!(uuid::Uuid::new_v4().to_string());
        let request = post(format!("/publish/{ORG}/{channel}")).bearer(&token).json(&message);
        let response: Response = eventually("it is stored", || {
            let response = request.try_send(self.side.port.address()).ok()?;
            (!matches!(response.status(), 502 | 503)).then_some(response)
        });
        response.good().to_owned()
    }

    /// Publishes a DELTA with this text; returns its id.
    pub fn delta(&self, channel: &str, text: &str) -> String {
        self.publish(channel, &json!({"phase": "PHASE_DELTA", "payload": {"value": text}}))
    }

    /// Publishes an END; returns its id.
    pub fn end(&self, channel: &str) -> String {
        self.publish(channel, &json!({"phase": "PHASE_END"}))
    }

    /// A link that starts the page, which is a file, and reads these channels.
    pub fn link(&self, transport: &str, channels: &[&str]) -> String {
        let token = self.dir.token(Role::Subscriber, ORG, channels);
        self.link_with(&token, transport, channels)
    }

    /// The same, with this token of a reader.
    pub fn link_with(&self, token: &str, transport: &str, channels: &[&str]) -> String {
        let publish_token = self.dir.token(Role::Publisher, ORG, channels);
        link(self.front.port.address(), [token, &publish_token], transport, channels)
    }
}

/// A link that starts the page at any edge, with the tokens of a reader and of a publisher.
pub fn link(
    address: &str,
    [token, publish_token]: [&str; 2],
    transport: &str,
    channels: &[&str],
) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/web/index.html");
    let names: Vec<_> = channels.iter().map(|name| format!("channel={name}")).collect();
    format!(
        "file://{}#edge=http://{address}&org={ORG}&{}&token={token}&publish_token={publish_token}&transport={transport}",
        page.display(),
        names.join("&"),
    )
}
