//! A port for an edge that is killed and started again: free now, and kept until then.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// Keeps a port, without listening: with `SO_REUSEPORT` only who sets it too can bind it, and nobody is given it by
/// chance.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) address: SocketAddr,
    _socket: Socket,
}

impl Reservation {
    /// Takes a free port of the loopback address.
    pub(crate) fn new() -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_port(true)?;
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = socket.local_addr()?.as_socket();
        let address = address.ok_or_else(|| io::Error::other("no address of IPv4"))?;
        Ok(Reservation { address, _socket: socket })
    }
}
