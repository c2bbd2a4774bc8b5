//! The checker: reads the bytes that one client got, as a client would, and judges them.
//!
//! Written apart from the code under test: its own parser of server-sent events (WHATWG HTML, §9.2),
//! its own idea of what follows what, taken from the store's history. For each channel it knows
//! where the reader stands. An event must follow that place; a gap must begin there, end at an event
//! that does not follow, and hold nothing that is still kept. Each id must say where the reader
//! stands in every channel, exactly.

use std::collections::{BTreeMap, BTreeSet};

use zhttp::{Cursor, composite};

use crate::store::{Channel, Event};

/// What a client knows.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// Where it stands in each channel that it reads.
    pub(crate) positions: BTreeMap<usize, Cursor>,
    /// Channels of which it has the end, as the edge knows, and got nothing since.
    ended: BTreeSet<usize>,
    /// The last id that it got.
    pub(crate) last_id: Option<String>,
    /// The channel that `last_id` is of, if that is a plain cursor.
    last_channel: Option<usize>,
    /// Bytes of a block that is not complete.
    partial: Vec<u8>,
    /// How many events it got.
    pub(crate) events: u64,
    /// How many gaps it was told of.
    pub(crate) gaps: u64,
}

/// One server-sent event.
#[derive(Debug, Default)]
struct Block {
    kind: String,
    id: Option<String>,
    data: Option<String>,
}

impl Reader {
    /// The cursor that the last id has for this channel, if it has one.
    pub(crate) fn resume(&self, store: &[Channel], channel: usize) -> Option<Cursor> {
        let id = self.last_id.as_ref()?;
        if composite::is_composite(id) {
            return composite::decode(id).ok()?.cursor_of(&store[channel].name);
        }
        id.parse().ok().filter(|_| self.last_channel == Some(channel))
    }

    /// A new connection begins, at these cursors.
    pub(crate) fn connect(&mut self, positions: BTreeMap<usize, Cursor>) {
        self.positions = positions;
        self.ended.clear();
        self.partial.clear();
    }

    /// The edge was told that the reader has the end of this channel.
    pub(crate) fn know_end(&mut self, channel: usize) {
        self.ended.insert(channel);
    }

    /// Takes bytes.
    ///
    /// # Errors
    ///
    /// Says what is wrong with them.
    pub(crate) fn handle_bytes(&mut self, store: &[Channel], bytes: &[u8]) -> Result<(), String> {
        self.partial.extend_from_slice(bytes);
        while let Some(end) = self.partial.windows(2).position(|pair| pair == b"\n\n") {
            let rest = self.partial.split_off(end + 2);
            let text = String::from_utf8(std::mem::replace(&mut self.partial, rest));
            let block = parse(&text.map_err(|error| error.to_string())?)?;
            self.judge(store, &block)?;
        }
        Ok(())
    }

    fn judge(&mut self, store: &[Channel], block: &Block) -> Result<(), String> {
        let data = block.data.as_deref().ok_or("an event without data")?;
        let channel = match block.kind.as_str() {
            "stream" => self.judge_event(store, data)?,
            "control" => self.judge_gap(store, data)?,
            other => return Err(format!("an event of type {other}")),
        };
        let id = block.id.as_ref().ok_or("an event without an id")?;
        self.judge_id(store, channel, id)?;
        self.last_id = Some(id.clone());
        self.last_channel = (self.positions.len() == 1).then_some(channel);
        Ok(())
    }

    fn judge_event(&mut self, store: &[Channel], data: &str) -> Result<usize, String> {
        let name = field(data, "channel")?;
        let channel = store.iter().position(|channel| channel.name == name).ok_or("no channel")?;
        let id = cursor(field(data, "id")?)?;
        let event = store[channel].event(id).ok_or_else(|| format!("{name} never had {id}"))?;
        if event.data != data {
            return Err(format!("{name} {id} was changed on its way"));
        }
        let at = self.position(channel, name)?;
        if !event.follows(at) {
            return Err(format!("{name}: got {id}, which does not follow {at}"));
        }
        self.events += 1;
        self.positions.insert(channel, id);
        self.ended.remove(&channel);
        if event.end {
            self.ended.insert(channel);
        }
        Ok(channel)
    }

    fn judge_gap(&mut self, store: &[Channel], data: &str) -> Result<usize, String> {
        if field(data, "control_type")? != "gap" {
            return Err("a control event that is no gap".into());
        }
        let name = field(data, "channel")?;
        let short =
            |channel: &Channel| channel.name.split_once(':').map(|(_, short)| short == name);
        let channel = store.iter().position(|channel| short(channel) == Some(true));
        let channel = channel.ok_or("a gap in no channel")?;
        let (from, to) = (cursor(field(data, "from")?)?, cursor(field(data, "to")?)?);
        let at = self.position(channel, name)?;
        if from != at {
            return Err(format!("{name}: told of a gap from {from}, and stands at {at}"));
        }
        let log = &store[channel];
        let first = log.event(to).ok_or_else(|| format!("{name} never had {to}"))?;
        if to <= at || first.follows(at) {
            return Err(format!("{name}: told of a gap from {from} to {to} where none is"));
        }
        let inside = |event: &&Event| at < event.id && event.id < to;
        if let Some(kept) = log.history.iter().filter(inside).find(|event| log.keeps(event.id)) {
            return Err(format!(
                "{name}: told of a gap from {from} to {to}, but {} is kept",
                kept.id
            ));
        }
        let begins_log = |event: &Event| {
            at.epoch < event.id.epoch && event.id <= to && event.prev == Cursor::START
        };
        let same_log = at == Cursor::START || !log.history.iter().any(begins_log);
        let reason = if same_log { "trimmed" } else { "recreated" };
        let said = field(data, "reason")?;
        if said != reason {
            return Err(format!("{name}: the gap from {from} to {to} is not {said}"));
        }
        self.gaps += 1;
        self.ended.remove(&channel);
        self.positions.insert(channel, Cursor::new(to.epoch, to.offset - 1));
        Ok(channel)
    }

    /// The id must be where the reader stands, in all channels.
    fn judge_id(&self, store: &[Channel], channel: usize, id: &str) -> Result<(), String> {
        if self.positions.len() == 1 {
            let want = self.positions[&channel].to_string();
            return if id == want { Ok(()) } else { Err(format!("the id is {id}, not {want}")) };
        }
        let composite = composite::decode(id).map_err(|error| error.to_string())?;
        if composite.channels() != self.positions.len() {
            return Err(format!("an id of {} channels", composite.channels()));
        }
        for (&channel, &at) in &self.positions {
            let name = &store[channel].name;
            let said = composite.cursor_of(name);
            if said != Some(at) {
                return Err(format!("the id says {said:?} for {name}, which is at {at}"));
            }
        }
        Ok(())
    }

    fn position(&self, channel: usize, name: &str) -> Result<Cursor, String> {
        self.positions.get(&channel).copied().ok_or_else(|| format!("{name} is not read"))
    }

    /// Whether it got the end of everything that it reads: then its connection should have ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.positions.keys().all(|channel| self.ended.contains(channel))
    }

    /// A channel is read no more.
    pub(crate) fn forget(&mut self, channel: usize) {
        self.positions.remove(&channel);
        self.ended.remove(&channel);
    }

    /// What the reader lacks: an event that is kept, and that it has not got.
    pub(crate) fn lacks(&self, store: &[Channel]) -> Option<String> {
        self.positions.iter().find_map(|(&channel, &at)| {
            let (name, head) = (&store[channel].name, store[channel].head());
            (head > at).then(|| format!("stands at {at} in {name}, which is at {head}"))
        })
    }
}

/// Reads one block, without its empty line.
fn parse(text: &str) -> Result<Block, String> {
    let mut block = Block::default();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.split_once(": ") {
            Some(("event", kind)) => block.kind = kind.into(),
            Some(("id", id)) => block.id = Some(id.into()),
            Some(("data", data)) if block.data.is_none() => block.data = Some(data.into()),
            Some(_) | None => return Err(format!("a line that nobody wrote: {line}")),
        }
    }
    Ok(block)
}

/// The text of a field of flat JSON.
fn field<'a>(json: &'a str, name: &str) -> Result<&'a str, String> {
    let missing = || format!("no {name} in {json}");
    let key = format!("\"{name}\":\"");
    let start = json.find(&key).ok_or_else(missing)? + key.len();
    let len = json[start..].find('"').ok_or_else(missing)?;
    Ok(&json[start..start + len])
}

fn cursor(text: &str) -> Result<Cursor, String> {
    text.parse().map_err(|_| format!("{text} is no cursor"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// One channel: epochs 10 (three events, the last one END) and 20 (two events) in one log; then
    /// that is deleted, and 30 (three events, the first one trimmed) is there.
    fn store() -> Vec<Channel> {
        let mut channel = Channel::new("o:c0".into());
        for (now_ms, end) in [(10, false), (10, false), (10, true), (20, false), (20, false)] {
            channel.append(now_ms, end, 1);
        }
        channel.delete();
        for _ in 0..3 {
            channel.append(30, false, 1);
        }
        channel.trim(1);
        vec![channel]
    }

    fn event(store: &[Channel], epoch: u64, offset: u64) -> String {
        let event = store[0].event(Cursor::new(epoch, offset)).unwrap();
        format!("event: stream\nid: {}\ndata: {}\n\n", event.id, event.data)
    }

    fn gap(from: &str, to: &str, reason: &str, id: &str) -> String {
        format!(
            "event: control\nid: {id}\ndata: {{\"control_type\":\"gap\",\"channel\":\"c0\",\
             \"from\":\"{from}\",\"to\":\"{to}\",\"reason\":\"{reason}\"}}\n\n"
        )
    }

    /// What is wrong with this for a reader that stands there.
    fn judge(store: &[Channel], epoch: u64, offset: u64, text: &str) -> Result<(), String> {
        let mut reader = Reader::default();
        reader.connect(BTreeMap::from([(0, Cursor::new(epoch, offset))]));
        text.as_bytes().chunks(7).try_for_each(|bytes| reader.handle_bytes(store, bytes))
    }

    #[test]
    fn what_is_right_passes() {
        let store = store();
        let on = event(&store, 10, 2) + &event(&store, 10, 3) + &event(&store, 20, 1);
        judge(&store, 10, 1, &on).unwrap();
        let anew = gap("20-1", "30-2", "recreated", "30-1") + &event(&store, 30, 2);
        judge(&store, 20, 1, &anew).unwrap();
        judge(&store, 30, 0, &gap("30-0", "30-2", "trimmed", "30-1")).unwrap();
        judge(&store, 0, 0, &gap("0-0", "30-2", "trimmed", "30-1")).unwrap();
    }

    #[test]
    fn what_is_wrong_does_not() {
        let store = store();
        let wrong = |epoch, offset, text: &str, why: &str| {
            let error = judge(&store, epoch, offset, text).unwrap_err();
            assert!(error.contains(why), "{error}");
        };
        wrong(10, 2, &event(&store, 10, 2), "does not follow");
        wrong(10, 1, &event(&store, 10, 3), "does not follow");
        wrong(10, 2, &event(&store, 20, 1), "does not follow");
        wrong(20, 2, &event(&store, 30, 1), "does not follow");
        wrong(10, 1, &event(&store, 10, 2).replace("id: 10-2", "id: 10-3"), "the id is");
        wrong(10, 1, &event(&store, 10, 2).replace("id: 10-2\n", ""), "without an id");
        wrong(10, 1, &event(&store, 10, 2).replace("\"x\"", "\"y\""), "changed");
        wrong(20, 1, &gap("20-2", "30-2", "recreated", "30-1"), "stands at");
        wrong(20, 1, &gap("20-1", "30-2", "trimmed", "30-1"), "not trimmed");
        wrong(30, 0, &gap("30-0", "30-2", "recreated", "30-1"), "not recreated");
        wrong(30, 0, &gap("30-0", "30-3", "trimmed", "30-2"), "is kept");
        wrong(30, 1, &gap("30-1", "30-2", "trimmed", "30-1"), "none is");
        wrong(10, 3, &gap("10-3", "20-1", "trimmed", "20-0"), "none is");
    }
}
