//! A byte queue that owns no memory while it is empty.
//!
//! Most connections of an edge are silent most of the time: a subscriber waits for the next event with nothing to
//! read and nothing to write. A million of them with a buffer each, as small as 4 KiB, would pin 4 GiB. So a
//! connection holds a [`Ring`], 8 bytes, and the memory behind it comes from the worker's [`Pool`] with the first
//! byte and goes back with the last one.
//!
//! A ring takes one block of the pool. When that is not enough it moves into a block of its own, of double the size
//! (and double again), up to the `bytes_max` that the caller names *with each call*: the limit belongs to what is
//! being done (reading a head, or a body), not to the queue. Large blocks are not pooled, because they are rare and
//! would otherwise stay at the size of the worst moment.
//!
//! It is for what clients send, which parsers want in one piece. What waits for them is in a `Backlog` (`backlog.rs`),
//! which takes no more than it needs.
//!
//! Rejected: a rope of blocks (no contiguous view for the parsers), one `Vec` for each connection (it keeps the
//! capacity of its worst day), `bytes::BytesMut` (four words, and reclaims only when it feels like it).

/// A free list of equally sized blocks. One for each worker: it is not shared between threads.
#[derive(Debug)]
pub struct Pool {
    blocks: Vec<Box<[u8]>>,
    /// Of rings that are empty: without blocks.
    #[expect(clippy::vec_box, reason = "it is the boxes that are kept")]
    spares: Vec<Box<Filled>>,
    block_bytes: usize,
    blocks_kept_max: usize,
}

/// A FIFO of bytes, empty at first.
///
/// It has a block exactly while it holds a byte. A ring that is dropped with bytes in it frees its block instead of
/// giving it back to the pool; call [`Ring::clear`] for that.
#[derive(Debug, Default)]
pub struct Ring {
    /// Exactly while there is a byte.
    filled: Option<Box<Filled>>,
}

/// What a ring has while it holds a byte.
#[derive(Debug, Default)]
struct Filled {
    block: Box<[u8]>,
    /// Where the first byte is, below the length of the block.
    head: u32,
    len: u32,
}

/// The bytes would not fit below the caller's limit; nothing was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the ring has room for {room_bytes} bytes more")]
pub struct RingFull {
    /// How many bytes would have fitted.
    pub room_bytes: usize,
}

impl Pool {
    /// A pool of blocks of `block_bytes` each.
    ///
    /// At most `blocks_kept_max` free blocks are kept; one that comes back beyond that is freed. So the pool itself
    /// costs at most `block_bytes * blocks_kept_max` bytes. Blocks in use are not counted: their owners' limits
    /// bound them.
    ///
    /// # Panics
    ///
    /// If `block_bytes` is 0 or larger than [`RING_BYTES_MAX`].
    pub fn new(block_bytes: usize, blocks_kept_max: usize) -> Self {
        assert!(
            (1..=RING_BYTES_MAX).contains(&block_bytes),
            "a block of {block_bytes} bytes is of no use"
        );
        Pool { blocks: Vec::new(), spares: Vec::new(), block_bytes, blocks_kept_max }
    }

    /// The size of each block, in bytes.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// How many free blocks are kept at the moment.
    pub fn blocks_kept(&self) -> usize {
        self.blocks.len()
    }

    /// A block of [`Pool::block_bytes`] bytes. What stands in it is whatever its last owner left there.
    pub fn get(&mut self) -> Box<[u8]> {
        self.blocks.pop().unwrap_or_else(|| zeroed(self.block_bytes))
    }

    /// Takes a block back. One of another size is freed, as is one too many.
    pub fn put(&mut self, block: Box<[u8]>) {
        if block.len() == self.block_bytes && self.blocks.len() < self.blocks_kept_max {
            self.blocks.push(block);
        }
    }
}

impl Ring {
    /// An empty ring. Allocates nothing.
    pub const fn new() -> Self {
        Ring { filled: None }
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.filled.as_ref().map_or(0, |filled| filled.len as usize)
    }

    /// Whether it holds no byte, and so no memory.
    pub fn is_empty(&self) -> bool {
        self.filled.is_none()
    }

    /// The memory it holds, in bytes; 0 while it is empty.
    pub fn capacity(&self) -> usize {
        self.filled.as_ref().map_or(0, |filled| filled.block.len())
    }

    /// How many bytes more [`Ring::extend`] would take with that limit.
    pub fn room(&self, bytes_max: usize) -> usize {
        bytes_max.min(RING_BYTES_MAX).saturating_sub(self.len())
    }

    /// Appends all of `bytes`.
    ///
    /// # Errors
    ///
    /// [`RingFull`] if the ring would then hold more than `bytes_max` bytes (at most [`RING_BYTES_MAX`]). Nothing is
    /// taken then, because half an event or half a frame is worse than none; a caller that can use a part asks
    /// [`Ring::room`] first.
    pub fn extend(
        &mut self,
        pool: &mut Pool,
        bytes: &[u8],
        bytes_max: usize,
    ) -> Result<(), RingFull> {
        let room_bytes = self.room(bytes_max);
        if bytes.len() > room_bytes {
            return Err(RingFull { room_bytes });
        }
        if bytes.is_empty() {
            return Ok(());
        }
        let filled = self.filled.get_or_insert_with(|| pool.spares.pop().unwrap_or_default());
        filled.extend(pool, bytes, bytes_max.min(RING_BYTES_MAX));
        Ok(())
    }

    /// The bytes, oldest first, as at most two slices for a vectored write; the second is empty unless they wrap.
    pub fn slices(&self) -> (&[u8], &[u8]) {
        self.filled.as_ref().map_or((&[], &[]), |filled| filled.slices())
    }

    /// The bytes, oldest first, as one slice, for a parser. If they wrap, they are first aligned in place, which costs
    /// time in proportion to the capacity; a ring that is drained from time to time hardly ever wraps.
    pub fn contiguous(&mut self) -> &[u8] {
        let Some(filled) = &mut self.filled else { return &[] };
        let (head, len) = (filled.head as usize, filled.len as usize);
        if head + len <= filled.block.len() {
            return &filled.block[head..head + len];
        }
        filled.block.rotate_left(head);
        filled.head = 0;
        &filled.block[..len]
    }

    /// Drops the `n` oldest bytes. The block goes back to the pool with the last one.
    ///
    /// # Panics
    ///
    /// If the ring holds fewer than `n` bytes: the caller has lost count of its stream.
    pub fn consume(&mut self, pool: &mut Pool, n: usize) {
        let len = self.len();
        assert!(n <= len, "consumed {n} of {len} bytes");
        if n == len {
            self.clear(pool);
        } else if let Some(filled) = &mut self.filled {
            filled.head = narrow(wrap(filled.head as usize + n, filled.block.len()));
            filled.len = narrow(len - n);
        }
    }

    /// Drops all bytes and gives the block back.
    pub fn clear(&mut self, pool: &mut Pool) {
        let Some(mut filled) = self.filled.take() else { return };
        pool.put(std::mem::take(&mut *filled).block);
        if pool.spares.len() < pool.blocks_kept_max {
            pool.spares.push(filled);
        }
    }
}

impl Filled {
    /// Appends all of `bytes`; with them there are at most `bytes_max`.
    fn extend(&mut self, pool: &mut Pool, bytes: &[u8], bytes_max: usize) {
        let len = self.len as usize;
        self.reserve(pool, len + bytes.len(), bytes_max);
        let tail = wrap(self.head as usize + len, self.block.len());
        let first = bytes.len().min(self.block.len() - tail);
        self.block[tail..tail + first].copy_from_slice(&bytes[..first]);
        self.block[..bytes.len() - first].copy_from_slice(&bytes[first..]);
        self.len = narrow(len + bytes.len());
    }

    fn slices(&self) -> (&[u8], &[u8]) {
        let (head, len) = (self.head as usize, self.len as usize);
        let first = len.min(self.block.len() - head);
        (&self.block[head..head + first], &self.block[..len - first])
    }

    /// Makes room for `needed` bytes in all, which is at most `bytes_max`.
    fn reserve(&mut self, pool: &mut Pool, needed: usize, bytes_max: usize) {
        let capacity = self.block.len();
        if needed <= capacity {
            return;
        }
        let mut grown = if needed <= pool.block_bytes() {
            pool.get()
        } else {
            let doubled = capacity.max(pool.block_bytes()).saturating_mul(2);
            zeroed(doubled.max(needed.next_power_of_two()).min(bytes_max))
        };
        let (first, second) = self.slices();
        grown[..first.len()].copy_from_slice(first);
        grown[first.len()..first.len() + second.len()].copy_from_slice(second);
        pool.put(std::mem::replace(&mut self.block, grown));
        self.head = 0;
    }
}

/// No ring grows beyond this many bytes (1 GiB), whatever its caller allows; it keeps positions in 32 bits.
pub const RING_BYTES_MAX: usize = 1 << 30;

fn zeroed(bytes: usize) -> Box<[u8]> {
    vec![0; bytes].into_boxed_slice()
}

/// `position` modulo `capacity`, for a position of less than twice the capacity.
fn wrap(position: usize, capacity: usize) -> usize {
    if position < capacity { position } else { position - capacity }
}

fn narrow(position: usize) -> u32 {
    u32::try_from(position).expect("positions are bounded by RING_BYTES_MAX")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const BLOCK_BYTES: usize = 16;
    const BYTES_MAX: usize = 100;

    #[derive(Clone, Debug)]
    enum Op {
        Extend(Vec<u8>, usize),
        Consume(usize),
        Contiguous,
        Clear,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            6 => (proptest::collection::vec(any::<u8>(), 0..40), 0..=BYTES_MAX)
                .prop_map(|(bytes, bytes_max)| Op::Extend(bytes, bytes_max)),
            6 => (0..60_usize).prop_map(Op::Consume),
            2 => Just(Op::Contiguous),
            1 => Just(Op::Clear),
        ]
    }

    fn check(ring: &Ring, pool: &Pool, oracle: &VecDeque<u8>) {
        let (first, second) = ring.slices();
        let held: Vec<u8> = [first, second].concat();
        assert!(held.iter().eq(oracle.iter()));
        assert_eq!(ring.len(), oracle.len());
        assert_eq!(ring.is_empty(), oracle.is_empty());
        assert_eq!(ring.capacity() == 0, oracle.is_empty(), "memory is held for no byte");
        assert!(ring.capacity() <= BYTES_MAX.max(BLOCK_BYTES));
        assert!(pool.blocks_kept() <= 2);
    }

    proptest! {
        #[test]
        fn behaves_as_a_deque(ops in proptest::collection::vec(op(), 0..80)) {
            let mut pool = Pool::new(BLOCK_BYTES, 2);
            let (mut ring, mut oracle) = (Ring::new(), VecDeque::new());
            for op in ops {
                match op {
                    Op::Extend(bytes, bytes_max) => {
                        let room_bytes = bytes_max.saturating_sub(oracle.len());
                        let taken = ring.extend(&mut pool, &bytes, bytes_max);
                        if bytes.len() <= room_bytes {
                            prop_assert_eq!(taken, Ok(()));
                            oracle.extend(bytes);
                        } else {
                            prop_assert_eq!(taken, Err(RingFull { room_bytes }));
                        }
                    }
                    Op::Consume(n) => {
                        let n = n.min(oracle.len());
                        ring.consume(&mut pool, n);
                        oracle.drain(..n);
                    }
                    Op::Contiguous => {
                        let held = ring.contiguous();
                        prop_assert!(held.iter().eq(oracle.iter()));
                    }
                    Op::Clear => {
                        ring.clear(&mut pool);
                        oracle.clear();
                    }
                }
                check(&ring, &pool, &oracle);
            }
        }
    }

    #[test]
    fn is_three_words() {
        assert!(size_of::<Ring>() <= 24, "{}", size_of::<Ring>());
    }

    #[test]
    fn the_block_goes_round() {
        let mut pool = Pool::new(BLOCK_BYTES, 1);
        let mut ring = Ring::new();
        assert_eq!(ring.contiguous(), b"");
        ring.extend(&mut pool, b"", 0).unwrap();
        assert_eq!(ring.capacity(), 0);
        ring.extend(&mut pool, b"abc", BYTES_MAX).unwrap();
        assert_eq!((ring.capacity(), pool.blocks_kept()), (BLOCK_BYTES, 0));
        ring.consume(&mut pool, 3);
        assert_eq!((ring.capacity(), pool.blocks_kept()), (0, 1));
    }

    #[test]
    fn grows_by_doubling_up_to_the_limit() {
        let mut pool = Pool::new(BLOCK_BYTES, 4);
        let mut ring = Ring::new();
        let capacities: Vec<usize> = (0..BYTES_MAX)
            .map(|i| {
                ring.extend(&mut pool, &[u8::try_from(i).unwrap()], BYTES_MAX).unwrap();
                ring.capacity()
            })
            .collect();
        let mut distinct = capacities.clone();
        distinct.dedup();
        assert_eq!(distinct, [16, 32, 64, 100]);
        assert_eq!(ring.extend(&mut pool, b"x", BYTES_MAX), Err(RingFull { room_bytes: 0 }));
        assert_eq!(pool.blocks_kept(), 1, "the outgrown block went back");
        ring.clear(&mut pool);
        assert_eq!(pool.blocks_kept(), 1, "a large block is not pooled");
    }

    #[test]
    #[should_panic(expected = "consumed 2 of 1 bytes")]
    fn consuming_too_much_is_a_bug() {
        let mut pool = Pool::new(BLOCK_BYTES, 1);
        let mut ring = Ring::new();
        ring.extend(&mut pool, b"a", 1).unwrap();
        ring.consume(&mut pool, 2);
    }
}
