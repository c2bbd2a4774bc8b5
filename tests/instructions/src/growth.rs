//! How long one operation takes at most while the tables of an edge grow to a million entries.
//!
//! Whoever has a million clients has them because they came one by one, and all others were there meanwhile. So growth
//! must not move what is there: a table that doubles would stop its thread for as long as copying takes. This is a
//! measurement of time, so a machine that does other things shows in it: the shortest of some runs is what the tables cost.

use std::time::{Duration, Instant};

use forebay_core::hold::Want;
use forebay_core::hub::ToHub;

use crate::edge::Edge;
use crate::handler::{self, Hold};
use crate::paths::hub;

/// The longest that one operation took.
#[derive(Clone, Copy, Debug)]
pub struct Pause {
    /// What was done so many times.
    pub what: &'static str,
    /// The longest time that it took once.
    pub longest: Duration,
    /// All of them together.
    pub all: Duration,
}

/// Grows the tables to so many entries.
pub fn grow(count: usize) -> [Pause; 4] {
    let mut edge = Edge::new();
    let accept = measure("accept", count, |_| {
        edge.accept();
    });
    let mut edge = Edge::new();
    let own = measure("hold, on a channel of its own", count, |number| {
        let channel = format!("org-17:user-{number}");
        edge.hold(&Hold { channel: &channel, cursor: handler::at(0), is_websocket: false });
        edge.hub(&handler::head(&channel.as_str().into(), 0));
    });
    let mut edge = Edge::new();
    edge.hold(&Hold { channel: "org-17:all", cursor: handler::at(0), is_websocket: false });
    edge.hub(&handler::head(&"org-17:all".into(), 0));
    let shared = measure("hold, on a channel that all have", count, |_| {
        edge.hold(&Hold { channel: "org-17:all", cursor: handler::at(0), is_websocket: false });
    });
    let mut hub = hub::hub();
    let follow = measure("follow a channel", count, |number| {
        let want = Want::Open(format!("org-17:user-{number}").into());
        hub.handle_worker(1, 0, ToHub::Want(want));
        while hub.poll_output(1).is_some() {}
    });
    [accept, own, shared, follow]
}

fn measure(what: &'static str, count: usize, mut once: impl FnMut(usize)) -> Pause {
    let start = Instant::now();
    let mut longest = Duration::ZERO;
    let mut before = start;
    for number in 0..count {
        once(number);
        let now = Instant::now();
        longest = longest.max(now - before);
        before = now;
    }
    Pause { what, longest, all: before - start }
}
