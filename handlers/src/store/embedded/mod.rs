//! The embedded store: for a single machine, in the process of `forebay up`, durable in a directory.
//!
//! One writer thread ([`writer`]) owns what is known of all channels ([`index`]), and does all that
//! changes something. Readers never ask it: they read a snapshot of the files ([`files`]), in which a
//! channel's record and its events are always those of one moment. An LSM tree fits, as it turns
//! the appends of many small logs into one sequential write, and removes what is trimmed in bulk.
//!
//! An acknowledged append is in the operating system's hands, so that it survives the end of the
//! process in every mode of [`Fsync`]; the mode says what a power loss may take. What it takes is
//! gone, but its ids are not used again: a log that may be shorter than it was goes on in a new
//! epoch, so that readers who have got more than is left are told of a gap and not given other
//! events under ids that they know.
//!
//! While the disk is full, what changes something is refused, and reads go on. Soon after there is
//! room the store goes on by itself ([`disk`]). Nothing that was acknowledged is lost by that. What
//! was refused may be in a log nevertheless, as after any [`StoreError::Unavailable`]: its message id
//! is known then, and those who follow are told to look.

mod codec;
mod disk;
mod failure;
mod files;
mod followers;
mod index;
mod lock;
mod log;
#[cfg(test)]
mod tests;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use zhttp::Cursor;

pub use self::lock::DirectoryLock;

use self::disk::Disk;
use self::files::{Files, clock_ms};
use self::followers::Followers;
use self::writer::{OPERATIONS_WAITING_MAX, Operation, Writer};
use super::follow::{FOLLOW_QUEUE_EVENTS_MAX, FollowHandle, FollowStream, follow_halves};
use super::{
    AppendError, Appended, ChannelName, Conditions, Head, Idle, NewEvent, OpenError, Range,
    RangeLimits, Store, StoreError,
};

/// What a power loss may take of what was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fsync {
    /// Nothing. An append waits for the disk; those that come together wait together.
    Always,
    /// What was appended within that time.
    Interval(Duration),
    /// Whatever the operating system had not written by itself.
    Never,
}

impl Default for Fsync {
    /// Every second.
    fn default() -> Self {
        Fsync::Interval(Duration::from_secs(1))
    }
}

/// The store in a directory. A clone is another handle to the same one.
///
/// The files are closed when the last handle is dropped, soon afterwards; [`EmbeddedStore::close`]
/// waits for it.
#[derive(Clone)]
pub struct EmbeddedStore {
    disk: Arc<Disk>,
    followers: Arc<Followers>,
    operations: mpsc::Sender<Operation>,
}

impl EmbeddedStore {
    /// Opens the store in a directory, or makes it, and locks it for this process.
    ///
    /// # Errors
    ///
    /// If another process has it, or it cannot be used.
    pub async fn open(directory: impl AsRef<Path>, fsync: Fsync) -> Result<Self, OpenError> {
        let directory = directory.as_ref().to_owned();
        let name = directory.display().to_string();
        let data = |reason: String| OpenError::Data { directory: name.clone(), reason };
        let opened = tokio::task::spawn_blocking(move || {
            let disk = Arc::new(Disk::open(&directory)?);
            let followers = Arc::new(Followers::default());
            let writer = Writer::new(Arc::clone(&disk), Arc::clone(&followers), fsync);
            let writer = writer.map_err(|failure| failure.told(&disk.name()));
            Ok((disk, followers, writer))
        });
        let opened = opened.await.map_err(|error| data(error.to_string()))?;
        let (disk, followers, writer) = opened?;
        let writer = writer.map_err(|error| data(error.to_string()))?;

        let failed = |source| OpenError::Directory { directory: name.clone(), source };
        // Timers only: the thread blocks in disk calls, which no shared runtime should.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(failed)?;
        let (operations, waiting) = mpsc::channel(OPERATIONS_WAITING_MAX);
        std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || runtime.block_on(writer.run(waiting)))
            .map_err(failed)?;
        Ok(EmbeddedStore { disk, followers, operations })
    }

    /// Finishes what was asked, syncs, and closes the files. Other handles are of no use then, but
    /// keep the directory locked until they are dropped.
    ///
    /// # Errors
    ///
    /// If something could not be written.
    pub async fn close(self) -> Result<(), StoreError> {
        self.ask(|answer| Operation::Close { answer }).await?
    }

    /// Has the writer do something.
    async fn ask<T>(
        &self,
        operation: impl FnOnce(oneshot::Sender<T>) -> Operation,
    ) -> Result<T, StoreError> {
        let closed = || StoreError::Unavailable("the store is closed".to_owned());
        let (answer, answered) = oneshot::channel();
        self.operations.send(operation(answer)).await.map_err(|_| closed())?;
        answered.await.map_err(|_| closed())
    }

    /// Reads from the disk, where it may block.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Files) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let disk = Arc::clone(&self.disk);
        let reading = tokio::task::spawn_blocking(move || disk.with(read));
        reading.await.map_err(|error| StoreError::Unavailable(format!("a read failed: {error}")))?
    }
}

impl Store for EmbeddedStore {
    async fn append(
        &self,
        channel: &ChannelName,
        event: NewEvent,
        conditions: &Conditions,
    ) -> Result<Appended, AppendError> {
        let (channel, conditions) = (channel.clone(), *conditions);
        self.ask(|answer| Operation::Append { channel, event, conditions, answer }).await?
    }

    async fn range(
        &self,
        channel: &ChannelName,
        after: Cursor,
        limits: RangeLimits,
    ) -> Result<Range, StoreError> {
        let channel = channel.clone();
        self.read(move |files| files.range(&channel, after, limits)).await
    }

    async fn heads(&self, channels: &[ChannelName]) -> Result<Vec<Head>, StoreError> {
        let channels = channels.to_vec();
        self.read(move |files| files.heads(&channels)).await
    }

    fn follow(&self) -> (FollowHandle, FollowStream) {
        let (handle, stream, task) = follow_halves(FOLLOW_QUEUE_EVENTS_MAX);
        tokio::spawn(Arc::clone(&self.followers).serve(task));
        (handle, stream)
    }

    async fn delete(
        &self,
        channel: &ChannelName,
        if_head: Option<Cursor>,
    ) -> Result<bool, StoreError> {
        let channel = channel.clone();
        self.ask(|answer| Operation::Delete { channel, if_head, answer }).await?
    }

    async fn delete_idle(&self, idle: &Idle) -> Result<bool, StoreError> {
        // One thread does it all, so nothing comes between the two.
        self.delete(&idle.channel, Some(idle.head)).await
    }

    async fn idle(
        &self,
        shard: u32,
        before_ms: u64,
        limit: usize,
    ) -> Result<Vec<Idle>, StoreError> {
        self.ask(|answer| Operation::Idle { shard, before_ms, limit, answer }).await?
    }

    async fn lease(&self, shard: u32, owner: &str, ttl_ms: u64) -> Result<bool, StoreError> {
        let owner = owner.to_owned();
        self.ask(|answer| Operation::Lease { shard, owner, ttl_ms, answer }).await?
    }

    async fn now_ms(&self) -> Result<u64, StoreError> {
        Ok(clock_ms())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.ask(|answer| Operation::Ping { answer }).await?
    }
}
