//! A range comes for a crowd: each member of it stands somewhere else, some where the channel is live.

use std::sync::Arc;

use forebay_core::hub::FromHub;

use crate::Path;
use crate::edge::Edge;
use crate::handler::{self, Hold};

/// Events of the range, and members: one stands before each event.
const EVENTS: usize = 100;

/// The last event that was known before the range came: who stands there is live, who stands behind it knows more.
const KNOWN: u64 = 50;

/// A crowd for each step, in a channel of its own.
pub(crate) struct Merge {
    edge: Edge,
    ranges: std::vec::IntoIter<FromHub>,
}

impl Merge {
    pub(crate) fn new(steps: usize) -> Self {
        let mut edge = Edge::new();
        let channels: Vec<Arc<str>> =
            (0..steps).map(|number| format!("org-17:room-{number}").into()).collect();
        for channel in &channels {
            for offset in 0..EVENTS as u64 {
                let cursor = handler::at(offset);
                edge.hold(&Hold { channel, cursor, is_websocket: false });
            }
            edge.hub(&handler::head(channel, KNOWN));
        }
        edge.to_hub.clear();
        let ranges = channels.iter().map(|channel| handler::fed(channel, 0, EVENTS));
        Merge { edge, ranges: ranges.collect::<Vec<_>>().into_iter() }
    }
}

impl Path for Merge {
    fn step(&mut self) {
        let range = self.ranges.next().expect("it is prepared");
        self.edge.hub(&range);
        self.edge.to_hub.clear();
    }

    fn check(&self, steps: usize) {
        assert_eq!(self.edge.deliveries(), EVENTS * steps, "each gets what it misses in one go");
    }
}
