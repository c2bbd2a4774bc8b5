//! The client's side of WebSockets (RFC 6455): the handshake's key, the frames of a server, and the few frames that we send.
//!
//! Frames are taken apart as they come; 16 bytes are remembered between two reads. Extensions are not offered, so none is
//! accepted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// RFC 6455 §1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Payload of a control frame (RFC 6455 §5.5).
pub(crate) const CONTROL_BYTES_MAX: usize = 125;

/// The largest payload whose length is in the second byte, and the one whose length is in the next two.
const SHORT_MAX: usize = 125;
const MEDIUM_MAX: usize = 0xffff;

/// What a frame is (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Text or binary, or the continuation of one.
    Data,
    Close,
    Ping,
    Pong,
}

/// The frames that a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frames {
    step: Step,
    kind: Kind,
    is_final: bool,
    /// Of the length or of the payload, as the step says.
    left: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// At the byte with the opcode.
    First,
    /// At the byte with the length.
    Second,
    /// So many bytes of the length are to come.
    Length(u8),
    Payload,
}

/// What is no frame of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    /// RFC 6455 §5.2.
    #[error("a frame has an opcode or a flag that nobody agreed upon")]
    First,
    /// RFC 6455 §5.1.
    #[error("a frame of the server is masked")]
    Masked,
}

/// A part of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Piece<'a> {
    pub(crate) kind: Kind,
    pub(crate) payload: &'a [u8],
    /// The last of its frame.
    pub(crate) ends_frame: bool,
    /// The last of its message.
    pub(crate) ends_message: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Frames { step: Step::First, kind: Kind::Data, is_final: false, left: 0 }
    }
}

impl Frames {
    /// Cuts the next piece of a frame off the input; `None` when the input is used up. The piece of an empty frame is empty.
    ///
    /// # Errors
    /// If it is no frame; then nothing behind it can be read.
    pub(crate) fn next<'a>(
        &mut self,
        input: &mut &'a [u8],
    ) -> Result<Option<Piece<'a>>, FrameError> {
        while self.step != Step::Payload {
            let Some((byte, rest)) = input.split_first() else { return Ok(None) };
            *input = rest;
            self.handle_head(*byte)?;
            if self.step == Step::Payload && self.left == 0 {
                return Ok(Some(self.piece(&[])));
            }
        }
        if input.is_empty() {
            return Ok(None);
        }
        let len = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
        let (payload, rest) = input.split_at(len);
        *input = rest;
        self.left -= len as u64;
        Ok(Some(self.piece(payload)))
    }

    fn piece<'a>(&mut self, payload: &'a [u8]) -> Piece<'a> {
        let ends_frame = self.left == 0;
        if ends_frame {
            self.step = Step::First;
        }
        let ends_message = ends_frame && self.is_final && self.kind == Kind::Data;
        Piece { kind: self.kind, payload, ends_frame, ends_message }
    }

    fn handle_head(&mut self, byte: u8) -> Result<(), FrameError> {
        self.step = match self.step {
            Step::First => {
                self.kind = match byte & 0x7f {
                    0x0..=0x2 => Kind::Data,
                    0x8 => Kind::Close,
                    0x9 => Kind::Ping,
                    0xa => Kind::Pong,
                    _ => return Err(FrameError::First),
                };
                self.is_final = byte & 0x80 != 0;
                self.left = 0;
                Step::Second
            }
            Step::Second => match byte {
                0..=125 => {
                    self.left = u64::from(byte);
                    Step::Payload
                }
                126 => Step::Length(2),
                127 => Step::Length(8),
                128.. => return Err(FrameError::Masked),
            },
            Step::Length(bytes) => {
                self.left = (self.left << 8) | u64::from(byte);
                if bytes > 1 { Step::Length(bytes - 1) } else { Step::Payload }
            }
            Step::Payload => Step::Payload,
        };
        Ok(())
    }
}

/// The key of a connection's handshake: different for each number, and easily made again to check the answer.
pub(crate) fn key(number: u64) -> String {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    bytes[8..].copy_from_slice(&mask_seed(number).to_be_bytes());
    STANDARD.encode(bytes)
}

/// What a server that understood the key answers (RFC 6455 §4.2.2).
pub(crate) fn accept(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

/// Writes a text message as one frame (RFC 6455 §5.3: masked).
pub(crate) fn write_text(payload: &[u8], number: u64, out: &mut Vec<u8>) {
    write_frame(0x81, payload, number, out);
}

/// Writes the answer to a ping, or to a close.
pub(crate) fn write_answer(kind: Kind, payload: &[u8], number: u64, out: &mut Vec<u8>) {
    let opcode = if kind == Kind::Close { 0x88 } else { 0x8a };
    write_frame(opcode, &payload[..payload.len().min(CONTROL_BYTES_MAX)], number, out);
}

fn write_frame(first: u8, payload: &[u8], number: u64, out: &mut Vec<u8>) {
    out.push(first);
    let len = payload.len();
    if len <= SHORT_MAX {
        out.push(0x80 | len as u8);
    } else if len <= MEDIUM_MAX {
        out.push(0x80 | 126);
        out.extend_from_slice(&(len as u16).to_be_bytes());
    } else {
        out.push(0x80 | 127);
        out.extend_from_slice(&(len as u64).to_be_bytes());
    }
    // It keeps proxies from being deceived, not secrets: what is asked of it here is to be another for each connection.
    let mask = (mask_seed(number) as u32).to_be_bytes();
    out.extend_from_slice(&mask);
    out.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
}

/// SplitMix64 of the number.
fn mask_seed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Frames in pieces of this size, put together again: kind, payload, whether a message ends.
    fn read(bytes: &[u8], size: usize) -> Result<Vec<(Kind, Vec<u8>, bool)>, FrameError> {
        let mut frames = Frames::default();
        let (mut out, mut payload) = (Vec::new(), Vec::new());
        for mut input in bytes.chunks(size) {
            while let Some(piece) = frames.next(&mut input)? {
                payload.extend_from_slice(piece.payload);
                if piece.ends_frame {
                    out.push((piece.kind, std::mem::take(&mut payload), piece.ends_message));
                }
            }
        }
        assert_eq!(payload, b"");
        Ok(out)
    }

    #[test]
    fn however_they_are_cut_the_frames_are_the_same() {
        let mut bytes =
            b"\x81\x05Hello\x01\x03Hel\x89\x02hi\x80\x02lo\x81\x00\x82\x7e\x01\x00".to_vec();
        bytes.extend_from_slice(&[7; 256]);
        bytes.extend_from_slice(b"\x82\x7f\0\0\0\0\0\x01\0\0");
        bytes.extend_from_slice(&[8; 65536]);
        bytes.extend_from_slice(b"\x88\x02\x03\xe8");
        let expected = vec![
            (Kind::Data, b"Hello".to_vec(), true),
            (Kind::Data, b"Hel".to_vec(), false),
            (Kind::Ping, b"hi".to_vec(), false),
            (Kind::Data, b"lo".to_vec(), true),
            (Kind::Data, Vec::new(), true),
            (Kind::Data, vec![7; 256], true),
            (Kind::Data, vec![8; 65536], true),
            (Kind::Close, b"\x03\xe8".to_vec(), false),
        ];
        for size in [1, 2, 3, 5, 7, 11, 300, 70_000] {
            assert_eq!(read(&bytes, size).unwrap(), expected, "{size}");
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        assert_eq!(read(b"\xc1\x00", 1), Err(FrameError::First));
        assert_eq!(read(b"\x83\x00", 1), Err(FrameError::First));
        assert_eq!(read(b"\x81\x81", 1), Err(FrameError::Masked));
    }

    #[test]
    fn the_answer_to_a_key_is_that_of_the_rfc() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_ne!(key(1), key(2));
        assert_eq!(STANDARD.decode(key(7)).unwrap().len(), 16);
    }

    #[test]
    fn our_frames_are_masked() {
        for (len, head) in [(0, 2), (125, 2), (126, 4), (65_535, 4), (65_536, 10)] {
            let payload = vec![b'a'; len];
            let mut out = Vec::new();
            write_text(&payload, 3, &mut out);
            assert_eq!(out.len(), head + 4 + len);
            let mask = &out[head..head + 4];
            assert!(out[head + 4..].iter().enumerate().all(|(i, byte)| byte ^ mask[i % 4] == b'a'));
        }
        let mut out = Vec::new();
        write_answer(Kind::Ping, b"", 1, &mut out);
        assert_eq!(out[..2], [0x8a, 0x80]);
    }
}
