//! What the end-to-end tests share: real processes on free ports, and clients that see every byte.
//!
//! | file | what it has |
//! | --- | --- |
//! | `process` | a child process: its lines, its signals, its end; killed when dropped |
//! | `http` | requests and answers, raw, over one socket each |
//! | `stream` | an event stream, block by block as it came |
//! | `up` | `forebay up` in a directory of its own, and what tests ask of it |
//!
//! Nothing here sleeps to wait for something. Everything waits for the thing itself, and fails after [`PATIENCE`].

#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by several test files, each of which uses a part"
)]

pub mod http;
pub mod process;
pub mod stream;
pub mod up;

use std::time::{Duration, Instant};

pub use self::http::{Request, Response, get, post};
pub use self::process::Process;
pub use self::stream::{Event, EventStream, Next};
pub use self::up::{Reading, Up};

/// Nothing in these tests takes longer, on however slow a machine. Passing it is a failure, not a way to wait.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks at something that tells nobody when it changes.
const LOOK_INTERVAL: Duration = Duration::from_millis(5);

/// Looks until there is something to see.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < PATIENCE, "never came true: {what}");
        std::thread::sleep(LOOK_INTERVAL);
    }
}
