//! Counting: what is wrong with a stream is put into a class, and the reader goes on behind it.
//!
//! A simulation stops at the first violation, since its seed plays the run again. Real processes run once: there one
//! wants to know how many events came twice, and how many were missing, of all that a client got. So a block that the
//! [`Reader`] refuses is looked at once more, together with the place where the reader stands, and then the reader is put
//! where the block says that it is.

use crate::afterwards::ACKNOWLEDGED_MS;

use super::{Begin, GapKind, Reader, Seen, Taken};
use crate::sse::{Block, field};
use crate::{Cursors, History, Id};

/// Violations that are told in words; the others are only counted.
const WORDS_MAX: usize = 20;

/// What clients got, and what was wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events of channels that came.
    pub events: u64,
    /// Gaps that were told, and true: those that span a loss, or lead back from one.
    pub gaps_lost: u64,
    /// Gaps that were told, and true, of any other kind.
    pub gaps_other: u64,
    /// Events that came again.
    pub repeats: u64,
    /// Events that are kept and were passed over.
    pub holes: u64,
    /// Events that are kept, and that a gap said were not: told, but untrue.
    pub astray: u64,
    /// Times that a reader was led past events that the store has lost, and that it stood among, without a word.
    pub unsignalled: u64,
    /// Acknowledged events that the store has lost, each once for each reader that stood just before them all and went on
    /// with what the store has in their place: for it nothing is missing in the log.
    pub never_seen: u64,
    /// Whatever else was wrong.
    pub others: u64,
    /// The first violations, in words.
    pub words: Vec<String>,
}

impl Tally {
    /// Whether nothing was wrong.
    pub fn is_clean(&self) -> bool {
        self.repeats + self.holes + self.astray + self.unsignalled + self.others == 0
    }

    /// Adds what another reader got.
    pub fn add(&mut self, other: Tally) {
        self.events += other.events;
        self.gaps_lost += other.gaps_lost;
        self.gaps_other += other.gaps_other;
        self.repeats += other.repeats;
        self.holes += other.holes;
        self.astray += other.astray;
        self.unsignalled += other.unsignalled;
        self.never_seen += other.never_seen;
        self.others += other.others;
        for word in other.words {
            self.word(word);
        }
    }

    /// Notes something else that was wrong.
    pub fn blame(&mut self, what: String) {
        self.others += 1;
        self.word(what);
    }

    /// An event came that follows the place, by what it says itself. There may be others in between: where two servers
    /// have both taken appends for a while, the log of one of them is gone.
    fn passed_over(&mut self, history: &History, channel: usize, (at, to): (Id, Id)) {
        for between in history.log(channel).between(at, to) {
            if between.is_kept {
                self.holes += 1;
                self.word(format!("{to} came at {at}, but {} is kept", between.id));
            } else if between.is_lost && between.acknowledged_ms == ACKNOWLEDGED_MS {
                self.never_seen += 1;
            }
        }
    }

    /// Says what is counted, in words.
    pub fn word(&mut self, what: String) {
        if self.words.len() < WORDS_MAX {
            self.words.push(what);
        }
    }
}

impl Reader {
    /// Where it stands in a channel; `None` if it does not read it.
    pub fn place(&self, channel: usize) -> Option<Id> {
        self.standing.places.get(&channel).copied()
    }

    /// A client comes, or comes back, for these channels with the id that it got last. What a handler makes of that is not
    /// seen from outside: it is to begin where the id says, or at the beginning.
    pub fn come(&mut self, history: &History, channels: &[usize], presented: Option<&str>) {
        let cursors = presented.and_then(Cursors::parse);
        let taken = |channel: &usize| {
            let log = history.log(*channel);
            let at = cursors.as_ref().and_then(|id| id.of(&log.name)).unwrap_or(Id::START);
            let ended = log.record(at).is_some_and(|record| record.end && log.head() == at);
            Taken { channel: *channel, at, ended }
        };
        let taken: Vec<Taken> = channels.iter().map(taken).collect();
        self.begin(history, Begin { presented, taken: &taken, tick: 0 });
    }

    /// Takes a block, and counts it. Returns what it was, also if it should not have come.
    pub fn count_block(
        &mut self,
        history: &History,
        block: &Block,
        tally: &mut Tally,
    ) -> Option<Seen> {
        let before = self.standing.places.clone();
        let seen = match self.judge(history, block) {
            Ok(seen) => seen,
            Err(why) => return self.classify(history, block, why, tally),
        };
        match seen {
            Some(Seen::Event { channel, .. }) => {
                tally.events += 1;
                let (at, to) = (before.get(&channel), self.standing.places.get(&channel));
                if let (Some(&at), Some(&to)) = (at, to) {
                    tally.passed_over(history, channel, (at, to));
                }
            }
            Some(Seen::Gap(GapKind::Back)) => {
                tally.gaps_lost += 1;
                // Only a place that was lost is beyond the end of a log, whatever heads it has had.
                let moved = before
                    .iter()
                    .find(|(channel, at)| self.standing.places.get(channel) != Some(at));
                if let Some((&channel, &at)) = moved
                    && history.log(channel).record(at).is_some_and(|record| record.is_kept)
                {
                    tally.blame(format!("led back from {at}, which is kept: {:?}", block.data));
                }
            }
            Some(Seen::Gap(GapKind::Lost)) => tally.gaps_lost += 1,
            Some(Seen::Gap(GapKind::Trimmed | GapKind::Recreated)) => {
                tally.gaps_other += 1;
            }
            Some(Seen::Draining | Seen::Note | Seen::Comment | Seen::Marker) | None => {}
        }
        seen
    }

    /// A block that is not what the reader is owed.
    fn classify(
        &mut self,
        history: &History,
        block: &Block,
        why: String,
        tally: &mut Tally,
    ) -> Option<Seen> {
        tally.word(why);
        let Some((channel, to)) = event_of(history, block) else {
            tally.others += 1;
            return None;
        };
        if block.data.as_deref().is_some_and(|data| field(data, "control_type") == Ok("gap")) {
            // It is not as it should be, and moves the reader all the same.
            let at = self.standing.places.get(&channel).copied().unwrap_or(to);
            let passed = history.log(channel).between(at, to.next());
            match passed.filter(|record| record.is_kept).count() {
                0 => tally.others += 1,
                kept => tally.astray += kept as u64,
            }
            self.standing.places.insert(channel, to);
            self.last_id.clone_from(&block.id);
            return None;
        }
        let log = history.log(channel);
        let (at, record) = (self.standing.places.get(&channel).copied(), log.record(to));
        let (Some(at), Some(record)) = (at, record) else {
            tally.others += 1;
            return None;
        };
        tally.events += 1;
        let kept = log.between(at, to).filter(|record| record.is_kept).count() as u64;
        let stood_among_lost = log.record(at).is_some_and(|record| record.is_lost);
        if Some(&*record.data) != block.data.as_deref() || record.follows(at) {
            tally.others += 1;
        } else if to <= at {
            // Whatever lies before the place has come, or its absence is counted.
            tally.repeats += 1;
        } else {
            tally.holes += kept;
            if kept == 0 || stood_among_lost {
                tally.unsignalled += 1;
            }
        }
        self.standing.places.insert(channel, to);
        self.standing.ended.remove(&channel);
        if record.end {
            self.standing.ended.insert(channel);
        }
        self.last_id.clone_from(&block.id);
        Some(Seen::Event { channel, end: record.end, control: record.control })
    }
}

/// The channel and the id of a block that may be an event of a log.
fn event_of(history: &History, block: &Block) -> Option<(usize, Id)> {
    let data = block.data.as_deref()?;
    let name = field(data, "channel").or_else(|_| field(data, "channel_id")).ok()?;
    let channel = history.channel_of(name)?;
    let to = Cursors::parse(block.id.as_deref()?)?.of(&history.log(channel).name)?;
    Some((channel, to))
}
