//! Giving memory back to the system when many clients have left.
//!
//! The tables of an edge free what they do not need any more, but the C library keeps what is freed for the next who
//! asks: it gives back only what is at the end of a heap, and small blocks not even there. After a day with a million
//! clients a process would stay as large as it was. So the library is told when it is worth the trouble.
//!
//! This is the only `unsafe` code of the project: there is no other way to say it. (Other allocators were measured with
//! 19,000 idle clients: mimalloc takes 28 MB more, and gives no more back.)

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};

/// Connections that must have been there at least for their memory to matter: some 300 KB.
const CONNECTIONS_MIN: usize = 1000;

/// What clients leave behind is freed within this time, in seconds: channels linger for a while.
const LEFTOVERS_S: usize = 30;

/// When to give memory back.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The most connections since it was given back last.
    peak: AtomicUsize,
    /// In how many seconds it is given back again; 0 is not at all.
    again_in_s: AtomicUsize,
}

impl Memory {
    /// There are so many connections in this second. Gives memory back if half of those who were there have left, and
    /// once more when what they leave behind is gone. That takes a millisecond for ten thousand of them; threads that
    /// ask for memory at that moment wait.
    pub(crate) fn handle_second(&self, connections: usize) {
        if self.is_due(connections) {
            trim();
        }
    }

    /// Whether memory is to be given back in this second.
    fn is_due(&self, connections: usize) -> bool {
        let peak = self.peak.load(Ordering::Relaxed).max(connections);
        let have_left = peak >= CONNECTIONS_MIN && connections <= peak / 2;
        let again_in_s = self.again_in_s.load(Ordering::Relaxed);
        self.peak.store(if have_left { connections } else { peak }, Ordering::Relaxed);
        let then_in_s = if have_left { LEFTOVERS_S } else { again_in_s.saturating_sub(1) };
        self.again_in_s.store(then_in_s, Ordering::Relaxed);
        have_left || again_in_s == 1
    }
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn trim() {
    // SAFETY: `malloc_trim` takes a number, locks what it looks at, and touches no block that is in use (malloc_trim(3)).
    let released = unsafe { libc::malloc_trim(0) };
    tracing::debug!("memory given back: {}", released == 1);
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn trim() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_given_back_when_half_have_left_and_once_more() {
        let memory = Memory::default();
        let seconds = [(999, false), (0, false), (3_000, false), (1_501, false), (1_500, true)];
        for (connections, is_due) in seconds {
            assert_eq!(memory.is_due(connections), is_due, "at {connections}");
        }
        let due = (1..=100).filter(|_| memory.is_due(1_200)).count();
        assert_eq!(due, 1, "what was left behind");
        assert!(memory.is_due(600) && !memory.is_due(0), "few cost little");
    }
}
