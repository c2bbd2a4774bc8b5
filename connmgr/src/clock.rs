//! The clock of the shell: machines are given its readings.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Counts milliseconds from the start of the edge, on a clock that never goes back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Clock { start: Instant::now() }
    }

    /// The time, in milliseconds.
    pub(crate) fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// A reading as the timers of tokio take it.
    pub(crate) fn instant(&self, ms: u64) -> tokio::time::Instant {
        (self.start + Duration::from_millis(ms)).into()
    }

    /// The time of day, in seconds since 1970.
    pub(crate) fn unix_s() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    /// A time of day as responses carry it (RFC 9110 §5.6.7).
    pub(crate) fn http_date(unix_s: u64) -> String {
        httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(unix_s))
    }
}
