//! A disk that is full, and then is not.
//!
//! The disk is a tmpfs, which takes root to mount; without, what needs one is left out and says so.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::*;
use crate::store::embedded::disk::Disk;
use crate::store::embedded::writer::take_up;

/// The size of the disk, for mount(8): a journal and some tables.
const SIZE: &str = "size=128m";

/// A small disk, which goes with the value.
struct SmallDisk(TempDir);

impl SmallDisk {
    /// `None` if it is not permitted.
    fn mount() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", SIZE, "forebay-test"]).arg(directory.path());
        let mounted = mount.output().is_ok_and(|output| output.status.success());
        if !mounted {
            println!("left out: mounting a tmpfs is not permitted here");
        }
        mounted.then(|| SmallDisk(directory))
    }

    /// Fills it, but for so many bytes.
    fn fill_but(&self, bytes: usize) {
        let spare = self.0.path().join("spare");
        std::fs::write(&spare, vec![1; bytes]).unwrap();
        let mut file = File::create(self.ballast()).unwrap();
        let mut piece = &[1; 64 << 10][..];
        while !piece.is_empty() {
            match file.write(piece) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::StorageFull => {
                    piece = &piece[..piece.len() / 2];
                }
                Err(error) => panic!("{error}"),
            }
        }
        std::fs::remove_file(spare).unwrap();
    }

    fn empty(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }

    fn ballast(&self) -> PathBuf {
        self.0.path().join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Everything is kept.
fn all() -> Conditions {
    kept(Retention {
        idle_ttl_ms: 3_600_000,
        dedup_ttl_ms: 3_600_000,
        history_max: 1_000_000,
        ..Retention::default()
    })
}

/// An event that is sent again under the same id.
fn large_event(number: u128, len: usize) -> NewEvent {
    NewEvent { data: vec![b'x'; len].into(), ..event_with_id(number) }
}

async fn all_ids(store: &EmbeddedStore, channel: &ChannelName) -> Vec<Cursor> {
    let limits = RangeLimits { events_max: u32::MAX, bytes_max: u64::MAX };
    let range = store.range(channel, Cursor::START, limits).await.unwrap();
    range.events.iter().map(|event| event.id).collect()
}

/// What was acknowledged, and how many events were sent.
#[derive(Default)]
struct Sent {
    ids: Vec<Cursor>,
    number: u128,
}

impl Sent {
    /// Appends events of that length until one is refused; returns why.
    async fn until_refused(
        &mut self,
        store: &EmbeddedStore,
        channel: &ChannelName,
        len: usize,
    ) -> String {
        loop {
            let event = large_event(self.number, len);
            match store.append(channel, event, &all()).await {
                Ok(appended) => self.ids.push(appended.id),
                Err(AppendError::Unavailable(StoreError::Unavailable(why))) => return why,
                Err(error) => panic!("{error}"),
            }
            self.number += 1;
        }
    }

    /// What is there can be read. What was refused may be there, or not.
    async fn is_there(&self, store: &EmbeddedStore, channel: &ChannelName) {
        let kept = all_ids(store, channel).await;
        assert!(kept.starts_with(&self.ids) && kept.len() <= self.ids.len() + 1, "{kept:?}");
    }

    /// Sends the one again that was refused, until it is taken.
    async fn again(&mut self, store: &EmbeddedStore, channel: &ChannelName, len: usize) {
        let taken = std::cell::Cell::new(None);
        eventually("the store goes on", || async {
            let appended = store.append(channel, large_event(self.number, len), &all()).await;
            taken.set(appended.ok());
            taken.get().is_some()
        })
        .await;
        self.ids.extend(taken.get().map(|appended| appended.id));
        self.number += 1;
        // However often it was sent, it is there once.
        assert_eq!(all_ids(store, channel).await, self.ids);
    }
}

/// Fills the disk but for some bytes, with events of that length, a few times over.
async fn goes_on(disk: &SmallDisk, fsync: Fsync, spare: usize, len: usize) {
    const TIMES: usize = 3;
    let directory = disk.0.path().join(format!("{fsync:?}-{len}"));
    let name = directory.display().to_string();
    let store = EmbeddedStore::open(&directory, fsync).await.unwrap();
    let channel = room("full");
    let (handle, mut stream) = store.follow();
    handle.add(channel.clone()).await.unwrap();
    let mut sent = Sent::default();
    for _ in 0..TIMES {
        disk.fill_but(spare);
        let why = sent.until_refused(&store, &channel, len).await;
        assert!(why.starts_with(&format!("the disk of {name} ")), "{why}");
        sent.is_there(&store, &channel).await;

        disk.empty();
        sent.again(&store, &channel, len).await;
    }
    let mut times_told = 0;
    while times_told < TIMES {
        match stream.next().await.unwrap() {
            Followed::Event { event, .. } => assert!(sent.ids.contains(&event.id)),
            Followed::Deleted { .. } => panic!("nobody deleted it"),
            Followed::Interrupted => {}
            Followed::Restored => times_told += 1,
        }
    }
    store.close().await.unwrap();

    let store = EmbeddedStore::open(&directory, fsync).await.unwrap();
    assert_eq!(all_ids(&store, &channel).await, sent.ids);
    store.close().await.unwrap();
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_goes_on_after_an_append_found_no_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    for fsync in [Fsync::Always, Fsync::default(), Fsync::Never] {
        goes_on(&disk, fsync, 0, 100).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_goes_on_after_a_memtable_found_no_room() {
    let Some(disk) = SmallDisk::mount() else { return };
    // The journal takes it; its table, which has all of it once more, does not fit.
    for fsync in [Fsync::Always, Fsync::Never] {
        goes_on(&disk, fsync, 24 << 20, 64 << 10).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_are_opened_again_are_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Fsync::Never).await;
    let channel = room("again");
    for _ in 0..20 {
        let id = append(&store, &channel, event("x")).await;
        store.disk.find_room().unwrap();
        store.disk.reopen().unwrap();
        assert_eq!(head(&store, &channel).await.id, id);
    }
    assert!(!directory.path().join("forebay.room").exists());
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_sync_that_failed_no_id_is_used_twice() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory, Fsync::default()).await;
    let channel = room("doubtful");
    let first = append(&store, &channel, event("1")).await;
    store.close().await.unwrap();
    {
        let disk = Disk::open(directory.path()).unwrap();
        assert!(take_up(&disk, true).unwrap().is_torn());
    }
    // The next process knows it as well.
    let store = open(&directory, Fsync::default()).await;
    let second = append(&store, &channel, event("2")).await;
    assert!(second.epoch > first.epoch, "{second}");
    // Who has got everything misses nothing.
    assert_eq!(store.range(&channel, first, ALL).await.unwrap().gap, None);
    store.close().await.unwrap();
}
