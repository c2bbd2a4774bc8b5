//! Keys and values on disk.
//!
//! | keyspace | key | value |
//! | --- | --- | --- |
//! | `events` | name, 0, epoch, offset | kind, end, predecessor, data |
//! | `channels` | name | what is kept of it: [`Record`] |
//! | `messages` | name, 0, message id | the event's id, until when it is remembered |
//! | `channels` | 0, `floor` | the largest epoch of any log that is gone |
//! | `channels` | 0, `open` | in which boot of the system the files are open; nothing if they were closed |
//!
//! Numbers are u64, big-endian, so that keys are in the order of the log. A name has no zero byte,
//! so no name's keys are among another's. Values begin with a version byte; an unknown one is an
//! error and never guessed at.

use bytes::Bytes;
use uuid::Uuid;
use zhttp::Cursor;

use super::log::{Log, Run};
use crate::store::{ChannelName, EventKind, StoreError, StoredEvent};

/// The version of all values.
const VERSION: u8 = 1;

/// The key of the floor below which no new log's epoch may be.
pub(super) const FLOOR_KEY: &[u8] = b"\0floor";

/// The key of what says whether the files were closed in order.
pub(super) const OPEN_KEY: &[u8] = b"\0open";

/// What is kept of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    /// When something was last appended, in microseconds since 1970.
    pub(super) active_us: u64,
    /// Its log; `None` if that expired, and the followers are not told yet.
    pub(super) log: Option<Log>,
}

/// The key of a channel's record.
pub(super) fn channel_key(channel: &ChannelName) -> Vec<u8> {
    channel.as_str().as_bytes().to_vec()
}

/// The channel of a record's key.
pub(super) fn channel_of_key(key: &[u8]) -> Result<ChannelName, StoreError> {
    std::str::from_utf8(key)
        .ok()
        .and_then(|text| ChannelName::parse(text).ok())
        .ok_or_else(|| corrupt("a channel's key"))
}

/// The key of an event.
pub(super) fn event_key(channel: &ChannelName, id: Cursor) -> Vec<u8> {
    let mut key = prefix(channel);
    key.extend_from_slice(&id.epoch.to_be_bytes());
    key.extend_from_slice(&id.offset.to_be_bytes());
    key
}

/// The id in an event's key.
pub(super) fn id_of_event_key(key: &[u8]) -> Result<Cursor, StoreError> {
    let mut rest = Reader(key.get(key.len().saturating_sub(16)..).unwrap_or_default());
    rest.cursor()
}

/// The key of a message id.
pub(super) fn message_key(channel: &ChannelName, message_id: Uuid) -> Vec<u8> {
    let mut key = prefix(channel);
    key.extend_from_slice(message_id.as_bytes());
    key
}

/// The channel and the id in a message id's key.
pub(super) fn message_of_key(key: &[u8]) -> Result<(ChannelName, Uuid), StoreError> {
    let parted = key.split_last_chunk::<16>().and_then(|(name, id)| {
        let name = name.strip_suffix(&[0])?;
        Some((name, Uuid::from_bytes(*id)))
    });
    let (name, id) = parted.ok_or_else(|| corrupt("a message id's key"))?;
    Ok((channel_of_key(name)?, id))
}

fn prefix(channel: &ChannelName) -> Vec<u8> {
    let mut key = Vec::with_capacity(ChannelName::TEXT_BYTES_MAX + 17);
    key.extend_from_slice(channel.as_str().as_bytes());
    key.push(0);
    key
}

/// The value of an event.
pub(super) fn event_value(event: &StoredEvent) -> Vec<u8> {
    let kind = match event.kind {
        EventKind::Stream => 0,
        EventKind::Control => 1,
    };
    let mut value = vec![VERSION, kind, u8::from(event.end)];
    put_cursor(&mut value, event.prev);
    value.extend_from_slice(&event.data);
    value
}

/// The event with that id and value.
pub(super) fn event_of_value(id: Cursor, value: &[u8]) -> Result<StoredEvent, StoreError> {
    let mut rest = Reader::versioned(value)?;
    let kind = match rest.byte()? {
        0 => EventKind::Stream,
        1 => EventKind::Control,
        _ => return Err(corrupt("an event's kind")),
    };
    let end = rest.byte()? == 1;
    let prev = rest.cursor()?;
    Ok(StoredEvent { id, prev, end, kind, data: Bytes::copy_from_slice(rest.0) })
}

/// The value of a channel's record.
pub(super) fn record_value(record: &Record) -> Vec<u8> {
    let mut value = vec![VERSION];
    put(&mut value, record.active_us);
    let Some(log) = &record.log else { return value };
    put(&mut value, log.born);
    put(&mut value, log.expires_ms);
    value.push(u8::from(log.ended));
    for run in &log.runs {
        put(&mut value, run.epoch);
        put(&mut value, run.first);
        put(&mut value, run.last);
        put_cursor(&mut value, run.prev);
    }
    value
}

/// The record in that value.
pub(super) fn record_of_value(value: &[u8]) -> Result<Record, StoreError> {
    let mut rest = Reader::versioned(value)?;
    let active_us = rest.u64()?;
    if rest.0.is_empty() {
        return Ok(Record { active_us, log: None });
    }
    let (born, expires_ms, ended) = (rest.u64()?, rest.u64()?, rest.byte()? == 1);
    let mut log = Log { born, ended, expires_ms, torn: false, runs: [].into() };
    while !rest.0.is_empty() {
        let (epoch, first, last) = (rest.u64()?, rest.u64()?, rest.u64()?);
        let run = Run { epoch, first, last, prev: rest.cursor()? };
        if first == 0 || first > last {
            return Err(corrupt("a run of events"));
        }
        log.runs.push_back(run);
    }
    if log.runs.is_empty() {
        return Err(corrupt("a log without events"));
    }
    Ok(Record { active_us, log: Some(log) })
}

/// The value of a message id: the event, and until when it is remembered.
pub(super) fn message_value(id: Cursor, until_ms: u64) -> Vec<u8> {
    let mut value = vec![VERSION];
    put_cursor(&mut value, id);
    put(&mut value, until_ms);
    value
}

/// The event, and until when its message id is remembered.
pub(super) fn message_of_value(value: &[u8]) -> Result<(Cursor, u64), StoreError> {
    let mut rest = Reader::versioned(value)?;
    Ok((rest.cursor()?, rest.u64()?))
}

/// The value of the floor.
pub(super) fn floor_value(epoch: u64) -> Vec<u8> {
    let mut value = vec![VERSION];
    put(&mut value, epoch);
    value
}

/// The floor in that value.
pub(super) fn floor_of_value(value: &[u8]) -> Result<u64, StoreError> {
    Reader::versioned(value)?.u64()
}

/// The value that says in which boot the files are open; empty if in none.
pub(super) fn open_value(boot: &str) -> Vec<u8> {
    let mut value = vec![VERSION];
    value.extend_from_slice(boot.as_bytes());
    value
}

/// The boot in that value.
pub(super) fn open_of_value(value: &[u8]) -> Result<&str, StoreError> {
    let rest = Reader::versioned(value)?;
    std::str::from_utf8(rest.0).map_err(|_| corrupt("the name of a boot"))
}

fn put(value: &mut Vec<u8>, number: u64) {
    value.extend_from_slice(&number.to_be_bytes());
}

fn put_cursor(value: &mut Vec<u8>, cursor: Cursor) {
    put(value, cursor.epoch);
    put(value, cursor.offset);
}

fn corrupt(what: &str) -> StoreError {
    StoreError::Corrupt(format!("on disk: {what}"))
}

/// What is left to read of a value.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn versioned(value: &'a [u8]) -> Result<Self, StoreError> {
        let mut reader = Reader(value);
        match reader.byte()? {
            VERSION => Ok(reader),
            other => Err(corrupt(&format!("a value of version {other}"))),
        }
    }

    fn byte(&mut self) -> Result<u8, StoreError> {
        let (byte, rest) = self.0.split_first().ok_or_else(|| corrupt("a value that is cut"))?;
        self.0 = rest;
        Ok(*byte)
    }

    fn u64(&mut self) -> Result<u64, StoreError> {
        let parted = self.0.split_first_chunk::<8>();
        let (number, rest) = parted.ok_or_else(|| corrupt("a value that is cut"))?;
        self.0 = rest;
        Ok(u64::from_be_bytes(*number))
    }

    fn cursor(&mut self) -> Result<Cursor, StoreError> {
        Ok(Cursor::new(self.u64()?, self.u64()?))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn channel() -> ChannelName {
        ChannelName::new("acme", "room").unwrap()
    }

    #[test]
    fn values_come_back_and_cut_ones_are_refused() {
        let event = StoredEvent {
            id: Cursor::new(7, 1),
            prev: Cursor::new(6, 9),
            end: true,
            kind: EventKind::Control,
            data: Bytes::from_static("{\"ü\":1}".as_bytes()),
        };
        let value = event_value(&event);
        assert_eq!(event_of_value(event.id, &value), Ok(event));
        assert!(event_of_value(Cursor::START, &value[..18]).is_err());

        let mut log = Log::new(6, true);
        log.push(9, false);
        let record = Record { active_us: 17, log: Some(log) };
        let value = record_value(&record);
        assert_eq!(record_of_value(&value), Ok(record));
        assert!(record_of_value(&value[..value.len() - 1]).is_err());
        let gone = Record { active_us: 17, log: None };
        assert_eq!(record_of_value(&record_value(&gone)), Ok(gone));

        let value = message_value(Cursor::new(7, 1), 99);
        assert_eq!(message_of_value(&value), Ok((Cursor::new(7, 1), 99)));
        assert_eq!(floor_of_value(&floor_value(12)), Ok(12));
        assert!(floor_of_value(&[2, 0, 0, 0, 0, 0, 0, 0, 12]).is_err());
    }

    #[test]
    fn keys_come_back_and_are_in_the_order_of_the_log() {
        let id = Uuid::from_u128(77);
        assert_eq!(message_of_key(&message_key(&channel(), id)), Ok((channel(), id)));
        assert_eq!(channel_of_key(&channel_key(&channel())), Ok(channel()));
        let ids = [(1, 255), (1, 256), (2, 1), (u64::MAX, 0)].map(|(e, o)| Cursor::new(e, o));
        let keys = ids.map(|id| event_key(&channel(), id));
        assert!(keys.is_sorted());
        for (id, key) in ids.into_iter().zip(keys) {
            assert_eq!(id_of_event_key(&key), Ok(id));
        }
    }
}
