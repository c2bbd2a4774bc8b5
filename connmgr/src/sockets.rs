//! The sockets of a worker's connections: what its machine writes to.
//!
//! A socket is plain or has TLS. The sessions of TLS stand in a table of their own, so that a plain socket takes no more
//! room for them.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use forebay_core::worker::{CloseReason, Transport};
use forebay_core::{Key, Paged};
use mio::{Interest, Registry, Token};
use rustls::ServerConfig;

use crate::listener::Stream;
use crate::tls::{Session, Steps};

/// Steps of TLS handshakes in one turn, of all connections. Each may take a millisecond (RSA), and who has sent a request
/// waits for it.
const HANDSHAKE_STEPS_PER_TURN: Steps = 2;

/// What came of reading.
#[derive(Debug)]
pub(crate) enum ReadOutcome {
    /// So many bytes, at least one, and there may be more.
    Bytes(usize),
    /// So many bytes, at least one, and no more now; the socket will say when there are.
    Last(usize),
    /// Nothing now; the socket will say when there is.
    Blocked,
    /// There is a handshake to go on with, in another turn.
    Deferred,
    /// Nothing ever again.
    Eof,
    /// The connection is gone.
    Failed,
    /// What came is no TLS that is spoken here. The client was told.
    Refused(rustls::Error),
}

/// One socket: 16 bytes, in a release build.
#[derive(Debug)]
struct Slot {
    generation: u32,
    /// The client sends no more than what is there to be read.
    is_read_closed: bool,
    /// It takes bytes again, and waits for its turn.
    is_writable: bool,
    /// It has a session.
    is_tls: bool,
    stream: Stream,
}

/// Sockets by the place of their connection in the machine's table.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    slots: Paged<Slot>,
    /// By the same places.
    sessions: Paged<Box<Session>>,
    /// Steps of handshakes that may be done in this turn.
    handshake_steps: Steps,
    /// What all sockets together have taken.
    written_bytes: u64,
}

impl Sockets {
    /// Takes the socket of a connection and has it watched. With a configuration it has TLS.
    ///
    /// # Errors
    /// If it cannot be watched, or have TLS; it is then closed.
    pub(crate) fn insert(
        &mut self,
        registry: &Registry,
        key: Key,
        mut stream: Stream,
        tls: Option<Arc<ServerConfig>>,
    ) -> io::Result<()> {
        let session = tls.map(Session::new).transpose().map_err(io::Error::other)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.register(&mut stream, Token(key.to_u64() as usize), interest)?;
        let is_tls = session.is_some();
        if let Some(session) = session {
            self.sessions.insert(key.index, Box::new(session));
        }
        let generation = key.generation;
        let (is_read_closed, is_writable) = (false, false);
        let slot = Slot { generation, is_read_closed, is_writable, is_tls, stream };
        self.slots.insert(key.index, slot);
        Ok(())
    }

    /// Closes the socket of a connection.
    pub(crate) fn remove(&mut self, registry: &Registry, key: Key, reason: CloseReason) {
        let Some((slot, session)) = self.get(key) else { return };
        if let Some(session) = session
            && says_goodbye(reason, session)
        {
            session.say_goodbye(&mut slot.stream);
        }
        // The kernel forgets a closed socket by itself.
        let _ = registry.deregister(&mut slot.stream);
        self.slots.remove(key.index);
        self.sessions.remove(key.index);
    }

    /// A turn begins: handshakes may go on.
    pub(crate) fn handle_turn(&mut self) {
        self.handshake_steps = HANDSHAKE_STEPS_PER_TURN;
    }

    /// Whether a handshake may go on in this turn.
    pub(crate) fn may_shake_hands(&self) -> bool {
        self.handshake_steps > 0
    }

    /// Reads what is there, into `buffer`.
    pub(crate) fn read(&mut self, key: Key, buffer: &mut [u8]) -> ReadOutcome {
        let mut steps = self.handshake_steps;
        let Some((slot, session)) = self.get(key) else { return ReadOutcome::Failed };
        if let Some(session) = session {
            let outcome = session.read(&mut slot.stream, buffer, &mut steps);
            self.handshake_steps = steps;
            return outcome;
        }
        loop {
            match slot.stream.read(buffer) {
                Ok(0) => return ReadOutcome::Eof,
                // After its last the client is silent, and no event tells of the end.
                Ok(bytes) if bytes < buffer.len() && !slot.is_read_closed => {
                    return ReadOutcome::Last(bytes);
                }
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
        match self.get(key) {
            Some((slot, Some(session))) => session.shutdown(&mut slot.stream),
            // If it is gone already, so will be what reads from it.
            Some((slot, None)) => drop(slot.stream.shutdown(Shutdown::Write)),
            None => {}
        }
    }

    /// The socket takes bytes again. Says whether its connection is to be put among those that wait for their turn.
    pub(crate) fn handle_writable(&mut self, key: Key) -> bool {
        self.get(key).is_some_and(|(slot, _)| !std::mem::replace(&mut slot.is_writable, true))
    }

    /// The connection has its turn. What TLS itself has to say goes out.
    pub(crate) fn handle_flushing(&mut self, key: Key) {
        let Some((slot, session)) = self.get(key) else { return };
        slot.is_writable = false;
        if let Some(session) = session {
            // If it fails, so will what reads.
            let written = session.flush(&mut slot.stream).unwrap_or(0);
            self.written_bytes += written;
        }
    }

    /// The client has closed its side. Noted here, because the poll says it once.
    pub(crate) fn handle_read_closed(&mut self, key: Key) {
        if let Some((slot, _)) = self.get(key) {
            slot.is_read_closed = true;
        }
    }

    /// Whether the client is known to have closed its side.
    pub(crate) fn is_read_closed(&mut self, key: Key) -> bool {
        self.get(key).is_some_and(|(slot, session)| {
            slot.is_read_closed || session.is_some_and(|session| session.is_read_closed())
        })
    }

    fn get(&mut self, key: Key) -> Option<(&mut Slot, Option<&mut Session>)> {
        // The place may have another's socket by now.
        let is_its_own = |slot: &&mut Slot| slot.generation == key.generation;
        let slot = self.slots.get_mut(key.index).filter(is_its_own)?;
        if !slot.is_tls {
            return Some((slot, None));
        }
        Some((slot, Some(&mut **self.sessions.get_mut(key.index)?)))
    }
}

/// Whether a session that ends so ends with a `close_notify`: if everything was said, or to answer the client's own (RFC
/// 5246 §7.2.1). All other ends may have cut an answer, which then must not look whole.
fn says_goodbye(reason: CloseReason, session: &Session) -> bool {
    match reason {
        CloseReason::Finished => true,
        CloseReason::ClientLeft => session.is_read_closed(),
        CloseReason::Failed
        | CloseReason::TimedOut
        | CloseReason::Handler
        | CloseReason::Protocol
        | CloseReason::Drained => false,
    }
}

impl Transport for Sockets {
    fn write(&mut self, key: Key, slices: &[IoSlice<'_>]) -> Option<usize> {
        let mut written = 0;
        let (slot, session) = self.get(key)?;
        if let Some(session) = session {
            let taken = session.write(&mut slot.stream, slices, &mut written).ok();
            self.written_bytes += written;
            return taken;
        }
        loop {
            // A plain write is cheaper by a tenth, and most are of one slice.
            let written = match slices {
                [slice] => slot.stream.write(slice),
                _ => slot.stream.write_vectored(slices),
            };
            match written {
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
        let slot = self.slots.get(key.index)?;
        if slot.generation == key.generation { slot.stream.peer_addr() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_socket_is_small() {
        // In debug builds mio keeps the poll that a socket is registered with.
        let bytes_max = if cfg!(debug_assertions) { 32 } else { 16 };
        assert!(size_of::<Option<Slot>>() <= bytes_max);
    }
}
