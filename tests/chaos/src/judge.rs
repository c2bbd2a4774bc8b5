//! Compares what every client got with what was published.
//!
//! The truth of a channel is what its publishers were told: each event was sent until it was
//! acknowledged with an id, so the acknowledgements name all events there may be. Put in the order
//! of their ids they must be `1, 2, 3 …` of one epoch, each publisher's events in its own order. An
//! event that was stored twice takes an offset that nobody was told of, and is seen here even if no
//! client read. Then each client must have exactly these, in this order.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;
use zhttp::Cursor;

use crate::publisher::Ack;
use crate::subscriber::{Delivery, Ending, Reading};

/// What a run comes to, in numbers.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Events that came to clients.
    pub deliveries: u64,
    /// Clients whose stream was cut, or went on to something that is no stream.
    pub disconnects: u64,
    /// Clients that had not got every END when patience was over.
    pub unfinished: u64,
    /// Events that a client did not get.
    pub holes: u64,
    /// Events that a client got again.
    pub repeats: u64,
    /// Events that came behind a later one.
    pub reorders: u64,
    /// Events that nobody was told of, or under another's id, and whatever else was wrong.
    pub others: u64,
    /// From the acknowledgement of an event until the last client had it that reads all the time.
    pub latency: Latency,
    /// The longest time between two events of a channel at one client that reads all the time.
    pub longest_silence: Duration,
    /// The first violations, in words.
    pub violations: Vec<String>,
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
}

/// Violations that are told in words; the others are only counted.
const WORDS_MAX: usize = 20;

impl Verdict {
    /// Judges a run: the acknowledgements of each channel, and what each client got.
    pub(crate) fn of(channels: &[Vec<Ack>], readings: &[Reading]) -> Verdict {
        let mut verdict = Verdict::default();
        let logs: Vec<Log> = channels
            .iter()
            .enumerate()
            .map(|(number, acks)| Log::of(number, acks, &mut verdict))
            .collect();
        let mut last_seen: Vec<HashMap<Cursor, Instant>> = vec![HashMap::new(); logs.len()];
        for (client, reading) in readings.iter().enumerate() {
            verdict.judge_ending(client, reading);
            for (channel, deliveries) in &reading.channels {
                verdict.judge_sequence(client, &logs[*channel], deliveries);
                if !reading.is_slow {
                    verdict.measure(deliveries, &mut last_seen[*channel]);
                }
            }
        }
        let latencies = logs.iter().zip(&last_seen).flat_map(|(log, seen)| log.latencies(seen));
        verdict.latency = Latency::of(latencies.collect());
        verdict
    }

    /// Notes something that is wrong beside what clients got.
    pub(crate) fn blame(&mut self, what: String) {
        self.others += 1;
        self.word(what);
    }

    /// Whether everything was as it must be.
    pub fn is_clean(&self) -> bool {
        let counts = [self.disconnects, self.unfinished, self.holes, self.repeats];
        counts.iter().sum::<u64>() + self.reorders + self.others == 0
    }

    fn word(&mut self, what: String) {
        if self.violations.len() < WORDS_MAX {
            self.violations.push(what);
        }
    }

    fn judge_ending(&mut self, client: usize, reading: &Reading) {
        match &reading.ending {
            Ending::Ended => {}
            Ending::Open => {
                self.unfinished += 1;
                self.word(format!("client {client} did not get to the END of its channels"));
            }
            Ending::Disconnected(why) => {
                self.disconnects += 1;
                self.word(format!("client {client} was disconnected: {why}"));
            }
        }
        for violation in &reading.violations {
            self.blame(format!("client {client}: {violation}"));
        }
    }

    /// Compares what a client got of a channel with its log.
    fn judge_sequence(&mut self, client: usize, log: &Log, deliveries: &[Delivery]) {
        self.deliveries += deliveries.len() as u64;
        let (mut seen, mut newest) = (HashSet::new(), Cursor::START);
        for delivery in deliveries {
            let cursor = delivery.cursor;
            let place = || format!("client {client}, channel {}, event {cursor}", log.number);
            if log.events.get(&cursor).is_none_or(|ack| ack.message_id != delivery.message_id) {
                self.blame(format!("{}: not what was acknowledged", place()));
            }
            if !seen.insert(cursor) {
                self.repeats += 1;
                self.word(format!("{}: a repeat", place()));
            } else if cursor < newest {
                self.reorders += 1;
                self.word(format!("{}: behind {newest}", place()));
            }
            newest = newest.max(cursor);
        }
        let missing: Vec<Cursor> =
            log.events.keys().filter(|cursor| !seen.contains(cursor)).copied().collect();
        if let (Some(first), Some(last)) = (missing.iter().min(), missing.iter().max()) {
            self.holes += missing.len() as u64;
            let place = format!("client {client}, channel {}", log.number);
            self.word(format!("{place}: {} missing, {first} to {last}", missing.len()));
        }
    }

    fn measure(&mut self, deliveries: &[Delivery], last_seen: &mut HashMap<Cursor, Instant>) {
        for delivery in deliveries {
            let last = last_seen.entry(delivery.cursor).or_insert(delivery.at);
            *last = delivery.at.max(*last);
        }
        let silences = deliveries.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at));
        self.longest_silence = self.longest_silence.max(silences.max().unwrap_or_default());
    }
}

/// The log of a channel, as its publishers know it.
struct Log<'a> {
    number: usize,
    events: HashMap<Cursor, &'a Ack>,
}

impl<'a> Log<'a> {
    /// Puts acknowledgements in order, and checks that they are a log: without holes in an epoch, and a new epoch, as a
    /// restart of the store begins one, from its first offset on.
    fn of(number: usize, acks: &'a [Ack], verdict: &mut Verdict) -> Self {
        let mut acks: Vec<&Ack> = acks.iter().collect();
        acks.sort_by_key(|ack| ack.cursor);
        let mut newest: HashMap<u64, u64> = HashMap::new();
        let mut before = Cursor::START;
        for ack in &acks {
            let id = ack.cursor;
            let expected =
                if id.epoch == before.epoch { before.plus(1) } else { Cursor::new(id.epoch, 1) };
            if id != expected {
                // From here on nothing fits any more.
                verdict.blame(format!("channel {number}: {id} in place of {expected}"));
                break;
            }
            before = id;
            let earlier = newest.insert(ack.publisher, ack.sequence);
            if earlier.is_some_and(|earlier| earlier >= ack.sequence) {
                verdict.blame(format!("channel {number}: {id} is out of its order"));
            }
        }
        Log { number, events: acks.into_iter().map(|ack| (ack.cursor, ack)).collect() }
    }

    /// How long each event took. One that came before its publisher was told took nothing.
    fn latencies(&self, last_seen: &HashMap<Cursor, Instant>) -> Vec<Duration> {
        let times = self.events.iter().filter_map(|(cursor, ack)| {
            Some(last_seen.get(cursor)?.saturating_duration_since(ack.at))
        });
        times.collect()
    }
}

impl Latency {
    fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let quantile = |percent: usize| {
            let index = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(index).copied().unwrap_or_default()
        };
        Latency { p50: quantile(50), p99: quantile(99), max: quantile(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn ack(offset: u64, message: u128, sequence: u64) -> Ack {
        let (cursor, message_id) = (Cursor::new(7, offset), Uuid::from_u128(message));
        Ack { message_id, cursor, publisher: 0, sequence, at: Instant::now() }
    }

    fn log(len: u64) -> Vec<Ack> {
        (1..=len).map(|offset| ack(offset, offset.into(), offset)).collect()
    }

    fn reading(events: &[(u64, u128)]) -> Reading {
        let delivery = |(offset, message): &(u64, u128)| Delivery {
            cursor: Cursor::new(7, *offset),
            message_id: Uuid::from_u128(*message),
            at: Instant::now(),
        };
        Reading {
            channels: vec![(0, events.iter().map(delivery).collect())],
            ending: Ending::Ended,
            is_slow: false,
            violations: Vec::new(),
        }
    }

    /// Deliveries, holes, repeats, reorders, others.
    fn counts(acks: Vec<Ack>, events: &[(u64, u128)]) -> [u64; 5] {
        let verdict = Verdict::of(&[acks], &[reading(events)]);
        let counts = [verdict.holes, verdict.repeats, verdict.reorders, verdict.others];
        assert_eq!(verdict.is_clean(), counts == [0; 4]);
        [verdict.deliveries, counts[0], counts[1], counts[2], counts[3]]
    }

    #[test]
    fn a_whole_sequence_is_clean() {
        assert_eq!(counts(log(3), &[(1, 1), (2, 2), (3, 3)]), [3, 0, 0, 0, 0]);
        assert_eq!(counts(log(0), &[]), [0, 0, 0, 0, 0]);
    }

    #[test]
    fn whatever_is_wrong_with_a_sequence_is_counted() {
        assert_eq!(counts(log(3), &[(1, 1), (3, 3)]), [2, 1, 0, 0, 0]);
        assert_eq!(counts(log(3), &[(1, 1)]), [1, 2, 0, 0, 0]);
        assert_eq!(counts(log(3), &[(1, 1), (2, 2), (2, 2), (3, 3)]), [4, 0, 1, 0, 0]);
        assert_eq!(counts(log(3), &[(1, 1), (3, 3), (2, 2)]), [3, 0, 0, 1, 0]);
        assert_eq!(counts(log(2), &[(1, 1), (2, 9)]), [2, 0, 0, 0, 1]);
        assert_eq!(counts(log(1), &[(1, 1), (2, 2)]), [2, 0, 0, 0, 1]);
    }

    #[test]
    fn an_event_that_was_stored_twice_is_seen_in_the_log() {
        let stored_twice = vec![ack(1, 1, 1), ack(3, 2, 2)];
        assert_eq!(counts(stored_twice, &[(1, 1), (3, 2)]), [2, 0, 0, 0, 1]);
        let out_of_order = vec![ack(1, 1, 2), ack(2, 2, 1)];
        assert_eq!(counts(out_of_order, &[(1, 1), (2, 2)]), [2, 0, 0, 0, 1]);
    }

    #[test]
    fn a_client_that_is_cut_off_is_counted() {
        let mut cut = reading(&[(1, 1)]);
        cut.ending = Ending::Disconnected("reset".to_owned());
        let mut open = reading(&[(1, 1)]);
        open.ending = Ending::Open;
        let verdict = Verdict::of(&[log(1)], &[cut, open]);
        assert_eq!((verdict.disconnects, verdict.unfinished), (1, 1));
        assert!(!verdict.is_clean());
    }

    #[test]
    fn quantiles_are_of_all_times() {
        let latency = Latency::of((1..=100).map(Duration::from_millis).collect());
        let millis = [latency.p50, latency.p99, latency.max].map(|time| time.as_millis());
        assert_eq!(millis, [50, 99, 100]);
        assert_eq!(Latency::of(Vec::new()).max, Duration::ZERO);
    }
}
