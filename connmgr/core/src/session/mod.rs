//! A ZHTTP session in stream mode: one request and its answer, as the two sides count it.
//!
//! A session begins with the request packet. Whoever answers first is its handler; a packet from
//! another one takes it over, as a handoff does. Each direction has sequence numbers from 0, and
//! credits: bytes of body that the other side takes. What HTTP makes of the packets, and when a
//! session is given up, is the worker's business; here is the arithmetic (zhttp-spec/zhttp.md).

mod handler_ids;
mod id;

use zhttp::{Envelope, Fields, Id, Kind};

pub use handler_ids::HandlerIds;
pub use id::SessionId;

use crate::hub::HandlerId;

/// A packet whose number is not the one that is due: something was lost, or comes twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("packet {got} of the session came when {want} was due")]
pub struct BadSeq {
    /// The number that was due.
    pub want: u32,
    /// The number that came.
    pub got: u32,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    handler: Option<HandlerId>,
    /// The number of the next packet from the handler.
    seq_in: u32,
    /// The number of the next packet to the handler.
    seq_out: u32,
    /// Bytes of the request's body that the handler still takes.
    credits_out: u32,
    /// Bytes of the response's body that came and whose credits were not given back.
    owed: u32,
    /// Bytes of the response's body that the handler may still send.
    granted: u32,
}

impl Session {
    /// A session whose request packet is about to be written.
    pub fn new(id: SessionId, credits: u32) -> Self {
        Session {
            id,
            handler: None,
            seq_in: 0,
            seq_out: 0,
            credits_out: 0,
            owed: 0,
            granted: credits,
        }
    }

    /// Its id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Whose it is; `None` until somebody has answered.
    pub fn handler(&self) -> Option<&HandlerId> {
        self.handler.as_ref()
    }

    /// Takes the number and the sender of a packet.
    ///
    /// # Errors
    ///
    /// The number is not the one that is due. A packet without a number is always due, and counts for nothing.
    pub fn handle_packet(
        &mut self,
        handlers: &mut HandlerIds,
        from: &[u8],
        seq: Option<u32>,
    ) -> Result<(), BadSeq> {
        // Whoever it is, it is to hear what is wrong.
        self.handle_sender(handlers, from);
        let Some(got) = seq else { return Ok(()) };
        if got != self.seq_in {
            return Err(BadSeq { want: self.seq_in, got });
        }
        self.seq_in = self.seq_in.wrapping_add(1);
        Ok(())
    }

    /// Whoever speaks of a session has it from then on; if it does not say who it is, nothing changes.
    pub fn handle_sender(&mut self, handlers: &mut HandlerIds, from: &[u8]) {
        if !from.is_empty() && self.handler.as_deref() != Some(from) {
            self.handler = Some(handlers.shared(from));
        }
    }

    /// The handler has given the session away: it is nobody's until another one speaks.
    pub fn release(&mut self) {
        self.handler = None;
    }

    /// Writes a packet about this session alone, with its number, behind what is in `out`.
    pub fn write(
        &mut self,
        (from, kind): (&[u8], Kind),
        out: &mut Vec<u8>,
        ext: impl FnOnce(&mut Fields<'_, '_>),
        payload: impl FnOnce(&mut Fields<'_, '_>),
    ) {
        let id = self.id.text();
        let ids = [Id { id: &id, seq: Some(self.next_seq()) }];
        Envelope { from, ids: &ids, kind, multi: true }.write_ext(out, ext, payload);
    }

    /// The number of a packet that is about to be sent.
    pub fn next_seq(&mut self) -> u32 {
        let seq = self.seq_out;
        self.seq_out = self.seq_out.wrapping_add(1);
        seq
    }

    /// The handler takes more of the request's body.
    pub fn add_credits(&mut self, credits: u32) {
        self.credits_out = self.credits_out.saturating_add(credits);
    }

    /// Bytes of the request's body that may be sent.
    pub fn credits(&self) -> usize {
        self.credits_out as usize
    }

    /// Bytes of the request's body are sent.
    pub fn spend(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.credits());
        self.credits_out =
            self.credits_out.saturating_sub(u32::try_from(bytes).unwrap_or(u32::MAX));
    }

    /// Bytes of the response's body came. Says whether the handler was allowed to send them; if not,
    /// the session is over.
    pub fn receive(&mut self, bytes: usize) -> bool {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let Some(granted) = self.granted.checked_sub(bytes) else { return false };
        self.granted = granted;
        self.owed += bytes;
        true
    }

    /// Checks that no credit of the answer was lost or made: `credits` is what was granted first.
    #[doc(hidden)]
    pub fn check_invariants(&self, credits: u32) {
        assert_eq!(self.owed.checked_add(self.granted), Some(credits), "credits go round");
    }

    /// The credits to give back when `unsent` bytes wait for the client; 0 is none.
    pub fn repay(&mut self, unsent: usize) -> u32 {
        let repaid = self.owed.saturating_sub(u32::try_from(unsent).unwrap_or(u32::MAX));
        self.owed -= repaid;
        self.granted += repaid;
        repaid
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use zhttp::Packet;

    fn session() -> Session {
        Session::new(SessionId { worker: 2, slot: 7, counter: 0x1f }, 100)
    }

    #[test]
    fn numbers_are_optional_on_input_but_checked() {
        let (mut session, mut handlers) = (session(), HandlerIds::default());
        session.handle_packet(&mut handlers, b"a", Some(0)).unwrap();
        session.handle_packet(&mut handlers, b"a", None).unwrap();
        assert_eq!(
            session.handle_packet(&mut handlers, b"a", Some(2)),
            Err(BadSeq { want: 1, got: 2 })
        );
        session.handle_packet(&mut handlers, b"", Some(1)).unwrap();
        assert_eq!(session.handler().map(|id| &**id), Some(&b"a"[..]));
        session.handle_packet(&mut handlers, b"b", Some(2)).unwrap();
        assert_eq!(session.handler().map(|id| &**id), Some(&b"b"[..]));
        session.release();
        assert_eq!(session.handler(), None);
    }

    #[test]
    fn packets_are_numbered() {
        let mut session = session();
        for seq in 0..3 {
            let mut bytes = Vec::new();
            session.write((b"edge", Kind::KeepAlive), &mut bytes, |_| {}, |_| {});
            let mut packet = Packet::parse(&bytes).unwrap();
            let id = packet.ids.next().unwrap();
            assert_eq!((id.id, id.seq), (&b"2-7-1f"[..], Some(seq)));
            assert_eq!(
                SessionId::parse(id.id),
                Some(SessionId { worker: 2, slot: 7, counter: 0x1f })
            );
        }
    }

    #[test]
    fn what_is_flushed_is_repaid_once() {
        let mut session = session();
        assert!(session.receive(60));
        assert_eq!(session.repay(60), 0);
        assert_eq!(session.repay(20), 40);
        assert_eq!(session.repay(20), 0);
        assert!(session.receive(80));
        assert!(!session.receive(1), "only 80 were left");
        assert_eq!(session.repay(0), 100);
        session.check_invariants(100);
    }
}
