//! Publishes events: at a rate, or as many at a time as are not everywhere yet.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::board::Board;
use super::body::Body;
use super::seen::{REACH, Seen};
use crate::caller::{Next, Pace, Source};
use crate::clock::SECOND_NS;
use crate::histogram::Histogram;
use crate::wire::mark::Mark;
use crate::wire::request::Request;

/// After so long without an event that finished, those on their way are abandoned, so that a loss does not stop all.
const STALL_NS: u64 = 5 * SECOND_NS;

/// When events are published.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pacing {
    Rate(Pace),
    /// So many that are not everywhere yet.
    Window(u64),
}

impl Pacing {
    pub(super) fn rate(per_s: f64) -> Pacing {
        Pacing::Rate(Pace::new(Some(per_s)))
    }
}

/// The source of the publishing connections.
#[derive(Debug)]
pub(super) struct Publisher {
    board: Arc<Board>,
    request: Request,
    body: Body,
    payload_bytes: usize,
    pacing: Pacing,
    /// Which events of each channel were answered.
    answered: Vec<Seen>,
    /// How many events had finished when that last changed, and when that was seen, while finishing is awaited.
    finished: Option<(u64, u64)>,
    /// From when an event was due until it was sent, of events at a rate.
    pub(super) lag: Histogram,
    /// Why events were refused, and how many.
    pub(super) refused: BTreeMap<String, u64>,
    refused_deliveries: u64,
    /// The body that is being written.
    scratch: Vec<u8>,
}

impl Publisher {
    pub(super) fn new(
        board: Arc<Board>,
        request: Request,
        body: Body,
        payload_bytes: usize,
        pacing: Pacing,
    ) -> Publisher {
        let channels = usize::try_from(board.channels()).unwrap_or_default();
        Publisher {
            board,
            request,
            body,
            payload_bytes,
            pacing,
            answered: vec![Seen::default(); channels],
            finished: None,
            lag: Histogram::default(),
            refused: BTreeMap::new(),
            refused_deliveries: 0,
            scratch: Vec::new(),
        }
    }

    /// Deliveries that there would have been of what was refused.
    pub(super) fn refused_deliveries(&self) -> u64 {
        self.refused_deliveries
    }

    /// When the next event is due, if that is now.
    fn due(&mut self, now_ns: u64) -> Result<u64, u64> {
        let event = self.board.published();
        let (channel, index) = (self.board.channel_of(event), self.board.index_of(event));
        if index >= self.answered[channel as usize].base() + REACH {
            // See `seen`. An answer, whose coming asks us again, is what is awaited.
            return Err(now_ns + SECOND_NS);
        }
        let window = match &mut self.pacing {
            Pacing::Rate(pace) => return pace.take(now_ns),
            Pacing::Window(window) => *window,
        };
        if self.board.unfinished() < window {
            return Ok(now_ns);
        }
        self.board.await_finish();
        let unfinished = self.board.unfinished();
        if unfinished < window {
            return Ok(now_ns);
        }
        let finished = event - unfinished;
        let since_ns = match self.finished {
            Some((known, since_ns)) if known == finished => since_ns,
            Some(_) | None => now_ns,
        };
        self.finished = Some((finished, since_ns));
        if now_ns >= since_ns + STALL_NS {
            self.board.abandon_all();
            return Ok(now_ns);
        }
        Err(since_ns + STALL_NS)
    }
}

impl Source for Publisher {
    fn next(&mut self, now_ns: u64, out: &mut Vec<u8>) -> Next {
        if self.board.window.is_over(now_ns) {
            return Next::End;
        }
        let due_ns = match self.due(now_ns) {
            Ok(due_ns) => due_ns,
            Err(at_ns) => return Next::At(at_ns),
        };
        if matches!(self.pacing, Pacing::Rate(_)) && self.board.window.contains(now_ns) {
            self.lag.record(now_ns - due_ns);
        }
        let event = self.board.publish();
        let channel = self.board.channel_of(event);
        let mark = Mark { sent_ns: now_ns, event, bytes: self.payload_bytes };
        self.scratch.clear();
        self.body.write(channel, &mut self.scratch, |out| mark.write_payload(out));
        self.request.write_with(channel, &self.scratch, out);
        Next::Request { tag: event, due_ns: now_ns }
    }

    fn handle_answer(&mut self, event: u64, status: Option<u16>) {
        let channel = self.board.channel_of(event);
        self.answered[channel as usize].insert(self.board.index_of(event));
        if status.is_some_and(|status| (200..300).contains(&status)) {
            return;
        }
        let reason = status.map_or("no answer".to_owned(), |status| format!("status {status}"));
        *self.refused.entry(reason).or_default() += 1;
        self.refused_deliveries += self.board.listeners(channel);
        self.board.abandon(event);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::fan::body;
    use crate::wire::request::{Template, parse_target};

    fn publisher(board: &Arc<Board>, pacing: Pacing) -> Publisher {
        let target = parse_target("127.0.0.1:1").unwrap();
        let request = Request::post(&target, Template::new("/{c}", "{c}"), &[]);
        Publisher::new(Arc::clone(board), request, body::parse("raw").unwrap(), 64, pacing)
    }

    #[test]
    fn a_window_waits_for_deliveries_and_not_for_ever() {
        let board = Arc::new(Board::new(1, None));
        board.join(0);
        let mut publisher = publisher(&board, Pacing::Window(2));
        let mut out = Vec::new();
        let mut next = |now_ns| publisher.next(now_ns, &mut out);
        assert_eq!(next(10), Next::Request { tag: 0, due_ns: 10 });
        assert_eq!(next(11), Next::Request { tag: 1, due_ns: 11 });
        assert_eq!(next(12), Next::At(12 + STALL_NS));
        board.deliver(0);
        assert_eq!(next(20), Next::Request { tag: 2, due_ns: 20 });
        assert_eq!(next(21), Next::At(21 + STALL_NS));
        assert_eq!(next(21 + STALL_NS), Next::Request { tag: 3, due_ns: 21 + STALL_NS });
        assert_eq!((board.unfinished(), board.abandoned()), (1, 2));
        board.window.end(1);
        assert_eq!(next(2), Next::End);
        assert!(out.starts_with(b"POST /0 HTTP/1.1\r\n"));
    }

    #[test]
    fn an_event_without_an_answer_is_not_left_far_behind() {
        let board = Arc::new(Board::new(1, None));
        let mut publisher = publisher(&board, Pacing::rate(1e9));
        let mut out = Vec::new();
        for event in 0..REACH {
            assert!(matches!(publisher.next(1000 + event, &mut out), Next::Request { .. }));
            if event > 0 {
                publisher.handle_answer(event, Some(200));
            }
        }
        assert!(matches!(publisher.next(5000, &mut out), Next::At(_)));
        publisher.handle_answer(0, Some(503));
        assert!(matches!(publisher.next(5000, &mut out), Next::Request { .. }));
        assert_eq!(publisher.refused["status 503"], 1);
    }
}
