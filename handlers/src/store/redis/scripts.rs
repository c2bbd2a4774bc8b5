//! The Lua scripts, the keys that they work on, and the replies that they give.
//!
//! What has to be one atomic step is one script; each file says what its keys, arguments and
//! replies are. All keys of one channel share the hash tag `{org:channel}`, so that one script may
//! use them together on a cluster; the shards of the activity index and the leases have tags of
//! their own, and are never used in one script with a channel's.
//!
//! Scripts are called by their hash. They are loaded when a connection is made, as it may be to a
//! server that was restarted; should one be missing all the same (`SCRIPT FLUSH`), the caller loads
//! them again and repeats exactly the calls that were not executed.

use bytes::Bytes;
use redis::{Cmd, FromRedisValue, Value};
use zhttp::Cursor;

use crate::store::{
    AppendError, Appended, ChannelName, Conditions, EventKind, Gap, Head, NewEvent, Range,
    RangeLimits, StoreError, StoredEvent,
};

/// How long the epoch of a deleted log is remembered, in milliseconds (one hour): that a channel
/// made anew gets a larger one even if the server's clock is set back meanwhile, by up to this.
const GRAVE_TTL_MS: u64 = 3_600_000;

struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    fn new(code: &'static str) -> Self {
        Script { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// A call of the script, without its arguments yet.
    fn call(&self, keys: &[&str]) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash).arg(keys.len()).arg(keys);
        command
    }
}

/// How announcements are made: to all who follow a server, or, on a cluster, to those who follow the
/// one node that has the channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announce {
    Plain,
    Sharded,
}

impl Announce {
    /// The command that announces.
    pub(super) const fn publish(self) -> &'static str {
        match self {
            Announce::Plain => "PUBLISH",
            Announce::Sharded => "SPUBLISH",
        }
    }

    /// The command that follows.
    pub(super) const fn subscribe(self) -> &'static str {
        match self {
            Announce::Plain => "SUBSCRIBE",
            Announce::Sharded => "SSUBSCRIBE",
        }
    }

    /// The command that follows no more.
    pub(super) const fn unsubscribe(self) -> &'static str {
        match self {
            Announce::Plain => "UNSUBSCRIBE",
            Announce::Sharded => "SUNSUBSCRIBE",
        }
    }
}

/// All scripts.
pub(super) struct Scripts {
    announce: Announce,
    append: Script,
    range: Script,
    head: Script,
    delete: Script,
    touch: Script,
    untouch: Script,
    lease: Script,
}

impl Scripts {
    pub(super) fn new(announce: Announce) -> Self {
        Scripts {
            announce,
            append: Script::new(include_str!("append.lua")),
            range: Script::new(include_str!("range.lua")),
            head: Script::new(include_str!("head.lua")),
            delete: Script::new(include_str!("delete.lua")),
            touch: Script::new(include_str!("touch.lua")),
            untouch: Script::new(include_str!("untouch.lua")),
            lease: Script::new(include_str!("lease.lua")),
        }
    }

    /// The commands that load all scripts.
    pub(super) fn load(&self) -> redis::Pipeline {
        let Scripts { announce: _, append, range, head, delete, touch, untouch, lease } = self;
        let mut pipeline = redis::pipe();
        for script in [append, range, head, delete, touch, untouch, lease] {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(script.code).ignore();
        }
        pipeline
    }

    pub(super) fn append(
        &self,
        channel: &ChannelName,
        event: &NewEvent,
        conditions: &Conditions,
    ) -> Cmd {
        let keys = Keys::new(channel);
        let (log, meta, grave, rate) = (keys.log(), keys.meta(), keys.grave(), keys.rate());
        let (live, dedup) = (keys.live(), event.message_id.map(|id| keys.dedup(id)));
        let retention = &conditions.retention;
        let mut names = vec![log.as_str(), &meta, &grave, &rate, &live];
        names.extend(dedup.as_deref());
        let mut command = self.append.call(&names);
        command
            .arg(kind_letter(event.kind))
            .arg(u8::from(event.end))
            .arg(&event.data[..])
            .arg(conditions.expect.map_or(String::new(), |offset| offset.to_string()))
            .arg(conditions.fence.map_or(String::new(), |head| head.to_string()))
            .arg(conditions.rate.map_or(String::new(), |rate| rate.messages.to_string()))
            .arg(conditions.rate.map_or(1, |rate| rate.per_ms.max(1)))
            .arg(retention.ttl_ms(event.end))
            .arg(retention.dedup_ttl_ms)
            .arg(retention.events_max())
            .arg(u8::from(conditions.open))
            .arg(conditions.beyond.map_or(String::new(), |lost| lost.epoch.to_string()))
            .arg(self.announce.publish())
            .arg(u8::from(conditions.torn));
        command
    }

    pub(super) fn range(&self, channel: &ChannelName, after: Cursor, limits: RangeLimits) -> Cmd {
        let keys = Keys::new(channel);
        let mut command = self.range.call(&[&keys.log(), &keys.meta()]);
        command
            .arg(after.epoch)
            .arg(after.offset)
            .arg(limits.events_max.max(1))
            .arg(limits.bytes_max);
        command
    }

    pub(super) fn head(&self, channel: &ChannelName) -> Cmd {
        let keys = Keys::new(channel);
        self.head.call(&[&keys.log(), &keys.meta()])
    }

    pub(super) fn delete(&self, channel: &ChannelName, if_head: Option<Cursor>) -> Cmd {
        let keys = Keys::new(channel);
        let mut command =
            self.delete.call(&[&keys.log(), &keys.meta(), &keys.grave(), &keys.live()]);
        command
            .arg(if_head.map_or(String::new(), |head| head.to_string()))
            .arg(GRAVE_TTL_MS)
            .arg(self.announce.publish());
        command
    }

    pub(super) fn touch(&self, channel: &ChannelName) -> Cmd {
        let mut command = self.touch.call(&[&index_key(channel.shard())]);
        command.arg(channel.as_str());
        command
    }

    pub(super) fn untouch(&self, channel: &ChannelName, active_us: u64) -> Cmd {
        let mut command = self.untouch.call(&[&index_key(channel.shard())]);
        command.arg(channel.as_str()).arg(active_us);
        command
    }

    pub(super) fn lease(&self, shard: u32, owner: &str, ttl_ms: u64) -> Cmd {
        let mut command = self.lease.call(&[&format!("fb:lease:{{{shard}}}")]);
        command.arg(owner).arg(ttl_ms.max(1));
        command
    }
}

/// The keys of one channel.
pub(super) struct Keys<'a> {
    channel: &'a ChannelName,
}

impl<'a> Keys<'a> {
    pub(super) fn new(channel: &'a ChannelName) -> Self {
        Keys { channel }
    }

    fn key(&self, what: &str) -> String {
        format!("fb:{{{}}}:{what}", self.channel)
    }

    fn log(&self) -> String {
        self.key("log")
    }

    pub(super) fn meta(&self) -> String {
        self.key("meta")
    }

    fn grave(&self) -> String {
        self.key("grave")
    }

    fn rate(&self) -> String {
        self.key("rate")
    }

    fn dedup(&self, message_id: uuid::Uuid) -> String {
        self.key(&format!("id:{}", message_id.as_simple()))
    }

    /// The pub/sub channel of the announcements.
    pub(super) fn live(&self) -> String {
        self.key("live")
    }
}

/// The channel whose announcements come on that pub/sub channel.
pub(super) fn channel_of_live(live: &str) -> Option<ChannelName> {
    ChannelName::parse(live.strip_prefix("fb:{")?.strip_suffix("}:live")?).ok()
}

/// The sorted set of a shard of the activity index.
pub(super) fn index_key(shard: u32) -> String {
    format!("fb:idle:{{{shard}}}")
}

fn kind_letter(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Stream => "s",
        EventKind::Control => "c",
    }
}

fn kind_of_letter(letter: &[u8]) -> Option<EventKind> {
    [EventKind::Stream, EventKind::Control]
        .into_iter()
        .find(|kind| kind_letter(*kind).as_bytes() == letter)
}

/// A reply that no script of ours gives.
pub(super) fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("Redis: {what}"))
}

/// Reads a reply, or a part of one, as a type.
pub(super) fn value<T: FromRedisValue>(value: Value) -> Result<T, StoreError> {
    T::from_redis_value(value).map_err(|error| corrupt(&error.to_string()))
}

fn cursor(text: &[u8]) -> Result<Cursor, StoreError> {
    Cursor::from_bytes(text).map_err(|error| corrupt(&error.to_string()))
}

/// Reads the reply of `append.lua`.
pub(super) fn appended(reply: Value) -> Result<Appended, AppendError> {
    let (outcome, what): (u8, Value) = value(reply)?;
    let id = || -> Result<Cursor, StoreError> { cursor(&value::<Vec<u8>>(what.clone())?) };
    match outcome {
        0 => Ok(Appended { id: id()?, duplicate: false }),
        1 => Ok(Appended { id: id()?, duplicate: true }),
        2 => Err(AppendError::Conflict { head: id()? }),
        3 => Err(AppendError::RateLimited { retry_after_ms: value(what)? }),
        _ => Err(corrupt("an append with an unknown outcome").into()),
    }
}

/// Reads the reply of `range.lua`.
pub(super) fn range(reply: Value, after: Cursor) -> Result<Range, StoreError> {
    let parts: Vec<Value> = value(reply)?;
    if parts.is_empty() {
        return Ok(Range::default());
    }
    let [id, ended, oldest, prev, born, entries]: [Value; 6] =
        parts.try_into().map_err(|_| corrupt("a range of another shape"))?;
    let head = known_head([id, ended, oldest, prev])?;
    let born: u64 = value(born)?;
    let entries: Vec<Value> = value(entries)?;
    let events = entries.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    let gap = Gap::between(after, events.first(), head.id, born);
    Ok(Range { events, head, gap })
}

/// Reads the reply of `head.lua`.
pub(super) fn head(reply: Value) -> Result<Head, StoreError> {
    let parts: Vec<Value> = value(reply)?;
    if parts.is_empty() {
        return Ok(Head::default());
    }
    known_head(parts.try_into().map_err(|_| corrupt("a head of another shape"))?)
}

/// The id of the head, whether it is an END, the id of the oldest entry, and its field `prev`.
fn known_head(parts: [Value; 4]) -> Result<Head, StoreError> {
    let [id, ended, oldest, prev] = parts.map(value::<Vec<u8>>);
    let (id, ended) = (cursor(&id?)?, ended? == b"1");
    let oldest_prev = match (&oldest?[..], &prev?[..]) {
        // Without any entry (the stream was evicted) a reader can only begin at the head.
        (b"", _) => id,
        (oldest, b"") => {
            let oldest = cursor(oldest)?;
            before(oldest).ok_or_else(|| corrupt(&format!("event {oldest} lacks a field")))?
        }
        (_, prev) => cursor(prev)?,
    };
    Ok(Head { id, ended, oldest_prev })
}

/// The event before one that is not the first of its epoch.
fn before(id: Cursor) -> Option<Cursor> {
    let offset = id.offset.checked_sub(1).filter(|offset| *offset > 0)?;
    Some(Cursor::new(id.epoch, offset))
}

/// Reads an entry of the stream, `[id, [name, value, …]]`.
fn entry(reply: Value) -> Result<StoredEvent, StoreError> {
    let (id, fields): (Vec<u8>, Vec<Vec<u8>>) = value(reply)?;
    let id = cursor(&id)?;
    let (mut kind, mut end, mut data, mut prev) = (None, None, None, None);
    let mut fields = fields.into_iter();
    while let (Some(name), Some(value)) = (fields.next(), fields.next()) {
        match &name[..] {
            b"kind" => kind = kind_of_letter(&value),
            b"end" => end = Some(value == b"1"),
            b"data" => data = Some(Bytes::from(value)),
            b"prev" => prev = Some(cursor(&value)?),
            _ => {}
        }
    }
    let prev = prev.or_else(|| before(id));
    match (kind, end, data, prev) {
        (Some(kind), Some(end), Some(data), Some(prev)) => {
            Ok(StoredEvent { id, prev, end, kind, data })
        }
        (_, _, _, _) => Err(corrupt(&format!("event {id} lacks a field"))),
    }
}

/// What an announcement says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Announcement {
    Event(StoredEvent),
    Deleted,
}

/// Reads the payload of an announcement: `D`, or `E <id> <prev> <end> <kind>\n<data>`.
pub(super) fn announcement(payload: Vec<u8>) -> Option<Announcement> {
    if payload == b"D" {
        return Some(Announcement::Deleted);
    }
    let payload = Bytes::from(payload);
    let line_len = payload.iter().position(|byte| *byte == b'\n')?;
    let mut words = payload[..line_len].split(|byte| *byte == b' ');
    if words.next()? != b"E" {
        return None;
    }
    let id = Cursor::from_bytes(words.next()?).ok()?;
    let prev = Cursor::from_bytes(words.next()?).ok()?;
    let end = words.next()? == b"1";
    let kind = kind_of_letter(words.next()?)?;
    Some(Announcement::Event(StoredEvent {
        id,
        prev,
        end,
        kind,
        data: payload.slice(line_len + 1..),
    }))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn announcements_are_read_and_nonsense_is_not() {
        let event = StoredEvent {
            id: Cursor::new(17, 1),
            prev: Cursor::new(16, 3),
            end: true,
            kind: EventKind::Control,
            data: Bytes::from_static(b"{\"a\":1}"),
        };
        let payload = b"E 17-1 16-3 1 c\n{\"a\":1}".to_vec();
        assert_eq!(announcement(payload), Some(Announcement::Event(event)));
        assert_eq!(announcement(b"D".to_vec()), Some(Announcement::Deleted));
        for bad in ["", "X", "E", "E 17-1 16-3 1 c", "E 17 16-3 1 c\n", "E 17-1 16-3 1 x\n{}"] {
            assert_eq!(announcement(bad.as_bytes().to_vec()), None, "{bad:?}");
        }
    }

    #[test]
    fn a_head_is_read_without_its_oldest_event() {
        let reply = |parts: [&str; 4]| {
            let texts = parts.map(|text| Value::BulkString(text.as_bytes().to_vec()));
            head(Value::Array(texts.to_vec()))
        };
        let id = Cursor::new(17, 9);
        let known = |oldest_prev| Ok(Head { id, ended: false, oldest_prev });
        assert_eq!(reply(["17-9", "0", "17-4", ""]), known(Cursor::new(17, 3)));
        assert_eq!(reply(["17-9", "0", "17-1", "16-2"]), known(Cursor::new(16, 2)));
        assert_eq!(reply(["17-9", "0", "", ""]), known(id));
        assert!(reply(["17-9", "0", "17-1", ""]).is_err());
    }

    #[test]
    fn the_channel_of_an_announcement_comes_back() {
        let channel = ChannelName::new("acme", "room:1").unwrap();
        assert_eq!(channel_of_live(&Keys::new(&channel).live()), Some(channel));
        assert_eq!(channel_of_live("fb:{acme}:live"), None);
        assert_eq!(channel_of_live("other"), None);
    }
}
