//! Session ids: `{worker}-{slot}-{counter}`, the counter in hexadecimal, as Condure makes them.
//! Opaque to everybody else; to the edge they say where to look.

use std::fmt;

/// The id of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId {
    /// The worker that has the connection.
    pub worker: u16,
    /// The place of the connection in the worker's table.
    pub slot: u32,
    /// Counts the sessions of the worker, so that no id comes twice.
    pub counter: u64,
}

impl SessionId {
    /// Parses an id; `None` if it is none of ours.
    pub fn parse(id: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(id).ok()?.splitn(3, '-');
        let worker = parts.next()?.parse().ok()?;
        let slot = parts.next()?.parse().ok()?;
        let counter = u64::from_str_radix(parts.next()?, 16).ok()?;
        Some(SessionId { worker, slot, counter })
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:x}", self.worker, self.slot, self.counter)
    }
}
