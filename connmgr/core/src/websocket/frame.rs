//! A frame: its head, and the mask over its payload (RFC 6455 §5.2, §5.3).
//!
//! A head is 2 to 14 bytes. [`FrameHead::parse`] says what is wrong with one as soon as that can be seen, not only once
//! the whole head is there, so a peer that breaks the rules is told at once. Whether a frame may come now is not
//! known here: `receiver` knows what came before it. Payloads are not looked at but to mask them.

/// What a frame is (RFC 6455 §5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// Goes on with a message.
    Continuation,
    /// Begins a message of UTF-8.
    Text,
    /// Begins a message of bytes.
    Binary,
    /// The last that its sender says.
    Close,
    /// Asks for a pong.
    Ping,
    /// Answers a ping, or just says: I am here.
    Pong,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
        }
    }

    /// Whether it is about the connection, not a piece of a message (RFC 6455 §5.5).
    pub const fn is_control(self) -> bool {
        match self {
            Opcode::Close | Opcode::Ping | Opcode::Pong => true,
            Opcode::Continuation | Opcode::Text | Opcode::Binary => false,
        }
    }
}

/// The head of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// The message ends with this frame.
    pub fin: bool,
    /// The message is compressed (RFC 7692 §6).
    pub rsv1: bool,
    /// What it is.
    pub opcode: Opcode,
    /// The key over the payload, if it is masked.
    pub mask: Option<Mask>,
    /// Bytes of payload.
    pub len: u64,
}

/// Why a head is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// RFC 6455 §5.2: nobody has negotiated what they would mean.
    #[error("RSV2 or RSV3 is set")]
    Reserved,
    /// RFC 6455 §5.2.
    #[error("opcode {0} is reserved")]
    Opcode(u8),
    /// RFC 6455 §5.5.
    #[error("a control frame in fragments")]
    ControlFragment,
    /// RFC 6455 §5.5.
    #[error("a control frame of more than 125 bytes")]
    ControlTooLong,
    /// RFC 7692 §6: control frames are not compressed.
    #[error("RSV1 is set in a control frame")]
    ControlCompressed,
    /// RFC 6455 §5.2.
    #[error("a length that is not in its shortest form")]
    LengthNotMinimal,
    /// RFC 6455 §5.2.
    #[error("a length of more than 63 bits")]
    LengthTooLarge,
}

/// The longest payload of a control frame (RFC 6455 §5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// The longest head.
pub const HEAD_BYTES_MAX: usize = 14;

impl FrameHead {
    /// Reads the head that `input` begins with, and says how many bytes it takes; `None` if more of it must come.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn parse(input: &[u8]) -> Result<Option<(Self, usize)>, FrameError> {
        let Some(&first) = input.first() else { return Ok(None) };
        if first & 0x30 != 0 {
            return Err(FrameError::Reserved);
        }
        let (fin, rsv1) = (first & 0x80 != 0, first & 0x40 != 0);
        let bits = first & 0x0f;
        let opcode = Opcode::from_bits(bits).ok_or(FrameError::Opcode(bits))?;
        if opcode.is_control() && !fin {
            return Err(FrameError::ControlFragment);
        }
        if opcode.is_control() && rsv1 {
            return Err(FrameError::ControlCompressed);
        }
        let Some(&second) = input.get(1) else { return Ok(None) };
        let short = second & 0x7f;
        if opcode.is_control() && usize::from(short) > CONTROL_BYTES_MAX {
            return Err(FrameError::ControlTooLong);
        }
        let Some((len, mut at)) = parse_len(short, &input[2..])? else { return Ok(None) };
        at += 2;
        let mask = if second & 0x80 == 0 {
            None
        } else {
            let Some(key) = input[at..].first_chunk::<4>() else { return Ok(None) };
            at += key.len();
            Some(Mask::new(*key))
        };
        Ok(Some((FrameHead { fin, rsv1, opcode, mask, len }, at)))
    }

    /// The bytes of the head.
    pub fn encode(&self) -> HeadBytes {
        let mut head = HeadBytes { bytes: [0; HEAD_BYTES_MAX], len: 0 };
        let flag = |is: bool, bit: u8| if is { bit } else { 0 };
        head.push(&[flag(self.fin, 0x80) | flag(self.rsv1, 0x40) | self.opcode.bits()]);
        let masked = flag(self.mask.is_some(), 0x80);
        match (u8::try_from(self.len), u16::try_from(self.len)) {
            (Ok(len @ ..=125), _) => head.push(&[masked | len]),
            (_, Ok(len)) => {
                head.push(&[masked | 126]);
                head.push(&len.to_be_bytes());
            }
            (_, Err(_)) => {
                head.push(&[masked | 127]);
                head.push(&self.len.to_be_bytes());
            }
        }
        if let Some(mask) = &self.mask {
            head.push(&mask.key);
        }
        head
    }
}

/// The length and how many bytes it takes behind the second one; `None` if more must come.
fn parse_len(short: u8, rest: &[u8]) -> Result<Option<(u64, usize)>, FrameError> {
    let (len, bytes, min) = match short {
        126 => match rest.first_chunk::<2>() {
            Some(len) => (u64::from(u16::from_be_bytes(*len)), 2, 126),
            None => return Ok(None),
        },
        127 => match rest.first_chunk::<8>() {
            Some(len) => (u64::from_be_bytes(*len), 8, 1 << 16),
            // The bit that must not be set is in the first of them.
            None if rest.first().is_some_and(|byte| byte & 0x80 != 0) => {
                return Err(FrameError::LengthTooLarge);
            }
            None => return Ok(None),
        },
        short => return Ok(Some((short.into(), 0))),
    };
    if len >> 63 != 0 {
        return Err(FrameError::LengthTooLarge);
    }
    if len < min {
        return Err(FrameError::LengthNotMinimal);
    }
    Ok(Some((len, bytes)))
}

/// A head, as it is sent.
#[derive(Clone, Copy, Debug)]
pub struct HeadBytes {
    bytes: [u8; HEAD_BYTES_MAX],
    len: u8,
}

impl HeadBytes {
    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    fn push(&mut self, bytes: &[u8]) {
        let at = usize::from(self.len);
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
        self.len += u8::try_from(bytes.len()).expect("a head is short");
    }
}

/// The key over a payload, and where in it the next byte stands (RFC 6455 §5.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    key: [u8; 4],
}

impl Mask {
    /// A mask at the beginning of its payload. For frames that are sent, each must have a key that nobody can guess.
    pub const fn new(key: [u8; 4]) -> Self {
        Mask { key }
    }

    /// Masks or unmasks the next bytes of the payload.
    pub fn apply(&mut self, bytes: &mut [u8]) {
        let mut words = bytes.chunks_exact_mut(8);
        let key = u32::from_ne_bytes(self.key);
        let wide = u64::from(key) << 32 | u64::from(key);
        for word in &mut words {
            let plain = u64::from_ne_bytes(word.try_into().expect("eight bytes")) ^ wide;
            word.copy_from_slice(&plain.to_ne_bytes());
        }
        let rest = words.into_remainder();
        for (byte, key) in rest.iter_mut().zip(self.key.iter().cycle()) {
            *byte ^= key;
        }
        self.skip(bytes.len());
    }

    /// Passes over bytes of the payload.
    pub fn skip(&mut self, bytes: usize) {
        self.key.rotate_left(bytes % 4);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const HEAD: FrameHead =
        FrameHead { fin: true, rsv1: false, opcode: Opcode::Text, mask: None, len: 0 };

    #[test]
    fn heads_are_read_as_they_were_written() {
        let key = Some(Mask::new([1, 2, 3, 4]));
        for len in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 32, (1 << 63) - 1] {
            for (fin, rsv1, opcode, mask) in [
                (true, false, Opcode::Text, None),
                (true, true, Opcode::Binary, key),
                (false, false, Opcode::Continuation, key),
                (true, false, Opcode::Ping, key),
            ] {
                if opcode.is_control() && len > 125 {
                    continue;
                }
                let head = FrameHead { fin, rsv1, opcode, mask, len };
                let encoded = head.encode();
                let mut bytes = encoded.as_bytes().to_vec();
                for part in 0..bytes.len() {
                    assert_eq!(FrameHead::parse(&bytes[..part]), Ok(None), "{head:?} at {part}");
                }
                let whole = Ok(Some((head, bytes.len())));
                assert_eq!(FrameHead::parse(&bytes), whole);
                bytes.extend(b"behind");
                assert_eq!(FrameHead::parse(&bytes), whole);
            }
        }
    }

    #[test]
    fn the_length_decides_the_form() {
        for (len, head) in [
            (125, &[0x81, 125][..]),
            (126, &[0x81, 126, 0, 126]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            assert_eq!(FrameHead { len, ..HEAD }.encode().as_bytes(), head);
        }
    }

    #[test]
    fn a_broken_rule_is_seen_at_once() {
        for (bytes, error) in [
            (&[0xa1][..], FrameError::Reserved),
            (&[0x91], FrameError::Reserved),
            (&[0x83], FrameError::Opcode(3)),
            (&[0x8b], FrameError::Opcode(11)),
            (&[0x09], FrameError::ControlFragment),
            (&[0xc9], FrameError::ControlCompressed),
            (&[0x89, 126], FrameError::ControlTooLong),
            (&[0x89, 0x80 | 127], FrameError::ControlTooLong),
            (&[0x81, 126, 0, 125], FrameError::LengthNotMinimal),
            (&[0x81, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff], FrameError::LengthNotMinimal),
            (&[0x81, 127, 0x80], FrameError::LengthTooLarge),
        ] {
            assert_eq!(FrameHead::parse(bytes), Err(error), "{bytes:x?}");
            for part in 0..bytes.len() {
                let before = FrameHead::parse(&bytes[..part]);
                assert_eq!(before, Ok(None), "{bytes:x?} at {part}");
            }
        }
    }

    #[test]
    fn a_mask_goes_on_wherever_it_was_cut() {
        let plain: Vec<u8> = (0..=255).collect();
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let masked: Vec<u8> = plain.iter().zip(key.iter().cycle()).map(|(a, b)| a ^ b).collect();
        for cut in 0..40 {
            let (mut bytes, mut mask) = (plain.clone(), Mask::new(key));
            let (head, tail) = bytes.split_at_mut(cut);
            mask.apply(head);
            mask.apply(tail);
            assert_eq!(bytes, masked, "cut at {cut}");
        }
    }
}
