//! Where connections come from: source addresses, local ports, descriptors.
//!
//! A connection is known by two addresses and two ports, so from one source address to one server there are as many as there
//! are local ports: 28,232 by default. To a server on the loopback they come from 127.0.0.2, 127.0.0.3 and so on, all of
//! which are ours. `IP_BIND_ADDRESS_NO_PORT` leaves the choice of the port to `connect`, which knows the whole name: a port is
//! then taken only for this server, and not for the source address as such.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::LoadError;
use crate::report::grouped;
use crate::wire::request::Target;

/// Connections from one source address, where their number is not said. The search of the kernel for a free port goes through
/// those of one parity first, 14,116 by default, and becomes long when these are used up.
pub(crate) const CONNECTIONS_PER_SOURCE: u64 = 14_000;

/// Descriptors of a thread that are not connections: those that it has when it begins, and the process's own.
const DESCRIPTORS_RESERVED: u64 = 200;

/// The first source address on the loopback. The one before it is the server's.
const FIRST_SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Addresses of the loopback from that on.
const SOURCES_MAX: u32 = (1 << 24) - 3;

/// Where the connections of a measurement come from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sources {
    server: SocketAddr,
    /// How many addresses of the loopback; `None`: the one that the system chooses.
    addresses: Option<u32>,
}

impl Sources {
    /// Sources for so many connections; from so many addresses, if that was said.
    ///
    /// # Errors
    /// If there are not enough ports for them.
    pub(crate) fn new(
        target: &Target,
        addresses: Option<u32>,
        connections: u64,
    ) -> Result<Sources, LoadError> {
        let server = target.address;
        let is_loopback = matches!(server.ip(), IpAddr::V4(address) if address.is_loopback());
        let demanded = connections.div_ceil(CONNECTIONS_PER_SOURCE).max(1);
        let addresses = match addresses {
            Some(_) if !is_loopback => {
                let text = format!("--sources: {} is not an address of 127.0.0.0/8", server.ip());
                return Err(LoadError::Usage(text));
            }
            Some(addresses) => Some(addresses.clamp(1, SOURCES_MAX)),
            None => is_loopback.then(|| u32::try_from(demanded).unwrap_or(SOURCES_MAX)),
        };
        let ports = local_ports();
        let possible = ports * u64::from(addresses.unwrap_or(1));
        if connections > possible {
            let (connections, possible) = (grouped(connections), grouped(possible));
            return Err(LoadError::Usage(format!(
                "{connections} connections: from {} source address(es) there can be {possible} to one server \
                 (net.ipv4.ip_local_port_range)",
                addresses.unwrap_or(1)
            )));
        }
        Ok(Sources { server, addresses })
    }

    /// Begins to connect; the socket becomes writable when that is done. Connections go round the addresses by their number.
    pub(crate) fn connect(&self, number: u64) -> io::Result<TcpStream> {
        let server = self.server;
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::for_address(server), kind, Some(Protocol::TCP))?;
        if let Some(addresses) = self.addresses {
            setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
            let index = u32::try_from(number % u64::from(addresses)).unwrap_or_default();
            let source = Ipv4Addr::from(u32::from(FIRST_SOURCE) + index);
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        match socket.connect(&server.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
            Ok(()) | Err(_) => Ok(socket.into()),
        }
    }
}

/// How many local ports the system gives out.
fn local_ports() -> u64 {
    const DEFAULT: u64 = 28_232;
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok();
    let range = text.and_then(|text| {
        let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().ok());
        Some((numbers.next()??, numbers.next()??))
    });
    range.map_or(DEFAULT, |(first, last)| last.saturating_sub(first) + 1)
}

/// Raises the limit of descriptors as far as it goes, and returns how many connections one table of them has room for.
pub(crate) fn connections_per_table() -> u64 {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
    let limit = if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() {
        hard
    } else {
        soft
    };
    limit.saturating_sub(DESCRIPTORS_RESERVED).max(1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::net::TcpListener;

    use super::*;
    use crate::wire::request::parse_target;

    #[test]
    fn connections_go_round_the_source_addresses() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let target = parse_target(&listener.local_addr().unwrap().to_string()).unwrap();
        let sources = Sources::new(&target, Some(2), 4).unwrap();
        let from: Vec<_> = (0..3)
            .map(|number| {
                let _client = sources.connect(number).unwrap();
                listener.accept().unwrap().1.ip().to_string()
            })
            .collect();
        assert_eq!(from, ["127.0.0.2", "127.0.0.3", "127.0.0.2"]);
        assert!(connections_per_table() > 100);
    }

    #[test]
    fn there_must_be_ports() {
        let target = parse_target("127.0.0.1:1").unwrap();
        assert_eq!(Sources::new(&target, None, 1_000_000).unwrap().addresses, Some(72));
        let error = Sources::new(&target, Some(1), 1_000_000).unwrap_err();
        assert!(error.to_string().starts_with("1,000,000 connections: from 1 source"), "{error}");
        let elsewhere = parse_target("192.0.2.1:1").unwrap();
        assert_eq!(Sources::new(&elsewhere, None, 10).unwrap().addresses, None);
        assert!(Sources::new(&elsewhere, Some(2), 10).is_err());
    }
}
