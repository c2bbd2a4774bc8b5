//! Events that are rendered once for all who get them, in each of the forms in which somebody does.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

use zhttp::Cursor;

use super::run::Run;
use super::{Shared, message, sse};
use crate::websocket::{Deflate, Pool};

/// How a connection gets its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rendering {
    /// As server-sent events.
    Sse,
    /// The same, each in a chunk of its own (RFC 9112 §7.1): so nothing is left to be put around them, and one plain
    /// write sends any number.
    SseChunks,
    /// As text messages of a WebSocket.
    Message,
    /// The same, compressed.
    CompressedMessage,
}

impl Rendering {
    /// Whether each connection gets an event as all others do. A server-sent event has the id of its connection.
    pub(super) const fn is_the_same_for_all(self) -> bool {
        match self {
            Rendering::Sse | Rendering::SseChunks => false,
            Rendering::Message | Rendering::CompressedMessage => true,
        }
    }
}

/// Rendered events.
#[derive(Debug)]
pub(super) struct Block {
    bytes: Shared,
    /// Where each event ends.
    ends: Box<[u32]>,
}

/// The same events in the forms that somebody has asked for.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    sse: OnceCell<Block>,
    sse_chunks: OnceCell<Block>,
    messages: OnceCell<Block>,
    compressed: OnceCell<Block>,
}

impl Blocks {
    /// The events of these runs, each from some event on; always of the same.
    pub(super) fn of(
        &self,
        rendering: Rendering,
        pool: &mut Pool,
        runs: &[(Arc<Run>, usize)],
    ) -> &Block {
        let block = match rendering {
            Rendering::Sse => &self.sse,
            Rendering::SseChunks => &self.sse_chunks,
            Rendering::Message => &self.messages,
            Rendering::CompressedMessage => &self.compressed,
        };
        block.get_or_init(|| Block::render(rendering, pool, runs))
    }
}

/// What is around the data of an event, roughly.
const EVENT_OVERHEAD_BYTES: usize = 80;

impl Block {
    fn render(rendering: Rendering, pool: &mut Pool, runs: &[(Arc<Run>, usize)]) -> Block {
        let bytes = runs
            .iter()
            .map(|(run, _)| run.bytes() + run.events().len() * EVENT_OVERHEAD_BYTES)
            .sum();
        let count = runs.iter().map(|(run, skip)| run.events().len() - skip).sum();
        let mut out = Vec::with_capacity(bytes);
        let mut ends = Vec::with_capacity(count);
        let mut id = Vec::with_capacity(Cursor::TEXT_BYTES_MAX);
        for (run, skip) in runs {
            for (index, event) in run.events().iter().enumerate().skip(*skip) {
                id.clear();
                sse::write_cursor(&mut id, run.id(index));
                let (kind, data) = (event.kind(), &*event.data);
                let event = message::Event { channel: run.channel(), kind, id: &id, data };
                match rendering {
                    Rendering::Sse => sse::write_event(&mut out, kind, &id, data),
                    Rendering::SseChunks => sse::write_chunk(&mut out, kind, &id, data),
                    Rendering::Message => message::write(&mut out, pool, None, &event),
                    Rendering::CompressedMessage => {
                        message::write(&mut out, pool, Some(Deflate::UNLIMITED), &event);
                    }
                }
                ends.push(u32::try_from(out.len()).unwrap_or(u32::MAX));
            }
        }
        Block { bytes: out.into(), ends: ends.into() }
    }

    /// The bytes of all events from that one on, and where they begin.
    pub(super) fn from(&self, index: usize) -> (Shared, usize) {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        (Rc::clone(&self.bytes), start)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::run::tests::run;
    use super::*;
    use crate::websocket::{Received, Receiver, Role};

    fn runs() -> [(Arc<Run>, usize); 2] {
        let first = run("o:c", Cursor::new(7, 1), None, 2, false);
        let second = run("o:c", Cursor::new(7, 3), None, 1, true);
        [(first, 1), (second, 0)]
    }

    #[test]
    fn a_block_can_be_entered_at_any_event() {
        let (blocks, mut pool) = (Blocks::default(), Pool::new());
        let block = blocks.of(Rendering::Sse, &mut pool, &runs());
        let (bytes, start) = block.from(0);
        let want =
            "event: stream\nid: 7-3\ndata: \"7-3\"\n\nevent: stream\nid: 7-4\ndata: \"7-4\"\n\n";
        assert_eq!((std::str::from_utf8(&bytes).unwrap(), start), (want, 0));
        let (bytes, start) = block.from(1);
        assert_eq!(std::str::from_utf8(&bytes[start..]).unwrap(), &want[want.len() / 2..]);
    }

    #[test]
    fn each_event_is_a_chunk() {
        let (blocks, mut pool) = (Blocks::default(), Pool::new());
        let (bytes, start) = blocks.of(Rendering::SseChunks, &mut pool, &runs()).from(1);
        let want = "23\r\nevent: stream\nid: 7-4\ndata: \"7-4\"\n\n\r\n";
        assert_eq!(std::str::from_utf8(&bytes[start..]).unwrap(), want);
    }

    #[test]
    fn each_form_is_rendered_once() {
        let (blocks, mut pool) = (Blocks::default(), Pool::new());
        let all = [Rendering::Sse, Rendering::SseChunks];
        for rendering in all.into_iter().chain([Rendering::Message, Rendering::CompressedMessage]) {
            let first = blocks.of(rendering, &mut pool, &runs()).from(0).0;
            assert!(Rc::ptr_eq(&first, &blocks.of(rendering, &mut pool, &runs()).from(1).0));
        }
    }

    #[test]
    fn messages_are_frames() {
        let (blocks, mut pool) = (Blocks::default(), Pool::new());
        for rendering in [Rendering::Message, Rendering::CompressedMessage] {
            let (bytes, start) = blocks.of(rendering, &mut pool, &runs()).from(1);
            let mut receiver = Receiver::new(Role::Client, true);
            let mut out = Vec::new();
            let bytes = &bytes[start..];
            let (used, received) = receiver.receive(&mut pool, bytes, (&mut out, 1000)).unwrap();
            assert_eq!(used, bytes.len());
            assert!(matches!(received, Received::Message { end: true, .. }), "{received:?}");
            assert_eq!(
                String::from_utf8(out).unwrap(),
                r#"{"type":"event","channel":"c","cursor":"7-4","event":"stream","data":"7-4"}"#
            );
        }
    }
}
