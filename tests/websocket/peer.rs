//! WebSocket clients of three makes, each driven alike: Python's `websockets`, npm's `ws`, and tokio-tungstenite.
//!
//! A peer is a program that reads commands, a JSON object a line, and says what happens in the same way; the third is a
//! thread with channels in the place of lines. It has one connection at a time.
//!
//! | command | |
//! | --- | --- |
//! | `{"do":"open","url":…,"headers":{…},"protocols":[…],"compression":…,"ca":…,"tls":…}` | connects; `ca` is a file, `tls` a version |
//! | `{"do":"text","text":…}`, `{"do":"binary","hex":…}` | sends a message |
//! | `{"do":"ping","hex":…}` | sends a ping |
//! | `{"do":"close","code":…,"reason":…}` | begins to close |
//!
//! | what happens | |
//! | --- | --- |
//! | `{"opened":{"protocol":…,"extensions":…,"tls":…}}` | it is connected |
//! | `{"refused":{"status":…,"body":…}}` | it was answered without an upgrade |
//! | `{"failed":…}` | there was no answer |
//! | `{"text":…}`, `{"binary":…}`, `{"pong":…}` | that came |
//! | `{"closed":{"code":…,"reason":…}}` | a close came, and the connection is over; `null` if none came |

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use super::tungstenite::Tungstenite;
use crate::support::Process;

/// Who made the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Make {
    /// Python's.
    Websockets,
    /// npm's.
    Ws,
    /// Knows no compression.
    Tungstenite,
}

impl Make {
    pub const ALL: [Make; 3] = [Make::Websockets, Make::Ws, Make::Tungstenite];

    /// Whether it can be run here. npm's need not be.
    pub fn is_installed(self) -> bool {
        match self {
            Make::Websockets | Make::Tungstenite => true,
            Make::Ws => modules().join("ws").exists(),
        }
    }
}

/// A client.
pub enum Peer {
    Program(Process),
    Thread(Tungstenite),
}

impl Peer {
    pub fn start(make: Make) -> Peer {
        match make {
            Make::Websockets => {
                let mut command = Command::new(python());
                Peer::Program(Process::spawn(command.arg(source("websockets_peer.py"))))
            }
            Make::Ws => {
                let mut command = Command::new("node");
                command.arg(source("ws_peer.cjs")).env("NODE_PATH", modules());
                Peer::Program(Process::spawn(&mut command))
            }
            Make::Tungstenite => Peer::Thread(Tungstenite::start()),
        }
    }

    /// Gives a command.
    pub fn tell(&mut self, command: &Value) {
        match self {
            Peer::Program(process) => process.write(&format!("{command}\n")),
            Peer::Thread(thread) => thread.tell(command.clone()),
        }
    }

    /// The next thing that happens.
    #[track_caller]
    pub fn hear(&mut self) -> Value {
        match self {
            Peer::Program(process) => serde_json::from_str(&process.line()).unwrap(),
            Peer::Thread(thread) => thread.hear(),
        }
    }

    /// The next thing, if it has happened already.
    pub fn heard_now(&mut self) -> Option<Value> {
        match self {
            Peer::Program(process) => {
                process.line_now().map(|line| serde_json::from_str(&line).unwrap())
            }
            Peer::Thread(thread) => thread.heard_now(),
        }
    }
}

/// The Python that `scripts/venv` makes, or the one that `FOREBAY_TEST_PYTHON` names.
fn python() -> PathBuf {
    let made = || Path::new(env!("CARGO_MANIFEST_DIR")).join(".venv/bin/python");
    std::env::var_os("FOREBAY_TEST_PYTHON").map_or_else(made, PathBuf::from)
}

/// Where `scripts/npm` installs.
fn modules() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("../npm/node_modules")
}

fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/websocket/peers").join(name)
}

/// A connection that is asked for.
#[derive(Clone, Debug)]
pub struct Opening {
    command: Value,
}

impl Opening {
    pub fn new(url: impl Into<String>) -> Opening {
        let url: String = url.into();
        let command = json!({
            "do": "open", "url": url, "headers": {}, "protocols": [], "compression": false,
            "ca": null, "tls": null
        });
        Opening { command }
    }

    pub fn header(mut self, name: &str, value: impl Into<String>) -> Opening {
        self.command["headers"][name] = Value::String(value.into());
        self
    }

    /// Offers a sub-protocol.
    pub fn protocol(mut self, name: impl Into<String>) -> Opening {
        let protocols = self.command["protocols"].as_array_mut().unwrap();
        protocols.push(Value::String(name.into()));
        self
    }

    /// Offers permessage-deflate, or not.
    pub fn compressed(mut self, compression: bool) -> Opening {
        self.command["compression"] = compression.into();
        self
    }

    /// Trusts a certificate, or who is trusted by the system.
    pub fn trusting(mut self, certificate: Option<&Path>) -> Opening {
        self.command["ca"] = json!(certificate.map(|path| path.to_str().unwrap()));
        self
    }

    /// Takes this version of TLS only.
    pub fn tls(mut self, version: &str) -> Opening {
        self.command["tls"] = version.into();
        self
    }

    pub fn command(&self) -> &Value {
        &self.command
    }
}
