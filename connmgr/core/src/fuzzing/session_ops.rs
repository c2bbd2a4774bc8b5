//! Session ids against a naive reader, and the numbers of a session against sums.

use zhttp::Kind;
use zhttp::fuzzing::Choices;

use crate::session::{HandlerIds, Session, SessionId};

/// Credits that the edge grants first.
const CREDITS: u32 = 1_000;

/// What a session should be.
#[derive(Default)]
struct Oracle {
    handler: Option<Vec<u8>>,
    packets_in: u32,
    packets_out: u32,
    credits: u64,
    /// Bytes of the answer that came, and those that were repaid.
    received: u64,
    repaid: u64,
}

/// The bytes as the text of an id, and as what happens to a session.
///
/// # Panics
///
/// If it is not what the naive one says.
pub fn fuzz(bytes: &[u8]) {
    let parsed = SessionId::parse(bytes);
    assert_eq!(parsed, naive_id(bytes), "{}", bytes.escape_ascii());
    if let Some(id) = parsed {
        assert_eq!(id.to_string().as_bytes(), bytes, "one text for each id");
    }
    let mut choices = Choices::new(bytes);
    let id = SessionId {
        worker: choices.number() as u16,
        slot: choices.number() as u32,
        counter: choices.number(),
    };
    assert_eq!(SessionId::parse(id.to_string().as_bytes()), Some(id));
    let mut session = Session::new(id, CREDITS);
    let mut oracle = Oracle::default();
    while !choices.is_over() {
        oracle.apply(&mut session, &mut choices);
        oracle.check(&session);
    }
}

/// Lets the standard library read the numbers, and then looks whether that is how they are written.
fn naive_id(bytes: &[u8]) -> Option<SessionId> {
    let text = std::str::from_utf8(bytes).ok()?;
    let [worker, slot, counter] = text.split('-').collect::<Vec<_>>().try_into().ok()?;
    let id = SessionId {
        worker: worker.parse().ok()?,
        slot: slot.parse().ok()?,
        counter: u64::from_str_radix(counter, 16).ok()?,
    };
    (format!("{}-{}-{:x}", id.worker, id.slot, id.counter) == text).then_some(id)
}

impl Oracle {
    fn apply(&mut self, session: &mut Session, choices: &mut Choices<'_>) {
        match choices.index(6) {
            0 => {
                let from = choices.one_of(&[&b"a"[..], b"b", b""]);
                let seq = match choices.index(4) {
                    0 => None,
                    1 => Some(choices.number() as u32),
                    _ => Some(self.packets_in),
                };
                if !from.is_empty() {
                    self.handler = Some(from.to_vec());
                }
                let is_due = seq.is_none_or(|seq| seq == self.packets_in);
                assert_eq!(
                    session.handle_packet(&mut HandlerIds::default(), from, seq).is_ok(),
                    is_due
                );
                // What has no number takes none.
                self.packets_in += u32::from(is_due && seq.is_some());
            }
            1 => {
                let mut bytes = Vec::new();
                session.write((b"edge", Kind::KeepAlive), &mut bytes, |_| {}, |_| {});
                let packet = zhttp::Packet::parse(&bytes).expect("it was just written");
                let ids: Vec<_> = packet.ids.map(|id| (id.id.to_vec(), id.seq)).collect();
                let id = session.id().to_string().into_bytes();
                assert_eq!(ids, [(id, Some(self.packets_out))]);
                self.packets_out += 1;
            }
            2 => {
                let credits = choices.number() as u32;
                session.add_credits(credits);
                self.credits = (self.credits + u64::from(credits)).min(u32::MAX.into());
            }
            3 => {
                let bytes = choices.number().min(self.credits);
                session.spend(bytes as usize);
                self.credits -= bytes;
            }
            4 => {
                let bytes = choices.number();
                let is_granted = bytes <= u64::from(CREDITS) + self.repaid - self.received;
                assert_eq!(session.receive(bytes as usize), is_granted);
                self.received += if is_granted { bytes } else { 0 };
            }
            _ => {
                let unsent = choices.up_to(u64::from(CREDITS) * 2);
                let due = (self.received - self.repaid).saturating_sub(unsent);
                assert_eq!(u64::from(session.repay(unsent as usize)), due);
                self.repaid += due;
            }
        }
    }

    fn check(&self, session: &Session) {
        session.check_invariants(CREDITS);
        assert_eq!(session.handler().map(|handler| &**handler), self.handler.as_deref());
        assert_eq!(session.credits() as u64, self.credits);
    }
}
