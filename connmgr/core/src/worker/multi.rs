//! Packets about many sessions: one `keep-alive` or `cancel` for up to [`IDS_MAX`] sessions of one handler
//! (zhttp-spec/zhttp.md §5, §8).
//!
//! What is to be said is collected by handler and written when the collector is asked for it: keep-alives at the end of
//! a turn of the timers, cancels when the worker has nothing else to say. So a thousand clients that leave in one
//! moment cost their handler eight packets, and none of them overtakes a packet that was numbered before it: a
//! `cancel` is the last word of its session, and between a keep-alive and the end of its turn no other packet of that
//! session is numbered but a `cancel`.
//!
//! Keep-alives of one moment would come as a burst, those of random moments one by one. So the places of the
//! worker's table are kept alive in groups of neighbours ([`next_keep_alive_ms`]), and the groups are spread evenly
//! over the period: packets are full, and there is no moment at which all are due.

use std::collections::BTreeMap;

use bytes::Bytes;
use zhttp::{Envelope, IDS_MAX, Id, Kind};

use crate::hub::HandlerId;
use crate::session::SessionId;
use crate::short_text::ShortText;

/// Collects what is to be said of sessions to their handlers. Costs 24 bytes a session until it is said.
#[derive(Debug)]
pub(super) struct Multi {
    kind: Kind,
    sessions: BTreeMap<HandlerId, Vec<(SessionId, u32)>>,
}

impl Multi {
    /// A collector for packets of this kind.
    pub(super) fn new(kind: Kind) -> Self {
        Multi { kind, sessions: BTreeMap::new() }
    }

    /// Adds the packet of that number of a session.
    pub(super) fn add(&mut self, handler: HandlerId, id: SessionId, seq: u32) {
        self.sessions.entry(handler).or_default().push((id, seq));
    }

    /// Writes the next packet, if anything is to be said, and says who is to get it.
    pub(super) fn poll(&mut self, from: &[u8]) -> Option<(HandlerId, Bytes)> {
        let mut entry = self.sessions.first_entry()?;
        let handler = entry.key().clone();
        let waiting = entry.get_mut();
        // From the end, so that no more than these are moved.
        let sessions = waiting.split_off(waiting.len().saturating_sub(IDS_MAX));
        if waiting.is_empty() {
            entry.remove();
        }
        let ids: Vec<(ShortText, u32)> =
            sessions.iter().map(|(id, seq)| (id.text(), *seq)).collect();
        let ids: Vec<Id<'_>> = ids.iter().map(|(id, seq)| Id { id, seq: Some(*seq) }).collect();
        let mut packet = Vec::with_capacity(64 + 32 * ids.len());
        Envelope { from, ids: &ids, kind: self.kind, multi: true }.write(&mut packet, |_| {});
        Some((handler, packet.into()))
    }
}

/// When a session is next to be kept alive that was kept alive at `last_ms`, or began then: within one period, and at
/// the same moment as the other sessions of its group, the [`IDS_MAX`] places around its own. That it is told other
/// things meanwhile doesn't matter: groups stay together, at one packet for 128 sessions.
pub(super) fn next_keep_alive_ms(id: &SessionId, last_ms: u64, period_ms: u64) -> u64 {
    let period_ms = period_ms.max(1);
    let group = u64::from(id.worker) << 32 | u64::from(id.slot / IDS_MAX as u32);
    // Multiples of the golden ratio, modulo 1, leave no large gap however many there are.
    let turn = group.wrapping_mul(GOLDEN_RATIO) >> 32;
    let phase_ms = turn.wrapping_mul(period_ms) >> 32;
    let since_ms = (last_ms % period_ms + period_ms - phase_ms) % period_ms;
    last_ms.saturating_add(period_ms - since_ms)
}

/// The golden ratio's fraction, in units of 2⁻⁶⁴.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use zhttp::Packet;

    fn id(slot: u32) -> SessionId {
        SessionId { worker: 3, slot, counter: 1 }
    }

    #[test]
    fn a_packet_names_at_most_128_sessions_of_one_handler() {
        let mut multi = Multi::new(Kind::Cancel);
        for slot in 0..300 {
            multi.add(b"many"[..].into(), id(slot), slot);
        }
        multi.add(b"one"[..].into(), id(300), 7);
        let mut told = Vec::new();
        let mut counts = Vec::new();
        while let Some((handler, bytes)) = multi.poll(b"edge") {
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!((packet.from, packet.kind), (&b"edge"[..], Kind::Cancel));
            counts.push((handler, packet.ids.count()));
            told.extend(packet.ids.map(|id| (SessionId::parse(id.id).unwrap().slot, id.seq)));
        }
        let many: HandlerId = b"many"[..].into();
        let one: HandlerId = b"one"[..].into();
        assert_eq!(counts, [(many.clone(), 128), (many.clone(), 128), (many, 44), (one, 1)]);
        told.sort_unstable();
        let many = (0..300).map(|slot| (slot, Some(slot)));
        assert_eq!(told, many.chain([(300, Some(7))]).collect::<Vec<_>>());
        assert_eq!(multi.poll(b"edge"), None);
    }

    #[test]
    fn neighbours_are_kept_alive_together_and_groups_apart() {
        let period_ms = 45_000;
        let at = |slot| next_keep_alive_ms(&id(slot), 1_000_000, period_ms);
        for slot in 0..128 {
            assert_eq!(at(slot), at(0));
        }
        // A million sessions: nowhere are more than three groups due within ten milliseconds.
        let mut due: Vec<u64> = (0..7_812).map(|group| at(group * 128)).collect();
        due.sort_unstable();
        let crowd = due.windows(4).filter(|four| four[3] - four[0] < 10).count();
        assert_eq!(crowd, 0);
    }

    #[test]
    fn a_session_is_kept_alive_once_in_each_period() {
        for slot in [0, 128, 4_000] {
            let mut told_ms = 7;
            for _ in 0..5 {
                let next_ms = next_keep_alive_ms(&id(slot), told_ms, 45_000);
                assert!(next_ms > told_ms && next_ms <= told_ms + 45_000);
                assert_eq!(next_keep_alive_ms(&id(slot), next_ms - 1, 45_000), next_ms);
                assert_eq!(next_keep_alive_ms(&id(slot), next_ms, 45_000), next_ms + 45_000);
                told_ms = next_ms;
            }
        }
        assert_eq!(next_keep_alive_ms(&id(0), u64::MAX, 45_000), u64::MAX);
    }
}
