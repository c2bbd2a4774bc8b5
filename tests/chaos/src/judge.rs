//! Judges a run: what every client got, against what is known of the logs.
//!
//! The sequences are judged by `forebay-judge`, the same checker that judges the simulation. Here is what a simulation has
//! not: times, and clients whose connections were lost.

use std::collections::HashMap;
use std::time::Duration;

use forebay_judge::{History, Id, Reader, Seen, Tally};
use tokio::time::Instant;

use crate::evidence::Evidence;
use crate::record::Reading;

/// What a run comes to, in numbers.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What came to clients, and what was wrong with it.
    pub tally: Tally,
    /// Connections that were lost though the edge was not ended.
    pub disconnects: u64,
    /// Connections that were lost because the edge was ended.
    pub reconnects: u64,
    /// Clients that had not got every END when patience was over.
    pub unfinished: u64,
    /// Attempts of clients to come that were answered with "later".
    pub sent_away: u64,
    /// Events that were acknowledged, and that the store has lost.
    pub lost_acknowledged: u64,
    /// Fail-overs that the log of a channel tells of.
    pub failovers_told: u64,
    /// From the acknowledgement of an event until the last client had it that reads all the time.
    pub latency: Latency,
    /// The longest time between two events of a channel at one client that reads all the time.
    pub longest_silence: Duration,
}

/// Times, of all events of a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    /// Half of them took no longer.
    pub p50: Duration,
    /// 99 of 100 took no longer.
    pub p99: Duration,
    /// None took longer.
    pub max: Duration,
    /// When the event was acknowledged that took so long.
    pub slowest_acked: Option<Instant>,
}

/// When an event came last, and in which channel.
type LastSeen = HashMap<(usize, Id), Instant>;

impl Verdict {
    /// Judges a run.
    pub(crate) fn of(evidence: &Evidence<'_>) -> Verdict {
        let findings = evidence.hear();
        let mut verdict = Verdict {
            lost_acknowledged: findings.lost_acknowledged,
            failovers_told: findings.failovers_told,
            ..Verdict::default()
        };
        for what in findings.contradictions {
            verdict.blame(what);
        }
        let mut last_seen = LastSeen::new();
        for (client, reading) in evidence.readings.iter().enumerate() {
            verdict.judge_ending(client, reading);
            verdict.judge_stream(&findings.history, client, reading, &mut last_seen);
        }
        let mut times = Vec::new();
        for (channel, acks) in evidence.acks.iter().enumerate() {
            for ack in acks {
                let id = Id::new(ack.cursor.epoch, ack.cursor.offset);
                let seen = last_seen.get(&(channel, id));
                // One that came before its publisher was told took nothing.
                times.extend(seen.map(|seen| (seen.saturating_duration_since(ack.at), ack.at)));
            }
        }
        verdict.latency = Latency::of(times);
        verdict
    }

    /// Notes something that is wrong beside what clients got.
    pub(crate) fn blame(&mut self, what: String) {
        self.tally.blame(what);
    }

    /// Whether everything was as it must be.
    pub fn is_clean(&self) -> bool {
        self.tally.is_clean() && self.disconnects + self.unfinished == 0
    }

    fn judge_ending(&mut self, client: usize, reading: &Reading) {
        self.reconnects += reading.expected_losses;
        self.sent_away += reading.sent_away;
        self.disconnects += reading.disconnects.len() as u64;
        for why in &reading.disconnects {
            self.tally.word(format!("client {client} was disconnected: {why}"));
        }
        if !reading.has_ended {
            self.unfinished += 1;
            self.tally.word(format!("client {client} did not get to the END of its channels"));
        }
        for violation in &reading.violations {
            self.blame(format!("client {client}: {violation}"));
        }
    }

    /// Judges all that came to a client, over all its connections.
    fn judge_stream(
        &mut self,
        history: &History,
        client: usize,
        reading: &Reading,
        last_seen: &mut LastSeen,
    ) {
        let mut reader = Reader::default();
        let mut tally = Tally::default();
        let mut before: HashMap<usize, Instant> = HashMap::new();
        for life in &reading.lives {
            reader.come(history, &reading.channels, life.presented.as_deref());
            for came in &life.came {
                let seen = reader.count_block(history, &came.block(), &mut tally);
                let Some(Seen::Event { channel, .. }) = seen else { continue };
                if reading.is_slow {
                    continue;
                }
                if let Some(id) = reader.place(channel) {
                    let last = last_seen.entry((channel, id)).or_insert(came.at);
                    *last = came.at.max(*last);
                }
                if let Some(earlier) = before.insert(channel, came.at) {
                    self.longest_silence = self.longest_silence.max(came.at - earlier);
                }
            }
            if life.is_whole
                && let Err(why) = reader.finish(false)
            {
                tally.blame(why);
            }
        }
        if reading.has_ended
            && let Some(lack) = reader.lack(history)
        {
            tally.blame(lack);
        }
        let place =
            |word: String| format!("client {client}, channels {:?}: {word}", reading.channels);
        tally.words = tally.words.into_iter().map(place).collect();
        self.tally.add(tally);
    }
}

impl Latency {
    /// Of times, each with when it began.
    pub(crate) fn of(mut times: Vec<(Duration, Instant)>) -> Self {
        times.sort_unstable();
        let quantile = |percent: usize| {
            let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(index).map_or(Duration::ZERO, |(time, _)| *time)
        };
        let slowest_acked = times.last().map(|(_, at)| *at);
        Latency { p50: quantile(50), p99: quantile(99), max: quantile(100), slowest_acked }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::ledger::{Kept, KeptEvent};
    use crate::publisher::Ack;
    use crate::record::{Came, Life, Words};
    use forebay_judge::sse::Block;
    use uuid::Uuid;
    use zhttp::Cursor;

    const NAME: &str = "room-1";

    /// Channel 1: channel 0 is a wide one.
    fn ack(offset: u64, message: u128, sequence: u64) -> Ack {
        let (cursor, message_id) = (Cursor::new(7, offset), Some(Uuid::from_u128(message)));
        Ack { message_id, cursor, publisher: 0, sequence, doubts: 0, at: Instant::now() }
    }

    /// What readers get of it.
    fn line(ack: &Ack) -> String {
        ack.line(1, NAME, ack.message_id.unwrap())
    }

    fn log(len: u64) -> Vec<Ack> {
        (1..=len).map(|offset| ack(offset, offset.into(), offset)).collect()
    }

    /// A store that holds these events.
    fn kept(events: &[Ack]) -> Kept {
        let event = |ack: &Ack| {
            let prev = (ack.cursor.offset == 1).then_some(Id::START);
            let data = line(ack);
            let id = Id::new(ack.cursor.epoch, ack.cursor.offset);
            (id, KeptEvent { prev, end: ack.is_end(), control: false, data })
        };
        Kept { born: 7, events: events.iter().map(event).collect() }
    }

    fn reading(events: &[Ack]) -> Reading {
        let words = Words::default();
        let came = |ack: &Ack| {
            let block = Block {
                kind: Some("stream".to_owned()),
                id: Some(ack.cursor.to_string()),
                data: Some(line(ack)),
                ..Block::default()
            };
            Came::of(&words, block, Instant::now())
        };
        let came = events.iter().filter_map(came).collect();
        let lives = vec![Life { presented: None, came, is_whole: false }];
        Reading { channels: vec![1], lives, has_ended: true, ..Reading::default() }
    }

    fn verdict(acks: Vec<Ack>, stored: &[Ack], readings: &[Reading]) -> Verdict {
        let names = ["room-0".to_owned(), NAME.to_owned()];
        let (acks, kept) = ([Vec::new(), acks], [Kept::default(), kept(stored)]);
        Verdict::of(&Evidence { names: &names, acks: &acks, kept: &kept, readings })
    }

    /// Events, holes, repeats, others.
    fn counts(log: &[Ack], came: &[Ack]) -> [u64; 4] {
        let verdict = verdict(log.to_vec(), log, &[reading(came)]);
        let tally = verdict.tally;
        [tally.events, tally.holes, tally.repeats, tally.others]
    }

    #[test]
    fn a_whole_sequence_is_clean() {
        assert_eq!(counts(&log(3), &log(3)), [3, 0, 0, 0]);
        assert_eq!(counts(&[], &[]), [0, 0, 0, 0]);
    }

    #[test]
    fn whatever_is_wrong_with_a_sequence_is_counted() {
        let log = log(3);
        let pick = |indices: &[usize]| -> Vec<Ack> { indices.iter().map(|at| log[*at]).collect() };
        assert_eq!(counts(&log, &pick(&[0, 2])), [2, 1, 0, 0]);
        // What is missing at the end is told in words.
        assert_eq!(counts(&log, &pick(&[0])), [1, 0, 0, 1]);
        assert_eq!(counts(&log, &pick(&[0, 1, 1, 2])), [4, 0, 1, 0]);
        assert_eq!(counts(&log, &pick(&[0, 2, 1, 2])), [4, 1, 1, 0]);
        let foreign = [log[0], log[1], ack(3, 9, 3)];
        assert_ne!(counts(&log, &foreign)[3], 0);
    }

    #[test]
    fn an_event_that_was_stored_twice_is_seen_in_the_log() {
        let stored = [ack(1, 1, 1), ack(2, 1, 1), ack(3, 2, 2)];
        let verdict = verdict(vec![ack(1, 1, 1), ack(3, 2, 2)], &stored, &[reading(&stored)]);
        assert_eq!(verdict.tally.others, 2, "{verdict:?}");
    }

    /// What a publisher without message ids knows of an event.
    fn unnamed(ack: Ack, doubts: u64) -> Ack {
        Ack { message_id: None, doubts, ..ack }
    }

    #[test]
    fn an_event_without_a_message_id_has_that_of_the_store() {
        let stored = log(3);
        let acks: Vec<Ack> = stored.iter().map(|ack| unnamed(*ack, 0)).collect();
        let clean = verdict(acks.clone(), &stored, &[reading(&stored)]);
        assert!(clean.is_clean(), "{clean:?}");

        // A client that got another one did not get what is stored.
        let other = [stored[0], ack(2, 9, 2), stored[2]];
        assert!(!verdict(acks.clone(), &stored, &[reading(&other)]).is_clean());
        // Two events may not have the same, nor may an event be elsewhere than was answered, or in another order.
        let same = [stored[0], ack(2, 1, 2), stored[2]];
        assert!(!verdict(acks.clone(), &same, &[reading(&same)]).is_clean());
        let exchanged = [stored[0], ack(2, 3, 3), ack(3, 2, 2)];
        assert!(!verdict(acks, &exchanged, &[reading(&exchanged)]).is_clean());
    }

    #[test]
    fn an_event_without_a_message_id_is_stored_once_but_for_doubts() {
        let stored = [ack(1, 1, 1), ack(2, 2, 2), ack(3, 3, 1)];
        let judged = |doubts: u64, stored: &[Ack]| {
            let acks = vec![unnamed(stored[0], doubts), unnamed(stored[1], 0)];
            verdict(acks, stored, &[reading(stored)])
        };
        assert!(!judged(0, &stored).is_clean());
        let clean = judged(1, &stored);
        assert!(clean.is_clean(), "{clean:?}");
        let thrice = [stored[0], stored[1], stored[2], ack(4, 4, 1)];
        assert!(!judged(1, &thrice).is_clean());
        // Another attempt has another id.
        let same = [stored[0], stored[1], ack(3, 1, 1)];
        assert!(!judged(1, &same).is_clean());
    }

    #[test]
    fn a_lost_event_without_a_message_id_is_as_clients_got_it() {
        let next = Ack { cursor: Cursor::new(9, 1), ..ack(1, 3, 3) };
        let lost = ack(2, 2, 2);
        let mut stored = kept(&[ack(1, 1, 1)]);
        let prev = Some(Id::new(7, 1));
        let event = KeptEvent { prev, end: false, control: false, data: line(&next) };
        stored.events.insert(Id::new(9, 1), event);
        let judged = |came: &[&[Ack]]| {
            let names = ["room-0".to_owned(), NAME.to_owned()];
            let acks = [Vec::new(), vec![ack(1, 1, 1), unnamed(lost, 0), next]];
            let kept = [Kept::default(), stored.clone()];
            let readings: Vec<Reading> = came.iter().map(|came| reading(came)).collect();
            Verdict::of(&Evidence { names: &names, acks: &acks, kept: &kept, readings: &readings })
        };
        let unseen = judged(&[&[ack(1, 1, 1), next]]);
        assert!(unseen.is_clean(), "{unseen:?}");
        assert_eq!(unseen.lost_acknowledged, 1);
        let seen = judged(&[&[ack(1, 1, 1), lost]]);
        assert_eq!((seen.lost_acknowledged, seen.tally.repeats, seen.tally.holes), (1, 0, 0));
        // Two that got it must have got the same.
        let agreeing = judged(&[&[ack(1, 1, 1), lost], &[ack(1, 1, 1), lost]]);
        let differing = judged(&[&[ack(1, 1, 1), lost], &[ack(1, 1, 1), ack(2, 8, 2)]]);
        assert!(differing.tally.others > agreeing.tally.others, "{differing:?}");
    }

    #[test]
    fn a_lost_tail_is_no_violation_for_who_has_not_got_it() {
        let next = Ack { cursor: Cursor::new(9, 1), ..ack(1, 3, 3) };
        let acks = vec![ack(1, 1, 1), ack(2, 2, 2), next];
        let prev = Some(Id::new(7, 1));
        let mut stored = kept(&[acks[0]]);
        let data = line(&next);
        let event = KeptEvent { prev, end: false, control: false, data };
        stored.events.insert(Id::new(9, 1), event);
        let judged = |came: &[Ack]| {
            let names = ["room-0".to_owned(), NAME.to_owned()];
            let (acks, kept) = ([Vec::new(), acks.clone()], [Kept::default(), stored.clone()]);
            let readings = [reading(came)];
            Verdict::of(&Evidence { names: &names, acks: &acks, kept: &kept, readings: &readings })
        };
        let without = judged(&[acks[0], next]);
        assert!(without.is_clean(), "{without:?}");
        assert_eq!((without.lost_acknowledged, without.tally.never_seen), (1, 1));
        let with = judged(&acks);
        assert_eq!((with.tally.unsignalled, with.tally.others), (1, 0), "{with:?}");
    }

    #[test]
    fn a_client_that_is_cut_off_is_counted() {
        let cut = Reading { disconnects: vec!["reset".to_owned()], ..reading(&log(1)) };
        let open = Reading { has_ended: false, ..reading(&log(1)) };
        let verdict = verdict(log(1), &log(1), &[cut, open]);
        assert_eq!((verdict.disconnects, verdict.unfinished), (1, 1));
        assert!(!verdict.is_clean());
    }

    #[test]
    fn quantiles_are_of_all_times() {
        let now = Instant::now();
        let latency = Latency::of((1..=100).map(|ms| (Duration::from_millis(ms), now)).collect());
        let millis = [latency.p50, latency.p99, latency.max].map(|time| time.as_millis());
        assert_eq!(millis, [50, 99, 100]);
        assert_eq!(Latency::of(Vec::new()).max, Duration::ZERO);
    }
}
