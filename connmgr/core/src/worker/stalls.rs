//! Handlers that take nothing, and the uploads that wait for them.
//!
//! What goes to a handler waits in a queue; when that is full the hub says so ([`FromHub::Stalled`](crate::hub::FromHub)),
//! and from then on what clients send for the handler stays with them: their bytes fill the connection's buffer, then the
//! socket's, and TCP tells the client. When the handler goes on, so do they, from exactly where they were. So a handler
//! that stops for a while loses nothing and costs no more memory than its queue and these buffers; only bodies and the
//! messages of WebSockets wait, while credits, keep-alives and cancels, which are small, go on into the queue.

use std::collections::BTreeMap;

use super::connection::State;
use super::{Transport, Worker};
use crate::hub::HandlerId;
use crate::slab::Key;

/// The handlers that take nothing; for each the connections that have something for it.
#[derive(Debug, Default)]
pub(super) struct Stalls {
    waiting: BTreeMap<HandlerId, Vec<Key>>,
}

impl Stalls {
    /// A handler takes nothing from now on.
    pub(super) fn handle_stalled(&mut self, handler: &HandlerId) {
        self.waiting.entry(handler.clone()).or_default();
    }

    /// It takes something again. Says who has waited for that.
    pub(super) fn handle_flowing(&mut self, handler: &HandlerId) -> Vec<Key> {
        self.waiting.remove(handler).unwrap_or_default()
    }

    /// Those who wait for a handler; `None` if it takes what comes.
    fn waiting_for(&mut self, handler: &HandlerId) -> Option<&mut Vec<Key>> {
        // There is hardly ever any.
        if self.waiting.is_empty() { None } else { self.waiting.get_mut(handler) }
    }
}

impl Worker {
    /// Whether the body of a request has to wait, because its handler takes nothing. Then it is remembered.
    pub(super) fn must_wait(&mut self, key: Key) -> bool {
        let State::Exchange(exchange) = &mut self.connections[key.index].state else {
            return false;
        };
        let Some(handler) = exchange.session.handler() else { return false };
        let Some(waiting) = self.stalls.waiting_for(handler) else { return false };
        if exchange.waits_for.as_ref() != Some(handler) {
            exchange.waits_for = Some(handler.clone());
            waiting.push(key);
        }
        true
    }

    /// A handler takes something again that the body of a request has waited for.
    pub(super) fn resume_upload(
        &mut self,
        now_ms: u64,
        transport: &mut impl Transport,
        key: Key,
        handler: &HandlerId,
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let State::Exchange(exchange) = &mut connection.state else { return };
        // It may be with another one by now, and wait for that.
        exchange.waits_for.take_if(|waited| waited == handler);
        self.process_input(now_ms, transport, key);
    }
}
