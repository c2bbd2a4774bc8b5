//! What became of each log: everything that the store ever held, and until when.

use std::rc::Rc;

use crate::Id;

/// An event that the store once held.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its id.
    pub id: Id,
    /// What it follows.
    pub prev: Id,
    /// It ends its epoch.
    pub end: bool,
    /// It is about the stream itself, and is to come as `event: control`.
    pub control: bool,
    /// What readers get.
    pub data: Rc<str>,
    /// The epoch in which its log began.
    pub born: u64,
    /// When it was appended, in ticks of the history.
    pub tick: u64,
    /// From when on its publisher knew, in milliseconds of the world.
    pub acknowledged_ms: u64,
    /// It is in the log.
    pub is_kept: bool,
    /// A fail-over lost it.
    pub is_lost: bool,
}

impl Record {
    /// Whether a reader who stands there misses nothing when it gets this next.
    pub fn follows(&self, at: Id) -> bool {
        self.prev == at || self.id.before() == at
    }
}

/// One channel.
#[derive(Debug, Default)]
pub struct Log {
    /// Its name on the wire.
    pub name: String,
    /// All that there ever was, in the order of ids.
    records: Vec<Record>,
    /// Where the log ended, from which tick on.
    heads: Vec<(u64, Id)>,
}

/// All channels, and the order of what happened to them.
#[derive(Debug, Default)]
pub struct History {
    logs: Vec<Log>,
    tick: u64,
    lost_acknowledged: u64,
    lost_unacknowledged: u64,
}

impl History {
    /// Channels of these names, without logs.
    pub fn new(names: impl Iterator<Item = String>) -> Self {
        let log = |name| Log { name, ..Log::default() };
        History { logs: names.map(log).collect(), ..History::default() }
    }

    /// Counts what has happened.
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// One channel.
    pub fn log(&self, channel: usize) -> &Log {
        &self.logs[channel]
    }

    /// The channel of that name: as on the wire, or as clients see it.
    pub fn channel_of(&self, name: &str) -> Option<usize> {
        let is = |log: &Log| {
            log.name == name || log.name.split_once(':').is_some_and(|(_, short)| short == name)
        };
        self.logs.iter().position(is)
    }

    /// Events that were lost although they had been acknowledged, and those that had not been.
    pub fn lost(&self) -> (u64, u64) {
        (self.lost_acknowledged, self.lost_unacknowledged)
    }

    /// An event was appended.
    ///
    /// # Errors
    ///
    /// The store gave it an id that is not larger than all before.
    pub fn append(&mut self, channel: usize, record: Record) -> Result<(), String> {
        self.tick += 1;
        let log = &mut self.logs[channel];
        if log.records.last().is_some_and(|last| last.id >= record.id) {
            return Err(format!("{} got {} out of order", log.name, record.id));
        }
        log.heads.push((self.tick, record.id));
        log.records.push(Record { tick: self.tick, ..record });
        Ok(())
    }

    /// What is older than this is kept no more.
    pub fn trim(&mut self, channel: usize, oldest: Id) {
        self.tick += 1;
        for record in self.logs[channel].records.iter_mut().rev() {
            if record.id < oldest {
                // Behind those that were let go before there are no others.
                if !record.is_kept && !record.is_lost {
                    break;
                }
                record.is_kept = false;
            }
        }
    }

    /// The log is gone; whoever deleted it believed that it ended there.
    ///
    /// # Errors
    ///
    /// It did not: an event is lost that somebody had just appended.
    pub fn delete(&mut self, channel: usize, fence: Id) -> Result<(), String> {
        self.tick += 1;
        let log = &mut self.logs[channel];
        if log.head() != fence {
            return Err(format!("{} is deleted at {fence}, and is at {}", log.name, log.head()));
        }
        log.records.iter_mut().for_each(|record| record.is_kept = false);
        log.heads.push((self.tick, Id::START));
        Ok(())
    }

    /// A fail-over at this time lost what came behind `head`; all of the log, if that is `0-0`.
    pub fn fail_over(&mut self, now_ms: u64, channel: usize, head: Id) {
        self.tick += 1;
        let log = &mut self.logs[channel];
        let lost = log.records.iter_mut().filter(|record| record.is_kept && record.id > head);
        for record in lost {
            record.is_kept = false;
            record.is_lost = true;
            let was_acknowledged = record.acknowledged_ms <= now_ms;
            self.lost_acknowledged += u64::from(was_acknowledged);
            self.lost_unacknowledged += u64::from(!was_acknowledged);
        }
        log.heads.push((self.tick, head));
    }
}

impl Log {
    /// The event of that id.
    pub fn record(&self, id: Id) -> Option<&Record> {
        let index = self.records.binary_search_by_key(&id, |record| record.id).ok()?;
        Some(&self.records[index])
    }

    /// Where the log ends now.
    pub fn head(&self) -> Id {
        self.heads.last().map_or(Id::START, |(_, head)| *head)
    }

    /// The heads that it has had since that tick, the one of that tick among them.
    pub fn heads_since(&self, tick: u64) -> impl Iterator<Item = Id> + '_ {
        let first = self.heads.partition_point(|(at, _)| *at <= tick);
        let before = first.checked_sub(1).map_or(Id::START, |index| self.heads[index].1);
        std::iter::once(before).chain(self.heads[first..].iter().map(|(_, head)| *head))
    }

    /// Events between two places, both excluded.
    pub fn between(&self, after: Id, before: Id) -> impl Iterator<Item = &Record> {
        let first = self.records.partition_point(|record| record.id <= after);
        self.records[first..].iter().take_while(move |record| record.id < before)
    }

    /// The last event that there ever was up to this place.
    pub fn last_up_to(&self, id: Id) -> Option<&Record> {
        let count = self.records.partition_point(|record| record.id <= id);
        self.records[..count].last()
    }

    /// All that is kept, oldest first.
    pub fn kept(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.is_kept)
    }
}
