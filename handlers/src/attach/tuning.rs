//! Times and limits that no operator needs to turn, but tests do.

use std::time::Duration;

use super::session::KeepAlive;

/// A `hello` holds for so long, in milliseconds: three of them may be lost (`zhttp-spec/hold.md`,
/// H-30).
pub(super) const HELLO_TTL_MS: u64 = 3_000;

/// Requests that one process has in flight at most, from all its edges; one more is answered with
/// 503 and `Retry-After: 1`. Each costs a task, and its body is within [`BODY_BYTES_MAX`], so this is
/// what keeps a process alive whose service hangs. What it *should* have in flight is
/// [`AttachConfig::requests_max`](super::AttachConfig::requests_max), which the edges keep to.
pub const REQUESTS_MAX: u64 = 10_000;

/// Bytes of request bodies that one process gathers at most, of all requests together (64 MiB). Past
/// it [`Request::body`](super::Request::body) fails with [`BodyError::NoRoom`](super::BodyError::NoRoom),
/// and its client is to come again: many uploads that are slow must not cost what each may cost
/// alone. What is underway, 64 KiB for each request whose body is asked for and not read, comes on
/// top; as a reader that waits takes it at once, it is little.
pub const BODY_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Bytes of answers to what clients of held WebSockets say ([`Answer`](super::Answer)) that wait to be
/// written to one edge at most (64 MiB). An answer that finds no room is thrown away, and its client
/// sent elsewhere with the close 1013: so an edge that stands still costs that much, whatever is asked
/// through it, and only its own clients.
pub const WAITING_ANSWERS_BYTES_MAX: usize = 64 * 1024 * 1024;

#[derive(Clone, Copy, Debug)]
pub(super) struct Tuning {
    /// How often hello is said and keep-alives are looked for.
    pub(super) hello_every: Duration,
    pub(super) keep_alive: KeepAlive,
    pub(super) requests_in_flight_max: u64,
    pub(super) body_bytes_max: usize,
    pub(super) waiting_answers_bytes_max: usize,
}

impl Default for Tuning {
    fn default() -> Self {
        let keep_alive =
            KeepAlive { first_after: Duration::from_secs(20), every: Duration::from_secs(45) };
        Tuning {
            hello_every: Duration::from_secs(1),
            keep_alive,
            requests_in_flight_max: REQUESTS_MAX,
            body_bytes_max: BODY_BYTES_MAX,
            waiting_answers_bytes_max: WAITING_ANSWERS_BYTES_MAX,
        }
    }
}
