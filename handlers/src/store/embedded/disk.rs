//! The disk: a directory with the files, which are closed and opened again when it was full.
//!
//! After a write that failed for want of room, `fjall` writes nothing more until its files are
//! opened again. So this is what the writer does when there is room, in place: a restart of the
//! files alone. Until then readers read on from the files as they are. While they are closed and opened
//! again, which takes as long as the journals are long (128 MiB at most), readers wait; and should that fail, they fail
//! until it succeeds.
//!
//! To close the files takes some care. `fjall` closes the journal in the thread that lets go of
//! it last, and that may be one of its own, a moment after the database is gone from here. With
//! the journal goes what of the failed write is still in its buffer, now that there is room; in
//! files that are open again, and written to, that would be in the middle of something else. So
//! we look at the open files of the process, and wait until no journal is among them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::files::Files;
use super::lock::DirectoryLock;
use crate::store::{OpenError, StoreError};

/// The directory of the files, within the one that is locked.
const FILES: &str = "db";

/// What is written to see whether there is room, and removed at once.
const ROOM_FILE: &str = "forebay.room";

/// Room that must be there before the files are opened again, in bytes: for a memtable to be
/// written out. With less it would soon be the same again.
const ROOM_BYTES_MIN: usize = 16 << 20;

/// How much of it is written at a time, in bytes.
const ROOM_PIECE_BYTES: usize = 64 << 10;

/// How long to wait until the journals are closed. At the limit the files stay closed until the
/// next try, which goes on waiting.
const CLOSE_MAX: Duration = Duration::from_secs(2);

/// How long to wait before the next look at the open files.
const CLOSE_INTERVAL: Duration = Duration::from_millis(1);

/// Where Linux shows the open files of a process.
const OPEN_FILES: &str = "/proc/self/fd";

/// A directory that is locked for this process, with the open files.
pub(super) struct Disk {
    directory: PathBuf,
    /// `None` from when they were closed until they could be opened again.
    files: RwLock<Option<Files>>,
    // Dropped last, when the files above are closed.
    _lock: DirectoryLock,
}

/// A file, whatever its name.
type Inode = (u64, u64);

impl Disk {
    /// Opens the files in a directory, or makes them, and locks them for this process.
    pub(super) fn open(directory: &Path) -> Result<Self, OpenError> {
        let lock = DirectoryLock::take(directory)?;
        // Left behind by a process that was killed as it looked for room.
        let _ = fs::remove_file(directory.join(ROOM_FILE));
        let files = Files::open(&directory.join(FILES)).map_err(|error| OpenError::Data {
            directory: directory.display().to_string(),
            reason: error.to_string(),
        })?;
        let files = RwLock::new(Some(files));
        Ok(Disk { directory: directory.to_owned(), files, _lock: lock })
    }

    /// The directory, for messages.
    pub(super) fn name(&self) -> String {
        self.directory.display().to_string()
    }

    /// Does something with the files. They stay open meanwhile.
    pub(super) fn with<T, E: From<StoreError>>(
        &self,
        what: impl FnOnce(&Files) -> Result<T, E>,
    ) -> Result<T, E> {
        // Nobody panics while they are changed, but in `fjall`, and then they are closed.
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let closed = || {
            let name = self.name();
            StoreError::Unavailable(format!("the files in {name} could not be opened again yet"))
        };
        what(files.as_ref().ok_or_else(closed)?)
    }

    /// Looks whether there is room, by taking it.
    pub(super) fn find_room(&self) -> Result<(), Failure> {
        let path = self.directory.join(ROOM_FILE);
        let fill = || {
            let mut file = File::create(&path)?;
            let piece = [0; ROOM_PIECE_BYTES];
            (0..ROOM_BYTES_MIN / ROOM_PIECE_BYTES).try_for_each(|_| file.write_all(&piece))
        };
        let filled = fill();
        // It may never have come to be.
        let _ = fs::remove_file(&path);
        filled.map_err(Failure::of_system)
    }

    /// Closes the files and opens them again, which brings them back to what is on disk. After a
    /// failure they are closed, and it may be tried again.
    pub(super) fn reopen(&self) -> Result<(), Failure> {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let directory = self.directory.join(FILES);
        *files = None;
        wait_until_closed(&directory).map_err(Failure::of_system)?;
        *files = Some(Files::open(&directory).map_err(Failure::of)?);
        Ok(())
    }
}

/// Waits until this process has no journal open.
fn wait_until_closed(directory: &Path) -> io::Result<()> {
    let mut journals = HashSet::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            journals.insert(inode(&path)?);
        }
    }
    let began = Instant::now();
    while is_any_open(&journals)? {
        if began.elapsed() > CLOSE_MAX {
            return Err(io::Error::other("the journals are not closed"));
        }
        std::thread::sleep(CLOSE_INTERVAL);
    }
    Ok(())
}

fn is_any_open(files: &HashSet<Inode>) -> io::Result<bool> {
    for entry in fs::read_dir(OPEN_FILES)? {
        // One that is closed meanwhile is gone, and no concern.
        if inode(&entry?.path()).is_ok_and(|inode| files.contains(&inode)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn inode(path: &Path) -> io::Result<Inode> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
