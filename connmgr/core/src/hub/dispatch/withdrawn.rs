//! The handlers that a request was taken from, and what they may still do about it.
//!
//! One whose ttl has passed may be late rather than dead: its connection lives, so it has the request, or will have, and
//! may answer it any time. It is not given it again: it would take the second one for a repetition of the first, and what
//! it had said of the first would be missing. But as long as nobody else has answered, its answer is as good as any, and
//! if nobody has the request when it is heard of again, it is its own. Only when its connection is lost, or it was started
//! anew, has it forgotten the request for certain; then it is as good as any other.

use crate::hub::HandlerId;
use crate::hub::presence::Presence;

/// One entry for each time that it was taken from somebody.
#[derive(Clone, Debug, Default)]
pub(in crate::hub) struct Withdrawn {
    formers: Vec<Former>,
}

#[derive(Clone, Debug)]
struct Former {
    handler: HandlerId,
    /// In which of its lives it has the request, unless that is over.
    incarnation: Option<u64>,
    /// It has said something about it, which was not heard.
    has_spoken: bool,
}

impl Former {
    /// Whether it has the request still, as far as is known. Who is there in another life has not.
    fn may_answer(&self, presence: &Presence) -> bool {
        let is_another = |now| Some(now) != self.incarnation;
        let has_forgotten = presence.incarnation(&self.handler).is_some_and(is_another);
        self.incarnation.is_some() && !self.has_spoken && !has_forgotten
    }

    fn is_there(&self, presence: &Presence) -> bool {
        self.incarnation.is_some() && self.incarnation == presence.incarnation(&self.handler)
    }
}

impl Withdrawn {
    /// How often it was taken from somebody, but for those who got it back.
    pub(super) fn len(&self) -> usize {
        self.formers.len()
    }

    pub(in crate::hub) fn is_empty(&self) -> bool {
        self.formers.is_empty()
    }

    /// Whether it was taken from this one.
    pub(super) fn contains(&self, handler: &[u8]) -> bool {
        self.formers.iter().any(|former| *former.handler == *handler)
    }

    /// It is taken from a handler; `incarnation` is that in which it still has it.
    pub(super) fn add(&mut self, handler: HandlerId, incarnation: Option<u64>) {
        self.formers.push(Former { handler, incarnation, has_spoken: false });
    }

    /// A handler has forgotten all requests.
    pub(super) fn handle_gone(&mut self, handler: &[u8]) {
        for former in self.formers.iter_mut().filter(|former| *former.handler == *handler) {
            former.incarnation = None;
        }
    }

    /// A handler has said something about the request that was not heard, and is told to stop.
    pub(super) fn handle_unheard(&mut self, handler: &[u8]) {
        for former in self.formers.iter_mut().filter(|former| *former.handler == *handler) {
            former.has_spoken = true;
        }
    }

    /// A handler has the request after all, if it is one that still has it. In which of its lives.
    pub(super) fn give_back(
        &mut self,
        handler: &[u8],
        presence: &Presence,
    ) -> Option<(HandlerId, u64)> {
        let has = |former: &Former| *former.handler == *handler && former.may_answer(presence);
        let index = self.formers.iter().position(has)?;
        let Former { handler, incarnation, .. } = self.formers.remove(index);
        Some((handler, incarnation?))
    }

    /// One that still has it, and is heard of again.
    pub(super) fn holder(&self, presence: &Presence) -> Option<HandlerId> {
        let holds = |former: &&Former| former.may_answer(presence) && former.is_there(presence);
        self.formers.iter().find(holds).map(|former| former.handler.clone())
    }

    /// Whether a handler that is there is not to be given it again.
    pub(in crate::hub) fn bars(&self, handler: &[u8], presence: &Presence) -> bool {
        let bars = |former: &Former| *former.handler == *handler && former.is_there(presence);
        self.formers.iter().any(bars)
    }
}
