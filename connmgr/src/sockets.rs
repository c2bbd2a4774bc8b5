//! The sockets of a worker's connections: what its machine writes to.

use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};

use forebay_core::Key;
use forebay_core::worker::Transport;
use mio::{Interest, Registry, Token};

use crate::listener::Stream;

/// What came of reading.
pub(crate) enum ReadOutcome {
    /// So many bytes, at least one.
    Bytes(usize),
    /// Nothing now; the socket will say when there is.
    Blocked,
    /// Nothing ever again.
    Eof,
    /// The connection is gone.
    Failed,
}

/// One socket: 16 bytes, in a release build.
#[derive(Debug)]
struct Slot {
    generation: u32,
    /// The client sends no more than what is there to be read.
    is_read_closed: bool,
    /// It takes bytes again, and waits for its turn.
    is_writable: bool,
    stream: Stream,
}

/// Sockets by the place of their connection in the machine's table.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    slots: Vec<Option<Slot>>,
    /// What all sockets together have taken.
    written_bytes: u64,
}

impl Sockets {
    /// Takes the socket of a connection and has it watched.
    ///
    /// # Errors
    /// If it cannot be watched; it is then closed.
    pub(crate) fn insert(
        &mut self,
        registry: &Registry,
        key: Key,
        mut stream: Stream,
    ) -> std::io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(key.to_u64() as usize), interest)?;
        let index = key.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        let generation = key.generation;
        self.slots[index] =
            Some(Slot { generation, is_read_closed: false, is_writable: false, stream });
        Ok(())
    }

    /// Closes the socket of a connection.
    pub(crate) fn remove(&mut self, registry: &Registry, key: Key) {
        if self.get(key).is_some()
            && let Some(mut slot) = self.slots[key.index as usize].take()
        {
            // The kernel forgets a closed socket by itself.
            let _ = registry.deregister(&mut slot.stream);
        }
    }

    /// Reads what is there, into `buffer`.
    pub(crate) fn read(&mut self, key: Key, buffer: &mut [u8]) -> ReadOutcome {
        let Some(slot) = self.get(key) else { return ReadOutcome::Failed };
        loop {
            match slot.stream.read(buffer) {
                Ok(0) => return ReadOutcome::Eof,
                Ok(bytes) => return ReadOutcome::Bytes(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return ReadOutcome::Blocked,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return ReadOutcome::Failed,
            }
        }
    }

    /// Bytes that were written to any of them, since the start.
    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Sends no more on a connection.
    pub(crate) fn shutdown(&mut self, key: Key) {
        if let Some(slot) = self.get(key) {
            // If it is gone already, so will be what reads from it.
            let _ = slot.stream.shutdown(Shutdown::Write);
        }
    }

    /// The socket takes bytes again. Says whether its connection is to be put among those that wait for their turn.
    pub(crate) fn handle_writable(&mut self, key: Key) -> bool {
        self.get(key).is_some_and(|slot| !std::mem::replace(&mut slot.is_writable, true))
    }

    /// The connection has its turn.
    pub(crate) fn handle_flushing(&mut self, key: Key) {
        if let Some(slot) = self.get(key) {
            slot.is_writable = false;
        }
    }

    /// The client has closed its side. Noted here, because the poll says it once.
    pub(crate) fn handle_read_closed(&mut self, key: Key) {
        if let Some(slot) = self.get(key) {
            slot.is_read_closed = true;
        }
    }

    /// Whether the client is known to have closed its side.
    pub(crate) fn is_read_closed(&mut self, key: Key) -> bool {
        self.get(key).is_some_and(|slot| slot.is_read_closed)
    }

    fn get(&mut self, key: Key) -> Option<&mut Slot> {
        self.slots.get_mut(key.index as usize)?.as_mut().filter(|slot| {
            // The place may have another's socket by now.
            slot.generation == key.generation
        })
    }
}

impl Transport for Sockets {
    fn write(&mut self, key: Key, slices: &[IoSlice<'_>]) -> Option<usize> {
        let slot = self.get(key)?;
        loop {
            match slot.stream.write_vectored(slices) {
                Ok(bytes) => {
                    self.written_bytes += bytes as u64;
                    return Some(bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    fn peer(&self, key: Key) -> Option<SocketAddr> {
        let slot = self.slots.get(key.index as usize)?.as_ref()?;
        if slot.generation == key.generation { slot.stream.peer_addr() } else { None }
    }
}
