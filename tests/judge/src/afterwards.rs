//! A history that is put together when all is over.
//!
//! Nobody stands beside real servers and notes each append. What can be had afterwards is what the store holds, what
//! publishers were told, and what readers saw. From these the history follows, as a log only grows, but for a fail-over
//! that loses its end: whatever was acknowledged or seen and is not there in the end, was lost, and by the time that the
//! event was appended that is behind it.
//!
//! So nothing may have been trimmed: the store must be told to keep all.

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::{History, Id, Record};

/// When an event was acknowledged, in such a history: at some time.
pub(crate) const ACKNOWLEDGED_MS: u64 = 0;

/// What is known of an event.
#[derive(Clone, Debug)]
pub struct Known {
    /// What it follows, if that is known.
    pub prev: Option<Id>,
    /// It ends its epoch.
    pub end: bool,
    /// It is about the stream itself.
    pub control: bool,
    /// What readers get.
    pub data: Rc<str>,
    /// A publisher was told of it.
    pub acknowledged: bool,
    /// The store holds it.
    pub kept: bool,
}

impl History {
    /// Writes down the history of a channel that has none yet, and whose log began in the epoch `born`.
    ///
    /// # Errors
    ///
    /// What the store holds is no log: something in its middle is missing.
    pub fn reconstruct(
        &mut self,
        channel: usize,
        born: u64,
        known: &BTreeMap<Id, Known>,
    ) -> Result<(), String> {
        let mut head = Id::START;
        let mut lost_since = None;
        for (&id, event) in known {
            let in_epoch = (id.offset > 1).then(|| id.before());
            let prev = event.prev.or(in_epoch).unwrap_or(head);
            if event.kept {
                if prev != head && (head.epoch >= born || prev != Id::START) {
                    let name = &self.log(channel).name;
                    return Err(format!("{name} has {id} behind {head}, and says it is behind {prev}"));
                }
                if lost_since.take().is_some() {
                    self.fail_over(ACKNOWLEDGED_MS, channel, head);
                }
                head = id;
            } else {
                lost_since = lost_since.or(Some(id));
            }
            let first = known.keys().next().map_or(born, |first| first.epoch);
            self.append(channel, record((id, prev), event, if id.epoch < born { first } else { born }))?;
        }
        if lost_since.is_some() {
            self.fail_over(ACKNOWLEDGED_MS, channel, head);
        }
        Ok(())
    }
}

fn record((id, prev): (Id, Id), event: &Known, born: u64) -> Record {
    Record {
        id,
        prev,
        end: event.end,
        control: event.control,
        data: Rc::clone(&event.data),
        born,
        tick: 0,
        acknowledged_ms: if event.acknowledged { ACKNOWLEDGED_MS } else { u64::MAX },
        is_kept: true,
        is_lost: false,
    }
}
