//! A run: consecutive events of one channel and epoch, as a packet brought them.
//!
//! The data stays in the packet, counted by reference, and is shared by the tail and all workers.

use std::sync::Arc;

use bytes::Bytes;
use zhttp::Cursor;
use zhttp::hold::{EVENT_KIND_DEFAULT, Events};

/// The most data of all events of a run, in bytes. A packet with more is refused: a run goes to each
/// member in one write, and this must fit into what may wait for a connection. Sixteen times what a
/// range asks for, so that even one large event fits.
pub const RUN_BYTES_MAX: usize = 1024 * 1024;

/// Why a packet makes no run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// It has no events, which is allowed and says nothing (hold.md H-50).
    #[error("no events")]
    Empty,
    /// Its events have more data than [`RUN_BYTES_MAX`]: the feeder's fault.
    #[error("events of more than 1 MiB of data")]
    TooLarge,
}

/// Consecutive events; at least one.
#[derive(Debug, PartialEq, Eq)]
pub struct Run {
    channel: Arc<str>,
    /// The place before the first event, in its epoch.
    after: Cursor,
    /// What the first event follows, if that is of an earlier epoch.
    prev: Option<Cursor>,
    events: Vec<RunEvent>,
    bytes: usize,
}

/// One event of a run.
#[derive(Debug, PartialEq, Eq)]
pub struct RunEvent {
    /// What the client gets: one line of JSON.
    pub data: Bytes,
    /// Its type, if it is not the usual one.
    kind: Option<Box<str>>,
    /// It ends the channel.
    pub end: bool,
}

impl RunEvent {
    /// The type of the event.
    pub fn kind(&self) -> &str {
        self.kind.as_deref().unwrap_or(EVENT_KIND_DEFAULT)
    }
}

impl Run {
    /// The events of a packet that lies in `packet`.
    ///
    /// # Errors
    ///
    /// There are none, or they are too large.
    pub fn new(channel: Arc<str>, packet: &Bytes, events: &Events<'_>) -> Result<Self, RunError> {
        let bytes = events.events.map(|event| event.data.len()).sum();
        if bytes > RUN_BYTES_MAX {
            return Err(RunError::TooLarge);
        }
        let run = Run {
            channel,
            after: Cursor::new(events.epoch, events.after),
            prev: events.prev,
            bytes,
            events: events
                .events
                .map(|event| RunEvent {
                    data: packet.slice_ref(event.data),
                    kind: (event.kind != EVENT_KIND_DEFAULT).then(|| event.kind.into()),
                    end: event.end,
                })
                .collect(),
        };
        if run.events.is_empty() { Err(RunError::Empty) } else { Ok(run) }
    }

    /// The channel.
    pub fn channel(&self) -> &Arc<str> {
        &self.channel
    }

    /// The events.
    pub fn events(&self) -> &[RunEvent] {
        &self.events
    }

    /// The bytes of data of all events.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The id of event `index`.
    pub fn id(&self, index: usize) -> Cursor {
        self.after.plus(index as u64 + 1)
    }

    /// The id of the last event.
    pub fn last(&self) -> Cursor {
        self.after.plus(self.events.len() as u64)
    }

    /// Whether the last event ends the channel.
    pub fn ends(&self) -> bool {
        self.events.last().is_some_and(|event| event.end)
    }

    /// The cursors that are directly before the first event: the place in its own epoch, and the
    /// end of the former one.
    pub fn befores(&self) -> (Cursor, Option<Cursor>) {
        (self.after, self.prev)
    }

    /// The index of the event that a reader at `cursor` gets next, if it is one of these.
    ///
    /// This is the rule of delivery (hold.md H-rule): event `o` is due iff the cursor is `o - 1` in
    /// the same epoch, or `o` is the first of its epoch and the cursor is the end of the former.
    pub fn index_after(&self, cursor: Cursor) -> Option<usize> {
        if cursor.epoch == self.after.epoch {
            let index = usize::try_from(cursor.offset.checked_sub(self.after.offset)?).ok()?;
            return (index < self.events.len()).then_some(index);
        }
        (self.prev == Some(cursor)).then_some(0)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use zhttp::hold::{self, Event};
    use zhttp::{Kind, Packet};

    /// A run of `count` events, each with its id as data; the last one ends the channel if `end`.
    pub(crate) fn run(
        channel: &str,
        after: Cursor,
        prev: Option<Cursor>,
        count: u64,
        end: bool,
    ) -> Arc<Run> {
        let data: Vec<String> = (1..=count).map(|n| format!("\"{}\"", after.plus(n))).collect();
        let mut out = Vec::new();
        hold::write_packet(&mut out, b"feeder", Kind::Events, |fields| {
            let list = data.iter().enumerate().map(|(index, data)| Event {
                data: data.as_bytes(),
                kind: "stream",
                end: end && index as u64 + 1 == count,
            });
            let events = Events {
                channel,
                epoch: after.epoch,
                after: after.offset,
                prev,
                events: hold::EventList::default(),
            };
            events.write(fields, list);
        });
        let packet = Bytes::from(out);
        let parsed = Packet::parse(&packet).unwrap();
        let events = Events::read(&parsed).unwrap();
        Arc::new(Run::new(channel.into(), &packet, &events).unwrap())
    }

    #[test]
    fn a_run_has_a_bound() {
        let made = |sizes: &[usize]| {
            let data: Vec<Vec<u8>> = sizes.iter().map(|&size| vec![b'x'; size]).collect();
            let mut out = Vec::new();
            hold::write_packet(&mut out, b"feeder", Kind::Events, |fields| {
                let event = |data| Event { data, kind: "stream", end: false };
                let list = hold::EventList::default();
                let events =
                    Events { channel: "o:c", epoch: 5, after: 0, prev: None, events: list };
                events.write(fields, data.iter().map(|data| event(&data[..])));
            });
            let packet = Bytes::from(out);
            let parsed = Packet::parse(&packet).unwrap();
            Run::new("o:c".into(), &packet, &Events::read(&parsed).unwrap())
        };
        assert_eq!(made(&[]), Err(RunError::Empty));
        assert_eq!(made(&[RUN_BYTES_MAX - 1, 1]).unwrap().bytes(), RUN_BYTES_MAX);
        assert_eq!(made(&[RUN_BYTES_MAX, 1]), Err(RunError::TooLarge));
    }

    #[test]
    fn the_rule_of_delivery() {
        let events = run("o:c", Cursor::new(5, 10), None, 3, false);
        assert_eq!(events.index_after(Cursor::new(5, 9)), None);
        assert_eq!(events.index_after(Cursor::new(5, 10)), Some(0));
        assert_eq!(events.index_after(Cursor::new(5, 12)), Some(2));
        assert_eq!(events.index_after(Cursor::new(5, 13)), None);
        assert_eq!(events.index_after(Cursor::new(4, 10)), None);
        assert_eq!(events.id(2), events.last());

        let first = run("o:c", Cursor::new(5, 0), Some(Cursor::new(4, 7)), 1, false);
        assert_eq!(first.index_after(Cursor::new(4, 7)), Some(0));
        assert_eq!(first.index_after(Cursor::new(5, 0)), Some(0));
        assert_eq!(first.index_after(Cursor::new(4, 6)), None);
        assert_eq!(first.index_after(Cursor::START), None);
    }
}
