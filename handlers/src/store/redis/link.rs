//! The connection for commands: one for a process, multiplexed, and made again when it is lost.
//!
//! A task keeps the connection. Whoever wants to send a command takes the connection that is there,
//! or is told at once that there is none: while Redis is away nobody waits for a timeout, and
//! nothing piles up. The task tries again after 50 ms, and then less often, up to every 500 ms.
//!
//! A connection is lost when the server closes it (RESP3 tells us without being asked), when a
//! command finds it broken, and also when a command gets no answer in time: through a dead network
//! path nothing comes back, no error either, until the kernel gives up after a quarter of an hour.
//!
//! `redis::aio::ConnectionManager` was considered. It either makes callers wait while it tries
//! again, or, without retries, answers the first command after an outage with the error of the
//! outage, and tries as fast as commands come.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, PushInfo, PushKind};
use tokio::sync::{mpsc, watch};

use super::scripts::Scripts;
use crate::store::{OpenError, StoreError};

/// How long a command may take before it is given up and the connection with it.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Commands of a connection that wait to be written; past it callers wait, within their timeout.
const COMMANDS_WAITING_MAX: usize = 1024;

/// Reports of lost connections that wait for the task; each is about a connection, and one is
/// enough, so what doesn't fit may be dropped.
const REPORTS_WAITING_MAX: usize = 16;

/// The waiting time between attempts: doubled from `first` to `max` at each, and then shortened by
/// up to a half, by chance, so that the processes of a fleet don't come back in step.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) fn new(first: Duration, max: Duration) -> Self {
        Backoff { first, max, next: first }
    }

    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    pub(super) fn delay(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.max);
        // Without randomness (which no system we run on lacks) the whole delay is as good.
        let chance = getrandom::u32().map_or(1.0, |word| f64::from(word) / f64::from(u32::MAX));
        whole.mul_f64(0.5 + chance / 2.0)
    }
}

/// Checks the address, and prepares to connect to it with RESP3.
pub(super) fn client(url: &str) -> Result<Client, OpenError> {
    let address = |error: redis::RedisError| OpenError::Address(error.to_string());
    let info = redis::IntoConnectionInfo::into_connection_info(url).map_err(address)?;
    let settings = info.redis_settings().clone().set_protocol(redis::ProtocolVersion::RESP3);
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let info = info.set_redis_settings(settings).set_tcp_settings(tcp);
    Client::open(info).map_err(address)
}

/// Makes a connection. What the server says without being asked goes to `on_push`, also that the
/// connection was closed.
pub(super) async fn dial(
    client: &Client,
    on_push: impl Fn(PushInfo) + Send + Sync + 'static,
) -> Result<MultiplexedConnection, StoreError> {
    let on_push = move |push| -> Result<(), std::convert::Infallible> {
        on_push(push);
        Ok(())
    };
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(COMMAND_TIMEOUT))
        .set_pipeline_buffer_size(COMMANDS_WAITING_MAX)
        .set_push_sender(on_push);
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(failure)
}

/// What an error of the client or the server means to our callers.
#[allow(clippy::needless_pass_by_value)] // for map_err
pub(super) fn failure(error: redis::RedisError) -> StoreError {
    // `WRONGTYPE`, or a script that fails on what it finds: not ours, or not of this version.
    let not_ours = matches!(error.code(), Some("WRONGTYPE" | "ERR"));
    let text = format!("Redis: {error}");
    if not_ours { StoreError::Corrupt(text) } else { StoreError::Unavailable(text) }
}

#[derive(Clone)]
enum State {
    Up(Live),
    Down(Arc<str>),
}

/// A connection that worked a moment ago.
#[derive(Clone)]
pub(super) struct Live {
    number: u64,
    pub(super) connection: MultiplexedConnection,
}

/// The connection that is kept. Clones are of the same one; it is closed with the last.
#[derive(Clone)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    lost: mpsc::Sender<u64>,
}

impl Link {
    /// Begins to keep a connection; waits for the first attempt, whether it succeeds or not.
    pub(super) async fn open(client: Client, scripts: Arc<Scripts>) -> Link {
        let (states, mut state) = watch::channel(State::Down("not connected yet".into()));
        let (lost, reports) = mpsc::channel(REPORTS_WAITING_MAX);
        let keeper = Keeper { client, scripts, states, lost: lost.clone(), reports };
        tokio::spawn(keeper.run());
        // An error would mean that the keeper is gone, which the first command finds out too.
        let _ = state.changed().await;
        Link { state, lost }
    }

    /// The connection, if there is one.
    pub(super) fn live(&self) -> Result<Live, StoreError> {
        match &*self.state.borrow() {
            State::Up(live) => Ok(live.clone()),
            State::Down(why) => Err(StoreError::Unavailable(why.to_string())),
        }
    }

    /// Says that a connection failed with an error; a new one is made if the error is of that kind.
    pub(super) fn failed(&self, live: &Live, error: &redis::RedisError) {
        if error.is_io_error() || error.is_unrecoverable_error() {
            // If the queue is full the keeper has enough to read.
            let _ = self.lost.try_send(live.number);
        }
    }
}

/// The task behind a [`Link`].
struct Keeper {
    client: Client,
    scripts: Arc<Scripts>,
    states: watch::Sender<State>,
    lost: mpsc::Sender<u64>,
    reports: mpsc::Receiver<u64>,
}

impl Keeper {
    const BACKOFF_FIRST: Duration = Duration::from_millis(50);
    const BACKOFF_MAX: Duration = Duration::from_millis(500);

    async fn run(mut self) {
        let mut backoff = Backoff::new(Self::BACKOFF_FIRST, Self::BACKOFF_MAX);
        let mut number = 0;
        loop {
            number += 1;
            match self.connect(number).await {
                Ok(connection) => {
                    backoff.reset();
                    self.states.send_replace(State::Up(Live { number, connection }));
                    if self.wait_for_loss(number).await.is_none() {
                        return;
                    }
                    tracing::warn!("the connection to Redis is lost");
                    let why = "Redis: the connection is lost".into();
                    self.states.send_replace(State::Down(why));
                }
                Err(error) => {
                    tracing::debug!(%error, "no connection to Redis");
                    let why = format!("not connected: {error}").into();
                    self.states.send_replace(State::Down(why));
                    tokio::select! {
                        () = tokio::time::sleep(backoff.delay()) => {}
                        () = self.states.closed() => return,
                    }
                }
            }
        }
    }

    async fn connect(&self, number: u64) -> Result<MultiplexedConnection, StoreError> {
        let lost = self.lost.clone();
        let mut connection = dial(&self.client, move |push| {
            if push.kind == PushKind::Disconnection {
                let _ = lost.try_send(number);
            }
        })
        .await?;
        self.scripts.load().exec_async(&mut connection).await.map_err(failure)?;
        Ok(connection)
    }

    /// Returns when that connection is reported lost; `None` when nobody needs one any more.
    async fn wait_for_loss(&mut self, number: u64) -> Option<()> {
        loop {
            tokio::select! {
                report = self.reports.recv() => {
                    if report? == number {
                        return Some(());
                    }
                }
                () = self.states.closed() => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_within_its_bounds() {
        let (first, max) = (Duration::from_millis(100), Duration::from_millis(500));
        let mut backoff = Backoff::new(first, max);
        for whole_ms in [100, 200, 400, 500, 500] {
            let whole = Duration::from_millis(whole_ms);
            let delay = backoff.delay();
            assert!(whole / 2 <= delay && delay <= whole, "{delay:?} of {whole:?}");
        }
        backoff.reset();
        assert!(backoff.delay() <= first);
    }

    #[test]
    fn addresses_are_checked() {
        for good in ["redis://127.0.0.1:6379", "redis://:secret@host/2", "unix:///run/redis.sock"] {
            assert!(client(good).is_ok(), "{good}");
        }
        for bad in ["", "127.0.0.1:6379", "http://host", "redis://host:port"] {
            assert!(matches!(client(bad), Err(OpenError::Address(_))), "{bad}");
        }
    }
}
