//! Both halves of a connection: against each other, against the specification, and against tungstenite.

#![allow(clippy::unwrap_used)]

use std::io::{self, Cursor, Read, Write};

use proptest::prelude::*;
use tungstenite::protocol::Role as OracleRole;
use tungstenite::{Message, WebSocket};

use super::*;

/// What came, and the bytes with it; or what the peer did wrong.
type Outcome = Result<(Received, Vec<u8>), WebSocketError>;

/// Lets a receiver take bytes that come in pieces of this size, with so much room each time, until something is wrong.
fn receive(receiver: &mut Receiver, bytes: &[u8], piece: usize, room: usize) -> Vec<Outcome> {
    let mut pool = Pool::new();
    let (mut outcomes, mut waiting) = (Vec::new(), Vec::new());
    for bytes in bytes.chunks(piece.max(1)) {
        waiting.extend_from_slice(bytes);
        loop {
            let mut out = Vec::new();
            let (used, received) = match receiver.receive(&mut pool, &waiting, (&mut out, room)) {
                Ok(received) => received,
                Err(error) => {
                    outcomes.push(Err(error));
                    return outcomes;
                }
            };
            waiting.drain(..used);
            match received {
                Received::Nothing => {
                    assert!(out.is_empty(), "nothing brings nothing");
                    break;
                }
                Received::Message { .. } => assert!(out.len() <= room, "there is no more room"),
                Received::Ping | Received::Pong | Received::Close => {}
            }
            outcomes.push(Ok((received, out)));
            if received == Received::Close {
                return outcomes;
            }
        }
    }
    outcomes
}

/// The same with pieces of messages put together.
fn whole(outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let (mut whole, mut begun) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        match outcome {
            Ok((Received::Message { kind, end }, bytes)) => {
                begun.extend(bytes);
                if end {
                    let message = Received::Message { kind, end };
                    whole.push(Ok((message, std::mem::take(&mut begun))));
                }
            }
            other => whole.push(other),
        }
    }
    whole
}

fn server() -> Receiver {
    Receiver::new(Role::Server, false)
}

fn client() -> Receiver {
    Receiver::new(Role::Client, true)
}

const TEXT: Received = Received::Message { kind: MessageKind::Text, end: true };
const BINARY: Received = Received::Message { kind: MessageKind::Binary, end: true };

/// RFC 6455 §5.7, and RFC 7692 §7.2.3.
#[test]
fn the_examples_of_the_specifications() {
    let hello = (TEXT, b"Hello".to_vec());
    for (mut receiver, bytes, expected) in [
        (client(), &b"\x81\x05Hello"[..], vec![hello.clone()]),
        (server(), b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", vec![hello.clone()]),
        (client(), b"\x01\x03Hel\x80\x02lo", vec![hello.clone()]),
        (client(), b"\x89\x05Hello", vec![(Received::Ping, b"Hello".to_vec())]),
        (
            server(),
            b"\x8a\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58",
            vec![(Received::Pong, b"Hello".to_vec())],
        ),
        (client(), b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00", vec![hello.clone()]),
        (client(), b"\x41\x03\xf2\x48\xcd\x80\x04\xc9\xc9\x07\x00", vec![hello.clone()]),
        (client(), b"\xc1\x01\x00\x81\x05Hello", vec![(TEXT, vec![]), hello]),
    ] {
        let expected: Vec<Outcome> = expected.into_iter().map(Ok).collect();
        for piece in 1..=bytes.len() {
            let got = whole(receive(&mut receiver, bytes, piece, 100));
            assert_eq!(got, expected, "{bytes:x?} in pieces of {piece}");
            assert!(!receiver.is_in_message(), "nothing is kept");
        }
    }
}

#[test]
fn control_frames_may_stand_within_a_message() {
    let bytes = b"\x01\x01a\x89\x01p\x00\x01b\x8a\x00\x80\x01c\x88\x02\x03\xe8behind";
    for piece in 1..=bytes.len() {
        let got = whole(receive(&mut client(), bytes, piece, 100));
        let expected = [
            (Received::Ping, b"p".to_vec()),
            (Received::Pong, vec![]),
            (TEXT, b"abc".to_vec()),
            (Received::Close, b"\x03\xe8".to_vec()),
        ];
        assert_eq!(got, expected.map(Ok));
    }
}

#[test]
fn each_rule_has_its_code() {
    use WebSocketError as E;
    let protocol = CloseCode::PROTOCOL;
    let invalid = CloseCode::INVALID_DATA;
    for (mut receiver, bytes, error, code) in [
        (server(), &b"\x81\x01a"[..], E::Masking, protocol),
        (client(), b"\x81\x81\0\0\0\0a", E::Masking, protocol),
        (client(), b"\x80\x01a", E::Continuation, protocol),
        (client(), b"\x01\x01a\x81\x01b", E::Interleaved, protocol),
        (client(), b"\x01\x01a\xc0\x01b", E::Rsv1, protocol),
        (Receiver::new(Role::Client, false), b"\xc1\x01\x00", E::Rsv1, protocol),
        (client(), b"\xf1\x00", E::Frame(FrameError::Reserved), protocol),
        (client(), b"\x83\x00", E::Frame(FrameError::Opcode(3)), protocol),
        (client(), b"\x88\x01a", E::CloseTooShort, protocol),
        (client(), b"\x88\x02\x03\xed", E::CloseCode(1005), protocol),
        (client(), b"\x88\x03\x03\xe8\xff", E::CloseReason, invalid),
        (client(), b"\x81\x05a\xffxxx", E::Text, invalid),
        (client(), b"\x81\x01\xc3", E::Text, invalid),
        (client(), b"\x01\x01\xc3\x80\x00", E::Text, invalid),
        (client(), b"\xc1\x02\xff\xff", E::Compressed, invalid),
    ] {
        let got = receive(&mut receiver, bytes, bytes.len(), 100);
        assert_eq!(got.last(), Some(&Err(error)), "{bytes:x?}");
        assert_eq!(error.code(), code);
    }
}

/// Text that cannot be right is refused before it is whole.
#[test]
fn nonsense_is_not_waited_for() {
    let got = receive(&mut client(), b"\x81\x7f\0\0\0\0\x10\0\0\0abc\xed\xa0", 3, 100);
    assert_eq!(got.last(), Some(&Err(WebSocketError::Text)));
}

/// A message that is larger than what a buffer takes goes on as far as there is room.
#[test]
fn nothing_is_passed_on_without_room() {
    let mut message = Vec::new();
    let data = vec![b'x'; 100_000];
    let kind = MessageKind::Binary;
    let mut pool = Pool::new();
    for deflate in [None, Deflate::choose([&b"permessage-deflate"[..]].into_iter())] {
        message.clear();
        Sender::new(deflate).message(&mut pool, (kind, &data, true), None, &mut message).unwrap();
        assert_eq!(message.len() < 1000, deflate.is_some(), "{}", message.len());
        let mut receiver = client();
        let mut out = Vec::new();
        let mut rest = &message[..];
        let mut pieces = 0;
        loop {
            let (before, none) = (out.len(), (&mut out, 0));
            let (used, received) = receiver.receive(&mut pool, rest, none).unwrap();
            rest = &rest[used..];
            if received == BINARY {
                break;
            }
            assert_eq!((received, out.len()), (Received::Nothing, before));
            let (used, received) = receiver.receive(&mut pool, rest, (&mut out, 999)).unwrap();
            rest = &rest[used..];
            assert!(out.len() <= before + 999);
            pieces += 1;
            if received == BINARY {
                break;
            }
        }
        assert_eq!((out.len(), rest.len()), (data.len(), 0));
        assert!(pieces >= 100, "{pieces}");
    }
}

#[test]
fn pieces_of_a_message_are_frames_and_not_compressed() {
    let deflate = Deflate::choose([&b"permessage-deflate"[..]].into_iter());
    let (mut sender, mut pool, mut out) = (Sender::new(deflate), Pool::new(), Vec::new());
    let half = [b'a'; 200];
    sender.message(&mut pool, (MessageKind::Text, &half, false), None, &mut out).unwrap();
    assert!(sender.is_in_message());
    Sender::ping(b"", None, &mut out);
    sender.message(&mut pool, (MessageKind::Binary, &half, true), None, &mut out).unwrap();
    assert!(!sender.is_in_message());
    sender.message(&mut pool, (MessageKind::Text, &half, true), None, &mut out).unwrap();
    sender.message(&mut pool, (MessageKind::Text, b"short", true), None, &mut out).unwrap();
    Sender::close(Some(&Close { code: CloseCode::NORMAL, reason: "bye" }), None, &mut out);
    assert_eq!((out[0], out[204]), (0x01, 0x89), "the message goes on behind the ping");
    let got = whole(receive(&mut client(), &out, 17, 1000));
    let expected = [
        (Received::Ping, vec![]),
        (TEXT, [half, half].concat()),
        (TEXT, half.to_vec()),
        (TEXT, b"short".to_vec()),
        (Received::Close, b"\x03\xe8bye".to_vec()),
    ];
    assert_eq!(got, expected.map(Ok));
}

#[test]
fn text_that_is_none_is_not_sent() {
    let (mut pool, mut out) = (Pool::new(), Vec::new());
    for (pieces, last) in
        [(&[][..], &b"\xff"[..]), (&[b"\xc3"], b"a"), (&[], b"\xc3"), (&[b"\xc3"], b"")]
    {
        let mut sender = Sender::new(None);
        for piece in pieces {
            sender.message(&mut pool, (MessageKind::Text, *piece, false), None, &mut out).unwrap();
        }
        let sent = sender.message(&mut pool, (MessageKind::Text, last, true), None, &mut out);
        assert_eq!(sent, Err(NotText));
        let bytes = (MessageKind::Binary, last, true);
        assert_eq!(Sender::new(None).message(&mut pool, bytes, None, &mut out), Ok(()));
    }
}

/// What a connection that rests keeps.
#[test]
fn halves_are_small() {
    assert_eq!(size_of::<Receiver>(), 16);
    assert_eq!(size_of::<Sender>(), 8);
}

/// What a peer may do, right or wrong.
#[derive(Clone, Debug)]
struct Frame {
    head: FrameHead,
    payload: Vec<u8>,
}

fn frame() -> impl Strategy<Value = Frame> {
    let opcode = prop_oneof![
        4 => Just(Opcode::Continuation),
        3 => Just(Opcode::Text),
        3 => Just(Opcode::Binary),
        2 => Just(Opcode::Ping),
        1 => Just(Opcode::Pong),
        1 => Just(Opcode::Close),
    ];
    let payload = prop_oneof![
        6 => "[a-zäß😀]{0,20}".prop_map(String::into_bytes),
        1 => proptest::collection::vec(any::<u8>(), 0..300),
        1 => Just(b"\x03\xe8bye".to_vec()),
    ];
    (opcode, payload, any::<bool>(), any::<[u8; 4]>()).prop_map(|(opcode, payload, fin, key)| {
        let payload = match opcode {
            Opcode::Close if !payload.starts_with(b"\x03") => b"\x0f\xa0later".to_vec(),
            _ => payload,
        };
        let fin = fin || opcode.is_control() && key[0] > 5;
        let mask = Some(Mask::new(key));
        let head = FrameHead { fin, rsv1: false, opcode, mask, len: payload.len() as u64 };
        Frame { head, payload }
    })
}

fn bytes_of(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend_from_slice(frame.head.encode().as_bytes());
        let before = bytes.len();
        bytes.extend_from_slice(&frame.payload);
        frame.head.mask.into_iter().for_each(|mut mask| mask.apply(&mut bytes[before..]));
    }
    bytes
}

/// A peer that has sent all that it will, and takes everything.
struct Sent(Cursor<Vec<u8>>);

impl Read for Sent {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            len => Ok(len),
        }
    }
}

impl Write for Sent {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite makes of the same bytes; of errors only that there is one.
fn oracle(bytes: &[u8]) -> Vec<Result<(Received, Vec<u8>), ()>> {
    let sent = Sent(Cursor::new(bytes.to_vec()));
    let mut socket = WebSocket::from_raw_socket(sent, OracleRole::Server, None);
    let mut outcomes = Vec::new();
    loop {
        let outcome = match socket.read() {
            Ok(Message::Text(text)) => Ok((TEXT, text.as_bytes().to_vec())),
            Ok(Message::Binary(bytes)) => Ok((BINARY, bytes.to_vec())),
            Ok(Message::Ping(bytes)) => Ok((Received::Ping, bytes.to_vec())),
            Ok(Message::Pong(bytes)) => Ok((Received::Pong, bytes.to_vec())),
            Ok(Message::Close(close)) => {
                let payload = close.map_or(Vec::new(), |close| {
                    let code = u16::from(close.code).to_be_bytes();
                    [&code[..], close.reason.as_bytes()].concat()
                });
                outcomes.push(Ok((Received::Close, payload)));
                return outcomes;
            }
            Ok(Message::Frame(_)) => unreachable!("frames are not passed on"),
            Err(tungstenite::Error::Io(_)) => return outcomes,
            Err(_) => {
                outcomes.push(Err(()));
                return outcomes;
            }
        };
        outcomes.push(outcome);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn as_tungstenite_understands_it(
        frames in proptest::collection::vec(frame(), 0..12),
        piece in 1_usize..300,
        room in 1_usize..300,
    ) {
        let bytes = bytes_of(&frames);
        let got = whole(receive(&mut server(), &bytes, piece, room));
        let got: Vec<_> = got.into_iter().map(|outcome| outcome.map_err(|_| ())).collect();
        prop_assert_eq!(got, oracle(&bytes));
    }

    #[test]
    fn whatever_comes_the_receiver_stands(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        piece in 1_usize..50,
        room in 0_usize..50,
    ) {
        for mut receiver in [server(), client(), Receiver::new(Role::Server, true)] {
            receive(&mut receiver, &bytes, piece, room);
        }
    }

    #[test]
    fn what_is_sent_is_received(
        messages in proptest::collection::vec((any::<bool>(), "[ab]{0,400}", 1_usize..200), 0..6),
        piece in 1_usize..500,
        room in 1_usize..500,
        compresses in any::<bool>(),
        key in any::<[u8; 4]>(),
    ) {
        let offer: &[u8] = b"permessage-deflate";
        let deflate = compresses.then(|| Deflate::choose([offer].into_iter())).flatten();
        let (mut sender, mut pool, mut bytes) = (Sender::new(deflate), Pool::new(), Vec::new());
        let mask = Some(Mask::new(key));
        let mut expected = Vec::new();
        for (is_whole, text, cut) in &messages {
            let kind = MessageKind::Text;
            let (head, tail) = text.split_at(if *is_whole { 0 } else { (*cut).min(text.len()) });
            if !is_whole {
                let piece = (kind, head.as_bytes(), false);
                sender.message(&mut pool, piece, mask, &mut bytes).unwrap();
            }
            let piece = (kind, tail.as_bytes(), true);
            sender.message(&mut pool, piece, mask, &mut bytes).unwrap();
            expected.push(Ok((TEXT, text.clone().into_bytes())));
        }
        let mut receiver = Receiver::new(Role::Server, compresses);
        prop_assert_eq!(whole(receive(&mut receiver, &bytes, piece, room)), expected);
    }
}
