//! What the examples run behind: our edge or Debian's `condure`, started alike.
//!
//! Condure cannot be told to take any free port, so it is given one that was free a moment ago, and another one if
//! somebody was quicker.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};

use crate::peers::within;
use crate::process::EdgeProcess;

/// How often Condure is started anew because its port is taken.
const ATTEMPTS_MAX: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Forebay,
    Condure,
}

/// What the listener of an edge is, and with it the sockets of its handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Stream,
    Req,
}

/// A running edge, named `edge`. Killed when dropped.
pub struct Edge {
    process: Process,
    /// Where clients connect.
    pub address: SocketAddr,
    /// What `--spec` is to be for a program behind it.
    pub spec: String,
}

enum Process {
    Forebay(#[allow(dead_code, reason = "killed when dropped")] EdgeProcess),
    Condure(#[allow(dead_code, reason = "killed when dropped")] CondureProcess),
}

struct CondureProcess {
    _child: Child,
    address: SocketAddr,
    dir: TempDir,
    /// It has failed an assertion of its own, and with that aborts.
    has_panicked: Arc<AtomicBool>,
}

impl Edge {
    /// Starts an edge; `None`, and a note, where Condure is to be started and is not installed.
    pub async fn start(kind: Kind, mode: Mode) -> Option<Edge> {
        match kind {
            Kind::Forebay => Some(Edge::forebay(mode).await),
            Kind::Condure => {
                let edge = Edge::condure(mode).await;
                if edge.is_none() {
                    // Not by println, which is shown only when a test fails.
                    let note = b"a test with condure is passed over: apt-get install condure\n";
                    std::io::stderr().write_all(note).unwrap();
                }
                edge
            }
        }
    }

    async fn forebay(mode: Mode) -> Edge {
        let options: &[&str] = match mode {
            Mode::Stream => &[],
            Mode::Req => &["--listen=127.0.0.1:0,req", "--zclient-req=ipc://req"],
        };
        let edge = EdgeProcess::start(options).await;
        let (address, spec) = (edge.address, edge.spec(spec_name(mode)));
        Edge { process: Process::Forebay(edge), address, spec }
    }

    async fn condure(mode: Mode) -> Option<Edge> {
        for _ in 0..ATTEMPTS_MAX {
            match CondureProcess::start(mode).await {
                Ok(Some(condure)) => {
                    let address = condure.address;
                    let spec =
                        format!("ipc://{}/{}", condure.dir.path().display(), spec_name(mode));
                    return Some(Edge { process: Process::Condure(condure), address, spec });
                }
                Ok(None) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => return None,
                Err(error) => panic!("cannot start condure: {error}"),
            }
        }
        panic!("condure finds no free port");
    }

    /// Becomes true when Condure dies of a fault of its own. (1.9.1 does now and then when a session ends while a packet
    /// for it is under way.) What a test saw then says nothing.
    pub fn panicked(&self) -> Arc<AtomicBool> {
        match &self.process {
            Process::Forebay(_) => Arc::default(),
            Process::Condure(condure) => Arc::clone(&condure.has_panicked),
        }
    }

    /// Ends it at once, without a word to anyone.
    pub fn kill(self) {
        drop(self.process);
    }
}

impl CondureProcess {
    /// Starts it, and waits until it serves; `None` if it ends first.
    async fn start(mode: Mode) -> std::io::Result<Option<CondureProcess>> {
        let dir = tempfile::tempdir()?;
        let address = free_address()?;
        let listen = match mode {
            Mode::Stream => format!("{address},stream"),
            Mode::Req => format!("{address},req"),
        };
        let mut child = Command::new("condure")
            .args(["--id=edge", "--zclient-stream=ipc://zhttp", "--zclient-req=ipc://req"])
            .args(["--listen", &listen])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let has_panicked = watch_for_panics(child.stderr.take().unwrap());
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        while let Some(line) = within(lines.next_line()).await? {
            if line.ends_with("started") {
                // It must never wait for somebody to read its log.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(Some(CondureProcess { _child: child, address, dir, has_panicked }));
            }
        }
        Ok(None)
    }
}

fn watch_for_panics(stderr: ChildStderr) -> Arc<AtomicBool> {
    let has_panicked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&has_panicked);
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains("panicked") {
                seen.store(true, Ordering::Release);
            }
        }
    });
    has_panicked
}

fn spec_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Stream => "zhttp",
        Mode::Req => "req",
    }
}

fn free_address() -> std::io::Result<SocketAddr> {
    std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
