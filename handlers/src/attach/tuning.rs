//! Times and limits that no operator needs to turn, but tests do.

use std::time::Duration;

use super::session::KeepAlive;

/// A `hello` holds for so long, in milliseconds: three of them may be lost (`zhttp-spec/hold.md`,
/// H-30).
pub(super) const HELLO_TTL_MS: u64 = 3_000;

/// Requests that one process has in flight at most, from all its edges; one more is answered with
/// 503 and `Retry-After: 1`. Each costs a task and at most 64 KiB of body that is underway, so this
/// is what keeps a process alive whose service hangs. What it *should* have in flight is
/// [`AttachConfig::requests_max`](super::AttachConfig::requests_max), which the edges keep to.
pub const REQUESTS_MAX: u64 = 10_000;

#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// How often hello is said and keep-alives are looked for.
    pub(super) hello_every: Duration,
    pub(super) keep_alive: KeepAlive,
    pub(super) requests_in_flight_max: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        let keep_alive =
            KeepAlive { first_after: Duration::from_secs(20), every: Duration::from_secs(45) };
        Tuning {
            hello_every: Duration::from_secs(1),
            keep_alive,
            requests_in_flight_max: REQUESTS_MAX,
        }
    }
}
