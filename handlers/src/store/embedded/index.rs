//! What the writer knows of all channels, and what an operation does to it.
//!
//! A machine: operations come in with the time, answers go out, and what must be written to disk
//! is collected in a batch that the writer commits before it gives the answers. Everything but the
//! events' data is in memory, some 300 bytes for a channel and 100 for a remembered message id, so
//! that no operation reads from the disk.
//!
//! A log that is over is *buried* when the next append or the sweep finds it: its events and
//! message ids are removed, and its epoch raises the floor for new ones. The channel stays listed
//! as idle until cleanup has told its followers, or [`FORGOTTEN_AFTER_MS`] have passed.

use std::collections::{BTreeSet, HashMap, VecDeque};

use uuid::Uuid;
use zhttp::Cursor;

use super::codec::{self, FLOOR_KEY, Record};
use super::files::{Batch, Remains, Space};
use super::log::Log;
use crate::store::{
    AppendError, Appended, ChannelName, Conditions, INDEX_SHARDS, Idle, NewEvent, Rate, StoredEvent,
};

/// Message ids that are remembered for a channel. At the limit the oldest is forgotten early.
const MESSAGE_IDS_PER_CHANNEL_MAX: usize = 100_000;

/// How long a channel whose log is over stays listed, in milliseconds, should no cleanup run.
const FORGOTTEN_AFTER_MS: u64 = 3_600_000;

/// The time of an operation, since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) us: u64,
}

impl Now {
    pub(super) fn ms(self) -> u64 {
        self.us / 1000
    }
}

#[derive(Debug, Default)]
struct Channel {
    log: Option<Log>,
    active_us: u64,
    /// When the sweep must look at it, in milliseconds.
    due_ms: u64,
    messages: HashMap<Uuid, Message>,
    /// Message ids, oldest first.
    messages_in_order: VecDeque<Uuid>,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    id: Cursor,
    until_ms: u64,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    start_ms: u64,
    end_ms: u64,
    messages: u32,
}

#[derive(Debug)]
struct Lease {
    owner: String,
    until_ms: u64,
}

/// An append that is done, as soon as the batch is committed.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) appended: Appended,
    /// What to announce; nothing for a duplicate.
    pub(super) event: Option<StoredEvent>,
}

/// All channels.
#[derive(Debug)]
pub(super) struct Index {
    channels: HashMap<ChannelName, Channel>,
    /// When the sweep must look at which channel.
    due: BTreeSet<(u64, ChannelName)>,
    /// The activity index.
    idle: Vec<BTreeSet<(u64, ChannelName)>>,
    windows: HashMap<ChannelName, Window>,
    leases: HashMap<u32, Lease>,
    /// The largest epoch of any log that is gone; a new one's is larger.
    floor: u64,
    batch: Batch,
}

impl Index {
    /// Takes up what an earlier process left.
    pub(super) fn new(now: Now, remains: Remains) -> Self {
        let mut index = Index {
            channels: HashMap::new(),
            due: BTreeSet::new(),
            idle: vec![BTreeSet::new(); INDEX_SHARDS as usize],
            windows: HashMap::new(),
            leases: HashMap::new(),
            floor: remains.floor,
            batch: Batch::new(),
        };
        for (name, Record { active_us, mut log }) in remains.channels {
            if let Some(log) = &mut log {
                log.torn = remains.torn;
            }
            let due_ms = match &log {
                Some(log) => log.expires_ms,
                None => now.ms() + FORGOTTEN_AFTER_MS,
            };
            index.idle[name.shard() as usize].insert((active_us, name.clone()));
            index.due.insert((due_ms, name.clone()));
            let channel = Channel { log, active_us, due_ms, ..Channel::default() };
            index.channels.insert(name, channel);
        }
        let mut messages = remains.messages;
        messages.sort_by_key(|(_, _, id, _)| *id);
        for (name, message_id, id, until_ms) in messages {
            // A message id never outlives its log's record: both go in one batch.
            if let Some(channel) = index.channels.get_mut(&name) {
                channel.messages.insert(message_id, Message { id, until_ms });
                channel.messages_in_order.push_back(message_id);
            }
        }
        index
    }

    /// Whether there is a log that may lack events and got none since.
    pub(super) fn is_torn(&self) -> bool {
        let mut logs = self.channels.values().filter_map(|channel| channel.log.as_ref());
        logs.any(|log| log.torn)
    }

    /// What must be written to disk before any answer since the last call is given.
    pub(super) fn take_batch(&mut self) -> Batch {
        std::mem::take(&mut self.batch)
    }

    fn put(&mut self, space: Space, key: Vec<u8>, value: Vec<u8>) {
        self.batch.insert((space, key), Some(value));
    }

    fn remove(&mut self, space: Space, key: Vec<u8>) {
        self.batch.insert((space, key), None);
    }

    /// Appends an event, if the conditions hold (`store/mod.rs`, "Appends").
    pub(super) fn append(
        &mut self,
        now: Now,
        name: &ChannelName,
        event: NewEvent,
        conditions: &Conditions,
    ) -> Result<Done, AppendError> {
        self.bury_if_over(now, name);
        let channel = self.channels.get(name);
        let log = channel.and_then(|channel| channel.log.as_ref());
        let remembered = event.message_id.and_then(|id| channel?.messages.get(&id));
        if conditions.retention.dedup_ttl_ms > 0
            && let Some(message) = remembered
            && message.until_ms > now.ms()
        {
            let appended = Appended { id: message.id, duplicate: true };
            return Ok(Done { appended, event: None });
        }
        let head = log.map_or(Cursor::START, Log::head_id);
        let ended = log.is_some_and(|log| log.ended);
        let fenced_off = conditions.fence.is_some_and(|fence| fence != head)
            || (conditions.open && ended)
            || (conditions.torn && !log.is_some_and(|log| log.torn));
        if fenced_off || conditions.expect.is_some_and(|expect| expect != head.offset) {
            return Err(AppendError::Conflict { head });
        }
        if let Some(rate) = conditions.rate {
            self.charge(now, name, rate)?;
        }
        let event = self.write(now, name, event, conditions);
        let appended = Appended { id: event.id, duplicate: false };
        Ok(Done { appended, event: Some(event) })
    }

    /// Counts a message in the channel's rate window, or says how long it is full.
    fn charge(&mut self, now: Now, name: &ChannelName, rate: Rate) -> Result<(), AppendError> {
        let now_ms = now.ms();
        let per_ms = rate.per_ms.max(1);
        let fresh = Window { start_ms: now_ms, end_ms: now_ms.saturating_add(per_ms), messages: 0 };
        let open = self.windows.get(name).copied();
        // A window that begins in the future is from before the clock was set back.
        let open = open.filter(|window| window.start_ms <= now_ms && now_ms < window.end_ms);
        let mut window = open.unwrap_or(fresh);
        if window.messages >= rate.messages {
            return Err(AppendError::RateLimited { retry_after_ms: window.end_ms - now_ms });
        }
        window.messages += 1;
        self.windows.insert(name.clone(), window);
        Ok(())
    }

    fn write(
        &mut self,
        now: Now,
        name: &ChannelName,
        event: NewEvent,
        conditions: &Conditions,
    ) -> StoredEvent {
        let retention = &conditions.retention;
        let channel = self.channels.entry(name.clone()).or_default();
        let passed = conditions.beyond.map_or(0, |lost| lost.epoch + 1);
        let log = match channel.log.as_mut() {
            Some(log) => {
                // A reader is further than the log: what it has got last is lost.
                log.torn |= conditions.beyond.is_some();
                log.push(now.ms().max(passed), event.end);
                log
            }
            None => {
                let epoch = now.ms().max(self.floor + 1).max(passed);
                channel.log.insert(Log::new(epoch, event.end))
            }
        };
        log.expires_ms = now.ms().saturating_add(retention.ttl_ms(event.end));
        let trimmed = log.trim(retention.events_max());
        let (id, prev) = (log.head_id(), log.head_prev());
        let NewEvent { message_id, end, kind, data } = event;
        let event = StoredEvent { id, prev, end, kind, data };

        let until_ms = now.ms().saturating_add(retention.dedup_ttl_ms);
        let message_id = message_id.filter(|_| retention.dedup_ttl_ms > 0);
        let forgotten = channel.forget_messages(now);
        if let Some(message_id) = message_id {
            channel.messages.insert(message_id, Message { id, until_ms });
            channel.messages_in_order.push_back(message_id);
        }
        for message_id in forgotten {
            self.remove(Space::Messages, codec::message_key(name, message_id));
        }
        if let Some(message_id) = message_id {
            let value = codec::message_value(id, until_ms);
            self.put(Space::Messages, codec::message_key(name, message_id), value);
        }
        for id in trimmed {
            self.remove(Space::Events, codec::event_key(name, id));
        }
        self.put(Space::Events, codec::event_key(name, id), codec::event_value(&event));
        self.list(now, name, now.us);
        self.save(name);
        event
    }

    /// Notes when a channel was active and when the sweep must look at it.
    fn list(&mut self, now: Now, name: &ChannelName, active_us: u64) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        let shard = &mut self.idle[name.shard() as usize];
        shard.remove(&(channel.active_us, name.clone()));
        shard.insert((active_us, name.clone()));
        self.due.remove(&(channel.due_ms, name.clone()));
        channel.active_us = active_us;
        channel.due_ms = match &channel.log {
            Some(log) => log.expires_ms,
            None => now.ms() + FORGOTTEN_AFTER_MS,
        };
        self.due.insert((channel.due_ms, name.clone()));
    }

    fn save(&mut self, name: &ChannelName) {
        let Some(channel) = self.channels.get(name) else { return };
        let record = Record { active_us: channel.active_us, log: channel.log.clone() };
        self.put(Space::Channels, codec::channel_key(name), codec::record_value(&record));
    }

    /// Removes a log whose time is over; its channel stays listed.
    fn bury_if_over(&mut self, now: Now, name: &ChannelName) {
        let Some(channel) = self.channels.get(name) else { return };
        if channel.log.as_ref().is_some_and(|log| log.expires_ms <= now.ms()) {
            let active_us = channel.active_us;
            self.bury(name);
            self.list(now, name, active_us);
            self.save(name);
        }
    }

    /// Removes a channel's log, with its events and message ids.
    fn bury(&mut self, name: &ChannelName) {
        let Some(channel) = self.channels.get_mut(name) else { return };
        let messages = std::mem::take(&mut channel.messages);
        channel.messages_in_order.clear();
        let Some(log) = channel.log.take() else { return };
        for message_id in messages.into_keys() {
            self.remove(Space::Messages, codec::message_key(name, message_id));
        }
        for id in log.ids() {
            self.remove(Space::Events, codec::event_key(name, id));
        }
        let epoch = log.head_id().epoch;
        if epoch > self.floor {
            self.floor = epoch;
            self.put(Space::Channels, FLOOR_KEY.to_vec(), codec::floor_value(epoch));
        }
    }

    /// Forgets a channel wholly.
    fn forget(&mut self, name: &ChannelName) {
        self.bury(name);
        let Some(channel) = self.channels.remove(name) else { return };
        self.idle[name.shard() as usize].remove(&(channel.active_us, name.clone()));
        self.due.remove(&(channel.due_ms, name.clone()));
        self.remove(Space::Channels, codec::channel_key(name));
    }

    /// Deletes a channel, unless it moved on; returns whether it is gone and to be announced so.
    pub(super) fn delete(&mut self, now: Now, name: &ChannelName, if_head: Option<Cursor>) -> bool {
        self.bury_if_over(now, name);
        let log = self.channels.get(name).and_then(|channel| channel.log.as_ref());
        let head = log.map_or(Cursor::START, Log::head_id);
        let wanted = if_head.map_or(log.is_some(), |if_head| if_head == head);
        if wanted {
            self.forget(name);
        }
        wanted
    }

    /// Channels of a shard that had no append since `before_ms`, longest idle first.
    pub(super) fn idle(&self, now: Now, shard: u32, before_ms: u64, limit: usize) -> Vec<Idle> {
        let Some(listed) = self.idle.get(shard as usize) else { return Vec::new() };
        let before_us = before_ms.saturating_mul(1000);
        let old = listed.iter().take_while(|(active_us, _)| *active_us < before_us);
        old.take(limit)
            .map(|(active_us, name)| {
                let log = self.channels.get(name).and_then(|channel| channel.log.as_ref());
                let log = log.filter(|log| log.expires_ms > now.ms());
                Idle {
                    channel: name.clone(),
                    head: log.map_or(Cursor::START, Log::head_id),
                    ended: log.is_some_and(|log| log.ended),
                    active_us: *active_us,
                    expires_ms: log.map_or(0, |log| log.expires_ms),
                }
            })
            .collect()
    }

    /// Takes or renews a lease; returns whether `owner` has it.
    pub(super) fn lease(&mut self, now: Now, shard: u32, owner: String, ttl_ms: u64) -> bool {
        let until_ms = now.ms().saturating_add(ttl_ms.max(1));
        let held = self.leases.get(&shard);
        if held.is_some_and(|lease| lease.until_ms > now.ms() && lease.owner != owner) {
            return false;
        }
        self.leases.insert(shard, Lease { owner, until_ms });
        true
    }

    /// Looks after at most `channels_max` channels whose time has come, and after what else is
    /// over. Returns whether there may be more.
    pub(super) fn sweep(&mut self, now: Now, channels_max: usize) -> bool {
        self.windows.retain(|_, window| window.end_ms > now.ms() && window.start_ms <= now.ms());
        for _ in 0..channels_max {
            let Some((due_ms, name)) = self.due.first().cloned() else { return false };
            if due_ms > now.ms() {
                return false;
            }
            let has_log = self.channels.get(&name).is_some_and(|channel| channel.log.is_some());
            if has_log {
                self.bury_if_over(now, &name);
            } else {
                self.forget(&name);
            }
        }
        true
    }
}

impl Channel {
    /// Forgets message ids whose time is over, and the oldest if there are too many.
    fn forget_messages(&mut self, now: Now) -> Vec<Uuid> {
        let mut forgotten = Vec::new();
        while let Some(oldest) = self.messages_in_order.front() {
            let message = self.messages.get(oldest);
            let over = message.is_none_or(|message| message.until_ms <= now.ms());
            if !over && self.messages_in_order.len() < MESSAGE_IDS_PER_CHANNEL_MAX {
                break;
            }
            self.messages.remove(oldest);
            forgotten.extend(self.messages_in_order.pop_front());
        }
        forgotten
    }
}
