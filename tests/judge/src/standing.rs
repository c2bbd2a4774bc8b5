//! Where a client stands in each channel that it reads, and what may come next there: the rules that are the same
//! whatever the form in which events come (hold.md H-80, H-56).

use std::collections::{BTreeMap, BTreeSet};

use crate::sse::field;
use crate::{GapKind, History, Id, Log, Record, Seen, Taken};

/// Where a reader stands.
#[derive(Debug, Default)]
pub(crate) struct Standing {
    /// Its place in each channel that it has read since it connected.
    pub(crate) places: BTreeMap<usize, Id>,
    /// The channels that it reads.
    pub(crate) set: BTreeSet<usize>,
    /// Channels of which it has the end, and got nothing since.
    pub(crate) ended: BTreeSet<usize>,
    /// When it asked for each, in ticks of the history.
    asked: BTreeMap<usize, u64>,
}

/// What comes as an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told<'a> {
    /// Where it leads to; a gap may leave that to its data.
    pub(crate) to: Option<Id>,
    /// It comes with the type `control`.
    pub(crate) is_control: bool,
    /// The type within it then, or nothing.
    pub(crate) control_type: &'a str,
    pub(crate) data: &'a str,
}

impl Standing {
    /// It reads a channel from there on, for which it asked at that tick. What it has got itself, `had`, it knows better
    /// than the handler.
    pub(crate) fn add(&mut self, taken: Taken, had: Option<Id>, tick: u64) {
        self.set.insert(taken.channel);
        self.places.insert(taken.channel, had.unwrap_or(taken.at));
        self.asked.insert(taken.channel, tick);
        if taken.ended {
            self.ended.insert(taken.channel);
        } else {
            self.ended.remove(&taken.channel);
        }
    }

    /// It reads a channel no more, and nothing of it may come.
    pub(crate) fn remove(&mut self, channel: usize) {
        self.set.remove(&channel);
        self.places.remove(&channel);
        self.ended.remove(&channel);
        self.asked.remove(&channel);
    }

    /// Whether it has the end of everything that it reads.
    pub(crate) fn is_finished(&self) -> bool {
        !self.set.is_empty() && self.set.is_subset(&self.ended)
    }

    /// What it lacks: an event that is kept and that it has not got, or word that its place is gone.
    pub(crate) fn lack(&self, history: &History) -> Option<String> {
        self.set.iter().find_map(|channel| {
            let (log, at) = (history.log(*channel), self.places[channel]);
            let head = log.head();
            if at < head {
                return Some(format!("stands at {at} in {}, which is at {head}", log.name));
            }
            // Who has an END has all that it waits for; and of a log that is none nothing can be told.
            let is_beyond = at > head && head != Id::START && !self.ended.contains(channel);
            is_beyond.then(|| format!("stands at {at} in {}, beyond its end {head}", log.name))
        })
    }

    /// Whether it stands before the end of a log.
    pub(crate) fn is_behind(&self, history: &History) -> bool {
        self.places.iter().any(|(channel, at)| *at < history.log(*channel).head())
    }

    /// Takes an event or a gap of a channel, and stands behind it.
    pub(crate) fn handle(
        &mut self,
        history: &History,
        channel: usize,
        told: &Told<'_>,
    ) -> Result<Seen, String> {
        let log = history.log(channel);
        let at = *self.places.get(&channel).ok_or_else(|| format!("{} is not read", log.name))?;
        let (seen, to) = match told.control_type {
            "gap" => {
                let tick = self.asked.get(&channel).copied().unwrap_or_default();
                judge_gap(log, (at, tick), told.data)?
            }
            _ => {
                let to = told.to.ok_or("an event without an id")?;
                let record = judge_event(log, at, (to, told.data), told.is_control)?;
                (Seen::Event { channel, end: record.end, control: told.is_control }, to)
            }
        };
        self.places.insert(channel, to);
        // What leads back was told by the handler that has put it there, and knows whether that is an end.
        if seen != Seen::Gap(GapKind::Back) {
            self.ended.remove(&channel);
        }
        if matches!(seen, Seen::Event { end: true, .. }) {
            self.ended.insert(channel);
        }
        Ok(seen)
    }
}

/// The reader stands `at`, and asked at that tick.
fn judge_gap(log: &Log, (at, asked_tick): (Id, u64), data: &str) -> Result<(Seen, Id), String> {
    let id = |name| Id::parse(field(data, name)?).ok_or(format!("no cursor in {data}"));
    let (from, to) = (id("from")?, id("to")?);
    let reason = field(data, "reason")?;
    let name = &log.name;
    if from != at {
        return Err(format!("{name}: told of a gap from {from}, and stands at {at}"));
    }
    if to.before() < at || to == at {
        let mut heads = log.heads_since(asked_tick);
        if !heads.any(|head| head == to.before() && head < at) {
            return Err(format!("{name}: led back from {from} to {to}, which is no end"));
        }
        return Ok((Seen::Gap(GapKind::Back), to.before()));
    }
    if let Some(kept) = log.between(at, to).find(|record| record.is_kept) {
        let kept = kept.id;
        return Err(format!("{name}: told of a gap from {from} to {to}, but {kept} is kept"));
    }
    let first = log.record(to);
    let first = first.ok_or_else(|| format!("{name}: told of a gap to {to}, which never was"))?;
    if first.follows(at) {
        return Err(format!("{name}: told of a gap from {from} to {to} where none is"));
    }
    // Who stands behind the place from which the log goes on has what was lost (H-57).
    let is_same_log = at == Id::START || (at.epoch >= first.born && at <= first.prev);
    if reason != if is_same_log { "trimmed" } else { "recreated" } {
        return Err(format!("{name}: the gap from {from} to {to} is not {reason}"));
    }
    let is_lost = log.record(at).is_some_and(|record| record.is_lost)
        || log.between(at, to).any(|record| record.is_lost);
    let kind = match is_same_log {
        _ if is_lost => GapKind::Lost,
        true => GapKind::Trimmed,
        false => GapKind::Recreated,
    };
    Ok((Seen::Gap(kind), to.before()))
}

fn judge_event<'a>(
    log: &'a Log,
    at: Id,
    (id, data): (Id, &str),
    control: bool,
) -> Result<&'a Record, String> {
    let name = &log.name;
    let record = log.record(id).ok_or_else(|| format!("{name} never had {id}"))?;
    if &*record.data != data || record.control != control {
        return Err(format!("{name} {id} was changed on its way"));
    }
    if !record.follows(at) {
        return Err(format!("{name}: got {id}, which does not follow {at}"));
    }
    Ok(record)
}
