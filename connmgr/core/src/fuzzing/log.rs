//! A model of the log of one channel: what a store keeps of it, and what a feeder makes of that.

use std::sync::Arc;

use bytes::Bytes;
use zhttp::hold::{self, Event, EventList, Events, GapReason};
use zhttp::{Cursor, Kind, Packet};

use crate::hold::{Fed, MissingRun, Run};

/// One event, as the log has it.
#[derive(Clone, Copy)]
pub(super) struct LogEvent {
    pub(super) id: Cursor,
    /// What it follows.
    pub(super) prev: Cursor,
    /// It ends the channel.
    pub(super) end: bool,
}

impl LogEvent {
    /// Whether a reader at that cursor gets this event next: the rule of delivery, told once more.
    pub(super) fn follows(&self, cursor: Cursor) -> bool {
        let before = Cursor::new(self.id.epoch, self.id.offset - 1);
        cursor == before || cursor == self.prev
    }
}

/// The log.
pub(super) struct Log {
    pub(super) name: Arc<str>,
    /// Every event that ever was.
    events: Vec<LogEvent>,
    /// Where the present log begins: it may have been deleted and made anew.
    first: usize,
    /// The first event that is kept. The last one always is.
    kept: usize,
}

impl Log {
    /// A channel without events.
    pub(super) fn new(name: &str) -> Self {
        Log { name: name.into(), events: Vec::new(), first: 0, kept: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    /// The last event; before all if there is none.
    pub(super) fn last(&self) -> Cursor {
        self.events.last().map_or(Cursor::START, |event| event.id)
    }

    /// The event of that id, also of a log that is no more.
    pub(super) fn event(&self, id: Cursor) -> Option<&LogEvent> {
        self.events.iter().rfind(|event| event.id == id)
    }

    /// The id of an event by its number.
    pub(super) fn id(&self, index: usize) -> Cursor {
        self.events.get(index).map_or(Cursor::START, |event| event.id)
    }

    /// Appends an event; it begins an epoch if it is to, and behind an end.
    pub(super) fn append(&mut self, begins: bool, end: bool) {
        let prev = self.last();
        let begins = begins || self.events.last().is_none_or(|event| event.end);
        let id = if begins { Cursor::new(prev.epoch + 3, 1) } else { prev.plus(1) };
        self.events.push(LogEvent { id, prev, end });
    }

    /// Deletes the log and begins another one with an event.
    pub(super) fn recreate(&mut self) {
        self.append(true, false);
        self.first = self.events.len() - 1;
        self.kept = self.first;
        self.events[self.first].prev = Cursor::START;
    }

    /// Forgets so many of the oldest events, but never the last one.
    pub(super) fn trim(&mut self, count: usize) {
        self.kept = (self.kept + count).min(self.events.len().saturating_sub(1));
    }

    /// The number of the next event for a reader at that cursor, which is that of none at the end;
    /// `None` if the cursor is nowhere in the log.
    pub(super) fn position(&self, cursor: Cursor) -> Option<usize> {
        let next = self.events[self.first..].iter().position(|event| event.follows(cursor));
        let at_end = (cursor == self.last()).then_some(self.events.len());
        next.map(|next| self.first + next).or(at_end)
    }

    /// Whether that event is of the present log, and kept.
    pub(super) fn keeps(&self, index: usize) -> bool {
        index >= self.kept
    }

    /// Whether that event is of the present log.
    pub(super) fn is_present(&self, id: Cursor) -> bool {
        self.events.get(self.first).is_some_and(|first| first.id <= id)
    }

    /// Events of one epoch, from one on; so many at most.
    pub(super) fn run(&self, from: usize, count_max: usize) -> Option<Arc<Run>> {
        let packet = self.events_packet(from, count_max)?;
        let parsed = Packet::parse(&packet).expect("it was just written");
        let events = Events::read(&parsed).expect("it was just written");
        Some(Arc::new(Run::new(Arc::clone(&self.name), &packet, &events).expect("it has events")))
    }

    /// The packet that such a run comes in.
    pub(super) fn events_packet(&self, from: usize, count_max: usize) -> Option<Bytes> {
        let begin = *self.events.get(from)?;
        let events = self.events[from..].iter().take(count_max.max(1));
        let events: Vec<&LogEvent> =
            events.take_while(|event| event.id.epoch == begin.id.epoch).collect();
        let data: Vec<String> =
            events.iter().map(|event| format!("{} {}", self.name, event.id)).collect();
        let run = Events {
            channel: &self.name,
            epoch: begin.id.epoch,
            after: begin.id.offset - 1,
            prev: (begin.id.offset == 1).then_some(begin.prev),
            events: EventList::default(),
        };
        let kind =
            |event: &LogEvent| if event.id.offset.is_multiple_of(3) { "other" } else { "stream" };
        let list = events.iter().zip(&data).map(|(event, data)| Event {
            data: data.as_bytes(),
            kind: kind(event),
            end: event.end,
        });
        let mut out = Vec::new();
        hold::write_packet(&mut out, b"f", Kind::Events, |fields| run.write(fields, list));
        Some(out.into())
    }

    /// What a feeder tells a reader at `after` whose next events are not kept, or who is nowhere in the log.
    pub(super) fn gap(&self, after: Cursor) -> Option<MissingRun> {
        let reason = match self.position(after) {
            Some(next) if next < self.kept => GapReason::Trimmed,
            Some(_) => return None,
            None => GapReason::Recreated,
        };
        let first = self.events[self.kept..].iter().find(|event| event.id > after)?.id;
        Some(MissingRun { channel: Arc::clone(&self.name), after, first, reason })
    }

    /// What a feeder answers to a range: events, so many at most, or a gap, or that there is nothing.
    pub(super) fn answer(&self, after: Cursor, count_max: usize) -> Fed {
        if let Some(gap) = self.gap(after) {
            return Fed::Gap(Arc::new(gap));
        }
        match self.position(after).and_then(|next| self.run(next, count_max)) {
            Some(run) => Fed::Events(run),
            None => Fed::Head(Arc::clone(&self.name), self.last()),
        }
    }
}
