//! What waits for a client: a byte queue that takes memory block by block.
//!
//! A slow client is given no more once its backlog is over a limit that the operator sets, and an edge may have a
//! hundred thousand of them: what a byte that waits costs is what they cost. So a [`Backlog`] takes blocks of the
//! worker's [`Pool`] as bytes come and gives each back as soon as its last byte is gone. Nothing is copied when it
//! grows. While it is empty it is one word and owns nothing.
//!
//! **Its memory.** At most two blocks more than the bytes that wait: the first may be nearly used up, and the last
//! nearly unused. And 32 bytes for each block, to find it.
//!
//! Rejected: the [`Ring`](crate::ring::Ring). It is in one piece, for parsers, and therefore grows by doubling: one byte
//! over 64 KiB made it 128 KiB, and a crowd that grew together left its outgrown blocks as holes in the heap. Nobody
//! parses what goes out, and a vectored write takes as many pieces as there are.

use std::collections::VecDeque;

use crate::ring::Pool;

/// A FIFO of bytes, empty at first.
///
/// One that is dropped with bytes in it frees its blocks instead of giving them back to the pool; call
/// [`Backlog::clear`] for that.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Exactly while there is a byte.
    blocks: Option<Box<Blocks>>,
}

#[derive(Debug)]
struct Blocks {
    /// Of equal size, in order. All but the last are full.
    blocks: VecDeque<Box<[u8]>>,
    /// Where the first byte is, in the first block.
    head: usize,
    len: usize,
}

/// The bytes would not fit below the caller's limit; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is room for {room_bytes} bytes more")]
pub(crate) struct BacklogFull {
    /// How many bytes would have fitted.
    pub(crate) room_bytes: usize,
}

impl Backlog {
    /// An empty one. Allocates nothing.
    pub(crate) const fn new() -> Self {
        Backlog { blocks: None }
    }

    /// How many bytes wait.
    pub(crate) fn len(&self) -> usize {
        self.blocks.as_ref().map_or(0, |blocks| blocks.len)
    }

    /// Whether none does, and so no memory is held.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocks.is_none()
    }

    /// The memory of its blocks, in bytes; 0 while it is empty.
    pub(crate) fn capacity(&self) -> usize {
        let all = self.blocks.iter().flat_map(|blocks| &blocks.blocks);
        all.map(|block| block.len()).sum()
    }

    /// Appends all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`BacklogFull`] if more than `bytes_max` bytes would then wait. Nothing is taken then, because half an event is
    /// worse than none.
    pub(crate) fn extend(
        &mut self,
        pool: &mut Pool,
        mut bytes: &[u8],
        bytes_max: usize,
    ) -> Result<(), BacklogFull> {
        let room_bytes = bytes_max.saturating_sub(self.len());
        if bytes.len() > room_bytes {
            return Err(BacklogFull { room_bytes });
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let Blocks { blocks, head, len } = &mut **self.blocks.get_or_insert_default();
        while !bytes.is_empty() {
            let end = *head + *len;
            let tail = end % pool.block_bytes();
            if end == blocks.len() * pool.block_bytes() {
                blocks.push_back(pool.get());
            }
            let last = blocks.back_mut().expect("there is room in it");
            let taken = bytes.len().min(last.len() - tail);
            last[tail..tail + taken].copy_from_slice(&bytes[..taken]);
            *len += taken;
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// The bytes, oldest first, in as many pieces as there are blocks; none is empty.
    pub(crate) fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.iter().flat_map(|all| {
            let end = all.head + all.len;
            all.blocks.iter().enumerate().map(move |(index, block)| {
                let first = if index == 0 { all.head } else { 0 };
                &block[first..block.len().min(end - index * block.len())]
            })
        })
    }

    /// Drops the `n` oldest bytes, and gives back the blocks that they had for themselves.
    ///
    /// # Panics
    ///
    /// If fewer than `n` bytes wait: the caller has lost count of its stream.
    pub(crate) fn consume(&mut self, pool: &mut Pool, n: usize) {
        let len = self.len();
        assert!(n <= len, "consumed {n} of {len} bytes");
        if n == len {
            return self.clear(pool);
        }
        let Some(all) = &mut self.blocks else { return };
        all.len -= n;
        all.head += n;
        while all.head >= pool.block_bytes() {
            all.head -= pool.block_bytes();
            all.blocks.pop_front().into_iter().for_each(|block| pool.put(block));
        }
    }

    /// Drops all bytes and gives the blocks back.
    pub(crate) fn clear(&mut self, pool: &mut Pool) {
        let blocks = self.blocks.take().into_iter().flat_map(|all| all.blocks);
        blocks.for_each(|block| pool.put(block));
    }
}

impl Default for Blocks {
    fn default() -> Self {
        Blocks { blocks: VecDeque::with_capacity(1), head: 0, len: 0 }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use proptest::prelude::*;

    use super::*;

    const BLOCK_BYTES: usize = 16;
    const BYTES_MAX: usize = 100;

    #[derive(Clone, Debug)]
    enum Op {
        Extend(Vec<u8>, usize),
        Consume(usize),
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (proptest::collection::vec(any::<u8>(), 0..40), 0..=BYTES_MAX)
                .prop_map(|(bytes, bytes_max)| Op::Extend(bytes, bytes_max)),
            6 => (0..60_usize).prop_map(Op::Consume),
            1 => Just(Op::Clear),
        ]
    }

    fn check(backlog: &Backlog, pool: &Pool, oracle: &VecDeque<u8>) {
        let held: Vec<&[u8]> = backlog.slices().collect();
        assert!(held.concat().iter().eq(oracle), "the same bytes");
        assert!(held.iter().all(|slice| !slice.is_empty()));
        assert_eq!(backlog.len(), oracle.len());
        assert_eq!(backlog.is_empty(), oracle.is_empty());
        assert_eq!(backlog.capacity() == 0, oracle.is_empty(), "memory is held for no byte");
        assert!(backlog.capacity() < oracle.len() + 2 * BLOCK_BYTES, "two blocks more at most");
        assert!(pool.blocks_kept() <= 2);
    }

    proptest! {
        #[test]
        fn behaves_as_a_deque(ops in proptest::collection::vec(op(), 0..80)) {
            let mut pool = Pool::new(BLOCK_BYTES, 2);
            let (mut backlog, mut oracle) = (Backlog::new(), VecDeque::new());
            for op in ops {
                match op {
                    Op::Extend(bytes, bytes_max) => {
                        let room_bytes = bytes_max.saturating_sub(oracle.len());
                        let taken = backlog.extend(&mut pool, &bytes, bytes_max);
                        if bytes.len() <= room_bytes {
                            prop_assert_eq!(taken, Ok(()));
                            oracle.extend(bytes);
                        } else {
                            prop_assert_eq!(taken, Err(BacklogFull { room_bytes }));
                        }
                    }
                    Op::Consume(n) => {
                        let n = n.min(oracle.len());
                        backlog.consume(&mut pool, n);
                        oracle.drain(..n);
                    }
                    Op::Clear => {
                        backlog.clear(&mut pool);
                        oracle.clear();
                    }
                }
                check(&backlog, &pool, &oracle);
            }
        }
    }

    #[test]
    fn is_one_word() {
        assert_eq!(size_of::<Backlog>(), size_of::<usize>());
    }

    /// The figures of `--client-backlog-max` in the README, with the usual sizes.
    #[test]
    fn a_slow_client_costs_its_bytes_and_a_block() {
        let mut pool = Pool::new(8 * 1024, 0);
        let mut backlog = Backlog::new();
        while backlog.len() <= 64 * 1024 {
            backlog.extend(&mut pool, &[0; 1100], usize::MAX).unwrap();
        }
        assert_eq!((backlog.len(), backlog.capacity()), (66_000, 72 * 1024));
        backlog.consume(&mut pool, 60 * 1024);
        assert_eq!(backlog.capacity(), 16 * 1024, "what is gone takes no memory");
    }

    #[test]
    fn blocks_go_round() {
        let mut pool = Pool::new(BLOCK_BYTES, 3);
        let mut backlog = Backlog::new();
        backlog.extend(&mut pool, b"", 0).unwrap();
        assert!(backlog.is_empty());
        backlog.extend(&mut pool, &[1; 40], BYTES_MAX).unwrap();
        assert_eq!((backlog.capacity(), pool.blocks_kept()), (48, 0));
        backlog.consume(&mut pool, 16);
        assert_eq!((backlog.capacity(), pool.blocks_kept()), (32, 1));
        backlog.consume(&mut pool, 24);
        assert_eq!((backlog.capacity(), pool.blocks_kept()), (0, 3));
    }

    #[test]
    #[should_panic(expected = "consumed 2 of 1 bytes")]
    fn consuming_too_much_is_a_bug() {
        let mut pool = Pool::new(BLOCK_BYTES, 1);
        let mut backlog = Backlog::new();
        backlog.extend(&mut pool, b"a", 1).unwrap();
        backlog.consume(&mut pool, 2);
    }
}
