//! Cursors, as a client could read them: `<epoch>-<offset>`, or composite (hold.md §2 and §9).

use std::fmt;

/// The id of an event, and a place in a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The epoch.
    pub epoch: u64,
    /// The number of the event in it.
    pub offset: u64,
}

impl Id {
    /// Before everything.
    pub const START: Id = Id { epoch: 0, offset: 0 };

    /// The id of event `offset` in `epoch`.
    pub const fn new(epoch: u64, offset: u64) -> Self {
        Id { epoch, offset }
    }

    /// The place just before this event, in its epoch.
    pub const fn before(self) -> Self {
        Id { epoch: self.epoch, offset: self.offset.saturating_sub(1) }
    }

    /// The place of the event behind this one.
    pub const fn next(self) -> Self {
        Id { epoch: self.epoch, offset: self.offset + 1 }
    }

    /// Reads the text.
    pub fn parse(text: &str) -> Option<Self> {
        let (epoch, offset) = text.split_once('-')?;
        let number = |digits: &str| {
            let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            let is_short = digits == "0" || !digits.starts_with('0');
            if is_plain && is_short { digits.parse().ok() } else { None }
        };
        Some(Id { epoch: number(epoch)?, offset: number(offset)? })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.offset)
    }
}

/// What the `id:` of an event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cursors {
    /// A place in the one channel that is read.
    Plain(Id),
    /// A place in each of several, by the hash of its name.
    Composite {
        /// What the hashes begin with.
        salt: u8,
        /// Hash and place.
        entries: Vec<(u32, Id)>,
    },
}

impl Cursors {
    /// Reads the text of an id.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('~') {
            None => Id::parse(text).map(Cursors::Plain),
            Some(rest) => composite(&base64url(rest)?),
        }
    }

    /// What it says for a channel; a plain one is of any.
    pub fn of(&self, name: &str) -> Option<Id> {
        match self {
            Cursors::Plain(id) => Some(*id),
            Cursors::Composite { salt, entries } => {
                let hash = fnv1a(*salt, name);
                entries.iter().find(|(other, _)| *other == hash).map(|(_, id)| *id)
            }
        }
    }

    /// How many channels it is of.
    pub fn channels(&self) -> usize {
        match self {
            Cursors::Plain(_) => 1,
            Cursors::Composite { entries, .. } => entries.len(),
        }
    }
}

fn composite(binary: &[u8]) -> Option<Cursors> {
    let (&[version, salt, count], mut rest) = binary.split_first_chunk::<3>()?;
    if version != 1 {
        return None;
    }
    let mut epoch = 0u64;
    let mut entries = Vec::new();
    for _ in 0..count {
        let (hash, behind) = rest.split_first_chunk::<4>()?;
        let (zigzag, behind) = varint(behind)?;
        let (offset, behind) = varint(behind)?;
        let difference = (zigzag >> 1) ^ 0u64.wrapping_sub(zigzag & 1);
        epoch = epoch.wrapping_add(difference);
        entries.push((u32::from_be_bytes(*hash), Id { epoch, offset }));
        rest = behind;
    }
    rest.is_empty().then_some(Cursors::Composite { salt, entries })
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in text.bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
            bits &= (1 << held) - 1;
        }
    }
    Some(out)
}

fn fnv1a(salt: u8, name: &str) -> u32 {
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(16_777_619);
    name.bytes().fold(step(2_166_136_261, salt), step)
}
