//! How many bytes wait in the socket of another process: whoever sends them sees when they were read.
//!
//! It is asked of the kernel by sock_diag(7), for one socket. `/proc/net/tcp` tells the same, but with it of
//! every connection that has ended in the last minute.

use std::io::Read;
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// AF_NETLINK and NETLINK_SOCK_DIAG (linux/socket.h, linux/netlink.h).
const NETLINK: i32 = 16;
const SOCK_DIAG: i32 = 4;

/// The type of a request and of its answer; errors have another one (linux/sock_diag.h).
const SOCK_DIAG_BY_FAMILY: u16 = 20;

/// Where `idiag_rqueue` is in an answer: behind its header, four bytes, the ids of the socket and the time
/// that a timer has left (linux/inet_diag.h).
const RECEIVE_QUEUE_AT: usize = 16 + 4 + 48 + 4;

/// Bytes that wait in the socket at `local` whose peer is at `remote`, both IPv4; `None` if there is none.
pub fn unread_bytes(local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let socket =
        Socket::new(Domain::from(NETLINK), Type::RAW, Some(Protocol::from(SOCK_DIAG))).unwrap();
    socket.send(&request(local, remote)).unwrap();
    // Netlink answers within the send, and in one piece.
    let mut answer = [0; 512];
    let bytes = (&socket).read(&mut answer).unwrap();
    assert!(bytes >= 16, "not even a header");
    let kind = u16::from_ne_bytes(answer[4..6].try_into().unwrap());
    (kind == SOCK_DIAG_BY_FAMILY).then(|| {
        let queue = RECEIVE_QUEUE_AT..RECEIVE_QUEUE_AT + 4;
        u32::from_ne_bytes(answer[queue].try_into().unwrap())
    })
}

/// `nlmsghdr` and `inet_diag_req_v2`.
fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let mut request = Vec::new();
    // To the family AF_INET and TCP, in whatever state.
    request.extend([2, 6, 0, 0]);
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(local.port().to_be_bytes());
    request.extend(remote.port().to_be_bytes());
    for address in [local.ip(), remote.ip()] {
        let IpAddr::V4(address) = address else { panic!("{address} is not IPv4") };
        request.extend(address.octets());
        request.extend([0; 12]);
    }
    // Any interface, and no cookie.
    request.extend(0_u32.to_ne_bytes());
    request.extend([0xff; 8]);

    let length = (16 + request.len()) as u32;
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    // NLM_F_REQUEST; number and sender do not matter.
    message.extend(1_u16.to_ne_bytes());
    message.extend([0; 8]);
    [message, request].concat()
}
