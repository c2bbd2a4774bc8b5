//! Rings that share a pool, against a `VecDeque` for each.

use std::collections::VecDeque;

use zhttp::fuzzing::Choices;

use crate::ring::{Pool, Ring, RingFull};

/// How many rings take their blocks from one pool.
const RINGS: usize = 3;

/// Small, so that rings outgrow it.
const BLOCK_BYTES: usize = 16;

const BLOCKS_KEPT_MAX: usize = 2;

/// The highest limit that a caller names; not a power of two, and no multiple of a block.
const BYTES_MAX: usize = 100;

#[derive(Default)]
struct Pair {
    ring: Ring,
    oracle: VecDeque<u8>,
}

/// Does what the choices say to a few rings and to their oracles.
///
/// # Panics
///
/// If they differ, or memory is held for no byte.
pub fn fuzz(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut pool = Pool::new(BLOCK_BYTES, BLOCKS_KEPT_MAX);
    let mut pairs: [Pair; RINGS] = std::array::from_fn(|_| Pair::default());
    while !choices.is_over() {
        let pair = &mut pairs[choices.index(RINGS)];
        pair.apply(&mut choices, &mut pool);
        // What one ring does is nothing to the others.
        pairs.iter().for_each(Pair::check);
        assert!(pool.blocks_kept() <= BLOCKS_KEPT_MAX, "the pool is bounded");
    }
    for pair in &mut pairs {
        pair.ring.clear(&mut pool);
        pair.oracle.clear();
        pair.check();
    }
}

impl Pair {
    fn apply(&mut self, choices: &mut Choices<'_>, pool: &mut Pool) {
        match choices.index(5) {
            0 | 1 => {
                let bytes_max = choices.index(BYTES_MAX + 1);
                let bytes = choices.bytes(BYTES_MAX);
                let room_bytes = bytes_max.saturating_sub(self.oracle.len());
                let taken = self.ring.extend(pool, bytes, bytes_max);
                if bytes.len() <= room_bytes {
                    assert_eq!(taken, Ok(()));
                    self.oracle.extend(bytes);
                } else {
                    assert_eq!(taken, Err(RingFull { room_bytes }));
                }
            }
            2 => {
                let n = choices.index(self.oracle.len() + 1);
                self.ring.consume(pool, n);
                self.oracle.drain(..n);
            }
            3 => assert!(self.ring.contiguous().iter().eq(&self.oracle), "the same bytes in line"),
            _ => {
                self.ring.clear(pool);
                self.oracle.clear();
            }
        }
    }

    fn check(&self) {
        let (first, second) = self.ring.slices();
        assert!(first.iter().chain(second).eq(&self.oracle), "the same bytes");
        assert!(!first.is_empty() || second.is_empty(), "the first slice comes first");
        assert_eq!(self.ring.len(), self.oracle.len());
        assert_eq!(self.ring.is_empty(), self.oracle.is_empty());
        assert_eq!(self.ring.capacity() == 0, self.oracle.is_empty(), "no memory for no byte");
        assert!(self.ring.capacity() <= BYTES_MAX, "the limit is kept");
        for bytes_max in [0, self.oracle.len(), BYTES_MAX] {
            let room = bytes_max.saturating_sub(self.oracle.len());
            assert_eq!(self.ring.room(bytes_max), room);
        }
    }
}
