//! Compressed messages: permessage-deflate (RFC 7692).
//!
//! **Nothing is kept between messages.** Both sides agree on `no_context_takeover`, which a server may ask for whatever
//! was offered (§7.1.1). So a connection on which nothing moves has no compression state at all (with it, 300 KiB),
//! and a message that goes to a thousand clients is compressed once. The price is that each message is compressed
//! by itself: short ones gain little, and those below [`COMPRESS_BYTES_MIN`] are sent as they are.
//!
//! For the same reason only whole messages are compressed. One that comes in pieces would hold a compressor for as long
//! as its sender takes. A message that is received holds a decompressor until it is whole: 48 KiB; they come from a
//! pool ([`Pool`]).
//!
//! **A window that the client wants small** (`server_max_window_bits`) is granted by sending messages that are larger
//! than it as they are: within a shorter one nothing refers further back.

use std::fmt;
use std::sync::Arc;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::WebSocketError;

/// Shorter messages are not compressed: they would hardly be smaller. In bytes.
pub const COMPRESS_BYTES_MIN: usize = 64;

/// Decompressors that are kept for the next message: 48 KiB each.
const INFLATERS_KEPT_MAX: usize = 4;

/// Compressed messages of one worker that have begun and are not whole: 48 MiB. The next one ends its connection.
pub const INFLATERS_MAX: usize = 1024;

/// Bytes that are made room for at a time.
const STEP_BYTES: usize = 16 * 1024;

/// What a sender leaves off the end of a message (RFC 7692 §7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xff, 0xff];

/// The largest window, in powers of two (RFC 7692 §7.1.2).
const WINDOW_BITS_MAX: u8 = 15;

/// What was agreed upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The window of what is sent, in powers of two: 8 to 15.
    window_bits: u8,
}

impl Deflate {
    /// Whatever is sent is compressed, if it is not short.
    pub const UNLIMITED: Self = Deflate { window_bits: WINDOW_BITS_MAX };

    /// Chooses of what a client offers in its `Sec-WebSocket-Extensions` fields; `None` if it offers nothing that can be
    /// granted. An offer that is not understood is passed over (RFC 7692 §5.1, §7.1).
    pub fn choose<'h>(mut fields: impl Iterator<Item = &'h [u8]>) -> Option<Self> {
        fields.find_map(|field| split(field, b',').find_map(Self::read_offer))
    }

    fn read_offer(offer: &[u8]) -> Option<Self> {
        let mut parts = split(offer, b';');
        if !parts.next()?.eq_ignore_ascii_case(b"permessage-deflate") {
            return None;
        }
        let mut seen = Vec::new();
        let mut window_bits = WINDOW_BITS_MAX;
        for part in parts {
            let (name, value) = match memchr::memchr(b'=', part) {
                Some(at) => (part[..at].trim_ascii(), Some(unquote(part[at + 1..].trim_ascii()))),
                None => (part, None),
            };
            match (name, value) {
                (b"server_no_context_takeover" | b"client_no_context_takeover", None) => {}
                (b"server_max_window_bits", Some(bits)) => window_bits = read_bits(bits)?,
                (b"client_max_window_bits", Some(bits)) => _ = read_bits(bits)?,
                (b"client_max_window_bits", None) => {}
                _ => return None,
            }
            if seen.contains(&name) {
                return None;
            }
            seen.push(name);
        }
        Some(Deflate { window_bits })
    }

    /// Whether messages of that length are sent compressed.
    pub fn compresses(self, len: usize) -> bool {
        let fits = self.window_bits == WINDOW_BITS_MAX || len <= 1 << self.window_bits;
        len >= COMPRESS_BYTES_MIN && fits
    }
}

impl fmt::Display for Deflate {
    /// The value of `Sec-WebSocket-Extensions` in the response.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("permessage-deflate; server_no_context_takeover; client_no_context_takeover")?;
        if self.window_bits < WINDOW_BITS_MAX {
            write!(f, "; server_max_window_bits={}", self.window_bits)?;
        }
        Ok(())
    }
}

/// Parts of a field, without the white space around them. Separators within quotes are none.
fn split(field: &[u8], separator: u8) -> impl Iterator<Item = &[u8]> {
    let mut is_quoted = false;
    let parts = field.split(move |byte| {
        is_quoted ^= *byte == b'"';
        *byte == separator && !is_quoted
    });
    parts.map(<[u8]>::trim_ascii)
}

fn unquote(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// A number from 8 to 15 without leading zeros (RFC 7692 §7.1.2).
fn read_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ b'8'..=b'9'] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// The compression states of many connections.
#[derive(Debug)]
pub struct Pool {
    deflate: Option<Compress>,
    inflaters: Vec<Inflater>,
    /// Has a clone in each decompressor that there is.
    count: Arc<()>,
}

impl Pool {
    /// An empty pool.
    pub fn new() -> Self {
        Pool { deflate: None, inflaters: Vec::new(), count: Arc::new(()) }
    }

    /// Compresses a whole message behind what is in `out`.
    pub fn compress(&mut self, mut data: &[u8], out: &mut Vec<u8>) {
        let deflate =
            self.deflate.get_or_insert_with(|| Compress::new(Compression::default(), false));
        deflate.reset();
        loop {
            out.reserve(data.len() / 4 + COMPRESS_BYTES_MIN);
            let before = deflate.total_in();
            let flushed = deflate.compress_vec(data, out, FlushCompress::Sync);
            flushed.expect("a compressor that was reset takes everything");
            let taken = deflate.total_in() - before;
            data = &data[usize::try_from(taken).expect("no more than there is")..];
            // Room that is left says that all is out.
            if data.is_empty() && out.len() < out.capacity() {
                break;
            }
        }
        debug_assert!(out.ends_with(&TAIL), "a flush ends so");
        out.truncate(out.len() - TAIL.len());
    }

    /// A decompressor at the beginning of a message; `None` if there are [`INFLATERS_MAX`] at work.
    pub(super) fn take(&mut self) -> Option<Inflater> {
        let has_room = Arc::strong_count(&self.count) <= INFLATERS_MAX;
        let make = || has_room.then(|| Inflater::new(Arc::clone(&self.count)));
        self.inflaters.pop().or_else(make)
    }

    /// Takes one back.
    pub(super) fn give_back(&mut self, mut inflater: Inflater) {
        if self.inflaters.len() < INFLATERS_KEPT_MAX {
            inflater.reset();
            self.inflaters.push(inflater);
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool::new()
    }
}

/// Decompresses one message.
#[derive(Debug)]
pub(super) struct Inflater {
    inflate: Box<Decompress>,
    /// It is counted for as long as it is there.
    _counted: Arc<()>,
    /// Nothing has come since the last block that was marked as the last one.
    is_fresh: bool,
    /// Of the tail, so many bytes are in.
    tail: usize,
}

impl Inflater {
    fn new(counted: Arc<()>) -> Self {
        let inflate = Box::new(Decompress::new(false));
        Inflater { inflate, _counted: counted, is_fresh: true, tail: 0 }
    }

    fn reset(&mut self) {
        self.inflate.reset(false);
        self.is_fresh = true;
        self.tail = 0;
    }

    /// Decompresses behind what is in `out`, at most `room` bytes. Says how much of the input was used: all of it, unless
    /// there is no room left.
    pub(super) fn push(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        mut room: usize,
    ) -> Result<usize, WebSocketError> {
        let mut used = 0;
        while used < input.len() {
            let (took, made, step) = self.step(&input[used..], out, room)?;
            used += took;
            room -= made;
            // Without room some bytes may still go in, as long as nothing comes out.
            if made == step && room == 0 && took == 0 {
                break;
            }
        }
        Ok(used)
    }

    /// The message is in: decompresses what is left of it, at most `room` bytes. Says whether that was all.
    pub(super) fn finish(
        &mut self,
        out: &mut Vec<u8>,
        mut room: usize,
    ) -> Result<bool, WebSocketError> {
        // A last block has ended it: there is no tail that was left off (RFC 7692 §7.2.3.4).
        while self.tail < TAIL.len() && !(self.is_fresh && self.tail == 0) {
            let (took, made, step) = self.step(&TAIL[self.tail..], out, room)?;
            self.tail += took;
            room -= made;
            if made == step && room == 0 && took == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Goes on as far as one step brings it: bytes taken, bytes made, and how many there was room for.
    fn step(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        room: usize,
    ) -> Result<(usize, usize, usize), WebSocketError> {
        let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
        let (len, step) = (out.len(), room.min(STEP_BYTES));
        out.resize(len + step, 0);
        let status = self.inflate.decompress(input, &mut out[len..], FlushDecompress::None);
        let took = (self.inflate.total_in() - before_in) as usize;
        let made = (self.inflate.total_out() - before_out) as usize;
        out.truncate(len + made);
        let status = status.map_err(|_| WebSocketError::Compressed)?;
        self.is_fresh &= took == 0;
        if status == Status::StreamEnd {
            // Another one may follow in the same message.
            self.inflate.reset(false);
            self.is_fresh = true;
        } else if took == 0 && made == 0 && step > 0 {
            return Err(WebSocketError::Compressed);
        }
        Ok((took, made, step))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    fn choose(fields: &[&str]) -> Option<String> {
        Deflate::choose(fields.iter().map(|field| field.as_bytes()))
            .map(|chosen| chosen.to_string())
    }

    const PLAIN: &str =
        "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

    #[test]
    fn an_offer_is_granted_or_passed_over() {
        let small = format!("{PLAIN}; server_max_window_bits=9");
        for (offer, answer) in [
            ("permessage-deflate", Some(PLAIN)),
            ("Permessage-Deflate ; client_max_window_bits", Some(PLAIN)),
            ("permessage-deflate; client_max_window_bits=10", Some(PLAIN)),
            ("permessage-deflate; server_max_window_bits=9", Some(&*small)),
            ("permessage-deflate; server_max_window_bits=\"9\"", Some(&*small)),
            ("permessage-deflate; server_max_window_bits=15", Some(PLAIN)),
            ("permessage-deflate; server_no_context_takeover", Some(PLAIN)),
            ("x-webkit-deflate-frame, permessage-deflate", Some(PLAIN)),
            ("permessage-deflate; server_max_window_bits=7, permessage-deflate", Some(PLAIN)),
            ("permessage-deflate; mux=\"a,permessage-deflate\"", None),
            ("permessage-deflate; server_max_window_bits", None),
            ("permessage-deflate; server_max_window_bits=16", None),
            ("permessage-deflate; server_max_window_bits=09", None),
            ("permessage-deflate; client_max_window_bits=a", None),
            ("permessage-deflate; server_no_context_takeover=1", None),
            ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
            ("permessage-deflate; unknown", None),
            ("permessage-bzip2", None),
            ("", None),
        ] {
            assert_eq!(choose(&[offer]).as_deref(), answer, "{offer}");
        }
        assert_eq!(choose(&["other", "permessage-deflate"]).as_deref(), Some(PLAIN));
        assert_eq!(choose(&[]), None);
    }

    #[test]
    fn there_are_only_so_many_decompressors() {
        let mut pool = Pool::new();
        let mut taken: Vec<Inflater> = (0..INFLATERS_MAX).map(|_| pool.take().unwrap()).collect();
        assert!(pool.take().is_none());
        // One that is dropped with its connection counts no more, and neither does one that is given back.
        taken.pop();
        let inflater = pool.take().unwrap();
        pool.give_back(inflater);
        assert!(pool.take().is_some());
    }

    #[test]
    fn a_small_window_is_for_small_messages() {
        let small = Deflate { window_bits: 9 };
        assert!(!small.compresses(63) && small.compresses(512) && !small.compresses(513));
        assert!(Deflate { window_bits: 15 }.compresses(1 << 20));
    }

    /// RFC 7692 §7.2.3.
    #[test]
    fn the_examples_of_the_specification() {
        let hello = |message: &[u8]| inflate(message, &[message.len()], usize::MAX).unwrap();
        for message in [
            &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
            &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
        ] {
            assert_eq!(hello(message), b"Hello", "{message:x?}");
        }
        assert_eq!(hello(&[0x00]), b"");
    }

    #[test]
    fn what_is_no_compressed_data_is_seen() {
        for message in [&[0xff, 0xff][..], &[0x07], &[0x00, 0x01, 0x00, 0x01, 0x00]] {
            let outcome = inflate(message, &[message.len()], usize::MAX);
            assert_eq!(outcome, Err(WebSocketError::Compressed), "{message:x?}");
        }
    }

    /// Decompresses a message that comes in these pieces, with so much room at a time.
    fn inflate(message: &[u8], pieces: &[usize], room: usize) -> Result<Vec<u8>, WebSocketError> {
        let mut pool = Pool::new();
        let mut inflater = pool.take().unwrap();
        let mut out = Vec::new();
        let mut rest = message;
        for piece in pieces {
            let (mut now, later) = rest.split_at((*piece).min(rest.len()));
            while !now.is_empty() {
                let before = out.len();
                let used = inflater.push(now, &mut out, room)?;
                assert!(out.len() - before <= room && (used > 0 || out.len() > before));
                now = &now[used..];
            }
            rest = later;
        }
        while !inflater.finish(&mut out, room)? {}
        pool.give_back(inflater);
        Ok(out)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_compressed_comes_out_again(
            words in proptest::collection::vec("[a-c]{0,9}", 0..2000),
            noise in proptest::collection::vec(any::<u8>(), 0..3000),
            piece in 1_usize..700,
            room in 1_usize..5000,
        ) {
            let mut data = words.concat().into_bytes();
            data.extend(noise);
            let mut pool = Pool::new();
            for _ in 0..2 {
                let mut message = Vec::new();
                pool.compress(&data, &mut message);
                let pieces = vec![piece; message.len() / piece + 1];
                prop_assert_eq!(&inflate(&message, &pieces, room).unwrap(), &data);
            }
        }
    }
}
