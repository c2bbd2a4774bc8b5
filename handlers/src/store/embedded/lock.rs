//! The lock of a directory: one process at a time.
//!
//! Two processes on the same files would destroy them, so the first one locks a file in the
//! directory, and writes its process id into it for the message that the second one gets. The lock
//! is the kernel's and ends with the process, however that ends; a file left behind means nothing.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::path::Path;

use crate::store::OpenError;

const LOCK_FILE: &str = "forebay.lock";

/// Holds the lock of a directory until it is dropped.
#[derive(Debug)]
pub struct DirectoryLock {
    _file: File,
}

impl DirectoryLock {
    /// Creates the directory if it doesn't exist, and locks it.
    ///
    /// # Errors
    ///
    /// If another process has it, or it cannot be used.
    pub fn take(directory: &Path) -> Result<Self, OpenError> {
        let name = directory.display().to_string();
        let failed = |source| OpenError::Directory { directory: name.clone(), source };
        std::fs::create_dir_all(directory).map_err(failed)?;
        let path = directory.join(LOCK_FILE);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                // The message is less precise without it, that is all.
                let _ = file.read_to_string(&mut pid);
                let pid = if pid.is_empty() { "unknown".to_owned() } else { pid };
                return Err(OpenError::InUse { directory: name, pid });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        file.set_len(0).map_err(failed)?;
        file.rewind().map_err(failed)?;
        file.write_all(std::process::id().to_string().as_bytes()).map_err(failed)?;
        Ok(DirectoryLock { _file: file })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_second_is_told_who_is_the_first() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("data");
        let lock = DirectoryLock::take(&path).unwrap();
        let error = DirectoryLock::take(&path).unwrap_err().to_string();
        let pid = std::process::id();
        assert_eq!(
            error,
            format!("data directory {} is in use by another process (pid {pid})", path.display())
        );
        drop(lock);
        DirectoryLock::take(&path).unwrap();
    }
}
