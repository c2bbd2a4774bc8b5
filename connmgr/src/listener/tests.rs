//! With real sockets, on loopback.
#![allow(clippy::unwrap_used)]

use std::io::{IoSlice, Read, Write};
use std::net::{self, Shutdown};
use std::os::unix::net::UnixStream;

use mio::{Events, Poll};
use socket2::SockRef;

use super::*;
use crate::config::UnixSpec;

fn workers(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).unwrap()
}

fn at(address: SocketAddr) -> ListenSpec {
    let address = ListenAddress::Tcp(address);
    ListenSpec { address, mode: Mode::Stream, tls: None, is_shared: false }
}

fn tcp(address: &str) -> ListenSpec {
    at(address.parse().unwrap())
}

fn unix(spec: UnixSpec) -> ListenSpec {
    let address = ListenAddress::Unix(spec);
    ListenSpec { address, mode: Mode::Stream, tls: None, is_shared: false }
}

/// Binds and listens.
fn listen(spec: &ListenSpec, workers: NonZeroUsize) -> Result<Vec<Listener>, ListenError> {
    bind(spec)?.listen(workers)
}

fn address_of(listeners: &[Listener]) -> SocketAddr {
    listeners[0].local_addr().unwrap()
}

/// A poll in which the listeners have their indices as tokens.
fn poll(listeners: &mut [Listener]) -> Poll {
    let poll = Poll::new().unwrap();
    for (index, listener) in listeners.iter_mut().enumerate() {
        poll.registry().register(listener, Token(index), Interest::READABLE).unwrap();
    }
    poll
}

/// Waits until so many clients have come in. Which listener each came to, its stream and its address.
fn accept(listeners: &mut [Listener], count: usize) -> Vec<(usize, Stream, Option<SocketAddr>)> {
    let mut poll = poll(listeners);
    let mut events = Events::with_capacity(16);
    let mut accepted = Vec::new();
    while accepted.len() < count {
        poll.poll(&mut events, None).unwrap();
        for event in &events {
            let Token(index) = event.token();
            loop {
                match listeners[index].accept() {
                    Ok((stream, peer)) => accepted.push((index, stream, peer)),
                    Err(AcceptError::WouldBlock) => break,
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }
    for listener in listeners {
        poll.registry().deregister(listener).unwrap();
    }
    accepted
}

/// Reads until there are so many bytes.
fn read_exactly(stream: &mut Stream, count: usize) -> Vec<u8> {
    let mut poll = Poll::new().unwrap();
    poll.registry().register(stream, Token(0), Interest::READABLE).unwrap();
    let mut events = Events::with_capacity(1);
    let mut bytes = Vec::new();
    while bytes.len() < count {
        let mut buf = [0; 64];
        match stream.read(&mut buf) {
            Ok(0) => break,
            Ok(len) => bytes.extend_from_slice(&buf[..len]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                poll.poll(&mut events, None).unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }
    poll.registry().deregister(stream).unwrap();
    bytes
}

#[test]
fn all_workers_have_one_port() {
    let listeners = listen(&tcp("127.0.0.1:0"), workers(4)).unwrap();
    assert_eq!(listeners.len(), 4);
    let address = address_of(&listeners);
    assert_ne!(address.port(), 0);
    assert!(listeners.iter().all(|listener| listener.local_addr() == Some(address)));
}

#[test]
fn the_kernel_spreads_clients_over_workers() {
    let mut listeners = listen(&tcp("127.0.0.1:0"), workers(2)).unwrap();
    let address = address_of(&listeners);
    let clients: Vec<net::TcpStream> =
        (0..200).map(|_| net::TcpStream::connect(address).unwrap()).collect();
    let accepted = accept(&mut listeners, clients.len());
    for index in 0..2 {
        // That one of them gets none by chance has a probability of one in 2¹⁹⁹.
        assert!(accepted.iter().any(|(listener, _, _)| *listener == index));
    }
    let mut peers: Vec<_> = accepted.iter().map(|(_, _, peer)| peer.unwrap()).collect();
    let mut expected: Vec<_> = clients.iter().map(|c| c.local_addr().unwrap()).collect();
    peers.sort();
    expected.sort();
    assert_eq!(peers, expected);
}

#[test]
fn a_port_in_use_is_an_error_whoever_uses_it() {
    for (first, second) in [(1, 1), (1, 2), (2, 1), (2, 2)] {
        let listeners = listen(&tcp("127.0.0.1:0"), workers(first)).unwrap();
        let address = address_of(&listeners);
        let error = listen(&at(address), workers(second)).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address}: address in use"));
    }
    let other = net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap();
    let error = listen(&at(address), workers(2)).unwrap_err();
    assert!(matches!(error, ListenError::AddressInUse { .. }), "{error}");
}

#[test]
fn who_listens_already_is_found_before_we_listen() {
    let listeners = listen(&tcp("127.0.0.1:0"), workers(2)).unwrap();
    let error = bind(&at(address_of(&listeners))).unwrap_err();
    assert!(matches!(error, ListenError::AddressInUse { .. }), "{error}");
}

#[test]
fn who_binds_and_does_not_listen_refuses_clients() {
    // A loopback address of its own: no other test can be given the port when it is given back.
    let bound = bind(&tcp("127.84.1.2:0")).unwrap();
    let address = bound.local_addr().unwrap();
    let refused = || net::TcpStream::connect(address).unwrap_err().kind();
    assert_eq!(refused(), io::ErrorKind::ConnectionRefused);
    let listeners = bound.listen(workers(3)).unwrap();
    assert_eq!((address_of(&listeners), listeners.len()), (address, 3));
    net::TcpStream::connect(address).unwrap();
    drop(listeners);
    assert_eq!(refused(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn of_two_who_bind_in_the_same_moment_one_listens() {
    for count in [1, 2] {
        let first = bind(&tcp("127.84.1.3:0")).unwrap();
        let address = first.local_addr().unwrap();
        // For a restart's sake the kernel lets both bind.
        let second = bind(&at(address)).unwrap();
        let _listeners = first.listen(workers(count)).unwrap();
        let error = second.listen(workers(count)).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on {address}: address in use"));
    }
}

#[test]
fn all_of_an_address_is_in_use_if_one_part_is() {
    let listeners = listen(&tcp("127.0.0.1:0"), workers(2)).unwrap();
    let address = SocketAddr::from(([0, 0, 0, 0], address_of(&listeners).port()));
    let error = listen(&at(address), workers(2)).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot listen on {address}: address in use"));
}

#[test]
fn who_shares_a_port_shares_it_with_those_who_do() {
    let any = ListenSpec { is_shared: true, ..at("127.0.0.1:0".parse().unwrap()) };
    let first = listen(&any, NonZeroUsize::MIN).unwrap();
    let alone = at(address_of(&first));
    let shared = ListenSpec { is_shared: true, ..alone.clone() };
    let mut both = listen(&shared, NonZeroUsize::MIN).unwrap();
    assert!(matches!(bind(&alone), Err(ListenError::AddressInUse { .. })), "it would take some");
    both.extend(first);
    let clients: Vec<net::TcpStream> =
        (0..100).map(|_| net::TcpStream::connect(address_of(&both)).unwrap()).collect();
    let of_second =
        accept(&mut both, clients.len()).iter().filter(|(index, ..)| *index == 0).count();
    assert!((1..clients.len()).contains(&of_second), "both have some: {of_second}");
}

#[test]
fn a_restart_does_not_wait_for_old_connections() {
    // A loopback address of its own, so that no other test is given the port meanwhile.
    let mut listeners = listen(&tcp("127.84.1.1:0"), workers(2)).unwrap();
    let address = address_of(&listeners);
    let mut client = net::TcpStream::connect(address).unwrap();
    let (_, stream, _) = accept(&mut listeners, 1).pop().unwrap();
    // Who closes first keeps the port in TIME_WAIT.
    drop(stream);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    drop(client);
    drop(listeners);
    let listeners = listen(&at(address), workers(2)).unwrap();
    assert_eq!(address_of(&listeners), address);
}

#[test]
fn an_address_of_another_machine_is_an_error() {
    // TEST-NET-1 (RFC 5737) belongs to nobody.
    let error = listen(&tcp("192.0.2.1:0"), workers(1)).unwrap_err();
    assert_eq!(error.to_string(), "cannot listen on 192.0.2.1:0");
    assert!(matches!(error, ListenError::Bind { .. }));
}

#[test]
fn all_of_ipv6_takes_ipv4_too() {
    if net::TcpListener::bind("[::1]:0").is_err() {
        return; // This machine has no IPv6.
    }
    let mut listeners = listen(&tcp("[::]:0"), workers(2)).unwrap();
    let port = address_of(&listeners).port();
    let _six = net::TcpStream::connect(("::1", port)).unwrap();
    let _four = net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    assert_eq!(accept(&mut listeners, 2).len(), 2);
}

#[test]
fn accepted_sockets_inherit_their_options() {
    let mut listeners = listen(&tcp("127.0.0.1:0"), workers(2)).unwrap();
    let _client = net::TcpStream::connect(address_of(&listeners)).unwrap();
    let (_, stream, _) = accept(&mut listeners, 1).pop().unwrap();
    let socket = SockRef::from(&stream);
    assert!(socket.tcp_nodelay().unwrap());
    assert!(socket.keepalive().unwrap());
    assert!(socket.nonblocking().unwrap());
}

#[test]
fn a_listener_has_the_mode_of_its_spec() {
    let directory = tempfile::tempdir().unwrap();
    for mode in [Mode::Stream, Mode::Req] {
        let path = directory.path().join(format!("{mode:?}"));
        let specs = [
            ListenSpec { mode, ..tcp("127.0.0.1:0") },
            ListenSpec { mode, ..unix(UnixSpec { path, ..UnixSpec::default() }) },
        ];
        for spec in specs {
            let listeners = listen(&spec, workers(2)).unwrap();
            assert!(listeners.iter().all(|listener| listener.mode() == mode));
        }
    }
}

#[test]
fn bytes_go_both_ways() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let spec = UnixSpec { path: path.clone(), ..UnixSpec::default() };

    let mut listeners = listen(&tcp("127.0.0.1:0"), workers(1)).unwrap();
    let client = net::TcpStream::connect(address_of(&listeners)).unwrap();
    echo(client, &mut listeners);

    let mut listeners = listen(&unix(spec), workers(1)).unwrap();
    assert_eq!(listeners[0].local_addr(), None);
    let client = UnixStream::connect(&path).unwrap();
    echo(client, &mut listeners);
}

fn echo(mut client: impl Read + Write, listeners: &mut [Listener]) {
    let (_, mut stream, _) = accept(listeners, 1).pop().unwrap();
    let would_block = stream.read(&mut [0; 1]).unwrap_err();
    assert_eq!(would_block.kind(), io::ErrorKind::WouldBlock);
    client.write_all(b"ping").unwrap();
    assert_eq!(read_exactly(&mut stream, 4), b"ping");
    assert_eq!(stream.write_vectored(&[IoSlice::new(b"po"), IoSlice::new(b"ng")]).unwrap(), 4);
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "pong");
    assert!(stream.take_error().unwrap().is_none());
}

#[test]
fn workers_share_a_path_until_the_last_one_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let spec = UnixSpec { path: path.clone(), ..UnixSpec::default() };
    let mut listeners = listen(&unix(spec), workers(3)).unwrap();
    let clients: Vec<UnixStream> = (0..10).map(|_| UnixStream::connect(&path).unwrap()).collect();
    let accepted = accept(&mut listeners, clients.len());
    assert!(accepted.iter().all(|(_, _, peer)| peer.is_none()));
    while listeners.pop().is_some() {
        assert_eq!(path.exists(), !listeners.is_empty());
    }
}

#[test]
fn errors_are_told_apart() {
    let classify = |errno: Errno| AcceptError::from(io::Error::from(errno));
    assert!(matches!(classify(Errno::EAGAIN), AcceptError::WouldBlock));
    for errno in [Errno::EMFILE, Errno::ENOBUFS, Errno::ENOMEM, Errno::EPERM, Errno::EINVAL] {
        assert!(matches!(classify(errno), AcceptError::Lasting(_)), "{errno}");
    }
    for errno in [Errno::ECONNABORTED, Errno::EPROTO, Errno::EHOSTUNREACH, Errno::EINTR] {
        assert!(matches!(classify(errno), AcceptError::Transient(_)), "{errno}");
    }
    let other = AcceptError::from(io::Error::other("x"));
    assert!(matches!(other, AcceptError::Lasting(_)));
}
