//! Making one connection to one server, and what its errors mean.
//!
//! Everything that talks to Redis comes through here, so that the limits are the same everywhere: a
//! connection speaks RESP3, in which a server says by itself that it closes, and each command has a
//! time limit, since through a dead network path nothing comes back, no error either, until the
//! kernel gives up after a quarter of an hour.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, PushInfo, ServerErrorKind};

use crate::store::StoreError;

/// How long a command may take before it is given up and the connection with it.
pub(super) const COMMAND_TIMEOUT: Duration = Duration::from_secs(2);

/// How long making a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Commands of a connection that wait to be written; past it callers wait, within their timeout.
const COMMANDS_WAITING_MAX: usize = 1024;

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

/// Makes a connection. What the server says without being asked goes to `on_push`, also that the
/// connection was closed.
pub(super) async fn dial(
    info: &ConnectionInfo,
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
    let client = Client::open(info.clone()).map_err(failure)?;
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(failure)
}

/// Whether the server takes writes: a replica, or a master that was demoted, does not. Both answer
/// reads, and with old data.
pub(super) async fn require_master(
    connection: &mut MultiplexedConnection,
) -> Result<(), StoreError> {
    let info: String =
        redis::cmd("INFO").arg("replication").query_async(connection).await.map_err(failure)?;
    if info.lines().any(|line| line.trim_end() == "role:master") {
        return Ok(());
    }
    Err(StoreError::Unavailable("Redis: the server is a replica".to_owned()))
}

/// What an error of the client or the server means to our callers.
#[allow(clippy::needless_pass_by_value)] // for map_err
pub(super) fn failure(error: redis::RedisError) -> StoreError {
    // `WRONGTYPE`, or a script that fails on what it finds: not ours, or not of this version.
    let not_ours = matches!(error.code(), Some("WRONGTYPE" | "ERR"));
    let text = format!("Redis: {error}");
    if not_ours { StoreError::Corrupt(text) } else { StoreError::Unavailable(text) }
}

/// Whether a connection with this error is of no use any more: it is broken, or the server at its
/// other end was demoted.
pub(super) fn is_over(error: &redis::RedisError) -> bool {
    error.is_io_error()
        || error.is_unrecoverable_error()
        || error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
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
}
