//! A client's socket, whatever it is made of.
//!
//! The worker treats TCP and unix sockets alike: it reads, writes several pieces at once, shuts down, and registers
//! with its poll. An enum rather than a trait object: the variant costs no allocation and the calls are direct, and a
//! connection's entry has it inline (8 bytes, in a release build).

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

/// A client's socket. It never blocks: where it would, it returns [`io::ErrorKind::WouldBlock`].
#[derive(Debug)]
pub enum Stream {
    /// From a TCP listener, with `TCP_NODELAY` and `SO_KEEPALIVE`.
    Tcp(TcpStream),
    /// From a listener in the file system.
    Unix(UnixStream),
}

/// The same expression for either kind.
macro_rules! either {
    ($stream:expr, $socket:ident => $result:expr) => {
        match $stream {
            Stream::Tcp($socket) => $result,
            Stream::Unix($socket) => $result,
        }
    };
}

impl Stream {
    /// Ends one direction, or both, for the peer as well.
    ///
    /// # Errors
    /// As `shutdown(2)`: `NotConnected` if the peer has reset the connection.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        either!(self, socket => socket.shutdown(how))
    }

    /// Takes the error that is pending on the socket, if there is one (`SO_ERROR`).
    ///
    /// # Errors
    /// If the system refuses to tell.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        either!(self, socket => socket.take_error())
    }
}

impl Stream {
    /// The address of the client, asked of the kernel; `None` on a unix socket, or if it has left.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        match self {
            Stream::Tcp(socket) => socket.peer_addr().ok(),
            Stream::Unix(_) => None,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        either!(self, socket => socket.read(buf))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        either!(self, socket => socket.read_vectored(bufs))
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        either!(self, socket => socket.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, socket => socket.write_vectored(bufs))
    }

    fn flush(&mut self) -> io::Result<()> {
        either!(self, socket => socket.flush())
    }
}

impl Source for Stream {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        either!(self, socket => socket.register(registry, token, interests))
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        either!(self, socket => socket.reregister(registry, token, interests))
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        either!(self, socket => socket.deregister(registry))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        either!(self, socket => socket.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_small() {
        // In debug builds mio keeps the poll that a socket is registered with, to check for misuse.
        let bytes_max = if cfg!(debug_assertions) { 24 } else { 8 };
        assert!(size_of::<Stream>() <= bytes_max);
    }
}
