//! A client's side of WebSocket frames (RFC 6455 §4.1, §5), as far as the clients of this world write them.

use crate::random::Random;

/// The key of every handshake, and what answers it: those of RFC 6455 §1.3.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation = 0x0,
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
    Pong = 0xa,
}

/// The head of a request for a WebSocket; `offer` is the extension that it offers.
pub(crate) fn handshake(target: &str, offer: Option<&str>) -> String {
    let mut head = format!(
        "GET {target} HTTP/1.1\r\nHost: e\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
    );
    if let Some(offer) = offer {
        head.push_str(&format!("Sec-WebSocket-Extensions: {offer}\r\n"));
    }
    head.push_str("\r\n");
    head
}

/// Writes a frame, masked.
pub(crate) fn write(
    random: &mut Random,
    (opcode, is_last): (Opcode, bool),
    payload: &[u8],
    out: &mut Vec<u8>,
) {
    out.push(opcode as u8 | if is_last { 0x80 } else { 0 });
    match payload.len() {
        len @ 0..126 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend((len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend((len as u64).to_be_bytes());
        }
    }
    let mask = (random.number() as u32).to_be_bytes();
    out.extend(mask);
    out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// Writes a message in so many pieces.
pub(crate) fn write_message(
    random: &mut Random,
    kind: Opcode,
    (message, pieces): (&[u8], usize),
    out: &mut Vec<u8>,
) {
    let mut rest = message;
    for piece in 0..pieces {
        let is_last = piece + 1 == pieces;
        let len = if is_last { rest.len() } else { random.up_to(rest.len() as u64) as usize };
        let (now, behind) = rest.split_at(len);
        let opcode = if piece == 0 { kind } else { Opcode::Continuation };
        write(random, (opcode, is_last), now, out);
        rest = behind;
        if !is_last && random.chance(200) {
            // Between the pieces of a message there may be control frames.
            write(random, (Opcode::Pong, true), b"unasked", out);
        }
    }
}

/// What a close says.
pub(crate) fn close_payload(code: Option<u16>) -> Vec<u8> {
    code.map_or(Vec::new(), |code| code.to_be_bytes().to_vec())
}
