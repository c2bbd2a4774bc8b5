//! One connection of a bare server: a socket, and two buffers that own no memory while there is nothing in them.
//!
//! mio's epoll is edge-triggered. A read that does not fill the buffer has emptied the socket, so it saves the one that would
//! say so. A socket is watched for room only while something waits for it.

use std::io::{ErrorKind, Read, Result, Write};
use std::mem;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    /// The begin of a request that is not whole.
    unread: Vec<u8>,
    /// What the socket has not taken yet.
    unsent: Vec<u8>,
    /// Whether it gets what is published.
    pub(super) is_subscriber: bool,
}

/// What a read has brought.
pub(super) enum Fill {
    /// So many bytes, and whether there are no more for now.
    Bytes {
        /// How many.
        len: usize,
        /// There are no more for now.
        is_last: bool,
    },
    /// Nothing, for now.
    Nothing,
    /// The client has closed it, or it is broken.
    Closed,
}

impl Connection {
    pub(super) fn new(stream: TcpStream) -> Self {
        Connection { stream, unread: Vec::new(), unsent: Vec::new(), is_subscriber: false }
    }

    pub(super) fn fill(&mut self, buffer: &mut [u8]) -> Fill {
        loop {
            return match self.stream.read(buffer) {
                Ok(0) => Fill::Closed,
                Ok(len) => Fill::Bytes { len, is_last: len < buffer.len() },
                Err(error) => match error.kind() {
                    ErrorKind::Interrupted => continue,
                    ErrorKind::WouldBlock => Fill::Nothing,
                    _ => Fill::Closed,
                },
            };
        }
    }

    /// What was left unread with these behind it; `None` if nothing was left.
    pub(super) fn join(&mut self, bytes: &[u8]) -> Option<Vec<u8>> {
        if self.unread.is_empty() {
            return None;
        }
        let mut joined = mem::take(&mut self.unread);
        joined.extend_from_slice(bytes);
        Some(joined)
    }

    pub(super) fn keep_unread(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// Writes, behind what waits.
    pub(super) fn write(&mut self, bytes: &[u8], registry: &Registry, token: Token) -> Result<()> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = send(&mut self.stream, bytes)?;
        if sent < bytes.len() {
            self.unsent.extend_from_slice(&bytes[sent..]);
            registry.reregister(
                &mut self.stream,
                token,
                Interest::READABLE | Interest::WRITABLE,
            )?;
        }
        Ok(())
    }

    /// Writes what waits, as far as there is room.
    pub(super) fn flush(&mut self, registry: &Registry, token: Token) -> Result<()> {
        if self.unsent.is_empty() {
            return Ok(());
        }
        let sent = send(&mut self.stream, &self.unsent)?;
        if sent == self.unsent.len() {
            self.unsent = Vec::new();
            return registry.reregister(&mut self.stream, token, Interest::READABLE);
        }
        self.unsent.drain(..sent);
        Ok(())
    }
}

/// Writes until the socket takes no more, and says how much it took.
fn send(stream: &mut TcpStream, bytes: &[u8]) -> Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(len) => sent += len,
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => {}
                ErrorKind::WouldBlock => break,
                _ => return Err(error),
            },
        }
    }
    Ok(sent)
}
