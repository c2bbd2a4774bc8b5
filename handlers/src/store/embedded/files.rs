//! The files: an LSM tree (`fjall`) for each kind of thing, one journal for all.
//!
//! One thread writes, in batches that are atomic over all kinds; readers read snapshots. So a
//! reader sees a channel's record and its events as they were after some batch, never half of one,
//! and neither side waits for the other.
//!
//! A batch is in the operating system's hands when [`Files::commit`] returns, so that it survives
//! the end of the process, however that comes; [`Files::sync`] makes it survive a power loss.
//!
//! After a power loss the files may lack what was written last, and nothing in them shows it. So
//! while they are open they name the boot of the system in which they are; who finds the name of
//! another one knows that the system went down over them ([`Remains::torn`]).
//!
//! After a write that failed, `fjall` writes nothing more, and for a reason: how much of it is in
//! the journal is unknown. What can be read is as it was before that write, and stays so. Only
//! who opens the files again (`disk`) can write on.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};
use uuid::Uuid;
use zhttp::Cursor;

use super::codec::{self, FLOOR_KEY, OPEN_KEY, Record};
use super::failure::Failure;
use crate::store::{ChannelName, Gap, Head, Range, RangeLimits, StoreError, StoredEvent};

/// Size of the journal files, in bytes: past it memtables are written out and journals dropped.
const JOURNAL_BYTES_MAX: u64 = 128 << 20;

/// Size of a memtable, in bytes; there are three keyspaces, each with one that is written and
/// maybe some that are being written out.
const MEMTABLE_BYTES_MAX: u64 = 16 << 20;

/// Memtables of a keyspace that wait to be written out. Beyond it appends wait; each is of
/// [`MEMTABLE_BYTES_MAX`].
///
/// It is less than what makes `fjall` itself wait (4), and a commit adds two at most: `fjall` would
/// wait for ever if the writing out fails, as on a full disk. We look why we wait.
const MEMTABLES_SEALED_MAX: usize = 1;

/// How long to wait before the next look at memtables that are being written out.
const SEALED_INTERVAL: Duration = Duration::from_millis(1);

/// Where Linux names its boot: a UUID, another one each time.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The boot of a system that does not name it; never the same as another.
const BOOT_UNKNOWN: &str = "unknown";

/// Which keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Space {
    Events,
    Channels,
    Messages,
}

/// What is to be written together: for each key a value, or that it is removed. A later write of a
/// key replaces an earlier one.
pub(super) type Batch = BTreeMap<(Space, Vec<u8>), Option<Vec<u8>>>;

/// What a store that was closed or killed left behind.
#[derive(Debug, Default)]
pub(super) struct Remains {
    pub(super) floor: u64,
    pub(super) channels: Vec<(ChannelName, Record)>,
    pub(super) messages: Vec<(ChannelName, Uuid, Cursor, u64)>,
    /// Whether each log may have had more events than are there now.
    pub(super) torn: bool,
}

/// The open files.
pub(super) struct Files {
    database: Database,
    events: Keyspace,
    channels: Keyspace,
    messages: Keyspace,
}

/// The time since 1970. The store's clock is the system's.
pub(super) fn clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The time since 1970, in milliseconds.
pub(super) fn clock_ms() -> u64 {
    u64::try_from(clock().as_millis()).unwrap_or(u64::MAX)
}

/// The boot of the system that runs now.
fn boot() -> String {
    let name = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { BOOT_UNKNOWN.to_owned() } else { name.to_owned() }
}

/// Why something could not be read.
#[allow(clippy::needless_pass_by_value)] // for map_err
fn unreadable(error: fjall::Error) -> StoreError {
    StoreError::Unavailable(format!("disk: {error}"))
}

impl Files {
    /// Opens the files in a directory, or makes them. Nobody else may have them open.
    pub(super) fn open(directory: &Path) -> Result<Self, fjall::Error> {
        let database =
            Database::builder(directory).max_journaling_size(JOURNAL_BYTES_MAX).open()?;
        let keyspace = |name| {
            let options = || KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES_MAX);
            database.keyspace(name, options)
        };
        let events = keyspace("events")?;
        let channels = keyspace("channels")?;
        let messages = keyspace("messages")?;
        Ok(Files { database, events, channels, messages })
    }

    fn keyspace(&self, space: Space) -> &Keyspace {
        match space {
            Space::Events => &self.events,
            Space::Channels => &self.channels,
            Space::Messages => &self.messages,
        }
    }

    /// Writes a batch, atomically. Afterwards it survives the process, and with `sync` a power loss.
    ///
    /// After a failure nothing more can be written: how much of the batch is on disk is unknown.
    pub(super) fn commit(&self, batch: Batch, sync: bool) -> Result<(), Failure> {
        self.wait_for_memtables()?;
        let mode = if sync { PersistMode::SyncData } else { PersistMode::Buffer };
        let mut writes = self.database.batch().durability(Some(mode));
        for ((space, key), value) in batch {
            match value {
                Some(value) => writes.insert(self.keyspace(space), key, value),
                None => writes.remove(self.keyspace(space), key),
            }
        }
        writes.commit().map_err(Failure::of)
    }

    /// Waits until few memtables are left to be written out, or none will be any more.
    fn wait_for_memtables(&self) -> Result<(), Failure> {
        let spaces = [&self.events, &self.channels, &self.messages];
        while spaces.iter().any(|it| it.tree.sealed_memtable_count() > MEMTABLES_SEALED_MAX) {
            self.check()?;
            std::thread::sleep(SEALED_INTERVAL);
        }
        Ok(())
    }

    /// Whether anything can be written: what is done behind our back may have failed too.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.database.persist(PersistMode::Buffer).map_err(Failure::of)
    }

    /// Makes everything that was written survive a power loss.
    pub(super) fn sync(&self) -> Result<(), Failure> {
        self.database.persist(PersistMode::SyncData).map_err(Failure::of)
    }

    /// Notes, for good, that the files are open, or that they were closed in order.
    pub(super) fn mark(&self, open: bool) -> Result<(), Failure> {
        let value = codec::open_value(&if open { boot() } else { String::new() });
        self.commit([((Space::Channels, OPEN_KEY.to_vec()), Some(value))].into(), true)
    }

    /// Notes, for good, that of each log something may be lost, whatever the boot.
    pub(super) fn mark_torn(&self) -> Result<(), Failure> {
        let value = codec::open_value(BOOT_UNKNOWN);
        self.commit([((Space::Channels, OPEN_KEY.to_vec()), Some(value))].into(), true)
    }

    /// Reads everything but the events.
    pub(super) fn remains(&self) -> Result<Remains, StoreError> {
        let mut remains = Remains::default();
        let open = self.channels.get(OPEN_KEY).map_err(unreadable)?;
        // Without the note it is an old directory, or a new one: then there are no logs to be torn.
        remains.torn = match &open {
            Some(value) => {
                let open_in = codec::open_of_value(value)?;
                !open_in.is_empty() && (open_in == BOOT_UNKNOWN || open_in != boot())
            }
            None => true,
        };
        for entry in self.channels.iter() {
            let (key, value) = entry.into_inner().map_err(unreadable)?;
            if *key == *FLOOR_KEY {
                remains.floor = codec::floor_of_value(&value)?;
            } else if *key != *OPEN_KEY {
                let channel = codec::channel_of_key(&key)?;
                remains.channels.push((channel, codec::record_of_value(&value)?));
            }
        }
        remains.torn &= remains.channels.iter().any(|(_, record)| record.log.is_some());
        for entry in self.messages.iter() {
            let (key, value) = entry.into_inner().map_err(unreadable)?;
            let (channel, message_id) = codec::message_of_key(&key)?;
            let (id, until_ms) = codec::message_of_value(&value)?;
            remains.messages.push((channel, message_id, id, until_ms));
        }
        Ok(remains)
    }

    /// How many keys there are in each keyspace.
    #[cfg(test)]
    pub(super) fn keys(&self) -> [usize; 3] {
        [&self.events, &self.channels, &self.messages]
            .map(|keyspace| keyspace.len().expect("a test's files are readable"))
    }

    /// The heads of channels.
    pub(super) fn heads(&self, channels: &[ChannelName]) -> Result<Vec<Head>, StoreError> {
        let snapshot = self.database.snapshot();
        let now_ms = clock_ms();
        let head = |channel: &ChannelName| {
            let log = self.log(&snapshot, channel, now_ms)?;
            Ok(log.map_or(Head::default(), |log| log.head()))
        };
        channels.iter().map(head).collect()
    }

    /// Events after a cursor.
    pub(super) fn range(
        &self,
        channel: &ChannelName,
        after: Cursor,
        limits: RangeLimits,
    ) -> Result<Range, StoreError> {
        let snapshot = self.database.snapshot();
        let Some(log) = self.log(&snapshot, channel, clock_ms())? else {
            return Ok(Range::default());
        };
        let head = log.head();
        let mut events: Vec<StoredEvent> = Vec::new();
        if after < head.id {
            // Trimmed events leave tombstones, which cost time to skip: begin after them.
            let oldest = log.ids().next().unwrap_or(head.id);
            let from = codec::event_key(channel, after.plus(1).max(oldest));
            let to = codec::event_key(channel, head.id);
            let mut bytes = 0;
            for entry in snapshot.range(&self.events, from..=to) {
                let (key, value) = entry.into_inner().map_err(unreadable)?;
                let event = codec::event_of_value(codec::id_of_event_key(&key)?, &value)?;
                bytes += event.data.len() as u64;
                if !events.is_empty() && bytes > limits.bytes_max {
                    break;
                }
                events.push(event);
                if events.len() >= limits.events_max as usize {
                    break;
                }
            }
        }
        let gap = Gap::between(after, events.first(), head.id, log.born);
        Ok(Range { events, head, gap })
    }

    /// A channel's log, if it has one that is not over.
    fn log(
        &self,
        snapshot: &fjall::Snapshot,
        channel: &ChannelName,
        now_ms: u64,
    ) -> Result<Option<super::log::Log>, StoreError> {
        let value =
            snapshot.get(&self.channels, codec::channel_key(channel)).map_err(unreadable)?;
        let Some(value) = value else { return Ok(None) };
        let log = codec::record_of_value(&value)?.log;
        Ok(log.filter(|log| log.expires_ms > now_ms))
    }
}
