//! Connections that are held: their life, their events, their keep-alives.

use std::hint::black_box;
use std::sync::Arc;

use forebay_core::hub::{FromHub, ToHub};

use super::MEMBERS;
use crate::Path;
use crate::edge::{Edge, HEAD};
use crate::handler::{self, Hold};

/// Between two lives, in milliseconds.
const LIFE_MS: u64 = 10;

/// A client comes, reads a channel of its own, and goes. Nobody else is there.
pub(crate) struct Life {
    edge: Edge,
    /// The answer of each step.
    answers: std::vec::IntoIter<FromHub>,
    told: usize,
}

impl Life {
    pub(crate) fn new(steps: usize) -> Self {
        let mut edge = Edge::new();
        let params =
            Hold { channel: "org-17:user-4711", cursor: handler::at(0), is_websocket: false };
        let key = edge.accept();
        let first = edge.request(key, HEAD).id;
        edge.hub(&handler::hold(&first, &params));
        edge.worker.handle_eof(edge.now_ms, &mut edge.sink, key);
        edge.turn();
        edge.to_hub.clear();
        edge.closes = 0;
        let ids = (1..=steps).map(|step| handler::session_after(&first, step));
        let answers = ids.map(|id| handler::hold(&id, &params));
        Life { edge, answers: answers.collect::<Vec<_>>().into_iter(), told: 0 }
    }
}

impl Path for Life {
    fn step(&mut self) {
        let edge = &mut self.edge;
        edge.now_ms += LIFE_MS;
        let key = edge.accept();
        edge.input(key, black_box(HEAD));
        edge.hub(&self.answers.next().expect("it is prepared"));
        edge.worker.handle_eof(edge.now_ms, &mut edge.sink, key);
        edge.turn();
        let is_notice = |message: &ToHub| matches!(message, ToHub::Notify { .. });
        self.told += edge.to_hub.drain(..).filter(is_notice).count();
    }

    fn check(&self, steps: usize) {
        assert_eq!((self.edge.closes, self.told), (steps, steps));
        assert_eq!(self.edge.worker.connections(), 0);
    }
}

/// Members that are up to date, in one channel or in one each.
pub(crate) struct FanOut {
    edge: Edge,
    /// What comes in each step.
    events: std::vec::IntoIter<Vec<FromHub>>,
}

impl FanOut {
    /// Event streams of one channel.
    pub(crate) fn new(steps: usize) -> Self {
        FanOut::of(steps, &["org-17:room-4711".into()], false)
    }

    /// WebSockets of one channel.
    pub(crate) fn of_websockets(steps: usize) -> Self {
        FanOut::of(steps, &["org-17:room-4711".into()], true)
    }

    /// Event streams of a channel each.
    pub(crate) fn of_own_channels(steps: usize) -> Self {
        let channels: Vec<Arc<str>> =
            (0..MEMBERS).map(|number| format!("org-17:user-{number}").into()).collect();
        FanOut::of(steps, &channels, false)
    }

    fn of(steps: usize, channels: &[Arc<str>], is_websocket: bool) -> Self {
        let mut edge = Edge::new();
        for channel in channels.iter().cycle().take(MEMBERS) {
            edge.hold(&Hold { channel, cursor: handler::at(0), is_websocket });
        }
        for channel in channels {
            edge.hub(&handler::head(channel, 0));
        }
        edge.to_hub.clear();
        let of_step = |after| channels.iter().map(|name| handler::fed(name, after, 1)).collect();
        let events: Vec<Vec<FromHub>> = (0..steps as u64).map(of_step).collect();
        FanOut { edge, events: events.into_iter() }
    }
}

impl Path for FanOut {
    fn step(&mut self) {
        self.edge.now_ms += 1;
        let events = self.events.next().expect("it is prepared");
        for event in &events {
            self.edge.hear(event);
        }
        self.edge.turn();
        self.edge.to_hub.clear();
    }

    fn check(&self, steps: usize) {
        assert_eq!(self.edge.deliveries(), MEMBERS * steps);
        assert_eq!(self.edge.worker.holds(), MEMBERS);
    }
}

/// So many connections are opened in one millisecond: the edge has some hundred thousand then.
const OPENED_PER_MS: usize = 4;

/// Held connections, to whom nobody says anything.
pub(crate) struct KeepAlives {
    edge: Edge,
    /// Writes until the next step is done.
    writes: usize,
    /// Writes before the first step.
    before: usize,
}

impl KeepAlives {
    pub(crate) fn new(_: usize) -> Self {
        let mut edge = Edge::new();
        let channel: Arc<str> = "org-17:room-4711".into();
        for number in 0..MEMBERS {
            edge.now_ms += u64::from(number % OPENED_PER_MS == 0);
            edge.hold(&Hold { channel: &channel, cursor: handler::at(0), is_websocket: false });
        }
        edge.hub(&handler::head(&channel, 0));
        edge.to_hub.clear();
        let before = edge.sink.writes;
        KeepAlives { edge, writes: before, before }
    }
}

impl Path for KeepAlives {
    fn step(&mut self) {
        self.writes += MEMBERS;
        while self.edge.sink.writes < self.writes {
            let due_ms = self.edge.worker.next_deadline().expect("all are to be kept alive");
            self.edge.now_ms = due_ms;
            self.edge.turn();
        }
    }

    fn check(&self, steps: usize) {
        assert_eq!(self.edge.sink.writes - self.before, MEMBERS * steps);
        assert_eq!(self.edge.worker.holds(), MEMBERS);
    }
}
