//! What ends these programs. A measurement with a fault in it is worth nothing, so every fault does.

use std::net::SocketAddr;

/// Why a program of this crate ends.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The address is taken, or is none of this machine.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system says.
        error: std::io::Error,
    },
    /// The system refuses to wait for sockets or to take a connection, for instance because of a limit.
    #[error("{0}")]
    System(#[from] std::io::Error),
    /// The ZeroMQ library reports an error.
    #[error("ZeroMQ: {0}")]
    ZeroMq(#[from] zmq::Error),
    /// The edge sends something that is no packet.
    #[error("a packet of the edge cannot be read: {0}")]
    Packet(#[from] zhttp::PacketError),
    /// A second edge has connected; sessions are kept by the ids of one.
    #[error("there are two edges: {0} and {1}")]
    Edges(String, String),
}
