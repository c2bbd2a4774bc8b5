//! The system under test: Redis, one edge and two handlers of all roles, each a process of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use forebay_handlers::auth::{DevKeys, Grant, Minter, Role};
use tempfile::TempDir;

use crate::connection::Connection;
use crate::port::Reservation;
use crate::process::Process;
use crate::scenario::{Ended, HANDLERS, Scenario};
use crate::{ChaosError, PATIENCE};

/// The org of all channels.
pub(crate) const ORG: &str = "1";

/// How often a process that starts is asked whether it is there.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// Unsent bytes at which the edge lets a client fall behind. Less than the default, so that clients
/// that do not read for some seconds are behind for sure.
const CLIENT_BACKLOG_BYTES_MAX: usize = 16 * 1024;

/// How long tokens last, in seconds: longer than any run.
const TOKEN_TTL_S: u64 = 24 * 3600;

const HANDLER_NAMES: [&str; HANDLERS] = ["a", "b"];

/// All processes.
#[derive(Debug)]
pub(crate) struct Cluster {
    dir: TempDir,
    redis_socket: PathBuf,
    redis: Process,
    edge: Process,
    pub(crate) handlers: Vec<Process>,
    /// Where the edge listens.
    pub(crate) address: SocketAddr,
    /// Where it listens as well.
    pub(crate) edge_socket: PathBuf,
    _reservation: Reservation,
    keys: DevKeys,
}

impl Cluster {
    /// Starts everything, and waits until a request goes through all of it.
    pub(crate) async fn start(scenario: &Scenario) -> Result<Self, ChaosError> {
        let dir = tempfile::Builder::new().prefix("chaos-").tempdir().map_err(ChaosError::Setup)?;
        let at = |name: &str| dir.path().join(name);
        let keys = DevKeys::load_or_create(&at("data"))?;
        let reservation = Reservation::new().map_err(ChaosError::Setup)?;
        let address = reservation.address;
        let spec = format!("ipc://{}", at("client").display());
        let (redis_socket, edge_socket) = (at("redis.sock"), at("edge.sock"));
        let handlers = HANDLER_NAMES.map(|name| {
            let url = format!("redis+unix://{}", redis_socket.display());
            Process::new(name, &scenario.forebay, dir.path())
                .args(["handler", "--role", "publish,fanout,cleanup", "--id", name])
                .args(["--edge", &spec, "--redis", &url])
                .args(["--channel-rate", &scenario.channel_rate().to_string()])
                .args([Path::new("--data-dir"), &at("data")])
        });
        let mut cluster = Cluster {
            redis: redis(&redis_socket, dir.path()),
            redis_socket,
            edge: Process::new("edge", &scenario.forebay, dir.path())
                .args(["connmgr", "--zclient-stream", &spec])
                .args(["--listen", &address.to_string()])
                .args(["--listen", &format!("{},local", edge_socket.display())])
                .args(["--client-backlog-max", &CLIENT_BACKLOG_BYTES_MAX.to_string()]),
            handlers: handlers.into(),
            address,
            edge_socket,
            _reservation: reservation,
            keys,
            dir,
        };
        cluster.start_store().await?;
        cluster.edge.start()?;
        for handler in &mut cluster.handlers {
            handler.start()?;
        }
        cluster.wait_until_healthy().await?;
        Ok(cluster)
    }

    /// Starts Redis, and waits until it takes connections.
    pub(crate) async fn start_store(&mut self) -> Result<(), ChaosError> {
        self.redis.start()?;
        let deadline = Instant::now() + PATIENCE;
        while tokio::net::UnixStream::connect(&self.redis_socket).await.is_err() {
            if self.redis.has_ended() || Instant::now() > deadline {
                return Err(ChaosError::NotReady(self.redis.last_words()));
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
        Ok(())
    }

    /// Ends Redis in good order, so that its append-only file is whole.
    pub(crate) async fn stop_store(&mut self) -> Result<Option<String>, ChaosError> {
        self.redis.end(Ended::Terminated).await
    }

    async fn wait_until_healthy(&mut self) -> Result<(), ChaosError> {
        let request = b"GET /healthz HTTP/1.1\r\nHost: chaos\r\n\r\n";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut connection = Connection::new(self.address);
            if matches!(connection.exchange(request).await, Ok((head, _)) if head.status == 200) {
                return Ok(());
            }
            if let Some(ended) = self
                .processes()
                .find_map(|process| process.has_ended().then(|| process.last_words()))
            {
                return Err(ChaosError::NotReady(ended));
            }
            if Instant::now() > deadline {
                return Err(ChaosError::NotReady(self.edge.last_words()));
            }
            tokio::time::sleep(PROBE_INTERVAL).await;
        }
    }

    /// A token for these channels.
    pub(crate) fn token(&self, role: Role, channels: &[&str]) -> Result<String, ChaosError> {
        let minter = Minter::new(self.keys.minter_config(role)).map_err(ChaosError::Key)?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_s = since_1970.as_secs();
        Ok(minter.mint(&Grant { org: Some(ORG), channels, ttl_s: TOKEN_TTL_S, now_s })?)
    }

    /// Where Redis is, for us.
    pub(crate) fn redis_url(&self) -> String {
        format!("redis+unix://{}", self.redis_socket.display())
    }

    /// Resident memory of the edge, in bytes.
    pub(crate) fn edge_resident_bytes(&self) -> u64 {
        self.edge.resident_bytes()
    }

    /// Ends all processes in good order, clients' side first. What was not right.
    pub(crate) async fn stop(&mut self) -> Result<Vec<String>, ChaosError> {
        let mut wrong = Vec::new();
        for process in [&mut self.edge].into_iter().chain(&mut self.handlers) {
            wrong.extend(process.end(Ended::Terminated).await?);
        }
        wrong.extend(self.redis.end(Ended::Terminated).await?);
        wrong.extend(self.processes().flat_map(|process| process.panics()));
        Ok(wrong)
    }

    /// Leaves the directory with the logs and Redis' files where it is.
    pub(crate) fn keep_files(self) -> PathBuf {
        self.dir.keep()
    }

    fn processes(&mut self) -> impl Iterator<Item = &mut Process> {
        [&mut self.redis, &mut self.edge].into_iter().chain(&mut self.handlers)
    }
}

/// A Redis whose acknowledged writes are on the disk.
fn redis(socket: &Path, dir: &Path) -> Process {
    Process::new("redis", Path::new("redis-server"), dir)
        .args(["--port", "0", "--save", "", "--appendonly", "yes", "--appendfsync", "always"])
        .args([Path::new("--unixsocket"), socket, Path::new("--dir"), dir])
}
