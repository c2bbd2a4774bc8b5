//! The composite cursor: where a connection stands that reads several channels
//! (`zhttp-spec/hold.md` §9).
//!
//! A client has one `Last-Event-ID`, however many channels it reads. So the id of an event on a
//! connection with several channels holds a cursor for each of them. It is opaque to the client,
//! fits any header and URL, and begins with `~`, which no plain cursor does.
//!
//! # Form
//!
//! ```text
//! text   = "~" base64url-without-padding(binary)          at most 2048 bytes
//! binary = version(1 byte, 1) salt(1 byte) count(1 byte) entry × count
//! entry  = hash(4 bytes, big-endian) varint(zigzag(epoch − epoch before)) varint(offset)
//! hash   = FNV-1a, 32 bits, over the salt and then the name of the channel
//! ```
//!
//! The epoch before the first is 0; the difference wraps, so that each epoch has one. A varint is
//! unsigned LEB128 in its shortest form. One set of cursors in one order has one text, and no text
//! that was cut short is one.
//!
//! # Why hashes, and why a salt
//!
//! Names of up to 193 bytes do not fit. Places in a list would, but then a client that reconnects
//! with its channels in another order, one more or one less, would resume others' cursors. A hash
//! finds a cursor whatever else changed. Two names of one connection might have the same hash; then
//! the writer takes the next salt, under which they differ. So each entry of a composite cursor
//! belongs to one name of the set that it was written for, always. A name that was *not* in the set
//! finds nothing, but for a chance of 1 in 2³² for each entry, in which it begins where another one
//! stood. That is accepted: it takes a client that adds a channel when it reconnects, and then
//! happens to one in forty million even if it reads a hundred others.
//!
//! Telling equal hashes apart by their order was rejected: it breaks as soon as one of the two is
//! removed. Wider hashes cost four bytes an entry, of which there are fifteen.

use crate::base64url::{self, Encoder};
use crate::cursor::Cursor;
use crate::hold::CHANNELS_PER_HOLD_MAX;

/// The longest composite cursor, in bytes of its text; a longer one is neither written nor read.
/// It keeps the id of an event, which each event repeats, and the header of a reconnect small.
pub const COMPOSITE_BYTES_MAX: usize = 2048;

/// So many channels fit always, if their epochs lie less than [`EPOCH_SPREAD_MS`] apart and their
/// offsets are below [`OFFSET_END`]. More fit if these numbers are smaller. A handler lets a
/// connection read no more than this.
pub const CHANNELS_MAX: usize = 100;

/// See [`CHANNELS_MAX`]: 69 years, in milliseconds.
pub const EPOCH_SPREAD_MS: u64 = 1 << 41;

/// See [`CHANNELS_MAX`]: 34 billion events, which is a year of 1,000 a second.
pub const OFFSET_END: u64 = 1 << 35;

const PREFIX: u8 = b'~';
const VERSION: u8 = 1;

/// The longest varint: ten times seven bits hold 64.
const VARINT_BYTES_MAX: usize = 10;

/// Whether the text is meant as a composite cursor: a plain one begins with a digit.
pub const fn is_composite(text: &str) -> bool {
    matches!(text.as_bytes(), [PREFIX, ..])
}

/// What keeps a composite cursor from being written: our caller's fault or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The text would be longer than [`COMPOSITE_BYTES_MAX`].
    #[error("a composite cursor over 2048 bytes")]
    TooLong,
    /// More channels than [`CHANNELS_PER_HOLD_MAX`].
    #[error("a composite cursor of more than 128 channels")]
    TooMany,
    /// No channel at all.
    #[error("a composite cursor of no channel")]
    Empty,
    /// A channel stands there twice.
    #[error("a composite cursor with one channel twice")]
    Repeated,
}

/// Appends the composite cursor of these channels, names as on the wire, to `out`. The order is of
/// no consequence to the reader.
///
/// Walks the channels twice (more only if hashes collide) and allocates nothing. Who writes many for
/// the same channels keeps their [`HashedNames`].
///
/// # Errors
///
/// Leaves `out` as it was. The edge then sends the event without an id (H-73).
pub fn encode<'c>(
    channels: impl Iterator<Item = (&'c str, Cursor)> + Clone,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let (salt, count) = salt_of(&channels.clone().map(|(name, _)| name))?;
    let entries = channels.map(|(name, cursor)| (hash(salt, name), cursor));
    write(salt, count, entries, out)
}

/// The names of the channels of a connection, hashed once for all its composite cursors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashedNames {
    salt: u8,
    hashes: Box<[u32]>,
}

impl HashedNames {
    /// Hashes these names, as on the wire.
    ///
    /// # Errors
    ///
    /// There is none, or there are too many, or one stands there twice.
    pub fn new<'c>(names: impl Iterator<Item = &'c str> + Clone) -> Result<Self, EncodeError> {
        let (salt, _) = salt_of(&names)?;
        Ok(HashedNames { salt, hashes: names.map(|name| hash(salt, name)).collect() })
    }

    /// Appends the composite cursor of these channels to `out`: as [`encode`] does. There is one
    /// cursor for each name, in the order of the names.
    ///
    /// # Errors
    ///
    /// [`EncodeError::TooLong`] leaves `out` as it was.
    pub fn encode(
        &self,
        cursors: impl Iterator<Item = Cursor>,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let entries = self.hashes.iter().copied().zip(cursors);
        write(self.salt, self.hashes.len() as u8, entries, out)
    }
}

fn write(
    salt: u8,
    count: u8,
    entries: impl Iterator<Item = (u32, Cursor)>,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    let start = out.len();
    out.push(PREFIX);
    let mut encoder = Encoder::new(out);
    encoder.push(VERSION);
    encoder.push(salt);
    encoder.push(count);
    let mut epoch = 0;
    for (hash, cursor) in entries {
        hash.to_be_bytes().into_iter().for_each(|byte| encoder.push(byte));
        push_varint(&mut encoder, zigzag(cursor.epoch.wrapping_sub(epoch)));
        push_varint(&mut encoder, cursor.offset);
        epoch = cursor.epoch;
    }
    encoder.finish();
    if out.len() - start > COMPOSITE_BYTES_MAX {
        out.truncate(start);
        return Err(EncodeError::TooLong);
    }
    Ok(())
}

/// The first salt under which no two of the names have the same hash, and how many names there are.
fn salt_of<'c>(names: &(impl Iterator<Item = &'c str> + Clone)) -> Result<(u8, u8), EncodeError> {
    let mut hashes = [0; CHANNELS_PER_HOLD_MAX];
    for salt in 0..=u8::MAX {
        let mut count = 0;
        for name in names.clone() {
            *hashes.get_mut(count).ok_or(EncodeError::TooMany)? = hash(salt, name);
            count += 1;
        }
        let hashes = &mut hashes[..count];
        if hashes.is_empty() {
            return Err(EncodeError::Empty);
        }
        hashes.sort_unstable();
        if hashes.windows(2).all(|pair| pair[0] != pair[1]) {
            return Ok((salt, count as u8));
        }
    }
    // 128 different names have a collision under one salt with a chance of 1 in 500,000.
    Err(EncodeError::Repeated)
}

/// FNV-1a of 32 bits, over the salt and the name.
fn hash(salt: u8, name: &str) -> u32 {
    const OFFSET_BASIS: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let step = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(PRIME);
    name.bytes().fold(step(OFFSET_BASIS, salt), step)
}

/// A difference, seen as signed, so that small ones of either sign become small numbers.
const fn zigzag(difference: u64) -> u64 {
    let signed = difference.cast_signed();
    (signed << 1 ^ signed >> 63).cast_unsigned()
}

const fn unzigzag(value: u64) -> u64 {
    value >> 1 ^ (value & 1).wrapping_neg()
}

fn push_varint(encoder: &mut Encoder<'_>, mut value: u64) {
    while value >= 0x80 {
        encoder.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    encoder.push(value as u8);
}

/// What is wrong with a text that is no composite cursor: the client's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CompositeError {
    /// It does not begin with `~`, or what follows is not base64url without padding.
    #[error("composite cursor: not ~ and base64url")]
    Text,
    /// Longer than [`COMPOSITE_BYTES_MAX`].
    #[error("composite cursor: over 2048 bytes")]
    TooLong,
    /// Written by a version that is not known here.
    #[error("composite cursor: unknown version")]
    Version,
    /// It ends before its last entry does.
    #[error("composite cursor: cut short")]
    Short,
    /// A number that is not in its shortest form, or beyond u64.
    #[error("composite cursor: bad number")]
    Number,
    /// An entry that is no cursor: an offset in epoch 0.
    #[error("composite cursor: bad cursor")]
    Cursor,
    /// Two entries with the same hash.
    #[error("composite cursor: one channel twice")]
    Repeated,
    /// No entry, or more than [`CHANNELS_PER_HOLD_MAX`].
    #[error("composite cursor: want 1 to 128 channels")]
    Count,
    /// Something follows the last entry.
    #[error("composite cursor: trailing bytes")]
    Trailing,
}

/// A composite cursor that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composite {
    salt: u8,
    /// The hash of each name, and its cursor.
    entries: Vec<(u32, Cursor)>,
}

impl Composite {
    /// The cursor of the channel of that name, as on the wire; `None` if it was not among those
    /// that this was written for.
    pub fn cursor_of(&self, name: &str) -> Option<Cursor> {
        let wanted = hash(self.salt, name);
        self.entries.iter().find(|(hash, _)| *hash == wanted).map(|&(_, cursor)| cursor)
    }

    /// The number of channels.
    pub fn channels(&self) -> usize {
        self.entries.len()
    }
}

/// Reads the text of a composite cursor.
///
/// # Errors
///
/// Anything that [`encode`] does not write is refused.
pub fn decode(text: &str) -> Result<Composite, CompositeError> {
    if text.len() > COMPOSITE_BYTES_MAX {
        return Err(CompositeError::TooLong);
    }
    let digits = text.as_bytes().strip_prefix(&[PREFIX]).ok_or(CompositeError::Text)?;
    let binary = base64url::decode(digits).ok_or(CompositeError::Text)?;
    if binary.first().is_some_and(|&version| version != VERSION) {
        return Err(CompositeError::Version);
    }
    let (&[_, salt, count], mut rest) = binary.split_first_chunk().ok_or(CompositeError::Short)?;
    let count = usize::from(count);
    if count == 0 || count > CHANNELS_PER_HOLD_MAX {
        return Err(CompositeError::Count);
    }
    let (mut entries, mut epoch) = (Vec::<(u32, Cursor)>::with_capacity(count), 0);
    while entries.len() < count {
        let (hash, cursor) = take_entry(&mut rest, epoch)?;
        if entries.iter().any(|(other, _)| *other == hash) {
            return Err(CompositeError::Repeated);
        }
        entries.push((hash, cursor));
        epoch = cursor.epoch;
    }
    if !rest.is_empty() {
        return Err(CompositeError::Trailing);
    }
    Ok(Composite { salt, entries })
}

fn take_entry(rest: &mut &[u8], epoch_before: u64) -> Result<(u32, Cursor), CompositeError> {
    let (hash, numbers) = rest.split_first_chunk().ok_or(CompositeError::Short)?;
    *rest = numbers;
    let epoch = epoch_before.wrapping_add(unzigzag(take_varint(rest)?));
    let offset = take_varint(rest)?;
    if epoch == 0 && offset != 0 {
        return Err(CompositeError::Cursor);
    }
    Ok((u32::from_be_bytes(*hash), Cursor::new(epoch, offset)))
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, CompositeError> {
    let mut value = 0u64;
    for place in 0..VARINT_BYTES_MAX {
        let (&byte, after) = rest.split_first().ok_or(CompositeError::Short)?;
        *rest = after;
        let bits = u64::from(byte & 0x7f);
        if bits << (7 * place) >> (7 * place) != bits {
            return Err(CompositeError::Number);
        }
        value |= bits << (7 * place);
        if byte & 0x80 == 0 {
            let shortest = byte != 0 || place == 0;
            return if shortest { Ok(value) } else { Err(CompositeError::Number) };
        }
    }
    Err(CompositeError::Number)
}

#[cfg(test)]
mod tests;
