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

/// Sockets by the place of their connection in the machine's table.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    slots: Vec<Option<(u32, Stream)>>,
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
        self.slots[index] = Some((key.generation, stream));
        Ok(())
    }

    /// Closes the socket of a connection.
    pub(crate) fn remove(&mut self, registry: &Registry, key: Key) {
        if self.get(key).is_some()
            && let Some((_, mut stream)) = self.slots[key.index as usize].take()
        {
            // The kernel forgets a closed socket by itself.
            let _ = registry.deregister(&mut stream);
        }
    }

    /// Reads what is there, into `buffer`.
    pub(crate) fn read(&mut self, key: Key, buffer: &mut [u8]) -> ReadOutcome {
        let Some(stream) = self.get(key) else { return ReadOutcome::Failed };
        loop {
            match stream.read(buffer) {
                Ok(0) => return ReadOutcome::Eof,
                Ok(bytes) => return ReadOutcome::Bytes(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return ReadOutcome::Blocked,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return ReadOutcome::Failed,
            }
        }
    }

    /// Sends no more on a connection.
    pub(crate) fn shutdown(&mut self, key: Key) {
        if let Some(stream) = self.get(key) {
            // If it is gone already, so will be what reads from it.
            let _ = stream.shutdown(Shutdown::Write);
        }
    }

    fn get(&mut self, key: Key) -> Option<&mut Stream> {
        match self.slots.get_mut(key.index as usize)? {
            Some((generation, stream)) if *generation == key.generation => Some(stream),
            Some(_) | None => None,
        }
    }
}

impl Transport for Sockets {
    fn write(&mut self, key: Key, slices: &[IoSlice<'_>]) -> Option<usize> {
        let stream = self.get(key)?;
        loop {
            match stream.write_vectored(slices) {
                Ok(bytes) => return Some(bytes),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(0),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        }
    }

    fn peer(&self, key: Key) -> Option<SocketAddr> {
        match self.slots.get(key.index as usize)? {
            Some((generation, stream)) if *generation == key.generation => stream.peer_addr(),
            Some(_) | None => None,
        }
    }
}
