//! What a client makes of the bytes that it got: one whole response after the other, of which the last may be cut.

use super::super::response_head::{Read, read_head};
use crate::http1::{BodyDecoder, BodyFraming};
use crate::websocket::{Pool, Received, Receiver, Role};

/// Reads all responses; `is_head` says for each whether it answers a `HEAD`.
///
/// # Panics
///
/// If they are out of step: what should be a response is none.
pub(super) fn check(mut bytes: &[u8], is_head: &[bool]) {
    let mut is_head = is_head.iter().copied();
    let mut read = None;
    while !bytes.is_empty() {
        let Some(head_len) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
            let start = &bytes[..bytes.len().min(STATUS_LINE.len())];
            return assert!(STATUS_LINE.starts_with(start), "{}", bytes.escape_ascii());
        };
        let (head, body) = bytes.split_at(head_len + 4);
        let head = read_head(head);
        if head.code == 100 {
            assert_eq!(head.fields, [], "an interim response has nothing else");
            bytes = body;
            continue;
        }
        assert!(read.is_none_or(|keep_alive| keep_alive), "a response behind the last one");
        if head.code == 101 {
            return check_frames(body);
        }
        read = Some(!head.says("connection", b"close"));
        let Some(body_len) = body_len(&head, is_head.next() == Some(true), body) else { return };
        bytes = &body[body_len..];
    }
}

/// Reads what a WebSocket got: frames, and nothing behind a close.
fn check_frames(mut bytes: &[u8]) {
    let (mut receiver, mut pool) = (Receiver::new(Role::Client, true), Pool::new());
    loop {
        let mut out = Vec::new();
        let received = receiver.receive(&mut pool, bytes, (&mut out, usize::MAX));
        let (used, received) =
            received.unwrap_or_else(|error| panic!("{error}: {}", bytes.escape_ascii()));
        bytes = &bytes[used..];
        match received {
            Received::Nothing => return,
            Received::Message { .. } | Received::Ping | Received::Pong => {}
            Received::Close => return assert!(bytes.is_empty(), "something behind a close"),
        }
    }
}

const STATUS_LINE: &[u8] = b"HTTP/1.1 ";

/// How long the body is (RFC 9112 §6.3); `None` if it is cut.
fn body_len(head: &Read, is_head: bool, body: &[u8]) -> Option<usize> {
    if is_head || matches!(head.code, 204 | 304) {
        return Some(0);
    }
    if head.says("transfer-encoding", b"chunked") {
        let mut decoder = BodyDecoder::new(BodyFraming::Chunked);
        let mut at = 0;
        while at < body.len() && !decoder.is_done() {
            at += decoder.decode(&body[at..]).expect("chunks").consumed;
        }
        return decoder.is_done().then_some(at);
    }
    let length = head.length().map_or(body.len() as u64, |length| length);
    (length <= body.len() as u64).then_some(length as usize)
}
