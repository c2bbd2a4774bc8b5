//! A model of the store: what each channel's log holds now, told to the judge as it happens.
//!
//! A log goes on over an END: the next event begins a new epoch and names what it follows (`prev`). A log that was
//! deleted is gone; the next event begins another log, and follows `0-0`. A reader at a cursor is contiguous with an
//! event iff that follows the cursor: same epoch and the next offset, or `prev` is the cursor. Nothing else is, and
//! that is all that gaps are made from.
//!
//! A fail-over loses the newest events of each log, also such as were acknowledged, as replication is asynchronous. The
//! next append begins a new epoch in the same log, so that no id is given twice; its first event follows the head that
//! survived. The clock may jump either way, but no fail-over forgets how far epochs were: that is assumed of the real
//! one too (its lag is shorter than clocks differ, see hold.md H-5).

use std::collections::VecDeque;
use std::rc::Rc;

use forebay_judge::{History, Id, Record};
use zhttp::Cursor;
use zhttp::hold::GapReason;

/// One event, as it was stored.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: Cursor,
    /// What it follows.
    pub(crate) prev: Cursor,
    /// It ended the channel.
    pub(crate) end: bool,
    /// It is about the stream itself.
    pub(crate) control: bool,
    /// What readers get.
    pub(crate) data: Rc<str>,
    /// From when on its publisher knows.
    pub(crate) acknowledged_ms: u64,
}

impl Event {
    /// Whether a reader at `cursor` misses nothing when it gets this next.
    fn follows(&self, cursor: Cursor) -> bool {
        self.prev == cursor || Cursor::new(self.id.epoch, self.id.offset - 1) == cursor
    }
}

/// What is to be appended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NewEvent {
    /// A message, with so much padding.
    Message { padding: usize },
    /// The last message of an epoch.
    End,
    /// The cleaner ends the channel.
    Idle,
    /// A fail-over has lost something.
    Loss,
    /// The log is gone: the end of one that begins with it.
    Gone,
}

/// One channel.
#[derive(Debug, Default)]
pub(crate) struct Channel {
    /// Its name on the wire.
    pub(crate) name: String,
    /// The log. Never empty while there is one.
    kept: VecDeque<Rc<Event>>,
    /// The epoch in which the log began.
    born: u64,
    last_epoch: u64,
    /// A fail-over was here: the next event begins an epoch.
    is_renewed: bool,
}

/// What is kept after a cursor.
#[derive(Debug, Default)]
pub(crate) struct Range {
    /// Nothing is kept between the cursor and this event.
    pub(crate) gap: Option<(Cursor, GapReason)>,
    pub(crate) events: Vec<Rc<Event>>,
}

/// All channels.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) channels: Vec<Channel>,
    /// What the judge knows.
    pub(crate) history: History,
    /// What its clock shows more than the world's; never below 0.
    pub(crate) clock_ahead_ms: u64,
}

/// What a fail-over did to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Loss {
    pub(crate) acknowledged: usize,
    pub(crate) unacknowledged: usize,
    pub(crate) is_all: bool,
}

/// The place of a cursor, for the judge.
pub(crate) fn id_of(cursor: Cursor) -> Id {
    Id::new(cursor.epoch, cursor.offset)
}

impl Store {
    /// So many channels without logs.
    pub(crate) fn new(channels: usize) -> Self {
        let name = |index| format!("o:c{index}");
        let channel = |index| Channel { name: name(index), ..Channel::default() };
        Store {
            channels: (0..channels).map(channel).collect(),
            history: History::new((0..channels).map(name)),
            clock_ahead_ms: 0,
        }
    }

    /// Appends an event; its publisher knows `delay_ms` later. Also says whether its epoch is ahead of the clock.
    ///
    /// # Errors
    ///
    /// The ids do not grow.
    pub(crate) fn append(
        &mut self,
        now_ms: u64,
        index: usize,
        new: NewEvent,
        delay_ms: u64,
    ) -> Result<(Rc<Event>, bool), String> {
        let channel = &mut self.channels[index];
        let clock_ms = now_ms + self.clock_ahead_ms;
        let head = channel.head();
        let begins = channel.kept.is_empty() || channel.ended() || channel.is_renewed;
        let is_ahead = begins && channel.last_epoch >= clock_ms;
        let id = if begins {
            channel.last_epoch = clock_ms.max(channel.last_epoch + 1);
            channel.is_renewed = false;
            if channel.kept.is_empty() {
                channel.born = channel.last_epoch;
            }
            Cursor::new(channel.last_epoch, 1)
        } else {
            head.plus(1)
        };
        let event = Rc::new(Event {
            id,
            prev: head,
            end: matches!(new, NewEvent::End | NewEvent::Idle | NewEvent::Gone),
            control: matches!(new, NewEvent::Idle | NewEvent::Loss | NewEvent::Gone),
            data: data(&channel.name, id, new).into(),
            acknowledged_ms: now_ms + delay_ms,
        });
        channel.kept.push_back(Rc::clone(&event));
        let record = Record {
            id: id_of(id),
            prev: id_of(head),
            end: event.end,
            control: event.control,
            data: Rc::clone(&event.data),
            born: channel.born,
            tick: 0,
            acknowledged_ms: event.acknowledged_ms,
            is_kept: true,
            is_lost: false,
        };
        self.history.append(index, record)?;
        Ok((event, is_ahead))
    }

    /// Drops the oldest events, but for the last one.
    pub(crate) fn trim(&mut self, index: usize, count: usize) {
        let channel = &mut self.channels[index];
        let count = count.min(channel.kept.len().saturating_sub(1));
        channel.kept.drain(..count);
        if let Some(oldest) = channel.kept.front() {
            self.history.trim(index, id_of(oldest.id));
        }
    }

    /// Deletes the log if this is its last event. Says whether it was.
    ///
    /// # Errors
    ///
    /// It deleted what it must not.
    pub(crate) fn delete(&mut self, index: usize, fence: Cursor) -> Result<bool, String> {
        let channel = &mut self.channels[index];
        if channel.kept.is_empty() || channel.head() != fence {
            return Ok(false);
        }
        channel.kept.clear();
        self.history.delete(index, id_of(fence))?;
        Ok(true)
    }

    /// Another node takes over, which has not got the newest events.
    pub(crate) fn fail_over(&mut self, now_ms: u64, index: usize, lag: usize) -> Loss {
        let channel = &mut self.channels[index];
        channel.is_renewed = true;
        let kept = channel.kept.len().saturating_sub(lag);
        let lost = channel.kept.split_off(kept);
        let is_acknowledged = |event: &&Rc<Event>| event.acknowledged_ms <= now_ms;
        let acknowledged = lost.iter().filter(is_acknowledged).count();
        if !lost.is_empty() {
            self.history.fail_over(now_ms, index, id_of(channel.head()));
        }
        Loss {
            acknowledged,
            unacknowledged: lost.len() - acknowledged,
            is_all: channel.kept.is_empty() && !lost.is_empty(),
        }
    }
}

fn data(name: &str, id: Cursor, new: NewEvent) -> String {
    let short = name.split_once(':').map_or(name, |(_, short)| short);
    let control = |kind: &str| {
        format!(
            r#"{{"event_type":"control","message_id":"{id}","control_type":"{kind}","channel":"{short}"}}"#
        )
    };
    match new {
        NewEvent::Message { padding } => {
            format!(r#"{{"channel":"{name}","id":"{id}","pad":"{}"}}"#, "x".repeat(padding))
        }
        NewEvent::End => format!(r#"{{"channel":"{name}","id":"{id}","text":"the end"}}"#),
        NewEvent::Idle => control("idle"),
        NewEvent::Loss => control("failover"),
        NewEvent::Gone => control("expired"),
    }
}

impl Channel {
    /// The last event of the log; `0-0` if there is none.
    pub(crate) fn head(&self) -> Cursor {
        self.kept.back().map_or(Cursor::START, |event| event.id)
    }

    /// The log ends with END.
    pub(crate) fn ended(&self) -> bool {
        self.kept.back().is_some_and(|event| event.end)
    }

    /// A fail-over was here, and nothing was appended since.
    pub(crate) fn is_renewed(&self) -> bool {
        self.is_renewed
    }

    /// The place before the oldest event that is kept.
    pub(crate) fn oldest_prev(&self) -> Cursor {
        self.kept.front().map_or(Cursor::START, |event| event.prev)
    }

    /// Reads after a cursor: up to so many bytes of data, but at least one event if there is one.
    pub(crate) fn range(&self, after: Cursor, bytes_max: usize) -> Range {
        let first = self.kept.partition_point(|event| event.id <= after);
        let mut range = Range::default();
        let Some(next) = self.kept.get(first) else { return range };
        if !next.follows(after) {
            // Who stands behind the place from which the log goes on has what was lost (H-57).
            let is_same =
                after == Cursor::START || (after.epoch >= self.born && after <= next.prev);
            let reason = if is_same { GapReason::Trimmed } else { GapReason::Recreated };
            range.gap = Some((next.id, reason));
        }
        let mut bytes = 0;
        for event in self.kept.range(first..) {
            if bytes > 0 && bytes + event.data.len() > bytes_max {
                break;
            }
            bytes += event.data.len();
            range.events.push(Rc::clone(event));
        }
        range
    }
}
