//! The feeds against what workers and feeders know: each channel is fed by one feeder that is there, nobody is told of
//! what it did not ask for, and every range ends once somebody answers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use zhttp::Cursor;
use zhttp::fuzzing::Choices;

use super::log::Log;
use crate::hold::{Fed, Feeds, FeedsConfig, FeedsOutput, Want};

const CHANNELS: [&str; 3] = ["o:a", "o:b", "o:c"];
const FEEDERS: [&str; 3] = ["f", "g", "h"];
const WORKERS: u64 = 3;

/// Events of one channel, at most.
const EVENTS_MAX: usize = 200;

const ANSWER_TIMEOUT_MS: u64 = 2_000;
const LINGER_MS: u64 = 5_000;

/// Turns in which everything must have come to rest.
const TURNS_MAX: usize = 1_000;

const CONFIG: FeedsConfig = FeedsConfig {
    seed: 7,
    tail_bytes_max: 700,
    tails_bytes_max: 1_000,
    range_bytes_max: 30,
    ranges_in_flight_max: 2,
    answer_timeout_ms: ANSWER_TIMEOUT_MS,
    linger_ms: LINGER_MS,
};

/// A range that a feeder was asked for.
type Asked = (&'static str, Arc<str>, Cursor);

struct World {
    feeds: Feeds,
    logs: [Log; CHANNELS.len()],
    now_ms: u64,
    /// The feeders that are there.
    present: BTreeSet<&'static str>,
    /// The channels that workers have members in.
    open: BTreeSet<(u16, Arc<str>)>,
    /// The channels that nobody reads any more, and until when they are followed.
    lingering: BTreeMap<Arc<str>, u64>,
    /// What feeders were told to feed.
    fed: BTreeMap<Arc<str>, BTreeSet<&'static str>>,
    /// What was wanted ever.
    wanted: BTreeSet<(Arc<str>, Cursor)>,
    /// What feeders were asked for and have not answered.
    asked: Vec<Asked>,
}

/// Does what the choices say to feeds, then lets everything come to rest.
///
/// # Panics
///
/// If somebody is told what is not for it, or something is forgotten.
pub fn fuzz(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut world = World {
        feeds: Feeds::new(CONFIG),
        logs: CHANNELS.map(Log::new),
        now_ms: 0,
        present: BTreeSet::new(),
        open: BTreeSet::new(),
        lingering: BTreeMap::new(),
        fed: BTreeMap::new(),
        wanted: BTreeSet::new(),
        asked: Vec::new(),
    };
    while !choices.is_over() {
        world.apply(&mut choices);
        world.settle();
    }
    world.rest();
}

impl World {
    fn apply(&mut self, choices: &mut Choices<'_>) {
        let name = Arc::clone(&self.logs[choices.index(CHANNELS.len())].name);
        let worker = choices.up_to(WORKERS - 1) as u16;
        let feeder = choices.one_of(&FEEDERS);
        match choices.index(14) {
            0 | 1 => {
                self.lingering.remove(&name);
                self.open.insert((worker, Arc::clone(&name)));
                self.feeds.handle_want(self.now_ms, worker, Want::Open(name));
            }
            2 => self.close(worker, name),
            3 | 4 => {
                let after = self.choose_cursor(choices, &name);
                if self.open.contains(&(worker, Arc::clone(&name))) {
                    self.wanted.insert((Arc::clone(&name), after));
                    self.feeds.handle_want(self.now_ms, worker, Want::Range(name, after));
                }
            }
            5 => {
                self.present.insert(feeder);
                self.feeds.handle_joined(self.now_ms, &feeder.as_bytes().into());
            }
            6 => {
                self.present.remove(feeder);
                self.fed.values_mut().for_each(|feeders| feeders.retain(|other| *other != feeder));
                self.asked.retain(|(asked, ..)| *asked != feeder);
                self.feeds.handle_left(self.now_ms, &feeder.as_bytes().into());
            }
            7 => self.append(choices, &name, feeder),
            8 => {
                let log = self.log(&name);
                let from = log.len().saturating_sub(choices.byte().into());
                if let Some(run) = log.run(from, 1 + choices.index(9)) {
                    self.feeds.handle_events(self.now_ms, feeder.as_bytes(), &run);
                }
            }
            9 => {
                let log = self.log(&name);
                let head = log.id(log.len().saturating_sub(choices.index(9)));
                self.feeds.handle_head(self.now_ms, feeder.as_bytes(), &name, head);
            }
            10 => self.lose(choices, &name),
            11 => {
                let asked = self.pick_asked(choices);
                let is_asked_one = choices.flag();
                if let Some((asked, name, after)) = asked {
                    self.answer(if is_asked_one { asked } else { feeder }, &name, after);
                }
            }
            // It never comes.
            12 => drop(self.pick_asked(choices)),
            _ => self.advance(choices.up_to(40_000)),
        }
    }

    fn log(&mut self, name: &Arc<str>) -> &mut Log {
        self.logs.iter_mut().find(|log| log.name == *name).expect("one of ours")
    }

    fn choose_cursor(&mut self, choices: &mut Choices<'_>, name: &Arc<str>) -> Cursor {
        let log = self.log(name);
        match choices.index(4) {
            0 => Cursor::new(1 + choices.up_to(15), choices.up_to(9)),
            1 => Cursor::START,
            _ => log.id(choices.index(log.len() + 1)),
        }
    }

    fn close(&mut self, worker: u16, name: Arc<str>) {
        if self.open.remove(&(worker, Arc::clone(&name)))
            && !self.open.iter().any(|(_, open)| *open == name)
        {
            self.lingering.insert(Arc::clone(&name), self.now_ms + LINGER_MS);
        }
        self.feeds.handle_want(self.now_ms, worker, Want::Close(name));
    }

    fn append(&mut self, choices: &mut Choices<'_>, name: &Arc<str>, feeder: &str) {
        let how = choices.byte();
        let now_ms = self.now_ms;
        let log = self.log(name);
        let from = log.len();
        for index in 0..=how % 4 {
            if log.len() < EVENTS_MAX {
                log.append(how >= 240 && index == 0, how >= 220 && index == 3);
            }
        }
        if how & 4 == 0
            && let Some(run) = log.run(from, usize::MAX)
        {
            self.feeds.handle_events(now_ms, feeder.as_bytes(), &run);
        }
    }

    /// Events are trimmed, the log is made anew, or somebody tells of a gap.
    fn lose(&mut self, choices: &mut Choices<'_>, name: &Arc<str>) {
        let now_ms = self.now_ms;
        let after = self.choose_cursor(choices, name);
        let log = self.log(name);
        match choices.byte() {
            count @ 0..100 => log.trim(usize::from(count) % 8),
            100..120 if log.len() < EVENTS_MAX => log.recreate(),
            _ => {
                if let Some(gap) = log.gap(after) {
                    self.feeds.handle_gap(now_ms, &Arc::new(gap));
                }
            }
        }
    }

    fn pick_asked(&mut self, choices: &mut Choices<'_>) -> Option<Asked> {
        let index = usize::from(choices.byte()).checked_rem(self.asked.len())?;
        Some(self.asked.swap_remove(index))
    }

    fn answer(&mut self, from: &str, name: &Arc<str>, after: Cursor) {
        let now_ms = self.now_ms;
        match self.log(name).answer(after, 3) {
            Fed::Events(run) => self.feeds.handle_events(now_ms, from.as_bytes(), &run),
            Fed::Gap(gap) => self.feeds.handle_gap(now_ms, &gap),
            Fed::Head(name, head) => self.feeds.handle_head(now_ms, from.as_bytes(), &name, head),
        }
    }

    fn advance(&mut self, by_ms: u64) {
        self.now_ms += by_ms;
        self.feeds.handle_timeout(self.now_ms);
        let due = self.feeds.next_deadline();
        assert!(due.is_none_or(|due_ms| due_ms > self.now_ms), "what is due is done");
        for (name, _) in self.lingering.extract_if(.., |_, until_ms| *until_ms <= self.now_ms) {
            // It is told below to feed it no more.
            self.wanted.retain(|(wanted, _)| *wanted != name);
        }
    }

    /// Does what the feeds say, and checks it.
    fn settle(&mut self) {
        self.feeds.check_invariants();
        while let Some(output) = self.feeds.poll_output() {
            self.handle_output(output);
        }
        let followed: BTreeSet<&Arc<str>> =
            self.open.iter().map(|(_, name)| name).chain(self.lingering.keys()).collect();
        assert_eq!(self.feeds.channels(), followed.len(), "what is read is followed");
        for (name, feeders) in &self.fed {
            let count = usize::from(!self.present.is_empty() && followed.contains(name));
            assert_eq!(feeders.len(), count, "{name} has one feeder");
        }
        assert!(
            self.present.is_empty() || followed.iter().all(|name| self.fed.contains_key(*name))
        );
        for name in followed {
            assert_eq!(self.feeds.name(name).as_ref(), Some(name));
        }
    }

    fn handle_output(&mut self, output: FeedsOutput) {
        let present = &self.present;
        let feeder = |id: &[u8]| {
            let found = present.iter().copied().find(|feeder| feeder.as_bytes() == id);
            found.expect("nothing is said to who is not there")
        };
        match output {
            FeedsOutput::Feed(id, channels) => {
                for (name, head) in channels {
                    self.fed.entry(Arc::clone(&name)).or_default().insert(feeder(&id));
                    let log = self.logs.iter().find(|log| log.name == name).expect("one of ours");
                    assert!(head <= Some(log.last()), "nothing was said of what lies behind");
                }
            }
            FeedsOutput::Unfeed(id, names) => {
                for name in names {
                    let feeders = self.fed.entry(name).or_default();
                    assert!(feeders.remove(feeder(&id)), "it fed it");
                }
            }
            FeedsOutput::Range(id, name, after) => {
                assert!(self.wanted.contains(&(Arc::clone(&name), after)), "somebody wants it");
                self.asked.push((feeder(&id), name, after));
            }
            FeedsOutput::Worker(worker, fed) => {
                let name = match fed {
                    Fed::Events(run) => Arc::clone(run.channel()),
                    Fed::Head(name, _) => name,
                    Fed::Gap(gap) => Arc::clone(&gap.channel),
                };
                assert!(self.open.contains(&(worker, name)), "only to who has members");
            }
        }
    }

    /// Lets a feeder come if none is there, and those who are asked answer: then nothing is left to ask.
    fn rest(&mut self) {
        if self.present.insert(FEEDERS[0]) {
            self.feeds.handle_joined(self.now_ms, &FEEDERS[0].as_bytes().into());
        }
        self.settle();
        for _ in 0..TURNS_MAX {
            match self.asked.pop() {
                Some((feeder, name, after)) => self.answer(feeder, &name, after),
                None => {
                    // What was lost before is asked for again.
                    self.advance(ANSWER_TIMEOUT_MS);
                    self.settle();
                    if self.asked.is_empty() {
                        self.advance(ANSWER_TIMEOUT_MS);
                        self.settle();
                        return assert_eq!(self.asked, [], "it came to rest");
                    }
                }
            }
            self.settle();
        }
        panic!("ranges never end");
    }
}
