//! A simulation of the whole edge: one seed, one run, always the same.
//!
//! What runs is the real code of the edge: the [`Hub`](forebay_core::hub::Hub) and some
//! [`Worker`](forebay_core::worker::Worker)s, HTTP bytes in and out, real packets to handlers and back. Around them are
//! models: a store with trims, ends, deletions and fail-overs (`store`), handlers that feed, answer and hand over
//! (`handler`), sockets that fill (`sockets`), clients of every temper (`clients`, `speakers`, `visitors`). A wire between hub and
//! handlers delays, reorders, loses and repeats; handlers and the edge are killed, cut off, stalled; clocks jump. Time
//! is virtual, chance comes from the seed.
//!
//! Who watches: `forebay-judge` reads what each client got and compares it with the store's history. `oracles` and `talk` know
//! naively what the hub should know. Handlers check numbers and credits, visitors every byte, `backlog` what waits for whom. The
//! machines check their own invariants. At the end faults stop, and within [`CATCH_UP_MS`] everybody must have everything;
//! requests must be answered; then nothing may be sent but what says *I am here*; and when all have gone, nothing may be
//! left.
//!
//! A step is one thing that happens to a machine or to the world: a packet or a message arrives, a worker has its turn,
//! a deadline passes, a client reads, somebody publishes. [`coverage`] counts rare states, so that a fault that is
//! never reached shows. A failure names its seed; `forebay-sim --seed N --trace` tells the story.

#![forbid(unsafe_code)]

mod backlog;
mod clients;
mod closes;
mod connections;
pub mod coverage;
mod edge;
mod finish;
mod frames;
mod handler;
mod handlers;
mod hearing;
mod http;
mod lives;
mod operations;
mod oracles;
mod random;
mod requests;
mod saying;
mod scenario;
mod schedule;
mod sockets;
mod speakers;
mod speech;
mod store;
mod subscribe;
mod talk;
mod visitors;
mod wire;
mod world;

pub use finish::{CATCH_UP_MS, Report};

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use coverage::Coverage;
use world::World;

/// What one run came to.
#[derive(Debug)]
pub struct Outcome {
    /// The report, or what went wrong.
    pub result: Result<Report, String>,
    /// Steps that were done, those of the calm behind the trouble among them.
    pub steps: u64,
    /// The rare states that it came into.
    pub coverage: Coverage,
    /// What happened, if it was to be kept.
    pub trace: String,
}

/// Steps of trouble in a run, if nobody says otherwise.
pub const STEPS: u64 = 1500;

/// Runs one seed with so many steps of trouble. A panic of a machine is a failure like any other.
pub fn run(seed: u64, steps: u64, trace: bool) -> Outcome {
    let mut world = World::new(seed, trace);
    let result = catch_unwind(AssertUnwindSafe(|| world.run(steps)));
    let result = result.unwrap_or_else(|panic| Err(message_of(&*panic)));
    Outcome {
        result,
        steps: world.steps,
        coverage: world.coverage.clone(),
        trace: world.take_trace(),
    }
}

/// The command that runs a seed again.
pub fn replay(seed: u64, steps: u64) -> String {
    format!("cargo run -p forebay-sim -- --seed {seed} --steps {steps} --trace")
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_default())
}
