//! The system: Redis, one edge, two handlers of all roles, with the settings of the caller, and what
//! the operating system and Redis say of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay_handlers::auth::{DevKeys, Grant, MintKey, Minter, MinterConfig, Role, SecretText};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};

use crate::cluster::ORG;
use crate::connection::Connection;
use crate::port::Reservation;
use crate::process::Process;
use crate::scenario::Ended;
use crate::{ChaosError, PATIENCE};

/// How often a process that starts is asked whether it is there.
const PROBE_INTERVAL: Duration = Duration::from_millis(20);

/// How long tokens last, in seconds: longer than any run.
const TOKEN_TTL_S: u64 = 24 * 3600;

/// What the tokens of subscribers are for, and signed with. HS256, because in a build for tests a handler takes 15 ms to
/// check an Ed25519 signature: it would be what a crowd waits for, and with it all that is counted.
const SUBSCRIBERS: &str = "crowd";
const SUBSCRIBERS_SECRET: &str = "the-secret-of-a-crowd-that-comes-back-at-once";

/// Ticks in a second, as /proc counts processor time (`USER_HZ`, proc(5)): fixed in Linux' ABI.
const TICKS_PER_S: u64 = 100;

/// Bytes of a reply of `INFO`; a longer one is none of Redis'.
const INFO_BYTES_MAX: usize = 1 << 20;

/// What is run, and how.
#[derive(Clone, Debug)]
pub(crate) struct Settings<'a> {
    /// The binary of forebay.
    pub(crate) forebay: &'a Path,
    /// Further arguments of the edge.
    pub(crate) edge: Vec<String>,
    /// Further arguments of each handler.
    pub(crate) handlers: Vec<String>,
}

/// All processes.
#[derive(Debug)]
pub(crate) struct System {
    dir: TempDir,
    redis_socket: PathBuf,
    redis: Process,
    edge: Process,
    handlers: Vec<Process>,
    /// Where the edge listens.
    pub(crate) address: SocketAddr,
    /// Keeps the port free for the edge, which sets `SO_REUSEPORT` as this does.
    _reservation: Reservation,
    keys: DevKeys,
}

/// What processes take.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Load {
    /// Resident memory, in bytes.
    pub(crate) resident_bytes: u64,
    /// The most that it was, since the process began or [`System::forget_peaks`].
    pub(crate) peak_bytes: u64,
    /// Processor time since the process began.
    pub(crate) cpu: Duration,
}

impl System {
    /// Starts everything, and waits until a request goes through all of it.
    pub(crate) async fn start(settings: &Settings<'_>) -> Result<Self, ChaosError> {
        let dir = tempfile::Builder::new().prefix("crowd-").tempdir().map_err(ChaosError::Setup)?;
        let at = |name: &str| dir.path().join(name);
        let keys = DevKeys::load_or_create(&at("data"))?;
        let reservation = Reservation::new().map_err(ChaosError::Setup)?;
        let address = reservation.address;
        let spec = format!("ipc://{}", at("client").display());
        let redis_socket = at("redis.sock");
        let url = format!("redis+unix://{}", redis_socket.display());
        let handler = |name| {
            Process::new(name, settings.forebay, dir.path())
                .args(["handler", "--role", "publish,fanout,cleanup", "--id", name])
                .args(["--edge", &spec, "--redis", &url])
                .args([Path::new("--data-dir"), &at("data")])
                .args(["--gateway-jwt-issuer", SUBSCRIBERS, "--gateway-jwt-audience", SUBSCRIBERS])
                .args(["--gateway-jwt-secret", SUBSCRIBERS_SECRET])
                .args(&settings.handlers)
        };
        let mut system = System {
            redis: Process::new("redis", Path::new("redis-server"), dir.path())
                .args(["--port", "0", "--save", ""])
                .args(["--appendonly", "yes", "--appendfsync", "always"])
                .args([Path::new("--unixsocket"), &redis_socket, Path::new("--dir"), dir.path()]),
            redis_socket,
            edge: Process::new("edge", settings.forebay, dir.path())
                .args(["connmgr", "--zclient-stream", &spec, "--listen", &address.to_string()])
                .args(&settings.edge),
            handlers: vec![handler("a"), handler("b")],
            address,
            _reservation: reservation,
            keys,
            dir,
        };
        system.redis.start()?;
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(&system.redis_socket).await.is_err() {
            if system.redis.has_ended() || Instant::now() > deadline {
                return Err(ChaosError::NotReady(system.redis.last_words()));
            }
            sleep(PROBE_INTERVAL).await;
        }
        system.edge.start()?;
        for handler in &mut system.handlers {
            handler.start()?;
        }
        system.wait_until_healthy().await?;
        Ok(system)
    }

    async fn wait_until_healthy(&mut self) -> Result<(), ChaosError> {
        let request = b"GET /healthz HTTP/1.1\r\nHost: crowd\r\n\r\n";
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut connection = Connection::new(self.address);
            if matches!(connection.exchange(request).await, Ok((head, _)) if head.status == 200) {
                return Ok(());
            }
            for process in [&mut self.edge].into_iter().chain(&mut self.handlers) {
                if process.has_ended() {
                    return Err(ChaosError::NotReady(process.last_words()));
                }
            }
            if Instant::now() > deadline {
                return Err(ChaosError::NotReady(self.edge.last_words()));
            }
            sleep(PROBE_INTERVAL).await;
        }
    }

    /// A token for all channels.
    pub(crate) fn token(&self, role: Role) -> Result<String, ChaosError> {
        let config = match role {
            Role::Subscriber => MinterConfig {
                role,
                issuer: Some(SUBSCRIBERS.to_owned()),
                audience: Some(SUBSCRIBERS.to_owned()),
                key: MintKey::Secret(SecretText::from(SUBSCRIBERS_SECRET.to_owned())),
            },
            Role::Publisher => self.keys.minter_config(role),
        };
        let minter = Minter::new(config).map_err(ChaosError::Key)?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now_s = since_1970.as_secs();
        let channels: &[&str] = if role == Role::Subscriber { &["*"] } else { &[] };
        Ok(minter.mint(&Grant { org: Some(ORG), channels, ttl_s: TOKEN_TTL_S, now_s })?)
    }

    /// Kills the edge, and starts it again at once.
    pub(crate) async fn kill_edge(&mut self) -> Result<(), ChaosError> {
        self.edge.end(Ended::Killed).await?;
        self.edge.start()
    }

    /// Kills both handlers at once, and starts them again.
    pub(crate) async fn kill_handlers(&mut self) -> Result<(), ChaosError> {
        for handler in &mut self.handlers {
            handler.end(Ended::Killed).await?;
        }
        self.handlers.iter_mut().try_for_each(Process::start)
    }

    /// What the edge takes.
    pub(crate) fn edge_load(&self) -> Load {
        Load::of(&self.edge)
    }

    /// What the handlers take together.
    pub(crate) fn handlers_load(&self) -> Load {
        self.handlers.iter().map(Load::of).fold(Load::default(), |sum, one| Load {
            resident_bytes: sum.resident_bytes + one.resident_bytes,
            peak_bytes: sum.peak_bytes + one.peak_bytes,
            cpu: sum.cpu + one.cpu,
        })
    }

    /// From now on peaks are counted anew.
    pub(crate) fn forget_peaks(&self) {
        for pid in [&self.edge].into_iter().chain(&self.handlers).filter_map(Process::pid) {
            // proc(5): 5 resets the peak. Where that is not allowed the peak is that of the whole life.
            let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    /// How often Redis has executed which command, those within scripts too.
    pub(crate) async fn redis_calls(&self) -> Result<BTreeMap<String, u64>, ChaosError> {
        let ask = async {
            let mut stream = UnixStream::connect(&self.redis_socket).await?;
            stream.write_all(b"INFO commandstats\r\nQUIT\r\n").await?;
            let mut reply = Vec::new();
            stream.take(INFO_BYTES_MAX as u64).read_to_end(&mut reply).await?;
            Ok(reply)
        };
        let reply = ask.await.map_err(|source| ChaosError::Process { name: "redis", source })?;
        Ok(command_calls(&String::from_utf8_lossy(&reply)))
    }

    /// Ends all processes in good order, clients' side first. What was not right.
    pub(crate) async fn stop(&mut self) -> Result<Vec<String>, ChaosError> {
        let mut wrong = Vec::new();
        for process in [&mut self.edge].into_iter().chain(&mut self.handlers) {
            wrong.extend(process.end(Ended::Terminated).await?);
            wrong.extend(process.panics());
        }
        wrong.extend(self.redis.end(Ended::Terminated).await?);
        Ok(wrong)
    }

    /// Leaves the directory with the logs and Redis' files where it is.
    pub(crate) fn keep_files(self) -> PathBuf {
        self.dir.keep()
    }
}

impl Load {
    fn of(process: &Process) -> Self {
        let read = |what: &str| {
            let pid = process.pid().unwrap_or_default();
            std::fs::read_to_string(format!("/proc/{pid}/{what}")).unwrap_or_default()
        };
        let status = read("status");
        let kib = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse().ok()
        };
        let bytes = |name| kib(name).unwrap_or(0) * 1024;
        Load {
            resident_bytes: bytes("VmRSS:"),
            peak_bytes: bytes("VmHWM:"),
            cpu: cpu_time(&read("stat")).unwrap_or_default(),
        }
    }
}

/// User and system time, fields 14 and 15 of /proc/PID/stat. Field 2, in parentheses, may hold anything.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    let mut fields = behind_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis((user + system) * 1000 / TICKS_PER_S))
}

/// Lines like `cmdstat_evalsha:calls=17,usec=…`.
fn command_calls(info: &str) -> BTreeMap<String, u64> {
    let calls = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let digits = rest.split(',').next()?;
        Some((name.to_owned(), digits.parse().ok()?))
    };
    info.lines().filter_map(calls).collect()
}

/// What was called between two counts.
pub(crate) fn calls_between(
    before: &BTreeMap<String, u64>,
    after: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    let since = |(name, calls): (&String, &u64)| {
        let more = calls - before.get(name).copied().unwrap_or(0).min(*calls);
        (more > 0).then(|| (name.clone(), more))
    };
    after.iter().filter_map(since).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_the_system_are_read() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 3 0 99 1 1";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(3)));
        let info = "# Commandstats\r\ncmdstat_evalsha:calls=17,usec=9\r\ncmdstat_config|get:calls=2,usec=1\r\n";
        let calls = command_calls(info);
        assert_eq!((calls["evalsha"], calls["config|get"], calls.len()), (17, 2, 2));
        let before = BTreeMap::from([("evalsha".to_owned(), 10), ("config|get".to_owned(), 2)]);
        assert_eq!(calls_between(&before, &calls), BTreeMap::from([("evalsha".to_owned(), 7)]));
    }
}
