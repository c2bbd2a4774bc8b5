//! One client on a WebSocket that reads many channels: each event names its channel and its place, so there is no id of
//! them all, and what the connection reads is changed by what the client is told.
//!
//! A message that is an event of a channel, or a gap in one, is judged here. What else comes, answers to what the client
//! has said among it, is handed out: whoever drives the client says what it means, before the next is looked at.

use std::collections::{BTreeMap, BTreeSet};

use crate::frames::{Frame, FrameReader};
use crate::sse::field;
use crate::standing::{Standing, Told};
use crate::{History, Id, Seen, Taken};

/// What a client has got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// An event, or a gap.
    Seen(Seen),
    /// A message that is no event of a channel.
    Text(String),
    /// The edge asks whether it is there.
    Ping(Vec<u8>),
    /// The edge answers that it is.
    Pong(Vec<u8>),
    /// The end, with its code and reason.
    Close(Option<(u16, String)>),
}

/// What a client knows.
#[derive(Debug, Default)]
pub struct SocketReader {
    standing: Standing,
    /// Channels that a handler has added unasked; whether and when, only their events show.
    offered: BTreeMap<usize, (Taken, u64)>,
    /// Channels that a handler has taken away unasked.
    withdrawn: BTreeSet<usize>,
    frames: FrameReader,
}

/// An event, as a client gets it (hold.md H-61).
struct Event<'a> {
    channel: &'a str,
    cursor: &'a str,
    kind: &'a str,
    data: &'a str,
}

impl SocketReader {
    /// A connection begins; `inflates` says whether its messages may be compressed.
    pub fn begin(&mut self, inflates: bool) {
        *self = SocketReader { frames: FrameReader::new(inflates), ..SocketReader::default() };
    }

    /// From now on it reads a channel, for which it asked at that tick with the cursor `had`.
    ///
    /// # Errors
    ///
    /// It does already.
    pub fn subscribe(&mut self, taken: Taken, had: Option<Id>, tick: u64) -> Result<(), String> {
        if self.standing.set.contains(&taken.channel) {
            return Err(format!("channel {} is subscribed twice", taken.channel));
        }
        self.standing.add(taken, had, tick);
        Ok(())
    }

    /// From now on nothing of a channel may come.
    pub fn unsubscribe(&mut self, channel: usize) {
        self.standing.remove(channel);
        self.withdrawn.remove(&channel);
        self.offered.remove(&channel);
    }

    /// A handler lets it read a channel, and does not say when.
    pub fn offer(&mut self, taken: Taken, tick: u64) {
        self.offered.insert(taken.channel, (taken, tick));
    }

    /// A handler takes a channel away, and does not say when.
    pub fn withdraw(&mut self, channel: usize) {
        self.withdrawn.insert(channel);
    }

    /// The channels that it reads, by what it was told.
    pub fn channels(&self) -> &BTreeSet<usize> {
        &self.standing.set
    }

    /// Where it stands in a channel.
    pub fn place(&self, channel: usize) -> Option<Id> {
        self.standing.places.get(&channel).copied()
    }

    /// Whether it is certain what the connection reads.
    pub fn is_settled(&self) -> bool {
        self.offered.is_empty() && self.withdrawn.is_empty()
    }

    /// Whether it has the end of everything that it reads.
    pub fn is_finished(&self) -> bool {
        self.standing.is_finished()
    }

    /// Whether a close because all has ended may come now.
    pub fn may_be_finished(&self) -> bool {
        !self.is_settled() || self.standing.set.is_subset(&self.standing.ended)
    }

    /// Whether the last that it has of a channel is its end.
    pub fn has_end(&self, channel: usize) -> bool {
        self.standing.ended.contains(&channel)
    }

    /// Whether it stands before the end of a log.
    pub fn is_behind(&self, history: &History) -> bool {
        self.standing.is_behind(history)
    }

    /// What it lacks: an event that is kept and that it has not got, or word that its place is gone.
    pub fn lack(&self, history: &History) -> Option<String> {
        self.standing.lack(history)
    }

    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.frames.push(bytes);
    }

    /// What comes next, if it is whole.
    ///
    /// # Errors
    ///
    /// Says what is wrong with it.
    pub fn next_got(&mut self, history: &History) -> Result<Option<Got>, String> {
        let Some(frame) = self.frames.next_frame()? else { return Ok(None) };
        let got = match frame {
            Frame::Text(text) => match event(&text)? {
                Some(event) => Got::Seen(self.judge(history, &event)?),
                None => Got::Text(text),
            },
            Frame::Ping(payload) => Got::Ping(payload),
            Frame::Pong(payload) => Got::Pong(payload),
            Frame::Close(close) => Got::Close(close),
        };
        Ok(Some(got))
    }

    fn judge(&mut self, history: &History, event: &Event<'_>) -> Result<Seen, String> {
        let Event { channel: name, cursor, kind, data } = *event;
        let channel = history.channel_of(name).ok_or_else(|| format!("no channel {name}"))?;
        let to = Id::parse(cursor).ok_or_else(|| format!("no cursor: {cursor}"))?;
        let is_control = match kind {
            "stream" => false,
            "control" => true,
            other => return Err(format!("an event of type {other}")),
        };
        if let Some((taken, tick)) = self.offered.get(&channel)
            && !self.standing.places.contains_key(&channel)
        {
            self.standing.add(*taken, None, *tick);
        }
        let control_type = if is_control { field(data, "control_type")? } else { "" };
        let told = Told { to: Some(to), is_control, control_type, data };
        let seen = self.standing.handle(history, channel, &told)?;
        if self.place(channel) != Some(to) {
            return Err(format!("{name}: a gap comes with the cursor {to}: {data}"));
        }
        Ok(seen)
    }
}

/// Reads a message that says that it is an event.
fn event(text: &str) -> Result<Option<Event<'_>>, String> {
    let Some(rest) = text.strip_prefix(r#"{"type":"event","#) else { return Ok(None) };
    let member = |rest: &mut &'_ str, name: &str| -> Option<usize> {
        let key = format!("\"{name}\":\"");
        *rest = &rest[rest.starts_with(&key).then_some(key.len())?..];
        rest.find("\",")
    };
    let parse = || {
        let mut rest = rest;
        let mut values = [""; 3];
        for (value, name) in values.iter_mut().zip(["channel", "cursor", "event"]) {
            let end = member(&mut rest, name)?;
            *value = &rest[..end];
            rest = &rest[end + 2..];
        }
        let data = rest.strip_prefix("\"data\":")?.strip_suffix('}')?;
        let [channel, cursor, kind] = values;
        Some(Event { channel, cursor, kind, data })
    };
    parse().map(Some).ok_or_else(|| format!("an event that is not as events are: {text}"))
}
