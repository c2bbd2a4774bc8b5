//! What is written next: fan-outs and catch-ups, a slice at a time, and gaps.
//!
//! What is new goes to those who keep up at once; what is old goes to those who are behind, who wait already. A write of
//! the first kind is an event, one of the second up to 64 KiB: a thousand clients that come back from a pause would
//! hold up all others for as long as 64 MiB take. So fan-outs go first, and catch-ups get what is left, but
//! a slice after each [`FANOUTS_PER_CATCHUP`] slices of fan-outs at least. Among their kind channels take turns.

use std::rc::Rc;

use zhttp::Cursor;
use zhttp::composite::HashedNames;

use super::super::MissingRun;
use super::super::batch::{Batch, Entry};
use super::super::catchup::Next;
use super::super::channel::{Channel, Place};
use super::super::{Rendering, message, sse};
use super::{Delivery, DeliveryBytes, Job, Members};
use crate::slab::{Key, NONE};

/// Members that one job looks at before another has its turn, those who get nothing among them.
const SLICE_MEMBERS: u32 = 64;

/// Bytes that one job writes before another has its turn, and what the write has more that passes this: a tenth of a
/// millisecond of copying.
const SLICE_BYTES: usize = 128 * 1024;

/// Slices of fan-outs after which a catch-up has one, however many fan-outs there are.
const FANOUTS_PER_CATCHUP: u32 = 8;

/// Whose turn it is, and how much of it is used up.
#[derive(Debug, Default)]
pub(super) struct Slice {
    is_catchup: bool,
    members: u32,
    bytes: usize,
    /// Slices of fan-outs since the last one of a catch-up.
    fanouts: u32,
}

/// What a job did.
enum Step {
    /// It wrote to a member.
    Write(Delivery),
    /// It looked at a member who gets nothing.
    Pass,
    /// It did its last write.
    Last(Delivery),
    /// It is done, with this channel if it was one's.
    Over(Option<Key>),
}

impl Members {
    /// Whether [`Members::poll_delivery`] has something to say.
    pub fn has_deliveries(&self) -> bool {
        !self.jobs.is_empty() || !self.catchups.is_empty()
    }

    /// What to write next. If the connection takes nothing more after it, say so before the next
    /// call. `None` when nothing is due.
    pub fn poll_delivery(&mut self) -> Option<Delivery> {
        while self.has_deliveries() {
            self.choose_kind();
            let step = match (self.slice.is_catchup, self.jobs.front()) {
                (true, _) | (false, None) => self.step_catchup(*self.catchups.front()?),
                (false, Some(Job::Fanout(channel))) => self.step_fanout(*channel),
                (false, Some(Job::Finish(hold))) => match self.deliver_end(*hold) {
                    Some(delivery) => Step::Last(delivery),
                    None => Step::Over(None),
                },
            };
            match step {
                Step::Write(delivery) => {
                    self.count_step(delivery.bytes.as_ref().len());
                    return Some(delivery);
                }
                Step::Pass => self.count_step(0),
                Step::Last(delivery) => {
                    self.end_job();
                    return Some(delivery);
                }
                Step::Over(channel) => {
                    self.end_job();
                    channel.into_iter().for_each(|channel| self.settle(channel));
                }
            }
        }
        None
    }

    /// Decides whether a fan-out or a catch-up is next. A slice that has begun goes on.
    fn choose_kind(&mut self) {
        let slice = &mut self.slice;
        let goes_on = slice.members > 0;
        let is_due = if goes_on { slice.is_catchup } else { slice.fanouts >= FANOUTS_PER_CATCHUP };
        slice.is_catchup = self.jobs.is_empty() || is_due && !self.catchups.is_empty();
    }

    /// Lets another job have its turn if the slice of this one is over.
    fn count_step(&mut self, bytes: usize) {
        self.slice.members += 1;
        self.slice.bytes += bytes;
        if self.slice.members < SLICE_MEMBERS && self.slice.bytes < SLICE_BYTES {
            return;
        }
        if self.slice.is_catchup {
            self.catchups.rotate_left(1);
        } else {
            self.jobs.rotate_left(1);
        }
        self.end_slice();
    }

    fn end_job(&mut self) {
        if self.slice.is_catchup {
            self.catchups.pop_front();
        } else {
            self.jobs.pop_front();
        }
        self.end_slice();
    }

    fn end_slice(&mut self) {
        let fanouts = if self.slice.is_catchup { 0 } else { self.slice.fanouts.saturating_add(1) };
        self.slice = Slice { fanouts, ..Slice::default() };
    }

    fn step_fanout(&mut self, key: Key) -> Step {
        let fanout = self.channels.get_mut(key).and_then(Channel::fanout_mut);
        let Some(fanout) = fanout else { return Step::Over(Some(key)) };
        let Some(index) = fanout.due.pop() else { return Step::Over(Some(key)) };
        let (from, batch) = (fanout.from, Rc::clone(&fanout.batch));
        if self.holds[self.members[index].hold].blocked {
            self.members[index].place = Place::Stalled(self.own(from));
            return Step::Pass;
        }
        let member = &mut self.members[index];
        member.place = self.channels[member.channel].join_live(index);
        Step::Write(self.delivery(index, &batch, batch.start()))
    }

    fn step_catchup(&mut self, key: Key) -> Step {
        let channel = self.channels.get_mut(key).filter(|channel| channel.motion().is_some());
        let Some(channel) = channel else { return Step::Over(Some(key)) };
        let motion = channel.moving();
        match motion.catchups.next(&motion.behind) {
            Next::Events(index, batch, entry) => {
                self.displace(index);
                self.place(index, batch.last());
                Step::Write(self.delivery(index, &batch, entry))
            }
            Next::Gap(index, cursor, gap) => Step::Write(self.deliver_gap((index, cursor), &gap)),
            Next::Nobody => Step::Pass,
            Next::Nothing => Step::Over(Some(key)),
        }
    }

    fn deliver_gap(&mut self, (index, cursor): (u32, Cursor), gap: &MissingRun) -> Delivery {
        self.displace(index);
        self.place(index, gap.resume());
        self.reopen(index);
        let data = sse::gap_data(gap, cursor);
        let mut out = Vec::with_capacity(data.len() + 64);
        let mut id = Vec::new();
        let hold = self.members[index].hold;
        match self.holds[hold].rendering {
            rendering @ (Rendering::Sse | Rendering::SseChunks) => {
                self.hash_names(hold);
                self.write_event_id(index, gap.resume(), &mut id);
                write_event(rendering, &mut out, (sse::CONTROL, &id, data.as_bytes()));
            }
            Rendering::Message | Rendering::CompressedMessage => {
                sse::write_cursor(&mut id, gap.resume());
                let (channel, data) = (&*gap.channel, data.as_bytes());
                let event = message::Event { channel, kind: sse::CONTROL, id: &id, data };
                message::write(&mut out, &mut self.pool, None, &event);
            }
        }
        let connection = self.connection(index);
        Delivery { connection, bytes: DeliveryBytes::Own(out), end: false }
    }

    /// Finishes a hold that has no open channel, if that is still so.
    fn deliver_end(&self, key: Key) -> Option<Delivery> {
        self.hold(key).filter(|hold| hold.open == 0 && hold.members != NONE)?;
        Some(Delivery { connection: key, bytes: DeliveryBytes::Own(Vec::new()), end: true })
    }

    /// The delivery of a batch from some place on, to a member that has just been moved behind it.
    fn delivery(&mut self, index: u32, batch: &Batch, entry: Entry) -> Delivery {
        self.reopen(index);
        let member = &self.members[index];
        let hold = &self.holds[member.hold];
        let rendering = hold.rendering;
        let is_only = member.next == NONE && hold.members == index;
        let connection = Key { index: member.hold, generation: hold.generation };
        let (shared, start) = batch.rendered_from(entry, rendering, &mut self.pool);
        if is_only || rendering.is_the_same_for_all() {
            let end = batch.ends() && self.finish(index);
            return Delivery { connection, bytes: DeliveryBytes::Shared(shared, start), end };
        }
        self.hash_names(connection.index);
        let mut out = Vec::with_capacity(shared.len() - start);
        let mut id = Vec::new();
        for (cursor, event) in batch.events_from(entry) {
            self.write_event_id(index, cursor, &mut id);
            write_event(rendering, &mut out, (event.kind(), &id, &event.data));
        }
        let end = batch.ends() && self.finish(index);
        Delivery { connection, bytes: DeliveryBytes::Own(out), end }
    }

    /// Writes the id that a connection gets with an event of one of its channels: the cursor, or all
    /// its cursors.
    fn write_event_id(&self, index: u32, cursor: Cursor, out: &mut Vec<u8>) {
        out.clear();
        let hold = &self.holds[self.members[index].hold];
        if self.members[hold.members].next == NONE {
            return sse::write_cursor(out, cursor);
        }
        let cursors = self
            .chain(hold.members)
            .map(|other| if other == index { cursor } else { self.cursor(&self.members[other]) });
        // Without room for all its cursors the event has no id (H-73), and the client's last one
        // stays: it may get events again, but misses none.
        let _ = hold.names.as_ref().map(|names| names.encode(cursors, out));
    }

    /// Hashes the names of a hold with several channels, if they have changed.
    fn hash_names(&mut self, hold: u32) {
        let entry = &self.holds[hold];
        if entry.names.is_some() || self.members[entry.members].next == NONE {
            return;
        }
        let names = self
            .chain(entry.members)
            .map(|member| &*self.channels[self.members[member].channel].name);
        let names = HashedNames::new(names).ok().map(Box::new);
        self.holds[hold].names = names;
    }

    /// A member has got the end of its channel. Says whether its connection has got them all.
    fn finish(&mut self, index: u32) -> bool {
        let member = &mut self.members[index];
        member.ended = true;
        let hold = &mut self.holds[member.hold];
        hold.open -= 1;
        hold.open == 0
    }

    /// A member gets events: if its channel had ended, it goes on.
    fn reopen(&mut self, index: u32) {
        let member = &mut self.members[index];
        if std::mem::take(&mut member.ended) {
            self.holds[member.hold].open += 1;
        }
    }
}

/// Writes an event for one connection: its type, its id and its data.
fn write_event(rendering: Rendering, out: &mut Vec<u8>, (kind, id, data): (&str, &[u8], &[u8])) {
    match rendering {
        Rendering::Sse => sse::write_event(out, kind, id, data),
        Rendering::SseChunks => sse::write_chunk(out, kind, id, data),
        Rendering::Message | Rendering::CompressedMessage => {
            unreachable!("a message is the same for all")
        }
    }
}
