//! A naive oracle of what clients of WebSockets say (hold.md §4.1): which messages workers have sent off, which handler was
//! given them, who has answered. The messages of a connection are numbered, so what must be can be said of numbers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use zhttp::hold::Message;

use crate::saying::Saying;

/// Names a `message`: the session, and its number.
pub(crate) type MessageKey = (Bytes, u64);

/// What is known of all that was said in this life of the edge.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    /// Of each session the last message that its worker has sent off, and the last serial in it.
    sent: BTreeMap<Bytes, (u64, u64)>,
    /// The last one that was given to a handler, and its packet.
    routed: BTreeMap<Bytes, (u64, Bytes)>,
    /// Who has answered.
    answered: BTreeMap<MessageKey, usize>,
    /// Sessions of which a message cannot be answered: none takes it, or it got lost.
    refused: BTreeSet<Bytes>,
}

/// What is remarkable about an answer that a handler is about to send.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Already {
    /// The same handler has answered.
    pub(crate) by_itself: bool,
    /// Another one has.
    pub(crate) by_another: bool,
}

/// What was said in a `message`.
///
/// # Errors
///
/// Somebody has changed it.
pub(crate) fn sayings(message: &Message<'_>) -> Result<Vec<Saying>, String> {
    let read = |(body, is_binary): (&[u8], bool)| {
        let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
        let kind = if is_binary { "b " } else { "t " };
        let saying = text.strip_prefix(kind).and_then(Saying::parse);
        saying.ok_or_else(|| format!("nobody has said {text:?}, binary: {is_binary}"))
    };
    message.bodies.map(read).collect()
}

impl Talk {
    /// A worker sends a message off. How many are in it.
    ///
    /// # Errors
    ///
    /// It is not the one that was to come.
    pub(crate) fn handle_sent(
        &mut self,
        id: &Bytes,
        message: &Message<'_>,
    ) -> Result<usize, String> {
        let sayings = sayings(message)?;
        let last = self.sent.entry(id.clone()).or_default();
        let (number, serial) = *last;
        let goes_on = sayings.iter().zip(serial + 1..).all(|(said, serial)| said.serial == serial);
        if message.number != number + 1 || !goes_on || sayings.is_empty() {
            return Err(format!("message {message:?} of {id:?} is sent off behind {last:?}"));
        }
        *last = (message.number, serial + sayings.len() as u64);
        Ok(sayings.len())
    }

    /// The hub gives a message to a handler.
    ///
    /// # Errors
    ///
    /// It passes over one, goes back, or changes it.
    pub(crate) fn handle_routed(
        &mut self,
        id: &Bytes,
        number: u64,
        packet: &Bytes,
    ) -> Result<(), String> {
        let last = self.routed.entry(id.clone()).or_default();
        let is_same = number == last.0 && *packet == last.1;
        if !is_same && number != last.0 + 1 {
            return Err(format!("message {number} of {id:?} is given behind {last:?}"));
        }
        *last = (number, packet.clone());
        Ok(())
    }

    /// A handler answers. Whether somebody has already.
    pub(crate) fn handle_answer(&mut self, key: &MessageKey, handler: usize) -> Already {
        match self.answered.get(key) {
            Some(first) if *first == handler => Already { by_itself: true, by_another: false },
            Some(_) => Already { by_itself: false, by_another: true },
            None => {
                self.answered.insert(key.clone(), handler);
                Already::default()
            }
        }
    }

    /// A message will have no answer.
    pub(crate) fn refuse(&mut self, id: Bytes) {
        self.refused.insert(id);
    }

    /// Whether it may be that.
    pub(crate) fn is_refused(&self, id: &Bytes) -> bool {
        self.refused.contains(id)
    }

    /// The last serial that a worker has sent off for a session.
    pub(crate) fn last_sent(&self, id: &Bytes) -> u64 {
        self.sent.get(id).map_or(0, |(_, serial)| *serial)
    }
}
