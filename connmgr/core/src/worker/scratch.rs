//! Memory in which responses and packets are put together, kept for the next one.
//!
//! A packet goes to another thread, so it needs memory of its own in the end; but how much is known only when it is
//! written, and growing costs more than copying once.

use bytes::Bytes;

/// Of a larger one the memory is not kept, in bytes.
const SCRATCH_BYTES_MAX: usize = 64 * 1024;

/// How many are in use at a time: a packet may be written while a response is.
const SCRATCHES_MAX: usize = 4;

/// Buffers that are not in use.
#[derive(Debug, Default)]
pub(super) struct Scratches {
    free: Vec<Vec<u8>>,
}

impl Scratches {
    /// An empty buffer.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.free.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(super) fn give_back(&mut self, mut scratch: Vec<u8>) {
        if scratch.capacity() <= SCRATCH_BYTES_MAX && self.free.len() < SCRATCHES_MAX {
            scratch.clear();
            self.free.push(scratch);
        }
    }

    /// Takes a buffer back, and gives what was in it a memory of its own.
    pub(super) fn keep(&mut self, scratch: Vec<u8>) -> Bytes {
        let bytes = Bytes::copy_from_slice(&scratch);
        self.give_back(scratch);
        bytes
    }
}
