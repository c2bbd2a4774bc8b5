//! The hub, between two workers and a handler that serves and feeds everything.

use std::sync::Arc;

use bytes::Bytes;
use forebay_core::hold::{FeedsConfig, Want};
use forebay_core::hub::{DispatchConfig, FromHub, Hub, HubConfig, HubOutput, ToHub};

use super::requests::Exchange;
use crate::Path;
use crate::edge::EDGE;
use crate::handler::{self, HANDLER};

const NOW_MS: u64 = 1_000_000;
const WORKERS: u16 = 2;

/// A hub that the handler has greeted, with the settings of the edge by default.
pub(crate) fn hub() -> Hub {
    let mut hub = Hub::new(HubConfig {
        instance_id: EDGE.into(),
        workers: WORKERS,
        dispatch: DispatchConfig {
            handler_wait_ms: 10_000,
            waiting_requests_max: 10_000,
            waiting_bytes_max: 256 * 1024 * 1024,
            routes: Vec::new(),
            req_group: 1,
        },
        feeds: FeedsConfig {
            seed: 7,
            tail_bytes_max: 256 * 1024,
            tails_bytes_max: 64 * 1024 * 1024,
            range_bytes_max: 64 * 1024,
            ranges_in_flight_max: 64,
            answer_timeout_ms: 2_000,
            linger_ms: 10_000,
        },
    });
    hear(&mut hub, &handler::hello());
    hub
}

/// The handler has sent a packet.
fn hear(hub: &mut Hub, packet: &Bytes) {
    hub.handle_packet(NOW_MS, Some(HANDLER), packet).expect("the packets here are whole");
}

/// Drops what goes out. How many packets went to handlers, and how many messages to workers.
fn flush(hub: &mut Hub) -> (usize, usize) {
    let mut sent = (0, 0);
    while let Some(output) = hub.poll_output(NOW_MS) {
        match output {
            HubOutput::Route { .. } => sent.0 += 1,
            HubOutput::Worker { .. } => sent.1 += 1,
            HubOutput::Push { .. } => panic!("there is a handler"),
        }
    }
    sent
}

/// Adds up what went out.
fn add(sum: &mut (usize, usize), sent: (usize, usize)) {
    sum.0 += sent.0;
    sum.1 += sent.1;
}

/// Requests of one worker, each answered whole.
pub(crate) struct Requests {
    hub: Hub,
    /// What the worker says, the handler, and the worker again.
    exchanges: std::vec::IntoIter<(ToHub, Bytes, ToHub)>,
    sent: (usize, usize),
}

impl Requests {
    pub(crate) fn new(steps: usize) -> Self {
        let mut worker = Exchange::new(steps);
        let exchanges = (0..steps).map(|_| match worker.exchange() {
            (request, FromHub::Packet(answer), done) => (request, answer, done),
            other => panic!("an exchange is more than {other:?}"),
        });
        let exchanges = exchanges.collect::<Vec<_>>().into_iter();
        Requests { hub: hub(), exchanges, sent: (0, 0) }
    }
}

impl Path for Requests {
    fn step(&mut self) {
        let (request, answer, done) = self.exchanges.next().expect("it is prepared");
        self.hub.handle_worker(NOW_MS, 0, request);
        add(&mut self.sent, flush(&mut self.hub));
        hear(&mut self.hub, &answer);
        add(&mut self.sent, flush(&mut self.hub));
        self.hub.handle_worker(NOW_MS, 0, done);
        add(&mut self.sent, flush(&mut self.hub));
    }

    fn check(&self, steps: usize) {
        assert_eq!(self.sent, (steps, steps));
    }
}

/// A hub whose workers all read one channel, from its beginning.
fn hub_of(channel: &Arc<str>) -> Hub {
    let mut hub = hub();
    for worker in 0..WORKERS {
        hub.handle_worker(NOW_MS, worker, ToHub::Want(Want::Open(Arc::clone(channel))));
    }
    flush(&mut hub);
    hub
}

/// Events of one channel, one by one.
pub(crate) struct Fed {
    hub: Hub,
    events: std::vec::IntoIter<Bytes>,
    sent: (usize, usize),
}

impl Fed {
    pub(crate) fn new(steps: usize) -> Self {
        let channel: Arc<str> = "org-17:room-4711".into();
        let events = (0..steps as u64).map(|after| handler::events(&channel, after, 1));
        let events = events.collect::<Vec<_>>().into_iter();
        Fed { hub: hub_of(&channel), events, sent: (0, 0) }
    }
}

impl Path for Fed {
    fn step(&mut self) {
        let event = self.events.next().expect("it is prepared");
        hear(&mut self.hub, &event);
        add(&mut self.sent, flush(&mut self.hub));
    }

    fn check(&self, steps: usize) {
        assert_eq!(self.sent, (0, usize::from(WORKERS) * steps));
    }
}

/// Events of a range.
const EVENTS: usize = 100;

/// A worker whose members come back: what they miss is in the tail of the channel.
pub(crate) struct Ranges {
    hub: Hub,
    channel: Arc<str>,
    sent: (usize, usize),
}

impl Ranges {
    pub(crate) fn new(_: usize) -> Self {
        let channel: Arc<str> = "org-17:room-4711".into();
        let mut hub = hub_of(&channel);
        for after in 0..EVENTS as u64 {
            hear(&mut hub, &handler::events(&channel, after, 1));
        }
        flush(&mut hub);
        Ranges { hub, channel, sent: (0, 0) }
    }
}

impl Path for Ranges {
    fn step(&mut self) {
        let want = Want::Range(Arc::clone(&self.channel), handler::at(0));
        self.hub.handle_worker(NOW_MS, 1, ToHub::Want(want));
        add(&mut self.sent, flush(&mut self.hub));
    }

    fn check(&self, steps: usize) {
        assert_eq!(self.sent, (0, EVENTS * steps));
    }
}
