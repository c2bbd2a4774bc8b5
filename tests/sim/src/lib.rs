//! A simulation of the edge's hold machines: one seed, one run, always the same.
//!
//! What runs is the real code of the edge: the [`Hub`](forebay_core::hub::Hub) and the
//! [`Members`](forebay_core::hold::Members) of some workers, and between hub and handlers real
//! packets. Around them are models: a store with its history (`store`), handlers that feed and
//! answer (`feeder`), clients that read, stall, leave and come back (`client`). A wire between
//! hub and handlers delays, reorders, loses and repeats; handlers are killed, cut off, stalled.
//! Time is virtual, chance comes from the seed.
//!
//! Two judges watch. `reader` reads what each client got and compares it with the history: nothing
//! twice, nothing out of order, nothing missing but for gaps that are true. `requests` sees that
//! each request ends once. At the end faults stop, and within [`CATCH_UP_MS`] everybody must have
//! everything; then nothing may be sent but what says *I am here*.
//!
//! A failure names its seed; `forebay-sim --seed N --trace` tells the story.

#![forbid(unsafe_code)]

mod client;
mod connections;
mod feeder;
mod finish;
mod handlers;
mod operations;
mod random;
mod reader;
mod requests;
mod scenario;
mod schedule;
mod store;
mod world;

pub use finish::{CATCH_UP_MS, Report};

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use world::World;

/// What one run came to.
#[derive(Debug)]
pub struct Outcome {
    /// The report, or what went wrong.
    pub result: Result<Report, String>,
    /// What happened, if it was to be kept.
    pub trace: String,
}

/// Runs one seed with so many operations. A panic of a machine is a failure like any other.
pub fn run(seed: u64, operations: u64, trace: bool) -> Outcome {
    let mut world = World::new(seed, operations, trace);
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    let result = result.unwrap_or_else(|panic| Err(message_of(&*panic)));
    Outcome { result, trace: world.into_trace() }
}

/// The command that runs a seed again.
pub fn replay(seed: u64, operations: u64) -> String {
    format!("cargo run -p forebay-sim -- --seed {seed} --steps {operations} --trace")
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("panic: {}", text.unwrap_or_default())
}
