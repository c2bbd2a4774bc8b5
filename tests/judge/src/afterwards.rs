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
                if prev != head {
                    let name = &self.log(channel).name;
                    return Err(format!(
                        "{name} has {id} behind {head}, and says it is behind {prev}"
                    ));
                }
                if lost_since.take().is_some() {
                    self.fail_over(ACKNOWLEDGED_MS, channel, head);
                }
                head = id;
            } else {
                lost_since = lost_since.or(Some(id));
            }
            let first = known.keys().next().map_or(born, |first| first.epoch);
            self.append(
                channel,
                record((id, prev), event, if id.epoch < born { first } else { born }),
            )?;
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::sse::Block;
    use crate::{Reader, Tally};

    const CHANNEL: &str = "1:c";

    fn id(text: &str) -> Id {
        Id::parse(text).unwrap()
    }

    /// Events by their ids: those with a `!` are lost, those with a `?` lost before anybody was told. One that begins an epoch
    /// says what it follows: `9-1<7-2`.
    fn history(events: &[&str]) -> Result<History, String> {
        let mut known = BTreeMap::new();
        for event in events {
            let (text, prev) =
                event.split_once('<').map_or((*event, None), |(a, b)| (a, Some(id(b))));
            let at = id(text.trim_end_matches(['!', '?']));
            let (kept, acknowledged) = (!text.ends_with(['!', '?']), !text.ends_with('?'));
            let data = Rc::from(data(at));
            known.insert(at, Known { prev, end: false, control: false, data, acknowledged, kept });
        }
        let mut history = History::new([CHANNEL.to_owned()].into_iter());
        history.reconstruct(0, 7, &known)?;
        Ok(history)
    }

    fn data(at: Id) -> String {
        format!(r#"{{"channel":"c","n":"{at}"}}"#)
    }

    fn gap(from: &str, to: &str) -> (String, String) {
        let reason = if id(from).epoch < 7 { "trimmed" } else { "recreated" };
        let data = format!(
            r#"{{"control_type":"gap","channel":"c","from":"{from}","to":"{to}","reason":"{reason}"}}"#
        );
        (data, id(to).before().to_string())
    }

    /// What a client gets: ids, or gaps as `7-3>9-1`.
    fn judged(history: &History, came: &[&str]) -> Tally {
        let (mut reader, mut tally) = (Reader::default(), Tally::default());
        reader.come(history, &[0], None);
        for one in came {
            let (kind, (data, at)) = match one.split_once('>') {
                Some((from, to)) => ("control", gap(from, to)),
                None => ("stream", (data(id(one)), (*one).to_owned())),
            };
            let block = Block {
                kind: Some(kind.to_owned()),
                id: Some(at),
                data: Some(data),
                ..Block::default()
            };
            reader.count_block(history, &block, &mut tally);
        }
        tally
    }

    const FAILED_OVER: [&str; 6] = ["7-1<0-0", "7-2", "7-3!", "7-4?", "9-1<7-2", "9-2"];

    #[test]
    fn a_fail_over_is_found_where_the_log_goes_on_before_what_is_known() {
        let history = history(&FAILED_OVER).unwrap();
        assert_eq!(history.lost(), (1, 1));
        assert_eq!(history.log(0).head(), id("9-2"));
        let lost: Vec<Id> = { history.log(0).between(id("7-1"), id("9-1")) }
            .filter(|record| record.is_lost)
            .map(|record| record.id)
            .collect();
        assert_eq!(lost, [id("7-3"), id("7-4")]);
    }

    #[test]
    fn a_log_with_a_hole_is_none() {
        assert!(history(&["7-1<0-0", "7-3"]).is_err());
        assert!(history(&["7-1<0-0", "9-1<7-2"]).is_err());
    }

    #[test]
    fn who_stands_among_what_is_lost_must_be_told() {
        let history = history(&FAILED_OVER).unwrap();
        let at_the_fork = judged(&history, &["7-1", "7-2", "9-1", "9-2"]);
        assert!(at_the_fork.is_clean(), "{at_the_fork:?}");
        assert_eq!((at_the_fork.never_seen, at_the_fork.gaps_lost), (1, 0));
        for beyond in
            [&["7-1", "7-2", "7-3", "7-3>9-1", "9-1"][..], &["7-1", "7-2", "7-3", "7-4", "7-4>9-1"]]
        {
            let told = judged(&history, beyond);
            assert!(told.is_clean() && told.gaps_lost == 1, "{told:?}");
        }
        let untold = judged(&history, &["7-1", "7-2", "7-3", "9-1", "9-2"]);
        assert_eq!((untold.unsignalled, untold.holes, untold.others), (1, 0, 0), "{untold:?}");
    }

    #[test]
    fn who_is_beyond_the_end_may_be_led_back_and_nobody_else() {
        let history = history(&FAILED_OVER).unwrap();
        let back = judged(&history, &["7-1", "7-2", "7-3", "7-3>7-3", "9-1"]);
        assert!(back.is_clean() && back.gaps_lost == 1, "{back:?}");
        let kept = judged(&history, &["7-1", "7-2", "9-1", "9-1>7-3", "9-1"]);
        assert_ne!(kept.others, 0, "{kept:?}");
    }

    #[test]
    fn repeats_and_holes_are_counted_one_by_one() {
        let history = history(&FAILED_OVER).unwrap();
        let tally = judged(&history, &["7-1", "7-1", "9-2", "9-1"]);
        assert_eq!((tally.repeats, tally.holes), (2, 2), "{tally:?}");
        let untrue = judged(&history, &["7-1", "7-1>9-1", "9-1"]);
        assert_eq!((untrue.astray, untrue.holes, untrue.others), (1, 0, 0), "{untrue:?}");
    }

    #[test]
    fn the_log_of_a_master_that_was_none_hides_nothing() {
        // Two servers took appends: the one that was lost began a later epoch.
        let history = history(&["7-1<0-0", "8-1<7-1", "8-2", "9-1!<7-1", "10-1<8-2"]).unwrap();
        let astray = judged(&history, &["7-1", "9-1", "9-1>10-1", "10-1"]);
        assert_eq!(astray.holes, 2, "{astray:?}");
        let told = judged(&history, &["7-1", "8-1", "8-1>9-1", "9-1", "9-1>10-1", "10-1"]);
        assert_eq!((told.astray, told.holes), (1, 0), "{told:?}");
    }
}
