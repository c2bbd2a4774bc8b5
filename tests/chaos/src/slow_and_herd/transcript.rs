//! What a client got, as it came.
//!
//! Thousands of clients get the same events, gigabytes in all. So a block of a stream (up to its empty
//! line) is kept once, in [`Blocks`], and a [`Transcript`] has only its number. Nothing of its bytes is
//! lost: a block with one wrong byte is another block.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::client::StreamError;

/// All different blocks that came to anybody.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    numbers: HashMap<Arc<[u8]>, u32>,
    blocks: Vec<Arc<[u8]>>,
}

/// The number of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct BlockNumber(u32);

impl Blocks {
    /// The number of these bytes.
    pub(crate) fn number(&self, bytes: &[u8]) -> BlockNumber {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = inner.numbers.get(bytes) {
            return BlockNumber(*number);
        }
        let number = u32::try_from(inner.blocks.len()).expect("memory ends before numbers do");
        let bytes: Arc<[u8]> = bytes.into();
        inner.blocks.push(Arc::clone(&bytes));
        inner.numbers.insert(bytes, number);
        BlockNumber(number)
    }

    /// The bytes of that number.
    pub(crate) fn bytes(&self, BlockNumber(number): BlockNumber) -> Arc<[u8]> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&inner.blocks[number as usize])
    }
}

/// Something that a client saw.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// When, on the clock of the run.
    pub(crate) at_us: u64,
    pub(crate) what: What,
}

/// What.
#[derive(Clone, Debug)]
pub(crate) enum What {
    /// A response begins, to a request that came with this id.
    Began(Option<Box<str>>),
    /// A block of the stream, with its empty line.
    Block(BlockNumber),
    /// The response has ended in order; behind a whole block, or behind these bytes of one.
    Ended(Option<BlockNumber>),
    /// The connection was lost, with whatever of a block had come.
    Cut,
    /// Something came that no edge should send.
    Wrong(Box<str>),
}

/// All that a client saw, in its order.
#[derive(Debug)]
pub(crate) struct Transcript {
    /// Where its blocks are.
    pub(crate) blocks: Arc<Blocks>,
    pub(crate) entries: Vec<Entry>,
}

impl Transcript {
    pub(crate) fn new(blocks: Arc<Blocks>) -> Self {
        Transcript { blocks, entries: Vec::new() }
    }

    pub(crate) fn add(&mut self, at_us: u64, what: What) {
        self.entries.push(Entry { at_us, what });
    }

    /// How a connection ended that did not end in order.
    pub(crate) fn add_error(&mut self, at_us: u64, error: &StreamError) {
        let what = match error {
            StreamError::Lost(_) => What::Cut,
            StreamError::Wrong(what) => What::Wrong(what.as_str().into()),
        };
        self.add(at_us, what);
    }

    /// The id to come back with: of the last block that has one.
    pub(crate) fn last_id(&self) -> Option<String> {
        self.entries.iter().rev().find_map(|entry| match &entry.what {
            What::Block(number) => id_of(&self.blocks.bytes(*number)).map(str::to_owned),
            What::Began(id) => id.as_deref().map(str::to_owned),
            What::Ended(_) | What::Cut | What::Wrong(_) => None,
        })
    }
}

/// The value of a block's `id:` line.
pub(crate) fn id_of(block: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(block).ok()?;
    text.lines().find_map(|line| line.strip_prefix("id: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_bytes_have_the_same_number() {
        let blocks = Blocks::default();
        let (a, b) = (blocks.number(b"a\n\n"), blocks.number(b"b\n\n"));
        assert!(a != b && a == blocks.number(b"a\n\n"));
        assert_eq!(&*blocks.bytes(b), b"b\n\n");
    }

    #[test]
    fn a_client_comes_back_with_what_it_got_last() {
        let blocks = Arc::new(Blocks::default());
        let mut transcript = Transcript::new(Arc::clone(&blocks));
        assert_eq!(transcript.last_id(), None);
        let event = blocks.number(b"event: stream\nid: 7-2\ndata: {}\n\n");
        let comment = blocks.number(b":\n\n");
        let whats =
            [What::Began(Some("7-1".into())), What::Block(event), What::Block(comment), What::Cut];
        for (what, id) in whats.into_iter().zip(["7-1", "7-2", "7-2", "7-2"]) {
            transcript.add(0, what);
            assert_eq!(transcript.last_id().as_deref(), Some(id));
        }
    }
}
