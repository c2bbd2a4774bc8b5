//! The members of a worker against readers of model logs: each gets the event that follows its cursor, always and
//! only; and once everybody answers, each gets to the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use zhttp::fuzzing::Choices;
use zhttp::hold::HoldChannel;
use zhttp::{Cursor, composite};

use super::log::Log;
use crate::hold::{
    Delivery, FanoutLimits, Fed, Members, MembersConfig, MissingRun, Rendering, Want,
};
use crate::slab::Key;

const CHANNELS: [&str; 3] = ["o:a", "o:b", "o:c"];

/// Readers that are there together, at most.
const READERS_MAX: usize = 10;

/// Events of one channel, at most.
const EVENTS_MAX: usize = 300;

/// Events that a feeder sends in one answer, at most.
const ANSWER_EVENTS_MAX: usize = 7;

/// Turns in which everything must have come to rest.
const TURNS_MAX: usize = 3_000;

/// Where a reader stands in a channel.
#[derive(Clone, Copy)]
struct Stand {
    cursor: Cursor,
    /// The last event ended the channel.
    ended: bool,
}

/// What a connection should have.
struct Reader {
    connection: Key,
    stands: BTreeMap<&'static str, Stand>,
    is_blocked: bool,
}

struct World {
    members: Members,
    logs: [Log; CHANNELS.len()],
    /// By the number of the connection.
    readers: BTreeMap<u32, Reader>,
    connections: u32,
    /// What was asked and not answered.
    wants: Vec<Want>,
    /// Gaps that were told and may be told again.
    gaps: Vec<Arc<MissingRun>>,
    now_ms: u64,
}

/// Does what the choices say to members, logs and readers, then lets everything come to rest.
///
/// # Panics
///
/// If a reader gets what it should not, or not what it should.
pub fn fuzz(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let limits = choices.one_of(&[
        FanoutLimits::default(),
        FanoutLimits { write_bytes_max: 20, queue_bytes_max: 45 },
        FanoutLimits { write_bytes_max: 1, queue_bytes_max: 1 },
    ]);
    let config = MembersConfig { seed: 7, range_retry_ms: 1_000 };
    let mut world = World {
        members: Members::with_fanout_limits(config, limits),
        logs: CHANNELS.map(Log::new),
        readers: BTreeMap::new(),
        connections: 0,
        wants: Vec::new(),
        gaps: Vec::new(),
        now_ms: 0,
    };
    while !choices.is_over() {
        world.apply(&mut choices);
        world.check();
    }
    world.rest();
    for reader in std::mem::take(&mut world.readers).into_values() {
        world.members.close(reader.connection);
    }
    world.check();
    assert_eq!((world.members.holds(), world.members.poll_delivery().is_none()), (0, true));
}

impl World {
    fn apply(&mut self, choices: &mut Choices<'_>) {
        match choices.index(18) {
            0 | 1 => self.open(choices),
            2 => {
                let Some(connection) = self.pick(choices) else { return };
                let reader = self.readers.remove(&connection).expect("it was picked");
                self.members.close(reader.connection);
            }
            3 => self.add(choices),
            4 => self.remove(choices),
            5 | 6 => self.append(choices),
            7 => self.send_run(choices),
            8 => {
                let log = choices.one_of(&[0, 1, 2]);
                let log = &self.logs[log];
                // The head of some time, or of now.
                let head = match choices.byte() {
                    back @ 0..100 => log.id(log.len().saturating_sub(back.into())),
                    _ => log.last(),
                };
                self.members.handle_fed(&Fed::Head(Arc::clone(&log.name), head));
            }
            9 => self.shorten(choices),
            10 => self.send_gap(choices),
            11 => self.block(choices, true),
            12 => self.block(choices, false),
            13 => (0..choices.up_to(200)).for_each(|_| self.deliver()),
            14 => {
                let wanted = std::iter::from_fn(|| self.members.poll_output(self.now_ms));
                self.wants.extend(wanted.take(20));
            }
            15 => {
                if let Some(want) = self.pick_want(choices) {
                    self.answer(&want, 1 + choices.index(ANSWER_EVENTS_MAX));
                }
            }
            16 => drop(self.pick_want(choices)),
            _ => {
                self.now_ms += choices.number().min(100_000);
                self.members.handle_timeout(self.now_ms);
            }
        }
    }

    fn pick(&self, choices: &mut Choices<'_>) -> Option<u32> {
        let index = choices.index(READERS_MAX).checked_rem(self.readers.len())?;
        self.readers.keys().nth(index).copied()
    }

    fn pick_want(&mut self, choices: &mut Choices<'_>) -> Option<Want> {
        let index = usize::from(choices.byte()).checked_rem(self.wants.len())?;
        Some(self.wants.swap_remove(index))
    }

    /// A channel, a place in its log or next to it, and whether that is said to be the end.
    fn choose_channel(&self, choices: &mut Choices<'_>) -> HoldChannel<'static> {
        let channel = choices.index(CHANNELS.len());
        let log = &self.logs[channel];
        let how = choices.byte();
        let cursor = match how % 8 {
            0 => Cursor::START,
            1 => Cursor::new(log.last().epoch.max(1), 0),
            2 => Cursor::new(1 + choices.up_to(20), choices.up_to(9)),
            3 | 4 => log.id(choices.index(EVENTS_MAX).min(log.len())),
            _ => log.last(),
        };
        HoldChannel { name: CHANNELS[channel], cursor, ended: how >= 224 }
    }

    fn open(&mut self, choices: &mut Choices<'_>) {
        if self.readers.len() >= READERS_MAX {
            return;
        }
        let channels = (0..choices.index(4)).map(|_| self.choose_channel(choices));
        let channels: Vec<HoldChannel<'_>> = channels.collect();
        self.connections += 1;
        let connection = Key { index: self.connections, generation: 0 };
        self.members.open((connection, Rendering::Sse), channels.iter().copied());
        let mut reader = Reader { connection, stands: BTreeMap::new(), is_blocked: false };
        channels.into_iter().for_each(|channel| reader.add(channel));
        self.readers.insert(self.connections, reader);
    }

    fn add(&mut self, choices: &mut Choices<'_>) {
        let Some(connection) = self.pick(choices) else { return };
        let channel = self.choose_channel(choices);
        let reader = self.readers.get_mut(&connection).expect("it was picked");
        self.members.add(reader.connection, channel);
        reader.add(channel);
    }

    fn remove(&mut self, choices: &mut Choices<'_>) {
        let Some(connection) = self.pick(choices) else { return };
        let name = choices.one_of(&CHANNELS);
        let reader = self.readers.get_mut(&connection).expect("it was picked");
        self.members.remove(reader.connection, name);
        reader.stands.remove(name);
    }

    /// New events, which mostly are sent at once.
    fn append(&mut self, choices: &mut Choices<'_>) {
        let log = &mut self.logs[choices.index(CHANNELS.len())];
        let how = choices.byte();
        let from = log.len();
        for index in 0..=how % 4 {
            if log.len() < EVENTS_MAX {
                log.append(how >= 240 && index == 0, (200..210).contains(&how) && index == how % 4);
            }
        }
        if how & 4 == 0
            && let Some(run) = log.run(from, usize::MAX)
        {
            self.members.handle_fed(&Fed::Events(run));
        }
    }

    /// Events that nobody asked for, or not now.
    fn send_run(&mut self, choices: &mut Choices<'_>) {
        let log = &self.logs[choices.index(CHANNELS.len())];
        let from = log.len().saturating_sub(choices.byte().into());
        if let Some(run) = log.run(from, choices.byte().into()) {
            self.members.handle_fed(&Fed::Events(run));
        }
    }

    fn shorten(&mut self, choices: &mut Choices<'_>) {
        let log = &mut self.logs[choices.index(CHANNELS.len())];
        match choices.byte() {
            count @ 0..200 => log.trim(usize::from(count) % 8),
            _ if log.len() < EVENTS_MAX => {
                log.recreate();
                // What was true of the log before is not told any more.
                self.gaps.retain(|gap| gap.channel != log.name);
            }
            _ => {}
        }
    }

    fn send_gap(&mut self, choices: &mut Choices<'_>) {
        let log = &self.logs[choices.index(CHANNELS.len())];
        let after = log.id(choices.index(EVENTS_MAX));
        if let Some(gap) = log.gap(after) {
            self.gaps.push(Arc::new(gap));
        }
        if !self.gaps.is_empty() {
            let gap = &self.gaps[choices.index(self.gaps.len())];
            self.members.handle_fed(&Fed::Gap(Arc::clone(gap)));
        }
    }

    fn block(&mut self, choices: &mut Choices<'_>, is_blocked: bool) {
        let Some(connection) = self.pick(choices) else { return };
        let reader = self.readers.get_mut(&connection).expect("it was picked");
        reader.is_blocked = is_blocked;
        if is_blocked {
            self.members.handle_blocked(reader.connection);
        } else {
            self.members.handle_drained(reader.connection);
        }
    }

    fn answer(&mut self, want: &Want, count_max: usize) {
        let log = |name: &Arc<str>| self.logs.iter().find(|log| log.name == *name);
        let fed = match want {
            Want::Open(name) => {
                let log = log(name).expect("one of ours");
                Fed::Head(Arc::clone(name), log.last())
            }
            Want::Range(name, after) => log(name).expect("one of ours").answer(*after, count_max),
            Want::Close(_) => return,
        };
        self.members.handle_fed(&fed);
    }

    /// A feeder that hears of a reader beyond the end of a log lets it go on beyond that.
    fn pass_lost(&mut self, want: &Want) {
        let Want::Range(name, after) = want else { return };
        let log = self.logs.iter_mut().find(|log| log.name == *name).expect("one of ours");
        while log.last() < *after {
            log.append(true, false);
        }
    }

    /// Does the next delivery, if there is one.
    fn deliver(&mut self) {
        let Some(delivery) = self.members.poll_delivery() else { return };
        let connection = delivery.connection.index;
        let reader = self.readers.get_mut(&connection).expect("only to those who are there");
        assert_eq!(delivery.connection, reader.connection);
        reader.take(&self.logs, &delivery);
        if delivery.end {
            let is_over = reader.stands.values().all(|stand| stand.ended);
            assert!(is_over && !reader.stands.is_empty(), "each of its channels has ended");
            self.members.close(delivery.connection);
            self.readers.remove(&connection);
        }
    }

    fn check(&self) {
        self.members.check_invariants();
        assert_eq!(self.members.holds(), self.readers.len());
        for reader in self.readers.values() {
            let cursors: BTreeMap<&str, Cursor> = self.members.cursors(reader.connection).collect();
            let stands = reader.stands.iter().map(|(name, stand)| (*name, stand.cursor));
            assert!(cursors.into_iter().eq(stands), "the cursor is what the reader has");
        }
    }

    /// Lets everybody take and answer until nothing more is to be done: then each is at the end.
    fn rest(&mut self) {
        for reader in self.readers.values_mut() {
            reader.is_blocked = false;
            self.members.handle_drained(reader.connection);
        }
        let heads = self.logs.iter().map(|log| Fed::Head(Arc::clone(&log.name), log.last()));
        heads.for_each(|head| self.members.handle_fed(&head));
        for _ in 0..TURNS_MAX {
            while self.members.has_deliveries() {
                self.deliver();
            }
            if let Some(want) = self.members.poll_output(self.now_ms) {
                self.pass_lost(&want);
                self.answer(&want, ANSWER_EVENTS_MAX);
            } else if let Some(due_ms) = self.members.next_deadline() {
                self.now_ms = self.now_ms.max(due_ms);
                self.members.handle_timeout(self.now_ms);
            } else {
                self.check();
                return self.readers.values().for_each(|reader| reader.check_end(&self.logs));
            }
        }
        panic!("it never comes to rest");
    }
}

impl Reader {
    fn add(&mut self, channel: HoldChannel<'static>) {
        let HoldChannel { name, cursor, ended } = channel;
        self.stands.entry(name).or_insert(Stand { cursor, ended });
    }

    /// Takes what is written to it, event by event.
    fn take(&mut self, logs: &[Log], delivery: &Delivery) {
        let text = std::str::from_utf8(delivery.bytes.as_ref()).expect("all of it is text");
        assert!(!self.is_blocked || text.is_empty(), "who is blocked gets nothing");
        assert!(delivery.end || !text.is_empty(), "nobody is woken for nothing");
        for event in text.split_terminator("\n\n") {
            let line = |key| event.lines().find_map(|line| line.strip_prefix(key));
            let data = line("data: ").expect("an event has data");
            let name = match line("event: ") {
                Some("control") => self.take_gap(logs, data),
                kind => self.take_event(logs, data, kind),
            };
            self.check_id(name, line("id: ").expect("there is room for a few cursors"));
        }
    }

    fn take_event(&mut self, logs: &[Log], data: &str, kind: Option<&str>) -> &'static str {
        let (name, id) = data.split_once(' ').expect("name and id");
        let id: Cursor = id.parse().expect("name and id");
        let log = logs.iter().find(|log| *log.name == *name).expect("one of ours");
        let event = log.event(id).expect("it was appended");
        assert_eq!(kind, Some(if id.offset.is_multiple_of(3) { "other" } else { "stream" }));
        let (name, stand) = self.stand(name);
        assert!(event.follows(stand.cursor), "{id} does not follow {}", stand.cursor);
        *stand = Stand { cursor: id, ended: event.end };
        name
    }

    fn take_gap(&mut self, logs: &[Log], data: &str) -> &'static str {
        let field = |key: &str| data.split_once(key).and_then(|(_, rest)| rest.split('"').next());
        let cursor = |key| field(key).and_then(|text| text.parse::<Cursor>().ok());
        let name = format!("o:{}", field(r#""channel":""#).expect("a channel"));
        let (from, to) = (cursor(r#""from":""#), cursor(r#""to":""#).expect("a cursor"));
        let log = logs.iter().find(|log| *log.name == *name).expect("one of ours");
        let (name, stand) = self.stand(&name);
        assert_eq!(from, Some(stand.cursor), "from where it stands");
        assert!(log.event(to).is_some() && to > stand.cursor, "to an event behind it");
        // Of a log that was deleted meanwhile much may be told that is past.
        if let Some(next) = log.position(stand.cursor).filter(|_| log.is_present(to)) {
            assert!(!log.keeps(next), "nothing is missing at {}", stand.cursor);
        }
        *stand = Stand { cursor: Cursor::new(to.epoch, to.offset - 1), ended: false };
        name
    }

    fn stand(&mut self, name: &str) -> (&'static str, &mut Stand) {
        let stand = self.stands.iter_mut().find(|(own, _)| **own == name);
        let (name, stand) = stand.expect("a channel that it reads");
        (*name, stand)
    }

    /// The id of what it just got says where it stands in each channel.
    fn check_id(&self, name: &str, id: &str) {
        if self.stands.len() == 1 {
            return assert_eq!(id, self.stands[name].cursor.to_string());
        }
        let composite = composite::decode(id).expect("a composite cursor");
        assert_eq!(composite.channels(), self.stands.len());
        for (name, stand) in &self.stands {
            assert_eq!(composite.cursor_of(name), Some(stand.cursor), "{name}");
        }
    }

    /// Everything was answered: it has all that there is.
    fn check_end(&self, logs: &[Log]) {
        let is_over = !self.stands.is_empty() && self.stands.values().all(|stand| stand.ended);
        assert!(!is_over, "who has the end of everything is finished");
        for (name, stand) in &self.stands {
            let log = logs.iter().find(|log| *log.name == **name).expect("one of ours");
            match log.position(stand.cursor) {
                Some(next) => assert_eq!(next, log.len(), "{name} at {}", stand.cursor),
                None => assert_eq!(log.len(), 0, "{name} at {}", stand.cursor),
            }
        }
    }
}
