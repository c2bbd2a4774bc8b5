//! What is written next: fan-outs a slice at a time, catch-ups, and gaps.

use std::rc::Rc;
use std::sync::Arc;

use zhttp::{Cursor, composite};

use super::super::channel::{Fanout, Place};
use super::super::run::Run;
use super::super::sse::{self, Block};
use super::super::{MissingRun, Shared};
use super::{Delivery, DeliveryBytes, HoldKey, Job, Members};
use crate::slab::{Key, NONE};

/// Deliveries to one channel before another has its turn.
const SLICE_MEMBERS: u32 = 64;

impl Members {
    /// Whether [`Members::poll_delivery`] has something to say.
    pub fn has_deliveries(&self) -> bool {
        !self.jobs.is_empty()
    }

    /// What to write next. If the connection takes nothing more after it, say so before the next
    /// call. `None` when nothing is due.
    pub fn poll_delivery(&mut self) -> Option<Delivery> {
        loop {
            let delivery = match self.jobs.front()? {
                Job::Fanout(channel) => {
                    let channel = *channel;
                    match self.next_due(channel) {
                        Some((index, fanout)) => {
                            let delivery = self.deliver_fanout(index, &fanout);
                            self.restore_fanout(channel, fanout);
                            delivery
                        }
                        None => {
                            self.jobs.pop_front();
                            self.slice_members = 0;
                            self.settle(channel);
                            continue;
                        }
                    }
                }
                Job::Catchup(..) | Job::Gap(..) | Job::Finish(_) => match self.jobs.pop_front()? {
                    Job::Catchup(channel, member, run, block) => {
                        let place = self.catchup_place(channel, member);
                        place.and_then(|place| self.deliver_catchup(place, &run, &block))
                    }
                    Job::Gap(channel, member, gap) => {
                        let place = self.catchup_place(channel, member);
                        place.and_then(|place| self.deliver_gap(place, &gap))
                    }
                    Job::Finish(hold) => self.deliver_end(hold),
                    Job::Fanout(_) => unreachable!("matched above"),
                },
            };
            if delivery.is_some() {
                return delivery;
            }
        }
    }

    /// The next member of a fan-out, with the fan-out taken out of its channel.
    fn next_due(&mut self, key: Key) -> Option<(u32, Box<Fanout>)> {
        let channel = self.channels.get_mut(key)?;
        let mut fanout = channel.fanout.take()?;
        let index = fanout.due.pop()?;
        Some((index, fanout))
    }

    /// Puts a fan-out back, and lets another channel have its turn if the slice is over.
    fn restore_fanout(&mut self, key: Key, fanout: Box<Fanout>) {
        self.channels[key.index].fanout = Some(fanout);
        self.slice_members += 1;
        if self.slice_members >= SLICE_MEMBERS {
            self.slice_members = 0;
            self.jobs.rotate_left(1);
        }
    }

    fn deliver_fanout(&mut self, index: u32, fanout: &Fanout) -> Option<Delivery> {
        let member = &mut self.members[index];
        if self.holds[member.hold].blocked {
            member.place = Place::Stalled(fanout.from);
            return None;
        }
        member.place = self.channels[member.channel].join_live(index);
        let shared = (Rc::clone(fanout.block.bytes()), 0);
        Some(self.delivery(index, &fanout.runs, shared, fanout.end))
    }

    fn deliver_catchup(
        &mut self,
        (index, cursor): (u32, Cursor),
        run: &Arc<Run>,
        block: &Block,
    ) -> Option<Delivery> {
        let skip = run.index_after(cursor)?;
        self.displace(index);
        self.place(index, run.last());
        let shared = (Rc::clone(block.bytes()), block.start_of(skip));
        let end = run.events().last().is_some_and(|event| event.end);
        Some(self.delivery(index, &[(Arc::clone(run), skip)], shared, end))
    }

    fn deliver_gap(
        &mut self,
        (index, cursor): (u32, Cursor),
        gap: &MissingRun,
    ) -> Option<Delivery> {
        if !gap.concerns(cursor) {
            return None;
        }
        self.displace(index);
        self.place(index, gap.resume());
        self.reopen(index);
        let data = sse::gap_data(gap, cursor);
        let mut out = Vec::with_capacity(data.len() + 64);
        let id = self.event_id(index, gap.resume());
        sse::write_event(&mut out, sse::CONTROL, &id, data.as_bytes());
        Some(self.own_delivery(index, out, false))
    }

    /// Finishes a hold whose last open channel was taken from it, if that is still so.
    fn deliver_end(&self, key: HoldKey) -> Option<Delivery> {
        let hold = self.holds.get(key).filter(|hold| hold.open == 0 && hold.members != NONE)?;
        let bytes = DeliveryBytes::Own(Vec::new());
        Some(Delivery { hold: key, connection: hold.connection, bytes, end: true })
    }

    /// A member whose catch-up has its turn, if it still stands behind.
    fn catchup_place(&mut self, channel: Key, member: Key) -> Option<(u32, Cursor)> {
        self.channels.get_mut(channel)?.catchups -= 1;
        self.settle(channel);
        match self.members.get(member)?.place {
            Place::Behind(cursor) => Some((member.index, cursor)),
            Place::Listed { .. } | Place::Stalled(_) => None,
        }
    }

    /// The delivery of these runs to a member that has just been moved behind them.
    fn delivery(
        &mut self,
        index: u32,
        runs: &[(Arc<Run>, usize)],
        (bytes, start): (Shared, usize),
        end: bool,
    ) -> Delivery {
        self.reopen(index);
        if self.members[index].next == NONE && self.holds[self.members[index].hold].members == index
        {
            let hold = self.members[index].hold;
            let connection = self.holds[hold].connection;
            let finished = end && self.finish(index);
            let hold = self.holds.key_at(hold).expect("members have a hold");
            let bytes = DeliveryBytes::Shared(bytes, start);
            return Delivery { hold, connection, bytes, end: finished };
        }
        let mut out = Vec::with_capacity(bytes.len() - start);
        for (run, skip) in runs {
            for (offset, event) in run.events().iter().enumerate().skip(*skip) {
                let id = self.event_id(index, run.id(offset));
                sse::write_event(&mut out, event.kind(), &id, &event.data);
            }
        }
        let finished = end && self.finish(index);
        self.own_delivery(index, out, finished)
    }

    fn own_delivery(&self, index: u32, out: Vec<u8>, end: bool) -> Delivery {
        let hold = self.members[index].hold;
        Delivery {
            hold: self.holds.key_at(hold).expect("members have a hold"),
            connection: self.holds[hold].connection,
            bytes: DeliveryBytes::Own(out),
            end,
        }
    }

    /// The id that a connection gets with an event of one of its channels: the cursor, or all its
    /// cursors.
    fn event_id(&self, index: u32, cursor: Cursor) -> Vec<u8> {
        let mut out = Vec::new();
        let first = self.holds[self.members[index].hold].members;
        if self.members[first].next == NONE {
            sse::write_cursor(&mut out, cursor);
            return out;
        }
        let cursors = self.chain(first).map(|other| {
            let member = &self.members[other];
            let cursor = if other == index { cursor } else { self.cursor(member) };
            (&*self.channels[member.channel].name, cursor)
        });
        // Without room for all its cursors the event has no id (H-64), and the client's last one
        // stays: it may get events again, but misses none.
        let _ = composite::encode(cursors, &mut out);
        out
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
