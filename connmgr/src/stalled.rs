//! Packets for handlers that take nothing for now.
//!
//! The queue of a peer is bounded (`bus/`). What is refused there waits here, in order, and is tried again, so a stuck
//! handler delays no other. The workers are told at once that it is stuck, and read no more bodies for it, so what comes
//! here is what was under way, and small packets: credits, keep-alives, cancels. Beyond [`STALLED_BYTES_MAX`] a piece of a
//! body is not kept: its session is over, and both sides hear of it. No packet is left out in silence, as the next one
//! of its session could not be right then; only past [`CONTROL_BYTES_MAX`], with a handler that has been stuck for longer
//! than sessions live, nothing is kept any more.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use forebay_core::ShortText;
use forebay_core::hub::HandlerId;
use zhttp::{Kind, Packet};

use crate::bus::Refused;

/// Bytes that wait for one handler, beyond what its queue holds. A session whose piece comes then is given up. This is the
/// memory that a stuck handler costs until it goes on, its connection is lost or its sessions have timed out.
const STALLED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The same for packets that are not pieces of bodies, which come after those; past it they are dropped.
const CONTROL_BYTES_MAX: usize = STALLED_BYTES_MAX + 16 * 1024 * 1024;

/// What became of a packet for a handler that is stuck.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Kept {
    /// It waits.
    Yes,
    /// It was a piece of this session's body, or what its client has said, and is lost.
    Undelivered(ShortText),
    /// It is lost.
    Dropped,
}

/// What waits for one handler.
#[derive(Debug, Default)]
struct Waiting {
    packets: VecDeque<Bytes>,
    bytes: usize,
}

/// What became of the handlers that were tried again.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Retried {
    /// They take packets again.
    pub(crate) flowing: Vec<HandlerId>,
    /// They are gone.
    pub(crate) lost: Vec<HandlerId>,
    /// How many packets were tried.
    pub(crate) sends: usize,
}

/// The handlers that take nothing.
#[derive(Debug, Default)]
pub(crate) struct Stalled {
    handlers: HashMap<HandlerId, Waiting>,
}

impl Stalled {
    pub(crate) fn is_empty(&self) -> bool {
        self.handlers.is_empty()
    }

    /// Whether packets for this handler have to wait behind others.
    pub(crate) fn is_stalled(&self, handler: &HandlerId) -> bool {
        self.handlers.contains_key(handler)
    }

    /// Keeps a packet for a handler that takes nothing.
    pub(crate) fn keep(&mut self, handler: &HandlerId, packet: Bytes) -> Kept {
        let waiting = self.handlers.entry(handler.clone()).or_default();
        let bytes = waiting.bytes + packet.len();
        if bytes > STALLED_BYTES_MAX {
            if let Some(id) = session_of_piece(&packet) {
                return Kept::Undelivered(id);
            }
            if bytes > CONTROL_BYTES_MAX {
                return Kept::Dropped;
            }
        }
        waiting.bytes = bytes;
        waiting.packets.push_back(packet);
        Kept::Yes
    }

    /// A handler is gone. Says whether anything waited for it.
    pub(crate) fn remove(&mut self, handler: &HandlerId) -> bool {
        self.handlers.remove(handler).is_some()
    }

    /// Tries all again, for each handler in order, until it takes no more.
    pub(crate) fn retry(
        &mut self,
        mut send: impl FnMut(&HandlerId, Bytes) -> Result<(), Refused>,
    ) -> Retried {
        let mut retried = Retried::default();
        self.handlers.retain(|handler, waiting| {
            while let Some(packet) = waiting.packets.pop_front() {
                retried.sends += 1;
                waiting.bytes -= packet.len();
                match send(handler, packet) {
                    Ok(()) => {}
                    Err(Refused::Full(packet)) => {
                        waiting.bytes += packet.len();
                        waiting.packets.push_front(packet);
                        return true;
                    }
                    Err(Refused::NoPeer(_)) => {
                        retried.lost.push(handler.clone());
                        return false;
                    }
                }
            }
            retried.flowing.push(handler.clone());
            false
        });
        retried
    }
}

/// The session that a packet brings a piece of a body of; `None` if it is another packet.
fn session_of_piece(packet: &[u8]) -> Option<ShortText> {
    let mut packet = Packet::parse(packet).ok()?;
    if !matches!(packet.kind, Kind::Data | Kind::Message) {
        return None;
    }
    ShortText::new(packet.ids.next()?.id)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use zhttp::{Envelope, Id};

    fn handler(name: &str) -> HandlerId {
        name.as_bytes().into()
    }

    fn packet(kind: Kind, body_bytes: usize) -> Bytes {
        let ids = [Id { id: b"0-1-2", seq: Some(7) }];
        let mut out = Vec::new();
        let body = vec![b'x'; body_bytes];
        Envelope { from: b"edge", ids: &ids, kind, multi: true }
            .write(&mut out, |fields| fields.bytes("body", &body));
        out.into()
    }

    #[test]
    fn what_waits_goes_in_order_and_holds_up_nobody_else() {
        let mut stalled = Stalled::default();
        let (slow, gone, quick) = (handler("slow"), handler("gone"), handler("quick"));
        for number in 0..5u8 {
            for handler in [&slow, &gone, &quick] {
                assert_eq!(stalled.keep(handler, vec![number].into()), Kept::Yes);
            }
        }
        let mut sent = Vec::new();
        let mut room = 2;
        let mut retried = stalled.retry(|handler, packet| {
            if *handler == gone {
                return Err(Refused::NoPeer(packet));
            }
            if *handler == slow && room == 0 {
                return Err(Refused::Full(packet));
            }
            room -= usize::from(*handler == slow);
            sent.push((handler.clone(), packet[0]));
            Ok(())
        });
        let of = |name: &HandlerId| {
            sent.iter().filter(|(to, _)| to == name).map(|(_, number)| *number).collect::<Vec<_>>()
        };
        assert_eq!((of(&slow), of(&quick)), (vec![0, 1], vec![0, 1, 2, 3, 4]));
        assert_eq!((retried.flowing.pop(), retried.lost.pop()), (Some(quick.clone()), Some(gone)));
        assert!(stalled.is_stalled(&slow) && !stalled.is_stalled(&quick));
        let mut rest = Vec::new();
        let retried = stalled.retry(|_, packet| {
            rest.push(packet[0]);
            Ok(())
        });
        assert_eq!((rest, retried.flowing), (vec![2, 3, 4], vec![slow]));
        assert!(stalled.is_empty());
    }

    #[test]
    fn past_the_limit_sessions_end_but_are_told_so() {
        let mut stalled = Stalled::default();
        let stuck = handler("stuck");
        let piece = packet(Kind::Data, 1024 * 1024);
        let mut kept = 0;
        let lost = loop {
            match stalled.keep(&stuck, piece.clone()) {
                Kept::Yes => kept += piece.len(),
                other => break other,
            }
        };
        assert_eq!(lost, Kept::Undelivered(ShortText::new(b"0-1-2").unwrap()));
        assert!(kept <= STALLED_BYTES_MAX && kept + piece.len() > STALLED_BYTES_MAX);
        let lost = stalled.keep(&stuck, packet(Kind::Message, 1024 * 1024));
        assert_eq!(lost, Kept::Undelivered(ShortText::new(b"0-1-2").unwrap()));
        let cancel = packet(Kind::Cancel, 0);
        assert_eq!(stalled.keep(&stuck, cancel), Kept::Yes);
        let large = packet(Kind::Credit, CONTROL_BYTES_MAX - STALLED_BYTES_MAX);
        assert_eq!(stalled.keep(&stuck, large.clone()), Kept::Yes);
        assert_eq!(stalled.keep(&stuck, large), Kept::Dropped);
        assert!(stalled.remove(&stuck) && !stalled.remove(&stuck));
    }
}
