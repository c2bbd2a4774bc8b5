//! The clock of all measurements: CLOCK_MONOTONIC, in nanoseconds.
//!
//! Not `Instant`: the time is written into payloads as a number, and the same clock reads it again in any process of this host.

use nix::sys::time::TimeSpec;
use nix::time::ClockId;

/// Nanoseconds of a second.
pub(crate) const SECOND_NS: u64 = 1_000_000_000;

/// Now.
pub(crate) fn now_ns() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC.now().expect("every Linux has this clock"))
}

/// A time of the system as a number.
pub(crate) fn nanoseconds(time: TimeSpec) -> u64 {
    time.tv_sec().unsigned_abs() * SECOND_NS + time.tv_nsec().unsigned_abs()
}

/// Seconds as nanoseconds.
pub(crate) fn seconds(seconds: f64) -> u64 {
    (seconds * SECOND_NS as f64) as u64
}
