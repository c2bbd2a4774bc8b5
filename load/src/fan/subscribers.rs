//! What the subscribers of one thread get: latencies, and exactly what is missing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::board::Board;
use super::seen::{Arrival, Seen};
use crate::histogram::Histogram;
use crate::holder::Receiver;
use crate::wire::mark::{Found, Mark, Marks};

/// What was found, of all threads together.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// From an event's sending to each delivery, of events of the window.
    pub(super) latency: Histogram,
    /// The same of each event's last.
    pub(super) last_delivery: Histogram,
    /// Within the window.
    pub(super) deliveries: u64,
    pub(super) lost: u64,
    pub(super) repeated: u64,
    /// To subscribers of another channel, or of events that nobody has published.
    pub(super) strayed: u64,
    /// With other padding than was sent.
    pub(super) damaged: u64,
}

/// Findings, also those of a thread that has panicked.
pub(super) fn lock(findings: &Mutex<Findings>) -> MutexGuard<'_, Findings> {
    findings.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The subscribers of one thread.
#[derive(Debug)]
pub(super) struct Subscribers {
    board: Arc<Board>,
    all: Arc<Mutex<Findings>>,
    marks: Marks,
    /// By slot.
    members: Vec<Member>,
    own: Findings,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    /// The channel and one more; 0 is none.
    channel_and_one: u32,
    seen: Seen,
}

impl Member {
    fn channel(&self) -> Option<u64> {
        u64::from(self.channel_and_one).checked_sub(1)
    }
}

impl Subscribers {
    pub(super) fn new(board: Arc<Board>, all: Arc<Mutex<Findings>>) -> Subscribers {
        let (marks, own) = (Marks::default(), Findings::default());
        Subscribers { board, all, marks, members: Vec::new(), own }
    }
}

/// A delivery to a member.
fn handle_mark(board: &Board, own: &mut Findings, member: &mut Member, mark: Mark, now_ns: u64) {
    let event = mark.event;
    if event >= board.published() || member.channel() != Some(board.channel_of(event)) {
        own.strayed += 1;
        return;
    }
    match member.seen.insert(board.index_of(event)) {
        Arrival::Repeated => {
            own.repeated += 1;
            return;
        }
        Arrival::New { lost } => own.lost += lost,
    }
    let is_last = board.deliver(event);
    let is_measured = board.window.contains(mark.sent_ns);
    let latency_ns = now_ns.saturating_sub(mark.sent_ns);
    if is_measured {
        own.latency.record(latency_ns);
        if is_last {
            own.last_delivery.record(latency_ns);
        }
    }
    own.deliveries += u64::from(board.window.contains(now_ns));
}

impl Receiver for Subscribers {
    fn handle_open(&mut self, slot: usize, number: u64) {
        if self.members.len() <= slot {
            self.members.resize(slot + 1, Member::default());
        }
        let channel = self.board.channel_of(number);
        self.members[slot].channel_and_one = channel as u32 + 1;
        self.board.join(channel);
    }

    fn handle_content(&mut self, slot: usize, content: &[u8], now_ns: u64) -> u64 {
        let Subscribers { board, marks, members, own, .. } = self;
        let member = &mut members[slot];
        let mut deliveries = 0;
        marks.read(slot, content, |Found { mark, is_damaged }| {
            deliveries += 1;
            own.damaged += u64::from(is_damaged);
            handle_mark(board, own, member, mark, now_ns);
        });
        deliveries
    }

    fn handle_message_end(&mut self, _slot: usize) -> u64 {
        0
    }

    /// What it does not have, nobody waits for any more, and it is not counted as lost: the connection is.
    fn handle_close(&mut self, slot: usize) {
        self.marks.forget(slot);
        let member = std::mem::take(&mut self.members[slot]);
        let Some(channel) = member.channel() else { return };
        self.board.leave(channel);
        for index in member.seen.base()..self.board.published_to(channel) {
            if !member.seen.contains(index) {
                self.board.deliver(index * self.board.channels() + channel);
            }
        }
    }

    /// Called before the first event, and when nothing more is to come.
    fn flush(&mut self) {
        let own = std::mem::take(&mut self.own);
        let mut all = lock(&self.all);
        all.latency.merge(&own.latency);
        all.last_delivery.merge(&own.last_delivery);
        all.deliveries += own.deliveries;
        all.lost += own.lost;
        all.repeated += own.repeated;
        all.strayed += own.strayed;
        all.damaged += own.damaged;
        let missing = self.members.iter().filter_map(|member| {
            Some(member.seen.missing(self.board.published_to(member.channel()?)))
        });
        all.lost += missing.sum::<u64>();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(event: u64, bytes: usize) -> Vec<u8> {
        let mut out = b"data: ".to_vec();
        Mark { sent_ns: 50, event, bytes }.write_payload(&mut out);
        out.extend_from_slice(b"\n\n");
        out
    }

    #[test]
    fn what_is_missing_or_too_much_is_counted() {
        let board = Arc::new(Board::new(2, None));
        let all = Arc::default();
        let mut own = Subscribers::new(Arc::clone(&board), Arc::clone(&all));
        for number in 0..4 {
            own.handle_open(number as usize, number);
        }
        board.window.begin(40);
        for _ in 0..4 {
            board.publish();
        }
        // Subscribers 0 and 2 have channel 0, with events 0 and 2; the others channel 1, with events 1 and 3.
        assert_eq!(own.handle_content(0, &[content(0, 60), content(2, 60)].concat(), 100), 2);
        own.handle_content(2, &content(0, 60), 150);
        own.handle_content(2, &content(0, 60), 160);
        own.handle_content(1, &content(3, 60), 170);
        own.handle_content(1, &content(2, 60), 180);
        own.handle_content(1, &content(99, 60), 180);
        own.handle_close(3);
        assert_eq!((board.unfinished(), board.listeners(1)), (2, 1));
        own.flush();
        let found = lock(&all);
        assert_eq!((found.deliveries, found.repeated, found.strayed), (4, 1, 2));
        assert_eq!(found.lost, 2, "event 2 of subscriber 2, event 1 of subscriber 1");
        assert_eq!((found.latency.max(), found.last_delivery.max()), (120, 100));
        assert_eq!(found.damaged, 0);
    }
}
