//! Afterwards: the judge reads along as each client did.
//!
//! The records of publishers and clients are put in one order by their times. When a client got
//! something, the log is taken to hold all that had been *sent* by then, and to have let go of all that
//! this pushes out. So an event that came before its publisher was told is no surprise, and a gap is
//! true if the store can have trimmed what it spans.
//!
//! What the judge says is its own; this only feeds it, and counts.

use std::rc::Rc;

use forebay_judge::{Begin, History, Id, Reader, Record, Seen, Taken};

use super::Violations;
use super::publisher::Published;
use super::transcript::{Blocks, Entry, Transcript, What};
use crate::cluster::ORG;

/// What a client read, by its place among the channels, and what came of it.
pub(crate) type Readings = Vec<(usize, Transcript)>;

/// What all clients got.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// Events that came to clients.
    pub(crate) events: u64,
    /// Gaps that were told.
    pub(crate) gaps: u64,
    /// Clients that were told of one.
    pub(crate) clients_with_gaps: u64,
    /// Connections that were lost.
    pub(crate) cuts: u64,
    /// Clients that got to the END, in good form.
    pub(crate) finished: u64,
    pub(crate) violations: Violations,
}

/// When an event may have been appended at the earliest, in the order of the log.
struct Appearance {
    at_us: u64,
    channel: usize,
    index: usize,
}

/// One client, as the judge follows it.
#[derive(Default)]
struct Followed {
    reader: Reader,
    gaps: u64,
    finished: bool,
    /// What it gets after something that is wrong is not judged.
    lost_track: bool,
}

/// Judges a run. The store keeps `history_max` events of each channel.
pub(crate) fn judge(
    channels: &mut [Published],
    history_max: usize,
    readings: &Readings,
) -> Judgement {
    let mut judgement = Judgement::default();
    let names = channels.iter().map(|channel| format!("{ORG}:{}", channel.channel));
    let mut history = History::new(names);
    for channel in channels.iter_mut() {
        channel.events.sort_by_key(|event| event.id);
        judgement.violations.merge(std::mem::take(&mut channel.violations));
    }
    let mut appearances = appearances(channels).into_iter().peekable();
    let mut clients: Vec<Followed> = readings.iter().map(|_| Followed::default()).collect();
    for (client, entry) in in_order(readings) {
        let (channel, transcript) = &readings[client];
        while let Some(next) = appearances.next_if(|next| next.at_us <= entry.at_us) {
            append(&mut history, channels, &next, history_max, &mut judgement.violations);
        }
        let followed = &mut clients[client];
        if !followed.lost_track
            && let Err(why) =
                followed.follow((&history, *channel), &transcript.blocks, entry, &mut judgement)
        {
            followed.lost_track = true;
            judgement.violations.add(format!("client {client}: {why}"));
        }
    }
    for next in appearances {
        append(&mut history, channels, &next, history_max, &mut judgement.violations);
    }
    for (client, followed) in clients.iter().enumerate() {
        judgement.clients_with_gaps += u64::from(followed.gaps > 0);
        if followed.lost_track {
            continue;
        }
        let lack = followed.reader.lack(&history);
        let unfinished = (!followed.finished).then(|| "did not get to the END".to_owned());
        match lack.or(unfinished) {
            None => judgement.finished += 1,
            Some(why) => judgement.violations.add(format!("client {client}: {why}")),
        }
    }
    judgement
}

/// All that clients saw, in the order of time. (The sort is stable: each client's own order stays.)
fn in_order(readings: &Readings) -> Vec<(usize, &Entry)> {
    let mut all = Vec::with_capacity(readings.iter().map(|(_, one)| one.entries.len()).sum());
    for (client, (_, transcript)) in readings.iter().enumerate() {
        all.extend(transcript.entries.iter().map(|entry| (client, entry)));
    }
    all.sort_by_key(|(_, entry)| entry.at_us);
    all
}

/// An event is appended no earlier than it is sent, and before all that stand behind it in the log: so
/// none appears later than any of those was sent.
fn appearances(channels: &[Published]) -> Vec<Appearance> {
    let mut all = Vec::new();
    for (channel, published) in channels.iter().enumerate() {
        let mut at_us = u64::MAX;
        for (index, event) in published.events.iter().enumerate().rev() {
            at_us = at_us.min(event.sent_us);
            all.push(Appearance { at_us, channel, index });
        }
    }
    all.sort_by_key(|appearance| (appearance.at_us, appearance.channel, appearance.index));
    all
}

fn append(
    history: &mut History,
    channels: &[Published],
    appearance: &Appearance,
    history_max: usize,
    violations: &mut Violations,
) {
    let Appearance { channel, index, at_us } = *appearance;
    let events = &channels[channel].events;
    let event = &events[index];
    let (head, born) = (history.log(channel).head(), events[0].id.epoch);
    if head != Id::START && head != event.id.before() {
        violations.add(format!("{}: {} stands behind {head}", channels[channel].channel, event.id));
    }
    let record = Record {
        id: event.id,
        prev: head,
        end: event.end,
        control: false,
        data: Rc::from(&*event.data),
        born,
        tick: 0,
        acknowledged_ms: at_us / 1000,
        is_kept: true,
        is_lost: false,
    };
    if let Err(why) = history.append(channel, record) {
        violations.add(why);
    }
    if let Some(oldest) = (index + 1).checked_sub(history_max).filter(|oldest| *oldest > 0) {
        history.trim(channel, events[oldest].id);
    }
}

impl Followed {
    fn follow(
        &mut self,
        (history, channel): (&History, usize),
        blocks: &Blocks,
        entry: &Entry,
        judgement: &mut Judgement,
    ) -> Result<(), String> {
        match &entry.what {
            What::Began(presented) => {
                let presented = presented.as_deref();
                let at =
                    presented.map_or(Some(Id::START), Id::parse).ok_or("an id that is none")?;
                let taken = [Taken { channel, at, ended: false }];
                self.reader
                    .begin(history, Begin { presented, taken: &taken, tick: history.tick() });
            }
            What::Block(number) => {
                for seen in self.reader.handle_bytes(history, &blocks.bytes(*number))? {
                    match seen {
                        Seen::Event { .. } => judgement.events += 1,
                        Seen::Gap(_) => {
                            judgement.gaps += 1;
                            self.gaps += 1;
                        }
                        Seen::Draining | Seen::Note | Seen::Comment | Seen::Marker => {}
                    }
                }
            }
            What::Ended(rest) => {
                if let Some(rest) = rest {
                    self.reader.handle_bytes(history, &blocks.bytes(*rest))?;
                }
                self.reader.finish(false)?;
                self.finished = true;
            }
            What::Cut => judgement.cuts += 1,
            What::Wrong(what) => return Err(what.to_string()),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::slow_and_herd::publisher::Stored;

    /// Events 1 to 5 of one channel, the last of them its END, sent at 10, 20 … and known a little later.
    fn published() -> Published {
        let stored = |offset: u64| Stored {
            id: Id::new(7, offset),
            end: offset == 5,
            data: data(offset).into(),
            sent_us: 10 * offset,
            acknowledged_us: 10 * offset + 5,
        };
        Published {
            channel: "room".to_owned(),
            events: (1..=5).map(stored).collect(),
            retries: 0,
            violations: Violations::default(),
        }
    }

    fn data(offset: u64) -> String {
        format!(r#"{{"channel_id":"room","number":"{offset}"}}"#)
    }

    fn event(offset: u64) -> String {
        format!("event: stream\nid: 7-{offset}\ndata: {}\n\n", data(offset))
    }

    fn gap(from: &str, to: u64) -> String {
        format!(
            "event: control\nid: 7-{}\ndata: {{\"control_type\":\"gap\",\"channel\":\"room\",\"from\":\"{from}\",\
             \"to\":\"7-{to}\",\"reason\":\"trimmed\"}}\n\n",
            to - 1
        )
    }

    /// What is judged of a client that got these at 100, when the store keeps so many.
    fn judged(history_max: usize, got: &[String]) -> Judgement {
        let mut transcript = Transcript::new(Arc::new(Blocks::default()));
        transcript.add(0, What::Began(None));
        for block in got {
            let number = transcript.blocks.number(block.as_bytes());
            transcript.add(100, What::Block(number));
        }
        transcript.add(100, What::Ended(None));
        judge(&mut [published()], history_max, &vec![(0, transcript)])
    }

    #[test]
    fn who_got_all_or_was_told_is_clean() {
        let all: Vec<String> = (1..=5).map(event).collect();
        let judgement = judged(9, &all);
        assert_eq!((judgement.events, judgement.finished, judgement.violations.count()), (5, 1, 0));
        let told = [gap("0-0", 4), event(4), event(5)];
        let judgement = judged(2, &told);
        assert_eq!((judgement.gaps, judgement.finished, judgement.violations.count()), (1, 1, 0));
    }

    #[test]
    fn whoever_missed_something_is_found() {
        let hole = [event(1), event(3), event(4), event(5)];
        let repeat = [event(1), event(1)];
        let untrue = [gap("0-0", 4), event(4), event(5)];
        let early = [event(1), event(2)];
        for (history_max, got) in [(9, &hole[..]), (9, &repeat), (9, &untrue), (9, &early)] {
            let judgement = judged(history_max, got);
            assert_eq!((judgement.finished, judgement.violations.count()), (0, 1), "{got:?}");
        }
    }
}
