//! Flow of one session: sequence numbers and credits in both directions (`zhttp-spec/zhttp.md` §6,
//! §7).
//!
//! A machine without I/O. The edge's task tells it what came; the request's task takes what it may
//! send and what it may read. Bytes of the request's body are kept here between the two, never more
//! than were granted: whoever is slow to read is slow to grant, so nothing piles up.
//!
//! Pieces are joined as they come instead of queued: a queue of pieces would be bounded in bytes,
//! but not in number.

use bytes::{Bytes, BytesMut};

/// Bytes of a request's body that are granted ahead of what the handler has read. This is also what
/// a session keeps at most; a whole upload at this size costs one round trip for each half of it.
pub(super) const BODY_CREDITS: usize = 64 * 1024;

/// The edge broke a rule of the session, which cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    /// A packet was lost, or came twice (§6).
    #[error("packet {came} came in the place of packet {expected}")]
    Sequence { expected: u32, came: u32 },
    /// More body than was granted (§7).
    #[error("{excess} bytes of body more than were granted")]
    Overrun { excess: usize },
}

/// The session is over: its client has left, or its edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub(super) struct Gone;

/// The machine.
#[derive(Debug)]
pub(super) struct Flow {
    /// The number of the edge's next packet.
    seq_next: u32,
    /// Bytes of the response that the edge takes now.
    credits: usize,
    /// What came of the request's body and was not read yet.
    body: BytesMut,
    /// Bytes of the request's body that were granted and have not come yet.
    granted: usize,
    /// The request's body goes on.
    more: bool,
    gone: bool,
}

impl Flow {
    /// A session whose first packet has come: with its number, credits and body.
    pub(super) fn new(seq: Option<u32>, credits: u32, body: &[u8], more: bool) -> Self {
        Flow {
            seq_next: seq.unwrap_or(0).wrapping_add(1),
            credits: credits as usize,
            body: BytesMut::from(body),
            granted: 0,
            more,
            gone: false,
        }
    }

    /// Counts a packet of the edge. One without a number is neither checked nor counted.
    pub(super) fn handle_seq(&mut self, seq: Option<u32>) -> Result<(), Fault> {
        let Some(came) = seq else { return Ok(()) };
        let expected = self.seq_next;
        self.seq_next = expected.wrapping_add(1);
        if came == expected { Ok(()) } else { Err(Fault::Sequence { expected, came }) }
    }

    /// The edge takes more of the response.
    pub(super) fn handle_credits(&mut self, credits: u32) {
        self.credits = self.credits.saturating_add(credits as usize);
    }

    /// A piece of the request's body. What comes after its end is ignored.
    pub(super) fn handle_body(&mut self, piece: &[u8], more: bool) -> Result<(), Fault> {
        if !self.more {
            return Ok(());
        }
        let Some(granted) = self.granted.checked_sub(piece.len()) else {
            return Err(Fault::Overrun { excess: piece.len() - self.granted });
        };
        self.granted = granted;
        self.body.extend_from_slice(piece);
        self.more = more;
        Ok(())
    }

    /// The session is over. Nothing more can be taken.
    pub(super) fn handle_gone(&mut self) {
        self.gone = true;
    }

    /// Takes what has come of the request's body; the flag says that it goes on.
    pub(super) fn take_body(&mut self) -> Result<(Bytes, bool), Gone> {
        if self.gone {
            return Err(Gone);
        }
        Ok((self.body.split().freeze(), self.more))
    }

    /// Grants what keeps the window full, once half of it is used up. To be sent as credits.
    pub(super) fn take_grant(&mut self) -> Option<u32> {
        let ahead = self.granted + self.body.len();
        if !self.more || self.gone || ahead > BODY_CREDITS / 2 {
            return None;
        }
        let grant = BODY_CREDITS - ahead;
        self.granted += grant;
        // Below 2^32, as the window is.
        u32::try_from(grant).ok()
    }

    /// A grant that could not be sent.
    pub(super) fn give_back_grant(&mut self, grant: u32) {
        self.granted = self.granted.saturating_sub(grant as usize);
    }

    /// Takes up to `wanted` bytes of what the edge takes now; 0 if it takes nothing.
    pub(super) fn take_credits(&mut self, wanted: usize) -> Result<usize, Gone> {
        if self.gone {
            return Err(Gone);
        }
        let taken = wanted.min(self.credits);
        self.credits -= taken;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn packets_are_counted_by_their_numbers() {
        let mut flow = Flow::new(Some(0), 0, b"", false);
        flow.handle_seq(Some(1)).unwrap();
        flow.handle_seq(None).unwrap();
        flow.handle_seq(Some(2)).unwrap();
        let fault = Fault::Sequence { expected: 3, came: 6 };
        assert_eq!(flow.handle_seq(Some(6)), Err(fault));
        let mut flow = Flow::new(Some(u32::MAX), 0, b"", false);
        flow.handle_seq(Some(0)).unwrap();
    }

    #[test]
    fn the_window_is_renewed_when_half_of_it_is_used() {
        let mut flow = Flow::new(None, 0, b"", true);
        assert_eq!(flow.take_grant(), Some(BODY_CREDITS as u32));
        assert_eq!(flow.take_grant(), None);
        let half = vec![b'x'; BODY_CREDITS / 2];
        flow.handle_body(&half, true).unwrap();
        // It has come, but was not read.
        assert_eq!(flow.take_grant(), None);
        assert_eq!(flow.take_body().unwrap(), (half.into(), true));
        assert_eq!(flow.take_grant(), Some(BODY_CREDITS as u32 / 2));
    }

    #[test]
    fn a_body_is_whole_with_the_first_piece_that_says_so() {
        let mut flow = Flow::new(None, 0, b"a", true);
        flow.take_grant();
        flow.handle_body(b"b", true).unwrap();
        flow.handle_body(b"", false).unwrap();
        flow.handle_body(b"after the end", true).unwrap();
        assert_eq!(flow.take_body().unwrap(), ("ab".into(), false));
        assert_eq!(flow.take_grant(), None);
    }

    #[test]
    fn more_than_was_granted_is_a_fault() {
        let mut flow = Flow::new(None, 0, b"", true);
        assert_eq!(flow.handle_body(b"x", true), Err(Fault::Overrun { excess: 1 }));
        let grant = flow.take_grant().unwrap();
        flow.give_back_grant(grant);
        assert_eq!(flow.handle_body(b"x", true), Err(Fault::Overrun { excess: 1 }));
    }

    #[test]
    fn credits_are_taken_as_far_as_they_go() {
        let mut flow = Flow::new(None, 5, b"", false);
        assert_eq!(flow.take_credits(3), Ok(3));
        assert_eq!(flow.take_credits(3), Ok(2));
        assert_eq!(flow.take_credits(3), Ok(0));
        flow.handle_credits(u32::MAX);
        assert_eq!(flow.take_credits(3), Ok(3));
        flow.handle_gone();
        assert_eq!(flow.take_credits(3), Err(Gone));
        assert_eq!(flow.take_body(), Err(Gone));
    }
}
