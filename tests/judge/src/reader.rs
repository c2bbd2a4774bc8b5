//! One client: where it stands in each of its channels, and whether what it gets is what it is owed.

mod counting;

use std::collections::BTreeSet;

use crate::sse::{Block, SseReader, field};
use crate::standing::{Standing, Told};
use crate::{Cursors, History, Id};

pub use counting::Tally;

/// How a handler has placed a reader in one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The channel, by its place in the history.
    pub channel: usize,
    /// Where the connection begins.
    pub at: Id,
    /// The reader has the end of the channel.
    pub ended: bool,
}

/// How a connection begins.
#[derive(Clone, Copy, Debug)]
pub struct Begin<'a> {
    /// The id that the client came with.
    pub presented: Option<&'a str>,
    /// Where the handler has put it.
    pub taken: &'a [Taken],
    /// When it asked, in ticks of the history.
    pub tick: u64,
}

/// Why something is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapKind {
    /// The log has let go of its beginning.
    Trimmed,
    /// The log is another one.
    Recreated,
    /// A fail-over lost some of what the gap spans.
    Lost,
    /// It stood beyond the end of the log, and is put there.
    Back,
}

/// What a client has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// An event of a channel.
    Event {
        /// The channel.
        channel: usize,
        /// It ends the channel.
        end: bool,
        /// It is about the stream itself.
        control: bool,
    },
    /// Something is missing.
    Gap(GapKind),
    /// The edge stops.
    Draining,
    /// A handler wrote to the connection.
    Note,
    /// The connection lives.
    Comment,
    /// Where the connection begins.
    Marker,
}

/// What a client knows.
#[derive(Debug, Default)]
pub struct Reader {
    /// Where it stands.
    standing: Standing,
    /// The channels that it has read until a change whose effect it has not seen.
    set_before: Option<BTreeSet<usize>>,
    last_id: Option<String>,
    /// The channel of the last id, if that is plain.
    last_channel: Option<usize>,
    sse: SseReader,
    asked_tick: u64,
    was_sent_away: bool,
}

impl Reader {
    /// The id to come back with, for one who wants these channels; none if the last one says nothing of them.
    pub fn resume(&self, wants: &BTreeSet<usize>) -> Option<&str> {
        let id = self.last_id.as_deref()?;
        let fits = id.starts_with('~') || wants.iter().eq(self.last_channel.iter());
        fits.then_some(id)
    }

    /// It forgets where it was.
    pub fn forget(&mut self) {
        self.last_id = None;
    }

    /// A response begins.
    pub fn begin(&mut self, history: &History, begin: Begin<'_>) {
        let presented = begin.presented.and_then(Cursors::parse);
        self.standing = Standing::default();
        for taken in begin.taken {
            let had = presented.as_ref().and_then(|id| id.of(&history.log(taken.channel).name));
            self.standing.add(*taken, had, begin.tick);
        }
        self.set_before = None;
        self.sse = SseReader::default();
        self.asked_tick = begin.tick;
        self.was_sent_away = false;
    }

    /// Whether it is certain which channels the connection reads.
    pub fn is_settled(&self) -> bool {
        self.set_before.is_none()
    }

    /// A handler changes what the connection reads; it shows later, or never.
    pub fn change(&mut self, added: &[Taken], removed: &[usize]) {
        self.set_before = Some(self.standing.set.clone());
        for channel in removed {
            // What it has got of it stays true until it shows that nothing more comes.
            self.standing.set.remove(channel);
        }
        for taken in added {
            let had_end = self.standing.ended.contains(&taken.channel);
            self.standing.add(
                Taken { ended: taken.ended || had_end, ..*taken },
                None,
                self.asked_tick,
            );
        }
    }

    /// Takes bytes of the response's content.
    ///
    /// # Errors
    ///
    /// Says what is wrong with them.
    pub fn handle_bytes(&mut self, history: &History, bytes: &[u8]) -> Result<Vec<Seen>, String> {
        self.sse.push(bytes);
        let mut seen = Vec::new();
        while let Some(block) = self.sse.next_block()? {
            if let Some(what) = self.judge(history, &block)? {
                seen.push(what);
            }
        }
        Ok(seen)
    }

    /// The response has ended in order.
    ///
    /// # Errors
    ///
    /// It ends within an event, or its end was not due; `may_end` says that somebody has asked for it.
    pub fn finish(&self, may_end: bool) -> Result<(), String> {
        if !self.sse.is_at_boundary() {
            return Err("the response ends within an event".into());
        }
        let ended = |set: &BTreeSet<usize>| set.is_subset(&self.standing.ended);
        let is_due = ended(&self.standing.set) || self.set_before.as_ref().is_some_and(ended);
        if !(may_end || self.was_sent_away || is_due) {
            return Err(format!(
                "the response ends, and {:?} have not all ended",
                self.standing.set
            ));
        }
        Ok(())
    }

    /// Whether it has the end of everything that it reads: then its response should have ended.
    pub fn is_finished(&self) -> bool {
        self.standing.is_finished()
    }

    /// What it lacks: an event that is kept and that it has not got, or word that its place is gone.
    pub fn lack(&self, history: &History) -> Option<String> {
        self.standing.lack(history)
    }

    /// Whether it stands before the end of a log.
    pub fn is_behind(&self, history: &History) -> bool {
        self.standing.is_behind(history)
    }

    fn judge(&mut self, history: &History, block: &Block) -> Result<Option<Seen>, String> {
        if block.comment {
            return Ok(Some(Seen::Comment));
        }
        let said = block.id.as_deref().map(|id| Cursors::parse(id).ok_or("no id of ours"));
        let said = said.transpose()?;
        let Some(data) = block.data.as_deref() else {
            let Some(said) = said else { return Ok(None) };
            // Of one channel it may be the one that was read alone before a change.
            let alone = |set: &BTreeSet<usize>| (set.len() == 1).then(|| set.first().copied());
            let before = self.set_before.as_ref().and_then(alone);
            let channel = alone(&self.standing.set).or(before).flatten();
            let channel = channel.or_else(|| self.standing.set.first().copied());
            let channel = channel.ok_or("an id, and no channels")?;
            self.judge_id(history, (channel, block), &said)?;
            return Ok(Some(Seen::Marker));
        };
        let is_control = match block.kind.as_deref() {
            Some("stream") => false,
            Some("control") => true,
            other => return Err(format!("an event of type {other:?}")),
        };
        let control_type = if is_control { field(data, "control_type")? } else { "" };
        match control_type {
            "server_draining" if !self.was_sent_away && said.is_none() => {
                self.was_sent_away = true;
                return Ok(Some(Seen::Draining));
            }
            "note" if said.is_none() => return Ok(Some(Seen::Note)),
            "server_draining" | "note" => return Err(format!("{data} with an id, or again")),
            _ => {}
        }
        let channel = field(data, "channel").or_else(|_| field(data, "channel_id"))?;
        let channel = history.channel_of(channel).ok_or_else(|| format!("no channel {channel}"))?;
        let to = said.as_ref().and_then(|said| said.of(&history.log(channel).name));
        let told = Told { to, is_control, control_type, data };
        let seen = self.standing.handle(history, channel, &told)?;
        match said {
            Some(said) => self.judge_id(history, (channel, block), &said)?,
            // A handler tells of several in a row, with an id behind the last.
            None if seen == Seen::Gap(GapKind::Back) => {}
            None => return Err(format!("{data} without an id")),
        }
        Ok(Some(seen))
    }

    /// The id must be where the reader stands, in all its channels.
    fn judge_id(
        &mut self,
        history: &History,
        (channel, block): (usize, &Block),
        said: &Cursors,
    ) -> Result<(), String> {
        let stands = |set: &BTreeSet<usize>| match said {
            Cursors::Plain(id) => {
                set.len() == 1 && set.contains(&channel) && self.standing.places[&channel] == *id
            }
            Cursors::Composite { .. } => {
                let is_at = |other: &usize| {
                    said.of(&history.log(*other).name) == Some(self.standing.places[other])
                };
                set.len() == said.channels() && set.len() > 1 && set.iter().all(is_at)
            }
        };
        let is_old = self.set_before.as_ref().is_some_and(stands);
        if stands(&self.standing.set) {
            if !is_old {
                self.set_before = None;
            }
        } else if !is_old {
            return Err(format!(
                "the id {said:?} is not where it stands: {:?}",
                self.standing.places
            ));
        }
        self.last_id.clone_from(&block.id);
        self.last_channel = matches!(said, Cursors::Plain(_)).then_some(channel);
        Ok(())
    }
}
