//! Requests: what a client asks, and what a handler answers.

use std::hint::black_box;

use forebay_core::http1::{HeadLimits, HeadScanner, RequestHead};
use forebay_core::hub::{FromHub, ToHub};
use forebay_core::{Key, ShortText};

use crate::Path;
use crate::edge::{Edge, HEAD};
use crate::handler;

/// The head of a request, found and read, with nothing made of it.
pub(crate) struct ParseHead {
    limits: HeadLimits,
    bytes: usize,
}

impl ParseHead {
    pub(crate) fn new(_: usize) -> Self {
        ParseHead { limits: HeadLimits::default(), bytes: 0 }
    }
}

impl Path for ParseHead {
    fn step(&mut self) {
        let input = black_box(HEAD);
        let span = HeadScanner::new().scan(input, &self.limits);
        let span = span.expect("the head is right").expect("the head is whole");
        let head = RequestHead::parse(input, span, &self.limits).expect("the head is right");
        self.bytes += black_box(head).head_bytes;
    }

    fn check(&self, steps: usize) {
        assert_eq!(self.bytes, HEAD.len() * steps);
    }
}

/// One connection that asks again as soon as it is answered.
pub(crate) struct Exchange {
    edge: Edge,
    key: Key,
    /// The session of each step, and its answer.
    answers: std::vec::IntoIter<(ShortText, FromHub)>,
}

impl Exchange {
    pub(crate) fn new(steps: usize) -> Self {
        let mut edge = Edge::new();
        let key = edge.accept();
        let first = edge.request(key, HEAD).id;
        edge.hub(&FromHub::Packet(handler::answer(&first, false)));
        edge.to_hub.clear();
        edge.sink.writes = 0;
        let ids = (1..=steps).map(|step| handler::session_after(&first, step));
        let answer = |id: ShortText| {
            let answer = FromHub::Packet(handler::answer(&id, false));
            (id, answer)
        };
        Exchange { edge, key, answers: ids.map(answer).collect::<Vec<_>>().into_iter() }
    }

    /// Walks the path once. What the hub is told, and what it says, in their order.
    pub(crate) fn exchange(&mut self) -> (ToHub, FromHub, ToHub) {
        let (id, answer) = self.answers.next().expect("it is prepared");
        self.edge.input(self.key, black_box(HEAD));
        let request = self.edge.to_hub.pop_front().expect("a request goes to the hub");
        let ToHub::Request(pending) = &request else { panic!("no request: {request:?}") };
        assert_eq!(pending.id, id, "sessions are counted");
        self.edge.hub(&answer);
        let done = self.edge.to_hub.pop_front().expect("the hub is told that it is over");
        (request, answer, done)
    }
}

impl Path for Exchange {
    fn step(&mut self) {
        drop(self.exchange());
    }

    fn check(&self, steps: usize) {
        assert_eq!(self.edge.sink.writes, steps);
        assert_eq!(self.edge.closes, 0);
        assert!(self.edge.to_hub.is_empty());
    }
}

/// One connection whose answer goes on and on.
pub(crate) struct Piece {
    edge: Edge,
    pieces: std::vec::IntoIter<FromHub>,
}

impl Piece {
    pub(crate) fn new(steps: usize) -> Self {
        let mut edge = Edge::new();
        let key = edge.accept();
        let id = edge.request(key, HEAD).id;
        edge.hub(&FromHub::Packet(handler::answer(&id, true)));
        edge.to_hub.clear();
        edge.sink.writes = 0;
        let seqs = 1..=u32::try_from(steps).expect("they are few");
        let pieces = seqs.map(|seq| FromHub::Packet(handler::piece(&id, seq)));
        Piece { edge, pieces: pieces.collect::<Vec<_>>().into_iter() }
    }
}

impl Path for Piece {
    fn step(&mut self) {
        let piece = self.pieces.next().expect("it is prepared");
        self.edge.hub(&piece);
        self.edge.to_hub.clear();
    }

    fn check(&self, steps: usize) {
        assert_eq!(self.edge.sink.writes, steps);
        assert_eq!(self.edge.closes, 0);
    }
}
