//! The members of channels in one worker: who reads what, and what is written next.
//!
//! A hold has no name of its own: it is named as the connection that reads.
//!
//! Called by the worker. It opens a hold for a connection, passes on what [`Feeds`](super::Feeds)
//! say, and then polls: [`Members::poll_delivery`] for what to write, a slice at a time, and
//! [`Members::poll_output`] for what to ask, which waits for no delivery. Sockets, HTTP framing and keep-alives are the
//! worker's; it says when a connection takes nothing more ([`Members::handle_blocked`]) and when
//! it does again ([`Members::handle_drained`]).

mod delivery;
mod invariants;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use zhttp::Cursor;
use zhttp::composite::HashedNames;
use zhttp::hold::HoldChannel;

use self::delivery::Slice;
use super::channel::{Channel, FanoutLimits, OwnCursor, Place};
use super::names::Names;
use super::run::Run;
use super::{Fed, MissingRun, Rendering, Want};
use crate::paged::Paged;
use crate::slab::{Key, NONE, Slab};
use crate::websocket::Pool;

/// A range that brings nothing, time after time, is asked for ever more seldom, but after so many
/// milliseconds still: its channel may have been deleted, and then there is nothing to say.
const RANGE_RETRY_MS_MAX: u64 = 16_000;

/// Counts as channels of a hold that never end (hold.md, `persistent`).
const STAYS: u16 = 1 << 15;

/// What the shell sets.
#[derive(Clone, Copy, Debug)]
pub struct MembersConfig {
    /// Makes the hashes of channel names unpredictable.
    pub seed: u64,
    /// A range that was not answered is asked for again after so many milliseconds.
    pub range_retry_ms: u64,
}

/// Bytes to write to one connection.
#[derive(Debug)]
pub struct Delivery {
    /// The connection, as it was named when its hold was opened.
    pub connection: Key,
    /// What to write.
    pub bytes: DeliveryBytes,
    /// Every channel of the connection has ended with this: it is to be finished.
    pub end: bool,
}

/// Rendered events.
#[derive(Debug)]
pub enum DeliveryBytes {
    /// Shared with others, from an offset on.
    Shared(Rc<[u8]>, usize),
    /// Made for this connection.
    Own(Vec<u8>),
}

impl AsRef<[u8]> for DeliveryBytes {
    fn as_ref(&self) -> &[u8] {
        match self {
            DeliveryBytes::Shared(bytes, start) => &bytes[*start..],
            DeliveryBytes::Own(bytes) => bytes,
        }
    }
}

/// One connection's part in one channel.
#[derive(Debug)]
struct Member {
    hold: u32,
    /// The next member of the same hold.
    next: u32,
    channel: u32,
    /// The last event that it has ended the channel.
    ended: bool,
    place: Place,
}

/// One connection.
#[derive(Debug)]
struct Hold {
    /// With its place the key of the connection.
    generation: u32,
    /// The first of its members.
    members: u32,
    /// Channels that have not ended; and [`STAYS`], if it stays when they all have.
    open: u16,
    /// Its connection takes nothing for now.
    blocked: bool,
    rendering: Rendering,
    /// The names of its channels for composite ids, in the order of its members, if it has several
    /// and got an event since they changed.
    names: Option<Box<HashedNames>>,
}

/// Deliveries that are due now. (Those to members behind have a list of their own.)
#[derive(Debug)]
enum Job {
    /// The fan-out of this channel goes on.
    Fanout(Key),
    /// This hold has got the end of all its channels, unless one was added since.
    Finish(Key),
}

/// The machine.
#[derive(Debug)]
pub struct Members {
    config: MembersConfig,
    limits: FanoutLimits,
    names: Names,
    channels: Slab<Channel>,
    members: Slab<Member>,
    /// By the places of their connections.
    holds: Paged<Hold>,
    /// Those of members who do not stand where others do.
    cursors: Slab<Cursor>,
    jobs: VecDeque<Job>,
    /// Channels in which members behind may go on.
    catchups: VecDeque<Key>,
    slice: Slice,
    /// What compresses events.
    pool: Pool,
    /// Channels that may need a range.
    unsettled: VecDeque<Key>,
    outputs: VecDeque<Want>,
    /// When to look again at a channel whose range is on its way.
    retries: BTreeSet<(u64, Key)>,
}

impl Members {
    /// A worker without holds.
    pub fn new(config: MembersConfig) -> Self {
        Members::with_fanout_limits(config, FanoutLimits::default())
    }

    /// A worker without holds, with other limits of its fan-outs.
    pub fn with_fanout_limits(config: MembersConfig, limits: FanoutLimits) -> Self {
        Members {
            config,
            limits,
            names: Names::new(config.seed),
            channels: Slab::default(),
            members: Slab::default(),
            holds: Paged::default(),
            cursors: Slab::default(),
            jobs: VecDeque::new(),
            catchups: VecDeque::new(),
            slice: Slice::default(),
            pool: Pool::new(),
            unsettled: VecDeque::new(),
            outputs: VecDeque::new(),
            retries: BTreeSet::new(),
        }
    }

    /// How many holds there are.
    pub fn holds(&self) -> usize {
        self.holds.len()
    }

    /// The bytes that a member and a hold take in their tables.
    pub const fn entry_bytes() -> (usize, usize) {
        (size_of::<Member>(), size_of::<Hold>())
    }

    /// Opens a hold for a connection that reads these channels from these cursors, and gets them in this form. If all of them
    /// have ended for it, the hold has too, once it is polled (hold.md H-16, H-28).
    ///
    /// A connection has one hold at a time.
    pub fn open<'c>(
        &mut self,
        (connection, rendering): (Key, Rendering),
        channels: impl Iterator<Item = HoldChannel<'c>>,
    ) {
        let Key { index, generation } = connection;
        let (members, open, blocked, names) = (NONE, 0, false, None);
        let hold = Hold { generation, members, open, blocked, rendering, names };
        let before = self.holds.insert(index, hold);
        debug_assert!(before.is_none(), "the hold before was closed");
        for channel in channels {
            self.add(connection, channel);
        }
    }

    /// Lets a hold that was just opened stay when all its channels have ended.
    pub fn keep_open(&mut self, hold: Key) {
        let Some(entry) = self.hold_mut(hold) else { return };
        debug_assert!(entry.open < STAYS, "once");
        entry.open += STAYS;
    }

    /// Lets a hold read one more channel; does nothing if it reads it already.
    pub fn add(&mut self, hold: Key, channel: HoldChannel<'_>) {
        let HoldChannel { name, cursor, ended } = channel;
        if self.hold(hold).is_none() || self.member_of(hold, name).is_some() {
            return;
        }
        let channel = self.channel(name);
        self.channels[channel.index].members += 1;
        let place = Place::Stalled(self.own(cursor));
        let entry = &mut self.holds[hold.index];
        let member =
            Member { hold: hold.index, next: entry.members, channel: channel.index, ended, place };
        let key = self.members.insert(member);
        entry.members = key.index;
        entry.names = None;
        entry.open += u16::from(!ended);
        if entry.open == 0 {
            self.jobs.push_back(Job::Finish(hold));
        }
        if !entry.blocked {
            self.replace(key.index, cursor);
        }
        self.settle(channel);
    }

    /// Lets a hold read a channel no more. If all that are left have ended, so does the hold.
    pub fn remove(&mut self, hold: Key, name: &str) {
        let Some(index) = self.member_of(hold, name) else { return };
        self.holds[hold.index].names = None;
        let mut link = self.holds[hold.index].members;
        if link == index {
            self.holds[hold.index].members = self.members[index].next;
        } else {
            while self.members[link].next != index {
                link = self.members[link].next;
            }
            self.members[link].next = self.members[index].next;
        }
        let ended = self.members[index].ended;
        self.leave(index);
        let entry = &self.holds[hold.index];
        if !ended && entry.open == 0 && entry.members != NONE {
            self.jobs.push_back(Job::Finish(hold));
        }
    }

    /// Ends a hold; its members leave their channels.
    pub fn close(&mut self, hold: Key) {
        let Some(entry) = self.hold(hold) else { return };
        let mut index = entry.members;
        while index != NONE {
            let next = self.members[index].next;
            self.leave(index);
            index = next;
        }
        self.holds.remove(hold.index);
    }

    /// The channels of a hold and where it stands in each.
    pub fn cursors(&self, hold: Key) -> impl Iterator<Item = (&str, Cursor)> + '_ {
        let first = self.hold(hold).map_or(NONE, |entry| entry.members);
        self.chain(first).map(|index| {
            let member = &self.members[index];
            (&*self.channels[member.channel].name, self.cursor(member))
        })
    }

    /// The connection of this hold takes nothing more: it falls behind.
    pub fn handle_blocked(&mut self, hold: Key) {
        let Some(entry) = self.hold_mut(hold) else { return };
        entry.blocked = true;
        let mut index = entry.members;
        while index != NONE {
            if let Place::Behind(own) = self.members[index].place {
                self.take_from_list(index);
                self.members[index].place = Place::Stalled(own);
            }
            index = self.members[index].next;
        }
    }

    /// The connection of this hold takes bytes again.
    pub fn handle_drained(&mut self, hold: Key) {
        let Some(entry) = self.hold_mut(hold) else { return };
        entry.blocked = false;
        let mut index = entry.members;
        while index != NONE {
            if let Place::Stalled(own) = self.members[index].place {
                self.replace(index, self.cursors[own.0]);
                let channel = self.members[index].channel;
                self.settle(self.channels.key_at(channel).expect("members have a channel"));
            }
            index = self.members[index].next;
        }
    }

    /// Takes what the feeds say.
    pub fn handle_fed(&mut self, fed: &Fed) {
        match fed {
            Fed::Events(run) => self.handle_events(run),
            Fed::Head(name, head) => {
                if let Some(channel) = self.find(name) {
                    self.learn(channel, *head);
                    self.settle(channel);
                }
            }
            Fed::Gap(gap) => self.handle_gap(gap),
        }
    }

    /// Events of a channel, which ends there, were lost on their way here: a range that was asked for is not waited for.
    pub fn handle_missed(&mut self, name: &str, head: Cursor) {
        if let Some(channel) = self.find(name) {
            self.learn(channel, head);
            self.handle_answer(channel, |_| true);
            self.settle(channel);
        }
    }

    fn handle_events(&mut self, run: &Arc<Run>) {
        let Some(key) = self.find(run.channel()) else { return };
        self.learn(key, run.last());
        self.channels[key.index].enqueue(run, &self.limits);
        self.handle_answer(key, |after| run.index_after(after).is_some());
        if self.channels[key.index].catch_up(run, &self.limits) {
            self.catchups.push_back(key);
        }
        self.settle(key);
    }

    fn handle_gap(&mut self, gap: &Arc<MissingRun>) {
        let Some(key) = self.find(&gap.channel) else { return };
        self.learn(key, gap.last_known());
        self.handle_answer(key, |after| gap.concerns(after));
        let channel = &mut self.channels[key.index];
        // Those who have events waiting get them, though they are kept no more.
        if channel.is_queue_empty()
            && let Some(head) = channel.head.filter(|head| gap.concerns(*head))
        {
            for index in std::mem::take(&mut channel.live) {
                let own = self.own(head);
                let member = &mut self.members[index];
                if self.holds[member.hold].blocked {
                    member.place = Place::Stalled(own);
                } else {
                    member.place = Place::Behind(own);
                    self.channels[key.index].moving().behind.insert((head, index));
                }
            }
        }
        if self.channels[key.index].catch_up_gap(gap, &self.limits) {
            self.catchups.push_back(key);
        }
        self.settle(key);
    }

    /// The range that was asked for may have come.
    fn handle_answer(&mut self, key: Key, answers: impl Fn(Cursor) -> bool) {
        let channel = &mut self.channels[key.index];
        if channel.motion().is_none() {
            return;
        }
        let motion = channel.moving();
        if let Some((_, due)) = motion.asked.take_if(|(after, _)| answers(*after)) {
            motion.fruitless = 0;
            self.retries.remove(&(due, key));
        }
    }

    /// Hears of an event of a channel. If it is new, a range that brought nothing may bring more, and
    /// one after what was not known yet is of no use.
    fn learn(&mut self, key: Key, id: Cursor) {
        let channel = &mut self.channels[key.index];
        let awaited = channel.awaits();
        let is_fruitless = channel.motion().is_some_and(|motion| motion.fruitless > 0);
        if channel.learn(id) && (is_fruitless || !awaited) {
            self.handle_answer(key, |_| true);
        }
    }

    /// Asks again for ranges that were not answered.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        while let Some(&(due, key)) = self.retries.first() {
            if due > now_ms {
                return;
            }
            self.retries.pop_first();
            let Some(channel) = self.channels.get_mut(key) else { continue };
            let motion = channel.moving();
            if motion.asked.take_if(|(_, due)| *due <= now_ms).is_some() {
                motion.fruitless = motion.fruitless.saturating_add(1);
            }
            if channel.known().is_none() {
                self.outputs.push_back(Want::Open(Arc::clone(&channel.name)));
            }
            self.settle(key);
        }
    }

    /// When [`Members::handle_timeout`] has something to do.
    pub fn next_deadline(&self) -> Option<u64> {
        self.retries.first().map(|(due, _)| *due)
    }

    /// What to ask the feeds for. A channel whose catch-ups are not all out asks for nothing; that
    /// others have deliveries to come holds nobody up.
    pub fn poll_output(&mut self, now_ms: u64) -> Option<Want> {
        loop {
            if let Some(want) = self.outputs.pop_front() {
                if let Want::Open(name) = &want
                    && let Some(key) = self.find(name)
                {
                    self.retries.insert((now_ms + self.config.range_retry_ms, key));
                }
                return Some(want);
            }
            let key = self.unsettled.pop_front()?;
            let Some(channel) = self.channels.get_mut(key) else { continue };
            channel.unsettled = false;
            if channel.is_catching_up() || channel.awaits() {
                continue;
            }
            if let Some(after) = channel.need(&self.limits) {
                let known = channel.known();
                let motion = channel.moving();
                if let Some((pending, due)) = motion.asked {
                    // That one may bring nothing; it waits, unless something is known to exist.
                    if Some(after) > known || after == pending {
                        continue;
                    }
                    self.retries.remove(&(due, key));
                }
                let wait_ms = self.config.range_retry_ms;
                let longer_ms = wait_ms.saturating_mul(1 << motion.fruitless.min(8));
                let retry_ms = now_ms + longer_ms.min(wait_ms.max(RANGE_RETRY_MS_MAX));
                motion.asked = Some((after, retry_ms));
                motion.swept = Some(after);
                self.retries.insert((retry_ms, key));
                return Some(Want::Range(Arc::clone(&channel.name), after));
            }
        }
    }

    /// Moves a channel on after a change: begins a fan-out, promotes who has caught up, and marks
    /// it for a look at what it needs, unless it rests.
    fn settle(&mut self, key: Key) {
        let Some(channel) = self.channels.get_mut(key) else { return };
        if channel.fanout().is_some_and(|fanout| fanout.due.is_empty()) {
            channel.moving().fanout = None;
        }
        if channel.begin_fanout(&self.limits) {
            self.jobs.push_back(Job::Fanout(key));
        }
        while let Some(index) = self.channels[key.index].next_at_head() {
            self.displace(index);
            self.members[index].place = self.channels[key.index].join_live(index);
        }
        let channel = &mut self.channels[key.index];
        channel.rest();
        if channel.motion().is_some() && !std::mem::replace(&mut channel.unsettled, true) {
            self.unsettled.push_back(key);
        }
    }

    fn find(&self, name: &str) -> Option<Key> {
        let index = self.names.get(name, |index| &self.channels[index].name)?;
        self.channels.key_at(index)
    }

    fn channel(&mut self, name: &str) -> Key {
        if let Some(key) = self.find(name) {
            return key;
        }
        let name: Arc<str> = name.into();
        let key = self.channels.insert(Channel::new(Arc::clone(&name)));
        self.names.insert(&name, key.index, |index| &self.channels[index].name);
        self.outputs.push_back(Want::Open(name));
        key
    }

    fn hold(&self, key: Key) -> Option<&Hold> {
        self.holds.get(key.index).filter(|hold| hold.generation == key.generation)
    }

    fn hold_mut(&mut self, key: Key) -> Option<&mut Hold> {
        self.holds.get_mut(key.index).filter(|hold| hold.generation == key.generation)
    }

    /// The connection of a member.
    fn connection(&self, member: u32) -> Key {
        let index = self.members[member].hold;
        Key { index, generation: self.holds[index].generation }
    }

    /// Keeps the cursor of a member that does not stand where others do.
    fn own(&mut self, cursor: Cursor) -> OwnCursor {
        OwnCursor(self.cursors.insert(cursor).index)
    }

    fn chain(&self, first: u32) -> impl Iterator<Item = u32> + Clone + '_ {
        std::iter::successors((first != NONE).then_some(first), |&index| {
            Some(self.members[index].next).filter(|&next| next != NONE)
        })
    }

    fn member_of(&self, hold: Key, name: &str) -> Option<u32> {
        let first = self.hold(hold)?.members;
        self.chain(first).find(|&index| &*self.channels[self.members[index].channel].name == name)
    }

    fn cursor(&self, member: &Member) -> Cursor {
        let channel = &self.channels[member.channel];
        match member.place {
            Place::Listed { round, .. } if round == channel.round => {
                channel.head.expect("live members stand at the head")
            }
            Place::Listed { .. } => channel.fanout().expect("they wait for it").from,
            Place::Behind(own) | Place::Stalled(own) => self.cursors[own.0],
        }
    }

    /// Puts a member that is in no list and has a cursor of its own at a cursor.
    fn replace(&mut self, index: u32, cursor: Cursor) {
        self.displace(index);
        self.place(index, cursor);
    }

    /// Puts a member that is nowhere at a cursor.
    fn place(&mut self, index: u32, cursor: Cursor) {
        let channel = self.members[index].channel;
        self.members[index].place = if self.channels[channel].head == Some(cursor) {
            self.channels[channel].join_live(index)
        } else {
            self.channels[channel].moving().behind.insert((cursor, index));
            Place::Behind(self.own(cursor))
        };
    }

    /// Takes a member out of where it is. It must be placed again, or go.
    fn displace(&mut self, index: u32) {
        self.take_from_list(index);
        match self.members[index].place {
            Place::Listed { .. } => {}
            Place::Behind(own) | Place::Stalled(own) => {
                let key = self.cursors.key_at(own.0).expect("it has a cursor of its own");
                self.cursors.remove(key);
            }
        }
    }

    /// Takes a member out of the list that it is in.
    fn take_from_list(&mut self, index: u32) {
        let member = &self.members[index];
        let channel = &mut self.channels[member.channel];
        match member.place {
            Place::Listed { position, round } => {
                let list = channel.list(round);
                list.swap_remove(position as usize);
                if let Some(&moved) = list.get(position as usize) {
                    self.members[moved].place = Place::Listed { position, round };
                }
            }
            Place::Behind(own) => {
                channel.moving().behind.remove(&(self.cursors[own.0], index));
            }
            Place::Stalled(_) => {}
        }
    }

    /// Takes a member out of its channel, and the channel away with its last one.
    fn leave(&mut self, index: u32) {
        self.displace(index);
        let key = self.members.key_at(index).expect("it is a member");
        let member = self.members.remove(key).expect("it is a member");
        if !member.ended {
            self.holds[member.hold].open -= 1;
        }
        let channel = self.channels.key_at(member.channel).expect("members have a channel");
        let entry = &mut self.channels[channel.index];
        entry.members -= 1;
        if entry.members > 0 {
            self.settle(channel);
            return;
        }
        let name = Arc::clone(&entry.name);
        self.handle_answer(channel, |_| true);
        self.channels.remove(channel);
        self.names.remove(&name, channel.index);
        self.outputs.push_back(Want::Close(name));
    }
}
