//! What came to a client, written down as it came.
//!
//! The data of an event is the same for all who get it, so it is kept once ([`Words`]): a run of ten minutes with hundreds
//! of clients then fits into memory, and the judge sees every byte all the same.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use forebay_judge::sse::Block;
use tokio::time::Instant;

/// Texts that are kept once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Words(Arc<Mutex<HashSet<Arc<str>>>>);

impl Words {
    /// The one copy of this text.
    fn keep(&self, text: String) -> Arc<str> {
        let mut words = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(word) = words.get(text.as_str()) {
            return Arc::clone(word);
        }
        let word: Arc<str> = text.into();
        words.insert(Arc::clone(&word));
        word
    }
}

/// A block of a stream that came.
#[derive(Clone, Debug)]
pub(crate) struct Came {
    pub(crate) at: Instant,
    kind: Option<Arc<str>>,
    id: Option<Box<str>>,
    data: Option<Arc<str>>,
}

impl Came {
    /// Writes a block down; `None` if it says nothing: a comment, or `retry:`.
    pub(crate) fn of(words: &Words, block: Block, at: Instant) -> Option<Self> {
        let Block { kind, id, data, .. } = block;
        let has_something = kind.is_some() || id.is_some() || data.is_some();
        has_something.then(|| Came {
            at,
            kind: kind.map(|kind| words.keep(kind)),
            id: id.map(String::into_boxed_str),
            data: data.map(|data| words.keep(data)),
        })
    }

    /// As the judge wants it.
    pub(crate) fn block(&self) -> Block {
        let text = |text: &Arc<str>| text.to_string();
        Block {
            kind: self.kind.as_ref().map(text),
            id: self.id.as_deref().map(str::to_owned),
            data: self.data.as_ref().map(text),
            ..Block::default()
        }
    }
}

/// One connection of a client, from its response's head on.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    /// The id that the client came with.
    pub(crate) presented: Option<String>,
    pub(crate) came: Vec<Came>,
    /// The response ended in order: with its last chunk, behind a whole block.
    pub(crate) is_whole: bool,
}

/// What a client got.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reading {
    /// The channels that it read, by their numbers.
    pub(crate) channels: Vec<usize>,
    /// Its connections.
    pub(crate) lives: Vec<Life>,
    /// It was told that all its channels have ended, by the end of its response or by a 204.
    pub(crate) has_ended: bool,
    /// It stopped reading for a while: its times say nothing about the system.
    pub(crate) is_slow: bool,
    /// Connections that were lost because the edge was ended.
    pub(crate) expected_losses: u64,
    /// Connections that were lost though the edge was not ended, and how.
    pub(crate) disconnects: Vec<String>,
    /// Attempts to come that were answered with "later", or not at all.
    pub(crate) sent_away: u64,
    /// What else was wrong with what it got.
    pub(crate) violations: Vec<String>,
}
