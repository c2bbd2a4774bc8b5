//! What is set on fire: the edge, two handlers, the store and what lies between, each a process of its own. With the embedded
//! store it is one process, `forebay up`, which is the edge here.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use forebay_handlers::auth::{DevKeys, Grant, Minter, Role};
use tempfile::TempDir;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};

use super::disk::Disk;
use super::hosts::{EDGE_ADDRESS, Host, Hosts};
use super::peers::Peers;
use super::store::{Nodes, Shared, StoreKind, shared};
use super::{Fire, HISTORY_MAX};
use crate::cluster::ORG;
use crate::connection::{Address, Connection};
use crate::port::Reservation;
use crate::process::Process;
use crate::scenario::Ended;
use crate::subscriber::EdgeLives;
use crate::{ChaosError, PATIENCE, PROBE_INTERVAL};

/// Unsent bytes at which the edge lets a client fall behind: little, so that slow clients are behind for sure.
const CLIENT_BACKLOG_BYTES_MAX: usize = 16 * 1024;

/// How long tokens last, in seconds: longer than any run.
const TOKEN_TTL_S: u64 = 24 * 3600;

/// The first of the edge's three ports on a wire; nobody else is there.
const WIRE_PORT: u16 = 5560;

/// How long a channel is kept without events: longer than any run.
const IDLE_TTL: &str = "7d";

const HANDLER_NAMES: [&str; 2] = ["a", "b"];

/// All processes.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) kind: StoreKind,
    /// Where quick clients and publishers connect, and slow ones.
    pub(crate) address: Address,
    pub(crate) slow_address: Address,
    pub(crate) edge: Shared,
    /// How often it was ended.
    pub(crate) lives: watch::Sender<EdgeLives>,
    pub(crate) handlers: Vec<Shared>,
    pub(crate) store: Nodes,
    /// `None` if there is no Python with pyzmq.
    pub(crate) peers: Option<Peers>,
    pub(crate) disk: Option<Arc<Mutex<Disk>>>,
    pub(crate) hosts: Hosts,
    /// What cannot be broken here, and why.
    pub(crate) left_out: Vec<String>,
    /// Keeps the port: with `SO_REUSEPORT` only who sets it too can bind it.
    _reservation: Reservation,
    keys: DevKeys,
    // Removed last, when the disk is no longer mounted in it.
    dir: TempDir,
}

impl System {
    /// Starts everything, and waits until a request goes through all of it.
    pub(crate) async fn start(fire: &Fire) -> Result<Self, ChaosError> {
        let dir = tempfile::Builder::new().prefix("fire-").tempdir().map_err(ChaosError::Setup)?;
        let data = dir.path().join("data");
        std::fs::create_dir_all(&data).map_err(ChaosError::Setup)?;
        let reservation = Reservation::new().map_err(ChaosError::Setup)?;
        let address = reservation.address;
        let mut left_out = Vec::new();
        let mut or_not =
            |what: &str, error: std::io::Error| left_out.push(format!("{what}: {error}"));
        let is_embedded = fire.store == StoreKind::Embedded;
        let hosts =
            if fire.wire && !is_embedded { Hosts::two(fire.seed) } else { Ok(Hosts::default()) };
        let hosts = hosts.map_err(|error| or_not("the wire", error)).unwrap_or_default();
        let disk = is_embedded.then(|| Disk::mount(&data));
        let disk = disk.and_then(|disk| disk.map_err(|error| or_not("the full disk", error)).ok());
        if fire.python.is_none() {
            left_out.push("peers: no Python with pyzmq".to_owned());
        }
        // Only now, as the disk would hide them.
        let keys = DevKeys::load_or_create(&data)?;
        let store = Nodes::start(fire, &hosts.handlers, dir.path()).await?;
        let spec = match (is_embedded, hosts.are_two()) {
            (true, _) => format!("ipc://{}", data.join("run/client").display()),
            (false, true) => format!("tcp://{EDGE_ADDRESS}:{WIRE_PORT}"),
            (false, false) => format!("ipc://{}", dir.path().join("client").display()),
        };
        let parts = Parts { fire, dir: dir.path(), data: &data, address, spec: &spec };
        let socket = dir.path().join("edge.sock");
        let tcp = (!hosts.are_two()).then_some(Address::Tcp(address));
        let (edge, handlers, slow_address) = if is_embedded {
            (parts.up(), Vec::new(), Address::Tcp(address))
        } else {
            let handlers =
                HANDLER_NAMES.map(|name| parts.handler(&hosts.handlers, name, &store.url));
            let edge = parts.edge(&hosts.edge, &socket, tcp.is_some());
            (edge, handlers.into(), Address::Unix(socket))
        };
        let host = hosts.handlers.clone();
        let peers = fire.python.clone().map(|python| Peers { python, host, spec });
        let system = System {
            kind: fire.store,
            address: tcp.unwrap_or_else(|| slow_address.clone()),
            slow_address,
            edge: shared(edge),
            lives: watch::Sender::new(EdgeLives::default()),
            handlers: handlers.into_iter().map(shared).collect(),
            store,
            peers,
            disk: disk.map(|disk| Arc::new(Mutex::new(disk))),
            hosts,
            left_out,
            _reservation: reservation,
            keys,
            dir,
        };
        for process in std::iter::once(&system.edge).chain(&system.handlers) {
            process.lock().await.start()?;
        }
        system.wait_until_healthy().await?;
        Ok(system)
    }

    /// Waits until the store can be reached through all of it.
    pub(crate) async fn wait_until_healthy(&self) -> Result<(), ChaosError> {
        let token = self.token(Role::Subscriber, &["*"])?;
        let request = format!(
            "GET /channels/{ORG}/health/head HTTP/1.1\r\nHost: chaos\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            let mut connection = Connection::to(self.address.clone());
            let answer = timeout(PATIENCE, connection.exchange(request.as_bytes())).await;
            if matches!(answer, Ok(Ok((head, _))) if head.status < 500) {
                return Ok(());
            }
            for process in std::iter::once(&self.edge).chain(&self.handlers) {
                let mut process = process.lock().await;
                if process.has_ended() {
                    return Err(ChaosError::NotReady(process.last_words()));
                }
            }
            sleep(PROBE_INTERVAL).await;
        }
        Err(ChaosError::NotReady(self.edge.lock().await.last_words()))
    }

    /// Publishes something into a channel that nobody reads, once. The status; `None` without an answer.
    pub(crate) async fn publish_probe(&self) -> Result<Option<u16>, ChaosError> {
        let token = self.token(Role::Publisher, &[])?;
        let body = r#"{"payload":{}}"#;
        let request = format!(
            "POST /publish/{ORG}/health HTTP/1.1\r\nHost: chaos\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut connection = Connection::to(self.address.clone());
        let answer = timeout(PATIENCE, connection.exchange(request.as_bytes())).await;
        Ok(answer.ok().and_then(Result::ok).map(|(head, _)| head.status))
    }

    /// A token for these channels.
    pub(crate) fn token(&self, role: Role, channels: &[&str]) -> Result<String, ChaosError> {
        let minter = Minter::new(self.keys.minter_config(role)).map_err(ChaosError::Key)?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_s = since_1970.as_secs();
        Ok(minter.mint(&Grant { org: Some(ORG), channels, ttl_s: TOKEN_TTL_S, now_s })?)
    }

    /// Where all files are.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends all processes in good order, clients' side first. What was not right.
    pub(crate) async fn stop(&self) -> Result<Vec<String>, ChaosError> {
        let mut wrong = Vec::new();
        let of_store = self.store.sentinels.iter();
        let of_store = of_store.chain(self.store.nodes.iter().map(|node| &node.process));
        for process in std::iter::once(&self.edge).chain(&self.handlers) {
            let mut process = process.lock().await;
            wrong.extend(process.end(Ended::Terminated).await?);
            wrong.extend(process.panics());
        }
        for process in of_store {
            process.lock().await.end(Ended::Killed).await?;
        }
        Ok(wrong)
    }

    /// Leaves the directory with the logs where it is.
    pub(crate) fn keep_files(self) -> PathBuf {
        self.dir.keep()
    }
}

/// What processes are made of.
struct Parts<'a> {
    fire: &'a Fire,
    dir: &'a Path,
    data: &'a Path,
    address: SocketAddr,
    /// The edge's sockets for handlers.
    spec: &'a str,
}

impl Parts<'_> {
    fn edge(&self, host: &Host, socket: &Path, is_on_tcp: bool) -> Process {
        let tcp = is_on_tcp.then(|| ["--listen".to_owned(), self.address.to_string()]);
        host.process("edge", &self.fire.forebay, self.dir)
            .args(["connmgr", "--zclient-stream", self.spec])
            .args(tcp.into_iter().flatten())
            .args(["--listen", &format!("{},local", socket.display())])
            .args(["--client-backlog-max", &CLIENT_BACKLOG_BYTES_MAX.to_string()])
    }

    fn handler(&self, host: &Host, name: &'static str, redis: &str) -> Process {
        let process = host.process(name, &self.fire.forebay, self.dir);
        let process = process
            .args(["handler", "--role", "publish,fanout,cleanup", "--id", name])
            .args(["--edge", self.spec, "--redis", redis])
            .args([Path::new("--data-dir"), self.data]);
        self.channels(process)
    }

    fn up(&self) -> Process {
        let process = Process::new("up", &self.fire.forebay, self.dir)
            .args(["up", "--fsync", "always", "--listen", &self.address.to_string()])
            .args([Path::new("--data-dir"), self.data]);
        self.channels(process)
    }

    fn channels(&self, process: Process) -> Process {
        process
            .args(["--channel-rate", &self.fire.channel_rate().to_string()])
            .args(["--history-max", &HISTORY_MAX.to_string()])
            .args(["--idle-ttl", IDLE_TTL, "--end-ttl", IDLE_TTL])
    }
}
