//! Sessions over real sockets, with a client of rustls in the same thread: nothing waits, every step is asked for.
#![allow(clippy::unwrap_used)]

use std::io::BufRead;
use std::os::unix::net::UnixStream;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore, SupportedProtocolVersion};

use super::*;
use crate::tls::identities::{Identities, Resolver};
use crate::tls::test_support::{Pair, provider};

const HOST: &str = "a.test";

/// More than any test takes.
const STEPS: Steps = 1000;

/// A session and its client.
struct World {
    session: Session,
    stream: Stream,
    client: ClientConnection,
    socket: UnixStream,
    steps: Steps,
    written: u64,
}

impl World {
    fn new(version: &'static SupportedProtocolVersion) -> World {
        World::asking_for(version, HOST)
    }

    fn asking_for(version: &'static SupportedProtocolVersion, host: &str) -> World {
        let pair = Pair::new(HOST);
        let (stream, socket) = sockets();
        World {
            session: Session::new(server_config(&pair)).unwrap(),
            stream,
            client: client(version, &pair.certificate, host),
            socket,
            steps: STEPS,
            written: 0,
        }
    }

    /// The same, behind its handshake.
    fn shaken(version: &'static SupportedProtocolVersion) -> World {
        let mut world = World::new(version);
        while world.client.is_handshaking() || world.session.tls.is_handshaking() {
            world.client_turn().unwrap();
            assert!(matches!(world.read(100), (ReadOutcome::Blocked, _)));
        }
        world.client_turn().unwrap();
        world
    }

    /// The client sends what it has to, and reads what there is.
    fn client_turn(&mut self) -> Result<(), rustls::Error> {
        while self.client.wants_write() && self.client.write_tls(&mut &self.socket).is_ok() {}
        while self.client.wants_read()
            && let Ok(1..) = self.client.read_tls(&mut &self.socket)
        {
            self.client.process_new_packets()?;
        }
        Ok(())
    }

    fn read(&mut self, bytes_max: usize) -> (ReadOutcome, Vec<u8>) {
        let mut buffer = vec![0; bytes_max];
        let outcome = self.session.read(&mut self.stream, &mut buffer, &mut self.steps);
        if let ReadOutcome::Bytes(bytes) = outcome {
            buffer.truncate(bytes);
        }
        (outcome, buffer)
    }

    fn write(&mut self, slices: &[&[u8]]) -> usize {
        let slices: Vec<IoSlice<'_>> = slices.iter().map(|slice| IoSlice::new(slice)).collect();
        self.session.write(&mut self.stream, &slices, &mut self.written).unwrap()
    }

    /// All plaintext that the client can have now.
    fn received(&mut self) -> Vec<u8> {
        let mut received = Vec::new();
        loop {
            self.client_turn().unwrap();
            let mut reader = self.client.reader();
            let Ok(chunk) = reader.fill_buf() else { return received };
            let bytes = chunk.len();
            if bytes == 0 {
                return received;
            }
            received.extend_from_slice(chunk);
            reader.consume(bytes);
        }
    }

    /// Whether the client knows that it has everything.
    fn has_goodbye(&mut self) -> bool {
        self.client_turn().unwrap();
        matches!(self.client.reader().fill_buf(), Ok([]))
    }
}

fn server_config(pair: &Pair) -> Arc<ServerConfig> {
    let identities = Arc::new(Identities::default());
    identities.insert(HOST, pair.identity());
    let config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(Resolver { identities, default_name: None }));
    Arc::new(config)
}

/// Both ends of a connection, none of which blocks.
fn sockets() -> (Stream, UnixStream) {
    let (ours, socket) = mio::net::UnixStream::pair().unwrap();
    (Stream::Unix(ours), UnixStream::from(std::os::fd::OwnedFd::from(socket)))
}

fn client(
    version: &'static SupportedProtocolVersion,
    root: &CertificateDer<'static>,
    host: &str,
) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    ClientConnection::new(Arc::new(config), name).unwrap()
}

/// Bytes that tell where they are from.
fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes as u32 / 4 + 1).flat_map(u32::to_le_bytes).take(bytes).collect()
}

#[test]
fn what_is_sent_arrives_both_ways() {
    for version in [&TLS12, &TLS13] {
        let mut world = World::shaken(version);
        world.client.writer().write_all(b"ping").unwrap();
        world.client_turn().unwrap();
        let (outcome, bytes) = world.read(100);
        assert!(matches!(outcome, ReadOutcome::Bytes(4)) && bytes == b"ping", "{version:?}");
        assert!(matches!(world.read(100), (ReadOutcome::Blocked, _)));
        assert_eq!(world.write(&[b"po", b"", b"ng"]), 4);
        assert_eq!(world.received(), b"pong");
        assert!(world.session.unsent.is_empty() && world.written > 4);
    }
}

#[test]
fn more_slices_than_fit_a_record_are_all_sent() {
    let mut world = World::shaken(&TLS13);
    let content = pattern(40_000);
    let slices: Vec<&[u8]> = content.chunks(1000).collect();
    assert_eq!(world.write(&slices), content.len());
    assert_eq!(world.received(), content);
}

#[test]
fn less_may_be_offered_than_was_encrypted() {
    let mut world = World::shaken(&TLS13);
    let content = pattern(3_000_000);
    let (mut taken, mut received) = (0, Vec::new());
    loop {
        let bytes = world.write(&[&content[taken..]]);
        taken += bytes;
        if bytes == 0 {
            break;
        }
    }
    assert!(world.session.owed > 5_000);
    while received.len() < taken {
        received.extend(world.received());
    }
    // It is all sent now, and told in parts.
    while world.session.owed > 0 {
        let part = &content[taken..taken + 700];
        let bytes = world.write(&[&part[..300], &part[300..]]);
        assert!((1..=700).contains(&bytes));
        taken += bytes;
    }
    taken += world.write(&[&content[taken..taken + 700]]);
    received.extend(world.received());
    assert!(received == content[..taken]);
}

/// A client that reads a little now and then, and a machine that offers again what was not taken.
#[test]
fn a_slow_client_gets_every_byte_once() {
    for version in [&TLS12, &TLS13] {
        let mut world = World::shaken(version);
        let content = pattern(2_000_000);
        let (mut taken, mut received, mut stalls) = (0, Vec::new(), 0);
        while received.len() < content.len() {
            let bytes = world.write(&[&content[taken..]]);
            taken += bytes;
            if bytes == 0 && taken < content.len() {
                stalls += 1;
                let unsent = world.session.unsent.len() - world.session.sent;
                assert!((1..=ENCRYPTED_BYTES_MAX + 64).contains(&unsent), "{unsent}");
                assert!(world.session.owed <= ENCRYPTED_BYTES_MAX);
            }
            let mut some = vec![0; 5_000];
            let bytes = (&world.socket).read(&mut some).unwrap();
            let mut some = &some[..bytes];
            while !some.is_empty() {
                world.client.read_tls(&mut some).unwrap();
                world.client.process_new_packets().unwrap();
                let mut reader = world.client.reader();
                while let Ok(chunk @ [_, ..]) = reader.fill_buf() {
                    received.extend_from_slice(chunk);
                    let bytes = chunk.len();
                    reader.consume(bytes);
                }
            }
            // What was told to be sent is at most what is on its way.
            assert!(received.len() <= taken + world.session.owed);
        }
        assert!(stalls > 10 && received == content && taken == content.len(), "{version:?}");
        assert_eq!(world.session.unsent.capacity(), 0);
    }
}

#[test]
fn what_the_machine_has_no_room_for_stays_in_one_record() {
    let mut world = World::shaken(&TLS13);
    let content = pattern(300_000);
    let (mut sent, mut received) = (0, Vec::new());
    while received.len() < content.len() {
        sent += world.client.writer().write(&content[sent..]).unwrap();
        while world.client.wants_write() && world.client.write_tls(&mut &world.socket).is_ok() {}
        let (outcome, bytes) = world.read(777);
        assert!(matches!(outcome, ReadOutcome::Bytes(1..=777)));
        received.extend_from_slice(&bytes);
        let decrypted = world.session.tls.process_new_packets().unwrap().plaintext_bytes_to_read();
        assert!(decrypted <= 18 * 1024, "{decrypted}");
    }
    assert!(received == content);
}

#[test]
fn steps_are_counted_and_deferred_once() {
    let mut world = World::new(&TLS13);
    world.client_turn().unwrap();
    world.steps = 0;
    assert!(matches!(world.read(100), (ReadOutcome::Deferred, _)));
    assert!(matches!(world.read(100), (ReadOutcome::Blocked, _)), "it stands in the queue");
    world.steps = 1;
    assert!(matches!(world.read(100), (ReadOutcome::Deferred, _)));
    assert_eq!(world.steps, 0);
    world.client_turn().unwrap();
    world.client.writer().write_all(b"hi").unwrap();
    world.client_turn().unwrap();
    world.steps = 2;
    assert!(matches!(world.read(100), (ReadOutcome::Bytes(2), _)));
    // Behind the handshake nobody asks for steps.
    world.steps = 0;
    assert!(matches!(world.read(100), (ReadOutcome::Blocked, _)));
}

#[test]
fn nothing_is_taken_before_the_handshake_is_over() {
    let mut world = World::new(&TLS13);
    assert_eq!(world.write(&[b"early"]), 0);
    world.client_turn().unwrap();
    assert!(matches!(world.read(100), (ReadOutcome::Blocked, _)));
    assert_eq!(world.write(&[b"early"]), 0);
    world.client_turn().unwrap();
    world.client_turn().unwrap();
    assert!(matches!(world.read(100), (ReadOutcome::Blocked, _)));
    assert_eq!(world.write(&[b"now"]), 3);
    assert_eq!(world.received(), b"now");
}

#[test]
fn both_kinds_of_ends_are_ends() {
    for is_clean in [true, false] {
        let mut world = World::shaken(&TLS13);
        world.client.writer().write_all(b"bye").unwrap();
        if is_clean {
            world.client.send_close_notify();
        }
        world.client_turn().unwrap();
        if !is_clean {
            world.socket.shutdown(Shutdown::Write).unwrap();
        }
        assert!(matches!(world.read(2), (ReadOutcome::Bytes(2), _)));
        assert_eq!(world.session.is_read_closed(), is_clean);
        assert!(matches!(world.read(2), (ReadOutcome::Bytes(1), _)));
        for _ in 0..2 {
            assert!(matches!(world.read(2), (ReadOutcome::Eof, _)));
        }
        // A client that has half-closed still gets its answer.
        assert_eq!(world.write(&[b"answer"]), 6);
        assert_eq!(world.received(), b"answer");
    }
}

#[test]
fn a_client_that_leaves_in_its_handshake_has_left() {
    let mut world = World::new(&TLS13);
    world.client_turn().unwrap();
    assert!(matches!(world.read(100), (ReadOutcome::Blocked, _)));
    drop(world.socket);
    let mut buffer = [0; 100];
    let outcome = world.session.read(&mut world.stream, &mut buffer, &mut world.steps);
    assert!(matches!(outcome, ReadOutcome::Eof | ReadOutcome::Failed));
}

#[test]
fn a_shutdown_says_goodbye_behind_all_that_was_written() {
    for version in [&TLS12, &TLS13] {
        let mut world = World::shaken(version);
        let content = pattern(1_000_000);
        let mut taken = 0;
        let mut received = Vec::new();
        while taken < content.len() {
            taken += world.write(&[&content[taken..]]);
            received.extend(world.received());
        }
        // The kernel takes nothing more, so the goodbye waits, too.
        while world.write(&[&[b'x'; 100_000]]) > 0 {}
        assert!(!world.session.unsent.is_empty());
        world.session.shutdown(&mut world.stream);
        while !world.session.unsent.is_empty() {
            received.extend(world.received());
            world.session.flush(&mut world.stream).unwrap();
        }
        received.extend(world.received());
        assert!(received.starts_with(&content) && world.has_goodbye(), "{version:?}");
        assert_eq!((&world.socket).read(&mut [0]).unwrap(), 0, "and the FIN");
    }
}

#[test]
fn nonsense_is_answered_by_an_alert() {
    let mut world = World::new(&TLS13);
    (&world.socket).write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(matches!(world.read(100), (ReadOutcome::Refused(_), _)));
    let mut got = Vec::new();
    (&world.socket).read_to_end(&mut got).unwrap();
    assert_eq!((got.len(), got[0], got[5]), (ALERT_BYTES, 21, 2), "{got:?}");
    assert!(matches!(
        world.read(100),
        (ReadOutcome::Failed | ReadOutcome::Refused(_) | ReadOutcome::Eof, _)
    ));
}

/// A first flight with two bytes that are others is refused, or understood all the same, or waits for more.
#[test]
fn spoilt_handshakes_harm_nothing() {
    let pair = Pair::new(HOST);
    let config = server_config(&pair);
    for version in [&TLS12, &TLS13] {
        let mut hello = Vec::new();
        client(version, &pair.certificate, HOST).write_tls(&mut hello).unwrap();
        let mut refused = 0;
        for round in 0..2 * hello.len() {
            let mut spoilt = hello.clone();
            spoilt[round % hello.len()] ^= 1 << (round % 8);
            spoilt[round.wrapping_mul(7919) % hello.len()] = (round / 3) as u8;
            let (mut stream, socket) = sockets();
            let mut session = Session::new(Arc::clone(&config)).unwrap();
            (&socket).write_all(&spoilt).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            match session.read(&mut stream, &mut [0; 100], &mut STEPS.clone()) {
                ReadOutcome::Refused(_) => refused += 1,
                ReadOutcome::Eof => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(refused > hello.len() / 2, "{refused}");
    }
}

#[test]
fn an_unknown_name_is_unrecognized() {
    for version in [&TLS12, &TLS13] {
        let mut world = World::asking_for(version, "b.test");
        world.client_turn().unwrap();
        assert!(matches!(world.read(100), (ReadOutcome::Refused(_), _)));
        let error = world.client_turn().unwrap_err();
        let alert = rustls::AlertDescription::UnrecognisedName;
        assert_eq!(error, rustls::Error::AlertReceived(alert), "{version:?}");
    }
}

#[test]
fn a_broken_record_ends_the_session() {
    let mut world = World::shaken(&TLS13);
    (&world.socket)
        .write_all(&[
            23, 3, 3, 0, 20, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
        ])
        .unwrap();
    assert!(matches!(world.read(100), (ReadOutcome::Refused(_), _)));
    let error = world.client_turn().unwrap_err();
    let alert = rustls::AlertDescription::BadRecordMac;
    assert_eq!(error, rustls::Error::AlertReceived(alert));
    let slices = [IoSlice::new(b"x")];
    assert!(world.session.write(&mut world.stream, &slices, &mut world.written).is_err());
}

/// A record that takes several reads is no reason to end a connection; reads that never bring anything are.
#[test]
fn reads_without_plaintext_have_an_end() {
    for (empty_reads_max, is_read) in [(EMPTY_READS_MAX, true), (2, false)] {
        let mut world = World::shaken(&TLS13);
        world.client.writer().write_all(&[7; ENCRYPTED_BYTES_MAX]).unwrap();
        world.client_turn().unwrap();
        let mut buffer = vec![0; ENCRYPTED_BYTES_MAX];
        let World { session, stream, steps, .. } = &mut world;
        let outcome = session.read_within(stream, &mut buffer, (steps, empty_reads_max));
        match outcome {
            ReadOutcome::Bytes(bytes) => assert!(is_read && bytes > 0),
            outcome => assert!(!is_read && matches!(outcome, ReadOutcome::Failed), "{outcome:?}"),
        }
    }
}
