//! The directory of identities, and the thread that watches it.
//!
//! A certificate that is replaced is served within a second: every [`LOOK_INTERVAL`] the loader looks at the directory and
//! reads what has changed since. It polls because that is right on every file system and for every way to replace a file
//! (written in place, renamed over, a symbolic link that is turned); a look is one `stat(2)` for each file.
//!
//! What is being written is no fault. Two files cannot be replaced at once, so between the two they do not match; what
//! cannot be used is read again at the next look, the old identity stays, and only what is still broken and unchanged then
//! gets its line in the log, once. In the same way an identity is forgotten only when it was missing twice. That of a
//! `default-cert` is never forgotten: a slip of the operator must not close a port.
//!
//! Rejected: reading in the handshake, as Condure does (a slow disk then stalls a worker's connections), and a signal to
//! reload (whoever renews certificates must know of it).

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustls::crypto::CryptoProvider;

use super::identities::Identities;
use super::identity::{IdentityError, Paths, Stamps, is_valid_name};
use crate::log::Causes;

/// How often it is looked for changes.
const LOOK_INTERVAL: Duration = Duration::from_millis(400);

/// Identities of a directory, the first in alphabetical order, beside those of a `default-cert`. Each takes some KiB, and two `stat(2)` a look.
const IDENTITIES_MAX: usize = 10_000;

/// What was last seen of a name.
#[derive(Debug)]
enum Seen {
    /// It is served, as the files were then.
    Served(Stamps),
    /// It cannot be used. An older one of its name may be served.
    Broken {
        stamps: Stamps,
        /// The log has its line.
        is_told: bool,
    },
    /// Its files were there, and are gone.
    Missing,
}

/// The directory. Every [`Directory::look`] brings [`Identities`] up to date.
#[derive(Debug)]
pub(super) struct Directory {
    dir: PathBuf,
    provider: Arc<CryptoProvider>,
    identities: Arc<Identities>,
    /// Those of a `default-cert`.
    kept: BTreeSet<String>,
    seen: HashMap<String, Seen>,
    /// The log has the line that the directory cannot be read, or has too much in it.
    is_fault_told: bool,
    /// The first looks are over: from now on the log has a line for each change.
    is_open: bool,
}

impl Directory {
    /// Reads all identities; a line of the log for each that cannot be used.
    ///
    /// # Errors
    /// If one of those in `kept` cannot be used: its name, and why.
    pub(super) fn open(
        dir: &Path,
        provider: Arc<CryptoProvider>,
        identities: Arc<Identities>,
        kept: BTreeSet<String>,
    ) -> Result<Self, (String, Box<IdentityError>)> {
        let mut directory = Directory {
            dir: dir.to_owned(),
            provider,
            identities,
            kept,
            seen: HashMap::new(),
            is_fault_told: false,
            is_open: false,
        };
        for name in directory.kept.clone() {
            let paths = Paths::new(&directory.dir, &name);
            let stamps = paths.stamps();
            match paths.load(&directory.provider) {
                Ok(identity) => directory.identities.insert(&name, identity),
                Err(error) => return Err((name, Box::new(error))),
            }
            directory.seen.insert(name, Seen::Served(stamps));
        }
        directory.look();
        // What is broken at the start is not being written.
        directory.look();
        directory.is_open = true;
        tracing::info!("{} TLS identities in {}", directory.identities.len(), dir.display());
        Ok(directory)
    }

    /// Looks once for what has changed.
    pub(super) fn look(&mut self) {
        let mut names = match names_in(&self.dir) {
            Ok(names) => names,
            Err(error) => {
                // Nothing is known of any of them.
                let dir = self.dir.display();
                self.tell_fault(&format!("cannot read TLS identities in {dir}: {error}"));
                return;
            }
        };
        if names.len() > IDENTITIES_MAX {
            let dir = self.dir.display();
            self.tell_fault(&format!("{dir} has more than {IDENTITIES_MAX} TLS identities"));
            names = within(IDENTITIES_MAX, names, &self.kept);
        } else {
            self.is_fault_told = false;
        }
        for name in &names {
            self.look_at(name);
        }
        let gone: Vec<String> =
            self.seen.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            self.miss(&name);
        }
    }

    /// Looks at the files of a name.
    fn look_at(&mut self, name: &str) {
        let paths = Paths::new(&self.dir, name);
        let stamps = paths.stamps();
        let was_told = match self.seen.get(name) {
            Some(Seen::Served(before)) if *before == stamps => return,
            Some(Seen::Broken { stamps: before, is_told }) if *before == stamps => Some(*is_told),
            Some(_) | None => None,
        };
        match paths.load(&self.provider) {
            Ok(identity) => {
                let is_new = self.identities.named(name).is_none();
                self.identities.insert(name, identity);
                // If something was written while it was read, the stamps differ at the next look.
                self.seen.insert(name.to_owned(), Seen::Served(stamps));
                let what = if is_new { "loaded" } else { "replaced" };
                if self.is_open {
                    tracing::info!("TLS identity {name}: {what}");
                }
            }
            Err(error) => {
                let is_unchanged = was_told.is_some();
                if was_told == Some(false) {
                    let stays = self.identities.named(name).is_some();
                    let what = if stays { "; the one before stays" } else { "" };
                    tracing::warn!("TLS identity {name} is refused: {}{what}", Causes(&error));
                }
                let seen = Seen::Broken { stamps, is_told: is_unchanged };
                self.seen.insert(name.to_owned(), seen);
            }
        }
    }

    /// Its certificate is not there.
    fn miss(&mut self, name: &str) {
        let was_missing = matches!(self.seen.get(name), Some(Seen::Missing));
        if !was_missing {
            self.seen.insert(name.to_owned(), Seen::Missing);
            if self.kept.contains(name) {
                tracing::warn!("TLS identity {name} is gone from its directory; it is served on");
            }
            return;
        }
        if !self.kept.contains(name) {
            self.seen.remove(name);
            if self.identities.named(name).is_some() {
                self.identities.remove(name);
                tracing::info!("TLS identity {name}: removed");
            }
        }
    }

    fn tell_fault(&mut self, text: &str) {
        if !std::mem::replace(&mut self.is_fault_told, true) {
            tracing::warn!("{text}");
        }
    }
}

/// The first of these names, and those of a `default-cert` wherever they stand.
fn within(max: usize, names: BTreeSet<String>, kept: &BTreeSet<String>) -> BTreeSet<String> {
    let numbered = names.into_iter().enumerate();
    numbered.filter(|(at, name)| *at < max || kept.contains(name)).map(|(_, name)| name).collect()
}

/// Names that have a certificate in a directory. A key alone is none.
fn names_in(dir: &Path) -> io::Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for entry in dir.read_dir()? {
        // What is no UTF-8 cannot be asked for.
        let Ok(file) = entry?.file_name().into_string() else { continue };
        if let Some(name) = file.strip_suffix(".crt")
            && is_valid_name(name)
        {
            names.insert(name.to_owned());
        }
    }
    Ok(names)
}

/// The thread that watches a directory. Ended when dropped.
#[derive(Debug)]
pub(super) struct Loader {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Loader {
    /// Watches a directory from now on.
    ///
    /// # Errors
    /// If the system has no thread for it.
    pub(super) fn start(mut directory: Directory) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let look = move || {
            while stopped.recv_timeout(LOOK_INTERVAL) == Err(RecvTimeoutError::Timeout) {
                directory.look();
            }
        };
        let thread = std::thread::Builder::new().name("tls-identities".into()).spawn(look)?;
        Ok(Loader { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // If it has panicked, that was printed, and what it had loaded was served on.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests;
