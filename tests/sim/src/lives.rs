//! The lives of the edge: it starts, is paused, drains and stops, is killed, and comes back.

use std::collections::BTreeSet;

use crate::coverage::Mark;
use crate::edge::Edge;
use crate::schedule::Action;
use crate::sockets::Conn;
use crate::world::{World, trace};

impl World {
    pub(crate) fn edge_start(&mut self) -> Result<(), String> {
        if self.edge.is_some() {
            return Ok(());
        }
        self.edge_lives += 1;
        trace!(self, "the edge starts");
        self.edge = Some(Edge::new(self.edge_lives, &self.scenario, self.now_ms));
        self.oracles.edge_started();
        for handler in 0..self.handlers.len() {
            if self.handlers[handler].alive {
                self.renew_connection(handler);
            }
        }
        self.announce_plain()
    }

    /// Puts off what a paused edge would do.
    pub(crate) fn put_off_edge(&mut self, action: Action) -> Option<Action> {
        let touches = matches!(
            action,
            Action::HubPacket { .. }
                | Action::WorkerMessage { .. }
                | Action::HubMessage { .. }
                | Action::MakeGood { .. }
                | Action::WorkerTurn { .. }
                | Action::EdgeRead { .. }
                | Action::Writable { .. }
                | Action::PeerLost { .. }
                | Action::Reply { .. }
                | Action::EdgeStop { .. }
        );
        let until_ms = self.edge.as_ref().map_or(0, |edge| edge.paused_until_ms);
        if touches && until_ms > self.now_ms {
            self.schedule.defer(until_ms, action);
            return None;
        }
        Some(action)
    }

    /// The edge begins to drain; `stop_ms` later it stops.
    pub(crate) fn edge_drain(&mut self, stop_ms: u64) -> Result<(), String> {
        let Some(edge) = &mut self.edge else { return Ok(()) };
        if std::mem::replace(&mut edge.is_draining, true) {
            return Ok(());
        }
        let (life, seats) = (edge.life, edge.seats.len());
        self.drained_life = life;
        trace!(self, "the edge drains");
        self.mark(Mark::EdgeDrained);
        for worker in 0..seats {
            let mut has_more = false;
            self.at_worker(worker, |machine, sockets, now_ms| {
                has_more = machine.handle_work(now_ms, sockets, 0);
                machine.drain(now_ms, sockets);
            })?;
            if has_more {
                self.mark(Mark::DrainInDelivery);
            }
        }
        self.schedule.at(self.now_ms + stop_ms, Action::EdgeStop { life });
        Ok(())
    }

    /// The edge is gone: killed, or stopped `in_order`. It comes back after a while.
    pub(crate) fn edge_stop(&mut self, in_order: bool) -> Result<(), String> {
        trace!(self, "the edge stops, in order: {in_order}");
        if in_order {
            self.stopped_life = self.edge_lives;
            self.stop_workers()?;
        } else {
            self.mark(Mark::EdgeKilled);
        }
        let Some(edge) = self.edge.take() else { return Ok(()) };
        for handler in 0..self.handlers.len() {
            // Nothing of it is on its way any more, either side.
            self.handlers[handler].forget();
            self.clear_lines(handler);
        }
        for (worker, seat) in edge.seats.into_iter().enumerate() {
            for (key, socket) in seat.sockets.table {
                self.end_socket(Conn { life: edge.life, worker, key }, socket)?;
            }
        }
        let due_ms = self.now_ms + self.random.up_to(3000);
        self.schedule.at(due_ms, Action::EdgeStart);
        Ok(())
    }

    fn stop_workers(&mut self) -> Result<(), String> {
        let Some(edge) = &self.edge else { return Ok(()) };
        let (life, seats) = (edge.life, edge.seats.len());
        for worker in 0..seats {
            self.at_worker(worker, |machine, sockets, now_ms| machine.stop(now_ms, sockets))?;
            if let Some(edge) = self.edge_of(life) {
                edge.seats[worker].sockets.table.values_mut().for_each(|socket| {
                    socket.is_given_up = true;
                });
            }
            self.worker_outputs(life, worker)?;
            let Some(edge) = self.edge_of(life) else { continue };
            if edge.seats[worker].machine.connections() > 0 {
                return Err("connections are left behind the stop".into());
            }
        }
        Ok(())
    }

    /// What the edge has: channels that are followed, or that a handler was not told to let go; holds; connections.
    pub(crate) fn leftovers(&self) -> (usize, usize, BTreeSet<Conn>) {
        let Some(edge) = &self.edge else { return (0, 0, BTreeSet::new()) };
        let holds = edge.seats.iter().map(|seat| seat.machine.holds()).sum();
        let feeds = edge.hub.feeds();
        let is_followed = |name: &str| feeds.name(name).is_some();
        let forgotten = self.oracles.forgotten(edge.clock_ms(self.now_ms), is_followed);
        (feeds.channels() + forgotten, holds, edge.conns().into_iter().collect())
    }
}
