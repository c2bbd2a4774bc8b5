//! The feeds of the edge: which handler feeds which channel, and which stored events are asked for.
//!
//! One for the edge, driven by the thread that owns the ZeroMQ sockets. Workers say what they want
//! ([`Want`]) and get what came ([`Fed`]). A channel is fed by the present feeder that scores
//! highest for its name, so that a feeder that comes or goes moves only its own channels. A range is
//! answered from the channel's tail where that reaches back far enough; else it is asked once for
//! all who want it, of a feeder that still takes one, and of another if no answer comes in time.
//!
//! Nothing here is believed because it was sent: an answer that is lost is asked for again, one that
//! comes twice is dropped or matches no cursor.

mod invariants;
#[cfg(test)]
mod tests;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use smallvec::SmallVec;
use zhttp::Cursor;

use super::names::Names;
use super::run::Run;
use super::tail::Tail;
use super::{Fed, MissingRun, Want};
use crate::seeded::rendezvous;
use crate::slab::{Key, Slab};
use crate::wheel::Wheel;

/// Channels that one `feed` or `unfeed` packet names at most: keeps it below 256 KiB.
const FEED_CHANNELS_MAX: usize = 1000;

/// A channel of which its feeder has said nothing for so long, in milliseconds, is asked for again:
/// the feeder may have lost it (a `feed` that was overtaken by an older `unfeed`, say), and then no
/// event and no head would ever tell. A feeder names each channel in its heads every 10 s (H-44), so
/// this is two of those, lost, and half of one.
const SILENCE_MS: u64 = 25_000;

/// Channels that are looked at in one turn because their time has come.
const CHECKS_PER_TURN: usize = 1000;

/// The identity of a feeder.
pub(super) type FeederId = Arc<[u8]>;

/// What the shell sets.
#[derive(Clone, Copy, Debug)]
pub struct FeedsConfig {
    /// Makes the hashes of channel names unpredictable.
    pub seed: u64,
    /// Bytes that the tail of one channel may take.
    pub tail_bytes_max: usize,
    /// Bytes that all tails may take; beyond it the oldest events of any go.
    pub tails_bytes_max: usize,
    /// Bytes of event data that a range brings.
    pub range_bytes_max: usize,
    /// Ranges in flight to one feeder; more wait here.
    pub ranges_in_flight_max: usize,
    /// A range or a feed that was not answered is sent again after so many milliseconds.
    pub answer_timeout_ms: u64,
    /// A channel without members is followed for so many milliseconds more.
    pub linger_ms: u64,
}

/// What is to be sent.
#[derive(Clone, Debug)]
pub enum FeedsOutput {
    /// `feed` to a feeder.
    Feed(FeederId, Vec<(Arc<str>, Option<Cursor>)>),
    /// `unfeed` to a feeder.
    Unfeed(FeederId, Vec<Arc<str>>),
    /// `range` to a feeder.
    Range(FeederId, Arc<str>, Cursor),
    /// To the members of a worker.
    Worker(u16, Fed),
}

/// A channel. Most are quiet, and have no more than this.
#[derive(Debug)]
struct Channel {
    name: Arc<str>,
    /// The workers that have members in it.
    workers: SmallVec<[u16; 8]>,
    feeder: Option<FeederId>,
    /// When the feeder has said something of it, since it was asked to feed it. ([`NEVER`]: it has not.)
    heard_ms: u64,
    /// When it is looked at whether the feeder does feed it. ([`NEVER`]: it has no feeder.)
    check_ms: u64,
    /// The last event that was heard of.
    known: Option<Cursor>,
    /// It is here, and an END.
    has_end: bool,
    extra: Option<Box<Extra>>,
}

/// What a channel has that is not quiet, or was not lately.
#[derive(Debug, Default)]
struct Extra {
    /// When it is let go, for no worker has members.
    linger_until_ms: Option<u64>,
    /// The last event of which the feeder was told because it named an older one.
    doubted: Option<Cursor>,
    tail: Tail,
    /// Ranges on their way, by the cursor they follow.
    ranges: BTreeMap<Cursor, RangeState>,
}

impl Channel {
    fn extra_mut(&mut self) -> &mut Extra {
        self.extra.get_or_insert_default()
    }

    /// Forgets what it does not need any more.
    fn rest(&mut self) {
        let known = self.known;
        self.extra.take_if(|extra| {
            let Extra { linger_until_ms, doubted, tail, ranges } = &**extra;
            let is_doubted = doubted.is_some() && *doubted == known;
            linger_until_ms.is_none() && !is_doubted && tail.is_empty() && ranges.is_empty()
        });
    }

    fn linger_until_ms(&self) -> Option<u64> {
        self.extra.as_ref()?.linger_until_ms
    }

    fn doubted(&self) -> Option<Cursor> {
        self.extra.as_ref()?.doubted
    }

    fn tail_bytes(&self) -> usize {
        self.extra.as_ref().map_or(0, |extra| extra.tail.bytes())
    }

    fn range_mut(&mut self, after: Cursor) -> Option<&mut RangeState> {
        self.extra.as_mut()?.ranges.get_mut(&after)
    }

    /// When something is to be done with it.
    fn due_ms(&self) -> u64 {
        self.check_ms.min(self.linger_until_ms().unwrap_or(NEVER))
    }

    /// Whether the log is shorter than it was, for all that its feeder can know, who does not know how long it was.
    fn must_doubt(&self, from: &[u8], head: Cursor) -> bool {
        let is_shorter = Some(head) < self.known && !self.has_end;
        is_shorter && self.feeder.as_deref() == Some(from) && self.doubted() != self.known
    }

    /// Hears of an event that may be missing here. Says whether it is new.
    fn learn(&mut self, id: Cursor) -> bool {
        let is_new = self.known < Some(id);
        if is_new {
            self.known = Some(id);
            self.has_end = false;
        }
        is_new
    }
}

/// A range that somebody waits for.
#[derive(Debug)]
struct RangeState {
    /// Whom it was asked of, and when the answer is late; `None` while it waits its turn.
    asked: Option<(FeederId, u64)>,
    /// How many were asked before.
    attempts: usize,
}

#[derive(Debug, Default)]
struct Feeder {
    in_flight: usize,
    /// Ranges to be asked of it once it has room, in the order of asking. Some may have been
    /// answered meanwhile.
    waiting: VecDeque<(Key, Cursor)>,
}

/// The machine.
#[derive(Debug)]
pub struct Feeds {
    config: FeedsConfig,
    names: Names,
    channels: Slab<Channel>,
    /// When something is to be done with each.
    wheel: Wheel,
    feeders: BTreeMap<FeederId, Feeder>,
    /// Ranges that wait for any feeder to come.
    unplaced: VecDeque<(Key, Cursor)>,
    /// Feeders whose waiting ranges are to be looked at: one came, or a place is free.
    stirred: Vec<FeederId>,
    /// When the answers to ranges are late.
    range_timers: BTreeSet<(u64, Key, Cursor)>,
    outputs: VecDeque<FeedsOutput>,
    /// The places of channels that have a tail.
    tails: BTreeSet<u32>,
    tails_bytes: usize,
    /// From which place on a tail gives way next when all tails take too much.
    clock_hand: u32,
}

impl Feeds {
    /// An edge without channels and feeders.
    pub fn new(config: FeedsConfig) -> Self {
        Feeds {
            config,
            names: Names::new(config.seed),
            channels: Slab::default(),
            wheel: Wheel::new(0),
            feeders: BTreeMap::new(),
            unplaced: VecDeque::new(),
            stirred: Vec::new(),
            range_timers: BTreeSet::new(),
            outputs: VecDeque::new(),
            tails: BTreeSet::new(),
            tails_bytes: 0,
            clock_hand: 0,
        }
    }

    /// How many channels are followed, lingering ones among them.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Bytes that all tails take.
    pub fn tails_bytes(&self) -> usize {
        self.tails_bytes
    }

    /// The name of a channel that is followed, to be shared.
    pub fn name(&self, name: &str) -> Option<Arc<str>> {
        let key = self.find(name)?;
        Some(Arc::clone(&self.channels[key.index].name))
    }

    /// Takes what a worker wants.
    pub fn handle_want(&mut self, now_ms: u64, worker: u16, want: Want) {
        match want {
            Want::Open(name) => self.open(now_ms, worker, &name),
            Want::Close(name) => {
                let Some(key) = self.find(&name) else { return };
                let channel = &mut self.channels[key.index];
                channel.workers.retain(|other| *other != worker);
                if channel.workers.is_empty() && channel.linger_until_ms().is_none() {
                    let until_ms = now_ms + self.config.linger_ms;
                    channel.extra_mut().linger_until_ms = Some(until_ms);
                    self.rearm(key);
                }
            }
            Want::Range(name, after) => {
                if let Some(key) = self.find(&name) {
                    self.handle_range_wanted(now_ms, worker, key, after);
                }
            }
        }
    }

    fn open(&mut self, now_ms: u64, worker: u16, name: &Arc<str>) {
        let key = match self.find(name) {
            Some(key) => key,
            None => self.insert(now_ms, name),
        };
        let channel = &mut self.channels[key.index];
        if !channel.workers.contains(&worker) {
            channel.workers.push(worker);
        }
        if let Some(extra) = &mut channel.extra {
            extra.linger_until_ms = None;
            channel.rest();
            self.rearm(key);
        }
        let channel = &self.channels[key.index];
        if let Some(known) = channel.known {
            let fed = Fed::Head(Arc::clone(&channel.name), known);
            self.outputs.push_back(FeedsOutput::Worker(worker, fed));
        }
    }

    fn insert(&mut self, now_ms: u64, name: &Arc<str>) -> Key {
        let key = self.channels.insert(Channel {
            name: Arc::clone(name),
            workers: SmallVec::new(),
            feeder: self.ranked(name, 0),
            heard_ms: NEVER,
            check_ms: NEVER,
            known: None,
            has_end: false,
            extra: None,
        });
        self.names.insert(name, key.index, |index| &self.channels[index].name);
        self.feed(now_ms, key);
        key
    }

    fn handle_range_wanted(&mut self, now_ms: u64, worker: u16, key: Key, after: Cursor) {
        let channel = &mut self.channels[key.index];
        let extra = channel.extra.get_or_insert_default();
        if let Some(runs) = extra.tail.after(after) {
            let mut bytes = 0;
            for run in runs {
                if bytes > 0 && bytes + run.bytes() > self.config.range_bytes_max {
                    break;
                }
                bytes += run.bytes();
                let fed = Fed::Events(Arc::clone(run));
                self.outputs.push_back(FeedsOutput::Worker(worker, fed));
            }
            return;
        }
        if let Entry::Vacant(entry) = extra.ranges.entry(after) {
            entry.insert(RangeState { asked: None, attempts: 0 });
            self.place_range(key, after);
            self.ask_waiting(now_ms);
        }
    }

    /// A feeder is there.
    pub fn handle_joined(&mut self, now_ms: u64, feeder: &FeederId) {
        self.feeders.entry(Arc::clone(feeder)).or_default();
        self.reassign(now_ms);
        self.place_ranges(Vec::new());
        self.ask_waiting(now_ms);
    }

    /// A feeder is there no more.
    pub fn handle_left(&mut self, now_ms: u64, feeder: &FeederId) {
        let Some(left) = self.feeders.remove(feeder) else { return };
        let mut ranges = Vec::from(left.waiting);
        let keys: Vec<Key> = self.channels.keys().collect();
        for key in keys {
            let Some(extra) = &mut self.channels[key.index].extra else { continue };
            for (after, range) in &mut extra.ranges {
                if let Some((_, due)) = range.asked.take_if(|(id, _)| id == feeder) {
                    self.range_timers.remove(&(due, key, *after));
                    ranges.push((key, *after));
                }
            }
        }
        self.reassign(now_ms);
        self.place_ranges(ranges);
        self.ask_waiting(now_ms);
    }

    /// Gives each channel to the feeder that scores highest now, where that is another.
    fn reassign(&mut self, now_ms: u64) {
        let mut moved: BTreeMap<Option<FeederId>, Vec<Key>> = BTreeMap::new();
        let mut left: BTreeMap<FeederId, Vec<Arc<str>>> = BTreeMap::new();
        let keys: Vec<Key> = self.channels.keys().collect();
        for key in keys {
            let best = self.ranked(&self.channels[key.index].name, 0);
            let channel = &mut self.channels[key.index];
            if channel.feeder == best {
                continue;
            }
            let before = std::mem::replace(&mut channel.feeder, best.clone());
            if let Some(before) = before.filter(|before| self.feeders.contains_key(before)) {
                left.entry(before).or_default().push(Arc::clone(&channel.name));
            }
            moved.entry(best).or_default().push(key);
        }
        for (feeder, names) in left {
            for names in names.chunks(FEED_CHANNELS_MAX) {
                self.outputs.push_back(FeedsOutput::Unfeed(Arc::clone(&feeder), names.to_vec()));
            }
        }
        for key in moved.into_values().flatten() {
            self.feed(now_ms, key);
        }
    }

    /// The present feeder in that place of the channel's order, which wraps around.
    fn ranked(&self, name: &str, place: usize) -> Option<FeederId> {
        let score = |id: &FeederId| rendezvous(name.as_bytes(), id);
        if place.checked_rem(self.feeders.len())? == 0 {
            return self.feeders.keys().max_by_key(|id| score(id)).cloned();
        }
        let mut order: Vec<&FeederId> = self.feeders.keys().collect();
        order.sort_by_cached_key(|id| std::cmp::Reverse(score(id)));
        Some(Arc::clone(order[place % order.len()]))
    }

    /// Sets the timer of a channel.
    fn rearm(&mut self, key: Key) {
        match self.channels[key.index].due_ms() {
            NEVER => drop(self.wheel.disarm(key.index)),
            due_ms => self.wheel.arm(key.index, due_ms),
        }
    }

    fn find(&self, name: &str) -> Option<Key> {
        let index = self.names.get(name, |index| &self.channels[index].name)?;
        self.channels.key_at(index)
    }

    /// Asks the channel's feeder to feed it.
    fn feed(&mut self, now_ms: u64, key: Key) {
        let channel = &mut self.channels[key.index];
        channel.heard_ms = NEVER;
        let Some(feeder) = channel.feeder.clone() else {
            channel.check_ms = NEVER;
            return self.rearm(key);
        };
        // Who has the END wants nothing before the log goes on, and that log may go any time (H-41).
        let head = channel.known.filter(|_| !channel.has_end);
        let entry = (Arc::clone(&channel.name), head);
        channel.check_ms = now_ms + self.config.answer_timeout_ms;
        self.rearm(key);
        if let Some(FeedsOutput::Feed(to, names)) = self.outputs.back_mut()
            && *to == feeder
            && names.len() < FEED_CHANNELS_MAX
        {
            names.push(entry);
        } else {
            self.outputs.push_back(FeedsOutput::Feed(feeder, vec![entry]));
        }
    }

    /// Lets a range wait for the feeder that it is to be asked of.
    fn place_range(&mut self, key: Key, after: Cursor) {
        let Some(channel) = self.channels.get(key) else { return };
        let range = channel.extra.as_ref().and_then(|extra| extra.ranges.get(&after));
        let Some(range) = range.filter(|range| range.asked.is_none()) else { return };
        match self.ranked(&channel.name, range.attempts) {
            Some(id) => {
                let feeder = self.feeders.get_mut(&id).expect("ranked feeders are present");
                feeder.waiting.push_back((key, after));
                self.stirred.push(id);
            }
            None => self.unplaced.push_back((key, after)),
        }
    }

    /// Places these ranges and all that wait anew: a feeder came or left.
    fn place_ranges(&mut self, mut ranges: Vec<(Key, Cursor)>) {
        ranges.extend(std::mem::take(&mut self.unplaced));
        for feeder in self.feeders.values_mut() {
            ranges.extend(std::mem::take(&mut feeder.waiting));
        }
        for (key, after) in ranges {
            self.place_range(key, after);
        }
    }

    /// Sends the ranges that wait for feeders where something has changed, as far as there is room.
    /// Costs nothing where nothing has.
    fn ask_waiting(&mut self, now_ms: u64) {
        while let Some(id) = self.stirred.pop() {
            while let Some(feeder) = self.feeders.get_mut(&id)
                && feeder.in_flight < self.config.ranges_in_flight_max
                && let Some((key, after)) = feeder.waiting.pop_front()
            {
                let Some(channel) = self.channels.get_mut(key) else { continue };
                let range = channel.range_mut(after);
                let Some(range) = range.filter(|range| range.asked.is_none()) else { continue };
                feeder.in_flight += 1;
                let due = now_ms + self.config.answer_timeout_ms;
                range.asked = Some((Arc::clone(&id), due));
                self.range_timers.insert((due, key, after));
                let name = Arc::clone(&channel.name);
                self.outputs.push_back(FeedsOutput::Range(Arc::clone(&id), name, after));
            }
        }
    }

    /// A range that was asked of a feeder is so no more: it has room for another.
    fn free_place(&mut self, id: FeederId) {
        self.feeders.get_mut(&id).expect("those asked are present").in_flight -= 1;
        self.stirred.push(id);
    }

    /// Takes events that a feeder sent.
    pub fn handle_events(&mut self, now_ms: u64, from: &[u8], run: &Arc<Run>) {
        let Some(key) = self.find(run.channel()) else { return };
        let answered = self.answer(key, |after, _| run.index_after(after).is_some());
        let channel = &mut self.channels[key.index];
        if channel.feeder.as_deref() == Some(from) {
            channel.heard_ms = now_ms;
        }
        let is_last = channel.known <= Some(run.last());
        let end = channel.extra.as_ref().and_then(|extra| extra.tail.end());
        let old = end.is_some_and(|end| run.last() <= end);
        if old && !answered {
            return;
        }
        if is_last {
            channel.known = Some(run.last());
            channel.has_end = run.ends();
            self.tails_bytes -= channel.tail_bytes();
            channel.extra_mut().tail.push(run, self.config.tail_bytes_max);
            self.tails_bytes += channel.tail_bytes();
            if end.is_none() {
                self.tails.insert(key.index);
            }
        }
        self.tell(key, &Fed::Events(Arc::clone(run)));
        self.shrink_tails();
        self.ask_waiting(now_ms);
    }

    /// Takes a gap that a feeder found.
    pub fn handle_gap(&mut self, now_ms: u64, gap: &Arc<MissingRun>) {
        let Some(key) = self.find(&gap.channel) else { return };
        self.answer(key, |after, _| gap.concerns(after));
        let channel = &mut self.channels[key.index];
        channel.learn(gap.last_known());
        self.tell(key, &Fed::Gap(Arc::clone(gap)));
        self.ask_waiting(now_ms);
    }

    /// Takes the head of a channel that a feeder sent.
    pub fn handle_head(&mut self, now_ms: u64, from: &[u8], name: &str, head: Cursor) {
        let Some(key) = self.find(name) else { return };
        // That nothing is new must come from who was asked: what others say may be older than that.
        self.answer(key, |after, asked| head <= after && asked.is_some_and(|id| **id == *from));
        let channel = &mut self.channels[key.index];
        if channel.feeder.as_deref() == Some(from) {
            channel.heard_ms = now_ms;
        }
        // Workers know of all before; those that come are told when they open the channel.
        if channel.learn(head) {
            let fed = Fed::Head(Arc::clone(&channel.name), head);
            self.tell(key, &fed);
        } else if channel.must_doubt(from, head) {
            // Something that a feeder before this one sent may have come after it was asked.
            channel.extra_mut().doubted = channel.known;
            self.feed(now_ms, key);
        }
        self.ask_waiting(now_ms);
    }

    /// Ends the ranges that this answers, by cursor and by whom they were asked of. Says whether
    /// there was one.
    fn answer(&mut self, key: Key, answers: impl Fn(Cursor, Option<&FeederId>) -> bool) -> bool {
        let channel = &mut self.channels[key.index];
        let Some(extra) = &mut channel.extra else { return false };
        let answered = extra
            .ranges
            .extract_if(.., |after, range| answers(*after, range.asked.as_ref().map(|(id, _)| id)));
        let answered: Vec<(Cursor, RangeState)> = answered.collect();
        channel.rest();
        let any = !answered.is_empty();
        for (after, range) in answered {
            self.end_range(key, after, range);
        }
        any
    }

    /// A range is needed no more.
    fn end_range(&mut self, key: Key, after: Cursor, range: RangeState) {
        if let Some((id, due)) = range.asked {
            self.range_timers.remove(&(due, key, after));
            self.free_place(id);
        }
    }

    fn tell(&mut self, key: Key, fed: &Fed) {
        for &worker in &self.channels[key.index].workers {
            self.outputs.push_back(FeedsOutput::Worker(worker, fed.clone()));
        }
    }

    /// Lets the tails give way in turn, the oldest events of each first, until they fit.
    fn shrink_tails(&mut self) {
        while self.tails_bytes > self.config.tails_bytes_max {
            let next = self.tails.range(self.clock_hand..).next().or(self.tails.first());
            let index = *next.expect("what takes room is somewhere");
            self.clock_hand = index.wrapping_add(1);
            let channel = &mut self.channels[index];
            self.tails_bytes -= channel.tail_bytes();
            channel.extra_mut().tail.pop_oldest();
            self.tails_bytes += channel.tail_bytes();
            if channel.tail_bytes() == 0 {
                self.tails.remove(&index);
                channel.rest();
            }
        }
    }

    /// Asks again what was not answered, and forgets channels that nobody came back to.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        let mut steps = CHECKS_PER_TURN;
        while let Some(index) = self.wheel.pop_expired(now_ms, &mut steps) {
            let key = self.channels.key_at(index).expect("timers of what is gone are gone");
            if self.channels[index].linger_until_ms().is_some_and(|due_ms| due_ms <= now_ms) {
                self.let_go(key);
            } else {
                self.handle_check(now_ms, key);
            }
        }
        while let Some(&(due, key, after)) = self.range_timers.first() {
            if due > now_ms {
                break;
            }
            self.range_timers.pop_first();
            self.handle_range_late(key, after);
        }
        self.ask_waiting(now_ms);
    }

    /// Nobody came back to a channel.
    fn let_go(&mut self, key: Key) {
        let channel = self.channels.remove(key).expect("timers of what is gone are gone");
        self.wheel.disarm(key.index);
        self.names.remove(&channel.name, key.index);
        self.tails_bytes -= channel.tail_bytes();
        self.tails.remove(&key.index);
        let ranges = channel.extra.into_iter().flat_map(|extra| extra.ranges);
        for (after, range) in ranges {
            self.end_range(key, after, range);
        }
        let Some(feeder) = channel.feeder else { return };
        if let Some(FeedsOutput::Unfeed(to, names)) = self.outputs.back_mut()
            && *to == feeder
            && names.len() < FEED_CHANNELS_MAX
        {
            names.push(channel.name);
        } else {
            self.outputs.push_back(FeedsOutput::Unfeed(feeder, vec![channel.name]));
        }
    }

    /// Asks for a channel again whose feeder has not answered, or has been silent for long.
    fn handle_check(&mut self, now_ms: u64, key: Key) {
        let channel = &mut self.channels[key.index];
        let silent_ms = channel.heard_ms.saturating_add(SILENCE_MS);
        if channel.check_ms <= now_ms && (channel.heard_ms == NEVER || silent_ms <= now_ms) {
            return self.feed(now_ms, key);
        }
        if channel.check_ms <= now_ms {
            channel.check_ms = silent_ms;
        }
        self.rearm(key);
    }

    fn handle_range_late(&mut self, key: Key, after: Cursor) {
        let channel = self.channels.get_mut(key).expect("timers of what is gone are gone");
        let range = channel.range_mut(after).expect("timers of what is gone are gone");
        let (id, _) = range.asked.take().expect("what is late was asked for");
        range.attempts += 1;
        self.free_place(id);
        self.place_range(key, after);
    }

    /// When [`Feeds::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<u64> {
        let ranges = self.range_timers.first().map(|(due, ..)| *due);
        ranges.into_iter().chain(self.wheel.next_deadline()).min()
    }

    /// What to send next.
    pub fn poll_output(&mut self) -> Option<FeedsOutput> {
        self.outputs.pop_front()
    }
}

/// A time that does not come.
const NEVER: u64 = u64::MAX;
