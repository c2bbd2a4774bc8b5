//! Drives `peer.py`: a real libzmq peer in a process of its own, that a test can ask, stop and
//! kill.
//!
//! Calls are asynchronous, because the sockets under test run on the same thread as the test.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by several test files, each of which uses a part"
)]

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// Nothing in these tests takes longer, on however slow a machine. Passing it is a failure, not a
/// way to wait.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The Python that has pyzmq: the one that `scripts/venv` makes, or the one that `FOREBAY_TEST_PYTHON`
/// names.
pub fn python() -> PathBuf {
    let made = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python");
    std::env::var_os("FOREBAY_TEST_PYTHON").map_or_else(made, PathBuf::from)
}

/// A process with ZeroMQ sockets. Killed when dropped.
pub struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Peer {
    pub fn start() -> Peer {
        let python = python();
        let mut child = Command::new(&python)
            // Also used by the tests of `handlers`, whose folder is another one.
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../connmgr/tests/peers/peer.py"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| {
                panic!("cannot start {}: {error}; scripts/venv makes it", python.display())
            });
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        Peer { child, stdin, stdout }
    }

    /// A process with one socket, named `s`.
    pub async fn with(arguments: Value) -> Peer {
        let mut peer = Peer::start();
        peer.open("s", arguments).await;
        peer
    }

    /// Gives a command without waiting for its answer.
    pub async fn tell(&mut self, command: Value) {
        self.stdin.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        self.stdin.flush().await.unwrap();
    }

    /// Waits for the answer of the oldest command that has not been answered.
    pub async fn answer(&mut self) -> Value {
        let line = within(self.stdout.next_line()).await.unwrap().expect("the peer has ended");
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer.get("error").is_none(), "{answer}");
        answer
    }

    pub async fn ask(&mut self, command: Value) -> Value {
        self.tell(command).await;
        self.answer().await
    }

    pub async fn open(&mut self, name: &str, mut arguments: Value) {
        arguments["do"] = json!("open");
        arguments["name"] = json!(name);
        self.ask(arguments).await;
    }

    /// Sends one message from the socket `s`.
    pub async fn send(&mut self, frames: &[&[u8]]) {
        let frames: Vec<String> = frames.iter().map(|frame| hex(frame)).collect();
        self.ask(json!({"do": "send", "name": "s", "frames": frames})).await;
    }

    /// Receives one message on the socket `s`.
    pub async fn recv(&mut self) -> Vec<Vec<u8>> {
        let answer = self.ask(json!({"do": "recv", "name": "s"})).await;
        let message = answer["messages"][0].as_array().expect("no message came");
        message.iter().map(|frame| unhex(frame.as_str().unwrap())).collect()
    }

    /// Sends a signal with kill(1).
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("the peer has ended").to_string();
        assert!(
            std::process::Command::new("kill").args([signal, &pid]).status().unwrap().success()
        );
    }

    /// SIGKILL, and waits until the process is gone.
    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Awaits something that must happen.
#[track_caller]
pub fn within<F: Future>(future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(output) => output,
            Err(_) => panic!("what is awaited at {caller} does not happen"),
        }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}
