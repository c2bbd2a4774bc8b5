//! Listeners: where clients come in. Each worker has one of its own for each listen spec.
//!
//! **Two steps.** [`bind`] takes a place and [`Bound::listen`] opens it, so that the edge can make its other sockets ready
//! in between: a client that gets in finds it whole, and an edge whose place another one has gives up before it has
//! touched anything of the other's. Clients that come between the two are refused, as they were before.
//!
//! **TCP: one socket a worker.** With `SO_REUSEPORT` the kernel spreads new connections over the workers' sockets, by
//! a hash of the addresses; no worker is woken for a connection that another one takes, and there is no acceptor
//! thread to hand sockets over, as Condure has.
//!
//! But `SO_REUSEPORT` also lets a second edge of the same user take half of the clients of the first, silently. So
//! the first socket is bound *and* listens without it, which fails if anyone listens there, and if two processes do
//! so in the same moment, it fails for at least one of them, because the kernel checks again in `listen`. (With
//! `SO_REUSEADDR`, which a restart needs, `bind` alone finds only those who listen already.) Only then
//! is the option turned on, for this socket and its siblings: a socket may join a group while it listens
//! (`reuseport_add_sock` in Linux). A probe that is bound and closed first was rejected: between its end and the real
//! bind anyone could come in. What remains possible is that a program of the same user asks for `SO_REUSEPORT`
//! itself, from the start, and shares the port; it does so knowingly. So do edges whose port is `shared`: several
//! processes then have one port, and each gets its part of the clients.
//!
//! **Unix sockets: one socket for all.** A path can be bound only once, so the workers have duplicates of one
//! descriptor, and all are woken for each connection; all but one then find nothing. Local sockets are for a proxy on
//! the same machine, which keeps its connections.
//!
//! Who calls: `edge.rs` does both before it starts the workers, so that what is wrong is told at start-up; a worker
//! accepts until it gets [`AcceptError::WouldBlock`], or has had enough for one turn. Not here: what a worker does
//! when it is full or out of descriptors (it stops accepting, and clients wait in the backlog).

mod stream;
mod unix;

use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use forebay_core::worker::Mode;
use mio::event::Source;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry, Token};
use nix::errno::Errno;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};

use crate::config::{ListenAddress, ListenSpec};

pub use stream::Stream;
pub(crate) use unix::{BoundPath, bind_path};

/// Connections that wait in the kernel, for each listener, until they are accepted. Past it Linux drops the
/// handshake's last step, and clients try again after a second. The kernel's own limit (`net.core.somaxconn`) may
/// be lower. A connection that waits takes less than 1 KiB of kernel memory, and no descriptor.
pub const BACKLOG: i32 = 4096;

/// Why it is not possible to listen somewhere. All are the operator's to mend.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else listens there, or another listen spec of ours.
    #[error("cannot listen on {address}: address in use")]
    AddressInUse {
        /// The address or the path.
        address: String,
    },
    /// There is a file at the path, and it is not ours to remove.
    #[error("cannot listen on {path}: there is a file that is no socket", path = path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// `user=` or `group=` names nobody, or the system's user database failed.
    #[error("cannot listen on {path}: no {what} {name:?}", path = path.display())]
    UnknownOwner {
        /// The path.
        path: PathBuf,
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// Why it could not be looked up. `None`: it could, and there is none.
        source: Option<io::Error>,
    },
    /// The owner or the mode of the path could not be set. Only root may give files away.
    #[error("cannot set the owner or the mode of {path}", path = path.display())]
    Permissions {
        /// The path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system refuses for another reason: a privileged port, an address that this machine does not have.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address or the path.
        address: String,
        /// What the system says.
        source: io::Error,
    },
}

impl ListenError {
    pub(crate) fn from_io(address: impl Display, source: io::Error) -> ListenError {
        let address = address.to_string();
        if source.kind() == io::ErrorKind::AddrInUse {
            ListenError::AddressInUse { address }
        } else {
            ListenError::Bind { address, source }
        }
    }
}

/// Why there is no new connection. What to do differs for each.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Nobody waits. There will be an event.
    #[error("no connection waits")]
    WouldBlock,
    /// Accepting fails for a reason that may last: the process or the system is out of descriptors or memory, most
    /// often. Connections still wait, and *no event tells* when that has changed: try later, and not in a loop.
    #[error("no connection can be accepted: {0}")]
    Lasting(io::Error),
    /// This one connection failed before it was accepted, most often because the client has gone. Try the next one.
    #[error("a connection failed before it was accepted: {0}")]
    Transient(io::Error),
}

impl From<io::Error> for AcceptError {
    /// accept(2): "Linux passes already-pending network errors on the new socket as an error code from accept". Those
    /// are listed there, and are about that connection; whatever else there is may be about us, and last.
    fn from(error: io::Error) -> AcceptError {
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::EAGAIN) => AcceptError::WouldBlock,
            Some(
                Errno::ECONNABORTED
                | Errno::EINTR
                | Errno::ENETDOWN
                | Errno::EPROTO
                | Errno::ENOPROTOOPT
                | Errno::EHOSTDOWN
                | Errno::EHOSTUNREACH
                | Errno::EOPNOTSUPP
                | Errno::ENETUNREACH
                | Errno::ECONNRESET
                | Errno::ETIMEDOUT,
            ) => AcceptError::Transient(error),
            Some(_) | None => AcceptError::Lasting(error),
        }
    }
}

/// One worker's listener for one listen spec. Register it for [`Interest::READABLE`]; events are edge-triggered.
///
/// # Deregister before dropping
/// The workers' listeners on a path are duplicates of one socket. epoll watches the socket, not the descriptor, so a
/// listener that is dropped while others live would go on to cause events for its old token.
#[derive(Debug)]
pub struct Listener {
    socket: Listening,
    mode: Mode,
    tls: Option<Arc<ServerConfig>>,
}

#[derive(Debug)]
enum Listening {
    Tcp {
        listener: TcpListener,
        address: SocketAddr,
    },
    Unix {
        listener: UnixListener,
        /// The last one removes the file.
        _path: Arc<BoundPath>,
    },
}

/// A place that is ours, and where clients are still refused. Dropping it gives the place back.
#[derive(Debug)]
pub struct Bound {
    place: Place,
    mode: Mode,
}

#[derive(Debug)]
enum Place {
    /// The first worker's socket.
    Tcp {
        socket: Socket,
        address: SocketAddr,
    },
    Unix(unix::BoundSocket),
}

/// Takes the place of a spec.
///
/// Nothing is left behind after an error, neither a bound port nor a file.
///
/// # Errors
/// See [`ListenError`]; in particular if anyone listens there.
pub fn bind(spec: &ListenSpec) -> Result<Bound, ListenError> {
    let place = match &spec.address {
        ListenAddress::Tcp(address) => bind_tcp(*address, spec.is_shared)
            .map_err(|source| ListenError::from_io(address, source))?,
        ListenAddress::Unix(unix) => Place::Unix(unix::bind(unix)?),
    };
    Ok(Bound { place, mode: spec.mode })
}

impl Bound {
    /// Where it will listen, with the port that the kernel picked for port 0. `None` for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.place {
            Place::Tcp { address, .. } => Some(*address),
            Place::Unix(_) => None,
        }
    }

    /// Listens, with a listener for each worker. All have the same port, also if the spec's port is 0.
    ///
    /// # Errors
    /// See [`ListenError`]. The place is given back, and is in use if somebody else has come to listen there since it
    /// was bound.
    pub fn listen(self, workers: NonZeroUsize) -> Result<Vec<Listener>, ListenError> {
        let sockets = match self.place {
            Place::Tcp { socket, address } => listen_tcp(socket, address, workers)
                .map_err(|source| ListenError::from_io(address, source))?,
            Place::Unix(bound) => listen_unix(bound, workers)?,
        };
        let listener = |socket| Listener { socket, mode: self.mode, tls: None };
        Ok(sockets.into_iter().map(listener).collect())
    }
}

fn bind_tcp(address: SocketAddr, is_shared: bool) -> io::Result<Place> {
    let socket = tcp_socket(address)?;
    socket.set_reuse_port(is_shared)?;
    socket.bind(&address.into())?;
    let unexpected = || io::Error::other("a TCP socket has no IP address");
    let address = socket.local_addr()?.as_socket().ok_or_else(unexpected)?;
    Ok(Place::Tcp { socket, address })
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    // A restart must not wait for connections of the last run that are in TIME_WAIT.
    socket.set_reuse_address(true)?;
    // `[::]` takes IPv4 as well, as with Condure, whatever `net.ipv6.bindv6only` says.
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    // Accepted sockets inherit both from their listener (a test holds the system to that), which saves two system
    // calls a connection. What we write is complete, so Nagle's algorithm could only delay it; keep-alive probes
    // find clients that have vanished while nothing is sent to them.
    socket.set_tcp_nodelay(true)?;
    socket.set_keepalive(true)?;
    Ok(socket)
}

fn listen_tcp(
    first: Socket,
    address: SocketAddr,
    workers: NonZeroUsize,
) -> io::Result<Vec<Listening>> {
    first.listen(BACKLOG)?;
    let mut sockets = vec![first];
    if workers.get() > 1 {
        sockets[0].set_reuse_port(true)?;
    }
    for _ in 1..workers.get() {
        let sibling = tcp_socket(address)?;
        sibling.set_reuse_port(true)?;
        sibling.bind(&address.into())?;
        sibling.listen(BACKLOG)?;
        sockets.push(sibling);
    }
    let listening = |socket: Socket| {
        let listener = TcpListener::from_std(socket.into());
        Listening::Tcp { listener, address }
    };
    Ok(sockets.into_iter().map(listening).collect())
}

fn listen_unix(
    bound: unix::BoundSocket,
    workers: NonZeroUsize,
) -> Result<Vec<Listening>, ListenError> {
    let (listener, path) = bound.listen()?;
    let path = Arc::new(path);
    let duplicate = |_| {
        let listener = UnixListener::from_std(listener.try_clone()?);
        Ok(Listening::Unix { listener, _path: Arc::clone(&path) })
    };
    let listening: io::Result<Vec<Listening>> = (0..workers.get()).map(duplicate).collect();
    listening.map_err(|source| ListenError::from_io(path.display(), source))
}

impl Listener {
    /// Takes one client that waits. The address is the client's; clients on a unix socket have none.
    ///
    /// # Errors
    /// See [`AcceptError`], which says what to do.
    pub fn accept(&self) -> Result<(Stream, Option<SocketAddr>), AcceptError> {
        match &self.socket {
            Listening::Tcp { listener, .. } => {
                let (stream, peer) = listener.accept()?;
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Listening::Unix { listener, .. } => {
                let (stream, _) = listener.accept()?;
                Ok((Stream::Unix(stream), None))
            }
        }
    }

    /// Where it listens, with the port that the kernel picked for port 0. `None` for a unix socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Listening::Tcp { address, .. } => Some(*address),
            Listening::Unix { .. } => None,
        }
    }

    /// How the requests of its clients go to handlers.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The same listener for clients that speak TLS, if there is a configuration for it.
    pub(crate) fn with_tls(self, tls: Option<Arc<ServerConfig>>) -> Listener {
        Listener { tls, ..self }
    }

    /// What the sessions of its clients are made with. `None`: they speak no TLS.
    pub(crate) fn tls(&self) -> Option<&Arc<ServerConfig>> {
        self.tls.as_ref()
    }

    fn source(&mut self) -> &mut dyn Source {
        match &mut self.socket {
            Listening::Tcp { listener, .. } => listener,
            Listening::Unix { listener, .. } => listener,
        }
    }
}

impl Source for Listener {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.source().register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interests: Interest,
    ) -> io::Result<()> {
        self.source().reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        self.source().deregister(registry)
    }
}

#[cfg(test)]
mod tests;
